/*
 * A KVM vCPU's state, between KVM's structs and struct cpu_state. Called while the vCPU does not run: between calls of
 * vcpu_run, or on its thread inside one (assist.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "cpu/kvm/kvm.h"

struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[KVM_MSRS_MAX];
};

/* KVM's own: wall clock, system time, async page fault, steal time, EOI (Linux, Documentation/virt/kvm/x86/msr.rst). */
static const uint32_t kvm_msrs[] = {0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05, 0x4b564d06};

void kvm_read_msrs(struct kvm_vcpu *v, struct cpu_msr *m, unsigned n)
{
    struct msr_list l = {.head.nmsrs = MIN(n, (unsigned)KVM_MSRS_MAX)};
    for (unsigned i = 0; i < l.head.nmsrs; i++)
        l.entry[i].index = m[i].index;
    int got = ioctl(v->fd, KVM_GET_MSRS, &l);
    for (int i = 0; i < got; i++)
        m[i].value = l.entry[i].data;
}

int kvm_get_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t *ret)
{
    struct msr_list l = {.head.nmsrs = 1, .entry[0].index = msr};
    int r = ioctl(v->fd, KVM_GET_MSRS, &l);
    if (r != 1)
        return r < 0 ? -errno : -ENOENT;
    *ret = l.entry[0].data;
    return 0;
}

int kvm_set_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t value)
{
    struct msr_list l = {.head.nmsrs = 1, .entry[0] = {.index = msr, .data = value}};
    int r = ioctl(v->fd, KVM_SET_MSRS, &l);
    if (r == 1)
        kvm_syscall_msr(v, msr, value);
    return r == 1 ? 0 : r < 0 ? -errno : -ENOENT;
}

/* Which MSRs of the state this KVM has for this CPU model: KVM_GET_MSRS stops at the first one that it does not. */
void kvm_find_msrs(struct kvm_vcpu *v)
{
    struct kvm_engine *k = kvm_engine_of(v->vcpu.engine);
    uint32_t want[KVM_MSRS_MAX];
    unsigned n = 0, from = 0;

    for (unsigned i = 0; cpu_state_msrs[i] && n < KVM_MSRS_MAX; i++)
        want[n++] = cpu_state_msrs[i];
    for (unsigned i = 0; k->kvm_features && i < ARRAY_SIZE(kvm_msrs) && n < KVM_MSRS_MAX; i++)
        want[n++] = kvm_msrs[i];
    k->n_msrs = 0;
    while (from < n) {
        struct msr_list l = {.head.nmsrs = n - from};
        for (unsigned i = from; i < n; i++)
            l.entry[i - from].index = want[i];
        int got = ioctl(v->fd, KVM_GET_MSRS, &l);
        if (got < 0)
            break;
        for (int i = 0; i < got; i++)
            k->msr[k->n_msrs++] = want[from + (unsigned)i];
        from += (unsigned)got + 1;
    }
}

static void get_segment(const struct kvm_segment *k, struct cpu_segment *s)
{
    *s = (struct cpu_segment){.base = k->base,
                              .limit = k->limit,
                              .selector = k->selector,
                              .type = k->type,
                              .s = k->s,
                              .dpl = k->dpl,
                              .present = k->present,
                              .avl = k->avl,
                              .l = k->l,
                              .db = k->db,
                              .g = k->g,
                              .unusable = k->unusable};
}

static struct kvm_segment set_segment(const struct cpu_segment *s)
{
    return (struct kvm_segment){.base = s->base,
                                .limit = s->limit,
                                .selector = s->selector,
                                .type = s->type,
                                .s = s->s,
                                .dpl = s->dpl,
                                .present = s->present,
                                .avl = s->avl,
                                .l = s->l,
                                .db = s->db,
                                .g = s->g,
                                .unusable = s->unusable || !s->present};
}

static void core_in(const struct kvm_regs *r, const struct kvm_sregs *g, const struct kvm_vcpu_events *e,
                    struct cpu_state *s)
{
    const uint64_t gpr[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                              r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    memcpy(s->gpr, gpr, sizeof gpr);
    s->rip = r->rip;
    s->rflags = r->rflags;
    get_segment(&g->es, &s->seg[ES]);
    get_segment(&g->cs, &s->seg[CS]);
    get_segment(&g->ss, &s->seg[SS]);
    get_segment(&g->ds, &s->seg[DS]);
    get_segment(&g->fs, &s->seg[FS]);
    get_segment(&g->gs, &s->seg[GS]);
    get_segment(&g->tr, &s->tr);
    get_segment(&g->ldt, &s->ldt);
    s->gdt = (struct cpu_table){g->gdt.base, g->gdt.limit};
    s->idt = (struct cpu_table){g->idt.base, g->idt.limit};
    s->cr0 = g->cr0, s->cr2 = g->cr2, s->cr3 = g->cr3, s->cr4 = g->cr4, s->cr8 = g->cr8;
    s->efer = g->efer;
    s->apic_base = g->apic_base;
    s->exception_pending = e->exception.injected || e->exception.pending;
    s->exception_vector = e->exception.nr;
    s->exception_has_error = e->exception.has_error_code;
    s->exception_error = e->exception.error_code;
    s->interrupt_injected = e->interrupt.injected;
    s->interrupt_vector = e->interrupt.nr;
    s->interrupt_shadow = e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : e->interrupt.shadow ? 1 : 0;
    s->nmi_pending = e->nmi.injected || e->nmi.pending;
    s->nmi_masked = e->nmi.masked;
}

static void core_out(const struct cpu_state *s, struct kvm_regs *r, struct kvm_sregs *g, struct kvm_vcpu_events *e)
{
    *r = (struct kvm_regs){
        .rax = s->gpr[RAX],
        .rcx = s->gpr[RCX],
        .rdx = s->gpr[RDX],
        .rbx = s->gpr[RBX],
        .rsp = s->gpr[RSP],
        .rbp = s->gpr[RBP],
        .rsi = s->gpr[RSI],
        .rdi = s->gpr[RDI],
        .r8 = s->gpr[R8],
        .r9 = s->gpr[R9],
        .r10 = s->gpr[R10],
        .r11 = s->gpr[R11],
        .r12 = s->gpr[R12],
        .r13 = s->gpr[R13],
        .r14 = s->gpr[R14],
        .r15 = s->gpr[R15],
        .rip = s->rip,
        .rflags = s->rflags,
    };
    *g = (struct kvm_sregs){
        .es = set_segment(&s->seg[ES]),
        .cs = set_segment(&s->seg[CS]),
        .ss = set_segment(&s->seg[SS]),
        .ds = set_segment(&s->seg[DS]),
        .fs = set_segment(&s->seg[FS]),
        .gs = set_segment(&s->seg[GS]),
        .tr = set_segment(&s->tr),
        .ldt = set_segment(&s->ldt),
        .gdt = {.base = s->gdt.base, .limit = s->gdt.limit},
        .idt = {.base = s->idt.base, .limit = s->idt.limit},
        .cr0 = s->cr0,
        .cr2 = s->cr2,
        .cr3 = s->cr3,
        .cr4 = s->cr4,
        .cr8 = s->cr8,
        .efer = s->efer,
        .apic_base = s->apic_base,
    };
    *e = (struct kvm_vcpu_events){
        .exception = {.injected = s->exception_pending,
                      .nr = s->exception_vector,
                      .has_error_code = s->exception_has_error,
                      .error_code = s->exception_error},
        .interrupt = {.injected = s->interrupt_injected,
                      .nr = s->interrupt_vector,
                      .shadow = s->interrupt_shadow == 2 ? KVM_X86_SHADOW_INT_MOV_SS
                                : s->interrupt_shadow    ? KVM_X86_SHADOW_INT_STI
                                                         : 0},
        .nmi = {.pending = s->nmi_pending, .masked = s->nmi_masked},
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
    };
}

/* PAE paging without long mode: the page-directory pointers are state of their own. */
static bool has_pdptes(const struct cpu_state *s)
{
    return (s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE) && !(s->efer & EFER_LMA);
}

static int get_core(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(v->vcpu.engine);
    struct kvm_regs r;
    struct kvm_sregs g;
    struct kvm_vcpu_events e;

    if (ioctl(v->fd, KVM_GET_REGS, &r) < 0 || ioctl(v->fd, KVM_GET_SREGS, &g) < 0 ||
        ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e) < 0)
        return err_errno(err, -errno, "cannot read the registers of CPU %u from KVM", v->vcpu.index);
    core_in(&r, &g, &e, s);
    if (k->has_sregs2 && has_pdptes(s)) {
        struct kvm_sregs2 g2;
        if (ioctl(v->fd, KVM_GET_SREGS2, &g2) == 0 && (g2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID))
            memcpy(s->pdpte, g2.pdptrs, sizeof s->pdpte);
    }
    return 0;
}

static int set_core(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(v->vcpu.engine);
    struct kvm_regs r;
    struct kvm_sregs g;
    struct kvm_vcpu_events e;
    int rc;

    core_out(s, &r, &g, &e);
    if (k->has_sregs2 && has_pdptes(s)) {
        struct kvm_sregs2 g2 = {
            .cs = g.cs,
            .ds = g.ds,
            .es = g.es,
            .fs = g.fs,
            .gs = g.gs,
            .ss = g.ss,
            .tr = g.tr,
            .ldt = g.ldt,
            .gdt = g.gdt,
            .idt = g.idt,
            .cr0 = g.cr0,
            .cr2 = g.cr2,
            .cr3 = g.cr3,
            .cr4 = g.cr4,
            .cr8 = g.cr8,
            .efer = g.efer,
            .apic_base = g.apic_base,
            .flags = KVM_SREGS2_FLAGS_PDPTRS_VALID,
        };
        memcpy(g2.pdptrs, s->pdpte, sizeof s->pdpte);
        rc = ioctl(v->fd, KVM_SET_SREGS2, &g2);
    } else {
        rc = ioctl(v->fd, KVM_SET_SREGS, &g);
    }
    if (rc < 0 || ioctl(v->fd, KVM_SET_REGS, &r) < 0 || ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e) < 0)
        return err_errno(err, -errno, "KVM does not take the registers of CPU %u", v->vcpu.index);
    return 0;
}

int kvm_get_core_at_exit(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
    const uint64_t all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    if (v->run->kvm_valid_regs == all) {
        const struct kvm_sync_regs *y = &v->run->s.regs;
        core_in(&y->regs, &y->sregs, &y->events, s);
        if (!has_pdptes(s))
            return 0;
    } else if (kvm_engine_of(v->vcpu.engine)->has_sync_regs) {
        v->run->kvm_valid_regs = all; /* from the next exit on */
    }
    return get_core(v, s, err);
}

int kvm_set_core_at_entry(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
    if (!kvm_engine_of(v->vcpu.engine)->has_sync_regs || has_pdptes(s))
        return set_core(v, s, err);
    struct kvm_sync_regs *y = &v->run->s.regs;
    core_out(s, &y->regs, &y->sregs, &y->events);
    v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    return 0;
}

static int get_vec(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
    struct kvm_xsave x;
    struct kvm_xcrs c;
    _Static_assert(sizeof x.region == CPU_XSAVE_SIZE, "KVM's XSAVE area is ours");
    if (ioctl(v->fd, KVM_GET_XSAVE, &x) < 0)
        return err_errno(err, -errno, "KVM_GET_XSAVE");
    memcpy(s->xsave, x.region, sizeof s->xsave);
    s->xcr0 = XCR0_X87;
    if (ioctl(v->fd, KVM_GET_XCRS, &c) == 0)
        for (unsigned i = 0; i < c.nr_xcrs && i < KVM_MAX_XCRS; i++)
            if (c.xcrs[i].xcr == 0)
                s->xcr0 = c.xcrs[i].value;
    return 0;
}

static int set_vec(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
    struct kvm_xsave x = {0};
    struct kvm_xcrs c = {.nr_xcrs = 1, .xcrs[0].value = s->xcr0};
    memcpy(x.region, s->xsave, sizeof s->xsave);
    if (s->xcr0 && ioctl(v->fd, KVM_SET_XCRS, &c) < 0 && s->xcr0 != XCR0_X87)
        return err_errno(err, -errno, "KVM does not take XCR0 0x%llx", (unsigned long long)s->xcr0);
    if (ioctl(v->fd, KVM_SET_XSAVE, &x) < 0)
        return err_errno(err, -errno, "KVM_SET_XSAVE");
    return 0;
}

static int get_msrs(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(v->vcpu.engine);
    struct msr_list l = {.head.nmsrs = k->n_msrs};
    for (unsigned i = 0; i < k->n_msrs; i++)
        l.entry[i].index = k->msr[i];
    int got = ioctl(v->fd, KVM_GET_MSRS, &l);
    if (got != (int)k->n_msrs)
        return err_set(err, got < 0 ? -errno : -EIO, "KVM does not give MSR 0x%x", l.entry[got < 0 ? 0 : got].index);
    s->nmsrs = 0;
    for (unsigned i = 0; i < k->n_msrs; i++)
        s->msr[s->nmsrs++] = (struct cpu_msr){k->msr[i], l.entry[i].data};
    return 0;
}

static bool has_msr(const struct kvm_engine *k, uint32_t index)
{
    for (unsigned i = 0; i < k->n_msrs; i++)
        if (k->msr[i] == index)
            return true;
    return false;
}

/* MSRs that this KVM lacks, or that this CPU model lacks though they can be read, must be 0. */
static int set_msrs(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(v->vcpu.engine);
    struct kvm_msr_entry want[CPU_MSRS_MAX];
    unsigned n = 0, from = 0;

    for (unsigned i = 0; i < s->nmsrs && i < CPU_MSRS_MAX; i++)
        if (has_msr(k, s->msr[i].index))
            want[n++] = (struct kvm_msr_entry){.index = s->msr[i].index, .data = s->msr[i].value};
    while (from < n) {
        struct msr_list l = {.head.nmsrs = n - from};
        memcpy(l.entry, want + from, (n - from) * sizeof *want);
        int put = ioctl(v->fd, KVM_SET_MSRS, &l);
        if (put < 0)
            return err_errno(err, -errno, "KVM_SET_MSRS");
        for (int i = 0; i < put; i++)
            kvm_syscall_msr(v, l.entry[i].index, l.entry[i].data);
        from += (unsigned)put;
        if (from < n && want[from].data)
            return err_set(err, -EINVAL, "KVM does not take MSR 0x%x = 0x%llx", want[from].index,
                           (unsigned long long)want[from].data);
        from++;
    }
    return 0;
}

static int get_debug(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
    struct kvm_debugregs d;
    if (ioctl(v->fd, KVM_GET_DEBUGREGS, &d) < 0)
        return err_errno(err, -errno, "KVM_GET_DEBUGREGS");
    memset(s->dr, 0, sizeof s->dr);
    memcpy(s->dr, d.db, sizeof d.db);
    s->dr[6] = d.dr6;
    s->dr[7] = d.dr7;
    return 0;
}

static int set_debug(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
    struct kvm_debugregs d = {.db = {s->dr[0], s->dr[1], s->dr[2], s->dr[3]}, .dr6 = s->dr[6], .dr7 = s->dr[7]};
    return ioctl(v->fd, KVM_SET_DEBUGREGS, &d) < 0 ? err_errno(err, -errno, "KVM_SET_DEBUGREGS") : 0;
}

static int get_run_state(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
    struct kvm_mp_state m;
    if (ioctl(v->fd, KVM_GET_MP_STATE, &m) < 0)
        return err_errno(err, -errno, "KVM_GET_MP_STATE");
    switch (m.mp_state) {
    case KVM_MP_STATE_UNINITIALIZED:
        s->run_state = CPU_WAIT_INIT;
        break;
    case KVM_MP_STATE_INIT_RECEIVED:
    case KVM_MP_STATE_SIPI_RECEIVED:
        s->run_state = CPU_WAIT_SIPI;
        break;
    case KVM_MP_STATE_HALTED:
        s->run_state = CPU_HALTED;
        break;
    default:
        s->run_state = CPU_RUNNABLE;
    }
    return 0;
}

static int set_run_state(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
    static const uint32_t states[] = {
        [CPU_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
        [CPU_HALTED] = KVM_MP_STATE_HALTED,
        [CPU_WAIT_INIT] = KVM_MP_STATE_UNINITIALIZED,
        [CPU_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
    };
    struct kvm_mp_state m = {.mp_state = (unsigned)s->run_state < ARRAY_SIZE(states) ? states[s->run_state]
                                                                                     : KVM_MP_STATE_RUNNABLE};
    return ioctl(v->fd, KVM_SET_MP_STATE, &m) < 0 ? err_errno(err, -errno, "KVM_SET_MP_STATE") : 0;
}

static int get_tsc(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
    int r = kvm_get_msr(v, MSR_TSC, &s->tsc);
    return r < 0 ? err_errno(err, r, "KVM does not give the TSC") : 0;
}

static int set_tsc(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(v->vcpu.engine);
    int r = kvm_set_msr(v, MSR_TSC, s->tsc);
    if (k->clock_stopped && v == k->cpu[0])
        k->stopped_tsc = s->tsc; /* what the clock's start puts back */
    return r < 0 ? err_errno(err, r, "KVM does not take the TSC") : 0;
}

/* In the order in which they must be set: events and MSRs want the control registers there. */
static const struct {
    unsigned part;
    int (*get)(struct kvm_vcpu *v, struct cpu_state *s, struct err *err);
    int (*set)(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err);
} all_parts[] = {
    {KVM_PART_CORE, get_core, set_core},          {KVM_PART_VEC, get_vec, set_vec},
    {KVM_PART_MSRS, get_msrs, set_msrs},          {KVM_PART_DEBUG, get_debug, set_debug},
    {KVM_PART_RUN, get_run_state, set_run_state}, {KVM_PART_TSC, get_tsc, set_tsc},
};

int kvm_get_parts(struct kvm_vcpu *v, struct cpu_state *s, unsigned parts, struct err *err)
{
    int r = 0;
    for (unsigned i = 0; r >= 0 && i < ARRAY_SIZE(all_parts); i++)
        if (parts & all_parts[i].part)
            r = all_parts[i].get(v, s, err);
    return r;
}

int kvm_set_parts(struct kvm_vcpu *v, const struct cpu_state *s, unsigned parts, struct err *err)
{
    int r = 0;
    for (unsigned i = 0; r >= 0 && i < ARRAY_SIZE(all_parts); i++)
        if (parts & all_parts[i].part)
            r = all_parts[i].set(v, s, err);
    return r;
}
