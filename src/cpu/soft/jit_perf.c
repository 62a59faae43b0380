/*
 * /tmp/perf-PID.map, where perf looks for the names of generated code: each translated block by its guest address. On
 * the vCPUs' threads; lines are written whole.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "cpu/soft/jit.h"

int jit_perf_map_open(void)
{
    char name[64];
    struct stat st;
    snprintf(name, sizeof name, "/tmp/perf-%d.map", (int)getpid());
    /* The name can be guessed: what somebody else put there is not written to. */
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != geteuid() || !S_ISREG(st.st_mode) || ftruncate(fd, 0) < 0))
        fd_closep(&fd);
    if (fd < 0)
        log_warn("no %s for perf", name);
    return fd;
}

void jit_perf_map_add(struct soft_cpu *c, const uint8_t *start, size_t size, uint64_t rip)
{
    char line[100];
    int n = snprintf(line, sizeof line, "%" PRIxPTR " %zx %s 0x%" PRIx64 "\n", (uintptr_t)start, size,
                     c->cpl == 3 ? "guest user" : "guest kernel", rip);
    if (write(c->soft->perf_map, line, (size_t)n) != n)
        log_debug("cannot write perf's map");
}
