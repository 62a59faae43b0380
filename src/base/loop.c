/*
 * epoll, one timerfd and one eventfd. Timers are a binary heap by host deadline computed at the moment of sleeping, so that a
 * clock that was stopped and started needs no re-sorting of its own (all guest timers share one clock in practice).
 * The lock guards the heap and the posted calls only; callbacks run without it.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"

struct loop_fd {
    struct loop *loop;
    int fd;
    bool dead;
    void (*fn)(void *opaque, uint32_t events);
    void *opaque;
    struct loop_fd *next_dead;
};

struct post {
    void (*fn)(void *opaque);
    void *opaque;
    struct post *next;
};

struct loop {
    int epfd, evfd, tfd;
    _Atomic bool quit;
    pthread_t thread;
    _Atomic bool has_thread;
    pthread_mutex_t lock;
    struct timer **heap;
    unsigned ntimers, cap;
    struct post *posts, **posts_tail;
    struct post *running; /* posts taken by run_posts(); the loop's thread only */
    struct loop_fd *dead;
    uint64_t armed; /* host ns the timerfd is set to, 0 = disarmed */
};

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    if (write(loop->evfd, &one, sizeof one) < 0) {
        /* EAGAIN: already as awake as can be. */
    }
}

int loop_new(struct loop **ret, struct err *err)
{
    struct loop *loop = xcalloc(1, sizeof *loop);
    pthread_mutex_init(&loop->lock, NULL);
    loop->posts_tail = &loop->posts;
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    loop->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->tfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &loop->evfd};
    struct epoll_event tv = {.events = EPOLLIN, .data.ptr = &loop->tfd};
    if (loop->epfd < 0 || loop->evfd < 0 || loop->tfd < 0 || epoll_ctl(loop->epfd, EPOLL_CTL_ADD, loop->evfd, &ev) < 0 ||
        epoll_ctl(loop->epfd, EPOLL_CTL_ADD, loop->tfd, &tv) < 0) {
        int code = -errno;
        loop_free(loop);
        return err_errno(err, code, "cannot make an event loop");
    }
    *ret = loop;
    return 0;
}

static void reap(struct loop *loop)
{
    while (loop->dead) {
        struct loop_fd *w = loop->dead;
        loop->dead = w->next_dead;
        free(w);
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    reap(loop);
    while (loop->posts) {
        struct post *p = loop->posts;
        loop->posts = p->next;
        free(p);
    }
    fd_closep(&loop->epfd);
    fd_closep(&loop->evfd);
    fd_closep(&loop->tfd);
    pthread_mutex_destroy(&loop->lock);
    free(loop->heap);
    free(loop);
}

/* ---- timers: a heap under the lock ---- */

static void heap_place(struct loop *loop, unsigned i, struct timer *t)
{
    loop->heap[i] = t;
    t->slot = (int)i;
}

static void heap_up(struct loop *loop, unsigned i)
{
    struct timer *t = loop->heap[i];
    while (i && loop->heap[(i - 1) / 2]->expires > t->expires) {
        heap_place(loop, i, loop->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_place(loop, i, t);
}

static void heap_down(struct loop *loop, unsigned i)
{
    struct timer *t = loop->heap[i];
    for (;;) {
        unsigned c = 2 * i + 1;
        if (c >= loop->ntimers)
            break;
        if (c + 1 < loop->ntimers && loop->heap[c + 1]->expires < loop->heap[c]->expires)
            c++;
        if (loop->heap[c]->expires >= t->expires)
            break;
        heap_place(loop, i, loop->heap[c]);
        i = c;
    }
    heap_place(loop, i, t);
}

static void heap_remove(struct loop *loop, struct timer *t)
{
    unsigned i = (unsigned)t->slot;
    t->slot = -1;
    struct timer *last = loop->heap[--loop->ntimers];
    if (last == t)
        return;
    heap_place(loop, i, last);
    heap_up(loop, i);
    heap_down(loop, (unsigned)last->slot);
}

void timer_init(struct timer *t, struct loop *loop, const struct clock *clock, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct timer){.loop = loop, .clock = clock, .fn = fn, .opaque = opaque, .slot = -1};
}

void timer_arm(struct timer *t, uint64_t expires)
{
    struct loop *loop = t->loop;
    pthread_mutex_lock(&loop->lock);
    if (t->slot >= 0)
        heap_remove(loop, t);
    t->expires = expires;
    if (loop->ntimers == loop->cap) {
        loop->cap = loop->cap ? loop->cap * 2 : 16;
        loop->heap = realloc(loop->heap, loop->cap * sizeof *loop->heap);
        if (!loop->heap)
            abort();
    }
    t->slot = (int)loop->ntimers;
    loop->heap[loop->ntimers++] = t;
    heap_up(loop, (unsigned)t->slot);
    bool first = t->slot == 0;
    pthread_mutex_unlock(&loop->lock);
    if (first && !loop_is_current(loop))
        wake(loop);
}

void timer_cancel(struct timer *t)
{
    struct loop *loop = t->loop;
    if (!loop)
        return;
    pthread_mutex_lock(&loop->lock);
    if (t->slot >= 0)
        heap_remove(loop, t);
    pthread_mutex_unlock(&loop->lock);
}

bool timer_armed(const struct timer *t)
{
    if (!t->loop)
        return false;
    pthread_mutex_lock(&t->loop->lock);
    bool armed = t->slot >= 0;
    pthread_mutex_unlock(&t->loop->lock);
    return armed;
}

static void run_timers(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    while (loop->ntimers) {
        struct timer *t = loop->heap[0];
        if (!clock_ticks(t->clock) || clock_now(t->clock) < t->expires)
            break;
        heap_remove(loop, t);
        pthread_mutex_unlock(&loop->lock);
        t->fn(t->opaque);
        pthread_mutex_lock(&loop->lock);
    }
    uint64_t next = 0;
    if (loop->ntimers && atomic_load(&loop->heap[0]->clock->running)) {
        next = clock_to_host(loop->heap[0]->clock, loop->heap[0]->expires);
        if ((int64_t)next <= 0)
            next = 1;
    }
    pthread_mutex_unlock(&loop->lock);
    if (next != loop->armed) {
        struct itimerspec its = {.it_value = {(time_t)(next / NSEC_PER_SEC), (long)(next % NSEC_PER_SEC)}};
        timerfd_settime(loop->tfd, TFD_TIMER_ABSTIME, &its, NULL);
        loop->armed = next;
    }
}

void loop_clock_changed(struct loop *loop)
{
    wake(loop);
}

void loop_advance(struct loop *loop, struct clock *clock, uint64_t ns)
{
    uint64_t end = clock_now(clock) + ns;
    for (;;) {
        run_timers(loop);
        uint64_t now = clock_now(clock), next = end;
        pthread_mutex_lock(&loop->lock);
        if (loop->ntimers && loop->heap[0]->clock == clock)
            next = MIN(loop->heap[0]->expires, end);
        pthread_mutex_unlock(&loop->lock);
        if (next <= now) {
            if (now >= end)
                break;
            continue; /* armed for the past by another thread just now */
        }
        clock_advance(clock, next - now);
    }
}

/* ---- descriptors ---- */

struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
                            void *opaque)
{
    struct loop_fd *w = xcalloc(1, sizeof *w);
    *w = (struct loop_fd){.loop = loop, .fd = fd, .fn = fn, .opaque = opaque};
    struct epoll_event ev = {.events = events, .data.ptr = w};
    if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        /* A regular file cannot be polled: it is always ready, and no caller of ours watches one. */
        free(w);
        return NULL;
    }
    return w;
}

void loop_mod_fd(struct loop_fd *w, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = w};
    epoll_ctl(w->loop->epfd, EPOLL_CTL_MOD, w->fd, &ev);
}

void loop_del_fd(struct loop_fd *w)
{
    if (!w)
        return;
    epoll_ctl(w->loop->epfd, EPOLL_CTL_DEL, w->fd, NULL);
    w->dead = true;
    w->next_dead = w->loop->dead;
    w->loop->dead = w;
}

/* ---- posted calls ---- */

void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct post *p = xcalloc(1, sizeof *p);
    *p = (struct post){fn, opaque, NULL};
    pthread_mutex_lock(&loop->lock);
    *loop->posts_tail = p;
    loop->posts_tail = &p->next;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
}

/* A call that was dropped stays in its list with no function, so that nobody walking the list loses its place. */
static void drop_posts(struct post *list, const void *opaque)
{
    for (; list; list = list->next)
        if (list->opaque == opaque)
            list->fn = NULL;
}

void loop_unpost(struct loop *loop, const void *opaque)
{
    pthread_mutex_lock(&loop->lock);
    drop_posts(loop->posts, opaque);
    pthread_mutex_unlock(&loop->lock);
    drop_posts(loop->running, opaque);
}

static void run_posts(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->running = loop->posts;
    loop->posts = NULL;
    loop->posts_tail = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    while (loop->running) {
        struct post *p = loop->running;
        loop->running = p->next;
        if (p->fn)
            p->fn(p->opaque);
        free(p);
    }
}

/* ---- running ---- */

bool loop_is_current(const struct loop *loop)
{
    return atomic_load(&loop->has_thread) && pthread_equal(loop->thread, pthread_self());
}

bool loop_has_thread(const struct loop *loop)
{
    return atomic_load(&loop->has_thread);
}

void loop_poll(struct loop *loop, int timeout_ms)
{
    struct epoll_event ev[32];
    if (!loop_is_current(loop)) { /* other threads may be asking that now */
        loop->thread = pthread_self();
        atomic_store(&loop->has_thread, true);
    }
    run_timers(loop);
    int n = epoll_wait(loop->epfd, ev, ARRAY_SIZE(ev), timeout_ms);
    for (int i = 0; i < n; i++) {
        uint64_t count;
        if (ev[i].data.ptr == &loop->evfd) {
            if (read(loop->evfd, &count, sizeof count) < 0)
                continue;
        } else if (ev[i].data.ptr == &loop->tfd) {
            loop->armed = 0;
            if (read(loop->tfd, &count, sizeof count) < 0)
                continue;
        } else {
            struct loop_fd *w = ev[i].data.ptr;
            if (!w->dead)
                w->fn(w->opaque, ev[i].events);
        }
    }
    run_posts(loop);
    run_timers(loop);
    reap(loop);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load(&loop->quit))
        loop_poll(loop, -1);
    atomic_store(&loop->quit, false);
}

void loop_quit(struct loop *loop)
{
    atomic_store(&loop->quit, true);
    wake(loop);
}
