/*
 * A virtqueue as its device sees it: split and packed rings, indirect descriptors, EVENT_IDX (virtio 1.2, 2.6-2.8).
 * Guest memory is hostile: every descriptor is copied once and then checked; what cannot be right marks the queue
 * broken, sets DEVICE_NEEDS_RESET, and from then on the queue looks empty. Nothing the guest does makes a call below
 * fail in another way.
 *
 * Each queue has one lock. All calls here are made with it held, but where said otherwise. virtio_ops.notify is called
 * with it held; a backend's callback or a completion takes it with virtq_lock(). Lock order: virtio_dev.lock,
 * virtq.lock, interrupt controllers.
 *
 *     static void notify(struct virtq *q)             // on the queue's loop thread, lock held
 *     {
 *         do {
 *             virtq_disable_notify(q);
 *             while (virtq_pop(q, e) > 0) {
 *                 ... use virtq_read(), virtq_write(), or e->iov for I/O; now or later: virtq_push(q, e,
 * bytes_written);
 *             }
 *         } while (virtq_enable_notify(q));
 *         virtq_notify(q);
 *     }
 */
#ifndef LODGE_DEV_VIRTIO_VIRTQ_H
#define LODGE_DEV_VIRTIO_VIRTQ_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/loop.h"
#include "mem/mem.h"

struct virtio_dev;

#define VIRTQ_SIZE_MAX 1024 /* descriptors of a queue, and of a chain */

/*
 * One buffer the guest has offered: the pieces the device may read come first in iov, then those it may write. The
 * arrays belong to whoever made the element (virtq_elem_new) and bound how many pieces a chain may have. Guest memory
 * behind iov may change at any time: copy out (virtq_read) before checking.
 */
struct virtq_elem {
    uint32_t nout, nin;       /* pieces: iov[0..nout) readable, iov[nout..nout+nin) writable */
    uint64_t out_len, in_len; /* bytes of both parts */
    struct iovec *iov;        /* `max` of them */
    gpa_t *gpa;               /* where each piece lies in guest memory */
    uint32_t max;
    uint16_t id, ndesc; /* the ring's own: head or buffer id; ring slots taken */
};

/* One allocation, freed with free(). An element can be used again after virtq_push(). max: 1..VIRTQ_SIZE_MAX pieces. */
struct virtq_elem *virtq_elem_new(unsigned max);

/* First iovec and count of the writable part. */
static inline struct iovec *virtq_in(const struct virtq_elem *e)
{
    return e->iov + e->nout;
}

struct virtq {
    struct virtio_dev *dev;
    unsigned index;
    struct loop *loop; /* where notify runs */
    pthread_mutex_t lock;
    int kick_fd; /* eventfd: the guest's doorbell */
    struct loop_fd *watch;
    uint16_t size_max; /* what the device offers */

    /* What the driver programmed; fixed while `ready`. */
    uint16_t size;
    bool ready;
    gpa_t desc, driver,
        device; /* descriptor area; driver area (avail ring, driver event); device area (used ring, device event) */

    /* The ring's state, virtq.c's own. */
    bool packed, event_idx, indirect;
    bool broken;
    bool notify_off;
    bool avail_wrap, used_wrap; /* packed: wrap counters */
    bool signalled_valid;
    bool unsignalled;                 /* something was pushed since the last virtq_notify() */
    uint16_t avail_idx, used_idx;     /* next to take, next to give back: free running (split), ring slot (packed) */
    uint16_t avail_seen;              /* split: the driver's index as last read */
    uint16_t signalled;               /* used_idx at the last interrupt check */
    uint16_t filled;                  /* virtq_fill()ed, not flushed: elements (split), slots (packed) */
    uint16_t first_flags, first_slot; /* packed: the first filled one's flags, written last */
    uint16_t inuse;                   /* ring slots (packed) or chains (split) popped and not yet given back */
};

static inline void virtq_lock(struct virtq *q)
{
    pthread_mutex_lock(&q->lock);
}
static inline void virtq_unlock(struct virtq *q)
{
    pthread_mutex_unlock(&q->lock);
}

/* Takes the lock if the queue can be worked on now: driver ready, queue enabled, not broken, VM not paused. Else false,
 * unlocked. */
bool virtq_enter(struct virtq *q);
#define virtq_leave virtq_unlock

/*
 * Takes the next buffer: 1, with *e filled in; 0 when there is none (also when the queue is broken or not ready). At
 * most `size` buffers are in use at once. Each popped element goes back exactly once by push, fill or unpop.
 */
int virtq_pop(struct virtq *q, struct virtq_elem *e);
/* Whether pop would find something. */
bool virtq_has_avail(struct virtq *q);
/* Puts the element popped last back, as if it never was taken. Several: in the reverse order of their popping. */
void virtq_unpop(struct virtq *q, const struct virtq_elem *e);

/*
 * Gives a buffer back: `len` bytes of its writable part, from its start, were written (also by I/O on iov). fill does
 * not show it to the guest yet; flush shows all that were filled, at once (a packet in several buffers). push is both.
 * A queue that was reset in between ignores them.
 */
void virtq_fill(struct virtq *q, const struct virtq_elem *e, uint32_t len);
void virtq_flush(struct virtq *q);
void virtq_push(struct virtq *q, const struct virtq_elem *e, uint32_t len);

/* Interrupts the guest if it wants to hear of what was pushed since the last call. Once after a batch. */
void virtq_notify(struct virtq *q);

/* Whether the guest should ring the doorbell; a hint. enable returns true when buffers came in the meantime: pop again.
 */
void virtq_disable_notify(struct virtq *q);
bool virtq_enable_notify(struct virtq *q);

/* Copies from the readable part at byte `off`; returns how many bytes there were. Needs no lock. */
size_t virtq_read(const struct virtq_elem *e, size_t off, void *buf, size_t len);
/* Copies into the writable part at byte `off`; returns how many bytes fitted. Count them in virtq_push's `len`. Needs
 * no lock. */
size_t virtq_write(const struct virtq_elem *e, size_t off, const void *buf, size_t len);

/* The guest broke the protocol (a malformed request): queue broken, DEVICE_NEEDS_RESET. `why` goes to the log. */
void virtq_break(struct virtq *q, const char *why);

/* ---- for virtio.c ---- */

/* Checks addresses and size and starts a queue from index 0 or, after a load, from its indexes. -EINVAL when they
 * cannot be. */
int virtq_start(struct virtq *q, uint64_t features, bool loaded);
void virtq_clear(struct virtq *q);

#endif
