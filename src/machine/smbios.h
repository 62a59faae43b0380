/*
 * SMBIOS 3.0 tables (DMTF DSP0134): types 0, 1, 3, 4, 16, 17, 19, 32, 127, with the 64-bit entry point where guests
 * look for it without firmware, in [0xf0000, 1 MiB). Main thread, at start and after every reset.
 */
#ifndef LODGE_MACHINE_SMBIOS_H
#define LODGE_MACHINE_SMBIOS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/mem.h"

struct smbios_config {
    const char *manufacturer, *product, *version, *serial; /* of the system; NULL: our own, or none */
    uint8_t uuid[16];                                      /* in text order */
    unsigned sockets, cores, threads;                      /* cores and threads of one socket; 0: 1 */
    uint32_t cpu_signature, cpu_features;                  /* CPUID 1 EAX and EDX, 0 unknown */
};

#define SMBIOS_AREA_BASE 0xf0000
#define SMBIOS_AREA_SIZE 0x10000

/* The structures, and the entry point for them at address `at`. -ENOSPC. */
#define SMBIOS_IMAGE_MAX 4096
#define SMBIOS_ENTRY_SIZE 24
struct smbios_image {
    uint8_t entry[SMBIOS_ENTRY_SIZE];
    uint8_t data[SMBIOS_IMAGE_MAX];
    size_t len;
};
int smbios_make(const struct smbios_config *cfg, const struct mem *mem, gpa_t at, struct smbios_image *ret, struct err *err);
/* Writes them where guests look without firmware. -ENOSPC, -EFAULT. */
int smbios_build(const struct smbios_config *cfg, struct mem *mem, struct err *err);

#endif
