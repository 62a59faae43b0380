/*
 * Local APICs in user space, for the software engine (Intel SDM 3A, chapter 11 "APIC"): xAPIC and x2APIC. One struct
 * lapic per vCPU; all of a machine belong to one struct lapic_set, which routes IPIs and interrupt messages.
 *
 * Unless said otherwise a function may be called only on the vCPU's own thread, or while that vCPU is stopped. Other
 * threads (and other vCPUs, through IPIs) only set IRR bits and call `signal`; there is no lock on any of these paths.
 */
#ifndef LODGE_DEV_LAPIC_H
#define LODGE_DEV_LAPIC_H

#include "base/clock.h"
#include "dev/device.h"
#include "dev/irq.h"

#define LAPIC_BASE 0xfee00000ull /* after reset */
#define LAPIC_SIZE 0x1000u
#define LAPIC_CPUS_MAX 255
#define LAPIC_TIMER_HZ 1000000000u /* timer input clock before the divider: one tick a guest nanosecond, as KVM's */
#define LAPIC_EXTINT 256           /* from lapic_pending(): the vector comes from the 8259 at acknowledge */

enum lapic_signal {
    LAPIC_INTR, /* what lapic_pending() returns may have changed */
    LAPIC_NMI,
    LAPIC_INIT, /* the engine resets the CPU, calls lapic_init_reset(), and waits for LAPIC_SIPI (the BSP starts at
                   once) */
    LAPIC_SIPI, /* arg: vector; ignored by a CPU that does not wait for one */
    LAPIC_SMI,
};

/* What the engine gives for its vCPU. All but `signal` are called on the vCPU's own thread only. */
struct lapic_cpu {
    void *opaque;
    /* Any thread, the vCPU's own too. Must not block and not call back into the lapic; it kicks the vCPU. */
    void (*signal)(void *opaque, enum lapic_signal what, unsigned arg);
    /* Call lapic_timer_expired() at guest time `guest_ns` (replaces the former request); 0: never. */
    void (*arm_timer)(void *opaque, uint64_t guest_ns);
    uint64_t (*tsc)(void *opaque); /* the guest's TSC now */
    uint32_t tsc_khz;              /* its rate */
};

struct lapic;
struct lapic_set;

struct lapic_set_config {
    const struct clock *clock;
    /* The 8259's acknowledge cycle (pic_ack). NULL: no 8259. Any vCPU thread. */
    int (*extint_ack)(void *opaque);
    /* EOI broadcast of a level-triggered vector (ioapic_eoi). NULL: none. Any vCPU thread. */
    void (*eoi)(void *opaque, uint8_t vector);
    void *extint_opaque, *eoi_opaque;
};

struct lapic_set *lapic_set_new(const struct lapic_set_config *cfg);
/* NULL-safe. After all of its lapics were freed (device_free). */
void lapic_set_free(struct lapic_set *set);
/* Late wiring, where the I/O APIC is created after the set. Before the first vCPU runs. */
void lapic_set_connect(struct lapic_set *set, const struct lapic_set_config *cfg);

/* An interrupt message (SDM 3A 11.11). Any thread. */
void lapic_set_msi(struct lapic_set *set, uint64_t addr, uint32_t data);
struct msi_sink lapic_set_msi_sink(struct lapic_set *set);
/* The 8259's INT line: LINT0 of every local APIC. */
struct irq lapic_set_lint0(struct lapic_set *set);
/* The NMI line: LINT1 of every local APIC. */
struct irq lapic_set_lint1(struct lapic_set *set);

/*
 * A new local APIC, in power-on state. LINT0 of the bootstrap processor is then in virtual-wire mode (ExtINT,
 * unmasked), as firmware leaves it. -EEXIST when the id is taken, -ENOSPC. Before the first vCPU runs.
 */
int lapic_new(struct lapic_set *set, uint32_t apic_id, bool bsp, const struct lapic_cpu *cpu, struct lapic **ret,
              struct err *err);
struct device *lapic_device(struct lapic *l);
uint32_t lapic_id(const struct lapic *l);

/*
 * The highest vector that can be delivered now, LAPIC_EXTINT, or -1. One atomic load when nothing is pending. Not to be
 * confused with RFLAGS.IF: the engine checks that.
 */
int lapic_pending(struct lapic *l);
/* The CPU takes the interrupt: returns its vector and moves it to in-service. -1 when nothing is deliverable after all.
 */
int lapic_ack(struct lapic *l);
/* The moment asked for by arm_timer has come (early calls do no harm). */
void lapic_timer_expired(struct lapic *l);
/* What INIT does: everything but the ID and IA32_APIC_BASE as after power-on. */
void lapic_init_reset(struct lapic *l);

/* The MMIO page (only while enabled in xAPIC mode: lapic_mmio_base()). `off` < 4096. */
uint32_t lapic_mmio_read(struct lapic *l, unsigned off, unsigned size);
void lapic_mmio_write(struct lapic *l, unsigned off, unsigned size, uint32_t val);
/* Physical address of the page, or UINT64_MAX when there is none (disabled or x2APIC). */
uint64_t lapic_mmio_base(const struct lapic *l);

/* MSRs 0x800-0x8ff. 0, or -1: the CPU raises #GP. */
int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *ret);
int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t val);
/* IA32_APIC_BASE (0x1b). `maxphyaddr`: physical address bits. Write: 0, or -1 for #GP. */
uint64_t lapic_base_msr(const struct lapic *l);
int lapic_set_base_msr(struct lapic *l, uint64_t val, unsigned maxphyaddr);
/* IA32_TSC_DEADLINE (0x6e0). */
uint64_t lapic_tsc_deadline(struct lapic *l);
void lapic_set_tsc_deadline(struct lapic *l, uint64_t tsc);
/* The guest's TSC was set or adjusted: a TSC deadline is converted anew. */
void lapic_tsc_changed(struct lapic *l);

/* CR8, bits 3:0. */
unsigned lapic_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, unsigned cr8);

/* Pins of one local APIC; n: 0 LINT0, 1 LINT1. Any thread. */
struct irq lapic_lint(struct lapic *l, unsigned n);

/* The register page as KVM_GET_LAPIC/KVM_SET_LAPIC have it (1024 bytes; x2APIC ID in all 32 bits). -EINVAL for what
 * cannot be. */
#define LAPIC_PAGE_SIZE 1024
void lapic_get_page(struct lapic *l, uint8_t page[LAPIC_PAGE_SIZE]);
int lapic_set_page(struct lapic *l, const uint8_t page[LAPIC_PAGE_SIZE], struct err *err);

extern const struct device_type lapic_type;

#endif
