/*
 * MSI-X (PCI 3.0, 6.8.2): table, pending bits, masks. The table is written by vCPUs and read by whoever raises an
 * interrupt; msix_lock guards both and is never held while a message is sent.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "dev/pci_priv.h"

enum { ENTRY_WORDS = 4, ENTRY_ADDR = 0, ENTRY_ADDR_HI = 1, ENTRY_DATA = 2, ENTRY_CONTROL = 3, CONTROL_MASKED = 1 };

static uint16_t control(const struct pci_dev *d)
{
    return d->priv->msix_cap ? le16_get(&d->config[d->priv->msix_cap + 2]) : 0;
}

bool pci_msix_enabled(struct pci_dev *d)
{
    return control(d) & PCI_MSIX_ENABLE;
}

/* A function that may not access memory cannot send a message either (6.8.3.2): it waits as a masked one does. */
static bool masked(const struct pci_dev *d, unsigned n)
{
    return !(le16_get(&d->config[PCI_COMMAND]) & PCI_COMMAND_MASTER) || (control(d) & PCI_MSIX_MASKALL) || (d->msix_table[n * ENTRY_WORDS + ENTRY_CONTROL] & CONTROL_MASKED);
}

static uint64_t vector_addr(const struct pci_dev *d, unsigned n)
{
    const uint32_t *e = &d->msix_table[n * ENTRY_WORDS];
    return e[ENTRY_ADDR] | (uint64_t)e[ENTRY_ADDR_HI] << 32;
}

void pci_msix_send(struct pci_dev *d, unsigned n)
{
    if (n >= d->info->msix_vectors || !pci_msix_enabled(d))
        return;
    pthread_mutex_lock(&d->priv->msix_lock);
    bool send = !masked(d, n);
    uint64_t addr = vector_addr(d, n);
    uint32_t data = d->msix_table[n * ENTRY_WORDS + ENTRY_DATA];
    if (!send)
        d->msix_pba[n / 64] |= BIT64(n % 64);
    pthread_mutex_unlock(&d->priv->msix_lock);
    if (send)
        msi_send(&d->bus->msi, addr, data);
}

/* Binds or unbinds a vector's eventfd as table and masks now say. A masked one keeps its count until it is bound again.
 */
static void bind_vector(struct pci_dev *d, unsigned n)
{
    struct pci_vector_fd *v = &d->priv->vec[n];
    const struct msi_sink *msi = &d->bus->msi;
    if (v->fd < 0)
        return;
    pthread_mutex_lock(&d->priv->msix_lock);
    bool want = pci_msix_enabled(d) && !masked(d, n);
    uint64_t addr = vector_addr(d, n);
    uint32_t data = d->msix_table[n * ENTRY_WORDS + ENTRY_DATA];
    if (v->bound && (!want || v->addr != addr || v->data != data)) {
        msi->unbind_fd(msi->opaque, v->fd);
        v->bound = false;
    }
    if (want && !v->bound) {
        v->bound = msi->bind_fd(msi->opaque, v->fd, addr, data) == 0;
        v->addr = addr;
        v->data = data;
    }
    pthread_mutex_unlock(&d->priv->msix_lock);
}

int pci_msix_eventfd(struct pci_dev *d, unsigned n)
{
    if (n >= d->info->msix_vectors)
        return -EINVAL;
    if (!d->bus->msi.bind_fd)
        return -ENOTSUP;
    struct pci_vector_fd *v = &d->priv->vec[n];
    if (v->fd < 0) {
        v->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (v->fd < 0)
            return -errno;
    }
    bind_vector(d, n);
    return v->fd;
}

/* Sends what became deliverable: vectors [first, last). */
static void deliver_pending(struct pci_dev *d, unsigned first, unsigned last)
{
    for (unsigned n = first; n < last; n++) {
        bind_vector(d, n);
        pthread_mutex_lock(&d->priv->msix_lock);
        bool send = pci_msix_enabled(d) && !masked(d, n) && (d->msix_pba[n / 64] & BIT64(n % 64));
        if (send)
            d->msix_pba[n / 64] &= ~BIT64(n % 64);
        uint64_t addr = vector_addr(d, n);
        uint32_t data = d->msix_table[n * ENTRY_WORDS + ENTRY_DATA];
        pthread_mutex_unlock(&d->priv->msix_lock);
        if (send)
            msi_send(&d->bus->msi, addr, data);
    }
    if (d->msix_changed)
        d->msix_changed(d);
}

void pci_msix_control_written(struct pci_dev *d)
{
    pci_intx_update(d);
    deliver_pending(d, 0, d->info->msix_vectors);
}

static uint64_t table_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_dev *d = opaque;
    uint32_t val = 0;
    pthread_mutex_lock(&d->priv->msix_lock);
    if (off / 16 < d->info->msix_vectors)
        val = d->msix_table[off / 4];
    else if (off >= PCI_MSIX_PBA_OFFSET && (off - PCI_MSIX_PBA_OFFSET) / 4 < PCI_MSIX_MAX / 32)
        val = (uint32_t)(d->msix_pba[(off - PCI_MSIX_PBA_OFFSET) / 8] >> (off & 4 ? 32 : 0));
    pthread_mutex_unlock(&d->priv->msix_lock);
    return val;
}

static void table_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct pci_dev *d = opaque;
    unsigned n = (unsigned)(off / 16);
    if (n >= d->info->msix_vectors || off % 4)
        return;
    pthread_mutex_lock(&d->priv->msix_lock);
    if (off / 4 % ENTRY_WORDS == ENTRY_CONTROL)
        val &= CONTROL_MASKED;
    d->msix_table[off / 4] = (uint32_t)val;
    pthread_mutex_unlock(&d->priv->msix_lock);
    deliver_pending(d, n, n + 1);
}

const struct bus_ops pci_msix_ops = {.read = table_read, .write = table_write, .min_size = 4, .max_size = 4};

int pci_msix_init(struct pci_dev *d, struct err *err)
{
    struct pci_priv *p = d->priv;
    pthread_mutex_init(&p->msix_lock, NULL);
    for (unsigned n = 0; n < PCI_MSIX_MAX; n++)
        p->vec[n].fd = -1;
    if (!d->info->msix_vectors)
        return 0;
    int cap = pci_add_cap(d, PCI_CAP_MSIX, 12);
    if (d->info->msix_vectors > PCI_MSIX_MAX || d->info->msix_bar >= PCI_BARS || cap < 0)
        return err_set(err, -EINVAL, "PCI device %s: no room for %u MSI-X vectors", d->dev.id, d->info->msix_vectors);
    p->msix_cap = (unsigned)cap;
    le16_put(&d->config[cap + 2], (uint16_t)(d->info->msix_vectors - 1));
    le16_put(&d->wmask[cap + 2], PCI_MSIX_ENABLE | PCI_MSIX_MASKALL);
    le32_put(&d->config[cap + 4], d->info->msix_bar);
    le32_put(&d->config[cap + 8], PCI_MSIX_PBA_OFFSET | d->info->msix_bar);
    pci_msix_reset(d);
    return 0;
}

void pci_msix_reset(struct pci_dev *d)
{
    pthread_mutex_lock(&d->priv->msix_lock);
    memset(d->msix_table, 0, sizeof d->msix_table);
    memset(d->msix_pba, 0, sizeof d->msix_pba);
    for (unsigned n = 0; n < PCI_MSIX_MAX; n++)
        d->msix_table[n * ENTRY_WORDS + ENTRY_CONTROL] = CONTROL_MASKED;
    pthread_mutex_unlock(&d->priv->msix_lock);
    for (unsigned n = 0; n < d->info->msix_vectors; n++)
        bind_vector(d, n);
}

void pci_msix_fini(struct pci_dev *d)
{
    const struct msi_sink *msi = &d->bus->msi;
    for (unsigned n = 0; n < PCI_MSIX_MAX; n++) {
        struct pci_vector_fd *v = &d->priv->vec[n];
        if (v->bound)
            msi->unbind_fd(msi->opaque, v->fd);
        if (v->fd >= 0)
            close(v->fd);
    }
    pthread_mutex_destroy(&d->priv->msix_lock);
}
