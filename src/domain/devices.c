/* Domain XML to struct domain: <devices>. One function per element, listed in the table at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/display.h"
#include "domain/reader.h"

static unsigned parse_boot_order(struct reader *r, struct xml_node *n)
{
    return reader_attr_num(r, reader_child(n, "boot"), "order", 0, 65535);
}

static void parse_disk(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_disk *k = DOMAIN_ADD(d, disks);
    k->line = n->line;
    reader_attr_str(n, "type", &k->type_name);
    if (!k->type_name)
        domain_set(&k->type_name, "file");
    k->type = !strcmp(k->type_name, "file")    ? DOMAIN_DISK_FILE
              : !strcmp(k->type_name, "block") ? DOMAIN_DISK_BLOCK
                                               : DOMAIN_DISK_OTHER;
    k->device = reader_attr_word(r, n, "device", domain_disk_device_find, DOMAIN_DISK_DISK);
    struct xml_node *source = reader_child(n, "source");
    if (k->type != DOMAIN_DISK_OTHER)
        reader_attr_str(source, k->type == DOMAIN_DISK_FILE ? "file" : "dev", &k->source);
    struct xml_node *driver = reader_child(n, "driver");
    reader_attr_str(driver, "name", &k->driver_name);
    reader_attr_str(driver, "type", &k->format);
    k->cache = reader_attr_word(r, driver, "cache", domain_cache_find, DOMAIN_CACHE_DEFAULT);
    k->io = reader_attr_word(r, driver, "io", domain_io_find, DOMAIN_IO_DEFAULT);
    k->iothread = reader_attr_num(r, driver, "iothread", 0, 65535);
    k->queues = reader_attr_num(r, driver, "queues", 0, 65535);
    const char *discard = reader_attr(driver, "discard");
    if (discard) {
        if (!strcmp(discard, "unmap"))
            k->discard_unmap = DOMAIN_ON;
        else if (!strcmp(discard, "ignore"))
            k->discard_unmap = DOMAIN_OFF;
        else
            reader_fail(r, driver, "<driver discard>: unknown value '%.40s'", discard);
    }
    struct xml_node *target = reader_child(n, "target");
    reader_attr_str(target, "dev", &k->target);
    k->bus = reader_attr_word(r, target, "bus", domain_bus_find, DOMAIN_BUS_NONE);
    reader_child_str(n, "serial", &k->serial);
    k->readonly = reader_child(n, "readonly") != NULL;
    k->shareable = reader_child(n, "shareable") != NULL;
    k->boot_order = parse_boot_order(r, n);
    reader_keep(r, n, &k->unknown, "", NULL);
}

static void parse_mac(struct reader *r, struct xml_node *n, struct domain_interface *i)
{
    const char *s = reader_attr(n, "address");
    unsigned b[6];
    int end = 0;
    if (!s)
        return;
    if (strlen(s) != 17 ||
        sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 || end != 17) {
        reader_fail(r, n, "<mac address>: '%.40s' is not a MAC address", s);
        return;
    }
    for (int k = 0; k < 6; k++)
        i->mac[k] = b[k];
    i->has_mac = true;
}

static void parse_forward(struct reader *r, struct xml_node *n, struct domain_interface *i)
{
    struct domain_port_forward *f = DOMAIN_ADD(i, forwards);
    reader_attr_str(n, "proto", &f->proto);
    reader_attr_str(n, "address", &f->address);
    reader_attr_str(n, "dev", &f->dev);
    if (!f->proto || (strcmp(f->proto, "tcp") && strcmp(f->proto, "udp")))
        reader_fail(r, n, "<portForward proto>: must be tcp or udp");
    for (struct xml_node *c = n->first; c; c = c->next) {
        if (strcmp(c->name, "range"))
            continue;
        c->used = true;
        struct domain_port_range *p = DOMAIN_ADD(f, ranges);
        p->start = reader_attr_num(r, c, "start", 0, 65535);
        p->end = reader_attr_num(r, c, "end", 0, 65535);
        p->to = reader_attr_num(r, c, "to", 0, 65535);
        p->exclude = reader_attr_switch(r, c, "exclude") == DOMAIN_ON;
        if (!p->start)
            reader_fail(r, c, "<range> of a port forward has no start");
        else if (p->end && p->end < p->start)
            reader_fail(r, c, "<range>: end %u is before start %u", p->end, p->start);
        else if (p->to && p->to + (p->end ? p->end - p->start : 0) > 65535)
            reader_fail(r, c, "<range to>: the range goes beyond port 65535");
    }
}

static void parse_interface(struct reader *r, struct xml_node *n, struct domain *d)
{
    static const char *const types[] = {
        [DOMAIN_NET_USER] = "user",
        [DOMAIN_NET_ETHERNET] = "ethernet",
        [DOMAIN_NET_NETWORK] = "network",
        [DOMAIN_NET_BRIDGE] = "bridge",
    };
    struct domain_interface *i = DOMAIN_ADD(d, interfaces);
    i->line = n->line;
    reader_attr_str(n, "type", &i->type_name);
    if (!i->type_name) {
        reader_fail(r, n, "<interface> has no type");
        return;
    }
    i->type = DOMAIN_NET_OTHER;
    for (unsigned k = 0; k < ARRAY_SIZE(types); k++)
        if (!strcmp(types[k], i->type_name))
            i->type = k;
    parse_mac(r, reader_child(n, "mac"), i);
    struct xml_node *source = reader_child(n, "source");
    if (i->type == DOMAIN_NET_NETWORK || i->type == DOMAIN_NET_BRIDGE)
        reader_attr_str(source, i->type_name, &i->source);
    else if (i->type == DOMAIN_NET_USER)
        reader_attr_str(source, "dev", &i->source_dev);
    struct xml_node *backend = reader_child(n, "backend");
    reader_attr_str(backend, "type", &i->backend);
    reader_attr_str(backend, "logFile", &i->backend_log);
    struct xml_node *target = reader_child(n, "target");
    reader_attr_str(target, "dev", &i->target);
    i->target_managed = reader_attr_switch(r, target, "managed");
    reader_attr_str(reader_child(n, "model"), "type", &i->model_name);
    if (i->model_name)
        i->model = !strcmp(i->model_name, "virtio") ? DOMAIN_NIC_VIRTIO : DOMAIN_NIC_OTHER;
    struct xml_node *driver = reader_child(n, "driver");
    reader_attr_str(driver, "name", &i->driver_name);
    i->queues = reader_attr_num(r, driver, "queues", 0, 256);
    i->mtu = reader_attr_num(r, reader_child(n, "mtu"), "size", 0, 65535);
    struct xml_node *link = reader_child(n, "link");
    const char *state = reader_attr(link, "state");
    if (state) {
        if (strcmp(state, "up") && strcmp(state, "down"))
            reader_fail(r, link, "<link state>: '%.40s' is neither up nor down", state);
        i->link_up = !strcmp(state, "down") ? DOMAIN_OFF : DOMAIN_ON;
    }
    for (struct xml_node *c = n->first; c; c = c->next) {
        if (!strcmp(c->name, "portForward")) {
            c->used = true;
            parse_forward(r, c, i);
        }
    }
    i->boot_order = parse_boot_order(r, n);
    reader_keep(r, n, &i->unknown, "", NULL);
}

static void parse_chardev(struct reader *r, struct xml_node *n, struct domain_chardev *c)
{
    reader_attr_str(n, "type", &c->type_name);
    if (!c->type_name) {
        reader_fail(r, n, "<%s> has no type", n->name);
        return;
    }
    int type = domain_chardev_find(c->type_name);
    c->type = type < 0 ? DOMAIN_CHARDEV_OTHER : type;
    if (c->type == DOMAIN_CHARDEV_PTY)
        reader_attr(n, "tty"); /* the same as the source's path */
    if (c->type != DOMAIN_CHARDEV_FILE && c->type != DOMAIN_CHARDEV_UNIX && c->type != DOMAIN_CHARDEV_PTY)
        return;
    struct xml_node *source = reader_child(n, "source");
    reader_attr_str(source, "path", &c->path);
    if (c->type == DOMAIN_CHARDEV_FILE) {
        c->append = reader_attr_switch(r, source, "append") == DOMAIN_ON;
    } else if (c->type == DOMAIN_CHARDEV_UNIX) {
        const char *mode = reader_attr(source, "mode");
        c->has_mode = mode;
        c->connect = mode && !strcmp(mode, "connect");
        if (mode && !c->connect && strcmp(mode, "bind"))
            reader_fail(r, source, "<source mode>: '%.40s' is neither bind nor connect", mode);
    }
}

static int parse_port(struct reader *r, struct xml_node *target)
{
    return reader_attr(target, "port") ? (int)reader_attr_num(r, target, "port", 0, 65535) : -1;
}

static void parse_serial(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_serial *s = DOMAIN_ADD(d, serials);
    s->line = n->line;
    parse_chardev(r, n, &s->chardev);
    struct xml_node *target = reader_child(n, "target");
    reader_attr_str(target, "type", &s->target_type);
    s->port = parse_port(r, target);
    reader_attr_str(reader_child(target, "model"), "name", &s->model);
    reader_keep(r, n, &s->unknown, "", NULL);
}

static void parse_console(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_console *c = DOMAIN_ADD(d, consoles);
    c->line = n->line;
    parse_chardev(r, n, &c->chardev);
    struct xml_node *target = reader_child(n, "target");
    reader_attr_str(target, "type", &c->target_type);
    if (!c->target_type || !strcmp(c->target_type, "serial"))
        c->target = DOMAIN_CONSOLE_SERIAL;
    else
        c->target = !strcmp(c->target_type, "virtio") ? DOMAIN_CONSOLE_VIRTIO : DOMAIN_CONSOLE_OTHER;
    c->port = parse_port(r, target);
    reader_keep(r, n, &c->unknown, "", NULL);
}

/* What we have: a virtio port behind a backend that we know. */
static bool is_our_channel(const struct xml_node *n)
{
    const char *type = xml_attr_get(n, "type");
    struct xml_node *target = xml_child(n, "target");
    const char *target_type = target ? xml_attr_get(target, "type") : NULL;
    return type && target_type && domain_chardev_find(type) >= 0 && !strcmp(target_type, "virtio");
}

static void parse_channel(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_channel *c = DOMAIN_ADD(d, channels);
    c->line = n->line;
    parse_chardev(r, n, &c->chardev);
    struct xml_node *target = reader_child(n, "target");
    reader_attr(target, "type");
    reader_attr_str(target, "name", &c->name);
    reader_keep(r, n, &c->unknown, "", NULL);
}

static void parse_rng(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_rng *g = DOMAIN_ADD(d, rngs);
    g->line = n->line;
    reader_attr_str(n, "model", &g->model);
    struct xml_node *backend = reader_child(n, "backend");
    reader_attr_str(backend, "model", &g->backend_model);
    domain_set(&g->source, backend ? backend->text : NULL);
    struct xml_node *rate = reader_child(n, "rate");
    g->rate_bytes = reader_attr_num(r, rate, "bytes", 0, UINT32_MAX);
    g->rate_period_ms = reader_attr_num(r, rate, "period", 0, UINT32_MAX);
    reader_keep(r, n, &g->unknown, "", NULL);
}

static void parse_balloon(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_balloon *b = &d->balloon;
    if (b->present) {
        reader_fail(r, n, "a guest has at most one <memballoon>");
        return;
    }
    b->present = true;
    reader_attr_str(n, "model", &b->model_name);
    if (b->model_name)
        b->model = !strcmp(b->model_name, "none")     ? DOMAIN_BALLOON_NONE
                   : !strcmp(b->model_name, "virtio") ? DOMAIN_BALLOON_VIRTIO
                                                      : DOMAIN_BALLOON_OTHER;
    b->autodeflate = reader_attr_switch(r, n, "autodeflate");
    b->free_page_reporting = reader_attr_switch(r, n, "freePageReporting");
    b->stats_period = reader_attr_num(r, reader_child(n, "stats"), "period", 0, 86400);
    reader_keep(r, n, &b->unknown, "", NULL);
}

static void parse_filesystem(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_filesystem *f = DOMAIN_ADD(d, filesystems);
    f->line = n->line;
    reader_attr_str(n, "type", &f->type_name);
    if (!f->type_name)
        domain_set(&f->type_name, "mount");
    f->type = !strcmp(f->type_name, "mount") ? DOMAIN_FS_MOUNT : DOMAIN_FS_OTHER;
    reader_attr_str(n, "accessmode", &f->accessmode);
    reader_attr_str(reader_child(n, "driver"), "type", &f->driver_type);
    if (f->type == DOMAIN_FS_MOUNT)
        reader_attr_str(reader_child(n, "source"), "dir", &f->source);
    reader_attr_str(reader_child(n, "target"), "dir", &f->target);
    f->readonly = reader_child(n, "readonly") != NULL;
    reader_keep(r, n, &f->unknown, "", NULL);
}

static void parse_panic(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_panic *p = DOMAIN_ADD(d, panics);
    reader_attr_str(n, "model", &p->model);
    reader_keep(r, n, &p->unknown, "", NULL);
}

static const struct {
    const char *name;
    void (*parse)(struct reader *r, struct xml_node *n, struct domain *d);
} device_elements[] = {
    {"disk", parse_disk},
    {"interface", parse_interface},
    {"serial", parse_serial},
    {"console", parse_console},
    {"channel", parse_channel},
    {"rng", parse_rng},
    {"memballoon", parse_balloon},
    {"panic", parse_panic},
    {"filesystem", parse_filesystem},
    {"graphics", domain_parse_graphics},
    {"video", domain_parse_video},
    {"input", domain_parse_input},
};

bool reader_is_device(const struct xml_node *n)
{
    if (strcmp(n->parent->name, "devices") || !n->parent->parent || n->parent->parent->parent)
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(device_elements); i++)
        if (!strcmp(device_elements[i].name, n->name))
            return strcmp(n->name, "channel") || is_our_channel(n);
    return false;
}

void reader_devices(struct reader *r, struct xml_node *n, struct domain *d)
{
    reader_child_str(n, "emulator", &d->emulator);
    for (struct xml_node *c = n->first; c; c = c->next) {
        for (unsigned i = 0; i < ARRAY_SIZE(device_elements); i++) {
            if (!strcmp(device_elements[i].name, c->name) && reader_is_device(c)) {
                c->used = true;
                device_elements[i].parse(r, c, d);
            }
        }
    }
}
