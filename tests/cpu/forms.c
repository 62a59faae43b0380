/*
 * Enumerates instruction forms from the decoder's tables: every legacy and VEX opcode in every map, with each mandatory
 * prefix, operand size, vector length, ModRM.reg, and register or memory operand, is decoded once; what differs only in
 * register numbers is one form.
 */
#include <stdio.h>
#include <stdlib.h>

#include "oracle.h"

struct list {
    struct form *f;
    unsigned n, cap;
};

/* Instruction sets that the software CPU is to have. Others are undefined there whatever the host says. */
static bool wanted_set(ZydisISASet s)
{
    switch (s) {
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVEOPT:
        return true;
    default:
        return false;
    }
}

static bool host_has(ZydisISASet s)
{
    switch (s) {
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_BMI2:
        return __builtin_cpu_supports("bmi2");
    case ZYDIS_ISA_SET_BMI1:
        return __builtin_cpu_supports("bmi");
    case ZYDIS_ISA_SET_AES:
        return __builtin_cpu_supports("aes");
    case ZYDIS_ISA_SET_PCLMULQDQ:
        return __builtin_cpu_supports("pclmul");
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVXAES:
        return __builtin_cpu_supports("avx");
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_MOVBE:
        return __builtin_cpu_supports("avx2");
    case ZYDIS_ISA_SET_FMA:
        return __builtin_cpu_supports("fma");
    case ZYDIS_ISA_SET_VAES:
        return __builtin_cpu_supports("vaes");
    case ZYDIS_ISA_SET_VPCLMULQDQ:
        return __builtin_cpu_supports("vpclmulqdq");
    case ZYDIS_ISA_SET_SHA:
        return __builtin_cpu_supports("avx512ifma"); /* GCC 12 cannot ask for SHA; every CPU with this one has it */
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return __builtin_cpu_supports("ssse3");
    case ZYDIS_ISA_SET_SSE4:
        return __builtin_cpu_supports("sse4.1");
    case ZYDIS_ISA_SET_SSE42:
        return __builtin_cpu_supports("sse4.2");
    case ZYDIS_ISA_SET_POPCNT:
        return __builtin_cpu_supports("popcnt");
    default:
        return true;
    }
}

bool form_must_fault(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLTS:
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_LMSW:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
        return true;
    case ZYDIS_MNEMONIC_MOV: /* control and debug registers */
        return z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode >= 0x20 && z->opcode <= 0x23;
    default:
        return false;
    }
}

bool form_runnable(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return false;
    if (!wanted_set(z->meta.isa_set) || !host_has(z->meta.isa_set))
        return false;
    if (form_must_fault(z))
        return true;
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SEGOP:
        return false;
    default:
        break;
    }
    if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return false;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_ARPL:
        return z->mnemonic == ZYDIS_MNEMONIC_ARPL;
    default:
        break;
    }
    for (unsigned k = 0; k < z->operand_count; k++)
        if (ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass c = ZydisRegisterGetClass(ops[k].reg.value);
            bool writes = ops[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
            if (c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG || c == ZYDIS_REGCLASS_TEST)
                return false;
            if (c == ZYDIS_REGCLASS_SEGMENT && writes)
                return false;
        }
    return true;
}

static bool same_form(const struct form *a, const struct form *b)
{
    return a->prefix == b->prefix && a->vex == b->vex && a->map == b->map && a->opcode == b->opcode && a->w == b->w &&
           a->l == b->l && a->pp == b->pp && a->mem == b->mem && a->reg_free == b->reg_free &&
           a->rm_free == b->rm_free && (a->reg_free || a->reg == b->reg) && (a->rm_free || a->rm == b->rm) &&
           a->mnemonic == b->mnemonic;
}

static void add(struct list *l, const struct form *f, unsigned since)
{
    for (unsigned k = since; k < l->n; k++)
        if (same_form(&l->f[k], f))
            return;
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 1024;
        l->f = realloc(l->f, l->cap * sizeof *l->f);
        if (!l->f)
            abort();
    }
    l->f[l->n++] = *f;
}

static unsigned sample(const struct form *f, uint8_t *b)
{
    unsigned n = 0;
    if (f->vex) {
        b[n++] = 0xc4;
        b[n++] = 0xe0 | f->map;
        b[n++] = f->w << 7 | 0x78 | f->l << 2 | f->pp;
    } else {
        if (f->prefix)
            b[n++] = f->prefix;
        if (f->w)
            b[n++] = 0x48;
        if (f->map)
            b[n++] = 0x0f;
        if (f->map >= 2)
            b[n++] = f->map == 2 ? 0x38 : 0x3a;
    }
    b[n++] = f->opcode;
    b[n++] = (f->mem ? 0 : 0xc0) | f->reg << 3 | f->rm;
    memset(b + n, 0, 16 - n);
    return n;
}

static void try_form(const ZydisDecoder *d, struct list *l, struct form f, unsigned since)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    sample(&f, f.bytes);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(d, f.bytes, 15, &z, ops))) {
        if (!f.vex || !f.mem)
            return;
        f.rm = 4; /* gathers need an index register; it, vvvv and the destination must differ */
        sample(&f, f.bytes);
        f.bytes[2] ^= 0x08;
        f.bytes[5] = 0x10;
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(d, f.bytes, 15, &z, ops)))
            return;
    }
    if (z.opcode != f.opcode || !form_runnable(&z, ops))
        return;
    f.mnemonic = z.mnemonic;
    f.has_modrm = z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    if (!f.has_modrm) {
        if (f.reg || f.rm || f.mem)
            return;
    } else {
        for (unsigned k = 0; k < z.operand_count; k++) {
            if (ops[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
                f.reg_free = true;
            if (ops[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
                f.rm_free = true;
        }
        if (z.mnemonic == ZYDIS_MNEMONIC_NOP || z.meta.category == ZYDIS_CATEGORY_WIDENOP)
            f.reg_free = f.rm_free = false;
        if (f.mem && f.rm != 0 && !(f.rm == 4 && f.vex))
            return;
    }
    add(l, &f, since);
}

struct form *forms_enumerate(unsigned mode, unsigned *ret_n)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    struct list l = {NULL, 0, 0};
    ZydisDecoder d;
    ZydisDecoderInit(&d, mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                     mode == 64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    for (unsigned vex = 0; vex < 2; vex++)
        for (unsigned map = vex; map < 4; map++)
            for (unsigned op = 0; op < 256; op++) {
                unsigned since = l.n;
                for (unsigned p = 0; p < 4; p++)
                    for (unsigned w = 0; w < (mode == 64 || vex ? 2 : 1); w++)
                        for (unsigned len = 0; len <= vex; len++)
                            for (unsigned m = 0; m < 9 * 8; m++) {
                                struct form f = {.mode = mode, .vex = vex, .map = map, .opcode = op, .w = w, .l = len};
                                f.prefix = vex ? 0 : prefixes[p];
                                f.pp = vex ? p : 0;
                                f.reg = m & 7;
                                f.mem = m / 8 == 8;
                                f.rm = f.mem ? 0 : m / 8;
                                try_form(&d, &l, f, since);
                            }
            }
    *ret_n = l.n;
    return l.f;
}
