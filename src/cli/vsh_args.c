/* Options of the management verbs, as virsh takes them. See vsh.h. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/vsh.h"

unsigned vsh_options(const struct vsh_cmd *cmd, struct vsh_option o[VSH_OPTIONS_MAX])
{
    unsigned n = 0;
    for (const char *p = cmd->options ? cmd->options : ""; *p && n < VSH_OPTIONS_MAX;) {
        size_t len = strcspn(p, " "), name = strcspn(p, " ?#*!:~=");
        struct vsh_option *at = &o[n++];
        *at = (struct vsh_option){.kind = VSH_TEXT};
        snprintf(at->name, sizeof(at->name), "%.*s", (int)name, p);
        if (p[name] == '=') {
            at->kind = VSH_ALIAS;
            snprintf(at->alias, sizeof(at->alias), "%.*s", (int)(len - name - 1), p + name + 1);
        }
        for (size_t i = name; i < len && at->kind != VSH_ALIAS; i++) {
            if (p[i] == '?')
                at->kind = VSH_SWITCH;
            else if (p[i] == '#')
                at->kind = VSH_NUMBER;
            else if (p[i] == '*')
                at->kind = VSH_WORDS;
            at->required |= p[i] == '!';
            at->by_name |= p[i] == ':';
            at->empty_ok |= p[i] == '~';
        }
        p += len;
        p += strspn(p, " ");
    }
    if ((cmd->flags & VSH_JSON) && n < VSH_OPTIONS_MAX)
        o[n++] = (struct vsh_option){.name = "json", .kind = VSH_SWITCH};
    return n;
}

static int find(const struct vsh_args *a, const char *name, size_t len)
{
    for (unsigned i = 0; i < a->n_options; i++)
        if (strlen(a->options[i].name) == len && !memcmp(a->options[i].name, name, len))
            return i;
    return -1;
}

static bool add(struct vsh *v, struct vsh_args *a, unsigned option, const char *value)
{
    if (a->n == VSH_ARGS_MAX)
        return vsh_error(v, "too many arguments");
    a->v[a->n].option = option;
    a->v[a->n++].value = value;
    return true;
}

/* One word that starts with "--"; takes the next one too when it is the value. */
static bool parse_named(struct vsh *v, struct vsh_args *a, const char *word, const char *next, bool *took,
                        uint64_t *seen)
{
    const char *equals = strchr(word, '='), *name = word + 2, *value = equals ? equals + 1 : NULL;
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    if (len == 4 && !memcmp(name, "help", 4) && !value) {
        a->help = true;
        return true;
    }
    int i = find(a, name, len);
    if (i >= 0 && a->options[i].kind == VSH_ALIAS) {
        const char *to = a->options[i].alias, *fixed = strchr(to, '=');
        if (fixed && value)
            return vsh_error(v, "invalid '=' after option --%.*s", (int)len, name);
        if (fixed)
            value = fixed + 1;
        i = find(a, to, fixed ? (size_t)(fixed - to) : strlen(to));
    }
    if (i < 0)
        return vsh_error(v, "command '%s' doesn't support option --%.*s", a->cmd->name, (int)len, name);
    const struct vsh_option *o = &a->options[i];
    if ((*seen & 1ull << i) && o->kind != VSH_WORDS)
        return vsh_error(v, "option --%s already seen", o->name);
    *seen |= 1ull << i;
    if (o->kind == VSH_SWITCH)
        return value ? vsh_error(v, "invalid '=' after option --%s", o->name) : add(v, a, i, NULL);
    if (!value) {
        if (!next)
            return vsh_error(v, "expected syntax: --%s <%s>", o->name, o->kind == VSH_NUMBER ? "number" : "string");
        value = next;
        *took = true;
    }
    return add(v, a, i, value);
}

bool vsh_args_parse(struct vsh *v, const struct vsh_cmd *cmd, int argc, char **argv, struct vsh_args *ret)
{
    struct vsh_args *a = ret;
    a->cmd = cmd;
    a->n = 0;
    a->help = false;
    a->n_options = vsh_options(cmd, a->options);
    uint64_t seen = 0;
    bool only_data = false;
    for (int i = 0; i < argc; i++) {
        const char *w = argv[i];
        if (!only_data && w[0] == '-' && w[1] == '-' && isalnum((unsigned char)w[2])) {
            bool took = false;
            if (!parse_named(v, a, w, i + 1 < argc ? argv[i + 1] : NULL, &took, &seen))
                return false;
            i += took;
            continue;
        }
        /* One letter, where the verb has an option of one. */
        if (!only_data && w[0] == '-' && isalpha((unsigned char)w[1]) && !w[2] && find(a, w + 1, 1) >= 0) {
            char word[] = {'-', '-', w[1], 0};
            bool took;
            if (!parse_named(v, a, word, NULL, &took, &seen))
                return false;
            continue;
        }
        if (!only_data && !strcmp(w, "--")) {
            only_data = true;
            continue;
        }
        unsigned o = 0;
        while (o < a->n_options && (a->options[o].kind == VSH_SWITCH || a->options[o].kind == VSH_ALIAS ||
                                    a->options[o].by_name || ((seen & 1ull << o) && a->options[o].kind != VSH_WORDS)))
            o++;
        if (o == a->n_options)
            return vsh_error(v, "unexpected data '%s'", w);
        seen |= 1ull << o;
        if (!add(v, a, o, w))
            return false;
    }
    for (unsigned o = 0; o < a->n_options && !a->help; o++)
        if (a->options[o].required && !(seen & 1ull << o))
            return vsh_error(v,
                             a->options[o].kind == VSH_TEXT ? "command '%s' requires <%s> option"
                                                            : "command '%s' requires --%s option",
                             cmd->name, a->options[o].name);
    for (unsigned i = 0; i < a->n; i++) {
        const struct vsh_option *o = &a->options[a->v[i].option];
        if (o->kind == VSH_TEXT && !*a->v[i].value && !o->empty_ok && !a->help)
            return vsh_error(v, "Failed to get option '%s': Option argument is empty", o->name);
    }
    return true;
}

static int index_of(const struct vsh_args *a, const char *option)
{
    for (unsigned i = 0; i < a->n; i++)
        if (!strcmp(a->options[a->v[i].option].name, option))
            return i;
    return -1;
}

bool vsh_has(const struct vsh_args *a, const char *option)
{
    return index_of(a, option) >= 0;
}

const char *vsh_text(const struct vsh_args *a, const char *option)
{
    int i = index_of(a, option);
    return i < 0 ? NULL : a->v[i].value;
}

const char *vsh_word(const struct vsh_args *a, const char *option, unsigned *at)
{
    while (*at < a->n) {
        unsigned i = (*at)++;
        if (!strcmp(a->options[a->v[i].option].name, option))
            return a->v[i].value;
    }
    return NULL;
}

static bool bad_number(struct vsh *v, const char *option, const char *text)
{
    return vsh_error(v, "Numeric value '%s' for <%s> option is malformed or out of range", text, option);
}

static bool number(struct vsh *v, const struct vsh_args *a, const char *option, long long min, long long max,
                   long long *ret)
{
    const char *t = vsh_text(a, option);
    if (!t)
        return true;
    char *end;
    errno = 0;
    long long n = strtoll(t, &end, 10);
    if (errno || end == t || *end || n < min || n > max)
        return bad_number(v, option, t);
    *ret = n;
    return true;
}

bool vsh_int(struct vsh *v, const struct vsh_args *a, const char *option, int *ret)
{
    long long n = *ret;
    bool ok = number(v, a, option, INT_MIN, INT_MAX, &n);
    *ret = n;
    return ok;
}

bool vsh_uint(struct vsh *v, const struct vsh_args *a, const char *option, unsigned *ret)
{
    long long n = *ret;
    bool ok = number(v, a, option, 0, UINT_MAX, &n);
    *ret = n;
    return ok;
}

bool vsh_ll(struct vsh *v, const struct vsh_args *a, const char *option, long long *ret)
{
    return number(v, a, option, LLONG_MIN, LLONG_MAX, ret);
}

bool vsh_ull(struct vsh *v, const struct vsh_args *a, const char *option, unsigned long long *ret)
{
    const char *t = vsh_text(a, option);
    if (!t)
        return true;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(t, &end, 10);
    if (errno || end == t || *end || strchr(t, '-'))
        return bad_number(v, option, t);
    *ret = n;
    return true;
}

/* "", "b", "k", "KB", "KiB" and so on up to E. 0: no such unit. */
static unsigned long long unit_bytes(const char *s, unsigned scale)
{
    static const char letters[] = "kmgtpe";
    if (!*s)
        return scale;
    if (!strcasecmp(s, "b") || !strcasecmp(s, "byte") || !strcasecmp(s, "bytes"))
        return 1;
    const char *l = strchr(letters, tolower((unsigned char)*s));
    if (!l)
        return 0;
    unsigned long long base = !s[1] || !strcasecmp(s + 1, "iB") ? 1024 : !strcasecmp(s + 1, "B") ? 1000 : 0, n = base;
    for (const char *i = letters; i < l; i++)
        n *= base;
    return n;
}

bool vsh_scale(struct vsh *v, const char *text, unsigned scale, unsigned long long *ret)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || end == text || strchr(text, '-'))
        return false;
    unsigned long long unit = unit_bytes(end, scale);
    if (!unit) {
        rpc_error_set(&v->error, VIR_INVALID_ARG, VIR_FROM_NONE, "unknown suffix '%s'", end);
        return false;
    }
    if (__builtin_mul_overflow(n, unit, ret)) {
        rpc_error_set(&v->error, VIR_OVERFLOW, VIR_FROM_NONE, "value too large: %llu%s", n, end);
        return false;
    }
    return true;
}

bool vsh_scaled(struct vsh *v, const struct vsh_args *a, const char *option, unsigned scale, unsigned long long *ret)
{
    const char *t = vsh_text(a, option);
    return !t || vsh_scale(v, t, scale, ret) ||
           vsh_error(v, "Scaled numeric value '%s' for <%s> option is malformed or out of range", t, option);
}

bool vsh_exclusive(struct vsh *v, const struct vsh_args *a, const char *one, const char *other)
{
    if (vsh_has(a, one) && vsh_has(a, other))
        return vsh_error(v, "Options --%s and --%s are mutually exclusive", one, other);
    return true;
}

int vsh_affect(struct vsh *v, const struct vsh_args *a)
{
    if (!vsh_exclusive(v, a, "current", "live") || !vsh_exclusive(v, a, "current", "config"))
        return -1;
    return vsh_has(a, "live") | vsh_has(a, "config") << 1;
}
