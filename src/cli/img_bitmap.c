/* `lodge img bitmap`: actions on a persistent dirty bitmap, done in the order given. */
#include <string.h>

#include "base/bits.h"
#include "cli/img.h"

int img_bitmap(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    int64_t granularity = 0;
    unsigned actions = 0;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    for (unsigned i = 0; i < img->n_given; i++)
        actions += img->given[i].key >= IMG_ADD && img->given[i].key <= IMG_MERGE;
    if (img_size_option(img, IMG_GRANULARITY, "granularity", 1, 1u << 31, &granularity) < 0)
        return IMG_ERROR;
    if (img->n_args != 2)
        return img_error(img, "Expecting filename and bitmap name");
    if (!actions)
        return img_error(img, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
    if (granularity && !img_has(img, IMG_ADD))
        return img_error(img, "granularity only supported with --add");
    if (img_has(img, IMG_BACKING_FORMAT) && !img_has(img, IMG_BACKING))
        return img_error(img, "-F only supported with -b");
    if (img_has(img, IMG_BACKING) && !img_has(img, IMG_MERGE))
        return img_error(img, "Merge bitmap source file only supported with --merge");
    const char *name = img->args[1];
    auto_node struct blk_node *node = img_open(img, img->args[0], img->value[IMG_FORMAT], img_has(img, IMG_IMAGE_OPTS),
                                               BLK_O_RDWR | BLK_O_NO_BACKING);
    auto_node struct blk_node *source = NULL;
    if (!node)
        return IMG_ERROR;
    if (img_has(img, IMG_BACKING)) {
        source = img_open(img, img->value[IMG_BACKING], img->value[IMG_BACKING_FORMAT], false, BLK_O_NO_BACKING);
        if (!source)
            return IMG_ERROR;
    }
    for (unsigned i = 0; i < img->n_given; i++) {
        const char *what;
        switch (img->given[i].key) {
        case IMG_ADD:
            what = "add";
            r = blk_bitmap_add(node, name, (uint32_t)granularity, false, &err);
            break;
        case IMG_REMOVE:
            what = "remove";
            r = blk_bitmap_remove(node, name, &err);
            break;
        case IMG_CLEAR:
            what = "clear";
            r = blk_bitmap_clear(node, name, &err);
            break;
        case IMG_ENABLE:
            what = "enable";
            r = blk_bitmap_enable(node, name, true, &err);
            break;
        case IMG_DISABLE:
            what = "disable";
            r = blk_bitmap_enable(node, name, false, &err);
            break;
        case IMG_MERGE:
            what = "merge";
            r = blk_bitmap_merge(node, name, source ? source : node, img->given[i].value, &err);
            break;
        default:
            continue;
        }
        if (r < 0)
            return img_error(img, "Operation %s on bitmap %s failed: %s", what, name, err.msg);
    }
    if ((r = blk_node_flush(node)) < 0)
        return img_error(img, "%s: cannot write: %s", img->args[0], strerror(-r));
    return IMG_OK;
}
