/* Work of the guest's kernel: system calls, pipes, futexes, signals, page faults, processes. All on one CPU. */
#define _GNU_SOURCE
#include "cpubench.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static bool one_cpu(void)
{
    return bench_pin(0);
}

static void getppid_run(uint64_t n)
{
    while (n--)
        syscall(SYS_getppid);
}

static void clock_run(uint64_t n)
{
    struct timespec ts;
    while (n--)
        clock_gettime(CLOCK_MONOTONIC, &ts);
}

static int file = -1;

static bool pread_setup(void)
{
    static const char buf[4096] = "x";
    char name[] = "/tmp/cpubench.XXXXXX";
    if (file >= 0)
        return true;
    file = mkstemp(name);
    unlink(name);
    return file >= 0 && write(file, buf, sizeof buf) == sizeof buf;
}

static void pread_run(uint64_t n)
{
    char buf[1024];
    while (n--)
        if (pread(file, buf, sizeof buf, 512) != sizeof buf)
            abort();
}

/* ---- ping-pong over two pipes between processes ---- */

static void pipe_run(uint64_t n)
{
    int there[2], back[2];
    char c = 0;
    if (pipe(there) || pipe(back))
        abort();
    pid_t pid = fork();
    if (pid == 0) {
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

/* ---- ping-pong over a futex between threads ---- */

static _Atomic uint32_t turn;
static _Atomic uint64_t rounds;

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
    for (;;) {
        futex_wait(0);
        if (!atomic_load(&rounds))
            return NULL;
        futex_pass(0);
    }
}

static void futex_run(uint64_t n)
{
    pthread_t t;
    atomic_store(&turn, 0);
    atomic_store(&rounds, n);
    if (pthread_create(&t, NULL, futex_other, NULL))
        abort();
    while (n--) {
        futex_pass(1);
        futex_wait(1);
    }
    atomic_store(&rounds, 0);
    futex_pass(1);
    pthread_join(t, NULL);
}

/* ---- signals ---- */

static void on_signal(int sig)
{
    bench_sink += (uint64_t)sig;
}

static void signal_run(uint64_t n)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &sa, NULL);
    pid_t pid = getpid(), tid = (pid_t)syscall(SYS_gettid);
    while (n--)
        syscall(SYS_tgkill, pid, tid, SIGUSR1);
}

static char *page;

static void on_fault(int sig)
{
    (void)sig;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static void segv_run(uint64_t n)
{
    struct sigaction sa = {.sa_handler = on_fault}, old;
    page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &sa, &old);
    while (n--) {
        *(volatile char *)page = 1;
        mprotect(page, 4096, PROT_READ);
    }
    sigaction(SIGSEGV, &old, NULL);
    munmap(page, 4096);
}

static void mprotect_run(uint64_t n)
{
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p[0] = p[4096] = 1;
    while (n--) {
        mprotect(p, 4096, PROT_READ);
        mprotect(p, 4096, PROT_READ | PROT_WRITE);
        *(volatile char *)p = 1;
    }
    munmap(p, 8192);
}

/* One operation is one page. */
static void fault_run(uint64_t n)
{
    while (n) {
        uint64_t pages = n < 64 ? n : 64;
        char *p = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (uint64_t k = 0; k < pages; k++)
            *(volatile char *)(p + 4096 * k) = 1;
        munmap(p, pages * 4096);
        n -= pages;
    }
}

/* ---- processes ---- */

static void fork_run(uint64_t n)
{
    while (n--) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
            abort();
    }
}

static void exec_run(uint64_t n)
{
    while (n--) {
        pid_t pid = fork();
        if (pid == 0) {
            execl("/proc/self/exe", bench_self, "--exit", (char *)NULL);
            _exit(127);
        }
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            abort();
    }
}

const struct bench bench_kernel[] = {
    {"getppid", "kernel", getppid_run, one_cpu}, {"clock_gettime", "kernel", clock_run, NULL},
    {"pread", "kernel", pread_run, pread_setup}, {"pipe", "kernel", pipe_run, one_cpu},
    {"futex", "kernel", futex_run, one_cpu},     {"signal", "kernel", signal_run, NULL},
    {"sigsegv", "kernel", segv_run, NULL},       {"mprotect", "kernel", mprotect_run, NULL},
    {"page-fault", "kernel", fault_run, NULL},   {"fork", "kernel", fork_run, NULL},
    {"fork-exec", "kernel", exec_run, NULL},     {0},
};
