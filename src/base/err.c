/* Formatting of struct err. Messages that do not fit are cut, never overrun. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Names in messages come from files and clients: they stay on the line and say nothing to a terminal. */
static void clean(struct err *err)
{
    for (char *s = err->msg; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    clean(err);
    err->code = code;
    return code;
}

void err_prefix(struct err *err, const char *fmt, ...)
{
    char old[ERR_MSG_MAX];
    if (!err)
        return;
    memcpy(old, err->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && n < (int)sizeof err->msg)
        snprintf(err->msg + n, sizeof err->msg - n, ": %s", old);
    clean(err);
}

int err_errno(struct err *err, int code, const char *fmt, ...)
{
    char what[ERR_MSG_MAX];
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(err->msg, sizeof err->msg, "%s: %s", what, strerror(-code));
    clean(err);
    err->code = code;
    return code;
}
