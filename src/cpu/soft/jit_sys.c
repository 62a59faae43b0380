/* Lowering of what kernels do all the time: locked exchanges, the interrupt flag, SWAPGS, STAC, the time stamp counter; and division. */
#include "cpu/soft/interp.h"
#include "cpu/soft/jit.h"
#include "cpu/soft/mmu_fast.h"

#define GS(field) op_gs((int32_t)offsetof(struct soft_cpu, field))
enum { SEG_GS = GS };
#define GS_BASE op_gs((int32_t)(offsetof(struct soft_cpu, seg) + SEG_GS * sizeof(struct soft_seg) + offsetof(struct soft_seg, base)))

/* CMPXCHG, locked or not. A register operand, a high byte: the handler. */
bool jit_cmpxchg(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (!(i->flags & INSN_F_MEM) || !jit_mem_ok(j, i) || (n == 1 && i->reg >= INSN_HIGH8))
        return false;
    struct opnd m = jit_mem(j, i, n, true);
    if (!jit_in_host(i->reg))
        m = jit_mem_narrow(j, m);
    unsigned h = jit_get(j, i->reg, JIT_T1);
    jit_flags_native(j);
    e_op(&j->e, OP_0F | (n == 1 ? 0xb0 : 0xb1) | (i->flags & INSN_F_LOCK ? OP_LOCK : 0), n, h, m);
    return true;
}

/* CMPXCHG8B and 16B: their registers are where the host wants them. 16B demands alignment. */
bool jit_cmpxchgb(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? 16 : 8;
    if (!jit_mem_ok(j, i))
        return false;
    struct opnd m = jit_mem(j, i, n, true);
    if (n == 16) {
        e_ext(&j->e, 0xf6, 1, 0, op_reg(JIT_T0)); /* test */
        e8(&j->e, 15);
        jit_slow_if(j, CC_COND_NZ, true);
    }
    jit_flags_native(j);
    e_ext(&j->e, OP_0F | 0xc7 | (i->flags & INSN_F_LOCK ? OP_LOCK : 0), n / 2, 1, m);
    return true;
}

bool jit_xadd(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (!(i->flags & INSN_F_MEM) || !jit_mem_ok(j, i) || (n == 1 && i->reg >= INSN_HIGH8))
        return false;
    struct opnd m = jit_mem(j, i, n, true);
    if (!jit_in_host(i->reg))
        m = jit_mem_narrow(j, m);
    unsigned h = jit_get(j, i->reg, JIT_T1);
    jit_flags_native(j);
    e_op(&j->e, OP_0F | (n == 1 ? 0xc0 : 0xc1) | (i->flags & INSN_F_LOCK ? OP_LOCK : 0), n, h, m);
    jit_put(j, i->reg, h);
    return true;
}

/*
 * DIV and IDIV of 32 and 64 bits where they cannot overflow: DIV when the upper half is less than the divisor, IDIV when the
 * upper half is the lower one's sign and the divisor is neither 0 nor -1.
 */
bool jit_div(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize, d;
    if (n < 4)
        return false;
    jit_flags_clobber(j);
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        e_op(&j->e, 0x8b, n, JIT_T0, jit_mem(j, i, n, false));
        d = JIT_T0;
    } else {
        d = jit_get(j, i->rm, JIT_T0);
    }
    if (!arg) {
        e_op(&j->e, 0x39, n, d, op_reg(RDX)); /* cmp rdx, d */
        jit_slow_if(j, CC_COND_AE, true);
    } else {
        e_op(&j->e, 0x89, n, RAX, op_reg(JIT_T1));
        e_ext(&j->e, 0xc1, n, 7, op_reg(JIT_T1)); /* sar */
        e8(&j->e, n * 8 - 1);
        e_op(&j->e, 0x39, n, JIT_T1, op_reg(RDX));
        jit_slow_if(j, CC_COND_NZ, true);
        e_op(&j->e, 0x8d, n, JIT_T1, op_mem(d, 1)); /* lea: 0 and -1 become 1 and 0 */
        e_alu_imm(&j->e, 7, n, op_reg(JIT_T1), 1);
        jit_slow_if(j, CC_COND_BE, true);
    }
    e_ext(&j->e, 0xf7, n, arg ? 7 : 6, op_reg(d));
    return true;
}

/* Goes to the handler unless CPL is 0: the block's mode only tells 3 from the others. */
static bool kernel_only(struct jit *j)
{
    if (j->b->mode & MODE_USER)
        return false;
    jit_flags_clobber(j);
    e_alu_imm(&j->e, 7, 1, GS(cpl), 0);
    jit_slow_if(j, CC_COND_NZ, true);
    return true;
}

bool jit_cli(struct jit *j, const struct insn *i, unsigned arg)
{
    if (!kernel_only(j))
        return false;
    e_alu_imm(&j->e, 4, 4, GS(rflags_rest), (int32_t) ~FLAG_IF);
    return true;
}

/*
 * The instruction behind STI runs before anything is looked at: it must be in the same block. Where an interrupt is known to wait,
 * and so at once when it comes while IF is 0, the handler does what is needed.
 */
bool jit_sti(struct jit *j, const struct insn *i, unsigned arg)
{
    if (j->k + 1 == j->b->n || !kernel_only(j))
        return false;
    e_alu_imm(&j->e, 7, 1, GS(irq_waits), 0);
    jit_slow_if(j, CC_COND_NZ, true);
    e_alu_imm(&j->e, 1, 4, GS(rflags_rest), FLAG_IF);
    return true;
}

bool jit_swapgs(struct jit *j, const struct insn *i, unsigned arg)
{
    if (!kernel_only(j))
        return false;
    e_load(&j->e, JIT_T0, GS_BASE);
    e_load(&j->e, JIT_T1, GS(kernel_gs_base));
    e_store(&j->e, GS(kernel_gs_base), JIT_T0);
    e_store(&j->e, GS_BASE, JIT_T1);
    return true;
}

/* STAC (1), CLAC (0): another view of the TLB where SMAP is on; mmu.c keeps both at hand. */
bool jit_set_ac(struct jit *j, const struct insn *i, unsigned arg)
{
    struct emit *e = &j->e;
    if (!kernel_only(j))
        return false;
    if (arg)
        e_alu_imm(e, 1, 4, GS(rflags_rest), FLAG_AC);
    else
        e_alu_imm(e, 4, 4, GS(rflags_rest), (int32_t) ~FLAG_AC);
    e_load(e, JIT_T0, GS(mmu));
    e_load(e, JIT_T1, arg ? GS(jit.tlb_ac[1]) : GS(jit.tlb_ac[0]));
    e_store(e, GS(jit.tlb), JIT_T1);
    e_store(e, op_mem(JIT_T0, offsetof(struct soft_mmu, cur)), JIT_T1);
    e_op(e, 0x8b, 4, JIT_T1, arg ? GS(jit.view_ac[1]) : GS(jit.view_ac[0]));
    e_op(e, 0x89, 4, JIT_T1, op_mem(JIT_T0, offsetof(struct soft_mmu, view)));
    return true;
}

/* RDTSC, RDTSCP (1) */
bool jit_rdtsc(struct jit *j, const struct insn *i, unsigned arg)
{
    struct emit *e = &j->e;
    jit_flags_clobber(j);
    if (j->b->mode & MODE_USER) {
        e_ext(e, 0xf7, 4, 0, GS(cr4)); /* test */
        e32(e, CR4_TSD);
        jit_slow_if(j, CC_COND_NZ, true);
    } else {
        e_alu_imm(e, 7, 1, GS(cpl), 0);
        jit_slow_if(j, CC_COND_NZ, true);
    }
    e_bytes(e, "\x0f\x31", 2);
    e_ext(e, 0xc1, 8, 4, op_reg(RDX)); /* shl rdx, 32 */
    e8(e, 32);
    e_op(e, 0x09, 8, RAX, op_reg(RDX)); /* or rdx, rax */
    e_op(e, 0x03, 8, RDX, GS(tsc_offset));
    e_op(e, 0x89, 4, RDX, op_reg(RAX));
    e_ext(e, 0xc1, 8, 5, op_reg(RDX)); /* shr rdx, 32 */
    e8(e, 32);
    if (arg)
        e_op(e, 0x8b, 4, RCX, GS(tsc_aux));
    return true;
}

/* PUSHF in 64-bit code. The status flags come from cc; LAHF's bits are RFLAGS'. */
bool jit_pushf(struct jit *j, const struct insn *i, unsigned arg)
{
    struct emit *e = &j->e;
    if (i->opsize != 8)
        return false;
    struct opnd m = jit_mem_narrow(j, jit_stack_mem(j, -8, 8, true));
    jit_flags_save(j, INSN_FLAGS_ALL);
    e_op(e, 0x8b, 4, JIT_T1, GS(rflags_rest));
    e_alu_imm(e, 4, 4, op_reg(JIT_T1), (int32_t) ~(FLAG_VM | FLAG_RF));
    struct opnd ah = GS(cc);
    ah.disp++;
    e_op(e, 0x0a, 1, JIT_T1, ah); /* or */
    e_ext(e, 0xf6, 1, 0, GS(cc)); /* test: CC_O */
    e8(e, 1);
    e8(e, 0x74); /* jz over the next */
    e8(e, 7);
    e_alu_imm(e, 1, 4, op_reg(JIT_T1), FLAG_OF);
    e_store(e, m, JIT_T1);
    e_lea(e, JIT_RSP, op_mem(JIT_RSP, -8));
    return true;
}
