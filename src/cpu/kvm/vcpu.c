/*
 * A KVM vCPU: creation, the run loop and its exits, kicks. vcpu_run on the vCPU's own thread; kick and signal from any.
 *
 * A port or MMIO access is finished by KVM at the next entry; a kick sets immediate_exit, so that this entry happens
 * and no guest code runs in it, and the state is whole when vcpu_run returns.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "cpu/kvm/kvm.h"

int kvm_vcpu_create(struct engine *e, unsigned index, struct vcpu **ret, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(e);
    struct kvm_vcpu *v = xcalloc(1, sizeof *v);

    v->vcpu = (struct vcpu){.engine = e, .index = index};
    v->apic_id = cpu_apic_id(&e->cfg.cpu.topology, index);
    pthread_mutex_init(&v->lock, NULL);
    k->cpu[index] = v;
    v->fd = ioctl(k->vm, KVM_CREATE_VCPU, (unsigned long)v->apic_id);
    if (v->fd < 0)
        return err_errno(err, -errno, "KVM_CREATE_VCPU %u", index);
    void *p = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (p == MAP_FAILED)
        return err_errno(err, -errno, "KVM: cannot map the run area of CPU %u", index);
    v->run = p;
    int r = kvm_set_cpuid(v, err);
    if (r < 0)
        return r;
    if (!k->n_msrs)
        kvm_find_msrs(v);
    if (ioctl(v->fd, KVM_GET_LAPIC, &v->lapic_reset) < 0)
        return err_errno(err, -errno, "KVM_GET_LAPIC");
    *ret = &v->vcpu;
    return 0;
}

void kvm_vcpu_free(struct kvm_vcpu *v)
{
    if (!v)
        return;
    kvm_assist_free(v);
    if (v->run)
        munmap(v->run, kvm_engine_of(v->vcpu.engine)->run_size);
    if (v->fd >= 0)
        close(v->fd);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

void kvm_vcpu_kick(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    atomic_store(&v->kicked, true);
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&v->lock);
    if (v->running)
        pthread_kill(v->thread, KVM_KICK_SIGNAL);
    pthread_mutex_unlock(&v->lock);
}

/*
 * KVM's local APICs take NMI, INIT and SIPI as messages from anywhere (SDM 3A, 11.11.1: delivery modes 4, 5, 6),
 * without waiting for the vCPU. Interrupts and timers are theirs anyway.
 */
void kvm_vcpu_signal(struct vcpu *vcpu, enum vcpu_signal what, unsigned arg)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    uint64_t addr = 0xfee00000ull | (v->apic_id & 0xff) << 12 | (uint64_t)(v->apic_id >> 8) << 40;
    switch (what) {
    case VCPU_SIG_NMI:
        kvm_msi(vcpu->engine, addr, 4 << 8);
        break;
    case VCPU_SIG_INIT:
        kvm_msi(vcpu->engine, addr, 5 << 8 | BIT(14));
        break;
    case VCPU_SIG_SIPI:
        kvm_msi(vcpu->engine, addr, 6 << 8 | (arg & 0xff));
        break;
    case VCPU_SIG_INTR:
    case VCPU_SIG_TIMER_DISARMED:
        break;
    }
}

static void handle_io(struct kvm_vcpu *v)
{
    const struct cpu_bus *bus = v->vcpu.engine->cfg.bus;
    struct kvm_run *run = v->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned size = run->io.size;

    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint64_t val = 0;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&val, data, size);
            bus->pio_write(bus->opaque, v->vcpu.index, run->io.port, size, val);
        } else {
            val = bus->pio_read(bus->opaque, v->vcpu.index, run->io.port, size);
            memcpy(data, &val, size);
        }
    }
}

/* KVM may ask for 3, 5, 6 or 7 bytes when an access crosses a page. */
static void handle_mmio(struct kvm_vcpu *v)
{
    const struct cpu_bus *bus = v->vcpu.engine->cfg.bus;
    struct kvm_run *run = v->run;
    unsigned len = MIN(run->mmio.len, 8u);

    for (unsigned at = 0; at < len;) {
        unsigned n = 1u << (31 - __builtin_clz(len - at));
        uint64_t val = 0;
        if (run->mmio.is_write) {
            memcpy(&val, run->mmio.data + at, n);
            bus->mmio_write(bus->opaque, v->vcpu.index, run->mmio.phys_addr + at, n, val);
        } else {
            val = bus->mmio_read(bus->opaque, v->vcpu.index, run->mmio.phys_addr + at, n);
            memcpy(run->mmio.data + at, &val, n);
        }
        at += n;
    }
}

/* -1: go on. */
static int interpret(struct kvm_vcpu *v, struct err *err)
{
    int r = kvm_assist_step(v, err);
    return r == 0 ? -1 : r > 0 ? VCPU_EXIT_SHUTDOWN : VCPU_EXIT_ERROR;
}

static int debug_exit(struct kvm_vcpu *v, struct err *err)
{
    if (kvm_debug_exit(v))
        return VCPU_EXIT_DEBUG;
    return v->pf_handler && v->run->debug.arch.pc == v->pf_handler ? interpret(v, err) : -1;
}

static int internal_error(struct kvm_vcpu *v, struct err *err)
{
    struct cpu_state s = {0};
    if (v->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
        return interpret(v, err);
    if (kvm_get_parts(v, &s, KVM_PART_CORE, NULL) < 0)
        s.rip = 0;
    err_set(err, -EIO, "CPU %u: KVM gave up at %04x:%016llx (internal error %u)", v->vcpu.index, s.seg[CS].selector,
            (unsigned long long)s.rip, v->run->internal.suberror);
    return VCPU_EXIT_ERROR;
}

/* One exit. -1: go on. */
static int handle_exit(struct kvm_vcpu *v, struct err *err)
{
    struct kvm_run *run = v->run;

    if (run->exit_reason < ARRAY_SIZE(v->exits))
        atomic_fetch_add_explicit(&v->exits[run->exit_reason], 1, memory_order_relaxed);
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        handle_io(v);
        return -1;
    case KVM_EXIT_MMIO:
        handle_mmio(v);
        return -1;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_HLT:
        return -1;
    case KVM_EXIT_SHUTDOWN:
        return VCPU_EXIT_SHUTDOWN;
    case KVM_EXIT_DEBUG:
        return debug_exit(v, err);
    case KVM_EXIT_X86_WRMSR:
        kvm_syscall_wrmsr(v);
        return -1;
    case KVM_EXIT_SYSTEM_EVENT:
        if (run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN || run->system_event.type == KVM_SYSTEM_EVENT_RESET ||
            run->system_event.type == KVM_SYSTEM_EVENT_CRASH)
            return VCPU_EXIT_SHUTDOWN;
        return -1;
    case KVM_EXIT_FAIL_ENTRY:
        err_set(err, -EIO, "CPU %u: the processor refused to enter the guest (reason 0x%llx)", v->vcpu.index,
                (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        return VCPU_EXIT_ERROR;
    case KVM_EXIT_INTERNAL_ERROR:
        return internal_error(v, err);
    default:
        err_set(err, -EIO, "CPU %u: unexpected KVM exit %u", v->vcpu.index, run->exit_reason);
        return VCPU_EXIT_ERROR;
    }
}

static uint64_t idt_base(struct kvm_vcpu *v)
{
    struct kvm_sregs s;
    return ioctl(v->fd, KVM_GET_SREGS, &s) < 0 ? 0 : s.idt.base;
}

static enum vcpu_exit run_loop(struct kvm_vcpu *v, struct err *err)
{
    for (;;) {
        if (v->idt_base == UINT64_MAX)
            kvm_syscall_look(v, idt_base(v));
        if (ioctl(v->fd, KVM_RUN, 0) >= 0) {
            int r = handle_exit(v, err);
            if (r >= 0)
                return (enum vcpu_exit)r;
            continue;
        }
        if (errno == EINTR || errno == EAGAIN) {
            __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
            if (atomic_exchange(&v->kicked, false))
                return VCPU_EXIT_KICKED;
            continue;
        }
        err_errno(err, -errno, "CPU %u: KVM_RUN", v->vcpu.index);
        return VCPU_EXIT_ERROR;
    }
}

/* Whoever made this thread may have blocked all signals. */
static void let_kicks_in(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, KVM_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

enum vcpu_exit kvm_vcpu_run(struct vcpu *vcpu, struct err *err)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    let_kicks_in();
    pthread_mutex_lock(&v->lock);
    v->thread = pthread_self();
    v->running = true;
    pthread_mutex_unlock(&v->lock);
    enum vcpu_exit e = run_loop(v, err);
    pthread_mutex_lock(&v->lock);
    v->running = false;
    pthread_mutex_unlock(&v->lock);
    return e;
}
