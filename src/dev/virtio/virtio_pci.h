/* A virtio device as a modern PCI function (virtio 1.2, 4.1): vendor 0x1af4, device 0x1040 + id. */
#ifndef LODGE_DEV_VIRTIO_VIRTIO_PCI_H
#define LODGE_DEV_VIRTIO_VIRTIO_PCI_H

#include "dev/pci.h"
#include "dev/virtio/virtio.h"

/*
 * Puts `vdev` (not owned) on `bus` at `devfn` (-1: next free slot). The function is a device of its own, named `id`;
 * its reset also resets vdev. *ret is for the board's device list.
 */
int virtio_pci_new(struct virtio_dev *vdev, const char *id, struct pci_bus *bus, int devfn, struct pci_dev **ret,
                   struct err *err);

extern const struct device_type virtio_pci_type;

#endif
