/*
 * A virtual network's description: libvirt's network XML as plain data, in the same four steps as a domain (domain.h): parse,
 * defaults, check, format. Strings are owned and NULL when absent; what has no field is kept and written back.
 *
 * Ours beyond libvirt's: <lodge:publish protocol='tcp' port='8080' [hostAddress='…'] to='192.168.122.10' [toPort='80']/> in the
 * namespace NETWORK_LODGE_NS makes a port of the host lead to a guest.
 */
#ifndef LODGE_DOMAIN_NETWORK_H
#define LODGE_DOMAIN_NETWORK_H

#include "base/ipaddr.h"
#include "domain/domain.h"

#define NETWORK_LODGE_NS "https://lodge.dev/schemas/network/1.0"

enum network_forward {
    NETWORK_ISOLATED, /* no <forward> */
    NETWORK_NAT,
    NETWORK_ROUTE,
    NETWORK_OPEN,    /* routed, without any rules of ours */
    NETWORK_BRIDGE,  /* onto a bridge that is there already, or (with <forward dev>) macvtap in mode bridge */
    NETWORK_PRIVATE, /* macvtap from here on */
    NETWORK_VEPA,
    NETWORK_PASSTHROUGH,
    NETWORK_OTHER, /* hostdev …: `forward_name` */
};

struct network_range { /* <range start end> */
    struct ipaddr start, end;
    unsigned lease_s; /* 0: dnsmasq's own hour; UINT32_MAX: for ever */
    int line;
};

struct network_host { /* <dhcp><host> */
    bool has_mac;
    uint8_t mac[6];
    char *id; /* DHCPv6 client id */
    char *name;
    struct ipaddr ip;
    unsigned lease_s;
    int line;
};

struct network_ip { /* <ip> */
    struct ipaddr address;
    unsigned prefix;
    bool prefix_given;   /* else as the address's class has it */
    bool as_netmask;     /* written so */
    enum domain_tristate local_ptr;
    char *tftp_root;
    char *bootp_file, *bootp_server;
    struct network_range *ranges;
    unsigned n_ranges;
    struct network_host *hosts;
    unsigned n_hosts;
    bool has_dhcp;
    int line;
};

struct network_route { /* <route> */
    struct ipaddr address, gateway;
    unsigned prefix;
    bool prefix_given;
    unsigned metric; /* 0: none */
    int line;
};

struct network_dns_host { /* <dns><host> */
    struct ipaddr ip;
    char **names;
    unsigned n_names;
};
struct network_forwarder {
    char *address, *domain;
};
struct network_txt {
    char *name, *value;
};
struct network_srv {
    char *service, *protocol, *domain, *target;
    unsigned port, priority, weight;
};

struct network_publish { /* <lodge:publish> */
    char *protocol;      /* tcp, udp */
    uint16_t port;       /* on the host */
    bool has_host;
    struct ipaddr host; /* only this address of the host's */
    struct ipaddr to;
    uint16_t to_port;
    int line;
};

struct network_rate { /* kilobytes a second, kilobytes a second, kilobytes; 0: not given */
    uint64_t average, peak, burst, floor;
};

struct network {
    char *name;
    bool has_uuid;
    uint8_t uuid[16];
    char *title, *description;
    bool ipv6; /* ipv6='yes': guests may talk IPv6 to each other though there is no IPv6 address */

    enum network_forward forward;
    char *forward_name; /* as written, for NETWORK_OTHER */
    char *forward_dev;
    char **forward_ifs; /* <interface dev> */
    unsigned n_forward_ifs;
    bool nat_ipv6; /* <nat ipv6='yes'> */
    struct ipaddr nat_start, nat_end;
    uint16_t nat_port_start, nat_port_end;

    char *bridge;
    char *bridge_zone;
    enum domain_tristate stp;
    unsigned delay; /* s */
    char *mac_table;
    unsigned mtu;
    bool has_mac;
    uint8_t mac[6];

    char *domain;
    enum domain_tristate domain_local;

    enum domain_tristate dns_enable, dns_forward_plain;
    struct network_dns_host *dns_hosts;
    unsigned n_dns_hosts;
    struct network_forwarder *forwarders;
    unsigned n_forwarders;
    struct network_txt *txts;
    unsigned n_txts;
    struct network_srv *srvs;
    unsigned n_srvs;
    bool has_dns;

    struct network_ip *ips;
    unsigned n_ips;
    struct network_route *routes;
    unsigned n_routes;

    enum domain_tristate isolated; /* <port isolated> */
    char *virtualport;             /* type */
    unsigned *vlan_tags;
    unsigned n_vlan_tags;
    enum domain_tristate vlan_trunk;
    struct network_rate inbound, outbound; /* of the whole network */

    char **dnsmasq_options; /* <dnsmasq:option value> */
    unsigned n_dnsmasq_options;
    struct network_publish *publishes;
    unsigned n_publishes;

    struct domain_unknown unknown;
};

struct network *network_new(void);
void network_free(struct network *n); /* NULL-safe */

/* As domain_parse(). */
int network_parse(const char *xml, size_t len, const char *name, struct network **ret, struct err *err);
/* Fills in what was left out, but for the bridge's name and the MAC address, which depend on the other networks. */
void network_defaults(struct network *n);
/* Is this, with its defaults, a network that can be? 0, or -errno with the first thing that is wrong. */
int network_check(const struct network *n, const char *name, struct err *err);
/* The document as libvirt would write it; the caller frees it. `connections` goes into the root; 0: left out. */
char *network_format(const struct network *n, unsigned connections);

/* Do we make this network's bridge? (Not for bridges of somebody else, and macvtap.) */
static inline bool network_own_bridge(const struct network *n)
{
    return n->forward <= NETWORK_OPEN;
}
/* Are guests attached to it by macvtap? */
static inline bool network_macvtap(const struct network *n)
{
    return n->forward >= NETWORK_PRIVATE || (n->forward == NETWORK_BRIDGE && !n->bridge);
}
/* Is the name one that can be a file's and an interface's part: no slashes, dots first, blanks, control or shell characters? */
bool network_name_valid(const char *name);
/* The first address of that family (32, 128), or NULL. */
const struct network_ip *network_ip_of(const struct network *n, unsigned bits);

const char *network_forward_name(enum network_forward f); /* NULL for isolated and other */
int network_forward_find(const char *s);

/* One <host>, <range>, … of net-update: network_update.c. */
enum network_update_command { NETWORK_MODIFY = 1, NETWORK_DELETE = 2, NETWORK_ADD_LAST = 3, NETWORK_ADD_FIRST = 4 };
enum network_update_section {
    NETWORK_SECTION_BRIDGE = 1,
    NETWORK_SECTION_DOMAIN = 2,
    NETWORK_SECTION_IP = 3,
    NETWORK_SECTION_IP_DHCP_HOST = 4,
    NETWORK_SECTION_IP_DHCP_RANGE = 5,
    NETWORK_SECTION_FORWARD = 6,
    NETWORK_SECTION_FORWARD_INTERFACE = 7,
    NETWORK_SECTION_FORWARD_PF = 8,
    NETWORK_SECTION_PORTGROUP = 9,
    NETWORK_SECTION_DNS_HOST = 10,
    NETWORK_SECTION_DNS_TXT = 11,
    NETWORK_SECTION_DNS_SRV = 12,
};
/*
 * Changes one part of the network by a document of that part alone. `index` is which <ip> it is in; -1: the one it fits in.
 * -EEXIST, -ENOENT, -EINVAL, -EOPNOTSUPP (a part that can't be changed so), with a message; the network is then as it was.
 */
int network_update(struct network *n, unsigned command, unsigned section, int index, const char *xml, struct err *err);

#endif
