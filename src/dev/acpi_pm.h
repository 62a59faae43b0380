/*
 * ACPI fixed hardware (ACPI 6.4, 4.8): PM1 event and control registers with power and sleep buttons, the PM timer, one
 * GPE block, and the reset control register at port 0xcf9. The machine is always in ACPI mode (SCI_EN reads 1, no SMI
 * command port). For hardware-reduced boards the same device gives a sleep control register and the Generic Event
 * Device's register instead.
 */
#ifndef LODGE_DEV_ACPI_PM_H
#define LODGE_DEV_ACPI_PM_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

/* The port block, from the base given to acpi_pm_map(). */
enum {
    ACPI_PM1_EVT = 0x00, /* 2 bytes status, 2 bytes enable */
    ACPI_PM1_CNT = 0x04, /* 2 bytes */
    ACPI_PM_TMR = 0x08,  /* 4 bytes, 3.579545 MHz */
    ACPI_PM_GPE0 = 0x20, /* ACPI_PM_GPE0_LEN bytes: half status, half enable */
    ACPI_PM_GPE0_LEN = 8,
    ACPI_PM_SMI_EN = 0x30, /* 4 bytes; there is no SMM */
    ACPI_PM_BLOCK_LEN = 0x40,
};
#define ACPI_PM_TIMER_HZ 3579545u

#define ACPI_RESET_PORT 0xcf9
#define ACPI_RESET_VALUE 0x06

enum acpi_pm_event {
    ACPI_PM_POWEROFF, /* the guest entered S5 */
    ACPI_PM_RESET,
};

struct acpi_pm_config {
    const char *id;
    struct loop *loop; /* runs the PM timer's overflow */
    const struct clock *clock;
    struct irq sci;  /* level */
    uint8_t s5_type; /* SLP_TYP that powers off */
    bool timer32;    /* PM timer of 32 bits instead of 24 (FADT flag TMR_VAL_EXT) */
    /* On the vCPU's thread, no lock held. It notes what is wanted; the vCPU goes on for the moment. */
    void (*event)(void *opaque, enum acpi_pm_event event);
    void *opaque;
};

struct acpi_pm;

void acpi_pm_new(const struct acpi_pm_config *cfg, struct acpi_pm **ret);
struct device *acpi_pm_device(struct acpi_pm *pm);
int acpi_pm_map(struct acpi_pm *pm, struct bus *pio, uint16_t base, struct err *err);
/* Port 0xcf9 on a board without PCI. With PCI the port lies inside 0xcf8-0xcff: give acpi_pm_reset_ops to
 * pci_set_reset_control(). */
int acpi_pm_map_reset(struct acpi_pm *pm, struct bus *pio, struct err *err);
extern const struct bus_ops acpi_pm_reset_ops; /* opaque: the acpi_pm */

/* Any thread. */
void acpi_pm_power_button(struct acpi_pm *pm);
void acpi_pm_sleep_button(struct acpi_pm *pm);
/* The RTC's interrupt: each rise sets RTC_STS. Linux uses it for alarms where the HPET has taken IRQ 8 from the RTC. */
struct irq acpi_pm_rtc(struct acpi_pm *pm);
/* Sets status bit n (0..31) of the GPE block. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n);

extern const struct device_type acpi_pm_type;

#endif
