/*
 * The PCI root bus: configuration space, BARs, INTx. Config accesses come from vCPU threads; bus->lock makes each one
 * atomic, together with the mapping of BARs that follows from it. A guest that maps two BARs over each other gets the
 * one that was there first; the other waits until the place is free.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "dev/pci_priv.h"

struct pci_bus *pci_bus_new(struct bus *pio, struct bus *mmio, const struct msi_sink *msi, const struct irq intx[4])
{
    struct pci_bus *bus = xcalloc(1, sizeof *bus);
    bus->pio = pio;
    bus->mmio = mmio;
    bus->msi = *msi;
    memcpy(bus->intx, intx, sizeof bus->intx);
    pthread_mutex_init(&bus->lock, NULL);
    pthread_mutex_init(&bus->intx_lock, NULL);
    return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
    if (!bus)
        return;
    pthread_mutex_destroy(&bus->lock);
    pthread_mutex_destroy(&bus->intx_lock);
    free(bus);
}

struct bus *pci_bus_mmio(struct pci_bus *bus)
{
    return bus->mmio;
}

/* ---- BARs ---- */

static uint16_t command(const struct pci_dev *d)
{
    return le16_get(&d->config[PCI_COMMAND]);
}

static const struct pci_bar_info *bar_info(const struct pci_dev *d, unsigned n)
{
    static const struct pci_bar_info msix = {.size = PCI_MSIX_BAR_SIZE, .ops = &pci_msix_ops};
    return d->info->msix_vectors && d->info->msix_bar == n ? &msix : &d->info->bar[n];
}

static struct bus *bar_bus(const struct pci_dev *d, unsigned n)
{
    return bar_info(d, n)->io ? d->bus->pio : d->bus->mmio;
}

/* Where the guest wants BAR n: false when it is not decoded (disabled, at 0, or with the all-ones pattern of sizing).
 */
static bool bar_wanted(const struct pci_dev *d, unsigned n, uint64_t *ret_addr)
{
    const struct pci_bar_info *b = bar_info(d, n);
    if (!b->size || !(command(d) & (b->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    uint64_t addr = le32_get(&d->config[PCI_BAR0 + 4 * n]) & (b->io ? ~3u : ~15u);
    uint64_t limit = b->io ? 0xffff : 0xffffffff;
    if (b->is64) {
        addr |= (uint64_t)le32_get(&d->config[PCI_BAR0 + 4 * n + 4]) << 32;
        limit = UINT64_MAX;
    }
    *ret_addr = addr;
    return addr && addr <= limit && limit - addr >= b->size;
}

static void bar_unmap(struct pci_dev *d, unsigned n)
{
    struct pci_bar_state *s = &d->priv->bar[n];
    s->blocked = false;
    if (!s->mapped)
        return;
    if (d->bar_mapped)
        d->bar_mapped(d, n, s->addr, false);
    bus_unmap(bar_bus(d, n), s->addr, bar_info(d, n)->size);
    s->mapped = false;
}

static void bar_map(struct pci_dev *d, unsigned n, uint64_t addr)
{
    struct pci_bar_state *s = &d->priv->bar[n];
    struct err err = {0};
    const struct pci_bar_info *b = bar_info(d, n);
    if (bus_map(bar_bus(d, n), d->dev.id, addr, b->size, b->ops, d, &err) < 0) {
        if (!s->blocked)
            log_guest("PCI device %s: BAR %u cannot be mapped: %s", d->dev.id, n, err.msg);
        s->blocked = true;
        d->bus->any_blocked = true;
        return;
    }
    *s = (struct pci_bar_state){.addr = addr, .mapped = true};
    if (d->bar_mapped)
        d->bar_mapped(d, n, addr, true);
}

/* Makes the mappings of d what its config space says. bus->lock held. */
static void update_bars(struct pci_dev *d)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        uint64_t addr;
        bool want = bar_wanted(d, n, &addr);
        struct pci_bar_state *s = &d->priv->bar[n];
        if (s->mapped && want && s->addr == addr)
            continue;
        bar_unmap(d, n);
        if (want)
            bar_map(d, n, addr);
    }
}

/* Tells the device whether it may access memory. No lock held. */
static void tell_master(struct pci_dev *d)
{
    if (d->master_changed)
        d->master_changed(d, command(d) & PCI_COMMAND_MASTER);
}

static void update_bars_and_blocked(struct pci_dev *d)
{
    struct pci_bus *bus = d->bus;
    update_bars(d);
    if (!bus->any_blocked)
        return;
    bus->any_blocked = false;
    for (unsigned i = 0; i < ARRAY_SIZE(bus->slot); i++)
        if (bus->slot[i])
            update_bars(bus->slot[i]);
}

static int init_bars(struct pci_dev *d, struct err *err)
{
    for (unsigned n = 0; n < PCI_BARS; n++) {
        const struct pci_bar_info *b = bar_info(d, n);
        if (!b->size)
            continue;
        if ((b->size & (b->size - 1)) || b->size < (b->io ? 4 : 16) || (b->is64 && n + 1 == PCI_BARS))
            return err_set(err, -EINVAL, "PCI device %s: BAR %u cannot have %llu bytes", d->dev.id, n,
                           (unsigned long long)b->size);
        uint64_t mask = ~(b->size - 1);
        le32_put(&d->config[PCI_BAR0 + 4 * n], b->io ? 1 : (b->is64 ? 4 : 0) | (b->prefetchable ? 8 : 0));
        le32_put(&d->wmask[PCI_BAR0 + 4 * n], (uint32_t)mask);
        if (b->is64)
            le32_put(&d->wmask[PCI_BAR0 + 4 * ++n], (uint32_t)(mask >> 32));
    }
    return 0;
}

/* ---- functions on the bus ---- */

static int take_slot(struct pci_dev *d, struct pci_bus *bus, int devfn, struct err *err)
{
    if (devfn < 0) {
        devfn = 8;
        while (devfn < 256 && bus->slot[devfn])
            devfn += 8;
        if (devfn >= 256)
            return err_set(err, -ENOSPC, "PCI device %s: no free slot on the bus", d->dev.id);
    }
    if (devfn >= 256 || bus->slot[devfn])
        return err_set(err, -EEXIST, "PCI device %s: slot %02x.%x is taken", d->dev.id, devfn >> 3, devfn & 7);
    d->devfn = (uint8_t)devfn;
    bus->slot[devfn] = d;
    /* Function 0 says that there are others. */
    struct pci_dev *fn0 = bus->slot[devfn & ~7];
    if (fn0)
        for (unsigned f = 1; f < 8; f++)
            if (bus->slot[(devfn & ~7) + f])
                fn0->config[PCI_HEADER_TYPE] |= 0x80;
    return 0;
}

int pci_dev_add(struct pci_dev *d, struct pci_bus *bus, int devfn, const struct pci_info *info, struct err *err)
{
    d->bus = bus;
    d->info = info;
    d->next_cap = 0x40;
    d->priv = xcalloc(1, sizeof *d->priv);
    le16_put(&d->config[PCI_VENDOR_ID], info->vendor);
    le16_put(&d->config[PCI_VENDOR_ID + 2], info->device);
    le32_put(&d->config[PCI_REVISION], info->class_code << 8 | info->revision);
    le16_put(&d->config[PCI_SUBSYS_VENDOR], info->subsys_vendor);
    le16_put(&d->config[PCI_SUBSYS_VENDOR + 2], info->subsys_id);
    d->config[PCI_INT_PIN] = info->interrupt_pin;
    d->wmask[PCI_INT_LINE] = 0xff;
    d->wmask[PCI_INT_LINE - 0x30] = 0xff; /* cache line size */
    le16_put(&d->wmask[PCI_COMMAND], PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                                         PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
    int ret = pci_msix_init(d, err);
    if (ret == 0)
        ret = init_bars(d, err);
    if (ret == 0) {
        pthread_mutex_lock(&bus->lock);
        ret = take_slot(d, bus, devfn, err);
        pthread_mutex_unlock(&bus->lock);
    }
    if (ret < 0) {
        pci_msix_fini(d);
        free(ptr_take(d->priv));
    }
    return ret;
}

void pci_dev_remove(struct pci_dev *d)
{
    if (!d->priv)
        return;
    pci_set_intx(d, 0);
    pthread_mutex_lock(&d->bus->lock);
    for (unsigned n = 0; n < PCI_BARS; n++)
        bar_unmap(d, n);
    d->bus->slot[d->devfn] = NULL;
    pthread_mutex_unlock(&d->bus->lock);
    pci_msix_fini(d);
    free(ptr_take(d->priv));
}

void pci_dev_reset(struct pci_dev *d)
{
    pthread_mutex_lock(&d->bus->lock);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        d->config[i] &= (uint8_t)~d->wmask[i];
    update_bars_and_blocked(d);
    pthread_mutex_unlock(&d->bus->lock);
    tell_master(d);
    pci_msix_reset(d);
    pci_set_intx(d, 0);
}

int pci_add_cap(struct pci_dev *d, uint8_t id, unsigned len)
{
    unsigned off = d->next_cap;
    if (len < 2 || off + len > 0x100)
        return -ENOSPC;
    d->config[off] = id;
    d->config[off + 1] = d->config[PCI_CAP_PTR];
    d->config[PCI_CAP_PTR] = (uint8_t)off;
    d->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    d->next_cap = (uint16_t)ALIGN_UP(off + len, 4);
    return (int)off;
}

int pci_add_express(struct pci_dev *d)
{
    int cap = pci_add_cap(d, PCI_CAP_EXPRESS, 0x3c);
    if (cap < 0)
        return cap;
    le16_put(&d->config[cap + 2], 2 | 9 << 4); /* version 2, root complex integrated endpoint */
    le32_put(&d->config[cap + 4], 1 << 15);    /* role-based error reporting */
    le16_put(&d->wmask[cap + 8], 0x7fff);      /* device control, without function level reset */
    return 0;
}

/* ---- INTx ---- */

static unsigned intx_line(const struct pci_dev *d)
{
    return (unsigned)((d->devfn >> 3) + d->info->interrupt_pin - 1) & 3;
}

void pci_intx_update(struct pci_dev *d)
{
    struct pci_bus *bus = d->bus;
    if (!d->info->interrupt_pin)
        return;
    unsigned line = intx_line(d);
    pthread_mutex_lock(&bus->intx_lock);
    bool drive = d->priv->intx_level && !(command(d) & PCI_COMMAND_INTX_DISABLE) && !pci_msix_enabled(d);
    if (drive != d->priv->intx_driven) {
        d->priv->intx_driven = drive;
        bus->intx_count[line] += drive ? 1 : -1u;
        irq_set(bus->intx[line], bus->intx_count[line] != 0);
    }
    pthread_mutex_unlock(&bus->intx_lock);
}

void pci_set_intx(struct pci_dev *d, int level)
{
    pthread_mutex_lock(&d->bus->intx_lock);
    d->priv->intx_level = level;
    pthread_mutex_unlock(&d->bus->intx_lock);
    pci_intx_update(d);
}

/* ---- configuration space ---- */

static struct pci_dev *find(struct pci_bus *bus, unsigned bdf)
{
    return bdf < ARRAY_SIZE(bus->slot) ? bus->slot[bdf] : NULL;
}

static bool access_ok(unsigned off, unsigned size)
{
    return (size == 1 || size == 2 || size == 4) && off <= PCI_CONFIG_SIZE - size;
}

uint32_t pci_config_read(struct pci_bus *bus, unsigned bdf, unsigned off, unsigned size)
{
    uint32_t val = 0;
    struct pci_dev *d = find(bus, bdf);
    if (!d || !access_ok(off, size))
        return (uint32_t)bits_trunc(UINT64_MAX, size);
    if (d->config_reading)
        d->config_reading(d, off, size);
    pthread_mutex_lock(&bus->lock);
    memcpy(&val, &d->config[off], size);
    pthread_mutex_unlock(&bus->lock);
    pthread_mutex_lock(&bus->intx_lock);
    if (off <= PCI_STATUS && off + size > PCI_STATUS && d->priv->intx_level)
        val |= (uint32_t)PCI_STATUS_INTX << 8 * (PCI_STATUS - off);
    pthread_mutex_unlock(&bus->intx_lock);
    return val;
}

static bool overlaps(unsigned off, unsigned size, unsigned reg, unsigned len)
{
    return off < reg + len && reg < off + size;
}

void pci_config_write(struct pci_bus *bus, unsigned bdf, unsigned off, unsigned size, uint32_t val)
{
    struct pci_dev *d = find(bus, bdf);
    if (!d || !access_ok(off, size))
        return;
    pthread_mutex_lock(&bus->lock);
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = d->wmask[off + i];
        d->config[off + i] = (uint8_t)((d->config[off + i] & ~mask) | (val >> 8 * i & mask));
    }
    if (overlaps(off, size, PCI_COMMAND, 2) || overlaps(off, size, PCI_BAR0, 4 * PCI_BARS))
        update_bars_and_blocked(d);
    pthread_mutex_unlock(&bus->lock);
    if (overlaps(off, size, PCI_COMMAND, 2)) {
        pci_intx_update(d);
        tell_master(d);
        if (d->priv->msix_cap)
            pci_msix_control_written(d);
    }
    if (d->priv->msix_cap && overlaps(off, size, d->priv->msix_cap + 2, 2))
        pci_msix_control_written(d);
    if (d->config_written)
        d->config_written(d, off, size);
}

/* ---- CF8/CFC and ECAM ---- */

static uint64_t cf8_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_bus *bus = opaque;
    if (off == 1 && size == 1 && bus->reset_ops)
        return bus->reset_ops->read(bus->reset_opaque, 0, 1);
    if (off < 4)
        return __atomic_load_n(&bus->cf8, __ATOMIC_RELAXED) >> 8 * off;
    uint32_t addr = __atomic_load_n(&bus->cf8, __ATOMIC_RELAXED);
    if (!(addr & 0x80000000))
        return UINT64_MAX;
    return pci_config_read(bus, addr >> 8 & 0xffff, (addr & 0xfc) | (unsigned)(off & 3), size);
}

static void cf8_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct pci_bus *bus = opaque;
    if (off < 4) {
        /* Only a whole doubleword is the address register; bytes here belong to other chips (reset control at 0xcf9).
         */
        if (off == 0 && size == 4)
            __atomic_store_n(&bus->cf8, (uint32_t)val & ~3u, __ATOMIC_RELAXED);
        else if (off == 1 && size == 1 && bus->reset_ops)
            bus->reset_ops->write(bus->reset_opaque, 0, 1, val);
        return;
    }
    uint32_t addr = __atomic_load_n(&bus->cf8, __ATOMIC_RELAXED);
    if (addr & 0x80000000)
        pci_config_write(bus, addr >> 8 & 0xffff, (addr & 0xfc) | (unsigned)(off & 3), size, (uint32_t)val);
}

static const struct bus_ops cf8_ops = {.read = cf8_read, .write = cf8_write, .min_size = 1, .max_size = 4};

void pci_set_reset_control(struct pci_bus *bus, const struct bus_ops *ops, void *opaque)
{
    bus->reset_ops = ops;
    bus->reset_opaque = opaque;
}

int pci_map_ports(struct pci_bus *bus, struct bus *pio, struct err *err)
{
    return bus_map(pio, "pci-config", 0xcf8, 8, &cf8_ops, bus, err);
}

static uint64_t ecam_read(void *opaque, uint64_t off, unsigned size)
{
    return pci_config_read(opaque, (unsigned)(off >> 12), off & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    pci_config_write(opaque, (unsigned)(off >> 12), off & 0xfff, size, (uint32_t)val);
}

static const struct bus_ops ecam_ops = {.read = ecam_read, .write = ecam_write, .min_size = 1, .max_size = 4};

int pci_map_ecam(struct pci_bus *bus, struct bus *mmio, uint64_t base, unsigned buses, struct err *err)
{
    return bus_map(mmio, "pci-ecam", base, buses * MIB, &ecam_ops, bus, err);
}

/* ---- without firmware ---- */

struct assignment {
    struct pci_dev *d;
    unsigned bar;
    uint64_t size;
};

static int larger_first(const void *a, const void *b)
{
    const struct assignment *x = a, *y = b;
    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    return x->d->devfn != y->d->devfn ? x->d->devfn - y->d->devfn : (int)x->bar - (int)y->bar;
}

void pci_assign(struct pci_bus *bus, uint64_t mem_base, uint64_t mem_end, uint16_t io_base)
{
    struct assignment *list = xcalloc(ARRAY_SIZE(bus->slot) * PCI_BARS, sizeof *list);
    unsigned count = 0;
    uint64_t io = io_base;
    pthread_mutex_lock(&bus->lock);
    for (unsigned i = 0; i < ARRAY_SIZE(bus->slot); i++)
        for (unsigned n = 0; bus->slot[i] && n < PCI_BARS; n++)
            if (bar_info(bus->slot[i], n)->size)
                list[count++] = (struct assignment){bus->slot[i], n, bar_info(bus->slot[i], n)->size};
    qsort(list, count, sizeof *list, larger_first);
    for (unsigned i = 0; i < count; i++) {
        struct pci_dev *d = list[i].d;
        const struct pci_bar_info *b = bar_info(d, list[i].bar);
        uint64_t *next = b->io ? &io : &mem_base, end = b->io ? 0x10000 : mem_end;
        uint64_t addr = ALIGN_UP(*next, b->size);
        if (addr < *next || addr >= end || end - addr < b->size) {
            log_warn("PCI device %s: no room for BAR %u", d->dev.id, list[i].bar);
            continue;
        }
        *next = addr + b->size;
        uint8_t *reg = &d->config[PCI_BAR0 + 4 * list[i].bar];
        le32_put(reg, (le32_get(reg) & 15) | (uint32_t)addr);
        if (b->is64)
            le32_put(reg + 4, (uint32_t)(addr >> 32));
        le16_put(&d->config[PCI_COMMAND],
                 command(d) | PCI_COMMAND_MASTER | (b->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bus->slot); i++)
        if (bus->slot[i])
            update_bars_and_blocked(bus->slot[i]);
    pthread_mutex_unlock(&bus->lock);
    for (unsigned i = 0; i < ARRAY_SIZE(bus->slot); i++)
        if (bus->slot[i])
            tell_master(bus->slot[i]);
    free(list);
}

void pci_assign_irqs(struct pci_bus *bus, const uint8_t isa[4])
{
    pthread_mutex_lock(&bus->lock);
    for (unsigned i = 0; i < ARRAY_SIZE(bus->slot); i++)
        if (bus->slot[i] && bus->slot[i]->info->interrupt_pin)
            bus->slot[i]->config[PCI_INT_LINE] = isa[intx_line(bus->slot[i])];
    pthread_mutex_unlock(&bus->lock);
}

void pci_walk(struct pci_bus *bus, void (*fn)(void *opaque, struct pci_dev *d), void *opaque)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bus->slot); i++)
        if (bus->slot[i])
            fn(opaque, bus->slot[i]);
}

/* ---- state ---- */

static void pre_save(void *obj)
{
    struct pci_dev *d = obj;
    memcpy(d->saved, d->config, sizeof d->saved);
}

static int post_load(void *obj, uint32_t version, struct err *err)
{
    struct pci_dev *d = obj;
    if (le16_get(&d->saved[0]) != d->info->vendor || le16_get(&d->saved[2]) != d->info->device)
        return err_set(err, -EINVAL, "saved state of PCI device %s: it is another device (%04x:%04x)", d->dev.id,
                       le16_get(&d->saved[0]), le16_get(&d->saved[2]));
    pthread_mutex_lock(&d->bus->lock);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        d->config[i] = (uint8_t)((d->config[i] & ~d->wmask[i]) | (d->saved[i] & d->wmask[i]));
    update_bars_and_blocked(d);
    pthread_mutex_unlock(&d->bus->lock);
    tell_master(d);
    pci_intx_update(d);
    for (unsigned n = 0; n < PCI_MSIX_MAX; n++)
        d->msix_table[4 * n + 3] &= 1;
    if (d->priv->msix_cap)
        pci_msix_control_written(d);
    return 0;
}

static const struct state_field fields[] = {
    STATE_RAW(struct pci_dev, saved),
    STATE_ARRAY(struct pci_dev, msix_table),
    STATE_ARRAY(struct pci_dev, msix_pba),
    STATE_END,
};

const struct state_desc pci_dev_state = {"pci", 1, 1, fields, pre_save, post_load};

static const struct state_field bus_fields[] = {
    STATE_U(struct pci_bus, cf8),
    STATE_END,
};

const struct state_desc pci_bus_state = {"pci-bus", 1, 1, bus_fields, NULL, NULL};
