/*
 * Guest physical memory. RAM is one memfd, mapped once, laid out as on a PC: [0, low_size) below the PCI hole and
 * [4 GiB, …) above it. ROM areas (firmware) are separate mappings. Everything else is MMIO and not known here.
 *
 * This is the one door: devices copy in and out through the bounded accessors; nobody keeps a host pointer to guest RAM but
 * the CPU engines (soft TLB, KVM slots) and I/O in flight (mem_iov). Whoever writes RAM by a pointer calls mem_wrote() after.
 *
 * Any thread. The layout is fixed before the first vCPU runs.
 */
#ifndef LODGE_MEM_MEM_H
#define LODGE_MEM_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bits.h"
#include "base/err.h"

typedef uint64_t gpa_t; /* guest physical address */

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096ull
#define MEM_HIGH_BASE (4 * GIB)

/* One contiguous piece of guest physical space backed by host memory. */
struct mem_range {
    gpa_t base;
    uint64_t size;
    uint8_t *host;
    uint64_t fd_offset; /* in the memfd; meaningless for ROM */
    bool rom;           /* guest writes are ignored */
};

#define MEM_RANGES_MAX 8

/* Page flags: one byte a RAM page, indexed by mem_page_index(). */
enum {
    MEM_PAGE_CODE = 1,  /* a CPU engine holds decoded or translated code of this page: tell it about writes */
    MEM_PAGE_DIRTY = 2, /* written since the bit was last taken, while dirty tracking is on */
};

struct mem {
    int fd;               /* memfd of all RAM */
    uint8_t *ram;         /* its mapping, ram_size bytes */
    uint64_t ram_size;    /* bytes of RAM */
    uint64_t low_size;    /* bytes of RAM below 4 GiB; RAM above starts at MEM_HIGH_BASE */
    struct mem_range range[MEM_RANGES_MAX];
    unsigned nranges;
    _Atomic uint8_t *page_flags; /* ram_size / PAGE_SIZE bytes */
    _Atomic bool dirty_tracking;
    /* Called after a write to a page with MEM_PAGE_CODE, on the writing thread. NULL when no engine asked. */
    void (*code_written)(void *opaque, gpa_t gpa, uint64_t len);
    void *code_opaque;
};

/* RAM of `size` bytes (a multiple of PAGE_SIZE), at most `low_max` of it below 4 GiB. -ENOMEM, -EINVAL. */
int mem_new(uint64_t size, uint64_t low_max, struct mem **ret, struct err *err);
void mem_free(struct mem *m); /* NULL-safe */

/* Adds a ROM of `size` bytes (page multiple) at `base`, filled from `data` (`len` bytes, the rest 0). -EEXIST on overlap. */
int mem_add_rom(struct mem *m, gpa_t base, uint64_t size, const void *data, uint64_t len, struct err *err);

/* The range that holds `gpa`, or NULL for MMIO. */
static inline const struct mem_range *mem_find(const struct mem *m, gpa_t gpa)
{
    for (unsigned i = 0; i < m->nranges; i++)
        if (gpa - m->range[i].base < m->range[i].size)
            return &m->range[i];
    return NULL;
}

/* Index of the RAM page at host pointer `p` (which lies in m->ram). */
static inline uint64_t mem_page_index(const struct mem *m, const void *p)
{
    return (uint64_t)((const uint8_t *)p - m->ram) >> PAGE_SHIFT;
}

/*
 * Copy `len` bytes out of or into guest memory, across ranges. -EFAULT when any byte is not RAM (ROM is readable; writes to it
 * are ignored); then what was copied is unspecified. mem_write does what mem_wrote does.
 */
MUST_CHECK int mem_read(const struct mem *m, gpa_t gpa, void *buf, uint64_t len);
MUST_CHECK int mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len);
MUST_CHECK int mem_set(struct mem *m, gpa_t gpa, uint8_t byte, uint64_t len);

/* Single little-endian values, read or written in one access when naturally aligned (rings depend on it). */
MUST_CHECK int mem_read16(const struct mem *m, gpa_t gpa, uint16_t *ret);
MUST_CHECK int mem_read32(const struct mem *m, gpa_t gpa, uint32_t *ret);
MUST_CHECK int mem_read64(const struct mem *m, gpa_t gpa, uint64_t *ret);
MUST_CHECK int mem_write16(struct mem *m, gpa_t gpa, uint16_t v);
MUST_CHECK int mem_write32(struct mem *m, gpa_t gpa, uint32_t v);
MUST_CHECK int mem_write64(struct mem *m, gpa_t gpa, uint64_t v);

/*
 * The host pieces of [gpa, gpa+len), for I/O straight into guest RAM: appends to iov[*niov] up to `max` entries.
 * -EFAULT when a byte is not RAM (or is ROM and `write`), -E2BIG when `max` does not suffice. After I/O has written there,
 * call mem_wrote(). The guest may change such memory at any time: check nothing in it, copy first.
 */
MUST_CHECK int mem_iov(const struct mem *m, gpa_t gpa, uint64_t len, bool write, struct iovec *iov, unsigned *niov,
                       unsigned max);
/* Says that [gpa, gpa+len) was written by pointer: dirty tracking, and code of CPU engines. */
void mem_wrote(struct mem *m, gpa_t gpa, uint64_t len);

/* The same for a host pointer into RAM; what a CPU's slow path calls. */
static inline void mem_page_dirty(struct mem *m, const void *host)
{
    if (atomic_load_explicit(&m->dirty_tracking, memory_order_relaxed))
        atomic_fetch_or(&m->page_flags[mem_page_index(m, host)], MEM_PAGE_DIRTY);
}

/* Dirty tracking; switch it while no vCPU runs. mem_take_dirty() copies one bit a page (bit i of word i/64) for all RAM into `bitmap` and clears them. */
void mem_track_dirty(struct mem *m, bool on);
void mem_take_dirty(struct mem *m, uint64_t *bitmap);

/* Gives the host memory of whole pages back (balloon, free-page reporting); they read as zero afterwards. */
MUST_CHECK int mem_discard(struct mem *m, gpa_t gpa, uint64_t len);

#endif
