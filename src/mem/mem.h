/*
 * Guest physical memory. RAM is one memfd, mapped once, laid out as on a PC: [0, low_size) below the PCI hole and
 * [4 GiB, …) above it; behind it the memfd holds memory of devices (a display's). What the guest sees where is a list
 * of windows, of which later ones hide earlier ones: RAM, ROM (firmware, read-only RAM), device memory, holes.
 * Everything else is MMIO and not known here.
 *
 * This is the one door: devices copy in and out through the bounded accessors; nobody keeps a host pointer to guest RAM
 * but the CPU engines (soft TLB, KVM slots) and I/O in flight (mem_iov). Whoever writes RAM by a pointer calls
 * mem_wrote() after.
 *
 * Any thread. Windows may change while vCPUs run: lookups use an immutable layout that is replaced as a whole.
 */
#ifndef LODGE_MEM_MEM_H
#define LODGE_MEM_MEM_H

#include <pthread.h>
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
    uint64_t fd_offset; /* in the memfd; meaningless for a ROM's own memory */
    bool rom;           /* guest writes are ignored */
};

#define MEM_RANGES_MAX 48
#define MEM_WINDOWS_MAX 24

/* The ranges of one moment, the largest first. Never changed; freed by mem_collect(). */
struct mem_layout {
    struct mem_layout *next; /* replaced before */
    unsigned n;
    struct mem_range range[MEM_RANGES_MAX];
};

enum mem_kind {
    MEM_OFF,  /* not there: what is below is seen */
    MEM_RAM,  /* memory at `host`, inside of the memfd's mapping */
    MEM_ROM,  /* the same or memory of its own; guest writes are ignored */
    MEM_HOLE, /* no memory: accesses go to devices */
};

struct mem_window {
    enum mem_kind kind;
    gpa_t base; /* page aligned, as size */
    uint64_t size;
    uint8_t *host; /* MEM_RAM, MEM_ROM */
};

/* Page flags: one byte a RAM page, indexed by mem_page_index(). */
enum {
    MEM_PAGE_CODE = 1, /* a CPU engine holds decoded or translated code of this page: tell it about writes */
    MEM_PAGE_SHOWN =
        4, /* device memory: written since mem_take_shown(); until then engines let writes come to mem_page_dirty() */
    MEM_PAGE_DIRTY = 2, /* written since the bit was last taken, while dirty tracking is on */
};

struct mem {
    int fd;            /* memfd of all RAM */
    uint8_t *ram;      /* its mapping, ram_size bytes */
    uint64_t ram_size; /* bytes of RAM */
    uint64_t low_size; /* bytes of RAM below 4 GiB; RAM above starts at MEM_HIGH_BASE */
    uint64_t fd_size;  /* bytes of the memfd and of `ram`: RAM, then device memory */
    struct mem_layout *_Atomic layout;
    pthread_mutex_t lock; /* windows and replaced layouts */
    struct mem_window window[MEM_WINDOWS_MAX];
    unsigned n_windows;
    struct mem_layout *old; /* replaced, perhaps still looked at */
    unsigned n_old;
    struct {
        uint8_t *host;
        uint64_t size;
    } rom[MEM_WINDOWS_MAX]; /* mappings of mem_add_rom() */
    unsigned n_roms;
    /* After the layout changed, on the thread that changed it, without the lock. NULL when no engine asked. */
    void (*layout_changed)(void *opaque);
    void *layout_opaque;
    /* For mem_take_shown(): before, to bring page flags up to date; after some were cleared: writes must be seen again.
     */
    void (*shown_sync)(void *opaque);
    void (*shown_cleared)(void *opaque);
    /* So many layouts were replaced that mem_collect() is due. NULL: nobody changes them while vCPUs run. */
    void (*collect_due)(void *opaque);
    void *collect_opaque;
    _Atomic uint8_t *page_flags; /* fd_size / PAGE_SIZE bytes */
    _Atomic bool dirty_tracking;
    /* Called after a write to a page with MEM_PAGE_CODE, on the writing thread. NULL when no engine asked. */
    void (*code_written)(void *opaque, gpa_t gpa, uint64_t len);
    void *code_opaque;
};

/* RAM of `size` bytes (a multiple of PAGE_SIZE), at most `low_max` of it below 4 GiB. -ENOMEM, -EINVAL. */
int mem_new(uint64_t size, uint64_t low_max, struct mem **ret, struct err *err);
/* The same with `device` bytes (page multiple) behind the RAM, at m->ram + m->ram_size, that a window shows. */
int mem_new_with_device(uint64_t size, uint64_t low_max, uint64_t device, struct mem **ret, struct err *err);
void mem_free(struct mem *m); /* NULL-safe */

/* Adds a ROM of `size` bytes (page multiple) at `base`, filled from `data` (`len` bytes, the rest 0). -EEXIST on
 * overlap. */
int mem_add_rom(struct mem *m, gpa_t base, uint64_t size, const void *data, uint64_t len, struct err *err);

/* Adds a window above all others; its number, or -ENOSPC, -EINVAL. */
int mem_add_window(struct mem *m, const struct mem_window *w, struct err *err);
/* Changes `n` windows from number `id` on, in one step. -EINVAL for one that is not page aligned; nothing changes then.
 */
int mem_set_windows(struct mem *m, unsigned id, const struct mem_window *w, unsigned n);
/* Frees replaced layouts. No vCPU runs, and no other thread uses guest memory. */
void mem_collect(struct mem *m);

static inline const struct mem_layout *mem_layout(const struct mem *m)
{
    return atomic_load_explicit(&m->layout, memory_order_acquire);
}

/* The range that holds `gpa`, or NULL for MMIO. Valid until the next mem_collect(). */
static inline const struct mem_range *mem_find(const struct mem *m, gpa_t gpa)
{
    const struct mem_layout *l = mem_layout(m);
    for (unsigned i = 0; i < l->n; i++)
        if (gpa - l->range[i].base < l->range[i].size)
            return &l->range[i];
    return NULL;
}

/* Index of the RAM page at host pointer `p` (which lies in m->ram). */
static inline uint64_t mem_page_index(const struct mem *m, const void *p)
{
    return (uint64_t)((const uint8_t *)p - m->ram) >> PAGE_SHIFT;
}

/*
 * Copy `len` bytes out of or into guest memory, across ranges. -EFAULT when any byte is not RAM (ROM is readable;
 * writes to it are ignored); then what was copied is unspecified. mem_write does what mem_wrote does.
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
 * -EFAULT when a byte is not RAM (or is ROM and `write`), -E2BIG when `max` does not suffice. After I/O has written
 * there, call mem_wrote(). The guest may change such memory at any time: check nothing in it, copy first.
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
    if (__builtin_expect((uint64_t)((const uint8_t *)host - m->ram) >= m->ram_size, 0))
        atomic_fetch_or(&m->page_flags[mem_page_index(m, host)], MEM_PAGE_SHOWN);
}
/* May a CPU write this page by pointer again and again without a word? */
static inline bool mem_page_quiet(const struct mem *m, const void *host)
{
    return (uint64_t)((const uint8_t *)host - m->ram) < m->ram_size ||
           (atomic_load_explicit(&m->page_flags[mem_page_index(m, host)], memory_order_relaxed) & MEM_PAGE_SHOWN);
}
/*
 * Which pages of device memory (bit 0 of word 0: the first one after RAM) were written since the last call. A page that
 * is being written just now may miss from the answer, and of the next: look at what was written last time too. False:
 * none.
 */
bool mem_take_shown(struct mem *m, uint64_t *bitmap);

/* Dirty tracking; switch it while no vCPU runs. mem_take_dirty() copies one bit a page (bit i of word i/64) for all RAM
 * into `bitmap` and clears them. */
void mem_track_dirty(struct mem *m, bool on);
void mem_take_dirty(struct mem *m, uint64_t *bitmap);

/* Gives the host memory of whole pages back (balloon, free-page reporting); they read as zero afterwards. */
MUST_CHECK int mem_discard(struct mem *m, gpa_t gpa, uint64_t len);

#endif
