/* What the host has, read from the kernel each time, and the documents that tell clients about it. */
#ifndef LODGE_DAEMON_HOST_H
#define LODGE_DAEMON_HOST_H

#include <stdint.h>

#include "daemon/verr.h"

#define HOST_VCPUS_MAX 255

struct daemon;

struct host_info {
    uint64_t memory; /* bytes */
    unsigned cpus, mhz, sockets, cores, threads;
};
void host_info_read(struct host_info *ret);

struct host_cpu_stats {
    uint64_t kernel_ns, user_ns, idle_ns, iowait_ns, intr_ns;
};
/* Of one CPU, or of all: -1. -EINVAL: there is no such CPU. */
int host_cpu_stats_read(int cpu, struct host_cpu_stats *ret);

struct host_memory {
    uint64_t total, free, buffers, cached; /* bytes */
};
void host_memory_read(struct host_memory *ret);

unsigned host_cpus_present(void);
/* Sets a bit for each CPU that is online; how many there are. */
unsigned host_cpus_online(uint8_t *map, unsigned bytes);

/* caps.c. The caller frees what is returned. */
extern const char *const caps_cpu_models[]; /* NULL-terminated */
char *caps_host(struct daemon *d);
char *caps_domain(struct daemon *d, const char *emulator, const char *arch, const char *machine, const char *type,
                  struct rpc_error *e);
char *caps_sysinfo(void);

#endif
