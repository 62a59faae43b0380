/* See monitor.h: the listening socket, the list of clients, events. */
#include "monitor/monitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/fd.h"
#include "base/loop.h"
#include "base/sock.h"
#include "monitor/private.h"

static void on_connect(void *opaque, uint32_t events)
{
    struct monitor *m = opaque;
    int fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (m->n_clients >= MONITOR_CLIENTS_MAX) {
        close(fd);
        return;
    }
    client_new(m, fd);
}

int monitor_new(struct loop *loop, const char *path, const struct monitor_vm *vm, struct monitor **ret, struct err *err)
{
    int fd = sock_unix_listen(path, err);
    if (fd < 0)
        return fd;
    struct monitor *m = xcalloc(1, sizeof *m);
    m->loop = loop;
    m->vm = *vm;
    m->name = xstrdup(vm->name ? vm->name : "");
    m->uuid = xstrdup(vm->uuid ? vm->uuid : "00000000-0000-0000-0000-000000000000");
    m->path = xstrdup(path);
    m->listen_fd = fd;
    m->listen_watch = loop_add_fd(loop, fd, EPOLLIN, on_connect, m);
    *ret = m;
    return 0;
}

void monitor_free(struct monitor *m)
{
    if (!m)
        return;
    while (m->clients)
        client_free(m->clients);
    loop_del_fd(m->listen_watch);
    close(m->listen_fd);
    unlink(m->path);
    free(m->path);
    free(m->name);
    free(m->uuid);
    free(m);
}

void monitor_event(struct monitor *m, const char *name, const char *data)
{
    struct timeval now;
    if (!m || !m->clients)
        return;
    gettimeofday(&now, NULL);
    json_t *e = json_pack("{s:{s:I,s:I},s:s}", "timestamp", "seconds", (json_int_t)now.tv_sec, "microseconds",
                          (json_int_t)now.tv_usec, "event", name);
    json_t *d = data ? json_loads(data, 0, NULL) : NULL;
    if (d)
        json_object_set_new(e, "data", d);
    for (struct client *c = m->clients, *next; c; c = next) {
        next = client_next(c);
        if (client_negotiated(c))
            client_send(c, e);
    }
    json_decref(e);
}
