/* How a guest's process ends, and what everybody is told then. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "daemon/guest.h"
#include "daemon/qmp.h"

void guest_wait_add(struct guest_waiter **list, guest_done *done, void *opaque)
{
    struct guest_waiter *w = xcalloc(1, sizeof *w);
    w->done = done;
    w->opaque = opaque;
    while (*list)
        list = &(*list)->next;
    *list = w;
}

void guest_wait_tell(struct guest_waiter **list, const struct rpc_error *e)
{
    struct guest_waiter *all = *list;
    *list = NULL;
    while (all) {
        struct guest_waiter *w = all;
        all = w->next;
        if (w->done)
            w->done(w->opaque, e);
        free(w);
    }
}

void guest_forget(struct guest *g, const void *opaque)
{
    for (struct guest_waiter *w = g->starters; w; w = w->next)
        if (w->opaque == opaque)
            w->done = NULL;
    for (struct guest_waiter *w = g->enders; w; w = w->next)
        if (w->opaque == opaque)
            w->done = NULL;
    qmp_forget(g->qmp, opaque);
}

int guest_destroy(struct guest *g, bool graceful, int reason, guest_done *done, void *opaque, struct rpc_error *e)
{
    if (!guest_active(g))
        return verr_set(e, VIR_OPERATION_INVALID, "domain is not running");
    if (pidfd_send_signal(g->pidfd, graceful ? SIGTERM : SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return verr_errno(e, errno, "cannot end process %d of domain '%s'", (int)g->pid, g->name);
    g->stop_reason = reason;
    if (done)
        guest_wait_add(&g->enders, done, opaque);
    return 0;
}

/* What lodge-vm has written about its end: its first word, as in QMP's SHUTDOWN event. */
static int read_end(const struct guest *g, char *word, size_t size)
{
    autofree char *path = run_path(g, "end");
    autofree char *text = store_read_file(path, NULL);
    if (!text || !*text)
        return -1;
    snprintf(word, size, "%.*s", (int)strcspn(text, " \n"), text);
    return 0;
}

struct end {
    int reason; /* SHUTOFF_* */
    int detail; /* of EVENT_STOPPED */
    const char *word;
};

static struct end how(const struct guest *g, int wait_status, char *why, size_t size)
{
    static const struct end known[] = {
        {SHUTOFF_SHUTDOWN, 0, "guest-shutdown"}, {SHUTOFF_SHUTDOWN, 0, "guest-reset"},
        {SHUTOFF_CRASHED, 2, "guest-panic"},     {SHUTOFF_CRASHED, 2, "triple-fault"},
        {SHUTOFF_FAILED, 5, "host-error"},       {SHUTOFF_SHUTDOWN, 0, "host-signal"},
        {SHUTOFF_DESTROYED, 1, "host-qmp-quit"}, {SHUTOFF_SHUTDOWN, 0, "host-ui"},
    };
    char word[40];
    if (g->stop_reason == SHUTOFF_SAVED) {
        snprintf(why, size, "saved");
        return (struct end){SHUTOFF_SAVED, 4, "saved"};
    }
    if (g->stop_reason) {
        snprintf(why, size, "destroyed");
        return (struct end){g->stop_reason, g->stop_reason == SHUTOFF_FAILED ? 5 : 1, "destroyed"};
    }
    if (read_end(g, word, sizeof word) == 0) {
        snprintf(why, size, "%s", word);
        for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
            if (!strcmp(word, known[i].word))
                return known[i];
    }
    if (wait_status >= 0 && WIFSIGNALED(wait_status))
        snprintf(why, size, "killed by signal %d (%s)", WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    else if (wait_status >= 0)
        snprintf(why, size, "exit status %d", WEXITSTATUS(wait_status));
    else
        snprintf(why, size, "gone without a word");
    return (struct end){SHUTOFF_CRASHED, 2, "crashed"};
}

static void drop_process(struct guest *g)
{
    loop_del_fd(g->pid_watch);
    loop_del_fd(g->status_watch);
    g->pid_watch = g->status_watch = NULL;
    fd_closep(&g->pidfd);
    fd_closep(&g->status_fd);
    g->pidfd = g->status_fd = -1;
    qmp_free(g->qmp);
    g->qmp = NULL;
    free(g->tids);
    g->tids = NULL;
    g->n_tids = 0;
}

void guest_ended(struct guest *g, int wait_status)
{
    struct guests *t = g->guests;
    char why[100] = "";
    bool starting = g->state == GUEST_PAUSED && g->reason == PAUSED_STARTING_UP;
    struct end end = how(g, wait_status, why, sizeof why);
    struct rpc_error e = {.domain = VIR_FROM_QEMU};
    if (starting && !g->stop_reason) {
        autofree char *tail = guest_log_tail(g, 0);
        /* The last line is what lodge-vm said. */
        char *line = strrchr(tail, '\n') ? strrchr(tail, '\n') + 1 : tail;
        verr_set(&e, VIR_INTERNAL_ERROR, "the guest's process ended while starting: %s", *line ? line : why);
        end = (struct end){SHUTOFF_FAILED, 5, "failed"};
    }
    guest_log(g, "shutting down, reason=%s (%s)", end.word, why);
    drop_process(g);
    bool reboot = g->reboot && end.reason == SHUTOFF_SHUTDOWN && !starting;
    if (reboot && guest_restart(g) == 0)
        return;
    run_remove(g);
    guest_set_state(g, GUEST_SHUTOFF, end.reason);
    t->owner.ended(t->owner.opaque, g);
    bool restart = end.reason == SHUTOFF_SHUTDOWN && !g->stop_reason && g->live &&
                   g->live->on_poweroff == DOMAIN_ACTION_RESTART && guest_persistent(g);
    guests_set_id(g, -1);
    domain_free(g->live);
    g->live = NULL;
    g->autodestroy = NULL;
    g->job_ns = 0;
    domain_set(&g->incoming, NULL);
    struct guest_waiter *starters = g->starters, *enders = g->enders;
    g->starters = g->enders = NULL;
    if (!starting)
        t->owner.lifecycle(t->owner.opaque, g, EVENT_STOPPED, end.detail);
    if (!guest_persistent(g))
        guests_remove(g);
    else if (restart)
        guest_start(g, NULL, 0, NULL, NULL, &(struct rpc_error){0});
    if (starting && !e.code)
        verr_set(&e, VIR_OPERATION_FAILED, "domain was destroyed while it was starting");
    guest_wait_tell(&starters, starting ? &e : NULL);
    guest_wait_tell(&enders, NULL);
}
