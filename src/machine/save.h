/* What save.c, save_cpu.c and save_irq.c share; nobody else includes it. */
#ifndef LODGE_MACHINE_SAVE_H
#define LODGE_MACHINE_SAVE_H

#include "cpu/irqchip.h"
#include "cpu/state.h"
#include "machine/machine.h"
#include "state/state.h"

#define SAVED_CPU_SEGS (SEG_COUNT + 2)

struct saved_cpu {
    uint64_t gpr[16], rip, rflags;
    uint64_t seg_base[SAVED_CPU_SEGS];
    uint32_t seg_limit[SAVED_CPU_SEGS], seg_attr[SAVED_CPU_SEGS];
    uint16_t seg_sel[SAVED_CPU_SEGS];
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint64_t cr[8]; /* CR0, CR2, CR3, CR4, CR8, EFER, IA32_APIC_BASE, XCR0 */
    uint64_t pdpte[4], dr[8];
    uint8_t xsave[CPU_XSAVE_SIZE];
    uint32_t msr_index[CPU_MSRS_MAX]; /* 0: none */
    uint64_t msr_value[CPU_MSRS_MAX];
    uint64_t tsc;
    uint32_t exception_error;
    uint8_t run_state, events, exception_vector, interrupt_vector, interrupt_shadow;
};
extern const struct state_desc saved_cpu_desc;
void saved_cpu_from(struct saved_cpu *c, const struct cpu_state *s);
int saved_cpu_to(const struct saved_cpu *c, struct cpu_state *s, struct err *err);

/* The interrupt controllers, whoever has them. Loading: after the CPUs, whose states (`cpu`, one a vCPU) hold the TSC deadlines. */
int save_irqchip(struct vm *vm, struct state_writer *w, struct err *err);
int load_irqchip(struct vm *vm, struct state_reader *r, const struct cpu_state *cpu, struct err *err);
/* Whether a device is one of them, and so is saved there. */
bool is_irqchip(const struct device *d);

#endif
