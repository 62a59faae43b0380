/*
 * fw_cfg. Ports come from vCPU threads; a DMA transfer runs on the thread that asks for it, with the lock held. Items
 * never change once vCPUs run, so only the selector, the position and the DMA address are state.
 */
#include "dev/fw_cfg.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"

#define FILES_MAX 128
#define NAME_SIZE 56  /* of a directory entry's name, with its NUL */
#define ENTRY_SIZE 64 /* size (be32), key (be16), reserved, name */
#define ID_TRADITIONAL 1
#define ID_DMA 2

enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

struct item {
    uint32_t key; /* with the architecture bit 15 */
    uint8_t *data;
    uint32_t len;
    /* Optional: brings the data up to date when the guest selects the item. */
    void (*make)(void *opaque, uint8_t *data, uint32_t len);
    void *opaque;
};

struct fw_cfg {
    struct device dev;
    pthread_mutex_t lock;
    struct mem *mem;
    struct item *item;
    unsigned n_items;
    uint8_t dir[4 + FILES_MAX * ENTRY_SIZE];
    unsigned n_files;

    uint16_t key;
    uint32_t pos;
    uint64_t dma_addr;
};

static const uint8_t signature[4] = {'Q', 'E', 'M', 'U'};
static const uint8_t id[4] = {ID_TRADITIONAL | ID_DMA};
static const uint8_t dma_signature[8] = {'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G'};

static void be16_put(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void be32_put(uint8_t *p, uint32_t v)
{
    be16_put(p, (uint16_t)(v >> 16));
    be16_put(p + 2, (uint16_t)v);
}

static struct item *find(const struct fw_cfg *f, uint16_t key)
{
    for (unsigned i = 0; i < f->n_items; i++)
        if (f->item[i].key == key)
            return &f->item[i];
    return NULL;
}

/* The selected item; *ret_len 0 where there is none. */
static const uint8_t *selected(const struct fw_cfg *f, uint32_t *ret_len)
{
    switch (f->key) {
    case FW_CFG_SIGNATURE:
        *ret_len = sizeof signature;
        return signature;
    case FW_CFG_ID:
        *ret_len = sizeof id;
        return id;
    case FW_CFG_FILE_DIR:
        *ret_len = 4 + f->n_files * ENTRY_SIZE;
        return f->dir;
    }
    const struct item *it = find(f, f->key);
    *ret_len = it ? it->len : 0;
    return it ? it->data : NULL;
}

/* ---- the board's side ---- */

int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len, struct err *err)
{
    if (len > UINT32_MAX)
        return err_set(err, -EINVAL, "fw_cfg: item 0x%x is larger than 4 GiB", key);
    if (find(f, key) || key == FW_CFG_SIGNATURE || key == FW_CFG_ID || key == FW_CFG_FILE_DIR)
        return err_set(err, -EEXIST, "fw_cfg: item 0x%x is taken", key);
    struct item *item = realloc(f->item, (f->n_items + 1) * sizeof *item);
    uint8_t *copy = malloc(len + 1);
    if (item)
        f->item = item;
    if (!item || !copy) {
        free(copy);
        return err_set(err, -ENOMEM, "fw_cfg: no memory for %zu bytes", len);
    }
    memcpy(copy, data, len);
    f->item[f->n_items++] = (struct item){.key = key, .data = copy, .len = (uint32_t)len};
    return 0;
}

int fw_cfg_add_u16(struct fw_cfg *f, uint16_t key, uint16_t val, struct err *err)
{
    uint8_t b[2];
    le16_put(b, val);
    return fw_cfg_add(f, key, b, sizeof b, err);
}

int fw_cfg_add_u32(struct fw_cfg *f, uint16_t key, uint32_t val, struct err *err)
{
    uint8_t b[4];
    le32_put(b, val);
    return fw_cfg_add(f, key, b, sizeof b, err);
}

int fw_cfg_add_u64(struct fw_cfg *f, uint16_t key, uint64_t val, struct err *err)
{
    uint8_t b[8];
    le64_put(b, val);
    return fw_cfg_add(f, key, b, sizeof b, err);
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len, struct err *err)
{
    if (strlen(name) >= NAME_SIZE)
        return err_set(err, -EINVAL, "fw_cfg: the name '%s' is longer than %d bytes", name, NAME_SIZE - 1);
    for (unsigned i = 0; i < f->n_files; i++)
        if (!strcmp((char *)f->dir + 4 + i * ENTRY_SIZE + 8, name))
            return err_set(err, -EEXIST, "fw_cfg: there is a file '%s' already", name);
    if (f->n_files == FILES_MAX)
        return err_set(err, -ENOSPC, "fw_cfg: more than %d files", FILES_MAX);
    uint16_t key = (uint16_t)(FW_CFG_FILE_FIRST + f->n_files);
    int ret = fw_cfg_add(f, key, data, len, err);
    if (ret < 0)
        return ret;
    uint8_t *e = f->dir + 4 + f->n_files * ENTRY_SIZE;
    be32_put(e, (uint32_t)len);
    be16_put(e + 4, key);
    memcpy(e + 8, name, strlen(name) + 1);
    be32_put(f->dir, ++f->n_files);
    return 0;
}

int fw_cfg_add_made(struct fw_cfg *f, const char *name, const void *data, size_t len,
                    void (*make)(void *opaque, uint8_t *data, uint32_t len), void *opaque, struct err *err)
{
    int ret = fw_cfg_add_file(f, name, data, len, err);
    if (ret < 0)
        return ret;
    f->item[f->n_items - 1].make = make;
    f->item[f->n_items - 1].opaque = opaque;
    return 0;
}

/* ---- the guest's side ---- */

static void select_item(struct fw_cfg *f, uint16_t key)
{
    struct item *it = find(f, key);
    f->key = key;
    f->pos = 0;
    if (it && it->make)
        it->make(it->opaque, it->data, it->len);
}

/* Past the end, and where no item is, zeros are read. */
static uint8_t read_byte(struct fw_cfg *f)
{
    uint32_t len;
    const uint8_t *data = selected(f, &len);
    return f->pos < len ? data[f->pos++] : 0;
}

static int dma_transfer(struct fw_cfg *f, uint32_t control, uint64_t addr, uint32_t len)
{
    uint32_t item_len;
    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> 16));
    const uint8_t *data = selected(f, &item_len);
    uint32_t there = MIN(len, item_len - MIN(f->pos, item_len));
    int ret = 0;
    if (control & DMA_READ) {
        if (there)
            ret = mem_write(f->mem, addr, data + f->pos, there);
        if (!ret && len > there)
            ret = mem_set(f->mem, addr + there, 0, len - there);
    } else if (control & DMA_WRITE) {
        ret = len ? -EACCES : 0; /* items are read-only */
    } else if (!(control & DMA_SKIP)) {
        there = 0;
    }
    if (!ret)
        f->pos += there;
    return ret;
}

static void dma(struct fw_cfg *f)
{
    /* Big-endian: control (4), length (4), address (8). Read once; the control word tells the guest the result. */
    uint8_t d[16], result[4];
    uint64_t desc = f->dma_addr;
    f->dma_addr = 0;
    if (mem_read(f->mem, desc, d, sizeof d) < 0)
        return;
    uint64_t w[2];
    memcpy(w, d, sizeof w);
    uint64_t head = be64toh(w[0]), addr = be64toh(w[1]);
    be32_put(result, dma_transfer(f, (uint32_t)(head >> 32), addr, (uint32_t)head) < 0 ? DMA_ERROR : 0);
    if (mem_write(f->mem, desc, result, sizeof result) < 0)
        return; /* a descriptor in ROM: the guest gets no answer */
}

static uint64_t fw_cfg_read(void *opaque, uint64_t off, unsigned size)
{
    struct fw_cfg *f = opaque;
    uint64_t val = 0;
    if (off >= 4) {
        for (unsigned i = 0; i < size && off + i < FW_CFG_PORTS; i++)
            val |= (uint64_t)dma_signature[off - 4 + i] << i * 8;
        return val;
    }
    pthread_mutex_lock(&f->lock);
    if (off == 1)
        val = read_byte(f);
    pthread_mutex_unlock(&f->lock);
    return val;
}

static void fw_cfg_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct fw_cfg *f = opaque;
    pthread_mutex_lock(&f->lock);
    if (off == 0 && size == 2) {
        select_item(f, (uint16_t)val);
    } else if (off == 4 && size == 4) {
        f->dma_addr = (uint64_t)be32toh((uint32_t)val) << 32;
    } else if (off == 8 && size == 4) {
        f->dma_addr = (f->dma_addr & ~0xffffffffull) | be32toh((uint32_t)val);
        dma(f);
    } else if (off == 4 && size == 8) {
        f->dma_addr = be64toh(val);
        dma(f);
    }
    pthread_mutex_unlock(&f->lock);
}

static const struct bus_ops fw_cfg_ops = {fw_cfg_read, fw_cfg_write, 1, 8};

int fw_cfg_map(struct fw_cfg *f, struct bus *pio, uint16_t base, struct err *err)
{
    return bus_map(pio, "fw_cfg", base, FW_CFG_PORTS, &fw_cfg_ops, f, err);
}

/* ---- life ---- */

static void fw_cfg_reset(struct device *dev)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    pthread_mutex_lock(&f->lock);
    select_item(f, 0);
    f->dma_addr = 0;
    pthread_mutex_unlock(&f->lock);
}

static void fw_cfg_destroy(struct device *dev)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    for (unsigned i = 0; i < f->n_items; i++)
        free(f->item[i].data);
    free(f->item);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static const struct state_field fw_cfg_fields[] = {
    STATE_U(struct fw_cfg, key),
    STATE_U(struct fw_cfg, pos),
    STATE_U(struct fw_cfg, dma_addr),
    STATE_END,
};
static const struct state_desc fw_cfg_state = {"fw_cfg", 1, 1, fw_cfg_fields, NULL, NULL};

const struct device_type fw_cfg_type = {
    .name = "fw_cfg",
    .summary = "files and tables for firmware",
    .state = &fw_cfg_state,
    .reset = fw_cfg_reset,
    .destroy = fw_cfg_destroy,
};

void fw_cfg_new(const struct fw_cfg_config *cfg, struct fw_cfg **ret)
{
    struct fw_cfg *f = xcalloc(1, sizeof *f);
    device_init(&f->dev, &fw_cfg_type, cfg->id);
    pthread_mutex_init(&f->lock, NULL);
    f->mem = cfg->mem;
    *ret = f;
}

struct device *fw_cfg_device(struct fw_cfg *f)
{
    return &f->dev;
}
