/*
 * The run loop: events, then blocks of instructions until the next event. On the vCPU's thread; pending_set() on any.
 *
 * Between blocks `pending` is the only thing looked at, so whoever wants the vCPU's attention sets a bit there. HLT
 * sleeps on the same word.
 */
#include "cpu/soft/run.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/soft/blocks.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/timer.h"

void pending_set(struct soft_cpu *c, uint32_t bits)
{
    pending_add(c, bits);
    if (atomic_load(&c->sleeping))
        syscall(SYS_futex, &c->pending, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Sleeps until a bit of `pending` is set. The timer's signal ends the wait too, or comes before it; both are fine. */
static void sleep_until_pending(struct soft_cpu *c)
{
    atomic_store(&c->sleeping, true);
    while (atomic_load(&c->pending) == 0)
        syscall(SYS_futex, &c->pending, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    atomic_store(&c->sleeping, false);
}

static void timer_due(struct soft_cpu *c)
{
    if (c->timer_ns && clock_now(c->vcpu.engine->cfg.clock) >= c->timer_ns) {
        c->timer_ns = 0;
        soft_bus(c)->timer_expired(soft_bus(c)->opaque, c->vcpu.index);
    } else {
        timer_rearm(c); /* a signal of a time that is armed no more */
    }
}

/* Delivers an interrupt from the APIC or PIC if one is there and may come now. */
static void take_interrupt(struct soft_cpu *c)
{
    const struct cpu_bus *bus = soft_bus(c);
    c->irq_waits = false;
    if (!bus->irq_pending || !bus->irq_pending(bus->opaque, c->vcpu.index))
        return;
    if (!(c->rflags_rest & FLAG_IF)) {
        c->irq_waits = true; /* flags_write() will look again */
        return;
    }
    if (c->int_shadow) {
        pending_add(c, PEND_INTR);
        return;
    }
    int vector = bus->irq_ack(bus->opaque, c->vcpu.index);
    if (vector >= 0) {
        c->halted = false;
        exc_interrupt(c, vector, EXC_EXTERNAL);
    }
    c->irq_waits = true; /* there may be another one behind it */
    if (c->rflags_rest & FLAG_IF)
        pending_add(c, PEND_INTR);
}

/* Handles all pending events in the order of their priority (SDM 3A, 6.9). True: return to the caller of vcpu_run. */
static bool handle_pending(struct soft_cpu *c)
{
    code_requests(c);
    uint32_t p = atomic_exchange(&c->pending, 0);
    if (p & PEND_CODE)
        jit_take_drops(c);
    if (p & (PEND_TLB | PEND_TLB_ALL)) { /* came in between */
        pending_add(c, p & (PEND_TLB | PEND_TLB_ALL));
        code_requests_slow(c);
    }
    if (p & PEND_VIEW)
        mmu_flush(c, true);
    if (p & PEND_TIMER)
        timer_due(c);
    if (p & PEND_INIT) {
        c->halted = false;
        soft_take_init(c, c->vcpu.index == 0);
    }
    if (p & PEND_SIPI)
        soft_take_sipi(c, atomic_load(&c->sipi_vector));
    if (p & (PEND_INIT | PEND_SIPI))
        p |= PEND_INTR; /* nobody looked while it waited */
    if (c->debug_step && c->run_state == CPU_RUNNABLE && !c->halted) {
        pending_add(c, p & (PEND_INTR | PEND_NMI)); /* after the step */
        p &= ~(PEND_INTR | PEND_NMI);
    }
    bool halted = c->halted;
    if (c->run_state == CPU_RUNNABLE) {
        bool nmi_now = (p & PEND_NMI) && !c->nmi_masked && !c->int_shadow;
        if (nmi_now) {
            c->halted = false;
            exc_interrupt(c, EXC_NMI, EXC_NMI_KIND);
        }
        if (p & PEND_INTR)
            take_interrupt(c);
        p &= nmi_now ? ~PEND_NMI : ~0u;
        if (c->debug_step && halted && !c->halted)
            debugger_stepped(c);
    }
    if (p & PEND_NMI)
        pending_add(c, PEND_NMI);
    return p & PEND_KICK;
}

/* The fault of the instruction that just ran. */
unsigned chaos_below(struct soft_cpu *c, unsigned n)
{
    c->chaos ^= c->chaos << 13;
    c->chaos ^= c->chaos >> 7;
    c->chaos ^= c->chaos << 17;
    return (c->chaos >> 20) % n;
}

static void deliver(struct soft_cpu *c)
{
    c->exc_valid = false;
    exc_deliver(c);
}

static inline uint64_t code_linear(const struct soft_cpu *c)
{
    return c->mode & MODE_CS64 ? c->rip : (uint32_t)(c->seg[CS].base + c->rip);
}

/* The block to run at linear address `lin`: by the jump cache, or found anew. NULL: a fault to deliver. */
static struct soft_block *block_at(struct soft_cpu *c, uint64_t lin)
{
    const struct jump_entry *j = jump_slot(c, lin);
    struct soft_block *b = j->to;
    if (j->lin == lin && j->epoch == c->code_epoch && b && b->mode == c->mode && block_valid(b) && block_in_limit(c, b))
        return b;
    return block_find(c, lin);
}

/*
 * Runs blocks from c->rip until an event is pending or an instruction wants a closer look. A chained successor lies in
 * the same page as the block before it, which is running by the mappings of now; so a chain needs no look at the
 * mappings.
 */
static void run_blocks(struct soft_cpu *c)
{
    struct soft_blocks *s = c->blocks;
    struct soft_block *b;
    uint64_t lin = code_linear(c);
    for (b = block_at(c, lin); b;) {
        if (jit_ready(c, b)) {
            enum jit_exit why = jit_execute(c, b);
            if (why == JIT_FAULT)
                deliver(c);
            if (why == JIT_FAULT || why == JIT_LEAVE || why == JIT_ATTENTION)
                return;
            lin = code_linear(c);
            uint64_t flushes = s->flushes;
            b = block_at(c, lin);
            if (why != JIT_NEAR && b && s->flushes == flushes && jit_ready(c, b))
                jit_connect(c, why, b);
            continue;
        }
        s->running = b;
        const struct insn *i = b->insn;
        uint64_t rip = c->rip;
        int r;
        for (;;) {
            c->rip = rip;
            r = i->fn(c, i);
            if (__builtin_expect(r != INSN_NEXT, 0))
                break;
            rip += i->len;
            i++;
        }
        c->insns += b->n;
        unsigned way = 1;
        switch (r) {
        case INSN_NEAR:
            way = 0;
            break;
        case INSN_FALL:
            c->rip = rip + i->len;
            break;
        case INSN_END:
            break;
        case INSN_BREAK:
            c->rip = rip + i->len;
            return;
        case INSN_JUMP:
            return;
        default:
            deliver(c);
            return;
        }
        if (__builtin_expect(!(c->mode & MODE_CS64), 0))
            c->rip = (uint32_t)c->rip;
        if (__builtin_expect(atomic_load_explicit(&c->pending, memory_order_relaxed), 0))
            return;
        uint64_t before = lin;
        lin = code_linear(c);
        struct soft_block *to = b->link[way].to;
        if (__builtin_expect(to && b->link[way].lin == lin && block_valid(to) && block_in_limit(c, to), 1)) {
            b = to;
            continue;
        }
        uint64_t flushes = s->flushes;
        to = block_at(c, lin);
        if (to && (before ^ lin) < PAGE_SIZE && !b->cross && !b->once && !to->cross && !to->once &&
            s->flushes == flushes) {
            b->link[way].lin = lin;
            b->link[way].to = to;
        }
        b = to;
    }
    if (c->debug_leave)
        c->debug_leave = false;
    else
        deliver(c);
}

static void step(struct soft_cpu *c)
{
    bool tf = c->rflags_rest & FLAG_TF;
    uint64_t lin = code_linear(c), rip = c->rip;
    struct soft_block *b;
    if (c->debug && debugger_check_fetch(c, lin))
        return;
    if ((c->slow_step && dbg_check_fetch(c, lin)) || !(b = block_at(c, lin))) {
        deliver(c);
        return;
    }
    if (c->int_shadow) { /* of the instruction before */
        c->int_shadow = false;
        soft_step_changed(c);
    }
    c->blocks->running = b;
    const struct insn *i = b->insn;
    uint8_t len = i->len; /* the block may go away under it */
    switch (i->fn(c, i)) {
    case INSN_NEXT:
    case INSN_BREAK:
    case INSN_FALL:
        c->rip = rip + len;
        break;
    case INSN_FAULT:
        deliver(c);
        return;
    default: /* it has set RIP */
        break;
    }
    if (!(c->mode & MODE_CS64))
        c->rip = (uint32_t)c->rip;
    c->insns++;
    if ((c->slow_step || tf) && dbg_insn_done(c, tf))
        deliver(c);
}

void soft_step(struct soft_cpu *c)
{
    c->debug_stepping = true;
    step(c);
    c->debug_stepping = false;
    if (c->debug_step)
        debugger_stepped(c);
}

enum vcpu_exit soft_run(struct vcpu *v, struct err *err)
{
    struct soft_cpu *c = soft_cpu_of(v);
    if (timer_attach(c, err) < 0)
        return VCPU_EXIT_ERROR;
    jit_attach(c);
    bool tracking = atomic_load(&v->engine->cfg.mem->dirty_tracking);
    if (tracking != c->dirty_tracking) { /* entries that write past it must go */
        c->dirty_tracking = tracking;
        mmu_flush(c, true);
    }
    for (;;) {
        if (atomic_load_explicit(&c->pending, memory_order_relaxed) && handle_pending(c))
            return VCPU_EXIT_KICKED;
        if (c->shutdown)
            return VCPU_EXIT_SHUTDOWN;
        if (c->debug && debugger_stops(c))
            return VCPU_EXIT_DEBUG;
        if (c->halted || c->run_state != CPU_RUNNABLE)
            sleep_until_pending(c);
        else if (c->exc_valid)
            deliver(c);
        else if (c->slow_step || c->int_shadow || (c->chaos && chaos_below(c, 3) == 0) || (c->debug && debugger_page(c, code_linear(c))))
            soft_step(c);
        else
            run_blocks(c);
    }
}
