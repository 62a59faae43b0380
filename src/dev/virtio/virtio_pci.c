/*
 * virtio over PCI (virtio 1.2, 4.1), modern interface only. BAR 0 holds the four structures, a page each; BAR 1 is
 * MSI-X with one vector for configuration changes and one for each queue. Doorbells are eventfds on the memory bus
 * while BAR 0 is mapped. Registers are accessed on vCPU threads, under reg_lock; interrupts come from any thread, under
 * irq_lock.
 */
#include "dev/virtio/virtio_pci.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/log.h"

enum {
    COMMON = 0x0000,
    ISR = 0x1000,
    CONFIG = 0x2000,
    NOTIFY = 0x3000,
    BAR_SIZE = 0x4000,
    REGION_SIZE = 0x1000,
    NOTIFY_MULTIPLIER = 4,

    ISR_QUEUE = 1,
    ISR_CONFIG = 2,
};

/* Capability types (4.1.4) and the cfg_type-specific layout of struct virtio_pci_cap. */
enum {
    CAP_COMMON = 1,
    CAP_NOTIFY = 2,
    CAP_ISR = 3,
    CAP_DEVICE = 4,
    CAP_PCI_CFG = 5,
    CAP_VENDOR = 0x09,
    CAP_LEN = 16,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_LENGTH = 12,
    CAP_DATA = 16,
};

struct virtio_pci {
    struct pci_dev pci; /* first */
    struct virtio_transport transport;
    struct virtio_dev *vdev; /* NULL once it was freed */
    struct pci_info info;
    unsigned cfg_cap;
    pthread_mutex_t reg_lock;
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    pthread_mutex_t irq_lock; /* isr and the line's level change together */
    uint8_t isr;
    _Atomic uint16_t config_vector;
    _Atomic uint16_t queue_vector[VIRTIO_QUEUES_MAX];
};

static struct virtio_pci *of_transport(struct virtio_transport *t)
{
    return container_of(t, struct virtio_pci, transport);
}

/* ---- interrupts ---- */

static void interrupt(struct virtio_pci *v, unsigned vector, uint8_t isr)
{
    if (pci_msix_enabled(&v->pci)) {
        if (vector != VIRTIO_NO_VECTOR)
            pci_msix_send(&v->pci, vector);
        return;
    }
    pthread_mutex_lock(&v->irq_lock);
    v->isr |= isr;
    pci_set_intx(&v->pci, 1);
    pthread_mutex_unlock(&v->irq_lock);
}

static void queue_irq(struct virtio_transport *t, unsigned queue)
{
    struct virtio_pci *v = of_transport(t);
    interrupt(v, atomic_load(&v->queue_vector[queue]), ISR_QUEUE);
}

static void config_irq(struct virtio_transport *t)
{
    struct virtio_pci *v = of_transport(t);
    interrupt(v, atomic_load(&v->config_vector), ISR_CONFIG);
}

static uint8_t take_isr(struct virtio_pci *v)
{
    pthread_mutex_lock(&v->irq_lock);
    uint8_t isr = v->isr;
    v->isr = 0;
    pci_set_intx(&v->pci, 0);
    pthread_mutex_unlock(&v->irq_lock);
    return isr;
}

/* The device's side of a reset. Selectors stay: they belong to the access in progress. */
static void transport_reset(struct virtio_transport *t)
{
    struct virtio_pci *v = of_transport(t);
    take_isr(v);
    atomic_store(&v->config_vector, VIRTIO_NO_VECTOR);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        atomic_store(&v->queue_vector[i], VIRTIO_NO_VECTOR);
}

/* ---- the common configuration structure (4.1.4.3) ---- */

enum {
    DEVICE_FEATURE_SELECT = 0,
    DEVICE_FEATURE = 4,
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    CONFIG_VECTOR = 16,
    NUM_QUEUES = 18,
    DEVICE_STATUS = 20,
    CONFIG_GENERATION = 21,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_DESC = 32,
    QUEUE_DRIVER = 40,
    QUEUE_DEVICE = 48,
    QUEUE_RESET = 58,
    COMMON_LEN = 60,
};

/* The address register at `off`, whose upper half starts 4 bytes later. */
static bool address_reg(uint64_t off, enum virtio_queue_reg *ret_reg, unsigned *ret_shift)
{
    if (off < QUEUE_DESC || off >= QUEUE_DEVICE + 8 || off % 4)
        return false;
    *ret_reg = VIRTIO_QUEUE_DESC + (enum virtio_queue_reg)((off - QUEUE_DESC) / 8);
    *ret_shift = off & 4 ? 32 : 0;
    return true;
}

static uint32_t common_read(struct virtio_pci *v, uint64_t off)
{
    struct virtio_dev *vdev = v->vdev;
    unsigned n = v->queue_select;
    enum virtio_queue_reg reg;
    unsigned shift;
    if (address_reg(off, &reg, &shift))
        return (uint32_t)(virtio_queue_get(vdev, n, reg) >> shift);
    switch (off) {
    case DEVICE_FEATURE_SELECT:
        return v->device_feature_select;
    case DEVICE_FEATURE:
        return virtio_get_features(vdev, v->device_feature_select);
    case DRIVER_FEATURE_SELECT:
        return v->driver_feature_select;
    case DRIVER_FEATURE:
        return virtio_get_driver_features(vdev, v->driver_feature_select);
    case CONFIG_VECTOR:
        return atomic_load(&v->config_vector);
    case NUM_QUEUES:
        return vdev->nqueues;
    case DEVICE_STATUS:
        return virtio_get_status(vdev);
    case CONFIG_GENERATION:
        return (uint8_t)atomic_load(&vdev->config_generation);
    case QUEUE_SELECT:
        return n;
    case QUEUE_SIZE:
        return (uint32_t)virtio_queue_get(vdev, n, VIRTIO_QUEUE_SIZE);
    case QUEUE_VECTOR:
        return n < vdev->nqueues ? atomic_load(&v->queue_vector[n]) : VIRTIO_NO_VECTOR;
    case QUEUE_ENABLE:
        return (uint32_t)virtio_queue_get(vdev, n, VIRTIO_QUEUE_READY);
    case QUEUE_NOTIFY_OFF:
        return n < vdev->nqueues ? n : 0;
    default: /* queue_reset is over when it can be read; the rest is reserved */
        return 0;
    }
}

static uint16_t valid_vector(const struct virtio_pci *v, uint32_t vector)
{
    return vector < v->info.msix_vectors ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

static void common_write(struct virtio_pci *v, uint64_t off, uint32_t val)
{
    struct virtio_dev *vdev = v->vdev;
    unsigned n = v->queue_select;
    enum virtio_queue_reg reg;
    unsigned shift;
    if (address_reg(off, &reg, &shift)) {
        virtio_queue_set(vdev, n, reg, (uint64_t)val << shift, 0xffffffffull << shift);
        return;
    }
    switch (off) {
    case DEVICE_FEATURE_SELECT:
        v->device_feature_select = val;
        break;
    case DRIVER_FEATURE_SELECT:
        v->driver_feature_select = val;
        break;
    case DRIVER_FEATURE:
        virtio_set_driver_features(vdev, v->driver_feature_select, val);
        break;
    case CONFIG_VECTOR:
        atomic_store(&v->config_vector, valid_vector(v, val & 0xffff));
        break;
    case DEVICE_STATUS:
        virtio_set_status(vdev, (uint8_t)val);
        break;
    case QUEUE_SELECT:
        v->queue_select = (uint16_t)val;
        break;
    case QUEUE_SIZE:
        virtio_queue_set(vdev, n, VIRTIO_QUEUE_SIZE, val & 0xffff, 0);
        break;
    case QUEUE_VECTOR:
        if (n < vdev->nqueues)
            atomic_store(&v->queue_vector[n], valid_vector(v, val & 0xffff));
        break;
    case QUEUE_ENABLE:
        if ((val & 0xffff) == 1) /* a driver cannot write 0 here */
            virtio_queue_set(vdev, n, VIRTIO_QUEUE_READY, 1, 0);
        break;
    case QUEUE_RESET:
        virtio_queue_set(vdev, n, VIRTIO_QUEUE_RESET, val & 0xffff, 0);
        break;
    default:
        break;
    }
}

/* ---- BAR 0 ---- */

static uint64_t bar_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_pci *v = opaque;
    uint64_t val = 0, in = off % REGION_SIZE;
    pthread_mutex_lock(&v->reg_lock);
    if (v->vdev) {
        switch (off - in) {
        case COMMON:
            val = common_read(v, in);
            break;
        case ISR:
            val = in == 0 ? take_isr(v) : 0;
            break;
        case CONFIG:
            val = virtio_config_read(v->vdev, (unsigned)in, size);
            break;
        default:
            break;
        }
    }
    pthread_mutex_unlock(&v->reg_lock);
    return bits_trunc(val, size);
}

static void bar_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct virtio_pci *v = opaque;
    uint64_t in = off % REGION_SIZE;
    pthread_mutex_lock(&v->reg_lock);
    if (v->vdev) {
        switch (off - in) {
        case COMMON:
            common_write(v, in, (uint32_t)val);
            break;
        case CONFIG:
            virtio_config_write(v->vdev, (unsigned)in, size, val);
            break;
        case NOTIFY: /* an access of another size than the eventfd's */
            virtio_kick(v->vdev, (unsigned)in / NOTIFY_MULTIPLIER);
            break;
        default:
            break;
        }
    }
    pthread_mutex_unlock(&v->reg_lock);
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write, .min_size = 1, .max_size = 4};

static void bar_mapped(struct pci_dev *d, unsigned bar, uint64_t addr, bool mapped)
{
    struct virtio_pci *v = (struct virtio_pci *)d;
    if (bar != 0 || !v->vdev)
        return;
    for (unsigned i = 0; i < v->vdev->nqueues; i++) {
        uint64_t at = addr + NOTIFY + i * NOTIFY_MULTIPLIER;
        int fd = virtio_queue_fd(v->vdev, i);
        struct err err = {0};
        if (!mapped)
            bus_del_eventfd(pci_bus_mmio(d->bus), at, 2, fd);
        else if (bus_add_eventfd(pci_bus_mmio(d->bus), at, 2, fd, &err) < 0)
            log_warn("%s: doorbell of queue %u without eventfd: %s", d->dev.id, i, err.msg);
    }
}

static void master_changed(struct pci_dev *d, bool on)
{
    struct virtio_pci *v = (struct virtio_pci *)d;
    if (v->vdev)
        virtio_set_dma(v->vdev, on);
}

/* ---- the window through configuration space (4.1.4.9) ---- */

static bool window(struct virtio_pci *v, unsigned off, unsigned len, uint32_t *ret_offset, uint32_t *ret_len)
{
    const uint8_t *cap = &v->pci.config[v->cfg_cap];
    unsigned data = v->cfg_cap + CAP_DATA;
    if (off >= data + 4 || data >= off + len || cap[CAP_BAR] != 0)
        return false;
    *ret_offset = le32_get(cap + CAP_OFFSET);
    *ret_len = le32_get(cap + CAP_LENGTH);
    return (*ret_len == 1 || *ret_len == 2 || *ret_len == 4) && *ret_offset % *ret_len == 0 &&
           *ret_offset <= BAR_SIZE - *ret_len;
}

static void config_reading(struct pci_dev *d, unsigned off, unsigned len)
{
    struct virtio_pci *v = (struct virtio_pci *)d;
    uint32_t at, size;
    if (window(v, off, len, &at, &size))
        le32_put(&d->config[v->cfg_cap + CAP_DATA], (uint32_t)bar_read(v, at, size));
}

static void config_written(struct pci_dev *d, unsigned off, unsigned len)
{
    struct virtio_pci *v = (struct virtio_pci *)d;
    uint32_t at, size;
    if (window(v, off, len, &at, &size))
        bar_write(v, at, size, bits_trunc(le32_get(&d->config[v->cfg_cap + CAP_DATA]), size));
}

/* ---- making ---- */

static int add_cap(struct virtio_pci *v, uint8_t type, unsigned len, uint32_t offset, uint32_t length)
{
    int cap = pci_add_cap(&v->pci, CAP_VENDOR, len);
    if (cap < 0)
        return cap;
    uint8_t *c = &v->pci.config[cap];
    c[2] = (uint8_t)len;
    c[CAP_TYPE] = type;
    le32_put(c + CAP_OFFSET, offset);
    le32_put(c + CAP_LENGTH, length);
    return cap;
}

static int add_caps(struct virtio_pci *v)
{
    int cap;
    if (add_cap(v, CAP_COMMON, CAP_LEN, COMMON, COMMON_LEN) < 0 || add_cap(v, CAP_ISR, CAP_LEN, ISR, 1) < 0 ||
        add_cap(v, CAP_DEVICE, CAP_LEN, CONFIG, REGION_SIZE) < 0 ||
        (cap = add_cap(v, CAP_NOTIFY, CAP_LEN + 4, NOTIFY, REGION_SIZE)) < 0)
        return -ENOSPC;
    le32_put(&v->pci.config[cap + CAP_LEN], NOTIFY_MULTIPLIER);
    if ((cap = add_cap(v, CAP_PCI_CFG, CAP_LEN + 4, 0, 0)) < 0)
        return cap;
    v->cfg_cap = (unsigned)cap;
    v->pci.wmask[cap + CAP_BAR] = 0xff;
    memset(&v->pci.wmask[cap + CAP_OFFSET], 0xff, 12);
    return pci_add_express(&v->pci);
}

static uint32_t class_of(uint16_t device_id)
{
    switch (device_id) {
    case VIRTIO_ID_NET:
        return 0x020000;
    case VIRTIO_ID_BLOCK:
        return 0x010000;
    case VIRTIO_ID_CONSOLE:
        return 0x078000;
    default:
        return 0x00ff00;
    }
}

static void detach(struct virtio_transport *t)
{
    struct virtio_pci *v = of_transport(t);
    pci_dev_remove(&v->pci);
    virtio_detach(v->vdev);
    v->vdev = NULL;
}

static void destroy(struct device *dev)
{
    struct virtio_pci *v = (struct virtio_pci *)dev;
    if (v->vdev)
        detach(&v->transport);
    pthread_mutex_destroy(&v->reg_lock);
    pthread_mutex_destroy(&v->irq_lock);
    free(v);
}

static void reset(struct device *dev)
{
    struct virtio_pci *v = (struct virtio_pci *)dev;
    if (!v->vdev)
        return;
    device_reset(&v->vdev->dev);
    pthread_mutex_lock(&v->reg_lock);
    v->device_feature_select = v->driver_feature_select = 0;
    v->queue_select = 0;
    pthread_mutex_unlock(&v->reg_lock);
    pci_dev_reset(&v->pci);
}

int virtio_pci_new(struct virtio_dev *vdev, const char *id, struct pci_bus *bus, int devfn, struct pci_dev **ret,
                   struct err *err)
{
    struct virtio_pci *v = xcalloc(1, sizeof *v);
    device_init(&v->pci.dev, &virtio_pci_type, id);
    pthread_mutex_init(&v->reg_lock, NULL);
    pthread_mutex_init(&v->irq_lock, NULL);
    v->transport = (struct virtio_transport){
        .queue_irq = queue_irq, .config_irq = config_irq, .reset = transport_reset, .detach = detach};
    v->info = (struct pci_info){
        .vendor = 0x1af4,
        .device = (uint16_t)(0x1040 + vdev->device_id),
        .subsys_vendor = 0x1af4,
        .subsys_id = 0x1100,
        .class_code = class_of(vdev->device_id),
        .revision = 1,
        .interrupt_pin = 1,
        .msix_vectors = vdev->nqueues + 1,
        .msix_bar = 1,
        .bar = {[0] = {.size = BAR_SIZE, .ops = &bar_ops}},
    };
    v->pci.config_reading = config_reading;
    v->pci.config_written = config_written;
    v->pci.bar_mapped = bar_mapped;
    v->pci.master_changed = master_changed;
    int code = pci_dev_add(&v->pci, bus, devfn, &v->info, err);
    if (code == 0 && (code = add_caps(v)) < 0) {
        err_set(err, code, "%s: no room for PCI capabilities", id);
        pci_dev_remove(&v->pci);
    }
    if (code < 0) {
        destroy(&v->pci.dev);
        return code;
    }
    v->vdev = vdev;
    virtio_attach(vdev, &v->transport);
    transport_reset(&v->transport);
    virtio_set_dma(vdev, false);
    *ret = &v->pci;
    return 0;
}

static int post_load(void *obj, uint32_t version, struct err *err)
{
    struct virtio_pci *v = obj;
    atomic_store(&v->config_vector, valid_vector(v, atomic_load(&v->config_vector)));
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        atomic_store(&v->queue_vector[i], valid_vector(v, atomic_load(&v->queue_vector[i])));
    pci_set_intx(&v->pci, v->isr != 0);
    return 0;
}

static const struct state_field fields[] = {
    STATE_U(struct virtio_pci, device_feature_select),
    STATE_U(struct virtio_pci, driver_feature_select),
    STATE_U(struct virtio_pci, queue_select),
    STATE_U(struct virtio_pci, isr),
    STATE_U(struct virtio_pci, config_vector),
    STATE_ARRAY(struct virtio_pci, queue_vector),
    STATE_END,
};
static const struct state_desc state = {"virtio-pci", 1, 1, fields, NULL, post_load};

const struct device_type virtio_pci_type = {
    .name = "virtio-pci",
    .summary = "virtio device as a PCI function",
    .state = &state,
    .reset = reset,
    .destroy = destroy,
};
