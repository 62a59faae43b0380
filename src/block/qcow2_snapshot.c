/*
 * qcow2: internal snapshots. The old L1 table and its L2 tables become the snapshot's; the active state gets copies. With the
 * refcounts in shadow copies, too, one write of the header is all that takes effect.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/log.h"
#include "block/qcow2.h"

enum { EXTRA_KNOWN = 24, EXTRA_MAX = 1024, TABLE_MAX = 16 << 20 };

static uint64_t vmstate_index(const struct qcow2 *s, uint64_t disk)
{
    uint64_t covers = BIT64(s->l2_bits + s->cluster_bits);
    return (disk + covers - 1) / covers;
}

/* ---- the table ---- */

static void sn_clear(struct qsnap *sn)
{
    free(sn->extra);
    sn->extra = NULL;
}

void qcow2_snapshots_free(struct qcow2 *s)
{
    for (uint32_t i = 0; s->snaps && i < s->n_snaps; i++)
        sn_clear(&s->snaps[i]);
    free(s->snaps);
    s->snaps = NULL;
}

int qcow2_snapshots_load(struct qcow2 *s, struct err *err)
{
    const char *name = s->node->filename;
    uint64_t at = s->snaps_offset;
    if (!s->n_snaps)
        return 0;
    if (s->n_snaps > Q_SNAPSHOTS_MAX)
        return err_set(err, -EFBIG, "%s: Snapshot table too large", name);
    if (at % s->cluster_size || at > Q_OFFSET_MAX || !at)
        return err_set(err, -EINVAL, "%s: Invalid snapshot table offset", name);
    s->snaps = calloc(s->n_snaps, sizeof *s->snaps);
    if (!s->snaps)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n_snaps; i++) {
        uint8_t h[40];
        struct qsnap *q = &s->snaps[i];
        at = ALIGN_UP(at, 8);
        int code = blk_pread(s->file, at, h, sizeof h);
        if (code < 0)
            return err_errno(err, code, "%s: Could not read snapshots", name);
        at += sizeof h;
        q->l1_offset = be64_get(h);
        q->l1_size = be32_get(h + 8);
        uint32_t id_len = be16_get(h + 12), name_len = be16_get(h + 14), extra = be32_get(h + 36);
        q->sn.date_sec = be32_get(h + 16);
        q->sn.date_nsec = be32_get(h + 20);
        q->sn.vm_clock_nsec = be64_get(h + 24);
        q->sn.vm_state_size = be32_get(h + 32);
        q->sn.disk_size = s->node->size;
        q->sn.icount = UINT64_MAX;
        if (extra > EXTRA_MAX)
            return err_set(err, -EFBIG, "%s: Too much extra metadata in snapshot table entry %u", name, i);
        uint8_t x[EXTRA_MAX] = {0};
        code = extra ? blk_pread(s->file, at, x, extra) : 0;
        at += extra;
        if (extra >= 8)
            q->sn.vm_state_size = be64_get(x);
        if (extra >= 16)
            q->sn.disk_size = be64_get(x + 8);
        if (extra >= 24)
            q->sn.icount = be64_get(x + 16);
        if (extra > EXTRA_KNOWN) {
            q->extra_len = extra - EXTRA_KNOWN;
            q->extra = malloc(q->extra_len);
            if (!q->extra)
                return -ENOMEM;
            memcpy(q->extra, x + EXTRA_KNOWN, q->extra_len);
        }
        char text[65536];
        if (code == 0)
            code = blk_pread(s->file, at, text, id_len);
        snprintf(q->sn.id, sizeof q->sn.id, "%.*s", (int)id_len, text);
        at += id_len;
        if (code == 0)
            code = blk_pread(s->file, at, text, name_len);
        snprintf(q->sn.name, sizeof q->sn.name, "%.*s", (int)name_len, text);
        at += name_len;
        if (code < 0)
            return err_errno(err, code, "%s: Could not read snapshots", name);
        if (at - s->snaps_offset > TABLE_MAX)
            return err_set(err, -EFBIG, "%s: Snapshot table too large", name);
        if (q->l1_size > Q_L1_BYTES_MAX / 8 || q->l1_offset % s->cluster_size || q->l1_offset > Q_OFFSET_MAX)
            return err_set(err, -EINVAL, "%s: the L1 table of snapshot '%s' is invalid", name, q->sn.id);
    }
    s->snaps_bytes = at - s->snaps_offset;
    return 0;
}

/* The table as it is going to be, in clusters of its own; *ret_bytes. */
static int64_t table_write(struct qcow2 *s, struct qshadow *h, const struct qsnap *v, uint32_t n, uint64_t *ret_bytes)
{
    size_t size = 0;
    for (uint32_t i = 0; i < n; i++)
        size = ALIGN_UP(size, 8) + 40 + EXTRA_KNOWN + v[i].extra_len + strlen(v[i].sn.id) + strlen(v[i].sn.name);
    *ret_bytes = size;
    if (!n)
        return 0;
    uint64_t room = ALIGN_UP((uint64_t)size, s->cluster_size);
    autofree uint8_t *buf = calloc(1, room);
    if (!buf)
        return -ENOMEM;
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct blk_snapshot *sn = &v[i].sn;
        size_t id = strlen(sn->id), name = strlen(sn->name);
        at = ALIGN_UP(at, 8);
        be64_put(buf + at, v[i].l1_offset);
        be32_put(buf + at + 8, v[i].l1_size);
        be16_put(buf + at + 12, (uint16_t)id);
        be16_put(buf + at + 14, (uint16_t)name);
        be32_put(buf + at + 16, sn->date_sec);
        be32_put(buf + at + 20, sn->date_nsec);
        be64_put(buf + at + 24, sn->vm_clock_nsec);
        be32_put(buf + at + 32, sn->vm_state_size > UINT32_MAX ? 0 : (uint32_t)sn->vm_state_size);
        be32_put(buf + at + 36, EXTRA_KNOWN + v[i].extra_len);
        be64_put(buf + at + 40, sn->vm_state_size);
        be64_put(buf + at + 48, sn->disk_size);
        be64_put(buf + at + 56, sn->icount);
        at += 64;
        if (v[i].extra_len)
            memcpy(buf + at, v[i].extra, v[i].extra_len);
        at += v[i].extra_len;
        memcpy(buf + at, sn->id, id);
        memcpy(buf + at + id, sn->name, name);
        at += id + name;
    }
    int64_t where = qcow2_shadow_alloc_m(h, room >> s->cluster_bits);
    int code = where < 0 ? (int)where : blk_pwrite(s->file, (uint64_t)where, buf, room, 0);
    return code < 0 ? code : where;
}

/* ---- trees ---- */

static uint64_t clusters_of(const struct qcow2 *s, uint64_t bytes)
{
    return (bytes + s->cluster_size - 1) >> s->cluster_bits;
}

/* The refcounts of an L2 table's data, each by delta. */
static int count_data(struct qshadow *h, const uint8_t *l2, int64_t delta)
{
    struct qcow2 *s = h->s;
    int code = 0;
    for (uint32_t i = 0; i < BIT(s->l2_bits) && code == 0; i++) {
        uint64_t e = be64_get(l2 + (size_t)i * s->entry_size), offset, len;
        if (e & QE_COMPRESSED) {
            if (!qcow2_compressed_range(s, e, &offset, &len))
                return qcow2_corrupt(s, "a compressed cluster lies at %#llx", (unsigned long long)offset);
            code = qcow2_shadow_add_m(h, offset >> s->cluster_bits,
                                      ((offset + len - 1) >> s->cluster_bits) - (offset >> s->cluster_bits) + 1, delta);
        } else if ((e & QE_OFFSET) && !q_external(s)) {
            if ((e & QE_OFFSET) % s->cluster_size)
                return qcow2_corrupt(s, "a data cluster's offset %#llx is unaligned", (unsigned long long)(e & QE_OFFSET));
            code = qcow2_shadow_add_m(h, (e & QE_OFFSET) >> s->cluster_bits, 1, delta);
        }
    }
    return code;
}

static int read_l2(struct qcow2 *s, uint64_t l1_entry, uint8_t *buf)
{
    uint64_t offset = l1_entry & QE_OFFSET;
    if (offset % s->cluster_size)
        return qcow2_corrupt(s, "an L2 table's offset %#llx is unaligned", (unsigned long long)offset);
    return blk_pread(s->file, offset, buf, s->cluster_size);
}

/* A tree loses (or wins) a reference: its tables and data, but not the L1 table itself. */
static int count_tree(struct qshadow *h, const uint64_t *l1, uint32_t n, int64_t delta)
{
    struct qcow2 *s = h->s;
    autofree uint8_t *l2 = malloc(s->cluster_size);
    int code = l2 ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < n && code == 0; i++) {
        if (!(l1[i] & QE_OFFSET))
            continue;
        code = read_l2(s, l1[i], l2);
        if (code == 0)
            code = count_data(h, l2, delta);
        if (code == 0)
            code = qcow2_shadow_add_m(h, (l1[i] & QE_OFFSET) >> s->cluster_bits, 1, delta);
    }
    return code;
}

/* An L2 table with COPIED where the refcounts say so: whether anything changed. */
static int fix_copied(struct qshadow *h, uint8_t *l2)
{
    struct qcow2 *s = h->s;
    int changed = 0;
    for (uint32_t i = 0; i < BIT(s->l2_bits); i++) {
        uint8_t *p = l2 + (size_t)i * s->entry_size;
        uint64_t e = be64_get(p), count = 0;
        if ((e & QE_COMPRESSED) || (!(e & QE_OFFSET) && !q_external(s)) || q_external(s))
            continue;
        int code = qcow2_shadow_get_m(h, (e & QE_OFFSET) >> s->cluster_bits, &count);
        if (code < 0)
            return code;
        uint64_t want = count == 1 ? e | QE_COPIED : e & ~QE_COPIED;
        if (want != e) {
            be64_put(p, want);
            changed = 1;
        }
    }
    return changed;
}

/* Writes copies of the tree's L2 tables, COPIED as the (final) refcounts say; l1 is changed to name them. */
static int copy_tables(struct qshadow *h, uint64_t *l1, uint32_t n)
{
    struct qcow2 *s = h->s;
    autofree uint8_t *l2 = malloc(s->cluster_size);
    int code = l2 ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < n && code == 0; i++) {
        if (!(l1[i] & QE_OFFSET))
            continue;
        code = read_l2(s, l1[i], l2);
        if (code == 0 && (code = fix_copied(h, l2)) >= 0) {
            int64_t at = qcow2_shadow_alloc_m(h, 1);
            code = at < 0 ? (int)at : blk_pwrite(s->file, (uint64_t)at, l2, s->cluster_size, 0);
            l1[i] = (uint64_t)at | QE_COPIED;
        }
    }
    return code;
}

static int64_t write_l1(struct qshadow *h, const uint64_t *l1, uint32_t n)
{
    struct qcow2 *s = h->s;
    uint64_t room = clusters_of(s, (uint64_t)MAX(n, 1u) * 8);
    autofree uint8_t *raw = calloc(room, s->cluster_size);
    if (!raw)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        be64_put(raw + (size_t)i * 8, l1[i]);
    int64_t at = qcow2_shadow_alloc_m(h, room);
    int code = at < 0 ? (int)at : blk_pwrite(s->file, (uint64_t)at, raw, room << s->cluster_bits, 0);
    return code < 0 ? code : at;
}

/* ---- switching ---- */

struct state {
    uint64_t l1_offset, snaps_offset, snaps_bytes, size;
    uint32_t l1_size, n_snaps;
};

static struct state state_of(const struct qcow2 *s)
{
    return (struct state){s->l1_offset, s->snaps_offset, s->snaps_bytes, s->node->size, s->l1_size, s->n_snaps};
}

/* Commits with the new state; the L1 table (owned) becomes the active one. */
static int commit(struct qshadow *h, const struct state *now, uint64_t *l1)
{
    struct qcow2 *s = h->s;
    struct state old = state_of(s);
    uint32_t old_l1_size = s->l1_size;
    s->l1_offset = now->l1_offset;
    s->snaps_offset = now->snaps_offset;
    s->snaps_bytes = now->snaps_bytes;
    s->n_snaps = now->n_snaps;
    s->node->size = now->size;
    s->l1_size = now->l1_size;
    uint64_t *was = s->l1;
    s->l1 = l1; /* the set of metadata clusters is made from it */
    int code = qcow2_shadow_commit_m(h);
    s->l1 = was;
    s->l1_size = old_l1_size;
    if (code < 0) {
        s->l1_offset = old.l1_offset;
        s->snaps_offset = old.snaps_offset;
        s->snaps_bytes = old.snaps_bytes;
        s->n_snaps = old.n_snaps;
        s->node->size = old.size;
        free(l1);
        return code;
    }
    qcow2_install_l1(s, l1, now->l1_offset, now->l1_size);
    return 0;
}

static int find(const struct qcow2 *s, const char *what)
{
    for (uint32_t i = 0; i < s->n_snaps; i++)
        if (!strcmp(s->snaps[i].sn.id, what))
            return (int)i;
    for (uint32_t i = 0; i < s->n_snaps; i++)
        if (!strcmp(s->snaps[i].sn.name, what))
            return (int)i;
    return -ENOENT;
}

static int drop_old_table(struct qshadow *h)
{
    struct qcow2 *s = h->s;
    return s->n_snaps ? qcow2_shadow_add_m(h, s->snaps_offset >> s->cluster_bits, clusters_of(s, s->snaps_bytes), -1) : 0;
}

static uint64_t *copy_l1(const uint64_t *l1, uint32_t n, uint32_t room)
{
    uint64_t *c = calloc((size_t)MAX(n, room) + 1, sizeof *c);
    if (c)
        memcpy(c, l1, (size_t)n * sizeof *c);
    return c;
}

static int create_m(struct qcow2 *s, struct qsnap *q)
{
    struct qshadow h;
    uint64_t bytes = 0;
    uint64_t *l1 = NULL;
    int code = qcow2_shadow_begin_m(s, &h);
    uint32_t disk = (uint32_t)MIN(vmstate_index(s, s->node->size), (uint64_t)s->l1_size);
    autofree struct qsnap *all = calloc(s->n_snaps + 1, sizeof *all);
    autofree uint8_t *l2 = malloc(s->cluster_size);
    if (!all || !l2)
        code = -ENOMEM;
    /* The data is the disk's and the snapshot's from now on; the VM state is the snapshot's alone. */
    for (uint32_t i = 0; i < disk && code == 0; i++)
        if (s->l1[i] & QE_OFFSET) {
            code = read_l2(s, s->l1[i], l2);
            if (code == 0)
                code = count_data(&h, l2, 1);
        }
    if (code == 0 && !(l1 = copy_l1(s->l1, disk, s->l1_size)))
        code = -ENOMEM;
    if (code == 0)
        code = copy_tables(&h, l1, disk);
    int64_t at = code == 0 ? write_l1(&h, l1, s->l1_size) : code;
    code = at < 0 ? (int)at : 0;
    q->l1_offset = s->l1_offset;
    q->l1_size = s->l1_size;
    int64_t table = 0;
    if (code == 0) {
        if (s->n_snaps)
            memcpy(all, s->snaps, s->n_snaps * sizeof *all);
        all[s->n_snaps] = *q;
        code = drop_old_table(&h);
    }
    if (code == 0) {
        table = table_write(s, &h, all, s->n_snaps + 1, &bytes);
        code = table < 0 ? (int)table : 0;
    }
    struct qsnap *old = s->snaps;
    if (code == 0) {
        struct state now = {(uint64_t)at, (uint64_t)table, bytes, s->node->size, s->l1_size, s->n_snaps + 1};
        s->snaps = all;
        code = commit(&h, &now, ptr_take(l1));
        s->snaps = old;
    }
    if (code == 0) {
        free(s->snaps);
        s->snaps = ptr_take(all);
    }
    free(l1);
    qcow2_shadow_free(&h);
    return code;
}

int qcow2_snapshot_create(struct blk_node *n, struct blk_snapshot *sn, struct err *err)
{
    struct qcow2 *s = n->priv;
    unsigned long max = 0;
    if (s->n_snaps >= Q_SNAPSHOTS_MAX)
        return err_set(err, -EFBIG, "%s: too many snapshots", n->filename);
    if (q_external(s))
        return err_set(err, -ENOTSUP, "%s: an image with an external data file has no internal snapshots", n->filename);
    if (n->read_only)
        return err_set(err, -EROFS, "%s: opened read-only", n->filename);
    for (uint32_t i = 0; i < s->n_snaps; i++)
        max = MAX(max, strtoul(s->snaps[i].sn.id, NULL, 10));
    if (!sn->id[0])
        snprintf(sn->id, sizeof sn->id, "%lu", max + 1);
    else if (find(s, sn->id) >= 0)
        return err_set(err, -EEXIST, "%s: there is a snapshot '%s' already", n->filename, sn->id);
    if (!sn->date_sec) {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        sn->date_sec = (uint32_t)ts.tv_sec;
        sn->date_nsec = (uint32_t)ts.tv_nsec;
    }
    sn->disk_size = n->size;
    struct qsnap q = {.sn = *sn};
    pthread_mutex_lock(&s->meta);
    int code = create_m(s, &q);
    pthread_mutex_unlock(&s->meta);
    if (code == -ERANGE)
        return err_set(err, code, "%s: the refcounts are too narrow (%u bits) for another snapshot", n->filename,
                       BIT(s->refcount_order));
    return code < 0 ? err_errno(err, code, "Could not create snapshot '%s'", sn->name) : 0;
}

static int apply_m(struct qcow2 *s, const struct qsnap *q)
{
    struct qshadow h;
    uint64_t *l1 = NULL;
    int code = qcow2_shadow_begin_m(s, &h);
    uint32_t need = (uint32_t)vmstate_index(s, q->sn.disk_size), n = MAX(q->l1_size, need);
    autofree uint8_t *l2 = malloc(s->cluster_size);
    if (!l2)
        code = -ENOMEM;
    if (code == 0)
        code = qcow2_load_l1(s, q->l1_offset, q->l1_size, &l1);
    if (code == 0) {
        uint64_t *room = copy_l1(l1, q->l1_size, n);
        free(l1);
        l1 = room;
        code = l1 ? 0 : -ENOMEM;
    }
    for (uint32_t i = 0; i < q->l1_size && code == 0; i++)
        if (l1[i] & QE_OFFSET) {
            code = read_l2(s, l1[i], l2);
            if (code == 0)
                code = count_data(&h, l2, 1);
        }
    if (code == 0)
        code = count_tree(&h, s->l1, s->l1_size, -1);
    if (code == 0)
        code = qcow2_shadow_add_m(&h, s->l1_offset >> s->cluster_bits, clusters_of(s, (uint64_t)MAX(s->l1_size, 1u) * 8), -1);
    if (code == 0)
        code = copy_tables(&h, l1, q->l1_size);
    int64_t at = code == 0 ? write_l1(&h, l1, n) : code;
    code = at < 0 ? (int)at : 0;
    if (code == 0) {
        struct state now = state_of(s);
        now.l1_offset = (uint64_t)at;
        now.l1_size = n;
        now.size = q->sn.disk_size;
        code = commit(&h, &now, ptr_take(l1));
    }
    free(l1);
    qcow2_shadow_free(&h);
    return code;
}

int qcow2_snapshot_apply(struct blk_node *n, const char *id, struct err *err)
{
    struct qcow2 *s = n->priv;
    int i = find(s, id);
    if (i < 0)
        return err_set(err, i, "Could not find snapshot '%s'", id);
    if (s->n_bitmaps && s->snaps[i].sn.disk_size != n->size)
        return err_set(err, -ENOTSUP, "Can't apply a snapshot of another size: the image has bitmaps");
    pthread_mutex_lock(&s->meta);
    int code = apply_m(s, &s->snaps[i]);
    pthread_mutex_unlock(&s->meta);
    if (code < 0)
        return err_errno(err, code, "Could not apply snapshot '%s'", id);
    qcow2_bitmaps_mark(s, 0, n->size);
    return 0;
}

/* The active tree with COPIED as the refcounts are going to be: only what changes is written anew. */
static int recopy_active(struct qshadow *h, uint64_t *l1, bool *ret_changed)
{
    struct qcow2 *s = h->s;
    autofree uint8_t *l2 = malloc(s->cluster_size);
    int code = l2 ? 0 : -ENOMEM;
    *ret_changed = false;
    for (uint32_t i = 0; i < s->l1_size && code == 0; i++) {
        uint64_t count, offset = l1[i] & QE_OFFSET;
        if (!offset)
            continue;
        code = read_l2(s, l1[i], l2);
        if (code == 0)
            code = qcow2_shadow_get_m(h, offset >> s->cluster_bits, &count);
        int changed = code == 0 ? fix_copied(h, l2) : code;
        if (changed < 0)
            return changed;
        if (changed) {
            code = qcow2_shadow_add_m(h, offset >> s->cluster_bits, 1, -1);
            int64_t at = code == 0 ? qcow2_shadow_alloc_m(h, 1) : code;
            code = at < 0 ? (int)at : blk_pwrite(s->file, (uint64_t)at, l2, s->cluster_size, 0);
            l1[i] = (uint64_t)at | QE_COPIED;
            *ret_changed = true;
        } else if (!!(l1[i] & QE_COPIED) != (count == 1)) {
            l1[i] = offset | (count == 1 ? QE_COPIED : 0);
            *ret_changed = true;
        }
    }
    return code;
}

static int delete_m(struct qcow2 *s, uint32_t index)
{
    struct qshadow h;
    struct qsnap *q = &s->snaps[index];
    uint64_t *theirs = NULL, *l1 = NULL, bytes = 0;
    bool changed = false;
    int code = qcow2_shadow_begin_m(s, &h);
    if (code == 0)
        code = qcow2_load_l1(s, q->l1_offset, q->l1_size, &theirs);
    if (code == 0)
        code = count_tree(&h, theirs, q->l1_size, -1);
    free(theirs);
    if (code == 0)
        code = qcow2_shadow_add_m(&h, q->l1_offset >> s->cluster_bits, clusters_of(s, (uint64_t)MAX(q->l1_size, 1u) * 8), -1);
    if (code == 0)
        code = drop_old_table(&h);
    if (code == 0 && !(l1 = copy_l1(s->l1, s->l1_size, 0)))
        code = -ENOMEM;
    if (code == 0)
        code = recopy_active(&h, l1, &changed);
    int64_t at = (int64_t)s->l1_offset, table = 0;
    if (code == 0 && changed) {
        code = qcow2_shadow_add_m(&h, s->l1_offset >> s->cluster_bits, clusters_of(s, (uint64_t)MAX(s->l1_size, 1u) * 8), -1);
        at = code == 0 ? write_l1(&h, l1, s->l1_size) : code;
        code = at < 0 ? (int)at : 0;
    }
    autofree struct qsnap *rest = calloc(s->n_snaps, sizeof *rest);
    if (!rest)
        code = -ENOMEM;
    if (code == 0) {
        memcpy(rest, s->snaps, index * sizeof *rest);
        memcpy(rest + index, s->snaps + index + 1, (s->n_snaps - index - 1) * sizeof *rest);
        table = table_write(s, &h, rest, s->n_snaps - 1, &bytes);
        code = table < 0 ? (int)table : 0;
    }
    if (code == 0) {
        struct state now = state_of(s);
        struct qsnap *old = s->snaps, gone = *q;
        now.l1_offset = (uint64_t)at;
        now.snaps_offset = (uint64_t)table;
        now.snaps_bytes = bytes;
        now.n_snaps = s->n_snaps - 1;
        s->snaps = rest;
        code = commit(&h, &now, ptr_take(l1));
        s->snaps = old;
        if (code == 0) {
            sn_clear(&gone);
            free(old);
            s->snaps = ptr_take(rest);
        }
    }
    free(l1);
    qcow2_shadow_free(&h);
    return code;
}

int qcow2_snapshot_delete(struct blk_node *n, const char *id, struct err *err)
{
    struct qcow2 *s = n->priv;
    int i = find(s, id);
    if (i < 0)
        return err_set(err, i, "Could not delete snapshot '%s': snapshot not found", id);
    if (n->read_only)
        return err_set(err, -EROFS, "%s: opened read-only", n->filename);
    pthread_mutex_lock(&s->meta);
    int code = delete_m(s, (uint32_t)i);
    pthread_mutex_unlock(&s->meta);
    return code < 0 ? err_errno(err, code, "Could not delete snapshot '%s'", id) : 0;
}

int qcow2_snapshot_list(struct blk_node *n, struct blk_snapshot **ret, unsigned *ret_n, struct err *err)
{
    struct qcow2 *s = n->priv;
    struct blk_snapshot *v = calloc(s->n_snaps + 1, sizeof *v);
    if (!v)
        return err_set(err, -ENOMEM, "no memory");
    for (uint32_t i = 0; i < s->n_snaps; i++)
        v[i] = s->snaps[i].sn;
    *ret = v;
    *ret_n = s->n_snaps;
    return 0;
}

int qcow2_snapshot_load_tmp(struct blk_node *n, const char *id, struct err *err)
{
    struct qcow2 *s = n->priv;
    int i = find(s, id);
    uint64_t *l1;
    if (i < 0)
        return err_set(err, i, "Failed to load snapshot: Can't find snapshot '%s'", id);
    if (!n->read_only)
        return err_set(err, -EINVAL, "Failed to load snapshot: the image is not opened read-only");
    int code = qcow2_load_l1(s, s->snaps[i].l1_offset, s->snaps[i].l1_size, &l1);
    if (code < 0)
        return err_errno(err, code, "Failed to load snapshot '%s'", id);
    uint64_t covers = BIT64(s->l2_bits + s->cluster_bits);
    if ((s->snaps[i].sn.disk_size + covers - 1) / covers > s->snaps[i].l1_size) {
        free(l1);
        return err_set(err, -EINVAL, "Failed to load snapshot '%s': its L1 table is too small", id);
    }
    qcow2_install_l1(s, l1, s->snaps[i].l1_offset, s->snaps[i].l1_size);
    n->size = s->snaps[i].sn.disk_size;
    return 0;
}

/* ---- VM state ---- */

static uint64_t vmstate_at(const struct qcow2 *s, uint64_t offset)
{
    return (vmstate_index(s, s->node->size) << (s->l2_bits + s->cluster_bits)) + offset;
}

int qcow2_vmstate_read(struct blk_node *n, uint64_t offset, void *buf, size_t len)
{
    struct qcow2 *s = n->priv;
    struct iovec v = {buf, len};
    return offset > Q_OFFSET_MAX || len > Q_OFFSET_MAX ? -EINVAL : qcow2_preadv(n, vmstate_at(s, offset), &v, 1, len);
}

int qcow2_vmstate_write(struct blk_node *n, uint64_t offset, const void *buf, size_t len)
{
    struct qcow2 *s = n->priv;
    struct iovec v = {(void *)buf, len};
    if (offset > Q_OFFSET_MAX || len > Q_OFFSET_MAX || q_external(s))
        return -EINVAL;
    if (!len)
        return 0;
    uint64_t need = (uint64_t)q_l1_index(s, vmstate_at(s, offset) + len - 1) + 1;
    pthread_mutex_lock(&s->meta);
    int code = qcow2_grow_l1_m(s, need, n->size);
    pthread_mutex_unlock(&s->meta);
    return code < 0 ? code : qcow2_pwritev(n, vmstate_at(s, offset), &v, 1, len, 0);
}
