/*
 * From registers and video memory to a picture. On the main thread; the lock is held while registers are looked at and
 * legacy modes are drawn, linear memory is read without it (a line that changes meanwhile is drawn again).
 */
#include <string.h>

#include "dev/vga_priv.h"

/* ---- palettes ---- */

static uint8_t dac8(const struct vga *v, uint8_t c)
{
    if (v->dispi[DISPI_ENABLE] & DISPI_DAC8)
        return c;
    c &= 0x3f;
    return (uint8_t)(c << 2 | c >> 4);
}

static uint32_t dac_colour(const struct vga *v, unsigned i)
{
    const uint8_t *c = &v->dac[3 * (i & 0xff)];
    return (uint32_t)dac8(v, c[0]) << 16 | (uint32_t)dac8(v, c[1]) << 8 | dac8(v, c[2]);
}

static void palette256(struct vga *v)
{
    for (unsigned i = 0; i < 256; i++)
        v->palette[i] = dac_colour(v, i & v->dac_mask);
}

/* The sixteen colours of the attribute controller. */
static void palette16(struct vga *v)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned c = v->ar[i] & 0x3f;
        if (v->ar[0x10] & 0x80)
            c = (c & 15) | (v->ar[0x14] & 3u) << 4;
        v->palette[i] = dac_colour(v, (c | (v->ar[0x14] & 0xcu) << 4) & v->dac_mask);
    }
}

/* ---- the CRT's numbers ---- */

static unsigned display_lines(const struct vga *v)
{
    return (v->cr[0x12] | (v->cr[7] & 2u) << 7 | (v->cr[7] & 0x40u) << 3) + 1u;
}

static unsigned line_compare(const struct vga *v)
{
    return v->cr[0x18] | (v->cr[7] & 0x10u) << 4 | (v->cr[9] & 0x40u) << 3;
}

static uint32_t start_offset(const struct vga *v)
{
    return (uint32_t)v->cr[0xc] << 8 | v->cr[0xd];
}

/* ---- text ---- */

struct text {
    unsigned cols, rows, cell_w, cell_h;
    uint32_t start, pitch, cursor;
    unsigned cursor_first, cursor_last; /* lines of the cell; first > last: none */
    uint32_t font[2];                   /* for attribute bit 3 clear and set: offset in plane 2 */
    bool blink, wide_line;
};

static uint32_t font_offset(unsigned n)
{
    static const uint16_t at[8] = {0x0000, 0x4000, 0x8000, 0xc000, 0x2000, 0x6000, 0xa000, 0xe000};
    return at[n & 7];
}

static void text_layout(const struct vga *v, struct text *t)
{
    t->cell_h = (v->cr[9] & 0x1fu) + 1;
    t->cell_w = v->sr[1] & 1 ? 8 : 9;
    t->cols = MIN(v->cr[1] + 1u, 255u);
    t->rows = MIN(MAX(display_lines(v) / t->cell_h, 1u), 200u);
    t->start = start_offset(v);
    t->pitch = v->cr[0x13] * 2u;
    t->cursor = (uint32_t)v->cr[0xe] << 8 | v->cr[0xf];
    t->cursor_first = v->cr[0xa] & 0x20 ? 99 : v->cr[0xa] & 0x1fu;
    t->cursor_last = MIN(v->cr[0xb] & 0x1fu, t->cell_h - 1);
    t->font[1] = font_offset((v->sr[3] >> 2 & 3u) | (v->sr[3] >> 3 & 4u));
    t->font[0] = font_offset((v->sr[3] & 3u) | (v->sr[3] >> 2 & 4u));
    t->blink = v->ar[0x10] & 8;
    t->wide_line = v->ar[0x10] & 4;
}

static void text_cell_line(const struct vga *v, const struct text *t, uint32_t at, unsigned line, uint32_t *to)
{
    const uint8_t *cell = v->vram + 4 * (at & 0xffff);
    uint8_t ch = cell[0], attr = cell[1];
    uint32_t font = t->font[attr >> 3 & 1] + ch * 32u + line;
    uint8_t bits = v->vram[4 * (font & 0xffff) + 2];
    uint32_t fg = v->palette[attr & 15], bg = v->palette[attr >> 4 & (t->blink ? 7 : 15)];
    if ((at & 0xffff) == (t->cursor & 0xffff) && line >= t->cursor_first && line <= t->cursor_last)
        bits = 0xff;
    for (unsigned x = 0; x < 8; x++)
        to[x] = bits & 0x80 >> x ? fg : bg;
    if (t->cell_w == 9) {
        bool joined = (t->wide_line && ch >= 0xc0 && ch <= 0xdf) || bits == 0xff;
        to[8] = joined && (bits & 1) ? fg : bg;
    }
}

static void draw_text(struct vga *v)
{
    struct text t;
    text_layout(v, &t);
    palette16(v);
    ui_display_resize(v->display, t.cols * t.cell_w, t.rows * t.cell_h);
    for (unsigned y = 0; y < t.rows * t.cell_h; y++) {
        uint32_t row = t.start + y / t.cell_h * t.pitch;
        for (unsigned x = 0; x < t.cols; x++)
            text_cell_line(v, &t, row + x, y % t.cell_h, v->line + x * t.cell_w);
        ui_display_line(v->display, 0, y, v->line, t.cols * t.cell_w);
    }
}

/* ---- legacy graphics ---- */

/* Sixteen colours from four planes: eight pixels of offset `o`. */
static void planar8(const struct vga *v, uint32_t o, uint32_t *to)
{
    const uint8_t *p = v->vram + 4 * (o & 0xffff);
    for (unsigned x = 0; x < 8; x++) {
        unsigned shift = 7 - x;
        unsigned c =
            (p[0] >> shift & 1) | (p[1] >> shift & 1) << 1 | (p[2] >> shift & 1) << 2 | (p[3] >> shift & 1) << 3;
        to[x] = v->palette[c & v->ar[0x12] & 15];
    }
}

/* CGA's four colours: two bits a pixel, even bytes in planes 0 and 2, odd ones in 1 and 3. */
static void cga8(const struct vga *v, uint32_t o, uint32_t *to)
{
    const uint8_t *p = v->vram + 4 * (o & 0xffff);
    for (unsigned x = 0; x < 8; x++) {
        unsigned shift = 6 - 2 * (x & 3), plane = x >> 2;
        unsigned c = (p[plane] >> shift & 3) | (p[plane + 2] >> shift & 3) << 2;
        to[x] = v->palette[c & v->ar[0x12] & 15];
    }
}

/*
 * The CRT may take two address bits from the row counter: CGA and Hercules interleave lines that way. In word mode an
 * offset holds two bytes, so the bit is one lower.
 */
static uint32_t crt_address(const struct vga *v, uint32_t addr, unsigned row)
{
    unsigned bit = 12 + (v->cr[0x17] >> 6 & 1);
    if (!(v->cr[0x17] & 1))
        addr = (addr & ~BIT(bit)) | (row & 1) << bit;
    if (!(v->cr[0x17] & 2))
        addr = (addr & ~0x2000u) | (row & 2) << 12;
    return addr;
}

static void draw_graphics(struct vga *v)
{
    unsigned mode = v->gr[5] >> 5 & 3; /* 0 planar, 1 CGA, 2 and 3: 256 colours */
    unsigned chars = v->cr[1] + 1u, lines = display_lines(v);
    unsigned repeat = ((v->cr[9] & 0x1fu) + 1) * (v->cr[9] & 0x80 ? 2 : 1);
    bool interleaved = (v->cr[0x17] & 3) != 3;
    unsigned width = mode >= 2 ? chars * 4 : chars * 8, per_row = interleaved && repeat > 1 ? repeat / 2 : repeat;
    unsigned height = MAX(lines / MAX(per_row, 1u), 1u), split = line_compare(v) / MAX(per_row, 1u);
    uint32_t pitch = v->cr[0x13] * 2u, addr = start_offset(v);
    width = MIN(width, UI_WIDTH_MAX);
    if (mode >= 2)
        palette256(v);
    else
        palette16(v);
    ui_display_resize(v->display, width, height);
    for (unsigned y = 0; y < height && y < UI_HEIGHT_MAX; y++) {
        uint32_t a = crt_address(v, addr, y);
        if (mode >= 2)
            for (unsigned x = 0; x < width; x++)
                v->line[x] = v->palette[v->vram[(4 * a + x) & (VGA_PLANES_SIZE - 1)]];
        else
            for (unsigned x = 0; x < width; x += 8)
                (mode == 1 ? cga8 : planar8)(v, a + x / 8, v->line + x);
        ui_display_line(v->display, 0, y, v->line, width);
        if (!interleaved || (y & 1))
            addr += pitch;
        if (y == split)
            addr = 0;
    }
}

/* ---- DISPI ---- */

static void convert(const struct vga *v, const uint8_t *from, unsigned bpp, unsigned n, uint32_t *to)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t c;
        switch (bpp) {
        case 8:
            to[i] = v->palette[from[i]];
            break;
        case 15:
            c = le16_get(from + 2 * i);
            to[i] = (c >> 10 & 31) * 255 / 31 << 16 | (c >> 5 & 31) * 255 / 31 << 8 | (c & 31) * 255 / 31;
            break;
        case 16:
            c = le16_get(from + 2 * i);
            to[i] = (c >> 11) * 255 / 31 << 16 | (c >> 5 & 63) * 255 / 63 << 8 | (c & 31) * 255 / 31;
            break;
        case 24:
            to[i] = from[3 * i] | (uint32_t)from[3 * i + 1] << 8 | (uint32_t)from[3 * i + 2] << 16;
            break;
        default:
            to[i] = le32_get(from + 4 * i) & 0xffffff;
        }
    }
}

static bool range_shown(const struct vga *v, uint64_t first, uint64_t len)
{
    for (uint64_t p = first / PAGE_SIZE; p <= (first + len - 1) / PAGE_SIZE; p++)
        if ((v->shown[p / 64] | v->shown_before[p / 64]) >> (p % 64) & 1)
            return true;
    return false;
}

/* What DISPI's registers say, taken under the lock. */
struct linear {
    unsigned width, height, bpp;
    uint64_t start, pitch;
};

static void draw_linear(struct vga *v, const struct linear *l, bool all)
{
    unsigned bytes = (l->bpp + 7) / 8;
    ui_display_resize(v->display, l->width, l->height);
    for (unsigned y = 0; y < l->height; y++) {
        uint64_t at = l->start + y * l->pitch, len = (uint64_t)l->width * bytes;
        if (at + len > v->vram_size)
            break;
        if (!all && !range_shown(v, at, len))
            continue;
        convert(v, v->vram + at, l->bpp, l->width, v->line);
        ui_display_line(v->display, 0, y, v->line, l->width);
    }
}

static void draw_dispi_planar(struct vga *v)
{
    const uint16_t *r = v->dispi;
    unsigned pitch = r[DISPI_VIRT_WIDTH] / 8;
    palette16(v);
    ui_display_resize(v->display, r[DISPI_XRES], r[DISPI_YRES]);
    for (unsigned y = 0; y < r[DISPI_YRES]; y++) {
        uint32_t a = (y + r[DISPI_Y_OFFSET]) * pitch + r[DISPI_X_OFFSET] / 8;
        for (unsigned x = 0; x < r[DISPI_XRES]; x += 8)
            planar8(v, a + x / 8, v->line + x);
        ui_display_line(v->display, 0, y, v->line, r[DISPI_XRES]);
    }
}

static void draw_blank(struct vga *v)
{
    unsigned w = ui_display_width(v->display), h = ui_display_height(v->display);
    memset(v->line, 0, sizeof v->line);
    for (unsigned y = 0; y < h; y++)
        ui_display_line(v->display, 0, y, v->line, w);
}

void vga_update(void *opaque, bool all)
{
    struct vga *v = opaque;
    uint64_t words = v->vram_size / PAGE_SIZE / 64 + 1;
    memcpy(v->shown_before, v->shown, words * sizeof *v->shown);
    bool written = mem_take_shown(v->mem, v->shown);
    for (uint64_t i = 0; i < words && !written; i++)
        written = v->shown_before[i] != 0;
    pthread_mutex_lock(&v->lock);
    all |= v->changed;
    v->changed = false;
    const uint16_t *r = v->dispi;
    bool linear = vga_dispi_on(v) && r[DISPI_BPP] != 4;
    struct linear l = {.width = r[DISPI_XRES], .height = r[DISPI_YRES], .bpp = r[DISPI_BPP]};
    if (linear) {
        unsigned bytes = (l.bpp + 7) / 8;
        l.pitch = (uint64_t)r[DISPI_VIRT_WIDTH] * bytes;
        l.start = r[DISPI_Y_OFFSET] * l.pitch + (uint64_t)r[DISPI_X_OFFSET] * bytes;
        palette256(v);
    } else if (all || written) {
        bool blank = !(v->ar_index & 0x20) || (v->sr[1] & 0x20) || !(v->cr[0x17] & 0x80);
        if (vga_dispi_on(v))
            draw_dispi_planar(v);
        else if (blank)
            draw_blank(v);
        else if (v->gr[6] & 1)
            draw_graphics(v);
        else
            draw_text(v);
    }
    pthread_mutex_unlock(&v->lock);
    if (linear && (all || written))
        draw_linear(v, &l, all);
}
