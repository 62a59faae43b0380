/* ISA debug-exit port: a guest (a test kernel) ends the machine by writing a number. */
#ifndef LODGE_DEV_DEBUGEXIT_H
#define LODGE_DEV_DEBUGEXIT_H

#include "dev/bus.h"
#include "dev/device.h"

#define DEBUGEXIT_PORT 0xf4 /* where test kernels expect it */

struct debugexit;

struct debugexit_config {
    const char *id;
    /* On the vCPU's thread. `status`: the exit status by the port's convention, (value << 1 | 1) & 0xff. */
    void (*exit)(void *opaque, int status);
    void *opaque;
};

void debugexit_new(const struct debugexit_config *cfg, struct debugexit **ret);
struct device *debugexit_device(struct debugexit *d);
/* Four ports from `base`. */
int debugexit_map(struct debugexit *d, struct bus *pio, uint16_t base, struct err *err);

extern const struct device_type debugexit_type;

#endif
