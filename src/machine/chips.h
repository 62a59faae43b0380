/* What the boards share. For src/machine only; called while the machine is built. */
#ifndef LODGE_MACHINE_CHIPS_H
#define LODGE_MACHINE_CHIPS_H

#include "dev/rtc.h"
#include "machine/acpi.h"
#include "machine/machine.h"

/* Local APICs, I/O APIC and (`pic`) the 8259 pair, or the engine's own; vm->msi. */
int chips_interrupts(struct vm *vm, bool pic, struct err *err);
/* The domain's <serial> ports. */
int chips_uarts(struct vm *vm, struct err *err);
/* The RTC, at IRQ 8; `alarm` as in struct rtc_config. */
int chips_rtc(struct vm *vm, struct irq alarm, struct rtc **ret, struct err *err);
int chips_debugexit(struct vm *vm, struct err *err);
/* For chips' hooks: opaque is the struct vm. Any thread. */
void chips_poweroff(void *opaque);
void chips_reset(void *opaque);

#endif
