/*
 * Data movement between registers and memory: MOV MOVZX MOVSX MOVSXD LEA XCHG(register) CMOV SETcc MOVBE BSWAP CBW CWD
 * XLAT. The vCPU's thread; contract in insn.h.
 */
#include "cpu/soft/interp.h"

#define BY_SIZE(f)                                                                                                     \
    {                                                                                                                  \
        f##_1, f##_2, f##_4, f##_8                                                                                     \
    }

#define MOV_HANDLERS(n, T, S, sfx)                                                                                     \
    static int mov_rr_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        reg_set(c, i->rm, n, reg_get(c, i->reg, n));                                                                   \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int mov_ri_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        reg_set(c, i->rm, n, i->imm);                                                                                  \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int mov_rm_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(mem_load(c, i, n, &v)))                                                                           \
            return INSN_FAULT;                                                                                         \
        reg_set(c, i->reg, n, v);                                                                                      \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int mov_mr_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        if (unlikely(mem_store(c, i, n, reg_get(c, i->reg, n))))                                                       \
            return INSN_FAULT;                                                                                         \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int mov_mi_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        if (unlikely(mem_store(c, i, n, i->imm)))                                                                      \
            return INSN_FAULT;                                                                                         \
        return INSN_NEXT;                                                                                              \
    }
FOR_SIZES(MOV_HANDLERS)

bool bind_mov(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const rr[] = BY_SIZE(mov_rr), *const ri[] = BY_SIZE(mov_ri), *const rm[] = BY_SIZE(mov_rm),
                          *const mr[] = BY_SIZE(mov_mr), *const mi[] = BY_SIZE(mov_mi);
    unsigned s = size_log(i->opsize);
    bool mem = i->flags & INSN_F_MEM;
    if (z->mnemonic == ZYDIS_MNEMONIC_MOVNTI) {
        i->fn = mr[s];
        return mem;
    }
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    switch (i->opcode) {
    case 0x88:
    case 0x89:
        i->fn = mem ? mr[s] : rr[s];
        return true;
    case 0x8a:
    case 0x8b:
        if (mem) {
            i->fn = rm[s];
        } else { /* destination first */
            uint8_t dst = i->reg;
            i->reg = i->rm;
            i->rm = dst;
            i->fn = rr[s];
        }
        return true;
    case 0xa0: /* moffs: decode.c made it a memory operand */
    case 0xa1:
        i->reg = RAX;
        i->fn = rm[s];
        return true;
    case 0xa2:
    case 0xa3:
        i->reg = RAX;
        i->fn = mr[s];
        return true;
    case 0xc6:
    case 0xc7:
        i->fn = mem ? mi[s] : ri[s];
        return true;
    default:
        if (i->opcode < 0xb0 || i->opcode > 0xbf)
            return false;
        i->fn = ri[s];
        return true;
    }
}

/* MOVZX, MOVSX, MOVSXD: name, destination size, source size, conversion. */
#define MOVX_HANDLERS(name, to, from, conv)                                                                            \
    static int name##_r_##to##from(struct soft_cpu *c, const struct insn *i)                                           \
    {                                                                                                                  \
        reg_set(c, i->reg, to, conv(reg_get(c, i->rm, from)));                                                         \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int name##_m_##to##from(struct soft_cpu *c, const struct insn *i)                                           \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(mem_load(c, i, from, &v)))                                                                        \
            return INSN_FAULT;                                                                                         \
        reg_set(c, i->reg, to, conv(v));                                                                               \
        return INSN_NEXT;                                                                                              \
    }
#define PLAIN(v) (v)
#define SIGNED8(v) ((uint64_t)(int64_t)(int8_t)(v))
#define SIGNED16(v) ((uint64_t)(int64_t)(int16_t)(v))
#define SIGNED32(v) ((uint64_t)(int64_t)(int32_t)(v))
MOVX_HANDLERS(movzx, 2, 1, PLAIN)
MOVX_HANDLERS(movzx, 4, 1, PLAIN)
MOVX_HANDLERS(movzx, 2, 2, PLAIN)
MOVX_HANDLERS(movzx, 4, 2, PLAIN)
MOVX_HANDLERS(movsx, 2, 1, SIGNED8)
MOVX_HANDLERS(movsx, 4, 1, SIGNED8)
MOVX_HANDLERS(movsx, 8, 1, SIGNED8)
MOVX_HANDLERS(movsx, 2, 2, SIGNED16)
MOVX_HANDLERS(movsx, 4, 2, SIGNED16)
MOVX_HANDLERS(movsx, 8, 2, SIGNED16)
MOVX_HANDLERS(movsx, 4, 4, SIGNED32)
MOVX_HANDLERS(movsx, 8, 4, SIGNED32)

/* arg: 0 MOVZX, 1 MOVSX, 2 MOVSXD */
bool bind_movx(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    bool mem = i->flags & INSN_F_MEM;
    unsigned from = arg == 2 ? 4 : i->opcode & 1 ? 2 : 1;
    if (arg == 2 && i->opsize == 2)
        from = 2;
    if (from == 1 && !mem)
        i->rm = reg_byte(z, i->rm);
#define PICK(name, to, fr) (mem ? name##_m_##to##fr : name##_r_##to##fr)
    switch (i->opsize * 16 + from + (arg ? 8 : 0)) {
    case 2 * 16 + 1:
        i->fn = PICK(movzx, 2, 1);
        break;
    case 4 * 16 + 1:
    case 8 * 16 + 1:
        i->fn = PICK(movzx, 4, 1);
        break;
    case 2 * 16 + 2:
        i->fn = PICK(movzx, 2, 2);
        break;
    case 4 * 16 + 2:
    case 8 * 16 + 2:
        i->fn = PICK(movzx, 4, 2);
        break;
    case 2 * 16 + 1 + 8:
        i->fn = PICK(movsx, 2, 1);
        break;
    case 4 * 16 + 1 + 8:
        i->fn = PICK(movsx, 4, 1);
        break;
    case 8 * 16 + 1 + 8:
        i->fn = PICK(movsx, 8, 1);
        break;
    case 2 * 16 + 2 + 8:
        i->fn = PICK(movsx, 2, 2);
        break;
    case 4 * 16 + 2 + 8:
        i->fn = PICK(movsx, 4, 2);
        break;
    case 8 * 16 + 2 + 8:
        i->fn = PICK(movsx, 8, 2);
        break;
    case 4 * 16 + 4 + 8:
        i->fn = PICK(movsx, 4, 4);
        break;
    default:
        i->fn = PICK(movsx, 8, 4);
    }
    return true;
}

static int lea_2(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, i->reg, 2, insn_ea(c, i));
    return INSN_NEXT;
}
static int lea_4(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, i->reg, 4, insn_ea(c, i));
    return INSN_NEXT;
}
static int lea_8(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, i->reg, 8, insn_ea(c, i));
    return INSN_NEXT;
}

bool bind_lea(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (!(i->flags & INSN_F_MEM))
        return false;
    i->fn = i->opsize == 8 ? lea_8 : i->opsize == 4 ? lea_4 : lea_2;
    return true;
}

/* A false CMOVcc still reads its operand, and clears the upper half of a 32-bit destination. */
#define CMOV_HANDLERS(n)                                                                                               \
    static int cmov_r_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        reg_set(c, i->reg, n, reg_get(c, cc_test(c, i->aux) ? i->rm : i->reg, n));                                     \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int cmov_m_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        uint64_t v;                                                                                                    \
        if (unlikely(mem_load(c, i, n, &v)))                                                                           \
            return INSN_FAULT;                                                                                         \
        reg_set(c, i->reg, n, cc_test(c, i->aux) ? v : reg_get(c, i->reg, n));                                         \
        return INSN_NEXT;                                                                                              \
    }
CMOV_HANDLERS(2)
CMOV_HANDLERS(4)
CMOV_HANDLERS(8)

bool bind_cmov(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    bool mem = i->flags & INSN_F_MEM;
    i->aux = i->opcode & 15;
    if (i->opsize == 8)
        i->fn = mem ? cmov_m_8 : cmov_r_8;
    else if (i->opsize == 4)
        i->fn = mem ? cmov_m_4 : cmov_r_4;
    else
        i->fn = mem ? cmov_m_2 : cmov_r_2;
    return true;
}

static int setcc_r(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, i->rm, 1, cc_test(c, i->aux));
    return INSN_NEXT;
}
static int setcc_m(struct soft_cpu *c, const struct insn *i)
{
    if (mem_store(c, i, 1, cc_test(c, i->aux)))
        return INSN_FAULT;
    return INSN_NEXT;
}

bool bind_setcc(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->aux = i->opcode & 15;
    i->fn = i->flags & INSN_F_MEM ? setcc_m : setcc_r;
    return true;
}

static uint64_t byte_swap(uint64_t v, unsigned size)
{
    return size == 8 ? __builtin_bswap64(v) : size == 4 ? __builtin_bswap32(v) : __builtin_bswap16(v);
}

static int movbe_load(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v;
    if (mem_load(c, i, i->opsize, &v))
        return INSN_FAULT;
    reg_set(c, i->reg, i->opsize, byte_swap(v, i->opsize));
    return INSN_NEXT;
}
static int movbe_store(struct soft_cpu *c, const struct insn *i)
{
    if (mem_store(c, i, i->opsize, byte_swap(reg_get(c, i->reg, i->opsize), i->opsize)))
        return INSN_FAULT;
    return INSN_NEXT;
}

bool bind_movbe(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (!(i->flags & INSN_F_MEM))
        return false;
    i->fn = i->opcode & 1 ? movbe_store : movbe_load;
    return true;
}

/* With a 16-bit operand the result is undefined; Intel CPUs clear the register's low half. */
static int bswap_r(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v = i->opsize == 2 ? 0 : byte_swap(c->gpr[i->rm], i->opsize);
    reg_set(c, i->rm, i->opsize, v);
    return INSN_NEXT;
}

bool bind_bswap(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = bswap_r;
    return true;
}

/* CBW CWDE CDQE */
static int extend_acc(struct soft_cpu *c, const struct insn *i)
{
    unsigned half = i->opsize / 2;
    reg_set(c, RAX, i->opsize, sign_extend(reg_get(c, RAX, half), half));
    return INSN_NEXT;
}
/* CWD CDQ CQO */
static int extend_dx(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, RDX, i->opsize, (int64_t)sign_extend(reg_get(c, RAX, i->opsize), i->opsize) < 0 ? ~0ull : 0);
    return INSN_NEXT;
}

bool bind_convert(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = i->opcode & 1 ? extend_dx : extend_acc;
    return true;
}

static int xlat(struct soft_cpu *c, const struct insn *i)
{
    uint64_t ea = c->gpr[RBX] + (uint8_t)c->gpr[RAX], lin, v;
    if (seg_linear(c, i->seg, bits_trunc(ea, i->addrsize), 1, false, &lin) || lin_read(c, lin, 1, &v))
        return INSN_FAULT;
    reg_set(c, RAX, 1, v);
    return INSN_NEXT;
}

bool bind_xlat(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = xlat;
    return true;
}
