/* The split ring (virtio 1.2, 2.7): descriptor table, available ring (driver area), used ring (device area). */
#include "base/bits.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtq_priv.h"

enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

static uint16_t read16(struct virtq *q, gpa_t gpa)
{
    uint16_t v = 0;
    if (mem_read16(q->dev->mem, gpa, &v) < 0)
        virtq_break(q, "the ring is not in RAM");
    return v;
}

static void write16(struct virtq *q, gpa_t gpa, uint16_t v)
{
    if (mem_write16(q->dev->mem, gpa, v) < 0)
        virtq_break(q, "the ring is not in RAM");
}

static gpa_t avail_event(const struct virtq *q)
{
    return q->device + 4 + 8ull * q->size;
}

static gpa_t used_event(const struct virtq *q)
{
    return q->driver + 4 + 2ull * q->size;
}

bool virtq_split_has_avail(struct virtq *q)
{
    if (q->avail_seen != q->avail_idx)
        return true;
    q->avail_seen = read16(q, q->driver + 2);
    if ((uint16_t)(q->avail_seen - q->avail_idx) > q->size) {
        virtq_break(q, "the available index jumped by more than the queue's size");
        q->avail_seen = q->avail_idx;
    }
    return q->avail_seen != q->avail_idx;
}

static bool read_desc(struct virtq *q, gpa_t gpa, struct virtq_desc *d)
{
    uint8_t raw[16];
    if (!virtq_read_desc(q, gpa, raw))
        return false;
    *d = (struct virtq_desc){le64_get(raw), le32_get(raw + 8), le16_get(raw + 12), le16_get(raw + 14)};
    return true;
}

/* Walks the chain from `head`: in the queue's table, at its end perhaps in one indirect table. */
static bool walk(struct virtq *q, struct virtq_elem *e, unsigned head)
{
    gpa_t table = q->desc;
    unsigned count = q->size, i = head, steps = 0;
    bool in_indirect = false;
    for (;;) {
        struct virtq_desc d;
        if (i >= count || steps++ >= count) {
            virtq_break(q, i >= count ? "a descriptor index is out of range" : "a descriptor chain is a loop");
            return false;
        }
        if (!read_desc(q, table + 16ull * i, &d))
            return false;
        if (d.flags & VIRTQ_DESC_INDIRECT) {
            if (in_indirect) {
                virtq_break(q, "an indirect descriptor in an indirect table");
                return false;
            }
            count = virtq_indirect_count(q, &d);
            if (!count)
                return false;
            in_indirect = true;
            table = d.addr;
            i = steps = 0;
            continue;
        }
        if (!virtq_add_piece(q, e, d.addr, d.len, d.flags & VIRTQ_DESC_WRITE))
            return false;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return true;
        i = d.next;
    }
}

bool virtq_split_pop(struct virtq *q, struct virtq_elem *e)
{
    if (q->inuse >= q->size) {
        virtq_break(q, "more buffers are in use than the queue has");
        return false;
    }
    uint16_t head = read16(q, q->driver + 4 + 2 * (q->avail_idx & (q->size - 1)));
    if (!walk(q, e, head))
        return false;
    e->id = head;
    e->ndesc = 1;
    q->avail_idx++;
    q->inuse++;
    if (q->event_idx && !q->notify_off)
        write16(q, avail_event(q), q->avail_idx);
    return true;
}

void virtq_split_unpop(struct virtq *q, const struct virtq_elem *e)
{
    q->avail_idx--;
}

void virtq_split_fill(struct virtq *q, const struct virtq_elem *e, uint32_t len)
{
    uint8_t used[8];
    le32_put(used, e->id);
    le32_put(used + 4, len);
    unsigned slot = (q->used_idx + q->filled) & (q->size - 1);
    if (mem_write(q->dev->mem, q->device + 4 + 8ull * slot, used, sizeof used) < 0)
        virtq_break(q, "the ring is not in RAM");
    q->filled++;
}

void virtq_split_flush(struct virtq *q)
{
    q->used_idx += q->filled;
    write16(q, q->device + 2, q->used_idx); /* a release store: the entries are visible before */
}

bool virtq_split_wants_irq(struct virtq *q)
{
    if (!q->event_idx)
        return !(read16(q, q->driver) & AVAIL_NO_INTERRUPT);
    return !q->signalled_valid || virtq_need_event(read16(q, used_event(q)), q->used_idx, q->signalled);
}

void virtq_split_doorbell(struct virtq *q, bool on)
{
    if (!q->event_idx)
        write16(q, q->device, on ? 0 : USED_NO_NOTIFY);
    else if (on)
        write16(q, avail_event(q), q->avail_idx);
}
