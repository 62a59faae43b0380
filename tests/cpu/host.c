/*
 * Runs one instruction on the host CPU. A piece of generated code loads all registers from an area at a fixed low
 * address, jumps to the instruction, and an exit behind it stores everything back; faults arrive as signals on their
 * own stack. For 32-bit cases the jump is far, to the kernel's compatibility-mode code segment.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <asm/prctl.h>
#include <sys/syscall.h>

#include "oracle.h"

#define USER_CS32 0x23
#define USER_CS64 0x33
#define USER_DS 0x2b

struct area {
    struct xstate in_x, out_x;
    uint64_t in[16], out[16];
    uint64_t in_flags, out_flags;
    uint64_t target; /* and for 32-bit code, as a far pointer: */
    uint32_t far_off;
    uint16_t far_sel;
    uint64_t host_rsp;
    uint32_t mxcsr;
    uint64_t stack[64];
};
#define AREA ((struct area *)(uintptr_t)AREA_BASE)
#define AREA_ADDR(field) ((uint32_t)(AREA_BASE + offsetof(struct area, field)))

static uint8_t *const code = (uint8_t *)(uintptr_t)CODE_BASE;
static uint32_t entry_at[2], exit64, exit32, recover;
static volatile bool running;
static struct {
    bool hit;
    struct regs regs;
} fault;

static uint8_t *emit_p;
static void emit(const void *b, unsigned n)
{
    memcpy(emit_p, b, n);
    emit_p += n;
}
#define E(...) emit((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
static void e32(uint32_t v)
{
    emit(&v, 4);
}
static uint32_t here(void)
{
    return (uint32_t)(uintptr_t)emit_p;
}
static void e_gpr(bool store, unsigned n, uint32_t addr)
{
    E(0x48 | (n >> 3) << 2, store ? 0x89 : 0x8b, 0x04 | (n & 7) << 3, 0x25); /* mov r, [abs32] or back */
    e32(addr);
}

static void generate(void)
{
    memset(code, 0xcc, CODE_SIZE);
    emit_p = code;
    for (unsigned far = 0; far < 2; far++) {
        entry_at[far] = here();
        E(0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57); /* push rbx rbp r12..r15 */
        e_gpr(true, RSP, AREA_ADDR(host_rsp));
        E(0xb8);
        e32(7);
        E(0x31, 0xd2, 0x48, 0x0f, 0xae, 0x2c, 0x25); /* mov eax, 7; xor edx, edx; xrstor64 [abs] */
        e32(AREA_ADDR(in_x));
        E(0xbc);
        e32(AREA_ADDR(stack) + 256); /* mov esp, stack */
        E(0xff, 0x34, 0x25);
        e32(AREA_ADDR(in_flags));
        E(0x9d); /* push [abs]; popfq */
        for (unsigned n = 0; n < 16; n++)
            e_gpr(false, n, AREA_ADDR(in) + 8 * n);
        E(0xff, far ? 0x2c : 0x24, 0x25); /* jmp (far) [abs] */
        e32(far ? AREA_ADDR(far_off) : AREA_ADDR(target));
    }

    exit64 = here();
    for (unsigned n = 0; n < 16; n++)
        e_gpr(true, n, AREA_ADDR(out) + 8 * n);
    E(0xbc);
    e32(AREA_ADDR(stack) + 256);
    E(0x9c, 0x8f, 0x04, 0x25); /* pushfq; pop [abs] */
    e32(AREA_ADDR(out_flags));
    E(0xb8);
    e32(7);
    E(0x31, 0xd2, 0x48, 0x0f, 0xae, 0x24, 0x25); /* xsave64 [abs] */
    e32(AREA_ADDR(out_x));
    recover = here();
    E(0xfc, 0xdb, 0xe3, 0xc5, 0xf8, 0x77, 0x0f, 0xae, 0x14, 0x25); /* cld; fninit; vzeroupper; ldmxcsr [abs] */
    e32(AREA_ADDR(mxcsr));
    e_gpr(false, RSP, AREA_ADDR(host_rsp));
    E(0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);

    exit32 = here();
    E(0xea); /* jmp far 0x33:exit64 */
    e32(exit64);
    E(USER_CS64, 0);
}

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
    ucontext_t *uc = ctx;
    greg_t *g = uc->uc_mcontext.gregs;
    static const uint8_t order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    if (!running) {
        signal(sig, SIG_DFL);
        return;
    }
    for (unsigned n = 0; n < 16; n++)
        fault.regs.gpr[n] = g[order[n]];
    fault.regs.rip = g[REG_RIP];
    fault.regs.rflags = g[REG_EFL];
    fault.regs.vector = g[REG_TRAPNO];
    fault.regs.error = g[REG_ERR];
    fault.regs.cr2 = g[REG_CR2];
    memcpy(&fault.regs.x, uc->uc_mcontext.fpregs, sizeof fault.regs.x);
    fault.hit = true;
    g[REG_RIP] = recover;
    g[REG_EFL] &= ~(greg_t)(FLAG_TF | FLAG_DF | FLAG_AC | FLAG_NT);
    g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | USER_CS64;
    (void)si;
}

static int map_at(uint64_t addr, size_t size, int prot)
{
    void *p = mmap((void *)(uintptr_t)addr, size, prot,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
    if (p == (void *)(uintptr_t)addr)
        return 0;
    perror("mmap");
    return -1;
}

int host_setup(void)
{
    if (map_at(WIN_RW, WIN_RW_SIZE, PROT_READ | PROT_WRITE) || map_at(WIN_RO, WIN_RO_SIZE, PROT_READ | PROT_WRITE) ||
        map_at(CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC) ||
        map_at(AREA_BASE, ALIGN_UP(sizeof(struct area), 4096), PROT_READ | PROT_WRITE))
        return -1;
    generate();
    AREA->mxcsr = 0x1f80;
    stack_t ss = {.ss_size = 1 << 18};
    ss.ss_sp = malloc(ss.ss_size);
    if (!ss.ss_sp || sigaltstack(&ss, NULL))
        return -1;
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    int sigs[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (unsigned k = 0; k < ARRAY_SIZE(sigs); k++)
        sigaction(sigs[k], &sa, NULL);
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(USER_DS)); /* null selectors would not do for 32-bit code */
    return 0;
}

uint64_t host_fs_base(void)
{
    unsigned long base = 0;
    syscall(SYS_arch_prctl, ARCH_GET_FS, &base);
    return base;
}

static void window_set(const struct testcase *t)
{
    static uint8_t ro[WIN_RO_SIZE];
    static bool ro_set;
    memcpy((void *)(uintptr_t)WIN_RW, t->window, WIN_RW_SIZE);
    if (!ro_set || memcmp(ro, t->window + WIN_RW_SIZE, WIN_RO_SIZE)) {
        mprotect((void *)(uintptr_t)WIN_RO, WIN_RO_SIZE, PROT_READ | PROT_WRITE);
        memcpy((void *)(uintptr_t)WIN_RO, t->window + WIN_RW_SIZE, WIN_RO_SIZE);
        mprotect((void *)(uintptr_t)WIN_RO, WIN_RO_SIZE, PROT_READ);
        memcpy(ro, t->window + WIN_RW_SIZE, WIN_RO_SIZE);
        ro_set = true;
    }
}

void host_execute(const struct testcase *t, struct regs *after, uint8_t win[WIN_RW_SIZE])
{
    struct area *a = AREA;
    bool far = t->form->mode == 32;
    uint8_t *at = (uint8_t *)(uintptr_t)t->ip;

    window_set(t);
    memset(at - 16, 0xcc, 64 + t->len);
    memcpy(at, t->code, t->len);
    if (!t->branch) {
        uint32_t rel = (far ? exit32 : exit64) - (uint32_t)(t->ip + t->len + 5);
        at[t->len] = 0xe9;
        memcpy(at + t->len + 1, &rel, 4);
    }
    a->in_x = t->in.x;
    memcpy(a->in, t->in.gpr, sizeof a->in);
    a->in_flags = t->in.rflags;
    a->target = t->ip;
    a->far_off = t->ip;
    a->far_sel = USER_CS32;
    fault.hit = false;
    running = true;
    ((void (*)(void))(uintptr_t)entry_at[far])();
    running = false;

    if (fault.hit) {
        *after = fault.regs;
        /* A breakpoint where nothing was generated, or a fetch that failed: the branch arrived there. */
        if (after->vector == EXC_BP && t->branch) {
            after->vector = -1;
            after->rip--;
        } else if (after->vector == EXC_PF && after->cr2 == after->rip && after->rip != t->ip) {
            after->vector = -1;
        }
    } else {
        memcpy(after->gpr, a->out, sizeof a->out);
        after->rip = t->ip + t->len;
        after->rflags = a->out_flags;
        after->x = a->out_x;
        after->vector = -1;
    }
    memcpy(win, (void *)(uintptr_t)WIN_RW, WIN_RW_SIZE);
    memset(at - 16, 0xcc, 64 + t->len);
}
