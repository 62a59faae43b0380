/* The host: what it has, what it does, what guests may have. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/host.h"

static int get_info(struct daemon *d, struct rpc_call *call)
{
    RET(rp_node_info);
    struct host_info h;
    host_info_read(&h);
    snprintf(ret->model, sizeof ret->model, "x86_64");
    ret->memory = h.memory / KIB;
    ret->cpus = h.cpus;
    ret->mhz = h.mhz;
    ret->nodes = 1;
    ret->sockets = h.sockets;
    ret->cores = h.cores;
    ret->threads = h.threads;
    return RPC_DONE;
}

static int get_capabilities(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    if (!d->caps)
        d->caps = caps_host(d);
    *ret = xstrdup(d->caps);
    return RPC_DONE;
}

static const char *opt(const rp_opt_string *s)
{
    return *s ? **s : NULL;
}

static int get_domain_capabilities(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_domain_caps_args);
    RET(rp_string);
    if (call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    *ret = caps_domain(d, opt(&a->emulator), opt(&a->arch), opt(&a->machine), opt(&a->virttype), &call->error);
    return *ret ? RPC_DONE : RPC_FAILED;
}

static int get_max_vcpus(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    *ret = HOST_VCPUS_MAX;
    return RPC_DONE;
}

static void add_stat(rp_stats *ret, const char *name, uint64_t value)
{
    rp_stat *s = &ret->params.params_val[ret->params.params_len++];
    s->field = xstrdup(name);
    s->value = value;
}

/* Two-phase: a call without room asks how many there are. */
static int get_cpu_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int_int_flags);
    RET(rp_stats);
    struct host_cpu_stats s;
    ret->nparams = 5;
    if (host_cpu_stats_read(a->value, &s) < 0)
        return verr_set(&call->error, VIR_INVALID_ARG, "Invalid cpuNum in virNodeGetCPUStats: %d", a->value);
    if (a->value2 == 0)
        return RPC_DONE;
    ret->params.params_val = xcalloc(5, sizeof(rp_stat));
    add_stat(ret, "kernel", s.kernel_ns);
    add_stat(ret, "user", s.user_ns);
    add_stat(ret, "idle", s.idle_ns);
    add_stat(ret, "iowait", s.iowait_ns);
    add_stat(ret, "intr", s.intr_ns);
    return RPC_DONE;
}

static int get_memory_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int_int_flags);
    RET(rp_stats);
    struct host_memory m;
    if (a->value2 > 0) /* the cell; `value` is the number of parameters */
        return verr_set(&call->error, VIR_INVALID_ARG,
                        "cellNum in virNodeGetMemoryStats must be less than or equal to 0");
    ret->nparams = 4;
    if (a->value == 0)
        return RPC_DONE;
    host_memory_read(&m);
    ret->params.params_val = xcalloc(4, sizeof(rp_stat));
    add_stat(ret, "total", m.total / KIB);
    add_stat(ret, "free", m.free / KIB);
    add_stat(ret, "buffers", m.buffers / KIB);
    add_stat(ret, "cached", m.cached / KIB);
    return RPC_DONE;
}

static int get_free_memory(struct daemon *d, struct rpc_call *call)
{
    RET(rp_uhyper);
    struct host_memory m;
    host_memory_read(&m);
    *ret = m.free;
    return RPC_DONE;
}

static int get_cells_free(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int_int);
    RET(rp_hypers);
    struct host_memory m;
    if (a->value != 0 || a->value2 < 1)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "start cell %d out of range (0-0)", a->value);
    host_memory_read(&m);
    ret->values.values_val = xcalloc(1, sizeof(quad_t));
    ret->values.values_len = 1;
    ret->values.values_val[0] = m.free;
    return RPC_DONE;
}

static int get_cpu_map(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_cpu_map_args);
    RET(rp_cpu_map);
    unsigned present = host_cpus_present(), bytes = (present + 7) / 8;
    uint8_t map[RP_CPUMAP_MAX] = {0};
    unsigned online = host_cpus_online(map, MIN(bytes, RP_CPUMAP_MAX));
    if (a->need_map) {
        ret->cpumap.cpumap_val = xcalloc(1, bytes);
        memcpy(ret->cpumap.cpumap_val, map, bytes);
        ret->cpumap.cpumap_len = bytes;
    }
    ret->online = a->need_online ? online : 0;
    ret->ret = present;
    return RPC_DONE;
}

static int get_cpu_models(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_arch_models_args);
    RET(rp_names_ret);
    if (strcmp(a->arch, "x86_64"))
        return verr_set(&call->error, VIR_INVALID_ARG, "cannot find architecture %.60s", a->arch);
    unsigned n = 0;
    while (caps_cpu_models[n])
        n++;
    ret->ret = n;
    if (!a->need_results)
        return RPC_DONE;
    ret->names.names_val = xcalloc(n, sizeof(rp_string));
    for (unsigned i = 0; i < n; i++)
        ret->names.names_val[ret->names.names_len++] = xstrdup(caps_cpu_models[i]);
    return RPC_DONE;
}

/* Our own command line: the document is all that lodge-vm is told. */
static int to_native(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_str_flags);
    RET(rp_string);
    struct err err = {0};
    if (strcmp(a->text, "lodge-argv") && strcmp(a->text, "qemu-argv"))
        return verr_set(&call->error, VIR_INVALID_ARG, "unsupported config type %.60s: only lodge-argv", a->text);
    struct domain *doc = define_parse(&d->guests, a->text2, &call->error);
    if (!doc)
        return RPC_FAILED;
    if (domain_check(doc, NULL, &err) < 0) {
        domain_free(doc);
        return verr_take(&call->error, VIR_CONFIG_UNSUPPORTED, &err);
    }
    *ret = xasprintf("%s --domain %s/%s.xml\n", d->emulator, d->guests.dirs.config, doc->name);
    domain_free(doc);
    return RPC_DONE;
}

static int get_security_model(struct daemon *d, struct rpc_call *call)
{
    RET(rp_security_model);
    ret->model.model_val = xstrdup("none");
    ret->model.model_len = 5;
    ret->doi.doi_val = xstrdup("0");
    ret->doi.doi_len = 2;
    return RPC_DONE;
}

static int get_sysinfo(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    *ret = caps_sysinfo();
    return RPC_DONE;
}

const struct driver driver_node = {
    .name = "node",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_NODE_GET_INFO, get_info},
            {RPC_PROC_CONNECT_GET_CAPABILITIES, get_capabilities},
            {RPC_PROC_CONNECT_GET_DOMAIN_CAPABILITIES, get_domain_capabilities},
            {RPC_PROC_CONNECT_GET_MAX_VCPUS, get_max_vcpus},
            {RPC_PROC_NODE_GET_CPU_STATS, get_cpu_stats},
            {RPC_PROC_NODE_GET_MEMORY_STATS, get_memory_stats},
            {RPC_PROC_NODE_GET_FREE_MEMORY, get_free_memory},
            {RPC_PROC_NODE_GET_CELLS_FREE_MEMORY, get_cells_free},
            {RPC_PROC_NODE_GET_CPU_MAP, get_cpu_map},
            {RPC_PROC_NODE_GET_SECURITY_MODEL, get_security_model},
            {RPC_PROC_CONNECT_GET_SYSINFO, get_sysinfo},
            {RPC_PROC_CONNECT_GET_CPU_MODEL_NAMES, get_cpu_models},
            {RPC_PROC_CONNECT_DOMAIN_XML_TO_NATIVE, to_native},
            {0},
        },
};
