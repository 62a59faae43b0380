/* Making and freeing a network, and small questions about one. See network.h. */
#include "domain/network.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/reader.h"

struct network *network_new(void)
{
    return xcalloc(1, sizeof(struct network));
}

static void ip_free(struct network_ip *ip)
{
    free(ip->tftp_root);
    free(ip->bootp_file);
    free(ip->bootp_server);
    free(ip->ranges);
    for (unsigned i = 0; i < ip->n_hosts; i++) {
        free(ip->hosts[i].id);
        free(ip->hosts[i].name);
    }
    free(ip->hosts);
}

static void dns_free(struct network *n)
{
    for (unsigned i = 0; i < n->n_dns_hosts; i++) {
        for (unsigned k = 0; k < n->dns_hosts[i].n_names; k++)
            free(n->dns_hosts[i].names[k]);
        free(n->dns_hosts[i].names);
    }
    free(n->dns_hosts);
    for (unsigned i = 0; i < n->n_forwarders; i++) {
        free(n->forwarders[i].address);
        free(n->forwarders[i].domain);
    }
    free(n->forwarders);
    for (unsigned i = 0; i < n->n_txts; i++) {
        free(n->txts[i].name);
        free(n->txts[i].value);
    }
    free(n->txts);
    for (unsigned i = 0; i < n->n_srvs; i++) {
        free(n->srvs[i].service);
        free(n->srvs[i].protocol);
        free(n->srvs[i].domain);
        free(n->srvs[i].target);
    }
    free(n->srvs);
}

static void strings_free(char **list, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

void network_free(struct network *n)
{
    if (!n)
        return;
    char *strings[] = {n->name,        n->title,     n->description, n->forward_name, n->forward_dev, n->bridge,
                       n->bridge_zone, n->mac_table, n->domain,      n->virtualport};
    for (unsigned i = 0; i < ARRAY_SIZE(strings); i++)
        free(strings[i]);
    strings_free(n->forward_ifs, n->n_forward_ifs);
    dns_free(n);
    for (unsigned i = 0; i < n->n_ips; i++)
        ip_free(&n->ips[i]);
    free(n->ips);
    free(n->routes);
    free(n->vlan_tags);
    strings_free(n->dnsmasq_options, n->n_dnsmasq_options);
    for (unsigned i = 0; i < n->n_publishes; i++)
        free(n->publishes[i].protocol);
    free(n->publishes);
    domain_unknown_free(&n->unknown);
    free(n);
}

bool network_name_valid(const char *name)
{
    if (!name || !*name || *name == '.' || *name == '-' || strlen(name) > 50)
        return false;
    for (const unsigned char *s = (const unsigned char *)name; *s; s++)
        if (*s <= ' ' || *s >= 0x7f || strchr("/\\\"'`$&|;<>(){}*?!~#,%", *s))
            return false;
    return true;
}

const struct network_ip *network_ip_of(const struct network *n, unsigned bits)
{
    for (unsigned i = 0; i < n->n_ips; i++)
        if (n->ips[i].address.bits == bits)
            return &n->ips[i];
    return NULL;
}

static const char *const forward_words[] = {
    [NETWORK_NAT] = "nat",         [NETWORK_ROUTE] = "route", [NETWORK_OPEN] = "open",
    [NETWORK_BRIDGE] = "bridge",   [NETWORK_PRIVATE] = "private", [NETWORK_VEPA] = "vepa",
    [NETWORK_PASSTHROUGH] = "passthrough",
};

const char *network_forward_name(enum network_forward f)
{
    return f < ARRAY_SIZE(forward_words) ? forward_words[f] : NULL;
}

int network_forward_find(const char *s)
{
    for (unsigned i = 0; i < ARRAY_SIZE(forward_words); i++)
        if (forward_words[i] && !strcmp(forward_words[i], s))
            return (int)i;
    return -1;
}

void network_defaults(struct network *n)
{
    for (unsigned i = 0; i < n->n_ips; i++) {
        struct network_ip *ip = &n->ips[i];
        if (ip->prefix_given)
            continue;
        /* What the address's class says, as people who leave it out expect. */
        uint8_t top = ip->address.bytes[0];
        ip->prefix = ip->address.bits == 128 ? 64 : top < 128 ? 8 : top < 192 ? 16 : 24;
        ip->prefix_given = true;
    }
    for (unsigned i = 0; i < n->n_routes; i++) {
        struct network_route *r = &n->routes[i];
        if (!r->prefix_given) {
            struct ipaddr none = {.bits = r->address.bits};
            r->prefix = !ipaddr_compare(&r->address, &none) ? 0 : r->address.bits;
            r->prefix_given = true;
        }
    }
    for (unsigned i = 0; i < n->n_publishes; i++)
        if (!n->publishes[i].to_port)
            n->publishes[i].to_port = n->publishes[i].port;
    if (network_own_bridge(n) && n->stp == DOMAIN_DEFAULT)
        n->stp = DOMAIN_ON;
}
