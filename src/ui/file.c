/* Output to a file, which is never read; and to nowhere. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "ui/stream.h"

struct file {
    struct stream s;
    int fd;
};

static const struct chardev_ops file_ops = STREAM_OPS("file");
static const struct chardev_ops null_ops = STREAM_OPS("null");

static void close_file(struct stream *s)
{
    fd_closep(&((struct file *)s)->fd);
}

int chardev_file_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (o->append ? O_APPEND : O_TRUNC);
    int fd = open(o->path, flags, 0644);
    if (fd < 0)
        return err_errno(err, -errno, "%s", o->path);
    struct file *f = stream_new(sizeof *f, loop, &file_ops);
    f->fd = fd;
    f->s.close = close_file;
    stream_connect(&f->s, -1, fd, STREAM_NONBLOCK);
    *ret = &f->s.chardev;
    return 0;
}

int chardev_null_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err)
{
    struct stream *s = stream_new(sizeof *s, loop, &null_ops);
    stream_connect(s, -1, -1, STREAM_NONBLOCK);
    *ret = &s->chardev;
    return 0;
}
