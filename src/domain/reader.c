/* See reader.h. */
#include "domain/reader.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

void reader_fail(struct reader *r, const struct xml_node *n, const char *fmt, ...)
{
    if (r->code)
        return;
    char msg[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    r->code = err_set(r->err, -EINVAL, "%s:%d: %s", r->name, n->line, msg);
}

const char *reader_attr(struct xml_node *n, const char *name)
{
    for (struct xml_attr *a = n ? n->attrs : NULL; a; a = a->next) {
        if (!strcmp(a->name, name)) {
            a->used = true;
            return a->value;
        }
    }
    return NULL;
}

struct xml_node *reader_child(struct xml_node *n, const char *name)
{
    struct xml_node *c = n ? xml_child(n, name) : NULL;
    if (c)
        c->used = true;
    return c;
}

const char *reader_child_text(struct xml_node *n, const char *name)
{
    struct xml_node *c = reader_child(n, name);
    return c ? c->text : NULL;
}

void reader_attr_str(struct xml_node *n, const char *name, char **field)
{
    domain_set(field, reader_attr(n, name));
}

void reader_child_str(struct xml_node *n, const char *name, char **field)
{
    domain_set(field, reader_child_text(n, name));
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* 32 hexadecimal digits; libvirt allows '-' anywhere between bytes. */
bool reader_uuid(struct reader *r, struct xml_node *n, uint8_t *ret_16)
{
    if (!n)
        return false;
    const char *s = n->text ? n->text : "";
    unsigned i = 0;
    while (i < 16) {
        if (*s == '-' && i) {
            s++;
            continue;
        }
        int hi = hex_digit(s[0]), lo = hi < 0 ? -1 : hex_digit(s[1]);
        if (lo < 0)
            break;
        ret_16[i++] = hi << 4 | lo;
        s += 2;
    }
    if (i == 16 && !*s)
        return true;
    reader_fail(r, n, "<uuid>: '%.60s' is not a UUID", n->text ? n->text : "");
    return false;
}

uint64_t reader_num(struct reader *r, struct xml_node *n, const char *what, const char *text, uint64_t max)
{
    uint64_t v = 0;
    const char *s = text ? text : "";
    if (!*s) {
        reader_fail(r, n, "%s: a number is missing", what);
        return 0;
    }
    for (; *s; s++) {
        if (*s < '0' || *s > '9') {
            reader_fail(r, n, "%s: '%.40s' is not a number", what, text);
            return 0;
        }
        if (v > (UINT64_MAX - (*s - '0')) / 10 || v * 10 + (*s - '0') > max) {
            reader_fail(r, n, "%s: %.40s is too large (at most %llu)", what, text, (unsigned long long)max);
            return 0;
        }
        v = v * 10 + (*s - '0');
    }
    return v;
}

static void attr_label(char *buf, size_t size, const struct xml_node *n, const char *name)
{
    snprintf(buf, size, "<%.40s %s>", n->name, name);
}

uint64_t reader_attr_num(struct reader *r, struct xml_node *n, const char *name, uint64_t missing, uint64_t max)
{
    const char *s = reader_attr(n, name);
    if (!s)
        return missing;
    char label[80];
    attr_label(label, sizeof label, n, name);
    return reader_num(r, n, label, s, max);
}

enum domain_tristate reader_attr_switch(struct reader *r, struct xml_node *n, const char *name)
{
    const char *s = reader_attr(n, name);
    if (!s)
        return DOMAIN_DEFAULT;
    if (!strcmp(s, "yes") || !strcmp(s, "on"))
        return DOMAIN_ON;
    if (!strcmp(s, "no") || !strcmp(s, "off"))
        return DOMAIN_OFF;
    reader_fail(r, n, "<%.40s %s>: '%.40s' is neither yes nor no", n->name, name, s);
    return DOMAIN_DEFAULT;
}

int reader_attr_word(struct reader *r, struct xml_node *n, const char *name, int (*find)(const char *), int missing)
{
    const char *s = reader_attr(n, name);
    if (!s)
        return missing;
    int v = find(s);
    if (v < 0) {
        reader_fail(r, n, "<%.40s %s>: unknown value '%.40s'", n->name, name, s);
        return missing;
    }
    return v;
}

/* Which of its parent's children of that name it is, from 1. */
static int place_among(const struct xml_node *n)
{
    int place = 1;
    for (const struct xml_node *c = n->parent->first; c != n; c = c->next)
        place += !strcmp(c->name, n->name);
    return place;
}

/* An element that may stand once was understood; a second one would take its place when the document is written. Not so
 * devices: there a kind may be understood in part. */
static void refuse_second(struct reader *r, const struct xml_node *n)
{
    if (!strcmp(n->parent->name, "devices") || !strcmp(n->parent->name, "graphics"))
        return;
    for (const struct xml_node *c = n->parent->first; c != n; c = c->next)
        if (c->used && !strcmp(c->name, n->name))
            reader_fail(r, n, "<%.40s> is there twice", n->name);
}

void reader_keep(struct reader *r, struct xml_node *n, struct domain_unknown *u, const char *path,
                 bool (*own)(const struct xml_node *n))
{
    for (struct xml_attr *a = n->attrs; a; a = a->next) {
        if (a->used)
            continue;
        struct domain_unknown_item *it = DOMAIN_ADD(u, items);
        it->path = xstrdup(path);
        it->attr = xstrdup(a->name);
        it->value = xstrdup(a->value);
        it->line = n->line;
    }
    for (struct xml_node *c = n->first; c; c = c->next) {
        if (!c->used) {
            refuse_second(r, c);
            struct domain_unknown_item *it = DOMAIN_ADD(u, items);
            it->path = xstrdup(path);
            it->node = xml_copy(c);
            it->line = c->line;
        } else if (!own || !own(c)) {
            int place = place_among(c);
            autofree char *sub = place > 1 ? xasprintf("%s%s%s[%d]", path, *path ? "/" : "", c->name, place)
                                           : xasprintf("%s%s%s", path, *path ? "/" : "", c->name);
            reader_keep(r, c, u, sub, own);
        }
    }
}

/* The element at `path` below `n`; made where it is missing. */
static struct xml_node *at_path(struct xml_node *n, const char *path)
{
    while (*path) {
        size_t len = strcspn(path, "/");
        autofree char *name = xasprintf("%.*s", (int)len, path);
        path += len + (path[len] == '/');
        int place = 1;
        char *bracket = strchr(name, '[');
        if (bracket) {
            place = atoi(bracket + 1);
            *bracket = 0;
        }
        struct xml_node *c = n->first;
        for (; c; c = c->next)
            if (!strcmp(c->name, name) && --place == 0)
                break;
        n = c ? c : xml_node_new(n, name, NULL);
    }
    return n;
}

void domain_unknown_graft(const struct domain_unknown *u, struct xml_node *n)
{
    for (unsigned i = 0; i < u->n_items; i++) {
        const struct domain_unknown_item *it = &u->items[i];
        struct xml_node *at = at_path(n, it->path);
        if (it->node)
            xml_append(at, xml_copy(it->node));
        else
            xml_attr_set(at, it->attr, it->value);
    }
}
