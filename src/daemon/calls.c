/* What the handlers of all drivers share. */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "daemon/daemon.h"

void put_domain(rp_domain *ret, const struct guest *g)
{
    ret->name = xstrdup(g->name);
    memcpy(ret->uuid.bytes, g->uuid, 16);
    ret->id = g->id;
}

struct guest *call_guest(struct daemon *d, struct rpc_call *call, const rp_domain *dom)
{
    char uuid[37];
    struct guest *g = guests_find_uuid(&d->guests, (const uint8_t *)dom->uuid.bytes);
    if (g)
        return g;
    uuid_format((const uint8_t *)dom->uuid.bytes, uuid);
    verr_set(&call->error, VIR_NO_DOMAIN, "no domain with matching uuid '%s' (%.200s)", uuid, dom->name);
    return NULL;
}

struct guest *call_active(struct daemon *d, struct rpc_call *call, const rp_domain *dom)
{
    struct guest *g = call_guest(d, call, dom);
    if (g && !guest_active(g)) {
        verr_set(&call->error, VIR_OPERATION_INVALID, "domain is not running");
        return NULL;
    }
    return g;
}

int call_flags(struct rpc_call *call, unsigned flags, unsigned known)
{
    if (flags & ~known)
        return verr_set(&call->error, VIR_INVALID_ARG, "unsupported flags (0x%x) in function %s", flags & ~known,
                        call->proc->name);
    return 0;
}

void call_done(void *opaque, const struct rpc_error *e)
{
    struct rpc_call *call = opaque;
    if (e)
        call->error = *e;
    rpc_call_finish(call);
}

int call_affect(struct rpc_call *call, const struct guest *g, unsigned flags, bool *ret_live, bool *ret_config)
{
    bool live = flags & 1, config = flags & 2;
    if (!live && !config) {
        live = guest_active(g);
        config = !live;
    }
    if (live && !guest_active(g))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "domain is not running");
    if (config && !guest_persistent(g))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "transient domains do not have any persistent config");
    *ret_live = live;
    *ret_config = config;
    return 0;
}
