/*
 * Rectangles of the picture in the viewer's pixel format: raw, hextile and ZRLE (RFC 6143, 7.7). The picture may change
 * while it is read: every tile is copied out first.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "ui/vnc_priv.h"

void buffer_put(struct vnc_buffer *b, const void *data, size_t len)
{
    if (b->len + len > b->cap) {
        size_t cap = MAX(b->cap * 2, b->len + len + 4096);
        uint8_t *p = realloc(b->data, cap);
        if (!p)
            abort();
        b->data = p;
        b->cap = cap;
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

void buffer_u8(struct vnc_buffer *b, uint8_t v)
{
    buffer_put(b, &v, 1);
}

void buffer_u16(struct vnc_buffer *b, uint16_t v)
{
    v = htobe16(v);
    buffer_put(b, &v, 2);
}

void buffer_u32(struct vnc_buffer *b, uint32_t v)
{
    v = htobe32(v);
    buffer_put(b, &v, 4);
}

/* ---- pixels ---- */

unsigned encode_pixel(const struct vnc_format *f, uint32_t rgb, uint8_t ret[4])
{
    uint32_t r = (rgb >> 16 & 255) * f->red_max / 255, g = (rgb >> 8 & 255) * f->green_max / 255,
             b = (rgb & 255) * f->blue_max / 255;
    uint32_t v = r << f->red_shift | g << f->green_shift | b << f->blue_shift;
    unsigned n = f->bpp / 8u;
    for (unsigned i = 0; i < n; i++)
        ret[f->big ? n - 1 - i : i] = (uint8_t)(v >> 8 * i);
    return n;
}

/* Our own pixels are what most viewers ask for. */
static bool as_ours(const struct vnc_format *f)
{
    return f->bpp == 32 && !f->big && f->red_max == 255 && f->green_max == 255 && f->blue_max == 255 &&
           f->red_shift == 16 && f->green_shift == 8 && f->blue_shift == 0;
}

/* ZRLE leaves the byte away that never says anything. */
static unsigned cpixel(const struct vnc_format *f, uint32_t rgb, uint8_t ret[4])
{
    unsigned n = encode_pixel(f, rgb, ret);
    if (f->bpp != 32 || f->depth > 24)
        return n;
    uint32_t all = (uint32_t)f->red_max << f->red_shift | (uint32_t)f->green_max << f->green_shift |
                   (uint32_t)f->blue_max << f->blue_shift;
    bool low = !(all >> 24), high = !(all & 0xff);
    if (!low && !high)
        return n;
    /* The three bytes that count, in the order of the four. */
    if ((low && f->big) || (!low && !f->big))
        memmove(ret, ret + 1, 3);
    return 3;
}

struct tile {
    unsigned w, h;
    uint32_t px[VNC_TILE * VNC_TILE];
    uint32_t colour[17]; /* the first 16 that occur */
    unsigned colours;    /* 17: more */
};

static void take_tile(const struct vnc_server *s, unsigned x, unsigned y, unsigned w, unsigned h, struct tile *t)
{
    t->w = w;
    t->h = h;
    t->colours = 0;
    for (unsigned row = 0; row < h; row++)
        memcpy(t->px + row * w, s->pixels + (size_t)(y + row) * s->width + x, w * 4);
    uint32_t last = ~t->px[0];
    for (unsigned i = 0; i < w * h && t->colours < 17; i++) {
        if (t->px[i] == last)
            continue;
        last = t->px[i];
        unsigned k = 0;
        while (k < t->colours && t->colour[k] != last)
            k++;
        if (k == t->colours)
            t->colour[t->colours++] = last;
    }
}

static unsigned colour_index(const struct tile *t, uint32_t c)
{
    unsigned k = 0;
    while (k + 1 < t->colours && t->colour[k] != c)
        k++;
    return k;
}

/* ---- raw ---- */

static void put_pixels(struct vnc_client *c, struct vnc_buffer *b, const uint32_t *px, unsigned n)
{
    uint8_t p[4];
    if (as_ours(&c->format)) {
        buffer_put(b, px, n * 4);
        return;
    }
    for (unsigned i = 0; i < n; i++)
        buffer_put(b, p, encode_pixel(&c->format, px[i], p));
}

static void raw(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
    const struct vnc_server *s = c->server;
    for (unsigned row = 0; row < h; row++)
        put_pixels(c, &c->out, s->pixels + (size_t)(y + row) * s->width + x, w);
}

/* ---- hextile ---- */

enum { HEX_RAW = 1, HEX_BACKGROUND = 2, HEX_FOREGROUND = 4, HEX_ANY = 8 };

static void hextile_one(struct vnc_client *c, const struct tile *t)
{
    uint8_t p[4];
    if (t->colours > 2) {
        buffer_u8(&c->out, HEX_RAW);
        put_pixels(c, &c->out, t->px, t->w * t->h);
        return;
    }
    buffer_u8(&c->out, HEX_BACKGROUND | (t->colours == 2 ? HEX_FOREGROUND | HEX_ANY : 0));
    buffer_put(&c->out, p, encode_pixel(&c->format, t->colour[0], p));
    if (t->colours < 2)
        return;
    buffer_put(&c->out, p, encode_pixel(&c->format, t->colour[1], p));
    /* Runs of the second colour, a line each: at most 128 in 16x16. */
    uint8_t runs[2 * 16 * 8], n = 0;
    for (unsigned y = 0; y < t->h; y++)
        for (unsigned x = 0; x < t->w;) {
            unsigned from = x;
            while (x < t->w && t->px[y * t->w + x] == t->colour[1])
                x++;
            if (x > from) {
                runs[2 * n] = (uint8_t)(from << 4 | y);
                runs[2 * n++ + 1] = (uint8_t)((x - from - 1) << 4);
            } else {
                x++;
            }
        }
    buffer_u8(&c->out, n);
    buffer_put(&c->out, runs, 2u * n);
}

static void hextile(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
    struct tile t;
    for (unsigned ty = 0; ty < h; ty += 16)
        for (unsigned tx = 0; tx < w; tx += 16) {
            take_tile(c->server, x + tx, y + ty, MIN(16u, w - tx), MIN(16u, h - ty), &t);
            hextile_one(c, &t);
        }
}

/* ---- ZRLE ---- */

static void zrle_packed(struct vnc_client *c, struct vnc_buffer *b, const struct tile *t)
{
    uint8_t p[4];
    unsigned bits = t->colours == 2 ? 1 : t->colours <= 4 ? 2 : 4;
    buffer_u8(b, (uint8_t)t->colours);
    for (unsigned i = 0; i < t->colours; i++)
        buffer_put(b, p, cpixel(&c->format, t->colour[i], p));
    for (unsigned y = 0; y < t->h; y++) {
        uint8_t line[VNC_TILE / 2] = {0};
        for (unsigned x = 0; x < t->w; x++)
            line[x * bits / 8] |= (uint8_t)(colour_index(t, t->px[y * t->w + x]) << (8 - bits - x * bits % 8));
        buffer_put(b, line, (t->w * bits + 7) / 8);
    }
}

static void zrle_tile(struct vnc_client *c, struct vnc_buffer *b, const struct tile *t)
{
    uint8_t p[4];
    if (t->colours == 1) {
        buffer_u8(b, 1);
        buffer_put(b, p, cpixel(&c->format, t->colour[0], p));
    } else if (t->colours <= 16) {
        zrle_packed(c, b, t);
    } else {
        buffer_u8(b, 0);
        for (unsigned i = 0; i < t->w * t->h; i++)
            buffer_put(b, p, cpixel(&c->format, t->px[i], p));
    }
}

static void deflate_to(struct vnc_client *c, const struct vnc_buffer *plain)
{
    uint8_t chunk[16384];
    size_t at = c->out.len;
    buffer_u32(&c->out, 0); /* the length, known later */
    c->zlib.next_in = plain->data;
    c->zlib.avail_in = (uInt)plain->len;
    do {
        c->zlib.next_out = chunk;
        c->zlib.avail_out = sizeof chunk;
        if (deflate(&c->zlib, Z_SYNC_FLUSH) == Z_STREAM_ERROR)
            abort();
        buffer_put(&c->out, chunk, sizeof chunk - c->zlib.avail_out);
    } while (!c->zlib.avail_out);
    uint32_t len = htobe32((uint32_t)(c->out.len - at - 4));
    memcpy(c->out.data + at, &len, 4);
}

static void zrle(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
    struct vnc_buffer plain = {0};
    struct tile t;
    if (!c->zlib_on) {
        if (deflateInit(&c->zlib, 1) != Z_OK)
            abort();
        c->zlib_on = true;
    }
    for (unsigned ty = 0; ty < h; ty += VNC_TILE)
        for (unsigned tx = 0; tx < w; tx += VNC_TILE) {
            take_tile(c->server, x + tx, y + ty, MIN(VNC_TILE, w - tx), MIN(VNC_TILE, h - ty), &t);
            zrle_tile(c, &plain, &t);
        }
    deflate_to(c, &plain);
    free(plain.data);
}

void encode_rect(struct vnc_client *c, unsigned x, unsigned y, unsigned w, unsigned h)
{
    buffer_u16(&c->out, (uint16_t)x);
    buffer_u16(&c->out, (uint16_t)y);
    buffer_u16(&c->out, (uint16_t)w);
    buffer_u16(&c->out, (uint16_t)h);
    buffer_u32(&c->out, (uint32_t)c->encoding);
    switch (c->encoding) {
    case 16:
        zrle(c, x, y, w, h);
        break;
    case 5:
        hextile(c, x, y, w, h);
        break;
    default:
        raw(c, x, y, w, h);
    }
}
