/*
 * Starting lodge-vm, and finding out that it has started: it writes "running" to a pipe once the guest runs, and before
 * that a line for each pseudo terminal. It has a session of its own and outlives us. vfork() because the daemon's
 * memory must not be copied, and because exec's failure is known when it returns.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "daemon/guest.h"

/* Field 22 of /proc/PID/stat; 0: there is no such process. */
uint64_t process_start_time(pid_t pid)
{
    char path[40], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p, NULL, 10) : 0;
}

static void on_process_end(void *opaque, uint32_t events)
{
    struct guest *g = opaque;
    int status = -1;
    siginfo_t si = {0};
    if (g->child && waitid(P_PIDFD, g->pidfd, &si, WEXITED | WNOHANG) == 0) {
        if (!si.si_pid)
            return;
        status = si.si_code == CLD_EXITED ? W_EXITCODE(si.si_status, 0) : W_EXITCODE(0, si.si_status);
    }
    guest_ended(g, status);
}

static int watch_process(struct guest *g)
{
    g->pidfd = pidfd_open(g->pid, 0);
    if (g->pidfd < 0)
        return -errno;
    fcntl(g->pidfd, F_SETFD, FD_CLOEXEC);
    g->pid_watch = loop_add_fd(g->guests->loop, g->pidfd, EPOLLIN, on_process_end, g);
    return 0;
}

static void close_status(struct guest *g)
{
    loop_del_fd(g->status_watch);
    g->status_watch = NULL;
    fd_closep(&g->status_fd);
    g->status_fd = -1;
}

/* The n-th pseudo terminal is that of the n-th serial port or virtio console of type pty. */
static void note_pty(struct guest *g, const char *path)
{
    struct domain *d = g->live;
    for (unsigned i = 0; i < d->n_serials; i++) {
        struct domain_chardev *c = &d->serials[i].chardev;
        if (c->type == DOMAIN_CHARDEV_PTY && !c->path) {
            domain_set(&c->path, path);
            if (i == 0 && d->n_consoles && d->consoles[0].target == DOMAIN_CONSOLE_SERIAL)
                domain_set(&d->consoles[0].chardev.path, path);
            return;
        }
    }
    for (unsigned i = 0; i < d->n_consoles; i++) {
        struct domain_console *c = &d->consoles[i];
        if (c->target == DOMAIN_CONSOLE_VIRTIO && c->chardev.type == DOMAIN_CHARDEV_PTY && !c->chardev.path) {
            domain_set(&c->chardev.path, path);
            return;
        }
    }
}

static void started(struct guest *g)
{
    struct guests *t = g->guests;
    close_status(g);
    run_save(g);
    guest_monitor_connect(g);
    if (g->restarting) {
        g->restarting = false;
        t->owner.monitor(t->owner.opaque, g, "RESET", NULL);
        return;
    }
    bool restored = g->incoming;
    if (restored) {
        autofree char *managed = guest_managed_save_path(g);
        if (!strcmp(managed, g->incoming))
            unlink(managed);
        domain_set(&g->incoming, NULL);
    }
    guest_set_state(g, g->start_paused ? GUEST_PAUSED : GUEST_RUNNING,
                    g->start_paused ? PAUSED_USER
                    : restored      ? RUNNING_RESTORED
                                    : RUNNING_BOOTED);
    t->owner.lifecycle(t->owner.opaque, g, EVENT_STARTED, restored ? 2 : 0);
    if (g->start_paused)
        t->owner.lifecycle(t->owner.opaque, g, EVENT_SUSPENDED, 0);
    guest_wait_tell(&g->starters, NULL);
}

static void on_status(void *opaque, uint32_t events)
{
    struct guest *g = opaque;
    ssize_t n = read(g->status_fd, g->status_line + g->status_len, sizeof g->status_line - 1 - g->status_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* it is ending; on_process_end() tells why */
        close_status(g);
        return;
    }
    g->status_len += n;
    g->status_line[g->status_len] = 0;
    char *line = g->status_line, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        if (!strncmp(line, "pty ", 4))
            note_pty(g, line + 4);
        else if (!strncmp(line, "vnc ", 4) && g->live->n_graphics) /* the port that it has chosen */
            g->live->graphics[0].port = atoi(line + 4);
        else if (!strcmp(line, "running")) {
            started(g);
            return;
        }
        line = end + 1;
    }
    g->status_len = strlen(line);
    memmove(g->status_line, line, g->status_len + 1);
    if (g->status_len == sizeof g->status_line - 1)
        g->status_len = 0; /* not a line of ours */
}

/* In the child, after vfork(): only system calls. Descriptors 3 and 4 are what lodge-vm is told of. */
static __attribute__((noinline)) pid_t spawn(const char *path, char *const *args, char *const *env, int log, int status,
                                             int end, volatile int *ret_failed)
{
    sigset_t all, none, old;
    sigfillset(&all);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &all, &old); /* no handler of ours may run in the child */
    pid_t pid = vfork();
    if (pid == 0) {
        setsid();
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        /* The sources are moved out of the way of the targets first. */
        int s = fcntl(status, F_DUPFD_CLOEXEC, 10), e = fcntl(end, F_DUPFD_CLOEXEC, 10);
        if (dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 || dup2(s, 3) < 0 || dup2(e, 4) < 0) {
            *ret_failed = errno;
            _exit(127);
        }
        for (int sig = 1; sig < 32; sig++)
            if (sig != SIGKILL && sig != SIGSTOP)
                signal(sig, SIG_DFL);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execve(path, args, env);
        *ret_failed = errno;
        _exit(127);
    }
    int saved = errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return pid;
}

extern char **environ;

static int launch(struct guest *g, struct rpc_error *e)
{
    struct guests *t = g->guests;
    autofree char *xml = run_path(g, "xml");
    autofree char *monitor = run_path(g, "monitor");
    autofree char *monitor_arg = xasprintf("unix=%s", monitor);
    autofree char *end_path = run_path(g, "end");
    unlink(monitor);
    autofd int end = open(end_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (end < 0)
        return verr_errno(e, errno, "%s", end_path);
    autofd int log = guest_log_open(g);
    if (log < 0)
        return verr_errno(e, log, "cannot open the log of '%s' in %s", g->name, t->dirs.log);
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK) < 0)
        return verr_errno(e, errno, "cannot make a pipe");
    autofd int status_in = pipe_fd[0], status_out = pipe_fd[1];
    int r = run_save(g);
    if (r < 0)
        return verr_errno(e, r, "cannot write to %s", t->dirs.run);
    autofree char *incoming = g->incoming ? xasprintf("file:%s", g->incoming) : NULL;
    char *args[14] = {t->lodge_vm, "--domain", xml, "--monitor", monitor_arg, "--status-fd", "3", "--end-fd", "4"};
    unsigned n = 9;
    if (g->start_paused)
        args[n++] = "--paused";
    if (incoming) {
        args[n++] = "--incoming";
        args[n++] = incoming;
    }
    guest_log(g, "starting up: %s --domain %s --monitor %s%s", t->lodge_vm, xml, monitor_arg,
              g->start_paused ? " --paused" : "");
    volatile int failed = 0;
    pid_t pid = spawn(t->lodge_vm, args, environ, log, status_out, end, &failed);
    if (pid < 0)
        return verr_errno(e, errno, "cannot start a process");
    if (failed) {
        waitpid(pid, NULL, 0);
        return verr_errno(e, failed, "cannot start '%s'", t->lodge_vm);
    }
    g->pid = pid;
    g->child = true;
    g->pid_start = process_start_time(pid);
    g->status_fd = fd_take(status_in);
    g->status_len = 0;
    if ((r = watch_process(g)) < 0 || (r = run_save(g)) < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        loop_del_fd(g->pid_watch);
        g->pid_watch = NULL;
        return verr_errno(e, r, "cannot watch over the guest's process");
    }
    g->status_watch = loop_add_fd(t->loop, g->status_fd, EPOLLIN, on_status, g);
    return 0;
}

/* Two guests that write to one image destroy it. */
static int check_disks(const struct guest *g, const struct domain *d, struct rpc_error *e)
{
    struct guest *o, *next;
    HASH_ITER(by_id, g->guests->by_id, o, next)
    {
        if (o == g || !o->live)
            continue;
        for (unsigned i = 0; i < d->n_disks; i++) {
            const struct domain_disk *a = &d->disks[i];
            for (unsigned k = 0; a->source && k < o->live->n_disks; k++) {
                const struct domain_disk *b = &o->live->disks[k];
                if (b->source && !strcmp(a->source, b->source) && !(a->readonly && b->readonly) &&
                    !(a->shareable && b->shareable))
                    return verr_set(e, VIR_RESOURCE_BUSY, "disk '%s': image '%s' is in use by domain '%s'", a->target,
                                    a->source, o->name);
            }
        }
    }
    return 0;
}

int guest_restart(struct guest *g)
{
    struct rpc_error e = {0};
    g->reboot = g->start_paused = g->adopted = false;
    g->restarting = true;
    g->balloon = g->live->current_memory ? g->live->current_memory : g->live->memory;
    domain_forget_ptys(g->live);
    guest_set_state(g, GUEST_RUNNING, RUNNING_BOOTED);
    if (launch(g, &e) == 0)
        return 0;
    guest_log(g, "cannot start it again: %s", e.message);
    return -1;
}

int guest_start(struct guest *g, struct domain *live, unsigned flags, guest_done *done, void *opaque,
                struct rpc_error *e)
{
    struct guests *t = g->guests;
    struct err err = {0};
    if (guest_active(g)) {
        domain_free(live);
        domain_set(&g->incoming, NULL);
        return verr_set(e, VIR_OPERATION_INVALID, "domain is already running");
    }
    if (!live && !(live = guest_config(g, true, e)))
        return -1;
    if (domain_check(live, NULL, &err) < 0 && !(live->n_interfaces && t->owner.prepare)) {
        domain_free(live);
        return verr_take(e, VIR_CONFIG_UNSUPPORTED, &err);
    }
    int r = check_disks(g, live, e);
    if (!r && t->owner.prepare)
        r = t->owner.prepare(t->owner.opaque, g, live, e);
    struct err still = {0};
    if (!r && err.code && domain_check(live, NULL, &still) < 0) {
        r = verr_take(e, VIR_CONFIG_UNSUPPORTED, &still);
        g->live = live; /* takes back what was prepared */
        t->owner.ended(t->owner.opaque, g);
        g->live = NULL;
    }
    if (r < 0) {
        domain_free(live);
        return -1;
    }
    g->live = live;
    domain_live(live, t->last_id + 1);
    guests_set_id(g, ++t->last_id);
    g->start_paused = flags & START_PAUSED;
    g->stop_reason = 0;
    g->panicked = g->adopted = g->child = g->reboot = g->restarting = false;
    g->pid_start = 0;
    g->pid = 0;
    g->started_ns = clock_host_ns();
    g->balloon = live->current_memory ? live->current_memory : live->memory;
    guest_set_state(g, GUEST_PAUSED, PAUSED_STARTING_UP);
    if (launch(g, e) < 0) {
        run_remove(g);
        fd_closep(&g->status_fd);
        fd_closep(&g->pidfd);
        g->status_fd = g->pidfd = -1;
        t->owner.ended(t->owner.opaque, g);
        guests_set_id(g, -1);
        guest_set_state(g, GUEST_SHUTOFF, SHUTOFF_FAILED);
        domain_free(g->live);
        g->live = NULL;
        return -1;
    }
    if (done)
        guest_wait_add(&g->starters, done, opaque);
    return 0;
}

int guest_adopt(struct guest *g)
{
    g->child = false;
    if (process_start_time(g->pid) != g->pid_start || watch_process(g) < 0)
        return -1;
    if (process_start_time(g->pid) != g->pid_start) /* it ended in between, and the number came again */
        return -1;
    g->started_ns = clock_host_ns();
    g->balloon = g->live->current_memory;
    guest_set_state(g, GUEST_RUNNING, RUNNING_UNKNOWN);
    guest_monitor_connect(g);
    return 0;
}
