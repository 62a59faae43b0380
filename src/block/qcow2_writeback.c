/* qcow2: writing metadata, in the order that qcow2.h describes. `meta` is held throughout. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

/* One write to do. */
struct piece {
    uint64_t offset;
    size_t len;
    uint8_t *data;
};
struct batch {
    struct piece *v;
    size_t n, cap;
};

static void batch_add(struct batch *b, uint64_t offset, const uint8_t *data, size_t len)
{
    if (b->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 16;
        b->v = realloc(b->v, b->cap * sizeof *b->v);
        if (!b->v)
            abort();
    }
    uint8_t *copy = malloc(len);
    if (!copy)
        abort();
    memcpy(copy, data, len);
    b->v[b->n++] = (struct piece){offset, len, copy};
}

static void batch_free(struct batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        free(b->v[i].data);
    free(b->v);
}

static int batch_write(struct qcow2 *s, const struct batch *b)
{
    int code = 0;
    for (size_t i = 0; i < b->n && code == 0; i++)
        code = blk_pwrite(s->file, b->v[i].offset, b->v[i].data, b->v[i].len, 0);
    return code;
}

int qcow2_barrier(struct qcow2 *s)
{
    int code = blk_pflush(s->file);
    if (code == 0 && q_external(s))
        code = blk_pflush(s->data);
    return code;
}

/* Takes the dirty granules of a table, neighbours together, and calls it clean. Lock held. */
static void take_table(struct qcow2 *s, struct qtable *t, struct batch *b)
{
    size_t granules = (s->cluster_size + Q_GRANULE - 1) / Q_GRANULE, unit = MIN(s->cluster_size, (uint64_t)Q_GRANULE);
    for (size_t g = 0; g < granules;) {
        size_t from = g;
        while (g < granules && (t->dirty[g / 64] & BIT64(g % 64)))
            g++;
        if (g > from)
            batch_add(b, t->offset + from * unit, t->data + from * unit, (g - from) * unit);
        else
            g++;
    }
    memset(t->dirty, 0, sizeof t->dirty);
    t->is_dirty = false;
    s->dirty_tables--;
}

static void take_words(struct qcow2 *s, const uint64_t *words, uint32_t n, uint8_t *dirty, uint64_t offset,
                       struct batch *b)
{
    for (uint32_t g = 0; g < (n + 63) / 64; g++) {
        if (!dirty[g])
            continue;
        uint8_t raw[512];
        uint32_t k = MIN(64u, n - g * 64);
        for (uint32_t i = 0; i < k; i++)
            be64_put(raw + i * 8, words[g * 64 + i]);
        batch_add(b, offset + (uint64_t)g * 512, raw, (size_t)k * 8);
        dirty[g] = 0;
    }
}

/* What could not be written is dirty again, as a whole. */
static void undo(struct qcow2 *s, int code)
{
    for (uint32_t i = 0; i < s->l1_size; i++) {
        if (s->l2[i])
            qcow2_table_dirty_l(s, s->l2[i], 0, s->cluster_size);
    }
    for (uint32_t i = 0; i < s->rt_size; i++)
        if (s->rb[i])
            qcow2_table_dirty_l(s, s->rb[i], 0, s->cluster_size);
    memset(s->l1_dirty, 1, s->l1_size / 64 + 1);
    memset(s->rt_dirty, 1, s->rt_size / 64 + 1);
    s->l1_is_dirty = s->rt_is_dirty = true;
}

/* What was new when the round began is old now. */
static void settle(struct qcow2 *s, uint64_t round)
{
    for (uint32_t i = 0; i < s->l1_size; i++)
        if (s->l2[i] && s->l2[i]->fresh <= round)
            s->l2[i]->fresh = 0;
    for (uint32_t i = 0; i < s->rt_size; i++)
        if (s->rb[i] && s->rb[i]->fresh <= round)
            s->rb[i]->fresh = 0;
}

static void frees_append(struct qfrees *to, struct qfrees *from)
{
    for (size_t i = 0; i < from->n; i++) {
        if (to->n == to->cap) {
            to->cap = to->cap ? to->cap * 2 : 64;
            to->v = realloc(to->v, to->cap * sizeof *to->v);
            if (!to->v)
                abort();
        }
        to->v[to->n++] = from->v[i];
    }
    free(from->v);
    *from = (struct qfrees){0};
}

int qcow2_writeback_m(struct qcow2 *s)
{
    struct batch blocks = {0}, first = {0}, second = {0};
    struct qfrees freed = {0};
    if (s->corrupt)
        return -EIO;
    int code = s->unsettled ? qcow2_barrier(s) : 0;
    if (code == 0) {
        s->unsettled = false;
        code = qcow2_apply_frees_m(s);
    }
    if (code < 0)
        return code;
    pthread_mutex_lock(&s->lock);
    /* All of it as of one moment: references are never newer than the refcounts they need. */
    if (s->dirty_tables) {
        for (uint32_t i = 0; i < s->rt_size; i++)
            if (s->rb[i] && s->rb[i]->is_dirty)
                take_table(s, s->rb[i], s->rb[i]->fresh ? &blocks : &first);
        for (uint32_t i = 0; i < s->l1_size; i++)
            if (s->l2[i] && s->l2[i]->is_dirty)
                take_table(s, s->l2[i], s->l2[i]->fresh ? &first : &second);
    }
    if (s->rt_is_dirty)
        take_words(s, s->rt, s->rt_size, s->rt_dirty, s->rt_offset, &first);
    if (s->l1_is_dirty)
        take_words(s, s->l1, s->l1_size, s->l1_dirty, s->l1_offset, &second);
    s->rt_is_dirty = s->l1_is_dirty = false;
    uint64_t end = s->end, round = s->round++;
    bool any_fresh = s->fresh_tables, moved = s->rt_moved;
    s->fresh_tables = false;
    if (!s->have_grace) {
        freed = s->frees;
        s->frees = (struct qfrees){0};
        if (freed.n && !atomic_load(&s->inflight[(s->epoch + 1) & 1])) {
            s->grace_epoch = s->epoch;
            s->epoch++;
        } else if (freed.n) {
            s->frees = freed;
            freed = (struct qfrees){0};
        }
    }
    pthread_mutex_unlock(&s->lock);

    if (blocks.n) {
        code = batch_write(s, &blocks);
        if (code == 0)
            code = qcow2_barrier(s);
    }
    if (code == 0)
        code = batch_write(s, &first);
    /* References may name clusters that no write has reached yet: the file has to be long enough for them. */
    if (code == 0 && second.n)
        code = blk_grow(s->file, end);
    if (code == 0 && (first.n || second.n))
        code = qcow2_barrier(s);
    if (code == 0 && moved) {
        code = qcow2_write_header(s);
        if (code == 0)
            s->rt_moved = false;
    }
    if (code == 0 && second.n) {
        code = batch_write(s, &second);
        if (code == 0)
            code = qcow2_barrier(s);
    }
    pthread_mutex_lock(&s->lock);
    if (code == 0 && any_fresh)
        settle(s, round);
    if (code < 0) {
        s->fresh_tables |= any_fresh;
        undo(s, code);
        struct qfrees all = freed;
        frees_append(&all, &s->frees);
        s->frees = all;
    } else if (freed.n) {
        s->grace = freed;
        s->have_grace = true;
    } else {
        free(freed.v);
    }
    pthread_mutex_unlock(&s->lock);
    batch_free(&blocks);
    batch_free(&first);
    batch_free(&second);
    return code < 0 ? code : qcow2_apply_frees_m(s);
}

int qcow2_pflush(struct blk_node *n)
{
    struct qcow2 *s = n->priv;
    int code = 0;
    pthread_mutex_lock(&s->lock);
    bool clean = !s->dirty_tables && !s->l1_is_dirty && !s->rt_is_dirty && !s->frees.n;
    pthread_mutex_unlock(&s->lock);
    if (clean)
        return s->corrupt ? -EIO : 0;
    pthread_mutex_lock(&s->meta);
    code = qcow2_writeback_m(s);
    pthread_mutex_unlock(&s->meta);
    return code;
}
