/* Loaders: what a kernel finds, and that broken files give one clear message and nothing worse. */
#include <elf.h>
#include <lzma.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "machine/loader.h"

#define RAM (64 * MIB)

struct fixture {
    char dir[64], kernel[96], initrd[96];
    struct mem *mem;
    struct e820_entry e820[4];
    struct boot_info b;
    struct cpu_state s;
    struct err err;
};

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, data, len), 0);
    close(fd);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/lodge-loader.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->kernel, sizeof f->kernel, "%s/kernel", f->dir);
    snprintf(f->initrd, sizeof f->initrd, "%s/initrd", f->dir);
    assert_int_equal(mem_new(RAM, 3 * GIB, &f->mem, NULL), 0);
    f->b = (struct boot_info){
        .mem = f->mem, .kernel = f->kernel, .e820 = f->e820, .cmdline = "console=ttyS0", .rsdp = 0xe0000};
    f->b.n_e820 = e820_of_ram(f->mem, f->e820);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    unlink(f->kernel);
    unlink(f->initrd);
    rmdir(f->dir);
    mem_free(f->mem);
    free(f);
    return 0;
}

static int load(struct fixture *f, const void *data, size_t len)
{
    write_file(f->kernel, data, len);
    f->err.code = 0;
    f->err.msg[0] = 0;
    cpu_state_reset(&f->s, true);
    int r = loader_load(&f->b, &f->s, &f->err);
    if (r < 0) { /* one line that names the file */
        assert_int_equal(f->err.code, r);
        assert_null(strchr(f->err.msg, '\n'));
        if (!strstr(f->err.msg, f->kernel) && !strstr(f->err.msg, f->initrd))
            fail_msg("names no file: %s", f->err.msg);
    }
    return r;
}

static uint32_t peek(struct fixture *f, gpa_t gpa)
{
    uint32_t v = 0;
    assert_int_equal(mem_read32(f->mem, gpa, &v), 0);
    return v;
}

/* ---- bzImage ---- */

#define BZ_SETUP 3
#define BZ_CODE 4000
#define BZ_SIZE ((BZ_SETUP + 1) * 512 + BZ_CODE)

static void make_bzimage(uint8_t k[BZ_SIZE])
{
    memset(k, 0, BZ_SIZE);
    k[0x1f1] = BZ_SETUP;
    le32_put(k + 0x1f4, BZ_CODE / 16);
    le16_put(k + 0x1fe, 0xaa55);
    k[0x201] = 0x6a;
    memcpy(k + 0x202, "HdrS", 4);
    le16_put(k + 0x206, 0x20f);
    k[0x211] = 1;
    le32_put(k + 0x22c, 0x7fffffff);
    le32_put(k + 0x230, 0x200000);
    k[0x234] = 1;
    le16_put(k + 0x236, 1);
    le32_put(k + 0x238, 2047);
    le64_put(k + 0x258, 16 * MIB);
    le32_put(k + 0x260, 8 * MIB);
    memset(k + (BZ_SETUP + 1) * 512, 0x5a, BZ_CODE);
}

static void test_bzimage(void **state)
{
    struct fixture *f = *state;
    uint8_t k[BZ_SIZE];
    char text[20] = "", initrd[5000];
    make_bzimage(k);
    memset(initrd, 'i', sizeof initrd);
    write_file(f->initrd, initrd, sizeof initrd);
    f->b.initrd = f->initrd;
    if (load(f, k, sizeof k) < 0)
        fail_msg("%s", f->err.msg);
    gpa_t bp = f->s.gpr[RSI];
    assert_int_equal(f->s.rip, 16 * MIB + 0x200);
    assert_true(f->s.efer & EFER_LMA);
    assert_int_equal(peek(f, 16 * MIB), 0x5a5a5a5a);
    assert_int_equal(peek(f, bp + 0x202), 0x53726448);
    assert_int_equal(peek(f, bp + 0x70), 0xe0000);
    assert_int_equal(mem_read(f->mem, peek(f, bp + 0x228), text, 14), 0);
    assert_string_equal(text, "console=ttyS0");
    assert_int_equal(peek(f, bp + 0x21c), sizeof initrd);
    assert_int_equal(peek(f, peek(f, bp + 0x218)), 0x69696969);
    assert_in_range(peek(f, bp + 0x218), 24 * MIB, RAM - sizeof initrd); /* clear of the kernel's init_size */
    assert_int_equal(peek(f, bp + 0x1e8) & 0xff, 3);
    /* Page tables map the entry one to one. */
    assert_int_equal(peek(f, (peek(f, peek(f, f->s.cr3) & ~0xfffu) & ~0xfffu) + 8 * 8), 16 * MIB + 0x83);
}

static void test_bzimage_32bit_and_small_ram(void **state)
{
    struct fixture *f = *state;
    uint8_t k[BZ_SIZE];
    make_bzimage(k);
    k[0x236] = 0;
    le64_put(k + 0x258, 60 * MIB); /* preferred place does not fit: relocatable, so at 1 MiB */
    assert_int_equal(load(f, k, sizeof k), 0);
    assert_int_equal(f->s.rip, MIB);
    assert_int_equal(f->s.cr0 & (CR0_PE | CR0_PG), CR0_PE);
    k[0x234] = 0;
    assert_int_equal(load(f, k, sizeof k), -ENOMEM);
    make_bzimage(k);
    le32_put(k + 0x260, 0xffffffff);
    assert_int_equal(load(f, k, sizeof k), -ENOMEM);
}

static void test_bzimage_bad(void **state)
{
    struct fixture *f = *state;
    uint8_t k[BZ_SIZE];
    char cmdline[3000];
    make_bzimage(k);
    for (size_t len = 1; len < sizeof k - 16; len += len < 0x300 ? 1 : 97)
        assert_true(load(f, k, len) < 0);
    le16_put(k + 0x206, 0x203);
    assert_int_equal(load(f, k, sizeof k), -EINVAL);
    make_bzimage(k);
    memset(cmdline, 'x', sizeof cmdline);
    cmdline[sizeof cmdline - 1] = 0;
    f->b.cmdline = cmdline;
    assert_int_equal(load(f, k, sizeof k), -EINVAL);
    f->b.cmdline = NULL;
    f->b.initrd = f->initrd; /* not there */
    assert_int_equal(load(f, k, sizeof k), -ENOENT);
    write_file(f->initrd, "", 0);
    assert_int_equal(load(f, k, sizeof k), -EINVAL);
    write_file(f->initrd, "x", 1);
    assert_int_equal(truncate(f->initrd, 1 * GIB), 0);
    assert_int_equal(load(f, k, sizeof k), -ENOMEM);
    /* Any byte of the header may be wrong: no crash, and if refused then with a message. */
    f->b.initrd = NULL;
    for (unsigned i = 0x1f1; i < 0x270; i++) {
        static const uint8_t bad[] = {0, 1, 0x7f, 0x80, 0xff};
        for (unsigned j = 0; j < sizeof bad; j++) {
            make_bzimage(k);
            k[i] = bad[j];
            load(f, k, sizeof k);
        }
    }
}

/* ---- A bzImage unpacked by us ---- */

#define PACKED_ELF 0x5000
#define PACKED_MAX (BZ_SIZE + 0x6000)

/* One LZ4 block of literals, and a match at its end that repeats the last byte 20 times. */
static size_t lz4_pack(const uint8_t *src, size_t len, uint8_t *dst)
{
    size_t lit = len - 20, n = 0;
    dst[n++] = 0xff;
    for (size_t rest = lit - 15;; rest -= 255) {
        dst[n++] = rest >= 255 ? 255 : (uint8_t)rest;
        if (rest < 255)
            break;
    }
    memcpy(dst + n, src, lit);
    n += lit;
    le16_put(dst + n, 1);
    n += 2;
    dst[n++] = 20 - 4 - 15;
    return n;
}

static size_t make_packed(uint8_t k[PACKED_MAX], bool xz)
{
    static uint8_t elf[PACKED_ELF];
    Elf64_Ehdr h = {.e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_version = 1,
                    .e_entry = 16 * MIB + 8,
                    .e_phoff = 64,
                    .e_ehsize = 64,
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 2};
    Elf64_Phdr p[2] = {
        {.p_type = PT_LOAD, .p_offset = 0x1000, .p_paddr = 16 * MIB, .p_filesz = 0x1000, .p_memsz = 0x1000},
        {.p_type = PT_LOAD, .p_offset = 0x3000, .p_paddr = 16 * MIB + 0x1800, .p_filesz = 0x800, .p_memsz = 0x4000},
    };
    memset(elf, 0xee, sizeof elf); /* what lies between and behind the segments */
    memcpy(h.e_ident, ELFMAG, 4);
    h.e_ident[EI_CLASS] = ELFCLASS64;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(elf, &h, sizeof h);
    memcpy(elf + 64, p, sizeof p);
    memset(elf + 0x1000, 0x11, 0x1000);
    memset(elf + 0x3000, 0x22, 0x800);
    make_bzimage(k);
    size_t at = (BZ_SETUP + 1) * 512, start = at;
    if (xz) { /* as Linux's build does: CRC32 as the check */
        size_t n = 0;
        assert_int_equal(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, elf, sizeof elf, k + at, &n, PACKED_MAX - at - 4), LZMA_OK);
        at += n;
    } else {
        le32_put(k + at, 0x184c2102);
        size_t n = lz4_pack(elf, sizeof elf, k + at + 8);
        le32_put(k + at + 4, (uint32_t)n);
        at += 8 + n;
    }
    le32_put(k + at, PACKED_ELF);
    at += 4;
    le32_put(k + 0x1f4, (uint32_t)(at - start + 15) / 16);
    le32_put(k + 0x248, 0);
    le32_put(k + 0x24c, (uint32_t)(at - start));
    return at;
}

static void check_unpack(struct fixture *f, bool xz)
{
    static uint8_t k[PACKED_MAX];
    size_t len = make_packed(k, xz);
    f->b.unpack = true;
    assert_int_equal(mem_set(f->mem, MIB, 0x99, RAM - MIB), 0);
    if (load(f, k, len) < 0)
        fail_msg("%s", f->err.msg);
    assert_int_equal(f->s.rip, 16 * MIB + 8);
    assert_true(f->s.efer & EFER_LMA);
    assert_int_equal(peek(f, 16 * MIB), 0x11111111);
    assert_int_equal(peek(f, 16 * MIB + 0xffc), 0x11111111);
    assert_int_equal(peek(f, 16 * MIB + 0x1000), 0); /* the gap */
    assert_int_equal(peek(f, 16 * MIB + 0x1800), 0x22222222);
    assert_int_equal(peek(f, 16 * MIB + 0x1ffc), 0x22222222);
    for (gpa_t at = 16 * MIB + 0x2000; at < 16 * MIB + 0x5800; at += 4)
        assert_int_equal(peek(f, at), 0); /* bss */
    assert_int_equal(peek(f, f->s.gpr[RSI] + 0x202), 0x53726448);
}

static void test_unpack(void **state)
{
    check_unpack(*state, false);
}

static void test_unpack_xz(void **state)
{
    check_unpack(*state, true);
}

/* Broken packed kernels are left to the guest, or refused; nothing worse. */
static void test_unpack_bad(void **state)
{
    struct fixture *f = *state;
    static uint8_t good[PACKED_MAX], k[PACKED_MAX];
    size_t len = make_packed(good, false);
    uint32_t random = 12345;
    f->b.unpack = true;
    for (unsigned i = 0; i < 800; i++) {
        if (i == 400)
            len = make_packed(good, true);
        memcpy(k, good, sizeof k);
        for (unsigned j = 0; j < 1 + i % 3; j++) {
            random = random * 1664525 + 1013904223;
            /* Mostly in the frame's header and the ELF headers, where bytes mean something. */
            size_t at =
                (BZ_SETUP + 1) * 512 + (i % 4 ? random >> 8 & 0xff : (random >> 8) % (len - (BZ_SETUP + 1) * 512));
            k[at] = (uint8_t)(random >> 24);
        }
        if (load(f, k, len) >= 0 && f->s.rip != 16 * MIB + 8)
            assert_in_range(f->s.rip, MIB, RAM);
    }
}

/* ---- ELF: PVH, vmlinux, Multiboot ---- */

#define ELF_SIZE 4096

static void make_elf64(uint8_t k[ELF_SIZE], bool note)
{
    Elf64_Ehdr h = {.e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_version = 1,
                    .e_entry = 0xffffffff81000010,
                    .e_phoff = 64,
                    .e_ehsize = 64,
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 2};
    Elf64_Phdr p[2] = {
        {.p_type = PT_LOAD,
         .p_offset = 1024,
         .p_vaddr = 0xffffffff81000000,
         .p_paddr = 2 * MIB,
         .p_filesz = 2048,
         .p_memsz = 8192},
        {.p_type = note ? PT_NOTE : PT_NULL, .p_offset = 512, .p_filesz = 20},
    };
    memset(k, 0, ELF_SIZE);
    memcpy(h.e_ident, ELFMAG, 4);
    h.e_ident[EI_CLASS] = ELFCLASS64;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(k, &h, sizeof h);
    memcpy(k + 64, p, sizeof p);
    le32_put(k + 512, 4);
    le32_put(k + 516, 4);
    le32_put(k + 520, 18);
    memcpy(k + 524, "Xen", 4);
    le32_put(k + 528, 2 * MIB + 0x20);
    memset(k + 1024, 0xc3, 2048);
}

static void test_pvh(void **state)
{
    struct fixture *f = *state;
    uint8_t k[ELF_SIZE];
    make_elf64(k, true);
    write_file(f->initrd, "ramdisk", 7);
    f->b.initrd = f->initrd;
    assert_int_equal(mem_set(f->mem, 2 * MIB, 0xee, 8192), 0);
    if (load(f, k, sizeof k) < 0)
        fail_msg("%s", f->err.msg);
    assert_int_equal(f->s.rip, 2 * MIB + 0x20);
    assert_int_equal(f->s.cr0 & (CR0_PE | CR0_PG), CR0_PE);
    gpa_t si = f->s.gpr[RBX];
    assert_int_equal(peek(f, si), 0x336ec578);
    assert_int_equal(peek(f, peek(f, peek(f, si + 0x10))), 0x646d6172); /* "ramd" */
    assert_int_equal(peek(f, si + 0x20), 0xe0000);
    assert_int_equal(peek(f, si + 0x30), 3);
    assert_int_equal(peek(f, peek(f, si + 0x28) + 16), E820_RAM);
    assert_int_equal(peek(f, 2 * MIB + 2044), 0xc3c3c3c3);
    assert_int_equal(peek(f, 2 * MIB + 2048), 0); /* bss */
}

static void test_vmlinux(void **state)
{
    struct fixture *f = *state;
    uint8_t k[ELF_SIZE];
    make_elf64(k, false);
    if (load(f, k, sizeof k) < 0)
        fail_msg("%s", f->err.msg);
    assert_int_equal(f->s.rip, 2 * MIB + 0x10); /* virtual entry, physical address */
    assert_true(f->s.efer & EFER_LMA);
    assert_int_equal(peek(f, f->s.gpr[RSI] + 0x202), 0x53726448);
}

static void test_elf_bad(void **state)
{
    struct fixture *f = *state;
    uint8_t k[ELF_SIZE];
    make_elf64(k, true);
    for (size_t len = 1; len < 1024 + 2048; len += len < 200 ? 1 : 41)
        assert_true(load(f, k, len) < 0);
    static const uint64_t absurd[] = {0,
                                      1,
                                      0x7fffffff,
                                      0xffffffff,
                                      0x100000000,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      0xffffffffffffffff,
                                      RAM - 1,
                                      RAM,
                                      0xfffffffffffff000};
    for (unsigned off = 16; off < 64 + 2 * sizeof(Elf64_Phdr); off += 4) {
        for (unsigned i = 0; i < ARRAY_SIZE(absurd); i++) {
            make_elf64(k, true);
            le64_put(k + off, absurd[i]);
            load(f, k, sizeof k);
        }
    }
    for (unsigned off = 512; off < 532; off += 4) {
        for (unsigned i = 0; i < ARRAY_SIZE(absurd); i++) {
            make_elf64(k, true);
            le32_put(k + off, (uint32_t)absurd[i]);
            load(f, k, sizeof k);
        }
    }
    make_elf64(k, true);
    le16_put(k + 18, EM_AARCH64);
    assert_int_equal(load(f, k, sizeof k), -EINVAL);
}

static void make_multiboot(uint8_t k[ELF_SIZE], uint32_t flags)
{
    memset(k, 0x90, ELF_SIZE);
    le32_put(k + 64, 0x1badb002);
    le32_put(k + 68, flags);
    le32_put(k + 72, -(0x1badb002 + flags));
    le32_put(k + 76, MIB + 64); /* header, load, load end, bss end, entry */
    le32_put(k + 80, MIB);
    le32_put(k + 84, 0);
    le32_put(k + 88, MIB + 3 * 4096);
    le32_put(k + 92, MIB + 0x200);
}

static void test_multiboot(void **state)
{
    struct fixture *f = *state;
    uint8_t k[ELF_SIZE];
    make_multiboot(k, 0x10003);
    write_file(f->initrd, "module!!", 8);
    f->b.initrd = f->initrd;
    if (load(f, k, sizeof k) < 0)
        fail_msg("%s", f->err.msg);
    assert_int_equal(f->s.gpr[RAX], 0x2badb002);
    assert_int_equal(f->s.rip, MIB + 0x200);
    assert_int_equal(peek(f, MIB + 64), 0x1badb002);
    assert_int_equal(peek(f, MIB + 4096), 0);
    gpa_t mods = peek(f, f->s.gpr[RBX] + 24);
    assert_int_equal(peek(f, mods + 4) - peek(f, mods), 8);
    assert_int_equal(peek(f, peek(f, f->s.gpr[RBX] + 48)), 20);
}

static void test_multiboot_bad(void **state)
{
    struct fixture *f = *state;
    uint8_t k[ELF_SIZE];
    static const uint32_t absurd[] = {0, 1, 0x500, 0x7fffffff, 0xffffffff, 0xfffff000, RAM};
    make_multiboot(k, 0x10013); /* asks for what is not there */
    assert_int_equal(load(f, k, sizeof k), -EINVAL);
    make_multiboot(k, 3);
    assert_int_equal(load(f, k, sizeof k), -EINVAL);
    for (unsigned off = 76; off <= 92; off += 4) {
        for (unsigned i = 0; i < ARRAY_SIZE(absurd); i++) {
            make_multiboot(k, 0x10003);
            le32_put(k + off, absurd[i]);
            load(f, k, sizeof k);
        }
    }
    make_multiboot(k, 0x10003);
    for (size_t len = 1; len < 96; len++)
        load(f, k, len);
}

static void test_not_a_kernel(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(load(f, "#!/bin/sh\n", 10), -EINVAL);
    assert_int_equal(load(f, "", 0), -EINVAL);
    f->b.kernel = f->dir;
    assert_int_equal(loader_load(&f->b, &f->s, &(struct err){0}), -EINVAL);
    f->b.kernel = "/nonexistent/vmlinuz";
    assert_int_equal(loader_load(&f->b, &f->s, &(struct err){0}), -ENOENT);
}

/* A guest with hardly any memory: refused, not overrun. */
static void test_tiny_memory(void **state)
{
    struct fixture *f = *state;
    uint8_t k[ELF_SIZE];
    for (uint64_t size = PAGE_SIZE; size <= 2 * MIB; size *= 2) {
        struct mem *m;
        assert_int_equal(mem_new(size, 3 * GIB, &m, NULL), 0);
        struct boot_info old = f->b;
        f->b.mem = m;
        f->b.n_e820 = e820_of_ram(m, f->e820);
        make_elf64(k, true);
        assert_true(load(f, k, sizeof k) < 0);
        make_multiboot(k, 0x10003);
        load(f, k, sizeof k);
        f->b = old;
        mem_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bzimage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bzimage_32bit_and_small_ram, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bzimage_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unpack, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unpack_xz, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unpack_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pvh, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vmlinux, setup, teardown),
        cmocka_unit_test_setup_teardown(test_elf_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(test_multiboot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_multiboot_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_a_kernel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tiny_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
