/* Lowering of data movement. Nothing here touches flags but what jit_mem() does. */
#include "cpu/soft/interp.h"
#include "cpu/soft/jit.h"

/* mov h64, imm: the shortest that gives the value. */
static void load_imm(struct jit *j, unsigned h, uint64_t v)
{
    if (v == (uint32_t)v) {
        e_imm32(&j->e, h, (uint32_t)v);
    } else if (v == (uint64_t)(int64_t)(int32_t)v) {
        e_ext(&j->e, 0xc7, 8, 0, op_reg(h));
        e32(&j->e, (uint32_t)v);
    } else {
        e8(&j->e, 0x48 | h >> 3);
        e8(&j->e, 0xb8 | (h & 7));
        e64(&j->e, v);
    }
}

static void imm_of(struct jit *j, unsigned n, uint64_t v)
{
    if (n == 1)
        e8(&j->e, (uint8_t)v);
    else if (n == 2)
        e16(&j->e, (uint16_t)v);
    else
        e32(&j->e, (uint32_t)v);
}

bool jit_mov(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (!(i->flags & INSN_F_MEM)) {
        bool imm = i->opcode >= 0xb0;
        if (imm && n >= 4) {
            unsigned h = jit_dst(j, i->rm, false, JIT_T0);
            load_imm(j, h, n == 4 ? (uint32_t)i->imm : i->imm);
            jit_put(j, i->rm, h);
        } else if (imm) {
            e_ext(&j->e, n == 1 ? 0xc6 : 0xc7, n, 0, jit_greg(i->rm));
            imm_of(j, n, i->imm);
        } else if (n >= 4 && !jit_in_host(i->rm)) { /* all 64 bits of the slot change */
            unsigned h = jit_in_host(i->reg) && n == 8 ? jit_host(i->reg) : JIT_T0;
            if (h == JIT_T0)
                e_op(&j->e, 0x8b, n, h, jit_greg(i->reg));
            jit_put(j, i->rm, h);
        } else if (!jit_in_host(i->rm)) {
            unsigned h = jit_get(j, i->reg, JIT_T0);
            e_op(&j->e, n == 1 ? 0x88 : 0x89, n, h, jit_greg(i->rm));
        } else {
            e_op(&j->e, n == 1 ? 0x8a : 0x8b, n, jit_in_host(i->rm) && i->rm < 16 ? jit_host(i->rm) : i->rm, jit_greg(i->reg));
        }
        return true;
    }
    bool imm = i->mnemonic == ZYDIS_MNEMONIC_MOV && (i->opcode & 0xfe) == 0xc6;
    bool load = i->mnemonic == ZYDIS_MNEMONIC_MOV &&
                ((i->opcode & 0xfe) == 0x8a || (i->opcode & 0xfe) == 0xa0);
    if (!jit_mem_ok(j, i) || (!imm && n == 1 && i->reg >= INSN_HIGH8))
        return false;
    struct opnd m = jit_mem(j, i, n, !load);
    if (imm) {
        e_ext(&j->e, n == 1 ? 0xc6 : 0xc7, n, 0, m);
        imm_of(j, n, i->imm);
    } else if (load) {
        unsigned h = jit_dst(j, i->reg, false, JIT_T0);
        e_op(&j->e, n == 1 ? 0x8a : 0x8b, n, h, m);
        if (!jit_in_host(i->reg) && n < 4)
            e_op(&j->e, n == 1 ? 0x88 : 0x89, n, h, jit_greg(i->reg));
        else
            jit_put(j, i->reg, h);
    } else {
        if (!jit_in_host(i->reg))
            m = jit_mem_narrow(j, m);
        unsigned h = jit_get(j, i->reg, JIT_T1);
        e_op(&j->e, n == 1 ? 0x88 : 0x89, n, h, m);
    }
    return true;
}

/* 0 MOVZX, 1 MOVSX, 2 MOVSXD */
bool jit_movx(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize, from = arg == 2 ? (n == 2 ? 2 : 4) : i->opcode & 1 ? 2 : 1;
    unsigned op = arg == 2 ? 0x63 : OP_0F | i->opcode;
    struct opnd o;
    if (n == 2 && !jit_in_host(i->reg))
        return false;
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        o = jit_mem(j, i, from, false);
    } else {
        if (from == 1 && i->rm >= INSN_HIGH8 && (n == 8 || !jit_in_host(i->reg) || jit_host(i->reg) >= 8))
            return false;
        o = jit_greg(i->rm);
    }
    unsigned h = jit_dst(j, i->reg, false, JIT_T0);
    e_op_sized(&j->e, op, n, h, o, from == 1);
    jit_put(j, i->reg, h);
    return true;
}

bool jit_lea(struct jit *j, const struct insn *i, unsigned arg)
{
    if (!jit_mem_ok(j, i) || (i->opsize == 2 && !jit_in_host(i->reg)))
        return false;
    struct opnd o = jit_address(j, i);
    unsigned h = jit_dst(j, i->reg, false, JIT_T0), n = i->opsize;
    if (i->addrsize == 4 && n == 8)
        n = 4; /* the address has 32 bits */
    e_op(&j->e, 0x8d, n, h, o);
    jit_put(j, i->reg, h);
    return true;
}

bool jit_cmov(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
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
    unsigned h = jit_get(j, i->reg, JIT_T1);
    jit_flags_native(j);
    e_op(&j->e, OP_0F | 0x40 | i->aux, n, h, o);
    jit_put(j, i->reg, h);
    return true;
}

bool jit_setcc(struct jit *j, const struct insn *i, unsigned arg)
{
    struct opnd o;
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        o = jit_mem(j, i, 1, true);
    } else {
        o = jit_greg(i->rm);
    }
    jit_flags_native(j);
    e_op(&j->e, OP_0F | 0x90 | i->aux, 1, 0, o);
    return true;
}

/* With memory it locks by itself. */
bool jit_xchg(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i) || (n == 1 && i->reg >= INSN_HIGH8))
            return false;
        struct opnd m = jit_mem(j, i, n, true);
        if (!jit_in_host(i->reg))
            m = jit_mem_narrow(j, m);
        unsigned h = jit_get(j, i->reg, JIT_T1);
        e_op(&j->e, n == 1 ? 0x86 : 0x87, n, h, m);
        jit_put(j, i->reg, h);
        return true;
    }
    if (!jit_in_host(i->rm) || !jit_in_host(i->reg))
        return false;
    e_op(&j->e, n == 1 ? 0x86 : 0x87, n, i->reg < 16 ? jit_host(i->reg) : i->reg, jit_greg(i->rm));
    return true;
}

bool jit_bswap(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (n == 2)
        return false;
    unsigned h = jit_get(j, i->rm, JIT_T0);
    unsigned rex = (n == 8 ? 0x48 : 0) | (h >= 8 ? 0x41 : 0);
    if (rex)
        e8(&j->e, rex);
    e8(&j->e, 0x0f);
    e8(&j->e, 0xc8 | (h & 7));
    jit_put(j, i->rm, h);
    return true;
}

/* CBW CWDE CDQE CWD CDQ CQO: RAX and RDX are where they were. */
bool jit_convert(struct jit *j, const struct insn *i, unsigned arg)
{
    if (i->opsize == 2)
        e8(&j->e, 0x66);
    if (i->opsize == 8)
        e8(&j->e, 0x48);
    e8(&j->e, i->opcode & 1 ? 0x99 : 0x98);
    return true;
}

bool jit_nop(struct jit *j, const struct insn *i, unsigned arg)
{
    return true;
}
