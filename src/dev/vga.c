/* The VGA as a device: PCI function, ports, memory, state. See vga.h; registers, memory and drawing have files of their
 * own. */
#include "dev/vga.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/edid.h"
#include "dev/vga_priv.h"

#define MMIO_EDID 0x000u
#define MMIO_PORTS 0x400u
#define MMIO_DISPI 0x500u
#define MMIO_ENDIAN 0x604u
#define LITTLE_ENDIAN_ID 0x1e1e1e1eu
#define MMIO_SIZE 0x1000u

/* ---- ports ---- */

static uint64_t ports_read(struct vga *v, unsigned port, unsigned size)
{
    uint64_t val = 0;
    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)vga_port_read(v, port + i) << i * 8;
    pthread_mutex_unlock(&v->lock);
    return val;
}

static void ports_write(struct vga *v, unsigned port, unsigned size, uint64_t val)
{
    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        vga_port_write(v, port + i, (uint8_t)(val >> i * 8));
    pthread_mutex_unlock(&v->lock);
}

static uint64_t crt_mono_read(void *opaque, uint64_t off, unsigned size)
{
    return ports_read(opaque, 0x3b4 + (unsigned)off, size);
}
static void crt_mono_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    ports_write(opaque, 0x3b4 + (unsigned)off, size, val);
}
static uint64_t status_mono_read(void *opaque, uint64_t off, unsigned size)
{
    return ports_read(opaque, 0x3ba, size);
}
static void status_mono_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    ports_write(opaque, 0x3ba, size, val);
}
static uint64_t main_read(void *opaque, uint64_t off, unsigned size)
{
    return ports_read(opaque, 0x3c0 + (unsigned)off, size);
}
static void main_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    ports_write(opaque, 0x3c0 + (unsigned)off, size, val);
}

/* DISPI by ports: index at 0x1ce, data at 0x1cf and 0x1d0, 16 bits each. */
static uint64_t dispi_read(void *opaque, uint64_t off, unsigned size)
{
    struct vga *v = opaque;
    pthread_mutex_lock(&v->lock);
    uint64_t val = off ? vga_dispi_read(v, v->dispi_index) : v->dispi_index;
    pthread_mutex_unlock(&v->lock);
    return val;
}

static void dispi_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct vga *v = opaque;
    pthread_mutex_lock(&v->lock);
    if (off)
        vga_dispi_write(v, v->dispi_index, (uint16_t)val);
    else
        v->dispi_index = (uint16_t)val;
    pthread_mutex_unlock(&v->lock);
}

/* ---- BAR 2 ---- */

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
    struct vga *v = opaque;
    uint64_t val = 0;
    if (off >= MMIO_PORTS && off + size <= MMIO_PORTS + 0x20)
        return ports_read(v, 0x3c0 + (unsigned)(off - MMIO_PORTS), size);
    pthread_mutex_lock(&v->lock);
    if (off + size <= MMIO_EDID + sizeof v->edid)
        memcpy(&val, v->edid + off, size);
    else if (off >= MMIO_DISPI && off < MMIO_DISPI + 2 * DISPI_COUNT && size == 2)
        val = vga_dispi_read(v, (unsigned)(off - MMIO_DISPI) / 2);
    else if (off == 0x600)
        val = 8; /* bytes of extended registers */
    else if (off == MMIO_ENDIAN)
        val = LITTLE_ENDIAN_ID;
    pthread_mutex_unlock(&v->lock);
    return val;
}

static void mmio_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct vga *v = opaque;
    if (off >= MMIO_PORTS && off + size <= MMIO_PORTS + 0x20) {
        ports_write(v, 0x3c0 + (unsigned)(off - MMIO_PORTS), size, val);
    } else if (off >= MMIO_DISPI && off < MMIO_DISPI + 2 * DISPI_COUNT && size == 2) {
        pthread_mutex_lock(&v->lock);
        vga_dispi_write(v, (unsigned)(off - MMIO_DISPI) / 2, (uint16_t)val);
        pthread_mutex_unlock(&v->lock);
    }
}

static const struct bus_ops mmio_ops = {mmio_read, mmio_write, 1, 4};

/* ---- memory ---- */

static uint64_t legacy_read(void *opaque, uint64_t off, unsigned size)
{
    struct vga *v = opaque;
    uint64_t val = 0;
    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)vga_mem_read(v, (uint32_t)off + i) << i * 8;
    pthread_mutex_unlock(&v->lock);
    return val;
}

static void legacy_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct vga *v = opaque;
    pthread_mutex_lock(&v->lock);
    for (unsigned i = 0; i < size; i++)
        vga_mem_write(v, (uint32_t)off + i, (uint8_t)(val >> i * 8));
    pthread_mutex_unlock(&v->lock);
}

/* BAR 0 is memory. The bus only sees what the memory layout has not taken. */
static uint64_t vram_read(void *opaque, uint64_t off, unsigned size)
{
    struct vga *v = opaque;
    uint64_t val = 0;
    memcpy(&val, v->vram + off, size);
    return val;
}

static void vram_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct vga *v = opaque;
    memcpy(v->vram + off, &val, size);
    mem_page_dirty(v->mem, v->vram + off);
}

static const struct bus_ops vram_ops = {vram_read, vram_write, 1, 8};

/* With the PCI lock held; only the memory's own lock comes after it. */
static void bar_mapped(struct pci_dev *d, unsigned bar, uint64_t addr, bool mapped)
{
    struct vga *v = (struct vga *)d;
    struct mem_window w = {mapped ? MEM_RAM : MEM_OFF, addr, v->vram_size, v->vram};
    if (bar == 0)
        (void)!mem_set_windows(v->mem, (unsigned)v->window, &w, 1); /* refused: accesses go by the bus */
}

int vga_map(struct pci_dev *d, struct bus *pio, struct bus *mmio, struct err *err)
{
    static const struct bus_ops crt_mono = {crt_mono_read, crt_mono_write, 1, 2};
    static const struct bus_ops status_mono = {status_mono_read, status_mono_write, 1, 1};
    static const struct bus_ops main_ports = {main_read, main_write, 1, 2};
    static const struct bus_ops dispi_ports = {dispi_read, dispi_write, 1, 2};
    static const struct bus_ops legacy = {legacy_read, legacy_write, 1, 8};
    int code = bus_map(pio, "vga", 0x3b4, 2, &crt_mono, d, err);
    if (code < 0 || (code = bus_map(pio, "vga", 0x3ba, 1, &status_mono, d, err)) < 0 ||
        (code = bus_map(pio, "vga", 0x3c0, 0x20, &main_ports, d, err)) < 0 ||
        (code = bus_map(pio, "vga-dispi", 0x1ce, 3, &dispi_ports, d, err)) < 0)
        return code;
    return bus_map(mmio, "vga", VGA_LEGACY_BASE, VGA_LEGACY_SIZE, &legacy, d, err);
}

/* ---- life ---- */

static void vga_reset(struct device *dev)
{
    struct vga *v = (struct vga *)dev;
    pci_dev_reset(&v->pci);
    pthread_mutex_lock(&v->lock);
    vga_regs_reset(v);
    pthread_mutex_unlock(&v->lock);
}

static void vga_destroy(struct device *dev)
{
    struct vga *v = (struct vga *)dev;
    if (v->display)
        ui_display_set_source(v->display, NULL, NULL);
    pci_dev_remove(&v->pci);
    pthread_mutex_destroy(&v->lock);
    free(v->shown);
    free(v->shown_before);
    free(v);
}

/* Everything that drawing takes for granted. */
static int vga_post_load(void *obj, uint32_t version, struct err *err)
{
    struct vga *v = obj;
    v->sr_index &= 7;
    v->gr_index &= 15;
    v->ar_flip &= 1;
    v->status1 &= 9;
    if (v->dac_sub > 2)
        return err_set(err, -EINVAL, "vga: a palette position that cannot be");
    v->changed = true;
    uint16_t enable = v->dispi[DISPI_ENABLE], x = v->dispi[DISPI_X_OFFSET], bank = v->dispi[DISPI_BANK];
    if (enable & DISPI_ENABLED) /* writing a register once more checks all sizes */
        vga_dispi_write(v, DISPI_X_OFFSET, x);
    vga_dispi_write(v, DISPI_BANK, bank);
    return 0;
}

static const struct state_field vga_fields[] = {
    STATE_U(struct vga, misc),      STATE_U(struct vga, feature),
    STATE_U(struct vga, status1),   STATE_U(struct vga, sr_index),
    STATE_U(struct vga, gr_index),  STATE_U(struct vga, cr_index),
    STATE_U(struct vga, ar_index),  STATE_U(struct vga, ar_flip),
    STATE_RAW(struct vga, sr),      STATE_RAW(struct vga, gr),
    STATE_RAW(struct vga, cr),      STATE_RAW(struct vga, ar),
    STATE_RAW(struct vga, dac),     STATE_U(struct vga, dac_state),
    STATE_U(struct vga, dac_sub),   STATE_U(struct vga, dac_read),
    STATE_U(struct vga, dac_write), STATE_U(struct vga, dac_mask),
    STATE_U(struct vga, latch),     STATE_U(struct vga, dispi_index),
    STATE_ARRAY(struct vga, dispi), STATE_END,
};
static const struct state_desc vga_state = {"vga", 1, 1, vga_fields, NULL, vga_post_load};

const struct device_type vga_type = {
    .name = "vga",
    .summary = "VGA with linear modes (Bochs DISPI)",
    .state = &vga_state,
    .reset = vga_reset,
    .destroy = vga_destroy,
};

static const struct ui_source vga_source = {.update = vga_update};

int vga_new(const struct vga_config *cfg, struct pci_dev **ret, struct err *err)
{
    struct vga *v = xcalloc(1, sizeof *v);
    static const struct pci_info base = {
        .vendor = 0x1234,
        .device = 0x1111,
        .subsys_vendor = 0x1af4,
        .subsys_id = 0x1100,
        .class_code = 0x030000,
        .revision = 2,
        .bar = {[0] = {.prefetchable = true, .ops = &vram_ops}, [2] = {.size = MMIO_SIZE, .ops = &mmio_ops}},
    };
    device_init(&v->pci.dev, &vga_type, cfg->id);
    pthread_mutex_init(&v->lock, NULL);
    v->info = base;
    v->info.bar[0].size = cfg->vram_size;
    v->mem = cfg->mem;
    v->vram = cfg->mem->ram + cfg->mem->ram_size;
    v->vram_size = cfg->vram_size;
    uint64_t words = v->vram_size / PAGE_SIZE / 64 + 1;
    v->shown = xcalloc(words, sizeof *v->shown);
    v->shown_before = xcalloc(words, sizeof *v->shown);
    edid_make(v->edid, cfg->width ? cfg->width : 1280, cfg->height ? cfg->height : 800);
    v->pci.bar_mapped = bar_mapped;
    int hole = mem_add_window(v->mem, &(struct mem_window){MEM_HOLE, VGA_LEGACY_BASE, VGA_LEGACY_SIZE}, err);
    int code = hole < 0 ? hole : (v->window = mem_add_window(v->mem, &(struct mem_window){.kind = MEM_OFF}, err));
    if (code >= 0)
        code = pci_dev_add(&v->pci, cfg->bus, cfg->devfn, &v->info, err);
    if (code < 0) {
        vga_destroy(&v->pci.dev);
        return code;
    }
    vga_regs_reset(v);
    v->display = cfg->display;
    ui_display_set_source(v->display, &vga_source, v);
    *ret = &v->pci;
    return 0;
}
