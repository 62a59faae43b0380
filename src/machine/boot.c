/*
 * Power-on and reset: with firmware, each CPU at its reset vector; else RAM below the kernel as it was, the loader's and the board's tables in memory, each CPU at its first
 * instruction. vCPUs are held.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/acpi_pm.h"
#include "machine/acpi.h"
#include "machine/machine.h"
#include "machine/pirq.h"
#include "machine/smbios.h"
#include "machine/tables.h"

#define RESET_VECTOR 0xffff0

static int set_cpus(struct vm *vm, const struct cpu_state *bsp, struct cpu_state *ap, struct err *err)
{
    cpu_state_reset(ap, false);
    int reset = vm->ops->irqchip_reset ? vm->ops->irqchip_reset(vm->engine, err) : 0;
    if (reset < 0)
        return reset;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        int code = vm->ops->set_state(vm->cpu[i].vcpu, i ? ap : bsp, err);
        if (code < 0) {
            err_prefix(err, "vCPU %u", i);
            return code;
        }
    }
    return 0;
}

/* ACPI tables lie at 0xe0000, SMBIOS at 0xf0000: where both are looked for without firmware. */
static int write_tables(struct vm *vm, gpa_t *ret_rsdp, struct err *err)
{
    struct acpi_config acpi;
    tables_acpi_config(vm, &acpi);
    int code = acpi_build(&acpi, vm->mem, ACPI_AREA_BASE, ACPI_AREA_SIZE, ret_rsdp, err);
    if (code < 0) {
        err_prefix(err, "ACPI tables");
        return code;
    }
    struct smbios_config smbios;
    tables_smbios_config(vm, &smbios);
    code = smbios_build(&smbios, vm->mem, err);
    if (code < 0)
        err_prefix(err, "SMBIOS tables");
    return MIN(code, 0);
}

/*
 * What a PC's firmware has at its reset vector, where an operating system jumps in real mode to reboot: the machine's
 * reset, by the port that both boards have. Linux does so where ACPI is hardware-reduced and there is no EFI, and with
 * reboot=bios.
 */
static int write_reset_vector(struct vm *vm, struct err *err)
{
    static const uint8_t code[] = {
        0xba, ACPI_RESET_PORT & 0xff, ACPI_RESET_PORT >> 8, /* mov dx, ACPI_RESET_PORT */
        0xb0, ACPI_RESET_VALUE,                             /* mov al, ACPI_RESET_VALUE */
        0xee,                                               /* out dx, al */
        0xf4,                                               /* hlt */
        0xeb, 0xfd,                                         /* jmp to the hlt */
    };
    int r = mem_write(vm->mem, RESET_VECTOR, code, sizeof code);
    return r < 0 ? err_set(err, r, "no memory at the reset vector") : 0;
}

/* The firmware does everything itself. */
static int start_firmware(struct vm *vm, struct err *err)
{
    autofree struct cpu_state *bsp = xcalloc(1, sizeof *bsp);
    autofree struct cpu_state *ap = xcalloc(1, sizeof *ap);
    cpu_state_reset(bsp, true);
    return set_cpus(vm, bsp, ap, err);
}

int boot_load(struct vm *vm, struct err *err)
{
    const struct domain *d = vm->domain;
    if (vm->firmware)
        return start_firmware(vm, err);
    struct e820_entry map[E820_MAX];
    unsigned n = e820_of_ram(vm->mem, map);
    map[n++] = (struct e820_entry){ECAM_BASE, ECAM_BUSES * MIB, E820_RESERVED};
    struct boot_info boot = {
        .mem = vm->mem,
        .kernel = d->os.kernel,
        .initrd = d->os.initrd,
        .cmdline = d->os.cmdline,
        .e820 = map,
        .n_e820 = n,
        .unpack = vm->slow,
    };
    int code = write_tables(vm, &boot.rsdp, err);
    if (code < 0 || (code = write_reset_vector(vm, err)) < 0)
        return code;
    if (vm->pci)
        pci_assign(vm->pci, PCI_MEM_BASE, PCI_MEM_END, 0xc000);
    if (vm->pirq)
        pirq_assign(vm->pirq);
    autofree struct cpu_state *bsp = xcalloc(1, sizeof *bsp);
    autofree struct cpu_state *ap = xcalloc(1, sizeof *ap);
    cpu_state_reset(bsp, true);
    if ((code = loader_load(&boot, bsp, err)) < 0)
        return code;
    return set_cpus(vm, bsp, ap, err);
}
