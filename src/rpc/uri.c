/* See uri.h. */
#include "rpc/uri.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "%41" -> "A". NULL: a bad escape, or NUL. */
static char *unescape(const char *s, size_t len)
{
    char *out = xcalloc(1, len + 1), *o = out;
    for (size_t i = 0; i < len; i++) {
        if (s[i] != '%') {
            *o++ = s[i];
            continue;
        }
        bool whole = i + 2 < len;
        int hi = whole ? hex(s[i + 1]) : -1, lo = whole ? hex(s[i + 2]) : -1;
        if (hi < 0 || lo < 0 || !(hi | lo)) {
            free(out);
            return NULL;
        }
        *o++ = hi << 4 | lo;
        i += 2;
    }
    return out;
}

static char *cut(const char *from, const char *to)
{
    char *s = xcalloc(1, to - from + 1);
    memcpy(s, from, to - from);
    return s;
}

int rpc_uri_parse(const char *text, struct rpc_uri *ret, struct err *err)
{
    *ret = (struct rpc_uri){0};
    const char *scheme_end = strstr(text, "://");
    if (!scheme_end || scheme_end == text || strlen(text) > 4096)
        return err_set(err, -EINVAL, "'%.100s' is no connection URI, such as qemu:///system", text);
    const char *plus = memchr(text, '+', scheme_end - text);
    ret->driver = cut(text, plus ? plus : scheme_end);
    if (plus)
        ret->transport = cut(plus + 1, scheme_end);
    const char *host = scheme_end + 3, *path = host + strcspn(host, "/?#");
    if (path > host)
        ret->host = cut(host, path);
    const char *query = path + strcspn(path, "?#");
    ret->path = cut(path, query);
    autofree char *kept = xcalloc(1, strlen(query) + 2);
    for (const char *p = query; *p == '?' || *p == '&';) {
        const char *name = p + 1, *end = name + strcspn(name, "&#");
        const char *equals = memchr(name, '=', end - name);
        if (equals && equals - name == 6 && !memcmp(name, "socket", 6)) {
            free(ret->socket);
            if (!(ret->socket = unescape(equals + 1, end - equals - 1)))
                return err_set(err, -EINVAL, "'%.100s' has a bad %% in its socket", text);
        } else if (end > name) {
            strcat(kept, *kept ? "&" : "?");
            strncat(kept, name, end - name);
        }
        p = end;
    }
    ret->name = xasprintf("%s://%s%s%s", ret->driver, ret->host ? ret->host : "", ret->path, kept);
    return 0;
}

void rpc_uri_free(struct rpc_uri *u)
{
    free(u->driver);
    free(u->transport);
    free(u->host);
    free(u->path);
    free(u->socket);
    free(u->name);
    *u = (struct rpc_uri){0};
}
