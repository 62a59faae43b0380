#include "dev/ged.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

#define EVENT_POWER BIT(0)

#define SLP_EN BIT(5)
#define SLP_TYP(v) (((v) >> 2) & 7)
#define SLP_STATUS_WAK BIT(7)

struct ged {
    struct device dev;
    struct ged_config cfg;
    pthread_mutex_t lock;
    uint32_t events;
    uint8_t reset_reg;
};

static uint64_t ged_read(void *opaque, uint64_t off, unsigned size)
{
    struct ged *g = opaque;
    uint64_t v = 0;
    pthread_mutex_lock(&g->lock);
    if (off == GED_EVENTS) {
        v = g->events;
        g->events = 0;
        irq_set(g->cfg.irq, 0);
    } else if (off == GED_SLEEP_STATUS) {
        v = SLP_STATUS_WAK;
    }
    pthread_mutex_unlock(&g->lock);
    return v;
}

static void ged_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct ged *g = opaque;
    if (off == GED_SLEEP_CONTROL && (val & SLP_EN) && SLP_TYP(val) == GED_S5 && g->cfg.poweroff)
        g->cfg.poweroff(g->cfg.opaque);
}

static const struct bus_ops ged_ops = {ged_read, ged_write, 1, 4};

static uint64_t reset_read(void *opaque, uint64_t off, unsigned size)
{
    struct ged *g = opaque;
    pthread_mutex_lock(&g->lock);
    uint64_t v = g->reset_reg;
    pthread_mutex_unlock(&g->lock);
    return v;
}

static void reset_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct ged *g = opaque;
    pthread_mutex_lock(&g->lock);
    g->reset_reg = val & 0x0a;
    pthread_mutex_unlock(&g->lock);
    if ((val & 4) && g->cfg.reset)
        g->cfg.reset(g->cfg.opaque);
}

static const struct bus_ops reset_ops = {reset_read, reset_write, 1, 1};

static void ged_reset(struct device *dev)
{
    struct ged *g = (struct ged *)dev;
    pthread_mutex_lock(&g->lock);
    g->events = 0;
    g->reset_reg = 0;
    irq_set(g->cfg.irq, 0);
    pthread_mutex_unlock(&g->lock);
}

static void ged_destroy(struct device *dev)
{
    struct ged *g = (struct ged *)dev;
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static int ged_post_load(void *obj, uint32_t version, struct err *err)
{
    struct ged *g = obj;
    g->events &= EVENT_POWER | BIT(1);
    g->reset_reg &= 0x0a;
    irq_set(g->cfg.irq, g->events != 0);
    return 0;
}

static const struct state_field ged_fields[] = {STATE_U(struct ged, events), STATE_U(struct ged, reset_reg), STATE_END};
static const struct state_desc ged_state = {"ged", 1, 1, ged_fields, NULL, ged_post_load};

const struct device_type ged_type = {
    .name = "ged",
    .summary = "ACPI buttons, sleep and reset registers of the micro board",
    .state = &ged_state,
    .reset = ged_reset,
    .destroy = ged_destroy,
};

void ged_new(const struct ged_config *cfg, struct ged **ret)
{
    struct ged *g = xcalloc(1, sizeof *g);
    device_init(&g->dev, &ged_type, cfg->id);
    g->cfg = *cfg;
    pthread_mutex_init(&g->lock, NULL);
    *ret = g;
}

struct device *ged_device(struct ged *g)
{
    return &g->dev;
}

int ged_map(struct ged *g, struct bus *mmio, uint64_t base, struct bus *pio, struct err *err)
{
    int code = bus_map(mmio, "ged", base, GED_SIZE, &ged_ops, g, err);
    return code < 0 ? code : bus_map(pio, "reset", GED_RESET_PORT, 1, &reset_ops, g, err);
}

void ged_power_button(struct ged *g)
{
    pthread_mutex_lock(&g->lock);
    g->events |= EVENT_POWER;
    irq_set(g->cfg.irq, 1);
    pthread_mutex_unlock(&g->lock);
}
