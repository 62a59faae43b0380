/*
 * Hyper-V's VHDX: two headers, two region tables, metadata, a block allocation table (BAT) of 8-byte entries, blocks of 1 to
 * 256 MiB ([MS-VHDX]). A log that was not replayed is refused: its entries may be newer than the file. BAT entries are written
 * one at a time after the block's data, which a sector write makes atomic, so that we need no log. Differencing images are
 * refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/blocks.h"

enum {
    HEADER_1 = 64 << 10,
    HEADER_2 = 128 << 10,
    HEADER = 4096,
    REGIONS_1 = 192 << 10,
    REGIONS_2 = 256 << 10,
    REGIONS = 64 << 10,
    METADATA = 64 << 10, /* of its table */
    ENTRIES_MAX = 2047,
    /* offsets in a header */
    H_CHECKSUM = 4,
    H_SEQUENCE = 8,
    H_FILE_GUID = 16,
    H_DATA_GUID = 32,
    H_LOG_GUID = 48,
    H_LOG_VERSION = 64,
    H_VERSION = 66,
    H_LOG_LENGTH = 68,
    H_LOG_AT = 72,
    /* BAT states */
    STATE_ZERO = 2,
    STATE_UNMAPPED = 3,
    STATE_PRESENT = 6,
    STATE_PARTIAL = 7,
    STATE_MASK = 7,
    FILE_LEAVE_ALLOCATED = 1,
    FILE_HAS_PARENT = 2,
};
#define TABLE_MAX (256 * MIB)
#define DISK_MAX (64ull << 40)
#define CHUNK_SECTORS (1ull << 23)

/* GUIDs as they stand in the file: the first three fields are little-endian. */
static const uint8_t guid_bat[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                     0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t guid_metadata[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                          0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
static const uint8_t guid_parameters[16] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                            0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
static const uint8_t guid_size[16] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                      0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
static const uint8_t guid_page83[16] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                        0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
static const uint8_t guid_logical[16] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                         0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
static const uint8_t guid_physical[16] = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                          0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
static const uint8_t guid_none[16];

struct vhdx {
    struct blocks b; /* first */
    uint8_t header[HEADER];
    bool second;  /* the current header is the second one */
    bool touched; /* its GUIDs were renewed */
    uint8_t *bat;
    uint64_t bat_at, bat_len, metadata_at, entries, ratio, end;
};

/* CRC-32C (Castagnoli), bit by bit: for a few headers only. */
static uint32_t crc32c(const uint8_t *p, size_t len)
{
    uint32_t crc = ~0u;
    while (len--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* The checksum field counts as zero. */
static bool sum_right(uint8_t *p, size_t len)
{
    uint32_t had = le32_get(p + 4);
    le32_put(p + 4, 0);
    bool right = crc32c(p, len) == had;
    le32_put(p + 4, had);
    return right;
}

static void put_sum(uint8_t *p, size_t len)
{
    le32_put(p + 4, 0);
    le32_put(p + 4, crc32c(p, len));
}

static int vhdx_probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= 8 && !memcmp(head, "vhdxfile", 8) ? 100 : 0;
}

/* ---- data ---- */

/* One entry for a sector bitmap follows each `ratio` of them. */
static uint64_t bat_index(const struct vhdx *v, uint64_t block)
{
    return block + block / v->ratio;
}

static int vhdx_look(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    const struct vhdx *v = n->priv;
    uint64_t i = bat_index(v, index);
    if (i >= v->entries)
        return -EIO;
    uint64_t e = le64_get(v->bat + 8 * i);
    unsigned state = e & STATE_MASK;
    if (state == STATE_PARTIAL)
        return -ENOTSUP;
    ret->kind = state == STATE_PRESENT ? BLOCK_DATA : BLOCK_ZERO;
    ret->host = e & ~(MIB - 1);
    return ret->kind == BLOCK_DATA && (!ret->host || ret->host >= blk_node_file(n)->size) ? -EIO : 0;
}

/* Before the first change: other programs' caches and logs of this file are void now. */
static int touch(struct blk_node *n)
{
    struct vhdx *v = n->priv;
    if (v->touched)
        return 0;
    le64_put(v->header + H_SEQUENCE, le64_get(v->header + H_SEQUENCE) + 1);
    if (getrandom(v->header + H_FILE_GUID, 32, 0) != 32)
        return -errno;
    put_sum(v->header, HEADER);
    int code = blk_pwrite(blk_node_file(n), v->second ? HEADER_1 : HEADER_2, v->header, HEADER, 0);
    if (code == 0)
        code = blk_pflush(blk_node_file(n));
    if (code == 0) {
        v->second = !v->second;
        v->touched = true;
    }
    return code;
}

static int vhdx_place(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    struct vhdx *v = n->priv;
    struct blk_node *file = blk_node_file(n);
    ret->host = v->end;
    int code = touch(n);
    if (code == 0 && file->size < ret->host + v->b.size)
        code = blk_truncate(file, ret->host + v->b.size, BLK_PREALLOC_OFF, false, NULL);
    return code;
}

static int vhdx_publish(struct blk_node *n, uint64_t index, const struct block_at *at)
{
    struct vhdx *v = n->priv;
    uint64_t i = bat_index(v, index);
    uint8_t entry[8];
    le64_put(entry, at->host | STATE_PRESENT);
    int code = blk_pwrite(blk_node_file(n), v->bat_at + 8 * i, entry, 8, 0);
    if (code == 0) {
        memcpy(v->bat + 8 * i, entry, 8);
        v->end = at->host + v->b.size;
    }
    return code;
}

static int vhdx_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                        unsigned flags)
{
    struct vhdx *v = n->priv;
    pthread_mutex_lock(&v->b.lock);
    int code = touch(n);
    pthread_mutex_unlock(&v->b.lock);
    return code < 0 ? code : blocks_pwritev(n, offset, iov, niov, len, flags);
}

/* ---- opening ---- */

static int read_headers(struct blk_node *n, struct vhdx *v, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    uint8_t h[2][HEADER];
    bool good[2] = {false, false};
    for (int i = 0; i < 2; i++)
        good[i] = blk_pread(file, i ? HEADER_2 : HEADER_1, h[i], HEADER) == 0 && !memcmp(h[i], "head", 4) &&
                  sum_right(h[i], HEADER) && le16_get(h[i] + H_VERSION) == 1;
    if (!good[0] && !good[1])
        return err_set(err, -EINVAL, "%s: both headers are damaged", n->filename);
    v->second = !good[0] || (good[1] && le64_get(h[1] + H_SEQUENCE) > le64_get(h[0] + H_SEQUENCE));
    memcpy(v->header, h[v->second], HEADER);
    if (memcmp(v->header + H_LOG_GUID, guid_none, 16))
        return err_set(err, -EUCLEAN,
                       "%s: contains a log that must be replayed first: open it once in Hyper-V, or with qemu-img check -r "
                       "all",
                       n->filename);
    return 0;
}

static int read_regions(struct blk_node *n, struct vhdx *v, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    autofree uint8_t *r = malloc(REGIONS);
    bool good = false;
    if (!r)
        return err_errno(err, -ENOMEM, "region table");
    for (int i = 0; i < 2 && !good; i++)
        good = blk_pread(file, i ? REGIONS_2 : REGIONS_1, r, REGIONS) == 0 && !memcmp(r, "regi", 4) && sum_right(r, REGIONS);
    uint32_t count = good ? le32_get(r + 8) : 0;
    if (!good || count > ENTRIES_MAX)
        return err_set(err, -EINVAL, "%s: both region tables are damaged", n->filename);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *e = r + 16 + 32 * i;
        if (!memcmp(e, guid_bat, 16)) {
            v->bat_at = le64_get(e + 16);
            v->bat_len = le32_get(e + 24);
        } else if (!memcmp(e, guid_metadata, 16)) {
            v->metadata_at = le64_get(e + 16);
        } else if (le32_get(e + 28) & 1) {
            return err_set(err, -ENOTSUP, "%s: has a region of an unknown kind that must be understood", n->filename);
        }
    }
    return v->bat_at && v->metadata_at ? 0 : err_set(err, -EINVAL, "%s: a region is missing", n->filename);
}

/* An item of the metadata; 0 when it is not there, -errno, or its length. */
static int item(struct blk_node *n, const struct vhdx *v, const uint8_t *table, const uint8_t *guid, uint8_t *buf, size_t len)
{
    uint16_t count = le16_get(table + 10);
    for (unsigned i = 0; i < count && i < ENTRIES_MAX; i++) {
        const uint8_t *e = table + 32 + 32 * i;
        if (memcmp(e, guid, 16))
            continue;
        if (le32_get(e + 20) < len)
            return -EINVAL;
        int code = blk_pread(blk_node_file(n), v->metadata_at + le32_get(e + 16), buf, len);
        return code < 0 ? code : (int)len;
    }
    return 0;
}

static int read_metadata(struct blk_node *n, struct vhdx *v, struct err *err)
{
    uint8_t *raw;
    uint8_t parameters[8], size[8], logical[4];
    int code = blocks_read_table(blk_node_file(n), "the metadata", v->metadata_at, METADATA, METADATA, (void **)&raw, err);
    if (code < 0)
        return code;
    autofree uint8_t *table = raw;
    if (memcmp(table, "metadata", 8))
        return err_set(err, -EINVAL, "%s: the metadata region is damaged", n->filename);
    if (item(n, v, table, guid_parameters, parameters, 8) <= 0 || item(n, v, table, guid_size, size, 8) <= 0 ||
        item(n, v, table, guid_logical, logical, 4) <= 0)
        return err_set(err, -EINVAL, "%s: metadata is missing", n->filename);
    uint32_t block = le32_get(parameters), sector = le32_get(logical);
    n->size = le64_get(size);
    if (le32_get(parameters + 4) & FILE_HAS_PARENT)
        return err_set(err, -ENOTSUP, "%s: differencing VHDX images are not supported", n->filename);
    if (block < MIB || block > 256 * MIB || (block & (block - 1)))
        return err_set(err, -EINVAL, "%s: invalid block size %u", n->filename, block);
    if (sector != 512 && sector != 4096)
        return err_set(err, -EINVAL, "%s: invalid sector size %u", n->filename, sector);
    if (n->size > DISK_MAX || n->size % 512)
        return err_set(err, -EINVAL, "%s: invalid disk size %llu", n->filename, (unsigned long long)n->size);
    n->cluster_size = block;
    n->block_size = sector;
    v->ratio = CHUNK_SECTORS * sector / block;
    return 0;
}

static int vhdx_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct vhdx *v = xcalloc(1, sizeof *v);
    struct blk_node *file = blk_node_file(n);
    uint8_t magic[8];
    n->priv = v;
    int code = blk_pread(file, 0, magic, 8);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", n->filename);
    if (memcmp(magic, "vhdxfile", 8))
        return err_set(err, -EINVAL, "Image not in VHDX format");
    if ((code = read_headers(n, v, err)) < 0 || (code = read_regions(n, v, err)) < 0 || (code = read_metadata(n, v, err)) < 0)
        return code;
    uint64_t block = n->cluster_size, blocks = (n->size + block - 1) / block;
    v->entries = blocks ? bat_index(v, blocks - 1) + 1 : 0;
    if (v->entries * 8 > v->bat_len)
        return err_set(err, -EINVAL, "%s: the block table is too short", n->filename);
    code = blocks_read_table(file, "the block table", v->bat_at, v->entries * 8, TABLE_MAX, (void **)&v->bat, err);
    if (code < 0)
        return code;
    v->end = ALIGN_UP((uint64_t)file->size, MIB);
    blk_blocks_init(&v->b, (uint32_t)block);
    v->b.holes = true;
    v->b.look = vhdx_look;
    v->b.place = vhdx_place;
    v->b.publish = vhdx_publish;
    return 0;
}

static void vhdx_close(struct blk_node *n)
{
    struct vhdx *v = n->priv;
    blocks_clear(&v->b);
    free(v->bat);
    free(v);
}

/* ---- creating ---- */

/* Where the parts go; all of them at multiples of 1 MiB. */
struct layout {
    uint64_t size, block, log, bat_len;
    bool fixed;
};
enum { LOG_AT = 1 << 20 };

static void put_metadata(uint8_t *m, const struct layout *l)
{
    static const struct {
        const uint8_t *guid;
        uint32_t len, flags; /* 1: user, 2: virtual disk, 4: required */
    } items[] = {{guid_parameters, 8, 4}, {guid_size, 8, 6}, {guid_page83, 16, 6}, {guid_logical, 4, 6}, {guid_physical, 4, 6}};
    uint32_t at = METADATA;
    memcpy(m, "metadata", 8);
    le16_put(m + 10, ARRAY_SIZE(items));
    for (unsigned i = 0; i < ARRAY_SIZE(items); i++) {
        uint8_t *e = m + 32 + 32 * i;
        memcpy(e, items[i].guid, 16);
        le32_put(e + 16, at);
        le32_put(e + 20, items[i].len);
        le32_put(e + 24, items[i].flags);
        at += items[i].len;
    }
    uint8_t *v = m + METADATA;
    le32_put(v, (uint32_t)l->block);
    le32_put(v + 4, l->fixed ? FILE_LEAVE_ALLOCATED : 0);
    le64_put(v + 8, l->size);
    if (getrandom(v + 16, 16, 0) != 16)
        memset(v + 16, 1, 16);
    le32_put(v + 32, 512);
    le32_put(v + 36, 512);
}

static int write_image(struct blk_node *file, const struct layout *l, struct err *err)
{
    uint64_t metadata_at = LOG_AT + l->log, bat_at = metadata_at + MIB, data_at = bat_at + l->bat_len;
    uint64_t blocks = (l->size + l->block - 1) / l->block, ratio = CHUNK_SECTORS * 512 / l->block;
    autofree uint8_t *buf = calloc(1, MIB), *bat = calloc(1, l->bat_len);
    static const char creator[] = "Lodge";
    if (!buf || !bat)
        return err_errno(err, -ENOMEM, "image");
    memcpy(buf, "vhdxfile", 8);
    for (unsigned i = 0; i < sizeof creator - 1; i++)
        buf[8 + 2 * i] = (uint8_t)creator[i];
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *h = buf + (i ? HEADER_2 : HEADER_1);
        memcpy(h, "head", 4);
        le64_put(h + H_SEQUENCE, i);
        if (getrandom(h + H_FILE_GUID, 32, 0) != 32)
            return err_errno(err, -errno, "cannot make a GUID");
        le16_put(h + H_VERSION, 1);
        le32_put(h + H_LOG_LENGTH, (uint32_t)l->log);
        le64_put(h + H_LOG_AT, LOG_AT);
        put_sum(h, HEADER);
        uint8_t *r = buf + (i ? REGIONS_2 : REGIONS_1);
        memcpy(r, "regi", 4);
        le32_put(r + 8, 2);
        memcpy(r + 16, guid_bat, 16);
        le64_put(r + 32, bat_at);
        le32_put(r + 40, (uint32_t)l->bat_len);
        le32_put(r + 44, 1);
        memcpy(r + 48, guid_metadata, 16);
        le64_put(r + 64, metadata_at);
        le32_put(r + 72, MIB);
        le32_put(r + 76, 1);
        put_sum(r, REGIONS);
    }
    int code = blk_truncate(file, data_at + (l->fixed ? blocks * l->block : 0), BLK_PREALLOC_OFF, true, err);
    if (code < 0)
        return code;
    code = blk_pwrite(file, 0, buf, REGIONS_2 + REGIONS, 0);
    memset(buf, 0, MIB);
    put_metadata(buf, l);
    if (code == 0)
        code = blk_pwrite(file, metadata_at, buf, METADATA + 64, 0);
    for (uint64_t i = 0; i < blocks && l->fixed; i++)
        le64_put(bat + 8 * (i + i / ratio), (data_at + i * l->block) | STATE_PRESENT);
    for (uint64_t i = 0; i < blocks && !l->fixed; i++)
        le64_put(bat + 8 * (i + i / ratio), STATE_ZERO);
    if (code == 0)
        code = blk_pwrite(file, bat_at, bat, l->bat_len, 0);
    return code < 0 ? err_errno(err, code, "cannot write") : 0;
}

static int vhdx_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    struct layout l = {0};
    bool zero;
    const char *sub = blk_opts_get(opts, "subformat");
    int code = blk_opts_size(opts, "size", 0, &l.size, err);
    if (code == 0)
        code = blk_opts_size(opts, "block_size", 0, &l.block, err);
    if (code == 0)
        code = blk_opts_size(opts, "log_size", MIB, &l.log, err);
    if (code == 0)
        code = blk_opts_bool(opts, "block_state_zero", true, &zero, err);
    if (code < 0)
        return code;
    l.fixed = sub && !strcmp(sub, "fixed");
    if (sub && !l.fixed && strcmp(sub, "dynamic"))
        return err_set(err, -EINVAL, "Invalid subformat '%s'", sub);
    l.size = ALIGN_UP(l.size, (uint64_t)512);
    if (l.size > DISK_MAX)
        return err_set(err, -EINVAL, "Image size too large; max of 64TB");
    if (!l.block)
        l.block = l.size > 32ull << 40 ? 64 * MIB : l.size > 100 * GIB ? 32 * MIB : l.size > GIB ? 16 * MIB : 8 * MIB;
    if (l.block < MIB || l.block > 256 * MIB || (l.block & (l.block - 1)))
        return err_set(err, -EINVAL, "Block size must be a power of two from 1 MiB to 256 MiB");
    if (l.log < MIB || l.log % MIB || l.log > UINT32_MAX)
        return err_set(err, -EINVAL, "Log size must be a multiple of 1 MB");
    uint64_t blocks = (l.size + l.block - 1) / l.block, ratio = CHUNK_SECTORS * 512 / l.block;
    /* The last chunk's bitmap entry has its place, too. */
    l.bat_len = ALIGN_UP(MAX(8 * (blocks + (blocks + ratio - 1) / ratio), 1ull), MIB);
    return write_image(file, &l, err);
}

/* Each block inside the file, aligned, and used once. */
static int vhdx_check(struct blk_node *n, struct blk_check *c, unsigned fix, struct err *err)
{
    struct vhdx *v = n->priv;
    uint64_t units = blk_node_file(n)->size / MIB + 1, per_block = v->b.size / MIB;
    if (fix)
        return err_set(err, -ENOTSUP, "VHDX images cannot be repaired");
    autofree uint8_t *used = calloc(1, units / 8 + 1);
    if (!used)
        return err_errno(err, -ENOMEM, "check");
    for (uint64_t i = 0; i < v->entries; i++) {
        uint64_t e = le64_get(v->bat + 8 * i), at = e >> 20;
        if ((e & STATE_MASK) != STATE_PRESENT || i % (v->ratio + 1) == v->ratio)
            continue;
        bool bad = !at || at + per_block > units;
        for (uint64_t k = at; !bad && k < at + per_block; k++) {
            bad = used[k / 8] & 1 << k % 8;
            used[k / 8] |= (uint8_t)(1 << k % 8);
        }
        if (!bad)
            continue;
        char line[96];
        snprintf(line, sizeof line, "ERROR block table entry %llu: offset %#llx", (unsigned long long)i,
                 (unsigned long long)(at << 20));
        c->corruptions++;
        if (c->report && c->corruptions < 1000)
            c->report(c->opaque, true, line);
    }
    return 0;
}

static const struct blk_create_opt create_opts[] = {
    {"size", BLK_OPT_SIZE, "Virtual disk size; max of 64TB.", NULL, false},
    {"log_size", BLK_OPT_SIZE, "Log size; min 1MB.", "1048576", false},
    {"block_size", BLK_OPT_SIZE, "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.", "0", false},
    {"subformat", BLK_OPT_STRING, "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.", NULL, false},
    {"block_state_zero", BLK_OPT_BOOL, "Accepted for compatibility; blocks that are not there always read as zeroes", NULL,
     false},
    {NULL},
};

const struct blk_driver blk_vhdx = {
    .name = "vhdx",
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .preadv = blocks_preadv,
    .pwritev = vhdx_pwritev,
    .pwrite_zeroes = blocks_pwrite_zeroes,
    .block_status = blocks_block_status,
    .create_opts = create_opts,
    .create = vhdx_create,
    .check = vhdx_check,
};
