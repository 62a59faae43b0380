/*
 * The local APIC's timer (SDM 3A, 11.5.4): one-shot, periodic and TSC-deadline. The vCPU's own thread; the engine calls
 * lapic_timer_expired() when the time given to its arm_timer hook has come.
 */
#include "dev/lapic_priv.h"

/* A periodic timer shorter than this would keep the host busy with nothing else. The count itself is not changed. */
#define REARM_MIN_NS 20000

unsigned lapic_timer_mode(const struct lapic *l)
{
    return atomic_load(&l->lvt[LVT_TIMER]) >> 17 & 3;
}

static unsigned timer_divisor(const struct lapic *l)
{
    unsigned d = (l->divide & 3) | (l->divide >> 1 & 4);
    return d == 7 ? 1 : 2u << d;
}

void lapic_timer_arm(struct lapic *l, uint64_t expires)
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
    if (lapic_timer_mode(l) == TIMER_PERIODIC && period) {
        expires += (now - expires) / period * period + period; /* the missed ones are one */
        l->expires = expires;
        l->cpu.arm_timer(l->cpu.opaque, MAX(expires, now + REARM_MIN_NS));
    } else {
        l->tsc_deadline = 0;
        lapic_timer_arm(l, 0);
    }
    uint32_t lvt = atomic_load(&l->lvt[LVT_TIMER]);
    if (!(lvt & LVT_MASKED))
        lapic_accept(l, (uint8_t)lvt, false);
}

uint32_t lapic_timer_current(const struct lapic *l)
{
    uint64_t now = clock_now(l->set->cfg.clock);
    unsigned div = timer_divisor(l);
    if (lapic_timer_mode(l) == TIMER_DEADLINE || !l->expires)
        return 0;
    if (now < l->expires)
        return (uint32_t)MIN((l->expires - now + div - 1) / div, l->initial);
    uint64_t period = (uint64_t)l->initial * div;
    if (lapic_timer_mode(l) != TIMER_PERIODIC || !period)
        return 0;
    return (uint32_t)((period - (now - l->expires) % period + div - 1) / div);
}

/* Starts counting down from `count` (of `initial`). */
void lapic_timer_start(struct lapic *l, uint32_t count)
{
    lapic_timer_arm(l, count ? clock_now(l->set->cfg.clock) + (uint64_t)count * timer_divisor(l) : 0);
}

void lapic_timer_write_lvt(struct lapic *l, uint32_t val)
{
    bool was_deadline = lapic_timer_mode(l) == TIMER_DEADLINE;
    atomic_store(&l->lvt[LVT_TIMER], val);
    if (was_deadline != (lapic_timer_mode(l) == TIMER_DEADLINE)) {
        l->tsc_deadline = 0;
        l->initial = 0;
        lapic_timer_arm(l, 0);
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
    if (lapic_timer_mode(l) != TIMER_DEADLINE || !lapic_enabled(l))
        return;
    l->tsc_deadline = tsc;
    if (!tsc) {
        lapic_timer_arm(l, 0);
        return;
    }
    uint64_t now_tsc = l->cpu.tsc(l->cpu.opaque), now = clock_now(l->set->cfg.clock);
    if (tsc <= now_tsc) {
        l->expires = MAX(now, 1);
        lapic_timer_expired(l);
        return;
    }
    __uint128_t ns = ((__uint128_t)(tsc - now_tsc) * 1000000 + l->cpu.tsc_khz - 1) / l->cpu.tsc_khz;
    lapic_timer_arm(l, ns > INT64_MAX - now ? INT64_MAX : now + (uint64_t)ns);
}

void lapic_tsc_changed(struct lapic *l)
{
    if (l->tsc_deadline)
        lapic_set_tsc_deadline(l, l->tsc_deadline);
}

void lapic_timer_write_divide(struct lapic *l, uint32_t val)
{
    uint32_t left = lapic_timer_current(l);
    l->divide = val & 0xb;
    if (left)
        lapic_timer_start(l, left);
}
