/*
 * Work on whole images that reads one and writes another: convert, compare, rebase, commit. Each call blocks until it is done;
 * `progress` comes from the calling thread. Nobody else may resize the nodes meanwhile.
 */
#ifndef LODGE_BLOCK_COPY_H
#define LODGE_BLOCK_COPY_H

#include "block/image.h"

enum { BLK_CONVERT_THREADS_MAX = 16 };

struct blk_convert {
    struct blk_node **sources; /* copied one behind the other */
    unsigned n_sources;
    struct blk_node *target;
    bool target_is_zero;     /* reads as zeroes now: zeroes need not be written */
    bool target_has_backing; /* only what the source's top layer holds is copied; zeroes are written */
    bool compress;
    bool offload;        /* let the kernel copy (copy_file_range) without looking for zeroes */
    bool salvage;        /* zeroes for what cannot be read */
    uint32_t min_sparse; /* smallest run of zero bytes that is not written as data; 0: all is written */
    unsigned threads;    /* 1 to BLK_CONVERT_THREADS_MAX; 0: as many as there are CPUs */
    bool in_order;       /* the target is written from its start to its end */
    uint64_t rate;       /* bytes a second; 0: no limit */
    blk_progress_fn *progress;
    void *opaque;
    /* salvage: each unreadable part, from any thread, one at a time. May be NULL. */
    void (*unreadable)(void *opaque, uint64_t offset, uint64_t len, int ret);
};
/* Copies everything; the target is flushed afterwards. 0 or -errno, with a message that says where. */
int blk_convert(const struct blk_convert *c, struct err *err);

struct blk_compare {
    struct blk_node *a, *b;
    bool strict; /* allocation must be the same, too */
    blk_progress_fn *progress;
    void *opaque;
    /* result */
    enum { BLK_EQUAL, BLK_DIFFERENT_DATA, BLK_DIFFERENT_STATUS } result;
    uint64_t offset; /* where the first difference is */
    bool status_failed; /* on an error: it was the block status that could not be read, not data */
};
/* Compares as far as the shorter one goes, and the rest of the longer one with zeroes. 0 or -errno. */
int blk_compare(struct blk_compare *c, struct err *err);

/*
 * Writes into `top` what differs between `old_backing` and `new_backing` (either may be NULL: zeroes) where top has nothing of
 * its own. Does not touch the header. The base of both chains, if they share one, is not compared.
 */
int blk_rebase(struct blk_node *top, struct blk_node *old_backing, struct blk_node *new_backing, blk_progress_fn *progress,
               void *opaque, struct err *err);

/* Writes into `base` (opened writable) what the layers above it, from `top` down, hold; grows it to top's size. */
int blk_commit(struct blk_node *top, struct blk_node *base, uint64_t rate, blk_progress_fn *progress, void *opaque,
               struct err *err);

/* Whether the bytes are all zero. */
bool blk_is_zero(const void *buf, size_t len);

#endif
