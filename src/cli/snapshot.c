/* Snapshots of domains: snapshot-*. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

/* The snapshot that an option or --current names. False: said so. */
static bool lookup(struct vsh *v, const struct vsh_args *a, const char *option, rp_domain *dom, rp_snapshot *ret)
{
    const char *name = vsh_text(a, option);
    bool current = vsh_has(a, "current");
    *ret = (rp_snapshot){0};
    if (name && current)
        return vsh_error(v, "--%s and --current are mutually exclusive", option);
    if (name)
        return vsh_snapshot(v, dom, name, ret);
    if (!current)
        return vsh_error(v, "--%s or --current is required", option);
    const rp_dom_flags args = {*dom, 0};
    return vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_CURRENT, &args, ret);
}

static char *snapshot_text(struct vsh *v, const rp_snapshot *snap, unsigned flags)
{
    const rp_snap_flags args = {*snap, flags};
    rp_string text;
    return vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_GET_XML_DESC, &args, &text) ? text : NULL;
}

static const char *child_text(const struct xml_node *n, const char *one, const char *two)
{
    const struct xml_node *c = xml_child(n, one);
    if (c && two)
        c = xml_child(c, two);
    return c ? c->text : NULL;
}

static bool create(struct vsh *v, const rp_domain *dom, const char *xml, unsigned flags, const char *from)
{
    const rp_dom_str_flags args = {*dom, (char *)xml, flags};
    autosnapshot snap = {0};
    if (!vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_CREATE_XML, &args, &snap))
        return false;
    if (from)
        vsh_extra(v, "Domain snapshot %s created from '%s'", snap.name, from);
    else
        vsh_extra(v, "Domain snapshot %s created", snap.name);
    return true;
}

static unsigned create_flags(const struct vsh_args *a)
{
    static const char *const names[] = {"redefine",       "current", "no-metadata", "halt", "disk-only",
                                        "reuse-external", "quiesce", "atomic",      "live", "validate"};
    unsigned flags = 0;
    for (unsigned i = 0; i < 10; i++)
        flags |= vsh_has(a, names[i]) << i;
    return flags;
}

bool cmd_snapshot_create(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *path = vsh_text(a, "xmlfile");
    if (vsh_has(a, "current") && !vsh_has(a, "redefine"))
        return vsh_error(v, "Option --redefine is required by option --current");
    if (!vsh_domain(v, a, &dom))
        return false;
    autofree char *xml = path ? vsh_read_file(v, path) : xstrdup("<domainsnapshot/>");
    return xml && create(v, &dom, xml, create_flags(a), path);
}

/* "key=value,key=value" of --memspec and --diskspec: cuts the next part off; a doubled comma is one. */
static char *next_part(char **at)
{
    if (!*at)
        return NULL;
    char *from = *at, *to = from;
    for (char *p = from; *p; p++) {
        if (*p == ',' && p[1] == ',') {
            p++;
        } else if (*p == ',') {
            *at = p + 1;
            *to = 0;
            return from;
        }
        *to++ = *p;
    }
    *to = 0;
    *at = NULL;
    return from;
}

static bool add_memspec(struct vsh *v, struct xml_node *root, const char *spec)
{
    autofree char *copy = xstrdup(spec);
    char *at = copy, *part;
    const char *file = NULL, *kind = NULL;
    while ((part = next_part(&at))) {
        if (!strncmp(part, "snapshot=", 9))
            kind = part + 9;
        else if (!strncmp(part, "file=", 5))
            file = part + 5;
        else if (!file && *part)
            file = part;
        else
            return vsh_error(v, "unable to parse memspec: %s", spec);
    }
    struct xml_node *m = xml_node_new(root, "memory", NULL);
    xml_attr_set(m, "snapshot", kind);
    xml_attr_set(m, "file", file);
    return true;
}

static bool add_diskspec(struct vsh *v, struct xml_node *disks, const char *spec)
{
    autofree char *copy = xstrdup(spec);
    char *at = copy, *part = next_part(&at);
    if (!part || !*part || strchr(part, '='))
        return vsh_error(v, "unable to parse diskspec: %s", spec);
    struct xml_node *d = xml_node_new(disks, "disk", NULL);
    xml_attr_set(d, "name", part);
    const char *driver = NULL, *file = NULL, *type = NULL;
    while ((part = next_part(&at))) {
        if (!strncmp(part, "snapshot=", 9))
            xml_attr_set(d, "snapshot", part + 9);
        else if (!strncmp(part, "driver=", 7))
            driver = part + 7;
        else if (!strncmp(part, "file=", 5))
            file = part + 5;
        else if (!strncmp(part, "stype=", 6))
            type = part + 6;
        else
            return vsh_error(v, "unable to parse diskspec: %s", spec);
    }
    xml_attr_set(d, "type", type);
    if (driver)
        xml_attr_set(xml_node_new(d, "driver", NULL), "type", driver);
    if (file)
        xml_attr_set(xml_node_new(d, "source", NULL), type && !strcmp(type, "block") ? "dev" : "file", file);
    return true;
}

bool cmd_snapshot_create_as(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    autoxml root = xml_node_new(NULL, "domainsnapshot", NULL);
    if (vsh_has(a, "name"))
        xml_node_new(root, "name", vsh_text(a, "name"));
    if (vsh_has(a, "description"))
        xml_node_new(root, "description", vsh_text(a, "description"));
    if (vsh_has(a, "memspec") && !add_memspec(v, root, vsh_text(a, "memspec")))
        return false;
    unsigned at = 0;
    struct xml_node *disks = NULL;
    for (const char *w; (w = vsh_word(a, "diskspec", &at));) {
        if (!disks)
            disks = xml_node_new(root, "disks", NULL);
        if (!add_diskspec(v, disks, w))
            return false;
    }
    autofree char *xml = xml_format(root);
    if (vsh_has(a, "print-xml")) {
        puts(xml);
        return true;
    }
    return create(v, &dom, xml, create_flags(a), NULL);
}

/* A snapshot with its parsed document. */
struct shot {
    const rp_snapshot *snap;
    struct xml_node *root;
    char *parent; /* NULL: none */
};

static int compare_shots(const void *a, const void *b)
{
    return strcasecmp(((const struct shot *)a)->snap->name, ((const struct shot *)b)->snap->name);
}

/* Prints the tree below `parent` (NULL: the roots), with virsh's lines. */
static void print_tree(const struct shot *shots, unsigned n, const char *parent, const char *indent, unsigned depth)
{
    unsigned last = n, i;
    for (i = 0; i < n; i++)
        if (shots[i].parent && parent && !strcmp(shots[i].parent, parent))
            last = i;
    if (last < n && depth < 1000)
        printf("%s  |\n", indent);
    for (i = 0; i < n && depth < 1000; i++) {
        if (!shots[i].parent || !parent || strcmp(shots[i].parent, parent) != 0)
            continue;
        printf("%s  +- %s\n", indent, shots[i].snap->name);
        autofree char *deeper = xasprintf("%s  %s", indent, i == last ? " " : "|");
        print_tree(shots, n, shots[i].snap->name, deeper, depth + 1);
        if (i == last)
            printf("%s  \n", indent);
    }
}

bool cmd_snapshot_list(struct vsh *v, const struct vsh_args *a)
{
    static const struct {
        const char *option;
        unsigned flag;
    } filters[] = {{"roots", 1},        {"metadata", 2},   {"leaves", 4},        {"no-leaves", 8},
                   {"no-metadata", 16}, {"inactive", 32},  {"active", 64},       {"disk-only", 128},
                   {"internal", 256},   {"external", 512}, {"topological", 1024}};
    bool tree = vsh_has(a, "tree"), name = vsh_has(a, "name"), parent = vsh_has(a, "parent");
    autodomain dom = {0};
    if (!vsh_exclusive(v, a, "tree", "name") || !vsh_exclusive(v, a, "parent", "roots") ||
        !vsh_exclusive(v, a, "parent", "tree") || !vsh_exclusive(v, a, "roots", "tree") ||
        !vsh_exclusive(v, a, "roots", "from") || !vsh_exclusive(v, a, "roots", "current"))
        return false;
    unsigned flags = 0;
    for (unsigned i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        bool has = vsh_has(a, filters[i].option);
        if (has && tree && i >= 2 && i != 4 && i < 10)
            return vsh_error(v, "--%s and --tree are mutually exclusive", filters[i].option);
        flags |= has ? filters[i].flag : 0;
    }
    bool from = vsh_has(a, "from") || vsh_has(a, "current");
    if (vsh_has(a, "descendants") && !from)
        return vsh_error(v, "--descendants requires either --from or --current");
    if (!vsh_domain(v, a, &dom))
        return false;
    autosnapshot start = {0};
    if (from && !lookup(v, a, "from", &dom, &start))
        return false;
    rp_snapshot_list list;
    const rp_snap_list_args all = {dom, 1, flags};
    const rp_snap_children_args below = {start, 1, flags | (vsh_has(a, "descendants") || tree)};
    int proc = from ? RPC_PROC_DOMAIN_SNAPSHOT_LIST_ALL_CHILDREN : RPC_PROC_DOMAIN_LIST_ALL_SNAPSHOTS;
    if (!vsh_call(v, proc, from ? (const void *)&below : &all, &list))
        return false;
    unsigned n = list.items.items_len;
    autofree struct shot *shots = xcalloc(n + 1, sizeof(*shots));
    for (unsigned i = 0; i < n; i++) {
        shots[i].snap = &list.items.items_val[i];
        autofree char *text = name ? NULL : snapshot_text(v, shots[i].snap, 0);
        shots[i].root = text ? vsh_parse(v, text) : NULL;
        const char *p = shots[i].root ? child_text(shots[i].root, "parent", "name") : NULL;
        shots[i].parent = p ? xstrdup(p) : NULL;
    }
    vsh_error_reset(v);
    if (n && !vsh_has(a, "topological"))
        qsort(shots, n, sizeof(*shots), compare_shots);
    autotable t = parent ? vsh_table_new("Name", "Creation Time", "State", "Parent", NULL)
                         : vsh_table_new("Name", "Creation Time", "State", NULL);
    for (unsigned i = 0; i < n; i++) {
        if (name) {
            puts(shots[i].snap->name);
        } else if (tree) {
            if (!shots[i].parent || (from && !strcmp(shots[i].parent, start.name))) {
                puts(shots[i].snap->name);
                print_tree(shots, n, shots[i].snap->name, "", 0);
                puts("");
            }
        } else if (shots[i].root) {
            const char *state = child_text(shots[i].root, "state", NULL),
                       *when = child_text(shots[i].root, "creationTime", NULL);
            time_t then = when ? strtoll(when, NULL, 10) : 0;
            struct tm tm;
            char text[64] = "-";
            if (localtime_r(&then, &tm))
                strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %z", &tm);
            if (parent)
                vsh_table_row(t, shots[i].snap->name, text, state, shots[i].parent ? shots[i].parent : "");
            else
                vsh_table_row(t, shots[i].snap->name, text, state);
        }
    }
    if (!name && !tree)
        vsh_table_print(v, t);
    for (unsigned i = 0; i < n; i++) {
        xml_free(shots[i].root);
        free(shots[i].parent);
    }
    client_result_free(proc, &list);
    return true;
}

static int count_children(struct vsh *v, const rp_snapshot *snap, unsigned flags)
{
    const rp_snap_flags args = {*snap, flags};
    rp_int n;
    return vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_NUM_CHILDREN, &args, &n) ? n : -1;
}

/* Is the snapshot kept outside of the disk images? */
static bool is_external(const struct xml_node *root, const char *state)
{
    const struct xml_node *memory = xml_child(root, "memory"), *disks = xml_child(root, "disks");
    if (!memory)
        return !strcmp(state, "disk-snapshot");
    const char *kind = xml_attr_get(memory, "snapshot");
    bool external = kind && !strcmp(kind, "external");
    for (const struct xml_node *d = disks ? disks->first : NULL; d; d = d->next)
        external |= xml_attr_get(d, "snapshot") && !strcmp(xml_attr_get(d, "snapshot"), "external");
    return external;
}

bool cmd_snapshot_info(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autosnapshot snap = {0};
    if (!vsh_domain(v, a, &dom) || !lookup(v, a, "snapshotname", &dom, &snap))
        return false;
    const rp_snap_flags args = {snap, 0};
    rp_int current, metadata;
    if (!vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_IS_CURRENT, &args, &current)) {
        current = 0;
        vsh_error_reset(v);
    }
    autofree char *text = snapshot_text(v, &snap, 0);
    autoxml root = text ? vsh_parse(v, text) : NULL;
    if (!root)
        return false;
    const char *state = child_text(root, "state", NULL), *parent = child_text(root, "parent", "name");
    if (!state)
        return vsh_error(v, "unexpected problem reading snapshot xml");
    vsh_fields_begin(v);
    vsh_field(v, "Name:", "%s", snap.name);
    vsh_field(v, "Domain:", "%s", dom.name);
    vsh_field(v, "Current:", "%s", current > 0 ? "yes" : "no");
    vsh_field(v, "State:", "%s", state);
    vsh_field(v, "Location:", "%s", is_external(root, state) ? "external" : "internal");
    vsh_field(v, "Parent:", "%s", parent ? parent : "-");
    int children = count_children(v, &snap, 0), descendants = children < 0 ? -1 : count_children(v, &snap, 1);
    if (children >= 0)
        vsh_field(v, "Children:", "%d", children);
    if (descendants >= 0)
        vsh_field(v, "Descendants:", "%d", descendants);
    if (children >= 0 && vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_HAS_METADATA, &args, &metadata))
        vsh_field(v, "Metadata:", "%s", metadata ? "yes" : "no");
    vsh_fields_end(v);
    vsh_error_reset(v);
    return true;
}

bool cmd_snapshot_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autosnapshot snap = {0};
    if (!vsh_domain(v, a, &dom) || !vsh_snapshot(v, &dom, vsh_text(a, "snapshotname"), &snap))
        return false;
    autofree char *text = snapshot_text(v, &snap, vsh_has(a, "security-info"));
    return text && vsh_print_xml(v, a, text);
}

bool cmd_snapshot_current(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autosnapshot snap = {0}, again = {0};
    const char *name = vsh_text(a, "snapshotname");
    if (!vsh_exclusive(v, a, "name", "snapshotname") || !vsh_domain(v, a, &dom))
        return false;
    if (name) {
        if (!vsh_snapshot(v, &dom, name, &snap))
            return false;
        autofree char *text = snapshot_text(v, &snap, 1);
        if (!text)
            return false;
        const rp_dom_str_flags args = {dom, text, 3 | (strstr(text, "<state>disk-snapshot</state>") ? 16 : 0)};
        if (!vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_CREATE_XML, &args, &again))
            return false;
        vsh_extra(v, "Snapshot %s set as current", name);
        return true;
    }
    const rp_dom_flags query = {dom, 0};
    rp_int has;
    if (!vsh_call(v, RPC_PROC_DOMAIN_HAS_CURRENT_SNAPSHOT, &query, &has))
        return false;
    if (!has)
        return vsh_error(v, "domain '%s' has no current snapshot", vsh_text(a, "domain"));
    if (!vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_CURRENT, &query, &snap))
        return false;
    if (vsh_has(a, "name")) {
        printf("%s", snap.name);
        return true;
    }
    autofree char *text = snapshot_text(v, &snap, vsh_has(a, "security-info"));
    if (text)
        printf("%s", text);
    return text != NULL;
}

bool cmd_snapshot_parent(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autosnapshot snap = {0}, parent = {0};
    if (!vsh_domain(v, a, &dom) || !lookup(v, a, "snapshotname", &dom, &snap))
        return false;
    const rp_snap_flags args = {snap, 0};
    if (!vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_GET_PARENT, &args, &parent)) {
        if (v->error.code != VIR_NO_DOMAIN_SNAPSHOT)
            return vsh_error(v, "unable to determine if snapshot has parent");
        vsh_error_reset(v);
        return vsh_error(v, "snapshot '%s' has no parent", snap.name);
    }
    printf("%s", parent.name);
    return true;
}

bool cmd_snapshot_delete(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autosnapshot snap = {0};
    if (!vsh_domain(v, a, &dom) || !lookup(v, a, "snapshotname", &dom, &snap))
        return false;
    bool only = vsh_has(a, "children-only");
    const rp_snap_flags args = {snap, vsh_has(a, "children") | vsh_has(a, "metadata") << 1 | only << 2};
    if (!vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_DELETE, &args, NULL))
        return vsh_error(v, "Failed to delete snapshot %s", snap.name);
    vsh_extra(v, only ? "Domain snapshot %s children deleted\n" : "Domain snapshot %s deleted\n", snap.name);
    return true;
}

bool cmd_snapshot_revert(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autosnapshot snap = {0};
    if (!vsh_exclusive(v, a, "running", "paused") || !vsh_domain(v, a, &dom) ||
        !lookup(v, a, "snapshotname", &dom, &snap))
        return false;
    const rp_snap_flags args = {snap, vsh_has(a, "running") | vsh_has(a, "paused") << 1 | vsh_has(a, "force") << 2 |
                                          vsh_has(a, "reset-nvram") << 3};
    if (!vsh_call(v, RPC_PROC_DOMAIN_REVERT_TO_SNAPSHOT, &args, NULL))
        return false;
    vsh_extra(v, "Domain snapshot %s reverted\n", snap.name);
    return true;
}

struct edit_snapshot {
    const rp_domain *dom;
    unsigned flags;
};

static bool apply_snapshot(struct vsh *v, const char *text, void *opaque)
{
    const struct edit_snapshot *e = opaque;
    const rp_dom_str_flags args = {*e->dom, (char *)text,
                                   e->flags | (strstr(text, "<state>disk-snapshot</state>") ? 16 : 0)};
    autosnapshot snap = {0};
    return vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_CREATE_XML, &args, &snap);
}

bool cmd_snapshot_edit(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autosnapshot snap = {0};
    const char *name = vsh_text(a, "snapshotname");
    if (!vsh_exclusive(v, a, "rename", "clone") || !vsh_domain(v, a, &dom))
        return false;
    if (name ? !vsh_snapshot(v, &dom, name, &snap) : !lookup(v, a, "snapshotname", &dom, &snap))
        return false;
    autofree char *text = snapshot_text(v, &snap, 1);
    struct edit_snapshot e = {&dom, 1 | vsh_has(a, "current") << 1};
    bool changed;
    if (!text || !vsh_edit(v, text, NULL, apply_snapshot, &e, &changed))
        return vsh_error(v, "Failed to update %s", snap.name);
    vsh_extra(v, changed ? "Snapshot %s edited.\n" : "Snapshot %s XML configuration not changed.\n", snap.name);
    return true;
}
