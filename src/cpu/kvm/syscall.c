/*
 * SYSCALL on a KVM without hardware virtualization (kvm-pvm). Such a KVM runs the guest's user code on the processor itself, and after
 * a SYSCALL there RIP, RCX, R11 and RFLAGS are as they should be, but CS, SS and with them the privilege level are still the
 * user's. The fetch of the next instruction, in memory of the kernel's, then is a page fault, which KVM gives to the guest. So
 * a breakpoint of the host's debug registers stands at the guest's page fault handler (KVM heeds them in the kernel's code, which it
 * emulates): a page fault from where SYSCALL leads to is taken back, and the CPU goes on there as the kernel's. The instruction
 * at which KVM stopped is interpreted, because KVM would stop at it again.
 *
 * The guest's writes of LSTAR and STAR come to us by KVM's MSR filter. On the vCPU's thread, or while it does not run.
 */
#include <cpuid.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm.h"

/* Hardware virtualization: CPUID.1:ECX.VMX, CPUID.80000001H:ECX.SVM. */
static bool host_has_virtualization(void)
{
    unsigned a, b, c = 0, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & BIT(5)))
        return true;
    c = 0;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & BIT(2));
}

void kvm_syscall_init(struct kvm_engine *k)
{
    uint8_t none = 0; /* bits of MSR_STAR and MSR_LSTAR: 0 denies */
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR, .args = {KVM_MSR_EXIT_REASON_FILTER}};
    struct kvm_msr_filter filter = {
        .flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
        .ranges[0] = {.flags = KVM_MSR_FILTER_WRITE, .base = MSR_STAR, .nmsrs = 2, .bitmap = &none},
    };
    if (host_has_virtualization() || ioctl(k->vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_MSR_FILTER) <= 0 ||
        ioctl(k->vm, KVM_ENABLE_CAP, &cap) < 0)
        return;
    k->corrects_syscall = ioctl(k->vm, KVM_X86_SET_MSR_FILTER, &filter) == 0;
}

void kvm_syscall_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t value)
{
    if (msr == MSR_STAR)
        v->star = value;
    if (msr != MSR_LSTAR)
        return;
    v->lstar = value;
    v->idt_base = UINT64_MAX; /* look for the handler */
}

void kvm_syscall_wrmsr(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->run;
    bool canonical = (int64_t)(run->msr.data << 16) >> 16 == (int64_t)run->msr.data;
    run->msr.error = (run->msr.index == MSR_LSTAR && !canonical) || kvm_set_msr(v, run->msr.index, run->msr.data) < 0;
}

/* Where the guest's gate for page faults leads to now; 0: nowhere. */
static uint64_t page_fault_handler(struct kvm_vcpu *v, uint64_t idt_base)
{
    uint8_t gate[16];
    if (!v->lstar || kvm_assist_read(v, idt_base + 16 * EXC_PF, gate, sizeof gate) < 0 || !(gate[5] & 0x80))
        return 0;
    return le16_get(gate) | (uint64_t)le16_get(gate + 6) << 16 | (uint64_t)le32_get(gate + 8) << 32;
}

void kvm_syscall_look(struct kvm_vcpu *v, uint64_t idt_base)
{
    if (!kvm_engine_of(v->vcpu.engine)->corrects_syscall || idt_base == v->idt_base)
        return;
    v->idt_base = idt_base;
    uint64_t at = page_fault_handler(v, idt_base);
    if (at == v->pf_handler)
        return;
    v->pf_handler = at;
    kvm_apply_debug(v);
}

/* The stack of a handler: error code, RIP, CS, RFLAGS, RSP, SS. */
bool kvm_syscall_enter(const struct kvm_vcpu *v, const uint64_t frame[6], struct cpu_state *s)
{
    if (frame[1] != v->lstar || (frame[2] & 3) != 3)
        return false;
    uint16_t cs = (v->star >> 32) & 0xfffc;
    s->rip = frame[1];
    s->rflags = frame[3] & ~(uint64_t)FLAG_RF;
    s->gpr[RSP] = frame[4];
    s->seg[CS] = (struct cpu_segment){
        .limit = UINT32_MAX, .selector = cs, .type = 11, .s = 1, .present = 1, .l = 1, .g = 1};
    s->seg[SS] = (struct cpu_segment){
        .limit = UINT32_MAX, .selector = (uint16_t)(cs + 8), .type = 3, .s = 1, .present = 1, .db = 1, .g = 1};
    return true;
}
