/* Virtqueues and the transport-neutral core, by a device that sends back what it gets, behind both transports and both
 * rings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "vdriver.h"

struct echo {
    struct virtio_dev virtio;
    struct virtq_elem *elem[8];
    unsigned hold; /* elements to keep before giving any back */
    unsigned held;
    unsigned resets;
    bool unpop_first;
};

static uint32_t echo_copy(const struct virtq_elem *e)
{
    uint8_t buf[4096];
    size_t n = virtq_read(e, 0, buf, sizeof buf);
    return (uint32_t)virtq_write(e, 0, buf, n);
}

static void echo_notify(struct virtq *q)
{
    struct echo *d = (struct echo *)q->dev;
    do {
        virtq_disable_notify(q);
        if (d->unpop_first && virtq_pop(q, d->elem[0]) > 0)
            virtq_unpop(q, d->elem[0]);
        while (virtq_pop(q, d->elem[d->held]) > 0) {
            if (++d->held < d->hold)
                continue;
            for (unsigned i = 0; i < d->held; i++)
                virtq_fill(q, d->elem[i], echo_copy(d->elem[i]));
            virtq_flush(q);
            d->held = 0;
        }
    } while (virtq_enable_notify(q));
    virtq_notify(q);
}

static void echo_drain(struct virtio_dev *dev)
{
    struct echo *d = (struct echo *)dev;
    struct virtq *q = &dev->queues[0];
    virtq_lock(q);
    for (; d->held; d->held--)
        virtq_push(q, d->elem[d->held - 1], 0);
    virtq_unlock(q);
}

static void echo_reset(struct virtio_dev *dev)
{
    ((struct echo *)dev)->resets++;
}

static void echo_config(struct virtio_dev *dev, uint8_t config[VIRTIO_CONFIG_MAX])
{
    le64_put(config, 0x1122334455667788);
}

static void echo_destroy(struct device *dev)
{
    struct echo *d = (struct echo *)dev;
    virtio_fini(&d->virtio);
    for (unsigned i = 0; i < ARRAY_SIZE(d->elem); i++)
        free(d->elem[i]);
    free(d);
}

static const struct virtio_ops echo_ops = {
    .notify = echo_notify, .config_get = echo_config, .drain = echo_drain, .reset = echo_reset};
static const struct state_field echo_fields[] = {VIRTIO_STATE_FIELDS(struct echo, virtio), STATE_END};
static const struct state_desc echo_state = {"echo", 1, 1, echo_fields, virtio_pre_save, virtio_post_load};
static const struct device_type echo_type = {.name = "echo",
                                             .state = &echo_state,
                                             .reset = virtio_device_reset,
                                             .destroy = echo_destroy,
                                             .pause = virtio_device_pause};

static struct echo *echo_new(struct vd *vd, enum vd_transport t)
{
    struct echo *d = xcalloc(1, sizeof *d);
    vd_machine(vd, t, 4 * MIB);
    virtio_init(&d->virtio, &echo_type, "echo", 42, &echo_ops, vd->mem, 2, 8);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(virtio_queue_init(&d->virtio, i, 64, vd->loop, NULL), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(d->elem); i++)
        d->elem[i] = virtq_elem_new(16);
    d->hold = 1;
    vd_plug(vd, &d->virtio);
    return d;
}

#define DRIVER_OK                                                                                                      \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)

static void start(struct vd *vd, struct vdq *q, uint64_t features, unsigned size)
{
    assert_true(vd_negotiate(vd, VIRTIO_F_VERSION_1 | features));
    vd_queue(vd, q, 0, size);
    vd_set_status(vd, DRIVER_OK);
}

/* Sends `text` and expects it back. */
static void exchange(struct vd *vd, struct vdq *q, const char *text, bool indirect)
{
    char back[64] = "";
    uint32_t len = (uint32_t)strlen(text), got = 0;
    gpa_t out = vd_alloc(vd, 64), in = vd_alloc(vd, 64);
    struct vd_buf buf[] = {{out, 1, false}, {out + 1, len - 1, false}, {in, 2, true}, {in + 2, 62, true}};
    unsigned id, used;
    assert_int_equal(mem_write(vd->mem, out, text, len), 0);
    id = vd_add(q, buf, 4, indirect);
    vd_ring(q);
    assert_true(vd_wait(q, &used, &got));
    assert_int_equal(used, id);
    assert_int_equal(got, len);
    assert_int_equal(mem_read(vd->mem, in, back, len), 0);
    assert_string_equal(back, text);
}

static const uint64_t ring_kinds[] = {0, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED,
                                      VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX};

static void buffers_come_back_on_every_ring_and_transport(void **s)
{
    for (unsigned t = VD_PCI; t <= VD_MMIO; t++) {
        struct vd vd;
        struct vdq q;
        echo_new(&vd, t);
        for (unsigned k = 0; k < ARRAY_SIZE(ring_kinds); k++) {
            start(&vd, &q, ring_kinds[k] | VIRTIO_F_INDIRECT_DESC, 16);
            vd_isr(&vd);
            for (unsigned i = 0; i < 50; i++) { /* round the ring several times */
                char text[32];
                snprintf(text, sizeof text, "message %u of ring %u", i, k);
                exchange(&vd, &q, text, i & 1);
            }
            assert_int_equal(vd.intx, 1);
            assert_int_equal(vd_isr(&vd), 1);
            assert_int_equal(vd.intx, 0);
            assert_int_equal(vd_status(&vd), DRIVER_OK);
        }
        assert_int_equal(vd_config(&vd, 0, 4), 0x55667788);
        assert_int_equal(vd_config(&vd, 6, 1), 0x22);
        assert_int_equal(vd_config(&vd, 7, 2), 0x11);
        assert_int_equal(vd_config(&vd, 100, 4), 0);
        vd_free(&vd);
    }
}

static void ring_of_a_size_that_is_no_power_of_two_works_when_packed(void **s)
{
    struct vd vd;
    struct vdq q;
    echo_new(&vd, VD_PCI);
    start(&vd, &q, VIRTIO_F_RING_PACKED, 7);
    for (unsigned i = 0; i < 30; i++)
        exchange(&vd, &q, "odd", false);
    vd_free(&vd);
}

static void many_are_shown_at_once(void **s)
{
    for (unsigned k = 0; k < ARRAY_SIZE(ring_kinds); k++) {
        struct vd vd;
        struct vdq q;
        struct echo *d = echo_new(&vd, VD_PCI);
        start(&vd, &q, ring_kinds[k], 8);
        d->hold = 3;
        for (unsigned round = 0; round < 9; round++) {
            unsigned id, ids[3];
            uint32_t len;
            gpa_t at = vd_alloc(&vd, 64);
            for (unsigned i = 0; i < 3; i++) {
                struct vd_buf buf[] = {{at, 8, false}, {at + 32, 8, true}};
                ids[i] = vd_add(&q, buf, 2, false);
                vd_ring(&q);
                vd_run(&vd);
                if (i < 2)
                    assert_false(vd_get(&q, &id, &len));
            }
            for (unsigned i = 0; i < 3; i++) {
                assert_true(vd_get(&q, &id, &len));
                assert_int_equal(id, ids[i]);
                assert_int_equal(len, 8);
            }
            assert_false(vd_get(&q, &id, &len));
        }
        vd_free(&vd);
    }
}

static void what_is_put_back_comes_again(void **s)
{
    for (unsigned k = 0; k < ARRAY_SIZE(ring_kinds); k++) {
        struct vd vd;
        struct vdq q;
        struct echo *d = echo_new(&vd, VD_MMIO);
        start(&vd, &q, ring_kinds[k], 8);
        d->unpop_first = true;
        for (unsigned i = 0; i < 20; i++)
            exchange(&vd, &q, "again", false);
        vd_free(&vd);
    }
}

static void interrupts_come_as_the_driver_wishes(void **s)
{
    struct vd vd;
    struct vdq q;
    unsigned id;
    uint32_t len;
    echo_new(&vd, VD_PCI);
    vd_enable_msix(&vd);

    start(&vd, &q, 0, 16);
    exchange(&vd, &q, "one", false);
    assert_int_equal(vd.msi[1], 1);
    assert_int_equal(mem_write16(vd.mem, q.driver, 1), 0); /* NO_INTERRUPT */
    exchange(&vd, &q, "two", false);
    assert_int_equal(vd.msi[1], 1);
    assert_int_equal(vd.intx, 0);

    start(&vd, &q, VIRTIO_F_EVENT_IDX, 16);
    vd.msi[1] = 0;
    assert_int_equal(mem_write16(vd.mem, q.driver + 4 + 2 * 16, 2), 0); /* used_event: after the third */
    exchange(&vd, &q, "one", false); /* the first is always told: nothing is known of before */
    vd.msi[1] = 0;
    exchange(&vd, &q, "two", false);
    assert_int_equal(vd.msi[1], 0);
    exchange(&vd, &q, "three", false);
    assert_int_equal(vd.msi[1], 1);

    start(&vd, &q, VIRTIO_F_RING_PACKED, 16);
    vd.msi[1] = 0;
    assert_int_equal(mem_write16(vd.mem, q.driver + 2, 1), 0);
    exchange(&vd, &q, "one", false);
    assert_int_equal(vd.msi[1], 0);

    start(&vd, &q, VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX, 16);
    assert_int_equal(mem_write16(vd.mem, q.driver, 9 | 1 << 15), 0); /* the buffer at slot 8: the third of four each */
    assert_int_equal(mem_write16(vd.mem, q.driver + 2, 2), 0);
    exchange(&vd, &q, "one", false);
    vd.msi[1] = 0;
    exchange(&vd, &q, "two", false);
    assert_int_equal(vd.msi[1], 0);
    exchange(&vd, &q, "three", false);
    assert_int_equal(vd.msi[1], 1);
    exchange(&vd, &q, "four", false);
    assert_int_equal(vd.msi[1], 1);
    assert_false(vd_get(&q, &id, &len));
    vd_free(&vd);
}

static void driver_is_asked_for_doorbells(void **s)
{
    struct vd vd;
    struct vdq q;
    uint16_t v;
    echo_new(&vd, VD_PCI);
    start(&vd, &q, VIRTIO_F_EVENT_IDX, 16);
    for (unsigned i = 0; i < 5; i++)
        exchange(&vd, &q, "x", false);
    assert_int_equal(mem_read16(vd.mem, q.device + 4 + 8 * 16, &v), 0);
    assert_int_equal(v, 5); /* avail_event: the next one */
    start(&vd, &q, VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED, 16);
    for (unsigned i = 0; i < 5; i++)
        exchange(&vd, &q, "x", false);
    assert_int_equal(mem_read16(vd.mem, q.device, &v), 0);
    assert_int_equal(v, 4 | 0 << 15); /* 20 descriptors of 16: slot 4 of the second round */
    assert_int_equal(mem_read16(vd.mem, q.device + 2, &v), 0);
    assert_int_equal(v, 2);
    vd_free(&vd);
}

/* ---- hostile guests ---- */

static void raw_desc(struct vd *vd, gpa_t at, uint64_t addr, uint32_t len, uint16_t w12, uint16_t w14)
{
    uint8_t raw[16];
    le64_put(raw, addr);
    le32_put(raw + 8, len);
    le16_put(raw + 12, w12);
    le16_put(raw + 14, w14);
    assert_int_equal(mem_write(vd->mem, at, raw, 16), 0);
}

static void offer_split(struct vdq *q, uint16_t head, uint16_t idx)
{
    assert_int_equal(mem_write16(q->vd->mem, q->driver + 4, head), 0);
    assert_int_equal(mem_write16(q->vd->mem, q->driver + 2, idx), 0);
}

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, A = 1 << 7 };

static void hostile_split(struct vd *vd, struct vdq *q, unsigned n)
{
    gpa_t d = q->desc, buf = vd_alloc(vd, 4096), table = vd_alloc(vd, 4096);
    uint16_t head = 0, idx = 1;
    switch (n) {
    case 0: /* a loop */
        raw_desc(vd, d, buf, 8, NEXT, 1);
        raw_desc(vd, d + 16, buf, 8, NEXT, 0);
        break;
    case 1: /* next out of range */
        raw_desc(vd, d, buf, 8, NEXT, 16);
        break;
    case 2: /* head out of range */
        head = 16;
        break;
    case 3: /* index jumps */
        idx = 17;
        break;
    case 4: /* not RAM */
        raw_desc(vd, d, 0x40000000, 8, WRITE, 0);
        break;
    case 5: /* reaches over the end of RAM */
        raw_desc(vd, d, 4 * MIB - 8, 16, WRITE, 0);
        break;
    case 6: /* address wraps */
        raw_desc(vd, d, UINT64_MAX - 3, 16, 0, 0);
        break;
    case 7: /* readable after writable */
        raw_desc(vd, d, buf, 8, NEXT | WRITE, 1);
        raw_desc(vd, d + 16, buf, 8, 0, 0);
        break;
    case 8: /* table length no multiple of 16 */
        raw_desc(vd, d, table, 24, INDIRECT, 0);
        break;
    case 9: /* empty table */
        raw_desc(vd, d, table, 0, INDIRECT, 0);
        break;
    case 10: /* table in table */
        raw_desc(vd, d, table, 16, INDIRECT, 0);
        raw_desc(vd, table, table, 16, INDIRECT, 0);
        break;
    case 11: /* table with successor */
        raw_desc(vd, d, table, 16, INDIRECT | NEXT, 1);
        break;
    case 12: /* loop in a table */
        raw_desc(vd, d, table, 32, INDIRECT, 0);
        raw_desc(vd, table, buf, 1, NEXT, 1);
        raw_desc(vd, table + 16, buf, 1, NEXT, 0);
        break;
    case 13: /* a huge table */
        raw_desc(vd, d, table, 0xfffffff0, INDIRECT, 0);
        break;
    case 14: /* table not in RAM */
        raw_desc(vd, d, 0x123456789abcdef0, 16, INDIRECT, 0);
        break;
    case 15: /* more pieces than the device takes */
        raw_desc(vd, d, table, 32 * 16, INDIRECT, 0);
        for (uint16_t i = 0; i < 32; i++)
            raw_desc(vd, table + 16 * i, buf, 1, i < 31 ? NEXT : 0, (uint16_t)(i + 1));
        break;
    default: /* longer than 4 GiB */
        raw_desc(vd, d, table, 12 * 16, INDIRECT, 0);
        for (uint16_t i = 0; i < 12; i++)
            raw_desc(vd, table + 16 * i, 0, 0x3fffff, (uint16_t)((i < 11 ? NEXT : 0)), (uint16_t)(i + 1));
        raw_desc(vd, table + 16 * 11, 0, 0xffffffff, WRITE, 0);
        break;
    }
    offer_split(q, head, idx);
}

static void hostile_packed(struct vd *vd, struct vdq *q, unsigned n)
{
    gpa_t d = q->desc, buf = vd_alloc(vd, 4096), table = vd_alloc(vd, 4096);
    switch (n) {
    case 0: /* the chain goes round and round */
        for (unsigned i = 0; i < 16; i++)
            raw_desc(vd, d + 16 * i, buf, 1, 0, NEXT | A);
        break;
    case 1:
        raw_desc(vd, d, 0x40000000, 8, 0, WRITE | A);
        break;
    case 2:
        raw_desc(vd, d, buf, 8, 0, NEXT | WRITE | A);
        raw_desc(vd, d + 16, buf, 8, 0, A);
        break;
    case 3:
        raw_desc(vd, d, table, 17, 0, INDIRECT | A);
        break;
    case 4:
        raw_desc(vd, d, table, 16, 0, INDIRECT | A);
        raw_desc(vd, table, table, 16, 0, INDIRECT);
        break;
    case 5:
        raw_desc(vd, d, table, 16, 0, INDIRECT | NEXT | A);
        break;
    case 6:
        raw_desc(vd, d, table, 0x80000000, 0, INDIRECT | A);
        break;
    default: /* more pieces than the device takes */
        raw_desc(vd, d, table, 32 * 16, 0, INDIRECT | A);
        for (unsigned i = 0; i < 32; i++)
            raw_desc(vd, table + 16 * i, buf, 1, 0, 0);
        break;
    }
}

static void impossible_rings_need_a_reset(void **s)
{
    for (unsigned packed = 0; packed <= 1; packed++) {
        for (unsigned n = 0; n < (packed ? 8 : 17); n++) {
            struct vd vd;
            struct vdq q;
            unsigned id;
            uint32_t len;
            uint64_t features = VIRTIO_F_INDIRECT_DESC | (packed ? VIRTIO_F_RING_PACKED : 0);
            echo_new(&vd, VD_PCI);
            vd_enable_msix(&vd);
            start(&vd, &q, features, 16);
            if (packed)
                hostile_packed(&vd, &q, n);
            else
                hostile_split(&vd, &q, n);
            vd_ring(&q);
            vd_run(&vd);
            if (!(vd_status(&vd) & VIRTIO_STATUS_NEEDS_RESET))
                fail_msg("packed %u, case %u was accepted", packed, n);
            assert_int_equal(vd.msi[0], 1); /* configuration interrupt */
            assert_false(vd_get(&q, &id, &len));
            vd_ring(&q);
            vd_run(&vd);
            start(&vd, &q, features, 16);
            exchange(&vd, &q, "well again", true);
            vd_free(&vd);
        }
    }
}

static void indirect_without_negotiation_is_refused(void **s)
{
    struct vd vd;
    struct vdq q;
    echo_new(&vd, VD_PCI);
    start(&vd, &q, 0, 16);
    hostile_split(&vd, &q, 12);
    vd_ring(&q);
    vd_run(&vd);
    assert_true(vd_status(&vd) & VIRTIO_STATUS_NEEDS_RESET);
    vd_free(&vd);
}

static void buffers_offered_twice_cannot_exhaust_the_device(void **s)
{
    struct vd vd;
    struct vdq q;
    struct echo *d = echo_new(&vd, VD_PCI);
    d->hold = 8;
    start(&vd, &q, 0, 4);
    gpa_t buf = vd_alloc(&vd, 64);
    for (uint16_t i = 1; i < 8; i++) { /* the same descriptor again and again, never waiting for it */
        raw_desc(&vd, q.desc, buf, 8, WRITE, 0);
        offer_split(&q, 0, i);
        vd_ring(&q);
        vd_run(&vd);
    }
    assert_true(vd_status(&vd) & VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(d->held, 4);
    vd_set_status(&vd, 0);
    assert_int_equal(d->held, 0);
    vd_free(&vd);
}

static void queues_outside_ram_are_refused(void **s)
{
    struct vd vd;
    struct vdq q;
    for (unsigned t = VD_PCI; t <= VD_MMIO; t++) {
        for (unsigned n = 0; n < 5; n++) {
            echo_new(&vd, t);
            assert_true(vd_negotiate(&vd, VIRTIO_F_VERSION_1));
            vd_queue(&vd, &q, 1, 8);
            q.index = 0;
            q.desc = n == 0 ? 4 * MIB - 32 : n == 1 ? q.desc + 1 : q.desc;
            q.driver = n == 2 ? UINT64_MAX - 1 : q.driver;
            q.device = n == 3 ? 0xffffffff00000000 : q.device;
            q.size = n == 4 ? 6 : q.size;
            vd_queue_program(&q);
            assert_true(vd_status(&vd) & VIRTIO_STATUS_NEEDS_RESET);
            vd_set_status(&vd, 0);
            assert_int_equal(vd_status(&vd), 0);
            vd_free(&vd);
        }
    }
}

/* ---- negotiation, reset, pause, state ---- */

static void wrong_features_are_refused(void **s)
{
    struct vd vd;
    echo_new(&vd, VD_MMIO);
    assert_true(vd_device_features(&vd) & VIRTIO_F_VERSION_1);
    assert_false(vd_negotiate(&vd, VIRTIO_F_VERSION_1 | BIT64(63)));
    assert_false(vd_negotiate(&vd, VIRTIO_F_EVENT_IDX)); /* not a modern driver */
    vd_set_status(&vd, DRIVER_OK & ~VIRTIO_STATUS_FEATURES_OK);
    assert_false(vd_status(&vd) & VIRTIO_STATUS_DRIVER_OK);
    assert_true(vd_negotiate(&vd, VIRTIO_F_VERSION_1));
    vd_free(&vd);
}

static void reset_waits_for_what_is_held(void **s)
{
    struct vd vd;
    struct vdq q;
    unsigned id;
    uint32_t len;
    struct echo *d = echo_new(&vd, VD_PCI);
    d->hold = 8;
    start(&vd, &q, 0, 16);
    unsigned before = d->resets;
    gpa_t buf = vd_alloc(&vd, 64);
    struct vd_buf b = {buf, 8, true};
    vd_add(&q, &b, 1, false);
    vd_ring(&q);
    vd_run(&vd);
    assert_int_equal(d->held, 1);
    vd_set_status(&vd, 0);
    assert_int_equal(d->held, 0);
    assert_int_equal(d->resets, before + 1);
    assert_int_equal(vd_status(&vd), 0);
    assert_true(vd_get(&q, &id, &len)); /* it was given back before the reset was over */
    vd_ring(&q);
    vd_run(&vd);
    assert_false(vd_get(&q, &id, &len));
    vd_free(&vd);
}

static void one_queue_can_be_reset_alone(void **s)
{
    for (unsigned t = VD_PCI; t <= VD_MMIO; t++) {
        struct vd vd;
        struct vdq q, other;
        echo_new(&vd, t);
        assert_true(vd_negotiate(&vd, VIRTIO_F_VERSION_1 | VIRTIO_F_RING_RESET));
        vd_queue(&vd, &q, 0, 16);
        vd_queue(&vd, &other, 1, 8);
        vd_set_status(&vd, DRIVER_OK);
        exchange(&vd, &q, "a", false);
        exchange(&vd, &other, "b", false);
        bus_write(vd.mmio, vd.base + (t == VD_PCI ? 22 : 0x30), t == VD_PCI ? 2 : 4, 0);
        bus_write(vd.mmio, vd.base + (t == VD_PCI ? 58 : 0xc0), t == VD_PCI ? 2 : 4, 1);
        assert_int_equal(bus_read(vd.mmio, vd.base + (t == VD_PCI ? 58 : 0xc0), t == VD_PCI ? 2 : 4), 0);
        assert_int_equal(bus_read(vd.mmio, vd.base + (t == VD_PCI ? 28 : 0x44), t == VD_PCI ? 2 : 4), 0);
        exchange(&vd, &other, "c", false);
        vd_queue(&vd, &q, 0, 8);
        exchange(&vd, &q, "d", false);
        vd_free(&vd);
    }
}

static void nothing_moves_while_paused(void **s)
{
    struct vd vd;
    struct vdq q;
    unsigned id;
    uint32_t len;
    struct echo *d = echo_new(&vd, VD_PCI);
    start(&vd, &q, 0, 16);
    d->virtio.dev.type->pause(&d->virtio.dev, true);
    gpa_t buf = vd_alloc(&vd, 64);
    struct vd_buf b = {buf, 8, true};
    vd_add(&q, &b, 1, false);
    vd_ring(&q);
    vd_run(&vd);
    assert_false(vd_get(&q, &id, &len));
    d->virtio.dev.type->pause(&d->virtio.dev, false);
    assert_true(vd_wait(&q, &id, &len));
    vd_free(&vd);
}

static void state_goes_on_where_it_was(void **s)
{
    for (unsigned k = 0; k < ARRAY_SIZE(ring_kinds); k++) {
        struct vd vd;
        struct vdq q;
        struct echo *d = echo_new(&vd, VD_PCI);
        vd_enable_msix(&vd);
        start(&vd, &q, ring_kinds[k], 16);
        for (unsigned i = 0; i < 23; i++)
            exchange(&vd, &q, "before", false);
        struct state_writer w = {0};
        d->virtio.dev.type->pause(&d->virtio.dev, true);
        state_save(&w, d->virtio.dev.type->state, "echo", d);
        state_save(&w, vd.fn->dev.type->state, "fn", vd.fn);
        state_save(&w, &pci_dev_state, "fn", vd.fn);
        device_reset(&vd.fn->dev);
        assert_int_equal(vd_status(&vd), 0xff); /* not mapped any more */
        struct state_reader r = {w.data, w.len, 0};
        struct err err = {0};
        assert_int_equal(state_load(&r, d->virtio.dev.type->state, "echo", d, &err), 0);
        assert_int_equal(state_load(&r, vd.fn->dev.type->state, "fn", vd.fn, &err), 0);
        assert_int_equal(state_load(&r, &pci_dev_state, "fn", vd.fn, &err), 0);
        d->virtio.dev.type->pause(&d->virtio.dev, false);
        assert_int_equal(vd_status(&vd), DRIVER_OK);
        vd.msi[1] = 0;
        for (unsigned i = 0; i < 23; i++)
            exchange(&vd, &q, "after", false);
        assert_true(vd.msi[1] > 0 || (ring_kinds[k] & VIRTIO_F_EVENT_IDX));
        state_writer_free(&w);
        vd_free(&vd);
    }
}

static void wrong_state_is_refused(void **s)
{
    struct vd vd;
    struct vdq q;
    struct echo *d = echo_new(&vd, VD_PCI);
    start(&vd, &q, VIRTIO_F_RING_PACKED, 16);
    struct err err = {0};
    d->virtio.saved = (struct virtio_saved){0};
    virtio_pre_save(d);
    d->virtio.saved.avail_idx[0] = 16; /* beyond the ring */
    assert_int_equal(virtio_post_load(d, 1, &err), -22);
    virtio_device_reset(&d->virtio.dev);
    d->virtio.guest_features = BIT64(60);
    d->virtio.status = DRIVER_OK;
    err.code = 0;
    assert_int_equal(virtio_post_load(d, 1, &err), -22);
    virtio_device_reset(&d->virtio.dev);
    vd_free(&vd);
}

/* 4.1.4.9: firmware without access to BARs goes through config space. */
static void registers_are_reached_through_config_space(void **s)
{
    struct vd vd;
    struct vdq q;
    unsigned id;
    uint32_t len;
    echo_new(&vd, VD_PCI);
    start(&vd, &q, 0, 16);
    unsigned devfn = vd.fn->devfn, cap = pci_config_read(vd.pci, devfn, 0x34, 1);
    while (cap && (pci_config_read(vd.pci, devfn, cap, 1) != 9 || pci_config_read(vd.pci, devfn, cap + 3, 1) != 5))
        cap = pci_config_read(vd.pci, devfn, cap + 1, 1);
    assert_true(cap);
    pci_config_write(vd.pci, devfn, cap + 4, 1, 0);
    pci_config_write(vd.pci, devfn, cap + 8, 4, 0x2004); /* device configuration */
    pci_config_write(vd.pci, devfn, cap + 12, 4, 2);
    assert_int_equal(pci_config_read(vd.pci, devfn, cap + 16, 2), 0x3344);
    struct vd_buf b = {vd_alloc(&vd, 64), 8, true};
    vd_add(&q, &b, 1, false);
    pci_config_write(vd.pci, devfn, cap + 8, 4, 0x3000); /* doorbell of queue 0 */
    pci_config_write(vd.pci, devfn, cap + 16, 2, 0);
    assert_true(vd_wait(&q, &id, &len));
    pci_config_write(vd.pci, devfn, cap + 8, 4, 20); /* status */
    pci_config_write(vd.pci, devfn, cap + 12, 4, 1);
    assert_int_equal(pci_config_read(vd.pci, devfn, cap + 16, 1), DRIVER_OK);
    static const uint32_t wrong[][2] = {{0x4000, 1}, {0x3fff, 2}, {UINT32_MAX, 4}, {0, 8},
                                        {0, 0},      {2, 4},      {0, UINT32_MAX}};
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        pci_config_write(vd.pci, devfn, cap + 8, 4, wrong[i][0]);
        pci_config_write(vd.pci, devfn, cap + 12, 4, wrong[i][1]);
        pci_config_write(vd.pci, devfn, cap + 16, 4, 0);
        pci_config_read(vd.pci, devfn, cap + 16, 4);
    }
    assert_int_equal(vd_status(&vd), DRIVER_OK);
    vd_free(&vd);
}

static void random_register_accesses_are_harmless(void **s)
{
    for (unsigned t = VD_PCI; t <= VD_MMIO; t++) {
        struct vd vd;
        struct vdq q;
        uint64_t x = 88172645463325252ull;
        echo_new(&vd, t);
        for (unsigned i = 0; i < 20000; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            uint64_t off = (x >> 8) % (t == VD_PCI ? 0x3100 : 0x200);
            unsigned size = 1u << (x & 3);
            if (t == VD_PCI && (x & 0x30))
                off %= 64;
            if (x & 4)
                bus_read(vd.mmio, vd.base + off, size);
            else
                bus_write(vd.mmio, vd.base + off, size, x >> 16 & (x & 8 ? 0xff : UINT64_MAX));
            if (i % 64 == 0)
                vd_run(&vd);
        }
        start(&vd, &q, 0, 16);
        exchange(&vd, &q, "still here", false);
        vd_free(&vd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_come_back_on_every_ring_and_transport),
        cmocka_unit_test(ring_of_a_size_that_is_no_power_of_two_works_when_packed),
        cmocka_unit_test(many_are_shown_at_once),
        cmocka_unit_test(what_is_put_back_comes_again),
        cmocka_unit_test(interrupts_come_as_the_driver_wishes),
        cmocka_unit_test(driver_is_asked_for_doorbells),
        cmocka_unit_test(impossible_rings_need_a_reset),
        cmocka_unit_test(indirect_without_negotiation_is_refused),
        cmocka_unit_test(buffers_offered_twice_cannot_exhaust_the_device),
        cmocka_unit_test(queues_outside_ram_are_refused),
        cmocka_unit_test(wrong_features_are_refused),
        cmocka_unit_test(reset_waits_for_what_is_held),
        cmocka_unit_test(one_queue_can_be_reset_alone),
        cmocka_unit_test(nothing_moves_while_paused),
        cmocka_unit_test(state_goes_on_where_it_was),
        cmocka_unit_test(wrong_state_is_refused),
        cmocka_unit_test(registers_are_reached_through_config_space),
        cmocka_unit_test(random_register_accesses_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
