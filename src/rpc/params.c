/* See params.h. */
#include "rpc/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

static rp_value *add(struct rpc_params *p, int type, const char *fmt, va_list ap)
{
    if (p->n == p->size) {
        unsigned size = p->size ? p->size * 2 : 16;
        rp_param *v = xcalloc(size, sizeof(*v));
        if (p->n)
            memcpy(v, p->v, p->n * sizeof(*v));
        free(p->v);
        p->v = v;
        p->size = size;
    }
    rp_param *param = &p->v[p->n++];
    if (vasprintf(&param->field, fmt, ap) < 0)
        abort();
    param->value.type = type;
    return &param->value;
}

#define ADDER(name, ctype, tag, member)                                                                                \
    void rpc_params_##name(struct rpc_params *p, ctype value, const char *fmt, ...)                                    \
    {                                                                                                                  \
        va_list ap;                                                                                                    \
        va_start(ap, fmt);                                                                                             \
        add(p, tag, fmt, ap)->rp_value_u.member = value;                                                               \
        va_end(ap);                                                                                                    \
    }
ADDER(int, int, RP_INT, i)
ADDER(uint, unsigned, RP_UINT, ui)
ADDER(llong, long long, RP_LLONG, l)
ADDER(ullong, unsigned long long, RP_ULLONG, ul)
ADDER(double, double, RP_DOUBLE, d)
ADDER(bool, bool, RP_BOOL, b)

void rpc_params_string(struct rpc_params *p, const char *value, const char *fmt, ...)
{
    if (!value)
        return;
    va_list ap;
    va_start(ap, fmt);
    add(p, RP_STRING, fmt, ap)->rp_value_u.s = xstrdup(value);
    va_end(ap);
}

void rpc_params_free(struct rpc_params *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        free(p->v[i].field);
        if (p->v[i].value.type == RP_STRING)
            free(p->v[i].value.rp_value_u.s);
    }
    free(p->v);
    *p = (struct rpc_params){0};
}

const rp_param *rpc_param_find(const rp_param *v, unsigned n, const char *field)
{
    for (unsigned i = 0; i < n; i++)
        if (!strcmp(v[i].field, field))
            return &v[i];
    return NULL;
}

bool rpc_param_u64(const rp_param *v, unsigned n, const char *field, unsigned long long *ret)
{
    const rp_param *p = rpc_param_find(v, n, field);
    if (!p)
        return false;
    long long l;
    switch (p->value.type) {
    case RP_INT:
        l = p->value.rp_value_u.i;
        break;
    case RP_UINT:
        l = p->value.rp_value_u.ui;
        break;
    case RP_LLONG:
        l = p->value.rp_value_u.l;
        break;
    case RP_ULLONG:
        *ret = p->value.rp_value_u.ul;
        return true;
    case RP_BOOL:
        l = !!p->value.rp_value_u.b;
        break;
    default:
        return false;
    }
    if (l < 0)
        return false;
    *ret = l;
    return true;
}

char *rpc_param_text(const rp_param *p)
{
    switch (p->value.type) {
    case RP_INT:
        return xasprintf("%d", p->value.rp_value_u.i);
    case RP_UINT:
        return xasprintf("%u", p->value.rp_value_u.ui);
    case RP_LLONG:
        return xasprintf("%lld", (long long)p->value.rp_value_u.l);
    case RP_ULLONG:
        return xasprintf("%llu", (unsigned long long)p->value.rp_value_u.ul);
    case RP_DOUBLE:
        return xasprintf("%f", p->value.rp_value_u.d);
    case RP_BOOL:
        return xstrdup(p->value.rp_value_u.b ? "yes" : "no");
    case RP_STRING:
        return xstrdup(p->value.rp_value_u.s);
    default:
        return xstrdup("");
    }
}
