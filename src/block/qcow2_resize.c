/* qcow2: changing the disk's size, growing tables, preallocation. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/file.h"
#include "block/qcow2.h"

int qcow2_grow_rt_m(struct qcow2 *s, uint64_t entries)
{
    uint64_t per = s->cluster_size / 8, n = ALIGN_UP(MAX(entries, (uint64_t)s->rt_size + s->rt_size / 2), per);
    if (entries * 8 > Q_RT_BYTES_MAX)
        return -EFBIG;
    n = MIN(n, Q_RT_BYTES_MAX / 8);
    /*
     * The table grows in memory first, so that blocks for what lies behind its old end can be made; the table on disk
     * follows, with a switch of the header, before any of them is referred to.
     */
    uint64_t *rt = calloc(n + 1, 8);
    struct qtable **rb = calloc(n + 1, sizeof *rb);
    uint8_t *dirty = calloc(n / 64 + 1, 1);
    if (!rt || !rb || !dirty) {
        free(rt);
        free(rb);
        free(dirty);
        return -ENOMEM;
    }
    pthread_mutex_lock(&s->lock);
    memcpy(rt, s->rt, (size_t)s->rt_size * 8);
    memcpy(rb, s->rb, s->rt_size * sizeof *rb);
    free(s->rt);
    free(s->rb);
    free(s->rt_dirty);
    s->rt = rt;
    s->rb = rb;
    s->rt_dirty = dirty;
    uint64_t old_offset = s->rt_offset, old_n = s->rt_size;
    s->rt_size = (uint32_t)n;
    pthread_mutex_unlock(&s->lock);
    int64_t at = qcow2_alloc_m(s, n / per, NULL);
    if (at < 0)
        return (int)at;
    pthread_mutex_lock(&s->lock);
    s->rt_offset = (uint64_t)at;
    memset(s->rt_dirty, 1, n / 64 + 1); /* all of it goes to the new place */
    s->rt_is_dirty = true;
    for (uint64_t i = 0; i < n / per; i++)
        qcow2_meta_add_l(s, (uint64_t)at + i * s->cluster_size);
    s->rt_moved = true;
    qcow2_free_later_l(s, old_offset, old_n * 8);
    pthread_mutex_unlock(&s->lock);
    return qcow2_writeback_m(s);
}

int qcow2_grow_l1_m(struct qcow2 *s, uint64_t entries, uint64_t new_size)
{
    if (entries <= s->l1_size)
        return 0;
    if (entries * 8 > Q_L1_BYTES_MAX)
        return -EFBIG;
    uint64_t n = entries, bytes = ALIGN_UP(n * 8, s->cluster_size);
    int64_t at = qcow2_alloc_m(s, bytes >> s->cluster_bits, NULL);
    if (at < 0)
        return (int)at;
    int code = qcow2_writeback_m(s);
    if (code == 0 && s->l1_is_dirty)
        code = qcow2_writeback_m(s);
    autofree uint8_t *raw = calloc(1, bytes);
    if (!raw)
        return -ENOMEM;
    uint64_t *l1 = calloc(n + 1, 8);
    struct qtable **l2 = calloc(n + 1, sizeof *l2);
    uint8_t *dirty = calloc(n / 64 + 1, 1);
    if (!l1 || !l2 || !dirty)
        abort();
    pthread_mutex_lock(&s->lock);
    memcpy(l1, s->l1, (size_t)s->l1_size * 8);
    memcpy(l2, s->l2, s->l1_size * sizeof *l2);
    for (uint64_t i = 0; i < n; i++)
        be64_put(raw + i * 8, l1[i]);
    pthread_mutex_unlock(&s->lock);
    if (code == 0)
        code = blk_pwrite(s->file, (uint64_t)at, raw, bytes, 0);
    uint64_t old = s->l1_offset, old_size = s->l1_size, old_disk = s->node->size;
    if (code == 0) {
        s->l1_offset = (uint64_t)at;
        s->l1_size = (uint32_t)n;
        s->node->size = new_size;
        code = qcow2_write_header(s);
        if (code < 0) {
            s->l1_offset = old;
            s->l1_size = (uint32_t)old_size;
            s->node->size = old_disk;
        }
    }
    pthread_mutex_lock(&s->lock);
    if (code == 0) {
        free(s->l1);
        free(s->l2);
        free(s->l1_dirty);
        s->l1 = l1;
        s->l2 = l2;
        s->l1_dirty = dirty;
        if (old_size)
            qcow2_free_later_l(s, old, old_size * 8);
        for (uint64_t i = 0; i < bytes; i += s->cluster_size)
            qcow2_meta_add_l(s, (uint64_t)at + i);
    } else {
        qcow2_free_later_l(s, (uint64_t)at, bytes);
        free(l1);
        free(l2);
        free(dirty);
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

static uint64_t l1_for(const struct qcow2 *s, uint64_t size)
{
    uint64_t covers = BIT64(s->l2_bits + s->cluster_bits);
    return (size + covers - 1) / covers;
}

/* The header with a new size, and bitmaps that fit it, in one step. */
static int switch_size(struct qcow2 *s, uint64_t size)
{
    struct qfrees old = {0};
    uint64_t before = s->node->size;
    pthread_mutex_lock(&s->meta);
    int code = s->n_bitmaps && size != before ? qcow2_bitmaps_write_m(s, size, &old) : 0;
    if (code == 0) {
        s->node->size = size;
        code = qcow2_write_header(s);
        if (code < 0)
            s->node->size = before;
    }
    qcow2_bitmaps_settle(s, &old, code == 0);
    pthread_mutex_unlock(&s->meta);
    return code;
}

/* Allocates clusters for the guest's bytes [from, to), which read as they did. */
int qcow2_preallocate(struct qcow2 *s, uint64_t from, uint64_t to, enum blk_prealloc mode, struct err *err)
{
    uint64_t data_end = 0;
    int code = 0;
    if (mode == BLK_PREALLOC_OFF)
        return 0;
    for (uint64_t at = ALIGN_DOWN(from, s->cluster_size); at < to && code == 0;) {
        struct qrun run;
        struct qtable *t;
        code = qcow2_run(s, at, to - at, &run);
        if (code < 0 || run.kind != QK_UNALLOC) {
            at = ALIGN_DOWN(at + (code < 0 ? 1 : run.len) - 1, s->cluster_size) + s->cluster_size;
            continue;
        }
        uint64_t n = MIN((run.len + s->cluster_size - 1) >> s->cluster_bits, (uint64_t)4096);
        pthread_mutex_lock(&s->meta);
        code = qcow2_l2_own_m(s, q_l1_index(s, at), &t);
        bool fresh = false;
        int64_t host = code == 0 ? q_external(s) ? (int64_t)at : qcow2_alloc_m(s, n, &fresh) : code;
        if (host < 0) {
            code = (int)host;
        } else {
            pthread_mutex_lock(&s->lock);
            for (uint64_t k = 0; k < n; k++)
                qcow2_entry_set_l(s, t, q_l2_index(s, at + k * s->cluster_size),
                                  ((uint64_t)host + k * s->cluster_size) | QE_COPIED, s->extl2 ? 0xffffffff : 0);
            pthread_mutex_unlock(&s->lock);
            if (!q_external(s) && !fresh && mode != BLK_PREALLOC_FULL)
                code = blk_pwrite_zeroes(s->data, (uint64_t)host, n * s->cluster_size, BLK_F_UNMAP);
            if (mode == BLK_PREALLOC_FULL && !q_external(s)) {
                enum { CHUNK = 1 << 20 };
                autofree char *zero = calloc(1, CHUNK);
                for (uint64_t b = 0; zero && b < n * s->cluster_size && code == 0; b += CHUNK)
                    code = blk_pwrite(s->data, (uint64_t)host + b, zero, MIN(n * s->cluster_size - b, (uint64_t)CHUNK), 0);
            } else if (mode == BLK_PREALLOC_FALLOC && !q_external(s) && s->data->drv->get_file) {
                struct file *f = s->data->drv->get_file(s->data);
                if (posix_fallocate(f->fd, (off_t)host, (off_t)(n * s->cluster_size)))
                    code = -ENOSPC;
            }
            data_end = MAX(data_end, (uint64_t)host + n * s->cluster_size);
        }
        pthread_mutex_unlock(&s->meta);
        at += n * s->cluster_size;
    }
    if (code == 0)
        code = blk_grow(s->data, data_end);
    if (code == 0)
        code = blk_pflush(s->node);
    return code < 0 ? err_errno(err, code, "Could not preallocate data clusters") : 0;
}

static int shrink(struct qcow2 *s, uint64_t size, struct err *err)
{
    uint64_t old = s->node->size, from = ALIGN_UP(size, s->cluster_size);
    int code = blk_pflush(s->node);
    /* First the header says so: a cut leaves clusters that nobody can reach, but that are counted. */
    if (code == 0)
        code = switch_size(s, size);
    if (code < 0)
        return err_errno(err, code, "Failed to update the image size");
    if (from < old)
        code = qcow2_drop_range(s, from, ALIGN_UP(old, s->cluster_size) - from, true);
    if (code < 0)
        return err_errno(err, code, "Failed to discard cropped clusters");
    /* L2 tables wholly behind the end. */
    pthread_mutex_lock(&s->meta);
    for (uint64_t i = l1_for(s, size); i < s->l1_size && code == 0; i++) {
        struct qtable *t;
        if (i < l1_for(s, old) && (code = qcow2_l2_get_m(s, (uint32_t)i, &t)) == 0 && t) {
            code = qcow2_l2_own_m(s, (uint32_t)i, &t);
            if (code < 0)
                break;
            pthread_mutex_lock(&s->lock);
            if (!t->pins) {
                qcow2_free_later_l(s, t->offset, s->cluster_size);
                if (t->is_dirty)
                    s->dirty_tables--;
                qcow2_table_free(t);
                s->l2[i] = NULL;
                s->l2_cached--;
                qcow2_l1_set_l(s, (uint32_t)i, 0);
            }
            pthread_mutex_unlock(&s->lock);
        }
    }
    pthread_mutex_unlock(&s->meta);
    for (unsigned i = 0; i < 2 && code == 0; i++)
        code = blk_pflush(s->node);
    if (code < 0)
        return err_errno(err, code, "Failed to write the metadata of the smaller image");
    /* What is left behind the last cluster in use. */
    pthread_mutex_lock(&s->meta);
    uint64_t end = 0;
    for (uint64_t i = s->rt_size; i-- > 0 && !end && code == 0;) {
        struct qtable *t;
        code = qcow2_rb_get_m(s, i, &t);
        for (uint64_t k = BIT64(s->rb_bits); t && k-- > 0 && !end;)
            if (qcow2_rb_value(s, t->data, k))
                end = ((i << s->rb_bits) + k + 1) << s->cluster_bits;
    }
    pthread_mutex_lock(&s->lock);
    s->end = end;
    pthread_mutex_unlock(&s->lock);
    if (code == 0 && end && end < s->file->size)
        code = blk_truncate(s->file, end, BLK_PREALLOC_OFF, true, err);
    if (code == 0 && s->fresh_from != UINT64_MAX)
        s->fresh_from = end >> s->cluster_bits;
    pthread_mutex_unlock(&s->meta);
    return code;
}

int qcow2_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err)
{
    struct qcow2 *s = n->priv;
    uint64_t old = n->size;
    int code;
    if (size % 512)
        return err_set(err, -EINVAL, "The new size must be a multiple of 512");
    if (s->version < 3 && s->n_snaps)
        return err_set(err, -ENOTSUP, "Can't resize a v2 image which has snapshots");
    if (size < old) {
        if (prealloc != BLK_PREALLOC_OFF)
            return err_set(err, -EINVAL, "Preallocation can't be used for shrinking an image");
        return shrink(s, size, err);
    }
    if (l1_for(s, size) * 8 > Q_L1_BYTES_MAX)
        return err_set(err, -EFBIG, "Failed to grow the L1 table: File too large");
    /* What a backing file has behind the old end must not come to light. */
    bool hide = blk_node_backing(n) && blk_node_backing(n)->size > old;
    pthread_mutex_lock(&s->meta);
    if (l1_for(s, size) > s->l1_size) {
        code = qcow2_grow_l1_m(s, l1_for(s, size), old);
    } else {
        code = 0;
    }
    pthread_mutex_unlock(&s->meta);
    if (code == 0 && q_external(s) && s->data->size < size)
        code = blk_truncate(s->data, size, prealloc == BLK_PREALLOC_METADATA ? BLK_PREALLOC_OFF : prealloc, false, err);
    if (code == 0 && hide && old < size) {
        n->size = size;
        uint64_t end = MIN(size, ALIGN_UP(atomic_load(&blk_node_backing(n)->size), s->cluster_size));
        code = blk_pwrite_zeroes(n, old, end - old, BLK_F_UNMAP);
        if (code == 0)
            code = blk_pflush(n);
        n->size = old;
    } else if (code == 0 && old % s->cluster_size && old < size) {
        /* The rest of the last cluster may hold anything. */
        n->size = size;
        code = blk_pwrite_zeroes(n, old, MIN(size, ALIGN_UP(old, s->cluster_size)) - old, 0);
        if (code == 0)
            code = blk_pflush(n);
        n->size = old;
    }
    if (code == 0 && prealloc != BLK_PREALLOC_OFF) {
        n->size = size;
        code = qcow2_preallocate(s, old, size, prealloc, err);
        n->size = old;
    }
    if (code == 0)
        code = switch_size(s, size);
    return code < 0 ? err_errno(err, code, "Failed to update the image size") : 0;
}
