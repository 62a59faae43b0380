/* See nft.h. */
#include "hostnet/nft.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "hostnet/tool.h"

struct text {
    FILE *f;
    char *buf;
    size_t len;
};

static void text_open(struct text *t)
{
    t->f = open_memstream(&t->buf, &t->len);
    if (!t->f)
        abort();
}

static char *text_close(struct text *t)
{
    fclose(t->f);
    return t->buf;
}

static const char *family(const struct ipaddr *a)
{
    return a->bits == 32 ? "ip" : "ip6";
}

static void subnet_text(const struct network_ip *ip, char *buf, size_t size)
{
    char text[IPADDR_TEXT_MAX];
    struct ipaddr net = ipaddr_mask(&ip->address, ip->prefix);
    snprintf(buf, size, "%s/%u", ipaddr_format(&net, text), ip->prefix);
}

/* Replaces a table: the first line makes sure that there is one to be removed. */
static void put_table(FILE *f, const char *kind, const char *bridge)
{
    fprintf(f, "table %s lodge_%s {}\ndelete table %s lodge_%s\n", kind, bridge, kind, bridge);
}

static void put_published_in(FILE *f, const struct network *n, const char *bridge)
{
    for (unsigned i = 0; i < n->n_publishes; i++) {
        const struct network_publish *p = &n->publishes[i];
        char to[IPADDR_TEXT_MAX];
        fprintf(f, "    oifname \"%s\" ct status dnat %s daddr %s %s dport %u accept\n", bridge, family(&p->to),
                ipaddr_format(&p->to, to), p->protocol, p->to_port);
    }
}

/* What is passed on between the network and the rest of the world. */
static void put_forward(FILE *f, const struct network *n, const char *bridge)
{
    fprintf(f, "  chain forward {\n    type filter hook forward priority filter; policy accept;\n");
    fprintf(f, "    iifname \"%s\" oifname \"%s\" accept\n", bridge, bridge);
    put_published_in(f, n, bridge);
    for (unsigned i = 0; i < n->n_ips && n->forward != NETWORK_ISOLATED; i++) {
        const struct network_ip *ip = &n->ips[i];
        char net[64], in[40] = "", out[40] = "";
        subnet_text(ip, net, sizeof net);
        if (n->forward_dev) {
            snprintf(in, sizeof in, "iifname \"%s\" ", n->forward_dev);
            snprintf(out, sizeof out, "oifname \"%s\" ", n->forward_dev);
        }
        bool nat = n->forward == NETWORK_NAT && (ip->address.bits == 32 || n->nat_ipv6);
        fprintf(f, "    %soifname \"%s\" %s daddr %s %saccept\n", in, bridge, family(&ip->address), net,
                nat ? "ct state established,related " : "");
        fprintf(f, "    iifname \"%s\" %s%s saddr %s accept\n", bridge, out, family(&ip->address), net);
    }
    if (n->n_publishes)
        fprintf(f, "    iifname \"%s\" ct status dnat accept\n", bridge);
    fprintf(f, "    oifname \"%s\" reject\n    iifname \"%s\" reject\n  }\n", bridge, bridge);
}

static void put_masquerade(FILE *f, const struct network *n, const struct network_ip *ip)
{
    char net[64], out[40] = "", to[2 * IPADDR_TEXT_MAX + 16] = "", a[IPADDR_TEXT_MAX], b[IPADDR_TEXT_MAX];
    unsigned first = n->nat_port_start ? n->nat_port_start : 1024, last = n->nat_port_end ? n->nat_port_end : 65535;
    subnet_text(ip, net, sizeof net);
    if (n->forward_dev)
        snprintf(out, sizeof out, "oifname \"%s\" ", n->forward_dev);
    const char *fam = family(&ip->address), *verb = "masquerade";
    if (ip->address.bits == 32 && n->nat_start.bits) {
        verb = "snat ip to ";
        snprintf(to, sizeof to, "%s-%s", ipaddr_format(&n->nat_start, a), ipaddr_format(&n->nat_end, b));
    }
    if (ip->address.bits == 32)
        fprintf(f, "    ip saddr %s ip daddr { 224.0.0.0/24, 255.255.255.255 } return\n", net);
    else
        fprintf(f, "    ip6 saddr %s ip6 daddr ff02::/16 return\n", net);
    fprintf(f, "    meta l4proto { tcp, udp } %s%s saddr %s %s daddr != %s %s%s%s:%u-%u\n", out, fam, net, fam, net, verb, to,
            *to ? "" : " to ", first, last);
    fprintf(f, "    %s%s saddr %s %s daddr != %s %s%s\n", out, fam, net, fam, net, verb, to);
}

static void put_dnat(FILE *f, const struct network *n, const char *bridge, bool local)
{
    for (unsigned i = 0; i < n->n_publishes; i++) {
        const struct network_publish *p = &n->publishes[i];
        char host[IPADDR_TEXT_MAX], to[IPADDR_TEXT_MAX];
        const char *fam = family(&p->to);
        fprintf(f, "    ");
        if (!local)
            fprintf(f, "iifname != \"%s\" ", bridge);
        if (p->has_host)
            fprintf(f, "%s daddr %s ", fam, ipaddr_format(&p->host, host));
        else
            fprintf(f, "meta nfproto %s fib daddr type local ", p->to.bits == 32 ? "ipv4" : "ipv6");
        ipaddr_format(&p->to, to);
        fprintf(f, p->to.bits == 32 ? "%s dport %u dnat ip to %s:%u\n" : "%s dport %u dnat ip6 to [%s]:%u\n", p->protocol, p->port, to,
                p->to_port);
    }
}

static void put_nat(FILE *f, const struct network *n, const char *bridge)
{
    fprintf(f, "  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n");
    /* The host's own loopback reaches published ports: the guest must see an address that it can answer. */
    if (n->n_publishes)
        fprintf(f, "    oifname \"%s\" ip saddr 127.0.0.0/8 masquerade\n", bridge);
    for (unsigned i = 0; i < n->n_ips && n->forward == NETWORK_NAT; i++)
        if (n->ips[i].address.bits == 32 || n->nat_ipv6)
            put_masquerade(f, n, &n->ips[i]);
    fprintf(f, "  }\n");
    if (!n->n_publishes)
        return;
    fprintf(f, "  chain prerouting {\n    type nat hook prerouting priority dstnat; policy accept;\n");
    put_dnat(f, n, bridge, false);
    fprintf(f, "  }\n  chain output {\n    type nat hook output priority -100; policy accept;\n");
    put_dnat(f, n, bridge, true);
    fprintf(f, "  }\n");
}

char *nft_rules(const struct network *n, const char *bridge)
{
    struct text t;
    text_open(&t);
    put_table(t.f, "inet", bridge);
    if (n->forward != NETWORK_OPEN || n->n_publishes) {
        fprintf(t.f, "table inet lodge_%s {\n", bridge);
        /* Nobody on the network may speak to the host's loopback, which published ports open to local processes. */
        fprintf(t.f, "  chain guard {\n    type filter hook prerouting priority raw; policy accept;\n");
        fprintf(t.f, "    iifname \"%s\" ip daddr 127.0.0.0/8 drop\n  }\n", bridge);
        if (n->forward != NETWORK_OPEN)
            put_forward(t.f, n, bridge);
        put_nat(t.f, n, bridge);
        fprintf(t.f, "}\n");
    }
    return text_close(&t);
}

static void put_ports(FILE *f, const struct nft_port *ports, unsigned n_ports)
{
    char mac[18];
    const char *sep = "";
    fprintf(f, "  set ports {\n    type ifname\n    elements = { ");
    for (unsigned i = 0; i < n_ports; i++) {
        if (!ports[i].filtered)
            continue;
        fprintf(f, "%s\"%s\"", sep, ports[i].name);
        sep = ", ";
    }
    fprintf(f, " }\n  }\n  set macs {\n    type ifname . ether_addr\n    elements = { ");
    sep = "";
    for (unsigned i = 0; i < n_ports; i++) {
        if (!ports[i].filtered)
            continue;
        fprintf(f, "%s\"%s\" . %s", sep, ports[i].name, mac_format(ports[i].mac, mac));
        sep = ", ";
    }
    fprintf(f, " }\n  }\n");
}

static void put_leases(FILE *f, unsigned bits, const struct nft_lease *leases, unsigned n)
{
    const char *v = bits == 32 ? "4" : "6";
    char ip[IPADDR_TEXT_MAX], mac[18];
    unsigned found = 0;
    for (unsigned i = 0; i < n; i++)
        found += leases[i].ip.bits == bits;
    for (int pairs = 0; pairs < 2; pairs++) {
        fprintf(f, "  set %s%s {\n    type ipv%s_addr%s\n", pairs ? "pairs" : "leased", v, v, pairs ? " . ether_addr" : "");
        const char *sep = "    elements = { ";
        for (unsigned i = 0; i < n; i++) {
            if (leases[i].ip.bits != bits)
                continue;
            fprintf(f, "%s%s", sep, ipaddr_format(&leases[i].ip, ip));
            if (pairs)
                fprintf(f, " . %s", mac_format(leases[i].mac, mac));
            sep = ", ";
        }
        fprintf(f, "%s  }\n", found ? " }\n" : "");
    }
}

/* Nobody else says to have the network's own address: the target of a neighbour advertisement (RFC 4861 4.4), for which this nft
 * release has no word. */
static void put_advert_rule(FILE *f, const struct ipaddr *a)
{
    fprintf(f, "    icmpv6 type nd-neighbor-advert @th,64,128 0x");
    for (int i = 0; i < 16; i++)
        fprintf(f, "%02x", a->bytes[i]);
    fprintf(f, " drop\n");
}

/* Addresses that a guest may not use as its own: the network's, those leased to others, and what is not of the subnet. */
static void put_address_rules(FILE *f, const struct network *n, unsigned bits)
{
    const char *fam = bits == 32 ? "ip" : "ip6", *v = bits == 32 ? "4" : "6";
    const char *sep = bits == 32 ? "0.0.0.0" : "::, fe80::/10";
    char text[IPADDR_TEXT_MAX], net[64];
    if (!network_ip_of(n, bits))
        return;
    for (unsigned i = 0; i < n->n_ips; i++) {
        if (n->ips[i].address.bits != bits)
            continue;
        ipaddr_format(&n->ips[i].address, text);
        fprintf(f, "    %s saddr %s drop\n", fam, text);
        if (bits == 32)
            fprintf(f, "    arp saddr ip %s drop\n", text);
        else
            put_advert_rule(f, &n->ips[i].address);
    }
    fprintf(f, "    %s saddr != { %s", fam, sep);
    for (unsigned i = 0; i < n->n_ips; i++) {
        if (n->ips[i].address.bits != bits)
            continue;
        subnet_text(&n->ips[i], net, sizeof net);
        fprintf(f, ", %s", net);
    }
    fprintf(f, " } drop\n");
    fprintf(f, "    %s saddr @leased%s %s saddr . ether saddr != @pairs%s drop\n", fam, v, fam, v);
    if (bits == 32)
        fprintf(f, "    arp saddr ip @leased4 arp saddr ip . arp saddr ether != @pairs4 drop\n");
}

char *nft_port_rules(const struct network *n, const char *bridge, const struct nft_port *ports, unsigned n_ports,
                     const struct nft_lease *leases, unsigned n_leases)
{
    struct text t;
    unsigned filtered = 0;
    for (unsigned i = 0; i < n_ports; i++)
        filtered += ports[i].filtered;
    text_open(&t);
    put_table(t.f, "bridge", bridge);
    if (filtered) {
        fprintf(t.f, "table bridge lodge_%s {\n", bridge);
        put_ports(t.f, ports, n_ports);
        put_leases(t.f, 32, leases, n_leases);
        put_leases(t.f, 128, leases, n_leases);
        fprintf(t.f, "  set floods {\n    type ifname\n    size 65535\n    flags dynamic\n  }\n");
        fprintf(t.f, "  chain prerouting {\n    type filter hook prerouting priority filter; policy accept;\n");
        fprintf(t.f, "    iifname != @ports accept\n");
        fprintf(t.f, "    iifname . ether saddr != @macs drop\n");
        fprintf(t.f, "    ether type arp iifname . arp saddr ether != @macs drop\n");
        /* A guest is no DHCP server and no router here. */
        fprintf(t.f, "    udp sport 67 udp dport 68 drop\n    udp sport 547 udp dport 546 drop\n");
        fprintf(t.f, "    icmpv6 type { nd-router-advert, nd-redirect } drop\n");
        put_address_rules(t.f, n, 32);
        put_address_rules(t.f, n, 128);
        /* One guest's broadcasts leave time for the others'. */
        fprintf(t.f, "    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 "
                     "update @floods { iifname limit rate over 2000/second burst 4000 packets } drop\n");
        fprintf(t.f, "  }\n}\n");
    }
    return text_close(&t);
}

char *nft_no_rules(const char *bridge)
{
    struct text t;
    text_open(&t);
    put_table(t.f, "inet", bridge);
    put_table(t.f, "bridge", bridge);
    return text_close(&t);
}

int nft_apply(const char *text, struct err *err)
{
    const char *const argv[] = {"nft", "-f", "-", NULL};
    int code = tool_run(argv, "nftables", text, err);
    if (code)
        err_prefix(err, "packet filter");
    return code;
}
