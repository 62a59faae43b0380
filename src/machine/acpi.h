/*
 * ACPI tables (ACPI 6.5): RSDP, XSDT, FADT, FACS, MADT, MCFG, HPET, WAET and a DSDT, written into guest RAM where no
 * firmware runs, else given to the firmware, which places them. The board describes itself in struct acpi_config; what is 0 is not there. Main thread, at
 * start and after every reset.
 */
#ifndef LODGE_MACHINE_ACPI_H
#define LODGE_MACHINE_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/mem.h"

#define ACPI_MMIO_DEVICES_MAX 64
#define ACPI_OVERRIDES_MAX 8

struct acpi_mmio_device {
    uint64_t base; /* below 4 GiB */
    uint32_t size;
    unsigned gsi;
};

/* An ISA interrupt that arrives somewhere else, or is not edge-triggered and active high (MADT, 5.2.12.5). */
struct acpi_override {
    uint8_t irq;
    uint32_t gsi;
    bool level; /* level-triggered, active high */
};

struct acpi_config {
    unsigned cpus;
    uint32_t (*apic_id)(void *opaque, unsigned cpu); /* NULL: the vCPU's number */
    void *opaque;

    uint32_t lapic_base;  /* 0: 0xfee00000 */
    uint32_t ioapic_base; /* 0: 0xfec00000 */
    uint8_t ioapic_id;
    bool has_8259;
    struct acpi_override override[ACPI_OVERRIDES_MAX];
    unsigned n_overrides;

    /* PCI root: ECAM and windows. */
    bool pci;
    uint64_t ecam_base;
    unsigned ecam_buses;
    uint32_t mem32_first, mem32_last;
    uint64_t mem64_first, mem64_last;
    unsigned intx_gsi[4]; /* PIRQA…D; slot s pin p is line (s + p) % 4 */
    unsigned intx_isa[4]; /* the same for a system that uses the 8259s */

    uint64_t hpet_base;

    /* Fixed hardware (4.8): I/O ports. Power and sleep buttons are the fixed ones in PM1. */
    uint16_t pm1_evt;  /* 4 bytes: status, enable */
    uint16_t pm1_cnt;  /* 2 bytes */
    uint16_t pm_timer; /* 4 bytes; 0: none */
    uint16_t gpe0;     /* gpe0_len bytes; 0: none */
    uint8_t gpe0_len;
    uint8_t sci;      /* interrupt, 9 */
    uint16_t smi_cmd; /* 0: always in ACPI mode */
    uint8_t acpi_enable, acpi_disable;
    uint8_t s5_type;     /* SLP_TYP that powers off */
    uint16_t reset_port; /* 0xcf9; 0: none */
    uint8_t reset_value;

    /*
     * Instead of fixed hardware (hardware-reduced ACPI, 4.1): sleep control and status registers, one byte each, and a
     * Generic Event Device (5.6.9): interrupt `ged_gsi`, and a 32-bit register at `ged_base` that reads 1: power
     * button, 2: sleep button, and clears.
     */
    bool hw_reduced;
    uint64_t sleep_control, sleep_status; /* MMIO addresses */
    uint64_t ged_base;
    unsigned ged_gsi;

    /* Devices in the DSDT. */
    bool rtc;       /* ports 0x70-0x71, IRQ 8 */
    bool i8042;     /* ports 0x60, 0x64, IRQ 1 and 12 */
    unsigned uarts; /* COM1… in the usual places: bits 0-3 */
    uint16_t pvpanic_port;
    uint16_t fw_cfg_port; /* 12 bytes */
    struct acpi_mmio_device virtio_mmio[ACPI_MMIO_DEVICES_MAX];
    unsigned n_virtio_mmio;
};

/* Space that boards keep for the tables, reserved in the memory map: the PC's BIOS area below SMBIOS. */
#define ACPI_AREA_BASE 0xe0000
#define ACPI_AREA_SIZE 0x10000

/* All tables but the RSDP, as they lie in memory from one address on. */
#define ACPI_POINTERS_MAX 32
#define ACPI_TABLES_MAX 16
#define ACPI_RSDP_SIZE 36
struct acpi_pointer {
    uint32_t at; /* offset in the image of an address into the image */
    uint8_t size;
};
struct acpi_span {
    uint32_t start, len; /* a table with the common header; its checksum is byte 9 */
};
struct acpi_image {
    uint8_t *data;
    size_t len;
    gpa_t xsdt;
    struct acpi_pointer pointer[ACPI_POINTERS_MAX];
    unsigned n_pointers;
    struct acpi_span table[ACPI_TABLES_MAX];
    unsigned n_tables;
};
/* Makes the image for address `base`, at most `max` bytes. The caller frees it, also after a failure. -ENOSPC. */
int acpi_make(const struct acpi_config *cfg, gpa_t base, uint64_t max, struct acpi_image *ret, struct err *err);
void acpi_image_free(struct acpi_image *img);
void acpi_rsdp(uint8_t ret[ACPI_RSDP_SIZE], gpa_t xsdt);

/* Writes the tables into [base, base+size) of guest memory. *ret_rsdp: for the kernel. -ENOSPC, -EFAULT. */
int acpi_build(const struct acpi_config *cfg, struct mem *mem, gpa_t base, uint64_t size, gpa_t *ret_rsdp,
               struct err *err);

#endif
