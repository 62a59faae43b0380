/*
 * qcow2: writing. A write goes in place where the cluster is the image's own; else clusters are allocated, what the guest
 * does not overwrite is copied along, and L2 shows the new cluster once the data is there (qcow2_write_end). Clusters at the
 * file's end that have never been written read as zeroes: where the guest saw zeroes, too, there is nothing to copy and L2
 * shows them at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/iov.h"
#include "block/qcow2.h"

enum { RUN_MAX = 16 << 20 }; /* bytes allocated in one step */

static bool overlaps(const struct qcow2 *s, const struct qwrite *w, uint64_t offset, uint64_t len)
{
    uint64_t from = ALIGN_DOWN(w->guest, s->cluster_size), to = from + w->clusters * s->cluster_size;
    return offset < to && from < offset + len;
}

/* Whether clusters of the range are being written by a request that others have to wait for. */
static bool busy_l(const struct qcow2 *s, uint64_t offset, uint64_t len, bool any)
{
    for (const struct qwrite *w = s->pending; w; w = w->next)
        if ((w->exclusive || any) && overlaps(s, w, offset, len))
            return true;
    return false;
}

static bool owned(const struct qcow2 *s, uint64_t entry)
{
    return (entry & QE_COPIED) && !(entry & QE_COMPRESSED) && ((entry & QE_OFFSET) || q_external(s));
}

/* Whether the guest reads zeroes from the cluster at `guest`, as far as that is known without I/O. */
static bool reads_zero_l(const struct qcow2 *s, const struct qtable *t, uint64_t guest)
{
    struct qrun run;
    const struct blk_node *b = blk_node_backing(s->node);
    for (uint64_t at = guest; at < guest + s->cluster_size; at += run.len) {
        qcow2_run_l(s, t, at, guest + s->cluster_size - at, &run);
        if (run.kind != QK_ZERO && (run.kind != QK_UNALLOC || (b && at < b->size)))
            return false;
    }
    return true;
}

static uint64_t unit_mask(const struct qcow2 *s, uint64_t cluster, uint64_t from, uint64_t to)
{
    uint64_t a = from > cluster ? (from - cluster) >> s->unit_bits : 0;
    uint64_t b = (MIN(to, cluster + s->cluster_size) - cluster + BIT64(s->unit_bits) - 1) >> s->unit_bits;
    return (b >= 32 ? 0xffffffffull : BIT64(b) - 1) & ~(BIT64(a) - 1);
}

/* L2 shows [from, to) at the clusters from `host` (where the cluster of `guest` lies) on. Lock held. */
static void link_l(struct qcow2 *s, struct qtable *t, uint64_t guest, uint64_t clusters, uint64_t host, uint64_t from,
                   uint64_t to, bool allocated)
{
    uint64_t at = ALIGN_DOWN(guest, s->cluster_size);
    for (uint64_t k = 0; k < clusters; k++, at += s->cluster_size, host += s->cluster_size) {
        uint32_t i = q_l2_index(s, at);
        uint64_t old = q_entry(s, t, i), bits = q_bitmap(s, t, i), mask = 0;
        if (s->extl2) {
            mask = unit_mask(s, at, from, to);
            bits = (bits & ~(mask << 32)) | mask;
        }
        if (allocated)
            qcow2_free_entry_later_l(s, old);
        qcow2_entry_set_l(s, t, i, host | QE_COPIED, bits);
    }
}

struct step {
    uint64_t host, len;
    struct qwrite *w; /* NULL: nothing to do afterwards but to leave `epoch` */
    unsigned epoch;
    uint64_t from, to; /* what has to be written in all: the part outside of the request is copied */
    bool zeroes;       /* what is copied reads as zeroes */
};

static struct qwrite *pending_add(struct qcow2 *s, struct qtable *t, const struct qwrite *tmpl)
{
    struct qwrite *w = xcalloc(1, sizeof *w);
    *w = *tmpl;
    w->table = t;
    w->epoch = s->epoch;
    t->pins++;
    w->next = s->pending;
    s->pending = w;
    return w;
}

/* The write goes where the clusters are already. */
static int in_place_l(struct qcow2 *s, struct qtable *t, uint64_t off, const struct qrun *run, struct step *ret)
{
    uint64_t n = run->len, at = ALIGN_DOWN(off, s->cluster_size) + s->cluster_size;
    for (; at < off + n; at += s->cluster_size)
        if (!(q_entry(s, t, q_l2_index(s, at)) & QE_COPIED))
            n = at - off;
    if (!q_external(s))
        for (at = ALIGN_DOWN(run->host, s->cluster_size); at < run->host + n; at += s->cluster_size)
            if (qcow2_meta_hit_l(s, at))
                return -EUCLEAN;
    *ret = (struct step){.host = run->host, .len = n, .from = off, .to = off + n};
    return 0;
}

/* A cluster of our own of which L2 does not show all that is written now: zero, or subclusters. */
static int partly_l(struct qcow2 *s, struct qtable *t, uint64_t off, uint64_t len, bool fast, struct step *ret)
{
    uint64_t cluster = ALIGN_DOWN(off, s->cluster_size), unit = BIT64(s->unit_bits);
    uint64_t entry = q_entry(s, t, q_l2_index(s, off));
    struct qrun first, last;
    len = MIN(len, cluster + s->cluster_size - off);
    if (busy_l(s, off, len, false))
        return -EBUSY;
    if (!q_external(s) && qcow2_meta_hit_l(s, entry & QE_OFFSET))
        return -EUCLEAN;
    qcow2_run_l(s, t, off, 1, &first);
    qcow2_run_l(s, t, off + len - 1, 1, &last);
    uint64_t from = first.kind == QK_DATA ? off : ALIGN_DOWN(off, unit);
    uint64_t to = last.kind == QK_DATA ? off + len : ALIGN_UP(off + len, unit);
    bool copies = from < off || to > off + len;
    if (copies && (fast || busy_l(s, off, len, true)))
        return fast ? -EAGAIN : -EBUSY;
    struct qwrite w = {.guest = off, .len = len, .clusters = 1, .from = from, .to = to, .exclusive = copies};
    w.host = entry & QE_OFFSET;
    *ret = (struct step){.host = w.host + (off - cluster), .len = len, .from = from, .to = to};
    ret->w = pending_add(s, t, &w);
    return 0;
}

static int allocate_l(struct qcow2 *s, struct qtable *t, uint64_t off, uint64_t len, bool fast, struct step *ret)
{
    uint64_t first = ALIGN_DOWN(off, s->cluster_size), end, n = 0, unit = BIT64(s->unit_bits);
    uint64_t covers = BIT64(s->l2_bits + s->cluster_bits), table_end = ALIGN_DOWN(off, covers) + covers;
    bool zero = true, fresh = false;
    end = MIN(MIN(off + len, table_end), first + RUN_MAX);
    for (uint64_t at = first; at < end; at += s->cluster_size, n++) {
        if (owned(s, q_entry(s, t, q_l2_index(s, at))))
            break;
        if (busy_l(s, at, s->cluster_size, true)) {
            if (!n)
                return -EBUSY;
            break;
        }
        zero = zero && reads_zero_l(s, t, at);
    }
    end = MIN(end, first + n * s->cluster_size);
    /* What comes along: all of the first and last cluster; with subclusters only theirs where the rest is unallocated. */
    uint64_t last = ALIGN_DOWN(end - 1, s->cluster_size), from = first, to = last + s->cluster_size;
    if (s->extl2) {
        uint64_t a = q_entry(s, t, q_l2_index(s, first)), b = q_entry(s, t, q_l2_index(s, last));
        if (!(a & (QE_OFFSET | QE_COMPRESSED)))
            from = ALIGN_DOWN(off, unit);
        if (!(b & (QE_OFFSET | QE_COMPRESSED)))
            to = ALIGN_UP(end, unit);
    }
    bool copies = from < off || to > end;
    if (q_external(s)) {
        if (copies && fast)
            return -EAGAIN;
    } else if (copies && fast && !(zero && (n == 1 ? s->free_from : MAX(s->run_from, s->free_from)) >= s->fresh_from)) {
        return -EAGAIN;
    }
    int64_t host = q_external(s) ? (int64_t)first : qcow2_alloc_l(s, n, &fresh);
    if (host < 0)
        return (int)host;
    *ret = (struct step){.host = (uint64_t)host + (off - first), .len = end - off, .from = from, .to = to, .zeroes = zero};
    if (fresh && zero) {
        link_l(s, t, off, n, (uint64_t)host, from, to, true);
        ret->from = off;
        ret->to = end;
        return 0;
    }
    if (copies && fast) {
        qcow2_unalloc_l(s, (uint64_t)host, n);
        return -EAGAIN;
    }
    struct qwrite w = {.guest = off, .len = end - off, .host = (uint64_t)host, .clusters = n, .from = from, .to = to,
                       .allocated = true, .exclusive = true};
    ret->w = pending_add(s, t, &w);
    return 0;
}

/*
 * Begins a write to the first part of [off, +len). 0: go on as *ret says, then end(). -EAGAIN: needs I/O first. -EBUSY: wait
 * for another write. -EUCLEAN: the image is damaged. Lock held.
 */
static int begin_l(struct qcow2 *s, uint64_t off, uint64_t len, bool fast, struct step *ret)
{
    struct qtable *t = qcow2_l2_own_l(s, q_l1_index(s, off));
    struct qrun run;
    if (!t)
        return -EAGAIN;
    qcow2_run_l(s, t, off, len, &run);
    int code;
    if (run.kind == QK_INVALID)
        code = -EUCLEAN;
    else if (!owned(s, q_entry(s, t, q_l2_index(s, off))))
        code = allocate_l(s, t, off, len, fast, ret);
    else if (run.kind == QK_DATA)
        code = in_place_l(s, t, off, &run, ret);
    else
        code = partly_l(s, t, off, len, fast, ret);
    if (code == 0) {
        ret->epoch = s->epoch;
        atomic_fetch_add(&s->inflight[s->epoch & 1], 1);
    }
    return code;
}

void qcow2_write_end(struct qcow2 *s, struct qwrite *w, int ret)
{
    pthread_mutex_lock(&s->lock);
    if (ret == 0)
        link_l(s, w->table, w->guest, w->clusters, w->host, w->from, w->to, w->allocated);
    else if (w->allocated && !q_external(s))
        qcow2_free_later_l(s, w->host, w->clusters * s->cluster_size);
    struct qwrite **p = &s->pending;
    while (*p != w)
        p = &(*p)->next;
    *p = w->next;
    w->table->pins--;
    atomic_fetch_sub(&s->inflight[w->epoch & 1], 1);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    free(w);
}

static void end(struct qcow2 *s, struct step *step, int ret)
{
    if (step->w)
        qcow2_write_end(s, step->w, ret);
    else
        atomic_fetch_sub(&s->inflight[step->epoch & 1], 1);
}

bool qcow2_map_write_l(struct qcow2 *s, uint64_t offset, uint64_t len, struct blk_map *ret)
{
    struct step step;
    if (s->corrupt || !s->writable || begin_l(s, offset, len, true, &step) < 0)
        return false;
    qcow2_bitmaps_mark_l(s, offset, step.len);
    *ret = (struct blk_map){
        .kind = BLK_MAP_CHILD,
        .child = s->data,
        .host = step.host,
        .len = step.len,
        .token = step.w ? (void *)step.w : (void *)(uintptr_t)(1 + (step.epoch & 1)),
    };
    return true;
}

/* ---- blocking ---- */

static int begin(struct qcow2 *s, uint64_t off, uint64_t len, struct step *step)
{
    for (unsigned turn = 0;;) {
        struct qtable *t;
        if (s->corrupt)
            return -EIO;
        pthread_mutex_lock(&s->meta);
        int code = qcow2_l2_own_m(s, q_l1_index(s, off), &t);
        if (code == 0) {
            pthread_mutex_lock(&s->lock);
            code = begin_l(s, off, len, false, step);
            pthread_mutex_unlock(&s->lock);
        } else if (code == -EAGAIN || code == -EBUSY) {
            code = -EIO;
        }
        if (code == -EAGAIN) { /* a refcount block is missing: an allocation brings it in, and is given back */
            uint64_t n = s->want;
            int64_t probe = qcow2_alloc_m(s, n, NULL);
            if (probe >= 0) {
                pthread_mutex_lock(&s->lock);
                qcow2_unalloc_l(s, (uint64_t)probe, n);
                pthread_mutex_unlock(&s->lock);
            }
            code = probe < 0 ? (int)probe : turn++ < 64 ? 1 : -EUCLEAN;
        }
        pthread_mutex_unlock(&s->meta);
        if (code == -EUCLEAN)
            return qcow2_corrupt(s, "a write of guest offset %#llx would overwrite metadata, or its L2 entry is invalid",
                                 (unsigned long long)off);
        if (code == -EBUSY) {
            pthread_mutex_lock(&s->lock);
            if (busy_l(s, off, MIN(len, s->cluster_size), true))
                pthread_cond_wait(&s->changed, &s->lock);
            pthread_mutex_unlock(&s->lock);
            continue;
        }
        if (code <= 0)
            return code;
    }
}

/* Reads what the guest sees, for copying; behind the disk's end there are zeroes. */
static int read_old(struct qcow2 *s, uint64_t guest, uint8_t *buf, uint64_t len, bool zeroes)
{
    struct iovec v = {buf, len};
    if (zeroes) {
        memset(buf, 0, len);
        return 0;
    }
    return len ? qcow2_preadv(s->node, guest, &v, 1, len) : 0;
}

/* Writes one step: the request's bytes with what has to be copied around them. */
static int write_step(struct qcow2 *s, const struct step *step, uint64_t off, const struct iovec *iov, unsigned niov)
{
    uint64_t head = off - step->from, tail = step->to - (off + step->len);
    if (!head && !tail)
        return blk_pwritev(s->data, step->host, iov, niov, 0);
    autofree uint8_t *buf = aligned_alloc(4096, ALIGN_UP(head, 4096) + ALIGN_UP(tail, 4096) + 4096);
    autofree struct iovec *v = xcalloc(niov + 2, sizeof *v);
    if (!buf)
        return -ENOMEM;
    uint8_t *behind = buf + ALIGN_UP(head, 4096);
    int code = read_old(s, step->from, buf, head, step->zeroes);
    if (code == 0)
        code = read_old(s, off + step->len, behind, tail, step->zeroes);
    if (code < 0)
        return code;
    unsigned n = 0;
    if (head)
        v[n++] = (struct iovec){buf, head};
    memcpy(v + n, iov, niov * sizeof *v);
    n += niov;
    if (tail)
        v[n++] = (struct iovec){behind, tail};
    return blk_pwritev(s->data, step->host - head, v, n, 0);
}

int qcow2_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                  unsigned flags)
{
    struct qcow2 *s = n->priv;
    autofree struct iovec *part = xcalloc(niov, sizeof *part);
    for (uint64_t done = 0; done < len;) {
        struct step step;
        int code = begin(s, offset + done, len - done, &step);
        if (code < 0)
            return code;
        unsigned k = iov_slice(iov, niov, (size_t)done, (size_t)step.len, part, niov);
        code = write_step(s, &step, offset + done, part, k);
        end(s, &step, code);
        if (code < 0)
            return code;
        done += step.len;
    }
    qcow2_bitmaps_mark(s, offset, len);
    return 0;
}

/* ---- zeroes and discard ---- */

enum drop { DROP_ZERO, DROP_ZERO_UNMAP, DROP_DISCARD, DROP_FULL };

/* Makes the units of one cluster in [from, to) zero (or nothing). Lock held, the table owned. -ENOTSUP: write zeroes. */
static int drop_cluster_l(struct qcow2 *s, struct qtable *t, uint64_t from, uint64_t to, enum drop how)
{
    uint64_t cluster = ALIGN_DOWN(from, s->cluster_size);
    uint32_t i = q_l2_index(s, from);
    uint64_t e = q_entry(s, t, i), bits = q_bitmap(s, t, i), mask = s->extl2 ? unit_mask(s, cluster, from, to) : 0;
    bool whole = s->extl2 ? mask == 0xffffffff : true, backing = s->node->backing_file || s->node->backing;
    bool has = (e & (QE_OFFSET | QE_COMPRESSED)) || owned(s, e), zero = s->extl2 ? bits >> 32 == 0xffffffff : e & QE_ZERO;
    if (how == DROP_FULL) {
        if (e || bits) {
            qcow2_free_entry_later_l(s, e);
            qcow2_entry_set_l(s, t, i, 0, 0);
        }
        return 0;
    }
    if (!has && !backing && !s->extl2)
        return 0; /* zero already, whatever it is called */
    if (!has && !backing && !bits)
        return 0;
    if (!whole) {
        if (e & QE_COMPRESSED)
            return -ENOTSUP;
        bits = (bits & ~mask) | mask << 32;
        if (how == DROP_DISCARD && (uint32_t)bits)
            qcow2_entry_set_l(s, t, i, e, bits);
        else if (bits != q_bitmap(s, t, i))
            qcow2_entry_set_l(s, t, i, e, bits);
        return 0;
    }
    if (how == DROP_ZERO && owned(s, e)) {
        if (!zero)
            qcow2_entry_set_l(s, t, i, s->extl2 ? e : e | QE_ZERO, 0xffffffffull << 32);
        return 0;
    }
    if (!has && zero)
        return 0;
    if (!s->v3_zero && (how != DROP_DISCARD || backing))
        return -ENOTSUP;
    qcow2_free_entry_later_l(s, e);
    if (!s->v3_zero)
        qcow2_entry_set_l(s, t, i, 0, 0);
    else
        qcow2_entry_set_l(s, t, i, s->extl2 ? 0 : QE_ZERO, 0xffffffffull << 32);
    return 0;
}

/* [offset, +len) consists of whole units. */
static int drop(struct qcow2 *s, uint64_t offset, uint64_t len, enum drop how)
{
    uint64_t covers = BIT64(s->l2_bits + s->cluster_bits);
    for (uint64_t at = offset; at < offset + len;) {
        uint64_t stop = MIN(offset + len, ALIGN_DOWN(at, covers) + covers);
        struct qtable *t;
        if (s->corrupt)
            return -EIO;
        pthread_mutex_lock(&s->meta);
        uint32_t l1i = q_l1_index(s, at);
        int code = qcow2_l2_get_m(s, l1i, &t);
        /* Without a table everything in it is unallocated. */
        if (code == 0 && (t || (how != DROP_FULL && blk_node_backing(s->node))) && l1i < s->l1_size)
            code = qcow2_l2_own_m(s, l1i, &t);
        if (code < 0 || !t) {
            pthread_mutex_unlock(&s->meta);
            if (code < 0)
                return code;
            at = stop;
            continue;
        }
        pthread_mutex_lock(&s->lock);
        while (busy_l(s, at, stop - at, true) && code == 0) {
            pthread_mutex_unlock(&s->meta); /* it may need it to end */
            pthread_cond_wait(&s->changed, &s->lock);
            code = -EAGAIN;
        }
        bool again = code == -EAGAIN;
        for (; at < stop && code == 0; at = ALIGN_DOWN(at, s->cluster_size) + s->cluster_size)
            code = drop_cluster_l(s, t, at, MIN(stop, ALIGN_DOWN(at, s->cluster_size) + s->cluster_size), how);
        pthread_mutex_unlock(&s->lock);
        if (again)
            continue;
        pthread_mutex_unlock(&s->meta);
        if (code < 0)
            return code;
        at = stop;
    }
    return 0;
}

int qcow2_drop_range(struct qcow2 *s, uint64_t offset, uint64_t len, bool full)
{
    return drop(s, offset, len, full ? DROP_FULL : DROP_DISCARD);
}

/* Zeroes in a part of a unit: nothing to do where it reads as zero, else written. */
static int zero_part(struct qcow2 *s, uint64_t offset, uint64_t len)
{
    const struct blk_node *b = blk_node_backing(s->node);
    struct qrun run;
    if (!len)
        return 0;
    int code = qcow2_run(s, offset, len, &run);
    if (code < 0)
        return code;
    if (run.len >= len && (run.kind == QK_ZERO || (run.kind == QK_UNALLOC && (!b || offset >= b->size))))
        return 0;
    autofree char *zeroes = calloc(1, len);
    if (!zeroes)
        return -ENOMEM;
    struct iovec v = {zeroes, len};
    return qcow2_pwritev(s->node, offset, &v, 1, len, 0);
}

int qcow2_pwrite_zeroes(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct qcow2 *s = n->priv;
    uint64_t unit = BIT64(s->unit_bits), end = offset + len, from = ALIGN_UP(offset, unit);
    uint64_t to = end == n->size ? ALIGN_UP(end, unit) : ALIGN_DOWN(end, unit);
    if (!s->v3_zero || q_external(s))
        return -ENOTSUP;
    if (from >= to)
        return zero_part(s, offset, len);
    int code = zero_part(s, offset, from - offset);
    if (code == 0 && end > to)
        code = zero_part(s, to, end - to);
    if (code == 0)
        code = drop(s, from, to - from, flags & BLK_F_UNMAP ? DROP_ZERO_UNMAP : DROP_ZERO);
    if (code == 0)
        qcow2_bitmaps_mark(s, offset, len);
    return code;
}

int qcow2_pdiscard(struct blk_node *n, uint64_t offset, uint64_t len)
{
    struct qcow2 *s = n->priv;
    uint64_t end = offset + len, from = ALIGN_UP(offset, s->cluster_size);
    uint64_t to = end == n->size ? ALIGN_UP(end, s->cluster_size) : ALIGN_DOWN(end, s->cluster_size);
    if (q_external(s) || (!s->v3_zero && (n->backing_file || n->backing)) || from >= to)
        return 0; /* only advice */
    int code = drop(s, from, to - from, DROP_DISCARD);
    if (code == 0)
        qcow2_bitmaps_mark(s, from, MIN(to, end) - from);
    return code;
}

/* ---- compressed ---- */

int qcow2_pwritev_compressed(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct qcow2 *s = n->priv;
    if (offset % s->cluster_size || q_external(s))
        return q_external(s) ? -ENOTSUP : -EINVAL;
    if (len > s->cluster_size) { /* cluster by cluster */
        autofree struct iovec *part = xcalloc(niov, sizeof *part);
        int code = 0;
        for (uint64_t done = 0; done < len && code == 0; done += s->cluster_size) {
            uint64_t k = MIN(len - done, s->cluster_size);
            unsigned m = iov_slice(iov, niov, (size_t)done, (size_t)k, part, niov);
            code = qcow2_pwritev_compressed(n, offset + done, part, m, k);
        }
        return code;
    }
    if (len < s->cluster_size && offset + len != n->size)
        return -EINVAL;
    autofree uint8_t *in = calloc(1, s->cluster_size), *out = malloc(s->cluster_size);
    if (!in || !out)
        return -ENOMEM;
    iov_read(iov, niov, 0, in, len);
    ssize_t packed = qcow2_compress(s, in, s->cluster_size, out, s->cluster_size);
    if (packed < 0)
        return (int)packed;
    if (!packed)
        return qcow2_pwritev(n, offset, iov, niov, len, 0);
    struct qtable *t;
    struct qwrite w = {.guest = offset, .len = len, .clusters = 1, .exclusive = true};
    struct qwrite *mine = NULL;
    int64_t at = 0;
    int code;
    do {
        pthread_mutex_lock(&s->meta);
        code = qcow2_l2_own_m(s, q_l1_index(s, offset), &t);
        if (code == 0 && (at = qcow2_alloc_bytes_m(s, (uint64_t)packed)) < 0)
            code = (int)at;
        pthread_mutex_lock(&s->lock);
        if (code == 0 && busy_l(s, offset, s->cluster_size, true)) {
            qcow2_free_later_l(s, (uint64_t)at, (uint64_t)packed);
            pthread_mutex_unlock(&s->meta);
            pthread_cond_wait(&s->changed, &s->lock);
            pthread_mutex_unlock(&s->lock);
            code = -EBUSY;
            continue;
        }
        if (code == 0) {
            mine = pending_add(s, t, &w);
            atomic_fetch_add(&s->inflight[s->epoch & 1], 1);
        }
        pthread_mutex_unlock(&s->lock);
        pthread_mutex_unlock(&s->meta);
    } while (code == -EBUSY);
    if (code < 0)
        return code;
    code = blk_pwrite(s->file, (uint64_t)at, out, (size_t)packed, 0);
    pthread_mutex_lock(&s->lock);
    uint64_t sectors = (((uint64_t)at + (uint64_t)packed - 1) >> 9) - ((uint64_t)at >> 9);
    uint32_t i = q_l2_index(s, offset);
    if (code == 0) {
        qcow2_free_entry_later_l(s, q_entry(s, t, i));
        qcow2_entry_set_l(s, t, i, QE_COMPRESSED | (uint64_t)at | sectors << (62 - (s->cluster_bits - 8)), 0);
    } else {
        qcow2_free_later_l(s, (uint64_t)at, (uint64_t)packed);
    }
    mine->clusters = 0; /* nothing is left to link */
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_lock(&s->comp_lock);
    s->comp_entry = 0; /* its place may have been another's before */
    pthread_mutex_unlock(&s->comp_lock);
    qcow2_write_end(s, mine, 0);
    qcow2_bitmaps_mark(s, offset, len);
    return code;
}
