/* Larger devices under test: PCI functions on a bus of their own, with BARs where a board would put them, and some RAM;
 * flash. */
#include "env.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "dev/ahci.h"
#include "dev/pci.h"
#include "dev/pflash.h"
#include "dev/vga.h"
#include "ui/display.h"

#define RAM_SIZE (64 * KIB)
#define VRAM_SIZE (256 * KIB)
#define FUNCTIONS 4
#define DISK_SIZE (64 * KIB)
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
    uint8_t *image; /* of a disk, or NULL */
    uint8_t disk[DISK_SIZE];
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
    if (b->image)
        memcpy(b->disk, b->image, DISK_SIZE);
}

static int bus_post_load(void *obj, uint32_t version, struct err *err)
{
    struct bus_box *b = obj;
    for (unsigned i = 0; i < b->n; i++)
        for (unsigned off = 0x10; off < 0x110; off++) /* the command register last */
            if (b->function[i]->wmask[off & 255])
                pci_config_write(b->bus, b->function[i]->devfn, off & 255, 1, b->config[i][off & 255]);
    memcpy(b->mem->ram, b->memory, b->mem->fd_size);
    if (b->image)
        memcpy(b->image, b->disk, DISK_SIZE);
    return 0;
}

static const struct state_field bus_fields[] = {
    {"config", STATE_BYTES, offsetof(struct bus_box, config), FUNCTIONS * 256, 1, 1},
    {"memory", STATE_BYTES, offsetof(struct bus_box, memory), RAM_SIZE + VRAM_SIZE, 1, 1},
    {"disk", STATE_BYTES, offsetof(struct bus_box, disk), DISK_SIZE, 1, 1},
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
static void own_bus(struct env *env, struct pci_bus *bus, uint8_t *image)
{
    static const struct device_type type = {.name = "test-pci", .state = &bus_state, .destroy = bus_destroy};
    struct bus_box *b = xcalloc(1, sizeof *b);
    device_init(&b->dev, &type, "pci");
    b->bus = bus;
    b->mem = env->mem;
    b->image = image;
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
    own_bus(env, bus, NULL);
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

/* ---- ahci: ABAR at 0xe0000000; a disk "sda" of 64 KiB (sector n is full of n), a CD of the same, an empty port ----
 */

/* An image in memory, which completes requests at once. */
struct disk {
    struct blk blk;
    uint8_t data[DISK_SIZE];
};

static struct blk_queue *disk_queue_new(struct blk *blk, struct loop *loop, struct err *err)
{
    struct blk_queue *q = xcalloc(1, sizeof *q);
    *q = (struct blk_queue){.blk = blk, .loop = loop};
    return q;
}

static void disk_queue_free(struct blk_queue *q)
{
    free(q);
}

static void disk_submit(struct blk_queue *q, struct blk_req *req)
{
    struct disk *d = (struct disk *)q->blk;
    size_t n = req->len;
    if (req->op != BLK_FLUSH && (req->offset > DISK_SIZE || n > DISK_SIZE - req->offset))
        abort();
    if (req->op == BLK_READ && iov_write(req->iov, req->niov, 0, d->data + req->offset, n) != n)
        abort();
    if (req->op == BLK_WRITE && iov_read(req->iov, req->niov, 0, d->data + req->offset, n) != n)
        abort();
    if (req->op == BLK_DISCARD || req->op == BLK_WRITE_ZEROES)
        memset(d->data + req->offset, 0, n);
    req->done(req, 0);
}

static void disk_drain(struct blk_queue *q)
{
}

static void disk_close(struct blk *blk)
{
    free(blk);
}

static struct blk *new_disk(bool read_only)
{
    static const struct blk_ops ops = {disk_queue_new, disk_queue_free, disk_submit, NULL, disk_drain, disk_close};
    struct disk *d = xcalloc(1, sizeof *d);
    d->blk = (struct blk){.ops = &ops,
                          .driver = "test",
                          .size = DISK_SIZE,
                          .block_size = 512,
                          .physical_size = 512,
                          .read_only = read_only,
                          .can_discard = true,
                          .can_write_zeroes = true};
    for (unsigned i = 0; i < DISK_SIZE; i++)
        d->data[i] = (uint8_t)(i / 512);
    return &d->blk;
}

struct ahci_box {
    struct pci_dev *ahci;
    struct disk *disk;
};

static void ahci_setup(struct env *env)
{
    struct ahci_box *b = env->chip = xcalloc(1, sizeof *b);
    must(mem_new(RAM_SIZE, RAM_SIZE, &env->mem, NULL));
    struct pci_bus *bus = new_bus(env);
    struct blk *disk = new_disk(false);
    struct ahci_config cfg = {.id = "ahci",
                              .bus = bus,
                              .devfn = 8,
                              .mem = env->mem,
                              .loop = env->loop,
                              .drive = {{true, false, disk, "sda", "ID12"}, {true, true, new_disk(true), "sdb", NULL}}};
    b->disk = (struct disk *)disk;
    must(ahci_new(&cfg, &b->ahci, NULL));
    b->ahci->dev.type->pause(&b->ahci->dev, false);
    env_add(env, &b->ahci->dev);
    own_bus(env, bus, b->disk->data);
}

static void run_loop(struct env *env)
{
    for (unsigned i = 0; i < 4; i++)
        loop_poll(env->loop, 0);
}

/* run: the loop's turn. ram ADDR [VAL]: 32 bits. disk OFF: a byte of the disk. change 0|1: no medium in the CD drive,
 * or one. */
static bool ahci_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    struct ahci_box *b = env->chip;
    uint32_t val = 0;
    if (argc == 1 && !strcmp(argv[0], "run")) {
        run_loop(env);
    } else if (argc == 2 && !strcmp(argv[0], "ram")) {
        must(mem_read32(env->mem, env_number(argv[1]), &val));
        *ret = val;
    } else if (argc == 3 && !strcmp(argv[0], "ram")) {
        must(mem_write32(env->mem, env_number(argv[1]), (uint32_t)env_number(argv[2])));
    } else if (argc == 2 && !strcmp(argv[0], "disk")) {
        *ret = b->disk->data[env_number(argv[1]) % DISK_SIZE];
    } else if (argc == 2 && !strcmp(argv[0], "change")) {
        must(ahci_change(b->ahci, 1, env_number(argv[1]) ? new_disk(true) : NULL, true, NULL));
    } else {
        return false;
    }
    return true;
}

/* Command lists that make sense more often than random bytes. */
static uint64_t ahci_fuzz(struct env *env, uint64_t r)
{
    static const uint8_t commands[] = {0x25, 0x35, 0x60, 0x61, 0xa0, 0xec, 0xa1, 0x06, 0xea, 0xc8, 0xef, 0x08};
    static const uint8_t packets[] = {0x00, 0x03, 0x12, 0x28, 0x43, 0x46, 0x4a, 0x5a, 0x1b, 0x25, 0x51, 0xbe, 0xa8};
    uint64_t port = 0xe0000100 + (r & 1) * 0x80;
    unsigned tag = r >> 1 & 31;
    uint32_t sum = 0;
    (void)!mem_write32(env->mem, 0x1000 + 32 * tag, 5 | (r >> 8 & 0x40) | (uint32_t)(r >> 9 & 7) << 16);
    (void)!mem_write32(env->mem, 0x1008 + 32 * tag, 0x2000);
    (void)!mem_write32(env->mem, 0x2000,
                       0x8027 | (uint32_t)commands[(r >> 12 & 15) % sizeof commands] << 16 |
                           (uint32_t)(r >> 16 & 3) << 24);
    (void)!mem_write32(env->mem, 0x2004, 0x40000000 | (uint32_t)(r >> 18 & 0x7f));
    (void)!mem_write32(env->mem, 0x2008, 0);
    (void)!mem_write32(env->mem, 0x200c, (uint32_t)(r >> 25 & 3));
    (void)!mem_write32(env->mem, 0x2040, packets[(r >> 27 & 15) % sizeof packets]);
    (void)!mem_write32(env->mem, 0x2044, (uint32_t)(r >> 31 & 0xffff));
    for (unsigned i = 0; i < 8; i++) {
        (void)!mem_write32(env->mem, 0x2080 + 16 * i, 0x4000 + (uint32_t)(r >> (32 + i) & 0xfff) * 16);
        (void)!mem_write32(env->mem, 0x208c + 16 * i, (uint32_t)(r >> (40 + i) & 0xfff) | 1);
    }
    if (!(r >> 48 & 7)) {
        bus_write(env->mmio, port, 4, 0x1000);
        bus_write(env->mmio, port + 8, 4, 0x1400);
        bus_write(env->mmio, port + 0x18, 4, r >> 51 & 1 ? 0x11 : 0x10);
    }
    bus_write(env->mmio, port + 0x38, 4, BIT(tag));
    run_loop(env);
    for (unsigned i = 0; i < RAM_SIZE; i += 4)
        sum = sum * 31 + le32_get(env->mem->ram + i);
    return sum;
}

const struct env_kind kind_ahci = {
    .name = "ahci", .setup = ahci_setup, .op = ahci_op, .range = {{true, 0xe0000000, 0x220}}, .fuzz = ahci_fuzz};
