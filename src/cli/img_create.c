/* `lodge img create` and `resize`. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/driver.h"
#include "cli/img.h"

bool img_is_help(const struct img *img)
{
    if (!img->options)
        return false;
    autofree char *copy = xstrdup(img->options);
    char *save = NULL;
    for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save))
        if (!strcmp(p, "help") || !strcmp(p, "?"))
            return true;
    return false;
}

int img_options_help(const struct img *img, const char *format, bool amend)
{
    static const char *const types[] = {
        [BLK_OPT_STRING] = "str", [BLK_OPT_BOOL] = "bool (on/off)", [BLK_OPT_SIZE] = "size", [BLK_OPT_NUMBER] = "num"};
    const struct blk_driver *d = blk_driver_find(format);
    if (!d)
        return img_error(img, "Unknown file format '%s'", format);
    if (!d->create || !d->create_opts)
        return img_error(img, "Format driver '%s' does not support image creation", format);
    if (amend && !d->amend)
        return img_error(img, "Format driver '%s' does not support option amendment", format);
    printf(amend ? "Amend options for '%s':\n" : "Supported %s options:\n", format);
    /* By name; there are few. */
    for (const char *last = "";;) {
        const struct blk_create_opt *next = NULL;
        for (const struct blk_create_opt *o = d->create_opts; o->name; o++)
            if ((!amend || o->amend) && strcmp(o->name, last) > 0 && (!next || strcmp(o->name, next->name) < 0))
                next = o;
        if (!next)
            break;
        autofree char *left = xasprintf("%s=<%s>", next->name, types[next->type]);
        printf("  %-22s - %s\n", left, next->help);
        last = next->name;
    }
    if (!amend)
        puts("\nThe protocol level may support further options.\nSpecify the target filename to include those options.");
    return IMG_OK;
}

/* Whether every option in `opts` is one of the format's; says which is not. */
static int known_options(const struct img *img, const struct blk_driver *d, const char *file, const struct blk_opts *opts,
                         bool amend)
{
    for (unsigned i = 0; i < opts->n; i++) {
        const struct blk_create_opt *o = d->create_opts;
        while (o && o->name && strcmp(o->name, opts->v[i].key))
            o++;
        if (!o || !o->name)
            return img_error(img, "%s: Invalid parameter '%s'", file, opts->v[i].key);
        if (amend && !o->amend)
            return img_error(img, "%s: Invalid parameter '%s': this option is only supported for image creation", file,
                             o->name);
    }
    return IMG_OK;
}

int img_parse_options(const struct img *img, const char *format, const char *file, bool amend, struct blk_opts *opts)
{
    struct err err = {0};
    const struct blk_driver *d = blk_driver_find(format);
    if (!d)
        return img_error(img, "%s: Unknown file format '%s'", file, format);
    if (!d->create)
        return img_error(img, "%s: Format driver '%s' does not support image creation", file, format);
    if (img->options && blk_opts_parse(opts, img->options, &err) < 0)
        return img_error(img, "%s: %s", file, err.msg);
    return known_options(img, d, file, opts, amend);
}

/* "Formatting 'x', fmt=qcow2 …": the options in force, in the order of the driver's table. */
static void print_formatting(const struct blk_driver *d, const char *file, struct blk_opts *opts)
{
    printf("Formatting '%s', fmt=%s", file, d->name);
    for (const struct blk_create_opt *o = d->create_opts; o && o->name; o++) {
        const char *v = blk_opts_has(opts, o->name) ? blk_opts_get(opts, o->name) : o->def;
        uint64_t n;
        if (!v)
            continue;
        if (o->type == BLK_OPT_SIZE && blk_parse_size(v, &n) == 0)
            printf(" %s=%" PRIu64, o->name, n);
        else if (o->type == BLK_OPT_BOOL)
            printf(" %s=%s", o->name, !strcmp(v, "on") || !strcmp(v, "true") || !strcmp(v, "yes") ? "on" : "off");
        else
            printf(" %s=%s", o->name, v);
    }
    putchar('\n');
    fflush(stdout);
}

/* Looks into the backing file: its size becomes the image's unless that is given. */
static int use_backing(const struct img *img, const char *file, struct blk_opts *opts, bool unsafe)
{
    const char *backing = blk_opts_get(opts, "backing_file"), *format = blk_opts_get(opts, "backing_fmt");
    struct err err = {0};
    if (format && !blk_driver_find(format))
        return img_error(img, "%s: Unknown backing file format '%s'", file, format);
    if (!backing || !*backing)
        return IMG_OK;
    autofree char *full = blk_path_relative(file, backing);
    if (!strcmp(full, file))
        return img_error(img, "%s: Error: Trying to create an image with the same filename as the backing file", file);
    if (unsafe)
        return IMG_OK;
    auto_node struct blk_node *node = NULL;
    if (blk_node_open(full, format, NULL, BLK_O_NO_IO, &node, &err) < 0)
        return img_error(img, "%s: Could not open backing image '%s': %s", file, full, img_without_name(err.msg, full));
    if (!format)
        return img_error(img, "%s: Backing file specified without backing format (-F); it looks like %s", file,
                         node->drv->name);
    if (!blk_opts_has(opts, "size")) {
        char text[32];
        snprintf(text, sizeof text, "%" PRIu64, (uint64_t)node->size);
        blk_opts_set(opts, "size", text);
    }
    return IMG_OK;
}

int img_create(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    const char *format = img_has(img, IMG_FORMAT) ? img->value[IMG_FORMAT] : "raw";
    if (img_is_help(img))
        return img_options_help(img, format, false);
    if (!img->n_args)
        return img_usage(img, "Expecting image file name");
    if (img->n_args > 2)
        return img_usage(img, "Unexpected argument: %s", img->args[2]);
    const char *file = img->args[0];
    auto_opts struct blk_opts *opts = blk_opts_new();
    int64_t size;
    if (img->n_args == 2) {
        if (img_size_value(img, img->args[1], "image size", 0, INT64_MAX, &size) < 0)
            return IMG_ERROR;
        autofree char *text = xasprintf("%" PRId64, size);
        blk_opts_set(opts, "size", text);
    }
    if (img_has(img, IMG_BACKING))
        blk_opts_set(opts, "backing_file", img->value[IMG_BACKING]);
    if (img_has(img, IMG_BACKING_FORMAT))
        blk_opts_set(opts, "backing_fmt", img->value[IMG_BACKING_FORMAT]);
    const struct blk_driver *d = blk_driver_find(format);
    if (!d)
        return img_error(img, "%s: Unknown file format '%s'", file, format);
    if (d->create && (img_has(img, IMG_BACKING) || img_has(img, IMG_BACKING_FORMAT))) {
        const struct blk_create_opt *o = d->create_opts;
        while (o && o->name && strcmp(o->name, "backing_file"))
            o++;
        if (!o || !o->name)
            return img_error(img, "%s: Backing file not supported for file format '%s'", file, format);
    }
    if (img_parse_options(img, format, file, false, opts) || use_backing(img, file, opts, img_has(img, IMG_UNSAFE)))
        return IMG_ERROR;
    if (!blk_opts_has(opts, "size"))
        return img_error(img, "%s: Image creation needs a size parameter", file);
    if (!img_has(img, IMG_QUIET))
        print_formatting(d, file, opts);
    if (blk_create(format, file, opts, &err) < 0)
        return img_error(img, "%s: %s", file, img_without_name(err.msg, file));
    return IMG_OK;
}

/* ---- resize ---- */

int img_resize(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    enum blk_prealloc prealloc = BLK_PREALLOC_OFF;
    uint64_t size, now;
    /* "-1G" is a size, not an option: taken off before options are looked at. */
    char sign = 0, *text = argc > 1 ? argv[argc - 1] : NULL;
    bool helped = text && (!strcmp(text, "--help") || !strcmp(text, "-h"));
    if (argc < 3 && !helped)
        return img_usage(img, "Not enough arguments");
    if (!helped)
        argv[--argc] = NULL;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    const char *name = img_only_arg(img);
    if (!name)
        return IMG_ERROR;
    if (*text == '+' || *text == '-')
        sign = *text++;
    if ((r = blk_parse_size(text, &size)) < 0 || size > INT64_MAX)
        return img_error(img, "'%s' is not a size: a number of bytes, or one with k, M, G, T, P or E, and + or - in front",
                         text);
    if (img_has(img, IMG_PREALLOC) && blk_prealloc_parse(img->value[IMG_PREALLOC], &prealloc, NULL) < 0)
        return img_error(img, "Invalid preallocation mode '%s'", img->value[IMG_PREALLOC]);
    auto_node struct blk_node *node = img_open_only(img, BLK_O_RDWR | BLK_O_RESIZE);
    if (!node)
        return IMG_ERROR;
    now = node->size;
    if (sign == '+' && now + size > INT64_MAX)
        return img_error(img, "New image size is too large");
    if (sign)
        size = sign == '+' ? now + size : size < now ? now - size : 0;
    if (sign == '-' && !size)
        return img_error(img, "New image size must be positive");
    if (size <= now && prealloc != BLK_PREALLOC_OFF)
        return img_error(img, "Preallocation can only be used for growing images");
    if (size < now && !img_has(img, IMG_SHRINK))
        return img_error(img, "%s: use --shrink to make an image smaller; everything behind its new end is lost", name);
    if (blk_truncate(node, size, prealloc, img_has(img, IMG_SHRINK), &err) < 0 || blk_node_flush(node) < 0)
        return img_error(img, "%s", err.code ? err.msg : "cannot write the image");
    if (!img_has(img, IMG_QUIET))
        puts("Image resized.");
    return IMG_OK;
}
