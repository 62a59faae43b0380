/*
 * Errors as they travel: libvirt's numbers and the beginnings of its messages (both part of the interface: clients
 * branch on the numbers, scripts on the texts), and how they are put into packets.
 */
#ifndef LODGE_RPC_ERROR_H
#define LODGE_RPC_ERROR_H

#include "rpc/frame.h"

enum vir_code {
    VIR_OK = 0,
    VIR_INTERNAL_ERROR = 1,
    VIR_NO_MEMORY = 2,
    VIR_NO_SUPPORT = 3, /* there is no such procedure here */
    VIR_NO_CONNECT = 5,
    VIR_INVALID_ARG = 8,
    VIR_OPERATION_FAILED = 9,
    VIR_OS_TYPE = 16,
    VIR_XML_ERROR = 27,
    VIR_DOM_EXIST = 28,
    VIR_OPERATION_DENIED = 29, /* read-only connection */
    VIR_XML_DETAIL = 35,       /* not well formed */
    VIR_NETWORK_EXIST = 37,
    VIR_SYSTEM_ERROR = 38,
    VIR_RPC = 39,
    VIR_NO_DOMAIN = 42,
    VIR_NO_NETWORK = 43,
    VIR_INVALID_MAC = 44,
    VIR_AUTH_FAILED = 45,
    VIR_INVALID_STORAGE_POOL = 46,
    VIR_INVALID_STORAGE_VOL = 47,
    VIR_NO_STORAGE_POOL = 49,
    VIR_NO_STORAGE_VOL = 50,
    VIR_NO_NODE_DEVICE = 53,
    VIR_OPERATION_INVALID = 55, /* the object's state does not allow it */
    VIR_NO_INTERFACE = 57,
    VIR_MULTIPLE_INTERFACES = 59,
    VIR_NO_NWFILTER = 62,
    VIR_BUILD_FIREWALL = 63,
    VIR_NO_SECRET = 66,
    VIR_CONFIG_UNSUPPORTED = 67,
    VIR_OPERATION_TIMEOUT = 68,
    VIR_INVALID_DOMAIN_SNAPSHOT = 71,
    VIR_NO_DOMAIN_SNAPSHOT = 72,
    VIR_INVALID_STREAM = 73,
    VIR_ARGUMENT_UNSUPPORTED = 74,
    VIR_STORAGE_POOL_BUILT = 76,
    VIR_SNAPSHOT_REVERT_RISKY = 77,
    VIR_OPERATION_ABORTED = 78,
    VIR_NO_DOMAIN_METADATA = 80,
    VIR_OVERFLOW = 82,
    VIR_OPERATION_UNSUPPORTED = 84, /* not in this configuration */
    VIR_AGENT_UNRESPONSIVE = 86,
    VIR_RESOURCE_BUSY = 87,
    VIR_ACCESS_DENIED = 88,
    VIR_STORAGE_VOL_EXIST = 90,
    VIR_CPU_INCOMPATIBLE = 91,
    VIR_XML_INVALID_SCHEMA = 92,
    VIR_AUTH_UNAVAILABLE = 94,
    VIR_DEVICE_MISSING = 99,
    VIR_NO_DOMAIN_CHECKPOINT = 103,
    VIR_NO_HOSTNAME = 108,
};

/* Which part an error comes from. */
enum vir_domain {
    VIR_FROM_NONE = 0,
    VIR_FROM_XML = 5,
    VIR_FROM_DOM = 6,
    VIR_FROM_RPC = 7,
    VIR_FROM_QEMU = 10,
    VIR_FROM_REMOTE = 13,
    VIR_FROM_STORAGE = 18,
    VIR_FROM_NETWORK = 19,
    VIR_FROM_DOMAIN = 20,
    VIR_FROM_NODEDEV = 22,
    VIR_FROM_INTERFACE = 26,
    VIR_FROM_SECRET = 30,
    VIR_FROM_NWFILTER = 33,
    VIR_FROM_DOMAIN_SNAPSHOT = 35,
    VIR_FROM_STREAMS = 38,
    VIR_FROM_AUTH = 46,
};

/* A failure as a call reports it. The message is what a user sees: one line (or several, for XML). */
struct rpc_error {
    int code;   /* enum vir_code; 0: none */
    int domain; /* enum vir_domain */
    char message[2048];
};

/* Sets *e from a code and the detail, with libvirt's beginning for that code: "Domain not found: …". Returns -1. */
int rpc_error_set(struct rpc_error *e, int code, int domain, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * Appends the answer "failed" to the call `call` (as a stream packet when `call` is one). 0 or -errno as rpc_encode().
 */
int rpc_encode_error(struct rpc_buf *b, const struct rpc_header *call, const struct rpc_error *e);

/* Fills *ret from a received error's payload; -EBADMSG, and an RPC error in *ret, when that is malformed. */
int rpc_decode_error(const uint8_t *payload, size_t len, struct rpc_error *ret);

#endif
