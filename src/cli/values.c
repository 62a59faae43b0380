/* Values of options: sizes, numbers, lists of key=value, paths. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "cli/cli.h"

int cli_parse_size(const char *text, uint64_t unit, uint64_t *ret_bytes)
{
    static const char letters[] = "BKMGT";
    uint64_t v = 0, scale = unit;
    const char *s = text;
    if (!isdigit((unsigned char)*s))
        return -EINVAL;
    for (; isdigit((unsigned char)*s); s++) {
        if (v > UINT64_MAX / 10 - 1)
            return -EINVAL;
        v = v * 10 + (*s - '0');
    }
    if (*s) {
        const char *l = strchr(letters, toupper((unsigned char)*s));
        if (!l)
            return -EINVAL;
        scale = 1ull << (10 * (l - letters));
        s++;
        if (*s && strcasecmp(s, "b") && strcasecmp(s, "ib"))
            return -EINVAL;
        if (*l == 'B' && *s)
            return -EINVAL;
    }
    if (v > (UINT64_MAX >> 1) / scale)
        return -EINVAL;
    *ret_bytes = v * scale;
    return 0;
}

int cli_parse_number(const char *text, unsigned min, unsigned max, unsigned *ret)
{
    uint64_t v = 0;
    if (!*text)
        return -EINVAL;
    for (const char *s = text; *s; s++) {
        if (!isdigit((unsigned char)*s))
            return -EINVAL;
        v = v * 10 + (*s - '0');
        if (v > max)
            return -EINVAL;
    }
    if (v < min)
        return -EINVAL;
    *ret = v;
    return 0;
}

char *cli_next_part(char **text, char **ret_value)
{
    char *part = *text;
    if (!part)
        return NULL;
    char *from = part, *to = part;
    *text = NULL;
    for (; *from; from++) {
        if (*from == ',') {
            if (from[1] != ',') {
                *text = from + 1;
                break;
            }
            from++;
        }
        *to++ = *from;
    }
    *to = 0;
    char *equals = strchr(part, '=');
    if (equals)
        *equals = 0;
    *ret_value = equals ? equals + 1 : NULL;
    return part;
}

char *cli_absolute(const char *path)
{
    if (*path == '/')
        return xstrdup(path);
    autofree char *cwd = getcwd(NULL, 0);
    return cwd ? xasprintf("%s/%s", strcmp(cwd, "/") ? cwd : "", path) : NULL;
}
