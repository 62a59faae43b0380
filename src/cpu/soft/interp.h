/*
 * What the interp_*.c files share: registers by number and size, the memory operand, host arithmetic with its flags.
 * Everything here is inlined with constant sizes into the handlers; where an instruction is rare, the size is a
 * run-time value of the same functions.
 */
#ifndef LODGE_CPU_SOFT_INTERP_H
#define LODGE_CPU_SOFT_INTERP_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/seg.h"

#define INLINE static inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* X(size in bytes, C type, signed C type, AT&T suffix) for the four operand sizes. */
#define FOR_SIZES(X, ...)                                                                                              \
    X(1, uint8_t, int8_t, "b", ##__VA_ARGS__)                                                                          \
    X(2, uint16_t, int16_t, "w", ##__VA_ARGS__)                                                                        \
    X(4, uint32_t, int32_t, "l", ##__VA_ARGS__)                                                                        \
    X(8, uint64_t, int64_t, "q", ##__VA_ARGS__)

/* Index of an operand size in tables of handlers. */
INLINE unsigned size_log(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

INLINE uint64_t reg_get(const struct soft_cpu *c, unsigned n, unsigned size)
{
    switch (size) {
    case 1:
        return (uint8_t)(c->gpr[n & 15] >> (n >> 4) * 8);
    case 2:
        return (uint16_t)c->gpr[n];
    case 4:
        return (uint32_t)c->gpr[n];
    default:
        return c->gpr[n];
    }
}

/* Always stores 64 bits: a narrow store followed by a wide load would stall. */
INLINE void reg_set(struct soft_cpu *c, unsigned n, unsigned size, uint64_t v)
{
    switch (size) {
    case 1: {
        unsigned shift = (n >> 4) * 8;
        uint64_t *r = &c->gpr[n & 15];
        *r = (*r & ~(0xffull << shift)) | (uint64_t)(uint8_t)v << shift;
        break;
    }
    case 2:
        c->gpr[n] = (c->gpr[n] & ~0xffffull) | (uint16_t)v;
        break;
    case 4:
        c->gpr[n] = (uint32_t)v;
        break;
    default:
        c->gpr[n] = v;
    }
}

/* The number of byte register `n` as encoded: without REX, 4..7 are AH, CH, DH, BH. */
INLINE uint8_t reg_byte(const ZydisDecodedInstruction *z, uint8_t n)
{
    return n >= 4 && n < 8 && !(z->attributes & ZYDIS_ATTRIB_HAS_REX) ? n - 4 + INSN_HIGH8 : n;
}

INLINE uint64_t sign_extend(uint64_t v, unsigned size)
{
    unsigned shift = 64 - size * 8;
    return (uint64_t)((int64_t)(v << shift) >> shift);
}

/* Linear memory by size; values zero-extended. */
MUST_CHECK INLINE int lin_read(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t *ret)
{
    switch (size) {
    case 1: {
        uint8_t v;
        if (unlikely(mmu_read8(c, lin, &v)))
            return INSN_FAULT;
        *ret = v;
        return 0;
    }
    case 2: {
        uint16_t v;
        if (unlikely(mmu_read16(c, lin, &v)))
            return INSN_FAULT;
        *ret = v;
        return 0;
    }
    case 4: {
        uint32_t v;
        if (unlikely(mmu_read32(c, lin, &v)))
            return INSN_FAULT;
        *ret = v;
        return 0;
    }
    default:
        return mmu_read64(c, lin, ret);
    }
}

MUST_CHECK INLINE int lin_write(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        return mmu_write8(c, lin, v);
    case 2:
        return mmu_write16(c, lin, v);
    case 4:
        return mmu_write32(c, lin, v);
    default:
        return mmu_write64(c, lin, v);
    }
}

/* The memory operand. */
MUST_CHECK INLINE int mem_linear(struct soft_cpu *c, const struct insn *i, unsigned size, bool write, uint64_t *ret)
{
    return seg_linear(c, i->seg, insn_ea(c, i), size, write, ret);
}

MUST_CHECK INLINE int mem_load(struct soft_cpu *c, const struct insn *i, unsigned size, uint64_t *ret)
{
    uint64_t lin;
    if (unlikely(mem_linear(c, i, size, false, &lin)))
        return INSN_FAULT;
    return lin_read(c, lin, size, ret);
}

MUST_CHECK INLINE int mem_store(struct soft_cpu *c, const struct insn *i, unsigned size, uint64_t v)
{
    uint64_t lin;
    if (unlikely(mem_linear(c, i, size, true, &lin)))
        return INSN_FAULT;
    return lin_write(c, lin, size, v);
}

/* The r/m operand, register or memory. */
MUST_CHECK INLINE int rm_load(struct soft_cpu *c, const struct insn *i, unsigned size, uint64_t *ret)
{
    if (i->flags & INSN_F_MEM)
        return mem_load(c, i, size, ret);
    *ret = reg_get(c, i->rm, size);
    return 0;
}

MUST_CHECK INLINE int rm_store(struct soft_cpu *c, const struct insn *i, unsigned size, uint64_t v)
{
    if (i->flags & INSN_F_MEM)
        return mem_store(c, i, size, v);
    reg_set(c, i->rm, size, v);
    return 0;
}

/*
 * Read-modify-write of the r/m operand by rare instructions: rmw_begin() gives the old value and where the new one
 * goes; rmw_end() writes it. A LOCK prefix whose operand is no single host access holds split_lock between them; with
 * one, the caller works on `host` itself.
 */
struct rmw {
    uint64_t lin;
    void *host;
};

MUST_CHECK INLINE int rmw_mem(struct soft_cpu *c, const struct insn *i, unsigned size, struct rmw *m)
{
    if (unlikely(mem_linear(c, i, size, true, &m->lin)))
        return INSN_FAULT;
    return mmu_rmw_fast(c, m->lin, size, &m->host);
}

INLINE uint64_t host_load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const mmu_u8 *)p;
    case 2:
        return *(const mmu_u16 *)p;
    case 4:
        return *(const mmu_u32 *)p;
    default:
        return *(const mmu_u64 *)p;
    }
}

INLINE void host_store(void *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1:
        *(mmu_u8 *)p = v;
        break;
    case 2:
        *(mmu_u16 *)p = v;
        break;
    case 4:
        *(mmu_u32 *)p = v;
        break;
    default:
        *(mmu_u64 *)p = v;
    }
}

MUST_CHECK INLINE int rmw_load(struct soft_cpu *c, const struct insn *i, unsigned size, struct rmw *m, uint64_t *ret)
{
    if (rmw_mem(c, i, size, m))
        return INSN_FAULT;
    if (likely(m->host != NULL)) {
        *ret = host_load(m->host, size);
        return 0;
    }
    return lin_read(c, m->lin, size, ret);
}

MUST_CHECK INLINE int rmw_store(struct soft_cpu *c, unsigned size, const struct rmw *m, uint64_t v)
{
    if (likely(m->host != NULL)) {
        host_store(m->host, size, v);
        return 0;
    }
    return lin_write(c, m->lin, size, v);
}

/* The host's flags of the asm text in `what`, left in AX as c->cc keeps them; `ax` must be "+&a" or "=&a". */
#define CC_SAVE "\n\tlahf\n\tseto %%al"
/* Guest flags from AX into the host's. */
#define CC_RESTORE "addb $0x7f, %%al\n\tsahf\n\t"
/* Guest carry from AX into the host's. */
#define CC_CARRY "btl $8, %%eax\n\t"

INLINE bool cc_carry(const struct soft_cpu *c)
{
    return c->cc & CC_C;
}
INLINE void cc_put(struct soft_cpu *c, uint32_t bits, bool on)
{
    c->cc = on ? c->cc | bits : c->cc & ~bits;
}

/* Condition `cond` of Jcc, SETcc, CMOVcc (the opcode's low four bits). */
INLINE bool cc_test(const struct soft_cpu *c, unsigned cond)
{
    uint32_t f = c->cc;
    bool r;
    switch (cond >> 1) {
    case 0:
        r = f & CC_O;
        break;
    case 1:
        r = f & CC_C;
        break;
    case 2:
        r = f & CC_Z;
        break;
    case 3:
        r = f & (CC_C | CC_Z);
        break;
    case 4:
        r = f & CC_S;
        break;
    case 5:
        r = f & CC_P;
        break;
    case 6:
        r = (f >> 15 ^ f) & 1;
        break;
    default:
        r = ((f >> 15 ^ f) | f >> 14) & 1;
    }
    return r ^ (cond & 1);
}

/* Handlers for a family of instructions: sets i->fn by the fields that decode.c filled in. False: undefined. `arg` from
 * the table. */
typedef bool insn_bind(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg);
insn_bind bind_alu, bind_test, bind_incdec, bind_notneg, bind_mul, bind_div,
    bind_decimal; /* interp_alu.c, interp_mul.c */
insn_bind bind_shift, bind_shiftd, bind_bit, bind_bitscan, bind_bmi, bind_shiftx, bind_adx,
    bind_crc; /* interp_shift.c, interp_bit.c */
insn_bind bind_mov, bind_movx, bind_lea, bind_xchg, bind_cmpxchg, bind_cmpxchgb, bind_cmov, bind_setcc, bind_movbe,
    bind_bswap, bind_convert, bind_xlat, bind_xadd;                      /* interp_mov.c, interp_lock.c */
insn_bind bind_jcc, bind_jmp, bind_call, bind_ret, bind_jcxz, bind_loop; /* interp_branch.c */
insn_bind bind_push, bind_pop, bind_pushf, bind_popf, bind_pusha, bind_popa, bind_enter,
    bind_leave;                       /* interp_stack.c */
insn_bind bind_string, bind_stringio; /* interp_string.c */
insn_bind bind_misc;                  /* interp_misc.c */

enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

/* Raises #UD. */
int insn_undefined(struct soft_cpu *c, const struct insn *i);

#endif
