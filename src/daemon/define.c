/* Definitions: from a client's document to a member of the table and a file. */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "daemon/guest.h"
#include "domain/xml.h"

int define_check_name(const char *name, struct rpc_error *e)
{
    if (!name || !*name)
        return verr_set(e, VIR_XML_ERROR, "missing name in the domain's document");
    if (strchr(name, '/'))
        return verr_set(e, VIR_XML_ERROR, "name %.200s cannot contain '/'", name);
    if (!strcmp(name, ".") || !strcmp(name, "..") || strlen(name) > 200)
        return verr_set(e, VIR_XML_ERROR, "'%.60s' is not a domain name: at most 200 bytes", name);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            return verr_set(e, VIR_XML_ERROR, "name '%.200s' contains a control character", name);
    return 0;
}

struct domain *define_parse(const struct guests *t, const char *xml, struct rpc_error *e)
{
    struct domain *d = NULL;
    struct err err = {0};
    int from = e->domain;
    e->domain = VIR_FROM_DOMAIN;
    if (domain_parse(xml, strlen(xml), "domain", &d, &err) < 0) {
        verr_take(e, VIR_XML_ERROR, &err);
        return NULL;
    }
    domain_inactive(d);
    domain_defaults(d);
    int r = define_check_name(d->name, e);
    if (!r && d->engine == DOMAIN_ENGINE_NONE)
        r = verr_set(e, VIR_CONFIG_UNSUPPORTED, "domain type '%.40s': only kvm and qemu",
                     d->type_name ? d->type_name : "");
    if (!r && domain_check_definition(d, NULL, &err) < 0)
        r = verr_take(e, VIR_CONFIG_UNSUPPORTED, &err);
    if (r) {
        domain_free(d);
        return NULL;
    }
    if (!d->emulator)
        domain_set(&d->emulator, t->emulator);
    e->domain = from;
    return d;
}

/* The guest that a document is about, if there is one; -1 when name and UUID belong to different ones. */
static int find(struct guests *t, const struct domain *d, struct guest **ret, struct rpc_error *e)
{
    char uuid[37];
    struct guest *g = guests_find_uuid(t, d->uuid);
    if (g) {
        uuid_format(g->uuid, uuid);
        if (strcmp(g->name, d->name))
            return verr_set(e, VIR_OPERATION_FAILED, "domain '%s' is already defined with uuid %s", g->name, uuid);
    } else if ((g = guests_find_name(t, d->name))) {
        uuid_format(g->uuid, uuid);
        return verr_set(e, VIR_OPERATION_FAILED, "domain '%s' already exists with uuid %s", g->name, uuid);
    }
    *ret = g;
    return 0;
}

struct guest *define(struct guests *t, const char *xml, struct rpc_error *e)
{
    struct domain *d = define_parse(t, xml, e);
    struct guest *g = NULL;
    if (!d)
        return NULL;
    if (find(t, d, &g, e) == 0) {
        bool is_new = !g, updates = g && guest_persistent(g);
        if (is_new)
            g = guests_add(t, d->name, d->uuid);
        if (store_save(g, d, e) < 0) {
            if (is_new)
                guests_remove(g);
            g = NULL;
        } else {
            t->owner.lifecycle(t->owner.opaque, g, EVENT_DEFINED, updates);
        }
    }
    domain_free(d);
    return e->code ? NULL : g;
}

int undefine(struct guest *g, struct rpc_error *e)
{
    struct guests *t = g->guests;
    if (!guest_persistent(g))
        return verr_set(e, VIR_OPERATION_INVALID, "cannot undefine transient domain");
    if (store_remove(g, e) < 0)
        return -1;
    t->owner.lifecycle(t->owner.opaque, g, EVENT_UNDEFINED, 0);
    if (!guest_active(g))
        guests_remove(g);
    return 0;
}

struct guest *define_transient(struct guests *t, const char *xml, struct domain **ret_live, struct rpc_error *e)
{
    struct domain *d = define_parse(t, xml, e);
    struct guest *g = NULL;
    if (!d)
        return NULL;
    if (find(t, d, &g, e) < 0) {
        domain_free(d);
        return NULL;
    }
    if (g && guest_active(g)) {
        verr_set(e, VIR_OPERATION_INVALID, "domain '%s' is already active", g->name);
        domain_free(d);
        return NULL;
    }
    if (!g)
        g = guests_add(t, d->name, d->uuid);
    *ret_live = d;
    return g;
}
