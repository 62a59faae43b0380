/*
 * Bytes as instructions: the first byte chooses the mode (real, 16, 32 and 64-bit protected), the rest is decoded at
 * each of its bytes, with all and with only some of them readable, and then executed for some steps. The state
 * afterwards must be one that the engine itself accepts.
 */
#include "base/fd.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/sys.h"
#include "target.h"

#define RAM MIB
#define CODE 0x10000
#define STEPS 40

static struct mem *mem;
static struct soft_cpu *cpu;
static struct engine *engine;
static struct clock clk;

static uint64_t read_mmio(void *o, unsigned n, gpa_t gpa, unsigned size)
{
    return bits_trunc(0x0123456789abcdef, size);
}
static void write_mmio(void *o, unsigned n, gpa_t gpa, unsigned size, uint64_t val)
{
}
static uint64_t read_port(void *o, unsigned n, uint16_t port, unsigned size)
{
    return bits_trunc(0x0123456789abcdef, size);
}
static void write_port(void *o, unsigned n, uint16_t port, unsigned size, uint64_t val)
{
}
static bool irq_pending(void *o, unsigned n)
{
    return false;
}
static int irq_ack(void *o, unsigned n)
{
    return -1;
}
static uint64_t cr8_read(void *o, unsigned n)
{
    return 0;
}
static void cr8_write(void *o, unsigned n, uint64_t val)
{
}
static int msr_read(void *o, unsigned n, uint32_t msr, uint64_t *ret)
{
    return -1;
}
static int msr_write(void *o, unsigned n, uint32_t msr, uint64_t val)
{
    return -1;
}
static const struct cpu_bus bus = {
    .pio_read = read_port,
    .pio_write = write_port,
    .mmio_read = read_mmio,
    .mmio_write = write_mmio,
    .irq_pending = irq_pending,
    .irq_ack = irq_ack,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .apic_msr_read = msr_read,
    .apic_msr_write = msr_write,
};

static void leave(void)
{
    engine->ops->destroy(engine);
    mem_free(mem);
}

static void start(void)
{
    const struct engine_ops *ops;
    struct vcpu *v;
    char why[200];
    clock_init(&clk, 0);
    MUST(!mem_new(RAM, 3 * GIB, &mem, NULL));
    struct engine_config cfg = {.bus = &bus, .clock = &clk, .cpus = 1, .mem = mem, .cpu = {.model = "max"}};
    MUST(!engine_choose("soft", &ops, why, NULL) && !ops->create(&cfg, &engine, NULL) &&
         !ops->vcpu_create(engine, 0, &v, NULL));
    cpu = soft_cpu_of(v);
    atexit(leave);
}

/* Flat segments, zero tables at 0 and, for 64 bits, the first 2 MiB mapped one to one by tables at 0x1000. */
static void enter(unsigned mode)
{
    static struct cpu_state s;
    struct err err = {0};
    bool protected = mode > 0, wide = mode > 1;
    memset(mem->ram, 0, RAM);
    le64_put(mem->ram + 0x1000, 0x2007);
    le64_put(mem->ram + 0x2000, 0x3007);
    le64_put(mem->ram + 0x3000, 0x87);
    cpu_state_reset(&s, true);
    for (unsigned i = 0; i < 16; i++)
        s.gpr[i] = 0x8000 + i * 0x108;
    s.rip = CODE;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s.seg[i] = (struct cpu_segment){.limit = 0xffffffff,
                                        .selector = protected ? 8 : 0,
                                        .type = i == CS ? 11 : 3,
                                        .s = 1,
                                        .present = 1,
                                        .l = i == CS && mode == 3,
                                        .db = wide && !(i == CS && mode == 3),
                                        .g = 1};
    s.cr0 = CR0_ET | CR0_NE | CR0_MP | (protected ? CR0_PE : 0) | (mode == 3 ? CR0_PG : 0);
    s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | (mode == 3 ? CR4_PAE : 0);
    s.cr3 = 0x1000;
    s.efer = mode == 3 ? EFER_LME | EFER_LMA | EFER_SCE : 0;
    s.xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    if (soft_set_state(cpu, &s, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
}

static void decode(const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        unsigned most = MIN(size - at, 15u);
        for (unsigned avail = most; avail; avail = avail / 2) {
            struct insn i = {0};
            uint8_t *copy = malloc(avail);
            MUST(copy);
            memcpy(copy, data + at, avail);
            int n = insn_decode(cpu, copy, avail, cpu->mode, &i);
            free(copy);
            MUST(n >= -1 && n <= (int)avail);
            MUST(!n || (i.fn && i.len >= 1 && i.len <= 15 && i.base <= INSN_NOREG && i.index <= INSN_NOREG));
            MUST(n || avail < 15);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cpu_state s;
    struct err err = {0};
    if (!size)
        return 0;
    if (!cpu)
        start();
    enter(data[0] & 3);
    data++;
    size = MIN(size - 1, 256u);
    decode(data, size);
    memcpy(mem->ram + CODE, data, size);
    mem_wrote(mem, 0, RAM);
    for (unsigned i = 0; i < STEPS && !cpu->shutdown && !cpu->halted; i++) {
        atomic_fetch_or(&cpu->pending, PEND_KICK); /* ends long string instructions */
        soft_step(cpu);
    }
    soft_get_state(cpu, &s);
    if (!cpu->shutdown && soft_set_state(cpu, &s, &err)) {
        fprintf(stderr, "the CPU's own state is refused: %s\n", err.msg);
        abort();
    }
    return 0;
}
