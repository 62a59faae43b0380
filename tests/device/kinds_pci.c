/* Larger devices under test: PCI functions on a bus of their own, with BARs where a board would put them, and some RAM; flash. */
#include "env.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "dev/pci.h"
#include "dev/pflash.h"
#include "dev/vga.h"
#include "ui/display.h"

#define RAM_SIZE (64 * KIB)
#define VRAM_SIZE (256 * KIB)
#define FUNCTIONS 4
#define MEM_FIRST 0xe0000000ull

static void must(int ret)
{
    if (ret < 0)
        abort();
}

/*
 * The bus itself as a device, freed after its functions: it is added last. Its state is what a machine saves beside its
 * devices: configuration space and memory.
 */
struct bus_box {
    struct device dev;
    struct pci_bus *bus;
    struct mem *mem;
    struct pci_dev *function[FUNCTIONS];
    unsigned n;
    uint8_t config[FUNCTIONS][256];
    uint8_t memory[RAM_SIZE + VRAM_SIZE];
};

static void bus_destroy(struct device *dev)
{
    struct bus_box *b = (struct bus_box *)dev;
    pci_bus_free(b->bus);
    free(b);
}

static void find_function(void *opaque, struct pci_dev *d)
{
    struct bus_box *b = opaque;
    if (b->n < FUNCTIONS)
        b->function[b->n++] = d;
}

static void bus_pre_save(void *obj)
{
    struct bus_box *b = obj;
    for (unsigned i = 0; i < b->n; i++)
        memcpy(b->config[i], b->function[i]->config, 256);
    memcpy(b->memory, b->mem->ram, b->mem->fd_size);
}

static int bus_post_load(void *obj, uint32_t version, struct err *err)
{
    struct bus_box *b = obj;
    for (unsigned i = 0; i < b->n; i++)
        for (unsigned off = 0x10; off < 0x110; off++) /* the command register last */
            if (b->function[i]->wmask[off & 255])
                pci_config_write(b->bus, b->function[i]->devfn, off & 255, 1, b->config[i][off & 255]);
    memcpy(b->mem->ram, b->memory, b->mem->fd_size);
    return 0;
}

static const struct state_field bus_fields[] = {
    {"config", STATE_BYTES, offsetof(struct bus_box, config), FUNCTIONS * 256, 1, 1},
    {"memory", STATE_BYTES, offsetof(struct bus_box, memory), RAM_SIZE + VRAM_SIZE, 1, 1},
    {0},
};
static const struct state_desc bus_state = {"test-pci", 1, 1, bus_fields, bus_pre_save, bus_post_load};

static struct pci_bus *new_bus(struct env *env)
{
    struct msi_sink msi = env_msi_sink(env);
    struct irq intx[4] = {env_output(env, 0), env_output(env, 1), env_output(env, 2), env_output(env, 3)};
    struct pci_bus *bus = pci_bus_new(env->pio, env->mmio, &msi, intx);
    must(pci_map_ports(bus, env->pio, NULL));
    return bus;
}

/* After the functions. */
static void own_bus(struct env *env, struct pci_bus *bus)
{
    static const struct device_type type = {.name = "test-pci", .state = &bus_state, .destroy = bus_destroy};
    struct bus_box *b = xcalloc(1, sizeof *b);
    device_init(&b->dev, &type, "pci");
    b->bus = bus;
    b->mem = env->mem;
    pci_walk(bus, find_function, b);
    pci_assign(bus, MEM_FIRST, MEM_FIRST + 0x10000000, 0xc000);
    env_add(env, &b->dev);
}

/* ---- vga: BAR 0 at 0xe0000000, BAR 2 at 0xe0040000 ---- */

/* A display that takes every line and keeps the picture. */
struct vga_box {
    struct ui_display display;
    const struct ui_source *source;
    void *source_opaque;
    uint32_t pixels[1024 * 768];
};

static void box_source(struct ui_display *d, const struct ui_source *source, void *opaque)
{
    struct vga_box *b = (struct vga_box *)d;
    b->source = source;
    b->source_opaque = opaque;
}

static void box_resize(struct ui_display *d, unsigned width, unsigned height)
{
    d->width = width;
    d->height = height;
}

static void box_line(struct ui_display *d, unsigned x, unsigned y, const uint32_t *pixels, unsigned n)
{
    struct vga_box *b = (struct vga_box *)d;
    for (unsigned i = 0; i < n; i++)
        if (x + i < 1024 && y < 768)
            b->pixels[y * 1024 + x + i] = pixels[i];
}

static void box_cursor(struct ui_display *d, const struct ui_cursor *cursor)
{
}

static void vga_setup(struct env *env)
{
    static const struct ui_display_ops ops = {box_source, box_resize, box_line, box_cursor};
    struct vga_box *b = env->chip = xcalloc(1, sizeof *b);
    b->display.ops = &ops;
    must(mem_new_with_device(RAM_SIZE, RAM_SIZE, VRAM_SIZE, &env->mem, NULL));
    struct pci_bus *bus = new_bus(env);
    struct vga_config cfg = {
        .id = "vga", .bus = bus, .devfn = 8, .mem = env->mem, .vram_size = VRAM_SIZE, .display = &b->display};
    struct pci_dev *vga;
    must(vga_new(&cfg, &vga, NULL));
    must(vga_map(vga, env->pio, env->mmio, NULL));
    env_add(env, &vga->dev);
    own_bus(env, bus);
}

/* draw: brings the picture up to date. width, height, pixel X Y: of the picture. vram OFF [VAL]: a byte, as a CPU sees
 * it. */
static bool vga_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    struct vga_box *b = env->chip;
    if (argc == 1 && !strcmp(argv[0], "draw")) {
        b->source->update(b->source_opaque, false);
        return true;
    }
    if (argc == 1 && !strcmp(argv[0], "width")) {
        *ret = b->display.width;
    } else if (argc == 1 && !strcmp(argv[0], "height")) {
        *ret = b->display.height;
    } else if (argc == 3 && !strcmp(argv[0], "pixel")) {
        *ret = b->pixels[env_number(argv[2]) % 768 * 1024 + env_number(argv[1]) % 1024];
    } else if (argc >= 2 && !strcmp(argv[0], "vram")) {
        uint8_t val = argc > 2 ? (uint8_t)env_number(argv[2]) : 0;
        gpa_t at = MEM_FIRST + env_number(argv[1]);
        int code = argc > 2 ? mem_write(env->mem, at, &val, 1) : mem_read(env->mem, at, &val, 1);
        *ret = code < 0 ? UINT64_MAX : val;
    } else {
        return false;
    }
    return true;
}

static uint64_t vga_fuzz(struct env *env, uint64_t r)
{
    struct vga_box *b = env->chip;
    switch (r & 7) {
    case 0: /* small linear modes: big ones only take time */
        bus_write(env->pio, 0x1ce, 2, 1 + (r >> 8 & 1));
        bus_write(env->pio, 0x1cf, 2, r >> 16 & 0x1ff);
        return 0;
    case 1:
        bus_write(env->pio, 0x1ce, 2, r >> 8 & 15);
        bus_write(env->pio, 0x1cf, 2, r >> 16 & 0xffff);
        return 0;
    case 2:
        bus_write(env->mmio, 0xa0000 + (r >> 8 & 0x1ffff), 4, r >> 32);
        return bus_read(env->mmio, 0xa0000 + (r >> 12 & 0x1ffff), 1);
    case 3: /* a picture is to be seen more often than not */
        bus_write(env->pio, 0x3c0, 1, 0x20);
        return 0;
    default:
        break;
    }
    if (!(r & 0xf000) && b->source)
        b->source->update(b->source_opaque, r >> 16 & 1);
    return bus_read(env->pio, 0x1cf, 2);
}

const struct env_kind kind_vga = {
    .name = "vga",
    .setup = vga_setup,
    .op = vga_op,
    .range = {{false, 0x3b4, 2}, {false, 0x3c0, 0x20}, {false, 0x1ce, 3}, {true, 0xe0040000, 0x700}},
    .fuzz = vga_fuzz,
};

/* ---- pflash: 64 KiB at 0xffc00000; byte n is n & 255 ---- */

static void pflash_setup(struct env *env)
{
    struct pflash *p;
    uint8_t data[64 * KIB];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    must(pflash_new(&(struct pflash_config){.id = "flash", .data = data, .size = sizeof data, .fd = -1}, &p, NULL));
    must(pflash_map(p, env->mmio, 0xffc00000, NULL));
    env_add(env, pflash_device(p));
}

const struct env_kind kind_pflash = {.name = "pflash", .setup = pflash_setup, .range = {{true, 0xffc00000, 64 * KIB}}};
