/* An image format, as block.c sees it. All of them stand in drivers.c. */
#ifndef LODGE_BLOCK_DRIVER_H
#define LODGE_BLOCK_DRIVER_H

#include "block/block.h"
#include "block/file.h"

struct blk_driver {
    const char *name;
    /* Opens the image in `file`, which is owned by the result from success on. */
    int (*open)(struct file *file, const struct blk_options *opt, struct blk **ret, struct err *err);
};

extern const struct blk_driver blk_raw;

/* NULL-terminated. */
extern const struct blk_driver *const blk_drivers[];

/* The name of the format that the first `len` bytes of an image show, or NULL: raw, as far as one can tell. */
const char *blk_probe(const uint8_t *head, size_t len);

#endif
