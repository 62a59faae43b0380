/* Domain XML to struct domain: everything but <devices>. Says only what the document says; see defaults.c for the rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/domain.h"
#include "domain/reader.h"

/* <memory unit='GiB'>2</memory>, in bytes; KiB without a unit. */
static uint64_t parse_memory(struct reader *r, struct xml_node *n)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {
        {"b", 1},         {"bytes", 1},       {"KB", 1000},       {"k", KIB}, {"KiB", KIB}, {"MB", 1000000},
        {"M", MIB},       {"MiB", MIB},       {"GB", 1000000000}, {"G", GIB}, {"GiB", GIB}, {"TB", 1000000000000},
        {"T", GIB << 10}, {"TiB", GIB << 10},
    };
    const char *unit = reader_attr(n, "unit");
    if (!n || !n->text) /* empty is as good as absent: what we format has one where only unknown attributes are left */
        return 0;
    uint64_t scale = unit ? 0 : KIB;
    for (unsigned i = 0; unit && i < ARRAY_SIZE(units); i++)
        if (!strcasecmp(units[i].name, unit))
            scale = units[i].bytes;
    if (!scale) {
        reader_fail(r, n, "<%s unit>: unknown unit '%.40s'", n->name, unit);
        return 0;
    }
    autofree char *label = xasprintf("<%s>", n->name);
    return reader_num(r, n, label, n->text, (UINT64_MAX >> 1) / scale) * scale;
}

static unsigned parse_child_count(struct reader *r, struct xml_node *n, const char *name)
{
    struct xml_node *c = reader_child(n, name);
    if (!c || !c->text) /* as with <memory> */
        return 0;
    autofree char *label = xasprintf("<%s>", name);
    return reader_num(r, c, label, c->text, 65535);
}

static void parse_os(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_os *os = &d->os;
    if (!n)
        return;
    reader_attr_str(n, "firmware", &os->firmware);
    struct xml_node *type = reader_child(n, "type");
    if (type) {
        domain_set(&os->type, type->text);
        reader_attr_str(type, "arch", &os->arch);
        reader_attr_str(type, "machine", &os->machine);
    }
    reader_child_str(n, "loader", &os->loader);
    struct xml_node *loader = reader_child(n, "loader"), *nvram = reader_child(n, "nvram"), *menu;
    reader_attr_str(loader, "type", &os->loader_type);
    os->loader_readonly = reader_attr_switch(r, loader, "readonly");
    os->loader_secure = reader_attr_switch(r, loader, "secure");
    if (nvram)
        domain_set(&os->nvram, nvram->text);
    reader_attr_str(nvram, "template", &os->nvram_template);
    menu = reader_child(n, "bootmenu");
    os->bootmenu = reader_attr_switch(r, menu, "enable");
    os->bootmenu_timeout = (unsigned)reader_attr_num(r, menu, "timeout", 0, 65535);
    reader_child_str(n, "kernel", &os->kernel);
    reader_child_str(n, "initrd", &os->initrd);
    reader_child_str(n, "cmdline", &os->cmdline);
    for (struct xml_node *c = n->first; c; c = c->next) {
        if (strcmp(c->name, "boot"))
            continue;
        c->used = true;
        const char *dev = reader_attr(c, "dev");
        if (dev)
            *DOMAIN_ADD(os, boot) = xstrdup(dev);
        else
            reader_fail(r, c, "<boot> has no dev attribute");
    }
    reader_keep(r, n, &os->unknown, "", NULL);
}

static void parse_feature(struct reader *r, struct xml_node *n, struct domain_cpu *cpu)
{
    static const char *const policies[] = {"force", "require", "optional", "disable", "forbid"};
    const char *name = reader_attr(n, "name");
    const char *policy = reader_attr(n, "policy");
    if (!name || !*name) {
        reader_fail(r, n, "<feature> has no name");
        return;
    }
    unsigned i = 1;
    if (policy)
        for (i = 0; i < ARRAY_SIZE(policies) && strcmp(policies[i], policy); i++)
            ;
    if (i == ARRAY_SIZE(policies)) {
        reader_fail(r, n, "CPU feature '%.40s': unknown policy '%.40s'", name, policy);
        return;
    }
    struct domain_cpu_feature *f = DOMAIN_ADD(cpu, features);
    f->name = xstrdup(name);
    f->policy = policy ? xstrdup(policy) : NULL;
    f->on = i < 3;
}

static void parse_cpu(struct reader *r, struct xml_node *n, struct domain *d)
{
    struct domain_cpu *cpu = &d->cpu;
    if (!n)
        return;
    cpu->mode = reader_attr_word(r, n, "mode", domain_cpu_mode_find, DOMAIN_CPU_NONE);
    reader_attr_str(n, "match", &cpu->match);
    reader_attr_str(n, "check", &cpu->check);
    reader_attr_str(n, "migratable", &cpu->migratable);
    struct xml_node *model = reader_child(n, "model");
    if (model) {
        domain_set(&cpu->model, model->text);
        reader_attr_str(model, "fallback", &cpu->fallback);
        if (cpu->mode == DOMAIN_CPU_NONE)
            cpu->mode = DOMAIN_CPU_CUSTOM;
    }
    struct xml_node *topology = reader_child(n, "topology");
    cpu->sockets = reader_attr_num(r, topology, "sockets", 0, 65535);
    cpu->dies = reader_attr_num(r, topology, "dies", 0, 65535);
    cpu->cores = reader_attr_num(r, topology, "cores", 0, 65535);
    cpu->threads = reader_attr_num(r, topology, "threads", 0, 65535);
    for (struct xml_node *c = n->first; c; c = c->next) {
        if (!strcmp(c->name, "feature")) {
            c->used = true;
            parse_feature(r, c, cpu);
        }
    }
    reader_keep(r, n, &cpu->unknown, "", NULL);
}

static bool is_timer(const struct xml_node *n)
{
    return !strcmp(n->name, "timer");
}

static void parse_clock(struct reader *r, struct xml_node *n, struct domain *d)
{
    if (!n)
        return;
    reader_attr_str(n, "offset", &d->clock.offset);
    for (struct xml_node *c = n->first; c; c = c->next) {
        if (!is_timer(c))
            continue;
        c->used = true;
        struct domain_timer *t = DOMAIN_ADD(&d->clock, timers);
        reader_attr_str(c, "name", &t->name);
        reader_attr_str(c, "tickpolicy", &t->tickpolicy);
        t->present = reader_attr_switch(r, c, "present");
        if (!t->name)
            reader_fail(r, c, "<timer> has no name");
        reader_keep(r, c, &t->unknown, "", NULL);
    }
    reader_keep(r, n, &d->clock.unknown, "", is_timer);
}

/* <acpi/>; <pae state='off'/>. */
static enum domain_tristate parse_switch_child(struct reader *r, struct xml_node *n, const char *name)
{
    struct xml_node *c = reader_child(n, name);
    if (!c)
        return DOMAIN_DEFAULT;
    enum domain_tristate state = reader_attr_switch(r, c, "state");
    return state == DOMAIN_DEFAULT ? DOMAIN_ON : state;
}

static void parse_features(struct reader *r, struct xml_node *n, struct domain *d)
{
    if (!n)
        return;
    d->has_features = true;
    d->acpi = parse_switch_child(r, n, "acpi");
    d->apic = parse_switch_child(r, n, "apic");
    d->pae = parse_switch_child(r, n, "pae");
    d->vmport = parse_switch_child(r, n, "vmport");
}

static enum domain_action parse_action(struct reader *r, struct xml_node *n, const char *name)
{
    struct xml_node *c = reader_child(n, name);
    if (!c)
        return DOMAIN_ACTION_NONE;
    int v = domain_action_find(c->text ? c->text : "");
    if (v < 0)
        reader_fail(r, c, "<%s>: unknown action '%.40s'", name, c->text ? c->text : "");
    return v < 0 ? DOMAIN_ACTION_NONE : v;
}

/* The prefix that stands for our namespace at the root, NULL when there is none. */
static const char *lodge_prefix(struct xml_node *root)
{
    for (struct xml_attr *a = root->attrs; a; a = a->next) {
        if (!strncmp(a->name, "xmlns:", 6) && !strcmp(a->value, DOMAIN_LODGE_NS)) {
            a->used = true;
            return a->name + 6;
        }
    }
    return NULL;
}

static void parse_engine(struct reader *r, struct xml_node *root, struct domain *d)
{
    reader_attr_str(root, "type", &d->type_name);
    if (!d->type_name) {
        reader_fail(r, root, "<domain> has no type attribute (kvm or qemu)");
        return;
    }
    if (!strcmp(d->type_name, "kvm"))
        d->engine = DOMAIN_ENGINE_KVM;
    else if (!strcmp(d->type_name, "qemu"))
        d->engine = DOMAIN_ENGINE_SOFT;
    const char *prefix = lodge_prefix(root);
    if (!prefix)
        return;
    autofree char *name = xasprintf("%s:engine", prefix);
    struct xml_node *n = reader_child(root, name);
    if (!n)
        return;
    d->engine = reader_attr_word(r, n, "name", domain_engine_find, d->engine);
    d->engine_chaos = reader_attr_num(r, n, "chaos", 0, INT64_MAX);
    d->engine_perf_map = reader_attr_switch(r, n, "perf-map") == DOMAIN_ON;
}

/* The elements below <domain> whose unknown parts are kept elsewhere. */
static bool has_own_unknown(const struct xml_node *n)
{
    if (!n->parent->parent)
        return !strcmp(n->name, "os") || !strcmp(n->name, "cpu") || !strcmp(n->name, "clock");
    return reader_is_device(n);
}

static void parse_domain(struct reader *r, struct xml_node *root, struct domain *d)
{
    if (strcmp(root->name, "domain")) {
        reader_fail(r, root, "the document is a <%.40s>, not a <domain>", root->name);
        return;
    }
    parse_engine(r, root, d);
    d->id = reader_attr_num(r, root, "id", 0, INT32_MAX);
    reader_child_str(root, "name", &d->name);
    d->has_uuid = reader_uuid(r, reader_child(root, "uuid"), d->uuid);
    reader_child_str(root, "title", &d->title);
    reader_child_str(root, "description", &d->description);
    d->memory = parse_memory(r, reader_child(root, "memory"));
    d->current_memory = parse_memory(r, reader_child(root, "currentMemory"));
    d->vcpus = parse_child_count(r, root, "vcpu");
    d->vcpus_current = reader_attr_num(r, reader_child(root, "vcpu"), "current", 0, 65535);
    d->iothreads = parse_child_count(r, root, "iothreads");
    parse_os(r, reader_child(root, "os"), d);
    parse_features(r, reader_child(root, "features"), d);
    parse_cpu(r, reader_child(root, "cpu"), d);
    parse_clock(r, reader_child(root, "clock"), d);
    d->on_poweroff = parse_action(r, root, "on_poweroff");
    d->on_reboot = parse_action(r, root, "on_reboot");
    d->on_crash = parse_action(r, root, "on_crash");
    struct xml_node *pm = reader_child(root, "pm");
    d->suspend_to_mem = reader_attr_switch(r, reader_child(pm, "suspend-to-mem"), "enabled");
    d->suspend_to_disk = reader_attr_switch(r, reader_child(pm, "suspend-to-disk"), "enabled");
    struct xml_node *devices = reader_child(root, "devices");
    if (devices)
        reader_devices(r, devices, d);
    reader_keep(r, root, &d->unknown, "", has_own_unknown);
}

int domain_parse(const char *xml, size_t len, const char *name, struct domain **ret, struct err *err)
{
    struct xml_node *root;
    int code = xml_parse(xml, len, name, &root, err);
    if (code)
        return code;
    struct reader r = {.name = name, .err = err};
    struct domain *d = domain_new();
    parse_domain(&r, root, d);
    xml_free(root);
    if (r.code) {
        domain_free(d);
        return r.code;
    }
    *ret = d;
    return 0;
}

int domain_parse_fd(int fd, const char *name, struct domain **ret, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_errno(err, -errno, "%s", name);
    if (S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "%s: is a directory, not a domain document", name);
    size_t cap = 16 * KIB, len = 0;
    autofree char *buf = malloc(cap);
    if (!buf)
        return err_set(err, -ENOMEM, "%s: out of memory", name);
    for (;;) {
        ssize_t n = S_ISREG(st.st_mode) ? pread(fd, buf + len, cap - len, len) : read(fd, buf + len, cap - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, -errno, "%s", name);
        if (n == 0)
            break;
        len += n;
        if (len > XML_MAX_BYTES)
            return err_set(err, -EFBIG, "%s: larger than %u MiB, not a domain document", name, XML_MAX_BYTES >> 20);
        if (len == cap) {
            char *bigger = realloc(buf, cap *= 2);
            if (!bigger)
                return err_set(err, -ENOMEM, "%s: out of memory", name);
            buf = bigger;
        }
    }
    return domain_parse(buf, len, name, ret, err);
}

int domain_parse_file(const char *path, struct domain **ret, struct err *err)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, -errno, "%s", path);
    return domain_parse_fd(fd, path, ret, err);
}
