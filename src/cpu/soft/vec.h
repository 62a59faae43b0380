/*
 * x87, MMX, SSE and AVX. The host executes them, so results are bit-exact: for each distinct instruction vec_stub.c
 * builds once a small piece of host code (a "stub") that holds the guest's instruction with its operands renumbered and
 * its memory operand replaced by a buffer. Two shapes:
 *
 *   plain  SSE and AVX: operands are copied into slots of a struct vec_frame (0 implicit XMM0, 1 ModRM.reg, 2 ModRM.rm,
 * 3 VEX.vvvv, 4 is4) and held in the registers of the same numbers, so the number of stubs does not depend on register
 * numbers; image  x87 and MMX: the stub loads the whole state by FXRSTOR64, executes, and saves it by FXSAVE64.
 *
 * Plain moves, gathers, masked moves and state saving are C. State stays in struct soft_vec between instructions, in
 * the layout of XSAVE's standard format; the host's own x87 and MXCSR state is always clean outside of a stub, its
 * upper halves zero.
 *
 * On the vCPU's thread, but for vec_cache_*: the cache is shared and locked.
 */
#ifndef LODGE_CPU_SOFT_VEC_H
#define LODGE_CPU_SOFT_VEC_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu_fast.h"

/* Fields of the FXSAVE image (64-bit format, SDM 1, 10.5.1). */
#define FX_FCW 0
#define FX_FSW 2
#define FX_FTW 4 /* abridged: bit set = register in use */
#define FX_FOP 6
#define FX_FIP 8
#define FX_FDP 16
#define FX_MXCSR 24
#define FX_MXCSR_MASK 28
#define FX_ST 32
#define FX_XMM 160

#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u
#define MXCSR_FTZ BIT(15)

/* Which rules decide on #UD, #NM and #MF before the instruction. */
enum vec_rule { VEC_X87, VEC_MMX, VEC_SSE, VEC_AVX };

enum { VEC_SLOT_XMM0, VEC_SLOT_REG, VEC_SLOT_RM, VEC_SLOT_VVVV, VEC_SLOT_IS4, VEC_SLOTS };
/* General registers in a stub: RAX stands for ModRM.reg, RCX for ModRM.rm, or all three for themselves. */
enum { VEC_GPR_REG = 0, VEC_GPR_RM = 1, VEC_GPRS = 3 };

struct vec_frame {
    uint8_t mem[128]; /* the memory operand; RDI points here in a stub */
    uint8_t slot[VEC_SLOTS][32];
    uint64_t gpr[VEC_GPRS];
    uint64_t flags;
    uint32_t mxcsr, host_mxcsr;
} __attribute__((aligned(64)));

typedef void vec_code(struct vec_frame *f, const void *fx_in, void *fx_out);
/*
 * The quick form of a plain stub, for the bulk of SSE and AVX: works on the registers in struct soft_vec themselves.
 * `reg`, `rm`, `vvvv` point to the low halves there, or `rm` to memory; the upper halves lie VEC_UPPER further.
 * mxcsr[0] in and out, mxcsr[1] the host's.
 */
typedef void vec_quick(void *reg, const void *rm, const void *vvvv, uint32_t mxcsr[2]);
#define VEC_UPPER (offsetof(struct soft_vec, ymm_hi) - FX_XMM)

enum {
    VEC_F_FP = 1,        /* reads MXCSR and may raise SIMD exceptions */
    VEC_F_FLAGS_IN = 2,  /* reads RFLAGS */
    VEC_F_FLAGS_OUT = 4, /* writes status flags */
    VEC_F_IMAGE = 8,     /* image stub */
    VEC_F_VEX = 16,
    VEC_F_READ = 32,        /* memory operand is read */
    VEC_F_WRITE = 64,       /* … written */
    VEC_F_NO_PENDING = 128, /* x87 without wait: pending exceptions do not matter */
};

/* What a stub needs; shared by all instructions that differ in register numbers only. Never changes, lives as long as
 * the cache. */
struct vec_op {
    vec_code *code;
    vec_quick *quick;          /* NULL when the operands do not fit its form */
    uint64_t insn_at;          /* host address of the instruction itself, as FIP shows it */
    uint8_t rule;              /* enum vec_rule */
    uint8_t flags;             /* VEC_F_* */
    uint8_t in, out;           /* bits: slots loaded and stored */
    uint8_t gin, gout, gfixed; /* bits: general registers in and out; gfixed: number is the register itself */
    uint8_t mem_size, align;   /* bytes; alignment demanded (#GP), 0 none */
    uint16_t fop;              /* x87 opcode as the stub has it */
};

struct vec_cache;
/* `guest`: what the guest was told it has; instruction sets missing there or on the host are undefined. NULL: only the
 * host counts. */
struct vec_cache *vec_cache_new(const struct cpuid_table *guest);
void vec_cache_free(struct vec_cache *v); /* NULL-safe */
/* By ZydisISASet, ZYDIS_ISA_SET_MAX_VALUE + 1 of them. vec_isa.c */
void vec_isa_allowed(const struct cpuid_table *guest, bool *allowed);
bool vec_cache_allows(const struct vec_cache *v, ZydisISASet set);

/* The stub for an instruction; NULL when it has none. 64-bit code or not matters for REX.W. vec_stub.c */
const struct vec_op *vec_cache_get(struct vec_cache *v, const ZydisDecodedInstruction *z,
                                   const ZydisDecodedOperand *ops, const uint8_t *bytes, enum vec_rule rule);

/* What the host allows in MXCSR. */
uint32_t vec_mxcsr_mask(void);
/* Power-on state (INIT leaves it alone but for x87 by FNINIT, which software does). */
void vec_reset(struct soft_cpu *c);
/*
 * To and from an XSAVE image in standard format (cpu_state.xsave). set: anything may stand in it; what a CPU would
 * refuse is cut to what it can hold.
 */
void vec_get_xsave(const struct soft_cpu *c, uint8_t *buf);
void vec_set_xsave(struct soft_cpu *c, const uint8_t *buf);

/* ---- between the vec_*.c ---- */

/* #UD, #NM by CR0, CR4, XCR0. 0 or INSN_FAULT. */
MUST_CHECK int vec_check_slow(struct soft_cpu *c, enum vec_rule rule);
MUST_CHECK static inline int vec_check(struct soft_cpu *c, enum vec_rule rule)
{
    uint64_t need = rule == VEC_AVX ? CR4_OSXSAVE : CR4_OSFXSR;
    if (__builtin_expect(!(c->cr0 & (CR0_EM | CR0_TS)) && c->cr4 & need, 1) &&
        (rule != VEC_AVX || ((c->xcr0 & (XCR0_SSE | XCR0_AVX)) == (XCR0_SSE | XCR0_AVX) && c->mode & MODE_PE)))
        return 0;
    return vec_check_slow(c, rule);
}
/* #MF when an unmasked x87 exception waits. */
MUST_CHECK int vec_check_pending(struct soft_cpu *c);
/* What MMX instructions do to the x87 state: TOP is 0, all registers are in use. The image is in stack order. */
void vec_enter_mmx(struct soft_vec *v);
/* Linear address of i's memory operand, with segment and alignment checks. */
MUST_CHECK int vec_address(struct soft_cpu *c, const struct insn *i, unsigned size, unsigned align, bool write,
                           uint64_t *ret);
/* Sets ES and B in the status word from the flags and masks, as the CPU does when a state is loaded. */
void vec_fix_status(struct soft_vec *v);
/*
 * FLDENV, FNSTENV, FRSTOR and FNSAVE areas (`size` bytes, 14 or 28 of them environment): from and to the protected-mode
 * layout that the host uses, when the guest is in real or v8086 mode (SDM 1, figures 8-9 to 8-12).
 */
void vec_env_to_native(struct soft_cpu *c, uint8_t *env, unsigned size);
void vec_env_from_native(struct soft_cpu *c, uint8_t *env, unsigned size);

/* Handlers chosen at decode; each fills in what it needs and says whether the instruction is its. */
bool vec_claim_move(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
bool vec_claim_mask(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
bool vec_claim_state(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
insn_fn vec_exec_plain, vec_exec_image;
/* The handler for op->quick. vec_quick.c */
insn_fn *vec_quick_handler(const struct vec_op *op, bool mem);

/* Host address of `size` bytes at `lin` when the TLB has them for reading in one page, else NULL: then use mmu_read. */
static inline const void *vec_peek(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = &c->mmu->cur[tlb_index(lin)];
    if (__builtin_expect(tlb_hit(e->r, lin, size), 1))
        return (const void *)(uintptr_t)(lin + e->r + e->host);
    return NULL;
}

static inline uint8_t *vec_xmm(struct soft_cpu *c, unsigned n)
{
    return c->vec.fx + FX_XMM + 16 * n;
}

#endif
