/*
 * Status, features, configuration and queue set-up, the same behind PCI and MMIO. See virtio.h for threads and locks.
 */
#include "dev/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

static const uint64_t ring_features =
    VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED | VIRTIO_F_RING_RESET;

void virtio_init(struct virtio_dev *dev, const struct device_type *type, const char *id, uint16_t device_id,
                 const struct virtio_ops *ops, struct mem *mem, unsigned nqueues, unsigned config_len)
{
    device_init(&dev->dev, type, id);
    dev->ops = ops;
    dev->mem = mem;
    dev->device_id = device_id;
    dev->config_len = (uint16_t)MIN(config_len, VIRTIO_CONFIG_MAX);
    dev->nqueues = MIN(nqueues, VIRTIO_QUEUES_MAX);
    dev->queues = xcalloc(dev->nqueues, sizeof *dev->queues);
    dev->host_features = ring_features;
    pthread_mutex_init(&dev->lock, NULL);
    for (unsigned i = 0; i < dev->nqueues; i++) {
        struct virtq *q = &dev->queues[i];
        q->dev = dev;
        q->index = i;
        q->kick_fd = -1;
        pthread_mutex_init(&q->lock, NULL);
    }
}

/* The doorbell rang. The queue's loop thread. */
static void rung(void *opaque, uint32_t events)
{
    struct virtq *q = opaque;
    uint64_t count;
    if (read(q->kick_fd, &count, sizeof count) < 0)
        return;
    if (virtq_enter(q)) {
        q->dev->ops->notify(q);
        virtq_leave(q);
    }
}

int virtio_queue_init(struct virtio_dev *dev, unsigned n, unsigned size, struct loop *loop, struct err *err)
{
    struct virtq *q = &dev->queues[n];
    if (!size || size > VIRTQ_SIZE_MAX || (size & (size - 1)))
        return err_set(err, -EINVAL, "%s: a queue of %u descriptors: not a power of two up to %u", dev->dev.id, size,
                       VIRTQ_SIZE_MAX);
    q->loop = loop;
    q->size_max = q->size = (uint16_t)size;
    q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->kick_fd < 0)
        return err_errno(err, -errno, "%s: cannot make an eventfd", dev->dev.id);
    q->watch = loop_add_fd(loop, q->kick_fd, EPOLLIN, rung, q);
    return q->watch ? 0 : err_errno(err, -errno, "%s: cannot watch an eventfd", dev->dev.id);
}

void virtio_kick(struct virtio_dev *dev, unsigned n)
{
    uint64_t one = 1;
    if (n < dev->nqueues && write(dev->queues[n].kick_fd, &one, sizeof one) < 0) {
        /* EAGAIN: it has been rung often enough. */
    }
}

static void kick_all(struct virtio_dev *dev)
{
    for (unsigned i = 0; i < dev->nqueues; i++)
        if (dev->queues[i].ready)
            virtio_kick(dev, i);
}

/* Waits until no notify runs and nothing is in flight. The queues hand out nothing: not ready, or paused. No queue lock
 * held. */
static void quiesce(struct virtio_dev *dev)
{
    for (unsigned i = 0; i < dev->nqueues; i++) {
        virtq_lock(&dev->queues[i]);
        virtq_unlock(&dev->queues[i]);
    }
    if (dev->ops->drain)
        dev->ops->drain(dev);
}

void virtio_fini(struct virtio_dev *dev)
{
    if (!dev->queues)
        return;
    atomic_store(&dev->paused, true);
    quiesce(dev);
    if (dev->transport)
        dev->transport->detach(dev->transport);
    for (unsigned i = 0; i < dev->nqueues; i++) {
        struct virtq *q = &dev->queues[i];
        loop_del_fd(q->watch);
        fd_closep(&q->kick_fd);
        pthread_mutex_destroy(&q->lock);
    }
    free(ptr_take(dev->queues));
    pthread_mutex_destroy(&dev->lock);
}

/* ---- interrupts ---- */

void virtio_config_changed(struct virtio_dev *dev)
{
    atomic_fetch_add(&dev->config_generation, 1);
    if (dev->transport && (atomic_load(&dev->status) & VIRTIO_STATUS_DRIVER_OK))
        dev->transport->config_irq(dev->transport);
}

void virtio_broken(struct virtio_dev *dev, const char *why)
{
    log_guest("%s: the guest's driver is wrong: %s", dev->dev.id, why);
    uint8_t old = atomic_fetch_or(&dev->status, VIRTIO_STATUS_NEEDS_RESET);
    if (!(old & VIRTIO_STATUS_NEEDS_RESET) && (old & VIRTIO_STATUS_DRIVER_OK) && dev->transport)
        dev->transport->config_irq(dev->transport);
}

/* ---- reset and pause ---- */

static void reset_locked(struct virtio_dev *dev)
{
    atomic_store(&dev->status, 0);
    quiesce(dev);
    for (unsigned i = 0; i < dev->nqueues; i++) {
        virtq_lock(&dev->queues[i]);
        virtq_clear(&dev->queues[i]);
        virtq_unlock(&dev->queues[i]);
    }
    if (dev->ops->reset)
        dev->ops->reset(dev);
    dev->guest_features = 0;
    if (dev->transport)
        dev->transport->reset(dev->transport);
    /* A queue that was found broken while it was drained. */
    atomic_store(&dev->status, 0);
}

void virtio_device_reset(struct device *d)
{
    struct virtio_dev *dev = (struct virtio_dev *)d;
    pthread_mutex_lock(&dev->lock);
    reset_locked(dev);
    pthread_mutex_unlock(&dev->lock);
}

void virtio_device_pause(struct device *d, bool paused)
{
    struct virtio_dev *dev = (struct virtio_dev *)d;
    if (paused) {
        atomic_store(&dev->paused, true);
        quiesce(dev);
    }
    if (dev->ops->pause)
        dev->ops->pause(dev, paused);
    if (!paused) {
        atomic_store(&dev->paused, false);
        kick_all(dev);
    }
}

/* ---- state ---- */

enum { SAVED_READY = 1, SAVED_AVAIL_WRAP = 2, SAVED_USED_WRAP = 4 };

void virtio_pre_save(void *obj)
{
    struct virtio_dev *dev = obj;
    struct virtio_saved *s = &dev->saved;
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < dev->nqueues; i++) {
        const struct virtq *q = &dev->queues[i];
        s->desc[i] = q->desc;
        s->driver[i] = q->driver;
        s->device[i] = q->device;
        s->size[i] = q->size;
        s->avail_idx[i] = q->avail_idx;
        s->used_idx[i] = q->used_idx;
        s->flags[i] = (uint8_t)((q->ready ? SAVED_READY : 0) | (q->avail_wrap ? SAVED_AVAIL_WRAP : 0) |
                                (q->used_wrap ? SAVED_USED_WRAP : 0));
    }
}

int virtio_post_load(void *obj, uint32_t version, struct err *err)
{
    struct virtio_dev *dev = obj;
    const struct virtio_saved *s = &dev->saved;
    uint8_t status = atomic_load(&dev->status);
    if ((status & VIRTIO_STATUS_FEATURES_OK) && (dev->guest_features & ~dev->host_features))
        return err_set(err, -EINVAL, "saved state of %s: its driver uses features this device does not have (%#llx)",
                       dev->dev.id, (unsigned long long)(dev->guest_features & ~dev->host_features));
    int ret = 0;
    pthread_mutex_lock(&dev->lock);
    for (unsigned i = 0; i < dev->nqueues && ret == 0; i++) {
        struct virtq *q = &dev->queues[i];
        virtq_lock(q);
        virtq_clear(q);
        q->desc = s->desc[i];
        q->driver = s->driver[i];
        q->device = s->device[i];
        q->size = s->size[i];
        q->avail_idx = s->avail_idx[i];
        q->used_idx = s->used_idx[i];
        q->avail_wrap = s->flags[i] & SAVED_AVAIL_WRAP;
        q->used_wrap = s->flags[i] & SAVED_USED_WRAP;
        if (s->flags[i] & SAVED_READY)
            ret = virtq_start(q, dev->guest_features, true);
        virtq_unlock(q);
        if (ret < 0)
            err_set(err, ret, "saved state of %s: queue %u cannot be", dev->dev.id, i);
    }
    if (ret == 0 && (status & VIRTIO_STATUS_DRIVER_OK)) {
        if (dev->ops->driver_ok)
            dev->ops->driver_ok(dev);
        kick_all(dev);
    }
    pthread_mutex_unlock(&dev->lock);
    return ret;
}

/* ---- what transports call ---- */

void virtio_attach(struct virtio_dev *dev, struct virtio_transport *t)
{
    dev->transport = t;
}

void virtio_detach(struct virtio_dev *dev)
{
    dev->transport = NULL;
}

void virtio_set_dma(struct virtio_dev *dev, bool on)
{
    pthread_mutex_lock(&dev->lock);
    if (atomic_exchange(&dev->dma_off, !on) && on)
        kick_all(dev);
    pthread_mutex_unlock(&dev->lock);
}

uint8_t virtio_get_status(struct virtio_dev *dev)
{
    return atomic_load(&dev->status);
}

static bool features_acceptable(struct virtio_dev *dev)
{
    uint64_t f = dev->guest_features;
    if ((f & ~dev->host_features) || !(f & VIRTIO_F_VERSION_1))
        return false;
    return !dev->ops->features_ok || dev->ops->features_ok(dev, f);
}

void virtio_set_status(struct virtio_dev *dev, uint8_t status)
{
    pthread_mutex_lock(&dev->lock);
    uint8_t old = atomic_load(&dev->status), add = (uint8_t)(status & ~old & ~VIRTIO_STATUS_NEEDS_RESET);
    if (status == 0) {
        reset_locked(dev);
        pthread_mutex_unlock(&dev->lock);
        return;
    }
    if ((add & VIRTIO_STATUS_FEATURES_OK) && !features_acceptable(dev))
        add &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
    if ((add & VIRTIO_STATUS_DRIVER_OK) && !((old | add) & VIRTIO_STATUS_FEATURES_OK))
        add &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
    if ((add & VIRTIO_STATUS_DRIVER_OK) && dev->ops->driver_ok)
        dev->ops->driver_ok(dev);
    atomic_fetch_or(&dev->status, add);
    if (add & VIRTIO_STATUS_DRIVER_OK)
        kick_all(dev);
    pthread_mutex_unlock(&dev->lock);
}

uint32_t virtio_get_features(struct virtio_dev *dev, unsigned word)
{
    return word < 2 ? (uint32_t)(dev->host_features >> 32 * word) : 0;
}

uint32_t virtio_get_driver_features(struct virtio_dev *dev, unsigned word)
{
    pthread_mutex_lock(&dev->lock);
    uint32_t bits = word < 2 ? (uint32_t)(dev->guest_features >> 32 * word) : 0;
    pthread_mutex_unlock(&dev->lock);
    return bits;
}

void virtio_set_driver_features(struct virtio_dev *dev, unsigned word, uint32_t bits)
{
    pthread_mutex_lock(&dev->lock);
    if (word < 2 && !(atomic_load(&dev->status) & VIRTIO_STATUS_FEATURES_OK))
        dev->guest_features = (dev->guest_features & ~(0xffffffffull << 32 * word)) | (uint64_t)bits << 32 * word;
    pthread_mutex_unlock(&dev->lock);
}

uint64_t virtio_config_read(struct virtio_dev *dev, unsigned off, unsigned size)
{
    uint8_t config[VIRTIO_CONFIG_MAX + 8] = {0};
    if (off >= dev->config_len || !dev->ops->config_get)
        return 0;
    pthread_mutex_lock(&dev->lock);
    dev->ops->config_get(dev, config);
    pthread_mutex_unlock(&dev->lock);
    memset(config + dev->config_len, 0, sizeof config - dev->config_len);
    return bits_trunc(le64_get(config + off), size);
}

void virtio_config_write(struct virtio_dev *dev, unsigned off, unsigned size, uint64_t val)
{
    uint8_t data[8];
    le64_put(data, val);
    if (size > 4 || off >= dev->config_len || size > dev->config_len - off || !dev->ops->config_set)
        return;
    pthread_mutex_lock(&dev->lock);
    dev->ops->config_set(dev, off, size, data);
    pthread_mutex_unlock(&dev->lock);
}

uint64_t virtio_queue_get(struct virtio_dev *dev, unsigned n, enum virtio_queue_reg reg)
{
    if (n >= dev->nqueues)
        return 0;
    const struct virtq *q = &dev->queues[n];
    pthread_mutex_lock(&dev->lock);
    uint64_t val = 0;
    switch (reg) {
    case VIRTIO_QUEUE_SIZE:
        val = q->size;
        break;
    case VIRTIO_QUEUE_SIZE_MAX:
        val = q->size_max;
        break;
    case VIRTIO_QUEUE_READY:
        val = q->ready;
        break;
    case VIRTIO_QUEUE_DESC:
        val = q->desc;
        break;
    case VIRTIO_QUEUE_DRIVER:
        val = q->driver;
        break;
    case VIRTIO_QUEUE_DEVICE:
        val = q->device;
        break;
    case VIRTIO_QUEUE_RESET: /* done before the write that asked for it returned */
        break;
    }
    pthread_mutex_unlock(&dev->lock);
    return val;
}

static void queue_start(struct virtio_dev *dev, struct virtq *q)
{
    uint8_t status = atomic_load(&dev->status);
    if (q->ready || !(status & VIRTIO_STATUS_FEATURES_OK))
        return;
    virtq_lock(q);
    int ret = virtq_start(q, dev->guest_features, false);
    virtq_unlock(q);
    if (ret < 0)
        virtio_broken(dev, "a queue was enabled with a wrong size or address");
    else if (status & VIRTIO_STATUS_DRIVER_OK)
        virtio_kick(dev, q->index);
}

/* Stops one queue. The whole device is held meanwhile, so that the drain ends. */
static void queue_stop(struct virtio_dev *dev, struct virtq *q)
{
    bool was_paused = atomic_exchange(&dev->paused, true);
    quiesce(dev);
    virtq_lock(q);
    virtq_clear(q);
    virtq_unlock(q);
    atomic_store(&dev->paused, was_paused);
    kick_all(dev);
}

void virtio_queue_set(struct virtio_dev *dev, unsigned n, enum virtio_queue_reg reg, uint64_t val, uint64_t mask)
{
    if (n >= dev->nqueues)
        return;
    struct virtq *q = &dev->queues[n];
    gpa_t *addr = NULL;
    pthread_mutex_lock(&dev->lock);
    switch (reg) {
    case VIRTIO_QUEUE_SIZE:
        if (!q->ready && val && val <= q->size_max)
            q->size = (uint16_t)val;
        break;
    case VIRTIO_QUEUE_SIZE_MAX:
        break;
    case VIRTIO_QUEUE_READY:
        if (val == 1)
            queue_start(dev, q);
        else if (val == 0 && q->ready)
            queue_stop(dev, q);
        break;
    case VIRTIO_QUEUE_DESC:
        addr = &q->desc;
        break;
    case VIRTIO_QUEUE_DRIVER:
        addr = &q->driver;
        break;
    case VIRTIO_QUEUE_DEVICE:
        addr = &q->device;
        break;
    case VIRTIO_QUEUE_RESET:
        if (val == 1 && (dev->guest_features & VIRTIO_F_RING_RESET))
            queue_stop(dev, q);
        break;
    }
    if (addr && !q->ready)
        *addr = (*addr & ~mask) | (val & mask);
    pthread_mutex_unlock(&dev->lock);
}

int virtio_queue_fd(struct virtio_dev *dev, unsigned n)
{
    return n < dev->nqueues ? dev->queues[n].kick_fd : -1;
}
