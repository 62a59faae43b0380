/*
 * Host machine code, byte by byte: what the translator's lowering functions are written with. Only encodings; what they
 * mean for the guest is jit_*.c's affair. The caller has made sure of room (JIT_BLOCK_ROOM).
 */
#ifndef LODGE_CPU_SOFT_EMIT_H
#define LODGE_CPU_SOFT_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Host registers by number, as x86.h's RAX … R15. */
#define HOST_NONE 0xff

/* A ModRM r/m operand: a register, or memory. */
struct opnd {
    bool mem, gs;        /* gs: offset into struct soft_cpu */
    uint8_t reg;         /* register, when not memory */
    uint8_t base, index; /* host registers or HOST_NONE; index not 4 */
    uint8_t scale;       /* log2 */
    int32_t disp;
};

struct emit {
    uint8_t *p;
};

static inline struct opnd op_reg(unsigned r)
{
    return (struct opnd){.reg = (uint8_t)r};
}
static inline struct opnd op_gs(int32_t disp)
{
    return (struct opnd){.mem = true, .gs = true, .base = HOST_NONE, .index = HOST_NONE, .disp = disp};
}
static inline struct opnd op_mem(unsigned base, int32_t disp)
{
    return (struct opnd){.mem = true, .base = (uint8_t)base, .index = HOST_NONE, .disp = disp};
}
static inline struct opnd op_mem2(unsigned base, unsigned index, int32_t disp)
{
    return (struct opnd){.mem = true, .base = (uint8_t)base, .index = (uint8_t)index, .disp = disp};
}

static inline void e8(struct emit *e, unsigned v)
{
    *e->p++ = (uint8_t)v;
}
static inline void e16(struct emit *e, unsigned v)
{
    uint16_t x = (uint16_t)v;
    memcpy(e->p, &x, 2);
    e->p += 2;
}
static inline void e32(struct emit *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}
static inline void e64(struct emit *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}
static inline void e_bytes(struct emit *e, const void *b, unsigned n)
{
    memcpy(e->p, b, n);
    e->p += n;
}

static inline void e_modrm(struct emit *e, unsigned reg, const struct opnd *o)
{
    reg = (reg & 7) << 3;
    if (!o->mem) {
        e8(e, 0xc0 | reg | (o->reg & 7));
        return;
    }
    if (o->base == HOST_NONE) {
        e8(e, reg | 4);
        e8(e, (o->index == HOST_NONE ? 0x20 : (unsigned)o->scale << 6 | (o->index & 7) << 3) | 5);
        e32(e, (uint32_t)o->disp);
        return;
    }
    unsigned mod = o->disp == 0 && (o->base & 7) != 5 ? 0 : o->disp == (int8_t)o->disp ? 0x40 : 0x80;
    if (o->index != HOST_NONE) {
        e8(e, mod | reg | 4);
        e8(e, (unsigned)o->scale << 6 | (o->index & 7) << 3 | (o->base & 7));
    } else if ((o->base & 7) == 4) {
        e8(e, mod | reg | 4);
        e8(e, 0x24);
    } else {
        e8(e, mod | reg | (o->base & 7));
    }
    if (mod == 0x40)
        e8(e, (uint8_t)o->disp);
    else if (mod == 0x80)
        e32(e, (uint32_t)o->disp);
}

/* Opcode maps and mandatory prefixes, or'ed to the opcode byte. */
#define OP_0F 0x100
#define OP_0F38 0x200
#define OP_0F3A 0x300
#define OP_66 0x10000
#define OP_F2 0x20000
#define OP_F3 0x40000
#define OP_LOCK 0x80000

/*
 * An instruction with ModRM. `size`: 1, 2, 4, 8 bytes (a size of 1 also says that registers 4 to 7 are SPL … DIL; the opcode itself
 * selects the byte form); with it registers 16 to 19 are AH … BH, and then nothing else may need REX. `byte_rm`: the r/m register is a byte although the operation is wider (MOVZX).
 */
static inline void e_op_sized(struct emit *e, unsigned op, unsigned size, unsigned reg, struct opnd o, bool byte_rm)
{
    unsigned hreg = reg, hrm = o.reg;
    if (op & OP_LOCK)
        e8(e, 0xf0);
    if (o.mem && o.gs)
        e8(e, 0x65);
    if (size == 2 || (op & OP_66))
        e8(e, 0x66);
    if (op & OP_F2)
        e8(e, 0xf2);
    if (op & OP_F3)
        e8(e, 0xf3);
    unsigned rex = size == 8 ? 0x48 : 0;
    if (reg >= 16) /* byte 1 of RAX, RCX, RDX, RBX */
        hreg = reg - 16 + 4;
    else if (reg & 8)
        rex |= 0x44;
    if (o.mem) {
        if (o.base != HOST_NONE && (o.base & 8))
            rex |= 0x41;
        if (o.index != HOST_NONE && (o.index & 8))
            rex |= 0x42;
    } else if (o.reg >= 16) {
        hrm = o.reg - 16 + 4u;
    } else if (o.reg & 8) {
        rex |= 0x41;
    }
    bool high = (size == 1 && reg >= 16) || (!o.mem && o.reg >= 16); /* AH … BH: no REX may be there */
    if (!high && ((size == 1 && reg >= 4) || (!o.mem && (size == 1 || byte_rm) && o.reg >= 4)))
        rex |= 0x40;
    if (rex)
        e8(e, rex);
    unsigned map = op >> 8 & 3;
    if (map)
        e8(e, 0x0f);
    if (map == 2)
        e8(e, 0x38);
    if (map == 3)
        e8(e, 0x3a);
    e8(e, op);
    o.reg = (uint8_t)hrm;
    e_modrm(e, hreg, &o);
}

static inline void e_op(struct emit *e, unsigned op, unsigned size, unsigned reg, struct opnd o)
{
    e_op_sized(e, op, size, reg, o, false);
}

/* The same with opcode extension `ext` in ModRM.reg, which is no register. A REX that this may add does no harm. */
static inline void e_ext(struct emit *e, unsigned op, unsigned size, unsigned ext, struct opnd o)
{
    e_op(e, op, size, ext, o);
}

static inline void e_mov(struct emit *e, unsigned to, unsigned from)
{
    e_op(e, 0x89, 8, from, op_reg(to));
}
static inline void e_load(struct emit *e, unsigned to, struct opnd from)
{
    e_op(e, 0x8b, 8, to, from);
}
static inline void e_store(struct emit *e, struct opnd to, unsigned from)
{
    e_op(e, 0x89, 8, from, to);
}
static inline void e_lea(struct emit *e, unsigned to, struct opnd from)
{
    e_op(e, 0x8d, 8, to, from);
}
/* mov r32, imm32 */
static inline void e_imm32(struct emit *e, unsigned to, uint32_t v)
{
    if (to & 8)
        e8(e, 0x41);
    e8(e, 0xb8 | (to & 7));
    e32(e, v);
}
/* Arithmetic with an immediate: `ext` 0 ADD 1 OR 2 ADC 3 SBB 4 AND 5 SUB 6 XOR 7 CMP. */
static inline void e_alu_imm(struct emit *e, unsigned ext, unsigned size, struct opnd o, int32_t imm)
{
    if (size == 1) {
        e_ext(e, 0x80, 1, ext, o);
        e8(e, (uint8_t)imm);
    } else if (imm == (int8_t)imm) {
        e_ext(e, 0x83, size, ext, o);
        e8(e, (uint8_t)imm);
    } else {
        e_ext(e, 0x81, size, ext, o);
        if (size == 2)
            e16(e, (uint16_t)imm);
        else
            e32(e, (uint32_t)imm);
    }
}

/* Jumps whose target comes later: returns the place of the rel32. */
static inline uint8_t *e_jcc(struct emit *e, unsigned cond)
{
    e8(e, 0x0f);
    e8(e, 0x80 | cond);
    e32(e, 0);
    return e->p - 4;
}
static inline uint8_t *e_jmp(struct emit *e)
{
    e8(e, 0xe9);
    e32(e, 0);
    return e->p - 4;
}
static inline uint8_t *e_call(struct emit *e)
{
    e8(e, 0xe8);
    e32(e, 0);
    return e->p - 4;
}
static inline void e_target(uint8_t *rel32, const uint8_t *to)
{
    int32_t d = (int32_t)(to - (rel32 + 4));
    memcpy(rel32, &d, 4);
}

enum { CC_COND_O, CC_COND_NO, CC_COND_B, CC_COND_AE, CC_COND_Z, CC_COND_NZ, CC_COND_BE, CC_COND_A };

#endif
