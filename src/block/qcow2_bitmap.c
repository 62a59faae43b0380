/*
 * qcow2: persistent dirty bitmaps. A change writes new tables and a new directory, and the header's extension then names
 * those. While an image is open for writing, the bitmaps that track writes are in memory and marked as in use on disk.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

enum { DIR_MAX = 1 << 26, NAME_MAX_LEN = 1023, FLAG_IN_USE = 1, FLAG_AUTO = 2, FLAG_EXTRA_COMPATIBLE = 4 };
#define BITS_MAX (4ull << 30) /* of one bitmap */

static void bm_clear(struct qbitmap *b)
{
    free(b->name);
    free(b->extra);
    free(b->bits);
    memset(b, 0, sizeof *b);
}

void qcow2_bitmaps_free(struct qcow2 *s)
{
    for (uint32_t i = 0; s->bitmaps && i < s->n_bitmaps; i++)
        bm_clear(&s->bitmaps[i]);
    free(s->bitmaps);
    s->bitmaps = NULL;
}

static uint64_t bits_for(const struct qbitmap *b, uint64_t size)
{
    return (size >> b->granularity_bits) + !!(size & (BIT64(b->granularity_bits) - 1));
}

static uint64_t table_for(const struct qcow2 *s, uint64_t bits)
{
    uint64_t bytes = ALIGN_UP((bits + 7) / 8, 8);
    return (bytes + s->cluster_size - 1) >> s->cluster_bits;
}

int qcow2_bitmaps_load(struct qcow2 *s, struct err *err)
{
    const char *name = s->node->filename;
    if (!(s->autoclear & BIT64(QA_BITMAPS))) {
        /* Somebody changed the image without knowing of bitmaps: what is there is worth nothing. */
        s->n_bitmaps = 0;
        return 0;
    }
    if (!s->n_bitmaps)
        return 0;
    if (s->n_bitmaps > Q_BITMAPS_MAX)
        return err_set(err, -EINVAL, "%s: bitmaps_ext: image has %u bitmaps, exceeding the supported maximum of %u", name,
                       s->n_bitmaps, Q_BITMAPS_MAX);
    if (s->bitmaps_size > DIR_MAX || s->bitmaps_offset % s->cluster_size || s->bitmaps_offset > Q_OFFSET_MAX ||
        s->n_bitmaps > s->bitmaps_size / 24)
        return err_set(err, -EINVAL, "%s: the bitmap directory is invalid", name);
    autofree uint8_t *dir = malloc(s->bitmaps_size);
    s->bitmaps = calloc(s->n_bitmaps, sizeof *s->bitmaps);
    if (!dir || !s->bitmaps)
        return -ENOMEM;
    int code = blk_pread(s->file, s->bitmaps_offset, dir, s->bitmaps_size);
    if (code < 0)
        return err_errno(err, code, "%s: Failed to read the bitmap directory", name);
    size_t at = 0;
    for (uint32_t i = 0; i < s->n_bitmaps; i++) {
        struct qbitmap *b = &s->bitmaps[i];
        const uint8_t *e = dir + at;
        if (s->bitmaps_size - at < 24)
            return err_set(err, -EINVAL, "%s: Broken bitmap directory", name);
        uint32_t name_len = be16_get(e + 18), extra = be32_get(e + 20);
        b->table_offset = be64_get(e);
        b->table_size = be32_get(e + 8);
        b->flags = be32_get(e + 12);
        b->type = e[16];
        b->granularity_bits = e[17];
        uint64_t len = ALIGN_UP(24 + (uint64_t)extra + name_len, 8);
        if (len > s->bitmaps_size - at || !name_len || name_len > NAME_MAX_LEN || b->granularity_bits > 31 ||
            b->granularity_bits < 9 || b->table_offset % s->cluster_size || b->table_offset > Q_OFFSET_MAX ||
            (uint64_t)b->table_size << s->cluster_bits > BITS_MAX / 8 || b->type != 1)
            return err_set(err, -EINVAL, "%s: Broken bitmap directory: entry %u is invalid", name, i);
        b->extra_len = extra;
        b->extra = malloc(extra + 1);
        b->name = strndup((const char *)e + 24 + extra, name_len);
        if (!b->extra || !b->name)
            return -ENOMEM;
        memcpy(b->extra, e + 24, extra);
        at += len;
    }
    return 0;
}

/* Brings the bits into memory. */
static int load_bits(struct qcow2 *s, struct qbitmap *b)
{
    if (b->bits)
        return 0;
    uint64_t bits = bits_for(b, s->node->size), entries = table_for(s, bits);
    if (bits > BITS_MAX || entries > b->table_size)
        return bits > BITS_MAX ? -EFBIG : -EINVAL;
    uint8_t *mem = calloc(entries + 1, s->cluster_size);
    autofree uint8_t *table = malloc((entries + 1) * 8);
    int code = mem && table ? blk_pread(s->file, b->table_offset, table, entries * 8) : -ENOMEM;
    for (uint64_t i = 0; i < entries && code == 0; i++) {
        uint64_t e = be64_get(table + i * 8), offset = e & QE_OFFSET;
        if (offset % s->cluster_size)
            code = -EINVAL;
        else if (offset)
            code = blk_pread(s->file, offset, mem + i * s->cluster_size, s->cluster_size);
        else if (e & 1)
            memset(mem + i * s->cluster_size, 0xff, s->cluster_size);
    }
    if (code < 0) {
        free(mem);
        return code;
    }
    b->bits = mem;
    b->n_bits = bits;
    return 0;
}

/* What a bitmap occupies, into a list. */
static int collect(struct qcow2 *s, const struct qbitmap *b, struct qfrees *f)
{
    if (!b->table_offset || !b->table_size)
        return 0;
    autofree uint8_t *table = malloc((size_t)b->table_size * 8);
    int code = table ? blk_pread(s->file, b->table_offset, table, (size_t)b->table_size * 8) : -ENOMEM;
    for (uint32_t i = 0; i < b->table_size && code == 0; i++) {
        uint64_t offset = be64_get(table + (size_t)i * 8) & QE_OFFSET;
        if (offset)
            qcow2_frees_add(s, f, offset, s->cluster_size);
    }
    if (code == 0)
        qcow2_frees_add(s, f, b->table_offset, (uint64_t)b->table_size * 8);
    return code;
}

static bool all_are(const uint8_t *p, size_t n, uint8_t v)
{
    return n == 0 || (p[0] == v && !memcmp(p, p + 1, n - 1));
}

/* Writes the bits to new places. */
static int write_bits(struct qcow2 *s, struct qbitmap *b, uint64_t size, struct qfrees *old)
{
    int code = collect(s, b, old);
    uint64_t bits = bits_for(b, size), entries = MAX(table_for(s, bits), 1);
    if (code < 0)
        return code;
    uint8_t *mem = calloc(entries, s->cluster_size);
    autofree uint8_t *table = calloc(ALIGN_UP(entries * 8, s->cluster_size), 1);
    if (!mem || !table) {
        free(mem);
        return -ENOMEM;
    }
    memcpy(mem, b->bits, MIN(b->n_bits, bits) / 8 + !!(MIN(b->n_bits, bits) % 8));
    for (uint64_t k = bits; k < ALIGN_UP(bits, 8); k++)
        mem[k / 8] &= (uint8_t)~(1u << (k % 8));
    for (uint64_t i = 0; i < entries && code == 0; i++) {
        const uint8_t *p = mem + i * s->cluster_size;
        if (all_are(p, s->cluster_size, 0))
            continue;
        if (all_are(p, s->cluster_size, 0xff)) {
            be64_put(table + i * 8, 1);
            continue;
        }
        int64_t at = qcow2_alloc_m(s, 1, NULL);
        code = at < 0 ? (int)at : blk_pwrite(s->file, (uint64_t)at, p, s->cluster_size, 0);
        be64_put(table + i * 8, (uint64_t)at);
    }
    uint64_t room = ALIGN_UP(entries * 8, s->cluster_size);
    int64_t at = code == 0 ? qcow2_alloc_m(s, room >> s->cluster_bits, NULL) : code;
    code = at < 0 ? (int)at : blk_pwrite(s->file, (uint64_t)at, table, room, 0);
    free(b->bits);
    b->bits = mem;
    b->n_bits = bits;
    b->table_offset = code == 0 ? (uint64_t)at : 0;
    b->table_size = (uint32_t)entries;
    b->changed = code < 0;
    return code;
}

int qcow2_bitmaps_write_m(struct qcow2 *s, uint64_t size, struct qfrees *old)
{
    int code = 0;
    uint64_t total = 0, at = 0;
    for (uint32_t i = 0; i < s->n_bitmaps && code == 0; i++) {
        struct qbitmap *b = &s->bitmaps[i];
        if (b->changed || !b->table_offset || (size != s->node->size && !(b->flags & FLAG_IN_USE && !b->bits))) {
            if (!b->bits)
                code = load_bits(s, b);
            if (code == 0)
                code = write_bits(s, b, size, old);
        }
        total += ALIGN_UP(24 + (uint64_t)b->extra_len + strlen(b->name), 8);
    }
    if (code == 0 && s->bitmaps_size)
        qcow2_frees_add(s, old, s->bitmaps_offset, s->bitmaps_size);
    if (code < 0 || !s->n_bitmaps) {
        if (code == 0) {
            s->bitmaps_offset = s->bitmaps_size = 0;
            s->autoclear &= ~BIT64(QA_BITMAPS);
        }
        return code;
    }
    uint64_t room = ALIGN_UP(total, s->cluster_size);
    autofree uint8_t *dir = calloc(1, room);
    if (!dir)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n_bitmaps; i++) {
        const struct qbitmap *b = &s->bitmaps[i];
        uint8_t *e = dir + at;
        size_t n = strlen(b->name);
        be64_put(e, b->table_offset);
        be32_put(e + 8, b->table_size);
        be32_put(e + 12, b->flags);
        e[16] = b->type;
        e[17] = b->granularity_bits;
        be16_put(e + 18, (uint16_t)n);
        be32_put(e + 20, b->extra_len);
        memcpy(e + 24, b->extra, b->extra_len);
        memcpy(e + 24 + b->extra_len, b->name, n);
        at += ALIGN_UP(24 + (uint64_t)b->extra_len + n, 8);
    }
    int64_t where = qcow2_alloc_m(s, room >> s->cluster_bits, NULL);
    code = where < 0 ? (int)where : blk_pwrite(s->file, (uint64_t)where, dir, room, 0);
    if (code == 0)
        code = qcow2_writeback_m(s); /* all of it is counted before it is named */
    if (code == 0) {
        s->bitmaps_offset = (uint64_t)where;
        s->bitmaps_size = total;
        s->autoclear |= BIT64(QA_BITMAPS);
    }
    return code;
}

void qcow2_bitmaps_settle(struct qcow2 *s, struct qfrees *old, bool written)
{
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < old->n && written; i++)
        qcow2_free_later_l(s, old->v[i].index << s->cluster_bits, old->v[i].n << s->cluster_bits);
    pthread_mutex_unlock(&s->lock);
    free(old->v);
    *old = (struct qfrees){0};
}

/* Directory and header anew. */
static int sync_all(struct qcow2 *s)
{
    struct qfrees old = {0};
    pthread_mutex_lock(&s->meta);
    int code = qcow2_bitmaps_write_m(s, s->node->size, &old);
    if (code == 0)
        code = qcow2_write_header(s);
    qcow2_bitmaps_settle(s, &old, code == 0);
    if (code == 0)
        code = qcow2_writeback_m(s);
    pthread_mutex_unlock(&s->meta);
    return code;
}

int qcow2_bitmaps_start(struct qcow2 *s)
{
    bool any = false;
    for (uint32_t i = 0; i < s->n_bitmaps; i++) {
        struct qbitmap *b = &s->bitmaps[i];
        if (!(b->flags & FLAG_AUTO) || (b->flags & FLAG_IN_USE))
            continue;
        int code = load_bits(s, b);
        if (code < 0)
            return code;
        b->flags |= FLAG_IN_USE;
        any = true;
    }
    if (!any)
        return 0;
    int code = sync_all(s);
    s->bitmaps_tracked = code == 0;
    return code;
}

int qcow2_bitmaps_store(struct qcow2 *s)
{
    if (!s->bitmaps_tracked)
        return 0;
    for (uint32_t i = 0; i < s->n_bitmaps; i++) {
        struct qbitmap *b = &s->bitmaps[i];
        if ((b->flags & FLAG_AUTO) && b->bits) {
            b->flags &= ~(uint32_t)FLAG_IN_USE;
            b->changed = true;
        }
    }
    s->bitmaps_tracked = false;
    return sync_all(s);
}

static void set_range(struct qbitmap *b, uint64_t offset, uint64_t len, bool value)
{
    uint64_t from = offset >> b->granularity_bits, to = (offset + len - 1) >> b->granularity_bits;
    for (uint64_t k = from; k <= to && k < b->n_bits;) {
        if (k % 8 == 0 && k + 8 <= MIN(to + 1, b->n_bits)) {
            b->bits[k / 8] = value ? 0xff : 0;
            k += 8;
            continue;
        }
        if (value)
            b->bits[k / 8] |= (uint8_t)(1u << (k % 8));
        else
            b->bits[k / 8] &= (uint8_t)~(1u << (k % 8));
        k++;
    }
}

void qcow2_bitmaps_mark_l(struct qcow2 *s, uint64_t offset, uint64_t len)
{
    if (!s->bitmaps_tracked || !len)
        return;
    for (uint32_t i = 0; i < s->n_bitmaps; i++)
        if ((s->bitmaps[i].flags & FLAG_AUTO) && s->bitmaps[i].bits)
            set_range(&s->bitmaps[i], offset, len, true);
}

void qcow2_bitmaps_mark(struct qcow2 *s, uint64_t offset, uint64_t len)
{
    if (!s->bitmaps_tracked)
        return;
    pthread_mutex_lock(&s->lock);
    qcow2_bitmaps_mark_l(s, offset, len);
    pthread_mutex_unlock(&s->lock);
}

/* ---- by hand ---- */

static struct qbitmap *find(struct qcow2 *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_bitmaps; i++)
        if (!strcmp(s->bitmaps[i].name, name))
            return &s->bitmaps[i];
    return NULL;
}

static struct qbitmap *need(struct qcow2 *s, const char *name, bool consistent, struct err *err)
{
    struct qbitmap *b = find(s, name);
    if (!b) {
        err_set(err, -ENOENT, "Dirty bitmap '%s' not found", name);
        return NULL;
    }
    if (consistent && (b->flags & FLAG_IN_USE) && !b->bits) {
        err_set(err, -EINVAL, "Bitmap '%s' is inconsistent and cannot be used: try to delete it with 'bitmap --remove'",
                name);
        return NULL;
    }
    return b;
}

int qcow2_bitmap_list(struct blk_node *n, struct blk_bitmap **ret, unsigned *ret_n, struct err *err)
{
    struct qcow2 *s = n->priv;
    struct blk_bitmap *v = calloc(s->n_bitmaps + 1, sizeof *v);
    if (!v)
        return err_set(err, -ENOMEM, "no memory");
    for (uint32_t i = 0; i < s->n_bitmaps; i++) {
        const struct qbitmap *b = &s->bitmaps[i];
        snprintf(v[i].name, sizeof v[i].name, "%s", b->name);
        v[i].granularity = 1u << b->granularity_bits;
        v[i].flags = (b->flags & FLAG_IN_USE && !(s->bitmaps_tracked && b->bits) ? BLK_BITMAP_IN_USE : 0) |
                     (b->flags & FLAG_AUTO ? BLK_BITMAP_AUTO : 0);
    }
    *ret = v;
    *ret_n = s->n_bitmaps;
    return 0;
}

int qcow2_bitmap_add(struct blk_node *n, const char *name, uint32_t granularity, bool disabled, struct err *err)
{
    struct qcow2 *s = n->priv;
    if (s->version < 3)
        return err_set(err, -ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 files");
    if (find(s, name))
        return err_set(err, -EEXIST, "Bitmap already exists: %s", name);
    if (!*name || strlen(name) > NAME_MAX_LEN)
        return err_set(err, -EINVAL, "The name of a bitmap has 1 to %d bytes", NAME_MAX_LEN);
    if (!granularity)
        granularity = (uint32_t)MIN(MAX(s->cluster_size, (uint64_t)4096), (uint64_t)65536);
    if (granularity < 512 || granularity & (granularity - 1))
        return err_set(err, -EINVAL, granularity < 512 ? "Granularity is under minimum (512 bytes)"
                                                       : "Granularity must be power of 2");
    if (s->n_bitmaps >= Q_BITMAPS_MAX)
        return err_set(err, -E2BIG, "Maximum number of persistent bitmaps is already reached");
    struct qbitmap b = {.type = 1, .granularity_bits = (uint8_t)__builtin_ctz(granularity), .changed = true};
    b.n_bits = bits_for(&b, n->size);
    if (b.n_bits > BITS_MAX)
        return err_set(err, -EFBIG, "Too much space will be occupied by the bitmap. Use larger granularity");
    b.bits = calloc(table_for(s, b.n_bits) + 1, s->cluster_size);
    struct qbitmap *v = realloc(s->bitmaps, (s->n_bitmaps + 1) * sizeof *v);
    if (v)
        s->bitmaps = v;
    if (!b.bits || !v) {
        free(b.bits);
        return err_set(err, -ENOMEM, "no memory for the bitmap");
    }
    b.name = xstrdup(name);
    b.extra = xcalloc(1, 1);
    b.flags = disabled ? 0 : FLAG_AUTO;
    s->bitmaps[s->n_bitmaps++] = b;
    int code = sync_all(s);
    return code < 0 ? err_errno(err, code, "Failed to add bitmap '%s'", name) : 0;
}

int qcow2_bitmap_remove(struct blk_node *n, const char *name, struct err *err)
{
    struct qcow2 *s = n->priv;
    struct qbitmap *b = need(s, name, false, err);
    struct qfrees gone = {0};
    if (!b)
        return -ENOENT;
    int code = collect(s, b, &gone);
    bm_clear(b);
    memmove(b, b + 1, (size_t)(s->bitmaps + --s->n_bitmaps - b) * sizeof *b);
    if (code == 0)
        code = sync_all(s);
    qcow2_bitmaps_settle(s, &gone, code == 0);
    return code < 0 ? err_errno(err, code, "Failed to remove bitmap '%s'", name) : 0;
}

static int change(struct blk_node *n, const char *name, uint64_t offset, uint64_t len, bool value, struct err *err)
{
    struct qcow2 *s = n->priv;
    struct qbitmap *b = need(s, name, true, err);
    if (!b)
        return err && err->code ? err->code : -ENOENT;
    int code = load_bits(s, b);
    if (code == 0 && len) {
        pthread_mutex_lock(&s->lock);
        set_range(b, offset, len, value);
        pthread_mutex_unlock(&s->lock);
        b->changed = true;
    }
    /* A bitmap that is in use is written when the image is closed. */
    if (code == 0 && !(b->flags & FLAG_IN_USE) && !value)
        code = sync_all(s);
    return code < 0 ? err_errno(err, code, "Failed to change bitmap '%s'", name) : 0;
}

int qcow2_bitmap_clear(struct blk_node *n, const char *name, struct err *err)
{
    return change(n, name, 0, n->size, false, err);
}

int qcow2_bitmap_set(struct blk_node *n, const char *name, uint64_t offset, uint64_t len, struct err *err)
{
    struct qcow2 *s = n->priv;
    int code = change(n, name, offset, len, true, err);
    s->bitmaps_tracked = true; /* closing writes it */
    return code;
}

int qcow2_bitmap_enable(struct blk_node *n, const char *name, bool enable, struct err *err)
{
    struct qcow2 *s = n->priv;
    struct qbitmap *b = need(s, name, true, err);
    if (!b)
        return err && err->code ? err->code : -ENOENT;
    int code = load_bits(s, b);
    if (code == 0) {
        b->changed = true;
        b->flags = enable ? b->flags | FLAG_AUTO : b->flags & ~(uint32_t)(FLAG_AUTO | FLAG_IN_USE);
        code = sync_all(s);
    }
    return code < 0 ? err_errno(err, code, "Failed to change bitmap '%s'", name) : 0;
}

int qcow2_bitmap_next(struct blk_node *n, const char *name, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end,
                      struct err *err)
{
    struct qcow2 *s = n->priv;
    struct qbitmap *b = need(s, name, true, err);
    if (!b)
        return err && err->code ? err->code : -ENOENT;
    int code = load_bits(s, b);
    if (code < 0)
        return err_errno(err, code, "Failed to read bitmap '%s'", name);
    uint64_t k = offset >> b->granularity_bits;
    while (k < b->n_bits && !(b->bits[k / 8] >> (k % 8) & 1))
        k += k % 8 == 0 && !b->bits[k / 8] ? 8 : 1;
    if (k >= b->n_bits)
        return 0;
    *ret_start = MAX(offset, k << b->granularity_bits);
    while (k < b->n_bits && (b->bits[k / 8] >> (k % 8) & 1))
        k++;
    *ret_end = MIN(k << b->granularity_bits, atomic_load(&n->size));
    return 1;
}
