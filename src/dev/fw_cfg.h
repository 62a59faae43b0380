/*
 * fw_cfg: how firmware and Linux fetch tables and files from the machine, through a selector and a data port or by DMA
 * (qemu/docs/specs/fw_cfg describes the same interface). The board adds items; all are read-only for the guest.
 */
#ifndef LODGE_DEV_FW_CFG_H
#define LODGE_DEV_FW_CFG_H

#include "dev/bus.h"
#include "dev/device.h"
#include "mem/mem.h"

#define FW_CFG_PORT 0x510
#define FW_CFG_PORTS 12

/* Keys with a fixed meaning. */
enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_IRQ0_OVERRIDE = 0x8002,
    FW_CFG_E820 = 0x8003,
    FW_CFG_HPET = 0x8004,
};

struct fw_cfg;

struct fw_cfg_config {
    const char *id;
    struct mem *mem; /* for DMA */
};

void fw_cfg_new(const struct fw_cfg_config *cfg, struct fw_cfg **ret);
struct device *fw_cfg_device(struct fw_cfg *f);
/* Selector 0x510 (16 bits), data 0x511, DMA address 0x514-0x51b. */
int fw_cfg_map(struct fw_cfg *f, struct bus *pio, uint16_t base, struct err *err);

/*
 * Items, before the first vCPU runs. The data is copied. -EEXIST for a key or name that is taken, -ENOSPC, -EINVAL (a
 * name of 56 bytes or more, more than 4 GiB).
 */
int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len, struct err *err);
int fw_cfg_add_u16(struct fw_cfg *f, uint16_t key, uint16_t val, struct err *err);
int fw_cfg_add_u32(struct fw_cfg *f, uint16_t key, uint32_t val, struct err *err);
int fw_cfg_add_u64(struct fw_cfg *f, uint16_t key, uint64_t val, struct err *err);
/* A file of the directory: "etc/acpi/tables", "opt/…". */
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len, struct err *err);

/*
 * A file whose contents (never its size) may change while the guest runs: `make` is called when the guest selects it, on
 * a vCPU's thread with the lock held, to bring `data` up to date.
 */
int fw_cfg_add_made(struct fw_cfg *f, const char *name, const void *data, size_t len,
                    void (*make)(void *opaque, uint8_t *data, uint32_t len), void *opaque, struct err *err);

extern const struct device_type fw_cfg_type;

#endif
