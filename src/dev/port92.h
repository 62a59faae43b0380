/* System control port A (0x92) of the PS/2 and later: fast A20 gate and fast reset. */
#ifndef LODGE_DEV_PORT92_H
#define LODGE_DEV_PORT92_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

struct port92;

struct port92_config {
    const char *id;
    struct irq a20;              /* 1: address line 20 passes (always at reset; optional) */
    void (*reset)(void *opaque); /* on the vCPU's thread, no lock held: note it, the vCPU goes on */
    void *opaque;
};

void port92_new(const struct port92_config *cfg, struct port92 **ret);
struct device *port92_device(struct port92 *p);
int port92_map(struct port92 *p, struct bus *pio, struct err *err);

extern const struct device_type port92_type;

#endif
