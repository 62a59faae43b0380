/* Streams: data beside a call, in packets that carry the call's procedure and serial. See client.h. */
#include "rpc/client_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

#define QUEUE_MAX                                                                                                      \
    (64u                                                                                                               \
     << 20) /* bytes that may wait here for a reader; we read only while we wait, so honest servers stay far below */

static struct rpc_header header(const struct client_stream *s, int type, int status)
{
    return (struct rpc_header){s->proc->program, RPC_VERSION, s->proc->number, type, s->serial, status};
}

int client_stream_deliver(struct client *c, const struct rpc_header *h, const uint8_t *payload, size_t len,
                          struct rpc_error *e)
{
    struct client_stream *s = c->stream;
    if (!s || h->serial != s->serial || h->procedure != s->proc->number || s->finished)
        return 0; /* late packets of a stream that is over */
    if (h->status == RPC_STATUS_ERROR) {
        rpc_decode_error(payload, len, &s->error);
        s->finished = s->ended = true;
        return 0;
    }
    if (h->status == RPC_STATUS_OK) {
        s->finished = s->ended = true;
        return 0;
    }
    if (h->type == RPC_TYPE_STREAM && !len) {
        s->ended = true;
        return 0;
    }
    if (s->ended)
        return 0;
    if (s->queued + len > QUEUE_MAX)
        return client_lost(c, e, "the server sends more than can be taken");
    struct client_packet *p = malloc(sizeof(*p) + len);
    if (!p)
        return client_lost(c, e, "out of memory");
    p->next = NULL;
    p->header = *h;
    p->len = len;
    memcpy(p->data, payload, len);
    if (s->queue_last)
        s->queue_last->next = p;
    else
        s->queue = p;
    s->queue_last = p;
    s->queued += len;
    return 0;
}

static void stream_free(struct client_stream *s)
{
    while (s->queue) {
        struct client_packet *p = s->queue;
        s->queue = p->next;
        free(p);
    }
    free(s->current);
    s->c->stream = NULL;
    free(s);
}

int client_stream_open(struct client *c, int proc, const void *args, void *ret, struct client_stream **ret_stream,
                       struct rpc_error *e)
{
    if (c->stream)
        return rpc_error_set(e, VIR_INTERNAL_ERROR, VIR_FROM_STREAMS, "a stream is open already");
    struct client_stream *s = xcalloc(1, sizeof(*s));
    s->c = c;
    s->proc = rpc_proc_find(RPC_REMOTE_PROGRAM, proc);
    if (client_call_start(c, proc, args, &s->serial, e) < 0) {
        free(s);
        return -1;
    }
    c->stream = s; /* before the answer: data may overtake it */
    if (client_call_wait(c, s->serial, ret, e) < 0) {
        stream_free(s);
        return -1;
    }
    *ret_stream = s;
    return 0;
}

/* Waits until no more than `left` bytes are to be sent. */
static int drain(struct client_stream *s, size_t left, struct rpc_error *e)
{
    struct client *c = s->c;
    while (c->out.len - c->out_at > left) {
        if (client_io(c, -1, e) < 0)
            return -1;
        if (s->finished && s->error.code) {
            *e = s->error;
            return -1;
        }
    }
    return 0;
}

int client_stream_send(struct client_stream *s, const void *data, size_t len, struct rpc_error *e)
{
    const struct rpc_header h = header(s, RPC_TYPE_STREAM, RPC_STATUS_CONTINUE);
    const uint8_t *p = data;
    while (len) {
        size_t n = len < RPC_STREAM_CHUNK ? len : RPC_STREAM_CHUNK;
        if (rpc_encode_raw(&s->c->out, &h, p, n) < 0)
            return rpc_error_set(e, VIR_RPC, VIR_FROM_STREAMS, "Unable to encode message payload");
        if (drain(s, 0, e) < 0)
            return -1;
        p += n;
        len -= n;
    }
    return 0;
}

int client_stream_send_hole(struct client_stream *s, uint64_t len, struct rpc_error *e)
{
    const struct rpc_header h = header(s, RPC_TYPE_HOLE, RPC_STATUS_CONTINUE);
    uint8_t body[12] = {0};
    for (int i = 0; i < 8; i++)
        body[i] = len >> (56 - 8 * i);
    if (rpc_encode_raw(&s->c->out, &h, body, sizeof(body)) < 0)
        return rpc_error_set(e, VIR_RPC, VIR_FROM_STREAMS, "Unable to encode message payload");
    return drain(s, 0, e);
}

ssize_t client_stream_recv(struct client_stream *s, int timeout_ms, const uint8_t **ret_data, uint64_t *ret_hole,
                           struct rpc_error *e)
{
    free(s->current);
    s->current = NULL;
    *ret_hole = 0;
    while (!s->queue) {
        if (s->error.code) {
            *e = s->error;
            return -1;
        }
        if (s->ended)
            return 0;
        size_t before = s->c->in.len;
        if (client_io(s->c, timeout_ms, e) < 0)
            return -1;
        if (!s->queue && !s->ended && timeout_ms >= 0 && s->c->in.len == before)
            return -EAGAIN;
    }
    struct client_packet *p = s->queue;
    s->queue = p->next;
    if (!s->queue)
        s->queue_last = NULL;
    s->queued -= p->len;
    s->current = p;
    if (p->header.type == RPC_TYPE_HOLE) {
        if (p->len < 12)
            return client_lost(s->c, e, "a hole in a stream cannot be understood");
        for (int i = 0; i < 8; i++)
            *ret_hole = *ret_hole << 8 | p->data[i];
        return p->len;
    }
    *ret_data = p->data;
    return p->len;
}

int client_stream_finish(struct client_stream *s, struct rpc_error *e)
{
    const struct rpc_header h = header(s, RPC_TYPE_STREAM, RPC_STATUS_OK);
    int r = 0;
    if (!s->finished) {
        rpc_encode_raw(&s->c->out, &h, NULL, 0);
        while (!s->finished && r == 0)
            r = client_io(s->c, -1, e);
    }
    if (s->error.code) {
        *e = s->error;
        r = -1;
    }
    stream_free(s);
    return r;
}

void client_stream_abort(struct client_stream *s)
{
    struct rpc_error e;
    const struct rpc_header h = header(s, RPC_TYPE_STREAM, RPC_STATUS_ERROR);
    if (!s->finished && !s->c->dead) {
        rpc_encode_raw(&s->c->out, &h, NULL, 0);
        drain(s, 0, &e);
    }
    stream_free(s);
}
