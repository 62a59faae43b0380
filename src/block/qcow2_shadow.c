/* See qcow2.h. `meta` is held, no request is under way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

static unsigned rb_bits(const struct qshadow *h)
{
    return h->s->cluster_bits + 3 - h->order;
}

/* The width decides how blocks are read: one struct with the new width for the accessors. */
static struct qcow2 width(const struct qshadow *h)
{
    struct qcow2 w = {.refcount_order = h->order};
    w.max_refcount = h->order == 6 ? INT64_MAX : BIT64(BIT(h->order)) - 1;
    return w;
}

int qcow2_shadow_begin_m(struct qcow2 *s, struct qshadow *ret)
{
    *ret = (struct qshadow){.s = s, .order = s->refcount_order};
    int code = 0;
    for (unsigned i = 0; i < 4 && code == 0; i++) { /* what one round sets free makes the next one */
        code = qcow2_writeback_m(s);
        if (!s->dirty_tables && !s->frees.n && !s->have_grace && !s->l1_is_dirty && !s->rt_is_dirty)
            break;
    }
    if (code < 0)
        return code;
    if (s->pending || atomic_load(&s->inflight[0]) || atomic_load(&s->inflight[1]) || s->frees.n || s->have_grace)
        return -EBUSY;
    ret->n = s->rt_size;
    ret->block = calloc(ret->n + 1, sizeof *ret->block);
    ret->where = calloc(ret->n + 1, sizeof *ret->where);
    if (!ret->block || !ret->where)
        return -ENOMEM;
    memcpy(ret->where, s->rt, ret->n * sizeof *ret->where);
    return 0;
}

void qcow2_shadow_free(struct qshadow *h)
{
    for (uint64_t i = 0; h->block && i < h->n; i++)
        free(h->block[i]);
    free(h->block);
    free(h->where);
    h->block = NULL;
    h->where = NULL;
}

static int grow(struct qshadow *h, uint64_t n)
{
    if (n > Q_RT_BYTES_MAX / 8)
        return -EFBIG;
    n = MIN(MAX(n, h->n + h->n / 2), Q_RT_BYTES_MAX / 8);
    uint8_t **b = realloc(h->block, (n + 1) * sizeof *b);
    if (b)
        h->block = b;
    uint64_t *w = realloc(h->where, (n + 1) * sizeof *w);
    if (w)
        h->where = w;
    if (!b || !w)
        return -ENOMEM;
    memset(b + h->n, 0, (n + 1 - h->n) * sizeof *b);
    memset(w + h->n, 0, (n + 1 - h->n) * sizeof *w);
    h->n = n;
    return 0;
}

int qcow2_shadow_get_m(struct qshadow *h, uint64_t index, uint64_t *ret)
{
    uint64_t i = index >> rb_bits(h), k = index & (BIT64(rb_bits(h)) - 1);
    struct qcow2 w = width(h);
    *ret = 0;
    if (i >= h->n)
        return 0;
    if (h->block[i])
        *ret = qcow2_rb_value(&w, h->block[i], k);
    else if (!h->rebuild && h->order == h->s->refcount_order)
        return qcow2_refcount_m(h->s, index, ret);
    return 0;
}

int qcow2_shadow_set_m(struct qshadow *h, uint64_t index, uint64_t value)
{
    uint64_t i = index >> rb_bits(h), k = index & (BIT64(rb_bits(h)) - 1);
    struct qcow2 w = width(h);
    if (value > w.max_refcount)
        return -ERANGE;
    if (i >= h->n) {
        int code = grow(h, i + 1);
        if (code < 0)
            return code;
    }
    if (!h->block[i]) {
        struct qtable *t = NULL;
        if (!h->rebuild && h->order == h->s->refcount_order) {
            int code = qcow2_rb_get_m(h->s, i, &t);
            if (code < 0)
                return code;
        }
        h->block[i] = calloc(1, h->s->cluster_size);
        if (!h->block[i])
            return -ENOMEM;
        if (t)
            memcpy(h->block[i], t->data, h->s->cluster_size);
    }
    qcow2_rb_put(&w, h->block[i], k, value);
    return 0;
}

int qcow2_shadow_add_m(struct qshadow *h, uint64_t index, uint64_t n, int64_t delta)
{
    for (uint64_t i = index; i < index + n; i++) {
        uint64_t old;
        int code = qcow2_shadow_get_m(h, i, &old);
        if (code == 0 && delta < 0 && old < (uint64_t)-delta)
            code = qcow2_corrupt(h->s, "the refcount of cluster %llu would fall below 0", (unsigned long long)i);
        if (code == 0)
            code = qcow2_shadow_set_m(h, i, old + (uint64_t)delta);
        if (code < 0)
            return code;
    }
    return 0;
}

static int is_free(struct qshadow *h, uint64_t index)
{
    uint64_t new_count, old = 0;
    if (h->used && h->used(h->opaque, index))
        return 0;
    int code = qcow2_shadow_get_m(h, index, &new_count);
    if (code == 0 && !h->rebuild)
        code = qcow2_refcount_m(h->s, index, &old);
    return code < 0 ? code : !new_count && !old && index;
}

int64_t qcow2_shadow_alloc_m(struct qshadow *h, uint64_t n)
{
    uint64_t start = MAX(h->cursor, 1), have = 0;
    for (uint64_t i = start; have < n; i++) {
        int f = is_free(h, i);
        if (f < 0)
            return f;
        have = f ? have + 1 : 0;
        if (!f) {
            start = i + 1;
            if (n == 1)
                h->cursor = start;
        }
        if (i << h->s->cluster_bits > Q_OFFSET_MAX)
            return -EFBIG;
    }
    for (uint64_t i = start; i < start + n; i++) {
        int code = qcow2_shadow_set_m(h, i, 1);
        if (code < 0)
            return code;
    }
    /* They are written even if the switch then fails. */
    if (h->s->fresh_from != UINT64_MAX)
        h->s->fresh_from = MAX(h->s->fresh_from, start + n);
    return (int64_t)(start << h->s->cluster_bits);
}

static int write_table(struct qshadow *h, uint64_t offset, uint64_t entries)
{
    autofree uint8_t *raw = calloc(entries, 8);
    if (!raw)
        return -ENOMEM;
    for (uint64_t i = 0; i < MIN(entries, h->n); i++)
        be64_put(raw + i * 8, h->where[i]);
    return blk_pwrite(h->s->file, offset, raw, entries * 8, 0);
}

int qcow2_shadow_commit_m(struct qshadow *h)
{
    struct qcow2 *s = h->s;
    uint64_t per = s->cluster_size / 8, old_clusters = (uint64_t)s->rt_size / per, clusters = 0;
    int64_t table = 0, at;
    int code = 0;
    /* The old table and the old blocks of what changed go; in the new state, that is: nothing of theirs is reused yet. */
    if (!h->rebuild)
        code = qcow2_shadow_add_m(h, s->rt_offset >> s->cluster_bits, old_clusters, -1);
    bool *placed = calloc(1, Q_RT_BYTES_MAX / 8 + 1);
    if (!placed)
        return -ENOMEM;
    /* Placing a block may change further blocks, and lengthen the table: until nothing new comes up. */
    for (bool more = true; more && code == 0;) {
        more = false;
        if (!h->rebuild && h->order == s->refcount_order)
            for (uint64_t i = 0; i < h->n && code == 0; i++)
                if (h->block[i] && !placed[i] && i < s->rt_size && (s->rt[i] & QE_OFFSET) && h->where[i] == s->rt[i]) {
                    h->where[i] = 0;
                    code = qcow2_shadow_add_m(h, (s->rt[i] & QE_OFFSET) >> s->cluster_bits, 1, -1);
                }
        for (uint64_t i = 0; i < h->n && code == 0; i++) {
            if (!h->block[i] || placed[i])
                continue;
            at = qcow2_shadow_alloc_m(h, 1);
            code = at < 0 ? (int)at : 0;
            h->where[i] = (uint64_t)MAX(at, 0);
            placed[i] = more = true;
        }
        if (code == 0 && !more && clusters < (h->n + per - 1) / per) {
            for (uint64_t i = 0; i < clusters && code == 0; i++)
                code = qcow2_shadow_set_m(h, ((uint64_t)table >> s->cluster_bits) + i, 0);
            clusters = (h->n + per - 1) / per;
            table = code == 0 ? qcow2_shadow_alloc_m(h, clusters) : 0;
            code = table < 0 ? (int)table : code;
            more = true;
        }
    }
    for (uint64_t i = 0; i < h->n && code == 0; i++)
        if (placed[i])
            code = blk_pwrite(s->file, h->where[i], h->block[i], s->cluster_size, 0);
    free(placed);
    if (code == 0)
        code = write_table(h, (uint64_t)table, clusters * per);
    if (code < 0)
        return code;
    uint64_t old_offset = s->rt_offset;
    uint32_t old_size = s->rt_size;
    unsigned old_order = s->refcount_order;
    s->rt_offset = (uint64_t)table;
    s->rt_size = (uint32_t)(clusters * per);
    s->refcount_order = h->order;
    code = qcow2_write_header(s);
    if (code < 0) {
        s->rt_offset = old_offset;
        s->rt_size = old_size;
        s->refcount_order = old_order;
        return code;
    }
    uint32_t now = s->rt_size;
    s->rt_size = old_size;
    qcow2_drop_rb(s);
    s->rt_size = now;
    free(s->rt);
    free(s->rb);
    free(s->rt_dirty);
    s->rt = calloc((size_t)now + 1, sizeof *s->rt);
    s->rb = calloc((size_t)now + 1, sizeof *s->rb);
    s->rt_dirty = calloc((size_t)now / 64 + 1, 1);
    if (!s->rt || !s->rb || !s->rt_dirty)
        abort();
    memcpy(s->rt, h->where, MIN(h->n, now) * sizeof *s->rt);
    s->rt_is_dirty = false;
    qcow2_set_geometry(s);
    s->free_from = s->run_from = 0;
    s->comp_at = 0;
    if (s->fresh_from != UINT64_MAX)
        s->fresh_from = MAX(s->fresh_from, (s->file->size + s->cluster_size - 1) >> s->cluster_bits);
    return qcow2_meta_build(s);
}
