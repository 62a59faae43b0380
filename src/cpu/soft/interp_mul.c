/* MUL IMUL DIV IDIV and the decimal adjustments. */
#include "cpu/soft/interp.h"

/* One-operand multiplication: RDX:RAX = RAX * src on the host, flags and all. arg: 0 MUL, 1 IMUL. */
#define MUL_WIDE(name, op)                                                                                             \
    static int name(struct soft_cpu *c, const struct insn *i)                                                          \
    {                                                                                                                  \
        uint64_t v, a = c->gpr[RAX], d = 0;                                                                            \
        uint16_t f;                                                                                                    \
        if (rm_load(c, i, i->opsize, &v))                                                                              \
            return INSN_FAULT;                                                                                         \
        switch (i->opsize) {                                                                                           \
        case 1:                                                                                                        \
            __asm__(op "b %b2\n\tmovzwl %%ax, %k1" CC_SAVE : "+a"(a), "=&r"(d) : "r"(v) : "cc");                       \
            f = a;                                                                                                     \
            reg_set(c, RAX, 2, d);                                                                                     \
            break;                                                                                                     \
        case 2:                                                                                                        \
            __asm__(op "w %w3\n\tmovzwl %%ax, %k2" CC_SAVE : "+a"(a), "=&d"(d), "=&r"(v) : "2"(v) : "cc");             \
            f = a;                                                                                                     \
            reg_set(c, RAX, 2, v);                                                                                     \
            reg_set(c, RDX, 2, d);                                                                                     \
            break;                                                                                                     \
        case 4:                                                                                                        \
            __asm__(op "l %k3\n\tmovl %%eax, %k2" CC_SAVE : "+a"(a), "=&d"(d), "=&r"(v) : "2"(v) : "cc");              \
            f = a;                                                                                                     \
            reg_set(c, RAX, 4, v);                                                                                     \
            reg_set(c, RDX, 4, d);                                                                                     \
            break;                                                                                                     \
        default:                                                                                                       \
            __asm__(op "q %3\n\tmovq %%rax, %2" CC_SAVE : "+a"(a), "=&d"(d), "=&r"(v) : "2"(v) : "cc");                \
            f = a;                                                                                                     \
            c->gpr[RAX] = v;                                                                                           \
            c->gpr[RDX] = d;                                                                                           \
        }                                                                                                              \
        c->cc = f;                                                                                                     \
        return INSN_NEXT;                                                                                              \
    }
MUL_WIDE(mul_wide, "mul")
MUL_WIDE(imul_wide, "imul")

/* Two and three operands. */
#define IMUL_REG(n, T, sfx)                                                                                            \
    static int imul_##n(struct soft_cpu *c, const struct insn *i)                                                      \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (rm_load(c, i, n, &v))                                                                                      \
            return INSN_FAULT;                                                                                         \
        T a = v, b = i->aux ? i->imm : reg_get(c, i->reg, n);                                                          \
        uint32_t ax;                                                                                                   \
        __asm__("imul" sfx " %2, %0" CC_SAVE : "+&r"(a), "=&a"(ax) : "r"(b) : "cc");                                   \
        reg_set(c, i->reg, n, a);                                                                                      \
        c->cc = ax;                                                                                                    \
        return INSN_NEXT;                                                                                              \
    }
IMUL_REG(2, uint16_t, "w")
IMUL_REG(4, uint32_t, "l")
IMUL_REG(8, uint64_t, "q")

bool bind_mul(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (i->opcode >= 0xf6) {
        i->fn = arg ? imul_wide : mul_wide;
        return true;
    }
    i->aux = i->opcode != 0xaf;
    i->fn = i->opsize == 8 ? imul_8 : i->opsize == 4 ? imul_4 : imul_2;
    return true;
}

/* The dividend RDX:RAX (AX for bytes); #DE when the quotient does not fit. Flags are left as they are, as Intel's CPUs
 * do. */
static int div_unsigned(struct soft_cpu *c, const struct insn *i)
{
    unsigned n = i->opsize, bits = n * 8;
    uint64_t v;
    if (rm_load(c, i, n, &v))
        return INSN_FAULT;
    if (v == 0)
        return exc_raise(c, EXC_DE);
    if (n == 1) {
        uint64_t a = (uint16_t)c->gpr[RAX];
        if (a / v > 0xff)
            return exc_raise(c, EXC_DE);
        reg_set(c, RAX, 2, (a % v) << 8 | a / v);
        return INSN_NEXT;
    }
    if (n == 8) {
        uint64_t q, r;
        if (c->gpr[RDX] >= v)
            return exc_raise(c, EXC_DE);
        __asm__("divq %4" : "=a"(q), "=d"(r) : "0"(c->gpr[RAX]), "1"(c->gpr[RDX]), "r"(v) : "cc");
        c->gpr[RAX] = q;
        c->gpr[RDX] = r;
        return INSN_NEXT;
    }
    uint64_t a = reg_get(c, RDX, n) << bits | reg_get(c, RAX, n);
    if (a / v >> bits)
        return exc_raise(c, EXC_DE);
    reg_set(c, RAX, n, a / v);
    reg_set(c, RDX, n, a % v);
    return INSN_NEXT;
}

static int div_signed(struct soft_cpu *c, const struct insn *i)
{
    unsigned n = i->opsize, bits = n * 8;
    uint64_t u;
    if (rm_load(c, i, n, &u))
        return INSN_FAULT;
    if (u == 0)
        return exc_raise(c, EXC_DE);
    if (n == 8) {
        __int128 a = (__int128)((unsigned __int128)c->gpr[RDX] << 64 | c->gpr[RAX]);
        int64_t v = (int64_t)u;
        if (v == -1) { /* the minimum has no negative */
            __int128 q = (__int128)-(unsigned __int128)a;
            if (q != (int64_t)q)
                return exc_raise(c, EXC_DE);
            c->gpr[RAX] = (uint64_t)q;
            c->gpr[RDX] = 0;
            return INSN_NEXT;
        }
        __int128 q = a / v;
        if (q != (int64_t)q)
            return exc_raise(c, EXC_DE);
        c->gpr[RAX] = (uint64_t)q;
        c->gpr[RDX] = (uint64_t)(a % v);
        return INSN_NEXT;
    }
    int64_t v = (int64_t)sign_extend(u, n), a;
    if (n == 1)
        a = (int16_t)c->gpr[RAX];
    else
        a = (int64_t)sign_extend(reg_get(c, RDX, n) << bits | reg_get(c, RAX, n), n * 2);
    if (v == -1 && a == INT64_MIN)
        return exc_raise(c, EXC_DE);
    int64_t q = a / v, r = a % v;
    if (q != (int64_t)sign_extend((uint64_t)q, n))
        return exc_raise(c, EXC_DE);
    if (n == 1) {
        reg_set(c, RAX, 2, (uint64_t)(uint8_t)r << 8 | (uint8_t)q);
        return INSN_NEXT;
    }
    reg_set(c, RAX, n, (uint64_t)q);
    reg_set(c, RDX, n, (uint64_t)r);
    return INSN_NEXT;
}

bool bind_div(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = arg ? div_signed : div_unsigned;
    return true;
}

/* SF, ZF and PF of a byte result. */
static void flags_of_byte(struct soft_cpu *c, uint8_t v)
{
    cc_put(c, CC_S, v & 0x80);
    cc_put(c, CC_Z, v == 0);
    cc_put(c, CC_P, !__builtin_parity(v));
}

/* SDM: DAA, DAS. */
static int decimal_add(struct soft_cpu *c, const struct insn *i)
{
    uint8_t al = c->gpr[RAX], old = al;
    bool carry = c->cc & CC_C, cf = false, sub = i->aux;
    if ((al & 15) > 9 || (c->cc & CC_A)) {
        cf = carry || (sub ? al < 6 : al > 0xf9);
        al = sub ? al - 6 : al + 6;
        cc_put(c, CC_A, true);
    } else {
        cc_put(c, CC_A, false);
    }
    if (old > 0x99 || carry) {
        al = sub ? al - 0x60 : al + 0x60;
        cf = true;
    }
    cc_put(c, CC_C, cf);
    cc_put(c, CC_O, false);
    flags_of_byte(c, al);
    reg_set(c, RAX, 1, al);
    return INSN_NEXT;
}

/* SDM: AAA, AAS. */
static int ascii_add(struct soft_cpu *c, const struct insn *i)
{
    uint16_t ax = c->gpr[RAX];
    bool adjust = (ax & 15) > 9 || (c->cc & CC_A);
    if (adjust)
        ax = i->aux ? ax - 0x106 : ax + 0x106;
    ax &= 0xff0f;
    flags_of_byte(c, ax);
    cc_put(c, CC_A | CC_C, adjust);
    cc_put(c, CC_O, false);
    reg_set(c, RAX, 2, ax);
    return INSN_NEXT;
}

static int ascii_mul(struct soft_cpu *c, const struct insn *i)
{
    uint8_t al = c->gpr[RAX], base = i->imm;
    if (base == 0)
        return exc_raise(c, EXC_DE);
    reg_set(c, RAX, 2, (al / base) << 8 | al % base);
    c->cc = 0;
    flags_of_byte(c, al % base);
    return INSN_NEXT;
}

static int ascii_div(struct soft_cpu *c, const struct insn *i)
{
    uint8_t al = c->gpr[RAX] + (c->gpr[RAX] >> 8) * i->imm;
    reg_set(c, RAX, 2, al);
    c->cc = 0;
    flags_of_byte(c, al);
    return INSN_NEXT;
}

/* arg: 0 DAA, 1 DAS, 2 AAA, 3 AAS, 4 AAM, 5 AAD */
bool bind_decimal(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[] = {decimal_add, decimal_add, ascii_add, ascii_add, ascii_mul, ascii_div};
    i->aux = arg & 1;
    i->fn = t[arg];
    return true;
}
