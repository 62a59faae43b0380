/* qcow2: making images, and how large they would get. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

const struct blk_create_opt qcow2_create_opts[] = {
    {"cluster_size", BLK_OPT_SIZE, "qcow2 cluster size", "65536", false},
    {"extended_l2", BLK_OPT_BOOL, "Extended L2 tables", "off", false},
    {"preallocation", BLK_OPT_STRING, "Preallocation mode (allowed values: off, metadata, falloc, full)", NULL, false},
    {"compression_type", BLK_OPT_STRING, "Compression method used for image cluster compression", "zlib", false},
    {"size", BLK_OPT_SIZE, "Virtual disk size", NULL, true},
    {"compat", BLK_OPT_STRING, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL, true},
    {"encryption", BLK_OPT_BOOL, "Encrypt the image with format 'aes'", NULL, false},
    {"encrypt.format", BLK_OPT_STRING, "Encrypt the image, format choices: 'aes', 'luks'", NULL, false},
    {"backing_file", BLK_OPT_STRING, "File name of a base image", NULL, true},
    {"backing_fmt", BLK_OPT_STRING, "Image format of the base image", NULL, true},
    {"data_file", BLK_OPT_STRING, "File name of an external data file", NULL, true},
    {"data_file_raw", BLK_OPT_BOOL, "The external data file must stay valid as a raw image", NULL, true},
    {"lazy_refcounts", BLK_OPT_BOOL, "Postpone refcount updates", "off", true},
    {"refcount_bits", BLK_OPT_NUMBER, "Width of a reference count entry in bits", "16", true},
    {NULL},
};

struct params {
    uint64_t size, cluster_size, refcount_bits;
    unsigned version, cluster_bits, refcount_order;
    bool extl2, lazy, data_raw;
    uint8_t compression;
    const char *backing, *format, *data_file;
    enum blk_prealloc prealloc;
};

static int parse(struct blk_opts *o, struct params *p, struct err *err)
{
    bool encryption;
    *p = (struct params){.version = 3};
    const char *compat = blk_opts_get(o, "compat"), *prealloc = blk_opts_get(o, "preallocation"),
               *type = blk_opts_get(o, "compression_type");
    int code = blk_opts_size(o, "size", 0, &p->size, err);
    if (code == 0)
        code = blk_opts_size(o, "cluster_size", 65536, &p->cluster_size, err);
    if (code == 0)
        code = blk_opts_size(o, "refcount_bits", 16, &p->refcount_bits, err);
    if (code == 0)
        code = blk_opts_bool(o, "extended_l2", false, &p->extl2, err);
    if (code == 0)
        code = blk_opts_bool(o, "lazy_refcounts", false, &p->lazy, err);
    if (code == 0)
        code = blk_opts_bool(o, "data_file_raw", false, &p->data_raw, err);
    if (code == 0)
        code = blk_opts_bool(o, "encryption", false, &encryption, err);
    if (code == 0 && prealloc)
        code = blk_prealloc_parse(prealloc, &p->prealloc, err);
    if (code < 0)
        return code;
    if (encryption || blk_opts_get(o, "encrypt.format"))
        return err_set(err, -ENOTSUP, "encrypted images cannot be made");
    if (compat && (!strcmp(compat, "0.10") || !strcmp(compat, "v2")))
        p->version = 2;
    else if (compat && strcmp(compat, "1.1") && strcmp(compat, "v3"))
        return err_set(err, -EINVAL, "Invalid parameter '%s'", compat);
    if (p->cluster_size < 512 || p->cluster_size > 2 * MIB || p->cluster_size & (p->cluster_size - 1))
        return err_set(err, -EINVAL, "Cluster size must be a power of two between 512 and 2048k");
    p->cluster_bits = (unsigned)__builtin_ctzll(p->cluster_size);
    if (!p->refcount_bits || p->refcount_bits > 64 || p->refcount_bits & (p->refcount_bits - 1))
        return err_set(err, -EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
    p->refcount_order = (unsigned)__builtin_ctzll(p->refcount_bits);
    if (type && !strcmp(type, "zstd"))
        p->compression = QCOMP_ZSTD;
    else if (type && strcmp(type, "zlib"))
        return err_set(err, -EINVAL, "Invalid parameter '%s'", type);
    p->backing = blk_opts_get(o, "backing_file");
    p->format = blk_opts_get(o, "backing_fmt");
    p->data_file = blk_opts_get(o, "data_file");
    if (p->backing && !*p->backing)
        p->backing = NULL;
    if (p->version < 3) {
        if (p->refcount_order != 4)
            return err_set(err, -EINVAL, "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)");
        if (p->lazy)
            return err_set(err, -EINVAL, "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        if (p->extl2)
            return err_set(err, -EINVAL, "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        if (p->compression)
            return err_set(err, -EINVAL, "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        if (p->data_file)
            return err_set(err, -EINVAL, "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
    }
    if (p->extl2 && p->cluster_bits < 14)
        return err_set(err, -EINVAL, "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
    if (p->backing && p->prealloc && !p->extl2)
        return err_set(err, -EINVAL, "Backing file and preallocation can only be used at the same time if extended_l2 is enabled");
    if (p->data_raw && !p->data_file)
        return err_set(err, -EINVAL, "data-file-raw requires data-file");
    if (p->data_raw && p->backing)
        return err_set(err, -EINVAL, "Backing file and data-file-raw cannot be used at the same time");
    if (p->backing && strlen(p->backing) > MIN(1023, p->cluster_size - 300))
        return err_set(err, -EINVAL, "the backing file's name is too long");
    p->size = ALIGN_UP(p->size, 512);
    uint64_t l2_entries = p->cluster_size / (p->extl2 ? 16 : 8);
    if (p->size > INT64_MAX - p->cluster_size || p->size / p->cluster_size / l2_entries > Q_L1_BYTES_MAX / 8)
        return err_set(err, -EFBIG, "The image size is too large (try using a larger cluster size)");
    return 0;
}

/* Header, refcount table, one refcount block, L1 table: a cluster each. */
static int write_first(struct blk_node *file, const struct params *p, uint64_t size, uint32_t l1_size, struct err *err)
{
    uint64_t cs = p->cluster_size;
    struct blk_node *n = blk_node_new(&blk_qcow2, file->filename, BLK_O_RDWR);
    struct qcow2 s = {.node = n, .file = file, .data = file, .version = p->version, .cluster_bits = p->cluster_bits};
    s.refcount_order = p->refcount_order;
    s.header_len = 112;
    s.incompatible = (p->extl2 ? BIT64(QI_EXTL2) : 0) | (p->data_file ? BIT64(QI_DATA_FILE) : 0) |
                     (p->compression ? BIT64(QI_COMPRESSION) : 0);
    s.compatible = p->lazy ? BIT64(QC_LAZY) : 0;
    s.autoclear = p->data_raw ? BIT64(QA_DATA_RAW) : 0;
    s.compression = p->compression;
    s.data_file_name = (char *)p->data_file;
    qcow2_set_geometry(&s);
    s.rt_offset = cs;
    s.rt_size = (uint32_t)(cs / 8);
    s.l1_offset = 3 * cs;
    s.l1_size = l1_size;
    n->size = size;
    n->backing_file = p->backing ? xstrdup(p->backing) : NULL;
    n->backing_format = p->backing && p->format ? xstrdup(p->format) : NULL;
    uint8_t counts[32] = {0}, entry[8];
    for (unsigned i = 0; i < (l1_size ? 4 : 3); i++) /* an empty L1 table has no cluster */
        qcow2_rb_put(&s, counts, i, 1);
    be64_put(entry, 2 * cs);
    int code = blk_truncate(file, 4 * cs, BLK_PREALLOC_OFF, true, err);
    if (code == 0)
        code = blk_pwrite(file, 2 * cs, counts, sizeof counts, 0);
    if (code == 0)
        code = blk_pwrite(file, cs, entry, sizeof entry, 0);
    if (code == 0)
        code = qcow2_write_header(&s);
    blk_node_unref(n);
    return code < 0 ? err_errno(err, code, "Could not write the image's metadata") : 0;
}

int qcow2_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    struct params p;
    int code = parse(opts, &p, err);
    if (code < 0)
        return code;
    if (p.data_file) {
        autofree char *path = blk_path_relative(file->filename, p.data_file);
        code = blk_file.create_file(path, 0, err);
        if (code < 0)
            return code;
    }
    uint64_t covers = p.cluster_size * (p.cluster_size / (p.extl2 ? 16 : 8)), need = (p.size + covers - 1) / covers;
    bool fits = need <= p.cluster_size / 8 && !p.data_file;
    code = write_first(file, &p, fits ? p.size : 0, fits ? (uint32_t)need : 0, err);
    if (code < 0 || (fits && !p.prealloc))
        return code;
    struct blk_node *n = NULL;
    code = blk_node_open_on(blk_node_ref(file), "qcow2", NULL, BLK_O_RDWR | BLK_O_NO_BACKING, &n, err);
    if (code == 0 && !fits)
        code = qcow2_truncate(n, p.size, p.prealloc, err);
    else if (code == 0)
        code = qcow2_preallocate(n->priv, 0, p.size, p.prealloc, err);
    blk_node_unref(n);
    return code;
}

/* ---- measuring ---- */

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return a / b + !!(a % b);
}

/* Bytes of refcount table and blocks for so many clusters, themselves included. */
static uint64_t refcount_bytes(uint64_t clusters, const struct params *p)
{
    uint64_t per_table = p->cluster_size / 8, per_block = p->cluster_size * 8 >> p->refcount_order;
    uint64_t table = 0, blocks = 0, n = 0, last;
    do {
        last = n;
        blocks = div_up(clusters + table + blocks, per_block);
        table = div_up(blocks, per_table);
        n = clusters + blocks + table;
    } while (n != last);
    return (blocks + table) * p->cluster_size;
}

static uint64_t full_size(uint64_t size, const struct params *p)
{
    uint64_t entry = p->extl2 ? 16 : 8, cs = p->cluster_size, data = ALIGN_UP(size, cs);
    uint64_t l2 = div_up(data / cs, cs / entry) * (cs / entry);
    uint64_t l1 = div_up(l2 * entry / cs, cs / 8) * (cs / 8);
    uint64_t meta = cs + l2 * entry + l1 * 8;
    return meta + refcount_bytes((meta + data) / cs, p) + data;
}

static int count_data(struct blk_node *src, const struct params *p, uint64_t *ret, struct err *err)
{
    uint64_t cs = p->cluster_size, size = src->size;
    *ret = 0;
    for (uint64_t at = 0; at < size;) {
        struct blk_extent e;
        int code = blk_block_status_above(src, NULL, at, size - at, true, &e);
        if (code < 0)
            return err_errno(err, code, "Unable to get block status");
        uint64_t len = e.len;
        if (!(e.flags & BLK_STATUS_ZERO) && (e.flags & BLK_STATUS_DATA)) {
            len = ALIGN_UP(at + len, cs) - at;
            *ret += at % cs + len;
        }
        at += len;
    }
    return 0;
}

static uint64_t bitmap_bytes(struct blk_node *src, const struct params *p)
{
    struct blk_bitmap *v;
    unsigned n;
    uint64_t total = 0, dir = 0, cs = p->cluster_size;
    if (blk_bitmap_list(src, &v, &n, NULL) < 0)
        return 0;
    for (unsigned i = 0; i < n; i++) {
        if (v[i].flags & BLK_BITMAP_IN_USE)
            continue;
        uint64_t clusters = div_up(div_up(div_up(src->size, v[i].granularity), 8), cs);
        total += (div_up(clusters * 8, cs) + clusters) * cs;
        dir += ALIGN_UP(24 + strlen(v[i].name), 8);
    }
    free(v);
    return total + div_up(dir, cs) * cs;
}

int qcow2_measure(struct blk_opts *opts, struct blk_node *src, struct blk_measure *ret, struct err *err)
{
    struct params p;
    uint64_t required = 0;
    int code = parse(opts, &p, err);
    if (code < 0)
        return code;
    if (src)
        p.size = ALIGN_UP(atomic_load(&src->size), 512);
    uint64_t entries = p.cluster_size / (p.extl2 ? 16 : 8);
    if (div_up(div_up(p.size, p.cluster_size), entries) > Q_L1_BYTES_MAX / 8)
        return err_set(err, -EFBIG, "The image size is too large (try using a larger cluster size)");
    if (src) {
        code = p.backing ? 0 : count_data(src, &p, &required, err);
        if (p.backing)
            required = p.size;
        if (code < 0)
            return code;
    }
    if (p.prealloc == BLK_PREALLOC_FULL || p.prealloc == BLK_PREALLOC_FALLOC)
        required = p.size;
    uint64_t full = full_size(p.size, &p), size = ALIGN_UP(p.size, p.cluster_size);
    *ret = (struct blk_measure){.fully_allocated = full, .required = full - size + required};
    if (p.version >= 3 && src && src->drv == &blk_qcow2 && ((struct qcow2 *)src->priv)->version >= 3) {
        ret->has_bitmaps = true;
        ret->bitmaps = bitmap_bytes(src, &p);
    }
    return 0;
}
