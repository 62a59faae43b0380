/*
 * Far CALL, JMP and RET (SDM vol. 2), with call gates and task switches, and LxS. Every check is made before a register
 * changes. On the vCPU's thread.
 */
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/stack.h"
#include "cpu/soft/sys_insn.h"
#include "cpu/soft/task.h"

enum { FAR_JMP, FAR_CALL };

static uint64_t trunc_ip(uint64_t ip, unsigned size)
{
    return size == 2 ? (uint16_t)ip : size == 4 ? (uint32_t)ip : ip;
}

/* Is `ip` a legal instruction pointer in code segment `raw`? */
static bool ip_ok(const struct soft_cpu *c, uint64_t raw, uint64_t ip)
{
    if ((c->efer & EFER_LMA) && (raw >> 53 & 1))
        return lin_canonical(ip);
    struct soft_seg s = seg_from_desc(0, raw);
    return ip <= 0xffffffff && seg_in_limit(&s, ip, 1);
}

static int far_real(struct soft_cpu *c, const struct insn *i, unsigned how, uint16_t sel, uint64_t ip)
{
    if (how == FAR_CALL) {
        struct stack s = stack_current(c);
        int r = stack_push(c, &s, i->opsize, c->seg[CS].sel);
        if (!r)
            r = stack_push(c, &s, i->opsize, c->rip + i->len);
        if (r)
            return r;
        stack_commit(c, &s);
    }
    seg_load_real(c, CS, sel);
    c->rip = ip;
    soft_mode_changed(c);
    return INSN_JUMP;
}

/* To a code segment without change of privilege. */
static int far_code(struct soft_cpu *c, const struct insn *i, unsigned how, uint16_t sel, struct seg_desc *d,
                    uint64_t ip)
{
    uint32_t error = sel & ~3u;
    unsigned dpl = desc_dpl(d->raw);
    if ((c->efer & EFER_LMA) && (d->raw >> 53 & 1) && (d->raw >> 54 & 1))
        return exc_raise_code(c, EXC_GP, error);
    if (desc_conforming(d->raw) ? dpl > c->cpl : (sel & 3) > c->cpl || dpl != c->cpl)
        return exc_raise_code(c, EXC_GP, error);
    if (!desc_p(d->raw))
        return exc_raise_code(c, EXC_NP, error);
    int r;
    struct stack s = stack_current(c);
    if (how == FAR_CALL &&
        ((r = stack_push(c, &s, i->opsize, c->seg[CS].sel)) || (r = stack_push(c, &s, i->opsize, c->rip + i->len))))
        return r;
    if (!ip_ok(c, d->raw, ip))
        return exc_raise_code(c, EXC_GP, 0);
    if ((r = seg_set_accessed(c, d)))
        return r;
    if (how == FAR_CALL)
        stack_commit(c, &s);
    c->seg[CS] = seg_from_desc((sel & ~3u) | c->cpl, d->raw);
    c->rip = ip;
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int far_task(struct soft_cpu *c, const struct insn *i, unsigned how, uint16_t sel, struct seg_desc *d)
{
    uint64_t rip = c->rip;
    c->rip += i->len;
    unsigned before = c->tr.sel;
    int r = task_switch(c, sel, d, how == FAR_CALL ? TASK_CALL : TASK_JMP);
    if (r && c->tr.sel == before)
        c->rip = rip;
    return r ? r : INSN_JUMP;
}

static int push_parameters(struct soft_cpu *c, struct stack *s, unsigned n, unsigned size)
{
    struct stack old = stack_current(c);
    for (unsigned k = n; k-- > 0;) {
        uint64_t v;
        int r = stack_peek(c, &old, k * size, size, &v);
        if (r || (r = stack_push(c, s, size, v)))
            return r;
    }
    return 0;
}

static int inner_stack_long(struct soft_cpu *c, unsigned cpl, struct stack *s)
{
    *s = (struct stack){.mask = ~0ull, .wide = true, .super = true};
    if (4 + cpl * 8 + 7 > c->tr.limit)
        return exc_raise_code(c, EXC_TS, c->tr.sel & ~3u);
    int r = mmu_read_sys(c, c->tr.base + 4 + cpl * 8, &s->sp, 8);
    if (!r && !lin_canonical(s->sp))
        r = exc_raise_code(c, EXC_SS, 0);
    s->ss = seg_null(cpl, cpl);
    return r;
}

static int far_gate(struct soft_cpu *c, const struct insn *i, unsigned how, uint16_t gate_sel, const struct seg_desc *g)
{
    bool lma = c->efer & EFER_LMA;
    uint32_t error = gate_sel & ~3u;
    unsigned type = desc_type(g->raw), size = lma ? 8 : type == DESC_TYPE_CALL32 ? 4 : 2;
    uint64_t upper = 0;
    int r;
    if (desc_dpl(g->raw) < c->cpl || desc_dpl(g->raw) < (gate_sel & 3u))
        return exc_raise_code(c, EXC_GP, error);
    if (!desc_p(g->raw))
        return exc_raise_code(c, EXC_NP, error);
    if (lma && (r = seg_desc_upper(c, gate_sel, g, &upper)))
        return r < 0 ? exc_raise_code(c, EXC_GP, error) : r;
    uint16_t sel = g->raw >> 16;
    uint64_t ip = (g->raw & 0xffff) | (type == DESC_TYPE_CALL32 ? g->raw >> 32 & 0xffff0000 : 0) | upper;
    struct seg_desc d;
    if (sel_null(sel))
        return exc_raise_code(c, EXC_GP, 0);
    if ((r = seg_desc_read(c, sel, EXC_GP, &d)))
        return r;
    error = sel & ~3u;
    unsigned dpl = desc_dpl(d.raw);
    bool inner = how == FAR_CALL && !desc_conforming(d.raw) && dpl < c->cpl;
    if (!desc_code(d.raw) || dpl > c->cpl || (how == FAR_JMP && !desc_conforming(d.raw) && dpl != c->cpl))
        return exc_raise_code(c, EXC_GP, error);
    if (lma && (!(d.raw >> 53 & 1) || (d.raw >> 54 & 1)))
        return exc_raise_code(c, EXC_GP, error);
    if (!desc_p(d.raw))
        return exc_raise_code(c, EXC_NP, error);
    struct stack s = stack_current(c);
    unsigned cpl = inner ? dpl : c->cpl, params = lma ? 0 : g->raw >> 32 & 31;
    if (lma)
        s.wide = true, s.mask = ~0ull;
    if (inner) {
        if ((r = lma ? inner_stack_long(c, cpl, &s) : exc_inner_stack(c, cpl, &s)))
            return r;
        if (!lma && (r = stack_room(c, &s, size * (4 + params))))
            return r;
        if ((r = stack_push(c, &s, size, c->seg[SS].sel)) || (r = stack_push(c, &s, size, c->gpr[RSP])) ||
            (r = push_parameters(c, &s, params, size)))
            return r;
    }
    if (how == FAR_CALL &&
        ((r = stack_push(c, &s, size, c->seg[CS].sel)) || (r = stack_push(c, &s, size, c->rip + i->len))))
        return r;
    if (!ip_ok(c, d.raw, ip))
        return exc_raise_code(c, EXC_GP, 0);
    if ((r = seg_set_accessed(c, &d)))
        return r;
    if (inner)
        c->seg[SS] = s.ss;
    if (how == FAR_CALL)
        stack_commit(c, &s);
    c->seg[CS] = seg_from_desc((sel & ~3u) | cpl, d.raw);
    c->rip = ip;
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int far_transfer(struct soft_cpu *c, const struct insn *i, unsigned how, uint16_t sel, uint64_t ip)
{
    ip = trunc_ip(ip, i->opsize);
    if (!(c->mode & MODE_PE)) {
        if (ip > c->seg[CS].limit)
            return exc_raise_code(c, EXC_GP, 0);
        return far_real(c, i, how, sel, ip);
    }
    uint32_t error = sel & ~3u;
    struct seg_desc d;
    if (sel_null(sel))
        return exc_raise_code(c, EXC_GP, 0);
    int r = seg_desc_read(c, sel, EXC_GP, &d);
    if (r)
        return r;
    if (desc_code(d.raw))
        return far_code(c, i, how, sel, &d, ip);
    if (desc_s(d.raw))
        return exc_raise_code(c, EXC_GP, error);
    unsigned type = desc_type(d.raw);
    bool lma = c->efer & EFER_LMA;
    if (type == DESC_TYPE_CALL32 || (type == DESC_TYPE_CALL16 && !lma))
        return far_gate(c, i, how, sel, &d);
    if (lma || (type != DESC_TYPE_TASK && (type & ~8u) != DESC_TYPE_TSS16))
        return exc_raise_code(c, EXC_GP, error);
    if (desc_dpl(d.raw) < c->cpl || desc_dpl(d.raw) < (sel & 3u))
        return exc_raise_code(c, EXC_GP, error);
    if (!desc_p(d.raw))
        return exc_raise_code(c, EXC_NP, error);
    if (type == DESC_TYPE_TASK) {
        sel = d.raw >> 16;
        if ((r = task_check(c, sel, 0, &d)))
            return r;
    }
    return far_task(c, i, how, sel, &d);
}

/* ptr16:16, ptr16:32: sys_claim put selector and offset into imm. */
static int far_direct(struct soft_cpu *c, const struct insn *i)
{
    return far_transfer(c, i, i->aux, i->imm >> 32, i->imm & 0xffffffff);
}

static int far_indirect(struct soft_cpu *c, const struct insn *i)
{
    uint64_t ip = 0, sel = 0;
    int r = sys_load(c, i, 0, i->opsize, &ip);
    if (!r)
        r = sys_load(c, i, i->opsize, 2, &sel);
    return r ? r : far_transfer(c, i, i->aux, sel, ip);
}

static int ret_outer(struct soft_cpu *c, const struct insn *i, struct stack *s, uint16_t sel, struct seg_desc *d,
                     uint64_t ip)
{
    unsigned rpl = sel & 3;
    uint64_t sp, ss_sel;
    bool to64 = (c->efer & EFER_LMA) && (d->raw >> 53 & 1);
    int r;
    s->sp += (uint16_t)i->imm;
    if ((r = stack_pop(c, s, i->opsize, &sp)) || (r = stack_pop(c, s, i->opsize, &ss_sel)))
        return r;
    struct soft_seg ss;
    if (sel_null(ss_sel)) {
        if (!to64 || rpl == 3 || (ss_sel & 3) != rpl)
            return exc_raise_code(c, EXC_GP, 0);
        ss = seg_null(ss_sel, rpl);
    } else {
        struct seg_desc sd;
        if ((r = seg_check_ss(c, ss_sel, rpl, EXC_GP, &sd)) || (r = seg_set_accessed(c, &sd)))
            return r;
        ss = seg_from_desc(ss_sel, sd.raw);
    }
    if (!ip_ok(c, d->raw, ip))
        return exc_raise_code(c, EXC_GP, 0);
    if ((r = seg_set_accessed(c, d)))
        return r;
    c->seg[CS] = seg_from_desc(sel, d->raw);
    c->seg[SS] = ss;
    c->rip = ip;
    soft_mode_changed(c);
    struct stack out = stack_current(c);
    out.sp = sp + (uint16_t)i->imm;
    stack_commit(c, &out);
    seg_drop_inner(c);
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int ret_far(struct soft_cpu *c, const struct insn *i)
{
    struct stack s = stack_current(c);
    uint64_t ip, sel;
    int r = stack_pop(c, &s, i->opsize, &ip);
    if (r || (r = stack_pop(c, &s, i->opsize, &sel)))
        return r;
    sel &= 0xffff;
    if (!(c->mode & MODE_PE)) {
        if (ip > c->seg[CS].limit)
            return exc_raise_code(c, EXC_GP, 0);
        s.sp += (uint16_t)i->imm;
        stack_commit(c, &s);
        seg_load_real(c, CS, sel);
        c->rip = ip;
        soft_mode_changed(c);
        return INSN_JUMP;
    }
    struct seg_desc d;
    if ((r = sys_check_return_cs(c, sel, &d)))
        return r;
    if ((sel & 3) > c->cpl)
        return ret_outer(c, i, &s, sel, &d, ip);
    if (!ip_ok(c, d.raw, ip))
        return exc_raise_code(c, EXC_GP, 0);
    if ((r = seg_set_accessed(c, &d)))
        return r;
    s.sp += (uint16_t)i->imm;
    stack_commit(c, &s);
    c->seg[CS] = seg_from_desc(sel, d.raw);
    c->rip = ip;
    soft_mode_changed(c);
    return INSN_JUMP;
}

int sys_check_return_cs(struct soft_cpu *c, uint16_t sel, struct seg_desc *d)
{
    uint32_t error = sel & ~3u;
    unsigned rpl = sel & 3;
    if (sel_null(sel))
        return exc_raise_code(c, EXC_GP, 0);
    int r = seg_desc_read(c, sel, EXC_GP, d);
    if (r)
        return r;
    unsigned dpl = desc_dpl(d->raw);
    if (!desc_code(d->raw) || rpl < c->cpl || (desc_conforming(d->raw) ? dpl > rpl : dpl != rpl))
        return exc_raise_code(c, EXC_GP, error);
    if ((c->efer & EFER_LMA) && (d->raw >> 53 & 1) && (d->raw >> 54 & 1))
        return exc_raise_code(c, EXC_GP, error);
    if (!desc_p(d->raw))
        return exc_raise_code(c, EXC_NP, error);
    return 0;
}

bool sys_ip_ok(const struct soft_cpu *c, uint64_t raw, uint64_t ip)
{
    return ip_ok(c, raw, ip);
}

static int load_far_pointer(struct soft_cpu *c, const struct insn *i)
{
    uint64_t off = 0, sel = 0;
    int r = sys_load(c, i, 0, i->opsize, &off);
    if (!r)
        r = sys_load(c, i, i->opsize, 2, &sel);
    if (!r)
        r = seg_load(c, i->aux, sel);
    if (r)
        return r;
    sys_set_reg(c, i->reg, i->opsize, off);
    return INSN_BREAK;
}

bool sys_claim_far(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
        if (z->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
            return false;
        i->opsize = z->operand_width / 8;
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_CALL ? FAR_CALL : FAR_JMP;
        if (ops[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
            i->imm = (uint64_t)ops[0].ptr.segment << 32 | ops[0].ptr.offset;
            i->fn = far_direct;
        } else {
            i->fn = far_indirect;
        }
        return true;
    case ZYDIS_MNEMONIC_RET:
        if (z->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
            return false;
        i->opsize = z->operand_width / 8;
        i->imm = z->raw.imm[0].size ? z->raw.imm[0].value.u & 0xffff : 0;
        i->fn = ret_far;
        return true;
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
        i->opsize = z->operand_width / 8;
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_LES   ? ES
                 : z->mnemonic == ZYDIS_MNEMONIC_LDS ? DS
                 : z->mnemonic == ZYDIS_MNEMONIC_LSS ? SS
                 : z->mnemonic == ZYDIS_MNEMONIC_LFS ? FS
                                                     : GS;
        i->fn = load_far_pointer;
        return true;
    default:
        return false;
    }
}
