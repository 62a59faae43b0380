/*
 * Guests' interfaces on networks and bridges: tap devices made before a guest starts, named in its live document (so that a new daemon
 * finds them there), and taken away when it has ended.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/net.h"
#include "domain/xml.h"
#include "hostnet/link.h"

/* Is it ours to connect? */
static bool on_network(const struct domain_interface *i)
{
    return (i->type == DOMAIN_NET_NETWORK || i->type == DOMAIN_NET_BRIDGE) && i->source;
}

/* An interface of type bridge is like one on a network of that bridge alone. */
static struct network *bridge_network(const char *bridge)
{
    struct network *n = network_new();
    n->forward = NETWORK_BRIDGE;
    domain_set(&n->name, bridge);
    domain_set(&n->bridge, bridge);
    return n;
}

/* Is the <port isolated='yes'> of the interface itself set, or does it want Open vSwitch? Both are kept as XML. */
static const char *kept_attr(const struct domain_interface *i, const char *element, const char *attr)
{
    for (unsigned k = 0; k < i->unknown.n_items; k++) {
        const struct domain_unknown_item *it = &i->unknown.items[k];
        if (it->node && !*it->path && !strcmp(it->node->name, element))
            return xml_attr_get(it->node, attr);
    }
    return NULL;
}

/* A name that nobody has. */
static int free_name(const char *prefix, char *ret)
{
    struct link l;
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(ret, IF_NAMESIZE, "%s%u", prefix, i);
        if (link_find(ret, &l, NULL) == -ENODEV)
            return 0;
    }
    return -EBUSY;
}

/* A network that is needed is started: what else should the guest do? */
static struct net *find_network(struct daemon *d, const char *name, struct rpc_error *e)
{
    struct net *n = net_find_name(d, name);
    if (!n) {
        e->domain = VIR_FROM_NETWORK;
        verr_set(e, VIR_NO_NETWORK, "no network with matching name '%.60s'", name);
        return NULL;
    }
    return n->active || net_start(n, e) == 0 ? n : NULL;
}

static int make_port(const struct network *def, struct domain_interface *i, struct rpc_error *e)
{
    struct err err = {0};
    char name[IF_NAMESIZE];
    bool chosen = i->target && *i->target && !strchr(i->target, '%') && strncmp(i->target, "vnet", 4) != 0;
    /* Somebody else may take the name between asking and making. */
    for (int tries = 0; tries < 20; tries++) {
        err = (struct err){0};
        if (chosen)
            snprintf(name, sizeof name, "%s", i->target);
        else if (free_name(network_macvtap(def) ? "macvtap" : "vnet", name) < 0)
            return verr_set(e, VIR_INTERNAL_ERROR, "no free interface name");
        int r = hostnet_port_add(def, name, i->mac, i->queues > 1, &err);
        if (!r) {
            domain_set(&i->target, name);
            i->target_managed = DOMAIN_OFF; /* lodge-vm takes what is there */
            return 0;
        }
        if (chosen || (r != -EEXIST && r != -EBUSY))
            break;
    }
    return verr_take(e, VIR_SYSTEM_ERROR, &err);
}

int net_interface_connect(struct daemon *d, struct domain_interface *i, struct rpc_error *e)
{
    if (!i->has_mac) {
        if (getrandom(i->mac, 6, 0) != 6)
            return verr_errno(e, errno, "no random numbers");
        memcpy(i->mac, (const uint8_t[]){0x52, 0x54, 0x00}, 3);
        i->has_mac = true;
    }
    struct net *n = NULL;
    struct network *def;
    if (i->type == DOMAIN_NET_NETWORK) {
        if (!(n = find_network(d, i->source, e)))
            return -1;
        def = n->now;
    } else
        def = bridge_network(i->source);
    const char *ovs = kept_attr(i, "virtualport", "type"), *isolated = kept_attr(i, "port", "isolated");
    struct network view = *def; /* the interface's own wishes beside the network's */
    if (ovs && !strcmp(ovs, "openvswitch"))
        view.virtualport = (char *)ovs;
    if (isolated && !strcmp(isolated, "yes"))
        view.isolated = DOMAIN_ON;
    int r = make_port(&view, i, e);
    if (!n)
        network_free(def);
    struct err err = {0};
    if (!r && i->link_up == DOMAIN_OFF && link_set_up(i->target, false, &err) < 0)
        r = verr_take(e, VIR_SYSTEM_ERROR, &err);
    return r;
}

void net_interface_disconnect(struct daemon *d, struct domain_interface *i)
{
    struct link l;
    struct net *n = i->type == DOMAIN_NET_NETWORK && i->source ? net_find_name(d, i->source) : NULL;
    if (!on_network(i) || !i->target || i->target_managed != DOMAIN_OFF || link_find(i->target, &l, NULL) < 0)
        return;
    hostnet_port_remove(n ? n->now : NULL, i->target);
}

/* Rules anew for each network that the document's interfaces are on. */
static int filter_all(struct daemon *d, const struct domain *live, struct rpc_error *e)
{
    int r = 0;
    for (unsigned i = 0; i < live->n_interfaces && !r; i++) {
        const struct domain_interface *x = &live->interfaces[i];
        bool before = false;
        for (unsigned k = 0; k < i; k++)
            before |= x->source && live->interfaces[k].source && live->interfaces[k].type == x->type &&
                      !strcmp(live->interfaces[k].source, x->source);
        struct net *n = x->type == DOMAIN_NET_NETWORK && x->source && !before ? net_find_name(d, x->source) : NULL;
        if (n && n->active)
            r = net_filter(n, e);
    }
    return r;
}

int net_guest_prepare(struct daemon *d, struct guest *g, struct domain *live, struct rpc_error *e)
{
    int r = 0;
    unsigned done = 0;
    for (; done < live->n_interfaces && !r; done++)
        if (on_network(&live->interfaces[done]))
            r = net_interface_connect(d, &live->interfaces[done], e);
    if (!r && done) {
        g->live = live; /* net_filter() reads it off the guests */
        r = filter_all(d, live, e);
        g->live = NULL;
    }
    if (r < 0) {
        for (unsigned i = 0; i < done; i++)
            net_interface_disconnect(d, &live->interfaces[i]);
        return -1;
    }
    return 0;
}

void net_guest_ended(struct daemon *d, struct guest *g)
{
    struct rpc_error e = {0};
    struct domain *live = g->live;
    if (!live || g->restarting)
        return;
    bool any = false;
    for (unsigned i = 0; i < live->n_interfaces; i++) {
        any |= on_network(&live->interfaces[i]);
        net_interface_disconnect(d, &live->interfaces[i]);
    }
    if (!any)
        return;
    g->live = NULL;
    if (filter_all(d, live, &e) < 0)
        log_error("guest '%s': %s", g->name, e.message);
    g->live = live;
}

/* Calls fn for each interface of guests that is on the network. */
static void each_port(const struct net *n, void (*fn)(void *opaque, const struct domain_interface *i), void *opaque)
{
    struct guest *g, *next;
    HASH_ITER(by_name, n->daemon->guests.by_name, g, next)
    {
        for (unsigned i = 0; g->live && i < g->live->n_interfaces; i++) {
            const struct domain_interface *x = &g->live->interfaces[i];
            if (x->type == DOMAIN_NET_NETWORK && x->source && x->target && !strcmp(x->source, n->now->name))
                fn(opaque, x);
        }
    }
}

static void count_port(void *opaque, const struct domain_interface *i)
{
    (void)i;
    ++*(unsigned *)opaque;
}

unsigned net_connections(const struct net *n)
{
    unsigned count = 0;
    each_port(n, count_port, &count);
    return count;
}

static bool in_use(const struct daemon *d, const char *name)
{
    struct guest *g, *next;
    HASH_ITER(by_name, d->guests.by_name, g, next)
    for (unsigned i = 0; g->live && i < g->live->n_interfaces; i++)
        if (g->live->interfaces[i].target && !strcmp(g->live->interfaces[i].target, name))
            return true;
    return false;
}

/* Only what hangs on a bridge of ours can be ours. */
void net_guests_sweep(struct daemon *d)
{
    struct link *links = NULL;
    struct net *first = net_first(d), *n, *next;
    int count = link_list(&links, NULL);
    HASH_ITER(by_name, first, n, next)
    {
        struct link bridge;
        if (!n->active || !network_own_bridge(n->now) || link_find(n->now->bridge, &bridge, NULL) < 0)
            continue;
        for (int i = 0; i < count; i++) {
            const struct link *l = &links[i];
            if (l->master != bridge.index || strcmp(l->kind, "tun") || strncmp(l->name, "vnet", 4) || in_use(d, l->name))
                continue;
            log_info("network '%s': removing %s of a guest that has ended", n->now->name, l->name);
            link_delete(l->name, NULL);
        }
    }
    free(links);
}

struct ports {
    struct nft_port *items;
    unsigned n;
};

static void take_port(void *opaque, const struct domain_interface *i)
{
    struct ports *p = opaque;
    struct nft_port *x = &p->items[p->n++];
    /* Who routes for others says so: trustGuestRxFilters, as libvirt has it. */
    const char *trust = NULL;
    for (unsigned k = 0; k < i->unknown.n_items; k++)
        if (i->unknown.items[k].attr && !strcmp(i->unknown.items[k].attr, "trustGuestRxFilters"))
            trust = i->unknown.items[k].value;
    snprintf(x->name, sizeof x->name, "%s", i->target);
    memcpy(x->mac, i->mac, 6);
    x->filtered = !trust || strcmp(trust, "yes") != 0;
}

int net_filter(struct net *n, struct rpc_error *e)
{
    struct err err = {0};
    struct ports p = {.items = xcalloc(net_connections(n) + 1, sizeof *p.items)};
    each_port(n, take_port, &p);
    int r = hostnet_ports_filter(n->now, net_dirs(n->daemon), p.items, p.n, &err);
    free(p.items);
    return r < 0 ? verr_take(e, VIR_BUILD_FIREWALL, &err) : 0;
}
