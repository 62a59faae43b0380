/*
 * Runs inside a guest: everything that makes a CPU raise an exception, as a Linux program sees it (signal, code, trap number, error
 * code), breakpoints and single-step through ptrace, an LDT, copy-on-write, code that changes. Its output on real hardware is
 * faults.expected.
 */
#include <asm/ldt.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int sig, code;
static volatile long trap, error;
static volatile long watched[4];

static void handler(int s, siginfo_t *si, void *u)
{
    const ucontext_t *c = u;
    sig = s;
    code = si->si_code;
    trap = c->uc_mcontext.gregs[REG_TRAPNO];
    error = c->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}

#define TRY(name, ...)                                                                                                 \
    do {                                                                                                               \
        sig = 0;                                                                                                       \
        if (!sigsetjmp(back, 1)) {                                                                                     \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        if (sig)                                                                                                       \
            printf("%-12s signal %d code %d trap %ld error %lx\n", name, sig, code, trap, error);                      \
        else                                                                                                           \
            printf("%-12s nothing\n", name);                                                                           \
    } while (0)
#define ASM(text, ...) __asm__ volatile(text : : __VA_ARGS__ : "memory", "rax", "rcx", "rdx", "xmm0", "cc")

static void faults(void)
{
    volatile char *ro = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile char *none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const unsigned quiet = 0x1f80, divide = 0x1d80, zero = 0;
    const uint16_t x87 = 0x37b;
    TRY("write null", *(volatile int *)8 = 1);
    TRY("write ro", *ro = 1);
    TRY("read none", *none);
    TRY("execute data", ((void (*)(void))ro)());
    TRY("canonical", *(volatile char *)0x8000000000000000 = 1);
    TRY("divide", ASM("xor %%ecx, %%ecx; div %%ecx", "i"(0)));
    TRY("ud2", ASM("ud2", "i"(0)));
    TRY("int3", ASM("int3", "i"(0)));
    TRY("int 0x81", ASM("int $0x81", "i"(0)));
    TRY("int1", ASM(".byte 0xf1", "i"(0)));
    TRY("hlt", ASM("hlt", "i"(0)));
    TRY("cli", ASM("cli", "i"(0)));
    TRY("in", ASM("in $0x80, %%al", "i"(0)));
    TRY("mov cr0", ASM("mov %%cr0, %%rax", "i"(0)));
    TRY("rdmsr", ASM("rdmsr", "i"(0)));
    TRY("selector", ASM("mov %0, %%ds", "r"(0x1234)));
    TRY("movaps", ASM("movaps 1(%0), %%xmm0", "r"(watched)));
    TRY("alignment", ASM("pushf; orl $0x40000, (%%rsp); popf; mov 1(%0), %%rax", "r"(watched)));
    ASM("pushf; andl $~0x40000, (%%rsp); popf", "i"(0));
    TRY("step", ASM("pushf; orl $0x100, (%%rsp); popf; nop; nop", "i"(0)));
    TRY("x87 divide", ASM("fninit; fldcw %0; fld1; fldz; fdivrp; fwait", "m"(x87)));
    ASM("fninit", "i"(0));
    TRY("sse divide", ASM("ldmxcsr %0; mov $0x3f800000, %%eax; movd %%eax, %%xmm0; divss %1, %%xmm0", "m"(divide), "m"(zero)));
    ASM("ldmxcsr %0", "m"(quiet));
}

static void ldt(void)
{
    struct user_desc d = {.entry_number = 3, .base_addr = 0, .limit = 0xfff, .seg_32bit = 1, .useable = 1};
    unsigned sel = 3 << 3 | 7, limit = 0, got;
    long r = syscall(SYS_modify_ldt, 1, &d, sizeof d);
    __asm__ volatile("lsl %1, %0" : "+r"(limit) : "r"(sel) : "cc");
    __asm__ volatile("mov %1, %%gs; mov %%gs, %0" : "=r"(got) : "r"(sel));
    printf("modify_ldt %ld limit %x selector %x\n", r, limit, got);
}

__attribute__((noinline)) static int worker(void)
{
    int x = 0;
    __asm__ volatile("mov $10, %%ecx\n1: add %%ecx, %0; loop 1b" : "+r"(x) : : "ecx");
    return x;
}

static long debug_reg(pid_t child, unsigned n)
{
    return ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg) + n * 8, 0) & 0xf00f;
}
static long set_debug_reg(pid_t child, unsigned n, uint64_t v)
{
    return ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg) + n * 8, v);
}

/* A breakpoint on worker(), single-step through its loop, a watchpoint on watched[1]. */
static void tracing(void)
{
    int st, steps = 0;
    struct user_regs_struct r;
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        watched[1] = worker();
        watched[2] = watched[1];
        _exit(watched[2]);
    }
    waitpid(child, &st, 0);
    set_debug_reg(child, 0, (uintptr_t)worker);
    set_debug_reg(child, 1, (uintptr_t)&watched[1]);
    printf("DR7 %ld\n", set_debug_reg(child, 7, 0x1 | 0x4 | 0xd << 20));
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &st, 0);
    ptrace(PTRACE_GETREGS, child, 0, &r);
    printf("breakpoint: signal %d there %d DR6 %lx\n", WSTOPSIG(st), r.rip == (uintptr_t)worker, debug_reg(child, 0 + 6));
    do {
        ptrace(PTRACE_SINGLESTEP, child, 0, 0);
        waitpid(child, &st, 0);
        ptrace(PTRACE_GETREGS, child, 0, &r);
        steps += (r.rip - (uintptr_t)worker) < 64;
    } while (WIFSTOPPED(st) && r.rip - (uintptr_t)worker < 64 && steps < 1000);
    printf("steps in the loop: %s\n", steps >= 20 && steps < 40 ? "as many as it has" : "wrong");
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &st, 0);
    printf("watchpoint: signal %d DR6 %lx value %ld\n", WSTOPSIG(st), debug_reg(child, 6),
           ptrace(PTRACE_PEEKDATA, child, &watched[1], 0));
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &st, 0);
    printf("exit %d\n", WEXITSTATUS(st));
}

static void memory(void)
{
    enum { PAGES = 256 };
    int st, bad = 0;
    unsigned char *m = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PAGES; i++)
        m[i * 4096] = i;
    for (int k = 0; k < 20; k++) {
        pid_t child = fork();
        if (!child) {
            for (int i = 0; i < PAGES; i++) {
                bad += m[i * 4096] != (unsigned char)(i + k);
                m[i * 4096] = 99;
            }
            _exit(bad != 0);
        }
        waitpid(child, &st, 0);
        bad += st != 0;
        for (int i = 0; i < PAGES; i++)
            m[i * 4096]++;
    }
    printf("copy-on-write: %d bad\n", bad);

    unsigned char *x = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (int i = 0; i < 2000; i++) {
        x[0] = 0xb8; /* mov $i, %eax; ret */
        memcpy(x + 1, &i, 4);
        x[5] = 0xc3;
        sum += ((int (*)(void))x)();
    }
    printf("changing code: %ld\n", sum);
    int faulted = 0;
    for (int i = 0; i < 200; i++) {
        mprotect(x, 4096, PROT_READ);
        if (sigsetjmp(back, 1))
            faulted++;
        else
            x[0] = 1;
        mprotect(x, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
        x[0] = 2;
    }
    printf("mprotect: %d faults\n", faulted);
}

int main(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    setvbuf(stdout, NULL, _IONBF, 0);
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &sa, NULL);
    faults();
    ldt();
    tracing();
    memory();
    return 0;
}
