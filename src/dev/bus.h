/*
 * An address space of device registers: one for I/O ports, one for memory-mapped registers. Devices see offsets, never
 * absolute addresses. Lookups take no lock: the map is a sorted copy-on-write array; a map that was replaced is freed
 * when the last reader has left. Reads of nothing give all ones, writes to nothing are dropped.
 *
 * An access that is wider than a device's max_size, or that reaches over its end, is split; one narrower than min_size
 * is widened for reads and dropped for writes unless the device says min_size 1.
 */
#ifndef LODGE_DEV_BUS_H
#define LODGE_DEV_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct bus;

struct bus_ops {
    /* `size` is 1, 2, 4 or 8 bytes, within [min_size, max_size]; off + size never exceeds the mapped length. */
    uint64_t (*read)(void *opaque, uint64_t off, unsigned size);
    void (*write)(void *opaque, uint64_t off, unsigned size, uint64_t val);
    uint8_t min_size, max_size; /* 0: 1 and 8 */
};

/* `last`: the highest address (0xffff for ports). */
struct bus *bus_new(const char *name, uint64_t last);
void bus_free(struct bus *bus); /* NULL-safe */

/* -EEXIST with the other's name when [base, base+len) is taken, -EINVAL when it is empty or out of range. */
int bus_map(struct bus *bus, const char *name, uint64_t base, uint64_t len, const struct bus_ops *ops, void *opaque,
            struct err *err);
/* Removes what was mapped at exactly [base, base+len). After it no new access starts; one under way may still be
 * running. */
void bus_unmap(struct bus *bus, uint64_t base, uint64_t len);

/* Any thread. size 1, 2, 4, 8. */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size);
void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t val);

/*
 * ioeventfd: a write of `size` bytes (0: any) at exactly `addr` adds 1 to the eventfd `fd` (not owned) instead of
 * calling the device. An engine that can do this in the kernel listens; the bus does it itself for others.
 */
int bus_add_eventfd(struct bus *bus, uint64_t addr, unsigned size, int fd, struct err *err);
void bus_del_eventfd(struct bus *bus, uint64_t addr, unsigned size, int fd);

struct bus_listener {
    void (*eventfd)(void *opaque, struct bus *bus, uint64_t addr, unsigned size, int fd, bool add);
    void *opaque;
};
void bus_set_listener(struct bus *bus, const struct bus_listener *l);

/* Calls fn for every mapping in address order ("info mtree", tests). */
void bus_walk(struct bus *bus, void (*fn)(void *opaque, const char *name, uint64_t base, uint64_t len), void *opaque);

#endif
