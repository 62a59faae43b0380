/* The host and the daemon: capabilities, nodeinfo, memory and CPUs, versions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

/* Calls what takes nothing and returns text; NULL leaves v->error. */
static char *text_of(struct vsh *v, int proc, const void *args)
{
    rp_string text;
    return vsh_call(v, proc, args, &text) ? text : NULL;
}

bool cmd_capabilities(struct vsh *v, const struct vsh_args *a)
{
    autofree char *text = text_of(v, RPC_PROC_CONNECT_GET_CAPABILITIES, NULL);
    if (!text)
        return vsh_error(v, "failed to get capabilities");
    if (vsh_text(a, "xpath"))
        return vsh_print_xml(v, a, text);
    printf("%s\n", text);
    return true;
}

bool cmd_domcapabilities(struct vsh *v, const struct vsh_args *a)
{
    rp_string virttype = (char *)vsh_text(a, "virttype"), emulator = (char *)vsh_text(a, "emulatorbin");
    rp_string arch = (char *)vsh_text(a, "arch"), machine = (char *)vsh_text(a, "machine");
    const rp_domain_caps_args args = {emulator ? &emulator : NULL, arch ? &arch : NULL, machine ? &machine : NULL,
                                      virttype ? &virttype : NULL, 0};
    autofree char *text = text_of(v, RPC_PROC_CONNECT_GET_DOMAIN_CAPABILITIES, &args);
    if (!text)
        return vsh_error(v, "failed to get emulator capabilities");
    if (vsh_text(a, "xpath"))
        return vsh_print_xml(v, a, text);
    printf("%s\n", text);
    return true;
}

bool cmd_nodeinfo(struct vsh *v, const struct vsh_args *a)
{
    rp_node_info i;
    if (!vsh_call(v, RPC_PROC_NODE_GET_INFO, NULL, &i))
        return vsh_error(v, "failed to get node information");
    const struct {
        const char *name;
        long long value;
        const char *unit;
    } rows[] = {{"CPU(s):", i.cpus, ""},
                {"CPU frequency:", i.mhz, " MHz"},
                {"CPU socket(s):", i.sockets, ""},
                {"Core(s) per socket:", i.cores, ""},
                {"Thread(s) per core:", i.threads, ""},
                {"NUMA cell(s):", i.nodes, ""},
                {"Memory size:", (long long)i.memory, " KiB"}};
    vsh_fields_begin(v);
    vsh_field_wide(v, 20, "CPU model:", "%.32s", i.model);
    for (unsigned k = 0; k < 7; k++)
        if (i.mhz || strcmp(rows[k].name, "CPU frequency:") != 0)
            vsh_field_wide(v, 20, rows[k].name, "%lld%s", rows[k].value, rows[k].unit);
    vsh_fields_end(v);
    return true;
}

bool cmd_nodecpumap(struct vsh *v, const struct vsh_args *a)
{
    const rp_cpu_map_args args = {1, 1, 0};
    rp_cpu_map m;
    if (!vsh_call(v, RPC_PROC_NODE_GET_CPU_MAP, &args, &m))
        return vsh_error(v, "Unable to get cpu map");
    printf("%-15s %d\n%-15s %u\n%-15s ", "CPUs present:", m.ret, "CPUs online:", m.online, "CPU map:");
    if (vsh_has(a, "pretty")) {
        autofree char *list = cpu_list((uint8_t *)m.cpumap.cpumap_val, m.cpumap.cpumap_len);
        printf("%s", list);
    } else {
        for (unsigned i = 0; i < (unsigned)m.ret && i / 8 < m.cpumap.cpumap_len; i++)
            putchar((uint8_t)m.cpumap.cpumap_val[i / 8] >> i % 8 & 1 ? 'y' : '-');
    }
    putchar('\n');
    client_result_free(RPC_PROC_NODE_GET_CPU_MAP, &m);
    return true;
}

/* user, system, idle, iowait, intr, utilization: nanoseconds, but the last. */
enum { CPU_USER, CPU_SYSTEM, CPU_IDLE, CPU_IOWAIT, CPU_INTR, CPU_UTILIZATION, CPU_FIELDS };
static const char *const cpu_names[] = {"user", "kernel", "idle", "iowait", "intr", "utilization"};

static bool cpu_read(struct vsh *v, int cpu, unsigned long long out[CPU_FIELDS], bool has[CPU_FIELDS])
{
    rp_int_int_flags args = {cpu, 0, 0};
    rp_stats s;
    if (!vsh_call(v, RPC_PROC_NODE_GET_CPU_STATS, &args, &s))
        return false;
    args.value2 = s.nparams;
    client_result_free(RPC_PROC_NODE_GET_CPU_STATS, &s);
    if (!vsh_call(v, RPC_PROC_NODE_GET_CPU_STATS, &args, &s))
        return false;
    for (unsigned i = 0; i < s.params.params_len; i++)
        for (unsigned k = 0; k < CPU_FIELDS; k++)
            if (!strcmp(s.params.params_val[i].field, cpu_names[k])) {
                out[k] = s.params.params_val[i].value;
                has[k] = true;
            }
    client_result_free(RPC_PROC_NODE_GET_CPU_STATS, &s);
    return true;
}

bool cmd_nodecpustats(struct vsh *v, const struct vsh_args *a)
{
    unsigned long long now[CPU_FIELDS] = {0}, before[CPU_FIELDS] = {0}, sum = 0;
    bool has[CPU_FIELDS] = {false};
    int cpu = -1;
    if (!vsh_int(v, a, "cpu", &cpu))
        return false;
    if (vsh_has(a, "cpu") && cpu < 0)
        return vsh_error(v, "Invalid value of 'cpuNum'");
    if (!cpu_read(v, cpu, now, has))
        return vsh_error(v, "Unable to get node cpu stats");
    if (!vsh_has(a, "percent")) {
        static const char *const shown[] = {"user:", "system:", "idle:", "iowait:", "intr:"};
        if (has[CPU_UTILIZATION]) {
            printf("%-15s %5.1llu%%\n%-15s %5.1llu%%\n", "usage:", now[CPU_UTILIZATION],
                   "idle:", 100 - now[CPU_UTILIZATION]);
            return true;
        }
        for (unsigned k = 0; k < CPU_UTILIZATION; k++)
            if (has[k])
                printf("%-15s %20llu\n", shown[k], now[k]);
        return true;
    }
    if (!has[CPU_UTILIZATION]) {
        memcpy(before, now, sizeof(before));
        nanosleep(&(struct timespec){1, 0}, NULL);
        if (!cpu_read(v, cpu, now, has))
            return vsh_error(v, "Unable to get node cpu stats");
        for (unsigned k = 0; k < CPU_UTILIZATION; k++)
            sum += now[k] -= before[k];
        double part = sum ? 100.0 / sum : 0;
        printf("%-15s %5.1f%%\n", "usage:", sum ? 100 - (now[CPU_IDLE] + now[CPU_IOWAIT]) * part : 0.0);
        static const char *const shown[] = {"user:", "system:", "idle:", "iowait:", "intr:"};
        for (unsigned k = 0; k < CPU_UTILIZATION; k++)
            if (has[k])
                printf("%-15s %5.1f%%\n", shown[k], now[k] * part);
        return true;
    }
    printf("%-15s %5.1f%%\n%-15s %5.1f%%\n", "usage:", (double)now[CPU_UTILIZATION],
           "idle:", 100.0 - now[CPU_UTILIZATION]);
    return true;
}

bool cmd_nodememstats(struct vsh *v, const struct vsh_args *a)
{
    int cell = -1;
    if (!vsh_int(v, a, "cell", &cell))
        return false;
    rp_int_int_flags args = {0, cell, 0};
    rp_stats s;
    if (!vsh_call(v, RPC_PROC_NODE_GET_MEMORY_STATS, &args, &s))
        return vsh_error(v, "Unable to get number of memory stats");
    args.value = s.nparams;
    client_result_free(RPC_PROC_NODE_GET_MEMORY_STATS, &s);
    if (!vsh_call(v, RPC_PROC_NODE_GET_MEMORY_STATS, &args, &s))
        return vsh_error(v, "Unable to get memory stats");
    for (unsigned i = 0; i < s.params.params_len; i++)
        printf("%-7s: %20llu KiB\n", s.params.params_val[i].field, (unsigned long long)s.params.params_val[i].value);
    client_result_free(RPC_PROC_NODE_GET_MEMORY_STATS, &s);
    return true;
}

bool cmd_freecell(struct vsh *v, const struct vsh_args *a)
{
    int cell = -1;
    rp_uhyper bytes;
    if (!vsh_exclusive(v, a, "all", "cellno") || !vsh_int(v, a, "cellno", &cell))
        return false;
    if (!vsh_has(a, "all") && !vsh_has(a, "cellno")) {
        if (!vsh_call(v, RPC_PROC_NODE_GET_FREE_MEMORY, NULL, &bytes))
            return false;
        printf("%s: %llu KiB\n", "Total", (unsigned long long)bytes / 1024);
        return true;
    }
    int first = vsh_has(a, "all") ? 0 : cell;
    const rp_int_int args = {first, vsh_has(a, "all") ? 1024 : 1};
    rp_hypers cells;
    if (!vsh_call(v, RPC_PROC_NODE_GET_CELLS_FREE_MEMORY, &args, &cells))
        return false;
    unsigned long long sum = 0;
    for (unsigned i = 0; i < cells.values.values_len; i++) {
        unsigned long long kib = cells.values.values_val[i] / 1024;
        sum += kib;
        if (vsh_has(a, "all"))
            printf("%5d: %10llu KiB\n", first + (int)i, kib);
        else
            printf("%d: %llu KiB\n", first + (int)i, kib);
    }
    if (vsh_has(a, "all"))
        printf("--------------------\n%5s: %10llu KiB\n", "Total", sum);
    client_result_free(RPC_PROC_NODE_GET_CELLS_FREE_MEMORY, &cells);
    return true;
}

static bool print_text(struct vsh *v, int proc, const void *args, const char *failed)
{
    autofree char *text = text_of(v, proc, args);
    if (!text)
        return failed ? vsh_error(v, "%s", failed) : false;
    puts(text);
    return true;
}

bool cmd_sysinfo(struct vsh *v, const struct vsh_args *a)
{
    rp_uint flags = 0;
    autofree char *text = text_of(v, RPC_PROC_CONNECT_GET_SYSINFO, &flags);
    if (!text)
        return vsh_error(v, "failed to get sysinfo");
    if (vsh_text(a, "xpath"))
        return vsh_print_xml(v, a, text);
    printf("%s", text);
    return true;
}

bool cmd_hostname(struct vsh *v, const struct vsh_args *a)
{
    return print_text(v, RPC_PROC_CONNECT_GET_HOSTNAME, NULL, "failed to get hostname");
}

bool cmd_pool_capabilities(struct vsh *v, const struct vsh_args *a)
{
    rp_uint flags = 0;
    return print_text(v, RPC_PROC_CONNECT_GET_STORAGE_POOL_CAPABILITIES, &flags,
                      "failed to get storage pool capabilities");
}

bool cmd_uri(struct vsh *v, const struct vsh_args *a)
{
    /* What reaches this daemon by any libvirt client: with its socket, where they would look elsewhere. */
    const char *uri = client_uri(v->conn), *socket = client_socket(v->conn);
    bool lodge = !strncmp(uri, "lodge:", 6) || strstr(socket, "/lodge/");
    if (strstr(uri, "socket=") || !lodge)
        puts(uri);
    else
        printf("qemu:///%s?socket=%s\n", strstr(uri, "session") ? "session" : "system", socket);
    return true;
}

bool cmd_maxvcpus(struct vsh *v, const struct vsh_args *a)
{
    rp_string type = (char *)vsh_text(a, "type");
    rp_opt_string arg = type ? &type : NULL;
    const rp_domain_caps_args args = {NULL, NULL, NULL, arg, 0};
    autofree char *text = text_of(v, RPC_PROC_CONNECT_GET_DOMAIN_CAPABILITIES, &args);
    autoxml root = NULL;
    if (text && (root = vsh_parse(v, text))) {
        const struct xml_node *vcpu = xml_child(root, "vcpu");
        const char *max = vcpu ? xml_attr_get(vcpu, "max") : NULL;
        if (max) {
            puts(max);
            return true;
        }
    }
    vsh_error_reset(v);
    rp_int n;
    if (!vsh_call(v, RPC_PROC_CONNECT_GET_MAX_VCPUS, &arg, &n))
        return false;
    printf("%d\n", n);
    return true;
}

static void print_version(const char *what, const char *name, unsigned long long n)
{
    printf("%s: %s %llu.%llu.%llu\n", what, name, n / 1000000, n / 1000 % 1000, n % 1000);
}

bool cmd_version(struct vsh *v, const struct vsh_args *a)
{
    autofree char *type = text_of(v, RPC_PROC_CONNECT_GET_TYPE, NULL);
    if (!type)
        return vsh_error(v, "failed to get hypervisor type");
    printf("Compiled against library: libvirt 9.0.0\nUsing library: libvirt 9.0.0\n");
    printf("Using API: %s 9.0.0\n", type);
    rp_uhyper n;
    if (!vsh_call(v, RPC_PROC_CONNECT_GET_VERSION, NULL, &n))
        return vsh_error(v, "failed to get the hypervisor version");
    if (!n)
        printf("Cannot extract running %s hypervisor version\n", type);
    else
        print_version("Running hypervisor", type, n);
    if (vsh_has(a, "daemon")) {
        if (!vsh_call(v, RPC_PROC_CONNECT_GET_LIB_VERSION, NULL, &n))
            return vsh_error(v, "failed to get the daemon version");
        printf("Running against daemon: %llu.%llu.%llu\n", (unsigned long long)n / 1000000,
               (unsigned long long)n / 1000 % 1000, (unsigned long long)n % 1000);
    }
    return true;
}

bool cmd_cpu_models(struct vsh *v, const struct vsh_args *a)
{
    const rp_arch_models_args args = {(char *)vsh_text(a, "arch"), 1, 0};
    rp_names_ret names;
    if (!vsh_call(v, RPC_PROC_CONNECT_GET_CPU_MODEL_NAMES, &args, &names))
        return vsh_error(v, "failed to get CPU model names");
    if (!names.names.names_len)
        puts("all CPU models are accepted");
    for (unsigned i = 0; i < names.names.names_len; i++)
        puts(names.names.names_val[i]);
    client_result_free(RPC_PROC_CONNECT_GET_CPU_MODEL_NAMES, &names);
    return true;
}

bool cmd_connect(struct vsh *v, const struct vsh_args *a)
{
    vsh_disconnect(v);
    const char *name = vsh_text(a, "name");
    if (name) {
        free(v->uri_owned);
        v->uri = v->uri_owned = xstrdup(name);
    }
    v->readonly = vsh_has(a, "readonly") || (v->readonly && !name);
    return vsh_connect(v);
}

/* The cell of the number of free pages of each size. */
bool cmd_freepages(struct vsh *v, const struct vsh_args *a)
{
    unsigned size = 4;
    unsigned long long bytes = 4096;
    int cell = 0;
    if (!vsh_int(v, a, "cellno", &cell) || !vsh_scaled(v, a, "pagesize", 1024, &bytes))
        return false;
    unsigned sizes[] = {4, 2048, 1048576};
    size = bytes / 1024;
    unsigned one[] = {size};
    bool all = vsh_has(a, "all") || !vsh_has(a, "pagesize");
    const rp_free_pages args = {{all ? 3 : 1, all ? sizes : one}, vsh_has(a, "cellno") ? cell : 0, 1, 0};
    rp_hypers counts;
    if (!vsh_call(v, RPC_PROC_NODE_GET_FREE_PAGES, &args, &counts))
        return false;
    printf("Node %d:\n", args.start_cell);
    for (unsigned i = 0; i < counts.values.values_len && i < args.pages.pages_len; i++)
        printf("%uKiB: %llu\n", args.pages.pages_val[i], (unsigned long long)counts.values.values_val[i]);
    client_result_free(RPC_PROC_NODE_GET_FREE_PAGES, &counts);
    return true;
}
