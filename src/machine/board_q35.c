/*
 * A PC in the manner of Intel's Q35 chip set: PCI Express with ECAM, LPC bridge, ACPI fixed hardware, and the chips
 * that every operating system has drivers for.
 */
#include <string.h>

#include "base/log.h"
#include "dev/acpi_pm.h"
#include "dev/debugcon.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/pci_host.h"
#include "dev/pit.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/rtc.h"
#include "machine/chips.h"
#include "machine/pirq.h"
#include "machine/firmware.h"

#define PM_BASE 0x600
#define SCI 9
#define S5 5 /* SLP_TYP that powers off */

/* Where PIRQA..D arrive (pirq.c): with the I/O APIC, and with the 8259s only. */
static const unsigned intx_gsi[4] = {16, 17, 18, 19};
static const uint8_t intx_isa[4] = PIRQ_ISA;

/* ECAM lies where firmware puts it; without firmware, where our tables say. */
static void move_ecam(struct vm *vm, uint64_t pciexbar)
{
    static const unsigned sizes[4] = {256, 128, 64, 0}; /* MiB, a bus each */
    struct err err = {0};
    unsigned buses = sizes[pciexbar >> 1 & 3];
    uint64_t base = pciexbar & 1 && buses ? pciexbar & 0xffc000000 & ~(buses * MIB - 1) : 0;
    if (base == vm->ecam)
        return;
    if (vm->ecam)
        bus_unmap(vm->mmio, vm->ecam, vm->ecam_buses * MIB);
    vm->ecam = base;
    vm->ecam_buses = buses;
    if (base && pci_map_ecam(vm->pci, vm->mmio, base, buses, &err) < 0) {
        vm->ecam = 0;
        log_guest("PCIEXBAR: %s", err.msg);
    }
}

static void host_written(void *opaque, struct pci_dev *d, unsigned off, unsigned len)
{
    struct vm *vm = opaque;
    if (!vm->firmware)
        return;
    pthread_mutex_lock(&vm->host_lock);
    if (off < MCH_PAM0 + 7 && off + len > MCH_PAM0)
        firmware_set_pam(vm->firmware, &d->config[MCH_PAM0]);
    if (off < MCH_PCIEXBAR + 8 && off + len > MCH_PCIEXBAR)
        move_ecam(vm, le64_get(&d->config[MCH_PCIEXBAR]));
    pthread_mutex_unlock(&vm->host_lock);
}

static void lpc_written(void *opaque, struct pci_dev *d, unsigned off, unsigned len)
{
    struct vm *vm = opaque;
    if (off < LPC_PIRQA_ROUT + 4 && off + len > LPC_PIRQA_ROUT)
        pirq_route(vm->pirq, &d->config[LPC_PIRQA_ROUT]);
}

static int build_pci(struct vm *vm, struct err *err)
{
    struct irq intx[4];
    vm->pirq = pirq_new(vm);
    for (unsigned i = 0; i < 4; i++)
        intx[i] = pirq_line(vm->pirq, i);
    vm->pci = pci_bus_new(vm->pio, vm->mmio, &vm->msi, intx);
    struct pci_chip_config cfg = {.bus = vm->pci, .written = lpc_written, .opaque = vm};
    struct pci_chip_config host_cfg = {.bus = vm->pci, .written = host_written, .opaque = vm};
    struct pci_dev *host, *lpc;
    int code = pci_host_new(&host_cfg, &host, err);
    if (code < 0)
        return code;
    vm_add_device(vm, &host->dev);
    if ((code = pci_lpc_new(&cfg, &lpc, err)) < 0)
        return code;
    vm_add_device(vm, &lpc->dev);
    pci_set_reset_control(vm->pci, &acpi_pm_reset_ops, vm->pm);
    if ((code = pci_map_ports(vm->pci, vm->pio, err)) < 0)
        return code;
    if (firmware_wanted(vm->domain))
        return 0;
    vm->ecam = ECAM_BASE;
    vm->ecam_buses = ECAM_BUSES;
    return pci_map_ecam(vm->pci, vm->mmio, ECAM_BASE, ECAM_BUSES, err);
}

static void power_event(void *opaque, enum acpi_pm_event event)
{
    vm_want(opaque, event == ACPI_PM_POWEROFF ? WANT_POWEROFF : WANT_RESET);
}

static void power_button(struct vm *vm)
{
    acpi_pm_power_button(vm->pm);
}

static int build_pm(struct vm *vm, struct err *err)
{
    struct acpi_pm_config cfg = {
        .id = "pm",
        .loop = vm->loop,
        .clock = &vm->clock,
        .sci = vm_gsi(vm, SCI),
        .s5_type = S5,
        .event = power_event,
        .opaque = vm,
    };
    acpi_pm_new(&cfg, &vm->pm);
    vm_add_device(vm, acpi_pm_device(vm->pm));
    return acpi_pm_map(vm->pm, vm->pio, PM_BASE, err);
}

static bool has_timer(const struct domain *d, const char *name)
{
    for (unsigned i = 0; i < d->clock.n_timers; i++)
        if (!strcmp(d->clock.timers[i].name, name) && d->clock.timers[i].present == DOMAIN_OFF)
            return false;
    return true;
}

/* RTC, PIT and HPET. The HPET can take over the interrupts of the other two. */
static int build_timers(struct vm *vm, struct err *err)
{
    int code = chips_rtc(vm, acpi_pm_rtc(vm->pm), &vm->rtc, err);
    if (code < 0)
        return code;

    vm->inhibit_legacy = (struct irq_split){.out = {rtc_inhibit(vm->rtc)}, .n = 1};
    if (!vm->ops->kernel_irqchip) { /* the PIT comes with the kernel's interrupt controllers */
        struct pit_config cfg = {"pit", vm->loop, &vm->clock, vm_gsi(vm, 0)};
        pit_new(&cfg, &vm->pit);
        vm_add_device(vm, pit_device(vm->pit));
        if ((code = pit_map(vm->pit, vm->pio, err)) < 0)
            return code;
        vm->inhibit_legacy.out[vm->inhibit_legacy.n++] = pit_inhibit(vm->pit);
    }

    vm->has_hpet = has_timer(vm->domain, "hpet");
    if (!vm->has_hpet)
        return 0;
    struct hpet_config cfg = {
        .id = "hpet",
        .loop = vm->loop,
        .clock = &vm->clock,
        .legacy = {vm_gsi(vm, 0), vm_gsi(vm, 8)},
        .inhibit = irq_split(&vm->inhibit_legacy),
        .route_cap = 0x00f00000, /* pins 20-23 */
    };
    for (unsigned i = 20; i < 24; i++)
        cfg.gsi[i] = vm_gsi(vm, i);
    struct hpet *hpet;
    hpet_new(&cfg, &hpet);
    vm_add_device(vm, hpet_device(hpet));
    return hpet_map(hpet, vm->mmio, HPET_BASE, err);
}

static void panic_event(void *opaque, unsigned events)
{
    if (events & PVPANIC_PANICKED)
        vm_want(opaque, WANT_PANIC);
}

/* The 8042, system control port A, and pvpanic where the domain has it. */
static int build_isa(struct vm *vm, struct err *err)
{
    struct i8042_config kbd_cfg = {"i8042", vm_gsi(vm, 1), vm_gsi(vm, 12), {0}, chips_reset, vm};
    struct i8042 *kbd;
    i8042_new(&kbd_cfg, &kbd);
    vm_add_device(vm, i8042_device(kbd));
    display_add_ps2(vm, kbd);
    int code = i8042_map(kbd, vm->pio, err);
    if (code < 0)
        return code;
    struct port92_config port_cfg = {"port92", {0}, chips_reset, vm};
    struct port92 *port;
    port92_new(&port_cfg, &port);
    vm_add_device(vm, port92_device(port));
    if ((code = port92_map(port, vm->pio, err)) < 0 || !vm->domain->n_panics)
        return code;
    struct pvpanic_config panic_cfg = {"pvpanic", panic_event, vm};
    struct pvpanic *panic;
    pvpanic_new(&panic_cfg, &panic);
    vm_add_device(vm, pvpanic_device(panic));
    return pvpanic_map(panic, vm->pio, PVPANIC_PORT, err);
}

static int build_fw_cfg(struct vm *vm, struct err *err)
{
    struct fw_cfg_config cfg = {"fw_cfg", vm->mem};
    struct fw_cfg *f;
    fw_cfg_new(&cfg, &f);
    vm->fw_cfg = f;
    vm_add_device(vm, fw_cfg_device(f));
    int code = fw_cfg_add(f, FW_CFG_UUID, vm->domain->uuid, 16, err);
    if (code < 0 || (code = fw_cfg_add_u64(f, FW_CFG_RAM_SIZE, vm->mem->ram_size, err)) < 0 ||
        (code = fw_cfg_add_u16(f, FW_CFG_NB_CPUS, (uint16_t)vm->n_cpus, err)) < 0 ||
        (code = fw_cfg_add_u16(f, FW_CFG_MAX_CPUS, (uint16_t)vm->n_cpus, err)) < 0)
        return code;
    return fw_cfg_map(f, vm->pio, FW_CFG_PORT, err);
}

static void firmware_says(void *opaque, const char *line)
{
    log_debug("firmware: %s", line);
}

static int build_debugcon(struct vm *vm, struct err *err)
{
    struct debugcon_config cfg = {"debugcon", firmware_says, vm};
    struct debugcon *d;
    if (!firmware_wanted(vm->domain))
        return 0;
    debugcon_new(&cfg, &d);
    vm_add_device(vm, debugcon_device(d));
    return debugcon_map(d, vm->pio, DEBUGCON_PORT, err);
}

static int q35_build(struct vm *vm, struct err *err)
{
    int (*const steps[])(struct vm *, struct err *) = {
        build_pm,     build_pci,      display_build,   build_timers, build_isa,
        build_fw_cfg, build_debugcon, chips_debugexit, chips_uarts,
    };
    int code = chips_interrupts(vm, true, err);
    for (unsigned i = 0; i < ARRAY_SIZE(steps) && code >= 0; i++)
        code = steps[i](vm, err);
    return code;
}

static void q35_describe(struct vm *vm, struct acpi_config *acpi)
{
    acpi->has_8259 = true;
    acpi->override[acpi->n_overrides++] = (struct acpi_override){.irq = 0, .gsi = 2};
    acpi->override[acpi->n_overrides++] = (struct acpi_override){.irq = SCI, .gsi = SCI, .level = true};
    acpi->pci = true;
    acpi->ecam_base = vm->ecam ? vm->ecam : ECAM_BASE;
    acpi->ecam_buses = vm->ecam_buses ? vm->ecam_buses : ECAM_BUSES;
    acpi->mem32_first = PCI_MEM_BASE;
    acpi->mem32_last = PCI_MEM_END - 1;
    for (unsigned i = 0; i < 4; i++)
        acpi->intx_gsi[i] = intx_gsi[i], acpi->intx_isa[i] = intx_isa[i];
    acpi->pm1_evt = PM_BASE + ACPI_PM1_EVT;
    acpi->pm1_cnt = PM_BASE + ACPI_PM1_CNT;
    acpi->pm_timer = PM_BASE + ACPI_PM_TMR;
    acpi->gpe0 = PM_BASE + ACPI_PM_GPE0;
    acpi->gpe0_len = ACPI_PM_GPE0_LEN;
    acpi->sci = SCI;
    acpi->s5_type = S5;
    acpi->reset_port = ACPI_RESET_PORT;
    acpi->reset_value = ACPI_RESET_VALUE;
    acpi->uarts = vm->uarts;
    acpi->hpet_base = vm->has_hpet ? HPET_BASE : 0;
    acpi->rtc = true;
    acpi->i8042 = true;
    acpi->fw_cfg_port = FW_CFG_PORT;
    acpi->pvpanic_port = vm->domain->n_panics ? PVPANIC_PORT : 0;
}

const struct board board_q35 = {
    .name = "q35",
    .summary = "a PC with PCI Express, for every operating system",
    .build = q35_build,
    .describe = q35_describe,
    .power_button = power_button,
    .pci = true,
};
