/* `lodge clone`: virt-clone's options: a guest's document with what must be its own made new, and its disks copied. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/dom.h"
#include "cli/install.h"
#include "cli/session.h"

#define CLONE_MAX 64 /* disks and interfaces */

struct clone {
    struct vsh v;
    const char *original, *original_xml, *name, *files[CLONE_MAX + 1], *macs[CLONE_MAX + 1], *force[CLONE_MAX + 1];
    const char *skip[CLONE_MAX + 1], *nvram;
    bool auto_clone, preserve, nonsparse, reflink, replace, print_xml, quiet;
    char *made_name;
};

static const struct option longs[] = {
    {"original", required_argument, NULL, 'o'},
    {"original-xml", required_argument, NULL, 1},
    {"auto-clone", no_argument, NULL, 2},
    {"name", required_argument, NULL, 'n'},
    {"reflink", no_argument, NULL, 3},
    {"file", required_argument, NULL, 'f'},
    {"force-copy", required_argument, NULL, 4},
    {"skip-copy", required_argument, NULL, 5},
    {"nonsparse", no_argument, NULL, 6},
    {"preserve-data", no_argument, NULL, 7},
    {"nvram", required_argument, NULL, 8},
    {"mac", required_argument, NULL, 'm'},
    {"replace", no_argument, NULL, 9},
    {"print-xml", no_argument, NULL, 10},
    {"check", required_argument, NULL, 11},
    {"quiet", no_argument, NULL, 'q'},
    {"debug", no_argument, NULL, 'd'},
    {"connect", required_argument, NULL, 12},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 13},
    {NULL, 0, NULL, 0},
};

static void usage(const char *program)
{
    printf("usage: %s --original NAME [options]\n\nCopies a guest: its document, with a name, UUID and MAC addresses "
           "of its own, "
           "and its disks.\nWhat is inside the guest is not changed.\n\noptions:\n"
           "  -o, --original NAME     the guest to copy: shut off or suspended\n"
           "      --original-xml FILE the same, as a document\n"
           "  -n, --name NAME         the new guest's name\n"
           "      --auto-clone        make up names and paths\n"
           "  -f, --file FILE         the next disk's copy\n"
           "      --force-copy TARGET copy this disk although it is read-only, shared or a CD\n"
           "      --skip-copy TARGET  share this disk instead of copying it\n"
           "      --nonsparse         give the copies all their space now\n"
           "      --preserve-data     the files are there already: do not copy\n"
           "      --reflink           share blocks with the original\n"
           "      --nvram FILE        the firmware's variables\n"
           "  -m, --mac ADDRESS       the next interface's address\n"
           "      --replace           take the place of a guest of that name\n"
           "      --print-xml         print the new document and do nothing\n"
           "      --check KEYS        path_in_use=off, all=off\n"
           "      --connect URI       the daemon\n  -q, --quiet\n      --help, --version\n",
           program);
}

static bool add(const char **list, const char *value)
{
    for (unsigned i = 0; i < CLONE_MAX; i++)
        if (!list[i]) {
            list[i] = value;
            return true;
        }
    return install_error("too many options");
}

static bool listed(const char *const *list, const char *value)
{
    for (; *list; list++)
        if (value && !strcmp(*list, value))
            return true;
    return false;
}

static bool name_taken(struct clone *c, const char *name)
{
    rp_string text = (char *)name;
    autodomain dom = {0};
    bool taken = vsh_call(&c->v, RPC_PROC_DOMAIN_LOOKUP_BY_NAME, &text, &dom);
    vsh_error_reset(&c->v);
    return taken;
}

static bool volume_there(struct clone *c, const char *path)
{
    rp_string text = (char *)path;
    autovol vol = {0};
    bool there = vsh_call(&c->v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, &vol) || access(path, F_OK) == 0;
    vsh_error_reset(&c->v);
    return there;
}

/* "/images/guest.qcow2" -> "/images/new.qcow2", or "...-clone.qcow2", numbered until it is free. The caller frees it.
 */
static char *new_path(struct clone *c, const char *path, const char *old_name)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    size_t stem = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    bool named = strlen(old_name) == stem && !memcmp(base, old_name, stem);
    for (unsigned i = 0; i < 1000; i++) {
        autofree char *number = i ? xasprintf("-%u", i) : xstrdup("");
        char *made =
            named ? xasprintf("%.*s%s%s%s", (int)(base - path), path, c->name, number, base + stem)
                  : xasprintf("%.*s%.*s-clone%s%s", (int)(base - path), path, (int)stem, base, number, base + stem);
        if (!volume_there(c, made))
            return made;
        free(made);
    }
    return xstrdup(path);
}

/* Copies the volume at `from` to `to`, in the pool of the new path's directory. */
static bool copy_volume(struct clone *c, const char *from, const char *to)
{
    struct vsh *v = &c->v;
    rp_string text = (char *)from, xml;
    autovol source = {0}, vol = {0};
    autopool pool = {0};
    const char *slash = strrchr(to, '/'), *from_slash = strrchr(from, '/');
    autofree char *dir = slash > to ? xasprintf("%.*s", (int)(slash - to), to) : xstrdup("/");
    autofree char *from_dir = from_slash > from ? xasprintf("%.*s", (int)(from_slash - from), from) : xstrdup("/");
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, &source)) {
        /* Not in a pool, or put there behind its back. */
        autopool old = {0};
        vsh_error_reset(v);
        if (!install_directory_pool(v, from_dir, &old))
            return false;
        const rp_pool_flags refresh = {old, 0};
        if (!vsh_call(v, RPC_PROC_STORAGE_POOL_REFRESH, &refresh, NULL) ||
            !vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, &source))
            return install_error("Could not determine original disk information: %s", v->error.message);
    }
    if (!install_directory_pool(v, dir, &pool))
        return false;
    const rp_vol_flags args = {source, 0};
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_GET_XML_DESC, &args, &xml))
        return install_error("%s", v->error.message);
    autofree char *owned = xml;
    struct xml_node *old = NULL, *root = xml_node_new(NULL, "volume", NULL);
    if (xml_parse(xml, strlen(xml), "volume", &old, NULL) < 0) {
        xml_free(root);
        return install_error("%s: the volume's description cannot be read", from);
    }
    const struct xml_node *capacity = xml_child(old, "capacity"), *allocation = xml_child(old, "allocation");
    const struct xml_node *target = xml_child(old, "target"), *format = target ? xml_child(target, "format") : NULL;
    const struct xml_node *backing = xml_child(old, "backingStore");
    xml_node_new(root, "name", slash + 1);
    xml_node_new(root, "capacity", capacity ? capacity->text : "0");
    xml_node_new(root, "allocation",
                 c->nonsparse ? (capacity ? capacity->text : "0")
                 : allocation ? allocation->text
                              : "0");
    if (format && xml_attr_get(format, "type"))
        xml_attr_set(xml_node_new(xml_node_new(root, "target", NULL), "format", NULL), "type",
                     xml_attr_get(format, "type"));
    if (backing && xml_child(backing, "path"))
        xml_append(root, xml_copy(backing));
    autofree char *text_new = xml_format(root);
    xml_free(root);
    xml_free(old);
    if (!c->quiet) {
        printf("Allocating '%s'\n", slash + 1);
        fflush(stdout);
    }
    const rp_vol_create_from create = {pool, text_new, source, c->reflink ? 2 : 0};
    return vsh_call(v, RPC_PROC_STORAGE_VOL_CREATE_XML_FROM, &create, &vol) ||
           install_error("Couldn't create storage volume '%s': '%s'", slash + 1, v->error.message);
}

static struct xml_node *child_of(struct xml_node *n, const char *name)
{
    struct xml_node *c = n ? xml_child(n, name) : NULL;
    return c;
}

/* The path of a disk that is a file, block device or volume; NULL: it has none. The caller frees it. */
static char *disk_path(struct clone *c, struct xml_node *disk)
{
    struct xml_node *s = child_of(disk, "source");
    const char *path = s ? xml_attr_get(s, "file") : NULL;
    if (!path)
        path = s ? xml_attr_get(s, "dev") : NULL;
    if (path)
        return xstrdup(path);
    if (!s || !xml_attr_get(s, "pool") || !xml_attr_get(s, "volume"))
        return NULL;
    autopool pool = {0};
    autovol vol = {0};
    rp_string name = (char *)xml_attr_get(s, "pool"), out;
    if (!vsh_call(&c->v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_NAME, &name, &pool))
        return NULL;
    const rp_pool_str args = {pool, (char *)xml_attr_get(s, "volume")};
    if (!vsh_call(&c->v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, &args, &vol) ||
        !vsh_call(&c->v, RPC_PROC_STORAGE_VOL_GET_PATH, &vol, &out))
        return NULL;
    return out;
}

/* Gives each disk that is the guest's own a file of its own in the document; what is to be copied goes to from/to. */
static bool new_disks(struct clone *c, struct xml_node *devices, const char *old_name, char **from, char **to,
                      unsigned *n)
{
    unsigned file = 0;
    for (struct xml_node *d = devices->first; d; d = d->next) {
        if (strcmp(d->name, "disk") != 0 || *n == CLONE_MAX)
            continue;
        struct xml_node *t = child_of(d, "target");
        const char *target = t ? xml_attr_get(t, "dev") : NULL, *device = xml_attr_get(d, "device");
        autofree char *path = disk_path(c, d);
        bool shared = xml_child(d, "readonly") || xml_child(d, "shareable") || (device && strcmp(device, "disk") != 0);
        if (!path || listed(c->skip, target) || (shared && !listed(c->force, target)))
            continue;
        char *made = c->files[file]  ? cli_absolute(c->files[file++])
                     : c->auto_clone ? new_path(c, path, old_name)
                                     : NULL;
        if (!made)
            return install_error("A disk path must be specified to clone '%s'.", path);
        if (!c->preserve && !c->print_xml && !strcmp(made, path)) {
            free(made);
            return install_error("Cannot use the disk of the original for the clone: %s", path);
        }
        struct xml_node *s = child_of(d, "source");
        bool block = xml_attr_get(s, "dev") != NULL && strncmp(made, "/dev/", 5) == 0;
        struct xml_node *fresh = xml_node_new(NULL, "source", NULL);
        xml_attr_set(fresh, block ? "dev" : "file", made);
        xml_attr_set(d, "type", block ? "block" : "file");
        for (struct xml_node **link = &d->first; *link; link = &(*link)->next)
            if (*link == s) {
                fresh->next = s->next;
                fresh->parent = d;
                *link = fresh;
                if (d->last == s)
                    d->last = fresh;
                s->next = s->parent = NULL;
                xml_free(s);
                break;
            }
        from[*n] = ptr_take(path);
        to[(*n)++] = made;
    }
    return true;
}

static void random_mac(char ret[18])
{
    uint8_t b[3] = {0};
    if (getrandom(b, sizeof(b), 0) < 0)
        b[0] = getpid();
    snprintf(ret, 18, "52:54:00:%02x:%02x:%02x", b[0], b[1], b[2]);
}

/* What else must not be shared: addresses, ports, sockets, paths with the old name. */
static void new_identity(struct clone *c, struct xml_node *root)
{
    rp_uuid u = {{0}};
    char uuid[37], mac[18];
    unsigned next_mac = 0;
    if (getrandom(u.bytes, sizeof(u.bytes), 0) < 0)
        u.bytes[0] = getpid();
    u.bytes[6] = (u.bytes[6] & 0x0f) | 0x40;
    u.bytes[8] = (u.bytes[8] & 0x3f) | 0x80;
    vsh_uuid_text(&u, uuid);
    install_set(root, "name", c->name);
    install_set(root, "uuid", uuid);
    struct xml_node *devices = child_of(root, "devices");
    for (struct xml_node *d = devices ? devices->first : NULL; d; d = d->next) {
        struct xml_node *s = child_of(d, "source");
        const char *type = xml_attr_get(d, "type");
        if (!strcmp(d->name, "interface")) {
            random_mac(mac);
            install_set(d, "mac@address", c->macs[next_mac] ? c->macs[next_mac] : mac);
            next_mac += c->macs[next_mac] != NULL;
            struct xml_node *t = child_of(d, "target");
            if (t && xml_attr_get(t, "dev"))
                t->attrs = t->attrs_last = NULL; /* the host's device: made up again */
        } else if (!strcmp(d->name, "graphics")) {
            if (xml_attr_get(d, "port"))
                xml_attr_set(d, "port", "-1");
            if (xml_attr_get(d, "port"))
                xml_attr_set(d, "autoport", "yes");
        } else if (!strcmp(d->name, "channel") && type && !strcmp(type, "unix") && s && xml_attr_get(s, "path")) {
            s->attrs = s->attrs_last = NULL;
            xml_attr_set(s, "mode", "bind");
        }
    }
}

/* The original's document, and its name. */
static struct xml_node *original(struct clone *c)
{
    struct vsh *v = &c->v;
    autofree char *text = NULL;
    if (c->original_xml) {
        text = vsh_read_file(v, c->original_xml);
    } else {
        rp_string name = (char *)c->original;
        autodomain dom = {0};
        if (!vsh_call(v, RPC_PROC_DOMAIN_LOOKUP_BY_NAME, &name, &dom)) {
            install_error("Domain '%s' was not found.", c->original);
            return NULL;
        }
        int state = dom_state(v, &dom, NULL);
        if (state != DOM_SHUTOFF && state != DOM_PAUSED && !c->print_xml) {
            install_error("Domain with devices to clone must be paused or shutoff.");
            return NULL;
        }
        text = vsh_domain_text(v, &dom, DOM_XML_INACTIVE | DOM_XML_SECURE);
        if (!text)
            install_error("%s", v->error.message);
    }
    return text ? vsh_parse(v, text) : NULL;
}

/* The guest whose place is taken goes. */
static bool replace(struct clone *c)
{
    struct vsh *v = &c->v;
    rp_string name = (char *)c->name;
    autodomain dom = {0};
    if (!vsh_call(v, RPC_PROC_DOMAIN_LOOKUP_BY_NAME, &name, &dom)) {
        vsh_error_reset(v);
        return true;
    }
    if (!c->replace)
        return install_error("Invalid name for new guest: Guest name '%s' is already in use.", c->name);
    if (dom.id >= 0 && !vsh_call(v, RPC_PROC_DOMAIN_DESTROY, &dom, NULL))
        return install_error("Could not remove old vm '%s': %s", c->name, v->error.message);
    const rp_dom_flags args = {dom, 4};
    if (!vsh_call(v, RPC_PROC_DOMAIN_UNDEFINE_FLAGS, &args, NULL))
        return install_error("Could not remove old vm '%s': %s", c->name, v->error.message);
    return true;
}

static bool work(struct clone *c)
{
    struct vsh *v = &c->v;
    if (!c->original && !c->original_xml)
        return install_error("An original machine name is required, use '--original NAME' and try again.");
    autoxml root = original(c);
    if (!root)
        return false;
    const struct xml_node *n = xml_child(root, "name");
    autofree char *old_name = xstrdup(n && n->text ? n->text : "");
    for (unsigned i = 0; !c->name && c->auto_clone && i < 1000; i++) {
        char *made = i ? xasprintf("%s-clone%u", old_name, i) : xasprintf("%s-clone", old_name);
        if (name_taken(c, made))
            free(made);
        else
            c->name = c->made_name = made;
    }
    if (!c->name)
        return install_error(
            "A name is required for the new virtual machine, use '--name NEW_VM_NAME' to specify one.");
    struct xml_node *devices = child_of(root, "devices");
    char *from[CLONE_MAX], *to[CLONE_MAX];
    unsigned disks = 0;
    bool ok = (!devices || new_disks(c, devices, old_name, from, to, &disks));
    if (ok)
        new_identity(c, root);
    struct xml_node *os = child_of(root, "os"), *nvram = child_of(os, "nvram");
    if (ok && nvram && nvram->text) {
        autofree char *path = c->nvram ? cli_absolute(c->nvram) : new_path(c, nvram->text, old_name);
        if (disks < CLONE_MAX && access(nvram->text, F_OK) == 0) {
            from[disks] = xstrdup(nvram->text);
            to[disks++] = xstrdup(path);
        }
        free(nvram->text);
        nvram->text = ptr_take(path);
    }
    autofree char *xml = xml_format(root);
    if (ok && c->print_xml) {
        fputs(xml, stdout);
    } else if (ok && (ok = replace(c))) {
        for (unsigned i = 0; ok && i < disks && !c->preserve; i++)
            ok = copy_volume(c, from[i], to[i]);
        rp_string text = xml;
        autodomain dom = {0};
        if (ok && !(ok = vsh_call(v, RPC_PROC_DOMAIN_DEFINE_XML, &text, &dom)))
            install_error("%s", v->error.message);
        if (ok && !c->quiet)
            printf("\nClone '%s' created successfully.\n", c->name);
    }
    while (disks) {
        free(from[--disks]);
        free(to[disks]);
    }
    return ok;
}

int clone_main(const char *program, int argc, char **argv)
{
    struct clone c = {.v = {.program = "lodge"}};
    int o;
    bool ok = true;
    opterr = 0;
    optind = 0;
    while (ok && (o = getopt_long(argc, argv, "+:o:n:f:m:qdh", longs, NULL)) != -1) {
        switch (o) {
        case 'o':
            c.original = optarg;
            break;
        case 1:
            c.original_xml = optarg;
            break;
        case 2:
            c.auto_clone = true;
            break;
        case 'n':
            c.name = optarg;
            break;
        case 3:
            c.reflink = true;
            break;
        case 'f':
            ok = add(c.files, optarg);
            break;
        case 4:
            ok = add(c.force, optarg);
            break;
        case 5:
            ok = add(c.skip, optarg);
            break;
        case 6:
            c.nonsparse = true;
            break;
        case 7:
            c.preserve = true;
            break;
        case 8:
            c.nvram = optarg;
            break;
        case 'm':
            ok = strcmp(optarg, "RANDOM") == 0 || add(c.macs, optarg);
            break;
        case 9:
            c.replace = true;
            break;
        case 10:
            c.print_xml = true;
            break;
        case 11:
        case 'd':
            break;
        case 'q':
            c.quiet = true;
            break;
        case 12:
            c.v.uri = optarg;
            break;
        case 13:
            puts(LODGE_VERSION);
            return 0;
        case 'h':
            usage(program);
            return 0;
        default:
            fprintf(stderr, "%s: error: %s: %s\n", program,
                    o == ':' ? "expected one argument" : "unrecognized arguments", argv[optind - 1]);
            return 2;
        }
    }
    if (optind < argc && !c.original)
        c.original = argv[optind++];
    const struct client_options options = {.start_session = session_start};
    if (ok && client_open(client_default_uri(c.v.uri), &options, &c.v.conn, &c.v.error) < 0) {
        c.v.conn = NULL;
        ok = install_error("%s", c.v.error.message);
    }
    ok = ok && work(&c);
    client_close(c.v.conn);
    free(c.made_name);
    return ok ? 0 : 1;
}

int cli_clone(const struct cli_verb *verb, int argc, char **argv)
{
    return clone_main("lodge clone", argc, argv);
}
