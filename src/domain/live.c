/* What a running guest's document has and its definition has not: an id, a name for each device (<alias>), the pseudo
 * terminals behind its ports. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/domain.h"
#include "domain/xml.h"

/* The <alias> that was kept of a device, or NULL. */
static struct domain_unknown_item *alias_of(struct domain_unknown *u)
{
    for (unsigned i = 0; i < u->n_items; i++)
        if (u->items[i].node && !*u->items[i].path && !strcmp(u->items[i].node->name, "alias"))
            return &u->items[i];
    return NULL;
}

static void name_device(struct domain_unknown *u, const char *prefix, unsigned index)
{
    if (alias_of(u))
        return;
    struct domain_unknown_item *it = DOMAIN_ADD(u, items);
    it->path = xstrdup("");
    it->node = xml_node_new(NULL, "alias", NULL);
    xml_attr_setf(it->node, "name", "%s%u", prefix, index);
}

/* vda: 0, sdb: 1, vdaa: 26. */
static unsigned disk_index(const char *target)
{
    unsigned n = 0;
    for (const char *p = strlen(target) > 2 ? target + 2 : "a"; *p >= 'a' && *p <= 'z'; p++)
        n = n * 26 + (*p - 'a' + 1);
    return n ? n - 1 : 0;
}

static const struct {
    const char *element, *prefix;
} kinds[] = {
    {"controller", NULL},  {"graphics", NULL},     {"input", "input"},         {"video", "video"},
    {"sound", "sound"},    {"channel", "channel"}, {"hostdev", "hostdev"},     {"watchdog", "watchdog"},
    {"redirdev", "redir"}, {"tpm", "tpm"},         {"smartcard", "smartcard"}, {"parallel", "parallel"},
    {"vsock", "vsock"},    {"shmem", "shmem"},     {"memory", "dimm"},         {"hub", "hub"},
    {"iommu", NULL},       {"audio", NULL},
};

/* Devices that are kept as XML only. */
static void name_others(struct domain *d)
{
    unsigned seen[ARRAY_SIZE(kinds)] = {0};
    for (unsigned i = 0; i < d->unknown.n_items; i++) {
        struct xml_node *n = d->unknown.items[i].node;
        if (!n || strcmp(d->unknown.items[i].path, "devices"))
            continue;
        for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
            if (strcmp(kinds[k].element, n->name))
                continue;
            unsigned index = seen[k]++;
            const char *type = xml_attr_get(n, "type"), *at = xml_attr_get(n, "index");
            if (xml_child(n, "alias"))
                continue;
            if (kinds[k].prefix)
                xml_attr_setf(xml_node_new(n, "alias", NULL), "name", "%s%u", kinds[k].prefix, index);
            else if (!strcmp(n->name, "controller") && type && !strcmp(type, "pci"))
                xml_attr_setf(xml_node_new(n, "alias", NULL), "name", at && !strcmp(at, "0") ? "pcie.0" : "pci.%s",
                              at ? at : "0");
            else if (!strcmp(n->name, "controller") && type)
                xml_attr_setf(xml_node_new(n, "alias", NULL), "name", "%s%s", type, at ? at : "0");
        }
    }
}

void domain_live(struct domain *d, int id)
{
    d->id = id;
    for (unsigned i = 0; i < d->n_disks; i++) {
        struct domain_disk *k = &d->disks[i];
        autofree char *prefix = xasprintf(k->bus == DOMAIN_BUS_VIRTIO ? "%s-disk" : "%s0-0-", domain_bus_name(k->bus));
        name_device(&k->unknown, prefix, disk_index(k->target));
    }
    for (unsigned i = 0; i < d->n_interfaces; i++)
        name_device(&d->interfaces[i].unknown, "net", i);
    for (unsigned i = 0; i < d->n_serials; i++)
        name_device(&d->serials[i].unknown, "serial", i);
    for (unsigned i = 0; i < d->n_consoles; i++)
        name_device(&d->consoles[i].unknown, d->consoles[i].target == DOMAIN_CONSOLE_SERIAL ? "serial" : "console", i);
    for (unsigned i = 0; i < d->n_channels; i++)
        name_device(&d->channels[i].unknown, "channel", i);
    for (unsigned i = 0; i < d->n_inputs; i++)
        name_device(&d->inputs[i].unknown, "input", i);
    for (unsigned i = 0; i < d->n_videos; i++)
        name_device(&d->videos[i].unknown, "video", i);
    for (unsigned i = 0; i < d->n_rngs; i++)
        name_device(&d->rngs[i].unknown, "rng", i);
    for (unsigned i = 0; i < d->n_filesystems; i++)
        name_device(&d->filesystems[i].unknown, "fs", i);
    if (d->balloon.present && d->balloon.model == DOMAIN_BALLOON_VIRTIO)
        name_device(&d->balloon.unknown, "balloon", 0);
    name_others(d);
}

/* Users' own names begin with "ua-" and stay. */
static bool is_ours(const struct xml_node *alias)
{
    const char *name = xml_attr_get(alias, "name");
    return !name || strncmp(name, "ua-", 3);
}

static void unname(struct domain_unknown *u)
{
    struct domain_unknown_item *it = alias_of(u);
    if (!it || !is_ours(it->node))
        return;
    free(it->path);
    xml_free(it->node);
    *it = u->items[--u->n_items];
}

static void unname_node(struct xml_node *n)
{
    struct xml_node **link = &n->first, *before = NULL;
    for (; *link && strcmp((*link)->name, "alias"); link = &before->next)
        before = *link;
    struct xml_node *alias = *link;
    if (!alias || !is_ours(alias))
        return;
    *link = alias->next;
    if (n->last == alias)
        n->last = before;
    xml_free(alias);
}

static void no_pty(struct domain_chardev *c)
{
    if (c->type == DOMAIN_CHARDEV_PTY)
        domain_set(&c->path, NULL);
}

void domain_forget_ptys(struct domain *d)
{
    for (unsigned i = 0; i < d->n_serials; i++)
        no_pty(&d->serials[i].chardev);
    for (unsigned i = 0; i < d->n_consoles; i++)
        no_pty(&d->consoles[i].chardev);
    for (unsigned i = 0; i < d->n_channels; i++)
        no_pty(&d->channels[i].chardev);
}

void domain_inactive(struct domain *d)
{
    d->id = 0;
    domain_forget_ptys(d);
    for (unsigned i = 0; i < d->n_disks; i++)
        unname(&d->disks[i].unknown);
    for (unsigned i = 0; i < d->n_interfaces; i++)
        unname(&d->interfaces[i].unknown);
    for (unsigned i = 0; i < d->n_serials; i++)
        unname(&d->serials[i].unknown);
    for (unsigned i = 0; i < d->n_consoles; i++)
        unname(&d->consoles[i].unknown);
    for (unsigned i = 0; i < d->n_channels; i++)
        unname(&d->channels[i].unknown);
    for (unsigned i = 0; i < d->n_inputs; i++)
        unname(&d->inputs[i].unknown);
    for (unsigned i = 0; i < d->n_videos; i++)
        unname(&d->videos[i].unknown);
    for (unsigned i = 0; i < d->n_graphics; i++)
        if (d->graphics[i].autoport == DOMAIN_ON)
            d->graphics[i].port = -1; /* the next one is free again */
    for (unsigned i = 0; i < d->n_rngs; i++)
        unname(&d->rngs[i].unknown);
    for (unsigned i = 0; i < d->n_filesystems; i++)
        unname(&d->filesystems[i].unknown);
    unname(&d->balloon.unknown);
    for (unsigned i = 0; i < d->unknown.n_items; i++)
        if (d->unknown.items[i].node && !strcmp(d->unknown.items[i].path, "devices"))
            unname_node(d->unknown.items[i].node);
}
