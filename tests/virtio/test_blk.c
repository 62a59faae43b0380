/* virtio-blk on a real file, and on a backend whose requests complete when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "dev/virtio/blk.h"
#include "vdriver.h"

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13, OK = 0, IOERR = 1, UNSUPP = 2 };
#define DRIVER_OK                                                                                                      \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)
#define FLUSH_FEATURE BIT64(9)
#define WCE_FEATURE BIT64(11)
#define DEALLOC_FEATURES (BIT64(13) | BIT64(14))
#define DISK_SIZE MIB

struct disk {
    struct vd vd;
    struct vdq q;
    char path[64];
    int fd; /* the file, to look at from outside */
    gpa_t header, data, status;
};

static void disk_file(struct disk *d, uint64_t size)
{
    snprintf(d->path, sizeof d->path, "/tmp/lodge-blk-XXXXXX");
    d->fd = mkostemp(d->path, O_CLOEXEC);
    assert_true(d->fd >= 0);
    assert_int_equal(ftruncate(d->fd, (off_t)size), 0);
}

static void disk_start(struct disk *d, uint64_t features)
{
    assert_true(vd_negotiate(&d->vd, VIRTIO_F_VERSION_1 | features));
    vd_queue(&d->vd, &d->q, 0, 64);
    vd_set_status(&d->vd, DRIVER_OK);
}

static void disk_new(struct disk *d, enum vd_transport t, uint64_t features, struct blk_options opt)
{
    struct blk *blk;
    struct virtio_dev *dev;
    struct err err = {0};
    vd_machine(&d->vd, t, 16 * MIB);
    disk_file(d, DISK_SIZE);
    opt.path = d->path;
    opt.format = "raw";
    assert_int_equal(blk_open(&opt, &blk, &err), 0);
    struct virtio_blk_config cfg = {
        .id = "vda", .mem = d->vd.mem, .blk = blk, .serial = "LODGE-1", .queues = 2, .loop = d->vd.loop};
    assert_int_equal(virtio_blk_new(&cfg, &dev, &err), 0);
    vd_plug(&d->vd, dev);
    d->header = vd_alloc(&d->vd, 32);
    d->data = vd_alloc(&d->vd, 128 * KIB);
    d->status = vd_alloc(&d->vd, 1);
    disk_start(d, features);
}

static void disk_free(struct disk *d)
{
    vd_free(&d->vd);
    close(d->fd);
    unlink(d->path);
}

static void put_header(struct disk *d, uint32_t type, uint64_t sector)
{
    uint8_t h[16] = {0};
    le32_put(h, type);
    le64_put(h + 8, sector);
    assert_int_equal(mem_write(d->vd.mem, d->header, h, 16), 0);
    assert_int_equal(mem_set(d->vd.mem, d->status, 0xee, 1), 0);
}

/* One request with `len` data bytes at d->data; its status byte. */
static uint8_t request(struct disk *d, uint32_t type, uint64_t sector, uint32_t len)
{
    bool in = type == IN || type == GET_ID;
    struct vd_buf buf[3] = {{d->header, 16, false}};
    unsigned n = 1, id;
    uint32_t used;
    uint8_t status;
    if (len)
        buf[n++] = (struct vd_buf){d->data, len, in};
    buf[n++] = (struct vd_buf){d->status, 1, true};
    put_header(d, type, sector);
    vd_add(&d->q, buf, n, d->vd.features & VIRTIO_F_INDIRECT_DESC);
    vd_ring(&d->q);
    assert_true(vd_wait(&d->q, &id, &used));
    assert_int_equal(used, in ? len + 1 : 1);
    assert_int_equal(mem_read(d->vd.mem, d->status, &status, 1), 0);
    return status;
}

static void fill_data(struct disk *d, uint8_t seed, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        assert_int_equal(mem_set(d->vd.mem, d->data + i, (uint8_t)(seed + i * 7 + (i >> 8)), 1), 0);
}

static bool data_is(struct disk *d, uint8_t seed, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        uint8_t b;
        assert_int_equal(mem_read(d->vd.mem, d->data + i, &b, 1), 0);
        if (b != (uint8_t)(seed + i * 7 + (i >> 8)))
            return false;
    }
    return true;
}

static bool file_is_zero(struct disk *d, off_t off, size_t len)
{
    char *buf = xcalloc(1, len);
    bool zero = true;
    assert_int_equal(pread(d->fd, buf, len, off), len);
    for (size_t i = 0; i < len; i++)
        zero &= !buf[i];
    free(buf);
    return zero;
}

static void data_goes_to_the_file_and_back(void **s)
{
    static const uint64_t features[] = {0, VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | FLUSH_FEATURE,
                                        VIRTIO_F_RING_PACKED | FLUSH_FEATURE,
                                        VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC};
    for (unsigned t = VD_PCI; t <= VD_MMIO; t++) {
        for (unsigned k = 0; k < ARRAY_SIZE(features); k++) {
            for (unsigned mode = 0; mode < 3; mode++) {
                struct disk d;
                disk_new(&d, t, features[k], (struct blk_options){.no_uring = mode == 1, .direct = mode == 2});
                fill_data(&d, 5, 64 * 1024);
                assert_int_equal(request(&d, OUT, 3, 64 * 1024), OK);
                fill_data(&d, 9, 1024);
                assert_int_equal(request(&d, OUT, DISK_SIZE / 512 - 2, 1024), OK);
                assert_int_equal(request(&d, FLUSH, 0, 0), OK);
                assert_int_equal(request(&d, IN, DISK_SIZE / 512 - 2, 1024), OK);
                assert_true(data_is(&d, 9, 1024));
                assert_int_equal(request(&d, IN, 3, 64 * 1024), OK);
                assert_true(data_is(&d, 5, 64 * 1024));
                uint8_t b;
                assert_int_equal(pread(d.fd, &b, 1, 3 * 512 + 300), 1);
                assert_int_equal(b, (uint8_t)(5 + 300 * 7 + 1));
                disk_free(&d);
            }
        }
    }
}

static void configuration_tells_the_disk(void **s)
{
    struct disk d;
    disk_new(&d, VD_PCI, 0, (struct blk_options){0});
    assert_int_equal(vd_config(&d.vd, 0, 4), DISK_SIZE / 512);
    assert_int_equal(vd_config(&d.vd, 20, 4), 512);
    assert_int_equal(vd_config(&d.vd, 34, 2), 2);
    assert_true(vd_device_features(&d.vd) & FLUSH_FEATURE);
    assert_int_equal(request(&d, GET_ID, 0, 20), OK);
    char serial[21] = "";
    assert_int_equal(mem_read(d.vd.mem, d.data, serial, 20), 0);
    assert_string_equal(serial, "LODGE-1");
    disk_free(&d);
}

static void deallocated_sectors_read_as_zero(void **s)
{
    for (unsigned mode = 0; mode < 2; mode++) {
        struct disk d;
        disk_new(&d, VD_MMIO, DEALLOC_FEATURES, (struct blk_options){.no_uring = mode});
        fill_data(&d, 1, 128 * 1024);
        assert_int_equal(request(&d, OUT, 0, 128 * 1024), OK);
        uint8_t seg[16] = {0};
        le64_put(seg, 16);
        le32_put(seg + 8, 101);
        for (uint32_t unmap = 0; unmap <= 1; unmap++) {
            le64_put(seg, unmap ? 130 : 16);
            le32_put(seg + 12, unmap);
            assert_int_equal(mem_write(d.vd.mem, d.data, seg, 16), 0);
            assert_int_equal(request(&d, WRITE_ZEROES, 0, 16), OK);
        }
        assert_true(file_is_zero(&d, 16 * 512, 101 * 512));
        assert_true(file_is_zero(&d, 130 * 512, 101 * 512));
        assert_false(file_is_zero(&d, 15 * 512, 512));
        assert_false(file_is_zero(&d, 117 * 512, 512));
        le64_put(seg, 0);
        le32_put(seg + 8, 8);
        le32_put(seg + 12, 0);
        assert_int_equal(mem_write(d.vd.mem, d.data, seg, 16), 0);
        assert_int_equal(request(&d, DISCARD, 0, 16), OK);
        assert_true(file_is_zero(&d, 0, 8 * 512));
        /* Wrong ones. */
        le32_put(seg + 12, 1); /* a discard has no unmap flag */
        assert_int_equal(mem_write(d.vd.mem, d.data, seg, 16), 0);
        assert_int_equal(request(&d, DISCARD, 0, 16), UNSUPP);
        assert_int_equal(request(&d, DISCARD, 0, 15), IOERR);
        le64_put(seg, DISK_SIZE / 512 - 7);
        le32_put(seg + 12, 0);
        assert_int_equal(mem_write(d.vd.mem, d.data, seg, 16), 0);
        assert_int_equal(request(&d, DISCARD, 0, 16), IOERR);
        le64_put(seg, UINT64_MAX);
        assert_int_equal(mem_write(d.vd.mem, d.data, seg, 16), 0);
        assert_int_equal(request(&d, WRITE_ZEROES, 0, 16), IOERR);
        struct stat st;
        assert_int_equal(fstat(d.fd, &st), 0);
        assert_int_equal(st.st_size, DISK_SIZE);
        disk_free(&d);
    }
}

static void nothing_is_touched_without_bus_mastering(void **s)
{
    struct disk d;
    unsigned id;
    uint32_t len;
    disk_new(&d, VD_PCI, 0, (struct blk_options){0});
    assert_int_equal(request(&d, GET_ID, 0, 20), OK);
    uint32_t command = pci_config_read(d.vd.pci, d.vd.fn->devfn, 4, 2);
    pci_config_write(d.vd.pci, d.vd.fn->devfn, 4, 2, command & ~4u);
    put_header(&d, GET_ID, 0);
    const struct vd_buf buf[] = {{d.header, 16, false}, {d.data, 20, true}, {d.status, 1, true}};
    vd_add(&d.q, buf, 3, false);
    vd_ring(&d.q);
    for (int i = 0; i < 20; i++)
        loop_poll(d.vd.loop, 1);
    assert_false(vd_get(&d.q, &id, &len));
    /* As soon as it may, it does what waits. */
    pci_config_write(d.vd.pci, d.vd.fn->devfn, 4, 2, command);
    assert_true(vd_wait(&d.q, &id, &len));
    disk_free(&d);
}

static void wrong_requests_fail_and_touch_nothing(void **s)
{
    struct disk d;
    disk_new(&d, VD_PCI, 0, (struct blk_options){0});
    fill_data(&d, 1, 4096);
    assert_int_equal(request(&d, OUT, DISK_SIZE / 512, 512), IOERR);
    assert_int_equal(request(&d, OUT, DISK_SIZE / 512 - 1, 1024), IOERR);
    assert_int_equal(request(&d, OUT, UINT64_MAX, 512), IOERR);
    assert_int_equal(request(&d, OUT, UINT64_MAX / 512 + 1, 512), IOERR);
    assert_int_equal(request(&d, OUT, 0, 511), IOERR);
    assert_int_equal(request(&d, IN, 0, 513), IOERR);
    assert_int_equal(request(&d, 99, 0, 512), UNSUPP);
    assert_int_equal(request(&d, DISCARD, 0, 16), UNSUPP); /* not negotiated */
    assert_true(file_is_zero(&d, 0, DISK_SIZE));
    struct stat st;
    assert_int_equal(fstat(d.fd, &st), 0);
    assert_int_equal(st.st_size, DISK_SIZE);
    assert_int_equal(vd_status(&d.vd), DRIVER_OK);
    disk_free(&d);
}

static void read_only_disks_refuse_writes(void **s)
{
    struct disk d;
    disk_new(&d, VD_PCI, 0, (struct blk_options){.read_only = true});
    assert_true(vd_device_features(&d.vd) & BIT64(5));
    assert_int_equal(request(&d, OUT, 0, 512), IOERR);
    assert_int_equal(request(&d, IN, 0, 512), OK);
    assert_int_equal(request(&d, FLUSH, 0, 0), OK);
    disk_free(&d);
}

static void buffers_can_be_cut_anywhere(void **s)
{
    struct disk d;
    unsigned id;
    uint32_t used;
    disk_new(&d, VD_PCI, 0, (struct blk_options){0});
    fill_data(&d, 3, 1024);
    gpa_t one = vd_alloc(&d.vd, 4096);
    uint8_t buf[1024];
    assert_int_equal(mem_read(d.vd.mem, d.data, buf, 1024), 0);
    put_header(&d, OUT, 8);
    uint8_t header[16];
    assert_int_equal(mem_read(d.vd.mem, d.header, header, 16), 0);
    assert_int_equal(mem_write(d.vd.mem, one, header, 16), 0);
    assert_int_equal(mem_write(d.vd.mem, one + 16, buf, 1024), 0);
    /* Header in two pieces, the second with data; then odd pieces. */
    struct vd_buf w[] = {{one, 5, false}, {one + 5, 100, false}, {one + 105, 935, false}, {d.status, 1, true}};
    vd_add(&d.q, w, 4, false);
    vd_ring(&d.q);
    assert_true(vd_wait(&d.q, &id, &used));
    /* Read back with the status byte at the end of the data's last piece. */
    put_header(&d, IN, 8);
    assert_int_equal(mem_set(d.vd.mem, d.data, 0, 1025), 0);
    struct vd_buf r[] = {{d.header, 16, false}, {d.data, 333, true}, {d.data + 333, 692, true}};
    vd_add(&d.q, r, 3, false);
    vd_ring(&d.q);
    assert_true(vd_wait(&d.q, &id, &used));
    assert_int_equal(used, 1025);
    assert_true(data_is(&d, 3, 1024));
    disk_free(&d);
}

static void requests_without_header_or_status_break_the_queue(void **s)
{
    struct disk d;
    disk_new(&d, VD_PCI, 0, (struct blk_options){0});
    for (unsigned n = 0; n < 3; n++) {
        struct vd_buf b[] = {{d.header, n == 0 ? 16 : 15, false}, {d.status, 1, true}};
        vd_add(&d.q, n == 2 ? b + 1 : b, n == 1 ? 2 : 1, false);
        vd_ring(&d.q);
        vd_run(&d.vd);
        assert_true(vd_status(&d.vd) & VIRTIO_STATUS_NEEDS_RESET);
        disk_start(&d, 0);
        assert_int_equal(request(&d, FLUSH, 0, 0), OK);
    }
    disk_free(&d);
}

static void write_cache_can_be_switched(void **s)
{
    struct disk d;
    disk_new(&d, VD_PCI, FLUSH_FEATURE | WCE_FEATURE, (struct blk_options){0});
    assert_int_equal(vd_config(&d.vd, 32, 1), 1);
    vd_set_config(&d.vd, 32, 1, 0);
    assert_int_equal(vd_config(&d.vd, 32, 1), 0);
    fill_data(&d, 1, 512);
    assert_int_equal(request(&d, OUT, 0, 512), OK);
    vd_set_status(&d.vd, 0);
    assert_int_equal(vd_config(&d.vd, 32, 1), 1);
    disk_free(&d);
}

static void guest_writes_are_logged_for_migration(void **s)
{
    struct disk d;
    disk_new(&d, VD_PCI, 0, (struct blk_options){0});
    mem_track_dirty(d.vd.mem, true);
    uint64_t bitmap[16 * MIB / PAGE_SIZE / 64];
    mem_take_dirty(d.vd.mem, bitmap);
    assert_int_equal(request(&d, IN, 0, 8192), OK);
    mem_take_dirty(d.vd.mem, bitmap);
    gpa_t dirty[] = {d.data, d.data + 8191, d.status, d.q.device};
    for (unsigned i = 0; i < ARRAY_SIZE(dirty); i++)
        assert_true(bitmap[dirty[i] / PAGE_SIZE / 64] & BIT64(dirty[i] / PAGE_SIZE % 64));
    disk_free(&d);
}

/* ---- an I/O thread ---- */

struct io_thread {
    struct loop *loop;
    pthread_t thread;
};

static void *io_main(void *opaque)
{
    loop_run(((struct io_thread *)opaque)->loop);
    return NULL;
}

static void resets_while_an_io_thread_works_lose_nothing(void **s)
{
    struct disk d = {0};
    struct blk *blk;
    struct virtio_dev *dev;
    struct io_thread io;
    vd_machine(&d.vd, VD_PCI, 16 * MIB);
    disk_file(&d, DISK_SIZE);
    struct blk_options opt = {.path = d.path};
    assert_int_equal(blk_open(&opt, &blk, NULL), 0);
    assert_int_equal(loop_new(&io.loop, NULL), 0);
    struct virtio_blk_config cfg = {.id = "vda", .mem = d.vd.mem, .blk = blk, .loop = io.loop};
    assert_int_equal(virtio_blk_new(&cfg, &dev, NULL), 0);
    vd_plug(&d.vd, dev);
    d.header = vd_alloc(&d.vd, 32);
    d.data = vd_alloc(&d.vd, 128 * KIB);
    d.status = vd_alloc(&d.vd, 1);
    assert_int_equal(pthread_create(&io.thread, NULL, io_main, &io), 0);
    gpa_t start = d.vd.next;
    for (unsigned round = 0; round < 50; round++) {
        d.vd.next = start;
        disk_start(&d, round & 1 ? VIRTIO_F_RING_PACKED : VIRTIO_F_EVENT_IDX);
        assert_int_equal(request(&d, round & 2 ? OUT : IN, round, 4096), OK);
        put_header(&d, round & 4 ? IN : OUT, 0);
        for (unsigned i = 0; i < 20; i++) {
            struct vd_buf b[] = {{d.header, 16, false}, {d.data, 65536, round & 4}, {d.status, 1, true}};
            vd_add(&d.q, b, 3, false);
            vd_ring(&d.q);
        }
        if (round % 3 == 0) {
            device_reset(&d.vd.fn->dev);
            pci_assign(d.vd.pci, 0xe0000000, 0xe1000000, 0xc000);
        } else {
            vd_set_status(&d.vd, 0);
        }
        /* Nothing is written to guest memory any more. */
        assert_int_equal(mem_set(d.vd.mem, d.data, 0x5a, 65536), 0);
        usleep(200);
        uint8_t *now = xcalloc(1, 65536);
        assert_int_equal(mem_read(d.vd.mem, d.data, now, 65536), 0);
        for (unsigned i = 0; i < 65536; i++)
            assert_int_equal(now[i], 0x5a);
        free(now);
    }
    loop_quit(io.loop);
    pthread_join(io.thread, NULL);
    vd_free(&d.vd);
    loop_free(io.loop);
    close(d.fd);
    unlink(d.path);
}

/* ---- a backend that completes when told ---- */

struct slow {
    struct blk blk;
    struct blk_queue q;
    struct blk_req *req[64];
    unsigned n, completed;
    bool closed;
};

static struct blk_queue *slow_queue_new(struct blk *blk, struct loop *loop, struct err *err)
{
    struct slow *s = (struct slow *)blk;
    s->q = (struct blk_queue){.blk = blk, .loop = loop};
    return &s->q;
}
static void slow_queue_free(struct blk_queue *q)
{
}
static void slow_submit(struct blk_queue *q, struct blk_req *req)
{
    struct slow *s = (struct slow *)q->blk;
    s->req[s->n++] = req;
}
static void slow_complete(struct slow *s, unsigned i, int ret)
{
    struct blk_req *req = s->req[i];
    s->req[i] = s->req[--s->n];
    s->completed++;
    req->done(req, ret);
    s->q.batch_done(s->q.opaque);
}
static void slow_drain(struct blk_queue *q)
{
    struct slow *s = (struct slow *)q->blk;
    while (s->n)
        slow_complete(s, 0, -5);
}
static void slow_close(struct blk *blk)
{
    ((struct slow *)blk)->closed = true;
}
static const struct blk_ops slow_ops = {.queue_new = slow_queue_new,
                                        .queue_free = slow_queue_free,
                                        .submit = slow_submit,
                                        .drain = slow_drain,
                                        .close = slow_close};

static void requests_complete_in_any_order_exactly_once(void **state)
{
    for (unsigned packed = 0; packed <= 1; packed++) {
        struct disk d = {.fd = -1};
        struct slow slow = {.blk = {.ops = &slow_ops, .size = DISK_SIZE, .block_size = 512, .physical_size = 4096}};
        struct virtio_dev *dev;
        unsigned id, ids[5];
        uint32_t used;
        vd_machine(&d.vd, VD_PCI, 16 * MIB);
        struct virtio_blk_config cfg = {.id = "vda", .mem = d.vd.mem, .blk = &slow.blk, .loop = d.vd.loop};
        assert_int_equal(virtio_blk_new(&cfg, &dev, NULL), 0);
        vd_plug(&d.vd, dev);
        vd_enable_msix(&d.vd);
        d.header = vd_alloc(&d.vd, 32);
        d.data = vd_alloc(&d.vd, 4096);
        gpa_t status = vd_alloc(&d.vd, 5);
        disk_start(&d, packed ? VIRTIO_F_RING_PACKED : 0);
        put_header(&d, IN, 0);
        for (unsigned i = 0; i < 5; i++) {
            struct vd_buf b[] = {{d.header, 16, false}, {d.data, 512, true}, {status + i, 1, true}};
            ids[i] = vd_add(&d.q, b, 3, false);
        }
        vd_ring(&d.q);
        vd_run(&d.vd);
        assert_int_equal(slow.n, 5);
        assert_false(vd_get(&d.q, &id, &used));
        static const unsigned order[] = {3, 1};
        for (unsigned i = 0; i < 2; i++) {
            slow_complete(&slow, order[i], i ? -28 : 0);
            assert_true(vd_get(&d.q, &id, &used));
            assert_int_equal(id, ids[order[i]]);
            uint8_t st;
            assert_int_equal(mem_read(d.vd.mem, status + order[i], &st, 1), 0);
            assert_int_equal(st, i ? IOERR : OK);
        }
        assert_int_equal(d.vd.msi[1], 2);
        /* Stop: the rest completes before it is over. */
        dev->dev.type->pause(&dev->dev, true);
        assert_int_equal(slow.n, 0);
        for (unsigned i = 0; i < 3; i++)
            assert_true(vd_get(&d.q, &id, &used));
        dev->dev.type->pause(&dev->dev, false);
        struct vd_buf b[] = {{d.header, 16, false}, {d.data, 512, true}, {status, 1, true}};
        vd_add(&d.q, b, 3, false);
        vd_ring(&d.q);
        vd_run(&d.vd);
        assert_int_equal(slow.n, 1);
        vd_set_status(&d.vd, 0);
        assert_int_equal(slow.n, 0);
        assert_int_equal(slow.completed, 6);
        vd_free(&d.vd);
        assert_true(slow.closed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_goes_to_the_file_and_back),
        cmocka_unit_test(configuration_tells_the_disk),
        cmocka_unit_test(deallocated_sectors_read_as_zero),
        cmocka_unit_test(nothing_is_touched_without_bus_mastering),
        cmocka_unit_test(wrong_requests_fail_and_touch_nothing),
        cmocka_unit_test(read_only_disks_refuse_writes),
        cmocka_unit_test(buffers_can_be_cut_anywhere),
        cmocka_unit_test(requests_without_header_or_status_break_the_queue),
        cmocka_unit_test(write_cache_can_be_switched),
        cmocka_unit_test(guest_writes_are_logged_for_migration),
        cmocka_unit_test(resets_while_an_io_thread_works_lose_nothing),
        cmocka_unit_test(requests_complete_in_any_order_exactly_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
