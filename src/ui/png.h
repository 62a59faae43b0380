/* Pictures as PNG (ISO 15948), for screenshots. */
#ifndef LODGE_UI_PNG_H
#define LODGE_UI_PNG_H

#include <stdint.h>

#include "base/err.h"

/* Writes `width` x `height` pixels 0x00RRGGBB to a new file, which replaces what was there. */
int png_write(const char *path, const uint32_t *pixels, unsigned width, unsigned height, struct err *err);
/* The same as a binary PPM (P6). */
int ppm_write(const char *path, const uint32_t *pixels, unsigned width, unsigned height, struct err *err);

#endif
