#include "vdriver.h"

#include <stdlib.h>
#include <string.h>

#include "dev/virtio/virtio_mmio.h"
#include "dev/virtio/virtio_pci.h"

enum { MMIO_BASE = 0xd0000000, PCI_WINDOW = 0xe0000000, ECAM = 0xb0000000 };

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            abort();                                                                                                   \
    } while (0)

static void msi(void *opaque, uint64_t addr, uint32_t data)
{
    struct vd *vd = opaque;
    if (addr == 0xfee00000 && data < ARRAY_SIZE(vd->msi))
        vd->msi[data]++;
}

static void intx(void *opaque, unsigned n, int level)
{
    ((struct vd *)opaque)->intx = level;
}

void vd_machine(struct vd *vd, enum vd_transport transport, uint64_t ram)
{
    memset(vd, 0, sizeof *vd);
    vd->transport = transport;
    CHECK(mem_new(ram, 2 * GIB, &vd->mem, NULL) == 0);
    CHECK(loop_new(&vd->loop, NULL) == 0);
    vd->pio = bus_new("io", 0xffff);
    vd->mmio = bus_new("memory", UINT64_MAX);
    struct msi_sink sink = {.send = msi, .opaque = vd};
    struct irq line = {.set = intx, .opaque = vd};
    struct irq lines[4] = {line, line, line, line};
    vd->pci = pci_bus_new(vd->pio, vd->mmio, &sink, lines);
    CHECK(pci_map_ecam(vd->pci, vd->mmio, ECAM, 1, NULL) == 0);
    vd->next = 0x10000;
}

void vd_plug(struct vd *vd, struct virtio_dev *dev)
{
    vd->dev = dev;
    if (vd->transport == VD_PCI) {
        CHECK(virtio_pci_new(dev, "fn", vd->pci, -1, &vd->fn, NULL) == 0);
        pci_assign(vd->pci, PCI_WINDOW, PCI_WINDOW + 16 * MIB, 0xc000);
        vd->base = pci_config_read(vd->pci, vd->fn->devfn, 0x10, 4) & ~15u;
    } else {
        struct irq line = {.set = intx, .opaque = vd};
        CHECK(virtio_mmio_new(dev, "regs", vd->mmio, MMIO_BASE, line, &vd->regs, NULL) == 0);
        vd->base = MMIO_BASE;
    }
}

static unsigned find_cap(struct vd *vd, uint8_t id)
{
    unsigned at = pci_config_read(vd->pci, vd->fn->devfn, 0x34, 1);
    while (at && pci_config_read(vd->pci, vd->fn->devfn, at, 1) != id)
        at = pci_config_read(vd->pci, vd->fn->devfn, at + 1, 1);
    return at;
}

void vd_enable_msix(struct vd *vd)
{
    uint64_t table = pci_config_read(vd->pci, vd->fn->devfn, 0x14, 4) & ~15u;
    for (unsigned i = 0; i <= vd->dev->nqueues; i++) {
        bus_write(vd->mmio, table + 16 * i, 4, 0xfee00000);
        bus_write(vd->mmio, table + 16 * i + 4, 4, 0);
        bus_write(vd->mmio, table + 16 * i + 8, 4, i);
        bus_write(vd->mmio, table + 16 * i + 12, 4, 0);
    }
    unsigned cap = find_cap(vd, 0x11);
    pci_config_write(vd->pci, vd->fn->devfn, cap + 2, 2, 0x8000);
}

void vd_free(struct vd *vd)
{
    /* Device first or transport first: both must do. */
    if (vd->transport == VD_PCI) {
        device_free(&vd->dev->dev);
        device_free(&vd->fn->dev);
    } else {
        device_free(vd->regs);
        device_free(&vd->dev->dev);
    }
    pci_bus_free(vd->pci);
    bus_free(vd->pio);
    bus_free(vd->mmio);
    loop_free(vd->loop);
    mem_free(vd->mem);
}

/* ---- registers ---- */

static uint64_t rd(struct vd *vd, unsigned off, unsigned size)
{
    return bus_read(vd->mmio, vd->base + off, size);
}

static void wr(struct vd *vd, unsigned off, unsigned size, uint64_t val)
{
    bus_write(vd->mmio, vd->base + off, size, val);
}

void vd_set_status(struct vd *vd, uint8_t status)
{
    if (vd->transport == VD_PCI)
        wr(vd, 20, 1, status);
    else
        wr(vd, 0x70, 4, status);
}

uint8_t vd_status(struct vd *vd)
{
    return (uint8_t)(vd->transport == VD_PCI ? rd(vd, 20, 1) : rd(vd, 0x70, 4));
}

uint64_t vd_config(struct vd *vd, unsigned off, unsigned size)
{
    return rd(vd, (vd->transport == VD_PCI ? 0x2000 : 0x100) + off, size);
}

void vd_set_config(struct vd *vd, unsigned off, unsigned size, uint64_t val)
{
    wr(vd, (vd->transport == VD_PCI ? 0x2000 : 0x100) + off, size, val);
}

uint8_t vd_isr(struct vd *vd)
{
    if (vd->transport == VD_PCI)
        return (uint8_t)rd(vd, 0x1000, 1);
    uint64_t isr = rd(vd, 0x60, 4);
    wr(vd, 0x64, 4, isr);
    return (uint8_t)isr;
}

uint64_t vd_device_features(struct vd *vd)
{
    uint64_t f = 0;
    for (unsigned i = 0; i < 2; i++) {
        wr(vd, vd->transport == VD_PCI ? 0 : 0x14, 4, i);
        f |= rd(vd, vd->transport == VD_PCI ? 4 : 0x10, 4) << 32 * i;
    }
    return f;
}

bool vd_negotiate(struct vd *vd, uint64_t features)
{
    vd_set_status(vd, 0);
    vd_set_status(vd, VIRTIO_STATUS_ACKNOWLEDGE);
    vd_set_status(vd, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    for (unsigned i = 0; i < 2; i++) {
        wr(vd, vd->transport == VD_PCI ? 8 : 0x24, 4, i);
        wr(vd, vd->transport == VD_PCI ? 12 : 0x20, 4, features >> 32 * i & UINT32_MAX);
    }
    vd->features = features;
    vd_set_status(vd, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
    return vd_status(vd) & VIRTIO_STATUS_FEATURES_OK;
}

/* ---- queues ---- */

gpa_t vd_alloc(struct vd *vd, uint64_t len)
{
    gpa_t at = vd->next;
    vd->next += ALIGN_UP(len, 64);
    CHECK(vd->next <= vd->mem->low_size);
    return at;
}

void vd_queue_program(struct vdq *q)
{
    struct vd *vd = q->vd;
    uint64_t addr[3] = {q->desc, q->driver, q->device};
    bool pci = vd->transport == VD_PCI;
    wr(vd, pci ? 22 : 0x30, pci ? 2 : 4, q->index);
    wr(vd, pci ? 24 : 0x38, pci ? 2 : 4, q->size);
    for (unsigned i = 0; i < 3; i++) {
        wr(vd, pci ? 32 + 8 * i : 0x80 + 16 * i, 4, addr[i] & UINT32_MAX);
        wr(vd, pci ? 36 + 8 * i : 0x84 + 16 * i, 4, addr[i] >> 32);
    }
    if (pci && pci_msix_enabled(vd->fn)) {
        wr(vd, 16, 2, 0);
        wr(vd, 26, 2, q->index + 1);
    }
    wr(vd, pci ? 28 : 0x44, pci ? 2 : 4, 1);
}

void vd_queue(struct vd *vd, struct vdq *q, unsigned index, unsigned size)
{
    memset(q, 0, sizeof *q);
    q->vd = vd;
    q->index = index;
    q->size = q->nfree = size;
    q->packed = vd->features & VIRTIO_F_RING_PACKED;
    q->avail_wrap = q->used_wrap = true;
    for (unsigned i = 0; i < size; i++)
        q->free[i] = (uint16_t)(size - 1 - i);
    gpa_t *area[3] = {&q->desc, &q->driver, &q->device};
    uint64_t len[3] = {16ull * size, 6 + 2ull * size, 6 + 8ull * size};
    for (unsigned i = 0; i < 3; i++) {
        *area[i] = vd_alloc(vd, len[i]);
        CHECK(mem_set(vd->mem, *area[i], 0, len[i]) == 0);
    }
    vd_queue_program(q);
}

static void put_desc(struct vd *vd, gpa_t at, const struct vd_buf *b, uint16_t w12, uint16_t w14)
{
    uint8_t raw[16];
    le64_put(raw, b->gpa);
    le32_put(raw + 8, b->len);
    le16_put(raw + 12, w12);
    le16_put(raw + 14, w14);
    CHECK(mem_write(vd->mem, at, raw, 14) == 0);
    CHECK(mem_write16(vd->mem, at + 14, w14) == 0);
}

/* An indirect table of the buffers. */
static struct vd_buf make_indirect(struct vdq *q, const struct vd_buf *buf, unsigned n)
{
    gpa_t table = vd_alloc(q->vd, 16ull * n);
    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = (uint16_t)((i + 1 < n ? 1 : 0) | (buf[i].write ? 2 : 0));
        if (q->packed)
            put_desc(q->vd, table + 16 * i, &buf[i], 0, flags & 2);
        else
            put_desc(q->vd, table + 16 * i, &buf[i], flags, (uint16_t)(i + 1));
    }
    return (struct vd_buf){table, 16 * n, false};
}

static unsigned add_split(struct vdq *q, const struct vd_buf *buf, unsigned n, uint16_t extra)
{
    struct mem *m = q->vd->mem;
    unsigned head = q->free[q->nfree - 1];
    for (unsigned i = 0; i < n; i++) {
        unsigned at = q->free[--q->nfree], next = i + 1 < n ? q->free[q->nfree - 1] : 0;
        q->chain[at] = (uint16_t)next;
        put_desc(q->vd, q->desc + 16 * at, &buf[i], (uint16_t)((i + 1 < n ? 1 : 0) | (buf[i].write ? 2 : 0) | extra),
                 (uint16_t)next);
    }
    q->ndesc[head] = (uint16_t)n;
    CHECK(mem_write16(m, q->driver + 4 + 2 * (q->avail_idx % q->size), (uint16_t)head) == 0);
    CHECK(mem_write16(m, q->driver + 2, ++q->avail_idx) == 0);
    return head;
}

static unsigned add_packed(struct vdq *q, const struct vd_buf *buf, unsigned n, uint16_t extra)
{
    unsigned id = q->free[q->nfree - 1], first = q->avail_idx;
    uint16_t first_flags = 0;
    q->ndesc[id] = (uint16_t)n;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = q->free[--q->nfree]; /* as many ids as descriptors are in use */
        q->chain[at] = i + 1 < n ? q->free[q->nfree - 1] : 0;
        uint16_t flags =
            (uint16_t)((i + 1 < n ? 1 : 0) | (buf[i].write ? 2 : 0) | extra | (q->avail_wrap ? 1 << 7 : 1 << 15));
        uint16_t old;
        CHECK(mem_read16(q->vd->mem, q->desc + 16 * q->avail_idx + 14, &old) == 0);
        put_desc(q->vd, q->desc + 16 * q->avail_idx, &buf[i], (uint16_t)id, i ? flags : old);
        if (i == 0)
            first_flags = flags;
        if (++q->avail_idx == q->size) {
            q->avail_idx = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    CHECK(mem_write16(q->vd->mem, q->desc + 16 * first + 14, first_flags) == 0);
    return id;
}

unsigned vd_add(struct vdq *q, const struct vd_buf *buf, unsigned n, bool indirect)
{
    struct vd_buf one;
    CHECK((indirect ? 1 : n) <= q->nfree);
    if (indirect) {
        one = make_indirect(q, buf, n);
        buf = &one;
        n = 1;
    }
    return q->packed ? add_packed(q, buf, n, indirect ? 4 : 0) : add_split(q, buf, n, indirect ? 4 : 0);
}

void vd_ring(struct vdq *q)
{
    if (q->vd->transport == VD_PCI)
        wr(q->vd, 0x3000 + 4 * q->index, 2, q->index);
    else
        wr(q->vd, 0x50, 4, q->index);
}

static void give_free(struct vdq *q, unsigned id)
{
    for (unsigned i = 0, d = id; i < q->ndesc[id]; i++, d = q->chain[d])
        q->free[q->nfree++] = (uint16_t)d;
}

static bool get_split(struct vdq *q, unsigned *ret_id, uint32_t *ret_len)
{
    uint16_t idx;
    uint32_t id, len;
    CHECK(mem_read16(q->vd->mem, q->device + 2, &idx) == 0);
    if (idx == q->used_idx)
        return false;
    gpa_t at = q->device + 4 + 8 * (q->used_idx++ % q->size);
    CHECK(mem_read32(q->vd->mem, at, &id) == 0 && mem_read32(q->vd->mem, at + 4, &len) == 0);
    if (id >= q->size || q->nfree + q->ndesc[id] > q->size) {
        q->bad = true; /* the test wrote over its own ring, or the device is wrong */
        return false;
    }
    give_free(q, id);
    *ret_id = id;
    *ret_len = len;
    return true;
}

static bool get_packed(struct vdq *q, unsigned *ret_id, uint32_t *ret_len)
{
    uint16_t flags, id;
    uint32_t len;
    gpa_t at = q->desc + 16 * q->used_idx;
    CHECK(mem_read16(q->vd->mem, at + 14, &flags) == 0);
    if (!(flags & 1 << 7) != !q->used_wrap || !(flags & 1 << 15) != !q->used_wrap)
        return false;
    CHECK(mem_read16(q->vd->mem, at + 12, &id) == 0 && mem_read32(q->vd->mem, at + 8, &len) == 0);
    if (id >= q->size || q->nfree + q->ndesc[id] > q->size) {
        q->bad = true; /* the test wrote over its own ring, or the device is wrong */
        return false;
    }
    q->used_idx = (uint16_t)(q->used_idx + q->ndesc[id]);
    if (q->used_idx >= q->size) {
        q->used_idx = (uint16_t)(q->used_idx - q->size);
        q->used_wrap = !q->used_wrap;
    }
    give_free(q, id);
    *ret_id = id;
    *ret_len = len;
    return true;
}

bool vd_get(struct vdq *q, unsigned *ret_id, uint32_t *ret_len)
{
    return q->packed ? get_packed(q, ret_id, ret_len) : get_split(q, ret_id, ret_len);
}

void vd_run(struct vd *vd)
{
    for (int i = 0; i < 4; i++)
        loop_poll(vd->loop, 0);
}

bool vd_wait(struct vdq *q, unsigned *ret_id, uint32_t *ret_len)
{
    for (int i = 0; i < 200; i++) {
        if (vd_get(q, ret_id, ret_len))
            return true;
        loop_poll(q->vd->loop, 10);
    }
    return false;
}
