/*
 * The canonical CPU state: what every engine can give and take, at an instruction boundary. Modelled on KVM's structs, so that the
 * KVM engine copies and the software engine converts, and a guest saved on one engine resumes on another.
 */
#ifndef LODGE_CPU_STATE_H
#define LODGE_CPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/x86.h"

struct cpu_segment {
    uint64_t base;
    uint32_t limit; /* bytes, expanded by the granularity bit */
    uint16_t selector;
    uint8_t type; /* 4 bits of the descriptor's type */
    uint8_t s, dpl, present, avl, l, db, g;
    uint8_t unusable;
};

struct cpu_table {
    uint64_t base;
    uint16_t limit;
};

enum cpu_run_state { CPU_RUNNABLE, CPU_HALTED, CPU_WAIT_INIT /* AP after reset */, CPU_WAIT_SIPI };

#define CPU_XSAVE_SIZE 4096
#define CPU_MSRS_MAX 64

struct cpu_msr {
    uint32_t index;
    uint64_t value;
};

struct cpu_state {
    uint64_t gpr[16]; /* RAX … R15 in encoding order */
    uint64_t rip, rflags;
    struct cpu_segment seg[SEG_COUNT], tr, ldt;
    struct cpu_table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint64_t pdpte[4]; /* PAE: the four page-directory pointers as loaded by CR3 */
    uint64_t dr[8];
    uint64_t xcr0;
    uint8_t xsave[CPU_XSAVE_SIZE]; /* standard (non-compacted) XSAVE format */
    struct cpu_msr msr[CPU_MSRS_MAX];
    unsigned nmsrs;
    uint64_t tsc;
    enum cpu_run_state run_state;
    /* Events on their way (KVM_GET_VCPU_EVENTS). */
    bool exception_pending, exception_has_error;
    uint8_t exception_vector;
    uint32_t exception_error;
    bool interrupt_injected;
    uint8_t interrupt_vector;
    bool nmi_pending, nmi_masked;
    uint8_t interrupt_shadow; /* 1: after STI, 2: after MOV SS */
};

/* MSRs that belong to the state of a guest on any engine, zero-terminated. */
extern const uint32_t cpu_state_msrs[];

/* Power-on / RESET state (SDM 3A, 10.1.1). `bsp`: starts at 0xfffffff0; others wait for INIT and SIPI. */
void cpu_state_reset(struct cpu_state *s, bool bsp);

uint64_t *cpu_state_msr(struct cpu_state *s, uint32_t index); /* NULL when it is not there */
void cpu_state_set_msr(struct cpu_state *s, uint32_t index, uint64_t value);

/* For people: registers as text ("info registers"). At most `size` bytes with the NUL. */
void cpu_state_format(const struct cpu_state *s, char *buf, size_t size);

#endif
