#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "dev/bus.h"
#include "dev/irqwire.h"

/* Registers that hold what is written, and remember how they were accessed. */
struct regs {
    uint8_t data[64];
    char log[256];
};

static uint64_t regs_read(void *opaque, uint64_t off, unsigned size)
{
    struct regs *r = opaque;
    uint64_t v = 0;
    assert_true(off + size <= sizeof r->data);
    memcpy(&v, r->data + off, size);
    snprintf(r->log + strlen(r->log), sizeof r->log - strlen(r->log), "r%u@%u ", size, (unsigned)off);
    return v;
}
static void regs_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct regs *r = opaque;
    assert_true(off + size <= sizeof r->data);
    memcpy(r->data + off, &val, size);
    snprintf(r->log + strlen(r->log), sizeof r->log - strlen(r->log), "w%u@%u ", size, (unsigned)off);
}
static const struct bus_ops any_ops = {regs_read, regs_write, 0, 0};
static const struct bus_ops byte_ops = {regs_read, regs_write, 1, 1};
static const struct bus_ops dword_ops = {regs_read, regs_write, 4, 4};

static void assert_log(struct regs *r, const char *want)
{
    assert_string_equal(r->log, want);
    r->log[0] = 0;
}

static void nothing_reads_as_ones(void **s)
{
    struct bus *b = bus_new("port", 0xffff);
    assert_true(bus_read(b, 0x3f8, 1) == 0xff);
    assert_true(bus_read(b, 0x3f8, 4) == 0xffffffff);
    assert_true(bus_read(b, 0xffff, 4) == 0xffffffff);
    assert_true(bus_read(b, 0x123456789, 8) == UINT64_MAX);
    bus_write(b, 0x3f8, 4, 1);
    bus_write(b, UINT64_MAX, 8, 1);
    bus_free(b);
    bus_free(NULL);
}

static void accesses_reach_the_device_as_offsets(void **s)
{
    struct regs r = {0};
    struct bus *b = bus_new("memory", UINT64_MAX);
    assert_int_equal(bus_map(b, "r", 0xfed00000, 64, &any_ops, &r, NULL), 0);
    bus_write(b, 0xfed00010, 8, 0x1122334455667788);
    assert_true(bus_read(b, 0xfed00010, 8) == 0x1122334455667788);
    assert_true(bus_read(b, 0xfed00013, 2) == 0x4455);
    assert_log(&r, "w8@16 r8@16 r2@19 ");
    bus_unmap(b, 0xfed00000, 64);
    assert_true(bus_read(b, 0xfed00010, 8) == UINT64_MAX);
    bus_free(b);
}

static void wide_accesses_are_split_and_narrow_ones_widened(void **s)
{
    struct regs a = {{1, 2, 3, 4}, ""}, c = {{0x10, 0x20, 0x30, 0x40}, ""};
    struct bus *b = bus_new("port", 0xffff);
    assert_int_equal(bus_map(b, "a", 0x100, 4, &byte_ops, &a, NULL), 0);
    assert_int_equal(bus_map(b, "c", 0x108, 4, &dword_ops, &c, NULL), 0);
    assert_true(bus_read(b, 0x100, 4) == 0x04030201);
    assert_log(&a, "r1@0 r1@1 r1@2 r1@3 ");
    /* Over the end: the rest is nothing, or the next device. */
    assert_true(bus_read(b, 0x102, 4) == 0xffff0403);
    assert_true(bus_read(b, 0x104, 8) == 0x40302010ffffffff);
    a.log[0] = c.log[0] = 0;
    assert_true(bus_read(b, 0x109, 2) == 0x3020);
    assert_log(&c, "r4@0 ");
    bus_write(b, 0x109, 1, 0xee); /* too narrow for the device */
    assert_log(&c, "");
    bus_write(b, 0x108, 4, 0xdeadbeef);
    assert_true(bus_read(b, 0x108, 4) == 0xdeadbeef);
    bus_free(b);
}

static void taken_ranges_are_refused_by_name(void **s)
{
    struct err err = {0};
    struct regs r = {0};
    struct bus *b = bus_new("port", 0xffff);
    assert_int_equal(bus_map(b, "uart0", 0x3f8, 8, &any_ops, &r, &err), 0);
    assert_int_equal(bus_map(b, "uart1", 0x3ff, 8, &any_ops, &r, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "uart0"));
    assert_int_equal(bus_map(b, "x", 0x3f0, 9, &any_ops, &r, NULL), -EEXIST);
    assert_int_equal(bus_map(b, "x", 0x3f0, 8, &any_ops, &r, NULL), 0);
    assert_int_equal(bus_map(b, "x", 0x400, 8, &any_ops, &r, NULL), 0);
    assert_int_equal(bus_map(b, "x", 0xfff8, 9, &any_ops, &r, NULL), -EINVAL);
    assert_int_equal(bus_map(b, "x", 0x10, 0, &any_ops, &r, NULL), -EINVAL);
    assert_int_equal(bus_map(b, "x", 0x10, UINT64_MAX, &any_ops, &r, NULL), -EINVAL);
    bus_free(b);
}

static void count_mapping(void *opaque, const char *name, uint64_t base, uint64_t len)
{
    uint64_t *last = opaque;
    assert_true(base >= *last);
    *last = base + len;
}

static void walking_is_in_address_order(void **s)
{
    struct regs r = {0};
    uint64_t last = 0;
    struct bus *b = bus_new("port", 0xffff);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(bus_map(b, "x", (i * 37 % 100) * 16, 16, &any_ops, &r, NULL), 0);
    bus_walk(b, count_mapping, &last);
    assert_true(last == 1600);
    bus_free(b);
}

struct heard {
    int adds, dels;
};
static void listen_eventfd(void *opaque, struct bus *b, uint64_t addr, unsigned size, int fd, bool add)
{
    struct heard *h = opaque;
    *(add ? &h->adds : &h->dels) += 1;
}

static void a_write_to_an_eventfd_replaces_the_device(void **s)
{
    struct regs r = {0};
    struct heard h = {0};
    uint64_t n = 0;
    struct bus *b = bus_new("memory", UINT64_MAX);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fd2 = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(bus_map(b, "r", 0x1000, 64, &any_ops, &r, NULL), 0);
    assert_int_equal(bus_add_eventfd(b, 0x1010, 2, fd, NULL), 0);
    bus_set_listener(b, &(struct bus_listener){listen_eventfd, &h});
    assert_int_equal(h.adds, 1); /* what was there before */
    assert_int_equal(bus_add_eventfd(b, 0x1014, 0, fd2, NULL), 0);
    assert_int_equal(bus_add_eventfd(b, 0x1014, 4, fd, NULL), -EEXIST);
    assert_int_equal(h.adds, 2);
    bus_write(b, 0x1010, 2, 5);
    bus_write(b, 0x1010, 2, 6);
    assert_log(&r, "");
    assert_int_equal(read(fd, &n, sizeof n), sizeof n);
    assert_true(n == 2);
    bus_write(b, 0x1010, 4, 7); /* another size */
    assert_log(&r, "w4@16 ");
    bus_write(b, 0x1014, 8, 7); /* any size */
    assert_int_equal(read(fd2, &n, sizeof n), sizeof n);
    assert_log(&r, "");
    bus_del_eventfd(b, 0x1010, 2, fd);
    assert_int_equal(h.dels, 1);
    bus_write(b, 0x1010, 2, 5);
    assert_log(&r, "w2@16 ");
    bus_del_eventfd(b, 0x1014, 0, fd2);
    bus_free(b);
    close(fd);
    close(fd2);
}

static uint64_t ones(void *opaque, uint64_t off, unsigned size)
{
    return UINT64_MAX;
}
static const struct bus_ops ones_ops = {ones, NULL, 1, 8};

/* A device that maps and unmaps another from inside its own write, as a PCI command register does. */
struct mapper {
    struct bus *bus;
};
static void mapper_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct mapper *m = opaque;
    if (val)
        bus_map(m->bus, "bar", 0x2000, 64, &ones_ops, m, NULL);
    else
        bus_unmap(m->bus, 0x2000, 64);
}
static const struct bus_ops mapper_ops = {NULL, mapper_write, 1, 4};

static _Atomic bool stop;
static void *reader(void *opaque)
{
    struct mapper *m = opaque;
    while (!atomic_load(&stop))
        assert_true(bus_read(m->bus, 0x2004, 4) == 0xffffffff);
    return NULL;
}

static void the_map_changes_under_readers(void **s)
{
    struct mapper m = {.bus = bus_new("memory", UINT64_MAX)};
    pthread_t t[2];
    assert_int_equal(bus_map(m.bus, "mapper", 0x1000, 4, &mapper_ops, &m, NULL), 0);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, reader, &m);
    for (unsigned i = 0; i < 2000; i++)
        bus_write(m.bus, 0x1000, 4, !(i & 1));
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    bus_free(m.bus);
}

static void note_level(void *opaque, unsigned n, int level)
{
    ((int *)opaque)[n] = level;
}

static void lines_split_and_join(void **s)
{
    int level[3] = {0};
    struct irq_split sp = {{{note_level, level, 0}, {note_level, level, 1}}, 2};
    irq_set(irq_split(&sp), 1);
    assert_int_equal(level[0] + level[1], 2);
    struct irq_or o = {.out = {note_level, level, 2}};
    struct irq a = irq_or_source(&o, 0), b = irq_or_source(&o, 1);
    irq_set(a, 1);
    irq_set(b, 1);
    irq_set(a, 0);
    assert_int_equal(level[2], 1);
    irq_set(b, 0);
    assert_int_equal(level[2], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_reads_as_ones),
        cmocka_unit_test(accesses_reach_the_device_as_offsets),
        cmocka_unit_test(wide_accesses_are_split_and_narrow_ones_widened),
        cmocka_unit_test(taken_ranges_are_refused_by_name),
        cmocka_unit_test(walking_is_in_address_order),
        cmocka_unit_test(a_write_to_an_eventfd_replaces_the_device),
        cmocka_unit_test(the_map_changes_under_readers),
        cmocka_unit_test(lines_split_and_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
