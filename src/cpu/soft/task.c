/*
 * The hardware task switch (SDM 3A, 7.3). Operating systems of today use it for double faults at most. Everything that
 * can fail on the side of the old task is probed before anything changes; what fails later is the new task's exception.
 * On the vCPU's thread.
 */
#include "cpu/soft/task.h"

#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/walk.h"

#define DR6_BT BIT(15)

/* Offsets in the two forms of TSS; registers and selectors in encoding order at `stride`. */
struct tss_layout {
    uint8_t size, link, cr3, ip, flags, gpr, seg, ldt, stride;
    uint8_t nseg; /* ES, CS, SS, DS and, in 32 bits, FS, GS */
    uint8_t min_limit;
};
static const struct tss_layout layout16 = {44, 0, 0, 14, 16, 18, 34, 42, 2, 4, 43};
static const struct tss_layout layout32 = {104, 0, 28, 32, 36, 40, 72, 96, 4, 6, 103};

static const struct tss_layout *layout_of(unsigned type)
{
    return type & 8 ? &layout32 : &layout16;
}

int task_check(struct soft_cpu *c, uint16_t sel, uint32_t ext, struct seg_desc *ret)
{
    uint32_t error = (sel & ~3u) | ext;
    if (sel_null(sel) || (sel & 4))
        return exc_raise_code(c, EXC_GP, error);
    int r = seg_desc_get(c, sel, ret);
    if (r > 0)
        return r;
    if (r < 0 || desc_s(ret->raw) || (desc_type(ret->raw) & ~8u) != DESC_TYPE_TSS16)
        return exc_raise_code(c, EXC_GP, error);
    if (!desc_p(ret->raw))
        return exc_raise_code(c, EXC_NP, error);
    return 0;
}

static int save_old(struct soft_cpu *c, uint64_t flags)
{
    const struct tss_layout *l = layout_of(c->tr.attr);
    uint8_t image[104];
    int r = mmu_read_sys(c, c->tr.base, image, l->size);
    if (r)
        return r;
    memcpy(image + l->ip, &c->rip, l->stride);
    memcpy(image + l->flags, &flags, l->stride);
    for (unsigned i = 0; i < 8; i++)
        memcpy(image + l->gpr + i * l->stride, &c->gpr[i], l->stride);
    for (unsigned i = 0; i < l->nseg; i++)
        le16_put(image + l->seg + i * l->stride, c->seg[i].sel);
    return mmu_write_sys(c, c->tr.base + l->ip, image + l->ip, l->ldt - l->ip);
}

static int load_ldt(struct soft_cpu *c, uint16_t sel)
{
    struct seg_desc d;
    c->ldt = seg_null(sel, 0);
    if (sel_null(sel))
        return 0;
    if (sel & 4)
        return exc_raise_code(c, EXC_TS, sel & ~3u);
    int r = seg_desc_read(c, sel, EXC_TS, &d);
    if (r)
        return r;
    if (desc_s(d.raw) || desc_type(d.raw) != DESC_TYPE_LDT || !desc_p(d.raw))
        return exc_raise_code(c, EXC_TS, sel & ~3u);
    c->ldt = seg_from_desc(sel, d.raw);
    return 0;
}

static int load_cs(struct soft_cpu *c, uint16_t sel)
{
    struct seg_desc d;
    uint32_t error = sel & ~3u;
    if (sel_null(sel))
        return exc_raise_code(c, EXC_TS, error);
    int r = seg_desc_read(c, sel, EXC_TS, &d);
    if (r)
        return r;
    unsigned dpl = desc_dpl(d.raw), rpl = sel & 3;
    if (!desc_code(d.raw) || (desc_conforming(d.raw) ? dpl > rpl : dpl != rpl))
        return exc_raise_code(c, EXC_TS, error);
    if (!desc_p(d.raw))
        return exc_raise_code(c, EXC_NP, error);
    if ((r = seg_set_accessed(c, &d)))
        return r;
    c->seg[CS] = seg_from_desc(sel, d.raw);
    return 0;
}

static int load_data(struct soft_cpu *c, unsigned seg, uint16_t sel, unsigned cpl)
{
    struct seg_desc d;
    uint32_t error = sel & ~3u;
    if (seg != SS && sel_null(sel))
        return 0;
    int r = seg == SS ? seg_check_ss(c, sel, cpl, EXC_TS, &d) : seg_desc_read(c, sel, EXC_TS, &d);
    if (r)
        return r;
    if (seg != SS) {
        bool conforming = desc_code(d.raw) && desc_conforming(d.raw);
        unsigned dpl = desc_dpl(d.raw);
        if (!desc_readable(d.raw) || (!conforming && ((sel & 3) > dpl || cpl > dpl)))
            return exc_raise_code(c, EXC_TS, error);
        if (!desc_p(d.raw))
            return exc_raise_code(c, EXC_NP, error);
    }
    if ((r = seg_set_accessed(c, &d)))
        return r;
    c->seg[seg] = seg_from_desc(sel, d.raw);
    return 0;
}

/* Selectors are in c->seg; their hidden parts follow here, with the new task's exceptions. */
static int load_segments(struct soft_cpu *c, const uint16_t sel[SEG_COUNT], bool vm86)
{
    if (vm86) {
        for (unsigned i = 0; i < SEG_COUNT; i++)
            seg_load_real(c, i, sel[i]);
        soft_mode_changed(c);
        return 0;
    }
    unsigned cpl = sel[CS] & 3;
    static const uint8_t order[] = {SS, DS, ES, FS, GS};
    int r = load_cs(c, sel[CS]);
    for (unsigned i = 0; !r && i < ARRAY_SIZE(order); i++)
        r = load_data(c, order[i], sel[order[i]], cpl);
    if (r) {
        struct soft_exc exc = c->exc;
        soft_mode_changed(c);
        c->exc = exc;
        return r;
    }
    soft_mode_changed(c);
    return seg_in_limit(&c->seg[CS], c->rip, 1) ? 0 : exc_raise_code(c, EXC_GP, 0);
}

int task_switch(struct soft_cpu *c, uint16_t sel, struct seg_desc *d, enum task_source source)
{
    const struct tss_layout *l = layout_of(desc_type(d->raw)), *old = layout_of(c->tr.attr);
    struct soft_seg tr = seg_from_desc(sel, d->raw);
    uint32_t error = sel & ~3u;
    bool busy = desc_type(d->raw) & DESC_BUSY;
    if (source == TASK_IRET ? !busy : busy)
        return exc_raise_code(c, source == TASK_IRET ? EXC_TS : EXC_GP, error);
    if (tr.limit < l->min_limit)
        return exc_raise_code(c, EXC_TS, error);
    uint8_t image[104];
    int r = mmu_read_sys(c, tr.base, image, l->size);
    if (r || (r = mmu_probe_write(c, c->tr.base, old->size, true)))
        return r;
    bool nested = source == TASK_CALL || source == TASK_GATE;
    if (nested && (r = mmu_probe_write(c, tr.base, 2, true)))
        return r;

    uint64_t flags = flags_get(c);
    if (source == TASK_IRET)
        flags &= ~(uint64_t)FLAG_NT;
    if (!nested) {
        struct seg_desc od;
        r = seg_desc_get(c, c->tr.sel, &od);
        if (r > 0 || (!r && (r = seg_set_busy(c, &od, false))))
            return r;
    }
    if ((r = save_old(c, flags)))
        return r;
    if (nested && (r = mmu_write_sys(c, tr.base + l->link, &c->tr.sel, 2)))
        return r;
    if (source != TASK_IRET && (r = seg_set_busy(c, d, true)))
        return r;

    /* The commit point: from here on everything belongs to the new task. */
    c->tr = seg_from_desc(sel, d->raw);
    c->tr.attr |= DESC_BUSY;
    c->cr0 |= CR0_TS;
    if (l == &layout32 && (c->cr0 & CR0_PG)) {
        uint64_t old_cr3 = c->cr3;
        c->cr3 = le32_get(image + l->cr3);
        if ((c->cr4 & CR4_PAE) && walk_load_pdptes(c, c->cr3))
            return exc_raise_code(c, EXC_GP, 0);
        mmu_cr3_written(c, old_cr3, false);
    }
    uint32_t new_flags = l->stride == 4 ? le32_get(image + l->flags) : le16_get(image + l->flags);
    c->rip = l->stride == 4 ? le32_get(image + l->ip) : le16_get(image + l->ip);
    for (unsigned i = 0; i < 8; i++)
        c->gpr[i] = l->stride == 4 ? le32_get(image + l->gpr + i * 4)
                                   : (c->gpr[i] & ~0xffffull) | le16_get(image + l->gpr + i * 2);
    if (nested)
        new_flags |= FLAG_NT;
    uint16_t sels[SEG_COUNT] = {0};
    for (unsigned i = 0; i < l->nseg; i++) {
        sels[i] = le16_get(image + l->seg + i * l->stride);
        c->seg[i] = seg_null(sels[i], i == SS ? sels[CS] & 3 : 0);
    }
    for (unsigned i = l->nseg; i < SEG_COUNT; i++)
        c->seg[i] = seg_null(0, 0);
    sels[CS] = c->seg[CS].sel;
    c->rf_fresh = true;
    flags_write(c, new_flags,
                FLAGS_STATUS | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT |
                    (l->stride == 4 ? FLAG_RF | FLAG_VM | FLAG_AC | FLAG_ID : 0));
    if (l->stride == 2)
        flags_write(c, 0, FLAG_VM);
    c->dr[7] &= ~0x155ull; /* local breakpoints and LE end with the task */
    mmu_debug_changed(c);
    soft_mode_changed(c);
    if ((r = load_ldt(c, le16_get(image + l->ldt))))
        return r;
    if ((r = load_segments(c, sels, new_flags & FLAG_VM)))
        return r;
    if (l->stride == 4 && (image[100] & 1))
        return exc_debug(c, DR6_BT);
    return 0;
}
