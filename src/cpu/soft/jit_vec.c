/*
 * Lowering of SSE, AVX and x87: the guest's instruction itself, with its general registers and its memory operand
 * replaced. Vector and x87 registers are the host's of the same names (vec_live.h); the first such instruction of a
 * block makes sure that they are there.
 */
#include "cpu/soft/interp.h"
#include "cpu/soft/jit.h"
#include "cpu/soft/recode.h"
#include "cpu/soft/vec.h"
#include "cpu/soft/vec_live.h"

#define GS(field) op_gs((int32_t)offsetof(struct soft_cpu, field))

/* The instruction once more, in the decoder's words. */
struct decoded {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    const uint8_t *bytes;
};

static bool decode(struct jit *j, const struct insn *i, struct decoded *d)
{
    ZydisDecoder decoder;
    bool long64 = j->b->mode & MODE_CS64, wide = j->b->mode & MODE_CS32;
    if (!long64 && !wide)
        return false;
    ZydisDecoderInit(&decoder, long64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                     long64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    d->bytes = (const uint8_t *)&j->b->insn[j->b->n + 1] + (j->off - (int32_t)(j->b->gpa & (PAGE_SIZE - 1)));
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, d->bytes, i->len, &d->z, d->ops)) && d->z.length == i->len;
}

static bool is_mxcsr(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_LDMXCSR || m == ZYDIS_MNEMONIC_VLDMXCSR || m == ZYDIS_MNEMONIC_STMXCSR ||
           m == ZYDIS_MNEMONIC_VSTMXCSR;
}

/* Instructions of the kinds below whose memory operand is more than that. */
static bool excluded(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_VMASKMOVPS: /* what is masked away may lie anywhere */
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return true;
    default:
        return false;
    }
}

/* *ret_want: LIVE_* that it works on, 0 for one that only needs to be recoded. False: it is not for this file. */
static bool wants(struct jit *j, const struct decoded *d, unsigned *ret_want)
{
    const ZydisDecodedInstruction *z = &d->z;
    *ret_want = 0;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVBE:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
        return true;
    default:
        break;
    }
    if (excluded(z->mnemonic) || !vec_cache_allows(j->c->soft->vec_cache, z->meta.isa_set))
        return false;
    bool vector = false;
    for (unsigned k = 0; k < z->operand_count; k++) {
        if (d->ops[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass c = ZydisRegisterGetClass(d->ops[k].reg.value);
        if (c == ZYDIS_REGCLASS_MMX)
            return false;
        vector |= c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM;
    }
    if (z->meta.isa_ext == ZYDIS_ISA_EXT_X87 || z->mnemonic == ZYDIS_MNEMONIC_FISTTP)
        *ret_want = LIVE_X87;
    else if (vector || z->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || z->mnemonic == ZYDIS_MNEMONIC_VZEROALL ||
             is_mxcsr(z->mnemonic))
        *ret_want = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? LIVE_AVX : LIVE_SSE;
    return *ret_want;
}

/* Makes sure of `want`, once a block: C calls bring back what they took away, or do not come back. */
static void ensure(struct jit *j, unsigned want)
{
    want &= ~(unsigned)j->vec_live;
    if (!want)
        return;
    unsigned bits = want & LIVE_X87 ? LIVE_X87 : 0;
    if (want & ~(unsigned)LIVE_X87)
        bits |= want & LIVE_AVX ? LIVE_AVX : LIVE_SSE;
    jit_flags_clobber(j);
    e_ext(&j->e, 0xf6, 1, 0, GS(vec_live)); /* test */
    e8(&j->e, bits);
    jit_slow_live(j, e_jcc(&j->e, CC_COND_Z), bits);
    if (want & LIVE_X87) { /* whose page the x87 instruction pointer is in */
        e_load(&j->e, JIT_T0, GS(jit.code_base));
        e_store(&j->e, GS(jit.x87_base), JIT_T0);
    }
    j->vec_live |= (uint8_t)(want & LIVE_AVX ? want | LIVE_SSE : want);
}

/* Places for the guest's registers that live in struct soft_cpu. False: there are not enough. */
static bool place(const struct recode_info *info, uint8_t map[16])
{
    uint16_t used = info->gpr_in | info->gpr_out, fixed = info->fixed_in | info->fixed_out;
    unsigned t = info->mem_size ? JIT_T1 : JIT_T0; /* the memory operand keeps JIT_T0 */
    for (unsigned n = 0; n < 16; n++) {
        if (fixed & BIT(n) && (n == RSP || !jit_in_host(n)))
            return false;
        if (jit_in_host(n)) {
            map[n] = (uint8_t)jit_host(n);
        } else if (used & BIT(n)) {
            if (t != JIT_T0 && t != JIT_T1)
                return false;
            map[n] = (uint8_t)t;
            t = t == JIT_T0 ? JIT_T1 : HOST_NONE;
        }
    }
    return true;
}

/* LDMXCSR and FLDCW of a value that keeps everything masked; any other is the handler's. The value is read once. */
static bool load_control(struct jit *j, const struct insn *i, unsigned want)
{
    struct emit *e = &j->e;
    if (!jit_mem_ok(j, i))
        return false;
    ensure(j, want);
    struct opnd m = jit_mem(j, i, want & LIVE_X87 ? 2 : 4, false);
    if (want & LIVE_X87)
        e_op(e, OP_0F | 0xb7, 4, JIT_T0, m); /* movzx */
    else
        e_op(e, 0x8b, 4, JIT_T0, m);
    e_op(e, 0x89, 4, JIT_T0, GS(jit.tmp));
    e_ext(e, 0xf7, 4, 2, op_reg(JIT_T0)); /* not */
    e_alu_imm(e, 4, 4, op_reg(JIT_T0), want & LIVE_X87 ? 0x3f : MXCSR_MASKS);
    jit_slow_if(j, CC_COND_NZ, true);
    if (want & LIVE_X87) {
        e_ext(e, 0xd9, 4, 5, GS(jit.tmp));
        return true;
    }
    e_op(e, 0x8b, 4, JIT_T0, GS(jit.tmp)); /* reserved bits: #GP */
    e_ext(e, 0xc1, 4, 5, op_reg(JIT_T0));
    e8(e, 16);
    jit_slow_if(j, CC_COND_NZ, true);
    e_ext(e, OP_0F | 0xae, 4, 2, GS(jit.tmp));
    return true;
}

bool jit_vec(struct jit *j, const struct insn *i, unsigned arg)
{
    struct decoded d;
    struct recode_info info;
    uint8_t map[16] = {0}, out[15];
    if (!j->c->jit_cache->vec || !decode(j, i, &d))
        return false;
    unsigned want;
    if (!wants(j, &d, &want))
        return false;
    if (d.z.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || d.z.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR ||
        d.z.mnemonic == ZYDIS_MNEMONIC_FLDCW)
        return load_control(j, i, want);
    if (!recode_describe(&d.z, d.ops, &info) || info.mem_size > 32 || (info.mem_read && info.mem_write) ||
        !place(&info, map))
        return false;
    if (info.mem_size && !jit_mem_ok(j, i))
        return false;
    uint16_t used = info.gpr_in | info.gpr_out;
    bool narrow = used & 0xe000; /* a temporary for one of those in struct soft_cpu */
    if (!recode(&d.z, d.ops, d.bytes, map, JIT_T0, narrow ? RECODE_NONE : JIT_T1, out))
        return false;

    ensure(j, want);
    if (info.mem_size) {
        jit_mem(j, i, info.mem_size, info.mem_write);
        if (info.align) {                             /* JIT_T0 is the offset in its page */
            e_ext(&j->e, 0xf6, 1, 0, op_reg(JIT_T0)); /* test */
            e8(&j->e, info.align - 1u);
            jit_slow_if(j, CC_COND_NZ, true);
        }
        if (narrow)
            e_op(&j->e, 0x03, 8, JIT_T0, op_reg(JIT_T1));
    }
    for (unsigned n = 13; n < 16; n++)
        if (info.gpr_in & BIT(n))
            jit_get(j, n, map[n]);
    if (info.flags_in || info.flags_out)
        jit_flags_native(j);
    if (want & LIVE_X87)
        jit_x87_note(j);
    e_bytes(&j->e, out, recode(&d.z, d.ops, d.bytes, map, JIT_T0, narrow ? RECODE_NONE : JIT_T1, out));
    for (unsigned n = 13; n < 16; n++)
        if (info.gpr_out & BIT(n))
            jit_put(j, n, map[n]);
    return true;
}
