/*
 * Between C and generated code: entering, the helper that runs an instruction's handler, and connecting blocks. On the
 * vCPU's thread.
 */
#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/soft/exc.h"
#include "cpu/soft/jit.h"
#include "cpu/soft/run.h"
#include "cpu/soft/vec_live.h"

/* What generated code may use of the thread's stack: 4096 nested calls, and the C functions that it calls. */
#define STACK_USE (64 * KIB)

void jit_attach(struct soft_cpu *c)
{
    if (c->jit_cache)
        syscall(SYS_arch_prctl, ARCH_SET_GS, c);
}

/* Generated code calls these, and the guest's vector state may be in the host's registers. */
#define FROM_CODE __attribute__((target("general-regs-only"), noinline))

static const struct insn *insn_at(struct soft_cpu *c, uint32_t ref)
{
    return (const struct insn *)(c->blocks->arena + (size_t)ref * 8);
}

/*
 * rip is set, and mode, mappings or events may have changed. If there is nothing that the run loop would have to look at, and it is
 * known where the code at rip was translated to, generated code goes on there.
 */
static int go_on(struct soft_cpu *c)
{
    if (!(c->mode & MODE_CS64))
        c->rip = (uint32_t)c->rip;
    if (c->slow_step || c->int_shadow || c->halted || c->exc_valid || c->shutdown || c->jit.stale || c->debug || !jit_mode_ok(c->mode) ||
        c->run_state != CPU_RUNNABLE || atomic_load_explicit(&c->pending, memory_order_relaxed))
        return JIT_LEAVE;
    jit_key_select(c);
    uint64_t to = jit_jump_find(c, c->rip);
    if (!to)
        return JIT_LEAVE;
    c->jit.code_base = c->rip & ~(PAGE_SIZE - 1);
    c->jit.go = to;
    return JIT_GOTO;
}

/* Executes the instruction at `ref`; jit_call() without vector state in the host's registers. */
__attribute__((noinline)) static int execute(struct soft_cpu *c, uint32_t ref, int32_t off)
{
    const struct insn *i = insn_at(c, ref);
    uint64_t rip = c->jit.code_base + (uint64_t)(int64_t)off;
    unsigned len = i->len;
    uint32_t mode = c->mode;
    if (!(mode & MODE_CS64))
        rip = (uint32_t)rip;
    c->rip = rip;
    c->jit.calls++;
    switch (i->fn(c, i)) {
    case INSN_NEXT:
        if (__builtin_expect(!c->jit.stale && c->mode == mode, 1))
            return JIT_CONTINUE;
        c->rip = rip + len;
        return go_on(c);
    case INSN_FALL:
        c->rip = rip + len;
        return JIT_NEAR;
    case INSN_BREAK:
        c->rip = rip + len;
        return go_on(c);
    case INSN_NEAR:
        return JIT_NEAR;
    case INSN_FAULT:
        c->exc_valid = false;
        exc_deliver(c);
        return go_on(c);
    default:
        return go_on(c);
    }
}

/* Out of the host's registers with what is there, for C. */
FROM_CODE static unsigned put_away(struct soft_cpu *c)
{
    unsigned live = c->vec_live;
    if (live) {
        vec_live_leave(c);
        if (live & LIVE_X87)
            jit_x87_pointer(c);
    }
    return live;
}

/*
 * Called by generated code: executes the instruction at `ref` (in the block arena, in units of 8 bytes), which stands at `off` in
 * the running page. JIT_CONTINUE: done, behind it the block goes on.
 */
FROM_CODE static int jit_call(struct soft_cpu *c, uint32_t ref, int32_t off)
{
    unsigned live = put_away(c);
    int why = execute(c, ref, off);
    if (live && why == JIT_CONTINUE && !vec_live_enter(c, live)) {
        c->rip += insn_at(c, ref)->len;
        why = JIT_LEAVE;
    }
    return why;
}

/*
 * Called by generated code: the instruction at `ref` needs state in the host's registers; which, stands above `ref`. JIT_CONTINUE: there it
 * is. Else the instruction has been executed here, and the block is left.
 */
FROM_CODE static int jit_call_live(struct soft_cpu *c, uint32_t ref, int32_t off)
{
    if (vec_live_enter(c, ref >> JIT_LIVE_SHIFT))
        return JIT_CONTINUE;
    ref &= BIT(JIT_LIVE_SHIFT) - 1;
    put_away(c);
    int why = execute(c, ref, off);
    if (why == JIT_CONTINUE) {
        c->rip += insn_at(c, ref)->len;
        why = JIT_LEAVE;
    }
    return why;
}

bool jit_ready(struct soft_cpu *c, struct soft_block *b)
{
    struct soft_jit *s = c->jit_cache;
    if (__builtin_expect(c->chaos != 0, 0) && (chaos_below(c, 4) == 0 || (chaos_below(c, 20000) == 0 && (jit_flush(c), true))))
        return false;
    if (!s || c->debug) /* breakpoints are the interpreter's affair */
        return false;
    if (b->jit && b->jit_generation == s->generation)
        return true;
    if (b->runs + 1 < c->soft->hot) {
        b->runs++;
        return false;
    }
    return !b->no_jit && !c->uncached && jit_translate(c, b);
}

typedef int enter_fn(struct soft_cpu *c, const uint8_t *code);

FROM_CODE static int run_code(struct soft_cpu *c, enter_fn *enter, const uint8_t *code)
{
    int why = enter(c, code);
    put_away(c);
    return why;
}

enum jit_exit jit_execute(struct soft_cpu *c, struct soft_block *b)
{
    struct soft_jit *s = c->jit_cache;
    struct jit_code *k = jit_code_of(c, b);
    c->jit.self = (uintptr_t)c;
    c->jit.call = (uintptr_t)jit_call;
    c->jit.call_live = (uintptr_t)jit_call_live;
    c->jit.code_base = c->rip - (uint64_t)k->off;
    c->jit.stale = false;
    c->blocks->running = NULL; /* nothing that handlers write is to be patched */
    jit_key_select(c);
    atomic_store(&c->jit.limit, (uintptr_t)__builtin_frame_address(0) - STACK_USE);
    if (atomic_load(&c->pending))
        return JIT_ATTENTION;
    if (!k->stale)
        jit_jump_put(c, c->rip, k);
    enter_fn *enter;
    memcpy(&enter, &s->thunk.enter, sizeof enter);
    c->jit.enters++;
    enum jit_exit why = (enum jit_exit)run_code(c, enter, s->rx + k->saved_at);
    switch (why) {
    case JIT_LINK:
        k = &s->code[c->jit.exit_arg >> 1];
        c->rip = c->jit.code_base + (uint64_t)(int64_t)k->link[c->jit.exit_arg & 1].off;
        c->jit.exits_link++;
        break;
    case JIT_ATTENTION:
        k = &s->code[c->jit.exit_arg];
        c->rip = c->jit.code_base + (uint64_t)(int64_t)k->off;
        if (k->stale) /* other code may stand there now */
            jit_jump_drop(c, c->rip);
        break;
    case JIT_INDIRECT:
        c->jit.exits_indirect++;
        break;
    default:
        c->jit.exits_leave++;
        break;
    }
    if (!(c->mode & MODE_CS64))
        c->rip = (uint32_t)c->rip;
    return why;
}

void jit_connect(struct soft_cpu *c, enum jit_exit why, struct soft_block *b)
{
    struct soft_jit *s = c->jit_cache;
    if (why == JIT_INDIRECT) {
        struct jit_code *to = jit_code_of(c, b);
        if (!to || to->stale)
            return;
        jit_jump_put(c, c->rip, to);
        return;
    }
    uint32_t id = (uint32_t)(c->jit.exit_arg >> 1);
    struct jit_code *to = jit_code_of(c, b);
    if (!to || to->stale || id >= s->n_code)
        return;
    struct jit_code *from = &s->code[id];
    unsigned way = c->jit.exit_arg & 1;
    if (from->stale || from->page != to->page || from->link[way].off != to->off)
        return;
    if (b->cross) { /* what lies in the next page depends on the mappings: by the jump cache */
        if (s->size - s->used < JIT_BLOCK_ROOM)
            return;
        struct emit e = {s->rw + s->used};
        e_target(s->rw + from->link[way].site, e.p);
        jit_emit_indirect(c, &e, to->off, from->link[way].saved);
        s->used = (size_t)(e.p - s->rw);
        return;
    }
    uint32_t at = from->link[way].saved ? to->saved_at : to->off <= from->off ? to->check_at : to->direct_at;
    e_target(s->rw + from->link[way].site, s->rw + at);
}
