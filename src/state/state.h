/*
 * Guest-visible state, saved and restored. Each device (and CPU) declares its fields in a table; save, snapshot, fork and
 * migration are all this one stream. The loader treats the stream as hostile: every name, size and count is checked against the
 * table, and post_load checks what the values mean.
 *
 * Stream of one object: name, instance, version, then each field as (name, byte length, bytes little-endian). A field that the
 * stream lacks keeps its reset value if its `since` is newer than the stream's version, else loading fails.
 */
#ifndef LODGE_STATE_STATE_H
#define LODGE_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum state_kind {
    STATE_UINT,  /* array of `count` unsigned integers of `size` bytes (1, 2, 4, 8) */
    STATE_BYTES, /* `size` raw bytes */
};

struct state_field {
    const char *name; /* NULL ends the table */
    enum state_kind kind;
    uint32_t offset;
    uint32_t size;
    uint32_t count;
    uint32_t since; /* version of the table in which the field appeared */
};

struct state_desc {
    const char *name;
    uint32_t version;     /* written */
    uint32_t min_version; /* oldest that can be read */
    const struct state_field *fields;
    /* Both optional. post_load returns -EINVAL with a message when the values cannot be. */
    void (*pre_save)(void *obj);
    int (*post_load)(void *obj, uint32_t version, struct err *err);
};

#define STATE_U(type, field)                                                                                           \
    {#field, STATE_UINT, offsetof(type, field), sizeof(((type *)0)->field), 1, 1}
#define STATE_ARRAY(type, field)                                                                                       \
    {#field, STATE_UINT, offsetof(type, field), sizeof(((type *)0)->field[0]),                                         \
     sizeof(((type *)0)->field) / sizeof(((type *)0)->field[0]), 1}
#define STATE_RAW(type, field)                                                                                         \
    {#field, STATE_BYTES, offsetof(type, field), sizeof(((type *)0)->field), 1, 1}
#define STATE_END {0}

/* A growing buffer that holds the stream being written. */
struct state_writer {
    uint8_t *data;
    size_t len, cap;
};
void state_writer_free(struct state_writer *w);

/* A stream being read; `data` is not owned. */
struct state_reader {
    const uint8_t *data;
    size_t len, pos;
};

void state_save(struct state_writer *w, const struct state_desc *desc, const char *instance, void *obj);
/* Reads the next object, which must be `desc`/`instance`. On failure obj may be half loaded: reset it. */
int state_load(struct state_reader *r, const struct state_desc *desc, const char *instance, void *obj, struct err *err);

#endif
