/*
 * A bzImage whose kernel is unpacked here instead of by the guest: for engines that run guest code slowly. The kernel
 * then stands at the address it was linked for, without KASLR. Only LZ4 and XZ (what Debian uses), and only where
 * everything fits; else the guest does it.
 *
 * Unpacked straight into guest RAM: the ELF file so that its first segment falls into place, then the other segments
 * are moved down.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "machine/load.h"
#include "machine/lz4.h"
#include "machine/xz.h"

#define PHDRS_MAX 16
#define UNPACKED_MAX (512 * MIB)

/* How kernels are packed. `unpack` stops early when the room is full: the bytes written, or -errno. */
static const struct packing {
    const char *magic;
    unsigned len;
    long (*unpack)(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap);
} packings[] = {{"\x02\x21\x4c\x18", 4, lz4_legacy}, {XZ_MAGIC, sizeof XZ_MAGIC, xz_stream}};

struct image {
    const struct packing *packing;
    Elf64_Ehdr head;
    Elf64_Phdr load[PHDRS_MAX];
    unsigned n;
    gpa_t base; /* where the ELF file's first byte goes */
    gpa_t start, end;
    uint64_t size; /* of the unpacked file */
};

/* Headers of the packed ELF file. False: not one that we can place. */
static bool parse(const struct load *l, const uint8_t *packed, uint64_t len, struct image *i)
{
    uint8_t head[sizeof i->head + PHDRS_MAX * sizeof(Elf64_Phdr)];
    Elf64_Phdr p;

    if (i->packing->unpack(packed, len, head, sizeof head) != (long)sizeof head)
        return false;
    memcpy(&i->head, head, sizeof i->head);
    if (memcmp(i->head.e_ident, ELFMAG, SELFMAG) || i->head.e_ident[EI_CLASS] != ELFCLASS64 ||
        i->head.e_machine != EM_X86_64 || i->head.e_phoff != sizeof i->head || i->head.e_phentsize != sizeof p ||
        !i->head.e_phnum || i->head.e_phnum > PHDRS_MAX)
        return false;
    i->start = UINT64_MAX;
    for (unsigned k = 0; k < i->head.e_phnum; k++) {
        memcpy(&p, head + sizeof i->head + k * sizeof p, sizeof p);
        if (p.p_type != PT_LOAD || !p.p_memsz)
            continue;
        if (p.p_filesz > p.p_memsz || p.p_memsz > UNPACKED_MAX || p.p_paddr > 4 * GIB || p.p_offset > i->size ||
            p.p_filesz > i->size - p.p_offset)
            return false;
        /* Segments in ascending order, moving down: a move never overwrites what is still to be moved. */
        if (i->n && (p.p_offset < i->load[i->n - 1].p_offset + i->load[i->n - 1].p_filesz || p.p_paddr < i->end))
            return false;
        if (!i->n) {
            if (p.p_paddr < p.p_offset + MIB)
                return false;
            i->base = p.p_paddr - p.p_offset;
        }
        if (i->base + p.p_offset < p.p_paddr)
            return false;
        i->load[i->n++] = p;
        i->start = MIN(i->start, p.p_paddr);
        i->end = MAX(i->end, p.p_paddr + p.p_memsz);
    }
    return i->n && i->head.e_entry >= i->start && i->head.e_entry < i->end && load_is_ram(l, i->base, i->size) &&
           load_is_ram(l, i->start, i->end - i->start);
}

static int place(struct load *l, const uint8_t *packed, uint64_t len, const struct image *i)
{
    struct mem *m = l->b->mem;
    struct iovec iov;
    unsigned n = 0;
    uint64_t whole = MAX(i->size, i->end - i->base);

    if (mem_iov(m, i->base, whole, true, &iov, &n, 1) < 0)
        return -EFAULT;
    uint8_t *host = iov.iov_base;
    long got = i->packing->unpack(packed, len, host, i->size);
    if (got != (long)i->size)
        return -EINVAL;
    gpa_t filled = i->start;
    for (unsigned k = 0; k < i->n; k++) {
        const Elf64_Phdr *p = &i->load[k];
        memmove(host + (p->p_paddr - i->base), host + p->p_offset, p->p_filesz);
        memset(host + (filled - i->base), 0, p->p_paddr - filled);
        filled = p->p_paddr + p->p_filesz;
        /* Up to the next segment's old place is bss or leftover: zeroed with the next round's gap, or below. */
    }
    gpa_t used = MAX(i->base + i->size, i->end), tail = MIN(ALIGN_UP(filled, PAGE_SIZE), used);
    memset(host + (filled - i->base), 0, tail - filled);
    mem_wrote(m, i->base, whole);
    /* The ELF headers before the kernel, and symbols and relocations after it, are nobody's any more. */
    gpa_t head = ALIGN_UP(i->base, PAGE_SIZE), tail_end = ALIGN_DOWN(used, PAGE_SIZE);
    int r = head < i->start ? mem_discard(m, head, ALIGN_DOWN(i->start, PAGE_SIZE) - head) : 0;
    if (r >= 0 && tail < tail_end)
        r = mem_discard(m, tail, tail_end - tail);
    memset(host + (MAX(tail, tail_end) - i->base), 0, used - MAX(tail, tail_end));
    return r;
}

bool unpack_linux(struct load *l, uint64_t code_off, gpa_t *ret_entry)
{
    uint64_t off = le32_get(l->head + 0x248), len = le32_get(l->head + 0x24c);
    struct image i = {.n = 0};
    bool done = false;

    off += code_off;
    if (le16_get(l->head + 0x206) < 0x208 || len < 64 || off > l->kernel.size || len > l->kernel.size - off)
        return false;
    autofree uint8_t *packed = malloc(len); /* the file has as much */
    if (!packed || fd_pread_full(l->kernel.fd, packed, len, (off_t)off) < 0)
        return false;
    i.size = le32_get(packed + len - 4); /* appended by the kernel's build */
    for (unsigned k = 0; k < ARRAY_SIZE(packings); k++)
        if (!memcmp(packed, packings[k].magic, packings[k].len))
            i.packing = &packings[k];
    if (i.size && i.size <= UNPACKED_MAX && i.packing && parse(l, packed, len - 4, &i) &&
        place(l, packed, len - 4, &i) >= 0) {
        l->kernel_start = i.start;
        l->kernel_end = i.end;
        *ret_entry = i.head.e_entry;
        done = true;
    }
    return done;
}
