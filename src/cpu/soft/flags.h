/*
 * RFLAGS. The host is an x86 too: handlers let it compute the status flags by executing the guest's operation, and keep
 * what LAHF (bits 8..15) and SETO (bit 0) gave in c->cc. So even the flags that the manual leaves undefined are those
 * of a real CPU. flags_get and flags_set_status are for everybody; interp_*.c use cc itself.
 */
#ifndef LODGE_CPU_SOFT_FLAGS_H
#define LODGE_CPU_SOFT_FLAGS_H

#include "cpu/soft/cpu.h"

/* Bits of c->cc. */
#define CC_O BIT(0)
#define CC_C BIT(8)
#define CC_P BIT(10)
#define CC_A BIT(12)
#define CC_Z BIT(14)
#define CC_S BIT(15)

/* The six status flags as RFLAGS bits. */
static inline uint32_t flags_status(const struct soft_cpu *c)
{
    return (c->cc >> 8 & (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)) | (c->cc & CC_O) << 11;
}

static inline uint64_t flags_get(const struct soft_cpu *c)
{
    return c->rflags_rest | flags_status(c);
}
/* Sets the status flags to the bits in `status`. */
static inline void flags_set_status(struct soft_cpu *c, uint32_t status)
{
    c->cc = (status & (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)) << 8 | (status >> 11 & 1);
}
/*
 * Writes the bits of RFLAGS in `mask` (status flags included). The caller knows which ones privilege allows. Recomputes
 * slow_step, MMU mode (AC) and VM as needed; an IF that became 1 makes the run loop look for interrupts.
 */
void flags_write(struct soft_cpu *c, uint64_t value, uint64_t mask);

#endif
