/*
 * A SATA controller as in Intel's ICH9 (Serial ATA AHCI 1.3.1): six ports with disks (ATA8-ACS, native command
 * queueing) and CD/DVD drives (ATAPI, the commands are scsi.c's).
 *
 * Registers come from vCPU threads; commands are carried out on the loop's thread, where the images complete them. One
 * lock for the controller.
 */
#ifndef LODGE_DEV_AHCI_H
#define LODGE_DEV_AHCI_H

#include "block/block.h"
#include "dev/pci.h"

#define AHCI_PORTS 6

struct ahci_drive {
    bool present, cdrom;
    struct blk *blk; /* the port's from here on; NULL: an empty drive */
    const char *id;  /* "sda", for messages */
    const char *serial;
};

struct ahci_config {
    const char *id;
    struct pci_bus *bus;
    int devfn;
    struct mem *mem;
    struct loop *loop;
    struct ahci_drive drive[AHCI_PORTS];
    /* Optional: the guest has opened or closed a drive's tray. On the loop's thread. */
    void (*tray)(void *opaque, unsigned port, bool open);
    void *opaque;
};

int ahci_new(const struct ahci_config *cfg, struct pci_dev **ret, struct err *err);
/*
 * Another medium in a CD drive, or none (NULL): the loop's thread. Takes `blk`; the old one is closed. -EBUSY where the
 * guest has locked the tray and `force` is not given.
 */
int ahci_change(struct pci_dev *ahci, unsigned port, struct blk *blk, bool force, struct err *err);

extern const struct device_type ahci_type;

#endif
