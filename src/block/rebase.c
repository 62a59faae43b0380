/* Rebase and commit: moving data between the layers of a backing chain. */
#include "block/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"

enum { REBASE_BYTES = 1 << 20, STATUS_BYTES = 1 << 30 };

/* The layer that both chains stand on, by file; NULL: none. Each file is open once per chain, so names are compared. */
static struct blk_node *common_base(struct blk_node *a, struct blk_node *b, struct blk_node **ret_b)
{
    for (struct blk_node *x = a; x; x = blk_node_backing(x))
        for (struct blk_node *y = b; y; y = blk_node_backing(y))
            if (x == y || (x->filename && y->filename && !strcmp(x->filename, y->filename))) {
                *ret_b = y;
                return x;
            }
    *ret_b = NULL;
    return NULL;
}

/* Reads from a backing file; behind its end there are zeroes. */
static int read_padded(struct blk_node *n, uint64_t pos, uint8_t *buf, size_t len, struct err *err)
{
    size_t have = !n || pos >= n->size ? 0 : MIN(len, n->size - pos);
    int ret = have ? blk_pread(n, pos, buf, have) : 0;
    if (ret < 0)
        return err_errno(err, ret, "error while reading from %s at byte %llu", n->filename, (unsigned long long)pos);
    memset(buf + have, 0, len - have);
    return 0;
}

/* Whether a chain has nothing of its own above `base` at pos; *len is cut to what that holds for. */
static int untouched(struct blk_node *n, struct blk_node *base, uint64_t pos, uint64_t *len, struct err *err)
{
    struct blk_extent e;
    if (!n || n == base)
        return 1;
    if (pos >= n->size)
        return 0; /* zeroes here, whatever base has */
    *len = MIN(*len, n->size - pos);
    int ret = blk_block_status_above(n, base, pos, *len, false, &e);
    if (ret < 0)
        return err_errno(err, ret, "error while reading block status of %s", n->filename);
    *len = e.len;
    return !(e.flags & (BLK_STATUS_ALLOCATED | BLK_STATUS_ZERO));
}

/* Writes to top the parts of [pos, +len) where the two buffers differ, in units of its clusters. */
static int write_differences(struct blk_node *top, uint64_t pos, const uint8_t *old, const uint8_t *new, size_t len,
                             struct err *err)
{
    size_t unit = top->cluster_size ? top->cluster_size : 4096, at = 0;
    while (at < len) {
        size_t end = at;
        while (end < len) {
            size_t n = MIN(len - end, unit - (size_t)((pos + end) % unit));
            if (!memcmp(old + end, new + end, n))
                break;
            end += n;
        }
        if (end == at) {
            at += MIN(len - at, unit - (size_t)((pos + at) % unit));
            continue;
        }
        bool zero = blk_is_zero(old + at, end - at);
        int ret = zero ? blk_pwrite_zeroes(top, pos + at, end - at, 0) : blk_pwrite(top, pos + at, old + at, end - at, 0);
        if (ret < 0)
            return err_errno(err, ret, "error while writing to %s at byte %llu", top->filename,
                             (unsigned long long)(pos + at));
        at = end;
    }
    return 0;
}

int blk_rebase(struct blk_node *top, struct blk_node *old_backing, struct blk_node *new_backing, blk_progress_fn *progress,
               void *opaque, struct err *err)
{
    autofree uint8_t *bufs = NULL;
    if (posix_memalign((void **)&bufs, 4096, 2 * REBASE_BYTES))
        return err_errno(err, -ENOMEM, "rebasing");
    uint8_t *old = bufs, *new = bufs + REBASE_BYTES;
    struct blk_node *base_new, *base = common_base(old_backing, new_backing, &base_new);
    struct blk_node *below = blk_node_backing(top);
    for (uint64_t pos = 0; pos < top->size;) {
        struct blk_extent e;
        int ret = blk_block_status_above(top, below, pos, MIN(top->size - pos, (uint64_t)STATUS_BYTES), false, &e);
        if (ret < 0)
            return err_errno(err, ret, "error while reading block status of %s", top->filename);
        uint64_t len = e.len;
        bool own = !below || (e.flags & (BLK_STATUS_ALLOCATED | BLK_STATUS_ZERO));
        if (below && !own) {
            int same_old = base ? untouched(old_backing, base, pos, &len, err) : 0;
            int same_new = base && same_old > 0 ? untouched(new_backing, base_new, pos, &len, err) : 0;
            if (same_old < 0 || same_new < 0)
                return -EIO;
            if (!same_new) {
                len = MIN(len, REBASE_BYTES - pos % REBASE_BYTES);
                if ((ret = read_padded(old_backing, pos, old, len, err)) < 0 ||
                    (ret = read_padded(new_backing, pos, new, len, err)) < 0 ||
                    (ret = write_differences(top, pos, old, new, len, err)) < 0)
                    return ret;
            }
        } else if (!below && new_backing && !(e.flags & BLK_STATUS_ALLOCATED)) {
            /* It had no backing file and showed zeroes here: it must go on doing so. */
            if ((ret = blk_pwrite_zeroes(top, pos, len, 0)) < 0)
                return err_errno(err, ret, "error while writing to %s at byte %llu", top->filename,
                                 (unsigned long long)pos);
        }
        pos += len;
        if (progress)
            progress(opaque, pos, top->size);
    }
    int ret = blk_pflush(top);
    return ret < 0 ? err_errno(err, ret, "%s: cannot flush", top->filename) : 0;
}

int blk_commit(struct blk_node *top, struct blk_node *base, uint64_t rate, blk_progress_fn *progress, void *opaque,
               struct err *err)
{
    autofree uint8_t *buf = NULL;
    uint64_t started = clock_host_ns(), copied = 0;
    int ret;
    if (posix_memalign((void **)&buf, 4096, REBASE_BYTES))
        return err_errno(err, -ENOMEM, "committing");
    if (base->size < top->size && (ret = blk_truncate(base, top->size, BLK_PREALLOC_OFF, false, err)) < 0)
        return ret;
    for (uint64_t pos = 0; pos < top->size;) {
        struct blk_extent e;
        ret = blk_block_status_above(top, base, pos, MIN(top->size - pos, (uint64_t)STATUS_BYTES), true, &e);
        if (ret < 0)
            return err_errno(err, ret, "error while reading block status of %s", top->filename);
        uint64_t len = e.len;
        if (e.flags & BLK_STATUS_ZERO) {
            ret = blk_pwrite_zeroes(base, pos, len, BLK_F_UNMAP);
        } else if (e.flags & (BLK_STATUS_ALLOCATED | BLK_STATUS_DATA)) {
            len = MIN(len, REBASE_BYTES - pos % REBASE_BYTES);
            ret = blk_pread(top, pos, buf, len);
            if (ret < 0)
                return err_errno(err, ret, "error while reading from %s at byte %llu", top->filename,
                                 (unsigned long long)pos);
            ret = blk_is_zero(buf, len) ? blk_pwrite_zeroes(base, pos, len, BLK_F_UNMAP) : blk_pwrite(base, pos, buf, len, 0);
            copied += len;
        }
        if (ret < 0)
            return err_errno(err, ret, "error while writing to %s at byte %llu", base->filename, (unsigned long long)pos);
        pos += len;
        if (progress)
            progress(opaque, pos, top->size);
        if (rate) {
            uint64_t due = started + (uint64_t)((double)copied / (double)rate * 1e9), now = clock_host_ns();
            if (now < due)
                nanosleep(&(struct timespec){.tv_sec = (time_t)((due - now) / NSEC_PER_SEC),
                                             .tv_nsec = (long)((due - now) % NSEC_PER_SEC)},
                          NULL);
        }
    }
    ret = blk_pflush(base);
    return ret < 0 ? err_errno(err, ret, "%s: cannot flush", base->filename) : 0;
}
