#include "net/passt_publish.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A port number at *s, which goes past it; 0 when there is none. */
static unsigned get_port(const char **s)
{
    unsigned v = 0, digits = 0;
    for (; **s >= '0' && **s <= '9' && digits < 6; (*s)++, digits++)
        v = v * 10 + (unsigned)(**s - '0');
    return v < 65536 ? v : 0;
}

/* "A" or "A-B" at *s. */
static bool get_range(const char **s, unsigned *ret_first, unsigned *ret_last)
{
    *ret_first = *ret_last = get_port(s);
    if (*ret_first && **s == '-') {
        (*s)++;
        *ret_last = get_port(s);
    }
    return *ret_first && *ret_last >= *ret_first;
}

/* Where on the host: "1.2.3.4:", "[fe80::1]:", with or without "%interface"; empty for everywhere. False: malformed. */
static bool get_address(const char **s, const char **ret, size_t *ret_len)
{
    const char *p = *s;
    *ret = p;
    *ret_len = 0;
    if (*p == '[') {
        *ret = p + 1;
        *ret_len = strcspn(p + 1, "]");
        p += *ret_len + 1;
        if (*p++ != ']')
            return false;
    } else {
        size_t len = strcspn(p, ":");
        if (!memchr(p, '.', len) && !memchr(p, '%', len))
            return true;
        *ret_len = len;
        p += len;
    }
    if (*p++ != ':' || !*ret_len || *ret_len > 80 || (!isxdigit((unsigned char)**ret) && !strchr(":%", **ret)))
        return false;
    for (size_t i = 0; i < *ret_len; i++)
        if (!isalnum((unsigned char)(*ret)[i]) && !strchr(".:%_-", (*ret)[i]))
            return false;
    *s = p;
    return true;
}

int passt_publish(const char *s, const char **ret_opt, char *val, size_t size, struct err *err)
{
    const char *p = s, *addr;
    unsigned first, last, guest;
    size_t naddr, n;
    bool ok = !strncmp(s, "tcp:", 4) || !strncmp(s, "udp:", 4), excluded = false;
    *ret_opt = s[0] == 't' ? "-t" : "-u";
    p += ok ? 4 : 0;
    ok = ok && get_address(&p, &addr, &naddr);
    n = ok ? (size_t)snprintf(val, size, "%.*s%s", (int)naddr, addr, naddr ? "/" : "") : 0;
    ok = ok && n < size;
    if (ok && !strcmp(p, "all")) {
        n += (size_t)snprintf(val + n, size - n, "all");
        p += 3;
    } else if (ok && *p == '~') {
        excluded = true;
        p--;
    } else if (ok && (ok = get_range(&p, &first, &last))) {
        guest = first;
        if (*p == ':') {
            p++;
            guest = get_port(&p);
        }
        ok = guest && guest + (last - first) <= 65535;
        n += (size_t)snprintf(val + n, size - n, "%u-%u:%u-%u", first, last, guest, guest + (last - first));
    }
    while (ok && (excluded || *p == ',')) {
        ok = *++p == '~';
        p++;
        ok = ok && get_range(&p, &first, &last) && n < size;
        if (ok)
            n += (size_t)snprintf(val + n, size - n, "%s~%u-%u", excluded ? "" : ",", first, last);
        excluded = false;
    }
    if (!ok || *p || n >= size)
        return err_set(
            err, -EINVAL,
            "network 'user': publish '%s': expected tcp|udp:[ADDRESS:]HOSTPORT[-LAST][:GUESTPORT][,~PORT[-LAST]]...",
            s);
    return 0;
}
