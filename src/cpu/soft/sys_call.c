/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FS/GS base instructions (SDM vol. 2). On the vCPU's thread. */
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/sys_insn.h"

/* Flat segments as the fast transfers load them, without a look at the descriptor tables. */
static struct soft_seg flat_code(uint16_t sel, unsigned dpl, bool l)
{
    uint32_t attr = 0xb | SEG_ATTR_S | dpl << 5 | SEG_ATTR_P | SEG_ATTR_G | (l ? SEG_ATTR_L : SEG_ATTR_DB);
    return (struct soft_seg){.limit = 0xffffffff, .sel = sel, .attr = attr};
}

static struct soft_seg flat_stack(uint16_t sel, unsigned dpl)
{
    uint32_t attr = 3 | SEG_ATTR_S | dpl << 5 | SEG_ATTR_P | SEG_ATTR_G | SEG_ATTR_DB;
    return (struct soft_seg){.limit = 0xffffffff, .sel = sel, .attr = attr};
}

/* AMD's CPUs have SYSCALL in compatibility mode too; a guest that was shown that vendor uses it. */
static bool is_amd(const struct soft_cpu *c)
{
    const struct cpuid_table *t = &c->soft->cpuid;
    return t->n && t->entry[0].leaf == 0 && t->entry[0].ebx == 0x68747541;
}

static int syscall_enter(struct soft_cpu *c, const struct insn *i)
{
    if (!(c->efer & EFER_SCE) || !(c->mode & MODE_LMA) || !(c->mode & MODE_PE))
        return exc_raise(c, EXC_UD);
    bool long64 = in_long64(c);
    if (!long64 && !is_amd(c))
        return exc_raise(c, EXC_UD);
    uint64_t flags = flags_get(c);
    uint16_t sel = c->star >> 32 & 0xfffc;
    c->gpr[RCX] = c->rip + i->len;
    c->gpr[R11] = flags & ~FLAG_RF;
    c->rip = long64 ? c->lstar : c->cstar;
    c->seg[CS] = flat_code(sel, 0, true);
    c->seg[SS] = flat_stack(sel + 8, 0);
    c->tf_swallowed = flags & c->fmask & FLAG_TF;
    flags_write(c, 0, (c->fmask & 0x3f7fd7) | FLAG_RF);
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int sysret(struct soft_cpu *c, const struct insn *i)
{
    if (!(c->efer & EFER_SCE) || !in_long64(c))
        return exc_raise(c, EXC_UD);
    if (c->cpl || (i->opsize == 8 && !lin_canonical(c->gpr[RCX])))
        return exc_raise_code(c, EXC_GP, 0);
    uint16_t sel = c->star >> 48;
    bool to64 = i->opsize == 8;
    c->rip = to64 ? c->gpr[RCX] : (uint32_t)c->gpr[RCX];
    c->seg[CS] = flat_code((to64 ? sel + 16 : sel) | 3, 3, to64);
    c->seg[SS] = flat_stack((sel + 8) | 3, 3);
    flags_write(c, c->gpr[R11], 0x3c7fd7 & ~FLAG_RF);
    flags_write(c, 0, FLAG_RF);
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int sysenter(struct soft_cpu *c, const struct insn *i)
{
    if (!(c->cr0 & CR0_PE) || !(c->sysenter_cs & 0xfffc))
        return exc_raise_code(c, EXC_GP, 0);
    bool lma = c->efer & EFER_LMA;
    uint16_t sel = c->sysenter_cs & 0xfffc;
    c->seg[CS] = flat_code(sel, 0, lma);
    c->seg[SS] = flat_stack(sel + 8, 0);
    c->gpr[RSP] = lma ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
    c->rip = lma ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
    flags_write(c, 0, FLAG_VM | FLAG_IF | FLAG_RF);
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int sysexit(struct soft_cpu *c, const struct insn *i)
{
    bool to64 = i->opsize == 8;
    if (!(c->mode & MODE_PE) || !(c->sysenter_cs & 0xfffc) || c->cpl)
        return exc_raise_code(c, EXC_GP, 0);
    if (to64 && (!lin_canonical(c->gpr[RCX]) || !lin_canonical(c->gpr[RDX])))
        return exc_raise_code(c, EXC_GP, 0);
    uint16_t sel = (c->sysenter_cs & 0xfffc) + (to64 ? 32 : 16);
    c->seg[CS] = flat_code(sel | 3, 3, to64);
    c->seg[SS] = flat_stack((sel + 8) | 3, 3);
    c->gpr[RSP] = to64 ? c->gpr[RCX] : (uint32_t)c->gpr[RCX];
    c->rip = to64 ? c->gpr[RDX] : (uint32_t)c->gpr[RDX];
    soft_mode_changed(c);
    return INSN_JUMP;
}

static int swapgs(struct soft_cpu *c, const struct insn *i)
{
    if (!in_long64(c))
        return exc_raise(c, EXC_UD);
    if (c->cpl)
        return exc_raise_code(c, EXC_GP, 0);
    uint64_t base = c->seg[GS].base;
    c->seg[GS].base = c->kernel_gs_base;
    c->kernel_gs_base = base;
    return INSN_NEXT;
}

static int rd_base(struct soft_cpu *c, const struct insn *i)
{
    if (!in_long64(c) || !(c->cr4 & CR4_FSGSBASE))
        return exc_raise(c, EXC_UD);
    sys_set_reg(c, i->rm, i->opsize, c->seg[i->aux].base);
    return INSN_NEXT;
}

static int wr_base(struct soft_cpu *c, const struct insn *i)
{
    if (!in_long64(c) || !(c->cr4 & CR4_FSGSBASE))
        return exc_raise(c, EXC_UD);
    uint64_t base = i->opsize == 8 ? c->gpr[i->rm] : (uint32_t)c->gpr[i->rm];
    if (!lin_canonical(base))
        return exc_raise_code(c, EXC_GP, 0);
    c->seg[i->aux].base = base;
    return INSN_NEXT;
}

bool sys_claim_call(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    bool rex_w = z->attributes & ZYDIS_ATTRIB_HAS_REX && z->raw.rex.W;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
        i->fn = syscall_enter;
        return true;
    case ZYDIS_MNEMONIC_SYSRET:
        i->opsize = rex_w ? 8 : 4;
        i->fn = sysret;
        return true;
    case ZYDIS_MNEMONIC_SYSENTER:
        i->fn = sysenter;
        return true;
    case ZYDIS_MNEMONIC_SYSEXIT:
        i->opsize = rex_w ? 8 : 4;
        i->fn = sysexit;
        return true;
    case ZYDIS_MNEMONIC_SWAPGS:
        i->fn = swapgs;
        return true;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        i->opsize = rex_w ? 8 : 4;
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_RDFSBASE || z->mnemonic == ZYDIS_MNEMONIC_WRFSBASE ? FS : GS;
        i->fn = z->mnemonic == ZYDIS_MNEMONIC_RDFSBASE || z->mnemonic == ZYDIS_MNEMONIC_RDGSBASE ? rd_base : wr_base;
        return true;
    default:
        return false;
    }
}
