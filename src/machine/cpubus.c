/*
 * How an engine reaches the machine: ports, memory-mapped registers, the local APIC. On the vCPU's own thread.
 */
#include "dev/bus.h"
#include "machine/machine.h"

static uint64_t pio_read(void *opaque, unsigned cpu, uint16_t port, unsigned size)
{
    return bus_read(((struct vm *)opaque)->pio, port, size);
}

static void pio_write(void *opaque, unsigned cpu, uint16_t port, unsigned size, uint64_t val)
{
    bus_write(((struct vm *)opaque)->pio, port, size, val);
}

/* The local APIC's page is each CPU's own, and hides what else may be there. */
static struct lapic *lapic_at(struct vm *vm, unsigned cpu, gpa_t gpa)
{
    struct lapic *l = vm->cpu[cpu].lapic;
    return l && gpa - lapic_mmio_base(l) < LAPIC_SIZE ? l : NULL;
}

static uint64_t mmio_read(void *opaque, unsigned cpu, gpa_t gpa, unsigned size)
{
    struct vm *vm = opaque;
    struct lapic *l = lapic_at(vm, cpu, gpa);
    if (l)
        return lapic_mmio_read(l, (unsigned)(gpa - lapic_mmio_base(l)), size);
    return bus_read(vm->mmio, gpa, size);
}

static void mmio_write(void *opaque, unsigned cpu, gpa_t gpa, unsigned size, uint64_t val)
{
    struct vm *vm = opaque;
    struct lapic *l = lapic_at(vm, cpu, gpa);
    if (l)
        lapic_mmio_write(l, (unsigned)(gpa - lapic_mmio_base(l)), size, (uint32_t)val);
    else
        bus_write(vm->mmio, gpa, size, val);
}

static struct lapic *lapic_of(void *opaque, unsigned cpu)
{
    return ((struct vm *)opaque)->cpu[cpu].lapic;
}

static bool irq_pending(void *opaque, unsigned cpu)
{
    return lapic_pending(lapic_of(opaque, cpu)) >= 0;
}

static int irq_ack(void *opaque, unsigned cpu)
{
    return lapic_ack(lapic_of(opaque, cpu));
}

static uint64_t cr8_read(void *opaque, unsigned cpu)
{
    struct lapic *l = lapic_of(opaque, cpu);
    return l ? lapic_cr8(l) : 0;
}

static void cr8_write(void *opaque, unsigned cpu, uint64_t val)
{
    struct lapic *l = lapic_of(opaque, cpu);
    if (l)
        lapic_set_cr8(l, (unsigned)val & 15);
}

static int apic_msr_read(void *opaque, unsigned cpu, uint32_t msr, uint64_t *ret)
{
    struct lapic *l = lapic_of(opaque, cpu);
    if (!l)
        return -1;
    switch (msr) {
    case MSR_APIC_BASE:
        *ret = lapic_base_msr(l);
        return 0;
    case MSR_TSC_DEADLINE:
        *ret = lapic_tsc_deadline(l);
        return 0;
    default:
        return lapic_msr_read(l, msr, ret);
    }
}

static int apic_msr_write(void *opaque, unsigned cpu, uint32_t msr, uint64_t val)
{
    struct lapic *l = lapic_of(opaque, cpu);
    if (!l)
        return -1;
    switch (msr) {
    case MSR_APIC_BASE:
        return lapic_set_base_msr(l, val, 46);
    case MSR_TSC_DEADLINE:
        lapic_set_tsc_deadline(l, val);
        return 0;
    default:
        return lapic_msr_write(l, msr, val);
    }
}

static void timer_expired(void *opaque, unsigned cpu)
{
    lapic_timer_expired(lapic_of(opaque, cpu));
}

static void init_taken(void *opaque, unsigned cpu)
{
    lapic_init_reset(lapic_of(opaque, cpu));
}

void cpubus_init(struct vm *vm)
{
    vm->cpu_bus = (struct cpu_bus){
        .opaque = vm,
        .pio_read = pio_read,
        .pio_write = pio_write,
        .mmio_read = mmio_read,
        .mmio_write = mmio_write,
        .irq_pending = irq_pending,
        .irq_ack = irq_ack,
        .cr8_read = cr8_read,
        .cr8_write = cr8_write,
        .apic_msr_read = apic_msr_read,
        .apic_msr_write = apic_msr_write,
        .timer_expired = timer_expired,
        .init_taken = init_taken,
    };
}
