/*
 * Power management of a board without ACPI fixed hardware (ACPI 6.5, 4.1 hardware-reduced): sleep control and status registers, a
 * Generic Event Device for the buttons, and the reset register. The smallest thing with which a guest can be asked to power off.
 */
#ifndef LODGE_DEV_GED_H
#define LODGE_DEV_GED_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

#define GED_SIZE 0x1000
#define GED_EVENTS 0x0         /* 32 bits: 1 power button, 2 sleep button; reading clears and lowers the interrupt */
#define GED_SLEEP_CONTROL 0x10 /* 1 byte: SLP_TYP in bits 2-4, SLP_EN bit 5 (4.8.3.7) */
#define GED_SLEEP_STATUS 0x11  /* 1 byte */
#define GED_RESET_PORT 0xcf9   /* 1 byte: bit 2 resets, as on a PC */
#define GED_RESET_VALUE 0x06
#define GED_S5 5

struct ged;

struct ged_config {
    const char *id;
    struct irq irq;
    /* What the guest asks for. Any vCPU thread, without the device's lock. */
    void (*poweroff)(void *opaque);
    void (*reset)(void *opaque);
    void *opaque;
};

void ged_new(const struct ged_config *cfg, struct ged **ret);
struct device *ged_device(struct ged *g);
int ged_map(struct ged *g, struct bus *mmio, uint64_t base, struct bus *pio, struct err *err);
/* The power button is pressed. Any thread. */
void ged_power_button(struct ged *g);

extern const struct device_type ged_type;

#endif
