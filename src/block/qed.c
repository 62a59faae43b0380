/*
 * QED: a header, one L1 table, L2 tables of the same size, clusters. Little-endian; clusters are appended. A cluster's data is
 * durable before the table leads to it where a backing file shows through, so that no check is needed after a crash.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/blocks.h"

enum {
    HEADER = 64,
    F_BACKING = 1,
    F_NEED_CHECK = 2,
    F_BACKING_RAW = 4,
    H_CLUSTER = 4,
    H_TABLE = 8,
    H_HEADER = 12,
    H_FEATURES = 16,
    H_COMPAT = 24,
    H_AUTOCLEAR = 32,
    H_L1 = 40,
    H_SIZE = 48,
    H_BACKING_AT = 56,
    H_BACKING_LEN = 60,
    CACHE = 32, /* L2 tables in memory */
    BACKING_MAX = 1024,
};
#define TABLE_MAX (16 * MIB)

struct table {
    uint64_t at; /* 0: free slot */
    uint64_t used;
    uint8_t *entries;
};

struct qed {
    struct blocks b; /* first */
    uint8_t head[HEADER], *l1;
    uint64_t l1_at, features, end, clock;
    uint32_t table_bytes, entries;
    struct table cache[CACHE];
};

static int qed_probe(const uint8_t *head, size_t len, const char *filename)
{
    return len >= HEADER && !memcmp(head, "QED", 4) ? 100 : 0;
}

/* The L2 table at `at`, from memory or the file. Lock held. */
static int load(struct blk_node *n, uint64_t at, struct table **ret)
{
    struct qed *q = n->priv;
    struct table *t = &q->cache[0];
    for (unsigned i = 0; i < CACHE; i++) {
        if (q->cache[i].at == at) {
            q->cache[i].used = ++q->clock;
            *ret = &q->cache[i];
            return 0;
        }
        if (q->cache[i].used < t->used)
            t = &q->cache[i];
    }
    if (at % q->b.size || at < q->b.size || at > blk_node_file(n)->size || blk_node_file(n)->size - at < q->table_bytes)
        return -EIO;
    t->at = 0;
    if (!t->entries && !(t->entries = malloc(q->table_bytes)))
        return -ENOMEM;
    int code = blk_pread(blk_node_file(n), at, t->entries, q->table_bytes);
    if (code < 0)
        return code;
    t->at = at;
    t->used = ++q->clock;
    *ret = t;
    return 0;
}

static int qed_look(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    struct qed *q = n->priv;
    uint64_t i1 = index / q->entries, l2_at = i1 < q->entries ? le64_get(q->l1 + 8 * i1) : 0;
    struct table *t;
    if (!l2_at)
        return 0;
    int code = load(n, l2_at, &t);
    if (code < 0)
        return code;
    uint64_t e = le64_get(t->entries + 8 * (index % q->entries));
    if (e <= 1) {
        ret->kind = e ? BLOCK_ZERO : BLOCK_NONE;
        return 0;
    }
    if (e % q->b.size || e >= blk_node_file(n)->size)
        return -EIO;
    ret->kind = BLOCK_DATA;
    ret->host = e;
    return 0;
}

static int append(struct blk_node *n, uint64_t len, uint64_t *ret)
{
    struct qed *q = n->priv;
    struct blk_node *file = blk_node_file(n);
    *ret = q->end;
    int code = file->size < q->end + len ? blk_truncate(file, q->end + len, BLK_PREALLOC_OFF, false, NULL) : 0;
    if (code == 0)
        q->end += len;
    return code;
}

static int qed_place(struct blk_node *n, uint64_t index, struct block_at *ret)
{
    return append(n, ((struct qed *)n->priv)->b.size, &ret->host);
}

/* Enters a cluster (or 1: zero) into its L2 table, which is made if it is not there. */
static int enter(struct blk_node *n, uint64_t index, uint64_t value)
{
    struct qed *q = n->priv;
    struct blk_node *file = blk_node_file(n);
    uint64_t i1 = index / q->entries, i2 = index % q->entries;
    if (i1 >= q->entries)
        return -EINVAL;
    uint64_t l2_at = le64_get(q->l1 + 8 * i1);
    uint8_t entry[8];
    struct table *t;
    int code;
    le64_put(entry, value);
    if (l2_at) {
        if ((code = load(n, l2_at, &t)) < 0)
            return code;
        code = blk_pwrite(file, l2_at + 8 * i2, entry, 8, 0);
        if (code == 0)
            memcpy(t->entries + 8 * i2, entry, 8);
        return code;
    }
    if ((code = append(n, q->table_bytes, &l2_at)) < 0 || (code = load(n, l2_at, &t)) < 0)
        return code;
    code = blk_pwrite(file, l2_at + 8 * i2, entry, 8, 0);
    if (code == 0)
        code = blk_pflush(file); /* a table of garbage must never be reached */
    if (code < 0)
        return code;
    memcpy(t->entries + 8 * i2, entry, 8);
    le64_put(entry, l2_at);
    code = blk_pwrite(file, q->l1_at + 8 * i1, entry, 8, 0);
    if (code == 0)
        memcpy(q->l1 + 8 * i1, entry, 8);
    return code;
}

static int qed_publish(struct blk_node *n, uint64_t index, const struct block_at *at)
{
    return enter(n, index, at->host);
}

static int qed_forget(struct blk_node *n, uint64_t index)
{
    struct block_at at = {0};
    int code = qed_look(n, index, &at);
    if (code < 0)
        return code;
    return at.kind == BLOCK_NONE ? enter(n, index, 1) : -ENOTSUP; /* a cluster that is there is written */
}

static int read_backing(struct blk_node *n, struct qed *q, struct err *err)
{
    uint32_t at = le32_get(q->head + H_BACKING_AT), len = le32_get(q->head + H_BACKING_LEN);
    char name[BACKING_MAX];
    if (!(q->features & F_BACKING))
        return 0;
    if (len >= sizeof name || at > q->b.size || len > q->b.size - at)
        return err_set(err, -EINVAL, "%s: the backing file's name is outside of the header", n->filename);
    int code = blk_pread(blk_node_file(n), at, name, len);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", n->filename);
    name[len] = 0;
    n->backing_file = xstrdup(name);
    if (q->features & F_BACKING_RAW) {
        n->backing_format = xstrdup("raw");
    } else if (!(n->flags & BLK_O_NO_BACKING)) {
        /* The header knows "raw" and "not raw" only: the latter is found out by probing, and must not turn out raw. */
        auto_node struct blk_node *b = NULL;
        autofree char *path = blk_path_relative(n->filename, name);
        if (blk_node_open(path, NULL, NULL, BLK_O_NO_BACKING | BLK_O_NO_IO | BLK_O_FORCE_SHARE, &b, NULL) == 0 &&
            b->drv != &blk_raw)
            n->backing_format = xstrdup(b->drv->name);
    }
    return 0;
}

static int qed_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct blk_node *file = blk_node_file(n);
    struct qed *q = xcalloc(1, sizeof *q);
    n->priv = q;
    int code = blk_pread(file, 0, q->head, HEADER);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", n->filename);
    if (memcmp(q->head, "QED", 4))
        return err_set(err, -EINVAL, "Image not in QED format");
    uint32_t cluster = le32_get(q->head + H_CLUSTER), table = le32_get(q->head + H_TABLE);
    q->features = le64_get(q->head + H_FEATURES);
    q->l1_at = le64_get(q->head + H_L1);
    if (q->features & ~7ull)
        return err_set(err, -ENOTSUP, "%s: unsupported QED features: %llx", n->filename,
                       (unsigned long long)(q->features & ~7ull));
    if (cluster < 4096 || cluster > 64 << 20 || (cluster & (cluster - 1)) || !table || table > 16 || (table & (table - 1)) ||
        (uint64_t)table * cluster > TABLE_MAX)
        return err_set(err, -EINVAL, "%s: invalid QED cluster size %u or table size %u", n->filename, cluster, table);
    q->table_bytes = table * cluster;
    q->entries = q->table_bytes / 8;
    n->size = le64_get(q->head + H_SIZE);
    if (n->size % 512 || n->size / cluster > (uint64_t)q->entries * q->entries)
        return err_set(err, -EINVAL, "%s: invalid QED image size %llu", n->filename, (unsigned long long)n->size);
    if ((q->features & F_NEED_CHECK) && !n->read_only && !(n->flags & BLK_O_CHECK))
        return err_set(err, -EUCLEAN, "%s: was not closed properly; it can be read, or repaired by QEMU's qemu-img check -r",
                       n->filename);
    if (q->l1_at % cluster)
        return err_set(err, -EINVAL, "%s: the L1 table is not aligned", n->filename);
    code = blocks_read_table(file, "the L1 table", q->l1_at, q->table_bytes, TABLE_MAX, (void **)&q->l1, err);
    if (code < 0)
        return code;
    q->end = ALIGN_UP((uint64_t)file->size, (uint64_t)cluster);
    blk_blocks_init(&q->b, cluster);
    q->b.look = qed_look;
    q->b.place = qed_place;
    q->b.publish = qed_publish;
    q->b.forget = qed_forget;
    n->cluster_size = cluster;
    return read_backing(n, q, err);
}

static void qed_close(struct blk_node *n)
{
    struct qed *q = n->priv;
    blocks_clear(&q->b);
    for (unsigned i = 0; i < CACHE; i++)
        free(q->cache[i].entries);
    free(q->l1);
    free(q);
}

static int qed_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    uint64_t size, cluster, table;
    const char *backing = blk_opts_get(opts, "backing_file"), *format = blk_opts_get(opts, "backing_fmt");
    int code = blk_opts_size(opts, "size", 0, &size, err);
    if (code == 0)
        code = blk_opts_size(opts, "cluster_size", 65536, &cluster, err);
    if (code == 0)
        code = blk_opts_size(opts, "table_size", 4, &table, err);
    if (code < 0)
        return code;
    if (cluster < 4096 || cluster > 64 << 20 || (cluster & (cluster - 1)))
        return err_set(err, -EINVAL, "QED cluster size must be within range [4096, 67108864] and power of 2");
    if (!table || table > 16 || (table & (table - 1)) || table * cluster > TABLE_MAX)
        return err_set(err, -EINVAL, "QED table size must be within range [1, 16] and power of 2");
    size = ALIGN_UP(size, (uint64_t)512);
    uint64_t entries = table * cluster / 8;
    if (size / cluster > entries * entries)
        return err_set(err, -EFBIG, "QED image size must be a non-zero multiple of cluster size and less than %llu bytes",
                       (unsigned long long)(entries * entries * cluster));
    autofree uint8_t *head = calloc(1, cluster * (1 + table));
    size_t len = backing ? strlen(backing) : 0;
    if (!head)
        return err_errno(err, -ENOMEM, "header");
    if (len >= BACKING_MAX)
        return err_set(err, -EINVAL, "the backing file's name is too long");
    memcpy(head, "QED", 4);
    le32_put(head + H_CLUSTER, (uint32_t)cluster);
    le32_put(head + H_TABLE, (uint32_t)table);
    le32_put(head + H_HEADER, 1);
    le64_put(head + H_FEATURES, (len ? F_BACKING : 0) | (len && format && !strcmp(format, "raw") ? F_BACKING_RAW : 0));
    le64_put(head + H_L1, cluster);
    le64_put(head + H_SIZE, size);
    if (len) {
        le32_put(head + H_BACKING_AT, HEADER);
        le32_put(head + H_BACKING_LEN, (uint32_t)len);
        memcpy(head + HEADER, backing, len);
    }
    code = blk_pwrite(file, 0, head, cluster * (1 + table), 0);
    return code < 0 ? err_errno(err, code, "cannot write") : 0;
}

/* Growing changes one number. */
static int qed_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err)
{
    struct qed *q = n->priv;
    uint8_t text[8];
    size = ALIGN_UP(size, (uint64_t)512);
    if (prealloc != BLK_PREALLOC_OFF)
        return err_set(err, -ENOTSUP, "QED images cannot be preallocated");
    if (size < n->size)
        return err_set(err, -ENOTSUP, "Shrinking images is currently not supported");
    if (size / q->b.size > (uint64_t)q->entries * q->entries)
        return err_set(err, -EFBIG, "Image size is too large");
    le64_put(text, size);
    int code = blk_pwrite(blk_node_file(n), H_SIZE, text, 8, 0);
    if (code < 0)
        return err_errno(err, code, "%s: cannot write", n->filename);
    n->size = size;
    return 0;
}

static void report(struct blk_check *c, const char *what, uint64_t index, uint64_t at)
{
    char line[128];
    snprintf(line, sizeof line, "ERROR %s %llu: offset %#llx", what, (unsigned long long)index, (unsigned long long)at);
    c->corruptions++;
    if (c->report)
        c->report(c->opaque, true, line);
}

/* Every table and cluster inside the file, aligned, used once; what nobody uses is a leak. */
static int qed_check(struct blk_node *n, struct blk_check *c, unsigned fix, struct err *err)
{
    struct qed *q = n->priv;
    uint64_t file_clusters = (blk_node_file(n)->size + q->b.size - 1) / q->b.size, previous = 0, found = 0;
    if (fix)
        return err_set(err, -ENOTSUP, "QED images cannot be repaired");
    autofree uint8_t *used = calloc(1, file_clusters / 8 + 1);
    if (!used)
        return err_errno(err, -ENOMEM, "check");
    uint64_t total = (n->size + q->b.size - 1) / q->b.size;
    pthread_mutex_lock(&q->b.lock);
    for (uint64_t i1 = 0; i1 < q->entries; i1++) {
        struct table *t;
        uint64_t l2_at = le64_get(q->l1 + 8 * i1);
        if (!l2_at)
            continue;
        if (load(n, l2_at, &t) < 0) {
            report(c, "L2 table", i1, l2_at);
            continue;
        }
        for (uint64_t k = 0; k < q->table_bytes / q->b.size && l2_at / q->b.size + k < file_clusters; k++)
            used[(l2_at / q->b.size + k) / 8] |= (uint8_t)(1 << (l2_at / q->b.size + k) % 8);
        found += q->table_bytes / q->b.size;
        for (uint64_t i2 = 0; i2 < q->entries; i2++) {
            uint64_t e = le64_get(t->entries + 8 * i2), at = e / q->b.size;
            if (e <= 1)
                continue;
            if (e % q->b.size || at >= file_clusters || (used[at / 8] & 1 << at % 8)) {
                report(c, "cluster", i1 * q->entries + i2, e);
                continue;
            }
            used[at / 8] |= (uint8_t)(1 << at % 8);
            found++;
            c->allocated_clusters++;
            if (previous && at != previous + 1)
                c->fragmented_clusters++;
            previous = at;
        }
    }
    pthread_mutex_unlock(&q->b.lock);
    uint64_t fixed = 1 + q->table_bytes / q->b.size;
    if (file_clusters > fixed + found)
        c->leaks = file_clusters - fixed - found;
    c->total_clusters = total;
    return 0;
}

static const struct blk_create_opt create_opts[] = {
    {"size", BLK_OPT_SIZE, "Virtual disk size", NULL, false},
    {"backing_file", BLK_OPT_STRING, "File name of a base image", NULL, false},
    {"backing_fmt", BLK_OPT_STRING, "Image format of the base image", NULL, false},
    {"cluster_size", BLK_OPT_SIZE, "Cluster size (in bytes)", "65536", false},
    {"table_size", BLK_OPT_SIZE, "L1/L2 table size (in clusters)", NULL, false},
    {NULL},
};

const struct blk_driver blk_qed = {
    .name = "qed",
    .probe = qed_probe,
    .open = qed_open,
    .close = qed_close,
    .preadv = blocks_preadv,
    .pwritev = blocks_pwritev,
    .pwrite_zeroes = blocks_pwrite_zeroes,
    .block_status = blocks_block_status,
    .create_opts = create_opts,
    .create = qed_create,
    .truncate = qed_truncate,
    .check = qed_check,
};
