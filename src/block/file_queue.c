/*
 * I/O on a file with io_uring. The ring's descriptor is watched by the queue's loop; drain() may reap on any other
 * thread. Whoever reaps sets `reaping`, takes completions out under the lock, and completes the requests without it. A
 * request that needs several steps (short read, zeroes that must be written, durability) goes round again; its position
 * is in priv[]. Where io_uring is forbidden, requests are done by plain system calls inside submit().
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "block/file.h"

enum { RING_ENTRIES = 128, ZERO_BYTES = 64 * 1024, ZERO_PIECES = 16, IOV_MAX_PIECES = 1024 };

struct file_queue {
    struct blk_queue q; /* first */
    struct file *file;
    bool uring;
    struct io_uring ring;
    struct loop_fd *watch;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* inflight fell to 0, or reaping ended */
    unsigned inflight, unsubmitted;
    bool reaping;
    struct iovec zeroes[ZERO_PIECES];
};

/* What a request is doing: its current step. */
enum step { STEP_IO, STEP_ZERO_RANGE, STEP_PUNCH, STEP_ZERO_WRITE, STEP_SYNC, STEP_DONE };

/* How far a request is, kept in its priv[]. */
static uint64_t progress(const struct blk_req *req)
{
    return (uintptr_t)req->priv[0];
}
static void set_progress(struct blk_req *req, uint64_t n)
{
    req->priv[0] = (void *)(uintptr_t)n;
}
/* The file it goes to: the queue's, unless submitted to another (file_queue_submit_to). */
static struct file *file_of(const struct blk_req *req)
{
    return req->priv[3];
}
static enum step step(const struct blk_req *req)
{
    return (enum step)(uintptr_t)req->priv[1];
}
static void set_step(struct blk_req *req, enum step s)
{
    req->priv[1] = (void *)(uintptr_t)s;
}

/* ---- what a request needs next: pure decisions, the same for both ways of doing I/O ---- */

/* One system call's worth of work. */
struct op {
    enum { OP_READ, OP_WRITE, OP_FALLOCATE, OP_SYNC } kind;
    int fd, mode; /* mode: of fallocate */
    bool dsync;
    const struct iovec *iov;
    unsigned niov;
    uint64_t offset, len;
};

static enum step first_step(const struct file *file, const struct blk_req *req)
{
    switch (req->op) {
    case BLK_READ:
    case BLK_WRITE:
        return req->len ? STEP_IO : STEP_DONE;
    case BLK_FLUSH:
        return file->no_flush ? STEP_DONE : STEP_SYNC;
    case BLK_DISCARD:
        return req->len && !file->no_punch ? STEP_PUNCH : STEP_DONE;
    case BLK_WRITE_ZEROES:
        if (!req->len)
            return STEP_DONE;
        if ((req->flags & BLK_REQ_UNMAP) && !file->no_punch)
            return STEP_PUNCH;
        return file->no_zero_range ? STEP_ZERO_WRITE : STEP_ZERO_RANGE;
    }
    return STEP_DONE;
}

static bool aligned(const struct file *file, const struct blk_req *req)
{
    if (file->offset_align <= 1)
        return true;
    if (req->offset % file->offset_align || req->len % file->offset_align)
        return false;
    for (unsigned i = 0; i < req->niov; i++)
        if ((uintptr_t)req->iov[i].iov_base % file->mem_align || req->iov[i].iov_len % file->offset_align)
            return false;
    return true;
}

/* The rest of a request's iov after `done` bytes: a copy in priv[2], freed with the request. Only after a short
 * transfer. */
static void rest_of_iov(struct blk_req *req, uint64_t done, struct op *op)
{
    struct iovec *copy = req->priv[2] ? req->priv[2] : xcalloc(req->niov, sizeof *copy);
    unsigned i = 0, n = 0;
    for (; i < req->niov && done >= req->iov[i].iov_len; i++)
        done -= req->iov[i].iov_len;
    for (; i < req->niov; i++, done = 0)
        copy[n++] = (struct iovec){(char *)req->iov[i].iov_base + done, req->iov[i].iov_len - done};
    req->priv[2] = copy;
    op->iov = copy;
    op->niov = n;
}

static struct op next_op(struct file_queue *fq, struct blk_req *req)
{
    struct file *file = file_of(req);
    uint64_t done = progress(req);
    struct op op = {.fd = file->fd, .offset = req->offset + done, .len = req->len - done};
    switch (step(req)) {
    case STEP_IO:
        op.kind = req->op == BLK_READ ? OP_READ : OP_WRITE;
        op.dsync = req->op == BLK_WRITE && (req->flags & BLK_REQ_FUA) && !file->no_flush;
        if (done || !aligned(file, req))
            op.fd = file->slow_fd;
        op.iov = req->iov;
        op.niov = req->niov;
        if (done)
            rest_of_iov(req, done, &op);
        op.niov = MIN(op.niov, IOV_MAX_PIECES);
        break;
    case STEP_ZERO_RANGE:
        op.kind = OP_FALLOCATE;
        op.mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
        break;
    case STEP_PUNCH:
        op.kind = OP_FALLOCATE;
        op.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        break;
    case STEP_ZERO_WRITE:
        op.kind = OP_WRITE;
        op.fd = file->slow_fd;
        op.len = MIN(op.len, ZERO_BYTES * ZERO_PIECES);
        op.iov = fq->zeroes;
        op.niov = (unsigned)(op.len / ZERO_BYTES);
        if (!op.niov) { /* a last part of less than one piece: one piece cut to length */
            struct iovec *last = req->priv[2] ? req->priv[2] : xcalloc(1, sizeof *last);
            *last = (struct iovec){fq->zeroes[0].iov_base, op.len};
            req->priv[2] = last;
            op.iov = last;
            op.niov = 1;
        }
        break;
    case STEP_SYNC:
    case STEP_DONE:
        op.kind = OP_SYNC;
        break;
    }
    return op;
}

static void zero_fill(const struct blk_req *req, uint64_t from)
{
    for (unsigned i = 0; i < req->niov; i++) {
        uint64_t len = req->iov[i].iov_len;
        if (from < len)
            memset((char *)req->iov[i].iov_base + from, 0, len - from);
        from = from < len ? 0 : from - len;
    }
}

/* After the data: durable if that was asked for. Writes have had RWF_DSYNC. */
static enum step last_step(const struct file *file, const struct blk_req *req)
{
    return (req->flags & BLK_REQ_FUA) && req->op != BLK_WRITE && !file->no_flush ? STEP_SYNC : STEP_DONE;
}

/* Takes in the result of a request's system call and sets its next step. Returns the request's result once that is
 * STEP_DONE. */
static int advance(struct file_queue *fq, struct blk_req *req, int res)
{
    struct file *file = file_of(req);
    enum step s = step(req);
    if (res == -EINTR || res == -EAGAIN)
        return 0; /* again */
    if (res == -EOPNOTSUPP && s == STEP_ZERO_RANGE) {
        file->no_zero_range = true;
        set_step(req, STEP_ZERO_WRITE);
        return 0;
    }
    if (res == -EOPNOTSUPP && s == STEP_PUNCH) {
        /* A discard is only advice. */
        file->no_punch = true;
        set_step(req, req->op == BLK_DISCARD ? STEP_DONE : STEP_ZERO_RANGE);
        return 0;
    }
    if (res < 0) {
        set_step(req, STEP_DONE);
        return res;
    }
    if (s == STEP_IO || s == STEP_ZERO_WRITE) {
        if (res == 0 && req->op != BLK_READ) {
            set_step(req, STEP_DONE);
            return -EIO;
        }
        uint64_t done = progress(req) + (uint64_t)res;
        if (res == 0) { /* past the end of the file */
            zero_fill(req, done);
            done = req->len;
        }
        set_progress(req, done);
        if (done < req->len)
            return 0;
        set_step(req, last_step(file, req));
        return 0;
    }
    set_step(req, s == STEP_SYNC ? STEP_DONE : last_step(file, req));
    return 0;
}

static void complete(struct blk_req *req, int ret)
{
    free(ptr_take(req->priv[2]));
    req->done(req, ret);
}

/* ---- plain system calls ---- */

static int do_op(const struct op *op)
{
    ssize_t n = 0;
    switch (op->kind) {
    case OP_READ:
        n = preadv(op->fd, op->iov, (int)op->niov, (off_t)op->offset);
        break;
    case OP_WRITE:
        n = pwritev2(op->fd, op->iov, (int)op->niov, (off_t)op->offset, op->dsync ? RWF_DSYNC : 0);
        break;
    case OP_FALLOCATE:
        n = fallocate(op->fd, op->mode, (off_t)op->offset, (off_t)op->len);
        break;
    case OP_SYNC:
        n = fdatasync(op->fd);
        break;
    }
    return n < 0 ? -errno : (int)MIN(n, INT32_MAX);
}

static void submit_plain(struct file_queue *fq, struct blk_req *req)
{
    int ret = 0;
    while (step(req) != STEP_DONE) {
        struct op op = next_op(fq, req);
        ret = advance(fq, req, do_op(&op));
    }
    complete(req, ret);
}

/* ---- io_uring ---- */

/* Hands the prepared entries to the kernel. Lock held. */
static void push_sqes(struct file_queue *fq)
{
    while (fq->unsubmitted) {
        int n = io_uring_submit(&fq->ring);
        if (n > 0)
            fq->unsubmitted -= MIN(fq->unsubmitted, (unsigned)n);
        else if (n == -EAGAIN || n == -EINTR || n == -EBUSY)
            sched_yield(); /* the kernel lacks memory for the moment */
        else
            break;
    }
}

/* Prepares the request's next system call. Lock held. */
static void queue_op(struct file_queue *fq, struct blk_req *req)
{
    struct op op = next_op(fq, req);
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&fq->ring)))
        push_sqes(fq);
    switch (op.kind) {
    case OP_READ:
        io_uring_prep_readv(sqe, op.fd, op.iov, op.niov, op.offset);
        break;
    case OP_WRITE:
        io_uring_prep_writev2(sqe, op.fd, op.iov, op.niov, op.offset, op.dsync ? RWF_DSYNC : 0);
        break;
    case OP_FALLOCATE:
        io_uring_prep_fallocate(sqe, op.fd, op.mode, (off_t)op.offset, (off_t)op.len);
        break;
    case OP_SYNC:
        io_uring_prep_fsync(sqe, op.fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, req);
    fq->unsubmitted++;
}

/*
 * Takes what has completed: requests that go on are queued again, finished ones are completed without the lock. Lock
 * held, `reaping` set by the caller. Returns how many were finished.
 */
static unsigned reap(struct file_queue *fq)
{
    struct io_uring_cqe *cqe;
    unsigned finished = 0;
    while (io_uring_peek_cqe(&fq->ring, &cqe) == 0) {
        struct blk_req *req = io_uring_cqe_get_data(cqe);
        int ret = advance(fq, req, cqe->res);
        io_uring_cqe_seen(&fq->ring, cqe);
        if (step(req) != STEP_DONE) {
            queue_op(fq, req);
            continue;
        }
        pthread_mutex_unlock(&fq->lock);
        complete(req, ret);
        finished++;
        pthread_mutex_lock(&fq->lock);
        fq->inflight--;
    }
    push_sqes(fq);
    return finished;
}

/* One round of reaping, unless another thread is at it. Lock held; gives it up for the callbacks. */
static void reap_round(struct file_queue *fq)
{
    if (fq->reaping)
        return;
    fq->reaping = true;
    if (reap(fq) && fq->q.batch_done) {
        pthread_mutex_unlock(&fq->lock);
        fq->q.batch_done(fq->q.opaque);
        pthread_mutex_lock(&fq->lock);
    }
    fq->reaping = false;
    pthread_cond_broadcast(&fq->changed);
}

static void ring_ready(void *opaque, uint32_t events)
{
    struct file_queue *fq = opaque;
    pthread_mutex_lock(&fq->lock);
    reap_round(fq);
    pthread_mutex_unlock(&fq->lock);
}

/* ---- the queue ---- */

void file_queue_submit(struct blk_queue *q, struct blk_req *req)
{
    file_queue_submit_to(q, ((struct file_queue *)q)->file, req);
}

void file_queue_submit_to(struct blk_queue *q, struct file *file, struct blk_req *req)
{
    struct file_queue *fq = (struct file_queue *)q;
    req->priv[2] = NULL;
    req->priv[3] = file;
    set_progress(req, 0);
    set_step(req, first_step(file, req));
    if (!fq->uring || step(req) == STEP_DONE) {
        submit_plain(fq, req);
        return;
    }
    pthread_mutex_lock(&fq->lock);
    fq->inflight++;
    queue_op(fq, req);
    pthread_mutex_unlock(&fq->lock);
}

void file_queue_kick(struct blk_queue *q)
{
    struct file_queue *fq = (struct file_queue *)q;
    if (!fq->uring)
        return;
    pthread_mutex_lock(&fq->lock);
    push_sqes(fq);
    /* What the page cache held has completed already. */
    reap_round(fq);
    pthread_mutex_unlock(&fq->lock);
}

void file_queue_drain(struct blk_queue *q)
{
    struct file_queue *fq = (struct file_queue *)q;
    if (!fq->uring)
        return;
    pthread_mutex_lock(&fq->lock);
    push_sqes(fq);
    while (fq->inflight) {
        if (fq->reaping) {
            pthread_cond_wait(&fq->changed, &fq->lock);
            continue;
        }
        struct io_uring_cqe *cqe;
        reap_round(fq);
        if (fq->inflight && !fq->reaping) {
            /* Nobody else reaps meanwhile, so that this wait always ends with a completion of ours. */
            fq->reaping = true;
            pthread_mutex_unlock(&fq->lock);
            io_uring_wait_cqe(&fq->ring, &cqe);
            pthread_mutex_lock(&fq->lock);
            fq->reaping = false;
            pthread_cond_broadcast(&fq->changed);
        }
    }
    pthread_mutex_unlock(&fq->lock);
}

struct blk_queue *file_queue_new(struct blk *blk, struct file *file, struct loop *loop, struct err *err)
{
    static const char zeroes[ZERO_BYTES];
    struct file_queue *fq = xcalloc(1, sizeof *fq);
    fq->q.blk = blk;
    fq->q.loop = loop;
    fq->file = file;
    for (unsigned i = 0; i < ZERO_PIECES; i++)
        fq->zeroes[i] = (struct iovec){(void *)zeroes, sizeof zeroes};
    bool plain = file && file->no_uring;
    int ret = plain ? -ENOTSUP : io_uring_queue_init(RING_ENTRIES, &fq->ring, 0);
    fq->uring = ret == 0;
    if (!fq->uring && !plain)
        log_warn("%s: io_uring is not available (%s): disk I/O will block its thread", blk->filename, strerror(-ret));
    pthread_mutex_init(&fq->lock, NULL);
    pthread_cond_init(&fq->changed, NULL);
    if (fq->uring) {
        fq->watch = loop_add_fd(loop, fq->ring.ring_fd, EPOLLIN, ring_ready, fq);
        if (!fq->watch) {
            err_errno(err, -errno, "%s: cannot watch the I/O ring", blk->filename);
            file_queue_free(&fq->q);
            return NULL;
        }
    }
    return &fq->q;
}

void file_queue_free(struct blk_queue *q)
{
    struct file_queue *fq = (struct file_queue *)q;
    loop_del_fd(fq->watch);
    if (fq->uring)
        io_uring_queue_exit(&fq->ring);
    pthread_mutex_destroy(&fq->lock);
    pthread_cond_destroy(&fq->changed);
    free(fq);
}
