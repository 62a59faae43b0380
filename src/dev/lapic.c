/*
 * One local APIC (SDM 3A, chapter 11): interrupt acceptance and priority, EOI, local pins, mode and reset. Registers
 * are in lapic_regs.c, the timer is in lapic_timer.c. See lapic.h for who may call what; requests from elsewhere come
 * through lapic_deliver() and lapic_set_lint().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fd.h"
#include "dev/lapic_priv.h"

static int highest(const _Atomic uint32_t *reg)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t v = atomic_load(&reg[i]);
        if (v)
            return i * 32 + 31 - __builtin_clz(v);
    }
    return -1;
}

static bool test_bit(const _Atomic uint32_t *reg, unsigned v)
{
    return atomic_load(&reg[v / 32]) & BIT(v & 31);
}
static void set_bit(_Atomic uint32_t *reg, unsigned v)
{
    atomic_fetch_or(&reg[v / 32], BIT(v & 31));
}
static void clear_bit(_Atomic uint32_t *reg, unsigned v)
{
    atomic_fetch_and(&reg[v / 32], ~BIT(v & 31));
}

unsigned lapic_ppr(const struct lapic *l)
{
    unsigned tpr = atomic_load(&l->tpr);
    int v = highest(l->isr);
    unsigned isr = v < 0 ? 0 : v & 0xf0;
    return (tpr & 0xf0) >= isr ? tpr : isr;
}

void lapic_notify(struct lapic *l)
{
    atomic_store(&l->maybe, 1);
    l->cpu.signal(l->cpu.opaque, LAPIC_INTR, 0);
}

/* On the vCPU's thread, after priorities or masks changed. */
void lapic_reconsider(struct lapic *l)
{
    if (atomic_load(&l->maybe))
        l->cpu.signal(l->cpu.opaque, LAPIC_INTR, 0);
}

void lapic_accept(struct lapic *l, uint8_t vector, bool level)
{
    if (!lapic_enabled(l) || !(atomic_load(&l->svr) & SVR_ENABLE))
        return;
    if (vector < 16) {
        lapic_error(l, ESR_RECV_ILLEGAL);
        return;
    }
    if (level)
        set_bit(l->tmr, vector);
    else if (test_bit(l->tmr, vector))
        clear_bit(l->tmr, vector);
    set_bit(l->irr, vector);
    lapic_notify(l);
}

void lapic_error(struct lapic *l, uint32_t bit)
{
    uint32_t lvt = atomic_load(&l->lvt[LVT_ERROR]);
    if (!(atomic_fetch_or(&l->esr_pending, bit) & bit) && !(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
        lapic_accept(l, (uint8_t)lvt, false);
}

void lapic_deliver(struct lapic *l, unsigned dm, uint8_t vector, bool level)
{
    switch (dm) {
    case DM_FIXED:
    case DM_LOWEST:
        lapic_accept(l, vector, level);
        break;
    case DM_SMI:
        l->cpu.signal(l->cpu.opaque, LAPIC_SMI, 0);
        break;
    case DM_NMI:
        l->cpu.signal(l->cpu.opaque, LAPIC_NMI, 0);
        break;
    case DM_INIT:
        l->cpu.signal(l->cpu.opaque, LAPIC_INIT, 0);
        break;
    case DM_SIPI:
        l->cpu.signal(l->cpu.opaque, LAPIC_SIPI, vector);
        break;
    case DM_EXTINT:
        atomic_store(&l->ext_message, 1);
        lapic_notify(l);
        break;
    }
}

/* ---- local pins ---- */

static bool extint_wanted(const struct lapic *l)
{
    if (!l->set->cfg.extint_ack)
        return false;
    if (atomic_load(&l->ext_message))
        return true;
    if (!atomic_load(&l->lint_level[0]))
        return false;
    uint32_t lvt = atomic_load(&l->lvt[LVT_LINT0]);
    return !lapic_enabled(l) || (!(lvt & LVT_MASKED) && (lvt >> 8 & 7) == DM_EXTINT);
}

/* A pin in fixed mode: level-triggered it asks until EOI, then again if it is still high. */
static void pin_fixed(struct lapic *l, unsigned n, bool rising)
{
    uint32_t lvt = atomic_load(&l->lvt[LVT_LINT0 + n]);
    if (n == 0 && (lvt & LVT_LEVEL)) {
        if (lvt & LVT_REMOTE_IRR)
            return;
        atomic_fetch_or(&l->lvt[LVT_LINT0], LVT_REMOTE_IRR);
        lapic_accept(l, (uint8_t)lvt, true);
    } else if (rising) {
        lapic_accept(l, (uint8_t)lvt, false);
    }
}

/* The pin is high, and was set so just now if `rising`. */
void lapic_pin_high(struct lapic *l, unsigned n, bool rising)
{
    uint32_t lvt = atomic_load(&l->lvt[LVT_LINT0 + n]);
    unsigned dm = lvt >> 8 & 7;
    if (!lapic_enabled(l))
        dm = n == 0 ? DM_EXTINT : DM_NMI; /* the pins are then INTR and NMI */
    else if (lvt & LVT_MASKED)
        return;
    if (dm == DM_EXTINT) {
        if (n == 0)
            lapic_notify(l);
    } else if (dm == DM_FIXED) {
        pin_fixed(l, n, rising);
    } else if (rising && dm != DM_LOWEST && dm != DM_SIPI) {
        lapic_deliver(l, dm, 0, false);
    }
}

void lapic_set_lint(struct lapic *l, unsigned n, int level)
{
    uint8_t was = atomic_exchange(&l->lint_level[n], level != 0);
    if (level)
        lapic_pin_high(l, n, !was);
}

static void lint_set(void *opaque, unsigned n, int level)
{
    lapic_set_lint(opaque, n, level);
}

struct irq lapic_lint(struct lapic *l, unsigned n)
{
    return (struct irq){lint_set, l, n & 1};
}

/* ---- delivery to the CPU ---- */

/* The most urgent request, or -1, and then `maybe` is cleared: who makes a request sets it after, so none is missed. */
static int top_request(struct lapic *l)
{
    int v = highest(l->irr);
    if (v >= 0)
        return v;
    atomic_store(&l->maybe, 0);
    v = highest(l->irr);
    if (v >= 0 || extint_wanted(l))
        atomic_store(&l->maybe, 1);
    return v;
}

int lapic_pending(struct lapic *l)
{
    if (!atomic_load_explicit(&l->maybe, memory_order_acquire))
        return -1;
    if (extint_wanted(l))
        return LAPIC_EXTINT;
    int v = top_request(l);
    if (v < 0)
        return extint_wanted(l) ? LAPIC_EXTINT : -1;
    return (unsigned)v >> 4 > lapic_ppr(l) >> 4 ? v : -1;
}

int lapic_ack(struct lapic *l)
{
    int v = lapic_pending(l);
    if (v == LAPIC_EXTINT) {
        atomic_store(&l->ext_message, 0);
        return l->set->cfg.extint_ack(l->set->cfg.extint_opaque) & 0xff;
    }
    if (v >= 0) {
        set_bit(l->isr, (unsigned)v);
        clear_bit(l->irr, (unsigned)v);
        top_request(l); /* so that EOI need not wake the CPU for nothing */
    }
    return v;
}

void lapic_end_of_interrupt(struct lapic *l)
{
    int v = highest(l->isr);
    if (v < 0)
        return;
    clear_bit(l->isr, (unsigned)v);
    if (test_bit(l->tmr, (unsigned)v)) {
        uint32_t lint0 = atomic_load(&l->lvt[LVT_LINT0]);
        if ((lint0 & LVT_REMOTE_IRR) && (lint0 & 0xff) == (unsigned)v) {
            atomic_fetch_and(&l->lvt[LVT_LINT0], ~LVT_REMOTE_IRR);
            if (atomic_load(&l->lint_level[0]))
                lapic_pin_high(l, 0, false);
        }
        if (!(atomic_load(&l->svr) & SVR_NO_EOI_BROADCAST) && l->set->cfg.eoi)
            l->set->cfg.eoi(l->set->cfg.eoi_opaque, (uint8_t)v);
    }
    lapic_reconsider(l);
}

/* ---- mode, reset ---- */

uint32_t lapic_x2apic_ldr(uint32_t id)
{
    return id >> 4 << 16 | BIT(id & 15);
}

void lapic_init_reset(struct lapic *l)
{
    for (unsigned i = 0; i < 8; i++) {
        atomic_store(&l->irr[i], 0);
        atomic_store(&l->isr[i], 0);
        atomic_store(&l->tmr[i], 0);
    }
    atomic_store(&l->tpr, 0);
    atomic_store(&l->ldr, lapic_x2apic(l) ? lapic_x2apic_ldr(l->id) : 0);
    atomic_store(&l->dfr, 0xffffffff);
    atomic_store(&l->svr, 0xff);
    for (unsigned i = 0; i < LVTS; i++)
        atomic_store(&l->lvt[i], LVT_MASKED);
    atomic_store(&l->esr_pending, 0);
    atomic_store(&l->ext_message, 0);
    l->esr = l->icr = l->icr2 = l->divide = l->initial = 0;
    l->tsc_deadline = 0;
    if (l->expires)
        lapic_timer_arm(l, 0);
}

uint64_t lapic_base_msr(const struct lapic *l)
{
    return atomic_load(&l->base);
}

int lapic_set_base_msr(struct lapic *l, uint64_t val, unsigned maxphyaddr)
{
    const uint64_t mode = BASE_ENABLE | BASE_X2APIC;
    uint64_t old = atomic_load(&l->base);
    uint64_t valid = (((1ull << maxphyaddr) - 1) & ~0xfffull) | BASE_BSP | mode;
    if ((val & ~valid) || (val & mode) == BASE_X2APIC)
        return -1;
    if ((old & mode) == mode && (val & mode) == BASE_ENABLE) /* x2APIC must be left by way of disabled */
        return -1;
    if (!(old & BASE_ENABLE) && (val & mode) == mode)
        return -1;
    atomic_store(&l->base, val);
    if ((old & BASE_ENABLE) && !(val & BASE_ENABLE))
        lapic_init_reset(l);
    if (!(old & BASE_X2APIC) && (val & BASE_X2APIC)) {
        atomic_store(&l->ldr, lapic_x2apic_ldr(l->id));
        atomic_store(&l->dfr, 0xffffffff); /* there is none */
        l->icr2 = 0;
    }
    if (atomic_load(&l->lint_level[0]))
        lapic_pin_high(l, 0, false);
    return 0;
}

static void lapic_reset(struct device *dev)
{
    struct lapic *l = container_of(dev, struct lapic, dev);
    atomic_store(&l->base, LAPIC_BASE | BASE_ENABLE | (l->bsp ? BASE_BSP : 0));
    lapic_init_reset(l);
    if (l->bsp)
        atomic_store(&l->lvt[LVT_LINT0], DM_EXTINT << 8);
    if (atomic_load(&l->lint_level[0]))
        lapic_pin_high(l, 0, false);
}

/* ---- life ---- */

static void lapic_destroy(struct device *dev)
{
    struct lapic *l = container_of(dev, struct lapic, dev);
    struct lapic_set *set = l->set;
    for (unsigned i = 0; i < set->n; i++)
        if (set->cpu[i] == l)
            set->cpu[i] = set->cpu[--set->n];
    if (l->id < ARRAY_SIZE(set->by_id))
        set->by_id[l->id] = NULL;
    free(l);
}

const struct device_type lapic_type = {
    .name = "lapic",
    .summary = "local APIC (xAPIC and x2APIC)",
    .state = &lapic_state,
    .reset = lapic_reset,
    .destroy = lapic_destroy,
};

int lapic_new(struct lapic_set *set, uint32_t apic_id, bool bsp, const struct lapic_cpu *cpu, struct lapic **ret,
              struct err *err)
{
    for (unsigned i = 0; i < set->n; i++)
        if (set->cpu[i]->id == apic_id)
            return err_set(err, -EEXIST, "local APIC id %u is taken", apic_id);
    if (set->n == LAPIC_CPUS_MAX)
        return err_set(err, -ENOSPC, "more than %d local APICs", LAPIC_CPUS_MAX);
    struct lapic *l = xcalloc(1, sizeof *l);
    char id[sizeof l->dev.id];
    snprintf(id, sizeof id, "lapic%u", apic_id);
    device_init(&l->dev, &lapic_type, id);
    l->set = set;
    l->cpu = *cpu;
    l->id = apic_id;
    l->bsp = bsp;
    lapic_reset(&l->dev);
    set->cpu[set->n++] = l;
    if (apic_id < ARRAY_SIZE(set->by_id))
        set->by_id[apic_id] = l;
    *ret = l;
    return 0;
}

struct device *lapic_device(struct lapic *l)
{
    return &l->dev;
}

uint32_t lapic_id(const struct lapic *l)
{
    return l->id;
}
