/* `lodge img check`. */
#include <errno.h>
#include <string.h>

#include "block/driver.h"
#include "cli/img.h"

static void report(void *opaque, bool error, const char *line)
{
    const struct img *img = opaque;
    if (!img_has(img, IMG_QUIET) || error)
        fprintf(stderr, "%s\n", line);
}

static void print_human(const struct blk_check *c)
{
    if (!c->corruptions && !c->leaks && !c->check_errors)
        puts("No errors were found on the image.");
    if (c->corruptions)
        printf("\n%llu errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               (unsigned long long)c->corruptions);
    if (c->leaks)
        printf("\n%llu leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               (unsigned long long)c->leaks);
    if (c->check_errors)
        printf("\n%llu internal errors have occurred during the check.\n", (unsigned long long)c->check_errors);
    if (c->total_clusters && c->allocated_clusters)
        printf("%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               (unsigned long long)c->allocated_clusters, (unsigned long long)c->total_clusters,
               (double)c->allocated_clusters * 100.0 / (double)c->total_clusters,
               (double)c->fragmented_clusters * 100.0 / (double)c->allocated_clusters,
               (double)c->compressed_clusters * 100.0 / (double)c->allocated_clusters);
    if (c->image_end_offset)
        printf("Image end offset: %llu\n", (unsigned long long)c->image_end_offset);
}

static void set_if(json_t *j, const char *key, uint64_t value)
{
    if (value)
        json_object_set_new(j, key, json_integer((json_int_t)value));
}

static void print_json(const struct img *img, const struct blk_node *node, const struct blk_check *c)
{
    json_t *j = json_object();
    set_if(j, "image-end-offset", c->image_end_offset);
    set_if(j, "compressed-clusters", c->compressed_clusters);
    set_if(j, "total-clusters", c->total_clusters);
    json_object_set_new(j, "check-errors", json_integer((json_int_t)c->check_errors));
    set_if(j, "corruptions", c->corruptions);
    set_if(j, "corruptions-fixed", c->corruptions_fixed);
    set_if(j, "leaks", c->leaks);
    set_if(j, "leaks-fixed", c->leaks_fixed);
    set_if(j, "allocated-clusters", c->allocated_clusters);
    json_object_set_new(j, "filename", json_string(img->args[0]));
    json_object_set_new(j, "format", json_string(node->drv->name));
    set_if(j, "fragmented-clusters", c->fragmented_clusters);
    img_print_json(j);
}

static int run_check(const struct img *img, struct blk_node *node, unsigned fix, struct blk_check *c)
{
    struct err err = {0};
    *c = (struct blk_check){.report = report, .opaque = (void *)img};
    int code = blk_check(node, c, fix, &err);
    if (code == -ENOTSUP && !node->drv->check) {
        img_error(img, "This image format does not support checks");
        return IMG_CHECK_UNSUPPORTED;
    }
    if (code < 0)
        return img_error(img, "Check failed: %s", err.code ? err.msg : strerror(-code));
    return IMG_OK;
}

int img_check(struct img *img, int argc, char **argv)
{
    int r = img_parse(img, argc, argv), json;
    unsigned fix = 0, flags;
    struct blk_check c;
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if ((json = img_output(img)) < 0)
        return IMG_ERROR;
    if (img_has(img, IMG_REPAIR)) {
        const char *what = img->value[IMG_REPAIR];
        if (!strcmp(what, "leaks"))
            fix = BLK_FIX_LEAKS;
        else if (!strcmp(what, "all"))
            fix = BLK_FIX_LEAKS | BLK_FIX_ERRORS;
        else
            return img_usage(img, "Unknown option value for -r (expecting 'leaks' or 'all'): %s", what);
    }
    if (!img_only_arg(img))
        return IMG_ERROR;
    if (img_cache_flags(img, IMG_SRC_CACHE, "writeback", "source cache option", &flags) < 0)
        return IMG_ERROR;
    flags |= BLK_O_CHECK | BLK_O_NO_BACKING | (fix ? BLK_O_RDWR | BLK_O_RESIZE : 0);
    auto_node struct blk_node *node = img_open_only(img, flags);
    if (!node)
        return IMG_ERROR;
    if ((r = run_check(img, node, fix, &c)))
        return r;
    bool quiet = img_has(img, IMG_QUIET);
    if (c.corruptions_fixed || c.leaks_fixed) {
        uint64_t fixed = c.corruptions_fixed, leaks = c.leaks_fixed;
        if (!json && !quiet) {
            printf("The following inconsistencies were found and repaired:\n\n    %llu leaked clusters\n"
                   "    %llu corruptions\n\nDouble checking the fixed image now...\n",
                   (unsigned long long)leaks, (unsigned long long)fixed);
            fflush(stdout);
        }
        if ((r = run_check(img, node, 0, &c)))
            return r;
        c.corruptions_fixed = fixed;
        c.leaks_fixed = leaks;
    }
    if (json)
        print_json(img, node, &c);
    else if (!quiet)
        print_human(&c);
    if (c.corruptions)
        return IMG_CHECK_CORRUPT;
    if (c.leaks)
        return IMG_CHECK_LEAKS;
    return c.check_errors ? IMG_ERROR : IMG_OK;
}
