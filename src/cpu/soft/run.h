/* The run loop of a software vCPU: engine.c's vcpu_run. */
#ifndef LODGE_CPU_SOFT_RUN_H
#define LODGE_CPU_SOFT_RUN_H

#include "cpu/soft/cpu.h"

enum vcpu_exit soft_run(struct vcpu *v, struct err *err);

/* A random number below n, for soft_cpu.chaos. run.c */
unsigned chaos_below(struct soft_cpu *c, unsigned n);

#endif
