/*
 * What every device has in common. A chip's struct starts with `struct device`; its own header declares its options
 * (`struct uart_config`) and `int uart_new(const struct uart_config *, struct uart **ret, struct err *)`. A board creates devices,
 * maps them on buses, and keeps them in a list for reset, state and destruction. A device owns its options, its descriptors, its lock.
 *
 * Device callbacks run on any vCPU thread, the main thread, or an I/O thread: each takes the device's lock itself, and calls out
 * (raises an interrupt, completes a request) in an order that cannot deadlock: interrupt controllers are called with device locks
 * held, and never call a device back but through eoi hooks without their own lock.
 */
#ifndef LODGE_DEV_DEVICE_H
#define LODGE_DEV_DEVICE_H

#include "base/clock.h"
#include "base/err.h"
#include "base/loop.h"
#include "mem/mem.h"
#include "state/state.h"

struct device;

/* One per kind; all of them stand in dev/types.c. */
struct device_type {
    const char *name;               /* "uart", "virtio-blk" */
    const char *summary;            /* one line for help */
    const struct state_desc *state; /* guest-visible state; the object is the struct device */
    /* Puts the guest-visible state to that after power-on. Requests in flight complete or are dropped first. */
    void (*reset)(struct device *dev);
    /* Frees the device. NULL-safe through device_free(). Nothing maps it any more. */
    void (*destroy)(struct device *dev);
    /* Optional: the VM is about to stop (true) or go on (false): drain requests, hold or start work. Main thread. */
    void (*pause)(struct device *dev, bool paused);
};

struct device {
    const struct device_type *type;
    char id[32]; /* unique in its machine: "uart0" */
    struct device *next;
};

static inline void device_reset(struct device *dev)
{
    if (dev->type->reset)
        dev->type->reset(dev);
}
static inline void device_free(struct device *dev)
{
    if (dev)
        dev->type->destroy(dev);
}
void device_init(struct device *dev, const struct device_type *type, const char *id);

/* Every kind of device, NULL-terminated. */
extern const struct device_type *const device_types[];

#endif
