/*
 * The micro board: what a modern kernel needs and nothing else. APICs, a UART if the domain has one, virtio-mmio, ACPI without fixed
 * hardware, and an RTC: without one Linux waits a second for it at every boot and then lives in 1970. The guest's time comes from the TSC (CPUID says its frequency) and the APIC timer.
 */
#include "dev/ged.h"
#include "machine/chips.h"

#define GED_BASE 0xfea00000ull
#define GED_GSI 9

static void power_button(struct vm *vm)
{
    ged_power_button(vm->ged);
}

static int micro_build(struct vm *vm, struct err *err)
{
    int code = chips_interrupts(vm, false, err);
    if (code < 0)
        return code;
    struct ged_config cfg = {"ged", vm_gsi(vm, GED_GSI), chips_poweroff, chips_reset, vm};
    ged_new(&cfg, &vm->ged);
    vm_add_device(vm, ged_device(vm->ged));
    struct rtc *rtc;
    if ((code = chips_rtc(vm, (struct irq){0}, &rtc, err)) < 0)
        return code;
    if ((code = ged_map(vm->ged, vm->mmio, GED_BASE, vm->pio, err)) < 0 || (code = chips_debugexit(vm, err)) < 0)
        return code;
    return chips_uarts(vm, err);
}

static void micro_describe(struct vm *vm, struct acpi_config *acpi)
{
    acpi->hw_reduced = true;
    acpi->sleep_control = GED_BASE + GED_SLEEP_CONTROL;
    acpi->sleep_status = GED_BASE + GED_SLEEP_STATUS;
    acpi->ged_base = GED_BASE + GED_EVENTS;
    acpi->ged_gsi = GED_GSI;
    acpi->reset_port = GED_RESET_PORT;
    acpi->reset_value = GED_RESET_VALUE;
    acpi->s5_type = GED_S5;
    acpi->uarts = vm->uarts;
    acpi->rtc = true;
    for (unsigned i = 0; i < vm->mmio_slots; i++)
        acpi->virtio_mmio[acpi->n_virtio_mmio++] = (struct acpi_mmio_device){
            VIRTIO_MMIO_BASE + i * VIRTIO_MMIO_STRIDE, VIRTIO_MMIO_STRIDE, attach_mmio_gsi(i)};
}

const struct board board_micro = {
    .name = "micro",
    .summary = "virtio-mmio and a UART, for kernels that need no PC",
    .build = micro_build,
    .describe = micro_describe,
    .power_button = power_button,
};
