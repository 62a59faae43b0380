/*
 * What the boards share: interrupt controllers (where the engine has none of its own), serial ports, and what the guest asks of the
 * machine through them.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "dev/debugexit.h"
#include "dev/ioapic.h"
#include "dev/pic.h"
#include "dev/uart.h"
#include "machine/chips.h"

/* ---- power ---- */

void chips_poweroff(void *opaque)
{
    vm_want(opaque, WANT_POWEROFF);
}

void chips_reset(void *opaque)
{
    vm_want(opaque, WANT_RESET);
}

static void debug_exit(void *opaque, int status)
{
    struct vm *vm = opaque;
    atomic_store(&vm->exit_status, status);
    vm_want(vm, WANT_DEBUG_EXIT);
}

int chips_debugexit(struct vm *vm, struct err *err)
{
    struct debugexit_config cfg = {"debugexit", debug_exit, vm};
    struct debugexit *d;
    debugexit_new(&cfg, &d);
    vm_add_device(vm, debugexit_device(d));
    return debugexit_map(d, vm->pio, DEBUGEXIT_PORT, err);
}

/* ---- local APICs ---- */

static void lapic_signal(void *opaque, enum lapic_signal what, unsigned arg)
{
    static const enum vcpu_signal signals[] = {
        [LAPIC_INTR] = VCPU_SIG_INTR, [LAPIC_NMI] = VCPU_SIG_NMI,   [LAPIC_INIT] = VCPU_SIG_INIT,
        [LAPIC_SIPI] = VCPU_SIG_SIPI,
    };
    struct vcpu_thread *t = opaque;
    if (what == LAPIC_SMI)
        return; /* no system management mode: nobody listens */
    t->vm->ops->vcpu_signal(t->vcpu, signals[what], arg);
}

static void lapic_arm_timer(void *opaque, uint64_t guest_ns)
{
    struct vcpu_thread *t = opaque;
    t->vm->ops->vcpu_arm_timer(t->vcpu, guest_ns);
}

static uint64_t lapic_tsc(void *opaque)
{
    struct vcpu_thread *t = opaque;
    return t->vm->ops->vcpu_tsc(t->vcpu);
}

static int extint_ack(void *opaque)
{
    struct vm *vm = opaque;
    return vm->pic ? pic_ack(vm->pic) : -1;
}

static void eoi(void *opaque, uint8_t vector)
{
    struct vm *vm = opaque;
    if (vm->ioapic)
        ioapic_eoi(vm->ioapic, vector);
}

int chips_interrupts(struct vm *vm, bool pic, struct err *err)
{
    if (vm->ops->kernel_irqchip) {
        vm->msi = (struct msi_sink){
            .send = (void (*)(void *, uint64_t, uint32_t))vm->ops->msi,
            .bind_fd = (int (*)(void *, int, uint64_t, uint32_t))vm->ops->msi_bind_fd,
            .unbind_fd = (void (*)(void *, int))vm->ops->msi_unbind_fd,
            .opaque = vm->engine,
        };
        return 0;
    }
    struct lapic_set_config set = {
        .clock = &vm->clock, .extint_ack = extint_ack, .eoi = eoi, .extint_opaque = vm, .eoi_opaque = vm};
    vm->lapics = lapic_set_new(&set);
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        struct lapic_cpu cpu = {&vm->cpu[i], lapic_signal, lapic_arm_timer, lapic_tsc, vm->engine->tsc_khz};
        uint32_t id = cpu_apic_id(&vm->engine->cfg.cpu.topology, i);
        int code = lapic_new(vm->lapics, id, i == 0, &cpu, &vm->cpu[i].lapic, err);
        if (code < 0)
            return code;
        vm_add_device(vm, lapic_device(vm->cpu[i].lapic));
    }
    vm->msi = lapic_set_msi_sink(vm->lapics);
    if (pic) {
        struct pic_config cfg = {"pic", lapic_set_lint0(vm->lapics)};
        pic_new(&cfg, &vm->pic);
        vm_add_device(vm, pic_device(vm->pic));
        int code = pic_map(vm->pic, vm->pio, err);
        if (code < 0)
            return code;
    }
    struct ioapic_config cfg = {"ioapic", 0, vm->msi};
    ioapic_new(&cfg, &vm->ioapic);
    vm_add_device(vm, ioapic_device(vm->ioapic));
    return ioapic_map(vm->ioapic, vm->mmio, IOAPIC_BASE, err);
}

/* ---- serial ports ---- */

int chips_uarts(struct vm *vm, struct err *err)
{
    static const uint16_t ports[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    static const uint8_t irqs[] = {4, 3, 4, 3};
    const struct domain *d = vm->domain;
    for (unsigned i = 0; i < d->n_serials; i++) {
        int port = d->serials[i].port;
        if (port < 0 || port > 3)
            return err_set(err, -EINVAL, "serial port %d: there are ports 0 to 3", port);
        struct chardev *chr;
        int code = attach_chardev(vm, &d->serials[i].chardev, &chr, err);
        if (code < 0) {
            err_prefix(err, "serial port %d", port);
            return code;
        }
        char id[] = "uart0";
        id[4] = (char)('0' + port);
        struct uart_config cfg = {id, vm->loop, &vm->clock, vm_gsi(vm, irqs[port]), chr};
        struct uart *u;
        uart_new(&cfg, &u);
        vm_add_device(vm, uart_device(u));
        if ((code = uart_map(u, vm->pio, ports[port], 1, err)) < 0)
            return code;
        vm->uarts |= BIT(port);
    }
    return 0;
}

/* ---- wall clock ---- */

/* Seconds that the guest's wall clock is ahead of UTC. */
static int64_t clock_offset(const struct domain *d)
{
    if (!d->clock.offset || strcmp(d->clock.offset, "localtime"))
        return 0;
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    return tm.tm_gmtoff;
}

int chips_rtc(struct vm *vm, struct irq alarm, struct rtc **ret, struct err *err)
{
    struct rtc_config cfg = {
        .id = "rtc",
        .loop = vm->loop,
        .clock = &vm->clock,
        .irq = vm_gsi(vm, 8),
        .alarm = alarm,
        .host = true,
        .start = clock_offset(vm->domain),
    };
    rtc_new(&cfg, ret);
    vm_add_device(vm, rtc_device(*ret));
    return rtc_map(*ret, vm->pio, err);
}
