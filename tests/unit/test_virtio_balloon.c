#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "dev/virtio/balloon.h"
#include "fake_driver.h"

#define RAM (4 * MIB)

static struct virtio_dev *make(struct fake_driver *d)
{
    struct virtio_dev *dev;
    struct virtio_balloon_config cfg = {
        .id = "balloon0", .mem = d->mem, .loop = d->loop, .deflate_on_oom = true, .free_page_reporting = true};
    assert_int_equal(virtio_balloon_new(&cfg, &dev, NULL), 0);
    return dev;
}

static uint64_t host_bytes(struct fake_driver *d)
{
    struct stat st;
    assert_int_equal(fstat(d->mem->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static uint8_t byte_at(struct fake_driver *d, gpa_t gpa)
{
    uint8_t b;
    assert_int_equal(mem_read(d->mem, gpa, &b, 1), 0);
    return b;
}

static unsigned changes;
static uint64_t last_actual;
static void on_change(void *opaque, uint64_t actual)
{
    changes++;
    last_actual = actual;
}

static void gives_pages_back(void **s)
{
    struct fake_driver *d = fake_new(RAM);
    struct virtio_dev *dev = make(d);
    assert_int_equal(mem_set(d->mem, 0, 0x55, RAM), 0);
    fake_start(d, dev, ~0ull);
    virtio_balloon_on_change(dev, on_change, NULL);
    assert_int_equal(virtio_balloon_actual(dev), RAM);
    virtio_balloon_set_target(dev, RAM - 5 * 4096);
    assert_int_equal(d->config_irqs, 1);
    assert_int_equal(virtio_config_read(dev, 0, 4), 5);

    uint64_t before = host_bytes(d);
    /* Two runs, one of them downwards; one page beyond the end; one that stays. */
    uint32_t pfn[] = {900, 901, 902, 800, 799, 0x7fffffff};
    struct fake_buf b = fake_bytes(d, pfn, sizeof pfn);
    before = host_bytes(d);
    fake_add(d, 0, &b, 1, 0);
    fake_kick(d, 0);
    assert_true(fake_used(d, 0, NULL) >= 0);
    assert_int_equal(before - host_bytes(d), 5 * 4096);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(byte_at(d, pfn[i] * 4096ull + 7), 0);
    assert_int_equal(byte_at(d, 903 * 4096), 0x55);
    assert_int_equal(byte_at(d, 798 * 4096), 0x55);
    virtio_config_write(dev, 4, 4, 5);
    loop_poll(d->loop, 0);
    assert_int_equal(changes, 1);
    assert_int_equal(last_actual, RAM - 5 * 4096);
    assert_int_equal(virtio_balloon_actual(dev), RAM - 5 * 4096);
    b = fake_bytes(d, pfn, 4);
    fake_add(d, 1, &b, 1, 0);
    fake_kick(d, 1);
    assert_true(fake_used(d, 1, NULL) >= 0);
    /* A guest that says nonsense cannot make it more than there is. */
    virtio_config_write(dev, 4, 4, 0xffffffff);
    assert_int_equal(virtio_balloon_actual(dev), 0);
    fake_start(d, dev, 0);
    assert_int_equal(virtio_balloon_actual(dev), RAM);
    fake_free(d);
}

static void statistics_come_when_asked(void **s)
{
    struct fake_driver *d = fake_new(RAM);
    struct virtio_dev *dev = make(d);
    struct virtio_balloon_stats st;
    fake_start(d, dev, ~0ull);
    virtio_balloon_stats(dev, &st);
    assert_int_equal(st.host_ns, 0);
    loop_poll(d->loop, 0);
    uint8_t raw[30] = {4, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0xff, 0xff, 9, 9, 9, 9, 9, 9, 9, 9, 5, 0, 0, 0, 0, 1};
    struct fake_buf b = fake_bytes(d, raw, 30);
    fake_add(d, 2, &b, 1, 0);
    fake_kick(d, 2); /* the question from above is answered by the next numbers */
    assert_true(fake_used(d, 2, NULL) >= 0);
    fake_add(d, 2, &b, 1, 0);
    fake_kick(d, 2);
    assert_int_equal(fake_used(d, 2, NULL), -1);
    virtio_balloon_stats(dev, &st);
    assert_int_equal(st.value[VIRTIO_BALLOON_S_MEMFREE], 0x030201);
    assert_int_equal(st.value[VIRTIO_BALLOON_S_MEMTOT], 0x1000000);
    assert_true(st.value[VIRTIO_BALLOON_S_CACHES] == UINT64_MAX);
    assert_true(st.host_ns > 0);
    loop_poll(d->loop, 0);
    assert_true(fake_used(d, 2, NULL) >= 0); /* the guest is asked for newer ones */
    fake_free(d);
}

static void free_pages_are_reported(void **s)
{
    struct fake_driver *d = fake_new(RAM);
    struct virtio_dev *dev = make(d);
    assert_int_equal(mem_set(d->mem, 0, 0x55, RAM), 0);
    fake_start(d, dev, ~0ull);
    uint64_t before = host_bytes(d);
    /* Only whole pages go. */
    struct fake_buf b[2] = {{2 * MIB, 1 * MIB}, {3 * MIB + 100, 8192}};
    fake_add(d, 3, b, 0, 2);
    fake_kick(d, 3);
    assert_true(fake_used(d, 3, NULL) >= 0);
    assert_int_equal(before - host_bytes(d), 1 * MIB + 4096);
    assert_int_equal(byte_at(d, 2 * MIB), 0);
    assert_int_equal(byte_at(d, 3 * MIB + 100), 0x55);
    assert_int_equal(byte_at(d, 3 * MIB + 8191 + 1), 0x55);
    /* Poisoned pages must not turn to zero. */
    virtio_config_write(dev, 12, 4, 0xaaaaaaaa);
    b[0].gpa = 1 * MIB;
    fake_add(d, 3, b, 0, 1);
    fake_kick(d, 3);
    assert_true(fake_used(d, 3, NULL) >= 0);
    assert_int_equal(byte_at(d, 1 * MIB + 5), 0x55);
    /* Without statistics the reporting queue is number 2. */
    fake_start(d, dev, BIT64(5));
    fake_add(d, 2, b, 0, 1);
    fake_kick(d, 2);
    assert_true(fake_used(d, 2, NULL) >= 0);
    assert_int_equal(byte_at(d, 1 * MIB + 5), 0);
    fake_free(d);
}

static void survives_a_hostile_driver(void **s)
{
    uint32_t seed = 99;
    for (unsigned round = 0; round < 100; round++) {
        struct fake_driver *d = fake_new(1 * MIB);
        struct virtio_dev *dev = make(d);
        struct virtio_balloon_stats st;
        fake_start(d, dev, round % 2 ? ~0ull : BIT64(5));
        for (unsigned i = 0; i < 40; i++) {
            struct fake_buf b[3];
            uint32_t r = seed = seed * 1103515245 + 12345;
            unsigned n = 1 + (r >> 8) % 3, nout = (r >> 12) % (n + 1), q = (r >> 16) % 4;
            for (unsigned k = 0; k < n; k++) {
                seed = seed * 1103515245 + 12345;
                b[k] = (struct fake_buf){(seed >> 4) % (r % 16 ? 900000 : 1100000), (seed >> 20) % 3000};
            }
            fake_add(d, q, b, nout, n - nout);
            fake_kick(d, q);
            virtio_balloon_stats(dev, &st);
            virtio_config_write(dev, (r >> 20) % 16, 4, r);
        }
        fake_free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_pages_back),
        cmocka_unit_test(statistics_come_when_asked),
        cmocka_unit_test(free_pages_are_reported),
        cmocka_unit_test(survives_a_hostile_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
