/*
 * A network on the host: its bridge, addresses, routes, packet filter and dnsmasq, made from the description and taken away again.
 * Everything of it is in the kernel or a process of its own, so that whoever comes next (a new daemon) finds it as it is. Starting either works
 * wholly or leaves the host as it was. On one thread; calls wait for the kernel and, some milliseconds, for nft and dnsmasq.
 */
#ifndef LODGE_HOSTNET_HOSTNET_H
#define LODGE_HOSTNET_HOSTNET_H

#include "hostnet/dnsmasq.h"
#include "hostnet/nft.h"

/* Makes it. n->bridge is set, for networks with a bridge of their own. The description is checked (network_check()). */
int hostnet_up(const struct network *n, const struct hostnet_dirs *dirs, struct err *err);
/* Takes away whatever there is of it. Ports of guests lose their bridge. */
void hostnet_down(const struct network *n, const struct hostnet_dirs *dirs);
/* Is it there, made by hostnet_up() for this network? */
bool hostnet_is_up(const struct network *n);
/* Puts right what is missing of a network that is up (rules, dnsmasq), or was changed in its description. Packets go on. */
int hostnet_refresh(const struct network *n, const struct hostnet_dirs *dirs, struct err *err);

/* Is a subnet of `n` in use on the host already, by an interface that is not n's own bridge? -EADDRINUSE with who has it. */
int hostnet_check_free(const struct network *n, struct err *err);
/* A private IPv4 /24 that nothing on the host uses: 192.168.122.0 or one of the next; `taken` says what else is not free. */
int hostnet_free_subnet(bool (*taken)(void *opaque, const struct ipaddr *net, unsigned prefix), void *opaque, struct ipaddr *ret);

/* Connects a guest's interface: makes the tap (or macvtap) `name` and puts it where the network wants it. */
int hostnet_port_add(const struct network *n, const char *name, const uint8_t *mac, bool multiqueue, struct err *err);
void hostnet_port_remove(const struct network *n, const char *name);
/* Writes the rules for what these interfaces may send; all that the network has, with the leases as they are now. */
int hostnet_ports_filter(const struct network *n, const struct hostnet_dirs *dirs, const struct nft_port *ports, unsigned n_ports,
                         struct err *err);

#endif
