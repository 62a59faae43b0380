/* Hardware task switches (SDM 3A, ch. 7): JMP, CALL, IRET and task gates. Not in long mode. */
#ifndef LODGE_CPU_SOFT_TASK_H
#define LODGE_CPU_SOFT_TASK_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/seg.h"

enum task_source { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE /* interrupt or exception */ };

/* Reads and checks the TSS descriptor a task gate or far pointer names. INSN_FAULT: #GP or #NP with the selector. */
MUST_CHECK int task_check(struct soft_cpu *c, uint16_t sel, uint32_t ext, struct seg_desc *ret);

/*
 * Switches to the task; `d` is its descriptor, checked as the source demands. c->rip must be where the old task goes
 * on. 0, or INSN_FAULT: #TS and the like; those after the commit point arise in the new task, as the manual says.
 */
MUST_CHECK int task_switch(struct soft_cpu *c, uint16_t sel, struct seg_desc *d, enum task_source source);

#endif
