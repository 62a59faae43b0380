/*
 * What most image formats have in common: the disk is cut into blocks of one size, and tables say where in the file each block
 * lies. A format's private data begins with a struct blocks; its driver uses the blocks_* functions for its data path and
 * brings only what is its own. Reads run in parallel; allocating writes one at a time.
 */
#ifndef LODGE_BLOCK_BLOCKS_H
#define LODGE_BLOCK_BLOCKS_H

#include <pthread.h>

#include "block/driver.h"

struct block_at {
    enum { BLOCK_NONE, BLOCK_ZERO, BLOCK_DATA, BLOCK_PACKED } kind; /* NONE: the backing file's, or zeroes */
    struct blk_node *file; /* DATA, PACKED; NULL: the node's `file` */
    uint64_t host;         /* DATA: where the block starts */
    uint64_t packed;       /* PACKED: bytes at `host`; the driver unpacks */
};

struct blocks {
    uint32_t size;        /* of a block, bytes */
    bool holes;           /* blocks were allocated without being written */
    pthread_mutex_t lock; /* tables, and allocation */
    /* Where block `index` is. Lock held. 0 or -errno. */
    int (*look)(struct blk_node *n, uint64_t index, struct block_at *ret);
    /*
     * Chooses a place for a block that has none and makes it exist there; the block's bytes are written afterwards, then
     * publish() enters it into the tables. Lock held. NULL: the format is read-only here.
     */
    int (*place)(struct blk_node *n, uint64_t index, struct block_at *ret);
    int (*publish)(struct blk_node *n, uint64_t index, const struct block_at *at);
    /* Lets a block read as zeroes from now on. Lock held. -ENOTSUP: cannot. May be NULL. */
    int (*forget)(struct blk_node *n, uint64_t index);
    /* The bytes of a PACKED block into buf[size]. May be NULL. */
    int (*unpack)(struct blk_node *n, const struct block_at *at, uint8_t *buf);
    /* The last block unpacked, under the lock. */
    uint8_t *unpacked;
    uint64_t unpacked_host;
};

void blk_blocks_init(struct blocks *b, uint32_t size);
/* Frees what blk_blocks_init() and use made, not `b`. */
void blocks_clear(struct blocks *b);

int blocks_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len);
int blocks_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len, unsigned flags);
int blocks_pwrite_zeroes(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags);
int blocks_block_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret);

/* Reads a table of `bytes` at `offset` that must lie within `file`, at most `max` bytes. malloc'ed. 0 or -errno. */
int blocks_read_table(struct blk_node *file, const char *what, uint64_t offset, uint64_t bytes, uint64_t max, void **ret,
                      struct err *err);

#endif
