/* virtio-net (virtio 1.2, 5.1): a network card. */
#ifndef LODGE_DEV_VIRTIO_NET_H
#define LODGE_DEV_VIRTIO_NET_H

#include "dev/virtio/virtio.h"
#include "net/net.h"

struct virtio_net_config {
    const char *id; /* "net0" */
    struct mem *mem;
    struct net *net; /* owned from success on; its queues say how many queue pairs the card has */
    uint8_t mac[6];
    unsigned queue_size; /* 0: 256; a power of two */
    struct loop *loop;   /* where frames move: the main loop's or an I/O thread's */
};

int virtio_net_new(const struct virtio_net_config *cfg, struct virtio_dev **ret, struct err *err);

/* What the driver programmed, for the monitor. */
struct virtio_net_info {
    uint8_t mac[6];
    unsigned queue_pairs; /* in use */
    bool link_up, promisc;
    uint64_t rx_frames, tx_frames, rx_dropped, tx_dropped;
};
/* Any thread. */
void virtio_net_query(struct virtio_dev *dev, struct virtio_net_info *ret);

extern const struct device_type virtio_net_type;

#endif
