/* The domain's SATA disks and CD drives: one AHCI controller where the chip set has it, 00:1f.2. Ports by target: sda
 * is port 0. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/ahci.h"
#include "machine/machine.h"

#define AHCI_DEVFN (0x1f << 3 | 2)

static int port_of(const struct domain_disk *k)
{
    return !strncmp(k->target, "sd", 2) && k->target[2] >= 'a' && k->target[2] < 'a' + AHCI_PORTS && !k->target[3]
               ? k->target[2] - 'a'
               : -1;
}

static void tray(void *opaque, unsigned port, bool open)
{
    struct vm *vm = opaque;
    if (vm->owner.tray && vm->sata_disk[port])
        vm->owner.tray(vm->owner.opaque, vm->sata_disk[port]->target, open);
}

int sata_attach(struct vm *vm, struct err *err)
{
    const struct domain *d = vm->domain;
    struct ahci_config cfg = {.id = "sata",
                              .bus = vm->pci,
                              .devfn = AHCI_DEVFN,
                              .mem = vm->mem,
                              .loop = vm->loop,
                              .tray = tray,
                              .opaque = vm};
    bool any = false;
    int code = 0;
    for (unsigned i = 0; i < d->n_disks && !code; i++) {
        const struct domain_disk *k = &d->disks[i];
        int port = port_of(k);
        if (k->bus != DOMAIN_BUS_SATA)
            continue;
        any = true;
        if (port < 0) {
            code = err_set(err, -EINVAL, "disk '%s': SATA disks are sda to sd%c", k->target, 'a' + AHCI_PORTS - 1);
            break;
        }
        struct ahci_drive *drive = &cfg.drive[port];
        if (k->source && (code = attach_open(k, &drive->blk, err)) < 0) {
            err_prefix(err, "disk '%s'", k->target);
            break;
        }
        drive->present = true;
        drive->cdrom = k->device == DOMAIN_DISK_CDROM;
        drive->id = k->target;
        drive->serial = k->serial;
        vm->sata_disk[port] = k;
        boot_entry_add(vm, drive->cdrom ? BOOT_CDROM : BOOT_DISK, k->boot_order,
                       xasprintf("/pci@i0cf8/pci8086,2922@1f,2/drive@%d/disk@0", port));
    }
    if (!code && any)
        code = ahci_new(&cfg, &vm->sata, err);
    for (unsigned i = 0; code < 0 && i < AHCI_PORTS; i++)
        blk_close(cfg.drive[i].blk);
    if (code < 0 || !any)
        return code;
    vm_add_device(vm, &vm->sata->dev);
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (cfg.drive[i].blk)
            attach_note_blk(vm, cfg.drive[i].blk, vm->sata_disk[i]);
    return 0;
}

int vm_change_medium(struct vm *vm, const char *target, const char *path, bool force, struct err *err)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        const struct domain_disk *k = vm->sata_disk[i];
        if (!k || strcmp(k->target, target))
            continue;
        struct blk *blk = NULL;
        struct blk_options opt = {.path = path, .format = "raw", .read_only = true};
        int code = path ? blk_open(&opt, &blk, err) : 0;
        if (code >= 0 && (code = ahci_change(vm->sata, i, blk, force, err)) < 0)
            blk_close(blk);
        else
            attach_note_blk(vm, blk, k);
        return code;
    }
    return err_set(err, -ENODEV, "there is no CD drive '%.40s'", target);
}
