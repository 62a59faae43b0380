/* How much a domain gets: memory, vCPUs, where they run, weights and limits. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/dom.h"

void print_param(const rp_param *p)
{
    autofree char *value = rpc_param_text(p);
    printf("%-15s: %s\n", p->field, value);
}

static bool set_memory(struct vsh *v, const struct vsh_args *a, unsigned fallback, unsigned also)
{
    autodomain dom = {0};
    unsigned long long bytes = 0;
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_domain(v, a, &dom) || !vsh_scaled(v, a, "size", 1024, &bytes))
        return false;
    unsigned flags = affect ? (unsigned)affect : vsh_has(a, "current") ? 0 : fallback;
    const rp_dom_hyper_flags args = {dom, bytes / 1024 + (bytes % 1024 != 0), flags | also};
    return vsh_call(v, RPC_PROC_DOMAIN_SET_MEMORY_FLAGS, &args, NULL);
}

bool cmd_setmem(struct vsh *v, const struct vsh_args *a)
{
    return set_memory(v, a, DOM_LIVE, 0);
}

bool cmd_setmaxmem(struct vsh *v, const struct vsh_args *a)
{
    bool ok = set_memory(v, a, 0, 4);
    if (!ok && v->error.code && v->error.code != VIR_INVALID_ARG)
        vsh_error(v, "Unable to change MaxMemorySize");
    return ok;
}

bool cmd_setvcpus(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    unsigned count = 0;
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_exclusive(v, a, "guest", "config"))
        return false;
    if (vsh_has(a, "maximum") && !vsh_has(a, "config"))
        return vsh_error(v, "Option --config is required by option --maximum");
    if (!vsh_domain(v, a, &dom) || !vsh_uint(v, a, "count", &count))
        return false;
    if (!count)
        return vsh_error(v, "Can't set 0 processors for a VM");
    const rp_dom_uint_flags args = {
        dom, count, affect | vsh_has(a, "maximum") << 2 | vsh_has(a, "guest") << 3 | vsh_has(a, "hotpluggable") << 4};
    const rp_dom_uint plain = {dom, count};
    return !args.flags && !vsh_has(a, "current") ? vsh_call(v, RPC_PROC_DOMAIN_SET_VCPUS, &plain, NULL)
                                                 : vsh_call(v, RPC_PROC_DOMAIN_SET_VCPUS_FLAGS, &args, NULL);
}

/* "0-3,^2,7" or "r" (all) as a bitmap of `cpus` bits. NULL: said so. The caller frees it. */
static uint8_t *parse_cpus(struct vsh *v, const char *text, int cpus)
{
    uint8_t *map = xcalloc(1, (cpus + 7) / 8 + 1);
    bool any = false;
    if (text[0] == 'r') {
        for (int i = 0; i < cpus; i++)
            map[i / 8] |= 1 << i % 8;
        return map;
    }
    for (const char *p = text; *p;) {
        bool out = *p == '^';
        char *end;
        errno = 0;
        unsigned long from = strtoul(p + out, &end, 10), to = from;
        bool bad = end == p + out || errno || (p[out] < '0' || p[out] > '9');
        if (!bad && *end == '-' && !out) {
            const char *second = end + 1;
            to = strtoul(second, &end, 10);
            bad = end == second || to < from || *second < '0' || *second > '9';
        }
        if (bad || (*end && *end != ',') || to >= 1024) {
            free(map);
            rpc_error_set(&v->error, VIR_INVALID_ARG, VIR_FROM_NONE, "Failed to parse bitmap '%s'", text);
            vsh_error(v, "Invalid cpulist '%s'", text);
            return NULL;
        }
        if (to >= (unsigned long)cpus) {
            free(map);
            vsh_error(v, "CPU %lu in cpulist '%s' exceed the maxcpu %d", to, text, cpus);
            return NULL;
        }
        for (unsigned long i = from; i <= to; i++)
            if (out)
                map[i / 8] &= ~(1 << i % 8);
            else
                map[i / 8] |= 1 << i % 8;
        p = end + (*end == ',');
    }
    for (int i = 0; i < cpus; i++)
        any |= map[i / 8] >> i % 8 & 1;
    if (!any) {
        free(map);
        vsh_error(v, "Invalid cpulist '%s'", text);
        return NULL;
    }
    return map;
}

static bool pin_query(struct vsh *v, const rp_domain *dom, const struct vsh_args *a, unsigned vcpu, int cpus,
                      unsigned flags)
{
    unsigned len = (cpus + 7) / 8;
    rp_info info;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_INFO, dom, &info))
        return false;
    const rp_dom_flags count_args = {*dom, flags | 4};
    rp_int count = info.vcpus;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_VCPUS_FLAGS, &count_args, &count)) {
        count = info.vcpus;
        vsh_error_reset(v);
    }
    if (vsh_has(a, "vcpu") && vcpu >= (unsigned)count)
        return vsh_error(v,
                         flags & DOM_LIVE || (!flags && dom->id >= 0)
                             ? "vcpu %d is out of range of live cpu count %d"
                             : "vcpu %d is out of range of persistent cpu count %d",
                         vcpu, count);
    const rp_dom_int_int_flags args = {*dom, count, len, flags};
    rp_cpumaps m;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_VCPU_PIN_INFO, &args, &m))
        return false;
    autotable t = vsh_table_new("VCPU", "CPU Affinity", NULL);
    for (int i = 0; i < m.num && (i + 1u) * len <= m.cpumaps.cpumaps_len; i++) {
        if (vsh_has(a, "vcpu") && (unsigned)i != vcpu)
            continue;
        char number[16];
        snprintf(number, sizeof(number), "%d", i);
        autofree char *list = cpu_list((uint8_t *)m.cpumaps.cpumaps_val + i * len, len);
        vsh_table_row(t, number, list);
    }
    vsh_table_print(v, t);
    client_result_free(RPC_PROC_DOMAIN_GET_VCPU_PIN_INFO, &m);
    return true;
}

bool cmd_vcpupin(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    unsigned vcpu = 0;
    int affect = vsh_affect(v, a), cpus;
    const char *list = vsh_text(a, "cpulist");
    if (affect < 0 || (!list && !vsh_exclusive(v, a, "live", "config")) || !vsh_uint(v, a, "vcpu", &vcpu))
        return false;
    if (list && !vsh_has(a, "vcpu"))
        return vsh_error(v, "vcpupin: Missing vCPU number in pin mode.");
    if ((cpus = host_cpus(v)) < 0 || !vsh_domain(v, a, &dom))
        return false;
    if (!list)
        return pin_query(v, &dom, a, vcpu, cpus, affect);
    autofree uint8_t *map = parse_cpus(v, list, cpus);
    if (!map)
        return false;
    const rp_pin_vcpu plain = {dom, vcpu, {(cpus + 7) / 8, (char *)map}};
    const rp_pin_vcpu_flags args = {dom, vcpu, {(cpus + 7) / 8, (char *)map}, affect};
    return !affect && !vsh_has(a, "current") ? vsh_call(v, RPC_PROC_DOMAIN_PIN_VCPU, &plain, NULL)
                                             : vsh_call(v, RPC_PROC_DOMAIN_PIN_VCPU_FLAGS, &args, NULL);
}

bool cmd_emulatorpin(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int affect = vsh_affect(v, a), cpus;
    const char *list = vsh_text(a, "cpulist");
    if (affect < 0 || !vsh_domain(v, a, &dom) || (cpus = host_cpus(v)) < 0)
        return false;
    unsigned len = (cpus + 7) / 8;
    if (list) {
        autofree uint8_t *map = parse_cpus(v, list, cpus);
        if (!map)
            return false;
        const rp_dom_cpumap_flags args = {dom, {len, (char *)map}, affect || vsh_has(a, "current") ? affect : DOM_LIVE};
        return vsh_call(v, RPC_PROC_DOMAIN_PIN_EMULATOR, &args, NULL);
    }
    const rp_dom_int_flags args = {dom, len, affect};
    rp_cpumaps m;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_EMULATOR_PIN_INFO, &args, &m))
        return false;
    autofree char *text = cpu_list((uint8_t *)m.cpumaps.cpumaps_val, m.cpumaps.cpumaps_len);
    vsh_extra(v, "emulator: CPU Affinity\n----------------------------------\n       *: ");
    printf("%s\n", text);
    client_result_free(RPC_PROC_DOMAIN_GET_EMULATOR_PIN_INFO, &m);
    return true;
}

/* Asks for parameters in two steps, as old servers want it: how many, then which. `text`: of procedures that have one.
 */
static bool get_params(struct vsh *v, int proc, const rp_domain *dom, const char *text, unsigned flags,
                       rp_params_n *ret)
{
    int n = 0;
    for (int step = 0; step < 2; step++) {
        rp_string s = (char *)text;
        const rp_dom_int_flags plain = {*dom, n, flags | 4};
        const rp_dom_ostr_int_flags disk = {*dom, step ? &s : NULL, n, flags | 4};
        const rp_dom_str_int_flags device = {*dom, s, n, flags | 4};
        const void *args = proc == RPC_PROC_DOMAIN_GET_BLOCK_IO_TUNE          ? (const void *)&disk
                           : proc == RPC_PROC_DOMAIN_GET_INTERFACE_PARAMETERS ? (const void *)&device
                                                                              : (const void *)&plain;
        if (!vsh_call(v, proc, args, ret))
            return false;
        if (step == 0) {
            n = ret->nparams;
            client_result_free(proc, ret);
        }
    }
    return true;
}

static bool print_params(struct vsh *v, int proc, const rp_domain *dom, const char *text, unsigned flags)
{
    rp_params_n p;
    if (!get_params(v, proc, dom, text, flags, &p))
        return false;
    for (unsigned i = 0; i < p.params.params_len; i++) {
        const rp_param *one = &p.params.params_val[i];
        static const char *const numa[] = {"strict", "preferred", "interleave", "restrictive"};
        if (proc == RPC_PROC_DOMAIN_GET_MEMORY_PARAMETERS && one->value.type == RP_ULLONG &&
            one->value.rp_value_u.ul == 9007199254740991ull)
            printf("%-15s: %s\n", one->field, "unlimited");
        else if (proc == RPC_PROC_DOMAIN_GET_NUMA_PARAMETERS && one->value.type == RP_INT &&
                 (unsigned)one->value.rp_value_u.i < 4 && !strcmp(one->field, "numa_mode"))
            printf("%-15s: %s\n", one->field, numa[one->value.rp_value_u.i]);
        else
            print_param(one);
    }
    client_result_free(proc, &p);
    return true;
}

bool cmd_memtune(struct vsh *v, const struct vsh_args *a)
{
    static const struct {
        const char *option, *field;
    } limits[] = {{"hard-limit", "hard_limit"},
                  {"soft-limit", "soft_limit"},
                  {"swap-hard-limit", "swap_hard_limit"},
                  {"min-guarantee", "min_guarantee"}};
    autodomain dom = {0};
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    struct rpc_params p = {0};
    bool ok = true;
    for (unsigned i = 0; i < 4 && ok; i++) {
        const char *text = vsh_text(a, limits[i].option);
        unsigned long long bytes = 0;
        if (text && text[0] == '-' && text[1] >= '0' && text[1] <= '9')
            rpc_params_ullong(&p, 9007199254740991ull, "%s", limits[i].field);
        else if (text && (ok = vsh_scale(v, text, 1024, &bytes)))
            rpc_params_ullong(&p, bytes / 1024 + (bytes % 1024 != 0), "%s", limits[i].field);
        if (!ok)
            vsh_error(v, "Unable to parse integer parameter %s", limits[i].option);
    }
    if (ok && p.n) {
        const rp_dom_params_flags args = {dom, {p.n, p.v}, affect};
        if (!(ok = vsh_call(v, RPC_PROC_DOMAIN_SET_MEMORY_PARAMETERS, &args, NULL)))
            vsh_error(v, "Unable to change memory parameters");
    } else if (ok && !(ok = print_params(v, RPC_PROC_DOMAIN_GET_MEMORY_PARAMETERS, &dom, NULL, affect))) {
        vsh_error(v, "Unable to get number of memory parameters");
    }
    rpc_params_free(&p);
    return ok;
}

bool cmd_blkdeviotune(struct vsh *v, const struct vsh_args *a)
{
    static const char *const fields[] = {"total-bytes-sec",
                                         "read-bytes-sec",
                                         "write-bytes-sec",
                                         "total-bytes-sec-max",
                                         "read-bytes-sec-max",
                                         "write-bytes-sec-max", /* with units up to here */
                                         "total-iops-sec",
                                         "read-iops-sec",
                                         "write-iops-sec",
                                         "total-iops-sec-max",
                                         "read-iops-sec-max",
                                         "write-iops-sec-max",
                                         "size-iops-sec",
                                         "total-bytes-sec-max-length",
                                         "read-bytes-sec-max-length",
                                         "write-bytes-sec-max-length",
                                         "total-iops-sec-max-length",
                                         "read-iops-sec-max-length",
                                         "write-iops-sec-max-length"};
    autodomain dom = {0};
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    struct rpc_params p = {0};
    bool ok = true;
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]) && ok; i++) {
        unsigned long long value = 0;
        char name[64];
        unsigned at = 0;
        for (const char *c = fields[i]; *c && at < sizeof(name) - 1; c++)
            name[at++] = *c == '-' ? '_' : *c;
        name[at] = 0;
        if (!vsh_has(a, fields[i]))
            continue;
        ok = i < 6 ? vsh_scaled(v, a, fields[i], 1, &value) : vsh_ull(v, a, fields[i], &value);
        if (ok)
            rpc_params_ullong(&p, value, "%s", name);
        else
            vsh_error(v, "Unable to parse integer parameter");
    }
    rpc_params_string(&p, vsh_text(a, "group-name"), "group_name");
    const char *disk = vsh_text(a, "device");
    if (ok && p.n) {
        const rp_dom_str_params_flags args = {dom, (char *)disk, {p.n, p.v}, affect};
        if (!(ok = vsh_call(v, RPC_PROC_DOMAIN_SET_BLOCK_IO_TUNE, &args, NULL)))
            vsh_error(v, "Unable to change block I/O throttle");
    } else if (ok && !(ok = print_params(v, RPC_PROC_DOMAIN_GET_BLOCK_IO_TUNE, &dom, disk, affect))) {
        vsh_error(v, "Unable to get block I/O throttle parameters");
    }
    rpc_params_free(&p);
    return ok;
}

bool cmd_blkiotune(struct vsh *v, const struct vsh_args *a)
{
    static const char *const lists[] = {"device-weights", "device-read-iops-sec", "device-write-iops-sec",
                                        "device-read-bytes-sec", "device-write-bytes-sec"};
    static const char *const fields[] = {"device_weight", "device_read_iops_sec", "device_write_iops_sec",
                                         "device_read_bytes_sec", "device_write_bytes_sec"};
    autodomain dom = {0};
    int affect = vsh_affect(v, a), weight = 0;
    if (affect < 0 || !vsh_domain(v, a, &dom) || !vsh_int(v, a, "weight", &weight))
        return false;
    if (vsh_has(a, "weight") && weight <= 0)
        return vsh_error(v, "Invalid value of %d for I/O weight", weight);
    struct rpc_params p = {0};
    if (vsh_has(a, "weight"))
        rpc_params_uint(&p, weight, "weight");
    for (unsigned i = 0; i < 5; i++)
        rpc_params_string(&p, vsh_text(a, lists[i]), "%s", fields[i]);
    bool ok;
    if (p.n) {
        const rp_dom_params_flags args = {dom, {p.n, p.v}, affect};
        if (!(ok = vsh_call(v, RPC_PROC_DOMAIN_SET_BLKIO_PARAMETERS, &args, NULL)))
            vsh_error(v, "Unable to change blkio parameters");
    } else if (!(ok = print_params(v, RPC_PROC_DOMAIN_GET_BLKIO_PARAMETERS, &dom, NULL, affect))) {
        vsh_error(v, "Unable to get number of blkio parameters");
    }
    rpc_params_free(&p);
    return ok;
}

bool cmd_numatune(struct vsh *v, const struct vsh_args *a)
{
    static const char *const numa[] = {"strict", "preferred", "interleave", "restrictive"};
    autodomain dom = {0};
    int affect = vsh_affect(v, a), m = 0;
    const char *mode = vsh_text(a, "mode");
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    while (mode && m < 4 && strcmp(mode, numa[m]) != 0 && !(mode[0] == '0' + m && !mode[1]))
        m++;
    if (m == 4)
        return vsh_error(v, "Invalid mode: %s", mode);
    struct rpc_params p = {0};
    rpc_params_string(&p, vsh_text(a, "nodeset"), "numa_nodeset");
    if (mode)
        rpc_params_int(&p, m, "numa_mode");
    bool ok;
    if (p.n) {
        const rp_dom_params_flags args = {dom, {p.n, p.v}, affect};
        if (!(ok = vsh_call(v, RPC_PROC_DOMAIN_SET_NUMA_PARAMETERS, &args, NULL)))
            vsh_error(v, "Unable to change numa parameters");
    } else if (!(ok = print_params(v, RPC_PROC_DOMAIN_GET_NUMA_PARAMETERS, &dom, NULL, affect))) {
        vsh_error(v, "Unable to get number of memory parameters");
    }
    rpc_params_free(&p);
    return ok;
}

/* Adds "name=value" to `p` with the type that the parameter has now. */
static bool sched_update(struct vsh *v, const rp_params *now, const char *name, const char *value, struct rpc_params *p)
{
    const rp_param *is = rpc_param_find(now->params.params_val, now->params.params_len, name);
    char *end;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (!is)
        return vsh_error(v, "invalid scheduler option: %s", name);
    if (errno || end == value || *end)
        return vsh_error(v, "invalid scheduler option: %s", name);
    if (is->value.type == RP_UINT)
        rpc_params_uint(p, n, "%s", name);
    else if (is->value.type == RP_INT)
        rpc_params_int(p, n, "%s", name);
    else if (is->value.type == RP_LLONG)
        rpc_params_llong(p, n, "%s", name);
    else
        rpc_params_ullong(p, n, "%s", name);
    return true;
}

bool cmd_schedinfo(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    rp_scheduler s;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_SCHEDULER_TYPE, &dom, &s)) {
        printf("%-15s: %s\n", "Scheduler", "Unknown");
        return false;
    }
    printf("%-15s: %s\n", "Scheduler", s.type);
    const rp_dom_int_flags query = {dom, s.nparams, affect == 3 ? 0 : affect};
    client_result_free(RPC_PROC_DOMAIN_GET_SCHEDULER_TYPE, &s);
    rp_params now;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS, &query, &now))
        return false;
    struct rpc_params p = {0};
    bool ok = true;
    unsigned at = 0;
    for (const char *w; ok && (w = vsh_word(a, "set", &at));) {
        const char *equals = strchr(w, '=');
        autofree char *name = equals ? xasprintf("%.*s", (int)(equals - w), w) : NULL;
        ok = name ? sched_update(v, &now, name, equals + 1, &p)
                  : vsh_error(v, "Invalid syntax for --set, expecting name=value");
    }
    if (ok && vsh_has(a, "weight"))
        ok = sched_update(v, &now, "weight", vsh_text(a, "weight"), &p);
    if (ok && vsh_has(a, "cap"))
        ok = sched_update(v, &now, "cap", vsh_text(a, "cap"), &p);
    if (ok && p.n) {
        const rp_dom_params_flags args = {dom, {p.n, p.v}, affect};
        ok = vsh_call(v, RPC_PROC_DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS, &args, NULL);
        client_result_free(RPC_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS, &now);
        now = (rp_params){0};
        ok = ok && vsh_call(v, RPC_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS, &query, &now);
    } else if (ok && affect == 3) {
        ok = vsh_error(v, "cannot query both live and config at once");
    }
    for (unsigned i = 0; ok && i < now.params.params_len; i++)
        print_param(&now.params.params_val[i]);
    client_result_free(RPC_PROC_DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS, &now);
    rpc_params_free(&p);
    return ok;
}

/* "average,peak,burst[,floor]" in KiB/s and KiB. */
static bool add_rate(struct vsh *v, const char *text, const char *way, struct rpc_params *p)
{
    static const char *const parts[] = {"average", "peak", "burst", "floor"};
    if (!text)
        return true;
    const char *at = text;
    for (unsigned i = 0; i < 4; i++) {
        char *end;
        unsigned long n = strtoul(at, &end, 10);
        if ((end == at && *end && *end != ',') || n > UINT_MAX)
            return vsh_error(v, "field '%s' is malformed", parts[i]);
        if (end > at)
            rpc_params_uint(p, n, "%s.%s", way, parts[i]);
        if (!*end)
            return true;
        if (*end != ',')
            return vsh_error(v, "field '%s' is malformed", parts[i]);
        at = end + 1;
    }
    return vsh_error(v, "Rate string '%s' has too many fields", text);
}

bool cmd_domiftune(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_domain(v, a, &dom))
        return false;
    const char *device = vsh_text(a, "interface");
    struct rpc_params p = {0};
    bool ok =
        add_rate(v, vsh_text(a, "inbound"), "inbound", &p) && add_rate(v, vsh_text(a, "outbound"), "outbound", &p);
    if (ok && p.n) {
        const rp_dom_str_params_flags args = {dom, (char *)device, {p.n, p.v}, affect};
        if (!(ok = vsh_call(v, RPC_PROC_DOMAIN_SET_INTERFACE_PARAMETERS, &args, NULL)))
            vsh_error(v, "Unable to set interface parameters");
    } else if (ok && !(ok = print_params(v, RPC_PROC_DOMAIN_GET_INTERFACE_PARAMETERS, &dom, device, affect))) {
        vsh_error(v, "Unable to get number of interface parameters");
    }
    rpc_params_free(&p);
    return ok;
}
