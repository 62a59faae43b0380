/* ACPI and SMBIOS as a guest walks them: checksums, lengths, references; and iasl's opinion of every table, where it is
 * installed. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "machine/acpi.h"
#include "machine/smbios.h"

static const struct acpi_config full = {
    .cpus = 4,
    .has_8259 = true,
    .override = {{0, 2, false}, {9, 9, true}},
    .n_overrides = 2,
    .pci = true,
    .ecam_base = 0xb0000000,
    .ecam_buses = 256,
    .mem32_first = 0xc0000000,
    .mem32_last = 0xfebfefff,
    .mem64_first = 0x8000000000,
    .mem64_last = 0xffffffffff,
    .intx_gsi = {16, 17, 18, 19},
    .hpet_base = 0xfed00000,
    .pm1_evt = 0x600,
    .pm1_cnt = 0x604,
    .pm_timer = 0x608,
    .gpe0 = 0x620,
    .gpe0_len = 16,
    .sci = 9,
    .s5_type = 5,
    .reset_port = 0xcf9,
    .reset_value = 6,
    .rtc = true,
    .i8042 = true,
    .uarts = 15,
    .pvpanic_port = 0x505,
    .fw_cfg_port = 0x510,
};

static struct acpi_config micro(void)
{
    struct acpi_config c = {
        .cpus = 300,
        .hw_reduced = true,
        .sleep_control = 0xfea00200,
        .sleep_status = 0xfea00201,
        .ged_base = 0xfea00000,
        .ged_gsi = 9,
        .s5_type = 5,
        .uarts = 1,
        .n_virtio_mmio = 32,
    };
    for (unsigned i = 0; i < c.n_virtio_mmio; i++)
        c.virtio_mmio[i] = (struct acpi_mmio_device){0xfeb00000 + i * 0x200, 0x200, 5 + i};
    return c;
}

static void read_sum(struct mem *m, gpa_t at, uint8_t *buf, uint32_t len)
{
    uint8_t sum = 0;
    assert_int_equal(mem_read(m, at, buf, len), 0);
    for (uint32_t i = 0; i < len; i++)
        sum += buf[i];
    assert_int_equal(sum, 0);
}

static uint32_t read_table(struct mem *m, gpa_t at, uint8_t *buf)
{
    uint32_t len;
    assert_in_range(at, ACPI_AREA_BASE, ACPI_AREA_BASE + ACPI_AREA_SIZE - 36);
    assert_int_equal(mem_read32(m, at + 4, &len), 0);
    assert_in_range(len, 36, ACPI_AREA_BASE + ACPI_AREA_SIZE - at);
    read_sum(m, at, buf, len);
    return len;
}

/* Decompiles, compiles the result, and wants neither errors nor warnings. */
static void check_iasl(const char *dir, const uint8_t *table, uint32_t len)
{
    char path[200], cmd[900];
    snprintf(path, sizeof path, "%s/%.4s.dat", dir, (const char *)table);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, table, len), 0);
    close(fd);
    snprintf(cmd, sizeof cmd,
             "cd %s && { iasl -d %.4s.dat && { [ %.4s != DSDT ] || iasl DSDT.dsl; } && ! grep -E "
             "'[*][*][*][*]|Invalid|Remark' %.4s.dsl; } >log 2>&1 && "
             "! grep -E '(Warning|Error) +[0-9]+|[1-9][0-9]* (Errors|Warnings)|rror:' log || { cat log; false; }",
             dir, (const char *)table, (const char *)table, (const char *)table);
    if (system(cmd) != 0)
        fail_msg("iasl does not like %.4s", (const char *)table);
}

static void walk(const struct acpi_config *c, const char *dir, unsigned want_tables)
{
    static uint8_t buf[ACPI_AREA_SIZE], sub[ACPI_AREA_SIZE];
    struct mem *m;
    struct err e = {0};
    gpa_t rsdp;
    unsigned lapics = 0;
    assert_int_equal(mem_new(2 * MIB, 3 * GIB, &m, NULL), 0);
    if (acpi_build(c, m, ACPI_AREA_BASE, ACPI_AREA_SIZE, &rsdp, &e) < 0)
        fail_msg("%s", e.msg);
    read_sum(m, rsdp, buf, 20);
    read_sum(m, rsdp, buf, 36);
    assert_memory_equal(buf, "RSD PTR ", 8);
    uint32_t len = read_table(m, le64_get(buf + 24), buf);
    assert_memory_equal(buf, "XSDT", 4);
    assert_int_equal((len - 36) / 8, want_tables);
    for (unsigned i = 36; i + 8 <= len; i += 8) {
        uint32_t n = read_table(m, le64_get(buf + i), sub);
        if (dir)
            check_iasl(dir, sub, n);
        if (!memcmp(sub, "APIC", 4)) {
            for (uint32_t k = 44; k + 2 <= n; k += sub[k + 1]) {
                assert_true(sub[k + 1] >= 2);
                lapics += sub[k] == 0 || sub[k] == 9;
            }
        }
        if (!memcmp(sub, "FACP", 4)) {
            assert_int_equal(n, 276);
            assert_int_equal(!!(le32_get(sub + 112) & BIT(20)), c->hw_reduced);
            n = read_table(m, le64_get(sub + 140), sub);
            assert_memory_equal(sub, "DSDT", 4);
            if (dir)
                check_iasl(dir, sub, n);
        }
    }
    assert_int_equal(lapics, c->cpus);
    mem_free(m);
}

static void test_acpi_walk(void **state)
{
    struct acpi_config c = micro();
    walk(&full, NULL, 5);
    walk(&c, NULL, 3);
}

static void test_acpi_iasl(void **state)
{
    char dir[] = "/tmp/lodge-acpi.XXXXXX", cmd[64];
    struct acpi_config c = micro();
    if (system("command -v iasl >/dev/null") != 0) {
        print_message("skipped: iasl (acpica-tools) is not installed\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    walk(&full, dir, 5);
    walk(&c, dir, 3);
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    assert_int_equal(system(cmd), 0);
}

static void test_acpi_no_space(void **state)
{
    struct mem *m;
    gpa_t rsdp;
    assert_int_equal(mem_new(2 * MIB, 3 * GIB, &m, NULL), 0);
    for (uint64_t size = 0; size < 3000; size += 100)
        assert_int_equal(acpi_build(&full, m, ACPI_AREA_BASE, size, &rsdp, NULL), -ENOSPC);
    mem_free(m);
    assert_int_equal(mem_new(PAGE_SIZE, 3 * GIB, &m, NULL), 0);
    assert_int_equal(acpi_build(&full, m, ACPI_AREA_BASE, ACPI_AREA_SIZE, &rsdp, NULL), -EFAULT);
    assert_int_equal(smbios_build(&(struct smbios_config){0}, m, NULL), -EFAULT);
    mem_free(m);
}

static void test_smbios(void **state)
{
    struct mem *m;
    uint8_t e[24], t[4096];
    static const uint8_t want[] = {0, 1, 3, 4, 4, 16, 17, 19, 32, 127};
    struct smbios_config c = {.product = "test machine", .sockets = 2, .cores = 3, .threads = 6};
    unsigned n = 0;
    for (unsigned i = 0; i < 16; i++)
        c.uuid[i] = (uint8_t)(i * 17);
    assert_int_equal(mem_new(256 * MIB, 3 * GIB, &m, NULL), 0);
    assert_int_equal(smbios_build(&c, m, NULL), 0);
    read_sum(m, SMBIOS_AREA_BASE, e, sizeof e);
    assert_memory_equal(e, "_SM3_", 5);
    uint32_t len = le32_get(e + 12);
    assert_in_range(len, 100, sizeof t);
    assert_int_equal(mem_read(m, le64_get(e + 16), t, len), 0);
    for (uint32_t at = 0; at < len;) {
        assert_true(n < sizeof want);
        assert_int_equal(t[at], want[n]);
        assert_int_equal(le16_get(t + at + 2), n);
        if (t[at] == 1) {
            assert_int_equal(t[at + 8], 0x33); /* uuid: mixed endian */
            assert_string_equal((char *)t + at + t[at + 1] + sizeof "Lodge", "test machine");
        }
        at += t[at + 1];
        while (t[at] || t[at + 1])
            at++;
        at += 2;
        n++;
    }
    assert_int_equal(n, sizeof want);
    mem_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acpi_walk),
        cmocka_unit_test(test_acpi_iasl),
        cmocka_unit_test(test_acpi_no_space),
        cmocka_unit_test(test_smbios),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
