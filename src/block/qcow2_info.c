/* qcow2: what `info` shows, and small changes of the header. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

static json_t *bitmaps_json(struct qcow2 *s)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < s->n_bitmaps; i++) {
        const struct qbitmap *b = &s->bitmaps[i];
        json_t *flags = json_array();
        if (b->flags & 1)
            json_array_append_new(flags, json_string("in-use"));
        if (b->flags & 2)
            json_array_append_new(flags, json_string("auto"));
        json_t *one = json_object();
        json_object_set_new(one, "flags", flags);
        json_object_set_new(one, "name", json_string(b->name));
        json_object_set_new(one, "granularity", json_integer((json_int_t)1 << b->granularity_bits));
        json_array_append_new(list, one);
    }
    return list;
}

int qcow2_get_info(struct blk_node *n, struct blk_info *ret, struct err *err)
{
    struct qcow2 *s = n->priv;
    json_t *j = json_object();
    ret->cluster_size = (uint32_t)s->cluster_size;
    ret->dirty = s->incompatible & BIT64(QI_DIRTY);
    ret->corrupt = s->corrupt;
    uint64_t covers = BIT64(s->l2_bits + s->cluster_bits);
    ret->vm_state_offset = (n->size + covers - 1) / covers * covers;
    json_object_set_new(j, "compat", json_string(s->version >= 3 ? "1.1" : "0.10"));
    json_object_set_new(j, "compression-type", json_string(s->compression == QCOMP_ZSTD ? "zstd" : "zlib"));
    if (s->version >= 3)
        json_object_set_new(j, "lazy-refcounts", json_boolean(s->compatible & BIT64(QC_LAZY)));
    if (s->n_bitmaps)
        json_object_set_new(j, "bitmaps", bitmaps_json(s));
    json_object_set_new(j, "refcount-bits", json_integer(1 << s->refcount_order));
    if (s->data_file_name)
        json_object_set_new(j, "data-file", json_string(s->data_file_name));
    if (s->version >= 3) {
        if (s->incompatible & BIT64(QI_DATA_FILE))
            json_object_set_new(j, "data-file-raw", json_boolean(s->autoclear & BIT64(QA_DATA_RAW)));
        json_object_set_new(j, "corrupt", json_boolean(s->corrupt));
        json_object_set_new(j, "extended-l2", json_boolean(s->extl2));
    }
    ret->specific = j;
    return 0;
}

int qcow2_change_backing_file(struct blk_node *n, const char *file, const char *format, struct err *err)
{
    struct qcow2 *s = n->priv;
    if (file && strlen(file) > MIN(1023, s->cluster_size - 300))
        return err_set(err, -EINVAL, "the backing file's name is too long");
    if (format && strlen(format) >= 16)
        return err_set(err, -EINVAL, "the backing file's format is too long");
    if (file && s->data_raw)
        return err_set(err, -ENOTSUP, "An image with a raw external data file cannot have a backing file");
    char *old_file = n->backing_file, *old_format = n->backing_format;
    uint64_t old_offset = s->backing_offset;
    n->backing_file = file && *file ? xstrdup(file) : NULL;
    n->backing_format = n->backing_file && format ? xstrdup(format) : NULL;
    pthread_mutex_lock(&s->meta);
    int code = qcow2_write_header(s);
    pthread_mutex_unlock(&s->meta);
    if (code < 0) {
        free(n->backing_file);
        free(n->backing_format);
        n->backing_file = old_file;
        n->backing_format = old_format;
        s->backing_offset = old_offset;
        return err_errno(err, code, "Could not change the backing file to '%s'", file ? file : "");
    }
    free(old_file);
    free(old_format);
    return 0;
}

int qcow2_make_empty(struct blk_node *n, struct err *err)
{
    struct qcow2 *s = n->priv;
    int code = blk_pflush(n);
    if (code == 0)
        code = qcow2_drop_range(s, 0, ALIGN_UP(atomic_load(&n->size), s->cluster_size), true);
    for (unsigned i = 0; i < 2 && code == 0; i++)
        code = blk_pflush(n);
    if (code == 0)
        qcow2_bitmaps_mark(s, 0, n->size);
    return code < 0 ? err_errno(err, code, "Could not empty %s", n->filename) : 0;
}
