/*
 * virtio-9p (virtio 1.2, 5.9) with a 9P2000.L server: shares a directory of the host. The guest sees nothing outside of
 * it: paths are walked one name at a time, links are never followed by the host.
 */
#ifndef LODGE_DEV_VIRTIO_P9_H
#define LODGE_DEV_VIRTIO_P9_H

#include "dev/virtio/virtio.h"

struct virtio_p9_config {
    const char *id; /* "share0" */
    struct mem *mem;
    const char *path; /* the directory */
    const char *tag;  /* its name in the guest: mount -t 9p TAG; up to 200 bytes */
    bool readonly;
};

/* The server has a thread of its own: a slow disk stops nobody else. */
int virtio_p9_new(const struct virtio_p9_config *cfg, struct virtio_dev **ret, struct err *err);

extern const struct device_type virtio_p9_type;

#endif
