/*
 * Linear memory of a vCPU: the soft TLB, and the accesses that its inline part (mmu_fast.h) does not do: page-crossing,
 * MMIO, ROM, code pages, dirty tracking, data breakpoints, alignment checks. Runs on the vCPU's thread, but for
 * mmu_protect_code and flushes, which others ask for through soft_cpu.pending.
 *
 * Invariant: what a TLB entry allows, a walk would allow too, until the guest is entitled to expect the change to be
 * seen (INVLPG, CR3, …).
 */
#include "cpu/soft/mmu.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/soft/exc.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/walk.h"

/* Where one page of an access lies. */
struct target {
    uint8_t *host; /* NULL: MMIO */
    gpa_t gpa;
    bool rom, code, watched;
    bool quiet; /* RAM, or a page whose writes need not be noticed now */
};

static inline bool canonical(uint64_t lin)
{
    return (uint64_t)((int64_t)lin >> 47) + 1 <= 1;
}

static struct mem *mem_of(struct soft_cpu *c)
{
    return c->vcpu.engine->cfg.mem;
}

/* ---- slots and views ---- */

static void view_clear(struct tlb_view *t)
{
    if (t->n_log > TLB_LOG)
        memset(t->e, 0, sizeof t->e);
    else
        for (unsigned k = 0; k < t->n_log; k++)
            t->e[t->log[k]] = (struct tlb_entry){0};
    t->n_log = 0;
    t->e[0] = (struct tlb_entry){tlb_none(0), tlb_none(0), tlb_none(0), 0};
}

static void slot_renew(struct soft_mmu *m, struct tlb_slot *s)
{
    if (m->next_gen == TLB_GEN_NEVER) {
        m->epoch_base++;
        /* Generations are used up: count from 1 again. */
        m->next_gen = 1;
        for (unsigned i = 0; i < TLB_SLOTS; i++)
            if (&m->slots[i] != s && m->slots[i].valid)
                slot_renew(m, &m->slots[i]);
    }
    s->gen = m->next_gen++;
    for (unsigned v = 0; v < TLB_VIEWS; v++)
        if (s->filled & BIT(v))
            view_clear(&m->tlb[s - m->slots][v]);
    s->filled = 0;
    memset(s->large2m, 0, sizeof s->large2m);
    s->large1g = 0;
}

static bool aligned_only(const struct soft_cpu *c)
{
    return c->cpl == 3 && (c->rflags_rest & FLAG_AC) && (c->cr0 & CR0_AM);
}

static bool smap_forbids(const struct soft_cpu *c, unsigned view)
{
    return view == TLB_VIEW_SUPER && (c->cr4 & CR4_SMAP);
}

static void select_view(struct soft_cpu *c)
{
    struct soft_mmu *m = c->mmu;
    if (c->cpl == 3)
        m->view = TLB_VIEW_USER;
    else
        m->view = (c->cr4 & CR4_SMAP) && (c->rflags_rest & FLAG_AC) ? TLB_VIEW_SUPER_AC : TLB_VIEW_SUPER;
    m->cur = aligned_only(c) ? m->never : m->tlb[m->slot][m->view].e;
    c->jit.tlb = (uintptr_t)m->cur;
    for (unsigned ac = 0; ac < 2; ac++) {
        c->jit.view_ac[ac] = ac && (c->cr4 & CR4_SMAP) ? TLB_VIEW_SUPER_AC : TLB_VIEW_SUPER;
        c->jit.tlb_ac[ac] = (uintptr_t)m->tlb[m->slot][c->jit.view_ac[ac]].e;
    }
    c->code_epoch = m->epoch_base << TLB_GEN_BITS | m->slots[m->slot].gen;
}

void mmu_mode_changed(struct soft_cpu *c)
{
    select_view(c);
}

static unsigned current_pcid(const struct soft_cpu *c)
{
    return c->cr4 & CR4_PCIDE ? c->cr3 & 0xfff : 0;
}

/* The slot of `pcid`, a new empty one if there is none. */
static unsigned slot_find(struct soft_mmu *m, unsigned pcid, bool *ret_new)
{
    unsigned victim = 0;
    for (unsigned i = 0; i < TLB_SLOTS; i++) {
        struct tlb_slot *s = &m->slots[i];
        if (s->valid && s->pcid == pcid) {
            s->used = ++m->clock;
            *ret_new = false;
            return i;
        }
        struct tlb_slot *v = &m->slots[victim];
        if (v->valid && (!s->valid || s->used < v->used))
            victim = i;
    }
    struct tlb_slot *s = &m->slots[victim];
    s->pcid = pcid;
    s->valid = true;
    s->used = ++m->clock;
    slot_renew(m, s);
    *ret_new = true;
    return victim;
}

void mmu_cr3_written(struct soft_cpu *c, uint64_t old, bool noflush)
{
    struct soft_mmu *m = c->mmu;
    bool fresh;
    m->slot = slot_find(m, current_pcid(c), &fresh);
    if (!fresh && !noflush)
        slot_renew(m, &m->slots[m->slot]);
    select_view(c);
}

void mmu_flush(struct soft_cpu *c, bool global)
{
    struct soft_mmu *m = c->mmu;
    if (global) {
        m->global_epoch++;
        for (unsigned i = 0; i < TLB_SLOTS; i++)
            m->slots[i].valid = false;
        bool fresh;
        m->slot = slot_find(m, current_pcid(c), &fresh);
    } else {
        slot_renew(m, &m->slots[m->slot]);
    }
    select_view(c);
}

void mmu_flush_pcid(struct soft_cpu *c, unsigned pcid)
{
    struct soft_mmu *m = c->mmu;
    for (unsigned i = 0; i < TLB_SLOTS; i++)
        if (m->slots[i].valid && m->slots[i].pcid == pcid)
            slot_renew(m, &m->slots[i]);
    select_view(c);
}

static bool large_at(const struct tlb_slot *s, uint64_t lin)
{
    return (s->large1g >> (lin >> 30 & 63) & 1) || (s->large2m[lin >> 27 & 15] >> (lin >> 21 & 63) & 1);
}

static void large_note(struct tlb_slot *s, uint64_t lin, unsigned shift)
{
    if (shift == 30)
        s->large1g |= BIT64(lin >> 30 & 63);
    uint64_t first = shift == 22 ? lin & ~0x3fffffull : lin;
    for (unsigned i = 0; i < (shift == 22 ? 2 : 1); i++, first += 2 * MIB)
        s->large2m[first >> 27 & 15] |= BIT64(first >> 21 & 63);
}

/* Global pages are in every slot that used them: all slots are looked at. */
void mmu_flush_page(struct soft_cpu *c, uint64_t lin)
{
    struct soft_mmu *m = c->mmu;
    if (code_pages_test(c, lin)) {
        m->epoch_base++;
        m->global_epoch++;
        memset(c->code_pages, 0, sizeof c->code_pages);
    }
    for (unsigned i = 0; i < TLB_SLOTS; i++) {
        struct tlb_slot *s = &m->slots[i];
        if (!s->valid)
            continue;
        if (large_at(s, lin)) {
            slot_renew(m, s);
            continue;
        }
        for (unsigned v = 0; v < TLB_VIEWS; v++)
            if (s->filled & BIT(v)) {
                struct tlb_entry *e = &m->tlb[i][v].e[tlb_index(lin)];
                e->r = e->w = e->x = tlb_none(tlb_index(lin));
            }
    }
    select_view(c);
}

bool mmu_protect_code(struct soft_cpu *c, gpa_t page)
{
    struct soft_mmu *m = c->mmu;
    bool had = false;
    page &= ~(PAGE_SIZE - 1);
    for (unsigned i = 0; i < TLB_SLOTS; i++)
        for (unsigned v = 0; m->slots[i].valid && v < TLB_VIEWS; v++) {
            if (!(m->slots[i].filled & BIT(v)))
                continue;
            struct tlb_view *t = &m->tlb[i][v];
            for (unsigned j = 0; j < TLB_ENTRIES; j += 16) {
                unsigned hits = 0;
                for (unsigned k = 0; k < 16; k++)
                    hits |= (unsigned)((t->gpa[j + k] & ~1ull) == page) << k;
                for (; hits; hits &= hits - 1) {
                    struct tlb_entry *e = &t->e[j + __builtin_ctz(hits)];
                    uint64_t none = tlb_none(e - t->e);
                    had |= e->w != none;
                    e->w = none;
                }
            }
        }
    return had;
}

void mmu_debug_changed(struct soft_cpu *c)
{
    mmu_flush(c, true);
}

/* ---- translation ---- */

/*
 * Enters a page into a view. Only what would be allowed without any side effect gets a tag; the walk that came before
 * has set A, and D if it wrote.
 */
static void tlb_fill(struct soft_cpu *c, uint64_t lin, unsigned view, const struct walk_result *w,
                     const struct target *t)
{
    struct soft_mmu *m = c->mmu;
    struct tlb_slot *s = &m->slots[m->slot];
    struct tlb_view *tv = &m->tlb[m->slot][view];
    unsigned i = tlb_index(lin);
    struct tlb_entry *e = &tv->e[i];
    uint64_t tag = -(lin & ~(PAGE_SIZE - 1)), none = tlb_none(i);
    bool user = view == TLB_VIEW_USER, smap = smap_forbids(c, view);
    bool w_ok =
        w->dirty && !t->rom && !t->code && t->quiet && !atomic_load_explicit(&mem_of(c)->dirty_tracking, memory_order_relaxed);
    e->r = walk_allows(c, w, MMU_READ, user, smap) ? tag : none;
    e->w = w_ok && walk_allows(c, w, MMU_WRITE, user, smap) ? tag : none;
    e->x = walk_allows(c, w, MMU_EXEC, user, smap) ? tag : none;
    e->host = (uintptr_t)t->host & ~(PAGE_SIZE - 1);
    tv->gpa[i] = (t->gpa & ~(PAGE_SIZE - 1)) | (w->global && (c->cr4 & CR4_PGE));
    s->filled |= BIT(view);
    if (tv->n_log < TLB_LOG)
        tv->log[tv->n_log] = i;
    if (tv->n_log <= TLB_LOG)
        tv->n_log++;
    if (w->page_shift > PAGE_SHIFT)
        large_note(s, lin, w->page_shift);
}

static int translate_slow(struct soft_cpu *c, uint64_t lin, enum mmu_access access, unsigned view, struct target *t)
{
    struct walk_request q = {lin, access, view == TLB_VIEW_USER, smap_forbids(c, view), false};
    struct walk_result w;
    if (walk_page(c, &q, &w))
        return exc_page_fault(c, lin, w.error);
    const struct mem_range *r = mem_find(mem_of(c), w.gpa);
    *t = (struct target){.gpa = w.gpa, .watched = dbg_page_watched(c, lin)};
    if (!r)
        return 0;
    t->host = r->host + (w.gpa - r->base);
    t->rom = r->rom;
    if (!r->rom) {
        struct mem *mem = mem_of(c);
        t->code = atomic_load(&mem->page_flags[mem_page_index(mem, t->host)]) & MEM_PAGE_CODE;
        t->quiet = mem_page_quiet(mem, t->host);
    }
    if (!t->watched)
        tlb_fill(c, lin, view, &w, t);
    return 0;
}

/* Finds the page of `lin` for one kind of access. `lin` is canonical, or 32 bits wide. */
static inline int translate(struct soft_cpu *c, uint64_t lin, enum mmu_access access, unsigned view, struct target *t)
{
    struct soft_mmu *m = c->mmu;
    struct tlb_view *tv = &m->tlb[m->slot][view];
    unsigned i = tlb_index(lin);
    const struct tlb_entry *e = &tv->e[i];
    uint64_t tag = access == MMU_READ ? e->r : access == MMU_WRITE ? e->w : e->x;
    if (tlb_hit(tag, lin, 1)) {
        *t = (struct target){(uint8_t *)(uintptr_t)(lin + tag + e->host), (tv->gpa[i] & ~1ull) | (lin & (PAGE_SIZE - 1)), false,
                             false, false};
        return 0;
    }
    return translate_slow(c, lin, access, view, t);
}

/* Linear addresses are 32 bits wide outside 64-bit code; the CPU's own accesses are 64 bits wide in all of long mode.
 */
static inline bool narrow(const struct soft_cpu *c, bool implicit)
{
    return !(c->mode & MODE_CS64) && !(implicit && (c->efer & EFER_LMA));
}

/* ---- moving bytes ---- */

/* Single host accesses for the sizes of single guest accesses. */
static inline void copy(void *to, const void *from, unsigned size)
{
    switch (size) {
    case 1:
        *(mmu_u8 *)to = *(const mmu_u8 *)from;
        break;
    case 2:
        *(mmu_u16 *)to = *(const mmu_u16 *)from;
        break;
    case 4:
        *(mmu_u32 *)to = *(const mmu_u32 *)from;
        break;
    case 8:
        *(mmu_u64 *)to = *(const mmu_u64 *)from;
        break;
    case 16:
        __builtin_memcpy(to, from, 16);
        break;
    case 32:
        __builtin_memcpy(to, from, 32);
        break;
    default:
        memcpy(to, from, size);
    }
}

/* MMIO in naturally aligned pieces of at most 8 bytes. */
static unsigned mmio_piece(gpa_t gpa, unsigned left)
{
    unsigned n = 8;
    while (n > left || (gpa & (n - 1)))
        n /= 2;
    return n;
}

static void get(struct soft_cpu *c, const struct target *t, void *buf, unsigned size)
{
    if (t->host) {
        copy(buf, t->host, size);
        return;
    }
    const struct cpu_bus *bus = soft_bus(c);
    for (unsigned done = 0; done < size;) {
        unsigned n = mmio_piece(t->gpa + done, size - done);
        uint64_t v = bus->mmio_read(bus->opaque, c->vcpu.index, t->gpa + done, n);
        memcpy((uint8_t *)buf + done, &v, n);
        done += n;
    }
}

static void put(struct soft_cpu *c, const struct target *t, const void *buf, unsigned size)
{
    if (t->host) {
        if (t->rom)
            return;
        copy(t->host, buf, size);
        mem_page_dirty(mem_of(c), t->host);
        if (t->code)
            soft_code_written(c, t->gpa, size);
        return;
    }
    const struct cpu_bus *bus = soft_bus(c);
    for (unsigned done = 0; done < size;) {
        unsigned n = mmio_piece(t->gpa + done, size - done);
        uint64_t v = 0;
        memcpy(&v, (const uint8_t *)buf + done, n);
        code_requests(c);
        bus->mmio_write(bus->opaque, c->vcpu.index, t->gpa + done, n, v);
        code_requests(c); /* the write may have changed what memory is where */
        done += n;
    }
}

static bool misaligned(uint64_t lin, unsigned size)
{
    return size == 10 ? lin & 7 : size <= 8 && (lin & (size - 1));
}

/*
 * One access of up to 4096 bytes: at most two pages, both translated before a byte moves.
 */
static int access_bytes(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size, enum mmu_access access,
                        bool implicit)
{
    bool is32 = narrow(c, implicit);
    if (is32)
        lin = (uint32_t)lin;
    else if (!canonical(lin))
        return exc_raise_code(c, EXC_GP, 0);
    if (!implicit && aligned_only(c) && access != MMU_EXEC && misaligned(lin, size))
        return exc_raise_code(c, EXC_AC, 0);
    unsigned view = implicit ? TLB_VIEW_SUPER : c->mmu->view;
    unsigned first = PAGE_SIZE - (lin & (PAGE_SIZE - 1));
    struct target t;
    int r = translate(c, lin, access, view, &t);
    if (r)
        return r;
    struct target t2 = {0};
    if (size > first) {
        uint64_t next = lin + first;
        if (is32)
            next = (uint32_t)next;
        else if (!canonical(next))
            return exc_raise_code(c, EXC_GP, 0);
        if ((r = translate(c, next, access, view, &t2)))
            return r;
        /* The second walk may have replaced nothing of the first: targets are values. */
        if (access == MMU_WRITE) {
            put(c, &t, buf, first);
            put(c, &t2, (const uint8_t *)buf + first, size - first);
        } else {
            get(c, &t, buf, first);
            get(c, &t2, (uint8_t *)buf + first, size - first);
        }
    } else if (access == MMU_WRITE) {
        put(c, &t, buf, size);
    } else {
        get(c, &t, buf, size);
    }
    if (t.watched || t2.watched)
        dbg_check_access(c, lin, size, access == MMU_WRITE);
    return 0;
}

int mmu_read(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size)
{
    return access_bytes(c, lin, buf, size, MMU_READ, false);
}

int mmu_write(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size)
{
    return access_bytes(c, lin, (void *)buf, size, MMU_WRITE, false);
}

int mmu_read_block(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size)
{
    return access_bytes(c, lin, buf, size, MMU_READ, false);
}

int mmu_write_block(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size)
{
    return access_bytes(c, lin, (void *)buf, size, MMU_WRITE, false);
}

int mmu_read_sys(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size)
{
    return access_bytes(c, lin, buf, size, MMU_READ, true);
}

int mmu_write_sys(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size)
{
    return access_bytes(c, lin, (void *)buf, size, MMU_WRITE, true);
}

int mmu_probe_write(struct soft_cpu *c, uint64_t lin, unsigned size, bool implicit)
{
    bool is32 = narrow(c, implicit);
    unsigned view = implicit ? TLB_VIEW_SUPER : c->mmu->view;
    uint64_t last = lin + size - 1;
    if (is32) {
        lin = (uint32_t)lin;
        last = (uint32_t)last;
    } else if (!canonical(lin) || !canonical(last)) {
        return exc_raise_code(c, EXC_GP, 0);
    }
    struct target t;
    int r = translate(c, lin, MMU_WRITE, view, &t);
    if (!r && (lin ^ last) >> PAGE_SHIFT)
        r = translate(c, last & ~(PAGE_SIZE - 1), MMU_WRITE, view, &t);
    return r;
}

int mmu_rmw(struct soft_cpu *c, uint64_t lin, unsigned size, void **ret)
{
    *ret = NULL;
    if (narrow(c, false))
        lin = (uint32_t)lin;
    else if (!canonical(lin))
        return exc_raise_code(c, EXC_GP, 0);
    if (aligned_only(c) && misaligned(lin, size))
        return exc_raise_code(c, EXC_AC, 0);
    unsigned first = PAGE_SIZE - (lin & (PAGE_SIZE - 1));
    if (size > first)
        return mmu_probe_write(c, lin, size, false);
    struct target t;
    int r = translate(c, lin, MMU_WRITE, c->mmu->view, &t);
    if (r)
        return r;
    if (!t.host || t.rom || t.code || t.watched)
        return 0;
    mem_page_dirty(mem_of(c), t.host);
    *ret = t.host;
    return 0;
}

int mmu_page(struct soft_cpu *c, uint64_t lin, enum mmu_access access, void **ret)
{
    *ret = NULL;
    if (narrow(c, false))
        lin = (uint32_t)lin;
    else if (!canonical(lin))
        return exc_raise_code(c, EXC_GP, 0);
    struct target t;
    int r = translate(c, lin, access, c->mmu->view, &t);
    if (r || !t.host || t.watched)
        return r;
    if (access == MMU_WRITE) {
        if (t.rom || t.code)
            return 0;
        mem_page_dirty(mem_of(c), t.host);
    }
    *ret = t.host;
    return 0;
}

int mmu_fetch(struct soft_cpu *c, uint64_t lin, const uint8_t **ret_host, gpa_t *ret_gpa)
{
    if (narrow(c, false))
        lin = (uint32_t)lin;
    else if (!canonical(lin))
        return exc_raise_code(c, EXC_GP, 0);
    struct target t;
    int r = translate(c, lin, MMU_EXEC, c->mmu->view, &t);
    if (r)
        return r;
    *ret_host = t.host;
    *ret_gpa = t.gpa;
    return 0;
}

int mmu_fetch_bytes(struct soft_cpu *c, uint64_t lin, uint8_t *buf, unsigned n)
{
    return access_bytes(c, lin, buf, n, MMU_EXEC, false);
}

int mmu_debug_translate(struct soft_cpu *c, uint64_t lin, gpa_t *ret)
{
    if (!(c->efer & EFER_LMA))
        lin = (uint32_t)lin;
    else if (!canonical(lin))
        return -1;
    struct walk_request q = {lin, MMU_READ, false, false, true};
    struct walk_result w;
    if (walk_page(c, &q, &w))
        return -1;
    *ret = w.gpa;
    return 0;
}

/* ---- life ---- */

int mmu_init(struct soft_cpu *c)
{
    struct soft_mmu *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        return -ENOMEM;
    unsigned phys_bits = 36;
    const struct cpuid_table *t = &c->soft->cpuid;
    for (unsigned i = 0; i < t->n; i++)
        if (t->entry[i].leaf == 0x80000008)
            phys_bits = t->entry[i].eax & 0xff;
    m->phys_mask = BIT64(MIN(MAX(phys_bits, 32), 52)) - 1;
    m->next_gen = 1;
    m->never[0] = (struct tlb_entry){tlb_none(0), tlb_none(0), tlb_none(0), 0};
    for (unsigned i = 0; i < TLB_SLOTS; i++)
        for (unsigned v = 0; v < TLB_VIEWS; v++)
            view_clear(&m->tlb[i][v]);
    c->mmu = m;
    mmu_flush(c, true);
    return 0;
}

void mmu_free(struct soft_cpu *c)
{
    if (c->mmu)
        munmap(c->mmu, sizeof *c->mmu);
    c->mmu = NULL;
}
