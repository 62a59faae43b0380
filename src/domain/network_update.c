/* Changing one part of a network: net-update. A copy is changed and checked, then it takes the network's place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/network_read.h"

/* A change of an array: what it holds, how to tell that two members mean the same, and how to free one. */
struct list {
    void **items;
    unsigned *n;
    size_t size;
    bool (*same)(const void *a, const void *b);
    void (*drop)(void *item);
    const char *what;
};

/* Takes `item` over when it returns 0. Deleting and changing leave the old contents to drop(). */
static int change(const struct list *l, unsigned command, void *item, struct err *err)
{
    unsigned at = 0;
    while (at < *l->n && !l->same((char *)*l->items + at * l->size, item))
        at++;
    bool found = at < *l->n;
    char *p;
    switch (command) {
    case NETWORK_ADD_LAST:
    case NETWORK_ADD_FIRST:
        if (found)
            return err_set(err, -EEXIST, "there is an existing %s that matches", l->what);
        domain_grow(l->items, l->n, l->size);
        p = *l->items;
        at = command == NETWORK_ADD_FIRST ? 0 : *l->n - 1;
        memmove(p + (at + 1) * l->size, p + at * l->size, (*l->n - 1 - at) * l->size);
        memcpy(p + at * l->size, item, l->size);
        return 0;
    case NETWORK_MODIFY:
    case NETWORK_DELETE:
        if (!found)
            return err_set(err, -ENOENT, "couldn't locate a matching %s", l->what);
        p = (char *)*l->items + at * l->size;
        l->drop(p);
        if (command == NETWORK_MODIFY) {
            memcpy(p, item, l->size);
            return 0;
        }
        l->drop(item);
        memmove(p, p + l->size, (*l->n - 1 - at) * l->size);
        (*l->n)--;
        return 0;
    default:
        return err_set(err, -EINVAL, "unknown update command %u", command);
    }
}

static bool host_same(const void *a, const void *b)
{
    const struct network_host *x = a, *y = b;
    if (x->has_mac && y->has_mac)
        return !memcmp(x->mac, y->mac, 6);
    if (x->id && y->id)
        return !strcmp(x->id, y->id);
    if (x->name && y->name && !x->has_mac && !y->has_mac)
        return !strcmp(x->name, y->name);
    return x->ip.bits && !ipaddr_compare(&x->ip, &y->ip);
}
static void host_drop(void *p)
{
    struct network_host *h = p;
    free(h->id);
    free(h->name);
}
static bool range_same(const void *a, const void *b)
{
    const struct network_range *x = a, *y = b;
    return !ipaddr_compare(&x->start, &y->start) && !ipaddr_compare(&x->end, &y->end);
}
static void nothing_drop(void *p)
{
    (void)p;
}
static bool dns_host_same(const void *a, const void *b)
{
    const struct network_dns_host *x = a, *y = b;
    return y->ip.bits ? !ipaddr_compare(&x->ip, &y->ip)
                      : x->n_names && y->n_names && !strcmp(x->names[0], y->names[0]);
}
static void dns_host_drop(void *p)
{
    struct network_dns_host *h = p;
    for (unsigned i = 0; i < h->n_names; i++)
        free(h->names[i]);
    free(h->names);
}
static bool txt_same(const void *a, const void *b)
{
    const struct network_txt *x = a, *y = b;
    return x->name && y->name && !strcmp(x->name, y->name);
}
static void txt_drop(void *p)
{
    struct network_txt *t = p;
    free(t->name);
    free(t->value);
}
static bool str_same(const char *a, const char *b)
{
    return !a || !b || !strcmp(a, b);
}
static bool srv_same(const void *a, const void *b)
{
    const struct network_srv *x = a, *y = b;
    return str_same(x->service, y->service) && str_same(x->protocol, y->protocol) && str_same(x->domain, y->domain) &&
           str_same(x->target, y->target);
}
static void srv_drop(void *p)
{
    struct network_srv *s = p;
    free(s->service);
    free(s->protocol);
    free(s->domain);
    free(s->target);
}
static bool name_same(const void *a, const void *b)
{
    return !strcmp(*(char *const *)a, *(char *const *)b);
}
static void name_drop(void *p)
{
    free(*(char **)p);
}

/* Which <ip> a DHCP part belongs to: the one asked for, the one its address is in, or the only one with DHCP. */
static struct network_ip *pick_ip(struct network *n, int index, const struct ipaddr *a, struct err *err)
{
    struct network_ip *only = NULL;
    if (index >= 0) {
        if ((unsigned)index < n->n_ips)
            return &n->ips[index];
        err_set(err, -EINVAL, "couldn't update dhcp host entry - no <ip> element found at index %d in network '%s'", index, n->name);
        return NULL;
    }
    for (unsigned i = 0; i < n->n_ips; i++) {
        if (a->bits && ipaddr_in(a, &n->ips[i].address, n->ips[i].prefix))
            return &n->ips[i];
        if (n->ips[i].has_dhcp && !only)
            only = &n->ips[i];
    }
    if (!only && n->n_ips)
        only = &n->ips[0];
    if (!only)
        err_set(err, -EINVAL, "network '%s' has no <ip> to update", n->name);
    return only;
}

#define LIST(owner, array, same_fn, drop_fn, words)                                                                        \
    (struct list){(void **)&(owner)->array, &(owner)->n_##array, sizeof *(owner)->array, same_fn, drop_fn, words}

static int expect(const struct xml_node *root, const char *name, struct err *err)
{
    if (!strcmp(root->name, name))
        return 0;
    return err_set(err, -EINVAL, "unexpected element <%.40s>, expecting <%s>", root->name, name);
}

static int update_dhcp(struct network *n, unsigned command, unsigned section, int index, struct xml_node *root, struct reader *r)
{
    if (section == NETWORK_SECTION_IP_DHCP_HOST) {
        struct network_host h = {0};
        int code = expect(root, "host", r->err);
        if (!code) {
            network_read_dhcp_host(r, root, &h);
            code = r->code;
        }
        struct network_ip *ip = code ? NULL : pick_ip(n, index, &h.ip, r->err);
        if (ip) {
            ip->has_dhcp = true;
            code = change(&LIST(ip, hosts, host_same, host_drop, "dhcp host entry"), command, &h, r->err);
        }
        if (!ip || code)
            host_drop(&h);
        return ip ? code : code ? code : r->err->code;
    }
    struct network_range g = {0};
    int code = expect(root, "range", r->err);
    if (!code) {
        network_read_dhcp_range(r, root, &g);
        code = r->code;
    }
    if (!code && command == NETWORK_MODIFY)
        code = err_set(r->err, -EINVAL, "dhcp ranges cannot be modified, only added or deleted");
    struct network_ip *ip = code ? NULL : pick_ip(n, index, &g.start, r->err);
    if (!ip)
        return code ? code : r->err->code;
    ip->has_dhcp = true;
    return change(&LIST(ip, ranges, range_same, nothing_drop, "dhcp range"), command, &g, r->err);
}

static int update_dns(struct network *n, unsigned command, unsigned section, struct xml_node *root, struct reader *r)
{
    union {
        struct network_dns_host host;
        struct network_txt txt;
        struct network_srv srv;
    } u = {0};
    struct list l;
    const char *element;
    switch (section) {
    case NETWORK_SECTION_DNS_HOST:
        l = LIST(n, dns_hosts, dns_host_same, dns_host_drop, "DNS HOST record");
        element = "host";
        break;
    case NETWORK_SECTION_DNS_TXT:
        l = LIST(n, txts, txt_same, txt_drop, "DNS TXT record");
        element = "txt";
        break;
    default:
        l = LIST(n, srvs, srv_same, srv_drop, "DNS SRV record");
        element = "srv";
        break;
    }
    int code = expect(root, element, r->err);
    if (code)
        return code;
    if (section == NETWORK_SECTION_DNS_HOST)
        network_read_dns_host(r, root, &u.host);
    else if (section == NETWORK_SECTION_DNS_TXT)
        network_read_txt(root, &u.txt);
    else
        network_read_srv(r, root, &u.srv);
    code = r->code;
    if (!code && command == NETWORK_MODIFY)
        code = err_set(r->err, -EINVAL, "DNS records cannot be modified, only added or deleted");
    if (!code) {
        n->has_dns = true;
        code = change(&l, command, &u, r->err);
    }
    if (code)
        l.drop(&u);
    return code;
}

static int update_interface(struct network *n, unsigned command, struct xml_node *root, struct reader *r)
{
    int code = expect(root, "interface", r->err);
    const char *dev = reader_attr(root, "dev");
    if (!code && !dev)
        code = err_set(r->err, -EINVAL, "<interface>: dev is needed");
    if (code)
        return code;
    char *copy = xstrdup(dev);
    code = change(&LIST(n, forward_ifs, name_same, name_drop, "interface dev"), command, &copy, r->err);
    if (code)
        free(copy);
    return code;
}

int network_update(struct network *n, unsigned command, unsigned section, int index, const char *xml, struct err *err)
{
    struct err local = {0};
    if (!err)
        err = &local;
    struct xml_node *root;
    struct network *copy = NULL;
    autofree char *text = network_format(n, 0);
    int code = network_parse(text, strlen(text), "network", &copy, err);
    if (code)
        return code;
    network_defaults(copy);
    code = xml_parse(xml, strlen(xml), "update", &root, err);
    if (code) {
        network_free(copy);
        return code;
    }
    struct reader r = {.name = "update", .err = err};
    switch (section) {
    case NETWORK_SECTION_IP_DHCP_HOST:
    case NETWORK_SECTION_IP_DHCP_RANGE:
        code = update_dhcp(copy, command, section, index, root, &r);
        break;
    case NETWORK_SECTION_DNS_HOST:
    case NETWORK_SECTION_DNS_TXT:
    case NETWORK_SECTION_DNS_SRV:
        code = update_dns(copy, command, section, root, &r);
        break;
    case NETWORK_SECTION_FORWARD_INTERFACE:
        code = update_interface(copy, command, root, &r);
        break;
    default:
        code = err_set(err, -EOPNOTSUPP, "can't update this section of network '%s'", n->name);
    }
    xml_free(root);
    if (!code)
        code = network_check(copy, "network", err);
    if (code) {
        network_free(copy);
        return code;
    }
    struct network old = *n;
    *n = *copy;
    *copy = old;
    network_free(copy);
    return 0;
}
