/* pvpanic: an ISA port on which a guest says that its kernel has crashed (qemu/docs/specs/pvpanic describes the same
 * interface). */
#ifndef LODGE_DEV_PVPANIC_H
#define LODGE_DEV_PVPANIC_H

#include "dev/bus.h"
#include "dev/device.h"

#define PVPANIC_PORT 0x505

enum { PVPANIC_PANICKED = 1, PVPANIC_CRASH_LOADED = 2 };

struct pvpanic;

struct pvpanic_config {
    const char *id;
    /* On the vCPU's thread. `events`: the known bits that the guest wrote, at least one. */
    void (*event)(void *opaque, unsigned events);
    void *opaque;
};

void pvpanic_new(const struct pvpanic_config *cfg, struct pvpanic **ret);
struct device *pvpanic_device(struct pvpanic *p);
int pvpanic_map(struct pvpanic *p, struct bus *pio, uint16_t base, struct err *err);

extern const struct device_type pvpanic_type;

#endif
