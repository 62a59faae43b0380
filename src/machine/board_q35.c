/*
 * A PC in the manner of Intel's Q35 chip set: PCI Express with ECAM, LPC bridge, ACPI fixed hardware, and the chips that every
 * operating system has drivers for.
 */
#include "dev/acpi_pm.h"
#include "dev/pci_host.h"
#include "machine/chips.h"

#define PM_BASE 0x600
#define SCI 9
#define S5 5 /* SLP_TYP that powers off */
#define FW_CFG_PORT 0x510

/* PIRQA..D arrive at I/O APIC pins 16..19, as on the real chip set. */
static const unsigned intx_gsi[4] = {16, 17, 18, 19};

static int build_pci(struct vm *vm, struct err *err)
{
    struct irq intx[4];
    for (unsigned i = 0; i < 4; i++)
        intx[i] = vm_gsi(vm, intx_gsi[i]);
    vm->pci = pci_bus_new(vm->pio, vm->mmio, &vm->msi, intx);
    struct pci_chip_config cfg = {.bus = vm->pci};
    struct pci_dev *host, *lpc;
    int code = pci_host_new(&cfg, &host, err);
    if (code < 0)
        return code;
    vm_add_device(vm, &host->dev);
    if ((code = pci_lpc_new(&cfg, &lpc, err)) < 0)
        return code;
    vm_add_device(vm, &lpc->dev);
    pci_set_reset_control(vm->pci, &acpi_pm_reset_ops, vm->pm);
    if ((code = pci_map_ports(vm->pci, vm->pio, err)) < 0)
        return code;
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

static int q35_build(struct vm *vm, struct err *err)
{
    int code = chips_interrupts(vm, true, err);
    if (code < 0 || (code = build_pm(vm, err)) < 0 || (code = build_pci(vm, err)) < 0)
        return code;
    if ((code = chips_debugexit(vm, err)) < 0)
        return code;
    return chips_uarts(vm, err);
}

static void q35_describe(struct vm *vm, struct acpi_config *acpi)
{
    acpi->has_8259 = true;
    acpi->override[acpi->n_overrides++] = (struct acpi_override){.irq = 0, .gsi = 2};
    acpi->override[acpi->n_overrides++] = (struct acpi_override){.irq = SCI, .gsi = SCI, .level = true};
    acpi->pci = true;
    acpi->ecam_base = ECAM_BASE;
    acpi->ecam_buses = ECAM_BUSES;
    acpi->mem32_first = PCI_MEM_BASE;
    acpi->mem32_last = PCI_MEM_END - 1;
    for (unsigned i = 0; i < 4; i++)
        acpi->intx_gsi[i] = intx_gsi[i];
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
}

const struct board board_q35 = {
    .name = "q35",
    .summary = "a PC with PCI Express, for every operating system",
    .build = q35_build,
    .describe = q35_describe,
    .power_button = power_button,
    .pci = true,
};
