/*
 * A guest's virtio driver without a guest: drives one device over PCI or MMIO, with split or packed rings, in one
 * thread. The test is the guest: it puts buffers into guest memory, rings, runs the loop, and looks at what came back.
 */
#ifndef TESTS_VIRTIO_VDRIVER_H
#define TESTS_VIRTIO_VDRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "dev/bus.h"
#include "dev/pci.h"
#include "dev/virtio/virtio.h"

enum vd_transport { VD_PCI, VD_MMIO };

struct vd {
    enum vd_transport transport;
    struct mem *mem;
    struct loop *loop;
    struct bus *pio, *mmio;
    struct pci_bus *pci;
    struct pci_dev *fn;  /* VD_PCI */
    struct device *regs; /* VD_MMIO */
    struct virtio_dev *dev;
    uint64_t base;     /* of the registers */
    uint64_t features; /* negotiated */
    gpa_t next;        /* guest memory given out so far */
    unsigned msi[65];  /* messages by data, which is the vector */
    int intx;          /* level of the line */
};

struct vd_buf {
    gpa_t gpa;
    uint32_t len;
    bool write; /* by the device */
};

struct vdq {
    struct vd *vd;
    unsigned index, size;
    bool packed;
    bool bad; /* an id came back that was not given out */
    gpa_t desc, driver, device;
    uint16_t avail_idx, used_idx; /* free running (split), slot (packed) */
    bool avail_wrap, used_wrap;
    unsigned nfree;
    uint16_t free[VIRTQ_SIZE_MAX]; /* descriptors (split), ids (packed) */
    uint16_t ndesc[VIRTQ_SIZE_MAX];
    uint16_t chain[VIRTQ_SIZE_MAX]; /* split: next of each descriptor given out */
};

/* A machine of `ram` bytes without CPU. msix: the driver enables MSI-X, vector 0 for config, 1+q for queue q. */
void vd_machine(struct vd *vd, enum vd_transport transport, uint64_t ram);
/* Puts a device in; owned from here. */
void vd_plug(struct vd *vd, struct virtio_dev *dev);
void vd_enable_msix(struct vd *vd);
void vd_free(struct vd *vd);

/* The registers of both transports, by one name. */
void vd_set_status(struct vd *vd, uint8_t status);
uint8_t vd_status(struct vd *vd);
uint64_t vd_config(struct vd *vd, unsigned off, unsigned size);
void vd_set_config(struct vd *vd, unsigned off, unsigned size, uint64_t val);
uint8_t vd_isr(struct vd *vd); /* reads it, and clears it */
uint64_t vd_device_features(struct vd *vd);
/* Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK: whether the device took them. */
bool vd_negotiate(struct vd *vd, uint64_t features);

gpa_t vd_alloc(struct vd *vd, uint64_t len);
void vd_queue(struct vd *vd, struct vdq *q, unsigned index, unsigned size);
/* Programs the addresses in *q and enables. */
void vd_queue_program(struct vdq *q);
/* Offers a chain; its id, for vd_get. */
unsigned vd_add(struct vdq *q, const struct vd_buf *buf, unsigned n, bool indirect);
void vd_ring(struct vdq *q);
/* Takes one used buffer: true, its id and length. */
bool vd_get(struct vdq *q, unsigned *ret_id, uint32_t *ret_len);
/* Runs the loop until something is used (2 seconds at most). */
bool vd_wait(struct vdq *q, unsigned *ret_id, uint32_t *ret_len);
void vd_run(struct vd *vd);

#endif
