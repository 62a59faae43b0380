/*
 * The state of KVM's own interrupt controllers and PIT in its canonical form (cpu/irqchip.h). Main thread, no vCPU runs.
 *
 * KVM loses where in its period a PIT channel is; a restored one starts anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "cpu/irqchip.h"
#include "cpu/kvm/kvm.h"

#define APIC_ID 0x20
#define RTE_LEVEL BIT64(15)

/* RW states of KVM's PIT. */
enum { RW_LOW = 1, RW_HIGH, RW_WORD_LOW, RW_WORD_HIGH };

static void pic_out(const struct kvm_pic_state *k, struct irqchip_pic *p)
{
    *p = (struct irqchip_pic){
        .lines = k->last_irr,
        .irr = k->irr,
        .isr = k->isr,
        .imr = k->imr,
        .elcr = k->elcr,
        .base = k->irq_base,
        .lowest_add = k->priority_add & 7,
        .next_icw = k->init_state ? (uint8_t)(k->init_state + 1) : 0,
        .icw4 = k->init4,
        .auto_eoi = k->auto_eoi,
        .rotate = k->rotate_on_auto_eoi,
        .special_mask = k->special_mask,
        .special_nested = k->special_fully_nested_mode,
        .read_isr = k->read_reg_select,
        .poll = k->poll,
    };
}

static void pic_in(const struct irqchip_pic *p, struct kvm_pic_state *k)
{
    k->last_irr = p->lines;
    k->irr = p->irr;
    k->isr = p->isr;
    k->imr = p->imr;
    k->elcr = p->elcr;
    k->irq_base = p->base;
    k->priority_add = p->lowest_add;
    k->init_state = p->next_icw ? (uint8_t)(p->next_icw - 1) : 0;
    k->init4 = p->icw4;
    k->auto_eoi = p->auto_eoi;
    k->rotate_on_auto_eoi = p->rotate;
    k->special_mask = p->special_mask;
    k->special_fully_nested_mode = p->special_nested;
    k->read_reg_select = p->read_isr;
    k->poll = p->poll;
}

static void pit_out(const struct kvm_pit_channel_state *k, struct irqchip_pit *c)
{
    uint64_t now = clock_host_ns();
    *c = (struct irqchip_pit){
        .count = k->count,
        .mode = k->mode == 0xff ? 0 : k->mode,
        .bcd = k->bcd,
        .gate = k->gate,
        .rw = k->rw_mode ? k->rw_mode : RW_WORD_LOW,
        .low = k->write_latch,
        .write_high = k->write_state == RW_WORD_HIGH,
        .read_high = k->read_state == RW_WORD_HIGH || k->count_latched == RW_WORD_HIGH,
        .latched = k->count_latched ? (k->count_latched == RW_WORD_LOW ? 2 : 1) : 0,
        .status_latched = k->status_latched,
        .status = k->status,
        .latch = k->latched_count,
        .elapsed = k->count_load_time > 0 && (uint64_t)k->count_load_time < now ? now - (uint64_t)k->count_load_time : 0,
    };
}

static uint8_t rw_state(const struct irqchip_pit *c, bool high)
{
    return c->rw == 3 ? (high ? RW_WORD_HIGH : RW_WORD_LOW) : c->rw;
}

static void pit_in(const struct irqchip_pit *c, struct kvm_pit_channel_state *k)
{
    *k = (struct kvm_pit_channel_state){
        .count = c->count,
        .mode = c->mode,
        .bcd = c->bcd,
        .gate = c->gate,
        .rw_mode = c->rw,
        .write_latch = c->low,
        .write_state = rw_state(c, c->write_high),
        .read_state = rw_state(c, c->read_high),
        .count_latched = c->latched == 2 ? RW_WORD_LOW : c->latched ? rw_state(c, c->read_high) : 0,
        .latched_count = c->latch,
        .status_latched = c->status_latched,
        .status = c->status,
    };
}

/* KVM keeps the ID in the upper byte in x2APIC mode too, unless it was told to use 32 bits (more than 255 CPUs). */
static bool moves_id(struct kvm_engine *k, unsigned cpu)
{
    uint64_t base;
    return k->engine.cfg.cpus <= 255 && kvm_get_msr(k->cpu[cpu], MSR_APIC_BASE, &base) == 0 && (base & BIT(10));
}

static int get_chip(struct kvm_engine *k, unsigned id, struct kvm_irqchip *chip, struct err *err)
{
    *chip = (struct kvm_irqchip){.chip_id = id};
    return ioctl(k->vm, KVM_GET_IRQCHIP, chip) < 0 ? err_errno(err, -errno, "KVM_GET_IRQCHIP") : 0;
}

static int set_chip(struct kvm_engine *k, const struct kvm_irqchip *chip, struct err *err)
{
    return ioctl(k->vm, KVM_SET_IRQCHIP, chip) < 0 ? err_errno(err, -errno, "KVM_SET_IRQCHIP") : 0;
}

int kvm_irqchip_get(struct engine *e, struct irqchip_state *s, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(e);
    struct kvm_irqchip chip;
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    int r;

    for (unsigned n = 0; n < 2; n++) {
        if ((r = get_chip(k, n, &chip, err)) < 0)
            return r;
        pic_out(&chip.chip.pic, &s->pic[n]);
    }
    if ((r = get_chip(k, KVM_IRQCHIP_IOAPIC, &chip, err)) < 0)
        return r;
    s->ioapic = (struct irqchip_ioapic){
        .select = (uint8_t)chip.chip.ioapic.ioregsel, .id = (uint8_t)chip.chip.ioapic.id, .lines = chip.chip.ioapic.irr};
    for (unsigned n = 0; n < IRQCHIP_PINS; n++)
        s->ioapic.rte[n] = chip.chip.ioapic.redirtbl[n].bits;
    if (ioctl(k->vm, KVM_GET_PIT2, &pit) < 0)
        return err_errno(err, -errno, "KVM_GET_PIT2");
    for (unsigned n = 0; n < 3; n++)
        pit_out(&pit.channels[n], &s->pit[n]);
    s->port61 = (uint8_t)(pit.channels[2].gate | (pit.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON ? 2 : 0));
    if (k->clock_stopped)
        clock = k->clock;
    else if (ioctl(k->vm, KVM_GET_CLOCK, &clock) < 0)
        return err_errno(err, -errno, "KVM_GET_CLOCK");
    s->kvm_clock = clock.clock;
    s->has_pic = s->has_pit = s->has_kvm_clock = 1;
    for (unsigned n = 0; n < s->cpus; n++) {
        uint8_t *page = s->lapic + n * IRQCHIP_LAPIC_PAGE;
        if (ioctl(k->cpu[n]->fd, KVM_GET_LAPIC, page) < 0)
            return err_errno(err, -errno, "KVM_GET_LAPIC");
        if (moves_id(k, n))
            le32_put(page + APIC_ID, le32_get(page + APIC_ID) >> 24);
    }
    return 0;
}

static int set_lapic(struct kvm_engine *k, unsigned n, const uint8_t *page, struct err *err)
{
    struct kvm_lapic_state l;
    _Static_assert(sizeof l == IRQCHIP_LAPIC_PAGE, "KVM's page is ours");
    memcpy(&l, page, sizeof l);
    if (moves_id(k, n))
        le32_put((uint8_t *)&l + APIC_ID, le32_get(page + APIC_ID) << 24);
    return ioctl(k->cpu[n]->fd, KVM_SET_LAPIC, &l) < 0 ? err_errno(err, -errno, "KVM does not take the local APIC of CPU %u", n) : 0;
}

static int set_pit(struct kvm_engine *k, const struct irqchip_state *s, struct err *err)
{
    struct kvm_pit_state2 pit = {.flags = s->port61 & 2 ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0};
    for (unsigned n = 0; n < 3; n++)
        pit_in(&s->pit[n], &pit.channels[n]);
    return ioctl(k->vm, KVM_SET_PIT2, &pit) < 0 ? err_errno(err, -errno, "KVM_SET_PIT2") : 0;
}

/* Edges that are high have been delivered: KVM would deliver them again. */
static int set_ioapic(struct kvm_engine *k, const struct irqchip_ioapic *io, struct err *err)
{
    struct kvm_irqchip chip;
    int r = get_chip(k, KVM_IRQCHIP_IOAPIC, &chip, err);
    if (r < 0)
        return r;
    chip.chip.ioapic.ioregsel = io->select;
    chip.chip.ioapic.id = io->id;
    chip.chip.ioapic.irr = 0;
    for (unsigned n = 0; n < IRQCHIP_PINS; n++) {
        chip.chip.ioapic.redirtbl[n].bits = io->rte[n];
        if (io->rte[n] & RTE_LEVEL)
            chip.chip.ioapic.irr |= io->lines & BIT(n);
    }
    return set_chip(k, &chip, err);
}

int kvm_irqchip_set(struct engine *e, const struct irqchip_state *s, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(e);
    int r = 0;

    for (unsigned n = 0; s->has_pic && n < 2 && r >= 0; n++) {
        struct kvm_irqchip chip;
        if ((r = get_chip(k, n, &chip, err)) < 0)
            return r;
        pic_in(&s->pic[n], &chip.chip.pic);
        r = set_chip(k, &chip, err);
    }
    if (r >= 0)
        r = set_ioapic(k, &s->ioapic, err);
    if (r >= 0 && s->has_pit)
        r = set_pit(k, s, err);
    if (r < 0)
        return r;
    if (s->has_kvm_clock) {
        k->clock = (struct kvm_clock_data){.clock = s->kvm_clock};
        if (ioctl(k->vm, KVM_SET_CLOCK, &k->clock) < 0)
            return err_errno(err, -errno, "KVM_SET_CLOCK");
    }
    for (unsigned n = 0; n < s->cpus && r >= 0; n++)
        r = set_lapic(k, n, s->lapic + n * IRQCHIP_LAPIC_PAGE, err);
    return r;
}
