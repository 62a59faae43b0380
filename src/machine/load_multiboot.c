/*
 * Multiboot 1 (The Multiboot Specification 0.6.96): ELF segments, or the addresses in the header where its flag 16 says
 * so. The initrd is passed as the one module. Entered in 32-bit protected mode.
 */
#include <errno.h>

#include "machine/load.h"

#define MB_MAGIC 0x1badb002
#define MB_BOOT_MAGIC 0x2badb002
#define MB_ADDRESSES BIT(16)
#define MB_NAME "Lodge"

enum {
    INFO_MEMORY = 1,
    INFO_CMDLINE = 4,
    INFO_MODS = 8,
    INFO_MMAP = 64,
    INFO_LOADER = 512,
    INFO_SIZE = 120,
};

/* Offset of the header, or -1. */
static int find_header(const struct load *l)
{
    for (unsigned off = 0; off + 12 <= LOAD_HEAD && off + 12 <= l->kernel.size; off += 4)
        if (load_head32(l, off) == MB_MAGIC &&
            load_head32(l, off) + load_head32(l, off + 4) + load_head32(l, off + 8) == 0)
            return (int)off;
    return -1;
}

bool multiboot_is(const struct load *l)
{
    return find_header(l) >= 0;
}

/* The "a.out kludge": the header says where the file's bytes go. */
static int load_by_addresses(struct load *l, unsigned off, gpa_t *ret_entry, struct err *err)
{
    uint32_t header = load_head32(l, off + 12), start = load_head32(l, off + 16), load_end = load_head32(l, off + 20);
    uint32_t bss_end = load_head32(l, off + 24);

    if (header < start || header - start > off)
        return err_set(err, -EINVAL, "kernel %s: broken Multiboot header: it lies before the image", l->kernel.path);
    uint64_t file_off = off - (header - start);
    uint64_t len = load_end ? (uint64_t)load_end - start : l->kernel.size - file_off;
    if (load_end && load_end < start)
        return err_set(err, -EINVAL, "kernel %s: broken Multiboot header: the image ends before it starts",
                       l->kernel.path);
    uint64_t end = MAX(start + len, (uint64_t)bss_end);
    if (start < LOADER_LOW_END || !load_is_ram(l, start, end - start))
        return err_set(err, -ENOMEM, "kernel %s: 0x%x to 0x%llx is not free guest memory (%llu MiB)", l->kernel.path,
                       start, (unsigned long long)end, (unsigned long long)(l->b->mem->ram_size / MIB));
    int r = load_to_guest(l->b->mem, &l->kernel, "the image", file_off, len, start, err);
    if (r < 0)
        return r;
    if (end > start + len && mem_set(l->b->mem, start + len, 0, end - start - len) < 0)
        return err_set(err, -ENOMEM, "kernel %s: does not fit into guest memory", l->kernel.path);
    l->kernel_start = start;
    l->kernel_end = end;
    *ret_entry = load_head32(l, off + 28);
    return 0;
}

static int put_info(const struct load *l, gpa_t initrd, uint64_t initrd_size, struct err *err)
{
    uint8_t info[INFO_SIZE + 16 + sizeof MB_NAME] = {0}, map[24 * E820_MAX] = {0};
    const struct boot_info *b = l->b;
    unsigned n = MIN(b->n_e820, (unsigned)E820_MAX), mods = INFO_SIZE, name = INFO_SIZE + 16;
    uint64_t upper = b->mem->low_size > MIB ? b->mem->low_size - MIB : 0;

    le32_put(info, INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_LOADER | (initrd_size ? INFO_MODS : 0));
    le32_put(info + 4, 639);
    le32_put(info + 8, (uint32_t)(upper / KIB));
    le32_put(info + 16, LOAD_CMDLINE);
    if (initrd_size) {
        le32_put(info + 20, 1);
        le32_put(info + 24, LOAD_START_INFO + mods);
        le32_put(info + mods, (uint32_t)initrd);
        le32_put(info + mods + 4, (uint32_t)(initrd + initrd_size));
        le32_put(info + mods + 8, LOAD_CMDLINE + LOAD_CMDLINE_MAX - 1); /* an empty string */
    }
    le32_put(info + 44, 24 * n);
    le32_put(info + 48, LOAD_BOOT_PARAMS);
    le32_put(info + 64, LOAD_START_INFO + name);
    memcpy(info + name, MB_NAME, sizeof MB_NAME);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = map + 24 * i;
        le32_put(e, 20); /* the entry's size without this field */
        le64_put(e + 4, b->e820[i].base);
        le64_put(e + 12, b->e820[i].size);
        le32_put(e + 20, b->e820[i].type);
    }
    if (mem_write(b->mem, LOAD_START_INFO, info, sizeof info) < 0 ||
        mem_write(b->mem, LOAD_BOOT_PARAMS, map, 24 * n) < 0 ||
        mem_set(b->mem, LOAD_CMDLINE + LOAD_CMDLINE_MAX - 1, 0, 1) < 0)
        return err_set(err, -ENOMEM, "%s: the guest has too little memory to start a kernel", l->kernel.path);
    return 0;
}

int multiboot_load(struct load *l, struct cpu_state *s, struct err *err)
{
    int off = find_header(l);
    gpa_t entry = 0, initrd;
    uint64_t initrd_size;
    int r;

    if (off < 0)
        return err_set(err, -EINVAL, "kernel %s: no Multiboot header", l->kernel.path);
    uint32_t flags = load_head32(l, (unsigned)off + 4);
    if (flags & 0xfff8)
        return err_set(err, -EINVAL, "kernel %s: demands Multiboot features that are not there (flags 0x%x)",
                       l->kernel.path, flags);
    if (flags & MB_ADDRESSES) {
        r = load_by_addresses(l, (unsigned)off, &entry, err);
    } else if (elf_is(l)) {
        struct elf_image e;
        r = elf_parse(l, &e, err);
        if (r >= 0)
            r = elf_load(l, &e, err);
        if (r >= 0)
            entry = e.entry;
    } else {
        r = err_set(err, -EINVAL, "kernel %s: a Multiboot header without addresses in a file that is not ELF",
                    l->kernel.path);
    }
    if (r >= 0)
        r = load_initrd(l, 4 * GIB, &initrd, &initrd_size, err);
    if (r >= 0)
        r = load_cmdline(l, LOAD_CMDLINE_MAX - 2, err);
    if (r >= 0)
        r = put_info(l, initrd, initrd_size, err);
    if (r >= 0)
        r = load_enter_protected(l, s, entry, err);
    s->gpr[RAX] = MB_BOOT_MAGIC;
    s->gpr[RBX] = LOAD_START_INFO;
    return r;
}
