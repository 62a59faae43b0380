/*
 * Microsoft's VHD (Virtual PC): a footer of 512 bytes, big-endian; dynamic images have a table of blocks, each with a bitmap of
 * its sectors in front. Fixed images are raw with a footer. Differencing images are refused. (Virtual Hard Disk Image Format
 * Specification 1.0)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/blocks.h"
#include "block/nbd.h" /* big-endian accessors */

enum {
    FOOTER = 512,
    DYNAMIC_HEADER = 1024,
    TYPE_FIXED = 2,
    TYPE_DYNAMIC = 3,
    TYPE_DIFFERENCING = 4,
    EPOCH = 946684800, /* 2000-01-01 */
    BLOCK = 2 << 20,
    /* offsets in the footer */
    F_FEATURES = 8,
    F_VERSION = 12,
    F_DATA_OFFSET = 16,
    F_TIME = 24,
    F_CREATOR = 28,
    F_CREATOR_VERSION = 32,
    F_CREATOR_OS = 36,
    F_ORIGINAL_SIZE = 40,
    F_CURRENT_SIZE = 48,
    F_CYLINDERS = 56,
    F_HEADS = 58,
    F_SECTORS = 59,
    F_TYPE = 60,
    F_CHECKSUM = 64,
    F_UUID = 68,
    /* in the dynamic header */
    D_DATA_OFFSET = 8,
    D_TABLE_OFFSET = 16,
    D_VERSION = 24,
    D_ENTRIES = 28,
    D_BLOCK_SIZE = 32,
    D_CHECKSUM = 36,
};
#define ENTRY_NONE 0xffffffffu
#define TABLE_MAX (64 * MIB)
#define CHS_MAX (65535ull * 16 * 255)
#define SIZE_MAX_BYTES (2040 * GIB)

struct vpc {
    struct blocks b; /* first */
    uint8_t footer[FOOTER], *table;
    uint64_t table_at, end; /* end: where the footer is, and the next block goes */
    uint32_t entries, bitmap;
    bool fixed;
};

static int vpc_probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= 8 && !memcmp(head, "conectix", 8) ? 100 : 0;
}

static uint32_t checksum(const uint8_t *p, size_t len, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++)
        if (i < at || i >= at + 4)
            sum += p[i];
    return ~sum;
}

/* The geometry for a number of sectors (appendix of the specification). */
static void geometry(uint64_t sectors, uint16_t *cylinders, uint8_t *heads, uint8_t *per_track)
{
    uint64_t tracks;
    sectors = MIN(sectors, CHS_MAX);
    if (sectors >= 65535ull * 16 * 63) {
        *per_track = 255;
        *heads = 16;
        tracks = sectors / 255;
    } else {
        *per_track = 17;
        tracks = sectors / 17;
        uint64_t h = (tracks + 1023) / 1024;
        h = MAX(h, (uint64_t)4);
        if (tracks >= h * 1024 || h > 16) {
            *per_track = 31;
            h = 16;
            tracks = sectors / 31;
        }
        if (tracks >= h * 1024) {
            *per_track = 63;
            h = 16;
            tracks = sectors / 63;
        }
        *heads = (uint8_t)h;
    }
    *cylinders = (uint16_t)(tracks / *heads);
}

static uint64_t chs_sectors(uint16_t cylinders, uint8_t heads, uint8_t per_track)
{
    return (uint64_t)cylinders * heads * per_track;
}

/* These programs mean the size that they wrote, others the geometry. */
static bool size_counts(const uint8_t *creator)
{
    static const char names[][5] = {"win ", "qem2", "d2v ", "tap\0", "CTXS", "wa\0\0"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (!memcmp(creator, names[i], 4))
            return true;
    return false;
}

static int vpc_look(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    const struct vpc *v = n->priv;
    if (v->fixed) {
        ret->kind = BLOCK_DATA;
        ret->host = index * v->b.size;
        return 0;
    }
    uint32_t e = index < v->entries ? be32_get(v->table + 4 * index) : ENTRY_NONE;
    ret->kind = e == ENTRY_NONE ? BLOCK_ZERO : BLOCK_DATA;
    ret->host = (uint64_t)e * 512 + v->bitmap;
    return ret->kind == BLOCK_DATA && ret->host >= blk_node_file(n)->size ? -EIO : 0;
}

/* The footer moves behind the new block before the table leads to the block. */
static int vpc_place(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    struct vpc *v = n->priv;
    struct blk_node *file = blk_node_file(n);
    uint64_t at = v->end, end = at + v->bitmap + v->b.size;
    if (index >= v->entries || at / 512 >= ENTRY_NONE)
        return -EFBIG;
    int code = blk_pwrite(file, end, v->footer, FOOTER, 0);
    autofree uint8_t *ones = malloc(v->bitmap);
    if (!ones)
        return -ENOMEM;
    memset(ones, 0xff, v->bitmap);
    if (code == 0)
        code = blk_pwrite(file, at, ones, v->bitmap, 0);
    ret->host = at + v->bitmap;
    return code;
}

static int vpc_publish(struct blk_node *n, uint64_t index, const struct block_at *at)
{
    struct vpc *v = n->priv;
    uint8_t entry[4];
    be32_put(entry, (uint32_t)((at->host - v->bitmap) / 512));
    int code = blk_pwrite(blk_node_file(n), v->table_at + 4 * index, entry, 4, 0);
    if (code == 0) {
        memcpy(v->table + 4 * index, entry, 4);
        v->end = at->host + v->b.size;
    }
    return code;
}

static int open_dynamic(struct blk_node *n, struct vpc *v, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    uint8_t d[DYNAMIC_HEADER];
    uint64_t at = be64_get(v->footer + F_DATA_OFFSET), file_size = file->size;
    if (file_size < DYNAMIC_HEADER || at > file_size - DYNAMIC_HEADER)
        return err_set(err, -EINVAL, "%s: the dynamic header lies behind the end of the file", n->filename);
    int code = blk_pread(file, at, d, sizeof d);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", n->filename);
    if (memcmp(d, "cxsparse", 8))
        return err_set(err, -EINVAL, "%s: no dynamic header at %llu", n->filename, (unsigned long long)at);
    if (be32_get(d + D_CHECKSUM) != checksum(d, sizeof d, D_CHECKSUM))
        return err_set(err, -EINVAL, "%s: the dynamic header's checksum is wrong", n->filename);
    uint32_t size = be32_get(d + D_BLOCK_SIZE);
    if (size < 512 || (size & (size - 1)) || size > 256 * MIB)
        return err_set(err, -EINVAL, "Invalid block size %u", size);
    v->entries = be32_get(d + D_ENTRIES);
    v->table_at = be64_get(d + D_TABLE_OFFSET);
    v->bitmap = ALIGN_UP(size / 512 / 8, 512u);
    if ((uint64_t)v->entries * size < n->size)
        return err_set(err, -EINVAL, "Page Table too small");
    code = blocks_read_table(file, "the block table", v->table_at, 4ull * v->entries, TABLE_MAX, (void **)&v->table, err);
    if (code < 0)
        return code;
    v->end = ALIGN_UP(v->table_at + 4ull * v->entries, (uint64_t)512);
    for (uint32_t i = 0; i < v->entries; i++) {
        uint32_t e = be32_get(v->table + 4ull * i);
        if (e != ENTRY_NONE)
            v->end = MAX(v->end, (uint64_t)e * 512 + v->bitmap + size);
    }
    blk_blocks_init(&v->b, size);
    n->cluster_size = size;
    return 0;
}

static int vpc_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    struct vpc *v = xcalloc(1, sizeof *v);
    uint64_t file_size = file->size;
    n->priv = v;
    blk_opts_get(opts, "force_size_calc");
    int code = file_size < FOOTER ? -EINVAL : blk_pread(file, 0, v->footer, FOOTER);
    if (code == 0 && memcmp(v->footer, "conectix", 8)) {
        code = blk_pread(file, file_size - FOOTER, v->footer, FOOTER);
        v->fixed = true;
        if (code == 0 && (memcmp(v->footer, "conectix", 8) || be32_get(v->footer + F_TYPE) != TYPE_FIXED))
            code = -EINVAL;
    }
    if (code < 0)
        return err_set(err, code, "%s: not a VHD image: no footer", n->filename);
    uint32_t type = be32_get(v->footer + F_TYPE);
    v->fixed = type == TYPE_FIXED;
    if (be32_get(v->footer + F_CHECKSUM) != checksum(v->footer, FOOTER, F_CHECKSUM))
        return err_set(err, -EINVAL, "%s: the footer's checksum is wrong", n->filename);
    if (type == TYPE_DIFFERENCING)
        return err_set(err, -ENOTSUP, "%s: differencing VHD images are not supported", n->filename);
    if (type != TYPE_FIXED && type != TYPE_DYNAMIC)
        return err_set(err, -ENOTSUP, "%s: unknown VHD type %u", n->filename, type);
    uint64_t chs = chs_sectors(be16_get(v->footer + F_CYLINDERS), v->footer[F_HEADS], v->footer[F_SECTORS]);
    uint64_t current = be64_get(v->footer + F_CURRENT_SIZE);
    bool use_size = size_counts(v->footer + F_CREATOR) || chs == CHS_MAX;
    n->size = use_size ? ALIGN_DOWN(current, (uint64_t)512) : chs * 512;
    if (n->size > SIZE_MAX_BYTES)
        return err_set(err, -EFBIG, "%s: larger than VHD images can be", n->filename);
    if (v->fixed && n->size > file_size - FOOTER)
        n->size = ALIGN_DOWN(file_size - FOOTER, (uint64_t)512);
    if (v->fixed) {
        blk_blocks_init(&v->b, BLOCK);
        v->end = file_size - FOOTER;
    } else if ((code = open_dynamic(n, v, err)) < 0) {
        return code;
    }
    v->b.holes = v->fixed;
    v->b.look = vpc_look;
    v->b.place = v->fixed ? NULL : vpc_place;
    v->b.publish = vpc_publish;
    return 0;
}

static void vpc_close(struct blk_node *n)
{
    struct vpc *v = n->priv;
    blocks_clear(&v->b);
    free(v->table);
    free(v);
}

static int write_dynamic(struct blk_node *file, uint64_t size, uint8_t *footer, struct err *err)
{
    uint8_t d[DYNAMIC_HEADER] = "cxsparse";
    uint32_t entries = (uint32_t)((size + BLOCK - 1) / BLOCK);
    uint64_t table_bytes = ALIGN_UP(4ull * entries, (uint64_t)512), table_at = FOOTER + DYNAMIC_HEADER;
    be64_put(d + D_DATA_OFFSET, UINT64_MAX);
    be64_put(d + D_TABLE_OFFSET, table_at);
    be32_put(d + D_VERSION, 0x00010000);
    be32_put(d + D_ENTRIES, entries);
    be32_put(d + D_BLOCK_SIZE, BLOCK);
    be32_put(d + D_CHECKSUM, checksum(d, sizeof d, D_CHECKSUM));
    autofree uint8_t *table = malloc(table_bytes ? table_bytes : 1);
    if (!table)
        return err_errno(err, -ENOMEM, "block table");
    memset(table, 0xff, table_bytes);
    int code = blk_pwrite(file, 0, footer, FOOTER, 0);
    if (code == 0)
        code = blk_pwrite(file, FOOTER, d, sizeof d, 0);
    if (code == 0 && table_bytes)
        code = blk_pwrite(file, table_at, table, table_bytes, 0);
    if (code == 0)
        code = blk_pwrite(file, table_at + table_bytes, footer, FOOTER, 0);
    return code < 0 ? err_errno(err, code, "cannot write") : 0;
}

static int vpc_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    uint8_t f[FOOTER] = "conectix", heads = 0, per_track = 0;
    uint16_t cylinders = 0;
    uint64_t size;
    bool force;
    const char *sub = blk_opts_get(opts, "subformat");
    int code = blk_opts_size(opts, "size", 0, &size, err);
    if (code == 0)
        code = blk_opts_bool(opts, "force_size", false, &force, err);
    if (code < 0)
        return code;
    bool fixed = sub && !strcmp(sub, "fixed");
    if (sub && !fixed && strcmp(sub, "dynamic"))
        return err_set(err, -EINVAL, "Invalid subformat '%s' (dynamic, fixed)", sub);
    size = ALIGN_UP(size, (uint64_t)512);
    if (size > SIZE_MAX_BYTES)
        return err_set(err, -EFBIG, "VHD images are at most 2040 GiB large");
    /* The geometry rounds down: take the next size that it can say. */
    for (uint64_t i = 0;; i++) {
        geometry(size / 512 + i, &cylinders, &heads, &per_track);
        if (force || chs_sectors(cylinders, heads, per_track) >= MIN(size / 512, CHS_MAX))
            break;
    }
    uint64_t chs = chs_sectors(cylinders, heads, per_track) * 512;
    if (!force && chs != CHS_MAX * 512)
        size = chs;
    be32_put(f + F_FEATURES, 2);
    be32_put(f + F_VERSION, 0x00010000);
    be64_put(f + F_DATA_OFFSET, fixed ? UINT64_MAX : FOOTER);
    be32_put(f + F_TIME, (uint32_t)(time(NULL) - EPOCH));
    memcpy(f + F_CREATOR, force ? "win " : "lodg", 4);
    be32_put(f + F_CREATOR_VERSION, 0x00050003);
    memcpy(f + F_CREATOR_OS, "Wi2k", 4);
    be64_put(f + F_ORIGINAL_SIZE, size);
    be64_put(f + F_CURRENT_SIZE, size);
    be16_put(f + F_CYLINDERS, cylinders);
    f[F_HEADS] = heads;
    f[F_SECTORS] = per_track;
    be32_put(f + F_TYPE, fixed ? TYPE_FIXED : TYPE_DYNAMIC);
    if (getrandom(f + F_UUID, 16, 0) != 16)
        return err_errno(err, -errno, "cannot make an UUID");
    be32_put(f + F_CHECKSUM, checksum(f, FOOTER, F_CHECKSUM));
    if (!fixed)
        return write_dynamic(file, size, f, err);
    code = blk_pwrite(file, size, f, FOOTER, 0);
    return code < 0 ? err_errno(err, code, "cannot write") : 0;
}

static const struct blk_create_opt create_opts[] = {
    {"size", BLK_OPT_SIZE, "Virtual disk size", NULL, false},
    {"subformat", BLK_OPT_STRING, "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ", NULL,
     false},
    {"force_size", BLK_OPT_BOOL,
     "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based calculation", NULL,
     false},
    {NULL},
};

const struct blk_driver blk_vpc = {
    .name = "vpc",
    .probe = vpc_probe,
    .open = vpc_open,
    .close = vpc_close,
    .preadv = blocks_preadv,
    .pwritev = blocks_pwritev,
    .pwrite_zeroes = blocks_pwrite_zeroes,
    .block_status = blocks_block_status,
    .create_opts = create_opts,
    .create = vpc_create,
};
