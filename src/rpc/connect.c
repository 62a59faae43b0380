/* Connecting: URIs, sockets, authentication, opening. See client.h. */
#include "rpc/client_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "rpc/uri.h"

const char *client_default_uri(const char *uri)
{
    static const char *const names[] = {"LODGE_DEFAULT_URI", "VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI"};
    if (uri && *uri)
        return uri;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *v = getenv(names[i]);
        if (v && *v)
            return v;
    }
    return geteuid() ? "qemu:///session" : "qemu:///system";
}

static int try_connect(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a.sun_path))
        return -ENAMETOOLONG;
    strcpy(a.sun_path, path);
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return -errno;
    return fd_take(fd);
}

/* The places where a daemon may listen, best first. The caller frees the strings. */
static unsigned socket_paths(const struct rpc_uri *u, bool readonly, char *paths[8])
{
    unsigned n = 0;
    const char *ro = readonly ? "-ro" : "";
    if (u->socket) {
        paths[n++] = xstrdup(u->socket);
        return n;
    }
    if (!strcmp(u->path, "/session")) {
        const char *run = getenv("XDG_RUNTIME_DIR"), *home = getenv("HOME");
        autofree char *dir = run && *run ? xstrdup(run) : xasprintf("%s/.cache", home ? home : "");
        paths[n++] = xasprintf("%s/lodge/lodge-sock", dir);
        paths[n++] = xasprintf("%s/libvirt/virtqemud-sock", dir);
        paths[n++] = xasprintf("%s/libvirt/libvirt-sock", dir);
        return n;
    }
    paths[n++] = xasprintf("/run/lodge/lodge-sock%s", ro);
    paths[n++] = xasprintf("/run/libvirt/virtqemud-sock%s", ro);
    paths[n++] = xasprintf("/run/libvirt/libvirt-sock%s", ro);
    return n;
}

static int connect_socket(struct client *c, const struct rpc_uri *u, const struct client_options *o,
                          struct rpc_error *e)
{
    char *paths[8];
    int first_error = 0;
    unsigned n = socket_paths(u, o->readonly, paths);
    bool session = !u->socket && !strcmp(u->path, "/session");
    for (unsigned round = 0; round < 2 && c->fd < 0; round++) {
        for (unsigned i = 0; i < n && c->fd < 0; i++) {
            c->fd = try_connect(paths[i]);
            if (c->fd < 0 && (i == 0 || (first_error == -ENOENT && c->fd != -ENOENT)))
                first_error = c->fd;
            if (c->fd >= 0)
                c->socket = xstrdup(paths[i]);
        }
        if (c->fd < 0 && (round || !session || !o->start_session || o->start_session(paths[0]) < 0))
            break;
    }
    int r = 0;
    if (c->fd < 0)
        r = rpc_error_set(e, VIR_SYSTEM_ERROR, VIR_FROM_RPC, "Failed to connect socket to '%s': %s", paths[0],
                          strerror(-first_error));
    for (unsigned i = 0; i < n; i++)
        free(paths[i]);
    return r;
}

static int authenticate(struct client *c, struct rpc_error *e)
{
    rp_auth_types types;
    if (client_call(c, RPC_PROC_AUTH_LIST, NULL, &types, e) < 0)
        return -1;
    int type = types.types.types_len ? types.types.types_val[0] : 0;
    client_result_free(RPC_PROC_AUTH_LIST, &types);
    if (type == 0)
        return 0;
    if (type == 2) {
        rp_int complete;
        return client_call(c, RPC_PROC_AUTH_POLKIT, NULL, &complete, e);
    }
    return rpc_error_set(e, VIR_AUTH_FAILED, VIR_FROM_REMOTE, "unsupported authentication type %d", type);
}

int client_open(const char *uri, const struct client_options *o, struct client **ret, struct rpc_error *e)
{
    struct rpc_uri u;
    struct err err = {0};
    if (rpc_uri_parse(uri, &u, &err) < 0) {
        rpc_uri_free(&u);
        return rpc_error_set(e, VIR_INVALID_ARG, VIR_FROM_NONE, "%s", err.msg);
    }
    struct client *c = xcalloc(1, sizeof(*c));
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    c->last_packet = t.tv_sec * 1000ll + t.tv_nsec / 1000000;
    c->fd = -1;
    c->uri = xstrdup(uri);
    c->readonly = o->readonly;
    c->idle_ms = (o->idle_seconds ? o->idle_seconds : 5) * 1000;
    c->idle_count = o->idle_count ? o->idle_count : 6;
    bool lodge = !strcmp(u.driver, "lodge");
    int r = -1;
    if (!lodge && strcmp(u.driver, "qemu") != 0)
        rpc_error_set(e, VIR_NO_CONNECT, VIR_FROM_NONE, "URI %s", uri);
    else if (u.host || (u.transport && strcmp(u.transport, "unix") != 0))
        rpc_error_set(e, VIR_CONFIG_UNSUPPORTED, VIR_FROM_RPC, "%s: only daemons on this machine can be reached", uri);
    else if (strcmp(u.path, "/system") != 0 && strcmp(u.path, "/session") != 0)
        rpc_error_set(e, VIR_INTERNAL_ERROR, VIR_FROM_QEMU,
                      "unexpected QEMU URI path '%s', try qemu:///system or qemu:///session", u.path);
    else
        r = connect_socket(c, &u, o, e);
    if (r == 0)
        r = authenticate(c, e);
    if (r == 0) {
        autofree char *name = lodge ? xasprintf("qemu%s", u.name + strlen("lodge")) : xstrdup(u.name);
        rp_string text = name;
        const rp_open args = {&text, o->readonly ? 1 : 0};
        r = client_call(c, RPC_PROC_CONNECT_OPEN, &args, NULL, e);
    }
    rpc_uri_free(&u);
    if (r < 0) {
        client_free(c);
        return -1;
    }
    *ret = c;
    return 0;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    struct rpc_error e;
    uint32_t serial;
    /* Its answer would say nothing: the server closes when it has read this. */
    if (!c->dead && client_call_start(c, RPC_PROC_CONNECT_CLOSE, NULL, &serial, &e) == 0)
        client_io(c, 0, &e);
    client_free(c);
}

const char *client_uri(const struct client *c)
{
    return c->uri;
}

const char *client_socket(const struct client *c)
{
    return c->socket;
}

bool client_readonly(const struct client *c)
{
    return c->readonly;
}

bool client_dead(const struct client *c)
{
    return c->dead;
}

int client_fd(const struct client *c)
{
    return c->fd;
}
