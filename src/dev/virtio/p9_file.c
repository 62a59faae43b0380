/* 9P: opening, creating, reading, writing, listing. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/iov.h"
#include "dev/virtio/p9_priv.h"

/* What a client may ask of open(); 9P2000.L has Linux's own numbers for x86. No O_DIRECT: the guest's buffers are not
 * aligned. */
#define OPEN_FLAGS (O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC | O_NOATIME)
#define IOV_PIECES 256

static bool is_open(const struct p9_fid *f)
{
    return f->io >= 0 || f->dir || f->xattr;
}

static bool wants_write(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

/* Opens the node's file for a fid. O_NOATIME is only a wish. */
static int open_node(struct p9_server *s, const struct p9_node *n, uint32_t flags)
{
    int fd = p9_reopen(s, n->fd, (int)flags & OPEN_FLAGS);
    if (fd == -EPERM && flags & O_NOATIME)
        fd = p9_reopen(s, n->fd, (int)flags & OPEN_FLAGS & ~O_NOATIME);
    return fd;
}

int p9_lopen(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    uint32_t flags = (uint32_t)p9_get(&r->in, 4);
    if (!f)
        return -EBADF;
    if (r->in.bad || is_open(f))
        return -EINVAL;
    if (r->s->nfds >= r->s->fds_max)
        return -ENFILE;
    if (f->node->type == S_IFDIR) {
        int fd = wants_write(flags) ? -EISDIR : p9_reopen(r->s, f->node->fd, O_RDONLY | O_DIRECTORY);
        if (fd < 0)
            return fd;
        f->dir = fdopendir(fd);
        if (!f->dir) {
            close(fd);
            return -ENOMEM;
        }
        f->dir_pos = 0;
    } else if (f->node->type == S_IFREG) {
        if (wants_write(flags) && r->s->readonly)
            return -EROFS;
        int fd = open_node(r->s, f->node, flags);
        if (fd < 0)
            return fd;
        f->io = fd;
        f->writable = wants_write(flags);
    } else {
        /* Pipes, sockets and devices are the guest's own; opening the host's could block or do anything. */
        return f->node->type == S_IFLNK ? -ELOOP : -ENXIO;
    }
    r->s->nfds++;
    p9_put_node_qid(r, f->node);
    p9_put(&r->out, 0, 4); /* iounit: as msize allows */
    return 0;
}

int p9_lcreate(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *f = p9_get_fid(r);
    p9_get_str(&r->in, name, sizeof name);
    uint32_t flags = (uint32_t)p9_get(&r->in, 4), mode = (uint32_t)p9_get(&r->in, 4), gid = (uint32_t)p9_get(&r->in, 4);
    if (!f)
        return -EBADF;
    int code = r->in.bad || is_open(f) ? -EINVAL : p9_name_check(name);
    if (code < 0)
        return code;
    if (f->node->type != S_IFDIR)
        return -ENOTDIR;
    if (r->s->nfds >= r->s->fds_max)
        return -ENFILE;
    struct p9_node *n;
    int fd = openat(f->node->fd, name,
                    (int)(flags & OPEN_FLAGS & ~O_NOATIME) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (r->s->root_user && fchown(fd, f->uid, gid) < 0) {
            /* Then it stays ours. */
        }
        fchmod(fd, mode & 01777);
        int path = p9_reopen(r->s, fd, O_PATH);
        code = path < 0 ? path : p9_node_new(r->s, path, f->node, name, &n);
    } else if (errno == EEXIST && !(flags & O_EXCL)) {
        code = p9_node_open(f->node, name, &n);
        if (code < 0)
            return code;
        fd = n->type == S_IFREG ? open_node(r->s, n, flags) : n->type == S_IFDIR ? -EISDIR : -ENXIO;
        if (fd < 0) {
            p9_node_unref(n);
            return fd;
        }
    } else {
        return -errno;
    }
    if (code < 0) {
        close(fd);
        return code;
    }
    p9_node_unref(f->node);
    f->node = n;
    f->io = fd;
    f->writable = wants_write(flags);
    r->s->nfds++;
    p9_put_node_qid(r, n);
    p9_put(&r->out, 0, 4);
    return 0;
}

int p9_read(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    uint64_t off = p9_get(&r->in, 8);
    size_t count = p9_get(&r->in, 4);
    if (!f)
        return -EBADF;
    if (r->in.bad || r->in_len < P9_READ_HEADER)
        return -EINVAL;
    count = MIN(count, MIN(r->in_len, r->s->msize) - P9_READ_HEADER);
    ssize_t n;
    if (f->xattr && !f->xattr_name) {
        n = (ssize_t)(off < f->xattr_len ? MIN(count, f->xattr_len - off) : 0);
        if (n)
            iov_write(r->in_iov, r->nin, P9_READ_HEADER, f->xattr + off, (size_t)n);
    } else if (f->io >= 0) {
        struct iovec iov[IOV_PIECES];
        unsigned niov = iov_slice(r->in_iov, r->nin, P9_READ_HEADER, count, iov, IOV_PIECES);
        do
            n = preadv(f->io, iov, (int)niov, (off_t)off);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return -errno;
    } else {
        return f->dir ? -EISDIR : -EBADF;
    }
    p9_put(&r->out, (uint64_t)n, 4);
    r->extra = (size_t)n;
    return 0;
}

int p9_write(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    uint64_t off = p9_get(&r->in, 8);
    size_t count = p9_get(&r->in, 4);
    if (!f)
        return -EBADF;
    if (r->in.bad || count > r->out_len - P9_WRITE_HEADER)
        return -EINVAL;
    ssize_t n;
    if (f->xattr_name) {
        if (off > f->xattr_len || count > f->xattr_len - off)
            return -ENOSPC;
        iov_read(r->out_iov, r->nout, P9_WRITE_HEADER, f->xattr + off, count);
        f->xattr_have = MAX(f->xattr_have, off + count);
        n = (ssize_t)count;
    } else if (f->io >= 0) {
        struct iovec iov[IOV_PIECES];
        unsigned niov = iov_slice(r->out_iov, r->nout, P9_WRITE_HEADER, count, iov, IOV_PIECES);
        do
            n = pwritev(f->io, iov, (int)niov, (off_t)off);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return -errno;
    } else {
        return -EBADF;
    }
    p9_put(&r->out, (uint64_t)n, 4);
    return 0;
}

int p9_readdir(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    uint64_t off = p9_get(&r->in, 8);
    size_t count = p9_get(&r->in, 4), count_at = r->out.len;
    if (!f || !f->dir)
        return -EBADF;
    if (r->in.bad || r->out.cap - r->out.len < 4)
        return -EINVAL;
    if (off == 0)
        rewinddir(f->dir);
    else if ((long)off != f->dir_pos)
        seekdir(f->dir, (long)off);
    f->dir_pos = (long)off;
    p9_put(&r->out, 0, 4);
    size_t start = r->out.len, end = start + MIN(count, r->out.cap - start);
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(f->dir);
        if (!e) {
            if (errno)
                return -errno;
            break;
        }
        if (r->out.len + P9_QID + 8 + 1 + 2 + strlen(e->d_name) > end) {
            if (r->out.len == start)
                return -EINVAL;
            seekdir(f->dir, f->dir_pos);
            break;
        }
        struct stat st = {.st_mode = DTTOIF(e->d_type), .st_dev = f->node->dev, .st_ino = e->d_ino};
        p9_put_qid(r, &st);
        p9_put(&r->out, (uint64_t)e->d_off, 8);
        p9_put(&r->out, e->d_type, 1);
        p9_put_str(&r->out, e->d_name);
        f->dir_pos = e->d_off;
    }
    le32_put(r->out.buf + count_at, (uint32_t)(r->out.len - start));
    return 0;
}

int p9_fsync(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    bool data_only = r->in.left >= 4 && p9_get(&r->in, 4);
    if (!f || (f->io < 0 && !f->dir))
        return -EBADF;
    int fd = f->dir ? dirfd(f->dir) : f->io;
    return (data_only ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
}

/*
 * Locks. The guest's kernel has settled them among its own processes before it asks; there is no other client. They are
 * not shown to processes of the host: locks there belong to open files, and would conflict between two files of one
 * guest process.
 */
int p9_lock(struct p9_req *r)
{
    if (!p9_get_fid(r))
        return -EBADF;
    p9_put(&r->out, 0, 1); /* success */
    return 0;
}

int p9_getlock(struct p9_req *r)
{
    char client[P9_NAME_MAX + 1];
    if (!p9_get_fid(r))
        return -EBADF;
    p9_get(&r->in, 1);
    uint64_t start = p9_get(&r->in, 8), length = p9_get(&r->in, 8), pid = p9_get(&r->in, 4);
    p9_get_str(&r->in, client, sizeof client);
    if (r->in.bad)
        return -EINVAL;
    p9_put(&r->out, 2, 1); /* unlocked */
    p9_put(&r->out, start, 8);
    p9_put(&r->out, length, 8);
    p9_put(&r->out, pid, 4);
    p9_put_str(&r->out, client);
    return 0;
}
