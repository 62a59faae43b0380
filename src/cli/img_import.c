/*
 * `lodge img import`: an appliance (OVA, or an OVF with its files) becomes images and a domain document. An OVA is a tar
 * archive: its members are read where they lie, nothing is unpacked.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/copy.h"
#include "cli/cli.h"
#include "cli/img.h"
#include "domain/xml.h"

enum { TAR_BLOCK = 512, TAR_MEMBERS_MAX = 1000, DISKS_MAX = 26, NAME_MAX_BYTES = 128 };

/* The folder or archive that the parts are in. */
struct package {
    struct blk_node *tar; /* NULL: plain files */
    const char *ovf_path;
};

static uint64_t octal(const char *p, size_t n)
{
    uint64_t v = 0;
    if (*p & 0x80) { /* base 256, for large members */
        for (size_t i = 1; i < n; i++)
            v = v << 8 | (uint8_t)p[i];
        return v;
    }
    for (; n && *p; p++, n--)
        if (*p >= '0' && *p <= '7')
            v = v << 3 | (uint64_t)(*p - '0');
    return v;
}

/* Finds a member of the archive: by name, or (suffix) the first that ends so. */
static int tar_find(struct blk_node *tar, const char *name, bool suffix, uint64_t *ret_at, uint64_t *ret_len, struct err *err)
{
    char h[TAR_BLOCK], full[101];
    uint64_t at = 0, size = tar->size;
    for (unsigned i = 0; i < TAR_MEMBERS_MAX && size >= TAR_BLOCK && at <= size - TAR_BLOCK; i++) {
        int code = blk_pread(tar, at, h, sizeof h);
        if (code < 0)
            return err_errno(err, code, "%s: cannot read", tar->filename);
        if (!h[0])
            break;
        uint64_t len = octal(h + 124, 12);
        snprintf(full, sizeof full, "%.100s", h);
        at += TAR_BLOCK;
        if (len > size - at)
            return err_set(err, -EINVAL, "%s: the archive is cut off in %s", tar->filename, full);
        size_t n = strlen(full), k = strlen(name);
        if ((h[156] == '0' || !h[156]) && (suffix ? n > k && !strcasecmp(full + n - k, name) : !strcmp(full, name))) {
            *ret_at = at;
            *ret_len = len;
            return 0;
        }
        at += ALIGN_UP(len, (uint64_t)TAR_BLOCK);
    }
    return err_set(err, -ENOENT, "%s: holds no %s%s", tar->filename, suffix ? "file that ends in " : "", name);
}

/* A part as an image's `file`, whatever it lies in. */
static int open_part(const struct package *p, const char *name, struct blk_node **ret, struct err *err)
{
    if (!p->tar) {
        autofree char *path = blk_path_relative(p->ovf_path, name);
        return blk_node_open(path, "file", NULL, 0, ret, err);
    }
    uint64_t at, len;
    int code = tar_find(p->tar, name, false, &at, &len, err);
    if (code < 0)
        return code;
    auto_opts struct blk_opts *opts = blk_opts_new();
    autofree char *offset = xasprintf("%" PRIu64, at), *size = xasprintf("%" PRIu64, len);
    blk_opts_set(opts, "offset", offset);
    blk_opts_set(opts, "size", size);
    return blk_node_open_on(blk_node_ref(p->tar), "raw", opts, 0, ret, err);
}

static int read_ovf(struct package *p, const char *path, char **ret, size_t *ret_len, struct err *err)
{
    auto_node struct blk_node *file = NULL;
    uint64_t at = 0, len;
    int code = blk_node_open(path, "file", NULL, 0, &file, err);
    if (code < 0)
        return code;
    len = file->size;
    const char *dot = strrchr(path, '.');
    if (!dot || strcasecmp(dot, ".ovf")) {
        if ((code = tar_find(file, ".ovf", true, &at, &len, err)) < 0)
            return code;
        p->tar = blk_node_ref(file);
    }
    if (len > XML_MAX_BYTES)
        return err_set(err, -EFBIG, "%s: the description is too large", path);
    *ret = xcalloc(1, len + 1);
    *ret_len = len;
    code = len ? blk_pread(file, at, *ret, len) : 0;
    return code < 0 ? err_errno(err, code, "%s: cannot read", path) : 0;
}

/* ---- the description: names without their prefixes ---- */

static const char *local(const char *name)
{
    const char *colon = strchr(name, ':');
    return colon ? colon + 1 : name;
}

static struct xml_node *child(const struct xml_node *n, const char *name)
{
    for (struct xml_node *c = n ? n->first : NULL; c; c = c->next)
        if (!strcmp(local(c->name), name))
            return c;
    return NULL;
}

static const char *attr(const struct xml_node *n, const char *name)
{
    for (const struct xml_attr *a = n->attrs; a; a = a->next)
        if (!strcmp(local(a->name), name))
            return a->value;
    return "";
}

static const char *text(const struct xml_node *n, const char *name)
{
    const struct xml_node *c = child(n, name);
    return c && c->text ? c->text : "";
}

/* "byte * 2^20", "MegaBytes": the unit of a quantity. */
static uint64_t unit(const char *s)
{
    const char *power = strstr(s, "2^");
    if (power)
        return 1ull << MIN(strtoul(power + 2, NULL, 10), 40ul);
    if (strcasestr(s, "giga"))
        return GIB;
    if (strcasestr(s, "kilo"))
        return KIB;
    return strcasestr(s, "mega") || !*s ? MIB : 1;
}

struct machine {
    char name[NAME_MAX_BYTES];
    uint64_t memory;
    unsigned vcpus, nics, n_disks;
    bool linux_like;
    const char *files[DISKS_MAX]; /* their hrefs, in the order of the disks */
};

/* The file of "ovf:/disk/ID" (or "/disk/ID"). */
static const char *file_of(const struct xml_node *root, const char *resource)
{
    const char *id = strrchr(resource, '/');
    const struct xml_node *disks = child(root, "DiskSection"), *files = child(root, "References");
    id = id ? id + 1 : resource;
    for (const struct xml_node *d = disks ? disks->first : NULL; d; d = d->next) {
        if (strcmp(local(d->name), "Disk") || strcmp(attr(d, "diskId"), id))
            continue;
        for (const struct xml_node *f = files ? files->first : NULL; f; f = f->next)
            if (!strcmp(local(f->name), "File") && !strcmp(attr(f, "id"), attr(d, "fileRef")))
                return attr(f, "href");
    }
    return NULL;
}

static int understand(const struct xml_node *root, const char *path, struct machine *m, struct err *err)
{
    const struct xml_node *system = child(root, "VirtualSystem");
    if (!system && child(root, "VirtualSystemCollection"))
        system = child(child(root, "VirtualSystemCollection"), "VirtualSystem");
    const struct xml_node *hardware = child(system, "VirtualHardwareSection");
    if (strcmp(local(root->name), "Envelope") || !system || !hardware)
        return err_set(err, -EINVAL, "%s: describes no virtual machine", path);
    const char *name = text(system, "Name");
    snprintf(m->name, sizeof m->name, "%s", *name ? name : *attr(system, "id") ? attr(system, "id") : "imported");
    for (char *c = m->name; *c; c++)
        if (*c == '/' || *c == '\n')
            *c = '_';
    const struct xml_node *os = child(system, "OperatingSystemSection");
    static const char *const names[] = {"linux", "ubuntu", "debian", "centos", "rhel", "suse", "fedora", "bsd"};
    for (unsigned i = 0; os && i < ARRAY_SIZE(names); i++)
        m->linux_like |= strcasestr(text(os, "Description"), names[i]) || strcasestr(attr(os, "osType"), names[i]);
    m->vcpus = 1;
    m->memory = 512 * MIB;
    for (const struct xml_node *i = hardware->first; i; i = i->next) {
        if (strcmp(local(i->name), "Item") && strcmp(local(i->name), "StorageItem") && strcmp(local(i->name), "EthernetPortItem"))
            continue;
        unsigned long type = strtoul(text(i, "ResourceType"), NULL, 10), n = strtoul(text(i, "VirtualQuantity"), NULL, 10);
        if (type == 3 && n >= 1 && n <= 4096)
            m->vcpus = (unsigned)n;
        else if (type == 4 && n && n < UINT64_MAX / GIB / KIB)
            m->memory = n * unit(text(i, "AllocationUnits"));
        else if (type == 10)
            m->nics++;
        else if (type == 17) {
            const char *file = file_of(root, text(i, "HostResource"));
            if (!file)
                return err_set(err, -ENOTSUP, "%s:%d: a disk without a file", path, i->line);
            if (m->n_disks == DISKS_MAX)
                return err_set(err, -EFBIG, "%s: more than %d disks", path, DISKS_MAX);
            m->files[m->n_disks++] = file;
        }
    }
    return 0;
}

/* ---- what comes out ---- */

static int import_disk(struct img *img, const struct package *p, const char *href, const char *format, const char *target)
{
    struct err err = {0};
    struct blk_node *part = NULL;
    auto_node struct blk_node *source = NULL, *out = NULL;
    auto_opts struct blk_opts *opts = blk_opts_new();
    if (open_part(p, href, &part, &err) < 0 || blk_node_open_on(part, NULL, NULL, 0, &source, &err) < 0)
        return img_error(img, "%s: %s", href, img_without_name(err.msg, href));
    autofree char *size = xasprintf("%" PRIu64, (uint64_t)source->size);
    blk_opts_set(opts, "size", size);
    if (access(target, F_OK) == 0)
        return img_error(img, "%s: exists already", target);
    if (blk_create(format, target, opts, &err) < 0 || blk_node_open(target, format, NULL, BLK_O_RDWR, &out, &err) < 0)
        return img_error(img, "%s: %s", target, img_without_name(err.msg, target));
    struct img_progress progress;
    img_progress_start(&progress, img, 1.0);
    struct blk_convert c = {.sources = &source,
                            .n_sources = 1,
                            .target = out,
                            .target_is_zero = true,
                            .min_sparse = 4096,
                            .progress = img_progress,
                            .opaque = &progress};
    int code = blk_convert(&c, &err);
    img_progress_end(&progress, code >= 0);
    return code < 0 ? img_error(img, "%s: %s", href, err.msg) : IMG_OK;
}

static char *describe(const struct machine *m, const char *format, char *const *disks)
{
    struct xml_node *d = xml_node_new(NULL, "domain", NULL), *n;
    xml_attr_set(d, "type", "kvm");
    xml_node_new(d, "name", m->name);
    autofree char *memory = xasprintf("%llu", m->memory / KIB), *vcpus = xasprintf("%u", m->vcpus);
    xml_attr_set(xml_node_new(d, "memory", memory), "unit", "KiB");
    xml_node_new(d, "vcpu", vcpus);
    n = xml_node_new(xml_node_new(d, "os", NULL), "type", "hvm");
    xml_attr_set(n, "arch", "x86_64");
    xml_attr_set(n, "machine", "q35");
    n = xml_node_new(d, "features", NULL);
    xml_node_new(n, "acpi", NULL);
    xml_node_new(n, "apic", NULL);
    struct xml_node *devices = xml_node_new(d, "devices", NULL);
    for (unsigned i = 0; i < m->n_disks; i++) {
        struct xml_node *disk = xml_node_new(devices, "disk", NULL);
        xml_attr_set(disk, "type", "file");
        xml_attr_set(disk, "device", "disk");
        n = xml_node_new(disk, "driver", NULL);
        xml_attr_set(n, "name", "qemu");
        xml_attr_set(n, "type", format);
        xml_attr_set(xml_node_new(disk, "source", NULL), "file", disks[i]);
        n = xml_node_new(disk, "target", NULL);
        xml_attr_setf(n, "dev", "%s%c", m->linux_like ? "vd" : "sd", (int)('a' + i));
        xml_attr_set(n, "bus", m->linux_like ? "virtio" : "sata");
    }
    for (unsigned i = 0; i < m->nics; i++) {
        n = xml_node_new(devices, "interface", NULL);
        xml_attr_set(n, "type", "user");
        xml_attr_set(xml_node_new(n, "model", NULL), "type", "virtio");
    }
    n = xml_node_new(devices, "serial", NULL);
    xml_attr_set(n, "type", "pty");
    char *out = xml_format(d);
    xml_free(d);
    return out;
}

static int import(struct img *img, struct package *p, const char *path)
{
    struct err err = {0};
    struct machine m = {0};
    autofree char *ovf = NULL;
    char *disks[DISKS_MAX] = {NULL};
    size_t len = 0;
    struct xml_node *root = NULL;
    const char *format = img_has(img, IMG_OUT_FORMAT) ? img->value[IMG_OUT_FORMAT] : "qcow2";
    const char *dir = img_has(img, IMG_DIRECTORY) ? img->value[IMG_DIRECTORY] : ".";
    int status = IMG_OK;
    if (read_ovf(p, path, &ovf, &len, &err) < 0 || xml_parse(ovf, len, path, &root, &err) < 0 ||
        understand(root, path, &m, &err) < 0)
        status = img_error(img, "%s", err.msg);
    if (status == IMG_OK && img_has(img, IMG_NAME))
        snprintf(m.name, sizeof m.name, "%s", img->value[IMG_NAME]);
    for (unsigned i = 0; i < m.n_disks && status == IMG_OK; i++) {
        autofree char *target = xasprintf("%s/%s-disk%u.%s", dir, m.name, i + 1, format);
        disks[i] = cli_absolute(strncmp(target, "./", 2) ? target : target + 2);
        status = disks[i] ? import_disk(img, p, m.files[i], format, disks[i]) : img_error(img, "no current directory");
    }
    if (status == IMG_OK) {
        autofree char *xml = describe(&m, format, disks);
        fputs(xml, stdout);
    }
    for (unsigned i = 0; i < DISKS_MAX; i++)
        free(disks[i]);
    xml_free(root);
    return status;
}

int img_import(struct img *img, int argc, char **argv)
{
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    const char *path = img_only_arg(img);
    if (!path)
        return IMG_ERROR;
    struct package p = {.ovf_path = path};
    int status = import(img, &p, path);
    blk_node_unref(p.tar);
    return status;
}
