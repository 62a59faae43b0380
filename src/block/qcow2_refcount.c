/* qcow2: refcounts, finding free clusters, and setting clusters free when the time has come. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

uint64_t qcow2_rb_value(const struct qcow2 *s, const uint8_t *block, uint64_t i)
{
    switch (s->refcount_order) {
    case 0:
        return block[i / 8] >> (i % 8) & 1;
    case 1:
        return block[i / 4] >> (2 * (i % 4)) & 3;
    case 2:
        return block[i / 2] >> (4 * (i % 2)) & 15;
    case 3:
        return block[i];
    case 4:
        return be16_get(block + i * 2);
    case 5:
        return be32_get(block + i * 4);
    default:
        return be64_get(block + i * 8);
    }
}

void qcow2_rb_put(const struct qcow2 *s, uint8_t *block, uint64_t i, uint64_t v)
{
    uint8_t *p;
    unsigned shift;
    switch (s->refcount_order) {
    case 0:
    case 1:
    case 2:
        p = block + (i << s->refcount_order) / 8;
        shift = (unsigned)((i << s->refcount_order) % 8);
        *p = (uint8_t)((*p & ~(s->max_refcount << shift)) | v << shift);
        break;
    case 3:
        block[i] = (uint8_t)v;
        break;
    case 4:
        be16_put(block + i * 2, (uint16_t)v);
        break;
    case 5:
        be32_put(block + i * 4, (uint32_t)v);
        break;
    default:
        be64_put(block + i * 8, v);
        break;
    }
}

/* ---- clusters that hold metadata: a small hash set ---- */

static size_t slot_of(const struct qcow2 *s, uint64_t key)
{
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15ull >> 20) & (s->meta_cap - 1);
    while (s->meta_set[at] && s->meta_set[at] != key)
        at = (at + 1) & (s->meta_cap - 1);
    return at;
}

void qcow2_meta_add_l(struct qcow2 *s, uint64_t offset)
{
    if (2 * (s->meta_n + 1) > s->meta_cap) {
        uint64_t *old = s->meta_set;
        size_t n = s->meta_cap;
        s->meta_cap = n ? n * 2 : 256;
        s->meta_set = calloc(s->meta_cap, sizeof *s->meta_set);
        if (!s->meta_set)
            abort();
        for (size_t i = 0; i < n; i++)
            if (old[i])
                s->meta_set[slot_of(s, old[i])] = old[i];
        free(old);
    }
    uint64_t key = (offset >> s->cluster_bits) + 1;
    size_t at = slot_of(s, key);
    if (!s->meta_set[at])
        s->meta_n++;
    s->meta_set[at] = key;
}

void qcow2_meta_del_l(struct qcow2 *s, uint64_t offset)
{
    if (!qcow2_meta_hit_l(s, offset))
        return;
    size_t hole = slot_of(s, (offset >> s->cluster_bits) + 1), mask = s->meta_cap - 1;
    s->meta_set[hole] = 0;
    s->meta_n--;
    for (size_t i = (hole + 1) & mask; s->meta_set[i]; i = (i + 1) & mask) { /* those behind may belong further up */
        uint64_t key = s->meta_set[i];
        s->meta_set[i] = 0;
        s->meta_set[slot_of(s, key)] = key;
    }
}

bool qcow2_meta_hit_l(const struct qcow2 *s, uint64_t offset)
{
    return s->meta_cap && s->meta_set[slot_of(s, (offset >> s->cluster_bits) + 1)];
}

static void add_range(struct qcow2 *s, uint64_t offset, uint64_t len)
{
    for (uint64_t at = ALIGN_DOWN(offset, s->cluster_size); at < offset + len; at += s->cluster_size)
        qcow2_meta_add_l(s, at);
}

int qcow2_meta_build(struct qcow2 *s)
{
    free(s->meta_set);
    s->meta_set = NULL;
    s->meta_cap = s->meta_n = 0;
    qcow2_meta_add_l(s, 0);
    add_range(s, s->l1_offset, (uint64_t)s->l1_size * 8);
    add_range(s, s->rt_offset, (uint64_t)s->rt_size * 8);
    add_range(s, s->snaps_offset, s->snaps_bytes);
    for (uint32_t i = 0; i < s->n_snaps && s->snaps; i++)
        add_range(s, s->snaps[i].l1_offset, (uint64_t)s->snaps[i].l1_size * 8);
    for (uint32_t i = 0; i < s->l1_size; i++)
        if (s->l1[i] & QE_OFFSET)
            qcow2_meta_add_l(s, s->l1[i] & QE_OFFSET);
    for (uint32_t i = 0; i < s->rt_size; i++)
        if (s->rt[i] & QE_OFFSET)
            qcow2_meta_add_l(s, s->rt[i] & QE_OFFSET);
    return 0;
}

/* ---- reading and changing refcounts ---- */

int qcow2_refcount_m(struct qcow2 *s, uint64_t index, uint64_t *ret)
{
    struct qtable *t;
    int code = qcow2_rb_get_m(s, index >> s->rb_bits, &t);
    *ret = code == 0 && t ? qcow2_rb_value(s, t->data, index & (BIT64(s->rb_bits) - 1)) : 0;
    return code;
}

static void set_l(struct qcow2 *s, struct qtable *t, uint64_t index, uint64_t value)
{
    uint64_t i = index & (BIT64(s->rb_bits) - 1);
    qcow2_rb_put(s, t->data, i, value);
    qcow2_table_dirty_l(s, t, (size_t)(i << s->refcount_order) / 8, MAX(1u, BIT(s->refcount_order) / 8));
    if (!value) {
        s->free_from = MIN(s->free_from, index);
        s->run_from = MIN(s->run_from, index);
        qcow2_meta_del_l(s, index << s->cluster_bits);
        if (s->comp_at && (s->comp_at - 1) >> s->cluster_bits == index)
            s->comp_at = 0;
    } else {
        s->end = MAX(s->end, (index + 1) << s->cluster_bits);
    }
}

int qcow2_refcount_add_m(struct qcow2 *s, uint64_t index, uint64_t n, int64_t delta)
{
    for (uint64_t i = index; i < index + n; i++) {
        struct qtable *t;
        int code = qcow2_rb_get_m(s, i >> s->rb_bits, &t);
        if (code < 0)
            return code;
        uint64_t old = t ? qcow2_rb_value(s, t->data, i & (BIT64(s->rb_bits) - 1)) : 0;
        if (delta < 0 ? old < (uint64_t)-delta : old + (uint64_t)delta > s->max_refcount)
            return delta < 0 ? qcow2_corrupt(s, "the refcount of cluster %llu would fall below 0", (unsigned long long)i)
                             : -ERANGE;
        if (!t)
            return -EINVAL;
        pthread_mutex_lock(&s->lock);
        set_l(s, t, i, old + (uint64_t)delta);
        pthread_mutex_unlock(&s->lock);
    }
    return 0;
}

/* ---- allocation ---- */

/* The refcount block for cluster `index`, made if there is none. NULL: not without I/O. */
static struct qtable *block_l(struct qcow2 *s, uint64_t index)
{
    uint64_t i = index >> s->rb_bits;
    if (i >= s->rt_size)
        return NULL;
    if (s->rb[i])
        s->rb[i]->used = ++s->clock;
    if (s->rb[i] || (s->rt[i] & QE_OFFSET))
        return s->rb[i];
    /* Nothing in its range is in use: it takes the first cluster there, and counts itself. */
    uint64_t first = i << s->rb_bits;
    if (first << s->cluster_bits > Q_OFFSET_MAX)
        return NULL;
    struct qtable *t = s->rb[i] = qcow2_table_new(s, first << s->cluster_bits, false);
    s->rb_cached++;
    t->fresh = s->round;
    s->fresh_tables = true;
    qcow2_table_dirty_l(s, t, 0, s->cluster_size);
    set_l(s, t, first, 1);
    qcow2_rt_set_l(s, i, t->offset);
    qcow2_meta_add_l(s, t->offset);
    if (s->fresh_from != UINT64_MAX)
        s->fresh_from = MAX(s->fresh_from, first + 1);
    return t;
}

int64_t qcow2_alloc_l(struct qcow2 *s, uint64_t n, bool *ret_fresh)
{
    uint64_t start = n == 1 ? s->free_from : MAX(s->run_from, s->free_from), have = 0, i = start;
    s->want = n;
    if (s->unsettled)
        return -EAGAIN;
    while (have < n) {
        struct qtable *t = block_l(s, i);
        if (!t) {
            if (n > 1)
                s->run_from = start;
            return -EAGAIN;
        }
        if (qcow2_rb_value(s, t->data, i & (BIT64(s->rb_bits) - 1)) == 0) {
            have++;
            i++;
        } else {
            have = 0;
            i++;
            start = i;
            if (n == 1)
                s->free_from = i; /* what was looked at need not be again */
        }
    }
    if ((start + n) << s->cluster_bits > Q_OFFSET_MAX)
        return -EFBIG;
    for (uint64_t k = start; k < start + n; k++)
        set_l(s, s->rb[k >> s->rb_bits], k, 1);
    if (start == s->free_from)
        s->free_from = start + n;
    s->run_from = MAX(s->run_from, start + n);
    bool fresh = start >= s->fresh_from;
    if (fresh)
        s->fresh_from = start + n;
    if (ret_fresh)
        *ret_fresh = fresh;
    if (qcow2_meta_hit_l(s, start << s->cluster_bits)) {
        /* Free by its refcount, and yet metadata: the refcounts are wrong. */
        return -EUCLEAN;
    }
    return (int64_t)(start << s->cluster_bits);
}

int64_t qcow2_alloc_m(struct qcow2 *s, uint64_t n, bool *ret_fresh)
{
    for (;;) {
        int code = s->unsettled ? qcow2_barrier(s) : 0;
        if (code == 0) {
            s->unsettled = false;
            code = qcow2_apply_frees_m(s);
        }
        if (code < 0)
            return code;
        pthread_mutex_lock(&s->lock);
        int64_t r = qcow2_alloc_l(s, n, ret_fresh);
        uint64_t at = n == 1 ? s->free_from : MAX(s->run_from, s->free_from);
        pthread_mutex_unlock(&s->lock);
        if (r == -EUCLEAN)
            return qcow2_corrupt(s, "a cluster of metadata is counted as free");
        if (r != -EAGAIN)
            return r;
        /* Bring in every block from there on until one fits: each turn loads at least one, or grows the table. */
        uint64_t i = at >> s->rb_bits;
        while (i < s->rt_size && (s->rb[i] || !(s->rt[i] & QE_OFFSET)))
            i++;
        if (i >= s->rt_size) {
            code = qcow2_grow_rt_m(s, (uint64_t)s->rt_size + 1);
        } else {
            struct qtable *t;
            code = qcow2_rb_get_m(s, i, &t);
            if (code == 0 && s->rb_cached > s->rb_max + s->rb_max / 2)
                code = qcow2_trim_m(s);
        }
        if (code < 0)
            return code;
    }
}

void qcow2_unalloc_l(struct qcow2 *s, uint64_t offset, uint64_t n)
{
    for (uint64_t i = offset >> s->cluster_bits; n; i++, n--) {
        struct qtable *t = s->rb[i >> s->rb_bits];
        if (t)
            set_l(s, t, i, 0);
        else
            qcow2_free_later_l(s, i << s->cluster_bits, s->cluster_size);
    }
}

int64_t qcow2_alloc_bytes_m(struct qcow2 *s, uint64_t len)
{
    uint64_t at = s->comp_at, room = at % s->cluster_size ? s->cluster_size - at % s->cluster_size : 0, count = 0;
    int code;
    if (room) {
        code = qcow2_refcount_m(s, at >> s->cluster_bits, &count);
        if (code < 0)
            return code;
        if (!count || count >= s->max_refcount)
            room = 0;
    }
    if (room < len) { /* a further cluster, if possible just behind */
        int64_t next = qcow2_alloc_m(s, 1, NULL);
        if (next < 0)
            return next;
        if (!room || (uint64_t)next != at + room)
            at = (uint64_t)next, room = 0;
    }
    if (room) {
        code = qcow2_refcount_add_m(s, at >> s->cluster_bits, 1, 1);
        if (code < 0)
            return code;
    }
    s->comp_at = at + len;
    return (int64_t)at;
}

/* ---- setting free ---- */

static void frees_add(struct qfrees *f, uint64_t index, uint64_t n)
{
    if (f->n && f->v[f->n - 1].index + f->v[f->n - 1].n == index) {
        f->v[f->n - 1].n += n;
        return;
    }
    if (f->n == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 64;
        f->v = realloc(f->v, f->cap * sizeof *f->v);
        if (!f->v)
            abort();
    }
    f->v[f->n++] = (struct qfree){index, n};
}

void qcow2_frees_add(const struct qcow2 *s, struct qfrees *f, uint64_t offset, uint64_t len)
{
    uint64_t first = offset >> s->cluster_bits, last = (offset + len - 1) >> s->cluster_bits;
    frees_add(f, first, last - first + 1);
}

void qcow2_free_later_l(struct qcow2 *s, uint64_t offset, uint64_t len)
{
    qcow2_frees_add(s, &s->frees, offset, len);
}

bool qcow2_compressed_range(const struct qcow2 *s, uint64_t entry, uint64_t *ret_offset, uint64_t *ret_len)
{
    unsigned shift = 62 - (s->cluster_bits - 8);
    uint64_t offset = entry & (BIT64(shift) - 1), sectors = (entry >> shift & (BIT64(s->cluster_bits - 8) - 1)) + 1;
    *ret_offset = offset;
    *ret_len = sectors * 512 - offset % 512;
    return offset >= s->cluster_size && offset < Q_OFFSET_MAX;
}

void qcow2_free_entry_later_l(struct qcow2 *s, uint64_t entry)
{
    uint64_t offset, len;
    if (entry & QE_COMPRESSED) {
        if (qcow2_compressed_range(s, entry, &offset, &len))
            qcow2_free_later_l(s, offset, len);
    } else if ((entry & QE_OFFSET) && !q_external(s)) {
        qcow2_free_later_l(s, entry & QE_OFFSET, s->cluster_size);
    }
}

int qcow2_apply_frees_m(struct qcow2 *s)
{
    if (!s->have_grace)
        return 0;
    pthread_mutex_lock(&s->lock);
    struct qfrees f = {0};
    if (!atomic_load(&s->inflight[s->grace_epoch & 1])) {
        f = s->grace;
        s->grace = (struct qfrees){0};
        s->have_grace = false;
    }
    pthread_mutex_unlock(&s->lock);
    int code = 0;
    for (size_t i = 0; i < f.n && code == 0; i++) {
        for (uint64_t k = f.v[i].index; k < f.v[i].index + f.v[i].n && code == 0; k++) {
            code = qcow2_refcount_add_m(s, k, 1, -1);
            uint64_t count = 1;
            if (code == 0 && s->discard_below)
                code = qcow2_refcount_m(s, k, &count);
            if (code == 0 && !count)
                blk_pdiscard(s->file, k << s->cluster_bits, s->cluster_size);
        }
    }
    free(f.v);
    return code;
}
