/*
 * Reading a struct out of an XML tree. Everything that is asked for is marked as used, so that what nobody asked for
 * can be kept (reader_keep). The first failure is remembered with file and line, later ones are ignored: parsing
 * functions need no checks.
 */
#ifndef LODGE_DOMAIN_READER_H
#define LODGE_DOMAIN_READER_H

#include "domain/domain.h"
#include "domain/xml.h"

struct reader {
    const char *name; /* of the file */
    struct err *err;
    int code; /* of the first failure */
};

void reader_fail(struct reader *r, const struct xml_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* In all of these `n` may be NULL, which has no attributes, children or text. */
const char *reader_attr(struct xml_node *n, const char *name);
struct xml_node *reader_child(struct xml_node *n, const char *name);
/* The child's text, NULL when there is none. */
const char *reader_child_text(struct xml_node *n, const char *name);
/* Copies an attribute, or a child's text, to a string field. */
void reader_attr_str(struct xml_node *n, const char *name, char **field);
void reader_child_str(struct xml_node *n, const char *name, char **field);

/* A <uuid>'s text as 16 bytes; false when `n` is NULL or it failed. */
bool reader_uuid(struct reader *r, struct xml_node *n, uint8_t *ret_16);

/* Numbers: `missing` when there is no such attribute, a failure when it is not a decimal number of at most `max`. */
uint64_t reader_attr_num(struct reader *r, struct xml_node *n, const char *name, uint64_t missing, uint64_t max);
uint64_t reader_num(struct reader *r, struct xml_node *n, const char *what, const char *text, uint64_t max);
/* "yes"/"on" and "no"/"off". */
enum domain_tristate reader_attr_switch(struct reader *r, struct xml_node *n, const char *name);
/* A word by one of the domain_*_find() functions; `missing` when there is no such attribute. */
int reader_attr_word(struct reader *r, struct xml_node *n, const char *name, int (*find)(const char *), int missing);

/*
 * Keeps what was not used of `n` in `u`, under `path`. Used children that have a struct with a domain_unknown of their
 * own are skipped when `own` says so. Fails when an element that may stand once stands twice.
 */
void reader_keep(struct reader *r, struct xml_node *n, struct domain_unknown *u, const char *path,
                 bool (*own)(const struct xml_node *n));

void domain_unknown_free(struct domain_unknown *u);
/* Gives everything in `u` back to the formatted element `n`. */
void domain_unknown_graft(const struct domain_unknown *u, struct xml_node *n);

/* devices.c: <devices>. */
void reader_devices(struct reader *r, struct xml_node *n, struct domain *d);
/* Is it a child of <devices> that has its own struct? */
bool reader_is_device(const struct xml_node *n);

#endif
