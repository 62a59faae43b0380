/* EDID (VESA E-EDID 1.4): how a monitor describes itself. */
#ifndef LODGE_DEV_EDID_H
#define LODGE_DEV_EDID_H

#include <stdint.h>

#define EDID_SIZE 128

/* A monitor that prefers `width` x `height` at 75 Hz and shows the usual sizes. At most 4095 each. */
void edid_make(uint8_t ret[EDID_SIZE], unsigned width, unsigned height);

#endif
