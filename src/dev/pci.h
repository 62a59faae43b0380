/*
 * PCI: functions on buses, configuration space, BARs, MSI and MSI-X (PCI Local Bus 3.0, PCI Express Base). A device
 * embeds struct pci_dev, fills in struct pci_info and the capabilities, and is told of BAR accesses as offsets. Mapping
 * on the port and memory buses happens here when the guest programs command register and BARs.
 */
#ifndef LODGE_DEV_PCI_H
#define LODGE_DEV_PCI_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

#define PCI_BARS 6
#define PCI_CONFIG_SIZE 4096
#define PCI_MSIX_MAX 128 /* vectors of one function */

struct pci_bus;
struct pci_dev;

struct pci_bar_info {
    uint64_t size; /* power of two; 0: none. Memory BARs at least 4096 */
    bool io;       /* I/O ports instead of memory */
    bool is64;     /* takes two BARs */
    bool prefetchable;
    const struct bus_ops *ops; /* opaque is the pci_dev */
};

struct pci_info {
    uint16_t vendor, device, subsys_vendor, subsys_id;
    uint32_t class_code; /* 24 bits: class, subclass, interface */
    uint8_t revision;
    uint8_t interrupt_pin; /* 0 none, 1 INTA# … */
    unsigned msix_vectors; /* 0: no MSI-X */
    unsigned
        msix_bar; /* BAR that holds table (offset 0) and PBA (offset 2048); the device does not describe this BAR */
    struct pci_bar_info bar[PCI_BARS];
};

struct pci_dev {
    struct device dev; /* first */
    struct pci_bus *bus;
    uint8_t devfn;
    const struct pci_info *info;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t wmask[PCI_CONFIG_SIZE]; /* bits the guest can write */
    uint8_t saved[PCI_CONFIG_SIZE]; /* config in a state stream: only what the guest can write is taken from it */
    uint16_t next_cap;              /* where pci_add_cap() puts the next one */
    /*
     * Optional hooks, called without the PCI lock: before a config read (to bring d->config up to date); after a config
     * write; when MSI-X vectors may have changed.
     */
    void (*config_reading)(struct pci_dev *d, unsigned off, unsigned len);
    void (*config_written)(struct pci_dev *d, unsigned off, unsigned len);
    void (*msix_changed)(struct pci_dev *d);
    /* Optional, without the PCI lock: the function may access memory from now on, or no longer (bus master enable). */
    void (*master_changed)(struct pci_dev *d, bool on);
    /* Optional: BAR `bar` was mapped at bus address `addr`, or is about to be unmapped (ioeventfds). No config access
     * from it. */
    void (*bar_mapped)(struct pci_dev *d, unsigned bar, uint64_t addr, bool mapped);
    /* MSI-X as the guest programmed it (3.0, 6.8.2): 4 words a vector, pending bits. pci.c's own; saved with config. */
    uint32_t msix_table[PCI_MSIX_MAX * 4];
    uint64_t msix_pba[PCI_MSIX_MAX / 64];
    struct pci_priv *priv; /* BAR mapping, MSI-X table, lock: pci.c's own */
};

/* A root bus. `pio`, `mmio`: where BARs are mapped. `intx(n)`, n 0..3: the four swizzled lines PIRQA..D. */
struct pci_bus *pci_bus_new(struct bus *pio, struct bus *mmio, const struct msi_sink *msi, const struct irq intx[4]);
void pci_bus_free(struct pci_bus *bus);
/* The memory bus that BARs are mapped on. */
struct bus *pci_bus_mmio(struct pci_bus *bus);

/* Puts an initialised device at `devfn` (-1: next free slot). The bus does not own it. -EEXIST, -ENOSPC. */
int pci_dev_add(struct pci_dev *d, struct pci_bus *bus, int devfn, const struct pci_info *info, struct err *err);
void pci_dev_remove(struct pci_dev *d);
/* Clears command, BARs and interrupts as a bus reset does. A device's reset calls it. */
void pci_dev_reset(struct pci_dev *d);

/* Appends a capability (id, total length in bytes incl. the 2-byte header); returns its offset in config, or -ENOSPC.
 */
int pci_add_cap(struct pci_dev *d, uint8_t id, unsigned len);
/* The PCI Express capability of a root complex integrated endpoint (PCIe Base 7.8). 0 or -ENOSPC. */
int pci_add_express(struct pci_dev *d);

/* INTx level (through the swizzle; off while MSI-X is enabled or the guest disabled it). */
void pci_set_intx(struct pci_dev *d, int level);
bool pci_msix_enabled(struct pci_dev *d);
/* Sends vector n, or marks it pending while masked. Any thread. */
void pci_msix_send(struct pci_dev *d, unsigned n);
/*
 * eventfd for vector n (owned by pci): writing 1 has the effect of pci_msix_send() without a thread of ours in between.
 * -ENOTSUP where the MSI sink cannot do that: send with pci_msix_send() then.
 */
int pci_msix_eventfd(struct pci_dev *d, unsigned n);

/* Config space by bus/device/function; 0xffffffff… for what is not there. */
uint32_t pci_config_read(struct pci_bus *bus, unsigned bdf, unsigned off, unsigned size);
void pci_config_write(struct pci_bus *bus, unsigned bdf, unsigned off, unsigned size, uint32_t val);

/* Ports 0xCF8/0xCFC (mechanism 1), and ECAM over `buses` buses (1 MiB each). */
int pci_map_ports(struct pci_bus *bus, struct bus *pio, struct err *err);
/* The reset control register, port 0xcf9, lies inside 0xCF8: byte accesses to it go to `ops`. Before the first vCPU
 * runs. */
void pci_set_reset_control(struct pci_bus *bus, const struct bus_ops *ops, void *opaque);
int pci_map_ecam(struct pci_bus *bus, struct bus *mmio, uint64_t base, unsigned buses, struct err *err);

/* Assigns BARs as firmware would, where none runs: memory from [mem_base, mem_end), ports from io_base; enables
 * decoding. */
void pci_assign(struct pci_bus *bus, uint64_t mem_base, uint64_t mem_end, uint16_t io_base);

/* The same for interrupts: `isa` holds what PIRQA..D lead to. */
void pci_assign_irqs(struct pci_bus *bus, const uint8_t isa[4]);

/* Calls fn for every function in the order of devfn. */
void pci_walk(struct pci_bus *bus, void (*fn)(void *opaque, struct pci_dev *d), void *opaque);
/* Config space and MSI-X of a struct pci_dev; saved beside the device's own state. Loading maps its BARs again. */
extern const struct state_desc pci_dev_state;
/* The root bus's own: the address register at 0xcf8. The object is the struct pci_bus. */
extern const struct state_desc pci_bus_state;

#endif
