/* Comparing two images: what both know to be zero is not read. */
#include "block/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"

enum { COMPARE_BYTES = 1 << 20, STATUS_BYTES = 1 << 30 };

struct side {
    struct blk_node *node;
    struct blk_extent e; /* of [start, end) */
    uint64_t end;
    uint8_t *buf;
};

static int failed(const struct side *s, int ret, const char *what, uint64_t offset, struct err *err)
{
    return err_errno(err, ret, "Error while %s offset %llu of %s", what, (unsigned long long)offset, s->node->filename);
}

static int look(struct blk_compare *c, struct side *s, uint64_t pos, struct err *err)
{
    if (pos < s->end)
        return 0;
    int ret = blk_block_status_above(s->node, NULL, pos, MIN(s->node->size - pos, (uint64_t)STATUS_BYTES), true, &s->e);
    if (ret < 0) {
        c->status_failed = true;
        return failed(s, ret, "reading block status at", pos, err);
    }
    s->end = pos + s->e.len;
    return 0;
}

static bool side_zero(const struct side *s)
{
    return s->e.flags & BLK_STATUS_ZERO;
}

/* Bytes [pos, pos+len) of a side that has them, are they zero? Sets the result if not. */
static int must_be_zero(struct blk_compare *c, struct side *s, uint64_t pos, size_t len, struct err *err)
{
    int ret = blk_pread(s->node, pos, s->buf, len);
    if (ret < 0)
        return failed(s, ret, "reading", pos, err);
    if (blk_is_zero(s->buf, len))
        return 0;
    size_t at = 0;
    while (!s->buf[at])
        at++;
    c->result = BLK_DIFFERENT_DATA;
    c->offset = ALIGN_DOWN(pos + at, (uint64_t)512);
    return 0;
}

static int compare_data(struct blk_compare *c, struct side *a, struct side *b, uint64_t pos, size_t len, struct err *err)
{
    if (side_zero(a) || side_zero(b))
        return side_zero(a) && side_zero(b) ? 0 : must_be_zero(c, side_zero(a) ? b : a, pos, len, err);
    int ret = blk_pread(a->node, pos, a->buf, len);
    if (ret < 0)
        return failed(a, ret, "reading", pos, err);
    ret = blk_pread(b->node, pos, b->buf, len);
    if (ret < 0)
        return failed(b, ret, "reading", pos, err);
    if (!memcmp(a->buf, b->buf, len))
        return 0;
    size_t at = 0;
    while (a->buf[at] == b->buf[at])
        at++;
    c->result = BLK_DIFFERENT_DATA;
    c->offset = ALIGN_DOWN(pos + at, (uint64_t)512);
    return 0;
}

int blk_compare(struct blk_compare *c, struct err *err)
{
    autofree uint8_t *bufs = NULL;
    if (posix_memalign((void **)&bufs, 4096, 2 * COMPARE_BYTES))
        return err_errno(err, -ENOMEM, "comparing");
    struct side a = {.node = c->a, .buf = bufs}, b = {.node = c->b, .buf = bufs + COMPARE_BYTES};
    uint64_t common = MIN(a.node->size, b.node->size), total = MAX(a.node->size, b.node->size);
    struct side *longer = a.node->size > b.node->size ? &a : &b;
    c->result = BLK_EQUAL;
    for (uint64_t pos = 0; pos < total && c->result == BLK_EQUAL;) {
        uint64_t len;
        int ret;
        if (pos < common) {
            if ((ret = look(c, &a, pos, err)) < 0 || (ret = look(c, &b, pos, err)) < 0)
                return ret;
            if (c->strict && ((a.e.flags ^ b.e.flags) & BLK_STATUS_ALLOCATED)) {
                c->result = BLK_DIFFERENT_STATUS;
                c->offset = pos;
                return 0;
            }
            len = MIN(MIN(a.end, b.end), common) - pos;
            if (!side_zero(&a) || !side_zero(&b)) {
                len = MIN(len, (uint64_t)COMPARE_BYTES);
                if ((ret = compare_data(c, &a, &b, pos, len, err)) < 0)
                    return ret;
            }
        } else {
            if ((ret = look(c, longer, pos, err)) < 0)
                return ret;
            len = longer->end - pos;
            if (!side_zero(longer)) {
                len = MIN(len, (uint64_t)COMPARE_BYTES);
                if ((ret = must_be_zero(c, longer, pos, len, err)) < 0)
                    return ret;
            }
        }
        pos += len;
        if (c->progress)
            c->progress(c->opaque, pos, total);
    }
    return 0;
}
