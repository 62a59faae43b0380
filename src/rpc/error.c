/* See error.h. */
#include "rpc/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How messages begin, with %s for the detail. Codes that are not here pass the detail on as it is. */
static const struct {
    int code;
    const char *before, *after;
} beginnings[] = {
    {VIR_INTERNAL_ERROR, "internal error: ", ""},
    {VIR_NO_MEMORY, "out of memory: ", ""},
    {VIR_NO_SUPPORT, "this function is not supported by the connection driver: ", ""},
    {VIR_NO_CONNECT, "no connection driver available for ", ""},
    {VIR_INVALID_ARG, "invalid argument: ", ""},
    {VIR_OPERATION_FAILED, "operation failed: ", ""},
    {VIR_OS_TYPE, "unknown OS type ", ""},
    {VIR_XML_ERROR, "XML error: ", ""},
    {VIR_DOM_EXIST, "domain ", " exists already"},
    {VIR_OPERATION_DENIED, "operation forbidden: ", ""},
    {VIR_NETWORK_EXIST, "network ", " exists already"},
    {VIR_NO_DOMAIN, "Domain not found: ", ""},
    {VIR_NO_NETWORK, "Network not found: ", ""},
    {VIR_INVALID_MAC, "invalid MAC address: ", ""},
    {VIR_AUTH_FAILED, "authentication failed: ", ""},
    {VIR_INVALID_STORAGE_POOL, "invalid storage pool pointer in ", ""},
    {VIR_INVALID_STORAGE_VOL, "invalid storage volume pointer in ", ""},
    {VIR_NO_STORAGE_POOL, "Storage pool not found: ", ""},
    {VIR_NO_STORAGE_VOL, "Storage volume not found: ", ""},
    {VIR_NO_NODE_DEVICE, "Node device not found: ", ""},
    {VIR_OPERATION_INVALID, "Requested operation is not valid: ", ""},
    {VIR_NO_INTERFACE, "Interface not found: ", ""},
    {VIR_MULTIPLE_INTERFACES, "multiple matching interfaces found: ", ""},
    {VIR_NO_NWFILTER, "Network filter not found: ", ""},
    {VIR_BUILD_FIREWALL, "Error while building firewall: ", ""},
    {VIR_NO_SECRET, "Secret not found: ", ""},
    {VIR_CONFIG_UNSUPPORTED, "unsupported configuration: ", ""},
    {VIR_OPERATION_TIMEOUT, "Timed out during operation: ", ""},
    {VIR_INVALID_DOMAIN_SNAPSHOT, "Invalid domain snapshot: ", ""},
    {VIR_NO_DOMAIN_SNAPSHOT, "Domain snapshot not found: ", ""},
    {VIR_INVALID_STREAM, "invalid stream pointer in ", ""},
    {VIR_ARGUMENT_UNSUPPORTED, "argument unsupported: ", ""},
    {VIR_STORAGE_POOL_BUILT, "Storage pool already built: ", ""},
    {VIR_SNAPSHOT_REVERT_RISKY, "revert requires force: ", ""},
    {VIR_OPERATION_ABORTED, "operation aborted: ", ""},
    {VIR_NO_DOMAIN_METADATA, "metadata not found: ", ""},
    {VIR_OVERFLOW, "numerical overflow: ", ""},
    {VIR_OPERATION_UNSUPPORTED, "Operation not supported: ", ""},
    {VIR_AGENT_UNRESPONSIVE, "Guest agent is not responding: ", ""},
    {VIR_RESOURCE_BUSY, "resource busy: ", ""},
    {VIR_ACCESS_DENIED, "access denied: ", ""},
    {VIR_STORAGE_VOL_EXIST, "storage volume ", " exists already"},
    {VIR_CPU_INCOMPATIBLE, "the CPU is incompatible with host CPU: ", ""},
    {VIR_XML_INVALID_SCHEMA, "XML document failed to validate against schema: ", ""},
    {VIR_AUTH_UNAVAILABLE, "authentication unavailable: ", ""},
    {VIR_DEVICE_MISSING, "device not found: ", ""},
    {VIR_NO_DOMAIN_CHECKPOINT, "Domain checkpoint not found: ", ""},
    {VIR_NO_HOSTNAME, "no hostname found: ", ""},
};

int rpc_error_set(struct rpc_error *e, int code, int domain, const char *fmt, ...)
{
    const char *before = "", *after = "";
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
        if (beginnings[i].code == code) {
            before = beginnings[i].before;
            after = beginnings[i].after;
        }
    char detail[1536];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    e->code = code;
    e->domain = domain;
    snprintf(e->message, sizeof(e->message), "%s%s%s", before, detail, after);
    return -1;
}

int rpc_encode_error(struct rpc_buf *b, const struct rpc_header *call, const struct rpc_error *e)
{
    struct rpc_header h = *call;
    h.type = call->type == RPC_TYPE_STREAM || call->type == RPC_TYPE_HOLE ? RPC_TYPE_STREAM : RPC_TYPE_REPLY;
    h.status = RPC_STATUS_ERROR;
    rp_string message = (char *)e->message, format = "%s";
    const rp_error out = {
        .code = e->code,
        .domain = e->domain,
        .message = &message,
        .level = 2, /* an error, not a warning */
        .str1 = &format,
        .str2 = &message,
        .int1 = -1,
        .int2 = -1,
    };
    return rpc_encode(b, &h, 0, (rpc_xdr_fn)(void *)xdr_rp_error, &out);
}

int rpc_decode_error(const uint8_t *payload, size_t len, struct rpc_error *ret)
{
    rp_error in;
    int r = rpc_decode(payload, len, (rpc_xdr_fn)(void *)xdr_rp_error, &in, sizeof(in));
    if (r < 0) {
        rpc_error_set(ret, VIR_RPC, VIR_FROM_RPC, "the server sent an error that cannot be understood");
        return r;
    }
    ret->code = in.code ? in.code : VIR_INTERNAL_ERROR;
    ret->domain = in.domain;
    snprintf(ret->message, sizeof(ret->message), "%s", in.message ? *in.message : "unknown error");
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_error, &in);
    return 0;
}
