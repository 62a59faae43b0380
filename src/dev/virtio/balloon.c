/*
 * virtio-balloon. Pages that the guest puts in the balloon, or reports as free, are given back to the host at once;
 * taking one back needs nothing, for it reads as zero again when touched. Nothing stays in flight: the statistics
 * buffer, which a device keeps until it wants new numbers, is read and left in the ring, and taken when they are
 * wanted.
 *
 * Queues run on the loop. Number of pages wanted, of pages given, and the statistics are atomics or under `stats_lock`.
 */
#include "dev/virtio/balloon.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"

#define F_STATS_VQ BIT64(1)
#define F_DEFLATE_ON_OOM BIT64(2)
#define F_PAGE_POISON BIT64(4)
#define F_PAGE_REPORTING BIT64(5)

#define QUEUE_SIZE 128
#define PFN_SHIFT 12
#define PFNS_MAX 16384 /* of one buffer that are looked at: Linux sends 256 */
#define BUDGET 32      /* buffers of one call, so that the loop stays alive */

enum { INFLATE = 0, DEFLATE = 1, STATS = 2 };

struct virtio_balloon {
    struct virtio_dev virtio; /* first */
    struct virtq_elem *elem;
    void (*on_change)(void *opaque, uint64_t actual);
    void *on_change_opaque;
    _Atomic bool changed, want_stats;
    pthread_mutex_t stats_lock;
    struct virtio_balloon_stats stats;

    /* Guest-visible. */
    _Atomic uint32_t num_pages; /* wanted in the balloon */
    _Atomic uint32_t actual;    /* in the balloon, as the guest says */
    _Atomic uint32_t poison;
};

static uint64_t ram_pages(struct virtio_balloon *b)
{
    return b->virtio.mem->ram_size >> PFN_SHIFT;
}

/* ---- pages ---- */

static void discard(struct virtio_balloon *b, gpa_t gpa, uint64_t len)
{
    if (len && mem_discard(b->virtio.mem, gpa, len) == -EFAULT)
        log_guest("%s: page %#llx is not RAM", b->virtio.dev.id, (unsigned long long)gpa);
}

/* Page numbers of one buffer; neighbours, upwards or downwards, go back to the host together. */
static void inflate(struct virtio_balloon *b, const struct virtq_elem *e)
{
    uint8_t raw[1024];
    uint64_t first = 0, count = 0; /* the run so far */
    size_t len, total = MIN(e->out_len, 4ull * PFNS_MAX);
    for (size_t off = 0; off < total; off += len) {
        len = virtq_read(e, off, raw, MIN(sizeof raw, total - off));
        if (len < 4)
            break;
        for (size_t i = 0; i + 4 <= len; i += 4) {
            uint64_t pfn = le32_get(raw + i);
            if (count && pfn == first + count) {
                count++;
            } else if (count && pfn + 1 == first) {
                first = pfn;
                count++;
            } else {
                discard(b, first << PFN_SHIFT, count << PFN_SHIFT);
                first = pfn;
                count = 1;
            }
        }
    }
    discard(b, first << PFN_SHIFT, count << PFN_SHIFT);
}

/* The writable pieces of the buffer are themselves the free memory. */
static void report(struct virtio_balloon *b, const struct virtq_elem *e)
{
    /* The guest expects its poison there later, not zeros: keep what there is. */
    if (atomic_load(&b->poison) && virtio_has_feature(&b->virtio, F_PAGE_POISON))
        return;
    for (unsigned i = e->nout; i < e->nout + e->nin; i++) {
        gpa_t from = ALIGN_UP(e->gpa[i], PAGE_SIZE), to = ALIGN_DOWN(e->gpa[i] + e->iov[i].iov_len, PAGE_SIZE);
        if (from < to)
            discard(b, from, to - from);
    }
}

static void pages_run(struct virtio_balloon *b, struct virtq *q,
                      void (*fn)(struct virtio_balloon *, const struct virtq_elem *))
{
    unsigned budget = BUDGET;
    do {
        virtq_disable_notify(q);
        while (budget && virtq_pop(q, b->elem) > 0) {
            budget--;
            if (fn)
                fn(b, b->elem);
            virtq_push(q, b->elem, 0);
        }
        if (!budget) {
            virtio_kick(&b->virtio, q->index);
            break;
        }
    } while (virtq_enable_notify(q));
    virtq_notify(q);
}

/* ---- statistics ---- */

static void stats_run(struct virtio_balloon *b, struct virtq *q)
{
    uint8_t raw[10];
    virtq_disable_notify(q);
    if (virtq_pop(q, b->elem) <= 0) {
        virtq_enable_notify(q);
        return;
    }
    struct virtio_balloon_stats s;
    memset(s.value, 0xff, sizeof s.value);
    for (unsigned i = 0; i < 64 && virtq_read(b->elem, 10 * i, raw, 10) == 10; i++)
        if (le16_get(raw) < VIRTIO_BALLOON_S_COUNT)
            s.value[le16_get(raw)] = le64_get(raw + 2);
    s.host_ns = clock_host_ns();
    pthread_mutex_lock(&b->stats_lock);
    b->stats = s;
    pthread_mutex_unlock(&b->stats_lock);
    if (atomic_exchange(&b->want_stats, false)) {
        /* Giving the buffer back asks for new numbers. */
        virtq_push(q, b->elem, 0);
        virtq_notify(q);
        virtq_enable_notify(q);
    } else {
        /* The doorbell is for what comes after this buffer. */
        virtq_enable_notify(q);
        virtq_unpop(q, b->elem);
    }
}

void virtio_balloon_stats(struct virtio_dev *dev, struct virtio_balloon_stats *ret)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    pthread_mutex_lock(&b->stats_lock);
    *ret = b->stats;
    pthread_mutex_unlock(&b->stats_lock);
    if (virtio_running(dev) && virtio_has_feature(dev, F_STATS_VQ)) {
        atomic_store(&b->want_stats, true);
        virtio_kick(dev, STATS);
    }
}

/* ---- the device ---- */

static void notify(struct virtq *q)
{
    struct virtio_balloon *b = (struct virtio_balloon *)q->dev;
    unsigned reporting = virtio_has_feature(&b->virtio, F_STATS_VQ) ? STATS + 1 : STATS;
    if (q->index == INFLATE && atomic_exchange(&b->changed, false) && b->on_change)
        b->on_change(b->on_change_opaque, virtio_balloon_actual(&b->virtio));
    if (q->index == INFLATE)
        pages_run(b, q, inflate);
    else if (q->index == DEFLATE)
        pages_run(b, q, NULL);
    else if (q->index == STATS && reporting != STATS)
        stats_run(b, q);
    else if (q->index == reporting && virtio_has_feature(&b->virtio, F_PAGE_REPORTING))
        pages_run(b, q, report);
}

static void config_get(struct virtio_dev *dev, uint8_t *config)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    le32_put(config, atomic_load(&b->num_pages));
    le32_put(config + 4, atomic_load(&b->actual));
    le32_put(config + 12, atomic_load(&b->poison));
}

static void config_set(struct virtio_dev *dev, unsigned off, unsigned len, const uint8_t *data)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    if (len != 4)
        return;
    if (off == 4) {
        uint32_t pages = (uint32_t)MIN(le32_get(data), ram_pages(b));
        if (atomic_exchange(&b->actual, pages) != pages) {
            atomic_store(&b->changed, true);
            virtio_kick(dev, INFLATE);
        }
    } else if (off == 12) {
        atomic_store(&b->poison, le32_get(data));
    }
}

static void reset(struct virtio_dev *dev)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    atomic_store(&b->actual, 0);
    atomic_store(&b->poison, 0);
    atomic_store(&b->want_stats, false);
}

static const struct virtio_ops balloon_ops = {
    .notify = notify,
    .config_get = config_get,
    .config_set = config_set,
    .reset = reset,
};

void virtio_balloon_set_target(struct virtio_dev *dev, uint64_t bytes)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    uint64_t keep = MIN(bytes >> PFN_SHIFT, ram_pages(b));
    uint32_t pages = (uint32_t)MIN(ram_pages(b) - keep, UINT32_MAX);
    if (atomic_exchange(&b->num_pages, pages) != pages)
        virtio_config_changed(dev);
}

uint64_t virtio_balloon_actual(struct virtio_dev *dev)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    return (ram_pages(b) - MIN(atomic_load(&b->actual), ram_pages(b))) << PFN_SHIFT;
}

void virtio_balloon_on_change(struct virtio_dev *dev, void (*fn)(void *opaque, uint64_t actual), void *opaque)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    b->on_change = fn;
    b->on_change_opaque = opaque;
}

static void destroy(struct device *dev)
{
    struct virtio_balloon *b = (struct virtio_balloon *)dev;
    virtio_fini(&b->virtio);
    pthread_mutex_destroy(&b->stats_lock);
    free(b->elem);
    free(b);
}

static const struct state_field balloon_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_balloon, virtio),
    STATE_U(struct virtio_balloon, num_pages),
    STATE_U(struct virtio_balloon, actual),
    STATE_U(struct virtio_balloon, poison),
    STATE_END,
};
static const struct state_desc balloon_state = {
    .name = "virtio-balloon",
    .version = 1,
    .min_version = 1,
    .fields = balloon_fields,
    .pre_save = virtio_pre_save,
    .post_load = virtio_post_load,
};

const struct device_type virtio_balloon_type = {
    .name = "virtio-balloon",
    .summary = "takes memory from the guest and gives it back",
    .state = &balloon_state,
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .destroy = destroy,
};

int virtio_balloon_new(const struct virtio_balloon_config *cfg, struct virtio_dev **ret, struct err *err)
{
    struct virtio_balloon *b = xcalloc(1, sizeof *b);
    unsigned nqueues = cfg->free_page_reporting ? 4 : 3;
    pthread_mutex_init(&b->stats_lock, NULL);
    memset(b->stats.value, 0xff, sizeof b->stats.value);
    virtio_init(&b->virtio, &virtio_balloon_type, cfg->id, VIRTIO_ID_BALLOON, &balloon_ops, cfg->mem, nqueues, 16);
    b->virtio.host_features |= F_STATS_VQ | F_PAGE_POISON;
    if (cfg->deflate_on_oom)
        b->virtio.host_features |= F_DEFLATE_ON_OOM;
    if (cfg->free_page_reporting)
        b->virtio.host_features |= F_PAGE_REPORTING;
    b->elem = virtq_elem_new(QUEUE_SIZE);
    int code = 0;
    for (unsigned i = 0; i < nqueues && !code; i++)
        code = virtio_queue_init(&b->virtio, i, QUEUE_SIZE, cfg->loop, err);
    if (code < 0) {
        destroy(&b->virtio.dev);
        return code;
    }
    *ret = &b->virtio;
    return 0;
}
