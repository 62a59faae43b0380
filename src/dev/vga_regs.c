/* VGA's registers (IBM VGA Technical Reference; ports 0x3b4-0x3df) and Bochs' DISPI registers. Under the device's lock.
 */
#include <string.h>

#include "dev/vga_priv.h"

static const uint8_t sr_mask[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0x00, 0x00, 0xff};
static const uint8_t gr_mask[16] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

/* Are the CRT's ports the colour ones? */
static bool port_here(const struct vga *v, unsigned port)
{
    bool colour = v->misc & 1;
    if (port >= 0x3b0 && port <= 0x3bf)
        return !colour;
    if (port >= 0x3d0 && port <= 0x3df)
        return colour;
    return true;
}

uint8_t vga_port_read(struct vga *v, unsigned port)
{
    uint8_t val;
    if (!port_here(v, port))
        return 0xff;
    switch (port) {
    case 0x3c0:
        return v->ar_flip ? 0 : v->ar_index;
    case 0x3c1:
        return (v->ar_index & 0x1f) < 21 ? v->ar[v->ar_index & 0x1f] : 0;
    case 0x3c2:
        return 0x10; /* switch sense: a colour monitor */
    case 0x3c4:
        return v->sr_index;
    case 0x3c5:
        return v->sr[v->sr_index];
    case 0x3c6:
        return v->dac_mask;
    case 0x3c7:
        return v->dac_state;
    case 0x3c8:
        return v->dac_write;
    case 0x3c9:
        val = v->dac[v->dac_read * 3u + v->dac_sub];
        if (++v->dac_sub == 3) {
            v->dac_sub = 0;
            v->dac_read++;
        }
        return val;
    case 0x3ca:
        return v->feature;
    case 0x3cc:
        return v->misc;
    case 0x3ce:
        return v->gr_index;
    case 0x3cf:
        return v->gr[v->gr_index];
    case 0x3b4:
    case 0x3d4:
        return v->cr_index;
    case 0x3b5:
    case 0x3d5:
        return v->cr[v->cr_index];
    case 0x3ba:
    case 0x3da:
        /* Retrace comes and goes: whoever waits for either goes on soon. */
        v->ar_flip = 0;
        v->status1 ^= 0x09;
        return v->status1;
    }
    return 0;
}

static void write_attribute(struct vga *v, uint8_t val)
{
    static const uint8_t mask[21] = {[0 ... 15] = 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f};
    v->ar_flip ^= 1;
    if (v->ar_flip)
        v->ar_index = val & 0x3f;
    else if ((v->ar_index & 0x1f) < 21)
        v->ar[v->ar_index & 0x1f] = val & mask[v->ar_index & 0x1f];
}

static void write_crt(struct vga *v, uint8_t val)
{
    unsigned i = v->cr_index;
    if ((v->cr[0x11] & 0x80) && i < 8) {
        if (i == 7) /* only line compare's bit is not protected */
            v->cr[7] = (uint8_t)((v->cr[7] & ~0x10) | (val & 0x10));
        return;
    }
    v->cr[i] = val;
}

void vga_port_write(struct vga *v, unsigned port, uint8_t val)
{
    if (!port_here(v, port))
        return;
    v->changed = true;
    switch (port) {
    case 0x3c0:
        write_attribute(v, val);
        break;
    case 0x3c2:
        v->misc = val & ~0x10;
        break;
    case 0x3c4:
        v->sr_index = val & 7;
        break;
    case 0x3c5:
        v->sr[v->sr_index] = val & sr_mask[v->sr_index];
        break;
    case 0x3c6:
        v->dac_mask = val;
        break;
    case 0x3c7:
        v->dac_read = val;
        v->dac_sub = 0;
        v->dac_state = 3;
        break;
    case 0x3c8:
        v->dac_write = val;
        v->dac_sub = 0;
        v->dac_state = 0;
        break;
    case 0x3c9:
        v->dac[v->dac_write * 3u + v->dac_sub] = val;
        if (++v->dac_sub == 3) {
            v->dac_sub = 0;
            v->dac_write++;
        }
        break;
    case 0x3ce:
        v->gr_index = val & 15;
        break;
    case 0x3cf:
        v->gr[v->gr_index] = val & gr_mask[v->gr_index];
        break;
    case 0x3b4:
    case 0x3d4:
        v->cr_index = val;
        break;
    case 0x3b5:
    case 0x3d5:
        write_crt(v, val);
        break;
    case 0x3ba:
    case 0x3da:
        v->feature = val & 0x10;
        break;
    }
}

/* ---- DISPI ---- */

static unsigned bytes_of_line(const struct vga *v, unsigned width)
{
    unsigned bpp = v->dispi[DISPI_BPP];
    return bpp == 4 ? width / 2 : width * ((bpp + 7) / 8);
}

/* Sizes that the video memory holds, and that follow from each other. */
static void fix_sizes(struct vga *v)
{
    uint16_t *r = v->dispi;
    static const uint8_t depths[] = {4, 8, 15, 16, 24, 32};
    bool known = false;
    for (unsigned i = 0; i < ARRAY_SIZE(depths); i++)
        known |= r[DISPI_BPP] == depths[i];
    if (!known)
        r[DISPI_BPP] = 8;
    r[DISPI_XRES] = (uint16_t)MIN(MAX(r[DISPI_XRES] & ~7u, 8u), UI_WIDTH_MAX);
    r[DISPI_VIRT_WIDTH] = (uint16_t)MIN(MAX(r[DISPI_VIRT_WIDTH] & ~7u, (unsigned)r[DISPI_XRES]), 0x4000u);
    uint64_t line = MAX(bytes_of_line(v, r[DISPI_VIRT_WIDTH]), 1u), lines = v->vram_size / line;
    r[DISPI_VIRT_HEIGHT] = (uint16_t)MIN(lines, 0xffffull);
    r[DISPI_YRES] = (uint16_t)MIN(MAX((uint64_t)r[DISPI_YRES], 1ull), MIN(MAX(lines, 1ull), (uint64_t)UI_HEIGHT_MAX));
    r[DISPI_X_OFFSET] = (uint16_t)MIN(r[DISPI_X_OFFSET], (unsigned)(r[DISPI_VIRT_WIDTH] - r[DISPI_XRES]));
    unsigned room = r[DISPI_VIRT_HEIGHT] > r[DISPI_YRES] ? r[DISPI_VIRT_HEIGHT] - r[DISPI_YRES] : 0u;
    r[DISPI_Y_OFFSET] = (uint16_t)MIN(r[DISPI_Y_OFFSET], room);
}

uint16_t vga_dispi_read(const struct vga *v, unsigned index)
{
    if (index == DISPI_MEMORY)
        return (uint16_t)(v->vram_size / (64 * KIB));
    if (index >= DISPI_COUNT)
        return 0;
    if (v->dispi[DISPI_ENABLE] & DISPI_GETCAPS) {
        switch (index) {
        case DISPI_XRES:
            return UI_WIDTH_MAX;
        case DISPI_YRES:
            return UI_HEIGHT_MAX;
        case DISPI_BPP:
            return 32;
        }
    }
    return v->dispi[index];
}

void vga_dispi_write(struct vga *v, unsigned index, uint16_t val)
{
    uint16_t *r = v->dispi;
    bool was = vga_dispi_on(v);
    if (index >= DISPI_MEMORY)
        return;
    v->changed = true;
    switch (index) {
    case DISPI_ID:
        if (val >= 0xb0c0 && val <= DISPI_ID5)
            r[DISPI_ID] = val;
        return;
    case DISPI_BANK:
        r[DISPI_BANK] = (uint16_t)MIN((uint64_t)val, v->vram_size / (64 * KIB) - 1);
        return;
    case DISPI_VIRT_HEIGHT:
        return;
    case DISPI_ENABLE:
        r[DISPI_ENABLE] = val;
        if ((val & DISPI_ENABLED) && !was) {
            r[DISPI_VIRT_WIDTH] = r[DISPI_XRES];
            r[DISPI_X_OFFSET] = r[DISPI_Y_OFFSET] = 0;
            fix_sizes(v);
            if (!(val & DISPI_NOCLEAR))
                memset(v->vram, 0, (uint64_t)r[DISPI_YRES] * bytes_of_line(v, r[DISPI_VIRT_WIDTH]));
        } else if (!(val & DISPI_ENABLED)) {
            r[DISPI_BANK] = 0;
        }
        return;
    default:
        r[index] = val;
        if (was)
            fix_sizes(v);
    }
}

void vga_regs_reset(struct vga *v)
{
    v->misc = v->feature = v->status1 = 0;
    v->sr_index = v->gr_index = v->cr_index = v->ar_index = v->ar_flip = 0;
    memset(v->sr, 0, sizeof v->sr);
    memset(v->gr, 0, sizeof v->gr);
    memset(v->cr, 0, sizeof v->cr);
    memset(v->ar, 0, sizeof v->ar);
    memset(v->dac, 0, sizeof v->dac);
    v->dac_state = v->dac_sub = v->dac_read = v->dac_write = 0;
    v->dac_mask = 0xff;
    v->latch = 0;
    v->dispi_index = 0;
    memset(v->dispi, 0, sizeof v->dispi);
    v->dispi[DISPI_ID] = DISPI_ID5;
    v->changed = true;
}
