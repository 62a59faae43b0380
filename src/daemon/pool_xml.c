/* Documents of pools and volumes, read and written. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/pool.h"
#include "domain/xml.h"

static const char *text_of(const struct xml_node *n, const char *name)
{
    const struct xml_node *c = n ? xml_child(n, name) : NULL;
    return c && c->text && *c->text ? c->text : NULL;
}

static const char *attr_of(const struct xml_node *n, const char *child, const char *attr)
{
    const struct xml_node *c = n ? xml_child(n, child) : NULL;
    return c ? xml_attr_get(c, attr) : NULL;
}

static int parse_uuid(const char *s, uint8_t *ret)
{
    for (unsigned i = 0; i < 16; i++) {
        while (*s == '-')
            s++;
        unsigned v;
        if (sscanf(s, "%2x", &v) != 1 || !s[1])
            return -1;
        ret[i] = v;
        s += 2;
    }
    return *s ? -1 : 0;
}

/* <permissions><mode>0755</mode><owner>…: -1 where nothing is said. */
static void parse_permissions(const struct xml_node *target, int *mode, int *owner, int *group)
{
    const struct xml_node *perms = target ? xml_child(target, "permissions") : NULL;
    const char *m = text_of(perms, "mode"), *o = text_of(perms, "owner"), *g = text_of(perms, "group");
    *mode = m ? (int)(strtol(m, NULL, 8) & 07777) : -1;
    *owner = o ? atoi(o) : -1;
    *group = g ? atoi(g) : -1;
}

static int check_name(const char *name, const char *what, struct rpc_error *e)
{
    if (!name)
        return verr_set(e, VIR_XML_ERROR, "missing %s name element", what);
    if (strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, "..") || strlen(name) > 200)
        return verr_set(e, VIR_XML_ERROR, "name %.200s cannot contain '/'", name);
    return 0;
}

static int fill_pool(struct pool *p, const struct xml_node *root, struct rpc_error *e)
{
    const char *type = xml_attr_get(root, "type"), *name = text_of(root, "name"), *uuid = text_of(root, "uuid");
    const struct xml_node *target = xml_child(root, "target"), *source = xml_child(root, "source");
    const char *path = text_of(target, "path");
    if (strcmp(root->name, "pool"))
        return verr_set(e, VIR_XML_ERROR, "unexpected root element <%.40s>, expecting <pool>", root->name);
    if (!type)
        return verr_set(e, VIR_XML_ERROR, "storage pool missing type attribute");
    if (strcmp(type, "dir") && strcmp(type, "fs"))
        return verr_set(e, VIR_CONFIG_UNSUPPORTED, "storage pool type '%.40s' is not supported, only dir and fs", type);
    p->type = !strcmp(type, "fs") ? POOL_FS : POOL_DIR;
    if (check_name(name, "pool", e) < 0)
        return -1;
    if (uuid && parse_uuid(uuid, p->uuid) < 0)
        return verr_set(e, VIR_XML_ERROR, "malformed uuid element");
    if (!uuid) {
        if (getrandom(p->uuid, 16, 0) != 16)
            return verr_set(e, VIR_INTERNAL_ERROR, "unable to generate uuid");
        p->uuid[6] = (p->uuid[6] & 0x0f) | 0x40;
        p->uuid[8] = (p->uuid[8] & 0x3f) | 0x80;
    }
    if (!path || *path != '/')
        return verr_set(e, VIR_XML_ERROR, "missing storage pool target path");
    p->name = xstrdup(name);
    p->path = xstrdup(path);
    for (size_t n = strlen(p->path); n > 1 && p->path[n - 1] == '/'; n--)
        p->path[n - 1] = 0;
    parse_permissions(target, &p->mode, &p->owner, &p->group);
    if (p->type != POOL_FS)
        return 0;
    const char *device = attr_of(source, "device", "path"), *fs = attr_of(source, "format", "type");
    if (!device || *device != '/')
        return verr_set(e, VIR_XML_ERROR, "missing storage pool source device path");
    p->device = xstrdup(device);
    p->fs = fs && strcmp(fs, "auto") && *fs != '-' ? xstrdup(fs) : NULL;
    return 0;
}

static struct xml_node *parse(const char *xml, const char *name, struct rpc_error *e)
{
    struct xml_node *root = NULL;
    struct err err = {0};
    if (xml_parse(xml, strlen(xml), name, &root, &err) < 0)
        verr_take(e, VIR_XML_ERROR, &err);
    return root;
}

struct pool *pool_parse(struct daemon *d, const char *xml, struct rpc_error *e)
{
    struct xml_node *root = parse(xml, "pool", e);
    if (!root)
        return NULL;
    struct pool *p = xcalloc(1, sizeof *p);
    p->daemon = d;
    int r = fill_pool(p, root, e);
    xml_free(root);
    if (r == 0)
        return p;
    pool_free(p);
    return NULL;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pool_drop_volumes(p);
    free(p->name);
    free(p->path);
    free(p->device);
    free(p->fs);
    free(p);
}

static void put_bytes(struct xml_node *n, const char *name, uint64_t bytes)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, bytes);
    xml_attr_set(xml_node_new(n, name, text), "unit", "bytes");
}

static void put_number(struct xml_node *n, const char *name, const char *fmt, int value)
{
    char text[24];
    snprintf(text, sizeof text, fmt, value);
    xml_node_new(n, name, text);
}

char *pool_format(const struct pool *p, bool inactive)
{
    char uuid[37];
    struct stat st;
    struct xml_node *root = xml_node_new(NULL, "pool", NULL);
    xml_attr_set(root, "type", p->type == POOL_FS ? "fs" : "dir");
    xml_node_new(root, "name", p->name);
    uuid_format(p->uuid, uuid);
    xml_node_new(root, "uuid", uuid);
    put_bytes(root, "capacity", inactive ? 0 : p->capacity);
    put_bytes(root, "allocation", inactive ? 0 : p->allocation);
    put_bytes(root, "available", inactive ? 0 : p->available);
    struct xml_node *source = xml_node_new(root, "source", NULL);
    if (p->type == POOL_FS) {
        xml_attr_set(xml_node_new(source, "device", NULL), "path", p->device);
        xml_attr_set(xml_node_new(source, "format", NULL), "type", p->fs ? p->fs : "auto");
    }
    struct xml_node *target = xml_node_new(root, "target", NULL);
    xml_node_new(target, "path", p->path);
    bool live = !inactive && p->active && stat(p->path, &st) == 0;
    int mode = live ? (int)(st.st_mode & 07777) : p->mode, owner = live ? (int)st.st_uid : p->owner,
        group = live ? (int)st.st_gid : p->group;
    if (mode >= 0 || owner >= 0 || group >= 0) {
        struct xml_node *perms = xml_node_new(target, "permissions", NULL);
        if (mode >= 0)
            put_number(perms, "mode", "%04o", mode);
        if (owner >= 0)
            put_number(perms, "owner", "%d", owner);
        if (group >= 0)
            put_number(perms, "group", "%d", group);
    }
    char *text = xml_format(root);
    xml_free(root);
    return text;
}

/* <capacity unit='GiB'>5</capacity>; bytes without a unit. */
static int parse_bytes(const struct xml_node *n, uint64_t *ret, struct rpc_error *e)
{
    static const char letters[] = "KMGTPE";
    const char *unit = xml_attr_get(n, "unit");
    char *end;
    uint64_t scale = 1;
    unsigned long long v = strtoull(n->text ? n->text : "", &end, 10);
    if (!n->text || *end || *n->text == '-')
        return verr_set(e, VIR_XML_ERROR, "malformed %s element", n->name);
    if (unit && *unit && strcmp(unit, "B") && strcasecmp(unit, "bytes") && strcasecmp(unit, "byte")) {
        const char *l = strchr(letters, unit[0] >= 'a' ? unit[0] - 32 : unit[0]);
        uint64_t base = unit[1] == 'B' || unit[1] == 'b' ? 1000 : 1024; /* "KB" against "K" and "KiB" */
        if (!l || !*l || (unit[1] && strcasecmp(unit + 1, "b") && strcasecmp(unit + 1, "ib")))
            return verr_set(e, VIR_INVALID_ARG, "unknown suffix '%.20s'", unit);
        for (const char *k = letters; k <= l; k++)
            scale *= base;
    }
    if (v > INT64_MAX / scale)
        return verr_set(e, VIR_OVERFLOW, "value too large: %llu%s", v, unit ? unit : "");
    *ret = v * scale;
    return 0;
}

static int fill_volume(struct volume_spec *s, const struct xml_node *root, struct rpc_error *e)
{
    const char *name = text_of(root, "name");
    const struct xml_node *target = xml_child(root, "target"), *backing = xml_child(root, "backingStore");
    const struct xml_node *capacity = xml_child(root, "capacity"), *allocation = xml_child(root, "allocation");
    if (strcmp(root->name, "volume"))
        return verr_set(e, VIR_XML_ERROR, "unexpected root element <%.40s>, expecting <volume>", root->name);
    if (check_name(name, "volume", e) < 0)
        return -1;
    s->name = xstrdup(name);
    if (capacity && parse_bytes(capacity, &s->capacity, e) < 0)
        return -1;
    if (allocation && parse_bytes(allocation, &s->allocation, e) < 0)
        return -1;
    s->has_capacity = capacity;
    s->has_allocation = allocation;
    const char *format = attr_of(target, "format", "type");
    s->format = xstrdup(format ? format : "raw");
    s->nocow = target && xml_child(target, "nocow");
    parse_permissions(target, &s->mode, &s->owner, &s->group);
    const char *path = text_of(backing, "path"), *backing_format = attr_of(backing, "format", "type");
    if (path) {
        s->backing = xstrdup(path);
        s->backing_format = xstrdup(backing_format ? backing_format : "raw");
    }
    if (!s->has_capacity && !s->backing)
        return verr_set(e, VIR_XML_ERROR, "missing capacity element");
    return 0;
}

int volume_parse(const char *xml, struct volume_spec *ret, struct rpc_error *e)
{
    *ret = (struct volume_spec){.mode = -1, .owner = -1, .group = -1};
    struct xml_node *root = parse(xml, "volume", e);
    if (!root)
        return -1;
    int r = fill_volume(ret, root, e);
    xml_free(root);
    if (r < 0)
        volume_spec_clear(ret);
    return r;
}

void volume_spec_clear(struct volume_spec *s)
{
    free(s->name);
    free(s->format);
    free(s->backing);
    free(s->backing_format);
    *s = (struct volume_spec){0};
}

static void put_time(struct xml_node *n, const char *name, const struct timespec *ts)
{
    char text[40];
    snprintf(text, sizeof text, "%lld.%09ld", (long long)ts->tv_sec, ts->tv_nsec);
    xml_node_new(n, name, text);
}

char *volume_format(const struct volume *v)
{
    struct stat st;
    struct xml_node *root = xml_node_new(NULL, "volume", NULL);
    xml_attr_set(root, "type", v->directory ? "dir" : "file");
    xml_node_new(root, "name", v->name);
    xml_node_new(root, "key", v->path);
    put_bytes(root, "capacity", v->capacity);
    put_bytes(root, "allocation", v->allocation);
    put_bytes(root, "physical", v->physical);
    struct xml_node *target = xml_node_new(root, "target", NULL);
    xml_node_new(target, "path", v->path);
    xml_attr_set(xml_node_new(target, "format", NULL), "type", v->format);
    if (stat(v->path, &st) == 0) {
        struct xml_node *perms = xml_node_new(target, "permissions", NULL);
        put_number(perms, "mode", "%04o", st.st_mode & 07777);
        put_number(perms, "owner", "%d", st.st_uid);
        put_number(perms, "group", "%d", st.st_gid);
        struct xml_node *times = xml_node_new(target, "timestamps", NULL);
        put_time(times, "atime", &st.st_atim);
        put_time(times, "mtime", &st.st_mtim);
        put_time(times, "ctime", &st.st_ctim);
    }
    if (v->format && !strcmp(v->format, "qcow2"))
        xml_node_new(target, "compat", "1.1");
    if (v->backing) {
        struct xml_node *b = xml_node_new(root, "backingStore", NULL);
        xml_node_new(b, "path", v->backing);
        xml_attr_set(xml_node_new(b, "format", NULL), "type", v->backing_format);
    }
    char *text = xml_format(root);
    xml_free(root);
    return text;
}
