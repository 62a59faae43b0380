/* 9P: making, moving and removing names. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "dev/virtio/p9_priv.h"

/* Reads a fid that must be a directory, and a name in it. 0 or -errno. */
static int get_place(struct p9_req *r, struct p9_fid **ret_dir, char name[P9_NAME_MAX + 1])
{
    *ret_dir = p9_get_fid(r);
    p9_get_str(&r->in, name, P9_NAME_MAX + 1);
    if (!*ret_dir)
        return -EBADF;
    if (r->in.bad)
        return -EINVAL;
    if ((*ret_dir)->node->type != S_IFDIR)
        return -ENOTDIR;
    return p9_name_check(name);
}

/* Owner and mode of what was just made, and its qid into the answer. */
static int settle(struct p9_req *r, struct p9_fid *dir, const char *name, uint32_t mode, uint32_t gid)
{
    struct stat st;
    autofd int fd = openat(dir->node->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (r->s->root_user && fchownat(fd, "", dir->uid, gid, AT_EMPTY_PATH) < 0) {
        /* Then it stays ours. */
    }
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISLNK(st.st_mode)) {
        /* mkdir and mknod obey our umask; the guest's has been applied in the guest. */
        char path[16];
        snprintf(path, sizeof path, "%d", fd);
        if (fchmodat(r->s->proc, path, mode & (S_ISDIR(st.st_mode) ? 03777 : 01777), 0) < 0 || fstat(fd, &st) < 0)
            return -errno;
    }
    p9_put_qid(r, &st);
    return 0;
}

int p9_symlink(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1], target[4096];
    struct p9_fid *dir;
    int code = get_place(r, &dir, name);
    if (code < 0)
        return code;
    p9_get_str(&r->in, target, sizeof target);
    uint32_t gid = (uint32_t)p9_get(&r->in, 4);
    if (r->in.bad)
        return -EINVAL;
    if (symlinkat(target, dir->node->fd, name) < 0)
        return -errno;
    return settle(r, dir, name, 0, gid);
}

int p9_mknod(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *dir;
    int code = get_place(r, &dir, name);
    if (code < 0)
        return code;
    uint32_t mode = (uint32_t)p9_get(&r->in, 4);
    p9_get(&r->in, 8); /* major, minor */
    uint32_t gid = (uint32_t)p9_get(&r->in, 4), type = mode & S_IFMT;
    if (r->in.bad)
        return -EINVAL;
    if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        return -EPERM;
    if (mknodat(dir->node->fd, name, type | (mode & 0777), 0) < 0)
        return -errno;
    return settle(r, dir, name, mode, gid);
}

int p9_mkdir(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *dir;
    int code = get_place(r, &dir, name);
    if (code < 0)
        return code;
    uint32_t mode = (uint32_t)p9_get(&r->in, 4), gid = (uint32_t)p9_get(&r->in, 4);
    if (r->in.bad)
        return -EINVAL;
    if (mkdirat(dir->node->fd, name, 0700) < 0)
        return -errno;
    return settle(r, dir, name, mode, gid);
}

int p9_link(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1], path[16];
    struct p9_fid *dir = p9_get_fid(r), *f = p9_get_fid(r);
    p9_get_str(&r->in, name, sizeof name);
    if (!dir || !f)
        return -EBADF;
    int code = r->in.bad ? -EINVAL : p9_name_check(name);
    if (code < 0)
        return code;
    snprintf(path, sizeof path, "%d", f->node->fd);
    return linkat(r->s->proc, path, dir->node->fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* Whether a file still is where it was found. */
static int still_there(const struct p9_node *n)
{
    struct stat st;
    if (!n->parent)
        return -EBUSY;
    if (fstatat(n->parent->fd, n->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return st.st_dev == n->dev && st.st_ino == n->ino ? 0 : -ESTALE;
}

int p9_rename(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *f = p9_get_fid(r), *dir = p9_get_fid(r);
    p9_get_str(&r->in, name, sizeof name);
    if (!dir || !f)
        return -EBADF;
    int code = r->in.bad ? -EINVAL : p9_name_check(name);
    if (!code)
        code = still_there(f->node);
    if (code < 0)
        return code;
    struct p9_node *n = f->node, *old = n->parent;
    if (renameat(old->fd, n->name, dir->node->fd, name) < 0)
        return -errno;
    n->parent = p9_node_ref(dir->node);
    p9_node_unref(old);
    free(n->name);
    n->name = xstrdup(name);
    return 0;
}

int p9_renameat(struct p9_req *r)
{
    char old[P9_NAME_MAX + 1], name[P9_NAME_MAX + 1];
    struct p9_fid *from, *to;
    int code = get_place(r, &from, old);
    if (!code)
        code = get_place(r, &to, name);
    if (code < 0)
        return code;
    return renameat(from->node->fd, old, to->node->fd, name) < 0 ? -errno : 0;
}

int p9_unlinkat(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1];
    struct p9_fid *dir;
    int code = get_place(r, &dir, name);
    if (code < 0)
        return code;
    uint32_t flags = (uint32_t)p9_get(&r->in, 4);
    if (r->in.bad)
        return -EINVAL;
    return unlinkat(dir->node->fd, name, flags & AT_REMOVEDIR) < 0 ? -errno : 0;
}

int p9_node_remove(struct p9_req *r, struct p9_node *n)
{
    int code = still_there(n);
    if (code < 0)
        return code;
    return unlinkat(n->parent->fd, n->name, n->type == S_IFDIR ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}
