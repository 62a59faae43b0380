/*
 * A vCPU's state (cpu/state.h) as an object of the state stream: every number in a field of its own width, nothing of a host struct.
 * What the values mean is checked by the engine that takes them.
 */
#include <errno.h>
#include <string.h>

#include "machine/save.h"

enum { FLAG_EXCEPTION = 1, FLAG_ERROR = 2, FLAG_INTERRUPT = 4, FLAG_NMI = 8, FLAG_NMI_MASKED = 16 };
/* Segments: ES … GS, TR, LDTR. Their attributes as in a VMCS: type, S, DPL, P, AVL, L, D/B, G, unusable (SDM 3C, table 25-2). */
enum { SEGS = SAVED_CPU_SEGS };

static uint32_t attributes(const struct cpu_segment *s)
{
    return (uint32_t)(s->type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 12 | s->l << 13 | s->db << 14 |
                      s->g << 15 | s->unusable << 16);
}

static struct cpu_segment segment(const struct saved_cpu *c, unsigned i)
{
    uint32_t a = c->seg_attr[i];
    return (struct cpu_segment){
        .base = c->seg_base[i],
        .limit = c->seg_limit[i],
        .selector = c->seg_sel[i],
        .type = a & 15,
        .s = a >> 4 & 1,
        .dpl = a >> 5 & 3,
        .present = a >> 7 & 1,
        .avl = a >> 12 & 1,
        .l = a >> 13 & 1,
        .db = a >> 14 & 1,
        .g = a >> 15 & 1,
        .unusable = a >> 16 & 1,
    };
}

void saved_cpu_from(struct saved_cpu *c, const struct cpu_state *s)
{
    *c = (struct saved_cpu){0};
    memcpy(c->gpr, s->gpr, sizeof c->gpr);
    c->rip = s->rip;
    c->rflags = s->rflags;
    for (unsigned i = 0; i < SEGS; i++) {
        const struct cpu_segment *g = i < SEG_COUNT ? &s->seg[i] : i == SEG_COUNT ? &s->tr : &s->ldt;
        c->seg_base[i] = g->base;
        c->seg_limit[i] = g->limit;
        c->seg_sel[i] = g->selector;
        c->seg_attr[i] = attributes(g);
    }
    c->gdt_base = s->gdt.base, c->gdt_limit = s->gdt.limit;
    c->idt_base = s->idt.base, c->idt_limit = s->idt.limit;
    const uint64_t cr[] = {s->cr0, s->cr2, s->cr3, s->cr4, s->cr8, s->efer, s->apic_base, s->xcr0};
    _Static_assert(sizeof cr == sizeof c->cr, "as many as there is room for");
    memcpy(c->cr, cr, sizeof cr);
    memcpy(c->pdpte, s->pdpte, sizeof c->pdpte);
    memcpy(c->dr, s->dr, sizeof c->dr);
    memcpy(c->xsave, s->xsave, sizeof c->xsave);
    for (unsigned i = 0; i < s->nmsrs && i < CPU_MSRS_MAX; i++) {
        c->msr_index[i] = s->msr[i].index;
        c->msr_value[i] = s->msr[i].value;
    }
    c->tsc = s->tsc;
    c->run_state = (uint8_t)s->run_state;
    c->events = (uint8_t)((s->exception_pending ? FLAG_EXCEPTION : 0) | (s->exception_has_error ? FLAG_ERROR : 0) |
                          (s->interrupt_injected ? FLAG_INTERRUPT : 0) | (s->nmi_pending ? FLAG_NMI : 0) |
                          (s->nmi_masked ? FLAG_NMI_MASKED : 0));
    c->exception_vector = s->exception_vector;
    c->exception_error = s->exception_error;
    c->interrupt_vector = s->interrupt_vector;
    c->interrupt_shadow = s->interrupt_shadow;
}

int saved_cpu_to(const struct saved_cpu *c, struct cpu_state *s, struct err *err)
{
    memset(s, 0, sizeof *s);
    if (c->run_state > CPU_WAIT_SIPI || c->interrupt_shadow > 2)
        return err_set(err, -EINVAL, "saved state of a CPU: its run state cannot be");
    memcpy(s->gpr, c->gpr, sizeof s->gpr);
    s->rip = c->rip;
    s->rflags = c->rflags;
    for (unsigned i = 0; i < SEGS; i++)
        *(i < SEG_COUNT ? &s->seg[i] : i == SEG_COUNT ? &s->tr : &s->ldt) = segment(c, i);
    s->gdt = (struct cpu_table){c->gdt_base, c->gdt_limit};
    s->idt = (struct cpu_table){c->idt_base, c->idt_limit};
    s->cr0 = c->cr[0], s->cr2 = c->cr[1], s->cr3 = c->cr[2], s->cr4 = c->cr[3], s->cr8 = c->cr[4];
    s->efer = c->cr[5], s->apic_base = c->cr[6], s->xcr0 = c->cr[7];
    memcpy(s->pdpte, c->pdpte, sizeof s->pdpte);
    memcpy(s->dr, c->dr, sizeof s->dr);
    memcpy(s->xsave, c->xsave, sizeof s->xsave);
    for (unsigned i = 0; i < CPU_MSRS_MAX; i++)
        if (c->msr_index[i])
            cpu_state_set_msr(s, c->msr_index[i], c->msr_value[i]);
    s->tsc = c->tsc;
    s->run_state = (enum cpu_run_state)c->run_state;
    s->exception_pending = c->events & FLAG_EXCEPTION;
    s->exception_has_error = c->events & FLAG_ERROR;
    s->interrupt_injected = c->events & FLAG_INTERRUPT;
    s->nmi_pending = c->events & FLAG_NMI;
    s->nmi_masked = c->events & FLAG_NMI_MASKED;
    s->exception_vector = c->exception_vector;
    s->exception_error = c->exception_error;
    s->interrupt_vector = c->interrupt_vector;
    s->interrupt_shadow = c->interrupt_shadow;
    return 0;
}

static const struct state_field fields[] = {
    STATE_ARRAY(struct saved_cpu, gpr),
    STATE_U(struct saved_cpu, rip),
    STATE_U(struct saved_cpu, rflags),
    STATE_ARRAY(struct saved_cpu, seg_base),
    STATE_ARRAY(struct saved_cpu, seg_limit),
    STATE_ARRAY(struct saved_cpu, seg_sel),
    STATE_ARRAY(struct saved_cpu, seg_attr),
    STATE_U(struct saved_cpu, gdt_base),
    STATE_U(struct saved_cpu, gdt_limit),
    STATE_U(struct saved_cpu, idt_base),
    STATE_U(struct saved_cpu, idt_limit),
    STATE_ARRAY(struct saved_cpu, cr),
    STATE_ARRAY(struct saved_cpu, pdpte),
    STATE_ARRAY(struct saved_cpu, dr),
    STATE_RAW(struct saved_cpu, xsave),
    STATE_ARRAY(struct saved_cpu, msr_index),
    STATE_ARRAY(struct saved_cpu, msr_value),
    STATE_U(struct saved_cpu, tsc),
    STATE_U(struct saved_cpu, run_state),
    STATE_U(struct saved_cpu, events),
    STATE_U(struct saved_cpu, exception_vector),
    STATE_U(struct saved_cpu, exception_error),
    STATE_U(struct saved_cpu, interrupt_vector),
    STATE_U(struct saved_cpu, interrupt_shadow),
    STATE_END,
};
const struct state_desc saved_cpu_desc = {"cpu", 1, 1, fields, NULL, NULL};
