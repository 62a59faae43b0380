/*
 * What a debugger sends to the gdb server. The input's lines are packets and get their frames and checksums; one that begins with '!' goes
 * as it is. Afterwards the next debugger must be served as if nothing had been.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/loop.h"
#include "base/sock.h"
#include "monitor/gdb.h"
#include "target.h"

#define CPUS 2
#define RAM (64 << 10)

static struct loop *loop;
static struct gdb *gdb;
static char dir[] = "/tmp/lodge-fuzz-gdb-XXXXXX", path[80];
static struct cpu_state cpu[CPUS];
static uint8_t ram[RAM];
static bool is_running;

static unsigned t_cpus(void *opaque)
{
    return CPUS;
}
static bool t_running(void *opaque)
{
    return is_running;
}
static int t_stop(void *opaque)
{
    is_running = false;
    return 0;
}
static int t_resume(void *opaque, const enum gdb_how *how)
{
    for (unsigned i = 0; i < CPUS; i++)
        MUST(how[i] == GDB_RUN || how[i] == GDB_STEP || how[i] == GDB_HOLD);
    is_running = true;
    for (unsigned i = 0; i < CPUS; i++) {
        if (how[i] == GDB_STEP) {
            is_running = false;
            gdb_stopped(gdb, i, NULL);
            break;
        }
    }
    return 0;
}
static int t_get_state(void *opaque, unsigned n, struct cpu_state *ret)
{
    MUST(n < CPUS && !is_running);
    *ret = cpu[n];
    return 0;
}
static int t_set_state(void *opaque, unsigned n, const struct cpu_state *s)
{
    MUST(n < CPUS && !is_running);
    cpu[n] = *s;
    return 0;
}
static int t_read_phys(void *opaque, uint64_t gpa, void *buf, size_t len)
{
    if (gpa > RAM || len > RAM - gpa)
        return -14;
    memcpy(buf, ram + gpa, len);
    return 0;
}
static int t_write_phys(void *opaque, uint64_t gpa, const void *buf, size_t len)
{
    if (gpa > RAM || len > RAM - gpa)
        return -14;
    memcpy(ram + gpa, buf, len);
    return 0;
}
static int t_set_points(void *opaque, const struct gdb_point *points, unsigned n)
{
    MUST(n <= GDB_POINTS_MAX);
    for (unsigned i = 0; i < n; i++)
        MUST(points[i].kind <= GDB_ACCESS);
    return n > 8 ? -28 : 0;
}
static void t_kill(void *opaque)
{
}

static const struct gdb_target_ops ops = {
    .cpus = t_cpus,
    .running = t_running,
    .stop = t_stop,
    .resume = t_resume,
    .get_state = t_get_state,
    .set_state = t_set_state,
    .read_phys = t_read_phys,
    .write_phys = t_write_phys,
    .set_points = t_set_points,
    .kill = t_kill,
};

static void leave(void)
{
    gdb_free(gdb);
    loop_free(loop);
    rmdir(dir);
}

static void start(void)
{
    struct gdb_target target = {&ops, NULL};
    MUST(mkdtemp(dir));
    snprintf(path, sizeof path, "unix=%s/gdb", dir);
    MUST(!loop_new(&loop, NULL) && !gdb_new(loop, path, &target, &gdb, NULL));
    atexit(leave);
}

static void turn(int fd)
{
    char buf[4096];
    for (int i = 0; i < 3; i++) {
        loop_poll(loop, 0);
        while (recv(fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
            ;
    }
}

static void send_packet(int fd, const uint8_t *data, size_t len)
{
    static uint8_t out[1 << 16];
    size_t n = 0;
    uint8_t sum = 0;
    if (len && data[0] == '!') {
        if (send(fd, data + 1, len - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            return;
    } else {
        out[n++] = '$';
        for (size_t i = 0; i < MIN(len, sizeof out - 8); i++)
            sum = (uint8_t)(sum + (out[n++] = data[i]));
        n += (size_t)sprintf((char *)out + n, "#%02x", sum);
        if (send(fd, out, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            return;
    }
    turn(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!gdb)
        start();
    is_running = true;
    cpu_state_reset(&cpu[0], true);
    cpu_state_reset(&cpu[1], false);
    int fd = sock_unix_connect(path + 5, NULL);
    MUST(fd >= 0);
    turn(fd);
    for (size_t at = 0; at < size;) {
        const uint8_t *nl = memchr(data + at, '\n', size - at);
        size_t end = nl ? (size_t)(nl - data) : size;
        send_packet(fd, data + at, end - at);
        at = end + 1;
    }
    close(fd);
    for (int i = 0; i < 4; i++)
        loop_poll(loop, 0);
    fd = sock_unix_connect(path + 5, NULL);
    MUST(fd >= 0);
    static const char ask[] = "$?#3f";
    char buf[512];
    bool answered = false;
    MUST(send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) == sizeof ask - 1);
    for (int i = 0; i < 20 && !answered; i++) {
        loop_poll(loop, 0);
        ssize_t n = recv(fd, buf, sizeof buf - 1, MSG_DONTWAIT);
        answered = n > 0 && memchr(buf, '$', (size_t)n);
    }
    MUST(answered);
    close(fd);
    for (int i = 0; i < 4; i++)
        loop_poll(loop, 0);
    return 0;
}
