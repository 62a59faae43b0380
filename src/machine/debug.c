/*
 * A machine under a debugger: what it looks for is set in every vCPU, and when one meets it the whole machine stops as
 * by vm_stop(). Main thread, but debug_note().
 */
#include <errno.h>

#include "machine/machine.h"

void debug_note(struct vcpu_thread *t)
{
    struct vm *vm = t->vm;
    vm->ops->debug_hit(t->vcpu, &t->hit);
    vm->hold = true;
    vm_want(vm, WANT_DEBUGGER);
}

void debug_report(struct vm *vm)
{
    struct err err = {0};
    if (vm_stop(vm, &err) < 0)
        return;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        struct vcpu_hit hit = vm->cpu[i].hit;
        if (hit.kind == VCPU_HIT_NONE)
            continue;
        vm->cpu[i].hit = (struct vcpu_hit){0};
        if (vm->owner.debug)
            vm->owner.debug(vm->owner.opaque, i, &hit);
        return;
    }
}

/* The debugger's wishes go to the vCPUs, one by one with its own `step`. */
static int apply(struct vm *vm, const struct vcpu_debug *d, const enum vm_debug_how *how)
{
    bool empty = !d->n_breaks && !d->n_watches;
    int code = 0;
    vm->debugged = false;
    for (unsigned i = 0; i < vm->n_cpus && code >= 0; i++) {
        struct vcpu_debug one = *d;
        one.step = how && how[i] == VM_DEBUG_STEP;
        code = vm->ops->set_debug(vm->cpu[i].vcpu, empty && !one.step ? NULL : &one);
        vm->debugged |= !empty || one.step;
    }
    return code;
}

int vm_debug_set(struct vm *vm, const struct vcpu_debug *d)
{
    static const struct vcpu_debug none;
    if (!d)
        d = &none;
    if (!vm->ops->set_debug)
        return -ENOTSUP;
    int code = apply(vm, d, NULL);
    if (code < 0) {
        (void)apply(vm, &vm->debug, NULL); /* as before, which worked */
        return code;
    }
    vm->debug = *d;
    return 0;
}

int vm_debug_resume(struct vm *vm, const enum vm_debug_how *how, struct err *err)
{
    bool late = false;
    if (vm->status != VM_PRELAUNCH && vm->status != VM_PAUSED)
        return vm_cont(vm, err); /* says why not */
    bool steps = false;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        /* A breakpoint will be met again; an access that was watched will not. */
        late |= vm->cpu[i].hit.kind == VCPU_HIT_WATCH;
        if (vm->cpu[i].hit.kind != VCPU_HIT_WATCH)
            vm->cpu[i].hit = (struct vcpu_hit){0};
        steps |= how[i] == VM_DEBUG_STEP;
    }
    if (steps || vm->debugged) {
        int code = vm->ops->set_debug ? apply(vm, &vm->debug, how) : -ENOTSUP;
        if (code < 0)
            return err_errno(err, code, "engine %s: debugging", vm->ops->name);
    }
    pthread_mutex_lock(&vm->cpu_lock);
    for (unsigned i = 0; i < vm->n_cpus; i++)
        vm->cpu[i].debug_held = late || how[i] == VM_DEBUG_HOLD;
    pthread_mutex_unlock(&vm->cpu_lock);
    if (late)
        vm_want(vm, WANT_DEBUGGER);
    return vm_cont(vm, err);
}
