/* See procs.h. */
#include "rpc/procs.h"

#include <stdlib.h>

bool_t xdr_rp_none(XDR *x, rp_none *none)
{
    return TRUE;
}

#define ENTRY(prog, num, NAME, a, r, acc)                                                                              \
    {prog, num, #NAME, (rpc_xdr_fn)(void *)xdr_##a, (rpc_xdr_fn)(void *)xdr_##r, sizeof(a), sizeof(r), acc},
#define RPC_CALL(num, NAME, args, ret, access) ENTRY(RPC_REMOTE_PROGRAM, num, NAME, args, ret, access)
#define RPC_EVENT(num, NAME, msg) ENTRY(RPC_REMOTE_PROGRAM, num, NAME, rp_none, msg, RPC_IS_EVENT)
#define RPC_QEMU_CALL(num, NAME, args, ret, access) ENTRY(RPC_QEMU_PROGRAM, num, NAME, args, ret, access)
#define RPC_QEMU_EVENT(num, NAME, msg) ENTRY(RPC_QEMU_PROGRAM, num, NAME, rp_none, msg, RPC_IS_EVENT)
/* Ordered by program and number. */
static const struct rpc_proc procs[] = {
#include "rpc/procs.def"
};

static int compare(const void *key, const void *entry)
{
    const struct rpc_proc *a = key, *b = entry;
    if (a->program != b->program)
        return a->program < b->program ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

const struct rpc_proc *rpc_proc_find(uint32_t program, int32_t number)
{
    const struct rpc_proc key = {.program = program, .number = number};
    return bsearch(&key, procs, sizeof(procs) / sizeof(procs[0]), sizeof(procs[0]), compare);
}
