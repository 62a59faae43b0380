/* The table of guests, by name, UUID and id. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "daemon/guest.h"
#include "daemon/qmp.h"
#include "domain/xml.h"

struct guest *guests_find_name(const struct guests *t, const char *name)
{
    struct guest *g;
    HASH_FIND(by_name, t->by_name, name, strlen(name), g);
    return g;
}

struct guest *guests_find_uuid(const struct guests *t, const uint8_t *uuid)
{
    struct guest *g;
    HASH_FIND(by_uuid, t->by_uuid, uuid, 16, g);
    return g;
}

struct guest *guests_find_id(const struct guests *t, int id)
{
    struct guest *g;
    HASH_FIND(by_id, t->by_id, &id, sizeof id, g);
    return g;
}

struct guest *guests_add(struct guests *t, const char *name, const uint8_t *uuid)
{
    struct guest *g = xcalloc(1, sizeof *g);
    g->guests = t;
    g->name = xstrdup(name);
    memcpy(g->uuid, uuid, 16);
    g->id = -1;
    g->pidfd = g->status_fd = -1;
    g->state = GUEST_SHUTOFF;
    HASH_ADD_KEYPTR(by_name, t->by_name, g->name, strlen(g->name), g);
    HASH_ADD(by_uuid, t->by_uuid, uuid, 16, g);
    t->n++;
    return g;
}

void guests_remove(struct guest *g)
{
    struct guests *t = g->guests;
    guests_set_id(g, -1);
    HASH_DELETE(by_name, t->by_name, g);
    HASH_DELETE(by_uuid, t->by_uuid, g);
    t->n--;
    qmp_free(g->qmp);
    domain_free(g->live);
    free(g->tids);
    free(g->incoming);
    free(g->name);
    free(g->xml);
    free(g);
}

void guests_set_id(struct guest *g, int id)
{
    struct guests *t = g->guests;
    if (g->id >= 0) {
        HASH_DELETE(by_id, t->by_id, g);
        t->n_active--;
    }
    g->id = id;
    if (id >= 0) {
        HASH_ADD(by_id, t->by_id, id, sizeof g->id, g);
        t->n_active++;
    }
}

void guest_set_state(struct guest *g, enum guest_state state, int reason)
{
    g->state = state;
    g->reason = reason;
}

void uuid_format(const uint8_t *u, char *s)
{
    for (int i = 0; i < 16; i++)
        s += sprintf(s, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", u[i]);
}

struct domain *guest_config(const struct guest *g, bool inactive, struct rpc_error *e)
{
    struct domain *d = NULL;
    struct err err = {0};
    autofree char *text = NULL;
    const char *xml = g->xml;
    if (!inactive && g->live)
        xml = text = domain_format(g->live);
    else if (!xml && g->live)
        xml = text = domain_format(g->live);
    if (!xml || domain_parse(xml, strlen(xml), g->name, &d, &err) < 0) {
        verr_take(e, VIR_INTERNAL_ERROR, &err);
        return NULL;
    }
    domain_defaults(d);
    return d;
}

/* Passwords are attributes of <graphics>; nothing else in a document is secret. */
static void drop_secrets(struct domain *d)
{
    for (unsigned i = 0; i < d->n_graphics; i++)
        domain_set(&d->graphics[i].passwd, NULL);
}

char *guest_xml(const struct guest *g, unsigned flags, struct rpc_error *e)
{
    bool inactive = flags & XML_INACTIVE || !g->live;
    if (inactive && g->xml && (flags & XML_SECURE || !strstr(g->xml, "passwd")))
        return xstrdup(g->xml);
    if (!inactive && flags & XML_SECURE)
        return domain_format(g->live);
    struct domain *d = guest_config(g, inactive, e);
    if (!d)
        return NULL;
    if (inactive)
        domain_inactive(d);
    if (!(flags & XML_SECURE))
        drop_secrets(d);
    char *text = domain_format(d);
    domain_free(d);
    return text;
}
