/*
 * The vCPU's APIC timer: a POSIX timer whose signal goes to the vCPU's own thread and sets PEND_TIMER. It needs no
 * thread, no descriptor to poll, and wakes HLT by itself.
 */
#ifndef LODGE_CPU_SOFT_TIMER_H
#define LODGE_CPU_SOFT_TIMER_H

#include "cpu/soft/cpu.h"

/* On the vCPU's thread, each time before it runs: makes the timer on first use. -errno. */
int timer_attach(struct soft_cpu *c, struct err *err);
void timer_detach(struct soft_cpu *c);
/* Arms the timer for guest time c->timer_ns, if that is set and the clock runs; else disarms it. */
void timer_rearm(struct soft_cpu *c);

#endif
