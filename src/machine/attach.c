/*
 * A domain's disks, NICs, consoles and the rest become devices: opens the backend, makes the virtio device, puts it behind the
 * board's transport. What a board has of its own (UARTs, controllers) is made in board_*.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/net.h"
#include "dev/virtio/p9.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/virtio_mmio.h"
#include "dev/virtio/virtio_pci.h"
#include "machine/machine.h"

/* The I/O APIC's pins that the micro board's other devices leave free. */
unsigned attach_mmio_gsi(unsigned slot)
{
    static const uint8_t gsis[VIRTIO_MMIO_SLOTS] = {16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 13, 14, 15};
    return gsis[slot];
}

/* Puts a virtio device on the board. It is the machine's from here on. *ret_devfn: its place on the PCI bus, or -1. */
static int plug_at(struct vm *vm, struct virtio_dev *vdev, int *ret_devfn, struct err *err)
{
    int code;
    vm_add_device(vm, &vdev->dev);
    if (vm->board->pci) {
        struct pci_dev *pci;
        autofree char *id = xasprintf("%.24s-pci", vdev->dev.id);
        code = virtio_pci_new(vdev, id, vm->pci, -1, &pci, err);
        if (code == 0) {
            vm_add_device(vm, &pci->dev);
            *ret_devfn = pci->devfn;
        }
        return code;
    }
    struct device *t;
    autofree char *id = xasprintf("%.24s-mmio", vdev->dev.id);
    unsigned slot = vm->mmio_slots;
    if (slot == VIRTIO_MMIO_SLOTS)
        return err_set(err, -ENOSPC, "the micro board has room for %u virtio devices", VIRTIO_MMIO_SLOTS);
    code = virtio_mmio_new(vdev, id, vm->mmio, VIRTIO_MMIO_BASE + slot * VIRTIO_MMIO_STRIDE, 
                           vm_gsi(vm, attach_mmio_gsi(slot)), &t, err);
    if (code == 0) {
        vm->mmio_slots++;
        vm_add_device(vm, t);
    }
    return code;
}

static int plug(struct vm *vm, struct virtio_dev *vdev, struct err *err)
{
    int devfn;
    return plug_at(vm, vdev, &devfn, err);
}

/* "4", or "4,1" for another function than 0: as in device paths. */
static char *unit(int devfn)
{
    return devfn & 7 ? xasprintf("%x,%x", devfn >> 3, devfn & 7) : xasprintf("%x", devfn >> 3);
}

static void console_quit(void *opaque)
{
    struct vm *vm = opaque;
    if (vm->owner.ended && !vm->end) {
        vm->end = VM_END_QUIT;
        vm->owner.ended(vm->owner.opaque, VM_END_QUIT, "ended from the console");
    }
}

int attach_chardev(struct vm *vm, const struct domain_chardev *c, struct chardev **ret, struct err *err)
{
    struct chardev_options o = {
        .type = domain_chardev_name(c->type),
        .path = c->path,
        .append = c->append,
        .connect = c->connect,
        .quit = console_quit,
        .opaque = vm,
    };
    int code = chardev_open(vm->loop, &o, ret, err);
    if (code < 0)
        return code;
    vm->chardevs = realloc(vm->chardevs, (vm->n_chardevs + 1) * sizeof(*vm->chardevs));
    if (!vm->chardevs)
        abort();
    vm->chardevs[vm->n_chardevs++] = *ret;
    return 0;
}

int attach_open(const struct domain_disk *k, struct blk **ret, struct err *err)
{
    struct blk_options opt = {
        .path = k->source,
        .format = k->format,
        .read_only = k->readonly,
        .direct = k->cache == DOMAIN_CACHE_NONE || k->cache == DOMAIN_CACHE_DIRECTSYNC,
        .no_flush = k->cache == DOMAIN_CACHE_UNSAFE,
        .writethrough = k->cache == DOMAIN_CACHE_WRITETHROUGH || k->cache == DOMAIN_CACHE_DIRECTSYNC,
        .no_discard = k->discard_unmap == DOMAIN_OFF,
        .share = k->shareable,
    };
    return blk_open(&opt, ret, err);
}

void attach_note_blk(struct vm *vm, struct blk *blk, const struct domain_disk *k)
{
    if (!vm->blks)
        vm->blks = xcalloc(vm->domain->n_disks, sizeof *vm->blks);
    vm->n_blks = vm->domain->n_disks;
    vm->blks[k - vm->domain->disks] = blk;
}

static int attach_disk(struct vm *vm, const struct domain_disk *k, struct err *err)
{
    struct blk *blk;
    int code = attach_open(k, &blk, err);
    if (code < 0)
        return code;
    struct virtio_blk_config cfg = {
        .id = k->target,
        .mem = vm->mem,
        .blk = blk,
        .serial = k->serial,
        .queues = k->queues,
        .loop = k->iothread && k->iothread <= vm->n_io ? vm->io[k->iothread - 1].loop : vm->loop,
    };
    struct virtio_dev *vdev;
    code = virtio_blk_new(&cfg, &vdev, err);
    if (code < 0) {
        blk_close(blk);
        return code;
    }
    attach_note_blk(vm, blk, k);
    int devfn = -1;
    if ((code = plug_at(vm, vdev, &devfn, err)) < 0 || devfn < 0)
        return code;
    autofree char *at = unit(devfn);
    boot_entry_add(vm, k->device == DOMAIN_DISK_CDROM ? BOOT_CDROM : BOOT_DISK, k->boot_order,
                   xasprintf("/pci@i0cf8/scsi@%s/disk@0,0", at));
    return 0;
}

/* What net_options.publish wants for each <portForward>; NULL-terminated, freed by the caller. */
static char **publish_list(const struct domain_interface *n)
{
    unsigned total = 0;
    for (unsigned i = 0; i < n->n_forwards; i++)
        total += n->forwards[i].n_ranges + 1;
    char **list = xcalloc(total + 1, sizeof *list);
    unsigned k = 0;
    for (unsigned i = 0; i < n->n_forwards; i++) {
        const struct domain_port_forward *f = &n->forwards[i];
        bool v6 = f->address && strchr(f->address, ':');
        autofree char *where = xasprintf("%s:%s%s%s%s%s%s", f->proto ? f->proto : "tcp", v6 ? "[" : "",
                                         f->address ? f->address : "", f->dev ? "%" : "", f->dev ? f->dev : "",
                                         v6 ? "]" : "", f->address || f->dev ? ":" : "");
        char *except = xstrdup("");
        unsigned before = k;
        for (unsigned j = 0; j < f->n_ranges; j++) {
            const struct domain_port_range *r = &f->ranges[j];
            if (r->exclude) {
                char *longer = xasprintf("%s,~%u-%u", except, r->start, MAX(r->end, r->start));
                free(except);
                except = longer;
            }
        }
        for (unsigned j = 0; j < f->n_ranges; j++) {
            const struct domain_port_range *r = &f->ranges[j];
            if (!r->exclude)
                list[k++] = xasprintf("%s%u-%u:%u%s", where, r->start, MAX(r->end, r->start), r->to ? r->to : r->start, except);
        }
        if (k == before)
            list[k++] = xasprintf("%s%s", where, except[0] ? except + 1 : "all");
        free(except);
    }
    return list;
}

static int attach_interface(struct vm *vm, const struct domain_interface *n, unsigned index, struct err *err)
{
    char **publish = publish_list(n);
    struct net_options opt = {
        .kind = n->type == DOMAIN_NET_USER ? "user" : "tap",
        .ifname = n->type == DOMAIN_NET_USER ? n->source_dev : n->target,
        .queues = n->queues,
        .publish = (const char *const *)publish,
        .mac = n->mac,
    };
    struct net *net;
    int code = net_open(&opt, vm->loop, &net, err);
    for (char **p = publish; *p; p++)
        free(*p);
    free(publish);
    if (code < 0)
        return code;
    autofree char *id = xasprintf("net%u", index);
    struct virtio_net_config cfg = {.id = id, .mem = vm->mem, .net = net, .loop = vm->loop};
    memcpy(cfg.mac, n->mac, sizeof cfg.mac);
    struct virtio_dev *vdev;
    code = virtio_net_new(&cfg, &vdev, err);
    if (code < 0) {
        net_close(net);
        return code;
    }
    int devfn = -1;
    if ((code = plug_at(vm, vdev, &devfn, err)) < 0 || devfn < 0)
        return code;
    autofree char *at = unit(devfn);
    boot_entry_add(vm, BOOT_NETWORK, n->boot_order, xasprintf("/pci@i0cf8/ethernet@%s/ethernet-phy@0", at));
    return 0;
}

static int attach_consoles(struct vm *vm, struct err *err)
{
    const struct domain *d = vm->domain;
    struct virtio_console_port_config ports[VIRTIO_CONSOLE_PORTS_MAX];
    unsigned n = 0;
    memset(ports, 0, sizeof ports);
    for (unsigned i = 0; i < d->n_consoles; i++) {
        if (d->consoles[i].target != DOMAIN_CONSOLE_VIRTIO)
            continue;
        if (n == VIRTIO_CONSOLE_PORTS_MAX)
            return err_set(err, -E2BIG, "more than %u virtio consoles", VIRTIO_CONSOLE_PORTS_MAX);
        struct chardev *chr;
        int code = attach_chardev(vm, &d->consoles[i].chardev, &chr, err);
        if (code < 0) {
            err_prefix(err, "console %u", i);
            return code;
        }
        ports[n++].chr = chr;
    }
    for (unsigned i = 0; i < d->n_channels; i++) {
        struct domain_chardev c = d->channels[i].chardev;
        if (n == VIRTIO_CONSOLE_PORTS_MAX)
            return err_set(err, -E2BIG, "more than %u virtio consoles and channels", VIRTIO_CONSOLE_PORTS_MAX);
        if (c.type == DOMAIN_CHARDEV_UNIX && !c.path)
            c.type = DOMAIN_CHARDEV_NULL;
        struct chardev *chr;
        int code = attach_chardev(vm, &c, &chr, err);
        if (code < 0) {
            err_prefix(err, "channel %u", i);
            return code;
        }
        ports[n++] = (struct virtio_console_port_config){chr, d->channels[i].name};
    }
    if (!n)
        return 0;
    struct virtio_console_config cfg = {.id = "console0", .mem = vm->mem, .loop = vm->loop, .ports = ports, .nports = n};
    struct virtio_dev *vdev;
    int code = virtio_console_new(&cfg, &vdev, err);
    return code < 0 ? code : plug(vm, vdev, err);
}

static int attach_rng(struct vm *vm, const struct domain_rng *r, unsigned index, struct err *err)
{
    autofree char *id = xasprintf("rng%u", index);
    struct virtio_rng_config cfg = {.id = id, .mem = vm->mem, .loop = vm->loop};
    if (r->rate_bytes)
        cfg.rate = r->rate_bytes * 1000 / (r->rate_period_ms ? r->rate_period_ms : 1000);
    struct virtio_dev *vdev;
    int code = virtio_rng_new(&cfg, &vdev, err);
    return code < 0 ? code : plug(vm, vdev, err);
}

static int attach_filesystem(struct vm *vm, const struct domain_filesystem *f, unsigned index, struct err *err)
{
    autofree char *id = xasprintf("share%u", index);
    struct virtio_p9_config cfg = {
        .id = id, .mem = vm->mem, .path = f->source, .tag = f->target, .readonly = f->readonly};
    struct virtio_dev *vdev;
    int code = virtio_p9_new(&cfg, &vdev, err);
    return code < 0 ? code : plug(vm, vdev, err);
}

static int attach_balloon(struct vm *vm, struct err *err)
{
    const struct domain_balloon *b = &vm->domain->balloon;
    if (b->model != DOMAIN_BALLOON_VIRTIO)
        return 0;
    struct virtio_balloon_config cfg = {
        .id = "balloon0",
        .mem = vm->mem,
        .loop = vm->loop,
        .deflate_on_oom = b->autodeflate == DOMAIN_ON,
        .free_page_reporting = b->free_page_reporting == DOMAIN_ON,
    };
    struct virtio_dev *vdev;
    int code = virtio_balloon_new(&cfg, &vdev, err);
    if (code < 0)
        return code;
    vm->balloon = vdev;
    return plug(vm, vdev, err);
}

int attach_all(struct vm *vm, struct err *err)
{
    const struct domain *d = vm->domain;
    int code = 0;
    for (unsigned i = 0; i < d->n_disks && !code; i++)
        if (d->disks[i].bus == DOMAIN_BUS_VIRTIO && (code = attach_disk(vm, &d->disks[i], err)) < 0)
            err_prefix(err, "disk '%s'", d->disks[i].target);
    if (!code && vm->pci)
        code = sata_attach(vm, err);
    for (unsigned i = 0; i < d->n_interfaces && !code; i++)
        if ((code = attach_interface(vm, &d->interfaces[i], i, err)) < 0)
            err_prefix(err, "network interface %u", i);
    if (!code)
        code = attach_consoles(vm, err);
    for (unsigned i = 0; i < d->n_rngs && !code; i++)
        code = attach_rng(vm, &d->rngs[i], i, err);
    if (!code)
        code = attach_balloon(vm, err);
    for (unsigned i = 0; i < d->n_filesystems && !code; i++)
        if ((code = attach_filesystem(vm, &d->filesystems[i], i, err)) < 0)
            err_prefix(err, "share '%s'", d->filesystems[i].target);
    return code;
}

void attach_free(struct vm *vm)
{
    for (unsigned i = 0; i < vm->n_chardevs; i++)
        chardev_free(vm->chardevs[i]);
    free(vm->chardevs);
    free(vm->blks); /* the images are the disks' own */
}
