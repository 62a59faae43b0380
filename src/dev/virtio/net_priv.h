/* What net.c and net_ctrl.c share: the network card itself. */
#ifndef LODGE_DEV_VIRTIO_NET_PRIV_H
#define LODGE_DEV_VIRTIO_NET_PRIV_H

#include "base/bits.h"
#include "base/log.h"
#include "dev/virtio/net.h"

/* Feature bits (5.1.3) */
#define NET_F_CSUM BIT64(0)
#define NET_F_GUEST_CSUM BIT64(1)
#define NET_F_CTRL_GUEST_OFFLOADS BIT64(2)
#define NET_F_MTU BIT64(3)
#define NET_F_MAC BIT64(5)
#define NET_F_GUEST_TSO4 BIT64(7)
#define NET_F_GUEST_TSO6 BIT64(8)
#define NET_F_GUEST_ECN BIT64(9)
#define NET_F_HOST_TSO4 BIT64(11)
#define NET_F_HOST_TSO6 BIT64(12)
#define NET_F_HOST_ECN BIT64(13)
#define NET_F_MRG_RXBUF BIT64(15)
#define NET_F_STATUS BIT64(16)
#define NET_F_CTRL_VQ BIT64(17)
#define NET_F_CTRL_RX BIT64(18)
#define NET_F_CTRL_VLAN BIT64(19)
#define NET_F_CTRL_RX_EXTRA BIT64(20)
#define NET_F_MQ BIT64(22)
#define NET_F_CTRL_MAC_ADDR BIT64(23)
#define NET_GUEST_OFFLOADS (NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN)

#define RX_CHAINS 128   /* guest buffers for one frame at most */
#define NET_MACS_MAX 64 /* addresses in the filter; with more, the filter lets all of that kind through */
#define ETH_HEAD 18     /* Ethernet header with a VLAN tag */

/* Bits of virtio_net.rx_mode, numbered as the commands of class RX (5.1.6.5.1) */
enum {
    NET_RX_PROMISC = 1,
    NET_RX_ALLMULTI = 2,
    NET_RX_ALLUNI = 4,
    NET_RX_NOMULTI = 8,
    NET_RX_NOUNI = 16,
    NET_RX_NOBCAST = 32,
};

/* A receive and a transmit queue. The loop's own. */
struct net_pair {
    struct virtq_elem *rx_elem[RX_CHAINS]; /* made on demand; a ring: rx_held of them from rx_first on are popped */
    unsigned rx_first, rx_held;
    struct virtq_elem *tx_elem;
    uint8_t *stash; /* NET_FRAME_MAX bytes: a frame the buffers had no room for */
    size_t stash_len;
};

struct virtio_net {
    struct virtio_dev virtio; /* first */
    struct net *net;
    struct net_client client;
    unsigned npairs;
    uint8_t mac_config[6]; /* after a reset */
    struct virtq_elem *ctrl_elem;
    size_t rx_need; /* bytes the next frame may have */
    _Atomic bool dirty, link_up;
    _Atomic uint64_t rx_frames, tx_frames, rx_dropped, tx_dropped;

    /* Guest-visible. Changed by the control queue, on the loop, and by resets when no queue runs. */
    _Atomic uint64_t mac; /* 6 bytes, the first one lowest */
    _Atomic uint8_t rx_mode;
    uint16_t nuni, nmulti;
    uint8_t overflow;               /* 1: more unicast addresses than the table has room for, 2: multicast */
    uint8_t macs[NET_MACS_MAX * 6]; /* nuni, then nmulti of them */
    uint8_t vlans[4096 / 8];
    uint64_t offloads;      /* NET_GUEST_OFFLOADS in use */
    _Atomic uint16_t pairs; /* in use */

    struct net_pair pair[];
};

static inline void net_get_mac(struct virtio_net *n, uint8_t mac[6])
{
    uint64_t v = atomic_load(&n->mac);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)(v >> (8 * i));
}

/* net_ctrl.c. All but reset run on the loop. */
void net_ctrl_run(struct virtio_net *n, struct virtq *q);
void net_ctrl_reset(struct virtio_net *n);
/* Whether the guest wants a frame that begins with these ETH_HEAD bytes (zeros behind its end). */
bool net_filter(struct virtio_net *n, const uint8_t *eth);
void net_apply_offloads(struct virtio_net *n);

#endif
