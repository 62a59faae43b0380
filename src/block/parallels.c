/*
 * Parallels disks (the expanding kind): a header, a table of places, clusters. Two signatures: in the older one entries count
 * sectors, in the newer clusters.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/blocks.h"

enum {
    HEADER = 64,
    VERSION = 2,
    INUSE = 0x746f6e59, /* "Yn ot" of an image that was not closed */
    H_VERSION = 16,
    H_HEADS = 20,
    H_CYLINDERS = 24,
    H_TRACKS = 28, /* sectors of a cluster */
    H_ENTRIES = 32,
    H_SECTORS = 36,
    H_INUSE = 44,
    H_DATA = 48,
    H_FLAGS = 52,
    H_EXT = 56,
};
static const char magic_old[16] = "WithoutFreeSpace", magic_new[16] = "WithouFreSpacExt";
#define TABLE_MAX (256 * MIB)

struct parallels {
    struct blocks b; /* first */
    uint8_t *table;
    uint32_t entries;
    uint64_t unit; /* bytes that an entry counts */
    uint64_t data_at, end;
};

static int parallels_probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= HEADER && (!memcmp(head, magic_old, 16) || !memcmp(head, magic_new, 16)) &&
                   le32_get(head + H_VERSION) == VERSION
               ? 100
               : 0;
}

static int parallels_look(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    const struct parallels *p = n->priv;
    uint32_t e = index < p->entries ? le32_get(p->table + 4 * index) : 0;
    if (!e)
        return 0;
    ret->kind = BLOCK_DATA;
    ret->host = e * p->unit;
    return ret->host < p->data_at || ret->host >= blk_node_file(n)->size ? -EIO : 0;
}

static int parallels_place(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    struct parallels *p = n->priv;
    struct blk_node *file = blk_node_file(n);
    if (index >= p->entries)
        return -EINVAL;
    ret->host = p->end;
    if (ret->host / p->unit > UINT32_MAX)
        return -EFBIG;
    return file->size < ret->host + p->b.size ? blk_truncate(file, ret->host + p->b.size, BLK_PREALLOC_OFF, false, NULL) : 0;
}

static int parallels_publish(struct blk_node *n, uint64_t index, const struct block_at *at)
{
    struct parallels *p = n->priv;
    uint8_t entry[4];
    le32_put(entry, (uint32_t)(at->host / p->unit));
    int code = blk_pwrite(blk_node_file(n), HEADER + 4 * index, entry, 4, 0);
    if (code == 0) {
        memcpy(p->table + 4 * index, entry, 4);
        p->end = at->host + p->b.size;
    }
    return code;
}

static int parallels_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    uint8_t h[HEADER];
    int code = blk_pread(file, 0, h, sizeof h);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", n->filename);
    bool newer = !memcmp(h, magic_new, 16);
    if (!newer && memcmp(h, magic_old, 16))
        return err_set(err, -EINVAL, "Image not in Parallels format");
    if (le32_get(h + H_VERSION) != VERSION)
        return err_set(err, -ENOTSUP, "unsupported Parallels image (version %u)", le32_get(h + H_VERSION));
    struct parallels *p = xcalloc(1, sizeof *p);
    n->priv = p;
    uint64_t sectors = le64_get(h + H_SECTORS), cluster = (uint64_t)le32_get(h + H_TRACKS) * 512;
    if (!newer)
        sectors &= UINT32_MAX;
    p->entries = le32_get(h + H_ENTRIES);
    if (!cluster || cluster > 256 * MIB)
        return err_set(err, -EINVAL, "Invalid image: cluster size of %llu bytes", (unsigned long long)cluster);
    if (sectors > INT64_MAX / 512)
        return err_set(err, -EINVAL, "Invalid image: %llu sectors", (unsigned long long)sectors);
    if (sectors * 512 > p->entries * cluster)
        return err_set(err, -EINVAL, "Catalog too small: %u entries for %llu sectors", p->entries, (unsigned long long)sectors);
    if (le64_get(h + H_EXT) && !n->read_only)
        return err_set(err, -ENOTSUP, "%s: images with extensions (dirty bitmaps) can only be read", n->filename);
    p->unit = newer ? cluster : 512;
    code = blocks_read_table(file, "the allocation table", HEADER, 4ull * p->entries, TABLE_MAX, (void **)&p->table, err);
    if (code < 0)
        return code;
    p->data_at = (uint64_t)le32_get(h + H_DATA) * 512;
    if (!p->data_at)
        p->data_at = ALIGN_UP(HEADER + 4ull * p->entries, (uint64_t)512);
    p->end = p->data_at;
    for (uint32_t i = 0; i < p->entries; i++) {
        uint64_t at = le32_get(p->table + 4ull * i) * p->unit;
        p->end = MAX(p->end, at ? at + cluster : 0);
    }
    blk_blocks_init(&p->b, (uint32_t)cluster);
    p->b.look = parallels_look;
    p->b.place = parallels_place;
    p->b.publish = parallels_publish;
    n->size = sectors * 512;
    return 0;
}

static void parallels_close(struct blk_node *n)
{
    struct parallels *p = n->priv;
    blocks_clear(&p->b);
    free(p->table);
    free(p);
}

static int parallels_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    uint64_t size, cluster;
    int code = blk_opts_size(opts, "size", 0, &size, err);
    if (code == 0)
        code = blk_opts_size(opts, "cluster_size", MIB, &cluster, err);
    if (code < 0)
        return code;
    if (!cluster || cluster % 512 || cluster > 256 * MIB)
        return err_set(err, -EINVAL, "Cluster size must be a multiple of 512 bytes and at most 256 MiB");
    size = ALIGN_UP(size, (uint64_t)512);
    uint64_t entries = (size + cluster - 1) / cluster;
    if (entries > TABLE_MAX / 4)
        return err_set(err, -EFBIG, "Image size is too large for this cluster size");
    uint64_t data_at = ALIGN_UP(HEADER + 4 * entries, cluster);
    autofree uint8_t *head = calloc(1, data_at);
    if (!head)
        return err_errno(err, -ENOMEM, "allocation table");
    uint64_t cylinders = size / 512 / 16 / 32;
    memcpy(head, magic_new, 16);
    le32_put(head + H_VERSION, VERSION);
    le32_put(head + H_HEADS, 16);
    le32_put(head + H_CYLINDERS, (uint32_t)MIN(cylinders, (uint64_t)UINT32_MAX));
    le32_put(head + H_TRACKS, (uint32_t)(cluster / 512));
    le32_put(head + H_ENTRIES, (uint32_t)entries);
    le64_put(head + H_SECTORS, size / 512);
    le32_put(head + H_DATA, (uint32_t)(data_at / 512));
    code = blk_pwrite(file, 0, head, data_at, 0);
    return code < 0 ? err_errno(err, code, "cannot write") : 0;
}

static int parallels_check(struct blk_node *n, struct blk_check *c, unsigned fix, struct err *err)
{
    const struct parallels *p = n->priv;
    uint64_t size = blk_node_file(n)->size, previous = 0;
    if (fix)
        return err_set(err, -ENOTSUP, "Parallels images cannot be repaired");
    c->total_clusters = (n->size + p->b.size - 1) / p->b.size;
    for (uint32_t i = 0; i < p->entries; i++) {
        uint64_t at = le32_get(p->table + 4ull * i) * p->unit;
        if (!at)
            continue;
        c->allocated_clusters++;
        if (at >= size || at < p->data_at) {
            char line[96];
            snprintf(line, sizeof line, "ERROR cluster %u is outside image", i);
            c->corruptions++;
            if (c->report)
                c->report(c->opaque, true, line);
        }
        if (previous && at != previous + p->b.size)
            c->fragmented_clusters++;
        previous = at;
    }
    c->image_end_offset = p->end;
    return 0;
}

static const struct blk_create_opt create_opts[] = {
    {"size", BLK_OPT_SIZE, "Virtual disk size", NULL, false},
    {"cluster_size", BLK_OPT_SIZE, "Parallels image cluster size", "1048576", false},
    {NULL},
};

const struct blk_driver blk_parallels = {
    .name = "parallels",
    .probe = parallels_probe,
    .open = parallels_open,
    .close = parallels_close,
    .preadv = blocks_preadv,
    .pwritev = blocks_pwritev,
    .pwrite_zeroes = blocks_pwrite_zeroes,
    .block_status = blocks_block_status,
    .create_opts = create_opts,
    .create = parallels_create,
    .check = parallels_check,
};
