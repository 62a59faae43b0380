/*
 * The PC's pair of 8259A interrupt controllers with the ELCR (edge/level control) of the PIIX and ICH chip sets.
 * Intel 8259A data sheet (231468). Sixteen inputs; the second chip sits on input 2 of the first.
 */
#ifndef LODGE_DEV_PIC_H
#define LODGE_DEV_PIC_H

#include "cpu/irqchip.h"
#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

struct pic;

struct pic_config {
    const char *id;
    struct irq intr; /* INT of the first chip: LINT0 of the local APICs */
};

void pic_new(const struct pic_config *cfg, struct pic **ret);
struct device *pic_device(struct pic *pic);
/* Ports 0x20, 0xa0 (two each) and 0x4d0 (two). */
int pic_map(struct pic *pic, struct bus *pio, struct err *err);
/* Input n, 0..15 (2 is the cascade and ignored). Any thread. */
struct irq pic_irq(struct pic *pic, unsigned n);
/* The CPU's interrupt acknowledge cycle: the vector (the spurious one when nothing is pending). Any thread. */
int pic_ack(struct pic *pic);

/* The canonical state (cpu/irqchip.h). No vCPU runs. -EINVAL for what cannot be. */
void pic_get(struct pic *pic, struct irqchip_pic ret[2]);
int pic_set(struct pic *pic, const struct irqchip_pic s[2], struct err *err);

extern const struct device_type pic_type;

#endif
