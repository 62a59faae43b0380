/*
 * VMware's VMDK: a disk made of extents, flat files or sparse ones with a two-level table of grains (Virtual Disk Format 5.0).
 * This file is the data path; see vmdk.h for the others. Grain tables are cached and written entry by entry, in both copies.
 */
#include "block/vmdk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"

enum { MARKER = 12, PACKED_MAX = 64 << 20 };

static struct vmdk_extent *extent_at(struct vmdk *v, uint64_t offset)
{
    unsigned lo = 0, hi = v->n_extents;
    while (hi - lo > 1) {
        unsigned mid = (lo + hi) / 2;
        if (v->extents[mid].start <= offset)
            lo = mid;
        else
            hi = mid;
    }
    struct vmdk_extent *e = &v->extents[lo];
    return v->n_extents && offset - e->start < e->len ? e : NULL;
}

/* The grain table at a sector, from memory or the file. Lock held. */
static int load(struct vmdk *v, struct vmdk_extent *e, uint32_t sector, struct vmdk_table **ret)
{
    struct vmdk_table *t = &e->cache[0];
    size_t bytes = 4ull * e->gtes;
    for (unsigned i = 0; i < VMDK_CACHE; i++) {
        if (e->cache[i].at == sector) {
            e->cache[i].used = ++v->clock;
            *ret = &e->cache[i];
            return 0;
        }
        if (e->cache[i].used < t->used)
            t = &e->cache[i];
    }
    uint64_t at = (uint64_t)sector * 512;
    if (at > e->file->size)
        return -EIO;
    t->at = 0;
    if (!t->entries && !(t->entries = malloc(bytes)))
        return -ENOMEM;
    int code = blk_pread(e->file, at, t->entries, bytes);
    if (code < 0)
        return code;
    t->at = sector;
    t->used = ++v->clock;
    *ret = t;
    return 0;
}

/* Where the table of a grain is, and its entry in there. *ret_t NULL: there is no table. */
static int find(struct vmdk *v, struct vmdk_extent *e, uint64_t offset, struct vmdk_table **ret_t, uint32_t *ret_gd,
                uint32_t *ret_gt)
{
    uint64_t grain = (offset - e->start) / e->grain;
    *ret_t = NULL;
    *ret_gd = (uint32_t)(grain / e->gtes);
    *ret_gt = (uint32_t)(grain % e->gtes);
    if (*ret_gd >= e->gd_entries)
        return -EIO;
    uint32_t sector = le32_get(e->gd + 4ull * *ret_gd);
    return sector ? load(v, e, sector, ret_t) : 0;
}

int vmdk_look(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    struct vmdk *v = n->priv;
    uint64_t offset = index * v->b.size;
    struct vmdk_extent *e = extent_at(v, offset);
    struct vmdk_table *t;
    uint32_t gd, gt;
    if (!e || e->kind == VMDK_ZERO) {
        ret->kind = BLOCK_ZERO;
        return 0;
    }
    ret->file = e->file;
    if (e->kind == VMDK_FLAT) {
        ret->kind = BLOCK_DATA;
        ret->host = e->flat_at + (offset - e->start);
        return 0;
    }
    int code = find(v, e, offset, &t, &gd, &gt);
    if (code < 0 || !t)
        return code;
    uint32_t sector = le32_get(t->entries + 4ull * gt);
    if (!sector)
        return 0;
    if (sector == 1 && e->zero_grain) {
        ret->kind = BLOCK_ZERO;
        return 0;
    }
    ret->host = (uint64_t)sector * 512;
    if (ret->host >= e->file->size)
        return -EIO;
    ret->kind = e->compressed ? BLOCK_PACKED : BLOCK_DATA;
    ret->packed = e->compressed ? 1 : 0;
    return 0;
}

/* Puts a grain table's entry into both copies. */
static int enter(struct blk_node *n, uint64_t index, uint32_t sector)
{
    struct vmdk *v = n->priv;
    uint64_t offset = index * v->b.size;
    struct vmdk_extent *e = extent_at(v, offset);
    struct vmdk_table *t;
    uint32_t gd, gt;
    uint8_t entry[4];
    int code = e ? find(v, e, offset, &t, &gd, &gt) : -EINVAL;
    if (code < 0)
        return code;
    if (!t)
        return -EIO; /* extents that lack tables are read-only */
    le32_put(entry, sector);
    code = blk_pwrite(e->file, (uint64_t)t->at * 512 + 4ull * gt, entry, 4, 0);
    if (code == 0 && e->rgd) {
        uint32_t other = le32_get(e->rgd + 4ull * gd);
        if (other)
            code = blk_pwrite(e->file, (uint64_t)other * 512 + 4ull * gt, entry, 4, 0);
    }
    if (code == 0)
        memcpy(t->entries + 4ull * gt, entry, 4);
    return code;
}

int vmdk_place(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    struct vmdk *v = n->priv;
    struct vmdk_extent *e = extent_at(v, index * v->b.size);
    if (!e || e->kind != VMDK_SPARSE || e->compressed)
        return -EROFS;
    ret->file = e->file;
    ret->host = e->end;
    if (ret->host / 512 > UINT32_MAX)
        return -EFBIG;
    int code = vmdk_touch(n);
    if (code == 0 && e->file->size < ret->host + e->grain)
        code = blk_truncate(e->file, ret->host + e->grain, BLK_PREALLOC_OFF, false, NULL);
    return code;
}

int vmdk_publish(struct blk_node *n, uint64_t index, const struct block_at *at)
{
    struct vmdk *v = n->priv;
    struct vmdk_extent *e = extent_at(v, index * v->b.size);
    int code = enter(n, index, (uint32_t)(at->host / 512));
    if (code == 0)
        e->end = at->host + e->grain;
    return code;
}

int vmdk_forget(struct blk_node *n, uint64_t index)
{
    struct vmdk *v = n->priv;
    struct vmdk_extent *e = extent_at(v, index * v->b.size);
    struct block_at at = {0};
    if (!e || e->kind != VMDK_SPARSE || !e->zero_grain || vmdk_look(n, index, &at) < 0 || at.kind != BLOCK_NONE)
        return -ENOTSUP; /* what has a place is written there */
    int code = vmdk_touch(n);
    return code < 0 ? code : enter(n, index, 1);
}

/* ---- compressed grains: a marker {sector, bytes}, then a zlib stream ---- */

int vmdk_unpack(struct blk_node *n, const struct block_at *at, uint8_t *buf)
{
    struct vmdk *v = n->priv;
    uint8_t marker[MARKER];
    int code = blk_pread(at->file, at->host, marker, MARKER);
    if (code < 0)
        return code;
    uint32_t bytes = le32_get(marker + 8);
    if (!bytes || bytes > PACKED_MAX || bytes > v->b.size * 2u + 1024)
        return -EINVAL;
    autofree uint8_t *packed = malloc(bytes);
    if (!packed)
        return -ENOMEM;
    code = blk_pread(at->file, at->host + MARKER, packed, bytes);
    if (code < 0)
        return code;
    uLongf len = v->b.size;
    if (uncompress(buf, &len, packed, bytes) != Z_OK)
        return -EIO;
    memset(buf + len, 0, v->b.size - len);
    return 0;
}

static int vmdk_pwritev_compressed(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct vmdk *v = n->priv;
    struct vmdk_extent *e = extent_at(v, offset);
    if (!e || !e->compressed)
        return -ENOTSUP;
    if (offset % v->b.size || len > v->b.size)
        return -EINVAL;
    uLongf bytes = compressBound(v->b.size);
    autofree uint8_t *out = malloc(MARKER + bytes + 512), *in = calloc(1, v->b.size);
    if (!out || !in)
        return -ENOMEM;
    iov_read(iov, niov, 0, in, len);
    if (compress(out + MARKER, &bytes, in, v->b.size) != Z_OK)
        return -EIO;
    le64_put(out, (offset - e->start) / 512);
    le32_put(out + 8, (uint32_t)bytes);
    size_t all = ALIGN_UP(MARKER + bytes, 512ul);
    memset(out + MARKER + bytes, 0, all - MARKER - bytes);
    pthread_mutex_lock(&v->b.lock);
    struct block_at at = {0};
    int code = vmdk_look(n, offset / v->b.size, &at);
    if (code == 0 && at.kind != BLOCK_NONE)
        code = -EEXIST; /* a stream is written once */
    uint64_t host = e->end;
    if (code == 0 && host / 512 > UINT32_MAX)
        code = -EFBIG;
    if (code == 0)
        code = blk_pwrite(e->file, host, out, all, 0);
    if (code == 0)
        code = enter(n, offset / v->b.size, (uint32_t)(host / 512));
    if (code == 0)
        e->end = host + all;
    pthread_mutex_unlock(&v->b.lock);
    return code;
}

/* Plain writes to a stream are whole grains, as `convert` makes them. */
static int vmdk_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                        unsigned flags)
{
    struct vmdk *v = n->priv;
    struct vmdk_extent *e = extent_at(v, offset);
    if (!e || !e->compressed) {
        pthread_mutex_lock(&v->b.lock);
        int code = vmdk_touch(n);
        pthread_mutex_unlock(&v->b.lock);
        return code < 0 ? code : blocks_pwritev(n, offset, iov, niov, len, flags);
    }
    if (offset % v->b.size)
        return -EROFS;
    autofree uint8_t *grain = malloc(v->b.size);
    if (!grain)
        return -ENOMEM;
    for (uint64_t done = 0; done < len; done += v->b.size) {
        size_t part = MIN(len - done, (uint64_t)v->b.size);
        if (part < v->b.size && offset + done + part < n->size)
            return -EROFS;
        iov_read(iov, niov, done, grain, part);
        struct iovec one = {grain, part};
        int code = vmdk_pwritev_compressed(n, offset + done, &one, 1, part);
        if (code < 0)
            return code;
    }
    return 0;
}

static int check_extent(struct vmdk *v, struct vmdk_extent *e, struct blk_check *c)
{
    char line[128];
    if (e->kind != VMDK_SPARSE)
        return 0;
    for (uint64_t at = 0; at < e->len; at += e->grain) {
        struct vmdk_table *t;
        uint32_t gd, gt;
        int code = find(v, e, e->start + at, &t, &gd, &gt);
        uint32_t sector = code == 0 && t ? le32_get(t->entries + 4ull * gt) : 0;
        if (code == 0 && !t) { /* nothing in all of this table */
            at += (uint64_t)e->grain * (e->gtes - 1 - gt);
            continue;
        }
        if (code == 0 && (!sector || (sector == 1 && e->zero_grain) || (uint64_t)sector * 512 < e->file->size))
            continue;
        snprintf(line, sizeof line, "ERROR: cannot get host offset for sector %llu", (unsigned long long)((e->start + at) / 512));
        c->corruptions++;
        if (c->report && c->corruptions < 1000)
            c->report(c->opaque, true, line);
        if (code < 0)
            at += (uint64_t)e->grain * (e->gtes - 1 - gt);
    }
    return 0;
}

static int vmdk_check(struct blk_node *n, struct blk_check *c, unsigned fix, struct err *err)
{
    struct vmdk *v = n->priv;
    if (fix)
        return err_set(err, -ENOTSUP, "VMDK images cannot be repaired");
    pthread_mutex_lock(&v->b.lock);
    for (unsigned i = 0; i < v->n_extents; i++)
        check_extent(v, &v->extents[i], c);
    pthread_mutex_unlock(&v->b.lock);
    return 0;
}

const struct blk_driver blk_vmdk = {
    .name = "vmdk",
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .preadv = blocks_preadv,
    .pwritev = vmdk_pwritev,
    .pwrite_zeroes = blocks_pwrite_zeroes,
    .pwritev_compressed = vmdk_pwritev_compressed,
    .block_status = blocks_block_status,
    .create_opts = vmdk_create_opts,
    .create = vmdk_create,
    .get_info = vmdk_get_info,
    .check = vmdk_check,
};
