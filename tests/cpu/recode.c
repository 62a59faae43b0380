/*
 * Every instruction form that can be recoded, with other registers and another memory operand, decodes to the same
 * instruction with just those replaced.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/recode.h"
#include "oracle.h"

static unsigned done, failed;

static int gpr_of(const ZydisDecodedOperand *o)
{
    ZydisRegisterClass k =
        o->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o->reg.value) : ZYDIS_REGCLASS_INVALID;
    if (k < ZYDIS_REGCLASS_GPR8 || k > ZYDIS_REGCLASS_GPR64)
        return -1;
    if (o->reg.value >= ZYDIS_REGISTER_SPL && o->reg.value <= ZYDIS_REGISTER_R15B)
        return o->reg.value - ZYDIS_REGISTER_SPL + 4;
    return ZydisRegisterGetId(o->reg.value);
}

static bool same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b, const uint8_t gpr[16],
                         unsigned base, unsigned index)
{
    bool flags = a->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(a->reg.value) == ZYDIS_REGCLASS_FLAGS;
    if (a->type != b->type || (a->size != b->size && !flags))
        return false;
    bool named = a->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG || a->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
                 a->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD;
    int n = gpr_of(a);
    switch (a->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (n >= 0)
            return gpr_of(b) == (named ? gpr[n] : n);
        return a->reg.value == b->reg.value || flags;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return b->mem.base == ZYDIS_REGISTER_RAX + (int)base &&
               b->mem.index == (index == RECODE_NONE ? ZYDIS_REGISTER_NONE : ZYDIS_REGISTER_RAX + (int)index) &&
               b->mem.scale <= 1 && b->mem.disp.value == 0 &&
               (b->mem.segment == ZYDIS_REGISTER_DS || b->mem.segment == ZYDIS_REGISTER_SS);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return a->imm.value.u == b->imm.value.u;
    default:
        return false;
    }
}

static void check(unsigned mode, const uint8_t *bytes, unsigned avail, const uint8_t gpr[16], unsigned base,
                  unsigned index)
{
    ZydisDecoder guest, host;
    ZydisDecodedInstruction z, y;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT], p[ZYDIS_MAX_OPERAND_COUNT];
    struct recode_info info;
    uint8_t out[15];
    ZydisDecoderInit(&guest, mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                     mode == 64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&host, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&guest, bytes, avail, &z, o)) || !recode_describe(&z, o, &info))
        return;
    unsigned n = recode(&z, o, bytes, gpr, base, index, out);
    if (!n)
        return;
    done++;
    bool ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&host, out, n, &y, p)) && y.length == n && y.mnemonic == z.mnemonic &&
              y.operand_count == z.operand_count;
    for (unsigned k = 0; ok && k < z.operand_count; k++)
        ok = same_operand(&o[k], &p[k], gpr, base, index);
    if (ok)
        return;
    failed++;
    printf("%s:", ZydisMnemonicGetString(z.mnemonic));
    for (unsigned k = 0; k < z.length; k++)
        printf(" %02x", bytes[k]);
    printf(" (%u-bit) became", mode);
    for (unsigned k = 0; k < n; k++)
        printf(" %02x", out[k]);
    printf("\n");
}

int main(void)
{
    static const uint8_t same[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    static const uint8_t other[16] = {9, 3, 14, 5, 8, 12, 1, 0, 13, 6, 2, 15, 7, 10, 11, 4};
    for (unsigned mode = 64; mode >= 32; mode -= 32) {
        unsigned n;
        struct form *f = forms_enumerate(mode, &n);
        for (unsigned k = 0; k < n; k++) {
            uint8_t bytes[24] = {0};
            memcpy(bytes, f[k].bytes, sizeof f[k].bytes);
            for (unsigned base = 0; base < 16; base++)
                check(mode, bytes, 15, base & 1 ? same : other, base, base % 3 ? RECODE_NONE : base == 15 ? 8 : (base + 5) % 16);
        }
        free(f);
    }
    printf("%u recoded, %u wrong\n", done, failed);
    return failed || done < 10000;
}
