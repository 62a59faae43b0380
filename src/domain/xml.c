/* See xml.h. The parser's callbacks build the tree; the first error stops expat. */
#include "domain/xml.h"

#include <errno.h>
#include <expat.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

struct text {
    char *s;
    size_t len, cap;
};

static void text_add(struct text *t, const char *s, size_t n)
{
    if (t->len + n + 1 > t->cap) {
        t->cap = (t->len + n + 1) * 2;
        t->s = realloc(t->s, t->cap);
        if (!t->s)
            abort();
    }
    memcpy(t->s + t->len, s, n);
    t->len += n;
    t->s[t->len] = 0;
}

static void text_puts(struct text *t, const char *s)
{
    text_add(t, s, strlen(s));
}

struct xml_node *xml_node_new(struct xml_node *parent, const char *name, const char *text)
{
    struct xml_node *n = xcalloc(1, sizeof *n);
    n->name = xstrdup(name);
    n->text = text ? xstrdup(text) : NULL;
    if (parent)
        xml_append(parent, n);
    return n;
}

void xml_append(struct xml_node *parent, struct xml_node *child)
{
    child->parent = parent;
    child->next = NULL;
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
}

static struct xml_attr *attr_find(const struct xml_node *n, const char *name)
{
    for (struct xml_attr *a = n->attrs; a; a = a->next)
        if (!strcmp(a->name, name))
            return a;
    return NULL;
}

void xml_attr_set(struct xml_node *n, const char *name, const char *value)
{
    if (!value)
        return;
    struct xml_attr *a = attr_find(n, name);
    if (!a) {
        a = xcalloc(1, sizeof *a);
        a->name = xstrdup(name);
        if (n->attrs_last)
            n->attrs_last->next = a;
        else
            n->attrs = a;
        n->attrs_last = a;
    }
    char *copy = xstrdup(value);
    free(a->value);
    a->value = copy;
}

void xml_attr_setf(struct xml_node *n, const char *name, const char *fmt, ...)
{
    va_list ap;
    char *value;
    va_start(ap, fmt);
    int r = vasprintf(&value, fmt, ap);
    va_end(ap);
    if (r < 0)
        abort();
    xml_attr_set(n, name, value);
    free(value);
}

void xml_attr_remove(struct xml_node *n, const char *name)
{
    struct xml_attr **link = &n->attrs, *before = NULL;
    while (*link && strcmp((*link)->name, name)) {
        before = *link;
        link = &before->next;
    }
    struct xml_attr *a = *link;
    if (!a)
        return;
    *link = a->next;
    if (n->attrs_last == a)
        n->attrs_last = before;
    free(a->name);
    free(a->value);
    free(a);
}

const char *xml_attr_get(const struct xml_node *n, const char *name)
{
    const struct xml_attr *a = attr_find(n, name);
    return a ? a->value : NULL;
}

struct xml_node *xml_child(const struct xml_node *n, const char *name)
{
    for (struct xml_node *c = n->first; c; c = c->next)
        if (!strcmp(c->name, name))
            return c;
    return NULL;
}

struct xml_node *xml_copy(const struct xml_node *n)
{
    struct xml_node *copy = xml_node_new(NULL, n->name, n->text);
    copy->line = n->line;
    for (const struct xml_attr *a = n->attrs; a; a = a->next)
        xml_attr_set(copy, a->name, a->value);
    for (const struct xml_node *c = n->first; c; c = c->next)
        xml_append(copy, xml_copy(c));
    return copy;
}

void xml_free(struct xml_node *n)
{
    if (!n)
        return;
    for (struct xml_node *c = n->first, *next; c; c = next) {
        next = c->next;
        xml_free(c);
    }
    for (struct xml_attr *a = n->attrs, *next; a; a = next) {
        next = a->next;
        free(a->name);
        free(a->value);
        free(a);
    }
    free(n->name);
    free(n->text);
    free(n);
}

bool xml_valid_text(const char *str)
{
    const unsigned char *s = (const unsigned char *)str;
    while (*s) {
        if (*s < 0x80) {
            if (*s < 0x20 && *s != '\t' && *s != '\n' && *s != '\r')
                return false;
            s++;
            continue;
        }
        unsigned more = *s >= 0xf0 && *s <= 0xf4 ? 3 : *s >= 0xe0 && *s < 0xf0 ? 2 : *s >= 0xc2 && *s < 0xe0 ? 1 : 0;
        uint32_t c = *s++ & (0x3f >> more);
        if (!more)
            return false;
        for (unsigned i = 0; i < more; i++, s++) {
            if ((*s & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*s & 0x3f);
        }
        if ((more == 2 && c < 0x800) || (more == 3 && c < 0x10000) || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ||
            c == 0xfffe || c == 0xffff)
            return false;
    }
    return true;
}

/* Writing. */

static void put_escaped(struct text *t, const char *s, bool attr)
{
    for (; *s; s++) {
        switch (*s) {
        case '&':
            text_puts(t, "&amp;");
            break;
        case '<':
            text_puts(t, "&lt;");
            break;
        case '>':
            text_puts(t, "&gt;");
            break;
        case '\'':
            text_puts(t, attr ? "&apos;" : "'");
            break;
        case '\r':
            text_puts(t, "&#13;");
            break;
        case '\n':
            text_puts(t, attr ? "&#10;" : "\n");
            break;
        case '\t':
            text_puts(t, attr ? "&#9;" : "\t");
            break;
        default:
            text_add(t, s, 1);
        }
    }
}

static void put_indent(struct text *t, int depth)
{
    for (int i = 0; i < depth; i++)
        text_puts(t, "  ");
}

static void put_node(struct text *t, const struct xml_node *n, int depth)
{
    put_indent(t, depth);
    text_puts(t, "<");
    text_puts(t, n->name);
    for (const struct xml_attr *a = n->attrs; a; a = a->next) {
        text_puts(t, " ");
        text_puts(t, a->name);
        text_puts(t, "='");
        put_escaped(t, a->value, true);
        text_puts(t, "'");
    }
    if (!n->text && !n->first) {
        text_puts(t, "/>\n");
        return;
    }
    text_puts(t, ">");
    if (n->text)
        put_escaped(t, n->text, false);
    if (n->first) {
        text_puts(t, "\n");
        for (const struct xml_node *c = n->first; c; c = c->next)
            put_node(t, c, depth + 1);
        put_indent(t, depth);
    }
    text_puts(t, "</");
    text_puts(t, n->name);
    text_puts(t, ">\n");
}

char *xml_format(const struct xml_node *root)
{
    struct text t = {0};
    put_node(&t, root, 0);
    return t.s;
}

/* Reading. */

struct reader {
    XML_Parser parser;
    const char *name;
    struct xml_node *root, *at;
    struct text text[XML_MAX_DEPTH + 1]; /* of the open elements */
    int depth;
    unsigned nodes;
    bool failed;
    struct err *err;
};

static int line_of(const struct reader *r)
{
    return (int)XML_GetCurrentLineNumber(r->parser);
}

static void fail(struct reader *r, const char *what)
{
    if (r->failed)
        return;
    r->failed = true;
    err_set(r->err, -EINVAL, "%s:%d: %s", r->name, line_of(r), what);
    XML_StopParser(r->parser, XML_FALSE);
}

static void on_start(void *opaque, const char *name, const char **attrs)
{
    struct reader *r = opaque;
    if (r->failed)
        return;
    if (r->depth >= XML_MAX_DEPTH) {
        fail(r, "elements are nested too deeply");
        return;
    }
    if (++r->nodes > XML_MAX_NODES) {
        fail(r, "the document has too many elements");
        return;
    }
    struct xml_node *n = xml_node_new(r->at, name, NULL);
    n->line = line_of(r);
    if (!r->root)
        r->root = n;
    r->at = n;
    r->depth++;
    r->text[r->depth].len = 0;
    for (; *attrs; attrs += 2) {
        if (++r->nodes > XML_MAX_NODES) {
            fail(r, "the document has too many attributes");
            return;
        }
        struct xml_attr *a = xcalloc(1, sizeof *a); /* expat has made sure that names are different */
        a->name = xstrdup(attrs[0]);
        a->value = xstrdup(attrs[1]);
        if (n->attrs_last)
            n->attrs_last->next = a;
        else
            n->attrs = a;
        n->attrs_last = a;
    }
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void on_end(void *opaque, const char *name)
{
    struct reader *r = opaque;
    if (r->failed)
        return;
    struct text *t = &r->text[r->depth];
    size_t from = 0, to = t->len;
    while (from < to && is_blank(t->s[from]))
        from++;
    while (to > from && is_blank(t->s[to - 1]))
        to--;
    if (to > from) {
        t->s[to] = 0;
        r->at->text = xstrdup(t->s + from);
    }
    r->at = r->at->parent;
    r->depth--;
}

static void on_text(void *opaque, const char *s, int len)
{
    struct reader *r = opaque;
    if (!r->failed && r->depth > 0)
        text_add(&r->text[r->depth], s, len);
}

static void on_doctype(void *opaque, const char *name, const char *sysid, const char *pubid, int internal)
{
    fail(opaque, "a document type declaration is not allowed");
}

int xml_parse(const char *buf, size_t len, const char *name, struct xml_node **ret, struct err *err)
{
    if (len > XML_MAX_BYTES)
        return err_set(err, -EFBIG, "%s: larger than %u MiB, not a domain document", name, XML_MAX_BYTES >> 20);
    struct reader *r = xcalloc(1, sizeof *r);
    r->name = name;
    r->err = err;
    r->parser = XML_ParserCreate(NULL);
    if (!r->parser)
        abort();
    XML_SetUserData(r->parser, r);
    XML_SetElementHandler(r->parser, on_start, on_end);
    XML_SetCharacterDataHandler(r->parser, on_text);
    XML_SetStartDoctypeDeclHandler(r->parser, on_doctype);
    int code = 0;
    if (XML_Parse(r->parser, buf, (int)len, XML_TRUE) != XML_STATUS_OK || r->failed) {
        code = -EINVAL;
        if (!r->failed) {
            enum XML_Error e = XML_GetErrorCode(r->parser);
            if (!len)
                err_set(err, code, "%s: not XML: the file is empty", name);
            else
                err_set(err, code, "%s:%d: not well-formed XML: %s", name, line_of(r), XML_ErrorString(e));
        }
    }
    XML_ParserFree(r->parser);
    for (int i = 0; i <= XML_MAX_DEPTH; i++)
        free(r->text[i].s);
    if (code)
        xml_free(r->root);
    else
        *ret = r->root;
    free(r);
    return code;
}
