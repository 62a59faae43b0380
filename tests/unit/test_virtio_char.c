/* virtio-console and virtio-rng. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "dev/virtio/console.h"
#include "dev/virtio/rng.h"
#include "fake_driver.h"

/* A character device that takes `room` bytes and remembers them. */
struct fake_chr {
    struct chardev chr; /* first */
    char out[20000];
    size_t len, room;
    unsigned asked; /* accept_input calls */
};

static size_t chr_write(struct chardev *c, const uint8_t *buf, size_t len)
{
    struct fake_chr *f = (struct fake_chr *)c;
    len = MIN(len, f->room);
    memcpy(f->out + f->len, buf, len);
    f->len += len;
    f->room -= len;
    return len;
}
static void chr_accept(struct chardev *c)
{
    ((struct fake_chr *)c)->asked++;
}
static void chr_destroy(struct chardev *c)
{
}
static const struct chardev_ops chr_ops = {
    .name = "fake", .write = chr_write, .accept_input = chr_accept, .destroy = chr_destroy};

/* Input as a backend gives it: only as much as there is room for. Bytes taken. */
static size_t type(struct fake_chr *f, const char *s)
{
    size_t done = 0, len = strlen(s), n;
    while (done < len && (n = f->chr.frontend->can_receive(f->chr.opaque)) > 0) {
        n = MIN(n, len - done);
        f->chr.frontend->receive(f->chr.opaque, (const uint8_t *)s + done, n);
        done += n;
    }
    return done;
}

static struct virtio_dev *make_console(struct fake_driver *d, const struct virtio_console_port_config *ports,
                                       unsigned n)
{
    struct virtio_dev *dev;
    struct err err = {0};
    struct virtio_console_config cfg = {.id = "console0", .mem = d->mem, .loop = d->loop, .ports = ports, .nports = n};
    if (virtio_console_new(&cfg, &dev, &err) < 0)
        fail_msg("%s", err.msg);
    return dev;
}

static void a_console_carries_bytes(void **s)
{
    struct fake_chr chr = {.chr.ops = &chr_ops, .room = 4};
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev = make_console(d, &(struct virtio_console_port_config){.chr = &chr.chr}, 1);
    assert_int_equal(type(&chr, "early"), 0); /* nobody there yet: it waits */
    virtio_console_resize(dev, 0, 80, 25);
    fake_start(d, dev, ~0ull);
    assert_false(dev->guest_features & BIT64(1)); /* alone, it needs no ports */
    assert_int_equal(virtio_config_read(dev, 0, 2), 80);
    assert_int_equal(virtio_config_read(dev, 2, 2), 25);
    virtio_console_resize(dev, 0, 132, 50);
    assert_int_equal(d->config_irqs, 1);
    assert_int_equal(virtio_config_read(dev, 0, 4), 132 | 50 << 16);

    /* Out: the backend takes it in two parts. */
    struct fake_buf b[2] = {fake_bytes(d, "hel", 3), fake_bytes(d, "lo world", 8)};
    unsigned id = fake_add(d, 1, b, 2, 0);
    fake_kick(d, 1);
    assert_memory_equal(chr.out, "hell", 4);
    assert_int_equal(fake_used(d, 1, NULL), -1);
    chr.room = 1000;
    chr.chr.frontend->writable(chr.chr.opaque);
    assert_int_equal(fake_used(d, 1, NULL), id);
    assert_int_equal(chr.len, 11);
    assert_memory_equal(chr.out, "hello world", 11);

    /* In: into two buffers, the rest waits for a third. */
    struct fake_buf in[3] = {fake_room(d, 2), fake_room(d, 4), fake_room(d, 100)};
    unsigned ids[3] = {fake_add(d, 0, &in[0], 0, 1), fake_add(d, 0, &in[1], 0, 1)};
    unsigned asked = chr.asked;
    fake_kick(d, 0);
    assert_true(chr.asked > asked);
    assert_int_equal(type(&chr, "abcdefgh"), 6);
    uint32_t len;
    assert_int_equal(fake_used(d, 0, &len), ids[0]);
    assert_int_equal(len, 2);
    assert_int_equal(fake_used(d, 0, &len), ids[1]);
    assert_int_equal(len, 4);
    ids[2] = fake_add(d, 0, &in[2], 0, 1);
    fake_kick(d, 0);
    assert_int_equal(type(&chr, "gh"), 2);
    assert_int_equal(fake_used(d, 0, &len), ids[2]);
    assert_int_equal(len, 2);

    /* Emergency write works without queues. */
    virtio_config_write(dev, 8, 4, '!');
    assert_int_equal(chr.out[11], '!');
    fake_free(d);
    assert_null(chr.chr.frontend);
}

/* The next control message, which must be this one. */
static void expect(struct fake_driver *d, unsigned port, unsigned event, unsigned value, const char *tail)
{
    static struct fake_buf b[512];
    uint8_t got[64];
    uint32_t len = 0;
    struct fake_buf one = fake_room(d, 64);
    b[fake_add(d, 2, &one, 0, 1)] = one;
    fake_kick(d, 2);
    int id = fake_used(d, 2, &len);
    assert_true(id >= 0);
    assert_int_equal(len, 8 + strlen(tail));
    assert_int_equal(mem_read(d->mem, b[id].gpa, got, len), 0);
    assert_int_equal(le32_get(got), port);
    assert_int_equal(le16_get(got + 4), event);
    assert_int_equal(le16_get(got + 6), value);
    assert_memory_equal(got + 8, tail, strlen(tail));
}

static void tell(struct fake_driver *d, uint32_t port, unsigned event, unsigned value)
{
    uint8_t m[8];
    le32_put(m, port);
    le16_put(m + 4, (uint16_t)event);
    le16_put(m + 6, (uint16_t)value);
    struct fake_buf b = fake_bytes(d, m, 8);
    fake_add(d, 3, &b, 1, 0);
    fake_kick(d, 3);
    assert_true(fake_used(d, 3, NULL) >= 0);
}

static void ports_are_announced_and_opened(void **s)
{
    struct fake_chr chr[2] = {{.chr.ops = &chr_ops, .room = 9999}, {.chr.ops = &chr_ops, .room = 9999}};
    struct fake_driver *d = fake_new(2 * MIB);
    struct virtio_dev *dev = make_console(
        d, (struct virtio_console_port_config[]){{&chr[0].chr, NULL}, {&chr[1].chr, "org.example.agent"}}, 2);
    chr[1].chr.frontend->event(chr[1].chr.opaque, CHARDEV_OPENED); /* before the driver: it is told in time */
    fake_start(d, dev, BIT64(0) | BIT64(1));
    assert_int_equal(virtio_config_read(dev, 4, 4), 2);
    tell(d, 0, 0, 1);
    expect(d, 0, 1, 1, "");
    expect(d, 1, 1, 1, "");
    tell(d, 1, 3, 1);
    expect(d, 1, 7, 1, "org.example.agent");
    expect(d, 1, 6, 1, "");
    tell(d, 0, 3, 1);
    expect(d, 0, 4, 1, "");
    expect(d, 0, 6, 1, "");
    virtio_console_resize(dev, 0, 3, 4);
    {
        static const char size[] = {3, 0, 4, 0};
        struct fake_buf b = fake_room(d, 64);
        uint8_t got[12];
        uint32_t len;
        fake_add(d, 2, &b, 0, 1);
        fake_kick(d, 2);
        assert_true(fake_used(d, 2, &len) >= 0);
        assert_int_equal(len, 12);
        assert_int_equal(mem_read(d->mem, b.gpa, got, 12), 0);
        assert_int_equal(got[4], 5);
        assert_memory_equal(got + 8, size, 4);
    }
    /* Input waits until the guest has the port open. */
    struct fake_buf in = fake_room(d, 100);
    fake_add(d, 4, &in, 0, 1);
    fake_kick(d, 4);
    assert_int_equal(type(&chr[1], "ping"), 0);
    tell(d, 1, 6, 1);
    assert_int_equal(type(&chr[1], "ping"), 4);
    assert_true(fake_used(d, 4, NULL) >= 0);
    struct fake_buf out = fake_bytes(d, "pong", 4);
    fake_add(d, 5, &out, 1, 0);
    fake_kick(d, 5);
    assert_memory_equal(chr[1].out, "pong", 4);
    chr[1].chr.frontend->event(chr[1].chr.opaque, CHARDEV_CLOSED);
    expect(d, 1, 6, 0, "");
    /* Nonsense is ignored. */
    tell(d, 7, 3, 1);
    tell(d, 0xffffffff, 6, 1);
    tell(d, 1, 999, 1);
    fake_free(d);
}

static void impossible_saved_state_is_refused(void **s)
{
    struct fake_chr chr[2] = {{.chr.ops = &chr_ops}, {.chr.ops = &chr_ops}};
    struct fake_driver *d = fake_new(2 * MIB);
    struct virtio_dev *dev =
        make_console(d, (struct virtio_console_port_config[]){{&chr[0].chr, NULL}, {&chr[1].chr, "agent"}}, 2);
    fake_start(d, dev, ~0ull);
    struct state_writer w = {0};
    struct err err = {0};
    dev->dev.type->pause(&dev->dev, true);
    state_save(&w, dev->dev.type->state, "c", dev);
    struct state_reader good = {.data = w.data, .len = w.len}, bad = good;
    assert_int_equal(state_load(&good, dev->dev.type->state, "c", dev, &err), 0);
    /* Port 0 is to announce its name, but it has none. */
    uint8_t *p = memmem(w.data, w.len, "pending", 7);
    assert_non_null(p);
    for (p += 7; *p != VIRTIO_CONSOLE_PORTS_MAX; p++)
        ;
    memset(p + 4, BIT(7), 1);
    assert_int_equal(state_load(&bad, dev->dev.type->state, "c", dev, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "port 0"));
    device_reset(&dev->dev);
    state_writer_free(&w);
    fake_free(d);
}

static void console_survives_a_hostile_driver(void **s)
{
    uint32_t seed = 4711;
    for (unsigned round = 0; round < 200; round++) {
        struct fake_chr *chr = calloc(2, sizeof *chr);
        struct fake_driver *d = fake_new(1 * MIB);
        chr[0].chr.ops = chr[1].chr.ops = &chr_ops;
        struct virtio_dev *dev =
            make_console(d, (struct virtio_console_port_config[]){{&chr[0].chr, NULL}, {&chr[1].chr, "x"}}, 2);
        fake_start(d, dev, ~0ull);
        for (unsigned i = 0; i < 40; i++) {
            struct fake_buf b[3];
            uint32_t r = seed = seed * 1103515245 + 12345;
            unsigned n = 1 + (r >> 8) % 3, nout = (r >> 12) % (n + 1), q = (r >> 16) % 6;
            for (unsigned k = 0; k < n; k++) {
                seed = seed * 1103515245 + 12345;
                b[k] = (struct fake_buf){(seed >> 4) % (r % 16 ? 900000 : 1100000), (seed >> 24) % 40};
            }
            fake_add(d, q, b, nout, n - nout);
            if (q == 3 && i % 2) {
                uint8_t m[8] = {(uint8_t)(r >> 4) % 3, 0, 0, 0, (uint8_t)(r >> 7) % 8, 0, (uint8_t)(r >> 9) % 2};
                struct fake_buf c = {900000 + 4096, 8};
                assert_int_equal(mem_write(d->mem, c.gpa, m, 8), 0);
                fake_add(d, 3, &c, 1, 0);
            }
            chr[0].room = chr[1].room = (r >> 20) % 50;
            fake_kick(d, q);
            type(&chr[r % 2], "some input");
            chr[r % 2].chr.frontend->writable(chr[r % 2].chr.opaque);
        }
        fake_free(d);
        free(chr);
    }
}

static void random_bytes_come_and_are_bounded(void **s)
{
    struct fake_driver *d = fake_new(4 * MIB);
    struct virtio_dev *dev;
    struct virtio_rng_config cfg = {.id = "rng0", .mem = d->mem, .loop = d->loop, .rate = 100000};
    assert_int_equal(virtio_rng_new(&cfg, &dev, NULL), 0);
    fake_start(d, dev, ~0ull);
    struct fake_buf b = fake_room(d, 64);
    uint8_t got[64], zero[64] = {0};
    uint32_t len;
    fake_add(d, 0, &b, 0, 1);
    fake_kick(d, 0);
    assert_true(fake_used(d, 0, &len) >= 0);
    assert_int_equal(len, 64);
    assert_int_equal(mem_read(d->mem, b.gpa, got, 64), 0);
    assert_memory_not_equal(got, zero, 64);
    /* A period has 1000 bytes: ten large requests cannot all be answered at once, but all are in the end. */
    b = fake_room(d, 100000);
    for (unsigned i = 0; i < 10; i++)
        fake_add(d, 0, &b, 0, 1);
    fake_kick(d, 0);
    unsigned at_once = 0, later = 0;
    while (fake_used(d, 0, &len) >= 0) {
        assert_true(len > 0 && len <= 1024);
        at_once++;
    }
    assert_true(at_once < 10);
    while (at_once + later < 10 && fake_wait_used(d, 0, &len) >= 0)
        later++;
    assert_int_equal(at_once + later, 10);
    /* No room, nothing written. */
    fake_add(d, 0, &(struct fake_buf){4096, 10}, 1, 0);
    virtio_kick(dev, 0);
    assert_true(fake_wait_used(d, 0, &len) >= 0);
    assert_int_equal(len, 0);
    fake_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_console_carries_bytes),           cmocka_unit_test(ports_are_announced_and_opened),
        cmocka_unit_test(impossible_saved_state_is_refused), cmocka_unit_test(console_survives_a_hostile_driver),
        cmocka_unit_test(random_bytes_come_and_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
