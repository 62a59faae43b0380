/*
 * Saving and loading vector and x87 state: FXSAVE, XSAVE and their kin, MXCSR, VZEROUPPER, FWAIT (SDM 1, 10.5 and ch.
 * 13). In C, because struct soft_vec already is an XSAVE image. What was loaded goes once through the host's FXRSTOR
 * and FXSAVE, so that reserved bits, the stack and the summary bits are what a CPU would hold; a bad MXCSR is refused
 * before.
 */
#include "cpu/soft/exc.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/vec.h"

#define XSAVE_HEADER 512
#define XSAVE_AVX 576
#define XSAVE_SIZE 832
#define XCOMP_COMPACT BIT64(63)
#define XFEATURES (XCR0_X87 | XCR0_SSE | XCR0_AVX)

uint32_t vec_mxcsr_mask(void)
{
    uint8_t fx[512] __attribute__((aligned(16)));
    memset(fx, 0, sizeof fx);
    __asm__ volatile("fxsave64 %0" : "+m"(fx));
    uint32_t mask = le32_get(fx + FX_MXCSR_MASK);
    return mask ? mask : 0xffbf;
}

/* The host's CPU looks at the image once. Its own x87 and SSE state is clean afterwards. */
static void normalise(struct soft_cpu *c)
{
    uint32_t mxcsr = MXCSR_DEFAULT;
    uint8_t *fx = c->vec.fx;
    vec_fix_status(&c->vec);
    __asm__ volatile("fxrstor64 (%0)\n\tfxsave64 (%0)\n\tfninit\n\tldmxcsr %1"
                     :
                     : "r"(fx), "m"(mxcsr)
                     : "memory", "st", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static void init_x87(struct soft_vec *v)
{
    memset(v->fx, 0, 24);
    le16_put(v->fx + FX_FCW, 0x37f);
    memset(v->fx + FX_ST, 0, 128);
}

void vec_reset(struct soft_cpu *c)
{
    memset(&c->vec, 0, sizeof c->vec);
    init_x87(&c->vec);
    le16_put(c->vec.fx + FX_FCW,
             0x40); /* RESET, not FNINIT: everything unmasked, single precision (SDM 3A, table 10-1) */
    c->vec.fx[FX_FTW] = 0xff;
    le32_put(c->vec.fx + FX_MXCSR, MXCSR_DEFAULT);
    le32_put(c->vec.fx + FX_MXCSR_MASK, vec_mxcsr_mask());
}

void vec_get_xsave(const struct soft_cpu *c, uint8_t *buf)
{
    memset(buf, 0, CPU_XSAVE_SIZE);
    memcpy(buf, c->vec.fx, 416);
    le64_put(buf + XSAVE_HEADER, XFEATURES);
    memcpy(buf + XSAVE_AVX, c->vec.ymm_hi, sizeof c->vec.ymm_hi);
}

void vec_set_xsave(struct soft_cpu *c, const uint8_t *buf)
{
    uint64_t has = le64_get(buf + XSAVE_HEADER);
    uint32_t mask = vec_mxcsr_mask();
    memset(&c->vec, 0, sizeof c->vec);
    if (has & XCR0_X87)
        memcpy(c->vec.fx, buf, FX_MXCSR), memcpy(c->vec.fx + FX_ST, buf + FX_ST, 128);
    else
        init_x87(&c->vec);
    if (has & XCR0_SSE)
        memcpy(c->vec.fx + FX_XMM, buf + FX_XMM, 256);
    if (has & XCR0_AVX)
        memcpy(c->vec.ymm_hi, buf + XSAVE_AVX, sizeof c->vec.ymm_hi);
    le32_put(c->vec.fx + FX_MXCSR, has & (XCR0_SSE | XCR0_AVX) ? le32_get(buf + FX_MXCSR) & mask : MXCSR_DEFAULT);
    le32_put(c->vec.fx + FX_MXCSR_MASK, mask);
    normalise(c);
}

/* ---- FXSAVE, FXRSTOR ---- */

/* Without REX.W the pointers are 32 bits and selectors (which CPUs of today store as 0). */
static void pointers_out(uint8_t *fx, bool wide)
{
    if (!wide) {
        le32_put(fx + FX_FIP + 4, 0);
        le32_put(fx + FX_FDP + 4, 0);
    }
}

static unsigned xmm_bytes(const struct soft_cpu *c)
{
    return in_long64(c) ? 256 : 128;
}

static int fx_check(struct soft_cpu *c, const struct insn *i, bool write, uint64_t *lin)
{
    if (c->cr0 & (CR0_EM | CR0_TS))
        return exc_raise(c, EXC_NM);
    if (vec_address(c, i, 512, 16, write, lin))
        return INSN_FAULT;
    void *probe; /* CPUs look at the area's end first */
    return mmu_page(c, *lin + 511, write ? MMU_WRITE : MMU_READ, &probe);
}

static int exec_fxsave(struct soft_cpu *c, const struct insn *i)
{
    uint8_t fx[512];
    uint64_t lin;
    if (fx_check(c, i, true, &lin))
        return INSN_FAULT;
    memcpy(fx, c->vec.fx, sizeof fx);
    pointers_out(fx, i->opsize == 8);
    if (mmu_write_block(c, lin, fx, FX_XMM + xmm_bytes(c)))
        return INSN_FAULT;
    return INSN_NEXT;
}

static int exec_fxrstor(struct soft_cpu *c, const struct insn *i)
{
    uint8_t fx[512];
    uint64_t lin;
    if (fx_check(c, i, false, &lin) || mmu_read_block(c, lin, fx, 512))
        return INSN_FAULT;
    if (le32_get(fx + FX_MXCSR) & ~le32_get(c->vec.fx + FX_MXCSR_MASK))
        return exc_raise_code(c, EXC_GP, 0);
    pointers_out(fx, i->opsize == 8);
    memcpy(c->vec.fx, fx, FX_MXCSR_MASK);
    memcpy(c->vec.fx + FX_ST, fx + FX_ST, 128 + xmm_bytes(c));
    normalise(c);
    return INSN_NEXT;
}

/* ---- MXCSR ---- */

static int exec_ldmxcsr(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin;
    uint32_t v;
    if (vec_check(c, i->aux) || vec_address(c, i, 4, 0, false, &lin) || mmu_read(c, lin, &v, 4))
        return INSN_FAULT;
    if (v & ~le32_get(c->vec.fx + FX_MXCSR_MASK))
        return exc_raise_code(c, EXC_GP, 0);
    le32_put(c->vec.fx + FX_MXCSR, v);
    return INSN_NEXT;
}

static int exec_stmxcsr(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin;
    if (vec_check(c, i->aux) || vec_address(c, i, 4, 0, true, &lin) || mmu_write(c, lin, c->vec.fx + FX_MXCSR, 4))
        return INSN_FAULT;
    return INSN_NEXT;
}

/* ---- XSAVE, XSAVEOPT, XSAVEC, XRSTOR ---- */

static bool all_zero(const void *p, size_t n)
{
    const uint8_t *b = p;
    return !b[0] && !memcmp(b, b + 1, n - 1);
}

/* Components not in their initial state. */
static uint64_t in_use(const struct soft_cpu *c)
{
    const uint8_t *fx = c->vec.fx;
    uint64_t use = 0;
    if (le16_get(fx + FX_FCW) != 0x37f || !all_zero(fx + FX_FSW, 22) || !all_zero(fx + FX_ST, 128))
        use |= XCR0_X87;
    if (!all_zero(fx + FX_XMM, xmm_bytes(c)))
        use |= XCR0_SSE;
    if (!all_zero(c->vec.ymm_hi, xmm_bytes(c)))
        use |= XCR0_AVX;
    return use;
}

static int xsave_check(struct soft_cpu *c, const struct insn *i, bool write, uint64_t *lin, uint64_t *rfbm)
{
    if (!(c->cr4 & CR4_OSXSAVE))
        return exc_raise(c, EXC_UD);
    if (c->cr0 & CR0_TS)
        return exc_raise(c, EXC_NM);
    *rfbm = ((uint32_t)c->gpr[RAX] | c->gpr[RDX] << 32) & c->xcr0;
    return vec_address(c, i, XSAVE_HEADER + 64, 64, write, lin);
}

enum { KIND_XSAVE, KIND_XSAVEOPT, KIND_XSAVEC };

static int exec_xsave(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin, rfbm, bv, write;
    uint8_t fx[FX_XMM], header[16] = {0};
    void *probe;
    unsigned n = xmm_bytes(c);

    if (xsave_check(c, i, true, &lin, &rfbm))
        return INSN_FAULT;
    uint64_t use = in_use(c);
    if (i->aux == KIND_XSAVEC && le32_get(c->vec.fx + FX_MXCSR) != MXCSR_DEFAULT)
        use |= XCR0_SSE;
    write = i->aux == KIND_XSAVE ? rfbm : rfbm & use;
    bool mxcsr = i->aux == KIND_XSAVEC ? write & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
    /* CPUs look at the area's end first, whether they will write there or not, then where they will. */
    if (mmu_page(c, lin + (rfbm & XCR0_AVX ? XSAVE_SIZE : XSAVE_AVX) - 1, MMU_WRITE, &probe))
        return INSN_FAULT;
    if ((write & XCR0_X87 || mxcsr) && mmu_page(c, lin, MMU_WRITE, &probe))
        return INSN_FAULT;
    if (i->aux == KIND_XSAVEC) {
        bv = rfbm & use;
        le64_put(header + 8, rfbm | XCOMP_COMPACT);
    } else {
        if (mmu_read(c, lin + XSAVE_HEADER, &bv, 8))
            return INSN_FAULT;
        bv = (bv & ~rfbm) | (rfbm & use);
    }
    le64_put(header, bv);
    memcpy(fx, c->vec.fx, sizeof fx);
    pointers_out(fx, i->opsize == 8);

    if (write & XCR0_X87 && (mmu_write(c, lin, fx, FX_MXCSR) || mmu_write_block(c, lin + FX_ST, fx + FX_ST, 128)))
        return INSN_FAULT;
    if (mxcsr && mmu_write(c, lin + FX_MXCSR, fx + FX_MXCSR, 8))
        return INSN_FAULT;
    if (write & XCR0_SSE && mmu_write_block(c, lin + FX_XMM, c->vec.fx + FX_XMM, n))
        return INSN_FAULT;
    if (write & XCR0_AVX && mmu_write_block(c, lin + XSAVE_AVX, c->vec.ymm_hi, n))
        return INSN_FAULT;
    return mmu_write(c, lin + XSAVE_HEADER, header, i->aux == KIND_XSAVEC ? 16 : 8) ? INSN_FAULT : INSN_NEXT;
}

static int exec_xrstor(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin, rfbm;
    uint8_t area[XSAVE_AVX], avx[256];
    unsigned n = xmm_bytes(c);

    if (xsave_check(c, i, false, &lin, &rfbm) || mmu_read_block(c, lin + XSAVE_HEADER, area + XSAVE_HEADER, 64))
        return INSN_FAULT;
    uint64_t bv = le64_get(area + XSAVE_HEADER), comp = le64_get(area + XSAVE_HEADER + 8);
    bool compact = comp & XCOMP_COMPACT;
    if (compact) {
        if (!vec_cache_allows(c->soft->vec_cache, ZYDIS_ISA_SET_XSAVEC) || comp & ~XCOMP_COMPACT & ~c->xcr0 ||
            bv & ~comp || !all_zero(area + XSAVE_HEADER + 16, 48))
            return exc_raise_code(c, EXC_GP, 0);
        rfbm &= comp;
    } else if (bv & ~c->xcr0 || !all_zero(area + XSAVE_HEADER + 8, 16)) {
        return exc_raise_code(c, EXC_GP, 0);
    }
    if (mmu_read_block(c, lin, area, XSAVE_HEADER))
        return INSN_FAULT;
    uint64_t load = rfbm & bv;
    uint64_t requested = ((uint32_t)c->gpr[RAX] | c->gpr[RDX] << 32) & c->xcr0;
    /* Standard form: MXCSR comes from memory whenever SSE or AVX is asked for. Compacted: only with SSE in use. */
    bool mxcsr = compact ? load & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
    if (mxcsr && le32_get(area + FX_MXCSR) & ~le32_get(c->vec.fx + FX_MXCSR_MASK))
        return exc_raise_code(c, EXC_GP, 0);
    if (load & XCR0_AVX && mmu_read_block(c, lin + XSAVE_AVX, avx, n))
        return INSN_FAULT;

    /* A component asked for but absent from a compacted image is initialised, too. */
    uint64_t init = (compact ? requested : rfbm) & ~load;
    if (load & XCR0_X87) {
        pointers_out(area, i->opsize == 8);
        memcpy(c->vec.fx, area, FX_MXCSR);
        memcpy(c->vec.fx + FX_ST, area + FX_ST, 128);
    } else if (init & XCR0_X87) {
        init_x87(&c->vec);
    }
    if (mxcsr)
        memcpy(c->vec.fx + FX_MXCSR, area + FX_MXCSR, 4);
    else if (compact && init & XCR0_SSE)
        le32_put(c->vec.fx + FX_MXCSR, MXCSR_DEFAULT);
    if (load & XCR0_SSE)
        memcpy(c->vec.fx + FX_XMM, area + FX_XMM, n);
    else if (init & XCR0_SSE)
        memset(c->vec.fx + FX_XMM, 0, n);
    if (load & XCR0_AVX)
        memcpy(c->vec.ymm_hi, avx, n);
    else if (init & XCR0_AVX)
        memset(c->vec.ymm_hi, 0, n);
    if (load & XCR0_X87)
        normalise(c);
    return INSN_NEXT;
}

/* ---- the rest ---- */

static int exec_vzero(struct soft_cpu *c, const struct insn *i)
{
    if (vec_check(c, VEC_AVX))
        return INSN_FAULT;
    unsigned n = xmm_bytes(c);
    memset(c->vec.ymm_hi, 0, n);
    if (i->aux)
        memset(c->vec.fx + FX_XMM, 0, n);
    return INSN_NEXT;
}

static int exec_fwait(struct soft_cpu *c, const struct insn *i)
{
    if ((c->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        return exc_raise(c, EXC_NM);
    return vec_check_pending(c) ? INSN_FAULT : INSN_NEXT;
}

/*
 * Real mode has no selectors: the environment holds linear pointers, split, with the opcode in between. 16-bit form:
 * words FCW, FSW, FTW, IP, IP[19:16]:0:opcode, DP, DP[19:16]:0. 32-bit form: the same fields in dwords, bits 31..16 of
 * a pointer at bit 12 of the next dword.
 */
void vec_env_to_native(struct soft_cpu *c, uint8_t *env, unsigned size)
{
    if (c->mode & MODE_PE)
        return;
    if (size == 14 || size == 94) {
        le16_put(env + 8, 0); /* the 16-bit protected form has no room for the upper bits and the opcode */
        le16_put(env + 12, 0);
    } else {
        uint32_t a = le32_get(env + 16), b = le32_get(env + 24);
        le32_put(env + 12, le16_get(env + 12) | (a >> 12 & 0xffff) << 16);
        le32_put(env + 16, (a & 0x7ff) << 16);
        le32_put(env + 20, le16_get(env + 20) | (b >> 12 & 0xffff) << 16);
        le32_put(env + 24, 0);
    }
}

void vec_env_from_native(struct soft_cpu *c, uint8_t *env, unsigned size)
{
    if (c->mode & MODE_PE)
        return;
    uint32_t ip = le64_get(c->vec.fx + FX_FIP), dp = le64_get(c->vec.fx + FX_FDP);
    uint32_t op = le16_get(c->vec.fx + FX_FOP) & 0x7ff;
    if (size == 14 || size == 94) {
        le16_put(env + 6, ip);
        le16_put(env + 8, (ip >> 16 & 15) << 12 | op);
        le16_put(env + 10, dp);
        le16_put(env + 12, (dp >> 16 & 15) << 12);
    } else {
        le32_put(env + 12, 0xffff0000u | (ip & 0xffff));
        le32_put(env + 16, (ip >> 16) << 12 | op);
        le32_put(env + 20, 0xffff0000u | (dp & 0xffff));
        le32_put(env + 24, (dp >> 16) << 12);
    }
}

bool vec_claim_state(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    i->opsize = z->operand_width == 64 ? 8 : 4;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        i->fn = exec_fxsave;
        return true;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        i->fn = exec_fxrstor;
        return true;
    case ZYDIS_MNEMONIC_LDMXCSR:
        i->aux = VEC_SSE;
        i->fn = exec_ldmxcsr;
        return true;
    case ZYDIS_MNEMONIC_VLDMXCSR:
        i->aux = VEC_AVX;
        i->fn = exec_ldmxcsr;
        return true;
    case ZYDIS_MNEMONIC_STMXCSR:
        i->aux = VEC_SSE;
        i->fn = exec_stmxcsr;
        return true;
    case ZYDIS_MNEMONIC_VSTMXCSR:
        i->aux = VEC_AVX;
        i->fn = exec_stmxcsr;
        return true;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        i->aux = KIND_XSAVE;
        i->fn = exec_xsave;
        return true;
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        i->aux = KIND_XSAVEOPT;
        i->fn = exec_xsave;
        return true;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        i->aux = KIND_XSAVEC;
        i->fn = exec_xsave;
        return true;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        i->fn = exec_xrstor;
        return true;
    case ZYDIS_MNEMONIC_VZEROUPPER:
        i->aux = 0;
        i->fn = exec_vzero;
        return true;
    case ZYDIS_MNEMONIC_VZEROALL:
        i->aux = 1;
        i->fn = exec_vzero;
        return true;
    case ZYDIS_MNEMONIC_FWAIT:
        i->fn = exec_fwait;
        return true;
    default:
        return false;
    }
}
