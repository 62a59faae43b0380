/* The inside of the VGA, for vga*.c only. Register names are IBM's: sr sequencer, gr graphics, cr CRT, ar attribute. */
#ifndef LODGE_DEV_VGA_PRIV_H
#define LODGE_DEV_VGA_PRIV_H

#include <pthread.h>

#include "base/bits.h"
#include "dev/vga.h"

#define VGA_LEGACY_BASE 0xa0000u
#define VGA_LEGACY_SIZE 0x20000u
#define VGA_PLANES_SIZE (256 * KIB) /* four planes, interleaved: plane p of offset o is byte 4 * o + p */

enum {
    DISPI_ID,
    DISPI_XRES,
    DISPI_YRES,
    DISPI_BPP,
    DISPI_ENABLE,
    DISPI_BANK,
    DISPI_VIRT_WIDTH,
    DISPI_VIRT_HEIGHT,
    DISPI_X_OFFSET,
    DISPI_Y_OFFSET,
    DISPI_MEMORY,
    DISPI_COUNT,
};
enum { DISPI_ENABLED = 1, DISPI_GETCAPS = 2, DISPI_DAC8 = 0x20, DISPI_LFB = 0x40, DISPI_NOCLEAR = 0x80 };
#define DISPI_ID5 0xb0c5

struct vga {
    struct pci_dev pci; /* first */
    struct pci_info info;
    pthread_mutex_t lock;
    struct mem *mem;
    uint8_t *vram;
    uint64_t vram_size;
    struct ui_display *display;
    int window; /* of struct mem: BAR 0 */
    uint8_t edid[128];

    /* Guest-visible state. */
    uint8_t misc, feature, status1;
    uint8_t sr_index, gr_index, cr_index, ar_index, ar_flip;
    uint8_t sr[8], gr[16], cr[256], ar[21];
    uint8_t dac[768], dac_state, dac_sub, dac_read, dac_write, dac_mask;
    uint32_t latch;
    uint16_t dispi_index, dispi[DISPI_COUNT];

    /* The picture: main thread, but for `changed`. */
    bool changed;    /* registers, palette or legacy memory: draw all of it. Under the lock */
    uint64_t *shown; /* bitmap of written pages, now and last time */
    uint64_t *shown_before;
    uint32_t palette[256];
    uint32_t line[UI_WIDTH_MAX + 16];
};

/* vga_mem.c: the window at 0xa0000; `off` from there. Under the lock. */
uint8_t vga_mem_read(struct vga *v, uint32_t off);
void vga_mem_write(struct vga *v, uint32_t off, uint8_t val);

/* vga_draw.c */
void vga_update(void *opaque, bool all);

/* vga_regs.c */
uint8_t vga_port_read(struct vga *v, unsigned port);
void vga_port_write(struct vga *v, unsigned port, uint8_t val);
uint16_t vga_dispi_read(const struct vga *v, unsigned index);
void vga_dispi_write(struct vga *v, unsigned index, uint16_t val);
void vga_regs_reset(struct vga *v);

static inline bool vga_dispi_on(const struct vga *v)
{
    return v->dispi[DISPI_ENABLE] & DISPI_ENABLED;
}

#endif
