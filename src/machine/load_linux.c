/*
 * Linux bzImage (Documentation/arch/x86/boot.rst in Linux): the protected-mode part goes to its preferred address, the
 * setup header into the zero page; entered in long mode where the kernel offers that (XLF_KERNEL_64), else in 32-bit
 * protected mode.
 */
#include <errno.h>

#include "machine/load.h"

/* Offsets in the file and in the zero page are the same. */
enum {
    BP_ACPI_RSDP = 0x70,
    BP_EXT_RAMDISK_IMAGE = 0xc0,
    BP_EXT_RAMDISK_SIZE = 0xc4,
    BP_E820_ENTRIES = 0x1e8,
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP = 0x200,
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_HEAP_END = 0x224,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END_MAX = 0x290,
    BP_E820_TABLE = 0x2d0,
    BP_E820_MAX = 128,
};

bool linux_is(const struct load *l)
{
    return load_head16(l, HDR_BOOT_FLAG) == 0xaa55 && load_head32(l, HDR_MAGIC) == 0x53726448;
}

int linux_boot_params(const struct load *l, const uint8_t *header, unsigned header_len, gpa_t initrd,
                      uint64_t initrd_size, struct err *err)
{
    uint8_t bp[4096] = {0};
    const struct boot_info *b = l->b;

    if (header) {
        memcpy(bp + HDR_SETUP_SECTS, header, MIN(header_len, (unsigned)(HDR_END_MAX - HDR_SETUP_SECTS)));
    } else {
        le16_put(bp + HDR_BOOT_FLAG, 0xaa55);
        le32_put(bp + HDR_MAGIC, 0x53726448);
        le16_put(bp + HDR_VERSION, 0x20f);
        bp[HDR_LOADFLAGS] = 1;
    }
    bp[HDR_LOADER] = 0xff;
    le32_put(bp + HDR_CMD_LINE_PTR, LOAD_CMDLINE);
    le32_put(bp + HDR_RAMDISK_IMAGE, (uint32_t)initrd);
    le32_put(bp + BP_EXT_RAMDISK_IMAGE, (uint32_t)(initrd >> 32));
    le32_put(bp + HDR_RAMDISK_SIZE, (uint32_t)initrd_size);
    le32_put(bp + BP_EXT_RAMDISK_SIZE, (uint32_t)(initrd_size >> 32));
    le64_put(bp + BP_ACPI_RSDP, b->rsdp);
    unsigned n = MIN(b->n_e820, (unsigned)BP_E820_MAX);
    bp[BP_E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = bp + BP_E820_TABLE + 20 * i;
        le64_put(e, b->e820[i].base);
        le64_put(e + 8, b->e820[i].size);
        le32_put(e + 16, b->e820[i].type);
    }
    if (mem_write(b->mem, LOAD_BOOT_PARAMS, bp, sizeof bp) < 0)
        return err_set(err, -ENOMEM, "%s: the guest has too little memory to start Linux", l->kernel.path);
    return 0;
}

/* The kernel is in memory: initrd, command line, zero page, CPU state. */
static int enter(struct load *l, struct cpu_state *s, bool is64, gpa_t entry, struct err *err)
{
    gpa_t initrd;
    uint64_t initrd_size;
    int r = load_initrd(l, MIN(load_head32(l, HDR_INITRD_ADDR_MAX) + 1ull, 4 * GIB), &initrd, &initrd_size, err);
    if (r < 0)
        return r;
    r = load_cmdline(l, load_head32(l, HDR_CMDLINE_SIZE), err);
    if (r < 0)
        return r;
    r = linux_boot_params(l, l->head + HDR_SETUP_SECTS, 0x202u + l->head[0x201] - HDR_SETUP_SECTS, initrd, initrd_size,
                          err);
    if (r < 0)
        return r;
    r = is64 ? load_enter_long(l, s, entry, err) : load_enter_protected(l, s, entry, err);
    s->gpr[RSI] = LOAD_BOOT_PARAMS;
    return r;
}

int linux_load(struct load *l, struct cpu_state *s, struct err *err)
{
    const char *path = l->kernel.path;
    unsigned version = load_head16(l, HDR_VERSION);
    unsigned setup = l->head[HDR_SETUP_SECTS] ? l->head[HDR_SETUP_SECTS] : 4;
    uint64_t code_off = (setup + 1) * 512ull;

    if (version < 0x206)
        return err_set(err, -EINVAL, "kernel %s: Linux boot protocol %u.%02u is too old (2.06, Linux 2.6.22, or newer)",
                       path, version >> 8, version & 0xff);
    if (!(l->head[HDR_LOADFLAGS] & 1))
        return err_set(err, -EINVAL, "kernel %s: a zImage, not a bzImage", path);
    if (l->kernel.size <= code_off)
        return err_set(err, -EINVAL, "kernel %s: the file is cut off: its code starts at byte %llu, the file has %llu",
                       path, (unsigned long long)code_off, (unsigned long long)l->kernel.size);
    uint64_t code_size = load_head32(l, HDR_SYSSIZE) * 16ull;
    /* A signature may follow the code, and the size is rounded up to 16 bytes: only a shorter file is wrong. */
    if (code_size > l->kernel.size - code_off && code_size - (l->kernel.size - code_off) >= 16)
        return err_set(err, -EINVAL, "kernel %s: the file is cut off: it should have %llu bytes and has %llu", path,
                       (unsigned long long)(code_off + code_size), (unsigned long long)l->kernel.size);
    code_size = l->kernel.size - code_off;

    gpa_t entry;
    if (l->b->unpack && (load_head16(l, HDR_XLOADFLAGS) & 1) && unpack_linux(l, code_off, &entry))
        return enter(l, s, true, entry, err);
    uint64_t start = MIB, need = code_size;
    if (version >= 0x20a) {
        uint64_t pref = le64_get(l->head + HDR_PREF_ADDRESS);
        need = MAX(need, (uint64_t)load_head32(l, HDR_INIT_SIZE));
        if (pref >= MIB && pref < 4 * GIB && need <= 4 * GIB &&
            (load_is_ram(l, pref, need) || !l->head[HDR_RELOCATABLE]))
            start = pref;
    }
    if (need > 4 * GIB || !load_is_ram(l, start, need))
        return err_set(err, -ENOMEM, "kernel %s: needs %llu MiB at %llu MiB; the guest has %llu MiB of memory", path,
                       (unsigned long long)((need + MIB - 1) / MIB), (unsigned long long)(start / MIB),
                       (unsigned long long)(l->b->mem->ram_size / MIB));
    l->kernel_start = start;
    l->kernel_end = start + need;
    int r = load_to_guest(l->b->mem, &l->kernel, "the kernel", code_off, code_size, start, err);
    if (r < 0)
        return r;

    bool is64 = version >= 0x20c && (load_head16(l, HDR_XLOADFLAGS) & 1);
    return enter(l, s, is64, is64 ? start + 0x200 : start, err);
}
