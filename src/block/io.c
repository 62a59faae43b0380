/* The blocking data path of nodes: bounds, fallbacks, flushing down the graph. Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "block/driver.h"
#include "block/file.h"

enum { ZERO_CHUNK = 1 << 20 };

static int check(const struct blk_node *n, uint64_t offset, uint64_t len)
{
    uint64_t size = n->size;
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EINVAL;
    return n->drv->protocol || (offset <= size && len <= size - offset) ? 0 : -EINVAL;
}

static int check_write(const struct blk_node *n, uint64_t offset, uint64_t len)
{
    return n->read_only ? -EROFS : check(n, offset, len);
}

int blk_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov)
{
    uint64_t len = iov_len(iov, niov);
    int code = check(n, offset, len);
    if (code < 0 || !len)
        return code;
    return n->drv->preadv(n, offset, iov, niov, len);
}

int blk_pread(struct blk_node *n, uint64_t offset, void *buf, size_t len)
{
    struct iovec v = {buf, len};
    return blk_preadv(n, offset, &v, 1);
}

int blk_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, unsigned flags)
{
    uint64_t len = iov_len(iov, niov);
    int code = check_write(n, offset, len);
    if (code < 0 || !len)
        return code;
    if (flags & BLK_F_COMPRESSED) {
        if (!n->drv->pwritev_compressed)
            return -ENOTSUP;
        return n->drv->pwritev_compressed(n, offset, iov, niov, len);
    }
    if (!n->drv->pwritev)
        return -EROFS;
    bool fua = (flags & BLK_F_FUA) && (n->drv->protocol || n->drv == &blk_raw);
    code = n->drv->pwritev(n, offset, iov, niov, len, fua ? flags : flags & ~(unsigned)BLK_F_FUA);
    return code == 0 && (flags & BLK_F_FUA) && !fua ? blk_pflush(n) : code;
}

int blk_pwrite(struct blk_node *n, uint64_t offset, const void *buf, size_t len, unsigned flags)
{
    struct iovec v = {(void *)buf, len};
    return blk_pwritev(n, offset, &v, 1, flags);
}

static int write_zeroes(struct blk_node *n, uint64_t offset, uint64_t len)
{
    size_t size = (size_t)MIN(len, (uint64_t)ZERO_CHUNK);
    autofree char *zeroes = calloc(1, size);
    if (!zeroes)
        return -ENOMEM;
    int code = 0;
    for (uint64_t done = 0; done < len && code == 0; done += size)
        code = blk_pwrite(n, offset + done, zeroes, (size_t)MIN(len - done, (uint64_t)size), 0);
    return code;
}

int blk_pwrite_zeroes(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    int code = check_write(n, offset, len);
    if (code < 0 || !len)
        return code;
    code = n->drv->pwrite_zeroes ? n->drv->pwrite_zeroes(n, offset, len, flags & ~(unsigned)BLK_F_FUA) : -ENOTSUP;
    if (code == -ENOTSUP && !(flags & BLK_F_NO_FALLBACK))
        code = write_zeroes(n, offset, len);
    return code == 0 && (flags & BLK_F_FUA) ? blk_pflush(n) : code;
}

int blk_pdiscard(struct blk_node *n, uint64_t offset, uint64_t len)
{
    int code = check_write(n, offset, len);
    if (code < 0 || !len || !n->drv->pdiscard)
        return code;
    return n->drv->pdiscard(n, offset, len);
}

int blk_grow(struct blk_node *n, uint64_t size)
{
    if (n->read_only)
        return -EROFS;
    if (n->size >= size)
        return 0;
    if (n->drv->grow)
        return n->drv->grow(n, size);
    return n->drv->truncate ? n->drv->truncate(n, size, BLK_PREALLOC_OFF, NULL) : -ENOTSUP;
}

int blk_pflush(struct blk_node *n)
{
    if (n->read_only)
        return 0;
    int code = n->drv->pflush ? n->drv->pflush(n) : 0;
    for (struct blk_edge *e = n->children; e && code == 0; e = e->next)
        if (e->role != BLK_ROLE_BACKING)
            code = blk_pflush(e->child);
    return code;
}

int blk_node_flush(struct blk_node *n)
{
    return blk_pflush(n);
}

int blk_block_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret)
{
    int code = check(n, offset, len);
    if (code < 0)
        return code;
    uint64_t size = n->size;
    if (!len || (n->drv->protocol && offset >= size)) {
        *ret = (struct blk_extent){.len = len, .flags = BLK_STATUS_ZERO | BLK_STATUS_EOF};
        return 0;
    }
    if (n->drv->protocol)
        len = MIN(len, size - offset);
    if (n->drv->block_status) {
        code = n->drv->block_status(n, offset, len, want_zero, ret);
    } else {
        struct blk_node *file = blk_node_file(n);
        *ret = (struct blk_extent){.len = len, .flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED};
        if (file) {
            ret->flags |= BLK_STATUS_OFFSET | BLK_STATUS_RECURSE;
            ret->host = offset;
            ret->file = file;
        }
    }
    if (code == 0 && offset + ret->len >= size)
        ret->flags |= BLK_STATUS_EOF;
    if (code < 0 || !want_zero || n->drv->protocol)
        return code;
    /* What lies plain in a file may be a hole there; looking costs two system calls, so drivers say where it is worth it. */
    if ((ret->flags & BLK_STATUS_RECURSE) && (ret->flags & BLK_STATUS_DATA) && (ret->flags & BLK_STATUS_OFFSET) && !(ret->flags & BLK_STATUS_ZERO) &&
        ret->file && ret->file != n) {
        struct blk_extent below;
        if (blk_block_status(ret->file, ret->host, ret->len, true, &below) == 0 && below.len) {
            ret->len = MIN(ret->len, below.len);
            if (below.flags & BLK_STATUS_ZERO)
                ret->flags |= BLK_STATUS_ZERO;
            if (offset + ret->len < size)
                ret->flags &= ~(unsigned)BLK_STATUS_EOF;
        }
    }
    ret->flags &= ~(unsigned)BLK_STATUS_RECURSE;
    return 0;
}

int blk_block_status_above(struct blk_node *n, struct blk_node *base, uint64_t offset, uint64_t len, bool want_zero,
                           struct blk_extent *ret)
{
    unsigned depth = 0;
    for (; n != base; n = blk_node_backing(n), depth++) {
        uint64_t size = n->size;
        if (depth && offset >= size) { /* a shorter backing file: zeroes from here on */
            *ret = (struct blk_extent){.len = len, .flags = BLK_STATUS_ZERO, .depth = depth - 1};
            return 0;
        }
        if (depth)
            len = MIN(len, size - offset);
        int code = blk_block_status(n, offset, len, want_zero, ret);
        if (code < 0)
            return code;
        ret->depth = depth;
        if (ret->flags & (BLK_STATUS_ALLOCATED | BLK_STATUS_ZERO))
            return 0;
        len = ret->len;
        if (!blk_node_backing(n)) {
            ret->flags |= base ? 0 : BLK_STATUS_ZERO;
            return 0;
        }
    }
    *ret = (struct blk_extent){.len = len, .depth = depth};
    return 0;
}

/* Where `len` bytes lie plain in a file, or NULL. */
static struct file *plain(struct blk_node *n, uint64_t *offset, uint64_t len)
{
    while (n) {
        if (n->drv->get_file)
            return n->drv->get_file(n);
        struct blk_extent e;
        if (blk_block_status(n, *offset, len, false, &e) < 0 || !(e.flags & BLK_STATUS_OFFSET) || e.len < len)
            return NULL;
        n = e.file;
        *offset = e.host;
    }
    return NULL;
}

int blk_copy_range(struct blk_node *src, uint64_t src_off, struct blk_node *dst, uint64_t dst_off, uint64_t len)
{
    int code = check(src, src_off, len);
    if (code == 0)
        code = check_write(dst, dst_off, len);
    if (code < 0 || !len)
        return code;
    struct file *in = plain(src, &src_off, len), *out = dst->drv->get_file || dst->drv == &blk_raw ? plain(dst, &dst_off, len) : NULL;
    if (!in || !out)
        return -ENOTSUP;
    struct blk_node *node = dst;
    while (node && !node->drv->get_file)
        node = blk_node_file(node);
    while (len) {
        off_t a = (off_t)src_off, b = (off_t)dst_off;
        ssize_t r = copy_file_range(in->slow_fd, &a, out->slow_fd, &b, len, 0);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r == 0 || errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL ? -ENOTSUP
                                                                                                         : -errno;
        src_off += (uint64_t)r;
        dst_off += (uint64_t)r;
        len -= (uint64_t)r;
    }
    uint64_t old = node->size;
    while (old < dst_off && !atomic_compare_exchange_weak(&node->size, &old, dst_off))
        ;
    return 0;
}
