/* See usage.h. */
#include "daemon/usage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/host.h"

static int read_text(const char *path, char *text, size_t size)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    if (n < 0)
        return -errno;
    text[n] = 0;
    return 0;
}

/* The text behind the name in a stat file: field 3 and those that follow. */
static int read_stat(const char *path, char *text, size_t size, char **ret_fields)
{
    int r = read_text(path, text, size);
    char *p = r < 0 ? NULL : strrchr(text, ')');
    if (!p || !p[1])
        return r < 0 ? r : -EINVAL;
    *ret_fields = p + 2;
    return 0;
}

static uint64_t field(const char *fields, int number)
{
    const char *p = fields;
    for (int i = 3; p && i < number; i++)
        if ((p = strchr(p, ' ')))
            p++;
    return p ? strtoull(p, NULL, 10) : 0;
}

int usage_process_read(pid_t pid, struct usage_process *ret)
{
    char path[60], text[1024], *fields;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int r = read_stat(path, text, sizeof text, &fields);
    if (r < 0)
        return r;
    uint64_t tick = 1000000000ull / sysconf(_SC_CLK_TCK);
    *ret = (struct usage_process){field(fields, 14) * tick, field(fields, 15) * tick};
    return 0;
}

int usage_thread_read(pid_t pid, pid_t tid, struct usage_thread *ret)
{
    char path[80], text[1024], *fields;
    struct usage_thread u = {0};
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, (int)tid);
    int r = read_stat(path, text, sizeof text, &fields);
    if (r < 0)
        return r;
    uint64_t tick = 1000000000ull / sysconf(_SC_CLK_TCK);
    u.cpu_ns = (field(fields, 14) + field(fields, 15)) * tick;
    u.cpu = (int)field(fields, 39);
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", (int)pid, (int)tid);
    if (read_text(path, text, sizeof text) == 0) {
        uint64_t run, wait;
        if (sscanf(text, "%" SCNu64 " %" SCNu64, &run, &wait) == 2) {
            u.cpu_ns = run;
            u.wait_ns = wait;
        }
    }
    *ret = u;
    return 0;
}

uint64_t usage_rss(pid_t pid)
{
    char path[60], text[256];
    uint64_t size, resident;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    if (read_text(path, text, sizeof text) < 0 || sscanf(text, "%" SCNu64 " %" SCNu64, &size, &resident) != 2)
        return 0;
    return resident * sysconf(_SC_PAGESIZE);
}

void usage_affinity(pid_t tid, uint8_t *map, unsigned bytes)
{
    cpu_set_t set;
    memset(map, 0, bytes);
    if (!tid || sched_getaffinity(tid, sizeof set, &set) < 0) {
        host_cpus_online(map, bytes);
        return;
    }
    for (unsigned i = 0; i < bytes * 8 && i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            map[i / 8] |= 1u << i % 8;
}

int usage_pin(pid_t tid, const uint8_t *map, unsigned bytes)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (unsigned i = 0; i < bytes * 8 && i < CPU_SETSIZE; i++)
        if (map[i / 8] & 1u << i % 8)
            CPU_SET(i, &set);
    return sched_setaffinity(tid, sizeof set, &set) < 0 ? -errno : 0;
}

static int64_t counter(const char *dev, const char *name)
{
    char path[120], text[40];
    snprintf(path, sizeof path, "/sys/class/net/%s/statistics/%s", dev, name);
    return read_text(path, text, sizeof text) < 0 ? -1 : strtoll(text, NULL, 10);
}

int usage_interface_read(const char *dev, struct usage_interface *ret)
{
    if (strchr(dev, '/') || strlen(dev) > 15 || counter(dev, "tx_bytes") < 0)
        return -ENODEV;
    *ret = (struct usage_interface){
        counter(dev, "tx_bytes"), counter(dev, "tx_packets"), counter(dev, "tx_errors"), counter(dev, "tx_dropped"),
        counter(dev, "rx_bytes"), counter(dev, "rx_packets"), counter(dev, "rx_errors"), counter(dev, "rx_dropped"),
    };
    return 0;
}
