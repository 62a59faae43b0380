/* The software engine's CPU state in its canonical form: reset, out and in again, refusal of what cannot be, MSR rules. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/fd.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/sys.h"

static int no_msr_read(void *o, unsigned cpu, uint32_t msr, uint64_t *ret)
{
    return -1;
}
static int no_msr_write(void *o, unsigned cpu, uint32_t msr, uint64_t val)
{
    return -1;
}

struct machine {
    struct mem *mem;
    struct cpu_bus bus;
    struct clock clock;
    struct engine *engine;
    struct vcpu *vcpu;
    struct soft_cpu *c;
    struct cpu_state s, t;
};

static void setup_model(struct machine *m, const char *model, const char *const *features)
{
    const struct engine_ops *ops;
    char why[200];
    struct err err = {0};
    memset(m, 0, sizeof *m);
    m->bus.apic_msr_read = no_msr_read;
    m->bus.apic_msr_write = no_msr_write;
    clock_init(&m->clock, 0);
    assert_int_equal(mem_new(MIB, GIB, &m->mem, &err), 0);
    assert_int_equal(engine_choose("soft", &ops, why, &err), 0);
    struct engine_config cfg = {.mem = m->mem, .bus = &m->bus, .clock = &m->clock, .cpus = 1, .cpu = {.model = model, .features = features}};
    assert_int_equal(ops->create(&cfg, &m->engine, &err), 0);
    assert_int_equal(ops->vcpu_create(m->engine, 0, &m->vcpu, &err), 0);
    m->c = soft_cpu_of(m->vcpu);
}

static void setup(struct machine *m)
{
    setup_model(m, "max", NULL);
}

static void teardown(struct machine *m)
{
    m->engine->ops->destroy(m->engine);
    mem_free(m->mem);
}

static int set(struct machine *m)
{
    struct err err = {0};
    return m->engine->ops->set_state(m->vcpu, &m->s, &err);
}
static void get(struct machine *m, struct cpu_state *s)
{
    struct err err = {0};
    assert_int_equal(m->engine->ops->get_state(m->vcpu, s, &err), 0);
}

static void reset_is_the_manuals(void **state)
{
    struct machine *m = xcalloc(1, sizeof *m);
    setup(m);
    get(m, &m->s);
    assert_int_equal(m->s.rip, 0xfff0);
    assert_int_equal(m->s.seg[CS].base, 0xffff0000);
    assert_int_equal(m->s.cr0, 0x60000010);
    assert_int_equal(m->s.rflags, 2);
    assert_int_equal(m->s.dr[6], 0xffff0ff0);
    assert_int_equal(m->s.dr[7], 0x400);
    assert_true(m->s.gpr[RDX] != 0); /* the CPU's signature */
    assert_int_equal(m->s.run_state, CPU_RUNNABLE);
    teardown(m);
    free(m);
}

/* A 64-bit user-mode state with a value of its own in every field. */
static void make_state(struct machine *m)
{
    struct cpu_state *s = &m->s;
    cpu_state_reset(s, true);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = 0x1111111111111111ull * i + 5;
    s->rip = 0x401000;
    s->rflags = 0x246 | FLAG_AC | FLAG_ID;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = (struct cpu_segment){.base = i >= FS ? 0x7f0000000000 + i : 0,
                                         .limit = 0xffffffff,
                                         .selector = i * 8 | 3,
                                         .type = i == CS ? 11 : 3,
                                         .s = 1,
                                         .dpl = 3,
                                         .present = 1,
                                         .l = i == CS,
                                         .db = i != CS,
                                         .g = 1};
    s->tr = (struct cpu_segment){.base = 0xfffffe0000003000, .limit = 0x4087, .selector = 0x40, .type = 11, .present = 1};
    s->ldt = (struct cpu_segment){.unusable = 1};
    s->gdt = (struct cpu_table){0xfffffe0000001000, 0x7f};
    s->idt = (struct cpu_table){0xfffffe0000000000, 0xfff};
    s->cr0 = 0x80050033;
    s->cr2 = 0x123456789;
    s->cr3 = 0x7000;
    s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXSAVE | CR4_SMEP;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->dr[0] = 0x401234;
    s->dr[7] = 0x402;
    s->xcr0 = XCR0_X87 | XCR0_SSE;
    le16_put(s->xsave, 0x37f);
    le32_put(s->xsave + 24, 0x1fa0);
    for (unsigned i = 0; i < 256; i++)
        s->xsave[160 + i] = i;
    cpu_state_set_msr(s, MSR_STAR, 0x0023001000000000);
    cpu_state_set_msr(s, MSR_LSTAR, 0xffffffff81c00000);
    cpu_state_set_msr(s, MSR_KERNEL_GS_BASE, 0xffff888012340000);
    cpu_state_set_msr(s, MSR_TSC_AUX, 7);
    s->tsc = 0x123456789abc;
    s->nmi_masked = true;
    s->interrupt_shadow = 1;
}

static void state_goes_in_and_out(void **state)
{
    struct machine *m = xcalloc(1, sizeof *m);
    setup(m);
    make_state(m);
    assert_int_equal(set(m), 0);
    get(m, &m->t);
    struct cpu_state *s = &m->s, *t = &m->t;
    assert_memory_equal(s->gpr, t->gpr, sizeof s->gpr);
    assert_int_equal(s->rip, t->rip);
    assert_int_equal(s->rflags, t->rflags);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        assert_int_equal(s->seg[i].base, t->seg[i].base);
        assert_int_equal(s->seg[i].limit, t->seg[i].limit);
        assert_int_equal(s->seg[i].selector, t->seg[i].selector);
        assert_int_equal(s->seg[i].type, t->seg[i].type);
        assert_int_equal(s->seg[i].dpl, t->seg[i].dpl);
        assert_int_equal(s->seg[i].l, t->seg[i].l);
        assert_int_equal(s->seg[i].db, t->seg[i].db);
    }
    assert_int_equal(s->tr.base, t->tr.base);
    assert_true(t->ldt.unusable);
    assert_int_equal(s->gdt.base, t->gdt.base);
    assert_int_equal(s->idt.limit, t->idt.limit);
    assert_int_equal(s->cr0, t->cr0);
    assert_int_equal(s->cr2, t->cr2);
    assert_int_equal(s->cr3, t->cr3);
    assert_int_equal(s->cr4, t->cr4);
    assert_int_equal(s->efer, t->efer);
    assert_memory_equal(s->dr, t->dr, sizeof s->dr);
    assert_int_equal(s->xcr0, t->xcr0);
    assert_memory_equal(s->xsave + 160, t->xsave + 160, 256);
    assert_int_equal(le32_get(t->xsave + 24), 0x1fa0);
    assert_int_equal(*cpu_state_msr(t, MSR_LSTAR), 0xffffffff81c00000);
    assert_int_equal(*cpu_state_msr(t, MSR_KERNEL_GS_BASE), 0xffff888012340000);
    assert_int_equal(*cpu_state_msr(t, MSR_TSC_AUX), 7);
    assert_int_equal(t->tsc, s->tsc); /* the clock stands */
    assert_true(t->nmi_masked);
    assert_int_equal(t->interrupt_shadow, 1);
    assert_int_equal(m->c->cpl, 3);
    assert_true(m->c->mode & MODE_CS64);
    teardown(m);
    free(m);
}

static void impossible_states_are_refused(void **state)
{
    struct machine *m = xcalloc(1, sizeof *m);
    setup(m);
    get(m, &m->t);
#define REFUSED(change)                                                                                                \
    make_state(m);                                                                                                     \
    change;                                                                                                            \
    assert_int_equal(set(m), -EINVAL)
    REFUSED(m->s.cr0 &= ~(uint64_t)CR0_PE);
    REFUSED(m->s.efer &= ~(uint64_t)EFER_LME);
    REFUSED(m->s.efer |= BIT(1));
    REFUSED(m->s.cr8 = 16);
    REFUSED(m->s.dr[7] |= BIT64(40));
    REFUSED(m->s.xcr0 |= BIT64(63));
    REFUSED(le32_put(m->s.xsave + 24, 0x10000)); /* MXCSR */
    REFUSED(m->s.nmsrs = CPU_MSRS_MAX + 1);
    REFUSED(m->s.run_state = 9);
    REFUSED((m->s.exception_pending = true, m->s.exception_vector = 200));
    struct cpu_state *now = xcalloc(1, sizeof *now);
    get(m, now);
    assert_int_equal(now->rip, m->t.rip); /* nothing changed */
    free(now);
    teardown(m);
    free(m);
}

static void msrs_follow_the_manual(void **state)
{
    struct machine *m = xcalloc(1, sizeof *m);
    uint64_t v;
    setup(m);
#define WRITE_FAULTS(msr, val)                                                                                         \
    assert_int_equal(soft_wrmsr(m->c, msr, val), INSN_FAULT);                                                          \
    assert_int_equal(m->c->exc.vector, EXC_GP)
    WRITE_FAULTS(MSR_LSTAR, 0x800000000000); /* not canonical */
    WRITE_FAULTS(MSR_PAT, 0x0202020202020202);
    WRITE_FAULTS(MSR_EFER, BIT(3));
    WRITE_FAULTS(MSR_TSC_AUX, 1ull << 32);
    WRITE_FAULTS(MSR_MTRRCAP, 0);
    WRITE_FAULTS(0x12345678, 0);
    assert_int_equal(soft_rdmsr(m->c, 0x12345678, &v), INSN_FAULT);
    assert_int_equal(soft_wrmsr(m->c, MSR_PAT, 0x0007010600070106), 0);
    assert_int_equal(soft_rdmsr(m->c, MSR_PAT, &v), 0);
    assert_int_equal(v, 0x0007010600070106);
    /* TSC and TSC_ADJUST move together */
    assert_int_equal(soft_wrmsr(m->c, MSR_TSC, soft_tsc(m->c) + 1000), 0);
    assert_int_equal(soft_rdmsr(m->c, MSR_TSC_ADJUST, &v), 0);
    assert_int_equal(v, 1000);
    uint64_t before = soft_tsc(m->c);
    assert_int_equal(soft_wrmsr(m->c, MSR_TSC_ADJUST, 0), 0);
    assert_int_equal(before - soft_tsc(m->c), 1000);
    /* LMA is the CPU's own */
    assert_int_equal(soft_wrmsr(m->c, MSR_EFER, EFER_SCE | EFER_LMA), 0);
    assert_int_equal(soft_rdmsr(m->c, MSR_EFER, &v), 0);
    assert_int_equal(v, EFER_SCE);
    teardown(m);
    free(m);
}

static void kick_on_out(void *o, unsigned cpu, uint16_t port, unsigned size, uint64_t val)
{
    struct machine *m = o;
    m->engine->ops->vcpu_kick(m->vcpu);
}

/* A guest that stores to one page again and again, with its translation in the TLB before tracking begins. */
static void dirty_tracking_sees_every_store(void **state)
{
    static const uint8_t code[] = {0xa3, 0x00, 0x80, 0xe6, 0x80, 0xeb, 0xf9}; /* 1: mov %ax, 0x8000; out %al, $0x80; jmp 1b */
    struct machine *m = xcalloc(1, sizeof *m);
    struct err err = {0};
    uint64_t bits[MIB / PAGE_SIZE / 64];
    setup(m);
    m->bus.opaque = m;
    m->bus.pio_write = kick_on_out;
    memcpy(m->mem->ram + 0x1000, code, sizeof code);
    cpu_state_reset(&m->s, true);
    m->s.seg[CS].base = m->s.seg[CS].selector = 0;
    m->s.rip = 0x1000;
    assert_int_equal(set(m), 0);
    for (unsigned i = 0; i < 4; i++) {
        if (i)
            mem_track_dirty(m->mem, i < 3);
        assert_int_equal(m->engine->ops->vcpu_run(m->vcpu, &err), VCPU_EXIT_KICKED);
        memset(bits, 0, sizeof bits);
        mem_take_dirty(m->mem, bits);
        assert_int_equal(bits[0] >> 8 & 1, i == 1 || i == 2);
    }
    teardown(m);
    free(m);
}

static void instructions_of_other_models_are_undefined(void **state)
{
    static const uint8_t rdtscp[] = {0x0f, 0x01, 0xf9}, rdpid[] = {0xf3, 0x0f, 0xc7, 0xf8};
    static const char *const without[] = {"-rdtscp", "-rdpid", NULL};
    for (int has = 0; has < 2; has++) {
        for (int k = 0; k < 2; k++) {
            struct machine *m = xcalloc(1, sizeof *m);
            setup_model(m, "max", has ? NULL : without);
            cpu_state_reset(&m->s, true);
            m->s.seg[CS].base = m->s.seg[CS].selector = 0;
            m->s.rip = 0x1000;
            m->s.gpr[RSP] = 0x8000;
            memcpy(m->mem->ram + 0x1000, k ? rdpid : rdtscp, k ? sizeof rdpid : sizeof rdtscp);
            le16_put(m->mem->ram + 6 * 4, 0x2000); /* #UD's handler */
            assert_int_equal(set(m), 0);
            soft_step(m->c);
            assert_int_equal(m->c->rip, !has ? 0x2000 : k ? 0x1004 : 0x1003);
            teardown(m);
            free(m);
        }
    }
}

static void init_and_sipi(void **state)
{
    struct machine *m = xcalloc(1, sizeof *m);
    setup(m);
    make_state(m);
    assert_int_equal(set(m), 0);
    soft_take_sipi(m->c, 0x9a); /* it does not wait for one */
    assert_int_equal(m->c->rip, 0x401000);
    soft_take_init(m->c, false);
    get(m, &m->t);
    assert_int_equal(m->t.run_state, CPU_WAIT_SIPI);
    assert_int_equal(m->t.efer, 0);
    assert_int_equal(m->t.cr0 & ~0x60000000ull, 0x10);
    assert_int_equal(*cpu_state_msr(&m->t, MSR_LSTAR), 0xffffffff81c00000); /* INIT leaves it */
    soft_take_sipi(m->c, 0x9a);
    get(m, &m->t);
    assert_int_equal(m->t.run_state, CPU_RUNNABLE);
    assert_int_equal(m->t.seg[CS].selector, 0x9a00);
    assert_int_equal(m->t.seg[CS].base, 0x9a000);
    assert_int_equal(m->t.rip, 0);
    teardown(m);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reset_is_the_manuals),
        cmocka_unit_test(state_goes_in_and_out),
        cmocka_unit_test(impossible_states_are_refused),
        cmocka_unit_test(msrs_follow_the_manual),
        cmocka_unit_test(dirty_tracking_sees_every_store),
        cmocka_unit_test(instructions_of_other_models_are_undefined),
        cmocka_unit_test(init_and_sipi),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
