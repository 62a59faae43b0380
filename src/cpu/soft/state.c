/*
 * The canonical CPU state in and out, RESET, INIT and SIPI (SDM 3A, 9.4.4, 10.1). On the vCPU's thread or while it does
 * not run.
 */
#include "cpu/state.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/vec.h"

#define XCR0_KNOWN 0x2e7ull

static struct cpu_segment seg_out(const struct soft_seg *s)
{
    return (struct cpu_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->sel,
        .type = s->attr & SEG_ATTR_TYPE,
        .s = !!(s->attr & SEG_ATTR_S),
        .dpl = SEG_ATTR_DPL(s->attr),
        .present = !!(s->attr & SEG_ATTR_P),
        .avl = s->attr >> 12 & 1,
        .l = !!(s->attr & SEG_ATTR_L),
        .db = !!(s->attr & SEG_ATTR_DB),
        .g = !!(s->attr & SEG_ATTR_G),
        .unusable = !!(s->attr & SEG_ATTR_UNUSABLE),
    };
}

static struct soft_seg seg_in(const struct cpu_segment *s)
{
    uint32_t attr = (s->type & 15) | !!s->s << 4 | (s->dpl & 3) << 5 | !!s->present << 7 | !!s->avl << 12 |
                    !!s->l << 13 | !!s->db << 14 | !!s->g << 15 | !!s->unusable << 16;
    return (struct soft_seg){s->base, s->limit, s->selector, attr};
}

void soft_get_state(struct soft_cpu *c, struct cpu_state *s)
{
    const struct cpu_bus *bus = soft_bus(c);
    memcpy(s->gpr, c->gpr, sizeof s->gpr);
    s->rip = c->rip;
    s->rflags = flags_get(c);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = seg_out(&c->seg[i]);
    s->tr = seg_out(&c->tr);
    s->ldt = seg_out(&c->ldt);
    s->gdt = c->gdt;
    s->idt = c->idt;
    s->cr0 = c->cr0;
    s->cr2 = c->cr2;
    s->cr3 = c->cr3;
    s->cr4 = c->cr4;
    s->efer = c->efer;
    s->xcr0 = c->xcr0;
    s->cr8 = bus && bus->cr8_read ? bus->cr8_read(bus->opaque, c->vcpu.index) : 0;
    s->apic_base = 0;
    if (bus && bus->apic_msr_read)
        bus->apic_msr_read(bus->opaque, c->vcpu.index, MSR_APIC_BASE, &s->apic_base);
    memcpy(s->pdpte, c->pdpte, sizeof s->pdpte);
    memcpy(s->dr, c->dr, sizeof s->dr);
    vec_get_xsave(c, s->xsave);
    s->nmsrs = 0;
    struct soft_exc exc = c->exc; /* reading an MSR that is not there records a fault */
    for (unsigned i = 0; cpu_state_msrs[i]; i++) {
        uint64_t v;
        if (soft_rdmsr(c, cpu_state_msrs[i], &v) == 0)
            cpu_state_set_msr(s, cpu_state_msrs[i], v);
    }
    c->exc = exc;
    s->tsc = soft_tsc(c);
    s->run_state = c->run_state == CPU_RUNNABLE && c->halted ? CPU_HALTED : c->run_state;
    s->exception_pending = c->exc_valid;
    s->exception_vector = c->exc_valid ? exc.vector : 0;
    s->exception_has_error = c->exc_valid && exc.has_error;
    s->exception_error = s->exception_has_error ? exc.error : 0;
    s->interrupt_injected = false;
    s->interrupt_vector = 0;
    s->nmi_pending = atomic_load(&c->pending) & PEND_NMI;
    s->nmi_masked = c->nmi_masked;
    s->interrupt_shadow = c->int_shadow ? (c->ss_shadow ? 2 : 1) : 0;
}

/* What no CPU can be in, and what would make a host instruction fault. */
static int check(const struct cpu_state *s, struct err *err)
{
    bool paging = s->cr0 & CR0_PG, lma = s->efer & EFER_LMA;
    if (paging && !(s->cr0 & CR0_PE))
        return err_set(err, -EINVAL, "CPU state: paging without protected mode");
    if (lma && (!paging || !(s->efer & EFER_LME) || !(s->cr4 & CR4_PAE)))
        return err_set(err, -EINVAL, "CPU state: long mode without what it needs");
    if (s->efer & ~(uint64_t)(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
        return err_set(err, -EINVAL, "CPU state: EFER 0x%llx", (unsigned long long)s->efer);
    if (s->cr0 >> 32 || s->cr4 >> 32 || s->cr8 > 15)
        return err_set(err, -EINVAL, "CPU state: control registers");
    if (s->dr[6] >> 32 || s->dr[7] >> 32)
        return err_set(err, -EINVAL, "CPU state: debug registers");
    if (s->xcr0 & ~XCR0_KNOWN)
        return err_set(err, -EINVAL, "CPU state: XCR0 0x%llx", (unsigned long long)s->xcr0);
    if (le32_get(s->xsave + 24) & ~0xffffu || (le64_get(s->xsave + 512) & ~XCR0_KNOWN))
        return err_set(err, -EINVAL, "CPU state: XSAVE image");
    if ((unsigned)s->run_state > CPU_WAIT_SIPI || s->nmsrs > CPU_MSRS_MAX)
        return err_set(err, -EINVAL, "CPU state: run state");
    if (s->exception_pending && (s->exception_vector > 31 || s->exception_vector == EXC_NMI))
        return err_set(err, -EINVAL, "CPU state: pending exception %u", s->exception_vector);
    return 0;
}

/* MSRs as they come; one that this CPU does not have, or whose value it cannot hold, is left out. */
static void msrs_in(struct soft_cpu *c, const struct cpu_state *s)
{
    for (unsigned i = 0; i < s->nmsrs; i++) {
        const struct cpu_msr *m = &s->msr[i];
        if (m->index == MSR_TSC_ADJUST)
            c->tsc_adjust = m->value;
        else if (m->index != MSR_TSC && m->index != MSR_EFER && m->index != MSR_APIC_BASE &&
                 m->index != MSR_TSC_DEADLINE && soft_wrmsr(c, m->index, m->value))
            continue;
    }
}

int soft_set_state(struct soft_cpu *c, const struct cpu_state *s, struct err *err)
{
    int code = check(s, err);
    if (code)
        return code;
    const struct cpu_bus *bus = soft_bus(c);
    memcpy(c->gpr, s->gpr, sizeof c->gpr);
    c->rip = s->rip;
    c->rflags_rest = (s->rflags & 0x3f7fd7 & ~(uint64_t)FLAGS_STATUS) | FLAG_1;
    flags_set_status(c, s->rflags & FLAGS_STATUS);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        c->seg[i] = seg_in(&s->seg[i]);
    c->tr = seg_in(&s->tr);
    c->ldt = seg_in(&s->ldt);
    c->gdt = s->gdt;
    c->idt = s->idt;
    c->cr0 = s->cr0 | CR0_ET;
    c->cr2 = s->cr2;
    c->cr3 = s->cr3 & c->mmu->phys_mask;
    c->cr4 = s->cr4;
    c->efer = s->efer;
    c->xcr0 = s->xcr0 | XCR0_X87;
    if (bus && bus->cr8_write)
        bus->cr8_write(bus->opaque, c->vcpu.index, s->cr8);
    memcpy(c->pdpte, s->pdpte, sizeof c->pdpte);
    memcpy(c->dr, s->dr, sizeof c->dr);
    vec_set_xsave(c, s->xsave);
    msrs_in(c, s);
    soft_set_tsc(c, s->tsc);
    c->run_state = s->run_state == CPU_HALTED ? CPU_RUNNABLE : s->run_state;
    c->halted = s->run_state == CPU_HALTED;
    c->exc_valid = s->exception_pending;
    if (c->exc_valid)
        c->exc = (struct soft_exc){.vector = s->exception_vector,
                                   .has_error = s->exception_has_error,
                                   .error = s->exception_error,
                                   .cr2 = s->cr2};
    c->nmi_masked = s->nmi_masked;
    c->int_shadow = s->interrupt_shadow;
    c->ss_shadow = s->interrupt_shadow == 2;
    c->dr6_hits = 0;
    c->rf_fresh = c->tf_swallowed = c->shutdown = false;
    mmu_flush(c, true);
    soft_mode_changed(c);
    if (s->nmi_pending)
        pending_set(c, PEND_NMI);
    pending_set(c, PEND_INTR);
    if (s->interrupt_injected)
        exc_interrupt(c, s->interrupt_vector, EXC_EXTERNAL);
    return 0;
}

static uint32_t signature(const struct soft_cpu *c)
{
    const struct cpuid_table *t = &c->soft->cpuid;
    for (unsigned i = 0; i < t->n; i++)
        if (t->entry[i].leaf == 1)
            return t->entry[i].eax;
    return 0;
}

void soft_reset(struct soft_cpu *c, bool bsp)
{
    struct cpu_state *s = xcalloc(1, sizeof *s);
    cpu_state_reset(s, bsp);
    s->gpr[RDX] = signature(c);
    struct err err = {0};
    if (soft_set_state(c, s, &err) < 0)
        abort(); /* our own constant */
    free(s);
}

void soft_take_init(struct soft_cpu *c, bool bsp)
{
    const struct cpu_bus *bus = soft_bus(c);
    memset(c->gpr, 0, sizeof c->gpr);
    c->gpr[RDX] = signature(c);
    c->rip = 0xfff0;
    c->rflags_rest = FLAG_1;
    flags_set_status(c, 0);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        c->seg[i] = (struct soft_seg){0, 0xffff, 0, 0x93};
    c->seg[CS] = (struct soft_seg){0xffff0000, 0xffff, 0xf000, 0x9b};
    c->tr = (struct soft_seg){0, 0xffff, 0, 0x8b};
    c->ldt = (struct soft_seg){0, 0xffff, 0, 0x82};
    c->gdt = c->idt = (struct cpu_table){0, 0xffff};
    /* CD and NW, the FPU, MSRs but EFER, and the TSC stay as they are. */
    c->cr0 = (c->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    c->cr2 = c->cr3 = c->cr4 = c->efer = 0;
    memset(c->dr, 0, sizeof c->dr);
    c->dr[6] = 0xffff0ff0;
    c->dr[7] = 0x400;
    c->dr6_hits = 0;
    c->nmi_masked = c->int_shadow = c->exc_valid = c->halted = c->shutdown = c->rf_fresh = c->tf_swallowed = false;
    c->run_state = bsp ? CPU_RUNNABLE : CPU_WAIT_SIPI;
    mmu_flush(c, true);
    soft_mode_changed(c);
    if (bus && bus->init_taken)
        bus->init_taken(bus->opaque, c->vcpu.index);
}

void soft_take_sipi(struct soft_cpu *c, uint8_t vector)
{
    if (c->run_state != CPU_WAIT_SIPI)
        return;
    c->seg[CS].sel = vector << 8;
    c->seg[CS].base = (uint32_t)vector << 12;
    c->rip = 0;
    c->run_state = CPU_RUNNABLE;
    soft_mode_changed(c);
}
