/* The table of networks, their definitions on disk, and their life. See net.h. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/net.h"
#include "hostnet/link.h"

struct nets {
    struct net *by_name;
    char *dir;     /* of definitions */
    char *run_dir; /* of what is in effect */
    char *state_dir;
    struct hostnet_dirs dirs;
    int inotify; /* on the leases' files */
    struct loop_fd *watch;
    struct timer settle; /* leases have changed; they come several at a time */
};

const struct hostnet_dirs *net_dirs(const struct daemon *d)
{
    return &((const struct nets *)d->networks)->dirs;
}

static struct nets *table(const struct daemon *d)
{
    return d->networks;
}

struct net *net_first(const struct daemon *d)
{
    return table(d)->by_name;
}

struct net *net_find_name(const struct daemon *d, const char *name)
{
    struct net *n;
    HASH_FIND(by_name, table(d)->by_name, name, strlen(name), n);
    return n;
}

struct net *net_find_uuid(const struct daemon *d, const uint8_t *uuid)
{
    struct net *n, *next;
    HASH_ITER(by_name, table(d)->by_name, n, next)
    if (!memcmp(n->now->uuid, uuid, 16))
        return n;
    return NULL;
}

static struct net *add(struct daemon *d, struct network *def)
{
    struct net *n = xcalloc(1, sizeof *n);
    n->daemon = d;
    n->now = def;
    HASH_ADD_KEYPTR(by_name, table(d)->by_name, n->now->name, strlen(n->now->name), n);
    return n;
}

static void drop(struct net *n)
{
    HASH_DELETE(by_name, table(n->daemon)->by_name, n);
    network_free(n->now);
    network_free(n->next);
    free(n);
}

/* Another description comes into effect; the name is the same. The old one is not freed. */
static void set_now(struct net *n, struct network *def)
{
    HASH_DELETE(by_name, table(n->daemon)->by_name, n);
    n->now = def;
    HASH_ADD_KEYPTR(by_name, table(n->daemon)->by_name, n->now->name, strlen(n->now->name), n);
}

static void replace_now(struct net *n, struct network *def)
{
    struct network *old = n->now;
    set_now(n, def);
    network_free(old);
}

static void net_event(struct net *n, int event)
{
    rp_ev_network m = {.net = {.name = n->now->name}, .event = event};
    memcpy(m.net.uuid.bytes, n->now->uuid, 16);
    daemon_event(n->daemon, EVENTS_NETWORK, 0, RPC_REMOTE_PROGRAM, RPC_PROC_NETWORK_EVENT_LIFECYCLE, &m, n->now->uuid);
}

static char *path_in(const char *dir, const struct network *def)
{
    return xasprintf("%s/%s.xml", dir, def->name);
}

static char *autostart_path(const struct net *n)
{
    return xasprintf("%s/autostart/%s.xml", table(n->daemon)->dir, n->now->name);
}

static int save_at(const char *dir, const struct network *def, bool durable, struct rpc_error *e)
{
    autofree char *path = path_in(dir, def), *text = network_format(def, 0);
    int r = store_write_file(path, text, strlen(text), durable);
    return r < 0 ? verr_errno(e, r, "cannot save network '%s' to '%s'", def->name, path) : 0;
}

/* What is in effect, for the next daemon. */
static int save_now(const struct net *n, struct rpc_error *e)
{
    return save_at(table(n->daemon)->run_dir, n->now, false, e);
}

static bool bridge_taken(struct daemon *d, const char *bridge, const struct net *but)
{
    struct net *n, *next;
    HASH_ITER(by_name, table(d)->by_name, n, next)
    {
        if (n == but)
            continue;
        if ((network_own_bridge(n->now) && n->now->bridge && !strcmp(n->now->bridge, bridge)) ||
            (n->next && network_own_bridge(n->next) && n->next->bridge && !strcmp(n->next->bridge, bridge)))
            return true;
    }
    return false;
}

/* What depends on the other networks: UUID, the bridge's name and MAC address. */
static int complete(struct daemon *d, struct network *def, const struct net *old, struct rpc_error *e)
{
    if (!def->has_uuid) {
        if (old)
            memcpy(def->uuid, old->now->uuid, 16);
        else if (getrandom(def->uuid, 16, 0) != 16)
            return verr_errno(e, errno, "no random numbers");
        if (!old) {
            def->uuid[6] = (def->uuid[6] & 0x0f) | 0x40;
            def->uuid[8] = (def->uuid[8] & 0x3f) | 0x80;
        }
        def->has_uuid = true;
    }
    if (!network_own_bridge(def))
        return 0;
    if (def->bridge && !strchr(def->bridge, '%')) {
        if (bridge_taken(d, def->bridge, old))
            return verr_set(e, VIR_INTERNAL_ERROR, "bridge name '%s' already in use.", def->bridge);
    } else {
        const char *kept = old && network_own_bridge(old->now) ? old->now->bridge : NULL;
        struct link l;
        domain_set(&def->bridge, kept);
        for (unsigned i = 0; !def->bridge && i < 10000; i++) {
            char name[IF_NAMESIZE];
            snprintf(name, sizeof name, "virbr%u", i);
            if (!bridge_taken(d, name, old) && link_find(name, &l, NULL) < 0)
                domain_set(&def->bridge, name);
        }
    }
    if (!def->has_mac) {
        if (getrandom(def->mac, 6, 0) != 6)
            return verr_errno(e, errno, "no random numbers");
        memcpy(def->mac, (const uint8_t[]){0x52, 0x54, 0x00}, 3);
        def->has_mac = true;
    }
    return 0;
}

static struct network *parse(const char *xml, struct rpc_error *e)
{
    struct network *def = NULL;
    struct err err = {0};
    if (network_parse(xml, strlen(xml), "network", &def, &err) < 0) {
        verr_take(e, VIR_XML_ERROR, &err);
        return NULL;
    }
    network_defaults(def);
    if (network_check(def, "network", &err) < 0) {
        verr_take(e, err.code == -EOPNOTSUPP ? VIR_CONFIG_UNSUPPORTED : VIR_XML_ERROR, &err);
        network_free(def);
        return NULL;
    }
    return def;
}

/* The network that a new document is about (NULL: none yet); -1: its name or UUID is another's. */
static int same(struct daemon *d, const struct network *def, struct net **ret, struct rpc_error *e)
{
    char uuid[37];
    struct net *n = def->has_uuid ? net_find_uuid(d, def->uuid) : NULL, *o = net_find_name(d, def->name);
    if (n && n != o) {
        uuid_format(n->now->uuid, uuid);
        return verr_set(e, VIR_OPERATION_FAILED, "network '%s' is already defined with uuid %s", n->now->name, uuid);
    }
    if (o && !n && def->has_uuid) {
        uuid_format(o->now->uuid, uuid);
        return verr_set(e, VIR_OPERATION_FAILED, "network '%s' already exists with uuid %s", o->now->name, uuid);
    }
    *ret = o;
    return 0;
}

struct net *net_define(struct daemon *d, const char *xml, struct rpc_error *e)
{
    struct network *def = parse(xml, e);
    struct net *n = NULL;
    if (!def)
        return NULL;
    if (same(d, def, &n, e) < 0 || complete(d, def, n, e) < 0 || save_at(table(d)->dir, def, true, e) < 0) {
        network_free(def);
        return NULL;
    }
    if (!n)
        n = add(d, def);
    else if (!n->active)
        replace_now(n, def);
    else {
        network_free(n->next);
        n->next = def;
    }
    n->persistent = true;
    net_event(n, NET_EVENT_DEFINED);
    return n;
}

struct net *net_create_transient(struct daemon *d, const char *xml, struct rpc_error *e)
{
    struct network *def = parse(xml, e);
    struct net *n = NULL;
    if (!def)
        return NULL;
    if (same(d, def, &n, e) < 0 ||
        (n && n->active && verr_set(e, VIR_OPERATION_INVALID, "network is already active as '%s'", n->now->name) < 0) ||
        complete(d, def, n, e) < 0) {
        network_free(def);
        return NULL;
    }
    if (n) { /* defined: this is what it is until it is stopped */
        network_free(n->next);
        n->next = n->now;
        set_now(n, def);
    } else
        n = add(d, def);
    if (net_start(n, e) == 0)
        return n;
    if (n->persistent) {
        struct network *back = n->next;
        n->next = NULL;
        replace_now(n, back);
    } else
        drop(n);
    return NULL;
}

int net_undefine(struct net *n, struct rpc_error *e)
{
    struct daemon *d = n->daemon;
    if (!n->persistent)
        return verr_set(e, VIR_OPERATION_INVALID, "can't undefine transient network");
    autofree char *path = path_in(table(d)->dir, n->now), *link = autostart_path(n);
    if (unlink(path) < 0 && errno != ENOENT)
        return verr_errno(e, errno, "cannot remove config file '%s'", path);
    unlink(link);
    n->persistent = n->autostart = false;
    net_event(n, NET_EVENT_UNDEFINED);
    network_free(n->next);
    n->next = NULL;
    if (n->active)
        return 0;
    dnsmasq_remove_files(n->now, net_dirs(d), true);
    drop(n);
    return 0;
}

int net_start(struct net *n, struct rpc_error *e)
{
    struct daemon *d = n->daemon;
    struct err err = {0};
    struct net *o, *next;
    if (n->active)
        return verr_set(e, VIR_OPERATION_INVALID, "network is already active");
    HASH_ITER(by_name, table(d)->by_name, o, next)
    {
        for (unsigned i = 0; o != n && o->active && i < n->now->n_ips; i++)
            for (unsigned k = 0; k < o->now->n_ips; k++)
                if (ipaddr_overlap(&n->now->ips[i].address, n->now->ips[i].prefix, &o->now->ips[k].address, o->now->ips[k].prefix))
                    return verr_set(e, VIR_INTERNAL_ERROR, "network '%s': its addresses overlap those of network '%s'", n->now->name,
                                    o->now->name);
    }
    if (save_now(n, e) < 0)
        return -1;
    if (hostnet_up(n->now, net_dirs(d), &err) < 0) {
        autofree char *run = path_in(table(d)->run_dir, n->now);
        unlink(run);
        return verr_take(e, err.code == -EINVAL ? VIR_XML_ERROR : VIR_INTERNAL_ERROR, &err);
    }
    n->active = true;
    net_event(n, NET_EVENT_STARTED);
    return 0;
}

/* It is down: a changed definition takes effect; a transient network is gone. */
static void stopped(struct net *n)
{
    autofree char *run = path_in(table(n->daemon)->run_dir, n->now);
    unlink(run);
    n->active = false;
    net_event(n, NET_EVENT_STOPPED);
    if (!n->persistent)
        drop(n);
    else if (n->next) {
        struct network *def = n->next;
        n->next = NULL;
        replace_now(n, def);
    }
}

int net_stop(struct net *n, struct rpc_error *e)
{
    if (!n->active)
        return verr_set(e, VIR_OPERATION_INVALID, "network '%s' is not active", n->now->name);
    hostnet_down(n->now, net_dirs(n->daemon));
    stopped(n);
    return 0;
}

int net_set_autostart(struct net *n, bool on, struct rpc_error *e)
{
    if (!n->persistent)
        return verr_set(e, VIR_OPERATION_INVALID, "cannot set autostart for transient network");
    autofree char *link = autostart_path(n), *dir = xasprintf("%s/autostart", table(n->daemon)->dir);
    autofree char *target = xasprintf("../%s.xml", n->now->name);
    mkdir(dir, 0700);
    if (on && symlink(target, link) < 0 && errno != EEXIST)
        return verr_errno(e, errno, "Failed to create symlink '%s'", link);
    if (!on && unlink(link) < 0 && errno != ENOENT)
        return verr_errno(e, errno, "cannot remove '%s'", link);
    n->autostart = on;
    return 0;
}

char *net_xml(const struct net *n, bool inactive)
{
    const struct network *def = inactive && n->next ? n->next : n->now;
    return network_format(def, inactive || !n->active ? 0 : net_connections(n));
}

/* A description of its own. */
static struct network *copy(const struct network *def)
{
    autofree char *text = network_format(def, 0);
    struct rpc_error ignored = {0};
    return parse(text, &ignored);
}

int net_update(struct net *n, unsigned command, unsigned section, int index, const char *xml, bool live, bool config,
               struct rpc_error *e)
{
    struct err err = {0};
    struct daemon *d = n->daemon;
    struct network *def = config ? copy(n->next ? n->next : n->now) : NULL, *now = live ? copy(n->now) : NULL;
    int r = (config && !def) || (live && !now) ? verr_set(e, VIR_INTERNAL_ERROR, "network '%s' cannot be copied", n->now->name) : 0;
    for (int i = 0; i < 2 && !r; i++) {
        struct network *which = i ? now : def;
        if (which && network_update(which, command, section, index, xml, &err) < 0)
            r = verr_take(e, err.code == -EOPNOTSUPP ? VIR_OPERATION_UNSUPPORTED : err.code == -EINVAL ? VIR_XML_ERROR : VIR_OPERATION_INVALID, &err);
    }
    if (!r && live && hostnet_refresh(now, net_dirs(d), &err) < 0) {
        hostnet_refresh(n->now, net_dirs(d), NULL);
        r = verr_take(e, VIR_INTERNAL_ERROR, &err);
    }
    if (!r && config)
        r = save_at(table(d)->dir, def, true, e);
    if (r < 0) {
        network_free(def);
        network_free(now);
        return r;
    }
    if (live && config) { /* both have changed, each from what it was */
        network_free(n->next);
        n->next = def;
    } else if (config && n->active) {
        network_free(n->next);
        n->next = def;
    } else if (config)
        replace_now(n, def);
    if (!live)
        return 0;
    if (!config && n->persistent && !n->next)
        n->next = copy(n->now);
    replace_now(n, now);
    return save_now(n, e);
}

/* ---- at start ---- */

static void each_file(const char *path, void (*fn)(struct daemon *d, const char *path, struct network *def), struct daemon *d)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);
        if (len <= 4 || strcmp(entry->d_name + len - 4, ".xml"))
            continue;
        autofree char *file = xasprintf("%s/%s", path, entry->d_name), *text = store_read_file(file, NULL);
        struct rpc_error e = {0};
        struct network *def = text ? parse(text, &e) : NULL;
        if (def && strncmp(def->name, entry->d_name, len - 4) == 0 && strlen(def->name) == len - 4)
            fn(d, file, def);
        else {
            log_error("%s: network not loaded: %s", file, e.code ? e.message : "cannot be read, or has another name");
            network_free(def);
        }
    }
    if (dir)
        closedir(dir);
}

static void load_definition(struct daemon *d, const char *path, struct network *def)
{
    struct rpc_error e = {0};
    struct net *old = NULL;
    if (same(d, def, &old, &e) < 0 || old || complete(d, def, NULL, &e) < 0) {
        log_error("%s: network not loaded: %s", path, e.code ? e.message : "it is there twice");
        network_free(def);
        return;
    }
    struct net *n = add(d, def);
    n->persistent = true;
    autofree char *link = autostart_path(n);
    n->autostart = access(link, F_OK) == 0;
}

/* What an earlier daemon had made is taken over as it is. */
static void load_running(struct daemon *d, const char *path, struct network *def)
{
    struct net *n = net_find_name(d, def->name);
    struct err err = {0};
    bool up = network_own_bridge(def) ? hostnet_is_up(def) : true;
    if (!up || (n && memcmp(n->now->uuid, def->uuid, 16))) {
        unlink(path); /* of before a reboot, or taken away by somebody else */
        network_free(def);
        return;
    }
    if (!n)
        n = add(d, def);
    else {
        n->next = n->now;
        set_now(n, def);
        autofree char *a = network_format(n->now, 0), *b = network_format(n->next, 0);
        if (!strcmp(a, b)) {
            network_free(n->next);
            n->next = NULL;
        }
    }
    n->active = true;
    if (hostnet_refresh(n->now, net_dirs(d), &err) < 0)
        log_error("network '%s': %s", n->now->name, err.msg);
}

/* Leases have changed: the addresses that guests may use have. */
static void on_settled(void *opaque)
{
    struct daemon *d = opaque;
    struct net *n, *next;
    HASH_ITER(by_name, table(d)->by_name, n, next)
    {
        struct rpc_error e = {0};
        if (n->active && net_connections(n) && net_filter(n, &e) < 0)
            log_error("network '%s': %s", n->now->name, e.message);
    }
}

static void on_leases(void *opaque, uint32_t events)
{
    struct daemon *d = opaque;
    struct nets *t = table(d);
    char buf[4096] __attribute__((aligned(8)));
    bool leases = false;
    for (ssize_t n; (n = read(t->inotify, buf, sizeof buf)) > 0;)
        for (char *p = buf; p < buf + n; p += sizeof(struct inotify_event) + ((struct inotify_event *)p)->len) {
            const struct inotify_event *ev = (const void *)p;
            size_t len = ev->len ? strlen(ev->name) : 0;
            leases |= len > 7 && !strcmp(ev->name + len - 7, ".leases");
        }
    if (leases && !timer_armed(&t->settle))
        timer_arm(&t->settle, clock_now(&d->clock) + 50 * 1000000ull);
}

static bool subnet_taken(void *opaque, const struct ipaddr *net, unsigned prefix)
{
    struct daemon *d = opaque;
    struct net *n, *next;
    HASH_ITER(by_name, table(d)->by_name, n, next)
    for (unsigned i = 0; i < n->now->n_ips; i++)
        if (ipaddr_overlap(net, prefix, &n->now->ips[i].address, n->now->ips[i].prefix))
            return true;
    return false;
}

/* A machine that never had networks gets the one that everybody expects. */
static void define_default(struct daemon *d)
{
    struct ipaddr a;
    struct rpc_error e = {0};
    if (hostnet_free_subnet(subnet_taken, d, &a) < 0)
        return;
    unsigned third = a.bytes[2];
    autofree char *xml = xasprintf("<network><name>default</name><forward mode='nat'/><ip address='192.168.%u.1' netmask='255.255.255.0'>"
                                   "<dhcp><range start='192.168.%u.2' end='192.168.%u.254'/></dhcp></ip></network>",
                                   third, third, third);
    if (!net_define(d, xml, &e))
        log_error("network 'default': %s", e.message);
}

int nets_start(struct daemon *d, struct err *err)
{
    struct nets *t = xcalloc(1, sizeof *t);
    d->networks = t;
    t->dir = xasprintf("%s/networks", d->config.config_dir);
    t->run_dir = xasprintf("%s/network", d->config.run_dir);
    t->state_dir = xasprintf("%s/dnsmasq", d->config.state_dir);
    t->dirs = (struct hostnet_dirs){t->state_dir, t->run_dir};
    timer_init(&t->settle, d->loop, &d->clock, on_settled, d);
    t->inotify = -1;
    bool first = access(t->dir, F_OK) < 0;
    const struct {
        const char *path;
        mode_t mode; /* dnsmasq, under another user, reads its files anew */
    } dirs[] = {{t->dir, 0700}, {t->run_dir, 0755}, {t->state_dir, 0755}};
    for (unsigned i = 0; i < 3; i++)
        if (mkdir(dirs[i].path, dirs[i].mode) < 0 && errno != EEXIST)
            return err_errno(err, -errno, "%s", dirs[i].path);
    each_file(t->dir, load_definition, d);
    each_file(t->run_dir, load_running, d);
    if (first && !d->config.session)
        define_default(d);
    t->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (t->inotify < 0 || inotify_add_watch(t->inotify, t->state_dir, IN_MODIFY | IN_CLOSE_WRITE) < 0)
        return err_errno(err, -errno, "watching %s", t->state_dir);
    t->watch = loop_add_fd(d->loop, t->inotify, EPOLLIN, on_leases, d);
    return 0;
}

void nets_adopt(struct daemon *d)
{
    net_guests_sweep(d);
    on_settled(d);
}

void nets_autostart(struct daemon *d)
{
    struct net *n, *next;
    HASH_ITER(by_name, table(d)->by_name, n, next)
    {
        struct rpc_error e = {0};
        if (n->autostart && !n->active && net_start(n, &e) < 0)
            log_error("autostart of network '%s': %s", n->now->name, e.message);
    }
}

void nets_stop(struct daemon *d)
{
    struct nets *t = table(d);
    struct net *n, *next;
    if (!t)
        return;
    HASH_ITER(by_name, t->by_name, n, next)
    drop(n);
    loop_del_fd(t->watch);
    fd_closep(&t->inotify);
    timer_cancel(&t->settle);
    free(t->dir);
    free(t->run_dir);
    free(t->state_dir);
    free(t);
    d->networks = NULL;
}
