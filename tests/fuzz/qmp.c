/*
 * A client of the monitor that says anything; one that says the right things is still answered afterwards. The machine
 * behind is made of constants; its page tables are a page that is its own child.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/sock.h"
#include "monitor/monitor.h"
#include "target.h"

static struct loop *loop;
static struct monitor *monitor;
static char dir[] = "/tmp/lodge-fuzz-XXXXXX";
static char path[sizeof dir + 8];
static int good = -1;
static uint8_t ram[64 << 10];

static enum monitor_status vm_status(void *opaque)
{
    return MONITOR_RUNNING;
}

static const char *vm_engine(void *opaque)
{
    return "soft";
}

static int vm_ok(void *opaque, struct err *err)
{
    monitor_event(monitor, "STOP", NULL);
    return 0;
}

static void vm_quit(void *opaque)
{
}

static unsigned vm_cpus(void *opaque, struct monitor_cpu *cpus, unsigned max)
{
    cpus[0] = (struct monitor_cpu){0, 100, false};
    cpus[1] = (struct monitor_cpu){1, 101, true};
    return 2;
}

static unsigned vm_disks(void *opaque, struct monitor_disk *disks, unsigned max)
{
    disks[0] = (struct monitor_disk){.device = "vda", .qdev = "/machine/vda", .file = "/x", .format = "raw", .size = 1};
    return 1;
}

static int vm_balloon_set(void *opaque, uint64_t bytes, struct err *err)
{
    return 0;
}

static int vm_balloon_get(void *opaque, uint64_t *ret_bytes, struct err *err)
{
    *ret_bytes = 1 << 30;
    return 0;
}

static char *vm_registers(void *opaque, unsigned cpu, struct err *err)
{
    if (cpu < 2)
        return xasprintf("RAX=%016x\n", cpu);
    err_set(err, -EINVAL, "there is no vCPU %u", cpu);
    return NULL;
}

static int vm_paging(void *opaque, unsigned cpu, struct monitor_paging *ret, struct err *err)
{
    *ret = (struct monitor_paging){.cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = cpu ? 0x20 : 0, .efer = cpu ? 0x500 : 0};
    return 0;
}

static int vm_read_phys(void *opaque, uint64_t gpa, void *buf, size_t len)
{
    if (gpa > sizeof ram || len > sizeof ram - gpa)
        return -EFAULT;
    memcpy(buf, ram + gpa, len);
    return 0;
}

static char *vm_pci(void *opaque)
{
    return xstrdup("  Bus  0, device   0, function 0:\n");
}

static const struct monitor_vm_ops vm_ops = {
    .status = vm_status,
    .engine = vm_engine,
    .stop = vm_ok,
    .cont = vm_ok,
    .powerdown = vm_ok,
    .reset = vm_ok,
    .quit = vm_quit,
    .cpus = vm_cpus,
    .disks = vm_disks,
    .balloon_set = vm_balloon_set,
    .balloon_get = vm_balloon_get,
    .registers = vm_registers,
    .paging = vm_paging,
    .read_phys = vm_read_phys,
    .pci = vm_pci,
};

static void turn(void)
{
    for (int i = 0; i < 4; i++)
        loop_poll(loop, 0);
}

/* Reads what there is; whether `text` was in the last of it. */
static bool hear(int fd, const char *text)
{
    static char buf[1 << 16];
    bool found = false;
    for (ssize_t n; (n = recv(fd, buf, sizeof buf - 1, MSG_DONTWAIT)) > 0;) {
        buf[n] = 0;
        found = text && strstr(buf, text);
    }
    return found;
}

static int join(void)
{
    static const char hello[] = "{\"execute\": \"qmp_capabilities\"}";
    int fd = sock_unix_connect(path, NULL);
    MUST(fd >= 0 && send(fd, hello, sizeof hello - 1, MSG_NOSIGNAL) == sizeof hello - 1);
    turn();
    MUST(hear(fd, "{\"return\": {}}"));
    return fd;
}

static void leave(void)
{
    monitor_free(monitor);
    close(good);
    loop_free(loop);
    rmdir(dir);
}

static void start(void)
{
    struct monitor_vm vm = {&vm_ops, NULL, "guest", "bf28c519-71c7-44a8-89ed-10e03cf8d9ca", 1 << 30};
    MUST(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/qmp", dir);
    MUST(!loop_new(&loop, NULL) && !monitor_new(loop, path, &vm, &monitor, NULL));
    for (unsigned i = 0; i < 512; i++)
        le64_put(ram + 0x1000 + i * 8, 0x1007);
    good = join();
    atexit(leave);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char ask[] = "{\"execute\": \"query-name\"}";
    if (good < 0)
        start();
    int fd = join();
    for (size_t at = 0; at < size;) { /* in pieces, as the network may */
        ssize_t n = send(fd, data + at, MIN(size - at, at ? 4096u : 7u), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            break;
        at += (size_t)n;
        loop_poll(loop, 0);
    }
    turn();
    hear(fd, NULL);
    close(fd);
    turn();
    hear(good, NULL);
    MUST(send(good, ask, sizeof ask - 1, MSG_NOSIGNAL) == sizeof ask - 1);
    turn();
    MUST(hear(good, "{\"return\": {\"name\": \"guest\"}}"));
    return 0;
}
