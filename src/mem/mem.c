#include "mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

static int add_range(struct mem *m, gpa_t base, uint64_t size, uint8_t *host, uint64_t fd_offset, bool rom)
{
    if (m->nranges == MEM_RANGES_MAX)
        return -ENOSPC;
    for (unsigned i = 0; i < m->nranges; i++)
        if (base < m->range[i].base + m->range[i].size && m->range[i].base < base + size)
            return -EEXIST;
    m->range[m->nranges++] = (struct mem_range){base, size, host, fd_offset, rom};
    return 0;
}

int mem_new(uint64_t size, uint64_t low_max, struct mem **ret, struct err *err)
{
    if (!size || size % PAGE_SIZE)
        return err_set(err, -EINVAL, "memory size %llu is not a multiple of 4096", (unsigned long long)size);
    struct mem *m = xcalloc(1, sizeof *m);
    m->fd = -1;
    m->ram = MAP_FAILED;
    m->ram_size = size;
    m->low_size = MIN(size, low_max);
    int code = 0;
    m->fd = memfd_create("lodge-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->fd < 0 || ftruncate(m->fd, (off_t)size) < 0)
        code = err_errno(err, -errno, "cannot make %llu MiB of guest memory", (unsigned long long)(size / MIB));
    if (!code) {
        fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
        m->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
        if (m->ram == MAP_FAILED)
            code = err_errno(err, -errno, "cannot map %llu MiB of guest memory", (unsigned long long)(size / MIB));
    }
    if (!code) {
        m->page_flags = mmap(NULL, size / PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (m->page_flags == MAP_FAILED) {
            m->page_flags = NULL;
            code = err_errno(err, -errno, "cannot map page flags");
        }
    }
    if (code) {
        mem_free(m);
        return code;
    }
    add_range(m, 0, m->low_size, m->ram, 0, false);
    if (size > m->low_size)
        add_range(m, MEM_HIGH_BASE, size - m->low_size, m->ram + m->low_size, m->low_size, false);
    *ret = m;
    return 0;
}

void mem_free(struct mem *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->nranges; i++)
        if (m->range[i].rom)
            munmap(m->range[i].host, m->range[i].size);
    if (m->page_flags)
        munmap(m->page_flags, m->ram_size / PAGE_SIZE);
    if (m->ram != MAP_FAILED)
        munmap(m->ram, m->ram_size);
    fd_closep(&m->fd);
    free(m);
}

int mem_add_rom(struct mem *m, gpa_t base, uint64_t size, const void *data, uint64_t len, struct err *err)
{
    if (!size || size % PAGE_SIZE || base % PAGE_SIZE || len > size)
        return err_set(err, -EINVAL, "ROM at 0x%llx: bad size", (unsigned long long)base);
    uint8_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (host == MAP_FAILED)
        return err_errno(err, -errno, "cannot map a ROM");
    memcpy(host, data, len);
    int code = add_range(m, base, size, host, 0, true);
    if (code) {
        munmap(host, size);
        return err_errno(err, code, "ROM at 0x%llx", (unsigned long long)base);
    }
    return 0;
}

/* The host bytes at gpa, and how many of `len` lie together there. NULL: no memory. */
static uint8_t *piece(const struct mem *m, gpa_t gpa, uint64_t *len, bool *rom)
{
    const struct mem_range *r = mem_find(m, gpa);
    if (!r)
        return NULL;
    uint64_t off = gpa - r->base;
    *len = MIN(*len, r->size - off);
    *rom = r->rom;
    return r->host + off;
}

int mem_read(const struct mem *m, gpa_t gpa, void *buf, uint64_t len)
{
    for (uint8_t *p = buf; len;) {
        uint64_t n = len;
        bool rom;
        const uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host)
            return -EFAULT;
        memcpy(p, host, n);
        p += n;
        gpa += n;
        len -= n;
    }
    return 0;
}

int mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len)
{
    for (const uint8_t *p = buf; len;) {
        uint64_t n = len;
        bool rom;
        uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host)
            return -EFAULT;
        if (!rom) {
            memcpy(host, p, n);
            mem_wrote(m, gpa, n);
        }
        p += n;
        gpa += n;
        len -= n;
    }
    return 0;
}

int mem_set(struct mem *m, gpa_t gpa, uint8_t byte, uint64_t len)
{
    while (len) {
        uint64_t n = len;
        bool rom;
        uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host)
            return -EFAULT;
        if (!rom) {
            memset(host, byte, n);
            mem_wrote(m, gpa, n);
        }
        gpa += n;
        len -= n;
    }
    return 0;
}

#define ACCESSOR(bits)                                                                                                 \
    int mem_read##bits(const struct mem *m, gpa_t gpa, uint##bits##_t *ret)                                            \
    {                                                                                                                  \
        uint64_t n = bits / 8;                                                                                         \
        bool rom;                                                                                                      \
        const uint8_t *host = gpa % (bits / 8) ? NULL : piece(m, gpa, &n, &rom);                                       \
        if (!host)                                                                                                     \
            return mem_read(m, gpa, ret, bits / 8);                                                                    \
        *ret = le##bits##toh(__atomic_load_n((const uint##bits##_t *)host, __ATOMIC_ACQUIRE));                         \
        return 0;                                                                                                      \
    }                                                                                                                  \
    int mem_write##bits(struct mem *m, gpa_t gpa, uint##bits##_t v)                                                    \
    {                                                                                                                  \
        uint64_t n = bits / 8;                                                                                         \
        bool rom;                                                                                                      \
        v = htole##bits(v);                                                                                            \
        uint8_t *host = gpa % (bits / 8) ? NULL : piece(m, gpa, &n, &rom);                                             \
        if (!host)                                                                                                     \
            return mem_write(m, gpa, &v, bits / 8);                                                                    \
        if (rom)                                                                                                       \
            return 0;                                                                                                  \
        __atomic_store_n((uint##bits##_t *)host, v, __ATOMIC_RELEASE);                                                 \
        mem_wrote(m, gpa, bits / 8);                                                                                   \
        return 0;                                                                                                      \
    }
ACCESSOR(16)
ACCESSOR(32)
ACCESSOR(64)

int mem_iov(const struct mem *m, gpa_t gpa, uint64_t len, bool write, struct iovec *iov, unsigned *niov, unsigned max)
{
    while (len) {
        uint64_t n = len;
        bool rom;
        uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host || (rom && write))
            return -EFAULT;
        if (*niov == max)
            return -E2BIG;
        iov[(*niov)++] = (struct iovec){host, n};
        gpa += n;
        len -= n;
    }
    return 0;
}

void mem_wrote(struct mem *m, gpa_t gpa, uint64_t len)
{
    while (len) {
        const struct mem_range *r = mem_find(m, gpa);
        uint64_t n = MIN(len, PAGE_SIZE - gpa % PAGE_SIZE);
        if (r && !r->rom) {
            const uint8_t *host = r->host + (gpa - r->base);
            mem_page_dirty(m, host);
            uint8_t flags = atomic_load_explicit(&m->page_flags[mem_page_index(m, host)], memory_order_acquire);
            if ((flags & MEM_PAGE_CODE) && m->code_written)
                m->code_written(m->code_opaque, gpa, n);
        }
        gpa += n;
        len -= n;
    }
}

void mem_track_dirty(struct mem *m, bool on)
{
    atomic_store(&m->dirty_tracking, on);
}

void mem_take_dirty(struct mem *m, uint64_t *bitmap)
{
    uint64_t pages = m->ram_size / PAGE_SIZE;
    memset(bitmap, 0, ALIGN_UP(pages, 64) / 8);
    for (uint64_t i = 0; i < pages; i++)
        if (atomic_load_explicit(&m->page_flags[i], memory_order_relaxed) & MEM_PAGE_DIRTY)
            if (atomic_fetch_and(&m->page_flags[i], (uint8_t)~MEM_PAGE_DIRTY) & MEM_PAGE_DIRTY)
                bitmap[i / 64] |= 1ull << (i % 64);
}

int mem_discard(struct mem *m, gpa_t gpa, uint64_t len)
{
    if (gpa % PAGE_SIZE || len % PAGE_SIZE)
        return -EINVAL;
    while (len) {
        const struct mem_range *r = mem_find(m, gpa);
        if (!r || r->rom)
            return -EFAULT;
        uint64_t off = gpa - r->base, n = MIN(len, r->size - off);
        if (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(r->fd_offset + off), (off_t)n) < 0)
            return -errno;
        mem_wrote(m, gpa, n);
        gpa += n;
        len -= n;
    }
    return 0;
}
