/*
 * virtio-console. Port p has two queues: 0 and 1 for port 0, else 2p+2 (host to guest) and 2p+3 (guest to host); 2 and
 * 3 carry control messages about ports (5.3.6.2). A console alone is offered without MULTIPORT: then its size stands in
 * the configuration space, which every driver reads the same way.
 *
 * All on the loop of queues and character devices, but config and resize. Control messages that wait for a buffer are
 * bits in `pending`, guarded by the lock of queue 2: so their number is bounded whatever a guest does.
 */
#include "dev/virtio/console.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"

#define F_SIZE BIT64(0)
#define F_MULTIPORT BIT64(1)
#define F_EMERG_WRITE BIT64(2)

#define QUEUE_SIZE 128
#define CTRL_RX 2
#define CTRL_TX 3
#define NAME_MAX_LEN 127

/* Control events (5.3.6.2) */
enum {
    DEVICE_READY = 0,
    DEVICE_ADD = 1,
    PORT_READY = 3,
    CONSOLE_PORT = 4,
    RESIZE = 5,
    PORT_OPEN = 6,
    PORT_NAME = 7,
};
/* The order in which a port's waiting messages are sent. */
static const uint8_t event_order[] = {DEVICE_ADD, CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN};

struct port {
    struct virtio_console *con;
    unsigned index;
    struct chardev *chr;
    char *name; /* NULL: a console */
    _Atomic bool host_open;
    _Atomic uint32_t size; /* cols | rows << 16 */
};

struct virtio_console {
    struct virtio_dev virtio; /* first */
    struct virtq_elem *elem;  /* the loop's */
    unsigned nports;
    struct port port[VIRTIO_CONSOLE_PORTS_MAX];

    /* Guest-visible. */
    _Atomic uint8_t ready;                                /* the driver has asked for the ports */
    uint8_t pending[VIRTIO_CONSOLE_PORTS_MAX];            /* BIT(event) */
    _Atomic uint8_t guest_open[VIRTIO_CONSOLE_PORTS_MAX]; /* the guest has it open */
    uint32_t tx_done[VIRTIO_CONSOLE_PORTS_MAX];           /* bytes of the next transmit buffer that are gone already */
};

static bool multiport(struct virtio_console *c)
{
    return virtio_has_feature(&c->virtio, F_MULTIPORT);
}

static struct virtq *rx_queue(struct port *p)
{
    return &p->con->virtio.queues[p->index ? 2 * p->index + 2 : 0];
}

static struct virtq *tx_queue(struct port *p)
{
    return rx_queue(p) + 1;
}

/* ---- control messages ---- */

/* Has a message sent, soon; a driver that has not asked for the ports yet will be told everything then. */
static void post(struct virtio_console *c, unsigned port, unsigned event)
{
    if (!atomic_load(&c->ready))
        return;
    struct virtq *q = &c->virtio.queues[CTRL_RX];
    virtq_lock(q);
    c->pending[port] |= BIT(event);
    virtq_unlock(q);
    virtio_kick(&c->virtio, CTRL_RX);
}

static size_t message(struct port *p, unsigned event, uint8_t buf[8 + NAME_MAX_LEN])
{
    size_t len = 8;
    uint16_t value = 1;
    if (event == PORT_NAME) {
        memcpy(buf + len, p->name, strlen(p->name));
        len += strlen(p->name);
    } else if (event == RESIZE) {
        le32_put(buf + len, atomic_load(&p->size)); /* cols, rows */
        len += 4;
    } else if (event == PORT_OPEN) {
        value = atomic_load(&p->host_open);
    }
    le32_put(buf, p->index);
    le16_put(buf + 4, (uint16_t)event);
    le16_put(buf + 6, value);
    return len;
}

/* Sends what is pending as far as there are buffers. Lock of queue 2 held. */
static void control_flush(struct virtio_console *c, struct virtq *q)
{
    uint8_t buf[8 + NAME_MAX_LEN];
    for (unsigned i = 0; i < c->nports; i++) {
        for (unsigned k = 0; k < ARRAY_SIZE(event_order) && c->pending[i]; k++) {
            if (!(c->pending[i] & BIT(event_order[k])))
                continue;
            if (virtq_pop(q, c->elem) <= 0)
                goto out;
            c->pending[i] &= ~BIT(event_order[k]);
            size_t len = message(&c->port[i], event_order[k], buf);
            virtq_push(q, c->elem, (uint32_t)virtq_write(c->elem, 0, buf, len));
        }
    }
out:
    virtq_notify(q);
}

static void control_message(struct virtio_console *c, uint32_t id, unsigned event, unsigned value)
{
    if (event == DEVICE_READY) {
        atomic_store(&c->ready, value == 1);
        for (unsigned i = 0; i < c->nports; i++)
            post(c, i, DEVICE_ADD);
        return;
    }
    if (id >= c->nports)
        return;
    struct port *p = &c->port[id];
    if (event == PORT_READY && value == 1) {
        if (p->name) {
            post(c, id, PORT_NAME);
        } else {
            post(c, id, CONSOLE_PORT);
            if (atomic_load(&p->size))
                post(c, id, RESIZE);
        }
        if (atomic_load(&p->host_open))
            post(c, id, PORT_OPEN);
    } else if (event == PORT_OPEN) {
        atomic_store(&c->guest_open[id], value == 1);
        if (value == 1)
            chardev_accept_input(p->chr);
    }
}

static void control_run(struct virtio_console *c, struct virtq *q)
{
    uint8_t b[8];
    do {
        virtq_disable_notify(q);
        while (virtq_pop(q, c->elem) > 0) {
            if (virtq_read(c->elem, 0, b, 8) == 8)
                control_message(c, le32_get(b), le16_get(b + 4), le16_get(b + 6));
            virtq_push(q, c->elem, 0);
        }
    } while (virtq_enable_notify(q));
    virtq_notify(q);
}

/* ---- guest to host ---- */

static void tx_run(struct port *p, struct virtq *q)
{
    struct virtio_console *c = p->con;
    uint32_t *done = &c->tx_done[p->index];
    uint8_t buf[4096];
    do {
        virtq_disable_notify(q);
        while (virtq_pop(q, c->elem) > 0) {
            size_t n;
            while ((n = virtq_read(c->elem, *done, buf, sizeof buf)) > 0) {
                size_t taken = chardev_write(p->chr, buf, n);
                *done += (uint32_t)taken;
                if (taken < n) {
                    /* writable() goes on with the rest of this buffer. */
                    virtq_unpop(q, c->elem);
                    virtq_notify(q);
                    return;
                }
            }
            *done = 0;
            virtq_push(q, c->elem, 0);
        }
    } while (virtq_enable_notify(q));
    virtq_notify(q);
}

static void on_writable(void *opaque)
{
    struct port *p = opaque;
    struct virtq *q = tx_queue(p);
    if (!virtq_enter(q))
        return;
    tx_run(p, q);
    virtq_leave(q);
}

/* ---- host to guest ---- */

static size_t on_can_receive(void *opaque)
{
    struct port *p = opaque;
    struct virtq *q = rx_queue(p);
    struct virtq_elem *e = p->con->elem;
    size_t room = 0;
    if (!virtq_enter(q))
        return 0;
    if ((!multiport(p->con) || atomic_load(&p->con->guest_open[p->index])) && virtq_pop(q, e) > 0) {
        room = e->in_len;
        virtq_unpop(q, e);
        if (!room)
            virtq_break(q, "receive buffer is empty");
    }
    virtq_leave(q);
    return room;
}

static void on_receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct port *p = opaque;
    struct virtq *q = rx_queue(p);
    struct virtq_elem *e = p->con->elem;
    /* Between on_can_receive() and now only a reset may have come: then nobody waits for this. */
    if (!virtq_enter(q))
        return;
    while (len && virtq_pop(q, e) > 0) {
        size_t n = virtq_write(e, 0, buf, len);
        virtq_push(q, e, (uint32_t)n);
        buf += n;
        len -= n;
    }
    virtq_notify(q);
    virtq_leave(q);
}

static void on_event(void *opaque, enum chardev_event event)
{
    struct port *p = opaque;
    if (event == CHARDEV_BREAK || !p->name)
        return; /* a console is there, whether somebody looks at it or not */
    atomic_store(&p->host_open, event == CHARDEV_OPENED);
    post(p->con, p->index, PORT_OPEN);
}

static const struct chardev_frontend frontend = {
    .can_receive = on_can_receive,
    .receive = on_receive,
    .writable = on_writable,
    .event = on_event,
};

static void notify(struct virtq *q)
{
    struct virtio_console *c = (struct virtio_console *)q->dev;
    if (q->index == CTRL_RX) {
        control_flush(c, q);
    } else if (q->index == CTRL_TX) {
        control_run(c, q);
    } else {
        struct port *p = &c->port[q->index > CTRL_TX ? (q->index - 2) / 2 : 0];
        if (q->index % 2)
            tx_run(p, q);
        else
            chardev_accept_input(p->chr);
    }
}

/* ---- configuration, state, life ---- */

static void config_get(struct virtio_dev *dev, uint8_t *config)
{
    struct virtio_console *c = (struct virtio_console *)dev;
    le32_put(config, atomic_load(&c->port[0].size)); /* cols, rows */
    le32_put(config + 4, c->nports);
}

static void config_set(struct virtio_dev *dev, unsigned off, unsigned len, const uint8_t *data)
{
    struct virtio_console *c = (struct virtio_console *)dev;
    if (off == 8)
        chardev_write(c->port[0].chr, data, 1);
}

static void reset(struct virtio_dev *dev)
{
    struct virtio_console *c = (struct virtio_console *)dev;
    struct virtq *q = &dev->queues[dev->nqueues > CTRL_RX ? CTRL_RX : 0];
    virtq_lock(q);
    atomic_store(&c->ready, 0);
    memset(c->pending, 0, sizeof c->pending);
    virtq_unlock(q);
    memset(c->tx_done, 0, sizeof c->tx_done);
    for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS_MAX; i++)
        atomic_store(&c->guest_open[i], 0);
}

static const struct virtio_ops console_ops = {
    .notify = notify,
    .config_get = config_get,
    .config_set = config_set,
    .reset = reset,
};

void virtio_console_resize(struct virtio_dev *dev, unsigned port, uint16_t cols, uint16_t rows)
{
    struct virtio_console *c = (struct virtio_console *)dev;
    if (port >= c->nports || c->port[port].name)
        return;
    uint32_t size = cols | (uint32_t)rows << 16;
    if (atomic_exchange(&c->port[port].size, size) == size)
        return;
    if (c->virtio.host_features & F_MULTIPORT)
        post(c, port, RESIZE);
    if (port == 0)
        virtio_config_changed(dev);
}

static void destroy(struct device *dev)
{
    struct virtio_console *c = (struct virtio_console *)dev;
    for (unsigned i = 0; i < c->nports; i++)
        chardev_set_frontend(c->port[i].chr, NULL, NULL);
    virtio_fini(&c->virtio);
    for (unsigned i = 0; i < c->nports; i++)
        free(c->port[i].name);
    free(c->elem);
    free(c);
}

static int post_load(void *obj, uint32_t version, struct err *err)
{
    struct virtio_console *c = obj;
    uint8_t known = 0;
    for (unsigned k = 0; k < ARRAY_SIZE(event_order); k++)
        known |= BIT(event_order[k]);
    for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS_MAX; i++) {
        bool named = i < c->nports && c->port[i].name;
        if (c->pending[i] & ~(i < c->nports ? known & ~(named ? 0 : BIT(PORT_NAME)) : 0))
            return err_set(err, -EINVAL, "saved state of %s: messages of port %u cannot be", c->virtio.dev.id, i);
    }
    return virtio_post_load(obj, version, err);
}

static const struct state_field console_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_console, virtio), STATE_U(struct virtio_console, ready),
    STATE_ARRAY(struct virtio_console, pending),        STATE_ARRAY(struct virtio_console, guest_open),
    STATE_ARRAY(struct virtio_console, tx_done),        STATE_END,
};
static const struct state_desc console_state = {
    .name = "virtio-console",
    .version = 1,
    .min_version = 1,
    .fields = console_fields,
    .pre_save = virtio_pre_save,
    .post_load = post_load,
};

const struct device_type virtio_console_type = {
    .name = "virtio-console",
    .summary = "consoles and channels to the host",
    .state = &console_state,
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .destroy = destroy,
};

int virtio_console_new(const struct virtio_console_config *cfg, struct virtio_dev **ret, struct err *err)
{
    if (!cfg->nports || cfg->nports > VIRTIO_CONSOLE_PORTS_MAX)
        return err_set(err, -EINVAL, "%s: %u ports, 1 to %u are possible", cfg->id, cfg->nports,
                       VIRTIO_CONSOLE_PORTS_MAX);
    for (unsigned i = 0; i < cfg->nports; i++)
        if (cfg->ports[i].name && (!cfg->ports[i].name[0] || strlen(cfg->ports[i].name) > NAME_MAX_LEN))
            return err_set(err, -EINVAL, "%s: the name of a port has 1 to %d bytes", cfg->id, NAME_MAX_LEN);
    struct virtio_console *c = xcalloc(1, sizeof *c);
    bool multi = cfg->nports > 1 || cfg->ports[0].name;
    unsigned nqueues = multi ? 2 * cfg->nports + 2 : 2;
    virtio_init(&c->virtio, &virtio_console_type, cfg->id, VIRTIO_ID_CONSOLE, &console_ops, cfg->mem, nqueues, 12);
    c->virtio.host_features |= F_SIZE | F_EMERG_WRITE | (multi ? F_MULTIPORT : 0);
    c->elem = virtq_elem_new(QUEUE_SIZE);
    int code = 0;
    for (unsigned i = 0; i < nqueues && !code; i++)
        code = virtio_queue_init(&c->virtio, i, QUEUE_SIZE, cfg->loop, err);
    for (unsigned i = 0; i < cfg->nports && !code; i++) {
        struct port *p = &c->port[c->nports++];
        p->con = c;
        p->index = i;
        p->chr = cfg->ports[i].chr;
        p->name = cfg->ports[i].name ? xstrdup(cfg->ports[i].name) : NULL;
        atomic_init(&p->host_open, !p->name);
        chardev_set_frontend(p->chr, &frontend, p);
    }
    if (code < 0) {
        destroy(&c->virtio.dev);
        return code;
    }
    *ret = &c->virtio;
    return 0;
}
