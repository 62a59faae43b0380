/*
 * 82093AA I/O APIC, version 0x20 (with the EOI register): 24 inputs become interrupt messages. In user space only; with
 * KVM's interrupt controllers it is not created.
 */
#ifndef LODGE_DEV_IOAPIC_H
#define LODGE_DEV_IOAPIC_H

#include "cpu/irqchip.h"
#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

#define IOAPIC_PINS 24
#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_SIZE 0x1000ull

struct ioapic;

struct ioapic_config {
    const char *id;
    uint8_t apic_id;
    struct msi_sink msi; /* where messages go: lapic_set_msi_sink() */
};

void ioapic_new(const struct ioapic_config *cfg, struct ioapic **ret);
struct device *ioapic_device(struct ioapic *io);
int ioapic_map(struct ioapic *io, struct bus *mmio, uint64_t base, struct err *err);
/* Input `pin`, active high, whatever polarity the guest programs. Any thread. */
struct irq ioapic_irq(struct ioapic *io, unsigned pin);
/* A local APIC's EOI broadcast: ends level interrupts of this vector; one whose line is still high is sent again. Any
 * thread. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);

/* The canonical state (cpu/irqchip.h). No vCPU runs. -EINVAL for what cannot be. */
void ioapic_get(struct ioapic *io, struct irqchip_ioapic *ret);
int ioapic_set(struct ioapic *io, const struct irqchip_ioapic *s, struct err *err);

extern const struct device_type ioapic_type;

#endif
