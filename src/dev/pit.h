/*
 * Intel 8254 programmable interval timer and the PC's system control port B (0x61): speaker gate, refresh toggle.
 * Channel 0 drives IRQ 0. Intel 8254 data sheet (231164). Not created where KVM has the PIT.
 */
#ifndef LODGE_DEV_PIT_H
#define LODGE_DEV_PIT_H

#include "cpu/irqchip.h"
#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

#define PIT_HZ 1193182u

struct pit;

struct pit_config {
    const char *id;
    struct loop *loop; /* runs channel 0's timer */
    const struct clock *clock;
    struct irq irq; /* OUT of channel 0 */
};

void pit_new(const struct pit_config *cfg, struct pit **ret);
struct device *pit_device(struct pit *pit);
/* Ports 0x40-0x43 and 0x61. */
int pit_map(struct pit *pit, struct bus *pio, struct err *err);
/* While high, channel 0 is cut off from IRQ 0 (the HPET's legacy replacement route). */
struct irq pit_inhibit(struct pit *pit);

/* The canonical state (cpu/irqchip.h) of the channels and port 61h. No vCPU runs. -EINVAL for what cannot be. */
void pit_get(struct pit *pit, struct irqchip_pit ret[3], uint8_t *ret_port61);
int pit_set(struct pit *pit, const struct irqchip_pit s[3], uint8_t port61, struct err *err);

extern const struct device_type pit_type;

#endif
