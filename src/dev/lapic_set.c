/*
 * Routing between local APICs: who is meant by a destination (SDM 3A 11.6.2), lowest priority, shorthands. Any thread;
 * it reads the targets' mode and logical IDs without a lock, as a message in flight would meet them.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "dev/lapic_priv.h"

#define DEST_ALL 0xffffffffu

struct lapic_set *lapic_set_new(const struct lapic_set_config *cfg)
{
    struct lapic_set *set = xcalloc(1, sizeof *set);
    set->cfg = *cfg;
    return set;
}

void lapic_set_free(struct lapic_set *set)
{
    free(set);
}

void lapic_set_connect(struct lapic_set *set, const struct lapic_set_config *cfg)
{
    set->cfg = *cfg;
}

static bool matches_logical(const struct lapic *l, uint32_t dest)
{
    uint32_t ldr = atomic_load_explicit(&l->ldr, memory_order_relaxed);
    if (lapic_x2apic(l))
        return dest >> 16 == ldr >> 16 && (dest & ldr & 0xffff);
    if (dest > 0xff)
        return false;
    if (atomic_load_explicit(&l->dfr, memory_order_relaxed) >> 28 == 0xf) /* flat model */
        return ldr >> 24 & dest;
    return (dest >> 4 == 0xf || dest >> 4 == ldr >> 28) && (dest & ldr >> 24 & 0xf);
}

static bool matches(const struct lapic *l, uint32_t dest, bool logical)
{
    if (!lapic_enabled(l))
        return false;
    return dest == DEST_ALL || (logical ? matches_logical(l, dest) : dest == l->id);
}

static void deliver_lowest(struct lapic_set *set, uint32_t dest, bool logical, uint8_t vector, bool level)
{
    struct lapic *best = NULL;
    unsigned best_ppr = 256;
    unsigned first = atomic_fetch_add_explicit(&set->turn, 1, memory_order_relaxed);
    for (unsigned i = 0; i < set->n; i++) {
        struct lapic *l = set->cpu[(first + i) % set->n];
        if (!matches(l, dest, logical) || !(atomic_load(&l->svr) & SVR_ENABLE))
            continue;
        unsigned ppr = lapic_ppr(l);
        if (ppr < best_ppr) {
            best = l;
            best_ppr = ppr;
        }
    }
    if (best)
        lapic_deliver(best, DM_FIXED, vector, level);
}

/* To all that `dest` means, but for `except` (may be NULL). DEST_ALL is everybody. */
static void deliver(struct lapic_set *set, const struct lapic *except, uint32_t dest, bool logical, unsigned dm,
                    uint8_t vector, bool level)
{
    if (dm == DM_LOWEST && !except) {
        deliver_lowest(set, dest, logical, vector, level);
    } else if (!logical && dest < ARRAY_SIZE(set->by_id)) {
        struct lapic *l = set->by_id[dest];
        if (l && lapic_enabled(l))
            lapic_deliver(l, dm, vector, level);
    } else {
        for (unsigned i = 0; i < set->n; i++)
            if (set->cpu[i] != except && matches(set->cpu[i], dest, logical))
                lapic_deliver(set->cpu[i], dm, vector, level);
    }
}

void lapic_set_msi(struct lapic_set *set, uint64_t addr, uint32_t data)
{
    if (addr >> 20 != 0xfee)
        return;
    uint32_t dest = (addr >> 12 & 0xff) | (addr >> 5 & 0x7f) << 8;
    bool logical = addr & 4, hint = addr & 8, level = data & BIT(15);
    unsigned dm = data >> 8 & 7;
    if (level && !(data & BIT(14)))
        return; /* deassertion: nothing to take back */
    if (dm == DM_FIXED && hint && logical)
        dm = DM_LOWEST;
    deliver(set, NULL, dest == 0xff ? DEST_ALL : dest, logical, dm, (uint8_t)data, level);
}

static void msi_sink_send(void *opaque, uint64_t addr, uint32_t data)
{
    lapic_set_msi(opaque, addr, data);
}

struct msi_sink lapic_set_msi_sink(struct lapic_set *set)
{
    return (struct msi_sink){.send = msi_sink_send, .opaque = set};
}

void lapic_set_ipi(struct lapic_set *set, struct lapic *from, uint32_t icr, uint32_t dest)
{
    unsigned dm = icr >> 8 & 7;
    uint8_t vector = (uint8_t)icr;
    if (dm == DM_RESERVED || dm == DM_EXTINT)
        return;
    if (dm == DM_INIT && (icr & BIT(15)) && !(icr & BIT(14)))
        return; /* INIT level de-assert: arbitration IDs only, and not since Pentium 4 */
    switch (icr >> 18 & 3) {
    case 0:
        if (!lapic_x2apic(from) && dest == 0xff)
            dest = DEST_ALL;
        deliver(set, NULL, dest, icr & BIT(11), dm, vector, false);
        break;
    case 1:
        if (dm == DM_FIXED)
            lapic_deliver(from, dm, vector, false);
        break;
    case 2:
        deliver(set, NULL, DEST_ALL, false, dm, vector, false);
        break;
    case 3:
        deliver(set, from, DEST_ALL, false, dm, vector, false);
        break;
    }
}

static void set_all_lint(void *opaque, unsigned n, int level)
{
    struct lapic_set *set = opaque;
    for (unsigned i = 0; i < set->n; i++)
        lapic_set_lint(set->cpu[i], n, level);
}

struct irq lapic_set_lint0(struct lapic_set *set)
{
    return (struct irq){set_all_lint, set, 0};
}

struct irq lapic_set_lint1(struct lapic_set *set)
{
    return (struct irq){set_all_lint, set, 1};
}
