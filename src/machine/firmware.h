/*
 * Firmware: SeaBIOS or OVMF as Debian ships them, and what they ask the machine for: ROM below 4 GiB, shadow RAM below
 * 1 MiB, tables and settings by fw_cfg and CMOS. For src/machine only; built after all devices are there.
 */
#ifndef LODGE_MACHINE_FIRMWARE_H
#define LODGE_MACHINE_FIRMWARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "domain/domain.h"

struct vm;
struct firmware;

/* Does this domain start by firmware? A kernel alone is loaded by us. */
bool firmware_wanted(const struct domain *d);
/* Makes the ROMs and vm->firmware. The board has vm->fw_cfg and vm->rtc. */
int firmware_new(struct vm *vm, struct err *err);
bool firmware_is_efi(const struct domain *d);
/* nvram.c: the code's image, and the flash below its `code_size` bytes at the top of 4 GiB. */
const char *nvram_code(const struct domain *d);
int nvram_new(struct vm *vm, uint64_t code_size, struct err *err);
/* Everything for fw_cfg that depends on the devices. After firmware_new() and all devices. */
int firmware_describe(struct vm *vm, struct err *err);
/* Reads a file of whole `unit`s, at most `max` bytes; the caller frees it. `what` for messages. */
int firmware_read(const char *what, const char *path, uint64_t max, unsigned unit, uint8_t **ret, uint64_t *ret_size,
                  struct err *err);
void firmware_free(struct firmware *fw); /* NULL-safe */

/* PAM0…PAM6 of the host bridge: what the guest sees from 0xc0000 to 1 MiB (Q35 data sheet 5.1.20). Any vCPU thread. */
void firmware_set_pam(struct firmware *fw, const uint8_t pam[7]);

/* bootorder.c: what firmware tries first, one Open Firmware path a line; NULL when the domain has no order. */
char *boot_order(const struct vm *vm);

#endif
