/* struct network to XML, in libvirt's order of elements. What was kept without being understood goes back to its place. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "domain/network.h"
#include "domain/reader.h"

static void put_addr(struct xml_node *n, const char *attr, const struct ipaddr *a)
{
    char text[IPADDR_TEXT_MAX];
    if (a->bits)
        xml_attr_set(n, attr, ipaddr_format(a, text));
}

static void put_num(struct xml_node *n, const char *attr, uint64_t v)
{
    if (v)
        xml_attr_setf(n, attr, "%" PRIu64, v);
}

static void put_switch(struct xml_node *n, const char *attr, enum domain_tristate v)
{
    if (v != DOMAIN_DEFAULT)
        xml_attr_set(n, attr, v == DOMAIN_ON ? "yes" : "no");
}

static void put_prefix(struct xml_node *n, unsigned bits, unsigned prefix, bool as_netmask)
{
    struct ipaddr ones = {.bits = (uint8_t)bits};
    memset(ones.bytes, 0xff, sizeof ones.bytes);
    if (as_netmask) {
        struct ipaddr mask = ipaddr_mask(&ones, prefix);
        put_addr(n, "netmask", &mask);
    } else
        xml_attr_setf(n, "prefix", "%u", prefix);
}

static void put_lease(struct xml_node *n, unsigned lease_s)
{
    if (!lease_s)
        return;
    struct xml_node *lease = xml_node_new(n, "lease", NULL);
    if (lease_s == UINT32_MAX)
        xml_attr_set(lease, "expiry", "0");
    else if (lease_s % 60 == 0)
        put_num(lease, "expiry", lease_s / 60);
    else {
        put_num(lease, "expiry", lease_s);
        xml_attr_set(lease, "unit", "seconds");
    }
}

static void put_forward(struct xml_node *root, const struct network *n)
{
    const char *mode = n->forward == NETWORK_OTHER ? n->forward_name : network_forward_name(n->forward);
    if (!mode)
        return;
    struct xml_node *f = xml_node_new(root, "forward", NULL);
    xml_attr_set(f, "dev", n->forward_dev);
    xml_attr_set(f, "mode", mode);
    if (n->nat_ipv6 || n->nat_start.bits || n->nat_port_start) {
        struct xml_node *nat = xml_node_new(f, "nat", NULL);
        if (n->nat_ipv6)
            xml_attr_set(nat, "ipv6", "yes");
        if (n->nat_start.bits) {
            struct xml_node *a = xml_node_new(nat, "address", NULL);
            put_addr(a, "start", &n->nat_start);
            put_addr(a, "end", &n->nat_end);
        }
        if (n->nat_port_start) {
            struct xml_node *p = xml_node_new(nat, "port", NULL);
            put_num(p, "start", n->nat_port_start);
            put_num(p, "end", n->nat_port_end);
        }
    }
    for (unsigned i = 0; i < n->n_forward_ifs; i++)
        xml_attr_set(xml_node_new(f, "interface", NULL), "dev", n->forward_ifs[i]);
}

static void put_bridge(struct xml_node *root, const struct network *n)
{
    if (!n->bridge && n->stp == DOMAIN_DEFAULT && !n->delay && !n->mac_table && !n->bridge_zone)
        return;
    struct xml_node *b = xml_node_new(root, "bridge", NULL);
    xml_attr_set(b, "name", n->bridge);
    xml_attr_set(b, "zone", n->bridge_zone);
    if (network_own_bridge(n)) {
        xml_attr_set(b, "stp", n->stp == DOMAIN_OFF ? "off" : "on");
        xml_attr_setf(b, "delay", "%u", n->delay);
    }
    xml_attr_set(b, "macTableManager", n->mac_table);
}

static void put_dns(struct xml_node *root, const struct network *n)
{
    if (!n->has_dns)
        return;
    struct xml_node *dns = xml_node_new(root, "dns", NULL);
    put_switch(dns, "enable", n->dns_enable);
    put_switch(dns, "forwardPlainNames", n->dns_forward_plain);
    for (unsigned i = 0; i < n->n_forwarders; i++) {
        struct xml_node *f = xml_node_new(dns, "forwarder", NULL);
        xml_attr_set(f, "domain", n->forwarders[i].domain);
        xml_attr_set(f, "addr", n->forwarders[i].address);
    }
    for (unsigned i = 0; i < n->n_txts; i++) {
        struct xml_node *t = xml_node_new(dns, "txt", NULL);
        xml_attr_set(t, "name", n->txts[i].name);
        xml_attr_set(t, "value", n->txts[i].value);
    }
    for (unsigned i = 0; i < n->n_srvs; i++) {
        const struct network_srv *s = &n->srvs[i];
        struct xml_node *x = xml_node_new(dns, "srv", NULL);
        xml_attr_set(x, "service", s->service);
        xml_attr_set(x, "protocol", s->protocol);
        xml_attr_set(x, "domain", s->domain);
        xml_attr_set(x, "target", s->target);
        put_num(x, "port", s->port);
        put_num(x, "priority", s->priority);
        put_num(x, "weight", s->weight);
    }
    for (unsigned i = 0; i < n->n_dns_hosts; i++) {
        struct xml_node *h = xml_node_new(dns, "host", NULL);
        put_addr(h, "ip", &n->dns_hosts[i].ip);
        for (unsigned k = 0; k < n->dns_hosts[i].n_names; k++)
            xml_node_new(h, "hostname", n->dns_hosts[i].names[k]);
    }
}

static void put_dhcp(struct xml_node *parent, const struct network_ip *ip)
{
    struct xml_node *dhcp = xml_node_new(parent, "dhcp", NULL);
    for (unsigned i = 0; i < ip->n_ranges; i++) {
        struct xml_node *x = xml_node_new(dhcp, "range", NULL);
        put_addr(x, "start", &ip->ranges[i].start);
        put_addr(x, "end", &ip->ranges[i].end);
        put_lease(x, ip->ranges[i].lease_s);
    }
    for (unsigned i = 0; i < ip->n_hosts; i++) {
        const struct network_host *h = &ip->hosts[i];
        struct xml_node *x = xml_node_new(dhcp, "host", NULL);
        char mac[18];
        if (h->has_mac)
            xml_attr_set(x, "mac", mac_format(h->mac, mac));
        xml_attr_set(x, "id", h->id);
        xml_attr_set(x, "name", h->name);
        put_addr(x, "ip", &h->ip);
        put_lease(x, h->lease_s);
    }
    if (ip->bootp_file || ip->bootp_server) {
        struct xml_node *x = xml_node_new(dhcp, "bootp", NULL);
        xml_attr_set(x, "file", ip->bootp_file);
        xml_attr_set(x, "server", ip->bootp_server);
    }
}

static void put_ip(struct xml_node *root, const struct network_ip *ip)
{
    struct xml_node *x = xml_node_new(root, "ip", NULL);
    if (ip->address.bits == 128)
        xml_attr_set(x, "family", "ipv6");
    put_addr(x, "address", &ip->address);
    if (ip->prefix_given)
        put_prefix(x, ip->address.bits, ip->prefix, ip->as_netmask);
    put_switch(x, "localPtr", ip->local_ptr);
    if (ip->tftp_root)
        xml_attr_set(xml_node_new(x, "tftp", NULL), "root", ip->tftp_root);
    if (ip->has_dhcp)
        put_dhcp(x, ip);
}

static void put_route(struct xml_node *root, const struct network_route *r)
{
    struct xml_node *x = xml_node_new(root, "route", NULL);
    if (r->address.bits == 128)
        xml_attr_set(x, "family", "ipv6");
    put_addr(x, "address", &r->address);
    if (r->prefix_given)
        put_prefix(x, r->address.bits, r->prefix, false);
    put_addr(x, "gateway", &r->gateway);
    put_num(x, "metric", r->metric);
}

static void put_rate(struct xml_node *parent, const char *name, const struct network_rate *r)
{
    if (!r->average && !r->floor)
        return;
    struct xml_node *x = xml_node_new(parent, name, NULL);
    put_num(x, "average", r->average);
    put_num(x, "peak", r->peak);
    put_num(x, "burst", r->burst);
    put_num(x, "floor", r->floor);
}

static void put_extensions(struct xml_node *root, const struct network *n)
{
    if (n->n_dnsmasq_options) {
        xml_attr_set(root, "xmlns:dnsmasq", "http://libvirt.org/schemas/network/dnsmasq/1.0");
        struct xml_node *o = xml_node_new(root, "dnsmasq:options", NULL);
        for (unsigned i = 0; i < n->n_dnsmasq_options; i++)
            xml_attr_set(xml_node_new(o, "dnsmasq:option", NULL), "value", n->dnsmasq_options[i]);
    }
    if (n->n_publishes)
        xml_attr_set(root, "xmlns:lodge", NETWORK_LODGE_NS);
    for (unsigned i = 0; i < n->n_publishes; i++) {
        const struct network_publish *p = &n->publishes[i];
        struct xml_node *x = xml_node_new(root, "lodge:publish", NULL);
        xml_attr_set(x, "protocol", p->protocol);
        if (p->has_host)
            put_addr(x, "hostAddress", &p->host);
        put_num(x, "port", p->port);
        put_addr(x, "to", &p->to);
        put_num(x, "toPort", p->to_port);
    }
}

static void put_rest(struct xml_node *root, const struct network *n)
{
    if (n->inbound.average || n->inbound.floor || n->outbound.average) {
        struct xml_node *b = xml_node_new(root, "bandwidth", NULL);
        put_rate(b, "inbound", &n->inbound);
        put_rate(b, "outbound", &n->outbound);
    }
    if (n->n_vlan_tags) {
        struct xml_node *v = xml_node_new(root, "vlan", NULL);
        put_switch(v, "trunk", n->vlan_trunk);
        for (unsigned i = 0; i < n->n_vlan_tags; i++)
            xml_attr_setf(xml_node_new(v, "tag", NULL), "id", "%u", n->vlan_tags[i]);
    }
    if (n->isolated)
        put_switch(xml_node_new(root, "port", NULL), "isolated", n->isolated);
    if (n->virtualport)
        xml_attr_set(xml_node_new(root, "virtualport", NULL), "type", n->virtualport);
    for (unsigned i = 0; i < n->n_ips; i++)
        put_ip(root, &n->ips[i]);
    for (unsigned i = 0; i < n->n_routes; i++)
        put_route(root, &n->routes[i]);
}

char *network_format(const struct network *n, unsigned connections)
{
    struct xml_node *root = xml_node_new(NULL, "network", NULL);
    if (connections)
        xml_attr_setf(root, "connections", "%u", connections);
    if (n->ipv6)
        xml_attr_set(root, "ipv6", "yes");
    xml_node_new(root, "name", n->name);
    if (n->has_uuid) {
        char s[37], *p = s;
        for (int i = 0; i < 16; i++)
            p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", n->uuid[i]);
        xml_node_new(root, "uuid", s);
    }
    if (n->title)
        xml_node_new(root, "title", n->title);
    if (n->description)
        xml_node_new(root, "description", n->description);
    put_forward(root, n);
    put_bridge(root, n);
    if (n->mtu)
        put_num(xml_node_new(root, "mtu", NULL), "size", n->mtu);
    char mac[18];
    if (n->has_mac)
        xml_attr_set(xml_node_new(root, "mac", NULL), "address", mac_format(n->mac, mac));
    if (n->domain) {
        struct xml_node *d = xml_node_new(root, "domain", NULL);
        xml_attr_set(d, "name", n->domain);
        put_switch(d, "localOnly", n->domain_local);
    }
    put_dns(root, n);
    put_rest(root, n);
    put_extensions(root, n);
    domain_unknown_graft(&n->unknown, root);
    char *text = xml_format(root);
    xml_free(root);
    return text;
}
