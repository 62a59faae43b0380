/*
 * The life of a machine: made, run, stopped, reset, ended. Everything here is on the main thread, but vm_want(), by
 * which devices and vCPUs ask for it.
 */
#include "machine/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "cpu/engine.h"
#include "dev/ioapic.h"
#include "dev/pic.h"
#include "machine/firmware.h"
#include "machine/machine.h"
#include "machine/pirq.h"

const char *vm_status_name(enum vm_status s)
{
    static const char *const names[] = {"prelaunch", "running",        "paused",
                                        "shutdown",  "guest-panicked", "internal-error"};
    return names[s];
}

static void tell(struct vm *vm, enum vm_event event, bool guest)
{
    if (vm->owner.event)
        vm->owner.event(vm->owner.opaque, event, guest);
}

static void end(struct vm *vm, enum vm_end how, const char *why)
{
    if (vm->end)
        return;
    vm->end = how;
    if (vm->owner.ended)
        vm->owner.ended(vm->owner.opaque, how, why);
}

/* ---- devices ---- */

void vm_add_device(struct vm *vm, struct device *dev)
{
    *vm->devices_tail = dev;
    vm->devices_tail = &dev->next;
}

static void gsi_set(void *opaque, unsigned n, int level)
{
    struct vm *vm = opaque;
    if (vm->ops->kernel_irqchip) {
        vm->ops->irq_line(vm->engine, n, level);
        return;
    }
    if (n < 16 && vm->pic)
        irq_set(pic_irq(vm->pic, n), level);
    /* The timer's line arrives at pin 2 (the MADT says so), as on every PC. */
    irq_set(ioapic_irq(vm->ioapic, n == 0 ? 2 : n), level);
}

struct irq vm_gsi(struct vm *vm, unsigned gsi)
{
    return (struct irq){gsi_set, vm, gsi};
}

static void pause_devices(struct vm *vm, bool paused)
{
    for (struct device *d = vm->devices; d; d = d->next)
        if (d->type->pause)
            d->type->pause(d, paused);
}

/* ---- running and stopping ---- */

static void clock_run(struct vm *vm, bool run)
{
    if (run)
        clock_start(&vm->clock);
    else
        clock_stop(&vm->clock);
    if (vm->ops->clock_changed)
        vm->ops->clock_changed(vm->engine, run);
    loop_clock_changed(vm->loop);
}

static void hold_all(struct vm *vm)
{
    vcpus_hold(vm);
    clock_run(vm, false);
    pause_devices(vm, true);
}

static void release_all(struct vm *vm)
{
    pause_devices(vm, false);
    clock_run(vm, true);
    vcpus_release(vm);
}

static void handle_wants(void *opaque);

int vm_cont(struct vm *vm, struct err *err)
{
    if (vm->status == VM_RUNNING)
        return 0;
    if (vm->status != VM_PRELAUNCH && vm->status != VM_PAUSED)
        return err_set(err, -EPERM, "the guest has ended (%s); reset it first", vm_status_name(vm->status));
    vm->status = VM_RUNNING;
    release_all(vm);
    tell(vm, VM_EVENT_RESUME, false);
    handle_wants(vm); /* what the guest asked for in its last moment before the stop */
    return 0;
}

int vm_stop(struct vm *vm, struct err *err)
{
    if (vm->status != VM_RUNNING)
        return 0;
    hold_all(vm);
    for (unsigned i = 0; i < vm->n_cpus; i++)
        vm->cpu[i].debug_held = false; /* whoever lets the machine go on, lets all of it */
    vm->status = VM_PAUSED;
    tell(vm, VM_EVENT_STOP, false);
    return 0;
}

/* Everything to its power-on state, and the kernel into memory again. vCPUs are held. */
static void reset_machine(struct vm *vm)
{
    struct err err = {0};
    atomic_store(&vm->wants, 0);
    for (struct device *d = vm->devices; d; d = d->next)
        device_reset(d);
    mem_collect(vm->mem);
    if (boot_load(vm, &err) < 0) {
        vm->status = VM_ERROR;
        end(vm, VM_END_ERROR, err.msg);
    }
}

static void do_reset(struct vm *vm, bool guest)
{
    bool was_running = vm->status == VM_RUNNING;
    if (was_running)
        hold_all(vm);
    reset_machine(vm);
    tell(vm, VM_EVENT_RESET, guest);
    if (vm->status == VM_SHUTDOWN || vm->status == VM_PANICKED) {
        vm->status = VM_PAUSED;
        vm->end = VM_END_NONE;
    }
    if (was_running && vm->status == VM_RUNNING)
        release_all(vm);
}

void vm_reset(struct vm *vm)
{
    do_reset(vm, false);
}

void vm_powerdown(struct vm *vm)
{
    tell(vm, VM_EVENT_POWERDOWN, false);
    if (vm->status == VM_RUNNING)
        vm->board->power_button(vm);
}

static void halt(struct vm *vm, enum vm_status status, enum vm_event event, enum vm_end how, const char *why)
{
    if (vm->status == VM_RUNNING)
        hold_all(vm);
    vm->status = status;
    tell(vm, event, true);
    end(vm, how, why);
}

/* The strongest want wins: what the guest did last before it stopped for good. */
static void handle_wants(void *opaque)
{
    struct vm *vm = opaque;
    if (vm->status != VM_RUNNING)
        return; /* vm_cont() looks again */
    unsigned wants = atomic_exchange(&vm->wants, 0);
    if (wants & BIT(WANT_ERROR)) {
        halt(vm, VM_ERROR, VM_EVENT_STOP, VM_END_ERROR, vm->vcpu_err.msg);
    } else if (wants & BIT(WANT_PANIC)) {
        tell(vm, VM_EVENT_PANICKED, true);
        if (vm->domain->on_crash == DOMAIN_ACTION_RESTART)
            do_reset(vm, true);
        else
            halt(vm, VM_PANICKED, VM_EVENT_STOP, VM_END_PANIC, "the guest's kernel panicked");
    } else if (wants & BIT(WANT_TRIPLE_FAULT)) {
        if (vm->domain->on_crash == DOMAIN_ACTION_RESTART)
            do_reset(vm, true);
        else
            halt(vm, VM_SHUTDOWN, VM_EVENT_SHUTDOWN, VM_END_TRIPLE_FAULT, "the guest's CPU stopped by a triple fault");
    } else if (wants & BIT(WANT_DEBUG_EXIT)) {
        halt(vm, VM_SHUTDOWN, VM_EVENT_SHUTDOWN, VM_END_DEBUG_EXIT, "the guest wrote to the debug-exit port");
    } else if (wants & BIT(WANT_POWEROFF)) {
        halt(vm, VM_SHUTDOWN, VM_EVENT_SHUTDOWN, VM_END_POWEROFF, "the guest powered off");
    } else if (wants & BIT(WANT_RESET)) {
        if (vm->domain->on_reboot == DOMAIN_ACTION_DESTROY)
            halt(vm, VM_SHUTDOWN, VM_EVENT_SHUTDOWN, VM_END_RESET, "the guest rebooted");
        else
            do_reset(vm, true);
    } else if (wants & BIT(WANT_DEBUGGER)) {
        debug_report(vm);
    } else if (wants & BIT(WANT_COLLECT)) {
        hold_all(vm);
        mem_collect(vm->mem);
        release_all(vm);
    }
}

void vm_want(struct vm *vm, enum vm_want want)
{
    atomic_fetch_or(&vm->wants, BIT(want));
    /* Nobody executes another block of guest code after this; the main thread parks and later releases them. */
    atomic_store(&vm->hold, true);
    for (unsigned i = 0; i < vm->n_cpus; i++)
        if (vm->cpu[i].vcpu)
            vm->ops->vcpu_kick(vm->cpu[i].vcpu);
    loop_post(vm->loop, handle_wants, vm);
}

/* ---- making and freeing ---- */

static const char *engine_wanted(const struct domain *d)
{
    return d->engine == DOMAIN_ENGINE_KVM ? "kvm" : d->engine == DOMAIN_ENGINE_SOFT ? "soft" : "auto";
}

static const char *cpu_model(const struct domain_cpu *cpu)
{
    switch (cpu->mode) {
    case DOMAIN_CPU_HOST_PASSTHROUGH:
    case DOMAIN_CPU_HOST_MODEL:
        return "host";
    case DOMAIN_CPU_CUSTOM:
        return cpu->model;
    default:
        return "max";
    }
}

/* "auto" takes only a KVM that its probe found fast; who asks for KVM by name may get one that emulates. */
static bool runs_slowly(const struct engine_ops *ops, bool by_name)
{
    struct engine_probe p = {.usable = true};
    if (!ops->kernel_irqchip)
        return true;
    if (by_name && ops->probe)
        ops->probe(&p);
    return !p.usable;
}

/*
 * OVMF fills page tables for all that the CPU can address, by 2 MiB: with 46 bits it takes minutes. 40 are what it does not take
 * at its word.
 */
static unsigned phys_bits(const struct domain *d)
{
    return d->memory < 512 * GIB ? 40 : 0;
}

static int make_engine(struct vm *vm, struct err *err)
{
    const struct domain *d = vm->domain;
    int code = engine_choose(engine_wanted(d), &vm->ops, vm->engine_why, err);
    if (code < 0)
        return code;
    vm->slow = runs_slowly(vm->ops, d->engine == DOMAIN_ENGINE_KVM);
    vm->cpu_features = xcalloc(d->cpu.n_features + 1, sizeof *vm->cpu_features);
    for (unsigned i = 0; i < d->cpu.n_features; i++)
        vm->cpu_features[i] = xasprintf("%c%s", d->cpu.features[i].on ? '+' : '-', d->cpu.features[i].name);
    struct engine_config cfg = {
        .mem = vm->mem,
        .bus = &vm->cpu_bus,
        .clock = &vm->clock,
        .cpus = d->vcpus,
        .cpu = {.model = cpu_model(&d->cpu),
                .features = (const char *const *)vm->cpu_features,
                .topology = {d->vcpus, d->cpu.sockets, d->cpu.dies, d->cpu.cores, d->cpu.threads},
                .hypervisor = true,
                .phys_bits = phys_bits(d)},
        .chaos = d->engine_chaos,
        .perf_map = d->engine_perf_map,
    };
    code = vm->ops->create(&cfg, &vm->engine, err);
    if (code < 0)
        err_prefix(err, "engine %s", vm->ops->name);
    return MIN(code, 0);
}

static const struct board *find_board(const struct domain *d)
{
    const char *name = d->os.board == DOMAIN_BOARD_MICRO ? "micro" : "q35";
    for (const struct board *const *b = boards; *b; b++)
        if (!strcmp((*b)->name, name))
            return *b;
    return NULL;
}

static void *io_main(void *opaque)
{
    pthread_setname_np(pthread_self(), "io");
    loop_run(((struct io_thread *)opaque)->loop);
    return NULL;
}

static int make_io_threads(struct vm *vm, struct err *err)
{
    vm->io = xcalloc(vm->domain->iothreads + 1, sizeof *vm->io);
    for (unsigned i = 0; i < vm->domain->iothreads; i++) {
        int code = loop_new(&vm->io[i].loop, err);
        if (code < 0)
            return code;
        code = -pthread_create(&vm->io[i].thread, NULL, io_main, &vm->io[i]);
        if (code < 0) {
            loop_free(vm->io[i].loop);
            return err_errno(err, code, "cannot start I/O thread %u", i + 1);
        }
        vm->n_io++;
    }
    return 0;
}

/* The guest has changed its memory layout very often: the old ones can be freed while no vCPU runs. */
static void collect_due(void *opaque)
{
    vm_want(opaque, WANT_COLLECT);
}

static int build(struct vm *vm, struct err *err)
{
    const struct domain *d = vm->domain;
    uint64_t size = ALIGN_UP(d->memory, PAGE_SIZE);
    int code =
        mem_new_with_device(size, size <= RAM_LOW_ALL ? RAM_LOW_ALL : RAM_LOW_MAX, display_memory(d), &vm->mem, err);
    if (code < 0)
        return code;
    vm->mem->collect_due = collect_due;
    vm->mem->collect_opaque = vm;
    vm->pio = bus_new("I/O ports", 0xffff);
    vm->mmio = bus_new("memory", UINT64_MAX);
    cpubus_init(vm);
    if ((code = make_engine(vm, err)) < 0 || (code = vcpus_new(vm, err)) < 0 || (code = make_io_threads(vm, err)) < 0)
        return code;
    if ((code = vm->board->build(vm, err)) < 0 || (code = attach_all(vm, err)) < 0)
        return code;
    if (firmware_wanted(d) && ((code = firmware_new(vm, err)) < 0 || (code = firmware_describe(vm, err)) < 0))
        return code;
    for (struct device *dev = vm->devices; dev; dev = dev->next)
        device_reset(dev);
    pause_devices(vm, true);
    if ((code = boot_load(vm, err)) < 0)
        return code;
    return vcpus_start(vm, err);
}

int vm_new(const struct domain *d, struct loop *loop, const struct vm_owner *owner, struct vm **ret, struct err *err)
{
    struct vm *vm = xcalloc(1, sizeof *vm);
    vm->domain = d;
    vm->loop = loop;
    vm->owner = *owner;
    vm->board = find_board(d);
    vm->devices_tail = &vm->devices;
    clock_init(&vm->clock, 0);
    pthread_mutex_init(&vm->cpu_lock, NULL);
    pthread_mutex_init(&vm->host_lock, NULL);
    pthread_cond_init(&vm->cpu_parked, NULL);
    pthread_cond_init(&vm->cpu_go, NULL);
    int code = build(vm, err);
    if (code < 0) {
        vm_free(vm);
        return code;
    }
    *ret = vm;
    return 0;
}

/* Last made, first freed. */
static void free_devices(struct device *d)
{
    if (!d)
        return;
    free_devices(d->next);
    device_free(d);
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    vcpus_free(vm);
    loop_unpost(vm->loop, vm);
    if (vm->status == VM_RUNNING)
        pause_devices(vm, true);
    for (unsigned i = 0; i < vm->n_io; i++) {
        loop_quit(vm->io[i].loop);
        pthread_join(vm->io[i].thread, NULL);
    }
    free_devices(vm->devices);
    attach_free(vm);
    for (unsigned i = 0; i < vm->n_boot; i++)
        free(vm->boot[i].path);
    free(vm->boot);
    for (unsigned i = 0; i < vm->n_io; i++)
        loop_free(vm->io[i].loop);
    free(vm->io);
    pci_bus_free(vm->pci);
    pirq_free(vm->pirq);
    lapic_set_free(vm->lapics);
    if (vm->engine)
        vm->ops->destroy(vm->engine);
    free(vm->cpu);
    for (char **f = vm->cpu_features; f && *f; f++)
        free(*f);
    free(vm->cpu_features);
    bus_free(vm->pio);
    bus_free(vm->mmio);
    ui_display_free(vm->display);
    firmware_free(vm->firmware);
    mem_free(vm->mem);
    pthread_mutex_destroy(&vm->cpu_lock);
    pthread_mutex_destroy(&vm->host_lock);
    pthread_cond_destroy(&vm->cpu_parked);
    pthread_cond_destroy(&vm->cpu_go);
    free(vm);
}
