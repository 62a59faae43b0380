/*
 * Copying an image. Threads take pieces of the source, one after the other, from a cursor that walks the sources' block status
 * under a lock; each copies its piece by itself. What reads as zeroes is never read; data is scanned for zeroes in steps of the
 * target's cluster.
 */
#include "block/copy.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "block/driver.h"

enum {
    PIECE_BYTES = 1 << 20,      /* of data, read and written by one call: stays in the CPU's cache */
    COMPRESS_PIECE = 1 << 20,   /* several clusters, compressed one by one */
    STATUS_BYTES = 1 << 30,     /* asked for at a time */
    OFFLOAD_PIECE = 64 << 20,   /* copied by the kernel in one call */
    SALVAGE_BYTES = 512,
};

struct copy {
    const struct blk_convert *c;
    uint64_t total;       /* bytes of the target that are written */
    uint32_t granule;     /* zeroes are looked for in units of this */
    size_t piece;
    pthread_mutex_t lock; /* the fields below */
    pthread_cond_t changed;
    unsigned source;
    uint64_t source_start; /* where the current source starts in the target */
    uint64_t pos;          /* in the target */
    uint64_t extent_end;   /* what is known of pos holds up to here */
    struct blk_extent extent;
    unsigned running;
    int ret;
    struct err err;
    uint64_t started_ns, counted; /* for the rate */
    _Atomic uint64_t done;
    _Atomic bool failed, no_offload;
};

struct piece {
    struct blk_node *node;
    uint64_t from, to, len; /* offsets in node and target */
    enum { PIECE_DATA, PIECE_ZERO, PIECE_SKIP } kind;
    bool plain; /* lies in a file as it is */
};

static int fail(struct copy *cp, int ret, const char *what, const char *file, uint64_t offset)
{
    pthread_mutex_lock(&cp->lock);
    if (!cp->ret) {
        cp->ret = ret;
        err_errno(&cp->err, ret, "error while %s %s at byte %llu", what, file ? file : "image", (unsigned long long)offset);
    }
    pthread_mutex_unlock(&cp->lock);
    cp->failed = true;
    return ret;
}

/* Finds out what the source has at cp->pos. Lock held. */
static int look(struct copy *cp)
{
    const struct blk_convert *c = cp->c;
    while (cp->source < c->n_sources && cp->pos >= cp->source_start + c->sources[cp->source]->size) {
        cp->source_start += c->sources[cp->source]->size;
        cp->source++;
    }
    if (cp->source == c->n_sources)
        return -EIO;
    struct blk_node *n = c->sources[cp->source];
    uint64_t from = cp->pos - cp->source_start, len = MIN(n->size - from, (uint64_t)STATUS_BYTES);
    struct blk_node *base = c->target_has_backing ? blk_node_backing(n) : NULL;
    int ret = blk_block_status_above(n, base, from, len, true, &cp->extent);
    if (ret < 0 && c->salvage) {
        cp->extent = (struct blk_extent){.len = MIN(len, (uint64_t)PIECE_BYTES), .flags = BLK_STATUS_DATA};
        ret = 0;
    }
    if (ret < 0)
        return err_errno(&cp->err, ret, "error while reading block status of %s at byte %llu", n->filename,
                         (unsigned long long)from);
    cp->extent_end = cp->pos + cp->extent.len;
    return 0;
}

/* The next piece of work: 1, 0 at the end or after a failure. */
static int next_piece(struct copy *cp, struct piece *p)
{
    const struct blk_convert *c = cp->c;
    int ret = 0;
    pthread_mutex_lock(&cp->lock);
    if (!cp->failed && !cp->ret && cp->pos < cp->total) {
        if (cp->pos >= cp->extent_end && (ret = look(cp)) < 0)
            cp->ret = ret;
        if (ret == 0) {
            unsigned f = cp->extent.flags;
            p->node = c->sources[cp->source];
            p->from = cp->pos - cp->source_start;
            p->to = cp->pos;
            p->len = cp->extent_end - cp->pos;
            p->plain = f & BLK_STATUS_OFFSET;
            if (f & BLK_STATUS_ZERO)
                p->kind = c->min_sparse || !(c->compress) ? PIECE_ZERO : PIECE_DATA;
            else
                p->kind = f & BLK_STATUS_DATA ? PIECE_DATA : PIECE_SKIP;
            if (p->kind == PIECE_ZERO && !c->min_sparse)
                p->kind = PIECE_DATA; /* -S 0: all is written */
            if (p->kind == PIECE_DATA) {
                size_t max = c->offload && p->plain && !cp->no_offload ? OFFLOAD_PIECE : cp->piece;
                uint64_t end = ALIGN_DOWN(cp->pos + max, (uint64_t)cp->granule); /* whole clusters of the target */
                if (cp->pos + p->len > end && end > cp->pos)
                    p->len = end - cp->pos;
                /* A target's cluster is compressed as one: what follows belongs to it. */
                if (c->compress && (cp->pos + p->len) % cp->granule)
                    p->len = MIN(ALIGN_UP(cp->pos + p->len, (uint64_t)cp->granule), cp->source_start + p->node->size) - cp->pos;
            } else if (c->compress && p->len % cp->granule && cp->pos + p->len < cp->source_start + p->node->size) {
                /* Leave the part of a cluster to the data behind it. */
                if (p->len > cp->granule) {
                    p->len = ALIGN_DOWN(p->len, (uint64_t)cp->granule);
                } else {
                    p->kind = PIECE_DATA;
                    p->len = MIN((uint64_t)cp->granule, cp->source_start + p->node->size - cp->pos);
                }
            }
            cp->pos += p->len;
            ret = 1;
        }
    }
    pthread_mutex_unlock(&cp->lock);
    return ret > 0;
}

/* Sleeps as the rate limit wants it. */
static void throttle(struct copy *cp, uint64_t len)
{
    if (!cp->c->rate)
        return;
    pthread_mutex_lock(&cp->lock);
    cp->counted += len;
    uint64_t due = cp->started_ns + (uint64_t)((double)cp->counted / (double)cp->c->rate * 1e9);
    pthread_mutex_unlock(&cp->lock);
    for (uint64_t now; (now = clock_host_ns()) < due && !cp->failed;) {
        uint64_t left = MIN(due - now, (uint64_t)100000000);
        nanosleep(&(struct timespec){.tv_nsec = (long)left}, NULL);
    }
}

static int read_salvaging(struct copy *cp, const struct piece *p, uint8_t *buf)
{
    for (uint64_t at = 0; at < p->len;) {
        size_t n = MIN(p->len - at, (uint64_t)SALVAGE_BYTES);
        int ret = blk_pread(p->node, p->from + at, buf + at, n);
        if (ret < 0) {
            memset(buf + at, 0, n);
            pthread_mutex_lock(&cp->lock);
            if (cp->c->unreadable)
                cp->c->unreadable(cp->c->opaque, p->from + at, n, ret);
            pthread_mutex_unlock(&cp->lock);
        }
        at += n;
    }
    return 0;
}

static int put_zeroes(struct copy *cp, uint64_t to, uint64_t len)
{
    if (cp->c->target_is_zero && !cp->c->target_has_backing)
        return 0;
    int ret = blk_pwrite_zeroes(cp->c->target, to, len, BLK_F_UNMAP);
    return ret < 0 ? fail(cp, ret, "writing", cp->c->target->filename, to) : 0;
}

static int put_compressed(struct copy *cp, uint64_t to, const uint8_t *buf, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t n = MIN(len - at, (size_t)cp->granule);
        if (blk_is_zero(buf + at, n)) {
            int ret = put_zeroes(cp, to + at, n);
            if (ret < 0)
                return ret;
        } else {
            int ret = blk_pwrite(cp->c->target, to + at, buf + at, n, BLK_F_COMPRESSED);
            if (ret < 0)
                return fail(cp, ret, "writing compressed", cp->c->target->filename, to + at);
        }
        at += n;
    }
    return 0;
}

/* Writes a buffer, leaving out runs of zeroes. */
static int put_data(struct copy *cp, uint64_t to, const uint8_t *buf, size_t len)
{
    const struct blk_convert *c = cp->c;
    size_t at = 0;
    while (at < len) {
        size_t end = at;
        bool zero = false;
        if (!c->min_sparse) {
            end = len;
        } else {
            for (bool first = true; end < len; first = false) {
                size_t n = MIN(len - end, cp->granule - (size_t)((to + end) % cp->granule));
                bool z = blk_is_zero(buf + end, n);
                if (first)
                    zero = z;
                else if (z != zero)
                    break;
                end += n;
            }
        }
        int ret = zero ? put_zeroes(cp, to + at, end - at) : blk_pwrite(c->target, to + at, buf + at, end - at, 0);
        if (ret < 0)
            return cp->failed ? ret : fail(cp, ret, "writing", c->target->filename, to + at);
        at = end;
    }
    return 0;
}

static int copy_piece(struct copy *cp, const struct piece *p, uint8_t **buf)
{
    const struct blk_convert *c = cp->c;
    if (p->kind == PIECE_SKIP)
        return 0;
    if (p->kind == PIECE_ZERO)
        return put_zeroes(cp, p->to, p->len);
    throttle(cp, p->len);
    uint64_t copied = 0;
    if (c->offload && p->plain && !cp->no_offload) {
        int ret = blk_copy_range(p->node, p->from, c->target, p->to, p->len);
        if (ret == 0)
            return 0;
        cp->no_offload = true; /* this pair of files cannot; by reading and writing then */
    }
    while (copied < p->len) {
        struct piece part = *p;
        part.from += copied;
        part.to += copied;
        part.len = MIN(p->len - copied, (uint64_t)PIECE_BYTES + cp->granule);
        if (c->compress && part.len < p->len - copied)
            part.len = ALIGN_DOWN(part.len, (uint64_t)cp->granule);
        if (!*buf && posix_memalign((void **)buf, 4096, PIECE_BYTES + cp->granule))
            return fail(cp, -ENOMEM, "copying", NULL, p->to);
        int ret = blk_pread(part.node, part.from, *buf, part.len);
        if (ret < 0 && c->salvage)
            ret = read_salvaging(cp, &part, *buf);
        if (ret < 0)
            return fail(cp, ret, "reading", part.node->filename, part.from);
        ret = c->compress ? put_compressed(cp, part.to, *buf, part.len) : put_data(cp, part.to, *buf, part.len);
        if (ret < 0)
            return ret;
        copied += part.len;
        cp->done += part.len;
    }
    return 1;
}

static void *worker(void *opaque)
{
    struct copy *cp = opaque;
    struct piece p;
    autofree uint8_t *buf = NULL;
    while (next_piece(cp, &p)) {
        int ret = copy_piece(cp, &p, &buf);
        if (ret < 0)
            break;
        if (ret == 0)
            cp->done += p.len;
    }
    pthread_mutex_lock(&cp->lock);
    cp->running--;
    pthread_cond_signal(&cp->changed);
    pthread_mutex_unlock(&cp->lock);
    return NULL;
}

/* Waits for the threads, telling how far they are. */
static void watch(struct copy *cp)
{
    pthread_mutex_lock(&cp->lock);
    while (cp->running) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 50000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&cp->changed, &cp->lock, &until);
        pthread_mutex_unlock(&cp->lock);
        if (cp->c->progress)
            cp->c->progress(cp->c->opaque, cp->done, cp->total);
        pthread_mutex_lock(&cp->lock);
    }
    pthread_mutex_unlock(&cp->lock);
}

static uint32_t pick_granule(const struct blk_convert *c)
{
    uint32_t cluster = c->target->cluster_size, align = MAX(c->target->request_align, 512u);
    if (c->compress)
        return cluster ? cluster : 65536;
    uint32_t g = MAX(cluster, align);
    while (g * 2 <= c->min_sparse)
        g *= 2;
    return MIN(g, (uint32_t)PIECE_BYTES);
}

int blk_convert(const struct blk_convert *wanted, struct err *err)
{
    struct blk_convert adapted = *wanted, *c = &adapted;
    if (c->target->stream)
        c->compress = c->in_order = true;
    struct copy cp = {.c = c, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t threads[BLK_CONVERT_THREADS_MAX];
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned want = c->threads ? c->threads : (unsigned)MAX(cpus, 1), n = 0;
    for (unsigned i = 0; i < c->n_sources; i++)
        cp.total += c->sources[i]->size;
    cp.total = MIN(cp.total, (uint64_t)c->target->size);
    cp.granule = pick_granule(c);
    cp.piece = c->compress ? MAX((uint32_t)COMPRESS_PIECE, cp.granule) : PIECE_BYTES;
    cp.started_ns = clock_host_ns();
    want = c->in_order ? 1 : MIN(want, (unsigned)BLK_CONVERT_THREADS_MAX);
    cp.running = want;
    for (; n < want; n++)
        if (pthread_create(&threads[n], NULL, worker, &cp))
            break;
    if (n < want) { /* do with those that came */
        pthread_mutex_lock(&cp.lock);
        cp.running -= want - n;
        if (!n)
            cp.ret = err_set(&cp.err, -EAGAIN, "cannot start a thread");
        pthread_mutex_unlock(&cp.lock);
    }
    watch(&cp);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    if (cp.ret) {
        if (err)
            *err = cp.err;
        return cp.ret;
    }
    int ret = blk_pflush(c->target);
    return ret < 0 ? err_errno(err, ret, "%s: cannot flush", c->target->filename) : 0;
}
