/*
 * Runs code on a whole software vCPU, through the engine's own run loop and block cache: long mode, CPL 3, the same
 * addresses as on the host. Every exception goes through the IDT to a handler that writes to port 80h; there the state
 * is taken from the registers and the frame on the stack. The end of the code is an INT3.
 */
#include <asm/prctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/soft/cpu.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/vec.h"
#include "oracle.h"

#define RAM_SIZE (8 * MIB)
#define PT_BASE 0x100000
#define WIN_GPA 0x200000
#define CODE_GPA 0x210000
/* Supervisor page frame: IDT, GDT and TSS, handlers, stack. */
#define SYS_LIN 0x30000000ull
#define SYS_GPA 0x220000
#define SYS_SIZE 0x6000
#define GDT_OFF 0x1000
#define TSS_OFF 0x1100
#define HANDLER_OFF 0x2000
#define STACK_OFF 0x6000
#define HANDLER_SIZE 16

struct machine {
    struct mem *ram;
    struct engine *engine;
    struct vcpu *vcpu;
    struct clock clk;
    struct cpu_state base_state;
    unsigned tables; /* page tables made so far */
};
static struct machine machines[MACHINES];
static struct {
    struct machine *on;
    bool hit;
    struct regs regs;
} got;

static uint64_t io_read(void *opaque, unsigned n, uint16_t port, unsigned size)
{
    return ~0ull;
}
static uint64_t mmio_read(void *opaque, unsigned n, gpa_t gpa, unsigned size)
{
    return ~0ull;
}
static void mmio_write(void *opaque, unsigned n, gpa_t gpa, unsigned size, uint64_t val)
{
}

static void io_write(void *opaque, unsigned n, uint16_t port, unsigned size, uint64_t val)
{
    struct machine *m = opaque;
    struct soft_cpu *c = soft_cpu_of(m->vcpu);
    static uint8_t image[CPU_XSAVE_SIZE];
    struct regs *r = &got.regs;
    if (got.hit || port != 0x80)
        return;
    unsigned vector = (c->rip - SYS_LIN - HANDLER_OFF) / HANDLER_SIZE;
    bool has_error = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
    const uint8_t *frame = m->ram->ram + SYS_GPA + (c->gpr[RSP] - SYS_LIN);
    r->error = has_error ? le64_get(frame) : 0;
    frame += has_error ? 8 : 0;
    memcpy(r->gpr, c->gpr, sizeof r->gpr);
    r->rip = le64_get(frame);
    r->rflags = le64_get(frame + 16);
    r->gpr[RSP] = le64_get(frame + 24);
    r->vector = vector;
    r->cr2 = c->cr2;
    vec_get_xsave(c, image);
    memcpy(&r->x, image, sizeof r->x);
    got.hit = true;
    m->engine->ops->vcpu_kick(m->vcpu);
}

static bool no_irq(void *opaque, unsigned n)
{
    return false;
}
static int no_ack(void *opaque, unsigned n)
{
    return -1;
}
static uint64_t cr8_read(void *opaque, unsigned n)
{
    return 0;
}
static void cr8_write(void *opaque, unsigned n, uint64_t val)
{
}
static int msr_read(void *opaque, unsigned n, uint32_t msr, uint64_t *ret)
{
    return -1;
}
static int msr_write(void *opaque, unsigned n, uint32_t msr, uint64_t val)
{
    return -1;
}
static void nothing(void *opaque, unsigned n)
{
}
static const struct cpu_bus bus_ops = {.pio_read = io_read,
                                       .pio_write = io_write,
                                       .mmio_read = mmio_read,
                                       .mmio_write = mmio_write,
                                       .irq_pending = no_irq,
                                       .irq_ack = no_ack,
                                       .cr8_read = cr8_read,
                                       .cr8_write = cr8_write,
                                       .apic_msr_read = msr_read,
                                       .apic_msr_write = msr_write,
                                       .timer_expired = nothing,
                                       .init_taken = nothing};

static void map_page(struct machine *m, uint64_t lin, uint64_t gpa, uint64_t bits)
{
    uint64_t table = PT_BASE;
    for (int shift = 39; shift > 12; shift -= 9) {
        uint8_t *e = m->ram->ram + table + 8 * (lin >> shift & 511);
        if (!(le64_get(e) & 1))
            le64_put(e, (PT_BASE + 4096 * ++m->tables) | 7);
        table = le64_get(e) & ~4095ull;
    }
    le64_put(m->ram->ram + table + 8 * (lin >> 12 & 511), gpa | bits | 1);
}

static struct cpu_segment segment(uint16_t sel, unsigned type, unsigned dpl, bool l)
{
    return (struct cpu_segment){
        .limit = 0xffffffff, .selector = sel, .type = type, .s = 1, .dpl = dpl, .present = 1, .l = l, .db = !l, .g = 1};
}

static void descriptors(struct machine *m)
{
    uint8_t *sys = m->ram->ram + SYS_GPA, *gdt = sys + GDT_OFF;
    le64_put(gdt + 0x10, 0x00af9b000000ffff);
    le64_put(gdt + 0x18, 0x00cf93000000ffff);
    le64_put(gdt + 0x20, 0x00cffb000000ffff);
    le64_put(gdt + 0x28, 0x00cff3000000ffff);
    le64_put(gdt + 0x30, 0x00affb000000ffff);
    le64_put(sys + TSS_OFF + 4, SYS_LIN + STACK_OFF);
    for (unsigned v = 0; v < 32; v++) {
        uint64_t at = SYS_LIN + HANDLER_OFF + HANDLER_SIZE * v;
        le64_put(sys + 16 * v, (at & 0xffff) | 0x10 << 16 | 0xee00ull << 32 | (at >> 16 & 0xffff) << 48);
        le64_put(sys + 16 * v + 8, at >> 32);
        memcpy(sys + HANDLER_OFF + HANDLER_SIZE * v, "\xe6\x80\xeb\xfe", 4); /* out 0x80, al; jmp . */
    }
}

static int machine_new(struct machine *m, enum machine_kind kind)
{
    static struct cpu_bus bus[MACHINES];
    struct err err = {0};
    const struct engine_ops *ops;
    char why[200];
    if (mem_new(RAM_SIZE, 3 * GIB, &m->ram, &err) || engine_choose("soft", &ops, why, &err))
        return -1;
    clock_init(&m->clk, 0);
    bus[kind] = bus_ops;
    bus[kind].opaque = m;
    struct engine_config cfg = {.mem = m->ram, .bus = &bus[kind], .clock = &m->clk, .cpus = 1};
    cfg.no_jit = kind == MACHINE_INTERPRETER;
    cfg.jit_exact = kind == MACHINE_TRANSLATOR_EXACT;
    cfg.jit_hot = 1;
    cfg.cpu.model = "max";
    cfg.cpu.topology = (struct cpu_topology){.cpus = 1, .sockets = 1, .dies = 1, .cores = 1, .threads = 1};
    if (ops->create(&cfg, &m->engine, &err) || ops->vcpu_create(m->engine, 0, &m->vcpu, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    for (unsigned p = 0; p < 2; p++)
        map_page(m, WIN_RW + p * 4096, WIN_GPA + p * 4096, 6);
    map_page(m, WIN_RO, WIN_GPA + 0x2000, 4);
    for (unsigned p = 0; p < CODE_SIZE / 4096; p++)
        map_page(m, CODE_BASE + p * 4096, CODE_GPA + p * 4096, 4);
    for (unsigned p = 0; p < SYS_SIZE / 4096; p++)
        map_page(m, SYS_LIN + p * 4096, SYS_GPA + p * 4096, 2);
    memset(m->ram->ram + CODE_GPA, 0xcc, CODE_SIZE);
    descriptors(m);

    struct cpu_state *s = &m->base_state;
    ops->get_state(m->vcpu, s, &err);
    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    s->cr3 = PT_BASE;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    s->seg[SS] = s->seg[DS] = s->seg[ES] = segment(0x2b, 3, 3, false);
    s->seg[FS] = s->seg[GS] = segment(0, 3, 3, false);
    s->seg[FS].base = host_fs_base();
    s->tr = (struct cpu_segment){.base = SYS_LIN + TSS_OFF, .limit = 0x67, .selector = 0x40, .type = 11, .present = 1};
    s->gdt = (struct cpu_table){SYS_LIN + GDT_OFF, 0x4f};
    s->idt = (struct cpu_table){SYS_LIN, 0x1ff};
    s->run_state = CPU_RUNNABLE;
    clock_start(&m->clk);
    m->engine->ops->clock_changed(m->engine, true);
    return 0;
}

const char *machine_name(enum machine_kind kind)
{
    static const char *const names[MACHINES] = {"interpreter", "translator", "translator with exact flags"};
    return names[kind];
}

int machine_setup(void)
{
    for (unsigned k = 0; k < MACHINES; k++)
        if (machine_new(&machines[k], k))
            return -1;
    return 0;
}

void machine_execute(enum machine_kind kind, const struct testcase *t, struct regs *after, uint8_t win[WIN_RW_SIZE])
{
    static struct cpu_state s;
    struct machine *m = &machines[kind];
    struct err err = {0};
    uint64_t gpa = CODE_GPA + (t->ip - CODE_BASE);

    memcpy(m->ram->ram + WIN_GPA, t->window, sizeof t->window);
    memset(m->ram->ram + gpa - 16, 0xcc, 64 + t->len);
    memcpy(m->ram->ram + gpa, t->code, t->len);
    mem_wrote(m->ram, gpa - 16, 64 + t->len);
    s = m->base_state;
    bool m64 = t->form->mode == 64;
    s.seg[CS] = segment(m64 ? 0x33 : 0x23, 11, 3, m64);
    memcpy(s.gpr, t->in.gpr, sizeof s.gpr);
    s.rip = t->ip;
    s.rflags = t->in.rflags;
    memcpy(s.xsave, &t->in.x, sizeof t->in.x);
    got.hit = false;
    after->vector = -2;
    if (m->engine->ops->set_state(m->vcpu, &s, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return;
    }
    while (!got.hit)
        if (m->engine->ops->vcpu_run(m->vcpu, &err) != VCPU_EXIT_KICKED)
            return;
    syscall(SYS_arch_prctl, ARCH_SET_GS, 0); /* the engine used it, and the host's turn begins with 0 */
    *after = got.regs;
    if (after->vector == EXC_BP && after->rip == t->ip + t->len + 1) {
        after->vector = -1;
        after->rip--;
    }
    memcpy(win, m->ram->ram + WIN_GPA, WIN_RW_SIZE);
}
