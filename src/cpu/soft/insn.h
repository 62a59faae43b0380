/*
 * A decoded instruction: what the block cache keeps and handlers execute. Compact; the translator reads the same struct.
 *
 * A handler runs with c->rip at its own instruction and returns
 *   INSN_NEXT   done; the loop adds `len` to rip and goes on in the block
 *   INSN_BREAK  done; the loop adds `len` and leaves the block (mode, paging, interrupt state or code may have changed)
 *   INSN_JUMP   done; the handler has set rip; leaves the block
 *   INSN_NEAR   as INSN_JUMP, by a near branch: mode, mappings and events are as before, so blocks may be chained
 *   INSN_FALL   a conditional branch was not taken: as INSN_NEAR, to the next instruction; the loop adds `len`
 *   INSN_END    no instruction: behind the last one of a block
 *   INSN_FAULT  nothing architectural was changed but what the manual says; c->exc holds the exception; rip is untouched.
 *               (A REP string instruction may have made progress: its registers say so.)
 */
#ifndef LODGE_CPU_SOFT_INSN_H
#define LODGE_CPU_SOFT_INSN_H

#include <Zydis/Zydis.h>

#include "cpu/soft/cpu.h"

struct insn;
typedef int insn_fn(struct soft_cpu *c, const struct insn *i);

enum {
    INSN_F_MEM = 1,    /* the r/m operand is memory: base, index, scale, disp, seg */
    INSN_F_LOCK = 2,
    INSN_F_REP = 4,
    INSN_F_REPNE = 8,
    INSN_F_RIPREL = 16, /* base is INSN_RIP and disp counts from this instruction's own RIP */
    INSN_F_STACK_SEG = 32,
    INSN_F_SYSTEM = 64, /* claimed by sys_*.c; the mnemonic alone does not say so (far branches, MOV to segments) */
};

/* Status flags, for liveness. */
enum {
    INSN_FLAG_C = 1,
    INSN_FLAG_P = 2,
    INSN_FLAG_A = 4,
    INSN_FLAG_Z = 8,
    INSN_FLAG_S = 16,
    INSN_FLAG_O = 32,
    INSN_FLAGS_ALL = 63,
};

/* Numbers for base and index beside the sixteen registers; both lie behind gpr[] in soft_cpu.reg. */
#define INSN_RIP 16
#define INSN_NOREG 17
/* Byte registers AH, CH, DH, BH (no REX) are numbers 16..19: byte 1 of RAX, RCX, RDX, RBX. */
#define INSN_HIGH8 16

struct insn {
    insn_fn *fn;
    uint16_t mnemonic; /* ZYDIS_MNEMONIC_* */
    uint8_t len;       /* bytes of the instruction, 1..15 */
    uint8_t opsize;    /* 1, 2, 4, 8: width of the operation */
    uint8_t addrsize;  /* 2, 4, 8 */
    uint8_t flags;     /* INSN_F_* */
    uint8_t reg, rm;   /* ModRM.reg and .rm (or opcode register) with REX; for byte operands see INSN_HIGH8 */
    uint8_t base, index, scale, seg; /* memory operand; scale 1, 2, 4, 8; seg: ES..GS after prefixes and defaults */
    uint8_t opcode;    /* last opcode byte */
    uint8_t aux;       /* handler's own: condition code, shift kind, VEX.vvvv, … */
    uint8_t flags_read;  /* INSN_FLAG_*: status flags that it depends on, */
    uint8_t flags_write; /* … and those that it sets whatever its operands are */
    int64_t disp;      /* displacement, sign-extended */
    uint64_t imm;      /* immediate, sign-extended as the instruction says; relative branches: displacement */
    const void *priv;  /* handler's own: a vector stub, a next block */
};

/* Linear or effective parts of the memory operand, before the segment: truncated to the address size. */
static inline uint64_t insn_ea(const struct soft_cpu *c, const struct insn *i)
{
    uint64_t ea = i->disp + c->reg[i->base] + c->reg[i->index] * i->scale;
    return i->addrsize == 8 ? ea : i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

/*
 * Decodes the instruction at `bytes` (`avail` of them readable) for mode `mode`. Fills *i, fn included. Returns its length,
 * 0 when more bytes are needed, -1 for an undefined instruction (then *i raises #UD). decode.c
 */
int insn_decode(struct soft_cpu *c, const uint8_t *bytes, unsigned avail, uint32_t mode, struct insn *i);

/*
 * Executes exactly one instruction at c->rip with all checks (fetch, decode, execute, deliver its fault): what single-step, cold
 * code and the KVM engine's helper use. Pending interrupts are not looked at. run.c
 */
void soft_step(struct soft_cpu *c);

/* The families claim instructions at decode time: set i->fn and return true, or return false. */
bool sys_claim(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
bool vec_claim(struct soft_cpu *c, struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
               const uint8_t *bytes);

#endif
