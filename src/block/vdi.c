/*
 * VirtualBox's VDI: a header, a table with the number of each block's place (or none), blocks of 1 MiB. Dynamic and static
 * images; differencing ones are refused. The table is in memory, written entry by entry after the block's data.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/blocks.h"

enum {
    HEADER = 512,
    SIGNATURE = 0xbeda107f,
    VERSION_1_1 = 0x00010001,
    TYPE_DYNAMIC = 1,
    TYPE_STATIC = 2,
    BLOCK = 1 << 20,
    /* offsets in the header */
    H_SIGNATURE = 64,
    H_VERSION = 68,
    H_HEADER_SIZE = 72,
    H_TYPE = 76,
    H_TABLE = 340,
    H_DATA = 344,
    H_SECTOR_SIZE = 360,
    H_DISK_SIZE = 368,
    H_BLOCK_SIZE = 376,
    H_BLOCK_EXTRA = 380,
    H_BLOCKS = 384,
    H_ALLOCATED = 388,
    H_UUID = 392,
    H_UUID_SNAPSHOT = 408,
    H_UUID_LINK = 424,
    H_UUID_PARENT = 440,
};
#define ENTRY_NONE 0xffffffffu
#define ENTRY_ZERO 0xfffffffeu
#define TABLE_MAX (256 * MIB)

struct vdi {
    struct blocks b; /* first */
    uint8_t *table;  /* as in the file */
    uint32_t blocks, allocated, table_at, data_at;
};

static int vdi_probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= H_SIGNATURE + 4 && le32_get(head + H_SIGNATURE) == SIGNATURE ? 100 : 0;
}

static int vdi_look(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    const struct vdi *v = n->priv;
    uint32_t e = index < v->blocks ? le32_get(v->table + 4 * index) : ENTRY_NONE;
    if (e == ENTRY_NONE || e == ENTRY_ZERO) {
        ret->kind = BLOCK_ZERO;
        return 0;
    }
    if (e >= v->allocated)
        return -EIO;
    ret->kind = BLOCK_DATA;
    ret->host = v->data_at + (uint64_t)e * BLOCK;
    return 0;
}

static int vdi_place(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    const struct vdi *v = n->priv;
    struct blk_node *file = blk_node_file(n);
    ret->host = v->data_at + (uint64_t)v->allocated * BLOCK;
    if (v->allocated >= ENTRY_ZERO)
        return -EFBIG;
    return file->size < ret->host + BLOCK ? blk_truncate(file, ret->host + BLOCK, BLK_PREALLOC_OFF, false, NULL) : 0;
}

static int vdi_publish(struct blk_node *n, uint64_t index, const struct block_at *at)
{
    struct vdi *v = n->priv;
    struct blk_node *file = blk_node_file(n);
    uint8_t entry[4], count[4];
    le32_put(entry, v->allocated);
    le32_put(count, v->allocated + 1);
    int code = blk_pwrite(file, H_ALLOCATED, count, 4, 0);
    if (code == 0)
        code = blk_pwrite(file, v->table_at + 4 * index, entry, 4, 0);
    if (code == 0) {
        memcpy(v->table + 4 * index, entry, 4);
        v->allocated++;
    }
    return code;
}

static bool is_zero(const uint8_t *p, size_t len)
{
    while (len--)
        if (*p++)
            return false;
    return true;
}

static int vdi_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    uint8_t h[HEADER];
    int code = blk_pread(file, 0, h, sizeof h);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", n->filename);
    if (le32_get(h + H_SIGNATURE) != SIGNATURE)
        return err_set(err, -EINVAL, "Image not in VDI format (bad signature %08x)", le32_get(h + H_SIGNATURE));
    if (le32_get(h + H_VERSION) != VERSION_1_1)
        return err_set(err, -ENOTSUP, "unsupported VDI image (version %u.%u)", le32_get(h + H_VERSION) >> 16,
                       le32_get(h + H_VERSION) & 0xffff);
    struct vdi *v = xcalloc(1, sizeof *v);
    n->priv = v;
    uint64_t size = le64_get(h + H_DISK_SIZE);
    v->table_at = le32_get(h + H_TABLE);
    v->data_at = le32_get(h + H_DATA);
    v->blocks = le32_get(h + H_BLOCKS);
    v->allocated = le32_get(h + H_ALLOCATED);
    uint32_t type = le32_get(h + H_TYPE);
    if (type != TYPE_DYNAMIC && type != TYPE_STATIC)
        return err_set(err, -ENOTSUP, "unsupported VDI image (type %u: only dynamic and static ones)", type);
    if (v->table_at % 512 || v->data_at % 512)
        return err_set(err, -EINVAL, "unsupported VDI image (unaligned block map or data at %#x, %#x)", v->table_at,
                       v->data_at);
    if (le32_get(h + H_SECTOR_SIZE) != 512 || le32_get(h + H_BLOCK_SIZE) != BLOCK || le32_get(h + H_BLOCK_EXTRA))
        return err_set(err, -ENOTSUP, "unsupported VDI image (sector size %u, block size %u)",
                       le32_get(h + H_SECTOR_SIZE), le32_get(h + H_BLOCK_SIZE));
    if (size > (uint64_t)v->blocks * BLOCK)
        return err_set(err, -EINVAL, "unsupported VDI image (disk size %llu, image bitmap has room for %llu)",
                       (unsigned long long)size, (unsigned long long)v->blocks * BLOCK);
    if (!is_zero(h + H_UUID_LINK, 16) || !is_zero(h + H_UUID_PARENT, 16))
        return err_set(err, -ENOTSUP, "unsupported VDI image (it has a parent image)");
    code = blocks_read_table(file, "the block map", v->table_at, 4ull * v->blocks, TABLE_MAX, (void **)&v->table, err);
    if (code < 0)
        return code;
    blk_blocks_init(&v->b, BLOCK);
    v->b.holes = type == TYPE_STATIC;
    v->b.look = vdi_look;
    v->b.place = vdi_place;
    v->b.publish = vdi_publish;
    n->size = ALIGN_UP(size, (uint64_t)512);
    n->cluster_size = BLOCK;
    return 0;
}

static void vdi_close(struct blk_node *n)
{
    struct vdi *v = n->priv;
    blocks_clear(&v->b);
    free(v->table);
    free(v);
}

static int vdi_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    uint8_t h[HEADER] = "<<< Lodge VDI disk image >>>\n";
    uint64_t size;
    bool is_static;
    int code = blk_opts_size(opts, "size", 0, &size, err);
    if (code == 0)
        code = blk_opts_bool(opts, "static", false, &is_static, err);
    if (code < 0)
        return code;
    size = ALIGN_UP(size, (uint64_t)512);
    uint64_t blocks = (size + BLOCK - 1) / BLOCK;
    if (blocks * 4 > TABLE_MAX)
        return err_set(err, -EFBIG, "Unsupported VDI image size (size is 0x%llx, max supported is 0x%llx)",
                       (unsigned long long)size, (unsigned long long)(TABLE_MAX / 4 * BLOCK));
    uint64_t table_bytes = ALIGN_UP(blocks * 4, (uint64_t)512);
    le32_put(h + H_SIGNATURE, SIGNATURE);
    le32_put(h + H_VERSION, VERSION_1_1);
    le32_put(h + H_HEADER_SIZE, 0x180);
    le32_put(h + H_TYPE, is_static ? TYPE_STATIC : TYPE_DYNAMIC);
    le32_put(h + H_TABLE, HEADER);
    le32_put(h + H_DATA, (uint32_t)(HEADER + table_bytes));
    le32_put(h + H_SECTOR_SIZE, 512);
    le64_put(h + H_DISK_SIZE, size);
    le32_put(h + H_BLOCK_SIZE, BLOCK);
    le32_put(h + H_BLOCKS, (uint32_t)blocks);
    le32_put(h + H_ALLOCATED, is_static ? (uint32_t)blocks : 0);
    if (getrandom(h + H_UUID, 16, 0) != 16 || getrandom(h + H_UUID_SNAPSHOT, 16, 0) != 16)
        return err_errno(err, -errno, "cannot make an UUID");
    autofree uint8_t *table = malloc(table_bytes ? table_bytes : 1);
    if (!table)
        return err_errno(err, -ENOMEM, "block map");
    memset(table, 0, table_bytes);
    for (uint64_t i = 0; i < blocks; i++)
        le32_put(table + 4 * i, is_static ? (uint32_t)i : ENTRY_NONE);
    code = blk_pwrite(file, 0, h, sizeof h, 0);
    if (code == 0 && table_bytes)
        code = blk_pwrite(file, HEADER, table, table_bytes, 0);
    if (code < 0)
        return err_errno(err, code, "cannot write");
    return is_static ? blk_truncate(file, HEADER + table_bytes + blocks * BLOCK, BLK_PREALLOC_OFF, false, err) : 0;
}

/* Each place is used by one block at most, and is inside the file. */
static int vdi_check(struct blk_node *n, struct blk_check *c, unsigned fix, struct err *err)
{
    const struct vdi *v = n->priv;
    if (fix)
        return err_set(err, -ENOTSUP, "VDI images cannot be repaired");
    autofree uint8_t *used = calloc(1, v->allocated / 8 + 1);
    if (!used && v->allocated)
        return err_errno(err, -ENOMEM, "check");
    char line[128];
    uint32_t found = 0;
    for (uint32_t i = 0; i < v->blocks; i++) {
        uint32_t e = le32_get(v->table + 4ull * i);
        if (e >= ENTRY_ZERO)
            continue;
        found++;
        bool bad = e >= v->allocated, twice = !bad && (used[e / 8] & 1 << e % 8);
        if (!bad)
            used[e / 8] |= (uint8_t)(1 << e % 8);
        if (!bad && !twice)
            continue;
        c->corruptions++;
        snprintf(line, sizeof line, bad ? "ERROR: block index %u out of range, is %u" : "ERROR: block %u uses place %u, which another one has", i, e);
        if (c->report)
            c->report(c->opaque, true, line);
    }
    if (found != v->allocated) {
        c->corruptions++;
        snprintf(line, sizeof line, "ERROR: allocated blocks mismatch, is %u, should be %u", found, v->allocated);
        if (c->report)
            c->report(c->opaque, true, line);
    }
    return 0;
}

static const struct blk_create_opt create_opts[] = {
    {"size", BLK_OPT_SIZE, "Virtual disk size", NULL, false},
    {"static", BLK_OPT_BOOL, "VDI static (pre-allocated) image", "off", false},
    {NULL},
};

const struct blk_driver blk_vdi = {
    .name = "vdi",
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .preadv = blocks_preadv,
    .pwritev = blocks_pwritev,
    .pwrite_zeroes = blocks_pwrite_zeroes,
    .block_status = blocks_block_status,
    .create_opts = create_opts,
    .create = vdi_create,
    .check = vdi_check,
};
