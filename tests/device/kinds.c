/* The chips under test, alone and wired together. */
#include "env.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/acpi_pm.h"
#include "dev/debugcon.h"
#include "dev/debugexit.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/ioapic.h"
#include "dev/irqwire.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/rtc.h"
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
 * ---- acpi: PM block at 0x600 and reset register at 0xcf9; output 0 = SCI, input 0 = the RTC's line ----
 * `event KIND` counts what was reported since last asked.
 */

struct acpi_box {
    struct acpi_pm *pm;
    _Atomic unsigned poweroffs, resets;
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
    env->input[0] = acpi_pm_rtc(b->pm);
    env_add(env, acpi_pm_device(b->pm));
}

static uint64_t take(_Atomic unsigned *n)
{
    return atomic_exchange(n, 0);
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
    .inputs = 1,
    .fuzz = acpi_fuzz,
};

/* ---- isaports: debug-exit at 0xf4, pvpanic at 0x505, port 0x92 (output 0 = A20) ---- */

struct isaports_box {
    _Atomic unsigned status, panics, resets, lines;
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

static void isaports_line(void *opaque, const char *text)
{
    ((struct isaports_box *)opaque)->lines += (unsigned)strlen(text);
}

static void isaports_setup(struct env *env)
{
    struct isaports_box *b = env->chip = xcalloc(1, sizeof *b);
    struct debugexit *x;
    struct pvpanic *v;
    struct port92 *p;
    struct debugcon *c;
    debugcon_new(&(struct debugcon_config){"debugcon", isaports_line, b}, &c);
    must(debugcon_map(c, env->pio, DEBUGCON_PORT, NULL));
    env_add(env, debugcon_device(c));
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
    else if (!strcmp(argv[1], "text"))
        *ret = take(&b->lines);
    else
        *ret = take(&b->resets);
    return true;
}

const struct env_kind kind_isaports = {
    .name = "isaports",
    .setup = isaports_setup,
    .op = isaports_op,
    .range = {{false, 0xf4, 4}, {false, 0x505, 1}, {false, 0x92, 1}, {false, DEBUGCON_PORT, 1}},
};

/* ---- rtc: 2024-02-28 23:59:50 UTC at the start; output 0 = IRQ 8, 1 = alarm, input 0 = inhibit ---- */

static void rtc_setup(struct env *env)
{
    struct rtc *r;
    rtc_new(&(struct rtc_config){.id = "rtc",
                                 .loop = env->loop,
                                 .clock = &env->clock,
                                 .irq = env_output(env, 0),
                                 .alarm = env_output(env, 1),
                                 .start = 1709164790},
            &r);
    must(rtc_map(r, env->pio, NULL));
    rtc_set_cmos(r, 0x34, 0x12);
    env->input[0] = rtc_inhibit(r);
    env_add(env, rtc_device(r));
}

const struct env_kind kind_rtc = {.name = "rtc", .setup = rtc_setup, .range = {{false, 0x70, 2}}, .inputs = 1};

/* ---- hpet: outputs 0 and 1 = IRQ 0 and 8, 2 = inhibit, 20-23 = I/O APIC inputs ---- */

static void hpet_setup(struct env *env)
{
    struct hpet *h;
    struct hpet_config cfg = {.id = "hpet",
                              .loop = env->loop,
                              .clock = &env->clock,
                              .legacy = {env_output(env, 0), env_output(env, 1)},
                              .inhibit = env_output(env, 2),
                              .route_cap = 0x00f00000,
                              .msi = env_msi_sink(env)};
    for (unsigned i = 20; i < 24; i++)
        cfg.gsi[i] = env_output(env, i);
    hpet_new(&cfg, &h);
    must(hpet_map(h, env->mmio, HPET_BASE, NULL));
    env_add(env, hpet_device(h));
}

const struct env_kind kind_hpet = {.name = "hpet", .setup = hpet_setup, .range = {{true, HPET_BASE, 0x168}}};

/* ---- fw_cfg at 0x510 with 64 KiB of RAM; `ram ADDR` and `poke ADDR VAL` are 32 bits of it ---- */

static void fw_cfg_setup(struct env *env)
{
    struct fw_cfg *f;
    static const uint8_t big[300] = {1, 2, 3};
    must(mem_new(0x10000, 0x10000, &env->mem, NULL));
    fw_cfg_new(&(struct fw_cfg_config){"fw_cfg", env->mem}, &f);
    must(fw_cfg_map(f, env->pio, FW_CFG_PORT, NULL));
    must(fw_cfg_add_u16(f, FW_CFG_NB_CPUS, 4, NULL));
    must(fw_cfg_add_file(f, "etc/one", "first", 5, NULL));
    must(fw_cfg_add_file(f, "etc/two", big, sizeof big, NULL));
    if (fw_cfg_add_file(f, "etc/two", big, 1, NULL) >= 0 || fw_cfg_add_u32(f, FW_CFG_NB_CPUS, 1, NULL) >= 0)
        abort();
    env_add(env, fw_cfg_device(f));
}

static bool fw_cfg_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    uint32_t v = 0;
    if (argc == 2 && !strcmp(argv[0], "ram")) {
        must(mem_read32(env->mem, env_number(argv[1]), &v));
        *ret = v;
    } else if (argc == 3 && !strcmp(argv[0], "poke")) {
        must(mem_write32(env->mem, env_number(argv[1]), (uint32_t)env_number(argv[2])));
    } else {
        return false;
    }
    return true;
}

/* A mostly valid DMA descriptor, at a mostly valid place. */
static uint64_t fw_cfg_fuzz(struct env *env, uint64_t r)
{
    uint64_t desc = r & 0xff8;
    uint32_t control = (uint32_t)(r >> 12 & 0x1f) | (uint32_t)(r >> 20 & 0x23) << 16, v = 0;
    int ret = mem_write32(env->mem, desc, __builtin_bswap32(control));
    ret |= mem_write32(env->mem, desc + 4, __builtin_bswap32(r >> 26 & 0xfff));
    ret |= mem_write32(env->mem, desc + 8, 0);
    ret |= mem_write32(env->mem, desc + 12, __builtin_bswap32(r >> 40 & 0x1ffff));
    must(ret);
    bus_write(env->pio, 0x514, 4, 0);
    bus_write(env->pio, 0x518, 4, __builtin_bswap32((uint32_t)desc));
    must(mem_read32(env->mem, desc, &v));
    return v;
}

const struct env_kind kind_fw_cfg = {
    .name = "fw_cfg", .setup = fw_cfg_setup, .op = fw_cfg_op, .range = {{false, 0x510, 12}}, .fuzz = fw_cfg_fuzz};

/* ---- i8042: outputs 0 = IRQ 1, 1 = IRQ 12, 2 = A20 ---- */

struct i8042_box {
    struct i8042 *k;
    _Atomic unsigned resets;
};

static void i8042_pulse(void *opaque)
{
    ((struct i8042_box *)opaque)->resets++;
}

static void i8042_setup(struct env *env)
{
    struct i8042_box *b = env->chip = xcalloc(1, sizeof *b);
    i8042_new(
        &(struct i8042_config){"i8042", env_output(env, 0), env_output(env, 1), env_output(env, 2), i8042_pulse, b},
        &b->k);
    must(i8042_map(b->k, env->pio, NULL));
    env_add(env, i8042_device(b->k));
}

static bool i8042_op(struct env *env, int argc, char **argv, uint64_t *ret)
{
    struct i8042_box *b = env->chip;
    if (argc == 1 && !strcmp(argv[0], "resets")) {
        *ret = take(&b->resets);
    } else if (argc >= 2 && !strcmp(argv[0], "keys")) {
        uint8_t codes[16];
        for (int i = 1; i < argc; i++)
            codes[i - 1] = (uint8_t)env_number(argv[i]);
        i8042_keys(b->k, codes, (unsigned)argc - 1);
    } else if (argc == 5 && !strcmp(argv[0], "mouse")) {
        i8042_mouse(b->k, atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), (unsigned)env_number(argv[4]));
    } else {
        return false;
    }
    return true;
}

static uint64_t i8042_fuzz(struct env *env, uint64_t r)
{
    struct i8042_box *b = env->chip;
    uint8_t codes[3] = {0xe0, 0xf0, (uint8_t)(r >> 8)};
    if (r & 1)
        i8042_keys(b->k, codes + (r >> 1) % 3, 3 - (r >> 1) % 3);
    else
        i8042_mouse(b->k, (int)(r >> 8 & 0x3ff) - 512, (int)(r >> 20 & 0x3ff) - 512, (int)(r >> 32 & 15) - 8,
                    r >> 40 & 7);
    return 0;
}

const struct env_kind kind_i8042 = {.name = "i8042",
                                    .setup = i8042_setup,
                                    .op = i8042_op,
                                    .range = {{false, 0x60, 1}, {false, 0x64, 1}},
                                    .fuzz = i8042_fuzz};

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
