/*
 * The loaders' common part: files into guest RAM, places for them, the CPU states in which kernels are entered, and the
 * choice of the kind. Main thread, before vCPUs run.
 */
#include "machine/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "machine/load.h"

int load_open(const char *what, const char *path, struct load_file *ret, struct err *err)
{
    struct stat st;
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_errno(err, -errno, "%s %s", what, path);
    if (fstat(fd, &st) < 0)
        return err_errno(err, -errno, "%s %s", what, path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "%s %s: not a regular file", what, path);
    if (!st.st_size)
        return err_set(err, -EINVAL, "%s %s: the file is empty", what, path);
    *ret = (struct load_file){.path = path, .size = (uint64_t)st.st_size, .fd = fd_take(fd)};
    return 0;
}

static int check_range(const struct load_file *f, const char *part, uint64_t off, uint64_t len, struct err *err)
{
    if (off > f->size || len > f->size - off)
        return err_set(err, -EINVAL, "%s: the file is cut off: %s should end at byte %llu, the file has %llu", f->path,
                       part, (unsigned long long)(off + len), (unsigned long long)f->size);
    return 0;
}

int load_pread(const struct load_file *f, void *buf, uint64_t len, uint64_t off, struct err *err)
{
    int r = check_range(f, "its headers", off, len, err);
    if (r < 0)
        return r;
    r = fd_pread_full(f->fd, buf, len, (off_t)off);
    return r < 0 ? err_errno(err, r, "%s: cannot read", f->path) : 0;
}

/*
 * From the file's pages into those of the guest's memfd: cheaper by a third than reading through our mapping, which
 * faults page by page. A file that gets shorter meanwhile gives EFAULT here, not SIGBUS.
 */
static int copy_to_range(const struct mem *m, const struct mem_range *r, const struct load_file *f, uint64_t off,
                         uint64_t len, gpa_t gpa)
{
    uint64_t map_off = ALIGN_DOWN(off, PAGE_SIZE), skip = off - map_off;
    uint8_t *map = mmap(NULL, len + skip, PROT_READ, MAP_PRIVATE | MAP_POPULATE, f->fd, (off_t)map_off);
    int rc = 0;

    if (map == MAP_FAILED)
        return fd_pread_full(f->fd, r->host + (gpa - r->base), len, (off_t)off);
    for (uint64_t done = 0; done < len;) {
        ssize_t n = pwrite(m->fd, map + skip + done, len - done, (off_t)(r->fd_offset + (gpa - r->base) + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = n < 0 ? -errno : -EIO;
            break;
        }
        done += (uint64_t)n;
    }
    munmap(map, len + skip);
    return rc;
}

int load_to_guest(struct mem *m, const struct load_file *f, const char *part, uint64_t off, uint64_t len, gpa_t gpa,
                  struct err *err)
{
    struct iovec iov[MEM_RANGES_MAX];
    unsigned n = 0;
    int r = check_range(f, part, off, len, err);

    if (r < 0)
        return r;
    if (gpa + len < gpa || mem_iov(m, gpa, len, true, iov, &n, MEM_RANGES_MAX) < 0)
        return err_set(err, -ENOMEM,
                       "%s: %s does not fit into guest memory (%llu bytes at 0x%llx; the guest has %llu MiB)", f->path,
                       part, (unsigned long long)len, (unsigned long long)gpa, (unsigned long long)(m->ram_size / MIB));
    for (uint64_t done = 0; done < len;) {
        const struct mem_range *range = mem_find(m, gpa + done);
        uint64_t piece = MIN(len - done, range->size - (gpa + done - range->base));
        r = copy_to_range(m, range, f, off + done, piece, gpa + done);
        if (r < 0)
            return err_errno(err, r, "%s: cannot read", f->path);
        done += piece;
    }
    mem_wrote(m, gpa, len);
    return 0;
}

bool load_is_ram(const struct load *l, gpa_t gpa, uint64_t len)
{
    while (len) {
        uint64_t have = 0;
        for (unsigned i = 0; i < l->b->n_e820; i++) {
            const struct e820_entry *e = &l->b->e820[i];
            if (e->type == E820_RAM && gpa - e->base < e->size)
                have = e->size - (gpa - e->base);
        }
        if (!have)
            return false;
        uint64_t n = MIN(have, len);
        gpa += n;
        len -= n;
    }
    return true;
}

gpa_t load_find_space(const struct load *l, uint64_t size, uint64_t align, gpa_t min, gpa_t max)
{
    gpa_t best = 0;
    for (unsigned i = 0; i < l->b->n_e820; i++) {
        const struct e820_entry *e = &l->b->e820[i];
        /* Two pieces of each RAM area: above and below the kernel. */
        for (int above = 0; e->type == E820_RAM && above < 2; above++) {
            gpa_t from = MAX(e->base, min), to = MIN(e->base + e->size, max);
            if (above)
                from = MAX(from, l->kernel_end);
            else if (l->kernel_end > l->kernel_start)
                to = MIN(to, l->kernel_start);
            if (to <= from || to - from < size)
                continue;
            gpa_t at = ALIGN_DOWN(to - size, align);
            if (at >= from && at > best)
                best = at;
        }
    }
    return best;
}

int load_initrd(const struct load *l, gpa_t max, gpa_t *ret_gpa, uint64_t *ret_size, struct err *err)
{
    struct load_file f = {.fd = -1};
    *ret_gpa = 0;
    *ret_size = 0;
    if (!l->b->initrd)
        return 0;
    int r = load_open("initrd", l->b->initrd, &f, err);
    if (r < 0)
        return r;
    gpa_t at = f.size <= max ? load_find_space(l, f.size, PAGE_SIZE, MIB, max) : 0;
    if (!at)
        r = err_set(err, -ENOMEM, "initrd %s: %llu MiB do not fit beside the kernel into guest memory (%llu MiB)",
                    f.path, (unsigned long long)((f.size + MIB - 1) / MIB),
                    (unsigned long long)(l->b->mem->ram_size / MIB));
    else
        r = load_to_guest(l->b->mem, &f, "the initrd", 0, f.size, at, err);
    close(f.fd);
    if (r < 0)
        return r;
    *ret_gpa = at;
    *ret_size = f.size;
    return 0;
}

static int low_write(const struct load *l, gpa_t gpa, const void *buf, uint64_t len, struct err *err)
{
    if (mem_write(l->b->mem, gpa, buf, len) < 0)
        return err_set(err, -ENOMEM, "%s: the guest has too little memory (%llu KiB) to start a kernel", l->kernel.path,
                       (unsigned long long)(l->b->mem->ram_size / KIB));
    return 0;
}

int load_cmdline(const struct load *l, uint64_t max, struct err *err)
{
    const char *s = l->b->cmdline ? l->b->cmdline : "";
    uint64_t len = strlen(s);
    max = MIN(max, (uint64_t)LOAD_CMDLINE_MAX - 1);
    if (len > max)
        return err_set(err, -EINVAL, "the kernel command line has %llu characters; %s takes at most %llu",
                       (unsigned long long)len, l->kernel.path, (unsigned long long)max);
    return low_write(l, LOAD_CMDLINE, s, len + 1, err);
}

static struct cpu_segment flat_segment(uint16_t selector, uint8_t type, bool is64)
{
    return (struct cpu_segment){
        .selector = selector, .limit = 0xffffffff, .type = type, .s = 1, .present = 1, .l = is64, .db = !is64, .g = 1};
}

/* What firmware leaves behind: all memory is write-back. Without it Linux uses neither MTRRs nor PAT. */
#define MTRR_ENABLE_WRITE_BACK 0x806

/* Selectors as the Linux boot protocol wants them: 0x10 code, 0x18 data; 0x20 is a TSS, which the CPU must have. */
static int enter_flat(const struct load *l, struct cpu_state *s, bool is64, struct err *err)
{
    uint8_t gdt[5 * 8] = {0};
    le64_put(gdt + 0x10, is64 ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
    le64_put(gdt + 0x18, 0x00cf93000000ffff);
    le64_put(gdt + 0x20, 0x00008b0000000067);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = i == CS ? flat_segment(0x10, 0xb, is64) : flat_segment(0x18, 3, false);
    s->tr = (struct cpu_segment){.selector = 0x20, .limit = 0x67, .type = 0xb, .present = 1};
    s->ldt = (struct cpu_segment){.unusable = 1, .type = 2};
    s->gdt = (struct cpu_table){LOAD_GDT, sizeof gdt - 1};
    s->idt = (struct cpu_table){0, 0};
    s->rflags = FLAG_1;
    cpu_state_set_msr(s, MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WRITE_BACK);
    memset(s->gpr, 0, sizeof s->gpr);
    return low_write(l, LOAD_GDT, gdt, sizeof gdt, err);
}

int load_enter_protected(const struct load *l, struct cpu_state *s, gpa_t entry, struct err *err)
{
    int r = enter_flat(l, s, false, err);
    s->cr0 = CR0_PE | CR0_ET;
    s->cr4 = 0;
    s->efer = 0;
    s->rip = entry;
    return r;
}

int load_enter_long(const struct load *l, struct cpu_state *s, gpa_t entry, struct err *err)
{
    static const unsigned pages = 6;
    autofree uint8_t *t = xcalloc(pages, PAGE_SIZE);
    int r = enter_flat(l, s, true, err);
    if (r < 0)
        return r;
    le64_put(t, (LOAD_PML4 + PAGE_SIZE) | 3);
    for (unsigned i = 0; i < 4; i++)
        le64_put(t + PAGE_SIZE + 8 * i, (LOAD_PML4 + (2 + i) * PAGE_SIZE) | 3);
    for (uint64_t i = 0; i < 2048; i++)
        le64_put(t + 2 * PAGE_SIZE + 8 * i, i * 2 * MIB | 0x83);
    r = low_write(l, LOAD_PML4, t, pages * PAGE_SIZE, err);
    s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    s->cr3 = LOAD_PML4;
    s->cr4 = CR4_PAE;
    s->efer = EFER_LME | EFER_LMA;
    s->rip = entry;
    return r;
}

uint32_t load_head32(const struct load *l, unsigned off)
{
    return off + 4 <= LOAD_HEAD ? le32_get(l->head + off) : 0;
}

uint16_t load_head16(const struct load *l, unsigned off)
{
    return off + 2 <= LOAD_HEAD ? le16_get(l->head + off) : 0;
}

static int load_kind(struct load *l, struct cpu_state *s, struct err *err)
{
    if (linux_is(l))
        return linux_load(l, s, err);
    if (elf_is(l)) {
        struct elf_image e;
        int r = elf_parse(l, &e, err);
        if (r < 0)
            return r;
        if (e.has_pvh)
            return pvh_load(l, &e, s, err);
        if (!multiboot_is(l)) {
            if (e.is64)
                return vmlinux_load(l, &e, s, err);
            return err_set(err, -EINVAL, "kernel %s: an ELF file, but with neither a PVH note nor a Multiboot header",
                           l->kernel.path);
        }
    }
    if (multiboot_is(l))
        return multiboot_load(l, s, err);
    return err_set(err, -EINVAL, "kernel %s: not a kernel that can be started (bzImage, ELF with PVH note, Multiboot)",
                   l->kernel.path);
}

int loader_load(const struct boot_info *b, struct cpu_state *bsp, struct err *err)
{
    autofree struct load *l = xcalloc(1, sizeof *l);
    l->b = b;
    int r = load_open("kernel", b->kernel, &l->kernel, err);
    if (r < 0)
        return r;
    r = load_pread(&l->kernel, l->head, MIN(l->kernel.size, (uint64_t)LOAD_HEAD), 0, err);
    if (r >= 0)
        r = load_kind(l, bsp, err);
    close(l->kernel.fd);
    return r;
}

unsigned e820_of_ram(const struct mem *mem, struct e820_entry ret[4])
{
    unsigned n = 0;
    ret[n++] = (struct e820_entry){0, MIN(mem->low_size, 0x9fc00ull), E820_RAM};
    if (mem->low_size > 0x9fc00)
        ret[n++] = (struct e820_entry){0x9fc00, MIB - 0x9fc00, E820_RESERVED};
    if (mem->low_size > MIB)
        ret[n++] = (struct e820_entry){MIB, mem->low_size - MIB, E820_RAM};
    if (mem->ram_size > mem->low_size)
        ret[n++] = (struct e820_entry){MEM_HIGH_BASE, mem->ram_size - mem->low_size, E820_RAM};
    return n;
}
