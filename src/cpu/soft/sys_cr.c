/*
 * Control, debug and extended control registers, and TLB instructions (SDM 3A, 2.5; vol. 2). Each write is checked
 * completely before anything changes; a change that affects translation flushes what the manual says, or more. On the
 * vCPU's thread.
 */
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/sys_insn.h"
#include "cpu/soft/walk.h"

#define DR6_BD BIT(13)
#define DR7_GD BIT(13)

static int gp0(struct soft_cpu *c)
{
    return exc_raise_code(c, EXC_GP, 0);
}

/* The CR4 bits that this guest's CPUID allows. */
static uint64_t cr4_allowed(struct soft_cpu *c)
{
    uint32_t f1[4], f7[4];
    const struct engine_config *cfg = &c->vcpu.engine->cfg;
    cpuid_answer(&c->soft->cpuid, &cfg->cpu.topology, c->vcpu.index, c->xcr0, c->cr4, 1, 0, f1);
    cpuid_answer(&c->soft->cpuid, &cfg->cpu.topology, c->vcpu.index, c->xcr0, c->cr4, 7, 0, f7);
    uint64_t ok = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (f1[2] & BIT(17))
        ok |= CR4_PCIDE;
    if (f1[2] & BIT(26))
        ok |= CR4_OSXSAVE;
    if (f7[1] & BIT(0))
        ok |= CR4_FSGSBASE;
    if (f7[1] & BIT(7))
        ok |= CR4_SMEP;
    if (f7[1] & BIT(20))
        ok |= CR4_SMAP;
    if (f7[2] & BIT(2))
        ok |= CR4_UMIP;
    return ok;
}

static bool pae_paging(const struct soft_cpu *c, uint64_t cr0, uint64_t cr4)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(c->efer & EFER_LMA);
}

int sys_write_cr0(struct soft_cpu *c, uint64_t v)
{
    uint64_t old = c->cr0;
    if (v >> 32)
        return gp0(c);
    v &= CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    v |= CR0_ET;
    if (((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
        return gp0(c);
    uint64_t changed = old ^ v, efer = c->efer;
    if (changed & CR0_PG) {
        if (v & CR0_PG) {
            if (efer & EFER_LME) {
                if (!(c->cr4 & CR4_PAE) || (c->seg[CS].attr & SEG_ATTR_L))
                    return gp0(c);
                efer |= EFER_LMA;
            }
        } else {
            if (in_long64(c) || (c->cr4 & CR4_PCIDE))
                return gp0(c);
            efer &= ~(uint64_t)EFER_LMA;
        }
    }
    if ((v & CR0_PG) && (c->cr4 & CR4_PAE) && !(efer & EFER_LMA) && (changed & (CR0_PG | CR0_CD | CR0_NW)) &&
        walk_load_pdptes(c, c->cr3))
        return gp0(c);
    c->cr0 = v;
    c->efer = efer;
    if (changed & (CR0_PG | CR0_WP))
        mmu_flush(c, true);
    soft_mode_changed(c);
    return INSN_BREAK;
}

int sys_write_cr3(struct soft_cpu *c, uint64_t v)
{
    uint64_t old = c->cr3;
    bool noflush = false;
    if (c->efer & EFER_LMA) {
        if (c->cr4 & CR4_PCIDE) {
            noflush = v >> 63;
            v &= ~BIT64(63);
        }
        if (v & ~c->mmu->phys_mask)
            return gp0(c);
    } else {
        v = (uint32_t)v;
        if (pae_paging(c, c->cr0, c->cr4) && walk_load_pdptes(c, v))
            return gp0(c);
    }
    c->cr3 = v;
    mmu_cr3_written(c, old, noflush);
    return INSN_BREAK;
}

int sys_write_cr4(struct soft_cpu *c, uint64_t v)
{
    uint64_t changed = c->cr4 ^ v;
    if (v & ~cr4_allowed(c))
        return gp0(c);
    if (c->efer & EFER_LMA) {
        if (!(v & CR4_PAE))
            return gp0(c);
        if ((changed & v & CR4_PCIDE) && (c->cr3 & 0xfff))
            return gp0(c);
    } else if (v & CR4_PCIDE) {
        return gp0(c);
    }
    if (pae_paging(c, c->cr0, v) && (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)) && walk_load_pdptes(c, c->cr3))
        return gp0(c);
    c->cr4 = v;
    if (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
        mmu_flush(c, true);
    soft_mode_changed(c);
    return INSN_BREAK;
}

static int mov_from_cr(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_cpl0(c);
    if (r)
        return r;
    const struct cpu_bus *bus = soft_bus(c);
    uint64_t v = i->aux == 0   ? c->cr0
                 : i->aux == 2 ? c->cr2
                 : i->aux == 3 ? c->cr3
                 : i->aux == 4 ? c->cr4
                               : bus->cr8_read(bus->opaque, c->vcpu.index);
    sys_set_reg(c, i->rm, i->opsize, v);
    return INSN_NEXT;
}

static int mov_to_cr(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_cpl0(c);
    if (r)
        return r;
    uint64_t v = i->opsize == 8 ? c->gpr[i->rm] : (uint32_t)c->gpr[i->rm];
    const struct cpu_bus *bus = soft_bus(c);
    switch (i->aux) {
    case 0:
        return sys_write_cr0(c, v);
    case 2:
        c->cr2 = v;
        return INSN_NEXT;
    case 3:
        return sys_write_cr3(c, v);
    case 4:
        return sys_write_cr4(c, v);
    default:
        if (v > 15)
            return gp0(c);
        bus->cr8_write(bus->opaque, c->vcpu.index, v);
        return INSN_BREAK;
    }
}

/* Which register DRn means, or INSN_FAULT. */
static int dr_check(struct soft_cpu *c, unsigned n, unsigned *ret)
{
    if (n == 4 || n == 5) {
        if (c->cr4 & CR4_DE)
            return exc_raise(c, EXC_UD);
        n += 2;
    }
    int r = sys_need_cpl0(c);
    if (r)
        return r;
    if (c->dr[7] & DR7_GD)
        return exc_debug(c, DR6_BD);
    *ret = n;
    return 0;
}

static int mov_from_dr(struct soft_cpu *c, const struct insn *i)
{
    unsigned n = 0;
    int r = dr_check(c, i->aux, &n);
    if (r)
        return r;
    sys_set_reg(c, i->rm, i->opsize, c->dr[n]);
    return INSN_NEXT;
}

static int mov_to_dr(struct soft_cpu *c, const struct insn *i)
{
    unsigned n = 0;
    int r = dr_check(c, i->aux, &n);
    if (r)
        return r;
    uint64_t v = i->opsize == 8 ? c->gpr[i->rm] : (uint32_t)c->gpr[i->rm];
    if (n >= 6 && v >> 32)
        return gp0(c);
    if (n == 6)
        v = (v & 0xe00f) | 0xffff0ff0;
    else if (n == 7)
        v = (v & 0xffff2bff) | 0x400;
    c->dr[n] = v;
    if (n != 6) {
        mmu_debug_changed(c);
        soft_step_changed(c);
    }
    return INSN_BREAK;
}

static int clts(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_cpl0(c);
    if (r)
        return r;
    c->cr0 &= ~(uint64_t)CR0_TS;
    return INSN_BREAK;
}

static int lmsw(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v;
    int r = sys_need_cpl0(c);
    if (r || (r = sys_rm_read(c, i, 2, &v)))
        return r;
    /* PE can be set but not cleared. */
    return sys_write_cr0(c, (c->cr0 & ~0xeull) | (v & 0xf));
}

static int xgetbv(struct soft_cpu *c, const struct insn *i)
{
    if (!(c->cr4 & CR4_OSXSAVE))
        return exc_raise(c, EXC_UD);
    if ((uint32_t)c->gpr[RCX] > 1)
        return gp0(c);
    /* Register 1, what is in use: everything enabled may be. */
    c->gpr[RAX] = (uint32_t)c->xcr0;
    c->gpr[RDX] = c->xcr0 >> 32;
    return INSN_NEXT;
}

static int xsetbv(struct soft_cpu *c, const struct insn *i)
{
    uint32_t f[4];
    if (!(c->cr4 & CR4_OSXSAVE))
        return exc_raise(c, EXC_UD);
    int r = sys_need_cpl0(c);
    if (r)
        return r;
    uint64_t v = (uint32_t)c->gpr[RAX] | c->gpr[RDX] << 32;
    cpuid_answer(&c->soft->cpuid, &c->vcpu.engine->cfg.cpu.topology, c->vcpu.index, c->xcr0, c->cr4, 0xd, 0, f);
    uint64_t ok = f[0] | (uint64_t)f[3] << 32;
    if ((uint32_t)c->gpr[RCX] || (v & ~ok) || !(v & XCR0_X87) || ((v & XCR0_AVX) && !(v & XCR0_SSE)))
        return gp0(c);
    c->xcr0 = v;
    return INSN_BREAK;
}

/* The linear address of the memory operand, no checks: what INVLPG takes. */
static uint64_t linear_of(const struct soft_cpu *c, const struct insn *i)
{
    uint64_t ea = insn_ea(c, i);
    if (in_long64(c))
        return i->seg >= FS ? ea + c->seg[i->seg].base : ea;
    return (uint32_t)(ea + c->seg[i->seg].base);
}

static int invlpg(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_cpl0(c);
    if (r)
        return r;
    uint64_t lin = linear_of(c, i);
    if (lin_canonical(lin))
        mmu_flush_page(c, lin);
    return INSN_BREAK;
}

static int invpcid(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin, desc[2], type = in_long64(c) ? c->gpr[i->reg] : (uint32_t)c->gpr[i->reg];
    int r = sys_need_cpl0(c);
    if (r || (r = seg_linear(c, i->seg, insn_ea(c, i), 16, false, &lin)) || (r = mmu_read(c, lin, desc, 16)))
        return r;
    if (type > 3 || desc[0] >> 12)
        return gp0(c);
    if (type < 2 && desc[0] && !(c->cr4 & CR4_PCIDE))
        return gp0(c);
    if (type == 0 && !lin_canonical(desc[1]))
        return gp0(c);
    if (type == 0)
        mmu_flush_page(c, desc[1]);
    else if (type == 1)
        mmu_flush_pcid(c, desc[0]);
    else
        mmu_flush(c, true);
    return INSN_BREAK;
}

static bool claim_mov(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    for (unsigned k = 0; k < 2; k++) {
        ZydisRegister reg = ops[k].reg.value;
        if (ops[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        bool cr = reg >= ZYDIS_REGISTER_CR0 && reg <= ZYDIS_REGISTER_CR15;
        if (!cr && !(reg >= ZYDIS_REGISTER_DR0 && reg <= ZYDIS_REGISTER_DR7))
            continue;
        i->aux = cr ? reg - ZYDIS_REGISTER_CR0 : reg - ZYDIS_REGISTER_DR0;
        if (cr && i->aux != 0 && i->aux != 2 && i->aux != 3 && i->aux != 4 && i->aux != 8)
            return false;
        i->opsize = z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? 8 : 4;
        i->flags &= ~INSN_F_MEM;
        i->rm = z->raw.modrm.rm | (z->raw.rex.B && (z->attributes & ZYDIS_ATTRIB_HAS_REX) ? 8 : 0);
        i->fn = cr ? (k ? mov_from_cr : mov_to_cr) : (k ? mov_from_dr : mov_to_dr);
        return true;
    }
    return false;
}

bool sys_claim_cr(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        return claim_mov(i, z, ops);
    case ZYDIS_MNEMONIC_CLTS:
        i->fn = clts;
        return true;
    case ZYDIS_MNEMONIC_LMSW:
        i->fn = lmsw;
        return true;
    case ZYDIS_MNEMONIC_XGETBV:
        i->fn = xgetbv;
        return true;
    case ZYDIS_MNEMONIC_XSETBV:
        i->fn = xsetbv;
        return true;
    case ZYDIS_MNEMONIC_INVLPG:
        i->fn = invlpg;
        return true;
    case ZYDIS_MNEMONIC_INVPCID:
        i->fn = invpcid;
        return true;
    default:
        return false;
    }
}
