/* See recode.h. Encodings: SDM 2, chapter 2. */
#include "cpu/soft/recode.h"

#include <string.h>

static bool is_gpr(ZydisRegister r)
{
    ZydisRegisterClass k = ZydisRegisterGetClass(r);
    return k >= ZYDIS_REGCLASS_GPR8 && k <= ZYDIS_REGCLASS_GPR64;
}

static bool is_flags(ZydisRegister r)
{
    return r == ZYDIS_REGISTER_RFLAGS || r == ZYDIS_REGISTER_EFLAGS || r == ZYDIS_REGISTER_FLAGS;
}

/* The whole register's number, -1 for AH, CH, DH, BH. */
static int gpr_number(ZydisRegister r)
{
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return -1;
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
        return r - ZYDIS_REGISTER_SPL + 4;
    return ZydisRegisterGetId(r);
}

static bool recodable(const ZydisDecodedInstruction *z)
{
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return false;
    if (z->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
        return false;
    if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (z->opcode & 0xf8) != 0xd8)
        return false; /* plain integer instructions: not with one byte of opcode */
    if (z->attributes & (ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_IS_PRIVILEGED))
        return false;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_BT: /* a register as bit number reaches beyond the operand */
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_NOP:
        return false;
    default:
        break;
    }
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
        return false;
    default:
        return true;
    }
}

static uint8_t alignment(const ZydisDecodedInstruction *z, unsigned size)
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

bool recode_describe(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops, struct recode_info *ret)
{
    *ret = (struct recode_info){0};
    if (!recodable(z))
        return false;
    for (unsigned k = 0; k < z->operand_count; k++) {
        const ZydisDecodedOperand *o = &ops[k];
        bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ, writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (!reads && !writes)
                return false; /* prefetches and the like do not reach it */
            if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || !o->size ||
                o->size > 256)
                return false;
            ret->mem_size = o->size / 8;
            ret->mem_read = reads;
            ret->mem_write = writes;
            ret->align = alignment(z, ret->mem_size);
            break;
        case ZYDIS_OPERAND_TYPE_REGISTER: {
            ZydisRegister r = o->reg.value;
            if (is_flags(r)) {
                ret->flags_in |= reads;
                ret->flags_out |= writes;
                break;
            }
            if (!is_gpr(r)) {
                ZydisRegisterClass c = ZydisRegisterGetClass(r);
                if (c == ZYDIS_REGCLASS_SEGMENT || c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG ||
                    c == ZYDIS_REGCLASS_IP)
                    return false;
                break;
            }
            int n = gpr_number(r);
            if (n < 0)
                return false;
            bool named = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
                         o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM || o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD;
            bool partial = o->size < 32 || o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE;
            uint16_t bit = (uint16_t)(1u << n);
            if (reads || (writes && partial))
                *(named ? &ret->gpr_in : &ret->fixed_in) |= bit;
            if (writes)
                *(named ? &ret->gpr_out : &ret->fixed_out) |= bit;
            break;
        }
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            break;
        default:
            return false;
        }
    }
    return z->attributes & ZYDIS_ATTRIB_HAS_MODRM || !ret->mem_size;
}

/* A field's new number: a general register's place, any other register as it is. */
static bool field(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops, ZydisOperandEncoding e,
                  const uint8_t gpr[16], unsigned *number, bool *byte)
{
    for (unsigned k = 0; k < z->operand_count; k++) {
        const ZydisDecodedOperand *o = &ops[k];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || o->encoding != e)
            continue;
        if (is_gpr(o->reg.value)) {
            int n = gpr_number(o->reg.value);
            if (n < 0)
                return false;
            *number = gpr[n];
            *byte |= o->size == 8;
        }
        return true;
    }
    return true;
}

static unsigned map_bytes(ZydisOpcodeMap map, uint8_t out[2])
{
    out[0] = 0x0f;
    switch (map) {
    case ZYDIS_OPCODE_MAP_0F:
        return 1;
    case ZYDIS_OPCODE_MAP_0F38:
        out[1] = 0x38;
        return 2;
    case ZYDIS_OPCODE_MAP_0F3A:
        out[1] = 0x3a;
        return 2;
    default:
        return 0;
    }
}

static bool has_gpr(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    for (unsigned k = 0; k < z->operand_count; k++)
        if (ops[k].type == ZYDIS_OPERAND_TYPE_REGISTER && is_gpr(ops[k].reg.value))
            return true;
    return false;
}

/* VEX instructions whose W is the width of an integer that may also lie in memory. */
static bool is_scalar_int(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_VPEXTRD || m == ZYDIS_MNEMONIC_VPINSRD || m == ZYDIS_MNEMONIC_VCVTSI2SD ||
           m == ZYDIS_MNEMONIC_VCVTSI2SS || m == ZYDIS_MNEMONIC_VMOVD;
}

unsigned recode(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops, const uint8_t *bytes,
                const uint8_t gpr[16], unsigned base, unsigned index, uint8_t out[15])
{
    bool modrm = z->attributes & ZYDIS_ATTRIB_HAS_MODRM, mem = modrm && z->raw.modrm.mod != 3, byte = false;
    bool long64 = z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64, vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    unsigned r = 0, b = 0, vvvv = 0, n = 0;
    if (vex) {
        r = long64 && !z->raw.vex.R;
        b = long64 && !z->raw.vex.B;
        vvvv = ~z->raw.vex.vvvv & (long64 ? 15 : 7);
    } else if (z->attributes & ZYDIS_ATTRIB_HAS_REX) {
        r = z->raw.rex.R;
        b = z->raw.rex.B;
    }
    unsigned reg = z->raw.modrm.reg | r << 3, rm = (modrm ? z->raw.modrm.rm : z->opcode & 7u) | b << 3;
    if (!field(z, ops, ZYDIS_OPERAND_ENCODING_MODRM_REG, gpr, &reg, &byte) ||
        !field(z, ops, ZYDIS_OPERAND_ENCODING_NDSNDD, gpr, &vvvv, &byte) ||
        !field(z, ops, ZYDIS_OPERAND_ENCODING_MODRM_RM, gpr, &rm, &byte))
        return 0;
    if (mem)
        rm = base;
    bool x = mem && index != RECODE_NONE && index >= 8;

    if (vex) {
        /* Outside of 64-bit code W says nothing about general registers. */
        if (z->raw.vex.W && !long64 && z->meta.category == ZYDIS_CATEGORY_STTNI)
            return 0; /* the decoder takes W for what it is in 64-bit code */
        bool w = z->raw.vex.W && (long64 || !(has_gpr(z, ops) || is_scalar_int(z->mnemonic)));
        out[n++] = 0xc4;
        out[n++] = (uint8_t)((reg >= 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (rm >= 8 ? 0 : 0x20) | z->raw.vex.m_mmmm);
        out[n++] = (uint8_t)((w ? 0x80 : 0) | (~vvvv & 15) << 3 | z->raw.vex.L << 2 | z->raw.vex.pp);
        out[n++] = z->opcode;
    } else {
        for (unsigned k = 0; k < z->raw.prefix_count; k++) {
            uint8_t p = z->raw.prefixes[k].value;
            if ((p == 0x66 || p == 0xf2 || p == 0xf3) && z->raw.prefixes[k].type != ZYDIS_PREFIX_TYPE_IGNORED) {
                if (n == 3)
                    return 0;
                out[n++] = p;
            }
        }
        uint8_t rex = (uint8_t)(0x40 | (z->raw.rex.W && z->attributes & ZYDIS_ATTRIB_HAS_REX ? 8 : 0) |
                                (reg >= 8 ? 4 : 0) | (x ? 2 : 0) | (rm >= 8 ? 1 : 0));
        if (rex != 0x40 || byte)
            out[n++] = rex;
        n += map_bytes(z->opcode_map, out + n);
        out[n++] = modrm ? z->opcode : (uint8_t)((z->opcode & 0xf8) | (rm & 7));
    }
    if (modrm) {
        if (!mem) {
            out[n++] = (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7));
        } else {
            bool disp = (rm & 7) == 5, sib = (rm & 7) == 4 || index != RECODE_NONE;
            out[n++] = (uint8_t)((disp ? 0x40 : 0) | (reg & 7) << 3 | (sib ? 4 : rm & 7));
            if (sib)
                out[n++] = (uint8_t)((index == RECODE_NONE ? 4 : index & 7) << 3 | (rm & 7));
            if (disp)
                out[n++] = 0;
        }
    }
    for (unsigned k = 0; k < 2; k++) {
        unsigned size = z->raw.imm[k].size / 8;
        if (n + size > 15)
            return 0;
        memcpy(out + n, bytes + z->raw.imm[k].offset, size);
        n += size;
    }
    /* VEX.is4 is no immediate to the decoder. */
    if (vex)
        for (unsigned k = 0; k < z->operand_count; k++)
            if (ops[k].encoding == ZYDIS_OPERAND_ENCODING_IS4 && !z->raw.imm[0].size)
                out[n++] = bytes[z->length - 1];
    return n <= 15 ? n : 0;
}
