/*
 * Plain vector moves in C: no stub, no MXCSR. Loads, stores and register moves of 4, 8, 16 and 32 bytes, legacy and
 * VEX. On the vCPU's thread. i->opsize holds the bytes moved, i->opcode the alignment demanded.
 *
 * Legacy forms leave the upper half of the YMM register alone, VEX forms clear everything above what they write.
 */
#include "cpu/soft/exc.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/vec.h"

typedef struct {
    uint64_t q[2];
} __attribute__((aligned(8), may_alias)) vec128;

MUST_CHECK static inline int load(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size)
{
    const void *p = vec_peek(c, lin, size);
    if (!p)
        return mmu_read(c, lin, buf, size);
    memcpy(buf, p, size);
    return 0;
}
MUST_CHECK static inline int store(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size)
{
    const struct tlb_entry *e = &c->mmu->cur[tlb_index(lin)];
    if (__builtin_expect(tlb_hit(e->w, lin, size), 1)) {
        memcpy((void *)(uintptr_t)(lin + e->w + e->host), buf, size);
        return 0;
    }
    return mmu_write(c, lin, buf, size);
}

static inline vec128 *xmm(struct soft_cpu *c, unsigned n)
{
    return (vec128 *)(void *)vec_xmm(c, n);
}
static inline vec128 *high(struct soft_cpu *c, unsigned n)
{
    return (vec128 *)(void *)c->vec.ymm_hi[n];
}
static const vec128 zero128;

static int sse_load16(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin;
    if (vec_check(c, VEC_SSE) || vec_address(c, i, 16, i->opcode, false, &lin))
        return INSN_FAULT;
    return load(c, lin, vec_xmm(c, i->reg), 16) ? INSN_FAULT : INSN_NEXT;
}
static int sse_store16(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin;
    if (vec_check(c, VEC_SSE) || vec_address(c, i, 16, i->opcode, true, &lin))
        return INSN_FAULT;
    return store(c, lin, vec_xmm(c, i->reg), 16) ? INSN_FAULT : INSN_NEXT;
}
static int sse_copy16(struct soft_cpu *c, const struct insn *i)
{
    if (vec_check(c, VEC_SSE))
        return INSN_FAULT;
    *xmm(c, i->reg) = *xmm(c, i->rm);
    return INSN_NEXT;
}
static int sse_copy16_back(struct soft_cpu *c, const struct insn *i)
{
    if (vec_check(c, VEC_SSE))
        return INSN_FAULT;
    *xmm(c, i->rm) = *xmm(c, i->reg);
    return INSN_NEXT;
}
/* PXOR, XORPS, … of a register with itself. */
static int sse_clear(struct soft_cpu *c, const struct insn *i)
{
    if (vec_check(c, VEC_SSE))
        return INSN_FAULT;
    *xmm(c, i->reg) = zero128;
    return INSN_NEXT;
}

/* MOVD, MOVQ, MOVSS, MOVSD from memory: the rest of the register becomes 0. */
static int load_low(struct soft_cpu *c, const struct insn *i, enum vec_rule rule)
{
    uint64_t lin, v;
    uint32_t v32;
    if (vec_check(c, rule) || vec_address(c, i, i->opsize, 0, false, &lin))
        return INSN_FAULT;
    if (i->opsize == 8) {
        if (mmu_read64(c, lin, &v))
            return INSN_FAULT;
    } else {
        if (mmu_read32(c, lin, &v32))
            return INSN_FAULT;
        v = v32;
    }
    *xmm(c, i->reg) = (vec128){{v, 0}};
    if (rule == VEC_AVX)
        *high(c, i->reg) = zero128;
    return INSN_NEXT;
}
static int store_low(struct soft_cpu *c, const struct insn *i, enum vec_rule rule)
{
    uint64_t lin, v = xmm(c, i->reg)->q[0];
    if (vec_check(c, rule) || vec_address(c, i, i->opsize, 0, true, &lin))
        return INSN_FAULT;
    if (i->opsize == 8 ? mmu_write64(c, lin, v) : mmu_write32(c, lin, v))
        return INSN_FAULT;
    return INSN_NEXT;
}
static int from_gpr(struct soft_cpu *c, const struct insn *i, enum vec_rule rule)
{
    if (vec_check(c, rule))
        return INSN_FAULT;
    *xmm(c, i->reg) = (vec128){{bits_trunc(c->gpr[i->rm], i->opsize), 0}};
    if (rule == VEC_AVX)
        *high(c, i->reg) = zero128;
    return INSN_NEXT;
}
static int to_gpr(struct soft_cpu *c, const struct insn *i, enum vec_rule rule)
{
    if (vec_check(c, rule))
        return INSN_FAULT;
    c->gpr[i->rm] = bits_trunc(xmm(c, i->reg)->q[0], i->opsize);
    return INSN_NEXT;
}
static int sse_load_low(struct soft_cpu *c, const struct insn *i)
{
    return load_low(c, i, VEC_SSE);
}
static int sse_store_low(struct soft_cpu *c, const struct insn *i)
{
    return store_low(c, i, VEC_SSE);
}
static int sse_from_gpr(struct soft_cpu *c, const struct insn *i)
{
    return from_gpr(c, i, VEC_SSE);
}
static int sse_to_gpr(struct soft_cpu *c, const struct insn *i)
{
    return to_gpr(c, i, VEC_SSE);
}
static int avx_load_low(struct soft_cpu *c, const struct insn *i)
{
    return load_low(c, i, VEC_AVX);
}
static int avx_store_low(struct soft_cpu *c, const struct insn *i)
{
    return store_low(c, i, VEC_AVX);
}
static int avx_from_gpr(struct soft_cpu *c, const struct insn *i)
{
    return from_gpr(c, i, VEC_AVX);
}
static int avx_to_gpr(struct soft_cpu *c, const struct insn *i)
{
    return to_gpr(c, i, VEC_AVX);
}

static int avx_load(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin;
    vec128 buf[2] = {{{0, 0}}, {{0, 0}}};
    if (vec_check(c, VEC_AVX) || vec_address(c, i, i->opsize, i->opcode, false, &lin))
        return INSN_FAULT;
    if (i->opsize == 32 ? load(c, lin, buf, 32) : load(c, lin, buf, 16))
        return INSN_FAULT;
    *xmm(c, i->reg) = buf[0];
    *high(c, i->reg) = buf[1];
    return INSN_NEXT;
}
static int avx_store(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin;
    if (vec_check(c, VEC_AVX) || vec_address(c, i, i->opsize, i->opcode, true, &lin))
        return INSN_FAULT;
    vec128 buf[2] = {*xmm(c, i->reg), *high(c, i->reg)};
    if (i->opsize == 32 ? store(c, lin, buf, 32) : store(c, lin, buf, 16))
        return INSN_FAULT;
    return INSN_NEXT;
}
static int avx_copy_to(struct soft_cpu *c, const struct insn *i, unsigned to, unsigned from)
{
    if (vec_check(c, VEC_AVX))
        return INSN_FAULT;
    *xmm(c, to) = *xmm(c, from);
    *high(c, to) = i->opsize == 32 ? *high(c, from) : zero128;
    return INSN_NEXT;
}
static int avx_copy(struct soft_cpu *c, const struct insn *i)
{
    return avx_copy_to(c, i, i->reg, i->rm);
}
static int avx_copy_back(struct soft_cpu *c, const struct insn *i)
{
    return avx_copy_to(c, i, i->rm, i->reg);
}
static int avx_clear(struct soft_cpu *c, const struct insn *i)
{
    if (vec_check(c, VEC_AVX))
        return INSN_FAULT;
    *xmm(c, i->reg) = zero128;
    *high(c, i->reg) = zero128;
    return INSN_NEXT;
}

/* PMOVMSKB: the sign bits of all bytes; string functions live on it. */
static unsigned sign_bits(const void *p)
{
    int r;
    __asm__("movdqu %1, %%xmm0\n\tpmovmskb %%xmm0, %0" : "=r"(r) : "m"(*(const uint8_t(*)[16])p) : "xmm0");
    return r;
}
static int sse_movmsk(struct soft_cpu *c, const struct insn *i)
{
    if (vec_check(c, VEC_SSE))
        return INSN_FAULT;
    c->gpr[i->reg] = sign_bits(vec_xmm(c, i->rm));
    return INSN_NEXT;
}
static int avx_movmsk(struct soft_cpu *c, const struct insn *i)
{
    if (vec_check(c, VEC_AVX))
        return INSN_FAULT;
    unsigned r = sign_bits(vec_xmm(c, i->rm));
    if (i->opsize == 32)
        r |= sign_bits(c->vec.ymm_hi[i->rm]) << 16;
    c->gpr[i->reg] = r;
    return INSN_NEXT;
}

static bool claim(struct insn *i, insn_fn *fn, unsigned size, unsigned align)
{
    i->fn = fn;
    i->opsize = size;
    i->opcode = align;
    return true;
}

static bool gpr_operand(const ZydisDecodedOperand *o)
{
    ZydisRegisterClass k =
        o->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o->reg.value) : ZYDIS_REGCLASS_INVALID;
    return k == ZYDIS_REGCLASS_GPR32 || k == ZYDIS_REGCLASS_GPR64;
}
static bool vector_operand(const ZydisDecodedOperand *o)
{
    ZydisRegisterClass k =
        o->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o->reg.value) : ZYDIS_REGCLASS_INVALID;
    return k == ZYDIS_REGCLASS_XMM || k == ZYDIS_REGCLASS_YMM;
}

bool vec_claim_move(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    bool vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    bool mem_dst = ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY, mem_src = ops[1].type == ZYDIS_OPERAND_TYPE_MEMORY;
    bool back = ops[0].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    unsigned align = 0;

    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
        align = 16;
        /* fall through */
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
        return claim(i, mem_src ? sse_load16 : mem_dst ? sse_store16 : back ? sse_copy16_back : sse_copy16, 16, align);

    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        align = ops[0].size / 8;
        /* fall through */
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VLDDQU:
        return claim(i,
                     mem_src   ? avx_load
                     : mem_dst ? avx_store
                     : back    ? avx_copy_back
                               : avx_copy,
                     ops[0].size / 8, align);

    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VMOVQ: {
        const ZydisDecodedOperand *other = back ? &ops[0] : &ops[1], *v = back ? &ops[1] : &ops[0];
        unsigned size = z->mnemonic == ZYDIS_MNEMONIC_MOVQ || z->mnemonic == ZYDIS_MNEMONIC_VMOVQ ? 8 : 4;
        if (!vector_operand(v))
            return false; /* MMX */
        if (gpr_operand(other))
            return claim(i, back ? (vex ? avx_to_gpr : sse_to_gpr) : (vex ? avx_from_gpr : sse_from_gpr), size, 0);
        if (mem_src)
            return claim(i, vex ? avx_load_low : sse_load_low, size, 0);
        if (mem_dst)
            return claim(i, vex ? avx_store_low : sse_store_low, size, 0);
        return false;
    }
    case ZYDIS_MNEMONIC_MOVSS:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_VMOVSS:
    case ZYDIS_MNEMONIC_VMOVSD: {
        unsigned size = z->mnemonic == ZYDIS_MNEMONIC_MOVSD || z->mnemonic == ZYDIS_MNEMONIC_VMOVSD ? 8 : 4;
        if (mem_src)
            return claim(i, vex ? avx_load_low : sse_load_low, size, 0);
        if (mem_dst)
            return claim(i, vex ? avx_store_low : sse_store_low, size, 0);
        return false;
    }
    case ZYDIS_MNEMONIC_PMOVMSKB:
        return vector_operand(&ops[1]) && claim(i, sse_movmsk, 16, 0);
    case ZYDIS_MNEMONIC_VPMOVMSKB:
        return claim(i, avx_movmsk, ops[1].size / 8, 0);
    case ZYDIS_MNEMONIC_PXOR:
    case ZYDIS_MNEMONIC_XORPS:
    case ZYDIS_MNEMONIC_XORPD:
        if (vector_operand(&ops[0]) && vector_operand(&ops[1]) && ops[0].reg.value == ops[1].reg.value)
            return claim(i, sse_clear, 16, 0);
        return false;
    case ZYDIS_MNEMONIC_VPXOR:
    case ZYDIS_MNEMONIC_VXORPS:
    case ZYDIS_MNEMONIC_VXORPD:
        if (vector_operand(&ops[2]) && ops[1].reg.value == ops[2].reg.value)
            return claim(i, avx_clear, 32, 0);
        return false;
    default:
        return false;
    }
}
