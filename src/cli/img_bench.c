/* `lodge img bench`: so many requests of one size, so many at a time, by as many threads. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/clock.h"
#include "cli/img.h"

enum { DEPTH_MAX = 512 };

struct bench {
    struct blk_node *node;
    uint64_t offset, size, step, count, flush_interval;
    bool write;
    int pattern;
    _Atomic uint64_t next; /* request to come */
    _Atomic int ret;
};

static void *worker(void *opaque)
{
    struct bench *b = opaque;
    void *buf = NULL;
    if (posix_memalign(&buf, 4096, b->size)) {
        b->ret = -ENOMEM;
        return NULL;
    }
    memset(buf, b->pattern, b->size);
    uint64_t room = b->node->size - b->size; /* where a request may start at last */
    for (uint64_t i; !b->ret && (i = b->next++) < b->count;) {
        uint64_t at = b->offset + i * b->step;
        if (at > room)
            at = room ? at % (room + 1) / 512 * 512 : 0;
        int ret = b->write ? blk_pwrite(b->node, at, buf, b->size, 0) : blk_pread(b->node, at, buf, b->size);
        if (ret == 0 && b->flush_interval && (i + 1) % b->flush_interval == 0)
            ret = blk_pflush(b->node);
        if (ret < 0)
            b->ret = ret;
    }
    free(buf);
    return NULL;
}

static int number(const struct img *img, enum img_key key, const char *what, long min, long max, long *ret)
{
    char *end;
    if (!img_has(img, key))
        return 0;
    errno = 0;
    long v = strtol(img->value[key], &end, 0);
    if (errno || end == img->value[key] || *end || v < min || v > max) {
        img_error(img, "Invalid %s specified", what);
        return -1;
    }
    *ret = v;
    return 0;
}

int img_bench(struct img *img, int argc, char **argv)
{
    long count = 75000, depth = 64, flush = 0, pattern = 0;
    int64_t offset = 0, size = 4096, step = 0;
    unsigned flags;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    bool write = img_has(img, IMG_WRITE);
    if (number(img, IMG_COUNT, "request count", 1, INT32_MAX, &count) < 0 ||
        number(img, IMG_DEPTH, "queue depth", 1, DEPTH_MAX, &depth) < 0 ||
        number(img, IMG_FLUSH_INTERVAL, "flush interval", 0, INT32_MAX, &flush) < 0 ||
        number(img, IMG_PATTERN, "pattern byte", 0, 255, &pattern) < 0 ||
        img_size_option(img, IMG_OFFSET, "offset", 0, INT64_MAX, &offset) < 0 ||
        img_size_option(img, IMG_BUFFER, "buffer size", 1, 64 << 20, &size) < 0 ||
        img_size_option(img, IMG_STEP, "step size", 0, INT32_MAX, &step) < 0 ||
        img_cache_flags(img, IMG_CACHE, "writeback", "cache mode", &flags) < 0)
        return IMG_ERROR;
    if (img_has(img, IMG_AIO) && strcmp(img->value[IMG_AIO], "threads") && strcmp(img->value[IMG_AIO], "native") &&
        strcmp(img->value[IMG_AIO], "io_uring"))
        return img_error(img, "Invalid aio option: %s", img->value[IMG_AIO]);
    if (!write && flush)
        return img_error(img, "--flush-interval is only available in write tests");
    if (flush && flush < depth)
        return img_error(img, "Flush interval can't be smaller than depth");
    auto_node struct blk_node *node = img_open_only(img, flags | (write ? BLK_O_RDWR : 0));
    if (!node)
        return IMG_ERROR;
    if (node->size < (uint64_t)size)
        return img_error(img, "%s: smaller than one request", img->args[0]);
    struct bench b = {.node = node,
                      .offset = (uint64_t)offset,
                      .size = (uint64_t)size,
                      .step = (uint64_t)(step ? step : size),
                      .count = (uint64_t)count,
                      .flush_interval = (uint64_t)flush,
                      .write = write,
                      .pattern = (int)pattern};
    if (!img_has(img, IMG_QUIET)) {
        printf("Sending %ld %s requests, %" PRIu64 " bytes each, %ld in parallel (starting at offset %" PRIu64
               ", step size %" PRIu64 ")\n",
               count, write ? "write" : "read", b.size, depth, b.offset, b.step);
        if (flush)
            printf("Sending flush every %ld requests\n", flush);
        fflush(stdout);
    }
    uint64_t start = clock_host_ns();
    pthread_t threads[DEPTH_MAX];
    long n = 0, want = MIN(depth, count);
    for (; n < want && !pthread_create(&threads[n], NULL, worker, &b); n++)
        ;
    if (!n)
        worker(&b);
    while (n)
        pthread_join(threads[--n], NULL);
    if (b.ret)
        return img_error(img, "Failed request: %s", strerror(-b.ret));
    if (!img_has(img, IMG_QUIET))
        printf("Run completed in %3.3f seconds.\n", (double)(clock_host_ns() - start) / 1e9);
    return IMG_OK;
}
