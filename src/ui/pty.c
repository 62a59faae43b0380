/*
 * A pseudo terminal; the user attaches to its name. While nobody has it open, reading the master side gives hang-ups
 * without end, so it is not watched; inotify says when somebody opens it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <termios.h>

#include "base/fd.h"
#include "ui/stream.h"

struct pty {
    struct stream s;
    char name[64];
    int fd, inotify;
    struct loop_fd *watch;
};

static const struct chardev_ops pty_ops = STREAM_OPS("pty");

static void attach(struct pty *p)
{
    struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
    poll(&pfd, 1, 0);
    /* Who writes a line and closes at once has hung up already, but what was written is still to be read. */
    if ((!(pfd.revents & POLLHUP) || pfd.revents & POLLIN) && !p->s.connected)
        stream_connect(&p->s, p->fd, p->fd, STREAM_NONBLOCK);
}

static void on_open(void *opaque, uint32_t events)
{
    struct pty *p = opaque;
    char buf[4096];
    while (read(p->inotify, buf, sizeof buf) > 0)
        ;
    attach(p);
}

static void hangup(struct stream *s)
{
    stream_disconnect(s);
    attach((struct pty *)s); /* somebody may have opened it in between */
}

static void close_pty(struct stream *s)
{
    struct pty *p = (struct pty *)s;
    loop_del_fd(p->watch);
    fd_closep(&p->inotify);
    fd_closep(&p->fd);
}

int chardev_pty_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err)
{
    autofd int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    char name[64];
    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof name))
        return err_errno(err, -errno, "cannot make a pseudo terminal");
    autofd int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios t;
    if (slave < 0 || tcgetattr(slave, &t) < 0)
        return err_errno(err, -errno, "%s", name);
    cfmakeraw(&t);
    if (tcsetattr(slave, TCSANOW, &t) < 0)
        return err_errno(err, -errno, "%s", name);
    autofd int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (inotify < 0 || inotify_add_watch(inotify, name, IN_OPEN) < 0)
        return err_errno(err, -errno, "%s: cannot watch it", name);
    struct pty *p = stream_new(sizeof *p, loop, &pty_ops);
    memcpy(p->name, name, sizeof name);
    p->s.chardev.path = p->name;
    p->fd = fd_take(fd);
    p->inotify = fd_take(inotify);
    p->s.hangup = hangup;
    p->s.close = close_pty;
    p->watch = loop_add_fd(loop, p->inotify, EPOLLIN, on_open, p);
    *ret = &p->s.chardev;
    return 0;
}
