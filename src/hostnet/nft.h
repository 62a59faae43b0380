/*
 * The packet filter's part of a network, in nftables tables of its own: "inet lodge_BRIDGE" for addresses and ports, "bridge
 * lodge_BRIDGE" for what guests may send. Rules of others are never looked at or changed. A table is replaced whole, in one
 * transaction, so that there is no moment without rules.
 */
#ifndef LODGE_HOSTNET_NFT_H
#define LODGE_HOSTNET_NFT_H

#include "domain/network.h"

/* A guest's interface on the network's bridge. */
struct nft_port {
    char name[16];
    uint8_t mac[6];
    bool filtered; /* only its own MAC address, and no addresses of others */
};
/* An address that DHCP has given to a card. */
struct nft_lease {
    struct ipaddr ip;
    uint8_t mac[6];
};

/* The text for `nft -f`; the caller frees it. `bridge`: the bridge's name. */
char *nft_rules(const struct network *n, const char *bridge);
char *nft_port_rules(const struct network *n, const char *bridge, const struct nft_port *ports, unsigned n_ports,
                     const struct nft_lease *leases, unsigned n_leases);
/* Text that removes the tables of a bridge. */
char *nft_no_rules(const char *bridge);

int nft_apply(const char *text, struct err *err);

#endif
