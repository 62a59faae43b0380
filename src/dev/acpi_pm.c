/*
 * ACPI fixed hardware. Ports come from vCPU threads, buttons from any thread, the timer's overflow (only while the
 * guest asks for that interrupt) from the loop. One lock; the SCI is set with it held, events are reported without it.
 */
#include "dev/acpi_pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

enum {
    PM1_TMR = BIT(0),
    PM1_GBL = BIT(5),
    PM1_PWRBTN = BIT(8),
    PM1_SLPBTN = BIT(9),
    PM1_RTC = BIT(10),
    PM1_WAK = BIT(15)
};
#define PM1_STS_BITS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC | PM1_WAK)
#define PM1_EN_BITS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)
enum { CNT_SCI_EN = BIT(0), CNT_BM_RLD = BIT(1), CNT_SLP_TYP = 7 << 10, CNT_SLP_EN = BIT(13) };
enum { SMI_APMC_EN = BIT(5) }; /* ICH9 data sheet 13.8.3.7 */
enum { RST_CPU = BIT(2), RST_KEPT = 0x0a };

struct acpi_pm {
    struct device dev;
    pthread_mutex_t lock;
    struct acpi_pm_config cfg;
    struct timer timer;

    uint16_t sts, en, cnt;
    uint32_t gpe_sts, gpe_en;
    uint8_t reset;
    uint8_t rtc;        /* level of the RTC's line */
    uint64_t half_seen; /* halves of the PM timer's period that TMR_STS knows of */
};

static uint64_t ticks(const struct acpi_pm *pm)
{
    return (uint64_t)((__uint128_t)clock_now(pm->cfg.clock) * ACPI_PM_TIMER_HZ / NSEC_PER_SEC);
}

static unsigned timer_bits(const struct acpi_pm *pm)
{
    return pm->cfg.timer32 ? 32 : 24;
}

/* Status, interrupt line and timer after anything changed. TMR_STS is set when the timer's top bit changes. */
static void update(struct acpi_pm *pm)
{
    unsigned shift = timer_bits(pm) - 1;
    uint64_t half = ticks(pm) >> shift;
    if (half != pm->half_seen) {
        pm->half_seen = half;
        pm->sts |= PM1_TMR;
    }
    irq_set(pm->cfg.sci, (pm->sts & pm->en & PM1_EN_BITS) || (pm->gpe_sts & pm->gpe_en));
    if ((pm->en & PM1_TMR) && !(pm->sts & PM1_TMR)) {
        __uint128_t ns = (((__uint128_t)(half + 1) << shift) * NSEC_PER_SEC + ACPI_PM_TIMER_HZ - 1) / ACPI_PM_TIMER_HZ;
        timer_arm(&pm->timer, (uint64_t)ns);
    } else {
        timer_cancel(&pm->timer);
    }
}

static void overflow(void *opaque)
{
    struct acpi_pm *pm = opaque;
    pthread_mutex_lock(&pm->lock);
    update(pm);
    pthread_mutex_unlock(&pm->lock);
}

/* Replaces the bytes [off, off+size) of the `len`-byte register at `reg` by those of an access at `at`. */
static uint32_t merge(uint32_t old, unsigned reg, unsigned len, unsigned at, unsigned size, uint64_t val)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned byte = at + i - reg;
        if (byte < len)
            old = (old & ~(0xffu << byte * 8)) | (uint32_t)(val >> i * 8 & 0xff) << byte * 8;
    }
    return old;
}

/* The byte at `off` of the block. */
static uint8_t read_byte(struct acpi_pm *pm, unsigned off)
{
    switch (off) {
    case 0 ... 1:
        return (uint8_t)(pm->sts >> off * 8);
    case 2 ... 3:
        return (uint8_t)(pm->en >> (off - 2) * 8);
    case ACPI_PM1_CNT ... ACPI_PM1_CNT + 1:
        return (uint8_t)((pm->cnt | CNT_SCI_EN) >> (off - ACPI_PM1_CNT) * 8);
    case ACPI_PM_GPE0 ... ACPI_PM_GPE0 + 3:
        return (uint8_t)(pm->gpe_sts >> (off - ACPI_PM_GPE0) * 8);
    case ACPI_PM_GPE0 + 4 ... ACPI_PM_GPE0 + 7:
        return (uint8_t)(pm->gpe_en >> (off - ACPI_PM_GPE0 - 4) * 8);
    case ACPI_PM_SMI_EN:
        return SMI_APMC_EN; /* what firmware finds where somebody has set up SMM already: it leaves SMM alone */
    }
    return 0;
}

static uint64_t block_read(void *opaque, uint64_t off, unsigned size)
{
    struct acpi_pm *pm = opaque;
    /* The timer alone is read often, and changes nothing: no lock. */
    if (off >= ACPI_PM_TMR && off < ACPI_PM_TMR + 4)
        return (ticks(pm) & ((1ull << timer_bits(pm)) - 1)) >> (off - ACPI_PM_TMR) * 8;
    uint64_t val = 0;
    pthread_mutex_lock(&pm->lock);
    update(pm);
    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)read_byte(pm, (unsigned)off + i) << i * 8;
    pthread_mutex_unlock(&pm->lock);
    return val;
}

static void block_write(void *opaque, uint64_t off64, unsigned size, uint64_t val)
{
    struct acpi_pm *pm = opaque;
    unsigned off = (unsigned)off64;
    bool sleeps = false;
    pthread_mutex_lock(&pm->lock);
    update(pm);
    pm->sts &= ~merge(0, 0, 2, off, size, val);
    pm->en = merge(pm->en, 2, 2, off, size, val) & PM1_EN_BITS;
    uint32_t cnt = merge(pm->cnt, ACPI_PM1_CNT, 2, off, size, val);
    pm->cnt = cnt & (CNT_BM_RLD | CNT_SLP_TYP);
    sleeps = cnt & CNT_SLP_EN;
    pm->gpe_sts &= ~merge(0, ACPI_PM_GPE0, 4, off, size, val);
    pm->gpe_en = merge(pm->gpe_en, ACPI_PM_GPE0 + 4, 4, off, size, val);
    bool s5 = sleeps && (cnt & CNT_SLP_TYP) >> 10 == pm->cfg.s5_type;
    update(pm);
    pthread_mutex_unlock(&pm->lock);
    if (s5)
        pm->cfg.event(pm->cfg.opaque, ACPI_PM_POWEROFF);
}

static const struct bus_ops block_ops = {block_read, block_write, 1, 4};

int acpi_pm_map(struct acpi_pm *pm, struct bus *pio, uint16_t base, struct err *err)
{
    return bus_map(pio, "acpi-pm", base, ACPI_PM_BLOCK_LEN, &block_ops, pm, err);
}

/* ---- reset control ---- */

static uint64_t reset_read(void *opaque, uint64_t off, unsigned size)
{
    struct acpi_pm *pm = opaque;
    pthread_mutex_lock(&pm->lock);
    uint8_t val = pm->reset;
    pthread_mutex_unlock(&pm->lock);
    return val;
}

static void reset_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct acpi_pm *pm = opaque;
    pthread_mutex_lock(&pm->lock);
    pm->reset = val & RST_KEPT;
    pthread_mutex_unlock(&pm->lock);
    if (val & RST_CPU)
        pm->cfg.event(pm->cfg.opaque, ACPI_PM_RESET);
}

const struct bus_ops acpi_pm_reset_ops = {reset_read, reset_write, 1, 1};

int acpi_pm_map_reset(struct acpi_pm *pm, struct bus *pio, struct err *err)
{
    return bus_map(pio, "reset-control", ACPI_RESET_PORT, 1, &acpi_pm_reset_ops, pm, err);
}

/* ---- from outside ---- */

static void raise(struct acpi_pm *pm, uint16_t sts, uint32_t gpe)
{
    pthread_mutex_lock(&pm->lock);
    pm->sts |= sts;
    pm->gpe_sts |= gpe;
    update(pm);
    pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    raise(pm, PM1_PWRBTN, 0);
}

void acpi_pm_sleep_button(struct acpi_pm *pm)
{
    raise(pm, PM1_SLPBTN, 0);
}

static void rtc_set(void *opaque, unsigned n, int level)
{
    struct acpi_pm *pm = opaque;
    pthread_mutex_lock(&pm->lock);
    if (level && !pm->rtc) {
        pm->sts |= PM1_RTC;
        update(pm);
    }
    pm->rtc = level != 0;
    pthread_mutex_unlock(&pm->lock);
}

struct irq acpi_pm_rtc(struct acpi_pm *pm)
{
    return (struct irq){rtc_set, pm, 0};
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned n)
{
    raise(pm, 0, BIT(n & 31));
}

/* ---- life ---- */

static void acpi_pm_reset(struct device *dev)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    pthread_mutex_lock(&pm->lock);
    pm->half_seen = ticks(pm) >> (timer_bits(pm) - 1);
    pm->sts = pm->en = pm->cnt = 0;
    pm->gpe_sts = pm->gpe_en = 0;
    pm->reset = 0;
    update(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void acpi_pm_destroy(struct device *dev)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    timer_cancel(&pm->timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

static void acpi_pm_pre_save(void *obj)
{
    update(obj);
}

static int acpi_pm_post_load(void *obj, uint32_t version, struct err *err)
{
    struct acpi_pm *pm = obj;
    pm->sts &= PM1_STS_BITS;
    pm->en &= PM1_EN_BITS;
    pm->cnt &= CNT_BM_RLD | CNT_SLP_TYP;
    pm->reset &= RST_KEPT;
    update(pm);
    return 0;
}

static const struct state_field acpi_pm_fields[] = {
    STATE_U(struct acpi_pm, sts),     STATE_U(struct acpi_pm, en),        STATE_U(struct acpi_pm, cnt),
    STATE_U(struct acpi_pm, gpe_sts), STATE_U(struct acpi_pm, gpe_en),    STATE_U(struct acpi_pm, reset),
    STATE_U(struct acpi_pm, rtc),     STATE_U(struct acpi_pm, half_seen), STATE_END,
};
static const struct state_desc acpi_pm_state = {"acpi-pm", 1, 1, acpi_pm_fields, acpi_pm_pre_save, acpi_pm_post_load};

const struct device_type acpi_pm_type = {
    .name = "acpi-pm",
    .summary = "ACPI power management, buttons and reset control",
    .state = &acpi_pm_state,
    .reset = acpi_pm_reset,
    .destroy = acpi_pm_destroy,
};

void acpi_pm_new(const struct acpi_pm_config *cfg, struct acpi_pm **ret)
{
    struct acpi_pm *pm = xcalloc(1, sizeof *pm);
    device_init(&pm->dev, &acpi_pm_type, cfg->id);
    pthread_mutex_init(&pm->lock, NULL);
    pm->cfg = *cfg;
    timer_init(&pm->timer, cfg->loop, cfg->clock, overflow, pm);
    acpi_pm_reset(&pm->dev);
    *ret = pm;
}

struct device *acpi_pm_device(struct acpi_pm *pm)
{
    return &pm->dev;
}
