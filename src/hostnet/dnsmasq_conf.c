/* What dnsmasq is told. See dnsmasq.h and dnsmasq(8). */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "hostnet/dnsmasq.h"

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

/* A value in quotes: what would end them is left out. */
static void put_quoted(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++)
        if (*s != '"' && *s != '\\')
            fputc(*s, f);
    fputc('"', f);
}

static void put_dns(FILE *f, const struct network *n)
{
    if (n->dns_enable == DOMAIN_OFF) {
        fprintf(f, "port=0\n");
        return;
    }
    /* Plain names that nobody knows stay in the network unless asked for otherwise. */
    if (n->dns_forward_plain == DOMAIN_OFF || (n->has_dns && n->dns_forward_plain == DOMAIN_DEFAULT && n->n_forwarders))
        fprintf(f, "domain-needed\nlocal=//\n");
    if (n->domain) {
        if (n->domain_local == DOMAIN_ON)
            fprintf(f, "local=/%s/\n", n->domain);
        fprintf(f, "domain=%s\nexpand-hosts\n", n->domain);
    }
    bool all = false; /* does a forwarder take everything? */
    for (unsigned i = 0; i < n->n_forwarders; i++) {
        const struct network_forwarder *w = &n->forwarders[i];
        fprintf(f, "server=");
        if (w->domain)
            fprintf(f, "/%s/", w->domain);
        fprintf(f, "%s\n", w->address ? w->address : "#");
        all |= !w->domain;
    }
    /* An isolated network's guests get no names from outside: that would be a way out. */
    if (all || n->forward == NETWORK_ISOLATED)
        fprintf(f, "no-resolv\n");
    for (unsigned i = 0; i < n->n_txts; i++) {
        fprintf(f, "txt-record=%s", n->txts[i].name);
        if (n->txts[i].value) {
            fputc(',', f);
            put_quoted(f, n->txts[i].value);
        }
        fputc('\n', f);
    }
    for (unsigned i = 0; i < n->n_srvs; i++) {
        const struct network_srv *s = &n->srvs[i];
        fprintf(f, "srv-host=_%s._%s", s->service, s->protocol);
        const char *domain = s->domain ? s->domain : n->domain;
        if (domain)
            fprintf(f, ".%s", domain);
        if (s->target)
            fprintf(f, ",%s,%u,%u,%u", s->target, s->port, s->priority, s->weight);
        fputc('\n', f);
    }
    for (unsigned i = 0; i < n->n_ips; i++) {
        char net[IPADDR_TEXT_MAX];
        struct ipaddr a = ipaddr_mask(&n->ips[i].address, n->ips[i].prefix);
        if (n->ips[i].local_ptr == DOMAIN_ON)
            fprintf(f, "rev-server=%s/%u\n", ipaddr_format(&a, net), n->ips[i].prefix);
    }
}

static void put_lease(FILE *f, unsigned lease_s)
{
    if (lease_s == UINT32_MAX)
        fprintf(f, ",infinite");
    else if (lease_s)
        fprintf(f, ",%u", lease_s);
}

static uint64_t put_ranges(FILE *f, const struct network *n, const struct network_ip *ip)
{
    char a[IPADDR_TEXT_MAX], b[IPADDR_TEXT_MAX], m[IPADDR_TEXT_MAX];
    struct ipaddr ones = {.bits = ip->address.bits};
    memset(ones.bytes, 0xff, sizeof ones.bytes);
    struct ipaddr mask = ipaddr_mask(&ones, ip->prefix), net = ipaddr_mask(&ip->address, ip->prefix);
    uint64_t leases = 0;
    for (unsigned i = 0; i < ip->n_ranges; i++) {
        const struct network_range *g = &ip->ranges[i];
        leases += ipaddr_span(&g->start, &g->end);
        fprintf(f, "dhcp-range=%s,%s,", ipaddr_format(&g->start, a), ipaddr_format(&g->end, b));
        if (ip->address.bits == 32)
            fprintf(f, "%s", ipaddr_format(&mask, m));
        else
            fprintf(f, "%u", ip->prefix);
        put_lease(f, g->lease_s);
        fputc('\n', f);
    }
    if (!ip->n_ranges && ip->n_hosts) {
        if (ip->address.bits == 32)
            fprintf(f, "dhcp-range=%s,static,%s\n", ipaddr_format(&net, a), ipaddr_format(&mask, m));
        else
            fprintf(f, "dhcp-range=%s,static,%u\n", ipaddr_format(&net, a), ip->prefix);
    }
    (void)n;
    return leases;
}

static void put_dhcp(FILE *f, const struct network *n, const struct hostnet_dirs *dirs)
{
    uint64_t leases = 0;
    bool v4 = false, v6 = false;
    for (unsigned i = 0; i < n->n_ips; i++) {
        const struct network_ip *ip = &n->ips[i];
        char net[IPADDR_TEXT_MAX];
        if (ip->has_dhcp) {
            leases += put_ranges(f, n, ip);
            *(ip->address.bits == 32 ? &v4 : &v6) = true;
        } else if (ip->address.bits == 128) {
            struct ipaddr a = ipaddr_mask(&ip->address, ip->prefix);
            fprintf(f, "dhcp-range=%s,ra-only\n", ipaddr_format(&a, net));
            v6 = true;
        }
        if (ip->bootp_file)
            fprintf(f, "dhcp-boot=%s%s%s\n", ip->bootp_file, ip->bootp_server ? ",," : "", ip->bootp_server ? ip->bootp_server : "");
        if (ip->tftp_root)
            fprintf(f, "enable-tftp\ntftp-root=%s\n", ip->tftp_root);
    }
    if (v6)
        fprintf(f, "enable-ra\n");
    if (!v4 && !v6)
        return;
    autofree char *lease_file = dnsmasq_lease_file(n, dirs);
    leases += 1024; /* static ones outside of the ranges: not their number, so that one more of them is no reason for a new process */
    fprintf(f, "dhcp-no-override\ndhcp-authoritative\ndhcp-lease-max=%llu\n",
            (unsigned long long)(leases > 65535 ? 65535 : leases));
    fprintf(f, "dhcp-hostsfile=%s/%s.hosts\ndhcp-leasefile=%s\n", dirs->state, n->name, lease_file);
    /* No way out of an isolated network: no router is told. */
    if (n->forward == NETWORK_ISOLATED)
        fprintf(f, "dhcp-option=3\n");
    if (n->mtu)
        fprintf(f, "dhcp-option=option:mtu,%u\n", n->mtu);
}

char *dnsmasq_conf(const struct network *n, const char *bridge, const struct hostnet_dirs *dirs)
{
    struct text t;
    text_open(&t);
    fprintf(t.f, "# Made by lodged from the network '%s'; changes here are lost. See net-edit.\n", n->name);
    fprintf(t.f, "strict-order\npid-file=%s/%s.pid\nexcept-interface=lo\nbind-dynamic\ninterface=%s\n", dirs->run, n->name, bridge);
    if (getpwnam("dnsmasq"))
        fprintf(t.f, "user=dnsmasq\n");
    fprintf(t.f, "no-hosts\naddn-hosts=%s/%s.names\n", dirs->state, n->name);
    put_dns(t.f, n);
    put_dhcp(t.f, n, dirs);
    for (unsigned i = 0; i < n->n_dnsmasq_options; i++)
        fprintf(t.f, "%s\n", n->dnsmasq_options[i]);
    return text_close(&t);
}

char *dnsmasq_hosts(const struct network *n)
{
    struct text t;
    char a[IPADDR_TEXT_MAX], mac[18];
    text_open(&t);
    for (unsigned i = 0; i < n->n_ips; i++) {
        const struct network_ip *ip = &n->ips[i];
        for (unsigned k = 0; k < ip->n_hosts; k++) {
            const struct network_host *h = &ip->hosts[k];
            const char *sep = "";
            if (h->has_mac) {
                fprintf(t.f, "%s", mac_format(h->mac, mac));
                sep = ",";
            }
            if (h->id) {
                fprintf(t.f, "%sid:%s", sep, h->id);
                sep = ",";
            }
            if (h->name && !h->has_mac && !h->id) {
                fprintf(t.f, "%s", h->name);
                sep = ",";
            }
            if (h->ip.bits)
                fprintf(t.f, h->ip.bits == 32 ? "%s%s" : "%s[%s]", sep, ipaddr_format(&h->ip, a));
            if (h->name && (h->has_mac || h->id))
                fprintf(t.f, ",%s", h->name);
            put_lease(t.f, h->lease_s);
            fputc('\n', t.f);
        }
    }
    return text_close(&t);
}

char *dnsmasq_names(const struct network *n)
{
    struct text t;
    char a[IPADDR_TEXT_MAX];
    text_open(&t);
    for (unsigned i = 0; i < n->n_dns_hosts; i++) {
        fprintf(t.f, "%s", ipaddr_format(&n->dns_hosts[i].ip, a));
        for (unsigned k = 0; k < n->dns_hosts[i].n_names; k++)
            fprintf(t.f, " %s", n->dns_hosts[i].names[k]);
        fputc('\n', t.f);
    }
    return text_close(&t);
}
