/* Putting the daemon together, and taking it apart. Guests are not touched by either. */
#include "daemon/daemon.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sock.h"
#include "daemon/net.h"
#include "daemon/work.h"

/* mkdir -p. */
static int make_dirs(const char *path, mode_t mode, struct err *err)
{
    autofree char *copy = xstrdup(path);
    for (char *p = copy + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char c = *p;
        *p = 0;
        if (mkdir(copy, c ? 0755 : mode) < 0 && errno != EEXIST)
            return err_errno(err, -errno, "%s", copy);
        *p = c;
        if (!c)
            return 0;
    }
}

static char *find_lodge_vm(const struct daemon_config *c)
{
    static const char *const places[] = {"lodge-vm", "../libexec/lodge/lodge-vm", "../bin/lodge-vm"};
    char self[PATH_MAX];
    if (c->lodge_vm)
        return xstrdup(c->lodge_vm);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    if (strrchr(self, '/'))
        *(strrchr(self, '/') + 1) = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        autofree char *path = xasprintf("%s%s", self, places[i]);
        char *real = access(path, X_OK) == 0 ? realpath(path, NULL) : NULL;
        if (real)
            return real;
    }
    return xstrdup("/usr/bin/lodge-vm");
}

static void on_minute(void *opaque)
{
    struct daemon *d = opaque;
    uint64_t now = clock_host_ns();
    guest_logs_check(&d->guests);
    if (rpc_server_clients(d->server) || d->guests.n_active)
        d->idle_since = now;
    else if (d->config.idle_timeout && now - d->idle_since >= d->config.idle_timeout * NSEC_PER_SEC)
        loop_quit(d->loop);
    timer_arm(&d->minute, clock_now(&d->clock) + 20 * NSEC_PER_SEC);
}

static void on_client_closed(void *opaque, struct rpc_client *client)
{
    session_closed(opaque, client);
}

static void on_guest_ended(void *opaque, struct guest *g)
{
    console_ended(g);
    net_guest_ended(opaque, g);
}

static int prepare(void *opaque, struct guest *g, struct domain *live, struct rpc_error *e)
{
    return net_guest_prepare(opaque, g, live, e);
}

static int listen_at(struct daemon *d, const char *path, unsigned mode, bool readonly, struct err *err)
{
    int fd = sock_unix_listen(path, err);
    if (fd < 0)
        return fd;
    listen(fd, 128);
    if (d->config.group && !d->config.session) {
        struct group *gr = getgrnam(d->config.group);
        if (!gr || chown(path, -1, gr->gr_gid) < 0) {
            close(fd);
            return err_set(err, -EINVAL, "socket_group: cannot give %s to group '%s'", path, d->config.group);
        }
    }
    if (chmod(path, mode) < 0) {
        close(fd);
        return err_errno(err, -errno, "%s", path);
    }
    d->sockets[d->n_sockets++] = fd;
    rpc_server_listen(d->server, fd, readonly);
    return 0;
}

static int listen_all(struct daemon *d, const int *fds, unsigned n_fds, struct err *err)
{
    if (n_fds) { /* the first is the full one; which is read-only is said by its name */
        for (unsigned i = 0; i < n_fds && i < DAEMON_SOCKETS_MAX; i++) {
            struct sockaddr_un a = {0};
            socklen_t len = sizeof a - 1;
            bool readonly = getsockname(fds[i], (struct sockaddr *)&a, &len) == 0 && strlen(a.sun_path) > 3 &&
                            !strcmp(a.sun_path + strlen(a.sun_path) - 3, "-ro");
            rpc_server_listen(d->server, fds[i], readonly);
        }
        return 0;
    }
    d->own_sockets = true;
    int r = listen_at(d, d->config.socket, d->config.mode, false, err);
    return r < 0 ? r : listen_at(d, d->config.socket_ro, d->config.mode_ro, true, err);
}

static int make_all_dirs(struct daemon *d, struct err *err)
{
    struct daemon_config *c = &d->config;
    struct guests_dirs *g = &d->guests.dirs;
    g->config = xasprintf("%s/domains", c->config_dir);
    g->run = xasprintf("%s/vm", c->run_dir);
    g->log = xstrdup(c->log_dir);
    g->state = xasprintf("%s/save", c->state_dir);
    /* The run directory itself holds the sockets, which others may connect to; what is below it is ours alone. */
    int r = make_dirs(c->run_dir, c->session ? 0700 : 0755, err);
    const char *const dirs[] = {g->config, g->run, g->log, g->state};
    for (unsigned i = 0; i < ARRAY_SIZE(dirs) && !r; i++)
        r = make_dirs(dirs[i], 0700, err);
    return r;
}

int daemon_new(const struct daemon_config *config, const int *fds, unsigned n_fds, struct daemon **ret, struct err *err)
{
    struct daemon *d = xcalloc(1, sizeof *d);
    struct rpc_error e = {0};
    d->config = *config;
    /* Definitions come and go in any order: what is freed shall go back. */
    mallopt(M_TRIM_THRESHOLD, 256 * 1024);
    mallopt(M_ARENA_MAX, 1);
    clock_init(&d->clock, 0);
    clock_start(&d->clock);
    int r = loop_new(&d->loop, err);
    if (r < 0) {
        free(d);
        return r;
    }
    d->emulator = find_lodge_vm(config);
    d->guests.loop = d->loop;
    d->guests.clock = &d->clock;
    d->guests.lodge_vm = d->emulator;
    d->guests.emulator = d->emulator;
    d->guests.log_max = (size_t)config->log_max_kib * 1024;
    d->guests.log_keep = config->log_keep;
    d->guests.owner = (struct guests_owner){d, domain_event_lifecycle, domain_event_monitor, on_guest_ended, prepare};
    timer_init(&d->minute, d->loop, &d->clock, on_minute, d);
    dispatch_init(d);
    const struct rpc_limits limits = {config->max_clients, config->max_calls, config->keepalive_interval,
                                      config->keepalive_count};
    const struct rpc_server_owner owner = {d, dispatch_call, on_client_closed};
    if ((r = make_all_dirs(d, err)) == 0 && store_load(&d->guests, &e) < 0)
        r = err_set(err, -EIO, "%s", e.message);
    for (const struct driver *const *v = drivers; *v && !r; v++)
        if ((*v)->start)
            r = (*v)->start(d, err);
    if (!r) {
        run_adopt_all(&d->guests);
        nets_adopt(d);
        r = rpc_server_new(d->loop, &d->clock, &limits, &owner, &d->server, err);
    }
    if (!r)
        r = listen_all(d, fds, n_fds, err);
    if (r < 0) {
        daemon_free(d);
        return r;
    }
    d->idle_since = clock_host_ns();
    timer_arm(&d->minute, clock_now(&d->clock) + 20 * NSEC_PER_SEC);
    *ret = d;
    return 0;
}

void daemon_autostart(struct daemon *d)
{
    struct guest *g, *next;
    nets_autostart(d);
    HASH_ITER(by_name, d->guests.by_name, g, next)
    {
        struct rpc_error e = {0};
        if (g->autostart && !guest_active(g) && guest_start(g, NULL, 0, NULL, NULL, &e) < 0) {
            log_error("autostart of '%s': %s", g->name, e.message);
            guest_log(g, "autostart failed: %s", e.message);
        }
    }
}

void daemon_run(struct daemon *d)
{
    loop_run(d->loop);
}

void daemon_quit(struct daemon *d)
{
    loop_quit(d->loop);
}

/* Lets go of a running guest: it goes on without us. */
static void release(struct guest *g)
{
    loop_del_fd(g->pid_watch);
    loop_del_fd(g->status_watch);
    fd_closep(&g->pidfd);
    fd_closep(&g->status_fd);
    guest_wait_tell(&g->starters, NULL);
    guest_wait_tell(&g->enders, NULL);
}

void daemon_free(struct daemon *d)
{
    if (!d)
        return;
    timer_cancel(&d->minute);
    rpc_server_free(d->server);
    d->server = NULL;
    work_wait(d);
    for (unsigned i = 0; i < d->n_sockets; i++)
        close(d->sockets[i]);
    if (d->own_sockets && d->n_sockets > 0)
        unlink(d->config.socket);
    if (d->own_sockets && d->n_sockets > 1)
        unlink(d->config.socket_ro);
    for (const struct driver *const *v = drivers; *v; v++)
        if ((*v)->stop)
            (*v)->stop(d);
    struct guest *g, *next;
    HASH_ITER(by_name, d->guests.by_name, g, next)
    {
        release(g);
        guests_remove(g);
    }
    loop_poll(d->loop, 0);
    loop_free(d->loop);
    free(d->guests.dirs.config);
    free(d->guests.dirs.run);
    free(d->guests.dirs.log);
    free(d->guests.dirs.state);
    free(d->emulator);
    free(d->caps);
    dispatch_free(d);
    daemon_config_free(&d->config);
    free(d);
}
