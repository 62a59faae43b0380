/* `lodge img snapshot`, `rebase` and `commit`: states of an image behind one another. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sys/time.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/copy.h"
#include "block/driver.h"
#include "cli/img.h"

enum { CHAIN_MAX = 1000 };

int img_snapshot(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    unsigned actions = img->count[IMG_LIST] + img->count[IMG_ACTION_CREATE] + img->count[IMG_ACTION_APPLY] +
                       img->count[IMG_ACTION_DELETE];
    if (actions > 1)
        return img_usage(img, "Cannot mix '-l', '-a', '-c', '-d'");
    bool list = !actions || img_has(img, IMG_LIST);
    auto_node struct blk_node *node = img_open_only(img, BLK_O_NO_BACKING | (list ? 0 : BLK_O_RDWR));
    if (!node)
        return IMG_ERROR;
    if (list) {
        autofree struct blk_snapshot *sn = NULL;
        unsigned n = 0;
        r = blk_snapshot_list(node, &sn, &n, &err);
        if (r < 0 && r != -ENOTSUP)
            return img_error(img, "%s", err.msg);
        if (n) {
            puts("Snapshot list:");
            img_print_snapshots(sn, n);
        }
        return IMG_OK;
    }
    const char *what, *name;
    if (img_has(img, IMG_ACTION_CREATE)) {
        struct blk_snapshot sn = {0};
        struct timeval now;
        what = "create";
        name = img->value[IMG_ACTION_CREATE];
        if (strlen(name) >= sizeof sn.name)
            return img_error(img, "Could not create snapshot '%s': its name is too long", name);
        strcpy(sn.name, name);
        gettimeofday(&now, NULL);
        sn.date_sec = (uint32_t)now.tv_sec;
        sn.date_nsec = (uint32_t)now.tv_usec * 1000;
        r = blk_snapshot_create(node, &sn, &err);
    } else if (img_has(img, IMG_ACTION_APPLY)) {
        what = "apply";
        name = img->value[IMG_ACTION_APPLY];
        r = blk_snapshot_apply(node, name, &err);
    } else {
        what = "delete";
        name = img->value[IMG_ACTION_DELETE];
        r = blk_snapshot_delete(node, name, &err);
    }
    if (r < 0 && !strncmp(err.msg, "Could not ", 10))
        return img_error(img, "%s", err.msg);
    return r < 0 ? img_error(img, "Could not %s snapshot '%s': %s", what, name, err.msg) : IMG_OK;
}

int img_rebase(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    unsigned flags, src_flags;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    bool unsafe = img_has(img, IMG_UNSAFE);
    const char *backing = img->value[IMG_BACKING], *format = img->value[IMG_BACKING_FORMAT];
    if (img->n_args != 1)
        return img_usage(img, "Expecting one image file name");
    if (!unsafe && !backing)
        return img_usage(img, "Must specify backing file (-b) or use unsafe mode (-u)");
    if (img_cache_flags(img, IMG_CACHE, "writeback", "cache option", &flags) < 0 ||
        img_cache_flags(img, IMG_SRC_CACHE, "writeback", "source cache option", &src_flags) < 0)
        return IMG_ERROR;
    if (backing && !*backing)
        backing = NULL;
    if (format && !blk_driver_find(format))
        return img_error(img, "Invalid format name: '%s'", format);
    auto_node struct blk_node *node = img_open_only(img, flags | BLK_O_RDWR | BLK_O_UNMAP | (unsafe ? BLK_O_NO_BACKING : 0));
    if (!node)
        return IMG_ERROR;
    if (!node->drv->change_backing_file)
        return img_error(img, "Could not change the backing file to '%s': %s images have none", backing ? backing : "",
                         node->drv->name);
    if (backing && !format)
        return img_error(img, "Could not change the backing file to '%s': backing format must be specified (-F)", backing);
    if (!unsafe) {
        auto_node struct blk_node *new = NULL;
        if (backing) {
            autofree char *full = blk_path_relative(node->filename, backing);
            if (blk_node_open(full, format, NULL, src_flags | (img_has(img, IMG_FORCE_SHARE) ? BLK_O_FORCE_SHARE : 0), &new,
                              &err) < 0)
                return img_error(img, "Could not open new backing file '%s': %s", backing,
                                 img_without_name(err.msg, full));
        }
        struct img_progress p;
        img_progress_start(&p, img, 1.0);
        bool ok = blk_rebase(node, blk_node_backing(node), new, img_progress, &p, &err) >= 0;
        img_progress_end(&p, ok);
        if (!ok)
            return img_error(img, "%s", err.msg);
    }
    if (blk_change_backing_file(node, backing, backing ? format : NULL, &err) < 0)
        return img_error(img, "Could not change the backing file to '%s': %s", backing ? backing : "", err.msg);
    if ((r = blk_node_flush(node)) < 0)
        return img_error(img, "%s: cannot write: %s", img->args[0], strerror(-r));
    return IMG_OK;
}

/* Opens the layers below `top` down to the one that is committed into, which becomes writable. NULL after an error. */
static struct blk_node *open_base(const struct img *img, struct blk_node *top, unsigned flags)
{
    const char *wanted = img->value[IMG_BACKING];
    autofree char *relative = wanted ? blk_path_relative(top->filename, wanted) : NULL;
    struct blk_node *n = top;
    if (!wanted && !top->backing_file) {
        img_error(img, "Image does not have a backing file");
        return NULL;
    }
    for (unsigned depth = 0; n->backing_file && depth < CHAIN_MAX; depth++) {
        struct err err = {0};
        struct blk_edge *edge;
        autofree char *full = blk_path_relative(n->filename, n->backing_file);
        bool last = !wanted || !strcmp(n->backing_file, wanted) || !strcmp(full, wanted) || !strcmp(full, relative);
        unsigned how = last ? flags | BLK_O_RDWR | BLK_O_RESIZE | BLK_O_UNMAP : BLK_O_NO_BACKING;
        struct blk_node *below = NULL;
        if (!n->backing_format) {
            img_error(img, "%s: its backing file '%s' has no format recorded (rebase -u -F sets it)", n->filename,
                      n->backing_file);
            return NULL;
        }
        if (blk_node_open(full, n->backing_format, NULL, how, &below, &err) < 0 ||
            blk_attach(n, below, "backing", BLK_ROLE_BACKING, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &edge, &err) < 0) {
            blk_node_unref(below);
            img_error(img, "Could not open backing file '%s': %s", full, err.msg);
            return NULL;
        }
        if (last)
            return below;
        n = below;
    }
    img_error(img, "Did not find '%s' in the backing chain of '%s'", wanted ? wanted : "", img->args[0]);
    return NULL;
}

int img_commit(struct img *img, int argc, char **argv)
{
    struct err err = {0};
    unsigned flags;
    int64_t rate = 0;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if (img_cache_flags(img, IMG_CACHE, "writeback", "cache option", &flags) < 0 ||
        img_size_option(img, IMG_RATE, "rate limit", 0, INT64_MAX, &rate) < 0)
        return IMG_ERROR;
    auto_node struct blk_node *top = img_open_only(img, flags | BLK_O_RDWR | BLK_O_UNMAP | BLK_O_NO_BACKING);
    if (!top)
        return IMG_ERROR;
    struct blk_node *base = open_base(img, top, flags);
    if (!base)
        return IMG_ERROR;
    bool direct = base == blk_node_backing(top);
    struct img_progress p;
    img_progress_start(&p, img, 1.0);
    bool ok = blk_commit(top, base, (uint64_t)rate, img_progress, &p, &err) >= 0;
    /* With a base further down, the layers between would show through again. */
    if (ok && direct && !img_has(img, IMG_KEEP) && !img_has(img, IMG_BACKING) && top->drv->make_empty)
        ok = blk_make_empty(top, &err) >= 0;
    if (ok && ((r = blk_node_flush(base)) < 0 || (r = blk_node_flush(top)) < 0))
        ok = !err_errno(&err, r, "cannot write");
    img_progress_end(&p, ok);
    if (!ok)
        return img_error(img, "%s", err.msg);
    if (!img_has(img, IMG_QUIET))
        puts("Image committed.");
    return IMG_OK;
}
