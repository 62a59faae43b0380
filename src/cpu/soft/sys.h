/*
 * The system side of a software vCPU, for its other parts: state in and out, reset, I/O permission, MSRs, TSC, debug
 * registers. All on the vCPU's thread (or while it does not run).
 */
#ifndef LODGE_CPU_SOFT_SYS_H
#define LODGE_CPU_SOFT_SYS_H

#include "cpu/soft/cpu.h"

/* What the software engine can do on this host (vector instructions are executed by the host). */
void soft_cpuid_caps(struct cpuid_caps *caps);

/* Conversion from and to the canonical state. set: -EINVAL with a message when the state cannot be; then *c is
 * unchanged. */
void soft_get_state(struct soft_cpu *c, struct cpu_state *s);
int soft_set_state(struct soft_cpu *c, const struct cpu_state *s, struct err *err);

/* RESET: power-on state; an AP (not `bsp`) then waits for INIT. */
void soft_reset(struct soft_cpu *c, bool bsp);
/* INIT was accepted: resets what INIT resets; a BSP starts at the reset vector, an AP waits for SIPI. Calls
 * bus->init_taken. */
void soft_take_init(struct soft_cpu *c, bool bsp);
/* SIPI with this vector; ignored unless the vCPU waits for it. */
void soft_take_sipi(struct soft_cpu *c, uint8_t vector);

/* The guest's TSC now. */
uint64_t soft_tsc(struct soft_cpu *c);
void soft_set_tsc(struct soft_cpu *c, uint64_t tsc);

/* Writes of control registers as MOV does them: INSN_BREAK, or INSN_FAULT with #GP(0). */
MUST_CHECK int sys_write_cr0(struct soft_cpu *c, uint64_t v);
MUST_CHECK int sys_write_cr3(struct soft_cpu *c, uint64_t v);
MUST_CHECK int sys_write_cr4(struct soft_cpu *c, uint64_t v);

/* MSRs as RDMSR and WRMSR see them. 0, or INSN_FAULT with #GP(0) recorded. */
MUST_CHECK int soft_rdmsr(struct soft_cpu *c, uint32_t msr, uint64_t *ret);
MUST_CHECK int soft_wrmsr(struct soft_cpu *c, uint32_t msr, uint64_t value);

/* May the current code do I/O at `port`: IOPL and the TSS bitmap. 0 or INSN_FAULT (#GP(0), #PF). For IN, OUT, INS and
 * OUTS. */
MUST_CHECK int sys_io_allowed(struct soft_cpu *c, uint16_t port, unsigned size);
/* The access itself, through the bus, with I/O breakpoints noticed. `size` 1, 2, 4. */
uint32_t sys_io_read(struct soft_cpu *c, uint16_t port, unsigned size);
void sys_io_write(struct soft_cpu *c, uint16_t port, unsigned size, uint32_t val);

/*
 * Debugging (SDM 3B, ch. 17). The run loop, while c->slow_step: dbg_check_fetch before an instruction at linear `lin`
 * (#DB fault; heeds RF); after an instruction that did not fault, dbg_insn_done with the TF that was set before it:
 * clears RF and says INSN_FAULT with the #DB trap in c->exc when single-step or data breakpoints hit; rip is then at
 * the next instruction. Call it last, with rip moved.
 */
/* Recomputes slow_step: TF, RF, breakpoints, an interrupt shadow, or a debugger that steps. */
static inline void soft_step_changed(struct soft_cpu *c)
{
    c->slow_step = (c->rflags_rest & (FLAG_TF | FLAG_RF)) || (c->dr[7] & 0xff) || c->int_shadow ||
                   c->debug_step;
}
MUST_CHECK int dbg_check_fetch(struct soft_cpu *c, uint64_t lin);
MUST_CHECK int dbg_insn_done(struct soft_cpu *c, bool tf);
/* A data access happened: notes breakpoints that match; dbg_insn_done reports them. The MMU's slow path calls it. */
void dbg_check_access(struct soft_cpu *c, uint64_t lin, unsigned size, bool write);
void dbg_check_io(struct soft_cpu *c, uint16_t port, unsigned size);
/* Is there an enabled data breakpoint in lin's page? Then it never enters the TLB. */
bool dbg_page_watched(const struct soft_cpu *c, uint64_t lin);

/* A debugger outside of the guest (engine.h, set_debug): debugger.c. All but soft_* are for c->debug not NULL. */
/* Has the page of `lin` breakpoints? Then its code runs by single instructions. */
bool debugger_page(const struct soft_cpu *c, uint64_t lin);
/* Is there a breakpoint at `lin`, where the vCPU is now? Notes it. */
bool debugger_check_fetch(struct soft_cpu *c, uint64_t lin);
void debugger_check_access(struct soft_cpu *c, uint64_t lin, unsigned size, bool write);
/* An instruction, or the delivery of what ends a HLT, is done. */
void debugger_stepped(struct soft_cpu *c);
bool debugger_stops(const struct soft_cpu *c);
bool debugger_watches_page(const struct soft_cpu *c, uint64_t lin);
int soft_set_debug(struct vcpu *v, const struct vcpu_debug *d);
void soft_debug_hit(struct vcpu *v, struct vcpu_hit *ret);

#endif
