/* Fills in what a domain document may leave out, as libvirt does where it has a default. What is given is never
 * changed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fd.h"
#include "domain/display.h"
#include "domain/domain.h"

static void set_default(char **field, const char *value)
{
    if (!*field)
        domain_set(field, value);
}

static void random_bytes(void *buf, size_t len)
{
    if (getrandom(buf, len, 0) != (ssize_t)len)
        abort(); /* requests of up to 256 bytes cannot fail once the kernel has started */
}

static enum domain_board board_of(const char *machine)
{
    if (!strcmp(machine, "q35") || !strncmp(machine, "pc-q35-", 7))
        return DOMAIN_BOARD_Q35;
    if (!strcmp(machine, "micro") || !strcmp(machine, "microvm"))
        return DOMAIN_BOARD_MICRO;
    return DOMAIN_BOARD_OTHER;
}

static void default_identity(struct domain *d)
{
    if (!d->has_uuid) {
        random_bytes(d->uuid, sizeof d->uuid);
        d->uuid[6] = (d->uuid[6] & 0x0f) | 0x40; /* RFC 4122, version 4 */
        d->uuid[8] = (d->uuid[8] & 0x3f) | 0x80;
        d->has_uuid = true;
    }
    if (d->engine == DOMAIN_ENGINE_NONE && !d->type_name)
        d->engine = DOMAIN_ENGINE_AUTO;
    if (!d->type_name && d->engine != DOMAIN_ENGINE_NONE)
        domain_set(&d->type_name, d->engine == DOMAIN_ENGINE_SOFT ? "qemu" : "kvm");
}

static void default_board(struct domain *d)
{
    set_default(&d->os.type, "hvm");
    set_default(&d->os.arch, "x86_64");
    set_default(&d->os.machine, "q35");
    d->os.board = board_of(d->os.machine);
    if (!d->vcpus)
        d->vcpus = d->cpu.sockets || d->cpu.cores || d->cpu.threads
                       ? (d->cpu.sockets ?: 1) * (d->cpu.dies ?: 1) * (d->cpu.cores ?: 1) * (d->cpu.threads ?: 1)
                       : 1;
    if (!d->vcpus_current)
        d->vcpus_current = d->vcpus;
    if (!d->current_memory)
        d->current_memory = d->memory;
    if (d->cpu.mode == DOMAIN_CPU_NONE)
        d->cpu.mode = d->cpu.model ? DOMAIN_CPU_CUSTOM : DOMAIN_CPU_HOST_PASSTHROUGH;
    /* A document with <features> but without <acpi/> means a guest without ACPI. */
    if (!d->has_features) {
        d->has_features = true;
        if (d->acpi == DOMAIN_DEFAULT)
            d->acpi = DOMAIN_ON;
        if (d->apic == DOMAIN_DEFAULT)
            d->apic = DOMAIN_ON;
    }
    set_default(&d->clock.offset, "utc");
    if (!d->on_poweroff)
        d->on_poweroff = DOMAIN_ACTION_DESTROY;
    if (!d->on_reboot)
        d->on_reboot = DOMAIN_ACTION_RESTART;
    if (!d->on_crash)
        d->on_crash = DOMAIN_ACTION_DESTROY;
}

static bool target_taken(const struct domain *d, const char *target)
{
    for (unsigned i = 0; i < d->n_disks; i++)
        if (d->disks[i].target && !strcmp(d->disks[i].target, target))
            return true;
    return false;
}

/* vda … vdz, vdaa … */
static char *disk_name(const char *prefix, unsigned index)
{
    char letters[8], *s = letters + sizeof letters - 1;
    *s = 0;
    for (index++; index; index = (index - 1) / 26)
        *--s = 'a' + (index - 1) % 26;
    return xasprintf("%s%s", prefix, s);
}

static enum domain_bus bus_of(const char *target)
{
    if (!strncmp(target, "sd", 2))
        return DOMAIN_BUS_SATA;
    if (!strncmp(target, "hd", 2))
        return DOMAIN_BUS_IDE;
    return !strncmp(target, "fd", 2) ? DOMAIN_BUS_FDC : DOMAIN_BUS_VIRTIO;
}

static void default_disk(struct domain *d, struct domain_disk *k)
{
    set_default(&k->type_name, k->type == DOMAIN_DISK_BLOCK ? "block" : "file");
    set_default(&k->format, "raw");
    if (!k->target && k->bus == DOMAIN_BUS_NONE && k->device == DOMAIN_DISK_CDROM && d->os.board == DOMAIN_BOARD_Q35)
        k->bus = DOMAIN_BUS_SATA;
    if (!k->target) {
        for (unsigned i = 0; !k->target; i++) {
            autofree char *name = disk_name(k->bus == DOMAIN_BUS_NONE || k->bus == DOMAIN_BUS_VIRTIO ? "vd" : "sd", i);
            if (!target_taken(d, name))
                k->target = xstrdup(name);
        }
    }
    if (k->bus == DOMAIN_BUS_NONE)
        k->bus = bus_of(k->target);
    if (k->device == DOMAIN_DISK_CDROM)
        k->readonly = true;
}

static void default_interface(struct domain_interface *i)
{
    if (!i->has_mac) {
        static const uint8_t prefix[3] = {0x52, 0x54, 0x00};
        memcpy(i->mac, prefix, sizeof prefix);
        random_bytes(i->mac + 3, 3);
        i->has_mac = true;
    }
    if (!i->model_name) {
        domain_set(&i->model_name, "virtio");
        i->model = DOMAIN_NIC_VIRTIO;
    }
    if (i->type == DOMAIN_NET_USER) {
        set_default(&i->type_name, "user");
        set_default(&i->backend, "passt");
    }
}

static int free_port(const struct domain *d)
{
    for (int port = 0;; port++) {
        bool taken = false;
        for (unsigned i = 0; i < d->n_serials; i++)
            taken |= d->serials[i].port == port;
        if (!taken)
            return port;
    }
}

static void copy_chardev(struct domain_chardev *to, const struct domain_chardev *from)
{
    *to = *from;
    to->type_name = from->type_name ? xstrdup(from->type_name) : NULL;
    to->path = from->path ? xstrdup(from->path) : NULL;
}

static void default_chardev(struct domain_chardev *c)
{
    if (c->type != DOMAIN_CHARDEV_OTHER)
        set_default(&c->type_name, domain_chardev_name(c->type));
    c->has_mode |= c->type == DOMAIN_CHARDEV_UNIX;
}

/* The first <console> of type serial and the first <serial> are one port; either may be left out. */
static void default_consoles(struct domain *d)
{
    if (!d->n_serials && d->n_consoles && d->consoles[0].target == DOMAIN_CONSOLE_SERIAL) {
        struct domain_serial *s = DOMAIN_ADD(d, serials);
        copy_chardev(&s->chardev, &d->consoles[0].chardev);
        s->line = d->consoles[0].line;
        s->port = 0;
    }
    if (d->n_serials && !d->n_consoles) {
        struct domain_console *c = DOMAIN_ADD(d, consoles);
        copy_chardev(&c->chardev, &d->serials[0].chardev);
        c->line = d->serials[0].line;
        c->target = DOMAIN_CONSOLE_SERIAL;
        c->port = 0;
    }
    for (unsigned i = 0; i < d->n_serials; i++) {
        struct domain_serial *s = &d->serials[i];
        default_chardev(&s->chardev);
        if (s->port < 0)
            s->port = free_port(d);
        set_default(&s->target_type, "isa-serial");
        if (!strcmp(s->target_type, "isa-serial"))
            set_default(&s->model, "isa-serial");
    }
    for (unsigned i = 0; i < d->n_consoles; i++) {
        struct domain_console *c = &d->consoles[i];
        default_chardev(&c->chardev);
        set_default(&c->target_type, c->target == DOMAIN_CONSOLE_VIRTIO ? "virtio" : "serial");
        if (c->port < 0)
            c->port = i;
    }
    for (unsigned i = 0; i < d->n_channels; i++) {
        struct domain_channel *c = &d->channels[i];
        default_chardev(&c->chardev);
        if (!c->name)
            c->name = xasprintf("channel%u", i);
    }
}

void domain_defaults(struct domain *d)
{
    default_identity(d);
    default_board(d);
    for (unsigned i = 0; i < d->n_disks; i++)
        default_disk(d, &d->disks[i]);
    for (unsigned i = 0; i < d->n_interfaces; i++)
        default_interface(&d->interfaces[i]);
    default_consoles(d);
    domain_display_defaults(d);
    for (unsigned i = 0; i < d->n_rngs; i++) {
        set_default(&d->rngs[i].model, "virtio");
        set_default(&d->rngs[i].backend_model, "random");
        if (!strcmp(d->rngs[i].backend_model, "random"))
            set_default(&d->rngs[i].source, "/dev/urandom");
    }
    for (unsigned i = 0; i < d->n_filesystems; i++) {
        set_default(&d->filesystems[i].type_name, "mount");
        set_default(&d->filesystems[i].accessmode, "passthrough");
    }
    if (!d->balloon.present) {
        d->balloon.present = true;
        d->balloon.model = DOMAIN_BALLOON_VIRTIO;
    }
    if (d->balloon.model == DOMAIN_BALLOON_DEFAULT)
        d->balloon.model = DOMAIN_BALLOON_VIRTIO;
    if (!d->balloon.model_name)
        domain_set(&d->balloon.model_name, d->balloon.model == DOMAIN_BALLOON_NONE ? "none" : "virtio");
    for (unsigned i = 0; i < d->n_panics; i++)
        set_default(&d->panics[i].model, "isa");
}
