/* A virtio device behind memory-mapped registers (virtio 1.2, 4.2, version 2). */
#ifndef LODGE_DEV_VIRTIO_VIRTIO_MMIO_H
#define LODGE_DEV_VIRTIO_VIRTIO_MMIO_H

#include "dev/bus.h"
#include "dev/irq.h"
#include "dev/virtio/virtio.h"

#define VIRTIO_MMIO_SIZE 0x200 /* bytes of registers that one device takes */

/* Maps `vdev` (not owned) at `base` of `mmio` with level-triggered interrupt `irq`. *ret is for the board's device
 * list. */
int virtio_mmio_new(struct virtio_dev *vdev, const char *id, struct bus *mmio, uint64_t base, struct irq irq,
                    struct device **ret, struct err *err);

extern const struct device_type virtio_mmio_type;

#endif
