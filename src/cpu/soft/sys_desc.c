/* Descriptor-table and segment-register instructions (SDM vol. 2). On the vCPU's thread. */
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/stack.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/sys_insn.h"

enum { TABLE_GDT, TABLE_IDT };
enum { SEL_LDT, SEL_TR };

static int gp0(struct soft_cpu *c)
{
    return exc_raise_code(c, EXC_GP, 0);
}

static int umip(struct soft_cpu *c)
{
    return c->cpl && (c->cr4 & CR4_UMIP) ? gp0(c) : 0;
}

static int load_table(struct soft_cpu *c, const struct insn *i)
{
    uint64_t limit, base;
    bool wide = in_long64(c);
    int r = sys_need_cpl0(c);
    if (r || (r = sys_load(c, i, 0, 2, &limit)) || (r = sys_load(c, i, 2, wide ? 8 : 4, &base)))
        return r;
    if (wide && !lin_canonical(base))
        return gp0(c);
    if (!wide && i->opsize == 2)
        base &= 0xffffff;
    *(i->aux == TABLE_GDT ? &c->gdt : &c->idt) = (struct cpu_table){base, limit};
    return INSN_NEXT;
}

static int store_table(struct soft_cpu *c, const struct insn *i)
{
    const struct cpu_table *t = i->aux == TABLE_GDT ? &c->gdt : &c->idt;
    uint8_t image[10];
    unsigned size = in_long64(c) ? 10 : 6;
    uint64_t lin;
    le16_put(image, t->limit);
    le64_put(image + 2, t->base);
    int r = umip(c);
    if (r || (r = seg_linear(c, i->seg, insn_ea(c, i), size, true, &lin)))
        return r;
    r = mmu_write(c, lin, image, size);
    return r ? r : INSN_NEXT;
}

static int load_system(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v, upper = 0;
    int r;
    if ((r = sys_need_pe(c)) || (r = sys_need_cpl0(c)) || (r = sys_rm_read(c, i, 2, &v)))
        return r;
    uint16_t sel = v;
    uint32_t error = sel & ~3u;
    bool tr = i->aux == SEL_TR, lma = c->efer & EFER_LMA;
    if (sel_null(sel)) {
        if (tr)
            return gp0(c);
        c->ldt = seg_null(sel, 0);
        return INSN_NEXT;
    }
    if (sel & 4)
        return exc_raise_code(c, EXC_GP, error);
    struct seg_desc d;
    if ((r = seg_desc_read(c, sel, EXC_GP, &d)))
        return r;
    unsigned type = desc_type(d.raw);
    bool ok =
        !desc_s(d.raw) && (tr ? type == DESC_TYPE_TSS32 || (type == DESC_TYPE_TSS16 && !lma) : type == DESC_TYPE_LDT);
    if (!ok)
        return exc_raise_code(c, EXC_GP, error);
    if (lma && (r = seg_desc_upper(c, sel, &d, &upper)))
        return r < 0 ? exc_raise_code(c, EXC_GP, error) : r;
    if (!desc_p(d.raw))
        return exc_raise_code(c, EXC_NP, error);
    struct soft_seg s = seg_from_desc(sel, d.raw);
    s.base |= upper;
    if (!lin_canonical(s.base))
        return exc_raise_code(c, EXC_GP, error);
    if (tr) {
        if ((r = seg_set_busy(c, &d, true)))
            return r;
        s.attr |= DESC_BUSY;
        c->tr = s;
    } else {
        c->ldt = s;
    }
    return INSN_NEXT;
}

/* SLDT, STR, SMSW: 16 bits to memory, the operand size to a register. */
static int store_word(struct soft_cpu *c, const struct insn *i, uint64_t v)
{
    int r = umip(c);
    if (r)
        return r;
    if (i->flags & INSN_F_MEM)
        return (r = sys_store(c, i, 0, 2, v)) ? r : INSN_NEXT;
    sys_set_reg(c, i->rm, i->opsize, v);
    return INSN_NEXT;
}

static int store_system(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_pe(c);
    return r ? r : store_word(c, i, i->aux == SEL_TR ? c->tr.sel : c->ldt.sel);
}

static int smsw(struct soft_cpu *c, const struct insn *i)
{
    return store_word(c, i, c->cr0);
}

static void set_zf(struct soft_cpu *c, bool on)
{
    flags_set_status(c, (flags_status(c) & ~FLAG_ZF) | (on ? FLAG_ZF : 0));
}

/*
 * Reads the descriptor for LAR, LSL, VERR, VERW. 0: readable at this privilege (system types in `types`), -1: ZF must
 * be 0, INSN_FAULT: a page fault.
 */
static int inspect(struct soft_cpu *c, uint16_t sel, uint32_t types, struct seg_desc *d)
{
    if (sel_null(sel))
        return -1;
    int r = seg_desc_get(c, sel, d);
    if (r)
        return r;
    if (!desc_s(d->raw) && !(types >> desc_type(d->raw) & 1))
        return -1;
    if (desc_code(d->raw) && desc_conforming(d->raw))
        return 0;
    return desc_dpl(d->raw) < c->cpl || desc_dpl(d->raw) < (sel & 3u) ? -1 : 0;
}

static int lar_lsl(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v, upper;
    struct seg_desc d;
    int r;
    bool lar = i->mnemonic == ZYDIS_MNEMONIC_LAR, lma = c->efer & EFER_LMA;
    if ((r = sys_need_pe(c)) || (r = sys_rm_read(c, i, 2, &v)))
        return r;
    uint32_t types = BIT(DESC_TYPE_LDT) | BIT(9) | BIT(11);
    if (!lma)
        types |= BIT(1) | BIT(3);
    if (lar)
        types |= BIT(DESC_TYPE_CALL32) | (lma ? 0 : BIT(DESC_TYPE_CALL16) | BIT(DESC_TYPE_TASK));
    r = inspect(c, v, types, &d);
    if (!r && lma && !desc_s(d.raw))
        r = seg_desc_upper(c, v, &d, &upper);
    if (r > 0)
        return r;
    if (!r)
        sys_set_reg(c, i->reg, i->opsize, lar ? d.raw >> 32 & 0xffff00 : seg_from_desc(0, d.raw).limit);
    set_zf(c, !r);
    return INSN_NEXT;
}

static int verify(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v;
    struct seg_desc d;
    int r;
    if ((r = sys_need_pe(c)) || (r = sys_rm_read(c, i, 2, &v)))
        return r;
    r = inspect(c, v, 0, &d);
    if (r > 0)
        return r;
    set_zf(c, !r && (i->mnemonic == ZYDIS_MNEMONIC_VERR ? desc_readable(d.raw) : desc_writable_data(d.raw)));
    return INSN_NEXT;
}

static int arpl(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v, want = c->gpr[i->reg] & 3;
    int r;
    if ((r = sys_need_pe(c)) || (r = sys_rm_read(c, i, 2, &v)))
        return r;
    bool lower = (v & 3) < want;
    if (lower) {
        v = (v & ~3ull) | want;
        if (!(i->flags & INSN_F_MEM))
            sys_set_reg(c, i->rm, 2, v);
        else if ((r = sys_store(c, i, 0, 2, v)))
            return r;
    }
    set_zf(c, lower);
    return INSN_NEXT;
}

static void ss_shadow(struct soft_cpu *c)
{
    c->int_shadow = c->ss_shadow = true;
    soft_step_changed(c);
}

static int mov_to_sreg(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v;
    if (i->aux == CS)
        return exc_raise(c, EXC_UD);
    int r = sys_rm_read(c, i, 2, &v);
    if (r || (r = seg_load(c, i->aux, v)))
        return r;
    if (i->aux == SS)
        ss_shadow(c);
    return i->aux < FS ? INSN_BREAK : INSN_NEXT;
}

static int mov_from_sreg(struct soft_cpu *c, const struct insn *i)
{
    uint16_t v = c->seg[i->aux].sel;
    if (i->flags & INSN_F_MEM) {
        int r = sys_store(c, i, 0, 2, v);
        return r ? r : INSN_NEXT;
    }
    sys_set_reg(c, i->rm, i->opsize, v);
    return INSN_NEXT;
}

static int push_sreg(struct soft_cpu *c, const struct insn *i)
{
    struct stack s = stack_current(c);
    int r = stack_push(c, &s, i->opsize, c->seg[i->aux].sel);
    if (r)
        return r;
    stack_commit(c, &s);
    return INSN_NEXT;
}

static int pop_sreg(struct soft_cpu *c, const struct insn *i)
{
    struct stack s = stack_current(c);
    uint64_t v;
    int r = stack_pop(c, &s, i->opsize, &v);
    if (r || (r = seg_load(c, i->aux, v)))
        return r;
    stack_commit(c, &s);
    if (i->aux == SS)
        ss_shadow(c);
    return i->aux < FS ? INSN_BREAK : INSN_NEXT;
}

static int sreg_of(const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || op->reg.value < ZYDIS_REGISTER_ES ||
        op->reg.value > ZYDIS_REGISTER_GS)
        return -1;
    return op->reg.value - ZYDIS_REGISTER_ES;
}

static bool claim_sreg(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    int to = sreg_of(&ops[0]), from = z->mnemonic == ZYDIS_MNEMONIC_MOV ? sreg_of(&ops[1]) : -1;
    if (to < 0 && from < 0)
        return false;
    i->aux = to >= 0 ? to : from;
    i->opsize = z->operand_width / 8;
    if (z->mnemonic == ZYDIS_MNEMONIC_MOV) {
        if (!(i->flags & INSN_F_MEM))
            i->rm = z->raw.modrm.rm | (z->raw.rex.B && (z->attributes & ZYDIS_ATTRIB_HAS_REX) ? 8 : 0);
        if (to < 0 && !(i->flags & INSN_F_MEM))
            i->opsize = ops[0].size / 8;
        i->fn = to >= 0 ? mov_to_sreg : mov_from_sreg;
    } else {
        i->fn = z->mnemonic == ZYDIS_MNEMONIC_PUSH ? push_sreg : pop_sreg;
    }
    return true;
}

bool sys_claim_desc(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
        return claim_sreg(i, z, ops);
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
        i->opsize = z->operand_width / 8;
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_LGDT ? TABLE_GDT : TABLE_IDT;
        i->fn = load_table;
        return true;
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_SGDT ? TABLE_GDT : TABLE_IDT;
        i->fn = store_table;
        return true;
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_LTR ? SEL_TR : SEL_LDT;
        i->fn = load_system;
        return true;
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
        i->opsize = z->operand_width / 8;
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_STR ? SEL_TR : SEL_LDT;
        i->fn = store_system;
        return true;
    case ZYDIS_MNEMONIC_SMSW:
        i->opsize = z->operand_width / 8;
        i->fn = smsw;
        return true;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
        i->opsize = z->operand_width / 8;
        i->fn = lar_lsl;
        return true;
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        i->fn = verify;
        return true;
    case ZYDIS_MNEMONIC_ARPL:
        i->fn = arpl;
        return true;
    default:
        return false;
    }
}
