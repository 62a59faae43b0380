/*
 * Debug registers and single-step (SDM 3B, 17.2-17.3). Data breakpoints cost nothing while there are none: their pages
 * are kept out of the TLB, so that only accesses there come to dbg_check_access. On the vCPU's thread.
 */
#include "cpu/soft/exc.h"
#include "cpu/soft/sys.h"

#define DR6_BS BIT(14)

enum { BP_EXEC, BP_WRITE, BP_IO, BP_ACCESS };

static bool enabled(const struct soft_cpu *c, unsigned n)
{
    return c->dr[7] >> (2 * n) & 3;
}
static unsigned kind(const struct soft_cpu *c, unsigned n)
{
    return c->dr[7] >> (16 + 4 * n) & 3;
}
static unsigned length(const struct soft_cpu *c, unsigned n)
{
    static const uint8_t len[] = {1, 2, 8, 4};
    return len[c->dr[7] >> (18 + 4 * n) & 3];
}

/* Breakpoints of the kinds in `kinds` that [addr, addr+size) touches, as DR6 bits. */
static uint32_t matches(const struct soft_cpu *c, uint64_t addr, unsigned size, unsigned kinds)
{
    uint32_t hits = 0;
    for (unsigned n = 0; n < 4; n++) {
        if (!enabled(c, n) || !(kinds & BIT(kind(c, n))))
            continue;
        unsigned len = length(c, n);
        uint64_t first = c->dr[n] & ~(uint64_t)(len - 1);
        if (addr - first < len || first - addr < size)
            hits |= BIT(n);
    }
    return hits;
}

static bool held_off(const struct soft_cpu *c)
{
    return c->int_shadow && c->ss_shadow;
}

int dbg_check_fetch(struct soft_cpu *c, uint64_t lin)
{
    c->rf_fresh = false;
    if ((c->rflags_rest & FLAG_RF) || !(c->dr[7] & 0xff) || held_off(c))
        return 0;
    uint32_t hits = 0;
    for (unsigned n = 0; n < 4; n++)
        if (enabled(c, n) && kind(c, n) == BP_EXEC && c->dr[n] == lin)
            hits |= BIT(n);
    return hits ? exc_debug(c, hits) : 0;
}

int dbg_insn_done(struct soft_cpu *c, bool tf)
{
    if (!c->rf_fresh)
        c->rflags_rest &= ~(uint64_t)FLAG_RF;
    c->rf_fresh = false;
    soft_step_changed(c); /* a shadow may have ended, too */
    if (c->tf_swallowed)
        tf = false;
    c->tf_swallowed = false;
    if (held_off(c))
        return 0;
    uint32_t hits = c->dr6_hits | (tf ? DR6_BS : 0);
    c->dr6_hits = 0;
    return hits ? exc_debug(c, hits) : 0;
}

void dbg_check_access(struct soft_cpu *c, uint64_t lin, unsigned size, bool write)
{
    if (c->debug)
        debugger_check_access(c, lin, size, write);
    c->dr6_hits |= matches(c, lin, size, BIT(BP_ACCESS) | (write ? BIT(BP_WRITE) : 0));
}

void dbg_check_io(struct soft_cpu *c, uint16_t port, unsigned size)
{
    if ((c->dr[7] & 0xff) && (c->cr4 & CR4_DE))
        c->dr6_hits |= matches(c, port, size, BIT(BP_IO));
}

bool dbg_page_watched(const struct soft_cpu *c, uint64_t lin)
{
    if (c->debug && debugger_watches_page(c, lin))
        return true;
    if (!(c->dr[7] & 0xff))
        return false;
    for (unsigned n = 0; n < 4; n++)
        if (enabled(c, n) && (kind(c, n) & 1) && !((c->dr[n] ^ lin) >> PAGE_SHIFT))
            return true;
    return false;
}
