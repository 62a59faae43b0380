/* A guest's disk on a raw image: opening it, its queues. Called on the main thread, before the guest runs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/file.h"

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

/* The format to use: the one asked for, or raw if the image does not look like another. */
static int check_format(struct file *file, const struct blk_options *opt, struct err *err)
{
    uint8_t head[512];
    int n = file_head(file, head, sizeof head);
    if (n < 0)
        return err_errno(err, n, "%s: cannot read", opt->path);
    const char *found = blk_probe(head, (size_t)n);
    if (!opt->format && found)
        return err_set(err, -ENOTSUP,
                       "%s: this looks like a %s image, a format that cannot be opened yet (format=raw takes its bytes "
                       "as they are)",
                       opt->path, found);
    if (opt->format && strcmp(opt->format, "raw"))
        return err_set(err, -EINVAL, "%s: unknown image format '%s' (known: raw)", opt->path, opt->format);
    if (found)
        log_warn("%s: this looks like a %s image; used as raw, as asked, the guest sees and may destroy its structure",
                 opt->path, found);
    return file->size ? 0 : err_set(err, -EINVAL, "%s: empty: a disk has at least one sector", opt->path);
}

int blk_open(const struct blk_options *opt, struct blk **ret, struct err *err)
{
    struct file *file;
    unsigned flags = (opt->read_only ? 0 : BLK_O_RDWR) | (opt->direct ? BLK_O_DIRECT : 0) |
                     (opt->no_flush ? BLK_O_NO_FLUSH : 0) | (opt->no_uring ? BLK_O_NO_URING : 0);
    int code = file_open(opt->path, flags, &file, err);
    if (code < 0)
        return code;
    code = check_format(file, opt, err);
    if (code < 0) {
        file_close(file);
        return code;
    }
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
