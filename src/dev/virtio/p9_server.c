#include "dev/virtio/p9_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/iov.h"
#include "dev/virtio/p9_priv.h"

/* ---- files ---- */

struct p9_node *p9_node_ref(struct p9_node *n)
{
    n->refs++;
    return n;
}

void p9_node_unref(struct p9_node *n)
{
    while (n && --n->refs == 0) {
        struct p9_node *parent = n->parent;
        n->server->nfds--;
        close(n->fd);
        free(n->name);
        free(n);
        n = parent;
    }
}

int p9_node_new(struct p9_server *s, int fd, struct p9_node *parent, const char *name, struct p9_node **ret)
{
    struct stat st;
    if (s->nfds >= s->fds_max || fstat(fd, &st) < 0) {
        int code = s->nfds >= s->fds_max ? -ENFILE : -errno;
        close(fd);
        return code;
    }
    struct p9_node *n = xcalloc(1, sizeof *n);
    *n = (struct p9_node){
        .server = s, .refs = 1, .fd = fd, .type = st.st_mode & S_IFMT, .dev = st.st_dev, .ino = st.st_ino};
    n->parent = parent ? p9_node_ref(parent) : NULL;
    n->name = xstrdup(name);
    s->nfds++;
    *ret = n;
    return 0;
}

int p9_name_check(const char *name)
{
    if (!*name || strchr(name, '/'))
        return -EINVAL;
    return !strcmp(name, ".") || !strcmp(name, "..") ? -EINVAL : 0;
}

int p9_node_open(struct p9_node *dir, const char *name, struct p9_node **ret)
{
    if (dir->type != S_IFDIR)
        return -ENOTDIR;
    if (!strcmp(name, "..") || !strcmp(name, ".")) {
        *ret = p9_node_ref(name[1] && dir->parent ? dir->parent : dir);
        return 0;
    }
    int code = p9_name_check(name);
    if (code < 0)
        return code;
    int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : p9_node_new(dir->server, fd, dir, name, ret);
}

int p9_reopen(struct p9_server *s, int fd, int flags)
{
    char name[16];
    snprintf(name, sizeof name, "%d", fd);
    int io = openat(s->proc, name, (flags & ~O_NOFOLLOW) | O_CLOEXEC | O_NOCTTY);
    return io < 0 ? -errno : io;
}

/* ---- qids ---- */

/* One number for a file; the usual case, one file system, is the inode number itself. */
uint64_t p9_qid_path(const struct p9_server *s, dev_t dev, ino_t ino)
{
    return ino ^ (dev - s->root->dev) * 0x9e3779b97f4a7c15ull;
}

static uint8_t qid_type(mode_t mode)
{
    return S_ISDIR(mode) ? 0x80 : S_ISLNK(mode) ? 0x02 : 0;
}

void p9_put_qid(struct p9_req *r, const struct stat *st)
{
    p9_put(&r->out, qid_type(st->st_mode), 1);
    p9_put(&r->out, (uint32_t)(st->st_mtim.tv_sec ^ st->st_mtim.tv_nsec ^ st->st_size << 8), 4);
    p9_put(&r->out, p9_qid_path(r->s, st->st_dev, st->st_ino), 8);
}

void p9_put_node_qid(struct p9_req *r, const struct p9_node *n)
{
    struct stat st;
    if (fstat(n->fd, &st) < 0)
        st = (struct stat){.st_mode = n->type, .st_dev = n->dev, .st_ino = n->ino};
    p9_put_qid(r, &st);
}

/* ---- fids ---- */

struct p9_fid *p9_fid_find(struct p9_server *s, uint32_t fid)
{
    struct p9_fid *f = s->bucket[fid % P9_BUCKETS];
    while (f && f->fid != fid)
        f = f->next;
    return f;
}

/* Takes over one reference to `node`, also on failure. */
int p9_fid_new(struct p9_server *s, uint32_t fid, struct p9_node *node, uint32_t uid, struct p9_fid **ret)
{
    struct p9_fid *f = NULL;
    int code = p9_fid_find(s, fid) ? -EINVAL : s->nfids >= P9_FIDS_MAX ? -ENFILE : 0;
    if (!code && !(f = calloc(1, sizeof *f)))
        code = -ENOMEM;
    if (code < 0) {
        p9_node_unref(node);
        return code;
    }
    *f = (struct p9_fid){.fid = fid, .node = node, .uid = uid, .io = -1, .next = s->bucket[fid % P9_BUCKETS]};
    s->bucket[fid % P9_BUCKETS] = f;
    s->nfids++;
    if (ret)
        *ret = f;
    return 0;
}

static void fid_free(struct p9_server *s, struct p9_fid *f)
{
    struct p9_fid **link = &s->bucket[f->fid % P9_BUCKETS];
    while (*link != f)
        link = &(*link)->next;
    *link = f->next;
    s->nfids--;
    s->nfds -= f->io >= 0 || f->dir;
    fd_closep(&f->io);
    if (f->dir)
        closedir(f->dir);
    p9_node_unref(f->node);
    free(f->xattr);
    free(f->xattr_name);
    free(f);
}

struct p9_fid *p9_get_fid(struct p9_req *r)
{
    uint32_t fid = (uint32_t)p9_get(&r->in, 4);
    return r->in.bad ? NULL : p9_fid_find(r->s, fid);
}

void p9_server_reset(struct p9_server *s)
{
    for (unsigned i = 0; i < P9_BUCKETS; i++)
        while (s->bucket[i])
            fid_free(s, s->bucket[i]);
    s->msize = 0;
}

unsigned p9_server_fids(const struct p9_server *s)
{
    return s->nfids;
}

/* ---- session messages ---- */

static int version(struct p9_req *r)
{
    char name[32];
    uint32_t msize = (uint32_t)p9_get(&r->in, 4);
    p9_get_str(&r->in, name, sizeof name);
    if (r->in.bad || msize < P9_MSIZE_MIN)
        return -EINVAL;
    p9_server_reset(r->s);
    bool known = !strcmp(name, "9P2000.L");
    msize = MIN(msize, P9_MSIZE_MAX);
    r->s->msize = known ? msize : 0;
    p9_put(&r->out, msize, 4);
    p9_put_str(&r->out, known ? name : "unknown");
    return 0;
}

static int attach(struct p9_req *r)
{
    char name[P9_NAME_MAX + 1], path[P9_NAME_MAX + 1];
    uint32_t fid = (uint32_t)p9_get(&r->in, 4);
    p9_get(&r->in, 4); /* afid: there is no authentication */
    p9_get_str(&r->in, name, sizeof name);
    p9_get_str(&r->in, path, sizeof path); /* there is one tree only */
    uint32_t uid = (uint32_t)p9_get(&r->in, 4);
    if (r->in.bad)
        return -EINVAL;
    int code = p9_fid_new(r->s, fid, p9_node_ref(r->s->root), uid, NULL);
    if (!code)
        p9_put_node_qid(r, r->s->root);
    return code;
}

static int walk(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    uint32_t newfid = (uint32_t)p9_get(&r->in, 4);
    unsigned count = (unsigned)p9_get(&r->in, 2), done = 0;
    if (!f)
        return -EBADF;
    if (r->in.bad || count > P9_WALK_MAX || f->xattr_name || (newfid == f->fid && (f->io >= 0 || f->dir)))
        return -EINVAL;
    struct p9_node *n = p9_node_ref(f->node);
    int code = 0;
    size_t count_at = r->out.len;
    p9_put(&r->out, 0, 2);
    for (; done < count; done++) {
        char name[P9_NAME_MAX + 1];
        struct p9_node *child;
        p9_get_str(&r->in, name, sizeof name);
        code = r->in.bad ? -EINVAL : p9_node_open(n, name, &child);
        if (code < 0)
            break;
        p9_node_unref(n);
        n = child;
        p9_put_node_qid(r, n);
    }
    le16_put(r->out.buf + count_at, (uint16_t)done);
    if (done < count) {
        /* Part of the way: the new fid does not come to be. */
        p9_node_unref(n);
        return done ? 0 : code;
    }
    if (newfid == f->fid) {
        p9_node_unref(f->node);
        f->node = n;
        return 0;
    }
    return p9_fid_new(r->s, newfid, n, f->uid, NULL);
}

static int clunk(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    if (!f)
        return -EBADF;
    int code = f->xattr_name ? p9_xattr_commit(r->s, f) : 0;
    fid_free(r->s, f);
    return code;
}

static int remove_file(struct p9_req *r)
{
    struct p9_fid *f = p9_get_fid(r);
    if (!f)
        return -EBADF;
    int code = p9_node_remove(r, f->node);
    fid_free(r->s, f);
    return code;
}

static int flush(struct p9_req *r)
{
    return 0; /* requests are answered one after the other: what it names was answered before */
}

/* ---- dispatch ---- */

static const struct {
    uint8_t type;
    bool writes; /* refused on a read-only share */
    p9_handler *fn;
} handlers[] = {
    {P9_TSTATFS, false, p9_statfs},
    {P9_TLOPEN, false, p9_lopen},
    {P9_TLCREATE, true, p9_lcreate},
    {P9_TSYMLINK, true, p9_symlink},
    {P9_TMKNOD, true, p9_mknod},
    {P9_TRENAME, true, p9_rename},
    {P9_TREADLINK, false, p9_readlink},
    {P9_TGETATTR, false, p9_getattr},
    {P9_TSETATTR, true, p9_setattr},
    {P9_TXATTRWALK, false, p9_xattrwalk},
    {P9_TXATTRCREATE, true, p9_xattrcreate},
    {P9_TREADDIR, false, p9_readdir},
    {P9_TFSYNC, false, p9_fsync},
    {P9_TLOCK, false, p9_lock},
    {P9_TGETLOCK, false, p9_getlock},
    {P9_TLINK, true, p9_link},
    {P9_TMKDIR, true, p9_mkdir},
    {P9_TRENAMEAT, true, p9_renameat},
    {P9_TUNLINKAT, true, p9_unlinkat},
    {P9_TVERSION, false, version},
    {P9_TATTACH, false, attach},
    {P9_TFLUSH, false, flush},
    {P9_TWALK, false, walk},
    {P9_TREAD, false, p9_read},
    {P9_TWRITE, true, p9_write},
    {P9_TCLUNK, false, clunk},
    {P9_TREMOVE, true, remove_file},
};

static int dispatch(struct p9_req *r, uint8_t type)
{
    for (unsigned i = 0; i < ARRAY_SIZE(handlers); i++) {
        if (handlers[i].type != type)
            continue;
        if (!r->s->msize && type != P9_TVERSION)
            return -EPROTO;
        if (handlers[i].writes && r->s->readonly) {
            /* The fid of a remove goes, whatever happens to the file. */
            if (type == P9_TREMOVE)
                clunk(r);
            return -EROFS;
        }
        int code = handlers[i].fn(r);
        return code ? code : r->out.bad ? -EMSGSIZE : 0;
    }
    return -EOPNOTSUPP;
}

size_t p9_server_handle(struct p9_server *s, const struct iovec *out, unsigned nout, const struct iovec *in,
                        unsigned nin)
{
    struct p9_req r = {.s = s,
                       .out_iov = out,
                       .nout = nout,
                       .in_iov = in,
                       .nin = nin,
                       .out_len = iov_len(out, nout),
                       .in_len = iov_len(in, nin)};
    uint8_t *head = s->request;
    if (r.in_len < P9_HEADER + 4)
        return 0;
    size_t have = iov_read(out, nout, 0, s->request, sizeof s->request);
    uint32_t size = have >= P9_HEADER ? le32_get(head) : 0;
    uint8_t type = have >= P9_HEADER ? head[4] : 0;
    uint16_t tag = have >= P9_HEADER ? le16_get(head + 5) : 0xffff;
    uint32_t msize = s->msize ? s->msize : P9_MSIZE_MIN;
    int code = -EINVAL;
    r.out = (struct p9_out){.buf = s->reply, .len = P9_HEADER, .cap = MIN(MIN(sizeof s->reply, r.in_len), msize)};
    if (size >= P9_HEADER && size <= r.out_len && size <= MAX(msize, P9_MSIZE_MIN) &&
        (size <= have || type == P9_TWRITE)) {
        r.out_len = size;
        r.in = (struct p9_in){.p = s->request + P9_HEADER, .left = MIN(size, have) - P9_HEADER};
        code = dispatch(&r, type);
    }
    if (code < 0) {
        r.out.len = P9_HEADER;
        r.out.bad = false;
        r.extra = 0;
        type = P9_RLERROR - 1;
        p9_put(&r.out, (uint32_t)-code, 4);
    }
    le32_put(s->reply, (uint32_t)(r.out.len + r.extra));
    s->reply[4] = (uint8_t)(type + 1);
    le16_put(s->reply + 5, tag);
    iov_write(in, nin, 0, s->reply, r.out.len);
    return r.out.len + r.extra;
}

/* ---- life ---- */

/*
 * Every file that the guest knows or has open takes a descriptor of ours: half of what the system lets this process
 * have. The soft limit is often far below the hard one, for the sake of programs that use select().
 */
static unsigned limit_fds(void)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        return 256;
    struct rlimit more = {.rlim_cur = MIN(lim.rlim_max, 2ull * P9_FIDS_MAX), .rlim_max = lim.rlim_max};
    if (more.rlim_cur > lim.rlim_cur && setrlimit(RLIMIT_NOFILE, &more) == 0)
        lim = more;
    return (unsigned)MIN(lim.rlim_cur / 2, 1ull * P9_FIDS_MAX);
}

int p9_server_new(const char *path, bool readonly, struct p9_server **ret, struct err *err)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, -errno, "shared directory %s", path);
    struct p9_server *s = xcalloc(1, sizeof *s);
    s->readonly = readonly;
    s->root_user = geteuid() == 0;
    s->fds_max = limit_fds();
    s->proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int code = p9_node_new(s, fd, NULL, "", &s->root);
    if (code < 0)
        err_errno(err, code, "shared directory %s", path);
    else if (s->proc < 0)
        code = err_errno(err, -errno, "shared directory %s: /proc/self/fd", path);
    if (code < 0) {
        p9_server_free(s);
        return code;
    }
    *ret = s;
    return 0;
}

void p9_server_free(struct p9_server *s)
{
    if (!s)
        return;
    p9_server_reset(s);
    p9_node_unref(s->root);
    fd_closep(&s->proc);
    free(s);
}
