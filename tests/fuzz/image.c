/*
 * Images of every format: open, look at, read, check. The input: a byte that chooses the driver, one for the file's size
 * (1 << n, at most 256 MiB), then records {offset u32, length u16, bytes}, little-endian, of what the file holds.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "block/driver.h"
#include "target.h"

enum { FORMATS_MAX = 32, READ = 64 << 10, EXTENTS_MAX = 64 };

static const char *formats[FORMATS_MAX];
static unsigned n_formats;
static char path[64];
static int fd = -1;

static void setup(void)
{
    for (unsigned i = 0; blk_drivers[i] && n_formats < FORMATS_MAX; i++)
        if (!blk_drivers[i]->protocol)
            formats[n_formats++] = blk_drivers[i]->name;
    fd = memfd_create("image", MFD_CLOEXEC);
    MUST(fd >= 0);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), fd);
}

static void write_file(const uint8_t *data, size_t size)
{
    MUST(ftruncate(fd, 0) == 0);
    if (!size)
        return;
    MUST(ftruncate(fd, (off_t)1 << MIN(data[0], 28)) == 0);
    data++;
    size--;
    while (size >= 6) {
        size_t len = MIN((size_t)le16_get(data + 4), size - 6);
        uint32_t at = le32_get(data) & ((1u << 28) - 1);
        MUST(!len || pwrite(fd, data + 6, len, at) == (ssize_t)len);
        data += 6 + len;
        size -= 6 + len;
    }
}

static void look(struct blk_node *n, uint8_t *buf)
{
    uint64_t size = n->size;
    struct err err = {0};
    struct blk_info info;
    if (blk_get_info(n, &info, &err) == 0)
        blk_info_clear(&info);
    struct blk_snapshot *sn = NULL;
    unsigned n_sn = 0;
    blk_snapshot_list(n, &sn, &n_sn, &err);
    free(sn);
    uint64_t pos = 0;
    for (unsigned i = 0; i < EXTENTS_MAX && pos < size; i++) {
        struct blk_extent e;
        if (blk_block_status(n, pos, size - pos, true, &e) < 0)
            break;
        MUST(e.len && e.len <= size - pos);
        if (e.flags & BLK_STATUS_DATA)
            blk_pread(n, pos, buf, MIN(e.len, (uint64_t)READ));
        pos += e.len;
    }
    for (unsigned i = 0; i < 3 && size; i++) {
        uint64_t at = i == 0 ? 0 : i == 1 ? size / 2 : size - MIN(size, (uint64_t)READ);
        blk_pread(n, at, buf, MIN(size - at, (uint64_t)READ));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buf[READ];
    struct blk_node *n = NULL;
    struct err err = {0};
    if (fd < 0)
        setup();
    if (size < 2)
        return 0;
    write_file(data + 1, size - 1);
    unsigned flags = BLK_O_NO_LOCK | BLK_O_NO_BACKING;
    const char *format = formats[data[0] % n_formats];
    if (blk_node_open(path, format, NULL, flags, &n, &err) == 0) {
        look(n, buf);
        blk_node_unref(n);
    } else {
        MUST(err.code && *err.msg);
    }
    err.code = 0;
    if (blk_node_open(path, format, NULL, flags | BLK_O_CHECK, &n, &err) == 0) {
        struct blk_check c = {0};
        blk_check(n, &c, 0, &err);
        blk_node_unref(n);
    }
    return 0;
}
