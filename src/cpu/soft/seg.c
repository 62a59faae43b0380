/*
 * Segmentation (SDM 3A, ch. 3 and 5): limit and type checks, descriptors, segment register loads, and the mode bits
 * that follow from them. On the vCPU's thread.
 */
#include "cpu/soft/seg.h"

#include "cpu/soft/exc.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/sys.h"

int exc_noncanonical(struct soft_cpu *c, unsigned seg)
{
    return exc_raise_code(c, seg == SS ? EXC_SS : EXC_GP, 0);
}

bool seg_in_limit(const struct soft_seg *s, uint32_t off, unsigned size)
{
    uint32_t last = off + size - 1;
    if ((s->attr & (SEG_ATTR_S | 0xc)) == (SEG_ATTR_S | 4)) { /* data, expand-down */
        uint32_t top = s->attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
        return off > s->limit && last >= off && last <= top;
    }
    if (s->limit == 0xffffffff)
        return true;
    return last >= off && last <= s->limit;
}

int seg_linear_slow(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size, bool write, uint64_t *ret)
{
    const struct soft_seg *s = &c->seg[seg];
    if (c->mode & MODE_CS64) {
        uint64_t lin = seg >= FS ? off + s->base : off;
        if (!lin_canonical(lin) || !lin_canonical(lin + size - 1))
            return exc_noncanonical(c, seg);
        *ret = lin;
        return 0;
    }
    if (c->mode & MODE_PE) {
        bool ok = !(s->attr & SEG_ATTR_UNUSABLE);
        if (s->attr & 8) /* code */
            ok = ok && !write && (s->attr & 2);
        else
            ok = ok && (!write || (s->attr & 2));
        if (!ok)
            return exc_raise_code(c, seg == SS ? EXC_SS : EXC_GP, 0);
    }
    if (!seg_in_limit(s, off, size))
        return exc_raise_code(c, seg == SS ? EXC_SS : EXC_GP, 0);
    *ret = (uint32_t)(s->base + off);
    return 0;
}

int seg_desc_get(struct soft_cpu *c, uint16_t sel, struct seg_desc *ret)
{
    uint64_t base = c->gdt.base;
    uint32_t limit = c->gdt.limit;
    if (sel & 4) {
        if (c->ldt.attr & SEG_ATTR_UNUSABLE)
            return -1;
        base = c->ldt.base;
        limit = c->ldt.limit;
    }
    if ((sel | 7u) > limit)
        return -1;
    ret->lin = base + (sel & ~7u);
    return mmu_read_sys(c, ret->lin, &ret->raw, 8);
}

int seg_desc_read(struct soft_cpu *c, uint16_t sel, unsigned vector, struct seg_desc *ret)
{
    int r = seg_desc_get(c, sel, ret);
    return r < 0 ? exc_raise_code(c, vector, sel & ~3u) : r;
}

int seg_desc_upper(struct soft_cpu *c, uint16_t sel, const struct seg_desc *d, uint64_t *ret)
{
    uint32_t limit = sel & 4 ? c->ldt.limit : c->gdt.limit;
    uint64_t raw;
    if ((sel & ~7u) + 15 > limit)
        return -1;
    int r = mmu_read_sys(c, d->lin + 8, &raw, 8);
    if (r)
        return r;
    if (raw >> 40 & 0x1f)
        return -1;
    *ret = raw << 32;
    return 0;
}

struct soft_seg seg_from_desc(uint16_t sel, uint64_t raw)
{
    struct soft_seg s = {.sel = sel};
    s.base = (raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000);
    s.attr = raw >> 40 & 0xf0ff;
    uint32_t limit = (raw & 0xffff) | (raw >> 32 & 0xf0000);
    s.limit = s.attr & SEG_ATTR_G ? limit << 12 | 0xfff : limit;
    return s;
}

struct soft_seg seg_null(uint16_t sel, unsigned dpl)
{
    return (struct soft_seg){.sel = sel, .attr = SEG_ATTR_UNUSABLE | dpl << 5};
}

int seg_set_accessed(struct soft_cpu *c, struct seg_desc *d)
{
    if (d->raw & BIT64(40))
        return 0;
    d->raw |= BIT64(40);
    uint8_t b = d->raw >> 40;
    return mmu_write_sys(c, d->lin + 5, &b, 1);
}

int seg_set_busy(struct soft_cpu *c, struct seg_desc *d, bool busy)
{
    uint8_t b;
    int r = mmu_read_sys(c, d->lin + 5, &b, 1);
    if (r)
        return r;
    b = busy ? b | DESC_BUSY : b & ~DESC_BUSY;
    d->raw = (d->raw & ~(0xffull << 40)) | (uint64_t)b << 40;
    return mmu_write_sys(c, d->lin + 5, &b, 1);
}

int seg_check_ss(struct soft_cpu *c, uint16_t sel, unsigned cpl, unsigned bad, struct seg_desc *ret)
{
    uint32_t error = sel & ~3u;
    if (sel_null(sel))
        return exc_raise_code(c, bad, 0);
    int r = seg_desc_read(c, sel, bad, ret);
    if (r)
        return r;
    if ((sel & 3) != cpl || desc_dpl(ret->raw) != cpl || !desc_writable_data(ret->raw))
        return exc_raise_code(c, bad, error);
    if (!desc_p(ret->raw))
        return exc_raise_code(c, EXC_SS, error);
    return 0;
}

void seg_load_real(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    struct soft_seg *s = &c->seg[seg];
    s->sel = sel;
    s->base = (uint32_t)sel << 4;
    if (c->rflags_rest & FLAG_VM) {
        s->limit = 0xffff;
        s->attr = 0xf3;
    } else {
        /* Real mode keeps limit and attributes ("unreal mode"), but the segment becomes an accessed, writable one. */
        if (s->attr & SEG_ATTR_UNUSABLE) {
            s->limit = 0xffff;
            s->attr = 0x93;
        }
        if (seg == CS)
            s->attr = (s->attr & ~0x6fu) | 3 | SEG_ATTR_S;
    }
}

static int load_null(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    if (seg == SS && (!in_long64(c) || c->cpl == 3 || (sel & 3) != c->cpl))
        return exc_raise_code(c, EXC_GP, 0);
    c->seg[seg] = seg_null(sel, seg == SS ? c->cpl : 0);
    return INSN_NEXT;
}

int seg_load(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    int r = INSN_NEXT;
    if (!(c->mode & MODE_PE)) {
        seg_load_real(c, seg, sel);
    } else if (sel_null(sel)) {
        r = load_null(c, seg, sel);
    } else {
        struct seg_desc d;
        uint32_t error = sel & ~3u;
        if (seg == SS) {
            r = seg_check_ss(c, sel, c->cpl, EXC_GP, &d);
        } else {
            if ((r = seg_desc_read(c, sel, EXC_GP, &d)))
                return r;
            bool conforming = desc_code(d.raw) && desc_conforming(d.raw);
            if (!desc_readable(d.raw) || (!conforming && ((sel & 3) > desc_dpl(d.raw) || c->cpl > desc_dpl(d.raw))))
                return exc_raise_code(c, EXC_GP, error);
            if (!desc_p(d.raw))
                return exc_raise_code(c, EXC_NP, error);
        }
        if (r || (r = seg_set_accessed(c, &d)))
            return r;
        c->seg[seg] = seg_from_desc(sel, d.raw);
    }
    if (r == INSN_NEXT && seg < FS)
        soft_mode_changed(c);
    return r;
}

void seg_drop_inner(struct soft_cpu *c)
{
    static const uint8_t data[] = {ES, DS, FS, GS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct soft_seg *s = &c->seg[data[i]];
        if (s->attr & SEG_ATTR_UNUSABLE)
            continue;
        bool conforming_code = (s->attr & 0xc) == 0xc;
        if (!conforming_code && SEG_ATTR_DPL(s->attr) < c->cpl)
            *s = seg_null(0, 0);
    }
}

static bool flat(const struct soft_seg *s, bool code)
{
    if (s->base || s->limit != 0xffffffff || !(s->attr & SEG_ATTR_P) || (s->attr & SEG_ATTR_UNUSABLE))
        return false;
    /* Readable code, or writable expand-up data. */
    return code ? (s->attr & 0x1a) == 0x1a : (s->attr & 0x1e) == 0x12;
}

void soft_mode_changed(struct soft_cpu *c)
{
    uint32_t m = 0;
    const struct soft_seg *cs = &c->seg[CS], *ss = &c->seg[SS];
    if (!(c->cr0 & CR0_PE)) {
        c->cpl = 0;
    } else if (c->rflags_rest & FLAG_VM) {
        m |= MODE_VM86;
        c->cpl = 3;
    } else {
        m |= MODE_PE;
        c->cpl = SEG_ATTR_DPL(ss->attr);
    }
    if (c->efer & EFER_LMA)
        m |= MODE_LMA;
    if ((m & MODE_PE) && (m & MODE_LMA) && (cs->attr & SEG_ATTR_L))
        m |= MODE_CS64 | MODE_SS32;
    else if (cs->attr & SEG_ATTR_DB)
        m |= MODE_CS32;
    if (ss->attr & SEG_ATTR_DB)
        m |= MODE_SS32;
    if (c->cpl == 3)
        m |= MODE_USER;
    if ((m & (MODE_PE | MODE_CS64)) == MODE_PE && flat(cs, true) && flat(ss, false) && flat(&c->seg[DS], false) &&
        flat(&c->seg[ES], false))
        m |= MODE_FLAT;
    c->mode = m;
    soft_step_changed(c);
    mmu_mode_changed(c);
}
