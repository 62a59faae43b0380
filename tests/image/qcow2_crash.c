/*
 * Crash points of qcow2. A random workload runs on a file that logs every write and flush. Then states that a power cut could
 * have left are built: all up to some point of the log, but of what came after the last flush only a part, in any order, and
 * writes torn between sectors. Each must open without repair, have no corruption (leaks are allowed), and show data that was
 * flushed; also by the eyes of the peer's `qemu-img check`, for a sample.
 *
 *   qcow2_crash [--seed N] [--workloads N] [--points N] [--peer EVERY]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "memfile.h"

enum { SECTOR = 512, OPS = 120, SECTORS_MAX = 8192, BACKING_SECTORS = 900 };

static bool tracing;
#define trace(...) (tracing ? (void)fprintf(stderr, __VA_ARGS__) : (void)0)

static uint64_t rng_state;
static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * 0x2545f4914f6cdd1dull >> 11;
}
static uint64_t torn(void *opaque)
{
    return rnd();
}

/* What a sector was given, and when (position in the log). */
struct event {
    size_t at;
    uint64_t value;
};
struct history {
    struct event *v;
    size_t n;
};
struct flush {
    size_t at; /* log position when it was over */
};

struct world {
    struct memfile *mem;
    struct blk_node *file, *node;
    unsigned flags;
    bool backing, v2;
    uint64_t cluster, sectors;
    struct history sector[SECTORS_MAX];
    uint64_t now[SECTORS_MAX];
    struct flush flushes[OPS * 4];
    size_t n_flushes;
    uint64_t snap[4][SECTORS_MAX], snap_sectors[4];
    bool have_snap[4];
    uint64_t next_value;
    char what[200];
    uint64_t seed;
};

static void fail(const struct world *w, const char *fmt, const char *detail)
{
    fprintf(stderr, "seed %llu (%s): ", (unsigned long long)w->seed, w->what);
    fprintf(stderr, fmt, detail);
    fprintf(stderr, "\n");
    abort();
}

static uint64_t backing_value(const struct world *w, uint64_t sector)
{
    return w->backing && sector < BACKING_SECTORS && sector % 3 ? (1ull << 40) + sector : 0;
}

static void fill(uint8_t *buf, uint64_t value)
{
    for (unsigned i = 0; i < SECTOR; i += 8)
        memcpy(buf + i, &value, 8);
}

static void put(struct world *w, uint64_t sector, uint64_t value, bool sure)
{
    struct history *h = &w->sector[sector];
    h->v = realloc(h->v, (h->n + 1) * sizeof *h->v);
    if (!h->v)
        abort();
    h->v[h->n++] = (struct event){w->mem->n, value};
    if (sure)
        w->now[sector] = value;
}

static void flushed(struct world *w)
{
    w->flushes[w->n_flushes++] = (struct flush){w->mem->n};
}

/* ---- the image ---- */

static struct blk_node *backing_node(void)
{
    uint8_t *data = xcalloc(BACKING_SECTORS, SECTOR);
    struct world w = {.backing = true};
    for (uint64_t i = 0; i < BACKING_SECTORS; i++)
        fill(data + i * SECTOR, backing_value(&w, i));
    struct blk_node *file = memfile_from(data, BACKING_SECTORS * SECTOR, NULL), *n = NULL;
    free(data);
    file->read_only = true;
    if (blk_node_open_on(file, "raw", NULL, 0, &n, NULL) < 0)
        abort();
    return n;
}

static int open_image(struct blk_node *file, unsigned flags, bool backing, struct blk_node **ret, struct err *err)
{
    int code = blk_node_open_on(blk_node_ref(file), "qcow2", NULL, flags | BLK_O_NO_BACKING, ret, err);
    if (code == 0 && backing)
        code = blk_attach(*ret, backing_node(), "backing", BLK_ROLE_BACKING, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL,
                          err);
    return code;
}

static void setup(struct world *w)
{
    static const char *const clusters[] = {"512", "1k", "4k", "16k", "64k"};
    static const char *const widths[] = {"16", "16", "64", "8", "32"};
    auto_opts struct blk_opts *o = blk_opts_new();
    struct err err = {0};
    char size[32];
    unsigned c = (unsigned)(rnd() % ARRAY_SIZE(clusters)), r = (unsigned)(rnd() % ARRAY_SIZE(widths));
    bool ext = c >= 3 && rnd() % 2;
    w->v2 = !ext && rnd() % 6 == 0;
    w->backing = rnd() % 2;
    w->sectors = 600 + rnd() % (SECTORS_MAX / 4);
    w->cluster = 512u << (c < 2 ? c : c * 2 - 1);
    if (w->v2)
        r = 0;
    snprintf(size, sizeof size, "%llu", (unsigned long long)w->sectors * SECTOR);
    blk_opts_set(o, "size", size);
    blk_opts_set(o, "cluster_size", clusters[c]);
    blk_opts_set(o, "refcount_bits", widths[r]);
    blk_opts_set(o, "extended_l2", ext ? "on" : "off");
    blk_opts_set(o, "compat", w->v2 ? "0.10" : "1.1");
    if (w->backing) {
        blk_opts_set(o, "backing_file", "base");
        blk_opts_set(o, "backing_fmt", "raw");
    }
    snprintf(w->what, sizeof w->what, "cluster %s, refcount %s, %s%s%s", clusters[c], widths[r], ext ? "subclusters, " : "",
             w->backing ? "backing, " : "", w->v2 ? "v2" : "v3");
    w->file = memfile_new(&w->mem);
    if (blk_qcow2.create(w->file, o, &err) < 0)
        fail(w, "create: %s", err.msg);
    w->mem->logging = true;
    if (rnd() % 2)
        w->flags = BLK_O_UNMAP;
    if (open_image(w->file, BLK_O_RDWR | w->flags, w->backing, &w->node, &err) < 0)
        fail(w, "open: %s", err.msg);
    for (uint64_t i = 0; i < w->sectors; i++)
        w->now[i] = backing_value(w, i);
    for (uint64_t i = 0; i < SECTORS_MAX; i++)
        put(w, i, i < w->sectors ? backing_value(w, i) : 0, true);
    if (blk_pflush(w->node) < 0)
        fail(w, "%s", "first flush");
    flushed(w);
}

/* ---- the workload ---- */

static void must(struct world *w, int code, const char *what)
{
    char text[100];
    snprintf(text, sizeof text, "%s: %s", what, strerror(-code));
    if (code < 0)
        fail(w, "%s", text);
}

static void do_write(struct world *w, bool compressed)
{
    uint64_t per = w->cluster / SECTOR, from = rnd() % w->sectors, n = 1 + rnd() % (rnd() % 4 ? 8 : 3 * per + 1);
    if (compressed) {
        from = ALIGN_DOWN(from, per);
        n = per;
    }
    n = MIN(n, w->sectors - from);
    trace("%zu write%s %llu +%llu\n", w->mem->n, compressed ? " -c" : "", (unsigned long long)from, (unsigned long long)n);
    uint8_t *buf = xcalloc(n, SECTOR);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t v = ++w->next_value;
        fill(buf + i * SECTOR, v);
        put(w, from + i, v, true);
    }
    int code = blk_pwrite(w->node, from * SECTOR, buf, n * SECTOR, compressed ? BLK_F_COMPRESSED : 0);
    free(buf);
    must(w, code, compressed ? "compressed write" : "write");
}

static void do_zero(struct world *w)
{
    uint64_t from = rnd() % w->sectors, n = 1 + rnd() % 300;
    n = MIN(n, w->sectors - from);
    trace("%zu zero %llu +%llu\n", w->mem->n, (unsigned long long)from, (unsigned long long)n);
    for (uint64_t i = from; i < from + n; i++)
        put(w, i, 0, true);
    must(w, blk_pwrite_zeroes(w->node, from * SECTOR, n * SECTOR, rnd() % 2 ? BLK_F_UNMAP : 0), "zeroes");
}

static void read_now(struct world *w)
{
    uint8_t *buf = xcalloc(w->sectors, SECTOR), want[SECTOR];
    must(w, blk_pread(w->node, 0, buf, w->sectors * SECTOR), "read");
    for (uint64_t i = 0; i < w->sectors; i++) {
        fill(want, w->now[i]);
        if (memcmp(want, buf + i * SECTOR, SECTOR)) {
            char text[100];
            uint64_t got;
            memcpy(&got, buf + i * SECTOR, 8);
            snprintf(text, sizeof text, "sector %llu: %llx, not %llx", (unsigned long long)i, (unsigned long long)got,
                     (unsigned long long)w->now[i]);
            fail(w, "live data: %s", text);
        }
    }
    free(buf);
}

/* A discard may or may not take effect: what is there then is read. */
static void do_discard(struct world *w)
{
    uint64_t from = rnd() % w->sectors, n = 1 + rnd() % 400;
    n = MIN(n, w->sectors - from);
    trace("%zu discard %llu +%llu\n", w->mem->n, (unsigned long long)from, (unsigned long long)n);
    for (uint64_t i = from; i < from + n; i++)
        put(w, i, 0, false);
    must(w, blk_pdiscard(w->node, from * SECTOR, n * SECTOR), "discard");
    for (uint64_t i = from; i < from + n; i++) {
        uint64_t got;
        must(w, blk_pread(w->node, i * SECTOR, &got, 8), "read");
        if (got && got != w->now[i])
            fail(w, "%s", "a discarded sector has other data");
        w->now[i] = got;
    }
}

static void do_snapshot(struct world *w)
{
    unsigned k = (unsigned)(rnd() % 4);
    struct err err = {0};
    char id[8];
    snprintf(id, sizeof id, "s%u", k);
    trace("%zu snapshot %u (%s)\n", w->mem->n, k, w->have_snap[k] ? "apply or delete" : "create");
    if (!w->have_snap[k]) {
        struct blk_snapshot sn = {0};
        snprintf(sn.name, sizeof sn.name, "%s", id);
        if (blk_snapshot_create(w->node, &sn, &err) < 0)
            fail(w, "snapshot: %s", err.msg);
        memcpy(w->snap[k], w->now, sizeof w->now);
        w->snap_sectors[k] = w->sectors;
        w->have_snap[k] = true;
    } else if (rnd() % 2 && !(w->v2 && w->snap_sectors[k] != w->sectors)) {
        uint64_t n = MAX(w->sectors, w->snap_sectors[k]);
        static uint64_t before[SECTORS_MAX];
        memcpy(before, w->now, sizeof before);
        for (uint64_t i = 0; i < n; i++)
            put(w, i, i < w->snap_sectors[k] ? w->snap[k][i] : 0, true);
        if (blk_snapshot_apply(w->node, id, &err) < 0) {
            if (err.code != -ENOTSUP)
                fail(w, "apply: %s", err.msg);
            memcpy(w->now, before, sizeof before); /* nothing happened */
            for (uint64_t i = 0; i < n; i++)
                w->sector[i].n--;
            return;
        }
        w->sectors = w->snap_sectors[k];
        read_now(w);
    } else {
        if (blk_snapshot_delete(w->node, id, &err) < 0)
            fail(w, "delete: %s", err.msg);
        w->have_snap[k] = false;
    }
}

static void do_resize(struct world *w)
{
    uint64_t n = 500 + rnd() % (rnd() % 4 ? SECTORS_MAX / 4 : SECTORS_MAX - 500);
    struct err err = {0};
    for (unsigned k = 0; k < 4; k++)
        if (w->have_snap[k] && w->v2)
            return;
    trace("%zu resize %llu -> %llu\n", w->mem->n, (unsigned long long)w->sectors, (unsigned long long)n);
    for (uint64_t i = MIN(n, w->sectors); i < MAX(n, w->sectors); i++)
        put(w, i, 0, true);
    if (blk_truncate(w->node, n * SECTOR, BLK_PREALLOC_OFF, true, &err) < 0)
        fail(w, "resize: %s", err.msg);
    w->sectors = n;
}

static void do_bitmap(struct world *w)
{
    struct err err = {0};
    struct blk_bitmap *v;
    unsigned n;
    if (w->v2)
        return;
    if (blk_bitmap_list(w->node, &v, &n, &err) < 0)
        fail(w, "%s", err.msg);
    free(v);
    int code = n < 2 ? blk_bitmap_add(w->node, n ? "b" : "a", 4096, rnd() % 2, &err) : blk_bitmap_remove(w->node, "a", &err);
    if (code < 0 && code != -EEXIST && code != -ENOENT)
        fail(w, "bitmap: %s", err.msg);
}

static void reopen(struct world *w)
{
    struct err err = {0};
    trace("%zu reopen\n", w->mem->n);
    blk_node_unref(w->node);
    flushed(w);
    if (open_image(w->file, BLK_O_RDWR | w->flags, w->backing, &w->node, &err) < 0)
        fail(w, "open again: %s", err.msg);
}

static void check_now(struct world *w)
{
    struct err err = {0};
    struct blk_check c = {0};
    must(w, blk_pflush(w->node), "flush");
    must(w, blk_pflush(w->node), "flush");
    flushed(w);
    if (blk_check(w->node, &c, 0, &err) < 0 || c.corruptions || c.check_errors || c.leaks)
        fail(w, "the live image is not sound: %s", c.corruptions ? "corruptions" : c.leaks ? "leaks" : err.msg);
}

static void run(struct world *w)
{
    for (unsigned i = 0; i < OPS; i++) {
        switch (rnd() % 24) {
        case 0:
        case 1:
        case 2:
            must(w, blk_pflush(w->node), "flush");
            flushed(w);
            break;
        case 3:
        case 4:
            do_zero(w);
            break;
        case 5:
        case 6:
            do_discard(w);
            break;
        case 7:
        case 8:
            do_snapshot(w);
            break;
        case 9:
            do_resize(w);
            break;
        case 10:
            do_bitmap(w);
            break;
        case 11:
            reopen(w);
            break;
        case 12:
        case 13:
            do_write(w, true);
            break;
        case 14:
            read_now(w);
            break;
        case 15:
            check_now(w);
            break;
        default:
            do_write(w, false);
            break;
        }
    }
    read_now(w);
    check_now(w);
    blk_node_unref(w->node);
    flushed(w);
}

/* ---- crash points ---- */

static void peer_check(const struct world *w, const uint8_t *data, uint64_t size, size_t point)
{
    char path[] = "/tmp/lodge-crash-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0 || fd_write_full(fd, data, size) < 0)
        abort();
    close(fd);
    char cmd[200], text[4096] = "";
    snprintf(cmd, sizeof cmd, "qemu-img check -U --image-opts driver=qcow2,backing=,file.filename=%s 2>&1", path);
    FILE *p = popen(cmd, "re");
    size_t n = p ? fread(text, 1, sizeof text - 1, p) : 0;
    text[n] = 0;
    int status = p ? pclose(p) : -1;
    unlink(path);
    if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3) {
        fprintf(stderr, "point %zu\n", point);
        fail(w, "the peer finds: %s", text);
    }
}

static void report(void *opaque, bool error, const char *line)
{
    if (error)
        fprintf(stderr, "%s\n", line);
}

static bool allowed(const struct world *w, uint64_t sector, uint64_t got, size_t point, size_t flush_at)
{
    const struct history *h = &w->sector[sector];
    uint64_t base = 0;
    for (size_t i = 0; i < h->n && h->v[i].at <= point; i++) {
        if (h->v[i].at < flush_at) {
            /* A discard's zero may not have come: both are good from then on. */
            if (h->v[i].value == 0 && got == base)
                base = got;
            else
                base = h->v[i].value;
            continue;
        }
        if (h->v[i].value == got)
            return true;
    }
    return got == base || (got == 0 && base == 0);
}

static void check_point(struct world *w, const uint8_t *data, uint64_t size, size_t point, bool peer)
{
    struct err err = {0};
    struct blk_node *file = memfile_from(data, size, NULL), *n = NULL;
    struct blk_check c = {.report = report};
    size_t flush_at = 0;
    char text[200];
    for (size_t i = 0; i < w->n_flushes && w->flushes[i].at <= point; i++)
        flush_at = w->flushes[i].at;
    if (open_image(file, rnd() % 8 ? 0 : BLK_O_RDWR, w->backing, &n, &err) < 0)
        fail(w, "after a cut it does not open: %s", err.msg);
    if (blk_check(n, &c, 0, &err) < 0 || c.corruptions || c.check_errors) {
        snprintf(text, sizeof text, "point %zu: %s", point, err.msg);
        fail(w, "after a cut it is corrupt: %s", text);
    }
    uint64_t sectors = n->size / SECTOR;
    uint8_t *buf = xcalloc(sectors + 1, SECTOR), want[SECTOR];
    if (sectors > SECTORS_MAX || blk_pread(n, 0, buf, sectors * SECTOR) < 0)
        fail(w, "%s", "after a cut it cannot be read");
    for (uint64_t i = 0; i < sectors; i++) {
        uint64_t got;
        memcpy(&got, buf + i * SECTOR, 8);
        fill(want, got);
        /* A sector written whole is whole, and it is one that may be there. */
        if (memcmp(want, buf + i * SECTOR, SECTOR) || !allowed(w, i, got, point, flush_at)) {
            snprintf(text, sizeof text, "point %zu of %zu, sector %llu has %llx", point, w->mem->n, (unsigned long long)i,
                     (unsigned long long)got);
            fail(w, "after a cut flushed data is lost, or there is data that never was: %s", text);
        }
    }
    free(buf);
    blk_node_unref(n);
    blk_node_unref(file);
    if (peer)
        peer_check(w, data, size, point);
}

static unsigned long points(struct world *w, unsigned per_workload, unsigned peer_every, const uint8_t *start,
                            uint64_t start_size)
{
    size_t cap = 64 * MIB, n = w->mem->n, pending = 0;
    uint8_t *durable = xcalloc(1, cap), *cut = malloc(cap);
    uint64_t size = start_size;
    unsigned long done = 0;
    if (!cut)
        abort();
    memcpy(durable, start, start_size);
    for (size_t p = 0; p < n; p++) {
        const struct mem_entry *e = &w->mem->log[p];
        if (e->op == MEM_FLUSH) {
            for (size_t i = pending; i < p; i++)
                memfile_apply(&w->mem->log[i], durable, cap, &size, NULL, NULL);
            pending = p + 1;
        }
        if (rnd() % n >= per_workload)
            continue;
        uint64_t now = size;
        uint64_t span = MIN(cap, MAX(size, 1ull) + 8 * MIB);
        memset(cut, 0, span);
        memcpy(cut, durable, size);
        unsigned mode = (unsigned)(rnd() % 4); /* all; a subset; a subset in any order; torn, too */
        size_t k = p + 1 - MIN(pending, p + 1), *order = xcalloc(k + 1, sizeof *order);
        for (size_t i = 0; i < k; i++)
            order[i] = pending + i;
        for (size_t i = k; mode >= 2 && i > 1; i--) {
            size_t j = rnd() % i, t = order[i - 1];
            order[i - 1] = order[j];
            order[j] = t;
        }
        for (size_t i = 0; i < k; i++)
            if (mode == 0 || rnd() % 3)
                memfile_apply(&w->mem->log[order[i]], cut, cap, &now, mode == 3 && rnd() % 2 ? torn : NULL, NULL);
        free(order);
        check_point(w, cut, now, p, peer_every && done % peer_every == 0);
        done++;
    }
    free(durable);
    free(cut);
    return done;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, workloads = 30, per = 130, peer = 12;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t v = strtoull(argv[i + 1], NULL, 0);
        if (!strcmp(argv[i], "--seed"))
            seed = v;
        else if (!strcmp(argv[i], "--workloads"))
            workloads = v;
        else if (!strcmp(argv[i], "--points"))
            per = v;
        else if (!strcmp(argv[i], "--trace"))
            tracing = v;
        else if (!strcmp(argv[i], "--peer"))
            peer = v;
    }
    bool have_peer = system("qemu-img --version >/dev/null 2>&1") == 0;
    unsigned long done = 0;
    if (!have_peer)
        printf("qemu-img is not installed: only our own check is asked\n");
    for (uint64_t i = seed; i < seed + workloads; i++) {
        struct world *w = xcalloc(1, sizeof *w);
        w->seed = i;
        rng_state = i * 0x9e3779b97f4a7c15ull + 1;
        for (unsigned k = 0; k < 20; k++)
            rnd();
        setup(w);
        /* The state before the log began is what the first crash points start from. */
        uint64_t size = 0;
        uint8_t *start = xcalloc(1, 64 * MIB);
        memcpy(start, w->mem->data, w->file->size);
        size = w->file->size;
        size_t first = w->mem->n;
        run(w);
        /* Entries before `first` are in `start` already; applying them again changes nothing that later ones do not set. */
        for (size_t k = 0; k < first; k++) {
            free(w->mem->log[k].data);
            w->mem->log[k] = (struct mem_entry){.op = MEM_FLUSH};
        }
        done += points(w, (unsigned)per, have_peer ? (unsigned)peer : 0, start, size);
        free(start);
        blk_node_unref(w->file);
        for (uint64_t k = 0; k < SECTORS_MAX; k++)
            free(w->sector[k].v);
        free(w);
    }
    printf("%llu workloads, %lu crash points\n", (unsigned long long)workloads, done);
    return 0;
}
