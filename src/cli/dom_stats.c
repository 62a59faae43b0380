/* What domains use: domstats, domblkstat, domifstat, dommemstat, cpu-stats, vCPUs and where they run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/dom.h"

bool cmd_domblkstat(struct vsh *v, const struct vsh_args *a)
{
    static const struct {
        const char *field, *shown, *human;
    } known[] = {
        {"rd_operations", "rd_req", "number of read operations:"},
        {"rd_bytes", "rd_bytes", "number of bytes read:"},
        {"wr_operations", "wr_req", "number of write operations:"},
        {"wr_bytes", "wr_bytes", "number of bytes written:"},
        {"errs", "errs", "error count:"},
        {"flush_operations", NULL, "number of flush operations:"},
        {"rd_total_times", NULL, "total duration of reads (ns):"},
        {"wr_total_times", NULL, "total duration of writes (ns):"},
        {"flush_total_times", NULL, "total duration of flushes (ns):"},
    };
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const char *device = vsh_text(a, "device");
    rp_dom_str_int_flags args = {dom, (char *)(device ? device : ""), 0, 4};
    rp_params_n p;
    if (!vsh_call(v, RPC_PROC_DOMAIN_BLOCK_STATS_FLAGS, &args, &p))
        return false;
    args.value = p.nparams;
    client_result_free(RPC_PROC_DOMAIN_BLOCK_STATS_FLAGS, &p);
    if (!vsh_call(v, RPC_PROC_DOMAIN_BLOCK_STATS_FLAGS, &args, &p))
        return vsh_error(v, "Failed to get block stats for domain '%s' device '%s'", vsh_text(a, "domain"), args.text);
    bool human = vsh_has(a, "human");
    const char *shown = human ? "" : args.text;
    if (human)
        printf("Device: %s\n", args.text);
    unsigned n = p.params.params_len, count = sizeof(known) / sizeof(known[0]);
    for (unsigned i = 0; i < count; i++) {
        const rp_param *one = rpc_param_find(p.params.params_val, n, known[i].field);
        autofree char *value = one ? rpc_param_text(one) : NULL;
        if (one)
            printf("%s %-*s %s\n", shown, human ? 31 : 0,
                   human            ? known[i].human
                   : known[i].shown ? known[i].shown
                                    : known[i].field,
                   value);
    }
    for (unsigned i = 0; i < n; i++) {
        unsigned k = 0;
        while (k < count && strcmp(known[k].field, p.params.params_val[i].field) != 0)
            k++;
        autofree char *value = rpc_param_text(&p.params.params_val[i]);
        if (k == count)
            printf("%s %s %s\n", shown, p.params.params_val[i].field, value);
    }
    client_result_free(RPC_PROC_DOMAIN_BLOCK_STATS_FLAGS, &p);
    return true;
}

bool cmd_domifstat(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const char *device = vsh_text(a, "interface");
    const rp_dom_str args = {dom, (char *)device};
    rp_iface_stats s;
    if (!vsh_call(v, RPC_PROC_DOMAIN_INTERFACE_STATS, &args, &s))
        return vsh_error(v, "Failed to get interface stats %s %s", vsh_text(a, "domain"), device);
    const struct {
        const char *name;
        long long value;
    } fields[] = {{"rx_bytes", s.rx_bytes}, {"rx_packets", s.rx_packets}, {"rx_errs", s.rx_errs},
                  {"rx_drop", s.rx_drop},   {"tx_bytes", s.tx_bytes},     {"tx_packets", s.tx_packets},
                  {"tx_errs", s.tx_errs},   {"tx_drop", s.tx_drop}};
    for (unsigned i = 0; i < 8; i++)
        if (fields[i].value >= 0)
            printf("%s %s %lld\n", device, fields[i].name, fields[i].value);
    return true;
}

bool cmd_dommemstat(struct vsh *v, const struct vsh_args *a)
{
    static const char *const names[] = {"swap_in",     "swap_out",        "major_fault",   "minor_fault", "unused",
                                        "available",   "actual",          "rss",           "usable",      "last_update",
                                        "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail"};
    /* Tags in the order in which they are printed for one that virsh knows: as they came. */
    autodomain dom = {0};
    int period = 0, affect = vsh_affect(v, a);
    if (affect < 0 || !vsh_domain(v, a, &dom) || !vsh_int(v, a, "period", &period))
        return false;
    if (vsh_has(a, "period")) {
        if (period < 0)
            return vsh_error(v, "Invalid collection period value '%d'", period);
        if (!affect && !vsh_has(a, "current") && dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, &dom) == 1)
            affect = DOM_LIVE;
        const rp_dom_int_flags set = {dom, period, affect};
        return vsh_call(v, RPC_PROC_DOMAIN_SET_MEMORY_STATS_PERIOD, &set, NULL) ||
               vsh_error(v, "Unable to change balloon collection period.");
    }
    const rp_dom_uint_flags args = {dom, 13, 0};
    rp_memory_stats s;
    if (!vsh_call(v, RPC_PROC_DOMAIN_MEMORY_STATS, &args, &s))
        return vsh_error(v, "Failed to get memory statistics for domain %s", vsh_text(a, "domain"));
    for (unsigned i = 0; i < s.stats.stats_len; i++) {
        unsigned tag = s.stats.stats_val[i].tag;
        if (tag < sizeof(names) / sizeof(names[0]))
            printf("%s %llu\n", names[tag], (unsigned long long)s.stats.stats_val[i].val);
    }
    client_result_free(RPC_PROC_DOMAIN_MEMORY_STATS, &s);
    return true;
}

static unsigned pick_flags(const struct vsh_args *a, const char *const *names, const unsigned *flags)
{
    unsigned all = 0;
    for (unsigned i = 0; names[i]; i++)
        if (vsh_has(a, names[i]))
            all |= flags[i];
    return all;
}

static void print_records(struct vsh *v, const rp_all_stats *s)
{
    if (v->json)
        putchar('[');
    for (unsigned i = 0; i < s->records.records_len; i++) {
        const rp_stats_record *r = &s->records.records_val[i];
        if (v->json) {
            printf(i ? ",\n {\"domain\": " : "{\"domain\": ");
            vsh_json_string(r->dom.name);
        } else {
            printf("%sDomain: '%s'\n", i ? "\n" : "", r->dom.name);
        }
        for (unsigned k = 0; k < r->params.params_len; k++) {
            const rp_param *p = &r->params.params_val[k];
            autofree char *value = rpc_param_text(p);
            if (v->json) {
                printf(", ");
                vsh_json_string(p->field);
                printf(": ");
                if (p->value.type == RP_STRING || p->value.type == RP_BOOL)
                    vsh_json_string(value);
                else
                    fputs(value, stdout);
            } else {
                printf("  %s=%s\n", p->field, value);
            }
        }
        if (v->json)
            putchar('}');
    }
    if (v->json)
        puts("]");
}

bool cmd_domstats(struct vsh *v, const struct vsh_args *a)
{
    static const char *const groups[] = {"state", "cpu-total", "balloon", "vcpu",      "interface", "block",
                                         "perf",  "iothread",  "memory",  "dirtyrate", "vm",        NULL};
    static const unsigned group_flags[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
    static const char *const lists[] = {"list-active",  "list-inactive", "list-persistent", "list-transient",
                                        "list-running", "list-paused",   "list-shutoff",    "list-other",
                                        "nowait",       "backing",       "enforce",         NULL};
    static const unsigned list_flags[] = {1, 2, 4, 8, 16, 32, 64, 128, 1u << 29, 1u << 30, 1u << 31};
    rp_all_stats_args args = {.stats = pick_flags(a, groups, group_flags), .flags = pick_flags(a, lists, list_flags)};
    rp_domain doms[VSH_ARGS_MAX];
    unsigned n = 0, at = 0;
    bool ok = true;
    for (const char *w; ok && (w = vsh_word(a, "domain", &at));) {
        doms[n] = (rp_domain){0};
        if ((ok = vsh_domain_find(v, w, VSH_BY_ANY, &doms[n])))
            n++;
    }
    args.doms.doms_val = doms;
    args.doms.doms_len = n;
    rp_all_stats s;
    if (ok && (ok = vsh_call(v, RPC_PROC_CONNECT_GET_ALL_DOMAIN_STATS, &args, &s))) {
        print_records(v, &s);
        client_result_free(RPC_PROC_CONNECT_GET_ALL_DOMAIN_STATS, &s);
    }
    while (n)
        vsh_free_domain(&doms[--n]);
    return ok;
}

/* The parameters of `ncpus` CPUs from `start` (-1: of all together). */
static bool cpu_stats(struct vsh *v, const rp_domain *dom, int nparams, int start, unsigned ncpus, rp_params_n *ret)
{
    const rp_cpu_stats_args args = {*dom, nparams, start, ncpus, 4};
    return vsh_call(v, RPC_PROC_DOMAIN_GET_CPU_STATS, &args, ret);
}

static int cpu_stats_count(struct vsh *v, const rp_domain *dom, int start, unsigned ncpus)
{
    rp_params_n p;
    if (!cpu_stats(v, dom, 0, start, ncpus, &p))
        return -1;
    int n = p.nparams;
    client_result_free(RPC_PROC_DOMAIN_GET_CPU_STATS, &p);
    return n;
}

static void print_cpu_field(const rp_param *p)
{
    bool time = !strcmp(p->field, "cpu_time") || !strcmp(p->field, "vcpu_time") || !strcmp(p->field, "user_time") ||
                !strcmp(p->field, "system_time");
    if (time && p->value.type == RP_ULLONG) {
        unsigned long long ns = p->value.rp_value_u.ul;
        printf("\t%-12s %9llu.%09llu seconds\n", p->field, ns / 1000000000, ns % 1000000000);
        return;
    }
    autofree char *value = rpc_param_text(p);
    printf("\t%-12s %s\n", p->field, value);
}

static bool cpu_stats_each(struct vsh *v, const rp_domain *dom, int cpu, int count)
{
    int max = cpu_stats_count(v, dom, 0, 0);
    if (max < 0)
        return vsh_error(v, "Failed to retrieve CPU statistics for domain '%s'", dom->name);
    if (cpu >= max)
        return vsh_error(v, "Start CPU %d is out of range (min: 0, max: %d)", cpu, max - 1);
    if (count > max)
        printf("Only %d CPUs available to show\n", max);
    if (count < 0 || count > max - cpu)
        count = max - cpu;
    int nparams = cpu_stats_count(v, dom, 0, 1);
    if (nparams <= 0) {
        if (nparams == 0)
            printf("No per-CPU stats available");
        return nparams == 0 || vsh_error(v, "Failed to retrieve CPU statistics for domain '%s'", dom->name);
    }
    while (count > 0) {
        int n = count < 128 ? count : 128;
        rp_params_n p;
        if (!cpu_stats(v, dom, nparams, cpu, n, &p))
            return vsh_error(v, "Failed to retrieve CPU statistics for domain '%s'", dom->name);
        for (unsigned i = 0; i < p.params.params_len; i++) {
            if (i % nparams == 0)
                printf("CPU%d:\n", cpu + (int)i / nparams);
            print_cpu_field(&p.params.params_val[i]);
        }
        client_result_free(RPC_PROC_DOMAIN_GET_CPU_STATS, &p);
        cpu += n;
        count -= n;
    }
    return true;
}

bool cmd_cpu_stats(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int start = 0, count = -1;
    if (!vsh_domain(v, a, &dom) || !vsh_int(v, a, "start", &start) || !vsh_int(v, a, "count", &count))
        return false;
    if (start < 0)
        return vsh_error(v, "Invalid value for start CPU");
    if (vsh_has(a, "count") && count < 0)
        return vsh_error(v, "Invalid value for number of CPUs to show");
    bool each = vsh_has(a, "start") || vsh_has(a, "count"), total = vsh_has(a, "total");
    if (!each && !total)
        each = total = true;
    if (each && !cpu_stats_each(v, &dom, start, count))
        return false;
    if (!total)
        return true;
    int nparams = cpu_stats_count(v, &dom, -1, 1);
    rp_params_n p;
    if (nparams < 0 || !cpu_stats(v, &dom, nparams, -1, 1, &p))
        return vsh_error(v, "Failed to retrieve CPU statistics for domain '%s'", dom.name);
    printf("Total:\n");
    for (unsigned i = 0; i < p.params.params_len; i++)
        print_cpu_field(&p.params.params_val[i]);
    client_result_free(RPC_PROC_DOMAIN_GET_CPU_STATS, &p);
    return true;
}

int host_cpus(struct vsh *v)
{
    const rp_cpu_map_args args = {0, 0, 0};
    rp_cpu_map m;
    if (!vsh_call(v, RPC_PROC_NODE_GET_CPU_MAP, &args, &m))
        return -1;
    int n = m.ret;
    client_result_free(RPC_PROC_NODE_GET_CPU_MAP, &m);
    if (n < 0 || n > 1 << 20)
        return rpc_error_set(&v->error, VIR_RPC, VIR_FROM_RPC, "the daemon says that the host has %d CPUs", n);
    return n;
}

static bool in_map(const uint8_t *map, unsigned bytes, unsigned cpu)
{
    return cpu / 8 < bytes && (map[cpu / 8] & 1 << cpu % 8);
}

char *cpu_list(const uint8_t *map, unsigned bytes)
{
    char *out = xstrdup("");
    for (unsigned i = 0; i < bytes * 8; i++) {
        if (!in_map(map, bytes, i))
            continue;
        unsigned end = i;
        while (in_map(map, bytes, end + 1))
            end++;
        char *longer = end == i ? xasprintf("%s%s%u", out, *out ? "," : "", i)
                                : xasprintf("%s%s%u-%u", out, *out ? "," : "", i, end);
        free(out);
        out = longer;
        i = end;
    }
    return out;
}

static void print_affinity(const uint8_t *map, unsigned bytes, int cpus, bool pretty)
{
    printf("%-15s ", "CPU Affinity:");
    if (pretty) {
        autofree char *text = cpu_list(map, bytes);
        printf("%s (out of %d)", text, cpus);
    } else {
        for (int i = 0; i < cpus; i++)
            putchar(in_map(map, bytes, i) ? 'y' : '-');
    }
    putchar('\n');
}

/* vCPUs of a domain that does not run: only where they are to run. */
static bool vcpus_inactive(struct vsh *v, const rp_domain *dom, int n, int cpus, bool pretty)
{
    unsigned len = (cpus + 7) / 8;
    const rp_dom_int_int_flags args = {*dom, n, len, DOM_CONFIG};
    rp_cpumaps m;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_VCPU_PIN_INFO, &args, &m))
        return false;
    for (int i = 0; i < m.num && (i + 1u) * len <= m.cpumaps.cpumaps_len; i++) {
        printf("%s%-15s %d\n", i ? "\n" : "", "VCPU:", i);
        printf("%-15s %s\n", "CPU:", "N/A");
        printf("%-15s %s\n", "State:", "N/A");
        printf("%-15s %s\n", "CPU time", "N/A");
        print_affinity((uint8_t *)m.cpumaps.cpumaps_val + i * len, len, cpus, pretty);
    }
    client_result_free(RPC_PROC_DOMAIN_GET_VCPU_PIN_INFO, &m);
    return true;
}

bool cmd_vcpuinfo(struct vsh *v, const struct vsh_args *a)
{
    static const char *const states[] = {"offline", "running", "blocked"};
    autodomain dom = {0};
    int cpus;
    rp_info info;
    bool pretty = vsh_has(a, "pretty");
    if (!vsh_domain(v, a, &dom) || (cpus = host_cpus(v)) < 0 || !vsh_call(v, RPC_PROC_DOMAIN_GET_INFO, &dom, &info))
        return false;
    unsigned len = (cpus + 7) / 8;
    const rp_dom_int_int args = {dom, info.vcpus, len};
    rp_vcpus vcpus;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_VCPUS, &args, &vcpus)) {
        if (info.state != DOM_SHUTOFF)
            return false;
        vsh_error_reset(v);
        return vcpus_inactive(v, &dom, info.vcpus, cpus, pretty);
    }
    for (unsigned i = 0; i < vcpus.info.info_len && (i + 1) * len <= vcpus.cpumaps.cpumaps_len; i++) {
        const rp_vcpu *c = &vcpus.info.info_val[i];
        printf("%s%-15s %u\n", i ? "\n" : "", "VCPU:", c->number);
        printf("%-15s %d\n", "CPU:", c->cpu);
        printf("%-15s %s\n", "State:", c->state >= 0 && c->state < 3 ? states[c->state] : "no state");
        if (c->cpu_time)
            printf("%-15s %.1fs\n", "CPU time:", c->cpu_time / 1e9);
        print_affinity((uint8_t *)vcpus.cpumaps.cpumaps_val + i * len, len, cpus, pretty);
    }
    client_result_free(RPC_PROC_DOMAIN_GET_VCPUS, &vcpus);
    return true;
}

static int vcpu_count(struct vsh *v, const rp_domain *dom, unsigned flags)
{
    const rp_dom_flags args = {*dom, flags};
    rp_int n;
    return vsh_call(v, RPC_PROC_DOMAIN_GET_VCPUS_FLAGS, &args, &n) ? n : -1;
}

bool cmd_vcpucount(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    bool max = vsh_has(a, "maximum"), active = vsh_has(a, "active"), config = vsh_has(a, "config");
    bool live = vsh_has(a, "live"), guest = vsh_has(a, "guest"), current = vsh_has(a, "current");
    if (!vsh_exclusive(v, a, "live", "config") || !vsh_exclusive(v, a, "active", "maximum") ||
        !vsh_exclusive(v, a, "guest", "config"))
        return false;
    if ((max || active) && vsh_affect(v, a) < 0)
        return false;
    if (!vsh_domain(v, a, &dom))
        return false;
    if (max || active || config || live || guest || current) {
        int n = vcpu_count(v, &dom, live | config << 1 | max << 2 | guest << 3);
        return n >= 0 && printf("%d\n", n) > 0;
    }
    bool runs = dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, &dom) == 1;
    bool stays = dom_flag(v, RPC_PROC_DOMAIN_IS_PERSISTENT, &dom) == 1;
    static const struct {
        const char *what, *where;
        unsigned flags;
    } rows[] = {{"maximum", "config", 6}, {"maximum", "live", 5}, {"current", "config", 2}, {"current", "live", 1}};
    for (unsigned i = 0; i < 4; i++) {
        if (rows[i].flags & DOM_LIVE ? !runs : !stays)
            continue;
        int n = vcpu_count(v, &dom, rows[i].flags);
        if (n < 0)
            return false;
        printf("%-12s %-12s %3d\n", rows[i].what, rows[i].where, n);
    }
    return true;
}

bool cmd_domblkerror(struct vsh *v, const struct vsh_args *a)
{
    static const char *const words[] = {"no error", "unspecified error", "no space"};
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    rp_dom_uint_flags args = {dom, 256, 0};
    rp_disk_errors e;
    if (!vsh_call(v, RPC_PROC_DOMAIN_GET_DISK_ERRORS, &args, &e))
        return false;
    if (!e.errors.errors_len)
        puts("No errors found");
    for (unsigned i = 0; i < e.errors.errors_len; i++)
        printf("%s: %s\n", e.errors.errors_val[i].disk,
               (unsigned)e.errors.errors_val[i].error < 3 ? words[e.errors.errors_val[i].error] : "unknown error");
    client_result_free(RPC_PROC_DOMAIN_GET_DISK_ERRORS, &e);
    return true;
}
