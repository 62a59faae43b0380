/*
 * From bytes to struct insn. Zydis parses; the table below says which handlers a mnemonic has; system and vector
 * instructions are claimed by their own files. What nobody claims raises #UD, so the instruction set is exactly what
 * has a handler. Any thread.
 */
#include <pthread.h>

#include "cpu/soft/interp.h"

struct row {
    insn_bind *bind;
    uint8_t arg;
};

/* clang-format off */
#define M(name) [ZYDIS_MNEMONIC_##name]
static const struct row table[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    /* arithmetic and logic */
    M(ADD) = {bind_alu, ALU_ADD}, M(OR) = {bind_alu, ALU_OR}, M(ADC) = {bind_alu, ALU_ADC}, M(SBB) = {bind_alu, ALU_SBB},
    M(AND) = {bind_alu, ALU_AND}, M(SUB) = {bind_alu, ALU_SUB}, M(XOR) = {bind_alu, ALU_XOR}, M(CMP) = {bind_alu, ALU_CMP},
    M(TEST) = {bind_test}, M(INC) = {bind_incdec, 0}, M(DEC) = {bind_incdec, 1}, M(NOT) = {bind_notneg, 0},
    M(NEG) = {bind_notneg, 1}, M(MUL) = {bind_mul, 0}, M(IMUL) = {bind_mul, 1}, M(DIV) = {bind_div, 0}, M(IDIV) = {bind_div, 1},
    M(DAA) = {bind_decimal, 0}, M(DAS) = {bind_decimal, 1}, M(AAA) = {bind_decimal, 2}, M(AAS) = {bind_decimal, 3},
    M(AAM) = {bind_decimal, 4}, M(AAD) = {bind_decimal, 5},
    /* shifts and bits */
    M(ROL) = {bind_shift}, M(ROR) = {bind_shift}, M(RCL) = {bind_shift}, M(RCR) = {bind_shift}, M(SHL) = {bind_shift},
    M(SHR) = {bind_shift}, M(SAR) = {bind_shift}, M(SHLD) = {bind_shiftd, 0}, M(SHRD) = {bind_shiftd, 1},
    M(SARX) = {bind_shiftx, 0}, M(SHLX) = {bind_shiftx, 1}, M(SHRX) = {bind_shiftx, 2}, M(RORX) = {bind_shiftx, 3},
    M(BT) = {bind_bit, 0}, M(BTS) = {bind_bit, 1}, M(BTR) = {bind_bit, 2}, M(BTC) = {bind_bit, 3},
    M(BSF) = {bind_bitscan, 0}, M(BSR) = {bind_bitscan, 1}, M(TZCNT) = {bind_bitscan, 2}, M(LZCNT) = {bind_bitscan, 3},
    M(POPCNT) = {bind_bitscan, 4}, M(ANDN) = {bind_bmi, 0}, M(BEXTR) = {bind_bmi, 1}, M(BZHI) = {bind_bmi, 2},
    M(PDEP) = {bind_bmi, 3}, M(PEXT) = {bind_bmi, 4}, M(BLSI) = {bind_bmi, 5}, M(BLSR) = {bind_bmi, 6}, M(BLSMSK) = {bind_bmi, 7},
    M(MULX) = {bind_bmi, 8}, M(ADCX) = {bind_adx, 0}, M(ADOX) = {bind_adx, 1}, M(CRC32) = {bind_crc},
    /* data movement */
    M(MOV) = {bind_mov}, M(MOVNTI) = {bind_mov}, M(MOVZX) = {bind_movx, 0}, M(MOVSX) = {bind_movx, 1}, M(MOVSXD) = {bind_movx, 2}, M(LEA) = {bind_lea},
    M(XCHG) = {bind_xchg}, M(XADD) = {bind_xadd}, M(CMPXCHG) = {bind_cmpxchg}, M(CMPXCHG8B) = {bind_cmpxchgb, 8},
    M(CMPXCHG16B) = {bind_cmpxchgb, 16}, M(MOVBE) = {bind_movbe}, M(BSWAP) = {bind_bswap}, M(XLAT) = {bind_xlat},
    M(CBW) = {bind_convert}, M(CWDE) = {bind_convert}, M(CDQE) = {bind_convert}, M(CWD) = {bind_convert}, M(CDQ) = {bind_convert},
    M(CQO) = {bind_convert},
    M(CMOVO) = {bind_cmov}, M(CMOVNO) = {bind_cmov}, M(CMOVB) = {bind_cmov}, M(CMOVNB) = {bind_cmov}, M(CMOVZ) = {bind_cmov},
    M(CMOVNZ) = {bind_cmov}, M(CMOVBE) = {bind_cmov}, M(CMOVNBE) = {bind_cmov}, M(CMOVS) = {bind_cmov}, M(CMOVNS) = {bind_cmov},
    M(CMOVP) = {bind_cmov}, M(CMOVNP) = {bind_cmov}, M(CMOVL) = {bind_cmov}, M(CMOVNL) = {bind_cmov}, M(CMOVLE) = {bind_cmov},
    M(CMOVNLE) = {bind_cmov},
    M(SETO) = {bind_setcc}, M(SETNO) = {bind_setcc}, M(SETB) = {bind_setcc}, M(SETNB) = {bind_setcc}, M(SETZ) = {bind_setcc},
    M(SETNZ) = {bind_setcc}, M(SETBE) = {bind_setcc}, M(SETNBE) = {bind_setcc}, M(SETS) = {bind_setcc}, M(SETNS) = {bind_setcc},
    M(SETP) = {bind_setcc}, M(SETNP) = {bind_setcc}, M(SETL) = {bind_setcc}, M(SETNL) = {bind_setcc}, M(SETLE) = {bind_setcc},
    M(SETNLE) = {bind_setcc},
    /* branches */
    M(JO) = {bind_jcc}, M(JNO) = {bind_jcc}, M(JB) = {bind_jcc}, M(JNB) = {bind_jcc}, M(JZ) = {bind_jcc}, M(JNZ) = {bind_jcc},
    M(JBE) = {bind_jcc}, M(JNBE) = {bind_jcc}, M(JS) = {bind_jcc}, M(JNS) = {bind_jcc}, M(JP) = {bind_jcc}, M(JNP) = {bind_jcc},
    M(JL) = {bind_jcc}, M(JNL) = {bind_jcc}, M(JLE) = {bind_jcc}, M(JNLE) = {bind_jcc},
    M(JCXZ) = {bind_jcxz}, M(JECXZ) = {bind_jcxz}, M(JRCXZ) = {bind_jcxz}, M(LOOP) = {bind_loop}, M(LOOPE) = {bind_loop},
    M(LOOPNE) = {bind_loop}, M(JMP) = {bind_jmp}, M(CALL) = {bind_call}, M(RET) = {bind_ret},
    /* stack */
    M(PUSH) = {bind_push}, M(POP) = {bind_pop}, M(PUSHA) = {bind_pusha}, M(PUSHAD) = {bind_pusha}, M(POPA) = {bind_popa},
    M(POPAD) = {bind_popa}, M(PUSHF) = {bind_pushf}, M(PUSHFD) = {bind_pushf}, M(PUSHFQ) = {bind_pushf}, M(POPF) = {bind_popf},
    M(POPFD) = {bind_popf}, M(POPFQ) = {bind_popf}, M(ENTER) = {bind_enter}, M(LEAVE) = {bind_leave},
    /* strings */
    M(MOVSB) = {bind_string, 0}, M(MOVSW) = {bind_string, 0}, M(MOVSD) = {bind_string, 0}, M(MOVSQ) = {bind_string, 0},
    M(STOSB) = {bind_string, 1}, M(STOSW) = {bind_string, 1}, M(STOSD) = {bind_string, 1}, M(STOSQ) = {bind_string, 1},
    M(LODSB) = {bind_string, 2}, M(LODSW) = {bind_string, 2}, M(LODSD) = {bind_string, 2}, M(LODSQ) = {bind_string, 2},
    M(SCASB) = {bind_string, 3}, M(SCASW) = {bind_string, 3}, M(SCASD) = {bind_string, 3}, M(SCASQ) = {bind_string, 3},
    M(CMPSB) = {bind_string, 4}, M(CMPSW) = {bind_string, 4}, M(CMPSD) = {bind_string, 4}, M(CMPSQ) = {bind_string, 4},
    M(INSB) = {bind_stringio, 0}, M(INSW) = {bind_stringio, 0}, M(INSD) = {bind_stringio, 0},
    M(OUTSB) = {bind_stringio, 1}, M(OUTSW) = {bind_stringio, 1}, M(OUTSD) = {bind_stringio, 1},
    /* flags, hints, the rest */
    M(LAHF) = {bind_misc}, M(SAHF) = {bind_misc}, M(CMC) = {bind_misc}, M(CLC) = {bind_misc}, M(STC) = {bind_misc},
    M(CLD) = {bind_misc}, M(STD) = {bind_misc}, M(SALC) = {bind_misc}, M(NOP) = {bind_misc}, M(PAUSE) = {bind_misc},
    M(ENDBR32) = {bind_misc}, M(ENDBR64) = {bind_misc}, M(MFENCE) = {bind_misc}, M(SFENCE) = {bind_misc}, M(LFENCE) = {bind_misc},
    M(PREFETCH) = {bind_misc}, M(PREFETCHNTA) = {bind_misc}, M(PREFETCHT0) = {bind_misc}, M(PREFETCHT1) = {bind_misc},
    M(PREFETCHT2) = {bind_misc}, M(PREFETCHW) = {bind_misc}, M(PREFETCHWT1) = {bind_misc}, M(CLFLUSH) = {bind_misc},
    M(CLFLUSHOPT) = {bind_misc}, M(CLWB) = {bind_misc}, M(RDRAND) = {bind_misc}, M(RDSEED) = {bind_misc}, M(BOUND) = {bind_misc},
};
#undef M
/* clang-format on */

/* The decoders by code size: 16-bit outside and inside protected mode, 32, 64. Set up once, constant afterwards. */
static ZydisDecoder decoders[4];
static pthread_once_t decoders_once = PTHREAD_ONCE_INIT;

static void decoders_init(void)
{
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth stack;
    } kinds[4] = {
        {ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
        {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    };
    for (unsigned k = 0; k < 4; k++) {
        ZydisDecoderInit(&decoders[k], kinds[k].mode, kinds[k].stack);
        /* Not offered: their encodings are the NOPs they were before. */
        ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
}

static const ZydisDecoder *decoder_for(uint32_t mode)
{
    pthread_once(&decoders_once, decoders_init);
    if (mode & MODE_CS64)
        return &decoders[3];
    if (mode & MODE_CS32)
        return &decoders[2];
    return &decoders[mode & MODE_PE ? 1 : 0];
}

/* An instruction of more than 15 bytes. */
static int insn_too_long(struct soft_cpu *c, const struct insn *i)
{
    return exc_raise_code(c, EXC_GP, 0);
}

static void fill_memory16(struct insn *i, const ZydisDecodedInstruction *z)
{
    static const uint8_t base[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
    static const uint8_t index[8] = {RSI, RDI, RSI, RDI, INSN_NOREG, INSN_NOREG, INSN_NOREG, INSN_NOREG};
    unsigned rm = z->raw.modrm.rm;
    if (rm == 6 && z->raw.modrm.mod == 0)
        return; /* displacement only */
    i->base = base[rm];
    i->index = index[rm];
}

static void fill_memory(struct insn *i, const ZydisDecodedInstruction *z, unsigned b, unsigned x)
{
    unsigned mod = z->raw.modrm.mod, rm = z->raw.modrm.rm;
    if (rm == 4) {
        unsigned index = z->raw.sib.index | x << 3;
        if (index != 4) {
            i->index = index;
            i->scale = 1u << z->raw.sib.scale;
        }
        if (!(z->raw.sib.base == 5 && mod == 0))
            i->base = z->raw.sib.base | b << 3;
    } else if (rm == 5 && mod == 0) {
        if (z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64) {
            i->base = INSN_RIP;
            i->disp += i->len;
            i->flags |= INSN_F_RIPREL;
        }
    } else {
        i->base = rm | b << 3;
    }
}

static void fill_segment(struct insn *i, const ZydisDecodedInstruction *z)
{
    i->seg = i->base == RSP || i->base == RBP ? SS : DS;
    uint64_t a = z->attributes;
    if (!(a & ZYDIS_ATTRIB_HAS_SEGMENT))
        return;
    if (a & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
        i->seg = FS;
    else if (a & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
        i->seg = GS;
    else if (z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
        return; /* the others mean nothing there */
    else if (a & ZYDIS_ATTRIB_HAS_SEGMENT_CS)
        i->seg = CS;
    else if (a & ZYDIS_ATTRIB_HAS_SEGMENT_SS)
        i->seg = SS;
    else if (a & ZYDIS_ATTRIB_HAS_SEGMENT_DS)
        i->seg = DS;
    else if (a & ZYDIS_ATTRIB_HAS_SEGMENT_ES)
        i->seg = ES;
}

/* Everything of *i but fn, from the parsed encoding. */
static void fill(struct insn *i, const ZydisDecodedInstruction *z)
{
    unsigned r = 0, x = 0, b = 0;
    memset(i, 0, sizeof *i);
    i->mnemonic = z->mnemonic;
    i->len = z->length;
    i->opsize = z->operand_width / 8;
    i->addrsize = z->address_width / 8;
    i->opcode = z->opcode;
    i->base = i->index = INSN_NOREG;
    i->scale = 1;
    i->disp = z->raw.disp.value;
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) { /* inverted there */
        if (z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64) {
            r = !z->raw.vex.R;
            x = !z->raw.vex.X;
            b = !z->raw.vex.B;
        }
        i->aux = ~z->raw.vex.vvvv & (z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? 15 : 7);
    } else if (z->attributes & ZYDIS_ATTRIB_HAS_REX) {
        r = z->raw.rex.R;
        x = z->raw.rex.X;
        b = z->raw.rex.B;
    }
    if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        i->reg = z->raw.modrm.reg | r << 3;
        if (z->raw.modrm.mod != 3) {
            i->flags |= INSN_F_MEM;
            if (i->addrsize == 2)
                fill_memory16(i, z);
            else
                fill_memory(i, z, b, x);
        } else {
            i->rm = z->raw.modrm.rm | b << 3;
        }
    } else {
        i->rm = (z->opcode & 7) | b << 3;
        if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (z->opcode & 0xfc) == 0xa0)
            i->flags |= INSN_F_MEM; /* MOV with an absolute offset */
    }
    fill_segment(i, z);
    if (i->opsize == 1) {
        i->reg = reg_byte(z, i->reg);
        i->rm = reg_byte(z, i->rm);
    }
    i->imm = z->raw.imm[0].value.u;
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        i->flags |= INSN_F_LOCK;
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        i->flags |= INSN_F_REP;
    if (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        i->flags |= INSN_F_REPNE;
}

static uint8_t flag_bits(uint32_t rflags)
{
    static const uint32_t bit[] = {FLAG_CF, FLAG_PF, FLAG_AF, FLAG_ZF, FLAG_SF, FLAG_OF};
    uint8_t r = 0;
    for (unsigned k = 0; k < ARRAY_SIZE(bit); k++)
        r |= (rflags & bit[k] ? 1u : 0u) << k;
    return r;
}

/* Which status flags it reads and surely writes. `plain`: it does nothing that would show the flags elsewhere. */
static void fill_flags(struct insn *i, const ZydisDecodedInstruction *z, bool plain)
{
    i->flags_read = INSN_FLAGS_ALL;
    i->flags_write = 0;
    if (!plain)
        return;
    const ZydisAccessedFlags *f = z->cpu_flags;
    i->flags_read = f ? flag_bits(f->tested) : 0;
    i->flags_write = f ? flag_bits(f->modified | f->set_0 | f->set_1 | f->undefined) : 0;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: /* a count of 0 leaves all as it is; large counts of narrow operands may */
        if (i->opsize < 4 || !z->raw.imm[0].size || !(i->imm & (i->opsize * 8 - 1)))
            i->flags_write = 0;
        break;
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        i->flags_read = INSN_FLAGS_ALL;
        i->flags_write = 0;
        break;
    case ZYDIS_MNEMONIC_DIV: /* documented as undefined; CPUs of our model leave them */
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_BT: /* change CF only */
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        i->flags_write = z->mnemonic == ZYDIS_MNEMONIC_BT || z->mnemonic == ZYDIS_MNEMONIC_BTS ||
                                 z->mnemonic == ZYDIS_MNEMONIC_BTR || z->mnemonic == ZYDIS_MNEMONIC_BTC
                             ? INSN_FLAG_C
                             : 0;
        break;
    default:
        break;
    }
    if (i->flags & (INSN_F_REP | INSN_F_REPNE))
        i->flags_write = 0;
}

/* Finds the handler; false: nobody knows this instruction. */
static bool bind(struct soft_cpu *c, struct insn *i, const ZydisDecoder *d, ZydisDecoderContext *ctx,
                 const ZydisDecodedInstruction *z, const uint8_t *bytes)
{
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
        z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP)
        return false;
    const struct row *row = &table[z->mnemonic];
    if (row->bind && row->bind(i, z, row->arg)) {
        fill_flags(i, z, true);
        return true;
    }
    fill_flags(i, z, false);
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(d, ctx, z, ops, z->operand_count)))
        return false;
    if (sys_claim(i, z, ops)) {
        i->flags |= INSN_F_SYSTEM;
        switch (z->mnemonic) {
        case ZYDIS_MNEMONIC_CLI:
        case ZYDIS_MNEMONIC_STI:
        case ZYDIS_MNEMONIC_SWAPGS:
        case ZYDIS_MNEMONIC_STAC:
        case ZYDIS_MNEMONIC_CLAC:
        case ZYDIS_MNEMONIC_RDTSC:
        case ZYDIS_MNEMONIC_RDTSCP:
            fill_flags(i, z, true);
            break;
        default:
            break;
        }
        return true;
    }
    if (!vec_claim(c, i, z, ops, bytes))
        return false;
    fill_flags(i, z, true);
    return true;
}

int insn_decode(struct soft_cpu *c, const uint8_t *bytes, unsigned avail, uint32_t mode, struct insn *i)
{
    const ZydisDecoder *d = decoder_for(mode);
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction z;
    ZyanStatus s = ZydisDecoderDecodeInstruction(d, &ctx, bytes, avail, &z);
    if (s == ZYDIS_STATUS_NO_MORE_DATA && avail < ZYDIS_MAX_INSTRUCTION_LENGTH)
        return 0;
    if (ZYAN_SUCCESS(s)) {
        fill(i, &z);
        if (bind(c, i, d, &ctx, &z, bytes))
            return i->len;
    }
    bool too_long = s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || s == ZYDIS_STATUS_NO_MORE_DATA;
    *i = (struct insn){
        .fn = too_long ? insn_too_long : insn_undefined, .len = 1, .base = INSN_NOREG, .index = INSN_NOREG, .scale = 1,
        .flags_read = INSN_FLAGS_ALL};
    return -1;
}
