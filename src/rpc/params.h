/* Typed parameters: lists of named values, as statistics and tunables travel. */
#ifndef LODGE_RPC_PARAMS_H
#define LODGE_RPC_PARAMS_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/procs.h"

/* A list being made. Its two first members are those of the lists in remote.x, so that it can be assigned to one. */
struct rpc_params {
    unsigned n;
    rp_param *v;
    unsigned size;
};

/* Each appends a copy. A NULL string is left out. Aborts when there is no memory: for our own values only. */
void rpc_params_int(struct rpc_params *p, int value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void rpc_params_uint(struct rpc_params *p, unsigned value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void rpc_params_llong(struct rpc_params *p, long long value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void rpc_params_ullong(struct rpc_params *p, unsigned long long value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void rpc_params_double(struct rpc_params *p, double value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void rpc_params_bool(struct rpc_params *p, bool value, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void rpc_params_string(struct rpc_params *p, const char *value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* NULL-safe for an empty list. */
void rpc_params_free(struct rpc_params *p);

/* The parameter of that name, or NULL. */
const rp_param *rpc_param_find(const rp_param *v, unsigned n, const char *field);
/* Its value as a number, whatever its type; false when there is none of that name, or it is text or below 0. */
bool rpc_param_u64(const rp_param *v, unsigned n, const char *field, unsigned long long *ret);
/* A value as text, as virsh prints it ("yes"/"no" for RP_BOOL, six digits for RP_DOUBLE). The caller frees it. */
char *rpc_param_text(const rp_param *p);

#endif
