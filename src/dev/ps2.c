#include "dev/ps2.h"

#include <string.h>

#include "base/bits.h"

enum { ACK = 0xfa, RESEND = 0xfe, SELF_TEST_OK = 0xaa };

bool ps2_put(struct ps2_queue *q, uint8_t byte)
{
    if (q->len == PS2_QUEUE)
        return false;
    q->data[(q->head + q->len++) % PS2_QUEUE] = byte;
    return true;
}

uint8_t ps2_take(struct ps2_queue *q)
{
    if (!q->len)
        return 0;
    uint8_t byte = q->data[q->head];
    q->head = (q->head + 1) % PS2_QUEUE;
    q->len--;
    return byte;
}

/* ---- keyboard ---- */

static void keyboard_defaults(struct ps2_keyboard *k)
{
    k->command = 0;
    k->set = 2;
    k->leds = 0;
    k->out = (struct ps2_queue){0};
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    keyboard_defaults(k);
    k->scanning = 1;
    k->last = 0;
}

static void keyboard_argument(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;
    k->command = 0;
    ps2_put(&k->out, ACK);
    if (command == 0xed)
        k->leds = byte & 7;
    else if (command == 0xf0 && byte == 0)
        ps2_put(&k->out, k->set);
    else if (command == 0xf0 && byte <= 3)
        k->set = byte;
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    if (k->command) {
        keyboard_argument(k, byte);
        return;
    }
    switch (byte) {
    case 0xed: /* LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
    case 0xfb ... 0xfd:
        k->command = byte;
        ps2_put(&k->out, ACK);
        break;
    case 0xee: /* echo */
        ps2_put(&k->out, 0xee);
        break;
    case 0xf2: /* identify: MF2 keyboard */
        ps2_put(&k->out, ACK);
        ps2_put(&k->out, 0xab);
        ps2_put(&k->out, 0x83);
        break;
    case 0xf4: /* enable */
        k->scanning = 1;
        ps2_put(&k->out, ACK);
        break;
    case 0xf5: /* disable, with defaults */
    case 0xf6: /* defaults */
        keyboard_defaults(k);
        k->scanning = byte == 0xf6;
        ps2_put(&k->out, ACK);
        break;
    case 0xf7 ... 0xfa: /* key types, set 3 only */
        ps2_put(&k->out, ACK);
        break;
    case 0xfe:
        ps2_put(&k->out, k->last);
        break;
    case 0xff:
        ps2_keyboard_reset(k);
        ps2_put(&k->out, ACK);
        ps2_put(&k->out, SELF_TEST_OK);
        break;
    default:
        ps2_put(&k->out, RESEND);
    }
}

/* ---- mouse ---- */

static void mouse_defaults(struct ps2_mouse *m)
{
    m->command = m->reporting = m->remote = m->wrap = m->scaling = 0;
    m->resolution = 2;
    m->rate = 100;
    m->out = (struct ps2_queue){0};
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    mouse_defaults(m);
    m->id = m->buttons = m->last = 0;
    memset(m->rates, 0, sizeof m->rates);
}

static void set_rate(struct ps2_mouse *m, uint8_t rate)
{
    m->rate = rate;
    m->rates[0] = m->rates[1];
    m->rates[1] = m->rates[2];
    m->rates[2] = rate;
    if (m->rates[0] == 200 && m->rates[1] == 100 && m->rates[2] == 80)
        m->id = 3;
}

static bool packet(struct ps2_mouse *m, int dx, int dy, int wheel, unsigned buttons)
{
    unsigned len = m->id == 3 ? 4 : 3;
    if (PS2_QUEUE - m->out.len < len)
        return false;
    dx = MAX(MIN(dx, 255), -256);
    dy = MAX(MIN(dy, 255), -256);
    ps2_put(&m->out, (uint8_t)((buttons & 7) | 8 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
    ps2_put(&m->out, (uint8_t)dx);
    ps2_put(&m->out, (uint8_t)dy);
    if (len == 4)
        ps2_put(&m->out, (uint8_t)MAX(MIN(wheel, 7), -8));
    return true;
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int wheel, unsigned buttons)
{
    m->buttons = buttons & 7;
    if (m->reporting && !m->remote && !m->wrap)
        packet(m, dx, dy, wheel, buttons);
}

static void mouse_status(struct ps2_mouse *m)
{
    uint8_t b = m->buttons;
    ps2_put(&m->out, (uint8_t)(m->remote << 6 | m->reporting << 5 | m->scaling << 4 | (b & 1) << 2 | (b & 4) >> 1 |
                               (b & 2) >> 1));
    ps2_put(&m->out, m->resolution);
    ps2_put(&m->out, m->rate);
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    if (m->wrap && byte != 0xff && byte != 0xec) {
        ps2_put(&m->out, byte);
        return;
    }
    if (m->command) {
        if (m->command == 0xe8)
            m->resolution = byte & 3;
        else
            set_rate(m, byte);
        m->command = 0;
        ps2_put(&m->out, ACK);
        return;
    }
    switch (byte) {
    case 0xe6: /* scaling 1:1 */
    case 0xe7: /* 2:1 */
        m->scaling = byte & 1;
        ps2_put(&m->out, ACK);
        break;
    case 0xe8: /* resolution */
    case 0xf3: /* sample rate */
        m->command = byte;
        ps2_put(&m->out, ACK);
        break;
    case 0xe9:
        ps2_put(&m->out, ACK);
        mouse_status(m);
        break;
    case 0xea: /* stream mode */
    case 0xf0: /* remote mode */
        m->remote = byte == 0xf0;
        ps2_put(&m->out, ACK);
        break;
    case 0xeb: /* read data */
        ps2_put(&m->out, ACK);
        packet(m, 0, 0, 0, m->buttons);
        break;
    case 0xec: /* wrap mode off and on */
    case 0xee:
        m->wrap = byte == 0xee;
        ps2_put(&m->out, ACK);
        break;
    case 0xf2:
        ps2_put(&m->out, ACK);
        ps2_put(&m->out, m->id);
        break;
    case 0xf4:
    case 0xf5:
        m->reporting = byte == 0xf4;
        ps2_put(&m->out, ACK);
        break;
    case 0xf6:
        mouse_defaults(m);
        ps2_put(&m->out, ACK);
        break;
    case 0xfe:
        ps2_put(&m->out, m->last);
        break;
    case 0xff:
        ps2_mouse_reset(m);
        ps2_put(&m->out, ACK);
        ps2_put(&m->out, SELF_TEST_OK);
        ps2_put(&m->out, 0x00);
        break;
    default:
        ps2_put(&m->out, RESEND);
    }
}

/* ---- translation ---- */

/* Index: code of set 2; the code of set 1 for the same key (0xff: none). */
static const uint8_t set1[0x85] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
    0x80, 0x81, 0x82, 0x41, 0x54,                                                                   /* 80 */
};

uint8_t ps2_translate(uint8_t code)
{
    return code < sizeof set1 ? set1[code] : code;
}
