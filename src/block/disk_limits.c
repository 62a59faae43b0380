/*
 * I/O limits as leaky buckets: each leaks `avg` a second and holds a tenth of that (or, with a burst rate, max * seconds);
 * a request waits while a bucket is over its rim. A second bucket per limit leaks `max` and holds a tenth of it, so that a
 * burst is no faster than that.
 */
#include "base/bits.h"
#include "block/disk.h"

static bool any(const struct blk_limits *l)
{
    for (unsigned i = 0; i < BLK_LIMITS; i++)
        if (l->bytes[i].avg || l->ops[i].avg)
            return true;
    return false;
}

void throttle_set(struct throttle *t, const struct blk_limits *limits)
{
    pthread_mutex_lock(&t->lock);
    t->limits = limits ? *limits : (struct blk_limits){0};
    for (unsigned i = 0; i < BLK_LIMITS; i++) {
        t->bytes[i] = (struct bucket){.rate = t->limits.bytes[i]};
        t->ops[i] = (struct bucket){.rate = t->limits.ops[i]};
    }
    t->last_ns = 0;
    atomic_store(&t->on, any(&t->limits));
    pthread_mutex_unlock(&t->lock);
}

static void leak(struct bucket *b, double seconds)
{
    b->level = MAX(0, b->level - (double)b->rate.avg * seconds);
    b->burst = MAX(0, b->burst - (double)b->rate.max * seconds);
}

/* Nanoseconds until there is room. */
static double wait_for(const struct bucket *b)
{
    double rim, wait = 0;
    if (!b->rate.avg)
        return 0;
    rim = b->rate.max ? (double)b->rate.max * MAX(b->rate.burst_secs, 1u) : (double)b->rate.avg / 10;
    if (b->level > rim)
        wait = (b->level - rim) / (double)b->rate.avg;
    if (b->rate.max && b->rate.burst_secs > 1 && b->burst > (double)b->rate.max / 10)
        wait = MAX(wait, (b->burst - (double)b->rate.max / 10) / (double)b->rate.max);
    return wait * 1e9;
}

static void fill(struct bucket *b, double amount)
{
    if (b->rate.avg) {
        b->level += amount;
        b->burst += amount;
    }
}

uint64_t throttle_enter(struct throttle *t, bool write, uint64_t len, uint64_t now_ns)
{
    const unsigned kinds[] = {BLK_LIMIT_ALL, write ? BLK_LIMIT_WRITE : BLK_LIMIT_READ};
    double wait = 0;
    pthread_mutex_lock(&t->lock);
    double seconds = t->last_ns && now_ns > t->last_ns ? (double)(now_ns - t->last_ns) / 1e9 : 0;
    t->last_ns = now_ns;
    for (unsigned i = 0; i < BLK_LIMITS; i++) {
        leak(&t->bytes[i], seconds);
        leak(&t->ops[i], seconds);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        wait = MAX(wait, MAX(wait_for(&t->bytes[kinds[i]]), wait_for(&t->ops[kinds[i]])));
    for (unsigned i = 0; i < ARRAY_SIZE(kinds) && wait == 0; i++) {
        fill(&t->bytes[kinds[i]], (double)len);
        fill(&t->ops[kinds[i]], t->limits.op_size && len > t->limits.op_size ? (double)len / (double)t->limits.op_size : 1);
    }
    pthread_mutex_unlock(&t->lock);
    return wait == 0 ? 0 : (uint64_t)wait + 1;
}
