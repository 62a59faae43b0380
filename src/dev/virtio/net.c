/*
 * virtio-net: moves frames between a network backend and the guest's queues; net_ctrl.c has the control queue and the
 * filters.
 *
 * Frames move on the loop of cfg->loop only: the queues' notify and the backend's callbacks both run there. Frames go
 * straight into guest buffers: as many are taken from the ring as the next frame may need, those left over are put back
 * at the end of the batch, so between two calls nothing is in flight. What the buffers cannot hold goes to the pair's
 * `stash`, and from there into the buffers that come later. The backend's settings (offloads, queues) follow the
 * driver's lazily, from the loop: `dirty`.
 */
#include "dev/virtio/net.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "dev/virtio/net_priv.h"
#include "net/vnet.h"

#define RX_BUDGET 256 /* frames of one call, so that the loop stays alive under a flood */
#define TX_BUDGET 256
#define RX_IOV 512

/* ---- to the guest ---- */

static struct virtq_elem *held(struct net_pair *p, unsigned i)
{
    return p->rx_elem[(p->rx_first + i) % RX_CHAINS];
}

/* Takes buffers until they have room for `need` bytes; without MRG_RXBUF a frame has one only. The room. */
static size_t hold(struct virtio_net *n, struct net_pair *p, struct virtq *q, size_t need, bool mrg)
{
    size_t room = 0;
    for (unsigned i = 0; i < p->rx_held; i++)
        room += held(p, i)->in_len;
    while (room < need && p->rx_held < (mrg ? RX_CHAINS : 1)) {
        struct virtq_elem **e = &p->rx_elem[(p->rx_first + p->rx_held) % RX_CHAINS];
        if (!*e)
            *e = virtq_elem_new(q->size_max);
        if (virtq_pop(q, *e) <= 0)
            break;
        if ((*e)->in_len < NET_VNET_HDR_LEN) {
            virtq_break(q, "receive buffer is too small for its header");
            p->rx_held = 0;
            return 0;
        }
        room += (*e)->in_len;
        p->rx_held++;
    }
    return room;
}

static void put_back(struct net_pair *p, struct virtq *q)
{
    while (p->rx_held)
        virtq_unpop(q, held(p, --p->rx_held));
}

/* Gives the first buffers, which hold a frame of `len` bytes, to the guest. */
static void give(struct virtio_net *n, struct net_pair *p, struct virtq *q, size_t len)
{
    uint8_t num[2];
    unsigned used = 0;
    for (size_t sum = 0; sum < len; used++)
        sum += held(p, used)->in_len;
    le16_put(num, (uint16_t)used);
    virtq_write(held(p, 0), VNET_NUM_BUFFERS, num, sizeof num);
    for (unsigned i = 0; i < used; i++) {
        size_t part = MIN(len, held(p, i)->in_len);
        virtq_fill(q, held(p, i), (uint32_t)part);
        len -= part;
    }
    virtq_flush(q);
    p->rx_first = (p->rx_first + used) % RX_CHAINS;
    p->rx_held -= used;
    atomic_fetch_add_explicit(&n->rx_frames, 1, memory_order_relaxed);
}

/* Copies the stashed frame into held buffers, which have room for it. */
static void unstash(struct net_pair *p)
{
    size_t done = 0;
    for (unsigned i = 0; done < p->stash_len; i++)
        done += virtq_write(held(p, i), 0, p->stash + done, p->stash_len - done);
}

enum rx_result { RX_FRAME, RX_EMPTY, RX_DROPPED, RX_STASHED };

/* Receives one frame into the held buffers. */
static enum rx_result receive(struct virtio_net *n, unsigned pair, bool mrg, size_t *ret_len)
{
    struct net_pair *p = &n->pair[pair];
    struct iovec iov[RX_IOV];
    unsigned niov = 0;
    size_t room = 0;
    for (unsigned i = 0; i < p->rx_held && room < NET_FRAME_MAX; i++) {
        const struct virtq_elem *e = held(p, i);
        unsigned add = iov_slice(e->iov + e->nout, e->nin, 0, NET_FRAME_MAX - room, iov + niov, RX_IOV - 1 - niov);
        room += iov_len(iov + niov, add);
        niov += add;
    }
    unsigned nguest = niov;
    if (room < NET_FRAME_MAX)
        iov[niov++] = (struct iovec){p->stash + room, NET_FRAME_MAX - room};
    int len = n->net->ops->recv(n->net, pair, iov, niov);
    if (len == -EAGAIN)
        return RX_EMPTY;
    uint8_t head[NET_VNET_HDR_LEN + ETH_HEAD] = {0};
    if (len < NET_VNET_HDR_LEN + 14 || (len > room && !mrg)) {
        atomic_fetch_add_explicit(&n->rx_dropped, 1, memory_order_relaxed);
        return RX_DROPPED;
    }
    iov_read(iov, niov, 0, head, MIN(sizeof head, (size_t)len));
    if (!net_filter(n, head + NET_VNET_HDR_LEN))
        return RX_DROPPED;
    if (len > room) {
        iov_read(iov, nguest, 0, p->stash, room);
        p->stash_len = (size_t)len;
        return RX_STASHED;
    }
    *ret_len = (size_t)len;
    return RX_FRAME;
}

static void rx_run(struct virtio_net *n, unsigned pair, struct virtq *q)
{
    struct net_pair *p = &n->pair[pair];
    bool mrg = virtio_has_feature(&n->virtio, NET_F_MRG_RXBUF), want = true;
    if (!p->stash)
        p->stash = malloc(NET_FRAME_MAX);
    if (!p->stash)
        abort();
    p->rx_held = 0;
    virtq_disable_notify(q);
    unsigned budget = RX_BUDGET;
    while (budget) {
        size_t need = n->rx_need, len = p->stash_len;
        if (len) {
            need = len;
        } else if (n->net->ops->peek) {
            int r = n->net->ops->peek(n->net, pair);
            if (r < 0)
                break;
            need = (size_t)r;
        }
        size_t room = hold(n, p, q, need, mrg);
        if (len && room >= len) {
            unstash(p);
            p->stash_len = 0;
        } else if (len && room && (!mrg || p->rx_held == RX_CHAINS)) {
            p->stash_len = 0;
            atomic_fetch_add_explicit(&n->rx_dropped, 1, memory_order_relaxed);
            continue;
        } else if (!p->rx_held || len) {
            /* Out of buffers: until the guest gives more, and says so, frames wait. */
            if (virtq_enable_notify(q)) {
                virtq_disable_notify(q);
                budget--;
                continue;
            }
            want = false;
            break;
        } else {
            enum rx_result r = receive(n, pair, mrg, &len);
            if (r == RX_EMPTY)
                break;
            budget--;
            if (r != RX_FRAME)
                continue;
        }
        give(n, p, q, len);
    }
    put_back(p, q);
    virtq_notify(q);
    n->net->want_readable(n->net, pair, want);
    if (!budget)
        virtio_kick(&n->virtio, q->index);
}

/* ---- from the guest ---- */

static void tx_run(struct virtio_net *n, unsigned pair, struct virtq *q)
{
    struct net_pair *p = &n->pair[pair];
    unsigned budget = TX_BUDGET;
    if (!p->tx_elem)
        p->tx_elem = virtq_elem_new(q->size_max);
    struct virtq_elem *e = p->tx_elem;
    do {
        virtq_disable_notify(q);
        while (budget && virtq_pop(q, e) > 0) {
            budget--;
            int r = n->net->ops->send(n->net, pair, e->iov, e->nout);
            if (r == -EAGAIN) {
                /* The backend's writable() goes on; no doorbell is needed until then. */
                virtq_unpop(q, e);
                virtq_notify(q);
                return;
            }
            atomic_fetch_add_explicit(r < 0 ? &n->tx_dropped : &n->tx_frames, 1, memory_order_relaxed);
            virtq_push(q, e, 0);
        }
        if (!budget) {
            virtio_kick(&n->virtio, q->index);
            break;
        }
    } while (virtq_enable_notify(q));
    virtq_notify(q);
}

/* ---- events ---- */

/* Makes the backend what the driver has chosen. On the loop. */
static void settle(struct virtio_net *n)
{
    if (!atomic_exchange(&n->dirty, false))
        return;
    for (unsigned i = 0; i < n->npairs; i++)
        n->pair[i].stash_len = 0;
    unsigned pairs = atomic_load(&n->pairs);
    if (n->net->ops->set_queues(n->net, pairs) < 0)
        log_warn("%s: cannot use %u queues", n->virtio.dev.id, pairs);
    net_apply_offloads(n);
}

static void notify(struct virtq *q)
{
    struct virtio_net *n = (struct virtio_net *)q->dev;
    unsigned ctrl = virtio_has_feature(&n->virtio, NET_F_MQ) ? 2 * n->npairs : 2;
    settle(n);
    if (q->index == ctrl)
        net_ctrl_run(n, q);
    else if (q->index > ctrl)
        return;
    else if (q->index % 2)
        tx_run(n, q->index / 2, q);
    else
        rx_run(n, q->index / 2, q);
}

static void on_readable(void *opaque, unsigned pair)
{
    struct virtio_net *n = opaque;
    struct virtq *q = &n->virtio.queues[2 * pair];
    if (pair >= atomic_load(&n->pairs) || !virtq_enter(q)) {
        /* notify comes when the driver is there. */
        n->net->want_readable(n->net, pair, false);
        return;
    }
    settle(n);
    rx_run(n, pair, q);
    virtq_leave(q);
}

static void on_writable(void *opaque, unsigned pair)
{
    struct virtio_net *n = opaque;
    struct virtq *q = &n->virtio.queues[2 * pair + 1];
    if (pair >= atomic_load(&n->pairs) || !virtq_enter(q))
        return;
    settle(n);
    tx_run(n, pair, q);
    virtq_leave(q);
}

static void on_link(void *opaque, bool up)
{
    struct virtio_net *n = opaque;
    atomic_store(&n->link_up, up);
    virtio_config_changed(&n->virtio);
}

static void config_get(struct virtio_dev *dev, uint8_t *config)
{
    struct virtio_net *n = (struct virtio_net *)dev;
    net_get_mac(n, config);
    le16_put(config + 6, atomic_load(&n->link_up) ? 1 : 0);
    le16_put(config + 8, (uint16_t)n->npairs);
    le16_put(config + 10, n->net->mtu);
}

static void driver_ok(struct virtio_dev *dev)
{
    struct virtio_net *n = (struct virtio_net *)dev;
    n->offloads = dev->guest_features & NET_GUEST_OFFLOADS;
    atomic_store(&n->dirty, true);
}

static void reset(struct virtio_dev *dev)
{
    struct virtio_net *n = (struct virtio_net *)dev;
    net_ctrl_reset(n);
    n->offloads = 0;
    atomic_store(&n->pairs, 1);
    atomic_store(&n->dirty, true);
}

static const struct virtio_ops net_virtio_ops = {
    .notify = notify,
    .config_get = config_get,
    .driver_ok = driver_ok,
    .reset = reset,
};

static void destroy(struct device *dev)
{
    struct virtio_net *n = (struct virtio_net *)dev;
    if (n->net)
        n->net->attach(n->net, NULL, NULL, NULL);
    virtio_fini(&n->virtio);
    net_close(n->net);
    for (unsigned i = 0; i < n->npairs; i++) {
        for (unsigned k = 0; k < RX_CHAINS; k++)
            free(n->pair[i].rx_elem[k]);
        free(n->pair[i].tx_elem);
        free(n->pair[i].stash);
    }
    free(n->ctrl_elem);
    free(n);
}

static int post_load(void *obj, uint32_t version, struct err *err)
{
    struct virtio_net *n = obj;
    unsigned pairs = atomic_load(&n->pairs);
    if (!pairs || pairs > n->npairs)
        return err_set(err, -EINVAL, "%s: %u queue pairs are in use, there are %u", n->virtio.dev.id, pairs, n->npairs);
    if (n->nuni + n->nmulti > NET_MACS_MAX)
        return err_set(err, -EINVAL, "%s: address table is too long", n->virtio.dev.id);
    /* driver_ok turns on all offloads the driver knows; it may have chosen fewer since. */
    uint64_t offloads = n->offloads & n->virtio.guest_features;
    int code = virtio_post_load(obj, version, err);
    n->offloads = offloads;
    atomic_store(&n->dirty, true);
    return code;
}

static const struct state_field net_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_net, virtio),
    STATE_U(struct virtio_net, mac),
    STATE_U(struct virtio_net, rx_mode),
    STATE_U(struct virtio_net, nuni),
    STATE_U(struct virtio_net, nmulti),
    STATE_U(struct virtio_net, overflow),
    STATE_RAW(struct virtio_net, macs),
    STATE_RAW(struct virtio_net, vlans),
    STATE_U(struct virtio_net, offloads),
    STATE_U(struct virtio_net, pairs),
    STATE_END,
};
static const struct state_desc net_state = {
    .name = "virtio-net",
    .version = 1,
    .min_version = 1,
    .fields = net_fields,
    .pre_save = virtio_pre_save,
    .post_load = post_load,
};

const struct device_type virtio_net_type = {
    .name = "virtio-net",
    .summary = "network card",
    .state = &net_state,
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .destroy = destroy,
};

int virtio_net_new(const struct virtio_net_config *cfg, struct virtio_dev **ret, struct err *err)
{
    struct net *net = cfg->net;
    if (net->queues < 1 || 2 * net->queues + 1 > VIRTIO_QUEUES_MAX)
        return err_set(err, -EINVAL, "%s: %u queue pairs, at most %u are possible", cfg->id, net->queues,
                       (VIRTIO_QUEUES_MAX - 1) / 2);
    if (!net->vnet_hdr)
        return err_set(err, -EINVAL, "%s: network backend %s has no frame headers", cfg->id, net->backend);
    struct virtio_net *n = xcalloc(1, sizeof *n + net->queues * sizeof n->pair[0]);
    n->npairs = net->queues;
    memcpy(n->mac_config, cfg->mac, 6);
    atomic_init(&n->link_up, net->link_up);
    atomic_init(&n->pairs, 1);
    n->net = net; /* config_get may be called from now on */
    virtio_init(&n->virtio, &virtio_net_type, cfg->id, VIRTIO_ID_NET, &net_virtio_ops, cfg->mem, 2 * n->npairs + 1, 12);
    net_ctrl_reset(n);
    n->virtio.host_features |= NET_F_MAC | NET_F_STATUS | NET_F_MRG_RXBUF | NET_F_CTRL_VQ | NET_F_CTRL_RX |
                               NET_F_CTRL_RX_EXTRA | NET_F_CTRL_VLAN | NET_F_CTRL_MAC_ADDR;
    if (net->mtu >= 68)
        n->virtio.host_features |= NET_F_MTU;
    if (n->npairs > 1)
        n->virtio.host_features |= NET_F_MQ;
    if (net->offload & NET_OFFLOAD_CSUM) {
        n->virtio.host_features |= NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_CTRL_GUEST_OFFLOADS;
        if (net->offload & NET_OFFLOAD_TSO4)
            n->virtio.host_features |= NET_F_HOST_TSO4 | NET_F_GUEST_TSO4;
        if (net->offload & NET_OFFLOAD_TSO6)
            n->virtio.host_features |= NET_F_HOST_TSO6 | NET_F_GUEST_TSO6;
        if (net->offload & NET_OFFLOAD_TSO_ECN)
            n->virtio.host_features |= NET_F_HOST_ECN | NET_F_GUEST_ECN;
    }
    int code = 0;
    for (unsigned i = 0; i < 2 * n->npairs + 1 && !code; i++)
        code = virtio_queue_init(&n->virtio, i, cfg->queue_size ? cfg->queue_size : 256, cfg->loop, err);
    n->client =
        (struct net_client){.readable = on_readable, .writable = on_writable, .link_changed = on_link, .opaque = n};
    if (!code)
        code = net->attach(net, cfg->loop, &n->client, err);
    if (code < 0) {
        net->attach(net, NULL, NULL, NULL);
        n->net = NULL;
        destroy(&n->virtio.dev);
        return code;
    }
    *ret = &n->virtio;
    return 0;
}
