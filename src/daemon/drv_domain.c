/* Domains: finding, listing, describing, defining. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"

static int lookup_id(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int);
    struct guest *g = guests_find_id(&d->guests, *a);
    if (!g)
        return verr_set(&call->error, VIR_NO_DOMAIN, "no domain with matching id %d", *a);
    put_domain(call->ret, g);
    return RPC_DONE;
}

static int lookup_name(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_string);
    struct guest *g = guests_find_name(&d->guests, *a);
    if (!g)
        return verr_set(&call->error, VIR_NO_DOMAIN, "no domain with matching name '%.300s'", *a);
    put_domain(call->ret, g);
    return RPC_DONE;
}

static int lookup_uuid(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_uuid);
    char uuid[37];
    struct guest *g = guests_find_uuid(&d->guests, (const uint8_t *)a->bytes);
    uuid_format((const uint8_t *)a->bytes, uuid);
    if (!g)
        return verr_set(&call->error, VIR_NO_DOMAIN, "no domain with matching uuid '%s'", uuid);
    put_domain(call->ret, g);
    return RPC_DONE;
}

/* libvirt's virConnectListAllDomainsFlags: of each group of bits, one must fit, if any is set. */
static bool wanted(const struct guest *g, unsigned flags)
{
    const struct {
        unsigned yes, no;
        bool is;
    } pairs[] = {
        {1, 2, guest_active(g)},    {4, 8, guest_persistent(g)}, {256, 512, flags & 768 && guest_has_managed_save(g)},
        {1024, 2048, g->autostart}, {4096, 8192, false},         {16384, 32768, false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
        if (flags & (pairs[i].yes | pairs[i].no) && !(flags & (pairs[i].is ? pairs[i].yes : pairs[i].no)))
            return false;
    unsigned state = g->state == GUEST_RUNNING   ? 16
                     : g->state == GUEST_PAUSED  ? 32
                     : g->state == GUEST_SHUTOFF ? 64
                                                 : 128;
    return !(flags & 0xf0) || flags & state;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rp_domain *)a)->name, ((const rp_domain *)b)->name);
}

static int list_all(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_list_args);
    RET(rp_domain_list);
    if (call_flags(call, a->flags, 0xffff) < 0)
        return RPC_FAILED;
    struct guest *g, *next;
    rp_domain *list = xcalloc(d->guests.n + 1, sizeof *list);
    unsigned n = 0;
    HASH_ITER(by_name, d->guests.by_name, g, next)
    {
        if (!wanted(g, a->flags))
            continue;
        if (a->need_results && n < RP_LIST_MAX)
            put_domain(&list[n], g);
        n++;
    }
    ret->ret = n;
    ret->items.items_val = list;
    ret->items.items_len = a->need_results ? MIN(n, RP_LIST_MAX) : 0;
    qsort(list, ret->items.items_len, sizeof *list, by_name);
    return RPC_DONE;
}

static int num_active(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    *ret = d->guests.n_active;
    return RPC_DONE;
}

static int num_defined(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    *ret = d->guests.n - d->guests.n_active;
    return RPC_DONE;
}

static int list_ids(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int);
    RET(rp_ids);
    struct guest *g, *next;
    unsigned n = 0, max = MIN(MAX(*a, 0), RP_LIST_MAX);
    ret->ids.ids_val = xcalloc(max + 1, sizeof(int));
    HASH_ITER(by_id, d->guests.by_id, g, next)
    if (n < max)
        ret->ids.ids_val[n++] = g->id;
    ret->ids.ids_len = n;
    return RPC_DONE;
}

static int list_defined(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int);
    RET(rp_names);
    struct guest *g, *next;
    unsigned n = 0, max = MIN(MAX(*a, 0), RP_LIST_MAX);
    ret->names.names_val = xcalloc(max + 1, sizeof(rp_string));
    HASH_ITER(by_name, d->guests.by_name, g, next)
    if (n < max && !guest_active(g))
        ret->names.names_val[n++] = xstrdup(g->name);
    ret->names.names_len = n;
    return RPC_DONE;
}

static int define_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_string);
    struct guest *g = define(&d->guests, *a, &call->error);
    if (!g)
        return RPC_FAILED;
    put_domain(call->ret, g);
    return RPC_DONE;
}

static int define_xml_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    if (call_flags(call, a->flags, 1) < 0) /* VALIDATE: our parser checks as it does without */
        return RPC_FAILED;
    struct guest *g = define(&d->guests, a->text, &call->error);
    if (!g)
        return RPC_FAILED;
    put_domain(call->ret, g);
    return RPC_DONE;
}

enum {
    UNDEFINE_MANAGED_SAVE = 1,
    UNDEFINE_SNAPSHOTS = 2,
    UNDEFINE_NVRAM = 4,
    UNDEFINE_KEEP_NVRAM = 8,
    UNDEFINE_CHECKPOINTS = 16
};

static int undefine_with(struct daemon *d, struct rpc_call *call, const rp_domain *dom, unsigned flags)
{
    struct guest *g = call_guest(d, call, dom);
    if (!g || call_flags(call, flags, 31) < 0)
        return RPC_FAILED;
    if (guest_has_managed_save(g)) {
        if (!(flags & UNDEFINE_MANAGED_SAVE))
            return verr_set(&call->error, VIR_OPERATION_INVALID,
                            "Refusing to undefine while domain managed save image exists");
        if (guest_remove_managed_save(g, &call->error) < 0)
            return RPC_FAILED;
    }
    return undefine(g, &call->error);
}

static int undefine_plain(struct daemon *d, struct rpc_call *call)
{
    return undefine_with(d, call, call->args, 0);
}

static int undefine_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    return undefine_with(d, call, &a->dom, a->flags);
}

static int get_xml(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    RET(rp_string);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g || call_flags(call, a->flags, 15) < 0)
        return RPC_FAILED;
    if (a->flags & XML_SECURE && rpc_client_readonly(call->client))
        return verr_set(&call->error, VIR_OPERATION_DENIED, "virDomainGetXMLDesc with secure flag");
    *ret = guest_xml(g, a->flags, &call->error);
    return *ret ? RPC_DONE : RPC_FAILED;
}

uint64_t guest_cpu_time(const struct guest *g)
{
    clockid_t clock;
    struct timespec ts;
    if (g->pid <= 0 || !guest_active(g) || clock_getcpuclockid(g->pid, &clock) || clock_gettime(clock, &ts) < 0)
        return 0;
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static int get_info(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_domain);
    RET(rp_info);
    struct guest *g = call_guest(d, call, a);
    if (!g)
        return RPC_FAILED;
    const struct domain *l = guest_active(g) ? g->live : NULL;
    ret->state = g->state;
    ret->max_memory = (l ? l->memory : g->memory) / KIB;
    ret->memory = (l ? g->balloon : g->current_memory) / KIB;
    ret->vcpus = l ? (l->vcpus_current ? l->vcpus_current : l->vcpus) : g->vcpus;
    ret->cpu_time = guest_cpu_time(g);
    return RPC_DONE;
}

static int get_state(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    RET(rp_state);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    ret->state = g->state;
    ret->reason = g->reason;
    return RPC_DONE;
}

static int get_os_type(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    if (!call_guest(d, call, call->args))
        return RPC_FAILED;
    *ret = xstrdup("hvm");
    return RPC_DONE;
}

static int get_max_memory(struct daemon *d, struct rpc_call *call)
{
    RET(rp_uhyper);
    struct guest *g = call_guest(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    *ret = (guest_active(g) ? g->live->memory : g->memory) / KIB;
    return RPC_DONE;
}

static int get_max_vcpus(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct guest *g = call_guest(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    *ret = guest_active(g) ? g->live->vcpus : g->vcpus_max;
    return RPC_DONE;
}

static int is_active(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct guest *g = call_guest(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    *ret = guest_active(g);
    return RPC_DONE;
}

static int is_persistent(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct guest *g = call_guest(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    *ret = guest_persistent(g);
    return RPC_DONE;
}

static int is_updated(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    *ret = 0;
    return call_guest(d, call, call->args) ? RPC_DONE : RPC_FAILED;
}

static int get_autostart(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    struct guest *g = call_guest(d, call, call->args);
    if (!g)
        return RPC_FAILED;
    *ret = g->autostart;
    return RPC_DONE;
}

static int set_autostart(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_int);
    struct guest *g = call_guest(d, call, &a->dom);
    if (!g)
        return RPC_FAILED;
    if (!guest_persistent(g))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "cannot set autostart for transient domain");
    return store_set_autostart(g, a->value, &call->error);
}

static int rename_domain(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_ostr_flags);
    RET(rp_int);
    struct guest *g = call_guest(d, call, &a->dom);
    const char *name = a->text ? *a->text : NULL;
    if (!g || call_flags(call, a->flags, 0) < 0)
        return RPC_FAILED;
    if (!guest_persistent(g))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "cannot rename a transient domain");
    if (guest_active(g))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "cannot rename active domain");
    if (define_check_name(name, &call->error) < 0)
        return RPC_FAILED;
    if (guests_find_name(&d->guests, name))
        return verr_set(&call->error, VIR_OPERATION_INVALID, "domain with name '%s' already exists", name);
    domain_event_lifecycle(d, g, EVENT_UNDEFINED, 1);
    if (store_rename(g, name, &call->error) < 0)
        return RPC_FAILED;
    domain_event_lifecycle(d, g, EVENT_DEFINED, 2);
    *ret = 0;
    return RPC_DONE;
}

static int get_security_label(struct daemon *d, struct rpc_call *call)
{
    RET(rp_security_label);
    if (!call_guest(d, call, call->args))
        return RPC_FAILED;
    ret->label.label_val = xcalloc(1, 1);
    ret->label.label_len = 1;
    return RPC_DONE;
}

static int get_security_label_list(struct daemon *d, struct rpc_call *call)
{
    return call_guest(d, call, call->args) ? RPC_DONE : RPC_FAILED;
}

/* No messages: nothing taints a guest here. */
static int get_messages(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_flags);
    return call_guest(d, call, &a->dom) ? RPC_DONE : RPC_FAILED;
}

static int event_register(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_reg_domain);
    RET(rp_int);
    if (a->event < 0 || a->event > 27)
        return verr_set(&call->error, VIR_INVALID_ARG, "unsupported event ID %d", a->event);
    if (a->dom && !call_guest(d, call, a->dom))
        return RPC_FAILED;
    *ret = session_register(session_of(call), EVENTS_DOMAIN, a->event,
                            a->dom ? (const uint8_t *)a->dom->uuid.bytes : NULL);
    if (*ret < 0)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "too many event registrations on one connection");
    return RPC_DONE;
}

static int event_deregister(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int);
    if (session_deregister(session_of(call), EVENTS_DOMAIN, *a) < 0)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "domain event callback %d not registered", *a);
    return RPC_DONE;
}

const struct driver driver_domain = {
    .name = "domain",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_DOMAIN_LOOKUP_BY_ID, lookup_id},
            {RPC_PROC_DOMAIN_LOOKUP_BY_NAME, lookup_name},
            {RPC_PROC_DOMAIN_LOOKUP_BY_UUID, lookup_uuid},
            {RPC_PROC_CONNECT_LIST_ALL_DOMAINS, list_all},
            {RPC_PROC_CONNECT_NUM_OF_DOMAINS, num_active},
            {RPC_PROC_CONNECT_NUM_OF_DEFINED_DOMAINS, num_defined},
            {RPC_PROC_CONNECT_LIST_DOMAINS, list_ids},
            {RPC_PROC_CONNECT_LIST_DEFINED_DOMAINS, list_defined},
            {RPC_PROC_DOMAIN_DEFINE_XML, define_xml},
            {RPC_PROC_DOMAIN_DEFINE_XML_FLAGS, define_xml_flags},
            {RPC_PROC_DOMAIN_UNDEFINE, undefine_plain},
            {RPC_PROC_DOMAIN_UNDEFINE_FLAGS, undefine_flags},
            {RPC_PROC_DOMAIN_GET_XML_DESC, get_xml},
            {RPC_PROC_DOMAIN_GET_INFO, get_info},
            {RPC_PROC_DOMAIN_GET_STATE, get_state},
            {RPC_PROC_DOMAIN_GET_OS_TYPE, get_os_type},
            {RPC_PROC_DOMAIN_GET_MAX_MEMORY, get_max_memory},
            {RPC_PROC_DOMAIN_GET_MAX_VCPUS, get_max_vcpus},
            {RPC_PROC_DOMAIN_IS_ACTIVE, is_active},
            {RPC_PROC_DOMAIN_IS_PERSISTENT, is_persistent},
            {RPC_PROC_DOMAIN_IS_UPDATED, is_updated},
            {RPC_PROC_DOMAIN_GET_AUTOSTART, get_autostart},
            {RPC_PROC_DOMAIN_SET_AUTOSTART, set_autostart},
            {RPC_PROC_DOMAIN_RENAME, rename_domain},
            {RPC_PROC_DOMAIN_GET_SECURITY_LABEL, get_security_label},
            {RPC_PROC_DOMAIN_GET_SECURITY_LABEL_LIST, get_security_label_list},
            {RPC_PROC_DOMAIN_GET_MESSAGES, get_messages},
            {RPC_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, event_register},
            {RPC_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, event_deregister},
            {0},
        },
};
