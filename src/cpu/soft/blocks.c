/*
 * Finding and building blocks, and dropping them when their code is written. Building is the vCPU's own; what is shared
 * between vCPUs, and with device threads, are page_gen, code_lines and the page flag MEM_PAGE_CODE.
 *
 * Order matters when a page becomes code: first the lines are published and writers are told to come by the slow path,
 * then the bytes are compared again with what was decoded. A vCPU that could still write through an old TLB entry drops
 * it when it handles PEND_TLB, and takes the page as written then.
 */
#include "cpu/soft/blocks.h"

#include <errno.h>
#include <sys/mman.h>

#include "cpu/soft/exc.h"
#include "cpu/soft/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/sys.h"

/* Of all vCPUs together, but between these limits for each: a Debian boot decodes about 26 MiB of blocks. */
#define ARENAS_SIZE (64 * MIB)
#define ARENA_MIN (16 * MIB)
#define ARENA_MAX (24 * MIB)
#define CODE_MAX (BLOCK_INSNS_MAX * 15)
#define BLOCK_SIZE_MAX (sizeof(struct soft_block) + (BLOCK_INSNS_MAX + 1) * sizeof(struct insn) + CODE_MAX)

int blocks_init(struct soft_cpu *c, struct err *err)
{
    struct soft_blocks *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED)
        return err_set(err, -ENOMEM, "no memory for the block cache");
    s->size = MAX(MIN(ARENAS_SIZE / MAX(c->soft->engine.cfg.cpus, 1), ARENA_MAX), ARENA_MIN) & ~(PAGE_SIZE - 1);
    s->arena = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->arena == MAP_FAILED) {
        munmap(s, sizeof *s);
        return err_set(err, -ENOMEM, "no memory for the block cache");
    }
    c->blocks = s;
    return 0;
}

void blocks_free(struct soft_cpu *c)
{
    if (!c->blocks)
        return;
    munmap(c->blocks->arena, c->blocks->size);
    munmap(c->blocks, sizeof *c->blocks);
    c->blocks = NULL;
}

static void blocks_flush(struct soft_cpu *c)
{
    struct soft_blocks *s = c->blocks;
    jit_flush(c);
    memset(s->hash, 0, sizeof s->hash);
    memset(s->jump, 0, sizeof s->jump);
    s->used = 0;
    s->running = NULL;
    s->flushes++;
}

/* 64-byte lines of a page that [off, off + len) touches. */
static uint64_t lines_mask(unsigned off, unsigned len)
{
    unsigned first = off >> 6, last = (off + len - 1) >> 6;
    return (~0ull << first) & (~0ull >> (63 - last));
}

/* The page at `gpa` gets code in `lines`: makes every vCPU's writes there come to soft_code_written(). */
static void code_publish(struct soft_cpu *c, uint64_t index, gpa_t gpa, uint64_t lines)
{
    struct soft_engine *e = c->soft;
    struct mem *m = c->vcpu.engine->cfg.mem;
    if ((atomic_load(&e->code_lines[index]) & lines) == lines)
        return;
    pthread_mutex_lock(&e->code_lock);
    atomic_fetch_or(&e->code_lines[index], lines);
    bool fresh = !(atomic_fetch_or(&m->page_flags[index], MEM_PAGE_CODE) & MEM_PAGE_CODE);
    pthread_mutex_unlock(&e->code_lock);
    if (!fresh)
        return;
    mmu_protect_code(c, gpa);
    for (unsigned k = 0; k < e->engine.cfg.cpus; k++) {
        struct soft_cpu *o = e->cpu[k];
        if (!o || o == c)
            continue;
        pthread_mutex_lock(&o->wprotect.lock);
        bool full = o->wprotect.n == ARRAY_SIZE(o->wprotect.page);
        if (!full)
            o->wprotect.page[o->wprotect.n++] = gpa & ~(PAGE_SIZE - 1);
        pthread_mutex_unlock(&o->wprotect.lock);
        /* No wake-up: a halted vCPU looks before it runs again. */
        pending_add(o, full ? PEND_TLB_ALL : PEND_TLB);
    }
}

/* The page's code is no more. True if there was any in `lines`. */
static bool code_drop(struct soft_engine *e, uint64_t index, uint64_t lines)
{
    struct mem *m = e->engine.cfg.mem;
    if (!(atomic_load(&e->code_lines[index]) & lines))
        return false;
    pthread_mutex_lock(&e->code_lock);
    atomic_fetch_add(&e->page_gen[index], 1);
    atomic_store(&e->code_lines[index], 0);
    atomic_fetch_and(&m->page_flags[index], (uint8_t)~MEM_PAGE_CODE);
    pthread_mutex_unlock(&e->code_lock);
    jit_page_dropped(e, index);
    return true;
}

void code_requests_slow(struct soft_cpu *c)
{
    struct soft_engine *e = c->soft;
    struct mem *m = e->engine.cfg.mem;
    gpa_t page[ARRAY_SIZE(c->wprotect.page)];
    uint32_t p = atomic_fetch_and(&c->pending, ~(PEND_TLB | PEND_TLB_ALL));
    pthread_mutex_lock(&c->wprotect.lock);
    unsigned n = c->wprotect.n;
    memcpy(page, c->wprotect.page, n * sizeof page[0]);
    c->wprotect.n = 0;
    pthread_mutex_unlock(&c->wprotect.lock);
    if (p & PEND_TLB_ALL) { /* which pages it was about is not known: all may have been written */
        mmu_flush(c, true);
        atomic_fetch_add(&c->blocks->rom_gen, 1);
        for (uint64_t k = 0; k < m->fd_size >> PAGE_SHIFT; k++)
            if (atomic_load_explicit(&e->code_lines[k], memory_order_relaxed)) {
                atomic_fetch_add(&e->page_gen[k], 1);
                jit_page_dropped(e, k);
            }
        return;
    }
    /* It may have been written here since it became code; from now on writes are noticed, so its lines stay. */
    for (unsigned k = 0; k < n; k++) {
        const struct mem_range *r = mem_find(m, page[k]);
        if (mmu_protect_code(c, page[k]) && r && !r->rom) {
            uint64_t index = mem_page_index(m, r->host + (page[k] - r->base));
            atomic_fetch_add(&e->page_gen[index], 1);
            jit_page_dropped(e, index);
        }
    }
}

/* Runs in place of the rest of a block whose page was written: fetch again. */
static int insn_stale(struct soft_cpu *c, const struct insn *i)
{
    return INSN_JUMP;
}

void block_break_off(struct soft_cpu *c)
{
    struct soft_block *b = c->blocks->running;
    if (!b)
        return;
    for (unsigned k = 0; k < b->n; k++)
        b->insn[k].fn = insn_stale;
    b->broken = true;
    if (block_valid(b))
        b->gen--;
}

void soft_code_written(struct soft_cpu *c, gpa_t gpa, unsigned len)
{
    struct mem *m = c->vcpu.engine->cfg.mem;
    const struct mem_range *r = mem_find(m, gpa);
    unsigned off = gpa & (PAGE_SIZE - 1);
    if (!r || r->rom || len == 0)
        return;
    if (!code_drop(c->soft, mem_page_index(m, r->host + (gpa - r->base)), lines_mask(off, MIN(len, PAGE_SIZE - off))))
        return;
    c->blocks->invalidations++;
    c->jit.stale = true;
    if (c->blocks->running && !block_valid(c->blocks->running))
        block_break_off(c);
}

void blocks_dma_written(void *soft_engine, gpa_t gpa, uint64_t len)
{
    struct soft_engine *e = soft_engine;
    struct mem *m = e->engine.cfg.mem;
    while (len) {
        unsigned off = gpa & (PAGE_SIZE - 1);
        uint64_t n = MIN(len, PAGE_SIZE - off);
        const struct mem_range *r = mem_find(m, gpa);
        if (r && !r->rom)
            code_drop(e, mem_page_index(m, r->host + (gpa - r->base)), lines_mask(off, n));
        gpa += n;
        len -= n;
    }
}

/* Behind the last instruction of a block. */
static int block_end(struct soft_cpu *c, const struct insn *i)
{
    return INSN_END;
}

static bool ends_block(const struct insn *i)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
        return true;
    default:
        return i->mnemonic >= ZYDIS_MNEMONIC_JB && i->mnemonic <= ZYDIS_MNEMONIC_JZ;
    }
}

/*
 * Decodes up to `max` instructions from `bytes` (`avail` of them) into b. Returns the bytes looked at, 0 when not even
 * the first is complete.
 */
static unsigned decode_run(struct soft_cpu *c, struct soft_block *b, const uint8_t *bytes, unsigned avail, unsigned max)
{
    unsigned used = 0;
    bool undefined = false;
    b->n = 0;
    while (b->n < max && used < avail) {
        struct insn *i = &b->insn[b->n];
        int len = insn_decode(c, bytes + used, avail - used, c->mode, i);
        if (len == 0)
            break;
        b->n++;
        used += i->len;
        undefined = len < 0;
        if (undefined || ends_block(i))
            break;
    }
    b->insn[b->n].fn = block_end;
    b->bytes = used;
    b->looked = undefined ? MIN(used + 14, avail) : used;
    return b->looked;
}

static uint64_t next_page(const struct soft_cpu *c, uint64_t lin)
{
    lin = (lin | (PAGE_SIZE - 1)) + 1;
    return c->mode & MODE_CS64 ? lin : (uint32_t)lin;
}

/* One instruction out of MMIO, or one that the cache cannot keep. */
static struct soft_block *block_once(struct soft_cpu *c, uint64_t lin)
{
    struct soft_block *b = &c->blocks->once;
    uint8_t buf[15];
    unsigned n = 15;
    /* A fault on bytes behind the instruction does not count. */
    unsigned in_page = PAGE_SIZE - (lin & (PAGE_SIZE - 1));
    if (n > in_page)
        n = in_page;
    if (mmu_fetch_bytes(c, lin, buf, n))
        return NULL;
    memset(b, 0, sizeof *b);
    b->mode = c->mode;
    b->page = &c->blocks->rom_gen;
    b->once = true;
    if (!decode_run(c, b, buf, n, 1)) {
        if (mmu_fetch_bytes(c, next_page(c, lin), buf + n, 15 - n))
            return NULL;
        decode_run(c, b, buf, 15, 1);
    }
    return b;
}

/* The page at `host`: its generation word, and its index if it is RAM. */
static const _Atomic uint32_t *page_word(struct soft_cpu *c, const uint8_t *host, uint64_t *index)
{
    struct mem *m = c->vcpu.engine->cfg.mem;
    if ((uintptr_t)host - (uintptr_t)m->ram >= m->fd_size) {
        *index = ~0ull;
        return &c->blocks->rom_gen;
    }
    *index = mem_page_index(m, host);
    return &c->soft->page_gen[*index];
}

static struct soft_block *block_build(struct soft_cpu *c, uint64_t lin, const uint8_t *host, gpa_t gpa)
{
    struct soft_blocks *s = c->blocks;
    if (s->size - s->used < BLOCK_SIZE_MAX)
        blocks_flush(c);
    struct soft_block *b = (struct soft_block *)(s->arena + s->used);
    memset(b, 0, sizeof *b);
    b->gpa = gpa;
    b->mode = c->mode;
    uint64_t index, index2;
    b->page = page_word(c, host, &index);
    unsigned avail = PAGE_SIZE - (gpa & (PAGE_SIZE - 1));
    uint8_t copy[CODE_MAX];
    for (;;) {
        b->gen = atomic_load(b->page);
        b->cross = false;
        unsigned n = MIN(avail, sizeof copy);
        memcpy(copy, host, n);
        unsigned used = decode_run(c, b, copy, n, BLOCK_INSNS_MAX);
        if (used == 0) { /* the first instruction reaches into the next page */
            const uint8_t *host2;
            if (mmu_fetch(c, next_page(c, lin), &host2, &b->gpa2))
                return NULL;
            if (!host2)
                return block_once(c, lin);
            b->page2 = page_word(c, host2, &index2);
            b->gen2 = atomic_load(b->page2);
            b->cross = true;
            memcpy(copy + avail, host2, 15);
            used = decode_run(c, b, copy, avail + 15, 1);
            if (index2 != ~0ull)
                code_publish(c, index2, b->gpa2, lines_mask(0, MAX(used, avail + 1) - avail));
            if (memcmp(copy + avail, host2, MAX(used, avail) - avail))
                continue;
        }
        if (index != ~0ull)
            code_publish(c, index, gpa, lines_mask(gpa & (PAGE_SIZE - 1), MIN(used, avail)));
        if (!memcmp(copy, host, MIN(used, avail)))
            break;
    }
    memcpy(block_code(b), copy, b->looked);
    s->used += ALIGN_UP(sizeof *b + (b->n + 1) * sizeof(struct insn) + b->looked, 64);
    s->built++;
    return b;
}

static uint64_t hash_of(gpa_t gpa)
{
    uint64_t h = gpa * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 32;
}

/* The block at `gpa` for the current mode, stale or not, and its place in the table; NULL. */
static struct soft_block *hash_find(struct soft_cpu *c, gpa_t gpa, struct block_ref **ret)
{
    struct soft_blocks *s = c->blocks;
    uint64_t h = hash_of(gpa);
    uint32_t tag = (uint32_t)(h >> 32) | 1;
    struct block_ref *bucket = s->hash[h & (BLOCK_BUCKETS - 1)];
    for (unsigned k = 0; k < BLOCK_WAYS; k++) {
        struct soft_block *b = (struct soft_block *)(s->arena + (size_t)bucket[k].at * 64);
        if (bucket[k].tag == tag && b->gpa == gpa && b->mode == c->mode) {
            *ret = &bucket[k];
            return b;
        }
    }
    return NULL;
}

static void hash_insert(struct soft_cpu *c, const struct soft_block *b)
{
    struct soft_blocks *s = c->blocks;
    uint64_t h = hash_of(b->gpa);
    struct block_ref *bucket = s->hash[h & (BLOCK_BUCKETS - 1)];
    unsigned way = 0;
    while (way < BLOCK_WAYS && bucket[way].tag)
        way++;
    if (way == BLOCK_WAYS)
        way = s->victim++ % BLOCK_WAYS;
    bucket[way] = (struct block_ref){(uint32_t)(h >> 32) | 1, (uint32_t)(((const uint8_t *)b - s->arena) / 64)};
}

/* A stale block at `host`: true if its code is what it was, and then it is valid again. */
static bool block_revive(struct soft_cpu *c, struct soft_block *b, const uint8_t *host)
{
    uint64_t index;
    if (b->cross || b->broken)
        return false;
    uint32_t gen = atomic_load(b->page);
    page_word(c, host, &index);
    code_publish(c, index, b->gpa, lines_mask(b->gpa & (PAGE_SIZE - 1), b->looked));
    if (memcmp(block_code(b), host, b->looked))
        return false;
    b->gen = gen;
    jit_revived(c, b);
    c->blocks->revived++;
    return true;
}

struct soft_block *block_find(struct soft_cpu *c, uint64_t lin)
{
    struct soft_blocks *s = c->blocks;
    const uint8_t *host;
    gpa_t gpa, gpa2;
    s->found++;
    bool debugged = c->debug && debugger_page(c, lin);
    if (debugged && !c->debug_stepping) {
        c->debug_leave = true;
        return NULL;
    }
    if (!(c->mode & MODE_CS64)) {
        if (c->rip > c->seg[CS].limit) {
            (void)exc_raise_code(c, EXC_GP, 0);
            return NULL;
        }
    } else if ((uint64_t)((int64_t)lin >> 47) + 1 > 1) {
        (void)exc_raise_code(c, EXC_GP, 0);
        return NULL;
    }
    if (c->uncached) {
        struct soft_block *one = block_once(c, lin);
        if (one && !block_in_limit(c, one)) {
            (void)exc_raise_code(c, EXC_GP, 0);
            return NULL;
        }
        return one;
    }
    if (mmu_fetch(c, lin, &host, &gpa))
        return NULL;
    if (!host)
        return block_once(c, lin);
    struct block_ref *ref;
    struct soft_block *b = hash_find(c, gpa, &ref);
    if (b && (block_valid(b) || block_revive(c, b, host))) {
        if (!b->cross)
            goto found;
        if (mmu_fetch(c, next_page(c, lin), &host, &gpa2))
            return NULL;
        if (gpa2 == b->gpa2)
            goto found;
        if (mmu_fetch(c, lin, &host, &gpa)) /* mapped elsewhere now */
            return NULL;
    }
    if (b)
        ref->tag = 0;
    b = block_build(c, lin, host, gpa);
    if (!b || b->once)
        return b;
    hash_insert(c, b);
found:
    if (!block_in_limit(c, b)) { /* one at a time, then it is clear which one leaves the segment */
        b = block_once(c, lin);
        if (b && !block_in_limit(c, b)) {
            (void)exc_raise_code(c, EXC_GP, 0);
            return NULL;
        }
        return b;
    }
    if (debugged)
        return b;
    code_pages_note(c, lin);
    if (b->cross)
        code_pages_note(c, next_page(c, lin));
    *jump_slot(c, lin) = (struct jump_entry){.lin = lin, .epoch = c->code_epoch, .to = b};
    return b;
}
