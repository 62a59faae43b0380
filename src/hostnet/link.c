/* See link.h. */
#include "hostnet/link.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bits.h"
#include "base/fd.h"

#define REQUEST_MAX 1024
#define ANSWER_MAX (32 * 1024)

typedef int answer_fn(const struct nlmsghdr *h, void *opaque);

/* Sends a request and reads what comes back: an acknowledgement, or a dump's parts for fn. -errno. */
static int talk(struct nlmsghdr *h, answer_fn *fn, void *opaque)
{
    struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!s)
        return -errno;
    static const unsigned seq = 1;
    char *buf = malloc(ANSWER_MAX);
    int code = buf ? 0 : -ENOMEM;
    h->nlmsg_seq = seq;
    if (!code && (mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0 || mnl_socket_sendto(s, h, h->nlmsg_len) < 0))
        code = -errno;
    unsigned port = mnl_socket_get_portid(s);
    for (int more = MNL_CB_OK; !code && more > MNL_CB_STOP;) {
        ssize_t n = mnl_socket_recvfrom(s, buf, ANSWER_MAX);
        if (n < 0 && errno == EINTR)
            continue;
        more = n < 0 ? MNL_CB_ERROR : mnl_cb_run(buf, (size_t)n, seq, port, (mnl_cb_t)fn, opaque);
        if (more < 0)
            code = -errno;
    }
    free(buf);
    mnl_socket_close(s);
    return code;
}

static struct nlmsghdr *link_request(char *buf, unsigned type, unsigned flags, int index)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    h->nlmsg_type = (uint16_t)type;
    h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof *m);
    m->ifi_family = AF_UNSPEC;
    m->ifi_index = index;
    return h;
}

/* The kind is nested in IFLA_LINKINFO. */
static void read_kind(const struct nlattr *info, struct link *l)
{
    const struct nlattr *a;
    mnl_attr_for_each_nested(a, info) if (mnl_attr_get_type(a) == IFLA_INFO_KIND && mnl_attr_validate(a, MNL_TYPE_STRING) >= 0)
        snprintf(l->kind, sizeof l->kind, "%.*s", (int)mnl_attr_get_payload_len(a), mnl_attr_get_str(a));
}

static void read_link(const struct nlmsghdr *h, struct link *l)
{
    const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    memset(l, 0, sizeof *l);
    l->index = m->ifi_index;
    l->up = m->ifi_flags & IFF_UP;
    l->carrier = m->ifi_flags & IFF_RUNNING;
    mnl_attr_for_each(a, h, sizeof *m)
    {
        int len = mnl_attr_get_payload_len(a);
        const void *p = mnl_attr_get_payload(a);
        switch (mnl_attr_get_type(a)) {
        case IFLA_IFNAME:
            snprintf(l->name, sizeof l->name, "%.*s", len, (const char *)p);
            break;
        case IFLA_IFALIAS:
            snprintf(l->alias, sizeof l->alias, "%.*s", len, (const char *)p);
            break;
        case IFLA_ADDRESS:
            if (len == 6)
                memcpy(l->mac, p, 6);
            break;
        case IFLA_MTU:
            l->mtu = len == 4 ? mnl_attr_get_u32(a) : 0;
            break;
        case IFLA_MASTER:
            l->master = len == 4 ? (int)mnl_attr_get_u32(a) : 0;
            break;
        case IFLA_LINKINFO:
            read_kind(a, l);
            break;
        }
    }
}

struct links {
    struct link *items;
    int n;
};

static int collect_link(const struct nlmsghdr *h, void *opaque)
{
    struct links *all = opaque;
    if (h->nlmsg_type != RTM_NEWLINK)
        return MNL_CB_OK;
    struct link *p = realloc(all->items, (size_t)(all->n + 1) * sizeof *p);
    if (!p) {
        errno = ENOMEM;
        return MNL_CB_ERROR;
    }
    all->items = p;
    read_link(h, &p[all->n++]);
    return MNL_CB_OK;
}

int link_list(struct link **ret, struct err *err)
{
    char buf[REQUEST_MAX];
    struct links all = {0};
    int code = talk(link_request(buf, RTM_GETLINK, NLM_F_DUMP, 0), collect_link, &all);
    if (code) {
        free(all.items);
        return err_errno(err, code, "listing interfaces");
    }
    *ret = all.items;
    return all.n;
}

int link_find(const char *name, struct link *ret, struct err *err)
{
    char buf[REQUEST_MAX];
    struct links one = {0};
    if (strlen(name) >= IF_NAMESIZE)
        return -ENODEV;
    struct nlmsghdr *h = link_request(buf, RTM_GETLINK, NLM_F_ACK, 0);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    int code = talk(h, collect_link, &one);
    if (!code && one.n)
        *ret = one.items[0];
    else if (!code)
        code = -ENODEV;
    free(one.items);
    return code && code != -ENODEV ? err_errno(err, code, "interface %s", name) : code;
}

static int index_of(const char *name, int *ret, struct err *err)
{
    *ret = (int)if_nametoindex(name);
    return *ret ? 0 : err_set(err, -ENODEV, "there is no interface %s", name);
}

int link_add_bridge(const char *name, const uint8_t *mac, bool stp, unsigned delay, struct err *err)
{
    char buf[REQUEST_MAX];
    struct nlmsghdr *h = link_request(buf, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 0);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    if (mac)
        mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    /* In hundredths of a second. The kernel takes this before the other: with STP on it would refuse less than 2 s, which guests then
     * wait for at every start. */
    mnl_attr_put_u32(h, IFLA_BR_FORWARD_DELAY, delay * 100);
    mnl_attr_put_u32(h, IFLA_BR_STP_STATE, stp);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
    int code = talk(h, NULL, NULL);
    return code ? err_errno(err, code, "making bridge %s", name) : 0;
}

int link_add_macvtap(const char *name, const char *lower, enum link_macvtap mode, const uint8_t *mac, struct err *err)
{
    char buf[REQUEST_MAX];
    int index, code = index_of(lower, &index, err);
    if (code)
        return code;
    struct nlmsghdr *h = link_request(buf, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 0);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    mnl_attr_put_u32(h, IFLA_LINK, (uint32_t)index);
    if (mac)
        mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "macvtap");
    struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
    mnl_attr_put_u32(h, IFLA_MACVLAN_MODE, mode);
    mnl_attr_nest_end(h, data);
    mnl_attr_nest_end(h, info);
    code = talk(h, NULL, NULL);
    return code ? err_errno(err, code, "making macvtap %s on %s", name, lower) : 0;
}

int link_add_tap(const char *name, bool multiqueue, struct err *err)
{
    autofd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, -errno, "/dev/net/tun");
    struct ifreq r = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL | (multiqueue ? IFF_MULTI_QUEUE : 0))};
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNSETPERSIST, 1) < 0)
        return err_errno(err, -errno, "making tap device %s", name);
    return 0;
}

int link_delete(const char *name, struct err *err)
{
    char buf[REQUEST_MAX];
    int index, code = index_of(name, &index, err);
    if (code)
        return code;
    code = talk(link_request(buf, RTM_DELLINK, NLM_F_ACK, index), NULL, NULL);
    return code ? err_errno(err, code, "removing interface %s", name) : 0;
}

/* An RTM_NEWLINK on a link that is there changes it. */
#define LINK_CHANGE(name, what, err, put)                                                                                  \
    do {                                                                                                                   \
        char buf[REQUEST_MAX];                                                                                             \
        int index, code = index_of(name, &index, err);                                                                     \
        if (code)                                                                                                          \
            return code;                                                                                                   \
        struct nlmsghdr *h = link_request(buf, RTM_NEWLINK, NLM_F_ACK, index);                                             \
        put;                                                                                                               \
        code = talk(h, NULL, NULL);                                                                                        \
        return code ? err_errno(err, code, "interface %s: " what, name) : 0;                                               \
    } while (0)

int link_set_up(const char *name, bool up, struct err *err)
{
    LINK_CHANGE(name, "up or down", err, {
        struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
        m->ifi_change = IFF_UP;
        m->ifi_flags = up ? IFF_UP : 0;
    });
}

int link_set_mtu(const char *name, unsigned mtu, struct err *err)
{
    LINK_CHANGE(name, "MTU", err, mnl_attr_put_u32(h, IFLA_MTU, mtu));
}

int link_set_mac(const char *name, const uint8_t *mac, struct err *err)
{
    LINK_CHANGE(name, "MAC address", err, mnl_attr_put(h, IFLA_ADDRESS, 6, mac));
}

int link_set_alias(const char *name, const char *alias, struct err *err)
{
    LINK_CHANGE(name, "alias", err, mnl_attr_put_strz(h, IFLA_IFALIAS, alias));
}

int link_set_master(const char *name, const char *master, struct err *err)
{
    int to = 0, bad = master ? index_of(master, &to, err) : 0;
    if (bad)
        return bad;
    LINK_CHANGE(name, "joining its bridge", err, mnl_attr_put_u32(h, IFLA_MASTER, (uint32_t)to));
}

int link_set_isolated(const char *name, bool on, struct err *err)
{
    LINK_CHANGE(name, "isolation", err, {
        struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
        m->ifi_family = AF_BRIDGE;
        h->nlmsg_type = RTM_SETLINK;
        struct nlattr *port = mnl_attr_nest_start(h, IFLA_PROTINFO);
        mnl_attr_put_u8(h, IFLA_BRPORT_ISOLATED, on);
        mnl_attr_nest_end(h, port);
    });
}

static int af_of(const struct ipaddr *a)
{
    return a->bits == 32 ? AF_INET : AF_INET6;
}

int link_add_addr(const char *name, const struct ipaddr *a, unsigned prefix, struct err *err)
{
    char buf[REQUEST_MAX], text[IPADDR_TEXT_MAX];
    int index, code = index_of(name, &index, err);
    if (code)
        return code;
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    h->nlmsg_type = RTM_NEWADDR;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK;
    struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof *m);
    m->ifa_family = (uint8_t)af_of(a);
    m->ifa_prefixlen = (uint8_t)prefix;
    m->ifa_index = (unsigned)index;
    mnl_attr_put(h, IFA_LOCAL, a->bits / 8u, a->bytes);
    mnl_attr_put(h, IFA_ADDRESS, a->bits / 8u, a->bytes);
    if (a->bits == 32 && prefix < 31) {
        struct ipaddr last = ipaddr_last(a, prefix);
        mnl_attr_put(h, IFA_BROADCAST, 4, last.bytes);
    } else if (a->bits == 128)
        mnl_attr_put_u32(h, IFA_FLAGS, IFA_F_NODAD); /* a bridge without ports has no link to look for others on */
    code = talk(h, NULL, NULL);
    return code ? err_errno(err, code, "interface %s: address %s/%u", name, ipaddr_format(a, text), prefix) : 0;
}

int link_add_route(const char *name, const struct ipaddr *dst, unsigned prefix, const struct ipaddr *gateway, unsigned metric,
                   struct err *err)
{
    char buf[REQUEST_MAX], text[IPADDR_TEXT_MAX];
    int index, code = index_of(name, &index, err);
    if (code)
        return code;
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    h->nlmsg_type = RTM_NEWROUTE;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK;
    struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof *m);
    m->rtm_family = (uint8_t)af_of(dst);
    m->rtm_dst_len = (uint8_t)prefix;
    m->rtm_table = RT_TABLE_MAIN;
    m->rtm_protocol = RTPROT_STATIC;
    m->rtm_scope = RT_SCOPE_UNIVERSE;
    m->rtm_type = RTN_UNICAST;
    mnl_attr_put(h, RTA_DST, dst->bits / 8u, dst->bytes);
    mnl_attr_put(h, RTA_GATEWAY, gateway->bits / 8u, gateway->bytes);
    mnl_attr_put_u32(h, RTA_OIF, (uint32_t)index);
    if (metric)
        mnl_attr_put_u32(h, RTA_PRIORITY, metric);
    code = talk(h, NULL, NULL);
    return code ? err_errno(err, code, "route to %s/%u on %s", ipaddr_format(dst, text), prefix, name) : 0;
}

struct each {
    int (*fn)(void *opaque, int index, const struct ipaddr *a, unsigned prefix);
    void *opaque;
    int result;
};

static int take_addr(const struct nlmsghdr *h, const struct nlattr *a, struct ipaddr *ret)
{
    (void)h;
    unsigned len = mnl_attr_get_payload_len(a);
    if (len != 4 && len != 16)
        return -1;
    ret->bits = (uint8_t)(len * 8);
    memcpy(ret->bytes, mnl_attr_get_payload(a), len);
    return 0;
}

static int each_addr(const struct nlmsghdr *h, void *opaque)
{
    struct each *e = opaque;
    const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    struct ipaddr ip = {0};
    if (h->nlmsg_type != RTM_NEWADDR || e->result)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof *m)
    {
        unsigned type = mnl_attr_get_type(a);
        if (type == IFA_LOCAL || (type == IFA_ADDRESS && !ip.bits))
            take_addr(h, a, &ip);
    }
    if (ip.bits)
        e->result = e->fn(e->opaque, (int)m->ifa_index, &ip, m->ifa_prefixlen);
    return MNL_CB_OK;
}

static int each_route(const struct nlmsghdr *h, void *opaque)
{
    struct each *e = opaque;
    const struct rtmsg *m = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    struct ipaddr dst = {0};
    int index = 0;
    if (h->nlmsg_type != RTM_NEWROUTE || e->result || m->rtm_table != RT_TABLE_MAIN || m->rtm_type != RTN_UNICAST)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof *m)
    {
        if (mnl_attr_get_type(a) == RTA_DST)
            take_addr(h, a, &dst);
        else if (mnl_attr_get_type(a) == RTA_OIF)
            index = (int)mnl_attr_get_u32(a);
    }
    if (dst.bits)
        e->result = e->fn(e->opaque, index, &dst, m->rtm_dst_len);
    return MNL_CB_OK;
}

static int dump(unsigned type, size_t body, answer_fn *cb, struct each *e, const char *what, struct err *err)
{
    char buf[REQUEST_MAX];
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    h->nlmsg_type = (uint16_t)type;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    mnl_nlmsg_put_extra_header(h, body);
    int code = talk(h, cb, e);
    return code ? err_errno(err, code, "%s", what) : e->result;
}

int link_each_addr(int (*fn)(void *opaque, int index, const struct ipaddr *a, unsigned prefix), void *opaque, struct err *err)
{
    struct each e = {fn, opaque, 0};
    return dump(RTM_GETADDR, sizeof(struct ifaddrmsg), each_addr, &e, "listing addresses", err);
}

int link_each_route(int (*fn)(void *opaque, int index, const struct ipaddr *dst, unsigned prefix), void *opaque, struct err *err)
{
    struct each e = {fn, opaque, 0};
    return dump(RTM_GETROUTE, sizeof(struct rtmsg), each_route, &e, "listing routes", err);
}

static int read_stats(const struct nlmsghdr *h, void *opaque)
{
    const struct nlattr *a;
    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
    {
        struct rtnl_link_stats64 s;
        if (mnl_attr_get_type(a) != IFLA_STATS64 || mnl_attr_get_payload_len(a) < sizeof s)
            continue;
        memcpy(&s, mnl_attr_get_payload(a), sizeof s);
        *(struct link_stats *)opaque = (struct link_stats){s.rx_bytes, s.rx_packets, s.rx_errors, s.rx_dropped,
                                                           s.tx_bytes, s.tx_packets, s.tx_errors, s.tx_dropped};
    }
    return MNL_CB_OK;
}

int link_stats(const char *name, struct link_stats *ret)
{
    char buf[REQUEST_MAX];
    int index, code = index_of(name, &index, NULL);
    if (code)
        return code;
    memset(ret, 0, sizeof *ret);
    return talk(link_request(buf, RTM_GETLINK, NLM_F_ACK, index), read_stats, ret);
}
