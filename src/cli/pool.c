/* Storage pools: pool-*. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

enum { POOL_INACTIVE, POOL_BUILDING, POOL_RUNNING, POOL_DEGRADED, POOL_INACCESSIBLE };

static const char *state_text(unsigned state)
{
    static const char *const words[] = {"inactive", "building", "running", "degraded", "inaccessible"};
    return state < 5 ? words[state] : "unknown";
}

static int compare_pools(const void *a, const void *b)
{
    return strcasecmp(((const rp_pool *)a)->name, ((const rp_pool *)b)->name);
}

static int pool_flag(struct vsh *v, int proc, const rp_pool *pool)
{
    rp_int value;
    if (vsh_call(v, proc, pool, &value))
        return value;
    vsh_error_reset(v);
    return -1;
}

/* "dir,fs" as bits of a list's flags. 0: said what is wrong. */
static unsigned types_of(struct vsh *v, const char *text)
{
    static const char *const types[] = {"dir",   "fs",  "netfs",    "logical", "disk", "iscsi",    "scsi",
                                        "mpath", "rbd", "sheepdog", "gluster", "zfs",  "vstorage", "iscsi-direct"};
    autofree char *copy = xstrdup(text);
    char *save = NULL;
    unsigned flags = 0;
    for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        unsigned i = 0;
        while (i < 14 && strcmp(w, types[i]) != 0)
            i++;
        if (i == 14) {
            vsh_error(v, "Invalid pool type '%s'", w);
            return 0;
        }
        flags |= 64u << i;
    }
    return flags;
}

static char *size_text(unsigned long long bytes)
{
    const char *unit;
    double value = pretty_size(bytes, &unit);
    return xasprintf("%.2f %s", value, unit);
}

static void pool_row(struct vsh *v, struct vsh_table *t, const rp_pool *pool, bool details)
{
    int autostart = pool_flag(v, RPC_PROC_STORAGE_POOL_GET_AUTOSTART, pool);
    const char *starts = autostart < 0 ? "no autostart" : autostart ? "yes" : "no";
    if (!details) {
        vsh_table_row(t, pool->name, pool_flag(v, RPC_PROC_STORAGE_POOL_IS_ACTIVE, pool) ? "active" : "inactive",
                      starts);
        return;
    }
    int persistent = pool_flag(v, RPC_PROC_STORAGE_POOL_IS_PERSISTENT, pool);
    rp_pool_info i;
    bool known = vsh_call(v, RPC_PROC_STORAGE_POOL_GET_INFO, pool, &i);
    bool sizes = known && (i.state == POOL_RUNNING || i.state == POOL_DEGRADED);
    if (!known)
        vsh_error(v, "Could not retrieve pool information");
    vsh_error_reset(v);
    autofree char *capacity = sizes ? size_text(i.capacity) : xstrdup(known ? "-" : "unknown");
    autofree char *allocation = sizes ? size_text(i.allocation) : xstrdup(known ? "-" : "unknown");
    autofree char *available = sizes ? size_text(i.available) : xstrdup(known ? "-" : "unknown");
    vsh_table_row(t, pool->name, known ? state_text(i.state) : "unknown", starts,
                  persistent < 0 ? "unknown"
                  : persistent   ? "yes"
                                 : "no",
                  capacity, allocation, available);
}

bool cmd_pool_list(struct vsh *v, const struct vsh_args *a)
{
    bool details = vsh_has(a, "details"), uuid = vsh_has(a, "uuid"), name = vsh_has(a, "name");
    if (!vsh_exclusive(v, a, "all", "inactive") || !vsh_exclusive(v, a, "details", "uuid") ||
        !vsh_exclusive(v, a, "details", "name"))
        return false;
    unsigned flags = vsh_has(a, "all") ? 3 : vsh_has(a, "inactive") ? 1 : 2;
    flags |= (vsh_has(a, "persistent") ? 4 : 0) | (vsh_has(a, "transient") ? 8 : 0) |
             (vsh_has(a, "autostart") ? 16 : 0) | (vsh_has(a, "no-autostart") ? 32 : 0);
    unsigned types = vsh_has(a, "type") ? types_of(v, vsh_text(a, "type")) : 0;
    if (vsh_has(a, "type") && !types)
        return false;
    const rp_list_args args = {1, flags | types};
    rp_pool_list list;
    if (!vsh_call(v, RPC_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, &args, &list))
        return vsh_error(v, "Failed to list pools");
    unsigned n = list.items.items_len;
    if (n)
        qsort(list.items.items_val, n, sizeof(rp_pool), compare_pools);
    autotable t =
        details ? vsh_table_new("Name", "State", "Autostart", "Persistent", "Capacity", "Allocation", "Available", NULL)
                : vsh_table_new("Name", "State", "Autostart", NULL);
    for (unsigned i = 0; i < n; i++) {
        const rp_pool *p = &list.items.items_val[i];
        char text[37];
        vsh_uuid_text(&p->uuid, text);
        if (uuid)
            printf("%-36s%c", text, name ? ' ' : '\n');
        if (name)
            printf("%-20s\n", p->name);
        if (!uuid && !name)
            pool_row(v, t, p, details);
    }
    if (!uuid && !name)
        vsh_table_print(v, t);
    client_result_free(RPC_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, &list);
    return true;
}

bool cmd_pool_info(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    rp_pool_info i;
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    char uuid[37];
    vsh_uuid_text(&pool.uuid, uuid);
    vsh_fields_begin(v);
    vsh_field(v, "Name:", "%s", pool.name);
    vsh_field(v, "UUID:", "%s", uuid);
    bool ok = vsh_call(v, RPC_PROC_STORAGE_POOL_GET_INFO, &pool, &i);
    if (ok) {
        int persistent = pool_flag(v, RPC_PROC_STORAGE_POOL_IS_PERSISTENT, &pool);
        int autostart = pool_flag(v, RPC_PROC_STORAGE_POOL_GET_AUTOSTART, &pool);
        vsh_field(v, "State:", "%s", state_text(i.state));
        vsh_field(v, "Persistent:", "%s", persistent < 0 ? "unknown" : persistent ? "yes" : "no");
        vsh_field(v, "Autostart:", "%s", autostart < 0 ? "no autostart" : autostart ? "yes" : "no");
        const struct {
            const char *name;
            unsigned long long bytes;
        } sizes[] = {{"Capacity:", i.capacity}, {"Allocation:", i.allocation}, {"Available:", i.available}};
        for (unsigned k = 0; k < 3 && (i.state == POOL_RUNNING || i.state == POOL_DEGRADED); k++) {
            autofree char *text = size_text(sizes[k].bytes);
            if (vsh_has(a, "bytes"))
                vsh_field(v, sizes[k].name, "%llu", sizes[k].bytes);
            else
                vsh_field(v, sizes[k].name, "%s", text);
        }
    }
    vsh_fields_end(v);
    return ok;
}

/* A call with the pool (and flags, for those that have them), and what is said then. */
static bool act(struct vsh *v, const struct vsh_args *a, int proc, int proc_flags, unsigned flags, const char *failed,
                const char *done)
{
    autopool pool = {0};
    const char *name = vsh_text(a, "pool");
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    const rp_pool_flags args = {pool, flags};
    if (!(proc ? vsh_call(v, proc, &pool, NULL) : vsh_call(v, proc_flags, &args, NULL)))
        return vsh_error(v, "Failed to %s pool %s", failed, name);
    vsh_extra(v, "Pool %s %s\n", name, done);
    return true;
}

/* --build, --overwrite, --no-overwrite as creation flags; -1: said so. */
static int create_flags(struct vsh *v, const struct vsh_args *a)
{
    if (!vsh_exclusive(v, a, "overwrite", "no-overwrite"))
        return -1;
    return vsh_has(a, "overwrite") ? 2 : vsh_has(a, "no-overwrite") ? 4 : vsh_has(a, "build") ? 1 : 0;
}

bool cmd_pool_start(struct vsh *v, const struct vsh_args *a)
{
    int flags = create_flags(v, a);
    return flags >= 0 && act(v, a, 0, RPC_PROC_STORAGE_POOL_CREATE, flags, "start", "started");
}

bool cmd_pool_build(struct vsh *v, const struct vsh_args *a)
{
    if (!vsh_exclusive(v, a, "overwrite", "no-overwrite"))
        return false;
    return act(v, a, 0, RPC_PROC_STORAGE_POOL_BUILD,
               vsh_has(a, "overwrite")      ? 8
               : vsh_has(a, "no-overwrite") ? 4
                                            : 0,
               "build", "built");
}

bool cmd_pool_destroy(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, RPC_PROC_STORAGE_POOL_DESTROY, 0, 0, "destroy", "destroyed");
}

bool cmd_pool_delete(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, 0, RPC_PROC_STORAGE_POOL_DELETE, 0, "delete", "deleted");
}

bool cmd_pool_undefine(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, RPC_PROC_STORAGE_POOL_UNDEFINE, 0, 0, "undefine", "has been undefined");
}

bool cmd_pool_refresh(struct vsh *v, const struct vsh_args *a)
{
    return act(v, a, 0, RPC_PROC_STORAGE_POOL_REFRESH, 0, "refresh", "refreshed");
}

bool cmd_pool_autostart(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    const char *name = vsh_text(a, "pool");
    bool off = vsh_has(a, "disable");
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    const rp_pool_int args = {pool, !off};
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_SET_AUTOSTART, &args, NULL))
        return vsh_error(v, "failed to %s pool %s as autostarted", off ? "unmark" : "mark", name);
    vsh_extra(v, "Pool %s %s as autostarted\n", name, off ? "unmarked" : "marked");
    return true;
}

bool cmd_pool_uuid(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    char uuid[37];
    if (!vsh_pool_find(v, vsh_text(a, "pool"), VSH_BY_NAME, &pool))
        return false;
    vsh_uuid_text(&pool.uuid, uuid);
    puts(uuid);
    return true;
}

bool cmd_pool_name(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    if (!vsh_pool_find(v, vsh_text(a, "pool"), VSH_BY_UUID, &pool))
        return false;
    puts(pool.name);
    return true;
}

static char *pool_text(struct vsh *v, const rp_pool *pool, unsigned flags)
{
    const rp_pool_flags args = {*pool, flags};
    rp_string text;
    return vsh_call(v, RPC_PROC_STORAGE_POOL_GET_XML_DESC, &args, &text) ? text : NULL;
}

bool cmd_pool_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    autofree char *text = pool_text(v, &pool, vsh_has(a, "inactive"));
    return text && vsh_print_xml(v, a, text);
}

static bool apply_pool(struct vsh *v, const char *text, void *opaque)
{
    const rp_str_flags args = {(char *)text, 0};
    autopool pool = {0};
    return vsh_call(v, RPC_PROC_STORAGE_POOL_DEFINE_XML, &args, &pool);
}

bool cmd_pool_edit(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    autofree char *text = pool_text(v, &pool, 1);
    autofree char *what = xasprintf("Pool %s", pool.name);
    bool changed;
    if (!text || !vsh_edit(v, text, what, apply_pool, NULL, &changed))
        return false;
    if (changed)
        vsh_extra(v, "%s XML configuration edited.\n", what);
    return true;
}

static bool from_file(struct vsh *v, const struct vsh_args *a, int proc, int flags, const char *verb, const char *done)
{
    const char *path = vsh_text(a, "file");
    autofree char *text = flags < 0 ? NULL : vsh_read_file(v, path);
    autopool pool = {0};
    if (!text)
        return false;
    const rp_str_flags args = {text, flags};
    if (!vsh_call(v, proc, &args, &pool))
        return vsh_error(v, "Failed to %s pool from %s", verb, path);
    vsh_extra(v, "Pool %s %s from %s\n", pool.name, done, path);
    return true;
}

bool cmd_pool_define(struct vsh *v, const struct vsh_args *a)
{
    return from_file(v, a, RPC_PROC_STORAGE_POOL_DEFINE_XML, vsh_has(a, "validate"), "define", "defined");
}

bool cmd_pool_create(struct vsh *v, const struct vsh_args *a)
{
    return from_file(v, a, RPC_PROC_STORAGE_POOL_CREATE_XML, create_flags(v, a), "create", "created");
}

static struct xml_node *with_attr(struct xml_node *parent, const char *element, const char *attr, const char *value)
{
    struct xml_node *n = xml_node_new(parent, element, NULL);
    xml_attr_set(n, attr, value);
    return n;
}

/* The document of the *-as verbs. */
static char *pool_document(const struct vsh_args *a)
{
    autoxml pool = xml_node_new(NULL, "pool", NULL);
    xml_attr_set(pool, "type", vsh_text(a, "type"));
    xml_node_new(pool, "name", vsh_text(a, "name"));
    const char *host = vsh_text(a, "source-host"), *path = vsh_text(a, "source-path"), *dev = vsh_text(a, "source-dev");
    const char *name = vsh_text(a, "source-name"), *format = vsh_text(a, "source-format");
    const char *initiator = vsh_text(a, "source-initiator"), *adapter = vsh_text(a, "adapter-name");
    const char *wwnn = vsh_text(a, "adapter-wwnn"), *wwpn = vsh_text(a, "adapter-wwpn");
    if (host || path || dev || name || format || initiator || adapter || (wwnn && wwpn)) {
        struct xml_node *s = xml_node_new(pool, "source", NULL);
        if (host)
            with_attr(s, "host", "name", host);
        if (path)
            with_attr(s, "dir", "path", path);
        if (dev)
            with_attr(s, "device", "path", dev);
        if (initiator)
            with_attr(xml_node_new(s, "initiator", NULL), "iqn", "name", initiator);
        if (wwnn && wwpn) {
            struct xml_node *x = with_attr(s, "adapter", "type", "fc_host");
            xml_attr_set(x, "parent", vsh_text(a, "adapter-parent"));
            xml_attr_set(x, "parent_wwnn", vsh_text(a, "adapter-parent-wwnn"));
            xml_attr_set(x, "parent_wwpn", vsh_text(a, "adapter-parent-wwpn"));
            xml_attr_set(x, "parent_fabric_wwn", vsh_text(a, "adapter-parent-fabric-wwn"));
            xml_attr_set(x, "wwnn", wwnn);
            xml_attr_set(x, "wwpn", wwpn);
        } else if (adapter) {
            xml_attr_set(with_attr(s, "adapter", "type", "scsi_host"), "name", adapter);
        }
        const char *usage = vsh_text(a, "secret-usage"), *uuid = vsh_text(a, "secret-uuid");
        if (vsh_has(a, "auth-type") && vsh_has(a, "auth-username") && (usage || uuid)) {
            struct xml_node *auth = with_attr(s, "auth", "type", vsh_text(a, "auth-type"));
            xml_attr_set(auth, "username", vsh_text(a, "auth-username"));
            with_attr(auth, "secret", usage ? "usage" : "uuid", usage ? usage : uuid);
        }
        if (format)
            with_attr(s, "format", "type", format);
        if (name)
            xml_node_new(s, "name", name);
        if (vsh_has(a, "source-protocol-ver"))
            with_attr(s, "protocol", "ver", vsh_text(a, "source-protocol-ver"));
    }
    if (vsh_has(a, "target"))
        xml_node_new(xml_node_new(pool, "target", NULL), "path", vsh_text(a, "target"));
    return xml_format(pool);
}

static bool from_options(struct vsh *v, const struct vsh_args *a, int proc, int flags, const char *verb,
                         const char *done)
{
    const char *name = vsh_text(a, "name");
    autopool pool = {0};
    if (flags < 0 || !vsh_exclusive(v, a, "secret-usage", "secret-uuid"))
        return false;
    autofree char *xml = pool_document(a);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    const rp_str_flags args = {xml, flags};
    if (!vsh_call(v, proc, &args, &pool))
        return vsh_error(v, "Failed to %s pool %s", verb, name);
    vsh_extra(v, "Pool %s %s\n", name, done);
    return true;
}

bool cmd_pool_define_as(struct vsh *v, const struct vsh_args *a)
{
    return from_options(v, a, RPC_PROC_STORAGE_POOL_DEFINE_XML, 0, "define", "defined");
}

bool cmd_pool_create_as(struct vsh *v, const struct vsh_args *a)
{
    return from_options(v, a, RPC_PROC_STORAGE_POOL_CREATE_XML, create_flags(v, a), "create", "created");
}
