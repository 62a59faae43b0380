/* A domain's screen, keyboard and pointer: the display, the VGA that draws on it, and PS/2 behind the input. */
#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "dev/i8042.h"
#include "dev/vga.h"
#include "machine/machine.h"
#include "ui/keymap.h"
#include "ui/png.h"

#define VRAM_DEFAULT (16 * MIB)
#define VRAM_MAX (256 * MIB)

static const struct domain_video *video_of(const struct domain *d)
{
    return d->n_videos && strcmp(d->videos[0].model, "none") ? &d->videos[0] : NULL;
}

uint64_t display_memory(const struct domain *d)
{
    const struct domain_video *v = d->os.board == DOMAIN_BOARD_MICRO ? NULL : video_of(d);
    uint64_t size = VRAM_DEFAULT;
    if (!v)
        return 0;
    while (size < v->vram * KIB && size < VRAM_MAX)
        size *= 2;
    return size;
}

/* ---- PS/2 ---- */

static void ps2_key(void *opaque, const struct key *key, bool down)
{
    uint8_t bytes[8];
    i8042_keys(opaque, bytes, key_ps2(key, down, bytes));
}

/* PS/2's buttons: left, right, middle. Its movements go up. */
static void ps2_move(void *opaque, int dx, int dy, int wheel, unsigned buttons)
{
    unsigned b =
        (buttons & UI_BUTTON_LEFT ? 1 : 0) | (buttons & UI_BUTTON_RIGHT ? 2 : 0) | (buttons & UI_BUTTON_MIDDLE ? 4 : 0);
    i8042_mouse(opaque, dx, -dy, -wheel, b);
}

void display_add_ps2(struct vm *vm, struct i8042 *kbd)
{
    struct ui_input_sink sink = {.key = ps2_key, .move = ps2_move, .opaque = kbd};
    ui_input_add(&vm->input, &sink);
}

/* ---- making ---- */

int display_build(struct vm *vm, struct err *err)
{
    const struct domain_video *v = video_of(vm->domain);
    if (!v || !vm->pci)
        return 0;
    int code = ui_display_new(vm->loop, 0, &vm->display, err);
    if (code < 0)
        return code;
    vm->has_display = true;
    struct vga_config cfg = {
        .id = "video0",
        .bus = vm->pci,
        .devfn = 1 << 3,
        .mem = vm->mem,
        .vram_size = vm->mem->fd_size - vm->mem->ram_size,
        .display = vm->display,
        .width = v->width,
        .height = v->height,
    };
    struct pci_dev *vga;
    if ((code = vga_new(&cfg, &vga, err)) < 0)
        return code;
    vm_add_device(vm, &vga->dev);
    return vga_map(vga, vm->pio, vm->mmio, err);
}

/* ---- for the monitor ---- */

int vm_screendump(struct vm *vm, const char *path, bool ppm, struct err *err)
{
    struct ui_display *d = vm->display;
    if (!d)
        return err_set(err, -ENODEV, "the guest has no screen");
    ui_display_refresh(d);
    return (ppm ? ppm_write : png_write)(path, ui_display_pixels(d), ui_display_width(d), ui_display_height(d), err);
}

struct ui_input *vm_input(struct vm *vm)
{
    return &vm->input;
}

struct ui_display *vm_display(struct vm *vm)
{
    return vm->display;
}
