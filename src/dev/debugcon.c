/* Bytes come from vCPU threads; one lock. Only the line being made is kept, and it is no guest-visible state. */
#include "dev/debugcon.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

#define PRESENT 0xe9 /* what firmware reads where the port exists */
#define LINE_MAX_LEN 200

struct debugcon {
    struct device dev;
    struct debugcon_config cfg;
    pthread_mutex_t lock;
    char line[LINE_MAX_LEN + 1];
    unsigned len;
};

static void flush(struct debugcon *d)
{
    d->line[d->len] = 0;
    if (d->len)
        d->cfg.line(d->cfg.opaque, d->line);
    d->len = 0;
}

static uint64_t port_read(void *opaque, uint64_t off, unsigned size)
{
    return PRESENT;
}

static void port_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct debugcon *d = opaque;
    char c = (char)val;
    pthread_mutex_lock(&d->lock);
    if (c == '\n' || d->len == LINE_MAX_LEN)
        flush(d);
    if (c != '\n' && c != '\r')
        d->line[d->len++] = c >= ' ' && c < 127 ? c : '.';
    pthread_mutex_unlock(&d->lock);
}

static const struct bus_ops debugcon_ops = {port_read, port_write, 1, 1};

int debugcon_map(struct debugcon *d, struct bus *pio, uint16_t port, struct err *err)
{
    return bus_map(pio, "debugcon", port, 1, &debugcon_ops, d, err);
}

static void debugcon_reset(struct device *dev)
{
    struct debugcon *d = container_of(dev, struct debugcon, dev);
    pthread_mutex_lock(&d->lock);
    flush(d);
    pthread_mutex_unlock(&d->lock);
}

static void debugcon_destroy(struct device *dev)
{
    struct debugcon *d = container_of(dev, struct debugcon, dev);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

const struct device_type debugcon_type = {
    .name = "debugcon",
    .summary = "port for the messages of firmware",
    .reset = debugcon_reset,
    .destroy = debugcon_destroy,
};

void debugcon_new(const struct debugcon_config *cfg, struct debugcon **ret)
{
    struct debugcon *d = xcalloc(1, sizeof *d);
    device_init(&d->dev, &debugcon_type, cfg->id);
    pthread_mutex_init(&d->lock, NULL);
    d->cfg = *cfg;
    *ret = d;
}

struct device *debugcon_device(struct debugcon *d)
{
    return &d->dev;
}
