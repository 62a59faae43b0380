/*
 * What a disk request costs us, without a guest: the device alone (a backend that completes at once), and down to a
 * file in the page cache with io_uring and with plain system calls. One thread is guest and device; only the device's
 * part is timed.
 *
 *   virtio_blk [SECONDS]
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dev/virtio/blk.h"
#include "virtio/vdriver.h"

enum { BATCH = 32, DISK_MIB = 64 };

struct instant {
    struct blk blk;
    struct blk_queue q;
};

static struct blk_queue *instant_queue(struct blk *blk, struct loop *loop, struct err *err)
{
    struct instant *n = (struct instant *)blk;
    n->q = (struct blk_queue){.blk = blk, .loop = loop};
    return &n->q;
}
static void instant_nothing(struct blk_queue *q)
{
}
static void instant_submit(struct blk_queue *q, struct blk_req *req)
{
    req->done(req, 0);
}
static void instant_close(struct blk *blk)
{
}
static const struct blk_ops instant_ops = {.queue_new = instant_queue,
                                           .queue_free = instant_nothing,
                                           .submit = instant_submit,
                                           .drain = instant_nothing,
                                           .close = instant_close};

static void measure(const char *what, struct blk *blk, uint64_t features, double seconds)
{
    struct vd vd;
    struct vdq q;
    struct virtio_dev *dev;
    vd_machine(&vd, VD_PCI, 64 * MIB);
    struct virtio_blk_config cfg = {.id = "vda", .mem = vd.mem, .blk = blk, .loop = vd.loop};
    if (virtio_blk_new(&cfg, &dev, NULL) < 0)
        exit(1);
    vd_plug(&vd, dev);
    vd_enable_msix(&vd);
    if (!vd_negotiate(&vd, VIRTIO_F_VERSION_1 | features))
        exit(1);
    vd_queue(&vd, &q, 0, 128);
    vd_set_status(&vd, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
                           VIRTIO_STATUS_DRIVER_OK);
    gpa_t headers = vd_alloc(&vd, 16 * BATCH), data = vd_alloc(&vd, 4096 * BATCH), status = vd_alloc(&vd, BATCH);
    gpa_t start = vd.next;
    uint64_t busy = 0, done = 0, x = 1;
    while (busy < seconds * NSEC_PER_SEC) {
        vd.next = start;
        for (unsigned i = 0; i < BATCH; i++) {
            uint8_t h[16] = {0};
            x = x * 6364136223846793005ull + 1442695040888963407ull;
            le64_put(h + 8, (x >> 33) % (DISK_MIB * MIB / 4096) * 8);
            if (mem_write(vd.mem, headers + 16 * i, h, 16) < 0)
                exit(1);
            struct vd_buf b[] = {{headers + 16 * i, 16, false}, {data + 4096 * i, 4096, true}, {status + i, 1, true}};
            vd_add(&q, b, 3, features & VIRTIO_F_INDIRECT_DESC);
        }
        vd_ring(&q);
        for (unsigned got = 0; got < BATCH;) {
            unsigned id;
            uint32_t len;
            uint64_t t = clock_host_ns();
            loop_poll(vd.loop, 100);
            busy += clock_host_ns() - t;
            while (vd_get(&q, &id, &len))
                got++;
        }
        done += BATCH;
    }
    printf("%-34s %8.0f ns a 4 KiB read, %7.0f thousand a second\n", what, (double)busy / (double)done,
           (double)done * 1e6 / (double)busy);
    vd_free(&vd);
}

static struct blk *open_file(const char *path, bool no_uring)
{
    struct blk *blk;
    struct err err = {0};
    struct blk_options opt = {.path = path, .format = "raw", .no_uring = no_uring};
    if (blk_open(&opt, &blk, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    return blk;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.5;
    struct instant n = {.blk = {.ops = &instant_ops, .size = DISK_MIB * MIB, .block_size = 512, .physical_size = 4096}};
    const uint64_t best = VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC;
    measure("device, split ring", &n.blk, best, seconds);
    measure("device, packed ring", &n.blk, best | VIRTIO_F_RING_PACKED, seconds);
    char path[] = "/tmp/lodge-bench-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    char block[64 * 1024] = {1};
    for (unsigned i = 0; i < DISK_MIB * 16; i++)
        if (write(fd, block, sizeof block) < 0)
            return 1;
    close(fd);
    measure("device and cached file, io_uring", open_file(path, false), best, seconds);
    measure("device and cached file, preadv", open_file(path, true), best, seconds);
    unlink(path);
    return 0;
}
