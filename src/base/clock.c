#include "base/clock.h"

void clock_init(struct clock *c, uint64_t guest_ns)
{
    atomic_store(&c->offset, 0);
    atomic_store(&c->stopped, guest_ns);
    atomic_store(&c->running, false);
    atomic_store(&c->manual, false);
}

void clock_init_manual(struct clock *c, uint64_t guest_ns)
{
    clock_init(c, guest_ns);
    atomic_store(&c->manual, true);
}

void clock_advance(struct clock *c, uint64_t ns)
{
    if (atomic_load(&c->manual))
        atomic_fetch_add(&c->stopped, ns);
}

void clock_start(struct clock *c)
{
    if (atomic_load(&c->running) || atomic_load(&c->manual))
        return;
    atomic_store(&c->offset, (int64_t)(atomic_load(&c->stopped) - clock_host_ns()));
    atomic_store_explicit(&c->running, true, memory_order_release);
}

void clock_stop(struct clock *c)
{
    if (!atomic_load(&c->running))
        return;
    atomic_store(&c->stopped, clock_now(c));
    atomic_store_explicit(&c->running, false, memory_order_release);
}
