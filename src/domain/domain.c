/* Making and freeing a domain, and the words that stand for its enums in XML. */
#include "domain/domain.h"
#include "domain/display.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "domain/reader.h"
#include "domain/xml.h"

void *domain_grow(void **array, unsigned *n, size_t size)
{
    void *p = realloc(*array, (*n + 1) * size);
    if (!p)
        abort();
    *array = p;
    void *added = (char *)p + *n * size;
    memset(added, 0, size);
    (*n)++;
    return added;
}

void domain_set(char **field, const char *value)
{
    char *copy = value ? xstrdup(value) : NULL;
    free(*field);
    *field = copy;
}

struct domain *domain_new(void)
{
    return xcalloc(1, sizeof(struct domain));
}

void domain_unknown_free(struct domain_unknown *u)
{
    for (unsigned i = 0; i < u->n_items; i++) {
        struct domain_unknown_item *it = &u->items[i];
        free(it->path);
        free(it->attr);
        free(it->value);
        xml_free(it->node);
    }
    free(u->items);
}

static void chardev_free(struct domain_chardev *c)
{
    free(c->type_name);
    free(c->path);
}

static void interface_free(struct domain_interface *n)
{
    free(n->type_name);
    free(n->backend);
    free(n->backend_log);
    free(n->source);
    free(n->source_dev);
    free(n->target);
    free(n->model_name);
    free(n->driver_name);
    for (unsigned i = 0; i < n->n_forwards; i++) {
        free(n->forwards[i].proto);
        free(n->forwards[i].address);
        free(n->forwards[i].dev);
        free(n->forwards[i].ranges);
    }
    free(n->forwards);
    domain_unknown_free(&n->unknown);
}

static void disk_free(struct domain_disk *k)
{
    free(k->type_name);
    free(k->source);
    free(k->format);
    free(k->driver_name);
    free(k->target);
    free(k->serial);
    domain_unknown_free(&k->unknown);
}

static void devices_free(struct domain *d)
{
    free(d->emulator);
    for (unsigned i = 0; i < d->n_disks; i++)
        disk_free(&d->disks[i]);
    free(d->disks);
    for (unsigned i = 0; i < d->n_interfaces; i++)
        interface_free(&d->interfaces[i]);
    free(d->interfaces);
    for (unsigned i = 0; i < d->n_serials; i++) {
        chardev_free(&d->serials[i].chardev);
        free(d->serials[i].target_type);
        free(d->serials[i].model);
        domain_unknown_free(&d->serials[i].unknown);
    }
    free(d->serials);
    for (unsigned i = 0; i < d->n_consoles; i++) {
        chardev_free(&d->consoles[i].chardev);
        free(d->consoles[i].target_type);
        domain_unknown_free(&d->consoles[i].unknown);
    }
    free(d->consoles);
    for (unsigned i = 0; i < d->n_channels; i++) {
        chardev_free(&d->channels[i].chardev);
        free(d->channels[i].name);
        domain_unknown_free(&d->channels[i].unknown);
    }
    free(d->channels);
    for (unsigned i = 0; i < d->n_rngs; i++) {
        free(d->rngs[i].model);
        free(d->rngs[i].backend_model);
        free(d->rngs[i].source);
        domain_unknown_free(&d->rngs[i].unknown);
    }
    free(d->rngs);
    free(d->balloon.model_name);
    domain_unknown_free(&d->balloon.unknown);
    for (unsigned i = 0; i < d->n_filesystems; i++) {
        struct domain_filesystem *f = &d->filesystems[i];
        free(f->type_name);
        free(f->accessmode);
        free(f->driver_type);
        free(f->source);
        free(f->target);
        domain_unknown_free(&f->unknown);
    }
    free(d->filesystems);
    for (unsigned i = 0; i < d->n_panics; i++) {
        free(d->panics[i].model);
        domain_unknown_free(&d->panics[i].unknown);
    }
    free(d->panics);
    domain_free_display(d, domain_unknown_free);
}

void domain_free(struct domain *d)
{
    if (!d)
        return;
    free(d->type_name);
    free(d->name);
    free(d->title);
    free(d->description);

    free(d->os.type);
    free(d->os.arch);
    free(d->os.machine);
    free(d->os.firmware);
    free(d->os.loader);
    free(d->os.loader_type);
    free(d->os.nvram);
    free(d->os.nvram_template);
    free(d->os.kernel);
    free(d->os.initrd);
    free(d->os.cmdline);
    for (unsigned i = 0; i < d->os.n_boot; i++)
        free(d->os.boot[i]);
    free(d->os.boot);
    domain_unknown_free(&d->os.unknown);

    free(d->cpu.model);
    free(d->cpu.match);
    free(d->cpu.check);
    free(d->cpu.migratable);
    free(d->cpu.fallback);
    for (unsigned i = 0; i < d->cpu.n_features; i++) {
        free(d->cpu.features[i].name);
        free(d->cpu.features[i].policy);
    }
    free(d->cpu.features);
    domain_unknown_free(&d->cpu.unknown);

    free(d->clock.offset);
    for (unsigned i = 0; i < d->clock.n_timers; i++) {
        free(d->clock.timers[i].name);
        free(d->clock.timers[i].tickpolicy);
        domain_unknown_free(&d->clock.timers[i].unknown);
    }
    free(d->clock.timers);
    domain_unknown_free(&d->clock.unknown);

    devices_free(d);
    domain_unknown_free(&d->unknown);
    free(d);
}

#define WORDS(fn, type, ...)                                                                                           \
    static const char *const fn##_words[] = {__VA_ARGS__};                                                             \
    const char *domain_##fn##_name(type v)                                                                             \
    {                                                                                                                  \
        return (unsigned)v < ARRAY_SIZE(fn##_words) ? fn##_words[v] : NULL;                                            \
    }                                                                                                                  \
    int domain_##fn##_find(const char *s)                                                                              \
    {                                                                                                                  \
        for (unsigned i = 0; s && i < ARRAY_SIZE(fn##_words); i++)                                                     \
            if (fn##_words[i] && !strcmp(fn##_words[i], s))                                                            \
                return i;                                                                                              \
        return -1;                                                                                                     \
    }

WORDS(engine,
      enum domain_engine, [DOMAIN_ENGINE_AUTO] = "auto", [DOMAIN_ENGINE_KVM] = "kvm", [DOMAIN_ENGINE_SOFT] = "soft")
WORDS(action, enum domain_action, [DOMAIN_ACTION_DESTROY] = "destroy", [DOMAIN_ACTION_RESTART] = "restart",
      [DOMAIN_ACTION_PRESERVE] = "preserve", [DOMAIN_ACTION_RENAME_RESTART] = "rename-restart",
      [DOMAIN_ACTION_COREDUMP_DESTROY] = "coredump-destroy", [DOMAIN_ACTION_COREDUMP_RESTART] = "coredump-restart")
WORDS(cache, enum domain_disk_cache, [DOMAIN_CACHE_DEFAULT] = "default", [DOMAIN_CACHE_NONE] = "none",
      [DOMAIN_CACHE_WRITETHROUGH] = "writethrough", [DOMAIN_CACHE_WRITEBACK] = "writeback",
      [DOMAIN_CACHE_DIRECTSYNC] = "directsync", [DOMAIN_CACHE_UNSAFE] = "unsafe")
WORDS(
    io,
    enum domain_disk_io, [DOMAIN_IO_THREADS] = "threads", [DOMAIN_IO_NATIVE] = "native", [DOMAIN_IO_URING] = "io_uring")
WORDS(bus, enum domain_bus, [DOMAIN_BUS_VIRTIO] = "virtio", [DOMAIN_BUS_SATA] = "sata", [DOMAIN_BUS_SCSI] = "scsi",
      [DOMAIN_BUS_USB] = "usb", [DOMAIN_BUS_IDE] = "ide", [DOMAIN_BUS_FDC] = "fdc")
WORDS(chardev, enum domain_chardev_type, [DOMAIN_CHARDEV_NULL] = "null", [DOMAIN_CHARDEV_PTY] = "pty",
      [DOMAIN_CHARDEV_FILE] = "file", [DOMAIN_CHARDEV_UNIX] = "unix", [DOMAIN_CHARDEV_STDIO] = "stdio")
WORDS(cpu_mode, enum domain_cpu_mode, [DOMAIN_CPU_HOST_PASSTHROUGH] = "host-passthrough",
      [DOMAIN_CPU_HOST_MODEL] = "host-model", [DOMAIN_CPU_CUSTOM] = "custom", [DOMAIN_CPU_MAXIMUM] = "maximum")
WORDS(disk_device, enum domain_disk_device, [DOMAIN_DISK_DISK] = "disk", [DOMAIN_DISK_CDROM] = "cdrom",
      [DOMAIN_DISK_FLOPPY] = "floppy", [DOMAIN_DISK_LUN] = "lun")
