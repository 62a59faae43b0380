/* The PCI root bus with a device of the test's: config space, BARs, INTx, MSI-X, and the two bridges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "dev/pci_host.h"

struct machine {
    struct bus *pio, *mmio;
    struct pci_bus *pci;
    int line[4];
    uint32_t sent[16];
    unsigned nsent;
    int bound_fd;
    uint32_t bound_data;
};

static void set_line(void *opaque, unsigned n, int level)
{
    ((struct machine *)opaque)->line[n] = level;
}
static void send(void *opaque, uint64_t addr, uint32_t data)
{
    struct machine *m = opaque;
    m->sent[m->nsent++ % ARRAY_SIZE(m->sent)] = data;
}
static int bind_fd(void *opaque, int fd, uint64_t addr, uint32_t data)
{
    struct machine *m = opaque;
    m->bound_fd = fd;
    m->bound_data = data;
    return 0;
}
static void unbind_fd(void *opaque, int fd)
{
    struct machine *m = opaque;
    assert_int_equal(m->bound_fd, fd);
    m->bound_fd = -1;
}

static void machine_new(struct machine *m)
{
    *m = (struct machine){.bound_fd = -1};
    m->pio = bus_new("io", 0xffff);
    m->mmio = bus_new("memory", UINT64_MAX);
    struct msi_sink sink = {.send = send, .bind_fd = bind_fd, .unbind_fd = unbind_fd, .opaque = m};
    struct irq lines[4];
    for (unsigned i = 0; i < 4; i++)
        lines[i] = (struct irq){set_line, m, i};
    m->pci = pci_bus_new(m->pio, m->mmio, &sink, lines);
    assert_int_equal(pci_map_ports(m->pci, m->pio, NULL), 0);
    assert_int_equal(pci_map_ecam(m->pci, m->mmio, 0xb0000000, 256, NULL), 0);
}

static void machine_free(struct machine *m)
{
    pci_bus_free(m->pci);
    bus_free(m->pio);
    bus_free(m->mmio);
}

/* A function with a register in each BAR that remembers. */
struct card {
    struct pci_dev pci;
    struct pci_info info;
    uint32_t reg;
};

static uint64_t card_read(void *opaque, uint64_t off, unsigned size)
{
    return ((struct card *)opaque)->reg + off;
}
static void card_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    ((struct card *)opaque)->reg = (uint32_t)val;
}
static const struct bus_ops card_ops = {.read = card_read, .write = card_write, .min_size = 4, .max_size = 4};
static void card_destroy(struct device *dev)
{
    pci_dev_remove((struct pci_dev *)dev);
    free(dev);
}
static const struct device_type card_type = {.name = "card", .destroy = card_destroy};

static struct card *card_new(struct machine *m, int devfn)
{
    struct card *c = xcalloc(1, sizeof *c);
    device_init(&c->pci.dev, &card_type, "card");
    c->info =
        (struct pci_info){.vendor = 0x1234,
                          .device = 0x5678,
                          .class_code = 0xff0000,
                          .interrupt_pin = 1,
                          .msix_vectors = 70,
                          .msix_bar = 4,
                          .bar = {[0] = {.size = 8192, .ops = &card_ops},
                                  [1] = {.size = 32, .io = true, .ops = &card_ops},
                                  [2] = {.size = 64 * KIB, .is64 = true, .prefetchable = true, .ops = &card_ops}}};
    assert_int_equal(pci_dev_add(&c->pci, m->pci, devfn, &c->info, NULL), 0);
    return c;
}

static uint32_t cf8_read(struct machine *m, unsigned bdf, unsigned off, unsigned size)
{
    bus_write(m->pio, 0xcf8, 4, 0x80000000 | bdf << 8 | (off & 0xfc));
    return (uint32_t)bus_read(m->pio, 0xcfc + (off & 3), size);
}
static void cf8_write(struct machine *m, unsigned bdf, unsigned off, unsigned size, uint32_t val)
{
    bus_write(m->pio, 0xcf8, 4, 0x80000000 | bdf << 8 | (off & 0xfc));
    bus_write(m->pio, 0xcfc + (off & 3), size, val);
}
static uint32_t ecam_read(struct machine *m, unsigned bdf, unsigned off, unsigned size)
{
    return (uint32_t)bus_read(m->mmio, 0xb0000000 + (bdf << 12) + off, size);
}

static void config_is_the_same_by_ports_and_memory(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *c = card_new(&m, 0x18);
    assert_int_equal(cf8_read(&m, 0x18, 0, 4), 0x56781234);
    assert_int_equal(cf8_read(&m, 0x18, 2, 2), 0x5678);
    assert_int_equal(cf8_read(&m, 0x18, 1, 1), 0x12);
    assert_int_equal(ecam_read(&m, 0x18, 0, 4), 0x56781234);
    assert_int_equal(ecam_read(&m, 0x18, 0xb, 1), 0xff);
    assert_int_equal(ecam_read(&m, 0x18, 0x100, 4), 0);
    cf8_write(&m, 0x18, 0x3c, 1, 11);
    assert_int_equal(ecam_read(&m, 0x18, 0x3c, 1), 11);
    cf8_write(&m, 0x18, 0, 4, 0);
    assert_int_equal(ecam_read(&m, 0x18, 0, 4), 0x56781234);
    assert_int_equal(cf8_read(&m, 0x20, 0, 4), UINT32_MAX);
    assert_int_equal(ecam_read(&m, 0xff18, 0, 4), UINT32_MAX);
    bus_write(m.pio, 0xcf8, 4, 0x1800); /* not enabled */
    assert_int_equal(bus_read(m.pio, 0xcfc, 4), UINT32_MAX);
    device_free(&c->pci.dev);
    assert_int_equal(cf8_read(&m, 0x18, 0, 4), UINT32_MAX);
    machine_free(&m);
}

static void bars_are_sized_mapped_and_moved(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *c = card_new(&m, 0x18);
    static const uint32_t size[6] = {0xffffe000, 0xffffffe1, 0xffff000c, 0xffffffff, 0xfffff000, 0};
    for (unsigned i = 0; i < 6; i++) {
        cf8_write(&m, 0x18, 0x10 + 4 * i, 4, UINT32_MAX);
        assert_int_equal(cf8_read(&m, 0x18, 0x10 + 4 * i, 4), size[i]);
        cf8_write(&m, 0x18, 0x10 + 4 * i, 4, 0);
    }
    c->reg = 42;
    cf8_write(&m, 0x18, 0x10, 4, 0xe0001fff); /* low bits are not writable */
    cf8_write(&m, 0x18, 0x14, 4, 0xc000);
    cf8_write(&m, 0x18, 0x18, 4, 0);
    cf8_write(&m, 0x18, 0x1c, 4, 8);
    assert_int_equal(bus_read(m.mmio, 0xe0000004, 4), UINT32_MAX);
    cf8_write(&m, 0x18, 4, 2, 2);
    assert_int_equal(bus_read(m.mmio, 0xe0000004, 4), 46);
    assert_int_equal(bus_read(m.mmio, 0x80000000cull, 4), 54);
    assert_int_equal(bus_read(m.pio, 0xc004, 4), UINT32_MAX);
    cf8_write(&m, 0x18, 4, 2, 3);
    assert_int_equal(bus_read(m.pio, 0xc004, 4), 46);
    cf8_write(&m, 0x18, 0x10, 4, 0xd0000000);
    assert_int_equal(bus_read(m.mmio, 0xe0000004, 4), UINT32_MAX);
    assert_int_equal(bus_read(m.mmio, 0xd0000004, 4), 46);
    cf8_write(&m, 0x18, 0x10, 4, UINT32_MAX); /* sizing while decoding */
    cf8_write(&m, 0x18, 0x10, 4, 0xd0000000);
    assert_int_equal(bus_read(m.mmio, 0xd0000004, 4), 46);
    pci_dev_reset(&c->pci);
    assert_int_equal(bus_read(m.mmio, 0xd0000004, 4), UINT32_MAX);
    assert_int_equal(cf8_read(&m, 0x18, 0x10, 4), 0);
    device_free(&c->pci.dev);
    machine_free(&m);
}

static void overlapping_bars_hurt_nobody_else(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *a = card_new(&m, 0x18), *b = card_new(&m, 0x20);
    a->reg = 100;
    b->reg = 200;
    cf8_write(&m, 0x18, 0x10, 4, 0xe0000000);
    cf8_write(&m, 0x18, 4, 2, 2);
    cf8_write(&m, 0x20, 0x10, 4, 0xe0000000);
    cf8_write(&m, 0x20, 4, 2, 2);
    assert_int_equal(bus_read(m.mmio, 0xe0000000, 4), 100);
    cf8_write(&m, 0x20, 0x10, 4, 0xb0000000); /* over ECAM */
    assert_int_equal(ecam_read(&m, 0x18, 0, 4), 0x56781234);
    cf8_write(&m, 0x20, 0x10, 4, 0xe0000000);
    cf8_write(&m, 0x18, 4, 2, 0); /* the first goes: the second is there */
    assert_int_equal(bus_read(m.mmio, 0xe0000000, 4), 200);
    device_free(&a->pci.dev);
    device_free(&b->pci.dev);
    assert_int_equal(bus_read(m.mmio, 0xe0000000, 4), UINT32_MAX);
    machine_free(&m);
}

static void lines_are_swizzled_shared_and_masked(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *a = card_new(&m, 0x18), *b = card_new(&m, 0x38); /* slots 3 and 7: both PIRQD */
    pci_set_intx(&a->pci, 1);
    pci_set_intx(&b->pci, 1);
    assert_int_equal(m.line[3], 1);
    assert_int_equal(m.line[0] + m.line[1] + m.line[2], 0);
    assert_int_equal(cf8_read(&m, 0x18, 6, 2) & 8, 8);
    pci_set_intx(&a->pci, 0);
    assert_int_equal(m.line[3], 1);
    assert_int_equal(cf8_read(&m, 0x18, 4, 4) >> 16 & 8, 0);
    cf8_write(&m, 0x38, 4, 2, 0x400); /* INTx disable */
    assert_int_equal(m.line[3], 0);
    cf8_write(&m, 0x38, 4, 2, 0);
    assert_int_equal(m.line[3], 1);
    device_free(&b->pci.dev);
    assert_int_equal(m.line[3], 0);
    device_free(&a->pci.dev);
    machine_free(&m);
}

static unsigned find_cap(struct machine *m, unsigned bdf, uint8_t id)
{
    unsigned at = cf8_read(m, bdf, 0x34, 1);
    while (at && cf8_read(m, bdf, at, 1) != id)
        at = cf8_read(m, bdf, at + 1, 1);
    return at;
}

static void masked_messages_wait(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *c = card_new(&m, 0x18);
    unsigned cap = find_cap(&m, 0x18, 0x11);
    assert_int_equal(cf8_read(&m, 0x18, cap + 2, 2), 69);
    cf8_write(&m, 0x18, 0x20, 4, 0xe0000000);
    cf8_write(&m, 0x18, 4, 2, 6);
    uint64_t t = 0xe0000000 + 16 * 65;
    bus_write(m.mmio, t, 8, 0xfee00000);
    bus_write(m.mmio, t + 8, 4, 0x4041);
    pci_set_intx(&c->pci, 1);
    assert_int_equal(m.line[3], 1);
    pci_msix_send(&c->pci, 65);
    assert_int_equal(m.nsent, 0); /* MSI-X is off */
    cf8_write(&m, 0x18, cap + 2, 2, 0x8000);
    assert_int_equal(m.line[3], 0);
    pci_msix_send(&c->pci, 65); /* vectors come up masked */
    assert_int_equal(m.nsent, 0);
    assert_int_equal(bus_read(m.mmio, 0xe0000000 + 2048 + 8, 4), 2);
    cf8_write(&m, 0x18, 4, 2, 2);
    bus_write(m.mmio, t + 12, 4, 0);
    assert_int_equal(m.nsent, 0); /* it may not write to memory */
    cf8_write(&m, 0x18, 4, 2, 6);
    assert_int_equal(m.nsent, 1);
    assert_int_equal(m.sent[0], 0x4041);
    assert_int_equal(bus_read(m.mmio, 0xe0000000 + 2048 + 8, 4), 0);
    cf8_write(&m, 0x18, cap + 2, 2, 0xc000); /* the whole function */
    pci_msix_send(&c->pci, 65);
    pci_msix_send(&c->pci, 65);
    assert_int_equal(m.nsent, 1);
    cf8_write(&m, 0x18, cap + 2, 2, 0x8000);
    assert_int_equal(m.nsent, 2);
    pci_msix_send(&c->pci, 70);
    pci_msix_send(&c->pci, UINT32_MAX);
    assert_int_equal(m.nsent, 2);
    /* An eventfd follows the table and the masks. */
    int fd = pci_msix_eventfd(&c->pci, 65);
    assert_true(fd >= 0);
    assert_int_equal(m.bound_fd, fd);
    bus_write(m.mmio, t + 8, 4, 0x4042);
    assert_int_equal(m.bound_data, 0x4042);
    bus_write(m.mmio, t + 12, 4, 1);
    assert_int_equal(m.bound_fd, -1);
    bus_write(m.mmio, t + 12, 4, 0);
    assert_int_equal(m.bound_fd, fd);
    device_free(&c->pci.dev);
    assert_int_equal(m.bound_fd, -1);
    machine_free(&m);
}

static void boards_without_firmware_assign(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *a = card_new(&m, -1), *b = card_new(&m, -1);
    assert_int_equal(a->pci.devfn, 8);
    assert_int_equal(b->pci.devfn, 16);
    pci_assign(m.pci, 0xe0000000, 0xe0100000, 0xc000);
    a->reg = 1;
    b->reg = 2;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned bar = 0; bar < 3; bar++) {
            uint32_t v = cf8_read(&m, i ? 16 : 8, 0x10 + 4 * bar, 4);
            assert_int_equal(bus_read(bar == 1 ? m.pio : m.mmio, v & ~15u, 4), i + 1);
        }
        assert_int_equal(cf8_read(&m, i ? 16 : 8, 4, 2), 7);
    }
    struct pci_dev third = {.dev = {.id = "third"}};
    assert_int_equal(pci_dev_add(&third, m.pci, 8, &a->info, NULL), -EEXIST);
    device_free(&a->pci.dev);
    device_free(&b->pci.dev);
    machine_free(&m);
}

static void state_maps_bars_again(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *c = card_new(&m, 0x18);
    pci_assign(m.pci, 0xe0000000, 0xe0100000, 0xc000);
    uint64_t at = cf8_read(&m, 0x18, 0x10, 4) & ~15u;
    struct state_writer w = {0};
    state_save(&w, &pci_dev_state, "card", &c->pci);
    state_save(&w, &pci_bus_state, "bus", m.pci);
    pci_dev_reset(&c->pci);
    struct state_reader r = {w.data, w.len, 0};
    assert_int_equal(state_load(&r, &pci_dev_state, "card", &c->pci, NULL), 0);
    assert_int_equal(state_load(&r, &pci_bus_state, "bus", m.pci, NULL), 0);
    c->reg = 7;
    assert_int_equal(bus_read(m.mmio, at, 4), 7);
    /* What the guest cannot write is not taken from a stream. */
    struct err err = {0};
    uint8_t *config = memmem(w.data, w.len, "\x34\x12\x78\x56", 4);
    assert_non_null(config);
    config[0xe] = 0x81;
    r.pos = 0;
    assert_int_equal(state_load(&r, &pci_dev_state, "card", &c->pci, &err), 0);
    assert_int_equal(cf8_read(&m, 0x18, 0xe, 1), 0);
    config[0] = 0x35;
    r.pos = 0;
    assert_int_equal(state_load(&r, &pci_dev_state, "card", &c->pci, &err), -EINVAL);
    assert_int_equal(cf8_read(&m, 0x18, 0, 4), 0x56781234);
    state_writer_free(&w);
    device_free(&c->pci.dev);
    machine_free(&m);
}

static unsigned told;
static void written(void *opaque, struct pci_dev *d, unsigned off, unsigned len)
{
    told += off == LPC_PMBASE;
}

static void bridges_remember(void **s)
{
    struct machine m;
    struct pci_dev *host, *lpc;
    machine_new(&m);
    struct pci_chip_config cfg = {.bus = m.pci, .written = written};
    assert_int_equal(pci_host_new(&cfg, &host, NULL), 0);
    assert_int_equal(pci_lpc_new(&cfg, &lpc, NULL), 0);
    assert_int_equal(cf8_read(&m, 0, 0, 4), 0x29c08086);
    assert_int_equal(cf8_read(&m, 0, 0xa, 2), 0x0600);
    assert_int_equal(cf8_read(&m, 0xf8, 0xa, 2), 0x0601);
    assert_int_equal(cf8_read(&m, 0xf8, 0xe, 1), 0x80);
    assert_int_equal(cf8_read(&m, 0xf8, LPC_PIRQA_ROUT, 4), 0x80808080);
    cf8_write(&m, 0xf8, LPC_PMBASE, 4, 0xffff0601);
    assert_int_equal(told, 1);
    assert_int_equal(cf8_read(&m, 0xf8, LPC_PMBASE, 4), 0x0601);
    cf8_write(&m, 0, MCH_PCIEXBAR, 4, 0xb0000001);
    assert_int_equal(cf8_read(&m, 0, MCH_PCIEXBAR, 4), 0xb0000001);
    device_reset(&lpc->dev);
    assert_int_equal(cf8_read(&m, 0xf8, LPC_PMBASE, 4), 1);
    assert_int_equal(cf8_read(&m, 0xf8, LPC_PIRQA_ROUT, 4), 0x80808080);
    device_free(&host->dev);
    device_free(&lpc->dev);
    machine_free(&m);
}

static void random_config_writes_are_harmless(void **s)
{
    struct machine m;
    machine_new(&m);
    struct card *a = card_new(&m, 8), *b = card_new(&m, 16);
    uint64_t x = 42;
    for (unsigned i = 0; i < 30000; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        unsigned bdf = x >> 63 ? 8 : 16, off = (unsigned)(x >> 20) % 256, size = 1u << (x >> 50) % 3;
        if (x >> 62 & 1)
            off = 4 + (unsigned)(x >> 20) % 36;
        pci_config_write(m.pci, bdf, off, size, (uint32_t)(x >> 29));
        bus_write(m.mmio, x >> 32 & ~3u, 4, x);
    }
    pci_config_write(m.pci, 8, 5000, 4, 0);
    assert_int_equal(pci_config_read(m.pci, 8, 4095, 2), 0xffff);
    pci_dev_reset(&a->pci);
    pci_dev_reset(&b->pci);
    assert_int_equal(cf8_read(&m, 8, 0, 4), 0x56781234);
    device_free(&a->pci.dev);
    device_free(&b->pci.dev);
    machine_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_is_the_same_by_ports_and_memory),
        cmocka_unit_test(bars_are_sized_mapped_and_moved),
        cmocka_unit_test(overlapping_bars_hurt_nobody_else),
        cmocka_unit_test(lines_are_swizzled_shared_and_masked),
        cmocka_unit_test(masked_messages_wait),
        cmocka_unit_test(boards_without_firmware_assign),
        cmocka_unit_test(state_maps_bars_again),
        cmocka_unit_test(bridges_remember),
        cmocka_unit_test(random_config_writes_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
