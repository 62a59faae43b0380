/* See blocks.h. */
#include "block/blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"

enum { PIECES = 64, STATUS_BLOCKS = 1 << 16 };

void blk_blocks_init(struct blocks *b, uint32_t size)
{
    b->size = size;
    b->unpacked_host = UINT64_MAX;
    pthread_mutex_init(&b->lock, NULL);
}

void blocks_clear(struct blocks *b)
{
    if (b->size)
        pthread_mutex_destroy(&b->lock);
    free(b->unpacked);
}

int blocks_read_table(struct blk_node *file, const char *what, uint64_t offset, uint64_t bytes, uint64_t max, void **ret,
                      struct err *err)
{
    uint64_t size = file->size;
    if (bytes > max)
        return err_set(err, -EFBIG, "%s: %s of %llu bytes is too large (at most %llu)", file->filename, what,
                       (unsigned long long)bytes, (unsigned long long)max);
    if (offset > size || bytes > size - offset)
        return err_set(err, -EINVAL, "%s: %s lies behind the end of the file", file->filename, what);
    void *table = malloc(bytes ? bytes : 1);
    if (!table)
        return err_errno(err, -ENOMEM, "%s: %s", file->filename, what);
    int code = bytes ? blk_pread(file, offset, table, bytes) : 0;
    if (code < 0) {
        free(table);
        return err_errno(err, code, "%s: cannot read %s", file->filename, what);
    }
    *ret = table;
    return 0;
}

static struct blk_node *file_of(struct blk_node *n, const struct block_at *at)
{
    return at->file ? at->file : blk_node_file(n);
}

static int look(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    struct blocks *b = n->priv;
    *ret = (struct block_at){.kind = BLOCK_NONE};
    return b->look(n, index, ret);
}

static void fill_zero(const struct iovec *iov, unsigned niov, size_t off, size_t len)
{
    struct iovec out[PIECES];
    while (len) {
        unsigned k = iov_slice(iov, niov, off, len, out, PIECES);
        size_t done = 0;
        for (unsigned i = 0; i < k; i++) {
            memset(out[i].iov_base, 0, out[i].iov_len);
            done += out[i].iov_len;
        }
        if (!done)
            return;
        off += done;
        len -= done;
    }
}

/* A part of the list, from and to one place of one node; piecewise, as lists can be long. */
static int transfer(struct blk_node *n, bool write, uint64_t at, const struct iovec *iov, unsigned niov, size_t off,
                    size_t len)
{
    struct iovec out[PIECES];
    while (len) {
        unsigned k = iov_slice(iov, niov, off, len, out, PIECES);
        size_t part = iov_len(out, k);
        int code = write ? blk_pwritev(n, at, out, k, 0) : blk_preadv(n, at, out, k);
        if (code < 0 || !part)
            return code;
        at += part;
        off += part;
        len -= part;
    }
    return 0;
}

/* What shows where this layer has nothing. */
static int read_below(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, size_t off, size_t len)
{
    struct blk_node *below = blk_node_backing(n);
    uint64_t size = below ? (uint64_t)below->size : 0;
    size_t have = offset >= size ? 0 : MIN(len, size - offset);
    int code = have ? transfer(below, false, offset, iov, niov, off, have) : 0;
    if (code == 0)
        fill_zero(iov, niov, off + have, len - have);
    return code;
}

static int read_packed(struct blk_node *n, const struct block_at *at, uint32_t in_block, const struct iovec *iov,
                       unsigned niov, size_t off, size_t len)
{
    struct blocks *b = n->priv;
    int code = 0;
    pthread_mutex_lock(&b->lock);
    if (b->unpacked_host != at->host || !b->unpacked) {
        b->unpacked_host = UINT64_MAX;
        if (!b->unpacked && !(b->unpacked = malloc(b->size)))
            code = -ENOMEM;
        if (code == 0)
            code = b->unpack(n, at, b->unpacked);
        if (code == 0)
            b->unpacked_host = at->host;
    }
    if (code == 0)
        iov_write(iov, niov, off, b->unpacked + in_block, len);
    pthread_mutex_unlock(&b->lock);
    return code;
}

int blocks_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct blocks *b = n->priv;
    for (uint64_t done = 0; done < len;) {
        uint64_t pos = offset + done, index = pos / b->size;
        uint32_t in_block = (uint32_t)(pos % b->size);
        size_t part = MIN(len - done, (uint64_t)b->size - in_block);
        struct block_at at, next;
        pthread_mutex_lock(&b->lock);
        int code = look(n, index, &at);
        /* Blocks that lie behind one another are read at once. */
        while (code == 0 && at.kind == BLOCK_DATA && done + part < len) {
            uint64_t further = (pos + part) / b->size;
            if (look(n, further, &next) < 0 || next.kind != BLOCK_DATA || next.file != at.file ||
                next.host != at.host + (further - index) * b->size)
                break;
            part += MIN(len - done - part, (uint64_t)b->size);
        }
        pthread_mutex_unlock(&b->lock);
        if (code < 0)
            return code;
        if (at.kind == BLOCK_DATA)
            code = transfer(file_of(n, &at), false, at.host + in_block, iov, niov, done, part);
        else if (at.kind == BLOCK_PACKED)
            code = read_packed(n, &at, in_block, iov, niov, done, part);
        else if (at.kind == BLOCK_NONE)
            code = read_below(n, pos, iov, niov, done, part);
        else
            fill_zero(iov, niov, done, part);
        if (code < 0)
            return code;
        done += part;
    }
    return 0;
}

/* The bytes of a block around a write to a part of it. Lock held. */
static int fill_around(struct blk_node *n, const struct block_at *old, const struct block_at *at, uint64_t block_start,
                       uint32_t in_block, size_t len)
{
    struct blocks *b = n->priv;
    uint64_t end = MIN((uint64_t)n->size - block_start, (uint64_t)b->size);
    if (!in_block && in_block + len >= end)
        return 0;
    if ((old->kind == BLOCK_NONE && !blk_node_backing(n)) || old->kind == BLOCK_ZERO)
        return 0; /* a new place is zero */
    autofree uint8_t *buf = malloc(b->size);
    if (!buf)
        return -ENOMEM;
    struct iovec v = {buf, end};
    int code = old->kind == BLOCK_PACKED ? b->unpack(n, old, buf) : read_below(n, block_start, &v, 1, 0, end);
    if (code == 0 && in_block)
        code = blk_pwrite(file_of(n, at), at->host, buf, in_block, 0);
    if (code == 0 && in_block + len < end)
        code = blk_pwrite(file_of(n, at), at->host + in_block + len, buf + in_block + len, end - in_block - len, 0);
    return code;
}

static int write_new(struct blk_node *n, uint64_t index, const struct block_at *old, uint32_t in_block,
                     const struct iovec *iov, unsigned niov, size_t off, size_t len)
{
    struct blocks *b = n->priv;
    struct block_at at = {.kind = BLOCK_DATA};
    if (!b->place)
        return -EROFS;
    int code = b->place(n, index, &at);
    if (code == 0)
        code = fill_around(n, old, &at, index * b->size, in_block, len);
    if (code == 0)
        code = transfer(file_of(n, &at), true, at.host + in_block, iov, niov, off, len);
    /* What the block showed before must not be lost: it is durable here before the table leads here. */
    if (code == 0 && old->kind == BLOCK_NONE && blk_node_backing(n))
        code = blk_pflush(file_of(n, &at));
    return code < 0 ? code : b->publish(n, index, &at);
}

int blocks_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len, unsigned flags)
{
    struct blocks *b = n->priv;
    for (uint64_t done = 0; done < len;) {
        uint64_t pos = offset + done, index = pos / b->size;
        uint32_t in_block = (uint32_t)(pos % b->size);
        size_t part = MIN(len - done, (uint64_t)b->size - in_block);
        struct block_at at;
        pthread_mutex_lock(&b->lock);
        int code = look(n, index, &at);
        if (code == 0 && at.kind != BLOCK_DATA)
            code = write_new(n, index, &at, in_block, iov, niov, done, part);
        pthread_mutex_unlock(&b->lock);
        if (code == 0 && at.kind == BLOCK_DATA)
            code = transfer(file_of(n, &at), true, at.host + in_block, iov, niov, done, part);
        if (code < 0)
            return code;
        done += part;
    }
    return 0;
}

int blocks_pwrite_zeroes(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct blocks *b = n->priv;
    static const uint8_t zeroes[65536];
    for (uint64_t done = 0; done < len;) {
        uint64_t pos = offset + done, index = pos / b->size;
        uint32_t in_block = (uint32_t)(pos % b->size);
        uint64_t part = MIN(len - done, (uint64_t)b->size - in_block);
        struct block_at at;
        bool whole = !in_block && (part == b->size || pos + part >= n->size);
        pthread_mutex_lock(&b->lock);
        int code = look(n, index, &at);
        bool zero = at.kind == BLOCK_ZERO || (at.kind == BLOCK_NONE && !blk_node_backing(n));
        if (code == 0 && !zero && whole && b->forget) {
            code = b->forget(n, index);
            zero = code == 0;
            code = code == -ENOTSUP ? 0 : code;
        }
        pthread_mutex_unlock(&b->lock);
        if (code == 0 && !zero && at.kind == BLOCK_DATA)
            code = blk_pwrite_zeroes(file_of(n, &at), at.host + in_block, part, flags);
        for (uint64_t at_part = 0; code == 0 && !zero && at.kind != BLOCK_DATA && at_part < part;) {
            struct iovec v = {(void *)zeroes, MIN(part - at_part, sizeof zeroes)};
            code = blocks_pwritev(n, pos + at_part, &v, 1, v.iov_len, 0);
            at_part += v.iov_len;
        }
        if (code < 0)
            return code;
        done += part;
    }
    return 0;
}

int blocks_block_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret)
{
    struct blocks *b = n->priv;
    uint64_t index = offset / b->size, in_block = offset % b->size;
    struct block_at at, next;
    pthread_mutex_lock(&b->lock);
    int code = look(n, index, &at);
    uint64_t got = MIN(len, b->size - in_block);
    /* As far as the following blocks say the same. */
    for (uint64_t i = index + 1; code == 0 && got < len && i - index < STATUS_BLOCKS; i++) {
        if (look(n, i, &next) < 0 || next.kind != at.kind || next.file != at.file ||
            (at.kind == BLOCK_DATA && next.host != at.host + (i - index) * b->size))
            break;
        got += MIN(len - got, (uint64_t)b->size);
    }
    pthread_mutex_unlock(&b->lock);
    if (code < 0)
        return code;
    *ret = (struct blk_extent){.len = got};
    switch (at.kind) {
    case BLOCK_DATA:
        ret->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
        ret->host = at.host + in_block;
        ret->file = file_of(n, &at);
        ret->flags |= b->holes ? BLK_STATUS_RECURSE : 0;
        break;
    case BLOCK_PACKED:
        ret->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_COMPRESSED;
        break;
    case BLOCK_ZERO:
        ret->flags = BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED;
        break;
    case BLOCK_NONE:
        break;
    }
    return 0;
}
