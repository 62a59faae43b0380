/*
 * One client's connection: packets in and out. A client that breaks the framing is dropped; nobody else notices. It may
 * be dropped from inside of a handler: `busy` keeps the struct until the outermost of our functions is done.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "rpc/server_priv.h"

static void on_ready(void *opaque, uint32_t events);

void conn_new(struct rpc_server *s, int fd, bool readonly)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
        close(fd);
        return;
    }
    struct rpc_client *c = xcalloc(1, sizeof *c);
    c->server = s;
    c->fd = fd;
    c->readonly = readonly;
    c->uid = peer.uid;
    c->pid = peer.pid;
    c->out_tail = &c->out;
    c->heard_ns = clock_host_ns();
    c->next = s->clients;
    if (c->next)
        c->next->prev = c;
    s->clients = c;
    s->n_clients++;
    c->events = EPOLLIN;
    c->watch = loop_add_fd(s->loop, fd, EPOLLIN, on_ready, c);
}

static void out_free(struct conn_out *o)
{
    if (o->fd >= 0)
        close(o->fd);
    rpc_buf_free(&o->buf);
    free(o);
}

static void destroy(struct rpc_client *c)
{
    free(c->in);
    free(c);
}

void conn_drop(struct rpc_client *c)
{
    if (c->dead)
        return;
    struct rpc_server *s = c->server;
    c->dead = true;
    loop_del_fd(c->watch);
    c->watch = NULL;
    close(c->fd);
    c->fd = -1;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->clients = c->next;
    if (c->next)
        c->next->prev = c->prev;
    s->n_clients--;
    conn_enter(c);
    stream_drop_all(c);
    call_drop_all(c);
    s->owner.closed(s->owner.opaque, c);
    for (unsigned i = 0; i < c->n_fds; i++)
        close(c->fds[i]);
    while (c->out) {
        struct conn_out *o = c->out;
        c->out = o->next;
        out_free(o);
    }
    conn_leave(c);
}

void conn_enter(struct rpc_client *c)
{
    c->busy++;
}

void conn_leave(struct rpc_client *c)
{
    if (--c->busy == 0 && c->dead)
        destroy(c);
}

void conn_watch(struct rpc_client *c)
{
    if (c->dead)
        return;
    bool read = !c->closing && !c->holds && c->n_calls < c->server->limits.calls && c->unread <= CONN_UNREAD_HIGH;
    uint32_t events = (read ? EPOLLIN : 0) | (c->out ? EPOLLOUT : 0);
    if (events != c->events)
        loop_mod_fd(c->watch, c->events = events);
}

/* Sends what the socket takes. False: the connection is gone. */
static bool flush(struct rpc_client *c)
{
    while (c->out) {
        struct conn_out *o = c->out;
        while (o->off < o->buf.len) {
            ssize_t n = send(c->fd, o->buf.data + o->off, o->buf.len - o->off, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return errno == EAGAIN;
            o->off += n;
            c->unread -= n;
        }
        if (o->fd >= 0) {
            int r = rpc_send_fd(c->fd, o->fd);
            if (r < 0)
                return r == -EAGAIN;
        }
        c->out = o->next;
        if (!c->out)
            c->out_tail = &c->out;
        out_free(o);
    }
    return !c->closing;
}

void conn_queue(struct rpc_client *c, struct rpc_buf *b, int fd)
{
    if (c->dead || c->closing || c->unread + b->len > CONN_UNREAD_MAX) {
        if (fd >= 0)
            close(fd);
        rpc_buf_free(b);
        if (!c->dead && !c->closing) {
            c->closing = true; /* seen by on_ready() and the timer */
            shutdown(c->fd, SHUT_RDWR);
        }
        return;
    }
    struct conn_out *o = xcalloc(1, sizeof *o);
    o->buf = *b;
    o->fd = fd;
    *b = (struct rpc_buf){0};
    c->unread += o->buf.len;
    bool idle = !c->out;
    *c->out_tail = o;
    c->out_tail = &o->next;
    if (idle && !flush(c)) {
        c->closing = true;
        shutdown(c->fd, SHUT_RDWR);
    }
    conn_watch(c);
}

void rpc_client_close_soon(struct rpc_client *c)
{
    if (c->dead)
        return;
    c->closing = true;
    if (!c->out)
        shutdown(c->fd, SHUT_RDWR);
    c->events = c->out ? EPOLLOUT : EPOLLIN;
    loop_mod_fd(c->watch, c->events);
}

static void keepalive_packet(struct rpc_client *c, int32_t procedure)
{
    const struct rpc_header h = {
        .program = RPC_KEEPALIVE_PROGRAM, .version = 1, .procedure = procedure, .type = RPC_TYPE_EVENT};
    struct rpc_buf b = {0};
    if (rpc_encode(&b, &h, 0, NULL, NULL) == 0)
        conn_queue(c, &b, -1);
}

void conn_keepalive(struct rpc_client *c, uint64_t now)
{
    const struct rpc_limits *l = &c->server->limits;
    if (!c->keepalive || c->closing || !l->keepalive_s ||
        now - c->heard_ns < l->keepalive_s * (c->pings + 1) * NSEC_PER_SEC)
        return;
    if (l->keepalive_n && c->pings >= l->keepalive_n) {
        conn_drop(c);
        return;
    }
    c->pings++;
    keepalive_packet(c, RPC_KEEPALIVE_PING);
}

static void packet(struct rpc_client *c, const struct rpc_header *h, const uint8_t *payload, size_t len, unsigned n_fds)
{
    c->heard_ns = clock_host_ns();
    c->pings = 0;
    if (h->program == RPC_KEEPALIVE_PROGRAM) {
        if (h->type == RPC_TYPE_EVENT && h->procedure == RPC_KEEPALIVE_PING)
            keepalive_packet(c, RPC_KEEPALIVE_PONG);
        return;
    }
    if (h->type == RPC_TYPE_CALL || h->type == RPC_TYPE_CALL_FDS)
        call_packet(c, h, payload, len, n_fds);
    else if (h->type == RPC_TYPE_STREAM || h->type == RPC_TYPE_HOLE)
        stream_packet(c, h, payload, len);
    /* Others have no meaning for a server. */
}

/* Takes the first packet off the buffer, if it is there. 1, 0: not yet, -1: not our protocol. */
static int next_packet(struct rpc_client *c, size_t *off)
{
    const uint8_t *p = c->in + *off;
    size_t have = c->in_len - *off;
    uint32_t len;
    struct rpc_header h;
    if (have < RPC_PREFIX_SIZE)
        return 0;
    if (rpc_header_decode(p, &len, &h, NULL) < 0)
        return -1;
    if (!c->authenticated && len > CONN_PREAUTH_MAX)
        return -1;
    if (have < len)
        return 0;
    const uint8_t *payload = p + RPC_PREFIX_SIZE;
    size_t payload_len = len - RPC_PREFIX_SIZE;
    unsigned n_fds = 0;
    if (h.type == RPC_TYPE_CALL_FDS) {
        if (rpc_payload_nfds(&payload, &payload_len, &n_fds) < 0)
            return -1;
        if (have - len < n_fds) /* each comes with one byte */
            return 0;
        if (c->n_fds < n_fds)
            return -1;
    }
    *off += len + n_fds;
    packet(c, &h, payload, payload_len, n_fds);
    /* What nobody took, or came without being announced. */
    if (!c->dead) {
        for (unsigned i = 0; i < c->n_fds; i++)
            close(c->fds[i]);
        c->n_fds = 0;
    }
    return 1;
}

/* Reads once. 0: something came; -1: the client is gone. */
static int fill(struct rpc_client *c)
{
    if (c->in_cap - c->in_len < 4096) {
        c->in_cap = c->in_cap ? c->in_cap * 2 : 8192;
        uint8_t *bigger = realloc(c->in, c->in_cap);
        if (!bigger)
            abort();
        c->in = bigger;
    }
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(RPC_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {c->in + c->in_len, c->in_cap - c->in_len};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    for (struct cmsghdr *k = CMSG_FIRSTHDR(&m); k; k = CMSG_NXTHDR(&m, k)) {
        if (k->cmsg_level != SOL_SOCKET || k->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned count = (k->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        int got[RPC_FDS_MAX];
        memcpy(got, CMSG_DATA(k), MIN(count, RPC_FDS_MAX) * sizeof(int));
        for (unsigned i = 0; i < count && i < RPC_FDS_MAX; i++) {
            if (c->n_fds < RPC_FDS_MAX)
                c->fds[c->n_fds++] = got[i];
            else
                close(got[i]);
        }
    }
    if (n == 0)
        return -1;
    c->in_len += n;
    return 0;
}

static void take_packets(struct rpc_client *c)
{
    size_t off = 0;
    int r = 1;
    while (!c->dead && !c->closing && !c->holds && c->n_calls < c->server->limits.calls &&
           (r = next_packet(c, &off)) > 0)
        ;
    if (c->dead)
        return;
    if (r < 0) {
        conn_drop(c);
        return;
    }
    memmove(c->in, c->in + off, c->in_len - off);
    c->in_len -= off;
    if (!c->in_len && c->in_cap > 65536) {
        free(c->in);
        c->in = NULL;
        c->in_cap = 0;
    }
}

static void on_ready(void *opaque, uint32_t events)
{
    struct rpc_client *c = opaque;
    conn_enter(c);
    if ((events & EPOLLOUT) && !flush(c))
        conn_drop(c);
    else if ((events & EPOLLOUT) && c->unread <= CONN_UNREAD_HIGH / 2)
        stream_room(c);
    if (!c->dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        if (c->closing || ((events & (EPOLLHUP | EPOLLERR)) && !(c->events & EPOLLIN)) || fill(c) < 0)
            conn_drop(c);
        else
            take_packets(c);
    }
    if (!c->dead)
        conn_watch(c);
    conn_leave(c);
}

/* Packets that were left in the buffer because there were too many calls, or a hold. */
static void resume(void *opaque)
{
    struct rpc_client *c = opaque;
    conn_enter(c);
    if (!c->dead)
        take_packets(c);
    if (!c->dead)
        conn_watch(c);
    conn_leave(c);
    conn_leave(c); /* for the post */
}

void conn_resume(struct rpc_client *c)
{
    conn_watch(c);
    if (c->dead || !c->in_len)
        return;
    conn_enter(c);
    loop_post(c->server->loop, resume, c);
}

uid_t rpc_client_uid(const struct rpc_client *c)
{
    return c->uid;
}
pid_t rpc_client_pid(const struct rpc_client *c)
{
    return c->pid;
}
bool rpc_client_readonly(const struct rpc_client *c)
{
    return c->readonly;
}
void rpc_client_set_readonly(struct rpc_client *c)
{
    c->readonly = true;
}
void rpc_client_set_authenticated(struct rpc_client *c)
{
    c->authenticated = true;
}
bool rpc_client_authenticated(const struct rpc_client *c)
{
    return c->authenticated;
}
void rpc_client_enable_keepalive(struct rpc_client *c)
{
    c->keepalive = true;
}
void rpc_client_set_data(struct rpc_client *c, void *data)
{
    c->data = data;
}
void *rpc_client_data(const struct rpc_client *c)
{
    return c->data;
}

void rpc_client_event(struct rpc_client *c, uint32_t program, int32_t number, const void *value)
{
    const struct rpc_proc *p = rpc_proc_find(program, number);
    const struct rpc_header h = {
        .program = program, .version = RPC_VERSION, .procedure = number, .type = RPC_TYPE_EVENT, .serial = 1};
    struct rpc_buf b = {0};
    if (p && rpc_encode(&b, &h, 0, p->ret, value) == 0)
        conn_queue(c, &b, -1);
    rpc_buf_free(&b);
}
