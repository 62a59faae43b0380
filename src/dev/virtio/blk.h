/* virtio-blk (virtio 1.2, 5.2): a disk. */
#ifndef LODGE_DEV_VIRTIO_BLK_H
#define LODGE_DEV_VIRTIO_BLK_H

#include "block/block.h"
#include "dev/virtio/virtio.h"

struct virtio_blk_config {
    const char *id; /* "vda" */
    struct mem *mem;
    struct blk *blk;     /* owned from success on */
    const char *serial;  /* up to 20 bytes; NULL: none */
    unsigned queues;     /* 0: 1 */
    unsigned queue_size; /* 0: 256; a power of two */
    struct loop *loop;   /* where I/O is submitted and completes: the main loop's or an I/O thread's */
};

int virtio_blk_new(const struct virtio_blk_config *cfg, struct virtio_dev **ret, struct err *err);

extern const struct device_type virtio_blk_type;

#endif
