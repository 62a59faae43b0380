/* Network XML to struct network. Says only what the document says; see network_defaults() for the rest. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/network_read.h"

void network_read_addr(struct reader *r, struct xml_node *n, const char *attr, struct ipaddr *ret)
{
    const char *s = reader_attr(n, attr);
    if (s && ipaddr_parse(s, ret) < 0)
        reader_fail(r, n, "<%s %s>: '%.60s' is not an IP address", n->name, attr, s);
}

static bool read_mac(struct reader *r, struct xml_node *n, const char *attr, uint8_t *ret)
{
    const char *s = reader_attr(n, attr);
    if (!s)
        return false;
    if (mac_parse(s, ret) < 0)
        reader_fail(r, n, "<%s %s>: '%.60s' is not a MAC address", n->name, attr, s);
    else if (ret[0] & 1)
        reader_fail(r, n, "<%s %s>: '%.60s' is a multicast address, not one of a card", n->name, attr, s);
    return true;
}

/* Prefix or netmask. */
static bool read_prefix(struct reader *r, struct xml_node *n, unsigned bits, unsigned *ret, bool *ret_as_netmask)
{
    const char *mask = reader_attr(n, "netmask"), *prefix = reader_attr(n, "prefix");
    struct ipaddr m;
    *ret_as_netmask = mask && !prefix;
    if (mask && (ipaddr_parse(mask, &m) < 0 || m.bits != 32 || bits != 32 || ipaddr_netmask_prefix(&m) < 0))
        reader_fail(r, n, "<%s netmask>: '%.60s' is not an IPv4 netmask", n->name, mask);
    else if (mask && !prefix)
        *ret = (unsigned)ipaddr_netmask_prefix(&m);
    if (prefix)
        *ret = (unsigned)reader_attr_num(r, n, "prefix", 0, bits);
    return mask || prefix;
}

/* <lease expiry unit>, in seconds. */
static unsigned read_lease(struct reader *r, struct xml_node *n)
{
    struct xml_node *lease = reader_child(n, "lease");
    if (!lease)
        return 0;
    const char *unit = reader_attr(lease, "unit");
    uint64_t scale = !unit || !strcmp(unit, "minutes") ? 60 : !strcmp(unit, "seconds") ? 1 : !strcmp(unit, "hours") ? 3600 : 0;
    if (!scale)
        reader_fail(r, lease, "<lease unit>: unknown unit '%.40s'", unit);
    uint64_t v = reader_attr_num(r, lease, "expiry", 0, UINT32_MAX / 3600);
    if (reader_attr(lease, "expiry") && v == 0)
        return UINT32_MAX;
    if (v && v * scale < 120)
        reader_fail(r, lease, "<lease expiry>: a lease is at least 120 seconds");
    return (unsigned)(v * scale);
}

void network_read_dhcp_range(struct reader *r, struct xml_node *n, struct network_range *ret)
{
    ret->line = n->line;
    network_read_addr(r, n, "start", &ret->start);
    network_read_addr(r, n, "end", &ret->end);
    if (!ret->start.bits || !ret->end.bits)
        reader_fail(r, n, "<range>: start and end are needed");
    ret->lease_s = read_lease(r, n);
}

void network_read_dhcp_host(struct reader *r, struct xml_node *n, struct network_host *ret)
{
    ret->line = n->line;
    ret->has_mac = read_mac(r, n, "mac", ret->mac);
    reader_attr_str(n, "id", &ret->id);
    reader_attr_str(n, "name", &ret->name);
    network_read_addr(r, n, "ip", &ret->ip);
    ret->lease_s = read_lease(r, n);
}

void network_read_dns_host(struct reader *r, struct xml_node *n, struct network_dns_host *ret)
{
    network_read_addr(r, n, "ip", &ret->ip);
    for (struct xml_node *c = n->first; c; c = c->next) {
        if (strcmp(c->name, "hostname"))
            continue;
        c->used = true;
        if (c->text)
            *(char **)domain_grow((void **)&ret->names, &ret->n_names, sizeof(char *)) = xstrdup(c->text);
    }
}

void network_read_txt(struct xml_node *n, struct network_txt *ret)
{
    reader_attr_str(n, "name", &ret->name);
    reader_attr_str(n, "value", &ret->value);
}

void network_read_srv(struct reader *r, struct xml_node *n, struct network_srv *ret)
{
    reader_attr_str(n, "service", &ret->service);
    reader_attr_str(n, "protocol", &ret->protocol);
    reader_attr_str(n, "domain", &ret->domain);
    reader_attr_str(n, "target", &ret->target);
    ret->port = (unsigned)reader_attr_num(r, n, "port", 0, 65535);
    ret->priority = (unsigned)reader_attr_num(r, n, "priority", 0, 65535);
    ret->weight = (unsigned)reader_attr_num(r, n, "weight", 0, 65535);
}

/* Calls fn for each child of that name. */
#define EACH_CHILD(c, n, word)                                                                                             \
    for (struct xml_node *c = (n) ? (n)->first : NULL; c; c = c->next)                                                     \
        if (!strcmp(c->name, word) && (c->used = true))

static void read_ip(struct reader *r, struct xml_node *n, struct network_ip *ip)
{
    ip->line = n->line;
    network_read_addr(r, n, "address", &ip->address);
    const char *family = reader_attr(n, "family");
    unsigned bits = !family || !strcmp(family, "ipv4") ? 32 : !strcmp(family, "ipv6") ? 128 : 0;
    if (!bits)
        reader_fail(r, n, "<ip family>: unknown family '%.40s'", family);
    else if (!ip->address.bits)
        reader_fail(r, n, "<ip>: an address is needed");
    else if (ip->address.bits != bits)
        reader_fail(r, n, "<ip address>: not an %s address", bits == 32 ? "IPv4" : "IPv6");
    ip->prefix_given = read_prefix(r, n, ip->address.bits, &ip->prefix, &ip->as_netmask);
    ip->local_ptr = reader_attr_switch(r, n, "localPtr");
    struct xml_node *tftp = reader_child(n, "tftp"), *dhcp = reader_child(n, "dhcp");
    reader_attr_str(tftp, "root", &ip->tftp_root);
    ip->has_dhcp = dhcp;
    EACH_CHILD(c, dhcp, "range")
        network_read_dhcp_range(r, c, DOMAIN_ADD(ip, ranges));
    EACH_CHILD(c, dhcp, "host")
        network_read_dhcp_host(r, c, DOMAIN_ADD(ip, hosts));
    struct xml_node *bootp = reader_child(dhcp, "bootp");
    reader_attr_str(bootp, "file", &ip->bootp_file);
    reader_attr_str(bootp, "server", &ip->bootp_server);
}

static void read_forward(struct reader *r, struct xml_node *n, struct network *net)
{
    if (!n)
        return;
    const char *mode = reader_attr(n, "mode");
    int f = network_forward_find(mode ? mode : "nat");
    if (mode && !strcmp(mode, "none"))
        f = NETWORK_ISOLATED;
    net->forward = f < 0 ? NETWORK_OTHER : (enum network_forward)f;
    if (f < 0)
        domain_set(&net->forward_name, mode);
    reader_attr_str(n, "dev", &net->forward_dev);
    EACH_CHILD(c, n, "interface") {
        const char *dev = reader_attr(c, "dev");
        if (dev)
            *(char **)domain_grow((void **)&net->forward_ifs, &net->n_forward_ifs, sizeof(char *)) = xstrdup(dev);
        reader_attr(c, "connections");
    }
    struct xml_node *nat = reader_child(n, "nat");
    net->nat_ipv6 = reader_attr_switch(r, nat, "ipv6") == DOMAIN_ON;
    struct xml_node *address = reader_child(nat, "address"), *port = reader_child(nat, "port");
    if (address) {
        network_read_addr(r, address, "start", &net->nat_start);
        network_read_addr(r, address, "end", &net->nat_end);
        if (!net->nat_end.bits)
            net->nat_end = net->nat_start;
    }
    net->nat_port_start = (uint16_t)reader_attr_num(r, port, "start", 0, 65535);
    net->nat_port_end = (uint16_t)reader_attr_num(r, port, "end", 0, 65535);
}

static void read_dns(struct reader *r, struct xml_node *n, struct network *net)
{
    if (!n)
        return;
    net->has_dns = true;
    net->dns_enable = reader_attr_switch(r, n, "enable");
    net->dns_forward_plain = reader_attr_switch(r, n, "forwardPlainNames");
    EACH_CHILD(c, n, "forwarder") {
        struct network_forwarder *f = DOMAIN_ADD(net, forwarders);
        reader_attr_str(c, "addr", &f->address);
        reader_attr_str(c, "domain", &f->domain);
    }
    EACH_CHILD(c, n, "txt")
        network_read_txt(c, DOMAIN_ADD(net, txts));
    EACH_CHILD(c, n, "srv")
        network_read_srv(r, c, DOMAIN_ADD(net, srvs));
    EACH_CHILD(c, n, "host")
        network_read_dns_host(r, c, DOMAIN_ADD(net, dns_hosts));
}

static void read_bridge(struct reader *r, struct xml_node *n, struct network *net)
{
    if (!n)
        return;
    reader_attr_str(n, "name", &net->bridge);
    reader_attr_str(n, "zone", &net->bridge_zone);
    reader_attr_str(n, "macTableManager", &net->mac_table);
    net->stp = reader_attr_switch(r, n, "stp");
    net->delay = (unsigned)reader_attr_num(r, n, "delay", 0, 3600);
}

static void read_rate(struct reader *r, struct xml_node *n, struct network_rate *ret)
{
    const uint64_t max = UINT32_MAX;
    ret->average = reader_attr_num(r, n, "average", 0, max);
    ret->peak = reader_attr_num(r, n, "peak", 0, max);
    ret->burst = reader_attr_num(r, n, "burst", 0, max);
    ret->floor = reader_attr_num(r, n, "floor", 0, max);
}

static void read_vlan(struct reader *r, struct xml_node *n, struct network *net)
{
    net->vlan_trunk = reader_attr_switch(r, n, "trunk");
    EACH_CHILD(c, n, "tag")
        *(unsigned *)domain_grow((void **)&net->vlan_tags, &net->n_vlan_tags, sizeof(unsigned)) =
            (unsigned)reader_attr_num(r, c, "id", 0, 4095);
}

static void read_publish(struct reader *r, struct xml_node *n, struct network_publish *p)
{
    p->line = n->line;
    reader_attr_str(n, "protocol", &p->protocol);
    p->port = (uint16_t)reader_attr_num(r, n, "port", 0, 65535);
    p->to_port = (uint16_t)reader_attr_num(r, n, "toPort", 0, 65535);
    network_read_addr(r, n, "hostAddress", &p->host);
    p->has_host = p->host.bits;
    network_read_addr(r, n, "to", &p->to);
}

static void read_route(struct reader *r, struct xml_node *n, struct network_route *route)
{
    bool as_netmask;
    route->line = n->line;
    reader_attr(n, "family"); /* the address says it */
    network_read_addr(r, n, "address", &route->address);
    network_read_addr(r, n, "gateway", &route->gateway);
    route->prefix_given = read_prefix(r, n, route->address.bits, &route->prefix, &as_netmask);
    route->metric = (unsigned)reader_attr_num(r, n, "metric", 0, UINT32_MAX);
}

static void read_network(struct reader *r, struct xml_node *root, struct network *n)
{
    if (strcmp(root->name, "network")) {
        reader_fail(r, root, "the document is a <%.40s>, not a <network>", root->name);
        return;
    }
    root->used = true;
    reader_child_str(root, "name", &n->name);
    n->has_uuid = reader_uuid(r, reader_child(root, "uuid"), n->uuid);
    reader_child_str(root, "title", &n->title);
    reader_child_str(root, "description", &n->description);
    n->ipv6 = reader_attr_switch(r, root, "ipv6") == DOMAIN_ON;
    reader_attr(root, "connections"); /* what is so now, not what is wanted */
    read_forward(r, reader_child(root, "forward"), n);
    read_bridge(r, reader_child(root, "bridge"), n);
    n->mtu = (unsigned)reader_attr_num(r, reader_child(root, "mtu"), "size", 0, 65535);
    struct xml_node *mac = reader_child(root, "mac"), *domain = reader_child(root, "domain");
    n->has_mac = mac && read_mac(r, mac, "address", n->mac);
    reader_attr_str(domain, "name", &n->domain);
    n->domain_local = reader_attr_switch(r, domain, "localOnly");
    read_dns(r, reader_child(root, "dns"), n);
    EACH_CHILD(c, root, "ip")
        read_ip(r, c, DOMAIN_ADD(n, ips));
    EACH_CHILD(c, root, "route")
        read_route(r, c, DOMAIN_ADD(n, routes));
    n->isolated = reader_attr_switch(r, reader_child(root, "port"), "isolated");
    reader_attr_str(reader_child(root, "virtualport"), "type", &n->virtualport);
    struct xml_node *bandwidth = reader_child(root, "bandwidth"), *vlan = reader_child(root, "vlan");
    read_rate(r, reader_child(bandwidth, "inbound"), &n->inbound);
    read_rate(r, reader_child(bandwidth, "outbound"), &n->outbound);
    if (vlan)
        read_vlan(r, vlan, n);
    EACH_CHILD(c, root, "lodge:publish")
        read_publish(r, c, DOMAIN_ADD(n, publishes));
    struct xml_node *options = reader_child(root, "dnsmasq:options");
    EACH_CHILD(c, options, "dnsmasq:option") {
        const char *v = reader_attr(c, "value");
        if (v)
            *(char **)domain_grow((void **)&n->dnsmasq_options, &n->n_dnsmasq_options, sizeof(char *)) = xstrdup(v);
    }
    for (struct xml_attr *a = root->attrs; a; a = a->next)
        a->used |= !strcmp(a->name, "xmlns:lodge") || !strcmp(a->name, "xmlns:dnsmasq");
    reader_keep(r, root, &n->unknown, "", NULL);
}

int network_parse(const char *xml, size_t len, const char *name, struct network **ret, struct err *err)
{
    struct xml_node *root;
    int code = xml_parse(xml, len, name, &root, err);
    if (code)
        return code;
    struct reader r = {.name = name, .err = err};
    struct network *n = network_new();
    read_network(&r, root, n);
    xml_free(root);
    if (r.code) {
        network_free(n);
        return r.code;
    }
    *ret = n;
    return 0;
}
