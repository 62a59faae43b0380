/*
 * virtio-rng: each buffer is filled, up to 1 KiB, by getrandom(2). How much a guest can take in a time is bounded, so
 * that it cannot keep a host CPU busy with this; beyond that its buffers wait for the timer. Runs on the queue's loop.
 */
#include "dev/virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/fd.h"

#define REQUEST_MAX 1024
#define RATE_DEFAULT (1 * MIB)
#define PERIOD_NS (NSEC_PER_SEC / 100)

struct virtio_rng {
    struct virtio_dev virtio; /* first */
    uint64_t per_period;      /* bytes */
    uint64_t left;            /* in this period */
    uint64_t period_end;      /* host ns */
    struct clock clock;       /* the host's time: always running */
    struct timer timer;
    struct virtq_elem *elem;
};

static void notify(struct virtq *q)
{
    struct virtio_rng *r = (struct virtio_rng *)q->dev;
    uint8_t buf[REQUEST_MAX];
    do {
        virtq_disable_notify(q);
        for (;;) {
            uint64_t now = clock_now(&r->clock);
            if (now >= r->period_end) {
                r->period_end = now + PERIOD_NS;
                r->left = r->per_period;
            }
            if (!r->left) {
                timer_arm(&r->timer, r->period_end);
                virtq_notify(q);
                return;
            }
            if (virtq_pop(q, r->elem) <= 0)
                break;
            size_t len = MIN(MIN(r->elem->in_len, sizeof buf), r->left);
            ssize_t n = len ? getrandom(buf, len, 0) : 0;
            if (n < 0)
                n = 0; /* a signal: the driver asks again */
            r->left -= (uint64_t)n;
            virtq_push(q, r->elem, (uint32_t)virtq_write(r->elem, 0, buf, (size_t)n));
        }
    } while (virtq_enable_notify(q));
    virtq_notify(q);
}

static void on_timer(void *opaque)
{
    struct virtio_rng *r = opaque;
    virtio_kick(&r->virtio, 0);
}

static void destroy(struct device *dev)
{
    struct virtio_rng *r = (struct virtio_rng *)dev;
    timer_cancel(&r->timer);
    virtio_fini(&r->virtio);
    free(r->elem);
    free(r);
}

static const struct virtio_ops rng_ops = {.notify = notify};

static const struct state_field rng_fields[] = {VIRTIO_STATE_FIELDS(struct virtio_rng, virtio), STATE_END};
static const struct state_desc rng_state = {
    .name = "virtio-rng",
    .version = 1,
    .min_version = 1,
    .fields = rng_fields,
    .pre_save = virtio_pre_save,
    .post_load = virtio_post_load,
};

const struct device_type virtio_rng_type = {
    .name = "virtio-rng",
    .summary = "random numbers from the host",
    .state = &rng_state,
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .destroy = destroy,
};

int virtio_rng_new(const struct virtio_rng_config *cfg, struct virtio_dev **ret, struct err *err)
{
    struct virtio_rng *r = xcalloc(1, sizeof *r);
    uint64_t rate = cfg->rate ? cfg->rate : RATE_DEFAULT;
    r->per_period = MAX(rate / (NSEC_PER_SEC / PERIOD_NS), 1);
    clock_init(&r->clock, 0);
    clock_start(&r->clock);
    timer_init(&r->timer, cfg->loop, &r->clock, on_timer, r);
    virtio_init(&r->virtio, &virtio_rng_type, cfg->id, VIRTIO_ID_RNG, &rng_ops, cfg->mem, 1, 0);
    r->elem = virtq_elem_new(64);
    int code = virtio_queue_init(&r->virtio, 0, 64, cfg->loop, err);
    if (code < 0) {
        destroy(&r->virtio.dev);
        return code;
    }
    *ret = &r->virtio;
    return 0;
}
