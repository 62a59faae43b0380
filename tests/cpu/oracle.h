/*
 * The host CPU as oracle for the software CPU: one instruction is executed on both from the same state, and everything
 * is compared. forms.c enumerates instruction forms, gen.c makes random cases of a form, host.c and soft.c execute
 * them, oracle.c compares.
 *
 * Both sides see the same linear addresses, all below 2 GiB: a window of data pages and a code area.
 */
#ifndef LODGE_TESTS_CPU_ORACLE_H
#define LODGE_TESTS_CPU_ORACLE_H

#include <stdbool.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

#include "base/bits.h"
#include "cpu/x86.h"

/* Data: page 0 absent, 1 and 2 writable, 3 absent, 4 read-only, 5 absent. */
#define WIN_BASE 0x10000000ull
#define WIN_PAGES 6
#define WIN_SIZE (WIN_PAGES * 4096)
#define WIN_RW (WIN_BASE + 4096)
#define WIN_RW_SIZE 8192
#define WIN_RO (WIN_BASE + 4 * 4096)
#define WIN_RO_SIZE 4096
#define CODE_BASE 0x20000000ull
#define CODE_SIZE 16384
/* Instructions under test lie in the middle of the code area; the rest of it is INT3. */
#define CODE_TEST (CODE_BASE + 8192)
#define CODE_MAX 512
#define AREA_BASE 0x21000000ull

struct rng {
    uint64_t s;
};
static inline uint64_t rng64(struct rng *r)
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static inline unsigned rng_below(struct rng *r, unsigned n)
{
    return rng64(r) % n;
}
static inline bool rng_chance(struct rng *r, unsigned percent)
{
    return rng_below(r, 100) < percent;
}

/* XSAVE image in standard format, x87, SSE and AVX. */
struct xstate {
    uint8_t fx[512];
    uint8_t header[64];
    uint8_t ymm_hi[256];
} __attribute__((aligned(64)));

struct regs {
    uint64_t gpr[16], rip, rflags;
    struct xstate x;
    /* -1: none. A branch to where nothing may be fetched counts as done. */
    int vector;
    uint32_t error;
    uint64_t cr2;
};

enum form_flags { FORM_BRANCH = 1, FORM_LOCKS = 2 };

struct form {
    uint8_t bytes[16]; /* a sample: opcode and ModRM as enumerated, no displacement */
    uint8_t prefix;    /* 0, 0x66, 0xf2, 0xf3 in front of a legacy opcode */
    uint8_t vex;       /* VEX.pp, .L, .W, map in the fields below */
    uint8_t map, opcode, w, l, pp;
    bool has_modrm, mem, reg_free, rm_free;
    uint8_t reg, rm;
    uint8_t mode; /* 64 or 32 */
    ZydisMnemonic mnemonic;
};

struct testcase {
    const struct form *form;
    uint8_t code[CODE_MAX];
    unsigned len;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    bool branch;
    bool undefined; /* LOCK where it may not stand: #UD */
    uint64_t ip;    /* where it stands */
    struct regs in;
    uint8_t window[WIN_RW_SIZE + WIN_RO_SIZE]; /* contents of the writable and the read-only pages */
};

/* Forms for code of `mode` bits; *ret_n of them, freed by the caller. forms.c */
struct form *forms_enumerate(unsigned mode, unsigned *ret_n);
/* Is this decoded instruction one that may be run (unprivileged, no side effects beyond registers and memory)? forms.c
 */
bool form_runnable(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops);
/* Is it forbidden to programs? Then both sides must refuse in the same way. */
bool form_must_fault(const ZydisDecodedInstruction *z);
/* Makes a case; false when this draw gave nothing that can run. gen.c */
bool case_make(const struct form *f, struct rng *r, struct testcase *t);

/* Execute; `after` gets the registers, `win` the writable pages. host.c, soft.c */
int host_setup(void);
void host_execute(const struct testcase *t, struct regs *after, uint8_t win[WIN_RW_SIZE]);
uint64_t host_fs_base(void);
int soft_setup(void);
void soft_execute(const struct testcase *t, struct regs *after, uint8_t win[WIN_RW_SIZE]);

/* The same on a whole vCPU, for blocks. machine.c */
enum machine_kind { MACHINE_INTERPRETER, MACHINE_TRANSLATOR, MACHINE_TRANSLATOR_EXACT, MACHINES };
const char *machine_name(enum machine_kind kind);
int machine_setup(void);
void machine_execute(enum machine_kind kind, const struct testcase *t, struct regs *after, uint8_t win[WIN_RW_SIZE]);

/* A case that may stand in a block: not a branch, and nothing whose outcome is vague. blocks.c */
bool case_in_block(const struct testcase *t);
/* Do both sides agree? Prints what differs if asked. oracle.c */
bool compare(const struct testcase *t, const struct regs *h, const struct regs *s, const uint8_t *hw, const uint8_t *sw,
             bool print);
/* `count` random blocks of `mode`-bit code; the number that differ. `only` >= 0: this one, told at length. blocks.c */
unsigned blocks_run(unsigned mode, uint64_t seed, unsigned count, long only);

#endif
