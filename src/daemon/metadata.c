/* See metadata.h. The document keeps <metadata> as an element that it does not look into. */
#include "daemon/metadata.h"

#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "domain/xml.h"

static struct xml_node *metadata_of(const struct domain *d)
{
    for (unsigned i = 0; i < d->unknown.n_items; i++)
        if (d->unknown.items[i].node && !*d->unknown.items[i].path &&
            !strcmp(d->unknown.items[i].node->name, "metadata"))
            return d->unknown.items[i].node;
    return NULL;
}

/* The prefix of an element's name, "" when it has none. */
static char *prefix_of(const struct xml_node *n)
{
    const char *colon = strchr(n->name, ':');
    return colon ? xasprintf("%.*s", (int)(colon - n->name), n->name) : xstrdup("");
}

/* The URI that the element's own prefix stands for, declared at itself or at <metadata>. */
static const char *uri_of(const struct xml_node *n)
{
    autofree char *prefix = prefix_of(n);
    autofree char *attr = *prefix ? xasprintf("xmlns:%s", prefix) : xstrdup("xmlns");
    const char *uri = xml_attr_get(n, attr);
    return uri || !n->parent ? uri : xml_attr_get(n->parent, attr);
}

static struct xml_node **find(struct xml_node *metadata, const char *uri)
{
    for (struct xml_node **link = &metadata->first; *link; link = &(*link)->next) {
        const char *have = uri_of(*link);
        if (have && !strcmp(have, uri))
            return link;
    }
    return NULL;
}

static void drop_prefix(struct xml_node *n, const char *prefix)
{
    size_t len = strlen(prefix);
    if (len && !strncmp(n->name, prefix, len) && n->name[len] == ':')
        memmove(n->name, n->name + len + 1, strlen(n->name + len + 1) + 1);
    for (struct xml_node *c = n->first; c; c = c->next)
        drop_prefix(c, prefix);
}

static void add_prefix(struct xml_node *n, const char *prefix)
{
    if (!strchr(n->name, ':')) {
        char *name = xasprintf("%s:%s", prefix, n->name);
        free(n->name);
        n->name = name;
    }
    for (struct xml_node *c = n->first; c; c = c->next)
        add_prefix(c, prefix);
}

char *metadata_get(const struct domain *d, const char *uri)
{
    struct xml_node *metadata = metadata_of(d), **link = metadata ? find(metadata, uri) : NULL;
    if (!link)
        return NULL;
    struct xml_node *copy = xml_copy(*link);
    autofree char *prefix = prefix_of(copy);
    autofree char *attr = *prefix ? xasprintf("xmlns:%s", prefix) : xstrdup("xmlns");
    xml_attr_remove(copy, attr);
    drop_prefix(copy, prefix);
    char *text = xml_format(copy);
    xml_free(copy);
    size_t len = strlen(text);
    if (len && text[len - 1] == '\n')
        text[len - 1] = 0;
    return text;
}

static void remove_old(struct xml_node *metadata, const char *uri)
{
    struct xml_node **link = find(metadata, uri);
    if (!link)
        return;
    struct xml_node *old = *link;
    *link = old->next;
    metadata->last = NULL;
    for (struct xml_node *c = metadata->first; c; c = c->next)
        metadata->last = c;
    xml_free(old);
}

int metadata_set(struct domain *d, const char *uri, const char *key, const char *xml, struct rpc_error *e)
{
    struct err err = {0};
    struct xml_node *metadata = metadata_of(d), *n = NULL;
    if (!uri || !*uri || (xml && (!key || !*key)))
        return verr_set(e, VIR_INVALID_ARG, "metadata needs a namespace and a key");
    if (xml && (strchr(key, ':') || strpbrk(key, " <>&'\"/=")))
        return verr_set(e, VIR_INVALID_ARG, "'%.60s' is not a namespace prefix", key);
    if (xml && xml_parse(xml, strlen(xml), "metadata", &n, &err) < 0)
        return verr_take(e, VIR_XML_ERROR, &err);
    if (!metadata) {
        if (!n)
            return 0;
        struct domain_unknown_item *it = DOMAIN_ADD(&d->unknown, items);
        it->path = xstrdup("");
        it->node = metadata = xml_node_new(NULL, "metadata", NULL);
    }
    remove_old(metadata, uri);
    if (n) {
        autofree char *attr = xasprintf("xmlns:%s", key);
        add_prefix(n, key);
        xml_attr_set(n, attr, uri);
        xml_append(metadata, n);
    }
    return 0;
}
