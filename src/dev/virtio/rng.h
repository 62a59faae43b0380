/* virtio-rng (virtio 1.2, 5.4): random bytes from the host's kernel. */
#ifndef LODGE_DEV_VIRTIO_RNG_H
#define LODGE_DEV_VIRTIO_RNG_H

#include "dev/virtio/virtio.h"

struct virtio_rng_config {
    const char *id; /* "rng0" */
    struct mem *mem;
    struct loop *loop;
    uint64_t rate; /* bytes a second the guest may take; 0: 1 MiB */
};

int virtio_rng_new(const struct virtio_rng_config *cfg, struct virtio_dev **ret, struct err *err);

extern const struct device_type virtio_rng_type;

#endif
