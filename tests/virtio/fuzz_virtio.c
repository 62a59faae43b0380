/*
 * A guest's driver that is mostly right: valid chains with plausible requests, and now and then a wrong descriptor,
 * index, register or moment; resets, pauses, saving and loading in between. From a fixed seed, in one thread. Nothing
 * may crash (ASan and UBSan builds run this too), and after a reset the device must serve a proper driver again.
 *
 *   fuzz_virtio KIND [STEPS [SEED]]
 */
#include <string.h>

#include "base/fd.h"
#include "fuzz_kinds.h"

enum { RAM = 2 * MIB, QUEUES = 8 };
#define DRIVER_OK                                                                                                      \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)

uint64_t fuzz_seed, fuzz_step;

uint64_t rnd(void)
{
    fuzz_seed ^= fuzz_seed << 13;
    fuzz_seed ^= fuzz_seed >> 7;
    fuzz_seed ^= fuzz_seed << 17;
    return (fuzz_seed * 0x2545f4914f6cdd1dull) >> 11;
}

/* ---- the driver ---- */

struct fuzz {
    const struct fuzz_kind *kind;
    struct vd vd;
    struct vdq q[QUEUES];
    unsigned nq;
    bool paused;
};

/* Features a driver would choose: any of the device's. */
static void restart(struct fuzz *f)
{
    uint64_t offered = vd_device_features(&f->vd), features = offered & (rnd() | rnd() << 20 | VIRTIO_F_VERSION_1);
    if (!vd_negotiate(&f->vd, features))
        MUST(vd_negotiate(&f->vd, VIRTIO_F_VERSION_1));
    f->vd.next = 0x10000;
    f->nq = MIN(f->vd.dev->nqueues, QUEUES);
    for (unsigned i = 0; i < f->nq; i++)
        vd_queue(&f->vd, &f->q[i], i, 4u << rnd() % 4);
    vd_set_status(&f->vd, DRIVER_OK);
    MUST(vd_status(&f->vd) == DRIVER_OK);
}

static gpa_t any_address(void)
{
    switch (rnd() % 16) {
    case 0:
        return rnd() << 11;
    case 1:
        return RAM - rnd() % 64;
    case 2: /* over the rings themselves */
        return 0x10000 + rnd() % 4096;
    default:
        return RAM / 2 + rnd() % (RAM / 2 - 64 * KIB);
    }
}

static void offer(struct fuzz *f)
{
    struct vdq *q = &f->q[rnd() % f->nq];
    struct vd_buf buf[8];
    uint8_t req[128];
    unsigned n = 1 + rnd() % MIN(7, q->size), out = rnd() % (n + 1), len = f->kind->request(q->index, req);
    if (len && !out)
        out = 1;
    for (unsigned i = 0; i < n; i++) {
        static const uint32_t lengths[] = {1, 16, 512, 1024, 4096, 60};
        buf[i] =
            (struct vd_buf){RAM / 2 + rnd() % (RAM / 2 - 64 * KIB), lengths[rnd() % ARRAY_SIZE(lengths)], i >= out};
        if (one_in(50))
            buf[i].gpa = any_address();
        if (one_in(50))
            buf[i].len = (uint32_t)rnd();
        if (one_in(200))
            buf[i].write = !buf[i].write;
    }
    if (len && n == out && q->index != 1)
        buf[n - 1].write = n > 1;
    if (len) {
        gpa_t at = RAM / 2 + rnd() % (RAM / 4);
        MUST(mem_write(f->vd.mem, at, req, len) == 0);
        buf[0] = (struct vd_buf){at, len, false};
    }
    if (q->nfree < n || f->vd.next > RAM / 2 - 4096)
        return;
    vd_add(q, buf, n, (f->vd.features & VIRTIO_F_INDIRECT_DESC) && one_in(3));
    vd_ring(q);
}

/* Takes what came back. A ring that was corrupted may show anything: then the driver starts over. */
static void collect(struct fuzz *f)
{
    if (f->kind->poke)
        f->kind->poke(f->vd.dev);
    vd_run(&f->vd);
    for (unsigned i = 0; i < f->nq; i++) {
        struct vdq *q = &f->q[i];
        unsigned id;
        uint32_t len;
        for (unsigned k = 0; k < 4 * q->size && !(vd_status(&f->vd) & VIRTIO_STATUS_NEEDS_RESET); k++)
            if (!vd_get(q, &id, &len))
                break;
        if (q->bad) {
            restart(f);
            return;
        }
    }
}

static void state_round_trip(struct fuzz *f)
{
    struct virtio_dev *dev = f->vd.dev;
    struct device *tr = f->vd.fn ? &f->vd.fn->dev : f->vd.regs;
    struct state_writer w = {0};
    struct err err = {0};
    dev->dev.type->pause(&dev->dev, true);
    state_save(&w, dev->dev.type->state, "d", dev);
    state_save(&w, tr->type->state, "t", tr);
    if (f->vd.fn)
        state_save(&w, &pci_dev_state, "p", f->vd.fn);
    if (one_in(4)) { /* a hostile stream: refused or taken, then reset */
        for (unsigned i = 0; i < 8; i++)
            w.data[rnd() % w.len] ^= (uint8_t)rnd();
        struct state_reader r = {w.data, w.len, 0};
        if (state_load(&r, dev->dev.type->state, "d", dev, &err) == 0 &&
            state_load(&r, tr->type->state, "t", tr, &err) == 0 && f->vd.fn)
            (void)!state_load(&r, &pci_dev_state, "p", f->vd.fn, &err);
        dev->dev.type->pause(&dev->dev, false);
        vd_run(&f->vd);
        device_reset(tr);
        if (f->vd.fn) {
            pci_assign(f->vd.pci, 0xe0000000, 0xe1000000, 0xc000);
            f->vd.base = pci_config_read(f->vd.pci, f->vd.fn->devfn, 0x10, 4) & ~15u;
        }
        restart(f);
    } else {
        device_reset(tr);
        struct state_reader r = {w.data, w.len, 0};
        MUST(state_load(&r, dev->dev.type->state, "d", dev, &err) == 0);
        MUST(state_load(&r, tr->type->state, "t", tr, &err) == 0);
        MUST(!f->vd.fn || state_load(&r, &pci_dev_state, "p", f->vd.fn, &err) == 0);
        dev->dev.type->pause(&dev->dev, false);
    }
    f->paused = false;
    state_writer_free(&w);
}

static void corrupt(struct fuzz *f)
{
    struct vdq *q = &f->q[rnd() % f->nq];
    gpa_t at = one_in(2)   ? q->desc + rnd() % (16 * q->size)
               : one_in(2) ? q->driver + rnd() % (6 + 2 * q->size)
                           : q->device + rnd() % (6 + 8 * q->size);
    uint8_t byte = (uint8_t)rnd();
    MUST(mem_write(f->vd.mem, at, &byte, 1) == 0);
    vd_ring(q);
    vd_run(&f->vd);
    restart(f);
}

static void touch_register(struct fuzz *f)
{
    unsigned size = 1u << rnd() % 4;
    uint64_t off = f->vd.fn ? (one_in(2) ? 0x2000 + rnd() % 64 : rnd() % 64) : rnd() % 0x200;
    if (one_in(2))
        bus_read(f->vd.mmio, f->vd.base + off, size);
    else
        bus_write(f->vd.mmio, f->vd.base + off, size, one_in(2) ? rnd() % 4 : rnd());
    vd_run(&f->vd);
    if (one_in(4) || vd_status(&f->vd) != DRIVER_OK || off < 0x1000)
        restart(f);
}

static void step(struct fuzz *f)
{
    struct device *dev = &f->vd.dev->dev;
    unsigned what = rnd() % 1000;
    if (what < 800) {
        offer(f);
        if (one_in(3))
            collect(f);
    } else if (what < 900) {
        collect(f);
    } else if (what < 920) {
        corrupt(f);
    } else if (what < 950) {
        touch_register(f);
    } else if (what < 970) {
        dev->type->pause(dev, !f->paused);
        f->paused = !f->paused;
    } else if (what < 990) {
        restart(f);
    } else {
        state_round_trip(f);
    }
    if ((vd_status(&f->vd) & VIRTIO_STATUS_NEEDS_RESET) || f->vd.next > RAM / 2 - 8192)
        restart(f);
}

int main(int argc, char **argv)
{
    const struct fuzz_kind *kind = NULL;
    for (unsigned i = 0; argc > 1 && fuzz_kinds[i].name; i++)
        if (!strcmp(fuzz_kinds[i].name, argv[1]))
            kind = &fuzz_kinds[i];
    if (!kind)
        return 2;
    uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 20000;
    for (unsigned t = VD_PCI; t <= VD_MMIO; t++) {
        struct fuzz f = {.kind = kind};
        fuzz_seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 0x10d6e;
        fuzz_seed += t;
        vd_machine(&f.vd, t, RAM);
        vd_plug(&f.vd, kind->make(&f.vd));
        if (t == VD_PCI)
            vd_enable_msix(&f.vd);
        restart(&f);
        for (fuzz_step = 0; fuzz_step < steps / 2; fuzz_step++)
            step(&f);
        vd_free(&f.vd);
        if (kind->cleanup)
            kind->cleanup();
    }
    return 0;
}
