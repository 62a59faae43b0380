/* PCI's interrupt lines on the q35 board; see pirq.c. */
#ifndef LODGE_MACHINE_PIRQ_H
#define LODGE_MACHINE_PIRQ_H

#include <stdint.h>
#include <string.h>

#include "dev/irq.h"

struct vm;
struct pirq;

struct pirq *pirq_new(struct vm *vm);
void pirq_free(struct pirq *p); /* NULL-safe */
/* PIRQA..D: n 0..3. Any thread. */
struct irq pirq_line(struct pirq *p, unsigned n);
/* The bridge's registers PIRQA_ROUT..PIRQD_ROUT as they are now. */
void pirq_route(struct pirq *p, const uint8_t route[4]);

/* What firmware does, where none runs: routes, and each function's interrupt line register. No vCPU runs. */
void pirq_assign(struct pirq *p);

/* What firmware would route the lines to. */
#define PIRQ_ISA {10, 10, 11, 11}

#endif
