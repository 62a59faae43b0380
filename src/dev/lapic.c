/*
 * One local APIC (SDM 3A, chapter 11): interrupt acceptance and priority, EOI, timer, local vectors, register access.
 * See lapic.h for who may call what; requests from elsewhere come through lapic_deliver() and lapic_set_lint().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fd.h"
#include "dev/lapic_priv.h"

/* A periodic timer shorter than this would keep the host busy with nothing else. The count itself is not changed. */
#define REARM_MIN_NS 20000

static const uint32_t lvt_writable[LVTS] = {0x710ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

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

static void notify(struct lapic *l)
{
    atomic_store(&l->maybe, 1);
    l->cpu.signal(l->cpu.opaque, LAPIC_INTR, 0);
}

/* On the vCPU's thread, after priorities or masks changed. */
static void reconsider(struct lapic *l)
{
    if (atomic_load(&l->maybe))
        l->cpu.signal(l->cpu.opaque, LAPIC_INTR, 0);
}

static void error(struct lapic *l, uint32_t bit);

static void accept(struct lapic *l, uint8_t vector, bool level)
{
    if (!lapic_enabled(l) || !(atomic_load(&l->svr) & SVR_ENABLE))
        return;
    if (vector < 16) {
        error(l, ESR_RECV_ILLEGAL);
        return;
    }
    if (level)
        set_bit(l->tmr, vector);
    else if (test_bit(l->tmr, vector))
        clear_bit(l->tmr, vector);
    set_bit(l->irr, vector);
    notify(l);
}

static void error(struct lapic *l, uint32_t bit)
{
    uint32_t lvt = atomic_load(&l->lvt[LVT_ERROR]);
    if (!(atomic_fetch_or(&l->esr_pending, bit) & bit) && !(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
        accept(l, (uint8_t)lvt, false);
}

void lapic_deliver(struct lapic *l, unsigned dm, uint8_t vector, bool level)
{
    switch (dm) {
    case DM_FIXED:
    case DM_LOWEST:
        accept(l, vector, level);
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
        notify(l);
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
        accept(l, (uint8_t)lvt, true);
    } else if (rising) {
        accept(l, (uint8_t)lvt, false);
    }
}

/* The pin is high, and was set so just now if `rising`. */
static void pin_high(struct lapic *l, unsigned n, bool rising)
{
    uint32_t lvt = atomic_load(&l->lvt[LVT_LINT0 + n]);
    unsigned dm = lvt >> 8 & 7;
    if (!lapic_enabled(l))
        dm = n == 0 ? DM_EXTINT : DM_NMI; /* the pins are then INTR and NMI */
    else if (lvt & LVT_MASKED)
        return;
    if (dm == DM_EXTINT) {
        if (n == 0)
            notify(l);
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
        pin_high(l, n, !was);
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

static void end_of_interrupt(struct lapic *l)
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
                pin_high(l, 0, false);
        }
        if (!(atomic_load(&l->svr) & SVR_NO_EOI_BROADCAST) && l->set->cfg.eoi)
            l->set->cfg.eoi(l->set->cfg.eoi_opaque, (uint8_t)v);
    }
    reconsider(l);
}

/* ---- timer ---- */

enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_DEADLINE };

static unsigned timer_mode(const struct lapic *l)
{
    return atomic_load(&l->lvt[LVT_TIMER]) >> 17 & 3;
}

static unsigned timer_divisor(const struct lapic *l)
{
    unsigned d = (l->divide & 3) | (l->divide >> 1 & 4);
    return d == 7 ? 1 : 2u << d;
}

static void arm(struct lapic *l, uint64_t expires)
{
    l->expires = expires;
    l->cpu.arm_timer(l->cpu.opaque, expires);
}

void lapic_timer_expired(struct lapic *l)
{
    if (!l->expires)
        return;
    uint64_t now = clock_now(l->set->cfg.clock), expires = l->expires;
    if (now < expires) {
        l->cpu.arm_timer(l->cpu.opaque, expires);
        return;
    }
    uint64_t period = (uint64_t)l->initial * timer_divisor(l);
    if (timer_mode(l) == TIMER_PERIODIC && period) {
        expires += (now - expires) / period * period + period; /* the missed ones are one */
        l->expires = expires;
        l->cpu.arm_timer(l->cpu.opaque, MAX(expires, now + REARM_MIN_NS));
    } else {
        l->tsc_deadline = 0;
        arm(l, 0);
    }
    uint32_t lvt = atomic_load(&l->lvt[LVT_TIMER]);
    if (!(lvt & LVT_MASKED))
        accept(l, (uint8_t)lvt, false);
}

static uint32_t timer_current(const struct lapic *l)
{
    uint64_t now = clock_now(l->set->cfg.clock);
    unsigned div = timer_divisor(l);
    if (timer_mode(l) == TIMER_DEADLINE || !l->expires)
        return 0;
    if (now < l->expires)
        return (uint32_t)MIN((l->expires - now + div - 1) / div, l->initial);
    uint64_t period = (uint64_t)l->initial * div;
    if (timer_mode(l) != TIMER_PERIODIC || !period)
        return 0;
    return (uint32_t)((period - (now - l->expires) % period + div - 1) / div);
}

/* Starts counting down from `count` (of `initial`). */
static void timer_start(struct lapic *l, uint32_t count)
{
    arm(l, count ? clock_now(l->set->cfg.clock) + (uint64_t)count * timer_divisor(l) : 0);
}

static void write_lvt_timer(struct lapic *l, uint32_t val)
{
    bool was_deadline = timer_mode(l) == TIMER_DEADLINE;
    atomic_store(&l->lvt[LVT_TIMER], val);
    if (was_deadline != (timer_mode(l) == TIMER_DEADLINE)) {
        l->tsc_deadline = 0;
        l->initial = 0;
        arm(l, 0);
    }
}

uint64_t lapic_tsc_deadline(struct lapic *l)
{
    if (l->tsc_deadline && l->expires && clock_now(l->set->cfg.clock) >= l->expires)
        lapic_timer_expired(l);
    return l->tsc_deadline;
}

void lapic_set_tsc_deadline(struct lapic *l, uint64_t tsc)
{
    if (timer_mode(l) != TIMER_DEADLINE || !lapic_enabled(l))
        return;
    l->tsc_deadline = tsc;
    if (!tsc) {
        arm(l, 0);
        return;
    }
    uint64_t now_tsc = l->cpu.tsc(l->cpu.opaque), now = clock_now(l->set->cfg.clock);
    if (tsc <= now_tsc) {
        l->expires = MAX(now, 1);
        lapic_timer_expired(l);
        return;
    }
    __uint128_t ns = ((__uint128_t)(tsc - now_tsc) * 1000000 + l->cpu.tsc_khz - 1) / l->cpu.tsc_khz;
    arm(l, ns > INT64_MAX - now ? INT64_MAX : now + (uint64_t)ns);
}

void lapic_tsc_changed(struct lapic *l)
{
    if (l->tsc_deadline)
        lapic_set_tsc_deadline(l, l->tsc_deadline);
}

/* ---- registers, numbered by their MMIO offset / 16, which is also their MSR - 0x800 ---- */

enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRD = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR2 = 0x31,
    REG_LVT = 0x32,
    REG_INITIAL = 0x38,
    REG_CURRENT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};

#define SVR_WRITABLE 0x13ffu
#define ICR_WRITABLE 0xccfffu
#define VERSION (0x14u | (LVTS - 1) << 16 | BIT(24)) /* integrated APIC, can suppress EOI broadcasts */

static uint32_t x2apic_ldr(uint32_t id)
{
    return id >> 4 << 16 | BIT(id & 15);
}

static void set_tpr(struct lapic *l, uint32_t tpr)
{
    bool lower = tpr < atomic_load(&l->tpr);
    atomic_store(&l->tpr, tpr);
    if (lower)
        reconsider(l);
}

/* 0, or -1 for a register that does not exist. */
static int reg_read(struct lapic *l, unsigned reg, uint32_t *ret)
{
    bool x2 = lapic_x2apic(l);
    switch (reg) {
    case REG_ID:
        *ret = x2 ? l->id : l->id << 24;
        return 0;
    case REG_VERSION:
        *ret = VERSION;
        return 0;
    case REG_TPR:
        *ret = atomic_load(&l->tpr);
        return 0;
    case REG_PPR:
        *ret = lapic_ppr(l);
        return 0;
    case REG_APR:
    case REG_EOI:
    case REG_RRD:
        *ret = 0;
        return x2 ? -1 : 0;
    case REG_LDR:
        *ret = atomic_load(&l->ldr);
        return 0;
    case REG_DFR:
        *ret = atomic_load(&l->dfr);
        return x2 ? -1 : 0;
    case REG_SVR:
        *ret = atomic_load(&l->svr);
        return 0;
    case REG_ISR ... REG_ISR + 7:
        *ret = atomic_load(&l->isr[reg - REG_ISR]);
        return 0;
    case REG_TMR ... REG_TMR + 7:
        *ret = atomic_load(&l->tmr[reg - REG_TMR]);
        return 0;
    case REG_IRR ... REG_IRR + 7:
        *ret = atomic_load(&l->irr[reg - REG_IRR]);
        return 0;
    case REG_ESR:
        *ret = l->esr;
        return 0;
    case REG_ICR:
        *ret = l->icr;
        return 0;
    case REG_ICR2:
        *ret = l->icr2;
        return x2 ? -1 : 0;
    case REG_LVT ... REG_LVT + LVTS - 1:
        *ret = atomic_load(&l->lvt[reg - REG_LVT]);
        return 0;
    case REG_INITIAL:
        *ret = l->initial;
        return 0;
    case REG_CURRENT:
        *ret = timer_current(l);
        return 0;
    case REG_DIVIDE:
        *ret = l->divide;
        return 0;
    }
    *ret = 0;
    return -1;
}

static void write_lvt(struct lapic *l, unsigned n, uint32_t val)
{
    val &= lvt_writable[n];
    if (!(atomic_load(&l->svr) & SVR_ENABLE))
        val |= LVT_MASKED;
    if (n == LVT_TIMER) {
        write_lvt_timer(l, val);
        return;
    }
    if ((n == LVT_LINT0) && (val & LVT_LEVEL))
        val |= atomic_load(&l->lvt[n]) & LVT_REMOTE_IRR;
    atomic_store(&l->lvt[n], val);
    if (n == LVT_LINT0 && atomic_load(&l->lint_level[0]))
        pin_high(l, 0, false);
}

static void write_svr(struct lapic *l, uint32_t val)
{
    atomic_store(&l->svr, val & SVR_WRITABLE);
    if (!(val & SVR_ENABLE))
        for (unsigned i = 0; i < LVTS; i++)
            atomic_fetch_or(&l->lvt[i], LVT_MASKED);
}

static void write_icr(struct lapic *l, uint32_t low, uint32_t dest)
{
    l->icr = low & ICR_WRITABLE;
    unsigned dm = l->icr >> 8 & 7;
    if ((dm == DM_FIXED || dm == DM_LOWEST) && (l->icr & 0xff) < 16)
        error(l, ESR_SEND_ILLEGAL);
    else
        lapic_set_ipi(l->set, l, l->icr, dest);
}

static void write_divide(struct lapic *l, uint32_t val)
{
    uint32_t left = timer_current(l);
    l->divide = val & 0xb;
    if (left)
        timer_start(l, left);
}

/* Registers that both modes write alike; `val` has no reserved bits set, or they are ignored. */
static void reg_write(struct lapic *l, unsigned reg, uint32_t val)
{
    switch (reg) {
    case REG_TPR:
        set_tpr(l, val & 0xff);
        break;
    case REG_EOI:
        end_of_interrupt(l);
        break;
    case REG_SVR:
        write_svr(l, val);
        break;
    case REG_ESR:
        l->esr = atomic_exchange(&l->esr_pending, 0);
        break;
    case REG_LVT ... REG_LVT + LVTS - 1:
        write_lvt(l, reg - REG_LVT, val);
        break;
    case REG_INITIAL:
        if (timer_mode(l) != TIMER_DEADLINE) {
            l->initial = val;
            timer_start(l, val);
        }
        break;
    case REG_DIVIDE:
        write_divide(l, val);
        break;
    }
}

uint64_t lapic_mmio_base(const struct lapic *l)
{
    uint64_t base = atomic_load(&l->base);
    return (base & BASE_ENABLE) && !(base & BASE_X2APIC) ? base & ~(PAGE_SIZE - 1) : UINT64_MAX;
}

uint32_t lapic_mmio_read(struct lapic *l, unsigned off, unsigned size)
{
    uint32_t val = 0;
    if (off < LAPIC_PAGE_SIZE && (off & 15) + size <= 4 && lapic_mmio_base(l) != UINT64_MAX)
        reg_read(l, off >> 4, &val);
    return (uint32_t)bits_trunc(val >> (off & 3) * 8, size);
}

void lapic_mmio_write(struct lapic *l, unsigned off, unsigned size, uint32_t val)
{
    if (off >= LAPIC_PAGE_SIZE || (off & 15) || size != 4 || lapic_mmio_base(l) == UINT64_MAX)
        return;
    unsigned reg = off >> 4;
    switch (reg) {
    case REG_LDR:
        atomic_store(&l->ldr, val & 0xff000000);
        break;
    case REG_DFR:
        atomic_store(&l->dfr, val | 0x0fffffff);
        break;
    case REG_ICR:
        write_icr(l, val, l->icr2 >> 24);
        break;
    case REG_ICR2:
        l->icr2 = val & 0xff000000;
        break;
    default:
        reg_write(l, reg, val);
    }
}

int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *ret)
{
    uint32_t low;
    if (!lapic_x2apic(l) || msr < 0x800 || msr > 0x83f || reg_read(l, msr - 0x800, &low) < 0)
        return -1;
    *ret = low;
    if (msr - 0x800 == REG_ICR)
        *ret |= (uint64_t)l->icr2 << 32;
    return 0;
}

/* Bits of an x2APIC register that may be written, -1 when none can be. */
static int64_t x2apic_writable(unsigned reg)
{
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_EOI:
    case REG_ESR:
        return 0;
    case REG_SVR:
        return SVR_WRITABLE;
    case REG_LVT ... REG_LVT + LVTS - 1:
        /* Delivery status and remote IRR are read-only, not reserved. */
        return lvt_writable[reg - REG_LVT] | BIT(12) | (reg >= REG_LVT + LVT_LINT0 ? LVT_REMOTE_IRR : 0);
    case REG_INITIAL:
        return 0xffffffff;
    case REG_DIVIDE:
        return 0xb;
    }
    return -1;
}

int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t val)
{
    if (!lapic_x2apic(l) || msr < 0x800 || msr > 0x83f)
        return -1;
    unsigned reg = msr - 0x800;
    if (reg == REG_ICR) {
        if ((uint32_t)val & ~(ICR_WRITABLE | BIT(12)))
            return -1;
        l->icr2 = (uint32_t)(val >> 32);
        write_icr(l, (uint32_t)val, l->icr2);
        return 0;
    }
    int64_t writable = x2apic_writable(reg);
    if (writable < 0 || (val & ~(uint64_t)writable))
        return -1;
    if (reg == REG_SELF_IPI)
        write_icr(l, (uint32_t)val | 1u << 18, 0);
    else
        reg_write(l, reg, (uint32_t)val);
    return 0;
}

unsigned lapic_cr8(const struct lapic *l)
{
    return atomic_load(&l->tpr) >> 4;
}

void lapic_set_cr8(struct lapic *l, unsigned cr8)
{
    set_tpr(l, (cr8 & 15) << 4);
}

/* ---- mode, reset ---- */

void lapic_init_reset(struct lapic *l)
{
    for (unsigned i = 0; i < 8; i++) {
        atomic_store(&l->irr[i], 0);
        atomic_store(&l->isr[i], 0);
        atomic_store(&l->tmr[i], 0);
    }
    atomic_store(&l->tpr, 0);
    atomic_store(&l->ldr, lapic_x2apic(l) ? x2apic_ldr(l->id) : 0);
    atomic_store(&l->dfr, 0xffffffff);
    atomic_store(&l->svr, 0xff);
    for (unsigned i = 0; i < LVTS; i++)
        atomic_store(&l->lvt[i], LVT_MASKED);
    atomic_store(&l->esr_pending, 0);
    atomic_store(&l->ext_message, 0);
    l->esr = l->icr = l->icr2 = l->divide = l->initial = 0;
    l->tsc_deadline = 0;
    if (l->expires)
        arm(l, 0);
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
        atomic_store(&l->ldr, x2apic_ldr(l->id));
        atomic_store(&l->dfr, 0xffffffff); /* there is none */
        l->icr2 = 0;
    }
    if (atomic_load(&l->lint_level[0]))
        pin_high(l, 0, false);
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
        pin_high(l, 0, false);
}

/* ---- state ---- */

void lapic_get_page(struct lapic *l, uint8_t page[LAPIC_PAGE_SIZE])
{
    memset(page, 0, LAPIC_PAGE_SIZE);
    for (unsigned reg = 0; reg < LAPIC_PAGE_SIZE / 16; reg++) {
        uint32_t val;
        reg_read(l, reg, &val);
        le32_put(page + reg * 16, val);
    }
    if (lapic_x2apic(l))
        le32_put(page + REG_ICR2 * 16, l->icr2);
}

int lapic_set_page(struct lapic *l, const uint8_t page[LAPIC_PAGE_SIZE], struct err *err)
{
    uint32_t reg[LAPIC_PAGE_SIZE / 16];
    for (unsigned i = 0; i < ARRAY_SIZE(reg); i++)
        reg[i] = le32_get(page + i * 16);
    bool x2 = lapic_x2apic(l);
    if (reg[REG_ID] != (x2 ? l->id : l->id << 24))
        return err_set(err, -EINVAL, "lapic %u: the saved state is that of another ID", l->id);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t legal = i ? 0xffffffff : 0xffff0000; /* vectors 0-15 cannot be */
        atomic_store(&l->irr[i], reg[REG_IRR + i] & legal);
        atomic_store(&l->isr[i], reg[REG_ISR + i] & legal);
        atomic_store(&l->tmr[i], reg[REG_TMR + i] & legal);
    }
    atomic_store(&l->tpr, reg[REG_TPR] & 0xff);
    atomic_store(&l->ldr, x2 ? x2apic_ldr(l->id) : reg[REG_LDR] & 0xff000000);
    atomic_store(&l->dfr, x2 ? 0xffffffff : reg[REG_DFR] | 0x0fffffff);
    atomic_store(&l->svr, reg[REG_SVR] & SVR_WRITABLE);
    for (unsigned i = 0; i < LVTS; i++)
        atomic_store(&l->lvt[i], reg[REG_LVT + i] & (lvt_writable[i] | (i == LVT_LINT0 ? LVT_REMOTE_IRR : 0)));
    l->esr = reg[REG_ESR] & 0xff;
    l->icr = reg[REG_ICR] & ICR_WRITABLE;
    l->icr2 = x2 ? reg[REG_ICR2] : reg[REG_ICR2] & 0xff000000;
    l->divide = reg[REG_DIVIDE] & 0xb;
    l->initial = reg[REG_INITIAL];
    l->expires = 0;
    if (timer_mode(l) != TIMER_DEADLINE)
        timer_start(l, MIN(reg[REG_CURRENT], l->initial));
    notify(l);
    return 0;
}

static void lapic_pre_save(void *obj)
{
    struct lapic *l = obj;
    lapic_get_page(l, l->page);
    l->saved_base = atomic_load(&l->base);
}

static int lapic_post_load(void *obj, uint32_t version, struct err *err)
{
    struct lapic *l = obj;
    uint64_t expires = l->expires;
    const uint64_t mode = BASE_ENABLE | BASE_X2APIC;
    if ((l->saved_base & mode) == BASE_X2APIC || (l->saved_base & 0x2ff))
        return err_set(err, -EINVAL, "lapic %u: IA32_APIC_BASE cannot be 0x%llx", l->id,
                       (unsigned long long)l->saved_base);
    atomic_store(&l->base, l->saved_base);
    atomic_store(&l->lint_level[0], l->lint_level[0] != 0);
    atomic_store(&l->lint_level[1], l->lint_level[1] != 0);
    int ret = lapic_set_page(l, l->page, err);
    if (ret < 0)
        return ret;
    if (timer_mode(l) == TIMER_DEADLINE || l->expires)
        arm(l, MIN(expires, INT64_MAX));
    return 0;
}

static const struct state_field lapic_fields[] = {
    STATE_RAW(struct lapic, page),         STATE_U(struct lapic, saved_base),
    STATE_U(struct lapic, tsc_deadline),   STATE_U(struct lapic, expires),
    STATE_U(struct lapic, esr_pending),    STATE_U(struct lapic, ext_message),
    STATE_ARRAY(struct lapic, lint_level), STATE_END,
};
static const struct state_desc lapic_state = {"lapic", 1, 1, lapic_fields, lapic_pre_save, lapic_post_load};

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
