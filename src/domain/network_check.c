/* Can this network be? The first thing that is wrong, with its line. See network.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/network.h"
#include "domain/xml.h"

#define IFNAME_MAX 15

struct check {
    const struct network *n;
    const char *name; /* of the file */
    struct err *err;
};

#define BAD(k, line, fmt, ...) err_set((k)->err, -EINVAL, "%s:%d: " fmt, (k)->name, line, __VA_ARGS__)

/* What goes into configuration files and command lines of others: no blanks, no control characters. */
static bool word_ok(const char *s, const char *also)
{
    if (!*s || *s == '-' || strlen(s) > 255)
        return false;
    for (; *s; s++)
        if (!((*s >= '0' && *s <= '9') || ((*s | 32) >= 'a' && (*s | 32) <= 'z') || strchr("-_.", *s) || strchr(also, *s)))
            return false;
    return true;
}

static bool ifname_ok(const char *s)
{
    return word_ok(s, "") && strlen(s) <= IFNAME_MAX && *s != '.';
}

static bool line_ok(const char *s)
{
    if (!s)
        return true;
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            return false;
    return true;
}

static int check_host(const struct check *k, const struct network_ip *ip, const struct network_host *h)
{
    char text[IPADDR_TEXT_MAX];
    if (h->ip.bits && !ipaddr_in(&h->ip, &ip->address, ip->prefix))
        return BAD(k, h->line, "<host ip>: %s is not in the network's subnet", ipaddr_format(&h->ip, text));
    if (h->ip.bits && !ipaddr_compare(&h->ip, &ip->address))
        return BAD(k, h->line, "<host ip>: %s is the network's own address", ipaddr_format(&h->ip, text));
    if (!h->has_mac && !h->id && !h->name)
        return BAD(k, h->line, "<host>: a %s, an id or a name is needed", "MAC address");
    if (!h->ip.bits && !h->name)
        return BAD(k, h->line, "<host>: an %s or a name is needed", "IP address");
    if (h->name && !word_ok(h->name, ""))
        return BAD(k, h->line, "<host name>: '%.60s' is not a host name", h->name);
    if (h->id && !word_ok(h->id, ":*"))
        return BAD(k, h->line, "<host id>: '%.60s' is not a client id", h->id);
    for (const struct network_host *o = ip->hosts; o < h; o++) {
        if (h->has_mac && o->has_mac && !memcmp(h->mac, o->mac, 6))
            return BAD(k, h->line, "<host mac>: %s is there twice", mac_format(h->mac, text));
        if (h->ip.bits && !ipaddr_compare(&h->ip, &o->ip))
            return BAD(k, h->line, "<host ip>: %s is there twice", ipaddr_format(&h->ip, text));
    }
    return 0;
}

static int check_range(const struct check *k, const struct network_ip *ip, const struct network_range *g)
{
    char a[IPADDR_TEXT_MAX], b[IPADDR_TEXT_MAX];
    ipaddr_format(&g->start, a);
    ipaddr_format(&g->end, b);
    struct ipaddr net = ipaddr_mask(&ip->address, ip->prefix), last = ipaddr_last(&ip->address, ip->prefix);
    if (!ipaddr_in(&g->start, &ip->address, ip->prefix) || !ipaddr_in(&g->end, &ip->address, ip->prefix))
        return BAD(k, g->line, "<range>: %s to %s is not in the network's subnet", a, b);
    if (ipaddr_compare(&g->start, &g->end) > 0)
        return BAD(k, g->line, "<range>: %s comes after %s", a, b);
    if (ip->address.bits == 32 && ip->prefix < 31 && (!ipaddr_compare(&g->start, &net) || !ipaddr_compare(&g->end, &last)))
        return BAD(k, g->line, "<range>: %s to %s holds the subnet's own or its broadcast address", a, b);
    for (const struct network_range *o = ip->ranges; o < g; o++)
        if (ipaddr_compare(&g->start, &o->end) <= 0 && ipaddr_compare(&o->start, &g->end) <= 0)
            return BAD(k, g->line, "<range>: %s to %s overlaps another range", a, b);
    return 0;
}

static int check_ip(const struct check *k, const struct network_ip *ip)
{
    char text[IPADDR_TEXT_MAX];
    int code = 0;
    if (ip->prefix > ip->address.bits || ip->prefix == 0)
        return BAD(k, ip->line, "<ip>: a prefix of %u bits makes no sense", ip->prefix);
    for (const struct network_ip *o = k->n->ips; o < ip; o++) {
        if (ipaddr_overlap(&ip->address, ip->prefix, &o->address, o->prefix))
            return BAD(k, ip->line, "<ip>: the subnet of %s overlaps another of this network", ipaddr_format(&ip->address, text));
        if (ip->has_dhcp && o->has_dhcp && o->address.bits == ip->address.bits)
            return BAD(k, ip->line, "<dhcp>: only one %s subnet of a network can have it", ip->address.bits == 32 ? "IPv4" : "IPv6");
    }
    for (unsigned i = 0; i < ip->n_ranges && !code; i++)
        code = check_range(k, ip, &ip->ranges[i]);
    for (unsigned i = 0; i < ip->n_hosts && !code; i++)
        code = check_host(k, ip, &ip->hosts[i]);
    if (!code && (!line_ok(ip->tftp_root) || (ip->tftp_root && *ip->tftp_root != '/')))
        code = BAD(k, ip->line, "<tftp root>: '%.60s' is not an absolute path", ip->tftp_root);
    if (!code && ((ip->bootp_file && !word_ok(ip->bootp_file, "/:?=&")) || (ip->bootp_server && !word_ok(ip->bootp_server, ":"))))
        code = BAD(k, ip->line, "<bootp>: '%.60s' cannot be used", ip->bootp_file ? ip->bootp_file : ip->bootp_server);
    return code;
}

static int check_dns(const struct check *k)
{
    const struct network *n = k->n;
    for (unsigned i = 0; i < n->n_dns_hosts; i++) {
        if (!n->dns_hosts[i].ip.bits || !n->dns_hosts[i].n_names)
            return err_set(k->err, -EINVAL, "%s: <dns><host>: an address and a <hostname> are needed", k->name);
        for (unsigned m = 0; m < n->dns_hosts[i].n_names; m++)
            if (!word_ok(n->dns_hosts[i].names[m], ""))
                return err_set(k->err, -EINVAL, "%s: <hostname>: '%.60s' is not a host name", k->name, n->dns_hosts[i].names[m]);
    }
    for (unsigned i = 0; i < n->n_forwarders; i++) {
        const struct network_forwarder *f = &n->forwarders[i];
        if ((!f->address && !f->domain) || (f->address && !word_ok(f->address, ":#%")) || (f->domain && !word_ok(f->domain, "")))
            return err_set(k->err, -EINVAL, "%s: <forwarder>: an address or a domain is needed", k->name);
    }
    for (unsigned i = 0; i < n->n_txts; i++)
        if (!n->txts[i].name || !word_ok(n->txts[i].name, "") || !line_ok(n->txts[i].value))
            return err_set(k->err, -EINVAL, "%s: <txt>: a name without blanks, and a value of one line are needed", k->name);
    for (unsigned i = 0; i < n->n_srvs; i++) {
        const struct network_srv *s = &n->srvs[i];
        if (!s->service || !word_ok(s->service, "") || !s->protocol || !word_ok(s->protocol, "") ||
            (s->domain && !word_ok(s->domain, "")) || (s->target && !word_ok(s->target, "")))
            return err_set(k->err, -EINVAL, "%s: <srv>: a service and a protocol, without blanks, are needed", k->name);
    }
    return 0;
}

static int check_publishes(const struct check *k)
{
    const struct network *n = k->n;
    for (unsigned i = 0; i < n->n_publishes; i++) {
        const struct network_publish *p = &n->publishes[i];
        bool in = false;
        if (!p->protocol || (strcmp(p->protocol, "tcp") && strcmp(p->protocol, "udp")))
            return BAD(k, p->line, "<lodge:publish protocol>: '%.20s' is neither tcp nor udp", p->protocol ? p->protocol : "");
        if (!p->port || !p->to.bits)
            return BAD(k, p->line, "<lodge:publish>: %s are needed", "a port and an address (to)");
        for (unsigned m = 0; m < n->n_ips; m++)
            in |= ipaddr_in(&p->to, &n->ips[m].address, n->ips[m].prefix);
        if (!in)
            return BAD(k, p->line, "<lodge:publish to>: not an address of the network's %s", "subnets");
        if (p->has_host && p->host.bits != p->to.bits)
            return BAD(k, p->line, "<lodge:publish hostAddress>: not of the family of '%s'", "to");
        for (unsigned m = 0; m < i; m++)
            if (n->publishes[m].port == p->port && !strcmp(n->publishes[m].protocol, p->protocol) &&
                n->publishes[m].to.bits == p->to.bits && !ipaddr_compare(&n->publishes[m].host, &p->host))
                return BAD(k, p->line, "<lodge:publish>: port %u is published twice", p->port);
    }
    return 0;
}

static int check_forward(const struct check *k)
{
    const struct network *n = k->n;
    const char *mode = network_forward_name(n->forward);
    if (n->forward == NETWORK_OTHER)
        return err_set(k->err, -EOPNOTSUPP, "%s: <forward mode>: '%.40s' is not supported", k->name, n->forward_name);
    if (!network_own_bridge(n)) {
        if (n->n_ips || n->n_routes || n->domain || n->has_dns || n->n_publishes)
            return err_set(k->err, -EINVAL, "%s: a network of forward mode '%s' has no addresses, names or routes of its own", k->name, mode);
        if (!n->bridge && !n->forward_dev && !n->n_forward_ifs)
            return err_set(k->err, -EINVAL, "%s: forward mode '%s' needs a %s", k->name, mode,
                           n->forward == NETWORK_BRIDGE ? "<bridge name> or a device" : "device");
        if (n->bridge && n->forward != NETWORK_BRIDGE)
            return err_set(k->err, -EINVAL, "%s: forward mode '%s' has no <bridge>", k->name, mode);
    }
    if ((n->forward == NETWORK_NAT || n->forward == NETWORK_ROUTE) && !n->n_ips)
        return err_set(k->err, -EINVAL, "%s: forward mode '%s' needs an <ip>", k->name, mode);
    if (n->forward_dev && !ifname_ok(n->forward_dev))
        return err_set(k->err, -EINVAL, "%s: <forward dev>: '%.40s' is not an interface's name", k->name, n->forward_dev);
    for (unsigned i = 0; i < n->n_forward_ifs; i++)
        if (!ifname_ok(n->forward_ifs[i]))
            return err_set(k->err, -EINVAL, "%s: <interface dev>: '%.40s' is not an interface's name", k->name, n->forward_ifs[i]);
    if (n->nat_start.bits && (n->nat_start.bits != 32 || n->nat_end.bits != 32 || ipaddr_compare(&n->nat_start, &n->nat_end) > 0))
        return err_set(k->err, -EINVAL, "%s: <nat><address>: start and end are no range of IPv4 addresses", k->name);
    if (n->nat_port_start > n->nat_port_end)
        return err_set(k->err, -EINVAL, "%s: <nat><port>: %u comes after %u", k->name, n->nat_port_start, n->nat_port_end);
    if (n->virtualport && strcmp(n->virtualport, "openvswitch"))
        return err_set(k->err, -EOPNOTSUPP, "%s: <virtualport type>: '%.40s' is not supported", k->name, n->virtualport);
    if (n->virtualport && !(n->forward == NETWORK_BRIDGE && n->bridge))
        return err_set(k->err, -EINVAL, "%s: <virtualport> needs <forward mode='bridge'> and a <bridge>", k->name);
    if (n->n_vlan_tags && !n->virtualport)
        return err_set(k->err, -EOPNOTSUPP, "%s: <vlan>: only Open vSwitch bridges can tag", k->name);
    return 0;
}

int network_check(const struct network *n, const char *name, struct err *err)
{
    const struct check k = {n, name, err};
    if (!n->name)
        return err_set(err, -EINVAL, "%s: <name> is missing", name);
    if (!network_name_valid(n->name))
        return err_set(err, -EINVAL, "%s: <name>: '%.60s' cannot be a network's name", name, n->name);
    if (n->bridge && !ifname_ok(n->bridge) && !strstr(n->bridge, "%d"))
        return err_set(err, -EINVAL, "%s: <bridge name>: '%.40s' is not an interface's name (at most %d characters)", name, n->bridge, IFNAME_MAX);
    if (n->mtu && n->mtu < 68)
        return err_set(err, -EINVAL, "%s: <mtu size>: %u is too small", name, n->mtu);
    if (n->domain && !word_ok(n->domain, ""))
        return err_set(err, -EINVAL, "%s: <domain name>: '%.60s' is not a domain name", name, n->domain);
    int code = check_forward(&k);
    for (unsigned i = 0; i < n->n_ips && !code; i++)
        code = check_ip(&k, &n->ips[i]);
    for (unsigned i = 0; i < n->n_routes && !code; i++) {
        const struct network_route *r = &n->routes[i];
        if (!r->address.bits || r->gateway.bits != r->address.bits)
            code = BAD(&k, r->line, "<route>: an address and a gateway of one %s are needed", "family");
    }
    for (unsigned i = 0; i < n->n_dnsmasq_options && !code; i++)
        if (!line_ok(n->dnsmasq_options[i]))
            code = err_set(err, -EINVAL, "%s: <dnsmasq:option>: a value of one line is needed", name);
    if (!code)
        code = check_dns(&k);
    return code ? code : check_publishes(&k);
}
