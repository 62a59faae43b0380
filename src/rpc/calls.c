/* Calls: who may make them, their arguments, their answers. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "rpc/server_priv.h"

static void answer_error(struct rpc_client *c, const struct rpc_header *h, const struct rpc_error *e)
{
    struct rpc_buf b = {0};
    struct rpc_header call = *h;
    call.type = RPC_TYPE_CALL;
    if (rpc_encode_error(&b, &call, e) == 0)
        conn_queue(c, &b, -1);
    rpc_buf_free(&b);
}

static void call_free(struct rpc_call *call)
{
    if (call->args)
        rpc_free(call->proc->args, call->args);
    free(call->args);
    if (call->ret)
        rpc_free(call->proc->ret, call->ret);
    free(call->ret);
    for (unsigned i = 0; i < call->n_fds; i++)
        fd_closep(&call->fds[i]);
    fd_closep(&call->ret_fd);
    free(call);
}

static void send_answer(struct rpc_call *call)
{
    struct rpc_client *c = call->client;
    struct rpc_header h = call->header;
    struct rpc_buf b = {0};
    if (!call->error.code) {
        h.type = call->ret_fd >= 0 ? RPC_TYPE_REPLY_FDS : RPC_TYPE_REPLY;
        h.status = RPC_STATUS_OK;
        if (rpc_encode(&b, &h, call->ret_fd >= 0, call->proc->ret, call->ret) == 0) {
            conn_queue(c, &b, fd_take(call->ret_fd));
            return;
        }
        rpc_error_set(&call->error, VIR_INTERNAL_ERROR, VIR_FROM_RPC, "the answer to %s is too large",
                      call->proc->name);
    }
    answer_error(c, &call->header, &call->error);
}

static void unlink_call(struct rpc_call *call)
{
    struct rpc_client *c = call->client;
    if (call->prev)
        call->prev->next = call->next;
    else
        c->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    c->n_calls--;
}

void rpc_call_finish(struct rpc_call *call)
{
    struct rpc_client *c = call->client;
    if (c) {
        conn_enter(c);
        unlink_call(call);
        send_answer(call);
        conn_resume(c);
        conn_leave(c);
    }
    call_free(call);
}

void call_drop_all(struct rpc_client *c)
{
    while (c->calls) {
        struct rpc_call *call = c->calls;
        unlink_call(call);
        call->client = NULL;
    }
}

/* 0, or -1 with *e. */
static int allowed(const struct rpc_client *c, const struct rpc_header *h, const struct rpc_proc *p,
                   struct rpc_error *e)
{
    if (h->program != RPC_REMOTE_PROGRAM && h->program != RPC_QEMU_PROGRAM)
        return rpc_error_set(e, VIR_RPC, VIR_FROM_RPC, "Cannot find program %u version %u", h->program, h->version);
    if (h->version != RPC_VERSION)
        return rpc_error_set(e, VIR_RPC, VIR_FROM_RPC, "Cannot find program %u version %u", h->program, h->version);
    if (!c->authenticated && !(p && p->access & RPC_PREAUTH))
        return rpc_error_set(e, VIR_RPC, VIR_FROM_RPC, "authentication required");
    if (!p || p->access & RPC_IS_EVENT)
        return rpc_error_set(e, VIR_RPC, VIR_FROM_RPC, "unknown procedure: %d", h->procedure);
    if (c->readonly && !(p->access & (RPC_RO | RPC_PREAUTH)))
        return rpc_error_set(e, VIR_OPERATION_DENIED, VIR_FROM_DOM, "read only access prevents %s", p->name);
    return 0;
}

void call_packet(struct rpc_client *c, const struct rpc_header *h, const uint8_t *payload, size_t len, unsigned n_fds)
{
    const struct rpc_proc *p = rpc_proc_find(h->program, h->procedure);
    struct rpc_error e = {0};
    if (allowed(c, h, p, &e) < 0) {
        answer_error(c, h, &e);
        return;
    }
    struct rpc_call *call = xcalloc(1, sizeof *call);
    call->client = c;
    call->header = *h;
    call->proc = p;
    call->ret_fd = -1;
    call->args = xcalloc(1, p->args_size + 1u);
    call->ret = xcalloc(1, p->ret_size + 1u);
    if (rpc_decode(payload, len, p->args, call->args, p->args_size) < 0) {
        rpc_error_set(&e, VIR_RPC, VIR_FROM_RPC, "Unable to decode message payload");
        answer_error(c, h, &e);
        free(call->args);
        call->args = NULL;
        call_free(call);
        return;
    }
    for (unsigned i = 0; i < n_fds; i++)
        call->fds[call->n_fds++] = c->fds[i];
    memmove(c->fds, c->fds + n_fds, (c->n_fds - n_fds) * sizeof c->fds[0]);
    c->n_fds -= n_fds;
    call->next = c->calls;
    if (call->next)
        call->next->prev = call;
    c->calls = call;
    c->n_calls++;
    int r = c->server->owner.call(c->server->owner.opaque, call);
    if (r == RPC_LATER)
        return;
    if (r < 0 && !call->error.code)
        rpc_error_set(&call->error, VIR_INTERNAL_ERROR, VIR_FROM_RPC, "%s failed", p->name);
    if (call->client) {
        unlink_call(call);
        send_answer(call);
    }
    call_free(call);
}
