/*
 * Who may connect. The sockets' owner, group and mode decide who reaches us at all; root and the daemon's own user need
 * nothing more. With polkit, others are asked about by its own program, which runs beside us.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "daemon/daemon.h"

enum { WAY_NONE = 0, WAY_POLKIT = 2 }; /* libvirt's numbers */

int auth_list(struct daemon *d, struct rpc_call *call)
{
    RET(rp_auth_types);
    uid_t uid = rpc_client_uid(call->client);
    bool trusted =
        uid == 0 || uid == geteuid() || d->config.auth == DAEMON_AUTH_NONE || rpc_client_authenticated(call->client);
    ret->types.types_val = xcalloc(1, sizeof(int));
    ret->types.types_len = 1;
    ret->types.types_val[0] = trusted ? WAY_NONE : WAY_POLKIT;
    if (trusted)
        rpc_client_set_authenticated(call->client);
    return RPC_DONE;
}

struct check {
    struct daemon *d;
    struct rpc_call *call;
    int pidfd;
    struct loop_fd *watch;
};

static void on_checked(void *opaque, uint32_t events)
{
    struct check *k = opaque;
    siginfo_t si = {0};
    if (waitid(P_PIDFD, k->pidfd, &si, WEXITED | WNOHANG) == 0 && !si.si_pid)
        return;
    loop_del_fd(k->watch);
    close(k->pidfd);
    if (si.si_code == CLD_EXITED && si.si_status == 0) {
        if (k->call->client)
            rpc_client_set_authenticated(k->call->client);
    } else {
        verr_set(&k->call->error, VIR_AUTH_FAILED, "access denied by policy");
    }
    rpc_call_finish(k->call);
    free(k);
}

int auth_polkit(struct daemon *d, struct rpc_call *call)
{
    extern char **environ;
    call->error.domain = VIR_FROM_AUTH;
    if (rpc_client_authenticated(call->client))
        return RPC_DONE;
    if (d->config.auth != DAEMON_AUTH_POLKIT)
        return verr_set(&call->error, VIR_AUTH_FAILED, "polkit is not asked here");
    uint64_t start = process_start_time(rpc_client_pid(call->client));
    autofree char *who = xasprintf("%d,%llu,%u", (int)rpc_client_pid(call->client), (unsigned long long)start,
                                   (unsigned)rpc_client_uid(call->client));
    const char *action = rpc_client_readonly(call->client) ? "org.libvirt.unix.monitor" : "org.libvirt.unix.manage";
    char *args[] = {"pkcheck", "--action-id", (char *)action, "--process", who, "--allow-user-interaction", NULL};
    posix_spawnattr_t attr;
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    pid_t pid;
    int r = posix_spawnp(&pid, "pkcheck", NULL, &attr, args, environ);
    posix_spawnattr_destroy(&attr);
    if (r)
        return verr_set(&call->error, VIR_AUTH_FAILED, "cannot run pkcheck: %s", strerror(r));
    struct check *k = xcalloc(1, sizeof *k);
    *k = (struct check){.d = d, .call = call, .pidfd = pidfd_open(pid, 0)};
    if (k->pidfd < 0) {
        free(k);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return verr_set(&call->error, VIR_AUTH_FAILED, "cannot wait for pkcheck");
    }
    fcntl(k->pidfd, F_SETFD, FD_CLOEXEC);
    k->watch = loop_add_fd(d->loop, k->pidfd, EPOLLIN, on_checked, k);
    return RPC_LATER;
}
