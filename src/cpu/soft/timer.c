/* POSIX timer per vCPU thread; see timer.h. timer_rearm on the vCPU's thread or while it does not run. */
#include "cpu/soft/timer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* The process's one use of this signal: the timer's value says which vCPU. */
#define TIMER_SIGNAL (SIGRTMIN + 4)

static void on_timer(int sig, siginfo_t *info, void *context)
{
    if (info->si_code == SI_TIMER)
        pending_add(info->si_value.sival_ptr, PEND_TIMER);
}

static void install_handler(void)
{
    struct sigaction sa = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(TIMER_SIGNAL, &sa, NULL);
}

int timer_attach(struct soft_cpu *c, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pid_t tid = (pid_t)syscall(SYS_gettid);
    if (c->timer_made && c->timer_thread == tid)
        return 0;
    pthread_once(&once, install_handler);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, TIMER_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    timer_detach(c);
    struct sigevent ev = {
        .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TIMER_SIGNAL, .sigev_value = {.sival_ptr = c}};
    ev.sigev_notify_thread_id = tid;
    if (timer_create(CLOCK_MONOTONIC, &ev, &c->timer) < 0)
        return err_set(err, -errno, "vCPU %u: no timer: %s", c->vcpu.index, strerror(errno));
    c->timer_made = true;
    c->timer_thread = tid;
    timer_rearm(c);
    return 0;
}

void timer_detach(struct soft_cpu *c)
{
    if (c->timer_made)
        timer_delete(c->timer);
    c->timer_made = false;
}

void timer_rearm(struct soft_cpu *c)
{
    const struct clock *clock = c->vcpu.engine->cfg.clock;
    struct itimerspec ts = {0};
    if (!c->timer_made)
        return;
    if (c->timer_ns && atomic_load(&clock->running)) {
        uint64_t at = clock_to_host(clock, c->timer_ns), now = clock_host_ns();
        if ((int64_t)(at - now) <= 0) {
            pending_add(c, PEND_TIMER);
        } else {
            ts.it_value.tv_sec = (time_t)(at / NSEC_PER_SEC);
            ts.it_value.tv_nsec = (long)(at % NSEC_PER_SEC);
        }
    }
    if (ts.it_value.tv_sec == 0 && ts.it_value.tv_nsec == 0 && !c->timer_set)
        return;
    c->timer_set = ts.it_value.tv_sec || ts.it_value.tv_nsec;
    timer_settime(c->timer, TIMER_ABSTIME, &ts, NULL);
}
