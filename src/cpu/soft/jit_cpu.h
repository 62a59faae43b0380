/*
 * What generated code and its callers share inside of struct soft_cpu, reached through gs:. Included by cpu.h only.
 * The vCPU's thread owns it, but for `limit`, which anybody raises to get attention (soft_cpu.pending).
 */
#ifndef LODGE_CPU_SOFT_JIT_CPU_H
#define LODGE_CPU_SOFT_JIT_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define JIT_JUMP_BITS 14
#define JIT_JUMPS (1u << JIT_JUMP_BITS)
/* Index: (address * factor ^ spread) >> shift; the other one of its pair is the second way. */
#define JIT_JUMP_FACTOR 0x9e3779b1u
#define JIT_JUMP_SHIFT (32 - JIT_JUMP_BITS)

/* Where code at a linear address was translated to: `key` is the address xor jit_cpu.key. */
struct jit_jump {
    uint64_t key, host;
};

struct jit_cpu {
    /*
     * The host stack may grow down to here; the highest value there is when the vCPU is wanted. Compared at every place that
     * a loop or a call must pass, so both cost one comparison.
     */
    _Atomic uint64_t limit;
    uint64_t self;      /* of the struct soft_cpu */
    uint64_t code_base; /* linear address of the page that code runs in */
    /*
     * What addresses in the jump cache are xor'ed with: the mappings and the mode that they belong to, as a number in bits 48..63;
     * linear addresses are canonical, so nothing collides. `key` is tried first, then `key2`: in supervisor mode that of
     * global pages (which CR3 does not change) and that of the others, else both are the same.
     */
    uint64_t key, key2;
    uint32_t spread, spread2; /* by key: into the index */
    uint64_t tlb;       /* soft_mmu.cur */
    uint64_t tlb_ac[2]; /* what it is in supervisor mode with EFLAGS.AC 0 and 1, */
    uint32_t view_ac[2]; /* … and soft_mmu.view */
    uint64_t go;        /* where jit_call() wants to go on */
    uint64_t host_rsp;  /* at entry */
    uint64_t tmp;       /* RAX while flags move */
    uint64_t call;      /* C functions: executes an instruction, */
    uint64_t call_live; /* … brings vector or x87 state into the host's registers */
    uint64_t x87_base;  /* code_base when x87 instructions ran last */
    uint64_t target;    /* what an indirect CALL or a PUSH from memory has loaded, while it pushes */
    uint64_t exit_arg;
    bool stale;    /* code that may be running was written: leave after this instruction */
    uint64_t enters, exits_link, exits_indirect, exits_leave, calls; /* statistics */
    struct jit_jump jump[JIT_JUMPS];
};

#endif
