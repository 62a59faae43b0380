/*
 * Joins a machine (machine/vm.h), the monitor (monitor/monitor.h) and signals on one event loop; this is the main
 * thread. Neither of the two knows the other: what the monitor asks goes through the functions below.
 */
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "block/block.h"
#include "cli/cli.h"
#include "machine/vm.h"
#include "monitor/gdb.h"
#include "monitor/monitor.h"
#include "ui/display.h"
#include "ui/input.h"
#include "ui/keymap.h"
#include "ui/vnc.h"

struct serve {
    struct loop *loop;
    struct vm *vm;
    struct monitor *monitor;
    struct gdb *gdb;
    struct vnc *vnc;
    const struct domain *domain;
    int signal_fd;
    int end_fd; /* -1: none */
    int status; /* of the process */
};

/* For whoever looks after the process is gone. Later ends do not overwrite the first. */
static void note_end(struct serve *s, const char *reason, int status)
{
    if (s->end_fd >= 0)
        dprintf(s->end_fd, "%s status=%d\n", reason, status);
    s->end_fd = -1;
}

static void finish(struct serve *s, int status)
{
    s->status = status;
    loop_quit(s->loop);
}

/* What the monitor asks. */

static enum monitor_status op_status(void *opaque)
{
    static const enum monitor_status map[] = {
        [VM_PRELAUNCH] = MONITOR_PRELAUNCH, [VM_RUNNING] = MONITOR_RUNNING,   [VM_PAUSED] = MONITOR_PAUSED,
        [VM_SHUTDOWN] = MONITOR_SHUTDOWN,   [VM_PANICKED] = MONITOR_PANICKED, [VM_ERROR] = MONITOR_INTERNAL_ERROR,
    };
    return map[vm_status(((struct serve *)opaque)->vm)];
}

static const char *op_engine(void *opaque)
{
    return vm_engine_name(((struct serve *)opaque)->vm);
}

static int op_stop(void *opaque, struct err *err)
{
    return vm_stop(((struct serve *)opaque)->vm, err);
}

static int op_cont(void *opaque, struct err *err)
{
    return vm_cont(((struct serve *)opaque)->vm, err);
}

static int op_powerdown(void *opaque, struct err *err)
{
    vm_powerdown(((struct serve *)opaque)->vm);
    return 0;
}

static int op_reset(void *opaque, struct err *err)
{
    vm_reset(((struct serve *)opaque)->vm);
    return 0;
}

static void op_quit(void *opaque)
{
    struct serve *s = opaque;
    monitor_event(s->monitor, "SHUTDOWN", "{\"guest\": false, \"reason\": \"host-qmp-quit\"}");
    note_end(s, "host-qmp-quit", CLI_OK);
    finish(s, CLI_OK);
}

static unsigned op_cpus(void *opaque, struct monitor_cpu *cpus, unsigned max)
{
    const struct serve *s = opaque;
    unsigned n = MIN(s->domain->vcpus, max);
    for (unsigned i = 0; i < n; i++)
        cpus[i] = (struct monitor_cpu){.index = i, .thread_id = vm_vcpu_tid(s->vm, i)};
    return n;
}

static unsigned op_disks(void *opaque, struct monitor_disk *disks, unsigned max)
{
    struct serve *s = opaque;
    autofree struct vm_disk *open = xcalloc(max, sizeof *open);
    unsigned n = vm_disks(s->vm, open, max);
    for (unsigned i = 0; i < n; i++) {
        const struct domain_disk *k = open[i].disk;
        enum domain_disk_cache cache = k->cache;
        disks[i] = (struct monitor_disk){.writethrough =
                                             cache == DOMAIN_CACHE_WRITETHROUGH || cache == DOMAIN_CACHE_DIRECTSYNC,
                                         .direct = cache == DOMAIN_CACHE_NONE || cache == DOMAIN_CACHE_DIRECTSYNC,
                                         .no_flush = cache == DOMAIN_CACHE_UNSAFE,
                                         .readonly = open[i].read_only,
                                         .removable = k->device == DOMAIN_DISK_CDROM,
                                         .size = open[i].size};
        const struct blk_count *c = open[i].count;
        if (c) {
            disks[i].rd_ops = c[BLK_READ].ops;
            disks[i].rd_bytes = c[BLK_READ].bytes;
            disks[i].wr_ops = c[BLK_WRITE].ops + c[BLK_WRITE_ZEROES].ops;
            disks[i].wr_bytes = c[BLK_WRITE].bytes + c[BLK_WRITE_ZEROES].bytes;
            disks[i].flush_ops = c[BLK_FLUSH].ops;
            disks[i].unmap_ops = c[BLK_DISCARD].ops;
            disks[i].unmap_bytes = c[BLK_DISCARD].bytes;
        }
        snprintf(disks[i].device, sizeof disks[i].device, "%s", k->target);
        snprintf(disks[i].qdev, sizeof disks[i].qdev, "/machine/%s", k->target);
        snprintf(disks[i].file, sizeof disks[i].file, "%s", k->source ? k->source : "");
        snprintf(disks[i].format, sizeof disks[i].format, "%s", open[i].format);
    }
    return n;
}

static int op_disk_resize(void *opaque, const char *device, uint64_t bytes, struct err *err)
{
    return vm_disk_resize(((struct serve *)opaque)->vm, device, bytes, err);
}

static int op_balloon_set(void *opaque, uint64_t bytes, struct err *err)
{
    return vm_balloon_set(((struct serve *)opaque)->vm, bytes, err);
}

static int op_balloon_get(void *opaque, uint64_t *ret_bytes, struct err *err)
{
    return vm_balloon_get(((struct serve *)opaque)->vm, ret_bytes, err);
}

static char *op_registers(void *opaque, unsigned cpu, struct err *err)
{
    enum { SIZE = 16384 };
    autofree struct cpu_state *state = xcalloc(1, sizeof *state);
    if (vm_vcpu_state(((struct serve *)opaque)->vm, cpu, state, err) < 0)
        return NULL;
    char *text = xcalloc(1, SIZE);
    cpu_state_format(state, text, SIZE);
    return text;
}

static int op_paging(void *opaque, unsigned cpu, struct monitor_paging *ret, struct err *err)
{
    autofree struct cpu_state *state = xcalloc(1, sizeof *state);
    int code = vm_vcpu_state(((struct serve *)opaque)->vm, cpu, state, err);
    if (code < 0)
        return code;
    *ret = (struct monitor_paging){state->cr0, state->cr3, state->cr4, state->efer};
    return 0;
}

static int op_read_phys(void *opaque, uint64_t gpa, void *buf, size_t len)
{
    return vm_read_phys(((struct serve *)opaque)->vm, gpa, buf, len);
}

/* Beside its place first: what was there stays until all is written. */
static int op_save(void *opaque, const char *path, struct err *err)
{
    struct vm *vm = ((struct serve *)opaque)->vm;
    autofree char *part = xasprintf("%s.part", path);
    int code = vm_stop(vm, err);
    if (code < 0)
        return code;
    autofd int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, -errno, "%s", part);
    code = vm_save(vm, fd, err);
    if (code >= 0 && (fsync(fd) < 0 || rename(part, path) < 0))
        code = err_errno(err, -errno, "%s", path);
    if (code < 0)
        unlink(part);
    return code;
}

static int load(struct serve *s, const char *path, struct err *err)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, -errno, "%s", path);
    int code = vm_load(s->vm, fd, err);
    if (code < 0)
        err_prefix(err, "%s", path);
    return code;
}

static char *op_engine_info(void *opaque)
{
    return vm_info_engine(((struct serve *)opaque)->vm);
}

static int op_change_medium(void *opaque, const char *device, const char *path, bool force, struct err *err)
{
    return vm_change_medium(((struct serve *)opaque)->vm, device, path, force, err);
}

static void on_tray(void *opaque, const char *target, bool open)
{
    autofree char *data = xasprintf("{\"device\": \"%s\", \"id\": \"/machine/%s\", \"tray-open\": %s}", target, target,
                                    open ? "true" : "false");
    monitor_event(((struct serve *)opaque)->monitor, "DEVICE_TRAY_MOVED", data);
}

static int op_screendump(void *opaque, const char *path, bool ppm, struct err *err)
{
    return vm_screendump(((struct serve *)opaque)->vm, path, ppm, err);
}

static int op_key(void *opaque, const char *name, int number, bool down, struct err *err)
{
    const struct key *key = name ? key_by_name(name) : key_by_xt((unsigned)number);
    if (!key)
        return name ? err_set(err, -EINVAL, "'%.40s' is not the name of a key", name)
                    : err_set(err, -EINVAL, "%d is not the number of a key", number);
    ui_input_key(vm_input(((struct serve *)opaque)->vm), key, down);
    return 0;
}

static void op_move(void *opaque, int dx, int dy, int wheel, unsigned buttons)
{
    ui_input_move(vm_input(((struct serve *)opaque)->vm), dx, dy, wheel, buttons);
}

static void op_place(void *opaque, unsigned x, unsigned y, int wheel, unsigned buttons)
{
    struct vm *vm = ((struct serve *)opaque)->vm;
    const struct ui_display *d = vm_display(vm);
    ui_input_place(vm_input(vm), x, y, wheel, buttons, d ? d->width : 640, d ? d->height : 480);
}

static char *op_pci(void *opaque)
{
    return vm_info_pci(((struct serve *)opaque)->vm);
}

static const struct monitor_vm_ops monitor_ops = {
    .status = op_status,
    .engine = op_engine,
    .stop = op_stop,
    .cont = op_cont,
    .powerdown = op_powerdown,
    .reset = op_reset,
    .quit = op_quit,
    .cpus = op_cpus,
    .disks = op_disks,
    .disk_resize = op_disk_resize,
    .balloon_set = op_balloon_set,
    .balloon_get = op_balloon_get,
    .registers = op_registers,
    .paging = op_paging,
    .read_phys = op_read_phys,
    .pci = op_pci,
    .change_medium = op_change_medium,
    .screendump = op_screendump,
    .key = op_key,
    .move = op_move,
    .place = op_place,
    .engine_info = op_engine_info,
    .save = op_save,
};

/* What the debugger asks. */

static unsigned gdb_cpus(void *opaque)
{
    return ((struct serve *)opaque)->domain->vcpus;
}

static bool gdb_running(void *opaque)
{
    return vm_status(((struct serve *)opaque)->vm) == VM_RUNNING;
}

static int gdb_stop(void *opaque)
{
    struct err err = {0};
    return vm_stop(((struct serve *)opaque)->vm, &err);
}

static int gdb_resume(void *opaque, const enum gdb_how *how)
{
    static const enum vm_debug_how map[] = {
        [GDB_RUN] = VM_DEBUG_RUN, [GDB_STEP] = VM_DEBUG_STEP, [GDB_HOLD] = VM_DEBUG_HOLD};
    const struct serve *s = opaque;
    autofree enum vm_debug_how *all = xcalloc(s->domain->vcpus, sizeof *all);
    struct err err = {0};
    for (unsigned i = 0; i < s->domain->vcpus && i < GDB_CPUS_MAX; i++)
        all[i] = map[how[i]];
    return vm_debug_resume(s->vm, all, &err);
}

static int gdb_get_state(void *opaque, unsigned cpu, struct cpu_state *ret)
{
    struct err err = {0};
    return vm_vcpu_state(((struct serve *)opaque)->vm, cpu, ret, &err);
}

static int gdb_set_state(void *opaque, unsigned cpu, const struct cpu_state *state)
{
    struct err err = {0};
    return vm_vcpu_set_state(((struct serve *)opaque)->vm, cpu, state, &err);
}

static int gdb_write_phys(void *opaque, uint64_t gpa, const void *buf, size_t len)
{
    return vm_write_phys(((struct serve *)opaque)->vm, gpa, buf, len);
}

static int gdb_set_points(void *opaque, const struct gdb_point *points, unsigned n)
{
    static const uint8_t kinds[] = {[GDB_WRITE] = VCPU_WATCH_WRITE,
                                    [GDB_READ] = VCPU_WATCH_READ,
                                    [GDB_ACCESS] = VCPU_WATCH_WRITE | VCPU_WATCH_READ};
    autofree struct vcpu_debug *d = xcalloc(1, sizeof *d);
    for (unsigned i = 0; i < n; i++) {
        bool watch = points[i].kind >= GDB_WRITE;
        if (watch ? d->n_watches == VCPU_WATCHES_MAX : d->n_breaks == VCPU_BREAKS_MAX)
            return -ENOSPC;
        if (watch)
            d->watches[d->n_watches++] = (struct vcpu_watch){points[i].addr, points[i].len, kinds[points[i].kind]};
        else
            d->breaks[d->n_breaks++] = points[i].addr;
    }
    return vm_debug_set(((struct serve *)opaque)->vm, d);
}

static const struct gdb_target_ops gdb_ops = {
    .cpus = gdb_cpus,
    .running = gdb_running,
    .stop = gdb_stop,
    .resume = gdb_resume,
    .get_state = gdb_get_state,
    .set_state = gdb_set_state,
    .read_phys = op_read_phys,
    .write_phys = gdb_write_phys,
    .set_points = gdb_set_points,
    .kill = op_quit,
};

/* What the machine tells. */

static void on_debug(void *opaque, unsigned cpu, const struct vcpu_hit *hit)
{
    gdb_stopped(((struct serve *)opaque)->gdb, cpu, hit->kind == VCPU_HIT_STEP ? NULL : &hit->addr);
}

static void on_event(void *opaque, enum vm_event event, bool guest)
{
    struct serve *s = opaque;
    bool crash_restarts = s->domain->on_crash == DOMAIN_ACTION_RESTART;
    switch (event) {
    case VM_EVENT_STOP:
        monitor_event(s->monitor, "STOP", NULL);
        break;
    case VM_EVENT_RESUME:
        monitor_event(s->monitor, "RESUME", NULL);
        break;
    case VM_EVENT_RESET:
        monitor_event(s->monitor, "RESET",
                      guest ? "{\"guest\": true, \"reason\": \"guest-reset\"}"
                            : "{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}");
        break;
    case VM_EVENT_POWERDOWN:
        monitor_event(s->monitor, "POWERDOWN", NULL);
        break;
    case VM_EVENT_PANICKED:
        monitor_event(s->monitor, "GUEST_PANICKED",
                      crash_restarts ? "{\"action\": \"run\"}" : "{\"action\": \"poweroff\"}");
        break;
    case VM_EVENT_SHUTDOWN: /* on_end() knows the reason */
        break;
    }
}

static const struct {
    int status;
    bool guest, say;
    const char *reason;
} ends[] = {
    [VM_END_NONE] = {CLI_ERROR, false, true, "host-error"},
    [VM_END_POWEROFF] = {CLI_OK, true, false, "guest-shutdown"},
    [VM_END_RESET] = {CLI_OK, true, false, "guest-reset"},
    [VM_END_PANIC] = {CLI_PANIC, true, true, "guest-panic"},
    [VM_END_TRIPLE_FAULT] = {CLI_TRIPLE_FAULT, true, true, "guest-reset"},
    [VM_END_ERROR] = {CLI_ERROR, false, true, "host-error"},
    [VM_END_QUIT] = {CLI_OK, false, false, "host-ui"},
    [VM_END_DEBUG_EXIT] = {CLI_OK, true, false, "guest-shutdown"}, /* the status is the guest's */
};

static void on_end(void *opaque, enum vm_end end, const char *why)
{
    struct serve *s = opaque;
    autofree char *data =
        xasprintf("{\"guest\": %s, \"reason\": \"%s\"}", ends[end].guest ? "true" : "false", ends[end].reason);
    monitor_event(s->monitor, "SHUTDOWN", data);
    note_end(s, end == VM_END_TRIPLE_FAULT ? "triple-fault" : ends[end].reason, ends[end].status);
    gdb_ended(s->gdb, end == VM_END_DEBUG_EXIT ? vm_exit_status(s->vm) : ends[end].status);
    if (ends[end].say)
        fprintf(stderr, "lodge-vm: %s\n", why);
    enum domain_action action = end == VM_END_POWEROFF ? s->domain->on_poweroff
                                : end == VM_END_RESET  ? s->domain->on_reboot
                                                       : s->domain->on_crash;
    int status = end == VM_END_DEBUG_EXIT ? vm_exit_status(s->vm) : ends[end].status;
    s->status = status;
    if (end != VM_END_QUIT && action == DOMAIN_ACTION_PRESERVE)
        return; /* the monitor, or a signal, ends it */
    finish(s, status);
}

static void on_signal(void *opaque, uint32_t events)
{
    struct serve *s = opaque;
    struct signalfd_siginfo si;
    if (read(s->signal_fd, &si, sizeof si) != sizeof si)
        return;
    monitor_event(s->monitor, "SHUTDOWN", "{\"guest\": false, \"reason\": \"host-signal\"}");
    note_end(s, "host-signal", CLI_SIGNAL + (int)si.ssi_signo);
    finish(s, CLI_SIGNAL + (int)si.ssi_signo);
}

static void format_uuid(const uint8_t *u, char *s)
{
    for (int i = 0; i < 16; i++)
        s += sprintf(s, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", u[i]);
}

/* The display server is a process of its own, made before this one has a guest's memory and threads. */
static int start_graphics(struct serve *s, struct err *err)
{
    const struct domain *d = s->domain;
    if (!d->n_graphics)
        return 0;
    const struct domain_graphics *g = &d->graphics[0];
    const struct vnc_options opt = {
        .name = d->name,
        .listen = g->listen,
        .port = g->autoport == DOMAIN_ON ? -1 : g->port,
        .websocket = g->websocket,
        .socket = g->socket,
        .password = g->passwd,
        .exclusive_ok = !g->share_policy || !strcmp(g->share_policy, "allow-exclusive"),
    };
    return vnc_start(&opt, &s->vnc, err);
}

static void show_graphics(struct serve *s)
{
    const struct domain_graphics *g = s->vnc ? &s->domain->graphics[0] : NULL;
    if (!g || !vm_display(s->vm))
        return;
    vnc_attach(s->vnc, s->loop, vm_display(s->vm), vm_input(s->vm));
    if (g->socket)
        fprintf(stderr, "lodge-vm: screen on %s (VNC)\n", g->socket);
    else
        fprintf(stderr, "lodge-vm: screen on vnc://%s:%d\n", g->listen, vnc_port(s->vnc));
}

static int start(struct serve *s, const struct serve_options *o, struct err *err)
{
    const struct domain *d = s->domain;
    const struct vm_owner owner = {s, on_event, on_end, on_debug, on_tray};
    int code;
    if (o->monitor) {
        char uuid[37];
        format_uuid(d->uuid, uuid);
        const struct monitor_vm vm = {&monitor_ops, s, d->name, uuid, d->memory};
        if ((code = monitor_new(s->loop, o->monitor, &vm, &s->monitor, err)) < 0) {
            err_prefix(err, "monitor");
            return code;
        }
    }
    if ((code = start_graphics(s, err)) < 0 || (code = vm_new(d, s->loop, &owner, &s->vm, err)) < 0)
        return code;
    show_graphics(s);
    if (d->engine == DOMAIN_ENGINE_AUTO)
        fprintf(stderr, "lodge-vm: engine %s: %s\n", vm_engine_name(s->vm), vm_engine_why(s->vm));
    if (o->gdb) {
        const struct gdb_target target = {&gdb_ops, s};
        if ((code = gdb_new(s->loop, o->gdb, &target, &s->gdb, err)) < 0) {
            err_prefix(err, "gdb");
            return code;
        }
    }
    const char *ptys[32];
    unsigned n = vm_ptys(s->vm, ptys, ARRAY_SIZE(ptys));
    for (unsigned i = 0; i < n; i++)
        fprintf(stderr, "lodge-vm: console on %s\n", ptys[i]);
    for (unsigned i = 0; i < n && o->status_fd >= 0; i++)
        dprintf(o->status_fd, "pty %s\n", ptys[i]);
    if (o->status_fd >= 0 && s->vnc && vnc_port(s->vnc))
        dprintf(o->status_fd, "vnc %d\n", vnc_port(s->vnc));
    if (o->incoming && (code = load(s, o->incoming, err)) < 0)
        return code;
    if (!o->paused && (code = vm_cont(s->vm, err)) < 0)
        return code;
    if (o->status_fd >= 0) {
        static const char running[] = "running\n";
        code = fd_write_full(o->status_fd, running, sizeof running - 1);
        if (code < 0)
            return err_errno(err, code, "status descriptor %d", o->status_fd);
    }
    return 0;
}

int serve(const struct domain *d, const struct serve_options *o)
{
    struct serve s = {.domain = d, .status = CLI_ERROR, .end_fd = o->end_fd};
    struct err err = {0};
    sigset_t set;

    /* Before there are other threads: they inherit the mask, so that signals arrive here only. */
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);

    if (loop_new(&s.loop, &err) < 0) {
        fprintf(stderr, "lodge-vm: %s\n", err.msg);
        return CLI_ERROR;
    }
    struct loop_fd *watch = loop_add_fd(s.loop, s.signal_fd, EPOLLIN, on_signal, &s);
    if (start(&s, o, &err) == 0)
        loop_run(s.loop);
    gdb_free(s.gdb);
    monitor_free(s.monitor);
    vnc_free(s.vnc);
    vm_free(s.vm);
    if (err.code)
        fprintf(stderr, "lodge-vm: %s\n", err.msg);
    loop_del_fd(watch);
    loop_poll(s.loop, 0); /* what was posted while everything was taken down */
    loop_free(s.loop);
    fd_closep(&s.signal_fd);
    return s.status;
}
