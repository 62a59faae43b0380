/*
 * 8042 with the PC/AT's firmware (IBM PS/2 Hardware Interface Technical Reference, keyboard and auxiliary device
 * controller). Ports come from vCPU threads, keys from any thread; one lock, held while lines are driven. The output
 * buffer is one byte: it is filled from the controller's own answer, else from the keyboard, else from the mouse,
 * whenever it is empty.
 */
#include "dev/i8042.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"
#include "dev/ps2.h"

enum { STR_OBF = 1, STR_SYS = 4, STR_CMD = 8, STR_UNLOCKED = 0x10, STR_AUX = 0x20 };
enum { CTR_KBD_INT = 1, CTR_AUX_INT = 2, CTR_SYS = 4, CTR_KBD_OFF = 0x10, CTR_AUX_OFF = 0x20, CTR_XLATE = 0x40 };
enum { OUT_NO_RESET = 1, OUT_A20 = 2, OUT_FIXED = 0xcc };

struct i8042 {
    struct device dev;
    pthread_mutex_t lock;
    struct i8042_config cfg;

    uint8_t ctr;                /* command byte */
    uint8_t command;            /* waits for its argument at port 0x60, 0 none */
    uint8_t last_cmd;           /* STR_CMD: the last write was to port 0x64 */
    uint8_t obf, obf_aux, data; /* the output buffer */
    uint8_t a20;
    uint8_t prefix_f0;        /* translation: a release prefix was swallowed */
    struct ps2_queue own;     /* the controller's answers */
    struct ps2_queue own_aux; /* looped back as if from the mouse */
    struct ps2_keyboard kbd;
    struct ps2_mouse mouse;
};

static void lines(struct i8042 *k)
{
    irq_set(k->cfg.keyboard, k->obf && !k->obf_aux && (k->ctr & CTR_KBD_INT));
    irq_set(k->cfg.mouse, k->obf && k->obf_aux && (k->ctr & CTR_AUX_INT));
}

static void offer(struct i8042 *k, uint8_t byte, uint8_t aux)
{
    k->data = byte;
    k->obf = 1;
    k->obf_aux = aux;
}

/* A byte of the keyboard: translated to set 1, where a release is bit 7 instead of a prefix. */
static void offer_key(struct i8042 *k)
{
    uint8_t byte = ps2_take(&k->kbd.out);
    k->kbd.last = byte;
    if (k->ctr & CTR_XLATE) {
        if (byte == 0xf0) {
            k->prefix_f0 = 0x80;
            if (!k->kbd.out.len)
                return;
            byte = ps2_take(&k->kbd.out);
        }
        byte = ps2_translate(byte) | k->prefix_f0;
        k->prefix_f0 = 0;
    }
    offer(k, byte, 0);
}

static void refill(struct i8042 *k)
{
    if (!k->obf) {
        if (k->own.len)
            offer(k, ps2_take(&k->own), 0);
        else if (k->own_aux.len)
            offer(k, ps2_take(&k->own_aux), 1);
        else if (k->kbd.out.len && !(k->ctr & CTR_KBD_OFF))
            offer_key(k);
        else if (k->mouse.out.len && !(k->ctr & CTR_AUX_OFF))
            offer(k, k->mouse.last = ps2_take(&k->mouse.out), 1);
    }
    lines(k);
}

static void set_a20(struct i8042 *k, bool on)
{
    k->a20 = on;
    irq_set(k->cfg.a20, on);
}

/* A command at port 0x64; true: the reset line was pulsed. */
static bool run_command(struct i8042 *k, uint8_t cmd)
{
    k->command = 0;
    switch (cmd) {
    case 0x20:
        ps2_put(&k->own, k->ctr);
        break;
    case 0x60: /* these take an argument */
    case 0xd1 ... 0xd4:
        k->command = cmd;
        break;
    case 0xa7:
        k->ctr |= CTR_AUX_OFF;
        break;
    case 0xa8:
        k->ctr &= ~CTR_AUX_OFF;
        break;
    case 0xa9: /* tests of the two interfaces: good */
    case 0xab:
        ps2_put(&k->own, 0x00);
        break;
    case 0xaa: /* self test */
        k->ctr |= CTR_SYS;
        ps2_put(&k->own, 0x55);
        break;
    case 0xad:
        k->ctr |= CTR_KBD_OFF;
        break;
    case 0xae:
        k->ctr &= ~CTR_KBD_OFF;
        break;
    case 0xc0: /* input port: keyboard not locked, manufacturing jumper not there */
        ps2_put(&k->own, 0xa0);
        break;
    case 0xd0:
        ps2_put(&k->own, (uint8_t)(OUT_FIXED | OUT_NO_RESET | (k->a20 ? OUT_A20 : 0)));
        break;
    case 0xdd:
        set_a20(k, false);
        break;
    case 0xdf:
        set_a20(k, true);
        break;
    case 0xf0 ... 0xff: /* pulses the output port bits that are 0 */
        return !(cmd & OUT_NO_RESET);
    }
    return false;
}

static bool write_data(struct i8042 *k, uint8_t val)
{
    uint8_t cmd = k->command;
    k->command = 0;
    switch (cmd) {
    case 0x60:
        k->ctr = val & 0x7f;
        break;
    case 0xd1:
        set_a20(k, val & OUT_A20);
        return !(val & OUT_NO_RESET);
    case 0xd2:
        ps2_put(&k->own, val);
        break;
    case 0xd3:
        ps2_put(&k->own_aux, val);
        break;
    case 0xd4:
        k->ctr &= ~CTR_AUX_OFF;
        ps2_mouse_write(&k->mouse, val);
        break;
    default:
        k->ctr &= ~CTR_KBD_OFF; /* a write to the keyboard turns its clock on */
        ps2_keyboard_write(&k->kbd, val);
    }
    return false;
}

static uint64_t data_read(void *opaque, uint64_t off, unsigned size)
{
    struct i8042 *k = opaque;
    pthread_mutex_lock(&k->lock);
    uint8_t val = k->data;
    k->obf = 0;
    lines(k); /* low between two bytes: the interrupt is an edge */
    refill(k);
    pthread_mutex_unlock(&k->lock);
    return val;
}

static uint64_t status_read(void *opaque, uint64_t off, unsigned size)
{
    struct i8042 *k = opaque;
    pthread_mutex_lock(&k->lock);
    uint8_t val = STR_UNLOCKED | k->last_cmd | (k->ctr & CTR_SYS ? STR_SYS : 0);
    if (k->obf)
        val |= STR_OBF | (k->obf_aux ? STR_AUX : 0);
    pthread_mutex_unlock(&k->lock);
    return val;
}

static void port_write(struct i8042 *k, bool command, uint8_t val)
{
    pthread_mutex_lock(&k->lock);
    k->last_cmd = command ? STR_CMD : 0;
    bool reset = command ? run_command(k, val) : write_data(k, val);
    refill(k);
    pthread_mutex_unlock(&k->lock);
    if (reset && k->cfg.reset)
        k->cfg.reset(k->cfg.opaque);
}

static void data_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    port_write(opaque, false, (uint8_t)val);
}
static void command_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    port_write(opaque, true, (uint8_t)val);
}

static const struct bus_ops data_ops = {data_read, data_write, 1, 1};
static const struct bus_ops command_ops = {status_read, command_write, 1, 1};

int i8042_map(struct i8042 *k, struct bus *pio, struct err *err)
{
    int ret = bus_map(pio, "i8042", 0x60, 1, &data_ops, k, err);
    return ret ? ret : bus_map(pio, "i8042", 0x64, 1, &command_ops, k, err);
}

void i8042_keys(struct i8042 *k, const uint8_t *codes, unsigned n)
{
    pthread_mutex_lock(&k->lock);
    if (k->kbd.scanning && n <= (unsigned)(PS2_QUEUE - k->kbd.out.len))
        for (unsigned i = 0; i < n; i++)
            ps2_put(&k->kbd.out, codes[i]);
    refill(k);
    pthread_mutex_unlock(&k->lock);
}

void i8042_mouse(struct i8042 *k, int dx, int dy, int wheel, unsigned buttons)
{
    pthread_mutex_lock(&k->lock);
    ps2_mouse_move(&k->mouse, dx, dy, wheel, buttons);
    refill(k);
    pthread_mutex_unlock(&k->lock);
}

/* ---- life ---- */

static void i8042_reset(struct device *dev)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    pthread_mutex_lock(&k->lock);
    /* As firmware leaves it: keyboard interrupt and translation on. */
    k->ctr = CTR_KBD_INT | CTR_SYS | CTR_XLATE | CTR_AUX_OFF;
    k->command = k->last_cmd = k->obf = k->obf_aux = k->data = k->prefix_f0 = 0;
    k->own = k->own_aux = (struct ps2_queue){0};
    ps2_keyboard_reset(&k->kbd);
    ps2_mouse_reset(&k->mouse);
    set_a20(k, true);
    lines(k);
    pthread_mutex_unlock(&k->lock);
}

static void i8042_destroy(struct device *dev)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

static bool queue_valid(const struct ps2_queue *q)
{
    return q->head < PS2_QUEUE && q->len <= PS2_QUEUE;
}

static int i8042_post_load(void *obj, uint32_t version, struct err *err)
{
    struct i8042 *k = obj;
    if (!queue_valid(&k->own) || !queue_valid(&k->own_aux) || !queue_valid(&k->kbd.out) || !queue_valid(&k->mouse.out))
        return err_set(err, -EINVAL, "i8042: queue positions that cannot be");
    k->last_cmd &= STR_CMD;
    k->prefix_f0 &= 0x80;
    irq_set(k->cfg.a20, k->a20 != 0);
    lines(k);
    return 0;
}

static const struct state_field i8042_fields[] = {
    STATE_U(struct i8042, ctr),
    STATE_U(struct i8042, command),
    STATE_U(struct i8042, last_cmd),
    STATE_U(struct i8042, obf),
    STATE_U(struct i8042, obf_aux),
    STATE_U(struct i8042, data),
    STATE_U(struct i8042, a20),
    STATE_U(struct i8042, prefix_f0),
    STATE_RAW(struct i8042, own),
    STATE_RAW(struct i8042, own_aux),
    STATE_RAW(struct i8042, kbd),
    STATE_RAW(struct i8042, mouse),
    STATE_END,
};
static const struct state_desc i8042_state = {"i8042", 1, 1, i8042_fields, NULL, i8042_post_load};

const struct device_type i8042_type = {
    .name = "i8042",
    .summary = "keyboard controller with PS/2 keyboard and mouse",
    .state = &i8042_state,
    .reset = i8042_reset,
    .destroy = i8042_destroy,
};

void i8042_new(const struct i8042_config *cfg, struct i8042 **ret)
{
    struct i8042 *k = xcalloc(1, sizeof *k);
    device_init(&k->dev, &i8042_type, cfg->id);
    pthread_mutex_init(&k->lock, NULL);
    k->cfg = *cfg;
    i8042_reset(&k->dev);
    *ret = k;
}

struct device *i8042_device(struct i8042 *k)
{
    return &k->dev;
}
