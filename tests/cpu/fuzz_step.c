/*
 * A hostile guest: random states in every mode, random page tables and descriptor tables, random bytes and real system instructions,
 * stepped by the software CPU, and every other time run by it, with everything translated, until a thread stops it. Nothing is compared; the
 * process must survive, with sanitizers best. Then the state must still be one that the engine itself accepts.
 *
 * usage: fuzz_step [ROUNDS [SEED]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/sys.h"
#include "oracle.h"

#define RAM (4 * MIB)

static uint64_t seed = 1;
static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static uint64_t bus_read(void *o, unsigned cpu, gpa_t gpa, unsigned size)
{
    return bits_trunc(rnd(), size);
}
static void bus_write(void *o, unsigned cpu, gpa_t gpa, unsigned size, uint64_t val)
{
}
static uint64_t pio_read(void *o, unsigned cpu, uint16_t port, unsigned size)
{
    return bits_trunc(rnd(), size);
}
static void pio_write(void *o, unsigned cpu, uint16_t port, unsigned size, uint64_t val)
{
}
static bool irq_pending(void *o, unsigned cpu)
{
    return false;
}
static int irq_ack(void *o, unsigned cpu)
{
    return -1;
}
static uint64_t cr8_read(void *o, unsigned cpu)
{
    return 0;
}
static void cr8_write(void *o, unsigned cpu, uint64_t val)
{
}
static int msr_read(void *o, unsigned cpu, uint32_t msr, uint64_t *ret)
{
    return -1;
}
static int msr_write(void *o, unsigned cpu, uint32_t msr, uint64_t val)
{
    return -1;
}
static const struct cpu_bus bus = {
    .pio_read = pio_read,
    .pio_write = pio_write,
    .mmio_read = bus_read,
    .mmio_write = bus_write,
    .irq_pending = irq_pending,
    .irq_ack = irq_ack,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .apic_msr_read = msr_read,
    .apic_msr_write = msr_write,
};

/* First bytes of system instructions, so that random bytes often are one. */
static const char *const starts[] = {
    "\xcf", "\x48\xcf", "\xcb", "\x48\xcb", "\xca\x10", "\xcd\x80", "\xcc", "\xf1", "\xea", "\x9a", "\xff\x28", "\xff\x18", "\x0f\x05",
    "\x0f\x07", "\x48\x0f\x07", "\x0f\x34", "\x0f\x35", "\x0f\x22", "\x0f\x20", "\x0f\x23", "\x0f\x21", "\x0f\x01", "\x0f\x02",
    "\x0f\x03", "\x8e", "\x8c", "\x07", "\x17", "\x1f", "\x0f\xa1", "\x0f\xa9", "\x0f\x30", "\x0f\x32", "\x0f\x01\xf8", "\x9d",
    "\xf3\x0f\xae", "\x66\x0f\x38\x82", "\xc4", "\xc5", "\x0f\xb2", "\x63", "\x6c", "\x6e", "\xf3\x6d", "\xe4", "\xed", "\xf4",
    "\xfa", "\xfb", "\x0f\x01\xcb", "\x0f\xae", "\x0f\xc7", "\xf0\x0f\xb1", "\xf3\xa4", "\xf2\xae", "\xc8", "\x0f\x18", "\xd9",
};

static struct form *forms;
static unsigned nforms;

static uint64_t address(void)
{
    switch (rnd() % 8) {
    case 0:
        return rnd();
    case 1:
        return rnd() % 64 - 32;
    case 2:
        return 0x7ffffffffff0 + rnd() % 32;
    case 3:
        return 0xffffffffull - rnd() % 16;
    default:
        return rnd() % RAM;
    }
}

#define IDENTITY 0x1c000u

static void random_memory(struct mem *m)
{
    /* Descriptors and page-table entries that often make sense, code elsewhere. */
    for (unsigned i = 0; i < 2048; i++) {
        uint64_t d = rnd();
        if (rnd() % 4)
            d = (rnd() & 0xffff) | (rnd() % 4 ? 0 : (rnd() & 0xff) << 32) | (rnd() % RAM & 0xffff) << 16 |
                (uint64_t)(0x80 | (rnd() & 0x7f)) << 40 | (rnd() & 0xf) << 52;
        memcpy(m->ram + i * 8, &d, 8); /* GDT, LDT, IDT, TSS: 0..16K */
    }
    for (unsigned i = 0; i < 4096; i++) {
        uint64_t e = (rnd() % 1024) << 12 | (rnd() & 0xfff) | (rnd() % 16 ? 7 : 0);
        if (rnd() % 3)
            e &= ~0x80ull;
        if (rnd() % 30 == 0)
            e |= rnd() << 40;
        memcpy(m->ram + 0x10000 + i * 8, &e, 8); /* page tables: 64K..96K */
    }
    /* One address space that maps all of RAM where it is, for everybody: PML4, PDPT, directory of large pages. */
    le64_put(m->ram + IDENTITY, (IDENTITY + 0x1000) | 7);
    le64_put(m->ram + IDENTITY + 0x1000, (IDENTITY + 0x2000) | 7);
    for (unsigned i = 0; i < RAM >> 21; i++)
        le64_put(m->ram + IDENTITY + 0x2000 + 8 * i, (uint64_t)i << 21 | 0x87);
    for (unsigned i = 0x20000; i < RAM;) {
        const void *s = starts[rnd() % ARRAY_SIZE(starts)];
        unsigned n = rnd() % 3 ? strlen(s) : 0, form = rnd() % (2 * nforms);
        if (form < nforms) { /* any other instruction: opcode and ModRM of one of the decoder's forms, the rest is random */
            s = forms[form].bytes;
            n = 2 + rnd() % 4;
        }
        if (i + n + 8 > RAM)
            break;
        memcpy(m->ram + i, s, n);
        i += n;
        for (unsigned k = rnd() % 8; k--;)
            m->ram[i++] = rnd();
    }
}

static void random_segment(struct cpu_segment *s, bool code)
{
    s->base = rnd() % 3 ? 0 : address();
    s->limit = rnd() % 3 ? 0xffffffff : rnd();
    s->selector = rnd() & 0x3fff;
    s->type = code ? 8 | (rnd() & 7) : rnd() & 7;
    s->s = 1;
    s->present = 1;
    s->db = rnd();
    s->g = rnd();
    s->db &= 1;
    s->g &= 1;
    s->unusable = !code && rnd() % 8 == 0;
}

static void random_state(struct cpu_state *s)
{
    unsigned mode = rnd() % 5; /* real, v8086, protected, compatibility, 64-bit */
    cpu_state_reset(s, true);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = address();
    s->rip = 0x20000 + rnd() % (RAM - 0x20000);
    s->rflags = (rnd() & 0x3f7fd7 & ~(uint64_t)FLAG_VM) | FLAG_1;
    unsigned cpl = mode == 0 ? 0 : mode == 1 ? 3 : rnd() % 2 * 3;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        random_segment(&s->seg[i], i == CS);
        s->seg[i].dpl = cpl;
    }
    s->seg[CS].base = 0;
    s->seg[CS].limit = 0xffffffff;
    s->gdt = (struct cpu_table){rnd() % 64 * 8, rnd() % 4096};
    s->idt = (struct cpu_table){rnd() % 64 * 8, rnd() % 4096};
    random_segment(&s->tr, false);
    s->tr.s = 0;
    s->tr.type = rnd() % 2 ? 11 : 3;
    s->tr.base = rnd() % 0x3000;
    s->tr.limit = rnd() % 0x200;
    random_segment(&s->ldt, false);
    s->ldt.base = rnd() % 0x3000;
    s->ldt.limit = rnd() % 0x1000;
    s->cr0 = CR0_ET | (mode ? CR0_PE : 0) | (rnd() & (CR0_WP | CR0_AM | CR0_NE | CR0_TS | CR0_EM));
    s->cr4 = rnd() & (CR4_PSE | CR4_DE | CR4_PGE | CR4_OSFXSR | CR4_OSXSAVE | CR4_UMIP | CR4_FSGSBASE | CR4_TSD);
    s->cr3 = 0x10000 + (rnd() % 8) * 0x1000;
    s->efer = rnd() & (EFER_SCE | EFER_NXE);
    if (mode && rnd() % 2)
        s->cr0 |= CR0_PG, s->cr4 |= rnd() & (CR4_PAE | CR4_SMEP | CR4_SMAP);
    if (mode >= 3) {
        s->cr0 |= CR0_PG;
        s->cr4 |= CR4_PAE | (rnd() & CR4_PCIDE);
        s->efer |= EFER_LME | EFER_LMA;
        s->seg[CS].l = mode == 4;
        s->seg[CS].db = mode != 4;
    } else if (mode == 1) {
        s->rflags |= FLAG_VM;
    }
    for (unsigned i = 0; i < 4; i++) {
        s->pdpte[i] = (0x10000 + (rnd() % 8) * 0x1000) | (rnd() % 4 ? 1 : 0);
        s->dr[i] = address();
    }
    s->dr[7] = 0x400 | (rnd() % 4 ? 0 : rnd() & 0xffff23ff);
    s->xcr0 = XCR0_X87 | (rnd() % 2 ? XCR0_SSE | (rnd() % 2 ? XCR0_AVX : 0) : 0);
    cpu_state_set_msr(s, MSR_STAR, rnd());
    cpu_state_set_msr(s, MSR_LSTAR, 0x20000 + rnd() % MIB);
    cpu_state_set_msr(s, MSR_SYSENTER_CS, rnd() & 0xffff);
    cpu_state_set_msr(s, MSR_SYSENTER_EIP, rnd() % RAM);
    cpu_state_set_msr(s, MSR_SYSENTER_ESP, rnd() % RAM);
    s->nmi_masked = rnd() & 1;
    if (rnd() % 4 == 0) { /* a guest that gets somewhere: 64-bit code, everything mapped, no traps */
        s->cr3 = IDENTITY;
        s->cr0 = CR0_ET | CR0_PE | CR0_PG | CR0_NE | (rnd() & CR0_WP);
        s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE;
        s->efer = EFER_LME | EFER_LMA | EFER_SCE;
        s->rflags &= ~(uint64_t)(FLAG_VM | FLAG_TF);
        s->seg[CS].l = 1;
        s->seg[CS].db = 0;
        s->dr[7] = 0x400;
        for (unsigned i = 0; i < 16; i++)
            s->gpr[i] = 0x20000 + rnd() % (RAM - 0x40000);
    }
}

/* Stops a guest that runs freely. */
static struct {
    struct soft_cpu *c;
    _Atomic bool over;
} stopper;

static void *stop_often(void *arg)
{
    while (!stopper.over) {
        usleep(200);
        pending_set(stopper.c, PEND_KICK);
    }
    return NULL;
}

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "fuzz_step: %s: %s\n", what, err->msg);
    exit(1);
}

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 3000;
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 0) | 1;
    const struct engine_ops *ops;
    struct engine *e;
    struct vcpu *v;
    struct mem *mem;
    struct clock clock;
    struct err err = {0};
    char why[200];
    clock_init(&clock, 0);
    struct engine_config cfg = {.bus = &bus, .clock = &clock, .cpus = 1, .cpu = {.model = "max"}, .jit_hot = 1};
    if (mem_new(RAM, GIB, &mem, &err))
        die("memory", &err);
    cfg.mem = mem;
    if (engine_choose("soft", &ops, why, &err) || ops->create(&cfg, &e, &err) || ops->vcpu_create(e, 0, &v, &err))
        die("engine", &err);
    forms = forms_enumerate(seed & 2 ? 64 : 32, &nforms);
    struct soft_cpu *c = soft_cpu_of(v);
    struct cpu_state *s = xcalloc(1, sizeof *s);
    pthread_t thread;
    stopper.c = c;
    if (pthread_create(&thread, NULL, stop_often, NULL))
        return 1;
    for (unsigned long i = 0; i < rounds; i++) {
        if (i % 64 == 0) {
            random_memory(mem);
            mem_wrote(mem, 0, RAM);
        }
        uint64_t begin = seed;
        random_state(s);
        if (soft_set_state(c, s, &err)) {
            fprintf(stderr, "round %lu (seed 0x%llx): ", i, (unsigned long long)begin);
            die("state refused", &err);
        }
        if (i & 1) {
            atomic_store(&c->pending, 0);
            ops->vcpu_run(v, &err);
            atomic_fetch_or(&c->pending, PEND_KICK);
        }
        for (unsigned k = 0; k < 30 && !c->shutdown && !c->halted; k++) {
            atomic_fetch_or(&c->pending, PEND_KICK); /* ends long string instructions */
            soft_step(c);
            if (rnd() % 64 == 0)
                exc_interrupt(c, rnd() & 0xff, EXC_EXTERNAL);
        }
        soft_get_state(c, s);
        if (!c->shutdown && soft_set_state(c, s, &err)) {
            fprintf(stderr, "round %lu (seed 0x%llx): ", i, (unsigned long long)begin);
            die("own state refused", &err);
        }
    }
    char info[2000];
    ops->info(e, info, sizeof info);
    stopper.over = true;
    pthread_join(thread, NULL);
    free(s);
    free(forms);
    ops->destroy(e);
    mem_free(mem);
    printf("%lu rounds survived; %s", rounds, info);
    return 0;
}
