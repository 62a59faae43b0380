/* The pieces of host code that all translated blocks share: the way in, the ways out, the call of a handler, the jump cache. */
#include "cpu/soft/jit.h"

#define GS(field) op_gs((int32_t)offsetof(struct soft_cpu, field))

static void all_regs(struct emit *e, bool store)
{
    for (unsigned n = 0; n < 13; n++) {
        struct opnd slot = op_gs((int32_t)(offsetof(struct soft_cpu, gpr) + 8 * n));
        if (store)
            e_store(e, slot, jit_host(n));
        else
            e_load(e, jit_host(n), slot);
    }
}

/* Out of generated code with `why` in EAX; the registers are in struct soft_cpu already. */
static void leave(struct emit *e)
{
    static const uint8_t pops[] = {0x48, 0x83, 0xc4, 0x08, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3};
    e_load(e, RSP, GS(jit.host_rsp));
    e_bytes(e, pops, sizeof pops); /* add rsp, 8; pop r15 … rbx; ret */
}

static void exit_thunk(struct emit *e, enum jit_exit why)
{
    e_store(e, GS(jit.exit_arg), JIT_T0);
    all_regs(e, true);
    e_imm32(e, RAX, why);
    leave(e);
}

static void flags_to_cc(struct emit *e)
{
    e_mov(e, JIT_T1, RAX);
    e_bytes(e, "\x9f\x0f\x90\xc0", 4); /* lahf; seto al */
    e_op(e, 0x89, 2, RAX, GS(cc));
    e_mov(e, RAX, JIT_T1);
}

/* Jumps to where the code at JIT_T0 was translated to, if that is known by `key`. The index is jit_cache.c's jump_index(). */
static void probe(struct emit *e, struct opnd key, struct opnd spread)
{
    struct opnd entry = {.mem = true, .gs = true, .base = JIT_T1, .index = HOST_NONE, .disp = offsetof(struct soft_cpu, jit.jump)};
    e_op(e, 0x69, 4, JIT_T1, op_reg(JIT_T0)); /* imul */
    e32(e, JIT_JUMP_FACTOR);
    e_op(e, 0x33, 4, JIT_T1, spread);
    e_ext(e, 0xc1, 4, 5, op_reg(JIT_T1)); /* shr */
    e8(e, JIT_JUMP_SHIFT - 4);
    e_alu_imm(e, 4, 4, op_reg(JIT_T1), (JIT_JUMPS - 1) << 4);
    e_op(e, 0x33, 8, JIT_T0, key);
    for (unsigned way = 0; way < 2; way++) {
        if (way)
            e_alu_imm(e, 6, 4, op_reg(JIT_T1), 16); /* xor */
        entry.disp = offsetof(struct soft_cpu, jit.jump);
        e_op(e, 0x3b, 8, JIT_T0, entry);
        uint8_t *miss = e_jcc(e, CC_COND_NZ);
        entry.disp += 8;
        e_ext(e, 0xff, 4, 4, entry); /* jmp */
        e_target(miss, e->p);
    }
    e_op(e, 0x33, 8, JIT_T0, key);
}

static void dispatch(struct emit *e)
{
    e_mov(e, JIT_T1, JIT_T0);
    e_alu_imm(e, 4, 8, op_reg(JIT_T1), -(int32_t)PAGE_SIZE);
    e_store(e, GS(jit.code_base), JIT_T1);
    probe(e, GS(jit.key), GS(jit.spread));
    probe(e, GS(jit.key2), GS(jit.spread2));
    e_store(e, GS(rip), JIT_T0);
    exit_thunk(e, JIT_INDIRECT);
}

void jit_emit_indirect(struct soft_cpu *c, struct emit *e, int32_t off, bool saved)
{
    struct soft_jit *s = c->jit_cache;
    if (!saved)
        flags_to_cc(e);
    e_load(e, JIT_T0, GS(jit.code_base));
    e_lea(e, JIT_T0, op_mem(JIT_T0, off));
    e_target(e_jmp(e), s->rw + (s->thunk.dispatch - s->rx));
}

static void enter(struct emit *e)
{
    static const uint8_t pushes[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x83, 0xec, 0x08};
    e_bytes(e, pushes, sizeof pushes);
    e_store(e, GS(jit.host_rsp), RSP);
    /* The bottom of the return stack: no key is 0. Twice, as RET looks at two; the place to go to is never used. */
    for (unsigned n = 0; n < 6; n++) {
        e8(e, 0x6a);
        e8(e, 0);
    }
    e_mov(e, JIT_T0, RSI);
    all_regs(e, false);
    e_ext(e, 0xff, 4, 4, op_reg(JIT_T0));
}

/* Calls the C function at `fn` with (the vCPU, JIT_T0, JIT_T1); out of generated code when it returns something. */
static void handler(struct emit *e, struct opnd fn)
{
    all_regs(e, true);
    e_mov(e, RBX, RSP);
    e_alu_imm(e, 4, 8, op_reg(RSP), -16);
    e_load(e, RDI, GS(jit.self));
    e_op(e, 0x89, 4, JIT_T0, op_reg(RSI));
    e_op(e, 0x89, 4, JIT_T1, op_reg(RDX));
    e_ext(e, 0xff, 4, 2, fn);
    e_mov(e, RSP, RBX);
    e_op(e, 0x85, 4, RAX, op_reg(RAX)); /* test */
    uint8_t *out = e_jcc(e, CC_COND_NZ);
    all_regs(e, false);
    e8(e, 0xc3);
    e_target(out, e->p);
    e_alu_imm(e, 7, 4, op_reg(RAX), JIT_GOTO);
    uint8_t *go = e_jcc(e, CC_COND_Z);
    leave(e);
    e_target(go, e->p);
    all_regs(e, false);
    e_lea(e, RSP, op_mem(RSP, 8));
    e_ext(e, 0xff, 4, 4, GS(jit.go));
}

void jit_thunks_emit(struct soft_cpu *c)
{
    struct soft_jit *s = c->jit_cache;
    struct emit e = {s->rw};
#define THUNK(name)                                                                                                    \
    while ((e.p - s->rw) & 15)                                                                                         \
        e8(&e, 0x90);                                                                                                  \
    s->thunk.name = s->rx + (e.p - s->rw)
    THUNK(handler);
    handler(&e, GS(jit.call));
    THUNK(live);
    handler(&e, GS(jit.call_live));
    THUNK(link_direct);
    flags_to_cc(&e);
    THUNK(link_saved);
    exit_thunk(&e, JIT_LINK);
    THUNK(out_direct);
    flags_to_cc(&e);
    THUNK(out_saved);
    exit_thunk(&e, JIT_ATTENTION);
    THUNK(dispatch);
    dispatch(&e);
    THUNK(enter);
    enter(&e);
#undef THUNK
    s->used = ALIGN_UP((size_t)(e.p - s->rw), 64);
}
