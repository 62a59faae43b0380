/* What lapic.c (one APIC), lapic_regs.c, lapic_timer.c and lapic_set.c (routing between them) share. */
#ifndef LODGE_DEV_LAPIC_PRIV_H
#define LODGE_DEV_LAPIC_PRIV_H

#include <stdatomic.h>

#include "base/bits.h"
#include "dev/lapic.h"

#define BASE_BSP BIT64(8)
#define BASE_X2APIC BIT64(10)
#define BASE_ENABLE BIT64(11)

#define SVR_ENABLE BIT(8)
#define SVR_NO_EOI_BROADCAST BIT(12)

#define LVT_REMOTE_IRR BIT(14)
#define LVT_LEVEL BIT(15)
#define LVT_MASKED BIT(16)

#define ESR_SEND_ILLEGAL BIT(5)
#define ESR_RECV_ILLEGAL BIT(6)

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVTS };
enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_DEADLINE };
enum { DM_FIXED, DM_LOWEST, DM_SMI, DM_RESERVED, DM_NMI, DM_INIT, DM_SIPI, DM_EXTINT };

struct lapic {
    struct device dev;
    struct lapic_set *set;
    struct lapic_cpu cpu;
    uint32_t id;
    bool bsp;

    /* 1 when IRR or ExtINT may ask for delivery. Set by anyone after the request, cleared by the vCPU's thread only. */
    _Atomic uint32_t maybe;
    /* Set by any thread, the rest of IRR's life is the vCPU's. ISR is written by the vCPU only, read by senders (lowest
     * priority). */
    _Atomic uint32_t irr[8], isr[8], tmr[8];
    /* Written by the vCPU only, read by senders. */
    _Atomic uint64_t base;
    _Atomic uint32_t tpr, ldr, dfr, svr, lvt[LVTS];
    /* Written by any thread. */
    _Atomic uint32_t esr_pending, ext_message;
    _Atomic uint8_t lint_level[2];

    /* The vCPU's thread only. */
    uint32_t esr, icr, icr2, divide, initial;
    uint64_t tsc_deadline;
    uint64_t expires; /* guest ns of the next timer interrupt, 0: none */

    /* Filled for saving: the same things in KVM's form. */
    uint8_t page[LAPIC_PAGE_SIZE];
    uint64_t saved_base;
};

struct lapic_set {
    struct lapic_set_config cfg;
    struct lapic *cpu[LAPIC_CPUS_MAX];
    unsigned n;
    struct lapic *by_id[256];
    _Atomic unsigned turn; /* where the search for the lowest priority begins */
};

static inline bool lapic_enabled(const struct lapic *l)
{
    return atomic_load_explicit(&l->base, memory_order_relaxed) & BASE_ENABLE;
}
static inline bool lapic_x2apic(const struct lapic *l)
{
    return atomic_load_explicit(&l->base, memory_order_relaxed) & BASE_X2APIC;
}

unsigned lapic_ppr(const struct lapic *l);
/* Delivers to this APIC with delivery mode `dm`. Any thread. */
void lapic_deliver(struct lapic *l, unsigned dm, uint8_t vector, bool level);
/* What an APIC's ICR asks for. `dest`: 8 bits in xAPIC mode, 32 in x2APIC mode. */
void lapic_set_ipi(struct lapic_set *set, struct lapic *from, uint32_t icr, uint32_t dest);
void lapic_set_lint(struct lapic *l, unsigned n, int level);

/* lapic.c. Puts a vector into IRR. Any thread. */
void lapic_accept(struct lapic *l, uint8_t vector, bool level);
/* Sets an ESR bit and raises the error interrupt. Any thread. */
void lapic_error(struct lapic *l, uint32_t bit);
/* There is a new request: any thread. Priorities or masks have changed: the vCPU's. */
void lapic_notify(struct lapic *l);
void lapic_reconsider(struct lapic *l);
/* LINTn is high, and was set so just now if `rising`. */
void lapic_pin_high(struct lapic *l, unsigned n, bool rising);
void lapic_end_of_interrupt(struct lapic *l);
uint32_t lapic_x2apic_ldr(uint32_t id);

/* lapic_timer.c */
unsigned lapic_timer_mode(const struct lapic *l);
void lapic_timer_arm(struct lapic *l, uint64_t expires);
uint32_t lapic_timer_current(const struct lapic *l);
/* Starts counting down from `count` (of `initial`). */
void lapic_timer_start(struct lapic *l, uint32_t count);
void lapic_timer_write_lvt(struct lapic *l, uint32_t val);
void lapic_timer_write_divide(struct lapic *l, uint32_t val);

/* lapic_regs.c */
extern const struct state_desc lapic_state;

#endif
