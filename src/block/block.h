/*
 * A guest-visible disk's interface: what devices see. Formats and protocols (block/drivers.c) stand behind it. `block`
 * knows nothing of guests; devices use only the inline calls below and struct blk_req.
 *
 * A queue belongs to one loop (thread). A request completes exactly once, on that loop's thread, possibly inside
 * blk_submit() or blk_kick(); or on the thread that calls blk_drain().
 */
#ifndef LODGE_BLOCK_BLOCK_H
#define LODGE_BLOCK_BLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/loop.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };

enum {
    BLK_REQ_FUA = 1,   /* durable before it completes */
    BLK_REQ_UNMAP = 2, /* write zeroes may deallocate */
};

struct blk_req {
    enum blk_op op;
    unsigned flags;
    uint64_t offset; /* bytes */
    uint64_t len;    /* bytes; for reads and writes the sum of iov */
    const struct iovec *iov;
    unsigned niov;
    void (*done)(struct blk_req *req, int ret); /* 0 or -errno */
    void *opaque;
    void *priv[4]; /* the driver's */
};

struct blk;
struct blk_queue;

struct blk_ops {
    struct blk_queue *(*queue_new)(struct blk *blk, struct loop *loop, struct err *err);
    void (*queue_free)(struct blk_queue *q); /* all requests have completed */
    void (*submit)(struct blk_queue *q, struct blk_req *req);
    /* Hands over what submit() gathered; a device calls it once after a batch. */
    void (*kick)(struct blk_queue *q);
    /*
     * Returns when every request submitted so far has completed. Any thread, while nobody submits; it may run the
     * completions itself, so the caller holds no lock that they take.
     */
    void (*drain)(struct blk_queue *q);
    void (*close)(struct blk *blk);
};

/* What was asked of a disk since it was opened. */
struct blk_count {
    _Atomic uint64_t ops, bytes;
};

struct blk {
    const struct blk_ops *ops;
    struct blk_count count[BLK_WRITE_ZEROES + 1]; /* by enum blk_op */
    const char *driver; /* "raw" */
    char *filename;
    _Atomic uint64_t size;  /* bytes */
    uint32_t block_size;    /* logical sector: 512 or 4096 */
    uint32_t physical_size; /* preferred alignment of I/O */
    bool read_only, can_discard, can_write_zeroes, writeback;
    /* Optional, set by the user: the size has changed. On the thread that called blk_resize(). */
    void (*resized)(void *opaque);
    void *resized_opaque;
};

struct blk_queue {
    struct blk *blk;
    struct loop *loop;
    /* Optional, set by the user: called after one or more requests have completed together (one interrupt for them
     * all). */
    void (*batch_done)(void *opaque);
    void *opaque;
};

/* I/O limits: averages, bursts and how long those may last; 0: none. Total, or reads and writes apart. */
enum blk_limit { BLK_LIMIT_ALL, BLK_LIMIT_READ, BLK_LIMIT_WRITE, BLK_LIMITS };
struct blk_rate {
    uint64_t avg, max;    /* a second; max 0: avg / 10 at once */
    unsigned burst_secs; /* how long max may go on; 0: 1 */
};
struct blk_limits {
    struct blk_rate bytes[BLK_LIMITS], ops[BLK_LIMITS];
    uint64_t op_size; /* a longer request counts as several; 0: as one */
};

enum blk_detect { BLK_DETECT_OFF, BLK_DETECT_ON, BLK_DETECT_UNMAP };

struct blk_options {
    const char *path;   /* what blk_node_open() takes */
    const char *format; /* "raw", "qcow2" …; NULL: probe */
    const struct blk_limits *limits;
    enum blk_detect detect_zeroes;
    bool writethrough; /* every write is durable when it completes */
    bool no_discard;   /* discards are ignored */
    bool share;        /* others may write, too */
    bool read_only;
    bool direct;   /* O_DIRECT */
    bool no_flush; /* flushes do nothing: for what can be lost */
    bool no_uring; /* plain system calls, as on hosts that forbid io_uring */
};

/* Opens an image and locks it (a file that another process writes is refused: -EBUSY). The drivers stand in
 * block/drivers.c. */
int blk_open(const struct blk_options *opt, struct blk **ret, struct err *err);

struct blk_node;
/* The same over a node (a reference is taken). */
int blk_open_node(struct blk_node *root, const struct blk_options *opt, struct blk **ret, struct err *err);
/* The top of its graph; not a reference. */
struct blk_node *blk_root(struct blk *blk);

/*
 * Between begin and end nothing is in flight: what is submitted meanwhile waits, in order. Nests. Any thread, without a lock
 * that completions take. Needed around every change of a graph that a guest uses.
 */
void blk_drain_begin(struct blk *blk);
void blk_drain_end(struct blk *blk);
/* Puts another node on top (the caller's reference goes over; the old one's comes back). Drains by itself. */
struct blk_node *blk_replace_root(struct blk *blk, struct blk_node *root);

/* Changes the image's size while it is in use. */
int blk_resize(struct blk *blk, uint64_t size, struct err *err);
void blk_set_limits(struct blk *blk, const struct blk_limits *limits);
void blk_get_limits(struct blk *blk, struct blk_limits *ret);

static inline void blk_close(struct blk *blk)
{
    if (blk)
        blk->ops->close(blk);
}
static inline struct blk_queue *blk_queue_new(struct blk *blk, struct loop *loop, struct err *err)
{
    return blk->ops->queue_new(blk, loop, err);
}
static inline void blk_queue_free(struct blk_queue *q)
{
    if (q)
        q->blk->ops->queue_free(q);
}
static inline void blk_submit(struct blk_queue *q, struct blk_req *req)
{
    struct blk_count *c = &q->blk->count[req->op];
    atomic_fetch_add_explicit(&c->ops, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->bytes, req->len, memory_order_relaxed);
    q->blk->ops->submit(q, req);
}
static inline void blk_kick(struct blk_queue *q)
{
    if (q->blk->ops->kick)
        q->blk->ops->kick(q);
}
static inline void blk_drain(struct blk_queue *q)
{
    q->blk->ops->drain(q);
}

#endif
