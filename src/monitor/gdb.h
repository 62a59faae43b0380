/*
 * A server of GDB's remote serial protocol for one debugger at a time ("target remote" of a stock gdb). It runs on the
 * main loop and knows the machine only through struct gdb_target. While the debugger has control the machine stands
 * still. The peer is hostile: packets, addresses and what it leaves unread are bounded.
 */
#ifndef LODGE_MONITOR_GDB_H
#define LODGE_MONITOR_GDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cpu/state.h"

struct loop;
struct gdb;

enum gdb_how { GDB_RUN, GDB_STEP, GDB_HOLD };
enum gdb_point_kind { GDB_SOFT, GDB_HARD, GDB_WRITE, GDB_READ, GDB_ACCESS }; /* in the order of Z0 … Z4 */
struct gdb_point {
    enum gdb_point_kind kind;
    uint64_t addr;
    uint32_t len; /* bytes; of an access only */
};
#define GDB_POINTS_MAX 64
#define GDB_CPUS_MAX 255

/* What the machine offers; on the loop's thread. 0 or -errno. All but stop and resume are called while it stands still only. */
struct gdb_target_ops {
    unsigned (*cpus)(void *opaque);
    bool (*running)(void *opaque);
    int (*stop)(void *opaque);
    /* how[cpu], of `cpus` elements. It may stop again, and call gdb_stopped(), before this returns. */
    int (*resume)(void *opaque, const enum gdb_how *how);
    int (*get_state)(void *opaque, unsigned cpu, struct cpu_state *ret);
    int (*set_state)(void *opaque, unsigned cpu, const struct cpu_state *s);
    int (*read_phys)(void *opaque, uint64_t gpa, void *buf, size_t len);
    int (*write_phys)(void *opaque, uint64_t gpa, const void *buf, size_t len);
    /* Replaces all break- and watchpoints. */
    int (*set_points)(void *opaque, const struct gdb_point *points, unsigned n);
    void (*kill)(void *opaque); /* the process ends once this call is over */
};
struct gdb_target {
    const struct gdb_target_ops *ops;
    void *opaque;
};

/* Listens at `where`: "tcp=[HOST:]PORT" or "unix=FILE". `target` is copied. */
int gdb_new(struct loop *loop, const char *where, const struct gdb_target *target, struct gdb **ret, struct err *err);
/* NULL-safe. Does not touch the target. */
void gdb_free(struct gdb *g);

/* The machine stopped. `point`: what vCPU `cpu` met, or NULL (a step is done, or somebody stopped it). NULL-safe. */
void gdb_stopped(struct gdb *g, unsigned cpu, const uint64_t *point);
/* The guest has ended with this status. NULL-safe. */
void gdb_ended(struct gdb *g, int status);

/* Is `where` such a place? */
bool gdb_where_valid(const char *where);

#endif
