/*
 * Bit instructions: BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT, BMI1 and BMI2 (but the shifts), ADCX ADOX, CRC32. The
 * host executes the operation itself, so its result and flags are exact; cpuid offers an extension only where the host
 * has it.
 */
#include "cpu/soft/interp.h"

enum { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

static uint64_t bit_apply(unsigned kind, uint64_t v, uint64_t mask)
{
    switch (kind) {
    case BIT_SET:
        return v | mask;
    case BIT_RESET:
        return v & ~mask;
    case BIT_COMPLEMENT:
        return v ^ mask;
    default:
        return v;
    }
}

/* aux: kind in bits 0-1, bit 2 index is the immediate. Flags but CF stay as they are (as on Intel's CPUs). */
static int bit_r(struct soft_cpu *c, const struct insn *i)
{
    uint64_t index = i->aux & 4 ? i->imm : c->gpr[i->reg];
    uint64_t v = reg_get(c, i->rm, i->opsize), mask = 1ull << (index & (i->opsize * 8 - 1));
    cc_put(c, CC_C, v & mask);
    if (i->aux & 3)
        reg_set(c, i->rm, i->opsize, bit_apply(i->aux & 3, v, mask));
    return INSN_NEXT;
}

/* A register index reaches beyond the operand: it moves the address by whole operands. */
static int bit_m(struct soft_cpu *c, const struct insn *i)
{
    unsigned bits = i->opsize * 8;
    uint64_t index = i->imm, ea = insn_ea(c, i), lin, v;
    if (!(i->aux & 4)) {
        index = sign_extend(c->gpr[i->reg], i->opsize);
        ea += ((int64_t)index >> (i->opsize == 8 ? 6 : i->opsize == 4 ? 5 : 4)) * i->opsize;
        ea = bits_trunc(ea, i->addrsize);
    }
    uint64_t mask = 1ull << (index & (bits - 1));
    unsigned kind = i->aux & 3;
    if (seg_linear(c, i->seg, ea, i->opsize, kind != BIT_TEST, &lin))
        return INSN_FAULT;
    if (kind == BIT_TEST) {
        if (lin_read(c, lin, i->opsize, &v))
            return INSN_FAULT;
        cc_put(c, CC_C, v & mask);
        return INSN_NEXT;
    }
    void *host;
    if (mmu_rmw_fast(c, lin, i->opsize, &host))
        return INSN_FAULT;
    if (host && (i->flags & INSN_F_LOCK)) {
        switch (i->opsize) {
#define LOCKED(n, T, S, sfx)                                                                                           \
    case n:                                                                                                            \
        v = kind == BIT_SET     ? __atomic_fetch_or((T *)host, (T)mask, __ATOMIC_SEQ_CST)                              \
            : kind == BIT_RESET ? __atomic_fetch_and((T *)host, (T)~mask, __ATOMIC_SEQ_CST)                            \
                                : __atomic_fetch_xor((T *)host, (T)mask, __ATOMIC_SEQ_CST);                            \
        break;
            LOCKED(2, uint16_t, , )
            LOCKED(4, uint32_t, , )
        default:
            LOCKED(8, uint64_t, , )
        }
    } else if (host) {
        v = host_load(host, i->opsize);
        host_store(host, i->opsize, bit_apply(kind, v, mask));
    } else {
        if (i->flags & INSN_F_LOCK)
            pthread_mutex_lock(&c->soft->split_lock);
        int r = lin_read(c, lin, i->opsize, &v) || lin_write(c, lin, i->opsize, bit_apply(kind, v, mask));
        if (i->flags & INSN_F_LOCK)
            pthread_mutex_unlock(&c->soft->split_lock);
        if (r)
            return INSN_FAULT;
    }
    cc_put(c, CC_C, v & mask);
    return INSN_NEXT;
}

bool bind_bit(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->aux = arg | (i->opcode == 0xba ? 4 : 0);
    i->fn = i->flags & INSN_F_MEM ? bit_m : bit_r;
    return true;
}

/* One-operand bit counting on the host: BSF and BSR leave the destination alone when the source is 0. */
#define SCAN(name, op)                                                                                                 \
    static int name(struct soft_cpu *c, const struct insn *i)                                                          \
    {                                                                                                                  \
        uint64_t src;                                                                                                  \
        if (rm_load(c, i, i->opsize, &src))                                                                            \
            return INSN_FAULT;                                                                                         \
        uint64_t d = c->gpr[i->reg];                                                                                   \
        uint32_t ax = c->cc;                                                                                           \
        if (i->opsize == 8)                                                                                            \
            __asm__(CC_RESTORE op "q %2, %0" CC_SAVE : "+&r"(d), "+&a"(ax) : "r"(src) : "cc");                         \
        else if (i->opsize == 4)                                                                                       \
            __asm__(CC_RESTORE op "l %k2, %k0" CC_SAVE : "+&r"(d), "+&a"(ax) : "r"(src) : "cc");                       \
        else                                                                                                           \
            __asm__(CC_RESTORE op "w %w2, %w0" CC_SAVE : "+&r"(d), "+&a"(ax) : "r"(src) : "cc");                       \
        c->gpr[i->reg] = d;                                                                                            \
        c->cc = ax;                                                                                                    \
        return INSN_NEXT;                                                                                              \
    }
SCAN(scan_bsf, "bsf")
SCAN(scan_bsr, "bsr")
SCAN(scan_tzcnt, "tzcnt")
SCAN(scan_lzcnt, "lzcnt")
SCAN(scan_popcnt, "popcnt")

bool bind_bitscan(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[] = {scan_bsf, scan_bsr, scan_tzcnt, scan_lzcnt, scan_popcnt};
    i->fn = t[arg];
    return true;
}

/*
 * BMI with a VEX prefix. Three-operand forms: destination, first and second source differ by instruction, so each
 * handler names them. aux is VEX.vvvv.
 */
#define BMI(name, op, out, in1, in2, reads_rm_first)                                                                   \
    static int name(struct soft_cpu *c, const struct insn *i)                                                          \
    {                                                                                                                  \
        uint64_t rm, d;                                                                                                \
        if (rm_load(c, i, i->opsize, &rm))                                                                             \
            return INSN_FAULT;                                                                                         \
        uint64_t v = c->gpr[i->aux];                                                                                   \
        uint32_t ax = c->cc;                                                                                           \
        if (i->opsize == 8)                                                                                            \
            __asm__(CC_RESTORE op "q %" in1 ", %" in2 ", %0" CC_SAVE : "=&r"(d), "+&a"(ax) : "r"(rm), "r"(v) : "cc");  \
        else                                                                                                           \
            __asm__(CC_RESTORE op "l %k" in1 ", %k" in2 ", %k0" CC_SAVE                                                \
                    : "=&r"(d), "+&a"(ax)                                                                              \
                    : "r"(rm), "r"(v)                                                                                  \
                    : "cc");                                                                                           \
        reg_set(c, out, i->opsize, d);                                                                                 \
        c->cc = ax;                                                                                                    \
        return INSN_NEXT;                                                                                              \
    }
/* AT&T order: second source, first source, destination; operand 2 is r/m, 3 is vvvv. */
BMI(bmi_andn, "andn", i->reg, "2", "3", )
BMI(bmi_bextr, "bextr", i->reg, "3", "2", )
BMI(bmi_bzhi, "bzhi", i->reg, "3", "2", )
BMI(bmi_pdep, "pdep", i->reg, "2", "3", )
BMI(bmi_pext, "pext", i->reg, "2", "3", )

#define BLS(name, op)                                                                                                  \
    static int name(struct soft_cpu *c, const struct insn *i)                                                          \
    {                                                                                                                  \
        uint64_t rm, d;                                                                                                \
        if (rm_load(c, i, i->opsize, &rm))                                                                             \
            return INSN_FAULT;                                                                                         \
        uint32_t ax = c->cc;                                                                                           \
        if (i->opsize == 8)                                                                                            \
            __asm__(CC_RESTORE op "q %2, %0" CC_SAVE : "=&r"(d), "+&a"(ax) : "r"(rm) : "cc");                          \
        else                                                                                                           \
            __asm__(CC_RESTORE op "l %k2, %k0" CC_SAVE : "=&r"(d), "+&a"(ax) : "r"(rm) : "cc");                        \
        reg_set(c, i->aux, i->opsize, d);                                                                              \
        c->cc = ax;                                                                                                    \
        return INSN_NEXT;                                                                                              \
    }
BLS(bmi_blsi, "blsi")
BLS(bmi_blsr, "blsr")
BLS(bmi_blsmsk, "blsmsk")

/* High half to reg, low half to vvvv; when both are one register it gets the high half. */
static int bmi_mulx(struct soft_cpu *c, const struct insn *i)
{
    uint64_t rm;
    if (rm_load(c, i, i->opsize, &rm))
        return INSN_FAULT;
    unsigned __int128 p = (unsigned __int128)reg_get(c, RDX, i->opsize) * rm;
    reg_set(c, i->aux, i->opsize, p);
    reg_set(c, i->reg, i->opsize, p >> (i->opsize * 8));
    return INSN_NEXT;
}

bool bind_bmi(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[] = {bmi_andn, bmi_bextr, bmi_bzhi,   bmi_pdep, bmi_pext,
                                 bmi_blsi, bmi_blsr,  bmi_blsmsk, bmi_mulx};
    if (z->raw.vex.L)
        return false;
    i->fn = t[arg];
    return true;
}

/* arg: the flag that is carry in and out. */
INLINE int add_with(struct soft_cpu *c, const struct insn *i, uint32_t flag)
{
    uint64_t v;
    if (rm_load(c, i, i->opsize, &v))
        return INSN_FAULT;
    unsigned __int128 sum = (unsigned __int128)reg_get(c, i->reg, i->opsize) + v + !!(c->cc & flag);
    reg_set(c, i->reg, i->opsize, sum);
    cc_put(c, flag, (sum >> (i->opsize * 8)) & 1);
    return INSN_NEXT;
}
static int adcx(struct soft_cpu *c, const struct insn *i)
{
    return add_with(c, i, CC_C);
}
static int adox(struct soft_cpu *c, const struct insn *i)
{
    return add_with(c, i, CC_O);
}

bool bind_adx(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = arg ? adox : adcx;
    i->opsize = i->opsize == 8 ? 8 : 4;
    return true;
}

/* aux: size of the source; the destination is 32 bits, zero-extended. */
static int crc32_rm(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v, crc = (uint32_t)c->gpr[i->reg];
    if (rm_load(c, i, i->aux, &v))
        return INSN_FAULT;
    switch (i->aux) {
    case 1:
        __asm__("crc32b %b1, %k0" : "+r"(crc) : "r"(v));
        break;
    case 2:
        __asm__("crc32w %w1, %k0" : "+r"(crc) : "r"(v));
        break;
    case 4:
        __asm__("crc32l %k1, %k0" : "+r"(crc) : "r"(v));
        break;
    default:
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(v));
    }
    c->gpr[i->reg] = (uint32_t)crc;
    return INSN_NEXT;
}

bool bind_crc(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->aux = i->opsize;
    if (i->opcode == 0xf0) {
        i->aux = 1;
        if (!(i->flags & INSN_F_MEM))
            i->rm = reg_byte(z, z->raw.modrm.rm | (z->attributes & ZYDIS_ATTRIB_HAS_REX ? z->raw.rex.B << 3 : 0));
    }
    i->fn = crc32_rm;
    return true;
}
