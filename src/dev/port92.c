/* One byte of state, touched by vCPU threads; the lock keeps the A20 line in step. A20 is open after reset, as firmware
 * leaves it. */
#include "dev/port92.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

enum { FAST_RESET = 1, A20 = 2 };

struct port92 {
    struct device dev;
    struct port92_config cfg;
    pthread_mutex_t lock;
    uint8_t val;
};

static uint64_t port_read(void *opaque, uint64_t off, unsigned size)
{
    struct port92 *p = opaque;
    pthread_mutex_lock(&p->lock);
    uint8_t val = p->val;
    pthread_mutex_unlock(&p->lock);
    return val;
}

static void port_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct port92 *p = opaque;
    pthread_mutex_lock(&p->lock);
    uint8_t old = p->val;
    p->val = (uint8_t)val;
    irq_set(p->cfg.a20, (val & A20) != 0);
    pthread_mutex_unlock(&p->lock);
    if ((val & FAST_RESET) && !(old & FAST_RESET) && p->cfg.reset)
        p->cfg.reset(p->cfg.opaque);
}

static const struct bus_ops port92_ops = {port_read, port_write, 1, 1};

int port92_map(struct port92 *p, struct bus *pio, struct err *err)
{
    return bus_map(pio, "port92", 0x92, 1, &port92_ops, p, err);
}

static void port92_reset(struct device *dev)
{
    struct port92 *p = container_of(dev, struct port92, dev);
    pthread_mutex_lock(&p->lock);
    p->val = A20;
    irq_set(p->cfg.a20, 1);
    pthread_mutex_unlock(&p->lock);
}

static void port92_destroy(struct device *dev)
{
    struct port92 *p = container_of(dev, struct port92, dev);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int port92_post_load(void *obj, uint32_t version, struct err *err)
{
    struct port92 *p = obj;
    irq_set(p->cfg.a20, (p->val & A20) != 0);
    return 0;
}

static const struct state_field port92_fields[] = {STATE_U(struct port92, val), STATE_END};
static const struct state_desc port92_state = {"port92", 1, 1, port92_fields, NULL, port92_post_load};

const struct device_type port92_type = {
    .name = "port92",
    .summary = "fast A20 gate and reset",
    .state = &port92_state,
    .reset = port92_reset,
    .destroy = port92_destroy,
};

void port92_new(const struct port92_config *cfg, struct port92 **ret)
{
    struct port92 *p = xcalloc(1, sizeof *p);
    device_init(&p->dev, &port92_type, cfg->id);
    pthread_mutex_init(&p->lock, NULL);
    p->cfg = *cfg;
    port92_reset(&p->dev);
    *ret = p;
}

struct device *port92_device(struct port92 *p)
{
    return &p->dev;
}
