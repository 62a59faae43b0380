/*
 * Errors on their way to a client (rpc/error.h): the first one counts. A function that can fail fills the caller's
 * struct rpc_error and returns -1 (or NULL). Its `domain`, which part of the stack speaks, is set by whoever starts an
 * operation; until then it is the guest driver's.
 */
#ifndef LODGE_DAEMON_VERR_H
#define LODGE_DAEMON_VERR_H

#include "base/err.h"
#include "rpc/error.h"

/* Sets *e, unless it is set, and returns -1. The message is the code's words and the formatted detail. */
int verr_set(struct rpc_error *e, enum vir_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A system call's failure: "DETAIL: No such file…". `code` is an errno, its sign does not matter. */
int verr_errno(struct rpc_error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* What a library function reported. */
int verr_take(struct rpc_error *e, enum vir_code code, const struct err *err);

#endif
