/* No state and no lock: a write is reported on the vCPU's thread. */
#include "dev/pvpanic.h"

#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

#define KNOWN (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

struct pvpanic {
    struct device dev;
    struct pvpanic_config cfg;
};

static uint64_t port_read(void *opaque, uint64_t off, unsigned size)
{
    return KNOWN;
}

static void port_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct pvpanic *p = opaque;
    if (val & KNOWN)
        p->cfg.event(p->cfg.opaque, val & KNOWN);
}

static const struct bus_ops pvpanic_ops = {port_read, port_write, 1, 1};

int pvpanic_map(struct pvpanic *p, struct bus *pio, uint16_t base, struct err *err)
{
    return bus_map(pio, "pvpanic", base, 1, &pvpanic_ops, p, err);
}

static void pvpanic_destroy(struct device *dev)
{
    free(container_of(dev, struct pvpanic, dev));
}

const struct device_type pvpanic_type = {
    .name = "pvpanic",
    .summary = "port on which a guest reports that it crashed",
    .destroy = pvpanic_destroy,
};

void pvpanic_new(const struct pvpanic_config *cfg, struct pvpanic **ret)
{
    struct pvpanic *p = xcalloc(1, sizeof *p);
    device_init(&p->dev, &pvpanic_type, cfg->id);
    p->cfg = *cfg;
    *ret = p;
}

struct device *pvpanic_device(struct pvpanic *p)
{
    return &p->dev;
}
