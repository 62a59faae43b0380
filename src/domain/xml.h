/*
 * XML documents as a small tree: elements with attributes, text, children and the line they stood on. Read with expat,
 * written as libvirt writes (two blanks a level, single quotes). Everything about a document's meaning is elsewhere
 * (parse.c, format.c). Documents are hostile input: size, depth and number of nodes are limited, entity declarations
 * are refused.
 */
#ifndef LODGE_DOMAIN_XML_H
#define LODGE_DOMAIN_XML_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define XML_MAX_BYTES (8u << 20)
#define XML_MAX_DEPTH 64
#define XML_MAX_NODES 200000

struct xml_attr {
    struct xml_attr *next;
    char *name; /* as written, with its prefix */
    char *value;
    bool used; /* for the caller: it has understood this */
};

struct xml_node {
    struct xml_node *parent, *first, *last, *next;
    char *name; /* as written, with its prefix */
    char *text; /* the character data directly inside, blanks at both ends removed; NULL when there is none */
    struct xml_attr *attrs, *attrs_last;
    int line;  /* 0 when made by xml_node_new() */
    bool used; /* for the caller: it has understood this */
};

/* Parses `len` bytes; `name` (a file name) stands in front of messages, as "name:line: …". The caller frees *ret. */
int xml_parse(const char *buf, size_t len, const char *name, struct xml_node **ret, struct err *err);

/* A new last child of `parent` (NULL: a root). `text` may be NULL. */
struct xml_node *xml_node_new(struct xml_node *parent, const char *name, const char *text);
/* Sets or replaces an attribute; a NULL value does nothing. */
void xml_attr_set(struct xml_node *n, const char *name, const char *value);
void xml_attr_setf(struct xml_node *n, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void xml_attr_remove(struct xml_node *n, const char *name);
const char *xml_attr_get(const struct xml_node *n, const char *name);
/* The first child of that name, or NULL. */
struct xml_node *xml_child(const struct xml_node *n, const char *name);
/* A deep copy, without a parent. */
struct xml_node *xml_copy(const struct xml_node *n);
/* Hangs `child`, which has no parent, under `parent` as its last child. */
void xml_append(struct xml_node *parent, struct xml_node *child);
/* The document as text, NUL terminated; the caller frees it. */
char *xml_format(const struct xml_node *root);
/* Can the string stand in a document: UTF-8 without control characters? */
bool xml_valid_text(const char *s);
/* NULL-safe; the whole subtree. */
void xml_free(struct xml_node *n);

#endif
