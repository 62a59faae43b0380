/*
 * The window at 0xa0000: how bytes reach the four planes (VGA Technical Reference, graphics controller). With DISPI on,
 * 0xa0000 is a bank of 64 KiB of linear memory. Under the device's lock.
 */
#include "dev/vga_priv.h"

/* Offset in the window of the memory map in use, or false where nothing answers. */
static bool map_offset(const struct vga *v, uint32_t *off)
{
    switch (v->gr[6] >> 2 & 3) {
    case 0: /* 128 KiB */
        return true;
    case 1: /* 64 KiB at 0xa0000 */
        return *off < 0x10000;
    case 2: /* 32 KiB at 0xb0000 */
        *off -= 0x10000;
        return *off < 0x8000;
    default: /* 32 KiB at 0xb8000 */
        *off -= 0x18000;
        return *off < 0x8000;
    }
}

static bool banked(const struct vga *v)
{
    return vga_dispi_on(v) && v->dispi[DISPI_BPP] != 4;
}

/* With chain 4 the address is the byte's place; with odd/even, its low bit chooses the plane. */
static bool chain4(const struct vga *v)
{
    return v->sr[4] & 8;
}

static uint32_t get32(const struct vga *v, uint32_t o)
{
    return le32_get(v->vram + 4 * (o & 0xffff));
}

uint8_t vga_mem_read(struct vga *v, uint32_t off)
{
    if (banked(v)) {
        uint64_t at = v->dispi[DISPI_BANK] * 64 * KIB + off;
        return off < 0x10000 && at < v->vram_size ? v->vram[at] : 0xff;
    }
    if (!map_offset(v, &off))
        return 0xff;
    if (chain4(v)) {
        v->latch = get32(v, off >> 2);
        return v->vram[off & (VGA_PLANES_SIZE - 1)];
    }
    if (v->gr[5] & 0x10) { /* odd/even */
        unsigned plane = (v->gr[4] & 2) | (off & 1);
        v->latch = get32(v, off >> 1);
        return (uint8_t)(v->latch >> plane * 8);
    }
    v->latch = get32(v, off);
    if (!(v->gr[5] & 8))
        return (uint8_t)(v->latch >> (v->gr[4] & 3) * 8);
    /* Read mode 1: which pixels have the colour. */
    uint8_t differ = 0;
    for (unsigned p = 0; p < 4; p++)
        if (v->gr[7] >> p & 1)
            differ |= (uint8_t)((uint8_t)(v->latch >> p * 8) ^ (v->gr[2] >> p & 1 ? 0xff : 0));
    return (uint8_t)~differ;
}

/* Each of the low four bits as a byte of all ones. */
static uint32_t planes(unsigned bits)
{
    return (bits & 1 ? 0xffu : 0) | (bits & 2 ? 0xff00u : 0) | (bits & 4 ? 0xff0000u : 0) |
           (bits & 8 ? 0xff000000u : 0);
}

static uint8_t rotate(const struct vga *v, uint8_t val)
{
    unsigned n = v->gr[3] & 7;
    return (uint8_t)(val >> n | val << (8 - n));
}

static uint32_t combine(const struct vga *v, uint32_t val, uint32_t bit_mask)
{
    switch (v->gr[3] >> 3 & 3) {
    case 1:
        val &= v->latch;
        break;
    case 2:
        val |= v->latch;
        break;
    case 3:
        val ^= v->latch;
        break;
    }
    return (val & bit_mask) | (v->latch & ~bit_mask);
}

static void planar_write(struct vga *v, uint32_t off, uint8_t byte)
{
    uint32_t mask = planes(v->sr[2]), bits = v->gr[8] * 0x01010101u, val;
    uint32_t set = planes(v->gr[0]), enable = planes(v->gr[1]);
    switch (v->gr[5] & 3) {
    case 0:
        val = rotate(v, byte) * 0x01010101u;
        val = combine(v, (val & ~enable) | (set & enable), bits);
        break;
    case 1:
        val = v->latch;
        break;
    case 2:
        val = combine(v, planes(byte), bits);
        break;
    default: /* 3: set/reset, by the rotated byte and the bit mask */
        bits &= rotate(v, byte) * 0x01010101u;
        val = combine(v, set, bits);
    }
    uint8_t *p = v->vram + 4 * (off & 0xffff);
    le32_put(p, (le32_get(p) & ~mask) | (val & mask));
}

void vga_mem_write(struct vga *v, uint32_t off, uint8_t val)
{
    if (banked(v)) {
        uint64_t at = v->dispi[DISPI_BANK] * 64 * KIB + off;
        if (off < 0x10000 && at < v->vram_size) {
            v->vram[at] = val;
            mem_page_dirty(v->mem, v->vram + at);
        }
        return;
    }
    if (!map_offset(v, &off))
        return;
    v->changed = true;
    if (chain4(v)) {
        if (v->sr[2] >> (off & 3) & 1)
            v->vram[off & (VGA_PLANES_SIZE - 1)] = val;
    } else if (v->gr[5] & 0x10) {
        unsigned plane = (v->gr[4] & 2) | (off & 1);
        if (v->sr[2] >> plane & 1)
            v->vram[4 * ((off >> 1) & 0xffff) + plane] = val;
    } else {
        planar_write(v, off, val);
    }
}
