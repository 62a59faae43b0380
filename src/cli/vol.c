/* Storage volumes: vol-*. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

static const char *type_text(int type)
{
    static const char *const words[] = {"file", "block", "dir", "network", "netdir", "ploop"};
    return type >= 0 && type < 6 ? words[type] : "unknown";
}

static int compare_vols(const void *a, const void *b)
{
    return strcasecmp(((const rp_vol *)a)->name, ((const rp_vol *)b)->name);
}

static char *size_text(unsigned long long bytes)
{
    const char *unit;
    double value = pretty_size(bytes, &unit);
    return xasprintf("%.2f %s", value, unit);
}

bool cmd_vol_list(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    const rp_pool_list_args args = {pool, 1, 0};
    rp_vol_list list;
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_LIST_ALL_VOLUMES, &args, &list))
        return vsh_error(v, "Failed to list volumes");
    bool details = vsh_has(a, "details");
    autotable t = details ? vsh_table_new("Name", "Path", "Type", "Capacity", "Allocation", NULL)
                          : vsh_table_new("Name", "Path", NULL);
    if (list.items.items_len)
        qsort(list.items.items_val, list.items.items_len, sizeof(rp_vol), compare_vols);
    for (unsigned i = 0; i < list.items.items_len; i++) {
        const rp_vol *vol = &list.items.items_val[i];
        rp_string path = NULL;
        if (!vsh_call(v, RPC_PROC_STORAGE_VOL_GET_PATH, vol, &path))
            path = NULL;
        autofree char *owned = path ? path : xstrdup("unknown");
        if (!details) {
            vsh_table_row(t, vol->name, owned);
            continue;
        }
        rp_vol_info info;
        bool known = vsh_call(v, RPC_PROC_STORAGE_VOL_GET_INFO, vol, &info);
        autofree char *capacity = known ? size_text(info.capacity) : xstrdup("unknown");
        autofree char *allocation = known ? size_text(info.allocation) : xstrdup("unknown");
        vsh_table_row(t, vol->name, owned, known ? type_text(info.type) : "unknown", capacity, allocation);
    }
    vsh_error_reset(v);
    vsh_table_print(v, t);
    client_result_free(RPC_PROC_STORAGE_POOL_LIST_ALL_VOLUMES, &list);
    return true;
}

bool cmd_vol_info(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    bool physical = vsh_has(a, "physical"), bytes = vsh_has(a, "bytes");
    if (!vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    const rp_vol_flags args = {vol, 1};
    rp_vol_info i;
    vsh_fields_begin(v);
    vsh_field(v, "Name:", "%s", vol.name);
    bool ok = physical ? vsh_call(v, RPC_PROC_STORAGE_VOL_GET_INFO_FLAGS, &args, &i)
                       : vsh_call(v, RPC_PROC_STORAGE_VOL_GET_INFO, &vol, &i);
    if (ok) {
        autofree char *capacity =
            bytes ? xasprintf("%llu bytes", (unsigned long long)i.capacity) : size_text(i.capacity);
        autofree char *allocation =
            bytes ? xasprintf("%llu bytes", (unsigned long long)i.allocation) : size_text(i.allocation);
        vsh_field(v, "Type:", "%s", type_text(i.type));
        vsh_field(v, "Capacity:", "%s", capacity);
        vsh_field(v, physical ? "Physical:" : "Allocation:", "%s", allocation);
    }
    vsh_fields_end(v);
    return ok;
}

bool cmd_vol_name(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    if (!vsh_vol(v, a, "vol", NULL, &vol))
        return false;
    puts(vol.name);
    return true;
}

bool cmd_vol_key(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    if (!vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    puts(vol.key);
    return true;
}

bool cmd_vol_path(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    rp_string path;
    if (!vsh_vol(v, a, "vol", "pool", &vol) || !vsh_call(v, RPC_PROC_STORAGE_VOL_GET_PATH, &vol, &path))
        return false;
    puts(path);
    free(path);
    return true;
}

bool cmd_vol_pool(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    autopool pool = {0};
    char uuid[37];
    if (!vsh_vol(v, a, "vol", NULL, &vol))
        return false;
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_VOLUME, &vol, &pool))
        return vsh_error(v, "failed to get parent pool");
    vsh_uuid_text(&pool.uuid, uuid);
    puts(vsh_has(a, "uuid") ? uuid : pool.name);
    return true;
}

static char *vol_text(struct vsh *v, const rp_vol *vol)
{
    const rp_vol_flags args = {*vol, 0};
    rp_string text;
    return vsh_call(v, RPC_PROC_STORAGE_VOL_GET_XML_DESC, &args, &text) ? text : NULL;
}

bool cmd_vol_dumpxml(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    if (!vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    autofree char *text = vol_text(v, &vol);
    return text && vsh_print_xml(v, a, text);
}

/* A size option in bytes: "20G". False: said so. */
static bool size_option(struct vsh *v, const struct vsh_args *a, const char *option, unsigned long long *ret)
{
    const char *text = vsh_text(a, option);
    if (!text)
        return true;
    if (!vsh_scale(v, text, 1, ret))
        return vsh_error(v, "Malformed size %s", text);
    return true;
}

/* The volume that a new one is to be based on: in `pool`, or by key or path. */
static bool backing_path(struct vsh *v, const rp_pool *pool, const char *name, char **ret)
{
    autovol vol = {0};
    rp_string text = (char *)name;
    const rp_pool_str args = {*pool, text};
    rp_string path;
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, &args, &vol) &&
        !vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_KEY, &text, &vol) &&
        !vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, &vol))
        return vsh_error(v, "failed to get vol '%s'", name);
    vsh_error_reset(v);
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_GET_PATH, &vol, &path))
        return false;
    *ret = path;
    return true;
}

bool cmd_vol_create_as(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    autovol vol = {0};
    unsigned long long capacity = 0, allocation = 0;
    const char *name = vsh_text(a, "name");
    if (!vsh_pool(v, a, "pool", &pool) || !size_option(v, a, "capacity", &capacity) ||
        !size_option(v, a, "allocation", &allocation))
        return false;
    autoxml root = xml_node_new(NULL, "volume", NULL);
    autofree char *cap = xasprintf("%llu", capacity);
    autofree char *alloc = xasprintf("%llu", allocation);
    xml_node_new(root, "name", name);
    xml_node_new(root, "capacity", cap);
    if (vsh_has(a, "allocation"))
        xml_node_new(root, "allocation", alloc);
    if (vsh_has(a, "format"))
        xml_attr_set(xml_node_new(xml_node_new(root, "target", NULL), "format", NULL), "type", vsh_text(a, "format"));
    autofree char *path = NULL;
    if (vsh_has(a, "backing-vol")) {
        if (!backing_path(v, &pool, vsh_text(a, "backing-vol"), &path))
            return false;
        struct xml_node *b = xml_node_new(root, "backingStore", NULL);
        xml_node_new(b, "path", path);
        if (vsh_has(a, "backing-vol-format"))
            xml_attr_set(xml_node_new(b, "format", NULL), "type", vsh_text(a, "backing-vol-format"));
    }
    autofree char *xml = xml_format(root);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    const rp_vol_create args = {pool, xml, vsh_has(a, "prealloc-metadata")};
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_CREATE_XML, &args, &vol))
        return vsh_error(v, "Failed to create vol %s", name);
    vsh_extra(v, "Vol %s created\n", name);
    return true;
}

bool cmd_vol_create(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    autovol vol = {0};
    const char *path = vsh_text(a, "file");
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    autofree char *xml = vsh_read_file(v, path);
    if (!xml)
        return false;
    const rp_vol_create args = {pool, xml, vsh_has(a, "prealloc-metadata") | vsh_has(a, "validate") << 2};
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_CREATE_XML, &args, &vol))
        return vsh_error(v, "Failed to create vol from %s", path);
    vsh_extra(v, "Vol %s created from %s\n", vol.name, path);
    return true;
}

static unsigned from_flags(const struct vsh_args *a)
{
    return vsh_has(a, "prealloc-metadata") | vsh_has(a, "reflink") << 1 | vsh_has(a, "validate") << 2;
}

bool cmd_vol_create_from(struct vsh *v, const struct vsh_args *a)
{
    autopool pool = {0};
    autovol source = {0}, vol = {0};
    const char *path = vsh_text(a, "file");
    if (!vsh_pool(v, a, "pool", &pool))
        return false;
    autofree char *xml = vsh_read_file(v, path);
    if (!xml || !vsh_vol(v, a, "vol", "inputpool", &source))
        return false;
    const rp_vol_create_from args = {pool, xml, source, from_flags(a)};
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_CREATE_XML_FROM, &args, &vol))
        return vsh_error(v, "Failed to create vol from %s", path);
    vsh_extra(v, "Vol %s created from input vol %s\n", vol.name, source.name);
    return true;
}

bool cmd_vol_clone(struct vsh *v, const struct vsh_args *a)
{
    autovol source = {0}, vol = {0};
    autopool pool = {0};
    const char *name = vsh_text(a, "newname");
    if (!vsh_vol(v, a, "vol", "pool", &source))
        return false;
    if (!vsh_call(v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_VOLUME, &source, &pool))
        return vsh_error(v, "failed to get parent pool");
    autofree char *text = vol_text(v, &source);
    autoxml root = text ? vsh_parse(v, text) : NULL;
    struct xml_node *n = root ? xml_child(root, "name") : NULL;
    if (!n)
        return vsh_error(v, "Failed to allocate XML buffer");
    free(n->text);
    n->text = xstrdup(name);
    autofree char *xml = xml_format(root);
    if (vsh_has(a, "print-xml")) {
        fputs(xml, stdout);
        return true;
    }
    const rp_vol_create_from args = {pool, xml, source, from_flags(a)};
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_CREATE_XML_FROM, &args, &vol))
        return vsh_error(v, "Failed to clone vol from %s", source.name);
    vsh_extra(v, "Vol %s cloned from %s\n", vol.name, source.name);
    return true;
}

bool cmd_vol_delete(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    const char *name = vsh_text(a, "vol");
    if (!vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    const rp_vol_flags args = {vol, vsh_has(a, "delete-snapshots") << 1};
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_DELETE, &args, NULL))
        return vsh_error(v, "Failed to delete vol %s", name);
    vsh_extra(v, "Vol %s deleted\n", name);
    return true;
}

bool cmd_vol_wipe(struct vsh *v, const struct vsh_args *a)
{
    static const char *const algorithms[] = {"zero",     "nnsa",      "dod",        "bsi",    "gutmann",
                                             "schneier", "pfitzner7", "pfitzner33", "random", "trim"};
    autovol vol = {0};
    const char *name = vsh_text(a, "vol"), *algorithm = vsh_text(a, "algorithm");
    unsigned i = 0;
    if (!vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    while (algorithm && i < 10 && strcmp(algorithm, algorithms[i]) != 0)
        i++;
    if (i == 10)
        return vsh_error(v, "Unsupported algorithm '%s'", algorithm);
    const rp_vol_flags plain = {vol, 0};
    const rp_vol_uint_flags args = {vol, i, 0};
    if (!(algorithm ? vsh_call(v, RPC_PROC_STORAGE_VOL_WIPE_PATTERN, &args, NULL)
                    : vsh_call(v, RPC_PROC_STORAGE_VOL_WIPE, &plain, NULL)))
        return vsh_error(v, "Failed to wipe vol %s", name);
    vsh_extra(v, "Vol %s wiped\n", name);
    return true;
}

bool cmd_vol_resize(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    const char *text = vsh_text(a, "capacity");
    bool delta = vsh_has(a, "delta"), shrink = vsh_has(a, "shrink");
    unsigned long long bytes = 0;
    if (!vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    text += strspn(text, " ");
    if (*text == '-' && !shrink)
        return vsh_error(v, "negative size requires --shrink");
    struct vsh_args *changed = (struct vsh_args *)a;
    if (*text == '-') {
        text++;
        delta = true;
        for (unsigned i = 0; i < changed->n; i++)
            if (!strcmp(changed->options[changed->v[i].option].name, "capacity"))
                changed->v[i].value = text;
    }
    if (!size_option(v, a, "capacity", &bytes))
        return false;
    const rp_vol_hyper_flags args = {vol, bytes, vsh_has(a, "allocate") | delta << 1 | shrink << 2};
    if (!vsh_call(v, RPC_PROC_STORAGE_VOL_RESIZE, &args, NULL))
        return vsh_error(
            v, delta ? "Failed to change size of volume '%s' by %s" : "Failed to change size of volume '%s' to %s",
            vol.name, text);
    vsh_extra(v,
              delta ? "Size of volume '%s' successfully changed by %s\n"
                    : "Size of volume '%s' successfully changed to %s\n",
              vol.name, text);
    return true;
}

/* Sends a file, holes as holes when `sparse`. */
static bool send_file(struct vsh *v, struct client_stream *s, int fd, unsigned long long length, bool sparse)
{
    autofree uint8_t *buf = xcalloc(1, RPC_STREAM_CHUNK);
    off_t at = 0, data_end = -1;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return false;
    unsigned long long left = length ? length : ~0ull;
    while (left) {
        if (sparse && at >= data_end && at < st.st_size) {
            off_t data = lseek(fd, at, SEEK_DATA);
            if (data < 0)
                data = st.st_size;
            if (data > at) {
                if (client_stream_send_hole(s, data - at, &v->error) < 0)
                    return false;
                at = data;
            }
            data_end = lseek(fd, at, SEEK_HOLE);
            if (data_end < 0)
                data_end = st.st_size;
        }
        size_t want = left < RPC_STREAM_CHUNK ? left : RPC_STREAM_CHUNK;
        if (sparse && at < data_end && (off_t)want > data_end - at)
            want = data_end - at;
        ssize_t n = sparse ? pread(fd, buf, want, at) : read(fd, buf, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            return true;
        if (client_stream_send(s, buf, n, &v->error) < 0)
            return false;
        at += n;
        left -= n;
    }
    return true;
}

bool cmd_vol_upload(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    unsigned long long offset = 0, length = 0;
    const char *path = vsh_text(a, "file"), *name = vsh_text(a, "vol");
    bool sparse = vsh_has(a, "sparse");
    if (!vsh_ull(v, a, "offset", &offset) || !vsh_scaled(v, a, "length", 1, &length) ||
        !vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return vsh_error(v, "cannot read %s", path);
    const rp_vol_range args = {vol, offset, length, sparse};
    struct client_stream *s;
    if (client_stream_open(v->conn, RPC_PROC_STORAGE_VOL_UPLOAD, &args, NULL, &s, &v->error) < 0)
        return vsh_error(v, "cannot upload to volume %s", name);
    if (!send_file(v, s, fd, length, sparse)) {
        client_stream_abort(s);
        return vsh_error(v, "cannot send data to volume %s", name);
    }
    return client_stream_finish(s, &v->error) == 0 || vsh_error(v, "cannot close volume %s", name);
}

static bool receive_file(struct vsh *v, struct client_stream *s, int fd)
{
    const uint8_t *data;
    uint64_t hole;
    ssize_t n;
    off_t at = 0;
    while ((n = client_stream_recv(s, -1, &data, &hole, &v->error)) > 0) {
        if (hole) {
            if (hole > INT64_MAX - (uint64_t)at)
                return false;
            at += hole;
            if (ftruncate(fd, at) < 0 || lseek(fd, at, SEEK_SET) < 0)
                return false;
            continue;
        }
        if (fd_write_full(fd, data, n) < 0)
            return false;
        at += n;
    }
    return n == 0;
}

bool cmd_vol_download(struct vsh *v, const struct vsh_args *a)
{
    autovol vol = {0};
    unsigned long long offset = 0, length = 0;
    const char *path = vsh_text(a, "file"), *name = vsh_text(a, "vol");
    if (!vsh_ull(v, a, "offset", &offset) || !vsh_scaled(v, a, "length", 1, &length) ||
        !vsh_vol(v, a, "vol", "pool", &vol))
        return false;
    bool created = true;
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST) {
        created = false;
        fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    }
    if (fd < 0)
        return vsh_error(v, "cannot create %s", path);
    const rp_vol_range args = {vol, offset, length, vsh_has(a, "sparse")};
    struct client_stream *s;
    bool ok = client_stream_open(v->conn, RPC_PROC_STORAGE_VOL_DOWNLOAD, &args, NULL, &s, &v->error) == 0;
    if (!ok) {
        vsh_error(v, "cannot download from volume %s", name);
    } else if (!(ok = receive_file(v, s, fd))) {
        client_stream_abort(s);
        vsh_error(v, "cannot receive data from volume %s", name);
    } else if (client_stream_finish(s, &v->error) < 0) {
        ok = vsh_error(v, "cannot close volume %s", name);
    }
    if (!ok && created)
        unlink(path);
    return ok;
}
