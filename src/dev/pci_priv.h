/* What pci.c and pci_msix.c share; nobody else includes it. */
#ifndef LODGE_DEV_PCI_PRIV_H
#define LODGE_DEV_PCI_PRIV_H

#include <pthread.h>

#include "dev/pci.h"

enum {
    PCI_VENDOR_ID = 0x00,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYS_VENDOR = 0x2c,
    PCI_CAP_PTR = 0x34,
    PCI_INT_LINE = 0x3c,
    PCI_INT_PIN = 0x3d,

    PCI_COMMAND_IO = 1,
    PCI_COMMAND_MEMORY = 2,
    PCI_COMMAND_MASTER = 4,
    PCI_COMMAND_PARITY = 0x40,
    PCI_COMMAND_SERR = 0x100,
    PCI_COMMAND_INTX_DISABLE = 0x400,
    PCI_STATUS_INTX = 8,
    PCI_STATUS_CAPS = 0x10,

    PCI_CAP_EXPRESS = 0x10,
    PCI_CAP_MSIX = 0x11,
    PCI_MSIX_ENABLE = 0x8000,
    PCI_MSIX_MASKALL = 0x4000,
    PCI_MSIX_PBA_OFFSET = 2048,
    PCI_MSIX_BAR_SIZE = 4096,
};

struct pci_bar_state {
    uint64_t addr;
    bool mapped;
    bool blocked; /* enabled, but something else is mapped there */
};

struct pci_vector_fd {
    int fd; /* -1: none */
    bool bound;
    uint64_t addr;
    uint32_t data;
};

struct pci_priv {
    struct pci_bar_state bar[PCI_BARS]; /* under bus->lock */
    bool intx_level, intx_driven;       /* the device's level; whether it counts on the line. Under bus->intx_lock */
    pthread_mutex_t msix_lock;
    unsigned msix_cap;
    struct pci_vector_fd vec[PCI_MSIX_MAX];
};

struct pci_bus {
    struct bus *pio, *mmio;
    struct msi_sink msi;
    struct irq intx[4];
    pthread_mutex_t
        lock; /* config space and BAR mapping of all functions. Before: nothing. After it: intx_lock, msix_lock */
    pthread_mutex_t intx_lock;
    unsigned intx_count[4];
    struct pci_dev *slot[256];
    bool any_blocked;
    uint32_t cf8;
    const struct bus_ops *reset_ops; /* byte accesses to port 0xcf9 */
    void *reset_opaque;
};

void pci_intx_update(struct pci_dev *d);

extern const struct bus_ops pci_msix_ops;
int pci_msix_init(struct pci_dev *d, struct err *err);
void pci_msix_fini(struct pci_dev *d);
void pci_msix_reset(struct pci_dev *d);
/* Message control may have changed. No lock held. */
void pci_msix_control_written(struct pci_dev *d);

#endif
