/*
 * vCPU threads. Each runs the engine until it returns, looks whether it must hold, and goes on. The main thread holds and releases
 * all of them together; a hold returns when every vCPU is parked, so that device and CPU state stand still.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "machine/machine.h"

static void *vcpu_main(void *opaque)
{
    struct vcpu_thread *t = opaque;
    struct vm *vm = t->vm;
    char name[16];
    snprintf(name, sizeof name, "vcpu %u", t->index);
    pthread_setname_np(pthread_self(), name);
    atomic_store(&t->tid, (int)syscall(SYS_gettid));

    pthread_mutex_lock(&vm->cpu_lock);
    for (;;) {
        while ((vm->hold || t->debug_held) && !vm->quit) {
            t->parked = true;
            pthread_cond_signal(&vm->cpu_parked);
            pthread_cond_wait(&vm->cpu_go, &vm->cpu_lock);
        }
        t->parked = false;
        if (vm->quit)
            break;
        pthread_mutex_unlock(&vm->cpu_lock);

        struct err err = {0};
        enum vcpu_exit exit = vm->ops->vcpu_run(t->vcpu, &err);

        pthread_mutex_lock(&vm->cpu_lock);
        if (exit == VCPU_EXIT_KICKED)
            continue;
        if (exit == VCPU_EXIT_DEBUG) {
            debug_note(t);
            continue;
        }
        /* This vCPU cannot go on until the main thread has decided what becomes of the machine. */
        if (exit == VCPU_EXIT_ERROR && !vm->vcpu_err.code)
            vm->vcpu_err = err;
        vm->hold = true;
        vm_want(vm, exit == VCPU_EXIT_SHUTDOWN ? WANT_TRIPLE_FAULT : WANT_ERROR);
    }
    t->parked = true;
    pthread_cond_signal(&vm->cpu_parked);
    pthread_mutex_unlock(&vm->cpu_lock);
    return NULL;
}

int vcpus_new(struct vm *vm, struct err *err)
{
    vm->n_cpus = vm->engine->cfg.cpus;
    vm->cpu = xcalloc(vm->n_cpus, sizeof *vm->cpu);
    vm->hold = true;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        vm->cpu[i] = (struct vcpu_thread){.vm = vm, .index = i, .parked = true};
        int code = vm->ops->vcpu_create(vm->engine, i, &vm->cpu[i].vcpu, err);
        if (code < 0) {
            err_prefix(err, "vCPU %u", i);
            return code;
        }
    }
    return 0;
}

int vcpus_start(struct vm *vm, struct err *err)
{
    /* Signals are the main thread's, but those an engine unblocks for itself. */
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int code = 0;
    for (unsigned i = 0; i < vm->n_cpus && !code; i++) {
        code = -pthread_create(&vm->cpu[i].thread, NULL, vcpu_main, &vm->cpu[i]);
        vm->cpu[i].started = !code;
        if (code)
            err_errno(err, code, "cannot start the thread of vCPU %u", i);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code;
}

static bool all_parked(const struct vm *vm)
{
    for (unsigned i = 0; i < vm->n_cpus; i++)
        if (vm->cpu[i].started && !vm->cpu[i].parked)
            return false;
    return true;
}

void vcpus_hold(struct vm *vm)
{
    pthread_mutex_lock(&vm->cpu_lock);
    vm->hold = true;
    for (unsigned i = 0; i < vm->n_cpus; i++)
        if (vm->cpu[i].vcpu)
            vm->ops->vcpu_kick(vm->cpu[i].vcpu);
    while (!all_parked(vm))
        pthread_cond_wait(&vm->cpu_parked, &vm->cpu_lock);
    pthread_mutex_unlock(&vm->cpu_lock);
}

void vcpus_release(struct vm *vm)
{
    pthread_mutex_lock(&vm->cpu_lock);
    vm->hold = false;
    for (unsigned i = 0; i < vm->n_cpus; i++)
        vm->cpu[i].parked = !vm->cpu[i].started;
    pthread_cond_broadcast(&vm->cpu_go);
    pthread_mutex_unlock(&vm->cpu_lock);
}

void vcpus_free(struct vm *vm)
{
    if (!vm->cpu)
        return;
    vcpus_hold(vm);
    pthread_mutex_lock(&vm->cpu_lock);
    vm->quit = true;
    pthread_cond_broadcast(&vm->cpu_go);
    pthread_mutex_unlock(&vm->cpu_lock);
    for (unsigned i = 0; i < vm->n_cpus; i++)
        if (vm->cpu[i].started)
            pthread_join(vm->cpu[i].thread, NULL);
}
