/* `lodge img convert` and `dd`: an image, or several behind each other, become another. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/copy.h"
#include "block/driver.h"
#include "cli/img.h"

enum { SOURCES_MAX = 256, SPARSE_MAX = 16 << 20 };

/* What the verb has open. */
struct conversion {
    struct img *img;
    struct blk_convert c;
    struct blk_node *sources[SOURCES_MAX], *target;
    struct img_progress progress;
    const char *format, *file; /* of the target */
    const struct blk_driver *driver;
    bool created;
};

static int parse_numbers(struct conversion *v)
{
    struct img *img = v->img;
    int64_t n = 4096, rate = 0;
    if (img_size_option(img, IMG_SPARSE, "buffer size for sparse output", 0, INT64_MAX, &n) < 0 ||
        img_size_option(img, IMG_RATE, "rate limit", 0, INT64_MAX, &rate) < 0)
        return -1;
    if (n > SPARSE_MAX || n % 512) {
        img_error(img,
                  "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to %d. Select 0 to "
                  "disable sparse detection (fully allocates output).",
                  SPARSE_MAX);
        return -1;
    }
    v->c.min_sparse = (uint32_t)n;
    v->c.rate = (uint64_t)rate;
    if (img_has(img, IMG_JOBS)) {
        char *end;
        long jobs = strtol(img->value[IMG_JOBS], &end, 10);
        if (*end || jobs < 1 || jobs > BLK_CONVERT_THREADS_MAX) {
            img_error(img, "Invalid number of coroutines. Allowed number of coroutines is between 1 and %d",
                      BLK_CONVERT_THREADS_MAX);
            return -1;
        }
        v->c.threads = (unsigned)jobs;
    }
    return 0;
}

/* What does not go together, before any file is opened. */
static int check_options(struct conversion *v)
{
    struct img *img = v->img;
    bool no_create = img_has(img, IMG_NO_CREATE);
    v->c.offload = img_has(img, IMG_OFFLOAD);
    v->c.compress = img_has(img, IMG_COMPRESS);
    v->c.salvage = img_has(img, IMG_SALVAGE);
    if (!no_create && img_has(img, IMG_TARGET_IMAGE_OPTS))
        return img_error(img, "--target-image-opts requires use of -n flag");
    if (img_has(img, IMG_SKIP_BROKEN) && !img_has(img, IMG_BITMAPS))
        return img_error(img, "Use of --skip-broken-bitmaps requires --bitmaps");
    if (v->c.offload && img_has(img, IMG_SPARSE))
        return img_error(img, "Cannot enable copy offloading when -S is used");
    if (v->c.offload && v->c.compress)
        return img_error(img, "Cannot enable copy offloading when -c is used");
    if (img_has(img, IMG_TARGET_ZERO) && !no_create)
        return img_error(img, "--target-is-zero requires use of -n flag");
    if (img_has(img, IMG_TARGET_IMAGE_OPTS) && img_has(img, IMG_OUT_FORMAT))
        return img_error(img, "--target-image-opts and -O are mutually exclusive");
    if (no_create && img->options)
        img_warn(img, "-o has no effect when skipping image creation");
    if (img->n_args < 2)
        return img_error(img, "Must specify image file name");
    if (img->n_args - 1 > SOURCES_MAX)
        return img_error(img, "at most %d images can be joined", SOURCES_MAX);
    if (img_has(img, IMG_SNAPSHOT) && img->n_args > 2)
        return img_error(img, "No support for concatenating multiple snapshot");
    if (img_has(img, IMG_BITMAPS) && img->n_args > 2)
        return img_error(img, "Copying bitmaps only possible with single source");
    if (img_has(img, IMG_BITMAPS) && img_has(img, IMG_SNAPSHOT))
        return img_error(img, "Copying bitmaps and choosing a snapshot do not go together");
    return 0;
}

static int open_sources(struct conversion *v)
{
    struct img *img = v->img;
    unsigned flags;
    if (img_cache_flags(img, IMG_SRC_CACHE, "writeback", "source cache option", &flags) < 0)
        return -1;
    if (img_has(img, IMG_FORCE_SHARE))
        flags |= BLK_O_FORCE_SHARE;
    for (int i = 0; i < img->n_args - 1; i++) {
        v->sources[i] =
            img_open(img, img->args[i], img->value[IMG_FORMAT], img_has(img, IMG_IMAGE_OPTS), flags);
        if (!v->sources[i])
            return -1;
        v->c.n_sources++;
    }
    v->c.sources = v->sources;
    return img_has(img, IMG_SNAPSHOT) ? img_load_snapshot(img, v->sources[0], img->value[IMG_SNAPSHOT]) : 0;
}

/* Creates the target, as large as all sources. */
static int create_target(struct conversion *v, struct blk_opts *opts)
{
    struct img *img = v->img;
    struct err err = {0};
    uint64_t total = 0;
    for (unsigned i = 0; i < v->c.n_sources; i++)
        total += v->sources[i]->size;
    if (img_parse_options(img, v->format, v->file, false, opts))
        return -1;
    if (!blk_opts_has(opts, "size")) {
        autofree char *text = xasprintf("%" PRIu64, total);
        blk_opts_set(opts, "size", text);
    }
    const char *backing = img->value[IMG_BACKING] ? img->value[IMG_BACKING] : blk_opts_get(opts, "backing_file");
    const char *backing_format = img->value[IMG_BACKING_FORMAT] ? img->value[IMG_BACKING_FORMAT]
                                                                : blk_opts_get(opts, "backing_fmt");
    if (backing) {
        if (v->c.n_sources > 1)
            return img_error(img, "Having a backing file for the target makes no sense when concatenating multiple input "
                                  "images");
        if (!backing_format)
            return img_error(img, "Use of backing file requires explicit backing format");
        blk_opts_set(opts, "backing_file", backing);
        blk_opts_set(opts, "backing_fmt", backing_format);
        v->c.target_has_backing = true;
    }
    const char *prealloc = blk_opts_get(opts, "preallocation");
    if (v->c.compress && prealloc && strcmp(prealloc, "off"))
        return img_error(img, "Compression and preallocation not supported at the same time");
    if (blk_create(v->format, v->file, opts, &err) < 0)
        return img_error(img, "%s: error while converting %s: %s", v->file, v->format,
                         img_without_name(err.msg, v->file));
    struct stat st;
    v->created = true;
    v->c.target_is_zero = stat(v->file, &st) < 0 || S_ISREG(st.st_mode);
    return 0;
}

static int open_target(struct conversion *v)
{
    struct img *img = v->img;
    unsigned flags;
    bool image_opts = img_has(img, IMG_TARGET_IMAGE_OPTS);
    v->format = img_has(img, IMG_OUT_FORMAT) ? img->value[IMG_OUT_FORMAT] : "raw";
    v->file = img->args[img->n_args - 1];
    v->driver = blk_driver_find(v->format);
    if (!v->driver)
        return img_error(img, "Unknown file format '%s'", v->format);
    if (v->c.compress && !v->driver->pwritev_compressed)
        return img_error(img, "Compression not supported for this file format");
    if (img_has(img, IMG_BITMAPS) && !v->driver->bitmap_add)
        return img_error(img, "Format driver '%s' does not support bitmaps", v->format);
    if (img_cache_flags(img, IMG_CACHE, "unsafe", "cache option", &flags) < 0)
        return -1;
    auto_opts struct blk_opts *opts = blk_opts_new();
    if (!img_has(img, IMG_NO_CREATE) && create_target(v, opts))
        return -1;
    if (img_has(img, IMG_NO_CREATE) && img_has(img, IMG_BACKING))
        v->c.target_has_backing = true;
    flags |= BLK_O_RDWR | BLK_O_UNMAP;
    v->target = img_open(img, v->file, image_opts ? NULL : v->format, image_opts, flags);
    if (!v->target)
        return -1;
    v->c.target = v->target;
    v->c.target_is_zero |= img_has(img, IMG_TARGET_ZERO);
    uint64_t total = 0;
    for (unsigned i = 0; i < v->c.n_sources; i++)
        total += v->sources[i]->size;
    if (v->target->size < total && !(v->created && blk_opts_has(opts, "size")))
        return img_error(img, "output file is smaller than input file");
    return 0;
}

/* Bitmaps that are broken cannot be copied: known before the long work. */
static int check_bitmaps(struct conversion *v, struct blk_bitmap **ret, unsigned *ret_n)
{
    struct img *img = v->img;
    struct err err = {0};
    *ret = NULL;
    *ret_n = 0;
    if (!img_has(img, IMG_BITMAPS))
        return 0;
    if (!v->sources[0]->drv->bitmap_list)
        return img_error(img, "This will continue to be an invalid option for %s images: no persistent bitmaps",
                         v->sources[0]->drv->name);
    if (blk_bitmap_list(v->sources[0], ret, ret_n, &err) < 0)
        return img_error(img, "%s", err.msg);
    for (unsigned i = 0; i < *ret_n; i++)
        if (((*ret)[i].flags & BLK_BITMAP_IN_USE) && !img_has(img, IMG_SKIP_BROKEN))
            return img_error(img,
                             "Cannot copy inconsistent bitmap '%s' (--skip-broken-bitmaps leaves it out, 'bitmap --remove' "
                             "deletes it)",
                             (*ret)[i].name);
    return 0;
}

static int copy_bitmaps(struct conversion *v, const struct blk_bitmap *list, unsigned n)
{
    struct img *img = v->img;
    struct err err = {0};
    for (unsigned i = 0; i < n; i++) {
        const struct blk_bitmap *b = &list[i];
        if (b->flags & BLK_BITMAP_IN_USE) {
            img_warn(img, "Skipping inconsistent bitmap '%s'", b->name);
            continue;
        }
        if (blk_bitmap_add(v->target, b->name, b->granularity, true, &err) < 0 ||
            blk_bitmap_merge(v->target, b->name, v->sources[0], b->name, &err) < 0 ||
            ((b->flags & BLK_BITMAP_AUTO) && blk_bitmap_enable(v->target, b->name, true, &err) < 0))
            return img_error(img, "Failed to copy bitmap '%s': %s", b->name, err.msg);
    }
    return 0;
}

static void unreadable(void *opaque, uint64_t offset, uint64_t len, int ret)
{
    struct conversion *v = opaque;
    img_warn(v->img, "error while reading offset %" PRIu64 ": %s", offset, strerror(-ret));
}

static void progress(void *opaque, uint64_t done, uint64_t total)
{
    img_progress(&((struct conversion *)opaque)->progress, done, total);
}

static int convert(struct conversion *v)
{
    struct err err = {0};
    autofree struct blk_bitmap *bitmaps = NULL;
    unsigned n_bitmaps;
    if (open_sources(v) || check_bitmaps(v, &bitmaps, &n_bitmaps) || open_target(v))
        return IMG_ERROR;
    v->c.progress = progress;
    v->c.unreadable = unreadable;
    v->c.opaque = v;
    img_progress_start(&v->progress, v->img, 1.0);
    int ret = blk_convert(&v->c, &err);
    img_progress_end(&v->progress, ret >= 0);
    if (ret < 0)
        return img_error(v->img, "%s", err.msg);
    if (copy_bitmaps(v, bitmaps, n_bitmaps))
        return IMG_ERROR;
    if ((ret = blk_node_flush(v->target)) < 0)
        return img_error(v->img, "%s: cannot write: %s", v->file, strerror(-ret));
    return IMG_OK;
}

static void conversion_clear(struct conversion *v)
{
    blk_node_unref(v->target);
    for (unsigned i = 0; i < v->c.n_sources; i++)
        blk_node_unref(v->sources[i]);
}

int img_convert(struct img *img, int argc, char **argv)
{
    struct conversion v = {.img = img};
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if (img_is_help(img))
        return img_options_help(img, img_has(img, IMG_OUT_FORMAT) ? img->value[IMG_OUT_FORMAT] : "raw", false);
    if (parse_numbers(&v) < 0 || check_options(&v))
        return IMG_ERROR;
    int status = convert(&v);
    conversion_clear(&v);
    return status;
}

/* ---- dd ---- */

struct dd {
    const char *in, *out;
    int64_t block, count, skip;
    bool counted;
};

static int dd_operand(struct img *img, struct dd *dd, char *word)
{
    char *value = strchr(word, '=');
    if (value)
        *value++ = 0;
    if (value && !strcmp(word, "if")) {
        dd->in = value;
        return 0;
    }
    if (value && !strcmp(word, "of")) {
        dd->out = value;
        return 0;
    }
    if (value && !strcmp(word, "bs"))
        return img_size_value(img, value, "bs", 1, INT32_MAX, &dd->block);
    if (value && !strcmp(word, "count")) {
        dd->counted = true;
        return img_size_value(img, value, "count", 0, INT64_MAX, &dd->count);
    }
    if (value && !strcmp(word, "skip"))
        return img_size_value(img, value, "skip", 0, INT64_MAX, &dd->skip);
    img_error(img, "unrecognized operand %s", word);
    return -1;
}

/* The part of the input that dd copies, as an image of its own. */
static struct blk_node *dd_window(struct img *img, struct blk_node *in, uint64_t start, uint64_t len)
{
    struct err err = {0};
    struct blk_node *window = NULL;
    auto_opts struct blk_opts *opts = blk_opts_new();
    autofree char *offset = xasprintf("%" PRIu64, start), *size = xasprintf("%" PRIu64, len);
    blk_opts_set(opts, "offset", offset);
    blk_opts_set(opts, "size", size);
    if (blk_node_open_on(blk_node_ref(in), "raw", opts, 0, &window, &err) < 0)
        img_error(img, "%s", err.msg);
    return window;
}

int img_dd(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    struct dd dd = {.block = 512};
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    const char *format = img_has(img, IMG_OUT_FORMAT) ? img->value[IMG_OUT_FORMAT] : "raw";
    for (int i = 0; i < img->n_args; i++)
        if (dd_operand(img, &dd, img->args[i]) < 0)
            return IMG_ERROR;
    if (!dd.in || !dd.out)
        return img_error(img, "Must specify both input and output files");
    auto_node struct blk_node *in = img_open(img, dd.in, img->value[IMG_FORMAT], img_has(img, IMG_IMAGE_OPTS),
                                             img_has(img, IMG_FORCE_SHARE) ? BLK_O_FORCE_SHARE : 0);
    if (!in)
        return IMG_ERROR;
    uint64_t size = in->size, start;
    if (__builtin_mul_overflow((uint64_t)dd.block, (uint64_t)dd.skip, &start))
        start = UINT64_MAX;
    if (start > size) {
        img_error(img, "%s: cannot skip to specified offset", dd.in);
        start = size;
    }
    uint64_t len = size - start;
    if (dd.counted && (!dd.count || (uint64_t)dd.block <= len / (uint64_t)dd.count))
        len = (uint64_t)dd.block * (uint64_t)dd.count;
    auto_opts struct blk_opts *opts = blk_opts_new();
    if (img_parse_options(img, format, dd.out, false, opts))
        return IMG_ERROR;
    autofree char *text = xasprintf("%" PRIu64, len);
    blk_opts_set(opts, "size", text);
    if (blk_create(format, dd.out, opts, &err) < 0)
        return img_error(img, "%s: error while creating output image: %s", dd.out, err.msg);
    auto_node struct blk_node *out = img_open(img, dd.out, format, false, BLK_O_RDWR);
    if (!out)
        return IMG_ERROR;
    if (!len)
        return IMG_OK;
    auto_node struct blk_node *window = dd_window(img, in, start, len);
    if (!window)
        return IMG_ERROR;
    struct blk_convert c = {.sources = &window,
                            .n_sources = 1,
                            .target = out,
                            .target_is_zero = true,
                            .min_sparse = 4096};
    if (blk_convert(&c, &err) < 0)
        return img_error(img, "%s", err.msg);
    r = blk_node_flush(out);
    return r < 0 ? img_error(img, "%s: cannot write: %s", dd.out, strerror(-r)) : IMG_OK;
}
