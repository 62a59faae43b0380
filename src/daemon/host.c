/* See host.h. */
#include "daemon/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"

static long read_number(const char *path, long missing)
{
    FILE *f = fopen(path, "re");
    long v = missing;
    if (!f)
        return missing;
    if (fscanf(f, "%ld", &v) != 1)
        v = missing;
    fclose(f);
    return v;
}

unsigned host_cpus_present(void)
{
    long n = sysconf(_SC_NPROCESSORS_CONF);
    return n > 0 ? n : 1;
}

unsigned host_cpus_online(uint8_t *map, unsigned bytes)
{
    unsigned n = 0;
    for (unsigned i = 0; i < bytes * 8 && i < host_cpus_present(); i++) {
        char path[80];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/online", i);
        if (read_number(path, 1) == 1) {
            map[i / 8] |= 1u << i % 8;
            n++;
        }
    }
    return n;
}

/* How many different values a topology file has over all CPUs. */
static unsigned distinct(const char *file)
{
    long seen[256];
    unsigned n = 0, cpus = host_cpus_present();
    for (unsigned i = 0; i < cpus && n < ARRAY_SIZE(seen); i++) {
        char path[100];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/%s", i, file);
        long v = read_number(path, -1);
        unsigned k = 0;
        while (k < n && seen[k] != v)
            k++;
        if (v >= 0 && k == n)
            seen[n++] = v;
    }
    return n ? n : 1;
}

void host_info_read(struct host_info *ret)
{
    uint8_t map[32] = {0};
    struct host_memory m;
    host_memory_read(&m);
    *ret = (struct host_info){.memory = m.total, .cpus = host_cpus_online(map, sizeof map)};
    ret->sockets = distinct("physical_package_id");
    unsigned cores = distinct("core_id") * ret->sockets;
    if (cores > ret->cpus)
        cores = ret->cpus;
    ret->cores = cores / ret->sockets ? cores / ret->sockets : 1;
    ret->threads = ret->cpus / (ret->cores * ret->sockets);
    if (!ret->threads || ret->threads * ret->cores * ret->sockets != ret->cpus) {
        ret->sockets = 1;
        ret->cores = ret->cpus;
        ret->threads = 1;
    }
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    double mhz;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "cpu MHz : %lf", &mhz) == 1) {
            ret->mhz = mhz;
            break;
        }
    }
    if (f)
        fclose(f);
}

int host_cpu_stats_read(int cpu, struct host_cpu_stats *ret)
{
    char want[16], line[512], name[16];
    if (cpu < 0)
        snprintf(want, sizeof want, "cpu");
    else
        snprintf(want, sizeof want, "cpu%d", cpu);
    FILE *f = fopen("/proc/stat", "re");
    int r = -EINVAL;
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long user, nice, sys, idle, iowait, irq, softirq;
        if (sscanf(line, "%15s %llu %llu %llu %llu %llu %llu %llu", name, &user, &nice, &sys, &idle, &iowait, &irq,
                   &softirq) != 8 ||
            strcmp(name, want))
            continue;
        uint64_t tick = 1000000000ull / sysconf(_SC_CLK_TCK);
        *ret = (struct host_cpu_stats){sys * tick, (user + nice) * tick, idle * tick, iowait * tick,
                                       (irq + softirq) * tick};
        r = 0;
        break;
    }
    if (f)
        fclose(f);
    return r;
}

void host_memory_read(struct host_memory *ret)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long v;
    *ret = (struct host_memory){0};
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemTotal: %llu", &v) == 1)
            ret->total = v * KIB;
        else if (sscanf(line, "MemFree: %llu", &v) == 1)
            ret->free = v * KIB;
        else if (sscanf(line, "Buffers: %llu", &v) == 1)
            ret->buffers = v * KIB;
        else if (sscanf(line, "Cached: %llu", &v) == 1)
            ret->cached = v * KIB;
    }
    if (f)
        fclose(f);
}
