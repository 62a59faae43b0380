/* Storage volumes: libvirt's procedures. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/pool_calls.h"

void put_volume(rp_vol *ret, const struct pool *p, const struct volume *v)
{
    ret->pool = xstrdup(p->name);
    ret->name = xstrdup(v->name);
    ret->key = xstrdup(v->path);
}

struct volume *call_volume(struct daemon *d, struct rpc_call *call, const rp_vol *vol, struct pool **ret_pool)
{
    struct pool *p = pool_find_name(d->pools, vol->pool);
    if (!p) {
        verr_set(&call->error, VIR_NO_STORAGE_POOL, "no storage pool with matching name '%.300s'", vol->pool);
        return NULL;
    }
    if (!p->active) {
        verr_set(&call->error, VIR_OPERATION_INVALID, "storage pool '%s' is not active", p->name);
        return NULL;
    }
    struct volume *v = volume_find(p, vol->name);
    if (!v || !(v = volume_look(p, vol->name))) {
        verr_set(&call->error, VIR_NO_STORAGE_VOL, "no storage vol with matching name '%.300s'", vol->name);
        return NULL;
    }
    *ret_pool = p;
    return v;
}

static struct volume *call_idle_volume(struct daemon *d, struct rpc_call *call, const rp_vol *vol,
                                       struct pool **ret_pool)
{
    struct volume *v = call_volume(d, call, vol, ret_pool);
    if (v && v->building) {
        verr_set(&call->error, VIR_OPERATION_INVALID, "volume '%s' is still being allocated.", v->name);
        return NULL;
    }
    return v;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rp_vol *)a)->name, ((const rp_vol *)b)->name);
}

static int list_all(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_list_args);
    RET(rp_vol_list);
    struct pool *p = call_active_pool(d, call, &a->pool);
    if (!p)
        return RPC_FAILED;
    struct volume *v, *next;
    unsigned n = 0, max = MIN(HASH_COUNT(p->volumes), RP_LIST_MAX);
    ret->ret = HASH_COUNT(p->volumes);
    if (!a->need_results)
        return RPC_DONE;
    ret->items.items_val = xcalloc(max + 1, sizeof(rp_vol));
    HASH_ITER(hh, p->volumes, v, next)
    if (n < max)
        put_volume(&ret->items.items_val[n++], p, v);
    ret->items.items_len = n;
    qsort(ret->items.items_val, n, sizeof(rp_vol), by_name);
    return RPC_DONE;
}

static int lookup_name(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_str);
    struct pool *p = call_active_pool(d, call, &a->pool);
    if (!p)
        return RPC_FAILED;
    struct volume *v = volume_look(p, a->text);
    if (!v)
        return verr_set(&call->error, VIR_NO_STORAGE_VOL, "no storage vol with matching name '%.300s'", a->text);
    put_volume(call->ret, p, v);
    return RPC_DONE;
}

/* By path, which is also the key; the file may be newer than the last refresh. */
static int lookup(struct daemon *d, struct rpc_call *call, const char *what)
{
    ARGS(rp_string);
    const char *path = *a, *slash = strrchr(path, '/');
    struct pool *p, *next;
    HASH_ITER(by_name, d->pools->by_name, p, next)
    {
        if (!p->active || !slash || strlen(p->path) != (size_t)(slash - path) || strncmp(p->path, path, slash - path))
            continue;
        struct volume *v = volume_look(p, slash + 1);
        if (v) {
            put_volume(call->ret, p, v);
            return RPC_DONE;
        }
    }
    return verr_set(&call->error, VIR_NO_STORAGE_VOL, "no storage vol with matching %s '%.600s'", what, path);
}

static int lookup_key(struct daemon *d, struct rpc_call *call)
{
    return lookup(d, call, "key");
}
static int lookup_path(struct daemon *d, struct rpc_call *call)
{
    return lookup(d, call, "path");
}

static int info(struct daemon *d, struct rpc_call *call, const rp_vol *vol, bool physical)
{
    RET(rp_vol_info);
    struct pool *p;
    struct volume *v = call_volume(d, call, vol, &p);
    if (!v)
        return RPC_FAILED;
    ret->type = v->directory ? 2 : 0;
    ret->capacity = v->capacity;
    ret->allocation = physical ? v->physical : v->allocation;
    return RPC_DONE;
}

static int get_info(struct daemon *d, struct rpc_call *call)
{
    return info(d, call, call->args, false);
}

static int get_info_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_flags);
    return info(d, call, &a->vol, a->flags & 1);
}

static int get_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_flags);
    RET(rp_string);
    struct pool *p;
    struct volume *v = call_volume(d, call, &a->vol, &p);
    if (!v)
        return RPC_FAILED;
    *ret = volume_format(v);
    return RPC_DONE;
}

static int get_path(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    struct pool *p;
    struct volume *v = call_volume(d, call, call->args, &p);
    if (!v)
        return RPC_FAILED;
    *ret = xstrdup(v->path);
    return RPC_DONE;
}

enum { CREATE_METADATA = 1, CREATE_REFLINK = 2 };

static int create_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_create);
    struct volume_spec spec;
    struct pool *p = call_active_pool(d, call, &a->pool);
    if (!p || call_flags(call, a->flags, 7) < 0 || volume_parse(a->xml, &spec, &call->error) < 0)
        return RPC_FAILED;
    int r = volume_create(call, p, &spec, a->flags, NULL);
    volume_spec_clear(&spec);
    return r;
}

static int create_from(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_create_from);
    struct volume_spec spec;
    struct pool *p = call_active_pool(d, call, &a->pool), *from;
    struct volume *source = p ? call_idle_volume(d, call, &a->source, &from) : NULL;
    if (!source || call_flags(call, a->flags, 7) < 0 || volume_parse(a->xml, &spec, &call->error) < 0)
        return RPC_FAILED;
    int r = volume_create(call, p, &spec, a->flags, source);
    volume_spec_clear(&spec);
    return r;
}

static int delete_volume(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_flags);
    struct pool *p;
    struct volume *v = call_idle_volume(d, call, &a->vol, &p);
    if (!v)
        return RPC_FAILED;
    if ((v->directory ? rmdir(v->path) : unlink(v->path)) < 0 && errno != ENOENT)
        return verr_errno(&call->error, errno, "cannot unlink file '%s'", v->path);
    volume_drop(p, v);
    pool_measure(p);
    return RPC_DONE;
}

static int resize(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_hyper_flags);
    enum { ALLOCATE = 1, DELTA = 2, SHRINK = 4 };
    struct pool *p;
    struct volume *v = call_idle_volume(d, call, &a->vol, &p);
    if (!v || call_flags(call, a->flags, 7) < 0)
        return RPC_FAILED;
    uint64_t size = a->amount;
    if (a->flags & DELTA)
        size = a->flags & SHRINK ? v->capacity - MIN(a->amount, v->capacity) : v->capacity + a->amount;
    if (size > INT64_MAX)
        return verr_set(&call->error, VIR_OVERFLOW, "capacity of volume '%s'", v->name);
    if (size < v->allocation && !(a->flags & SHRINK) && size < v->capacity)
        return verr_set(&call->error, VIR_INVALID_ARG, "can't shrink capacity below existing allocation");
    if (size < v->capacity && !(a->flags & SHRINK))
        return verr_set(&call->error, VIR_INVALID_ARG,
                        "Can't shrink capacity below current capacity unless shrink flag explicitly specified");
    return volume_resize(call, p, v, size, a->flags & SHRINK, a->flags & ALLOCATE);
}

static int wipe_with(struct daemon *d, struct rpc_call *call, const rp_vol *vol, unsigned pattern)
{
    enum { ZERO = 0, TRIM = 9 };
    struct pool *p;
    struct volume *v = call_idle_volume(d, call, vol, &p);
    if (!v)
        return RPC_FAILED;
    if (pattern != ZERO && pattern != TRIM)
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED, "volumes are wiped with zeroes (or trimmed) only");
    return volume_wipe(call, p, v, pattern == TRIM);
}

static int wipe(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_flags);
    return wipe_with(d, call, &a->vol, 0);
}

static int wipe_pattern(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol_uint_flags);
    return wipe_with(d, call, &a->vol, a->value);
}

const struct driver driver_volume = {
    .name = "storage volume",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_STORAGE,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_STORAGE_POOL_LIST_ALL_VOLUMES, list_all},
            {RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, lookup_name},
            {RPC_PROC_STORAGE_VOL_LOOKUP_BY_KEY, lookup_key},
            {RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, lookup_path},
            {RPC_PROC_STORAGE_VOL_GET_INFO, get_info},
            {RPC_PROC_STORAGE_VOL_GET_INFO_FLAGS, get_info_flags},
            {RPC_PROC_STORAGE_VOL_GET_XML_DESC, get_xml},
            {RPC_PROC_STORAGE_VOL_GET_PATH, get_path},
            {RPC_PROC_STORAGE_VOL_CREATE_XML, create_xml},
            {RPC_PROC_STORAGE_VOL_CREATE_XML_FROM, create_from},
            {RPC_PROC_STORAGE_VOL_DELETE, delete_volume},
            {RPC_PROC_STORAGE_VOL_RESIZE, resize},
            {RPC_PROC_STORAGE_VOL_WIPE, wipe},
            {RPC_PROC_STORAGE_VOL_WIPE_PATTERN, wipe_pattern},
            {RPC_PROC_STORAGE_VOL_UPLOAD, volume_upload},
            {RPC_PROC_STORAGE_VOL_DOWNLOAD, volume_download},
            {0},
        },
};
