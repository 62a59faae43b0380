/*
 * What can be done to an image as a whole: create, inspect, check, resize, amend, internal snapshots, bitmaps. These call the
 * node's driver; -ENOTSUP with a message where the format cannot. One thread per node, nothing else in flight.
 */
#ifndef LODGE_BLOCK_IMAGE_H
#define LODGE_BLOCK_IMAGE_H

#include <jansson.h>

#include "block/node.h"

enum blk_prealloc { BLK_PREALLOC_OFF, BLK_PREALLOC_METADATA, BLK_PREALLOC_FALLOC, BLK_PREALLOC_FULL };
extern const char *const blk_prealloc_names[]; /* "off" …, NULL-terminated */
int blk_prealloc_parse(const char *name, enum blk_prealloc *ret, struct err *err);

/* A driver's create and amend options, for checks and help. */
struct blk_create_opt {
    const char *name;
    enum { BLK_OPT_STRING, BLK_OPT_BOOL, BLK_OPT_SIZE, BLK_OPT_NUMBER } type;
    const char *help;
    const char *def; /* as text, NULL: none */
    bool amend;      /* blk_amend() takes it, too */
};

/*
 * Creates an image of `format` (a protocol file included). `opts`: size, backing_file, backing_fmt, preallocation, … as in
 * create_opts of the driver; unknown ones are an error. The size may be missing when there is a backing file.
 */
int blk_create(const char *format, const char *filename, const struct blk_opts *opts, struct err *err);

/* Progress of long work: called now and then with bytes done of total; from one thread. May be NULL. */
typedef void blk_progress_fn(void *opaque, uint64_t done, uint64_t total);

struct blk_info {
    uint64_t virtual_size, actual_size; /* bytes; actual: allocated on disk, UINT64_MAX unknown */
    uint32_t cluster_size;              /* 0: none */
    bool encrypted, compressed, dirty, corrupt;
    uint64_t vm_state_offset;
    json_t *specific; /* format-specific, as QEMU's "data" object; keys as in QEMU 7.2; NULL: none */
};
int blk_get_info(struct blk_node *n, struct blk_info *ret, struct err *err);
void blk_info_clear(struct blk_info *info);
/* Bytes that the node's files occupy on disk, without backing files. */
int64_t blk_allocated_size(struct blk_node *n);

enum { BLK_FIX_LEAKS = 1, BLK_FIX_ERRORS = 2 };
struct blk_check {
    /* Each finding as a line of text ("Leaked cluster 5 refcount=1 reference=0"); may be NULL. */
    void (*report)(void *opaque, bool error, const char *line);
    void *opaque;
    blk_progress_fn *progress;
    /* results */
    uint64_t corruptions, leaks, check_errors, corruptions_fixed, leaks_fixed;
    uint64_t image_end_offset;
    uint64_t total_clusters, allocated_clusters, compressed_clusters, fragmented_clusters;
};
int blk_check(struct blk_node *n, struct blk_check *check, unsigned fix, struct err *err);

/* Changes the size. Shrinking a format needs `shrink`. */
int blk_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, bool shrink, struct err *err);

struct blk_measure {
    uint64_t required, fully_allocated, bitmaps;
    bool has_bitmaps;
};
/* Bytes a new image of `format` would take: for `src` (may be NULL) or for opts' size. */
int blk_measure(const char *format, struct blk_opts *opts, struct blk_node *src, struct blk_measure *ret,
                struct err *err);

int blk_amend(struct blk_node *n, const struct blk_opts *opts, blk_progress_fn *progress, void *opaque, bool force,
              struct err *err);
/* Records another backing file in the image's header (NULL: none); does not touch what is open. */
int blk_change_backing_file(struct blk_node *n, const char *file, const char *format, struct err *err);
/* Makes every cluster unallocated: reads as the backing file again. After commit. */
int blk_make_empty(struct blk_node *n, struct err *err);

/* ---- internal snapshots ---- */

struct blk_snapshot {
    char id[128], name[256];
    uint64_t vm_state_size, disk_size;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount; /* UINT64_MAX: none */
};
int blk_snapshot_list(struct blk_node *n, struct blk_snapshot **ret, unsigned *ret_n, struct err *err); /* freed by free() */
/* `sn->id` empty: chosen. */
int blk_snapshot_create(struct blk_node *n, struct blk_snapshot *sn, struct err *err);
/* By id or name, id first. */
int blk_snapshot_apply(struct blk_node *n, const char *id_or_name, struct err *err);
int blk_snapshot_delete(struct blk_node *n, const char *id_or_name, struct err *err);
/* The node shows the snapshot from now on (read-only nodes). */
int blk_snapshot_load_tmp(struct blk_node *n, const char *id_or_name, struct err *err);

/* The VM-state area behind the disk (guest state of a live snapshot). */
int blk_vmstate_read(struct blk_node *n, uint64_t offset, void *buf, size_t len);
int blk_vmstate_write(struct blk_node *n, uint64_t offset, const void *buf, size_t len);

/* ---- persistent dirty bitmaps ---- */

enum { BLK_BITMAP_IN_USE = 1, BLK_BITMAP_AUTO = 2 };
struct blk_bitmap {
    char name[1024];
    uint32_t granularity; /* bytes */
    unsigned flags;       /* IN_USE: not stored properly, AUTO: enabled */
};
int blk_bitmap_list(struct blk_node *n, struct blk_bitmap **ret, unsigned *ret_n, struct err *err); /* free() */
int blk_bitmap_add(struct blk_node *n, const char *name, uint32_t granularity, bool disabled, struct err *err);
int blk_bitmap_remove(struct blk_node *n, const char *name, struct err *err);
int blk_bitmap_clear(struct blk_node *n, const char *name, struct err *err);
int blk_bitmap_enable(struct blk_node *n, const char *name, bool enable, struct err *err);
/* Or's `src_name` of `src` (may be n itself) into `name`. */
int blk_bitmap_merge(struct blk_node *n, const char *name, struct blk_node *src, const char *src_name, struct err *err);
/* The next dirty range of bytes at or after `offset`: 1, or 0 when there is none, or -errno. */
int blk_bitmap_next(struct blk_node *n, const char *name, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end,
                    struct err *err);
/* Marks bytes as dirty by hand. */
int blk_bitmap_set(struct blk_node *n, const char *name, uint64_t offset, uint64_t len, struct err *err);

#endif
