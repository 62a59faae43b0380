/* Near branches: Jcc JMP CALL RET JrCXZ LOOP. Far ones are in sys_*.c. A branch target outside the code segment faults
 * at the branch. */
#include "cpu/soft/interp.h"
#include "cpu/soft/interp_stack.h"

/* Cut to the operand size and checked; 0 or INSN_FAULT. */
MUST_CHECK INLINE int target_check(struct soft_cpu *c, const struct insn *i, uint64_t *target)
{
    if (c->mode & MODE_CS64) {
        if (unlikely((uint64_t)((int64_t)*target >> 47) + 1 > 1))
            return exc_raise_code(c, EXC_GP, 0);
        return 0;
    }
    *target = i->opsize == 2 ? (uint16_t)*target : (uint32_t)*target;
    if (unlikely(*target > c->seg[CS].limit))
        return exc_raise_code(c, EXC_GP, 0);
    return 0;
}

INLINE int jump_relative(struct soft_cpu *c, const struct insn *i)
{
    uint64_t target = c->rip + i->len + i->imm;
    if (unlikely(target_check(c, i, &target)))
        return INSN_FAULT;
    c->rip = target;
    return INSN_NEAR;
}

#define JCC(n)                                                                                                         \
    static int jcc_##n(struct soft_cpu *c, const struct insn *i)                                                       \
    {                                                                                                                  \
        return cc_test(c, n) ? jump_relative(c, i) : INSN_FALL;                                                        \
    }
JCC(0)
JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7) JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)

    bool bind_jcc(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    static insn_fn *const t[] = {jcc_0, jcc_1, jcc_2,  jcc_3,  jcc_4,  jcc_5,  jcc_6,  jcc_7,
                                 jcc_8, jcc_9, jcc_10, jcc_11, jcc_12, jcc_13, jcc_14, jcc_15};
    i->aux = i->opcode & 15;
    i->fn = t[i->aux];
    return true;
}

static int jmp_rel(struct soft_cpu *c, const struct insn *i)
{
    return jump_relative(c, i);
}

static int jmp_rm(struct soft_cpu *c, const struct insn *i)
{
    uint64_t target;
    if (rm_load(c, i, i->opsize, &target) || target_check(c, i, &target))
        return INSN_FAULT;
    c->rip = target;
    return INSN_NEAR;
}

bool bind_jmp(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (i->opcode == 0xea || (i->opcode == 0xff && z->raw.modrm.reg == 5))
        return false; /* far */
    i->fn = i->opcode == 0xff ? jmp_rm : jmp_rel;
    return true;
}

/* The return address is stored even when the target then faults; RSP is as before. */
INLINE int call_near(struct soft_cpu *c, const struct insn *i, uint64_t target)
{
    uint64_t sp = c->gpr[RSP];
    if (stack_push(c, i->opsize, c->rip + i->len))
        return INSN_FAULT;
    if (target_check(c, i, &target)) {
        c->gpr[RSP] = sp;
        return INSN_FAULT;
    }
    c->rip = target;
    return INSN_NEAR;
}

static int call_rel(struct soft_cpu *c, const struct insn *i)
{
    return call_near(c, i, c->rip + i->len + i->imm);
}

static int call_rm(struct soft_cpu *c, const struct insn *i)
{
    uint64_t target;
    if (rm_load(c, i, i->opsize, &target))
        return INSN_FAULT;
    return call_near(c, i, target);
}

bool bind_call(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (i->opcode == 0x9a || (i->opcode == 0xff && z->raw.modrm.reg == 3))
        return false; /* far */
    i->fn = i->opcode == 0xff ? call_rm : call_rel;
    return true;
}

static int ret_near(struct soft_cpu *c, const struct insn *i)
{
    uint64_t target, sp = c->gpr[RSP];
    if (stack_pop(c, i->opsize, &target))
        return INSN_FAULT;
    if (target_check(c, i, &target)) {
        c->gpr[RSP] = sp;
        return INSN_FAULT;
    }
    if (i->imm)
        stack_set(c, c->gpr[RSP] + i->imm);
    c->rip = target;
    return INSN_NEAR;
}

bool bind_ret(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    if (i->opcode != 0xc2 && i->opcode != 0xc3)
        return false; /* far */
    i->imm = i->opcode == 0xc2 ? i->imm & 0xffff : 0;
    i->fn = ret_near;
    return true;
}

static int jcxz(struct soft_cpu *c, const struct insn *i)
{
    return reg_get(c, RCX, i->addrsize) == 0 ? jump_relative(c, i) : INSN_FALL;
}

bool bind_jcxz(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = jcxz;
    return true;
}

/* LOOPNE e0, LOOPE e1, LOOP e2. */
static int loop_any(struct soft_cpu *c, const struct insn *i)
{
    uint64_t old = c->gpr[RCX], n = reg_get(c, RCX, i->addrsize) - 1;
    reg_set(c, RCX, i->addrsize, n);
    bool go = bits_trunc(n, i->addrsize) != 0;
    if (i->opcode != 0xe2)
        go = go && !!(c->cc & CC_Z) == (i->opcode & 1);
    if (!go)
        return INSN_FALL;
    int r = jump_relative(c, i);
    if (r == INSN_FAULT)
        c->gpr[RCX] = old;
    return r;
}

bool bind_loop(struct insn *i, const ZydisDecodedInstruction *z, unsigned arg)
{
    i->fn = loop_any;
    return true;
}
