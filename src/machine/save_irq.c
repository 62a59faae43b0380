/* The interrupt controllers and the PIT in the state stream, in the canonical form of cpu/irqchip.h, whether KVM or our chips have them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "machine/save.h"

#define PIC_FIELDS(n)                                                                                                  \
    STATE_U(struct irqchip_state, pic[n].lines), STATE_U(struct irqchip_state, pic[n].irr),                            \
        STATE_U(struct irqchip_state, pic[n].isr), STATE_U(struct irqchip_state, pic[n].imr),                          \
        STATE_U(struct irqchip_state, pic[n].elcr), STATE_U(struct irqchip_state, pic[n].base),                        \
        STATE_U(struct irqchip_state, pic[n].lowest_add), STATE_U(struct irqchip_state, pic[n].next_icw),              \
        STATE_U(struct irqchip_state, pic[n].icw4), STATE_U(struct irqchip_state, pic[n].auto_eoi),                    \
        STATE_U(struct irqchip_state, pic[n].rotate), STATE_U(struct irqchip_state, pic[n].special_mask),              \
        STATE_U(struct irqchip_state, pic[n].special_nested), STATE_U(struct irqchip_state, pic[n].read_isr),          \
        STATE_U(struct irqchip_state, pic[n].poll)
#define PIT_FIELDS(n)                                                                                                  \
    STATE_U(struct irqchip_state, pit[n].count), STATE_U(struct irqchip_state, pit[n].mode),                           \
        STATE_U(struct irqchip_state, pit[n].bcd), STATE_U(struct irqchip_state, pit[n].gate),                         \
        STATE_U(struct irqchip_state, pit[n].rw), STATE_U(struct irqchip_state, pit[n].low),                           \
        STATE_U(struct irqchip_state, pit[n].write_high), STATE_U(struct irqchip_state, pit[n].read_high),             \
        STATE_U(struct irqchip_state, pit[n].latched), STATE_U(struct irqchip_state, pit[n].status_latched),           \
        STATE_U(struct irqchip_state, pit[n].status), STATE_U(struct irqchip_state, pit[n].latch),                     \
        STATE_U(struct irqchip_state, pit[n].elapsed)

static const struct state_field chip_fields[] = {
    STATE_U(struct irqchip_state, has_pic),
    STATE_U(struct irqchip_state, has_pit),
    STATE_U(struct irqchip_state, has_kvm_clock),
    PIC_FIELDS(0),
    PIC_FIELDS(1),
    STATE_U(struct irqchip_state, ioapic.select),
    STATE_U(struct irqchip_state, ioapic.id),
    STATE_U(struct irqchip_state, ioapic.lines),
    STATE_ARRAY(struct irqchip_state, ioapic.rte),
    PIT_FIELDS(0),
    PIT_FIELDS(1),
    PIT_FIELDS(2),
    STATE_U(struct irqchip_state, port61),
    STATE_U(struct irqchip_state, kvm_clock),
    STATE_END,
};
static const struct state_desc chips_desc = {"irqchip", 1, 1, chip_fields, NULL, NULL};

struct lapic_page {
    uint8_t page[IRQCHIP_LAPIC_PAGE];
};
static const struct state_field lapic_fields[] = {STATE_RAW(struct lapic_page, page), STATE_END};
static const struct state_desc lapic_desc = {"lapic-page", 1, 1, lapic_fields, NULL, NULL};

bool is_irqchip(const struct device *d)
{
    return d->type == &lapic_type || d->type == &ioapic_type || d->type == &pic_type || d->type == &pit_type;
}

static void get_chips(struct vm *vm, struct irqchip_state *s)
{
    s->has_pic = vm->pic != NULL;
    s->has_pit = vm->pit != NULL;
    if (vm->pic)
        pic_get(vm->pic, s->pic);
    if (vm->pit)
        pit_get(vm->pit, s->pit, &s->port61);
    ioapic_get(vm->ioapic, &s->ioapic);
    for (unsigned i = 0; i < vm->n_cpus; i++)
        lapic_get_page(vm->cpu[i].lapic, s->lapic + i * IRQCHIP_LAPIC_PAGE);
}

static int set_chips(struct vm *vm, const struct irqchip_state *s, const struct cpu_state *cpu, struct err *err)
{
    enum { MAXPHYADDR = 52 };
    int code = 0;
    if (vm->pic && s->has_pic && (code = pic_set(vm->pic, s->pic, err)) < 0)
        return code;
    if (vm->pit && s->has_pit && (code = pit_set(vm->pit, s->pit, s->port61, err)) < 0)
        return code;
    if ((code = ioapic_set(vm->ioapic, &s->ioapic, err)) < 0)
        return code;
    for (unsigned i = 0; i < vm->n_cpus && code >= 0; i++) {
        struct lapic *l = vm->cpu[i].lapic;
        uint64_t base = cpu[i].apic_base;
        device_reset(lapic_device(l)); /* modes can be changed in one direction only */
        if (lapic_set_base_msr(l, base & ~BIT64(10), MAXPHYADDR) < 0 || lapic_set_base_msr(l, base, MAXPHYADDR) < 0)
            return err_set(err, -EINVAL, "saved state of CPU %u: IA32_APIC_BASE cannot be 0x%llx", i,
                           (unsigned long long)base);
        if ((code = lapic_set_page(l, s->lapic + i * IRQCHIP_LAPIC_PAGE, err)) < 0)
            return code;
        lapic_set_cr8(l, cpu[i].cr8 & 15);
        const uint64_t *deadline = cpu_state_msr((struct cpu_state *)&cpu[i], MSR_TSC_DEADLINE);
        if (deadline && *deadline)
            lapic_set_tsc_deadline(l, *deadline);
    }
    return code;
}

int save_irqchip(struct vm *vm, struct state_writer *w, struct err *err)
{
    struct irqchip_state s = {.cpus = vm->n_cpus};
    autofree uint8_t *pages = xcalloc(vm->n_cpus, IRQCHIP_LAPIC_PAGE);
    s.lapic = pages;
    if (vm->ops->kernel_irqchip) {
        int code = vm->ops->irqchip_get(vm->engine, &s, err);
        if (code < 0)
            return code;
    } else {
        get_chips(vm, &s);
    }
    state_save(w, &chips_desc, "", &s);
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        state_save(w, &lapic_desc, name, pages + i * IRQCHIP_LAPIC_PAGE);
    }
    return 0;
}

int load_irqchip(struct vm *vm, struct state_reader *r, const struct cpu_state *cpu, struct err *err)
{
    struct irqchip_state s = {0};
    int code = state_load(r, &chips_desc, "", &s, err);
    if (code < 0)
        return code;
    autofree uint8_t *pages = xcalloc(vm->n_cpus, IRQCHIP_LAPIC_PAGE);
    s.cpus = vm->n_cpus;
    s.lapic = pages;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        if ((code = state_load(r, &lapic_desc, name, pages + i * IRQCHIP_LAPIC_PAGE, err)) < 0)
            return code;
    }
    return vm->ops->kernel_irqchip ? vm->ops->irqchip_set(vm->engine, &s, err) : set_chips(vm, &s, cpu, err);
}
