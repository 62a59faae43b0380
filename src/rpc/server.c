/* The server: listening sockets, the list of clients, and the clock that pings them. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "rpc/server_priv.h"

struct listener {
    struct listener *next;
    struct rpc_server *server;
    int fd;
    bool readonly;
    struct loop_fd *watch;
};

static void on_connection(void *opaque, uint32_t events)
{
    struct listener *l = opaque;
    struct rpc_server *s = l->server;
    for (int i = 0; i < 16; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                /* It stays ready: look again when the timer comes by, or we would spin. */
                s->accept_paused = true;
                for (struct listener *o = s->listeners; o; o = o->next)
                    loop_mod_fd(o->watch, 0);
            }
            return;
        }
        if (s->n_clients >= s->limits.clients)
            close(fd);
        else
            conn_new(s, fd, l->readonly);
    }
}

static void on_timer(void *opaque)
{
    struct rpc_server *s = opaque;
    uint64_t now = clock_host_ns();
    if (s->accept_paused) {
        s->accept_paused = false;
        for (struct listener *l = s->listeners; l; l = l->next)
            loop_mod_fd(l->watch, EPOLLIN);
    }
    for (struct rpc_client *c = s->clients, *next; c; c = next) {
        next = c->next;
        conn_keepalive(c, now);
    }
    timer_arm(&s->timer, clock_now(s->clock) + NSEC_PER_SEC);
}

int rpc_server_new(struct loop *loop, const struct clock *clock, const struct rpc_limits *limits,
                   const struct rpc_server_owner *owner, struct rpc_server **ret, struct err *err)
{
    struct rpc_server *s = xcalloc(1, sizeof *s);
    s->loop = loop;
    s->clock = clock;
    s->limits = *limits;
    s->owner = *owner;
    timer_init(&s->timer, loop, clock, on_timer, s);
    timer_arm(&s->timer, clock_now(clock) + NSEC_PER_SEC);
    *ret = s;
    return 0;
}

void rpc_server_free(struct rpc_server *s)
{
    if (!s)
        return;
    timer_cancel(&s->timer);
    while (s->clients)
        conn_drop(s->clients);
    for (struct listener *l = s->listeners, *next; l; l = next) {
        next = l->next;
        loop_del_fd(l->watch);
        free(l);
    }
    free(s);
}

void rpc_server_listen(struct rpc_server *s, int fd, bool readonly)
{
    struct listener *l = xcalloc(1, sizeof *l);
    *l = (struct listener){.next = s->listeners, .server = s, .fd = fd, .readonly = readonly};
    l->watch = loop_add_fd(s->loop, fd, EPOLLIN, on_connection, l);
    s->listeners = l;
}

void rpc_server_take(struct rpc_server *s, int fd, bool readonly)
{
    conn_new(s, fd, readonly);
}

unsigned rpc_server_clients(const struct rpc_server *s)
{
    return s->n_clients;
}

void rpc_server_each(struct rpc_server *s, void (*fn)(void *opaque, struct rpc_client *c), void *opaque)
{
    for (struct rpc_client *c = s->clients, *next; c; c = next) {
        next = c->next;
        fn(opaque, c);
    }
}
