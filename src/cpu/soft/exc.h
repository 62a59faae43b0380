/* Exceptions and interrupts (SDM 3A, ch. 6). */
#ifndef LODGE_CPU_SOFT_EXC_H
#define LODGE_CPU_SOFT_EXC_H

#include "cpu/soft/cpu.h"

/* Records a fault for the current instruction; all return INSN_FAULT. */
int exc_raise(struct soft_cpu *c, unsigned vector);
int exc_raise_code(struct soft_cpu *c, unsigned vector, uint32_t error);
int exc_page_fault(struct soft_cpu *c, uint64_t lin, uint32_t error);
/* #DB with these DR6 bits. */
int exc_debug(struct soft_cpu *c, uint64_t dr6);

enum exc_kind {
    EXC_FAULT,    /* an exception in c->exc, rip at the instruction (traps: rip already after it) */
    EXC_EXTERNAL, /* interrupt from the APIC or PIC */
    EXC_SOFT_INT, /* INT n, INTO, INT3: rip is after the instruction */
    EXC_NMI_KIND,
};

/*
 * Delivers through the IDT (or IVT), with contributory and double fault rules; a triple fault sets c->shutdown. Never
 * returns a fault: what happens during delivery is delivered too.
 */
void exc_deliver(struct soft_cpu *c);
void exc_interrupt(struct soft_cpu *c, unsigned vector, enum exc_kind kind);

/*
 * INT n, INT3, INTO and INT1 as instructions (c->rip still at them): INSN_JUMP, or INSN_FAULT with the fault met on the
 * way, which is then the instruction's own. `privileged`: INT1, whose gate's DPL does not matter.
 */
MUST_CHECK int exc_soft_int(struct soft_cpu *c, unsigned vector, uint64_t next_rip, bool privileged);

struct stack;
/* The stack of privilege level `cpl` as the TSS names it, checked (#TS, #SS): for call gates. 32-bit and 16-bit TSS. */
MUST_CHECK int exc_inner_stack(struct soft_cpu *c, unsigned cpl, struct stack *s);

#endif
