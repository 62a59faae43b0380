/* The connection itself: opening it, authentication, what the daemon is and can. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"

#define HYPERVISOR_VERSION 7002000ul /* of the QEMU whose monitor dialect and machine names ours are */
#define LIBRARY_VERSION 9000000ul    /* of the libvirt whose protocol we serve */

static int connect_open(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_open);
    static const char *const names[] = {"qemu:///system", "qemu:///session", "lodge:///system", "lodge:///session"};
    const char *name = a->name ? *a->name : NULL;
    if (call_flags(call, a->flags, 3) < 0)
        return RPC_FAILED;
    bool known = !name || !*name;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        known |= !known && !strcmp(name, names[i]);
    if (!known)
        return verr_set(&call->error, VIR_NO_CONNECT, "%.200s", name);
    if (a->flags & 1)
        rpc_client_set_readonly(call->client);
    return RPC_DONE;
}

static int connect_nothing(struct daemon *d, struct rpc_call *call)
{
    return RPC_DONE;
}

static int get_type(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    *ret = xstrdup("QEMU");
    return RPC_DONE;
}

static int get_version(struct daemon *d, struct rpc_call *call)
{
    RET(rp_uhyper);
    *ret = HYPERVISOR_VERSION;
    return RPC_DONE;
}

static int get_lib_version(struct daemon *d, struct rpc_call *call)
{
    RET(rp_uhyper);
    *ret = LIBRARY_VERSION;
    return RPC_DONE;
}

static int get_hostname(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) < 0)
        return verr_errno(&call->error, errno, "cannot get the host's name");
    *ret = xstrdup(name);
    return RPC_DONE;
}

static int get_uri(struct daemon *d, struct rpc_call *call)
{
    RET(rp_string);
    *ret = xstrdup(d->config.session ? "qemu:///session" : "qemu:///system");
    return RPC_DONE;
}

/* libvirt's virDrvFeature. */
static int supports_feature(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_int);
    RET(rp_int);
    enum {
        FD_PASSING = 8,
        TYPED_PARAM_STRING = 9,
        KEEPALIVE = 10,
        EVENT_CALLBACK = 14,
        CLOSE_CALLBACK = 15,
        NETWORK_UPDATE = 16
    };
    if (*a == KEEPALIVE)
        rpc_client_enable_keepalive(call->client);
    *ret = (*a >= FD_PASSING && *a <= KEEPALIVE) || (*a >= EVENT_CALLBACK && *a <= NETWORK_UPDATE);
    return RPC_DONE;
}

static int one(struct daemon *d, struct rpc_call *call)
{
    RET(rp_int);
    *ret = 1;
    return RPC_DONE;
}

const struct driver driver_connect = {
    .name = "connect",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_RPC,
    .handlers =
        (const struct handler[]){
            {RPC_PROC_CONNECT_OPEN, connect_open},
            {RPC_PROC_CONNECT_CLOSE, connect_nothing},
            {RPC_PROC_CONNECT_GET_TYPE, get_type},
            {RPC_PROC_CONNECT_GET_VERSION, get_version},
            {RPC_PROC_CONNECT_GET_LIB_VERSION, get_lib_version},
            {RPC_PROC_CONNECT_GET_HOSTNAME, get_hostname},
            {RPC_PROC_CONNECT_GET_URI, get_uri},
            {RPC_PROC_CONNECT_SUPPORTS_FEATURE, supports_feature},
            {RPC_PROC_CONNECT_IS_SECURE, one},
            {RPC_PROC_CONNECT_REGISTER_CLOSE_CALLBACK, connect_nothing},
            {RPC_PROC_CONNECT_UNREGISTER_CLOSE_CALLBACK, connect_nothing},
            {RPC_PROC_CONNECT_SET_IDENTITY, connect_nothing},
            {RPC_PROC_AUTH_LIST, auth_list},
            {RPC_PROC_AUTH_POLKIT, auth_polkit},
            {0},
        },
};
