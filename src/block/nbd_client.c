/*
 * The protocol `nbd`: an image behind an NBD server, by libnbd, which is loaded when the first one is opened. A server that
 * allows several connections gets up to CONNECTIONS of them, so that threads do not wait for each other.
 */
#include <dlfcn.h>
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "block/driver.h"

enum { CONNECTIONS = 4, TRANSFER_MAX = 16 << 20 };

/* The functions that we use, by their names. */
#define FUNCTIONS(F)                                                                                                   \
    F(nbd_create)                                                                                                      \
    F(nbd_close)                                                                                                       \
    F(nbd_connect_uri)                                                                                                 \
    F(nbd_add_meta_context)                                                                                            \
    F(nbd_can_meta_context)                                                                                            \
    F(nbd_can_multi_conn)                                                                                              \
    F(nbd_can_flush)                                                                                                   \
    F(nbd_can_fua)                                                                                                     \
    F(nbd_can_trim)                                                                                                    \
    F(nbd_can_zero)                                                                                                    \
    F(nbd_can_fast_zero)                                                                                               \
    F(nbd_is_read_only)                                                                                                \
    F(nbd_get_size)                                                                                                    \
    F(nbd_get_error)                                                                                                   \
    F(nbd_get_errno)                                                                                                   \
    F(nbd_pread)                                                                                                       \
    F(nbd_pwrite)                                                                                                      \
    F(nbd_flush)                                                                                                       \
    F(nbd_trim)                                                                                                        \
    F(nbd_zero)                                                                                                        \
    F(nbd_block_status)

struct library {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
};

struct connection {
    struct nbd_handle *h; /* NULL: not connected yet */
    bool busy;
};

struct nbd {
    struct library lib;
    void *so;
    char *uri;
    bool status, flush, fua, trim, zero, fast_zero;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct connection conns[CONNECTIONS];
    unsigned n_conns; /* that may be used */
};

static int load(struct nbd *d, struct err *err)
{
    d->so = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!d->so)
        return err_set(err, -ENOTSUP, "nbd: libnbd (the package libnbd0) is needed and cannot be loaded: %s", dlerror());
#define LOAD(name)                                                                                                     \
    if (!(d->lib.name = (__typeof__(name) *)dlsym(d->so, #name)))                                                      \
        return err_set(err, -ENOTSUP, "nbd: libnbd is too old: it has no " #name);
    FUNCTIONS(LOAD)
    return 0;
}

/* ---- names ---- */

static char *escape(const char *s)
{
    char *out = xcalloc(3, strlen(s) + 1), *p = out;
    for (; *s; s++) {
        if (strchr("%?#&+ ", *s))
            p += sprintf(p, "%%%02X", (unsigned char)*s);
        else
            *p++ = *s;
    }
    return out;
}

static char *make_uri(const char *path, const char *host, const char *port, const char *export)
{
    autofree char *name = escape(export ? export : "");
    if (path) {
        autofree char *socket = escape(path);
        return xasprintf("nbd+unix:///%s?socket=%s", name, socket);
    }
    return xasprintf(strchr(host, ':') ? "nbd://[%s]:%s/%s" : "nbd://%s:%s/%s", host, port ? port : "10809", name);
}

/* QEMU's older names: nbd:unix:PATH[:exportname=X], nbd:HOST:PORT[:exportname=X]. */
static char *uri_of_old(const char *filename)
{
    autofree char *copy = xstrdup(filename + 4);
    char *export = strstr(copy, ":exportname=");
    if (export) {
        *export = 0;
        export += 12;
    }
    if (!strncmp(copy, "unix:", 5))
        return make_uri(copy + 5, NULL, NULL, export);
    char *port = strrchr(copy, ':');
    if (port)
        *port++ = 0;
    return make_uri(NULL, copy, port, export);
}

static int find_uri(struct blk_opts *opts, char **ret, struct err *err)
{
    const char *name = blk_opts_get(opts, "filename"), *export = blk_opts_get(opts, "export");
    const char *path = blk_opts_get(opts, "server.path"), *host = blk_opts_get(opts, "server.host");
    const char *port = blk_opts_get(opts, "server.port");
    blk_opts_get(opts, "server.type");
    if (!path)
        path = blk_opts_get(opts, "path");
    if (!host)
        host = blk_opts_get(opts, "host");
    if (!port)
        port = blk_opts_get(opts, "port");
    if (name && *name)
        *ret = strstr(name, "://") ? xstrdup(name) : uri_of_old(name);
    else if (path || host)
        *ret = make_uri(path, host, port, export);
    else
        return err_set(err, -EINVAL, "nbd: a server is missing: nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH, or path= or "
                                     "host=");
    return 0;
}

/* ---- connections ---- */

static int connect_one(struct nbd *d, struct nbd_handle **ret, struct err *err)
{
    struct nbd_handle *h = d->lib.nbd_create();
    if (!h || d->lib.nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 || d->lib.nbd_connect_uri(h, d->uri) < 0) {
        int code = -d->lib.nbd_get_errno();
        const char *why = d->lib.nbd_get_error();
        err_set(err, code ? code : -EIO, "%s: %s", d->uri, why ? why : "cannot connect");
        if (h)
            d->lib.nbd_close(h);
        return code ? code : -EIO;
    }
    *ret = h;
    return 0;
}

static int take(struct nbd *d, struct connection **ret)
{
    int code = 0;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        struct connection *free_one = NULL;
        for (unsigned i = 0; i < d->n_conns; i++)
            if (!d->conns[i].busy && (!free_one || (!free_one->h && d->conns[i].h)))
                free_one = &d->conns[i];
        if (free_one) {
            free_one->busy = true;
            *ret = free_one;
            break;
        }
        pthread_cond_wait(&d->idle, &d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    if (!(*ret)->h && (code = connect_one(d, &(*ret)->h, NULL)) < 0) {
        pthread_mutex_lock(&d->lock);
        (*ret)->busy = false;
        pthread_cond_signal(&d->idle);
        pthread_mutex_unlock(&d->lock);
    }
    return code;
}

static int give(struct nbd *d, struct connection *c, int result)
{
    int code = result < 0 ? -d->lib.nbd_get_errno() : 0;
    pthread_mutex_lock(&d->lock);
    c->busy = false;
    pthread_cond_signal(&d->idle);
    pthread_mutex_unlock(&d->lock);
    return result < 0 && !code ? -EIO : code;
}

static int nbd_node_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct nbd *d = xcalloc(1, sizeof *d);
    n->priv = d;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->idle, NULL);
    int code = find_uri(opts, &d->uri, err);
    if (code == 0)
        code = load(d, err);
    if (code == 0)
        code = connect_one(d, &d->conns[0].h, err);
    if (code < 0)
        return code;
    struct nbd_handle *h = d->conns[0].h;
    int64_t size = d->lib.nbd_get_size(h);
    if (size < 0)
        return err_set(err, -EIO, "%s: %s", d->uri, d->lib.nbd_get_error());
    if (d->lib.nbd_is_read_only(h) == 1 && !n->read_only)
        return err_set(err, -EROFS, "%s: the server allows reading only", d->uri);
    n->size = (uint64_t)size;
    d->status = d->lib.nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    d->flush = d->lib.nbd_can_flush(h) == 1;
    d->fua = d->lib.nbd_can_fua(h) == 1;
    d->trim = d->lib.nbd_can_trim(h) == 1;
    d->zero = d->lib.nbd_can_zero(h) == 1;
    d->fast_zero = d->lib.nbd_can_fast_zero(h) == 1;
    d->n_conns = d->lib.nbd_can_multi_conn(h) == 1 ? CONNECTIONS : 1;
    return 0;
}

static void nbd_node_close(struct blk_node *n)
{
    struct nbd *d = n->priv;
    for (unsigned i = 0; i < CONNECTIONS; i++)
        if (d->conns[i].h)
            d->lib.nbd_close(d->conns[i].h);
    if (d->so)
        dlclose(d->so);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->idle);
    free(d->uri);
    free(d);
}

/* ---- data ---- */

static int nbd_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct nbd *d = n->priv;
    struct connection *c;
    uint64_t size = n->size;
    int code = take(d, &c), r = 0;
    if (code < 0)
        return code;
    for (unsigned i = 0; i < niov && r >= 0; i++) {
        uint8_t *p = iov[i].iov_base;
        for (size_t done = 0; done < iov[i].iov_len && r >= 0;) {
            size_t part = MIN(iov[i].iov_len - done, (size_t)TRANSFER_MAX);
            if (offset >= size) { /* behind the end */
                memset(p + done, 0, part);
            } else {
                size_t there = MIN(part, size - offset);
                r = d->lib.nbd_pread(c->h, p + done, there, offset, 0);
                memset(p + done + there, 0, part - there);
            }
            done += part;
            offset += part;
        }
    }
    return give(d, c, r);
}

static int nbd_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                       unsigned flags)
{
    struct nbd *d = n->priv;
    struct connection *c;
    if (offset > n->size || len > n->size - offset)
        return -ENOSPC;
    int code = take(d, &c), r = 0;
    if (code < 0)
        return code;
    for (unsigned i = 0; i < niov && r >= 0; i++)
        for (size_t done = 0; done < iov[i].iov_len && r >= 0;) {
            size_t part = MIN(iov[i].iov_len - done, (size_t)TRANSFER_MAX);
            r = d->lib.nbd_pwrite(c->h, (uint8_t *)iov[i].iov_base + done, part, offset,
                                  (flags & BLK_F_FUA) && d->fua ? LIBNBD_CMD_FLAG_FUA : 0);
            done += part;
            offset += part;
        }
    if (r >= 0 && (flags & BLK_F_FUA) && !d->fua && d->flush)
        r = d->lib.nbd_flush(c->h, 0);
    return give(d, c, r);
}

static int each_gib(struct blk_node *n, uint64_t offset, uint64_t len, uint32_t flags,
                    int (*call)(struct nbd_handle *h, uint64_t count, uint64_t offset, uint32_t flags))
{
    struct nbd *d = n->priv;
    struct connection *c;
    int code = take(d, &c), r = 0;
    if (code < 0)
        return code;
    for (uint64_t done = 0; done < len && r >= 0;) {
        uint64_t part = MIN(len - done, GIB);
        r = call(c->h, part, offset + done, flags);
        done += part;
    }
    return give(d, c, r);
}

static int nbd_pwrite_zeroes(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct nbd *d = n->priv;
    bool fast = flags & BLK_F_NO_FALLBACK;
    if (!d->zero || (fast && !d->fast_zero))
        return -ENOTSUP;
    if (offset > n->size || len > n->size - offset)
        return -ENOSPC;
    return each_gib(n, offset, len,
                    (flags & BLK_F_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE) | (fast ? LIBNBD_CMD_FLAG_FAST_ZERO : 0),
                    d->lib.nbd_zero);
}

static int nbd_pdiscard(struct blk_node *n, uint64_t offset, uint64_t len)
{
    struct nbd *d = n->priv;
    return d->trim ? each_gib(n, offset, len, 0, d->lib.nbd_trim) : 0;
}

static int nbd_pflush(struct blk_node *n)
{
    struct nbd *d = n->priv;
    struct connection *c;
    if (!d->flush || n->read_only)
        return 0;
    int code = take(d, &c);
    return code < 0 ? code : give(d, c, d->lib.nbd_flush(c->h, 0));
}

struct first_extent {
    uint32_t len, flags;
};

static int on_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n, int *error)
{
    struct first_extent *x = opaque;
    if (n < 2 || x->len || strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION))
        return 0;
    x->len = entries[0];
    x->flags = entries[1];
    for (size_t i = 2; i + 1 < n && entries[i + 1] == x->flags && x->len + (uint64_t)entries[i] <= UINT32_MAX; i += 2)
        x->len += entries[i];
    return 0;
}

static int nbd_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret)
{
    struct nbd *d = n->priv;
    struct connection *c;
    struct first_extent x = {0};
    *ret = (struct blk_extent){
        .len = len, .flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET, .host = offset, .file = n};
    if (!d->status || !want_zero)
        return 0;
    int code = take(d, &c);
    if (code < 0)
        return code;
    nbd_extent_callback cb = {.callback = on_extents, .user_data = &x};
    code = give(d, c, d->lib.nbd_block_status(c->h, MIN(len, 2 * GIB), offset, cb, 0));
    if (code < 0 || !x.len)
        return code;
    ret->len = MIN(len, (uint64_t)x.len);
    if (x.flags & LIBNBD_STATE_ZERO)
        ret->flags = (ret->flags | BLK_STATUS_ZERO) & ~(unsigned)(x.flags & LIBNBD_STATE_HOLE ? BLK_STATUS_DATA : 0);
    return 0;
}

static const char *const schemes[] = {"nbd", "nbd+unix", "nbds", "nbds+unix", "nbd+tcp", NULL};

const struct blk_driver blk_nbd = {
    .name = "nbd",
    .protocol = true,
    .schemes = schemes,
    .open = nbd_node_open,
    .close = nbd_node_close,
    .preadv = nbd_preadv,
    .pwritev = nbd_pwritev,
    .pwrite_zeroes = nbd_pwrite_zeroes,
    .pdiscard = nbd_pdiscard,
    .pflush = nbd_pflush,
    .block_status = nbd_status,
};
