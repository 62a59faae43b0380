/*
 * Interrupt lines and messages as values. A device holds a struct irq and sets its level; who listens is the board's business
 * (an interrupt controller in user space, KVM's, or a test). Levels, not pulses: an edge is 1 then 0.
 */
#ifndef LODGE_DEV_IRQ_H
#define LODGE_DEV_IRQ_H

#include <stdint.h>

struct irq {
    void (*set)(void *opaque, unsigned n, int level);
    void *opaque;
    unsigned n;
};

static inline void irq_set(struct irq irq, int level)
{
    if (irq.set)
        irq.set(irq.opaque, irq.n, level);
}
static inline void irq_pulse(struct irq irq)
{
    irq_set(irq, 1);
    irq_set(irq, 0);
}

/*
 * Where message-signalled interrupts go: address and data as the guest programmed them (Intel SDM 3A, 11.11).
 * bind_fd (optional): from now on a write to the eventfd `fd` is this message, without a thread of ours in between (KVM irqfd);
 * -ENOTSUP where that does not exist. unbind_fd ends it.
 */
struct msi_sink {
    void (*send)(void *opaque, uint64_t addr, uint32_t data);
    int (*bind_fd)(void *opaque, int fd, uint64_t addr, uint32_t data);
    void (*unbind_fd)(void *opaque, int fd);
    void *opaque;
};

static inline void msi_send(const struct msi_sink *sink, uint64_t addr, uint32_t data)
{
    sink->send(sink->opaque, addr, data);
}

#endif
