/*
 * virtio-blk (virtio 1.2, 5.2). Requests are taken and submitted on the queue's loop thread with the queue's lock held,
 * and complete there too: inside submit or kick (then the lock is held already: `in_notify`), from the ring's watch, or
 * on the thread that drains, while nobody takes requests. Request slots are made on first use and kept: the running
 * path allocates nothing.
 */
#include "dev/virtio/blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"

enum {
    SECTOR = 512,
    SEG_MAX = 254, /* data pieces of a request */
    ID_LEN = 20,
    DISCARD_SECTORS_MAX = 1 << 21, /* of one discard or write-zeroes */
    ERRORS_LOGGED = 10,

    T_IN = 0,
    T_OUT = 1,
    T_FLUSH = 4,
    T_GET_ID = 8,
    T_DISCARD = 11,
    T_WRITE_ZEROES = 13,

    S_OK = 0,
    S_IOERR = 1,
    S_UNSUPP = 2,

    HEADER_LEN = 16,
    CONFIG_LEN = 60,
    CONFIG_WRITEBACK = 32,
};

#define F_SEG_MAX BIT64(2)
#define F_RO BIT64(5)
#define F_BLK_SIZE BIT64(6)
#define F_FLUSH BIT64(9)
#define F_TOPOLOGY BIT64(10)
#define F_CONFIG_WCE BIT64(11)
#define F_MQ BIT64(12)
#define F_DISCARD BIT64(13)
#define F_WRITE_ZEROES BIT64(14)

struct blk_slot {
    struct blk_req req; /* first */
    struct vblk_queue *q;
    struct virtq_elem *elem;
    struct blk_slot *next;
    uint8_t *status; /* the last writable byte, in guest memory */
    gpa_t status_gpa;
};

struct vblk_queue {
    struct virtio_blk *dev;
    struct virtq *vq;
    struct blk_queue *io;
    struct blk_slot *free;
    bool in_notify;
};

struct virtio_blk {
    struct virtio_dev virtio; /* first */
    struct blk *blk;
    char serial[ID_LEN];
    struct vblk_queue *queues;
    _Atomic uint8_t writeback;
    _Atomic unsigned errors;
};

/* ---- completion ---- */

static struct blk_slot *slot_take(struct vblk_queue *q)
{
    struct blk_slot *s = q->free;
    if (s) {
        q->free = s->next;
        return s;
    }
    s = xcalloc(1, sizeof *s);
    s->q = q;
    s->elem = virtq_elem_new(SEG_MAX + 2);
    return s;
}

static void slot_put(struct blk_slot *s)
{
    s->next = s->q->free;
    s->q->free = s;
}

/* Ends a request with a status byte. Queue lock held. */
static void finish(struct blk_slot *s, uint8_t status)
{
    struct virtq *vq = s->q->vq;
    *s->status = status;
    mem_wrote(vq->dev->mem, s->status_gpa, 1);
    virtq_push(vq, s->elem, (uint32_t)s->elem->in_len);
    slot_put(s);
}

static const char *op_name(enum blk_op op)
{
    static const char *const names[] = {"read", "write", "flush", "discard", "write zeroes"};
    return names[op];
}

static void done(struct blk_req *req, int ret)
{
    struct blk_slot *s = (struct blk_slot *)req;
    struct vblk_queue *q = s->q;
    bool locked = q->in_notify;
    if (ret < 0 && atomic_fetch_add(&q->dev->errors, 1) < ERRORS_LOGGED)
        log_warn("disk %s: %s of %llu bytes at %llu failed: %s", q->dev->virtio.dev.id, op_name(req->op),
                 (unsigned long long)req->len, (unsigned long long)req->offset, strerror(-ret));
    if (!locked)
        virtq_lock(q->vq);
    finish(s, ret == 0 ? S_OK : ret == -ENOTSUP ? S_UNSUPP : S_IOERR);
    if (!locked)
        virtq_unlock(q->vq);
}

static void batch_done(void *opaque)
{
    struct vblk_queue *q = opaque;
    if (q->in_notify)
        return; /* notify() ends with it */
    virtq_lock(q->vq);
    virtq_notify(q->vq);
    virtq_unlock(q->vq);
}

/* ---- requests ---- */

static void submit(struct blk_slot *s, enum blk_op op, uint64_t offset, uint64_t len, unsigned flags)
{
    s->req.op = op;
    s->req.offset = offset;
    s->req.len = len;
    s->req.flags = flags;
    s->req.done = done;
    blk_submit(s->q->io, &s->req);
}

/* Whether [sector, +len bytes) lies on the disk. */
static bool in_range(const struct blk *blk, uint64_t sector, uint64_t len)
{
    uint64_t sectors = blk->size / SECTOR;
    return sector <= sectors && len / SECTOR <= sectors - sector;
}

/* A writethrough disk: every write is durable when it completes. */
static unsigned write_flags(struct virtio_blk *b)
{
    return virtio_has_feature(&b->virtio, F_FLUSH) && atomic_load(&b->writeback) ? 0 : BLK_REQ_FUA;
}

/* Takes the status byte off the end of the writable part. False when there is none. */
static bool take_status(struct blk_slot *s)
{
    struct virtq_elem *e = s->elem;
    if (!e->in_len)
        return false;
    unsigned last = e->nout + e->nin - 1;
    struct iovec *v = &e->iov[last];
    s->status = (uint8_t *)v->iov_base + v->iov_len - 1;
    s->status_gpa = e->gpa[last] + v->iov_len - 1;
    if (--v->iov_len == 0)
        e->nin--;
    return true;
}

/* Points the request at the readable part behind the header. */
static void take_data_out(struct blk_slot *s)
{
    struct virtq_elem *e = s->elem;
    unsigned i = 0;
    size_t skip = HEADER_LEN;
    while (i < e->nout && skip >= e->iov[i].iov_len)
        skip -= e->iov[i++].iov_len;
    if (i < e->nout) {
        e->iov[i].iov_base = (char *)e->iov[i].iov_base + skip;
        e->iov[i].iov_len -= skip;
    }
    s->req.iov = e->iov + i;
    s->req.niov = e->nout - i;
}

static void transfer(struct blk_slot *s, bool write, uint64_t sector)
{
    struct virtio_blk *b = s->q->dev;
    uint64_t len = write ? s->elem->out_len - HEADER_LEN : s->elem->in_len - 1;
    if (len % SECTOR || !in_range(b->blk, sector, len) || (write && b->blk->read_only)) {
        finish(s, S_IOERR);
        return;
    }
    if (write) {
        take_data_out(s);
    } else {
        s->req.iov = virtq_in(s->elem);
        s->req.niov = s->elem->nin;
    }
    submit(s, write ? BLK_WRITE : BLK_READ, sector * SECTOR, len, write ? write_flags(b) : 0);
}

/* Discard and write zeroes: one segment of (sector, count, flags). */
static void deallocate(struct blk_slot *s, bool zero)
{
    struct virtio_blk *b = s->q->dev;
    uint8_t seg[16];
    enum { FLAG_UNMAP = 1 };
    if (b->blk->read_only || s->elem->out_len != HEADER_LEN + sizeof seg ||
        virtq_read(s->elem, HEADER_LEN, seg, sizeof seg) != sizeof seg) {
        finish(s, S_IOERR);
        return;
    }
    uint64_t sector = le64_get(seg), count = le32_get(seg + 8);
    uint32_t flags = le32_get(seg + 12);
    if (flags & ~(zero ? FLAG_UNMAP : 0u)) {
        finish(s, S_UNSUPP);
        return;
    }
    if (count > DISCARD_SECTORS_MAX || !in_range(b->blk, sector, count * SECTOR)) {
        finish(s, S_IOERR);
        return;
    }
    submit(s, zero ? BLK_WRITE_ZEROES : BLK_DISCARD, sector * SECTOR, count * SECTOR,
           write_flags(b) | (flags & FLAG_UNMAP ? BLK_REQ_UNMAP : 0));
}

static void get_id(struct blk_slot *s)
{
    virtq_write(s->elem, 0, s->q->dev->serial, ID_LEN);
    finish(s, S_OK);
}

/* One request that was popped into s. */
static void handle(struct blk_slot *s)
{
    struct virtio_blk *b = s->q->dev;
    uint8_t header[HEADER_LEN];
    if (virtq_read(s->elem, 0, header, sizeof header) != sizeof header || !take_status(s)) {
        virtq_break(s->q->vq, "a disk request without header or status");
        virtq_push(s->q->vq, s->elem, 0);
        slot_put(s);
        return;
    }
    switch (le32_get(header)) {
    case T_IN:
        transfer(s, false, le64_get(header + 8));
        break;
    case T_OUT:
        transfer(s, true, le64_get(header + 8));
        break;
    case T_FLUSH:
        submit(s, BLK_FLUSH, 0, 0, 0);
        break;
    case T_GET_ID:
        get_id(s);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        if (virtio_has_feature(&b->virtio, le32_get(header) == T_DISCARD ? F_DISCARD : F_WRITE_ZEROES))
            deallocate(s, le32_get(header) == T_WRITE_ZEROES);
        else
            finish(s, S_UNSUPP);
        break;
    default:
        finish(s, S_UNSUPP);
        break;
    }
}

static void notify(struct virtq *vq)
{
    struct vblk_queue *q = &((struct virtio_blk *)vq->dev)->queues[vq->index];
    q->in_notify = true;
    do {
        virtq_disable_notify(vq);
        for (;;) {
            struct blk_slot *s = slot_take(q);
            if (virtq_pop(vq, s->elem) <= 0) {
                slot_put(s);
                break;
            }
            handle(s);
        }
    } while (virtq_enable_notify(vq));
    blk_kick(q->io);
    virtq_notify(vq);
    q->in_notify = false;
}

/* ---- configuration ---- */

static void config_get(struct virtio_dev *dev, uint8_t config[VIRTIO_CONFIG_MAX])
{
    struct virtio_blk *b = (struct virtio_blk *)dev;
    const struct blk *blk = b->blk;
    le64_put(config, blk->size / SECTOR);
    le32_put(config + 12,
             (uint32_t)MIN(SEG_MAX, dev->queues[0].size_max - 2)); /* with header and status within a queue */
    le32_put(config + 20, blk->block_size);
    unsigned exponent = 0;
    while (exponent < 8 && (uint64_t)blk->block_size << (exponent + 1) <= blk->physical_size)
        exponent++;
    config[24] = (uint8_t)exponent;
    le16_put(config + 26, 1); /* min_io_size, in blocks */
    config[CONFIG_WRITEBACK] = atomic_load(&b->writeback);
    le16_put(config + 34, (uint16_t)dev->nqueues);
    le32_put(config + 36, DISCARD_SECTORS_MAX);
    le32_put(config + 40, 1);
    le32_put(config + 44, blk->physical_size / SECTOR);
    le32_put(config + 48, DISCARD_SECTORS_MAX);
    le32_put(config + 52, 1);
    config[56] = 1; /* write_zeroes_may_unmap */
}

static void config_set(struct virtio_dev *dev, unsigned off, unsigned len, const uint8_t *data)
{
    struct virtio_blk *b = (struct virtio_blk *)dev;
    if (off == CONFIG_WRITEBACK && len == 1 && virtio_has_feature(dev, F_CONFIG_WCE))
        atomic_store(&b->writeback, data[0] & 1);
}

/* ---- life ---- */

static void drain(struct virtio_dev *dev)
{
    struct virtio_blk *b = (struct virtio_blk *)dev;
    for (unsigned i = 0; i < dev->nqueues; i++)
        if (b->queues[i].io)
            blk_drain(b->queues[i].io);
}

static void reset(struct virtio_dev *dev)
{
    struct virtio_blk *b = (struct virtio_blk *)dev;
    atomic_store(&b->writeback, b->blk->writeback);
}

static const struct virtio_ops ops = {
    .notify = notify,
    .config_get = config_get,
    .config_set = config_set,
    .drain = drain,
    .reset = reset,
};

static void destroy(struct device *dev)
{
    struct virtio_blk *b = (struct virtio_blk *)dev;
    unsigned n = b->virtio.nqueues;
    virtio_fini(&b->virtio);
    for (unsigned i = 0; i < n; i++) {
        struct vblk_queue *q = &b->queues[i];
        blk_queue_free(q->io);
        while (q->free) {
            struct blk_slot *s = q->free;
            q->free = s->next;
            free(s->elem);
            free(s);
        }
    }
    free(b->queues);
    blk_close(b->blk);
    free(b);
}

/* The driver reads the capacity again. */
static void resized(void *opaque)
{
    virtio_config_changed(opaque);
}

int virtio_blk_new(const struct virtio_blk_config *cfg, struct virtio_dev **ret, struct err *err)
{
    unsigned n = cfg->queues ? cfg->queues : 1, size = cfg->queue_size ? cfg->queue_size : 256;
    if (n > VIRTIO_QUEUES_MAX)
        return err_set(err, -EINVAL, "disk %s: %u queues: at most %u", cfg->id, n, VIRTIO_QUEUES_MAX);
    struct virtio_blk *b = xcalloc(1, sizeof *b);
    virtio_init(&b->virtio, &virtio_blk_type, cfg->id, VIRTIO_ID_BLOCK, &ops, cfg->mem, n, CONFIG_LEN);
    struct blk *blk = cfg->blk;
    if (cfg->serial)
        memcpy(b->serial, cfg->serial, strnlen(cfg->serial, ID_LEN));
    atomic_store(&b->writeback, blk->writeback);
    b->virtio.host_features |= F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE | (n > 1 ? F_MQ : 0) |
                               (blk->read_only ? F_RO : 0) | (blk->can_discard ? F_DISCARD : 0) |
                               (blk->can_write_zeroes ? F_WRITE_ZEROES : 0);
    b->queues = xcalloc(n, sizeof *b->queues);
    int code = 0;
    for (unsigned i = 0; i < n && code == 0; i++) {
        struct vblk_queue *q = &b->queues[i];
        q->dev = b;
        q->vq = &b->virtio.queues[i];
        q->io = blk_queue_new(blk, cfg->loop, err);
        if (!q->io) {
            code = err && err->code ? err->code : -EIO;
            break;
        }
        q->io->batch_done = batch_done;
        q->io->opaque = q;
        code = virtio_queue_init(&b->virtio, i, size, cfg->loop, err);
    }
    if (code < 0) {
        destroy(&b->virtio.dev);
        return code;
    }
    b->blk = blk;
    blk->resized = resized;
    blk->resized_opaque = b;
    *ret = &b->virtio;
    return 0;
}

/* ---- state ---- */

static const struct state_field fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_blk, virtio),
    STATE_U(struct virtio_blk, writeback),
    STATE_END,
};
static const struct state_desc state = {"virtio-blk", 1, 1, fields, virtio_pre_save, virtio_post_load};

const struct device_type virtio_blk_type = {
    .name = "virtio-blk",
    .summary = "virtio disk",
    .state = &state,
    .reset = virtio_device_reset,
    .destroy = destroy,
    .pause = virtio_device_pause,
};
