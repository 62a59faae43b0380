/*
 * PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE. The operand size says how much is pushed, the stack's width (SS.B, or
 * 64-bit mode) which part of RSP counts.
 */
#include "cpu/soft/interp.h"
#include "cpu/soft/interp_stack.h"

static int push_r_64(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin;
    if (unlikely(seg_linear(c, SS, c->gpr[RSP] - 8, 8, true, &lin)) || unlikely(mmu_write64(c, lin, c->gpr[i->rm])))
        return INSN_FAULT;
    c->gpr[RSP] -= 8;
    return INSN_NEXT;
}

static int pop_r_64(struct soft_cpu *c, const struct insn *i)
{
    uint64_t lin, v;
    if (unlikely(seg_linear(c, SS, c->gpr[RSP], 8, false, &lin)) || unlikely(mmu_read64(c, lin, &v)))
        return INSN_FAULT;
    c->gpr[RSP] += 8;
    c->gpr[i->rm] = v;
    return INSN_NEXT;
}

static int push_r(struct soft_cpu *c, const struct insn *i)
{
    return stack_push(c, i->opsize, reg_get(c, i->rm, i->opsize)) ? INSN_FAULT : INSN_NEXT;
}
static int push_i(struct soft_cpu *c, const struct insn *i)
{
    return stack_push(c, i->opsize, i->imm) ? INSN_FAULT : INSN_NEXT;
}
static int push_m(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v;
    if (mem_load(c, i, i->opsize, &v) || stack_push(c, i->opsize, v))
        return INSN_FAULT;
    return INSN_NEXT;
}

/* aux: segment. CPUs of our model write 16 bits of a 32-bit slot and leave the rest of it alone, but all of a 64-bit
 * one. */
static int push_seg(struct soft_cpu *c, const struct insn *i)
{
    if (i->opsize == 8)
        return stack_push(c, 8, c->seg[i->aux].sel) ? INSN_FAULT : INSN_NEXT;
    uint64_t sp = stack_trunc(c, c->gpr[RSP] - i->opsize), lin;
    if (seg_linear(c, SS, sp, i->opsize, true, &lin) || mmu_write16(c, lin, c->seg[i->aux].sel))
        return INSN_FAULT;
    stack_set(c, sp);
    return INSN_NEXT;
}

bool bind_push(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F) {
        i->aux = i->opcode == 0xa0 ? FS : GS;
        i->fn = push_seg;
    } else if (i->opcode < 0x20) {
        i->aux = i->opcode >> 3; /* 06 ES, 0e CS, 16 SS, 1e DS */
        i->fn = push_seg;
    } else if (i->opcode == 0x68 || i->opcode == 0x6a) {
        i->fn = push_i;
    } else if (i->flags & INSN_F_MEM) {
        i->fn = push_m;
    } else {
        i->fn = i->opsize == 8 ? push_r_64 : push_r;
    }
    return true;
}

static int pop_r(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v;
    if (stack_pop(c, i->opsize, &v))
        return INSN_FAULT;
    reg_set(c, i->rm, i->opsize, v);
    return INSN_NEXT;
}

/* An address that uses RSP uses it as incremented. */
static int pop_m(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v, sp = c->gpr[RSP];
    if (stack_pop(c, i->opsize, &v))
        return INSN_FAULT;
    if (mem_store(c, i, i->opsize, v)) {
        c->gpr[RSP] = sp;
        return INSN_FAULT;
    }
    return INSN_NEXT;
}

bool bind_pop(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || i->opcode < 0x20)
        return false; /* segment registers: sys_*.c */
    i->fn = i->flags & INSN_F_MEM ? pop_m : i->opsize == 8 ? pop_r_64 : pop_r;
    return true;
}

/* A fault halfway leaves the stack pointer as it was; what was stored below it nobody owns. */
static int pusha(struct soft_cpu *c, const struct insn *i)
{
    unsigned n = i->opsize;
    uint64_t old = c->gpr[RSP];
    for (unsigned r = 0; r < 8; r++) {
        if (stack_push(c, n, r == RSP ? old : c->gpr[r])) {
            c->gpr[RSP] = old;
            return INSN_FAULT;
        }
    }
    return INSN_NEXT;
}

static int popa(struct soft_cpu *c, const struct insn *i)
{
    uint64_t v[8], old = c->gpr[RSP];
    for (unsigned r = 8; r-- > 0;) {
        if (stack_pop(c, i->opsize, &v[r])) {
            c->gpr[RSP] = old;
            return INSN_FAULT;
        }
    }
    for (unsigned r = 0; r < 8; r++)
        if (r != RSP)
            reg_set(c, r, i->opsize, v[r]);
    return INSN_NEXT;
}

bool bind_pusha(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = pusha;
    return true;
}
bool bind_popa(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = popa;
    return true;
}

static unsigned iopl(const struct soft_cpu *c)
{
    return c->rflags_rest >> 12 & 3;
}

/* SDM 2B, PUSHF. In v8086 mode below IOPL 3, CR4.VME shows the program its virtual interrupt flag. */
static int pushf_any(struct soft_cpu *c, const struct insn *i)
{
    uint64_t f = flags_get(c) & ~(uint64_t)(FLAG_VM | FLAG_RF);
    if ((c->mode & MODE_VM86) && iopl(c) < 3) {
        if (!(c->cr4 & CR4_VME) || i->opsize != 2)
            return exc_raise_code(c, EXC_GP, 0);
        f = (f & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (f & FLAG_VIF ? FLAG_IF : 0);
    }
    return stack_push(c, i->opsize, f) ? INSN_FAULT : INSN_NEXT;
}

/* SDM 2B, POPF. */
static int popf_any(struct soft_cpu *c, const struct insn *i)
{
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT, v, sp = c->gpr[RSP];
    bool virtual_if = false;
    if (i->opsize > 2)
        mask |= FLAG_AC | FLAG_ID | FLAG_RF;
    if (c->mode & MODE_VM86) {
        if (iopl(c) < 3) {
            if (!(c->cr4 & CR4_VME) || i->opsize != 2)
                return exc_raise_code(c, EXC_GP, 0);
            virtual_if = true;
        } else {
            mask |= FLAG_IF;
        }
    } else {
        if (c->cpl <= iopl(c))
            mask |= FLAG_IF;
        if (c->cpl == 0)
            mask |= FLAG_IOPL;
    }
    if (stack_pop(c, i->opsize, &v))
        return INSN_FAULT;
    v &= ~(uint64_t)FLAG_RF;
    if (virtual_if) {
        if ((v & FLAG_TF) || ((v & FLAG_IF) && (c->rflags_rest & FLAG_VIP))) {
            c->gpr[RSP] = sp;
            return exc_raise_code(c, EXC_GP, 0);
        }
        mask |= FLAG_VIF;
        v = (v & ~(uint64_t)FLAG_VIF) | (v & FLAG_IF ? FLAG_VIF : 0);
    }
    uint64_t before = c->rflags_rest;
    flags_write(c, v, mask);
    return (before ^ c->rflags_rest) & (FLAG_TF | FLAG_IF | FLAG_AC) ? INSN_BREAK : INSN_NEXT;
}

bool bind_pushf(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = pushf_any;
    return true;
}
bool bind_popf(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = popf_any;
    return true;
}

/* imm: bytes to allocate; aux: nesting level. */
static int enter(struct soft_cpu *c, const struct insn *i)
{
    unsigned n = i->opsize, level = i->aux & 31;
    uint64_t old = c->gpr[RSP], v, lin;
    if (stack_push(c, n, c->gpr[RBP]))
        return INSN_FAULT;
    uint64_t frame = c->gpr[RSP];
    if (level > 0) {
        uint64_t bp = c->gpr[RBP];
        for (unsigned k = 1; k < level; k++) {
            bp -= n;
            if (seg_linear(c, SS, stack_trunc(c, bp), n, false, &lin) || lin_read(c, lin, n, &v) || stack_push(c, n, v))
                goto fault;
        }
        if (stack_push(c, n, frame))
            goto fault;
    }
    /* The new top must be writable, as the manual demands. */
    uint64_t sp = stack_trunc(c, c->gpr[RSP] - i->imm);
    void *host;
    if (seg_linear(c, SS, sp, n, true, &lin) || mmu_rmw(c, lin, n, &host))
        goto fault;
    reg_set(c, RBP, n, frame);
    stack_set(c, sp);
    return INSN_NEXT;
fault:
    c->gpr[RSP] = old;
    return INSN_FAULT;
}

bool bind_enter(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->imm = z->raw.imm[0].value.u & 0xffff;
    i->aux = z->raw.imm[1].value.u;
    i->fn = enter;
    return true;
}

static int leave(struct soft_cpu *c, const struct insn *i)
{
    uint64_t old = c->gpr[RSP], v;
    stack_set(c, stack_trunc(c, c->gpr[RBP]));
    if (stack_pop(c, i->opsize, &v)) {
        c->gpr[RSP] = old;
        return INSN_FAULT;
    }
    reg_set(c, RBP, i->opsize, v);
    return INSN_NEXT;
}

bool bind_leave(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = leave;
    return true;
}
