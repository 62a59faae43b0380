/*
 * qcow2, inside of its driver (docs/interop/qcow2 of the format's publishers is the specification).
 *
 * Metadata lives in memory: the L1 and refcount tables whole, L2 tables and refcount blocks in bounded caches, changed in
 * place and written by qcow2_writeback() in an order that leaves, whenever it is cut, an image with at most leaked clusters:
 *
 *   1. new refcount blocks                                       | barrier
 *   2. refcount table, refcount increments, new L2 tables        | barrier (guest data before it is durable, too)
 *   3. L2 tables and the L1 table: what refers to all that       | barrier
 *   4. only then are clusters free that step 3 stopped using
 *
 * What must change together (snapshots, moved tables) is written beside the old and switched by one write of the header's
 * first sector.
 *
 * Locks: `meta` is held over metadata I/O, by whoever may block; `lock` guards the fields and is never held over I/O. meta
 * before lock. _m: meta is held; _l: lock is held. Guest data is read and written with neither.
 */
#ifndef LODGE_BLOCK_QCOW2_H
#define LODGE_BLOCK_QCOW2_H

#include "base/bits.h"
#include "block/driver.h"

#define QCOW2_MAGIC 0x514649fbu
#define QE_COPIED BIT64(63)
#define QE_COMPRESSED BIT64(62)
#define QE_ZERO BIT64(0)
#define QE_OFFSET 0x00fffffffffffe00ull

enum {
    QI_DIRTY = 0,
    QI_CORRUPT = 1,
    QI_DATA_FILE = 2,
    QI_COMPRESSION = 3,
    QI_EXTL2 = 4,
    QC_LAZY = 0,
    QA_BITMAPS = 0,
    QA_DATA_RAW = 1,

    QX_END = 0,
    QX_BACKING_FORMAT = 0xe2792aca,
    QX_FEATURES = 0x6803f857,
    QX_BITMAPS = 0x23852875,
    QX_CRYPTO = 0x0537be77,
    QX_DATA_FILE = 0x44415441,

    QCOMP_ZLIB = 0,
    QCOMP_ZSTD = 1,

    Q_GRANULE = 4096,
    Q_SUBCLUSTERS = 32,
    Q_SNAPSHOTS_MAX = 65536,
    Q_BITMAPS_MAX = 65535,
};
#define Q_L1_BYTES_MAX (32 * MIB)
#define Q_RT_BYTES_MAX (8 * MIB)
#define Q_OFFSET_MAX (BIT64(56))

/* A cached L2 table or refcount block: one cluster, as on disk. */
struct qtable {
    uint64_t offset;
    uint8_t *data;
    uint64_t dirty[8]; /* by granule */
    bool is_dirty;
    unsigned pins;  /* writes that will change it: it stays */
    uint64_t fresh; /* nothing on disk refers to it yet: the round of write-back when it was made; 0: old */
    uint64_t used;
};

struct qsnap {
    uint64_t l1_offset;
    uint32_t l1_size;
    struct blk_snapshot sn;
    uint8_t *extra; /* unknown extra data, preserved */
    uint32_t extra_len;
};

struct qfree {
    uint64_t index, n; /* clusters whose refcount goes down by one */
};
struct qfrees {
    struct qfree *v;
    size_t n, cap;
};

/* An unknown header extension, preserved. */
struct qext {
    uint32_t type, len;
    uint8_t *data;
};

struct qbitmap {
    char *name;
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;
    uint8_t type, granularity_bits;
    uint8_t *extra;
    uint32_t extra_len;
    uint8_t *bits; /* in memory, if loaded */
    uint64_t n_bits;
    bool changed;
};

/* A write to clusters that L2 does not show yet. */
struct qwrite {
    struct qwrite *next;
    uint64_t guest, len; /* what is being written */
    uint64_t host;       /* where `guest` goes */
    uint64_t clusters;   /* touched */
    uint64_t from, to;   /* guest bytes that are valid at the host once done (with what was copied) */
    bool allocated;      /* new clusters, for `clusters`; else bits of an owned cluster */
    bool exclusive;      /* other writes to these clusters wait */
    unsigned epoch;
    struct qtable *table;
};

struct qcow2 {
    struct blk_node *node, *file, *data; /* data == file without an external data file */
    unsigned version, cluster_bits, l2_bits, rb_bits, refcount_order, header_len;
    uint64_t cluster_size, incompatible, compatible, autoclear;
    unsigned entry_size;  /* of L2: 8, or 16 with subclusters */
    unsigned unit_bits;   /* what an L2 bitmap's bit or entry stands for: subcluster or cluster */
    bool extl2, v3_zero, data_raw, writable, corrupt;
    uint8_t compression;
    uint32_t crypt;
    uint64_t max_refcount;
    char *data_file_name;
    uint64_t backing_offset;
    struct qext *exts;
    unsigned n_exts;

    pthread_mutex_t meta, lock;
    pthread_cond_t changed;

    uint64_t *l1; /* host endian */
    uint32_t l1_size, l1_cap;
    uint64_t l1_offset;
    uint8_t *l1_dirty; /* by 64 entries */
    bool l1_is_dirty;
    struct qtable **l2;

    uint64_t *rt;
    uint32_t rt_size; /* entries */
    uint64_t rt_offset;
    uint8_t *rt_dirty;
    bool rt_is_dirty;
    struct qtable **rb;

    uint64_t clock, l2_cached, rb_cached, l2_max, rb_max; /* cache: tables */
    uint64_t dirty_tables;
    uint64_t round; /* of write-back, from 1 */
    bool fresh_tables;
    bool rt_moved; /* the refcount table has a new place that the header does not name yet */

    uint64_t free_from, run_from; /* cluster indices: none free below; where to look for runs */
    uint64_t want;                /* clusters of the last allocation that needs I/O first */
    uint64_t fresh_from;          /* behind this, the file has never been written */
    uint64_t end;                 /* bytes of the file that clusters in use need */
    uint64_t comp_at;             /* where the next compressed cluster goes, 0: nowhere */

    struct qfrees frees;          /* stop being used once L2 is written */
    struct qfrees grace;          /* written; requests may still be under way to them */
    unsigned grace_epoch;         /* which those belong to */
    bool have_grace;
    unsigned epoch;
    _Atomic unsigned inflight[2];

    struct qwrite *pending;

    uint64_t snaps_offset;
    uint32_t n_snaps;
    struct qsnap *snaps;
    uint64_t snaps_bytes;

    uint64_t bitmaps_offset, bitmaps_size;
    uint32_t n_bitmaps;
    struct qbitmap *bitmaps;
    bool bitmaps_tracked;

    uint64_t *meta_set; /* hash set of metadata clusters, for writes to be kept away from */
    size_t meta_cap, meta_n;

    /* the compressed cluster last read */
    pthread_mutex_t comp_lock;
    uint64_t comp_entry;
    uint8_t *comp_buf;

    bool discard_below;
    enum { QHOLES_UNKNOWN, QHOLES_FEW, QHOLES_MANY } holes; /* whether clusters are allocated that the file does not have */
    bool unsettled; /* the header was switched, but not yet made durable: what the old one names is not reused */
};

/* qcow2_header.c */
int qcow2_open(struct blk_node *n, struct blk_opts *opts, struct err *err);
void qcow2_close(struct blk_node *n);
/* Writes the header as the fields say, in one sector-sized step where it fits; barrier before and after. */
int qcow2_write_header(struct qcow2 *s);
/* The image is damaged: says what, once, marks it, and refuses all further writes. Returns -EIO. */
int qcow2_corrupt(struct qcow2 *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void qcow2_set_geometry(struct qcow2 *s);

/* qcow2_table.c: L1, L2, refcount table and blocks in memory */
int qcow2_load_l1(struct qcow2 *s, uint64_t offset, uint32_t size, uint64_t **ret);
void qcow2_install_l1(struct qcow2 *s, uint64_t *l1, uint64_t offset, uint32_t size);
/* The L2 table that l1_index refers to, loaded; NULL in *ret where there is none. */
int qcow2_l2_get_m(struct qcow2 *s, uint32_t l1_index, struct qtable **ret);
/* The same, made (or copied from a shared one) for changing it. */
int qcow2_l2_own_m(struct qcow2 *s, uint32_t l1_index, struct qtable **ret);
struct qtable *qcow2_l2_own_l(struct qcow2 *s, uint32_t l1_index); /* without I/O; NULL: cannot */
int qcow2_rb_get_m(struct qcow2 *s, uint64_t rt_index, struct qtable **ret); /* NULL: there is none */
void qcow2_table_dirty_l(struct qcow2 *s, struct qtable *t, size_t off, size_t len);
void qcow2_l1_set_l(struct qcow2 *s, uint32_t index, uint64_t value);
void qcow2_rt_set_l(struct qcow2 *s, uint64_t index, uint64_t value);
struct qtable *qcow2_table_new(struct qcow2 *s, uint64_t offset, bool zero_below);
void qcow2_table_free(struct qtable *t);
void qcow2_drop_l2(struct qcow2 *s); /* all of the cache; nothing may be dirty */
void qcow2_drop_rb(struct qcow2 *s);
/* Makes room in the caches. */
int qcow2_trim_m(struct qcow2 *s);

static inline uint64_t be64_get(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return be64toh(v);
}
static inline uint32_t be32_get(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return be32toh(v);
}
static inline uint16_t be16_get(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return be16toh(v);
}
static inline void be64_put(void *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, 8);
}
static inline void be32_put(void *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, 4);
}
static inline void be16_put(void *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, 2);
}

static inline uint32_t q_l1_index(const struct qcow2 *s, uint64_t guest)
{
    return (uint32_t)(guest >> (s->l2_bits + s->cluster_bits));
}
static inline uint32_t q_l2_index(const struct qcow2 *s, uint64_t guest)
{
    return (uint32_t)(guest >> s->cluster_bits) & ((1u << s->l2_bits) - 1);
}
static inline uint64_t q_entry(const struct qcow2 *s, const struct qtable *t, uint32_t i)
{
    return be64_get(t->data + (size_t)i * s->entry_size);
}
static inline uint64_t q_bitmap(const struct qcow2 *s, const struct qtable *t, uint32_t i)
{
    return s->extl2 ? be64_get(t->data + (size_t)i * 16 + 8) : 0;
}
static inline bool q_external(const struct qcow2 *s)
{
    return s->data != s->file;
}
void qcow2_entry_set_l(struct qcow2 *s, struct qtable *t, uint32_t i, uint64_t entry, uint64_t bitmap);

/* qcow2_refcount.c */
/* Gives back clusters that nothing ever referred to. */
void qcow2_unalloc_l(struct qcow2 *s, uint64_t offset, uint64_t n);
uint64_t qcow2_rb_value(const struct qcow2 *s, const uint8_t *block, uint64_t i);
void qcow2_rb_put(const struct qcow2 *s, uint8_t *block, uint64_t i, uint64_t value);
int qcow2_refcount_m(struct qcow2 *s, uint64_t index, uint64_t *ret);
/* Adds to the refcounts of n clusters. -ERANGE over or under. */
int qcow2_refcount_add_m(struct qcow2 *s, uint64_t index, uint64_t n, int64_t delta);
/* n clusters in a row, refcount 1 each: their offset, or -errno; -EAGAIN (_l): only with I/O. */
int64_t qcow2_alloc_l(struct qcow2 *s, uint64_t n, bool *ret_fresh);
int64_t qcow2_alloc_m(struct qcow2 *s, uint64_t n, bool *ret_fresh);
/* `len` bytes for compressed data; clusters are shared. */
int64_t qcow2_alloc_bytes_m(struct qcow2 *s, uint64_t len);
/* The clusters that [offset, +len) touches lose a reference once L2 no longer says so on disk. */
void qcow2_free_later_l(struct qcow2 *s, uint64_t offset, uint64_t len);
void qcow2_free_entry_later_l(struct qcow2 *s, uint64_t entry);
/* Those whose time has come. */
int qcow2_apply_frees_m(struct qcow2 *s);
void qcow2_frees_add(const struct qcow2 *s, struct qfrees *f, uint64_t offset, uint64_t len);
bool qcow2_compressed_range(const struct qcow2 *s, uint64_t entry, uint64_t *ret_offset, uint64_t *ret_len);
void qcow2_meta_del_l(struct qcow2 *s, uint64_t offset);
void qcow2_meta_add_l(struct qcow2 *s, uint64_t offset);
bool qcow2_meta_hit_l(const struct qcow2 *s, uint64_t offset);
int qcow2_meta_build(struct qcow2 *s);

/*
 * qcow2_shadow.c: changes of many refcounts at once. They are made in copies, beside what is on disk, and take effect with one
 * write of the header. Everything is clean and quiet before (qcow2_shadow_begin_m sees to the former).
 */
struct qshadow {
    struct qcow2 *s;
    uint64_t n;          /* blocks */
    uint8_t **block;     /* refcount blocks as they are going to be; NULL: unchanged, see s->rt */
    uint64_t *where;     /* the refcount table to be */
    unsigned order;      /* refcount width to be */
    uint64_t cursor;     /* where free clusters are looked for */
    bool rebuild;        /* the old refcounts mean nothing: `used` says what must not be overwritten */
    bool (*used)(void *opaque, uint64_t index);
    void *opaque;
};
int qcow2_shadow_begin_m(struct qcow2 *s, struct qshadow *ret);
int qcow2_shadow_get_m(struct qshadow *h, uint64_t index, uint64_t *ret);
int qcow2_shadow_set_m(struct qshadow *h, uint64_t index, uint64_t value);
int qcow2_shadow_add_m(struct qshadow *h, uint64_t index, uint64_t n, int64_t delta);
/* Clusters that neither the old nor the new state uses. */
int64_t qcow2_shadow_alloc_m(struct qshadow *h, uint64_t n);
/*
 * Writes it all and switches. The fields of *s that the header shows have their new values, except for the refcount table's.
 * On failure nothing has changed on disk (the caller puts its fields back).
 */
int qcow2_shadow_commit_m(struct qshadow *h);
void qcow2_shadow_free(struct qshadow *h); /* NULL-safe fields; after commit, too */

/* qcow2_writeback.c */
int qcow2_writeback_m(struct qcow2 *s);
int qcow2_barrier(struct qcow2 *s); /* all that was written so far is durable when it returns */

/* qcow2_io.c */
enum qkind { QK_UNALLOC, QK_ZERO, QK_DATA, QK_COMPRESSED, QK_INVALID };
struct qrun {
    enum qkind kind;
    bool has_host;  /* ZERO with a cluster kept */
    uint64_t host;  /* DATA (and ZERO with has_host): of the first byte; COMPRESSED: the entry */
    uint64_t len;
};
/* What [guest, +len) is, as far as it is all one; `t` may be NULL (no table). */
void qcow2_run_l(const struct qcow2 *s, const struct qtable *t, uint64_t guest, uint64_t len, struct qrun *ret);
int qcow2_run(struct qcow2 *s, uint64_t guest, uint64_t len, struct qrun *ret);
int qcow2_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len);
int qcow2_block_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret);
void qcow2_map(struct blk_node *n, bool write, uint64_t offset, uint64_t len, struct blk_map *ret);
void qcow2_map_done(struct blk_node *n, void *token, int ret);

/* qcow2_write.c */
int qcow2_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                  unsigned flags);
int qcow2_pwrite_zeroes(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags);
int qcow2_pdiscard(struct blk_node *n, uint64_t offset, uint64_t len);
int qcow2_pwritev_compressed(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len);
int qcow2_pflush(struct blk_node *n);
bool qcow2_map_write_l(struct qcow2 *s, uint64_t offset, uint64_t len, struct blk_map *ret);
void qcow2_write_end(struct qcow2 *s, struct qwrite *w, int ret);
/* Ends what blocks, then the clusters in the range mean nothing: back to unallocated. */
int qcow2_drop_range(struct qcow2 *s, uint64_t offset, uint64_t len, bool full);

/* qcow2_compress.c */
int qcow2_read_compressed(struct qcow2 *s, uint64_t entry, uint64_t off_in_cluster, const struct iovec *iov,
                          unsigned niov, uint64_t len);
/* The compressed length, 0 when it does not get smaller, or -errno. */
ssize_t qcow2_compress(const struct qcow2 *s, const void *src, size_t len, void *dst, size_t cap);

/* qcow2_create.c */
int qcow2_create(struct blk_node *file, struct blk_opts *opts, struct err *err);
int qcow2_measure(struct blk_opts *opts, struct blk_node *src, struct blk_measure *ret, struct err *err);
extern const struct blk_create_opt qcow2_create_opts[];

/* qcow2_resize.c */
int qcow2_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err);
int qcow2_grow_l1_m(struct qcow2 *s, uint64_t entries, uint64_t new_size);
int qcow2_grow_rt_m(struct qcow2 *s, uint64_t entries);
int qcow2_preallocate(struct qcow2 *s, uint64_t from, uint64_t to, enum blk_prealloc mode, struct err *err);

/* qcow2_info.c */
int qcow2_get_info(struct blk_node *n, struct blk_info *ret, struct err *err);
int qcow2_change_backing_file(struct blk_node *n, const char *file, const char *format, struct err *err);
int qcow2_make_empty(struct blk_node *n, struct err *err);

/* qcow2_amend.c */
int qcow2_amend(struct blk_node *n, struct blk_opts *opts, blk_progress_fn *progress, void *opaque, bool force,
                struct err *err);

/* qcow2_check.c */
int qcow2_check(struct blk_node *n, struct blk_check *check, unsigned fix, struct err *err);

/* qcow2_snapshot.c */
int qcow2_snapshots_load(struct qcow2 *s, struct err *err);
void qcow2_snapshots_free(struct qcow2 *s);
int qcow2_snapshot_list(struct blk_node *n, struct blk_snapshot **ret, unsigned *ret_n, struct err *err);
int qcow2_snapshot_create(struct blk_node *n, struct blk_snapshot *sn, struct err *err);
int qcow2_snapshot_apply(struct blk_node *n, const char *id, struct err *err);
int qcow2_snapshot_delete(struct blk_node *n, const char *id, struct err *err);
int qcow2_snapshot_load_tmp(struct blk_node *n, const char *id, struct err *err);
int qcow2_vmstate_read(struct blk_node *n, uint64_t offset, void *buf, size_t len);
int qcow2_vmstate_write(struct blk_node *n, uint64_t offset, const void *buf, size_t len);

/* qcow2_bitmap.c */
int qcow2_bitmaps_load(struct qcow2 *s, struct err *err);
void qcow2_bitmaps_free(struct qcow2 *s);
int qcow2_bitmaps_start(struct qcow2 *s); /* opened for writing: tracked ones are in use from now on */
int qcow2_bitmaps_store(struct qcow2 *s);
void qcow2_bitmaps_mark(struct qcow2 *s, uint64_t offset, uint64_t len);
void qcow2_bitmaps_mark_l(struct qcow2 *s, uint64_t offset, uint64_t len);
/*
 * Writes the directory, and what has changed or does not fit `size`, to new places; the next header names them. *old collects
 * what is free after that: qcow2_bitmaps_settle().
 */
int qcow2_bitmaps_write_m(struct qcow2 *s, uint64_t size, struct qfrees *old);
void qcow2_bitmaps_settle(struct qcow2 *s, struct qfrees *old, bool written);
int qcow2_bitmap_list(struct blk_node *n, struct blk_bitmap **ret, unsigned *ret_n, struct err *err);
int qcow2_bitmap_add(struct blk_node *n, const char *name, uint32_t granularity, bool disabled, struct err *err);
int qcow2_bitmap_remove(struct blk_node *n, const char *name, struct err *err);
int qcow2_bitmap_clear(struct blk_node *n, const char *name, struct err *err);
int qcow2_bitmap_enable(struct blk_node *n, const char *name, bool enable, struct err *err);
int qcow2_bitmap_set(struct blk_node *n, const char *name, uint64_t offset, uint64_t len, struct err *err);
int qcow2_bitmap_next(struct blk_node *n, const char *name, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end,
                      struct err *err);

#endif
