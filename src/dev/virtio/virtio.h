/*
 * The transport-neutral part of a virtio device (virtio 1.2, chapter 2): status, features, configuration space, queues.
 * A device embeds `struct virtio_dev` first and fills in `struct virtio_ops`; virtio_pci.c or virtio_mmio.c shows it to
 * the guest. Device and transport are two entries in the board's device list; either may be freed first.
 *
 * Threads. A doorbell is an eventfd: the guest's write never runs device code on a vCPU; `notify` runs on the loop of
 * its queue (main loop or an I/O thread's) with the queue's lock held. Everything else (status, features, config) runs
 * on a vCPU thread or the main thread with virtio_dev.lock held. Order: virtio_dev.lock, then virtq.lock; so code that
 * holds a queue's lock (notify, completions) must not take virtio_dev.lock: config fields that such code changes are
 * atomics or have a lock of their own. virtq_notify(), virtio_config_changed(), virtio_broken() may be called with any
 * of them held.
 */
#ifndef LODGE_DEV_VIRTIO_VIRTIO_H
#define LODGE_DEV_VIRTIO_VIRTIO_H

#include "dev/device.h"
#include "dev/virtio/virtq.h"

#define VIRTIO_QUEUES_MAX 64
#define VIRTIO_CONFIG_MAX 256 /* bytes of device-specific configuration */
#define VIRTIO_NO_VECTOR 0xffff

/* Device ids (5) */
enum {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_9P = 9,
};

/* Device status (2.1) */
enum {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
};

/* Feature bits of rings and transports (6). virtio_init() offers the first four and RING_PACKED; devices add their own.
 */
#define VIRTIO_F_INDIRECT_DESC BIT64(28)
#define VIRTIO_F_EVENT_IDX BIT64(29)
#define VIRTIO_F_VERSION_1 BIT64(32)
#define VIRTIO_F_RING_PACKED BIT64(34)
#define VIRTIO_F_RING_RESET BIT64(40)

/* What makes one kind of device. All are optional but notify. */
struct virtio_ops {
    /* Buffers may be waiting in q. The queue's loop thread, q->lock held; only between driver_ok and reset, and not
     * while paused. */
    void (*notify)(struct virtq *q);
    /* Fills in the whole configuration space, little-endian (config_len bytes, zeroed before). dev->lock held. */
    void (*config_get)(struct virtio_dev *dev, uint8_t config[VIRTIO_CONFIG_MAX]);
    /* The driver wrote `len` bytes (1, 2, 4) at `off`; within config_len. dev->lock held. */
    void (*config_set)(struct virtio_dev *dev, unsigned off, unsigned len, const uint8_t *data);
    /* The driver chose guest_features (a subset of host_features): false refuses the combination. dev->lock held. */
    bool (*features_ok)(struct virtio_dev *dev, uint64_t features);
    /* The driver is ready; notify follows for every queue. dev->lock held. */
    void (*driver_ok)(struct virtio_dev *dev);
    /*
     * Returns when no popped element is in flight any more in an asynchronous backend. The queues hand out nothing
     * meanwhile. Any thread; dev->lock may be held, no queue lock. Completions it runs or waits for take virtq_lock()
     * and push as always.
     */
    void (*drain)(struct virtio_dev *dev);
    /* The device-specific part of a reset. Nothing is in flight, no notify runs. dev->lock held. */
    void (*reset)(struct virtio_dev *dev);
    /* VM stops (after drain) or goes on (before notify is called for every queue). Main thread, no lock held. */
    void (*pause)(struct virtio_dev *dev, bool paused);
};

/* Where interrupts go. Implemented by virtio_pci and virtio_mmio; called from any thread, with device locks held. */
struct virtio_transport {
    void (*queue_irq)(struct virtio_transport *t, unsigned queue);
    void (*config_irq)(struct virtio_transport *t);
    /* The device was reset: forget vectors, clear ISR. */
    void (*reset)(struct virtio_transport *t);
    /* The device is being freed. */
    void (*detach)(struct virtio_transport *t);
};

/* Queue state in the form it is saved. */
struct virtio_saved {
    uint64_t desc[VIRTIO_QUEUES_MAX], driver[VIRTIO_QUEUES_MAX], device[VIRTIO_QUEUES_MAX];
    uint16_t size[VIRTIO_QUEUES_MAX], avail_idx[VIRTIO_QUEUES_MAX], used_idx[VIRTIO_QUEUES_MAX];
    uint8_t flags[VIRTIO_QUEUES_MAX]; /* 1 ready, 2 avail wrap, 4 used wrap */
};

struct virtio_dev {
    struct device dev; /* first */
    const struct virtio_ops *ops;
    struct mem *mem;
    uint16_t device_id;
    uint16_t config_len;
    unsigned nqueues;
    struct virtq *queues; /* nqueues of them */
    uint64_t host_features;
    uint64_t guest_features; /* valid after FEATURES_OK */
    pthread_mutex_t lock;
    _Atomic uint8_t status;
    _Atomic uint32_t config_generation;
    _Atomic bool paused;
    _Atomic bool dma_off; /* the transport says that the device must not access memory now */
    struct virtio_transport *transport; /* NULL until one attaches */
    struct virtio_saved saved;          /* only between pre_save and post_load */
};

/*
 * Initialises the common part. `nqueues` up to VIRTIO_QUEUES_MAX; then virtio_queue_init() for each. Devices set more
 * bits in host_features afterwards, before a transport attaches.
 */
void virtio_init(struct virtio_dev *dev, const struct device_type *type, const char *id, uint16_t device_id,
                 const struct virtio_ops *ops, struct mem *mem, unsigned nqueues, unsigned config_len);
/* Queue `n` with up to `size` descriptors (a power of two up to VIRTQ_SIZE_MAX), worked on by `loop`. -errno. */
int virtio_queue_init(struct virtio_dev *dev, unsigned n, unsigned size, struct loop *loop, struct err *err);
/* Frees what virtio_init made, not `dev`. No loop of its queues runs on another thread any more. Requests are drained
 * first. */
void virtio_fini(struct virtio_dev *dev);

static inline bool virtio_has_feature(const struct virtio_dev *dev, uint64_t bit)
{
    return dev->guest_features & bit;
}
static inline bool virtio_running(struct virtio_dev *dev)
{
    return (atomic_load(&dev->status) & VIRTIO_STATUS_DRIVER_OK) && !atomic_load(&dev->paused) &&
           !atomic_load(&dev->dma_off);
}

/* Configuration changed by itself (capacity, link): the driver is interrupted. Any thread. */
void virtio_config_changed(struct virtio_dev *dev);
/* DEVICE_NEEDS_RESET: the driver did what cannot be. Any thread. */
void virtio_broken(struct virtio_dev *dev, const char *why);
/* Has notify called for queue n, on its loop: backends use it to go on. Any thread. */
void virtio_kick(struct virtio_dev *dev, unsigned n);

/* For struct device_type: `.reset = virtio_device_reset, .pause = virtio_device_pause`. */
void virtio_device_reset(struct device *dev);
void virtio_device_pause(struct device *dev, bool paused);

/*
 * For a device's state table: `VIRTIO_STATE_FIELDS(struct foo, virtio)` with its virtio_dev called `virtio` at offset
 * 0, and pre_save/post_load (or calls of them in the device's own).
 */
#define VIRTIO_STATE_FIELDS(type, member)                                                                              \
    STATE_U(type, member.guest_features), STATE_U(type, member.status), STATE_U(type, member.config_generation),       \
        STATE_ARRAY(type, member.saved.desc), STATE_ARRAY(type, member.saved.driver),                                  \
        STATE_ARRAY(type, member.saved.device), STATE_ARRAY(type, member.saved.size),                                  \
        STATE_ARRAY(type, member.saved.avail_idx), STATE_ARRAY(type, member.saved.used_idx),                           \
        STATE_ARRAY(type, member.saved.flags)
void virtio_pre_save(void *dev);
int virtio_post_load(void *dev, uint32_t version, struct err *err);

/* ---- for transports; each takes dev->lock itself. Queue numbers out of range are ignored, or read as 0. ---- */

void virtio_attach(struct virtio_dev *dev, struct virtio_transport *t);
void virtio_detach(struct virtio_dev *dev);
uint8_t virtio_get_status(struct virtio_dev *dev);
/* Whether the device may access memory (PCI's bus master enable). Off: queues look empty; requests in flight end. */
void virtio_set_dma(struct virtio_dev *dev, bool on);
/* 0 resets and waits until no request is in flight. Bits the driver may not set now are ignored. */
void virtio_set_status(struct virtio_dev *dev, uint8_t status);
/* The 32 feature bits of word 0 or 1 (others: 0; ignored). Set is ignored after FEATURES_OK. */
uint32_t virtio_get_features(struct virtio_dev *dev, unsigned word);
uint32_t virtio_get_driver_features(struct virtio_dev *dev, unsigned word);
void virtio_set_driver_features(struct virtio_dev *dev, unsigned word, uint32_t bits);
/* size 1, 2, 4 (8 is done as two); outside the space reads 0. */
uint64_t virtio_config_read(struct virtio_dev *dev, unsigned off, unsigned size);
void virtio_config_write(struct virtio_dev *dev, unsigned off, unsigned size, uint64_t val);

enum virtio_queue_reg {
    VIRTIO_QUEUE_SIZE,
    VIRTIO_QUEUE_SIZE_MAX, /* read only */
    VIRTIO_QUEUE_READY,    /* writing 1 starts it; 0 is for virtio-mmio */
    VIRTIO_QUEUE_DESC,
    VIRTIO_QUEUE_DRIVER,
    VIRTIO_QUEUE_DEVICE,
    VIRTIO_QUEUE_RESET, /* writing 1 resets this queue alone (RING_RESET) */
};
uint64_t virtio_queue_get(struct virtio_dev *dev, unsigned n, enum virtio_queue_reg reg);
/* Writes `val` under `mask` (addresses are written in halves). Ignored where the state forbids it. */
void virtio_queue_set(struct virtio_dev *dev, unsigned n, enum virtio_queue_reg reg, uint64_t val, uint64_t mask);
/* The doorbell's eventfd, for bus_add_eventfd(); -1 when there is no such queue. */
int virtio_queue_fd(struct virtio_dev *dev, unsigned n);

#endif
