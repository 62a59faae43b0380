/* Flag instructions, hints, fences, cache-line hints, random numbers, BOUND, UD. */
#include <sched.h>

#include "cpu/soft/interp.h"

int insn_undefined(struct soft_cpu *c, const struct insn *i)
{
    return exc_raise(c, EXC_UD);
}

static int nop(struct soft_cpu *c, const struct insn *i)
{
    return INSN_NEXT;
}

/* A guest that spins gives its host CPU away now and then: the vCPU it waits for may need it. */
static int pause(struct soft_cpu *c, const struct insn *i)
{
    if ((++c->pauses & 31) == 0)
        sched_yield();
    return INSN_NEXT;
}

static int lahf(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, RAX + INSN_HIGH8, 1, (flags_status(c) & 0xff) | FLAG_1);
    return INSN_NEXT;
}
static int sahf(struct soft_cpu *c, const struct insn *i)
{
    flags_set_status(c, (c->gpr[RAX] >> 8 & 0xff) | (flags_status(c) & FLAG_OF));
    return INSN_NEXT;
}

static int cmc(struct soft_cpu *c, const struct insn *i)
{
    c->cc ^= CC_C;
    return INSN_NEXT;
}
static int clc(struct soft_cpu *c, const struct insn *i)
{
    c->cc &= ~CC_C;
    return INSN_NEXT;
}
static int stc(struct soft_cpu *c, const struct insn *i)
{
    c->cc |= CC_C;
    return INSN_NEXT;
}
static int cld(struct soft_cpu *c, const struct insn *i)
{
    c->rflags_rest &= ~(uint64_t)FLAG_DF;
    return INSN_NEXT;
}
static int std(struct soft_cpu *c, const struct insn *i)
{
    c->rflags_rest |= FLAG_DF;
    return INSN_NEXT;
}
static int salc(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, RAX, 1, cc_carry(c) ? 0xff : 0);
    return INSN_NEXT;
}

static int mfence(struct soft_cpu *c, const struct insn *i)
{
    atomic_thread_fence(memory_order_seq_cst);
    return INSN_NEXT;
}

/* CLFLUSH, CLFLUSHOPT, CLWB: caches are the host's; what the guest can see is that the address is checked as for a load
 * of one byte. */
static int cache_line(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v;
    return mem_load(c, i, 1, &v) ? INSN_FAULT : INSN_NEXT;
}

#define RANDOM(name, op)                                                                                               \
    static int name(struct soft_cpu *c, const struct insn *i)                                                          \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        bool ok;                                                                                                       \
        __asm__ volatile(op " %0\n\tsetc %1" : "=r"(v), "=q"(ok) : : "cc");                                            \
        reg_set(c, i->rm, i->opsize, ok ? v : 0);                                                                      \
        c->cc = ok ? CC_C : 0;                                                                                         \
        return INSN_NEXT;                                                                                              \
    }
RANDOM(rdrand_r, "rdrand")
RANDOM(rdseed_r, "rdseed")

/* Signed index against the two bounds in memory. */
static int bound(struct soft_cpu *c, const struct insn *i)
{
    unsigned n = i->opsize;
    uint64_t lin, lo, hi;
    if (mem_linear(c, i, n * 2, false, &lin) || lin_read(c, lin, n, &lo) || lin_read(c, lin + n, n, &hi))
        return INSN_FAULT;
    int64_t index = (int64_t)sign_extend(reg_get(c, i->reg, n), n);
    if (index < (int64_t)sign_extend(lo, n) || index > (int64_t)sign_extend(hi, n))
        return exc_raise(c, EXC_BR);
    return INSN_NEXT;
}

bool bind_misc(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    bool mem = i->flags & INSN_F_MEM;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_PAUSE:
        i->fn = pause;
        return true;
    case ZYDIS_MNEMONIC_LAHF:
        i->fn = lahf;
        return true;
    case ZYDIS_MNEMONIC_SAHF:
        i->fn = sahf;
        return true;
    case ZYDIS_MNEMONIC_CMC:
        i->fn = cmc;
        return true;
    case ZYDIS_MNEMONIC_CLC:
        i->fn = clc;
        return true;
    case ZYDIS_MNEMONIC_STC:
        i->fn = stc;
        return true;
    case ZYDIS_MNEMONIC_CLD:
        i->fn = cld;
        return true;
    case ZYDIS_MNEMONIC_STD:
        i->fn = std;
        return true;
    case ZYDIS_MNEMONIC_SALC:
        i->fn = salc;
        return true;
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_LFENCE:
        i->fn = z->mnemonic == ZYDIS_MNEMONIC_MFENCE ? mfence : nop;
        return true;
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
        i->fn = cache_line;
        return mem;
    case ZYDIS_MNEMONIC_RDRAND:
        i->fn = rdrand_r;
        return !mem;
    case ZYDIS_MNEMONIC_RDSEED:
        i->fn = rdseed_r;
        return !mem;
    case ZYDIS_MNEMONIC_BOUND:
        i->fn = bound;
        return mem;
    default:
        i->fn = nop;
        return true;
    }
}
