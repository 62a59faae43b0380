/*
 * What both ring layouts have in common: elements, their checks, copying, start and stop. The layouts themselves are in
 * virtq_split.c and virtq_packed.c. Ring areas are checked to be RAM when a queue starts; memory never moves
 * afterwards.
 */
#include "dev/virtio/virtq.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtq_priv.h"

struct virtq_elem *virtq_elem_new(unsigned max)
{
    struct virtq_elem *e = xcalloc(1, sizeof *e + max * (sizeof *e->iov + sizeof *e->gpa));
    e->iov = (struct iovec *)(e + 1);
    e->gpa = (gpa_t *)(e->iov + max);
    e->max = max;
    return e;
}

/* ---- checks ---- */

static bool usable(struct virtq *q)
{
    return q->ready && !q->broken && virtio_running(q->dev);
}

void virtq_break(struct virtq *q, const char *why)
{
    if (q->broken)
        return;
    q->broken = true;
    virtio_broken(q->dev, why);
}

bool virtq_enter(struct virtq *q)
{
    virtq_lock(q);
    if (usable(q))
        return true;
    virtq_unlock(q);
    return false;
}

bool virtq_read_desc(struct virtq *q, gpa_t gpa, uint8_t raw[16])
{
    if (mem_read(q->dev->mem, gpa, raw, 16) == 0)
        return true;
    virtq_break(q, "a descriptor is not in RAM");
    return false;
}

bool virtq_add_piece(struct virtq *q, struct virtq_elem *e, uint64_t addr, uint32_t len, bool write)
{
    if (!write && e->nin) {
        virtq_break(q, "a readable descriptor follows a writable one");
        return false;
    }
    unsigned first = e->nout + e->nin, n = first;
    int ret = mem_iov(q->dev->mem, addr, len, write, e->iov, &n, e->max);
    uint64_t *total = write ? &e->in_len : &e->out_len;
    *total += len;
    if (ret < 0 || *total > UINT32_MAX) {
        virtq_break(q, ret == -E2BIG ? "a descriptor chain has too many pieces"
                       : ret < 0     ? "a buffer is not in RAM"
                                     : "a buffer is longer than 4 GiB");
        return false;
    }
    for (unsigned i = first; i < n; addr += e->iov[i++].iov_len)
        e->gpa[i] = addr;
    *(write ? &e->nin : &e->nout) += n - first;
    return true;
}

unsigned virtq_indirect_count(struct virtq *q, const struct virtq_desc *d)
{
    unsigned n = d->len / 16;
    if (q->indirect && !(d->flags & VIRTQ_DESC_NEXT) && n && d->len % 16 == 0 && n <= VIRTQ_SIZE_MAX)
        return n;
    virtq_break(q, q->indirect ? "an indirect descriptor table has a wrong length or a successor"
                               : "an indirect descriptor, which was not negotiated");
    return 0;
}

/* ---- taking and giving back ---- */

bool virtq_has_avail(struct virtq *q)
{
    return usable(q) && (q->packed ? virtq_packed_has_avail(q) : virtq_split_has_avail(q));
}

int virtq_pop(struct virtq *q, struct virtq_elem *e)
{
    if (!virtq_has_avail(q))
        return 0;
    e->nout = e->nin = 0;
    e->out_len = e->in_len = 0;
    return q->packed ? virtq_packed_pop(q, e) : virtq_split_pop(q, e);
}

void virtq_unpop(struct virtq *q, const struct virtq_elem *e)
{
    if (!q->ready || q->inuse < e->ndesc)
        return;
    q->inuse -= e->ndesc;
    if (q->packed)
        virtq_packed_unpop(q, e);
    else
        virtq_split_unpop(q, e);
}

void virtq_fill(struct virtq *q, const struct virtq_elem *e, uint32_t len)
{
    if (!q->ready || q->inuse < e->ndesc)
        return;
    uint64_t left = len;
    for (unsigned i = e->nout; i < e->nout + e->nin && left; i++) {
        uint64_t n = MIN(left, e->iov[i].iov_len);
        mem_wrote(q->dev->mem, e->gpa[i], n);
        left -= n;
    }
    q->inuse -= e->ndesc;
    if (q->broken)
        return;
    if (q->packed)
        virtq_packed_fill(q, e, len);
    else
        virtq_split_fill(q, e, len);
}

void virtq_flush(struct virtq *q)
{
    if (!q->ready || q->broken || !q->filled)
        return;
    if (q->packed)
        virtq_packed_flush(q);
    else
        virtq_split_flush(q);
    q->filled = 0;
    q->unsignalled = true;
}

void virtq_push(struct virtq *q, const struct virtq_elem *e, uint32_t len)
{
    virtq_fill(q, e, len);
    virtq_flush(q);
}

void virtq_notify(struct virtq *q)
{
    if (!q->ready || q->broken || !q->unsignalled)
        return;
    /* What was pushed must be visible before the driver's wish is read (2.7.10, 2.8.10). */
    atomic_thread_fence(memory_order_seq_cst);
    bool irq = q->packed ? virtq_packed_wants_irq(q) : virtq_split_wants_irq(q);
    q->signalled = q->used_idx;
    q->signalled_valid = true;
    q->unsignalled = false;
    if (irq && q->dev->transport)
        q->dev->transport->queue_irq(q->dev->transport, q->index);
}

static void doorbell(struct virtq *q, bool on)
{
    q->notify_off = !on;
    if (!q->ready || q->broken)
        return;
    if (q->packed)
        virtq_packed_doorbell(q, on);
    else
        virtq_split_doorbell(q, on);
}

void virtq_disable_notify(struct virtq *q)
{
    if (!q->notify_off)
        doorbell(q, false);
}

bool virtq_enable_notify(struct virtq *q)
{
    doorbell(q, true);
    atomic_thread_fence(memory_order_seq_cst);
    return virtq_has_avail(q);
}

/* ---- copying ---- */

size_t virtq_read(const struct virtq_elem *e, size_t off, void *buf, size_t len)
{
    size_t done = 0;
    for (unsigned i = 0; i < e->nout && done < len; i++) {
        size_t have = e->iov[i].iov_len;
        if (off >= have) {
            off -= have;
            continue;
        }
        size_t n = MIN(have - off, len - done);
        memcpy((char *)buf + done, (char *)e->iov[i].iov_base + off, n);
        done += n;
        off = 0;
    }
    return done;
}

size_t virtq_write(const struct virtq_elem *e, size_t off, const void *buf, size_t len)
{
    size_t done = 0;
    for (unsigned i = e->nout; i < e->nout + e->nin && done < len; i++) {
        size_t have = e->iov[i].iov_len;
        if (off >= have) {
            off -= have;
            continue;
        }
        size_t n = MIN(have - off, len - done);
        memcpy((char *)e->iov[i].iov_base + off, (const char *)buf + done, n);
        done += n;
        off = 0;
    }
    return done;
}

/* ---- start and stop ---- */

/* Whether [gpa, gpa+len) is aligned and one piece of RAM. */
static bool area_ok(const struct virtq *q, gpa_t gpa, uint64_t len, unsigned align)
{
    struct iovec iov;
    unsigned n = 0;
    return gpa % align == 0 && mem_iov(q->dev->mem, gpa, len, true, &iov, &n, 1) == 0;
}

int virtq_start(struct virtq *q, uint64_t features, bool loaded)
{
    q->packed = features & VIRTIO_F_RING_PACKED;
    q->event_idx = features & VIRTIO_F_EVENT_IDX;
    q->indirect = features & VIRTIO_F_INDIRECT_DESC;
    unsigned n = q->size;
    if (!n || n > q->size_max)
        return -EINVAL;
    if (q->packed) {
        if (!area_ok(q, q->desc, 16ull * n, 16) || !area_ok(q, q->driver, 4, 4) || !area_ok(q, q->device, 4, 4))
            return -EINVAL;
        if (loaded && (q->avail_idx >= n || q->used_idx >= n))
            return -EINVAL;
    } else {
        if ((n & (n - 1)) || !area_ok(q, q->desc, 16ull * n, 16) || !area_ok(q, q->driver, 6 + 2ull * n, 2) ||
            !area_ok(q, q->device, 6 + 8ull * n, 4))
            return -EINVAL;
    }
    if (!loaded) {
        q->avail_idx = q->used_idx = 0;
        q->avail_wrap = q->used_wrap = true;
    }
    q->avail_seen = q->avail_idx;
    q->signalled_valid = false;
    q->unsignalled = loaded; /* the last interrupt may not have been taken: one too many does no harm */
    q->notify_off = q->broken = false;
    q->inuse = q->filled = 0;
    q->ready = true;
    return 0;
}

void virtq_clear(struct virtq *q)
{
    q->ready = q->broken = q->notify_off = false;
    q->size = q->size_max;
    q->desc = q->driver = q->device = 0;
    q->avail_idx = q->used_idx = q->avail_seen = 0;
    q->inuse = q->filled = 0;
}
