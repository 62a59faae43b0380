/*
 * The cache of decoded basic blocks, one per vCPU and touched by its thread only. A block is a run of instructions
 * within one page of guest physical memory (only the last one of a `cross` block reaches into the next), decoded for
 * one mode. It is valid as long as the page's generation (soft_engine.page_gen) is what it was at decoding. A stale
 * block is revived when it is wanted again and its code turns out to be the same. The whole cache is flushed when its
 * memory is full.
 */
#ifndef LODGE_CPU_SOFT_BLOCKS_H
#define LODGE_CPU_SOFT_BLOCKS_H

#include "cpu/soft/insn.h"

#define BLOCK_INSNS_MAX 32

struct soft_block {
    gpa_t gpa;
    uint32_t mode;
    uint32_t gen, gen2; /* of the page, and of the next one if `cross` */
    const _Atomic uint32_t *page, *page2;
    gpa_t gpa2; /* the next page */
    /* Where relative branches out of here went last: taken or fallen through, in the same page. */
    struct {
        uint64_t lin;
        struct soft_block *to;
    } link[2];
    uint32_t jit, jit_generation; /* its translation, and of which code cache */
    uint16_t runs;   /* how often it was interpreted, up to where it is translated */
    uint16_t n;
    uint16_t bytes;  /* of its instructions */
    uint16_t looked; /* bytes that decoding depended on: more than `bytes` when the last one is undefined */
    bool cross;
    bool once;          /* not to be found again: code in MMIO */
    bool no_jit;        /* it cannot be translated */
    bool broken;        /* its instructions were patched away */
    struct insn insn[]; /* n of them, block_end(), and the code they were decoded from */
};

/* A copy of the guest's code. */
static inline uint8_t *block_code(struct soft_block *b)
{
    return (uint8_t *)&b->insn[b->n + 1];
}

static inline bool block_valid(const struct soft_block *b)
{
    return atomic_load_explicit(b->page, memory_order_relaxed) == b->gen &&
           (!b->cross || atomic_load_explicit(b->page2, memory_order_relaxed) == b->gen2);
}

#define JUMP_ENTRIES 4096u
struct jump_entry {
    uint64_t lin, epoch;
    struct soft_block *to;
};

/*
 * Blocks by physical address: buckets of one cache line. A full bucket forgets a block, which is decoded again when it
 * is wanted again.
 */
#define BLOCK_BUCKETS 16384u
#define BLOCK_WAYS 8
struct block_ref {
    uint32_t tag; /* part of the address's hash; 0: free */
    uint32_t at;  /* in the arena, in units of 64 bytes */
};

struct soft_blocks {
    struct jump_entry jump[JUMP_ENTRIES];
    struct block_ref hash[BLOCK_BUCKETS][BLOCK_WAYS];
    struct soft_block *running; /* its instructions are patched away when its page is written */
    uint8_t *arena;
    size_t used, size;
    unsigned victim;                                 /* way to forget next */
    uint64_t found, built, revived, flushes, invalidations; /* statistics */
    _Atomic uint32_t rom_gen;                        /* of pages that are never written */
    union {
        struct soft_block once; /* code in MMIO */
        uint8_t once_space[sizeof(struct soft_block) + 2 * sizeof(struct insn)];
    };
};

int blocks_init(struct soft_cpu *c, struct err *err);
void blocks_free(struct soft_cpu *c); /* NULL-safe */

/* The block at c->rip, linear address `lin`, by the mappings of now. NULL: the fetch faults, c->exc says how. */
struct soft_block *block_find(struct soft_cpu *c, uint64_t lin);

/* Ends the running block after its current instruction. */
void block_break_off(struct soft_cpu *c);

/* Does all of b lie in the code segment? Only segments with a limit ask. */
static inline bool block_in_limit(const struct soft_cpu *c, const struct soft_block *b)
{
    return (c->mode & (MODE_CS64 | MODE_FLAT)) || c->rip + b->bytes - 1 <= c->seg[CS].limit;
}

static inline struct jump_entry *jump_slot(struct soft_cpu *c, uint64_t lin)
{
    return &c->blocks->jump[(lin ^ lin >> 12 ^ c->code_epoch * 0x9e5) & (JUMP_ENTRIES - 1)];
}

/* mem->code_written: a device wrote to a page with code. Any thread. */
void blocks_dma_written(void *soft_engine, gpa_t gpa, uint64_t len);

#endif
