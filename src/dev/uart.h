/*
 * National Semiconductor PC16550D UART: eight ports, one interrupt, a character device. Bytes go out at once (no baud
 * rate pacing); the baud rate only decides how long the receiver waits before it reports a partly filled FIFO.
 */
#ifndef LODGE_DEV_UART_H
#define LODGE_DEV_UART_H

#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"
#include "ui/chardev.h"

struct uart;

struct uart_config {
    const char *id;
    struct loop *loop; /* the chardev's loop */
    const struct clock *clock;
    struct irq irq;
    struct chardev *chardev; /* not owned; NULL: nothing is connected */
};

/* On the loop's thread. */
void uart_new(const struct uart_config *cfg, struct uart **ret);
struct device *uart_device(struct uart *u);
/* Eight registers from `base`; each `stride` (1, or 4 on a memory bus) bytes apart. */
int uart_map(struct uart *u, struct bus *bus, uint64_t base, unsigned stride, struct err *err);

extern const struct device_type uart_type;

#endif
