/*
 * ROL ROR RCL RCR SHL SHR SAR, SHLD SHRD, and BMI2's flagless RORX SARX SHLX SHRX. The host executes the very operation
 * with the guest's flags loaded, so that a count of 0 and the undefined flags are as on hardware.
 */
#include "cpu/soft/interp.h"

#define BY_SIZE(f)                                                                                                     \
    {                                                                                                                  \
        f##_1, f##_2, f##_4, f##_8                                                                                     \
    }

#define SHIFT_OP(n, T, S, sfx, op)                                                                                     \
    INLINE T op##_##n(T a, uint8_t count, uint16_t *cc)                                                                \
    {                                                                                                                  \
        uint32_t ax = *cc;                                                                                             \
        __asm__(CC_RESTORE #op sfx " %%cl, %0" CC_SAVE : "+&r"(a), "+&a"(ax) : "c"(count) : "cc");                     \
        *cc = ax;                                                                                                      \
        return a;                                                                                                      \
    }                                                                                                                  \
    static int op##_r_i_##n(struct soft_cpu *c, const struct insn *i)                                                  \
    {                                                                                                                  \
        reg_set(c, i->rm, n, op##_##n(reg_get(c, i->rm, n), i->imm, &c->cc));                                          \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_r_c_##n(struct soft_cpu *c, const struct insn *i)                                                  \
    {                                                                                                                  \
        reg_set(c, i->rm, n, op##_##n(reg_get(c, i->rm, n), c->gpr[RCX], &c->cc));                                     \
        return INSN_NEXT;                                                                                              \
    }                                                                                                                  \
    static int op##_m_##n(struct soft_cpu *c, const struct insn *i)                                                    \
    {                                                                                                                  \
        struct rmw m;                                                                                                  \
        uint64_t v;                                                                                                    \
        if (rmw_load(c, i, n, &m, &v))                                                                                 \
            return INSN_FAULT;                                                                                         \
        uint16_t cc = c->cc;                                                                                           \
        if (rmw_store(c, n, &m, op##_##n(v, i->aux ? c->gpr[RCX] : i->imm, &cc)))                                      \
            return INSN_FAULT;                                                                                         \
        c->cc = cc;                                                                                                    \
        return INSN_NEXT;                                                                                              \
    }
FOR_SIZES(SHIFT_OP, rol)
FOR_SIZES(SHIFT_OP, ror)
FOR_SIZES(SHIFT_OP, rcl)
FOR_SIZES(SHIFT_OP, rcr)
FOR_SIZES(SHIFT_OP, shl)
FOR_SIZES(SHIFT_OP, shr)
FOR_SIZES(SHIFT_OP, sar)

bool bind_shift(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
#define SHIFT_TABLE(op)                                                                                                \
    {                                                                                                                  \
        BY_SIZE(op##_r_i), BY_SIZE(op##_r_c), BY_SIZE(op##_m)                                                          \
    }
    static insn_fn *const t[8][3][4] = {
        SHIFT_TABLE(rol), SHIFT_TABLE(ror), SHIFT_TABLE(rcl), SHIFT_TABLE(rcr),
        SHIFT_TABLE(shl), SHIFT_TABLE(shr), SHIFT_TABLE(shl), SHIFT_TABLE(sar),
    };
    i->aux = (i->opcode & 0xfe) == 0xd2; /* by CL */
    if ((i->opcode & 0xfe) == 0xd0)
        i->imm = 1;
    i->fn = t[z->raw.modrm.reg & 7][i->flags & INSN_F_MEM ? 2 : i->aux][size_log(i->opsize)];
    return true;
}

#define SHIFTD_OP(n, T, S, sfx, op)                                                                                    \
    case n: {                                                                                                          \
        T d = v, s = reg_get(c, i->reg, n);                                                                            \
        __asm__(CC_RESTORE #op sfx " %%cl, %2, %0" CC_SAVE : "+&r"(d), "+&a"(ax) : "r"(s), "c"(count) : "cc");         \
        v = d;                                                                                                         \
        break;                                                                                                         \
    }
/* aux: bit 0 count in CL, bit 1 SHRD. */
static uint64_t shiftd_value(struct soft_cpu *c, const struct insn *i, uint64_t v, uint16_t *cc)
{
    uint32_t ax = *cc;
    uint8_t count = i->aux & 1 ? c->gpr[RCX] : i->imm;
    if (i->aux & 2) {
        switch (i->opsize) {
            SHIFTD_OP(2, uint16_t, int16_t, "w", shrd)
            SHIFTD_OP(4, uint32_t, int32_t, "l", shrd)
            SHIFTD_OP(8, uint64_t, int64_t, "q", shrd)
        }
    } else {
        switch (i->opsize) {
            SHIFTD_OP(2, uint16_t, int16_t, "w", shld)
            SHIFTD_OP(4, uint32_t, int32_t, "l", shld)
            SHIFTD_OP(8, uint64_t, int64_t, "q", shld)
        }
    }
    *cc = ax;
    return v;
}

static int shiftd_r(struct soft_cpu *c, const struct insn *i)
{
    reg_set(c, i->rm, i->opsize, shiftd_value(c, i, reg_get(c, i->rm, i->opsize), &c->cc));
    return INSN_NEXT;
}
static int shiftd_m(struct soft_cpu *c, const struct insn *i)
{
    struct rmw m;
    uint64_t v;
    uint16_t cc = c->cc;
    if (rmw_load(c, i, i->opsize, &m, &v) || rmw_store(c, i->opsize, &m, shiftd_value(c, i, v, &cc)))
        return INSN_FAULT;
    c->cc = cc;
    return INSN_NEXT;
}

bool bind_shiftd(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->aux = (i->opcode & 1) | arg << 1;
    i->fn = i->flags & INSN_F_MEM ? shiftd_m : shiftd_r;
    return true;
}

enum { SHIFTX_SAR, SHIFTX_SHL, SHIFTX_SHR, SHIFTX_ROR };

/* aux: the count's register; priv: which. */
INLINE int shiftx(struct soft_cpu *c, const struct insn *i, unsigned kind)
{
    uint64_t v;
    if (rm_load(c, i, i->opsize, &v))
        return INSN_FAULT;
    unsigned bits = i->opsize * 8, n = (kind == SHIFTX_ROR ? i->imm : c->gpr[i->aux]) & (bits - 1);
    switch (kind) {
    case SHIFTX_SAR:
        v = (int64_t)sign_extend(v, i->opsize) >> n;
        break;
    case SHIFTX_SHL:
        v <<= n;
        break;
    case SHIFTX_SHR:
        v >>= n;
        break;
    default:
        v = n ? v >> n | v << (bits - n) : v;
    }
    reg_set(c, i->reg, i->opsize, v);
    return INSN_NEXT;
}
static int sarx(struct soft_cpu *c, const struct insn *i)
{
    return shiftx(c, i, SHIFTX_SAR);
}
static int shlx(struct soft_cpu *c, const struct insn *i)
{
    return shiftx(c, i, SHIFTX_SHL);
}
static int shrx(struct soft_cpu *c, const struct insn *i)
{
    return shiftx(c, i, SHIFTX_SHR);
}
static int rorx(struct soft_cpu *c, const struct insn *i)
{
    return shiftx(c, i, SHIFTX_ROR);
}

bool bind_shiftx(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[] = {sarx, shlx, shrx, rorx};
    i->fn = t[arg];
    return true;
}
