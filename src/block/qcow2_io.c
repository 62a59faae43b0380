/* qcow2: where the guest's bytes are, and reading them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/iov.h"
#include "block/qcow2.h"

/* What the unit (cluster or subcluster) at `guest` is. */
static enum qkind unit(const struct qcow2 *s, const struct qtable *t, uint64_t guest, uint64_t *host, bool *has_host)
{
    *has_host = false;
    *host = 0;
    if (!t)
        return QK_UNALLOC;
    uint32_t i = q_l2_index(s, guest);
    uint64_t e = q_entry(s, t, i), offset = e & QE_OFFSET;
    if (e & QE_COMPRESSED) {
        *host = e;
        return QK_COMPRESSED;
    }
    *has_host = offset || (q_external(s) && (e & QE_COPIED));
    *host = offset + (guest & (s->cluster_size - 1));
    if (offset % s->cluster_size)
        return QK_INVALID;
    if (s->extl2) {
        uint64_t b = q_bitmap(s, t, i);
        unsigned k = (unsigned)(guest >> s->unit_bits) & (Q_SUBCLUSTERS - 1);
        bool alloc = b >> k & 1, zero = b >> (k + 32) & 1;
        if ((alloc && zero) || (alloc && !*has_host))
            return QK_INVALID;
        return alloc ? QK_DATA : zero ? QK_ZERO : QK_UNALLOC;
    }
    if (e & QE_ZERO)
        return s->v3_zero ? QK_ZERO : QK_INVALID;
    return *has_host ? QK_DATA : QK_UNALLOC;
}

void qcow2_run_l(const struct qcow2 *s, const struct qtable *t, uint64_t guest, uint64_t len, struct qrun *ret)
{
    uint64_t covers = BIT64(s->l2_bits + s->cluster_bits), left = covers - (guest & (covers - 1));
    uint64_t step = BIT64(s->unit_bits), at, host;
    bool has;
    len = MIN(len, left);
    ret->kind = unit(s, t, guest, &ret->host, &ret->has_host);
    if (ret->kind == QK_COMPRESSED) {
        ret->len = MIN(len, s->cluster_size - (guest & (s->cluster_size - 1)));
        return;
    }
    if (!t) {
        ret->len = len;
        return;
    }
    for (at = (guest | (step - 1)) + 1; at < guest + len; at += step) {
        enum qkind k = unit(s, t, at, &host, &has);
        if (k != ret->kind || (k != QK_UNALLOC && (has != ret->has_host || (has && host != ret->host + (at - guest)))))
            break;
    }
    ret->len = MIN(len, at - guest);
}

/* The table for `guest` if it is there without I/O: 1; *ret NULL: there is none on disk either. 0: it must be loaded. */
static int cached_l(struct qcow2 *s, uint64_t guest, struct qtable **ret)
{
    uint32_t i = q_l1_index(s, guest);
    *ret = i < s->l1_size ? s->l2[i] : NULL;
    if (*ret)
        (*ret)->used = s->clock;
    return *ret || i >= s->l1_size || !(s->l1[i] & QE_OFFSET);
}

/* As qcow2_run, and counts in a request to a DATA run's host: *ret_epoch. */
static int run_enter(struct qcow2 *s, uint64_t guest, uint64_t len, struct qrun *ret, unsigned *ret_epoch)
{
    struct qtable *t;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        if (cached_l(s, guest, &t)) {
            qcow2_run_l(s, t, guest, len, ret);
            if (ret_epoch && (ret->kind == QK_DATA || ret->kind == QK_COMPRESSED)) {
                *ret_epoch = s->epoch;
                atomic_fetch_add(&s->inflight[s->epoch & 1], 1);
            }
            pthread_mutex_unlock(&s->lock);
            if (ret->kind == QK_INVALID)
                return qcow2_corrupt(s, "the L2 entry for guest offset %#llx is invalid (cluster offset %#llx)",
                                     (unsigned long long)guest, (unsigned long long)ret->host);
            return 0;
        }
        pthread_mutex_unlock(&s->lock);
        pthread_mutex_lock(&s->meta);
        int code = qcow2_l2_get_m(s, q_l1_index(s, guest), &t);
        pthread_mutex_unlock(&s->meta);
        if (code < 0)
            return code;
    }
}

int qcow2_run(struct qcow2 *s, uint64_t guest, uint64_t len, struct qrun *ret)
{
    return run_enter(s, guest, len, ret, NULL);
}

static void zero_iov(const struct iovec *iov, unsigned niov)
{
    for (unsigned i = 0; i < niov; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
}

static int read_backing(struct qcow2 *s, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct blk_node *b = blk_node_backing(s->node);
    uint64_t size = b ? MIN(atomic_load(&b->size), atomic_load(&s->node->size)) : 0;
    if (offset >= size) {
        zero_iov(iov, niov);
        return 0;
    }
    if (len <= size - offset)
        return blk_preadv(b, offset, iov, niov);
    autofree struct iovec *part = xcalloc(niov, sizeof *part);
    unsigned n = iov_slice(iov, niov, 0, (size_t)(size - offset), part, niov);
    int code = blk_preadv(b, offset, part, n);
    n = iov_slice(iov, niov, (size_t)(size - offset), SIZE_MAX, part, niov);
    zero_iov(part, n);
    return code;
}

int qcow2_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct qcow2 *s = n->priv;
    struct iovec few[16];
    autofree struct iovec *many = niov > ARRAY_SIZE(few) ? xcalloc(niov, sizeof *many) : NULL;
    struct iovec *part = many ? many : few;
    for (uint64_t done = 0; done < len;) {
        struct qrun run;
        unsigned epoch;
        int code = run_enter(s, offset + done, len - done, &run, &epoch);
        if (code < 0)
            return code;
        const struct iovec *v = iov;
        unsigned k = niov;
        if (done || run.len < len) {
            k = iov_slice(iov, niov, (size_t)done, (size_t)run.len, part, niov);
            v = part;
        }
        switch (run.kind) {
        case QK_DATA:
            code = blk_preadv(s->data, run.host, v, k);
            break;
        case QK_COMPRESSED:
            code = qcow2_read_compressed(s, run.host, (offset + done) & (s->cluster_size - 1), v, k, run.len);
            break;
        case QK_UNALLOC:
            code = read_backing(s, offset + done, v, k, run.len);
            break;
        default:
            zero_iov(v, k);
            break;
        }
        if (run.kind == QK_DATA || run.kind == QK_COMPRESSED)
            atomic_fetch_sub(&s->inflight[epoch & 1], 1);
        if (code < 0)
            return code;
        done += run.len;
    }
    return 0;
}

/* Whether the image was preallocated: far more clusters than the file has on disk. Then data may be holes in the file. */
static bool many_holes(struct qcow2 *s)
{
    pthread_mutex_lock(&s->meta);
    if (s->holes == QHOLES_UNKNOWN) {
        int64_t real = blk_allocated_size(s->file);
        uint64_t have = real < 0 ? UINT64_MAX / 16 : (uint64_t)real >> s->cluster_bits, all = (s->file->size + s->cluster_size - 1) >> s->cluster_bits;
        s->holes = all >= MAX(have * 10 / 9, have + 2) ? QHOLES_MANY : QHOLES_FEW;
    }
    bool many = s->holes == QHOLES_MANY;
    pthread_mutex_unlock(&s->meta);
    return many;
}

int qcow2_block_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret)
{
    struct qcow2 *s = n->priv;
    struct qrun run, next;
    int code = qcow2_run(s, offset, len, &run);
    if (code < 0)
        return code;
    /* Across L2 tables, as far as it goes on the same. */
    while (run.len < len && (run.kind == QK_UNALLOC || run.kind == QK_ZERO || run.kind == QK_DATA)) {
        code = qcow2_run(s, offset + run.len, len - run.len, &next);
        if (code < 0 || next.kind != run.kind || next.has_host != run.has_host ||
            (run.has_host && run.kind != QK_UNALLOC && next.host != run.host + run.len))
            break;
        run.len += next.len;
    }
    *ret = (struct blk_extent){.len = run.len};
    switch (run.kind) {
    case QK_DATA:
        ret->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
        if (want_zero && many_holes(s))
            ret->flags |= BLK_STATUS_RECURSE;
        ret->host = run.host;
        ret->file = s->data;
        break;
    case QK_ZERO:
        ret->flags = BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED;
        if (run.has_host) {
            ret->flags |= BLK_STATUS_OFFSET;
            ret->host = run.host;
            ret->file = s->data;
        }
        break;
    case QK_COMPRESSED:
        ret->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_COMPRESSED;
        break;
    default:
        ret->flags = n->backing_file || n->backing ? 0 : BLK_STATUS_ZERO;
        break;
    }
    return 0;
}

/* ---- without blocking ---- */

void qcow2_map(struct blk_node *n, bool write, uint64_t offset, uint64_t len, struct blk_map *ret)
{
    struct qcow2 *s = n->priv;
    struct qtable *t;
    struct qrun run;
    *ret = (struct blk_map){.kind = BLK_MAP_SLOW};
    pthread_mutex_lock(&s->lock);
    if (write) {
        qcow2_map_write_l(s, offset, len, ret);
        pthread_mutex_unlock(&s->lock);
        return;
    }
    if (!cached_l(s, offset, &t)) {
        pthread_mutex_unlock(&s->lock);
        return;
    }
    qcow2_run_l(s, t, offset, len, &run);
    if (run.kind == QK_DATA) {
        unsigned parity = s->epoch & 1;
        atomic_fetch_add(&s->inflight[parity], 1);
        *ret = (struct blk_map){
            .kind = BLK_MAP_CHILD, .child = s->data, .host = run.host, .len = run.len, .token = (void *)(uintptr_t)(1 + parity)};
    }
    pthread_mutex_unlock(&s->lock);
    struct blk_node *b = blk_node_backing(n);
    if (run.kind == QK_ZERO || (run.kind == QK_UNALLOC && (!b || offset >= b->size)))
        *ret = (struct blk_map){.kind = BLK_MAP_ZERO, .len = run.len};
    else if (run.kind == QK_UNALLOC)
        *ret = (struct blk_map){
            .kind = BLK_MAP_CHILD, .child = b, .host = offset, .len = MIN(run.len, b->size - offset)};
}

void qcow2_map_done(struct blk_node *n, void *token, int ret)
{
    struct qcow2 *s = n->priv;
    uintptr_t v = (uintptr_t)token;
    if (v == 1 || v == 2)
        atomic_fetch_sub(&s->inflight[v - 1], 1);
    else if (v)
        qcow2_write_end(s, token, ret);
}
