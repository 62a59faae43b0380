/* See edit.h. Devices are changed in the XML tree, so that all kinds are treated alike, known to us or not. */
#include "daemon/edit.h"

#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "domain/xml.h"

static struct domain *changed(const struct guest *g, bool inactive,
                              int (*fn)(void *, struct domain *, struct rpc_error *), void *opaque, struct rpc_error *e)
{
    struct err err = {0};
    struct domain *d = guest_config(g, inactive, e);
    if (d && (fn(opaque, d, e) < 0 ||
              (domain_check_definition(d, NULL, &err) < 0 && verr_take(e, VIR_CONFIG_UNSUPPORTED, &err)))) {
        domain_free(d);
        return NULL;
    }
    return d;
}

int edit_documents(struct guest *g, bool live, bool config,
                   int (*fn)(void *opaque, struct domain *d, struct rpc_error *e), void *opaque, struct rpc_error *e)
{
    struct domain *new_live = NULL, *new_config = NULL;
    int r = 0;
    if (live && !(new_live = changed(g, false, fn, opaque, e)))
        r = -1;
    if (!r && config && !(new_config = changed(g, true, fn, opaque, e)))
        r = -1;
    if (!r && config)
        r = store_save(g, new_config, e);
    if (!r && live) {
        struct domain *old = g->live;
        g->live = ptr_take(new_live);
        domain_free(old);
        run_save(g);
    }
    domain_free(new_live);
    domain_free(new_config);
    return r;
}

static const char *child_attr(const struct xml_node *n, const char *child, const char *attr)
{
    const struct xml_node *c = xml_child(n, child);
    return c ? xml_attr_get(c, attr) : NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a && b && !strcasecmp(a, b);
}

/* Is `want` (what a client names) the device `have`? Disks go by target, interfaces by MAC, others by what they say. */
static bool same_device(const struct xml_node *have, const struct xml_node *want)
{
    if (strcmp(have->name, want->name))
        return false;
    if (!strcmp(want->name, "disk"))
        return same_text(child_attr(have, "target", "dev"), child_attr(want, "target", "dev"));
    if (!strcmp(want->name, "interface")) {
        const char *mac = child_attr(want, "mac", "address");
        return mac ? same_text(child_attr(have, "mac", "address"), mac)
                   : same_text(xml_attr_get(have, "type"), xml_attr_get(want, "type"));
    }
    const char *alias = child_attr(want, "alias", "name");
    if (alias && child_attr(have, "alias", "name"))
        return same_text(child_attr(have, "alias", "name"), alias);
    for (const struct xml_attr *a = want->attrs; a; a = a->next)
        if (!same_text(xml_attr_get(have, a->name), a->value))
            return false;
    for (const struct xml_node *c = want->first; c; c = c->next) {
        const struct xml_node *o = xml_child(have, c->name);
        if (!strcmp(c->name, "address") || !strcmp(c->name, "alias"))
            continue;
        for (const struct xml_attr *a = c->attrs; a; a = a->next)
            if (!o || !same_text(xml_attr_get(o, a->name), a->value))
                return false;
    }
    return true;
}

static struct xml_node **find(struct xml_node *devices, const struct xml_node *want)
{
    for (struct xml_node **link = &devices->first; *link; link = &(*link)->next)
        if (same_device(*link, want))
            return link;
    return NULL;
}

static int not_found(const struct xml_node *dev, struct rpc_error *e)
{
    const char *target = child_attr(dev, "target", "dev"), *mac = child_attr(dev, "mac", "address");
    if (!strcmp(dev->name, "disk"))
        return verr_set(e, VIR_DEVICE_MISSING, "no target device %.100s", target ? target : "");
    if (!strcmp(dev->name, "interface"))
        return verr_set(e, VIR_DEVICE_MISSING, "no device matching MAC address %.100s found", mac ? mac : "");
    return verr_set(e, VIR_DEVICE_MISSING, "matching %.40s device not found", dev->name);
}

static void cut(struct xml_node *parent, struct xml_node **link)
{
    struct xml_node *n = *link;
    *link = n->next;
    if (parent->last == n) {
        parent->last = NULL;
        for (struct xml_node *c = parent->first; c; c = c->next)
            parent->last = c;
    }
    xml_free(n);
}

static int change(struct xml_node *devices, enum edit_op op, const struct xml_node *dev, struct rpc_error *e)
{
    struct xml_node **link = find(devices, dev);
    bool named = !strcmp(dev->name, "disk") || (!strcmp(dev->name, "interface") && child_attr(dev, "mac", "address"));
    if (op == EDIT_ATTACH) {
        if (link && named && !strcmp(dev->name, "disk"))
            return verr_set(e, VIR_OPERATION_FAILED, "target %.100s already exists", child_attr(dev, "target", "dev"));
        if (link && named)
            return verr_set(e, VIR_OPERATION_FAILED, "device with MAC address %.100s already exists",
                            child_attr(dev, "mac", "address"));
        xml_append(devices, xml_copy(dev));
        return 0;
    }
    if (!link)
        return not_found(dev, e);
    if (op == EDIT_DETACH) {
        cut(devices, link);
        return 0;
    }
    struct xml_node *copy = xml_copy(dev), *old = *link;
    copy->parent = devices;
    copy->next = old->next;
    *link = copy;
    if (devices->last == old)
        devices->last = copy;
    xml_free(old);
    return 0;
}

int edit_device(struct guest *g, enum edit_op op, const char *device_xml, struct rpc_error *e)
{
    struct xml_node *dev = NULL, *doc = NULL;
    struct err err = {0};
    struct domain *d = NULL;
    if (xml_parse(device_xml, strlen(device_xml), "device", &dev, &err) < 0)
        return verr_take(e, VIR_XML_ERROR, &err);
    int r = xml_parse(g->xml, strlen(g->xml), g->name, &doc, &err);
    if (r < 0)
        r = verr_take(e, VIR_INTERNAL_ERROR, &err);
    if (!r) {
        struct xml_node *devices = xml_child(doc, "devices");
        r = change(devices ? devices : xml_node_new(doc, "devices", NULL), op, dev, e);
    }
    if (!r) {
        autofree char *text = xml_format(doc);
        d = define_parse(g->guests, text, e);
        r = d ? store_save(g, d, e) : -1;
    }
    domain_free(d);
    xml_free(dev);
    xml_free(doc);
    if (!r)
        g->guests->owner.lifecycle(g->guests->owner.opaque, g, EVENT_DEFINED, 1);
    return r;
}
