/*
 * Parallel NOR flash with Intel's command set and CFI (JEDEC JESD68, Intel AP-646): where UEFI firmware keeps its
 * variables. Bytes are programmed and blocks erased by commands; everything else reads.
 */
#ifndef LODGE_DEV_PFLASH_H
#define LODGE_DEV_PFLASH_H

#include "dev/bus.h"
#include "dev/device.h"

#define PFLASH_MAX (1u << 20) /* bytes */
#define PFLASH_BLOCK 4096u

struct pflash;

struct pflash_config {
    const char *id;
    const uint8_t *data; /* what it holds at first, `size` bytes */
    uint32_t size;       /* of whole blocks, at most PFLASH_MAX */
    int fd;              /* keeps what is written; the device closes it. -1: nothing does */
};

/* -EINVAL for a size that cannot be. */
int pflash_new(const struct pflash_config *cfg, struct pflash **ret, struct err *err);
struct device *pflash_device(struct pflash *p);
int pflash_map(struct pflash *p, struct bus *mmio, uint64_t base, struct err *err);

extern const struct device_type pflash_type;

#endif
