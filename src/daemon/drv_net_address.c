/* Where a guest can be reached: the addresses of its interfaces by DHCP leases or by the host's neighbour table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/net.h"

enum { SOURCE_LEASE = 0, SOURCE_AGENT = 1, SOURCE_ARP = 2 }; /* libvirt's virDomainInterfaceAddressesSource */

#define ADDRESSES_MAX 256 /* of one interface */

static void put_address(rp_dom_iface *r, const struct ipaddr *a, unsigned prefix)
{
    char text[IPADDR_TEXT_MAX];
    if (r->addrs.addrs_len == ADDRESSES_MAX)
        return;
    rp_ip_addr *x = &r->addrs.addrs_val[r->addrs.addrs_len++];
    x->type = a->bits == 128;
    x->addr = xstrdup(ipaddr_format(a, text));
    x->prefix = prefix;
}

static void add_leases(struct daemon *d, const struct domain_interface *i, rp_dom_iface *r)
{
    struct net *n = i->type == DOMAIN_NET_NETWORK && i->source ? net_find_name(d, i->source) : NULL;
    struct dnsmasq_lease *leases = NULL;
    unsigned count = n && n->active && network_own_bridge(n->now) ? dnsmasq_leases(n->now, net_dirs(d), &leases) : 0;
    for (unsigned k = 0; k < count; k++) {
        const struct network_ip *ip = network_ip_of(n->now, leases[k].ip.bits);
        if (leases[k].has_mac && !memcmp(leases[k].mac, i->mac, 6))
            put_address(r, &leases[k].ip, ip ? ip->prefix : leases[k].ip.bits);
    }
    free(leases);
}

/* "192.168.122.5 0x1 0x2 52:54:00:… * virbr0" */
static void add_neighbours(const struct domain_interface *i, rp_dom_iface *r)
{
    char line[256], ip[64], mac[32];
    unsigned flags;
    FILE *f = fopen("/proc/net/arp", "re");
    while (f && fgets(line, sizeof line, f)) {
        struct ipaddr a;
        uint8_t m[6];
        if (sscanf(line, "%63s %*s %x %31s", ip, &flags, mac) == 3 && flags & 2 && !ipaddr_parse(ip, &a) && !mac_parse(mac, m) &&
            !memcmp(m, i->mac, 6))
            put_address(r, &a, 0);
    }
    if (f)
        fclose(f);
}

static int interface_addresses(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_uint_flags);
    RET(rp_dom_ifaces);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    if (a->value == SOURCE_AGENT)
        return verr_set(&call->error, VIR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured");
    if (a->value != SOURCE_LEASE && a->value != SOURCE_ARP)
        return verr_set(&call->error, VIR_ARGUMENT_UNSUPPORTED, "Unknown IP address data source %u", a->value);
    unsigned n = MIN(g->live->n_interfaces, 2048);
    ret->ifaces.ifaces_val = xcalloc(n + 1, sizeof(rp_dom_iface));
    for (unsigned i = 0; i < n; i++) {
        const struct domain_interface *x = &g->live->interfaces[i];
        rp_dom_iface *r = &ret->ifaces.ifaces_val[ret->ifaces.ifaces_len];
        char mac[18];
        if (!x->target)
            continue;
        r->addrs.addrs_val = xcalloc(ADDRESSES_MAX, sizeof(rp_ip_addr));
        if (a->value == SOURCE_LEASE)
            add_leases(d, x, r);
        else
            add_neighbours(x, r);
        if (!r->addrs.addrs_len) {
            free(r->addrs.addrs_val);
            r->addrs.addrs_val = NULL;
            continue;
        }
        r->name = xstrdup(x->target);
        r->hwaddr = xcalloc(1, sizeof *r->hwaddr);
        *r->hwaddr = xstrdup(mac_format(x->mac, mac));
        ret->ifaces.ifaces_len++;
    }
    return RPC_DONE;
}

const struct driver driver_net_address = {
    .name = "interface addresses",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_INTERFACE_ADDRESSES, interface_addresses},
            {0},
        },
};
