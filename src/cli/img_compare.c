/* `lodge img compare`. */
#include <inttypes.h>

#include "base/bits.h"
#include "block/copy.h"
#include "cli/img.h"

int img_compare(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    unsigned flags;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_COMPARE_ERROR : IMG_OK;
    bool quiet = img_has(img, IMG_QUIET), strict = img_has(img, IMG_STRICT);
    if (img->n_args != 2)
        return img_usage(img, "Expecting two image file names");
    if (img_cache_flags(img, IMG_SRC_CACHE, "writeback", "source cache option", &flags) < 0)
        return IMG_COMPARE_ERROR;
    if (img_has(img, IMG_FORCE_SHARE))
        flags |= BLK_O_FORCE_SHARE;
    bool image_opts = img_has(img, IMG_IMAGE_OPTS);
    auto_node struct blk_node *a = img_open(img, img->args[0], img->value[IMG_FORMAT], image_opts, flags);
    if (!a)
        return IMG_COMPARE_ERROR;
    auto_node struct blk_node *b = img_open(img, img->args[1], img->value[IMG_FORMAT2], image_opts, flags);
    if (!b)
        return IMG_COMPARE_ERROR;
    if (strict && a->size != b->size) {
        if (!quiet)
            puts("Strict mode: Image size mismatch!");
        return IMG_COMPARE_DIFFERENT;
    }
    if (a->size != b->size && !quiet)
        puts("Warning: Image size mismatch!");
    struct img_progress p;
    img_progress_start(&p, img, 1.0);
    struct blk_compare c = {.a = a, .b = b, .strict = strict, .progress = img_progress, .opaque = &p};
    r = blk_compare(&c, &err);
    img_progress_end(&p, r >= 0);
    if (r < 0) {
        img_error(img, "%s", err.msg);
        return c.status_failed ? IMG_COMPARE_STATUS : IMG_COMPARE_READ;
    }
    if (!quiet && c.result == BLK_DIFFERENT_STATUS)
        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", c.offset);
    else if (!quiet && c.result == BLK_DIFFERENT_DATA)
        printf("Content mismatch at offset %" PRIu64 "!\n", c.offset);
    else if (!quiet)
        puts("Images are identical.");
    return c.result == BLK_EQUAL ? IMG_OK : IMG_COMPARE_DIFFERENT;
}
