/*
 * PS/2 keyboard and mouse as state machines: bytes from the controller in, bytes for it out. No lock of their own: the
 * i8042 that embeds them has it. Commands as in IBM's PS/2 Hardware Interface Technical Reference; IntelliMouse for the
 * wheel.
 */
#ifndef LODGE_DEV_PS2_H
#define LODGE_DEV_PS2_H

#include <stdbool.h>
#include <stdint.h>

#define PS2_QUEUE 64

/* Bytes on their way to the controller. */
struct ps2_queue {
    uint8_t data[PS2_QUEUE];
    uint8_t head, len;
};
bool ps2_put(struct ps2_queue *q, uint8_t byte); /* false: full */
uint8_t ps2_take(struct ps2_queue *q);           /* 0 when empty */

struct ps2_keyboard {
    struct ps2_queue out;
    uint8_t command; /* waits for its argument, 0 none */
    uint8_t scanning, leds, set, last;
};

struct ps2_mouse {
    struct ps2_queue out;
    uint8_t command;
    uint8_t reporting, remote, wrap, scaling, resolution, rate, buttons, last;
    uint8_t id;       /* 0 plain, 3 with wheel */
    uint8_t rates[3]; /* the last sample rates set: 200, 100, 80 turns the wheel on */
};

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
/* A movement packet, whole or not at all. */
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int wheel, unsigned buttons);
/* Set 2 to set 1, as the controller translates. */
uint8_t ps2_translate(uint8_t code);

#endif
