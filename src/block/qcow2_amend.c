/* qcow2: changing what an image was created with: version, refcount width, lazy refcounts, size, backing and data file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

/* All refcounts in another width, then one switch. */
static int change_width_m(struct qcow2 *s, unsigned order, blk_progress_fn *progress, void *opaque, struct err *err)
{
    struct qshadow h;
    int code = qcow2_shadow_begin_m(s, &h);
    if (code < 0)
        return err_errno(err, code, "Could not write the metadata");
    uint64_t old_size = s->rt_size;
    h.order = order;
    memset(h.where, 0, h.n * sizeof *h.where);
    for (uint64_t i = 0; i < old_size && code == 0; i++) {
        struct qtable *t;
        code = qcow2_rb_get_m(s, i, &t);
        for (uint64_t k = 0; t && k < BIT64(s->rb_bits) && code == 0; k++) {
            uint64_t v = qcow2_rb_value(s, t->data, k), at = (i << s->rb_bits) + k;
            /* The blocks themselves are not carried over: they are free in the new state. */
            if (v && at != (s->rt[i] & QE_OFFSET) >> s->cluster_bits)
                code = qcow2_shadow_set_m(&h, at, v);
        }
        if (progress)
            progress(opaque, i, old_size);
    }
    /* Blocks that lie in the range of others. */
    for (uint64_t i = 0; i < old_size && code == 0; i++)
        if (s->rt[i] & QE_OFFSET)
            code = qcow2_shadow_set_m(&h, (s->rt[i] & QE_OFFSET) >> s->cluster_bits, 0);
    if (code == 0)
        code = qcow2_shadow_commit_m(&h);
    qcow2_shadow_free(&h);
    if (code == -ERANGE)
        return err_set(err, -EINVAL, "Cannot decrease refcount entry width to %u bits: a cluster's refcount exceeds the maximum", BIT(order));
    return code < 0 ? err_errno(err, code, "Could not change the refcount width") : 0;
}

static int downgrade(struct qcow2 *s, struct err *err)
{
    struct blk_node *n = s->node;
    if (s->incompatible & ~(BIT64(QI_DIRTY)))
        return err_set(err, -ENOTSUP, "Cannot downgrade an image with incompatible features set");
    if (s->refcount_order != 4)
        return err_set(err, -ENOTSUP, "compat=0.10 requires refcount_bits=16");
    if (s->n_bitmaps)
        return err_set(err, -ENOTSUP, "Cannot downgrade an image with bitmaps");
    for (uint32_t i = 0; i < s->n_snaps; i++)
        if (s->snaps[i].sn.disk_size != n->size)
            return err_set(err, -ENOTSUP, "Internal snapshots prevent downgrade of image");
    /* Zero clusters are unknown to version 2: written out, or unallocated where nothing is behind. */
    uint64_t at = 0;
    int code = 0;
    if (s->n_snaps) {
        struct qrun run;
        for (; at < n->size && code == 0; at += run.len)
            if ((code = qcow2_run(s, at, n->size - at, &run)) == 0 && run.kind == QK_ZERO)
                return err_set(err, -ENOTSUP, "Cannot downgrade an image with zero clusters and snapshots");
    }
    autofree uint8_t *zeroes = calloc(1, s->cluster_size);
    for (at = 0; at < n->size && code == 0 && zeroes;) {
        struct qrun run;
        code = qcow2_run(s, at, n->size - at, &run);
        if (code < 0)
            break;
        if (run.kind == QK_ZERO) {
            run.len = MIN(run.len, s->cluster_size - at % s->cluster_size);
            if (n->backing_file)
                code = blk_pwrite(n, at, zeroes, run.len, 0);
            else
                code = qcow2_drop_range(s, ALIGN_DOWN(at, s->cluster_size), s->cluster_size, true);
        }
        at += run.len;
    }
    if (code == 0)
        code = blk_pflush(n);
    if (code == 0)
        code = blk_pflush(n);
    if (code == 0) {
        s->version = 2;
        s->compatible = s->incompatible = s->autoclear = 0;
        code = qcow2_write_header(s);
        qcow2_set_geometry(s);
    }
    return code < 0 ? err_errno(err, code, "Could not downgrade the image") : 0;
}

int qcow2_amend(struct blk_node *n, struct blk_opts *opts, blk_progress_fn *progress, void *opaque, bool force,
                struct err *err)
{
    struct qcow2 *s = n->priv;
    const char *compat = blk_opts_get(opts, "compat"), *backing = blk_opts_get(opts, "backing_file"),
               *format = blk_opts_get(opts, "backing_fmt"), *data = blk_opts_get(opts, "data_file");
    uint64_t size, bits;
    bool lazy, raw;
    int code = blk_opts_size(opts, "size", n->size, &size, err);
    if (code == 0)
        code = blk_opts_size(opts, "refcount_bits", BIT(s->refcount_order), &bits, err);
    if (code == 0)
        code = blk_opts_bool(opts, "lazy_refcounts", s->compatible & BIT64(QC_LAZY), &lazy, err);
    if (code == 0)
        code = blk_opts_bool(opts, "data_file_raw", s->data_raw, &raw, err);
    if (code < 0)
        return code;
    unsigned version = s->version;
    if (compat && (!strcmp(compat, "0.10") || !strcmp(compat, "v2")))
        version = 2;
    else if (compat && (!strcmp(compat, "1.1") || !strcmp(compat, "v3")))
        version = 3;
    else if (compat)
        return err_set(err, -EINVAL, "Unknown compatibility level %s", compat);
    if (!bits || bits > 64 || bits & (bits - 1))
        return err_set(err, -EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
    if (raw && !s->data_raw)
        return err_set(err, -EINVAL, "data-file-raw cannot be set on existing images");
    if (data && !(s->incompatible & BIT64(QI_DATA_FILE)))
        return err_set(err, -EINVAL, "data-file can only be set for images that use an external data file");
    if (version < 3 && (lazy || bits != 16) && (blk_opts_has(opts, "lazy_refcounts") || bits != 16))
        return err_set(err, -EINVAL, bits != 16 ? "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)"
                                                : "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
    if (version > s->version) {
        s->version = version;
        s->header_len = 112;
        pthread_mutex_lock(&s->meta);
        code = qcow2_write_header(s);
        pthread_mutex_unlock(&s->meta);
        if (code < 0) {
            s->version = 2;
            s->header_len = 72;
            return err_errno(err, code, "Could not upgrade the image");
        }
        qcow2_set_geometry(s);
    }
    if (bits != BIT(s->refcount_order)) {
        pthread_mutex_lock(&s->meta);
        code = change_width_m(s, (unsigned)__builtin_ctzll(bits), progress, opaque, err);
        pthread_mutex_unlock(&s->meta);
        if (code < 0)
            return code;
    }
    if (data) {
        free(s->data_file_name);
        s->data_file_name = *data ? xstrdup(data) : NULL;
    }
    uint64_t compatible = lazy ? s->compatible | BIT64(QC_LAZY) : s->compatible & ~BIT64(QC_LAZY);
    uint64_t autoclear = raw ? s->autoclear : s->autoclear & ~BIT64(QA_DATA_RAW);
    if (version >= 3 && (compatible != s->compatible || autoclear != s->autoclear || data)) {
        s->compatible = compatible;
        s->autoclear = autoclear;
        s->data_raw = raw;
        pthread_mutex_lock(&s->meta);
        code = qcow2_write_header(s);
        pthread_mutex_unlock(&s->meta);
        if (code < 0)
            return err_errno(err, code, "Could not change the features");
    }
    if (backing || format) {
        code = qcow2_change_backing_file(n, backing ? backing : n->backing_file, format ? format : n->backing_format, err);
        if (code < 0)
            return code;
    }
    if (size != n->size) {
        code = qcow2_truncate(n, size, BLK_PREALLOC_OFF, err);
        if (code < 0)
            return code;
    }
    if (version < s->version)
        code = downgrade(s, err);
    if (progress && code == 0)
        progress(opaque, 1, 1);
    return code;
}
