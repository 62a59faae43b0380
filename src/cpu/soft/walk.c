/*
 * The page walker: 32-bit, PAE and 4-level paging as in SDM 3A, ch. 4. Accessed and dirty flags are set after all
 * checks passed, with a compare-and-swap on the entry that was read, so that a change by another vCPU in between
 * restarts the walk. Entries of RAM are read by one host access each. Runs on the vCPU's thread.
 */
#include "cpu/soft/walk.h"

#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/sys.h"

#define PTE_P BIT64(0)
#define PTE_W BIT64(1)
#define PTE_U BIT64(2)
#define PTE_A BIT64(5)
#define PTE_D BIT64(6)
#define PTE_PS BIT64(7)
#define PTE_G BIT64(8)
#define PTE_NX BIT64(63)
#define PTE_ADDR 0x000ffffffffff000ull

struct step {
    gpa_t gpa;
    uint64_t pte;
    void *host; /* NULL: not in RAM, cannot be updated */
};

static uint64_t load(struct soft_cpu *c, gpa_t gpa, unsigned size, void **ret_host)
{
    const struct mem_range *r = mem_find(c->vcpu.engine->cfg.mem, gpa);
    *ret_host = NULL;
    if (!r) {
        const struct cpu_bus *bus = soft_bus(c);
        return bus->mmio_read(bus->opaque, c->vcpu.index, gpa, size);
    }
    void *p = r->host + (gpa - r->base);
    if (!r->rom)
        *ret_host = p;
    return size == 8 ? __atomic_load_n((uint64_t *)p, __ATOMIC_RELAXED)
                     : __atomic_load_n((uint32_t *)p, __ATOMIC_RELAXED);
}

/* Sets `bits` in the entry if it is still what was read. False: it changed, walk again. */
static bool set_bits(struct soft_cpu *c, const struct step *s, unsigned size, uint64_t bits)
{
    if ((s->pte & bits) == bits || !s->host)
        return true;
    struct mem *mem = c->vcpu.engine->cfg.mem;
    bool done;
    if (size == 8) {
        uint64_t old = s->pte;
        done = __atomic_compare_exchange_n((uint64_t *)s->host, &old, s->pte | bits, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_RELAXED);
    } else {
        uint32_t old = s->pte;
        done = __atomic_compare_exchange_n((uint32_t *)s->host, &old, (uint32_t)(s->pte | bits), false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    if (done) {
        mem_page_dirty(mem, s->host);
        if (atomic_load_explicit(&mem->page_flags[mem_page_index(mem, s->host)], memory_order_relaxed) & MEM_PAGE_CODE)
            soft_code_written(c, s->gpa, size);
    }
    return done;
}

bool walk_allows(const struct soft_cpu *c, const struct walk_result *w, enum mmu_access access, bool user, bool smap)
{
    if (access == MMU_EXEC) {
        if (w->nx)
            return false;
        return user ? w->user : !(w->user && (c->cr4 & CR4_SMEP));
    }
    if (user)
        return w->user && (access == MMU_READ || w->writable);
    if (w->user && smap)
        return false;
    return access == MMU_READ || w->writable || !(c->cr0 & CR0_WP);
}

static uint32_t error_code(const struct soft_cpu *c, const struct walk_request *q)
{
    uint32_t error = (q->access == MMU_WRITE ? PFERR_W : 0) | (q->user ? PFERR_U : 0);
    if (q->access == MMU_EXEC && ((c->cr4 & CR4_SMEP) || ((c->cr4 & CR4_PAE) && (c->efer & EFER_NXE))))
        error |= PFERR_I;
    return error;
}

static int fail(const struct soft_cpu *c, const struct walk_request *q, struct walk_result *ret, uint32_t why)
{
    ret->error = error_code(c, q) | why;
    return -1;
}

/* Reserved bits of an 8-byte entry. `level`: 1 page table … 4 PML4. */
static uint64_t reserved64(const struct soft_cpu *c, unsigned level, uint64_t pte, bool lma)
{
    uint64_t bits = ~c->mmu->phys_mask & PTE_ADDR;
    if (!lma)
        bits |= 0x7ff0000000000000ull;
    if (!(c->efer & EFER_NXE))
        bits |= PTE_NX;
    if (level == 4)
        bits |= PTE_PS;
    else if (level == 3 && (pte & PTE_PS))
        bits |= 0x3fffe000;
    else if (level == 2 && (pte & PTE_PS))
        bits |= 0x1fe000;
    return bits;
}

/* Reserved bits of a 32-bit page-directory entry that maps 4 MiB (PSE-36). */
static uint64_t reserved_pse(const struct soft_cpu *c)
{
    uint64_t bits = BIT64(21);
    for (unsigned i = 13; i <= 20; i++)
        if (!(c->mmu->phys_mask >> (32 + i - 13) & 1))
            bits |= BIT64(i);
    return bits;
}

int walk_page(struct soft_cpu *c, const struct walk_request *q, struct walk_result *ret)
{
    uint64_t lin = q->lin;
    if (!(c->cr0 & CR0_PG)) {
        /* No protection without paging: the page is of the kind that the access may touch. */
        *ret = (struct walk_result){lin & c->mmu->phys_mask, q->user, true, false, false, true, 12, 0};
        return 0;
    }
    bool lma = c->efer & EFER_LMA, wide = c->cr4 & CR4_PAE;
    unsigned size = wide ? 8 : 4, index_bits = wide ? 9 : 10;
    struct step path[4];

again:;
    unsigned n = 0, level = lma ? 4 : 2;
    uint64_t table = c->cr3 & (wide ? PTE_ADDR & c->mmu->phys_mask : 0xfffff000);
    uint64_t all = PTE_W | PTE_U, any = 0, pte;
    if (wide && !lma) {
        pte = c->pdpte[lin >> 30 & 3];
        if (!(pte & PTE_P))
            return fail(c, q, ret, 0);
        table = pte & PTE_ADDR;
    }
    unsigned shift;
    for (;; level--) {
        shift = 12 + index_bits * (level - 1);
        gpa_t gpa = table + (lin >> shift & ((1u << index_bits) - 1)) * size;
        struct step *s = &path[n++];
        s->gpa = gpa;
        s->pte = pte = load(c, gpa, size, &s->host);
        if (!(pte & PTE_P))
            return fail(c, q, ret, 0);
        bool large = (pte & PTE_PS) && (level == 3 || (level == 2 && (wide || (c->cr4 & CR4_PSE))));
        uint64_t rsvd = wide ? reserved64(c, level, pte, lma) : large ? reserved_pse(c) : 0;
        if (pte & rsvd)
            return fail(c, q, ret, PFERR_RSVD | PFERR_P);
        all &= pte;
        any |= pte;
        if (level == 1 || large)
            break;
        table = pte & (wide ? PTE_ADDR : 0xfffff000);
    }
    uint64_t offset = (1ull << shift) - 1;
    uint64_t base = wide ? pte & PTE_ADDR & ~offset : pte & 0xfffff000 & ~offset;
    if (!wide && shift == 22)
        base |= (pte >> 13 & 0xff) << 32;
    *ret = (struct walk_result){
        .gpa = base | (lin & offset),
        .user = all & PTE_U,
        .writable = all & PTE_W,
        .nx = any & PTE_NX,
        .global = (pte & PTE_G) && (c->cr4 & CR4_PGE),
        .dirty = (pte & PTE_D) || q->access == MMU_WRITE,
        .page_shift = shift,
    };
    if (q->probe)
        return 0;
    if (!walk_allows(c, ret, q->access, q->user, q->smap))
        return fail(c, q, ret, PFERR_P);
    for (unsigned i = 0; i < n; i++)
        if (!set_bits(c, &path[i], size, PTE_A | (i == n - 1 && q->access == MMU_WRITE ? PTE_D : 0)))
            goto again;
    return 0;
}

int walk_load_pdptes(struct soft_cpu *c, uint64_t cr3)
{
    uint64_t pdpte[4];
    /* PDPTE (SDM 3A, table 4-8): bits 1, 2, 5-8 and those above the physical address are reserved. */
    uint64_t rsvd = 0x1e6 | ~c->mmu->phys_mask;
    for (unsigned i = 0; i < 4; i++) {
        void *host;
        pdpte[i] = load(c, (cr3 & 0xffffffe0) + i * 8, 8, &host);
        if ((pdpte[i] & PTE_P) && (pdpte[i] & rsvd))
            return -1;
    }
    memcpy(c->pdpte, pdpte, sizeof pdpte);
    return 0;
}
