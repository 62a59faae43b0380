/*
 * High precision event timers (IA-PC HPET 1.0a): a 64-bit counter at 100 MHz and three comparators with periodic mode,
 * legacy replacement routing, and interrupt messages.
 */
#ifndef LODGE_DEV_HPET_H
#define LODGE_DEV_HPET_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

#define HPET_BASE 0xfed00000ull
#define HPET_SIZE 0x400ull
#define HPET_TIMERS 3

struct hpet;

struct hpet_config {
    const char *id;
    struct loop *loop; /* runs the comparators */
    const struct clock *clock;
    struct irq legacy[2]; /* ISA IRQ 0 and 8, driven while legacy replacement is on */
    /* High while legacy replacement is on: pit_inhibit() and rtc_inhibit(). */
    struct irq inhibit;
    /* I/O APIC inputs that a timer may use: bit n of route_cap is gsi[n]. */
    uint32_t route_cap;
    struct irq gsi[32];
    struct msi_sink msi; /* .send NULL: no message delivery */
};

void hpet_new(const struct hpet_config *cfg, struct hpet **ret);
struct device *hpet_device(struct hpet *h);
int hpet_map(struct hpet *h, struct bus *mmio, uint64_t base, struct err *err);

extern const struct device_type hpet_type;

#endif
