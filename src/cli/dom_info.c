/* What is a domain, and in which state: list, dominfo, domstate, domid, and its devices as tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

#define WORD(words, i) ((unsigned)(i) < sizeof(words) / sizeof(words[0]) ? words[i] : NULL)

const char *dom_state_text(int state)
{
    static const char *const words[] = {"no state",    "running",  "idle",    "paused",
                                        "in shutdown", "shut off", "crashed", "pmsuspended"};
    const char *s = WORD(words, state);
    return s ? s : "no state";
}

const char *dom_reason_text(int state, int reason)
{
    static const char *const running[] = {"unknown",       "booted",   "migrated",           "restored",
                                          "from snapshot", "unpaused", "migration canceled", "save canceled",
                                          "event wakeup",  "crashed",  "post-copy",          "post-copy failed"};
    static const char *const paused[] = {
        "unknown",   "user",        "migrating",     "saving",           "dumping",
        "I/O error", "watchdog",    "from snapshot", "shutting down",    "creating snapshot",
        "crashed",   "starting up", "post-copy",     "post-copy failed", "api error"};
    static const char *const shutdown[] = {"unknown", "user"};
    static const char *const shutoff[] = {"unknown", "shutdown", "destroyed",     "crashed", "migrated",
                                          "saved",   "failed",   "from snapshot", "daemon"};
    static const char *const crashed[] = {"unknown", "panicked"};
    const char *s = state == DOM_RUNNING    ? WORD(running, reason)
                    : state == DOM_PAUSED   ? WORD(paused, reason)
                    : state == DOM_SHUTDOWN ? WORD(shutdown, reason)
                    : state == DOM_SHUTOFF  ? WORD(shutoff, reason)
                    : state == DOM_CRASHED  ? WORD(crashed, reason)
                                            : NULL;
    return s ? s : "unknown";
}

int dom_state(struct vsh *v, const rp_domain *dom, int *ret_reason)
{
    const rp_dom_flags args = {*dom, 0};
    rp_state s;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_STATE, &args, &s))
        return -1;
    if (ret_reason)
        *ret_reason = s.reason;
    return s.state;
}

int dom_flag(struct vsh *v, int proc, const rp_domain *dom)
{
    rp_int value;
    return vsh_call(v, proc, dom, &value) ? value : -1;
}

double pretty_size(unsigned long long bytes, const char **unit)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = bytes;
    unsigned i = 0;
    for (; value >= 1024 && i < 6; i++)
        value /= 1024;
    *unit = units[i];
    return value;
}

/* Running domains first, by id; the others by name. */
static int compare_domains(const void *a, const void *b)
{
    const rp_domain *x = *(const rp_domain *const *)a, *y = *(const rp_domain *const *)b;
    if ((x->id < 0) != (y->id < 0))
        return x->id < 0 ? 1 : -1;
    if (x->id >= 0)
        return x->id < y->id ? -1 : x->id > y->id;
    return strcasecmp(x->name, y->name);
}

static unsigned list_filters(const struct vsh_args *a)
{
    static const struct {
        const char *option;
        unsigned flag;
    } filters[] = {
        {"persistent", 4},          {"transient", 8},
        {"state-running", 16},      {"state-paused", 32},
        {"state-shutoff", 64},      {"state-other", 128},
        {"with-managed-save", 256}, {"without-managed-save", 512},
        {"autostart", 1024},        {"no-autostart", 2048},
        {"with-snapshot", 4096},    {"without-snapshot", 8192},
        {"with-checkpoint", 16384}, {"without-checkpoint", 32768},
    };
    unsigned flags = 1;
    if (vsh_has(a, "inactive") || vsh_has(a, "state-shutoff"))
        flags = 2;
    if (vsh_has(a, "all"))
        flags = 3;
    for (unsigned i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
        if (vsh_has(a, filters[i].option))
            flags |= filters[i].flag;
    return flags;
}

/* Prints ids, names or UUIDs alone. */
static void list_plain(const struct vsh_args *a, rp_domain **sorted, unsigned n)
{
    bool uuid = vsh_has(a, "uuid"), name = vsh_has(a, "name"), id = vsh_has(a, "id");
    for (unsigned i = 0; i < n; i++) {
        const char *sep = "";
        if (uuid) {
            char text[37];
            vsh_uuid_text(&sorted[i]->uuid, text);
            printf("%s", text);
            sep = " ";
        }
        if (id) {
            if (sorted[i]->id < 0 && !uuid && !name)
                continue;
            if (sorted[i]->id < 0)
                printf("%s-", sep);
            else
                printf("%s%d", sep, sorted[i]->id);
            sep = " ";
        }
        if (name)
            printf("%s%s", sep, sorted[i]->name);
        puts("");
    }
}

static char *title_of(struct vsh *v, const rp_domain *dom)
{
    const rp_get_metadata args = {*dom, 1, NULL, 0};
    rp_string text;
    if (vsh_call(v, RPC_PROC_DOMAIN_GET_METADATA, &args, &text))
        return text;
    vsh_error_reset(v);
    return xstrdup("");
}

/* Asks for all states at once and waits for the answers. A domain that went away meanwhile gets -1. False: the
 * connection is lost. */
static bool states_of(struct vsh *v, rp_domain **doms, unsigned n, int *states)
{
    for (unsigned at = 0; at < n;) {
        unsigned end = n - at > 4096 ? at + 4096 : n;
        autofree uint32_t *serials = xcalloc(end - at, sizeof(*serials));
        for (unsigned i = at; i < end; i++) {
            const rp_dom_flags args = {*doms[i], 0};
            if (client_call_start(v->conn, RPC_PROC_DOMAIN_GET_STATE, &args, &serials[i - at], &v->error) < 0)
                return false;
        }
        for (unsigned i = at; i < end; i++) {
            rp_state s;
            bool ok = client_call_wait(v->conn, serials[i - at], &s, &v->error) == 0;
            if (!ok && client_dead(v->conn))
                return false;
            states[i] = ok ? s.state : -1;
        }
        at = end;
    }
    vsh_error_reset(v);
    return true;
}

bool cmd_list(struct vsh *v, const struct vsh_args *a)
{
    if (!vsh_exclusive(v, a, "table", "name") || !vsh_exclusive(v, a, "table", "uuid") ||
        !vsh_exclusive(v, a, "table", "id"))
        return false;
    const rp_list_args args = {1, list_filters(a)};
    rp_domain_list list;
    if (!vsh_call(v, RPC_PROC_CONNECT_LIST_ALL_DOMAINS, &args, &list))
        return vsh_error(v, "Failed to list domains");
    unsigned n = list.items.items_len;
    autofree rp_domain **sorted = xcalloc(n + 1, sizeof(*sorted));
    autofree int *states = xcalloc(n + 1, sizeof(*states));
    for (unsigned i = 0; i < n; i++)
        sorted[i] = &list.items.items_val[i];
    qsort(sorted, n, sizeof(*sorted), compare_domains);
    bool ok = true;
    if (vsh_has(a, "uuid") || vsh_has(a, "name") || vsh_has(a, "id")) {
        list_plain(a, sorted, n);
    } else if ((ok = states_of(v, sorted, n, states))) {
        bool titles = vsh_has(a, "title"), managed = vsh_has(a, "managed-save");
        autotable t =
            titles ? vsh_table_new("Id", "Name", "State", "Title", NULL) : vsh_table_new("Id", "Name", "State", NULL);
        for (unsigned i = 0; i < n; i++) {
            char id[16] = "-";
            if (states[i] < 0)
                continue;
            if (sorted[i]->id >= 0)
                snprintf(id, sizeof(id), "%d", sorted[i]->id);
            const char *state = dom_state_text(states[i]);
            const rp_dom_flags saved_args = {*sorted[i], 0};
            rp_int saved = 0;
            if (managed && states[i] == DOM_SHUTOFF &&
                vsh_call(v, RPC_PROC_DOMAIN_HAS_MANAGED_SAVE_IMAGE, &saved_args, &saved) && saved)
                state = "saved";
            autofree char *title = titles ? title_of(v, sorted[i]) : NULL;
            if (titles)
                vsh_table_row(t, id, sorted[i]->name, state, title);
            else
                vsh_table_row(t, id, sorted[i]->name, state);
        }
        vsh_table_print(v, t);
    }
    client_result_free(RPC_PROC_CONNECT_LIST_ALL_DOMAINS, &list);
    return ok;
}

/* The security fields; only where a model is active. */
static bool info_security(struct vsh *v, const rp_domain *dom)
{
    rp_security_model m;
    if (!vsh_call(v, RPC_PROC_NODE_GET_SECURITY_MODEL, NULL, &m)) {
        bool none = v->error.code == VIR_NO_SUPPORT;
        if (none)
            vsh_error_reset(v);
        return none;
    }
    bool ok = true;
    if (m.model.model_len && m.model.model_val[0]) {
        vsh_field(v, "Security model:", "%.*s", (int)m.model.model_len, m.model.model_val);
        vsh_field(v, "Security DOI:", "%.*s", (int)m.doi.doi_len, m.doi.doi_val);
        rp_security_label l;
        ok = vsh_call(v, RPC_PROC_DOMAIN_GET_SECURITY_LABEL, dom, &l);
        if (ok && l.label.label_len && l.label.label_val[0])
            vsh_field(v, "Security label:", "%.*s (%s)", (int)l.label.label_len, l.label.label_val,
                      l.enforcing ? "enforcing" : "permissive");
        if (ok)
            client_result_free(RPC_PROC_DOMAIN_GET_SECURITY_LABEL, &l);
    }
    client_result_free(RPC_PROC_NODE_GET_SECURITY_MODEL, &m);
    return ok;
}

bool cmd_dominfo(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    char uuid[37];
    vsh_uuid_text(&dom.uuid, uuid);
    vsh_fields_begin(v);
    if (dom.id < 0)
        vsh_field(v, "Id:", "-");
    else
        vsh_field(v, "Id:", "%d", dom.id);
    vsh_field(v, "Name:", "%s", dom.name);
    vsh_field(v, "UUID:", "%s", uuid);
    rp_string type = NULL;
    if (vsh_call(v, RPC_PROC_DOMAIN_GET_OS_TYPE, &dom, &type))
        vsh_field(v, "OS Type:", "%s", type);
    free(type);
    rp_info info;
    bool ok = vsh_call(v, RPC_PROC_DOMAIN_GET_INFO, &dom, &info);
    if (ok) {
        vsh_field(v, "State:", "%s", dom_state_text(info.state));
        vsh_field(v, "CPU(s):", "%d", info.vcpus);
        if (info.cpu_time)
            vsh_field(v, "CPU time:", "%.1fs", info.cpu_time / 1e9);
        vsh_field(v, "Max memory:", "%llu KiB", (unsigned long long)info.max_memory);
        vsh_field(v, "Used memory:", "%llu KiB", (unsigned long long)info.memory);
    }
    int persistent = dom_flag(v, RPC_PROC_DOMAIN_IS_PERSISTENT, &dom);
    vsh_field(v, "Persistent:", "%s", persistent < 0 ? "unknown" : persistent ? "yes" : "no");
    int autostart = dom_flag(v, RPC_PROC_DOMAIN_GET_AUTOSTART, &dom);
    if (autostart >= 0)
        vsh_field(v, "Autostart:", "%s", autostart ? "enable" : "disable");
    const rp_dom_flags flags = {dom, 0};
    rp_int saved = -1;
    if (!vsh_call(v, RPC_PROC_DOMAIN_HAS_MANAGED_SAVE_IMAGE, &flags, &saved))
        saved = -1;
    vsh_field(v, "Managed save:", "%s", saved < 0 ? "unknown" : saved ? "yes" : "no");
    ok &= info_security(v, &dom);
    rp_names messages;
    if (ok && vsh_call(v, RPC_PROC_DOMAIN_GET_MESSAGES, &flags, &messages)) {
        for (unsigned i = 0; i < messages.names.names_len; i++)
            vsh_field(v, i ? "" : "Messages:", "%s", messages.names.names_val[i]);
        client_result_free(RPC_PROC_DOMAIN_GET_MESSAGES, &messages);
    }
    vsh_fields_end(v);
    return ok;
}

bool cmd_domstate(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int reason, state;
    if (!vsh_domain(v, a, &dom) || (state = dom_state(v, &dom, &reason)) < 0)
        return false;
    if (vsh_has(a, "reason"))
        printf("%s (%s)\n", dom_state_text(state), dom_reason_text(state, reason));
    else
        printf("%s\n", dom_state_text(state));
    return true;
}

bool cmd_domid(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain_find(v, vsh_text(a, "domain"), VSH_BY_NAME | VSH_BY_UUID, &dom))
        return false;
    if (dom.id < 0)
        puts("-");
    else
        printf("%d\n", dom.id);
    return true;
}

bool cmd_domuuid(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    char uuid[37];
    if (!vsh_domain_find(v, vsh_text(a, "domain"), VSH_BY_NAME | VSH_BY_ID, &dom))
        return false;
    vsh_uuid_text(&dom.uuid, uuid);
    puts(uuid);
    return true;
}

bool cmd_domname(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain_find(v, vsh_text(a, "domain"), VSH_BY_ID | VSH_BY_UUID, &dom))
        return false;
    puts(dom.name);
    return true;
}

/* The first of these attributes of <source>. */
static const char *source_of(const struct xml_node *device, const char *const *names)
{
    const struct xml_node *s = xml_child(device, "source");
    const char *value = NULL;
    for (; s && *names && !value; names++)
        value = xml_attr_get(s, *names);
    return value;
}

static const char *child_attr(const struct xml_node *n, const char *child, const char *attr)
{
    const struct xml_node *c = xml_child(n, child);
    return c ? xml_attr_get(c, attr) : NULL;
}

bool cmd_domblklist(struct vsh *v, const struct vsh_args *a)
{
    static const char *const sources[] = {"file", "dev", "dir", "name", "volume", "path", NULL};
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    autoxml root = vsh_domain_xml(v, &dom, vsh_has(a, "inactive") ? DOM_XML_INACTIVE : 0);
    if (!root)
        return false;
    bool details = vsh_has(a, "details");
    autotable t =
        details ? vsh_table_new("Type", "Device", "Target", "Source", NULL) : vsh_table_new("Target", "Source", NULL);
    const struct xml_node *devices = xml_child(root, "devices");
    for (const struct xml_node *d = devices ? devices->first : NULL; d; d = d->next) {
        if (strcmp(d->name, "disk") != 0)
            continue;
        const char *device = xml_attr_get(d, "device");
        if (details)
            vsh_table_row(t, xml_attr_get(d, "type"), device ? device : "disk", child_attr(d, "target", "dev"),
                          source_of(d, sources));
        else
            vsh_table_row(t, child_attr(d, "target", "dev"), source_of(d, sources));
    }
    vsh_table_print(v, t);
    return true;
}

bool cmd_domiflist(struct vsh *v, const struct vsh_args *a)
{
    static const char *const sources[] = {"bridge", "dev", "network", "name", "path", NULL};
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    autoxml root = vsh_domain_xml(v, &dom, vsh_has(a, "inactive") ? DOM_XML_INACTIVE : 0);
    if (!root)
        return false;
    autotable t = vsh_table_new("Interface", "Type", "Source", "Model", "MAC", NULL);
    const struct xml_node *devices = xml_child(root, "devices");
    for (const struct xml_node *d = devices ? devices->first : NULL; d; d = d->next)
        if (!strcmp(d->name, "interface"))
            vsh_table_row(t, child_attr(d, "target", "dev"), xml_attr_get(d, "type"), source_of(d, sources),
                          child_attr(d, "model", "type"), child_attr(d, "mac", "address"));
    vsh_table_print(v, t);
    return true;
}

bool cmd_domif_getlink(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    autoxml root = vsh_domain_xml(v, &dom, vsh_has(a, "config") ? DOM_XML_INACTIVE : 0);
    if (!root)
        return false;
    const char *which = vsh_text(a, "interface");
    const struct xml_node *devices = xml_child(root, "devices");
    for (const struct xml_node *d = devices ? devices->first : NULL; d; d = d->next) {
        const char *mac = child_attr(d, "mac", "address"), *dev = child_attr(d, "target", "dev");
        if (strcmp(d->name, "interface") != 0 || !((mac && !strcasecmp(mac, which)) || (dev && !strcmp(dev, which))))
            continue;
        const char *state = child_attr(d, "link", "state");
        printf("%s %s", which, state ? state : "up");
        return true;
    }
    return vsh_error(v, strchr(which, ':') ? "Interface (mac: %s) not found." : "Interface (dev: %s) not found.",
                     which);
}

/* Three sizes of a disk, as text. */
static void block_sizes(const rp_block_info *i, bool human, char out[3][32])
{
    const unsigned long long sizes[] = {i->capacity, i->allocation, i->physical};
    bool none = !i->capacity && !i->allocation && !i->physical;
    for (int k = 0; k < 3; k++) {
        const char *unit;
        double value = pretty_size(sizes[k], &unit);
        if (none)
            strcpy(out[k], "-");
        else if (human)
            snprintf(out[k], 32, "%.3f %s", value, unit);
        else
            snprintf(out[k], 32, "%llu", sizes[k]);
    }
}

bool cmd_domblkinfo(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    bool human = vsh_has(a, "human"), all = vsh_has(a, "all");
    char sizes[3][32];
    if (!vsh_exclusive(v, a, "all", "device") || !vsh_domain(v, a, &dom))
        return false;
    if (!all && !vsh_has(a, "device"))
        return vsh_error(v, "command 'domblkinfo' requires <device> option");
    if (!all) {
        const rp_dom_str_flags args = {dom, (char *)vsh_text(a, "device"), 0};
        rp_block_info info;
        if (!vsh_call(v, RPC_PROC_DOMAIN_GET_BLOCK_INFO, &args, &info))
            return false;
        block_sizes(&info, human, sizes);
        vsh_fields_begin(v);
        vsh_field(v, "Capacity:", "%s", sizes[0]);
        vsh_field(v, "Allocation:", "%s", sizes[1]);
        vsh_field(v, "Physical:", "%s", sizes[2]);
        vsh_fields_end(v);
        return true;
    }
    autoxml root = vsh_domain_xml(v, &dom, 0);
    if (!root)
        return false;
    autotable t = vsh_table_new("Target", "Capacity", "Allocation", "Physical", NULL);
    const struct xml_node *devices = xml_child(root, "devices");
    for (const struct xml_node *d = devices ? devices->first : NULL; d; d = d->next) {
        if (strcmp(d->name, "disk") != 0)
            continue;
        const char *target = child_attr(d, "target", "dev");
        rp_block_info info = {0};
        const rp_dom_str_flags args = {dom, (char *)(target ? target : ""), 0};
        if (xml_child(d, "source") && !vsh_call(v, RPC_PROC_DOMAIN_GET_BLOCK_INFO, &args, &info))
            return false;
        block_sizes(&info, human, sizes);
        vsh_table_row(t, target, sizes[0], sizes[1], sizes[2]);
    }
    vsh_table_print(v, t);
    return true;
}

bool cmd_domcontrol(struct vsh *v, const struct vsh_args *a)
{
    static const char *const states[] = {"ok", "background job", "occupied", "error"};
    static const char *const reasons[] = {"", "unknown", "monitor failure", "internal (locking) error"};
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const rp_dom_flags args = {dom, 0};
    rp_control_info i;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_CONTROL_INFO, &args, &i))
        return false;
    const char *state = WORD(states, i.state), *reason = WORD(reasons, i.details);
    if (!state)
        state = "unknown";
    if (i.state == 3 && i.details)
        printf("%s: %s\n", state, reason ? reason : "unknown");
    else if (i.state == 0 || i.state == 3)
        printf("%s\n", state);
    else
        printf("%s (%0.3fs)\n", state, i.state_time / 1000.0);
    return true;
}

bool cmd_domtime(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    long long seconds = 0;
    if (!vsh_exclusive(v, a, "time", "now") || !vsh_exclusive(v, a, "time", "sync") ||
        !vsh_exclusive(v, a, "now", "sync") || !vsh_domain(v, a, &dom) || !vsh_ll(v, a, "time", &seconds))
        return false;
    if (vsh_has(a, "time") || vsh_has(a, "now") || vsh_has(a, "sync")) {
        const rp_set_time set = {dom, vsh_has(a, "now") ? time(NULL) : seconds, 0, vsh_has(a, "sync")};
        return vsh_call(v, RPC_PROC_DOMAIN_SET_TIME, &set, NULL);
    }
    const rp_dom_flags args = {dom, 0};
    rp_time t;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_TIME, &args, &t))
        return false;
    time_t then = t.seconds;
    struct tm tm;
    char text[64];
    if (vsh_has(a, "pretty") && gmtime_r(&then, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
        printf("Time: %s", text);
    else
        printf("Time: %lld", (long long)t.seconds);
    return true;
}

bool cmd_domhostname(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const char *source = vsh_text(a, "source");
    if (source && strcmp(source, "lease") != 0 && strcmp(source, "agent") != 0)
        return vsh_error(v, "Unknown data source '%s'", source);
    const rp_dom_flags args = {dom, !source ? 0 : !strcmp(source, "lease") ? 1 : 2};
    rp_string name;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_HOSTNAME, &args, &name))
        return vsh_error(v, "failed to get hostname");
    puts(name);
    free(name);
    return true;
}

bool cmd_domifaddr(struct vsh *v, const struct vsh_args *a)
{
    static const char *const sources[] = {"lease", "agent", "arp"};
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const char *text = vsh_text(a, "source"), *only = vsh_text(a, "interface");
    unsigned source = 0;
    while (text && source < 3 && strcmp(text, sources[source]) != 0)
        source++;
    if (source == 3)
        return vsh_error(v, "Unknown data source '%s'", text);
    const rp_dom_uint_flags args = {dom, source, 0};
    rp_dom_ifaces list;
    if (!vsh_call(v, RPC_PROC_DOMAIN_INTERFACE_ADDRESSES, &args, &list))
        return vsh_error(v, "Failed to query for interfaces addresses");
    bool full = vsh_has(a, "full");
    if (v->json)
        putchar('[');
    else
        vsh_extra(v, " %-10s %-20s %-8s     %s\n%s%s\n", "Name", "MAC address", "Protocol", "Address",
                  "-------------------------------------------------", "------------------------------");
    bool first = true;
    for (unsigned i = 0; i < list.ifaces.ifaces_len; i++) {
        const rp_dom_iface *f = &list.ifaces.ifaces_val[i];
        const char *mac = f->hwaddr ? *f->hwaddr : "N/A";
        if (only && strcmp(only, f->name) != 0)
            continue;
        for (unsigned k = 0; k < f->addrs.addrs_len; k++) {
            const rp_ip_addr *ip = &f->addrs.addrs_val[k];
            const char *protocol = ip->type == 0 ? "ipv4" : ip->type == 1 ? "ipv6" : "";
            if (v->json) {
                printf(first ? "{\"name\": " : ",\n {\"name\": ");
                vsh_json_string(f->name);
                printf(", \"mac\": ");
                vsh_json_string(mac);
                printf(", \"protocol\": \"%s\", \"address\": ", protocol);
                vsh_json_string(ip->addr);
                printf(", \"prefix\": %u}", ip->prefix);
                first = false;
            } else if (full || k == 0) {
                printf(" %-10s %-17s    %-12s %s/%u\n", f->name, mac, protocol, ip->addr, ip->prefix);
            } else {
                printf(" %-10s %-17s    %-12s %s/%u\n", "-", "-", protocol, ip->addr, ip->prefix);
            }
        }
        if (!f->addrs.addrs_len && !v->json)
            printf(" %-10s %-17s    %s\n", f->name, mac, "N/A          N/A");
    }
    if (v->json)
        puts("]");
    client_result_free(RPC_PROC_DOMAIN_INTERFACE_ADDRESSES, &list);
    return true;
}
