/*
 * A queue of a guest's disk. What the graph can map without blocking goes straight to the files' ring, at the translated
 * offset; the rest is done by the disk's threads with the blocking calls, and completes on the queue's loop (or on the thread
 * that drains).
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "block/disk.h"

enum { PIECES_MAX = 64, MAP_DEPTH = 1100 };

/* A request, or a piece of one, on its way. */
struct work {
    struct blk_req sub; /* first: what the ring does */
    struct pool_job job;
    struct disk_queue *q;
    struct blk_req *orig; /* the user's: whole requests only */
    struct work *whole;   /* pieces only */
    unsigned left;        /* pieces under way, plus one while more come up; queue's lock */
    int ret;
    struct blk_node *file; /* writes past the blocking calls: whose size that may change */
    struct blk_node *node; /* whose map_done wants the token */
    void *token;
    struct iovec *iov; /* of a piece, owned */
    struct work *next;
};

struct disk_queue {
    struct blk_queue q; /* first */
    struct disk *d;
    struct blk_queue *ring;
    struct disk_queue *next;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct work *spare, *done, **done_tail;
    bool posted;
    _Atomic unsigned entering;
    unsigned drains; /* that ended on the loop's thread */
    unsigned busy; /* works of whole requests that have not completed */
    struct blk_req *held, **held_tail, *slow, **slow_tail; /* behind the gate; behind the limits: by priv[0] */
    struct timer timer;
    struct clock clock;
};

static struct work *work_new(struct disk_queue *q)
{
    pthread_mutex_lock(&q->lock);
    struct work *w = q->spare;
    if (w)
        q->spare = w->next;
    pthread_mutex_unlock(&q->lock);
    if (!w)
        w = xcalloc(1, sizeof *w);
    w->q = q;
    w->orig = NULL;
    w->whole = NULL;
    w->ret = 0;
    w->left = 0;
    w->file = NULL;
    w->node = NULL;
    w->token = NULL;
    w->iov = NULL;
    return w;
}

static void work_free(struct work *w)
{
    struct disk_queue *q = w->q;
    free(ptr_take(w->iov));
    pthread_mutex_lock(&q->lock);
    w->next = q->spare;
    q->spare = w;
    pthread_mutex_unlock(&q->lock);
}

/* A whole request is over: its user hears of it. */
static void finish(struct work *w)
{
    struct disk_queue *q = w->q;
    struct blk_req *req = w->orig;
    int ret = w->ret;
    work_free(w);
    req->done(req, ret);
    pthread_mutex_lock(&q->lock);
    if (--q->busy == 0)
        pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

/* One of its parts is over. */
static void part_over(struct work *whole, int ret)
{
    struct disk_queue *q = whole->q;
    pthread_mutex_lock(&q->lock);
    if (ret < 0 && !whole->ret)
        whole->ret = ret;
    bool last = --whole->left == 0;
    pthread_mutex_unlock(&q->lock);
    if (last)
        finish(whole);
}

static void io_done(struct blk_req *sub, int ret)
{
    struct work *w = (struct work *)sub;
    if (w->file && ret == 0 && sub->op == BLK_WRITE)
        blk_grew(w->file, sub->offset + sub->len);
    if (w->token)
        w->node->drv->map_done(w->node, w->token, ret);
    if (w->whole) {
        struct work *whole = w->whole;
        work_free(w);
        part_over(whole, ret);
    } else {
        w->ret = ret;
        finish(w);
    }
}

/* ---- on the disk's threads ---- */

static void run_done(struct disk_queue *q)
{
    bool some = false;
    for (;;) {
        pthread_mutex_lock(&q->lock);
        struct work *w = q->done;
        if (w) {
            q->done = w->next;
            if (!q->done)
                q->done_tail = &q->done;
        }
        pthread_mutex_unlock(&q->lock);
        if (!w)
            break;
        some = true;
        if (w->whole) {
            struct work *whole = w->whole;
            int ret = w->ret;
            work_free(w);
            part_over(whole, ret);
        } else {
            finish(w);
        }
    }
    if (some && q->q.batch_done)
        q->q.batch_done(q->q.opaque);
}

static void done_posted(void *opaque)
{
    struct disk_queue *q = opaque;
    pthread_mutex_lock(&q->lock);
    q->posted = false;
    pthread_mutex_unlock(&q->lock);
    run_done(q);
}

static int block_on(struct disk *d, const struct blk_req *r)
{
    unsigned flags = (r->flags & BLK_REQ_FUA ? BLK_F_FUA : 0) | (r->flags & BLK_REQ_UNMAP ? BLK_F_UNMAP : 0);
    switch (r->op) {
    case BLK_READ:
        return blk_preadv(d->root, r->offset, r->iov, r->niov);
    case BLK_WRITE:
        return blk_pwritev(d->root, r->offset, r->iov, r->niov, flags);
    case BLK_FLUSH:
        return blk_pflush(d->root);
    case BLK_DISCARD: {
        int code = blk_pdiscard(d->root, r->offset, r->len);
        return code == 0 && (flags & BLK_F_FUA) ? blk_pflush(d->root) : code;
    }
    case BLK_WRITE_ZEROES:
        return blk_pwrite_zeroes(d->root, r->offset, r->len, flags);
    }
    return -ENOTSUP;
}

static void job_run(struct pool_job *job)
{
    struct work *w = container_of(job, struct work, job);
    struct disk_queue *q = w->q;
    w->ret = block_on(q->d, &w->sub);
    w->next = NULL;
    pthread_mutex_lock(&q->lock);
    *q->done_tail = w;
    q->done_tail = &w->next;
    bool post = !q->posted;
    q->posted = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    if (post)
        loop_post(q->q.loop, done_posted, q);
}

static void to_pool(struct work *w)
{
    w->job.fn = job_run;
    pool_add(&w->q->d->pool, &w->job);
}

/* ---- mapping ---- */

struct target {
    enum { TARGET_SLOW, TARGET_ZERO, TARGET_FILE } kind;
    struct file *file;
    struct blk_node *file_node;
    uint64_t host, len;
    struct blk_node *node;
    void *token;
};

static void map(struct disk *d, bool write, uint64_t offset, uint64_t len, struct target *ret)
{
    struct blk_node *n = d->root;
    *ret = (struct target){.kind = TARGET_SLOW};
    for (unsigned depth = 0; depth < MAP_DEPTH; depth++) {
        struct blk_map m;
        if (n->drv->get_file) {
            ret->kind = TARGET_FILE;
            ret->file = n->drv->get_file(n);
            ret->file_node = n;
            ret->host = offset;
            ret->len = len;
            return;
        }
        if (!n->drv->map || ret->token)
            break;
        n->drv->map(n, write, offset, len, &m);
        if (m.kind == BLK_MAP_SLOW)
            break;
        len = m.len;
        if (m.kind == BLK_MAP_ZERO) {
            ret->kind = TARGET_ZERO;
            ret->len = len;
            return;
        }
        if (m.token) {
            ret->node = n;
            ret->token = m.token;
        }
        n = m.child;
        offset = m.host;
    }
    if (ret->token)
        ret->node->drv->map_done(ret->node, ret->token, -ECANCELED);
    *ret = (struct target){.kind = TARGET_SLOW};
}

static void start_io(struct work *w, const struct blk_req *req, const struct target *t, const struct iovec *iov,
                     unsigned niov)
{
    w->sub = (struct blk_req){
        .op = req->op, .offset = t->host, .len = t->len, .iov = iov, .niov = niov, .done = io_done};
    w->file = t->file_node;
    w->node = t->node;
    w->token = t->token;
    file_queue_submit_to(w->q->ring, t->file, &w->sub);
}

static void zero_iov(const struct iovec *iov, unsigned niov)
{
    for (unsigned i = 0; i < niov; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
}

/* The rest of a request whose first part went to t: piece by piece. */
static void in_pieces(struct disk_queue *q, struct work *whole, struct target t)
{
    struct blk_req *req = whole->orig;
    uint64_t done = 0;
    whole->left = 1;
    for (unsigned k = 0; done < req->len; k++) {
        if (done) {
            if (k < PIECES_MAX)
                map(q->d, req->op == BLK_WRITE, req->offset + done, req->len - done, &t);
            else
                t = (struct target){.kind = TARGET_SLOW};
        }
        if (t.kind == TARGET_SLOW)
            t.len = req->len - done;
        struct work *w = work_new(q);
        w->whole = whole;
        w->iov = xcalloc(req->niov, sizeof *w->iov);
        unsigned n = iov_slice(req->iov, req->niov, (size_t)done, (size_t)t.len, w->iov, req->niov);
        if (t.kind == TARGET_ZERO) {
            zero_iov(w->iov, n);
            work_free(w);
            done += t.len;
            continue;
        }
        pthread_mutex_lock(&q->lock);
        whole->left++;
        pthread_mutex_unlock(&q->lock);
        if (t.kind == TARGET_FILE) {
            start_io(w, req, &t, w->iov, n);
        } else {
            w->sub = (struct blk_req){
                .op = req->op, .offset = req->offset + done, .len = t.len, .iov = w->iov, .niov = n};
            to_pool(w);
        }
        done += t.len;
    }
    part_over(whole, 0);
}

static void slow(struct disk_queue *q, struct work *w)
{
    w->sub = *w->orig;
    to_pool(w);
}

static bool all_zero(const struct blk_req *req)
{
    for (unsigned i = 0; i < req->niov; i++) {
        const uint8_t *p = req->iov[i].iov_base;
        size_t n = req->iov[i].iov_len;
        if (n && (p[0] || memcmp(p, p + 1, n - 1)))
            return false;
    }
    return true;
}

/* Past gate and limits. */
static void go(struct disk_queue *q, struct blk_req *req)
{
    struct disk *d = q->d;
    struct blk_node *file = d->root->drv == &blk_raw ? blk_node_file(d->root) : NULL;
    struct work *w = work_new(q);
    w->orig = req;
    pthread_mutex_lock(&q->lock);
    q->busy++;
    pthread_mutex_unlock(&q->lock);
    if (d->no_discard && req->op == BLK_DISCARD) {
        finish(w);
        return;
    }
    bool plain = file && file->drv->get_file;
    if (d->detect && req->op == BLK_WRITE && !(plain && d->detect == BLK_DETECT_OFF) && all_zero(req)) {
        w->sub = *req;
        w->sub.op = BLK_WRITE_ZEROES;
        if (d->detect == BLK_DETECT_UNMAP && !d->no_discard)
            w->sub.flags |= BLK_REQ_UNMAP;
        to_pool(w);
        return;
    }
    if (plain) { /* raw on a file: whatever it is, the ring can do it */
        struct blk_map m = {.host = req->offset};
        if (req->op != BLK_FLUSH)
            blk_raw.map(d->root, false, req->offset, req->len, &m);
        w->sub = *req;
        w->sub.offset = m.host;
        w->sub.done = io_done;
        file_queue_submit_to(q->ring, file->drv->get_file(file), &w->sub);
        return;
    }
    struct target t;
    if ((req->op != BLK_READ && req->op != BLK_WRITE) || (req->flags & BLK_REQ_FUA) || !req->len) {
        slow(q, w);
        return;
    }
    map(d, req->op == BLK_WRITE, req->offset, req->len, &t);
    if (t.kind == TARGET_SLOW) {
        slow(q, w);
    } else if (t.len < req->len) {
        in_pieces(q, w, t);
    } else if (t.kind == TARGET_ZERO) {
        zero_iov(req->iov, req->niov);
        finish(w);
    } else {
        start_io(w, req, &t, req->iov, req->niov);
    }
}

/* ---- limits and gate ---- */

static void list_add(struct blk_req ***tail, struct blk_req *req)
{
    req->priv[0] = NULL;
    **tail = req;
    *tail = (struct blk_req **)&req->priv[0];
}

static struct blk_req *list_take(struct blk_req **head, struct blk_req ***tail)
{
    struct blk_req *req = *head;
    if (req) {
        *head = req->priv[0];
        if (!*head)
            *tail = head;
    }
    return req;
}

static uint64_t limit(struct disk_queue *q, const struct blk_req *req)
{
    if (req->op == BLK_FLUSH || !atomic_load_explicit(&q->d->throttle.on, memory_order_relaxed))
        return 0;
    return throttle_enter(&q->d->throttle, req->op != BLK_READ, req->op == BLK_DISCARD ? 0 : req->len, clock_host_ns());
}

/* Lets those go whose time has come; `all`: every one. */
static void unthrottle(struct disk_queue *q, bool all)
{
    for (;;) {
        pthread_mutex_lock(&q->lock);
        struct blk_req *req = q->slow;
        uint64_t wait = req && !all ? limit(q, req) : 0;
        if (req && !wait)
            list_take(&q->slow, &q->slow_tail);
        pthread_mutex_unlock(&q->lock);
        if (req && wait)
            timer_arm(&q->timer, clock_now(&q->clock) + wait);
        if (!req || wait)
            break;
        go(q, req);
    }
    file_queue_kick(q->ring);
}

static void timer_fired(void *opaque)
{
    unthrottle(opaque, false);
}

static void submit_limited(struct disk_queue *q, struct blk_req *req)
{
    if (atomic_load_explicit(&q->d->throttle.on, memory_order_relaxed) || q->slow) {
        pthread_mutex_lock(&q->lock);
        uint64_t wait = q->slow ? 1 : limit(q, req);
        bool first = !q->slow;
        if (wait)
            list_add(&q->slow_tail, req);
        pthread_mutex_unlock(&q->lock);
        if (wait) {
            if (first)
                timer_arm(&q->timer, clock_now(&q->clock) + wait);
            return;
        }
    }
    go(q, req);
}

void disk_queue_submit(struct blk_queue *bq, struct blk_req *req)
{
    struct disk_queue *q = (struct disk_queue *)bq;
    atomic_fetch_add(&q->entering, 1);
    if (atomic_load(&q->d->gate)) {
        pthread_mutex_lock(&q->lock);
        bool held = atomic_load(&q->d->gate);
        if (held)
            list_add(&q->held_tail, req);
        pthread_mutex_unlock(&q->lock);
        if (held) {
            atomic_fetch_sub(&q->entering, 1);
            return;
        }
    }
    submit_limited(q, req);
    atomic_fetch_sub(&q->entering, 1);
}

void disk_queue_kick(struct blk_queue *bq)
{
    file_queue_kick(((struct disk_queue *)bq)->ring);
}

void disk_queue_drain(struct blk_queue *bq)
{
    struct disk_queue *q = (struct disk_queue *)bq;
    for (;;) {
        unthrottle(q, true);
        file_queue_drain(q->ring);
        run_done(q);
        pthread_mutex_lock(&q->lock);
        bool idle = !q->busy && !q->slow;
        if (!idle && !q->done) {
            struct timespec until; /* a completion of the ring does not signal */
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += 1000000;
            until.tv_sec += until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&q->changed, &q->lock, &until);
        }
        pthread_mutex_unlock(&q->lock);
        if (idle)
            break;
    }
}

static void drained_here(void *opaque)
{
    struct disk_queue *q = opaque;
    disk_queue_drain(&q->q);
    pthread_mutex_lock(&q->lock);
    q->drains++;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

/*
 * The device may go on submitting (to the list behind the gate), so completions stay on the queue's own thread; unless that is
 * ours, or has never run.
 */
void disk_queues_close_gate(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    for (struct disk_queue *q = d->queues; q; q = q->next) {
        if (!loop_has_thread(q->q.loop) || loop_is_current(q->q.loop)) {
            disk_queue_drain(&q->q);
            continue;
        }
        while (atomic_load(&q->entering))
            sched_yield();
        pthread_mutex_lock(&q->lock);
        unsigned before = q->drains;
        pthread_mutex_unlock(&q->lock);
        loop_post(q->q.loop, drained_here, q);
        pthread_mutex_lock(&q->lock);
        while (q->drains == before)
            pthread_cond_wait(&q->changed, &q->lock);
        pthread_mutex_unlock(&q->lock);
    }
    pthread_mutex_unlock(&d->lock);
}

static void release_held(void *opaque)
{
    struct disk_queue *q = opaque;
    for (;;) {
        atomic_fetch_add(&q->entering, 1);
        pthread_mutex_lock(&q->lock);
        struct blk_req *req = atomic_load(&q->d->gate) ? NULL : list_take(&q->held, &q->held_tail);
        pthread_mutex_unlock(&q->lock);
        if (req)
            submit_limited(q, req);
        atomic_fetch_sub(&q->entering, 1);
        if (!req)
            break;
    }
    file_queue_kick(q->ring);
    if (q->q.batch_done)
        q->q.batch_done(q->q.opaque);
}

void disk_queues_open_gate(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    for (struct disk_queue *q = d->queues; q; q = q->next)
        loop_post(q->q.loop, release_held, q);
    pthread_mutex_unlock(&d->lock);
}

/* ---- life ---- */

static void ring_batch(void *opaque)
{
    struct disk_queue *q = opaque;
    if (q->q.batch_done)
        q->q.batch_done(q->q.opaque);
}

static struct file *first_file(struct blk_node *n)
{
    while (n && !n->drv->get_file)
        n = blk_node_file(n);
    return n ? n->drv->get_file(n) : NULL;
}

struct blk_queue *disk_queue_new(struct blk *blk, struct loop *loop, struct err *err)
{
    struct disk *d = (struct disk *)blk;
    struct disk_queue *q = xcalloc(1, sizeof *q);
    q->ring = file_queue_new(blk, first_file(d->root), loop, err);
    if (!q->ring) {
        free(q);
        return NULL;
    }
    q->q.blk = blk;
    q->q.loop = loop;
    q->d = d;
    q->ring->batch_done = ring_batch;
    q->ring->opaque = q;
    q->done_tail = &q->done;
    q->held_tail = &q->held;
    q->slow_tail = &q->slow;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    clock_init(&q->clock, 0);
    clock_start(&q->clock);
    timer_init(&q->timer, loop, &q->clock, timer_fired, q);
    pthread_mutex_lock(&d->lock);
    q->next = d->queues;
    d->queues = q;
    pthread_mutex_unlock(&d->lock);
    return &q->q;
}

void disk_queue_free(struct blk_queue *bq)
{
    struct disk_queue *q = (struct disk_queue *)bq;
    struct disk *d = q->d;
    pthread_mutex_lock(&d->lock);
    struct disk_queue **p = &d->queues;
    while (*p != q)
        p = &(*p)->next;
    *p = q->next;
    pthread_mutex_unlock(&d->lock);
    timer_cancel(&q->timer);
    loop_unpost(bq->loop, q);
    file_queue_free(q->ring);
    while (q->spare) {
        struct work *w = q->spare;
        q->spare = w->next;
        free(w);
    }
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->changed);
    free(q);
}
