/* virtio-console (virtio 1.2, 5.3): consoles and named byte channels, each behind a character device. */
#ifndef LODGE_DEV_VIRTIO_CONSOLE_H
#define LODGE_DEV_VIRTIO_CONSOLE_H

#include "dev/virtio/virtio.h"
#include "ui/chardev.h"

#define VIRTIO_CONSOLE_PORTS_MAX 16

struct virtio_console_port_config {
    struct chardev *chr; /* not owned; on `loop`; outlives the device */
    const char *name;    /* NULL: a console (hvc0 …); else a channel, /dev/virtio-ports/NAME in the guest */
};

struct virtio_console_config {
    const char *id; /* "console0" */
    struct mem *mem;
    struct loop *loop;
    const struct virtio_console_port_config
        *ports;      /* the first is port 0, the only one a driver without MULTIPORT sees */
    unsigned nports; /* 1..VIRTIO_CONSOLE_PORTS_MAX */
};

int virtio_console_new(const struct virtio_console_config *cfg, struct virtio_dev **ret, struct err *err);

/* The terminal behind a console port has another size now. Any thread. */
void virtio_console_resize(struct virtio_dev *dev, unsigned port, uint16_t cols, uint16_t rows);

extern const struct device_type virtio_console_type;

#endif
