/* No state and no lock: a write is reported on the vCPU's thread. */
#include "dev/debugexit.h"

#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

struct debugexit {
    struct device dev;
    struct debugexit_config cfg;
};

static uint64_t port_read(void *opaque, uint64_t off, unsigned size)
{
    return 0;
}

static void port_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct debugexit *d = opaque;
    d->cfg.exit(d->cfg.opaque, (int)((val << 1 | 1) & 0xff));
}

static const struct bus_ops debugexit_ops = {port_read, port_write, 1, 4};

int debugexit_map(struct debugexit *d, struct bus *pio, uint16_t base, struct err *err)
{
    return bus_map(pio, "debug-exit", base, 4, &debugexit_ops, d, err);
}

static void debugexit_destroy(struct device *dev)
{
    free(container_of(dev, struct debugexit, dev));
}

const struct device_type debugexit_type = {
    .name = "debug-exit",
    .summary = "port with which a test kernel ends the machine",
    .destroy = debugexit_destroy,
};

void debugexit_new(const struct debugexit_config *cfg, struct debugexit **ret)
{
    struct debugexit *d = xcalloc(1, sizeof *d);
    device_init(&d->dev, &debugexit_type, cfg->id);
    d->cfg = *cfg;
    *ret = d;
}

struct device *debugexit_device(struct debugexit *d)
{
    return &d->dev;
}
