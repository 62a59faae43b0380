/* Networks: net-*. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/dom.h"

static int compare_networks(const void *a, const void *b)
{
    return strcasecmp(((const rp_network *)a)->name, ((const rp_network *)b)->name);
}

/* A call with the network alone: its number, or -1 with the error forgotten. */
static int net_flag(struct vsh *v, int proc, const rp_network *net)
{
    rp_int value;
    if (vsh_call(v, proc, net, &value))
        return value;
    vsh_error_reset(v);
    return -1;
}

/* State, autostart and persistence of all, asked at once. */
static bool net_facts(struct vsh *v, const rp_network *nets, unsigned n, int (*facts)[3])
{
    static const int procs[3] = {RPC_PROC_NETWORK_IS_ACTIVE, RPC_PROC_NETWORK_GET_AUTOSTART,
                                 RPC_PROC_NETWORK_IS_PERSISTENT};
    autofree uint32_t *serials = xcalloc(n * 3 + 1, sizeof(*serials));
    for (unsigned i = 0; i < n * 3; i++)
        if (client_call_start(v->conn, procs[i % 3], &nets[i / 3], &serials[i], &v->error) < 0)
            return false;
    for (unsigned i = 0; i < n * 3; i++) {
        rp_int value;
        bool ok = client_call_wait(v->conn, serials[i], &value, &v->error) == 0;
        if (!ok && client_dead(v->conn))
            return false;
        facts[i / 3][i % 3] = ok ? value : -1;
    }
    vsh_error_reset(v);
    return true;
}

bool cmd_net_list(struct vsh *v, const struct vsh_args *a)
{
    bool uuid = vsh_has(a, "uuid"), name = vsh_has(a, "name");
    if (vsh_has(a, "table") + uuid + name > 1)
        return vsh_error(v, "Only one argument from --table, --name and --uuid may be specified.");
    unsigned flags = vsh_has(a, "all") ? 3 : vsh_has(a, "inactive") ? 1 : 2;
    flags |= (vsh_has(a, "persistent") ? 4 : 0) | (vsh_has(a, "transient") ? 8 : 0) |
             (vsh_has(a, "autostart") ? 16 : 0) | (vsh_has(a, "no-autostart") ? 32 : 0);
    const rp_list_args args = {1, flags};
    rp_net_list list;
    if (!vsh_call(v, RPC_PROC_CONNECT_LIST_ALL_NETWORKS, &args, &list))
        return vsh_error(v, "Failed to list networks");
    unsigned n = list.items.items_len;
    rp_network *nets = list.items.items_val;
    if (n)
        qsort(nets, n, sizeof(*nets), compare_networks);
    bool ok = true;
    if (uuid || name) {
        for (unsigned i = 0; i < n; i++) {
            char text[37];
            vsh_uuid_text(&nets[i].uuid, text);
            puts(uuid ? text : nets[i].name);
        }
    } else {
        autofree int(*facts)[3] = xcalloc(n + 1, sizeof(*facts));
        autotable t = vsh_table_new("Name", "State", "Autostart", "Persistent", NULL);
        ok = net_facts(v, nets, n, facts);
        for (unsigned i = 0; i < n && ok; i++)
            vsh_table_row(t, nets[i].name, facts[i][0] ? "active" : "inactive",
                          facts[i][1] < 0 ? "no autostart"
                          : facts[i][1]   ? "yes"
                                          : "no",
                          facts[i][2] ? "yes" : "no");
        if (ok)
            vsh_table_print(v, t);
    }
    client_result_free(RPC_PROC_CONNECT_LIST_ALL_NETWORKS, &list);
    return ok;
}

bool cmd_net_info(struct vsh *v, const struct vsh_args *a)
{
    autonetwork net = {0};
    if (!vsh_network(v, a, &net))
        return false;
    char uuid[37];
    vsh_uuid_text(&net.uuid, uuid);
    vsh_fields_begin(v);
    vsh_field(v, "Name:", "%s", net.name);
    vsh_field(v, "UUID:", "%s", uuid);
    int active = net_flag(v, RPC_PROC_NETWORK_IS_ACTIVE, &net);
    if (active >= 0)
        vsh_field(v, "Active:", "%s", active ? "yes" : "no");
    int persistent = net_flag(v, RPC_PROC_NETWORK_IS_PERSISTENT, &net);
    vsh_field(v, "Persistent:", "%s", persistent < 0 ? "unknown" : persistent ? "yes" : "no");
    int autostart = net_flag(v, RPC_PROC_NETWORK_GET_AUTOSTART, &net);
    vsh_field(v, "Autostart:", "%s", autostart < 0 ? "no autostart" : autostart ? "yes" : "no");
    rp_string bridge;
    if (vsh_call(v, RPC_PROC_NETWORK_GET_BRIDGE_NAME, &net, &bridge)) {
        vsh_field(v, "Bridge:", "%s", bridge);
        free(bridge);
    }
    vsh_fields_end(v);
    return true;
}

static bool act(struct vsh *v, const struct vsh_args *a, int proc, const char *failed, const char *done)
{
    autonetwork net = {0};
    const char *name = vsh_text(a, "network");
    if (!vsh_network(v, a, &net))
        return false;
    if (!vsh_call(v, proc, &net, NULL))
        return vsh_error(v, "Failed to %s network %s", failed, name);
    vsh_extra(v, "Network %s %s\n", name, done);
    return true;
}

bool cmd_net_start(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, RPC_PROC_NETWORK_CREATE, "start", "started");
}

bool cmd_net_destroy(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, RPC_PROC_NETWORK_DESTROY, "destroy", "destroyed");
}

bool cmd_net_undefine(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, RPC_PROC_NETWORK_UNDEFINE, "undefine", "has been undefined");
}

static bool from_file(struct vsh *v, const struct vsh_args *a, int proc, int proc_flags, const char *verb,
                      const char *done)
{
    const char *path = vsh_text(a, "file");
    autofree char *text = vsh_read_file(v, path);
    autonetwork net = {0};
    if (!text)
        return false;
    rp_string xml = text;
    const rp_str_flags args = {text, 1};
    bool ok = vsh_has(a, "validate") ? vsh_call(v, proc_flags, &args, &net) : vsh_call(v, proc, &xml, &net);
    if (!ok)
        return vsh_error(v, "Failed to %s network from %s", verb, path);
    vsh_extra(v, "Network %s %s from %s\n", net.name, done, path);
    return true;
}

bool cmd_net_define(struct vsh *v, const struct vsh_args *a)
{
    return from_file(v, a, RPC_PROC_NETWORK_DEFINE_XML, RPC_PROC_NETWORK_DEFINE_XML_FLAGS, "define", "defined");
}

bool cmd_net_create(struct vsh *v, const struct vsh_args *a)
{
    return from_file(v, a, RPC_PROC_NETWORK_CREATE_XML, RPC_PROC_NETWORK_CREATE_XML_FLAGS, "create", "created");
}

bool cmd_net_autostart(struct vsh *v, const struct vsh_args *a)
{
    autonetwork net = {0};
    const char *name = vsh_text(a, "network");
    bool off = vsh_has(a, "disable");
    if (!vsh_network(v, a, &net))
        return false;
    const rp_net_int args = {net, !off};
    if (!vsh_call(v, RPC_PROC_NETWORK_SET_AUTOSTART, &args, NULL))
        return vsh_error(v, "failed to %s network %s as autostarted", off ? "unmark" : "mark", name);
    vsh_extra(v, "Network %s %s as autostarted\n", name, off ? "unmarked" : "marked");
    return true;
}

static char *net_text(struct vsh *v, const rp_network *net, unsigned flags)
{
    const rp_net_flags args = {*net, flags};
    rp_string text;
    return vsh_call(v, RPC_PROC_NETWORK_GET_XML_DESC, &args, &text) ? text : NULL;
}

bool cmd_net_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    autonetwork net = {0};
    if (!vsh_network(v, a, &net))
        return false;
    autofree char *text = net_text(v, &net, vsh_has(a, "inactive"));
    return text && vsh_print_xml(v, a, text);
}

static bool apply_network(struct vsh *v, const char *text, void *opaque)
{
    rp_string xml = (char *)text;
    autonetwork net = {0};
    return vsh_call(v, RPC_PROC_NETWORK_DEFINE_XML, &xml, &net);
}

bool cmd_net_edit(struct vsh *v, const struct vsh_args *a)
{
    autonetwork net = {0};
    if (!vsh_network(v, a, &net))
        return false;
    autofree char *text = net_text(v, &net, 1);
    autofree char *what = xasprintf("Network %s", net.name);
    bool changed;
    if (!text || !vsh_edit(v, text, what, apply_network, NULL, &changed))
        return false;
    if (changed)
        vsh_extra(v, "%s XML configuration edited.\n", what);
    return true;
}

bool cmd_net_uuid(struct vsh *v, const struct vsh_args *a)
{
    autonetwork net = {0};
    char uuid[37];
    if (!vsh_network_find(v, vsh_text(a, "network"), VSH_BY_NAME, &net))
        return false;
    vsh_uuid_text(&net.uuid, uuid);
    puts(uuid);
    return true;
}

bool cmd_net_name(struct vsh *v, const struct vsh_args *a)
{
    autonetwork net = {0};
    if (!vsh_network_find(v, vsh_text(a, "network"), VSH_BY_UUID, &net))
        return false;
    puts(net.name);
    return true;
}

bool cmd_net_update(struct vsh *v, const struct vsh_args *a)
{
    static const char *const commands[] = {"none", "modify", "delete", "add-last", "add-first"};
    static const char *const sections[] = {"none",         "bridge",        "domain",   "ip",
                                           "ip-dhcp-host", "ip-dhcp-range", "forward",  "forward-interface",
                                           "forward-pf",   "portgroup",     "dns-host", "dns-txt",
                                           "dns-srv"};
    autonetwork net = {0};
    int affect = vsh_affect(v, a), parent = -1;
    if (affect < 0 || !vsh_network(v, a, &net))
        return false;
    const char *command = vsh_text(a, "command"), *section = vsh_text(a, "section"), *xml = vsh_text(a, "xml");
    unsigned c = 1, s = 1;
    while (c < 5 && strcmp(command, commands[c]) != 0)
        c++;
    if (!strcmp(command, "add"))
        c = 3;
    if (c == 5)
        return vsh_error(v, "unrecognized command name '%s'", command);
    while (s < 13 && strcmp(section, sections[s]) != 0)
        s++;
    if (s == 13)
        return vsh_error(v, "unrecognized section name '%s'", section);
    if (!vsh_int(v, a, "parent-index", &parent))
        return false;
    autofree char *file = *xml == '<' ? NULL : vsh_read_file(v, xml);
    if (*xml != '<' && !file)
        return false;
    const rp_net_update args = {net, c, s, parent, file ? file : (char *)xml, affect};
    if (!vsh_call(v, RPC_PROC_NETWORK_UPDATE, &args, NULL))
        return vsh_error(v, "Failed to update network %s", net.name);
    if (!affect)
        affect = net_flag(v, RPC_PROC_NETWORK_IS_ACTIVE, &net) ? DOM_LIVE : DOM_CONFIG;
    vsh_extra(v, "Updated network %s %s", net.name,
              affect == 3            ? "persistent config and live state"
              : affect == DOM_CONFIG ? "persistent config"
                                     : "live state");
    return true;
}

static int compare_leases(const void *a, const void *b)
{
    const rp_lease *x = a, *y = b;
    return x->mac && y->mac ? strcmp(*x->mac, *y->mac) : x->mac ? -1 : !!y->mac;
}

bool cmd_net_dhcp_leases(struct vsh *v, const struct vsh_args *a)
{
    autonetwork net = {0};
    if (!vsh_network(v, a, &net))
        return false;
    rp_string mac = (char *)vsh_text(a, "mac");
    const rp_leases_args args = {net, mac ? &mac : NULL, 1, 0};
    rp_lease_list list;
    if (!vsh_call(v, RPC_PROC_NETWORK_GET_DHCP_LEASES, &args, &list))
        return vsh_error(v, "Failed to get leases info for %s", vsh_text(a, "network"));
    if (list.items.items_len)
        qsort(list.items.items_val, list.items.items_len, sizeof(rp_lease), compare_leases);
    autotable t =
        vsh_table_new("Expiry Time", "MAC address", "Protocol", "IP address", "Hostname", "Client ID or DUID", NULL);
    for (unsigned i = 0; i < list.items.items_len; i++) {
        const rp_lease *l = &list.items.items_val[i];
        time_t then = l->expiry;
        struct tm tm;
        char when[64] = "-";
        if (localtime_r(&then, &tm))
            strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
        autofree char *ip = xasprintf("%s/%u", l->ipaddr, l->prefix);
        vsh_table_row(t, when, l->mac ? *l->mac : NULL,
                      l->type == 0   ? "ipv4"
                      : l->type == 1 ? "ipv6"
                                     : NULL,
                      ip, l->hostname ? *l->hostname : NULL, l->clientid ? *l->clientid : NULL);
    }
    vsh_table_print(v, t);
    client_result_free(RPC_PROC_NETWORK_GET_DHCP_LEASES, &list);
    return true;
}
