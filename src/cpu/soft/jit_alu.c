/* Lowering of arithmetic and logic: the guest's instruction on host registers and host memory. */
#include "cpu/soft/interp.h"
#include "cpu/soft/jit.h"

/* Byte registers that no REX may be beside: nothing that lies elsewhere than the guest thinks. */
static bool high8(unsigned n, unsigned size)
{
    return size == 1 && n >= INSN_HIGH8;
}

/* opcode of "op r/m, reg" for arithmetic `arg`: +1 for wide, +2 for "op reg, r/m" */
static unsigned alu_op(unsigned arg, unsigned size, bool to_reg)
{
    return arg << 3 | (to_reg ? 2 : 0) | (size > 1);
}

/* Two registers: d op= s. The result goes back to d unless only flags are wanted. */
static void reg_reg(struct jit *j, unsigned op_to_reg, unsigned size, unsigned d, unsigned s, bool store)
{
    unsigned h = jit_get(j, d, JIT_T0);
    jit_flags_native(j);
    e_op(&j->e, op_to_reg, size, h, jit_greg(s));
    if (store)
        jit_put(j, d, h);
}

bool jit_alu(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    bool mem = i->flags & INSN_F_MEM, imm = i->opcode >= 0x80 || (i->opcode & 7) >= 4;
    bool store = arg != ALU_CMP;
    if (!mem) {
        if (imm) {
            unsigned h = jit_get(j, i->rm, JIT_T0);
            jit_flags_native(j);
            e_alu_imm(&j->e, arg, n, op_reg(h), (int32_t)i->imm);
            if (store)
                jit_put(j, i->rm, h);
            return true;
        }
        reg_reg(j, alu_op(arg, n, true), n, i->rm, i->reg, store);
        return true;
    }
    if (!jit_mem_ok(j, i) || (!imm && high8(i->reg, n)))
        return false;
    bool to_reg = !imm && (i->opcode & 2), lock = i->flags & INSN_F_LOCK;
    struct opnd m = jit_mem(j, i, n, store && !to_reg);
    unsigned op = (lock ? OP_LOCK : 0);
    if (imm) {
        jit_flags_native(j);
        if (n == 1)
            op |= 0x80;
        else
            op |= i->imm == (uint64_t)(int64_t)(int8_t)i->imm ? 0x83 : 0x81;
        e_ext(&j->e, op, n, arg, m);
        if ((op & 0xff) != 0x81)
            e8(&j->e, (uint8_t)i->imm);
        else if (n == 2)
            e16(&j->e, (uint16_t)i->imm);
        else
            e32(&j->e, (uint32_t)i->imm);
        return true;
    }
    unsigned h;
    if (jit_in_host(i->reg)) {
        h = jit_host(i->reg);
    } else {
        m = jit_mem_narrow(j, m);
        h = jit_get(j, i->reg, JIT_T1);
    }
    jit_flags_native(j);
    e_op(&j->e, op | alu_op(arg, n, to_reg), n, h, m);
    if (to_reg && store)
        jit_put(j, i->reg, h);
    return true;
}

bool jit_test(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    bool mem = i->flags & INSN_F_MEM, imm = i->opcode >= 0xf6 || i->opcode >= 0xa8;
    struct opnd o;
    if (mem) {
        if (!jit_mem_ok(j, i) || (!imm && high8(i->reg, n)))
            return false;
        o = jit_mem(j, i, n, false);
        if (!imm && !jit_in_host(i->reg))
            o = jit_mem_narrow(j, o);
    } else {
        o = jit_greg(i->rm);
    }
    unsigned h = imm ? 0 : jit_get(j, i->reg, JIT_T1);
    jit_flags_native(j);
    if (imm) {
        e_ext(&j->e, n == 1 ? 0xf6 : 0xf7, n, 0, o);
        if (n == 1)
            e8(&j->e, (uint8_t)i->imm);
        else if (n == 2)
            e16(&j->e, (uint16_t)i->imm);
        else
            e32(&j->e, (uint32_t)i->imm);
    } else {
        e_op(&j->e, n == 1 ? 0x84 : 0x85, n, h, o);
    }
    return true;
}

static bool unary(struct jit *j, const struct insn *i, unsigned op, unsigned ext)
{
    unsigned n = i->opsize;
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        struct opnd m = jit_mem(j, i, n, true);
        jit_flags_native(j);
        e_ext(&j->e, op | (n > 1) | (i->flags & INSN_F_LOCK ? OP_LOCK : 0), n, ext, m);
        return true;
    }
    unsigned h = jit_get(j, i->rm, JIT_T0);
    jit_flags_native(j);
    e_ext(&j->e, op | (n > 1), n, ext, op_reg(h));
    jit_put(j, i->rm, h);
    return true;
}

bool jit_incdec(struct jit *j, const struct insn *i, unsigned arg)
{
    return unary(j, i, 0xfe, arg);
}

/* 0 NOT, which leaves flags alone; 1 NEG */
bool jit_notneg(struct jit *j, const struct insn *i, unsigned arg)
{
    if (arg)
        return unary(j, i, 0xf6, 3);
    unsigned n = i->opsize;
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        e_ext(&j->e, 0xf6 | (n > 1) | (i->flags & INSN_F_LOCK ? OP_LOCK : 0), n, 2, jit_mem(j, i, n, true));
        return true;
    }
    unsigned h = jit_get(j, i->rm, JIT_T0);
    e_ext(&j->e, 0xf6 | (n > 1), n, 2, op_reg(h));
    jit_put(j, i->rm, h);
    return true;
}

/* One operand: the product goes to RDX:RAX, which are where the host wants them. */
bool jit_mul(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize, op = n == 1 ? 0xf6 : 0xf7;
    struct opnd o;
    if (arg && i->opcode < 0xf6)
        return jit_imul(j, i, arg);
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        o = jit_mem(j, i, n, false);
    } else {
        o = jit_greg(i->rm);
    }
    jit_flags_native(j);
    e_ext(&j->e, op, n, arg ? 5 : 4, o);
    return true;
}

bool jit_imul(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    bool imm = i->opcode != 0xaf;
    struct opnd o;
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        o = jit_mem(j, i, n, false);
        if (!jit_in_host(i->reg))
            o = jit_mem_narrow(j, o);
    } else {
        o = jit_greg(i->rm);
    }
    unsigned h = jit_dst(j, i->reg, !imm || n == 2, JIT_T1);
    jit_flags_native(j);
    if (!imm) {
        e_op(&j->e, OP_0F | 0xaf, n, h, o);
    } else {
        e_op(&j->e, 0x69, n, h, o);
        if (n == 2)
            e16(&j->e, (uint16_t)i->imm);
        else
            e32(&j->e, (uint32_t)i->imm);
    }
    jit_put(j, i->reg, h);
    return true;
}
