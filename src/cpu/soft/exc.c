/*
 * Exceptions and interrupts: real mode, protected mode, v8086 and long mode (SDM 3A, ch. 6; vol. 2, INT n). A delivery
 * computes and checks everything first, writes the frame, and changes registers last, so that a fault in it leaves the
 * state as it was. On the vCPU's thread.
 */
#include "cpu/soft/exc.h"

#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/stack.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/task.h"

#define DR6_BD BIT(13)
#define DR7_GD BIT(13)

int exc_raise(struct soft_cpu *c, unsigned vector)
{
    c->exc = (struct soft_exc){.vector = vector};
    return INSN_FAULT;
}

int exc_raise_code(struct soft_cpu *c, unsigned vector, uint32_t error)
{
    c->exc = (struct soft_exc){.vector = vector, .has_error = true, .error = error};
    return INSN_FAULT;
}

int exc_page_fault(struct soft_cpu *c, uint64_t lin, uint32_t error)
{
    c->exc = (struct soft_exc){.vector = EXC_PF, .has_error = true, .error = error, .cr2 = lin};
    return INSN_FAULT;
}

int exc_debug(struct soft_cpu *c, uint64_t dr6)
{
    c->exc = (struct soft_exc){.vector = EXC_DB, .dr6 = dr6};
    return INSN_FAULT;
}

/* One event on its way. */
struct event {
    unsigned vector;
    enum exc_kind kind;
    bool has_error;
    uint32_t error;
    uint32_t ext;   /* 1: not caused by INT n; goes into error codes */
    uint64_t rip;   /* to return to */
    uint64_t flags; /* to push */
};

static void load_code(struct soft_cpu *c, uint16_t sel, uint64_t raw, unsigned cpl)
{
    c->seg[CS] = seg_from_desc((sel & ~3u) | cpl, raw);
}

static int deliver_real(struct soft_cpu *c, const struct event *e)
{
    uint32_t entry;
    if (e->vector * 4 + 3 > c->idt.limit)
        return exc_raise_code(c, EXC_GP, e->vector * 8 + 2);
    int r = mmu_read_sys(c, c->idt.base + e->vector * 4, &entry, 4);
    if (r)
        return r;
    struct stack s = stack_current(c);
    if ((r = stack_push(c, &s, 2, e->flags)) || (r = stack_push(c, &s, 2, c->seg[CS].sel)) ||
        (r = stack_push(c, &s, 2, e->rip)))
        return r;
    stack_commit(c, &s);
    seg_load_real(c, CS, entry >> 16);
    c->rip = entry & 0xffff;
    flags_write(c, 0, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
    soft_mode_changed(c);
    return 0;
}

/* Checks the code segment of a gate. *ret_cpl: the privilege of the handler. */
static int check_code(struct soft_cpu *c, uint16_t sel, uint32_t ext, struct seg_desc *d, unsigned *ret_cpl)
{
    uint32_t error = (sel & ~3u) | ext;
    if (sel_null(sel))
        return exc_raise_code(c, EXC_GP, ext);
    int r = seg_desc_get(c, sel, d);
    if (r > 0)
        return r;
    if (r < 0 || !desc_code(d->raw) || desc_dpl(d->raw) > c->cpl)
        return exc_raise_code(c, EXC_GP, error);
    if (c->efer & EFER_LMA) {
        if (!(d->raw >> 53 & 1) || (d->raw >> 54 & 1))
            return exc_raise_code(c, EXC_GP, error);
    }
    if (!desc_p(d->raw))
        return exc_raise_code(c, EXC_NP, error);
    *ret_cpl = desc_conforming(d->raw) ? c->cpl : desc_dpl(d->raw);
    if ((c->mode & MODE_VM86) && *ret_cpl != 0)
        return exc_raise_code(c, EXC_GP, error);
    return 0;
}

static void enter_handler(struct soft_cpu *c, unsigned gate_type)
{
    /* Interrupt gates have an even type; trap gates leave IF. */
    flags_write(c, 0, FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (gate_type & 1 ? 0 : FLAG_IF));
    soft_mode_changed(c);
}

static int deliver_long(struct soft_cpu *c, const struct event *e)
{
    uint64_t gate[2];
    uint32_t gate_error = (e->vector * 8 + 2) | e->ext;
    if (e->vector * 16 + 15 > c->idt.limit)
        return exc_raise_code(c, EXC_GP, gate_error);
    int r = mmu_read_sys(c, c->idt.base + e->vector * 16, gate, 16);
    if (r)
        return r;
    unsigned type = gate[0] >> 40 & 0x1f;
    if ((type != 14 && type != 15) || (gate[1] >> 40 & 0x1f))
        return exc_raise_code(c, EXC_GP, gate_error);
    if (e->kind == EXC_SOFT_INT && desc_dpl(gate[0]) < c->cpl)
        return exc_raise_code(c, EXC_GP, gate_error);
    if (!desc_p(gate[0]))
        return exc_raise_code(c, EXC_NP, gate_error);
    uint16_t sel = gate[0] >> 16;
    uint64_t target = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
    struct seg_desc code;
    unsigned cpl, ist = gate[0] >> 32 & 7;
    if ((r = check_code(c, sel, e->ext, &code, &cpl)))
        return r;
    struct stack s = {.sp = c->gpr[RSP], .mask = ~0ull, .wide = true, .super = cpl != 3, .error = e->ext};
    if (ist || cpl != c->cpl) {
        unsigned off = ist ? 0x24 + (ist - 1) * 8 : 4 + cpl * 8;
        if (off + 7 > c->tr.limit)
            return exc_raise_code(c, EXC_TS, (c->tr.sel & ~3u) | e->ext);
        if ((r = mmu_read_sys(c, c->tr.base + off, &s.sp, 8)))
            return r;
    }
    if (!lin_canonical(s.sp))
        return exc_raise_code(c, EXC_SS, e->ext);
    if (!lin_canonical(target))
        return exc_raise_code(c, EXC_GP, e->ext);
    s.sp &= ~15ull;
    if ((r = stack_push(c, &s, 8, c->seg[SS].sel)) || (r = stack_push(c, &s, 8, c->gpr[RSP])) ||
        (r = stack_push(c, &s, 8, e->flags)) || (r = stack_push(c, &s, 8, c->seg[CS].sel)) ||
        (r = stack_push(c, &s, 8, e->rip)))
        return r;
    if (e->has_error && (r = stack_push(c, &s, 8, e->error)))
        return r;
    if ((r = seg_set_accessed(c, &code)))
        return r;
    if (cpl != c->cpl)
        c->seg[SS] = seg_null(cpl, cpl);
    c->gpr[RSP] = s.sp;
    load_code(c, sel, code.raw, cpl);
    c->rip = target;
    enter_handler(c, type);
    return 0;
}

/* The stack of privilege `cpl` from the TSS. */
static int inner_stack(struct soft_cpu *c, unsigned cpl, uint32_t ext, struct stack *s)
{
    bool tss32 = c->tr.attr & 8;
    unsigned off = tss32 ? 4 + cpl * 8 : 2 + cpl * 4, size = tss32 ? 4 : 2;
    uint32_t sp = 0;
    uint16_t sel;
    if (off + size + 1 > c->tr.limit)
        return exc_raise_code(c, EXC_TS, (c->tr.sel & ~3u) | ext);
    int r = mmu_read_sys(c, c->tr.base + off, &sp, size);
    if (r || (r = mmu_read_sys(c, c->tr.base + off + size, &sel, 2)))
        return r;
    struct seg_desc d;
    if ((r = seg_check_ss(c, sel, cpl, EXC_TS, &d)) || (r = seg_set_accessed(c, &d)))
        return r;
    s->ss = seg_from_desc(sel, d.raw);
    s->sp = sp;
    s->mask = s->ss.attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
    s->error = (sel & ~3u) | ext;
    s->super = true;
    return 0;
}

int exc_inner_stack(struct soft_cpu *c, unsigned cpl, struct stack *s)
{
    return inner_stack(c, cpl, 0, s);
}

static int deliver_task_gate(struct soft_cpu *c, const struct event *e, uint16_t sel)
{
    struct seg_desc d;
    int r = task_check(c, sel, e->ext, &d);
    if (r)
        return r;
    uint64_t rip = c->rip, rflags = flags_get(c);
    c->rip = e->rip;
    flags_write(c, e->flags, FLAG_RF);
    r = task_switch(c, sel, &d, TASK_GATE);
    if (r) {
        c->rip = rip;
        flags_write(c, rflags, FLAG_RF);
        return r;
    }
    if (e->has_error) {
        struct stack s = stack_current(c);
        s.error = e->ext;
        if ((r = stack_push(c, &s, c->tr.attr & 8 ? 4 : 2, e->error)))
            return r;
        stack_commit(c, &s);
    }
    return 0;
}

static int deliver_protected(struct soft_cpu *c, const struct event *e)
{
    uint64_t gate;
    uint32_t gate_error = (e->vector * 8 + 2) | e->ext;
    if (e->vector * 8 + 7 > c->idt.limit)
        return exc_raise_code(c, EXC_GP, gate_error);
    int r = mmu_read_sys(c, c->idt.base + e->vector * 8, &gate, 8);
    if (r)
        return r;
    unsigned type = gate >> 40 & 0x1f;
    if (type != 5 && type != 6 && type != 7 && type != 14 && type != 15)
        return exc_raise_code(c, EXC_GP, gate_error);
    if (e->kind == EXC_SOFT_INT && desc_dpl(gate) < c->cpl)
        return exc_raise_code(c, EXC_GP, gate_error);
    if (!desc_p(gate))
        return exc_raise_code(c, EXC_NP, gate_error);
    uint16_t sel = gate >> 16;
    if (type == 5)
        return deliver_task_gate(c, e, sel);
    unsigned size = type & 8 ? 4 : 2, cpl;
    uint32_t target = (gate & 0xffff) | (size == 4 ? gate >> 32 & 0xffff0000 : 0);
    struct seg_desc code;
    if ((r = check_code(c, sel, e->ext, &code, &cpl)))
        return r;
    bool vm86 = c->mode & MODE_VM86, inner = cpl != c->cpl;
    struct stack s = stack_current(c);
    s.error = e->ext;
    if (inner && (r = inner_stack(c, cpl, e->ext, &s)))
        return r;
    struct soft_seg cs = seg_from_desc(sel, code.raw);
    if (!seg_in_limit(&cs, target, 1))
        return exc_raise_code(c, EXC_GP, e->ext);
    if ((r = stack_room(c, &s, size * ((vm86 ? 9 : inner ? 5 : 3) + e->has_error))))
        return r;
    if (vm86) {
        static const uint8_t order[] = {GS, FS, DS, ES};
        for (unsigned i = 0; i < 4; i++)
            if ((r = stack_push(c, &s, size, c->seg[order[i]].sel)))
                return r;
    }
    if (inner && ((r = stack_push(c, &s, size, c->seg[SS].sel)) || (r = stack_push(c, &s, size, c->gpr[RSP]))))
        return r;
    if ((r = stack_push(c, &s, size, e->flags)) || (r = stack_push(c, &s, size, c->seg[CS].sel)) ||
        (r = stack_push(c, &s, size, e->rip)))
        return r;
    if (e->has_error && (r = stack_push(c, &s, size, e->error)))
        return r;
    if ((r = seg_set_accessed(c, &code)))
        return r;
    if (vm86) {
        c->seg[ES] = c->seg[DS] = c->seg[FS] = c->seg[GS] = seg_null(0, 0);
    }
    if (inner)
        c->seg[SS] = s.ss;
    stack_commit(c, &s);
    load_code(c, sel, code.raw, cpl);
    c->rip = target;
    enter_handler(c, type);
    return 0;
}

static int deliver(struct soft_cpu *c, const struct event *e)
{
    int r = !(c->cr0 & CR0_PE) ? deliver_real(c, e) : c->efer & EFER_LMA ? deliver_long(c, e) : deliver_protected(c, e);
    return r;
}

/* SDM 3A, table 6-5. */
static bool contributory(unsigned vector)
{
    return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP);
}

static bool doubles(unsigned first, unsigned second)
{
    if (first == EXC_PF)
        return second == EXC_PF || contributory(second);
    return contributory(first) && contributory(second);
}

static bool is_fault(const struct soft_exc *x)
{
    if (x->vector == EXC_DB)
        return x->dr6 & DR6_BD;
    return x->vector != EXC_BP && x->vector != EXC_OF && x->vector != EXC_NMI && x->vector != EXC_DF &&
           x->vector != EXC_MC;
}

/* Turns c->exc into an event; what the exception itself does to CR2 and the debug registers happens here. */
static struct event take(struct soft_cpu *c)
{
    const struct soft_exc *x = &c->exc;
    struct event e = {.vector = x->vector, .kind = EXC_FAULT, .has_error = x->has_error && (c->cr0 & CR0_PE), .ext = 1};
    e.error = x->error;
    e.rip = c->rip;
    e.flags = flags_get(c);
    if (is_fault(x))
        e.flags |= FLAG_RF;
    if (x->vector == EXC_PF)
        c->cr2 = x->cr2;
    if (x->vector == EXC_DB) {
        c->dr[6] |= x->dr6;
        c->dr[7] &= ~(uint64_t)DR7_GD;
    }
    return e;
}

/* Delivers e, then whatever goes wrong in that, until something is delivered or the CPU shuts down. */
static void deliver_all(struct soft_cpu *c, struct event e, bool benign)
{
    c->halted = false;
    while (deliver(c, &e)) {
        unsigned first = e.vector, second = c->exc.vector;
        if (!benign && first == EXC_DF) {
            c->shutdown = true;
            return;
        }
        bool df = !benign && doubles(first, second);
        e = take(c);
        benign = false;
        if (df) {
            e.vector = EXC_DF;
            e.has_error = c->cr0 & CR0_PE;
            e.error = 0;
        }
    }
    c->exc_valid = false;
}

void exc_deliver(struct soft_cpu *c)
{
    c->int_shadow = false;
    deliver_all(c, take(c), false);
}

void exc_interrupt(struct soft_cpu *c, unsigned vector, enum exc_kind kind)
{
    struct event e = {
        .vector = vector, .kind = kind, .ext = kind != EXC_SOFT_INT, .rip = c->rip, .flags = flags_get(c)};
    c->int_shadow = false;
    if (kind == EXC_NMI_KIND)
        c->nmi_masked = true;
    deliver_all(c, e, true);
}

int exc_soft_int(struct soft_cpu *c, unsigned vector, uint64_t next_rip, bool privileged)
{
    struct event e = {
        .vector = vector, .kind = privileged ? EXC_FAULT : EXC_SOFT_INT, .ext = privileged, .rip = next_rip};
    e.flags = flags_get(c);
    if (deliver(c, &e))
        return INSN_FAULT;
    c->tf_swallowed = e.flags & FLAG_TF;
    return INSN_JUMP;
}
