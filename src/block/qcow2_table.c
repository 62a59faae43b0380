/* qcow2: the L1 and refcount tables, and the caches of L2 tables and refcount blocks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

struct qtable *qcow2_table_new(struct qcow2 *s, uint64_t offset, bool zero_below)
{
    struct qtable *t = xcalloc(1, sizeof *t);
    t->data = calloc(1, s->cluster_size);
    if (!t->data)
        abort();
    t->offset = offset;
    t->used = ++s->clock;
    return t;
}

void qcow2_table_free(struct qtable *t)
{
    if (!t)
        return;
    free(t->data);
    free(t);
}

void qcow2_table_dirty_l(struct qcow2 *s, struct qtable *t, size_t off, size_t len)
{
    for (size_t g = off / Q_GRANULE; g <= (off + len - 1) / Q_GRANULE; g++)
        t->dirty[g / 64] |= BIT64(g % 64);
    if (!t->is_dirty)
        s->dirty_tables++;
    t->is_dirty = true;
}

void qcow2_entry_set_l(struct qcow2 *s, struct qtable *t, uint32_t i, uint64_t entry, uint64_t bitmap)
{
    size_t at = (size_t)i * s->entry_size;
    be64_put(t->data + at, entry);
    if (s->extl2)
        be64_put(t->data + at + 8, bitmap);
    qcow2_table_dirty_l(s, t, at, s->entry_size);
}

void qcow2_l1_set_l(struct qcow2 *s, uint32_t index, uint64_t value)
{
    s->l1[index] = value;
    s->l1_dirty[index / 64] = 1;
    s->l1_is_dirty = true;
}

void qcow2_rt_set_l(struct qcow2 *s, uint64_t index, uint64_t value)
{
    s->rt[index] = value;
    s->rt_dirty[index / 64] = 1;
    s->rt_is_dirty = true;
}

int qcow2_load_l1(struct qcow2 *s, uint64_t offset, uint32_t size, uint64_t **ret)
{
    if (size > Q_L1_BYTES_MAX / 8 || offset % s->cluster_size || offset > Q_OFFSET_MAX)
        return -EINVAL;
    autofree uint8_t *raw = malloc((size_t)size * 8 + 8);
    uint64_t *l1 = calloc((size_t)size + 1, 8);
    if (!raw || !l1) {
        free(l1);
        return -ENOMEM;
    }
    int code = size ? blk_pread(s->file, offset, raw, (size_t)size * 8) : 0;
    if (code < 0) {
        free(l1);
        return code;
    }
    for (uint32_t i = 0; i < size; i++)
        l1[i] = be64_get(raw + (size_t)i * 8);
    *ret = l1;
    return 0;
}

void qcow2_install_l1(struct qcow2 *s, uint64_t *l1, uint64_t offset, uint32_t size)
{
    if (s->l2)
        qcow2_drop_l2(s);
    free(s->l1);
    free(s->l1_dirty);
    free(s->l2);
    s->l1 = l1;
    s->l1_offset = offset;
    s->l1_size = size;
    s->l1_dirty = calloc((size_t)size / 64 + 1, 1);
    s->l2 = calloc((size_t)size + 1, sizeof *s->l2);
    if (!s->l1_dirty || !s->l2)
        abort();
    s->l1_is_dirty = false;
}

void qcow2_drop_l2(struct qcow2 *s)
{
    for (uint32_t i = 0; i < s->l1_size; i++) {
        qcow2_table_free(s->l2[i]);
        s->l2[i] = NULL;
    }
    s->l2_cached = 0;
}

void qcow2_drop_rb(struct qcow2 *s)
{
    for (uint32_t i = 0; i < s->rt_size; i++) {
        qcow2_table_free(s->rb[i]);
        s->rb[i] = NULL;
    }
    s->rb_cached = 0;
}

/* Drops the least recently used clean quarter of a cache that is over its limit. */
static void trim(struct qcow2 *s, struct qtable **tables, uint64_t n, uint64_t *cached, uint64_t max)
{
    if (*cached <= max)
        return;
    uint64_t oldest = s->clock, age;
    for (uint64_t i = 0; i < n; i++)
        if (tables[i])
            oldest = MIN(oldest, tables[i]->used);
    /* By halving ages: no need for a sorted list, trimming is rare. */
    for (age = (s->clock - oldest) / 2; *cached > max - max / 4; age /= 2) {
        for (uint64_t i = 0; i < n && *cached > max - max / 4; i++) {
            if (tables[i] && !tables[i]->is_dirty && !tables[i]->pins && s->clock - tables[i]->used >= age) {
                qcow2_table_free(tables[i]);
                tables[i] = NULL;
                --*cached;
            }
        }
        if (!age)
            break;
    }
}

int qcow2_trim_m(struct qcow2 *s)
{
    if (s->l2_cached <= s->l2_max && s->rb_cached <= s->rb_max)
        return 0;
    int code = 0;
    if (s->dirty_tables > (s->l2_max + s->rb_max) / 4)
        code = qcow2_writeback_m(s);
    pthread_mutex_lock(&s->lock);
    trim(s, s->l2, s->l1_size, &s->l2_cached, s->l2_max);
    trim(s, s->rb, s->rt_size, &s->rb_cached, s->rb_max);
    pthread_mutex_unlock(&s->lock);
    return code;
}

static int load(struct qcow2 *s, uint64_t offset, struct qtable **ret)
{
    struct qtable *t = qcow2_table_new(s, offset, false);
    int code = blk_pread(s->file, offset, t->data, s->cluster_size);
    if (code < 0) {
        qcow2_table_free(t);
        return code;
    }
    *ret = t;
    return 0;
}

int qcow2_l2_get_m(struct qcow2 *s, uint32_t i, struct qtable **ret)
{
    struct qtable *t = NULL;
    *ret = NULL;
    if (i >= s->l1_size)
        return 0;
    uint64_t offset = s->l1[i] & QE_OFFSET;
    if (s->l2[i]) {
        s->l2[i]->used = ++s->clock;
        *ret = s->l2[i];
        return 0;
    }
    if (!offset)
        return 0;
    if (offset % s->cluster_size)
        return qcow2_corrupt(s, "L2 table offset %#llx unaligned (L1 index: %#x)", (unsigned long long)offset, i);
    int code = qcow2_trim_m(s);
    if (code == 0)
        code = load(s, offset, &t);
    if (code < 0)
        return code;
    pthread_mutex_lock(&s->lock);
    s->l2[i] = t;
    s->l2_cached++;
    pthread_mutex_unlock(&s->lock);
    *ret = t;
    return 0;
}

struct qtable *qcow2_l2_own_l(struct qcow2 *s, uint32_t i)
{
    if (i >= s->l1_size || ((s->l1[i] & QE_OFFSET) && !s->l2[i]))
        return NULL;
    if ((s->l1[i] & QE_COPIED) && s->l2[i])
        return s->l2[i];
    bool fresh;
    int64_t offset = qcow2_alloc_l(s, 1, &fresh);
    if (offset < 0)
        return NULL;
    struct qtable *t = s->l2[i];
    if (t) { /* shared with a snapshot: from here on a copy of our own */
        qcow2_free_later_l(s, t->offset, s->cluster_size);
        t->offset = (uint64_t)offset;
    } else {
        t = s->l2[i] = qcow2_table_new(s, (uint64_t)offset, fresh);
        s->l2_cached++;
    }
    t->fresh = s->round;
    s->fresh_tables = true;
    qcow2_table_dirty_l(s, t, 0, s->cluster_size);
    qcow2_meta_add_l(s, (uint64_t)offset);
    qcow2_l1_set_l(s, i, (uint64_t)offset | QE_COPIED);
    return t;
}

int qcow2_l2_own_m(struct qcow2 *s, uint32_t i, struct qtable **ret)
{
    *ret = NULL;
    if (i >= s->l1_size)
        return -EINVAL;
    for (unsigned turn = 0;; turn++) {
        int code = qcow2_l2_get_m(s, i, ret);
        if (turn > 16) /* clusters that are counted as free are metadata, one after the other */
            return qcow2_corrupt(s, "clusters of metadata are counted as free");
        if (code < 0 || (*ret && (s->l1[i] & QE_COPIED)))
            return code;
        pthread_mutex_lock(&s->lock);
        *ret = qcow2_l2_own_l(s, i);
        pthread_mutex_unlock(&s->lock);
        if (*ret)
            return 0;
        /* The refcount block was missing: bring it in by allocating, and give that back. */
        bool fresh;
        int64_t probe = qcow2_alloc_m(s, 1, &fresh);
        if (probe < 0)
            return (int)probe;
        code = qcow2_refcount_add_m(s, (uint64_t)probe >> s->cluster_bits, 1, -1);
        if (code < 0)
            return code;
    }
}

int qcow2_rb_get_m(struct qcow2 *s, uint64_t i, struct qtable **ret)
{
    struct qtable *t = NULL;
    *ret = NULL;
    if (i >= s->rt_size)
        return 0;
    uint64_t offset = s->rt[i] & QE_OFFSET;
    if (s->rb[i]) {
        s->rb[i]->used = ++s->clock;
        *ret = s->rb[i];
        return 0;
    }
    if (!offset)
        return 0;
    if (offset % s->cluster_size)
        return qcow2_corrupt(s, "Refblock offset %#llx unaligned (reftable index: %#llx)", (unsigned long long)offset,
                             (unsigned long long)i);
    int code = load(s, offset, &t);
    if (code < 0)
        return code;
    pthread_mutex_lock(&s->lock);
    s->rb[i] = t;
    s->rb_cached++;
    pthread_mutex_unlock(&s->lock);
    *ret = t;
    return 0;
}
