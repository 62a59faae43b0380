/* Accesses come from vCPU threads; one lock. What is programmed goes to the file at once: guests reboot without a word.
 */
#include "dev/pflash.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"

#define BUFFER 64u /* bytes of buffered programming */

enum { STATUS_READY = 0x80, STATUS_ERASE_ERROR = 0x20, STATUS_PROGRAM_ERROR = 0x10 };
enum mode {
    MODE_ARRAY,
    MODE_STATUS,
    MODE_ID,
    MODE_CFI,
    MODE_PROGRAM,      /* the next write is data */
    MODE_ERASE,        /* the next write confirms */
    MODE_LOCK,         /* the next write says what */
    MODE_BUFFER_COUNT, /* the next write is the number of bytes - 1 */
    MODE_BUFFER_DATA,
    MODE_BUFFER_CONFIRM,
    MODES,
};

struct pflash {
    struct device dev;
    pthread_mutex_t lock;
    uint32_t size;
    int fd;
    bool warned;

    uint8_t mode, status;
    uint32_t count;  /* of buffered bytes still to come */
    uint32_t filled; /* and there */
    uint32_t at[BUFFER];
    uint8_t buffer[BUFFER];
    uint8_t data[PFLASH_MAX];
};

static void store(struct pflash *p, uint32_t off, uint32_t len)
{
    if (p->fd < 0 || pwrite(p->fd, p->data + off, len, off) == (ssize_t)len || p->warned)
        return;
    p->warned = true;
    log_warn("%s: what the firmware stores is lost when the guest ends: %s", p->dev.id, strerror(errno));
}

/* Programming only clears bits. */
static void program(struct pflash *p, uint32_t off, uint8_t val)
{
    p->data[off] &= val;
}

static void erase(struct pflash *p, uint32_t off)
{
    off = ALIGN_DOWN(off, PFLASH_BLOCK);
    memset(p->data + off, 0xff, PFLASH_BLOCK);
    store(p, off, PFLASH_BLOCK);
}

/* The CFI table from 0x10 on: identification, geometry. */
static uint8_t cfi(const struct pflash *p, uint32_t off)
{
    uint32_t blocks = p->size / PFLASH_BLOCK - 1;
    const uint8_t table[] = {
        [0x00] = 'Q',
        'R',
        'Y',
        1,
        0,
        0x31,
        0,
        0,
        0,
        0,
        0,
        0x45,
        0x55,
        0,
        0,
        7,
        7,
        10,
        0,
        4,
        4,
        4,
        0,
        [0x17] = (uint8_t)(31 - __builtin_clz(p->size)),
        0,
        0,
        6,
        0,
        1,
        (uint8_t)blocks,
        (uint8_t)(blocks >> 8),
        (uint8_t)(PFLASH_BLOCK >> 8),
        (uint8_t)(PFLASH_BLOCK >> 16),
        [0x21] = 'P',
        'R',
        'I',
        '1',
        '0',
    };
    return off >= 0x10 && off - 0x10 < sizeof table ? table[off - 0x10] : 0;
}

static uint8_t read_byte(const struct pflash *p, uint32_t off)
{
    switch (p->mode) {
    case MODE_ARRAY:
        return p->data[off];
    case MODE_ID:
        return (off & 0xff) == 0 ? 0x89 : (off & 0xff) == 1 ? 0x18 : 0;
    case MODE_CFI:
        return cfi(p, off & 0xff);
    default:
        return p->status;
    }
}

static void command(struct pflash *p, uint8_t val)
{
    static const struct {
        uint8_t val, mode;
    } commands[] = {
        {0x10, MODE_PROGRAM}, {0x40, MODE_PROGRAM}, {0x20, MODE_ERASE}, {0x28, MODE_ERASE},        {0x60, MODE_LOCK},
        {0x70, MODE_STATUS},  {0x90, MODE_ID},      {0x98, MODE_CFI},   {0xe8, MODE_BUFFER_COUNT},
    };
    if (val == 0x50) /* the mode stays that of before, as far as reads go */
        p->status = 0;
    if (val == 0x50 && p->mode != MODE_ARRAY)
        return;
    p->mode = MODE_ARRAY;
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
        if (commands[i].val == val)
            p->mode = commands[i].mode;
    if (p->mode == MODE_BUFFER_COUNT)
        p->status = STATUS_READY;
}

static void write_byte(struct pflash *p, uint32_t off, uint8_t val)
{
    switch (p->mode) {
    case MODE_PROGRAM:
        program(p, off, val);
        store(p, off, 1);
        p->status |= STATUS_READY;
        p->mode = MODE_STATUS;
        break;
    case MODE_ERASE:
        if (val == 0xd0)
            erase(p, off);
        else
            p->status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
        p->status |= STATUS_READY;
        p->mode = MODE_STATUS;
        break;
    case MODE_LOCK: /* blocks have no lock bits: all is well */
        p->status |= STATUS_READY;
        p->mode = MODE_STATUS;
        break;
    case MODE_BUFFER_COUNT:
        p->count = val < BUFFER ? val + 1u : 0;
        p->filled = 0;
        p->mode = p->count ? MODE_BUFFER_DATA : MODE_STATUS;
        p->status = p->count ? STATUS_READY : STATUS_READY | STATUS_PROGRAM_ERROR;
        break;
    case MODE_BUFFER_DATA:
        p->at[p->filled] = off;
        p->buffer[p->filled++] = val;
        if (p->filled == p->count)
            p->mode = MODE_BUFFER_CONFIRM;
        break;
    case MODE_BUFFER_CONFIRM:
        for (unsigned i = 0; val == 0xd0 && i < p->filled; i++) {
            program(p, p->at[i], p->buffer[i]);
            store(p, p->at[i], 1);
        }
        p->status |= val == 0xd0 ? STATUS_READY : STATUS_READY | STATUS_PROGRAM_ERROR;
        p->mode = MODE_STATUS;
        break;
    default:
        command(p, val);
    }
}

static uint64_t pflash_read(void *opaque, uint64_t off, unsigned size)
{
    struct pflash *p = opaque;
    uint64_t val = 0;
    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)read_byte(p, (uint32_t)off + i) << i * 8;
    pthread_mutex_unlock(&p->lock);
    return val;
}

/* Commands are one byte wide; wider data is programmed byte by byte. */
static void pflash_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct pflash *p = opaque;
    pthread_mutex_lock(&p->lock);
    if (p->mode == MODE_PROGRAM)
        for (unsigned i = 1; i < size; i++) {
            program(p, (uint32_t)off + i, (uint8_t)(val >> i * 8));
            store(p, (uint32_t)off + i, 1);
        }
    write_byte(p, (uint32_t)off, (uint8_t)val);
    for (unsigned i = 1; i < size && p->mode == MODE_BUFFER_DATA && p->filled; i++)
        write_byte(p, (uint32_t)off + i, (uint8_t)(val >> i * 8));
    pthread_mutex_unlock(&p->lock);
}

static const struct bus_ops pflash_ops = {pflash_read, pflash_write, 1, 8};

int pflash_map(struct pflash *p, struct bus *mmio, uint64_t base, struct err *err)
{
    return bus_map(mmio, p->dev.id, base, p->size, &pflash_ops, p, err);
}

/* ---- life ---- */

static void pflash_reset(struct device *dev)
{
    struct pflash *p = container_of(dev, struct pflash, dev);
    pthread_mutex_lock(&p->lock);
    p->mode = MODE_ARRAY;
    p->status = 0;
    p->count = p->filled = 0;
    pthread_mutex_unlock(&p->lock);
}

static void pflash_destroy(struct device *dev)
{
    struct pflash *p = container_of(dev, struct pflash, dev);
    fd_closep(&p->fd);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int pflash_post_load(void *obj, uint32_t version, struct err *err)
{
    struct pflash *p = obj;
    if (p->mode >= MODES || p->count > BUFFER || p->filled > p->count ||
        (p->mode == MODE_BUFFER_DATA && p->filled >= p->count))
        return err_set(err, -EINVAL, "%s: a state of programming that cannot be", p->dev.id);
    for (unsigned i = 0; i < p->filled; i++)
        if (p->at[i] >= p->size)
            return err_set(err, -EINVAL, "%s: a byte beyond the end", p->dev.id);
    store(p, 0, p->size);
    return 0;
}

static const struct state_field pflash_fields[] = {
    STATE_U(struct pflash, mode),   STATE_U(struct pflash, status),
    STATE_U(struct pflash, count),  STATE_U(struct pflash, filled),
    STATE_ARRAY(struct pflash, at), STATE_RAW(struct pflash, buffer),
    STATE_RAW(struct pflash, data), STATE_END,
};
static const struct state_desc pflash_state = {"pflash", 1, 1, pflash_fields, NULL, pflash_post_load};

const struct device_type pflash_type = {
    .name = "pflash",
    .summary = "flash memory for the firmware's variables",
    .state = &pflash_state,
    .reset = pflash_reset,
    .destroy = pflash_destroy,
};

int pflash_new(const struct pflash_config *cfg, struct pflash **ret, struct err *err)
{
    if (!cfg->size || cfg->size % PFLASH_BLOCK || cfg->size > PFLASH_MAX)
        return err_set(err, -EINVAL, "%s: flash of %u bytes: whole blocks of 4 KiB, at most 1 MiB", cfg->id, cfg->size);
    struct pflash *p = xcalloc(1, sizeof *p);
    device_init(&p->dev, &pflash_type, cfg->id);
    pthread_mutex_init(&p->lock, NULL);
    p->size = cfg->size;
    p->fd = cfg->fd;
    memcpy(p->data, cfg->data, cfg->size);
    *ret = p;
    return 0;
}

struct device *pflash_device(struct pflash *p)
{
    return &p->dev;
}
