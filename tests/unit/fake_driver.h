/*
 * A guest's virtio driver made by hand, on the transport-neutral calls: split rings, one thread with the device's loop.
 * Buffers are cut from guest memory in order and never come back: tests are short.
 */
#ifndef LODGE_TESTS_FAKE_DRIVER_H
#define LODGE_TESTS_FAKE_DRIVER_H

#include <stdlib.h>

#include "base/fd.h"
#include "dev/virtio/virtio.h"

#define FAKE_RING 64

struct fake_queue {
    gpa_t desc, avail, used;
    uint16_t next_desc, avail_idx, seen;
};

struct fake_driver {
    struct virtio_transport transport; /* first */
    struct virtio_dev *dev;
    struct mem *mem;
    struct loop *loop;
    gpa_t next;
    unsigned irqs, config_irqs;
    struct fake_queue q[VIRTIO_QUEUES_MAX];
};

struct fake_buf {
    gpa_t gpa;
    uint32_t len;
};

static inline void fake_queue_irq(struct virtio_transport *t, unsigned queue)
{
    ((struct fake_driver *)t)->irqs++;
}
static inline void fake_config_irq(struct virtio_transport *t)
{
    ((struct fake_driver *)t)->config_irqs++;
}
static inline void fake_nothing(struct virtio_transport *t)
{
}

static inline gpa_t fake_alloc(struct fake_driver *d, uint64_t len)
{
    gpa_t gpa = d->next;
    d->next += ALIGN_UP(len, 4096);
    assert_true(d->next <= d->mem->ram_size);
    return gpa;
}

static inline struct fake_driver *fake_new(uint64_t ram)
{
    struct fake_driver *d = calloc(1, sizeof *d);
    d->transport = (struct virtio_transport){fake_queue_irq, fake_config_irq, fake_nothing, fake_nothing};
    assert_int_equal(mem_new(ram, ram, &d->mem, NULL), 0);
    assert_int_equal(loop_new(&d->loop, NULL), 0);
    return d;
}

/* Resets the device and brings it up with `features` (of those it offers) and all of its queues. */
static inline void fake_start(struct fake_driver *d, struct virtio_dev *dev, uint64_t features)
{
    d->dev = dev;
    d->next = 4096;
    memset(d->q, 0, sizeof d->q);
    virtio_attach(dev, &d->transport);
    virtio_set_status(dev, 0);
    virtio_set_status(dev, 3);
    uint64_t offered = virtio_get_features(dev, 0) | (uint64_t)virtio_get_features(dev, 1) << 32;
    features = (features | VIRTIO_F_VERSION_1) & offered & ~VIRTIO_F_RING_PACKED & ~VIRTIO_F_EVENT_IDX;
    virtio_set_driver_features(dev, 0, (uint32_t)features);
    virtio_set_driver_features(dev, 1, (uint32_t)(features >> 32));
    virtio_set_status(dev, 11);
    assert_int_equal(virtio_get_status(dev), 11);
    for (unsigned i = 0; i < dev->nqueues; i++) {
        struct fake_queue *q = &d->q[i];
        q->desc = fake_alloc(d, 16 * FAKE_RING);
        q->avail = fake_alloc(d, 6 + 2 * FAKE_RING);
        q->used = fake_alloc(d, 6 + 8 * FAKE_RING);
        assert_int_equal(mem_set(d->mem, q->desc, 0, 3 * 4096), 0);
        virtio_queue_set(dev, i, VIRTIO_QUEUE_SIZE, FAKE_RING, ~0ull);
        virtio_queue_set(dev, i, VIRTIO_QUEUE_DESC, q->desc, ~0ull);
        virtio_queue_set(dev, i, VIRTIO_QUEUE_DRIVER, q->avail, ~0ull);
        virtio_queue_set(dev, i, VIRTIO_QUEUE_DEVICE, q->used, ~0ull);
        virtio_queue_set(dev, i, VIRTIO_QUEUE_READY, 1, ~0ull);
    }
    virtio_set_status(dev, 15);
    assert_int_equal(virtio_get_status(dev), 15);
}

/* Offers a chain of nout readable and nin writable buffers; returns its id. */
static inline unsigned fake_add(struct fake_driver *d, unsigned queue, const struct fake_buf *bufs, unsigned nout,
                                unsigned nin)
{
    struct fake_queue *q = &d->q[queue];
    unsigned head = q->next_desc % FAKE_RING;
    for (unsigned i = 0; i < nout + nin; i++) {
        unsigned n = q->next_desc++ % FAKE_RING;
        uint8_t raw[16] = {0};
        le64_put(raw, bufs[i].gpa);
        le32_put(raw + 8, bufs[i].len);
        le16_put(raw + 12, (uint16_t)((i + 1 < nout + nin ? 1 : 0) | (i >= nout ? 2 : 0)));
        le16_put(raw + 14, (uint16_t)((n + 1) % FAKE_RING));
        assert_int_equal(mem_write(d->mem, q->desc + 16 * n, raw, 16), 0);
    }
    assert_int_equal(mem_write16(d->mem, q->avail + 4 + 2 * (q->avail_idx % FAKE_RING), (uint16_t)head), 0);
    assert_int_equal(mem_write16(d->mem, q->avail + 2, ++q->avail_idx), 0);
    return head;
}

/* Rings the doorbell and lets the device work. */
static inline void fake_kick(struct fake_driver *d, unsigned queue)
{
    virtio_kick(d->dev, queue);
    loop_poll(d->loop, 0);
}

/* Id of the next buffer that came back and the bytes written to it; -1: none. */
static inline int fake_used(struct fake_driver *d, unsigned queue, uint32_t *ret_len)
{
    struct fake_queue *q = &d->q[queue];
    uint16_t idx;
    uint32_t id, len;
    assert_int_equal(mem_read16(d->mem, q->used + 2, &idx), 0);
    if (idx == q->seen)
        return -1;
    assert_int_equal(mem_read32(d->mem, q->used + 4 + 8 * (q->seen % FAKE_RING), &id), 0);
    assert_int_equal(mem_read32(d->mem, q->used + 8 + 8 * (q->seen % FAKE_RING), &len), 0);
    q->seen++;
    if (ret_len)
        *ret_len = len;
    return (int)id;
}

/* The same, waiting up to 5 s. */
static inline int fake_wait_used(struct fake_driver *d, unsigned queue, uint32_t *ret_len)
{
    int id;
    for (uint64_t end = clock_host_ns() + 5 * NSEC_PER_SEC;
         (id = fake_used(d, queue, ret_len)) < 0 && clock_host_ns() < end;)
        loop_poll(d->loop, 10);
    return id;
}

/* A buffer with these bytes. */
static inline struct fake_buf fake_bytes(struct fake_driver *d, const void *data, size_t len)
{
    struct fake_buf b = {fake_alloc(d, len), (uint32_t)len};
    assert_int_equal(mem_write(d->mem, b.gpa, data, len), 0);
    return b;
}

static inline struct fake_buf fake_room(struct fake_driver *d, size_t len)
{
    return (struct fake_buf){fake_alloc(d, len), (uint32_t)len};
}

/* Frees the device, too. */
static inline void fake_free(struct fake_driver *d)
{
    if (d->dev)
        device_free(&d->dev->dev);
    loop_free(d->loop);
    mem_free(d->mem);
    free(d);
}

#endif
