/* INT n, INT3, INT1, INTO and IRET in all modes (SDM vol. 2). On the vCPU's thread. */
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/stack.h"
#include "cpu/soft/sys_insn.h"
#include "cpu/soft/task.h"

static unsigned iopl(const struct soft_cpu *c)
{
    return c->rflags_rest >> 12 & 3;
}

static int int_n(struct soft_cpu *c, const struct insn *i)
{
    if ((c->mode & MODE_VM86) && iopl(c) < 3)
        return exc_raise_code(c, EXC_GP, 0);
    return exc_soft_int(c, i->imm & 0xff, c->rip + i->len, false);
}

static int int3(struct soft_cpu *c, const struct insn *i)
{
    return exc_soft_int(c, EXC_BP, c->rip + i->len, false);
}

static int int1(struct soft_cpu *c, const struct insn *i)
{
    return exc_soft_int(c, EXC_DB, c->rip + i->len, true);
}

static int into(struct soft_cpu *c, const struct insn *i)
{
    return flags_status(c) & FLAG_OF ? exc_soft_int(c, EXC_OF, c->rip + i->len, false) : INSN_NEXT;
}

/* The flags that IRET may change. */
static uint64_t flags_mask(const struct soft_cpu *c, unsigned size)
{
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size >= 4)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (c->mode & MODE_VM86)
        return mask | FLAG_IF;
    if (c->cpl <= iopl(c))
        mask |= FLAG_IF;
    if (c->cpl == 0)
        mask |= FLAG_IOPL | (size >= 4 ? FLAG_VIF | FLAG_VIP : 0);
    return mask;
}

static int iret_real(struct soft_cpu *c, unsigned size)
{
    struct stack s = stack_current(c);
    uint64_t ip, cs, flags;
    int r;
    if ((r = stack_pop(c, &s, size, &ip)) || (r = stack_pop(c, &s, size, &cs)) || (r = stack_pop(c, &s, size, &flags)))
        return r;
    if (ip > c->seg[CS].limit)
        return exc_raise_code(c, EXC_GP, 0);
    uint64_t mask = flags_mask(c, size);
    c->nmi_masked = false;
    stack_commit(c, &s);
    seg_load_real(c, CS, cs);
    c->rip = ip;
    c->rf_fresh = true;
    flags_write(c, flags, mask);
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int iret_to_vm86(struct soft_cpu *c, struct stack *s, uint64_t ip, uint64_t cs, uint64_t flags)
{
    static const uint8_t order[] = {SS, ES, DS, FS, GS};
    uint64_t sp, sel[5];
    int r = stack_pop(c, s, 4, &sp);
    for (unsigned i = 0; i < 5; i++)
        if (r || (r = stack_pop(c, s, 4, &sel[i])))
            return r;
    c->gpr[RSP] = sp;
    c->rip = (uint16_t)ip;
    c->rf_fresh = true;
    c->nmi_masked = false;
    flags_write(c, flags,
                FLAGS_STATUS | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC |
                    FLAG_VIF | FLAG_VIP | FLAG_ID);
    seg_load_real(c, CS, cs);
    for (unsigned i = 0; i < 5; i++)
        seg_load_real(c, order[i], sel[i]);
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int iret_task(struct soft_cpu *c, const struct insn *i)
{
    uint16_t link;
    struct seg_desc d;
    int r = mmu_read_sys(c, c->tr.base, &link, 2);
    if (r)
        return r;
    if (sel_null(link) || (link & 4))
        return exc_raise_code(c, EXC_TS, link & ~3u);
    if ((r = seg_desc_read(c, link, EXC_TS, &d)))
        return r;
    if (desc_s(d.raw) || (desc_type(d.raw) & ~8u) != (DESC_TYPE_TSS16 | DESC_BUSY))
        return exc_raise_code(c, EXC_TS, link & ~3u);
    if (!desc_p(d.raw))
        return exc_raise_code(c, EXC_NP, link & ~3u);
    uint64_t rip = c->rip;
    uint16_t before = c->tr.sel;
    c->rip += i->len;
    r = task_switch(c, link, &d, TASK_IRET);
    if (r && c->tr.sel == before)
        c->rip = rip;
    return r ? r : INSN_JUMP;
}

static int iret_protected(struct soft_cpu *c, unsigned size)
{
    struct stack s = stack_current(c);
    uint64_t ip, cs, flags, sp = 0, ss_sel = 0;
    int r;
    if ((r = stack_pop(c, &s, size, &ip)) || (r = stack_pop(c, &s, size, &cs)) || (r = stack_pop(c, &s, size, &flags)))
        return r;
    cs &= 0xffff;
    if (size == 4 && (flags & FLAG_VM) && c->cpl == 0 && !(c->efer & EFER_LMA))
        return iret_to_vm86(c, &s, ip, cs, flags);
    struct seg_desc d, sd = {0};
    if ((r = sys_check_return_cs(c, cs, &d)))
        return r;
    unsigned rpl = cs & 3;
    bool outer = rpl > c->cpl, pops_stack = outer || in_long64(c);
    bool to64 = (c->efer & EFER_LMA) && (d.raw >> 53 & 1);
    if (pops_stack) {
        if ((r = stack_pop(c, &s, size, &sp)) || (r = stack_pop(c, &s, size, &ss_sel)))
            return r;
        ss_sel &= 0xffff;
        if (sel_null(ss_sel)) {
            if (!to64 || rpl == 3 || (ss_sel & 3) != rpl)
                return exc_raise_code(c, EXC_GP, 0);
        } else if ((r = seg_check_ss(c, ss_sel, rpl, EXC_GP, &sd)) || (r = seg_set_accessed(c, &sd))) {
            return r;
        }
    }
    if (!sys_ip_ok(c, d.raw, ip))
        return exc_raise_code(c, EXC_GP, 0);
    if ((r = seg_set_accessed(c, &d)))
        return r;
    uint64_t mask = flags_mask(c, size);
    c->seg[CS] = seg_from_desc(cs, d.raw);
    c->rip = ip;
    if (pops_stack) {
        c->seg[SS] = sel_null(ss_sel) ? seg_null(ss_sel, rpl) : seg_from_desc(ss_sel, sd.raw);
        /* A 16-bit stack takes SP only; the rest of RSP is what the frame said as far as the operand size goes. */
        c->gpr[RSP] =
            to64 || (c->seg[SS].attr & SEG_ATTR_DB) || size == 2 ? sp : (c->gpr[RSP] & ~0xffffull) | (sp & 0xffff);
    } else {
        stack_commit(c, &s);
    }
    c->nmi_masked = false;
    c->rf_fresh = true;
    flags_write(c, flags, mask);
    soft_mode_changed(c);
    if (outer) {
        seg_drop_inner(c);
        soft_mode_changed(c);
    }
    return INSN_JUMP;
}

static int iret(struct soft_cpu *c, const struct insn *i)
{
    if (!(c->mode & MODE_PE)) {
        if ((c->mode & MODE_VM86) && iopl(c) < 3)
            return exc_raise_code(c, EXC_GP, 0);
        return iret_real(c, i->opsize);
    }
    if (c->rflags_rest & FLAG_NT) {
        if (c->efer & EFER_LMA)
            return exc_raise_code(c, EXC_GP, 0);
        return iret_task(c, i);
    }
    return iret_protected(c, i->opsize);
}

bool sys_claim_int(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_INT:
        i->imm = z->raw.imm[0].value.u & 0xff;
        i->fn = int_n;
        return true;
    case ZYDIS_MNEMONIC_INT3:
        i->fn = int3;
        return true;
    case ZYDIS_MNEMONIC_INT1:
        i->fn = int1;
        return true;
    case ZYDIS_MNEMONIC_INTO:
        i->fn = into;
        return true;
    case ZYDIS_MNEMONIC_IRET:
        i->opsize = 2;
        i->fn = iret;
        return true;
    case ZYDIS_MNEMONIC_IRETD:
        i->opsize = 4;
        i->fn = iret;
        return true;
    case ZYDIS_MNEMONIC_IRETQ:
        i->opsize = 8;
        i->fn = iret;
        return true;
    default:
        return false;
    }
}
