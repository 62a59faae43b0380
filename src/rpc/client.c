/* See client.h: packets in and out, calls, events. Connecting is in connect.c, streams in stream.c. */
#include "rpc/client_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/fd.h"

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

int client_lost(struct client *c, struct rpc_error *e, const char *what)
{
    c->dead = true;
    return rpc_error_set(e, VIR_SYSTEM_ERROR, VIR_FROM_RPC, "%s", what);
}

static void packet_free(struct client_packet *p)
{
    free(p);
}

/* The packet's place, if somebody waits for it. */
static struct client_slot *slot_find(struct client *c, uint32_t serial)
{
    uint32_t at = serial - c->first;
    return at < c->n_slots ? &c->slots[at] : NULL;
}

static int deliver_event(struct client *c, const struct rpc_header *h, const uint8_t *payload, size_t len)
{
    const struct rpc_proc *p = rpc_proc_find(h->program, h->procedure);
    if (!p || !(p->access & RPC_IS_EVENT) || !c->on_event)
        return 0;
    autofree void *msg = xcalloc(1, p->ret_size);
    if (rpc_decode(payload, len, p->ret, msg, p->ret_size) < 0)
        return 0;
    c->on_event(c->event_opaque, p, msg);
    rpc_free(p->ret, msg);
    return 0;
}

/* One whole packet has come: hand it to whoever it is for, or drop it. */
static int deliver(struct client *c, const struct rpc_header *h, const uint8_t *payload, size_t len,
                   struct rpc_error *e)
{
    if (h->program == RPC_KEEPALIVE_PROGRAM) {
        if (h->type == RPC_TYPE_EVENT && h->procedure == RPC_KEEPALIVE_PING) {
            const struct rpc_header pong = {RPC_KEEPALIVE_PROGRAM, RPC_VERSION, RPC_KEEPALIVE_PONG,
                                            RPC_TYPE_EVENT,        0,           0};
            rpc_encode_raw(&c->out, &pong, NULL, 0);
        }
        return 0;
    }
    if (h->type == RPC_TYPE_EVENT)
        return deliver_event(c, h, payload, len);
    if (h->type == RPC_TYPE_STREAM || h->type == RPC_TYPE_HOLE)
        return client_stream_deliver(c, h, payload, len, e);
    if (h->type != RPC_TYPE_REPLY && h->type != RPC_TYPE_REPLY_FDS)
        return 0;
    struct client_slot *slot = slot_find(c, h->serial);
    if (!slot || slot->reply || slot->taken || !slot->proc || h->procedure != slot->proc->number)
        return 0;
    slot->reply = malloc(sizeof(*slot->reply) + len);
    if (!slot->reply)
        return client_lost(c, e, "out of memory");
    slot->reply->next = NULL;
    slot->reply->header = *h;
    slot->reply->len = len;
    if (len)
        memcpy(slot->reply->data, payload, len);
    return 0;
}

/* Takes whole packets off the front of what was read. */
static int take_packets(struct client *c, struct rpc_error *e)
{
    size_t at = 0;
    while (c->in.len - at >= RPC_PREFIX_SIZE) {
        uint32_t len;
        struct rpc_header h;
        struct err err = {0};
        if (rpc_header_decode(c->in.data + at, &len, &h, &err) < 0)
            return client_lost(c, e, err.msg);
        if (c->in.len - at < len) {
            if (rpc_buf_reserve(&c->in, len) < 0)
                return client_lost(c, e, "out of memory");
            break;
        }
        if (deliver(c, &h, c->in.data + at + RPC_PREFIX_SIZE, len - RPC_PREFIX_SIZE, e) < 0)
            return -1;
        at += len;
    }
    if (at) {
        memmove(c->in.data, c->in.data + at, c->in.len - at);
        c->in.len -= at;
    }
    return 0;
}

static int read_some(struct client *c, struct rpc_error *e)
{
    if (rpc_buf_reserve(&c->in, 65536) < 0)
        return client_lost(c, e, "out of memory");
    ssize_t n = recv(c->fd, c->in.data + c->in.len, c->in.size - c->in.len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n == 0)
        return client_lost(c, e, "End of file while reading data: Input/output error");
    if (n < 0) {
        autofree char *what = xasprintf("Cannot recv data: %s", strerror(errno));
        return client_lost(c, e, what);
    }
    c->in.len += n;
    c->last_packet = now_ms();
    c->pings = 0;
    return take_packets(c, e);
}

static int write_some(struct client *c, struct rpc_error *e)
{
    ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0) {
        /* What the server said before it hung up explains more. */
        int r = read_some(c, e);
        autofree char *what = xasprintf("Cannot write data: %s", strerror(errno));
        return r < 0 ? r : client_lost(c, e, what);
    }
    c->out_at += n;
    if (c->out_at == c->out.len)
        c->out_at = c->out.len = 0;
    return 0;
}

int client_io(struct client *c, int timeout_ms, struct rpc_error *e)
{
    if (c->dead)
        return rpc_error_set(e, VIR_SYSTEM_ERROR, VIR_FROM_RPC, "client socket is closed");
    if (c->out.len && write_some(c, e) < 0)
        return -1;
    for (;;) {
        int64_t now = now_ms(), ping_at = c->last_packet + (c->pings + 1) * c->idle_ms;
        int wait = ping_at > now ? ping_at - now : 0;
        bool ours = timeout_ms >= 0 && timeout_ms <= wait;
        struct pollfd p = {c->fd, POLLIN | (c->out.len ? POLLOUT : 0), 0};
        int n = poll(&p, 1, ours ? timeout_ms : wait);
        if (n < 0 && errno == EINTR)
            return 0;
        if (n == 0 && ours)
            return 0;
        if (n == 0) {
            if (c->pings > c->idle_count)
                return client_lost(c, e, "the server does not answer any more: keepalive timeout");
            c->pings++;
            if (timeout_ms >= 0)
                timeout_ms -= wait;
            const struct rpc_header ping = {RPC_KEEPALIVE_PROGRAM, RPC_VERSION, RPC_KEEPALIVE_PING,
                                            RPC_TYPE_EVENT,        0,           0};
            rpc_encode_raw(&c->out, &ping, NULL, 0);
            if (write_some(c, e) < 0)
                return -1;
            continue;
        }
        if ((p.revents & POLLOUT) && write_some(c, e) < 0)
            return -1;
        if (p.revents & (POLLIN | POLLHUP | POLLERR))
            return read_some(c, e);
        return 0;
    }
}

int client_poll(struct client *c, int timeout_ms, struct rpc_error *e)
{
    return client_io(c, timeout_ms, e);
}

static int start(struct client *c, const struct rpc_proc *p, const void *args, uint32_t *ret_serial,
                 struct rpc_error *e)
{
    if (c->dead)
        return rpc_error_set(e, VIR_SYSTEM_ERROR, VIR_FROM_RPC, "client socket is closed");
    if (c->n_slots == c->size_slots) {
        if (c->n_slots >= CLIENT_CALLS_MAX)
            return rpc_error_set(e, VIR_INTERNAL_ERROR, VIR_FROM_RPC, "too many calls at once");
        unsigned size = c->size_slots ? c->size_slots * 2 : 16;
        struct client_slot *slots = xcalloc(size, sizeof(*slots));
        if (c->n_slots)
            memcpy(slots, c->slots, c->n_slots * sizeof(*slots));
        free(c->slots);
        c->slots = slots;
        c->size_slots = size;
    }
    const struct rpc_header h = {p->program, RPC_VERSION, p->number, RPC_TYPE_CALL, c->next, RPC_STATUS_OK};
    if (rpc_encode(&c->out, &h, 0, p->args, args) < 0)
        return rpc_error_set(e, VIR_RPC, VIR_FROM_RPC, "Unable to encode message payload");
    c->slots[c->n_slots++] = (struct client_slot){.proc = p};
    *ret_serial = c->next++;
    return 0;
}

/* Forgets answered calls at the front, so that the window moves on. */
static void forget(struct client *c)
{
    unsigned n = 0;
    while (n < c->n_slots && c->slots[n].taken)
        n++;
    if (n < c->n_slots && n < 1024) /* moving the rest down for each of many would be quadratic */
        return;
    memmove(c->slots, c->slots + n, (c->n_slots - n) * sizeof(*c->slots));
    c->n_slots -= n;
    c->first += n;
}

int client_call_wait(struct client *c, uint32_t serial, void *ret, struct rpc_error *e)
{
    struct client_slot *slot = slot_find(c, serial);
    if (!slot || slot->taken)
        return rpc_error_set(e, VIR_INTERNAL_ERROR, VIR_FROM_RPC, "no such call");
    while (!slot->reply)
        if (client_io(c, -1, e) < 0)
            return -1;
    struct client_packet *reply = ptr_take(slot->reply);
    const struct rpc_proc *p = slot->proc;
    slot->taken = true;
    forget(c);
    int r = 0;
    if (reply->header.status == RPC_STATUS_ERROR) {
        rpc_decode_error(reply->data, reply->len, e);
        r = -1;
    } else if (ret && rpc_decode(reply->data, reply->len, p->ret, ret, p->ret_size) < 0) {
        r = rpc_error_set(e, VIR_RPC, VIR_FROM_RPC, "Unable to decode message payload");
    }
    packet_free(reply);
    return r;
}

int client_call_start(struct client *c, int proc, const void *args, uint32_t *ret_serial, struct rpc_error *e)
{
    return start(c, rpc_proc_find(RPC_REMOTE_PROGRAM, proc), args, ret_serial, e);
}

static int call(struct client *c, uint32_t program, int proc, const void *args, void *ret, struct rpc_error *e)
{
    uint32_t serial;
    if (start(c, rpc_proc_find(program, proc), args, &serial, e) < 0)
        return -1;
    return client_call_wait(c, serial, ret, e);
}

int client_call(struct client *c, int proc, const void *args, void *ret, struct rpc_error *e)
{
    return call(c, RPC_REMOTE_PROGRAM, proc, args, ret, e);
}

int client_qemu_call(struct client *c, int proc, const void *args, void *ret, struct rpc_error *e)
{
    return call(c, RPC_QEMU_PROGRAM, proc, args, ret, e);
}

void client_result_free(int proc, void *ret)
{
    rpc_free(rpc_proc_find(RPC_REMOTE_PROGRAM, proc)->ret, ret);
}

void client_on_event(struct client *c, void (*fn)(void *opaque, const struct rpc_proc *proc, void *msg), void *opaque)
{
    c->on_event = fn;
    c->event_opaque = opaque;
}

void client_free(struct client *c)
{
    for (unsigned i = 0; i < c->n_slots; i++)
        packet_free(c->slots[i].reply);
    free(c->slots);
    rpc_buf_free(&c->in);
    rpc_buf_free(&c->out);
    if (c->fd >= 0)
        close(c->fd);
    free(c->uri);
    free(c->socket);
    free(c);
}
