/*
 * The transmission phase of an NBD connection. The client's thread takes as many requests from the socket as are there, does at
 * once what the page cache can answer, collects the replies, and sends them with one call. What has to wait (a disk, a flush)
 * goes to helper threads, which answer by themselves. So a busy client costs few system calls, and a slow disk does not hold
 * up what follows.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/driver.h"
#include "block/file.h"
#include "block/nbd_conn.h"

enum {
    BATCH = 128,           /* replies sent together */
    BATCH_BYTES = 1 << 20, /* of data in them */
    HEAD = NBD_CHUNK_BYTES + 8 + 256,
};

struct nbd_request {
    struct nbd_request *next;
    uint16_t flags, type;
    uint64_t handle, offset;
    uint32_t len;
    uint8_t *data; /* of a write, or for a read */
};

/* Replies that wait to be sent: heads and data, in `iov`. */
struct batch {
    uint8_t heads[BATCH][HEAD];
    struct iovec iov[2 * BATCH];
    uint8_t *owned[BATCH];
    unsigned n, n_iov, n_owned;
    size_t bytes;
};

static int send_iov(struct nbd_conn *c, struct iovec *iov, unsigned n)
{
    int ret = 0;
    pthread_mutex_lock(&c->send_lock);
    while (n && ret == 0 && !c->broken) {
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = MIN(n, (unsigned)IOV_MAX)};
        ssize_t sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0) {
            c->broken = true; /* half a reply may be out: nothing can follow */
            shutdown(c->fd, SHUT_RDWR);
            ret = -EPIPE;
        }
        for (; sent > 0 && n; iov++, n--) {
            if ((size_t)sent < iov->iov_len) {
                iov->iov_base = (uint8_t *)iov->iov_base + sent;
                iov->iov_len -= (size_t)sent;
                break;
            }
            sent -= (ssize_t)iov->iov_len;
        }
    }
    pthread_mutex_unlock(&c->send_lock);
    return ret;
}

static void batch_flush(struct nbd_conn *c, struct batch *b)
{
    if (b->n_iov)
        send_iov(c, b->iov, b->n_iov);
    for (unsigned i = 0; i < b->n_owned; i++)
        free(b->owned[i]);
    b->n = b->n_iov = b->n_owned = 0;
    b->bytes = 0;
}

static uint32_t error_number(int ret)
{
    switch (-ret) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    default:
        return NBD_EIO;
    }
}

static void put_chunk(uint8_t *h, const struct nbd_request *r, uint16_t type, uint32_t len)
{
    be32_put(h, NBD_STRUCTURED_MAGIC);
    be16_put(h + 4, NBD_CHUNK_DONE);
    be16_put(h + 6, type);
    be64_put(h + 8, r->handle);
    be32_put(h + 16, len);
}

/* Adds the reply to a request; `data` (a read's, malloc'ed) is taken over. */
static void answer(struct nbd_conn *c, struct batch *b, const struct nbd_request *r, int ret, uint8_t *data, size_t len)
{
    if (b->n == BATCH || (len && b->bytes + len > BATCH_BYTES))
        batch_flush(c, b);
    uint8_t *h = b->heads[b->n++];
    size_t head;
    if (!c->structured || (r->type != NBD_CMD_READ && r->type != NBD_CMD_BLOCK_STATUS && ret == 0)) {
        be32_put(h, NBD_SIMPLE_MAGIC);
        be32_put(h + 4, error_number(ret));
        be64_put(h + 8, r->handle);
        head = NBD_SIMPLE_BYTES;
    } else if (ret < 0) {
        const char *why = strerror(-ret);
        size_t n = MIN(strlen(why), (size_t)200);
        put_chunk(h, r, NBD_CHUNK_ERROR, (uint32_t)(6 + n));
        be32_put(h + NBD_CHUNK_BYTES, error_number(ret));
        be16_put(h + NBD_CHUNK_BYTES + 4, (uint16_t)n);
        memcpy(h + NBD_CHUNK_BYTES + 6, why, n);
        head = NBD_CHUNK_BYTES + 6 + n;
    } else if (r->type == NBD_CMD_READ && !r->len) {
        put_chunk(h, r, NBD_CHUNK_NONE, 0);
        head = NBD_CHUNK_BYTES;
    } else if (r->type == NBD_CMD_READ) {
        put_chunk(h, r, NBD_CHUNK_DATA, (uint32_t)(8 + len));
        be64_put(h + NBD_CHUNK_BYTES, r->offset);
        head = NBD_CHUNK_BYTES + 8;
    } else {
        head = 0; /* block status: `data` holds the chunks, heads and all */
    }
    if (ret < 0)
        len = 0;
    if (head)
        b->iov[b->n_iov++] = (struct iovec){h, head};
    if (len)
        b->iov[b->n_iov++] = (struct iovec){data, len};
    if (data)
        b->owned[b->n_owned++] = data;
    b->bytes += len;
}

/* ---- block status ---- */

struct extents {
    uint8_t *out;
    unsigned n, max;
};

static void add_extent(struct extents *x, uint64_t len, uint32_t flags)
{
    uint8_t *last = x->n ? x->out + 8 * (x->n - 1) : NULL;
    if (last && be32_get(last + 4) == flags && be32_get(last) + len <= UINT32_MAX) {
        be32_put(last, (uint32_t)(be32_get(last) + len));
        return;
    }
    be32_put(x->out + 8 * x->n, (uint32_t)len);
    be32_put(x->out + 8 * x->n + 4, flags);
    x->n++;
}

static int allocation(struct nbd_conn *c, const struct nbd_request *r, bool depth, struct extents *x)
{
    const struct nbd_export *e = c->export;
    for (uint64_t pos = 0; pos < r->len && x->n < x->max;) {
        struct blk_extent s;
        int code = blk_block_status_above(e->node, NULL, e->offset + r->offset + pos, r->len - pos, !depth, &s);
        if (code < 0)
            return code;
        uint32_t flags;
        if (depth)
            flags = s.flags & BLK_STATUS_ALLOCATED ? s.depth + 1 : 0;
        else
            flags = (s.flags & BLK_STATUS_ZERO ? NBD_STATE_ZERO : 0) | (s.flags & BLK_STATUS_DATA ? 0 : NBD_STATE_HOLE);
        add_extent(x, s.len, flags);
        pos += s.len;
    }
    return 0;
}

static int dirty(struct nbd_conn *c, const struct nbd_request *r, const char *bitmap, struct extents *x)
{
    const struct nbd_export *e = c->export;
    uint64_t pos = e->offset + r->offset, end = pos + r->len, from, to;
    while (pos < end && x->n < x->max) {
        pthread_mutex_lock(&c->server->bitmap_lock);
        int code = blk_bitmap_next(e->node, bitmap, pos, &from, &to, NULL);
        pthread_mutex_unlock(&c->server->bitmap_lock);
        if (code < 0)
            return code;
        if (!code || from >= end)
            from = to = end;
        if (from > pos)
            add_extent(x, from - pos, 0);
        if (to > from && from < end && x->n < x->max)
            add_extent(x, MIN(to, end) - from, 1);
        pos = MIN(to, end);
    }
    return 0;
}

static int block_status(struct nbd_conn *c, const struct nbd_request *r, uint8_t **ret, size_t *ret_len)
{
    unsigned max = r->flags & NBD_CMD_REQ_ONE ? 1 : NBD_STATUS_EXTENTS, contexts = (unsigned)__builtin_popcount(c->contexts);
    size_t each = NBD_CHUNK_BYTES + 4 + 8 * (max + 2), len = 0;
    if (!contexts || !r->len)
        return -EINVAL;
    uint8_t *out = malloc(each * contexts);
    if (!out)
        return -ENOMEM;
    for (unsigned id = 0; id < 2 + c->export->n_bitmaps; id++) {
        if (!(c->contexts & 1u << id))
            continue;
        struct extents x = {.out = out + len + NBD_CHUNK_BYTES + 4, .max = max};
        int code = id < 2 ? allocation(c, r, id == 1, &x) : dirty(c, r, c->export->bitmaps[id - 2], &x);
        if (code < 0) {
            free(out);
            return code;
        }
        x.n = MIN(x.n, max);
        put_chunk(out + len, r, NBD_CHUNK_STATUS, 4 + 8 * x.n);
        be16_put(out + len + 4, --contexts ? 0 : NBD_CHUNK_DONE);
        be32_put(out + len + NBD_CHUNK_BYTES, id);
        len += NBD_CHUNK_BYTES + 4 + 8 * x.n;
    }
    *ret = out;
    *ret_len = len;
    return 0;
}

/* ---- doing a request ---- */

static int check(const struct nbd_conn *c, const struct nbd_request *r)
{
    static const uint16_t allowed[] = {[NBD_CMD_READ] = NBD_CMD_DF | NBD_CMD_FUA,
                                       [NBD_CMD_WRITE] = NBD_CMD_FUA,
                                       [NBD_CMD_FLUSH] = NBD_CMD_FUA,
                                       [NBD_CMD_TRIM] = NBD_CMD_FUA,
                                       [NBD_CMD_CACHE] = NBD_CMD_FUA,
                                       [NBD_CMD_WRITE_ZEROES] = NBD_CMD_FUA | NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO,
                                       [NBD_CMD_BLOCK_STATUS] = NBD_CMD_REQ_ONE | NBD_CMD_FUA};
    const struct nbd_export *e = c->export;
    if (r->type >= ARRAY_SIZE(allowed) || r->type == NBD_CMD_DISC || r->flags & ~allowed[r->type])
        return -EINVAL;
    bool writes = r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM || r->type == NBD_CMD_WRITE_ZEROES;
    if (writes && e->read_only)
        return -EPERM;
    if (r->type == NBD_CMD_FLUSH)
        return 0;
    if (r->offset > e->size || r->len > e->size - r->offset)
        return r->type == NBD_CMD_WRITE || r->type == NBD_CMD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
    return r->type == NBD_CMD_READ && r->len > NBD_MAX_PAYLOAD ? -EOVERFLOW : 0;
}

/* Does it, blocking. A read's data and a status' chunks come back in *ret_data. */
static int perform(struct nbd_conn *c, struct nbd_request *r, uint8_t **ret_data, size_t *ret_len)
{
    const struct nbd_export *e = c->export;
    uint64_t at = e->offset + r->offset;
    unsigned flags = r->flags & NBD_CMD_FUA ? BLK_F_FUA : 0;
    int code = 0;
    switch (r->type) {
    case NBD_CMD_READ:
        if (!r->len)
            return 0;
        if (!r->data && !(r->data = malloc(r->len)))
            return -ENOMEM;
        code = blk_pread(e->node, at, r->data, r->len);
        if (code == 0) {
            *ret_len = r->len;
            *ret_data = ptr_take(r->data);
        }
        return code;
    case NBD_CMD_WRITE:
        return blk_pwrite(e->node, at, r->data, r->len, flags);
    case NBD_CMD_FLUSH:
        return blk_pflush(e->node);
    case NBD_CMD_TRIM:
        code = blk_pdiscard(e->node, at, r->len);
        return code == 0 && flags ? blk_pflush(e->node) : code;
    case NBD_CMD_WRITE_ZEROES:
        flags |= r->flags & NBD_CMD_NO_HOLE ? 0 : BLK_F_UNMAP;
        return blk_pwrite_zeroes(e->node, at, r->len, flags | (r->flags & NBD_CMD_FAST_ZERO ? BLK_F_NO_FALLBACK : 0));
    case NBD_CMD_BLOCK_STATUS:
        return block_status(c, r, ret_data, ret_len);
    default:
        return 0; /* cache: the kernel does that */
    }
}

static void finish(struct nbd_conn *c, struct batch *b, struct nbd_request *r)
{
    uint8_t *data = NULL;
    size_t len = 0;
    int code = perform(c, r, &data, &len);
    answer(c, b, r, code, data, len);
    free(r->data);
    r->data = NULL;
}

/*
 * A read that the page cache answers without waiting: down the graph to the file, as far as the drivers can say at once where
 * the bytes are. False: it has to be done the slow way.
 */
static bool read_at(struct blk_node *n, uint64_t at, struct nbd_request *r)
{
    if (n->drv->get_file) {
        struct file *file = n->drv->get_file(n);
        struct iovec v = {r->data, r->len};
        if (file->fd != file->slow_fd)
            return false; /* O_DIRECT: always waits */
        return preadv2(file->slow_fd, &v, 1, (off_t)at, RWF_NOWAIT) == (ssize_t)r->len;
    }
    struct blk_map m = {.kind = BLK_MAP_SLOW};
    if (!n->drv->map)
        return false;
    n->drv->map(n, false, at, r->len, &m);
    bool done = false;
    if (m.kind == BLK_MAP_ZERO && m.len >= r->len) {
        memset(r->data, 0, r->len);
        done = true;
    } else if (m.kind == BLK_MAP_CHILD && m.len >= r->len) {
        done = read_at(m.child, m.host, r);
    }
    if (m.token) /* until here nobody reuses the place */
        n->drv->map_done(n, m.token, done ? 0 : -ECANCELED);
    return done;
}

static bool read_now(struct nbd_conn *c, struct nbd_request *r)
{
    return read_at(c->export->node, c->export->offset + r->offset, r);
}

/* ---- helpers ---- */

static void *helper(void *opaque)
{
    struct nbd_conn *c = opaque;
    struct batch *b = calloc(1, sizeof *b);
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->head && !c->stop) {
            c->idle++;
            pthread_cond_wait(&c->work, &c->lock);
            c->idle--;
        }
        struct nbd_request *r = c->head;
        if (!r)
            break;
        if (!(c->head = r->next))
            c->tail = &c->head;
        uint64_t bytes = r->len;
        pthread_mutex_unlock(&c->lock);
        if (b) {
            finish(c, b, r);
            batch_flush(c, b);
        } else {
            shutdown(c->fd, SHUT_RDWR); /* no memory to answer with */
        }
        free(r->data);
        free(r);
        pthread_mutex_lock(&c->lock);
        c->queued--;
        c->queued_bytes -= bytes;
        pthread_cond_signal(&c->room);
    }
    pthread_mutex_unlock(&c->lock);
    free(b);
    return NULL;
}

/* Hands a request to the helpers, waiting for room. The copy owns its data. */
static void defer(struct nbd_conn *c, struct batch *b, struct nbd_request *r)
{
    struct nbd_request *copy = malloc(sizeof *copy);
    if (!copy) {
        finish(c, b, r);
        return;
    }
    *copy = *r;
    copy->next = NULL;
    r->data = NULL;
    pthread_mutex_lock(&c->lock);
    if (c->queued >= NBD_QUEUE_MAX || c->queued_bytes + copy->len > NBD_QUEUE_BYTES) {
        pthread_mutex_unlock(&c->lock);
        batch_flush(c, b); /* the client may wait for these before it takes more */
        pthread_mutex_lock(&c->lock);
        while (c->queued && (c->queued >= NBD_QUEUE_MAX || c->queued_bytes + copy->len > NBD_QUEUE_BYTES))
            pthread_cond_wait(&c->room, &c->lock);
    }
    *c->tail = copy;
    c->tail = &copy->next;
    c->queued++;
    c->queued_bytes += copy->len;
    bool start = !c->idle && c->n_helpers < NBD_HELPERS;
    if (start && pthread_create(&c->helpers[c->n_helpers], NULL, helper, c) == 0)
        c->n_helpers++;
    bool alone = !c->n_helpers;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
    if (alone) { /* no thread to be had: do it here */
        c->stop = true;
        helper(c);
        c->stop = false;
    }
}

static void stop_helpers(struct nbd_conn *c)
{
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->n_helpers; i++)
        pthread_join(c->helpers[i], NULL);
}

/* ---- requests ---- */

/* What a request needs that is whole: now, or by a helper. */
static void dispatch(struct nbd_conn *c, struct batch *b, struct nbd_request *r)
{
    int code = check(c, r);
    if (code < 0) {
        answer(c, b, r, code, NULL, 0);
        free(r->data);
        return;
    }
    switch (r->type) {
    case NBD_CMD_READ:
        if (r->len && !(r->data = malloc(r->len))) {
            answer(c, b, r, -ENOMEM, NULL, 0);
            return;
        }
        if (!r->len || read_now(c, r)) {
            answer(c, b, r, 0, r->data, r->len);
            return;
        }
        break;
    case NBD_CMD_WRITE:
        if (!(r->flags & NBD_CMD_FUA) && !(c->export->node->flags & BLK_O_DIRECT) && r->len <= 64 << 10) {
            finish(c, b, r); /* into the page cache */
            return;
        }
        break;
    case NBD_CMD_CACHE:
        answer(c, b, r, 0, NULL, 0);
        return;
    }
    defer(c, b, r);
    free(r->data);
}

/* Input: a buffer, and what it holds. */
struct input {
    uint8_t *buf;
    size_t start, end;
};

static bool fill(struct nbd_conn *c, struct input *in, bool wait)
{
    if (in->start == in->end)
        in->start = in->end = 0;
    if (in->start && in->end == NBD_INPUT) {
        memmove(in->buf, in->buf + in->start, in->end - in->start);
        in->end -= in->start;
        in->start = 0;
    }
    for (;;) {
        ssize_t n = recv(c->fd, in->buf + in->end, NBD_INPUT - in->end, wait ? 0 : MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        in->end += (size_t)n;
        return true;
    }
}

/* The payload of a write: what is in the buffer, the rest straight from the socket. */
static bool take_payload(struct nbd_conn *c, struct input *in, struct batch *b, struct nbd_request *r)
{
    size_t have = MIN((size_t)r->len, in->end - in->start), got = have;
    memcpy(r->data, in->buf + in->start, have);
    in->start += have;
    if (got < r->len)
        batch_flush(c, b);
    while (got < r->len) {
        ssize_t n = recv(c->fd, r->data + got, r->len - got, MSG_WAITALL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* Takes one request that is in the buffer. False: the connection ends. */
static bool take(struct nbd_conn *c, struct input *in, struct batch *b)
{
    const uint8_t *p = in->buf + in->start;
    if (be32_get(p) != NBD_REQUEST_MAGIC)
        return false;
    struct nbd_request r = {.flags = be16_get(p + 4),
                            .type = be16_get(p + 6),
                            .handle = be64_get(p + 8),
                            .offset = be64_get(p + 16),
                            .len = be32_get(p + 24)};
    in->start += NBD_REQUEST_BYTES;
    if (r.type == NBD_CMD_DISC)
        return false;
    if (r.type == NBD_CMD_WRITE) {
        if (r.len > NBD_MAX_PAYLOAD)
            return false; /* its bytes follow, and nobody wants to read them */
        if (!(r.data = malloc(r.len ? r.len : 1)))
            return false;
        if (!take_payload(c, in, b, &r)) {
            free(r.data);
            return false;
        }
    }
    dispatch(c, b, &r);
    return true;
}

void nbd_serve(struct nbd_conn *c)
{
    struct batch *b = calloc(1, sizeof *b);
    struct input in = {.buf = malloc(NBD_INPUT)};
    while (b && in.buf && !c->broken) {
        if (in.end - in.start >= NBD_REQUEST_BYTES) {
            if (!take(c, &in, b))
                break;
            continue;
        }
        /* Replies go out before we wait, and all at once when nothing more is there. */
        if (b->n) {
            batch_flush(c, b);
            if (c->broken)
                break;
        }
        if (!fill(c, &in, true))
            break;
    }
    stop_helpers(c);
    if (b)
        batch_flush(c, b);
    free(b);
    free(in.buf);
}
