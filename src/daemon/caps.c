/* The documents that describe the host and what guests may have: clients choose machine, CPU, buses and devices by
 * them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/host.h"
#include "domain/xml.h"

static const struct {
    const char *name;
    const char *canonical;
} machines[] = {{"pc-q35-7.2", NULL}, {"q35", "pc-q35-7.2"}, {"micro", NULL}, {"microvm", NULL}};

/* The names in cpu/models.c, which the daemon does not link; tests/unit/test_daemon.c compares the two. */
const char *const caps_cpu_models[] = {
    "qemu64",
    "kvm64",
    "x86-64-v1",
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v4",
    "core2duo",
    "Conroe",
    "Penryn",
    "Nehalem",
    "Westmere",
    "SandyBridge",
    "IvyBridge",
    "Haswell-noTSX",
    "Haswell",
    "Broadwell-noTSX",
    "Broadwell",
    "Skylake-Client-noTSX-IBRS",
    "Skylake-Client",
    "Skylake-Server",
    "Skylake-Server-noTSX-IBRS",
    "Cascadelake-Server",
    "Cascadelake-Server-noTSX",
    "Icelake-Server-noTSX",
    "Icelake-Server",
    "SapphireRapids",
    "EPYC",
    "EPYC-Rome",
    "EPYC-Milan",
    "EPYC-Genoa",
    NULL,
};

/* A child with text made of a format. */
static struct xml_node *putf(struct xml_node *parent, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static struct xml_node *putf(struct xml_node *parent, const char *name, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return xml_node_new(parent, name, text);
}

static struct xml_node *put(struct xml_node *parent, const char *name)
{
    return xml_node_new(parent, name, NULL);
}

/* The first line of a small file, without what cannot stand in a document. NULL: none. */
static char *first_line(const char *path)
{
    FILE *f = fopen(path, "re");
    char line[256];
    char *got = f ? fgets(line, sizeof line, f) : NULL;
    if (f)
        fclose(f);
    if (!got)
        return NULL;
    line[strcspn(line, "\n")] = 0;
    size_t n = strlen(line);
    while (n && line[n - 1] == ' ')
        line[--n] = 0;
    return xml_valid_text(line) && n ? xstrdup(line) : NULL;
}

/* "GenuineIntel" -> Intel. */
static const char *cpu_vendor(void)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    const char *vendor = NULL;
    while (f && !vendor && fgets(line, sizeof line, f)) {
        if (strstr(line, "GenuineIntel"))
            vendor = "Intel";
        else if (strstr(line, "AuthenticAMD"))
            vendor = "AMD";
        else if (!strncmp(line, "flags", 5))
            break;
    }
    if (f)
        fclose(f);
    return vendor;
}

static void put_host_cpu(struct xml_node *host)
{
    struct host_info h;
    host_info_read(&h);
    struct xml_node *cpu = put(host, "cpu");
    putf(cpu, "arch", "x86_64");
    putf(cpu, "model", "qemu64");
    if (cpu_vendor())
        putf(cpu, "vendor", "%s", cpu_vendor());
    struct xml_node *t = put(cpu, "topology");
    xml_attr_setf(t, "sockets", "%u", h.sockets);
    xml_attr_set(t, "dies", "1");
    xml_attr_setf(t, "cores", "%u", h.cores);
    xml_attr_setf(t, "threads", "%u", h.threads);
    for (unsigned i = 0; i < 2; i++) {
        struct xml_node *pages = put(cpu, "pages");
        xml_attr_set(pages, "unit", "KiB");
        xml_attr_set(pages, "size", i ? "2048" : "4");
    }
}

static void put_topology(struct xml_node *host)
{
    struct host_info h;
    host_info_read(&h);
    struct xml_node *cells = put(put(host, "topology"), "cells");
    xml_attr_set(cells, "num", "1");
    struct xml_node *cell = put(cells, "cell");
    xml_attr_set(cell, "id", "0");
    xml_attr_set(putf(cell, "memory", "%llu", (unsigned long long)(h.memory / KIB)), "unit", "KiB");
    struct xml_node *cpus = put(cell, "cpus");
    xml_attr_setf(cpus, "num", "%u", h.cpus);
    for (unsigned i = 0; i < host_cpus_present() && i < 1024; i++) {
        struct xml_node *c = put(cpus, "cpu");
        unsigned core = i / (h.threads ? h.threads : 1);
        xml_attr_setf(c, "id", "%u", i);
        xml_attr_setf(c, "socket_id", "%u", core / (h.cores ? h.cores : 1));
        xml_attr_set(c, "die_id", "0");
        xml_attr_setf(c, "core_id", "%u", core);
        xml_attr_setf(c, "siblings", "%u", i);
    }
}

static void put_host_uuid(struct xml_node *host)
{
    char *id = first_line("/sys/class/dmi/id/product_uuid");
    if (!id || strlen(id) != 36) {
        free(id);
        id = first_line("/etc/machine-id");
        if (id && strlen(id) == 32) {
            char *dashed = xasprintf("%.8s-%.4s-%.4s-%.4s-%.12s", id, id + 8, id + 12, id + 16, id + 20);
            free(id);
            id = dashed;
        }
    }
    if (id && strlen(id) == 36)
        putf(host, "uuid", "%s", id);
    free(id);
}

static void put_guest(struct xml_node *root, const struct daemon *d)
{
    struct xml_node *guest = put(root, "guest");
    putf(guest, "os_type", "hvm");
    struct xml_node *arch = put(guest, "arch");
    xml_attr_set(arch, "name", "x86_64");
    putf(arch, "wordsize", "64");
    putf(arch, "emulator", "%s", d->emulator);
    for (unsigned i = 0; i < ARRAY_SIZE(machines); i++) {
        struct xml_node *m = putf(arch, "machine", "%s", machines[i].name);
        xml_attr_set(m, "canonical", machines[i].canonical);
        xml_attr_setf(m, "maxCpus", "%u", HOST_VCPUS_MAX);
    }
    xml_attr_set(put(arch, "domain"), "type", "qemu");
    if (access("/dev/kvm", R_OK | W_OK) == 0)
        xml_attr_set(put(arch, "domain"), "type", "kvm");
    struct xml_node *f = put(guest, "features");
    struct xml_node *acpi = put(f, "acpi");
    xml_attr_set(acpi, "default", "on");
    xml_attr_set(acpi, "toggle", "yes");
    struct xml_node *apic = put(f, "apic");
    xml_attr_set(apic, "default", "on");
    xml_attr_set(apic, "toggle", "no");
    put(f, "cpuselection");
    put(f, "deviceboot");
    struct xml_node *snap = put(f, "disksnapshot");
    xml_attr_set(snap, "default", "on");
    xml_attr_set(snap, "toggle", "no");
}

char *caps_host(struct daemon *d)
{
    struct xml_node *root = xml_node_new(NULL, "capabilities", NULL);
    struct xml_node *host = put(root, "host");
    put_host_uuid(host);
    put_host_cpu(host);
    put(put(host, "power_management"), "suspend_mem");
    xml_attr_set(put(host, "iommu"), "support", "no");
    put_topology(host);
    struct xml_node *sec = put(host, "secmodel");
    putf(sec, "model", "none");
    putf(sec, "doi", "0");
    put_guest(root, d);
    char *text = xml_format(root);
    xml_free(root);
    return text;
}

/* <NAME supported='yes'><enum name='…'><value>… */
static struct xml_node *section(struct xml_node *parent, const char *name, bool supported)
{
    struct xml_node *n = put(parent, name);
    xml_attr_set(n, "supported", supported ? "yes" : "no");
    return n;
}

static void put_enum(struct xml_node *n, const char *name, const char *const *values)
{
    struct xml_node *e = put(n, "enum");
    xml_attr_set(e, "name", name);
    for (; *values; values++)
        putf(e, "value", "%s", *values);
}
#define ENUM(n, name, ...) put_enum(n, name, (const char *const[]){__VA_ARGS__, NULL})
#define ENUM_EMPTY(n, name) put_enum(n, name, (const char *const[]){NULL})

static void put_os(struct xml_node *root)
{
    struct xml_node *os = section(root, "os", true);
    ENUM(os, "firmware", "bios", "efi");
    struct xml_node *loader = section(os, "loader", true);
    if (access("/usr/share/OVMF/OVMF_CODE_4M.fd", R_OK) == 0)
        putf(loader, "value", "/usr/share/OVMF/OVMF_CODE_4M.fd");
    ENUM(loader, "type", "rom", "pflash");
    ENUM(loader, "readonly", "yes", "no");
    ENUM(loader, "secure", "no");
}

static void put_cpu_modes(struct xml_node *root)
{
    struct xml_node *cpu = put(root, "cpu");
    static const char *const simple[] = {"host-passthrough", "maximum"};
    for (unsigned i = 0; i < ARRAY_SIZE(simple); i++) {
        struct xml_node *m = put(cpu, "mode");
        xml_attr_set(m, "name", simple[i]);
        xml_attr_set(m, "supported", "yes");
        ENUM(m, i ? "maximumMigratable" : "hostPassthroughMigratable", "on", "off");
    }
    struct xml_node *m = put(cpu, "mode");
    xml_attr_set(m, "name", "host-model");
    xml_attr_set(m, "supported", "yes");
    xml_attr_set(putf(m, "model", "qemu64"), "fallback", "allow");
    m = put(cpu, "mode");
    xml_attr_set(m, "name", "custom");
    xml_attr_set(m, "supported", "yes");
    for (unsigned i = 0; caps_cpu_models[i]; i++)
        xml_attr_set(putf(m, "model", "%s", caps_cpu_models[i]), "usable", "yes");
}

static void put_device_caps(struct xml_node *root)
{
    struct xml_node *devices = put(root, "devices");
    struct xml_node *n = section(devices, "disk", true);
    ENUM(n, "diskDevice", "disk", "cdrom");
    ENUM(n, "bus", "virtio", "sata");
    ENUM(n, "model", "virtio", "virtio-non-transitional");
    n = section(devices, "graphics", true);
    ENUM(n, "type", "vnc");
    n = section(devices, "video", true);
    ENUM(n, "modelType", "vga", "none");
    n = section(devices, "hostdev", false);
    ENUM_EMPTY(n, "mode");
    n = section(devices, "rng", true);
    ENUM(n, "model", "virtio", "virtio-non-transitional");
    ENUM(n, "backendModel", "random", "builtin");
    n = section(devices, "filesystem", true);
    ENUM(n, "driverType", "path");
    n = section(devices, "tpm", false);
    ENUM_EMPTY(n, "model");
    n = section(devices, "redirdev", false);
    ENUM_EMPTY(n, "bus");
    n = section(devices, "channel", true);
    ENUM(n, "type", "unix", "pty");
}

static void put_feature_caps(struct xml_node *root)
{
    static const char *const no[] = {"gic",    "vmcoreinfo",     "genid", "backingStoreInput",
                                     "backup", "async-teardown", "sev",   "sgx"};
    struct xml_node *f = put(root, "features");
    for (unsigned i = 0; i < ARRAY_SIZE(no); i++)
        section(f, no[i], false);
}

char *caps_domain(struct daemon *d, const char *emulator, const char *arch, const char *machine, const char *type,
                  struct rpc_error *e)
{
    const char *name = NULL;
    if (arch && strcmp(arch, "x86_64")) {
        verr_set(e, VIR_INVALID_ARG, "unknown or unsupported architecture '%.60s'", arch);
        return NULL;
    }
    if (type && strcmp(type, "kvm") && strcmp(type, "qemu")) {
        verr_set(e, VIR_INVALID_ARG, "unknown virttype: %.60s", type);
        return NULL;
    }
    if (!type)
        type = access("/dev/kvm", R_OK | W_OK) == 0 ? "kvm" : "qemu";
    for (unsigned i = 0; i < ARRAY_SIZE(machines) && !name; i++)
        if (!machine || !strcmp(machine, "pc") || !strcmp(machines[i].name, machine))
            name = machines[i].canonical ? machines[i].canonical : machines[i].name;
    if (!name) {
        verr_set(e, VIR_INVALID_ARG, "the machine '%.60s' is not supported by emulator '%s'", machine, d->emulator);
        return NULL;
    }
    struct xml_node *root = xml_node_new(NULL, "domainCapabilities", NULL);
    putf(root, "path", "%s", d->emulator);
    putf(root, "domain", "%s", type);
    putf(root, "machine", "%s", name);
    putf(root, "arch", "x86_64");
    xml_attr_setf(put(root, "vcpu"), "max", "%u", HOST_VCPUS_MAX);
    xml_attr_set(put(root, "iothreads"), "supported", "yes");
    put_os(root);
    put_cpu_modes(root);
    struct xml_node *backing = section(root, "memoryBacking", true);
    ENUM(backing, "sourceType", "anonymous", "memfd");
    put_device_caps(root);
    put_feature_caps(root);
    char *text = xml_format(root);
    xml_free(root);
    return text;
}

static void entry(struct xml_node *parent, const char *name, const char *file)
{
    autofree char *path = xasprintf("/sys/class/dmi/id/%s", file);
    autofree char *value = first_line(path);
    if (value)
        xml_attr_set(xml_node_new(parent, "entry", value), "name", name);
}

char *caps_sysinfo(void)
{
    struct xml_node *root = xml_node_new(NULL, "sysinfo", NULL);
    xml_attr_set(root, "type", "smbios");
    struct xml_node *n = put(root, "bios");
    entry(n, "vendor", "bios_vendor");
    entry(n, "version", "bios_version");
    entry(n, "date", "bios_date");
    entry(n, "release", "bios_release");
    n = put(root, "system");
    entry(n, "manufacturer", "sys_vendor");
    entry(n, "product", "product_name");
    entry(n, "version", "product_version");
    entry(n, "serial", "product_serial");
    entry(n, "uuid", "product_uuid");
    entry(n, "sku", "product_sku");
    entry(n, "family", "product_family");
    n = put(root, "baseBoard");
    entry(n, "manufacturer", "board_vendor");
    entry(n, "product", "board_name");
    entry(n, "version", "board_version");
    entry(n, "serial", "board_serial");
    n = put(root, "chassis");
    entry(n, "manufacturer", "chassis_vendor");
    entry(n, "version", "chassis_version");
    entry(n, "serial", "chassis_serial");
    char *text = xml_format(root);
    xml_free(root);
    return text;
}
