/*
 * virtio over MMIO (virtio 1.2, 4.2.2), version 2. Registers are accessed on vCPU threads, under reg_lock; interrupts
 * come from any thread, under irq_lock. All queues share one doorbell register, so a write there is passed on to the
 * queue's eventfd.
 */
#include "dev/virtio/virtio_mmio.h"

#include <stdlib.h>

#include "base/fd.h"

enum {
    MAGIC = 0x000,
    VERSION = 0x004,
    DEVICE_ID = 0x008,
    VENDOR_ID = 0x00c,
    DEVICE_FEATURES = 0x010,
    DEVICE_FEATURES_SEL = 0x014,
    DRIVER_FEATURES = 0x020,
    DRIVER_FEATURES_SEL = 0x024,
    QUEUE_SEL = 0x030,
    QUEUE_NUM_MAX = 0x034,
    QUEUE_NUM = 0x038,
    QUEUE_READY = 0x044,
    QUEUE_NOTIFY = 0x050,
    INTERRUPT_STATUS = 0x060,
    INTERRUPT_ACK = 0x064,
    STATUS = 0x070,
    QUEUE_DESC = 0x080,
    QUEUE_DRIVER = 0x090,
    QUEUE_DEVICE = 0x0a0,
    SHM_LEN_LOW = 0x0b0,
    SHM_BASE_HIGH = 0x0bc,
    QUEUE_RESET = 0x0c0,
    CONFIG_GENERATION = 0x0fc,
    CONFIG = 0x100,

    INT_QUEUE = 1,
    INT_CONFIG = 2,
};

struct virtio_mmio {
    struct device dev; /* first */
    struct virtio_transport transport;
    struct virtio_dev *vdev; /* NULL once it was freed */
    struct bus *mmio;
    uint64_t base;
    struct irq irq;
    pthread_mutex_t reg_lock;
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    pthread_mutex_t irq_lock; /* status and the line's level change together */
    uint32_t interrupt_status;
};

static struct virtio_mmio *of_transport(struct virtio_transport *t)
{
    return container_of(t, struct virtio_mmio, transport);
}

static void change_irq(struct virtio_mmio *v, uint32_t set, uint32_t clear)
{
    pthread_mutex_lock(&v->irq_lock);
    v->interrupt_status = (v->interrupt_status | set) & ~clear;
    irq_set(v->irq, v->interrupt_status != 0);
    pthread_mutex_unlock(&v->irq_lock);
}

static void queue_irq(struct virtio_transport *t, unsigned queue)
{
    change_irq(of_transport(t), INT_QUEUE, 0);
}

static void config_irq(struct virtio_transport *t)
{
    change_irq(of_transport(t), INT_CONFIG, 0);
}

static void transport_reset(struct virtio_transport *t)
{
    change_irq(of_transport(t), 0, UINT32_MAX);
}

/* ---- registers ---- */

/* The queue address register at `off`: low half at 0, high half 4 bytes later. */
static bool address_reg(uint64_t off, enum virtio_queue_reg *ret_reg, unsigned *ret_shift)
{
    if (off < QUEUE_DESC || off >= QUEUE_DEVICE + 8 || off % 0x10 > 4)
        return false;
    *ret_reg = VIRTIO_QUEUE_DESC + (enum virtio_queue_reg)((off - QUEUE_DESC) / 0x10);
    *ret_shift = off % 0x10 ? 32 : 0;
    return true;
}

static uint32_t reg_read(struct virtio_mmio *v, uint64_t off)
{
    struct virtio_dev *vdev = v->vdev;
    enum virtio_queue_reg reg;
    unsigned shift;
    if (address_reg(off, &reg, &shift))
        return (uint32_t)(virtio_queue_get(vdev, v->queue_sel, reg) >> shift);
    if (off >= SHM_LEN_LOW && off <= SHM_BASE_HIGH)
        return UINT32_MAX; /* no shared memory regions */
    switch (off) {
    case MAGIC:
        return 0x74726976;
    case VERSION:
        return 2;
    case DEVICE_ID:
        return vdev->device_id;
    case VENDOR_ID:
        return 0x1af4;
    case DEVICE_FEATURES:
        return virtio_get_features(vdev, v->device_features_sel);
    case QUEUE_NUM_MAX:
        return (uint32_t)virtio_queue_get(vdev, v->queue_sel, VIRTIO_QUEUE_SIZE_MAX);
    case QUEUE_READY:
        return (uint32_t)virtio_queue_get(vdev, v->queue_sel, VIRTIO_QUEUE_READY);
    case INTERRUPT_STATUS: {
        pthread_mutex_lock(&v->irq_lock);
        uint32_t status = v->interrupt_status;
        pthread_mutex_unlock(&v->irq_lock);
        return status;
    }
    case STATUS:
        return virtio_get_status(vdev);
    case CONFIG_GENERATION:
        return atomic_load(&vdev->config_generation);
    default:
        return 0;
    }
}

static void reg_write(struct virtio_mmio *v, uint64_t off, uint32_t val)
{
    struct virtio_dev *vdev = v->vdev;
    enum virtio_queue_reg reg;
    unsigned shift;
    if (address_reg(off, &reg, &shift)) {
        virtio_queue_set(vdev, v->queue_sel, reg, (uint64_t)val << shift, 0xffffffffull << shift);
        return;
    }
    switch (off) {
    case DEVICE_FEATURES_SEL:
        v->device_features_sel = val;
        break;
    case DRIVER_FEATURES:
        virtio_set_driver_features(vdev, v->driver_features_sel, val);
        break;
    case DRIVER_FEATURES_SEL:
        v->driver_features_sel = val;
        break;
    case QUEUE_SEL:
        v->queue_sel = val;
        break;
    case QUEUE_NUM:
        virtio_queue_set(vdev, v->queue_sel, VIRTIO_QUEUE_SIZE, val, 0);
        break;
    case QUEUE_READY:
        virtio_queue_set(vdev, v->queue_sel, VIRTIO_QUEUE_READY, val, 0);
        break;
    case QUEUE_NOTIFY:
        virtio_kick(vdev, val & 0xffff);
        break;
    case INTERRUPT_ACK:
        change_irq(v, 0, val);
        break;
    case STATUS:
        virtio_set_status(vdev, (uint8_t)val);
        break;
    case QUEUE_RESET:
        virtio_queue_set(vdev, v->queue_sel, VIRTIO_QUEUE_RESET, val, 0);
        break;
    default:
        break;
    }
}

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_mmio *v = opaque;
    uint64_t val = 0;
    pthread_mutex_lock(&v->reg_lock);
    if (v->vdev && off >= CONFIG)
        val = virtio_config_read(v->vdev, (unsigned)off - CONFIG, size);
    else if (v->vdev && size == 4)
        val = reg_read(v, off);
    pthread_mutex_unlock(&v->reg_lock);
    return val;
}

static void mmio_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct virtio_mmio *v = opaque;
    pthread_mutex_lock(&v->reg_lock);
    if (v->vdev && off >= CONFIG)
        virtio_config_write(v->vdev, (unsigned)off - CONFIG, size, val);
    else if (v->vdev && size == 4)
        reg_write(v, off, (uint32_t)val);
    pthread_mutex_unlock(&v->reg_lock);
}

static const struct bus_ops ops = {.read = mmio_read, .write = mmio_write, .min_size = 1, .max_size = 4};

/* ---- making ---- */

static void detach(struct virtio_transport *t)
{
    struct virtio_mmio *v = of_transport(t);
    bus_unmap(v->mmio, v->base, VIRTIO_MMIO_SIZE);
    virtio_detach(v->vdev);
    v->vdev = NULL;
}

static void destroy(struct device *dev)
{
    struct virtio_mmio *v = (struct virtio_mmio *)dev;
    if (v->vdev)
        detach(&v->transport);
    pthread_mutex_destroy(&v->reg_lock);
    pthread_mutex_destroy(&v->irq_lock);
    free(v);
}

static void reset(struct device *dev)
{
    struct virtio_mmio *v = (struct virtio_mmio *)dev;
    if (!v->vdev)
        return;
    device_reset(&v->vdev->dev);
    pthread_mutex_lock(&v->reg_lock);
    v->device_features_sel = v->driver_features_sel = v->queue_sel = 0;
    pthread_mutex_unlock(&v->reg_lock);
}

int virtio_mmio_new(struct virtio_dev *vdev, const char *id, struct bus *mmio, uint64_t base, struct irq irq,
                    struct device **ret, struct err *err)
{
    struct virtio_mmio *v = xcalloc(1, sizeof *v);
    device_init(&v->dev, &virtio_mmio_type, id);
    pthread_mutex_init(&v->reg_lock, NULL);
    pthread_mutex_init(&v->irq_lock, NULL);
    v->transport = (struct virtio_transport){queue_irq, config_irq, transport_reset, detach};
    v->mmio = mmio;
    v->base = base;
    v->irq = irq;
    int code = bus_map(mmio, id, base, VIRTIO_MMIO_SIZE, &ops, v, err);
    if (code < 0) {
        destroy(&v->dev);
        return code;
    }
    v->vdev = vdev;
    virtio_attach(vdev, &v->transport);
    *ret = &v->dev;
    return 0;
}

static int post_load(void *obj, uint32_t version, struct err *err)
{
    struct virtio_mmio *v = obj;
    change_irq(v, 0, ~(uint32_t)(INT_QUEUE | INT_CONFIG));
    return 0;
}

static const struct state_field fields[] = {
    STATE_U(struct virtio_mmio, device_features_sel),
    STATE_U(struct virtio_mmio, driver_features_sel),
    STATE_U(struct virtio_mmio, queue_sel),
    STATE_U(struct virtio_mmio, interrupt_status),
    STATE_END,
};
static const struct state_desc state = {"virtio-mmio", 1, 1, fields, NULL, post_load};

const struct device_type virtio_mmio_type = {
    .name = "virtio-mmio",
    .summary = "virtio device behind memory-mapped registers",
    .state = &state,
    .reset = reset,
    .destroy = destroy,
};
