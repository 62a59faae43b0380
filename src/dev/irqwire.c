#include "dev/irqwire.h"

static void split_set(void *opaque, unsigned n, int level)
{
    struct irq_split *s = opaque;
    for (unsigned i = 0; i < s->n; i++)
        irq_set(s->out[i], level);
}

struct irq irq_split(struct irq_split *s)
{
    return (struct irq){split_set, s, 0};
}

/*
 * Two sources that change at once could pass on their results in the wrong order; so the level is read again after it
 * was passed on, until it is the one passed on last.
 */
static void or_set(void *opaque, unsigned n, int level)
{
    struct irq_or *o = opaque;
    uint32_t bit = 1u << (n & 31);
    uint32_t old = level ? atomic_fetch_or(&o->high, bit) : atomic_fetch_and(&o->high, ~bit);
    uint32_t now = level ? old | bit : old & ~bit;
    if (!old == !now)
        return;
    for (;;) {
        irq_set(o->out, now != 0);
        uint32_t again = atomic_load(&o->high);
        if (!again == !now)
            break;
        now = again;
    }
}

struct irq irq_or_source(struct irq_or *o, unsigned n)
{
    return (struct irq){or_set, o, n};
}
