/*
 * The packed ring (virtio 1.2, 2.8): one ring of descriptors that driver and device both write, in rounds told apart by
 * wrap counters; driver and device areas hold only event suppression.
 */
#include "base/bits.h"
#include "dev/virtio/virtio.h"
#include "dev/virtio/virtq_priv.h"

enum {
    DESC_AVAIL = 1 << 7,
    DESC_USED = 1 << 15,
    EVENT_ENABLE = 0,
    EVENT_DISABLE = 1,
    EVENT_DESC = 2,
};

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

static gpa_t slot_gpa(const struct virtq *q, unsigned slot)
{
    return q->desc + 16ull * slot;
}

bool virtq_packed_has_avail(struct virtq *q)
{
    uint16_t flags = read16(q, slot_gpa(q, q->avail_idx) + 14);
    return !(flags & DESC_AVAIL) == !q->avail_wrap && !(flags & DESC_USED) != !q->avail_wrap;
}

static bool read_desc(struct virtq *q, gpa_t gpa, struct virtq_desc *d)
{
    uint8_t raw[16];
    if (!virtq_read_desc(q, gpa, raw))
        return false;
    *d = (struct virtq_desc){le64_get(raw), le32_get(raw + 8), le16_get(raw + 14), le16_get(raw + 12)};
    return true;
}

static bool walk_indirect(struct virtq *q, struct virtq_elem *e, const struct virtq_desc *d)
{
    unsigned count = virtq_indirect_count(q, d);
    for (unsigned i = 0; i < count; i++) {
        struct virtq_desc in;
        if (!read_desc(q, d->addr + 16ull * i, &in))
            return false;
        if (in.flags & VIRTQ_DESC_INDIRECT) {
            virtq_break(q, "an indirect descriptor in an indirect table");
            return false;
        }
        if (!virtq_add_piece(q, e, in.addr, in.len, in.flags & VIRTQ_DESC_WRITE))
            return false;
    }
    return count;
}

bool virtq_packed_pop(struct virtq *q, struct virtq_elem *e)
{
    unsigned slot = q->avail_idx, n = 0;
    bool wrap = q->avail_wrap;
    struct virtq_desc d;
    do {
        if (q->inuse + n >= q->size) {
            virtq_break(q, "more descriptors are in use than the queue has");
            return false;
        }
        if (!read_desc(q, slot_gpa(q, slot), &d))
            return false;
        if (d.flags & VIRTQ_DESC_INDIRECT) {
            if (!walk_indirect(q, e, &d))
                return false;
        } else if (!virtq_add_piece(q, e, d.addr, d.len, d.flags & VIRTQ_DESC_WRITE)) {
            return false;
        }
        n++;
        if (++slot == q->size) {
            slot = 0;
            wrap = !wrap;
        }
    } while (d.flags & VIRTQ_DESC_NEXT);
    e->id = d.next;
    e->ndesc = (uint16_t)n;
    q->avail_idx = (uint16_t)slot;
    q->avail_wrap = wrap;
    q->inuse = (uint16_t)(q->inuse + n);
    return true;
}

void virtq_packed_unpop(struct virtq *q, const struct virtq_elem *e)
{
    if (q->avail_idx < e->ndesc) {
        q->avail_idx = (uint16_t)(q->avail_idx + q->size);
        q->avail_wrap = !q->avail_wrap;
    }
    q->avail_idx = (uint16_t)(q->avail_idx - e->ndesc);
}

void virtq_packed_fill(struct virtq *q, const struct virtq_elem *e, uint32_t len)
{
    uint8_t raw[6];
    uint16_t flags = (uint16_t)((q->used_wrap ? DESC_AVAIL | DESC_USED : 0) | (e->nin ? VIRTQ_DESC_WRITE : 0));
    gpa_t gpa = slot_gpa(q, q->used_idx);
    le32_put(raw, len);
    le16_put(raw + 4, e->id);
    if (mem_write(q->dev->mem, gpa + 8, raw, sizeof raw) < 0)
        virtq_break(q, "the ring is not in RAM");
    /* The driver sees nothing of a batch until the flags of its first descriptor change, so those are written last. */
    if (q->filled) {
        write16(q, gpa + 14, flags);
    } else {
        q->first_slot = q->used_idx;
        q->first_flags = flags;
    }
    q->filled = (uint16_t)(q->filled + e->ndesc);
    q->used_idx = (uint16_t)(q->used_idx + e->ndesc);
    if (q->used_idx >= q->size) {
        q->used_idx = (uint16_t)(q->used_idx - q->size);
        q->used_wrap = !q->used_wrap;
        q->signalled = (uint16_t)(q->signalled - q->size); /* counted from this round's start */
    }
}

void virtq_packed_flush(struct virtq *q)
{
    write16(q, slot_gpa(q, q->first_slot) + 14, q->first_flags);
}

bool virtq_packed_wants_irq(struct virtq *q)
{
    uint16_t flags = read16(q, q->driver + 2) & 3;
    if (flags != EVENT_DESC || !q->event_idx)
        return flags != EVENT_DISABLE;
    uint16_t where = read16(q, q->driver), event = where & 0x7fff;
    if ((where >> 15) != q->used_wrap)
        event = (uint16_t)(event - q->size);
    return !q->signalled_valid || virtq_need_event(event, q->used_idx, q->signalled);
}

void virtq_packed_doorbell(struct virtq *q, bool on)
{
    if (on && q->event_idx)
        write16(q, q->device, (uint16_t)(q->avail_idx | q->avail_wrap << 15));
    write16(q, q->device + 2, !on ? EVENT_DISABLE : q->event_idx ? EVENT_DESC : EVENT_ENABLE);
}
