/* Domains: memory, vCPUs, titles and metadata, devices of the definition. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "daemon/edit.h"
#include "daemon/metadata.h"

enum { AFFECT_LIVE = 1, AFFECT_CONFIG = 2, MAXIMUM = 4 };

/* ---- memory ---- */

struct memory {
    uint64_t bytes;
    bool maximum;
};

static int change_memory(void *opaque, struct domain *d, struct rpc_error *e)
{
    const struct memory *m = opaque;
    if (m->maximum) {
        d->memory = m->bytes;
        if (d->current_memory > d->memory)
            d->current_memory = d->memory;
    } else if (m->bytes > d->memory) {
        return verr_set(e, VIR_INVALID_ARG, "cannot set memory higher than max memory");
    } else {
        d->current_memory = m->bytes;
    }
    return 0;
}

static int set_memory(struct daemon *d, struct rpc_call *call, const rp_domain *dom, uint64_t kib, unsigned flags)
{
    struct guest *g = call_guest(d, call, dom);
    struct memory m = {kib * KIB, flags & MAXIMUM};
    bool live, config;
    if (!g || call_flags(call, flags, 7) < 0 || call_affect(call, g, flags, &live, &config) < 0)
        return RPC_FAILED;
    if (kib > INT64_MAX / KIB || !kib)
        return verr_set(&call->error, VIR_INVALID_ARG, "memory in %s must be a positive number that fits",
                        call->proc->name);
    if (live && m.maximum)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "cannot resize the maximum memory on an active domain");
    if (live && g->live->balloon.model != DOMAIN_BALLOON_VIRTIO)
        return verr_set(&call->error, VIR_OPERATION_INVALID,
                        "Unable to change memory of active domain without the balloon device");
    if (edit_documents(g, live, config, change_memory, &m, &call->error) < 0)
        return RPC_FAILED;
    if (!live)
        return RPC_DONE;
    return guest_command(g, "balloon", json_pack("{s:I}", "value", (json_int_t)m.bytes), call_done, call,
                         &call->error) < 0
               ? RPC_FAILED
               : RPC_LATER;
}

static int memory_plain(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_hyper);
    return set_memory(d, call, &a->dom, a->amount, AFFECT_LIVE);
}

static int memory_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_hyper_flags);
    return set_memory(d, call, &a->dom, a->amount, a->flags);
}

static int memory_max(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_hyper);
    return set_memory(d, call, &a->dom, a->amount, MAXIMUM);
}

/* ---- vCPUs ---- */

struct vcpus {
    unsigned n;
    bool maximum;
};

static int change_vcpus(void *opaque, struct domain *d, struct rpc_error *e)
{
    const struct vcpus *v = opaque;
    if (v->maximum) {
        d->vcpus = v->n;
        if (d->vcpus_current > v->n)
            d->vcpus_current = v->n;
        d->cpu.sockets = d->cpu.dies = d->cpu.cores = d->cpu.threads = 0;
    } else if (v->n > d->vcpus) {
        return verr_set(e, VIR_INVALID_ARG,
                        "requested vcpus is greater than max allowable vcpus for the domain: %u > %u", v->n, d->vcpus);
    } else {
        d->vcpus_current = v->n;
    }
    return 0;
}

static int set_vcpus(struct daemon *d, struct rpc_call *call, const rp_domain *dom, unsigned n, unsigned flags)
{
    struct guest *g = call_guest(d, call, dom);
    struct vcpus v = {n, flags & MAXIMUM};
    bool live, config;
    if (!g || call_flags(call, flags, 31) < 0 || call_affect(call, g, flags, &live, &config) < 0)
        return RPC_FAILED;
    if (flags & 8)
        return verr_set(&call->error, VIR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured");
    if (!n || n > 255)
        return verr_set(&call->error, VIR_INVALID_ARG, "invalid number of vcpus %u", n);
    if (live)
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED, "vCPUs cannot be plugged into a running guest");
    return edit_documents(g, false, config, change_vcpus, &v, &call->error);
}

static int vcpus_plain(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_uint);
    return set_vcpus(d, call, &a->dom, a->value, AFFECT_LIVE);
}

static int vcpus_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_uint_flags);
    return set_vcpus(d, call, &a->dom, a->value, a->flags);
}

static int get_vcpus_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    RET(rp_int);
    struct guest *g = call_guest(d, call, &a->dom);
    bool live, config;
    if (!g || call_flags(call, a->flags, 31) < 0)
        return RPC_FAILED;
    if (a->flags & 8)
        return verr_set(&call->error, VIR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured");
    if (call_affect(call, g, a->flags & 3, &live, &config) < 0)
        return RPC_FAILED;
    if (config && !live)
        *ret = a->flags & MAXIMUM ? g->vcpus_max : g->vcpus;
    else
        *ret = a->flags & MAXIMUM || !g->live->vcpus_current ? g->live->vcpus : g->live->vcpus_current;
    return RPC_DONE;
}

/* ---- title, description, metadata ---- */

static int change_metadata(void *opaque, struct domain *d, struct rpc_error *e)
{
    const rp_set_metadata *a = opaque;
    const char *text = a->metadata ? *a->metadata : NULL;
    if (text && !*text)
        text = NULL;
    if (a->type == METADATA_TITLE && text && strchr(text, '\n'))
        return verr_set(e, VIR_INVALID_ARG, "metadata title can't contain newlines");
    if (a->type == METADATA_TITLE)
        domain_set(&d->title, text);
    else if (a->type == METADATA_DESCRIPTION)
        domain_set(&d->description, text);
    else if (a->type == METADATA_ELEMENT)
        return metadata_set(d, a->uri ? *a->uri : NULL, a->key ? *a->key : NULL, text, e);
    else
        return verr_set(e, VIR_INVALID_ARG, "unknown metadata type %d", a->type);
    return 0;
}

static int set_metadata(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_set_metadata);
    struct guest *g = call_guest(d, call, &a->dom);
    bool live, config;
    if (!g || call_flags(call, a->flags, 3) < 0 || call_affect(call, g, a->flags, &live, &config) < 0 ||
        edit_documents(g, live, config, change_metadata, (void *)a, &call->error) < 0)
        return RPC_FAILED;
    rp_ev_metadata m = {.dom = {.name = g->name, .id = g->id}, .type = a->type, .uri = a->uri};
    memcpy(m.dom.uuid.bytes, g->uuid, 16);
    daemon_event(d, EVENTS_DOMAIN, 23, RPC_REMOTE_PROGRAM, RPC_PROC_DOMAIN_EVENT_CALLBACK_METADATA_CHANGE, &m, g->uuid);
    return RPC_DONE;
}

static int get_metadata(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_get_metadata);
    RET(rp_string);
    struct guest *g = call_guest(d, call, &a->dom);
    bool live, config;
    if (!g || call_flags(call, a->flags, 3) < 0 || call_affect(call, g, a->flags, &live, &config) < 0)
        return RPC_FAILED;
    /* Most definitions have none, and lists ask for titles of all. */
    if (config && !live &&
        !strstr(g->xml, a->type == METADATA_TITLE         ? "<title"
                        : a->type == METADATA_DESCRIPTION ? "<desc"
                                                          : "<metadata"))
        return verr_set(&call->error, VIR_NO_DOMAIN_METADATA, "Requested metadata element is not present");
    struct domain *doc = guest_config(g, !live, &call->error);
    if (!doc)
        return RPC_FAILED;
    if (a->type == METADATA_TITLE && doc->title)
        *ret = xstrdup(doc->title);
    else if (a->type == METADATA_DESCRIPTION && doc->description)
        *ret = xstrdup(doc->description);
    else if (a->type == METADATA_ELEMENT)
        *ret = metadata_get(doc, a->uri ? *a->uri : "");
    domain_free(doc);
    return *ret ? RPC_DONE
                : verr_set(&call->error, VIR_NO_DOMAIN_METADATA, "Requested metadata element is not present");
}

/* ---- devices ---- */

static int device(struct daemon *d, struct rpc_call *call, const rp_domain *dom, const char *xml, unsigned flags,
                  enum edit_op op)
{
    struct guest *g = call_guest(d, call, dom);
    bool live, config;
    if (!g || call_flags(call, flags, 7) < 0 || call_affect(call, g, flags & 3, &live, &config) < 0)
        return RPC_FAILED;
    if (live)
        return verr_set(&call->error, VIR_OPERATION_UNSUPPORTED,
                        "devices of a running guest cannot be changed yet; --config changes its definition");
    return edit_device(g, op, xml, &call->error);
}

static int attach(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str);
    return device(d, call, &a->dom, a->text, AFFECT_LIVE, EDIT_ATTACH);
}
static int attach_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_flags);
    return device(d, call, &a->dom, a->text, a->flags, EDIT_ATTACH);
}
static int detach(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str);
    return device(d, call, &a->dom, a->text, AFFECT_LIVE, EDIT_DETACH);
}
static int detach_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_flags);
    return device(d, call, &a->dom, a->text, a->flags, EDIT_DETACH);
}
static int update_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_str_flags);
    return device(d, call, &a->dom, a->text, a->flags, EDIT_UPDATE);
}

const struct driver driver_domain_config = {
    .name = "domain config",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_SET_MEMORY, memory_plain},
            {RPC_PROC_DOMAIN_SET_MEMORY_FLAGS, memory_flags},
            {RPC_PROC_DOMAIN_SET_MAX_MEMORY, memory_max},
            {RPC_PROC_DOMAIN_SET_VCPUS, vcpus_plain},
            {RPC_PROC_DOMAIN_SET_VCPUS_FLAGS, vcpus_flags},
            {RPC_PROC_DOMAIN_GET_VCPUS_FLAGS, get_vcpus_flags},
            {RPC_PROC_DOMAIN_SET_METADATA, set_metadata},
            {RPC_PROC_DOMAIN_GET_METADATA, get_metadata},
            {RPC_PROC_DOMAIN_ATTACH_DEVICE, attach},
            {RPC_PROC_DOMAIN_ATTACH_DEVICE_FLAGS, attach_flags},
            {RPC_PROC_DOMAIN_DETACH_DEVICE, detach},
            {RPC_PROC_DOMAIN_DETACH_DEVICE_FLAGS, detach_flags},
            {RPC_PROC_DOMAIN_UPDATE_DEVICE_FLAGS, update_flags},
            {0},
        },
};
