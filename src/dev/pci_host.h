/*
 * The two functions of a Q35-like root bus that firmware and kernels look for: the host bridge (Intel Q35 MCH, 00:00.0)
 * and the LPC bridge (ICH9, 00:1f.0). They hold what is written and pass it on; what the registers mean (where ECAM and
 * the power management ports lie, which IRQ a PIRQ line goes to) is for the board to do in `written`.
 */
#ifndef LODGE_DEV_PCI_HOST_H
#define LODGE_DEV_PCI_HOST_H

#include "dev/pci.h"

#define LPC_DEVFN (0x1f << 3)

enum {
    MCH_PCIEXBAR = 0x60, /* 8 bytes: ECAM base and bit 0 enable (Q35 datasheet 5.1.16) */
    MCH_PAM0 = 0x90,     /* 7 bytes: shadowing of 0xc0000..0xfffff */
    MCH_SMRAM = 0x9d,
    LPC_PMBASE = 0x40,     /* 4 bytes: port base of the power management registers (ICH9 13.1.10) */
    LPC_ACPI_CNTL = 0x44,  /* bit 7 enables them */
    LPC_PIRQA_ROUT = 0x60, /* 4 bytes, A..D: IRQ number, bit 7 disables (13.1.14) */
    LPC_PIRQE_ROUT = 0x68,
    LPC_RCBA = 0xf0,
};

struct pci_chip_config {
    struct pci_bus *bus;
    /* Optional: after a guest's write to config space, and after reset (off 0, len 256). Any vCPU thread, no lock held.
     */
    void (*written)(void *opaque, struct pci_dev *d, unsigned off, unsigned len);
    void *opaque;
};

int pci_host_new(const struct pci_chip_config *cfg, struct pci_dev **ret, struct err *err);
int pci_lpc_new(const struct pci_chip_config *cfg, struct pci_dev **ret, struct err *err);

extern const struct device_type pci_host_type, pci_lpc_type;

#endif
