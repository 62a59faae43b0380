/* Waiting for events: event, net-event, pool-event. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/dom.h"

#define WORD(words, i) ((unsigned)(i) < sizeof(words) / sizeof(words[0]) ? words[i] : "unknown")

struct wait {
    struct vsh *v;
    bool loop, timestamp;
    int count;
};

/* A line's beginning: the time, when wanted. */
static void begin(const struct wait *w)
{
    struct timespec t;
    struct tm tm;
    char text[64];
    clock_gettime(CLOCK_REALTIME, &t);
    if (w->timestamp && gmtime_r(&t.tv_sec, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
        printf("%s.%03ld+0000: ", text, t.tv_nsec / 1000000);
}

static const char *lifecycle_detail(int event, int detail)
{
    static const char *const words[][9] = {
        {"Added", "Updated", "Renamed", "Snapshot"},
        {"Removed", "Renamed"},
        {"Booted", "Migrated", "Restored", "Snapshot", "Event wakeup"},
        {"Paused", "Migrated", "I/O Error", "Watchdog", "Restored", "Snapshot", "API error", "Post-copy",
         "Post-copy Error"},
        {"Unpaused", "Migrated", "Snapshot", "Post-copy", "Post-copy Error"},
        {"Shutdown", "Destroyed", "Crashed", "Migrated", "Saved", "Failed", "Snapshot"},
        {"Finished", "Finished after guest request", "Finished after host request"},
        {"Memory", "Disk"},
        {"Panicked", "Crashloaded"},
    };
    const char *s = event >= 0 && event < 9 && detail >= 0 && detail < 9 ? words[event][detail] : NULL;
    return s ? s : "unknown";
}

static const char *const lifecycle[] = {"Defined", "Undefined", "Started",     "Suspended", "Resumed",
                                        "Stopped", "Shutdown",  "PMSuspended", "Crashed"};

static void print_params(const char *name, const rp_ev_params *e)
{
    printf("event '%s' for domain '%s':\n", name, e->dom.name);
    for (unsigned i = 0; i < e->params.params_len; i++) {
        autofree char *value = rpc_param_text(&e->params.params_val[i]);
        printf("\t%s: %s\n", e->params.params_val[i].field, value);
    }
}

static void print_graphics(const rp_ev_graphics *e)
{
    static const char *const phases[] = {"connect", "initialize", "disconnect"};
    static const char *const families[] = {"IPv4", "IPv6", "unix"};
    printf("event 'graphics' for domain '%s': %s local[%s %s %s] remote[%s %s %s] %s\n", e->dom.name,
           WORD(phases, e->phase), WORD(families, e->local.family), e->local.node, e->local.service,
           WORD(families, e->remote.family), e->remote.node, e->remote.service, e->auth);
    for (unsigned i = 0; i < e->subject.subject_len; i++)
        printf("\t%s=%s\n", e->subject.subject_val[i].type, e->subject.subject_val[i].name);
}

/* The events by number, with the message in which each comes. */
static const struct {
    const char *name;
    int proc;
} domain_events[] = {
    {"lifecycle", RPC_PROC_DOMAIN_EVENT_CALLBACK_LIFECYCLE},
    {"reboot", RPC_PROC_DOMAIN_EVENT_CALLBACK_REBOOT},
    {"rtc-change", RPC_PROC_DOMAIN_EVENT_CALLBACK_RTC_CHANGE},
    {"watchdog", RPC_PROC_DOMAIN_EVENT_CALLBACK_WATCHDOG},
    {"io-error", RPC_PROC_DOMAIN_EVENT_CALLBACK_IO_ERROR},
    {"graphics", RPC_PROC_DOMAIN_EVENT_CALLBACK_GRAPHICS},
    {"io-error-reason", RPC_PROC_DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON},
    {"control-error", RPC_PROC_DOMAIN_EVENT_CALLBACK_CONTROL_ERROR},
    {"block-job", RPC_PROC_DOMAIN_EVENT_CALLBACK_BLOCK_JOB},
    {"disk-change", RPC_PROC_DOMAIN_EVENT_CALLBACK_DISK_CHANGE},
    {"tray-change", RPC_PROC_DOMAIN_EVENT_CALLBACK_TRAY_CHANGE},
    {"pm-wakeup", RPC_PROC_DOMAIN_EVENT_CALLBACK_PMWAKEUP},
    {"pm-suspend", RPC_PROC_DOMAIN_EVENT_CALLBACK_PMSUSPEND},
    {"balloon-change", RPC_PROC_DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE},
    {"pm-suspend-disk", RPC_PROC_DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK},
    {"device-removed", RPC_PROC_DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED},
    {"block-job-2", RPC_PROC_DOMAIN_EVENT_BLOCK_JOB_2},
    {"tunable", RPC_PROC_DOMAIN_EVENT_CALLBACK_TUNABLE},
    {"agent-lifecycle", RPC_PROC_DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE},
    {"device-added", RPC_PROC_DOMAIN_EVENT_CALLBACK_DEVICE_ADDED},
    {"migration-iteration", RPC_PROC_DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION},
    {"job-completed", RPC_PROC_DOMAIN_EVENT_CALLBACK_JOB_COMPLETED},
    {"device-removal-failed", RPC_PROC_DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED},
    {"metadata-change", RPC_PROC_DOMAIN_EVENT_CALLBACK_METADATA_CHANGE},
    {"block-threshold", RPC_PROC_DOMAIN_EVENT_BLOCK_THRESHOLD},
    {"memory-failure", RPC_PROC_DOMAIN_EVENT_MEMORY_FAILURE},
    {"memory-device-size-change", RPC_PROC_DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE},
};
#define N_EVENTS (sizeof(domain_events) / sizeof(domain_events[0]))

/* The event with a text after the domain's name, or with none. */
static void print_domain(const char *name, int number, void *msg)
{
    static const char *const watchdog[] = {"none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi"};
    static const char *const io[] = {"none", "pause", "report"};
    static const char *const jobs[] = {"Unknown job",  "Block Pull",          "Block Copy",
                                       "Block Commit", "Active Block Commit", "Backup"};
    static const char *const done[] = {"completed", "failed", "canceled", "ready"};
    static const char *const change[] = {"changed", "dropped"};
    static const char *const tray[] = {"opened", "closed"};
    static const char *const agent[] = {"unknown", "connected", "disconnected"};
    static const char *const agent_reason[] = {"unknown", "domain started", "channel event"};
    static const char *const metadata[] = {"description", "title", "element"};
    static const char *const recipient[] = {"hypervisor", "guest"};
    static const char *const failure[] = {"ignore", "inject", "fatal", "reset"};
    const rp_domain *dom =
        number == 11 || number == 12 || number == 14 ? &((rp_ev_reason_dom *)msg)->dom : &((rp_ev_dom *)msg)->dom;
    if (number == 17 || number == 21) {
        print_params(name, msg);
        return;
    }
    if (number == 5) {
        print_graphics(msg);
        return;
    }
    printf("event '%s' for domain '%s'", name, dom->name);
    switch (number) {
    case 0: {
        const rp_ev_dom_int_int *e = msg;
        printf(": %s %s", WORD(lifecycle, e->value), lifecycle_detail(e->value, e->detail));
        break;
    }
    case 2:
        printf(": %lld", (long long)((rp_ev_dom_hyper *)msg)->value);
        break;
    case 3:
        printf(": %s", WORD(watchdog, ((rp_ev_dom_int *)msg)->value));
        break;
    case 4: {
        const rp_ev_io_error *e = msg;
        printf(": %s (%s) %s", e->path, e->alias, WORD(io, e->action));
        break;
    }
    case 6: {
        const rp_ev_io_error_reason *e = msg;
        printf(": %s (%s) %s due to %s", e->path, e->alias, WORD(io, e->action), e->reason);
        break;
    }
    case 8:
    case 16: {
        const rp_ev_dom_str_int_int *e = msg;
        printf(": %s for %s %s", WORD(jobs, e->type), e->text, WORD(done, e->status));
        break;
    }
    case 9: {
        const rp_ev_disk_change *e = msg;
        printf(" disk %s: %s -> %s: %s", e->alias, e->old_path ? *e->old_path : "", e->new_path ? *e->new_path : "",
               WORD(change, e->reason));
        break;
    }
    case 10: {
        const rp_ev_dom_str_int *e = msg;
        printf(" disk %s: %s", e->text, WORD(tray, e->value));
        break;
    }
    case 13:
        printf(": %lluKiB", (unsigned long long)((rp_ev_dom_uhyper *)msg)->value);
        break;
    case 15:
    case 19:
    case 22:
        printf(": %s", ((rp_ev_dom_str *)msg)->text);
        break;
    case 18: {
        const rp_ev_dom_int_int *e = msg;
        printf(": state: '%s' reason: '%s'", WORD(agent, e->value), WORD(agent_reason, e->detail));
        break;
    }
    case 20:
        printf(": iteration: '%d'", ((rp_ev_dom_int *)msg)->value);
        break;
    case 23: {
        const rp_ev_metadata *e = msg;
        printf(": type %s, uri %s", WORD(metadata, e->type), e->uri ? *e->uri : "<null>");
        break;
    }
    case 24: {
        const rp_ev_threshold *e = msg;
        printf(": dev: %s(%s) %llu %llu", e->dev, e->path ? *e->path : "", (unsigned long long)e->threshold,
               (unsigned long long)e->excess);
        break;
    }
    case 25: {
        const rp_ev_memory_failure *e = msg;
        printf(":\nrecipient: %s\naction: %s\nflags:\n\taction required: %d\n\trecursive: %d",
               WORD(recipient, e->recipient), WORD(failure, e->action), e->flags & 1, e->flags >> 1 & 1);
        break;
    }
    case 26: {
        const rp_ev_dom_str_uhyper *e = msg;
        printf(":\nalias: %s\nsize: %llu", e->text, (unsigned long long)e->value);
        break;
    }
    default:
        break;
    }
    putchar('\n');
}

static void on_event(void *opaque, const struct rpc_proc *proc, void *msg)
{
    static const char *const net[] = {"Defined", "Undefined", "Started", "Stopped"};
    static const char *const pool[] = {"Defined", "Undefined", "Started", "Stopped", "Created", "Deleted"};
    struct wait *w = opaque;
    if (!w->loop && w->count)
        return;
    begin(w);
    if (proc->number == RPC_PROC_NETWORK_EVENT_LIFECYCLE) {
        const rp_ev_network *e = msg;
        printf("event 'lifecycle' for network %s: %s\n", e->net.name, WORD(net, e->event));
    } else if (proc->number == RPC_PROC_STORAGE_POOL_EVENT_LIFECYCLE) {
        const rp_ev_pool *e = msg;
        printf("event 'lifecycle' for storage pool %s: %s\n", e->pool.name, WORD(pool, e->event));
    } else if (proc->number == RPC_PROC_STORAGE_POOL_EVENT_REFRESH) {
        printf("event 'refresh' for storage pool %s\n", ((rp_ev_pool_refresh *)msg)->pool.name);
    } else {
        unsigned i = 0;
        while (i < N_EVENTS && domain_events[i].proc != proc->number)
            i++;
        if (i == N_EVENTS)
            return;
        print_domain(domain_events[i].name, i, msg);
    }
    fflush(stdout);
    w->count++;
}

/* Waits for one event (or with --loop for all) until the time is over or Ctrl-C. */
static bool wait_events(struct vsh *v, struct wait *w, unsigned seconds)
{
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, &old);
    autofd int sig = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t end = (t.tv_sec + seconds) * 1000ll + t.tv_nsec / 1000000;
    bool ok = true;
    while (ok && (w->loop || !w->count)) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        int64_t left = end - (t.tv_sec * 1000ll + t.tv_nsec / 1000000);
        if (seconds && left <= 0) {
            puts("event loop timed out");
            break;
        }
        int most = seconds && left < 5000 ? (int)left : 5000;
        struct pollfd p[2] = {{client_fd(v->conn), POLLIN, 0}, {sig, POLLIN, 0}};
        if (poll(p, 2, most) < 0 && errno != EINTR)
            break;
        if (p[1].revents) {
            struct signalfd_siginfo info;
            if (read(sig, &info, sizeof(info)) > 0)
                puts("event loop interrupted");
            break;
        }
        ok = client_poll(v->conn, 0, &v->error) == 0;
    }
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("events received: %d\n", w->count);
    return ok && w->count;
}

static bool timeout_of(struct vsh *v, const struct vsh_args *a, unsigned *ret)
{
    *ret = 0;
    if (!vsh_uint(v, a, "timeout", ret))
        return false;
    if (vsh_has(a, "timeout") && (*ret == 0 || *ret > INT_MAX / 1000))
        return vsh_error(v, "Numeric value '%u' for <%s> option is malformed or out of range", *ret, "timeout");
    return true;
}

bool cmd_event(struct vsh *v, const struct vsh_args *a)
{
    const char *name = vsh_text(a, "event");
    bool all = vsh_has(a, "all");
    unsigned timeout;
    if (!vsh_exclusive(v, a, "all", "event") || !vsh_exclusive(v, a, "list", "all") ||
        !vsh_exclusive(v, a, "list", "event"))
        return false;
    if (vsh_has(a, "list")) {
        for (unsigned i = 0; i < N_EVENTS; i++)
            puts(domain_events[i].name);
        return true;
    }
    if (!name && !all)
        return vsh_error(v, "one of --list, --all, or --event <type> is required");
    unsigned from = 0, to = N_EVENTS;
    if (name) {
        while (from < N_EVENTS && strcmp(domain_events[from].name, name) != 0)
            from++;
        if (from == N_EVENTS)
            return vsh_error(v, "unknown event type %s", name);
        to = from + 1;
    }
    autodomain dom = {0};
    if (!timeout_of(v, a, &timeout) || (vsh_has(a, "domain") && !vsh_domain(v, a, &dom)))
        return false;
    struct wait w = {v, vsh_has(a, "loop"), vsh_has(a, "timestamp"), 0};
    client_on_event(v->conn, on_event, &w);
    rp_int ids[N_EVENTS];
    unsigned n = 0;
    bool ok = true;
    for (unsigned i = from; i < to && ok; i++) {
        const rp_reg_domain args = {i, vsh_has(a, "domain") ? &dom : NULL};
        if (vsh_call(v, RPC_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, &args, &ids[n]))
            n++;
        else
            ok = n > 0; /* older daemons do not know the newer ones */
    }
    if (ok) {
        vsh_error_reset(v);
        ok = wait_events(v, &w, timeout);
    }
    client_on_event(v->conn, NULL, NULL);
    struct rpc_error e;
    for (unsigned i = 0; i < n && !client_dead(v->conn); i++)
        client_call(v->conn, RPC_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, &ids[i], NULL, &e);
    return ok;
}

/* Registers one event by `reg`, waits, and takes it back by `dereg`. */
static bool wait_one(struct vsh *v, const struct vsh_args *a, int reg, const void *args, int dereg)
{
    unsigned timeout;
    rp_int id;
    if (!timeout_of(v, a, &timeout))
        return false;
    struct wait w = {v, vsh_has(a, "loop"), vsh_has(a, "timestamp"), 0};
    client_on_event(v->conn, on_event, &w);
    bool ok = vsh_call(v, reg, args, &id);
    if (ok) {
        struct rpc_error e;
        ok = wait_events(v, &w, timeout);
        if (!client_dead(v->conn))
            client_call(v->conn, dereg, &id, NULL, &e);
    }
    client_on_event(v->conn, NULL, NULL);
    return ok;
}

bool cmd_net_event(struct vsh *v, const struct vsh_args *a)
{
    const char *name = vsh_text(a, "event");
    if (vsh_has(a, "list")) {
        puts("lifecycle");
        return true;
    }
    if (!name)
        return vsh_error(v, "either --list or --event <type> is required");
    if (strcmp(name, "lifecycle") != 0)
        return vsh_error(v, "unknown event type %s", name);
    autonetwork net = {0};
    if (vsh_has(a, "network") && !vsh_network(v, a, &net))
        return false;
    const rp_reg_network args = {0, vsh_has(a, "network") ? &net : NULL};
    return wait_one(v, a, RPC_PROC_CONNECT_NETWORK_EVENT_REGISTER_ANY, &args,
                    RPC_PROC_CONNECT_NETWORK_EVENT_DEREGISTER_ANY);
}

bool cmd_pool_event(struct vsh *v, const struct vsh_args *a)
{
    const char *name = vsh_text(a, "event");
    if (vsh_has(a, "list")) {
        puts("lifecycle\nrefresh");
        return true;
    }
    if (!name)
        return vsh_error(v, "either --list or --event <type> is required");
    if (strcmp(name, "lifecycle") != 0 && strcmp(name, "refresh") != 0)
        return vsh_error(v, "unknown event type %s", name);
    autopool pool = {0};
    if (vsh_has(a, "pool") && !vsh_pool(v, a, "pool", &pool))
        return false;
    const rp_reg_pool args = {*name == 'r', vsh_has(a, "pool") ? &pool : NULL};
    return wait_one(v, a, RPC_PROC_CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY, &args,
                    RPC_PROC_CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY);
}
