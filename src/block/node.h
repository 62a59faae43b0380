/*
 * The block layer's graph. A node is a format (qcow2) or a protocol (file) with its data; edges lead to the children it
 * stands on: `file` (where its bytes are), `backing` (what shows where it has nothing), `data` (external data), or more by
 * name (a VMDK's extents).
 *
 * The calls below block and are safe from any number of threads at once, unless said otherwise: `lodge img`, jobs and
 * servers use them directly. Guests' disks use block.h, which translates down the graph without blocking where it can.
 */
#ifndef LODGE_BLOCK_NODE_H
#define LODGE_BLOCK_NODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "block/opts.h"

struct blk_driver;
struct blk_node;

enum {
    BLK_O_RDWR = 1 << 0,
    BLK_O_DIRECT = 1 << 1,      /* O_DIRECT */
    BLK_O_NO_FLUSH = 1 << 2,    /* flushes do nothing: cache=unsafe */
    BLK_O_NO_BACKING = 1 << 3,  /* leave the backing file closed */
    BLK_O_FORCE_SHARE = 1 << 4, /* -U: take no lock that conflicts with a writer elsewhere; read-only opens only */
    BLK_O_NO_URING = 1 << 5,
    BLK_O_CHECK = 1 << 6,       /* for checking: images marked corrupt or dirty open too, nothing is repaired */
    BLK_O_NO_IO = 1 << 7,       /* for info: the guest's data is not going to be read */
    BLK_O_NO_LOCK = 1 << 8,     /* locking=off */
    BLK_O_WRITETHROUGH = 1 << 9, /* every guest write is durable when it completes; devices look at it */
    BLK_O_RESIZE = 1 << 10,     /* a raw image's length will be changed */
    BLK_O_UNMAP = 1 << 11,      /* discard=unmap: discards reach the file */
};

/* What a parent does to a child, and lets others do. The numbers are QEMU's (they are also byte offsets of file locks). */
enum {
    BLK_PERM_CONSISTENT_READ = 1 << 0,
    BLK_PERM_WRITE = 1 << 1,
    BLK_PERM_WRITE_UNCHANGED = 1 << 2,
    BLK_PERM_RESIZE = 1 << 3,
    BLK_PERM_ALL = 15,
};

enum blk_role {
    BLK_ROLE_FILE,     /* the node's own bytes */
    BLK_ROLE_BACKING,  /* read where the node has nothing allocated */
    BLK_ROLE_DATA,     /* guest data, kept apart from metadata */
    BLK_ROLE_FILTERED, /* the same guest-visible bytes, passed through */
};

struct blk_edge {
    struct blk_node *parent; /* NULL: a root's (struct blk, a job, a program) */
    struct blk_node *child;
    enum blk_role role;
    char name[32]; /* "file", "backing", "data-file", "extents.0" */
    unsigned perm, shared;
    struct blk_edge *next;        /* the parent's next child */
    struct blk_edge *next_parent; /* the child's next parent */
};

struct blk_node {
    const struct blk_driver *drv;
    void *priv;
    char *filename;         /* as opened; what error messages name */
    char node_name[32];     /* unique in a process; "#block123" unless given */
    struct blk_opts *opts;  /* as given to the driver */
    unsigned flags;         /* BLK_O_* */
    bool read_only;
    bool probed; /* nobody said what format it is: see raw.c */
    bool grows_zero; /* protocols: what writes behind the end leave out reads as zeroes */
    bool stream; /* each cluster is written once, as a whole and compressed, best from start to end */
    _Atomic uint64_t size;  /* bytes: of the disk (formats), of the file (protocols) */
    uint32_t request_align; /* of reads and writes through the calls below; 1 mostly. They align by themselves */
    uint32_t block_size;    /* sector size of the medium below: 512 or 4096 */
    uint32_t physical_size; /* preferred alignment */
    uint32_t cluster_size;  /* of the format; 0: none */
    struct blk_edge *file, *backing, *data; /* also in children; any may be NULL */
    struct blk_edge *children, *parents;
    char *backing_file, *backing_format; /* as recorded in the image; NULL: none */
    _Atomic unsigned refs;
    _Atomic unsigned inflight; /* requests inside the node */
};

/* ---- opening ---- */

/*
 * Opens an image. `filename`: a path, "json:{…}", "driver:…" for protocols ("nbd://…"), or NULL when `opts` says all.
 * `format`: a driver's name, or NULL to probe (a *backing* file is never probed: see backing_format). `opts` may be NULL;
 * it is copied. Locks according to flags. On success the caller owns one reference (blk_node_unref).
 */
int blk_node_open(const char *filename, const char *format, const struct blk_opts *opts, unsigned flags,
                  struct blk_node **ret, struct err *err);
/* The same over an open node `file` (the reference is taken over, also on failure), for what has no file name. */
int blk_node_open_on(struct blk_node *file, const char *format, const struct blk_opts *opts, unsigned flags,
                     struct blk_node **ret, struct err *err);
/* NULL-safe. The last reference closes the node: metadata is written, children are released. */
void blk_node_unref(struct blk_node *n);
struct blk_node *blk_node_ref(struct blk_node *n);
/* Writes what is cached (as close does), but tells errors. The node stays usable. */
int blk_node_flush(struct blk_node *n);

static inline void blk_node_unrefp(struct blk_node **n)
{
    blk_node_unref(*n);
}
#define auto_node __attribute__((cleanup(blk_node_unrefp)))

/* The name of the format that the first `len` bytes of an image show, or NULL: raw, as far as one can tell. */
const char *blk_probe(const uint8_t *head, size_t len);

/*
 * A backing file's name as seen from the image that names it: relative names start in the image's folder; protocols and
 * absolute paths stay. malloc'ed.
 */
char *blk_path_relative(const char *image, const char *backing);

/* ---- reading and writing; 0 or -errno ---- */

enum {
    BLK_F_FUA = 1,         /* durable before it returns */
    BLK_F_UNMAP = 2,       /* zeroes may deallocate */
    BLK_F_NO_FALLBACK = 4, /* zeroes: -ENOTSUP rather than slowly writing zeroes */
    BLK_F_COMPRESSED = 8,  /* write one cluster compressed (formats that can; else -ENOTSUP). Whole clusters, or up to the
                              end of the disk */
};

/* Reading past the end of the node gives -EINVAL for formats, zeroes for protocols. */
int blk_pread(struct blk_node *n, uint64_t offset, void *buf, size_t len);
int blk_pwrite(struct blk_node *n, uint64_t offset, const void *buf, size_t len, unsigned flags);
int blk_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov);
int blk_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, unsigned flags);
int blk_pwrite_zeroes(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags);
int blk_pdiscard(struct blk_node *n, uint64_t offset, uint64_t len);
int blk_pflush(struct blk_node *n);

/* Makes a protocol's file at least so long. */
int blk_grow(struct blk_node *n, uint64_t size);
/* Somebody has written up to here past the calls above (io_uring). */
static inline void blk_grew(struct blk_node *n, uint64_t end)
{
    uint64_t old = atomic_load(&n->size);
    while (old < end && !atomic_compare_exchange_weak(&n->size, &old, end))
        ;
}

/* ---- where data is ---- */

enum {
    BLK_STATUS_DATA = 1,       /* read from a file or decoded, may be anything */
    BLK_STATUS_ZERO = 2,       /* reads as zeroes */
    BLK_STATUS_ALLOCATED = 4,  /* decided by this layer, not by the backing file */
    BLK_STATUS_OFFSET = 8,     /* lies plain at `host` in `file` */
    BLK_STATUS_COMPRESSED = 16,
    BLK_STATUS_EOF = 32, /* the end of the node */
    BLK_STATUS_RECURSE = 64, /* from drivers: the file may have holes where this one has data */
};

struct blk_extent {
    uint64_t len;   /* bytes for which the rest holds, 1 to the length asked for */
    unsigned flags; /* BLK_STATUS_* */
    uint64_t host;
    struct blk_node *file; /* not a reference */
    unsigned depth;        /* blk_block_status_above: how many layers down it was decided; 0 = n itself */
};

/* This layer alone. `want_zero` false: DATA need not be looked at more closely (no SEEK_HOLE). */
int blk_block_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret);
/*
 * Through the backing chain, down to but without `base` (NULL: all of it). Parts nobody has are ZERO without ALLOCATED
 * (depth: that of the last layer) if base is NULL, and neither flag otherwise. Goes down to the protocol for zeroes if
 * want_zero.
 */
int blk_block_status_above(struct blk_node *n, struct blk_node *base, uint64_t offset, uint64_t len, bool want_zero,
                           struct blk_extent *ret);

/* Copies between nodes as cheaply as the files allow (copy_file_range); 0, -ENOTSUP when it cannot, or -errno. */
int blk_copy_range(struct blk_node *src, uint64_t src_off, struct blk_node *dst, uint64_t dst_off, uint64_t len);

/* ---- graph ---- */

static inline struct blk_node *blk_edge_child(const struct blk_edge *e)
{
    return e ? e->child : NULL;
}
#define blk_node_file(n) blk_edge_child((n)->file)
#define blk_node_backing(n) blk_edge_child((n)->backing)

/*
 * For drivers' open: opens the child `name` from the options "name.*" (or "name", a node's name), or else from
 * `filename` (may be NULL: then the options must be there, -ENOENT otherwise) and `format`.
 */
int blk_open_child(struct blk_node *parent, struct blk_opts *opts, const char *name, const char *filename,
                   const char *format, enum blk_role role, unsigned flags, struct blk_edge **ret, struct err *err);
/* Attaches an open node (takes over the caller's reference on success). -EPERM where permissions conflict. */
int blk_attach(struct blk_node *parent, struct blk_node *child, const char *name, enum blk_role role, unsigned perm,
               unsigned shared, struct blk_edge **ret, struct err *err);
void blk_detach(struct blk_edge *e);

/* For drivers, and tests that bring their own: an empty node with one reference; the caller fills it in. */
struct blk_node *blk_node_new(const struct blk_driver *drv, const char *filename, unsigned flags);

/* The node below filters (copy-on-read, throttle …) that has the image's format. */
struct blk_node *blk_node_skip_filters(struct blk_node *n);

#endif
