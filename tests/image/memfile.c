/* See memfile.h. */
#include "memfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"

#define FILE_MAX (256 * MIB)

static int may_fail(struct memfile *m)
{
    m->calls++;
    if (m->fail_in < 0 || m->fail_in-- > 0)
        return 0;
    m->fail_in = -1;
    return m->fail_code;
}

static int room(struct memfile *m, uint64_t end)
{
    if (end > FILE_MAX)
        return -EFBIG;
    if (end > m->cap) {
        size_t cap = MAX(m->cap * 2, ALIGN_UP((size_t)end, 65536));
        m->data = realloc(m->data, cap);
        if (!m->data)
            abort();
        memset(m->data + m->cap, 0, cap - m->cap);
        m->cap = cap;
    }
    return 0;
}

static void record(struct memfile *m, enum mem_op op, uint64_t offset, uint64_t len, bool data)
{
    if (!m->logging)
        return;
    if (m->n == m->log_cap) {
        m->log_cap = m->log_cap ? m->log_cap * 2 : 256;
        m->log = realloc(m->log, m->log_cap * sizeof *m->log);
        if (!m->log)
            abort();
    }
    struct mem_entry *e = &m->log[m->n++];
    *e = (struct mem_entry){op, offset, len, NULL};
    if (data) {
        e->data = malloc(len);
        if (!e->data)
            abort();
        memcpy(e->data, m->data + offset, len);
    }
}

static int mem_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    struct memfile *m = n->priv;
    int code = m->fail_reads ? may_fail(m) : 0;
    if (code < 0)
        return code;
    uint64_t size = n->size, have = offset < size ? MIN(len, size - offset) : 0, at = 0;
    iov_write(iov, niov, 0, m->data + (have ? offset : 0), have);
    for (unsigned i = 0; i < niov; at += iov[i].iov_len, i++) {
        uint64_t keep = have > at ? MIN(have - at, iov[i].iov_len) : 0;
        memset((char *)iov[i].iov_base + keep, 0, iov[i].iov_len - keep);
    }
    return 0;
}

static int mem_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                       unsigned flags)
{
    struct memfile *m = n->priv;
    int code = may_fail(m), r;
    if (code < 0 && !m->fail_short)
        return code;
    if (code < 0)
        len = len / 2;
    if ((r = room(m, offset + len)) < 0)
        return r;
    iov_read(iov, niov, 0, m->data + offset, len);
    n->size = MAX(atomic_load(&n->size), offset + len);
    record(m, MEM_WRITE, offset, len, true);
    return code;
}

static int mem_zero(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct memfile *m = n->priv;
    int code = may_fail(m);
    if (code == 0)
        code = room(m, offset + len);
    if (code < 0)
        return code;
    memset(m->data + offset, 0, len);
    n->size = MAX(atomic_load(&n->size), offset + len);
    record(m, MEM_ZERO, offset, len, false);
    return 0;
}

static int mem_discard(struct blk_node *n, uint64_t offset, uint64_t len)
{
    struct memfile *m = n->priv;
    int code = may_fail(m);
    if (code < 0 || offset >= n->size)
        return code;
    len = MIN(len, n->size - offset);
    memset(m->data + offset, 0, len);
    record(m, MEM_ZERO, offset, len, false);
    return 0;
}

static int mem_flush(struct blk_node *n)
{
    struct memfile *m = n->priv;
    int code = may_fail(m);
    if (code == 0)
        record(m, MEM_FLUSH, 0, 0, false);
    return code;
}

static int mem_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err)
{
    struct memfile *m = n->priv;
    int code = may_fail(m);
    if (code == 0)
        code = room(m, size);
    if (code < 0)
        return err_errno(err, code, "truncate");
    if (size < n->size)
        memset(m->data + size, 0, n->size - size);
    n->size = size;
    record(m, MEM_TRUNCATE, 0, size, false);
    return 0;
}

static int64_t mem_allocated(struct blk_node *n)
{
    return (int64_t)n->size;
}

static void mem_close(struct blk_node *n)
{
    struct memfile *m = n->priv;
    for (size_t i = 0; i < m->n; i++)
        free(m->log[i].data);
    free(m->log);
    free(m->data);
    free(m);
}

const struct blk_driver memfile_driver = {
    .name = "mem",
    .protocol = true,
    .close = mem_close,
    .preadv = mem_preadv,
    .pwritev = mem_pwritev,
    .pwrite_zeroes = mem_zero,
    .pdiscard = mem_discard,
    .pflush = mem_flush,
    .truncate = mem_truncate,
    .allocated_size = mem_allocated,
};

struct blk_node *memfile_new(struct memfile **ret)
{
    struct blk_node *n = blk_node_new(&memfile_driver, "mem", BLK_O_RDWR);
    struct memfile *m = xcalloc(1, sizeof *m);
    m->fail_in = -1;
    n->priv = m;
    n->grows_zero = true;
    if (ret)
        *ret = m;
    return n;
}

struct blk_node *memfile_from(const void *data, size_t len, struct memfile **ret)
{
    struct memfile *m;
    struct blk_node *n = memfile_new(&m);
    if (room(m, len) == 0 && len)
        memcpy(m->data, data, len);
    n->size = len;
    if (ret)
        *ret = m;
    return n;
}

void memfile_apply(const struct mem_entry *e, uint8_t *buf, size_t cap, uint64_t *size, uint64_t (*torn)(void *), void *opaque)
{
    switch (e->op) {
    case MEM_WRITE:
        for (uint64_t at = 0; at < e->len;) {
            uint64_t k = MIN(e->len - at, 512 - (e->offset + at) % 512);
            if (!torn || torn(opaque) & 1) {
                memcpy(buf + e->offset + at, e->data + at, k);
                *size = MAX(*size, e->offset + at + k);
            }
            at += k;
        }
        break;
    case MEM_ZERO:
        memset(buf + e->offset, 0, e->len);
        *size = MAX(*size, e->offset + e->len);
        break;
    case MEM_TRUNCATE:
        if (e->len < *size)
            memset(buf + e->len, 0, *size - e->len);
        *size = e->len;
        break;
    case MEM_FLUSH:
        break;
    }
}
