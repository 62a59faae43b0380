/* What processes, threads and network devices use, as the kernel counts it. */
#ifndef LODGE_DAEMON_USAGE_H
#define LODGE_DAEMON_USAGE_H

#include <stdint.h>
#include <sys/types.h>

struct usage_process {
    uint64_t user_ns, system_ns;
};
int usage_process_read(pid_t pid, struct usage_process *ret);

struct usage_thread {
    uint64_t cpu_ns, wait_ns; /* running; ready, but waiting for a CPU */
    int cpu;                  /* where it ran last */
};
/* -errno, and *ret as it was: no such thread. */
int usage_thread_read(pid_t pid, pid_t tid, struct usage_thread *ret);

/* Resident memory in bytes. */
uint64_t usage_rss(pid_t pid);

/* CPUs that a thread may run on (0: any that is online), as a map of `bytes` bytes. */
void usage_affinity(pid_t tid, uint8_t *map, unsigned bytes);
int usage_pin(pid_t tid, const uint8_t *map, unsigned bytes);

/* As the guest sees it: what the tap device sends is what the guest receives. -errno. */
struct usage_interface {
    int64_t rx_bytes, rx_packets, rx_errs, rx_drop, tx_bytes, tx_packets, tx_errs, tx_drop;
};
int usage_interface_read(const char *dev, struct usage_interface *ret);

#endif
