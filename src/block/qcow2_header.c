/* qcow2: the header and its extensions; opening and closing. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "block/qcow2.h"

static const struct {
    uint8_t type, bit;
    const char *name;
} features[] = {
    /* The longer list stays out of the header: it has to fit into one sector with what else may come. */
    {0, QI_DIRTY, "dirty bit"},
    {0, QI_CORRUPT, "corrupt bit"},
    {0, QI_DATA_FILE, "external data file"},
    {0, QI_COMPRESSION, "compression type"},
    {0, QI_EXTL2, "extended L2 entries"},
    {1, QC_LAZY, "lazy refcounts"},
    {2, QA_BITMAPS, "bitmaps"},
    {2, QA_DATA_RAW, "raw external data"},
};

int qcow2_corrupt(struct qcow2 *s, const char *fmt, ...)
{
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (!s->corrupt) {
        s->corrupt = true;
        log_error("%s: the image is corrupt: %s; no more writes to it (check -r all repairs what can be)",
                  s->node->filename, what);
        if (s->writable && s->version >= 3) {
            uint8_t bits[8];
            be64_put(bits, s->incompatible | BIT64(QI_CORRUPT));
            if (blk_pwrite(s->file, 72, bits, 8, 0) == 0)
                blk_pflush(s->file);
        }
    }
    return -EIO;
}

void qcow2_set_geometry(struct qcow2 *s)
{
    s->cluster_size = BIT64(s->cluster_bits);
    s->extl2 = s->incompatible & BIT64(QI_EXTL2);
    s->entry_size = s->extl2 ? 16 : 8;
    s->l2_bits = s->cluster_bits - (s->extl2 ? 4 : 3);
    s->unit_bits = s->cluster_bits - (s->extl2 ? 5 : 0);
    s->rb_bits = s->cluster_bits + 3 - s->refcount_order;
    s->max_refcount = s->refcount_order == 6 ? INT64_MAX : BIT64(BIT(s->refcount_order)) - 1;
    s->v3_zero = s->version >= 3;
}

/* ---- writing ---- */

static size_t put_ext(uint8_t *buf, size_t at, size_t cap, uint32_t type, const void *data, uint32_t len)
{
    size_t need = 8 + ALIGN_UP((size_t)len, 8);
    if (at + need > cap)
        return SIZE_MAX;
    memset(buf + at, 0, need);
    be32_put(buf + at, type);
    be32_put(buf + at + 4, len);
    if (len)
        memcpy(buf + at + 8, data, len);
    return at + need;
}

static size_t put_features(uint8_t *buf, size_t at, size_t cap, size_t wish)
{
    uint8_t table[ARRAY_SIZE(features) * 48] = {0};
    size_t n = 0;
    while (n < ARRAY_SIZE(features) && at + 8 + (n + 1) * 48 + 8 <= wish) {
        table[n * 48] = features[n].type;
        table[n * 48 + 1] = features[n].bit;
        memcpy(table + n * 48 + 2, features[n].name, strlen(features[n].name));
        n++;
    }
    return n ? put_ext(buf, at, cap, QX_FEATURES, table, (uint32_t)(n * 48)) : at;
}

/*
 * Writes the header's first part. Where that fails, what the file has decides: the new header is in effect, the old one still
 * is, or (torn) neither can be told, and nothing more is written.
 */
static int switch_header(struct qcow2 *s, const uint8_t *buf, size_t len)
{
    uint8_t old[512], now[512];
    int code = blk_pread(s->file, 0, old, sizeof old);
    if (code < 0)
        return code;
    code = blk_pwrite(s->file, 0, buf, len, 0);
    if (code < 0) {
        if (blk_pread(s->file, 0, now, sizeof now) == 0 && !memcmp(now, old, sizeof old))
            return code;
        if (blk_pwrite(s->file, 0, old, sizeof old, 0) == 0)
            return code;
        s->corrupt = true;
        log_error("%s: the header could not be written (%s), nor put back: no more writes to this image",
                  s->node->filename, strerror(-code));
        return code;
    }
    /* It is in effect. Until it is durable, no cluster that the old one names may get another use. */
    s->unsettled = qcow2_barrier(s) < 0;
    return 0;
}

int qcow2_write_header(struct qcow2 *s)
{
    autofree uint8_t *buf = xcalloc(1, s->cluster_size);
    size_t cap = s->cluster_size, at = s->version >= 3 ? s->header_len : 72;
    const char *backing = s->node->backing_file;
    size_t blen = backing ? strlen(backing) : 0;
    if (s->version >= 3) { /* keep what later versions put behind the fields we know */
        uint8_t old[1024] = {0};
        size_t n = MIN(s->header_len, sizeof old);
        int code = n > 112 ? blk_pread(s->file, 0, old, n) : 0;
        if (code < 0)
            return code;
        if (n > 112)
            memcpy(buf + 112, old + 112, n - 112);
        be64_put(buf + 72, s->incompatible | (s->corrupt ? BIT64(QI_CORRUPT) : 0));
        be64_put(buf + 80, s->compatible);
        be64_put(buf + 88, s->autoclear);
        be32_put(buf + 96, s->refcount_order);
        be32_put(buf + 100, s->header_len);
        if (s->header_len > 104)
            buf[104] = s->compression;
    }
    be32_put(buf, QCOW2_MAGIC);
    be32_put(buf + 4, s->version);
    be32_put(buf + 20, s->cluster_bits);
    be64_put(buf + 24, s->node->size);
    be32_put(buf + 32, s->crypt);
    be32_put(buf + 36, s->l1_size);
    be64_put(buf + 40, s->l1_offset);
    be64_put(buf + 48, s->rt_offset);
    be32_put(buf + 56, (uint32_t)((uint64_t)s->rt_size * 8 >> s->cluster_bits));
    be32_put(buf + 60, s->n_snaps);
    be64_put(buf + 64, s->snaps_offset);
    if (s->node->backing_format)
        at = put_ext(buf, at, cap, QX_BACKING_FORMAT, s->node->backing_format,
                     (uint32_t)strlen(s->node->backing_format));
    if (at != SIZE_MAX && s->n_bitmaps) {
        uint8_t x[24] = {0};
        be32_put(x, s->n_bitmaps);
        be64_put(x + 8, s->bitmaps_size);
        be64_put(x + 16, s->bitmaps_offset);
        at = put_ext(buf, at, cap, QX_BITMAPS, x, sizeof x);
    }
    if (at != SIZE_MAX && s->data_file_name)
        at = put_ext(buf, at, cap, QX_DATA_FILE, s->data_file_name, (uint32_t)strlen(s->data_file_name));
    for (unsigned i = 0; i < s->n_exts && at != SIZE_MAX; i++)
        at = put_ext(buf, at, cap, s->exts[i].type, s->exts[i].data, s->exts[i].len);
    if (at != SIZE_MAX && s->version >= 3)
        at = put_features(buf, at, cap, cap > 512 ? 512 : cap - MIN(blen, cap)); /* the name has to fit, too */
    if (at != SIZE_MAX)
        at = put_ext(buf, at, cap, QX_END, NULL, 0);
    if (at == SIZE_MAX)
        return -ENOSPC;
    size_t head = at;
    if (blen) {
        /* A changed name goes beside the old one, so that the header's first sector always finds what it names. */
        size_t one = MAX(head, (size_t)512), where = one;
        if (s->backing_offset && where < s->backing_offset + 1024 && s->backing_offset < where + blen &&
            s->backing_offset + 1024 + blen <= cap)
            where = (size_t)s->backing_offset + 1024;
        if (where + blen > cap) {
            where = head;
            if (where + blen > cap)
                return -ENOSPC;
        }
        be64_put(buf + 8, where);
        be32_put(buf + 16, (uint32_t)blen);
        memcpy(buf + where, backing, blen);
        s->backing_offset = where;
        if (where >= 512) {
            int code = blk_pwrite(s->file, where, backing, blen, 0);
            if (code == 0)
                code = qcow2_barrier(s);
            if (code < 0)
                return code;
        } else {
            head = where + blen;
        }
    } else {
        s->backing_offset = 0;
    }
    int code = qcow2_barrier(s);
    if (code == 0 && head > 512) { /* what follows the first sector first */
        code = blk_pwrite(s->file, 512, buf + 512, head - 512, 0);
        if (code == 0)
            code = qcow2_barrier(s);
    }
    return code < 0 ? code : switch_header(s, buf, MIN(MAX(head, (size_t)512), s->cluster_size));
}

/* ---- reading ---- */

static void known_feature_name(const uint8_t *table, uint32_t len, unsigned bit, char name[47])
{
    for (uint32_t i = 0; i + 48 <= len; i += 48) {
        if (table[i] == 0 && table[i + 1] == bit) {
            memcpy(name, table + i + 2, 46);
            name[46] = 0;
            return;
        }
    }
    snprintf(name, 47, "incompatible bit %u", bit);
}

static int read_exts(struct qcow2 *s, const uint8_t *head, size_t from, size_t end, const uint8_t **ret_features,
                     uint32_t *ret_flen, struct err *err)
{
    const char *name = s->node->filename;
    for (size_t at = from; at + 8 <= end;) {
        uint32_t type = be32_get(head + at), len = be32_get(head + at + 4);
        const uint8_t *data = head + at + 8;
        if (type == QX_END)
            return 0;
        if (len > end - at - 8)
            return err_set(err, -EINVAL, "%s: Header extension too large", name);
        switch (type) {
        case QX_BACKING_FORMAT:
            if (len >= 16)
                return err_set(err, -EINVAL, "%s: ERROR: ext_backing_format: len=%u too large (>=16)", name, len);
            free(s->node->backing_format);
            s->node->backing_format = strndup((const char *)data, len);
            break;
        case QX_FEATURES:
            *ret_features = data;
            *ret_flen = len;
            break;
        case QX_BITMAPS:
            if (len != 24)
                return err_set(err, -EINVAL, "%s: bitmaps_ext: Invalid extension length", name);
            s->n_bitmaps = be32_get(data);
            s->bitmaps_size = be64_get(data + 8);
            s->bitmaps_offset = be64_get(data + 16);
            break;
        case QX_DATA_FILE:
            free(s->data_file_name);
            s->data_file_name = strndup((const char *)data, len);
            break;
        default:
            if (s->n_exts >= 1000)
                return err_set(err, -E2BIG, "%s: too many header extensions", name);
            s->exts = realloc(s->exts, (s->n_exts + 1) * sizeof *s->exts);
            uint8_t *copy = malloc(len + 1);
            if (!s->exts || !copy)
                abort();
            memcpy(copy, data, len);
            s->exts[s->n_exts++] = (struct qext){type, len, copy};
            break;
        }
        at += 8 + ALIGN_UP((size_t)len, 8);
    }
    return 0;
}

static int read_header(struct qcow2 *s, struct err *err)
{
    struct blk_node *n = s->node;
    const char *name = n->filename;
    uint8_t h[112] = {0};
    int code = blk_pread(s->file, 0, h, sizeof h);
    if (code < 0)
        return err_errno(err, code, "%s: Could not read qcow2 header", name);
    if (be32_get(h) != QCOW2_MAGIC)
        return err_set(err, -EINVAL, "%s: Image is not in qcow2 format", name);
    s->version = be32_get(h + 4);
    if (s->version < 2 || s->version > 3)
        return err_set(err, -ENOTSUP, "%s: Unsupported qcow2 version %u", name, s->version);
    s->cluster_bits = be32_get(h + 20);
    if (s->cluster_bits < 9 || s->cluster_bits > 21)
        return err_set(err, -EINVAL, "%s: Unsupported cluster size: 2^%u", name, s->cluster_bits);
    s->refcount_order = 4;
    s->header_len = 72;
    if (s->version >= 3) {
        s->incompatible = be64_get(h + 72);
        s->compatible = be64_get(h + 80);
        s->autoclear = be64_get(h + 88);
        s->refcount_order = be32_get(h + 96);
        s->header_len = be32_get(h + 100);
        if (s->header_len < 104)
            return err_set(err, -EINVAL, "%s: qcow2 header too short", name);
        if (s->header_len > BIT64(s->cluster_bits))
            return err_set(err, -EINVAL, "%s: qcow2 header exceeds cluster size", name);
        if (s->header_len > 104)
            s->compression = h[104];
    }
    uint64_t size = be64_get(h + 24), backing = be64_get(h + 8);
    uint32_t backing_len = be32_get(h + 16);
    s->crypt = be32_get(h + 32);
    autofree uint8_t *head = xcalloc(1, BIT64(s->cluster_bits));
    code = blk_pread(s->file, 0, head, BIT64(s->cluster_bits));
    if (code < 0)
        return err_errno(err, code, "%s: Could not read qcow2 header", name);
    if (backing > BIT64(s->cluster_bits))
        return err_set(err, -EINVAL, "%s: Invalid backing file offset", name);
    const uint8_t *ftable = NULL;
    uint32_t flen = 0;
    size_t end = backing ? (size_t)backing : BIT64(s->cluster_bits);
    code = read_exts(s, head, s->header_len, end, &ftable, &flen, err);
    uint64_t unknown = s->incompatible & ~(uint64_t)31;
    if (unknown) {
        char list[300] = "", one[47];
        for (unsigned b = 0; b < 64; b++) {
            if (!(unknown & BIT64(b)))
                continue;
            if (code == 0)
                known_feature_name(ftable, ftable ? flen : 0, b, one);
            else
                snprintf(one, sizeof one, "incompatible bit %u", b);
            size_t l = strlen(list);
            snprintf(list + l, sizeof list - l, "%s%s", l ? ", " : "", one);
        }
        return err_set(err, -ENOTSUP, "%s: Unsupported qcow2 feature(s): %s", name, list);
    }
    if (code < 0)
        return code;
    if (s->refcount_order > 6)
        return err_set(err, -EINVAL, "%s: Reference count entry width too large; may not exceed 64 bits", name);
    if (s->crypt)
        return err_set(err, -ENOTSUP, "%s: the image is encrypted (%s): encrypted images cannot be opened", name,
                       s->crypt == 1 ? "AES" : s->crypt == 2 ? "LUKS" : "unknown method");
    if (s->compression > QCOMP_ZSTD)
        return err_set(err, -ENOTSUP, "%s: unknown compression type %u", name, s->compression);
    if ((s->compression != QCOMP_ZLIB) != !!(s->incompatible & BIT64(QI_COMPRESSION)))
        return err_set(err, -EINVAL, "%s: the compression type bit and the compression type do not match", name);
    if ((s->incompatible & BIT64(QI_EXTL2)) && s->cluster_bits < 14)
        return err_set(err, -EINVAL, "%s: Unsupported cluster size for extended L2 entries: 2^%u", name, s->cluster_bits);
    if ((s->incompatible & BIT64(QI_CORRUPT)) && (n->flags & BLK_O_RDWR) && !(n->flags & BLK_O_CHECK))
        return err_set(err, -EACCES, "%s: qcow2: Image is corrupt; cannot be opened read/write", name);
    s->corrupt = s->incompatible & BIT64(QI_CORRUPT);
    qcow2_set_geometry(s);
    if (size > INT64_MAX - s->cluster_size)
        return err_set(err, -EFBIG, "%s: the disk's size is out of range", name);
    n->size = size;
    n->cluster_size = (uint32_t)s->cluster_size;
    if (backing) {
        if (backing_len > 1023 || backing_len > s->cluster_size - backing)
            return err_set(err, -EINVAL, "%s: Backing file name too long", name);
        if (backing_len)
            n->backing_file = strndup((const char *)head + backing, backing_len);
        s->backing_offset = backing;
    }
    s->l1_size = be32_get(h + 36);
    s->l1_offset = be64_get(h + 40);
    s->rt_offset = be64_get(h + 48);
    uint64_t rt_clusters = be32_get(h + 56);
    s->n_snaps = be32_get(h + 60);
    s->snaps_offset = be64_get(h + 64);
    if (rt_clusters << s->cluster_bits > Q_RT_BYTES_MAX)
        return err_set(err, -EINVAL, "%s: Image does not contain a reference count table, or it is too large", name);
    if (!rt_clusters && !(n->flags & BLK_O_CHECK))
        return err_set(err, -EINVAL, "%s: Image does not contain a reference count table", name);
    s->rt_size = (uint32_t)((rt_clusters << s->cluster_bits) / 8);
    if (s->rt_offset % s->cluster_size || s->rt_offset > Q_OFFSET_MAX)
        return err_set(err, -EINVAL, "%s: Invalid reference count table offset", name);
    uint64_t covers = BIT64(s->cluster_bits + s->l2_bits), need = (size + covers - 1) / covers;
    if (s->l1_size > Q_L1_BYTES_MAX / 8)
        return err_set(err, -EFBIG, "%s: Active L1 table too large", name);
    if (need > s->l1_size)
        return err_set(err, -EINVAL, "%s: L1 table is too small", name);
    if (s->l1_offset % s->cluster_size || s->l1_offset > Q_OFFSET_MAX || (s->l1_size && !s->l1_offset))
        return err_set(err, -EINVAL, "%s: Invalid L1 table offset", name);
    return 0;
}

static int load_rt(struct qcow2 *s, struct err *err)
{
    autofree uint8_t *raw = malloc((size_t)s->rt_size * 8 + 8);
    s->rt = calloc((size_t)s->rt_size + 1, 8);
    s->rb = calloc((size_t)s->rt_size + 1, sizeof *s->rb);
    s->rt_dirty = calloc((size_t)s->rt_size / 64 + 1, 1);
    if (!raw || !s->rt || !s->rb || !s->rt_dirty)
        return err_set(err, -ENOMEM, "%s: no memory for the refcount table", s->node->filename);
    int code = s->rt_size ? blk_pread(s->file, s->rt_offset, raw, (size_t)s->rt_size * 8) : 0;
    if (code < 0)
        return err_errno(err, code, "%s: Could not read the refcount table", s->node->filename);
    for (uint32_t i = 0; i < s->rt_size; i++)
        s->rt[i] = be64_get(raw + (size_t)i * 8);
    return 0;
}

static int open_data_file(struct qcow2 *s, struct blk_opts *opts, struct err *err)
{
    struct blk_node *n = s->node;
    s->data = s->file;
    if (!(s->incompatible & BIT64(QI_DATA_FILE)))
        return 0;
    s->data_raw = s->autoclear & BIT64(QA_DATA_RAW);
    if ((n->flags & BLK_O_NO_IO) && !s->data_file_name)
        return 0;
    if (!s->data_file_name && !blk_opts_has(opts, "data-file.filename"))
        return err_set(err, -EINVAL, "%s: 'data-file' is required for this image", n->filename);
    autofree char *path = s->data_file_name ? blk_path_relative(n->filename, s->data_file_name) : NULL;
    unsigned flags = n->flags & (BLK_O_RDWR | BLK_O_DIRECT | BLK_O_NO_FLUSH | BLK_O_FORCE_SHARE | BLK_O_NO_URING |
                                 BLK_O_NO_LOCK);
    int code = blk_open_child(n, opts, "data-file", path, "file", BLK_ROLE_DATA, flags, NULL, err);
    if (code < 0) {
        err_prefix(err, "%s: Could not open data file", n->filename);
        return code;
    }
    s->data = n->data->child;
    return 0;
}

static int take_options(struct qcow2 *s, struct blk_opts *opts, struct err *err)
{
    static const char *const accepted[] = {"lazy-refcounts", "pass-discard-request", "pass-discard-snapshot",
                                           "pass-discard-other", "overlap-check", "l2-cache-entry-size",
                                           "cache-clean-interval"};
    uint64_t l2, rb, all;
    for (unsigned i = 0; i < ARRAY_SIZE(accepted); i++)
        blk_opts_get(opts, accepted[i]);
    int code = blk_opts_size(opts, "cache-size", 0, &all, err);
    if (code == 0)
        code = blk_opts_size(opts, "l2-cache-size", all ? all * 3 / 4 : 32 * MIB, &l2, err);
    if (code == 0)
        code = blk_opts_size(opts, "refcount-cache-size", all ? all / 4 : 8 * MIB, &rb, err);
    s->l2_max = MAX(l2 >> s->cluster_bits, 4);
    s->rb_max = MAX(rb >> s->cluster_bits, 16);
    return code;
}

static int open_rw(struct qcow2 *s, struct err *err)
{
    struct blk_node *n = s->node;
    int code = 0;
    s->writable = true;
    if (s->incompatible & BIT64(QI_DIRTY)) {
        struct blk_check check = {0};
        code = qcow2_check(n, &check, BLK_FIX_LEAKS | BLK_FIX_ERRORS, err);
        if (code == 0 && (check.check_errors || check.corruptions > check.corruptions_fixed))
            code = err_set(err, -EIO, "Could not repair dirty image");
        if (code < 0) {
            err_prefix(err, "%s", n->filename);
            return code;
        }
    }
    uint64_t known = BIT64(QA_BITMAPS) | BIT64(QA_DATA_RAW);
    bool clear = s->autoclear & ~known;
    s->autoclear &= known;
    if (clear && (code = qcow2_write_header(s)) < 0)
        return err_errno(err, code, "%s: Could not update the header", n->filename);
    code = qcow2_bitmaps_start(s);
    return code < 0 ? err_errno(err, code, "%s: cannot mark bitmaps as in use", n->filename) : 0;
}

int qcow2_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct qcow2 *s = xcalloc(1, sizeof *s);
    n->priv = s;
    s->node = n;
    s->round = 1;
    s->file = blk_node_file(n);
    pthread_mutex_init(&s->meta, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->comp_lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    int code = read_header(s, err);
    if (code == 0)
        code = take_options(s, opts, err);
    if (code == 0)
        code = open_data_file(s, opts, err);
    if (code == 0)
        code = load_rt(s, err);
    uint64_t *l1 = NULL;
    if (code == 0 && (code = qcow2_load_l1(s, s->l1_offset, s->l1_size, &l1)) < 0)
        err_errno(err, code, "%s: Could not read L1 table", n->filename);
    if (code < 0)
        return code;
    qcow2_install_l1(s, l1, s->l1_offset, s->l1_size);
    s->fresh_from = s->file->grows_zero ? (s->file->size + s->cluster_size - 1) >> s->cluster_bits : UINT64_MAX;
    s->discard_below = n->flags & BLK_O_UNMAP;
    code = qcow2_snapshots_load(s, err);
    if (code == 0)
        code = qcow2_bitmaps_load(s, err);
    if (code == 0)
        code = qcow2_meta_build(s);
    if (code == 0 && (n->flags & BLK_O_RDWR) && !(n->flags & BLK_O_CHECK))
        code = open_rw(s, err);
    else if (n->flags & BLK_O_RDWR)
        s->writable = true;
    return code;
}

void qcow2_close(struct blk_node *n)
{
    struct qcow2 *s = n->priv;
    if (s->writable && !s->corrupt && s->l1) {
        int code = qcow2_bitmaps_store(s);
        pthread_mutex_lock(&s->meta);
        for (unsigned i = 0; i < 8 && code == 0; i++) { /* what one round sets free makes the next one */
            code = qcow2_writeback_m(s);
            if (!s->dirty_tables && !s->frees.n && !s->have_grace && !s->l1_is_dirty && !s->rt_is_dirty)
                break;
        }
        if (code == 0)
            code = qcow2_barrier(s);
        pthread_mutex_unlock(&s->meta);
        if (code < 0)
            log_error("%s: metadata could not be written (%s): what was written since the last flush is lost", n->filename,
                      strerror(-code));
    }
    if (s->l1) {
        s->dirty_tables = 0;
        qcow2_drop_l2(s);
    }
    if (s->rb)
        qcow2_drop_rb(s);
    qcow2_snapshots_free(s);
    qcow2_bitmaps_free(s);
    for (unsigned i = 0; i < s->n_exts; i++)
        free(s->exts[i].data);
    free(s->exts);
    free(s->l1);
    free(s->l1_dirty);
    free(s->l2);
    free(s->rt);
    free(s->rt_dirty);
    free(s->rb);
    free(s->frees.v);
    free(s->grace.v);
    free(s->meta_set);
    free(s->comp_buf);
    free(s->data_file_name);
    pthread_mutex_destroy(&s->meta);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->comp_lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

static int qcow2_probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= 8 && be32_get(head) == QCOW2_MAGIC && be32_get(head + 4) >= 2 ? 100 : 0;
}

const struct blk_driver blk_qcow2 = {
    .name = "qcow2",
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .preadv = qcow2_preadv,
    .pwritev = qcow2_pwritev,
    .pwrite_zeroes = qcow2_pwrite_zeroes,
    .pdiscard = qcow2_pdiscard,
    .pwritev_compressed = qcow2_pwritev_compressed,
    .pflush = qcow2_pflush,
    .block_status = qcow2_block_status,
    .map = qcow2_map,
    .map_done = qcow2_map_done,
    .create_opts = qcow2_create_opts,
    .create = qcow2_create,
    .get_info = qcow2_get_info,
    .check = qcow2_check,
    .truncate = qcow2_truncate,
    .measure = qcow2_measure,
    .amend = qcow2_amend,
    .change_backing_file = qcow2_change_backing_file,
    .make_empty = qcow2_make_empty,
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_apply = qcow2_snapshot_apply,
    .snapshot_delete = qcow2_snapshot_delete,
    .snapshot_load_tmp = qcow2_snapshot_load_tmp,
    .vmstate_read = qcow2_vmstate_read,
    .vmstate_write = qcow2_vmstate_write,
    .bitmap_list = qcow2_bitmap_list,
    .bitmap_add = qcow2_bitmap_add,
    .bitmap_remove = qcow2_bitmap_remove,
    .bitmap_clear = qcow2_bitmap_clear,
    .bitmap_enable = qcow2_bitmap_enable,
    .bitmap_set = qcow2_bitmap_set,
    .bitmap_next = qcow2_bitmap_next,
};
