/* A connection to a guest's display, made here and handed to a client: it needs no address, and no right to the socket.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/sock.h"
#include "daemon/daemon.h"

/* The display listens on this machine, so that connecting does not wait. */
static int connect_port(const char *host, int port)
{
    char service[8];
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *list;
    bool any = !host || !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(any ? "127.0.0.1" : host, service, &hints, &list))
        return -EINVAL;
    autofd int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = fd < 0 || connect(fd, list->ai_addr, list->ai_addrlen) < 0 ? -errno : 0;
    freeaddrinfo(list);
    return r < 0 ? r : fd_take(fd);
}

int open_graphics_fd(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_uint_flags);
    enum { SKIP_AUTH = 1 };
    struct err err = {0};
    struct guest *g = call_active(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, SKIP_AUTH) < 0)
        return RPC_FAILED;
    if (a->value >= g->live->n_graphics)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "No graphics backend with index %u", a->value);
    const struct domain_graphics *v = &g->live->graphics[a->value];
    if (!v->socket && v->port <= 0)
        return verr_set(&call->error, VIR_CONFIG_UNSUPPORTED, "the display of domain '%s' has no port", g->name);
    int fd = v->socket ? sock_unix_connect(v->socket, &err) : connect_port(v->listen, v->port);
    if (fd < 0)
        return verr_errno(&call->error, fd, "cannot connect to the display of domain '%s'", g->name);
    call->ret_fd = fd;
    return RPC_DONE;
}
