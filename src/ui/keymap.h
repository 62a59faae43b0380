/*
 * Keys. A key is named by its Linux input code (KEY_*); this is the one table that leads from and to every other name:
 * QEMU's and libvirt's names, PS/2 scan codes of set 2, XT scan codes (as VNC clients send), USB HID usages, X keysyms
 * on a US keyboard.
 */
#ifndef LODGE_UI_KEYMAP_H
#define LODGE_UI_KEYMAP_H

#include <stdbool.h>
#include <stdint.h>

struct key {
    const char *name;
    uint8_t code;    /* Linux */
    uint32_t set2;   /* PS/2: prefixes in the higher bytes */
    uint8_t hid;     /* usage of page 7, 0: none */
    uint32_t sym[2]; /* X keysyms without and with shift, or two names of the same key; 0: none */
};

/* NULL: there is no such key. */
const struct key *key_by_name(const char *name);
const struct key *key_by_code(unsigned code);
/* XT scan codes: 0x80 in it stands for the prefix 0xe0, as in RFB's extended key event and QEMU's numbers. */
const struct key *key_by_xt(unsigned xt);
/* *ret_shift: the keysym is on the key's second level. */
const struct key *key_by_keysym(uint32_t sym, bool *ret_shift);

/* The bytes a PS/2 keyboard sends when the key goes down or up; at most 8. Returns how many. */
unsigned key_ps2(const struct key *k, bool down, uint8_t ret[8]);

#endif
