/* What a client's connection has beyond its socket: event registrations, and guests that go away with it. */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "daemon/daemon.h"

#define REGISTRATIONS_MAX 1024

struct registration {
    struct registration *next;
    enum event_kind kind;
    int id, event;
    bool one; /* of one object */
    uint8_t uuid[16];
};

struct session {
    struct registration *registrations;
    unsigned n;
    int last_id;
};

struct session *session_of(struct rpc_call *call)
{
    struct session *s = rpc_client_data(call->client);
    if (!s) {
        s = xcalloc(1, sizeof *s);
        rpc_client_set_data(call->client, s);
    }
    return s;
}

void session_closed(struct daemon *d, struct rpc_client *client)
{
    struct session *s = rpc_client_data(client);
    struct guest *g, *next;
    HASH_ITER(by_id, d->guests.by_id, g, next)
    {
        if (g->autodestroy == client)
            guest_destroy(g, false, SHUTOFF_DESTROYED, NULL, NULL, &(struct rpc_error){0});
    }
    rpc_client_set_data(client, NULL);
    while (s && s->registrations) {
        struct registration *r = s->registrations;
        s->registrations = r->next;
        free(r);
    }
    free(s);
}

int session_register(struct session *s, enum event_kind kind, int event, const uint8_t *uuid)
{
    if (s->n >= REGISTRATIONS_MAX)
        return -1;
    struct registration *r = xcalloc(1, sizeof *r);
    *r = (struct registration){.next = s->registrations, .kind = kind, .event = event, .one = uuid, .id = s->last_id++};
    if (uuid)
        memcpy(r->uuid, uuid, 16);
    s->registrations = r;
    s->n++;
    return r->id;
}

int session_deregister(struct session *s, enum event_kind kind, int id)
{
    for (struct registration **link = &s->registrations; *link; link = &(*link)->next) {
        struct registration *r = *link;
        if (r->kind != kind || r->id != id)
            continue;
        *link = r->next;
        s->n--;
        free(r);
        return 0;
    }
    return -1;
}

struct sending {
    enum event_kind kind;
    int event, procedure;
    uint32_t program;
    int *value; /* the event; it begins with the registration's number */
    const uint8_t *uuid;
};

static void send_to(void *opaque, struct rpc_client *c)
{
    struct sending *m = opaque;
    struct session *s = rpc_client_data(c);
    for (struct registration *r = s ? s->registrations : NULL; r; r = r->next) {
        if (r->kind != m->kind || r->event != m->event || (r->one && (!m->uuid || memcmp(r->uuid, m->uuid, 16))))
            continue;
        *m->value = r->id;
        rpc_client_event(c, m->program, m->procedure, m->value);
    }
}

void daemon_event(struct daemon *d, enum event_kind kind, int event, uint32_t program, int procedure, void *value,
                  const uint8_t *uuid)
{
    struct sending m = {kind, event, procedure, program, value, uuid};
    if (d->server)
        rpc_server_each(d->server, send_to, &m);
}
