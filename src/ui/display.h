/*
 * A screen: what a display device draws and consumers (a VNC server, screenshots) look at. The device is the source: it
 * is asked to bring the picture up to date, and reports each line; the display finds out what differs. The picture is
 * 32 bits a pixel, 0x00RRGGBB, in a memfd that another process may map read-only.
 *
 * Everything on the main loop's thread. A source is asked at most every UI_REFRESH_MS while somebody watches, and less
 * often while nothing changes.
 */
#ifndef LODGE_UI_DISPLAY_H
#define LODGE_UI_DISPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct ui_display;

#define UI_WIDTH_MAX 4096u
#define UI_HEIGHT_MAX 2160u
#define UI_SURFACE_BYTES ((size_t)UI_WIDTH_MAX * UI_HEIGHT_MAX * 4)
#define UI_REFRESH_MS 33
#define UI_CURSOR_MAX 64u

struct ui_rect {
    unsigned x, y, w, h;
};

struct ui_cursor {
    unsigned width, height, hot_x, hot_y;           /* width 0: none */
    uint32_t pixels[UI_CURSOR_MAX * UI_CURSOR_MAX]; /* 0xAARRGGBB */
};

/* The device that draws. */
struct ui_source {
    /* Reports what changed by ui_display_line(); `all`: every line, whatever changed. */
    void (*update)(void *opaque, bool all);
    /* Optional: a viewer would like this size. */
    void (*wish)(void *opaque, unsigned width, unsigned height);
};

/* Somebody who looks. All optional. */
struct ui_listener {
    void (*resized)(void *opaque, unsigned width, unsigned height);
    void (*damaged)(void *opaque, const struct ui_rect *rects, unsigned n);
    void (*cursor)(void *opaque, const struct ui_cursor *cursor);
    void *opaque;
    bool active; /* wants to be told: the timer runs while one does */
    struct ui_listener *next;
};

/* The display as a device sees it: the functions below go through these. */
struct ui_display_ops {
    void (*set_source)(struct ui_display *d, const struct ui_source *source, void *opaque);
    void (*resize)(struct ui_display *d, unsigned width, unsigned height);
    void (*line)(struct ui_display *d, unsigned x, unsigned y, const uint32_t *pixels, unsigned n);
    void (*set_cursor)(struct ui_display *d, const struct ui_cursor *cursor);
};
struct ui_display {
    const struct ui_display_ops *ops;
    unsigned width, height;
};

int ui_display_new(struct loop *loop, unsigned index, struct ui_display **ret, struct err *err);
void ui_display_free(struct ui_display *d); /* NULL-safe; listeners are gone */

/* ---- for the source ---- */
/* NULL: none any more. The source is asked for everything at once. */
static inline void ui_display_set_source(struct ui_display *d, const struct ui_source *source, void *opaque)
{
    d->ops->set_source(d, source, opaque);
}
/* A picture of another size, black. Clamped to the maximum. */
static inline void ui_display_resize(struct ui_display *d, unsigned width, unsigned height)
{
    d->ops->resize(d, width, height);
}
/* Line y is `pixels` from x on, `n` of them. What does not fit is cut off. */
static inline void ui_display_line(struct ui_display *d, unsigned x, unsigned y, const uint32_t *pixels, unsigned n)
{
    d->ops->line(d, x, y, pixels, n);
}
static inline void ui_display_set_cursor(struct ui_display *d, const struct ui_cursor *cursor)
{
    d->ops->set_cursor(d, cursor);
}
static inline unsigned ui_display_width(const struct ui_display *d)
{
    return d->width;
}
static inline unsigned ui_display_height(const struct ui_display *d)
{
    return d->height;
}

/* ---- for consumers ---- */
void ui_display_listen(struct ui_display *d, struct ui_listener *l);
void ui_display_unlisten(struct ui_display *d, struct ui_listener *l);
void ui_listener_activate(struct ui_display *d, struct ui_listener *l, bool active);
/* Brings the picture up to date now. */
void ui_display_refresh(struct ui_display *d);
void ui_display_wish(struct ui_display *d, unsigned width, unsigned height);
/* The pixels, lines of ui_display_width() without gaps. Valid until the next refresh. */
const uint32_t *ui_display_pixels(const struct ui_display *d);
const struct ui_cursor *ui_display_cursor(const struct ui_display *d);
/* The memfd of UI_SURFACE_BYTES, owned by the display. */
int ui_display_fd(const struct ui_display *d);

#endif
