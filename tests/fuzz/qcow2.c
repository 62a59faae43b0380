/*
 * qcow2: images that are mostly right. The input is a choice of kind, then changes (offset, length, bytes) to a sound image of
 * it; that is opened, checked, read, written, repaired.
 */
#include <fcntl.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "block/image.h"
#include "../image/memfile.h"
#include "target.h"

enum { KINDS = 4, SIZE = 1 << 20 };

static struct kind {
    uint8_t *data;
    size_t len;
} kinds[KINDS];

static void make(struct kind *k, const char *options)
{
    auto_opts struct blk_opts *o = blk_opts_new();
    struct memfile *m;
    struct blk_node *file = memfile_new(&m), *n;
    struct blk_snapshot sn = {.name = "s"};
    uint8_t buf[8192];
    struct err err = {0};
    memset(buf, 0x5a, sizeof buf);
    MUST(blk_opts_parse(o, options, &err) == 0);
    MUST(blk_qcow2.create(file, o, &err) == 0);
    MUST(blk_node_open_on(blk_node_ref(file), "qcow2", NULL, BLK_O_RDWR, &n, &err) == 0);
    for (unsigned i = 0; i < 20; i++)
        MUST(blk_pwrite(n, i * 40000, buf, sizeof buf, 0) == 0);
    MUST(blk_snapshot_create(n, &sn, &err) == 0);
    MUST(blk_pwrite(n, 0, buf, n->cluster_size > sizeof buf ? sizeof buf : n->cluster_size, 0) == 0);
    blk_pwrite(n, 256 * 1024, buf, MIN(n->cluster_size, sizeof buf), BLK_F_COMPRESSED);
    blk_bitmap_add(n, "b", 4096, true, NULL);
    blk_node_unref(n);
    k->len = (size_t)file->size;
    k->data = malloc(k->len);
    MUST(k->data);
    memcpy(k->data, m->data, k->len);
    blk_node_unref(file);
}

static void use(const uint8_t *image, size_t len, unsigned flags, unsigned fix)
{
    struct blk_node *file = memfile_from(image, len, NULL), *n;
    struct err err = {0};
    struct blk_check c = {0};
    static uint8_t buf[65536];
    if (blk_node_open_on(file, "qcow2", NULL, flags | BLK_O_NO_BACKING, &n, &err) < 0) {
        MUST(err.msg[0]);
        return;
    }
    struct blk_info info;
    if (blk_get_info(n, &info, &err) == 0)
        blk_info_clear(&info);
    blk_check(n, &c, fix, &err);
    uint64_t size = MIN(atomic_load(&n->size), (uint64_t)(2 * SIZE));
    for (uint64_t at = 0; at < size; at += sizeof buf) {
        struct blk_extent e;
        blk_block_status(n, at, MIN(size - at, sizeof buf), false, &e);
        blk_pread(n, at, buf, MIN(size - at, sizeof buf));
    }
    if (flags & BLK_O_RDWR) {
        struct blk_snapshot sn = {.name = "t"};
        blk_pwrite(n, 0, buf, MIN(size, 5000), 0);
        blk_pwrite_zeroes(n, size / 2, MIN(size / 4, 100000), BLK_F_UNMAP);
        blk_pdiscard(n, 0, size / 3);
        blk_pflush(n);
        blk_snapshot_create(n, &sn, NULL);
        blk_snapshot_apply(n, "s", NULL);
        blk_snapshot_delete(n, "s", NULL);
        blk_pwrite(n, 0, buf, MIN(size, 5000), 0);
    }
    blk_node_unref(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const options[KINDS] = {"size=1M,cluster_size=4k", "size=1M,cluster_size=512,refcount_bits=8",
                                               "size=1M,cluster_size=16k,extended_l2=on", "size=1M,cluster_size=4k,compat=0.10"};
    if (!kinds[0].data) {
        log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
        for (unsigned i = 0; i < KINDS; i++)
            make(&kinds[i], options[i]);
    }
    if (size < 2)
        return 0;
    struct kind *k = &kinds[data[0] % KINDS];
    uint8_t *image = malloc(k->len);
    MUST(image);
    memcpy(image, k->data, k->len);
    for (size_t at = 2; at + 4 <= size;) {
        size_t off = (data[at] | data[at + 1] << 8 | (size_t)data[at + 2] << 16) % k->len, n = 1 + data[at + 3] % 16;
        for (at += 4; n && at < size; n--, at++)
            image[off++ % k->len] = data[at];
    }
    switch (data[1] % 3) {
    case 0:
        use(image, k->len, 0, 0);
        break;
    case 1:
        use(image, k->len, BLK_O_RDWR, 0);
        break;
    case 2:
        use(image, k->len, BLK_O_RDWR | BLK_O_CHECK, BLK_FIX_LEAKS | BLK_FIX_ERRORS);
        break;
    }
    free(image);
    return 0;
}
