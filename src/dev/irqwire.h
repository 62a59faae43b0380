/* Wiring between interrupt lines: one line to several listeners, and several sources on one line. Any thread. */
#ifndef LODGE_DEV_IRQWIRE_H
#define LODGE_DEV_IRQWIRE_H

#include <stdatomic.h>

#include "dev/irq.h"

/* Passes each level on to all of `out`. Embedded in its owner, fixed before use; irq_split() is the line that drives
 * it. */
struct irq_split {
    struct irq out[4];
    unsigned n;
};
struct irq irq_split(struct irq_split *s);

/* A wired OR: `out` is high while any of up to 32 sources is. Zero-initialise, then set `out`. */
struct irq_or {
    struct irq out;
    _Atomic uint32_t high; /* bit n: source n is high */
};
struct irq irq_or_source(struct irq_or *o, unsigned n);

#endif
