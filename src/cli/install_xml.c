/* The document that virt-install's options describe. See install.h. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/install.h"

void install_set(struct xml_node *n, const char *path, const char *value)
{
    autofree char *copy = xstrdup(path);
    char *attr = strchr(copy, '@'), *save = NULL;
    if (attr)
        *attr++ = 0;
    for (char *step = strtok_r(copy, "/", &save); step; step = strtok_r(NULL, "/", &save)) {
        struct xml_node *c = xml_child(n, step);
        n = c ? c : xml_node_new(n, step, NULL);
    }
    if (attr) {
        xml_attr_set(n, attr, value);
        return;
    }
    free(n->text);
    n->text = value ? xstrdup(value) : NULL;
}

bool install_option(struct xml_node *n, const char *const *aliases, const char *key, const char *value,
                    const char *what)
{
    for (const char *const *a = aliases; a && *a; a += 2)
        if (!strcmp(a[0], key)) {
            install_set(n, a[1], value ? value : "yes");
            return true;
        }
    const char *dot = strrchr(key, '.');
    if (!dot && (!aliases || !*aliases || !strcmp(key, "type") || !strcmp(key, "model"))) {
        install_set(n, strcmp(key, "model") ? "@type" : "@model", value);
        return true;
    }
    if (!dot)
        return install_error("Unknown --%s options: ['%s']", what, key);
    /* "address.type" is an attribute of a child, "backend.source.mode" of a grandchild. */
    autofree char *path = xstrdup(key);
    for (char *c = path; *c; c++)
        if (*c == '.')
            *c = c == path + (dot - key) ? '@' : '/';
    install_set(n, path, value);
    return true;
}

/* "on"/"off" for yes and no. */
static const char *on_off(const char *value)
{
    return !value || !strcmp(value, "on") || !strcmp(value, "yes") ? "on" : "off";
}

static void random_mac(char ret[18])
{
    uint8_t b[3] = {0};
    if (getrandom(b, sizeof(b), 0) < 0)
        b[0] = getpid();
    snprintf(ret, 18, "52:54:00:%02x:%02x:%02x", b[0], b[1], b[2]);
}

static void random_uuid(char ret[37])
{
    rp_uuid u = {{0}};
    if (getrandom(u.bytes, sizeof(u.bytes), 0) < 0)
        u.bytes[0] = getpid();
    u.bytes[6] = (u.bytes[6] & 0x0f) | 0x40;
    u.bytes[8] = (u.bytes[8] & 0x3f) | 0x80;
    vsh_uuid_text(&u, ret);
}

/* Sub-options into attributes and children of one device element. */
static bool device(struct xml_node *n, const char *spec, const char *const *aliases, const char *first_key,
                   const char *what)
{
    autofree char *copy = xstrdup(spec);
    char *at = copy, *key, *value;
    for (bool first = true; (key = cli_next_part(&at, &value)); first = false) {
        if (first && !value && first_key)
            install_set(n, first_key, key);
        else if (!install_option(n, aliases, key, value, what))
            return false;
    }
    return true;
}

static bool add_memory(struct install *in, struct xml_node *root)
{
    uint64_t bytes = in->os.ram ? in->os.ram : 0, current = 0;
    autofree char *copy = in->memory ? xstrdup(in->memory) : NULL;
    char *at = copy, *key, *value;
    for (bool first = true; copy && (key = cli_next_part(&at, &value)); first = false) {
        bool main = (first && !value) || !strcmp(key, "memory") || !strcmp(key, "maxmemory");
        uint64_t n;
        if (!strcmp(key, "hugepages")) {
            install_set(root, "memoryBacking/hugepages", NULL);
            continue;
        }
        if (cli_parse_size(main && !value ? key : value ? value : "", 1 << 20, &n) < 0)
            return install_error("Error: --memory %s: '%s' is not a number of MiB", in->memory, value ? value : key);
        if (main)
            bytes = n;
        else if (!strcmp(key, "currentMemory") || !strcmp(key, "current"))
            current = n;
        else
            return install_error("Unknown --memory options: ['%s']", key);
    }
    if (!bytes)
        return install_error("\n--memory amount in MiB is required");
    autofree char *max = xasprintf("%llu", (unsigned long long)bytes / 1024);
    autofree char *now = xasprintf("%llu", (unsigned long long)(current ? current : bytes) / 1024);
    xml_node_new(root, "memory", max);
    xml_node_new(root, "currentMemory", now);
    return true;
}

static bool add_vcpus(struct install *in, struct xml_node *root)
{
    autofree char *count = xasprintf("%u", in->os.cpus ? in->os.cpus : 1);
    struct xml_node *vcpu = xml_node_new(root, "vcpu", count), *cpu = NULL;
    autofree char *copy = in->vcpus ? xstrdup(in->vcpus) : NULL;
    char *at = copy, *key, *value, max[16] = "";
    unsigned n, product = 1;
    bool first = true, given = false;
    for (; copy && (key = cli_next_part(&at, &value)); first = false) {
        if ((first && !value) || !strcmp(key, "vcpus")) {
            if (cli_parse_number(value ? value : key, 1, 65535, &n) < 0)
                return install_error("Error: --vcpus %s: '%s' is not a number", in->vcpus, value ? value : key);
            free(vcpu->text);
            vcpu->text = xasprintf("%u", n);
            given = true;
        } else if (!strcmp(key, "maxvcpus")) {
            snprintf(max, sizeof(max), "%s", value ? value : "");
        } else if (!strcmp(key, "cpuset") || !strcmp(key, "placement")) {
            xml_attr_set(vcpu, key, value);
        } else if (!strcmp(key, "sockets") || !strcmp(key, "cores") || !strcmp(key, "threads") ||
                   !strcmp(key, "dies")) {
            if (!value || cli_parse_number(value, 1, 65535, &n) < 0)
                return install_error("Error: --vcpus %s: '%s' is not a number", in->vcpus, value ? value : "");
            product *= n;
            autofree char *path = xasprintf("topology@%s", key);
            if (!cpu)
                cpu = xml_node_new(root, "cpu", NULL);
            install_set(cpu, path, value);
        } else {
            return install_error("Unknown --vcpus options: ['%s']", key);
        }
    }
    if (cpu) {
        static const char *const parts[] = {"sockets", "cores", "threads"};
        struct xml_node *t = xml_child(cpu, "topology");
        for (unsigned i = 0; i < 3; i++)
            if (!xml_attr_get(t, parts[i]))
                xml_attr_set(t, parts[i], "1");
        if (!given) {
            free(vcpu->text);
            vcpu->text = xasprintf("%u", product);
        }
    }
    if (*max) {
        xml_attr_set(vcpu, "current", vcpu->text);
        free(vcpu->text);
        vcpu->text = xstrdup(max);
    }
    return true;
}

static bool add_cpu(struct install *in, struct xml_node *root, bool kvm)
{
    struct xml_node *cpu = xml_child(root, "cpu");
    const char *spec = in->cpu ? in->cpu : kvm ? "host-passthrough" : NULL;
    if (!spec)
        return true;
    if (!cpu)
        cpu = xml_node_new(root, "cpu", NULL);
    autofree char *copy = xstrdup(spec);
    char *at = copy, *key, *value;
    for (bool first = true; (key = cli_next_part(&at, &value)); first = false) {
        static const char *const policies[] = {"force", "require", "optional", "disable", "forbid"};
        bool policy = false;
        for (unsigned i = 0; i < 5; i++)
            policy |= !strcmp(key, policies[i]);
        if (first && !value &&
            (!strcmp(key, "host-passthrough") || !strcmp(key, "host-model") || !strcmp(key, "maximum"))) {
            xml_attr_set(cpu, "mode", key);
        } else if (first && !value && !strcmp(key, "host")) {
            xml_attr_set(cpu, "mode", "host-passthrough");
        } else if (!value && (*key == '+' || *key == '-')) {
            struct xml_node *f = xml_node_new(cpu, "feature", NULL);
            xml_attr_set(f, "policy", *key == '+' ? "require" : "disable");
            xml_attr_set(f, "name", key + 1);
        } else if (policy && value) {
            struct xml_node *f = xml_node_new(cpu, "feature", NULL);
            xml_attr_set(f, "policy", key);
            xml_attr_set(f, "name", value);
        } else if ((first && !value) || !strcmp(key, "model")) {
            xml_attr_set(cpu, "mode", "custom");
            xml_attr_set(cpu, "match", "exact");
            install_set(cpu, "model", value ? value : key);
        } else {
            static const char *const aliases[] = {"mode",
                                                  "@mode",
                                                  "match",
                                                  "@match",
                                                  "check",
                                                  "@check",
                                                  "vendor",
                                                  "vendor",
                                                  "migratable",
                                                  "@migratable",
                                                  "topology.sockets",
                                                  "topology@sockets",
                                                  NULL};
            if (!install_option(cpu, aliases, key, value, "cpu"))
                return false;
        }
    }
    return true;
}

/* --boot: devices in order, a kernel, firmware. */
static bool add_boot(struct install *in, struct xml_node *os, bool first)
{
    autofree char *copy = in->boot ? xstrdup(in->boot) : NULL;
    char *at = copy, *key, *value;
    bool devices = false;
    if (first && in->kernel) {
        xml_node_new(os, "kernel", in->kernel);
        xml_node_new(os, "initrd", in->initrd);
        if (in->args)
            xml_node_new(os, "cmdline", in->args);
    } else if (first && (in->cdrom || in->pxe)) {
        xml_attr_set(xml_node_new(os, "boot", NULL), "dev", in->pxe ? "network" : "cdrom");
    }
    while (copy && (key = cli_next_part(&at, &value))) {
        if (!value && (!strcmp(key, "hd") || !strcmp(key, "cdrom") || !strcmp(key, "network") || !strcmp(key, "fd"))) {
            xml_attr_set(xml_node_new(os, "boot", NULL), "dev", key);
            devices = true;
        } else if (!strcmp(key, "uefi")) {
            xml_attr_set(os, "firmware", "efi");
        } else if (!strcmp(key, "menu")) {
            install_set(os, "bootmenu@enable", !strcmp(on_off(value), "on") ? "yes" : "no");
        } else if (!strcmp(key, "useserial")) {
            install_set(os, "bios@useserial", !strcmp(on_off(value), "on") ? "yes" : "no");
        } else if (!strcmp(key, "kernel") || !strcmp(key, "initrd") || !strcmp(key, "dtb") || !strcmp(key, "loader") ||
                   !strcmp(key, "nvram")) {
            autofree char *path = value ? cli_absolute(value) : NULL;
            if (!(first && in->kernel))
                install_set(os, key, path);
        } else if (!strcmp(key, "kernel_args") || !strcmp(key, "extra_args") || !strcmp(key, "cmdline")) {
            install_set(os, "cmdline", value);
        } else if (!strcmp(key, "machine")) {
            install_set(os, "type@machine", value);
        } else {
            static const char *const aliases[] = {"loader_ro",
                                                  "loader@readonly",
                                                  "loader_type",
                                                  "loader@type",
                                                  "loader_secure",
                                                  "loader@secure",
                                                  "nvram_template",
                                                  "nvram@template",
                                                  "firmware",
                                                  "@firmware",
                                                  "rebootTimeout",
                                                  "bios@rebootTimeout",
                                                  NULL};
            if (!install_option(os, aliases, key, value, "boot"))
                return false;
        }
    }
    if (!devices && !(first && (in->kernel || in->cdrom || in->pxe)) && !xml_child(os, "kernel"))
        xml_attr_set(xml_node_new(os, "boot", NULL), "dev", "hd");
    return true;
}

/* Does the daemon have the network "default"? */
static bool has_default_network(struct install *in)
{
    rp_string name = (char *)"default";
    autonetwork net = {0};
    bool found = vsh_call(&in->v, RPC_PROC_NETWORK_LOOKUP_BY_NAME, &name, &net);
    vsh_error_reset(&in->v);
    return found;
}

static bool add_network(struct install *in, struct xml_node *devices, const char *spec)
{
    static const char *const aliases[] = {"type",
                                          "@type",
                                          "model",
                                          "model@type",
                                          "mac",
                                          "mac@address",
                                          "target",
                                          "target@dev",
                                          "source_mode",
                                          "source@mode",
                                          "source_type",
                                          "source@type",
                                          "source_path",
                                          "source@path",
                                          "portgroup",
                                          "source@portgroup",
                                          "boot_order",
                                          "boot@order",
                                          "boot.order",
                                          "boot@order",
                                          "link_state",
                                          "link@state",
                                          "filterref",
                                          "filterref@filter",
                                          "driver_name",
                                          "driver@name",
                                          "driver_queues",
                                          "driver@queues",
                                          "rom_file",
                                          "rom@file",
                                          "rom_bar",
                                          "rom@bar",
                                          "trustGuestRxFilters",
                                          "@trustGuestRxFilters",
                                          "mtu.size",
                                          "mtu@size",
                                          "virtualport_type",
                                          "virtualport@type",
                                          "passt",
                                          "backend@type",
                                          NULL};
    if (!strcmp(spec, "none"))
        return true;
    struct xml_node *n = xml_node_new(devices, "interface", NULL);
    autofree char *copy = xstrdup(spec);
    char *at = copy, *key, *value;
    for (bool first = true; (key = cli_next_part(&at, &value)); first = false) {
        if (first && !value && !strcmp(key, "user")) {
            xml_attr_set(n, "type", "user");
        } else if (first && !value && !strcmp(key, "default")) {
            xml_attr_set(n, "type", "network");
            install_set(n, "source@network", "default");
        } else if (first && !value) {
            xml_attr_set(n, "type", "bridge");
            install_set(n, "source@bridge", key);
        } else if (!strcmp(key, "network") || !strcmp(key, "bridge")) {
            xml_attr_set(n, "type", key);
            autofree char *path = xasprintf("source@%s", key);
            install_set(n, path, value);
        } else if (!strcmp(key, "source")) {
            const char *type = xml_attr_get(n, "type");
            autofree char *path = xasprintf("source@%s", !type || !strcmp(type, "network") ? "network"
                                                         : !strcmp(type, "bridge")         ? "bridge"
                                                                                           : "dev");
            install_set(n, path, value);
        } else if (!install_option(n, aliases, key, value, "network")) {
            return false;
        }
    }
    if (!xml_attr_get(n, "type"))
        xml_attr_set(n, "type", "network");
    char mac[18];
    random_mac(mac);
    const struct xml_node *m = xml_child(n, "mac");
    if (!m || !xml_attr_get(m, "address") || strchr(xml_attr_get(m, "address"), ':') == NULL)
        install_set(n, "mac@address", mac);
    if (!xml_child(n, "model"))
        install_set(n, "model@type", in->os.net || in->virtio_only ? "virtio" : "e1000e");
    return true;
}

static bool add_graphics(struct xml_node *devices, const char *spec)
{
    static const char *const aliases[] = {
        "type",    "@type",   "port",    "@port",     "listen",     "@listen",         "password",
        "@passwd", "keymap",  "@keymap", "tlsport",   "@tlsPort",   "passwordvalidto", "@passwdValidTo",
        "socket",  "@socket", "gl",      "gl@enable", "rendernode", "gl@rendernode",   NULL};
    if (!strcmp(spec, "none"))
        return true;
    struct xml_node *n = xml_node_new(devices, "graphics", NULL);
    if (!device(n, spec, aliases, "@type", "graphics"))
        return false;
    if (!xml_attr_get(n, "type"))
        xml_attr_set(n, "type", "vnc");
    if (!xml_attr_get(n, "port")) {
        xml_attr_set(n, "port", "-1");
        xml_attr_set(n, "autoport", "yes");
    }
    return true;
}

/* serial, parallel, console, channel: a host side of some type, a guest side. */
static bool add_chardev(struct xml_node *devices, const char *element, const char *spec)
{
    static const char *const aliases[] = {
        "type",        "@type",       "path",           "source@path",    "source_path", "source@path",
        "host",        "source@host", "mode",           "source@mode",    "protocol",    "protocol@type",
        "target_type", "target@type", "target.type",    "target@type",    "name",        "target@name",
        "target_name", "target@name", "target_address", "target@address", "target_port", "target@port",
        "log_file",    "log@file",    "log_append",     "log@append",     NULL};
    if (!strcmp(spec, "none"))
        return true;
    struct xml_node *n = xml_node_new(devices, element, NULL);
    return device(n, spec, aliases, "@type", element);
}

static bool add_other(struct xml_node *devices, const char *kind, const char *spec)
{
    static const struct {
        const char *kind, *first;
        const char *aliases[16];
    } kinds[] = {
        {"controller", "@type", {"type", "@type", "model", "@model", "index", "@index", "ports", "@ports", NULL}},
        {"input", "@type", {"type", "@type", "bus", "@bus", NULL}},
        {"video",
         "model@type",
         {"model", "model@type", "type", "model@type", "vram", "model@vram", "ram", "model@ram", "heads", "model@heads",
          "vgamem", "model@vgamem", NULL}},
        {"sound", "@model", {"model", "@model", NULL}},
        {"watchdog", "@model", {"model", "@model", "action", "@action", NULL}},
        {"memballoon", "@model", {"model", "@model", NULL}},
        {"rng", "backend", {"type", "backend@model", "device", "backend", NULL}},
        {"tpm",
         "backend/device@path",
         {"path", "backend/device@path", "model", "@model", "type", "backend@type", "version", "backend@version",
          NULL}},
        {"panic", "@model", {"model", "@model", "iobase", "address@iobase", NULL}},
        {"filesystem",
         "source@dir",
         {"source", "source@dir", "target", "target@dir", "type", "@type", "accessmode", "@accessmode", "mode",
          "@accessmode", NULL}},
        {"hostdev", "@source", {"type", "@type", "driver_name", "driver@name", NULL}},
        {"vsock", "cid@address", {"cid.address", "cid@address", "cid.auto", "cid@auto", "model", "@model", NULL}},
        {"shmem", "@name", {"name", "@name", "role", "@role", NULL}},
        {"iommu", "@model", {"model", "@model", NULL}},
        {"audio", "@type", {"type", "@type", "id", "@id", NULL}},
        {"redirdev", "@bus", {"bus", "@bus", "type", "@type", "server", "source@host", NULL}},
        {"smartcard", "@mode", {"mode", "@mode", "type", "@type", NULL}},
        {"memory", "@model", {"model", "@model", NULL}},
    };
    unsigned i = 0;
    while (i < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[i].kind, kind) != 0)
        i++;
    if (!strcmp(spec, "none") && strcmp(kind, "memballoon") != 0)
        return true;
    struct xml_node *n = xml_node_new(devices, kind, NULL);
    if (i == sizeof(kinds) / sizeof(kinds[0]))
        return device(n, spec, NULL, "@type", kind);
    if (!strcmp(kind, "rng")) {
        xml_attr_set(n, "model", "virtio");
        install_set(n, "backend@model", "random");
    }
    if (!device(n, spec, kinds[i].aliases, kinds[i].first, kind))
        return false;
    if (!strcmp(kind, "panic") && !strcmp(xml_attr_get(n, "model") ? xml_attr_get(n, "model") : "", "default"))
        xml_attr_set(n, "model", "isa");
    if (!strcmp(kind, "hostdev") && xml_attr_get(n, "source")) {
        /* "01:00.0" or "pci_0000_01_00_0" */
        unsigned a = 0, b, c, d;
        const char *text = xml_attr_get(n, "source");
        if (sscanf(text, "pci_%x_%x_%x_%x", &a, &b, &c, &d) != 4 && sscanf(text, "%x:%x:%x.%x", &a, &b, &c, &d) != 4 &&
            (a = 0, sscanf(text, "%x:%x.%x", &b, &c, &d)) != 3)
            return install_error("Unknown host device '%s'", text);
        char value[4][12];
        snprintf(value[0], 12, "0x%04x", a);
        snprintf(value[1], 12, "0x%02x", b);
        snprintf(value[2], 12, "0x%02x", c);
        snprintf(value[3], 12, "0x%x", d);
        xml_attr_set(n, "source", "");
        n->attrs = NULL;
        n->attrs_last = NULL;
        xml_attr_set(n, "mode", "subsystem");
        xml_attr_set(n, "type", "pci");
        xml_attr_set(n, "managed", "yes");
        install_set(n, "source/address@domain", value[0]);
        install_set(n, "source/address@bus", value[1]);
        install_set(n, "source/address@slot", value[2]);
        install_set(n, "source/address@function", value[3]);
    }
    return true;
}

static bool add_features(struct install *in, struct xml_node *root)
{
    struct xml_node *f = xml_node_new(root, "features", NULL);
    xml_node_new(f, "acpi", NULL);
    xml_node_new(f, "apic", NULL);
    autofree char *copy = in->features ? xstrdup(in->features) : NULL;
    char *at = copy, *key, *value;
    while (copy && (key = cli_next_part(&at, &value))) {
        static const char *const plain[] = {"acpi", "apic", "pae", "hap", "viridian", "privnet"};
        bool is_plain = false;
        for (unsigned i = 0; i < 6; i++)
            is_plain |= !strcmp(key, plain[i]);
        if (is_plain && !strcmp(on_off(value), "on")) {
            if (!xml_child(f, key))
                xml_node_new(f, key, NULL);
        } else if (is_plain) {
            struct xml_node **link = &f->first, *gone;
            while (*link && strcmp((*link)->name, key) != 0)
                link = &(*link)->next;
            if ((gone = *link)) {
                *link = gone->next;
                gone->next = gone->parent = NULL;
                xml_free(gone);
                f->last = NULL;
                for (struct xml_node *c = f->first; c; c = c->next)
                    f->last = c;
            }
        } else if (!strncmp(key, "hyperv_", 7) || !strncmp(key, "kvm_", 4)) {
            const char *rest = strchr(key, '_') + 1;
            autofree char *path =
                xasprintf("%s/%s@state", *key == 'h' ? "hyperv" : "kvm", !strcmp(rest, "hidden") ? "hidden" : rest);
            install_set(f, path, on_off(value));
        } else if (strchr(key, '.')) {
            if (!install_option(f, NULL, key, value, "features"))
                return false;
        } else {
            autofree char *path = xasprintf("%s@state", key);
            install_set(f, path, on_off(value));
        }
    }
    return true;
}

/* Elements of the top level that are nothing but sub-options. */
static bool add_top(struct xml_node *root, const char *element, const char *spec, const char *first)
{
    if (!spec)
        return true;
    struct xml_node *n = xml_child(root, element);
    if (!n)
        n = xml_node_new(root, element, NULL);
    autofree char *copy = xstrdup(spec);
    char *at = copy, *key, *value;
    for (bool start = true; (key = cli_next_part(&at, &value)); start = false) {
        if (start && !value && first) {
            install_set(n, first, key);
        } else if (strchr(key, '.')) {
            if (!install_option(n, NULL, key, value, element))
                return false;
        } else if (!strcmp(element, "memoryBacking") || !strcmp(element, "memtune")) {
            bool off = value && (!strcmp(value, "off") || !strcmp(value, "no"));
            if (!off)
                install_set(n, key, value && strcmp(value, "on") != 0 && strcmp(value, "yes") != 0 ? value : NULL);
        } else {
            autofree char *path = xasprintf("@%s", key);
            install_set(n, path, value);
        }
    }
    return true;
}

static bool add_events(struct install *in, struct xml_node *root, bool first)
{
    autofree char *copy = in->events ? xstrdup(in->events) : NULL;
    char *at = copy, *key, *value;
    while (copy && (key = cli_next_part(&at, &value)))
        install_set(root, key, value);
    /* The installation's reboot is where it ends; the second boot has another document. */
    if (first && !xml_child(root, "on_reboot"))
        xml_node_new(root, "on_reboot", "destroy");
    return true;
}

static bool add_metadata(struct install *in, struct xml_node *root)
{
    char uuid[37];
    random_uuid(uuid);
    struct xml_node *u = xml_node_new(root, "uuid", in->uuid ? in->uuid : uuid);
    autofree char *copy = in->metadata ? xstrdup(in->metadata) : NULL;
    char *at = copy, *key, *value;
    while (copy && (key = cli_next_part(&at, &value))) {
        if (!strcmp(key, "title") || !strcmp(key, "description") || !strcmp(key, "uuid") || !strcmp(key, "name"))
            install_set(root, key, value);
        else if (strcmp(key, "os_name") != 0 && strcmp(key, "os_full_id") != 0)
            return install_error("Unknown --metadata options: ['%s']", key);
    }
    in->uuid = u->text;
    if (in->description)
        install_set(root, "description", in->description);
    if (in->os.id && *in->os.family) {
        struct xml_node *m = xml_node_new(xml_node_new(root, "metadata", NULL), "libosinfo:libosinfo", NULL);
        xml_attr_set(m, "xmlns:libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0");
        xml_attr_set(xml_node_new(m, "libosinfo:os", NULL), "id", in->os.id);
    }
    return true;
}

/* --xml: "./cpu/@mode=host", "xpath.delete=./clock"; steps are names, optionally with [number]. */
static bool apply_xml(struct xml_node *root, const char *spec)
{
    bool del = !strncmp(spec, "xpath.delete=", 13), create = !strncmp(spec, "xpath.create=", 13);
    const char *path = del || create ? spec + 13 : !strncmp(spec, "xpath.set=", 10) ? spec + 10 : spec;
    const char *equals = del || create ? path + strlen(path) : strchr(path, '=');
    const char *comma = strstr(path, ",xpath.value=");
    if (comma)
        equals = comma;
    if (!equals)
        return install_error("--xml %s: expected XPATH=VALUE", spec);
    const char *value = comma ? comma + 13 : *equals ? equals + 1 : "";
    autofree char *copy = xasprintf("%.*s", (int)(equals - path), path);
    char *save = NULL, *attr = NULL;
    struct xml_node *n = root, *parent = NULL;
    for (char *step = strtok_r(copy, "/", &save); step; step = strtok_r(NULL, "/", &save)) {
        if (!strcmp(step, ".") || (n == root && !strcmp(step, root->name)))
            continue;
        if (*step == '@') {
            attr = step + 1;
            break;
        }
        char *bracket = strchr(step, '[');
        long want = bracket ? strtol(bracket + 1, NULL, 10) : 1;
        if (bracket)
            *bracket = 0;
        struct xml_node *c = n->first;
        for (; c; c = c->next)
            if (!strcmp(c->name, step) && --want <= 0)
                break;
        parent = n;
        n = c && !create ? c : del ? NULL : xml_node_new(n, step, NULL);
        if (!n)
            return true;
    }
    if (del && attr) {
        xml_attr_set(n, attr, "");
    } else if (del && parent) {
        struct xml_node **link = &parent->first;
        while (*link != n)
            link = &(*link)->next;
        *link = n->next;
        n->next = n->parent = NULL;
        xml_free(n);
        parent->last = NULL;
        for (struct xml_node *c = parent->first; c; c = c->next)
            parent->last = c;
    } else if (attr) {
        xml_attr_set(n, attr, value);
    } else if (!create) {
        free(n->text);
        n->text = xstrdup(value);
    }
    return true;
}

/* What the daemon says it offers: the first domain type of this architecture, KVM before all. */
static bool kvm_offered(struct install *in)
{
    rp_string text;
    if (!vsh_call(&in->v, RPC_PROC_CONNECT_GET_CAPABILITIES, NULL, &text)) {
        vsh_error_reset(&in->v);
        return false;
    }
    bool kvm = strstr(text, "<domain type='kvm'") != NULL;
    in->virtio_only = strstr(text, "/lodge-vm<") != NULL; /* our machines have no e1000e */
    free(text);
    return kvm;
}

static bool add_devices(struct install *in, struct xml_node *root, bool first)
{
    struct xml_node *devices = xml_node_new(root, "devices", NULL);
    bool graphics = in->graphics[0] && strcmp(in->graphics[0], "none") != 0, none = in->graphics[0] && !graphics;
    for (unsigned i = 0; in->disk[i]; i++)
        if (!install_disk(in, devices, in->disk[i], first && !in->dry_run && !in->print_xml))
            return false;
    if (in->cdrom) {
        struct xml_node *d = xml_node_new(devices, "disk", NULL);
        autofree char *path = cli_absolute(in->cdrom);
        xml_attr_set(d, "type", "file");
        xml_attr_set(d, "device", "cdrom");
        install_set(d, "driver@name", "qemu");
        install_set(d, "driver@type", "raw");
        if (first)
            install_set(d, "source@file", path);
        xml_node_new(d, "readonly", NULL);
        install_disk_target(devices, d, "sata");
    }
    if (in->cloud_image && first) {
        struct xml_node *d = xml_node_new(devices, "disk", NULL);
        xml_attr_set(d, "type", "file");
        xml_attr_set(d, "device", "cdrom");
        install_set(d, "driver@name", "qemu");
        install_set(d, "driver@type", "raw");
        install_set(d, "source@file", in->cloud_image);
        xml_node_new(d, "readonly", NULL);
        install_disk_target(devices, d, "sata");
    }
    for (unsigned i = 0; in->controller[i]; i++)
        if (!add_other(devices, "controller", in->controller[i]))
            return false;
    for (unsigned i = 0; in->network[i]; i++)
        if (!add_network(in, devices, in->network[i]))
            return false;
    if (!in->network[0] && !add_network(in, devices, !in->session && has_default_network(in) ? "default" : "user"))
        return false;
    for (unsigned i = 0; in->serial[i]; i++)
        if (!add_chardev(devices, "serial", in->serial[i]))
            return false;
    for (unsigned i = 0; in->console[i]; i++)
        if (!add_chardev(devices, "console", in->console[i]))
            return false;
    if (!in->serial[0] && !in->console[0])
        add_chardev(devices, "console", "pty");
    for (unsigned i = 0; in->channel[i]; i++)
        if (!add_chardev(devices, "channel", in->channel[i]))
            return false;
    if (!in->channel[0] && in->os.channel)
        add_chardev(devices, "channel", "unix,source.mode=bind,target.type=virtio,name=org.qemu.guest_agent.0");
    for (unsigned i = 0; in->input[i]; i++)
        if (!add_other(devices, "input", in->input[i]))
            return false;
    if (!in->input[0] && !none && in->os.tablet)
        add_other(devices, "input", "tablet,bus=usb");
    for (unsigned i = 0; in->graphics[i]; i++)
        if (!add_graphics(devices, in->graphics[i]))
            return false;
    if (!in->graphics[0])
        add_graphics(devices, "vnc");
    for (unsigned i = 0; in->video[i]; i++)
        if (!add_other(devices, "video", in->video[i]))
            return false;
    if (!in->video[0] && !none)
        add_other(devices, "video", in->os.gpu ? "virtio" : "vga");
    bool balloon = false, rng = false;
    for (unsigned i = 0; in->other[i]; i++) {
        balloon |= !strcmp(in->other_kind[i], "memballoon");
        rng |= !strcmp(in->other_kind[i], "rng");
        if (!add_other(devices, in->other_kind[i], in->other[i]))
            return false;
    }
    if (!balloon)
        add_other(devices, "memballoon", "virtio");
    if (!rng && in->os.rng)
        add_other(devices, "rng", "/dev/urandom");
    return true;
}

struct xml_node *install_document(struct install *in, bool first)
{
    bool offered = kvm_offered(in), kvm = in->virt_type ? !strcmp(in->virt_type, "kvm") : offered;
    struct xml_node *root = xml_node_new(NULL, "domain", NULL);
    xml_attr_set(root, "type", in->virt_type ? in->virt_type : kvm ? "kvm" : "qemu");
    xml_node_new(root, "name", in->name);
    bool ok = add_metadata(in, root) && add_memory(in, root) &&
              add_top(root, "memoryBacking", in->memorybacking, NULL) && add_vcpus(in, root) &&
              (!in->iothreads || (install_set(root, "iothreads", in->iothreads), true));
    struct xml_node *os = xml_node_new(root, "os", NULL);
    struct xml_node *type = xml_node_new(os, "type", "hvm");
    xml_attr_set(type, "arch", in->arch ? in->arch : "x86_64");
    xml_attr_set(type, "machine", in->machine ? in->machine : "q35");
    ok = ok && add_boot(in, os, first) && add_features(in, root) && add_cpu(in, root, kvm);
    install_set(root, "clock@offset", "utc");
    ok = ok && add_top(root, "clock", in->clock, "@offset") && add_events(in, root, first && !in->import) &&
         add_top(root, "pm", in->pm, NULL) && add_top(root, "numatune", in->numatune, "memory@nodeset") &&
         add_top(root, "memtune", in->memtune, NULL) && add_top(root, "cputune", in->cputune, NULL) &&
         add_top(root, "sysinfo", in->sysinfo, "@type") && add_top(root, "seclabel", in->seclabel, "@type") &&
         add_devices(in, root, first);
    for (unsigned i = 0; ok && in->xml[i]; i++)
        ok = apply_xml(root, in->xml[i]);
    if (!ok) {
        xml_free(root);
        return NULL;
    }
    return root;
}
