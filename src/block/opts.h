/*
 * Options of an image as a flat, ordered list of key=value ("driver=qcow2,file.filename=/x", or json:{…}). The functions
 * that take values out mark them as used, so that what nobody understood can be named. One thread at a time.
 */
#ifndef LODGE_BLOCK_OPTS_H
#define LODGE_BLOCK_OPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct blk_opt {
    char *key, *value;
    bool used;
};

struct blk_opts {
    struct blk_opt *v;
    unsigned n;
};

struct blk_opts *blk_opts_new(void);
void blk_opts_free(struct blk_opts *o); /* NULL-safe */
struct blk_opts *blk_opts_copy(const struct blk_opts *o);

/* Sets (replaces) a value; both strings are copied. */
void blk_opts_set(struct blk_opts *o, const char *key, const char *value);
/* The value, marked as used, or NULL. `o` may be NULL in all readers. */
const char *blk_opts_get(struct blk_opts *o, const char *key);
bool blk_opts_has(const struct blk_opts *o, const char *key);
/* on/off/true/false/yes/no, or `def` where absent. 0 or -EINVAL. */
int blk_opts_bool(struct blk_opts *o, const char *key, bool def, bool *ret, struct err *err);
/* A size with the suffixes b k K M G T P E ("64k", "1.5G"), or `def` where absent. 0 or -EINVAL, -ERANGE. */
int blk_opts_size(struct blk_opts *o, const char *key, uint64_t def, uint64_t *ret, struct err *err);
void blk_opts_del(struct blk_opts *o, const char *key);

/* Appends "a=b,c=d" (a doubled comma is a comma in a value; "key" alone is key=on, "nokey" key=off as QEMU does). */
int blk_opts_parse(struct blk_opts *o, const char *text, struct err *err);
/* Appends a JSON object, nested ones flattened with dots. */
int blk_opts_parse_json(struct blk_opts *o, const char *json, struct err *err);

/* Takes out all "prefix.*" as a new list without the prefix (marked used in `o`); NULL when there is none. */
struct blk_opts *blk_opts_sub(struct blk_opts *o, const char *prefix);
/* -EINVAL naming the first option that nobody has taken. */
int blk_opts_finish(const struct blk_opts *o, const char *what, struct err *err);

/* A size as people write it: 20G, 1.5M, 0x1000, 512; no suffix: bytes. 0, -EINVAL or -ERANGE. */
int blk_parse_size(const char *text, uint64_t *ret);

static inline void blk_opts_freep(struct blk_opts **o)
{
    blk_opts_free(*o);
}
#define auto_opts __attribute__((cleanup(blk_opts_freep)))

#endif
