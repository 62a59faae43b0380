/*
 * The soft TLB and the inline paths over it. All lookup tables of a vCPU lie in one struct soft_mmu, apart from its
 * registers, with no pointer that generated code would have to embed.
 *
 * A TLB slot belongs to one PCID (or to the only address space when CR4.PCIDE is 0) and holds three views, because what
 * may be accessed depends on privilege: user, supervisor, and supervisor with EFLAGS.AC set while SMAP is on. An entry
 * holds the negated linear address of its page, once per kind of access: adding it to an address gives the offset in
 * the page when it is that page, and something large otherwise; so one comparison also sends what crosses the page's end
 * to the slow path. It is set only where the access needs no further look: permission is there, A (and D for writes) are
 * set, the page is RAM (ROM when not writing), carries no data breakpoint, and for writes is neither a code page nor
 * dirty-tracked. Anything allowed to write may read.
 *
 * A flush takes what was entered out again, by a log: it costs less than entering it did.
 *
 * lin must be canonical (seg_linear checks; the translator relies on non-canonical addresses never being entered).
 */
#ifndef LODGE_CPU_SOFT_MMU_FAST_H
#define LODGE_CPU_SOFT_MMU_FAST_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/mmu.h"

#define TLB_BITS 12
#define TLB_ENTRIES (1u << TLB_BITS)
#define TLB_SLOTS 8
#define TLB_LOG 512
#define TLB_GEN_BITS 28
#define TLB_GEN_NEVER ((1ull << TLB_GEN_BITS) - 1)

enum { TLB_VIEW_SUPER, TLB_VIEW_USER, TLB_VIEW_SUPER_AC, TLB_VIEWS };

struct tlb_entry {
    uint64_t r, w, x; /* minus the page's linear address by kind of access, or tlb_none() */
    uint64_t host;    /* of the page's first byte */
};

/* What matches no address that looks into entry `i`: 0 is minus the address of page 0, which entry 0 is for. */
static inline uint64_t tlb_none(unsigned i)
{
    return i ? 0 : PAGE_SIZE;
}

struct tlb_view {
    struct tlb_entry e[TLB_ENTRIES];
    gpa_t gpa[TLB_ENTRIES]; /* page of each entry, bit 0: global; valid while one of its tags is */
    unsigned n_log;         /* above TLB_LOG: more were filled than the log holds */
    uint16_t log[TLB_LOG];  /* entries filled since the last flush */
};

struct tlb_slot {
    uint64_t gen;  /* names what it holds since the last flush */
    uint64_t used; /* for the choice of a victim */
    uint16_t pcid;
    bool valid;
    uint8_t filled; /* BIT(view): has entries of this generation */
    /* Hashes of the 2 MiB and 1 GiB frames that have pieces of large pages here: INVLPG there drops them all. */
    uint64_t large2m[16];
    uint64_t large1g;
};

struct soft_mmu {
    struct tlb_entry *cur; /* entries of the current view; `never` while alignment is checked */
    unsigned slot, view;
    uint64_t next_gen, clock;
    uint64_t global_epoch; /* as soft_cpu.code_epoch, of the global pages of all address spaces */
    uint64_t epoch_base; /* upper part of soft_cpu.code_epoch */
    uint64_t phys_mask; /* bits of a physical address that exist */
    struct tlb_slot slots[TLB_SLOTS];
    struct tlb_entry never[TLB_ENTRIES]; /* matches nothing */
    struct tlb_view tlb[TLB_SLOTS][TLB_VIEWS];
};

typedef volatile uint16_t __attribute__((aligned(1), may_alias)) mmu_u16;
typedef volatile uint32_t __attribute__((aligned(1), may_alias)) mmu_u32;
typedef volatile uint64_t __attribute__((aligned(1), may_alias)) mmu_u64;
typedef volatile uint8_t mmu_u8;

static inline unsigned tlb_index(uint64_t lin)
{
    return (lin >> PAGE_SHIFT) & (TLB_ENTRIES - 1);
}
/* Offset in its page when entry field `neg` is for the page of `lin`; then what is at most PAGE_SIZE - size may go on. */
static inline bool tlb_hit(uint64_t neg, uint64_t lin, unsigned size)
{
    return lin + neg <= PAGE_SIZE - size;
}

/* Is `lin` code in a global page? False also when that is not known. */
static inline bool mmu_fetched_global(const struct soft_cpu *c, uint64_t lin)
{
    const struct soft_mmu *m = c->mmu;
    const struct tlb_view *t = &m->tlb[m->slot][m->view];
    return tlb_hit(t->e[tlb_index(lin)].x, lin, 1) && (t->gpa[tlb_index(lin)] & 1);
}

#define MMU_FAST(bits)                                                                                                 \
    MUST_CHECK static inline int mmu_read##bits(struct soft_cpu *c, uint64_t lin, uint##bits##_t *v)                   \
    {                                                                                                                  \
        const struct soft_mmu *m = c->mmu;                                                                             \
        const struct tlb_entry *e = &m->cur[tlb_index(lin)];                                                           \
        if (__builtin_expect(tlb_hit(e->r, lin, bits / 8), 1)) {                                                       \
            *v = *(const mmu_u##bits *)(uintptr_t)(lin + e->r + e->host);                                                 \
            return 0;                                                                                                  \
        }                                                                                                              \
        return mmu_read(c, lin, v, bits / 8);                                                                          \
    }                                                                                                                  \
    MUST_CHECK static inline int mmu_write##bits(struct soft_cpu *c, uint64_t lin, uint##bits##_t v)                   \
    {                                                                                                                  \
        const struct soft_mmu *m = c->mmu;                                                                             \
        const struct tlb_entry *e = &m->cur[tlb_index(lin)];                                                           \
        if (__builtin_expect(tlb_hit(e->w, lin, bits / 8), 1)) {                                                       \
            *(mmu_u##bits *)(uintptr_t)(lin + e->w + e->host) = v;                                                        \
            return 0;                                                                                                  \
        }                                                                                                              \
        return mmu_write(c, lin, &v, bits / 8);                                                                        \
    }
MMU_FAST(8)
MMU_FAST(16)
MMU_FAST(32)
MMU_FAST(64)
#undef MMU_FAST

/* mmu_rmw() for the common case. */
MUST_CHECK static inline int mmu_rmw_fast(struct soft_cpu *c, uint64_t lin, unsigned size, void **ret)
{
    const struct soft_mmu *m = c->mmu;
    const struct tlb_entry *e = &m->cur[tlb_index(lin)];
    if (__builtin_expect(tlb_hit(e->w, lin, size), 1)) {
        *ret = (void *)(uintptr_t)(lin + e->w + e->host);
        return 0;
    }
    return mmu_rmw(c, lin, size, ret);
}

#endif
