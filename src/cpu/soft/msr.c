/*
 * Model-specific registers (SDM vol. 4): those that the CPUID bits we offer imply, and the few that systems touch
 * without asking. Unknown ones raise #GP. The TSC lives here too. On the vCPU's thread.
 */
#include <x86intrin.h>

#include "cpu/soft/exc.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/sys.h"

#define MSR_PLATFORM_ID 0x17
#define MSR_PRED_CMD 0x49
#define MSR_ARCH_CAPABILITIES 0x10a
#define MSR_MCG_STATUS 0x17a
/* AMD's, read by guests that were shown that vendor: all zero, writes ignored. */
#define MSR_AMD_SYSCFG 0xc0010010
#define MSR_AMD_HWCR 0xc0010015
#define MSR_AMD_NB_CFG 0xc001001f
#define MSR_AMD_INT_PENDING 0xc0010055
#define MSR_AMD_LS_CFG 0xc0011020
#define MSR_AMD_DC_CFG 0xc0011022
#define MSR_AMD_DE_CFG 0xc0011029

#define MTRR_VARIABLE 8
#define MTRRCAP (MTRR_VARIABLE | BIT(8) /* fixed */ | BIT(10) /* WC */)

/*
 * IA32_ARCH_CAPABILITIES: an interpreted guest has none of the speculation problems of its host's silicon: RDCL_NO,
 * IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR/FBSDP/PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
 */
#define ARCH_CAPS                                                                                                      \
    (BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | BIT(20) | BIT(24) |  \
     BIT(26) | BIT(27) | BIT64(62))

static uint64_t host_tsc(const struct soft_cpu *c)
{
    const struct clock *clock = c->vcpu.engine->cfg.clock;
    bool running = !clock || atomic_load_explicit(&clock->running, memory_order_relaxed);
    return running ? __rdtsc() : c->soft->stopped_tsc;
}

uint64_t soft_tsc(struct soft_cpu *c)
{
    return host_tsc(c) + c->tsc_offset;
}

void soft_set_tsc(struct soft_cpu *c, uint64_t tsc)
{
    c->tsc_offset = tsc - host_tsc(c);
}

static bool apic_msr(uint32_t msr)
{
    return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST);
}

/* Where a fixed-range MTRR is kept. */
static uint64_t *mtrr_fixed(struct soft_cpu *c, uint32_t msr)
{
    switch (msr) {
    case MSR_MTRR_FIX64K:
        return &c->mtrr_fix[0];
    case MSR_MTRR_FIX16K_80000:
    case MSR_MTRR_FIX16K_A0000:
        return &c->mtrr_fix[1 + msr - MSR_MTRR_FIX16K_80000];
    default:
        return msr - MSR_MTRR_FIX4K_C0000 < 8 ? &c->mtrr_fix[3 + msr - MSR_MTRR_FIX4K_C0000] : NULL;
    }
}

/* MSRs that only hold a value: where it is, and which bits can be set. NULL: not one of these. */
static uint64_t *plain(struct soft_cpu *c, uint32_t msr, uint64_t *ret_mask, bool *ret_canonical)
{
    *ret_mask = ~0ull;
    *ret_canonical = false;
    switch (msr) {
    case MSR_SYSENTER_CS:
        *ret_mask = 0xffffffff;
        return &c->sysenter_cs;
    case MSR_SYSENTER_ESP:
        *ret_canonical = true;
        return &c->sysenter_esp;
    case MSR_SYSENTER_EIP:
        *ret_canonical = true;
        return &c->sysenter_eip;
    case MSR_STAR:
        return &c->star;
    case MSR_LSTAR:
        *ret_canonical = true;
        return &c->lstar;
    case MSR_CSTAR:
        *ret_canonical = true;
        return &c->cstar;
    case MSR_FMASK:
        *ret_mask = 0xffffffff;
        return &c->fmask;
    case MSR_FS_BASE:
        *ret_canonical = true;
        return &c->seg[FS].base;
    case MSR_GS_BASE:
        *ret_canonical = true;
        return &c->seg[GS].base;
    case MSR_KERNEL_GS_BASE:
        *ret_canonical = true;
        return &c->kernel_gs_base;
    case MSR_TSC_AUX:
        *ret_mask = 0xffffffff;
        return &c->tsc_aux;
    case MSR_SPEC_CTRL:
        *ret_mask = BIT(0) | BIT(1) | BIT(2) | BIT(10); /* IBRS, STIBP, SSBD, BHI_DIS_S */
        return &c->spec_ctrl;
    case MSR_MISC_ENABLE:
        *ret_mask = 0xffffffffff;
        return &c->misc_enable;
    default:
        if (msr - MSR_MTRR_PHYS_BASE0 < 2 * MTRR_VARIABLE)
            return &c->mtrr_var[msr - MSR_MTRR_PHYS_BASE0];
        return NULL;
    }
}

/* Is every byte of `v` a memory type? PAT knows UC- (7) besides. */
static bool memory_types_ok(uint64_t v, bool pat)
{
    for (unsigned i = 0; i < 8; i++, v >>= 8) {
        uint8_t t = v;
        if (t > (pat ? 7 : 6) || t == 2 || t == 3)
            return false;
    }
    return true;
}

int soft_rdmsr(struct soft_cpu *c, uint32_t msr, uint64_t *ret)
{
    uint64_t mask;
    bool canonical;
    const uint64_t *p = plain(c, msr, &mask, &canonical);
    if (!p)
        p = mtrr_fixed(c, msr);
    if (p) {
        *ret = *p;
        return 0;
    }
    const struct cpu_bus *bus = soft_bus(c);
    if (apic_msr(msr) && bus->apic_msr_read)
        return bus->apic_msr_read(bus->opaque, c->vcpu.index, msr, ret) < 0 ? exc_raise_code(c, EXC_GP, 0) : 0;
    switch (msr) {
    case MSR_TSC:
        *ret = soft_tsc(c);
        return 0;
    case MSR_TSC_ADJUST:
        *ret = c->tsc_adjust;
        return 0;
    case MSR_EFER:
        *ret = c->efer;
        return 0;
    case MSR_PAT:
        *ret = c->pat;
        return 0;
    case MSR_MTRRCAP:
        *ret = MTRRCAP;
        return 0;
    case MSR_MTRR_DEF_TYPE:
        *ret = c->mtrr_def_type;
        return 0;
    case MSR_ARCH_CAPABILITIES:
        *ret = ARCH_CAPS;
        return 0;
    case MSR_BIOS_SIGN_ID:
        *ret = 1ull << 32;
        return 0;
    case MSR_PLATFORM_ID:
    case MSR_MCG_CAP:
    case MSR_MCG_STATUS:
    case MSR_AMD_SYSCFG:
    case MSR_AMD_HWCR:
    case MSR_AMD_NB_CFG:
    case MSR_AMD_INT_PENDING:
    case MSR_AMD_LS_CFG:
    case MSR_AMD_DC_CFG:
    case MSR_AMD_DE_CFG:
        *ret = 0;
        return 0;
    default:
        return exc_raise_code(c, EXC_GP, 0);
    }
}

static int write_efer(struct soft_cpu *c, uint64_t v)
{
    uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    if ((v & ~allowed) || (((c->efer ^ v) & EFER_LME) && (c->cr0 & CR0_PG)))
        return exc_raise_code(c, EXC_GP, 0);
    uint64_t old = c->efer;
    c->efer = (v & ~(uint64_t)EFER_LMA) | (old & EFER_LMA);
    if ((old ^ v) & EFER_NXE)
        mmu_flush(c, true);
    return 0;
}

int soft_wrmsr(struct soft_cpu *c, uint32_t msr, uint64_t v)
{
    uint64_t mask, *p;
    bool canonical;
    if ((p = plain(c, msr, &mask, &canonical))) {
        if ((v & ~mask) || (canonical && !lin_canonical(v)))
            return exc_raise_code(c, EXC_GP, 0);
        *p = v;
        return 0;
    }
    if ((p = mtrr_fixed(c, msr))) {
        if (!memory_types_ok(v, false))
            return exc_raise_code(c, EXC_GP, 0);
        *p = v;
        return 0;
    }
    const struct cpu_bus *bus = soft_bus(c);
    if (apic_msr(msr) && bus->apic_msr_write) {
        code_requests(c);
        return bus->apic_msr_write(bus->opaque, c->vcpu.index, msr, v) < 0 ? exc_raise_code(c, EXC_GP, 0) : 0;
    }
    switch (msr) {
    case MSR_TSC: {
        uint64_t delta = v - soft_tsc(c);
        c->tsc_offset += delta;
        c->tsc_adjust += delta;
        return 0;
    }
    case MSR_TSC_ADJUST:
        c->tsc_offset += v - c->tsc_adjust;
        c->tsc_adjust = v;
        return 0;
    case MSR_EFER:
        return write_efer(c, v);
    case MSR_PAT:
        if (!memory_types_ok(v, true))
            return exc_raise_code(c, EXC_GP, 0);
        c->pat = v;
        return 0;
    case MSR_MTRR_DEF_TYPE:
        if ((v & ~0xcffull) || !memory_types_ok(v & 0xff, false))
            return exc_raise_code(c, EXC_GP, 0);
        c->mtrr_def_type = v;
        return 0;
    case MSR_PRED_CMD:
        return v & ~1ull ? exc_raise_code(c, EXC_GP, 0) : 0;
    case MSR_BIOS_SIGN_ID:
    case MSR_MCG_STATUS:
    case MSR_AMD_SYSCFG:
    case MSR_AMD_HWCR:
    case MSR_AMD_NB_CFG:
    case MSR_AMD_INT_PENDING:
    case MSR_AMD_LS_CFG:
    case MSR_AMD_DC_CFG:
    case MSR_AMD_DE_CFG:
        return 0;
    default:
        return exc_raise_code(c, EXC_GP, 0);
    }
}
