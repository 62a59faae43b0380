/*
 * The table of libvirt's procedures (procs.def): for each number its name, the types of remote.x that it takes and
 * returns, and who may call it. Client and server both encode and decode by it.
 */
#ifndef LODGE_RPC_PROCS_H
#define LODGE_RPC_PROCS_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/remote.h"

#define RPC_REMOTE_PROGRAM 0x20008086u
#define RPC_QEMU_PROGRAM 0x20008087u
#define RPC_KEEPALIVE_PROGRAM 0x6b656570u
#define RPC_VERSION 1u /* of all three */

/* What procedures without arguments or results take and return: no bytes. */
typedef struct rp_none {
    char unused;
} rp_none;
bool_t xdr_rp_none(XDR *x, rp_none *none);

enum rpc_access {
    RPC_RW = 0,
    RPC_RO = 1 << 0,         /* also on read-only connections */
    RPC_PREAUTH = 1 << 1,    /* before the client has authenticated */
    RPC_STREAM_IN = 1 << 2,  /* the client sends data afterwards */
    RPC_STREAM_OUT = 1 << 3, /* the server does */
    RPC_IS_EVENT = 1 << 4,   /* a message from the server, never a call */
};

#define RPC_CALL(num, NAME, args, ret, access) RPC_PROC_##NAME = num,
#define RPC_EVENT(num, NAME, msg) RPC_PROC_##NAME = num,
#define RPC_QEMU_CALL(num, NAME, args, ret, access) RPC_PROC_##NAME = num,
#define RPC_QEMU_EVENT(num, NAME, msg) RPC_PROC_##NAME = num,
enum rpc_procedure {
#include "rpc/procs.def"
};
#undef RPC_CALL
#undef RPC_EVENT
#undef RPC_QEMU_CALL
#undef RPC_QEMU_EVENT

typedef bool_t (*rpc_xdr_fn)(XDR *, void *);

struct rpc_proc {
    uint32_t program;
    int32_t number;
    const char *name; /* "DOMAIN_CREATE" */
    rpc_xdr_fn args, ret;
    uint16_t args_size, ret_size;
    uint16_t access; /* enum rpc_access bits */
};

/* The procedure or event, or NULL: unknown. */
const struct rpc_proc *rpc_proc_find(uint32_t program, int32_t number);

#endif
