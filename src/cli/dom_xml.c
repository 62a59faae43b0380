/* A domain's document: dumpxml, edit, translation from and to command lines, description, title, metadata. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

bool cmd_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    unsigned flags =
        (vsh_has(a, "security-info") ? DOM_XML_SECURE : 0) | (vsh_has(a, "inactive") ? DOM_XML_INACTIVE : 0) |
        (vsh_has(a, "update-cpu") ? DOM_XML_UPDATE_CPU : 0) | (vsh_has(a, "migratable") ? DOM_XML_MIGRATABLE : 0);
    if (!vsh_domain(v, a, &dom))
        return false;
    autofree char *text = vsh_domain_text(v, &dom, flags);
    return text && vsh_print_xml(v, a, text);
}

struct edit_domain {
    unsigned flags;
};

static bool apply_domain(struct vsh *v, const char *text, void *opaque)
{
    const struct edit_domain *e = opaque;
    const rp_str_flags args = {(char *)text, e->flags};
    autodomain dom = {0};
    return vsh_call(v, RPC_PROC_DOMAIN_DEFINE_XML_FLAGS, &args, &dom);
}

bool cmd_edit(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    autofree char *text = vsh_domain_text(v, &dom, DOM_XML_INACTIVE | DOM_XML_SECURE);
    if (!text)
        return false;
    struct edit_domain e = {vsh_has(a, "skip-validate") ? 0 : 1};
    autofree char *what = xasprintf("Domain '%s'", dom.name);
    bool changed = false;
    return vsh_edit(v, text, what, apply_domain, &e, &changed) &&
           (!changed || (vsh_extra(v, "%s XML configuration edited.\n", what), true));
}

bool cmd_domxml_from_native(struct vsh *v, const struct vsh_args *a)
{
    autofree char *config = vsh_read_file(v, vsh_text(a, "config"));
    if (!config)
        return false;
    const rp_str_str_flags args = {(char *)vsh_text(a, "format"), config, 0};
    rp_string text;
    if (!vsh_call(v, RPC_PROC_CONNECT_DOMAIN_XML_FROM_NATIVE, &args, &text))
        return false;
    printf("%s\n", text);
    free(text);
    return true;
}

bool cmd_domxml_to_native(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *file = vsh_text(a, "xml"), *name = vsh_text(a, "domain");
    if (!vsh_exclusive(v, a, "domain", "xml"))
        return false;
    if (!file && !name)
        return vsh_error(v, "need either domain or domain XML");
    if (name && !vsh_domain_find(v, name, VSH_BY_ANY, &dom))
        return false;
    autofree char *xml = file ? vsh_read_file(v, file) : vsh_domain_text(v, &dom, DOM_XML_INACTIVE | DOM_XML_SECURE);
    if (!xml)
        return file ? false : vsh_error(v, "failed to retrieve XML");
    const rp_str_str_flags args = {(char *)vsh_text(a, "format"), xml, 0};
    rp_string text;
    if (!vsh_call(v, RPC_PROC_CONNECT_DOMAIN_XML_TO_NATIVE, &args, &text))
        return false;
    printf("%s\n", text);
    free(text);
    return true;
}

/* A description (0) or title (1); "" when there is none. NULL leaves v->error. */
static char *get_text(struct vsh *v, const rp_domain *dom, int type, unsigned flags)
{
    const rp_get_metadata args = {*dom, type, NULL, flags};
    rp_string text;
    if (vsh_call(v, RPC_PROC_DOMAIN_GET_METADATA, &args, &text))
        return text;
    if (v->error.code != VIR_NO_DOMAIN_METADATA)
        return NULL;
    vsh_error_reset(v);
    return xstrdup("");
}

struct edit_text {
    const rp_domain *dom;
    int type;
    unsigned flags;
    const char *key, *uri; /* of an element */
};

static bool apply_text(struct vsh *v, const char *text, void *opaque)
{
    const struct edit_text *e = opaque;
    autofree char *copy = xstrdup(text);
    size_t len = strlen(copy);
    if (e->type == 1 && len && copy[len - 1] == '\n')
        copy[len - 1] = 0; /* editors end files with one; titles have none */
    rp_string value = copy, key = (char *)e->key, uri = (char *)e->uri;
    const rp_set_metadata args = {*e->dom, e->type, &value, key ? &key : NULL, uri ? &uri : NULL, e->flags};
    return vsh_call(v, RPC_PROC_DOMAIN_SET_METADATA, &args, NULL);
}

bool cmd_desc(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    bool title = vsh_has(a, "title"), edit = vsh_has(a, "edit");
    const char *word, *what = title ? "title" : "description";
    autofree char *words = NULL;
    unsigned at = 0;
    while ((word = vsh_word(a, "new-desc", &at))) {
        char *longer = words ? xasprintf("%s %s", words, word) : xstrdup(word);
        free(words);
        words = longer;
    }
    struct edit_text e = {&dom, title, affect, NULL, NULL};
    autofree char *now = get_text(v, &dom, title, affect);
    if (!now)
        return false;
    if (!edit && !words) {
        if (*now)
            printf("%s", now);
        else
            vsh_extra(v, "No %s for domain: %s", what, dom.name);
        return true;
    }
    bool changed = true;
    autofree char *name = xasprintf("Domain %s", what);
    if (edit ? !vsh_edit(v, words ? words : now, NULL, apply_text, &e, &changed) : !apply_text(v, words, &e))
        return vsh_error(v, "Failed to set new domain %s", what);
    vsh_extra(v, changed ? "Domain %s updated successfully" : "Domain %s not changed\n", what);
    return true;
}

bool cmd_metadata(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int affect = vsh_affect(v, a);
    bool edit = vsh_has(a, "edit"), del = vsh_has(a, "remove");
    if (affect < 0 || !vsh_exclusive(v, a, "edit", "set") || !vsh_exclusive(v, a, "remove", "set") ||
        !vsh_exclusive(v, a, "remove", "edit") || !vsh_domain(v, a, &dom))
        return false;
    rp_string uri = (char *)vsh_text(a, "uri"), key = (char *)vsh_text(a, "key"), set = (char *)vsh_text(a, "set");
    if ((set || edit) && !key)
        return vsh_error(v, "namespace key is required when modifying metadata");
    if (set || del) {
        const rp_set_metadata args = {dom, 2, set ? &set : NULL, key ? &key : NULL, &uri, affect};
        if (!vsh_call(v, RPC_PROC_DOMAIN_SET_METADATA, &args, NULL))
            return false;
        vsh_extra(v, del ? "Metadata removed\n" : "Metadata modified\n");
        return true;
    }
    const rp_get_metadata args = {dom, 2, &uri, affect};
    rp_string text = NULL;
    bool there = vsh_call(v, RPC_PROC_DOMAIN_GET_METADATA, &args, &text);
    autofree char *owned = text;
    if (!there && !(edit && v->error.code == VIR_NO_DOMAIN_METADATA))
        return false;
    vsh_error_reset(v);
    if (!edit) {
        printf("%s\n", text);
        return true;
    }
    struct edit_text e = {&dom, 2, affect, key, uri};
    bool changed = false;
    if (!vsh_edit(v, text ? text : "\n", NULL, apply_text, &e, &changed))
        return false;
    vsh_extra(v, changed ? "Metadata modified\n" : "Metadata not changed");
    return true;
}
