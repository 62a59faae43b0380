/*
 * PCI's interrupt lines on the q35 board. PIRQA..D arrive at I/O APIC pins 16..19, and where the LPC bridge routes them to an ISA interrupt
 * (ICH9 data sheet, 13.1.14), at that one's 8259 input too, for systems without I/O APIC. Lines change on any thread, routes on vCPU threads.
 */
#include "machine/pirq.h"

#include <stdlib.h>

#include "base/fd.h"
#include "dev/pci_host.h"
#include "machine/machine.h"

#define FIRST_GSI 16
#define ROUTE_OFF 0x80
/* 0, 1, 2, 8 and 13 are reserved. */
#define ROUTABLE 0xdef8

struct pirq {
    struct vm *vm;
    pthread_mutex_t lock;
    uint8_t route[4];
    bool high[4];
    uint16_t driven; /* ISA interrupts that are high on our account */
};

/* With the lock. An ISA interrupt is high while one of the lines that lead to it is. */
static void drive(struct pirq *p)
{
    uint16_t want = 0;
    for (unsigned n = 0; n < 4; n++)
        if (p->high[n] && !(p->route[n] & ROUTE_OFF))
            want |= (uint16_t)BIT(p->route[n] & 15);
    want &= ROUTABLE;
    uint16_t changed = want ^ p->driven;
    p->driven = want;
    for (unsigned irq = 0; changed >> irq; irq++)
        if (changed & BIT(irq))
            irq_set(vm_gsi(p->vm, irq), (want & BIT(irq)) != 0);
}

static void set_line(void *opaque, unsigned n, int level)
{
    struct pirq *p = opaque;
    pthread_mutex_lock(&p->lock);
    p->high[n] = level != 0;
    irq_set(vm_gsi(p->vm, FIRST_GSI + n), level);
    drive(p);
    pthread_mutex_unlock(&p->lock);
}

struct irq pirq_line(struct pirq *p, unsigned n)
{
    return (struct irq){set_line, p, n};
}

void pirq_route(struct pirq *p, const uint8_t route[4])
{
    pthread_mutex_lock(&p->lock);
    memcpy(p->route, route, sizeof p->route);
    drive(p);
    pthread_mutex_unlock(&p->lock);
}

void pirq_assign(struct pirq *p)
{
    static const uint8_t isa[4] = PIRQ_ISA;
    pci_assign_irqs(p->vm->pci, isa);
    pci_config_write(p->vm->pci, LPC_DEVFN, LPC_PIRQA_ROUT, 4, le32_get(isa));
}

struct pirq *pirq_new(struct vm *vm)
{
    struct pirq *p = xcalloc(1, sizeof *p);
    p->vm = vm;
    memset(p->route, ROUTE_OFF, sizeof p->route);
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void pirq_free(struct pirq *p)
{
    if (!p)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}
