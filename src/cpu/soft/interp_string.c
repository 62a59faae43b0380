/*
 * MOVS STOS LODS SCAS CMPS INS OUTS with REP. Forward runs within one page of source and destination are host copies;
 * the rest goes element by element. After each run a pending event interrupts the instruction: registers say how far it
 * came and RIP still points at it.
 */
#include "cpu/soft/interp.h"
#include "cpu/soft/sys.h"

static bool repeated(const struct insn *i)
{
    return i->flags & (INSN_F_REP | INSN_F_REPNE);
}

static uint64_t index_get(const struct soft_cpu *c, const struct insn *i, unsigned r)
{
    return bits_trunc(c->gpr[r], i->addrsize);
}

/* Moves an index register by `n` elements. */
static void index_step(struct soft_cpu *c, const struct insn *i, unsigned r, uint64_t n)
{
    uint64_t bytes = n * i->opsize;
    reg_set(c, r, i->addrsize, c->rflags_rest & FLAG_DF ? c->gpr[r] - bytes : c->gpr[r] + bytes);
}

static void count_step(struct soft_cpu *c, const struct insn *i, uint64_t n)
{
    reg_set(c, RCX, i->addrsize, c->gpr[RCX] - n);
}

/*
 * The linear address of the element at seg:[reg], and how many elements from there on, at most *n, lie in its page and
 * in the segment, upwards. *n is 1 when that is not known, 0 when the element itself crosses the page.
 */
static int run_linear(struct soft_cpu *c, const struct insn *i, unsigned seg, unsigned r, bool write, uint64_t *lin,
                      uint64_t *n)
{
    uint64_t ea = index_get(c, i, r), end;
    if (seg_linear(c, seg, ea, i->opsize, write, lin))
        return INSN_FAULT;
    if (c->rflags_rest & FLAG_DF) {
        *n = (*lin & (PAGE_SIZE - 1)) + i->opsize <= PAGE_SIZE;
        return 0;
    }
    *n = MIN(*n, (PAGE_SIZE - (*lin & (PAGE_SIZE - 1))) / i->opsize);
    if (i->addrsize < 8) /* the offset wraps */
        *n = MIN(*n, MAX((bits_trunc(~0ull, i->addrsize) - ea + 1) / i->opsize, 1));
    if (*n > 1 && !(c->mode & MODE_CS64) && seg_linear(c, seg, ea + (*n - 1) * i->opsize, i->opsize, write, &end))
        *n = 1;
    return 0;
}

/* After some iterations: what the handler says when `done` (count is 0 or the condition ended it), and when not. */
static int iteration_end(struct soft_cpu *c, bool done)
{
    return done ? INSN_NEXT : INSN_JUMP; /* again, from the run loop: RIP is still here */
}

static bool must_stop(struct soft_cpu *c)
{
    return c->slow_step || atomic_load_explicit(&c->pending, memory_order_relaxed);
}

static void copy_up(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size)
{
    uint64_t bytes = n * size;
    if (d - s >= 0 && (uint64_t)(d - s) < bytes) { /* overlap: the pattern repeats */
        switch (size) {
        case 1:
            __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
            break;
        case 2:
            __asm__ volatile("rep movsw" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
            break;
        case 4:
            __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
            break;
        default:
            __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
        }
    } else if (size == 8 && bytes < 128) {
        for (uint64_t k = 0; k < n; k++)
            host_store(d + k * 8, 8, host_load(s + k * 8, 8));
    } else {
        memmove(d, s, bytes);
    }
}

/* REP MOVS and STOS with 32-bit addresses in 64-bit code cut their index registers even if no iteration gets done. */
static void index_cut(struct soft_cpu *c, const struct insn *i, unsigned r)
{
    if (unlikely(i->addrsize == 4 && c->mode & MODE_CS64 && repeated(i)))
        c->gpr[r] = (uint32_t)c->gpr[r];
}

static int movs(struct soft_cpu *c, const struct insn *i)
{
    uint64_t count = repeated(i) ? index_get(c, i, RCX) : 1;
    index_cut(c, i, RSI);
    index_cut(c, i, RDI);
    while (count) {
        uint64_t n = c->slow_step ? 1 : count, src, dst, v;
        void *s = NULL, *d = NULL;
        if (run_linear(c, i, i->seg, RSI, false, &src, &n))
            return INSN_FAULT;
        if (run_linear(c, i, ES, RDI, true, &dst, &n)) { /* the load comes first, and so does its fault */
            return lin_read(c, src, i->opsize, &v) || run_linear(c, i, ES, RDI, true, &dst, &n) ? INSN_FAULT
                                                                                                : INSN_JUMP;
        }
        if (n > 1 && (mmu_page(c, src, MMU_READ, &s) || mmu_page(c, dst, MMU_WRITE, &d)))
            return INSN_FAULT;
        if (s && d) {
            copy_up(d, s, n, i->opsize);
        } else {
            n = 1;
            if (lin_read(c, src, i->opsize, &v) || lin_write(c, dst, i->opsize, v))
                return INSN_FAULT;
        }
        index_step(c, i, RSI, n);
        index_step(c, i, RDI, n);
        if (!repeated(i))
            break;
        count_step(c, i, n);
        count -= n;
        if (must_stop(c))
            break;
    }
    return iteration_end(c, !repeated(i) || count == 0);
}

static void fill_up(void *d, uint64_t v, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        memset(d, (int)v, n);
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(v) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(v) : "memory");
    }
}

static int stos(struct soft_cpu *c, const struct insn *i)
{
    uint64_t count = repeated(i) ? index_get(c, i, RCX) : 1;
    index_cut(c, i, RDI);
    while (count) {
        uint64_t n = c->slow_step ? 1 : count, dst;
        void *d = NULL;
        if (run_linear(c, i, ES, RDI, true, &dst, &n) || (n > 1 && mmu_page(c, dst, MMU_WRITE, &d)))
            return INSN_FAULT;
        if (d) {
            fill_up(d, c->gpr[RAX], n, i->opsize);
        } else {
            n = 1;
            if (lin_write(c, dst, i->opsize, c->gpr[RAX]))
                return INSN_FAULT;
        }
        index_step(c, i, RDI, n);
        if (!repeated(i))
            break;
        count_step(c, i, n);
        count -= n;
        if (must_stop(c))
            break;
    }
    return iteration_end(c, !repeated(i) || count == 0);
}

static int lods(struct soft_cpu *c, const struct insn *i)
{
    uint64_t count = repeated(i) ? index_get(c, i, RCX) : 1;
    while (count) {
        uint64_t lin, v;
        if (seg_linear(c, i->seg, index_get(c, i, RSI), i->opsize, false, &lin) || lin_read(c, lin, i->opsize, &v))
            return INSN_FAULT;
        reg_set(c, RAX, i->opsize, v);
        index_step(c, i, RSI, 1);
        if (!repeated(i))
            break;
        count_step(c, i, 1);
        count--;
        if (must_stop(c))
            break;
    }
    return iteration_end(c, !repeated(i) || count == 0);
}

#define COMPARE_OP(n, T, S, sfx)                                                                                       \
    case n: {                                                                                                          \
        T x = a, y = b;                                                                                                \
        __asm__("cmp" sfx " %2, %1" CC_SAVE : "=&a"(ax) : "r"(x), "r"(y) : "cc");                                      \
        break;                                                                                                         \
    }
static uint16_t compare_flags(uint64_t a, uint64_t b, unsigned size)
{
    uint32_t ax = 0;
    switch (size) {
        FOR_SIZES(COMPARE_OP)
    }
    return ax;
}

/* Does REPE or REPNE go on after a comparison with this outcome? */
static bool repeat_holds(const struct insn *i, bool equal)
{
    return i->flags & INSN_F_REPNE ? !equal : equal;
}

/* CMPS (aux 1) compares memory with memory, SCAS the accumulator. The flags are those of the last comparison. */
static int compare(struct soft_cpu *c, const struct insn *i)
{
    uint64_t count = repeated(i) ? index_get(c, i, RCX) : 1;
    unsigned size = i->opsize;
    bool two = i->aux, ended = false;
    while (count && !ended) {
        uint64_t n = c->slow_step ? 1 : count, src = 0, dst, a = reg_get(c, RAX, size), b = 0, k;
        void *s = NULL, *d = NULL;
        if (run_linear(c, i, ES, RDI, false, &dst, &n)) /* CPUs look there first */
            return INSN_FAULT;
        if (two && run_linear(c, i, i->seg, RSI, false, &src, &n))
            return lin_read(c, dst, size, &b) || run_linear(c, i, i->seg, RSI, false, &src, &n) ? INSN_FAULT
                                                                                                : INSN_JUMP;
        if (n > 1 && (mmu_page(c, dst, MMU_READ, &d) || (two && mmu_page(c, src, MMU_READ, &s))))
            return INSN_FAULT;
        if (d && (s || !two)) {
            for (k = 0; k < n && !ended; k++) {
                if (two)
                    a = host_load((uint8_t *)s + k * size, size);
                b = host_load((uint8_t *)d + k * size, size);
                ended = !repeat_holds(i, a == b);
            }
        } else {
            k = 1;
            if (lin_read(c, dst, size, &b) || (two && lin_read(c, src, size, &a)))
                return INSN_FAULT;
            ended = !repeat_holds(i, a == b);
        }
        c->cc = compare_flags(a, b, size);
        if (two)
            index_step(c, i, RSI, k);
        index_step(c, i, RDI, k);
        if (!repeated(i))
            break;
        count_step(c, i, k);
        count -= k;
        if (must_stop(c))
            break;
    }
    return iteration_end(c, !repeated(i) || count == 0 || ended);
}

/* arg: 0 MOVS, 1 STOS, 2 LODS, 3 SCAS, 4 CMPS */
bool bind_string(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[] = {movs, stos, lods, compare, compare};
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false; /* SSE2's MOVSD and CMPSD */
    i->aux = arg == 4;
    i->fn = t[arg];
    return true;
}

static int ins(struct soft_cpu *c, const struct insn *i)
{
    uint64_t count = repeated(i) ? index_get(c, i, RCX) : 1;
    uint16_t port = c->gpr[RDX];
    if (sys_io_allowed(c, port, i->opsize))
        return INSN_FAULT;
    while (count) {
        uint64_t lin;
        void *host;
        /* The port is read only if its value can be stored. */
        if (seg_linear(c, ES, index_get(c, i, RDI), i->opsize, true, &lin) || mmu_rmw(c, lin, i->opsize, &host))
            return INSN_FAULT;
        if (lin_write(c, lin, i->opsize, sys_io_read(c, port, i->opsize)))
            return INSN_FAULT;
        index_step(c, i, RDI, 1);
        if (!repeated(i))
            break;
        count_step(c, i, 1);
        count--;
        if (must_stop(c))
            break;
    }
    return iteration_end(c, !repeated(i) || count == 0);
}

static int outs(struct soft_cpu *c, const struct insn *i)
{
    uint64_t count = repeated(i) ? index_get(c, i, RCX) : 1;
    uint16_t port = c->gpr[RDX];
    if (sys_io_allowed(c, port, i->opsize))
        return INSN_FAULT;
    while (count) {
        uint64_t lin, v;
        if (seg_linear(c, i->seg, index_get(c, i, RSI), i->opsize, false, &lin) || lin_read(c, lin, i->opsize, &v))
            return INSN_FAULT;
        sys_io_write(c, port, i->opsize, v);
        index_step(c, i, RSI, 1);
        if (!repeated(i))
            break;
        count_step(c, i, 1);
        count--;
        if (must_stop(c))
            break;
    }
    return iteration_end(c, !repeated(i) || count == 0);
}

/* arg: 0 INS, 1 OUTS */
bool bind_stringio(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (i->opsize == 8)
        i->opsize = 4;
    i->fn = arg ? outs : ins;
    return true;
}
