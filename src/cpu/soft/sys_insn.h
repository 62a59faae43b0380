/* What the sys_*.c files share: operands of system instructions, and their parts of sys_claim(). */
#ifndef LODGE_CPU_SOFT_SYS_INSN_H
#define LODGE_CPU_SOFT_SYS_INSN_H

#include "cpu/soft/insn.h"
#include "cpu/soft/seg.h"

/* Loads or stores `size` bytes at the memory operand plus `disp`. */
MUST_CHECK int sys_load(struct soft_cpu *c, const struct insn *i, unsigned disp, unsigned size, uint64_t *ret);
MUST_CHECK int sys_store(struct soft_cpu *c, const struct insn *i, unsigned disp, unsigned size, uint64_t val);
/* The r/m operand, register or memory. */
MUST_CHECK int sys_rm_read(struct soft_cpu *c, const struct insn *i, unsigned size, uint64_t *ret);
/* Writes a general register as an operation of `size` bytes does: 4 clears the upper half, 2 keeps the rest. */
static inline void sys_set_reg(struct soft_cpu *c, unsigned reg, unsigned size, uint64_t val)
{
    if (size >= 4)
        c->gpr[reg] = size == 4 ? (uint32_t)val : val;
    else
        c->gpr[reg] = (c->gpr[reg] & ~0xffffull) | (uint16_t)val;
}

/* #GP(0) unless CPL is 0. */
MUST_CHECK int sys_need_cpl0(struct soft_cpu *c);
/* #UD outside protected mode. */
MUST_CHECK int sys_need_pe(struct soft_cpu *c);

/* The code segment that RET far and IRET go back to: all checks but the instruction pointer. */
MUST_CHECK int sys_check_return_cs(struct soft_cpu *c, uint16_t sel, struct seg_desc *d);
bool sys_ip_ok(const struct soft_cpu *c, uint64_t raw, uint64_t ip);

bool sys_claim_far(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
bool sys_claim_int(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
bool sys_claim_call(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
bool sys_claim_cr(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
bool sys_claim_desc(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);

#endif
