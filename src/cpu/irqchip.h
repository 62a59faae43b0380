/*
 * The canonical state of a machine's interrupt controllers and PIT: what an engine with its own (KVM) and the chips in user space
 * (src/dev) both can give and take, so that a guest saved on one engine resumes on another. Local APICs are register pages as
 * KVM_GET_LAPIC has them (SDM 3A, table 11-1; 16 bytes a register), with the x2APIC ID in all 32 bits in x2APIC mode;
 * IA32_APIC_BASE and IA32_TSC_DEADLINE belong to struct cpu_state.
 */
#ifndef LODGE_CPU_IRQCHIP_H
#define LODGE_CPU_IRQCHIP_H

#include <stdint.h>

#define IRQCHIP_LAPIC_PAGE 1024
#define IRQCHIP_PINS 24

/* One 8259A. */
struct irqchip_pic {
    uint8_t lines;       /* levels of the inputs */
    uint8_t irr, isr, imr, elcr;
    uint8_t base;        /* ICW2 */
    uint8_t lowest_add;  /* input with the highest priority */
    uint8_t next_icw;    /* 2..4 while being initialised, else 0 */
    uint8_t icw4, auto_eoi, rotate, special_mask, special_nested, read_isr, poll;
};

struct irqchip_ioapic {
    uint8_t select, id;
    uint32_t lines; /* levels of the inputs */
    uint64_t rte[IRQCHIP_PINS];
};

/* One channel of the 8254. */
struct irqchip_pit {
    uint32_t count;      /* 1..65536, 0: none yet */
    uint8_t mode, bcd, gate;
    uint8_t rw;          /* 1 low byte, 2 high byte, 3 low then high */
    uint8_t low;         /* the low byte, while the high one is waited for */
    uint8_t write_high, read_high; /* the high byte is next */
    uint8_t latched;     /* bytes left of the latched count */
    uint8_t status_latched, status;
    uint16_t latch;
    uint64_t elapsed;    /* guest ns since the count was loaded */
};

struct irqchip_state {
    uint8_t has_pic, has_pit, has_kvm_clock;
    struct irqchip_pic pic[2];
    struct irqchip_ioapic ioapic;
    struct irqchip_pit pit[3];
    uint8_t port61;      /* bits 1:0: gate of channel 2, speaker */
    uint64_t kvm_clock;  /* ns */
    uint32_t cpus;
    uint8_t *lapic;      /* cpus * IRQCHIP_LAPIC_PAGE bytes; whoever calls gives the memory */
};

#endif
