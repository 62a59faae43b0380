/* What the two ring layouts share with virtq.c; nobody else includes it. Every function is called with q->lock held. */
#ifndef LODGE_DEV_VIRTIO_VIRTQ_PRIV_H
#define LODGE_DEV_VIRTIO_VIRTQ_PRIV_H

#include "dev/virtio/virtq.h"

enum { VIRTQ_DESC_NEXT = 1, VIRTQ_DESC_WRITE = 2, VIRTQ_DESC_INDIRECT = 4 };

struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next; /* packed: flags and id, swapped by its reader */
};

/* Copies the 16 bytes at `gpa`, once. False (and the queue is broken) when they are not RAM. */
bool virtq_read_desc(struct virtq *q, gpa_t gpa, uint8_t raw[16]);
/* Adds one piece to an element; false, with the queue broken, when it cannot be. */
bool virtq_add_piece(struct virtq *q, struct virtq_elem *e, uint64_t addr, uint32_t len, bool write);
/* The length of an indirect table in descriptors; 0, with the queue broken, when it cannot be. */
unsigned virtq_indirect_count(struct virtq *q, const struct virtq_desc *d);

static inline bool virtq_need_event(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

bool virtq_split_has_avail(struct virtq *q);
bool virtq_split_pop(struct virtq *q, struct virtq_elem *e);
void virtq_split_unpop(struct virtq *q, const struct virtq_elem *e);
void virtq_split_fill(struct virtq *q, const struct virtq_elem *e, uint32_t len);
void virtq_split_flush(struct virtq *q);
bool virtq_split_wants_irq(struct virtq *q);
void virtq_split_doorbell(struct virtq *q, bool on);

bool virtq_packed_has_avail(struct virtq *q);
bool virtq_packed_pop(struct virtq *q, struct virtq_elem *e);
void virtq_packed_unpop(struct virtq *q, const struct virtq_elem *e);
void virtq_packed_fill(struct virtq *q, const struct virtq_elem *e, uint32_t len);
void virtq_packed_flush(struct virtq *q);
bool virtq_packed_wants_irq(struct virtq *q);
void virtq_packed_doorbell(struct virtq *q, bool on);

#endif
