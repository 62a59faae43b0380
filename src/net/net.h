/*
 * A network backend as a NIC sees it: frames in, frames out, each behind a 12-byte virtio_net_hdr (v1, little-endian)
 * when the backend says `vnet_hdr`, so that checksum and segmentation work passes through untouched. Backends stand in
 * net/backends.c.
 */
#ifndef LODGE_NET_NET_H
#define LODGE_NET_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/loop.h"

#define NET_VNET_HDR_LEN 12
#define NET_FRAME_MAX 65562 /* largest frame with vnet header that passes, segmentation offload included */

enum {
    NET_OFFLOAD_CSUM = 1,
    NET_OFFLOAD_TSO4 = 2,
    NET_OFFLOAD_TSO6 = 4,
    NET_OFFLOAD_TSO_ECN = 8,
    NET_OFFLOAD_UFO = 16,
    NET_OFFLOAD_USO = 32,
};

struct net;

struct net_ops {
    /*
     * Sends one frame from queue `q`. Frame length when taken; -EAGAIN: later, `writable` will be called. Other -errno:
     * dropped.
     */
    int (*send)(struct net *net, unsigned q, const struct iovec *iov, unsigned niov);
    /*
     * Receives one frame of queue `q` into iov. Length (vnet header included), -EAGAIN when there is none: `readable`
     * will be called. What does not fit is cut off and -EMSGSIZE returned.
     */
    int (*recv)(struct net *net, unsigned q, const struct iovec *iov, unsigned niov);
    /*
     * Optional: length of what recv would give next (vnet header included), or -EAGAIN as recv. A NIC then need not
     * look for more room than that.
     */
    int (*peek)(struct net *net, unsigned q);
    /* What the guest's driver accepts to receive (NET_OFFLOAD_*). */
    void (*set_offload)(struct net *net, unsigned offload);
    int (*set_queues)(struct net *net, unsigned active);
    void (*close)(struct net *net);
};

/* Who uses the backend. Called on the loop's thread given to net_attach(). */
struct net_client {
    void (*readable)(void *opaque, unsigned q);
    void (*writable)(void *opaque, unsigned q);
    void (*link_changed)(void *opaque, bool up);
    void *opaque;
};

struct net {
    const struct net_ops *ops;
    const char *backend; /* "passt", "tap" */
    bool vnet_hdr;
    unsigned offload; /* NET_OFFLOAD_* it can take from the guest */
    unsigned queues;  /* queue pairs */
    uint16_t mtu;
    bool link_up;
    /* Starts (or with NULL stops) delivery to `client` on `loop`. Set by the backend. */
    int (*attach)(struct net *net, struct loop *loop, const struct net_client *client, struct err *err);
    /* Asks to be told (or not) of readable frames on q: a NIC without buffers turns it off. Loop's thread. */
    void (*want_readable)(struct net *net, unsigned q, bool on);
};

struct net_options {
    const char *kind; /* "user" or "tap" */
    const char
        *ifname; /* the tap; user: the interface whose addresses the guest gets, NULL: the one of the default route */
    unsigned queues;
    /*
     * Ports of the host that lead to the guest (user), NULL-terminated: "tcp:8080:80",
     * "udp:[ADDR:]FIRST[-LAST][:GUEST]" with exceptions ",~PORT[-LAST]" behind, "tcp:[ADDR:]~22" (all but that),
     * "tcp:[ADDR:]all". ADDR of IPv6 in brackets, may have
     * "%interface". Without ADDR: on all of the host's addresses.
     */
    const char *const *publish;
    const uint8_t *mac; /* 6 bytes */
};

int net_open(const struct net_options *opt, struct loop *loop, struct net **ret, struct err *err);
static inline void net_close(struct net *net)
{
    if (net)
        net->ops->close(net);
}

#endif
