/*
 * Intel 8042 keyboard controller with a PS/2 keyboard and mouse (ports 0x60 and 0x64, IRQ 1 and 12), A20 gate and reset
 * pulse.
 */
#ifndef LODGE_DEV_I8042_H
#define LODGE_DEV_I8042_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"

struct i8042;

struct i8042_config {
    const char *id;
    struct irq keyboard, mouse;  /* IRQ 1 and 12 */
    struct irq a20;              /* 1: address line 20 passes (always at reset; optional) */
    void (*reset)(void *opaque); /* on the vCPU's thread, no lock held: note it, the vCPU goes on */
    void *opaque;
};

void i8042_new(const struct i8042_config *cfg, struct i8042 **ret);
struct device *i8042_device(struct i8042 *k);
int i8042_map(struct i8042 *k, struct bus *pio, struct err *err);

/* Keys and movements as the devices send them: scan code set 2 (0xe0 and 0xf0 prefixes as own bytes). Any thread.
 * Dropped while the guest has the device off; what does not fit is dropped too, whole sequences only if sent by one
 * call. */
void i8042_keys(struct i8042 *k, const uint8_t *codes, unsigned n);
/* Movement (right and up positive) since the last call and buttons (bit 0 left, 1 right, 2 middle); `wheel` toward the
 * user positive. */
void i8042_mouse(struct i8042 *k, int dx, int dy, int wheel, unsigned buttons);

extern const struct device_type i8042_type;

#endif
