/*
 * A UNIX socket. Listening: one client at a time, the next one waits until it has gone; the socket's file is removed at
 * the end. Connecting: once, at the start.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/sock.h"
#include "ui/stream.h"

struct sock {
    struct stream s;
    char *path; /* of the socket we made, NULL: none */
    int listen_fd, fd;
    struct loop_fd *listen_watch;
};

static const struct chardev_ops unix_ops = STREAM_OPS("unix");

static void listen_again(struct sock *k);

static void on_client(void *opaque, uint32_t events)
{
    struct sock *k = opaque;
    int fd = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    k->fd = fd;
    loop_del_fd(k->listen_watch);
    k->listen_watch = NULL;
    stream_connect(&k->s, fd, fd, STREAM_SOCKET);
}

static void listen_again(struct sock *k)
{
    if (k->listen_fd >= 0 && !k->listen_watch)
        k->listen_watch = loop_add_fd(k->s.loop, k->listen_fd, EPOLLIN, on_client, k);
}

static void hangup(struct stream *s)
{
    struct sock *k = (struct sock *)s;
    stream_disconnect(s);
    fd_closep(&k->fd);
    k->fd = -1;
    listen_again(k);
}

static void close_sock(struct stream *s)
{
    struct sock *k = (struct sock *)s;
    loop_del_fd(k->listen_watch);
    fd_closep(&k->fd);
    fd_closep(&k->listen_fd);
    if (k->path)
        unlink(k->path);
    free(k->path);
}

int chardev_unix_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err)
{
    int fd = o->connect ? sock_unix_connect(o->path, err) : sock_unix_listen(o->path, err);
    if (fd < 0)
        return fd;
    struct sock *k = stream_new(sizeof *k, loop, &unix_ops);
    k->fd = o->connect ? fd : -1;
    k->listen_fd = o->connect ? -1 : fd;
    k->path = o->connect ? NULL : xstrdup(o->path);
    k->s.hangup = hangup;
    k->s.close = close_sock;
    if (o->connect)
        stream_connect(&k->s, fd, fd, STREAM_SOCKET);
    else
        listen_again(k);
    *ret = &k->s.chardev;
    return 0;
}
