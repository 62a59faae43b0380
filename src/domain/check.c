/*
 * Is a domain, with its defaults filled in, one that lodge-vm can run? Looks at the document only, never at the host:
 * whether files exist and devices open is found out by whoever opens them.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "domain/display.h"
#include "domain/domain.h"
#include "domain/xml.h"

#define VCPUS_MAX 255
#define MEMORY_MIN (2 * MIB)
#define MEMORY_MAX (4096 * GIB)

struct check {
    const struct domain *d;
    const char *name; /* of the file, NULL: none */
    struct err *err;
};

static int bad(const struct check *c, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int bad(const struct check *c, int line, const char *fmt, ...)
{
    char msg[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (!c->name)
        return err_set(c->err, -EINVAL, "%s", msg);
    if (!line)
        return err_set(c->err, -EINVAL, "%s: %s", c->name, msg);
    return err_set(c->err, -EINVAL, "%s:%d: %s", c->name, line, msg);
}

static int check_path(const struct check *c, int line, const char *what, const char *path)
{
    if (!xml_valid_text(path))
        return bad(c, line, "%s: the path is not UTF-8 text", what);
    if (*path != '/')
        return bad(c, line, "%s: '%.200s' is not an absolute path", what, path);
    return 0;
}

static int check_identity(const struct check *c)
{
    const struct domain *d = c->d;
    if (!d->name || !*d->name)
        return bad(c, 0, "the domain has no <name>");
    if (strchr(d->name, '/') || !strcmp(d->name, ".") || !strcmp(d->name, "..") || !xml_valid_text(d->name) ||
        strlen(d->name) > 200)
        return bad(c, 0, "'%.60s' is not a domain name: at most 200 characters, without '/'", d->name);
    if (d->engine == DOMAIN_ENGINE_NONE)
        return bad(c, 0, "domain type '%.40s' is not supported, only kvm and qemu", d->type_name ? d->type_name : "");
    if (strcmp(d->os.type, "hvm"))
        return bad(c, 0, "<os><type>: '%.40s' is not supported, only hvm", d->os.type);
    if (strcmp(d->os.arch, "x86_64"))
        return bad(c, 0, "<os><type arch>: '%.40s' is not supported, only x86_64", d->os.arch);
    if (d->os.board != DOMAIN_BOARD_Q35 && d->os.board != DOMAIN_BOARD_MICRO)
        return bad(c, 0, "<os><type machine>: '%.40s' is not supported, only q35 and micro", d->os.machine);
    return 0;
}

static int check_size(const struct check *c)
{
    const struct domain *d = c->d;
    if (!d->memory)
        return bad(c, 0, "the domain has no <memory>");
    if (d->memory < MEMORY_MIN || d->memory > MEMORY_MAX)
        return bad(c, 0, "<memory>: %llu KiB is not between %llu MiB and %llu GiB",
                   (unsigned long long)(d->memory / KIB), MEMORY_MIN / MIB, MEMORY_MAX / GIB);
    if (d->memory % 4096)
        return bad(c, 0, "<memory>: %llu bytes are not a multiple of 4 KiB", (unsigned long long)d->memory);
    if (d->current_memory > d->memory)
        return bad(c, 0, "<currentMemory> is larger than <memory>");
    if (d->vcpus < 1 || d->vcpus > VCPUS_MAX)
        return bad(c, 0, "<vcpu>: %u is not between 1 and %u", d->vcpus, VCPUS_MAX);
    if (d->vcpus_current > d->vcpus)
        return bad(c, 0, "<vcpu current>: %u is more than the %u there are", d->vcpus_current, d->vcpus);
    const struct domain_cpu *cpu = &d->cpu;
    if (cpu->sockets || cpu->cores || cpu->threads || cpu->dies) {
        uint64_t product = 1ull * (cpu->sockets ?: 1) * (cpu->dies ?: 1);
        if (product > VCPUS_MAX || (product *= cpu->cores ?: 1) > VCPUS_MAX ||
            (product *= cpu->threads ?: 1) != d->vcpus)
            return bad(c, 0, "<cpu><topology>: sockets * dies * cores * threads is not the number of vCPUs, %u",
                       d->vcpus);
    }
    if (cpu->mode == DOMAIN_CPU_CUSTOM && (!cpu->model || !*cpu->model))
        return bad(c, 0, "<cpu mode='custom'> has no <model>");
    if (d->iothreads > 64)
        return bad(c, 0, "<iothreads>: %u is more than 64", d->iothreads);
    return 0;
}

static int check_boot(const struct check *c)
{
    const struct domain_os *os = &c->d->os;
    int r;
    if (!os->kernel && c->d->os.board == DOMAIN_BOARD_MICRO)
        return bad(c, 0, "<os> names no <kernel>: the micro board has no firmware to boot a disk with");
    if (os->kernel && (r = check_path(c, 0, "<kernel>", os->kernel)))
        return r;
    if (os->loader && (r = check_path(c, 0, "<loader>", os->loader)))
        return r;
    if (os->nvram && (r = check_path(c, 0, "<nvram>", os->nvram)))
        return r;
    if (os->nvram_template && (r = check_path(c, 0, "<nvram template>", os->nvram_template)))
        return r;
    if (os->firmware && strcmp(os->firmware, "bios") && strcmp(os->firmware, "efi"))
        return bad(c, 0, "<os firmware>: '%.40s' is neither bios nor efi", os->firmware);
    if (os->loader_type && strcmp(os->loader_type, "rom") && strcmp(os->loader_type, "pflash"))
        return bad(c, 0, "<loader type>: '%.40s' is neither rom nor pflash", os->loader_type);
    for (unsigned i = 0; i < os->n_boot; i++)
        if (strcmp(os->boot[i], "hd") && strcmp(os->boot[i], "cdrom") && strcmp(os->boot[i], "network") &&
            strcmp(os->boot[i], "fd"))
            return bad(c, 0, "<boot dev>: '%.40s' is none of hd, cdrom, network and fd", os->boot[i]);
    if (os->initrd && (r = check_path(c, 0, "<initrd>", os->initrd)))
        return r;
    if (os->cmdline && (!xml_valid_text(os->cmdline) || strlen(os->cmdline) > 65535))
        return bad(c, 0, "<cmdline> is not text of at most 64 KiB");
    return 0;
}

static int check_disk(const struct check *c, const struct domain_disk *k)
{
    const struct domain *d = c->d;
    char what[80];
    snprintf(what, sizeof what, "disk '%.40s'", k->target);
    if (k->type == DOMAIN_DISK_OTHER)
        return bad(c, k->line, "%s: type '%.40s' is not supported, only file and block", what, k->type_name);
    if (k->bus != DOMAIN_BUS_VIRTIO && k->bus != DOMAIN_BUS_SATA)
        return bad(c, k->line, "%s: bus '%s' is not supported, only virtio and sata", what, domain_bus_name(k->bus));
    if (k->bus == DOMAIN_BUS_SATA && d->os.board == DOMAIN_BOARD_MICRO)
        return bad(c, k->line, "%s: the micro board has no SATA controller, only virtio", what);
    if (k->device != DOMAIN_DISK_DISK && k->device != DOMAIN_DISK_CDROM)
        return bad(c, k->line, "%s: device '%s' is not supported, only disk and cdrom", what,
                   domain_disk_device_name(k->device));
    bool drive = k->device == DOMAIN_DISK_CDROM && k->bus == DOMAIN_BUS_SATA;
    if (!k->source && !drive)
        return bad(c, k->line, "%s has no <source>", what);
    int r = k->source ? check_path(c, k->line, what, k->source) : 0;
    if (r)
        return r;
    if (k->iothread > d->iothreads)
        return bad(c, k->line, "%s: there is no I/O thread %u, only %u", what, k->iothread, d->iothreads);
    if (k->queues > 256)
        return bad(c, k->line, "%s: %u queues are more than 256", what, k->queues);
    if (k->serial && strlen(k->serial) > 20)
        return bad(c, k->line, "%s: the serial number is longer than 20 characters", what);
    for (const struct domain_disk *o = d->disks; o < k; o++)
        if (!strcmp(o->target, k->target))
            return bad(c, k->line, "%s: there is another disk of that name", what);
    return 0;
}

static int check_interface(const struct check *c, const struct domain_interface *i, unsigned index)
{
    const struct domain *d = c->d;
    bool by_daemon = i->type == DOMAIN_NET_NETWORK || i->type == DOMAIN_NET_BRIDGE;
    if (by_daemon && (!i->target || !*i->target)) /* lodged names the tap device that it has made */
        return bad(c, i->line, "interface %u: type '%s' is connected by lodged; start the guest through it, or use type user or ethernet",
                   index, i->type == DOMAIN_NET_NETWORK ? "network" : "bridge");
    if (!by_daemon && i->type != DOMAIN_NET_USER && i->type != DOMAIN_NET_ETHERNET)
        return bad(c, i->line, "interface %u: type '%.40s' is not supported, only network, bridge, user and ethernet", index,
                   i->type_name ? i->type_name : "");
    if (i->model != DOMAIN_NIC_VIRTIO)
        return bad(c, i->line, "interface %u: model '%.40s' is not supported, only virtio", index,
                   i->model_name ? i->model_name : "");
    if (i->mac[0] & 1)
        return bad(c, i->line, "interface %u: its MAC address is a multicast address", index);
    if (i->type == DOMAIN_NET_USER && strcmp(i->backend, "passt"))
        return bad(c, i->line, "interface %u: backend '%.40s' is not supported, only passt", index, i->backend);
    if (i->type == DOMAIN_NET_ETHERNET && (!i->target || !*i->target))
        return bad(c, i->line, "interface %u: type ethernet needs the name of a tap device in <target dev>", index);
    if (i->target && strlen(i->target) > 15)
        return bad(c, i->line, "interface %u: '%.40s' is not the name of a network device", index, i->target);
    if (i->type == DOMAIN_NET_USER && i->queues > 1)
        return bad(c, i->line, "interface %u: type user has one queue only", index);
    for (unsigned o = 0; o < index; o++)
        if (!memcmp(d->interfaces[o].mac, i->mac, 6))
            return bad(c, i->line, "interface %u has the MAC address of interface %u", index, o);
    return 0;
}

static int check_chardev(const struct check *c, int line, const char *what, const struct domain_chardev *h)
{
    if (h->type == DOMAIN_CHARDEV_OTHER)
        return bad(c, line, "%s: type '%.40s' is not supported, only pty, file, unix, stdio and null", what,
                   h->type_name ? h->type_name : "");
    if (h->type != DOMAIN_CHARDEV_FILE && h->type != DOMAIN_CHARDEV_UNIX)
        return 0;
    if (!h->path)
        return bad(c, line, "%s: type %s has no <source path>", what, h->type_name);
    if (h->type == DOMAIN_CHARDEV_UNIX && strlen(h->path) > 107)
        return bad(c, line, "%s: the path of a UNIX socket is at most 107 bytes long", what);
    return check_path(c, line, what, h->path);
}

static int check_consoles(const struct check *c)
{
    const struct domain *d = c->d;
    unsigned stdio = 0;
    char what[80];
    int r;
    for (unsigned i = 0; i < d->n_serials; i++) {
        const struct domain_serial *s = &d->serials[i];
        snprintf(what, sizeof what, "serial port %d", s->port);
        if (s->port > 3)
            return bad(c, s->line, "%s: there are only ports 0 to 3", what);
        if (strcmp(s->target_type, "isa-serial"))
            return bad(c, s->line, "%s: target type '%.40s' is not supported, only isa-serial", what, s->target_type);
        for (unsigned o = 0; o < i; o++)
            if (d->serials[o].port == s->port)
                return bad(c, s->line, "%s is there twice", what);
        stdio += s->chardev.type == DOMAIN_CHARDEV_STDIO;
        if ((r = check_chardev(c, s->line, what, &s->chardev)))
            return r;
    }
    for (unsigned i = 0; i < d->n_consoles; i++) {
        const struct domain_console *k = &d->consoles[i];
        snprintf(what, sizeof what, "console %u", i);
        if (k->target == DOMAIN_CONSOLE_OTHER)
            return bad(c, k->line, "%s: target type '%.40s' is not supported, only serial and virtio", what,
                       k->target_type);
        if (k->target == DOMAIN_CONSOLE_SERIAL && i > 0)
            return bad(c, k->line, "%s: only the first console can stand for a serial port", what);
        stdio += k->target == DOMAIN_CONSOLE_VIRTIO && k->chardev.type == DOMAIN_CHARDEV_STDIO;
        if ((r = check_chardev(c, k->line, what, &k->chardev)))
            return r;
    }
    for (unsigned i = 0; i < d->n_channels; i++) {
        const struct domain_channel *k = &d->channels[i];
        snprintf(what, sizeof what, "channel %u", i);
        for (unsigned o = 0; o < i; o++)
            if (k->name && d->channels[o].name && !strcmp(k->name, d->channels[o].name))
                return bad(c, k->line, "%s: there is another one called '%.40s'", what, k->name);
        stdio += k->chardev.type == DOMAIN_CHARDEV_STDIO;
        bool nowhere = k->chardev.type == DOMAIN_CHARDEV_UNIX && !k->chardev.path;
        if (!nowhere && (r = check_chardev(c, k->line, what, &k->chardev)))
            return r;
    }
    if (stdio > 1)
        return bad(c, 0, "the terminal (stdio) can be given to one serial port or console only");
    return 0;
}

static int check_filesystem(const struct check *c, const struct domain_filesystem *f)
{
    const struct domain *d = c->d;
    if (!f->target || !*f->target)
        return bad(c, f->line, "filesystem has no <target dir> (the guest's mount tag)");
    if (f->type != DOMAIN_FS_MOUNT)
        return bad(c, f->line, "filesystem '%.40s': type '%.40s' is not supported, only mount", f->target,
                   f->type_name);
    if (f->driver_type && !strcmp(f->driver_type, "virtiofs"))
        return bad(c, f->line, "filesystem '%.40s': driver 'virtiofs' is not supported, only 9p (path)", f->target);
    if (!f->source)
        return bad(c, f->line, "filesystem '%.40s' has no <source dir>", f->target);
    if (strlen(f->target) > 255)
        return bad(c, f->line, "filesystem '%.40s…': the mount tag is longer than 255 bytes", f->target);
    for (const struct domain_filesystem *o = d->filesystems; o < f; o++)
        if (!strcmp(o->target, f->target))
            return bad(c, f->line, "filesystem '%.40s': there is another one with that mount tag", f->target);
    return check_path(c, f->line, "filesystem", f->source);
}

static int check_devices(const struct check *c)
{
    const struct domain *d = c->d;
    int r;
    for (unsigned i = 0; i < d->n_disks; i++)
        if ((r = check_disk(c, &d->disks[i])))
            return r;
    for (unsigned i = 0; i < d->n_interfaces; i++)
        if ((r = check_interface(c, &d->interfaces[i], i)))
            return r;
    if ((r = check_consoles(c)))
        return r;
    struct domain_display_problem problem;
    if (domain_display_check(d, &problem)) {
        char text[ERR_MSG_MAX];
        snprintf(text, sizeof text, problem.format, problem.text);
        return bad(c, problem.line, "%s", text);
    }
    for (unsigned i = 0; i < d->n_rngs; i++) {
        const struct domain_rng *g = &d->rngs[i];
        if (strncmp(g->model, "virtio", 6))
            return bad(c, g->line, "rng: model '%.40s' is not supported, only virtio", g->model);
        if (strcmp(g->backend_model, "random") && strcmp(g->backend_model, "builtin"))
            return bad(c, g->line, "rng: backend '%.40s' is not supported, only random and builtin", g->backend_model);
        if (g->source && (r = check_path(c, g->line, "rng", g->source)))
            return r;
    }
    if (d->balloon.model == DOMAIN_BALLOON_OTHER && strncmp(d->balloon.model_name, "virtio-", 7))
        return bad(c, 0, "memballoon: model '%.40s' is not supported, only virtio and none", d->balloon.model_name);
    for (unsigned i = 0; i < d->n_panics; i++)
        if (strcmp(d->panics[i].model, "isa"))
            return bad(c, 0, "panic: model '%.40s' is not supported, only isa", d->panics[i].model);
    if (d->n_panics > 1)
        return bad(c, 0, "a guest has at most one <panic>");
    for (unsigned i = 0; i < d->n_filesystems; i++)
        if ((r = check_filesystem(c, &d->filesystems[i])))
            return r;
    return 0;
}

int domain_check_definition(const struct domain *d, const char *name, struct err *err)
{
    const struct check c = {d, name, err};
    int r = check_identity(&c);
    if (!r)
        r = check_size(&c);
    for (unsigned i = 1; i < d->n_disks && !r; i++)
        for (unsigned k = 0; k < i && !r; k++)
            if (!strcmp(d->disks[k].target, d->disks[i].target))
                r = bad(&c, d->disks[i].line, "target '%.40s' duplicated for disk sources '%.100s' and '%.100s'",
                        d->disks[i].target, d->disks[k].source ? d->disks[k].source : "(null)",
                        d->disks[i].source ? d->disks[i].source : "(null)");
    return r;
}

int domain_check(const struct domain *d, const char *name, struct err *err)
{
    static int (*const steps[])(const struct check *c) = {check_identity, check_size, check_boot, check_devices};
    const struct check c = {d, name, err};
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        int r = steps[i](&c);
        if (r)
            return r;
    }
    return 0;
}
