/*
 * KVM's own interrupt controllers: two 8259s, one IOAPIC of 24 pins, the PIT, a local APIC a vCPU. Lines and messages
 * into them from any thread; eventfds as messages (irqfd) and as register writes (ioeventfd). reset: main thread, no vCPU
 * runs.
 *
 * GSI n is pin n of the IOAPIC and, below 16, of the 8259s; the PIT's GSI 0 is pin 2 of the IOAPIC, as on every PC.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "cpu/kvm/kvm.h"

/* Writes the whole routing table: the pins, then the bound messages. With irq_lock. */
static int set_routes(struct kvm_engine *k)
{
    autofree struct kvm_irq_routing *t =
        xcalloc(1, sizeof *t + (2 * KVM_GSI_PINS + k->n_msi_fds) * sizeof t->entries[0]);
    for (unsigned i = 0; i < KVM_GSI_PINS; i++) {
        if (i < 16 && i != 2)
            t->entries[t->nr++] = (struct kvm_irq_routing_entry){
                .gsi = i,
                .type = KVM_IRQ_ROUTING_IRQCHIP,
                .u.irqchip = {.irqchip = i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, .pin = i % 8}};
        if (i != 2)
            t->entries[t->nr++] =
                (struct kvm_irq_routing_entry){.gsi = i,
                                               .type = KVM_IRQ_ROUTING_IRQCHIP,
                                               .u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC, .pin = i ? i : 2}};
    }
    for (unsigned i = 0; i < k->n_msi_fds; i++) {
        const struct kvm_msi_fd *m = &k->msi_fd[i];
        t->entries[t->nr++] = (struct kvm_irq_routing_entry){
            .gsi = m->gsi,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)m->addr, .address_hi = (uint32_t)(m->addr >> 32), .data = m->data}};
    }
    return ioctl(k->vm, KVM_SET_GSI_ROUTING, t) < 0 ? -errno : 0;
}

int kvm_irq_init(struct kvm_engine *k, struct err *err)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

    if (ioctl(k->vm, KVM_CREATE_IRQCHIP, 0) < 0)
        return err_errno(err, -errno, "KVM_CREATE_IRQCHIP");
    if (ioctl(k->vm, KVM_CREATE_PIT2, &pit) < 0)
        return err_errno(err, -errno, "KVM_CREATE_PIT2");
    int r = set_routes(k);
    if (r < 0)
        return err_errno(err, r, "KVM_SET_GSI_ROUTING");
    for (unsigned i = 0; i < ARRAY_SIZE(k->irq_reset.chip); i++) {
        k->irq_reset.chip[i].chip_id = i;
        if (ioctl(k->vm, KVM_GET_IRQCHIP, &k->irq_reset.chip[i]) < 0)
            return err_errno(err, -errno, "KVM_GET_IRQCHIP");
    }
    if (ioctl(k->vm, KVM_GET_PIT2, &k->irq_reset.pit) < 0)
        return err_errno(err, -errno, "KVM_GET_PIT2");
    return 0;
}

void kvm_irq_line(struct engine *e, unsigned gsi, int level)
{
    struct kvm_irq_level l = {.irq = gsi, .level = level != 0};
    ioctl(kvm_engine_of(e)->vm, KVM_IRQ_LINE, &l);
}

void kvm_msi(struct engine *e, uint64_t addr, uint32_t data)
{
    struct kvm_msi m = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};
    ioctl(kvm_engine_of(e)->vm, KVM_SIGNAL_MSI, &m);
}

static int irqfd(struct kvm_engine *k, int fd, unsigned gsi, bool on)
{
    struct kvm_irqfd i = {.fd = (uint32_t)fd, .gsi = gsi, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
    return ioctl(k->vm, KVM_IRQFD, &i) < 0 ? -errno : 0;
}

static unsigned free_gsi(const struct kvm_engine *k)
{
    for (unsigned gsi = KVM_GSI_PINS; gsi < KVM_GSI_MAX; gsi++) {
        bool used = false;
        for (unsigned i = 0; i < k->n_msi_fds && !used; i++)
            used = k->msi_fd[i].gsi == gsi;
        if (!used)
            return gsi;
    }
    return 0;
}

static struct kvm_msi_fd *find_fd(struct kvm_engine *k, int fd)
{
    for (unsigned i = 0; i < k->n_msi_fds; i++)
        if (k->msi_fd[i].fd == fd)
            return &k->msi_fd[i];
    return NULL;
}

static void drop_fd(struct kvm_engine *k, struct kvm_msi_fd *m)
{
    irqfd(k, m->fd, m->gsi, false);
    *m = k->msi_fd[--k->n_msi_fds];
}

int kvm_msi_bind_fd(struct engine *e, int fd, uint64_t addr, uint32_t data)
{
    struct kvm_engine *k = kvm_engine_of(e);
    int r = -ENOSPC;

    pthread_mutex_lock(&k->irq_lock);
    struct kvm_msi_fd *m = find_fd(k, fd);
    if (m) { /* bound already: another message now */
        m->addr = addr;
        m->data = data;
        r = set_routes(k);
    } else if (k->n_msi_fds < ARRAY_SIZE(k->msi_fd)) {
        unsigned gsi = free_gsi(k);
        m = &k->msi_fd[k->n_msi_fds++];
        *m = (struct kvm_msi_fd){.fd = fd, .gsi = gsi, .addr = addr, .data = data};
        r = gsi ? set_routes(k) : -ENOSPC;
        if (r >= 0)
            r = irqfd(k, fd, gsi, true);
        if (r < 0)
            k->n_msi_fds--;
    }
    pthread_mutex_unlock(&k->irq_lock);
    return r;
}

void kvm_msi_unbind_fd(struct engine *e, int fd)
{
    struct kvm_engine *k = kvm_engine_of(e);
    pthread_mutex_lock(&k->irq_lock);
    struct kvm_msi_fd *m = find_fd(k, fd);
    if (m)
        drop_fd(k, m);
    pthread_mutex_unlock(&k->irq_lock);
}

int kvm_ioeventfd(struct engine *e, bool pio, uint64_t addr, unsigned size, int fd, bool add)
{
    struct kvm_engine *k = kvm_engine_of(e);
    struct kvm_ioeventfd i = {.addr = addr,
                              .len = size,
                              .fd = fd,
                              .flags = (pio ? KVM_IOEVENTFD_FLAG_PIO : 0) | (add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN)};
    if (!size && !k->has_any_length_eventfd)
        return -ENOTSUP;
    return ioctl(k->vm, KVM_IOEVENTFD, &i) < 0 ? -errno : 0;
}

static int set_chips(struct kvm_engine *k, const struct kvm_irqchip chip[3], const struct kvm_pit_state2 *pit,
                     struct err *err)
{
    for (unsigned n = 0; n < 3; n++) {
        struct kvm_irqchip c = chip[n];
        c.chip_id = n;
        if (ioctl(k->vm, KVM_SET_IRQCHIP, &c) < 0)
            return err_errno(err, -errno, "KVM_SET_IRQCHIP");
    }
    return ioctl(k->vm, KVM_SET_PIT2, pit) < 0 ? err_errno(err, -errno, "KVM_SET_PIT2") : 0;
}

int kvm_irqchip_reset(struct engine *e, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(e);
    int r = set_chips(k, k->irq_reset.chip, &k->irq_reset.pit, err);
    for (unsigned n = 0; r >= 0 && n < e->cfg.cpus; n++)
        if (k->cpu[n] && ioctl(k->cpu[n]->fd, KVM_SET_LAPIC, &k->cpu[n]->lapic_reset) < 0)
            r = err_errno(err, -errno, "KVM_SET_LAPIC");
    return r;
}
