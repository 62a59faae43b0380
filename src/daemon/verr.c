/* See verr.h. */
#include "daemon/verr.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set(struct rpc_error *e, enum vir_code code, const char *detail)
{
    if (!e->code)
        rpc_error_set(e, code, e->domain ? e->domain : VIR_FROM_QEMU, "%s", detail);
    return -1;
}

int verr_set(struct rpc_error *e, enum vir_code code, const char *fmt, ...)
{
    char detail[sizeof e->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    return set(e, code, detail);
}

int verr_errno(struct rpc_error *e, int code, const char *fmt, ...)
{
    char detail[sizeof e->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    return verr_set(e, VIR_SYSTEM_ERROR, "%s: %s", detail, strerror(abs(code)));
}

int verr_take(struct rpc_error *e, enum vir_code code, const struct err *err)
{
    return set(e, code, err->msg);
}
