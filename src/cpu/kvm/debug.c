/*
 * A debugger's breakpoints, watchpoints and single-step with KVM (KVM_SET_GUEST_DEBUG): the host's four debug registers
 * hold all of them, and the guest's memory stays as it is. While the vCPU does not run, but kvm_debug_exit().
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpu/kvm/kvm.h"

enum { SLOTS = 4 };

/* DR7: global enable, and the fields R/W and LEN (SDM 3B, 17.2.4). */
static uint64_t dr7_slot(unsigned n, unsigned rw, unsigned len)
{
    static const uint8_t code[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    return 2ull << (2 * n) | (uint64_t)(rw | code[len] << 2) << (16 + 4 * n);
}

int kvm_apply_debug(struct kvm_vcpu *v)
{
    const struct vcpu_debug *d = &v->debug;
    struct kvm_guest_debug g = {0};
    unsigned n = 0;
    for (unsigned i = 0; i < d->n_breaks; i++, n++) {
        g.arch.debugreg[n] = d->breaks[i];
        g.arch.debugreg[7] |= dr7_slot(n, 0, 1);
    }
    for (unsigned i = 0; i < d->n_watches; i++, n++) {
        const struct vcpu_watch *w = &d->watches[i];
        g.arch.debugreg[n] = w->addr;
        g.arch.debugreg[7] |= dr7_slot(n, w->kind == VCPU_WATCH_WRITE ? 1 : 3, w->len);
    }
    if (v->pf_handler) { /* the last one, which kvm_set_debug() keeps free */
        n = SLOTS - 1;
        g.arch.debugreg[n] = v->pf_handler;
        g.arch.debugreg[7] |= dr7_slot(n, 0, 1);
        n++;
    }
    if (n) {
        g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        g.arch.debugreg[7] |= BIT(9) | BIT(10);
    }
    if (d->step) {
        int can = ioctl(kvm_engine_of(v->vcpu.engine)->vm, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);
        g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | (can > 0 ? can & KVM_GUESTDBG_BLOCKIRQ : 0);
    }
    return ioctl(v->fd, KVM_SET_GUEST_DEBUG, &g) < 0 ? -errno : 0;
}

/* At each of our four debug registers one breakpoint, or an aligned watchpoint. */
static bool fits(const struct kvm_vcpu *v, const struct vcpu_debug *d)
{
    unsigned slots = SLOTS - kvm_engine_of(v->vcpu.engine)->corrects_syscall;
    if (d->n_breaks + d->n_watches > slots)
        return false;
    /* A KVM without hardware below it takes watchpoints and never meets them. */
    if (d->n_watches && kvm_engine_of(v->vcpu.engine)->corrects_syscall)
        return false;
    for (unsigned i = 0; i < d->n_watches; i++) {
        const struct vcpu_watch *w = &d->watches[i];
        if ((w->len != 1 && w->len != 2 && w->len != 4 && w->len != 8) || w->addr % w->len)
            return false;
    }
    return true;
}

int kvm_set_debug(struct vcpu *vcpu, const struct vcpu_debug *d)
{
    static const struct vcpu_debug none;
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    if (!d)
        d = &none;
    if (!fits(v, d))
        return -ENOSPC;
    struct vcpu_debug old = v->debug;
    v->debug = *d;
    int r = kvm_apply_debug(v);
    if (r < 0)
        v->debug = old;
    else
        v->hit = (struct vcpu_hit){0};
    return r;
}

bool kvm_debug_exit(struct kvm_vcpu *v)
{
    const struct kvm_debug_exit_arch *a = &v->run->debug.arch;
    for (unsigned n = 0; n < v->debug.n_breaks + v->debug.n_watches; n++) {
        if (!(a->dr6 & BIT(n)))
            continue;
        if (n < v->debug.n_breaks)
            v->hit = (struct vcpu_hit){VCPU_HIT_BREAK, v->debug.breaks[n]};
        else
            v->hit = (struct vcpu_hit){VCPU_HIT_WATCH, v->debug.watches[n - v->debug.n_breaks].addr};
        return true;
    }
    if (!v->debug.step)
        return false;
    v->hit = (struct vcpu_hit){VCPU_HIT_STEP, a->pc};
    return true;
}

void kvm_debug_hit(struct vcpu *vcpu, struct vcpu_hit *ret)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    *ret = v->hit;
    v->hit = (struct vcpu_hit){0};
}
