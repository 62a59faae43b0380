/*
 * Pushes and pops of the far transfers and of event delivery: onto a stack that is not loaded yet, at another privilege
 * than the current one, committed only when everything has worked.
 */
#ifndef LODGE_CPU_SOFT_STACK_H
#define LODGE_CPU_SOFT_STACK_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"

struct stack {
    struct soft_seg ss;
    uint64_t sp;
    uint64_t mask;  /* of the stack pointer: 16, 32 or 64 bits */
    bool wide;      /* 64-bit code: no limits */
    bool super;     /* accesses are supervisor's although CPL may be 3 now */
    uint32_t error; /* error code of #SS */
};

/* The current stack. */
static inline struct stack stack_current(const struct soft_cpu *c)
{
    struct stack s = {.ss = c->seg[SS], .sp = c->gpr[RSP]};
    s.wide = c->mode & MODE_CS64;
    s.mask = s.wide ? ~0ull : c->mode & MODE_SS32 ? 0xffffffff : 0xffff;
    return s;
}

/* Puts the stack pointer back; bits above the mask keep their value. */
static inline void stack_commit(struct soft_cpu *c, const struct stack *s)
{
    c->gpr[RSP] = s->mask == 0xffff ? (c->gpr[RSP] & ~0xffffull) | (s->sp & 0xffff) : s->sp & s->mask;
}

MUST_CHECK int stack_push(struct soft_cpu *c, struct stack *s, unsigned size, uint64_t val);
MUST_CHECK int stack_pop(struct soft_cpu *c, struct stack *s, unsigned size, uint64_t *ret);
/* Reads at `off` bytes above the stack pointer, which stays. */
MUST_CHECK int stack_peek(struct soft_cpu *c, const struct stack *s, unsigned off, unsigned size, uint64_t *ret);
/* Are `size` bytes below the stack pointer inside the segment? For checks that come before the first push. */
MUST_CHECK int stack_room(struct soft_cpu *c, const struct stack *s, unsigned size);

#endif
