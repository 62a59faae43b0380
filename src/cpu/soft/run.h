/* The run loop of a software vCPU: engine.c's vcpu_run. */
#ifndef LODGE_CPU_SOFT_RUN_H
#define LODGE_CPU_SOFT_RUN_H

#include "cpu/soft/cpu.h"

enum vcpu_exit soft_run(struct vcpu *v, struct err *err);

#endif
