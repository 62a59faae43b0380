/*
 * XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B: the instructions made for locking. With a LOCK prefix (XCHG: always) they are
 * host locked instructions on guest RAM; where that is no single host access, soft->split_lock makes them exclude each
 * other.
 */
#include "cpu/soft/interp.h"

static int xchg_r(struct soft_cpu *c, const struct insn *i)
{
    uint64_t a = reg_get(c, i->rm, i->opsize), b = reg_get(c, i->reg, i->opsize);
    reg_set(c, i->rm, i->opsize, b);
    reg_set(c, i->reg, i->opsize, a);
    return INSN_NEXT;
}

/* Runs a read-modify-write whose operand is no single host access, excluding the others of its kind. */
static int split_locked(struct soft_cpu *c, const struct insn *i, insn_fn *fn)
{
    pthread_mutex_lock(&c->soft->split_lock);
    int r = fn(c, i);
    pthread_mutex_unlock(&c->soft->split_lock);
    return r;
}

static int xchg_m_plain(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    uint64_t v;
    if (rmw_load(c, i, i->opsize, &m, &v) || rmw_store(c, i->opsize, &m, reg_get(c, i->reg, i->opsize)))
        return INSN_FAULT;
    reg_set(c, i->reg, i->opsize, v);
    return INSN_NEXT;
}

static int xchg_m(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    if (rmw_mem(c, i, i->opsize, &m))
        return INSN_FAULT;
    if (!m.host)
        return split_locked(c, i, xchg_m_plain);
    uint64_t v = reg_get(c, i->reg, i->opsize);
    switch (i->opsize) {
    case 1:
        v = __atomic_exchange_n((uint8_t *)m.host, v, __ATOMIC_SEQ_CST);
        break;
    case 2:
        v = __atomic_exchange_n((uint16_t *)m.host, v, __ATOMIC_SEQ_CST);
        break;
    case 4:
        v = __atomic_exchange_n((uint32_t *)m.host, v, __ATOMIC_SEQ_CST);
        break;
    default:
        v = __atomic_exchange_n((uint64_t *)m.host, v, __ATOMIC_SEQ_CST);
    }
    reg_set(c, i->reg, i->opsize, v);
    return INSN_NEXT;
}

bool bind_xchg(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (i->opcode >= 0x90 && i->opcode <= 0x97)
        i->reg = RAX;
    i->fn = i->flags & INSN_F_MEM ? xchg_m : xchg_r;
    return true;
}

#define XADD_OP(n, T, S, sfx)                                                                                          \
    case n: {                                                                                                          \
        T a = v, b = reg_get(c, i->reg, n);                                                                            \
        __asm__("add" sfx " %2, %0" CC_SAVE : "+&r"(a), "=&a"(ax) : "r"(b) : "cc");                                    \
        sum = a;                                                                                                       \
        break;                                                                                                         \
    }
static uint64_t add_flags(struct soft_cpu *c, const struct insn *i, uint64_t v, uint16_t *cc)
{
    uint32_t ax = 0;
    uint64_t sum = 0;
    switch (i->opsize) {
        FOR_SIZES(XADD_OP)
    }
    *cc = ax;
    return sum;
}

static int xadd_r(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v = reg_get(c, i->rm, i->opsize);
    uint64_t sum = add_flags(c, i, v, &c->cc);
    reg_set(c, i->reg, i->opsize, v);
    reg_set(c, i->rm, i->opsize, sum);
    return INSN_NEXT;
}

static int xadd_m(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    uint64_t v;
    uint16_t cc;
    if (rmw_load(c, i, i->opsize, &m, &v) || rmw_store(c, i->opsize, &m, add_flags(c, i, v, &cc)))
        return INSN_FAULT;
    c->cc = cc;
    reg_set(c, i->reg, i->opsize, v);
    return INSN_NEXT;
}

#define XADD_LOCKED(n, T, S, sfx)                                                                                      \
    case n: {                                                                                                          \
        T b = v;                                                                                                       \
        __asm__ volatile("lock; xadd" sfx " %1, %0" CC_SAVE                                                            \
                         : "+m"(*(T *)m.host), "+&r"(b), "=&a"(ax)                                                     \
                         :                                                                                             \
                         : "cc", "memory");                                                                            \
        v = b;                                                                                                         \
        break;                                                                                                         \
    }
static int xadd_lock(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    if (rmw_mem(c, i, i->opsize, &m))
        return INSN_FAULT;
    if (!m.host)
        return split_locked(c, i, xadd_m);
    uint64_t v = reg_get(c, i->reg, i->opsize);
    uint32_t ax = 0;
    switch (i->opsize) {
        FOR_SIZES(XADD_LOCKED)
    }
    reg_set(c, i->reg, i->opsize, v);
    c->cc = ax;
    return INSN_NEXT;
}

bool bind_xadd(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = !(i->flags & INSN_F_MEM) ? xadd_r : i->flags & INSN_F_LOCK ? xadd_lock : xadd_m;
    return true;
}

/* CMPXCHG on a local copy: *v is the destination; flags to *cc; true when the accumulator is to take *v. */
#define CMPXCHG_OP(n, T, S, sfx)                                                                                       \
    case n: {                                                                                                          \
        T dst = *v, acc = reg_get(c, RAX, n), src = reg_get(c, i->reg, n);                                             \
        __asm__("cmp" sfx " %2, %1" CC_SAVE : "=&a"(ax) : "r"(acc), "r"(dst) : "cc");                                  \
        if (acc == dst)                                                                                                \
            *v = src;                                                                                                  \
        break;                                                                                                         \
    }
static bool cmpxchg_value(struct soft_cpu *c, const struct insn *i, uint64_t *v, uint16_t *cc)
{
    uint32_t ax = 0;
    switch (i->opsize) {
        FOR_SIZES(CMPXCHG_OP)
    }
    *cc = ax;
    return !(ax & CC_Z);
}

static int cmpxchg_r(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v = reg_get(c, i->rm, i->opsize);
    if (cmpxchg_value(c, i, &v, &c->cc))
        reg_set(c, RAX, i->opsize, v);
    else
        reg_set(c, i->rm, i->opsize, v);
    return INSN_NEXT;
}

/* The destination is written in any case. */
static int cmpxchg_m(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    uint64_t v;
    uint16_t cc;
    if (rmw_load(c, i, i->opsize, &m, &v))
        return INSN_FAULT;
    bool differs = cmpxchg_value(c, i, &v, &cc);
    if (rmw_store(c, i->opsize, &m, v))
        return INSN_FAULT;
    c->cc = cc;
    if (differs)
        reg_set(c, RAX, i->opsize, v);
    return INSN_NEXT;
}

static int cmpxchg_lock(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    if (rmw_mem(c, i, i->opsize, &m))
        return INSN_FAULT;
    if (!m.host)
        return split_locked(c, i, cmpxchg_m);
    uint64_t acc = reg_get(c, RAX, i->opsize), src = reg_get(c, i->reg, i->opsize);
    uint64_t seen = acc;
    switch (i->opsize) {
    case 1:
        __atomic_compare_exchange_n((uint8_t *)m.host, (uint8_t *)&seen, src, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
        break;
    case 2:
        __atomic_compare_exchange_n((uint16_t *)m.host, (uint16_t *)&seen, src, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
        break;
    case 4:
        __atomic_compare_exchange_n((uint32_t *)m.host, (uint32_t *)&seen, src, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
        break;
    default:
        __atomic_compare_exchange_n((uint64_t *)m.host, &seen, src, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    uint64_t old = seen; /* equal to the accumulator if it took place; the flags are those of the accumulator - old */
    if (cmpxchg_value(c, i, &seen, &c->cc))
        reg_set(c, RAX, i->opsize, old);
    return INSN_NEXT;
}

bool bind_cmpxchg(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = !(i->flags & INSN_F_MEM) ? cmpxchg_r : i->flags & INSN_F_LOCK ? cmpxchg_lock : cmpxchg_m;
    return true;
}

static int cmpxchg8b_plain(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    uint64_t v;
    if (rmw_load(c, i, 8, &m, &v))
        return INSN_FAULT;
    uint64_t acc = c->gpr[RDX] << 32 | (uint32_t)c->gpr[RAX];
    bool equal = v == acc;
    if (rmw_store(c, 8, &m, equal ? c->gpr[RCX] << 32 | (uint32_t)c->gpr[RBX] : v))
        return INSN_FAULT;
    cc_put(c, CC_Z, equal);
    if (!equal) {
        c->gpr[RAX] = (uint32_t)v;
        c->gpr[RDX] = v >> 32;
    }
    return INSN_NEXT;
}

static int cmpxchg8b(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    if (rmw_mem(c, i, 8, &m))
        return INSN_FAULT;
    if (!m.host)
        return split_locked(c, i, cmpxchg8b_plain);
    uint64_t acc = c->gpr[RDX] << 32 | (uint32_t)c->gpr[RAX];
    bool equal = __atomic_compare_exchange_n((uint64_t *)m.host, &acc, c->gpr[RCX] << 32 | (uint32_t)c->gpr[RBX], false,
                                             __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    cc_put(c, CC_Z, equal);
    if (!equal) {
        c->gpr[RAX] = (uint32_t)acc;
        c->gpr[RDX] = acc >> 32;
    }
    return INSN_NEXT;
}

/* On memory without a single host access (MMIO, a code page). */
static int cmpxchg16b_plain(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin, v[2];
    if (mem_linear(c, i, 16, true, &lin) || mmu_read(c, lin, v, 16))
        return INSN_FAULT;
    bool equal = v[0] == c->gpr[RAX] && v[1] == c->gpr[RDX];
    uint64_t w[2] = {equal ? c->gpr[RBX] : v[0], equal ? c->gpr[RCX] : v[1]};
    if (mmu_write(c, lin, w, 16))
        return INSN_FAULT;
    cc_put(c, CC_Z, equal);
    if (!equal) {
        c->gpr[RAX] = v[0];
        c->gpr[RDX] = v[1];
    }
    return INSN_NEXT;
}

static int cmpxchg16b(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    if (mem_linear(c, i, 16, true, &m.lin))
        return INSN_FAULT;
    if (m.lin & 15)
        return exc_raise_code(c, EXC_GP, 0);
    if (mmu_rmw(c, m.lin, 16, &m.host))
        return INSN_FAULT;
    if (!m.host)
        return split_locked(c, i, cmpxchg16b_plain);
    bool equal;
    __asm__ volatile("lock; cmpxchg16b %0\n\tsete %1"
                     : "+m"(*(unsigned __int128 *)m.host), "=q"(equal), "+a"(c->gpr[RAX]), "+d"(c->gpr[RDX])
                     : "b"(c->gpr[RBX]), "c"(c->gpr[RCX])
                     : "cc", "memory");
    cc_put(c, CC_Z, equal);
    return INSN_NEXT;
}

/* arg: 8 or 16. Without LOCK they are locked here too: nobody can tell, and it is one path less. */
bool bind_cmpxchgb(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (!(i->flags & INSN_F_MEM))
        return false;
    i->fn = arg == 16 ? cmpxchg16b : cmpxchg8b;
    return true;
}
