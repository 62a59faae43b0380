/*
 * A guest's disk on qcow2 chains: several queues with their loops at random I/O against a model, while the graph below changes
 * (filters and overlays come and go), snapshots of the size change, limits and drains come in between.
 *
 *   disk [--seed N] [--changes N]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "block/block.h"
#include "block/driver.h"
#include "block/image.h"

enum { QUEUES = 3, DEPTH = 8, BLOCK = 4096, BLOCKS = 4096, OWN = BLOCKS / QUEUES };

#define MUST(x)                                                                                                        \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* ---- a filter that passes everything on ---- */

static int pass_preadv(struct blk_node *n, uint64_t off, const struct iovec *iov, unsigned niov, uint64_t len)
{
    return blk_preadv(blk_node_file(n), off, iov, niov);
}
static int pass_pwritev(struct blk_node *n, uint64_t off, const struct iovec *iov, unsigned niov, uint64_t len, unsigned fl)
{
    return blk_pwritev(blk_node_file(n), off, iov, niov, fl);
}
static int pass_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    return blk_pwrite_zeroes(blk_node_file(n), off, len, flags);
}
static int pass_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    return blk_pdiscard(blk_node_file(n), off, len);
}
static void pass_map(struct blk_node *n, bool write, uint64_t off, uint64_t len, struct blk_map *ret)
{
    *ret = (struct blk_map){.kind = BLK_MAP_CHILD, .child = blk_node_file(n), .host = off, .len = len};
}
static const struct blk_driver pass = {
    .name = "pass", .preadv = pass_preadv, .pwritev = pass_pwritev, .pwrite_zeroes = pass_zero, .pdiscard = pass_discard,
    .map = pass_map};

/* ---- I/O ---- */

struct slot {
    struct blk_req req; /* first */
    struct io *io;
    struct iovec iov;
    uint8_t buf[BLOCK * 4];
    unsigned block, n;
    bool busy;
    uint32_t value;
};

struct io {
    struct blk *blk;
    struct blk_queue *q;
    struct loop *loop;
    pthread_t thread;
    unsigned index;
    uint64_t rng;
    struct slot slots[DEPTH];
    uint32_t want[BLOCKS];
    uint8_t under_way[BLOCKS];
    uint32_t next;
    unsigned long done;
    _Atomic bool stop;
    _Atomic unsigned long progress;
    struct timer kick;
    struct clock clock;
    unsigned busy;
};

static uint64_t rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s * 0x2545f4914f6cdd1dull >> 11;
}

static void fill(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < BLOCK; i += 4)
        memcpy(p + i, &v, 4);
}

static void next(struct io *io);

static void done(struct blk_req *req, int ret)
{
    struct slot *s = (struct slot *)req;
    struct io *io = s->io;
    MUST(ret == 0);
    MUST(s->busy);
    for (unsigned i = 0; i < s->n; i++) {
        unsigned b = s->block + i;
        io->under_way[b] = 0;
        if (req->op == BLK_READ) {
            uint8_t want[BLOCK];
            fill(want, io->want[b]);
            if (memcmp(want, s->buf + i * BLOCK, BLOCK)) {
                uint32_t got;
                memcpy(&got, s->buf + i * BLOCK, 4);
                fprintf(stderr, "queue %u, block %u: %x, not %x\n", io->index, b, got, io->want[b]);
                abort();
            }
        }
    }
    s->busy = false;
    io->busy--;
    io->done++;
    atomic_fetch_add(&io->progress, 1);
}

static void next(struct io *io)
{
    bool some = false;
    for (unsigned k = 0; k < DEPTH; k++) {
        struct slot *s = &io->slots[k];
        if (s->busy || io->stop)
            continue;
        s->n = 1 + (unsigned)(rnd(&io->rng) % 4);
        s->block = io->index * OWN + (unsigned)(rnd(&io->rng) % (OWN - 4));
        bool clash = false;
        for (unsigned i = 0; i < s->n; i++)
            clash = clash || io->under_way[s->block + i];
        if (clash)
            continue;
        unsigned what = (unsigned)(rnd(&io->rng) % 20);
        s->io = io;
        s->iov = (struct iovec){s->buf, s->n * BLOCK};
        s->req = (struct blk_req){.op = what < 8 ? BLK_READ : what < 17 ? BLK_WRITE : what < 19 ? BLK_WRITE_ZEROES : BLK_FLUSH,
                                  .offset = (uint64_t)s->block * BLOCK,
                                  .len = s->n * BLOCK,
                                  .iov = &s->iov,
                                  .niov = 1,
                                  .done = done};
        if (s->req.op == BLK_FLUSH) {
            s->n = 0;
            s->req.len = s->req.offset = 0;
        }
        for (unsigned i = 0; i < s->n; i++) {
            unsigned b = s->block + i;
            io->under_way[b] = 1;
            if (s->req.op == BLK_WRITE)
                fill(s->buf + i * BLOCK, io->want[b] = ++io->next << 4 | io->index);
            else if (s->req.op == BLK_WRITE_ZEROES)
                io->want[b] = 0;
        }
        if (s->req.op == BLK_WRITE_ZEROES && what == 17)
            s->req.flags = BLK_REQ_UNMAP;
        s->busy = true;
        io->busy++;
        some = true;
        blk_submit(io->q, &s->req);
    }
    if (some)
        blk_kick(io->q);
    if (io->stop && !io->busy)
        loop_quit(io->loop);
    else
        timer_arm(&io->kick, clock_now(&io->clock) + 20000);
}

static void tick(void *opaque)
{
    next(opaque);
}

static void *run(void *opaque)
{
    struct io *io = opaque;
    timer_arm(&io->kick, 0);
    loop_run(io->loop);
    return NULL;
}

/* ---- changes ---- */

static struct blk_node *make_image(const char *path, const char *backing, const char *options)
{
    auto_opts struct blk_opts *o = blk_opts_new();
    struct err err = {0};
    struct blk_node *n;
    char size[32];
    snprintf(size, sizeof size, "%u", BLOCKS * BLOCK);
    blk_opts_set(o, "size", size);
    if (backing) {
        blk_opts_set(o, "backing_file", backing);
        blk_opts_set(o, "backing_fmt", "qcow2");
    }
    MUST(blk_opts_parse(o, options, &err) == 0);
    if (blk_create("qcow2", path, o, &err) < 0 ||
        blk_node_open(path, "qcow2", NULL, BLK_O_RDWR | (backing ? BLK_O_NO_BACKING : 0), &n, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    return n;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    unsigned changes = 1500;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed"))
            seed = strtoull(argv[i + 1], NULL, 0);
        else if (!strcmp(argv[i], "--changes"))
            changes = (unsigned)strtoul(argv[i + 1], NULL, 0);
    }
    char dir[] = "/tmp/lodge-disk-XXXXXX", base[64], top[64];
    struct err err = {0};
    struct blk *blk;
    MUST(mkdtemp(dir));
    snprintf(base, sizeof base, "%s/base", dir);
    snprintf(top, sizeof top, "%s/top", dir);
    uint64_t rng = seed * 0x9e3779b97f4a7c15ull + 1;
    struct blk_node *node = make_image(base, NULL, seed % 2 ? "cluster_size=16k" : "extended_l2=on");
    struct blk_options opt = {.path = base};
    MUST(blk_open_node(node, &opt, &blk, &err) == 0);
    blk_node_unref(node);
    static struct io ios[QUEUES];
    for (unsigned i = 0; i < QUEUES; i++) {
        struct io *io = &ios[i];
        io->blk = blk;
        io->index = i;
        io->rng = rng + i * 77 + 1;
        MUST(loop_new(&io->loop, NULL) == 0);
        clock_init(&io->clock, 0);
        clock_start(&io->clock);
        timer_init(&io->kick, io->loop, &io->clock, tick, io);
        io->q = blk_queue_new(blk, io->loop, &err);
        MUST(io->q);
        MUST(pthread_create(&io->thread, NULL, run, io) == 0);
    }
    unsigned filters = 0, overlays = 0, resized = 0, limited = 0;
    uint64_t size = (uint64_t)BLOCKS * BLOCK;
    for (unsigned c = 0; c < changes; c++) {
        struct blk_node *root = blk_root(blk);
        unsigned what = (unsigned)(rnd(&rng) % 100);
        if (root->drv == &pass && what < 60) { /* the filter goes */
            struct blk_node *below = blk_node_ref(blk_node_file(root));
            blk_node_unref(blk_replace_root(blk, below));
        } else if (what < 70) { /* a filter comes */
            struct blk_node *f = blk_node_new(&pass, "filter", BLK_O_RDWR);
            f->size = atomic_load(&root->size);
            blk_drain_begin(blk);
            MUST(blk_attach(f, blk_node_ref(root), "file", BLK_ROLE_FILTERED, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL,
                            &err) == 0);
            blk_node_unref(blk_replace_root(blk, f));
            blk_drain_end(blk);
            filters++;
        } else if (what < 72 && root->drv == &blk_qcow2 && !blk_node_backing(root) && overlays < 3) {
            /* A live external snapshot. */
            struct blk_node *over = make_image(top, base, overlays % 2 ? "extended_l2=on" : "");
            blk_drain_begin(blk);
            MUST(blk_pflush(root) == 0);
            MUST(blk_attach(over, blk_node_ref(root), "backing", BLK_ROLE_BACKING, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                            NULL, &err) == 0);
            blk_node_unref(blk_replace_root(blk, over));
            blk_drain_end(blk);
            overlays++;
        } else if (what < 74 && root->drv == &blk_qcow2 && blk_node_backing(root)) {
            /* Commit, and the overlay goes. */
            struct blk_node *below = blk_node_backing(root);
            blk_drain_begin(blk);
            uint8_t *buf = malloc(MIB);
            for (uint64_t at = 0; at < (uint64_t)BLOCKS * BLOCK;) {
                struct blk_extent e;
                MUST(blk_block_status(root, at, MIN(MIB, (uint64_t)BLOCKS * BLOCK - at), false, &e) == 0);
                if (e.flags & BLK_STATUS_ALLOCATED) {
                    MUST(blk_pread(root, at, buf, e.len) == 0);
                    MUST(blk_pwrite(below, at, buf, e.len, 0) == 0);
                }
                at += e.len;
            }
            free(buf);
            if (below->size < size)
                MUST(blk_truncate(below, size, BLK_PREALLOC_OFF, false, &err) == 0);
            blk_node_unref(blk_replace_root(blk, blk_node_ref(below)));
            blk_drain_end(blk);
        } else if (what < 76 && root->drv == &blk_qcow2) {
            size += 65536;
            MUST(blk_resize(blk, size, &err) == 0);
            resized++;
        } else if (what < 78) {
            struct blk_limits l = {.ops[BLK_LIMIT_ALL] = {.avg = 20000 + rnd(&rng) % 20000}};
            blk_set_limits(blk, c % 2 ? &l : NULL);
            limited++;
        } else if (what < 79 && root->drv == &blk_qcow2 && !blk_node_backing(root)) {
            struct blk_snapshot sn = {.name = "s"};
            blk_drain_begin(blk);
            MUST(blk_snapshot_create(root, &sn, &err) == 0);
            if (c % 2)
                MUST(blk_snapshot_delete(root, "s", &err) == 0);
            else
                MUST(blk_snapshot_apply(root, "s", &err) == 0 && blk_snapshot_delete(root, "s", &err) == 0);
            blk_drain_end(blk);
        } else {
            blk_drain_begin(blk);
            blk_drain_end(blk);
        }
        if (c % 16 == 0)
            usleep((useconds_t)(rnd(&rng) % 2000));
    }
    blk_set_limits(blk, NULL);
    unsigned long total = 0;
    for (unsigned i = 0; i < QUEUES; i++)
        atomic_store(&ios[i].stop, true);
    for (unsigned i = 0; i < QUEUES; i++) {
        pthread_join(ios[i].thread, NULL);
        blk_queue_free(ios[i].q);
        total += ios[i].done;
    }
    /* What everybody wrote is there, by the blocking calls, too. */
    uint8_t *all = malloc((size_t)BLOCKS * BLOCK), want[BLOCK];
    MUST(blk_pread(blk_root(blk), 0, all, (size_t)BLOCKS * BLOCK) == 0);
    for (unsigned i = 0; i < QUEUES; i++)
        for (unsigned b = i * OWN; b < (i + 1) * OWN; b++) {
            fill(want, ios[i].want[b]);
            MUST(!memcmp(want, all + (size_t)b * BLOCK, BLOCK));
        }
    free(all);
    MUST(blk_pflush(blk_root(blk)) == 0 && blk_pflush(blk_root(blk)) == 0);
    struct blk_node *n = blk_root(blk);
    while (n->drv == &pass)
        n = blk_node_file(n);
    for (; n; n = blk_node_backing(n)) {
        struct blk_check k = {0};
        MUST(blk_check(n, &k, 0, &err) == 0);
        MUST(!k.corruptions && !k.leaks && !k.check_errors);
    }
    blk_close(blk);
    for (unsigned i = 0; i < QUEUES; i++) {
        timer_cancel(&ios[i].kick);
        loop_free(ios[i].loop);
    }
    printf("%u changes (%u filters, %u overlays, %u sizes, %u limits) under %lu requests\n", changes, filters, overlays,
           resized, limited, total);
    unlink(base);
    unlink(top);
    rmdir(dir);
    return 0;
}
