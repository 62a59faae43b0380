/*
 * Two CPUs: the same work on one thread and on two at once, and a byte or a word that goes to and fro between them.
 * Each of two threads does all of `n`, so twice the speed of one is the same time for each.
 */
#define _GNU_SOURCE
#include "cpubench.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool two_cpus(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) >= 2;
}

static uint64_t work(uint64_t n)
{
    uint64_t x = 88172645463325252ull, table[256] = {0};
    while (n--)
        for (int i = 0; i < 1000; i++) {
            uint64_t r = bench_random(&x);
            table[r & 255] += r >> 8;
            x ^= table[(r >> 20) & 255] & 0xff;
        }
    return table[7];
}

struct job {
    uint64_t n;
    unsigned cpu;
};

static void *job_run(void *arg)
{
    struct job *j = arg;
    bench_pin(j->cpu);
    bench_sink = work(j->n);
    return NULL;
}

static void jobs(uint64_t n, unsigned threads)
{
    pthread_t t[2];
    struct job job[2] = {{n, 0}, {n, 1}};
    for (unsigned k = 0; k < threads; k++)
        if (pthread_create(&t[k], NULL, job_run, &job[k]))
            abort();
    for (unsigned k = 0; k < threads; k++)
        pthread_join(t[k], NULL);
}

static void work1_run(uint64_t n)
{
    jobs(n, 1);
}
static void work2_run(uint64_t n)
{
    jobs(n, 2);
}

/* ---- an atomic counter that both want ---- */

static _Atomic uint64_t counter;

static void *count(void *arg)
{
    struct job *j = arg;
    bench_pin(j->cpu);
    for (uint64_t k = 0; k < j->n; k++)
        atomic_fetch_add(&counter, 1);
    return NULL;
}

static void counter_run(uint64_t n)
{
    pthread_t t[2];
    struct job job[2] = {{n, 0}, {n, 1}};
    for (unsigned k = 0; k < 2; k++)
        if (pthread_create(&t[k], NULL, count, &job[k]))
            abort();
    for (unsigned k = 0; k < 2; k++)
        pthread_join(t[k], NULL);
}

/* ---- pipe and futex from one CPU to the other ---- */

static void pipe_run(uint64_t n)
{
    int there[2], back[2];
    char c = 0;
    if (pipe(there) || pipe(back))
        abort();
    bench_pin(0);
    pid_t pid = fork();
    if (pid == 0) {
        bench_pin(1);
        close(there[1]);
        while (read(there[0], &c, 1) == 1 && write(back[1], &c, 1) == 1)
            ;
        _exit(0);
    }
    while (n--)
        if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
            abort();
    close(there[1]);
    waitpid(pid, NULL, 0);
    close(there[0]);
    close(back[0]);
    close(back[1]);
}

static _Atomic uint32_t turn;
static _Atomic bool over;

static void futex_wait(uint32_t value)
{
    while (atomic_load(&turn) == value)
        syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void futex_pass(uint32_t value)
{
    atomic_store(&turn, value);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *futex_other(void *arg)
{
    (void)arg;
    bench_pin(1);
    for (;;) {
        futex_wait(0);
        if (atomic_load(&over))
            return NULL;
        futex_pass(0);
    }
}

static void futex_run(uint64_t n)
{
    pthread_t t;
    atomic_store(&turn, 0);
    atomic_store(&over, false);
    bench_pin(0);
    if (pthread_create(&t, NULL, futex_other, NULL))
        abort();
    while (n--) {
        futex_pass(1);
        futex_wait(1);
    }
    atomic_store(&over, true);
    futex_pass(1);
    pthread_join(t, NULL);
}

const struct bench bench_pair[] = {
    {"work-1-thread", "pair", work1_run, two_cpus},       {"work-2-threads", "pair", work2_run, two_cpus},
    {"counter-2-threads", "pair", counter_run, two_cpus}, {"pipe-2-cpus", "pair", pipe_run, two_cpus},
    {"futex-2-cpus", "pair", futex_run, two_cpus},        {0},
};
