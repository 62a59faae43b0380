/*
 * The map is one immutable sorted array of regions and one of eventfds. A reader marks itself in one of a few counters
 * (chosen by thread, so that vCPUs do not share a cache line), looks up, copies the region out, and leaves before it
 * calls the device; so a device may itself map and unmap. A writer swaps the map under the lock and waits until each
 * counter was seen at zero.
 */
#include "dev/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"

#define NAME_MAX_LEN 32
#define SLOTS 16

struct region {
    uint64_t base, last;
    const struct bus_ops *ops;
    void *opaque;
    char name[NAME_MAX_LEN];
};

struct efd {
    uint64_t addr;
    unsigned size;
    int fd;
};

struct map {
    struct region *region;
    unsigned nregions;
    struct efd *efd;
    unsigned nefds;
};

struct slot {
    _Alignas(64) _Atomic unsigned readers;
};

struct bus {
    struct slot slot[SLOTS];
    struct map *_Atomic map;
    pthread_mutex_t lock; /* writers */
    uint64_t last;
    struct bus_listener listener;
    char name[NAME_MAX_LEN];
};

static struct map *map_new(unsigned nregions, unsigned nefds)
{
    struct map *m = xcalloc(1, sizeof *m);
    m->nregions = nregions;
    m->nefds = nefds;
    m->region = xcalloc(nregions + 1, sizeof *m->region);
    m->efd = xcalloc(nefds + 1, sizeof *m->efd);
    return m;
}

static void map_free(struct map *m)
{
    if (!m)
        return;
    free(m->region);
    free(m->efd);
    free(m);
}

struct bus *bus_new(const char *name, uint64_t last)
{
    struct bus *bus = aligned_alloc(64, sizeof *bus);
    if (!bus)
        abort();
    memset(bus, 0, sizeof *bus);
    pthread_mutex_init(&bus->lock, NULL);
    bus->last = last;
    strncpy(bus->name, name, sizeof bus->name - 1);
    atomic_store(&bus->map, map_new(0, 0));
    return bus;
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    map_free(atomic_load(&bus->map));
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

static struct slot *enter(struct bus *bus)
{
    uint64_t self = (uint64_t)pthread_self() * 0x9e3779b97f4a7c15ull;
    struct slot *s = &bus->slot[self >> 60];
    _Static_assert(SLOTS == 16, "four bits of hash");
    atomic_fetch_add(&s->readers, 1);
    return s;
}

static void leave(struct slot *s)
{
    atomic_fetch_sub_explicit(&s->readers, 1, memory_order_release);
}

/* With the lock held: publishes `m` and frees the map it replaces once nobody looks at that. */
static void publish(struct bus *bus, struct map *m)
{
    struct map *old = atomic_exchange(&bus->map, m);
    for (unsigned i = 0; i < SLOTS; i++)
        while (atomic_load(&bus->slot[i].readers))
            sched_yield();
    map_free(old);
}

/* Index of the first region that ends at or after `addr`. */
static unsigned lower(const struct map *m, uint64_t addr)
{
    unsigned lo = 0, hi = m->nregions;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (m->region[mid].last < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int bus_map(struct bus *bus, const char *name, uint64_t base, uint64_t len, const struct bus_ops *ops, void *opaque,
            struct err *err)
{
    if (!len || base > bus->last || len - 1 > bus->last - base)
        return err_set(err, -EINVAL, "%s: 0x%" PRIx64 " bytes at 0x%" PRIx64 " do not fit the %s bus", name, len, base,
                       bus->name);
    pthread_mutex_lock(&bus->lock);
    struct map *old = atomic_load(&bus->map);
    unsigned at = lower(old, base);
    if (at < old->nregions && old->region[at].base <= base + (len - 1)) {
        const struct region *r = &old->region[at];
        int ret = err_set(err, -EEXIST, "%s: 0x%" PRIx64 "-0x%" PRIx64 " of the %s bus is taken by %s", name, base,
                          base + (len - 1), bus->name, r->name);
        pthread_mutex_unlock(&bus->lock);
        return ret;
    }
    struct map *m = map_new(old->nregions + 1, old->nefds);
    memcpy(m->efd, old->efd, old->nefds * sizeof *m->efd);
    memcpy(m->region, old->region, at * sizeof *m->region);
    memcpy(m->region + at + 1, old->region + at, (old->nregions - at) * sizeof *m->region);
    m->region[at] = (struct region){.base = base, .last = base + (len - 1), .ops = ops, .opaque = opaque};
    strncpy(m->region[at].name, name, NAME_MAX_LEN - 1);
    publish(bus, m);
    pthread_mutex_unlock(&bus->lock);
    return 0;
}

void bus_unmap(struct bus *bus, uint64_t base, uint64_t len)
{
    if (!len)
        return;
    pthread_mutex_lock(&bus->lock);
    struct map *old = atomic_load(&bus->map);
    unsigned at = lower(old, base);
    if (at < old->nregions && old->region[at].base == base && old->region[at].last == base + (len - 1)) {
        struct map *m = map_new(old->nregions - 1, old->nefds);
        memcpy(m->efd, old->efd, old->nefds * sizeof *m->efd);
        memcpy(m->region, old->region, at * sizeof *m->region);
        memcpy(m->region + at, old->region + at + 1, (old->nregions - at - 1) * sizeof *m->region);
        publish(bus, m);
    }
    pthread_mutex_unlock(&bus->lock);
}

/* ---- accesses ---- */

/* Copies out the region at `addr`, or returns false and says in *ret_gap how many bytes (at most `size`) hold nothing.
 */
static bool find(struct bus *bus, uint64_t addr, unsigned size, struct region *ret, unsigned *ret_gap)
{
    struct slot *s = enter(bus);
    const struct map *m = atomic_load(&bus->map);
    unsigned i = lower(m, addr);
    bool found = i < m->nregions && m->region[i].base <= addr;
    if (found) {
        ret->base = m->region[i].base;
        ret->last = m->region[i].last;
        ret->ops = m->region[i].ops;
        ret->opaque = m->region[i].opaque;
    } else {
        *ret_gap = size;
        if (i < m->nregions && m->region[i].base - addr < size)
            *ret_gap = (unsigned)(m->region[i].base - addr);
    }
    leave(s);
    return found;
}

/* The largest access that the device takes at `addr`: a power of two, at most `size` bytes. */
static unsigned piece(const struct region *r, uint64_t addr, unsigned size)
{
    unsigned max = r->ops->max_size ? r->ops->max_size : 8;
    uint64_t room = r->last - addr;
    unsigned n = 8;
    while (n > size || n > max || n - 1 > room)
        n /= 2;
    return n;
}

static uint64_t read_region(const struct region *r, uint64_t addr, unsigned *n)
{
    unsigned min = r->ops->min_size ? r->ops->min_size : 1;
    uint64_t off = addr - r->base;
    if (!r->ops->read)
        return UINT64_MAX;
    if (*n >= min)
        return r->ops->read(r->opaque, off, *n);
    uint64_t start = ALIGN_DOWN(off, (uint64_t)min);
    while (off + *n > start + min)
        *n /= 2;
    if (r->last - r->base - start < min - 1u)
        return UINT64_MAX;
    return r->ops->read(r->opaque, start, min) >> ((off - start) * 8);
}

uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size)
{
    uint64_t val = 0;
    struct region r;
    for (unsigned done = 0; done < size;) {
        uint64_t a = addr + done, v = UINT64_MAX;
        unsigned n = size - done;
        if (a >= addr && a <= bus->last && find(bus, a, n, &r, &n)) {
            n = piece(&r, a, n);
            v = read_region(&r, a, &n);
        }
        val |= bits_trunc(v, n) << (done * 8);
        done += n;
    }
    return val;
}

static bool write_eventfd(struct bus *bus, uint64_t addr, unsigned size)
{
    bool hit = false;
    struct slot *s = enter(bus);
    const struct map *m = atomic_load(&bus->map);
    for (unsigned i = 0; i < m->nefds && m->efd[i].addr <= addr; i++) {
        if (m->efd[i].addr == addr && (!m->efd[i].size || m->efd[i].size == size)) {
            uint64_t one = 1;
            /* EAGAIN: the eventfd is already as signalled as can be. */
            hit = write(m->efd[i].fd, &one, sizeof one) == sizeof one || errno == EAGAIN;
            break;
        }
    }
    leave(s);
    return hit;
}

void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t val)
{
    struct region r;
    if (write_eventfd(bus, addr, size))
        return;
    for (unsigned done = 0; done < size;) {
        uint64_t a = addr + done;
        unsigned n = size - done;
        if (a >= addr && a <= bus->last && find(bus, a, n, &r, &n)) {
            n = piece(&r, a, n);
            if (r.ops->write && n >= r.ops->min_size)
                r.ops->write(r.opaque, a - r.base, n, bits_trunc(val >> (done * 8), n));
        }
        done += n;
    }
}

/* ---- eventfds ---- */

int bus_add_eventfd(struct bus *bus, uint64_t addr, unsigned size, int fd, struct err *err)
{
    if (addr > bus->last || fd < 0)
        return err_set(err, -EINVAL, "%s bus: no eventfd can listen at 0x%" PRIx64, bus->name, addr);
    pthread_mutex_lock(&bus->lock);
    struct map *old = atomic_load(&bus->map);
    unsigned at = 0;
    while (at < old->nefds && old->efd[at].addr < addr)
        at++;
    for (unsigned i = at; i < old->nefds && old->efd[i].addr == addr; i++) {
        if (!size || !old->efd[i].size || old->efd[i].size == size) {
            pthread_mutex_unlock(&bus->lock);
            return err_set(err, -EEXIST, "%s bus: an eventfd already listens at 0x%" PRIx64, bus->name, addr);
        }
    }
    struct map *m = map_new(old->nregions, old->nefds + 1);
    memcpy(m->region, old->region, old->nregions * sizeof *m->region);
    memcpy(m->efd, old->efd, at * sizeof *m->efd);
    memcpy(m->efd + at + 1, old->efd + at, (old->nefds - at) * sizeof *m->efd);
    m->efd[at] = (struct efd){addr, size, fd};
    publish(bus, m);
    if (bus->listener.eventfd)
        bus->listener.eventfd(bus->listener.opaque, bus, addr, size, fd, true);
    pthread_mutex_unlock(&bus->lock);
    return 0;
}

void bus_del_eventfd(struct bus *bus, uint64_t addr, unsigned size, int fd)
{
    pthread_mutex_lock(&bus->lock);
    struct map *old = atomic_load(&bus->map);
    for (unsigned at = 0; at < old->nefds; at++) {
        const struct efd *e = &old->efd[at];
        if (e->addr != addr || e->size != size || e->fd != fd)
            continue;
        struct map *m = map_new(old->nregions, old->nefds - 1);
        memcpy(m->region, old->region, old->nregions * sizeof *m->region);
        memcpy(m->efd, old->efd, at * sizeof *m->efd);
        memcpy(m->efd + at, old->efd + at + 1, (old->nefds - at - 1) * sizeof *m->efd);
        if (bus->listener.eventfd)
            bus->listener.eventfd(bus->listener.opaque, bus, addr, size, fd, false);
        publish(bus, m);
        break;
    }
    pthread_mutex_unlock(&bus->lock);
}

void bus_set_listener(struct bus *bus, const struct bus_listener *l)
{
    pthread_mutex_lock(&bus->lock);
    const struct map *m = atomic_load(&bus->map);
    bus->listener = l ? *l : (struct bus_listener){0};
    for (unsigned i = 0; i < m->nefds && bus->listener.eventfd; i++)
        bus->listener.eventfd(bus->listener.opaque, bus, m->efd[i].addr, m->efd[i].size, m->efd[i].fd, true);
    pthread_mutex_unlock(&bus->lock);
}

void bus_walk(struct bus *bus, void (*fn)(void *opaque, const char *name, uint64_t base, uint64_t len), void *opaque)
{
    pthread_mutex_lock(&bus->lock);
    const struct map *m = atomic_load(&bus->map);
    for (unsigned i = 0; i < m->nregions; i++)
        fn(opaque, m->region[i].name, m->region[i].base, m->region[i].last - m->region[i].base + 1);
    pthread_mutex_unlock(&bus->lock);
}
