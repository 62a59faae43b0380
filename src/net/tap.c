/*
 * Network "tap": frames to and from a host interface (Linux Documentation/networking/tuntap), each behind the virtio
 * header so that checksum and segmentation work is left to the kernel. One descriptor for each queue pair. Frames go
 * straight between the descriptor and the guest's memory.
 *
 * Thread: all on the attached loop, but net_open() and close().
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "net/backend.h"

#define TAP_QUEUES_MAX 64

struct tap_queue {
    struct tap *tap;
    unsigned index;
    int fd;
    bool attached; /* to the interface */
    bool want, tx_blocked;
    uint32_t events;
    struct loop_fd *watch;
};

struct tap {
    struct net net;
    const struct net_client *client;
    struct tap_queue queue[];
};

static struct tap *tap_of(struct net *net)
{
    return container_of(net, struct tap, net);
}

static void update_watch(struct tap_queue *tq)
{
    uint32_t events = tq->attached ? (tq->want ? EPOLLIN : 0) | (tq->tx_blocked ? EPOLLOUT : 0) : 0;
    if (!tq->watch || events == tq->events)
        return;
    tq->events = events;
    loop_mod_fd(tq->watch, events);
}

static int tap_send(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct tap_queue *tq = &tap_of(net)->queue[q];
    ssize_t n;
    do
        n = writev(tq->fd, iov, (int)niov);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return (int)n;
    if (errno == EAGAIN) {
        tq->tx_blocked = true;
        update_watch(tq);
    }
    return -errno;
}

static int tap_recv(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct tap_queue *tq = &tap_of(net)->queue[q];
    ssize_t n;
    do
        n = readv(tq->fd, iov, (int)niov);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int)n;
}

static void tap_set_offload(struct net *net, unsigned offload)
{
    struct tap *t = tap_of(net);
    unsigned long flags = 0;
    if (offload & NET_OFFLOAD_CSUM) {
        flags |= TUN_F_CSUM;
        flags |= offload & NET_OFFLOAD_TSO4 ? TUN_F_TSO4 : 0;
        flags |= offload & NET_OFFLOAD_TSO6 ? TUN_F_TSO6 : 0;
        if (flags & (TUN_F_TSO4 | TUN_F_TSO6) && offload & NET_OFFLOAD_TSO_ECN)
            flags |= TUN_F_TSO_ECN;
    }
    for (unsigned i = 0; i < net->queues; i++)
        if (t->queue[i].attached && ioctl(t->queue[i].fd, TUNSETOFFLOAD, flags) < 0)
            log_warn("network 'tap': cannot set offloads: %s", strerror(errno));
}

static int tap_set_queues(struct net *net, unsigned active)
{
    struct tap *t = tap_of(net);
    if (!active || active > net->queues)
        return -EINVAL;
    for (unsigned i = 0; i < net->queues; i++) {
        struct tap_queue *tq = &t->queue[i];
        bool on = i < active;
        if (on == tq->attached)
            continue;
        struct ifreq ifr = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};
        if (ioctl(tq->fd, TUNSETQUEUE, &ifr) < 0)
            return -errno;
        tq->attached = on;
        update_watch(tq);
    }
    return 0;
}

static void on_queue(void *opaque, uint32_t events)
{
    struct tap_queue *tq = opaque;
    const struct net_client *client = tq->tap->client;
    if (events & EPOLLOUT && tq->tx_blocked) {
        tq->tx_blocked = false;
        update_watch(tq);
        if (client->writable)
            client->writable(client->opaque, tq->index);
    }
    if (events & EPOLLIN && tq->want)
        client->readable(client->opaque, tq->index);
    else if (events & EPOLLERR && tq->attached) {
        /* The interface was removed under us. */
        for (unsigned i = 0; i < tq->tap->net.queues; i++) {
            loop_del_fd(tq->tap->queue[i].watch);
            tq->tap->queue[i].watch = NULL;
        }
        tq->tap->net.link_up = false;
        log_error("network 'tap': the interface is gone; the guest has no network now");
        if (client->link_changed)
            client->link_changed(client->opaque, false);
    }
}

static int tap_attach(struct net *net, struct loop *loop, const struct net_client *client, struct err *err)
{
    struct tap *t = tap_of(net);
    for (unsigned i = 0; i < net->queues; i++) {
        loop_del_fd(t->queue[i].watch);
        t->queue[i].watch = NULL;
    }
    t->client = client;
    if (!client || !net->link_up)
        return 0;
    for (unsigned i = 0; i < net->queues; i++) {
        struct tap_queue *tq = &t->queue[i];
        tq->want = true;
        tq->events = tq->attached ? EPOLLIN : 0;
        tq->watch = loop_add_fd(loop, tq->fd, tq->events, on_queue, tq);
        if (!tq->watch)
            return err_set(err, -ENOMEM, "network 'tap': cannot watch the interface");
    }
    return 0;
}

static void tap_want_readable(struct net *net, unsigned q, bool on)
{
    struct tap_queue *tq = &tap_of(net)->queue[q];
    tq->want = on;
    update_watch(tq);
}

static void tap_close(struct net *net)
{
    struct tap *t = tap_of(net);
    for (unsigned i = 0; i < net->queues; i++) {
        loop_del_fd(t->queue[i].watch);
        fd_closep(&t->queue[i].fd);
    }
    free(t);
}

static int set_iff(int fd, const char *ifname, int flags)
{
    struct ifreq ifr = {.ifr_flags = (short)flags};
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", ifname);
    return ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : 0;
}

static int open_queue(const char *ifname, int *flags, struct err *err)
{
    autofd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(err, -errno, "network 'tap=%s': /dev/net/tun", ifname);
    int code = set_iff(fd, ifname, *flags);
    if (code == -EINVAL && !(*flags & IFF_MULTI_QUEUE)) {
        /* An interface that was made for several queues can be opened in no other way. */
        *flags |= IFF_MULTI_QUEUE;
        code = set_iff(fd, ifname, *flags);
    }
    switch (code) {
    case 0:
        break;
    case -EPERM:
    case -EACCES:
        return err_set(
            err, code,
            "network 'tap=%s': the interface is not yours to use; as root: ip tuntap add %s mode tap user NAME", ifname,
            ifname);
    case -EBUSY:
        return err_set(err, code, "network 'tap=%s': another program uses the interface", ifname);
    case -EINVAL:
        return err_set(err, code, "network 'tap=%s': not a tap interface%s", ifname,
                       *flags & IFF_MULTI_QUEUE ? ", or made without multi_queue" : "");
    default:
        return err_errno(err, code, "network 'tap=%s'", ifname);
    }
    int len = NET_VNET_HDR_LEN;
    if (ioctl(fd, TUNSETVNETHDRSZ, &len) < 0 || ioctl(fd, TUNSETOFFLOAD, 0ul) < 0)
        return err_errno(err, -errno, "network 'tap=%s': cannot set the frame header", ifname);
    return fd_take(fd);
}

/* MTU of the interface; -ENODEV when there is no such interface. */
static int query_mtu(const char *ifname)
{
    autofd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = {0};
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", ifname);
    if (fd < 0 || ioctl(fd, SIOCGIFMTU, &ifr) < 0)
        return -errno;
    return ifr.ifr_mtu;
}

static const struct net_ops tap_ops = {
    .send = tap_send,
    .recv = tap_recv,
    .set_offload = tap_set_offload,
    .set_queues = tap_set_queues,
    .close = tap_close,
};

static int tap_open(const struct net_options *opt, struct loop *loop, struct net **ret, struct err *err)
{
    unsigned queues = opt->queues ? opt->queues : 1;
    const char *ifname = opt->ifname;
    if (!ifname || !ifname[0] || strlen(ifname) >= IFNAMSIZ || strchr(ifname, '%'))
        return err_set(err, -EINVAL, "network 'tap': '%s' cannot be the name of an interface", ifname ? ifname : "");
    if (queues > TAP_QUEUES_MAX)
        return err_set(err, -EINVAL, "network 'tap=%s': %u queues are wanted, %u is the limit", ifname, queues,
                       TAP_QUEUES_MAX);
    /* Opening would silently make an interface that nobody set up. */
    int mtu = query_mtu(ifname);
    if (mtu == -ENODEV)
        return err_set(err, mtu, "network 'tap=%s': no such interface; as root: ip tuntap add %s mode tap user NAME",
                       ifname, ifname);
    if (mtu < 0)
        return err_errno(err, mtu, "network 'tap=%s'", ifname);

    struct tap *t = xcalloc(1, sizeof *t + queues * sizeof t->queue[0]);
    t->net = (struct net){
        .ops = &tap_ops,
        .backend = "tap",
        .vnet_hdr = true,
        .offload = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_TSO_ECN,
        .mtu = (uint16_t)MIN(mtu, 65535),
        .link_up = true,
        .attach = tap_attach,
        .want_readable = tap_want_readable,
    };
    int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0);
    for (unsigned i = 0; i < queues; i++) {
        int fd = open_queue(ifname, &flags, err);
        if (fd < 0) {
            tap_close(&t->net);
            return fd;
        }
        t->queue[i] = (struct tap_queue){.tap = t, .index = i, .fd = fd, .attached = true};
        t->net.queues = i + 1;
    }
    /* Frames must not be steered to queues that no driver serves yet. */
    int code = queues > 1 ? tap_set_queues(&t->net, 1) : 0;
    if (code < 0) {
        tap_close(&t->net);
        return err_errno(err, code, "network 'tap=%s': cannot turn queues off", ifname);
    }
    *ret = &t->net;
    return 0;
}

const struct net_backend net_tap = {
    .kind = "tap",
    .summary = "a tap interface of the host",
    .open = tap_open,
};
