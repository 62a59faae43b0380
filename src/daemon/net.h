/*
 * Virtual networks as the daemon keeps them: definitions on disk (CONFIG/networks), what is in effect now (RUN/network), and the guests'
 * interfaces on them. What a network is on the host is hostnet's business; what is on it now is read off the running guests, so that a new
 * daemon knows it too. On the daemon's thread.
 */
#ifndef LODGE_DAEMON_NET_H
#define LODGE_DAEMON_NET_H

#include <uthash.h>

#include "daemon/guest.h"
#include "hostnet/hostnet.h"

struct daemon;

struct net {
    UT_hash_handle by_name;
    struct daemon *daemon;
    struct network *now;  /* in effect; while inactive: the definition */
    struct network *next; /* the definition, when it differs from what is in effect; NULL: it doesn't */
    bool active, persistent, autostart;
};

enum { NET_EVENT_DEFINED, NET_EVENT_UNDEFINED, NET_EVENT_STARTED, NET_EVENT_STOPPED };

/* nets.c */
int nets_start(struct daemon *d, struct err *err);
void nets_stop(struct daemon *d);
/* The guests that run are known: their interfaces' rules are put right. */
void nets_adopt(struct daemon *d);
void nets_autostart(struct daemon *d);
struct net *net_find_name(const struct daemon *d, const char *name);
struct net *net_find_uuid(const struct daemon *d, const uint8_t *uuid);
struct net *net_first(const struct daemon *d);
/* Defines, or redefines: what is in effect stays so until it is stopped. */
struct net *net_define(struct daemon *d, const char *xml, struct rpc_error *e);
/* A network that is gone when it is stopped. */
struct net *net_create_transient(struct daemon *d, const char *xml, struct rpc_error *e);
int net_undefine(struct net *n, struct rpc_error *e);
int net_start(struct net *n, struct rpc_error *e);
int net_stop(struct net *n, struct rpc_error *e); /* a transient one is gone then */
int net_set_autostart(struct net *n, bool on, struct rpc_error *e);
/* libvirt's NETWORK_UPDATE. */
int net_update(struct net *n, unsigned command, unsigned section, int index, const char *xml, bool live, bool config,
               struct rpc_error *e);
/* The document in effect, or the definition. The caller frees it. */
char *net_xml(const struct net *n, bool inactive);
const struct hostnet_dirs *net_dirs(const struct daemon *d);

/* net_guests.c: guests' interfaces. */
/* Connects all interfaces of `live` that are on networks or bridges; all or none. */
int net_guest_prepare(struct daemon *d, struct guest *g, struct domain *live, struct rpc_error *e);
/* Takes them away again. */
void net_guest_ended(struct daemon *d, struct guest *g);
/* One interface of a guest, which runs or is about to. */
int net_interface_connect(struct daemon *d, struct domain_interface *i, struct rpc_error *e);
void net_interface_disconnect(struct daemon *d, struct domain_interface *i);
/* Removes tap devices of guests that ended while nobody looked. */
void net_guests_sweep(struct daemon *d);
/* How many interfaces of running guests are on it. */
unsigned net_connections(const struct net *n);
/* Writes the rules for what its guests may send anew: interfaces or leases have changed. */
int net_filter(struct net *n, struct rpc_error *e);

#endif
