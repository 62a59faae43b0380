/* Devices that come and go: attach-*, detach-*, update-device, change-media, domif-setlink. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

/* The flags of a change to a device; *ret_old: none were given, so the old procedure does. -1: said so. */
static int device_flags(struct vsh *v, const struct vsh_args *a, const rp_domain *dom, bool *ret_old)
{
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_exclusive(v, a, "persistent", "current"))
        return -1;
    if (vsh_has(a, "persistent")) {
        affect |= DOM_CONFIG;
        if (dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, dom) == 1)
            affect |= DOM_LIVE;
    }
    *ret_old = !affect && !vsh_has(a, "current");
    return affect;
}

static bool attach(struct vsh *v, const struct vsh_args *a, const rp_domain *dom, const char *xml)
{
    bool old;
    int flags = device_flags(v, a, dom, &old);
    const rp_dom_str plain = {*dom, (char *)xml};
    const rp_dom_str_flags args = {*dom, (char *)xml, flags};
    if (flags < 0)
        return false;
    return old ? vsh_call(v, RPC_PROC_DOMAIN_ATTACH_DEVICE, &plain, NULL)
               : vsh_call(v, RPC_PROC_DOMAIN_ATTACH_DEVICE_FLAGS, &args, NULL);
}

static bool detach(struct vsh *v, const struct vsh_args *a, const rp_domain *dom, const char *xml)
{
    bool old;
    int flags = device_flags(v, a, dom, &old);
    const rp_dom_str plain = {*dom, (char *)xml};
    const rp_dom_str_flags args = {*dom, (char *)xml, flags};
    if (flags < 0)
        return false;
    return old ? vsh_call(v, RPC_PROC_DOMAIN_DETACH_DEVICE, &plain, NULL)
               : vsh_call(v, RPC_PROC_DOMAIN_DETACH_DEVICE_FLAGS, &args, NULL);
}

bool cmd_attach_device(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *path = vsh_text(a, "file");
    if (!vsh_domain(v, a, &dom))
        return false;
    autofree char *xml = vsh_read_file(v, path);
    if (!xml)
        return false;
    if (!attach(v, a, &dom, xml))
        return vsh_error(v, "Failed to attach device from %s", path);
    vsh_extra(v, "Device attached successfully\n");
    return true;
}

bool cmd_detach_device(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *path = vsh_text(a, "file");
    if (!vsh_domain(v, a, &dom))
        return false;
    autofree char *xml = vsh_read_file(v, path);
    if (!xml)
        return false;
    if (!detach(v, a, &dom, xml))
        return vsh_error(v, "Failed to detach device from %s", path);
    vsh_extra(v, "Device detached successfully\n");
    return true;
}

bool cmd_detach_device_alias(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int affect = vsh_affect(v, a);
    const char *alias = vsh_text(a, "alias");
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    const rp_dom_str_flags args = {dom, (char *)alias, affect};
    if (!vsh_call(v, RPC_PROC_DOMAIN_DETACH_DEVICE_ALIAS, &args, NULL))
        return vsh_error(v, "Failed to detach device with alias %s", alias);
    vsh_extra(v, "Device detach request sent successfully\n");
    return true;
}

bool cmd_update_device(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *path = vsh_text(a, "file");
    bool old;
    if (!vsh_domain(v, a, &dom))
        return false;
    autofree char *xml = vsh_read_file(v, path);
    int flags = xml ? device_flags(v, a, &dom, &old) : -1;
    if (flags < 0)
        return false;
    const rp_dom_str_flags args = {dom, xml, flags | (vsh_has(a, "force") ? 4 : 0)};
    if (!vsh_call(v, RPC_PROC_DOMAIN_UPDATE_DEVICE_FLAGS, &args, NULL))
        return vsh_error(v, "Failed to update device from %s", path);
    vsh_extra(v, "Device updated successfully\n");
    return true;
}

/* "pci:0000.00.05.0" and its like, as an <address>. NULL: said so. */
static struct xml_node *disk_address(struct vsh *v, const char *text, bool multifunction)
{
    unsigned n[4];
    char type[16];
    int end = 0;
    if (sscanf(text, "%15[a-z]:%x.%x.%x.%x%n", type, &n[0], &n[1], &n[2], &n[3], &end) == 5 && !text[end] &&
        !strcmp(type, "pci")) {
        struct xml_node *x = xml_node_new(NULL, "address", NULL);
        xml_attr_set(x, "type", "pci");
        xml_attr_setf(x, "domain", "0x%04x", n[0]);
        xml_attr_setf(x, "bus", "0x%02x", n[1]);
        xml_attr_setf(x, "slot", "0x%02x", n[2]);
        xml_attr_setf(x, "function", "0x%x", n[3]);
        if (multifunction)
            xml_attr_set(x, "multifunction", "on");
        return x;
    }
    end = 0;
    if (sscanf(text, "%15[a-z]:%u.%u.%u%n", type, &n[0], &n[1], &n[2], &end) == 4 && !text[end] &&
        (!strcmp(type, "scsi") || !strcmp(type, "ide") || !strcmp(type, "sata"))) {
        struct xml_node *x = xml_node_new(NULL, "address", NULL);
        xml_attr_set(x, "type", "drive");
        xml_attr_setf(x, "controller", "%u", n[0]);
        xml_attr_setf(x, "bus", "%u", n[1]);
        if (!strcmp(type, "scsi"))
            xml_attr_set(x, "target", "0");
        xml_attr_setf(x, "unit", "%u", n[2]);
        return x;
    }
    vsh_error(v, "Invalid address.");
    return NULL;
}

bool cmd_attach_disk(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *source = vsh_text(a, "source"), *driver = vsh_text(a, "driver"), *mode = vsh_text(a, "mode");
    const char *type = vsh_text(a, "sourcetype"), *protocol = vsh_text(a, "source-protocol");
    const char *host = vsh_text(a, "source-host-name"), *socket = vsh_text(a, "source-host-socket");
    struct stat st;
    if (!vsh_exclusive(v, a, "source-host-name", "source-host-socket") || vsh_affect(v, a) < 0 ||
        !vsh_exclusive(v, a, "persistent", "current"))
        return false;
    if (type && strcmp(type, "file") != 0 && strcmp(type, "block") != 0 && strcmp(type, "network") != 0)
        return vsh_error(v, "Unknown source type: '%s'", type);
    if (!type)
        type = protocol ? "network"
               : (!driver || (strcmp(driver, "file") != 0 && strcmp(driver, "tap") != 0)) && source &&
                       stat(source, &st) == 0 && S_ISBLK(st.st_mode)
                   ? "block"
                   : "file";
    if (!strcmp(type, "network") != !!protocol)
        return vsh_error(v, "--source-protocol option requires --sourcetype network");
    if (mode && strcmp(mode, "readonly") != 0 && strcmp(mode, "shareable") != 0)
        return vsh_error(v, "No support for %s in command 'attach-disk'", mode);

    autoxml disk = xml_node_new(NULL, "disk", NULL);
    xml_attr_set(disk, "type", type);
    xml_attr_set(disk, "device", vsh_text(a, "type"));
    if (vsh_has(a, "rawio"))
        xml_attr_set(disk, "rawio", "yes");
    if (driver || vsh_has(a, "subdriver") || vsh_has(a, "iothread") || vsh_has(a, "cache") || vsh_has(a, "io")) {
        struct xml_node *d = xml_node_new(disk, "driver", NULL);
        xml_attr_set(d, "name", driver);
        xml_attr_set(d, "type", vsh_text(a, "subdriver"));
        xml_attr_set(d, "iothread", vsh_text(a, "iothread"));
        xml_attr_set(d, "cache", vsh_text(a, "cache"));
        xml_attr_set(d, "io", vsh_text(a, "io"));
    }
    if (source && *source) {
        struct xml_node *s = xml_node_new(disk, "source", NULL);
        xml_attr_set(s, "protocol", protocol);
        xml_attr_set(s, protocol ? "name" : !strcmp(type, "block") ? "dev" : "file", source);
        if (host || socket) {
            struct xml_node *h = xml_node_new(s, "host", NULL);
            const char *colon = host ? strchr(host, ':') : NULL;
            autofree char *name =
                host ? xasprintf("%.*s", colon ? (int)(colon - host) : (int)strlen(host), host) : NULL;
            xml_attr_set(h, "transport", vsh_text(a, "source-host-transport"));
            xml_attr_set(h, "socket", socket);
            xml_attr_set(h, "name", name);
            xml_attr_set(h, "port", colon ? colon + 1 : NULL);
        }
    }
    struct xml_node *target = xml_node_new(disk, "target", NULL);
    xml_attr_set(target, "dev", vsh_text(a, "target"));
    xml_attr_set(target, "bus", vsh_text(a, "targetbus"));
    if (mode)
        xml_node_new(disk, mode, NULL);
    if (vsh_has(a, "serial"))
        xml_node_new(disk, "serial", vsh_text(a, "serial"));
    if (vsh_has(a, "alias"))
        xml_attr_set(xml_node_new(disk, "alias", NULL), "name", vsh_text(a, "alias"));
    if (vsh_has(a, "wwn"))
        xml_node_new(disk, "wwn", vsh_text(a, "wwn"));
    if (vsh_has(a, "address")) {
        struct xml_node *address = disk_address(v, vsh_text(a, "address"), vsh_has(a, "multifunction"));
        if (!address)
            return false;
        xml_append(disk, address);
    }
    autofree char *xml = xml_format(disk);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    if (!vsh_domain(v, a, &dom))
        return false;
    if (!attach(v, a, &dom, xml))
        return vsh_error(v, "Failed to attach disk");
    vsh_extra(v, "Disk attached successfully\n");
    return true;
}

/* "average,peak,burst" as an element's attributes. */
static bool add_bandwidth(struct vsh *v, struct xml_node **bandwidth, struct xml_node *iface, const char *text,
                          const char *way)
{
    unsigned long long n[4] = {0};
    if (!text)
        return true;
    char *end = (char *)text;
    for (unsigned i = 0; i < 4; i++) {
        char *at = end;
        n[i] = strtoull(at, &end, 10);
        if (*end && *end != ',')
            return vsh_error(v, "field '%s' is malformed", (const char *[]){"average", "peak", "burst", "floor"}[i]);
        if (!*end)
            break;
        end++;
    }
    if (!n[0])
        return vsh_error(v, !strcmp(way, "inbound") ? "either inbound average or floor is mandatory"
                                                    : "outbound average is mandatory");
    if (!*bandwidth)
        *bandwidth = xml_node_new(iface, "bandwidth", NULL);
    struct xml_node *w = xml_node_new(*bandwidth, way, NULL);
    xml_attr_setf(w, "average", "%llu", n[0]);
    if (n[1])
        xml_attr_setf(w, "peak", "%llu", n[1]);
    if (n[2])
        xml_attr_setf(w, "burst", "%llu", n[2]);
    if (n[3])
        xml_attr_setf(w, "floor", "%llu", n[3]);
    return true;
}

bool cmd_attach_interface(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *type = vsh_text(a, "type"), *source = vsh_text(a, "source"), *mode = vsh_text(a, "source-mode");
    if (vsh_affect(v, a) < 0 || !vsh_exclusive(v, a, "persistent", "current"))
        return false;
    autoxml iface = xml_node_new(NULL, "interface", NULL);
    xml_attr_set(iface, "type", type);
    if (vsh_has(a, "managed"))
        xml_attr_set(iface, "managed", "yes");
    struct xml_node *s = xml_node_new(iface, "source", NULL);
    if (!strcmp(type, "network") || !strcmp(type, "bridge")) {
        xml_attr_set(s, type, source);
    } else if (!strcmp(type, "direct")) {
        xml_attr_set(s, "dev", source);
    } else if (!strcmp(type, "vhostuser")) {
        if (!mode)
            return vsh_error(v, "source-mode is mandatory");
        xml_attr_set(s, "type", "unix");
        xml_attr_set(s, "path", source);
        xml_attr_set(s, "mode", mode);
    } else {
        return vsh_error(v, "No support for %s in command 'attach-interface'", type);
    }
    static const struct {
        const char *option, *element, *attr;
    } parts[] = {{"target", "target", "dev"},
                 {"mac", "mac", "address"},
                 {"script", "script", "path"},
                 {"model", "model", "type"},
                 {"alias", "alias", "name"}};
    for (unsigned i = 0; i < 5; i++)
        if (vsh_has(a, parts[i].option))
            xml_attr_set(xml_node_new(iface, parts[i].element, NULL), parts[i].attr, vsh_text(a, parts[i].option));
    struct xml_node *bandwidth = NULL;
    if (!add_bandwidth(v, &bandwidth, iface, vsh_text(a, "inbound"), "inbound") ||
        !add_bandwidth(v, &bandwidth, iface, vsh_text(a, "outbound"), "outbound"))
        return false;
    autofree char *xml = xml_format(iface);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    if (!vsh_domain(v, a, &dom))
        return false;
    if (!attach(v, a, &dom, xml))
        return vsh_error(v, "Failed to attach interface");
    vsh_extra(v, "Interface attached successfully\n");
    return true;
}

/* The documents in which a detachment looks for its device: the inactive one for --config. */
static struct xml_node *device_document(struct vsh *v, const struct vsh_args *a, const rp_domain *dom)
{
    bool inactive = vsh_has(a, "config") || (vsh_has(a, "persistent") && dom->id < 0);
    return vsh_domain_xml(v, dom, inactive ? DOM_XML_INACTIVE : 0);
}

/* The disk with that target or source. */
static struct xml_node *find_disk(struct xml_node *root, const char *which)
{
    static const char *const attrs[] = {"file", "dev", "dir", "name"};
    struct xml_node *devices = xml_child(root, "devices");
    for (struct xml_node *d = devices ? devices->first : NULL; d; d = d->next) {
        const struct xml_node *target = xml_child(d, "target"), *source = xml_child(d, "source");
        const char *dev = target ? xml_attr_get(target, "dev") : NULL;
        if (strcmp(d->name, "disk") != 0)
            continue;
        if (dev && !strcmp(dev, which))
            return d;
        for (unsigned i = 0; source && i < 4; i++)
            if (xml_attr_get(source, attrs[i]) && !strcmp(xml_attr_get(source, attrs[i]), which))
                return d;
    }
    return NULL;
}

bool cmd_detach_disk(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom) || vsh_affect(v, a) < 0)
        return false;
    autoxml root = device_document(v, a, &dom);
    if (!root)
        return false;
    const struct xml_node *disk = find_disk(root, vsh_text(a, "target"));
    if (!disk)
        return vsh_error(v, "No disk found whose source path or target is %s", vsh_text(a, "target"));
    autofree char *xml = xml_format(disk);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    if (!detach(v, a, &dom, xml))
        return vsh_error(v, "Failed to detach disk");
    vsh_extra(v, "Disk detached successfully\n");
    return true;
}

/* The one interface of `type` (any when NULL) with `mac` (any when NULL). NULL: said so. */
static struct xml_node *find_interface(struct vsh *v, struct xml_node *root, const char *type, const char *mac)
{
    struct xml_node *devices = xml_child(root, "devices"), *found = NULL;
    size_t count = 0;
    for (struct xml_node *d = devices ? devices->first : NULL; d; d = d->next) {
        const char *t = xml_attr_get(d, "type");
        const struct xml_node *m = xml_child(d, "mac");
        const char *address = m ? xml_attr_get(m, "address") : NULL;
        if (strcmp(d->name, "interface") != 0 || (type && (!t || strcmp(t, type) != 0)))
            continue;
        if (mac && (!address || strcasecmp(address, mac) != 0))
            continue;
        found = d;
        count++;
    }
    if (!found && mac)
        vsh_error(v, "No interface with MAC address %s was found", mac);
    else if (!found)
        vsh_error(v, "No interface found whose type is %s", type);
    else if (count > 1 && !mac)
        vsh_error(v, "Domain has %zu interfaces. Please specify which one to detach using --mac", count);
    else if (count > 1)
        vsh_error(v,
                  "Domain has multiple interfaces matching MAC address %s. You must use detach-device and specify the "
                  "device pci address to remove it.",
                  mac);
    return count == 1 ? found : NULL;
}

bool cmd_detach_interface(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom) || vsh_affect(v, a) < 0)
        return false;
    autoxml root = device_document(v, a, &dom);
    const struct xml_node *iface = root ? find_interface(v, root, vsh_text(a, "type"), vsh_text(a, "mac")) : NULL;
    autofree char *xml = iface ? xml_format(iface) : NULL;
    if (xml && vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    if (!xml || !detach(v, a, &dom, xml))
        return vsh_error(v, "Failed to detach interface");
    vsh_extra(v, "Interface detached successfully\n");
    return true;
}

bool cmd_domif_setlink(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *which = vsh_text(a, "interface"), *state = vsh_text(a, "state");
    if (!vsh_domain(v, a, &dom))
        return false;
    if (strcmp(state, "up") != 0 && strcmp(state, "down") != 0)
        return vsh_error(v, "invalid link state '%s'", state);
    bool config = vsh_has(a, "config");
    unsigned flags = config || dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, &dom) == 0 ? DOM_CONFIG : DOM_LIVE;
    autoxml root = vsh_domain_xml(v, &dom, config ? DOM_XML_INACTIVE : 0);
    struct xml_node *devices = root ? xml_child(root, "devices") : NULL, *found = NULL;
    if (!root)
        return false;
    for (struct xml_node *d = devices ? devices->first : NULL; d && !found; d = d->next) {
        const struct xml_node *m = xml_child(d, "mac"), *t = xml_child(d, "target");
        const char *mac = m ? xml_attr_get(m, "address") : NULL, *dev = t ? xml_attr_get(t, "dev") : NULL;
        if (!strcmp(d->name, "interface") && ((mac && !strcasecmp(mac, which)) || (dev && !strcasecmp(dev, which))))
            found = d;
    }
    if (!found)
        return vsh_error(v, "interface '%s' not found", which);
    struct xml_node *link = xml_child(found, "link");
    xml_attr_set(link ? link : xml_node_new(found, "link", NULL), "state", state);
    autofree char *xml = xml_format(found);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    const rp_dom_str_flags args = {dom, xml, flags};
    if (!vsh_call(v, RPC_PROC_DOMAIN_UPDATE_DEVICE_FLAGS, &args, NULL))
        return vsh_error(v, "Failed to update interface link state");
    vsh_extra(v, "Device updated successfully\n");
    return true;
}

/* Takes the children of that name out of an element. */
static void drop_children(struct xml_node *n, const char *name)
{
    struct xml_node *rest = n->first, *next;
    n->first = n->last = NULL;
    for (; rest; rest = next) {
        next = rest->next;
        rest->next = NULL;
        rest->parent = NULL;
        if (!strcmp(rest->name, name))
            xml_free(rest);
        else
            xml_append(n, rest);
    }
}

bool cmd_change_media(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    const char *path = vsh_text(a, "path"), *source = vsh_text(a, "source");
    bool eject = vsh_has(a, "eject"), insert = vsh_has(a, "insert"), update = vsh_has(a, "update");
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_exclusive(v, a, "eject", "insert") || !vsh_exclusive(v, a, "eject", "update") ||
        !vsh_exclusive(v, a, "insert", "update") || !vsh_exclusive(v, a, "eject", "block"))
        return false;
    eject |= update && !source;
    if (!vsh_domain(v, a, &dom))
        return false;
    autoxml root = vsh_domain_xml(v, &dom, affect & DOM_CONFIG ? DOM_XML_INACTIVE : 0);
    if (!root)
        return false;
    struct xml_node *disk = find_disk(root, path);
    const char *device = disk ? xml_attr_get(disk, "device") : NULL;
    if (!device || (strcmp(device, "cdrom") != 0 && strcmp(device, "floppy") != 0))
        return vsh_error(v, "No disk found whose source path or target is %s", path);
    struct xml_node *has = xml_child(disk, "source");
    if (eject && !has)
        return vsh_error(v, "The disk device '%s' doesn't have media", path);
    if (!eject && !source)
        return vsh_error(v, "New disk media source was not specified");
    if (insert && has && has->attrs)
        return vsh_error(v, "The disk device '%s' already has media", path);
    drop_children(disk, "source");
    bool block = vsh_has(a, "block") && !eject;
    xml_attr_set(disk, "type", block ? "block" : "file");
    if (!eject)
        xml_attr_set(xml_node_new(disk, "source", NULL), block ? "dev" : "file", source);
    autofree char *xml = xml_format(disk);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    const rp_dom_str_flags args = {dom, xml, affect | (vsh_has(a, "force") ? 4 : 0)};
    const char *verb = eject ? "eject" : insert ? "insert" : "update";
    if (!vsh_call(v, RPC_PROC_DOMAIN_UPDATE_DEVICE_FLAGS, &args, NULL))
        return vsh_error(v, "Failed to complete action %s on media", verb);
    printf("Successfully %sed media.", eject ? "eject" : insert ? "insert" : "updat");
    return true;
}
