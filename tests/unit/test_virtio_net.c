#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/iov.h"
#include "dev/virtio/net.h"
#include "fake_driver.h"

#define F(n) BIT64(n)
#define F_MRG F(15)
#define F_CTRL (F(17) | F(18) | F(19) | F(20) | F(23))
#define F_MQ F(22)
#define FRAMES 600

/* A backend that the test feeds and reads. */
struct fake_net {
    struct net net;
    const struct net_client *client;
    struct {
        uint8_t *data;
        int len;
    } in[FRAMES];
    unsigned in_head, in_tail;
    uint8_t out[NET_FRAME_MAX];
    int out_len;
    unsigned sent, active, offload;
    bool busy, want;
};

static int fake_send(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct fake_net *f = (struct fake_net *)net;
    if (f->busy)
        return -EAGAIN;
    f->out_len = (int)iov_read(iov, niov, 0, f->out, sizeof f->out);
    f->sent++;
    return f->out_len;
}

static int fake_recv(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct fake_net *f = (struct fake_net *)net;
    if (f->in_head == f->in_tail)
        return -EAGAIN;
    int len = f->in[f->in_head % FRAMES].len;
    size_t n = iov_write(iov, niov, 0, f->in[f->in_head % FRAMES].data, (size_t)len);
    free(f->in[f->in_head++ % FRAMES].data);
    return n == len ? len : -EMSGSIZE;
}

static void fake_set_offload(struct net *net, unsigned offload)
{
    ((struct fake_net *)net)->offload = offload;
}
static int fake_set_queues(struct net *net, unsigned active)
{
    ((struct fake_net *)net)->active = active;
    return 0;
}
static int fake_attach(struct net *net, struct loop *loop, const struct net_client *client, struct err *err)
{
    ((struct fake_net *)net)->client = client;
    return 0;
}
static void fake_want(struct net *net, unsigned q, bool on)
{
    ((struct fake_net *)net)->want = on;
}
static void fake_close(struct net *net)
{
    struct fake_net *f = (struct fake_net *)net;
    while (f->in_head != f->in_tail)
        free(f->in[f->in_head++ % FRAMES].data);
    free(f);
}
static const struct net_ops fake_ops = {fake_send, fake_recv, NULL, fake_set_offload, fake_set_queues, fake_close};

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

static struct fake_net *make(struct fake_driver *d, unsigned queues, struct virtio_dev **ret)
{
    struct fake_net *f = calloc(1, sizeof *f);
    f->net = (struct net){.ops = &fake_ops,
                          .backend = "fake",
                          .vnet_hdr = true,
                          .offload = 15,
                          .queues = queues,
                          .mtu = 1500,
                          .link_up = true,
                          .attach = fake_attach,
                          .want_readable = fake_want};
    struct err err = {0};
    struct virtio_net_config cfg = {
        .id = "net0", .mem = d->mem, .net = &f->net, .mac = {0x52, 0x54, 0, 1, 2, 3}, .loop = d->loop};
    if (virtio_net_new(&cfg, ret, &err) < 0)
        fail_msg("%s", err.msg);
    return f;
}

/* A frame of `len` bytes with header, to `dst` (NULL: the card), each byte known. */
static void feed(struct fake_net *f, const uint8_t *dst, int len)
{
    uint8_t *p = malloc((size_t)len + 32);
    for (int i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 7 + len);
    memset(p, 0, 12);
    memcpy(p + 12, dst ? dst : mac, 6);
    memset(p + 24, 0, 2);
    f->in[f->in_tail % FRAMES].data = p;
    f->in[f->in_tail++ % FRAMES].len = len;
}

static void config_shows_the_card(void **s)
{
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 1, &dev);
    fake_start(d, dev, ~0ull);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(virtio_config_read(dev, i, 1), mac[i]);
    assert_int_equal(virtio_config_read(dev, 6, 2), 1);
    assert_int_equal(virtio_config_read(dev, 10, 2), 1500);
    f->client->link_changed(f->client->opaque, false);
    assert_int_equal(virtio_config_read(dev, 6, 2), 0);
    assert_int_equal(d->config_irqs, 1);
    loop_poll(d->loop, 0);
    assert_int_equal(f->offload, 15);
    assert_int_equal(f->active, 1);
    fake_free(d);
}

static void sends_and_waits_for_the_backend(void **s)
{
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 1, &dev);
    fake_start(d, dev, ~0ull);
    uint8_t frame[100];
    for (unsigned i = 0; i < sizeof frame; i++)
        frame[i] = (uint8_t)i;
    struct fake_buf b[2] = {fake_bytes(d, frame, 12), fake_bytes(d, frame + 12, 88)};
    unsigned id = fake_add(d, 1, b, 2, 0);
    fake_kick(d, 1);
    assert_int_equal(f->out_len, 100);
    assert_memory_equal(f->out, frame, 100);
    assert_int_equal(fake_used(d, 1, NULL), id);
    assert_true(d->irqs > 0);

    f->busy = true;
    id = fake_add(d, 1, b, 2, 0);
    fake_kick(d, 1);
    assert_int_equal(fake_used(d, 1, NULL), -1);
    f->busy = false;
    f->client->writable(f->client->opaque, 0);
    assert_int_equal(fake_used(d, 1, NULL), id);
    assert_int_equal(fake_used(d, 1, NULL), -1);
    assert_int_equal(f->sent, 2);
    fake_free(d);
}

static void receives_into_several_buffers(void **s)
{
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 1, &dev);
    fake_start(d, dev, F_MRG);
    struct fake_buf b[8];
    unsigned id[8];
    /* A frame that needs 3 buffers, while there are 2: it waits, and is not lost. */
    feed(f, NULL, 2500);
    feed(f, NULL, 60);
    for (unsigned i = 0; i < 2; i++) {
        b[i] = fake_room(d, 1000);
        id[i] = fake_add(d, 0, &b[i], 0, 1);
    }
    fake_kick(d, 0);
    assert_int_equal(fake_used(d, 0, NULL), -1);
    assert_false(f->want);
    for (unsigned i = 2; i < 6; i++) {
        b[i] = fake_room(d, 1000);
        id[i] = fake_add(d, 0, &b[i], 0, 1);
    }
    fake_kick(d, 0);
    uint32_t len;
    uint8_t got[2500];
    static const uint32_t want_len[] = {1000, 1000, 500, 60};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(fake_used(d, 0, &len), id[i]);
        assert_int_equal(len, want_len[i]);
    }
    assert_int_equal(fake_used(d, 0, &len), -1);
    assert_true(f->want);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(mem_read(d->mem, b[i].gpa, got + 1000 * i, want_len[i]), 0);
    assert_int_equal(le16_get(got + 10), 3); /* num_buffers */
    assert_memory_equal(got + 12, mac, 6);
    for (unsigned i = 26; i < 2500; i++)
        assert_int_equal(got[i], (uint8_t)(i * 7 + 2500));
    assert_int_equal(mem_read(d->mem, b[3].gpa, got, 60), 0);
    assert_int_equal(le16_get(got + 10), 1);
    assert_int_equal(got[59], (uint8_t)(59 * 7 + 60));
    fake_free(d);
}

static void drops_what_no_buffer_can_hold(void **s)
{
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 1, &dev);
    fake_start(d, dev, 0); /* one buffer a frame */
    struct fake_buf b = fake_room(d, 200);
    unsigned id = fake_add(d, 0, &b, 0, 1);
    feed(f, NULL, 2500);
    feed(f, NULL, 13); /* not even an Ethernet header */
    feed(f, NULL, 150);
    fake_kick(d, 0);
    uint32_t len;
    assert_int_equal(fake_used(d, 0, &len), id);
    assert_int_equal(len, 150);
    struct virtio_net_info info;
    virtio_net_query(dev, &info);
    assert_int_equal(info.rx_dropped, 2);
    assert_int_equal(info.rx_frames, 1);
    fake_free(d);
}

static void frames_wait_for_a_driver(void **s)
{
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 1, &dev);
    feed(f, NULL, 100);
    f->want = true;
    f->client->readable(f->client->opaque, 0);
    assert_false(f->want); /* no spinning */
    fake_start(d, dev, F_MRG);
    struct fake_buf b[2] = {fake_room(d, 2000), fake_room(d, 2000)};
    unsigned id[2] = {fake_add(d, 0, &b[0], 0, 1), fake_add(d, 0, &b[1], 0, 1)};
    fake_kick(d, 0);
    assert_int_equal(fake_used(d, 0, NULL), id[0]);
    assert_int_equal(fake_used(d, 0, NULL), -1);
    assert_true(f->want);
    /* Paused, nothing moves; after it, it does. */
    dev->dev.type->pause(&dev->dev, true);
    feed(f, NULL, 100);
    f->client->readable(f->client->opaque, 0);
    assert_int_equal(fake_used(d, 0, NULL), -1);
    dev->dev.type->pause(&dev->dev, false);
    loop_poll(d->loop, 0);
    assert_int_equal(fake_used(d, 0, NULL), id[1]);
    fake_free(d);
}

static uint8_t control(struct fake_driver *d, unsigned queue, unsigned class, unsigned cmd, const void *data,
                       size_t len)
{
    uint8_t head[2] = {(uint8_t) class, (uint8_t)cmd}, ack = 0xaa;
    struct fake_buf b[3] = {fake_bytes(d, head, 2), fake_bytes(d, data, len), fake_bytes(d, &ack, 1)};
    fake_add(d, queue, b, 2, 1);
    fake_kick(d, queue);
    uint32_t n = 0;
    assert_true(fake_used(d, queue, &n) >= 0);
    assert_int_equal(n, 1);
    assert_int_equal(mem_read(d->mem, b[2].gpa, &ack, 1), 0);
    return ack;
}

static bool arrives(struct fake_driver *d, struct fake_net *f, const uint8_t *dst)
{
    struct fake_buf b = fake_room(d, 2000);
    fake_add(d, 0, &b, 0, 1);
    feed(f, dst, 100);
    fake_kick(d, 0);
    uint32_t len;
    if (fake_used(d, 0, &len) < 0) {
        /* Take the buffer out of the way. */
        feed(f, (const uint8_t[]){0x52, 0x54, 0, 1, 2, 3}, 60);
        fake_kick(d, 0);
        assert_true(fake_used(d, 0, &len) >= 0);
        assert_int_equal(len, 60);
        return false;
    }
    return true;
}

static void filters_as_told(void **s)
{
    static const uint8_t other[6] = {2, 0, 0, 0, 0, 9}, group[6] = {1, 0, 0x5e, 0, 0, 7},
                         all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t off = 0, on = 1;
    struct fake_driver *d = fake_new(4 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 1, &dev);
    fake_start(d, dev, F_MRG | F_CTRL);
    assert_true(arrives(d, f, other));
    assert_int_equal(control(d, 2, 0, 0, &off, 1), 0);
    assert_false(arrives(d, f, other));
    assert_false(arrives(d, f, group));
    assert_true(arrives(d, f, all));
    assert_true(arrives(d, f, NULL));
    uint8_t table[4 + 6 + 4 + 6] = {1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 7};
    assert_int_equal(control(d, 2, 1, 0, table, sizeof table), 0);
    assert_true(arrives(d, f, other));
    assert_true(arrives(d, f, group));
    assert_int_equal(control(d, 2, 0, 5, &on, 1), 0);
    assert_false(arrives(d, f, all));
    /* Too many addresses: all of the kind pass. */
    uint8_t big[4 + 6 * 100 + 4] = {100};
    assert_int_equal(control(d, 2, 1, 0, big, sizeof big), 0);
    assert_true(arrives(d, f, other));
    assert_false(arrives(d, f, group));

    /* Nonsense is refused. */
    uint8_t bad[8] = {255, 255, 255, 255};
    assert_int_equal(control(d, 2, 1, 0, bad, 4), 1);
    assert_int_equal(control(d, 2, 1, 0, bad, 8), 1);
    assert_int_equal(control(d, 2, 1, 0, bad, 3), 1);
    assert_int_equal(control(d, 2, 1, 1, bad, 5), 1);
    assert_int_equal(control(d, 2, 2, 0, bad, 2), 1);
    assert_int_equal(control(d, 2, 4, 0, bad, 2), 1);
    assert_int_equal(control(d, 2, 0, 77, &on, 1), 1);
    assert_int_equal(control(d, 2, 99, 0, &on, 1), 1);
    assert_int_equal(control(d, 2, 1, 1, other, 6), 0);
    assert_int_equal(virtio_config_read(dev, 5, 1), 9);

    /* A reset brings all of it back to the start. */
    fake_start(d, dev, F_MRG);
    assert_int_equal(virtio_config_read(dev, 5, 1), 3);
    assert_true(arrives(d, f, other));
    fake_free(d);
}

static void queue_pairs_follow_the_driver(void **s)
{
    struct fake_driver *d = fake_new(4 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 3, &dev);
    fake_start(d, dev, F_MRG | F_CTRL | F_MQ);
    loop_poll(d->loop, 0);
    assert_int_equal(f->active, 1);
    assert_int_equal(virtio_config_read(dev, 8, 2), 3);
    assert_int_equal(control(d, 6, 4, 0, (uint8_t[]){3, 0}, 2), 0);
    assert_int_equal(f->active, 3);
    assert_int_equal(control(d, 6, 4, 0, (uint8_t[]){0, 0}, 2), 1);
    assert_int_equal(control(d, 6, 4, 0, (uint8_t[]){4, 0}, 2), 1);
    struct fake_buf b = fake_room(d, 2000);
    fake_add(d, 4, &b, 0, 1);
    feed(f, NULL, 77);
    f->client->readable(f->client->opaque, 2);
    uint32_t len;
    assert_true(fake_used(d, 4, &len) >= 0);
    assert_int_equal(len, 77);
    virtio_set_status(dev, 0);
    /* Without MQ the control queue is number 2. */
    fake_start(d, dev, F_MRG | F_CTRL);
    assert_int_equal(control(d, 2, 0, 0, (uint8_t[]){0}, 1), 0);
    assert_int_equal(f->active, 1);
    fake_free(d);
}

static void survives_a_hostile_driver(void **s)
{
    uint32_t seed = 12345;
    for (unsigned round = 0; round < 300; round++) {
        struct fake_driver *d = fake_new(1 * MIB);
        struct virtio_dev *dev;
        struct fake_net *f = make(d, 1, &dev);
        fake_start(d, dev, round % 2 ? ~0ull : F_CTRL);
        for (unsigned i = 0; i < 40; i++) {
            struct fake_buf b[4];
            unsigned r = seed = seed * 1103515245 + 12345;
            unsigned n = 1 + (r >> 8) % 4, nout = (r >> 12) % (n + 1);
            for (unsigned k = 0; k < n; k++) {
                seed = seed * 1103515245 + 12345;
                b[k] = (struct fake_buf){(seed >> 4) % (r % 16 ? 900000 : 1100000), (seed >> 24) % (r % 8 ? 200 : 3)};
            }
            fake_add(d, (r >> 16) % 3, b, nout, n - nout);
            if (f->in_tail - f->in_head < FRAMES - 1)
                feed(f, NULL, 30 + (int)(r >> 20) % 2000);
            fake_kick(d, (r >> 16) % 3);
            f->client->readable(f->client->opaque, 0);
        }
        virtio_set_status(dev, 0);
        fake_free(d);
    }
}

static void state_round_trip(void **s)
{
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev;
    struct fake_net *f = make(d, 1, &dev);
    fake_start(d, dev, F_MRG | F_CTRL | F(0) | F(1));
    loop_poll(d->loop, 0);
    uint8_t off = 0;
    assert_int_equal(control(d, 2, 0, 0, &off, 1), 0);
    dev->dev.type->pause(&dev->dev, true);
    struct state_writer w = {0};
    state_save(&w, dev->dev.type->state, "net0", dev);
    device_reset(&dev->dev);
    struct state_reader r = {.data = w.data, .len = w.len};
    struct err err = {0};
    if (state_load(&r, dev->dev.type->state, "net0", dev, &err) < 0)
        fail_msg("%s", err.msg);
    dev->dev.type->pause(&dev->dev, false);
    loop_poll(d->loop, 0);
    static const uint8_t other[6] = {2, 0, 0, 0, 0, 9};
    assert_false(arrives(d, f, other));
    assert_true(arrives(d, f, NULL));
    assert_int_equal(f->offload, NET_OFFLOAD_CSUM);
    state_writer_free(&w);
    fake_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_shows_the_card),
        cmocka_unit_test(sends_and_waits_for_the_backend),
        cmocka_unit_test(receives_into_several_buffers),
        cmocka_unit_test(drops_what_no_buffer_can_hold),
        cmocka_unit_test(frames_wait_for_a_driver),
        cmocka_unit_test(filters_as_told),
        cmocka_unit_test(queue_pairs_follow_the_driver),
        cmocka_unit_test(survives_a_hostile_driver),
        cmocka_unit_test(state_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
