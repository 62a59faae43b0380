/*
 * The software engine's vCPU. One struct per vCPU, page-aligned, reached by a pointer in C and by gs: in generated code; it holds no
 * absolute host pointer that generated code would have to embed. Only the vCPU's own thread touches it, but for `pending`,
 * `sipi_vector` and the request words, which are atomic.
 *
 * Who owns what: registers, flags and the run loop: run.c, interp_*.c. Segments, control registers, MSRs, exceptions: seg.c, exc.c,
 * sys_*.c. Address translation: mmu.c. x87/SSE/AVX: vec_*.c.
 */
#ifndef LODGE_CPU_SOFT_CPU_H
#define LODGE_CPU_SOFT_CPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "cpu/engine.h"
#include "cpu/soft/jit_cpu.h"

/* Segment register with its hidden part. `attr`: bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G, 16 unusable. */
struct soft_seg {
    uint64_t base;
    uint32_t limit; /* bytes, expanded */
    uint16_t sel;
    uint32_t attr;
};
#define SEG_ATTR_TYPE 0xfu
#define SEG_ATTR_S BIT(4)
#define SEG_ATTR_DPL(a) (((a) >> 5) & 3)
#define SEG_ATTR_P BIT(7)
#define SEG_ATTR_L BIT(13)
#define SEG_ATTR_DB BIT(14)
#define SEG_ATTR_G BIT(15)
#define SEG_ATTR_UNUSABLE BIT(16)

/* Why the run loop must look up: bits of soft_cpu.pending. Any thread sets them with pending_set(). */
enum {
    PEND_KICK = 1,       /* return VCPU_EXIT_KICKED */
    PEND_INTR = 2,       /* the APIC may have an interrupt */
    PEND_NMI = 4,
    PEND_INIT = 8,
    PEND_SIPI = 16,
    PEND_TIMER = 32,     /* the armed time has come */
    PEND_TLB = 64,       /* entries of `wprotect` ring are to be dropped (a page became code) */
    PEND_VIEW = 256,     /* drop the TLB, code stays: pages of device memory are watched again */
    PEND_TLB_ALL = 128,  /* drop the whole TLB */
    PEND_SMI = 256,
    PEND_DEBUG = 512,    /* a debugger's watchpoint was met */
    PEND_CODE = 1024,    /* pages with translated code were written */
};

/* What an instruction handler says; see insn.h. */
enum { INSN_NEXT, INSN_BREAK, INSN_JUMP, INSN_FAULT, INSN_NEAR, INSN_FALL, INSN_END };

/* An exception (or the like) waiting to be delivered. */
struct soft_exc {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t cr2; /* for #PF: written to CR2 on delivery */
    uint64_t dr6; /* for #DB: bits to set in DR6 on delivery */
};

/* CPU mode as decoding and execution see it; a cached block belongs to one. */
enum {
    MODE_CS64 = 1,   /* 64-bit code */
    MODE_CS32 = 2,   /* default operand size 32 (else 16 when neither) */
    MODE_SS32 = 4,   /* stack pointer is ESP (or RSP with CS64), not SP */
    MODE_PE = 8,     /* protected mode, not v8086 */
    MODE_VM86 = 16,
    MODE_USER = 32,  /* CPL 3 */
    MODE_FLAT = 64,  /* CS, DS, ES, SS: base 0, limit 4 GiB, plain: 32-bit code needs no limit checks */
    MODE_LMA = 128,  /* EFER.LMA */
};

struct soft_engine;
struct soft_block;
struct soft_mmu;
struct soft_jit;

/* XSAVE image, standard format: x87+SSE, header, AVX high halves. XRSTOR/FXRSTOR can take it as it is. */
struct soft_vec {
    uint8_t fx[512];
    uint8_t header[64];
    uint8_t ymm_hi[16][16];
} __attribute__((aligned(64)));

struct soft_cpu {
    struct vcpu vcpu; /* first */
    struct soft_engine *soft;

    /* ---- hot: registers ---- */
    union {
        struct {
            uint64_t gpr[16];
            uint64_t rip;  /* of the instruction being executed, or the next one between instructions */
            uint64_t zero; /* always 0 */
        };
        uint64_t reg[18]; /* the same by number: address computation takes INSN_RIP and INSN_NOREG from here */
    };
    /* Flags: the six status flags in cc (flags.h), the others in rflags_rest. */
    uint64_t rflags_rest; /* all bits of RFLAGS but the six status flags; bit 1 always set */
    uint16_t cc; /* status flags as the host's LAHF and SETO gave them: flags.h */
    uint32_t mode; /* MODE_*; soft_mode_changed() recomputes it */
    uint8_t cpl;
    bool int_shadow;  /* no interrupt before the next instruction is done (STI, MOV SS) */
    bool slow_step;   /* TF, hardware breakpoints or a shadow: run one instruction at a time with checks */
    bool halted;
    bool uncached;   /* keep no decoded code: the guest runs elsewhere too (the KVM engine's helper) */
    bool irq_waits;    /* the APIC has an interrupt, IF is 0: flags_write() looks again */
    _Atomic uint32_t pending;
    _Atomic bool sleeping; /* in HLT, waiting for `pending` */
    /*
     * Names the mappings of code: while it has one value, a linear address fetches from one physical address. A value comes back when the
     * guest goes back to an address space whose translations were kept (PCID). mmu.c sets it; the jump cache's entries belong to one.
     */
    uint64_t code_epoch;
    uint64_t code_pages[128]; /* pages (by hash) that the jump cache has entries of: INVLPG elsewhere keeps the epoch */

    /* ---- system ---- */
    struct soft_seg seg[SEG_COUNT], ldt, tr;
    struct cpu_table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t pdpte[4];
    uint64_t dr[8];
    uint64_t star, lstar, cstar, fmask, kernel_gs_base, tsc_aux, pat;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t mtrr_def_type, mtrr_fix[11], mtrr_var[32], misc_enable, spec_ctrl, tsc_adjust;
    uint64_t tsc_offset; /* guest TSC = host TSC + offset while the clock runs */
    bool nmi_masked;
    enum cpu_run_state run_state;
    _Atomic uint8_t sipi_vector;
    bool ss_shadow;           /* the shadow is MOV SS's: debug traps wait too */
    bool rf_fresh;            /* the instruction before set RF: it holds for one more */
    bool tf_swallowed;        /* this instruction cleared TF in a way that cancels its own single-step trap */
    uint32_t dr6_hits;        /* breakpoints met by the current instruction, as DR6 bits */
    struct soft_exc exc;      /* valid when a handler returned INSN_FAULT */
    bool exc_valid;           /* an exception to deliver before the next instruction (set_state, single-step) */
    bool shutdown;            /* triple fault happened */
    bool dirty_tracking;      /* the TLB was filled under this value of mem->dirty_tracking */
    struct soft_debug *debug; /* of a debugger outside of the guest; NULL: none */
    bool debug_step;          /* it wants one instruction */
    bool debug_stepping;      /* soft_step() is at work: it may run code with breakpoints */
    bool debug_leave;         /* block_find() met code with breakpoints: go there by single instructions */
    uint64_t insns;           /* instructions executed, roughly: for statistics */

    /* ---- parts with their own headers ---- */
    struct soft_mmu *mmu;
    struct soft_blocks *blocks;
    struct soft_jit *jit_cache; /* NULL: everything is interpreted */
    uint64_t chaos; /* random state; 0: the engine does what is best */
    struct soft_vec vec;
    uint8_t vec_live; /* LIVE_*: parts of `vec` that are in the host's registers instead. vec_live.h */
    uint64_t kicks;
    uint32_t pauses; /* PAUSE instructions executed */
    timer_t timer; /* of the vCPU's thread, made by the first vcpu_run */
    bool timer_made, timer_set;
    pid_t timer_thread;
    uint64_t timer_ns; /* guest time armed, 0: none */
    /* Pages that became code on another vCPU, to be write-protected here (PEND_TLB). */
    struct {
        pthread_mutex_t lock;
        unsigned n;
        gpa_t page[256];
    } wprotect;
    struct jit_cpu jit;
};

struct soft_engine {
    struct engine engine; /* first */
    struct soft_cpu **cpu; /* cfg.cpus of them */
    struct cpuid_table cpuid;
    bool has_rdtscp, has_rdpid; /* what cpuid says */
    _Atomic uint32_t *page_gen; /* one per RAM page: changes when the page's code was written */
    pthread_mutex_t code_lock;  /* pages that become code and cease to be */
    _Atomic uint64_t *code_lines; /* one per RAM page: which of its 64-byte lines hold decoded code */
    pthread_mutex_t split_lock; /* locked accesses that are not one host access (page crossing, MMIO) */
    struct vec_cache *vec_cache; /* generated stubs for vector instructions, shared by all vCPUs */
    int perf_map; /* file for perf, -1: none */
    uint16_t hot; /* a block is translated when it was interpreted so often */
    double tsc_per_ns;
    uint64_t stopped_tsc; /* host TSC when the clock was stopped; starting it again subtracts what passed from every tsc_offset */
};

static inline struct soft_cpu *soft_cpu_of(struct vcpu *v)
{
    return (struct soft_cpu *)v;
}

/* Sets pending bits without waking: for the vCPU's own thread and its signal handlers, or where it does not sleep. */
static inline void pending_add(struct soft_cpu *c, uint32_t bits)
{
    atomic_fetch_or(&c->pending, bits);
    atomic_store(&c->jit.limit, UINT64_MAX);
}
/* Sets pending bits and wakes the vCPU from HLT. Any thread, async-signal-safe. run.c */
void pending_set(struct soft_cpu *c, uint32_t bits);

/*
 * The guest wrote [gpa, gpa + len) within a page flagged MEM_PAGE_CODE: drops the code there, and ends the current
 * block after this instruction. Afterwards the page may have lost its flag (then it holds no code any more). blocks.c
 */
void soft_code_written(struct soft_cpu *c, gpa_t gpa, unsigned len);

/*
 * Drops write access to pages that became code on other vCPUs, if any were asked for: before anything that another vCPU could take as a sign
 * that earlier stores are done, that is before every write to the bus. blocks.c
 */
void code_requests_slow(struct soft_cpu *c);
static inline void code_requests(struct soft_cpu *c)
{
    if (__builtin_expect(atomic_load_explicit(&c->pending, memory_order_acquire) & (PEND_TLB | PEND_TLB_ALL), 0))
        code_requests_slow(c);
}

static inline uint64_t *code_pages_word(struct soft_cpu *c, uint64_t lin)
{
    return &c->code_pages[(lin >> 18 ^ lin >> 25) & 127];
}
static inline bool code_pages_test(struct soft_cpu *c, uint64_t lin)
{
    return *code_pages_word(c, lin) >> (lin >> 12 & 63) & 1;
}
static inline void code_pages_note(struct soft_cpu *c, uint64_t lin)
{
    *code_pages_word(c, lin) |= BIT64(lin >> 12 & 63);
}

/* Recomputes mode, cpl-dependent MMU selection and slow_step after CS, SS, CR0, EFER, RFLAGS.VM/TF or DR7 changed. seg.c */
void soft_mode_changed(struct soft_cpu *c);

static inline bool in_long64(const struct soft_cpu *c)
{
    return c->mode & MODE_CS64;
}
static inline const struct cpu_bus *soft_bus(const struct soft_cpu *c)
{
    return c->vcpu.engine->cfg.bus;
}

#endif
