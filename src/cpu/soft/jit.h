/*
 * The translator: hot blocks (blocks.h) become host code that is entered with the guest's registers in the host's, and
 * left when C is needed. On the vCPU's thread, one code cache each.
 *
 * Registers in generated code: guest RAX RCX RDX RBX RBP RSI RDI R8-R12 are in the host registers of the same name, RSP is in
 * R15; guest R13-R15 stay in struct soft_cpu. R14 (JIT_T0) and R13 (JIT_T1) are scratch. Host RSP: a stack of what guest
 * RETs are expected to find, in threes: jit_cpu.key2, the guest's return address, and where generated code goes on then. gs: is the
 * struct soft_cpu.
 *
 * Status flags are in the host's while instructions want them there, or in soft_cpu.cc when something on the way had to
 * overwrite them (jit.fl). On a direct jump between blocks they are in the host's; on every other way into a block, and in
 * C, in cc. Flags that nothing reads before they are written are kept nowhere: a fault or an interrupt there shows others.
 *
 * An instruction that has no lowering, or whose fast path does not apply (TLB miss, fault, MMIO), is executed by the
 * interpreter's handler on the state in struct soft_cpu, which makes everything exact that the fast path does not do.
 */
#ifndef LODGE_CPU_SOFT_JIT_H
#define LODGE_CPU_SOFT_JIT_H

#include "cpu/soft/blocks.h"
#include "cpu/soft/emit.h"

#define JIT_T0 14u
#define JIT_T1 13u
#define JIT_RSP 15u

/* Above a reference to an instruction: LIVE_* bits that it needs. */
#define JIT_LIVE_SHIFT 28

/* Why generated code came back to C. */
enum jit_exit {
    JIT_CONTINUE,  /* not an exit */
    JIT_LEAVE,     /* the instruction wants the run loop: mode, mappings or events may have changed */
    JIT_NEAR,      /* rip is set: find the block there */
    JIT_LINK,      /* a direct jump that leads nowhere yet */
    JIT_INDIRECT,  /* a jump whose target is not in the jump cache */
    JIT_FAULT,     /* c->exc */
    JIT_GOTO,      /* not an exit: on to jit_cpu.go */
    JIT_ATTENTION, /* pending events, or the host stack is full, or the block was dropped */
};

/* Where the guest's status flags are. */
enum jit_flags { JIT_FL_HOST, JIT_FL_CC, JIT_FL_DEAD };

#define JIT_SLOW_MAX 160

/* A way out of the straight line, emitted behind the block. */
struct jit_slow {
    uint8_t *site;    /* rel32 that leads there */
    uint8_t *resume;  /* where the next instruction begins */
    uint16_t insn;
    bool back;        /* does it come back? */
    uint8_t fl;       /* enum jit_flags at `resume` */
    uint8_t live;     /* LIVE_*: no handler is wanted but this state */
};

/* Is code of this mode translated? 64-bit code, and 32-bit code with flat segments. */
static inline bool jit_mode_ok(uint32_t mode)
{
    const uint32_t flat = MODE_PE | MODE_CS32 | MODE_SS32 | MODE_FLAT;
    return (mode & MODE_CS64) || (mode & (flat | MODE_VM86)) == flat;
}

/* A block while it is translated. */
struct jit {
    struct emit e; /* first */
    struct soft_cpu *c;
    const struct soft_block *b;
    unsigned k;           /* which instruction */
    const struct insn *i; /* that one */
    int32_t off;          /* of it in its page */
    enum jit_flags fl;
    uint8_t live[BLOCK_INSNS_MAX + 1]; /* INSN_FLAG_*: live before instruction k; the last: at the block's end */
    unsigned n_slow;
    struct jit_slow slow[JIT_SLOW_MAX];
    struct {
        uint8_t *site;
        int32_t off; /* of the target in the page */
        bool saved;  /* flags are in cc there */
    } link[2];
    unsigned n_links;
    bool ended; /* the last instruction has its exits */
    uint8_t vec_live; /* LIVE_*: what the block has made sure of */
    uint32_t id;
    uint8_t *rx; /* what the byte at `base` is executed as */
    uint8_t *base;
};

/* Lowers j->i. False: not this one, and nothing was emitted that counts. */
typedef bool jit_lower(struct jit *j, const struct insn *i, unsigned arg);

/* Bytes of a linear address, and of what near branches push. */
static inline unsigned jit_word(const struct jit *j)
{
    return j->b->mode & MODE_CS64 ? 8 : 4;
}

/* ---- what lowering functions use: jit_reg.c, jit_mem.c, jit_flags.c ---- */

/* Guest register `n` as an operand: a host register, or its place in struct soft_cpu. n may be INSN_HIGH8 + 0..3 for bytes. */
struct opnd jit_greg(unsigned n);
static inline bool jit_in_host(unsigned n)
{
    return n < 13 || n >= INSN_HIGH8;
}
static inline unsigned jit_host(unsigned n) /* only for registers that are in the host's */
{
    return n == RSP ? JIT_RSP : n;
}
/* A host register with guest register n in it: its own, or `t` loaded with it. */
unsigned jit_get(struct jit *j, unsigned n, unsigned t);
/* A host register for the result of an instruction, with the old value if `old`; then jit_put() with what this returned. */
static inline unsigned jit_dst(struct jit *j, unsigned n, bool old, unsigned t)
{
    return old ? jit_get(j, n, t) : jit_in_host(n) ? jit_host(n) : t;
}
void jit_put(struct jit *j, unsigned n, unsigned host);

/*
 * The memory operand of j->i: checks it for `size` bytes and returns where it is in host memory (by JIT_T0 and JIT_T1). The only
 * function that turns guest addresses into host addresses. What does not pass goes to the handler. Flags are saved before if
 * they are live. Nothing may have been changed by the instruction yet.
 */
struct opnd jit_mem(struct jit *j, const struct insn *i, unsigned size, bool write);
/* The same for guest RSP + disp. */
struct opnd jit_stack_mem(struct jit *j, int32_t disp, unsigned size, bool write);
/* … for any guest register that is in a host register. */
struct opnd jit_base_mem(struct jit *j, unsigned base, int32_t disp, unsigned size, bool write);
/* … for an address that is in JIT_T0 already, in segment `seg`. The flags are the caller's affair. */
struct opnd jit_linear_mem(struct jit *j, unsigned seg, unsigned size, bool write);
/* Can j->i's address be computed by jit_mem()? Ask before. */
bool jit_mem_ok(const struct jit *j, const struct insn *i);
/* The address of j->i's memory operand, without the segment, as an operand of LEA. Uses JIT_T0 and JIT_T1 as needed. */
struct opnd jit_address(struct jit *j, const struct insn *i);
/* To one register: JIT_T0, so that JIT_T1 is free. */
struct opnd jit_mem_narrow(struct jit *j, struct opnd m);

/* The host's flags are going to be overwritten by something that is not the guest's: saves them if the guest needs them. */
void jit_flags_clobber(struct jit *j);
/* j->i is going to read or write flags natively: puts into the host's what it reads or leaves alone. */
void jit_flags_native(struct jit *j);
/* Flags `need` must be in the host's. */
void jit_flags_host(struct jit *j, unsigned need);
/* … in cc. */
void jit_flags_save(struct jit *j, unsigned need);

/* A conditional branch to the handler for j->i when `cond` holds; comes back behind the instruction, or not. */
void jit_slow_if(struct jit *j, unsigned cond, bool back);
/* The same from a rel32. */
void jit_slow_at(struct jit *j, uint8_t *site, bool back);
/* A branch to where vector or x87 state is brought into the host's registers (LIVE_* in `live`); it comes back to here. */
void jit_slow_live(struct jit *j, uint8_t *site, unsigned live);
/* The next instruction emitted is an x87 instruction of the guest. */
void jit_x87_note(struct jit *j);
/* j->i by its handler. */
void jit_handler_call(struct jit *j, unsigned k);
/* The same place in the block, for state instead. */
void jit_live_call(struct jit *j, unsigned k, unsigned live);
void jit_by_handler(struct jit *j);
/* Leaves the block for the instruction at `off` in the page. */
void jit_exit_to(struct jit *j, int32_t off);
void jit_target(struct jit *j, uint8_t *rel32, const void *rx); /* a jump to code outside of the block */

jit_lower jit_alu, jit_test, jit_incdec, jit_notneg, jit_imul, jit_mul;                                 /* jit_alu.c */
jit_lower jit_mov, jit_movx, jit_lea, jit_cmov, jit_setcc, jit_xchg, jit_bswap, jit_convert, jit_nop;   /* jit_mov.c */
jit_lower jit_shift, jit_shiftd, jit_shiftx, jit_bt, jit_scan, jit_bmi;                                          /* jit_shift.c */
jit_lower jit_cmpxchg, jit_cmpxchgb, jit_xadd, jit_div, jit_cli, jit_sti, jit_swapgs, jit_set_ac, jit_rdtsc, jit_pushf; /* jit_sys.c */
jit_lower jit_vec; /* jit_vec.c; for any that has no other */
jit_lower jit_jcc, jit_jmp, jit_call_near, jit_ret, jit_push, jit_pop, jit_leave;                                /* jit_branch.c */

/* The lowering of a mnemonic, NULL: none. jit_block.c */
struct jit_row {
    jit_lower *lower;
    uint8_t arg;
    bool system; /* for instructions that sys_*.c claim; the others for those that they do not claim */
};
const struct jit_row *jit_row(unsigned mnemonic);

/* Translates the block into `out` (rw) executed at `rx`; jit_block.c. Returns the end. */
struct jit_code;
uint8_t *jit_emit_block(struct soft_cpu *c, const struct soft_block *b, uint32_t id, uint8_t *rw, uint8_t *rx, struct jit_code *k);

/* ---- the code cache: jit_cache.c ---- */

#define JIT_HOT 24 /* a block is translated when it was interpreted so often */
#define JIT_BLOCK_ROOM (32 * 1024)

/* A translated block. Offsets are into the cache. */
struct jit_code {
    const struct soft_block *b;
    uint32_t saved_at;  /* entry with flags in cc; looks for events */
    uint32_t check_at;  /* entry with flags in the host's; looks for events */
    uint32_t direct_at; /* entry with flags in the host's */
    uint32_t out_saved_at, out_direct_at; /* where entries lead while the block's page has changed */
    struct {
        uint32_t site; /* of a rel32, 0: none */
        uint32_t stub;
        int32_t off;   /* of the target in the page */
        bool saved;
    } link[2];
    uint32_t next; /* in the same page */
    uint64_t page; /* of RAM */
    uint64_t page2; /* the next one when its instruction reaches there, else the same */
    uint32_t next2; /* in that one */
    int32_t off;
    bool stale;
    uint8_t kept[3][5]; /* what stood at the entries */
};

/* Thunks, as offsets into the cache. */
struct jit_thunks {
    const uint8_t *enter, *handler, *live, *link_direct, *link_saved, *out_direct, *out_saved, *dispatch;
};

struct soft_jit {
    uint8_t *rw, *rx;
    size_t used, size, first; /* first: behind the thunks */
    struct jit_code *code;
    uint32_t n_code;
    uint32_t generation;         /* of the cache's contents */
    _Atomic uint32_t *page_code; /* by RAM page: the newest translated block there, 0: none */
    uint64_t ram_pages;
    bool vec; /* vector and x87 instructions are lowered on this host */
    /* Where the guest's x87 instructions are, in ascending order: for the instruction pointer that they leave. */
    struct jit_x87 {
        uint32_t at; /* offset in the cache */
        int32_t off; /* of the guest's instruction in its page */
    } *x87;
    size_t n_x87, max_x87;
    struct jit_thunks thunk;
    /* Pages whose code was written, to be looked at by the vCPU's thread. */
    pthread_mutex_t lock;
    unsigned n_dropped;
    bool all_dropped;
    uint64_t dropped[64];
    /* Values of jit_cpu.key. */
    struct {
        uint64_t epoch;
        uint32_t mode, id;
    } keys[64];
    uint32_t next_key, key_mode;
    uint64_t key_epoch, key_global;
    uint64_t translated, flushes, drops, revived; /* statistics */
};

int jit_init(struct soft_cpu *c, struct err *err);
void jit_free(struct soft_cpu *c); /* NULL-safe */
/* Forgets all translations: the blocks they are of go away. */
void jit_flush(struct soft_cpu *c);
/* Writes a piece of code that goes to `off` in the page by the jump cache, with flags in cc (`saved`) or in the host's. jit_thunks.c */
void jit_emit_indirect(struct soft_cpu *c, struct emit *e, int32_t off, bool saved);
void jit_thunks_emit(struct soft_cpu *c);
/* Makes the keys of the jump cache fit the mappings and mode of now. */
void jit_key_select(struct soft_cpu *c);
/* The jump cache, by the keys of now: the host address for `lin` or 0; entering a block that was just found at `lin`; forgetting one. */
uint64_t jit_jump_find(struct soft_cpu *c, uint64_t lin);
void jit_jump_put(struct soft_cpu *c, uint64_t lin, const struct jit_code *to);
void jit_jump_drop(struct soft_cpu *c, uint64_t lin);
/* The file for perf, -1 when there can be none. jit_perf.c */
int jit_perf_map_open(void);
/* Tells perf of code from `start` on, which is that of guest address `rip`. */
void jit_perf_map_add(struct soft_cpu *c, const uint8_t *start, size_t size, uint64_t rip);
/* Translates b if it can be. */
bool jit_translate(struct soft_cpu *c, struct soft_block *b);

/* A page's code was written: takes its translations out of the way, here and (in time) on the vCPUs that have some. Any thread. */
void jit_page_dropped(struct soft_engine *e, uint64_t page);
/* Turns the x87 instruction pointer in c->vec, if generated code left it there, into the guest's. jit_cache.c */
void jit_x87_pointer(struct soft_cpu *c);
/* On the vCPU's thread: does what was asked for by jit_page_dropped(). */
void jit_take_drops(struct soft_cpu *c);
/* The block's code turned out to be what it was: its translation counts again. */
void jit_revived(struct soft_cpu *c, struct soft_block *b);

/* ---- running: jit_run.c ---- */

/* The calling thread runs this vCPU from now on. */
void jit_attach(struct soft_cpu *c);
/* Is the block translated? A hot one becomes so. */
bool jit_ready(struct soft_cpu *c, struct soft_block *b);
/* Runs from the (ready) block at c->rip until there is a reason to come back. */
enum jit_exit jit_execute(struct soft_cpu *c, struct soft_block *b);
/* After JIT_LINK and JIT_INDIRECT, `b` is what was found at c->rip: next time the way there is direct. */
void jit_connect(struct soft_cpu *c, enum jit_exit why, struct soft_block *b);

static inline struct jit_code *jit_code_of(struct soft_cpu *c, const struct soft_block *b)
{
    struct soft_jit *s = c->jit_cache;
    return b->jit && b->jit_generation == s->generation ? &s->code[b->jit] : NULL;
}

#endif
