/* The drivers, and the way from a procedure's number to its handler. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"

#define PROCEDURES_MAX 512

const struct driver *const drivers[] = {
    &driver_connect,
    &driver_domain,
    &driver_domain_life,
    &driver_domain_save,
    &driver_domain_config,
    &driver_domain_stats,
    &driver_domain_console,
    &driver_domain_monitor,
    &driver_qemu,
    &driver_node,
    &driver_pool,
    &driver_volume,
    &driver_network,
    &driver_net_address,
    &driver_none,
    &driver_domain_tune,
    NULL,
};

struct route {
    const struct handler *handler;
    const struct driver *driver;
};

struct routes {
    struct route remote[PROCEDURES_MAX], qemu[16];
};

void dispatch_init(struct daemon *d)
{
    d->routes = xcalloc(1, sizeof *d->routes);
    for (const struct driver *const *v = drivers; *v; v++) {
        for (const struct handler *h = (*v)->handlers; h->procedure; h++) {
            bool qemu = (*v)->program == RPC_QEMU_PROGRAM;
            struct route *r = qemu ? &d->routes->qemu[h->procedure] : &d->routes->remote[h->procedure];
            if (r->handler)
                abort(); /* two drivers serve one procedure */
            *r = (struct route){h, *v};
        }
    }
}

void dispatch_free(struct daemon *d)
{
    free(d->routes);
}

int dispatch_call(void *opaque, struct rpc_call *call)
{
    struct daemon *d = opaque;
    bool qemu = call->proc->program == RPC_QEMU_PROGRAM;
    unsigned n = call->proc->number, max = qemu ? ARRAY_SIZE(d->routes->qemu) : ARRAY_SIZE(d->routes->remote);
    const struct route *r = n >= max ? NULL : qemu ? &d->routes->qemu[n] : &d->routes->remote[n];
    if (!r || !r->handler)
        return rpc_error_set(&call->error, VIR_NO_SUPPORT, VIR_FROM_QEMU, "%s", call->proc->name);
    call->error.domain = r->driver->error_domain;
    return r->handler->fn(d, call);
}
