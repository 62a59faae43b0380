/* Storage pools: libvirt's procedures over pool.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/pool.h"
#include "daemon/pool_calls.h"

void put_pool(rp_pool *ret, const struct pool *p)
{
    ret->name = xstrdup(p->name);
    memcpy(ret->uuid.bytes, p->uuid, 16);
}

struct pool *call_pool(struct daemon *d, struct rpc_call *call, const rp_pool *pool)
{
    char uuid[37];
    struct pool *p = pool_find_uuid(d->pools, (const uint8_t *)pool->uuid.bytes);
    if (p)
        return p;
    uuid_format((const uint8_t *)pool->uuid.bytes, uuid);
    verr_set(&call->error, VIR_NO_STORAGE_POOL, "no storage pool with matching uuid '%s' (%.200s)", uuid, pool->name);
    return NULL;
}

struct pool *call_active_pool(struct daemon *d, struct rpc_call *call, const rp_pool *pool)
{
    struct pool *p = call_pool(d, call, pool);
    if (p && !p->active) {
        verr_set(&call->error, VIR_OPERATION_INVALID, "storage pool '%s' is not active", p->name);
        return NULL;
    }
    return p;
}

static int lookup_name(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_string);
    struct pool *p = pool_find_name(d->pools, *a);
    if (!p)
        return verr_set(&call->error, VIR_NO_STORAGE_POOL, "no storage pool with matching name '%.300s'", *a);
    put_pool(call->ret, p);
    return RPC_DONE;
}

static int lookup_uuid(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_uuid);
    char uuid[37];
    struct pool *p = pool_find_uuid(d->pools, (const uint8_t *)a->bytes);
    uuid_format((const uint8_t *)a->bytes, uuid);
    if (!p)
        return verr_set(&call->error, VIR_NO_STORAGE_POOL, "no storage pool with matching uuid '%s'", uuid);
    put_pool(call->ret, p);
    return RPC_DONE;
}

static int lookup_volume(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_vol);
    struct pool *p = pool_find_name(d->pools, a->pool);
    if (!p)
        return verr_set(&call->error, VIR_NO_STORAGE_POOL, "no storage pool with matching name '%.300s'", a->pool);
    put_pool(call->ret, p);
    return RPC_DONE;
}

static int lookup_target(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_string);
    struct pool *p, *next;
    HASH_ITER(by_name, d->pools->by_name, p, next)
    {
        if (p->active && !strcmp(p->path, *a)) {
            put_pool(call->ret, p);
            return RPC_DONE;
        }
    }
    return verr_set(&call->error, VIR_NO_STORAGE_POOL, "no storage pool with matching target path '%.300s'", *a);
}

/* libvirt's virConnectListAllStoragePoolsFlags. */
static bool wanted(const struct pool *p, unsigned flags)
{
    const struct {
        unsigned yes, no;
        bool is;
    } pairs[] = {{2, 1, p->active}, {4, 8, p->persistent}, {16, 32, p->autostart}};
    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
        if (flags & (pairs[i].yes | pairs[i].no) && !(flags & (pairs[i].is ? pairs[i].yes : pairs[i].no)))
            return false;
    return !(flags & ~63u) || flags & (p->type == POOL_FS ? 128 : 64);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rp_pool *)a)->name, ((const rp_pool *)b)->name);
}

static int list_all(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_list_args);
    RET(rp_pool_list);
    struct pool *p, *next;
    unsigned n = 0, max = MIN(HASH_CNT(by_name, d->pools->by_name), RP_LIST_MAX);
    rp_pool *list = xcalloc(max + 1, sizeof *list);
    HASH_ITER(by_name, d->pools->by_name, p, next)
    {
        if (!wanted(p, a->flags))
            continue;
        if (a->need_results && n < max)
            put_pool(&list[n], p);
        n++;
    }
    ret->items.items_val = list;
    ret->items.items_len = a->need_results ? MIN(n, max) : 0;
    ret->ret = n;
    qsort(list, ret->items.items_len, sizeof *list, by_name);
    return RPC_DONE;
}

/* The older lists, of names: active pools, or those that are not. */
static int list_names(struct daemon *d, struct rpc_call *call, bool active)
{
    ARGS(rp_int);
    RET(rp_names);
    struct pool *p, *next;
    unsigned n = 0, max = MIN(MAX(*a, 0), RP_LIST_MAX);
    ret->names.names_val = xcalloc(max + 1, sizeof(rp_string));
    HASH_ITER(by_name, d->pools->by_name, p, next)
    if (p->active == active && n < max)
        ret->names.names_val[n++] = xstrdup(p->name);
    ret->names.names_len = n;
    return RPC_DONE;
}

static int count(struct daemon *d, struct rpc_call *call, bool active)
{
    RET(rp_int);
    struct pool *p, *next;
    HASH_ITER(by_name, d->pools->by_name, p, next)
    *ret += p->active == active;
    return RPC_DONE;
}

static int list_active(struct daemon *d, struct rpc_call *call)
{
    return list_names(d, call, true);
}
static int list_defined(struct daemon *d, struct rpc_call *call)
{
    return list_names(d, call, false);
}
static int num_active(struct daemon *d, struct rpc_call *call)
{
    return count(d, call, true);
}
static int num_defined(struct daemon *d, struct rpc_call *call)
{
    return count(d, call, false);
}

static int create_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    if (call_flags(call, a->flags, 7) < 0)
        return RPC_FAILED;
    struct pool *p = pool_create_transient(d, a->text, a->flags & 1, &call->error);
    if (!p)
        return RPC_FAILED;
    put_pool(call->ret, p);
    return RPC_DONE;
}

static int define_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    struct pool *p = pool_define(d, a->text, &call->error);
    if (!p)
        return RPC_FAILED;
    put_pool(call->ret, p);
    return RPC_DONE;
}

static int create(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_flags);
    struct pool *p = call_pool(d, call, &a->pool);
    if (!p || call_flags(call, a->flags, 7) < 0)
        return RPC_FAILED;
    if (a->flags & 1 && !p->active && pool_build(p, &call->error) < 0)
        return RPC_FAILED;
    return pool_start(p, &call->error);
}

static int build(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_flags);
    struct pool *p = call_pool(d, call, &a->pool);
    if (!p)
        return RPC_FAILED;
    if (p->active)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "storage pool '%s' is already active", p->name);
    return pool_build(p, &call->error);
}

static int destroy(struct daemon *d, struct rpc_call *call)
{
    struct pool *p = call_pool(d, call, call->args);
    return p ? pool_stop(p, &call->error) : RPC_FAILED;
}

static int delete_pool(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_flags);
    struct pool *p = call_pool(d, call, &a->pool);
    return p ? pool_delete(p, &call->error) : RPC_FAILED;
}

static int undefine_pool(struct daemon *d, struct rpc_call *call)
{
    struct pool *p = call_pool(d, call, call->args);
    return p ? pool_undefine(p, &call->error) : RPC_FAILED;
}

static int refresh(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_flags);
    struct pool *p = call_active_pool(d, call, &a->pool);
    if (!p || pool_refresh(p, &call->error) < 0)
        return RPC_FAILED;
    rp_ev_pool_refresh m = {.pool = {.name = p->name}};
    memcpy(m.pool.uuid.bytes, p->uuid, 16);
    daemon_event(d, EVENTS_POOL, 1, RPC_REMOTE_PROGRAM, RPC_PROC_STORAGE_POOL_EVENT_REFRESH, &m, p->uuid);
    return RPC_DONE;
}

static int get_info(struct daemon *d, struct rpc_call *call)
{
    RET(rp_pool_info);
    struct pool *p = call_pool(d, call, call->args);
    if (!p)
        return RPC_FAILED;
    pool_measure(p);
    ret->state = p->active ? 2 : 0; /* running, inactive */
    ret->capacity = p->capacity;
    ret->allocation = p->allocation;
    ret->available = p->available;
    return RPC_DONE;
}

static int get_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_flags);
    RET(rp_string);
    struct pool *p = call_pool(d, call, &a->pool);
    if (!p)
        return RPC_FAILED;
    pool_measure(p);
    *ret = pool_format(p, a->flags & 1);
    return RPC_DONE;
}

static int get_autostart(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct pool *p = call_pool(d, call, call->args);
    *ret = p && p->autostart;
    return p ? RPC_DONE : RPC_FAILED;
}

static int set_autostart(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_int);
    struct pool *p = call_pool(d, call, &a->pool);
    return p ? pool_set_autostart(p, a->value, &call->error) : RPC_FAILED;
}

static int is_active(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct pool *p = call_pool(d, call, call->args);
    *ret = p && p->active;
    return p ? RPC_DONE : RPC_FAILED;
}

static int is_persistent(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct pool *p = call_pool(d, call, call->args);
    *ret = p && p->persistent;
    return p ? RPC_DONE : RPC_FAILED;
}

static int num_of_volumes(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct pool *p = call_active_pool(d, call, call->args);
    *ret = p ? (int)HASH_COUNT(p->volumes) : 0;
    return p ? RPC_DONE : RPC_FAILED;
}

static int list_volumes(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pool_int);
    RET(rp_names);
    struct pool *p = call_active_pool(d, call, &a->pool);
    if (!p)
        return RPC_FAILED;
    unsigned n = 0, max = MIN(MAX(a->value, 0), RP_LIST_MAX);
    struct volume *v, *next;
    ret->names.names_val = xcalloc(max + 1, sizeof(rp_string));
    HASH_ITER(hh, p->volumes, v, next)
    if (n < max)
        ret->names.names_val[n++] = xstrdup(v->name);
    ret->names.names_len = n;
    return RPC_DONE;
}

static int capabilities(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    static const char *const other[] = {"netfs", "logical",  "disk",    "iscsi", "scsi",    "mpath",
                                        "rbd",   "sheepdog", "gluster", "zfs",   "vstorage"};
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        abort();
    fputs("<storagepoolCapabilities>\n", f);
    for (unsigned i = 0; i < 2; i++)
        fprintf(f,
                "  <pool type='%s' supported='yes'>\n    <volOptions>\n      <defaultFormat type='raw'/>\n"
                "      <enum name='targetFormatType'>\n        <value>none</value>\n        <value>raw</value>\n"
                "        <value>dir</value>\n        <value>qcow2</value>\n        <value>vmdk</value>\n"
                "        <value>vdi</value>\n        <value>vpc</value>\n      </enum>\n    </volOptions>\n  </pool>\n",
                i ? "fs" : "dir");
    for (unsigned i = 0; i < ARRAY_SIZE(other); i++)
        fprintf(f, "  <pool type='%s' supported='no'>\n  </pool>\n", other[i]);
    fputs("</storagepoolCapabilities>\n", f);
    fclose(f);
    *ret = text;
    return RPC_DONE;
}

static int event_register(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_reg_pool);
    RET(rp_int);
    if (a->event < 0 || a->event > 1)
        return verr_set(&call->error, VIR_INVALID_ARG, "unsupported storage pool event ID %d", a->event);
    *ret = session_register(session_of(call), EVENTS_POOL, a->event,
                            a->pool ? (const uint8_t *)a->pool->uuid.bytes : NULL);
    return *ret < 0 ? verr_set(&call->error, VIR_INTERNAL_ERROR, "too many event registrations on one connection")
                    : RPC_DONE;
}

static int event_deregister(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int);
    if (session_deregister(session_of(call), EVENTS_POOL, *a) < 0)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "storage pool event callback %d not registered", *a);
    return RPC_DONE;
}

const struct driver driver_pool = {
    .name = "storage pool",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_STORAGE,
    .start = pools_start,
    .stop = pools_stop,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_STORAGE_POOL_LOOKUP_BY_NAME, lookup_name},
            {RPC_PROC_STORAGE_POOL_LOOKUP_BY_UUID, lookup_uuid},
            {RPC_PROC_STORAGE_POOL_LOOKUP_BY_VOLUME, lookup_volume},
            {RPC_PROC_STORAGE_POOL_LOOKUP_BY_TARGET_PATH, lookup_target},
            {RPC_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, list_all},
            {RPC_PROC_CONNECT_NUM_OF_STORAGE_POOLS, num_active},
            {RPC_PROC_CONNECT_LIST_STORAGE_POOLS, list_active},
            {RPC_PROC_CONNECT_NUM_OF_DEFINED_STORAGE_POOLS, num_defined},
            {RPC_PROC_CONNECT_LIST_DEFINED_STORAGE_POOLS, list_defined},
            {RPC_PROC_STORAGE_POOL_CREATE_XML, create_xml},
            {RPC_PROC_STORAGE_POOL_DEFINE_XML, define_xml},
            {RPC_PROC_STORAGE_POOL_CREATE, create},
            {RPC_PROC_STORAGE_POOL_BUILD, build},
            {RPC_PROC_STORAGE_POOL_DESTROY, destroy},
            {RPC_PROC_STORAGE_POOL_DELETE, delete_pool},
            {RPC_PROC_STORAGE_POOL_UNDEFINE, undefine_pool},
            {RPC_PROC_STORAGE_POOL_REFRESH, refresh},
            {RPC_PROC_STORAGE_POOL_GET_INFO, get_info},
            {RPC_PROC_STORAGE_POOL_GET_XML_DESC, get_xml},
            {RPC_PROC_STORAGE_POOL_GET_AUTOSTART, get_autostart},
            {RPC_PROC_STORAGE_POOL_SET_AUTOSTART, set_autostart},
            {RPC_PROC_STORAGE_POOL_IS_ACTIVE, is_active},
            {RPC_PROC_STORAGE_POOL_IS_PERSISTENT, is_persistent},
            {RPC_PROC_STORAGE_POOL_NUM_OF_VOLUMES, num_of_volumes},
            {RPC_PROC_STORAGE_POOL_LIST_VOLUMES, list_volumes},
            {RPC_PROC_CONNECT_GET_STORAGE_POOL_CAPABILITIES, capabilities},
            {RPC_PROC_CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY, event_register},
            {RPC_PROC_CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY, event_deregister},
            {0},
        },
};
