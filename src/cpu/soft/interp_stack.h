/* The stack of the running code: pushes and pops of interp_*.c at the current privilege. Inlined; INSN_FAULT leaves RSP
 * alone. */
#ifndef LODGE_CPU_SOFT_INTERP_STACK_H
#define LODGE_CPU_SOFT_INTERP_STACK_H

#include "cpu/soft/interp.h"

/* A stack address cut to the stack's width. */
INLINE uint64_t stack_trunc(const struct soft_cpu *c, uint64_t sp)
{
    return c->mode & MODE_CS64 ? sp : c->mode & MODE_SS32 ? (uint32_t)sp : (uint16_t)sp;
}

INLINE void stack_set(struct soft_cpu *c, uint64_t sp)
{
    if (c->mode & MODE_CS64)
        c->gpr[RSP] = sp;
    else if (c->mode & MODE_SS32)
        c->gpr[RSP] = (uint32_t)sp;
    else
        c->gpr[RSP] = (c->gpr[RSP] & ~0xffffull) | (uint16_t)sp;
}

MUST_CHECK INLINE int stack_push(struct soft_cpu *c, unsigned size, uint64_t v)
{
    uint64_t sp = stack_trunc(c, c->gpr[RSP] - size), lin;
    if (unlikely(seg_linear(c, SS, sp, size, true, &lin)) || unlikely(lin_write(c, lin, size, v)))
        return INSN_FAULT;
    stack_set(c, sp);
    return 0;
}

MUST_CHECK INLINE int stack_pop(struct soft_cpu *c, unsigned size, uint64_t *ret)
{
    uint64_t sp = stack_trunc(c, c->gpr[RSP]), lin;
    if (unlikely(seg_linear(c, SS, sp, size, false, &lin)) || unlikely(lin_read(c, lin, size, ret)))
        return INSN_FAULT;
    stack_set(c, sp + size);
    return 0;
}

#endif
