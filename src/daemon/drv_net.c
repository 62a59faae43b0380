/* Networks: libvirt's procedures over net.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/net.h"

static void put_net(rp_network *ret, const struct net *n)
{
    ret->name = xstrdup(n->now->name);
    memcpy(ret->uuid.bytes, n->now->uuid, 16);
}

static struct net *call_net(struct daemon *d, struct rpc_call *call, const rp_network *net)
{
    char uuid[37];
    struct net *n = net_find_uuid(d, (const uint8_t *)net->uuid.bytes);
    if (n)
        return n;
    uuid_format((const uint8_t *)net->uuid.bytes, uuid);
    verr_set(&call->error, VIR_NO_NETWORK, "no network with matching uuid '%s' (%.200s)", uuid, net->name);
    return NULL;
}

static int lookup_name(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_string);
    struct net *n = net_find_name(d, *a);
    if (!n)
        return verr_set(&call->error, VIR_NO_NETWORK, "no network with matching name '%.300s'", *a);
    put_net(call->ret, n);
    return RPC_DONE;
}

static int lookup_uuid(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_uuid);
    char uuid[37];
    struct net *n = net_find_uuid(d, (const uint8_t *)a->bytes);
    uuid_format((const uint8_t *)a->bytes, uuid);
    if (!n)
        return verr_set(&call->error, VIR_NO_NETWORK, "no network with matching uuid '%s'", uuid);
    put_net(call->ret, n);
    return RPC_DONE;
}

/* libvirt's virConnectListAllNetworksFlags. */
static bool wanted(const struct net *n, unsigned flags)
{
    const struct {
        unsigned yes, no;
        bool is;
    } pairs[] = {{2, 1, n->active}, {4, 8, n->persistent}, {16, 32, n->autostart}};
    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
        if (flags & (pairs[i].yes | pairs[i].no) && !(flags & (pairs[i].is ? pairs[i].yes : pairs[i].no)))
            return false;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rp_network *)a)->name, ((const rp_network *)b)->name);
}

static int list_all(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_list_args);
    RET(rp_net_list);
    struct net *first = net_first(d), *n, *next;
    unsigned count = 0, max = MIN(HASH_CNT(by_name, first), RP_LIST_MAX);
    if (call_flags(call, a->flags, 63) < 0)
        return RPC_FAILED;
    rp_network *list = xcalloc(max + 1, sizeof *list);
    HASH_ITER(by_name, first, n, next)
    {
        if (!wanted(n, a->flags))
            continue;
        if (a->need_results && count < max)
            put_net(&list[count], n);
        count++;
    }
    ret->items.items_val = list;
    ret->items.items_len = a->need_results ? MIN(count, max) : 0;
    ret->ret = count;
    qsort(list, ret->items.items_len, sizeof *list, by_name);
    return RPC_DONE;
}

/* The older lists, of names: active networks, or those that are not. */
static int list_names(struct daemon *d, struct rpc_call *call, bool active)
{
    ARGS(rp_int);
    RET(rp_names);
    struct net *first = net_first(d), *n, *next;
    unsigned count = 0, max = MIN(MAX(*a, 0), RP_LIST_MAX);
    ret->names.names_val = xcalloc(max + 1, sizeof(rp_string));
    HASH_ITER(by_name, first, n, next)
    if (n->active == active && count < max)
        ret->names.names_val[count++] = xstrdup(n->now->name);
    ret->names.names_len = count;
    return RPC_DONE;
}

static int count_nets(struct daemon *d, struct rpc_call *call, bool active)
{
    RET(rp_int);
    struct net *first = net_first(d), *n, *next;
    HASH_ITER(by_name, first, n, next)
    *ret += n->active == active;
    return RPC_DONE;
}

static int list_active(struct daemon *d, struct rpc_call *call)
{
    return list_names(d, call, true);
}
static int list_defined(struct daemon *d, struct rpc_call *call)
{
    return list_names(d, call, false);
}
static int num_active(struct daemon *d, struct rpc_call *call)
{
    return count_nets(d, call, true);
}
static int num_defined(struct daemon *d, struct rpc_call *call)
{
    return count_nets(d, call, false);
}

static int finish_new(struct rpc_call *call, struct net *n)
{
    if (!n)
        return RPC_FAILED;
    put_net(call->ret, n);
    return RPC_DONE;
}

static int define_xml(struct daemon *d, struct rpc_call *call)
{
    return finish_new(call, net_define(d, *(rp_string *)call->args, &call->error));
}

static int define_xml_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    if (call_flags(call, a->flags, 1) < 0)
        return RPC_FAILED;
    return finish_new(call, net_define(d, a->text, &call->error));
}

static int create_xml(struct daemon *d, struct rpc_call *call)
{
    return finish_new(call, net_create_transient(d, *(rp_string *)call->args, &call->error));
}

static int create_xml_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    if (call_flags(call, a->flags, 1) < 0)
        return RPC_FAILED;
    return finish_new(call, net_create_transient(d, a->text, &call->error));
}

static int create(struct daemon *d, struct rpc_call *call)
{
    struct net *n = call_net(d, call, call->args);
    return n ? net_start(n, &call->error) : RPC_FAILED;
}

static int destroy(struct daemon *d, struct rpc_call *call)
{
    struct net *n = call_net(d, call, call->args);
    return n ? net_stop(n, &call->error) : RPC_FAILED;
}

static int undefine_net(struct daemon *d, struct rpc_call *call)
{
    struct net *n = call_net(d, call, call->args);
    return n ? net_undefine(n, &call->error) : RPC_FAILED;
}

static int get_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_net_flags);
    struct net *n = call_net(d, call, &a->net);
    if (!n || call_flags(call, a->flags, 1) < 0)
        return RPC_FAILED;
    *(rp_string *)call->ret = net_xml(n, a->flags & 1);
    return RPC_DONE;
}

static int get_bridge(struct daemon *d, struct rpc_call *call)
{
    struct net *n = call_net(d, call, call->args);
    if (!n)
        return RPC_FAILED;
    if (!n->now->bridge)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "network '%s' does not have a bridge name.", n->now->name);
    *(rp_string *)call->ret = xstrdup(n->now->bridge);
    return RPC_DONE;
}

static int get_autostart(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct net *n = call_net(d, call, call->args);
    if (!n)
        return RPC_FAILED;
    *ret = n->autostart;
    return RPC_DONE;
}

static int set_autostart(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_net_int);
    struct net *n = call_net(d, call, &a->net);
    return n ? net_set_autostart(n, a->value, &call->error) : RPC_FAILED;
}

static int is_active(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct net *n = call_net(d, call, call->args);
    if (!n)
        return RPC_FAILED;
    *ret = n->active;
    return RPC_DONE;
}

static int is_persistent(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct net *n = call_net(d, call, call->args);
    if (!n)
        return RPC_FAILED;
    *ret = n->persistent;
    return RPC_DONE;
}

static int update(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_net_update);
    struct net *n = call_net(d, call, &a->net);
    if (!n || call_flags(call, a->flags, 3) < 0)
        return RPC_FAILED;
    bool live = a->flags & 1, config = a->flags & 2;
    if (!live && !config) {
        live = n->active;
        config = !live;
    }
    if (live && !n->active)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "network '%s' is not active", n->now->name);
    if (config && !n->persistent)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "can't update the configuration of a transient network");
    return net_update(n, a->command, a->section, a->parent_index, a->xml, live, config, &call->error);
}

static rp_opt_string opt(const char *s)
{
    if (!s || !*s)
        return NULL;
    rp_string *p = xcalloc(1, sizeof *p);
    *p = xstrdup(s);
    return p;
}

/* A lease as a client sees it. */
static void put_lease(rp_lease *r, const struct network *def, const struct dnsmasq_lease *l)
{
    char text[IPADDR_TEXT_MAX], mac[18], iaid[16];
    const struct network_ip *ip = network_ip_of(def, l->ip.bits);
    snprintf(iaid, sizeof iaid, "%u", l->iaid);
    r->iface = xstrdup(def->bridge);
    r->expiry = l->expires;
    r->type = l->ip.bits == 128;
    r->mac = opt(l->has_mac ? mac_format(l->mac, mac) : NULL);
    r->iaid = opt(l->ip.bits == 128 ? iaid : NULL);
    r->ipaddr = xstrdup(ipaddr_format(&l->ip, text));
    r->prefix = ip ? ip->prefix : l->ip.bits;
    r->hostname = opt(l->name);
    r->clientid = opt(l->id);
}

static int get_leases(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_leases_args);
    RET(rp_lease_list);
    struct net *n = call_net(d, call, &a->net);
    struct dnsmasq_lease *leases = NULL;
    char mac[18];
    if (!n || call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    unsigned count = n->active && network_own_bridge(n->now) ? dnsmasq_leases(n->now, net_dirs(d), &leases) : 0;
    rp_lease *list = xcalloc(count + 1, sizeof *list);
    for (unsigned i = 0; i < count; i++) {
        if (a->mac && (!leases[i].has_mac || strcasecmp(*a->mac, mac_format(leases[i].mac, mac))))
            continue;
        if (a->need_results && ret->items.items_len < RP_DEVICE_LIST_MAX)
            put_lease(&list[ret->items.items_len++], n->now, &leases[i]);
        ret->ret++;
    }
    ret->items.items_val = list;
    free(leases);
    return RPC_DONE;
}

static int event_register(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_reg_network);
    RET(rp_int);
    if (a->event != 0)
        return verr_set(&call->error, VIR_INVALID_ARG, "unsupported network event ID %d", a->event);
    *ret = session_register(session_of(call), EVENTS_NETWORK, a->event, a->net ? (const uint8_t *)a->net->uuid.bytes : NULL);
    return *ret < 0 ? verr_set(&call->error, VIR_INTERNAL_ERROR, "too many event registrations on one connection") : RPC_DONE;
}

static int event_deregister(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int);
    if (session_deregister(session_of(call), EVENTS_NETWORK, *a) < 0)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "network event callback %d not registered", *a);
    return RPC_DONE;
}

const struct driver driver_network = {
    .name = "network",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_NETWORK,
    .start = nets_start,
    .stop = nets_stop,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_NETWORK_LOOKUP_BY_NAME, lookup_name},
            {RPC_PROC_NETWORK_LOOKUP_BY_UUID, lookup_uuid},
            {RPC_PROC_CONNECT_LIST_ALL_NETWORKS, list_all},
            {RPC_PROC_CONNECT_NUM_OF_NETWORKS, num_active},
            {RPC_PROC_CONNECT_LIST_NETWORKS, list_active},
            {RPC_PROC_CONNECT_NUM_OF_DEFINED_NETWORKS, num_defined},
            {RPC_PROC_CONNECT_LIST_DEFINED_NETWORKS, list_defined},
            {RPC_PROC_NETWORK_DEFINE_XML, define_xml},
            {RPC_PROC_NETWORK_DEFINE_XML_FLAGS, define_xml_flags},
            {RPC_PROC_NETWORK_CREATE_XML, create_xml},
            {RPC_PROC_NETWORK_CREATE_XML_FLAGS, create_xml_flags},
            {RPC_PROC_NETWORK_CREATE, create},
            {RPC_PROC_NETWORK_DESTROY, destroy},
            {RPC_PROC_NETWORK_UNDEFINE, undefine_net},
            {RPC_PROC_NETWORK_GET_XML_DESC, get_xml},
            {RPC_PROC_NETWORK_GET_BRIDGE_NAME, get_bridge},
            {RPC_PROC_NETWORK_GET_AUTOSTART, get_autostart},
            {RPC_PROC_NETWORK_SET_AUTOSTART, set_autostart},
            {RPC_PROC_NETWORK_IS_ACTIVE, is_active},
            {RPC_PROC_NETWORK_IS_PERSISTENT, is_persistent},
            {RPC_PROC_NETWORK_UPDATE, update},
            {RPC_PROC_NETWORK_GET_DHCP_LEASES, get_leases},
            {RPC_PROC_CONNECT_NETWORK_EVENT_REGISTER_ANY, event_register},
            {RPC_PROC_CONNECT_NETWORK_EVENT_DEREGISTER_ANY, event_deregister},
            {0},
        },
};
