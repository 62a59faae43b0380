/*
 * ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT in all forms: the bulk of all code, so every operation, size and
 * form has a handler of its own. The vCPU's thread; contract in insn.h.
 */
#include "cpu/soft/interp.h"

#define OP_PLAIN(n, T, S, sfx, op)                                                                                     \
    INLINE T op##_##n(T a, T b, uint16_t *cc)                                                                          \
    {                                                                                                                  \
        uint32_t ax;                                                                                                   \
        __asm__(#op sfx " %2, %0" CC_SAVE : "+&r"(a), "=&a"(ax) : "r"(b) : "cc");                                      \
        *cc = ax;                                                                                                      \
        return a;                                                                                                      \
    }                                                                                                                  \
    INLINE void op##_lock_##n(T *p, T b, uint16_t *cc)                                                                 \
    {                                                                                                                  \
        uint32_t ax;                                                                                                   \
        __asm__ volatile("lock; " #op sfx " %2, %0" CC_SAVE : "+m"(*p), "=&a"(ax) : "r"(b) : "cc", "memory");          \
        *cc = ax;                                                                                                      \
    }
#define OP_CARRY(n, T, S, sfx, op)                                                                                     \
    INLINE T op##_##n(T a, T b, uint16_t *cc)                                                                          \
    {                                                                                                                  \
        uint32_t ax = *cc;                                                                                             \
        __asm__(CC_CARRY #op sfx " %2, %0" CC_SAVE : "+&r"(a), "+&a"(ax) : "r"(b) : "cc");                             \
        *cc = ax;                                                                                                      \
        return a;                                                                                                      \
    }                                                                                                                  \
    INLINE void op##_lock_##n(T *p, T b, uint16_t *cc)                                                                 \
    {                                                                                                                  \
        uint32_t ax = *cc;                                                                                             \
        __asm__ volatile("btl $8, %%eax\n\tlock; " #op sfx " %2, %0" CC_SAVE                                           \
                         : "+m"(*p), "+&a"(ax)                                                                         \
                         : "r"(b)                                                                                      \
                         : "cc", "memory");                                                                            \
        *cc = ax;                                                                                                      \
    }
FOR_SIZES(OP_PLAIN, add)
FOR_SIZES(OP_PLAIN, or)
FOR_SIZES(OP_CARRY, adc)
FOR_SIZES(OP_CARRY, sbb)
FOR_SIZES(OP_PLAIN, and)
FOR_SIZES(OP_PLAIN, sub)
FOR_SIZES(OP_PLAIN, xor)

#define OP_COMPARE(n, T, S, sfx, op)                                                                                   \
    INLINE void op##_##n(T a, T b, uint16_t *cc)                                                                       \
    {                                                                                                                  \
        uint32_t ax;                                                                                                   \
        __asm__(#op sfx " %2, %1" CC_SAVE : "=&a"(ax) : "r"(a), "r"(b) : "cc");                                        \
        *cc = ax;                                                                                                      \
    }
FOR_SIZES(OP_COMPARE, cmp)
FOR_SIZES(OP_COMPARE, test)

#define OP_UNARY(n, T, S, sfx, op)                                                                                     \
    INLINE T op##_##n(T a, T b, uint16_t *cc)                                                                          \
    {                                                                                                                  \
        uint32_t ax = *cc;                                                                                             \
        __asm__(CC_CARRY #op sfx " %0" CC_SAVE : "+&r"(a), "+&a"(ax) : : "cc");                                        \
        *cc = ax;                                                                                                      \
        return a;                                                                                                      \
    }                                                                                                                  \
    INLINE void op##_lock_##n(T *p, T b, uint16_t *cc)                                                                 \
    {                                                                                                                  \
        uint32_t ax = *cc;                                                                                             \
        __asm__ volatile("btl $8, %%eax\n\tlock; " #op sfx " %0" CC_SAVE : "+m"(*p), "+&a"(ax) : : "cc", "memory");    \
        *cc = ax;                                                                                                      \
    }
FOR_SIZES(OP_UNARY, inc)
FOR_SIZES(OP_UNARY, dec)
FOR_SIZES(OP_UNARY, neg)

#define OP_NOT(n, T, S, sfx)                                                                                           \
    INLINE T not_##n(T a, T b, uint16_t *cc)                                                                           \
    {                                                                                                                  \
        return ~a;                                                                                                     \
    }                                                                                                                  \
    INLINE void not_lock_##n(T *p, T b, uint16_t *cc)                                                                  \
    {                                                                                                                  \
        __asm__ volatile("lock; not" sfx " %0" : "+m"(*p) : : "memory");                                               \
    }
FOR_SIZES(OP_NOT)

/* Read-modify-write forms of a two-operand operation, plain and locked; `src` is what gives the second operand. */
#define MEM_FORM(n, T, op, form, src)                                                                                  \
    static int op##_##form##_##n(struct soft_cpu *c, const struct insn *i)                                             \
    {                                                                                                                  \
        struct rmw m;                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(rmw_load(c, i, n, &m, &v)))                                                                       \
            return INSN_FAULT;                                                                                         \
        uint16_t cc = c->cc;                                                                                           \
        if (unlikely(rmw_store(c, n, &m, op##_##n(v, src, &cc))))                                                      \
            return INSN_FAULT;                                                                                         \
        c->cc = cc;                                                                                                    \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_##form##_lock_##n(struct soft_cpu *c, const struct insn *i)                                        \
    {                                                                                                                  \
        struct rmw m;                                                                                                  \
        if (unlikely(rmw_mem(c, i, n, &m)))                                                                            \
            return INSN_FAULT;                                                                                         \
        if (likely(m.host != NULL)) {                                                                                  \
            op##_lock_##n(m.host, src, &c->cc);                                                                        \
            return INSN_NEXT;                                                                                          \
        }                                                                                                              \
        pthread_mutex_lock(&c->soft->split_lock);                                                                      \
        int r = op##_##form##_##n(c, i);                                                                               \
        pthread_mutex_unlock(&c->soft->split_lock);                                                                    \
        return r;                                                                                                      \
    }

#define HANDLERS(n, T, S, sfx, op)                                                                                     \
    static int op##_rr_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        reg_set(c, i->rm, n, op##_##n(reg_get(c, i->rm, n), reg_get(c, i->reg, n), &c->cc));                           \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_ri_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        reg_set(c, i->rm, n, op##_##n(reg_get(c, i->rm, n), i->imm, &c->cc));                                          \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_rm_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(mem_load(c, i, n, &v)))                                                                           \
            return INSN_FAULT;                                                                                         \
        reg_set(c, i->reg, n, op##_##n(reg_get(c, i->reg, n), v, &c->cc));                                             \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    MEM_FORM(n, T, op, mr, reg_get(c, i->reg, n))                                                                      \
    MEM_FORM(n, T, op, mi, i->imm)
FOR_SIZES(HANDLERS, add)
FOR_SIZES(HANDLERS, or)
FOR_SIZES(HANDLERS, adc)
FOR_SIZES(HANDLERS, sbb)
FOR_SIZES(HANDLERS, and)
FOR_SIZES(HANDLERS, sub)
FOR_SIZES(HANDLERS, xor)

#define COMPARE_HANDLERS(n, T, S, sfx, op)                                                                             \
    static int op##_rr_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        op##_##n(reg_get(c, i->rm, n), reg_get(c, i->reg, n), &c->cc);                                                 \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_ri_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        op##_##n(reg_get(c, i->rm, n), i->imm, &c->cc);                                                                \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_rm_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(mem_load(c, i, n, &v)))                                                                           \
            return INSN_FAULT;                                                                                         \
        op##_##n(reg_get(c, i->reg, n), v, &c->cc);                                                                    \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_mr_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(mem_load(c, i, n, &v)))                                                                           \
            return INSN_FAULT;                                                                                         \
        op##_##n(v, reg_get(c, i->reg, n), &c->cc);                                                                    \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_mi_##n(struct soft_cpu *c, const struct insn *i)                                                   \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(mem_load(c, i, n, &v)))                                                                           \
            return INSN_FAULT;                                                                                         \
        op##_##n(v, i->imm, &c->cc);                                                                                   \
        return INSN_NEXT;                                                                                              \
    }
FOR_SIZES(COMPARE_HANDLERS, cmp)
FOR_SIZES(COMPARE_HANDLERS, test)

#define UNARY_HANDLERS(n, T, S, sfx, op)                                                                               \
    static int op##_r_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        reg_set(c, i->rm, n, op##_##n(reg_get(c, i->rm, n), 0, &c->cc));                                               \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    MEM_FORM(n, T, op, m, 0)
FOR_SIZES(UNARY_HANDLERS, inc)
FOR_SIZES(UNARY_HANDLERS, dec)
FOR_SIZES(UNARY_HANDLERS, neg)
FOR_SIZES(UNARY_HANDLERS, not )

#define BY_SIZE(f)                                                                                                     \
    {                                                                                                                  \
        f##_1, f##_2, f##_4, f##_8                                                                                     \
    }
enum { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_MR_LOCK, FORM_MI_LOCK, FORMS };
#define FORM_TABLE(op)                                                                                                 \
    {                                                                                                                  \
        BY_SIZE(op##_rr), BY_SIZE(op##_ri), BY_SIZE(op##_rm), BY_SIZE(op##_mr), BY_SIZE(op##_mi),                      \
            BY_SIZE(op##_mr_lock), BY_SIZE(op##_mi_lock)                                                               \
    }
static insn_fn *const alu[8][FORMS][4] = {
    [ALU_ADD] = FORM_TABLE(add),
    [ALU_OR] = FORM_TABLE(or),
    [ALU_ADC] = FORM_TABLE(adc),
    [ALU_SBB] = FORM_TABLE(sbb),
    [ALU_AND] = FORM_TABLE(and),
    [ALU_SUB] = FORM_TABLE(sub),
    [ALU_XOR] = FORM_TABLE(xor),
    [ALU_CMP] = {BY_SIZE(cmp_rr), BY_SIZE(cmp_ri), BY_SIZE(cmp_rm), BY_SIZE(cmp_mr), BY_SIZE(cmp_mi)},
};

bool bind_alu(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    unsigned form;
    bool mem = i->flags & INSN_F_MEM, lock = i->flags & INSN_F_LOCK;
    if (i->opcode >= 0x80) {
        form = mem ? lock ? FORM_MI_LOCK : FORM_MI : FORM_RI;
    } else if ((i->opcode & 7) >= 4) {
        form = FORM_RI;
        i->rm = RAX;
    } else if (i->opcode & 2) {
        form = mem ? FORM_RM : FORM_RR;
        if (!mem) { /* destination first */
            uint8_t dst = i->reg;
            i->reg = i->rm;
            i->rm = dst;
        }
    } else {
        form = mem ? lock ? FORM_MR_LOCK : FORM_MR : FORM_RR;
    }
    i->fn = alu[arg][form][size_log(i->opsize)];
    return i->fn != NULL;
}

bool bind_test(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const test[FORM_MI + 1][4] = {
        [FORM_RR] = BY_SIZE(test_rr), [FORM_RI] = BY_SIZE(test_ri), [FORM_RM] = BY_SIZE(test_rm),
        [FORM_MR] = BY_SIZE(test_mr), [FORM_MI] = BY_SIZE(test_mi),
    };
    bool mem = i->flags & INSN_F_MEM;
    unsigned form;
    if (i->opcode >= 0xf6) {
        form = mem ? FORM_MI : FORM_RI;
    } else if (i->opcode >= 0xa8) {
        form = FORM_RI;
        i->rm = RAX;
    } else {
        form = mem ? FORM_MR : FORM_RR;
    }
    i->fn = test[form][size_log(i->opsize)];
    return true;
}

static bool bind_unary(struct insn *i, insn_fn *const t[3][4])
{
    unsigned form = !(i->flags & INSN_F_MEM) ? 0 : i->flags & INSN_F_LOCK ? 2 : 1;
    i->fn = t[form][size_log(i->opsize)];
    return true;
}

#define UNARY_TABLE(op)                                                                                                \
    {                                                                                                                  \
        BY_SIZE(op##_r), BY_SIZE(op##_m), BY_SIZE(op##_m_lock)                                                         \
    }

bool bind_incdec(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[2][3][4] = {UNARY_TABLE(inc), UNARY_TABLE(dec)};
    return bind_unary(i, t[arg]);
}

bool bind_notneg(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[2][3][4] = {UNARY_TABLE(not ), UNARY_TABLE(neg)};
    return bind_unary(i, t[arg]);
}
