/*
 * A file in memory as a node, which keeps a log of what changed it: the lowest layer of images in tests. One thread. It can be
 * told to fail.
 */
#ifndef TESTS_IMAGE_MEMFILE_H
#define TESTS_IMAGE_MEMFILE_H

#include "block/driver.h"

enum mem_op { MEM_WRITE, MEM_ZERO, MEM_TRUNCATE, MEM_FLUSH };

struct mem_entry {
    enum mem_op op;
    uint64_t offset, len; /* TRUNCATE: len is the new size */
    uint8_t *data;
};

struct memfile {
    uint8_t *data;
    size_t cap;
    bool logging;
    struct mem_entry *log;
    size_t n, log_cap;
    /* Calls (reads, writes, zeroes, truncates, flushes) from now on until one fails with fail_code; -1: never. */
    long fail_in;
    int fail_code;
    bool fail_short; /* a write that fails has written a part */
    bool fail_reads; /* reads count, too */
    unsigned long calls;
};

extern const struct blk_driver memfile_driver;

/* An empty file; its node has one reference, which frees it. */
struct blk_node *memfile_new(struct memfile **ret);
/* The same with a copy of these bytes, without a log. */
struct blk_node *memfile_from(const void *data, size_t len, struct memfile **ret);
/* Applies a log entry, or (torn) only some of its sectors, to a buffer of cap bytes; *size is the file's. */
void memfile_apply(const struct mem_entry *e, uint8_t *buf, size_t cap, uint64_t *size, uint64_t (*torn)(void *), void *opaque);

#endif
