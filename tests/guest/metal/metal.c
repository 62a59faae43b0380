/*
 * Runs a tiny guest of a few KiB on an engine: RAM, a debug console (port 0xe9), an exit port (0xf4), and the few
 * registers of a local APIC that start other CPUs, send interrupts and arm a timer. The guest starts in real mode at
 * 0:0x1000, every vCPU but the first waits for INIT and SIPI. Prints what the guest printed; the exit status is what it
 * wrote to the exit port.
 *
 * usage: metal [-e ENGINE] [-c CPUS] [-i] FILE; exit status 77 where /dev/kvm cannot be used
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/engine.h"

#define LOAD_AT 0x1000
#define APIC_BASE 0xfee00000u
#define TIMER_VECTOR 0x40
#define CPUS_MAX 8

static struct metal {
    struct engine *engine;
    struct mem *mem;
    struct clock clock;
    unsigned cpus;
    struct vcpu *cpu[CPUS_MAX];
    pthread_mutex_t lock;
    uint32_t irr[CPUS_MAX][8];
    uint32_t icr_high[CPUS_MAX];
    _Atomic bool done;
    int status;
} metal = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void stop_all(int status)
{
    metal.status = status;
    atomic_store(&metal.done, true);
    for (unsigned k = 0; k < metal.cpus; k++)
        metal.engine->ops->vcpu_kick(metal.cpu[k]);
}

static uint64_t pio_read(void *o, unsigned cpu, uint16_t port, unsigned size)
{
    return port == 0xe9 ? 0xe9 : ~0ull;
}

static void pio_write(void *o, unsigned cpu, uint16_t port, unsigned size, uint64_t val)
{
    if (port == 0xe9) {
        putchar((int)(val & 0xff));
    } else if (port == 0xf4) {
        stop_all((int)(val & 0xff));
    } else if (port == 0xf8) { /* a device writes memory: a byte in bits 31..24 at the address below */
        if (mem_write(metal.mem, val & 0xffffff, &(uint8_t){(uint8_t)(val >> 24)}, 1) < 0)
            stop_all(96);
    }
}

static void raise_irq(unsigned cpu, unsigned vector)
{
    pthread_mutex_lock(&metal.lock);
    metal.irr[cpu][vector / 32] |= BIT(vector % 32);
    pthread_mutex_unlock(&metal.lock);
    metal.engine->ops->vcpu_signal(metal.cpu[cpu], VCPU_SIG_INTR, 0);
}

static uint64_t mmio_read(void *o, unsigned cpu, gpa_t gpa, unsigned size)
{
    return gpa == APIC_BASE + 0x20 ? (uint64_t)cpu << 24 : ~0ull;
}

static void mmio_write(void *o, unsigned cpu, gpa_t gpa, unsigned size, uint64_t val)
{
    if (gpa == APIC_BASE + 0x310) {
        metal.icr_high[cpu] = (uint32_t)val >> 24;
    } else if (gpa == APIC_BASE + 0x380) { /* nanoseconds from now */
        metal.engine->ops->vcpu_arm_timer(metal.cpu[cpu], val ? clock_now(&metal.clock) + val : 0);
    } else if (gpa == APIC_BASE + 0x300 && metal.icr_high[cpu] < metal.cpus) {
        struct vcpu *to = metal.cpu[metal.icr_high[cpu]];
        switch (val >> 8 & 7) {
        case 0:
            raise_irq(metal.icr_high[cpu], val & 0xff);
            break;
        case 4:
            metal.engine->ops->vcpu_signal(to, VCPU_SIG_NMI, 0);
            break;
        case 5:
            metal.engine->ops->vcpu_signal(to, VCPU_SIG_INIT, 0);
            break;
        case 6:
            metal.engine->ops->vcpu_signal(to, VCPU_SIG_SIPI, val & 0xff);
            break;
        }
    }
}

static bool irq_pending(void *o, unsigned cpu)
{
    bool any = false;
    pthread_mutex_lock(&metal.lock);
    for (unsigned k = 0; k < 8; k++)
        any |= metal.irr[cpu][k] != 0;
    pthread_mutex_unlock(&metal.lock);
    return any;
}

static int irq_ack(void *o, unsigned cpu)
{
    int vector = -1;
    pthread_mutex_lock(&metal.lock);
    for (unsigned k = 8; k-- > 0 && vector < 0;) {
        if (metal.irr[cpu][k]) {
            unsigned bit = 31 - (unsigned)__builtin_clz(metal.irr[cpu][k]);
            metal.irr[cpu][k] &= ~BIT(bit);
            vector = (int)(k * 32 + bit);
        }
    }
    pthread_mutex_unlock(&metal.lock);
    return vector;
}

static uint64_t cr8_read(void *o, unsigned cpu)
{
    return 0;
}
static void cr8_write(void *o, unsigned cpu, uint64_t val)
{
}
static int apic_msr_read(void *o, unsigned cpu, uint32_t msr, uint64_t *ret)
{
    if (msr != MSR_APIC_BASE)
        return -1;
    *ret = APIC_BASE | 0x800 | (cpu ? 0 : 0x100);
    return 0;
}
static int apic_msr_write(void *o, unsigned cpu, uint32_t msr, uint64_t val)
{
    return -1;
}
static void timer_expired(void *o, unsigned cpu)
{
    raise_irq(cpu, TIMER_VECTOR);
}
static void init_taken(void *o, unsigned cpu)
{
}

static const struct cpu_bus bus = {
    .pio_read = pio_read,
    .pio_write = pio_write,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .irq_pending = irq_pending,
    .irq_ack = irq_ack,
    .cr8_read = cr8_read,
    .cr8_write = cr8_write,
    .apic_msr_read = apic_msr_read,
    .apic_msr_write = apic_msr_write,
    .timer_expired = timer_expired,
    .init_taken = init_taken,
};

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    struct err err = {0};
    while (!atomic_load(&metal.done)) {
        switch (metal.engine->ops->vcpu_run(v, &err)) {
        case VCPU_EXIT_KICKED:
        case VCPU_EXIT_DEBUG: /* nobody asked */
            break;
        case VCPU_EXIT_SHUTDOWN:
            fprintf(stderr, "triple fault on vCPU %u\n", v->index);
            struct cpu_state *s = calloc(1, sizeof *s);
            char text[4096];
            if (s && metal.engine->ops->get_state(v, s, &err) == 0) {
                cpu_state_format(s, text, sizeof text);
                fputs(text, stderr);
            }
            free(s);
            stop_all(99);
            break;
        case VCPU_EXIT_ERROR:
            fprintf(stderr, "%s\n", err.msg);
            stop_all(98);
            break;
        }
    }
    return NULL;
}

static int fail(const struct err *err)
{
    fprintf(stderr, "metal: %s\n", err->msg);
    return 97;
}

int main(int argc, char **argv)
{
    struct err err = {0};
    const struct engine_ops *ops;
    struct mem *mem;
    char why[200];
    const char *engine = "soft";
    bool info = false;
    int opt;

    metal.cpus = 1;
    while ((opt = getopt(argc, argv, "e:c:i")) != -1) {
        if (opt == 'e')
            engine = optarg;
        else if (opt == 'c')
            metal.cpus = (unsigned)atoi(optarg);
        else if (opt == 'i')
            info = true;
        else
            return 2;
    }
    if (optind >= argc || metal.cpus < 1 || metal.cpus > CPUS_MAX) {
        fprintf(stderr, "usage: metal [-e ENGINE] [-c CPUS] [-i] FILE\n");
        return 2;
    }
    FILE *f = fopen(argv[optind], "rb");
    static uint8_t image[256 * 1024];
    size_t n = f ? fread(image, 1, sizeof image, f) : 0;
    if (!f || n == 0) {
        fprintf(stderr, "metal: %s: %s\n", argv[optind], strerror(errno));
        return 2;
    }
    fclose(f);

    clock_init(&metal.clock, 0);
    if (mem_new(32 * MIB, 32 * MIB, &mem, &err) < 0 || mem_write(mem, LOAD_AT, image, n) < 0)
        return fail(&err);
    metal.mem = mem;
    if (engine_choose(engine, &ops, why, &err) < 0)
        return fail(&err);
    struct engine_config cfg = {.mem = mem, .bus = &bus, .clock = &metal.clock, .cpus = metal.cpus};
    cfg.cpu.topology = (struct cpu_topology){metal.cpus, 1, 1, metal.cpus, 1};
    if (ops->create(&cfg, &metal.engine, &err) < 0) {
        if (!ops->kernel_irqchip)
            return fail(&err);
        printf("skipped: %s\n", err.msg);
        return 77;
    }
    struct cpu_state *s = calloc(1, sizeof *s);
    for (unsigned k = 0; k < metal.cpus; k++) {
        if (ops->vcpu_create(metal.engine, k, &metal.cpu[k], &err) < 0)
            return fail(&err);
        cpu_state_reset(s, k == 0);
        if (k == 0) {
            s->seg[CS].selector = 0;
            s->seg[CS].base = 0;
            s->rip = LOAD_AT;
        }
        if (ops->set_state(metal.cpu[k], s, &err) < 0)
            return fail(&err);
    }
    free(s);
    clock_start(&metal.clock);
    ops->clock_changed(metal.engine, true);
    pthread_t thread[CPUS_MAX];
    uint64_t t0 = clock_host_ns();
    for (unsigned k = 0; k < metal.cpus; k++)
        pthread_create(&thread[k], NULL, vcpu_main, metal.cpu[k]);
    for (unsigned k = 0; k < metal.cpus; k++)
        pthread_join(thread[k], NULL);
    if (info) {
        char text[2000];
        ops->info(metal.engine, text, sizeof text);
        printf("%s%.3f s\n", text, (double)(clock_host_ns() - t0) / 1e9);
    }
    ops->destroy(metal.engine);
    mem_free(mem);
    return metal.status;
}
