/* Writing RFLAGS as a whole: POPF, IRET, SYSRET and their kin. */
#include "cpu/soft/flags.h"

void flags_write(struct soft_cpu *c, uint64_t value, uint64_t mask)
{
    uint64_t old = c->rflags_rest;
    if (mask & FLAGS_STATUS) {
        uint32_t status = (flags_status(c) & ~mask) | (value & mask & FLAGS_STATUS);
        flags_set_status(c, status);
    }
    mask &= ~(uint64_t)FLAGS_STATUS;
    c->rflags_rest = ((old & ~mask) | (value & mask) | FLAG_1) & ~(uint64_t)FLAGS_STATUS;
    uint64_t changed = old ^ c->rflags_rest;
    if (changed & (FLAG_TF | FLAG_AC | FLAG_VM | FLAG_RF))
        soft_mode_changed(c);
    if ((changed & c->rflags_rest & FLAG_IF) && c->irq_waits)
        pending_add(c, PEND_INTR);
}
