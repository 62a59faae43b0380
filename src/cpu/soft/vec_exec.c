/*
 * Executing vector and x87 instructions through stubs, and the rules around them: which CR0, CR4 and XCR0 bits forbid
 * them, memory operands, SIMD and x87 exceptions (SDM 1, ch. 8, 11; 3A, 2.5, 13.1). Also vec_claim(), the door from the
 * decoder.
 *
 * Order for one instruction: #UD, #NM, waiting #MF, memory operand read, execution on copies with SIMD exceptions
 * masked, #XM, memory written, then registers: nothing changes before the last thing that can fault.
 */
#include "base/log.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/vec.h"

int vec_check_slow(struct soft_cpu *c, enum vec_rule rule)
{
    switch (rule) {
    case VEC_X87:
        if (c->cr0 & (CR0_EM | CR0_TS))
            return exc_raise(c, EXC_NM);
        return 0;
    case VEC_MMX:
        if (c->cr0 & CR0_EM)
            return exc_raise(c, EXC_UD);
        break;
    case VEC_SSE:
        if (c->cr0 & CR0_EM || !(c->cr4 & CR4_OSFXSR))
            return exc_raise(c, EXC_UD);
        break;
    case VEC_AVX:
        if (!(c->mode & MODE_PE) || !(c->cr4 & CR4_OSXSAVE) || (~c->xcr0 & (XCR0_SSE | XCR0_AVX)))
            return exc_raise(c, EXC_UD);
        break;
    }
    if (c->cr0 & CR0_TS)
        return exc_raise(c, EXC_NM);
    return 0;
}

void vec_fix_status(struct soft_vec *v)
{
    uint16_t fsw = le16_get(v->fx + FX_FSW), fcw = le16_get(v->fx + FX_FCW);
    fsw &= ~0x8080u;
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080u;
    le16_put(v->fx + FX_FSW, fsw);
}

void vec_enter_mmx(struct soft_vec *v)
{
    unsigned top = v->fx[FX_FSW + 1] >> 3 & 7;
    uint8_t st[128];
    for (unsigned k = 0; k < 8; k++)
        memcpy(st + 16 * k, v->fx + FX_ST + 16 * ((k - top) & 7), 16);
    memcpy(v->fx + FX_ST, st, sizeof st);
    v->fx[FX_FSW + 1] &= ~0x38;
    v->fx[FX_FTW] = 0xff;
}

int vec_check_pending(struct soft_cpu *c)
{
    if (!(le16_get(c->vec.fx + FX_FSW) & 0x80))
        return 0;
    if (c->cr0 & CR0_NE)
        return exc_raise(c, EXC_MF);
    /* MS-DOS compatible reporting by IRQ 13 is not wired: behave as with IGNNE# asserted. vec_exec_image sees to the
     * host. */
    return 0;
}

int vec_address(struct soft_cpu *c, const struct insn *i, unsigned size, unsigned align, bool write, uint64_t *ret)
{
    if (seg_linear(c, i->seg, insn_ea(c, i), size, write, ret)) {
        if (align && (insn_ea(c, i) + c->seg[i->seg].base) & (align - 1))
            return exc_raise_code(c, EXC_GP, 0); /* rather than #SS */
        return INSN_FAULT;
    }
    if (__builtin_expect(align && (*ret & (align - 1)), 0))
        return exc_raise_code(c, EXC_GP, 0);
    return 0;
}

MUST_CHECK static inline int operand_read(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size)
{
    switch (size) {
    case 8:
        return mmu_read64(c, lin, buf);
    case 4:
        return mmu_read32(c, lin, buf);
    default:
        return size > 64 ? mmu_read_block(c, lin, buf, size) : mmu_read(c, lin, buf, size);
    }
}
MUST_CHECK static inline int operand_write(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size)
{
    return size > 64 ? mmu_write_block(c, lin, buf, size) : mmu_write(c, lin, buf, size);
}

static inline unsigned slot_number(const struct insn *i, unsigned s)
{
    switch (s) {
    case VEC_SLOT_REG:
        return i->reg;
    case VEC_SLOT_RM:
        return i->rm;
    case VEC_SLOT_VVVV:
        return i->aux;
    case VEC_SLOT_IS4:
        return i->imm;
    default:
        return 0;
    }
}
static inline unsigned gpr_number(const struct insn *i, const struct vec_op *op, unsigned n)
{
    return op->gfixed & BIT(n) ? n : n == VEC_GPR_REG ? i->reg : i->rm;
}

/*
 * SIMD exceptions (SDM 1, 11.5). `flags` is what the masked run raised. Invalid, divide and denormal are found before
 * the operation: when one of them is unmasked the later ones are not reported. Underflow, when unmasked, does not ask
 * for inexactness, which a masked run does: a second one with flush-to-zero tells tiny results. (Precision is what the
 * masked run says: together with an unmasked overflow or underflow it may say inexact where a CPU does not.) True when
 * the instruction must raise #XM; *flags are then those to set.
 */
static bool simd_exception(struct vec_frame *f, const struct vec_op *op, uint32_t mxcsr, uint32_t *flags,
                           const void *fx)
{
    uint32_t unmasked = ~(mxcsr >> 7) & MXCSR_FLAGS;
    if (*flags & unmasked & 7) {
        *flags &= 7;
        return true;
    }
    if (unmasked & BIT(4) && !(*flags & BIT(4)) && !(op->flags & VEC_F_IMAGE)) {
        struct vec_frame again = *f;
        again.mxcsr = (mxcsr & ~MXCSR_FLAGS) | MXCSR_MASKS | MXCSR_FTZ;
        op->code(&again, fx, NULL);
        *flags |= again.mxcsr & BIT(4);
    }
    return *flags & unmasked;
}

static int raise_simd(struct soft_cpu *c, uint32_t mxcsr, uint32_t flags)
{
    le32_put(c->vec.fx + FX_MXCSR, mxcsr | flags);
    return exc_raise(c, c->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

int vec_exec_plain(struct soft_cpu *c, const struct insn *i)
{
    const struct vec_op *op = i->priv;
    struct vec_frame f;
    uint64_t lin = 0;
    bool mem = i->flags & INSN_F_MEM;

    if (vec_check(c, op->rule))
        return INSN_FAULT;
    if (mem && op->flags & VEC_F_READ) {
        if (vec_address(c, i, op->mem_size, op->align, false, &lin) || operand_read(c, lin, f.mem, op->mem_size))
            return INSN_FAULT;
    }
    for (unsigned s = 0; s < VEC_SLOTS; s++)
        if (op->in & BIT(s)) {
            unsigned n = slot_number(i, s);
            memcpy(f.slot[s], vec_xmm(c, n), 16);
            if (op->flags & VEC_F_VEX)
                memcpy(f.slot[s] + 16, c->vec.ymm_hi[n], 16);
        }
    if (op->gin)
        for (unsigned n = 0; n < VEC_GPRS; n++)
            if (op->gin & BIT(n))
                f.gpr[n] = c->gpr[gpr_number(i, op, n)];
    if (op->flags & VEC_F_FLAGS_IN)
        f.flags = flags_status(c) | FLAG_1 | FLAG_IF;
    uint32_t mxcsr = 0, raised = 0;
    if (op->flags & VEC_F_FP) {
        mxcsr = le32_get(c->vec.fx + FX_MXCSR);
        f.mxcsr = (mxcsr & ~MXCSR_FLAGS) | MXCSR_MASKS;
        f.host_mxcsr = MXCSR_DEFAULT;
    }

    struct vec_frame before;
    bool careful = op->flags & VEC_F_FP && (mxcsr & MXCSR_MASKS) != MXCSR_MASKS;
    if (careful)
        before = f;
    op->code(&f, NULL, NULL);

    if (op->flags & VEC_F_FP) {
        raised = f.mxcsr & MXCSR_FLAGS;
        if (careful && simd_exception(&before, op, mxcsr, &raised, NULL))
            return raise_simd(c, mxcsr, raised);
    }
    if (raised & ~mxcsr)
        le32_put(c->vec.fx + FX_MXCSR, mxcsr | raised); /* VCVTPS2PH sets them even when its store then faults */
    if (mem && op->flags & VEC_F_WRITE &&
        (vec_address(c, i, op->mem_size, op->align, true, &lin) || mmu_write(c, lin, f.mem, op->mem_size)))
        return INSN_FAULT;
    for (unsigned s = 0; s < VEC_SLOTS; s++)
        if (op->out & BIT(s)) {
            unsigned n = slot_number(i, s);
            memcpy(vec_xmm(c, n), f.slot[s], 16);
            if (op->flags & VEC_F_VEX)
                memcpy(c->vec.ymm_hi[n], f.slot[s] + 16, 16);
        }
    if (op->gout)
        for (unsigned n = 0; n < VEC_GPRS; n++)
            if (op->gout & BIT(n))
                c->gpr[gpr_number(i, op, n)] = f.gpr[n];
    if (op->flags & VEC_F_FLAGS_OUT)
        flags_set_status(c, f.flags & FLAGS_STATUS);
    return INSN_NEXT;
}

/* The stub's own addresses in the saved pointers are turned into the guest's. */
static void fix_pointers(struct soft_cpu *c, const struct insn *i, const struct vec_op *op, const struct vec_frame *f,
                         uint8_t *fx)
{
    if (le64_get(fx + FX_FIP) == op->insn_at)
        le64_put(fx + FX_FIP, c->rip);
    if (le64_get(fx + FX_FDP) == (uintptr_t)f->mem)
        le64_put(fx + FX_FDP, insn_ea(c, i));
}

int vec_exec_image(struct soft_cpu *c, const struct insn *i)
{
    const struct vec_op *op = i->priv;
    struct vec_frame f;
    uint8_t after[512] __attribute__((aligned(64)));
    uint64_t lin = 0;
    bool mem = i->flags & INSN_F_MEM;
    bool store = mem && op->flags & VEC_F_WRITE;
    uint8_t *fx = c->vec.fx;

    if (vec_check(c, op->rule))
        return INSN_FAULT;
    bool pending = !(op->flags & VEC_F_NO_PENDING) && le16_get(fx + FX_FSW) & 0x80;
    if (pending && vec_check_pending(c))
        return INSN_FAULT;
    if (mem && !store) {
        if (vec_address(c, i, op->mem_size, op->align, false, &lin))
            return INSN_FAULT;
        if (op->flags & VEC_F_READ && operand_read(c, lin, f.mem, op->mem_size))
            return INSN_FAULT;
        if (op->flags & VEC_F_READ && op->mem_size > 10)
            vec_env_to_native(c, f.mem, op->mem_size);
    }
    for (unsigned n = 0; n < VEC_GPRS; n++)
        if (op->gin & BIT(n))
            f.gpr[n] = c->gpr[gpr_number(i, op, n)];
    if (op->flags & VEC_F_FLAGS_IN)
        f.flags = flags_status(c) | FLAG_1 | FLAG_IF;

    uint32_t mxcsr = le32_get(fx + FX_MXCSR), raised = 0;
    uint16_t fcw = le16_get(fx + FX_FCW);
    if (op->flags & VEC_F_FP)
        f.mxcsr = (mxcsr & ~MXCSR_FLAGS) | MXCSR_MASKS;
    f.host_mxcsr = MXCSR_DEFAULT;
    if (pending) { /* CR0.NE is 0: the host, whose NE is 1, must not see it */
        le16_put(fx + FX_FCW, fcw | 0x3f);
        vec_fix_status(&c->vec);
    }
    /* FOP changes only with an unmasked exception: what goes in must differ from what the stub would leave. */
    bool track_fop = op->rule == VEC_X87 && op->mem_size <= 10;
    uint16_t fop = le16_get(fx + FX_FOP);
    if (track_fop)
        le16_put(fx + FX_FOP, op->fop ^ 1);
    op->code(&f, fx, after);
    le16_put(fx + FX_FOP, fop);
    if (track_fop)
        le16_put(after + FX_FOP, le16_get(after + FX_FOP) == (op->fop ^ 1) ? fop
                                 : le16_get(after + FX_FOP) == op->fop     ? i->imm
                                                                           : le16_get(after + FX_FOP));
    if (pending) {
        le16_put(fx + FX_FCW, fcw);
        vec_fix_status(&c->vec);
        if (le16_get(after + FX_FCW) == (fcw | 0x3f))
            le16_put(after + FX_FCW, fcw);
    }

    if (op->flags & VEC_F_FP) {
        raised = f.mxcsr & MXCSR_FLAGS;
        if ((mxcsr & MXCSR_MASKS) != MXCSR_MASKS && simd_exception(&f, op, mxcsr, &raised, fx)) {
            vec_enter_mmx(&c->vec);
            return raise_simd(c, mxcsr, raised);
        }
    }
    le32_put(after + FX_MXCSR, mxcsr | raised);
    if (op->rule == VEC_X87) {
        fix_pointers(c, i, op, &f, after);
        /* An unmasked invalid, overflow or underflow keeps a store from happening (SDM 1, 8.5); the stack is as it was.
         */
        if (store && !(op->flags & VEC_F_NO_PENDING)) {
            uint16_t fresh = le16_get(after + FX_FSW) & ~le16_get(fx + FX_FSW) & ~fcw;
            if (fresh & (BIT(0) | BIT(3) | BIT(4)))
                store = false;
        }
    }
    if (store && op->mem_size > 10)
        vec_env_from_native(c, f.mem, op->mem_size);
    if (store &&
        (vec_address(c, i, op->mem_size, op->align, true, &lin) || operand_write(c, lin, f.mem, op->mem_size))) {
        if (op->rule == VEC_MMX) { /* CPUs have set TOP by then, but not the tags */
            uint8_t ftw = fx[FX_FTW];
            vec_enter_mmx(&c->vec);
            fx[FX_FTW] = ftw;
        }
        return INSN_FAULT;
    }
    memcpy(fx, after, 416);
    if (pending)
        vec_fix_status(&c->vec);
    for (unsigned n = 0; n < VEC_GPRS; n++)
        if (op->gout & BIT(n))
            c->gpr[gpr_number(i, op, n)] = f.gpr[n];
    if (op->flags & VEC_F_FLAGS_OUT)
        flags_set_status(c, f.flags & FLAGS_STATUS);
    return INSN_NEXT;
}

/* ---- decoding ---- */

static bool not_ours(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV:
        return true;
    default:
        return false;
    }
}

static bool uses_mmx(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    if (z->mnemonic == ZYDIS_MNEMONIC_EMMS)
        return true;
    for (unsigned k = 0; k < z->operand_count; k++)
        if (ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(ops[k].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

static bool is_x87(const ZydisDecodedInstruction *z)
{
    return z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->mnemonic == ZYDIS_MNEMONIC_FISTTP; /* counted as SSE3 */
}

static bool memory_operand(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    for (unsigned k = 0; k < z->operand_count; k++)
        if (ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return true;
    return false;
}

bool vec_claim(struct soft_cpu *c, struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
               const uint8_t *bytes)
{
    struct vec_cache *cache = c->soft->vec_cache;
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return false;
    if (!vec_cache_allows(cache, z->meta.isa_set) || not_ours(z->mnemonic))
        return false;
    if (z->meta.isa_set == ZYDIS_ISA_SET_PPRO && z->meta.isa_ext != ZYDIS_ISA_EXT_X87)
        return false;

    for (unsigned k = 0; k < z->operand_count; k++) {
        if (ops[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        uint8_t id = ZydisRegisterGetId(ops[k].reg.value);
        switch (ops[k].encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            i->reg = id;
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            i->rm = id;
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            i->aux = id;
            break;
        case ZYDIS_OPERAND_ENCODING_IS4:
            i->imm = id;
            break;
        default:
            break;
        }
    }
    if (memory_operand(z, ops))
        i->flags |= INSN_F_MEM;
    if (vec_claim_state(i, z, ops) || vec_claim_mask(i, z, ops) || vec_claim_move(i, z, ops))
        return true;

    enum vec_rule rule = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? VEC_AVX
                         : is_x87(z)                                   ? VEC_X87
                         : uses_mmx(z, ops)                            ? VEC_MMX
                                                                       : VEC_SSE;
    const struct vec_op *op = vec_cache_get(cache, z, ops, bytes, rule);
    if (!op)
        return false;
    i->priv = op;
    i->fn = op->flags & VEC_F_IMAGE ? vec_exec_image
            : op->quick             ? vec_quick_handler(op, i->flags & INSN_F_MEM)
                                    : vec_exec_plain;
    if (rule == VEC_X87)
        i->imm = (z->opcode & 7) << 8 | bytes[z->raw.modrm.offset]; /* FOP */
    return true;
}
