/*
 * 8259A pair. Called by vCPU threads (ports, acknowledge) and by whoever drives an input; one lock. The INT line is set
 * with the lock held. The cascade is a level: bit 2 of the first chip's IRR is always "the second chip asks".
 */
#include "dev/pic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

#define CASCADE 2

struct chip {
    uint8_t level; /* the input lines */
    uint8_t irr, isr, imr, elcr;
    uint8_t base;       /* ICW2: vector of input 0 */
    uint8_t lowest_add; /* input with the highest priority */
    uint8_t init_step;  /* 0 operating, else the ICW that comes next (2..4) */
    uint8_t need_icw4, single, ltim, aeoi, sfnm;
    uint8_t rotate_aeoi, special_mask, read_isr, poll;
};

struct pic {
    struct device dev;
    pthread_mutex_t lock;
    struct irq intr;
    struct chip chip[2];
    uint8_t out; /* level of intr */
};

/* How far `mask`'s most urgent input is from the top; 8 when mask is empty. */
static unsigned urgency(const struct chip *c, uint8_t mask)
{
    unsigned n = 0;
    if (!mask)
        return 8;
    while (!(mask & BIT((n + c->lowest_add) & 7)))
        n++;
    return n;
}

/* The input that the chip asks for, or -1. */
static int request(const struct pic *pic, unsigned which)
{
    const struct chip *c = &pic->chip[which];
    unsigned want = urgency(c, c->irr & ~c->imr);
    if (want == 8)
        return -1;
    uint8_t busy = c->isr;
    if (c->special_mask)
        busy &= ~c->imr;
    if (c->sfnm && which == 0)
        busy &= ~BIT(CASCADE);
    return want < urgency(c, busy) ? (int)((want + c->lowest_add) & 7) : -1;
}

static void update(struct pic *pic)
{
    struct chip *m = &pic->chip[0];
    if (request(pic, 1) >= 0)
        m->irr |= BIT(CASCADE);
    else
        m->irr &= ~BIT(CASCADE);
    uint8_t out = request(pic, 0) >= 0;
    if (out != pic->out) {
        pic->out = out;
        irq_set(pic->intr, out);
    }
}

static bool is_level(const struct chip *c, unsigned n)
{
    return c->ltim || (c->elcr & BIT(n));
}

static void acknowledge(struct chip *c, unsigned n)
{
    if (!is_level(c, n))
        c->irr &= ~BIT(n);
    if (!c->aeoi)
        c->isr |= BIT(n);
    else if (c->rotate_aeoi)
        c->lowest_add = (n + 1) & 7;
}

int pic_ack(struct pic *pic)
{
    pthread_mutex_lock(&pic->lock);
    int n = request(pic, 0), vector;
    if (n < 0) {
        vector = pic->chip[0].base + 7;
    } else {
        acknowledge(&pic->chip[0], (unsigned)n);
        vector = pic->chip[0].base + n;
        if (n == CASCADE) {
            int m = request(pic, 1);
            if (m >= 0)
                acknowledge(&pic->chip[1], (unsigned)m);
            vector = pic->chip[1].base + (m < 0 ? 7 : m);
        }
    }
    update(pic);
    pthread_mutex_unlock(&pic->lock);
    return vector;
}

static void set_input(void *opaque, unsigned n, int level)
{
    struct pic *pic = opaque;
    if (n > 15 || n == CASCADE)
        return;
    struct chip *c = &pic->chip[n / 8];
    uint8_t bit = BIT(n & 7);
    pthread_mutex_lock(&pic->lock);
    if (level) {
        if (is_level(c, n & 7) || !(c->level & bit))
            c->irr |= bit;
        c->level |= bit;
    } else {
        if (is_level(c, n & 7))
            c->irr &= ~bit;
        c->level &= ~bit;
    }
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

struct irq pic_irq(struct pic *pic, unsigned n)
{
    return (struct irq){set_input, pic, n};
}

static void end_of_interrupt(struct chip *c, unsigned n, bool rotate)
{
    c->isr &= ~BIT(n);
    if (rotate)
        c->lowest_add = (n + 1) & 7;
}

/* ICW1: the initialisation sequence starts. */
static void write_icw1(struct chip *c, uint8_t val)
{
    c->need_icw4 = val & 1;
    c->single = val >> 1 & 1;
    c->ltim = val >> 3 & 1;
    c->imr = c->isr = 0;
    c->irr = c->level & (c->ltim ? 0xff : c->elcr);
    c->lowest_add = 0;
    c->aeoi = c->sfnm = c->rotate_aeoi = c->special_mask = c->read_isr = c->poll = 0;
    c->init_step = 2;
}

static void write_command(struct chip *c, uint8_t val)
{
    if (val & 0x10) {
        write_icw1(c, val);
    } else if (val & 0x08) { /* OCW3 */
        if (val & 0x04)
            c->poll = 1;
        if (val & 0x02)
            c->read_isr = val & 1;
        if (val & 0x40)
            c->special_mask = val >> 5 & 1;
    } else { /* OCW2 */
        unsigned n = val & 7, cmd = val >> 5;
        uint8_t busy = c->special_mask ? c->isr & ~c->imr : c->isr;
        switch (cmd) {
        case 0:
        case 4:
            c->rotate_aeoi = cmd >> 2;
            break;
        case 1:
        case 5:
            if (busy)
                end_of_interrupt(c, (urgency(c, busy) + c->lowest_add) & 7, cmd == 5);
            break;
        case 3:
        case 7:
            end_of_interrupt(c, n, cmd == 7);
            break;
        case 6:
            c->lowest_add = (n + 1) & 7;
            break;
        }
    }
}

static void write_data(struct chip *c, uint8_t val)
{
    switch (c->init_step) {
    case 0:
        c->imr = val;
        break;
    case 2:
        c->base = val & 0xf8;
        c->init_step = c->single ? (c->need_icw4 ? 4 : 0) : 3;
        break;
    case 3:
        c->init_step = c->need_icw4 ? 4 : 0;
        break;
    case 4:
        c->sfnm = val >> 4 & 1;
        c->aeoi = val >> 1 & 1;
        c->init_step = 0;
        break;
    }
}

static void port_write(struct pic *pic, unsigned which, uint64_t off, uint8_t val)
{
    pthread_mutex_lock(&pic->lock);
    if (off == 0)
        write_command(&pic->chip[which], val);
    else
        write_data(&pic->chip[which], val);
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static uint64_t port_read(struct pic *pic, unsigned which, uint64_t off)
{
    struct chip *c = &pic->chip[which];
    uint8_t val;
    pthread_mutex_lock(&pic->lock);
    if (c->poll) {
        int n = request(pic, which);
        c->poll = 0;
        val = 0;
        if (n >= 0) {
            acknowledge(c, (unsigned)n);
            val = 0x80 | n;
            update(pic);
        }
    } else if (off == 0) {
        val = c->read_isr ? c->isr : c->irr;
    } else {
        val = c->imr;
    }
    pthread_mutex_unlock(&pic->lock);
    return val;
}

static uint64_t first_read(void *opaque, uint64_t off, unsigned size)
{
    return port_read(opaque, 0, off);
}
static void first_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    port_write(opaque, 0, off, (uint8_t)val);
}
static uint64_t second_read(void *opaque, uint64_t off, unsigned size)
{
    return port_read(opaque, 1, off);
}
static void second_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    port_write(opaque, 1, off, (uint8_t)val);
}

/* ELCR: timer, keyboard, cascade, RTC and FPU are always edge. */
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

static uint64_t elcr_read(void *opaque, uint64_t off, unsigned size)
{
    struct pic *pic = opaque;
    pthread_mutex_lock(&pic->lock);
    uint8_t val = pic->chip[off & 1].elcr;
    pthread_mutex_unlock(&pic->lock);
    return val;
}

static void elcr_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct pic *pic = opaque;
    struct chip *c = &pic->chip[off & 1];
    pthread_mutex_lock(&pic->lock);
    uint8_t elcr = val & elcr_mask[off & 1];
    c->irr = (c->irr & ~(c->elcr | elcr)) | (c->level & elcr); /* a level request does not become an edge */
    c->elcr = elcr;
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static const struct bus_ops first_ops = {first_read, first_write, 1, 1};
static const struct bus_ops second_ops = {second_read, second_write, 1, 1};
static const struct bus_ops elcr_ops = {elcr_read, elcr_write, 1, 1};

int pic_map(struct pic *pic, struct bus *pio, struct err *err)
{
    int ret = bus_map(pio, "pic", 0x20, 2, &first_ops, pic, err);
    if (!ret)
        ret = bus_map(pio, "pic", 0xa0, 2, &second_ops, pic, err);
    if (!ret)
        ret = bus_map(pio, "elcr", 0x4d0, 2, &elcr_ops, pic, err);
    return ret;
}

static void pic_reset(struct device *dev)
{
    struct pic *pic = container_of(dev, struct pic, dev);
    pthread_mutex_lock(&pic->lock);
    for (unsigned i = 0; i < 2; i++)
        pic->chip[i] = (struct chip){.level = pic->chip[i].level};
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static void pic_destroy(struct device *dev)
{
    struct pic *pic = container_of(dev, struct pic, dev);
    pthread_mutex_destroy(&pic->lock);
    free(pic);
}

static int pic_post_load(void *obj, uint32_t version, struct err *err)
{
    struct pic *pic = obj;
    for (unsigned i = 0; i < 2; i++) {
        struct chip *c = &pic->chip[i];
        if (c->lowest_add > 7 || c->init_step == 1 || c->init_step > 4 || (c->base & 7) || (c->elcr & ~elcr_mask[i]))
            return err_set(err, -EINVAL, "pic: register values that cannot be");
    }
    irq_set(pic->intr, pic->out);
    return 0;
}

void pic_get(struct pic *pic, struct irqchip_pic ret[2])
{
    pthread_mutex_lock(&pic->lock);
    for (unsigned i = 0; i < 2; i++) {
        const struct chip *c = &pic->chip[i];
        ret[i] = (struct irqchip_pic){
            .lines = c->level,
            .irr = c->irr,
            .isr = c->isr,
            .imr = c->imr,
            .elcr = c->elcr,
            .base = c->base,
            .lowest_add = c->lowest_add,
            .next_icw = c->init_step,
            .icw4 = c->need_icw4,
            .auto_eoi = c->aeoi,
            .rotate = c->rotate_aeoi,
            .special_mask = c->special_mask,
            .special_nested = c->sfnm,
            .read_isr = c->read_isr,
            .poll = c->poll,
        };
    }
    pthread_mutex_unlock(&pic->lock);
}

int pic_set(struct pic *pic, const struct irqchip_pic s[2], struct err *err)
{
    pthread_mutex_lock(&pic->lock);
    for (unsigned i = 0; i < 2; i++)
        pic->chip[i] = (struct chip){
            .level = s[i].lines,
            .irr = s[i].irr,
            .isr = s[i].isr,
            .imr = s[i].imr,
            .elcr = s[i].elcr & elcr_mask[i],
            .base = s[i].base & 0xf8,
            .lowest_add = s[i].lowest_add & 7,
            .init_step = s[i].next_icw,
            .need_icw4 = s[i].icw4 != 0,
            .aeoi = s[i].auto_eoi != 0,
            .rotate_aeoi = s[i].rotate != 0,
            .special_mask = s[i].special_mask != 0,
            .sfnm = s[i].special_nested != 0,
            .read_isr = s[i].read_isr != 0,
            .poll = s[i].poll != 0,
        };
    int ret = pic_post_load(pic, 1, err);
    if (ret == 0)
        update(pic);
    pthread_mutex_unlock(&pic->lock);
    return ret;
}

static const struct state_field pic_fields[] = {
    STATE_RAW(struct pic, chip[0]), /* bytes throughout */
    STATE_RAW(struct pic, chip[1]),
    STATE_U(struct pic, out),
    STATE_END,
};
static const struct state_desc pic_state = {"pic", 1, 1, pic_fields, NULL, pic_post_load};

const struct device_type pic_type = {
    .name = "pic",
    .summary = "8259A interrupt controller pair",
    .state = &pic_state,
    .reset = pic_reset,
    .destroy = pic_destroy,
};

void pic_new(const struct pic_config *cfg, struct pic **ret)
{
    struct pic *pic = xcalloc(1, sizeof *pic);
    device_init(&pic->dev, &pic_type, cfg->id);
    pthread_mutex_init(&pic->lock, NULL);
    pic->intr = cfg->intr;
    *ret = pic;
}

struct device *pic_device(struct pic *pic)
{
    return &pic->dev;
}
