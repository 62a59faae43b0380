/* See opts.h. */
#include "block/opts.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

enum { OPTS_MAX = 1000, JSON_DEPTH_MAX = 100 };

struct blk_opts *blk_opts_new(void)
{
    return xcalloc(1, sizeof(struct blk_opts));
}

void blk_opts_free(struct blk_opts *o)
{
    if (!o)
        return;
    for (unsigned i = 0; i < o->n; i++) {
        free(o->v[i].key);
        free(o->v[i].value);
    }
    free(o->v);
    free(o);
}

struct blk_opts *blk_opts_copy(const struct blk_opts *o)
{
    struct blk_opts *c = blk_opts_new();
    for (unsigned i = 0; o && i < o->n; i++)
        blk_opts_set(c, o->v[i].key, o->v[i].value);
    return c;
}

static struct blk_opt *find(const struct blk_opts *o, const char *key)
{
    for (unsigned i = 0; o && i < o->n; i++)
        if (!strcmp(o->v[i].key, key))
            return &o->v[i];
    return NULL;
}

void blk_opts_set(struct blk_opts *o, const char *key, const char *value)
{
    struct blk_opt *old = find(o, key);
    if (old) {
        char *copy = xstrdup(value);
        free(old->value);
        old->value = copy;
        return;
    }
    o->v = realloc(o->v, (o->n + 1) * sizeof *o->v);
    if (!o->v)
        abort();
    o->v[o->n++] = (struct blk_opt){.key = xstrdup(key), .value = xstrdup(value)};
}

void blk_opts_del(struct blk_opts *o, const char *key)
{
    struct blk_opt *f = find(o, key);
    if (!f)
        return;
    free(f->key);
    free(f->value);
    memmove(f, f + 1, (size_t)(o->v + --o->n - f) * sizeof *f);
}

const char *blk_opts_get(struct blk_opts *o, const char *key)
{
    struct blk_opt *f = find(o, key);
    if (!f)
        return NULL;
    f->used = true;
    return f->value;
}

bool blk_opts_has(const struct blk_opts *o, const char *key)
{
    return find(o, key) != NULL;
}

int blk_opts_bool(struct blk_opts *o, const char *key, bool def, bool *ret, struct err *err)
{
    const char *v = blk_opts_get(o, key);
    if (!v)
        *ret = def;
    else if (!strcmp(v, "on") || !strcmp(v, "true") || !strcmp(v, "yes") || !strcmp(v, "y"))
        *ret = true;
    else if (!strcmp(v, "off") || !strcmp(v, "false") || !strcmp(v, "no") || !strcmp(v, "n"))
        *ret = false;
    else
        return err_set(err, -EINVAL, "Parameter '%s' expects 'on' or 'off'", key);
    return 0;
}

int blk_parse_size(const char *text, uint64_t *ret)
{
    static const char units[] = "bkmgtpe";
    char *end;
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    unsigned long long whole = strtoull(text, &end, text[0] == '0' && (text[1] | 32) == 'x' ? 16 : 10);
    if (errno == ERANGE)
        return -ERANGE;
    double fraction = 0;
    if (*end == '.') {
        if (text[0] == '0' && (text[1] | 32) == 'x')
            return -EINVAL;
        char *stop;
        fraction = strtod(end, &stop);
        if (stop == end || memchr(end, 'e', (size_t)(stop - end)) || memchr(end, 'E', (size_t)(stop - end))) {
            if (stop != end)
                return -EINVAL;
            stop = end + 1;
            fraction = 0;
        }
        end = stop;
    }
    unsigned shift = 0;
    if (*end) {
        const char *u = strchr(units, tolower((unsigned char)*end));
        if (!u || end[1])
            return -EINVAL;
        shift = (unsigned)(u - units) * 10;
        if (!shift && fraction != 0)
            return -EINVAL;
    } else if (fraction != 0) {
        return -EINVAL;
    }
    if (shift && whole >> (64 - shift))
        return -ERANGE;
    uint64_t more = (uint64_t)(fraction * (double)(1ull << shift) + 0.5);
    if ((whole << shift) > UINT64_MAX - more)
        return -ERANGE;
    *ret = (whole << shift) + more;
    return 0;
}

int blk_opts_size(struct blk_opts *o, const char *key, uint64_t def, uint64_t *ret, struct err *err)
{
    const char *v = blk_opts_get(o, key);
    if (!v) {
        *ret = def;
        return 0;
    }
    int code = blk_parse_size(v, ret);
    if (code == -ERANGE)
        return err_set(err, code, "Value '%s' is out of range for parameter '%s'", v, key);
    if (code < 0)
        return err_set(err, code, "Parameter '%s' expects a non-negative number below 2^64", key);
    return 0;
}

/* Copies text up to a single comma, doubled ones as one; returns where it stopped. */
static const char *take_value(const char *p, char *out)
{
    for (; *p; p++) {
        if (*p == ',') {
            if (p[1] != ',')
                break;
            p++;
        }
        *out++ = *p;
    }
    *out = 0;
    return p;
}

int blk_opts_parse(struct blk_opts *o, const char *text, struct err *err)
{
    autofree char *value = xcalloc(1, strlen(text) + 1);
    for (const char *p = text; *p;) {
        size_t klen = strcspn(p, "=,");
        autofree char *key = strndup(p, klen);
        if (!key)
            abort();
        p += klen;
        if (!klen)
            return err_set(err, -EINVAL, "'%s': an option's name is missing", text);
        if (o->n >= OPTS_MAX)
            return err_set(err, -E2BIG, "more than %d options", OPTS_MAX);
        if (*p == '=') {
            p = take_value(p + 1, value);
            blk_opts_set(o, key, value);
        } else if (!strncmp(key, "no", 2) && key[2]) {
            blk_opts_set(o, key + 2, "off");
        } else {
            blk_opts_set(o, key, "on");
        }
        if (*p == ',')
            p++;
    }
    return 0;
}

static int flatten(struct blk_opts *o, const char *prefix, json_t *v, unsigned depth, struct err *err)
{
    const char *key;
    json_t *child;
    size_t i;
    if (depth > JSON_DEPTH_MAX || o->n >= OPTS_MAX)
        return err_set(err, -E2BIG, "json: too many options, or nested too deeply");
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        json_object_foreach (v, key, child) {
            autofree char *name = *prefix ? xasprintf("%s.%s", prefix, key) : xstrdup(key);
            int code = flatten(o, name, child, depth + 1, err);
            if (code < 0)
                return code;
        }
        break;
    case JSON_ARRAY:
        json_array_foreach (v, i, child) {
            autofree char *name = xasprintf("%s.%zu", prefix, i);
            int code = flatten(o, name, child, depth + 1, err);
            if (code < 0)
                return code;
        }
        break;
    case JSON_STRING:
        blk_opts_set(o, prefix, json_string_value(v));
        break;
    case JSON_INTEGER: {
        autofree char *n = xasprintf("%lld", (long long)json_integer_value(v));
        blk_opts_set(o, prefix, n);
        break;
    }
    case JSON_REAL: {
        autofree char *n = xasprintf("%.17g", json_real_value(v));
        blk_opts_set(o, prefix, n);
        break;
    }
    case JSON_TRUE:
    case JSON_FALSE:
        blk_opts_set(o, prefix, json_is_true(v) ? "on" : "off");
        break;
    case JSON_NULL:
        blk_opts_set(o, prefix, "");
        break;
    }
    return 0;
}

int blk_opts_parse_json(struct blk_opts *o, const char *json, struct err *err)
{
    json_error_t jerr;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &jerr);
    if (!root)
        return err_set(err, -EINVAL, "Could not parse the JSON options: %s", jerr.text);
    int code = json_is_object(root) ? flatten(o, "", root, 0, err) : err_set(err, -EINVAL, "Invalid JSON object given");
    json_decref(root);
    return code;
}

struct blk_opts *blk_opts_sub(struct blk_opts *o, const char *prefix)
{
    struct blk_opts *sub = NULL;
    size_t len = strlen(prefix);
    for (unsigned i = 0; o && i < o->n; i++) {
        if (strncmp(o->v[i].key, prefix, len) || o->v[i].key[len] != '.')
            continue;
        if (!sub)
            sub = blk_opts_new();
        blk_opts_set(sub, o->v[i].key + len + 1, o->v[i].value);
        o->v[i].used = true;
    }
    return sub;
}

int blk_opts_finish(const struct blk_opts *o, const char *what, struct err *err)
{
    for (unsigned i = 0; o && i < o->n; i++)
        if (!o->v[i].used)
            return err_set(err, -EINVAL, "%s does not support the option '%s'", what, o->v[i].key);
    return 0;
}
