/*
 * A format or protocol. All of them stand in drivers.c. Functions may be NULL where the comment says so; they block unless
 * said otherwise, and the data path is called from any number of threads at once.
 */
#ifndef LODGE_BLOCK_DRIVER_H
#define LODGE_BLOCK_DRIVER_H

#include "block/image.h"
#include "block/node.h"

struct file;

/* A plain run of bytes that a request may use without the driver: blk_driver.map. */
struct blk_map {
    enum { BLK_MAP_SLOW, BLK_MAP_ZERO, BLK_MAP_CHILD } kind;
    struct blk_node *child; /* CHILD: where */
    uint64_t host;          /* CHILD: at which byte of it */
    uint64_t len;           /* bytes from the offset asked for on, up to the length asked for */
    void *token;            /* for map_done, which must follow; NULL: nothing to tell */
};

struct blk_driver {
    const char *name; /* "qcow2" */
    bool protocol;    /* else a format: its node has a `file` child, open before open() is called */
    /* Protocols: file names "scheme:…" are theirs. NULL-terminated; NULL: none ("file"). */
    const char *const *schemes;
    /* Formats: how sure the driver is, 0 (not mine) to 100, that these first bytes of a file are its format. */
    int (*probe)(const uint8_t *head, size_t len, const char *filename);
    /*
     * Sets priv, size, and what else differs. Options not taken are refused by the caller. A protocol finds its file name
     * in option "filename". backing_file/backing_format: set when recorded; the caller opens the backing file afterwards.
     */
    int (*open)(struct blk_node *n, struct blk_opts *opts, struct err *err);
    void (*close)(struct blk_node *n);

    /* Data. [offset, offset+len) lies within the node's size (formats). */
    int (*preadv)(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len);
    int (*pwritev)(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                   unsigned flags);                                                             /* NULL: read-only */
    int (*pwrite_zeroes)(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags);    /* NULL: zeroes are written */
    int (*pdiscard)(struct blk_node *n, uint64_t offset, uint64_t len);                         /* NULL: nothing happens */
    int (*pwritev_compressed)(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov,
                              uint64_t len); /* NULL: cannot */
    int (*pflush)(struct blk_node *n);       /* writes metadata, then the children are flushed by the caller; may be NULL */
    /* NULL: all is DATA, and lies at the same offset in `file` (if there is one). */
    int (*block_status)(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret);
    /*
     * Without blocking: where [offset, +len) is read from or written to. Optional. For a write that was mapped, map_done
     * follows when it has completed, from any thread.
     */
    void (*map)(struct blk_node *n, bool write, uint64_t offset, uint64_t len, struct blk_map *ret);
    void (*map_done)(struct blk_node *n, void *token, int ret);

    /* Images as a whole (image.h). NULL: not supported. */
    const struct blk_create_opt *create_opts; /* ends with a NULL name */
    /* Formats: makes an image in `file`, which is open for writing and empty; opts hold what create_opts lists. */
    int (*create)(struct blk_node *file, struct blk_opts *opts, struct err *err);
    /* Protocols: makes (or empties) the file, of `size` zero bytes. */
    int (*create_file)(const char *filename, uint64_t size, struct err *err);
    int (*get_info)(struct blk_node *n, struct blk_info *ret, struct err *err);
    int64_t (*allocated_size)(struct blk_node *n); /* NULL: the sum of the children with file and data roles */
    int (*check)(struct blk_node *n, struct blk_check *check, unsigned fix, struct err *err);
    int (*truncate)(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err);
    /* Protocols: makes the file at least `size` bytes long; what it has stays, also while others write. */
    int (*grow)(struct blk_node *n, uint64_t size);
    int (*measure)(struct blk_opts *opts, struct blk_node *src, struct blk_measure *ret, struct err *err);
    int (*amend)(struct blk_node *n, struct blk_opts *opts, blk_progress_fn *progress, void *opaque, bool force,
                 struct err *err);
    int (*change_backing_file)(struct blk_node *n, const char *file, const char *format, struct err *err);
    int (*make_empty)(struct blk_node *n, struct err *err);
    int (*snapshot_list)(struct blk_node *n, struct blk_snapshot **ret, unsigned *ret_n, struct err *err);
    int (*snapshot_create)(struct blk_node *n, struct blk_snapshot *sn, struct err *err);
    int (*snapshot_apply)(struct blk_node *n, const char *id, struct err *err);
    int (*snapshot_delete)(struct blk_node *n, const char *id, struct err *err);
    int (*snapshot_load_tmp)(struct blk_node *n, const char *id, struct err *err);
    int (*vmstate_read)(struct blk_node *n, uint64_t offset, void *buf, size_t len);
    int (*vmstate_write)(struct blk_node *n, uint64_t offset, const void *buf, size_t len);
    int (*bitmap_list)(struct blk_node *n, struct blk_bitmap **ret, unsigned *ret_n, struct err *err);
    int (*bitmap_add)(struct blk_node *n, const char *name, uint32_t granularity, bool disabled, struct err *err);
    int (*bitmap_remove)(struct blk_node *n, const char *name, struct err *err);
    int (*bitmap_clear)(struct blk_node *n, const char *name, struct err *err);
    int (*bitmap_enable)(struct blk_node *n, const char *name, bool enable, struct err *err);
    int (*bitmap_set)(struct blk_node *n, const char *name, uint64_t offset, uint64_t len, struct err *err);
    int (*bitmap_next)(struct blk_node *n, const char *name, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end,
                       struct err *err);

    /* The `file` protocol only: its descriptor for io_uring. */
    struct file *(*get_file)(struct blk_node *n);
};

extern const struct blk_driver blk_raw, blk_file, blk_qcow2, blk_vdi, blk_vpc, blk_vhdx, blk_vmdk, blk_qed, blk_parallels,
    blk_nbd, blk_curl;

/* NULL-terminated. */
extern const struct blk_driver *const blk_drivers[];

const struct blk_driver *blk_driver_find(const char *name);

#endif
