/*
 * A debugger outside of the guest: breakpoints, watchpoints, single-step (engine.h, set_debug). On the vCPU's thread, or
 * while it does not run.
 *
 * Without one this costs nothing: no block is changed. Pages with breakpoints never enter the jump cache, so that
 * run_blocks() comes to block_find() on every way into them and leaves; inside them soft_step() goes by single
 * instructions. Pages with watchpoints never enter the TLB (debug.c).
 */
#include <errno.h>

#include "base/fd.h"
#include "cpu/soft/blocks.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/sys.h"

struct soft_debug {
    struct vcpu_debug want;
    struct vcpu_hit hit;
};

bool debugger_page(const struct soft_cpu *c, uint64_t lin)
{
    const struct vcpu_debug *d = &c->debug->want;
    for (unsigned n = 0; n < d->n_breaks; n++)
        if (!((d->breaks[n] ^ lin) >> PAGE_SHIFT))
            return true;
    return false;
}

bool debugger_check_fetch(struct soft_cpu *c, uint64_t lin)
{
    const struct vcpu_debug *d = &c->debug->want;
    if (d->step)
        return false;
    for (unsigned n = 0; n < d->n_breaks; n++) {
        if (d->breaks[n] == lin) {
            c->debug->hit = (struct vcpu_hit){VCPU_HIT_BREAK, lin};
            return true;
        }
    }
    return false;
}

void debugger_check_access(struct soft_cpu *c, uint64_t lin, unsigned size, bool write)
{
    const struct vcpu_debug *d = &c->debug->want;
    for (unsigned n = 0; n < d->n_watches; n++) {
        const struct vcpu_watch *w = &d->watches[n];
        if ((w->kind & (write ? VCPU_WATCH_WRITE : VCPU_WATCH_READ)) &&
            (lin - w->addr < w->len || w->addr - lin < size)) {
            c->debug->hit = (struct vcpu_hit){VCPU_HIT_WATCH, w->addr};
            pending_add(c, PEND_DEBUG);
            block_break_off(c);
            return;
        }
    }
}

bool debugger_watches_page(const struct soft_cpu *c, uint64_t lin)
{
    const struct vcpu_debug *d = &c->debug->want;
    uint64_t page = lin & ~(PAGE_SIZE - 1);
    for (unsigned n = 0; n < d->n_watches; n++)
        if (d->watches[n].addr - page < PAGE_SIZE || page - d->watches[n].addr < d->watches[n].len)
            return true;
    return false;
}

void debugger_stepped(struct soft_cpu *c)
{
    if (!c->debug->hit.kind)
        c->debug->hit = (struct vcpu_hit){VCPU_HIT_STEP, c->rip};
}

bool debugger_stops(const struct soft_cpu *c)
{
    return c->debug->hit.kind != VCPU_HIT_NONE;
}

int soft_set_debug(struct vcpu *v, const struct vcpu_debug *d)
{
    struct soft_cpu *c = soft_cpu_of(v);
    bool watched = c->debug && c->debug->want.n_watches;
    if (d && (d->n_breaks > VCPU_BREAKS_MAX || d->n_watches > VCPU_WATCHES_MAX))
        return -ENOSPC;
    if (!d) {
        free(c->debug);
        c->debug = NULL;
    } else {
        if (!c->debug)
            c->debug = xcalloc(1, sizeof *c->debug);
        *c->debug = (struct soft_debug){.want = *d};
        watched |= d->n_watches > 0;
    }
    c->debug_step = d && d->step;
    memset(c->blocks->jump, 0, sizeof c->blocks->jump);
    if (watched)
        mmu_debug_changed(c);
    soft_step_changed(c);
    return 0;
}

void soft_debug_hit(struct vcpu *v, struct vcpu_hit *ret)
{
    struct soft_cpu *c = soft_cpu_of(v);
    *ret = c->debug ? c->debug->hit : (struct vcpu_hit){0};
    if (c->debug)
        c->debug->hit = (struct vcpu_hit){0};
}
