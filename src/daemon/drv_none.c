/*
 * Kinds of objects that exist in libvirt and of which a Lodge host has none: host interfaces, packet filters, secrets
 * and host devices. Clients ask for their lists and must be told that they are empty.
 */
#include <string.h>

#include "daemon/daemon.h"

/* Lists and counts: the zeroed answer says none. */
static int none(struct daemon *d, struct rpc_call *call)
{
    return RPC_DONE;
}

static int no_interface(struct daemon *d, struct rpc_call *call)
{
    call->error.domain = VIR_FROM_INTERFACE;
    return verr_set(&call->error, VIR_NO_INTERFACE, "couldn't find interface named '%.300s'", *(rp_string *)call->args);
}

static int no_filter(struct daemon *d, struct rpc_call *call)
{
    call->error.domain = VIR_FROM_NWFILTER;
    return verr_set(&call->error, VIR_NO_NWFILTER, "no nwfilter with matching name '%.300s'", *(rp_string *)call->args);
}

static int no_secret_uuid(struct daemon *d, struct rpc_call *call)
{
    char uuid[37];
    uuid_format(call->args, uuid);
    call->error.domain = VIR_FROM_SECRET;
    return verr_set(&call->error, VIR_NO_SECRET, "no secret with matching uuid '%s'", uuid);
}

static int no_secret_usage(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int_str);
    call->error.domain = VIR_FROM_SECRET;
    return verr_set(&call->error, VIR_NO_SECRET, "no secret with matching usage '%.300s'", a->text);
}

static int no_device(struct daemon *d, struct rpc_call *call)
{
    call->error.domain = VIR_FROM_NODEDEV;
    return verr_set(&call->error, VIR_NO_NODE_DEVICE, "no node device with matching name '%.300s'",
                    *(rp_string *)call->args);
}

static int no_device_flags(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_str_flags);
    call->error.domain = VIR_FROM_NODEDEV;
    return verr_set(&call->error, VIR_NO_NODE_DEVICE, "no node device with matching name '%.300s'", a->text);
}

static int watch_devices(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_reg_nodedev);
    RET(rp_int);
    *ret = session_register(session_of(call), EVENTS_NODEDEV, a->event, NULL);
    return *ret < 0 ? verr_set(&call->error, VIR_INTERNAL_ERROR, "too many event registrations") : RPC_DONE;
}

static int watch_secrets(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_reg_secret);
    RET(rp_int);
    *ret = session_register(session_of(call), EVENTS_SECRET, a->event, NULL);
    return *ret < 0 ? verr_set(&call->error, VIR_INTERNAL_ERROR, "too many event registrations") : RPC_DONE;
}

static int unwatch(struct rpc_call *call, enum event_kind kind)
{
    ARGS(rp_int);
    if (session_deregister(session_of(call), kind, *a) < 0)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "event callback %d not registered", *a);
    return RPC_DONE;
}

static int unwatch_devices(struct daemon *d, struct rpc_call *call)
{
    return unwatch(call, EVENTS_NODEDEV);
}

static int unwatch_secrets(struct daemon *d, struct rpc_call *call)
{
    return unwatch(call, EVENTS_SECRET);
}

const struct driver driver_none = {
    .name = "none",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_CONNECT_LIST_ALL_INTERFACES, none},
            {RPC_PROC_CONNECT_NUM_OF_INTERFACES, none},
            {RPC_PROC_CONNECT_LIST_INTERFACES, none},
            {RPC_PROC_CONNECT_NUM_OF_DEFINED_INTERFACES, none},
            {RPC_PROC_CONNECT_LIST_DEFINED_INTERFACES, none},
            {RPC_PROC_INTERFACE_LOOKUP_BY_NAME, no_interface},
            {RPC_PROC_INTERFACE_LOOKUP_BY_MAC_STRING, no_interface},
            {RPC_PROC_CONNECT_LIST_ALL_NWFILTERS, none},
            {RPC_PROC_CONNECT_NUM_OF_NWFILTERS, none},
            {RPC_PROC_CONNECT_LIST_NWFILTERS, none},
            {RPC_PROC_CONNECT_LIST_ALL_NWFILTER_BINDINGS, none},
            {RPC_PROC_NWFILTER_LOOKUP_BY_NAME, no_filter},
            {RPC_PROC_CONNECT_LIST_ALL_SECRETS, none},
            {RPC_PROC_CONNECT_NUM_OF_SECRETS, none},
            {RPC_PROC_CONNECT_LIST_SECRETS, none},
            {RPC_PROC_SECRET_LOOKUP_BY_UUID, no_secret_uuid},
            {RPC_PROC_SECRET_LOOKUP_BY_USAGE, no_secret_usage},
            {RPC_PROC_CONNECT_LIST_ALL_NODE_DEVICES, none},
            {RPC_PROC_NODE_NUM_OF_DEVICES, none},
            {RPC_PROC_NODE_LIST_DEVICES, none},
            {RPC_PROC_NODE_DEVICE_LOOKUP_BY_NAME, no_device},
            {RPC_PROC_NODE_DEVICE_GET_XML_DESC, no_device_flags},
            {RPC_PROC_CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY, watch_devices},
            {RPC_PROC_CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY, unwatch_devices},
            {RPC_PROC_CONNECT_SECRET_EVENT_REGISTER_ANY, watch_secrets},
            {RPC_PROC_CONNECT_SECRET_EVENT_DEREGISTER_ANY, unwatch_secrets},
            {0},
        },
};
