/*
 * virtio-balloon (virtio 1.2, 5.5): takes memory from the guest and gives it back, is told of pages the guest does not
 * use, and asks it for statistics.
 */
#ifndef LODGE_DEV_VIRTIO_BALLOON_H
#define LODGE_DEV_VIRTIO_BALLOON_H

#include "dev/virtio/virtio.h"

struct virtio_balloon_config {
    const char *id; /* "balloon0" */
    struct mem *mem;
    struct loop *loop;
    bool deflate_on_oom;      /* the guest may take pages back before it kills processes */
    bool free_page_reporting; /* memory that the guest frees goes back to the host by itself */
};

int virtio_balloon_new(const struct virtio_balloon_config *cfg, struct virtio_dev **ret, struct err *err);

/* Asks the guest to leave itself `bytes` of its RAM (rounded to pages, at most all). It follows when it can. Any
 * thread. */
void virtio_balloon_set_target(struct virtio_dev *dev, uint64_t bytes);
/* Bytes of RAM the guest has now. Any thread. */
uint64_t virtio_balloon_actual(struct virtio_dev *dev);
/* Called on the device's loop whenever the guest reports another actual size. On that loop, before the guest runs. */
void virtio_balloon_on_change(struct virtio_dev *dev, void (*fn)(void *opaque, uint64_t actual), void *opaque);

/* Statistics tags (5.5.6.3), indexes of `value`. */
enum virtio_balloon_stat {
    VIRTIO_BALLOON_S_SWAP_IN,
    VIRTIO_BALLOON_S_SWAP_OUT,
    VIRTIO_BALLOON_S_MAJFLT,
    VIRTIO_BALLOON_S_MINFLT,
    VIRTIO_BALLOON_S_MEMFREE,
    VIRTIO_BALLOON_S_MEMTOT,
    VIRTIO_BALLOON_S_AVAIL,
    VIRTIO_BALLOON_S_CACHES,
    VIRTIO_BALLOON_S_HTLB_PGALLOC,
    VIRTIO_BALLOON_S_HTLB_PGFAIL,
    VIRTIO_BALLOON_S_COUNT,
};
struct virtio_balloon_stats {
    uint64_t value[VIRTIO_BALLOON_S_COUNT]; /* all ones: the guest did not say */
    uint64_t host_ns;                       /* CLOCK_MONOTONIC when they came; 0: never */
};
/* The statistics that came last, and asks the guest for new ones. Any thread. */
void virtio_balloon_stats(struct virtio_dev *dev, struct virtio_balloon_stats *ret);

extern const struct device_type virtio_balloon_type;

#endif
