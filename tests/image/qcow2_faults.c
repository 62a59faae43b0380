/*
 * qcow2 on a file that fails: every call position of a workload fails once (ENOSPC, EIO, a short write), and then the file works
 * again. Whatever the image then says of it, it must have no corruption, and every sector shows what was written there, or,
 * where a write failed, what was there before.
 *
 *   qcow2_faults [--step N]    every Nth position
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "memfile.h"

enum { SECTORS = 1200, ALTERNATIVES = 8 };

struct world {
    struct blk_node *file, *node;
    struct memfile *mem;
    uint32_t value[SECTORS][ALTERNATIVES];
    unsigned n[SECTORS];
    uint32_t snap[SECTORS][ALTERNATIVES];
    unsigned snap_n[SECTORS];
    uint32_t next;
    char what[100];
};

static void fail(const struct world *w, const char *why)
{
    fprintf(stderr, "%s: %s\n", w->what, why);
    abort();
}

static void report(void *opaque, bool error, const char *line)
{
    if (error)
        fprintf(stderr, "%s\n", line);
}

static void wrote(struct world *w, unsigned from, unsigned n, uint32_t first, unsigned step, int code)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned s = from + i;
        if (code == 0)
            w->n[s] = 0;
        if (w->n[s] < ALTERNATIVES)
            w->value[s][w->n[s]++] = first + step * i;
        else
            fail(w, "the test needs more room");
    }
}

static void do_write(struct world *w, unsigned from, unsigned n, unsigned flags)
{
    uint8_t *buf = xcalloc(n, 512);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < 512; k += 4)
            memcpy(buf + i * 512 + k, &(uint32_t){w->next + i}, 4);
    int code = blk_pwrite(w->node, (uint64_t)from * 512, buf, (size_t)n * 512, flags);
    wrote(w, from, n, w->next, 1, code);
    w->next += n;
    free(buf);
}

static void work(struct world *w)
{
    struct blk_snapshot sn = {.name = "s"};
    struct err err = {0};
    do_write(w, 0, 3, 0);
    do_write(w, 100, 50, 0);
    blk_pflush(w->node);
    if (blk_snapshot_create(w->node, &sn, &err) == 0) {
        memcpy(w->snap, w->value, sizeof w->snap);
        memcpy(w->snap_n, w->n, sizeof w->snap_n);
    } else {
        sn.id[0] = 0;
    }
    do_write(w, 110, 20, 0);
    do_write(w, 600, 8, BLK_F_COMPRESSED);
    do_write(w, 608, 8, BLK_F_COMPRESSED);
    wrote(w, 104, 16, 0, 0, blk_pwrite_zeroes(w->node, 104 * 512, 16 * 512, BLK_F_UNMAP));
    blk_pflush(w->node);
    wrote(w, 600, 8, 0, 0, blk_pdiscard(w->node, 600 * 512, 8 * 512));
    blk_pflush(w->node);
    do_write(w, 700, 300, 0);
    blk_bitmap_add(w->node, "b", 4096, false, &err);
    blk_truncate(w->node, 4000 * 512, BLK_PREALLOC_OFF, false, &err);
    blk_pflush(w->node);
    if (sn.id[0] && blk_snapshot_apply(w->node, "s", &err) == 0) {
        memcpy(w->value, w->snap, sizeof w->snap);
        memcpy(w->n, w->snap_n, sizeof w->snap_n);
    }
    do_write(w, 120, 10, 0);
    if (sn.id[0])
        blk_snapshot_delete(w->node, "s", &err);
    do_write(w, 0, 3, 0);
    blk_pflush(w->node);
}

static void verify(struct world *w)
{
    struct err err = {0};
    struct blk_check c = {.report = report};
    uint8_t *buf = xcalloc(SECTORS, 512);
    if (blk_node_open_on(blk_node_ref(w->file), "qcow2", NULL, 0, &w->node, &err) < 0)
        fail(w, err.msg);
    if (blk_check(w->node, &c, 0, &err) < 0 || c.corruptions || c.check_errors)
        fail(w, "the image is corrupt");
    if (blk_pread(w->node, 0, buf, SECTORS * 512) < 0)
        fail(w, "the image cannot be read");
    for (unsigned s = 0; s < SECTORS; s++) {
        for (unsigned k = 0; k < 512; k += 4) {
            uint32_t got;
            unsigned i = 0;
            memcpy(&got, buf + s * 512 + k, 4);
            while (i < w->n[s] && w->value[s][i] != got)
                i++;
            if (i == w->n[s]) {
                fprintf(stderr, "sector %u has %x\n", s, got);
                fail(w, "data is lost");
            }
        }
    }
    free(buf);
    blk_node_unref(w->node);
    if (blk_node_open_on(blk_node_ref(w->file), "qcow2", NULL, BLK_O_RDWR, &w->node, &err) < 0)
        fail(w, err.msg);
    if (blk_check(w->node, &c, BLK_FIX_LEAKS, &err) < 0)
        fail(w, err.msg);
    memset(&c, 0, sizeof c);
    if (blk_check(w->node, &c, 0, &err) < 0 || c.corruptions || c.leaks)
        fail(w, "leaks were not repaired");
    blk_node_unref(w->node);
}

/* How many calls the workload makes; with one of them failing. */
static unsigned long run(long at, int code, bool cut, const char *cluster)
{
    struct world *w = xcalloc(1, sizeof *w);
    auto_opts struct blk_opts *o = blk_opts_new();
    struct err err = {0};
    snprintf(w->what, sizeof w->what, "cluster %s, call %ld fails with %s%s", cluster, at, strerror(-code), cut ? ", cut short" : "");
    blk_opts_set(o, "size", "614400");
    blk_opts_set(o, "cluster_size", cluster);
    w->file = memfile_new(&w->mem);
    w->next = 1;
    for (unsigned i = 0; i < SECTORS; i++)
        w->n[i] = 1;
    if (blk_qcow2.create(w->file, o, &err) < 0 ||
        blk_node_open_on(blk_node_ref(w->file), "qcow2", NULL, BLK_O_RDWR, &w->node, &err) < 0)
        fail(w, err.msg);
    w->mem->calls = 0;
    w->mem->fail_in = at;
    w->mem->fail_code = code;
    w->mem->fail_short = cut;
    w->mem->fail_reads = true;
    work(w);
    /* In the field a flush would have told; closing writes what is left. */
    blk_node_unref(w->node);
    unsigned long calls = w->mem->calls;
    w->mem->fail_in = -1;
    verify(w);
    blk_node_unref(w->file);
    free(w);
    return calls;
}

int main(int argc, char **argv)
{
    static const char *const clusters[] = {"512", "4k"};
    unsigned long step = argc > 2 ? strtoul(argv[2], NULL, 0) : 1, done = 0;
    int devnull = getenv("FAULTS_LOG") ? 2 : open("/dev/null", O_WRONLY | O_CLOEXEC);
    log_set_fd(devnull); /* failures are what this is about */
    for (unsigned c = 0; c < ARRAY_SIZE(clusters); c++) {
        unsigned long calls = run(-1, 0, false, clusters[c]);
        for (unsigned long at = 0; at < calls; at += MAX(step, 1)) {
            run((long)at, at % 2 ? -EIO : -ENOSPC, at % 3 == 0, clusters[c]);
            done++;
        }
    }
    printf("%lu failures\n", done);
    return 0;
}
