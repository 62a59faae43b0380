/*
 * 8254. Nothing ticks: a channel remembers when its count was loaded, and count and OUT are computed from the guest
 * clock when somebody looks. Only channel 0, whose OUT is an interrupt, keeps a timer, on the loop's thread. Ports come
 * from vCPU threads. One lock.
 */
#include "dev/pit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

/* Channel 0 faster than this is one interrupt for several periods. */
#define REARM_MIN_NS 20000

struct channel {
    uint8_t mode; /* 0..5 */
    uint8_t rw;   /* 1 low byte, 2 high byte, 3 low then high */
    uint8_t bcd;
    uint8_t gate;
    uint8_t running;   /* counting since `start` */
    uint8_t loaded;    /* a count is in the counting element */
    uint8_t low;       /* low byte written, the high one comes next */
    uint8_t low_next;  /* waiting for the high byte of a write */
    uint8_t high_next; /* the high byte is read next */
    uint8_t latched;   /* bytes left of the latched count */
    uint8_t status_latched, status;
    uint16_t latch;
    uint32_t count;   /* initial count, 1..65536 (10000 in BCD) */
    uint32_t next;    /* count that takes over at `next_at`, or at the next trigger; 0 none */
    uint64_t next_at; /* guest ns, 0: at the next trigger */
    uint64_t start;   /* guest ns */
    uint64_t ticks;   /* counted before `start` (the gate was low in between) */
};

struct pit {
    struct device dev;
    pthread_mutex_t lock;
    const struct clock *clock;
    struct timer timer;
    struct irq irq;
    struct channel ch[3];
    uint8_t port61; /* bits 3:0 as written */
    uint8_t inhibited;
    uint8_t out; /* level of irq */
};

static uint64_t to_ticks(uint64_t ns)
{
    return (uint64_t)((__uint128_t)ns * PIT_HZ / NSEC_PER_SEC);
}

/* The first ns at which `ticks` have passed. */
static uint64_t to_ns(uint64_t ticks)
{
    return (uint64_t)(((__uint128_t)ticks * NSEC_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

static uint64_t elapsed(const struct channel *c, uint64_t now)
{
    return c->running && now > c->start ? c->ticks + to_ticks(now - c->start) : c->ticks;
}

static void begin(struct channel *c, uint64_t now)
{
    c->start = now;
    c->ticks = 0;
    c->running = 1;
    c->loaded = 1;
}

/* Lets a count that waited for the end of the period take over. */
static void settle(struct channel *c, uint64_t now)
{
    if (c->next && c->next_at && now >= c->next_at) {
        c->count = c->next;
        c->next = 0;
        begin(c, c->next_at);
    }
}

static bool is_triggered(const struct channel *c)
{
    return c->mode == 1 || c->mode == 5;
}
static bool is_periodic(const struct channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static bool out(const struct channel *c, uint64_t now)
{
    uint64_t t = elapsed(c, now);
    if (!c->loaded)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
    case 1:
        return t >= c->count;
    case 2:
        return !c->running || t % c->count != c->count - 1;
    case 3:
        return !c->running || t % c->count < (c->count + 1) / 2;
    default:
        return t != c->count;
    }
}

static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)(v % 10 | (v / 10 % 10) << 4 | (v / 100 % 10) << 8 | (v / 1000 % 10) << 12);
}

static uint16_t counter(const struct channel *c, uint64_t now)
{
    uint64_t t = elapsed(c, now);
    uint32_t range = c->bcd ? 10000 : 65536, v;
    if (c->mode == 2) {
        v = c->count - (uint32_t)(t % c->count);
    } else if (c->mode == 3) {
        uint32_t p = (uint32_t)(t % c->count), half = (c->count + 1) / 2;
        v = (c->count & ~1u) - 2 * (p < half ? p : p - half);
    } else {
        v = (uint32_t)((c->count + range - t % range) % range);
    }
    v %= range;
    return c->bcd ? to_bcd(v) : (uint16_t)v;
}

/* ---- channel 0's interrupt ---- */

static void drive(struct pit *pit, uint8_t level)
{
    if (level != pit->out) {
        pit->out = level;
        irq_set(pit->irq, level);
    }
}

/* Guest ns of channel 0's next change that matters after `now`, 0 for none. A low strobe of one tick counts by its end.
 */
static uint64_t next_event(const struct channel *c, uint64_t now)
{
    uint64_t t = elapsed(c, now), at;
    if (!c->running)
        return 0;
    switch (c->mode) {
    case 0:
        at = c->count;
        break;
    case 4:
        at = (uint64_t)c->count + 1;
        break;
    case 2:
        at = (t / c->count + 1) * c->count;
        break;
    case 3: {
        uint64_t period = t / c->count * c->count, half = period + (c->count + 1) / 2;
        at = t < half ? half : period + c->count;
        break;
    }
    default:
        return 0;
    }
    if (at <= t && !is_periodic(c))
        return 0;
    return c->start + to_ns(at - c->ticks);
}

/* Sets the line to what OUT is (strobes aside, which are pulses at their end) and arms the timer for what comes. */
static void refresh(struct pit *pit, uint64_t now)
{
    struct channel *c = &pit->ch[0];
    settle(c, now);
    if (pit->inhibited) {
        drive(pit, 0);
        timer_cancel(&pit->timer);
        return;
    }
    drive(pit, c->mode == 2 || c->mode == 4 ? 1 : out(c, now));
    uint64_t next = next_event(c, now);
    if (next)
        timer_arm(&pit->timer, MAX(next, now + REARM_MIN_NS));
    else
        timer_cancel(&pit->timer);
}

static void tick(void *opaque)
{
    struct pit *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = clock_now(pit->clock);
    /* Cancelled or moved while this call was under way: refresh() armed it anew. */
    if (!pit->inhibited && now >= pit->timer.expires) {
        if (is_periodic(&pit->ch[0]) || pit->ch[0].mode == 4) {
            bool rises = pit->ch[0].mode != 3 || out(&pit->ch[0], now);
            if (rises) {
                drive(pit, 0);
                drive(pit, 1);
            }
        }
        refresh(pit, now);
    }
    pthread_mutex_unlock(&pit->lock);
}

static void inhibit(void *opaque, unsigned n, int level)
{
    struct pit *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    pit->inhibited = level != 0;
    refresh(pit, clock_now(pit->clock));
    pthread_mutex_unlock(&pit->lock);
}

struct irq pit_inhibit(struct pit *pit)
{
    return (struct irq){inhibit, pit, 0};
}

/* ---- programming ---- */

static void set_gate(struct channel *c, uint8_t gate, uint64_t now)
{
    settle(c, now);
    if (gate == c->gate)
        return;
    if (!gate) {
        if (!is_triggered(c)) { /* triggered modes go on */
            c->ticks = elapsed(c, now);
            c->running = 0;
            c->next_at = 0;
        }
    } else if (is_triggered(c) || is_periodic(c)) { /* a rising gate (re)loads */
        if (c->next) {
            c->count = c->next;
            c->next = 0;
        }
        if (c->loaded || is_triggered(c)) {
            if (c->count)
                begin(c, now);
        }
    } else if (c->loaded) {
        c->start = now;
        c->running = 1;
    }
    c->gate = gate;
}

static uint32_t from_bcd(uint16_t v)
{
    return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12) * 1000u;
}

static void load(struct channel *c, uint16_t raw, uint64_t now)
{
    uint32_t count = c->bcd ? from_bcd(raw) % 10000 : raw;
    if (!count)
        count = c->bcd ? 10000 : 65536;
    if (is_triggered(c)) {
        c->next = count;
        c->next_at = 0;
        return;
    }
    if (is_periodic(c) && c->loaded) {
        if (count == 1)
            count = 2; /* 1 is not allowed in these modes */
        c->next = count;
        c->next_at = c->running ? c->start + to_ns((elapsed(c, now) / c->count + 1) * c->count - c->ticks) : 0;
        return;
    }
    c->count = is_periodic(c) && count == 1 ? 2 : count;
    c->next = 0;
    begin(c, now);
    c->running = c->gate;
}

static void write_count(struct channel *c, uint8_t val, uint64_t now)
{
    settle(c, now);
    switch (c->rw) {
    case 1:
        load(c, val, now);
        break;
    case 2:
        load(c, (uint16_t)(val << 8), now);
        break;
    case 3:
        if (!c->low_next) {
            c->low = val;
            c->low_next = 1;
            if (c->mode == 0) { /* the first byte stops the counting */
                c->ticks = 0;
                c->running = c->loaded = 0;
            }
        } else {
            c->low_next = 0;
            load(c, (uint16_t)(val << 8 | c->low), now);
        }
        break;
    }
}

static void latch_count(struct channel *c, uint64_t now)
{
    if (!c->latched) {
        c->latch = counter(c, now);
        c->latched = c->rw == 3 ? 2 : 1;
    }
}

static void latch_status(struct channel *c, uint64_t now)
{
    if (c->status_latched)
        return;
    c->status = (uint8_t)(out(c, now) << 7 | (!c->loaded || c->next) << 6 | c->rw << 4 | c->mode << 1 | c->bcd);
    c->status_latched = 1;
}

static void write_control(struct pit *pit, uint8_t val, uint64_t now)
{
    unsigned n = val >> 6;
    if (n == 3) { /* read-back */
        for (unsigned i = 0; i < 3; i++) {
            if (!(val & 2 << i))
                continue;
            settle(&pit->ch[i], now);
            if (!(val & 0x20))
                latch_count(&pit->ch[i], now);
            if (!(val & 0x10))
                latch_status(&pit->ch[i], now);
        }
        return;
    }
    struct channel *c = &pit->ch[n];
    settle(c, now);
    if (!(val & 0x30)) {
        latch_count(c, now);
        return;
    }
    *c = (struct channel){.gate = c->gate, .count = c->count, .rw = val >> 4 & 3, .mode = val >> 1 & 7, .bcd = val & 1};
    if (c->mode > 5)
        c->mode &= 3;
    if (c->bcd)
        c->count = MIN(c->count, 10000);
}

static uint8_t read_count(struct channel *c, uint64_t now)
{
    settle(c, now);
    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    uint16_t v = c->latched ? c->latch : counter(c, now);
    bool high = c->rw == 2 || (c->rw == 3 && c->high_next);
    if (c->rw == 3)
        c->high_next ^= 1;
    if (c->latched)
        c->latched--;
    return (uint8_t)(high ? v >> 8 : v);
}

static uint64_t pit_read(void *opaque, uint64_t off, unsigned size)
{
    struct pit *pit = opaque;
    if (off == 3)
        return 0xff;
    pthread_mutex_lock(&pit->lock);
    uint8_t val = read_count(&pit->ch[off], clock_now(pit->clock));
    pthread_mutex_unlock(&pit->lock);
    return val;
}

static void pit_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct pit *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = clock_now(pit->clock);
    if (off == 3)
        write_control(pit, (uint8_t)val, now);
    else
        write_count(&pit->ch[off], (uint8_t)val, now);
    if (off == 0 || (off == 3 && !(val & 0xc0) && (val & 0x30)))
        refresh(pit, now);
    pthread_mutex_unlock(&pit->lock);
}

static uint64_t port61_read(void *opaque, uint64_t off, unsigned size)
{
    struct pit *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = clock_now(pit->clock);
    settle(&pit->ch[2], now);
    /* Bit 4 toggles with each memory refresh, 15.085 us apart. */
    uint8_t val = pit->port61 | (now / 15085 & 1) << 4 | out(&pit->ch[2], now) << 5;
    pthread_mutex_unlock(&pit->lock);
    return val;
}

static void port61_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct pit *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    pit->port61 = val & 0xf;
    set_gate(&pit->ch[2], val & 1, clock_now(pit->clock));
    pthread_mutex_unlock(&pit->lock);
}

static const struct bus_ops pit_ops = {pit_read, pit_write, 1, 1};
static const struct bus_ops port61_ops = {port61_read, port61_write, 1, 1};

int pit_map(struct pit *pit, struct bus *pio, struct err *err)
{
    int ret = bus_map(pio, "pit", 0x40, 4, &pit_ops, pit, err);
    return ret ? ret : bus_map(pio, "port61", 0x61, 1, &port61_ops, pit, err);
}

static void pit_reset(struct device *dev)
{
    struct pit *pit = container_of(dev, struct pit, dev);
    pthread_mutex_lock(&pit->lock);
    for (unsigned i = 0; i < 3; i++)
        pit->ch[i] = (struct channel){.gate = i != 2, .count = 65536, .rw = 3};
    pit->port61 = 0;
    refresh(pit, clock_now(pit->clock));
    pthread_mutex_unlock(&pit->lock);
}

static void pit_destroy(struct device *dev)
{
    struct pit *pit = container_of(dev, struct pit, dev);
    timer_cancel(&pit->timer);
    pthread_mutex_destroy(&pit->lock);
    free(pit);
}

static void pit_pre_save(void *obj)
{
    struct pit *pit = obj;
    for (unsigned i = 0; i < 3; i++)
        settle(&pit->ch[i], clock_now(pit->clock));
}

static bool plausible(const struct channel *c)
{
    uint32_t range = c->bcd ? 10000 : 65536, least = is_periodic(c) && c->loaded ? 2 : 1;
    return c->mode <= 5 && c->rw && c->rw <= 3 && c->bcd <= 1 && c->gate <= 1 && c->running <= 1 && c->loaded <= 1 &&
           c->low_next <= 1 && c->high_next <= 1 && c->latched <= 2 && c->status_latched <= 1 && c->count >= least &&
           c->count <= range && c->next <= range && c->start <= INT64_MAX && c->ticks <= INT64_MAX &&
           c->next_at <= INT64_MAX;
}

static int pit_post_load(void *obj, uint32_t version, struct err *err)
{
    struct pit *pit = obj;
    for (unsigned i = 0; i < 3; i++)
        if (!plausible(&pit->ch[i]))
            return err_set(err, -EINVAL, "pit: values of channel %u that cannot be", i);
    pit->inhibited = pit->inhibited != 0;
    irq_set(pit->irq, pit->out);
    refresh(pit, clock_now(pit->clock));
    return 0;
}

void pit_get(struct pit *pit, struct irqchip_pit ret[3], uint8_t *ret_port61)
{
    pthread_mutex_lock(&pit->lock);
    uint64_t now = clock_now(pit->clock);
    for (unsigned i = 0; i < 3; i++) {
        struct channel *c = &pit->ch[i];
        settle(c, now);
        ret[i] = (struct irqchip_pit){
            .count = c->next ? c->next : c->loaded ? c->count : 0,
            .mode = c->mode,
            .bcd = c->bcd,
            .gate = c->gate,
            .rw = c->rw,
            .low = c->low,
            .write_high = c->low_next,
            .read_high = c->high_next,
            .latched = c->latched,
            .status_latched = c->status_latched,
            .status = c->status,
            .latch = c->latch,
            .elapsed = c->loaded ? to_ns(elapsed(c, now)) : 0,
        };
    }
    *ret_port61 = pit->port61;
    pthread_mutex_unlock(&pit->lock);
}

int pit_set(struct pit *pit, const struct irqchip_pit s[3], uint8_t port61, struct err *err)
{
    int ret = 0;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = clock_now(pit->clock);
    for (unsigned i = 0; i < 3 && ret == 0; i++) {
        struct channel *c = &pit->ch[i];
        *c = (struct channel){
            .mode = s[i].mode,
            .rw = s[i].rw,
            .bcd = s[i].bcd,
            .gate = s[i].gate,
            .running = s[i].count && s[i].gate,
            .loaded = s[i].count != 0,
            .low = s[i].low,
            .low_next = s[i].write_high,
            .high_next = s[i].read_high,
            .latched = s[i].latched,
            .status_latched = s[i].status_latched,
            .status = s[i].status,
            .latch = s[i].latch,
            .count = s[i].count ? s[i].count : 65536,
            .start = now,
            .ticks = to_ticks(MIN(s[i].elapsed, (uint64_t)INT64_MAX)),
        };
        if (!plausible(c))
            ret = err_set(err, -EINVAL, "pit: values of channel %u that cannot be", i);
    }
    pit->port61 = port61 & 0xf;
    if (ret == 0)
        refresh(pit, now);
    pthread_mutex_unlock(&pit->lock);
    return ret;
}

#define CHANNEL_FIELDS(i)                                                                                              \
    STATE_U(struct pit, ch[i].mode), STATE_U(struct pit, ch[i].rw), STATE_U(struct pit, ch[i].bcd),                    \
        STATE_U(struct pit, ch[i].gate), STATE_U(struct pit, ch[i].running), STATE_U(struct pit, ch[i].loaded),        \
        STATE_U(struct pit, ch[i].low), STATE_U(struct pit, ch[i].low_next), STATE_U(struct pit, ch[i].high_next),     \
        STATE_U(struct pit, ch[i].latched), STATE_U(struct pit, ch[i].status_latched),                                 \
        STATE_U(struct pit, ch[i].status), STATE_U(struct pit, ch[i].latch), STATE_U(struct pit, ch[i].count),         \
        STATE_U(struct pit, ch[i].next), STATE_U(struct pit, ch[i].next_at), STATE_U(struct pit, ch[i].start),         \
        STATE_U(struct pit, ch[i].ticks)

static const struct state_field pit_fields[] = {
    CHANNEL_FIELDS(0),
    CHANNEL_FIELDS(1),
    CHANNEL_FIELDS(2),
    STATE_U(struct pit, port61),
    STATE_U(struct pit, inhibited),
    STATE_U(struct pit, out),
    STATE_END,
};
static const struct state_desc pit_state = {"pit", 1, 1, pit_fields, pit_pre_save, pit_post_load};

const struct device_type pit_type = {
    .name = "pit",
    .summary = "8254 interval timer and speaker gate",
    .state = &pit_state,
    .reset = pit_reset,
    .destroy = pit_destroy,
};

void pit_new(const struct pit_config *cfg, struct pit **ret)
{
    struct pit *pit = xcalloc(1, sizeof *pit);
    device_init(&pit->dev, &pit_type, cfg->id);
    pthread_mutex_init(&pit->lock, NULL);
    pit->clock = cfg->clock;
    pit->irq = cfg->irq;
    timer_init(&pit->timer, cfg->loop, cfg->clock, tick, pit);
    pit_reset(&pit->dev);
    *ret = pit;
}

struct device *pit_device(struct pit *pit)
{
    return &pit->dev;
}
