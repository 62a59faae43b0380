/* Between acpi.c (tables) and acpi_dsdt.c (the one in AML). */
#ifndef LODGE_MACHINE_ACPI_PRIV_H
#define LODGE_MACHINE_ACPI_PRIV_H

#include "machine/acpi.h"
#include "machine/aml.h"

/* Appends the DSDT's body. */
void acpi_dsdt(struct aml *a, const struct acpi_config *c);

#endif
