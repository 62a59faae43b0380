#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "mem/mem.h"

static void ram_is_split_at_the_hole(void **s)
{
    struct mem *m;
    assert_int_equal(mem_new(8 * MIB, 4 * MIB, &m, NULL), 0);
    assert_int_equal(mem_write32(m, MEM_HIGH_BASE + 16, 0x12345678), 0);
    uint32_t v = 0;
    assert_int_equal(mem_read32(m, MEM_HIGH_BASE + 16, &v), 0);
    assert_int_equal(v, 0x12345678);
    assert_int_equal(mem_read32(m, 4 * MIB, &v), -EFAULT);
    assert_int_equal(mem_read32(m, 4 * MIB - 2, &v), -EFAULT);
    assert_int_equal(mem_write16(m, UINT64_MAX - 1, 1), -EFAULT);
    mem_free(m);
}

static void rom_ignores_writes_and_refuses_overlap(void **s)
{
    struct mem *m;
    struct err err = {0};
    uint8_t data[] = {1, 2, 3}, b[3];
    assert_int_equal(mem_new(1 * MIB, 1 * MIB, &m, NULL), 0);
    assert_int_equal(mem_add_rom(m, 0xfffff000, 4096, data, 3, &err), 0);
    assert_int_equal(mem_write(m, 0xfffff000, "xyz", 3), 0);
    assert_int_equal(mem_read(m, 0xfffff000, b, 3), 0);
    assert_memory_equal(b, data, 3);
    assert_int_equal(mem_add_rom(m, 0xff000, 4096, data, 3, &err), -EEXIST);
    struct iovec iov[4];
    unsigned n = 0;
    assert_int_equal(mem_iov(m, 0xfffff000, 8, true, iov, &n, 4), -EFAULT);
    mem_free(m);
}

static gpa_t wrote_at;
static void wrote(void *opaque, gpa_t gpa, uint64_t len)
{
    wrote_at = gpa;
}

static void writes_are_seen_by_dirty_log_and_engine(void **s)
{
    struct mem *m;
    assert_int_equal(mem_new(1 * MIB, 1 * MIB, &m, NULL), 0);
    m->code_written = wrote;
    m->page_flags[3] = MEM_PAGE_CODE;
    mem_track_dirty(m, true);
    assert_int_equal(mem_write(m, 3 * 4096 - 1, "ab", 2), 0);
    assert_int_equal(wrote_at, 3 * 4096);
    uint64_t bits[4];
    mem_take_dirty(m, bits);
    assert_int_equal(bits[0], 0xc);
    mem_take_dirty(m, bits);
    assert_int_equal(bits[0], 0);
    assert_int_equal(m->page_flags[3], MEM_PAGE_CODE);
    mem_free(m);
}

static void discarded_pages_read_as_zero(void **s)
{
    struct mem *m;
    uint64_t v = 1;
    assert_int_equal(mem_new(1 * MIB, 1 * MIB, &m, NULL), 0);
    assert_int_equal(mem_write64(m, 0x5000, 77), 0);
    assert_int_equal(mem_discard(m, 0x5000, 4096), 0);
    assert_int_equal(mem_read64(m, 0x5000, &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(mem_discard(m, 0x5001, 4096), -EINVAL);
    assert_int_equal(mem_discard(m, 2 * MIB, 4096), -EFAULT);
    mem_free(m);
}

static unsigned layouts;
static void layout_note(void *opaque)
{
    layouts++;
}

static void later_windows_hide_earlier_ones(void **s)
{
    struct mem *m;
    uint8_t b;
    layouts = 0;
    assert_int_equal(mem_new_with_device(8 * MIB, 8 * MIB, MIB, &m, NULL), 0);
    m->layout_changed = layout_note;
    uint8_t *rom = m->ram + 0xf0000;
    assert_int_equal(mem_write(m, 0xc0000, "\1", 1), 0);
    assert_int_equal(mem_write(m, 0xf0000, "\2", 1), 0);
    int hole = mem_add_window(m, &(struct mem_window){MEM_HOLE, 0xa0000, 0x20000}, NULL);
    int pam = mem_add_window(m, &(struct mem_window){MEM_ROM, 0xc0000, 0x10000, rom}, NULL);
    assert_true(hole > 0 && pam == hole + 1);
    assert_int_equal(mem_read(m, 0xa0000, &b, 1), -EFAULT);
    assert_int_equal(mem_read(m, 0x9ffff, &b, 1), 0);
    assert_int_equal(mem_read(m, 0xc0000, &b, 1), 0);
    assert_int_equal(b, 2);
    assert_int_equal(mem_write(m, 0xc0000, "\7", 1), 0); /* read-only */
    assert_int_equal(mem_read(m, 0xf0000, &b, 1), 0);
    assert_int_equal(b, 2);
    struct mem_window w[2] = {{MEM_OFF}, {MEM_RAM, 0xe0000000, MIB, m->ram + m->ram_size}};
    assert_int_equal(layouts, 2);
    assert_int_equal(mem_set_windows(m, hole, w, 2), 0);
    assert_int_equal(mem_set_windows(m, hole, w, 2), 0); /* no change, no call */
    assert_int_equal(layouts, 3);
    assert_int_equal(mem_read(m, 0xa0000, &b, 1), 0);
    assert_int_equal(mem_read(m, 0xc0000, &b, 1), 0);
    assert_int_equal(b, 1);
    assert_int_equal(mem_write(m, 0xe0000000 + MIB - 1, "x", 1), 0);
    assert_int_equal(m->ram[m->fd_size - 1], 'x');
    assert_int_equal(mem_write(m, 0xe0000000 + MIB - 1, "xy", 2), -EFAULT);
    w[0] = (struct mem_window){MEM_HOLE, 0xa0001, 0x1000};
    assert_int_equal(mem_set_windows(m, hole, w, 1), -EINVAL);
    mem_collect(m);
    assert_int_equal(mem_layout(m)->range[0].size, 8 * MIB);
    mem_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ram_is_split_at_the_hole),
        cmocka_unit_test(rom_ignores_writes_and_refuses_overlap),
        cmocka_unit_test(writes_are_seen_by_dirty_log_and_engine),
        cmocka_unit_test(discarded_pages_read_as_zero),
        cmocka_unit_test(later_windows_hide_earlier_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
