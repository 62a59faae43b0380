#include "env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

const struct env_kind *const env_kinds[] = {
    &kind_pic,      &kind_pit, &kind_ioapic, &kind_lapic,  &kind_uart,  &kind_pc,  &kind_acpi,
    &kind_isaports, &kind_rtc, &kind_hpet,   &kind_fw_cfg, &kind_i8042, &kind_vga, &kind_pflash, &kind_ahci, NULL,
};

uint64_t env_number(const char *s)
{
    char *end;
    if (!strcmp(s, "gp"))
        return UINT64_MAX;
    uint64_t v = strtoull(s, &end, 0);
    if (*end || end == s) {
        fprintf(stderr, "'%s' is not a number\n", s);
        exit(2);
    }
    return v;
}

static void output_set(void *opaque, unsigned n, int level)
{
    struct env *env = opaque;
    if (level && !env->level[n])
        env->edges[n]++;
    env->level[n] = level != 0;
}

struct irq env_output(struct env *env, unsigned n)
{
    return (struct irq){output_set, env, n};
}

static void msi_record(void *opaque, uint64_t addr, uint32_t data)
{
    struct env *env = opaque;
    if (env->nmsi == MSI_LOG) {
        memmove(env->msi, env->msi + 1, sizeof env->msi - sizeof env->msi[0]);
        env->nmsi--;
    }
    env->msi[env->nmsi].addr = addr;
    env->msi[env->nmsi++].data = data;
}

struct msi_sink env_msi_sink(struct env *env)
{
    return (struct msi_sink){.send = msi_record, .opaque = env};
}

/* ---- the character device ---- */

static size_t chr_write(struct chardev *c, const uint8_t *buf, size_t len)
{
    struct test_chardev *t = (struct test_chardev *)c;
    size_t n = len < t->room ? len : t->room;
    for (size_t i = 0; i < n && t->out_len < sizeof t->out; i++)
        t->out[t->out_len++] = (char)buf[i];
    if (t->room != SIZE_MAX)
        t->room -= n;
    return n;
}

static void feed(struct test_chardev *t)
{
    while (t->in_len && t->base.frontend) {
        size_t n = t->base.frontend->can_receive ? t->base.frontend->can_receive(t->base.opaque) : t->in_len;
        n = n < t->in_len ? n : t->in_len;
        if (!n)
            break;
        t->base.frontend->receive(t->base.opaque, (const uint8_t *)t->in, n);
        memmove(t->in, t->in + n, t->in_len - n);
        t->in_len -= n;
    }
}

static const struct chardev_ops chr_ops = {.name = "test", .write = chr_write};

void env_send(struct env *env, const char *text, size_t len)
{
    struct test_chardev *t = &env->chr;
    for (size_t i = 0; i < len && t->in_len < sizeof t->in; i++)
        t->in[t->in_len++] = text[i];
    feed(t);
}

/* ---- local APICs ---- */

static void cpu_signal(void *opaque, enum lapic_signal what, unsigned arg)
{
    struct env_cpu *c = opaque;
    c->signals[what]++;
    if (what == LAPIC_SIPI)
        c->sipi_vector = arg;
}

static void cpu_timer(void *opaque)
{
    struct env_cpu *c = opaque;
    lapic_timer_expired(c->lapic);
}

static void cpu_arm(void *opaque, uint64_t ns)
{
    struct env_cpu *c = opaque;
    if (ns)
        timer_arm(&c->timer, ns);
    else
        timer_cancel(&c->timer);
}

/* 2 GHz. */
static uint64_t cpu_tsc(void *opaque)
{
    struct env_cpu *c = opaque;
    return clock_now(&c->env->clock) * 2;
}

void env_add_lapics(struct env *env, unsigned n, const struct lapic_set_config *cfg)
{
    env->lapics = lapic_set_new(cfg);
    for (unsigned i = 0; i < n; i++) {
        struct env_cpu *c = &env->cpu[i];
        c->env = env;
        timer_init(&c->timer, env->loop, &env->clock, cpu_timer, c);
        struct lapic_cpu cpu = {
            .opaque = c, .signal = cpu_signal, .arm_timer = cpu_arm, .tsc = cpu_tsc, .tsc_khz = 2000000};
        if (lapic_new(env->lapics, i, i == 0, &cpu, &c->lapic, NULL) < 0)
            abort();
        env_add(env, lapic_device(c->lapic));
    }
}

bool env_lapic_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    static const char *const signals[] = {"intr", "nmi", "init", "sipi", "smi"};
    if (argc == 3 && !strcmp(argv[0], "message")) {
        lapic_set_msi(env->lapics, env_number(argv[1]), (uint32_t)env_number(argv[2]));
        return true;
    }
    if (argc == 1 && !strcmp(argv[0], "eoi-broadcast")) {
        *ret = (uint64_t)env->last_eoi;
        env->last_eoi = 0;
        return true;
    }
    if (argc < 3 || strcmp(argv[0], "cpu"))
        return false;
    uint64_t n = env_number(argv[1]);
    if (n >= CPUS || !env->cpu[n].lapic)
        return false;
    struct env_cpu *c = &env->cpu[n];
    struct lapic *l = c->lapic;
    const char *word = argv[2];
    uint64_t a = argc > 3 && strcmp(word, "signals") ? env_number(argv[3]) : 0, b = argc > 4 ? env_number(argv[4]) : 0;
    if (!strcmp(word, "pending")) {
        *ret = (uint64_t)lapic_pending(l);
    } else if (!strcmp(word, "ack")) {
        *ret = (uint64_t)lapic_ack(l);
    } else if (!strcmp(word, "read")) {
        *ret = lapic_mmio_read(l, a & 0xfff, 4);
    } else if (!strcmp(word, "write")) {
        lapic_mmio_write(l, a & 0xfff, 4, (uint32_t)b);
    } else if (!strcmp(word, "rdmsr")) {
        if (a == 0x1b)
            *ret = lapic_base_msr(l);
        else if (a == 0x6e0)
            *ret = lapic_tsc_deadline(l);
        else if (lapic_msr_read(l, (uint32_t)a, ret) < 0)
            *ret = UINT64_MAX;
    } else if (!strcmp(word, "wrmsr")) {
        *ret = 0;
        if (a == 0x1b)
            *ret = (uint64_t)lapic_set_base_msr(l, b, 40);
        else if (a == 0x6e0)
            lapic_set_tsc_deadline(l, b);
        else
            *ret = (uint64_t)lapic_msr_write(l, (uint32_t)a, b);
    } else if (!strcmp(word, "cr8")) {
        if (argc > 3)
            lapic_set_cr8(l, (unsigned)a);
        *ret = lapic_cr8(l);
    } else if (!strcmp(word, "init")) {
        lapic_init_reset(l);
    } else if (!strcmp(word, "mmio-base")) {
        *ret = lapic_mmio_base(l);
    } else if (!strcmp(word, "sipi-vector")) {
        *ret = c->sipi_vector;
    } else if (!strcmp(word, "signals") && argc > 3) {
        for (unsigned i = 0; i < 5; i++) {
            if (!strcmp(argv[3], signals[i])) {
                *ret = c->signals[i];
                c->signals[i] = 0;
                return true;
            }
        }
        return false;
    } else {
        return false;
    }
    return true;
}

uint64_t env_lapic_fuzz(struct env *env, uint64_t r)
{
    static const uint16_t regs[] = {0x20,  0x80,  0xb0,  0xd0,  0xe0,  0xf0,  0x280, 0x300, 0x310,
                                    0x320, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3e0, 0x100, 0x200};
    struct env_cpu *c = &env->cpu[(r >> 8) % CPUS];
    if (!c->lapic)
        c = &env->cpu[0];
    struct lapic *l = c->lapic;
    unsigned reg = r >> 12 & 1 ? (r >> 16 & 0xfff) : regs[(r >> 16) % (sizeof regs / sizeof regs[0])];
    uint32_t val = (uint32_t)(r >> 32);
    if (r >> 13 & 1)
        val &= 0xcffff; /* small values make sense more often */
    uint64_t out = 0;
    switch (r & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
        lapic_mmio_write(l, reg, 4, val);
        return 0;
    case 4:
    case 5:
        return lapic_mmio_read(l, reg, 4);
    case 6:
    case 7:
        return (uint64_t)lapic_ack(l);
    case 8:
        return (uint64_t)lapic_pending(l);
    case 9:
        lapic_set_msi(env->lapics, 0xfee00000 | (r >> 40 & 0xfffff), val);
        return 0;
    case 10:
        return (uint64_t)lapic_msr_write(l, 0x800 + (reg >> 4), val) +
               (uint64_t)lapic_msr_read(l, 0x800 + (reg >> 4), &out) + out;
    case 11:
        /* EN and EXTD in every combination, mostly on */
        return (uint64_t)lapic_set_base_msr(l, 0xfee00000 | (r >> 20 & 0xc00) | (r >> 30 & 7 ? 0x800 : 0), 40);
    case 12:
        lapic_set_tsc_deadline(l, clock_now(&env->clock) * 2 + (val & 0xffff));
        return lapic_tsc_deadline(l);
    case 13:
        lapic_set_cr8(l, val & 15);
        return lapic_cr8(l);
    default:
        lapic_mmio_write(l, 0xf0, 4, 0x1ff);
        lapic_mmio_write(l, 0xb0, 4, 0);
        return lapic_mmio_base(l);
    }
}

/* ---- life ---- */

void env_add(struct env *env, struct device *dev)
{
    struct device **p = &env->devices;
    while (*p)
        p = &(*p)->next;
    *p = dev;
}

struct env *env_new(const char *name)
{
    struct env *env = xcalloc(1, sizeof *env);
    for (unsigned i = 0; env_kinds[i]; i++)
        if (!strcmp(env_kinds[i]->name, name))
            env->kind = env_kinds[i];
    if (!env->kind) {
        fprintf(stderr, "no chip '%s'\n", name);
        exit(2);
    }
    env->pio = bus_new("port", 0xffff);
    env->mmio = bus_new("memory", UINT64_MAX);
    if (loop_new(&env->loop, NULL) < 0)
        abort();
    clock_init_manual(&env->clock, 0);
    env->chr = (struct test_chardev){.base.ops = &chr_ops, .room = SIZE_MAX};
    env->kind->setup(env);
    return env;
}

void env_free(struct env *env)
{
    if (!env)
        return;
    while (env->devices) {
        struct device *d = env->devices;
        env->devices = d->next;
        device_free(d);
    }
    for (unsigned i = 0; i < CPUS; i++)
        timer_cancel(&env->cpu[i].timer);
    lapic_set_free(env->lapics);
    free(env->chip);
    mem_free(env->mem);
    bus_free(env->pio);
    bus_free(env->mmio);
    loop_free(env->loop);
    free(env);
}

void env_reset(struct env *env)
{
    for (struct device *d = env->devices; d; d = d->next)
        device_reset(d);
}

void env_save(struct env *env, struct state_writer *w)
{
    for (struct device *d = env->devices; d; d = d->next)
        if (d->type->state)
            state_save(w, d->type->state, d->id, d);
}

int env_load(struct env *env, const void *data, size_t len, struct err *err)
{
    struct state_reader r = {data, len, 0};
    for (struct device *d = env->devices; d; d = d->next) {
        int ret = d->type->state ? state_load(&r, d->type->state, d->id, d, err) : 0;
        if (ret < 0)
            return ret;
    }
    return 0;
}
