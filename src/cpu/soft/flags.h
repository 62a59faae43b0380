/*
 * RFLAGS. The six status flags are computed when somebody asks: cc_op names the last operation that set them, cc_dst its result,
 * cc_src and cc_aux its operands. flags_get/flags_set are for everybody; interp_*.c set the cc fields themselves.
 */
#ifndef LODGE_CPU_SOFT_FLAGS_H
#define LODGE_CPU_SOFT_FLAGS_H

#include "cpu/soft/cpu.h"

/* The six status flags as RFLAGS bits. */
uint32_t flags_status(struct soft_cpu *c);

static inline uint64_t flags_get(struct soft_cpu *c)
{
    return c->rflags_rest | flags_status(c);
}
/* Sets the status flags to the bits in `status`. */
void flags_set_status(struct soft_cpu *c, uint32_t status);
/*
 * Writes the bits of RFLAGS in `mask` (status flags included). The caller knows which ones privilege allows. Recomputes slow_step, MMU
 * mode (AC) and VM as needed; an IF that became 1 makes the run loop look for interrupts.
 */
void flags_write(struct soft_cpu *c, uint64_t value, uint64_t mask);

#endif
