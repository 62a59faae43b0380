/*
 * MC146818A (Motorola, 1984). Nothing ticks: registers are computed from the time when they are read, flags of register
 * C when somebody looks or an interrupt is due. Ports come from vCPU threads, the timer from the loop. One lock.
 */
#include "dev/rtc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/bits.h"
#include "base/fd.h"

enum { SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WEEKDAY, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D, RAM };
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQ = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VALID = 0x80 };

#define UIP_NS 244000u /* how long before an update UIP says so */
#define DAY_SECS 86400
#define TIME_MAX 8000000000ll /* seconds, year 2223: what fits 64 bits of ns with room for sums */

struct rtc {
    struct device dev;
    pthread_mutex_t lock;
    const struct clock *clock;
    struct timer timer;
    struct irq irq, alarm;
    bool host;

    uint8_t index;
    uint8_t ram[128]; /* registers as last read or written; CMOS RAM */
    uint8_t inhibited;
    int64_t offset;       /* ns: RTC time - time of its source */
    int64_t seen_sec;     /* the second up to which UF and AF are known */
    uint64_t seen_period; /* the same for PF, in periods since guest time 0 */
};

static int64_t source_ns(const struct rtc *r)
{
    if (!r->host)
        return (int64_t)clock_now(r->clock);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * (int64_t)NSEC_PER_SEC + ts.tv_nsec;
}

/* RTC time in ns since 1970. */
static int64_t rtc_now(const struct rtc *r)
{
    return source_ns(r) + r->offset;
}

static int64_t floor_sec(int64_t ns)
{
    int64_t s = ns / (int64_t)NSEC_PER_SEC;
    return ns % (int64_t)NSEC_PER_SEC < 0 ? s - 1 : s;
}

static int64_t sec_fraction(int64_t ns)
{
    return ns - floor_sec(ns) * (int64_t)NSEC_PER_SEC;
}

static bool runs(const struct rtc *r)
{
    return !(r->ram[REG_B] & B_SET) && (r->ram[REG_A] & A_DIVIDER) <= 0x20;
}

/* ---- registers and calendar ---- */

static uint8_t encode(const struct rtc *r, int v)
{
    return (uint8_t)(r->ram[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *r, uint8_t v)
{
    return r->ram[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, int h)
{
    if (r->ram[REG_B] & B_24H)
        return encode(r, h);
    return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->ram[REG_B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static void fill_registers(struct rtc *r)
{
    time_t t = floor_sec(rtc_now(r));
    struct tm tm;
    if (!gmtime_r(&t, &tm))
        return;
    int year = MAX(tm.tm_year + 1900, 0);
    r->ram[SEC] = encode(r, tm.tm_sec);
    r->ram[MIN] = encode(r, tm.tm_min);
    r->ram[HOUR] = encode_hour(r, tm.tm_hour);
    r->ram[WEEKDAY] = encode(r, tm.tm_wday + 1);
    r->ram[DAY] = encode(r, tm.tm_mday);
    r->ram[MONTH] = encode(r, tm.tm_mon + 1);
    r->ram[YEAR] = encode(r, year % 100);
    r->ram[RTC_CENTURY] = encode(r, year / 100 % 100);
}

/* Makes the time what the registers say, `fraction` ns into the second. */
static void take_registers(struct rtc *r, int64_t fraction)
{
    struct tm tm = {
        .tm_sec = decode(r, r->ram[SEC]),
        .tm_min = decode(r, r->ram[MIN]),
        .tm_hour = decode_hour(r, r->ram[HOUR]),
        .tm_mday = decode(r, r->ram[DAY]),
        .tm_mon = decode(r, r->ram[MONTH]) - 1,
        .tm_year = decode(r, r->ram[YEAR]) + decode(r, r->ram[RTC_CENTURY]) * 100 - 1900,
    };
    int64_t secs = (int64_t)timegm(&tm);
    secs = MAX(MIN(secs, TIME_MAX), -TIME_MAX);
    int64_t ns = secs * (int64_t)NSEC_PER_SEC + fraction;
    r->offset = ns - source_ns(r);
    r->seen_sec = floor_sec(ns);
}

/* ---- flags and interrupts ---- */

/* Length of the periodic interrupt in ns (data sheet, table 5, 32.768 kHz), 0 for none. */
static uint64_t period_ns(const struct rtc *r)
{
    unsigned rate = r->ram[REG_A] & A_RATE;
    if (!rate || (r->ram[REG_A] & A_DIVIDER) > 0x20)
        return 0;
    if (rate <= 2)
        rate += 7;
    return NSEC_PER_SEC * (1u << (rate - 1)) / 32768;
}

static bool alarm_matches(const struct rtc *r, unsigned reg, int v, bool hour)
{
    uint8_t a = r->ram[reg];
    return (a & 0xc0) == 0xc0 || (hour ? decode_hour(r, a) : decode(r, a)) == v;
}

/* The first second after `sec` at which the alarm goes off, or INT64_MAX. */
static int64_t next_alarm(const struct rtc *r, int64_t sec)
{
    int64_t t = sec + 1, end = sec + DAY_SECS;
    while (t <= end) {
        int day = (int)(((t % DAY_SECS) + DAY_SECS) % DAY_SECS);
        if (!alarm_matches(r, HOUR_ALARM, day / 3600, true))
            t += 3600 - day % 3600;
        else if (!alarm_matches(r, MIN_ALARM, day / 60 % 60, false))
            t += 60 - day % 60;
        else if (!alarm_matches(r, SEC_ALARM, day % 60, false))
            t++;
        else
            return t;
    }
    return INT64_MAX;
}

/* Brings register C up to date, sets the line, and arms the timer for the next interrupt that the guest wants. */
static void update(struct rtc *r)
{
    uint64_t now = clock_now(r->clock), next = UINT64_MAX, period = period_ns(r);
    int64_t rtc = rtc_now(r), sec = floor_sec(rtc);
    if (period) {
        if (now / period != r->seen_period)
            r->ram[REG_C] |= C_PF;
        r->seen_period = now / period;
        if (r->ram[REG_B] & B_PIE)
            next = (now / period + 1) * period;
    }
    if (runs(r)) {
        if (sec > r->seen_sec) {
            r->ram[REG_C] |= C_UF;
            if (next_alarm(r, MAX(r->seen_sec, sec - DAY_SECS)) <= sec)
                r->ram[REG_C] |= C_AF;
        }
        r->seen_sec = sec;
        int64_t at = r->ram[REG_B] & B_UIE ? sec + 1 : INT64_MAX;
        if (r->ram[REG_B] & B_AIE)
            at = MIN(at, next_alarm(r, sec));
        if (at != INT64_MAX)
            next = MIN(next, now + (uint64_t)((at - sec) * (int64_t)NSEC_PER_SEC - sec_fraction(rtc)));
    }
    if (r->ram[REG_C] & r->ram[REG_B] & (C_PF | C_AF | C_UF))
        r->ram[REG_C] |= C_IRQ;
    else
        r->ram[REG_C] &= ~C_IRQ;
    irq_set(r->irq, (r->ram[REG_C] & C_IRQ) && !r->inhibited);
    irq_set(r->alarm, (r->ram[REG_C] & C_IRQ) != 0);
    /* While the line is high nothing new can happen: reading register C comes first. */
    if (next != UINT64_MAX && !(r->ram[REG_C] & C_IRQ))
        timer_arm(&r->timer, next);
    else
        timer_cancel(&r->timer);
}

static void due(void *opaque)
{
    struct rtc *r = opaque;
    pthread_mutex_lock(&r->lock);
    update(r);
    pthread_mutex_unlock(&r->lock);
}

static void inhibit(void *opaque, unsigned n, int level)
{
    struct rtc *r = opaque;
    pthread_mutex_lock(&r->lock);
    r->inhibited = level != 0;
    update(r);
    pthread_mutex_unlock(&r->lock);
}

struct irq rtc_inhibit(struct rtc *r)
{
    return (struct irq){inhibit, r, 0};
}

/* ---- ports ---- */

static bool is_time(unsigned i)
{
    return i == SEC || i == MIN || i == HOUR || (i >= WEEKDAY && i <= YEAR) || i == RTC_CENTURY;
}

static uint8_t read_register(struct rtc *r)
{
    unsigned i = r->index;
    uint8_t val;
    if (is_time(i) && runs(r))
        fill_registers(r);
    switch (i) {
    case REG_A:
        val = r->ram[REG_A];
        if (runs(r) && sec_fraction(rtc_now(r)) >= (int64_t)NSEC_PER_SEC - UIP_NS)
            val |= A_UIP;
        return val;
    case REG_C:
        update(r);
        val = r->ram[REG_C];
        r->ram[REG_C] = 0;
        update(r);
        return val;
    case REG_D:
        return D_VALID;
    }
    return r->ram[i];
}

static void write_register(struct rtc *r, uint8_t val)
{
    unsigned i = r->index;
    bool ran = runs(r);
    update(r);
    switch (i) {
    case REG_A:
        if (ran)
            fill_registers(r);
        r->ram[REG_A] = val & ~A_UIP;
        r->seen_period = period_ns(r) ? clock_now(r->clock) / period_ns(r) : 0;
        break;
    case REG_B:
        if (ran)
            fill_registers(r);
        r->ram[REG_B] = val;
        if (val & B_SET)
            r->ram[REG_B] &= ~B_UIE; /* SET clears UIE */
        if (ran && runs(r))
            fill_registers(r);
        break;
    case REG_C:
    case REG_D:
        break;
    default:
        if (is_time(i) && ran)
            fill_registers(r);
        r->ram[i] = val;
        if (is_time(i) && ran)
            take_registers(r, sec_fraction(rtc_now(r)));
    }
    /* Time stood still and goes on; after a stopped divider the next update is half a second away. */
    if (!ran && runs(r))
        take_registers(r, i == REG_A ? (int64_t)NSEC_PER_SEC / 2 : 0);
    update(r);
}

static uint64_t rtc_read(void *opaque, uint64_t off, unsigned size)
{
    struct rtc *r = opaque;
    if (off == 0)
        return 0xff; /* the index is write-only */
    pthread_mutex_lock(&r->lock);
    uint8_t val = read_register(r);
    pthread_mutex_unlock(&r->lock);
    return val;
}

static void rtc_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct rtc *r = opaque;
    pthread_mutex_lock(&r->lock);
    if (off == 0)
        r->index = val & 0x7f;
    else
        write_register(r, (uint8_t)val);
    pthread_mutex_unlock(&r->lock);
}

static const struct bus_ops rtc_ops = {rtc_read, rtc_write, 1, 1};

int rtc_map(struct rtc *r, struct bus *pio, struct err *err)
{
    return bus_map(pio, "rtc", 0x70, 2, &rtc_ops, r, err);
}

void rtc_set_cmos(struct rtc *r, unsigned index, uint8_t val)
{
    if (index >= RAM && index < sizeof r->ram && index != RTC_CENTURY)
        r->ram[index] = val;
}

/* ---- life ---- */

/* RESET# clears the interrupt enables and flags; time and RAM are on a battery. */
static void rtc_reset(struct device *dev)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    pthread_mutex_lock(&r->lock);
    bool ran = runs(r);
    r->index = 0;
    r->ram[REG_A] = 0x26;
    r->ram[REG_B] = B_24H; /* BCD, as firmware sets it */
    r->ram[REG_C] = 0;
    if (!ran)
        take_registers(r, 0);
    r->seen_sec = floor_sec(rtc_now(r));
    r->seen_period = clock_now(r->clock) / period_ns(r);
    update(r);
    pthread_mutex_unlock(&r->lock);
}

static void rtc_destroy(struct device *dev)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    timer_cancel(&r->timer);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void rtc_pre_save(void *obj)
{
    struct rtc *r = obj;
    update(r);
    if (runs(r))
        fill_registers(r);
}

static int rtc_post_load(void *obj, uint32_t version, struct err *err)
{
    struct rtc *r = obj;
    const int64_t max_sec = TIME_MAX + TIME_MAX / 16, max = max_sec * (int64_t)NSEC_PER_SEC;
    int64_t now;
    r->index &= 0x7f;
    r->inhibited = r->inhibited != 0;
    if (__builtin_add_overflow(source_ns(r), r->offset, &now) || now > max || now < -max || r->seen_sec > max_sec ||
        r->seen_sec < -max_sec)
        return err_set(err, -EINVAL, "rtc: a time that cannot be");
    update(r);
    return 0;
}

static const struct state_field rtc_fields[] = {
    STATE_U(struct rtc, index),
    STATE_RAW(struct rtc, ram),
    STATE_U(struct rtc, inhibited),
    STATE_U(struct rtc, offset),
    STATE_U(struct rtc, seen_sec),
    STATE_U(struct rtc, seen_period),
    STATE_END,
};
static const struct state_desc rtc_state = {"rtc", 1, 1, rtc_fields, rtc_pre_save, rtc_post_load};

const struct device_type rtc_type = {
    .name = "rtc",
    .summary = "MC146818 real-time clock and CMOS RAM",
    .state = &rtc_state,
    .reset = rtc_reset,
    .destroy = rtc_destroy,
};

void rtc_new(const struct rtc_config *cfg, struct rtc **ret)
{
    struct rtc *r = xcalloc(1, sizeof *r);
    device_init(&r->dev, &rtc_type, cfg->id);
    pthread_mutex_init(&r->lock, NULL);
    r->clock = cfg->clock;
    r->irq = cfg->irq;
    r->alarm = cfg->alarm;
    r->host = cfg->host;
    r->offset = cfg->start * (int64_t)NSEC_PER_SEC;
    r->ram[REG_A] = 0x26;
    timer_init(&r->timer, cfg->loop, cfg->clock, due, r);
    rtc_reset(&r->dev);
    *ret = r;
}

struct device *rtc_device(struct rtc *r)
{
    return &r->dev;
}
