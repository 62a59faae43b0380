/*
 * PC16550D (National Semiconductor, June 1995). Ports come from vCPU threads, the character device and the receive
 * timeout from the loop's thread; one lock. The interrupt line and chardev_write() are called with the lock held:
 * neither calls back.
 */
#include "dev/uart.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"

#define FIFO 16

enum { IER_RDI = 1, IER_THRI = 2, IER_RLSI = 4, IER_MSI = 8 };
enum { IIR_NONE = 1, IIR_MSI = 0, IIR_THRI = 2, IIR_RDI = 4, IIR_RLSI = 6, IIR_TIMEOUT = 12, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum { LSR_DR = 1, LSR_OE = 2, LSR_BI = 16, LSR_THRE = 32, LSR_TEMT = 64, LSR_FIFO_ERROR = 128, LSR_ERRORS = 0x1e };
enum { MSR_DCTS = 1, MSR_DDSR = 2, MSR_TERI = 4, MSR_DDCD = 8, MSR_CTS = 16, MSR_DSR = 32, MSR_RI = 64, MSR_DCD = 128 };

struct queue {
    uint8_t data[FIFO];
    uint8_t error[FIFO]; /* LSR bits that come with the byte */
    uint8_t head, len;
};

struct uart {
    struct device dev;
    pthread_mutex_t lock;
    struct chardev *chardev;
    const struct clock *clock;
    struct timer timer;
    struct irq irq;
    struct bus_ops ops;
    unsigned stride_shift;

    uint8_t ier, fcr, lcr, mcr, scr, msr;
    uint8_t overrun;     /* LSR.OE */
    uint8_t error;       /* LSR error bits of the byte at the top of the receive FIFO, until LSR is read */
    uint8_t thr_pending; /* transmitter-empty interrupt */
    uint8_t timed_out;   /* receive timeout interrupt */
    uint16_t divisor;
    uint64_t timeout_at; /* guest ns, 0 none */
    struct queue rx, tx;
};

static void push(struct queue *q, uint8_t byte, uint8_t error)
{
    unsigned i = (q->head + q->len) % FIFO;
    q->data[i] = byte;
    q->error[i] = error;
    q->len++;
}

static uint8_t pop(struct queue *q)
{
    uint8_t byte = q->data[q->head];
    q->head = (q->head + 1) % FIFO;
    q->len--;
    return byte;
}

static unsigned depth(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO : 1;
}

static unsigned trigger(const struct uart *u)
{
    static const uint8_t level[4] = {1, 4, 8, 14};
    return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* The interrupt that IIR reports: the most urgent one that is enabled (data sheet, table IV). */
static uint8_t source(const struct uart *u)
{
    if ((u->ier & IER_RLSI) && (u->error || u->overrun))
        return IIR_RLSI;
    if ((u->ier & IER_RDI) && u->rx.len >= trigger(u))
        return IIR_RDI;
    if ((u->ier & IER_RDI) && u->timed_out)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THRI) && u->thr_pending)
        return IIR_THRI;
    if ((u->ier & IER_MSI) && (u->msr & 0xf))
        return IIR_MSI;
    return IIR_NONE;
}

static void update(struct uart *u)
{
    irq_set(u->irq, source(u) != IIR_NONE);
}

/* Four character times after the FIFO last changed, if it holds something. */
static void restart_timeout(struct uart *u)
{
    u->timed_out = 0;
    if (!u->rx.len || !(u->fcr & FCR_ENABLE)) {
        u->timeout_at = 0;
        timer_cancel(&u->timer);
        return;
    }
    unsigned bits = 1 + 5 + (u->lcr & 3) + (u->lcr >> 2 & 1) + 1 + (u->lcr >> 3 & 1);
    uint64_t divisor = u->divisor ? u->divisor : 1;
    u->timeout_at = clock_now(u->clock) + 4 * bits * divisor * NSEC_PER_SEC / 115200;
    timer_arm(&u->timer, u->timeout_at);
}

static void timeout(void *opaque)
{
    struct uart *u = opaque;
    pthread_mutex_lock(&u->lock);
    if (u->timeout_at && clock_now(u->clock) >= u->timeout_at) {
        u->timeout_at = 0;
        u->timed_out = u->rx.len != 0;
        update(u);
    }
    pthread_mutex_unlock(&u->lock);
}

/* With room checked, or not: a byte too many is an overrun. */
static void receive(struct uart *u, uint8_t byte, uint8_t error)
{
    if (u->rx.len >= depth(u)) {
        u->overrun = 1;
        if (u->fcr & FCR_ENABLE)
            return;
        u->rx.len = 0; /* without FIFO the new byte replaces the old one */
    }
    if (!u->rx.len)
        u->error = error;
    push(&u->rx, byte, error);
    restart_timeout(u);
}

/* Gives the transmit FIFO to the character device, as far as it takes it. */
static void transmit(struct uart *u)
{
    bool had = u->tx.len;
    while (u->tx.len) {
        unsigned run = MIN(u->tx.len, FIFO - u->tx.head);
        size_t n = u->chardev ? chardev_write(u->chardev, u->tx.data + u->tx.head, run) : run;
        n = MIN(n, run);
        u->tx.head = (uint8_t)((u->tx.head + n) % FIFO);
        u->tx.len -= (uint8_t)n;
        if (n < run)
            break;
    }
    if (had && !u->tx.len)
        u->thr_pending = 1;
}

static void write_thr(struct uart *u, uint8_t byte)
{
    u->thr_pending = 0;
    if (u->mcr & MCR_LOOP) {
        receive(u, byte, 0);
        u->thr_pending = 1;
        return;
    }
    if (u->tx.len >= depth(u))
        return; /* the guest did not look at LSR */
    push(&u->tx, byte, 0);
    transmit(u);
}

/* The modem lines now; what changed goes into the delta bits. */
static void set_modem_lines(struct uart *u)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, old = u->msr;
    if (u->mcr & MCR_LOOP)
        lines = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) | (u->mcr & MCR_OUT1 ? MSR_RI : 0) |
                (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t delta = (old ^ lines) >> 4 & (MSR_DCTS | MSR_DDSR | MSR_DDCD);
    if ((old & MSR_RI) && !(lines & MSR_RI))
        delta |= MSR_TERI;
    u->msr = lines | (old & 0xf) | delta;
}

static void write_fcr(struct uart *u, uint8_t val)
{
    if ((val ^ u->fcr) & FCR_ENABLE)
        val |= FCR_CLEAR_RX | FCR_CLEAR_TX;
    u->fcr = val & FCR_ENABLE ? val & (FCR_ENABLE | 0xc0) : 0;
    if (val & FCR_CLEAR_RX) {
        u->rx.len = 0;
        u->error = 0;
        restart_timeout(u);
    }
    if ((val & FCR_CLEAR_TX) && u->tx.len) {
        u->tx.len = 0;
        u->thr_pending = 1;
    }
}

static uint8_t read_rbr(struct uart *u)
{
    if (!u->rx.len)
        return 0;
    uint8_t byte = pop(&u->rx);
    u->error = u->rx.len ? u->rx.error[u->rx.head] : 0;
    restart_timeout(u);
    return byte;
}

static uint8_t read_lsr(struct uart *u)
{
    uint8_t val =
        u->error | (u->overrun ? LSR_OE : 0) | (u->rx.len ? LSR_DR : 0) | (u->tx.len ? 0 : LSR_THRE | LSR_TEMT);
    if (u->fcr & FCR_ENABLE)
        for (unsigned i = 0; i < u->rx.len; i++)
            if (u->rx.error[(u->rx.head + i) % FIFO])
                val |= LSR_FIFO_ERROR;
    if (u->rx.len)
        u->rx.error[u->rx.head] = 0;
    u->error = u->overrun = 0;
    return val;
}

static uint64_t uart_read(void *opaque, uint64_t off, unsigned size)
{
    struct uart *u = opaque;
    uint8_t val = 0;
    bool room = false;
    if (off & ((1u << u->stride_shift) - 1))
        return 0;
    pthread_mutex_lock(&u->lock);
    switch (off >> u->stride_shift & 7) {
    case 0:
        if (u->lcr & LCR_DLAB) {
            val = (uint8_t)u->divisor;
        } else {
            room = u->rx.len;
            val = read_rbr(u);
        }
        break;
    case 1:
        val = u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
        break;
    case 2:
        val = source(u);
        if (val == IIR_THRI)
            u->thr_pending = 0;
        if (u->fcr & FCR_ENABLE)
            val |= IIR_FIFO;
        break;
    case 3:
        val = u->lcr;
        break;
    case 4:
        val = u->mcr;
        break;
    case 5:
        val = read_lsr(u);
        break;
    case 6:
        val = u->msr;
        u->msr &= 0xf0;
        break;
    case 7:
        val = u->scr;
        break;
    }
    update(u);
    pthread_mutex_unlock(&u->lock);
    if (room && u->chardev)
        chardev_accept_input(u->chardev);
    return val;
}

static void uart_write(void *opaque, uint64_t off, unsigned size, uint64_t v)
{
    struct uart *u = opaque;
    uint8_t val = (uint8_t)v;
    bool room = false;
    if (off & ((1u << u->stride_shift) - 1))
        return;
    pthread_mutex_lock(&u->lock);
    switch (off >> u->stride_shift & 7) {
    case 0:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u->divisor & 0xff00) | val;
        else
            write_thr(u, val);
        break;
    case 1:
        if (u->lcr & LCR_DLAB) {
            u->divisor = (uint16_t)((u->divisor & 0xff) | val << 8);
        } else {
            /* Enabling the interrupt while the transmitter is empty raises it: drivers start output with that. */
            if ((val & IER_THRI) && !(u->ier & IER_THRI) && !u->tx.len)
                u->thr_pending = 1;
            u->ier = val & 0xf;
        }
        break;
    case 2:
        write_fcr(u, val);
        room = true;
        break;
    case 3:
        u->lcr = val;
        break;
    case 4:
        u->mcr = val & 0x1f;
        set_modem_lines(u);
        room = true;
        break;
    case 7:
        u->scr = val;
        break;
    }
    update(u);
    pthread_mutex_unlock(&u->lock);
    if (room && u->chardev)
        chardev_accept_input(u->chardev);
}

int uart_map(struct uart *u, struct bus *bus, uint64_t base, unsigned stride, struct err *err)
{
    if (stride != 1 && stride != 4)
        return err_set(err, -EINVAL, "uart: registers cannot be %u bytes apart", stride);
    u->stride_shift = stride == 4 ? 2 : 0;
    u->ops = (struct bus_ops){uart_read, uart_write, 1, (uint8_t)stride};
    return bus_map(bus, u->dev.id, base, 8 * stride, &u->ops, u, err);
}

/* ---- the character device's side, on the loop's thread ---- */

static size_t front_can_receive(void *opaque)
{
    struct uart *u = opaque;
    pthread_mutex_lock(&u->lock);
    size_t room = u->mcr & MCR_LOOP || u->rx.len >= depth(u) ? 0 : depth(u) - u->rx.len;
    pthread_mutex_unlock(&u->lock);
    return room;
}

static void front_receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct uart *u = opaque;
    pthread_mutex_lock(&u->lock);
    for (size_t i = 0; i < len; i++)
        receive(u, buf[i], 0);
    update(u);
    pthread_mutex_unlock(&u->lock);
}

static void front_writable(void *opaque)
{
    struct uart *u = opaque;
    pthread_mutex_lock(&u->lock);
    transmit(u);
    update(u);
    pthread_mutex_unlock(&u->lock);
}

static void front_event(void *opaque, enum chardev_event event)
{
    struct uart *u = opaque;
    if (event != CHARDEV_BREAK)
        return;
    pthread_mutex_lock(&u->lock);
    receive(u, 0, LSR_BI);
    update(u);
    pthread_mutex_unlock(&u->lock);
}

static const struct chardev_frontend uart_frontend = {
    .can_receive = front_can_receive,
    .receive = front_receive,
    .writable = front_writable,
    .event = front_event,
};

static void clear(struct uart *u)
{
    u->ier = u->fcr = u->lcr = u->scr = u->overrun = u->error = u->thr_pending = 0;
    u->mcr = 0;
    u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    u->divisor = 12; /* 9600 baud */
    u->rx = u->tx = (struct queue){0};
    restart_timeout(u);
    update(u);
}

static void uart_reset(struct device *dev)
{
    struct uart *u = container_of(dev, struct uart, dev);
    pthread_mutex_lock(&u->lock);
    clear(u);
    pthread_mutex_unlock(&u->lock);
    if (u->chardev)
        chardev_accept_input(u->chardev);
}

static void uart_destroy(struct device *dev)
{
    struct uart *u = container_of(dev, struct uart, dev);
    if (u->chardev)
        chardev_set_frontend(u->chardev, NULL, NULL);
    timer_cancel(&u->timer);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

static int uart_post_load(void *obj, uint32_t version, struct err *err)
{
    struct uart *u = obj;
    if (u->rx.head >= FIFO || u->rx.len > FIFO || u->tx.head >= FIFO || u->tx.len > FIFO)
        return err_set(err, -EINVAL, "%s: FIFO positions that cannot be", u->dev.id);
    u->ier &= 0xf;
    u->mcr &= 0x1f;
    if (u->timeout_at)
        timer_arm(&u->timer, u->timeout_at);
    else
        timer_cancel(&u->timer);
    transmit(u);
    update(u);
    if (u->chardev)
        chardev_accept_input(u->chardev);
    return 0;
}

static const struct state_field uart_fields[] = {
    STATE_U(struct uart, ier),       STATE_U(struct uart, fcr),     STATE_U(struct uart, lcr),
    STATE_U(struct uart, mcr),       STATE_U(struct uart, scr),     STATE_U(struct uart, msr),
    STATE_U(struct uart, overrun),   STATE_U(struct uart, error),   STATE_U(struct uart, thr_pending),
    STATE_U(struct uart, timed_out), STATE_U(struct uart, divisor), STATE_U(struct uart, timeout_at),
    STATE_RAW(struct uart, rx),      STATE_RAW(struct uart, tx),    STATE_END,
};
static const struct state_desc uart_state = {"uart", 1, 1, uart_fields, NULL, uart_post_load};

const struct device_type uart_type = {
    .name = "uart",
    .summary = "16550A serial port",
    .state = &uart_state,
    .reset = uart_reset,
    .destroy = uart_destroy,
};

void uart_new(const struct uart_config *cfg, struct uart **ret)
{
    struct uart *u = xcalloc(1, sizeof *u);
    device_init(&u->dev, &uart_type, cfg->id);
    pthread_mutex_init(&u->lock, NULL);
    u->chardev = cfg->chardev;
    u->clock = cfg->clock;
    u->irq = cfg->irq;
    timer_init(&u->timer, cfg->loop, cfg->clock, timeout, u);
    clear(u);
    *ret = u;
    if (u->chardev)
        chardev_set_frontend(u->chardev, &uart_frontend, u);
}

struct device *uart_device(struct uart *u)
{
    return &u->dev;
}
