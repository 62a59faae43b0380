/* Offsets are those of E-EDID 1.4, section 3. */
#include "dev/edid.h"

#include <string.h>

#include "base/bits.h"

#define DPI 100
#define REFRESH 75

static unsigned cm(unsigned pixels)
{
    return MIN((pixels * 254 / DPI + 50) / 100, 255u);
}

/* Detailed timing (3.10.2), with blanking in the manner of CVT's reduced one. */
static void timing(uint8_t *d, unsigned w, unsigned h)
{
    const unsigned hblank = 160, vblank = 35, hfront = 48, hsync = 32, vfront = 3, vsync = 6;
    unsigned clock = (w + hblank) * (h + vblank) / 10000 * REFRESH, wmm = w * 254 / DPI / 10, hmm = h * 254 / DPI / 10;
    le16_put(d, (uint16_t)MIN(clock, 0xffffu));
    d[2] = (uint8_t)w;
    d[3] = (uint8_t)hblank;
    d[4] = (uint8_t)((w >> 8) << 4 | hblank >> 8);
    d[5] = (uint8_t)h;
    d[6] = (uint8_t)vblank;
    d[7] = (uint8_t)((h >> 8) << 4 | vblank >> 8);
    d[8] = (uint8_t)hfront;
    d[9] = (uint8_t)hsync;
    d[10] = (uint8_t)(vfront << 4 | vsync);
    d[12] = (uint8_t)wmm;
    d[13] = (uint8_t)hmm;
    d[14] = (uint8_t)((wmm >> 8 & 15) << 4 | (hmm >> 8 & 15));
    d[17] = 0x18; /* digital, separate syncs */
}

static void text(uint8_t *d, uint8_t tag, const char *s)
{
    size_t n = strlen(s);
    d[3] = tag;
    memset(d + 5, ' ', 13);
    memcpy(d + 5, s, n);
    d[5 + n] = '\n';
}

void edid_make(uint8_t e[EDID_SIZE], unsigned width, unsigned height)
{
    static const uint8_t head[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    static const uint8_t chroma[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54}; /* sRGB */
    static const uint8_t sizes[][2] = {
        {0x61, 0x40}, {0x45, 0x40}, {0x81, 0x80}, {0x81, 0x00}, {0xd1, 0xc0}, {0xa9, 0xc0}, {0x71, 0x4f}, {0x01, 0x01},
    };
    uint8_t sum = 0;
    width = MIN(MAX(width, 64u), 4095u);
    height = MIN(MAX(height, 64u), 4095u);
    memset(e, 0, EDID_SIZE);
    memcpy(e, head, sizeof head);
    e[8] = 0x30; /* "LDG": three letters of five bits */
    e[9] = 0x87;
    le16_put(e + 10, 1);
    e[16] = 1;
    e[17] = 2024 - 1990;
    e[18] = 1;
    e[19] = 4;
    e[20] = 0xa5; /* digital, 8 bits a colour */
    e[21] = (uint8_t)cm(width);
    e[22] = (uint8_t)cm(height);
    e[23] = 120;  /* gamma 2.2 */
    e[24] = 0x06; /* sRGB; the first timing is preferred */
    memcpy(e + 25, chroma, sizeof chroma);
    e[35] = 0x21; /* 640x480, 800x600 */
    e[36] = 0x08; /* 1024x768 */
    for (unsigned i = 0; i < 8; i++)
        memcpy(e + 38 + 2 * i, sizes[i], 2);
    timing(e + 54, width, height);
    text(e + 72, 0xfc, "Lodge");
    e[90 + 3] = 0xfd; /* range limits */
    e[90 + 5] = 50;
    e[90 + 6] = 125;
    e[90 + 7] = 30;
    e[90 + 8] = 160;
    e[90 + 9] = 255;
    e[90 + 10] = 1;
    memset(e + 90 + 11, ' ', 7);
    e[90 + 11] = '\n';
    e[108 + 3] = 0x10; /* nothing */
    for (unsigned i = 0; i < EDID_SIZE - 1; i++)
        sum = (uint8_t)(sum + e[i]);
    e[127] = (uint8_t)-sum;
}
