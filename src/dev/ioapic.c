/*
 * 82093AA data sheet (290566); the EOI register is that of later chip sets (ICH10 data sheet, 13.5.6). One lock;
 * messages are sent with it held, and local APICs never call back but through ioapic_eoi(), which they call with no
 * lock.
 */
#include "dev/ioapic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"

#define RTE_STATUS BIT64(12) /* delivery status: always idle here */
#define RTE_REMOTE_IRR BIT64(14)
#define RTE_LEVEL BIT64(15)
#define RTE_MASKED BIT64(16)
/* Vector, delivery and destination mode, polarity, trigger, mask, destination, and the 7 destination bits above it. */
#define RTE_WRITABLE (0xfffe000000000000ull | 0x1ffffull)

struct ioapic {
    struct device dev;
    pthread_mutex_t lock;
    struct msi_sink msi;
    uint8_t reset_id;
    uint8_t select; /* IOREGSEL */
    uint32_t apic_id;
    uint32_t lines; /* bit n: input n is high */
    uint64_t rte[IOAPIC_PINS];
};

static void send(struct ioapic *io, unsigned pin)
{
    uint64_t e = io->rte[pin];
    uint64_t addr = 0xfee00000 | (e >> 56) << 12 | (e >> 49 & 0x7f) << 5 | (e >> 11 & 1) << 2;
    uint32_t data = (uint32_t)(e & 0x7ff) | 1u << 14 | (uint32_t)(e & RTE_LEVEL);
    if (io->msi.send)
        msi_send(&io->msi, addr, data);
}

/* Sends a level interrupt that is high, unmasked and not yet in service. */
static void service_level(struct ioapic *io, unsigned pin)
{
    uint64_t *e = &io->rte[pin];
    if ((io->lines & BIT(pin)) && (*e & RTE_LEVEL) && !(*e & (RTE_MASKED | RTE_REMOTE_IRR))) {
        *e |= RTE_REMOTE_IRR;
        send(io, pin);
    }
}

static void set_pin(void *opaque, unsigned pin, int level)
{
    struct ioapic *io = opaque;
    if (pin >= IOAPIC_PINS)
        return;
    pthread_mutex_lock(&io->lock);
    bool was = io->lines & BIT(pin);
    if (level)
        io->lines |= BIT(pin);
    else
        io->lines &= ~BIT(pin);
    if (io->rte[pin] & RTE_LEVEL)
        service_level(io, pin);
    else if (level && !was && !(io->rte[pin] & RTE_MASKED))
        send(io, pin); /* an edge while masked is lost, as in the chip */
    pthread_mutex_unlock(&io->lock);
}

struct irq ioapic_irq(struct ioapic *io, unsigned pin)
{
    return (struct irq){set_pin, io, pin};
}

static void end_vector(struct ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((io->rte[pin] & RTE_REMOTE_IRR) && (io->rte[pin] & 0xff) == vector) {
            io->rte[pin] &= ~RTE_REMOTE_IRR;
            service_level(io, pin);
        }
    }
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
    pthread_mutex_lock(&io->lock);
    end_vector(io, vector);
    pthread_mutex_unlock(&io->lock);
}

static void write_rte(struct ioapic *io, unsigned pin, bool high, uint32_t val)
{
    uint64_t *e = &io->rte[pin];
    uint64_t new = high ? (*e & 0xffffffff) | (uint64_t)val << 32 : (*e & ~0xffffffffull) | val;
    *e = (new &RTE_WRITABLE & ~(RTE_STATUS | RTE_REMOTE_IRR)) | (*e & RTE_REMOTE_IRR);
    if (!(*e & RTE_LEVEL))
        *e &= ~RTE_REMOTE_IRR;
    service_level(io, pin);
}

static uint32_t read_window(const struct ioapic *io)
{
    switch (io->select) {
    case 0: /* IOAPICID */
    case 2: /* IOAPICARB */
        return io->apic_id << 24;
    case 1: /* IOAPICVER */
        return (IOAPIC_PINS - 1) << 16 | 0x20;
    default:
        if (io->select < 0x10 || io->select >= 0x10 + 2 * IOAPIC_PINS)
            return 0;
        return (uint32_t)(io->rte[(io->select - 0x10) / 2] >> (io->select & 1 ? 32 : 0));
    }
}

static uint64_t ioapic_read(void *opaque, uint64_t off, unsigned size)
{
    struct ioapic *io = opaque;
    uint32_t val = 0;
    pthread_mutex_lock(&io->lock);
    if ((off & 0xfc) == 0x00)
        val = io->select;
    else if ((off & 0xfc) == 0x10)
        val = read_window(io);
    pthread_mutex_unlock(&io->lock);
    return (uint64_t)val >> (off & 3) * 8;
}

static void ioapic_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct ioapic *io = opaque;
    pthread_mutex_lock(&io->lock);
    switch (off & 0xff) {
    case 0x00:
        io->select = (uint8_t)val;
        break;
    case 0x10:
        if (size != 4)
            break;
        if (io->select == 0)
            io->apic_id = val >> 24 & 0xf;
        else if (io->select >= 0x10 && io->select < 0x10 + 2 * IOAPIC_PINS)
            write_rte(io, (io->select - 0x10) / 2, io->select & 1, (uint32_t)val);
        break;
    case 0x40:
        end_vector(io, (uint8_t)val);
        break;
    }
    pthread_mutex_unlock(&io->lock);
}

static const struct bus_ops ioapic_ops = {ioapic_read, ioapic_write, 1, 4};

int ioapic_map(struct ioapic *io, struct bus *mmio, uint64_t base, struct err *err)
{
    return bus_map(mmio, "ioapic", base, IOAPIC_SIZE, &ioapic_ops, io, err);
}

static void ioapic_reset(struct device *dev)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    pthread_mutex_lock(&io->lock);
    io->select = 0;
    io->apic_id = io->reset_id;
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        io->rte[i] = RTE_MASKED;
    pthread_mutex_unlock(&io->lock);
}

static void ioapic_destroy(struct device *dev)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    pthread_mutex_destroy(&io->lock);
    free(io);
}

static int ioapic_post_load(void *obj, uint32_t version, struct err *err)
{
    struct ioapic *io = obj;
    if (io->apic_id > 0xf || io->lines >> IOAPIC_PINS)
        return err_set(err, -EINVAL, "ioapic: register values that cannot be");
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        io->rte[i] &= RTE_WRITABLE & ~RTE_STATUS;
    return 0;
}

void ioapic_get(struct ioapic *io, struct irqchip_ioapic *ret)
{
    pthread_mutex_lock(&io->lock);
    *ret = (struct irqchip_ioapic){.select = io->select, .id = (uint8_t)io->apic_id, .lines = io->lines};
    memcpy(ret->rte, io->rte, sizeof ret->rte);
    pthread_mutex_unlock(&io->lock);
}

int ioapic_set(struct ioapic *io, const struct irqchip_ioapic *s, struct err *err)
{
    _Static_assert(IOAPIC_PINS == IRQCHIP_PINS, "one chip");
    pthread_mutex_lock(&io->lock);
    io->select = s->select;
    io->apic_id = s->id;
    io->lines = s->lines;
    memcpy(io->rte, s->rte, sizeof io->rte);
    int ret = ioapic_post_load(io, 1, err);
    pthread_mutex_unlock(&io->lock);
    return ret;
}

static const struct state_field ioapic_fields[] = {
    STATE_U(struct ioapic, select),
    STATE_U(struct ioapic, apic_id),
    STATE_U(struct ioapic, lines),
    STATE_ARRAY(struct ioapic, rte),
    STATE_END,
};
static const struct state_desc ioapic_state = {"ioapic", 1, 1, ioapic_fields, NULL, ioapic_post_load};

const struct device_type ioapic_type = {
    .name = "ioapic",
    .summary = "82093AA I/O APIC",
    .state = &ioapic_state,
    .reset = ioapic_reset,
    .destroy = ioapic_destroy,
};

void ioapic_new(const struct ioapic_config *cfg, struct ioapic **ret)
{
    struct ioapic *io = xcalloc(1, sizeof *io);
    device_init(&io->dev, &ioapic_type, cfg->id);
    pthread_mutex_init(&io->lock, NULL);
    io->msi = cfg->msi;
    io->reset_id = cfg->apic_id & 0xf;
    ioapic_reset(&io->dev);
    *ret = io;
}

struct device *ioapic_device(struct ioapic *io)
{
    return &io->dev;
}
