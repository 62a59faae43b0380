/*
 * HPET. The counter is computed from the guest clock; each comparator knows the counter value (unwrapped, 64 bits) at
 * which it next matches and keeps a timer for that on the loop. Registers come from vCPU threads. One lock, held while
 * lines are driven.
 */
#include "dev/hpet.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

#define TICK_NS 10u
#define TICK_FS 10000000ull
#define REARM_MIN_TICKS 2000u /* periods shorter than this are several in one interrupt */
#define NEVER UINT64_MAX

enum { REG_CAP = 0x00, REG_CONFIG = 0x10, REG_STATUS = 0x20, REG_COUNTER = 0xf0, REG_TIMER = 0x100 };
enum { CFG_ENABLE = 1, CFG_LEGACY = 2 };
enum {
    T_LEVEL = BIT(1),
    T_ENABLE = BIT(2),
    T_PERIODIC = BIT(3),
    T_PERIODIC_CAP = BIT(4),
    T_64BIT_CAP = BIT(5),
    T_SET_VALUE = BIT(6),
    T_32BIT = BIT(8),
    T_ROUTE = 0x1f << 9,
    T_FSB = BIT(14),
    T_FSB_CAP = BIT(15),
    T_WRITABLE = T_LEVEL | T_ENABLE | T_PERIODIC | T_SET_VALUE | T_32BIT | T_ROUTE | T_FSB,
};

struct comparator {
    struct hpet *hpet;
    unsigned n;
    struct timer timer;
    uint32_t config; /* writable bits of the low half */
    uint64_t cmp, period, fsb;
    uint64_t match;   /* unwrapped counter of the next match, NEVER if none */
    uint8_t set_high; /* the upper half of cmp follows the lower one just written with SET_VALUE */
    uint8_t line;     /* level of its interrupt line */
};

struct hpet {
    struct device dev;
    pthread_mutex_t lock;
    struct hpet_config cfg;
    uint32_t config, status;
    uint64_t start;   /* guest ns at which the counter was `counter`, while enabled */
    uint64_t counter; /* its value then, or while halted */
    struct comparator t[HPET_TIMERS];
};

static uint64_t counter_now(const struct hpet *h)
{
    if (!(h->config & CFG_ENABLE))
        return h->counter;
    return h->counter + (clock_now(h->cfg.clock) - h->start) / TICK_NS;
}

static uint64_t value_mask(const struct comparator *t)
{
    return t->config & T_32BIT ? 0xffffffff : UINT64_MAX;
}

static bool legacy(const struct comparator *t)
{
    return (t->hpet->config & CFG_LEGACY) && t->n < 2;
}

/* The line that the comparator drives now. */
static struct irq line(const struct comparator *t)
{
    if (legacy(t))
        return t->hpet->cfg.legacy[t->n];
    unsigned route = (t->config & T_ROUTE) >> 9;
    return t->hpet->cfg.route_cap & BIT(route) ? t->hpet->cfg.gsi[route] : (struct irq){0};
}

static void set_line(struct comparator *t, uint8_t level)
{
    if (level != t->line) {
        t->line = level;
        irq_set(line(t), level);
    }
}

static void interrupt(struct comparator *t)
{
    if ((t->config & T_LEVEL) && !legacy(t))
        t->hpet->status |= BIT(t->n);
    if (!(t->config & T_ENABLE))
        return;
    if ((t->config & T_FSB) && !legacy(t)) {
        msi_send(&t->hpet->cfg.msi, t->fsb >> 32, (uint32_t)t->fsb);
    } else if ((t->config & T_LEVEL) && !legacy(t)) {
        set_line(t, 1);
    } else {
        set_line(t, 0);
        irq_pulse(line(t));
    }
}

/* Finds the next match from now on and arms for it. A comparator equal to the counter matches at once. */
static void schedule(struct comparator *t)
{
    struct hpet *h = t->hpet;
    uint64_t now = counter_now(h), delta = (t->cmp - now) & value_mask(t);
    t->match = now + delta;
    if (t->match < now)
        t->match = NEVER;
    if (!(h->config & CFG_ENABLE) || t->match == NEVER) {
        timer_cancel(&t->timer);
        return;
    }
    uint64_t ticks = t->match - h->counter;
    if (ticks < (uint64_t)INT64_MAX / TICK_NS / 2)
        timer_arm(&t->timer, h->start + ticks * TICK_NS);
    else
        timer_cancel(&t->timer); /* centuries away */
}

/* Interrupts for the matches that are past, several periods at once, and arms for the next. */
static void catch_up(struct comparator *t)
{
    struct hpet *h = t->hpet;
    uint64_t now = counter_now(h);
    if (!(h->config & CFG_ENABLE) || t->match == NEVER || now < t->match)
        return;
    uint64_t period = t->period & value_mask(t);
    if ((t->config & T_PERIODIC) && period) {
        uint64_t next = t->match + ((now - t->match) / period + 1) * period;
        t->cmp = (t->cmp & ~value_mask(t)) | (next & value_mask(t));
        t->match = next > now ? next : NEVER;
    } else if (t->config & T_32BIT) {
        t->match += ((now - t->match) / (1ull << 32) + 1) << 32; /* the next time around */
    } else {
        t->match = NEVER;
    }
    interrupt(t);
    uint64_t ticks = MAX(t->match, now + REARM_MIN_TICKS) - h->counter;
    if (t->match != NEVER && ticks < (uint64_t)INT64_MAX / TICK_NS / 2)
        timer_arm(&t->timer, h->start + ticks * TICK_NS);
}

static void matched(void *opaque)
{
    struct comparator *t = opaque;
    pthread_mutex_lock(&t->hpet->lock);
    catch_up(t);
    pthread_mutex_unlock(&t->hpet->lock);
}

static void catch_up_all(struct hpet *h)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        catch_up(&h->t[i]);
}

/* ---- registers: 64 bits each, written in halves or whole ---- */

static uint64_t timer_caps(const struct hpet *h)
{
    return (uint64_t)h->cfg.route_cap << 32 | T_PERIODIC_CAP | T_64BIT_CAP | (h->cfg.msi.send ? T_FSB_CAP : 0);
}

static uint64_t read64(struct hpet *h, unsigned reg)
{
    switch (reg) {
    case REG_CAP: /* period, vendor, legacy and 64-bit capable, number of timers - 1, revision 1 */
        return TICK_FS << 32 | 0x8086ull << 16 | BIT(15) | BIT(13) | (HPET_TIMERS - 1) << 8 | 1;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter_now(h);
    }
    unsigned n = (reg - REG_TIMER) / 0x20;
    if (reg < REG_TIMER || n >= HPET_TIMERS)
        return 0;
    switch (reg & 0x18) {
    case 0x00:
        return timer_caps(h) | h->t[n].config;
    case 0x08:
        return h->t[n].cmp & value_mask(&h->t[n]);
    case 0x10:
        return h->t[n].fsb;
    }
    return 0;
}

static void write_config(struct hpet *h, uint32_t val)
{
    uint32_t old = h->config;
    val &= CFG_ENABLE | CFG_LEGACY;
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        if ((old ^ val) & CFG_LEGACY)
            set_line(&h->t[i], 0); /* on the line it had */
    if ((old ^ val) & CFG_ENABLE) {
        h->counter = counter_now(h);
        h->start = clock_now(h->cfg.clock);
    }
    h->config = val;
    if ((old ^ val) & CFG_LEGACY)
        irq_set(h->cfg.inhibit, (val & CFG_LEGACY) != 0);
    if ((old ^ val) & CFG_ENABLE)
        for (unsigned i = 0; i < HPET_TIMERS; i++)
            schedule(&h->t[i]);
}

static void write_status(struct hpet *h, uint32_t val)
{
    h->status &= ~val;
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        if (val & BIT(i))
            set_line(&h->t[i], 0);
}

static void write_timer_config(struct comparator *t, uint32_t val)
{
    struct hpet *h = t->hpet;
    uint32_t old = t->config;
    val &= T_WRITABLE;
    if (!h->cfg.msi.send)
        val &= ~T_FSB;
    if (!(h->cfg.route_cap & BIT((val & T_ROUTE) >> 9)))
        val = (val & ~T_ROUTE) | (old & T_ROUTE); /* not one of the allowed: reads back as before */
    if ((old ^ val) & (T_LEVEL | T_ENABLE | T_ROUTE | T_FSB))
        set_line(t, 0);
    t->config = val;
    t->set_high = 0;
    if (val & T_32BIT) {
        t->cmp &= 0xffffffff;
        t->period &= 0xffffffff;
    }
    if ((val & T_LEVEL) && (val & T_ENABLE) && !(val & T_FSB) && !legacy(t) && (h->status & BIT(t->n)))
        set_line(t, 1);
    if ((old ^ val) & (T_32BIT | T_PERIODIC | T_ENABLE))
        schedule(t);
}

/* In periodic mode a write is the period; with SET_VALUE it is (also) the comparator itself (1.0a, 2.3.9.2.2). */
static void write_cmp(struct comparator *t, unsigned shift, uint64_t bits, uint64_t val)
{
    uint64_t keep = ~(bits << shift);
    bool high = shift == 32;
    bool sets = !(t->config & T_PERIODIC) || (t->config & T_SET_VALUE) || (high && t->set_high);
    if (t->config & T_32BIT) {
        if (high)
            return;
        val &= 0xffffffff;
    }
    if (sets)
        t->cmp = (t->cmp & keep) | val << shift;
    if (t->config & T_PERIODIC)
        t->period = (t->period & keep) | val << shift;
    t->set_high = !high && bits == 0xffffffff && (t->config & T_SET_VALUE);
    t->config &= ~(uint32_t)T_SET_VALUE;
    if (sets)
        schedule(t);
}

/* `shift` 0 or 32; `bits` 32 bits or 64 of ones. */
static void write_reg(struct hpet *h, unsigned reg, unsigned shift, uint64_t bits, uint64_t val)
{
    uint64_t keep = ~(bits << shift);
    unsigned n = (reg - REG_TIMER) / 0x20;
    switch (reg) {
    case REG_CONFIG:
        if (!shift)
            write_config(h, (uint32_t)val);
        return;
    case REG_STATUS:
        if (!shift)
            write_status(h, (uint32_t)val);
        return;
    case REG_COUNTER:
        h->counter = (counter_now(h) & keep) | val << shift;
        h->start = clock_now(h->cfg.clock);
        for (unsigned i = 0; i < HPET_TIMERS; i++)
            schedule(&h->t[i]);
        return;
    }
    if (reg < REG_TIMER || n >= HPET_TIMERS)
        return;
    switch (reg & 0x18) {
    case 0x00:
        if (!shift)
            write_timer_config(&h->t[n], (uint32_t)val);
        break;
    case 0x08:
        write_cmp(&h->t[n], shift, bits, val);
        break;
    case 0x10:
        h->t[n].fsb = (h->t[n].fsb & keep) | val << shift;
        break;
    }
}

static uint64_t hpet_read(void *opaque, uint64_t off, unsigned size)
{
    struct hpet *h = opaque;
    pthread_mutex_lock(&h->lock);
    catch_up_all(h);
    uint64_t val = read64(h, (unsigned)off & ~7u);
    pthread_mutex_unlock(&h->lock);
    return val >> (off & 7) * 8;
}

static void hpet_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct hpet *h = opaque;
    if (off & (size - 1)) /* only aligned accesses are defined */
        return;
    pthread_mutex_lock(&h->lock);
    catch_up_all(h);
    write_reg(h, (unsigned)off & ~7u, off & 4 ? 32 : 0, size == 8 ? UINT64_MAX : 0xffffffff, val);
    pthread_mutex_unlock(&h->lock);
}

static const struct bus_ops hpet_ops = {hpet_read, hpet_write, 4, 8};

int hpet_map(struct hpet *h, struct bus *mmio, uint64_t base, struct err *err)
{
    return bus_map(mmio, "hpet", base, HPET_SIZE, &hpet_ops, h, err);
}

/* ---- life ---- */

static void hpet_reset(struct device *dev)
{
    struct hpet *h = container_of(dev, struct hpet, dev);
    pthread_mutex_lock(&h->lock);
    write_config(h, 0);
    h->counter = h->start = 0;
    h->status = 0;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct comparator *t = &h->t[i];
        set_line(t, 0);
        timer_cancel(&t->timer);
        t->config = h->cfg.route_cap ? (uint32_t)__builtin_ctz(h->cfg.route_cap) << 9 : 0;
        t->cmp = t->match = UINT64_MAX;
        t->period = t->fsb = 0;
        t->set_high = 0;
    }
    pthread_mutex_unlock(&h->lock);
}

static void hpet_destroy(struct device *dev)
{
    struct hpet *h = container_of(dev, struct hpet, dev);
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        timer_cancel(&h->t[i].timer);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static int hpet_post_load(void *obj, uint32_t version, struct err *err)
{
    struct hpet *h = obj;
    h->config &= CFG_ENABLE | CFG_LEGACY;
    h->status &= BIT(HPET_TIMERS) - 1;
    if (h->start > clock_now(h->cfg.clock))
        return err_set(err, -EINVAL, "hpet: the counter was started in the future");
    irq_set(h->cfg.inhibit, (h->config & CFG_LEGACY) != 0);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct comparator *t = &h->t[i];
        t->config &= T_WRITABLE;
        if (!h->cfg.msi.send)
            t->config &= ~(uint32_t)T_FSB;
        t->line = t->line != 0;
        irq_set(line(t), t->line);
        timer_cancel(&t->timer);
        if (!(h->config & CFG_ENABLE) || t->match == NEVER || t->match < h->counter)
            continue;
        uint64_t ticks = t->match - h->counter;
        if (ticks < (uint64_t)INT64_MAX / TICK_NS / 2)
            timer_arm(&t->timer, h->start + ticks * TICK_NS);
    }
    return 0;
}

#define TIMER_FIELDS(i)                                                                                                \
    STATE_U(struct hpet, t[i].config), STATE_U(struct hpet, t[i].cmp), STATE_U(struct hpet, t[i].period),              \
        STATE_U(struct hpet, t[i].fsb), STATE_U(struct hpet, t[i].match), STATE_U(struct hpet, t[i].set_high),         \
        STATE_U(struct hpet, t[i].line)

static const struct state_field hpet_fields[] = {
    STATE_U(struct hpet, config),
    STATE_U(struct hpet, status),
    STATE_U(struct hpet, start),
    STATE_U(struct hpet, counter),
    TIMER_FIELDS(0),
    TIMER_FIELDS(1),
    TIMER_FIELDS(2),
    STATE_END,
};
_Static_assert(HPET_TIMERS == 3, "fields of each timer");
static const struct state_desc hpet_state = {"hpet", 1, 1, hpet_fields, NULL, hpet_post_load};

const struct device_type hpet_type = {
    .name = "hpet",
    .summary = "high precision event timers",
    .state = &hpet_state,
    .reset = hpet_reset,
    .destroy = hpet_destroy,
};

void hpet_new(const struct hpet_config *cfg, struct hpet **ret)
{
    struct hpet *h = xcalloc(1, sizeof *h);
    device_init(&h->dev, &hpet_type, cfg->id);
    pthread_mutex_init(&h->lock, NULL);
    h->cfg = *cfg;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        h->t[i].hpet = h;
        h->t[i].n = i;
        timer_init(&h->t[i].timer, cfg->loop, cfg->clock, matched, &h->t[i]);
    }
    hpet_reset(&h->dev);
    *ret = h;
}

struct device *hpet_device(struct hpet *h)
{
    return &h->dev;
}
