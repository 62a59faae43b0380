/*
 * The canonical CPU state: what it is after RESET, which MSRs belong to it, and how it looks as text. Pure functions,
 * any thread.
 */
#include "cpu/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const uint32_t cpu_state_msrs[] = {
    MSR_SYSENTER_CS,
    MSR_SYSENTER_ESP,
    MSR_SYSENTER_EIP,
    MSR_STAR,
    MSR_LSTAR,
    MSR_CSTAR,
    MSR_FMASK,
    MSR_KERNEL_GS_BASE,
    MSR_TSC_AUX,
    MSR_TSC_ADJUST,
    MSR_TSC_DEADLINE,
    MSR_SPEC_CTRL,
    MSR_MISC_ENABLE,
    MSR_XSS,
    MSR_PAT,
    MSR_MTRR_DEF_TYPE,
    MSR_MTRR_FIX64K,
    MSR_MTRR_FIX16K_80000,
    MSR_MTRR_FIX16K_A0000,
    MSR_MTRR_FIX4K_C0000,
    MSR_MTRR_FIX4K_C0000 + 1,
    MSR_MTRR_FIX4K_C0000 + 2,
    MSR_MTRR_FIX4K_C0000 + 3,
    MSR_MTRR_FIX4K_C0000 + 4,
    MSR_MTRR_FIX4K_C0000 + 5,
    MSR_MTRR_FIX4K_C0000 + 6,
    MSR_MTRR_FIX4K_C0000 + 7,
    MSR_MTRR_PHYS_BASE0,
    MSR_MTRR_PHYS_BASE0 + 1,
    MSR_MTRR_PHYS_BASE0 + 2,
    MSR_MTRR_PHYS_BASE0 + 3,
    MSR_MTRR_PHYS_BASE0 + 4,
    MSR_MTRR_PHYS_BASE0 + 5,
    MSR_MTRR_PHYS_BASE0 + 6,
    MSR_MTRR_PHYS_BASE0 + 7,
    MSR_MTRR_PHYS_BASE0 + 8,
    MSR_MTRR_PHYS_BASE0 + 9,
    MSR_MTRR_PHYS_BASE0 + 10,
    MSR_MTRR_PHYS_BASE0 + 11,
    MSR_MTRR_PHYS_BASE0 + 12,
    MSR_MTRR_PHYS_BASE0 + 13,
    MSR_MTRR_PHYS_BASE0 + 14,
    MSR_MTRR_PHYS_BASE0 + 15,
    0,
};

static struct cpu_segment reset_segment(uint16_t selector, uint64_t base, uint8_t type, uint8_t s)
{
    return (struct cpu_segment){
        .selector = selector, .base = base, .limit = 0xffff, .type = type, .s = s, .present = 1};
}

void cpu_state_reset(struct cpu_state *s, bool bsp)
{
    memset(s, 0, sizeof *s);
    s->rip = 0xfff0;
    s->rflags = FLAG_1;
    s->gpr[RDX] = 0x600;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = i == CS ? reset_segment(0xf000, 0xffff0000, 0xb, 1) : reset_segment(0, 0, 3, 1);
    s->tr = reset_segment(0, 0, 0xb, 0);
    s->ldt = reset_segment(0, 0, 2, 0);
    s->gdt.limit = s->idt.limit = 0xffff;
    s->cr0 = CR0_CD | CR0_NW | CR0_ET;
    s->apic_base = 0xfee00800 | (bsp ? BIT(8) : 0);
    s->dr[6] = 0xffff0ff0;
    s->dr[7] = 0x400;
    s->xcr0 = XCR0_X87;
    le16_put(s->xsave, 0x40);        /* FCW */
    le32_put(s->xsave + 24, 0x1f80); /* MXCSR */
    le64_put(s->xsave + 512, XCR0_X87 | XCR0_SSE);
    for (unsigned i = 0; cpu_state_msrs[i]; i++)
        cpu_state_set_msr(s, cpu_state_msrs[i], 0);
    cpu_state_set_msr(s, MSR_PAT, 0x0007040600070406);
    cpu_state_set_msr(s, MSR_MISC_ENABLE, 1); /* fast strings */
    s->run_state = bsp ? CPU_RUNNABLE : CPU_WAIT_INIT;
}

uint64_t *cpu_state_msr(struct cpu_state *s, uint32_t index)
{
    for (unsigned i = 0; i < s->nmsrs && i < CPU_MSRS_MAX; i++)
        if (s->msr[i].index == index)
            return &s->msr[i].value;
    return NULL;
}

void cpu_state_set_msr(struct cpu_state *s, uint32_t index, uint64_t value)
{
    uint64_t *p = cpu_state_msr(s, index);
    if (p)
        *p = value;
    else if (s->nmsrs < CPU_MSRS_MAX)
        s->msr[s->nmsrs++] = (struct cpu_msr){index, value};
}

struct text {
    char *buf;
    size_t size, len;
};

static __attribute__((format(printf, 2, 3))) void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    if (t->len >= t->size)
        return;
    va_start(ap, fmt);
    int n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->len += (size_t)n;
}

static void put_segment(struct text *t, const char *name, const struct cpu_segment *g)
{
    put(t, "%-3s =%04x %016llx %08x type %x %s dpl %u%s%s%s%s\n", name, g->selector, (unsigned long long)g->base,
        g->limit, g->type, g->s ? "code/data" : "system", g->dpl, g->present ? " P" : "", g->l ? " L" : "",
        g->db ? " D" : "", g->unusable ? " unusable" : "");
}

void cpu_state_format(const struct cpu_state *s, char *buf, size_t size)
{
    static const char *const regs[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                         "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
    static const char *const segs[SEG_COUNT] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    static const char *const runs[] = {"running", "halted", "waiting for INIT", "waiting for SIPI"};
    struct text t = {buf, size, 0};

    if (!size)
        return;
    buf[0] = 0;
    for (unsigned i = 0; i < 16; i++)
        put(&t, "%s=%016llx%s", regs[i], (unsigned long long)s->gpr[i], i % 4 == 3 ? "\n" : " ");
    put(&t, "RIP=%016llx RFL=%08llx [%c%c%c%c%c%c%c] CPL=%u %s\n", (unsigned long long)s->rip,
        (unsigned long long)s->rflags, s->rflags & FLAG_DF ? 'D' : '-', s->rflags & FLAG_OF ? 'O' : '-',
        s->rflags & FLAG_SF ? 'S' : '-', s->rflags & FLAG_ZF ? 'Z' : '-', s->rflags & FLAG_AF ? 'A' : '-',
        s->rflags & FLAG_PF ? 'P' : '-', s->rflags & FLAG_CF ? 'C' : '-', s->seg[SS].dpl,
        (unsigned)s->run_state < ARRAY_SIZE(runs) ? runs[s->run_state] : "?");
    for (unsigned i = 0; i < SEG_COUNT; i++)
        put_segment(&t, segs[i], &s->seg[i]);
    put_segment(&t, "LDT", &s->ldt);
    put_segment(&t, "TR", &s->tr);
    put(&t, "GDT=%016llx %08x\nIDT=%016llx %08x\n", (unsigned long long)s->gdt.base, s->gdt.limit,
        (unsigned long long)s->idt.base, s->idt.limit);
    put(&t, "CR0=%08llx CR2=%016llx CR3=%016llx CR4=%08llx CR8=%llx\n", (unsigned long long)s->cr0,
        (unsigned long long)s->cr2, (unsigned long long)s->cr3, (unsigned long long)s->cr4, (unsigned long long)s->cr8);
    put(&t, "DR0=%016llx DR1=%016llx DR2=%016llx DR3=%016llx\nDR6=%016llx DR7=%016llx\n", (unsigned long long)s->dr[0],
        (unsigned long long)s->dr[1], (unsigned long long)s->dr[2], (unsigned long long)s->dr[3],
        (unsigned long long)s->dr[6], (unsigned long long)s->dr[7]);
    put(&t, "EFER=%016llx APIC_BASE=%016llx XCR0=%llx TSC=%016llx\n", (unsigned long long)s->efer,
        (unsigned long long)s->apic_base, (unsigned long long)s->xcr0, (unsigned long long)s->tsc);
    put(&t, "FCW=%04x FSW=%04x MXCSR=%08x\n", le16_get(s->xsave), le16_get(s->xsave + 2), le32_get(s->xsave + 24));
    for (unsigned i = 0; i < 16; i++) {
        const uint8_t *x = s->xsave + 160 + 16 * i;
        put(&t, "XMM%02u=%016llx%016llx%s", i, (unsigned long long)le64_get(x + 8), (unsigned long long)le64_get(x),
            i % 2 ? "\n" : " ");
    }
}
