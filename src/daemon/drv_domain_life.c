/* Domains: starting, stopping, pausing, resetting. */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "daemon/daemon.h"

enum { CREATE_PAUSED = 1, CREATE_AUTODESTROY = 2, CREATE_FORCE_BOOT = 8 };

/* A started guest's connection, for autodestroy, and the answer. */
static void on_created(void *opaque, const struct rpc_error *e)
{
    struct rpc_call *call = opaque;
    if (!e && call->proc->ret_size == sizeof(rp_domain)) {
        rp_domain *ret = call->ret;
        struct guest *g = call->data;
        free(ret->name);
        put_domain(ret, g);
    }
    call_done(call, e);
}

int domain_start(struct rpc_call *call, struct guest *g, struct domain *live, unsigned flags)
{
    call->data = g;
    if (guest_start(g, live, flags & CREATE_PAUSED ? START_PAUSED : 0, on_created, call, &call->error) < 0) {
        if (!guest_active(g))
            domain_set(&g->incoming, NULL);
        if (!guest_persistent(g) && !guest_active(g))
            guests_remove(g);
        return RPC_FAILED;
    }
    if (flags & CREATE_AUTODESTROY)
        g->autodestroy = call->client;
    return RPC_LATER;
}

/* From the definition; or from a managed save, if there is one and it is not to be forgotten. */
static int start_defined(struct rpc_call *call, struct guest *g, unsigned flags)
{
    struct domain *live = NULL;
    bool running;
    if (guest_active(g) || !guest_has_managed_save(g))
        return domain_start(call, g, NULL, flags);
    if (flags & CREATE_FORCE_BOOT)
        return guest_remove_managed_save(g, &call->error) < 0 ? RPC_FAILED : domain_start(call, g, NULL, flags);
    autofree char *path = guest_managed_save_path(g);
    autofree char *xml = save_read_xml(path, &running, &call->error);
    if (!xml || !(live = define_parse(g->guests, xml, &call->error)))
        return RPC_FAILED;
    domain_set(&g->incoming, path);
    return domain_start(call, g, live, flags | (running ? 0 : CREATE_PAUSED));
}

static int create(struct daemon *d, struct rpc_call *call)
{
    struct guest *g = call_guest(d, call, call->args);
    return g ? start_defined(call, g, 0) : RPC_FAILED;
}

static int create_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 63) < 0)
        return RPC_FAILED;
    return start_defined(call, g, a->flags);
}

static int create_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    struct domain *live = NULL;
    if (call_flags(call, a->flags, 63) < 0)
        return RPC_FAILED;
    struct guest *g = define_transient(&d->guests, a->text, &live, &call->error);
    return g ? domain_start(call, g, live, a->flags) : RPC_FAILED;
}

static int destroy(struct daemon *d, struct rpc_call *call)
{
    struct guest *g = call_guest(d, call, call->args);
    if (!g || guest_destroy(g, false, SHUTOFF_DESTROYED, call_done, call, &call->error) < 0)
        return RPC_FAILED;
    return RPC_LATER;
}

static int destroy_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 3) < 0 ||
        guest_destroy(g, a->flags & 1, SHUTOFF_DESTROYED, call_done, call, &call->error) < 0)
        return RPC_FAILED;
    return RPC_LATER;
}

static int suspend(struct daemon *d, struct rpc_call *call)
{
    struct guest *g = call_active(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    if (g->state == GUEST_PAUSED)
        return RPC_DONE;
    if (g->state != GUEST_RUNNING)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "domain is not running");
    return guest_suspend(g, call_done, call, &call->error) < 0 ? RPC_FAILED : RPC_LATER;
}

static int resume(struct daemon *d, struct rpc_call *call)
{
    struct guest *g = call_active(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    if (g->state == GUEST_RUNNING)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "domain is already running");
    if (g->state != GUEST_PAUSED)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "domain is not paused");
    return guest_resume(g, call_done, call, &call->error) < 0 ? RPC_FAILED : RPC_LATER;
}

/* libvirt's virDomainShutdownFlagValues and virDomainRebootFlagValues: 1 ACPI, 2 agent, 4 initctl, 8 signal, 16
 * paravirt. */
static int power_button(struct rpc_call *call, struct guest *g, unsigned flags, bool reboot)
{
    if (!g || call_flags(call, flags, 31) < 0)
        return RPC_FAILED;
    if (flags && !(flags & 1)) {
        if (flags & 2)
            return verr_set(&call->error, VIR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured");
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED, "guests are shut down by ACPI only");
    }
    if (g->state != GUEST_RUNNING)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "domain is not running");
    g->reboot = reboot;
    return guest_command(g, "system_powerdown", NULL, call_done, call, &call->error) < 0 ? RPC_FAILED : RPC_LATER;
}

static int shut_down(struct daemon *d, struct rpc_call *call)
{
    return power_button(call, call_active(d, call, call->args), 0, false);
}

static int shut_down_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    return power_button(call, call_active(d, call, &a->dom), a->flags, false);
}

static int reboot(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    return power_button(call, call_active(d, call, &a->dom), a->flags, true);
}

static int reset(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    struct guest *g = call_active(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    return guest_command(g, "system_reset", NULL, call_done, call, &call->error) < 0 ? RPC_FAILED : RPC_LATER;
}

const struct driver driver_domain_life = {
    .name = "domain life",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_CREATE, create},
            {RPC_PROC_DOMAIN_CREATE_WITH_FLAGS, create_flags},
            {RPC_PROC_DOMAIN_CREATE_XML, create_xml},
            {RPC_PROC_DOMAIN_DESTROY, destroy},
            {RPC_PROC_DOMAIN_DESTROY_FLAGS, destroy_flags},
            {RPC_PROC_DOMAIN_SUSPEND, suspend},
            {RPC_PROC_DOMAIN_RESUME, resume},
            {RPC_PROC_DOMAIN_SHUTDOWN, shut_down},
            {RPC_PROC_DOMAIN_SHUTDOWN_FLAGS, shut_down_flags},
            {RPC_PROC_DOMAIN_REBOOT, reboot},
            {RPC_PROC_DOMAIN_RESET, reset},
            {0},
        },
};
