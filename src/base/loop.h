/*
 * The event loop: descriptors, timers and calls posted from other threads. One loop belongs to one thread (the main thread, or
 * one I/O thread); only loop_post(), loop_quit() and the timer_* functions may be called from others.
 */
#ifndef LODGE_BASE_LOOP_H
#define LODGE_BASE_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/err.h"

struct loop;
struct loop_fd;

int loop_new(struct loop **ret, struct err *err);
/* NULL-safe. Every fd watch and timer must be gone. */
void loop_free(struct loop *loop);

/* Runs until loop_quit(). */
void loop_run(struct loop *loop);
/* Handles what is ready, waiting at most `timeout_ms` (-1: for ever) for the first event. */
void loop_poll(struct loop *loop, int timeout_ms);
/* Makes loop_run() return; any thread, and async-signal-safe. */
void loop_quit(struct loop *loop);
bool loop_is_current(const struct loop *loop);
/* Whether any thread has run it yet. */
bool loop_has_thread(const struct loop *loop);

/* Calls fn(opaque, events) on the loop's thread whenever `fd` (not owned) is ready for `events` (EPOLLIN, EPOLLOUT, …). */
struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
                            void *opaque);
void loop_mod_fd(struct loop_fd *w, uint32_t events);
/* NULL-safe; allowed from inside any callback; after it fn is not called again. Before close(fd). */
void loop_del_fd(struct loop_fd *w);

/* Calls fn(opaque) once on the loop's thread, soon. Any thread; calls keep their order. */
void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque);
/* Drops every call posted with `opaque` that has not started yet: its owner goes away. On the loop's thread. */
void loop_unpost(struct loop *loop, const void *opaque);

/*
 * A one-shot timer on a guest clock. It fires on the loop's thread, at or after its time, and not while the clock is stopped
 * (call loop_clock_changed() after clock_start/clock_stop). Embedded in its owner.
 */
struct timer {
    struct loop *loop;
    const struct clock *clock;
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t expires; /* guest ns */
    int slot;         /* index in the loop's heap, -1 when not armed */
};

void timer_init(struct timer *t, struct loop *loop, const struct clock *clock, void (*fn)(void *opaque), void *opaque);
/* Arms, or re-arms, for clock time `expires` (ns). Any thread. */
void timer_arm(struct timer *t, uint64_t expires);
/* Disarms. Any thread; on the loop's own thread fn is not running and will not run afterwards; elsewhere it may be running. */
void timer_cancel(struct timer *t);
bool timer_armed(const struct timer *t);

void loop_clock_changed(struct loop *loop);

/* Moves a manual clock forward by `ns`, firing this loop's timers each at its own time, in order. The loop's thread. */
void loop_advance(struct loop *loop, struct clock *clock, uint64_t ns);

#endif
