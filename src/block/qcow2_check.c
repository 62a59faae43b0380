/*
 * qcow2: checking and repair. All references are counted in a sparse array (its memory is bounded by the metadata that was
 * read), and compared with the refcounts. Repair of leaks lowers refcounts; of errors, writes all of them anew beside the old
 * and switches.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "block/qcow2.h"

enum { CHUNK = 64 };
#define L1_TOTAL_MAX (4 * GIB) /* of all snapshots' L1 tables: more is an attack */

struct chunk {
    uint64_t index; /* of its first cluster / CHUNK */
    uint32_t refs[CHUNK];
};

struct ck {
    struct qcow2 *s;
    struct blk_check *c;
    unsigned fix;
    struct chunk **slots;
    size_t cap, n;
    uint64_t file_len, l1_read, tables_seen;
    uint64_t next_contiguous;
    bool rebuild; /* refcounts are too low somewhere, or their structure is damaged */
};

static void say(struct ck *k, bool error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(struct ck *k, bool error, const char *fmt, ...)
{
    char line[300];
    va_list ap;
    if (!k->c->report)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    k->c->report(k->c->opaque, error, line);
}

static struct chunk **slot(const struct ck *k, uint64_t index)
{
    size_t at = (size_t)(index * 0x9e3779b97f4a7c15ull >> 20) & (k->cap - 1);
    while (k->slots[at] && k->slots[at]->index != index)
        at = (at + 1) & (k->cap - 1);
    return &k->slots[at];
}

static uint32_t refs(const struct ck *k, uint64_t cluster)
{
    struct chunk *c = k->cap ? *slot(k, cluster / CHUNK) : NULL;
    return c ? c->refs[cluster % CHUNK] : 0;
}

static uint32_t *ref_at(struct ck *k, uint64_t cluster)
{
    if (2 * (k->n + 1) > k->cap) {
        struct chunk **old = k->slots;
        size_t cap = k->cap;
        k->cap = cap ? cap * 2 : 1024;
        k->slots = calloc(k->cap, sizeof *k->slots);
        if (!k->slots)
            abort();
        for (size_t i = 0; i < cap; i++)
            if (old[i])
                *slot(k, old[i]->index) = old[i];
        free(old);
    }
    struct chunk **c = slot(k, cluster / CHUNK);
    if (!*c) {
        *c = xcalloc(1, sizeof **c);
        (*c)->index = cluster / CHUNK;
        k->n++;
    }
    return &(*c)->refs[cluster % CHUNK];
}

/* Counts references to the clusters of a range. False: it lies outside of the file. */
static bool count(struct ck *k, uint64_t offset, uint64_t len)
{
    struct qcow2 *s = k->s;
    if (!len)
        return true;
    if (offset > Q_OFFSET_MAX || len > Q_OFFSET_MAX || offset + len > ALIGN_UP(k->file_len, s->cluster_size)) {
        say(k, true,
            "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset %#llx size %#llx",
            (unsigned long long)offset, (unsigned long long)len);
        k->c->corruptions++;
        return false;
    }
    for (uint64_t i = offset >> s->cluster_bits; i <= (offset + len - 1) >> s->cluster_bits; i++) {
        uint32_t *r = ref_at(k, i);
        if (*r < UINT32_MAX)
            ++*r;
    }
    return true;
}

/* ---- walking ---- */

/* An entry that makes no sense: zeroed when errors are repaired (active tables only). */
static void fix_entry(struct ck *k, struct qtable *t, uint32_t i)
{
    struct qcow2 *s = k->s;
    if (!t || !(k->fix & BLK_FIX_ERRORS))
        return;
    pthread_mutex_lock(&s->lock);
    qcow2_entry_set_l(s, t, i, s->v3_zero && !s->extl2 ? QE_ZERO : 0, s->extl2 ? 0xffffffffull << 32 : 0);
    pthread_mutex_unlock(&s->lock);
    k->c->corruptions_fixed++;
}

static void check_l2(struct ck *k, const uint8_t *l2, struct qtable *t, bool active)
{
    struct qcow2 *s = k->s;
    k->next_contiguous = 0; /* counted within a table, as QEMU does */
    for (uint32_t i = 0; i < BIT(s->l2_bits); i++) {
        uint64_t e = be64_get(l2 + (size_t)i * s->entry_size), offset, len;
        uint64_t bits = s->extl2 ? be64_get(l2 + (size_t)i * 16 + 8) : 0;
        if (e & QE_COMPRESSED) {
            if (e & QE_COPIED) {
                say(k, true, "ERROR: coffset=%#llx copied flag must never be set for compressed clusters", (unsigned long long)e);
                k->c->corruptions++;
            }
            bool ok = qcow2_compressed_range(s, e, &offset, &len);
            if (!ok || q_external(s)) {
                say(k, true, "ERROR: compressed cluster at %#llx is invalid", (unsigned long long)offset);
                k->c->corruptions++;
                fix_entry(k, t, i);
                continue;
            }
            /* Its last sector may lie behind the end of the file. */
            if (offset < k->file_len && offset + len > k->file_len && offset + len - k->file_len < s->cluster_size)
                len = k->file_len - offset;
            if (!count(k, offset, len))
                fix_entry(k, t, i);
            if (active) {
                k->c->allocated_clusters++;
                k->c->compressed_clusters++;
                k->c->fragmented_clusters++;
            }
            continue;
        }
        offset = e & QE_OFFSET;
        bool has = offset || (q_external(s) && (e & QE_COPIED));
        if (s->extl2 && ((uint32_t)bits & bits >> 32)) {
            say(k, true, "ERROR: L2 entry %#llx has an invalid subcluster bitmap %#llx", (unsigned long long)e,
                (unsigned long long)bits);
            k->c->corruptions++;
            fix_entry(k, t, i);
            continue;
        }
        if (!has) {
            if (s->extl2 && (uint32_t)bits) {
                say(k, true, "ERROR: L2 entry with allocated subclusters but no cluster");
                k->c->corruptions++;
                fix_entry(k, t, i);
            }
            continue;
        }
        if (offset % s->cluster_size) {
            say(k, true, "ERROR offset=%llx: Cluster is not properly aligned; L2 entry corrupted.", (unsigned long long)offset);
            k->c->corruptions++;
            fix_entry(k, t, i);
            continue;
        }
        if (active) {
            k->c->allocated_clusters++;
            if (k->next_contiguous && offset != k->next_contiguous)
                k->c->fragmented_clusters++;
            k->next_contiguous = offset + s->cluster_size;
        }
        if (!q_external(s) && !count(k, offset, s->cluster_size))
            fix_entry(k, t, i);
    }
}

static int check_l1(struct ck *k, const uint64_t *l1, uint64_t l1_offset, uint32_t n, bool active)
{
    struct qcow2 *s = k->s;
    k->tables_seen++;
    if (!n)
        return l1_offset && active ? (count(k, l1_offset, 1), 0) : 0;
    if (!count(k, l1_offset, (uint64_t)n * 8))
        return 0;
    autofree uint8_t *buf = malloc(s->cluster_size);
    if (!buf)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t offset = l1[i] & QE_OFFSET;
        bool ok = true;
        if (!offset)
            continue;
        if (offset % s->cluster_size) {
            say(k, true, "ERROR l2_offset=%llx: Table is not cluster aligned; L1 entry corrupted", (unsigned long long)offset);
            k->c->corruptions++;
            ok = false;
        } else if (!count(k, offset, s->cluster_size)) {
            ok = false;
        } else if (refs(k, offset >> s->cluster_bits) > k->tables_seen) {
            /* In one tree twice: followed once, it cannot multiply work without end. */
            say(k, true, "ERROR l2_offset=%llx: L2 table is referred to more than once", (unsigned long long)offset);
            k->c->corruptions++;
            ok = false;
        }
        if (!ok) {
            if (active && (k->fix & BLK_FIX_ERRORS)) {
                pthread_mutex_lock(&s->lock);
                qcow2_l1_set_l(s, i, 0);
                pthread_mutex_unlock(&s->lock);
                k->c->corruptions_fixed++;
            }
            continue;
        }
        struct qtable *t = NULL;
        int code = 0;
        if (active && (k->fix & BLK_FIX_ERRORS)) {
            code = qcow2_l2_get_m(s, i, &t);
            if (code == 0 && t)
                check_l2(k, t->data, t, true);
        } else {
            const uint8_t *data = buf;
            if (active && s->l2[i])
                data = s->l2[i]->data;
            else
                code = blk_pread(s->file, offset, buf, s->cluster_size);
            if (code == 0)
                check_l2(k, data, NULL, active);
        }
        if (code < 0) {
            say(k, true, "ERROR: I/O error in check_refcounts_l2: %s", strerror(-code));
            k->c->check_errors++;
        }
        if (k->c->progress && active)
            k->c->progress(k->c->opaque, i, n);
    }
    return 0;
}

static int count_bitmaps(struct ck *k)
{
    struct qcow2 *s = k->s;
    if (!s->n_bitmaps)
        return 0;
    count(k, s->bitmaps_offset, s->bitmaps_size);
    for (uint32_t i = 0; i < s->n_bitmaps; i++) {
        const struct qbitmap *b = &s->bitmaps[i];
        if (!b->table_offset || !count(k, b->table_offset, (uint64_t)b->table_size * 8))
            continue;
        autofree uint8_t *table = malloc((size_t)b->table_size * 8 + 8);
        int code = table ? blk_pread(s->file, b->table_offset, table, (size_t)b->table_size * 8) : -ENOMEM;
        if (code < 0)
            return code;
        for (uint32_t e = 0; e < b->table_size; e++) {
            uint64_t v = be64_get(table + (size_t)e * 8), offset = v & QE_OFFSET;
            if ((v & 0xff000000000001feull) || (offset && (v & 1)) || offset % s->cluster_size) {
                say(k, true, "ERROR bitmap table entry %#llx is invalid", (unsigned long long)v);
                k->c->corruptions++;
            } else if (offset) {
                count(k, offset, s->cluster_size);
            }
        }
    }
    return 0;
}

static int count_refcounts(struct ck *k)
{
    struct qcow2 *s = k->s;
    count(k, s->rt_offset, (uint64_t)s->rt_size * 8);
    for (uint32_t i = 0; i < s->rt_size; i++) {
        uint64_t offset = s->rt[i] & QE_OFFSET;
        if (!s->rt[i])
            continue;
        bool damaged = offset % s->cluster_size || s->rt[i] & 0x1ff;
        if (damaged) {
            say(k, true, "ERROR refcount block %u is not cluster aligned; refcount table entry corrupted", i);
            k->c->corruptions++;
        } else if (!count(k, offset, s->cluster_size)) {
            damaged = true;
        } else if (refs(k, offset >> s->cluster_bits) != 1) {
            say(k, true, "ERROR refcount block %u refcount=%u", i, refs(k, offset >> s->cluster_bits));
            k->c->corruptions++;
            damaged = true;
        }
        if (damaged) {
            k->rebuild = true;
            if (k->fix & BLK_FIX_ERRORS) { /* the new ones replace it all */
                pthread_mutex_lock(&s->lock);
                s->rt[i] = 0;
                qcow2_table_free(s->rb[i]);
                s->rb[i] = NULL;
                pthread_mutex_unlock(&s->lock);
            }
        }
    }
    return 0;
}

/* ---- comparing ---- */

static int compare_one(struct ck *k, struct qtable *t, uint64_t cluster, uint64_t have, uint64_t want)
{
    struct qcow2 *s = k->s;
    if (have == want)
        return 0;
    bool leak = have > want, repair = leak ? k->fix & BLK_FIX_LEAKS : k->fix & BLK_FIX_ERRORS;
    say(k, !leak, "%s cluster %llu refcount=%llu reference=%llu", repair ? "Repairing" : leak ? "Leaked" : "ERROR",
        (unsigned long long)cluster, (unsigned long long)have, (unsigned long long)want);
    if (!leak) {
        k->c->corruptions++;
        k->rebuild = true;
        return 0;
    }
    k->c->leaks++;
    if (repair && t) {
        uint64_t i = cluster & (BIT64(s->rb_bits) - 1);
        pthread_mutex_lock(&s->lock);
        qcow2_rb_put(s, t->data, i, want);
        qcow2_table_dirty_l(s, t, (size_t)(i << s->refcount_order) / 8, MAX(1u, BIT(s->refcount_order) / 8));
        if (!want)
            s->free_from = s->run_from = 0;
        pthread_mutex_unlock(&s->lock);
        k->c->leaks_fixed++;
    }
    return 0;
}

static int compare(struct ck *k)
{
    struct qcow2 *s = k->s;
    uint64_t per = BIT64(s->rb_bits), last = 0;
    for (uint64_t b = 0; b < s->rt_size; b++) {
        struct qtable *t;
        if (!(s->rt[b] & QE_OFFSET) || (s->rt[b] & QE_OFFSET) % s->cluster_size)
            continue;
        int code = qcow2_rb_get_m(s, b, &t);
        if (code < 0 || !t) {
            k->c->check_errors++;
            continue;
        }
        for (uint64_t i = 0; i < per; i++) {
            uint64_t have = qcow2_rb_value(s, t->data, i), want = refs(k, b * per + i);
            if (have)
                last = MAX(last, b * per + i + 1);
            compare_one(k, t, b * per + i, have, want);
        }
        if (s->rb_cached > s->rb_max && (code = qcow2_trim_m(s)) < 0)
            return code;
    }
    for (size_t i = 0; i < k->cap; i++) { /* where there is no block */
        for (unsigned j = 0; k->slots[i] && j < CHUNK; j++) {
            uint64_t cluster = k->slots[i]->index * CHUNK + j, b = cluster >> s->rb_bits;
            if (k->slots[i]->refs[j] && (b >= s->rt_size || !(s->rt[b] & QE_OFFSET))) {
                compare_one(k, NULL, cluster, 0, k->slots[i]->refs[j]);
                last = MAX(last, cluster + 1);
            }
        }
    }
    k->c->image_end_offset = last << s->cluster_bits;
    return 0;
}

/* ---- COPIED ---- */

static int check_copied(struct ck *k)
{
    struct qcow2 *s = k->s;
    bool fix = k->fix & BLK_FIX_ERRORS;
    autofree uint8_t *buf = malloc(s->cluster_size);
    if (!buf)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->l1_size; i++) {
        uint64_t l1 = s->l1[i], offset = l1 & QE_OFFSET, count;
        struct qtable *t = NULL;
        if (!offset || offset % s->cluster_size || offset >= k->file_len)
            continue;
        int code = qcow2_refcount_m(s, offset >> s->cluster_bits, &count);
        if (code < 0)
            continue;
        if ((count == 1) != !!(l1 & QE_COPIED)) {
            say(k, true, "%s OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%llx refcount=%llu", fix ? "Repairing" : "ERROR",
                i, (unsigned long long)l1, (unsigned long long)count);
            k->c->corruptions++;
            if (fix) {
                pthread_mutex_lock(&s->lock);
                qcow2_l1_set_l(s, i, count == 1 ? l1 | QE_COPIED : l1 & ~QE_COPIED);
                pthread_mutex_unlock(&s->lock);
                k->c->corruptions_fixed++;
            }
        }
        if (fix || s->l2[i])
            code = qcow2_l2_get_m(s, i, &t);
        else
            code = blk_pread(s->file, offset, buf, s->cluster_size);
        for (uint32_t j = 0; j < BIT(s->l2_bits) && code == 0; j++) {
            uint64_t e = be64_get((t ? t->data : buf) + (size_t)j * s->entry_size), data = e & QE_OFFSET;
            if ((e & QE_COMPRESSED) || !data || data % s->cluster_size || q_external(s))
                continue;
            if (qcow2_refcount_m(s, data >> s->cluster_bits, &count) < 0 || (count == 1) == !!(e & QE_COPIED))
                continue;
            say(k, true, "%s OFLAG_COPIED data cluster: l2_entry=%llx refcount=%llu", fix ? "Repairing" : "ERROR",
                (unsigned long long)e, (unsigned long long)count);
            k->c->corruptions++;
            if (fix) {
                pthread_mutex_lock(&s->lock);
                qcow2_entry_set_l(s, t, j, count == 1 ? e | QE_COPIED : e & ~QE_COPIED, q_bitmap(s, t, j));
                pthread_mutex_unlock(&s->lock);
                k->c->corruptions_fixed++;
            }
        }
        if (s->rb_cached > s->rb_max || s->l2_cached > s->l2_max)
            code = qcow2_trim_m(s);
    }
    return 0;
}

/* ---- all of it ---- */

static bool in_use(void *opaque, uint64_t index)
{
    const struct ck *k = opaque;
    return refs(k, index) != 0; /* the old refcount structure counts as in use, too: it is valid until the switch */
}

static int rebuild(struct ck *k)
{
    struct qcow2 *s = k->s;
    struct qshadow h = {.s = s, .order = s->refcount_order, .rebuild = true, .used = in_use, .opaque = k};
    h.n = s->rt_size;
    h.block = calloc(h.n + 1, sizeof *h.block);
    h.where = calloc(h.n + 1, sizeof *h.where);
    int code = h.block && h.where ? 0 : -ENOMEM;
    for (size_t i = 0; i < k->cap && code == 0; i++)
        for (unsigned j = 0; k->slots[i] && j < CHUNK && code == 0; j++)
            if (k->slots[i]->refs[j])
                code = qcow2_shadow_set_m(&h, k->slots[i]->index * CHUNK + j, k->slots[i]->refs[j]);
    /* Not the old table and blocks. */
    uint64_t table = s->rt_offset >> s->cluster_bits;
    for (uint64_t i = 0; i < (uint64_t)s->rt_size * 8 >> s->cluster_bits && code == 0; i++)
        if (refs(k, table + i))
            code = qcow2_shadow_add_m(&h, table + i, 1, -1);
    for (uint32_t i = 0; i < s->rt_size && code == 0; i++)
        if ((s->rt[i] & QE_OFFSET) && refs(k, (s->rt[i] & QE_OFFSET) >> s->cluster_bits))
            code = qcow2_shadow_add_m(&h, (s->rt[i] & QE_OFFSET) >> s->cluster_bits, 1, -1);
    if (code == 0) {
        for (uint32_t i = 0; i < s->rt_size; i++)
            if (s->rb[i] && s->rb[i]->is_dirty)
                s->dirty_tables--, s->rb[i]->is_dirty = false;
        s->rt_is_dirty = false;
        code = qcow2_shadow_commit_m(&h);
    }
    qcow2_shadow_free(&h);
    return code;
}

static int walk(struct ck *k)
{
    struct qcow2 *s = k->s;
    int code = count(k, 0, s->cluster_size) ? 0 : 0;
    code = check_l1(k, s->l1, s->l1_offset, s->l1_size, true);
    for (uint32_t i = 0; i < s->n_snaps && code == 0; i++) {
        uint64_t *l1;
        k->l1_read += (uint64_t)s->snaps[i].l1_size * 8;
        if (k->l1_read > L1_TOTAL_MAX) {
            k->c->check_errors++;
            break;
        }
        if (qcow2_load_l1(s, s->snaps[i].l1_offset, s->snaps[i].l1_size, &l1) < 0) {
            k->c->check_errors++;
            continue;
        }
        code = check_l1(k, l1, s->snaps[i].l1_offset, s->snaps[i].l1_size, false);
        free(l1);
    }
    if (code == 0 && s->n_snaps)
        count(k, s->snaps_offset, s->snaps_bytes);
    if (code == 0)
        code = count_bitmaps(k);
    return code == 0 ? count_refcounts(k) : code;
}

int qcow2_check(struct blk_node *n, struct blk_check *c, unsigned fix, struct err *err)
{
    struct qcow2 *s = n->priv;
    struct ck k = {.s = s, .c = c, .fix = fix};
    if (fix && n->read_only)
        return err_set(err, -EROFS, "%s: opened read-only", n->filename);
    bool was_corrupt = s->corrupt;
    s->corrupt = false;
    pthread_mutex_lock(&s->meta);
    int code = s->writable ? qcow2_writeback_m(s) : 0;
    k.file_len = s->file->size;
    if (code == 0)
        code = walk(&k);
    if (code == 0)
        code = compare(&k);
    if (code == 0 && k.rebuild && (fix & BLK_FIX_ERRORS)) {
        uint64_t before = c->corruptions;
        code = rebuild(&k);
        if (code == 0)
            c->corruptions_fixed = before;
    }
    if (code == 0)
        code = check_copied(&k);
    if (code == 0 && fix) {
        code = qcow2_writeback_m(s);
        if (code == 0)
            code = qcow2_barrier(s);
    }
    c->total_clusters = (n->size + s->cluster_size - 1) >> s->cluster_bits;
    if (code == 0 && (fix & BLK_FIX_ERRORS) && c->corruptions == c->corruptions_fixed && !c->check_errors &&
        (s->incompatible & (BIT64(QI_DIRTY) | BIT64(QI_CORRUPT)))) {
        s->incompatible &= ~(BIT64(QI_DIRTY) | BIT64(QI_CORRUPT));
        was_corrupt = false;
        code = qcow2_write_header(s);
    }
    s->corrupt = was_corrupt;
    pthread_mutex_unlock(&s->meta);
    for (size_t i = 0; i < k.cap; i++)
        free(k.slots[i]);
    free(k.slots);
    return code < 0 ? err_errno(err, code, "%s: the check failed", n->filename) : 0;
}
