/* A raw image: the disk's bytes are the file's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/driver.h"

struct raw {
    struct blk blk; /* first */
    struct file *file;
};

static struct blk_queue *queue_new(struct blk *blk, struct loop *loop, struct err *err)
{
    return file_queue_new(blk, ((struct raw *)blk)->file, loop, err);
}

static void raw_close(struct blk *blk)
{
    struct raw *raw = (struct raw *)blk;
    file_close(raw->file);
    free(raw->blk.filename);
    free(raw);
}

static const struct blk_ops ops = {
    .queue_new = queue_new,
    .queue_free = file_queue_free,
    .submit = file_queue_submit,
    .kick = file_queue_kick,
    .drain = file_queue_drain,
    .close = raw_close,
};

static int raw_open(struct file *file, const struct blk_options *opt, struct blk **ret, struct err *err)
{
    if (!file->size)
        return err_set(err, -EINVAL, "%s: empty: a disk has at least one sector", opt->path);
    struct raw *raw = xcalloc(1, sizeof *raw);
    raw->file = file;
    raw->blk = (struct blk){
        .ops = &ops,
        .driver = "raw",
        .filename = xstrdup(opt->path),
        .size = ALIGN_UP(file->size, file->block_size), /* past the file's end there are zeroes */
        .block_size = file->block_size,
        .physical_size = file->physical_size,
        .read_only = file->read_only,
        .can_discard = !file->read_only,
        .can_write_zeroes = !file->read_only,
        .writeback = true,
    };
    *ret = &raw->blk;
    return 0;
}

const struct blk_driver blk_raw = {"raw", raw_open};
