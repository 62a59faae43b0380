/*
 * Lowering of near branches and the stack. A CALL leaves what its RET will look for on the host's stack and goes by a host
 * call, so that the host predicts returns; a RET that finds something else goes through the jump cache.
 */
#include "cpu/soft/interp.h"
#include "cpu/soft/jit.h"

#define GS(field) op_gs((int32_t)offsetof(struct soft_cpu, field))

static bool in_page(int32_t off)
{
    return (uint32_t)off < PAGE_SIZE;
}

/* JIT_T0 = linear address of `off` in the page */
static void linear_of(struct jit *j, int32_t off)
{
    e_load(&j->e, JIT_T0, GS(jit.code_base));
    e_op(&j->e, 0x8d, jit_word(j), JIT_T0, op_mem(JIT_T0, off)); /* lea */
}

/* A link: `site` jumps to `off` in this page once it is known where that is. */
static void link_at(struct jit *j, uint8_t *site, int32_t off, bool saved)
{
    j->link[j->n_links].site = site;
    j->link[j->n_links].off = off;
    j->link[j->n_links++].saved = saved;
}

void jit_exit_to(struct jit *j, int32_t off)
{
    unsigned need = j->live[j->b->n];
    if (in_page(off)) {
        jit_flags_host(j, need);
        link_at(j, e_jmp(&j->e), off, false);
    } else {
        jit_flags_save(j, need);
        linear_of(j, off);
        jit_target(j, e_jmp(&j->e), j->c->jit_cache->thunk.dispatch);
    }
    j->ended = true;
}

static int32_t target_off(const struct jit *j, const struct insn *i)
{
    return j->off + i->len + (int32_t)i->imm;
}

/* Not cut to 16 bits; and no sum that could leave 32. */
static bool rel_ok(const struct insn *i)
{
    if (i->opsize == 2)
        return false;
    int64_t d = (int64_t)i->imm;
    return d > INT32_MIN + 8192 && d < INT32_MAX - 8192;
}

bool jit_jcc(struct jit *j, const struct insn *i, unsigned arg)
{
    if (!rel_ok(i))
        return false;
    int32_t taken = target_off(j, i), next = j->off + i->len;
    jit_flags_native(j);
    if (in_page(taken)) {
        link_at(j, e_jcc(&j->e, i->aux), taken, false);
        jit_exit_to(j, next);
        return true;
    }
    uint8_t *over = e_jcc(&j->e, i->aux ^ 1);
    jit_exit_to(j, taken);
    e_target(over, j->e.p);
    j->fl = JIT_FL_HOST;
    jit_exit_to(j, next);
    return true;
}

/* JIT_T0 is a branch target: the handler raises what is to be raised when it is not canonical. Leaves flags and JIT_T1 in ruins. */
static void check_target(struct jit *j)
{
    if (jit_word(j) == 4)
        return; /* the segment has 4 GiB */
    e_mov(&j->e, JIT_T1, JIT_T0);
    e_ext(&j->e, 0xc1, 8, 7, op_reg(JIT_T1)); /* sar */
    e8(&j->e, 47);
    e_ext(&j->e, 0xff, 8, 0, op_reg(JIT_T1)); /* inc */
    e_alu_imm(&j->e, 7, 8, op_reg(JIT_T1), 1);
    jit_slow_if(j, CC_COND_A, false);
}

/* The r/m operand of an indirect branch to JIT_T0. */
static bool load_target(struct jit *j, const struct insn *i)
{
    jit_flags_clobber(j);
    if (i->flags & INSN_F_MEM) {
        if (!jit_mem_ok(j, i))
            return false;
        e_op(&j->e, 0x8b, i->opsize, JIT_T0, jit_mem(j, i, i->opsize, false));
    } else {
        e_op(&j->e, 0x8b, i->opsize, JIT_T0, jit_greg(i->rm));
    }
    return true;
}

bool jit_jmp(struct jit *j, const struct insn *i, unsigned arg)
{
    if (i->opcode != 0xff) {
        if (!rel_ok(i))
            return false;
        jit_exit_to(j, target_off(j, i));
        return true;
    }
    if (i->opsize != jit_word(j) || ((i->flags & INSN_F_MEM) && !jit_mem_ok(j, i)))
        return false;
    load_target(j, i);
    check_target(j);
    jit_target(j, e_jmp(&j->e), j->c->jit_cache->thunk.dispatch);
    j->ended = true;
    return true;
}

static void stack_move(struct jit *j, int32_t by)
{
    e_op(&j->e, 0x8d, jit_word(j), JIT_RSP, op_mem(JIT_RSP, by)); /* lea */
}

/* JIT_T1 = the return address, pushed onto the guest's stack and the host's. */
static void push_return(struct jit *j, int32_t next)
{
    int32_t w = (int32_t)jit_word(j);
    struct opnd m = jit_mem_narrow(j, jit_stack_mem(j, -w, jit_word(j), true));
    e_load(&j->e, JIT_T1, GS(jit.code_base));
    e_op(&j->e, 0x8d, jit_word(j), JIT_T1, op_mem(JIT_T1, next));
    e_op(&j->e, 0x89, jit_word(j), JIT_T1, m);
    stack_move(j, -w);
    e_ext(&j->e, 0xff, 4, 6, GS(jit.key2)); /* push */
    e8(&j->e, 0x41);                        /* push r13 */
    e8(&j->e, 0x55);
}

/* Where a callee's RET comes back to, with the return address in JIT_T0. */
static void landing(struct jit *j, int32_t next)
{
    e_lea(&j->e, RSP, op_mem(RSP, 16));
    if (in_page(next)) {
        e_lea(&j->e, JIT_T0, op_mem(JIT_T0, -next));
        e_store(&j->e, GS(jit.code_base), JIT_T0);
        link_at(j, e_jmp(&j->e), next, true);
    } else {
        jit_target(j, e_jmp(&j->e), j->c->jit_cache->thunk.dispatch);
    }
    j->ended = true;
}

bool jit_call_near(struct jit *j, const struct insn *i, unsigned arg)
{
    int32_t next = j->off + i->len;
    if (i->opsize != jit_word(j))
        return false;
    if (i->opcode != 0xff) {
        if (!rel_ok(i))
            return false;
        int32_t to = target_off(j, i);
        push_return(j, next);
        if (in_page(to)) {
            link_at(j, e_call(&j->e), to, true);
        } else {
            linear_of(j, to);
            jit_target(j, e_call(&j->e), j->c->jit_cache->thunk.dispatch);
        }
        landing(j, next);
        return true;
    }
    if ((i->flags & INSN_F_MEM) && !jit_mem_ok(j, i))
        return false;
    load_target(j, i);
    check_target(j);
    e_store(&j->e, GS(jit.target), JIT_T0);
    push_return(j, next);
    e_load(&j->e, JIT_T0, GS(jit.target));
    jit_target(j, e_call(&j->e), j->c->jit_cache->thunk.dispatch);
    landing(j, next);
    return true;
}

/* Returns by the entry at RSP + `at` if it is for the address in JIT_T0, with the mappings and mode of now. */
static void return_by(struct jit *j, int32_t at, int32_t pop)
{
    e_op(&j->e, 0x3b, 8, JIT_T0, op_mem(RSP, at + 8)); /* cmp */
    uint8_t *other = e_jcc(&j->e, CC_COND_NZ);
    e_load(&j->e, JIT_T1, GS(jit.key2));
    e_op(&j->e, 0x3b, 8, JIT_T1, op_mem(RSP, at + 16));
    uint8_t *other2 = e_jcc(&j->e, CC_COND_NZ);
    stack_move(j, pop);
    if (at)
        e_lea(&j->e, RSP, op_mem(RSP, at));
    e8(&j->e, 0xc3);
    e_target(other, j->e.p);
    e_target(other2, j->e.p);
}

bool jit_ret(struct jit *j, const struct insn *i, unsigned arg)
{
    if (i->opsize != jit_word(j))
        return false;
    int32_t pop = (int32_t)(jit_word(j) + i->imm);
    e_op(&j->e, 0x8b, jit_word(j), JIT_T0, jit_stack_mem(j, 0, jit_word(j), false));
    return_by(j, 0, pop);
    return_by(j, 24, pop); /* a callee that never returned may have left one on top */
    check_target(j);
    stack_move(j, pop);
    jit_target(j, e_jmp(&j->e), j->c->jit_cache->thunk.dispatch);
    j->ended = true;
    return true;
}

bool jit_push(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (i->opsize != jit_word(j))
        return false;
    if (i->flags & INSN_F_MEM) { /* both addresses are checked before anything changes */
        if (!jit_mem_ok(j, i))
            return false;
        e_op(&j->e, 0x8b, n, JIT_T0, jit_mem(j, i, n, false));
        e_store(&j->e, GS(jit.target), JIT_T0);
        struct opnd to = jit_mem_narrow(j, jit_stack_mem(j, -(int32_t)n, n, true));
        e_load(&j->e, JIT_T1, GS(jit.target));
        e_op(&j->e, 0x89, n, JIT_T1, to);
        stack_move(j, -(int32_t)n);
        return true;
    }
    if ((i->opcode & 0xf0) != (i->opcode < 0x60 ? 0x50 : 0x60))
        return false;
    struct opnd m = jit_stack_mem(j, -(int32_t)n, n, true);
    if (i->opcode >= 0x60) {
        e_ext(&j->e, 0xc7, n, 0, m);
        e32(&j->e, (uint32_t)i->imm);
    } else {
        if (!jit_in_host(i->rm))
            m = jit_mem_narrow(j, m);
        e_op(&j->e, 0x89, n, jit_get(j, i->rm, JIT_T1), m);
    }
    stack_move(j, -(int32_t)n);
    return true;
}

bool jit_pop(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (i->opsize != jit_word(j) || (i->flags & INSN_F_MEM) || (i->opcode & 0xf8) != 0x58)
        return false;
    struct opnd m = jit_stack_mem(j, 0, n, false);
    stack_move(j, (int32_t)n);
    unsigned h = jit_dst(j, i->rm, false, JIT_T0);
    e_op(&j->e, 0x8b, n, h, m);
    jit_put(j, i->rm, h);
    return true;
}

bool jit_leave(struct jit *j, const struct insn *i, unsigned arg)
{
    unsigned n = i->opsize;
    if (i->opsize != jit_word(j))
        return false;
    jit_flags_clobber(j);
    struct opnd m = jit_base_mem(j, RBP, 0, n, false);
    e_op(&j->e, 0x8d, n, JIT_RSP, op_mem(RBP, (int32_t)n)); /* lea */
    e_op(&j->e, 0x8b, n, RBP, m);
    return true;
}
