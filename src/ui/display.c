/* See display.h. */
#include "ui/display.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"

#define RECTS_MAX 32
#define IDLE_TICKS 90 /* unchanged pictures after which it is looked at less often */
#define IDLE_MS 80

struct screen {
    struct ui_display base; /* first */
    struct loop *loop;
    struct clock clock; /* the host's time: a stopped guest can be looked at */
    struct timer timer;
    unsigned index;
    const struct ui_source *source;
    void *source_opaque;
    struct ui_listener *listeners;
    int fd;
    uint32_t *pixels;
    struct ui_rect rect[RECTS_MAX];
    unsigned n_rects;
    unsigned idle;
    struct ui_cursor cursor;
};

static const struct ui_display_ops screen_ops;

static struct screen *screen_of(const struct ui_display *d)
{
    return (struct screen *)d;
}

static bool watched(const struct screen *d)
{
    for (const struct ui_listener *l = d->listeners; l; l = l->next)
        if (l->active)
            return true;
    return false;
}

static void arm(struct screen *d)
{
    uint64_t ms = d->idle > IDLE_TICKS ? IDLE_MS : UI_REFRESH_MS;
    if (watched(d))
        timer_arm(&d->timer, clock_now(&d->clock) + ms * NSEC_PER_SEC / 1000);
    else
        timer_cancel(&d->timer);
}

static void tick(void *opaque)
{
    struct screen *d = opaque;
    ui_display_refresh(&d->base);
    arm(d);
}

int ui_display_new(struct loop *loop, unsigned index, struct ui_display **ret, struct err *err)
{
    struct screen *d = xcalloc(1, sizeof *d);
    d->base.ops = &screen_ops;
    d->loop = loop;
    d->index = index;
    clock_init(&d->clock, 0);
    clock_start(&d->clock);
    timer_init(&d->timer, loop, &d->clock, tick, d);
    d->fd = memfd_create("lodge-screen", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    d->pixels = MAP_FAILED;
    if (d->fd >= 0 && ftruncate(d->fd, UI_SURFACE_BYTES) == 0) {
        fcntl(d->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
        d->pixels = mmap(NULL, UI_SURFACE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, d->fd, 0);
    }
    if (d->pixels == MAP_FAILED) {
        int code = err_errno(err, -errno, "cannot make memory for a screen");
        ui_display_free(&d->base);
        return code;
    }
    d->base.width = 640;
    d->base.height = 480;
    *ret = &d->base;
    return 0;
}

void ui_display_free(struct ui_display *base)
{
    struct screen *d = screen_of(base);
    if (!d)
        return;
    timer_cancel(&d->timer);
    if (d->pixels != MAP_FAILED)
        munmap(d->pixels, UI_SURFACE_BYTES);
    fd_closep(&d->fd);
    free(d);
}

/* ---- damage ---- */

static void add_rect(struct screen *d, struct ui_rect r)
{
    struct ui_rect *last = d->n_rects ? &d->rect[d->n_rects - 1] : NULL;
    /* The next line of the same area, or no room: one rectangle around both. */
    if (last && (d->n_rects == RECTS_MAX || last->y + last->h >= r.y)) {
        unsigned x2 = MAX(last->x + last->w, r.x + r.w), y2 = MAX(last->y + last->h, r.y + r.h);
        last->x = MIN(last->x, r.x);
        last->y = MIN(last->y, r.y);
        last->w = x2 - last->x;
        last->h = y2 - last->y;
        return;
    }
    d->rect[d->n_rects++] = r;
}

static void screen_line(struct ui_display *base, unsigned x, unsigned y, const uint32_t *pixels, unsigned n)
{
    struct screen *d = screen_of(base);
    if (y >= base->height || x >= base->width)
        return;
    n = MIN(n, base->width - x);
    uint32_t *to = d->pixels + (size_t)y * base->width + x;
    if (!memcmp(to, pixels, n * sizeof *to))
        return;
    unsigned first = 0, last = n - 1;
    while (to[first] == pixels[first])
        first++;
    while (to[last] == pixels[last])
        last--;
    memcpy(to + first, pixels + first, (last - first + 1) * sizeof *to);
    add_rect(d, (struct ui_rect){x + first, y, last - first + 1, 1});
}

static void screen_resize(struct ui_display *base, unsigned width, unsigned height)
{
    struct screen *d = screen_of(base);
    width = MIN(MAX(width, 1u), UI_WIDTH_MAX);
    height = MIN(MAX(height, 1u), UI_HEIGHT_MAX);
    if (width == base->width && height == base->height)
        return;
    base->width = width;
    base->height = height;
    memset(d->pixels, 0, (size_t)width * height * 4);
    d->n_rects = 0;
    for (struct ui_listener *l = d->listeners; l; l = l->next)
        if (l->resized)
            l->resized(l->opaque, width, height);
    add_rect(d, (struct ui_rect){0, 0, width, height});
}

static void screen_cursor(struct ui_display *base, const struct ui_cursor *cursor)
{
    struct screen *d = screen_of(base);
    d->cursor = *cursor;
    for (struct ui_listener *l = d->listeners; l; l = l->next)
        if (l->cursor)
            l->cursor(l->opaque, &d->cursor);
}

void ui_display_refresh(struct ui_display *base)
{
    struct screen *d = screen_of(base);
    if (d->source)
        d->source->update(d->source_opaque, false);
    unsigned n = d->n_rects;
    d->n_rects = 0;
    d->idle = n ? 0 : MIN(d->idle + 1, IDLE_TICKS + 1u);
    for (struct ui_listener *l = d->listeners; n && l; l = l->next)
        if (l->damaged)
            l->damaged(l->opaque, d->rect, n);
}

/* ---- the rest ---- */

static void screen_source(struct ui_display *base, const struct ui_source *source, void *opaque)
{
    struct screen *d = screen_of(base);
    d->source = source;
    d->source_opaque = opaque;
    if (source)
        source->update(opaque, true);
}

void ui_display_listen(struct ui_display *base, struct ui_listener *l)
{
    struct screen *d = screen_of(base);
    l->next = d->listeners;
    d->listeners = l;
    arm(d);
}

void ui_display_unlisten(struct ui_display *base, struct ui_listener *l)
{
    struct screen *d = screen_of(base);
    for (struct ui_listener **p = &d->listeners; *p; p = &(*p)->next)
        if (*p == l) {
            *p = l->next;
            break;
        }
    arm(d);
}

void ui_listener_activate(struct ui_display *base, struct ui_listener *l, bool active)
{
    struct screen *d = screen_of(base);
    l->active = active;
    d->idle = 0;
    if (active)
        ui_display_refresh(base);
    arm(d);
}

void ui_display_wish(struct ui_display *base, unsigned width, unsigned height)
{
    struct screen *d = screen_of(base);
    if (d->source && d->source->wish)
        d->source->wish(d->source_opaque, MIN(MAX(width, 64u), UI_WIDTH_MAX), MIN(MAX(height, 64u), UI_HEIGHT_MAX));
}

const uint32_t *ui_display_pixels(const struct ui_display *d)
{
    return screen_of(d)->pixels;
}

const struct ui_cursor *ui_display_cursor(const struct ui_display *d)
{
    return &screen_of(d)->cursor;
}

int ui_display_fd(const struct ui_display *d)
{
    return screen_of(d)->fd;
}

static const struct ui_display_ops screen_ops = {screen_source, screen_resize, screen_line, screen_cursor};
