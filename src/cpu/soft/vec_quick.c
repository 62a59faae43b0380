/*
 * The quick handlers of SSE and AVX instructions whose operands are vector registers or memory that is read: a stub
 * that works on the guest's registers in place. Everything else, and arithmetic while the guest has SIMD exceptions
 * unmasked, is vec_exec_plain's.
 */
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/vec.h"

__attribute__((always_inline)) static inline int quick(struct soft_cpu *c, const struct insn *i, enum vec_rule rule,
                                                       bool fp, bool mem)
{
    const struct vec_op *op = i->priv;
    uint8_t buf[32] __attribute__((aligned(32)));
    const void *rm = vec_xmm(c, i->rm);
    uint32_t mxcsr[2] = {0, MXCSR_DEFAULT};

    if (vec_check(c, rule))
        return INSN_FAULT;
    if (fp) {
        mxcsr[0] = le32_get(c->vec.fx + FX_MXCSR);
        if (__builtin_expect((mxcsr[0] & MXCSR_MASKS) != MXCSR_MASKS, 0))
            return vec_exec_plain(c, i);
    }
    if (mem) {
        uint64_t lin;
        if (vec_address(c, i, op->mem_size, op->align, false, &lin))
            return INSN_FAULT;
        rm = vec_peek(c, lin, op->mem_size);
        if (__builtin_expect(!rm, 0)) {
            if (mmu_read(c, lin, buf, op->mem_size))
                return INSN_FAULT;
            rm = buf;
        }
    }
    op->quick(vec_xmm(c, i->reg), rm, vec_xmm(c, i->aux & 15), mxcsr);
    if (fp)
        le32_put(c->vec.fx + FX_MXCSR, mxcsr[0]);
    return INSN_NEXT;
}

#define QUICK(name, rule, fp, mem)                                                                                     \
    static int name(struct soft_cpu *c, const struct insn *i)                                                          \
    {                                                                                                                  \
        return quick(c, i, rule, fp, mem);                                                                             \
    }
QUICK(sse_rr, VEC_SSE, false, false)
QUICK(sse_rm, VEC_SSE, false, true)
QUICK(sse_fp_rr, VEC_SSE, true, false)
QUICK(sse_fp_rm, VEC_SSE, true, true)
QUICK(avx_rr, VEC_AVX, false, false)
QUICK(avx_rm, VEC_AVX, false, true)
QUICK(avx_fp_rr, VEC_AVX, true, false)
QUICK(avx_fp_rm, VEC_AVX, true, true)

insn_fn *vec_quick_handler(const struct vec_op *op, bool mem)
{
    static insn_fn *const table[2][2][2] = {{{sse_rr, sse_rm}, {sse_fp_rr, sse_fp_rm}},
                                            {{avx_rr, avx_rm}, {avx_fp_rr, avx_fp_rm}}};
    return table[op->rule == VEC_AVX][!!(op->flags & VEC_F_FP)][mem];
}
