/* struct domain to XML, in libvirt's order of elements. What was kept without being understood goes back to its place.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/display.h"
#include "domain/domain.h"
#include "domain/reader.h"
#include "domain/xml.h"

static void put_text(struct xml_node *parent, const char *name, const char *text)
{
    if (text)
        xml_node_new(parent, name, text);
}

static void put_memory(struct xml_node *parent, const char *name, uint64_t bytes)
{
    char text[24];
    if (!bytes)
        return;
    bool kib = bytes % KIB == 0;
    snprintf(text, sizeof text, "%" PRIu64, kib ? bytes >> 10 : bytes);
    xml_attr_set(xml_node_new(parent, name, text), "unit", kib ? "KiB" : "bytes");
}

static void put_number(struct xml_node *n, const char *attr, uint64_t v)
{
    if (v)
        xml_attr_setf(n, attr, "%" PRIu64, v);
}

static void put_switch(struct xml_node *n, const char *attr, enum domain_tristate v)
{
    if (v != DOMAIN_DEFAULT)
        xml_attr_set(n, attr, v == DOMAIN_ON ? "yes" : "no");
}

/* A new child if any of two attributes is there. */
static struct xml_node *put_attrs(struct xml_node *parent, const char *name, const char *a1, const char *v1,
                                  const char *a2, const char *v2)
{
    if (!v1 && !v2)
        return NULL;
    struct xml_node *n = xml_node_new(parent, name, NULL);
    xml_attr_set(n, a1, v1);
    if (a2)
        xml_attr_set(n, a2, v2);
    return n;
}

static void drop_if_empty(struct xml_node *parent, struct xml_node *n)
{
    if (n->first || n->attrs || n->text || parent->last != n)
        return;
    struct xml_node **link = &parent->first, *before = NULL;
    while (*link != n) {
        before = *link;
        link = &before->next;
    }
    *link = NULL;
    parent->last = before;
    xml_free(n);
}

static void put_head(struct xml_node *root, const struct domain *d)
{
    put_text(root, "name", d->name);
    if (d->has_uuid) {
        char s[37], *p = s;
        for (int i = 0; i < 16; i++)
            p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", d->uuid[i]);
        put_text(root, "uuid", s);
    }
    put_text(root, "title", d->title);
    put_text(root, "description", d->description);
    put_memory(root, "memory", d->memory);
    put_memory(root, "currentMemory", d->current_memory);
    if (d->vcpus) {
        autofree char *n = xasprintf("%u", d->vcpus);
        struct xml_node *vcpu = xml_node_new(root, "vcpu", n);
        if (d->vcpus_current && d->vcpus_current != d->vcpus)
            put_number(vcpu, "current", d->vcpus_current);
    }
    if (d->iothreads) {
        autofree char *n = xasprintf("%u", d->iothreads);
        put_text(root, "iothreads", n);
    }
}

static void put_loader(struct xml_node *n, const struct domain_os *os)
{
    if (os->loader || os->loader_type || os->loader_readonly || os->loader_secure) {
        struct xml_node *loader = xml_node_new(n, "loader", os->loader);
        put_switch(loader, "readonly", os->loader_readonly);
        put_switch(loader, "secure", os->loader_secure);
        xml_attr_set(loader, "type", os->loader_type);
    }
    if (os->nvram || os->nvram_template)
        xml_attr_set(xml_node_new(n, "nvram", os->nvram), "template", os->nvram_template);
    if (os->bootmenu || os->bootmenu_timeout) {
        struct xml_node *menu = xml_node_new(n, "bootmenu", NULL);
        put_switch(menu, "enable", os->bootmenu);
        if (os->bootmenu_timeout)
            put_number(menu, "timeout", os->bootmenu_timeout);
    }
}

static void put_os(struct xml_node *root, const struct domain_os *os)
{
    struct xml_node *n = xml_node_new(root, "os", NULL);
    xml_attr_set(n, "firmware", os->firmware);
    if (os->type || os->arch || os->machine) {
        struct xml_node *type = xml_node_new(n, "type", os->type);
        xml_attr_set(type, "arch", os->arch);
        xml_attr_set(type, "machine", os->machine);
    }
    put_loader(n, os);
    put_text(n, "kernel", os->kernel);
    put_text(n, "initrd", os->initrd);
    put_text(n, "cmdline", os->cmdline);
    for (unsigned i = 0; i < os->n_boot; i++)
        xml_attr_set(xml_node_new(n, "boot", NULL), "dev", os->boot[i]);
    domain_unknown_graft(&os->unknown, n);
    drop_if_empty(root, n);
}

static void put_feature(struct xml_node *n, const char *name, enum domain_tristate v, bool stateful)
{
    if (v == DOMAIN_DEFAULT)
        return;
    struct xml_node *f = xml_node_new(n, name, NULL);
    if (stateful || v == DOMAIN_OFF)
        xml_attr_set(f, "state", v == DOMAIN_ON ? "on" : "off");
}

static void put_features(struct xml_node *root, const struct domain *d)
{
    if (!d->has_features)
        return;
    struct xml_node *n = xml_node_new(root, "features", NULL);
    put_feature(n, "acpi", d->acpi, false);
    put_feature(n, "apic", d->apic, false);
    put_feature(n, "pae", d->pae, false);
    put_feature(n, "vmport", d->vmport, true);
}

static void put_cpu(struct xml_node *root, const struct domain_cpu *cpu)
{
    struct xml_node *n = xml_node_new(root, "cpu", NULL);
    xml_attr_set(n, "mode", domain_cpu_mode_name(cpu->mode));
    xml_attr_set(n, "match", cpu->match);
    xml_attr_set(n, "check", cpu->check);
    xml_attr_set(n, "migratable", cpu->migratable);
    if (cpu->model || cpu->fallback)
        xml_attr_set(xml_node_new(n, "model", cpu->model), "fallback", cpu->fallback);
    if (cpu->sockets || cpu->dies || cpu->cores || cpu->threads) {
        struct xml_node *t = xml_node_new(n, "topology", NULL);
        put_number(t, "sockets", cpu->sockets);
        put_number(t, "dies", cpu->dies);
        put_number(t, "cores", cpu->cores);
        put_number(t, "threads", cpu->threads);
    }
    for (unsigned i = 0; i < cpu->n_features; i++) {
        struct xml_node *f = xml_node_new(n, "feature", NULL);
        const char *policy = cpu->features[i].policy;
        xml_attr_set(f, "policy", policy ? policy : cpu->features[i].on ? "require" : "disable");
        xml_attr_set(f, "name", cpu->features[i].name);
    }
    domain_unknown_graft(&cpu->unknown, n);
    drop_if_empty(root, n);
}

static void put_clock(struct xml_node *root, const struct domain_clock *clock)
{
    struct xml_node *n = xml_node_new(root, "clock", NULL);
    xml_attr_set(n, "offset", clock->offset);
    for (unsigned i = 0; i < clock->n_timers; i++) {
        const struct domain_timer *t = &clock->timers[i];
        struct xml_node *tn = xml_node_new(n, "timer", NULL);
        xml_attr_set(tn, "name", t->name);
        xml_attr_set(tn, "tickpolicy", t->tickpolicy);
        put_switch(tn, "present", t->present);
        domain_unknown_graft(&t->unknown, tn);
    }
    domain_unknown_graft(&clock->unknown, n);
    drop_if_empty(root, n);
}

static void put_pm(struct xml_node *root, const struct domain *d)
{
    if (d->suspend_to_mem == DOMAIN_DEFAULT && d->suspend_to_disk == DOMAIN_DEFAULT)
        return;
    struct xml_node *n = xml_node_new(root, "pm", NULL);
    if (d->suspend_to_mem != DOMAIN_DEFAULT)
        put_switch(xml_node_new(n, "suspend-to-mem", NULL), "enabled", d->suspend_to_mem);
    if (d->suspend_to_disk != DOMAIN_DEFAULT)
        put_switch(xml_node_new(n, "suspend-to-disk", NULL), "enabled", d->suspend_to_disk);
}

static void put_boot_order(struct xml_node *n, unsigned order)
{
    if (order)
        xml_attr_setf(xml_node_new(n, "boot", NULL), "order", "%u", order);
}

static void put_disk(struct xml_node *devices, const struct domain_disk *k)
{
    struct xml_node *n = xml_node_new(devices, "disk", NULL);
    xml_attr_set(n, "type", k->type_name ? k->type_name : k->type == DOMAIN_DISK_BLOCK ? "block" : "file");
    xml_attr_set(n, "device", domain_disk_device_name(k->device));
    struct xml_node *driver = xml_node_new(n, "driver", NULL);
    xml_attr_set(driver, "name", k->driver_name);
    xml_attr_set(driver, "type", k->format);
    if (k->cache != DOMAIN_CACHE_DEFAULT)
        xml_attr_set(driver, "cache", domain_cache_name(k->cache));
    xml_attr_set(driver, "io", domain_io_name(k->io));
    if (k->discard_unmap != DOMAIN_DEFAULT)
        xml_attr_set(driver, "discard", k->discard_unmap == DOMAIN_ON ? "unmap" : "ignore");
    put_number(driver, "iothread", k->iothread);
    put_number(driver, "queues", k->queues);
    drop_if_empty(n, driver);
    put_attrs(n, "source", k->type == DOMAIN_DISK_BLOCK ? "dev" : "file", k->source, NULL, NULL);
    put_attrs(n, "target", "dev", k->target, "bus", domain_bus_name(k->bus));
    put_text(n, "serial", k->serial);
    if (k->readonly)
        xml_node_new(n, "readonly", NULL);
    if (k->shareable)
        xml_node_new(n, "shareable", NULL);
    put_boot_order(n, k->boot_order);
    domain_unknown_graft(&k->unknown, n);
}

static void put_filesystem(struct xml_node *devices, const struct domain_filesystem *f)
{
    struct xml_node *n = xml_node_new(devices, "filesystem", NULL);
    xml_attr_set(n, "type", f->type_name ? f->type_name : "mount");
    xml_attr_set(n, "accessmode", f->accessmode);
    put_attrs(n, "driver", "type", f->driver_type, NULL, NULL);
    put_attrs(n, "source", "dir", f->source, NULL, NULL);
    put_attrs(n, "target", "dir", f->target, NULL, NULL);
    if (f->readonly)
        xml_node_new(n, "readonly", NULL);
    domain_unknown_graft(&f->unknown, n);
}

static void put_forward(struct xml_node *n, const struct domain_port_forward *f)
{
    struct xml_node *fn = xml_node_new(n, "portForward", NULL);
    xml_attr_set(fn, "proto", f->proto);
    xml_attr_set(fn, "address", f->address);
    xml_attr_set(fn, "dev", f->dev);
    for (unsigned i = 0; i < f->n_ranges; i++) {
        struct xml_node *range = xml_node_new(fn, "range", NULL);
        put_number(range, "start", f->ranges[i].start);
        put_number(range, "end", f->ranges[i].end);
        put_number(range, "to", f->ranges[i].to);
        if (f->ranges[i].exclude)
            xml_attr_set(range, "exclude", "yes");
    }
}

static void put_interface(struct xml_node *devices, const struct domain_interface *i)
{
    static const char *const types[] = {
        [DOMAIN_NET_USER] = "user",     [DOMAIN_NET_ETHERNET] = "ethernet", [DOMAIN_NET_NETWORK] = "network",
        [DOMAIN_NET_BRIDGE] = "bridge", [DOMAIN_NET_OTHER] = NULL,
    };
    struct xml_node *n = xml_node_new(devices, "interface", NULL);
    xml_attr_set(n, "type", i->type_name ? i->type_name : types[i->type]);
    if (i->has_mac)
        xml_attr_setf(xml_node_new(n, "mac", NULL), "address", "%02x:%02x:%02x:%02x:%02x:%02x", i->mac[0], i->mac[1],
                      i->mac[2], i->mac[3], i->mac[4], i->mac[5]);
    if (i->type == DOMAIN_NET_NETWORK || i->type == DOMAIN_NET_BRIDGE)
        put_attrs(n, "source", types[i->type], i->source, NULL, NULL);
    else
        put_attrs(n, "source", "dev", i->source_dev, NULL, NULL);
    put_attrs(n, "backend", "type", i->backend, "logFile", i->backend_log);
    for (unsigned k = 0; k < i->n_forwards; k++)
        put_forward(n, &i->forwards[k]);
    const char *managed = i->target_managed == DOMAIN_DEFAULT ? NULL : i->target_managed == DOMAIN_ON ? "yes" : "no";
    put_attrs(n, "target", "dev", i->target, "managed", managed);
    put_attrs(n, "model", "type",
              i->model_name                   ? i->model_name
              : i->model == DOMAIN_NIC_VIRTIO ? "virtio"
                                              : NULL,
              NULL, NULL);
    struct xml_node *driver = xml_node_new(n, "driver", NULL);
    xml_attr_set(driver, "name", i->driver_name);
    put_number(driver, "queues", i->queues);
    drop_if_empty(n, driver);
    if (i->mtu)
        put_number(xml_node_new(n, "mtu", NULL), "size", i->mtu);
    if (i->link_up != DOMAIN_DEFAULT)
        xml_attr_set(xml_node_new(n, "link", NULL), "state", i->link_up == DOMAIN_ON ? "up" : "down");
    put_boot_order(n, i->boot_order);
    domain_unknown_graft(&i->unknown, n);
}

static struct xml_node *put_chardev(struct xml_node *devices, const char *name, const struct domain_chardev *c)
{
    struct xml_node *n = xml_node_new(devices, name, NULL);
    xml_attr_set(n, "type", c->type_name ? c->type_name : domain_chardev_name(c->type));
    if (c->type == DOMAIN_CHARDEV_UNIX) {
        const char *mode = c->connect ? "connect" : c->has_mode ? "bind" : NULL;
        put_attrs(n, "source", "mode", mode, "path", c->path);
    } else if (c->type == DOMAIN_CHARDEV_FILE) {
        put_attrs(n, "source", "path", c->path, "append", c->append ? "on" : NULL);
    } else if (c->type == DOMAIN_CHARDEV_PTY) {
        if (!strcmp(name, "console"))
            xml_attr_set(n, "tty", c->path);
        put_attrs(n, "source", "path", c->path, NULL, NULL);
    }
    return n;
}

static void put_serial(struct xml_node *devices, const struct domain_serial *s)
{
    struct xml_node *n = put_chardev(devices, "serial", &s->chardev);
    struct xml_node *target = xml_node_new(n, "target", NULL);
    xml_attr_set(target, "type", s->target_type);
    if (s->port >= 0)
        xml_attr_setf(target, "port", "%d", s->port);
    put_attrs(target, "model", "name", s->model, NULL, NULL);
    drop_if_empty(n, target);
    domain_unknown_graft(&s->unknown, n);
}

static void put_console(struct xml_node *devices, const struct domain_console *c)
{
    struct xml_node *n = put_chardev(devices, "console", &c->chardev);
    struct xml_node *target = xml_node_new(n, "target", NULL);
    xml_attr_set(target, "type",
                 c->target_type                       ? c->target_type
                 : c->target == DOMAIN_CONSOLE_VIRTIO ? "virtio"
                                                      : NULL);
    if (c->port >= 0)
        xml_attr_setf(target, "port", "%d", c->port);
    drop_if_empty(n, target);
    domain_unknown_graft(&c->unknown, n);
}

static void put_channel(struct xml_node *devices, const struct domain_channel *c)
{
    struct xml_node *n = put_chardev(devices, "channel", &c->chardev);
    put_attrs(n, "target", "type", "virtio", "name", c->name);
    domain_unknown_graft(&c->unknown, n);
}

static void put_rng(struct xml_node *devices, const struct domain_rng *g)
{
    struct xml_node *n = xml_node_new(devices, "rng", NULL);
    xml_attr_set(n, "model", g->model);
    struct xml_node *rate = xml_node_new(n, "rate", NULL);
    put_number(rate, "bytes", g->rate_bytes);
    put_number(rate, "period", g->rate_period_ms);
    drop_if_empty(n, rate);
    if (g->backend_model || g->source)
        xml_attr_set(xml_node_new(n, "backend", g->source), "model", g->backend_model);
    domain_unknown_graft(&g->unknown, n);
}

static void put_balloon(struct xml_node *devices, const struct domain_balloon *b)
{
    static const char *const models[] = {[DOMAIN_BALLOON_NONE] = "none", [DOMAIN_BALLOON_VIRTIO] = "virtio"};
    if (!b->present)
        return;
    struct xml_node *n = xml_node_new(devices, "memballoon", NULL);
    xml_attr_set(n, "model", b->model_name ? b->model_name : b->model < ARRAY_SIZE(models) ? models[b->model] : NULL);
    if (b->autodeflate != DOMAIN_DEFAULT)
        xml_attr_set(n, "autodeflate", b->autodeflate == DOMAIN_ON ? "on" : "off");
    if (b->free_page_reporting != DOMAIN_DEFAULT)
        xml_attr_set(n, "freePageReporting", b->free_page_reporting == DOMAIN_ON ? "on" : "off");
    if (b->stats_period)
        put_number(xml_node_new(n, "stats", NULL), "period", b->stats_period);
    domain_unknown_graft(&b->unknown, n);
}

static void put_devices(struct xml_node *root, const struct domain *d)
{
    struct xml_node *n = xml_node_new(root, "devices", NULL);
    put_text(n, "emulator", d->emulator);
    for (unsigned i = 0; i < d->n_disks; i++)
        put_disk(n, &d->disks[i]);
    for (unsigned i = 0; i < d->n_filesystems; i++)
        put_filesystem(n, &d->filesystems[i]);
    for (unsigned i = 0; i < d->n_interfaces; i++)
        put_interface(n, &d->interfaces[i]);
    for (unsigned i = 0; i < d->n_serials; i++)
        put_serial(n, &d->serials[i]);
    for (unsigned i = 0; i < d->n_consoles; i++)
        put_console(n, &d->consoles[i]);
    for (unsigned i = 0; i < d->n_channels; i++)
        put_channel(n, &d->channels[i]);
    domain_format_display(n, d);
    put_balloon(n, &d->balloon);
    for (unsigned i = 0; i < d->n_rngs; i++)
        put_rng(n, &d->rngs[i]);
    for (unsigned i = 0; i < d->n_panics; i++) {
        struct xml_node *p = xml_node_new(n, "panic", NULL);
        xml_attr_set(p, "model", d->panics[i].model);
        domain_unknown_graft(&d->panics[i].unknown, p);
    }
}

/* Only what <domain type> alone cannot say needs our own element. */
static void put_engine(struct xml_node *root, const struct domain *d)
{
    const char *type = d->engine == DOMAIN_ENGINE_SOFT ? "qemu" : "kvm";
    if (d->engine == DOMAIN_ENGINE_NONE && d->type_name)
        type = d->type_name;
    xml_attr_set(root, "type", type);
    if (d->id > 0)
        xml_attr_setf(root, "id", "%d", d->id);
    if (d->engine != DOMAIN_ENGINE_AUTO && !d->engine_chaos && !d->engine_perf_map)
        return;
    xml_attr_set(root, "xmlns:lodge", DOMAIN_LODGE_NS);
    struct xml_node *n = xml_node_new(root, "lodge:engine", NULL);
    if (d->engine != DOMAIN_ENGINE_NONE)
        xml_attr_set(n, "name", domain_engine_name(d->engine));
    if (d->engine_chaos)
        xml_attr_setf(n, "chaos", "%" PRIu64, d->engine_chaos);
    if (d->engine_perf_map)
        xml_attr_set(n, "perf-map", "on");
}

char *domain_format(const struct domain *d)
{
    struct xml_node *root = xml_node_new(NULL, "domain", NULL);
    xml_attr_set(root, "type", "");
    put_head(root, d);
    put_os(root, &d->os);
    put_features(root, d);
    put_cpu(root, &d->cpu);
    put_clock(root, &d->clock);
    put_text(root, "on_poweroff", domain_action_name(d->on_poweroff));
    put_text(root, "on_reboot", domain_action_name(d->on_reboot));
    put_text(root, "on_crash", domain_action_name(d->on_crash));
    put_pm(root, d);
    put_devices(root, d);
    put_engine(root, d);
    domain_unknown_graft(&d->unknown, root);
    char *text = xml_format(root);
    xml_free(root);
    return text;
}

/* Reporting what has no effect. */

struct each {
    void (*fn)(void *opaque, int line, const char *path);
    void *opaque;
};

static void each_item(const struct each *e, const struct domain_unknown *u, const char *owner)
{
    for (unsigned i = 0; i < u->n_items; i++) {
        const struct domain_unknown_item *it = &u->items[i];
        if (it->attr && !strncmp(it->attr, "xmlns", 5))
            continue;
        autofree char *path =
            xasprintf("%s%s%s%s%s%s", owner, *owner && *it->path ? "/" : "", it->path, *owner || *it->path ? "/" : "",
                      it->attr ? "@" : "", it->attr ? it->attr : it->node->name);
        e->fn(e->opaque, it->line, path);
    }
}

void domain_each_unknown(const struct domain *d, void (*fn)(void *opaque, int line, const char *path), void *opaque)
{
    const struct each e = {fn, opaque};
    each_item(&e, &d->unknown, "");
    each_item(&e, &d->os.unknown, "os");
    each_item(&e, &d->cpu.unknown, "cpu");
    each_item(&e, &d->clock.unknown, "clock");
    for (unsigned i = 0; i < d->clock.n_timers; i++)
        each_item(&e, &d->clock.timers[i].unknown, "clock/timer");
    for (unsigned i = 0; i < d->n_disks; i++)
        each_item(&e, &d->disks[i].unknown, "devices/disk");
    for (unsigned i = 0; i < d->n_filesystems; i++)
        each_item(&e, &d->filesystems[i].unknown, "devices/filesystem");
    for (unsigned i = 0; i < d->n_interfaces; i++)
        each_item(&e, &d->interfaces[i].unknown, "devices/interface");
    for (unsigned i = 0; i < d->n_serials; i++)
        each_item(&e, &d->serials[i].unknown, "devices/serial");
    for (unsigned i = 0; i < d->n_consoles; i++)
        each_item(&e, &d->consoles[i].unknown, "devices/console");
    for (unsigned i = 0; i < d->n_channels; i++)
        each_item(&e, &d->channels[i].unknown, "devices/channel");
    for (unsigned i = 0; i < d->n_rngs; i++)
        each_item(&e, &d->rngs[i].unknown, "devices/rng");
    each_item(&e, &d->balloon.unknown, "devices/memballoon");
    for (unsigned i = 0; i < d->n_graphics; i++)
        each_item(&e, &d->graphics[i].unknown, "devices/graphics");
    for (unsigned i = 0; i < d->n_videos; i++)
        each_item(&e, &d->videos[i].unknown, "devices/video");
    for (unsigned i = 0; i < d->n_inputs; i++)
        each_item(&e, &d->inputs[i].unknown, "devices/input");
    for (unsigned i = 0; i < d->n_panics; i++)
        each_item(&e, &d->panics[i].unknown, "devices/panic");
}
