/*
 * Network interfaces of the host by rtnetlink (rtnetlink(7)): bridges, taps, macvtaps, addresses, routes. A socket is opened
 * for each call, in the network namespace of the calling thread; calls answer at once and block on nothing but the kernel.
 */
#ifndef LODGE_HOSTNET_LINK_H
#define LODGE_HOSTNET_LINK_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ipaddr.h"

struct link {
    int index;
    char name[IF_NAMESIZE];
    char kind[16];   /* "bridge", "tun", … "" for hardware */
    char alias[128]; /* who made it, by link_set_alias() */
    uint8_t mac[6];
    unsigned mtu;
    int master; /* the bridge's index, 0: none */
    bool up, carrier;
};

/* All interfaces, in an array for the caller to free. The number, or -errno. */
int link_list(struct link **ret, struct err *err);
/* -ENODEV without a message when there is none of that name. */
int link_find(const char *name, struct link *ret, struct err *err);

/* Makes a bridge, down. -EEXIST when the name is taken. `mac` may be NULL. `delay` in seconds. */
int link_add_bridge(const char *name, const uint8_t *mac, bool stp, unsigned delay, struct err *err);
/* A tap device that stays, for processes to open by its name. */
int link_add_tap(const char *name, bool multiqueue, struct err *err);
enum link_macvtap { LINK_MACVTAP_PRIVATE = 1, LINK_MACVTAP_VEPA = 2, LINK_MACVTAP_BRIDGE = 4, LINK_MACVTAP_PASSTHRU = 8 };
int link_add_macvtap(const char *name, const char *lower, enum link_macvtap mode, const uint8_t *mac, struct err *err);
int link_delete(const char *name, struct err *err);

int link_set_up(const char *name, bool up, struct err *err);
int link_set_mtu(const char *name, unsigned mtu, struct err *err);
int link_set_mac(const char *name, const uint8_t *mac, struct err *err);
int link_set_alias(const char *name, const char *alias, struct err *err);
/* master NULL: out of its bridge. */
int link_set_master(const char *name, const char *master, struct err *err);
/* Ports that are isolated reach no other isolated port of their bridge. */
int link_set_isolated(const char *name, bool on, struct err *err);

int link_add_addr(const char *name, const struct ipaddr *a, unsigned prefix, struct err *err);
int link_add_route(const char *name, const struct ipaddr *dst, unsigned prefix, const struct ipaddr *gateway, unsigned metric,
                   struct err *err);
/* Calls fn for each address of each interface; stops at the first result that is not 0, and returns it. */
int link_each_addr(int (*fn)(void *opaque, int index, const struct ipaddr *a, unsigned prefix), void *opaque, struct err *err);
/* … for each unicast route of the main table with a destination. */
int link_each_route(int (*fn)(void *opaque, int index, const struct ipaddr *dst, unsigned prefix), void *opaque, struct err *err);

/* The counters of an interface, as its owner sees them. -ENODEV. */
struct link_stats {
    uint64_t rx_bytes, rx_packets, rx_errs, rx_drop, tx_bytes, tx_packets, tx_errs, tx_drop;
};
int link_stats(const char *name, struct link_stats *ret);

#endif
