/*
 * The guest's vector and x87 state in the host's own registers while generated code runs: XMM/YMM n in XMM/YMM n with
 * the guest's MXCSR, and the x87 registers in the host's FPU. c->vec_live says what is there now; the rest, and
 * everything while C runs, is in c->vec.
 *
 * A block that holds such instructions asks for what it needs before the first of them: it tests c->vec_live and calls
 * vec_live_enter() when a bit is missing. Whatever leaves generated code for C calls vec_live_leave() first, if
 * vec_live is not 0. Both, and what calls them, are compiled for general registers only. On the vCPU's thread.
 *
 * Live state has every exception masked, so nothing in generated code traps: with an unmasked one enter() refuses, and
 * the interpreter does the block. What could unmask one or take the right to the state away (LDMXCSR, FLDCW, XRSTOR,
 * CR0, CR4, XCR0) is C, too.
 */
#ifndef LODGE_CPU_SOFT_VEC_LIVE_H
#define LODGE_CPU_SOFT_VEC_LIVE_H

#include "cpu/soft/cpu.h"

enum {
    LIVE_SSE = 1, /* XMM and MXCSR; upper halves of YMM as well where the host has them */
    LIVE_AVX = 2, /* and the guest may use VEX instructions */
    LIVE_X87 = 4,
};

/* Is this a host on which the state can be live? */
bool vec_live_supported(void);

/*
 * Brings `want` (LIVE_* bits) into the host's registers. False: not allowed now, or exceptions are unmasked; then
 * nothing was changed, and the interpreter must execute the instruction, which finds out what is wrong.
 */
bool vec_live_enter(struct soft_cpu *c, unsigned want);

/* Saves what is live to c->vec and makes the host's registers fit for C. Returns what was live. */
unsigned vec_live_leave(struct soft_cpu *c);

#endif
