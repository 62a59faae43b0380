/*
 * The guest's clock: nanoseconds that pass only while the guest runs. Every device timer and counter is computed from it, so
 * stop and cont freeze them all at once. Readable from any thread without a lock.
 */
#ifndef LODGE_BASE_CLOCK_H
#define LODGE_BASE_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000ull

struct clock {
    _Atomic int64_t offset;   /* guest ns = host monotonic ns + offset, while running */
    _Atomic uint64_t stopped; /* guest ns at which the clock stands still, if stopped */
    _Atomic bool running;
    _Atomic bool manual; /* moved only by clock_advance(), never running; its timers fire all the same */
};

static inline uint64_t clock_host_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* Guest nanoseconds now. Never goes back. */
static inline uint64_t clock_now(const struct clock *c)
{
    if (!atomic_load_explicit(&c->running, memory_order_acquire))
        return atomic_load_explicit(&c->stopped, memory_order_relaxed);
    return clock_host_ns() + atomic_load_explicit(&c->offset, memory_order_relaxed);
}

/* The host's CLOCK_MONOTONIC time at which the running clock reaches `guest_ns`. */
static inline uint64_t clock_to_host(const struct clock *c, uint64_t guest_ns)
{
    return guest_ns - atomic_load_explicit(&c->offset, memory_order_relaxed);
}

/* A new clock stands at `guest_ns`, stopped. */
void clock_init(struct clock *c, uint64_t guest_ns);
void clock_start(struct clock *c);
void clock_stop(struct clock *c);

/* Whether timers on this clock may fire. */
static inline bool clock_ticks(const struct clock *c)
{
    return atomic_load_explicit(&c->running, memory_order_acquire) ||
           atomic_load_explicit(&c->manual, memory_order_relaxed);
}

/* A clock for tests: stands at `guest_ns` and moves by clock_advance() only. Wait with loop_advance(). */
void clock_init_manual(struct clock *c, uint64_t guest_ns);
void clock_advance(struct clock *c, uint64_t ns);

#endif
