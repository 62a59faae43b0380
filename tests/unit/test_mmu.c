/*
 * The software MMU: a plain page walker, written here from the manual and sharing nothing with the engine, against mmu_*() on random
 * tables, modes and accesses, with the TLB warm between them; then the special cases one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/fd.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/sys.h"
#include "mem/mem.h"

#define RAM (16 * MIB)
#define PHYS_BITS 40

struct fixture {
    struct mem *mem;
    struct soft_engine engine;
    struct soft_cpu *c;
    struct cpu_bus bus;
    gpa_t mmio_at[64];
    unsigned mmio_size[64], mmio_n;
};

static uint64_t mmio_read(void *opaque, unsigned cpu, gpa_t gpa, unsigned size)
{
    struct fixture *f = opaque;
    if (f->mmio_n < 64) {
        f->mmio_at[f->mmio_n] = gpa;
        f->mmio_size[f->mmio_n++] = size;
    }
    return bits_trunc(gpa, size);
}

static void mmio_write(void *opaque, unsigned cpu, gpa_t gpa, unsigned size, uint64_t val)
{
    mmio_read(opaque, cpu, gpa, size);
}

static void setup(struct fixture *f)
{
    struct err err = {0};
    memset(f, 0, sizeof *f);
    assert_int_equal(mem_new(RAM, 3 * GIB, &f->mem, &err), 0);
    f->bus = (struct cpu_bus){.opaque = f, .mmio_read = mmio_read, .mmio_write = mmio_write};
    f->engine.engine.cfg.mem = f->mem;
    f->engine.engine.cfg.bus = &f->bus;
    f->engine.cpuid.n = 1;
    f->engine.cpuid.entry[0] = (struct cpuid_entry){.leaf = 0x80000008, .eax = PHYS_BITS};
    f->c = aligned_alloc(64, ALIGN_UP(sizeof *f->c, 64));
    memset(f->c, 0, sizeof *f->c);
    f->c->vcpu.engine = &f->engine.engine;
    f->c->soft = &f->engine;
    f->c->rflags_rest = FLAG_1;
    assert_int_equal(mmu_init(f->c), 0);
}

static void teardown(struct fixture *f)
{
    mmu_free(f->c);
    free(f->c);
    mem_free(f->mem);
}

static uint64_t ram64(struct fixture *f, gpa_t gpa)
{
    uint64_t v;
    assert_int_equal(mem_read64(f->mem, gpa, &v), 0);
    return v;
}
static void set64(struct fixture *f, gpa_t gpa, uint64_t v)
{
    assert_int_equal(mem_write64(f->mem, gpa, v), 0);
}

/* Puts the CPU into a mode by its registers, as a mode switch leaves it. */
static void mode(struct fixture *f, uint64_t cr0, uint64_t cr4, uint64_t efer, unsigned cpl, bool ac)
{
    struct soft_cpu *c = f->c;
    c->cr0 = cr0;
    c->cr4 = cr4;
    c->efer = efer;
    bool lma = efer & EFER_LMA;
    c->seg[CS].attr = 0x9b | cpl << 5 | (lma ? SEG_ATTR_L : SEG_ATTR_DB) | SEG_ATTR_G;
    c->seg[SS].attr = 0x93 | cpl << 5 | SEG_ATTR_DB | SEG_ATTR_G;
    c->seg[CS].limit = c->seg[SS].limit = 0xffffffff;
    c->rflags_rest = FLAG_1 | (ac ? FLAG_AC : 0);
    soft_mode_changed(c);
}

/* ---- the reference ---- */

struct ref {
    bool ok;
    uint32_t error;
    uint64_t gpa;
    /* Entries used, to be marked accessed; the last one dirty when written. */
    gpa_t at[4];
    unsigned n, size;
};

enum { KIND_32, KIND_PAE, KIND_LONG };

static struct ref reference(struct fixture *f, int kind, uint64_t lin, enum mmu_access a)
{
    struct soft_cpu *c = f->c;
    struct ref r = {.size = kind == KIND_32 ? 4 : 8};
    bool user = c->cpl == 3, nxe = c->efer & EFER_NXE;
    uint32_t base_error = 0;
    if (a == MMU_WRITE)
        base_error |= 2;
    if (user)
        base_error |= 4;
    if (a == MMU_EXEC && ((c->cr4 & CR4_SMEP) || (nxe && kind != KIND_32)))
        base_error |= 16;
    bool rw = true, us = true, xd = false;
    uint64_t entry, table, at;
    r.error = base_error;
    if (kind == KIND_32) {
        at = (c->cr3 & ~0xfffull) + (lin >> 22 & 0x3ff) * 4;
        entry = (uint32_t)ram64(f, at);
        r.at[r.n++] = at;
        if (!(entry & 1))
            return r;
        rw = entry & 2, us = entry & 4;
        if ((entry & 0x80) && (c->cr4 & CR4_PSE)) {
            if (entry & BIT(21)) /* 40 physical bits: only this one is reserved */
                return r.error |= 9, r;
            r.gpa = ((entry >> 13 & 0xff) << 32) | (entry & 0xffc00000) | (lin & 0x3fffff);
        } else {
            at = (entry & 0xfffff000) + (lin >> 12 & 0x3ff) * 4;
            entry = (uint32_t)ram64(f, at);
            r.at[r.n++] = at;
            if (!(entry & 1))
                return r;
            rw = rw && (entry & 2), us = us && (entry & 4);
            r.gpa = (entry & 0xfffff000) | (lin & 0xfff);
        }
    } else {
        const uint64_t frame = 0x000ffffffffff000ull;
        uint64_t too_high = frame & ~((1ull << PHYS_BITS) - 1);
        if (kind == KIND_PAE)
            too_high |= 0x7ff0000000000000ull;
        if (!nxe)
            too_high |= 1ull << 63;
        int level = kind == KIND_LONG ? 4 : 2;
        table = c->cr3 & frame;
        if (kind == KIND_PAE) {
            entry = c->pdpte[lin >> 30 & 3];
            if (!(entry & 1))
                return r;
            table = entry & frame;
        }
        for (;; level--) {
            unsigned shift = 12 + 9 * (level - 1);
            at = table + (lin >> shift & 511) * 8;
            entry = ram64(f, at);
            r.at[r.n++] = at;
            if (!(entry & 1))
                return r;
            bool page = level == 1, bad = entry & too_high;
            if (entry & 0x80) {
                if (level == 4)
                    bad = true;
                if (level == 3 || level == 2) {
                    page = true;
                    bad = bad || (entry & ((1ull << shift) - 1) & frame & ~BIT64(12));
                }
            }
            if (bad)
                return r.error |= 9, r;
            rw = rw && (entry & 2), us = us && (entry & 4), xd = xd || entry >> 63;
            if (page) {
                uint64_t low = (1ull << shift) - 1;
                r.gpa = (entry & frame & ~low) | (lin & low);
                break;
            }
            table = entry & frame;
        }
    }
    r.error = base_error | 1;
    if (a == MMU_EXEC && xd && nxe)
        return r;
    if (user) {
        if (!us || (a == MMU_WRITE && !rw))
            return r;
    } else {
        if (us && a == MMU_EXEC && (c->cr4 & CR4_SMEP))
            return r;
        if (us && a != MMU_EXEC && (c->cr4 & CR4_SMAP) && !(c->rflags_rest & FLAG_AC))
            return r;
        if (a == MMU_WRITE && !rw && (c->cr0 & CR0_WP))
            return r;
    }
    r.ok = true;
    return r;
}

/* ---- random tables ---- */

static uint64_t rnd_state = 88172645463325252ull;
static uint64_t rnd(void)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    return rnd_state ^= rnd_state << 17;
}
static bool one_in(unsigned n)
{
    return rnd() % n == 0;
}

/* Pages by level: tables below 64 KiB, data above 1 MiB. */
static uint64_t rnd_entry(int kind, int level)
{
    uint64_t e = 0;
    if (!one_in(12))
        e |= 1;
    if (!one_in(4))
        e |= 2;
    if (!one_in(3))
        e |= 4;
    e |= rnd() & 0x168; /* PCD, A, D, G: any */
    bool leaf = level == 1;
    if (level >= 2 && level <= (kind == KIND_LONG ? 4 : 2) && one_in(level == 4 ? 40 : 4)) {
        e |= 0x80;
        leaf = true;
    }
    if (leaf && level == 2) {
        if (kind == KIND_32)
            e |= (rnd() % 4) * 4 * MIB | (one_in(20) ? BIT(21) : 0) | (one_in(20) ? BIT(13) : 0);
        else
            e |= (rnd() % 8) * 2 * MIB | (one_in(30) ? BIT(13 + rnd() % 8) : 0) | (one_in(10) ? BIT(12) : 0);
    } else if (leaf && level >= 3) {
        e |= one_in(10) ? 4 * GIB : 0;
        e |= one_in(20) ? BIT(13) : 0;
    } else if (leaf) {
        e |= (256 + rnd() % 256) << 12;
    } else {
        e |= (level == 4 ? 4 + rnd() % 4 : level == 3 ? 8 + rnd() % 4 : 12 + rnd() % 4) << 12;
    }
    if (kind != KIND_32) {
        if (one_in(6))
            e |= 1ull << 63;
        if (one_in(40))
            e |= 1ull << (PHYS_BITS + rnd() % (63 - PHYS_BITS));
    }
    return e;
}

static void rnd_tables(struct fixture *f, int kind)
{
    unsigned size = kind == KIND_32 ? 4 : 8;
    for (unsigned page = 0; page < 16; page++)
        for (unsigned i = 0; i < PAGE_SIZE / size; i++) {
            uint64_t e = rnd_entry(kind, 4 - (int)page / 4);
            assert_int_equal(mem_write(f->mem, page * PAGE_SIZE + i * size, &e, size), 0);
        }
}

static uint64_t rnd_lin(int kind)
{
    /* Few distinct indices per level, so that the TLB gets hits. */
    uint64_t lin = (rnd() % 6) << 12 | (rnd() & 0xff8);
    if (kind == KIND_32)
        return lin | (rnd() % 6) << 22;
    lin |= (rnd() % 6) << 21 | (rnd() % 4) << 30;
    if (kind == KIND_LONG) {
        lin |= (rnd() % 6) << 39;
        if (one_in(3))
            lin |= 0xffff800000000000ull;
    }
    return lin;
}

static void rnd_mode(struct fixture *f, int kind)
{
    uint64_t cr0 = CR0_PE | CR0_PG | (one_in(2) ? CR0_WP : 0), cr4 = 0, efer = one_in(3) ? 0 : EFER_NXE;
    if (kind == KIND_32)
        cr4 |= one_in(4) ? 0 : CR4_PSE;
    else
        cr4 |= CR4_PAE;
    if (kind == KIND_LONG)
        efer |= EFER_LME | EFER_LMA;
    cr4 |= (one_in(2) ? CR4_SMEP : 0) | (one_in(2) ? CR4_SMAP : 0) | (one_in(2) ? CR4_PGE : 0);
    mode(f, cr0, cr4, efer, one_in(2) ? 3 : 0, one_in(2));
    f->c->cr3 = (rnd() % 4 + (kind == KIND_LONG ? 0 : 8)) * PAGE_SIZE;
    for (unsigned i = 0; i < 4; i++)
        f->c->pdpte[i] = (one_in(8) ? 0 : 1) | (8 + rnd() % 4) << 12;
    mmu_flush(f->c, true);
}

static void try_access(struct fixture *f, int kind, uint64_t lin, enum mmu_access a)
{
    struct soft_cpu *c = f->c;
    struct ref r = reference(f, kind, lin, a);
    uint64_t want[4];
    for (unsigned i = 0; i < r.n; i++) {
        want[i] = bits_trunc(ram64(f, r.at[i]), r.size);
        if (r.ok)
            want[i] |= BIT(5) | (a == MMU_WRITE && i == r.n - 1 ? BIT(6) : 0);
    }
    bool in_ram = mem_find(f->mem, r.gpa);
    uint64_t v = rnd(), got = 0;
    if (r.ok && a != MMU_WRITE && in_ram)
        set64(f, r.gpa & ~7ull, v);
    int code;
    gpa_t gpa = 0;
    const uint8_t *host = NULL;
    f->mmio_n = 0;
    if (a == MMU_READ)
        code = mmu_read64(c, lin, &got);
    else if (a == MMU_WRITE)
        code = mmu_write64(c, lin, v);
    else
        code = mmu_fetch(c, lin, &host, &gpa);
    assert_int_equal(code, r.ok ? 0 : INSN_FAULT);
    if (!r.ok) {
        assert_int_equal(c->exc.vector, EXC_PF);
        assert_int_equal(c->exc.error, r.error);
        assert_int_equal(c->exc.cr2, lin);
    } else if (a == MMU_EXEC) {
        assert_int_equal(gpa, r.gpa);
        assert_int_equal(host != NULL, in_ram);
    } else if (in_ram) {
        assert_int_equal(a == MMU_READ ? got : ram64(f, r.gpa), v);
    } else {
        assert_int_equal(f->mmio_n, 1);
        assert_int_equal(f->mmio_at[0], r.gpa);
    }
    for (unsigned i = 0; i < r.n; i++)
        assert_int_equal(bits_trunc(ram64(f, r.at[i]), r.size), want[i]);
}

/* Large pages may cover the tables themselves: such data accesses are left out. */
static bool hits_tables(struct fixture *f, int kind, uint64_t lin, enum mmu_access a)
{
    struct ref r = reference(f, kind, lin, a);
    return r.ok && r.gpa < 64 * KIB;
}

static void random_walks(void **state)
{
    struct fixture f;
    setup(&f);
    for (unsigned round = 0; round < 300; round++) {
        int kind = round % 3;
        rnd_tables(&f, kind);
        rnd_mode(&f, kind);
        for (unsigned i = 0; i < 400; i++) {
            uint64_t lin = rnd_lin(kind);
            enum mmu_access a = rnd() % 3;
            if (!hits_tables(&f, kind, lin, a))
                try_access(&f, kind, lin, a);
            if (one_in(16)) /* privilege and AC change without any flush */
                mode(&f, f.c->cr0, f.c->cr4, f.c->efer, one_in(2) ? 3 : 0, one_in(2));
            if (one_in(16)) {
                /* Change the entry that maps an address, then INVLPG any address of its page. */
                struct ref r = reference(&f, kind, lin, MMU_READ);
                bool leaf = r.gpa || r.ok;
                if (leaf && r.n) {
                    uint64_t e = bits_trunc(ram64(&f, r.at[r.n - 1]), r.size) ^ (one_in(2) ? 2 : 4) ^ (one_in(3) ? 1 : 0);
                    assert_int_equal(mem_write(f.mem, r.at[r.n - 1], &e, r.size), 0);
                    /* Another linear address may use the same entry; only a full flush is right for them all. */
                    if (one_in(2)) {
                        mmu_flush_page(f.c, lin);
                        if (!hits_tables(&f, kind, lin, a))
                            try_access(&f, kind, lin, a);
                    }
                    mmu_flush(f.c, one_in(2) || (f.c->cr4 & CR4_PGE));
                }
            }
        }
    }
    teardown(&f);
}

/* ---- special cases: identity map of the first 2 MiB by 4K pages, PML4 at 0x1000 ---- */

#define PT 0x4000

static void identity(struct fixture *f)
{
    setup(f);
    set64(f, 0x1000, 0x2000 | 7);
    set64(f, 0x2000, 0x3000 | 7);
    set64(f, 0x3000, PT | 7);
    set64(f, 0x3008, 0x200000 | 0x87); /* 2 MiB page at 2 MiB */
    for (unsigned i = 0; i < 512; i++)
        set64(f, PT + i * 8, i << 12 | 7);
    f->c->cr3 = 0x1000;
    mode(f, CR0_PE | CR0_PG | CR0_WP, CR4_PAE, EFER_LME | EFER_LMA | EFER_NXE, 0, false);
    mmu_flush(f->c, true);
}

static void crossing_store_is_all_or_nothing(void **state)
{
    struct fixture f;
    identity(&f);
    set64(&f, PT + 0x101 * 8, 0); /* page 0x101 absent */
    set64(&f, 0x100ff8, 0x1111111111111111);
    assert_int_equal(mmu_write64(f.c, 0x100ffc, ~0ull), INSN_FAULT);
    assert_int_equal(f.c->exc.cr2, 0x101000);
    assert_int_equal(f.c->exc.error, PFERR_W);
    assert_int_equal(ram64(&f, 0x100ff8), 0x1111111111111111);
    set64(&f, PT + 0x101 * 8, 0x105000 | 3); /* not contiguous */
    assert_int_equal(mmu_write64(f.c, 0x100ffc, 0x8877665544332211), 0);
    assert_int_equal(ram64(&f, 0x100ff8) >> 32, 0x44332211);
    assert_int_equal((uint32_t)ram64(&f, 0x105000), 0x88776655);
    uint64_t v;
    assert_int_equal(mmu_read64(f.c, 0x100ffc, &v), 0);
    assert_int_equal(v, 0x8877665544332211);
    teardown(&f);
}

static void writes_wait_for_the_dirty_bit(void **state)
{
    struct fixture f;
    uint64_t v;
    identity(&f);
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    assert_int_equal(ram64(&f, PT + 0x100 * 8) & 0x60, 0x20);
    assert_int_equal(mmu_write64(f.c, 0x100000, 1), 0);
    assert_int_equal(ram64(&f, PT + 0x100 * 8) & 0x60, 0x60);
    teardown(&f);
}

static void code_pages_and_dirty_tracking_take_the_slow_path(void **state)
{
    struct fixture f;
    identity(&f);
    assert_int_equal(mmu_write64(f.c, 0x100000, 1), 0);
    assert_true(mmu_protect_code(f.c, 0x100000)); /* there was an entry to write by */
    assert_false(mmu_protect_code(f.c, 0x100000));
    assert_false(mmu_protect_code(f.c, 0x1f0000));
    mem_track_dirty(f.mem, true);
    mmu_flush(f.c, true);
    assert_int_equal(mmu_write64(f.c, 0x102000, 1), 0);
    assert_int_equal(mmu_write64(f.c, 0x102008, 1), 0);
    uint64_t *bits = xcalloc(RAM / PAGE_SIZE / 64, 8);
    mem_take_dirty(f.mem, bits);
    assert_true(bits[0x102 / 64] >> (0x102 % 64) & 1);
    assert_int_equal(mmu_write64(f.c, 0x102010, 1), 0); /* again: the mark was taken away */
    memset(bits, 0, RAM / PAGE_SIZE / 8);
    mem_take_dirty(f.mem, bits);
    assert_true(bits[0x102 / 64] >> (0x102 % 64) & 1);
    free(bits);
    teardown(&f);
}

static void large_pages_go_whole(void **state)
{
    struct fixture f;
    uint64_t v;
    identity(&f);
    set64(&f, 0x200000, 0xaa);
    set64(&f, 0x400000, 0xbb);
    assert_int_equal(mmu_read64(f.c, 0x200000, &v), 0);
    assert_int_equal(v, 0xaa);
    set64(&f, 0x3008, 0x400000 | 0x87);
    mmu_flush_page(f.c, 0x3ff000); /* another address of the same page */
    assert_int_equal(mmu_read64(f.c, 0x200000, &v), 0);
    assert_int_equal(v, 0xbb);
    teardown(&f);
}

static void pcids_keep_their_translations(void **state)
{
    struct fixture f;
    uint64_t v;
    identity(&f);
    f.engine.cpuid.n = 3;
    f.engine.cpuid.entry[1] = (struct cpuid_entry){.leaf = 1, .ecx = BIT(17)};
    f.engine.cpuid.entry[2] = (struct cpuid_entry){.leaf = 7};
    set64(&f, 0x100000, 0xaa);
    set64(&f, 0x101000, 0xbb);
    assert_int_equal(sys_write_cr4(f.c, f.c->cr4 | CR4_PCIDE), INSN_BREAK);
    assert_int_equal(sys_write_cr3(f.c, 0x1001), INSN_BREAK);
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    set64(&f, PT + 0x100 * 8, 0x101000 | 7);
    assert_int_equal(sys_write_cr3(f.c, 0x1002), INSN_BREAK); /* a new PCID sees the change */
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    assert_int_equal(v, 0xbb);
    assert_int_equal(sys_write_cr3(f.c, 0x1001 | BIT64(63)), INSN_BREAK); /* no flush: the old one stays */
    assert_int_equal(f.c->cr3, 0x1001);
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    assert_int_equal(v, 0xaa);
    mmu_flush_pcid(f.c, 2);
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    assert_int_equal(v, 0xaa);
    assert_int_equal(sys_write_cr3(f.c, 0x1001), INSN_BREAK);
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    assert_int_equal(v, 0xbb);
    /* CR4.PCIDE cannot be set while CR3 names a PCID; reserved CR3 bits fault. */
    assert_int_equal(sys_write_cr3(f.c, 1ull << 45), INSN_FAULT);
    assert_int_equal(f.c->exc.vector, EXC_GP);
    /* More PCIDs than there are slots. */
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(sys_write_cr3(f.c, (0x1000 + i % 20) | BIT64(63)), INSN_BREAK);
        assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
        assert_int_equal(v, 0xbb);
    }
    teardown(&f);
}

static void alignment_is_checked(void **state)
{
    struct fixture f;
    uint64_t v;
    uint8_t b;
    identity(&f);
    mode(&f, CR0_PE | CR0_PG | CR0_AM, CR4_PAE, EFER_LME | EFER_LMA, 3, true);
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    assert_int_equal(mmu_read64(f.c, 0x100004, &v), INSN_FAULT);
    assert_int_equal(f.c->exc.vector, EXC_AC);
    assert_int_equal(mmu_read8(f.c, 0x100003, &b), 0);
    assert_int_equal(mmu_read_sys(f.c, 0x100004, &v, 8), 0); /* the CPU's own accesses are not */
    mode(&f, CR0_PE | CR0_PG | CR0_AM, CR4_PAE, EFER_LME | EFER_LMA, 0, true);
    assert_int_equal(mmu_read64(f.c, 0x100004, &v), 0);
    teardown(&f);
}

static void mmio_comes_in_aligned_pieces(void **state)
{
    struct fixture f;
    uint8_t buf[16];
    identity(&f);
    set64(&f, PT + 0x100 * 8, 0xfee00000 | 7);
    assert_int_equal(mmu_read(f.c, 0x100004, buf, 16), 0);
    assert_int_equal(f.mmio_n, 3);
    assert_int_equal(f.mmio_at[0], 0xfee00004);
    assert_int_equal(f.mmio_size[0], 4);
    assert_int_equal(f.mmio_size[1], 8);
    assert_int_equal(f.mmio_at[2], 0xfee00010);
    void *p = buf;
    assert_int_equal(mmu_rmw(f.c, 0x100000, 4, &p), 0);
    assert_null(p);
    teardown(&f);
}

static void rom_ignores_writes(void **state)
{
    struct fixture f;
    struct err err = {0};
    uint64_t v;
    identity(&f);
    assert_int_equal(mem_add_rom(f.mem, 0xfffff000, PAGE_SIZE, "ROMROMRO", 8, &err), 0);
    set64(&f, PT + 0x100 * 8, 0xfffff000 | 7);
    assert_int_equal(mmu_write64(f.c, 0x100000, 0), 0);
    assert_int_equal(mmu_read64(f.c, 0x100000, &v), 0);
    assert_memory_equal(&v, "ROMROMRO", 8);
    void *p = &v;
    assert_int_equal(mmu_page(f.c, 0x100000, MMU_WRITE, &p), 0);
    assert_null(p);
    teardown(&f);
}

static void watched_pages_report_accesses(void **state)
{
    struct fixture f;
    uint64_t v;
    identity(&f);
    f.c->dr[0] = 0x100010;
    f.c->dr[7] = 0x400 | 1 | 0xd << 16; /* DR0: writes, 4 bytes */
    mmu_debug_changed(f.c);
    assert_int_equal(mmu_read64(f.c, 0x100010, &v), 0);
    assert_int_equal(mmu_write64(f.c, 0x100008, v), 0);
    assert_int_equal(f.c->dr6_hits, 0);
    assert_int_equal(mmu_write8(f.c, 0x100013, 1), 0);
    assert_int_equal(f.c->dr6_hits, 1);
    assert_int_equal(dbg_insn_done(f.c, false), INSN_FAULT);
    assert_int_equal(f.c->exc.vector, EXC_DB);
    assert_int_equal(f.c->exc.dr6, 1);
    teardown(&f);
}

static void no_address_beyond_canonical(void **state)
{
    struct fixture f;
    uint64_t v;
    identity(&f);
    assert_int_equal(mmu_read(f.c, 0x0000800000000000ull, &v, 8), INSN_FAULT);
    assert_int_equal(f.c->exc.vector, EXC_GP);
    gpa_t gpa;
    assert_int_equal(mmu_debug_translate(f.c, 0x123456, &gpa), 0);
    assert_int_equal(gpa, 0x123456);
    assert_int_equal(mmu_debug_translate(f.c, 0x12345678000, &gpa), -1);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_walks),
        cmocka_unit_test(crossing_store_is_all_or_nothing),
        cmocka_unit_test(writes_wait_for_the_dirty_bit),
        cmocka_unit_test(code_pages_and_dirty_tracking_take_the_slow_path),
        cmocka_unit_test(large_pages_go_whole),
        cmocka_unit_test(pcids_keep_their_translations),
        cmocka_unit_test(alignment_is_checked),
        cmocka_unit_test(mmio_comes_in_aligned_pieces),
        cmocka_unit_test(rom_ignores_writes),
        cmocka_unit_test(watched_pages_report_accesses),
        cmocka_unit_test(no_address_beyond_canonical),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
