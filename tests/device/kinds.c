/* The chips under test, alone and wired together. */
#include "env.h"

#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/acpi_pm.h"
#include "dev/debugexit.h"
#include "dev/ioapic.h"
#include "dev/irqwire.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/uart.h"

static void must(int ret)
{
    if (ret < 0)
        abort();
}

/* ---- pic: outputs 0 = INT, inputs 0-15 ---- */

struct pic_box {
    struct pic *pic;
};

static void pic_setup(struct env *env)
{
    struct pic_box *b = env->chip = xcalloc(1, sizeof *b);
    pic_new(&(struct pic_config){.id = "pic", .intr = env_output(env, 0)}, &b->pic);
    must(pic_map(b->pic, env->pio, NULL));
    for (unsigned i = 0; i < 16; i++)
        env->input[i] = pic_irq(b->pic, i);
    env_add(env, pic_device(b->pic));
}

static bool pic_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    struct pic_box *b = env->chip;
    if (argc != 1 || strcmp(argv[0], "ack"))
        return false;
    *ret = (uint64_t)pic_ack(b->pic);
    return true;
}

static uint64_t pic_fuzz(struct env *env, uint64_t r)
{
    struct pic_box *b = env->chip;
    return (uint64_t)pic_ack(b->pic);
}

const struct env_kind kind_pic = {
    .name = "pic",
    .setup = pic_setup,
    .op = pic_op,
    .range = {{false, 0x20, 2}, {false, 0xa0, 2}, {false, 0x4d0, 2}},
    .inputs = 16,
    .fuzz = pic_fuzz,
};

/* ---- pit: output 0 = IRQ 0, input 0 = inhibit ---- */

static void pit_setup(struct env *env)
{
    struct pit *pit;
    pit_new(&(struct pit_config){.id = "pit", .loop = env->loop, .clock = &env->clock, .irq = env_output(env, 0)},
            &pit);
    must(pit_map(pit, env->pio, NULL));
    env->input[0] = pit_inhibit(pit);
    env_add(env, pit_device(pit));
}

const struct env_kind kind_pit = {
    .name = "pit", .setup = pit_setup, .range = {{false, 0x40, 4}, {false, 0x61, 1}}, .inputs = 1};

/* ---- ioapic at its usual place: inputs 0-23, messages recorded ---- */

struct ioapic_box {
    struct ioapic *io;
};

static void ioapic_setup(struct env *env)
{
    struct ioapic_box *b = env->chip = xcalloc(1, sizeof *b);
    ioapic_new(&(struct ioapic_config){.id = "ioapic", .apic_id = 4, .msi = env_msi_sink(env)}, &b->io);
    must(ioapic_map(b->io, env->mmio, IOAPIC_BASE, NULL));
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        env->input[i] = ioapic_irq(b->io, i);
    env_add(env, ioapic_device(b->io));
}

static bool ioapic_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    struct ioapic_box *b = env->chip;
    if (argc != 2 || strcmp(argv[0], "eoi"))
        return false;
    ioapic_eoi(b->io, (uint8_t)env_number(argv[1]));
    return true;
}

static uint64_t ioapic_fuzz(struct env *env, uint64_t r)
{
    struct ioapic_box *b = env->chip;
    ioapic_eoi(b->io, (uint8_t)r);
    return 0;
}

const struct env_kind kind_ioapic = {
    .name = "ioapic",
    .setup = ioapic_setup,
    .op = ioapic_op,
    .range = {{true, IOAPIC_BASE, 0x44}},
    .inputs = IOAPIC_PINS,
    .fuzz = ioapic_fuzz,
};

/* ---- four local APICs, ids 0-3: inputs 0 = LINT0, 1 = LINT1 of all ---- */

static int fake_extint(void *opaque)
{
    return 0x30;
}

static void record_eoi(void *opaque, uint8_t vector)
{
    struct env *env = opaque;
    env->last_eoi = vector;
}

static void lapic_setup(struct env *env)
{
    struct lapic_set_config cfg = {
        .clock = &env->clock, .extint_ack = fake_extint, .eoi = record_eoi, .eoi_opaque = env};
    env_add_lapics(env, CPUS, &cfg);
    env->input[0] = lapic_set_lint0(env->lapics);
    env->input[1] = lapic_set_lint1(env->lapics);
}

const struct env_kind kind_lapic = {
    .name = "lapic", .setup = lapic_setup, .op = env_lapic_op, .inputs = 2, .fuzz = env_lapic_fuzz};

/* ---- uart at 0x3f8: output 0 ---- */

static void uart_setup(struct env *env)
{
    struct uart *u;
    uart_new(&(struct uart_config){.id = "uart0",
                                   .loop = env->loop,
                                   .clock = &env->clock,
                                   .irq = env_output(env, 0),
                                   .chardev = &env->chr.base},
             &u);
    must(uart_map(u, env->pio, 0x3f8, 1, NULL));
    env_add(env, uart_device(u));
}

static bool uart_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    if (argc == 2 && !strcmp(argv[0], "room")) {
        env->chr.room = env_number(argv[1]);
        env->chr.base.frontend->writable(env->chr.base.opaque);
        return true;
    }
    if (argc == 1 && !strcmp(argv[0], "break")) {
        env->chr.base.frontend->event(env->chr.base.opaque, CHARDEV_BREAK);
        return true;
    }
    return false;
}

static uint64_t uart_fuzz(struct env *env, uint64_t r)
{
    char c = (char)(r >> 8);
    switch (r & 3) {
    case 0:
        env->chr.room = r >> 16 & 7;
        env->chr.base.frontend->writable(env->chr.base.opaque);
        return 0;
    case 1:
        env->chr.base.frontend->event(env->chr.base.opaque, CHARDEV_BREAK);
        return 0;
    default:
        if (env->chr.base.frontend->can_receive(env->chr.base.opaque))
            env->chr.base.frontend->receive(env->chr.base.opaque, (uint8_t *)&c, 1);
        return env->chr.out_len;
    }
}

const struct env_kind kind_uart = {
    .name = "uart", .setup = uart_setup, .op = uart_op, .range = {{false, 0x3f8, 8}}, .fuzz = uart_fuzz};

/*
 * ---- acpi: PM block at 0x600 and reset register at 0xcf9; output 0 = SCI ----
 * `event KIND` counts what was reported since last asked.
 */

struct acpi_box {
    struct acpi_pm *pm;
    unsigned poweroffs, resets;
};

static void acpi_event(void *opaque, enum acpi_pm_event event)
{
    struct acpi_box *b = opaque;
    if (event == ACPI_PM_POWEROFF)
        b->poweroffs++;
    else
        b->resets++;
}

static void acpi_setup(struct env *env)
{
    struct acpi_box *b = env->chip = xcalloc(1, sizeof *b);
    struct acpi_pm_config cfg = {.id = "pm",
                                 .loop = env->loop,
                                 .clock = &env->clock,
                                 .sci = env_output(env, 0),
                                 .s5_type = 5,
                                 .event = acpi_event,
                                 .opaque = b};
    acpi_pm_new(&cfg, &b->pm);
    must(acpi_pm_map(b->pm, env->pio, 0x600, NULL));
    must(acpi_pm_map_reset(b->pm, env->pio, NULL));
    env_add(env, acpi_pm_device(b->pm));
}

static uint64_t take(unsigned *n)
{
    unsigned v = *n;
    *n = 0;
    return v;
}

static bool acpi_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    struct acpi_box *b = env->chip;
    if (argc == 1 && !strcmp(argv[0], "power-button")) {
        acpi_pm_power_button(b->pm);
    } else if (argc == 1 && !strcmp(argv[0], "sleep-button")) {
        acpi_pm_sleep_button(b->pm);
    } else if (argc == 2 && !strcmp(argv[0], "gpe")) {
        acpi_pm_gpe(b->pm, (unsigned)env_number(argv[1]));
    } else if (argc == 2 && !strcmp(argv[0], "event")) {
        *ret = take(!strcmp(argv[1], "poweroff") ? &b->poweroffs : &b->resets);
    } else {
        return false;
    }
    return true;
}

static uint64_t acpi_fuzz(struct env *env, uint64_t r)
{
    struct acpi_box *b = env->chip;
    switch (r & 3) {
    case 0:
        acpi_pm_power_button(b->pm);
        break;
    case 1:
        break;
    case 2:
        acpi_pm_gpe(b->pm, r >> 8 & 0xff);
        break;
    }
    return 0;
}

const struct env_kind kind_acpi = {
    .name = "acpi",
    .setup = acpi_setup,
    .op = acpi_op,
    .range = {{false, 0x600, 0x40}, {false, 0xcf9, 1}},
    .fuzz = acpi_fuzz,
};

/* ---- isaports: debug-exit at 0xf4, pvpanic at 0x505, port 0x92 (output 0 = A20) ---- */

struct isaports_box {
    unsigned status, panics, resets;
};

static void isaports_exit(void *opaque, int status)
{
    ((struct isaports_box *)opaque)->status = (unsigned)status;
}
static void isaports_panic(void *opaque, unsigned events)
{
    ((struct isaports_box *)opaque)->panics |= events;
}
static void isaports_reset(void *opaque)
{
    ((struct isaports_box *)opaque)->resets++;
}

static void isaports_setup(struct env *env)
{
    struct isaports_box *b = env->chip = xcalloc(1, sizeof *b);
    struct debugexit *x;
    struct pvpanic *v;
    struct port92 *p;
    debugexit_new(&(struct debugexit_config){"exit", isaports_exit, b}, &x);
    must(debugexit_map(x, env->pio, DEBUGEXIT_PORT, NULL));
    pvpanic_new(&(struct pvpanic_config){"panic", isaports_panic, b}, &v);
    must(pvpanic_map(v, env->pio, PVPANIC_PORT, NULL));
    port92_new(&(struct port92_config){"port92", env_output(env, 0), isaports_reset, b}, &p);
    must(port92_map(p, env->pio, NULL));
    env_add(env, debugexit_device(x));
    env_add(env, pvpanic_device(v));
    env_add(env, port92_device(p));
}

static bool isaports_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    struct isaports_box *b = env->chip;
    if (argc != 2 || strcmp(argv[0], "event"))
        return false;
    if (!strcmp(argv[1], "exit"))
        *ret = take(&b->status);
    else if (!strcmp(argv[1], "panic"))
        *ret = take(&b->panics);
    else
        *ret = take(&b->resets);
    return true;
}

const struct env_kind kind_isaports = {
    .name = "isaports",
    .setup = isaports_setup,
    .op = isaports_op,
    .range = {{false, 0xf4, 4}, {false, 0x505, 1}, {false, 0x92, 1}},
};

/*
 * ---- pc: PIT, 8259s, I/O APIC and two local APICs wired as on a board ----
 * ISA line 0 (the PIT) goes to input 0 of the 8259 and pin 2 of the I/O APIC; inputs 1 and 3-15 go to both under their
 * number.
 */

struct pc_box {
    struct pic *pic;
    struct pit *pit;
    struct ioapic *io;
    struct irq_split isa[16];
};

static int pc_extint(void *opaque)
{
    return pic_ack(((struct pc_box *)opaque)->pic);
}

static void pc_eoi(void *opaque, uint8_t vector)
{
    ioapic_eoi(((struct pc_box *)opaque)->io, vector);
}

static void pc_setup(struct env *env)
{
    struct pc_box *b = env->chip = xcalloc(1, sizeof *b);
    struct lapic_set_config cfg = {
        .clock = &env->clock, .extint_ack = pc_extint, .extint_opaque = b, .eoi = pc_eoi, .eoi_opaque = b};
    env_add_lapics(env, 2, &cfg);
    pic_new(&(struct pic_config){.id = "pic", .intr = lapic_set_lint0(env->lapics)}, &b->pic);
    must(pic_map(b->pic, env->pio, NULL));
    ioapic_new(&(struct ioapic_config){.id = "ioapic", .apic_id = 2, .msi = lapic_set_msi_sink(env->lapics)}, &b->io);
    must(ioapic_map(b->io, env->mmio, IOAPIC_BASE, NULL));
    for (unsigned i = 0; i < 16; i++) {
        b->isa[i] = (struct irq_split){{pic_irq(b->pic, i), ioapic_irq(b->io, i ? i : 2)}, 2};
        if (i && i != 2) /* line 0 is the PIT, 2 the cascade */
            env->input[i] = irq_split(&b->isa[i]);
    }
    struct irq irq0 = irq_split(&b->isa[0]);
    pit_new(&(struct pit_config){.id = "pit", .loop = env->loop, .clock = &env->clock, .irq = irq0}, &b->pit);
    must(pit_map(b->pit, env->pio, NULL));
    env_add(env, pic_device(b->pic));
    env_add(env, ioapic_device(b->io));
    env_add(env, pit_device(b->pit));
}

const struct env_kind kind_pc = {
    .name = "pc",
    .setup = pc_setup,
    .op = env_lapic_op,
    .range = {{true, IOAPIC_BASE, 0x44}, {false, 0x20, 2}, {false, 0xa0, 2}, {false, 0x40, 4}},
    .inputs = 16,
    .fuzz = env_lapic_fuzz,
};
