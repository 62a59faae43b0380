/* `lodge img amend` and `measure`: format options of what is there, and of what may come. */
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/driver.h"
#include "cli/img.h"

int img_amend(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    unsigned flags;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if (!img->options)
        return img_usage(img, "Must specify options (-o)");
    if (img_is_help(img) && img_has(img, IMG_FORMAT))
        return img_options_help(img, img->value[IMG_FORMAT], true);
    if (img_cache_flags(img, IMG_CACHE, "writeback", "cache option", &flags) < 0)
        return IMG_ERROR;
    auto_node struct blk_node *node = img_open_only(img, flags | BLK_O_RDWR | BLK_O_RESIZE);
    if (!node)
        return IMG_ERROR;
    if (img_is_help(img) || !node->drv->amend)
        return img_options_help(img, node->drv->name, true);
    auto_opts struct blk_opts *opts = blk_opts_new();
    if (img_parse_options(img, node->drv->name, img->args[0], true, opts))
        return IMG_ERROR;
    struct img_progress p;
    img_progress_start(&p, img, 1.0);
    bool ok = blk_amend(node, opts, img_progress, &p, img_has(img, IMG_FORCE), &err) >= 0;
    img_progress_end(&p, ok);
    return ok ? IMG_OK : img_error(img, "Error while amending options: %s", err.msg);
}

int img_measure(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    struct blk_measure m = {0};
    int64_t size = 0;
    int r = img_parse(img, argc, argv), json;
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if ((json = img_output(img)) < 0)
        return IMG_ERROR;
    const char *format = img_has(img, IMG_OUT_FORMAT) ? img->value[IMG_OUT_FORMAT] : "raw";
    if (img_is_help(img))
        return img_options_help(img, format, false);
    if (img->n_args > 1)
        return img_error(img, "At most one filename argument is allowed.");
    if (img_has(img, IMG_SIZE) && img->n_args)
        return img_error(img, "--size N cannot be used together with a filename.");
    if (!img_has(img, IMG_SIZE) && !img->n_args)
        return img_error(img, "Either --size N or one filename must be specified.");
    if (img_size_option(img, IMG_SIZE, "image size", 0, INT64_MAX, &size) < 0)
        return IMG_ERROR;
    const struct blk_driver *d = blk_driver_find(format);
    if (!d)
        return img_error(img, "Unknown file format '%s'", format);
    if (!d->measure)
        return img_error(img, "Block driver '%s' does not support size measurement", format);
    auto_opts struct blk_opts *opts = blk_opts_new();
    if (img_parse_options(img, format, "measure", false, opts))
        return IMG_ERROR;
    auto_node struct blk_node *node = NULL;
    if (img->n_args) {
        if (!(node = img_open_only(img, 0)))
            return IMG_ERROR;
        if (img_has(img, IMG_SNAPSHOT) && img_load_snapshot(img, node, img->value[IMG_SNAPSHOT]))
            return IMG_ERROR;
    } else {
        autofree char *text = xasprintf("%" PRId64, size);
        blk_opts_set(opts, "size", text);
    }
    if (blk_measure(format, opts, node, &m, &err) < 0)
        return img_error(img, "%s", err.msg);
    if (json) {
        json_t *j = json_object();
        if (m.has_bitmaps)
            json_object_set_new(j, "bitmaps", json_integer((json_int_t)m.bitmaps));
        json_object_set_new(j, "required", json_integer((json_int_t)m.required));
        json_object_set_new(j, "fully-allocated", json_integer((json_int_t)m.fully_allocated));
        img_print_json(j);
        return IMG_OK;
    }
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m.required, m.fully_allocated);
    if (m.has_bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", m.bitmaps);
    return IMG_OK;
}
