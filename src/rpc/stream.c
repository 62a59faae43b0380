/*
 * Streams: raw data that belongs to a call, in either direction, until one side finishes or aborts. Packets for a
 * stream that is no more are ignored, as they may have been on their way.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "rpc/server_priv.h"

/* What RPC_TYPE_HOLE carries. */
struct hole {
    int64_t length;
    uint32_t flags;
};

static bool_t xdr_hole(XDR *x, void *p)
{
    struct hole *h = p;
    return xdr_int64_t(x, &h->length) && xdr_uint32_t(x, &h->flags);
}

struct rpc_stream *rpc_stream_new(struct rpc_call *call, const struct rpc_stream_ops *ops, void *opaque)
{
    struct rpc_client *c = call->client;
    if (!c || c->n_streams >= CONN_STREAMS_MAX) {
        rpc_error_set(&call->error, VIR_RPC, VIR_FROM_STREAMS, "too many streams on one connection");
        return NULL;
    }
    struct rpc_stream *st = xcalloc(1, sizeof *st);
    *st = (struct rpc_stream){.client = c, .next = c->streams, .header = call->header, .ops = ops, .opaque = opaque};
    st->header.type = RPC_TYPE_STREAM;
    c->streams = st;
    c->n_streams++;
    return st;
}

static void stream_free(struct rpc_stream *st)
{
    struct rpc_client *c = st->client;
    struct rpc_stream **link = &c->streams;
    while (*link != st)
        link = &(*link)->next;
    *link = st->next;
    c->n_streams--;
    if (st->held) {
        c->holds--;
        conn_resume(c);
    }
    st->ops->closed(st->opaque);
    free(st);
}

void stream_drop_all(struct rpc_client *c)
{
    while (c->streams)
        stream_free(c->streams);
}

static void send_status(struct rpc_stream *st, int32_t status, const void *data, size_t len)
{
    struct rpc_header h = st->header;
    struct rpc_buf b = {0};
    h.status = status;
    if (rpc_encode_raw(&b, &h, data, len) == 0)
        conn_queue(st->client, &b, -1);
    rpc_buf_free(&b);
}

bool rpc_stream_room(struct rpc_stream *st)
{
    st->waiting = st->client->unread > CONN_UNREAD_HIGH;
    return !st->waiting;
}

void rpc_stream_send(struct rpc_stream *st, const void *data, size_t len)
{
    if (len)
        send_status(st, RPC_STATUS_CONTINUE, data, len);
}

void rpc_stream_send_hole(struct rpc_stream *st, int64_t len)
{
    struct rpc_header h = st->header;
    const struct hole hole = {.length = len};
    struct rpc_buf b = {0};
    h.type = RPC_TYPE_HOLE;
    h.status = RPC_STATUS_CONTINUE;
    if (rpc_encode(&b, &h, 0, xdr_hole, &hole) == 0)
        conn_queue(st->client, &b, -1);
    rpc_buf_free(&b);
}

void rpc_stream_eof(struct rpc_stream *st)
{
    send_status(st, RPC_STATUS_CONTINUE, "", 0);
}

void rpc_stream_fail(struct rpc_stream *st, const struct rpc_error *e)
{
    struct rpc_client *c = st->client;
    struct rpc_buf b = {0};
    conn_enter(c);
    if (rpc_encode_error(&b, &st->header, e) == 0)
        conn_queue(c, &b, -1);
    rpc_buf_free(&b);
    stream_free(st);
    conn_leave(c);
}

void rpc_stream_hold(struct rpc_stream *st, bool hold)
{
    if (st->held == hold)
        return;
    st->held = hold;
    st->client->holds += hold ? 1 : -1;
    if (hold)
        conn_watch(st->client);
    else
        conn_resume(st->client);
}

void stream_room(struct rpc_client *c)
{
    for (struct rpc_stream *st = c->streams, *next; st && !c->dead; st = next) {
        next = st->next;
        if (st->waiting && st->ops->room) {
            st->waiting = false;
            st->ops->room(st->opaque);
        }
    }
}

static struct rpc_stream *find(const struct rpc_client *c, const struct rpc_header *h)
{
    struct rpc_stream *st = c->streams;
    while (st &&
           (st->header.serial != h->serial || st->header.procedure != h->procedure || st->header.program != h->program))
        st = st->next;
    return st;
}

static int take(struct rpc_stream *st, const struct rpc_header *h, const uint8_t *payload, size_t len,
                struct rpc_error *e)
{
    if (h->type == RPC_TYPE_STREAM) {
        if (!len)
            return 0; /* the client's end of data; it finishes next */
        if (!st->ops->data)
            return rpc_error_set(e, VIR_OPERATION_INVALID, VIR_FROM_STREAMS, "the stream takes no data");
        return st->ops->data(st->opaque, payload, len, e);
    }
    struct hole hole;
    if (!st->ops->hole || rpc_decode(payload, len, xdr_hole, &hole, sizeof hole) < 0 || hole.length < 0)
        return rpc_error_set(e, VIR_OPERATION_INVALID, VIR_FROM_STREAMS, "the stream takes no holes");
    return st->ops->hole(st->opaque, hole.length, e);
}

void stream_packet(struct rpc_client *c, const struct rpc_header *h, const uint8_t *payload, size_t len)
{
    struct rpc_stream *st = find(c, h);
    struct rpc_error e = {0};
    if (!st)
        return;
    if (h->status == RPC_STATUS_CONTINUE) {
        if (take(st, h, payload, len, &e) < 0)
            rpc_stream_fail(st, &e);
    } else if (h->status == RPC_STATUS_OK) {
        if (st->ops->finish && st->ops->finish(st->opaque, &e) < 0) {
            rpc_stream_fail(st, &e);
            return;
        }
        send_status(st, RPC_STATUS_OK, "", 0);
        stream_free(st);
    } else {
        send_status(st, RPC_STATUS_OK, "", 0);
        stream_free(st);
    }
}
