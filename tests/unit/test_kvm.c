/* The KVM engine with tiny guests made of a few bytes of machine code. Skipped, with the reason, where /dev/kvm cannot
 * be used. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "cpu/kvm/kvm.h"

#define LOG_MAX 256
#define PORT_DONE 0xf4 /* a write here ends the run */

struct access {
    bool write;
    uint64_t addr;
    unsigned size;
    uint64_t val;
};

struct guest {
    struct mem *mem;
    struct clock clock;
    struct cpu_bus bus;
    struct engine *e;
    struct vcpu *v[2];
    struct access io[LOG_MAX], mmio[LOG_MAX];
    unsigned n_io, n_mmio;
    uint64_t read_value;
    _Atomic unsigned done; /* bit per CPU */
    struct err err;
};

static uint64_t pio_read(void *o, unsigned cpu, uint16_t port, unsigned size)
{
    struct guest *g = o;
    if (g->n_io < LOG_MAX)
        g->io[g->n_io++] = (struct access){false, port, size, g->read_value};
    return bits_trunc(g->read_value, size);
}
static void pio_write(void *o, unsigned cpu, uint16_t port, unsigned size, uint64_t val)
{
    struct guest *g = o;
    if (port == PORT_DONE) {
        atomic_fetch_or(&g->done, 1u << cpu);
        g->e->ops->vcpu_kick(g->v[cpu]);
    } else if (g->n_io < LOG_MAX) {
        g->io[g->n_io++] = (struct access){true, port, size, val};
    }
}
static uint64_t mmio_read(void *o, unsigned cpu, gpa_t gpa, unsigned size)
{
    struct guest *g = o;
    if (g->n_mmio < LOG_MAX)
        g->mmio[g->n_mmio++] = (struct access){false, gpa, size, g->read_value};
    return bits_trunc(g->read_value, size);
}
static void mmio_write(void *o, unsigned cpu, gpa_t gpa, unsigned size, uint64_t val)
{
    struct guest *g = o;
    if (g->n_mmio < LOG_MAX)
        g->mmio[g->n_mmio++] = (struct access){true, gpa, size, val};
}

static struct guest *guest_new(unsigned cpus)
{
    struct err err = {0};
    int fd = kvm_open(&err);
    if (fd < 0) {
        print_message("skipped: %s\n", err.msg);
        skip();
    }
    close(fd);
    struct guest *g = xcalloc(1, sizeof *g);
    assert_int_equal(mem_new(4 * MIB, 3 * GIB, &g->mem, NULL), 0);
    g->bus = (struct cpu_bus){
        .opaque = g, .pio_read = pio_read, .pio_write = pio_write, .mmio_read = mmio_read, .mmio_write = mmio_write};
    struct engine_config cfg = {
        .mem = g->mem, .bus = &g->bus, .clock = &g->clock, .cpus = cpus, .cpu = {.hypervisor = true}};
    cfg.cpu.topology.cpus = cpus;
    clock_init(&g->clock, 0);
    if (kvm_engine_ops.create(&cfg, &g->e, &g->err) < 0)
        fail_msg("%s", g->err.msg);
    for (unsigned i = 0; i < cpus; i++)
        if (kvm_engine_ops.vcpu_create(g->e, i, &g->v[i], &g->err) < 0)
            fail_msg("%s", g->err.msg);
    return g;
}

static void guest_free(struct guest *g)
{
    g->e->ops->destroy(g->e);
    mem_free(g->mem);
    free(g);
}

static void put_code(struct guest *g, gpa_t at, const void *code, size_t len)
{
    assert_int_equal(mem_write(g->mem, at, code, len), 0);
}
#define CODE(g, at, ...)                                                                                               \
    do {                                                                                                               \
        static const uint8_t code_[] = {__VA_ARGS__};                                                                  \
        put_code(g, at, code_, sizeof code_);                                                                          \
    } while (0)

/* Real mode at 0:ip. */
static void start_real(struct guest *g, unsigned cpu, uint16_t ip)
{
    struct cpu_state s;
    cpu_state_reset(&s, true);
    s.seg[CS].base = 0;
    s.seg[CS].selector = 0;
    s.rip = ip;
    s.gpr[RSP] = 0x8000;
    if (g->e->ops->set_state(g->v[cpu], &s, &g->err) < 0)
        fail_msg("%s", g->err.msg);
}

static enum vcpu_exit run(struct guest *g, unsigned cpu)
{
    enum vcpu_exit e = g->e->ops->vcpu_run(g->v[cpu], &g->err);
    if (e == VCPU_EXIT_ERROR)
        fail_msg("%s", g->err.msg);
    return e;
}

static void *run_thread(void *o)
{
    struct guest *g = o;
    struct err e = {0};
    sigset_t all;
    sigfillset(&all); /* as threads of a careful program have it */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    return (void *)(uintptr_t)g->e->ops->vcpu_run(g->v[0], &e);
}
static void *run_thread1(void *o)
{
    struct guest *g = o;
    struct err e = {0};
    return (void *)(uintptr_t)g->e->ops->vcpu_run(g->v[1], &e);
}

static void test_probe(void **state)
{
    struct engine_probe p;
    kvm_probe(&p);
    assert_true(p.why[0]);
    print_message("%s\n", p.why);
}

/* Port I/O of all sizes, string I/O, and the state at the end. */
static void test_real_mode_io(void **state)
{
    struct guest *g = guest_new(1);
    struct cpu_state s;
    CODE(g, 0x1000, 0xb0, 0x41,             /* mov al, 'A' */
         0xba, 0xf8, 0x03,                  /* mov dx, 3f8h */
         0xee,                              /* out dx, al */
         0xed,                              /* in ax, dx */
         0xa3, 0x00, 0x20,                  /* mov [2000h], ax */
         0xbe, 0x00, 0x30,                  /* mov si, 3000h */
         0xb9, 0x03, 0x00,                  /* mov cx, 3 */
         0xfc, 0xf3, 0x66, 0x6f,            /* cld; rep outsd */
         0xe6, PORT_DONE, 0xf4, 0xeb, 0xfd, /* out; hlt */
    );
    CODE(g, 0x3000, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0x80);
    g->read_value = 0xbeef;
    start_real(g, 0, 0x1000);
    assert_int_equal(run(g, 0), VCPU_EXIT_KICKED);
    assert_int_equal(g->n_io, 5);
    assert_true(g->io[0].write && g->io[0].size == 1 && g->io[0].val == 'A' && g->io[0].addr == 0x3f8);
    assert_true(!g->io[1].write && g->io[1].size == 2);
    assert_true(g->io[4].write && g->io[4].size == 4 && g->io[4].val == 0x80000003);
    uint16_t v;
    assert_int_equal(mem_read16(g->mem, 0x2000, &v), 0);
    assert_int_equal(v, 0xbeef);
    assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
    assert_int_equal(s.rip, 0x1000 + 22); /* the last OUT is complete */
    assert_int_equal(s.gpr[RSI], 0x300c);
    guest_free(g);
}

/* Page tables at 0x10000: the first 1 GiB one to one; long mode at `rip`. */
static void start_long(struct guest *g, unsigned cpu, gpa_t rip)
{
    struct cpu_state s;
    assert_int_equal(mem_write64(g->mem, 0x10000, 0x11003), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(mem_write64(g->mem, 0x11000 + 8 * i, 0x12003 + i * 0x1000), 0);
    for (uint64_t i = 0; i < 2048; i++)
        assert_int_equal(mem_write64(g->mem, 0x12000 + 8 * i, i * 2 * MIB | 0x83), 0);
    cpu_state_reset(&s, true);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s.seg[i] = (struct cpu_segment){.selector = i == CS ? 0x10 : 0x18,
                                        .limit = ~0u,
                                        .type = i == CS ? 0xb : 3,
                                        .s = 1,
                                        .present = 1,
                                        .g = 1,
                                        .l = i == CS,
                                        .db = i != CS};
    s.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
    s.cr3 = 0x10000;
    s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    s.efer = EFER_LME | EFER_LMA;
    s.gdt = (struct cpu_table){0x500, 0x27};
    s.rip = rip;
    s.gpr[RSP] = 0x8000;
    if (g->e->ops->set_state(g->v[cpu], &s, &g->err) < 0)
        fail_msg("%s", g->err.msg);
}

static void test_long_mode_mmio(void **state)
{
    struct guest *g = guest_new(1);
    CODE(g, 0x100000, 0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* mov rax, 1122334455667788h */
         0xbb, 0x00, 0x00, 0x00, 0xc0,                                            /* mov ebx, c0000000h */
         0x48, 0x89, 0x03,                                                        /* mov [rbx], rax */
         0x66, 0x89, 0x43, 0x10,                                                  /* mov [rbx+10h], ax */
         0x8b, 0x4b, 0x20,                                                        /* mov ecx, [rbx+20h] */
         0xe6, PORT_DONE, 0xf4, 0xeb, 0xfd);
    g->read_value = 0x99aabbcc;
    start_long(g, 0, 0x100000);
    assert_int_equal(run(g, 0), VCPU_EXIT_KICKED);
    assert_int_equal(g->n_mmio, 3);
    assert_true(g->mmio[0].write && g->mmio[0].size == 8 && g->mmio[0].val == 0x1122334455667788 &&
                g->mmio[0].addr == 0xc0000000);
    assert_true(g->mmio[1].write && g->mmio[1].size == 2 && g->mmio[1].val == 0x7788);
    struct cpu_state s;
    assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
    assert_int_equal(s.gpr[RCX], 0x99aabbcc);
    guest_free(g);
}

/* What set_state took comes out of get_state. */
static void test_state_round_trip(void **state)
{
    struct guest *g = guest_new(1);
    struct cpu_state a, b;
    start_long(g, 0, 0x100000);
    assert_int_equal(g->e->ops->get_state(g->v[0], &a, &g->err), 0);
    for (unsigned i = 0; i < 16; i++)
        a.gpr[i] = 0x0101010101010101 * (i + 1);
    a.rflags = FLAG_1 | FLAG_CF | FLAG_ZF;
    a.cr2 = 0x123456789000;
    a.seg[FS].base = 0xffff800000001000;
    a.dr[0] = 0x1234;
    memset(a.xsave + 160, 0xab, 256);
    le64_put(a.xsave + 512, XCR0_X87 | XCR0_SSE);
    cpu_state_set_msr(&a, MSR_LSTAR, 0xffffffff81000000);
    cpu_state_set_msr(&a, MSR_KERNEL_GS_BASE, 0xffff888000000000);
    if (g->e->ops->set_state(g->v[0], &a, &g->err) < 0)
        fail_msg("%s", g->err.msg);
    assert_int_equal(g->e->ops->get_state(g->v[0], &b, &g->err), 0);
    assert_memory_equal(a.gpr, b.gpr, sizeof a.gpr);
    assert_int_equal(a.rflags, b.rflags);
    assert_int_equal(a.cr2, b.cr2);
    assert_int_equal(a.cr3, b.cr3);
    assert_int_equal(a.efer, b.efer);
    assert_int_equal(a.seg[FS].base, b.seg[FS].base);
    assert_memory_equal(&a.seg[CS], &b.seg[CS], sizeof a.seg[CS]);
    assert_int_equal(a.dr[0], b.dr[0]);
    assert_memory_equal(a.xsave + 160, b.xsave + 160, 256);
    assert_int_equal(*cpu_state_msr(&b, MSR_LSTAR), 0xffffffff81000000);
    assert_int_equal(*cpu_state_msr(&b, MSR_KERNEL_GS_BASE), 0xffff888000000000);
    assert_int_equal(b.run_state, CPU_RUNNABLE);
    guest_free(g);
}

/*
 * irqfd: an eventfd becomes an interrupt of the local APIC; ioeventfd: an OUT becomes an eventfd. The guest enables its
 * APIC by the spurious vector register, waits for vector 0x40 in HLT, then reports.
 */
static void test_irqfd_ioeventfd(void **state)
{
    struct guest *g = guest_new(1);
    CODE(g, 0x1000, 0x66, 0xbb, 0xf0, 0x00, 0xe0, 0xfe,             /* mov ebx, fee000f0h */
         0x66, 0x67, 0xc7, 0x03, 0xff, 0x01, 0x00, 0x00,            /* mov dword [ebx], 1ffh */
         0xb8, 0x55, 0x00, 0xe7, 0xa4,                              /* mov ax, 55h; out a4h, ax */
         0xfb, 0xf4, 0xeb, 0xfd);                                   /* sti; hlt; again */
    CODE(g, 0x2000, 0xb0, 0x77, 0xe6, 0xf1, 0xe6, PORT_DONE, 0xf4); /* handler */
    assert_int_equal(mem_write32(g->mem, 0x40 * 4, 0x2000), 0);
    autofd int irq = eventfd(0, EFD_CLOEXEC), io = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t one = 1, got = 0;
    assert_int_equal(g->e->ops->ioeventfd(g->e, true, 0xa4, 2, io, true), 0);
    assert_int_equal(g->e->ops->msi_bind_fd(g->e, irq, 0xfee00000, 0x40), 0);
    start_real(g, 0, 0x1000);
    struct cpu_state s;
    assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
    s.seg[DS].limit = s.seg[ES].limit = s.seg[SS].limit = ~0u; /* "unreal" mode, to reach the APIC */
    s.seg[DS].g = s.seg[ES].g = s.seg[SS].g = 1;
    assert_int_equal(g->e->ops->set_state(g->v[0], &s, &g->err), 0);
    pthread_t t;
    pthread_create(&t, NULL, run_thread, g);
    /* The guest says by the ioeventfd that its APIC is on. */
    struct pollfd p = {.fd = io, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_int_equal(read(io, &got, 8), 8);
    assert_int_equal(got, 1);
    assert_int_equal(write(irq, &one, 8), 8);
    pthread_join(t, NULL);
    assert_int_equal(g->n_io, 1);
    assert_int_equal(g->io[0].val, 0x77);
    g->e->ops->msi_unbind_fd(g->e, irq);
    assert_int_equal(g->e->ops->ioeventfd(g->e, true, 0xa4, 2, io, false), 0);
    guest_free(g);
}

static void test_dirty_log(void **state)
{
    struct guest *g = guest_new(1);
    uint64_t bits[4 * MIB / PAGE_SIZE / 64] = {0};
    CODE(g, 0x1000, 0xa2, 0x00, 0x50, 0xa2, 0x00, 0x70, 0xe6, PORT_DONE, 0xf4); /* write pages 5 and 7 */
    start_real(g, 0, 0x1000);
    mem_track_dirty(g->mem, true);
    assert_int_equal(g->e->ops->dirty_sync(g->e, &g->err), 0);
    mem_take_dirty(g->mem, bits);
    assert_int_equal(run(g, 0), VCPU_EXIT_KICKED);
    assert_int_equal(g->e->ops->dirty_sync(g->e, &g->err), 0);
    mem_take_dirty(g->mem, bits);
    assert_int_equal(bits[0] & 0xa0, 0xa0);
    assert_int_equal(bits[0] & 0x0f40, 0);
    mem_track_dirty(g->mem, false);
    assert_int_equal(g->e->ops->dirty_sync(g->e, &g->err), 0);
    guest_free(g);
}

/* The BSP starts CPU 1 with INIT and SIPI; that one counts in memory. */
static void test_two_cpus(void **state)
{
    struct guest *g = guest_new(2);
    pthread_t t;
    struct cpu_state s;
    uint16_t v = 0;
    CODE(g, 0x1000, 0x66, 0xbb, 0x00, 0x00, 0xe0, 0xfe,                          /* mov ebx, fee00000h */
         0x66, 0x67, 0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00, /* mov dword [ebx+f0h], 1ffh */
         0x66, 0x67, 0xc7, 0x83, 0x10, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, /* mov dword [ebx+310h], 1<<24 */
         0x66, 0x67, 0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x00, 0x45, 0x00, 0x00, /* mov dword [ebx+300h], 4500h: INIT */
         0x66, 0x67, 0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x03, 0x46, 0x00,
         0x00,                                                 /* mov dword [ebx+300h], 4603h: SIPI at 3000h */
         0x83, 0x3e, 0x00, 0x50, 0x07, 0xf3, 0x90, 0x75, 0xf7, /* cmp word [5000h], 7; pause; jne */
         0xe6, PORT_DONE, 0xf4);
    CODE(g, 0x3000, 0x31, 0xc0, 0x8e, 0xd8,  /* xor ax, ax; mov ds, ax */
         0xc7, 0x06, 0x00, 0x50, 0x07, 0x00, /* mov word [5000h], 7 */
         0xe6, PORT_DONE, 0xf4);
    start_real(g, 0, 0x1000);
    assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
    s.seg[DS].limit = ~0u;
    s.seg[DS].g = 1;
    assert_int_equal(g->e->ops->set_state(g->v[0], &s, &g->err), 0);
    cpu_state_reset(&s, false);
    if (g->e->ops->set_state(g->v[1], &s, &g->err) < 0)
        fail_msg("%s", g->err.msg);
    pthread_create(&t, NULL, run_thread1, g);
    assert_int_equal(run(g, 0), VCPU_EXIT_KICKED);
    pthread_join(t, NULL);
    assert_int_equal(atomic_load(&g->done), 3);
    assert_int_equal(mem_read16(g->mem, 0x5000, &v), 0);
    assert_int_equal(v, 7);
    guest_free(g);
}

static void test_triple_fault(void **state)
{
    struct guest *g = guest_new(1);
    struct cpu_state s;
    CODE(g, 0x100000, 0x0f, 0x0b);
    start_long(g, 0, 0x100000);
    assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
    s.idt = (struct cpu_table){0, 0};
    assert_int_equal(g->e->ops->set_state(g->v[0], &s, &g->err), 0);
    assert_int_equal(run(g, 0), VCPU_EXIT_SHUTDOWN);
    guest_free(g);
}

/* A kick gets a vCPU out of an endless loop, again and again. */
static void test_kick(void **state)
{
    struct guest *g = guest_new(1);
    CODE(g, 0x1000, 0xeb, 0xfe);
    start_real(g, 0, 0x1000);
    for (unsigned i = 0; i < 20; i++) {
        pthread_t t;
        void *ret;
        pthread_create(&t, NULL, run_thread, g);
        if (i % 2)
            usleep(1000);
        g->e->ops->vcpu_kick(g->v[0]);
        pthread_join(t, &ret);
        assert_int_equal((uintptr_t)ret, VCPU_EXIT_KICKED);
    }
    guest_free(g);
}

static void test_irqchip_state(void **state)
{
    struct guest *g = guest_new(1);
    uint8_t page[IRQCHIP_LAPIC_PAGE], again[IRQCHIP_LAPIC_PAGE];
    struct irqchip_state st = {.cpus = 1, .lapic = page}, back = {.cpus = 1, .lapic = again};
    if (g->e->ops->irqchip_get(g->e, &st, &g->err) < 0)
        fail_msg("%s", g->err.msg);
    st.pic[0].base = 0x30;
    st.pic[1].imr = 0xee;
    st.ioapic.rte[4] = 0x010000000000a041ull;
    st.pit[0] = (struct irqchip_pit){.count = 11932, .mode = 2, .gate = 1, .rw = 3};
    le32_put(page + 0xf0, 0x1ff);
    if (g->e->ops->irqchip_set(g->e, &st, &g->err) < 0 || g->e->ops->irqchip_get(g->e, &back, &g->err) < 0)
        fail_msg("%s", g->err.msg);
    assert_int_equal(back.pic[0].base, 0x30);
    assert_int_equal(back.pic[1].imr, 0xee);
    assert_int_equal(back.ioapic.rte[4], st.ioapic.rte[4]);
    assert_int_equal(back.pit[0].count, 11932);
    assert_int_equal(back.pit[0].mode, 2);
    assert_int_equal(le32_get(again + 0xf0), 0x1ff);
    /* A guest's APIC setting (spurious vector register: on) is gone after a reset. */
    struct kvm_lapic_state l;
    int fd = kvm_vcpu_of(g->v[0])->fd;
    assert_int_equal(ioctl(fd, KVM_GET_LAPIC, &l), 0);
    le32_put(l.regs + 0xf0, 0x1ff);
    assert_int_equal(ioctl(fd, KVM_SET_LAPIC, &l), 0);
    assert_int_equal(g->e->ops->irqchip_reset(g->e, &g->err), 0);
    assert_int_equal(ioctl(fd, KVM_GET_LAPIC, &l), 0);
    assert_int_equal(le32_get(l.regs + 0xf0), 0xff);
    g->e->ops->clock_changed(g->e, false);
    g->e->ops->clock_changed(g->e, true);
    guest_free(g);
}

/*
 * Instructions that an emulating KVM may lack: CMPXCHG16B, INT3 through the IDT and back, SSE2 arithmetic. The result
 * is the same whether KVM or the interpreter executed them.
 */
static void test_odd_instructions(void **state)
{
    struct guest *g = guest_new(1);
    struct cpu_state s;
    CODE(g, 0x100000, 0xbf, 0x00, 0x00, 0x20, 0x00, /* mov edi, 200000h */
         0xb8, 0x11, 0, 0, 0, 0xba, 0x22, 0, 0, 0,  /* mov eax, 11h; mov edx, 22h */
         0xbb, 0x33, 0, 0, 0, 0xb9, 0x44, 0, 0, 0,  /* mov ebx, 33h; mov ecx, 44h */
         0xf0, 0x48, 0x0f, 0xc7, 0x0f,              /* lock cmpxchg16b [rdi] */
         0x0f, 0x94, 0x47, 0x20,                    /* setz [rdi+20h] */
         0xcc,                                      /* int3 */
         0x66, 0x0f, 0xfe, 0xc0,                    /* paddd xmm0, xmm0 */
         0x66, 0x0f, 0x7f, 0x47, 0x40,              /* movdqa [rdi+40h], xmm0 */
         0xe6, PORT_DONE, 0xf4, 0xeb, 0xfd);
    CODE(g, 0x101000, 0xc6, 0x47, 0x21, 0x5a, 0x48, 0xcf); /* mov byte [rdi+21h], 5ah; iretq */
    assert_int_equal(mem_write64(g->mem, 0x200000, 0x11), 0);
    assert_int_equal(mem_write64(g->mem, 0x200008, 0x22), 0);
    assert_int_equal(mem_write64(g->mem, 0x510, 0x00af9b000000ffff), 0); /* GDT */
    assert_int_equal(mem_write64(g->mem, 0x518, 0x00cf93000000ffff), 0);
    assert_int_equal(mem_write64(g->mem, 0x20000 + 3 * 16, 0x00108e0000101000), 0); /* IDT: vector 3 at 101000h */
    assert_int_equal(mem_write64(g->mem, 0x20000 + 3 * 16 + 8, 0), 0);
    start_long(g, 0, 0x100000);
    assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
    s.idt = (struct cpu_table){0x20000, 0xfff};
    for (unsigned i = 0; i < 4; i++)
        le32_put(s.xsave + 160 + 4 * i, 0x01010101 * (i + 1));
    le64_put(s.xsave + 512, XCR0_X87 | XCR0_SSE);
    assert_int_equal(g->e->ops->set_state(g->v[0], &s, &g->err), 0);
    assert_int_equal(run(g, 0), VCPU_EXIT_KICKED);
    uint64_t lo, hi, flags, x;
    assert_int_equal(mem_read64(g->mem, 0x200000, &lo) | mem_read64(g->mem, 0x200008, &hi) |
                         mem_read64(g->mem, 0x200020, &flags) | mem_read64(g->mem, 0x200048, &x),
                     0);
    assert_int_equal(lo, 0x33);
    assert_int_equal(hi, 0x44);
    assert_int_equal(flags & 0xffff, 0x5a01);
    assert_int_equal(x, 0x0808080806060606);
    char text[1000];
    g->e->ops->info(g->e, text, sizeof text);
    print_message("%s", text);
    guest_free(g);
}

/* The guest's CPUID is the model's: no feature beyond what KVM offers, KVM's signature, XSAVE and leaf 0xd in
 * agreement. */
static void test_guest_cpuid(void **state)
{
    struct guest *g = guest_new(1);
    static const struct {
        uint32_t leaf, sub;
    } ask[] = {{1, 0}, {0x40000000, 0}, {0x80000001, 0}};
    uint32_t got[3][4];
    CODE(g, 0x100000, 0x0f, 0xa2, 0xe6, PORT_DONE, 0xf4); /* cpuid; out; hlt */
    for (unsigned i = 0; i < 3; i++) {
        struct cpu_state s;
        start_long(g, 0, 0x100000);
        assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
        s.gpr[RAX] = ask[i].leaf;
        s.gpr[RCX] = ask[i].sub;
        assert_int_equal(g->e->ops->set_state(g->v[0], &s, &g->err), 0);
        assert_int_equal(run(g, 0), VCPU_EXIT_KICKED);
        assert_int_equal(g->e->ops->get_state(g->v[0], &s, &g->err), 0);
        got[i][0] = (uint32_t)s.gpr[RAX], got[i][1] = (uint32_t)s.gpr[RBX], got[i][2] = (uint32_t)s.gpr[RCX],
        got[i][3] = (uint32_t)s.gpr[RDX];
    }
    assert_true(got[0][2] & BIT(31));
    assert_true(got[0][3] & BIT(26));
    assert_memory_equal(&got[1][1], "KVMK", 4);
    assert_true(got[2][3] & BIT(29));
    guest_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_real_mode_io),
        cmocka_unit_test(test_long_mode_mmio),
        cmocka_unit_test(test_state_round_trip),
        cmocka_unit_test(test_irqfd_ioeventfd),
        cmocka_unit_test(test_dirty_log),
        cmocka_unit_test(test_two_cpus),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_kick),
        cmocka_unit_test(test_guest_cpuid),
        cmocka_unit_test(test_irqchip_state),
        cmocka_unit_test(test_odd_instructions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
