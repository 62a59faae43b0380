/*
 * The remaining system instructions, operand access for all of them, and sys_claim(), which finds the handler at decode
 * time. On the vCPU's thread.
 */
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/sys_insn.h"

static int gp0(struct soft_cpu *c)
{
    return exc_raise_code(c, EXC_GP, 0);
}

static unsigned iopl(const struct soft_cpu *c)
{
    return c->rflags_rest >> 12 & 3;
}

/* ---- operands ---- */

int sys_load(struct soft_cpu *c, const struct insn *i, unsigned disp, unsigned size, uint64_t *ret)
{
    uint64_t lin;
    *ret = 0;
    int r = seg_linear(c, i->seg, insn_ea(c, i) + disp, size, false, &lin);
    return r ? r : mmu_read(c, lin, ret, size);
}

int sys_store(struct soft_cpu *c, const struct insn *i, unsigned disp, unsigned size, uint64_t val)
{
    uint64_t lin;
    int r = seg_linear(c, i->seg, insn_ea(c, i) + disp, size, true, &lin);
    return r ? r : mmu_write(c, lin, &val, size);
}

int sys_rm_read(struct soft_cpu *c, const struct insn *i, unsigned size, uint64_t *ret)
{
    if (i->flags & INSN_F_MEM)
        return sys_load(c, i, 0, size, ret);
    *ret = bits_trunc(c->gpr[i->rm], size);
    return 0;
}

int sys_need_cpl0(struct soft_cpu *c)
{
    return c->cpl ? gp0(c) : 0;
}

int sys_need_pe(struct soft_cpu *c)
{
    return c->mode & MODE_PE ? 0 : exc_raise(c, EXC_UD);
}

/* ---- I/O ports (SDM 1, 19.5) ---- */

int sys_io_allowed(struct soft_cpu *c, uint16_t port, unsigned size)
{
    if (!(c->cr0 & CR0_PE) || (!(c->mode & MODE_VM86) && c->cpl <= iopl(c)))
        return 0;
    uint16_t map, bits;
    if (!(c->tr.attr & 8) || !(c->tr.attr & SEG_ATTR_P) || c->tr.limit < 103)
        return gp0(c);
    int r = mmu_read_sys(c, c->tr.base + 102, &map, 2);
    if (r)
        return r;
    uint32_t off = map + port / 8;
    if (off + 1 > c->tr.limit)
        return gp0(c);
    if ((r = mmu_read_sys(c, c->tr.base + off, &bits, 2)))
        return r;
    return bits >> (port & 7) & ((1u << size) - 1) ? gp0(c) : 0;
}

uint32_t sys_io_read(struct soft_cpu *c, uint16_t port, unsigned size)
{
    const struct cpu_bus *bus = soft_bus(c);
    dbg_check_io(c, port, size);
    return bus->pio_read(bus->opaque, c->vcpu.index, port, size);
}

void sys_io_write(struct soft_cpu *c, uint16_t port, unsigned size, uint32_t val)
{
    const struct cpu_bus *bus = soft_bus(c);
    dbg_check_io(c, port, size);
    code_requests(c);
    bus->pio_write(bus->opaque, c->vcpu.index, port, size, bits_trunc(val, size));
}

static uint16_t io_port(const struct soft_cpu *c, const struct insn *i)
{
    return i->aux ? c->gpr[RDX] : i->imm & 0xff;
}

static int in(struct soft_cpu *c, const struct insn *i)
{
    uint16_t port = io_port(c, i);
    int r = sys_io_allowed(c, port, i->opsize);
    if (r)
        return r;
    uint32_t v = sys_io_read(c, port, i->opsize);
    if (i->opsize == 1)
        c->gpr[RAX] = (c->gpr[RAX] & ~0xffull) | (uint8_t)v;
    else
        sys_set_reg(c, RAX, i->opsize, v);
    return INSN_BREAK;
}

static int out(struct soft_cpu *c, const struct insn *i)
{
    uint16_t port = io_port(c, i);
    int r = sys_io_allowed(c, port, i->opsize);
    if (r)
        return r;
    sys_io_write(c, port, i->opsize, c->gpr[RAX]);
    return INSN_BREAK;
}

/* ---- interrupt flag, halting, caches ---- */

static int hlt(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_cpl0(c);
    if (r)
        return r;
    c->halted = true;
    return INSN_BREAK;
}

static bool may_change_if(const struct soft_cpu *c)
{
    return !(c->cr0 & CR0_PE) || (c->mode & MODE_VM86 ? iopl(c) == 3 : c->cpl <= iopl(c));
}

static int cli(struct soft_cpu *c, const struct insn *i)
{
    if (!may_change_if(c))
        return gp0(c);
    flags_write(c, 0, FLAG_IF);
    return INSN_NEXT;
}

static int sti(struct soft_cpu *c, const struct insn *i)
{
    if (!may_change_if(c))
        return gp0(c);
    if (c->rflags_rest & FLAG_IF)
        return INSN_NEXT;
    c->int_shadow = true;
    c->ss_shadow = false;
    flags_write(c, FLAG_IF, FLAG_IF);
    soft_step_changed(c);
    return INSN_BREAK;
}

static int privileged_nop(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_cpl0(c);
    return r ? r : INSN_NEXT;
}

static int set_ac(struct soft_cpu *c, const struct insn *i)
{
    if (c->cpl || (c->mode & MODE_VM86))
        return exc_raise(c, EXC_UD);
    flags_write(c, i->aux ? FLAG_AC : 0, FLAG_AC);
    return INSN_NEXT;
}

/* ---- MSRs, TSC, CPUID ---- */

static int rdmsr(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v = 0;
    int r = sys_need_cpl0(c);
    if (r || (r = soft_rdmsr(c, c->gpr[RCX], &v)))
        return r;
    c->gpr[RAX] = (uint32_t)v;
    c->gpr[RDX] = v >> 32;
    return INSN_NEXT;
}

static int wrmsr(struct soft_cpu *c, const struct insn *i)
{
    int r = sys_need_cpl0(c);
    if (r || (r = soft_wrmsr(c, c->gpr[RCX], (uint32_t)c->gpr[RAX] | c->gpr[RDX] << 32)))
        return r;
    return INSN_BREAK;
}

static int rdpmc(struct soft_cpu *c, const struct insn *i)
{
    return gp0(c);
}

static int rdtsc(struct soft_cpu *c, const struct insn *i)
{
    if (i->aux && !c->soft->has_rdtscp)
        return exc_raise(c, EXC_UD);
    if (c->cpl && (c->cr4 & CR4_TSD))
        return gp0(c);
    uint64_t t = soft_tsc(c);
    c->gpr[RAX] = (uint32_t)t;
    c->gpr[RDX] = t >> 32;
    if (i->aux)
        c->gpr[RCX] = (uint32_t)c->tsc_aux;
    return INSN_NEXT;
}

static int rdpid(struct soft_cpu *c, const struct insn *i)
{
    if (!c->soft->has_rdpid)
        return exc_raise(c, EXC_UD);
    c->gpr[i->rm] = (uint32_t)c->tsc_aux;
    return INSN_NEXT;
}

static int cpuid(struct soft_cpu *c, const struct insn *i)
{
    uint32_t r[4];
    cpuid_answer(&c->soft->cpuid, &c->vcpu.engine->cfg.cpu.topology, c->vcpu.index, c->xcr0, c->cr4, c->gpr[RAX],
                 c->gpr[RCX], r);
    c->gpr[RAX] = r[0];
    c->gpr[RBX] = r[1];
    c->gpr[RCX] = r[2];
    c->gpr[RDX] = r[3];
    return INSN_NEXT;
}

static bool claim_io(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    bool is_in = z->mnemonic == ZYDIS_MNEMONIC_IN;
    const ZydisDecodedOperand *acc = &ops[is_in ? 0 : 1], *port = &ops[is_in ? 1 : 0];
    i->opsize = acc->size / 8;
    i->aux = port->type == ZYDIS_OPERAND_TYPE_REGISTER;
    if (!i->aux)
        i->imm = z->raw.imm[0].value.u & 0xff;
    i->fn = is_in ? in : out;
    return true;
}

bool sys_claim(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
        return claim_io(i, z, ops);
    case ZYDIS_MNEMONIC_HLT:
        i->fn = hlt;
        return true;
    case ZYDIS_MNEMONIC_CLI:
        i->fn = cli;
        return true;
    case ZYDIS_MNEMONIC_STI:
        i->fn = sti;
        return true;
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
        i->fn = privileged_nop;
        return true;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_STAC;
        i->fn = set_ac;
        return true;
    case ZYDIS_MNEMONIC_RDMSR:
        i->fn = rdmsr;
        return true;
    case ZYDIS_MNEMONIC_WRMSR:
        i->fn = wrmsr;
        return true;
    case ZYDIS_MNEMONIC_RDPMC:
        i->fn = rdpmc;
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        i->aux = z->mnemonic == ZYDIS_MNEMONIC_RDTSCP;
        i->fn = rdtsc;
        return true;
    case ZYDIS_MNEMONIC_RDPID:
        i->fn = rdpid;
        return true;
    case ZYDIS_MNEMONIC_CPUID:
        i->fn = cpuid;
        return true;
    default:
        return sys_claim_cr(i, z, ops) || sys_claim_desc(i, z, ops) || sys_claim_far(i, z, ops) ||
               sys_claim_int(i, z, ops) || sys_claim_call(i, z, ops);
    }
}
