/* Domains: what they use and have used. All is read from the kernel, but disks' counters, which the monitor tells. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/node.h"
#include "daemon/daemon.h"
#include "daemon/host.h"
#include "daemon/qmp.h"
#include "daemon/usage.h"
#include "rpc/params.h"

/* ---- vCPUs ---- */

static int get_vcpus(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int_int);
    RET(rp_vcpus);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    unsigned n = MIN((unsigned)MAX(a->value, 0), g->live->vcpus),
             bytes = MIN((unsigned)MAX(a->value2, 0), RP_CPUMAP_MAX);
    ret->info.info_val = xcalloc(n + 1, sizeof(rp_vcpu));
    ret->info.info_len = n;
    ret->cpumaps.cpumaps_val = xcalloc(n * bytes + 1, 1);
    ret->cpumaps.cpumaps_len = n * bytes;
    for (unsigned i = 0; i < n; i++) {
        struct usage_thread u = {.cpu = -1};
        if (i < g->n_tids)
            usage_thread_read(g->pid, g->tids[i], &u);
        ret->info.info_val[i] = (rp_vcpu){.number = i, .state = 1, .cpu_time = u.cpu_ns, .cpu = u.cpu};
        usage_affinity(i < g->n_tids ? g->tids[i] : g->pid, (uint8_t *)ret->cpumaps.cpumaps_val + i * bytes, bytes);
    }
    return RPC_DONE;
}

static int get_pin_info(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int_int_flags);
    RET(rp_cpumaps);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    unsigned max = guest_active(g) ? g->live->vcpus : g->vcpus_max;
    unsigned n = MIN((unsigned)MAX(a->value, 0), max), bytes = MIN((unsigned)MAX(a->value2, 0), RP_CPUMAP_MAX);
    ret->cpumaps.cpumaps_val = xcalloc(n * bytes + 1, 1);
    ret->cpumaps.cpumaps_len = n * bytes;
    ret->num = n;
    for (unsigned i = 0; i < n; i++)
        usage_affinity(guest_active(g) && i < g->n_tids ? g->tids[i] : 0,
                       (uint8_t *)ret->cpumaps.cpumaps_val + i * bytes, bytes);
    return RPC_DONE;
}

static int get_emulator_pin(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int_flags);
    RET(rp_cpumaps);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    unsigned bytes = MIN((unsigned)MAX(a->value, 0), RP_CPUMAP_MAX);
    ret->cpumaps.cpumaps_val = xcalloc(bytes + 1, 1);
    ret->cpumaps.cpumaps_len = bytes;
    usage_affinity(guest_active(g) ? g->pid : 0, (uint8_t *)ret->cpumaps.cpumaps_val, bytes);
    ret->num = 1;
    return RPC_DONE;
}

/* Pins a thread (0: none runs) as the client's map says. */
static int pin(struct rpc_call *call, pid_t tid, const void *map, unsigned len)
{
    int r = usage_pin(tid, map, len);
    return r < 0 ? verr_errno(&call->error, r, "cannot set CPU affinity of thread %d", (int)tid) : RPC_DONE;
}

static int pin_vcpu_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pin_vcpu_flags);
    struct guest *g = call_guest(d, call, &a->dom);
    bool live, config;
    if (!g || call_flags(call, a->flags, 3) < 0 || call_affect(call, g, a->flags, &live, &config) < 0)
        return RPC_FAILED;
    if (config)
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED, "CPUs can be pinned while the guest runs only");
    if (a->vcpu >= g->n_tids)
        return verr_set(&call->error, VIR_INVALID_ARG, "vcpu %u is out of range of live cpu count %u", a->vcpu,
                        g->n_tids);
    return pin(call, g->tids[a->vcpu], a->cpumap.cpumap_val, a->cpumap.cpumap_len);
}

static int pin_vcpu(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_pin_vcpu);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    if (a->vcpu >= g->n_tids)
        return verr_set(&call->error, VIR_INVALID_ARG, "vcpu %u is out of range of live cpu count %u", a->vcpu,
                        g->n_tids);
    return pin(call, g->tids[a->vcpu], a->cpumap.cpumap_val, a->cpumap.cpumap_len);
}

static int pin_emulator(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_cpumap_flags);
    struct guest *g = call_active(d, call, &a->dom);
    return g ? pin(call, g->pid, a->cpumap.cpumap_val, a->cpumap.cpumap_len) : RPC_FAILED;
}

/* ---- memory and CPU ---- */

static int memory_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_uint_flags);
    RET(rp_memory_stats);
    enum { ACTUAL_BALLOON = 6, RSS = 7 };
    struct guest *g = call_active(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    ret->stats.stats_val = xcalloc(2, sizeof(rp_memory_stat));
    const rp_memory_stat all[] = {{ACTUAL_BALLOON, g->balloon / KIB}, {RSS, usage_rss(g->pid) / KIB}};
    for (unsigned i = 0; i < ARRAY_SIZE(all) && i < a->value; i++)
        ret->stats.stats_val[ret->stats.stats_len++] = all[i];
    return RPC_DONE;
}

/* Of all CPUs together (start -1); of single host CPUs nobody keeps count. */
static int cpu_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_cpu_stats_args);
    RET(rp_params_n);
    struct guest *g = call_active(d, call, &a->dom);
    struct usage_process u = {0};
    if (!g)
        return RPC_FAILED;
    if (a->start_cpu >= 0)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "cgroup CPUACCT controller is not mounted");
    ret->nparams = 3;
    if (!a->nparams)
        return RPC_DONE;
    usage_process_read(g->pid, &u);
    struct rpc_params p = {0};
    rpc_params_ullong(&p, guest_cpu_time(g), "cpu_time");
    rpc_params_ullong(&p, u.user_ns, "user_time");
    rpc_params_ullong(&p, u.system_ns, "system_time");
    ret->params.params_val = p.v;
    ret->params.params_len = p.n;
    return RPC_DONE;
}

/* ---- disks and interfaces ---- */

/* By target or by path of the image. */
static const struct domain_disk *find_disk(const struct domain *d, const char *name)
{
    for (unsigned i = 0; i < d->n_disks; i++)
        if (!strcmp(d->disks[i].target, name) || (d->disks[i].source && !strcmp(d->disks[i].source, name)))
            return &d->disks[i];
    return NULL;
}

struct sizes {
    uint64_t capacity, allocation, physical;
};

static int disk_sizes(const struct domain_disk *k, struct sizes *ret)
{
    struct stat st;
    struct err err = {0};
    if (!k->source || stat(k->source, &st) < 0)
        return -errno;
    *ret = (struct sizes){st.st_size, (uint64_t)st.st_blocks * 512, st.st_size};
    auto_node struct blk_node *n = NULL;
    if (blk_node_open(k->source, k->format, NULL,
                      BLK_O_NO_BACKING | BLK_O_FORCE_SHARE | BLK_O_NO_IO | BLK_O_NO_LOCK | BLK_O_NO_URING, &n,
                      &err) == 0)
        ret->capacity = n->size;
    return 0;
}

static int block_info(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_flags);
    RET(rp_block_info);
    struct sizes s;
    struct guest *g = call_guest(d, call, &a->dom);
    struct domain *doc = g ? guest_config(g, false, &call->error) : NULL;
    if (!doc)
        return RPC_FAILED;
    const struct domain_disk *k = find_disk(doc, a->text);
    int r = !k ? verr_set(&call->error, VIR_INVALID_ARG, "invalid path %.300s not assigned to domain", a->text)
               : disk_sizes(k, &s);
    if (k && r < 0)
        verr_errno(&call->error, r, "cannot stat '%s'", k->source ? k->source : k->target);
    domain_free(doc);
    if (r < 0)
        return RPC_FAILED;
    *ret = (rp_block_info){.allocation = s.allocation, .capacity = s.capacity, .physical = s.physical};
    return RPC_DONE;
}

static int64_t number(const json_t *stats, const char *name)
{
    return json_integer_value(json_object_get(stats, name));
}

/* The counters of one disk in query-blockstats' answer. */
static json_t *stats_of(json_t *list, const char *target)
{
    size_t i;
    json_t *k;
    json_array_foreach(list, i, k)
    {
        const char *name = json_string_value(json_object_get(k, "device"));
        if (name && !strcmp(name, target))
            return json_object_get(k, "stats");
    }
    return NULL;
}

struct block_call {
    struct rpc_call *call;
    char *target; /* "": all together */
};

static void put_old_stats(rp_block_stats *ret, const json_t *s)
{
    ret->rd_req += number(s, "rd_operations");
    ret->rd_bytes += number(s, "rd_bytes");
    ret->wr_req += number(s, "wr_operations");
    ret->wr_bytes += number(s, "wr_bytes");
    ret->errs = -1;
}

static const struct {
    const char *json, *old, *bulk; /* query-blockstats, virDomainBlockStatsFlags, virConnectGetAllDomainStats */
} block_fields[] = {
    {"rd_operations", "rd_operations", "rd.reqs"},       {"rd_bytes", "rd_bytes", "rd.bytes"},
    {"wr_operations", "wr_operations", "wr.reqs"},       {"wr_bytes", "wr_bytes", "wr.bytes"},
    {"flush_operations", "flush_operations", "fl.reqs"},
};

static void on_block_stats(void *opaque, json_t *list, const char *error)
{
    struct block_call *b = opaque;
    struct rpc_call *call = b->call;
    int64_t sums[ARRAY_SIZE(block_fields)] = {0};
    rp_block_stats old = {0};
    size_t i;
    json_t *k;
    bool found = false;
    json_array_foreach(list, i, k)
    {
        const char *name = json_string_value(json_object_get(k, "device"));
        const json_t *s = json_object_get(k, "stats");
        if (*b->target && (!name || strcmp(name, b->target)))
            continue;
        found = true;
        put_old_stats(&old, s);
        for (unsigned f = 0; f < ARRAY_SIZE(sums); f++)
            sums[f] += number(s, block_fields[f].json);
    }
    if (!list || (!found && *b->target)) {
        verr_set(&call->error, VIR_OPERATION_FAILED, "no statistics of disk '%s': %s", b->target,
                 error ? error : "not there");
    } else if (call->proc->number == RPC_PROC_DOMAIN_BLOCK_STATS) {
        *(rp_block_stats *)call->ret = old;
    } else {
        rp_params_n *ret = call->ret;
        struct rpc_params p = {0};
        for (unsigned f = 0; f < ARRAY_SIZE(sums); f++)
            rpc_params_llong(&p, sums[f], "%s", block_fields[f].old);
        ret->params.params_val = p.v;
        ret->params.params_len = p.n;
        ret->nparams = p.n;
    }
    rpc_call_finish(call);
    free(b->target);
    free(b);
}

static int ask_block_stats(struct rpc_call *call, struct guest *g, const char *path)
{
    const struct domain_disk *k = *path ? find_disk(g->live, path) : NULL;
    if (*path && !k)
        return verr_set(&call->error, VIR_INVALID_ARG, "invalid path: %.300s", path);
    if (!g->qmp)
        return verr_set(&call->error, VIR_OPERATION_FAILED, "the monitor of domain '%s' does not answer", g->name);
    struct block_call *b = xcalloc(1, sizeof *b);
    *b = (struct block_call){call, xstrdup(k ? k->target : "")};
    qmp_call(g->qmp, "query-blockstats", NULL, on_block_stats, b);
    return RPC_LATER;
}

static int block_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str);
    struct guest *g = call_active(d, call, &a->dom);
    return g ? ask_block_stats(call, g, a->text) : RPC_FAILED;
}

static int block_stats_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_int_flags);
    RET(rp_params_n);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    if (!a->value) {
        ret->nparams = ARRAY_SIZE(block_fields);
        return RPC_DONE;
    }
    return ask_block_stats(call, g, a->text);
}

/* By host device or MAC address. */
static const struct domain_interface *find_interface(const struct domain *d, const char *name)
{
    for (unsigned i = 0; i < d->n_interfaces; i++) {
        const struct domain_interface *n = &d->interfaces[i];
        char mac[18];
        snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2], n->mac[3],
                 n->mac[4], n->mac[5]);
        if ((n->target && !strcmp(n->target, name)) || !strcasecmp(mac, name))
            return n;
    }
    return NULL;
}

static int interface_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str);
    RET(rp_iface_stats);
    struct guest *g = call_active(d, call, &a->dom);
    const struct domain_interface *n = g ? find_interface(g->live, a->text) : NULL;
    struct usage_interface u;
    if (!g)
        return RPC_FAILED;
    if (!n)
        return verr_set(&call->error, VIR_INVALID_ARG, "invalid path, '%.100s' is not a known interface", a->text);
    if (!n->target || usage_interface_read(n->target, &u) < 0)
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED,
                        "interface '%.100s' has no device on the host that counts", a->text);
    *ret = (rp_iface_stats){u.rx_bytes, u.rx_packets, u.rx_errs, u.rx_drop,
                            u.tx_bytes, u.tx_packets, u.tx_errs, u.tx_drop};
    return RPC_DONE;
}

/* ---- all at once ---- */

enum {
    STATS_STATE = 1,
    STATS_CPU = 2,
    STATS_BALLOON = 4,
    STATS_VCPU = 8,
    STATS_INTERFACE = 16,
    STATS_BLOCK = 32,
    STATS_ALL = 1023
};

struct bulk {
    struct rpc_call *call;
    unsigned pending; /* monitors that have not answered */
    struct bulk_record {
        struct bulk *bulk;
        struct rpc_params p;
        unsigned n_disks;
        char (*targets)[40];
    } * records;
};

static void put_blocks(struct bulk_record *r, const struct domain *doc)
{
    r->n_disks = doc->n_disks;
    r->targets = xcalloc(doc->n_disks + 1, sizeof *r->targets);
    rpc_params_uint(&r->p, doc->n_disks, "block.count");
    for (unsigned i = 0; i < doc->n_disks; i++) {
        const struct domain_disk *k = &doc->disks[i];
        struct sizes s;
        snprintf(r->targets[i], sizeof r->targets[i], "%s", k->target);
        rpc_params_string(&r->p, k->target, "block.%u.name", i);
        rpc_params_string(&r->p, k->source, "block.%u.path", i);
        if (disk_sizes(k, &s) < 0)
            continue;
        rpc_params_ullong(&r->p, s.allocation, "block.%u.allocation", i);
        rpc_params_ullong(&r->p, s.capacity, "block.%u.capacity", i);
        rpc_params_ullong(&r->p, s.physical, "block.%u.physical", i);
    }
}

static void put_interfaces(struct rpc_params *p, const struct domain *doc)
{
    rpc_params_uint(p, doc->n_interfaces, "net.count");
    for (unsigned i = 0; i < doc->n_interfaces; i++) {
        struct usage_interface u;
        const char *dev = doc->interfaces[i].target;
        rpc_params_string(p, dev, "net.%u.name", i);
        if (!dev || usage_interface_read(dev, &u) < 0)
            continue;
        rpc_params_ullong(p, u.rx_bytes, "net.%u.rx.bytes", i);
        rpc_params_ullong(p, u.rx_packets, "net.%u.rx.pkts", i);
        rpc_params_ullong(p, u.rx_errs, "net.%u.rx.errs", i);
        rpc_params_ullong(p, u.rx_drop, "net.%u.rx.drop", i);
        rpc_params_ullong(p, u.tx_bytes, "net.%u.tx.bytes", i);
        rpc_params_ullong(p, u.tx_packets, "net.%u.tx.pkts", i);
        rpc_params_ullong(p, u.tx_errs, "net.%u.tx.errs", i);
        rpc_params_ullong(p, u.tx_drop, "net.%u.tx.drop", i);
    }
}

static void put_vcpus(struct rpc_params *p, const struct guest *g)
{
    rpc_params_uint(p, g->live->vcpus_current ? g->live->vcpus_current : g->live->vcpus, "vcpu.current");
    rpc_params_uint(p, g->live->vcpus, "vcpu.maximum");
    for (unsigned i = 0; i < g->n_tids; i++) {
        struct usage_thread u = {0};
        usage_thread_read(g->pid, g->tids[i], &u);
        rpc_params_int(p, 1, "vcpu.%u.state", i);
        rpc_params_ullong(p, u.cpu_ns, "vcpu.%u.time", i);
        rpc_params_ullong(p, u.wait_ns, "vcpu.%u.wait", i);
    }
}

static void put_stats(struct bulk_record *r, const struct guest *g, unsigned stats)
{
    struct rpc_params *p = &r->p;
    bool active = guest_active(g);
    if (stats & STATS_STATE) {
        rpc_params_int(p, g->state, "state.state");
        rpc_params_int(p, g->reason, "state.reason");
    }
    if (stats & STATS_CPU && active) {
        struct usage_process u = {0};
        usage_process_read(g->pid, &u);
        rpc_params_ullong(p, guest_cpu_time(g), "cpu.time");
        rpc_params_ullong(p, u.user_ns, "cpu.user");
        rpc_params_ullong(p, u.system_ns, "cpu.system");
    }
    if (stats & STATS_BALLOON) {
        rpc_params_ullong(p, (active ? g->balloon : g->current_memory) / KIB, "balloon.current");
        rpc_params_ullong(p, (active ? g->live->memory : g->memory) / KIB, "balloon.maximum");
        if (active)
            rpc_params_ullong(p, usage_rss(g->pid) / KIB, "balloon.rss");
    }
    if (stats & STATS_VCPU && active)
        put_vcpus(p, g);
    else if (stats & STATS_VCPU) {
        rpc_params_uint(p, g->vcpus, "vcpu.current");
        rpc_params_uint(p, g->vcpus_max, "vcpu.maximum");
    }
    if (!(stats & (STATS_INTERFACE | STATS_BLOCK)))
        return;
    struct rpc_error e = {0};
    struct domain *doc = active ? g->live : guest_config(g, true, &e);
    if (doc && stats & STATS_INTERFACE && active)
        put_interfaces(p, doc);
    if (doc && stats & STATS_BLOCK)
        put_blocks(r, doc);
    if (!active)
        domain_free(doc);
}

static void bulk_done(struct bulk *b)
{
    rp_all_stats *ret = b->call->ret;
    for (unsigned i = 0; i < ret->records.records_len; i++) {
        ret->records.records_val[i].params.params_val = b->records[i].p.v;
        ret->records.records_val[i].params.params_len = b->records[i].p.n;
        free(b->records[i].targets);
    }
    rpc_call_finish(b->call);
    free(b->records);
    free(b);
}

static void on_bulk_blocks(void *opaque, json_t *list, const char *error)
{
    struct bulk_record *r = opaque;
    for (unsigned i = 0; list && i < r->n_disks; i++) {
        json_t *s = stats_of(list, r->targets[i]);
        for (unsigned f = 0; s && f < ARRAY_SIZE(block_fields); f++)
            rpc_params_ullong(&r->p, number(s, block_fields[f].json), "block.%u.%s", i, block_fields[f].bulk);
    }
    if (!--r->bulk->pending)
        bulk_done(r->bulk);
}

static bool bulk_wanted(const struct guest *g, unsigned flags)
{
    unsigned state = g->state == GUEST_RUNNING   ? 16
                     : g->state == GUEST_PAUSED  ? 32
                     : g->state == GUEST_SHUTOFF ? 64
                                                 : 128;
    return !(flags & 3 && !(flags & (guest_active(g) ? 1 : 2))) &&
           !(flags & 12 && !(flags & (guest_persistent(g) ? 4 : 8))) && !(flags & 0xf0 && !(flags & state));
}

static int all_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_all_stats_args);
    RET(rp_all_stats);
    unsigned stats = a->stats ? a->stats : STATS_ALL, n = 0,
             max = a->doms.doms_len ? a->doms.doms_len : MIN(d->guests.n, RP_LIST_MAX);
    struct guest **list = xcalloc(max + 1, sizeof *list), *g, *next;
    if (a->doms.doms_len) {
        for (unsigned i = 0; i < max; i++)
            if ((g = guests_find_uuid(&d->guests, (const uint8_t *)a->doms.doms_val[i].uuid.bytes)))
                list[n++] = g;
    } else {
        HASH_ITER(by_name, d->guests.by_name, g, next)
        if (n < max && bulk_wanted(g, a->flags & 0xff))
            list[n++] = g;
    }
    struct bulk *b = xcalloc(1, sizeof *b);
    b->call = call;
    b->pending = 1;
    b->records = xcalloc(n + 1, sizeof *b->records);
    ret->records.records_val = xcalloc(n + 1, sizeof(rp_stats_record));
    ret->records.records_len = n;
    for (unsigned i = 0; i < n; i++) {
        b->records[i].bulk = b;
        put_domain(&ret->records.records_val[i].dom, list[i]);
        put_stats(&b->records[i], list[i], stats);
    }
    for (unsigned i = 0; i < n; i++) {
        if (!(stats & STATS_BLOCK) || !b->records[i].n_disks || !list[i]->qmp || !guest_active(list[i]))
            continue;
        b->pending++;
        qmp_call(list[i]->qmp, "query-blockstats", NULL, on_bulk_blocks, &b->records[i]);
    }
    free(list);
    if (!--b->pending)
        bulk_done(b);
    return RPC_LATER;
}

/* ---- jobs, control, errors ---- */

static uint64_t job_ms(const struct guest *g)
{
    return g->job_ns ? (clock_host_ns() - g->job_ns) / 1000000 + 1 : 0;
}

enum { JOB_NONE = 0, JOB_UNBOUNDED = 2 };

static int job_info(struct daemon *d, struct rpc_call *call)
{
    RET(rp_job_info);
    struct guest *g = call_active(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    ret->type = g->job_ns ? JOB_UNBOUNDED : JOB_NONE;
    ret->time_elapsed = job_ms(g);
    return RPC_DONE;
}

static int job_stats(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    RET(rp_job_stats);
    struct guest *g = call_guest(d, call, &a->dom);
    struct rpc_params p = {0};
    if (!g)
        return RPC_FAILED;
    if (a->flags & 1) /* of the last one: nobody kept them */
        return RPC_DONE;
    if (!guest_active(g))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "domain is not running");
    if (!g->job_ns)
        return RPC_DONE;
    ret->type = JOB_UNBOUNDED;
    rpc_params_int(&p, 2, "operation"); /* save */
    rpc_params_ullong(&p, job_ms(g), "time_elapsed");
    ret->params.params_val = p.v;
    ret->params.params_len = p.n;
    return RPC_DONE;
}

/* All is well: the zeroed answer says so. */
static int control_info(struct daemon *d, struct rpc_call *call)
{
    return call_active(d, call, call->args) ? RPC_DONE : RPC_FAILED;
}

static int abort_job(struct daemon *d, struct rpc_call *call)
{
    return call_active(d, call, call->args)
               ? verr_set(&call->error, VIR_OPERATION_INVALID, "the running job cannot be aborted")
               : RPC_FAILED;
}

static int disk_errors(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_uint_flags);
    return call_active(d, call, &a->dom) ? RPC_DONE : RPC_FAILED;
}

const struct driver driver_domain_stats = {
    .name = "domain statistics",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_GET_VCPUS, get_vcpus},
            {RPC_PROC_DOMAIN_GET_VCPU_PIN_INFO, get_pin_info},
            {RPC_PROC_DOMAIN_GET_EMULATOR_PIN_INFO, get_emulator_pin},
            {RPC_PROC_DOMAIN_PIN_VCPU, pin_vcpu},
            {RPC_PROC_DOMAIN_PIN_VCPU_FLAGS, pin_vcpu_flags},
            {RPC_PROC_DOMAIN_PIN_EMULATOR, pin_emulator},
            {RPC_PROC_DOMAIN_MEMORY_STATS, memory_stats},
            {RPC_PROC_DOMAIN_GET_CPU_STATS, cpu_stats},
            {RPC_PROC_DOMAIN_GET_BLOCK_INFO, block_info},
            {RPC_PROC_DOMAIN_BLOCK_STATS, block_stats},
            {RPC_PROC_DOMAIN_BLOCK_STATS_FLAGS, block_stats_flags},
            {RPC_PROC_DOMAIN_INTERFACE_STATS, interface_stats},
            {RPC_PROC_CONNECT_GET_ALL_DOMAIN_STATS, all_stats},
            {RPC_PROC_DOMAIN_GET_JOB_INFO, job_info},
            {RPC_PROC_DOMAIN_GET_JOB_STATS, job_stats},
            {RPC_PROC_DOMAIN_ABORT_JOB, abort_job},
            {RPC_PROC_DOMAIN_ABORT_JOB_FLAGS, abort_job},
            {RPC_PROC_DOMAIN_GET_CONTROL_INFO, control_info},
            {RPC_PROC_DOMAIN_GET_DISK_ERRORS, disk_errors},
            {0},
        },
};
