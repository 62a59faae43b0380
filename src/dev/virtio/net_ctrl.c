/*
 * virtio-net's control queue (virtio 1.2, 5.1.6.5) and what it controls: which frames the guest wants, its address, how
 * many queues it serves, what it accepts unfinished. Runs on the card's loop.
 */
#include <errno.h>
#include <string.h>

#include "dev/virtio/net_priv.h"
#include "net/vnet.h"

enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_VLAN = 2, CLASS_MQ = 4, CLASS_GUEST_OFFLOADS = 5 };
enum { ACK_OK = 0, ACK_ERR = 1 };

void net_ctrl_reset(struct virtio_net *n)
{
    uint64_t mac = 0;
    for (unsigned i = 0; i < 6; i++)
        mac |= (uint64_t)n->mac_config[i] << (8 * i);
    atomic_store(&n->mac, mac);
    /* A driver that knows no filters gets everything. */
    atomic_store(&n->rx_mode, NET_RX_PROMISC);
    n->nuni = n->nmulti = n->overflow = 0;
    memset(n->macs, 0, sizeof n->macs);
    memset(n->vlans, 0, sizeof n->vlans);
}

static bool in_table(const struct virtio_net *n, unsigned first, unsigned count, const uint8_t *mac)
{
    for (unsigned i = first; i < first + count; i++)
        if (!memcmp(n->macs + 6 * i, mac, 6))
            return true;
    return false;
}

bool net_filter(struct virtio_net *n, const uint8_t *eth)
{
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t mode = atomic_load_explicit(&n->rx_mode, memory_order_relaxed), mac[6];
    if (mode & NET_RX_PROMISC)
        return true;
    if (virtio_has_feature(&n->virtio, NET_F_CTRL_VLAN) && eth[12] == 0x81 && eth[13] == 0x00) {
        unsigned id = (eth[14] << 8 | eth[15]) & 0xfff;
        if (!(n->vlans[id / 8] & BIT(id % 8)))
            return false;
    }
    if (eth[0] & 1) {
        if (!memcmp(eth, broadcast, 6))
            return !(mode & NET_RX_NOBCAST);
        if (mode & NET_RX_NOMULTI)
            return false;
        return mode & NET_RX_ALLMULTI || n->overflow & 2 || in_table(n, n->nuni, n->nmulti, eth);
    }
    if (mode & NET_RX_NOUNI)
        return false;
    net_get_mac(n, mac);
    return mode & NET_RX_ALLUNI || n->overflow & 1 || !memcmp(eth, mac, 6) || in_table(n, 0, n->nuni, eth);
}

void net_apply_offloads(struct virtio_net *n)
{
    unsigned o = 0;
    if (n->offloads & NET_F_GUEST_CSUM) {
        o |= NET_OFFLOAD_CSUM;
        o |= n->offloads & NET_F_GUEST_TSO4 ? NET_OFFLOAD_TSO4 : 0;
        o |= n->offloads & NET_F_GUEST_TSO6 ? NET_OFFLOAD_TSO6 : 0;
        o |= n->offloads & NET_F_GUEST_ECN ? NET_OFFLOAD_TSO_ECN : 0;
    }
    n->net->ops->set_offload(n->net, o);
    bool large = o & (NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    n->rx_need = NET_VNET_HDR_LEN + 18 + MAX(n->net->mtu, 1500u);
    if (large || n->rx_need > NET_FRAME_MAX)
        n->rx_need = NET_FRAME_MAX;
}

/* ---- commands; `off` is where the command's data starts in e ---- */

static bool set_rx(struct virtio_net *n, const struct virtq_elem *e, uint8_t cmd)
{
    uint8_t on;
    if (cmd > 5 || virtq_read(e, 2, &on, 1) != 1 || on > 1)
        return false;
    if (!virtio_has_feature(&n->virtio, cmd < 2 ? NET_F_CTRL_RX : NET_F_CTRL_RX_EXTRA))
        return false;
    uint8_t mode = atomic_load(&n->rx_mode);
    atomic_store(&n->rx_mode, on ? mode | BIT(cmd) : mode & ~BIT(cmd));
    return true;
}

/* Reads one table at *off: its length, then addresses; those past the room in macs are counted only. */
static bool read_table(const struct virtq_elem *e, size_t *off, uint8_t *macs, unsigned room, uint16_t *ret_n,
                       bool *ret_over)
{
    uint8_t len[4];
    if (virtq_read(e, *off, len, 4) != 4)
        return false;
    uint64_t count = le32_get(len);
    *off += 4;
    if (count * 6 > e->out_len - *off)
        return false;
    *ret_over = count > room;
    *ret_n = *ret_over ? 0 : (uint16_t)count;
    if (virtq_read(e, *off, macs, *ret_n * 6u) != *ret_n * 6u)
        return false;
    *off += count * 6;
    return true;
}

static bool set_mac(struct virtio_net *n, const struct virtq_elem *e, uint8_t cmd)
{
    if (cmd == 1) {
        uint8_t b[8] = {0};
        if (!virtio_has_feature(&n->virtio, NET_F_CTRL_MAC_ADDR) || e->out_len != 8 || virtq_read(e, 2, b, 6) != 6)
            return false;
        atomic_store(&n->mac, le64_get(b));
        return true;
    }
    uint8_t macs[sizeof n->macs] = {0};
    uint16_t nuni, nmulti;
    bool over_uni, over_multi;
    size_t off = 2;
    if (cmd != 0 || !virtio_has_feature(&n->virtio, NET_F_CTRL_RX) ||
        !read_table(e, &off, macs, NET_MACS_MAX, &nuni, &over_uni) ||
        !read_table(e, &off, macs + 6 * nuni, NET_MACS_MAX - nuni, &nmulti, &over_multi) || off != e->out_len)
        return false;
    memcpy(n->macs, macs, sizeof macs);
    n->nuni = nuni;
    n->nmulti = nmulti;
    n->overflow = (over_uni ? 1 : 0) | (over_multi ? 2 : 0);
    return true;
}

static bool set_vlan(struct virtio_net *n, const struct virtq_elem *e, uint8_t cmd)
{
    uint8_t b[2];
    if (cmd > 1 || !virtio_has_feature(&n->virtio, NET_F_CTRL_VLAN) || virtq_read(e, 2, b, 2) != 2 ||
        le16_get(b) > 4095)
        return false;
    unsigned id = le16_get(b);
    if (cmd == 0)
        n->vlans[id / 8] |= BIT(id % 8);
    else
        n->vlans[id / 8] &= ~BIT(id % 8);
    return true;
}

static bool set_pairs(struct virtio_net *n, const struct virtq_elem *e, uint8_t cmd)
{
    uint8_t b[2];
    if (cmd != 0 || !virtio_has_feature(&n->virtio, NET_F_MQ) || virtq_read(e, 2, b, 2) != 2)
        return false;
    unsigned pairs = le16_get(b);
    if (!pairs || pairs > n->npairs || n->net->ops->set_queues(n->net, pairs) < 0)
        return false;
    unsigned before = atomic_exchange(&n->pairs, (uint16_t)pairs);
    /* Descriptors of a tap that were just attached must be told the offloads, and queues looked at that were off. */
    net_apply_offloads(n);
    for (unsigned i = 2 * before; i < 2 * pairs; i++)
        virtio_kick(&n->virtio, i);
    return true;
}

static bool set_offloads(struct virtio_net *n, const struct virtq_elem *e, uint8_t cmd)
{
    uint8_t b[8];
    if (cmd != 0 || !virtio_has_feature(&n->virtio, NET_F_CTRL_GUEST_OFFLOADS) || virtq_read(e, 2, b, 8) != 8)
        return false;
    uint64_t o = le64_get(b);
    if (o & ~(n->virtio.guest_features & NET_GUEST_OFFLOADS))
        return false;
    n->offloads = o;
    net_apply_offloads(n);
    return true;
}

static bool command(struct virtio_net *n, const struct virtq_elem *e)
{
    uint8_t b[2];
    if (virtq_read(e, 0, b, 2) != 2)
        return false;
    switch (b[0]) {
    case CLASS_RX:
        return set_rx(n, e, b[1]);
    case CLASS_MAC:
        return set_mac(n, e, b[1]);
    case CLASS_VLAN:
        return set_vlan(n, e, b[1]);
    case CLASS_MQ:
        return set_pairs(n, e, b[1]);
    case CLASS_GUEST_OFFLOADS:
        return set_offloads(n, e, b[1]);
    default:
        return false;
    }
}

void net_ctrl_run(struct virtio_net *n, struct virtq *q)
{
    if (!n->ctrl_elem)
        n->ctrl_elem = virtq_elem_new(q->size_max);
    do {
        virtq_disable_notify(q);
        while (virtq_pop(q, n->ctrl_elem) > 0) {
            if (!n->ctrl_elem->in_len) {
                virtq_break(q, "control command has no room for the answer");
                return;
            }
            uint8_t ack = command(n, n->ctrl_elem) ? ACK_OK : ACK_ERR;
            virtq_write(n->ctrl_elem, 0, &ack, 1);
            virtq_push(q, n->ctrl_elem, 1);
        }
    } while (virtq_enable_notify(q));
    virtq_notify(q);
}

void virtio_net_query(struct virtio_dev *dev, struct virtio_net_info *ret)
{
    struct virtio_net *n = (struct virtio_net *)dev;
    net_get_mac(n, ret->mac);
    ret->queue_pairs = atomic_load(&n->pairs);
    ret->link_up = atomic_load(&n->link_up);
    ret->promisc = atomic_load(&n->rx_mode) & NET_RX_PROMISC;
    ret->rx_frames = atomic_load(&n->rx_frames);
    ret->tx_frames = atomic_load(&n->tx_frames);
    ret->rx_dropped = atomic_load(&n->rx_dropped);
    ret->tx_dropped = atomic_load(&n->tx_dropped);
}
