/*
 * Domains: limits and shares. Kept in the definition and the live document as libvirt's elements (<cputune>, <memtune>,
 * <blkiotune>, <numatune>); what a document does not say is reported as libvirt's "no limit". Limits are not put in
 * force by this version: setting one for a running guest is refused, so that nobody believes in a limit that is not
 * there.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/edit.h"
#include "domain/xml.h"
#include "rpc/params.h"

#define UNLIMITED_KIB 9007199254740991ull /* libvirt's VIR_DOMAIN_MEMORY_PARAM_UNLIMITED */

/* A parameter, and where the document has it. */
struct tunable {
    const char *field, *section, *element;
    enum rp_value_type type;
    long long missing; /* what is reported where nothing is said */
};

static const struct tunable memory_params[] = {
    {"hard_limit", "memtune", "hard_limit", RP_ULLONG, UNLIMITED_KIB},
    {"soft_limit", "memtune", "soft_limit", RP_ULLONG, UNLIMITED_KIB},
    {"swap_hard_limit", "memtune", "swap_hard_limit", RP_ULLONG, UNLIMITED_KIB},
};
static const struct tunable cpu_params[] = {
    {"cpu_shares", "cputune", "shares", RP_ULLONG, 1024},
    {"vcpu_period", "cputune", "period", RP_ULLONG, 100000},
    {"vcpu_quota", "cputune", "quota", RP_LLONG, -1},
    {"emulator_period", "cputune", "emulator_period", RP_ULLONG, 100000},
    {"emulator_quota", "cputune", "emulator_quota", RP_LLONG, -1},
    {"global_period", "cputune", "global_period", RP_ULLONG, 100000},
    {"global_quota", "cputune", "global_quota", RP_LLONG, -1},
    {"iothread_period", "cputune", "iothread_period", RP_ULLONG, 100000},
    {"iothread_quota", "cputune", "iothread_quota", RP_LLONG, -1},
};
static const struct tunable block_params[] = {
    {"weight", "blkiotune", "weight", RP_UINT, 0},
};

static struct xml_node *section_of(const struct domain *d, const char *name)
{
    for (unsigned i = 0; i < d->unknown.n_items; i++)
        if (d->unknown.items[i].node && !*d->unknown.items[i].path && !strcmp(d->unknown.items[i].node->name, name))
            return d->unknown.items[i].node;
    return NULL;
}

/* Sizes in the document may have a unit; KiB without one. */
static long long value_of(const struct xml_node *n)
{
    const char *unit = xml_attr_get(n, "unit");
    long long v = n->text ? strtoll(n->text, NULL, 10) : 0;
    if (!unit || !strcmp(unit, "KiB") || !strcmp(unit, "k"))
        return v;
    return !strcmp(unit, "M") || !strcmp(unit, "MiB")   ? v * 1024
           : !strcmp(unit, "G") || !strcmp(unit, "GiB") ? v * 1024 * 1024
                                                        : v;
}

static void put(struct rpc_params *p, const struct tunable *t, const struct domain *d)
{
    const struct xml_node *s = section_of(d, t->section), *n = s ? xml_child(s, t->element) : NULL;
    long long v = n ? value_of(n) : t->missing;
    if (t->type == RP_ULLONG)
        rpc_params_ullong(p, v, "%s", t->field);
    else if (t->type == RP_LLONG)
        rpc_params_llong(p, v, "%s", t->field);
    else
        rpc_params_uint(p, v, "%s", t->field);
}

/* The document that flags mean. NULL with call->error. */
static struct domain *document(struct daemon *d, struct rpc_call *call, const rp_domain *dom, unsigned flags)
{
    bool live, config;
    struct guest *g = call_guest(d, call, dom);
    if (!g || call_flags(call, flags, 7) < 0 || call_affect(call, g, flags & 3, &live, &config) < 0)
        return NULL;
    return guest_config(g, !live, &call->error);
}

static int get(struct daemon *d, struct rpc_call *call, const rp_domain *dom, unsigned flags, int room,
               const struct tunable *t, unsigned n, rp_param **ret_v, u_int *ret_n, int *ret_count)
{
    struct rpc_params p = {0};
    struct domain *doc = document(d, call, dom, flags);
    if (!doc)
        return RPC_FAILED;
    *ret_count = n;
    for (unsigned i = 0; i < n && (int)i < room; i++)
        put(&p, &t[i], doc);
    domain_free(doc);
    *ret_v = p.v;
    *ret_n = p.n;
    return RPC_DONE;
}

struct change {
    const rp_param *v;
    unsigned n;
    const struct tunable *t;
    unsigned n_t;
};

static int change(void *opaque, struct domain *d, struct rpc_error *e)
{
    const struct change *c = opaque;
    for (unsigned i = 0; i < c->n; i++) {
        const struct tunable *t = c->t;
        while (t < c->t + c->n_t && strcmp(t->field, c->v[i].field))
            t++;
        if (t == c->t + c->n_t)
            return verr_set(e, VIR_INVALID_ARG, "parameter '%.60s' not supported", c->v[i].field);
        struct xml_node *s = section_of(d, t->section);
        if (!s) {
            struct domain_unknown_item *it = DOMAIN_ADD(&d->unknown, items);
            it->path = xstrdup("");
            s = it->node = xml_node_new(NULL, t->section, NULL);
        }
        struct xml_node *n = xml_child(s, t->element);
        if (!n)
            n = xml_node_new(s, t->element, NULL);
        char *text = rpc_param_text(&c->v[i]);
        free(n->text);
        n->text = text;
        if (!strcmp(t->section, "memtune"))
            xml_attr_set(n, "unit", "KiB");
    }
    return 0;
}

static int set(struct daemon *d, struct rpc_call *call, const rp_domain *dom, unsigned flags, const rp_param *v,
               unsigned n, const struct tunable *t, unsigned n_t)
{
    struct guest *g = call_guest(d, call, dom);
    struct change c = {v, n, t, n_t};
    bool live, config;
    if (!g || call_flags(call, flags, 3) < 0 || call_affect(call, g, flags, &live, &config) < 0)
        return RPC_FAILED;
    if (live)
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED,
                        "limits of a running guest cannot be set; --config changes its definition");
    return edit_documents(g, false, true, change, &c, &call->error);
}

static int get_memory(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int_flags);
    RET(rp_params_n);
    return get(d, call, &a->dom, a->flags, a->value, memory_params, ARRAY_SIZE(memory_params), &ret->params.params_val,
               &ret->params.params_len, &ret->nparams);
}

static int set_memory(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_params_flags);
    return set(d, call, &a->dom, a->flags, a->params.params_val, a->params.params_len, memory_params,
               ARRAY_SIZE(memory_params));
}

static int get_blkio(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int_flags);
    RET(rp_params_n);
    return get(d, call, &a->dom, a->flags, a->value, block_params, ARRAY_SIZE(block_params), &ret->params.params_val,
               &ret->params.params_len, &ret->nparams);
}

static int set_blkio(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_params_flags);
    return set(d, call, &a->dom, a->flags, a->params.params_val, a->params.params_len, block_params,
               ARRAY_SIZE(block_params));
}

static int scheduler_type(struct daemon *d, struct rpc_call *call)
{
    RET(rp_scheduler);
    if (!call_guest(d, call, call->args))
        return RPC_FAILED;
    ret->type = xstrdup("posix");
    ret->nparams = ARRAY_SIZE(cpu_params);
    return RPC_DONE;
}

static int get_scheduler(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int);
    RET(rp_params);
    int count;
    return get(d, call, &a->dom, 0, a->value, cpu_params, ARRAY_SIZE(cpu_params), &ret->params.params_val,
               &ret->params.params_len, &count);
}

static int get_scheduler_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int_flags);
    RET(rp_params);
    int count;
    return get(d, call, &a->dom, a->flags, a->value, cpu_params, ARRAY_SIZE(cpu_params), &ret->params.params_val,
               &ret->params.params_len, &count);
}

static int set_scheduler(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_params);
    return set(d, call, &a->dom, 0, a->params.params_val, a->params.params_len, cpu_params, ARRAY_SIZE(cpu_params));
}

static int set_scheduler_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_params_flags);
    return set(d, call, &a->dom, a->flags, a->params.params_val, a->params.params_len, cpu_params,
               ARRAY_SIZE(cpu_params));
}

static int get_numa(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int_flags);
    RET(rp_params_n);
    static const char *const modes[] = {"strict", "preferred", "interleave", "restrictive"};
    struct rpc_params p = {0};
    struct domain *doc = document(d, call, &a->dom, a->flags);
    if (!doc)
        return RPC_FAILED;
    const struct xml_node *s = section_of(doc, "numatune"), *n = s ? xml_child(s, "memory") : NULL;
    const char *mode = n ? xml_attr_get(n, "mode") : NULL, *nodes = n ? xml_attr_get(n, "nodeset") : NULL;
    int number = 0;
    for (unsigned i = 0; mode && i < ARRAY_SIZE(modes); i++)
        if (!strcmp(mode, modes[i]))
            number = i;
    ret->nparams = 2;
    if (a->value > 0)
        rpc_params_int(&p, number, "numa_mode");
    if (a->value > 1)
        rpc_params_string(&p, nodes ? nodes : "", "numa_nodeset");
    domain_free(doc);
    ret->params.params_val = p.v;
    ret->params.params_len = p.n;
    return RPC_DONE;
}

/* <disk><iotune>: every limit as a child of its own name. */
static const char *const io_params[] = {
    "total_bytes_sec",   "read_bytes_sec",      "write_bytes_sec",    "total_iops_sec",      "read_iops_sec",
    "write_iops_sec",    "total_bytes_sec_max", "read_bytes_sec_max", "write_bytes_sec_max", "total_iops_sec_max",
    "read_iops_sec_max", "write_iops_sec_max",  "size_iops_sec",
};

static struct domain_disk *find_disk(struct domain *d, const char *name)
{
    for (unsigned i = 0; i < d->n_disks; i++)
        if (!strcmp(d->disks[i].target, name) || (d->disks[i].source && !strcmp(d->disks[i].source, name)))
            return &d->disks[i];
    return NULL;
}

static struct xml_node *iotune_of(const struct domain_disk *k)
{
    for (unsigned i = 0; i < k->unknown.n_items; i++)
        if (k->unknown.items[i].node && !strcmp(k->unknown.items[i].node->name, "iotune"))
            return k->unknown.items[i].node;
    return NULL;
}

static int get_io(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_ostr_int_flags);
    RET(rp_params_n);
    struct rpc_params p = {0};
    ret->nparams = ARRAY_SIZE(io_params);
    struct domain *doc = document(d, call, &a->dom, a->flags);
    if (!doc)
        return RPC_FAILED;
    struct domain_disk *k = a->text ? find_disk(doc, *a->text) : NULL;
    int r = RPC_DONE;
    if (a->text && !k)
        r = verr_set(&call->error, VIR_INVALID_ARG, "disk '%.100s' was not found in the domain config", *a->text);
    const struct xml_node *tune = k ? iotune_of(k) : NULL;
    for (unsigned i = 0; k && i < ARRAY_SIZE(io_params) && (int)i < a->value; i++) {
        const struct xml_node *n = tune ? xml_child(tune, io_params[i]) : NULL;
        rpc_params_ullong(&p, n && n->text ? strtoull(n->text, NULL, 10) : 0, "%s", io_params[i]);
    }
    domain_free(doc);
    ret->params.params_val = p.v;
    ret->params.params_len = p.n;
    return r;
}

struct io_change {
    const rp_dom_str_params_flags *a;
};

static int change_io(void *opaque, struct domain *d, struct rpc_error *e)
{
    const rp_dom_str_params_flags *a = ((struct io_change *)opaque)->a;
    struct domain_disk *k = find_disk(d, a->text);
    if (!k)
        return verr_set(e, VIR_INVALID_ARG, "disk '%.100s' was not found in the domain config", a->text);
    struct xml_node *tune = iotune_of(k);
    if (!tune) {
        struct domain_unknown_item *it = DOMAIN_ADD(&k->unknown, items);
        it->path = xstrdup("");
        tune = it->node = xml_node_new(NULL, "iotune", NULL);
    }
    for (unsigned i = 0; i < a->params.params_len; i++) {
        const rp_param *v = &a->params.params_val[i];
        unsigned f = 0;
        while (f < ARRAY_SIZE(io_params) && strcmp(io_params[f], v->field))
            f++;
        if (f == ARRAY_SIZE(io_params))
            return verr_set(e, VIR_INVALID_ARG, "parameter '%.60s' not supported", v->field);
        struct xml_node *n = xml_child(tune, v->field);
        if (!n)
            n = xml_node_new(tune, v->field, NULL);
        free(n->text);
        n->text = rpc_param_text(v);
    }
    return 0;
}

static int set_io(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_params_flags);
    struct guest *g = call_guest(d, call, &a->dom);
    struct io_change c = {a};
    bool live, config;
    if (!g || call_flags(call, a->flags, 3) < 0 || call_affect(call, g, a->flags, &live, &config) < 0)
        return RPC_FAILED;
    if (live)
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED,
                        "limits of a running guest cannot be set; --config changes its definition");
    return edit_documents(g, false, true, change_io, &c, &call->error);
}

const struct driver driver_domain_tune = {
    .name = "domain tuning",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_GET_MEMORY_PARAMETERS, get_memory},
            {RPC_PROC_DOMAIN_SET_MEMORY_PARAMETERS, set_memory},
            {RPC_PROC_DOMAIN_GET_BLKIO_PARAMETERS, get_blkio},
            {RPC_PROC_DOMAIN_SET_BLKIO_PARAMETERS, set_blkio},
            {RPC_PROC_DOMAIN_GET_SCHEDULER_TYPE, scheduler_type},
            {RPC_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS, get_scheduler},
            {RPC_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS, get_scheduler_flags},
            {RPC_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS, set_scheduler},
            {RPC_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS, set_scheduler_flags},
            {RPC_PROC_DOMAIN_GET_NUMA_PARAMETERS, get_numa},
            {RPC_PROC_DOMAIN_GET_BLOCK_IO_TUNE, get_io},
            {RPC_PROC_DOMAIN_SET_BLOCK_IO_TUNE, set_io},
            {0},
        },
};
