/*
 * The guest's instruction as host code with other general registers and another memory operand; everything else, vector
 * registers above all, stays what it is. What the translator uses for SSE, AVX, x87, BMI and the like, where host and
 * guest need no more than that. Pure functions, any thread.
 */
#ifndef LODGE_CPU_SOFT_RECODE_H
#define LODGE_CPU_SOFT_RECODE_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>

#define RECODE_NONE 0xffu

/* What the operands are. Masks have a bit for each of the sixteen general registers. */
struct recode_info {
    uint16_t gpr_in,
        gpr_out; /* named by ModRM or VEX.vvvv: they may be renumbered. Partial writes are in gpr_in, too */
    uint16_t fixed_in, fixed_out; /* implied by the opcode: they must be in the host's registers of the same numbers */
    uint8_t mem_size;             /* bytes of the memory operand, 0: none */
    uint8_t align;                /* which it must be aligned to, or #GP; 0, 16, 32 */
    bool mem_read, mem_write;
    bool flags_in, flags_out;
};

/*
 * Fills *ret. False: nothing that can be recoded (one-byte opcodes but x87, memory that no ModRM names or of unknown
 * size, AH to BH, control flow, system instructions, EVEX).
 */
bool recode_describe(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops, struct recode_info *ret);

/*
 * Writes the instruction for 64-bit code to out[0..14] and returns its length. gpr[n] is the host's register for the
 * guest's n; the memory operand is [mem_base], any of the sixteen. 0: it does not fit (a byte register that needs REX
 * is fine, AH to BH are not).
 */
unsigned recode(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops, const uint8_t *bytes,
                const uint8_t gpr[16], unsigned base, unsigned index, uint8_t out[15]);

#endif
