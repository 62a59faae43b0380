/*
 * The local APIC's registers: the xAPIC page, the x2APIC MSRs, and the page as it is saved (in KVM's form). The vCPU's
 * own thread, or while that vCPU is stopped.
 */
#include <errno.h>

#include "dev/lapic_priv.h"

static const uint32_t lvt_writable[LVTS] = {0x710ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

/* Numbered by their MMIO offset / 16, which is also their MSR - 0x800. */
enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRD = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR2 = 0x31,
    REG_LVT = 0x32,
    REG_INITIAL = 0x38,
    REG_CURRENT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};

#define SVR_WRITABLE 0x13ffu
#define ICR_WRITABLE 0xccfffu
#define VERSION (0x14u | (LVTS - 1) << 16 | BIT(24)) /* integrated APIC, can suppress EOI broadcasts */

static void set_tpr(struct lapic *l, uint32_t tpr)
{
    bool lower = tpr < atomic_load(&l->tpr);
    atomic_store(&l->tpr, tpr);
    if (lower)
        lapic_reconsider(l);
}

/* 0, or -1 for a register that does not exist. */
static int reg_read(struct lapic *l, unsigned reg, uint32_t *ret)
{
    bool x2 = lapic_x2apic(l);
    switch (reg) {
    case REG_ID:
        *ret = x2 ? l->id : l->id << 24;
        return 0;
    case REG_VERSION:
        *ret = VERSION;
        return 0;
    case REG_TPR:
        *ret = atomic_load(&l->tpr);
        return 0;
    case REG_PPR:
        *ret = lapic_ppr(l);
        return 0;
    case REG_APR:
    case REG_EOI:
    case REG_RRD:
        *ret = 0;
        return x2 ? -1 : 0;
    case REG_LDR:
        *ret = atomic_load(&l->ldr);
        return 0;
    case REG_DFR:
        *ret = atomic_load(&l->dfr);
        return x2 ? -1 : 0;
    case REG_SVR:
        *ret = atomic_load(&l->svr);
        return 0;
    case REG_ISR ... REG_ISR + 7:
        *ret = atomic_load(&l->isr[reg - REG_ISR]);
        return 0;
    case REG_TMR ... REG_TMR + 7:
        *ret = atomic_load(&l->tmr[reg - REG_TMR]);
        return 0;
    case REG_IRR ... REG_IRR + 7:
        *ret = atomic_load(&l->irr[reg - REG_IRR]);
        return 0;
    case REG_ESR:
        *ret = l->esr;
        return 0;
    case REG_ICR:
        *ret = l->icr;
        return 0;
    case REG_ICR2:
        *ret = l->icr2;
        return x2 ? -1 : 0;
    case REG_LVT ... REG_LVT + LVTS - 1:
        *ret = atomic_load(&l->lvt[reg - REG_LVT]);
        return 0;
    case REG_INITIAL:
        *ret = l->initial;
        return 0;
    case REG_CURRENT:
        *ret = lapic_timer_current(l);
        return 0;
    case REG_DIVIDE:
        *ret = l->divide;
        return 0;
    }
    *ret = 0;
    return -1;
}

static void write_lvt(struct lapic *l, unsigned n, uint32_t val)
{
    val &= lvt_writable[n];
    if (!(atomic_load(&l->svr) & SVR_ENABLE))
        val |= LVT_MASKED;
    if (n == LVT_TIMER) {
        lapic_timer_write_lvt(l, val);
        return;
    }
    if ((n == LVT_LINT0) && (val & LVT_LEVEL))
        val |= atomic_load(&l->lvt[n]) & LVT_REMOTE_IRR;
    atomic_store(&l->lvt[n], val);
    if (n == LVT_LINT0 && atomic_load(&l->lint_level[0]))
        lapic_pin_high(l, 0, false);
}

static void write_svr(struct lapic *l, uint32_t val)
{
    atomic_store(&l->svr, val & SVR_WRITABLE);
    if (!(val & SVR_ENABLE))
        for (unsigned i = 0; i < LVTS; i++)
            atomic_fetch_or(&l->lvt[i], LVT_MASKED);
}

static void write_icr(struct lapic *l, uint32_t low, uint32_t dest)
{
    l->icr = low & ICR_WRITABLE;
    unsigned dm = l->icr >> 8 & 7;
    if ((dm == DM_FIXED || dm == DM_LOWEST) && (l->icr & 0xff) < 16)
        lapic_error(l, ESR_SEND_ILLEGAL);
    else
        lapic_set_ipi(l->set, l, l->icr, dest);
}

/* Registers that both modes write alike; `val` has no reserved bits set, or they are ignored. */
static void reg_write(struct lapic *l, unsigned reg, uint32_t val)
{
    switch (reg) {
    case REG_TPR:
        set_tpr(l, val & 0xff);
        break;
    case REG_EOI:
        lapic_end_of_interrupt(l);
        break;
    case REG_SVR:
        write_svr(l, val);
        break;
    case REG_ESR:
        l->esr = atomic_exchange(&l->esr_pending, 0);
        break;
    case REG_LVT ... REG_LVT + LVTS - 1:
        write_lvt(l, reg - REG_LVT, val);
        break;
    case REG_INITIAL:
        if (lapic_timer_mode(l) != TIMER_DEADLINE) {
            l->initial = val;
            lapic_timer_start(l, val);
        }
        break;
    case REG_DIVIDE:
        lapic_timer_write_divide(l, val);
        break;
    }
}

uint64_t lapic_mmio_base(const struct lapic *l)
{
    uint64_t base = atomic_load(&l->base);
    return (base & BASE_ENABLE) && !(base & BASE_X2APIC) ? base & ~(PAGE_SIZE - 1) : UINT64_MAX;
}

uint32_t lapic_mmio_read(struct lapic *l, unsigned off, unsigned size)
{
    uint32_t val = 0;
    if (off < LAPIC_PAGE_SIZE && (off & 15) + size <= 4 && lapic_mmio_base(l) != UINT64_MAX)
        reg_read(l, off >> 4, &val);
    return (uint32_t)bits_trunc(val >> (off & 3) * 8, size);
}

void lapic_mmio_write(struct lapic *l, unsigned off, unsigned size, uint32_t val)
{
    if (off >= LAPIC_PAGE_SIZE || (off & 15) || size != 4 || lapic_mmio_base(l) == UINT64_MAX)
        return;
    unsigned reg = off >> 4;
    switch (reg) {
    case REG_LDR:
        atomic_store(&l->ldr, val & 0xff000000);
        break;
    case REG_DFR:
        atomic_store(&l->dfr, val | 0x0fffffff);
        break;
    case REG_ICR:
        write_icr(l, val, l->icr2 >> 24);
        break;
    case REG_ICR2:
        l->icr2 = val & 0xff000000;
        break;
    default:
        reg_write(l, reg, val);
    }
}

int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *ret)
{
    uint32_t low;
    if (!lapic_x2apic(l) || msr < 0x800 || msr > 0x83f || reg_read(l, msr - 0x800, &low) < 0)
        return -1;
    *ret = low;
    if (msr - 0x800 == REG_ICR)
        *ret |= (uint64_t)l->icr2 << 32;
    return 0;
}

/* Bits of an x2APIC register that may be written, -1 when none can be. */
static int64_t x2apic_writable(unsigned reg)
{
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_EOI:
    case REG_ESR:
        return 0;
    case REG_SVR:
        return SVR_WRITABLE;
    case REG_LVT ... REG_LVT + LVTS - 1:
        /* Delivery status and remote IRR are read-only, not reserved. */
        return lvt_writable[reg - REG_LVT] | BIT(12) | (reg >= REG_LVT + LVT_LINT0 ? LVT_REMOTE_IRR : 0);
    case REG_INITIAL:
        return 0xffffffff;
    case REG_DIVIDE:
        return 0xb;
    }
    return -1;
}

int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t val)
{
    if (!lapic_x2apic(l) || msr < 0x800 || msr > 0x83f)
        return -1;
    unsigned reg = msr - 0x800;
    if (reg == REG_ICR) {
        if ((uint32_t)val & ~(ICR_WRITABLE | BIT(12)))
            return -1;
        l->icr2 = (uint32_t)(val >> 32);
        write_icr(l, (uint32_t)val, l->icr2);
        return 0;
    }
    int64_t writable = x2apic_writable(reg);
    if (writable < 0 || (val & ~(uint64_t)writable))
        return -1;
    if (reg == REG_SELF_IPI)
        write_icr(l, (uint32_t)val | 1u << 18, 0);
    else
        reg_write(l, reg, (uint32_t)val);
    return 0;
}

unsigned lapic_cr8(const struct lapic *l)
{
    return atomic_load(&l->tpr) >> 4;
}

void lapic_set_cr8(struct lapic *l, unsigned cr8)
{
    set_tpr(l, (cr8 & 15) << 4);
}

/* ---- state ---- */

void lapic_get_page(struct lapic *l, uint8_t page[LAPIC_PAGE_SIZE])
{
    memset(page, 0, LAPIC_PAGE_SIZE);
    for (unsigned reg = 0; reg < LAPIC_PAGE_SIZE / 16; reg++) {
        uint32_t val;
        reg_read(l, reg, &val);
        le32_put(page + reg * 16, val);
    }
    if (lapic_x2apic(l))
        le32_put(page + REG_ICR2 * 16, l->icr2);
}

int lapic_set_page(struct lapic *l, const uint8_t page[LAPIC_PAGE_SIZE], struct err *err)
{
    uint32_t reg[LAPIC_PAGE_SIZE / 16];
    for (unsigned i = 0; i < ARRAY_SIZE(reg); i++)
        reg[i] = le32_get(page + i * 16);
    bool x2 = lapic_x2apic(l);
    if (reg[REG_ID] != (x2 ? l->id : l->id << 24))
        return err_set(err, -EINVAL, "lapic %u: the saved state is that of another ID", l->id);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t legal = i ? 0xffffffff : 0xffff0000; /* vectors 0-15 cannot be */
        atomic_store(&l->irr[i], reg[REG_IRR + i] & legal);
        atomic_store(&l->isr[i], reg[REG_ISR + i] & legal);
        atomic_store(&l->tmr[i], reg[REG_TMR + i] & legal);
    }
    atomic_store(&l->tpr, reg[REG_TPR] & 0xff);
    atomic_store(&l->ldr, x2 ? lapic_x2apic_ldr(l->id) : reg[REG_LDR] & 0xff000000);
    atomic_store(&l->dfr, x2 ? 0xffffffff : reg[REG_DFR] | 0x0fffffff);
    atomic_store(&l->svr, reg[REG_SVR] & SVR_WRITABLE);
    for (unsigned i = 0; i < LVTS; i++)
        atomic_store(&l->lvt[i], reg[REG_LVT + i] & (lvt_writable[i] | (i == LVT_LINT0 ? LVT_REMOTE_IRR : 0)));
    l->esr = reg[REG_ESR] & 0xff;
    l->icr = reg[REG_ICR] & ICR_WRITABLE;
    l->icr2 = x2 ? reg[REG_ICR2] : reg[REG_ICR2] & 0xff000000;
    l->divide = reg[REG_DIVIDE] & 0xb;
    l->initial = reg[REG_INITIAL];
    l->expires = 0;
    if (lapic_timer_mode(l) != TIMER_DEADLINE)
        lapic_timer_start(l, MIN(reg[REG_CURRENT], l->initial));
    lapic_notify(l);
    return 0;
}

static void lapic_pre_save(void *obj)
{
    struct lapic *l = obj;
    lapic_get_page(l, l->page);
    l->saved_base = atomic_load(&l->base);
}

static int lapic_post_load(void *obj, uint32_t version, struct err *err)
{
    struct lapic *l = obj;
    uint64_t expires = l->expires;
    const uint64_t mode = BASE_ENABLE | BASE_X2APIC;
    if ((l->saved_base & mode) == BASE_X2APIC || (l->saved_base & 0x2ff))
        return err_set(err, -EINVAL, "lapic %u: IA32_APIC_BASE cannot be 0x%llx", l->id,
                       (unsigned long long)l->saved_base);
    atomic_store(&l->base, l->saved_base);
    atomic_store(&l->lint_level[0], l->lint_level[0] != 0);
    atomic_store(&l->lint_level[1], l->lint_level[1] != 0);
    int ret = lapic_set_page(l, l->page, err);
    if (ret < 0)
        return ret;
    if (lapic_timer_mode(l) == TIMER_DEADLINE || l->expires)
        lapic_timer_arm(l, MIN(expires, INT64_MAX));
    return 0;
}

static const struct state_field lapic_fields[] = {
    STATE_RAW(struct lapic, page),         STATE_U(struct lapic, saved_base),
    STATE_U(struct lapic, tsc_deadline),   STATE_U(struct lapic, expires),
    STATE_U(struct lapic, esr_pending),    STATE_U(struct lapic, ext_message),
    STATE_ARRAY(struct lapic, lint_level), STATE_END,
};
const struct state_desc lapic_state = {"lapic", 1, 1, lapic_fields, lapic_pre_save, lapic_post_load};
