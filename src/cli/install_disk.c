/* --disk: what it says becomes an element, and a volume where a new image is wanted. See install.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/install.h"

/* Short keys of --disk and what they set. */
static const char *const aliases[] = {"bus",
                                      "target@bus",
                                      "target",
                                      "target@dev",
                                      "device",
                                      "@device",
                                      "cache",
                                      "driver@cache",
                                      "io",
                                      "driver@io",
                                      "discard",
                                      "driver@discard",
                                      "detect_zeroes",
                                      "driver@detect_zeroes",
                                      "error_policy",
                                      "driver@error_policy",
                                      "driver_name",
                                      "driver@name",
                                      "driver_type",
                                      "driver@type",
                                      "serial",
                                      "serial",
                                      "snapshot_policy",
                                      "@snapshot",
                                      "startup_policy",
                                      "source@startupPolicy",
                                      "removable",
                                      "target@removable",
                                      "sgio",
                                      "@sgio",
                                      "type",
                                      "@type",
                                      "read_bytes_sec",
                                      "iotune/read_bytes_sec",
                                      "read_iops_sec",
                                      "iotune/read_iops_sec",
                                      "write_bytes_sec",
                                      "iotune/write_bytes_sec",
                                      "write_iops_sec",
                                      "iotune/write_iops_sec",
                                      "total_bytes_sec",
                                      "iotune/total_bytes_sec",
                                      "total_iops_sec",
                                      "iotune/total_iops_sec",
                                      "size_iops_sec",
                                      "iotune/size_iops_sec",
                                      "boot_order",
                                      "boot@order",
                                      "logical_block_size",
                                      "blockio@logical_block_size",
                                      "physical_block_size",
                                      "blockio@physical_block_size",
                                      "queues",
                                      "driver@queues",
                                      "iothread",
                                      "driver@iothread",
                                      "address.type",
                                      "address@type",
                                      "boot.order",
                                      "boot@order",
                                      "wwn",
                                      "wwn",
                                      "rotation_rate",
                                      "target@rotation_rate",
                                      NULL};

struct wish {
    char *path, *vol, *pool, *size, *format, *backing, *backing_format, *clone;
    bool readonly, shareable, preallocate;
};

static void wish_free(struct wish *w)
{
    free(w->path);
    free(w->vol);
    free(w->pool);
    free(w->size);
    free(w->format);
    free(w->backing);
    free(w->backing_format);
    free(w->clone);
}

void install_disk_target(const struct xml_node *devices, struct xml_node *disk, const char *bus)
{
    const char *prefix = !strcmp(bus, "virtio") ? "vd" : !strcmp(bus, "ide") ? "hd" : !strcmp(bus, "fdc") ? "fd" : "sd";
    struct xml_node *target = xml_child(disk, "target");
    if (!target)
        target = xml_node_new(disk, "target", NULL);
    if (!xml_attr_get(target, "dev"))
        for (char letter = 'a'; letter <= 'z'; letter++) {
            char name[4] = {prefix[0], prefix[1], letter, 0};
            bool taken = false;
            for (const struct xml_node *d = devices->first; d; d = d->next) {
                const struct xml_node *t = xml_child(d, "target");
                taken |= d != disk && !strcmp(d->name, "disk") && t && xml_attr_get(t, "dev") &&
                         !strcmp(xml_attr_get(t, "dev"), name);
            }
            if (!taken) {
                xml_attr_set(target, "dev", name);
                break;
            }
        }
    if (!xml_attr_get(target, "bus"))
        xml_attr_set(target, "bus", bus);
}

/* The pool called "default", made where there is none, as virt-install makes it. */
static bool default_pool(struct install *in, rp_pool *ret)
{
    struct vsh *v = &in->v;
    rp_string name = (char *)"default";
    *ret = (rp_pool){0};
    if (vsh_call(v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_NAME, &name, ret))
        return true;
    vsh_error_reset(v);
    const char *home = getenv("HOME"), *data = getenv("XDG_DATA_HOME");
    bool lodge = client_socket(v->conn) && strstr(client_socket(v->conn), "lodge");
    autofree char *dir = !in->session ? xasprintf("/var/lib/%s/images", lodge ? "lodge" : "libvirt")
                         : data && *data
                             ? xasprintf("%s/%s/images", data, lodge ? "lodge" : "libvirt")
                             : xasprintf("%s/.local/share/%s/images", home ? home : "", lodge ? "lodge" : "libvirt");
    autofree char *xml = xasprintf("<pool type='dir'><name>default</name><target><path>%s</path></target></pool>", dir);
    const rp_str_flags define = {xml, 0};
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_DEFINE_XML, &define, ret))
        return install_error("Couldn't create default storage pool '%s': %s", dir, v->error.message);
    const rp_pool_flags args = {*ret, 0};
    const rp_pool_int autostart = {*ret, 1};
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_BUILD, &args, NULL))
        vsh_error_reset(v); /* the directory may be there */
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_CREATE, &args, NULL))
        return install_error("Couldn't create default storage pool '%s': %s", dir, v->error.message);
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_SET_AUTOSTART, &autostart, NULL))
        vsh_error_reset(v);
    return true;
}

/* The pool of a directory: one that is there, or a new one for it. */
bool install_directory_pool(struct vsh *v, const char *dir, rp_pool *ret)
{
    const rp_list_args all = {1, 2};
    rp_pool_list list;
    *ret = (rp_pool){0};
    if (vsh_call(v, RPC_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, &all, &list)) {
        for (unsigned i = 0; i < list.items.items_len && !ret->name; i++) {
            const rp_pool_flags args = {list.items.items_val[i], 0};
            rp_string text;
            if (!vsh_call(v, RPC_PROC_STORAGE_POOL_GET_XML_DESC, &args, &text))
                continue;
            struct xml_node *root = NULL;
            if (xml_parse(text, strlen(text), "pool", &root, NULL) == 0) {
                const struct xml_node *t = xml_child(root, "target"), *p = t ? xml_child(t, "path") : NULL;
                if (p && p->text && !strcmp(p->text, dir)) {
                    ret->name = xstrdup(list.items.items_val[i].name);
                    ret->uuid = list.items.items_val[i].uuid;
                }
            }
            xml_free(root);
            free(text);
        }
        client_result_free(RPC_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, &list);
    }
    vsh_error_reset(v);
    if (ret->name)
        return true;
    const char *base = strrchr(dir, '/');
    struct xml_node *pool = xml_node_new(NULL, "pool", NULL);
    xml_attr_set(pool, "type", "dir");
    xml_node_new(pool, "name", base && base[1] ? base + 1 : "images");
    xml_node_new(xml_node_new(pool, "target", NULL), "path", dir);
    autofree char *xml = xml_format(pool);
    xml_free(pool);
    const rp_str_flags args = {xml, 0};
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_CREATE_XML, &args, ret))
        return install_error("no storage pool can be made for %s: %s", dir, v->error.message);
    return true;
}

/* Sizes are GiB without a unit, as ever, and what they say with one. */
static bool size_bytes(const char *text, uint64_t *ret)
{
    char *end;
    double n = strtod(text, &end);
    if (end > text && !*end && n > 0 && n < 1e9) {
        *ret = (uint64_t)(n * (1ull << 30));
        return true;
    }
    return cli_parse_size(text, 1ull << 30, ret) == 0 && *ret;
}

/* Makes a volume; *ret_path: where. */
static bool make_volume(struct install *in, const rp_pool *pool, const char *name, const struct wish *w, uint64_t bytes,
                        char **ret_path)
{
    struct vsh *v = &in->v;
    struct xml_node *root = xml_node_new(NULL, "volume", NULL);
    autofree char *capacity = xasprintf("%llu", (unsigned long long)bytes);
    const char *format = w->format ? w->format : "qcow2";
    bool raw = !strcmp(format, "raw");
    xml_node_new(root, "name", name);
    xml_node_new(root, "capacity", capacity);
    xml_node_new(root, "allocation", raw && w->preallocate ? capacity : "0");
    xml_attr_set(xml_node_new(xml_node_new(root, "target", NULL), "format", NULL), "type", format);
    if (w->backing) {
        struct xml_node *b = xml_node_new(root, "backingStore", NULL);
        xml_node_new(b, "path", w->backing);
        if (w->backing_format)
            xml_attr_set(xml_node_new(b, "format", NULL), "type", w->backing_format);
    }
    autofree char *xml = xml_format(root);
    xml_free(root);
    const rp_vol_create args = {*pool, xml, 0};
    autovol vol = {0};
    if (!in->quiet) {
        printf("Allocating '%s'%*s|", name, (int)(strlen(name) < 28 ? 28 - strlen(name) : 1), "");
        fflush(stdout);
    }
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_CREATE_XML, &args, &vol))
        return install_error("Couldn't create storage volume '%s': '%s'", name, v->error.message);
    if (!in->quiet)
        printf(" %.1f GB\n", bytes / (double)(1ull << 30));
    rp_string path;
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_GET_PATH, &vol, &path))
        return install_error("%s", v->error.message);
    if (in->n_made < INSTALL_REPEAT_MAX)
        in->made[in->n_made++] = xstrdup(path);
    *ret_path = path;
    return true;
}

/* A name for a new volume that the pool does not have: "guest.qcow2", "guest-1.qcow2". The caller frees it. */
static char *free_name(struct install *in, const rp_pool *pool, const char *format)
{
    const char *ext = !strcmp(format, "raw") ? "img" : format;
    char *name = xasprintf("%s.%s", in->name, ext);
    for (unsigned i = 1; i < 100; i++) {
        const rp_pool_str args = {*pool, name};
        rp_vol there;
        if (!vsh_call(&in->v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, &args, &there))
            break;
        client_result_free(RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, &there);
        free(name);
        name = xasprintf("%s-%u.%s", in->name, i, ext);
    }
    vsh_error_reset(&in->v);
    return name;
}

/* The format of an image that exists: from its volume, or by its name. The caller frees it. */
static char *format_of(struct install *in, const char *path)
{
    struct vsh *v = &in->v;
    rp_string text = (char *)path, xml;
    autovol vol = {0};
    char *format = NULL;
    autopool pool = {0};
    const char *slash = strrchr(path, '/');
    autofree char *dir = slash > path ? xasprintf("%.*s", (int)(slash - path), path) : xstrdup("/");
    bool found = vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, &vol);
    if (!found && install_directory_pool(&in->v, dir, &pool)) {
        const rp_pool_flags refresh = {pool, 0};
        if (!vsh_call(v, RPC_PROC_STORAGE_POOL_REFRESH, &refresh, NULL))
            vsh_error_reset(v);
        found = vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, &vol);
    }
    const rp_vol_flags args = {vol, 0};
    if (found && vsh_call(v, RPC_PROC_STORAGE_VOL_GET_XML_DESC, &args, &xml)) {
        struct xml_node *root = NULL;
        if (xml_parse(xml, strlen(xml), "volume", &root, NULL) == 0) {
            const struct xml_node *t = xml_child(root, "target"), *f = t ? xml_child(t, "format") : NULL;
            if (f && xml_attr_get(f, "type") && strcmp(xml_attr_get(f, "type"), "iso") != 0)
                format = xstrdup(xml_attr_get(f, "type"));
        }
        xml_free(root);
        free(xml);
    }
    vsh_error_reset(v);
    return format ? format : xstrdup("raw");
}

/* The volume or file behind the disk: makes what is to be made. */
static bool resolve(struct install *in, struct wish *w, const char *device, bool make, char **ret_path,
                    char **ret_format)
{
    struct vsh *v = &in->v;
    uint64_t bytes = 0;
    bool disk = !strcmp(device, "disk");
    struct stat st;
    if (w->size && !size_bytes(w->size, &bytes))
        return install_error("Improper value for 'size': '%s' is not a size such as 20 or 20G", w->size);
    if (w->vol) {
        char *slash = strchr(w->vol, '/');
        autopool pool = {0};
        autovol vol = {0};
        rp_string path;
        if (!slash)
            return install_error("Error with storage parameters: vol=%s: use vol=POOL/VOLUME", w->vol);
        *slash = 0;
        rp_string name = w->vol;
        if (!vsh_call(v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_NAME, &name, &pool))
            return install_error("%s", v->error.message);
        const rp_pool_str by_name = {pool, slash + 1};
        if (!vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, &by_name, &vol) ||
            !vsh_call(v, RPC_PROC_STORAGE_VOL_GET_PATH, &vol, &path))
            return install_error("%s", v->error.message);
        *ret_path = path;
        *ret_format = format_of(in, path);
        return true;
    }
    bool exists = w->path && stat(w->path, &st) == 0;
    if (w->path && (exists || !bytes)) {
        if (!exists && access("/", R_OK) == 0 && !strchr(w->path, ':'))
            return install_error("Error: --disk %s: Size must be specified for non existent volume '%s'", w->path,
                                 w->path);
        *ret_path = xstrdup(w->path);
        *ret_format = disk && S_ISREG(st.st_mode) ? format_of(in, w->path) : xstrdup("raw");
        return true;
    }
    if (!w->path && !w->pool && !bytes && !w->backing) {
        if (!disk)
            return true; /* an empty drive */
        if (!in->os.storage)
            return install_error("Error with storage parameters: a disk needs a path or a size");
        bytes = in->os.storage;
    }
    *ret_format = xstrdup(w->format ? w->format : "qcow2");
    autopool pool = {0};
    if (w->path) {
        char *slash = strrchr(w->path, '/');
        autofree char *dir = slash > w->path ? xasprintf("%.*s", (int)(slash - w->path), w->path) : xstrdup("/");
        *ret_path = xstrdup(w->path);
        if (!w->format) {
            free(*ret_format);
            *ret_format = xstrdup(strstr(slash, ".qcow2") ? "qcow2" : "raw");
            w->format = xstrdup(*ret_format);
        }
        if (!make)
            return true;
        free(*ret_path);
        *ret_path = NULL;
        return install_directory_pool(&in->v, dir, &pool) && make_volume(in, &pool, slash + 1, w, bytes, ret_path);
    }
    if (w->pool && strcmp(w->pool, "default") != 0) {
        rp_string name = w->pool;
        if (!vsh_call(v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_NAME, &name, &pool))
            return install_error("%s", v->error.message);
    } else if (!default_pool(in, &pool)) {
        return false;
    }
    autofree char *name = free_name(in, &pool, *ret_format);
    if (make)
        return make_volume(in, &pool, name, w, bytes, ret_path);
    const rp_pool_flags args = {pool, 0};
    rp_string xml;
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_GET_XML_DESC, &args, &xml))
        return install_error("%s", v->error.message);
    struct xml_node *root = NULL;
    if (xml_parse(xml, strlen(xml), "pool", &root, NULL) == 0) {
        const struct xml_node *t = xml_child(root, "target"), *p = t ? xml_child(t, "path") : NULL;
        *ret_path = xasprintf("%s/%s", p && p->text ? p->text : "", name);
    }
    xml_free(root);
    free(xml);
    return *ret_path != NULL;
}

static void replace(char **at, const char *value)
{
    free(*at);
    *at = value ? xstrdup(value) : NULL;
}

/* Takes the parts of the option apart. */
static bool parse(struct xml_node *disk, const char *spec, struct wish *w)
{
    autofree char *copy = xstrdup(spec);
    char *at = copy, *key, *value;
    bool first = true;
    for (; (key = cli_next_part(&at, &value)); first = false) {
        if (first && !value && strcmp(key, "none") != 0)
            w->path = cli_absolute(key);
        else if (!strcmp(key, "path") || !strcmp(key, "source.file") || !strcmp(key, "source.dev"))
            w->path = value ? cli_absolute(value) : NULL;
        else if (!strcmp(key, "vol"))
            replace(&w->vol, value);
        else if (!strcmp(key, "pool"))
            replace(&w->pool, value);
        else if (!strcmp(key, "size"))
            replace(&w->size, value);
        else if (!strcmp(key, "format") || !strcmp(key, "driver.type"))
            replace(&w->format, value);
        else if (!strcmp(key, "backing_store"))
            w->backing = value ? cli_absolute(value) : NULL;
        else if (!strcmp(key, "backing_format"))
            replace(&w->backing_format, value);
        else if (!strcmp(key, "sparse"))
            w->preallocate = value && !strcmp(value, "no");
        else if (!strcmp(key, "readonly"))
            w->readonly = !value || !strcmp(value, "on") || !strcmp(value, "yes");
        else if (!strcmp(key, "shareable"))
            w->shareable = !value || !strcmp(value, "on") || !strcmp(value, "yes");
        else if (!strcmp(key, "perms"))
            w->readonly |= value && !strcmp(value, "ro"), w->shareable |= value && !strcmp(value, "sh");
        else if (!install_option(disk, aliases, key, value, "disk"))
            return false;
    }
    return true;
}

bool install_disk(struct install *in, struct xml_node *devices, const char *spec, bool make)
{
    if (!strcmp(spec, "none"))
        return true;
    __attribute__((cleanup(wish_free))) struct wish w = {0};
    struct xml_node *disk = xml_node_new(devices, "disk", NULL);
    xml_attr_set(disk, "type", "file");
    xml_attr_set(disk, "device", "disk");
    if (!parse(disk, spec, &w))
        return false;
    autofree char *device = xstrdup(xml_attr_get(disk, "device")), *path = NULL, *format = NULL;
    if (!resolve(in, &w, device, make, &path, &format))
        return false;
    struct stat st;
    bool block = path && stat(path, &st) == 0 && S_ISBLK(st.st_mode);
    bool is_disk = !strcmp(device, "disk");
    if (block)
        xml_attr_set(disk, "type", "block");
    struct xml_node *driver = xml_child(disk, "driver");
    if (!driver && (is_disk || path))
        driver = xml_node_new(disk, "driver", NULL);
    if (driver && !xml_attr_get(driver, "name"))
        xml_attr_set(driver, "name", "qemu");
    if (driver && !xml_attr_get(driver, "type"))
        xml_attr_set(driver, "type", is_disk && format ? format : "raw");
    if (path)
        install_set(disk, block ? "source@dev" : "source@file", path);
    if (w.readonly || !strcmp(device, "cdrom"))
        xml_node_new(disk, "readonly", NULL);
    if (w.shareable)
        xml_node_new(disk, "shareable", NULL);
    install_disk_target(devices, disk, !strcmp(device, "floppy") ? "fdc" : is_disk && in->os.block ? "virtio" : "sata");
    return true;
}
