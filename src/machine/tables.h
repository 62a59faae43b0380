/* What firmware is told by fw_cfg and CMOS: ACPI and SMBIOS tables, memory map, boot order. For src/machine only. */
#ifndef LODGE_MACHINE_TABLES_H
#define LODGE_MACHINE_TABLES_H

#include "base/err.h"

struct vm;
struct acpi_config;
struct smbios_config;
struct firmware_tables;

/* The board's ACPI description and the domain's SMBIOS data. */
void tables_acpi_config(struct vm *vm, struct acpi_config *ret);
void tables_smbios_config(const struct vm *vm, struct smbios_config *ret);

/* Adds all items to vm->fw_cfg and fills vm->rtc's CMOS. */
int tables_add(struct vm *vm, struct firmware_tables **ret, struct err *err);
void tables_free(struct firmware_tables *t); /* NULL-safe */

#endif
