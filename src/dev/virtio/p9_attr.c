/* 9P: attributes of files and of the file system. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "dev/virtio/p9_priv.h"

#define GETATTR_BASIC 0x7ff
#define V9FS_MAGIC 0x01021997

enum {
    SET_MODE = 0x1,
    SET_UID = 0x2,
    SET_GID = 0x4,
    SET_SIZE = 0x8,
    SET_ATIME = 0x10,
    SET_MTIME = 0x20,
    SET_ATIME_TO = 0x80,
    SET_MTIME_TO = 0x100,
};

int p9_getattr(struct p9_req *r)
{
    struct stat st;
    struct p9_fid *f = p9_get_fid(r);
    if (!f)
        return -EBADF;
    if (fstat(f->node->fd, &st) < 0)
        return -errno;
    struct p9_out *o = &r->out;
    p9_put(o, GETATTR_BASIC, 8);
    p9_put_qid(r, &st);
    p9_put(o, st.st_mode, 4);
    p9_put(o, st.st_uid, 4);
    p9_put(o, st.st_gid, 4);
    p9_put(o, st.st_nlink, 8);
    p9_put(o, st.st_rdev, 8);
    p9_put(o, (uint64_t)st.st_size, 8);
    p9_put(o, (uint64_t)st.st_blksize, 8);
    p9_put(o, (uint64_t)st.st_blocks, 8);
    p9_put(o, (uint64_t)st.st_atim.tv_sec, 8);
    p9_put(o, (uint64_t)st.st_atim.tv_nsec, 8);
    p9_put(o, (uint64_t)st.st_mtim.tv_sec, 8);
    p9_put(o, (uint64_t)st.st_mtim.tv_nsec, 8);
    p9_put(o, (uint64_t)st.st_ctim.tv_sec, 8);
    p9_put(o, (uint64_t)st.st_ctim.tv_nsec, 8);
    for (unsigned i = 0; i < 4; i++)
        p9_put(o, 0, 8); /* birth time, generation, data version: not in GETATTR_BASIC */
    return 0;
}

static int set_size(struct p9_req *r, struct p9_fid *f, uint64_t size)
{
    if (f->node->type != S_IFREG)
        return f->node->type == S_IFDIR ? -EISDIR : -EINVAL;
    if (f->io >= 0 && f->writable)
        return ftruncate(f->io, (off_t)size) < 0 ? -errno : 0;
    autofd int fd = p9_reopen(r->s, f->node->fd, O_WRONLY);
    if (fd < 0)
        return fd;
    return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int p9_setattr(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    struct p9_in *in = &r->in;
    uint32_t valid = (uint32_t)p9_get(in, 4), mode = (uint32_t)p9_get(in, 4), uid = (uint32_t)p9_get(in, 4),
             gid = (uint32_t)p9_get(in, 4);
    uint64_t size = p9_get(in, 8);
    struct timespec ts[2];
    for (unsigned i = 0; i < 2; i++) {
        ts[i].tv_sec = (time_t)p9_get(in, 8);
        ts[i].tv_nsec = (long)p9_get(in, 8);
    }
    if (!f)
        return -EBADF;
    if (in->bad)
        return -EINVAL;
    int code = 0;
    if (valid & (SET_UID | SET_GID) && fchownat(f->node->fd, "", valid & SET_UID ? uid : (uid_t)-1,
                                                valid & SET_GID ? gid : (gid_t)-1, AT_EMPTY_PATH) < 0)
        return -errno;
    if (valid & SET_MODE) {
        char path[16];
        snprintf(path, sizeof path, "%d", f->node->fd);
        if (fchmodat(r->s->proc, path, mode & (f->node->type == S_IFDIR ? 03777 : 01777), 0) < 0)
            return -errno;
    }
    if (valid & SET_SIZE)
        code = set_size(r, f, size);
    if (!code && valid & (SET_ATIME | SET_MTIME)) {
        if (!(valid & SET_ATIME_TO))
            ts[0].tv_nsec = UTIME_NOW;
        if (!(valid & SET_ATIME))
            ts[0].tv_nsec = UTIME_OMIT;
        if (!(valid & SET_MTIME_TO))
            ts[1].tv_nsec = UTIME_NOW;
        if (!(valid & SET_MTIME))
            ts[1].tv_nsec = UTIME_OMIT;
        if (utimensat(f->node->fd, "", ts, AT_EMPTY_PATH) < 0)
            code = -errno;
    }
    return code;
}

int p9_statfs(struct p9_req *r)
{
    struct statfs st;
    struct p9_fid *f = p9_get_fid(r);
    if (!f)
        return -EBADF;
    if (fstatfs(f->node->fd, &st) < 0)
        return -errno;
    struct p9_out *o = &r->out;
    p9_put(o, V9FS_MAGIC, 4);
    p9_put(o, (uint64_t)st.f_bsize, 4);
    p9_put(o, st.f_blocks, 8);
    p9_put(o, st.f_bfree, 8);
    p9_put(o, st.f_bavail, 8);
    p9_put(o, st.f_files, 8);
    p9_put(o, st.f_ffree, 8);
    p9_put(o, 0, 8);
    p9_put(o, (uint64_t)MIN(st.f_namelen, P9_NAME_MAX), 4);
    return 0;
}

int p9_readlink(struct p9_req *r)
{
    char target[4096];
    struct p9_fid *f = p9_get_fid(r);
    if (!f)
        return -EBADF;
    if (f->node->type != S_IFLNK)
        return -EINVAL;
    ssize_t n = readlinkat(f->node->fd, "", target, sizeof target - 1);
    if (n < 0)
        return -errno;
    target[n] = '\0';
    p9_put_str(&r->out, target);
    return 0;
}

/* ---- extended attributes: "user." ones only; the others mean something to the host's kernel ---- */

static bool xattr_allowed(const struct p9_node *n, const char *name)
{
    return !strncmp(name, "user.", 5) && (n->type == S_IFREG || n->type == S_IFDIR);
}

static void proc_path(const struct p9_node *n, char path[32])
{
    snprintf(path, 32, "/proc/self/fd/%d", n->fd);
}

/* Leaves the names a client may see; the new length. */
static size_t filter_names(char *list, size_t len)
{
    size_t out = 0;
    for (size_t i = 0, n; i < len; i += n) {
        n = strnlen(list + i, len - i) + 1;
        if (i + n <= len && !strncmp(list + i, "user.", 5)) {
            memmove(list + out, list + i, n);
            out += n;
        }
    }
    return out;
}

int p9_xattrwalk(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1], path[32];
    struct p9_fid *f = p9_get_fid(r), *nf;
    uint32_t newfid = (uint32_t)p9_get(&r->in, 4);
    p9_get_str(&r->in, name, sizeof name);
    if (!f)
        return -EBADF;
    if (r->in.bad)
        return -EINVAL;
    if (*name ? !xattr_allowed(f->node, name) : f->node->type == S_IFLNK)
        return -EOPNOTSUPP;
    proc_path(f->node, path);
    uint8_t *data = malloc(P9_XATTR_MAX);
    if (!data)
        return -ENOMEM;
    ssize_t n = *name ? getxattr(path, name, data, P9_XATTR_MAX) : listxattr(path, (char *)data, P9_XATTR_MAX);
    int code = n < 0 ? -errno : p9_fid_new(r->s, newfid, p9_node_ref(f->node), f->uid, &nf);
    if (code < 0) {
        free(data);
        return code;
    }
    nf->xattr_len = *name ? (size_t)n : filter_names((char *)data, (size_t)n);
    nf->xattr = realloc(data, MAX(nf->xattr_len, 1));
    if (!nf->xattr)
        nf->xattr = data;
    p9_put(&r->out, nf->xattr_len, 8);
    return 0;
}

int p9_xattrcreate(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *f = p9_get_fid(r);
    p9_get_str(&r->in, name, sizeof name);
    uint64_t size = p9_get(&r->in, 8);
    uint32_t flags = (uint32_t)p9_get(&r->in, 4);
    if (!f)
        return -EBADF;
    if (r->in.bad || f->io >= 0 || f->dir || f->xattr || flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (!xattr_allowed(f->node, name))
        return -EOPNOTSUPP;
    if (size > P9_XATTR_MAX)
        return -E2BIG;
    f->xattr = calloc(1, MAX(size, 1));
    if (!f->xattr)
        return -ENOMEM;
    f->xattr_len = size;
    f->xattr_have = 0;
    f->xattr_flags = (int)flags;
    f->xattr_name = xstrdup(name);
    return 0;
}

int p9_xattr_commit(struct p9_server *s, struct p9_fid *f)
{
    char path[32];
    proc_path(f->node, path);
    if (f->xattr_have < f->xattr_len)
        return -EIO;
    /* Linux removes one by replacing it with nothing. */
    int ret = !f->xattr_len && f->xattr_flags & XATTR_REPLACE
                  ? removexattr(path, f->xattr_name)
                  : setxattr(path, f->xattr_name, f->xattr, f->xattr_len, f->xattr_flags);
    return ret < 0 ? -errno : 0;
}
