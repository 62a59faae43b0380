/* See image.h: mostly the way to the driver, with one message where it cannot. */
#include "block/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/driver.h"

const char *const blk_prealloc_names[] = {"off", "metadata", "falloc", "full", NULL};

int blk_prealloc_parse(const char *name, enum blk_prealloc *ret, struct err *err)
{
    for (unsigned i = 0; blk_prealloc_names[i]; i++) {
        if (!strcmp(name, blk_prealloc_names[i])) {
            *ret = (enum blk_prealloc)i;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "Invalid parameter '%s' for preallocation (off, metadata, falloc, full)", name);
}

static int cannot(struct blk_node *n, const char *what, struct err *err)
{
    return err_set(err, -ENOTSUP, "%s: format %s does not support %s", n->filename, n->drv->name, what);
}

/* ---- creating ---- */

static const struct blk_driver *protocol_of(const char *filename)
{
    size_t len = strcspn(filename, ":/");
    if (filename[len] != ':' || !len)
        return &blk_file;
    for (unsigned i = 0; blk_drivers[i]; i++)
        for (unsigned k = 0; blk_drivers[i]->schemes && blk_drivers[i]->schemes[k]; k++)
            if (strlen(blk_drivers[i]->schemes[k]) == len && !strncmp(blk_drivers[i]->schemes[k], filename, len))
                return blk_drivers[i];
    return NULL;
}

/* Without a size, that of the backing file. A backing file's format is never guessed. */
static int size_from_backing(const char *filename, struct blk_opts *o, struct err *err)
{
    const char *backing = blk_opts_get(o, "backing_file"), *format = blk_opts_get(o, "backing_fmt");
    if (backing && !*backing)
        backing = NULL;
    if (format && !blk_driver_find(format))
        return err_set(err, -EINVAL, "Unknown backing file format '%s'", format);
    if (!backing)
        return blk_opts_has(o, "size") ? 0 : err_set(err, -EINVAL, "Image creation needs a size parameter");
    if (!format)
        return err_set(err, -EINVAL, "Backing file specified without backing format");
    if (!strcmp(backing, filename))
        return err_set(err, -EINVAL, "Error: Trying to create an image with the same filename as the backing file");
    if (blk_opts_has(o, "size"))
        return 0;
    auto_node struct blk_node *b = NULL;
    autofree char *path = blk_path_relative(filename, backing);
    int code = blk_node_open(path, format, NULL, BLK_O_NO_BACKING, &b, err);
    if (code < 0) {
        err_prefix(err, "Could not open backing image");
        return code;
    }
    autofree char *size = xasprintf("%llu", (unsigned long long)b->size);
    blk_opts_set(o, "size", size);
    return 0;
}

static int check_known(const struct blk_driver *drv, const struct blk_opts *o, struct err *err)
{
    for (unsigned i = 0; i < o->n; i++) {
        const struct blk_create_opt *k = drv->create_opts;
        while (k && k->name && strcmp(k->name, o->v[i].key))
            k++;
        if (!k || !k->name)
            return err_set(err, -EINVAL, "Format driver '%s' does not support the option '%s'", drv->name, o->v[i].key);
    }
    return 0;
}

int blk_create(const char *format, const char *filename, const struct blk_opts *opts, struct err *err)
{
    const struct blk_driver *drv = blk_driver_find(format), *proto = protocol_of(filename);
    if (!drv)
        return err_set(err, -EINVAL, "Unknown file format '%s'", format);
    if (!proto)
        return err_set(err, -ENOENT, "Unknown protocol '%.*s'", (int)strcspn(filename, ":"), filename);
    if (!drv->create)
        return err_set(err, -ENOTSUP, "Format driver '%s' does not support image creation", format);
    if (!proto->create_file)
        return err_set(err, -ENOTSUP, "Protocol driver '%s' does not support image creation", proto->name);
    auto_opts struct blk_opts *o = blk_opts_copy(opts);
    int code = size_from_backing(filename, o, err);
    if (code == 0)
        code = check_known(drv, o, err);
    if (code < 0)
        return code;
    bool existed = access(filename, F_OK) == 0;
    code = proto->create_file(filename, 0, err);
    if (code < 0)
        return code;
    struct blk_node *file = NULL;
    /* Nothing of value is in it yet: what the first user flushes makes all of it durable. */
    code = blk_node_open(filename, proto->name, NULL, BLK_O_RDWR | BLK_O_RESIZE | BLK_O_NO_FLUSH, &file, err);
    if (code == 0)
        code = drv->create(file, o, err);
    blk_node_unref(file);
    if (code < 0) {
        err_prefix(err, "%s", filename);
        if (!existed && proto == &blk_file)
            unlink(strncmp(filename, "file:", 5) ? filename : filename + 5);
    }
    return code;
}

/* ---- inspecting ---- */

int64_t blk_allocated_size(struct blk_node *n)
{
    if (n->drv->allocated_size)
        return n->drv->allocated_size(n);
    int64_t sum = n->drv->protocol ? -ENOTSUP : 0;
    for (struct blk_edge *e = n->children; e && sum >= 0; e = e->next) {
        if (e->role == BLK_ROLE_BACKING || !strcmp(e->name, "data-file"))
            continue;
        int64_t one = blk_allocated_size(e->child);
        sum = one < 0 ? one : sum + one;
    }
    return sum;
}

int blk_get_info(struct blk_node *n, struct blk_info *ret, struct err *err)
{
    int64_t allocated = blk_allocated_size(n);
    *ret = (struct blk_info){
        .virtual_size = n->size,
        .actual_size = allocated < 0 ? UINT64_MAX : (uint64_t)allocated,
        .cluster_size = n->cluster_size,
    };
    return n->drv->get_info ? n->drv->get_info(n, ret, err) : 0;
}

void blk_info_clear(struct blk_info *info)
{
    json_decref(info->specific);
    info->specific = NULL;
}

int blk_check(struct blk_node *n, struct blk_check *check, unsigned fix, struct err *err)
{
    return n->drv->check ? n->drv->check(n, check, fix, err)
                         : err_set(err, -ENOTSUP, "This image format does not support checks");
}

/* ---- changing ---- */

int blk_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, bool shrink, struct err *err)
{
    if (n->read_only)
        return err_set(err, -EROFS, "%s: Image is read-only", n->filename);
    if (size > INT64_MAX - 511)
        return err_set(err, -EFBIG, "Required too big image size, it must be not greater than %lld",
                       (long long)(INT64_MAX - 511));
    if (size < n->size && !shrink)
        return err_set(err, -EINVAL, "%s: shrinking loses the data behind the new end", n->filename);
    if (!n->drv->truncate)
        return err_set(err, -ENOTSUP, "Image format driver does not support resize");
    return n->drv->truncate(n, size, prealloc, err);
}

int blk_measure(const char *format, struct blk_opts *opts, struct blk_node *src, struct blk_measure *ret,
                struct err *err)
{
    const struct blk_driver *drv = blk_driver_find(format);
    if (!drv)
        return err_set(err, -EINVAL, "Unknown file format '%s'", format);
    if (!drv->measure)
        return err_set(err, -ENOTSUP, "Block driver '%s' does not support size measurement", format);
    return drv->measure(opts, src, ret, err);
}

int blk_amend(struct blk_node *n, const struct blk_opts *opts, blk_progress_fn *progress, void *opaque, bool force,
              struct err *err)
{
    if (!n->drv->amend)
        return err_set(err, -ENOTSUP, "Format driver '%s' does not support option amendment", n->drv->name);
    auto_opts struct blk_opts *o = blk_opts_copy(opts);
    for (unsigned i = 0; i < o->n; i++) {
        const struct blk_create_opt *k = n->drv->create_opts;
        while (k->name && strcmp(k->name, o->v[i].key))
            k++;
        if (!k->name)
            return err_set(err, -EINVAL, "Invalid parameter '%s'", o->v[i].key);
        if (!k->amend)
            return err_set(err, -EINVAL, "This option is only supported for image creation: '%s'", o->v[i].key);
    }
    return n->drv->amend(n, o, progress, opaque, force, err);
}

int blk_change_backing_file(struct blk_node *n, const char *file, const char *format, struct err *err)
{
    return n->drv->change_backing_file ? n->drv->change_backing_file(n, file, format, err)
                                       : cannot(n, "backing files", err);
}

int blk_make_empty(struct blk_node *n, struct err *err)
{
    return n->drv->make_empty ? n->drv->make_empty(n, err) : cannot(n, "being emptied", err);
}

/* ---- snapshots ---- */

int blk_snapshot_list(struct blk_node *n, struct blk_snapshot **ret, unsigned *ret_n, struct err *err)
{
    return n->drv->snapshot_list ? n->drv->snapshot_list(n, ret, ret_n, err) : cannot(n, "internal snapshots", err);
}

int blk_snapshot_create(struct blk_node *n, struct blk_snapshot *sn, struct err *err)
{
    return n->drv->snapshot_create ? n->drv->snapshot_create(n, sn, err) : cannot(n, "internal snapshots", err);
}

int blk_snapshot_apply(struct blk_node *n, const char *id, struct err *err)
{
    return n->drv->snapshot_apply ? n->drv->snapshot_apply(n, id, err) : cannot(n, "internal snapshots", err);
}

int blk_snapshot_delete(struct blk_node *n, const char *id, struct err *err)
{
    return n->drv->snapshot_delete ? n->drv->snapshot_delete(n, id, err) : cannot(n, "internal snapshots", err);
}

int blk_snapshot_load_tmp(struct blk_node *n, const char *id, struct err *err)
{
    return n->drv->snapshot_load_tmp ? n->drv->snapshot_load_tmp(n, id, err) : cannot(n, "internal snapshots", err);
}

int blk_vmstate_read(struct blk_node *n, uint64_t offset, void *buf, size_t len)
{
    return n->drv->vmstate_read ? n->drv->vmstate_read(n, offset, buf, len) : -ENOTSUP;
}

int blk_vmstate_write(struct blk_node *n, uint64_t offset, const void *buf, size_t len)
{
    return n->read_only ? -EROFS : n->drv->vmstate_write ? n->drv->vmstate_write(n, offset, buf, len) : -ENOTSUP;
}

/* ---- bitmaps ---- */

int blk_bitmap_list(struct blk_node *n, struct blk_bitmap **ret, unsigned *ret_n, struct err *err)
{
    return n->drv->bitmap_list ? n->drv->bitmap_list(n, ret, ret_n, err) : cannot(n, "persistent bitmaps", err);
}

int blk_bitmap_add(struct blk_node *n, const char *name, uint32_t granularity, bool disabled, struct err *err)
{
    return n->drv->bitmap_add ? n->drv->bitmap_add(n, name, granularity, disabled, err)
                              : cannot(n, "persistent bitmaps", err);
}

int blk_bitmap_remove(struct blk_node *n, const char *name, struct err *err)
{
    return n->drv->bitmap_remove ? n->drv->bitmap_remove(n, name, err) : cannot(n, "persistent bitmaps", err);
}

int blk_bitmap_clear(struct blk_node *n, const char *name, struct err *err)
{
    return n->drv->bitmap_clear ? n->drv->bitmap_clear(n, name, err) : cannot(n, "persistent bitmaps", err);
}

int blk_bitmap_enable(struct blk_node *n, const char *name, bool enable, struct err *err)
{
    return n->drv->bitmap_enable ? n->drv->bitmap_enable(n, name, enable, err) : cannot(n, "persistent bitmaps", err);
}

int blk_bitmap_set(struct blk_node *n, const char *name, uint64_t offset, uint64_t len, struct err *err)
{
    return n->drv->bitmap_set ? n->drv->bitmap_set(n, name, offset, len, err) : cannot(n, "persistent bitmaps", err);
}

int blk_bitmap_next(struct blk_node *n, const char *name, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end,
                    struct err *err)
{
    return n->drv->bitmap_next ? n->drv->bitmap_next(n, name, offset, ret_start, ret_end, err)
                               : cannot(n, "persistent bitmaps", err);
}

int blk_bitmap_merge(struct blk_node *n, const char *name, struct blk_node *src, const char *src_name, struct err *err)
{
    uint64_t start, end;
    for (uint64_t at = 0; at < src->size; at = end) {
        int code = blk_bitmap_next(src, src_name, at, &start, &end, err);
        if (code <= 0)
            return code;
        end = MIN(end, n->size);
        if (start >= end)
            return 0;
        code = blk_bitmap_set(n, name, start, end - start, err);
        if (code < 0)
            return code;
    }
    return 0;
}
