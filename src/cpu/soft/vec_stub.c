/*
 * The stub cache: host code for vector and x87 instructions, built once for each distinct encoding. Operand registers
 * are renumbered (vec.h), redundant prefixes dropped, so a guest can make only so many of them: opcodes times
 * immediates, 15 MiB in all, well below CACHE_SIZE.
 *
 * The code lies in one memfd mapped twice, writable and executable, never both at once. Stubs are never changed or
 * freed before the cache, so vec_op pointers may be kept. Any thread; insertion and lookup take the lock, once for each
 * decoded instruction.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uthash.h>

#include "base/log.h"
#include "cpu/soft/vec.h"

#define CACHE_SIZE (64 * MIB)
#define STUB_MAX 256

struct stub_key {
    uint8_t bytes[16];
    uint8_t len, rule;
};

struct stub {
    struct stub_key key;
    struct vec_op op;
    UT_hash_handle hh;
};

struct vec_cache {
    pthread_mutex_t lock;
    int fd;
    uint8_t *rw, *rx;
    size_t used;
    struct stub *stubs;
    bool full;
    bool allowed[ZYDIS_ISA_SET_MAX_VALUE + 1];
};

bool vec_cache_allows(const struct vec_cache *v, ZydisISASet set)
{
    return (unsigned)set <= ZYDIS_ISA_SET_MAX_VALUE && v->allowed[set];
}

struct vec_cache *vec_cache_new(const struct cpuid_table *guest)
{
    struct vec_cache *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    pthread_mutex_init(&v->lock, NULL);
    v->rw = v->rx = MAP_FAILED;
    v->fd = memfd_create("lodge-vec", MFD_CLOEXEC);
    if (v->fd < 0 || ftruncate(v->fd, CACHE_SIZE))
        goto fail;
    v->rw = mmap(NULL, CACHE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, v->fd, 0);
    v->rx = mmap(NULL, CACHE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_NORESERVE, v->fd, 0);
    if (v->rw == MAP_FAILED || v->rx == MAP_FAILED)
        goto fail;

    vec_isa_allowed(guest, v->allowed);
    return v;
fail:
    vec_cache_free(v);
    return NULL;
}

void vec_cache_free(struct vec_cache *v)
{
    if (!v)
        return;
    struct stub *s, *tmp;
    HASH_ITER(hh, v->stubs, s, tmp)
    {
        HASH_DEL(v->stubs, s);
        free(s);
    }
    if (v->rw != MAP_FAILED)
        munmap(v->rw, CACHE_SIZE);
    if (v->rx != MAP_FAILED)
        munmap(v->rx, CACHE_SIZE);
    if (v->fd >= 0)
        close(v->fd);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

/* ---- the instruction, rewritten ---- */

struct emit {
    uint8_t *p;
    unsigned n;
};
static void emit_bytes(struct emit *e, const void *b, unsigned n)
{
    memcpy(e->p + e->n, b, n);
    e->n += n;
}
#define EMIT(e, ...) emit_bytes(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
static void emit_disp(struct emit *e, size_t off)
{
    uint32_t d = off;
    emit_bytes(e, &d, 4);
}

static unsigned map_bytes(ZydisOpcodeMap map, uint8_t out[2])
{
    switch (map) {
    case ZYDIS_OPCODE_MAP_0F:
        out[0] = 0x0f;
        return 1;
    case ZYDIS_OPCODE_MAP_0F38:
        out[0] = 0x0f;
        out[1] = 0x38;
        return 2;
    case ZYDIS_OPCODE_MAP_0F3A:
        out[0] = 0x0f;
        out[1] = 0x3a;
        return 2;
    default:
        return 0;
    }
}

static unsigned is_vector(ZydisRegister r)
{
    ZydisRegisterClass k = ZydisRegisterGetClass(r);
    return k == ZYDIS_REGCLASS_XMM || k == ZYDIS_REGCLASS_YMM;
}
static bool is_gpr(ZydisRegister r)
{
    ZydisRegisterClass k = ZydisRegisterGetClass(r);
    return k >= ZYDIS_REGCLASS_GPR8 && k <= ZYDIS_REGCLASS_GPR64;
}

static bool is_fp(const ZydisDecodedInstruction *z)
{
    switch (z->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
        return true;
    default:
        break;
    }
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_CVTPI2PS:
    case ZYDIS_MNEMONIC_CVTPI2PD:
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
        return true;
    default:
        return false;
    }
}

/* Legacy SSE wants 16-byte operands aligned, with these exceptions; VEX only where the mnemonic says aligned or
 * non-temporal. */
static unsigned alignment(const ZydisDecodedInstruction *z, unsigned size)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return 0;
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return size;
    default:
        return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && size == 16 ? 16 : 0;
    }
}

/* What the operands ask for. False: no stub can do it. */
static bool describe(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops, struct vec_op *op,
                     uint8_t number[4])
{
    bool image = op->rule == VEC_X87 || op->rule == VEC_MMX;
    bool vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (vex)
        op->flags |= VEC_F_VEX;
    if (image)
        op->flags |= VEC_F_IMAGE;
    if (op->rule != VEC_X87 && is_fp(z))
        op->flags |= VEC_F_FP;
    for (unsigned k = 0; k < z->operand_count; k++) {
        const ZydisDecodedOperand *o = &ops[k];
        bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ, writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
                return false;
            if (!o->size || o->size > 8 * sizeof((struct vec_frame *)0)->mem)
                return false;
            op->mem_size = o->size / 8;
            op->flags |= (reads ? VEC_F_READ : 0) | (writes ? VEC_F_WRITE : 0);
            op->align = image ? (op->mem_size == 16 ? 16 : 0) : alignment(z, op->mem_size);
            number[VEC_SLOT_RM] = 7;
        } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegister r = o->reg.value;
            if (r == ZYDIS_REGISTER_RFLAGS || r == ZYDIS_REGISTER_EFLAGS || r == ZYDIS_REGISTER_FLAGS) {
                op->flags |= VEC_F_FLAGS_IN | (writes ? VEC_F_FLAGS_OUT : 0);
                continue;
            }
            if (is_gpr(r)) {
                unsigned n = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG  ? VEC_GPR_REG
                             : o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? VEC_GPR_RM
                                                                              : (unsigned)ZydisRegisterGetId(r);
                if (n >= VEC_GPRS)
                    return false;
                op->gin |= BIT(n);
                if (writes)
                    op->gout |= BIT(n);
                if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
                    number[VEC_SLOT_REG] = VEC_GPR_REG;
                else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
                    number[VEC_SLOT_RM] = VEC_GPR_RM;
                else
                    op->gfixed |= BIT(n);
                continue;
            }
            unsigned s;
            switch (o->encoding) {
            case ZYDIS_OPERAND_ENCODING_MODRM_REG:
                s = VEC_SLOT_REG;
                break;
            case ZYDIS_OPERAND_ENCODING_MODRM_RM:
                s = VEC_SLOT_RM;
                break;
            case ZYDIS_OPERAND_ENCODING_NDSNDD:
                s = VEC_SLOT_VVVV;
                break;
            case ZYDIS_OPERAND_ENCODING_IS4:
                s = VEC_SLOT_IS4;
                break;
            default:
                s = VEC_SLOT_XMM0;
                break;
            }
            if (is_vector(r) && !image) {
                if (s)
                    number[s] = s;
                op->in |= BIT(s);
                if (writes)
                    op->out |= BIT(s);
            } else if (image && s && ZydisRegisterGetClass(r) != ZYDIS_REGCLASS_X87) {
                number[s] = ZydisRegisterGetId(r); /* MMX and XMM registers stay what they are */
            }
        }
    }
    return true;
}

/* Instructions whose W is the width of an integer that may also lie in memory. */
static bool is_scalar_int(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_VPEXTRD || m == ZYDIS_MNEMONIC_VPINSRD || m == ZYDIS_MNEMONIC_VCVTSI2SD ||
           m == ZYDIS_MNEMONIC_VCVTSI2SS;
}

/* Writes the instruction with its new operands to `out`; returns its length. */
static unsigned rewrite(const ZydisDecodedInstruction *z, const uint8_t *bytes, const struct vec_op *op,
                        const uint8_t number[4], uint8_t is4, uint8_t out[16])
{
    struct emit e = {out, 0};
    bool mem = op->mem_size;
    bool modrm = z->attributes & ZYDIS_ATTRIB_HAS_MODRM;
    /* REX.W and VEX.W choose the width of a general register only in 64-bit code; stubs are 64-bit code. */
    bool w32 = z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && (op->gin || is_scalar_int(z->mnemonic));
    uint8_t reg = number[VEC_SLOT_REG] != 0xff ? number[VEC_SLOT_REG] : z->raw.modrm.reg;
    uint8_t rm = number[VEC_SLOT_RM] != 0xff ? number[VEC_SLOT_RM] : z->raw.modrm.rm;

    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        uint8_t vvvv = number[VEC_SLOT_VVVV] != 0xff ? number[VEC_SLOT_VVVV] : 0;
        bool w = z->raw.vex.W && !w32;
        EMIT(&e, 0xc4, 0xe0 | z->raw.vex.m_mmmm,
             (w ? 0x80 : 0) | (~vvvv & 15) << 3 | z->raw.vex.L << 2 | z->raw.vex.pp);
        EMIT(&e, z->opcode);
    } else {
        for (unsigned k = 0; k < z->raw.prefix_count; k++)
            if (z->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_MANDATORY)
                EMIT(&e, z->raw.prefixes[k].value);
        if (op->rule == VEC_X87 && op->mem_size > 10 && z->operand_width == 16) /* environment in its 16-bit form */
            EMIT(&e, 0x66);
        uint8_t rex = 0x40 | (z->raw.rex.W && !w32 ? 8 : 0) | (reg >= 8 ? 4 : 0) | (rm >= 8 && !mem ? 1 : 0);
        if (rex != 0x40)
            EMIT(&e, rex);
        uint8_t map[2];
        emit_bytes(&e, map, map_bytes(z->opcode_map, map));
        EMIT(&e, z->opcode);
    }
    if (modrm)
        EMIT(&e, (mem ? 0 : 0xc0) | (reg & 7) << 3 | (rm & 7));
    if (z->raw.imm[0].size || is4 != 0xff) {
        uint8_t imm = bytes[z->length - 1];
        EMIT(&e, is4 != 0xff ? (imm & 0x0f) | is4 << 4 : imm);
    }
    return e.n;
}

/* ---- stubs ---- */

#define OFF_SLOT(s) (offsetof(struct vec_frame, slot) + 32 * (s))
#define OFF_GPR(n) (offsetof(struct vec_frame, gpr) + 8 * (n))

static void emit_slot(struct emit *e, const struct vec_op *op, unsigned s, bool store)
{
    bool vex = op->flags & VEC_F_VEX;
    if (vex)
        EMIT(e, 0xc5, 0xf8, store ? 0x11 : 0x10, 0x87 | s << 3); /* vmovups xmm */
    else
        EMIT(e, 0x0f, store ? 0x11 : 0x10, 0x87 | s << 3); /* movups xmm */
    emit_disp(e, OFF_SLOT(s));
    if (!vex)
        return;
    /* The halves on their own, as C writes and reads them: else the host's store forwarding fails. */
    if (store)
        EMIT(e, 0xc4, 0xe3, 0x7d, 0x19, 0x87 | s << 3); /* vextractf128 [mem], ymm, 1 */
    else
        EMIT(e, 0xc4, 0xe3, 0x05 | (~s & 15) << 3, 0x18, 0x87 | s << 3); /* vinsertf128 ymm, ymm, [mem], 1 */
    emit_disp(e, OFF_SLOT(s) + 16);
    EMIT(e, 1);
}
static void emit_gprs(struct emit *e, unsigned set, bool store)
{
    for (unsigned n = 0; n < VEC_GPRS; n++)
        if (set & BIT(n)) {
            EMIT(e, 0x48, store ? 0x89 : 0x8b, 0x87 | n << 3);
            emit_disp(e, OFF_GPR(n));
        }
}
static void emit_mxcsr(struct emit *e, bool store, size_t off)
{
    EMIT(e, 0x0f, 0xae, 0x87 | (store ? 3 : 2) << 3);
    emit_disp(e, off);
}

/* Writes the stub; returns the offset of the guest's instruction in it. */
static unsigned emit_stub(struct emit *e, const struct vec_op *op, const uint8_t *insn, unsigned len)
{
    bool image = op->flags & VEC_F_IMAGE;
    if (image)
        EMIT(e, 0x48, 0x0f, 0xae, 0x0e); /* fxrstor64 [rsi] */
    for (unsigned s = 0; s < VEC_SLOTS; s++)
        if (op->in & BIT(s))
            emit_slot(e, op, s, false);
    if (op->flags & VEC_F_FP)
        emit_mxcsr(e, false, offsetof(struct vec_frame, mxcsr));
    if (op->flags & VEC_F_FLAGS_IN) {
        EMIT(e, 0xff, 0xb7); /* push [rdi + flags]; popfq */
        emit_disp(e, offsetof(struct vec_frame, flags));
        EMIT(e, 0x9d);
    }
    emit_gprs(e, op->gin, false);

    unsigned at = e->n;
    emit_bytes(e, insn, len);

    if (op->flags & VEC_F_FLAGS_OUT) {
        EMIT(e, 0x9c, 0x8f, 0x87); /* pushfq; pop [rdi + flags] */
        emit_disp(e, offsetof(struct vec_frame, flags));
    }
    emit_gprs(e, op->gout, true);
    if (op->flags & VEC_F_FP)
        emit_mxcsr(e, true, offsetof(struct vec_frame, mxcsr));
    if (op->flags & VEC_F_FP || image) {
        if (image)
            EMIT(e, 0x48, 0x0f, 0xae, 0x02, 0xdb, 0xe3); /* fxsave64 [rdx]; fninit */
        emit_mxcsr(e, false, offsetof(struct vec_frame, host_mxcsr));
    }
    for (unsigned s = 0; s < VEC_SLOTS; s++)
        if (op->out & BIT(s))
            emit_slot(e, op, s, true);
    if (op->flags & VEC_F_VEX)
        EMIT(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    EMIT(e, 0xc3);
    return at;
}

static bool is_quick(const struct vec_op *op)
{
    unsigned slots = BIT(VEC_SLOT_REG) | BIT(VEC_SLOT_RM) | BIT(VEC_SLOT_VVVV);
    return !(op->flags & (VEC_F_IMAGE | VEC_F_FLAGS_IN | VEC_F_FLAGS_OUT | VEC_F_WRITE)) && !op->gin &&
           !(op->in & ~slots) && op->out == BIT(VEC_SLOT_REG);
}

/* One register of the quick form: low half at [reg], upper half VEC_UPPER further. base: RDI, RSI, RDX. */
static void emit_quick_slot(struct emit *e, bool vex, bool wide, unsigned s, unsigned base, bool store)
{
    if (!vex) {
        EMIT(e, 0x0f, store ? 0x11 : 0x10, s << 3 | base);
        return;
    }
    EMIT(e, 0xc5, 0xf8, store ? 0x11 : 0x10, s << 3 | base);
    if (!wide)
        return;
    if (store)
        EMIT(e, 0xc4, 0xe3, 0x7d, 0x19, 0x80 | s << 3 | base);
    else
        EMIT(e, 0xc4, 0xe3, 0x05 | (~s & 15) << 3, 0x18, 0x80 | s << 3 | base);
    emit_disp(e, VEC_UPPER);
    EMIT(e, 1);
}

/* vec_quick: RDI, RSI, RDX the registers, RCX the MXCSRs. */
static void emit_quick(struct emit *e, const struct vec_op *op, const ZydisDecodedInstruction *z, const uint8_t *bytes,
                       const uint8_t number[VEC_SLOTS])
{
    bool vex = op->flags & VEC_F_VEX, wide = vex && z->raw.vex.L;
    uint8_t num[VEC_SLOTS], insn[16];
    memcpy(num, number, sizeof num);
    if (op->mem_size)
        num[VEC_SLOT_RM] = RSI;
    unsigned len = rewrite(z, bytes, op, num, 0xff, insn);

    emit_quick_slot(e, vex, wide, VEC_SLOT_REG, RDI, false);
    if (op->in & BIT(VEC_SLOT_RM))
        emit_quick_slot(e, vex, wide, VEC_SLOT_RM, RSI, false);
    if (op->in & BIT(VEC_SLOT_VVVV))
        emit_quick_slot(e, vex, wide, VEC_SLOT_VVVV, RDX, false);
    if (op->flags & VEC_F_FP)
        EMIT(e, 0x0f, 0xae, 0x11); /* ldmxcsr [rcx] */
    emit_bytes(e, insn, len);
    if (op->flags & VEC_F_FP)
        EMIT(e, 0x0f, 0xae, 0x19, 0x0f, 0xae, 0x51, 4); /* stmxcsr [rcx]; ldmxcsr [rcx + 4] */
    emit_quick_slot(e, vex, vex, VEC_SLOT_REG, RDI, true);
    if (vex)
        EMIT(e, 0xc5, 0xf8, 0x77);
    EMIT(e, 0xc3);
}

const struct vec_op *vec_cache_get(struct vec_cache *v, const ZydisDecodedInstruction *z,
                                   const ZydisDecodedOperand *ops, const uint8_t *bytes, enum vec_rule rule)
{
    struct vec_op op = {.rule = rule};
    uint8_t number[VEC_SLOTS] = {0xff, 0xff, 0xff, 0xff, 0xff};
    struct stub_key key = {.rule = rule};
    struct stub *s;

    if (!describe(z, ops, &op, number))
        return NULL;
    key.len = rewrite(z, bytes, &op, number, number[VEC_SLOT_IS4], key.bytes);
    if (rule == VEC_X87) {
        switch (z->mnemonic) {
        case ZYDIS_MNEMONIC_FNINIT:
        case ZYDIS_MNEMONIC_FNCLEX:
        case ZYDIS_MNEMONIC_FNSTCW:
        case ZYDIS_MNEMONIC_FNSTSW:
        case ZYDIS_MNEMONIC_FNSTENV:
        case ZYDIS_MNEMONIC_FNSAVE:
        case ZYDIS_MNEMONIC_FENI8087_NOP:
        case ZYDIS_MNEMONIC_FDISI8087_NOP:
        case ZYDIS_MNEMONIC_FSETPM287_NOP:
            op.flags |= VEC_F_NO_PENDING;
            break;
        default:
            break;
        }
        op.fop = (key.bytes[key.len - 2] & 7) << 8 | key.bytes[key.len - 1];
    }

    pthread_mutex_lock(&v->lock);
    HASH_FIND(hh, v->stubs, &key, sizeof key, s);
    if (!s) {
        if (v->used + 2 * STUB_MAX > CACHE_SIZE) {
            if (!v->full)
                log_warn("the cache of vector instructions is full; further ones are undefined for the guest");
            v->full = true;
        } else if ((s = calloc(1, sizeof *s))) {
            struct emit e = {v->rw + v->used, 0};
            unsigned at = emit_stub(&e, &op, key.bytes, key.len);
            s->key = key;
            s->op = op;
            s->op.code = (vec_code *)(void *)(v->rx + v->used);
            s->op.insn_at = (uintptr_t)v->rx + v->used + at;
            v->used += ALIGN_UP(e.n, 16u);
            if (is_quick(&op)) {
                e = (struct emit){v->rw + v->used, 0};
                emit_quick(&e, &op, z, bytes, number);
                s->op.quick = (vec_quick *)(void *)(v->rx + v->used);
                v->used += ALIGN_UP(e.n, 16u);
            }
            HASH_ADD(hh, v->stubs, key, sizeof key, s);
        }
    }
    pthread_mutex_unlock(&v->lock);
    return s ? &s->op : NULL;
}
