/* Raw: the disk's bytes are the file's, or a part of them (options offset, size). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "block/driver.h"

enum { HEAD_BYTES = 2048 }; /* what probing looks at */

struct raw {
    uint64_t offset;
    bool fixed; /* option size was given */
};

static int raw_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    struct raw *r = xcalloc(1, sizeof *r);
    uint64_t size, all = file->size;
    n->priv = r;
    int code = blk_opts_size(opts, "offset", 0, &r->offset, err);
    r->fixed = blk_opts_has(opts, "size");
    if (code == 0)
        code = blk_opts_size(opts, "size", all > r->offset ? all - r->offset : 0, &size, err);
    if (code < 0)
        return code;
    if (r->offset > all || (r->fixed && size > all - r->offset))
        return err_set(err, -EINVAL, "%s: The sum of offset (%llu) and size (%llu) has to be smaller or equal to the actual size of the containing file (%llu)",
                       n->filename, (unsigned long long)r->offset, (unsigned long long)size, (unsigned long long)all);
    n->size = ALIGN_UP(size, 512); /* past the file's end there are zeroes */
    return 0;
}

static void raw_close(struct blk_node *n)
{
    free(n->priv);
}

static uint64_t at(struct blk_node *n, uint64_t offset)
{
    return offset + ((struct raw *)n->priv)->offset;
}

static int raw_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    return blk_preadv(blk_node_file(n), at(n, offset), iov, niov);
}

/*
 * Whether a write would let an image whose format was guessed be taken for another one next time: then whoever writes it (a
 * guest) could name files of this host as its backing file.
 */
static int check_head(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    uint8_t head[HEAD_BYTES] = {0};
    uint64_t have = MIN((uint64_t)n->size, (uint64_t)HEAD_BYTES);
    int code = blk_pread(blk_node_file(n), at(n, 0), head, have);
    if (code < 0)
        return code;
    iov_read(iov, niov, 0, head + offset, MIN(len, HEAD_BYTES - offset));
    for (unsigned i = 0; blk_drivers[i]; i++)
        if (blk_drivers[i] != &blk_raw && blk_drivers[i]->probe && blk_drivers[i]->probe(head, have, n->filename) > 0)
            return -EPERM;
    return blk_probe(head, have) ? -EPERM : 0;
}

static int raw_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                       unsigned flags)
{
    int code = n->probed && offset < HEAD_BYTES ? check_head(n, offset, iov, niov, len) : 0;
    return code < 0 ? code : blk_pwritev(blk_node_file(n), at(n, offset), iov, niov, flags);
}

static int raw_zero(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    return blk_pwrite_zeroes(blk_node_file(n), at(n, offset), len, flags);
}

static int raw_discard(struct blk_node *n, uint64_t offset, uint64_t len)
{
    return blk_pdiscard(blk_node_file(n), at(n, offset), len);
}

static int raw_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret)
{
    uint64_t host = at(n, offset);
    int code = blk_block_status(blk_node_file(n), host, len, want_zero, ret);
    if (code == 0 && !ret->file) { /* behind the file's end */
        ret->host = host;
        ret->file = blk_node_file(n);
    }
    ret->flags = (ret->flags | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET) & ~(unsigned)BLK_STATUS_EOF;
    return code;
}

static void raw_map(struct blk_node *n, bool write, uint64_t offset, uint64_t len, struct blk_map *ret)
{
    if (write && n->probed && offset < HEAD_BYTES) {
        *ret = (struct blk_map){.kind = BLK_MAP_SLOW};
        return;
    }
    *ret = (struct blk_map){.kind = BLK_MAP_CHILD, .child = blk_node_file(n), .host = at(n, offset), .len = len};
}

static int raw_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err)
{
    struct raw *r = n->priv;
    if (r->fixed)
        return err_set(err, -ENOTSUP, "Cannot resize fixed-size raw disks");
    int code = blk_truncate(blk_node_file(n), size + r->offset, prealloc, true, err);
    if (code == 0)
        n->size = ALIGN_UP(size, 512);
    return code;
}

static int raw_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    uint64_t size;
    enum blk_prealloc prealloc = BLK_PREALLOC_OFF;
    const char *p = blk_opts_get(opts, "preallocation");
    int code = blk_opts_size(opts, "size", 0, &size, err);
    if (code == 0 && p)
        code = blk_prealloc_parse(p, &prealloc, err);
    return code < 0 ? code : blk_truncate(file, size, prealloc, true, err);
}

static int raw_measure(struct blk_opts *opts, struct blk_node *src, struct blk_measure *ret, struct err *err)
{
    uint64_t size;
    int code = blk_opts_size(opts, "size", 0, &size, err);
    if (code < 0)
        return code;
    if (src)
        size = src->size;
    else
        size = ALIGN_UP(size, 512);
    *ret = (struct blk_measure){.required = size, .fully_allocated = size};
    return 0;
}

/* The lowest bid: what nobody else knows is raw. */
static int raw_probe(const uint8_t *head, size_t len, const char *filename)
{
    return 1;
}

static const struct blk_create_opt create_opts[] = {
    {"size", BLK_OPT_SIZE, "Virtual disk size", NULL, false},
    {"preallocation", BLK_OPT_STRING, "Preallocation mode (allowed values: off, falloc, full)", NULL, false},
    {NULL},
};

const struct blk_driver blk_raw = {
    .name = "raw",
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .preadv = raw_preadv,
    .pwritev = raw_pwritev,
    .pwrite_zeroes = raw_zero,
    .pdiscard = raw_discard,
    .block_status = raw_status,
    .map = raw_map,
    .create_opts = create_opts,
    .create = raw_create,
    .truncate = raw_truncate,
    .measure = raw_measure,
};
