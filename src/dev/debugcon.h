/*
 * The debug console of firmware: a port to which SeaBIOS and OVMF write what they do. Lines go to `line`, which the
 * board gives to the log.
 */
#ifndef LODGE_DEV_DEBUGCON_H
#define LODGE_DEV_DEBUGCON_H

#include "dev/bus.h"
#include "dev/device.h"

#define DEBUGCON_PORT 0x402

struct debugcon;

struct debugcon_config {
    const char *id;
    /* A line without its end, of printable characters. On the vCPU's thread, with the device's lock held. */
    void (*line)(void *opaque, const char *text);
    void *opaque;
};

void debugcon_new(const struct debugcon_config *cfg, struct debugcon **ret);
struct device *debugcon_device(struct debugcon *d);
int debugcon_map(struct debugcon *d, struct bus *pio, uint16_t port, struct err *err);

extern const struct device_type debugcon_type;

#endif
