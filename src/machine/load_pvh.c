/*
 * ELF kernels: segments at their physical addresses; entered through the PVH note (Xen's HVM direct boot ABI,
 * docs/misc/pvh.pandoc in Xen) in 32-bit protected mode, or, for a Linux vmlinux without one, at its entry point in
 * long mode with a zero page.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "machine/load.h"

#define PHDRS_MAX 64
#define NOTES_MAX (64 * KIB)
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define PVH_MAGIC 0x336ec578

/* One program header, of either class. */
struct segment {
    uint32_t type;
    uint64_t offset, vaddr, paddr, filesz, memsz;
};

bool elf_is(const struct load *l)
{
    return !memcmp(l->head, ELFMAG, SELFMAG);
}

static int bad(const struct load *l, struct err *err, const char *what)
{
    return err_set(err, -EINVAL, "kernel %s: broken ELF file: %s", l->kernel.path, what);
}

static int read_segment(const struct load *l, const struct elf_image *e, uint64_t phoff, unsigned i,
                        struct segment *ret, struct err *err)
{
    if (e->is64) {
        Elf64_Phdr p;
        int r = load_pread(&l->kernel, &p, sizeof p, phoff + i * sizeof p, err);
        *ret = (struct segment){p.p_type, p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz};
        return r;
    }
    Elf32_Phdr p;
    int r = load_pread(&l->kernel, &p, sizeof p, phoff + i * sizeof p, err);
    *ret = (struct segment){p.p_type, p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz};
    return r;
}

static int read_header(const struct load *l, struct elf_image *e, uint64_t *ret_phoff, unsigned *ret_n, struct err *err)
{
    unsigned machine, type, phentsize;

    if (l->kernel.size < sizeof(Elf64_Ehdr))
        return bad(l, err, "the file is cut off");
    if (l->head[EI_DATA] != ELFDATA2LSB)
        return bad(l, err, "not little-endian");
    e->is64 = l->head[EI_CLASS] == ELFCLASS64;
    if (e->is64) {
        Elf64_Ehdr h;
        memcpy(&h, l->head, sizeof h);
        machine = h.e_machine, type = h.e_type, phentsize = h.e_phentsize;
        *ret_phoff = h.e_phoff, *ret_n = h.e_phnum, e->entry = h.e_entry;
        if (phentsize != sizeof(Elf64_Phdr) && h.e_phnum)
            return bad(l, err, "program headers of a wrong size");
    } else {
        Elf32_Ehdr h;
        memcpy(&h, l->head, sizeof h);
        machine = h.e_machine, type = h.e_type, phentsize = h.e_phentsize;
        *ret_phoff = h.e_phoff, *ret_n = h.e_phnum, e->entry = h.e_entry;
        if (phentsize != sizeof(Elf32_Phdr) && h.e_phnum)
            return bad(l, err, "program headers of a wrong size");
    }
    if (machine != EM_X86_64 && machine != EM_386)
        return err_set(err, -EINVAL, "kernel %s: for another processor (ELF machine %u)", l->kernel.path, machine);
    if (type != ET_EXEC && type != ET_DYN)
        return bad(l, err, "not an executable");
    if (!*ret_n || *ret_n > PHDRS_MAX)
        return bad(l, err, "no program headers, or too many");
    if (*ret_phoff > l->kernel.size)
        return bad(l, err, "the file is cut off");
    return 0;
}

/* Looks for the PVH entry among the notes of one segment. */
static int read_notes(const struct load *l, struct elf_image *e, const struct segment *s, struct err *err)
{
    if (s->filesz > NOTES_MAX)
        return 0;
    autofree uint8_t *buf = xcalloc(1, s->filesz + 1);
    int r = load_pread(&l->kernel, buf, s->filesz, s->offset, err);
    if (r < 0)
        return r;
    for (uint64_t at = 0; at + 12 <= s->filesz;) {
        uint64_t namesz = le32_get(buf + at), descsz = le32_get(buf + at + 4);
        uint64_t name = at + 12, desc = name + ALIGN_UP(namesz, 4ull), next = desc + ALIGN_UP(descsz, 4ull);
        if (desc + descsz > s->filesz)
            break;
        if (le32_get(buf + at + 8) == XEN_ELFNOTE_PHYS32_ENTRY && namesz == 4 && !memcmp(buf + name, "Xen", 4) &&
            descsz >= 4) {
            e->has_pvh = true;
            e->pvh_entry = le32_get(buf + desc);
        }
        at = next;
    }
    return 0;
}

int elf_parse(struct load *l, struct elf_image *e, struct err *err)
{
    uint64_t phoff;
    unsigned n;

    *e = (struct elf_image){.start = UINT64_MAX};
    int r = read_header(l, e, &phoff, &n, err);
    if (r < 0)
        return r;
    uint64_t entry = e->entry;
    for (unsigned i = 0; i < n; i++) {
        struct segment s;
        r = read_segment(l, e, phoff, i, &s, err);
        if (r < 0)
            return r;
        if (s.type == PT_NOTE) {
            r = read_notes(l, e, &s, err);
            if (r < 0)
                return r;
        }
        if (s.type != PT_LOAD || !s.memsz)
            continue;
        if (s.filesz > s.memsz || s.paddr + s.memsz < s.paddr)
            return bad(l, err, "a segment with impossible sizes");
        if (s.offset > l->kernel.size || s.filesz > l->kernel.size - s.offset)
            return err_set(
                err, -EINVAL, "kernel %s: the file is cut off: a segment should end at byte %llu, the file has %llu",
                l->kernel.path, (unsigned long long)(s.offset + s.filesz), (unsigned long long)l->kernel.size);
        if (!load_is_ram(l, s.paddr, s.memsz))
            return err_set(err, -ENOMEM,
                           "kernel %s: a segment at 0x%llx, %llu bytes, is not in guest memory (%llu MiB)",
                           l->kernel.path, (unsigned long long)s.paddr, (unsigned long long)s.memsz,
                           (unsigned long long)(l->b->mem->ram_size / MIB));
        if (s.paddr < MIB && s.paddr < LOADER_LOW_END && s.paddr + s.memsz > LOADER_LOW_START)
            return err_set(err, -EINVAL,
                           "kernel %s: a segment at 0x%llx is in memory that the loader needs (below 0x%x)",
                           l->kernel.path, (unsigned long long)s.paddr, LOADER_LOW_END);
        e->start = MIN(e->start, s.paddr);
        e->end = MAX(e->end, s.paddr + s.memsz);
        if (entry - s.vaddr < s.memsz)
            e->entry = entry - s.vaddr + s.paddr;
    }
    if (e->start >= e->end)
        return bad(l, err, "nothing to load");
    return 0;
}

int elf_load(struct load *l, const struct elf_image *e, struct err *err)
{
    struct elf_image again;
    uint64_t phoff;
    unsigned n;
    int r = read_header(l, &again, &phoff, &n, err);

    l->kernel_start = e->start;
    l->kernel_end = e->end;
    for (unsigned i = 0; r >= 0 && i < n; i++) {
        struct segment s;
        r = read_segment(l, e, phoff, i, &s, err);
        if (r < 0 || s.type != PT_LOAD || !s.memsz)
            continue;
        r = load_to_guest(l->b->mem, &l->kernel, "a segment", s.offset, s.filesz, s.paddr, err);
        /* RAM is zero when new; at a reset it is not. */
        if (r >= 0 && s.memsz > s.filesz && mem_set(l->b->mem, s.paddr + s.filesz, 0, s.memsz - s.filesz) < 0)
            r = err_set(err, -ENOMEM, "kernel %s: a segment does not fit into guest memory", l->kernel.path);
    }
    return r;
}

int pvh_load(struct load *l, const struct elf_image *e, struct cpu_state *s, struct err *err)
{
    uint8_t info[0x38] = {0}, module[0x20] = {0}, map[24 * E820_MAX] = {0};
    const struct boot_info *b = l->b;
    gpa_t initrd;
    uint64_t initrd_size;

    int r = elf_load(l, e, err);
    if (r >= 0)
        r = load_initrd(l, 4 * GIB, &initrd, &initrd_size, err);
    if (r >= 0)
        r = load_cmdline(l, LOAD_CMDLINE_MAX - 1, err);
    if (r < 0)
        return r;
    unsigned n = MIN(b->n_e820, (unsigned)E820_MAX);
    le32_put(info, PVH_MAGIC);
    le32_put(info + 4, 1);
    if (initrd_size) {
        le32_put(info + 0xc, 1);
        le64_put(info + 0x10, LOAD_START_INFO + sizeof info);
        le64_put(module, initrd);
        le64_put(module + 8, initrd_size);
    }
    le64_put(info + 0x18, LOAD_CMDLINE);
    le64_put(info + 0x20, b->rsdp);
    le64_put(info + 0x28, LOAD_BOOT_PARAMS);
    le32_put(info + 0x30, n);
    for (unsigned i = 0; i < n; i++) {
        le64_put(map + 24 * i, b->e820[i].base);
        le64_put(map + 24 * i + 8, b->e820[i].size);
        le32_put(map + 24 * i + 16, b->e820[i].type);
    }
    if (mem_write(b->mem, LOAD_START_INFO, info, sizeof info) < 0 ||
        mem_write(b->mem, LOAD_START_INFO + sizeof info, module, sizeof module) < 0 ||
        mem_write(b->mem, LOAD_BOOT_PARAMS, map, 24 * n) < 0)
        return err_set(err, -ENOMEM, "%s: the guest has too little memory to start a kernel", l->kernel.path);
    r = load_enter_protected(l, s, e->pvh_entry, err);
    s->gpr[RBX] = LOAD_START_INFO;
    return r;
}

int vmlinux_load(struct load *l, const struct elf_image *e, struct cpu_state *s, struct err *err)
{
    gpa_t initrd;
    uint64_t initrd_size;

    int r = elf_load(l, e, err);
    if (r >= 0)
        r = load_initrd(l, 0x80000000, &initrd, &initrd_size, err);
    if (r >= 0)
        r = load_cmdline(l, 2047, err);
    if (r >= 0)
        r = linux_boot_params(l, NULL, 0, initrd, initrd_size, err);
    if (r >= 0)
        r = load_enter_long(l, s, e->entry, err);
    s->gpr[RSI] = LOAD_BOOT_PARAMS;
    return r;
}
