/* See stack.h. On the vCPU's thread. */
#include "cpu/soft/stack.h"

static int address(struct soft_cpu *c, const struct stack *s, uint64_t off, unsigned size, uint64_t *ret)
{
    off &= s->mask;
    if (s->wide) {
        if (!lin_canonical(off) || !lin_canonical(off + size - 1))
            return exc_raise_code(c, EXC_SS, s->error);
        *ret = off;
        return 0;
    }
    if (!seg_in_limit(&s->ss, off, size))
        return exc_raise_code(c, EXC_SS, s->error);
    *ret = (uint32_t)(s->ss.base + off);
    return 0;
}

int stack_push(struct soft_cpu *c, struct stack *s, unsigned size, uint64_t val)
{
    uint64_t lin = 0, sp = s->sp - size;
    int r = address(c, s, sp, size, &lin);
    if (!r)
        r = s->super ? mmu_write_sys(c, lin, &val, size) : mmu_write(c, lin, &val, size);
    if (!r)
        s->sp = sp;
    return r;
}

int stack_peek(struct soft_cpu *c, const struct stack *s, unsigned off, unsigned size, uint64_t *ret)
{
    uint64_t lin = 0;
    *ret = 0;
    int r = address(c, s, s->sp + off, size, &lin);
    return r ? r : s->super ? mmu_read_sys(c, lin, ret, size) : mmu_read(c, lin, ret, size);
}

int stack_pop(struct soft_cpu *c, struct stack *s, unsigned size, uint64_t *ret)
{
    int r = stack_peek(c, s, 0, size, ret);
    if (!r)
        s->sp += size;
    return r;
}

int stack_room(struct soft_cpu *c, const struct stack *s, unsigned size)
{
    uint64_t lin = 0;
    return address(c, s, s->sp - size, size, &lin);
}
