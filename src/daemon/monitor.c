/* What a running guest's monitor is asked, and what its events change here. */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/guest.h"
#include "daemon/qmp.h"

static void tell(struct guest *g, enum guest_event event, int detail)
{
    g->guests->owner.lifecycle(g->guests->owner.opaque, g, event, detail);
}

static void now_paused(struct guest *g, int reason)
{
    if (g->state == GUEST_PAUSED)
        return;
    guest_set_state(g, GUEST_PAUSED, reason);
    tell(g, EVENT_SUSPENDED, 0);
}

static void now_running(struct guest *g)
{
    if (g->state == GUEST_RUNNING)
        return;
    guest_set_state(g, GUEST_RUNNING, RUNNING_UNPAUSED);
    tell(g, EVENT_RESUMED, 0);
}

static void on_event(void *opaque, const char *name, const json_t *data)
{
    struct guest *g = opaque;
    if (!strcmp(name, "STOP") && g->state == GUEST_RUNNING) {
        now_paused(g, PAUSED_USER);
    } else if (!strcmp(name, "RESUME") && g->state == GUEST_PAUSED) {
        now_running(g);
    } else if (!strcmp(name, "SHUTDOWN")) {
        const char *reason = json_string_value(json_object_get(data, "reason"));
        if (g->stop_reason || !reason || !strcmp(reason, "host-error"))
            return;
        guest_set_state(g, GUEST_SHUTDOWN, 1);
        tell(g, EVENT_SHUTDOWN, json_is_true(json_object_get(data, "guest")) ? 1 : 2);
    } else if (!strcmp(name, "GUEST_PANICKED")) {
        g->panicked = true;
        guest_log(g, "guest panicked");
        guest_set_state(g, GUEST_CRASHED, 1);
        tell(g, EVENT_CRASHED, 0);
    } else if (!strcmp(name, "BALLOON_CHANGE")) {
        const json_t *actual = json_object_get(data, "actual");
        if (json_is_integer(actual))
            g->balloon = json_integer_value(actual);
    } else if (!strcmp(name, "RESET")) {
        guest_log(g, "reset%s", json_is_true(json_object_get(data, "guest")) ? " by the guest" : "");
    }
    g->guests->owner.monitor(g->guests->owner.opaque, g, name, data);
}

static void on_closed(void *opaque)
{
    struct guest *g = opaque;
    qmp_free(g->qmp); /* the process is ending, and its pidfd says when */
    g->qmp = NULL;
}

static void on_status(void *opaque, json_t *ret, const char *error)
{
    struct guest *g = opaque;
    const char *status = json_string_value(json_object_get(ret, "status"));
    if (!status)
        return;
    if (!strcmp(status, "running"))
        guest_set_state(g, GUEST_RUNNING, RUNNING_UNKNOWN);
    else if (!strcmp(status, "paused") || !strcmp(status, "prelaunch"))
        guest_set_state(g, GUEST_PAUSED, PAUSED_UNKNOWN);
    else if (!strcmp(status, "guest-panicked"))
        guest_set_state(g, GUEST_CRASHED, 1);
    else if (!strcmp(status, "shutdown"))
        guest_set_state(g, GUEST_SHUTDOWN, 1);
}

static void on_cpus(void *opaque, json_t *ret, const char *error)
{
    struct guest *g = opaque;
    size_t n = json_array_size(ret);
    if (!n || n > 1024)
        return;
    free(g->tids);
    g->tids = xcalloc(n, sizeof *g->tids);
    for (g->n_tids = 0; g->n_tids < n; g->n_tids++)
        g->tids[g->n_tids] = json_integer_value(json_object_get(json_array_get(ret, g->n_tids), "thread-id"));
}

void guest_monitor_connect(struct guest *g)
{
    static const struct qmp_owner events = {NULL, on_event, on_closed};
    struct qmp_owner owner = events;
    struct err err = {0};
    autofree char *path = run_path(g, "monitor");
    owner.opaque = g;
    if (qmp_open(g->guests->loop, path, &owner, &g->qmp, &err) < 0) {
        log_error("domain '%s': monitor: %s", g->name, err.msg);
        g->qmp = NULL;
        return;
    }
    qmp_call(g->qmp, "query-cpus-fast", NULL, on_cpus, g);
    if (g->adopted)
        qmp_call(g->qmp, "query-status", NULL, on_status, g);
}

/* A pending command of a client. */
struct ask {
    struct guest *g;
    guest_done *done;
    void *opaque;
    enum { ASK_PLAIN, ASK_STOP, ASK_CONT } kind;
};

static void on_answer(void *opaque, json_t *ret, const char *error)
{
    struct ask *a = opaque;
    struct rpc_error e = {.domain = VIR_FROM_QEMU};
    if (!ret)
        verr_set(&e, VIR_OPERATION_FAILED, "%s", error);
    else if (a->kind == ASK_STOP)
        now_paused(a->g, PAUSED_USER);
    else if (a->kind == ASK_CONT)
        now_running(a->g);
    if (a->done)
        a->done(a->opaque, ret ? NULL : &e);
    free(a);
}

static int ask(struct guest *g, const char *command, json_t *args, int kind, guest_done *done, void *opaque,
               struct rpc_error *e)
{
    if (!guest_active(g)) {
        json_decref(args);
        return verr_set(e, VIR_OPERATION_INVALID, "domain is not running");
    }
    if (!g->qmp) {
        json_decref(args);
        return verr_set(e, VIR_OPERATION_FAILED, "the monitor of domain '%s' does not answer", g->name);
    }
    struct ask *a = xcalloc(1, sizeof *a);
    *a = (struct ask){g, done, opaque, kind};
    qmp_call(g->qmp, command, args, on_answer, a);
    return 0;
}

int guest_command(struct guest *g, const char *command, void *args, guest_done *done, void *opaque, struct rpc_error *e)
{
    return ask(g, command, args, ASK_PLAIN, done, opaque, e);
}

int guest_suspend(struct guest *g, guest_done *done, void *opaque, struct rpc_error *e)
{
    return ask(g, "stop", NULL, ASK_STOP, done, opaque, e);
}

int guest_resume(struct guest *g, guest_done *done, void *opaque, struct rpc_error *e)
{
    return ask(g, "cont", NULL, ASK_CONT, done, opaque, e);
}
