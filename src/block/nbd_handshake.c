/*
 * The negotiation of an NBD connection (proto.md, "Fixed newstyle negotiation"), on the client's thread, blocking, within a
 * time limit. Everything here comes from someone we do not know.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "block/nbd_conn.h"

struct talk {
    struct nbd_conn *c;
    uint64_t until; /* host ns */
    uint32_t option;
    uint8_t *data; /* of the option */
    uint32_t len;
};

/* Exactly `len` bytes before the time is over. */
static bool receive(struct talk *t, void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len) {
        uint64_t now = clock_host_ns();
        struct pollfd pfd = {.fd = t->c->fd, .events = POLLIN};
        if (now >= t->until || poll(&pfd, 1, (int)((t->until - now) / 1000000) + 1) <= 0)
            return false;
        ssize_t n = recv(t->c->fd, p, len, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool send_all(struct talk *t, const void *buf, size_t len)
{
    const uint8_t *p = buf;
    while (len) {
        uint64_t now = clock_host_ns();
        struct pollfd pfd = {.fd = t->c->fd, .events = POLLOUT};
        if (now >= t->until || poll(&pfd, 1, (int)((t->until - now) / 1000000) + 1) <= 0)
            return false;
        ssize_t n = send(t->c->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool reply(struct talk *t, uint32_t type, const void *data, uint32_t len)
{
    uint8_t h[20];
    be64_put(h, NBD_REPLY_MAGIC);
    be32_put(h + 8, t->option);
    be32_put(h + 12, type);
    be32_put(h + 16, len);
    return send_all(t, h, sizeof h) && (!len || send_all(t, data, len));
}

static bool refuse(struct talk *t, uint32_t type, const char *why)
{
    return reply(t, type, why, (uint32_t)strlen(why));
}

static const struct nbd_export *find_export(struct talk *t, const uint8_t *name, uint32_t len)
{
    const struct nbd_server *s = t->c->server;
    for (unsigned i = 0; i < s->n_exports; i++)
        if (strlen(s->exports[i].name) == len && !memcmp(s->exports[i].name, name, len))
            return &s->exports[i];
    return NULL;
}

/* ---- options; each returns whether the connection goes on, *done: transmission begins ---- */

static bool export_name(struct talk *t, bool *done)
{
    uint8_t h[10 + 124] = {0};
    const struct nbd_export *e = find_export(t, t->data, t->len);
    if (!e)
        return false; /* this option has no way to say so */
    t->c->export = e;
    be64_put(h, e->size);
    be16_put(h + 8, nbd_export_flags(t->c->server, e));
    *done = true;
    return send_all(t, h, t->c->no_zeroes ? 10 : sizeof h);
}

static bool list(struct talk *t)
{
    if (t->len)
        return refuse(t, NBD_REP_ERR_INVALID, "this option has no data");
    for (unsigned i = 0; i < t->c->server->n_exports; i++) {
        const struct nbd_export *e = &t->c->server->exports[i];
        size_t name = strlen(e->name), text = e->description ? strlen(e->description) : 0;
        autofree uint8_t *data = xcalloc(1, 4 + name + text);
        be32_put(data, (uint32_t)name);
        memcpy(data + 4, e->name, name);
        if (text)
            memcpy(data + 4 + name, e->description, text);
        if (!reply(t, NBD_REP_SERVER, data, (uint32_t)(4 + name + text)))
            return false;
    }
    return reply(t, NBD_REP_ACK, NULL, 0);
}

static bool send_info(struct talk *t, const struct nbd_export *e, const uint8_t *asked, unsigned n)
{
    uint8_t b[14];
    bool name = false, text = false, sizes = false;
    for (unsigned i = 0; i < n; i++) {
        uint16_t what = be16_get(asked + 2 * i);
        name |= what == NBD_INFO_NAME;
        text |= what == NBD_INFO_DESCRIPTION;
        sizes |= what == NBD_INFO_BLOCK_SIZE;
    }
    if (name || (text && e->description)) {
        for (int i = 0; i < 2; i++) {
            const char *s = i ? e->description : e->name;
            if (!(i ? text && s : name))
                continue;
            size_t len = strlen(s);
            autofree uint8_t *data = xcalloc(1, 2 + len);
            be16_put(data, i ? NBD_INFO_DESCRIPTION : NBD_INFO_NAME);
            memcpy(data + 2, s, len);
            if (!reply(t, NBD_REP_INFO, data, (uint32_t)(2 + len)))
                return false;
        }
    }
    if (sizes) {
        be16_put(b, NBD_INFO_BLOCK_SIZE);
        be32_put(b + 2, 1);
        be32_put(b + 6, MAX(4096u, e->node->physical_size));
        be32_put(b + 10, NBD_MAX_PAYLOAD);
        if (!reply(t, NBD_REP_INFO, b, 14))
            return false;
    }
    be16_put(b, NBD_INFO_EXPORT);
    be64_put(b + 2, e->size);
    be16_put(b + 10, nbd_export_flags(t->c->server, e));
    return reply(t, NBD_REP_INFO, b, 12);
}

static bool info_or_go(struct talk *t, bool *done)
{
    if (t->len < 6)
        return refuse(t, NBD_REP_ERR_INVALID, "too short");
    uint32_t name = be32_get(t->data);
    if (name > NBD_NAME_MAX || name > t->len - 6)
        return refuse(t, NBD_REP_ERR_INVALID, "the export's name is too long");
    uint16_t n = be16_get(t->data + 4 + name);
    if (t->len != 6 + name + 2u * n)
        return refuse(t, NBD_REP_ERR_INVALID, "the number of information requests is wrong");
    const struct nbd_export *e = find_export(t, t->data + 4, name);
    if (!e)
        return refuse(t, NBD_REP_ERR_UNKNOWN, "there is no such export");
    if (!send_info(t, e, t->data + 6 + name, n))
        return false;
    if (t->option == NBD_OPT_GO) {
        if (t->c->export != e)
            t->c->contexts = t->c->export ? 0 : t->c->contexts; /* contexts belong to one export */
        t->c->export = e;
        *done = true;
    }
    return reply(t, NBD_REP_ACK, NULL, 0);
}

static bool give_context(struct talk *t, uint32_t id, const char *name)
{
    size_t len = strlen(name);
    autofree uint8_t *data = xcalloc(1, 4 + len);
    be32_put(data, t->option == NBD_OPT_SET_META_CONTEXT ? id : 0);
    memcpy(data + 4, name, len);
    return reply(t, NBD_REP_META_CONTEXT, data, (uint32_t)(4 + len));
}

/* Whether a query ("base:", "base:allocation", "qemu:") asks for this context; a list takes beginnings, too. */
static bool asks(struct talk *t, const uint8_t *query, uint32_t len, const char *context)
{
    size_t n = strlen(context);
    if (len == n && !memcmp(query, context, n))
        return true;
    const char *colon = strrchr(context, ':');
    if (t->option != NBD_OPT_LIST_META_CONTEXT || !len || query[len - 1] != ':' || len > n)
        return false;
    return len <= (size_t)(colon - context) + 1 && !memcmp(query, context, len);
}

static bool contexts(struct talk *t)
{
    uint32_t name, n, chosen = 0;
    bool set = t->option == NBD_OPT_SET_META_CONTEXT;
    if (set && !t->c->structured)
        return refuse(t, NBD_REP_ERR_INVALID, "structured replies must be asked for first");
    if (t->len < 8 || (name = be32_get(t->data)) > NBD_NAME_MAX || name > t->len - 8)
        return refuse(t, NBD_REP_ERR_INVALID, "too short");
    const struct nbd_export *e = find_export(t, t->data + 4, name);
    if (!e)
        return refuse(t, NBD_REP_ERR_UNKNOWN, "there is no such export");
    const uint8_t *p = t->data + 8 + name, *end = t->data + t->len;
    n = be32_get(t->data + 4 + name);
    bool all = !n && !set;
    for (uint32_t i = 0; i < n || all; i++) {
        uint32_t len = 0;
        if (!all && (end - p < 4 || (len = be32_get(p)) > (size_t)(end - p) - 4))
            return refuse(t, NBD_REP_ERR_INVALID, "a query is cut off");
        const uint8_t *q = p + 4;
        if (all || asks(t, q, len, "base:allocation"))
            chosen |= NBD_CONTEXT_ALLOCATION;
        if (e->depth && (all || asks(t, q, len, "qemu:allocation-depth")))
            chosen |= NBD_CONTEXT_DEPTH;
        for (unsigned b = 0; b < e->n_bitmaps; b++) {
            autofree char *full = xasprintf("qemu:dirty-bitmap:%s", e->bitmaps[b]);
            if (all || asks(t, q, len, full) || (!set && len == 5 && !memcmp(q, "qemu:", 5)))
                chosen |= NBD_CONTEXT_BITMAP << b;
        }
        if (all)
            break;
        p += 4 + len;
    }
    if (!all && p != end)
        return refuse(t, NBD_REP_ERR_INVALID, "there is something behind the last query");
    if ((chosen & NBD_CONTEXT_ALLOCATION) && !give_context(t, 0, "base:allocation"))
        return false;
    if ((chosen & NBD_CONTEXT_DEPTH) && !give_context(t, 1, "qemu:allocation-depth"))
        return false;
    for (unsigned b = 0; b < e->n_bitmaps; b++) {
        autofree char *full = xasprintf("qemu:dirty-bitmap:%s", e->bitmaps[b]);
        if ((chosen & NBD_CONTEXT_BITMAP << b) && !give_context(t, 2 + b, full))
            return false;
    }
    if (set) {
        t->c->export = e;
        t->c->contexts = chosen;
    }
    return reply(t, NBD_REP_ACK, NULL, 0);
}

static bool option(struct talk *t, bool *done)
{
    switch (t->option) {
    case NBD_OPT_EXPORT_NAME:
        return export_name(t, done);
    case NBD_OPT_ABORT:
        reply(t, NBD_REP_ACK, NULL, 0);
        return false;
    case NBD_OPT_LIST:
        return list(t);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return info_or_go(t, done);
    case NBD_OPT_STRUCTURED_REPLY:
        if (t->len)
            return refuse(t, NBD_REP_ERR_INVALID, "this option has no data");
        t->c->structured = true;
        return reply(t, NBD_REP_ACK, NULL, 0);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return contexts(t);
    case NBD_OPT_STARTTLS:
        return refuse(t, NBD_REP_ERR_POLICY, "TLS is not configured");
    default:
        return refuse(t, NBD_REP_ERR_UNSUP, "unknown option");
    }
}

bool nbd_handshake(struct nbd_conn *c)
{
    struct talk t = {.c = c, .until = clock_host_ns() + NBD_HANDSHAKE_MS * 1000000ull};
    uint8_t hello[18], flags[4];
    be64_put(hello, NBD_MAGIC);
    be64_put(hello + 8, NBD_OPTION_MAGIC);
    be16_put(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    if (!send_all(&t, hello, sizeof hello) || !receive(&t, flags, 4))
        return false;
    uint32_t f = be32_get(flags);
    if (!(f & NBD_FIXED_NEWSTYLE) || f & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
        return false;
    c->no_zeroes = f & NBD_NO_ZEROES;
    autofree uint8_t *data = malloc(NBD_OPTION_BYTES);
    t.data = data;
    if (!data)
        return false;
    for (unsigned i = 0; i < NBD_OPTIONS_MAX; i++) {
        uint8_t h[16];
        bool done = false;
        if (!receive(&t, h, sizeof h) || be64_get(h) != NBD_OPTION_MAGIC)
            return false;
        t.option = be32_get(h + 8);
        t.len = be32_get(h + 12);
        if (t.len > NBD_OPTION_BYTES) {
            refuse(&t, NBD_REP_ERR_TOO_BIG, "the option is too long");
            return false;
        }
        if ((t.len && !receive(&t, t.data, t.len)) || !option(&t, &done))
            return false;
        if (done)
            return true;
    }
    return false;
}
