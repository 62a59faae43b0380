/* Lowering of shifts, bit tests and counts, BMI. Counts in CL are where the host wants them. */
#include "cpu/soft/interp.h"
#include "cpu/soft/jit.h"

static bool rm_operand(struct jit *j, const struct insn *i, unsigned size, bool write, struct opnd *ret)
{
    if (!(i->flags & INSN_F_MEM)) {
        *ret = jit_greg(i->rm);
        return true;
    }
    if (!jit_mem_ok(j, i))
        return false;
    *ret = jit_mem(j, i, size, write);
    return true;
}

/* ROL ROR RCL RCR SHL SHR SAL SAR; arg: ModRM.reg */
bool jit_shift(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize, wide = n > 1;
    bool by_cl = (i->opcode & 0xfe) == 0xd2;
    struct opnd o;
    unsigned h = 0;
    if (i->flags & INSN_F_MEM) {
        if (!rm_operand(j, i, n, true, &o))
            return false;
    } else {
        h = jit_get(j, i->rm, JIT_T0);
        o = op_reg(h);
    }
    jit_flags_native(j);
    if (by_cl) {
        e_ext(&j->e, 0xd2 | wide, n, arg, o);
    } else if ((i->opcode & 0xfe) == 0xd0) {
        e_ext(&j->e, 0xd0 | wide, n, arg, o);
    } else {
        e_ext(&j->e, 0xc0 | wide, n, arg, o);
        e8(&j->e, (uint8_t)i->imm);
    }
    if (!(i->flags & INSN_F_MEM))
        jit_put(j, i->rm, h);
    return true;
}

/* SHLD, SHRD */
bool jit_shiftd(struct jit *j, const struct insn *i, unsigned arg)
{
    if (i->flags & INSN_F_MEM)
        return false;
    unsigned h = jit_get(j, i->rm, JIT_T0), s = jit_get(j, i->reg, JIT_T1);
    jit_flags_native(j);
    e_op(&j->e, OP_0F | i->opcode, i->opsize, s, op_reg(h));
    if (!(i->opcode & 1))
        e8(&j->e, (uint8_t)i->imm);
    jit_put(j, i->rm, h);
    return true;
}

/* VEX-encoded instructions on general registers. pp: 0 none, 1 66, 2 F3, 3 F2; map: 2 0F38, 3 0F3A. */
static void e_vex(struct jit *j, unsigned map, unsigned pp, unsigned op, unsigned size, unsigned reg, unsigned vvvv, struct opnd o)
{
    if (o.mem && o.gs)
        e8(&j->e, 0x65);
    bool x = o.mem && o.index != HOST_NONE && (o.index & 8);
    bool b = o.mem ? o.base != HOST_NONE && (o.base & 8) : o.reg & 8;
    e8(&j->e, 0xc4);
    e8(&j->e, (reg & 8 ? 0 : 0x80u) | (x ? 0 : 0x40u) | (b ? 0 : 0x20u) | map);
    e8(&j->e, (size == 8 ? 0x80u : 0) | (~vvvv & 15) << 3 | pp);
    e8(&j->e, op);
    e_modrm(&j->e, reg, &o);
}

/* SARX SHLX SHRX; arg: their prefix. RORX: 0. */
bool jit_shiftx(struct jit *j, const struct insn *i, unsigned arg)
{
    struct opnd o;
    unsigned n = i->opsize;
    if (arg && !jit_in_host(i->aux))
        return false;
    if (!rm_operand(j, i, n, false, &o))
        return false;
    unsigned h = jit_dst(j, i->reg, false, JIT_T0);
    if (arg) {
        e_vex(j, 2, arg, 0xf7, n, h, jit_host(i->aux), o);
    } else {
        e_vex(j, 3, 3, 0xf0, n, h, 0, o);
        e8(&j->e, (uint8_t)i->imm);
    }
    jit_put(j, i->reg, h);
    return true;
}

/* With a bit number in a register: the bit lies wherever that says, in units of the operand's size. */
static bool bt_string(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (n < 4 || i->addrsize != 8 || !jit_mem_ok(j, i) || !jit_in_host(i->reg))
        return false;
    jit_flags_clobber(j);
    struct opnd m = jit_address(j, i);
    e_lea(&j->e, JIT_T0, m);
    e_op(&j->e, n == 8 ? 0x8b : 0x63, 8, JIT_T1, jit_greg(i->reg)); /* mov, movsxd */
    e_ext(&j->e, 0xc1, 8, 7, op_reg(JIT_T1));                     /* sar */
    e8(&j->e, n == 8 ? 6 : 5);
    m = op_mem2(JIT_T0, JIT_T1, 0);
    m.scale = n == 8 ? 3 : 2;
    e_lea(&j->e, JIT_T0, m);
    m = jit_mem_narrow(j, jit_linear_mem(j, i->seg, n, arg != 0));
    e_op(&j->e, 0x8b, 4, JIT_T1, jit_greg(i->reg));
    e_alu_imm(&j->e, 4, 4, op_reg(JIT_T1), n * 8 - 1);
    jit_flags_native(j);
    e_op(&j->e, OP_0F | 0xa3 | arg << 3 | (i->flags & INSN_F_LOCK ? OP_LOCK : 0), n, JIT_T1, m);
    return true;
}

/* BT BTS BTR BTC (arg 0..3) */
bool jit_bt(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize, h = 0;
    bool imm = i->opcode == 0xba, mem = i->flags & INSN_F_MEM;
    struct opnd o;
    if (mem) {
        if (!imm)
            return bt_string(j, i, arg);
        if (!rm_operand(j, i, n, arg != 0, &o))
            return false;
    } else {
        h = jit_get(j, i->rm, JIT_T0);
        o = op_reg(h);
    }
    unsigned s = imm ? 0 : jit_get(j, i->reg, JIT_T1);
    jit_flags_native(j);
    if (imm) {
        e_ext(&j->e, OP_0F | 0xba | (i->flags & INSN_F_LOCK ? OP_LOCK : 0), n, 4 + arg, o);
        e8(&j->e, (uint8_t)i->imm);
    } else {
        e_op(&j->e, OP_0F | 0xa3 | arg << 3, n, s, o);
    }
    if (!mem && arg)
        jit_put(j, i->rm, h);
    return true;
}

/* BSF BSR (which leave the destination alone when the source is 0) TZCNT LZCNT POPCNT */
bool jit_scan(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    struct opnd o;
    if (!jit_in_host(i->reg) || !rm_operand(j, i, n, false, &o))
        return false;
    jit_flags_native(j);
    static const unsigned op[] = {OP_0F | 0xbc, OP_0F | 0xbd, OP_F3 | OP_0F | 0xbc, OP_F3 | OP_0F | 0xbd, OP_F3 | OP_0F | 0xb8};
    e_op(&j->e, op[arg], n, jit_host(i->reg), o);
    return true;
}

/* ANDN 0, BEXTR 1, BZHI 2, PDEP 3, PEXT 4, BLSI 5, BLSR 6, BLSMSK 7, MULX 8 */
bool jit_bmi(struct jit *j, const struct insn *i, unsigned arg)
{
    static const struct {
        uint8_t op, pp, ext;
    } t[] = {{0xf2, 0, 0}, {0xf7, 0, 0}, {0xf5, 0, 0}, {0xf5, 3, 0}, {0xf5, 2, 0}, {0xf3, 0, 3}, {0xf3, 0, 1}, {0xf3, 0, 2}, {0xf6, 3, 0}};
    struct opnd o;
    bool group = t[arg].ext;
    if (!jit_in_host(i->aux) || (!group && !jit_in_host(i->reg)) || !rm_operand(j, i, i->opsize, false, &o))
        return false;
    jit_flags_native(j);
    e_vex(j, 2, t[arg].pp, t[arg].op, i->opsize, group ? t[arg].ext : jit_host(i->reg), jit_host(i->aux), o);
    return true;
}
