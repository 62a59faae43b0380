/* See hostnet.h. */
#include "hostnet/hostnet.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "hostnet/link.h"
#include "hostnet/tool.h"

/* Sets a kernel parameter; that it isn't there (no IPv6) is no failure. */
static int sysctl_set(const char *value, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int sysctl_set(const char *value, struct err *err, const char *fmt, ...)
{
    char path[128], old[8] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    autofd int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_errno(err, -errno, "%s", path);
    /* Writing what is there already can have side effects, and may be forbidden where reading is not. */
    if (read(fd, old, sizeof old - 1) > 0 && !strncmp(old, value, strlen(value)) && old[strlen(value)] == '\n')
        return 0;
    lseek(fd, 0, SEEK_SET);
    return write(fd, value, strlen(value)) < 0 ? err_errno(err, -errno, "%s", path) : 0;
}

/* Who made the bridge: stands in the interface's alias. */
static void owner_text(const struct network *n, char *buf, size_t size)
{
    char *p = buf + snprintf(buf, size, "lodge:");
    for (int i = 0; i < 16; i++)
        p += sprintf(p, "%02x", n->uuid[i]);
}

bool hostnet_is_up(const struct network *n)
{
    struct link l;
    char owner[64];
    if (!network_own_bridge(n) || !n->bridge || link_find(n->bridge, &l, NULL) < 0)
        return false;
    owner_text(n, owner, sizeof owner);
    return !strcmp(l.alias, owner);
}

struct wanted {
    const struct network *n;
    const struct link *links;
    int n_links;
    char *who;
};

static int find_overlap(void *opaque, int index, const struct ipaddr *a, unsigned prefix)
{
    struct wanted *w = opaque;
    const char *name = "another interface";
    char text[IPADDR_TEXT_MAX];
    if (prefix == 0)
        return 0;
    for (int i = 0; i < w->n_links; i++)
        if (w->links[i].index == index)
            name = w->links[i].name;
    if (w->n->bridge && !strcmp(name, w->n->bridge))
        return 0;
    for (unsigned i = 0; i < w->n->n_ips; i++) {
        const struct network_ip *ip = &w->n->ips[i];
        if (ip->address.bits != a->bits || !ipaddr_overlap(a, prefix, &ip->address, ip->prefix))
            continue;
        free(w->who);
        w->who = xasprintf("%s/%u of %s", ipaddr_format(a, text), prefix, name);
        return -EADDRINUSE;
    }
    return 0;
}

int hostnet_check_free(const struct network *n, struct err *err)
{
    struct wanted w = {.n = n};
    struct link *links = NULL;
    w.n_links = link_list(&links, err);
    w.links = links;
    int code = w.n_links < 0 ? w.n_links : link_each_addr(find_overlap, &w, err);
    if (!code)
        code = link_each_route(find_overlap, &w, err);
    if (code == -EADDRINUSE)
        err_set(err, code, "network '%s': its subnet is in use already: %s", n->name, w.who);
    free(w.who);
    free(links);
    return code;
}

struct free_search {
    struct ipaddr net;
    bool hit;
};

static int hits(void *opaque, int index, const struct ipaddr *a, unsigned prefix)
{
    struct free_search *s = opaque;
    (void)index;
    if (a->bits == 32 && prefix && ipaddr_overlap(a, prefix, &s->net, 24))
        s->hit = true;
    return s->hit;
}

int hostnet_free_subnet(bool (*taken)(void *opaque, const struct ipaddr *net, unsigned prefix), void *opaque, struct ipaddr *ret)
{
    for (unsigned i = 122; i < 255; i++) {
        struct free_search s = {.net = {.bits = 32, .bytes = {192, 168, (uint8_t)i, 0}}};
        link_each_addr(hits, &s, NULL);
        link_each_route(hits, &s, NULL);
        if (s.hit || taken(opaque, &s.net, 24))
            continue;
        *ret = s.net;
        return 0;
    }
    return -EADDRNOTAVAIL;
}

/* Routers that the host has learned of stay known when it starts to forward. */
static void keep_learned_routers(void)
{
    DIR *d = opendir("/proc/sys/net/ipv6/conf");
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char path[320], now[4] = "";
        snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/accept_ra", e->d_name);
        autofd int fd = e->d_name[0] == '.' ? -1 : open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && read(fd, now, sizeof now - 1) > 0 && now[0] == '1' && pwrite(fd, "2", 1, 0) < 0)
            log_warn("%s: %s", path, strerror(errno));
    }
    if (d)
        closedir(d);
}

static int set_parameters(const struct network *n, struct err *err)
{
    bool v6 = network_ip_of(n, 128), v4 = network_ip_of(n, 32);
    int code = sysctl_set(v6 || n->ipv6 ? "0" : "1", err, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", n->bridge);
    if (!code)
        code = sysctl_set("0", err, "/proc/sys/net/ipv6/conf/%s/accept_ra", n->bridge);
    if (!code && n->n_publishes)
        code = sysctl_set("1", err, "/proc/sys/net/ipv4/conf/%s/route_localnet", n->bridge);
    if (n->forward == NETWORK_ISOLATED)
        return code;
    if (!code && v4)
        code = sysctl_set("1", err, "/proc/sys/net/ipv4/ip_forward");
    if (!code && v6) {
        keep_learned_routers();
        code = sysctl_set("1", err, "/proc/sys/net/ipv6/conf/all/forwarding");
    }
    return code;
}

static int set_addresses(const struct network *n, struct err *err)
{
    int code = 0;
    for (unsigned i = 0; i < n->n_ips && !code; i++)
        code = link_add_addr(n->bridge, &n->ips[i].address, n->ips[i].prefix, err);
    for (unsigned i = 0; i < n->n_routes && !code; i++) {
        const struct network_route *r = &n->routes[i];
        code = link_add_route(n->bridge, &r->address, r->prefix, &r->gateway, r->metric, err);
    }
    return code;
}

static int apply_rules(const struct network *n, struct err *err)
{
    autofree char *text = nft_rules(n, n->bridge);
    return nft_apply(text, err);
}

static int make_bridge(const struct network *n, struct err *err)
{
    char owner[64];
    int code = link_add_bridge(n->bridge, n->has_mac ? n->mac : NULL, n->stp != DOMAIN_OFF, n->delay, err);
    if (code)
        return code;
    owner_text(n, owner, sizeof owner);
    code = link_set_alias(n->bridge, owner, err);
    if (!code && n->mtu)
        code = link_set_mtu(n->bridge, n->mtu, err);
    if (!code)
        code = set_parameters(n, err);
    if (!code)
        code = link_set_up(n->bridge, true, err);
    if (!code)
        code = set_addresses(n, err);
    return code;
}

/* A network on somebody else's bridge or card: that must be there. */
static int check_foreign(const struct network *n, struct err *err)
{
    const char *dev = n->bridge ? n->bridge : n->forward_dev ? n->forward_dev : n->n_forward_ifs ? n->forward_ifs[0] : NULL;
    struct link l;
    if (!dev || link_find(dev, &l, NULL) < 0)
        return err_set(err, -ENODEV, "network '%s': there is no interface %s", n->name, dev ? dev : "(none)");
    if (n->bridge && !n->virtualport && strcmp(l.kind, "bridge"))
        return err_set(err, -EINVAL, "network '%s': %s is not a bridge", n->name, dev);
    return 0;
}

int hostnet_up(const struct network *n, const struct hostnet_dirs *dirs, struct err *err)
{
    struct link l;
    if (!network_own_bridge(n))
        return check_foreign(n, err);
    if (!link_find(n->bridge, &l, NULL))
        return err_set(err, -EEXIST, "network '%s': there is an interface %s already, which is not this network's", n->name, n->bridge);
    int code = hostnet_check_free(n, err);
    if (code)
        return code;
    code = make_bridge(n, err);
    if (code != -EEXIST) { /* else somebody was quicker, and it is theirs */
        if (!code)
            code = apply_rules(n, err);
        if (!code)
            code = dnsmasq_start(n, n->bridge, dirs, err);
        if (code)
            hostnet_down(n, dirs);
    }
    return code;
}

void hostnet_down(const struct network *n, const struct hostnet_dirs *dirs)
{
    struct err err = {0};
    if (!network_own_bridge(n))
        return;
    dnsmasq_stop(n, dirs);
    dnsmasq_remove_files(n, dirs, false);
    autofree char *text = nft_no_rules(n->bridge);
    if (nft_apply(text, &err) < 0 && err.code != -ENOENT)
        log_warn("network '%s': %s", n->name, err.msg);
    err = (struct err){0};
    if (link_delete(n->bridge, &err) < 0)
        log_warn("network '%s': %s", n->name, err.msg);
}

int hostnet_refresh(const struct network *n, const struct hostnet_dirs *dirs, struct err *err)
{
    if (!network_own_bridge(n))
        return check_foreign(n, err);
    int code = set_parameters(n, err);
    if (!code)
        code = link_set_up(n->bridge, true, err);
    if (!code)
        code = set_addresses(n, err);
    if (!code)
        code = apply_rules(n, err);
    return code ? code : dnsmasq_update(n, n->bridge, dirs, err);
}

/* The card below a macvtap: in mode passthrough each guest needs one of its own. */
static const char *pick_lower(const struct network *n)
{
    if (n->forward != NETWORK_PASSTHROUGH)
        return n->n_forward_ifs ? n->forward_ifs[0] : n->forward_dev;
    struct link *links = NULL;
    int count = link_list(&links, NULL);
    const char *found = NULL;
    for (unsigned i = 0; i < n->n_forward_ifs && !found; i++) {
        int index = (int)if_nametoindex(n->forward_ifs[i]);
        bool used = !index;
        for (int k = 0; k < count; k++)
            used |= !strcmp(links[k].kind, "macvtap") && !strncmp(links[k].alias, n->forward_ifs[i], sizeof links[k].alias);
        if (!used)
            found = n->forward_ifs[i];
    }
    free(links);
    return found ? found : n->n_forward_ifs ? NULL : n->forward_dev;
}

static int add_macvtap(const struct network *n, const char *name, const uint8_t *mac, struct err *err)
{
    static const enum link_macvtap modes[] = {
        [NETWORK_BRIDGE] = LINK_MACVTAP_BRIDGE,
        [NETWORK_PRIVATE] = LINK_MACVTAP_PRIVATE,
        [NETWORK_VEPA] = LINK_MACVTAP_VEPA,
        [NETWORK_PASSTHROUGH] = LINK_MACVTAP_PASSTHRU,
    };
    const char *lower = pick_lower(n);
    if (!lower)
        return err_set(err, -EBUSY, "network '%s': all of its devices are in use", n->name);
    int code = link_add_macvtap(name, lower, modes[n->forward], mac, err);
    return code ? code : link_set_alias(name, lower, err);
}

static int join_ovs(const struct network *n, const char *name, struct err *err)
{
    autofree char *tag = n->n_vlan_tags ? xasprintf("tag=%u", n->vlan_tags[0]) : NULL;
    const char *argv[] = {"ovs-vsctl", "--timeout=5", "--", "--if-exists", "del-port", name, "--", "add-port",
                          n->bridge,   name,          tag,  NULL};
    return tool_run(argv, "openvswitch-switch", NULL, err);
}

int hostnet_port_add(const struct network *n, const char *name, const uint8_t *mac, bool multiqueue, struct err *err)
{
    if (network_macvtap(n)) {
        int code = add_macvtap(n, name, mac, err);
        if (!code)
            code = link_set_up(name, true, err);
        if (code && code != -EEXIST)
            link_delete(name, NULL);
        return code;
    }
    struct link bridge;
    if (link_find(n->bridge, &bridge, NULL) < 0)
        return err_set(err, -ENODEV, "network '%s': its bridge %s is gone", n->name, n->bridge);
    int code = link_add_tap(name, multiqueue, err);
    if (code)
        return code;
    /* The tap's own address must not be the guest's, and must not be the lowest, which a bridge without one takes. */
    uint8_t own[6];
    memcpy(own, mac, 6);
    own[0] = 0xfe;
    code = link_set_mac(name, own, err);
    if (!code && bridge.mtu != 1500)
        code = link_set_mtu(name, n->mtu ? n->mtu : bridge.mtu, err);
    if (!code)
        code = n->virtualport ? join_ovs(n, name, err) : link_set_master(name, n->bridge, err);
    if (!code && n->isolated == DOMAIN_ON)
        code = link_set_isolated(name, true, err);
    if (!code)
        code = sysctl_set("1", err, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    if (!code)
        code = link_set_up(name, true, err);
    if (code)
        link_delete(name, NULL);
    return code;
}

void hostnet_port_remove(const struct network *n, const char *name)
{
    if (n && n->virtualport) {
        const char *const argv[] = {"ovs-vsctl", "--timeout=5", "--", "--if-exists", "del-port", n->bridge, name, NULL};
        tool_run(argv, "openvswitch-switch", NULL, NULL);
    }
    link_delete(name, NULL);
}

int hostnet_ports_filter(const struct network *n, const struct hostnet_dirs *dirs, const struct nft_port *ports, unsigned n_ports,
                         struct err *err)
{
    if (!network_own_bridge(n))
        return 0;
    struct dnsmasq_lease *leases = NULL;
    unsigned count = dnsmasq_leases(n, dirs, &leases), known = 0;
    autofree struct nft_lease *pairs = calloc(count + 1, sizeof *pairs);
    for (unsigned i = 0; pairs && i < count; i++) {
        if (!leases[i].has_mac)
            continue;
        pairs[known].ip = leases[i].ip;
        memcpy(pairs[known++].mac, leases[i].mac, 6);
    }
    free(leases);
    autofree char *text = nft_port_rules(n, n->bridge, ports, n_ports, pairs, known);
    return nft_apply(text, err);
}
