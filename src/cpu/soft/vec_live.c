/* See vec_live.h. Functions here may not touch a vector register but in their assembly. */
#include "cpu/soft/vec_live.h"

#include <stddef.h>

#include "cpu/soft/vec.h"

#define GENERAL_REGS __attribute__((target("general-regs-only"), noinline))

#define ALL(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
/* %0: low halves, %1: high halves. */
#define LOAD(n) "vmovups " #n "*16(%0), %%xmm" #n "\n\t"
#define LOAD_HIGH(n) "vinsertf128 $1, " #n "*16(%1), %%ymm" #n ", %%ymm" #n "\n\t"
#define SAVE(n) "vmovups %%xmm" #n ", " #n "*16(%0)\n\tvextractf128 $1, %%ymm" #n ", " #n "*16(%1)\n\t"

/* XSAVE and XRSTOR of the x87 part alone leave XMM and MXCSR as they are. */
#define XFEATURE_X87 1

bool vec_live_supported(void)
{
    return __builtin_cpu_supports("avx"); /* and so XSAVE, enabled by the host's kernel */
}

GENERAL_REGS static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/*
 * Is there anything in the upper halves? Where not, they must stay as VZEROUPPER left them: SSE instructions between
 * VEX ones cost hundreds of cycles when the upper halves are in use, even if zero.
 */
GENERAL_REGS static bool has_upper(const struct soft_vec *v)
{
    const uint64_t *q = (const uint64_t *)(const void *)v->ymm_hi;
    uint64_t any = 0;
    for (unsigned n = 0; n < sizeof v->ymm_hi / 8; n++)
        any |= q[n];
    return any;
}

GENERAL_REGS bool vec_live_enter(struct soft_cpu *c, unsigned want)
{
    struct soft_vec *v = &c->vec;
    want &= ~(unsigned)c->vec_live;
    if (c->cr0 & (CR0_EM | CR0_TS))
        return false;
    if (want & LIVE_AVX) {
        if (!(c->mode & MODE_PE) || !(c->cr4 & CR4_OSXSAVE) || ~c->xcr0 & (XCR0_SSE | XCR0_AVX))
            return false;
        want |= LIVE_SSE & ~(unsigned)c->vec_live;
    } else if (want & LIVE_SSE && !(c->cr4 & CR4_OSFXSR)) {
        return false;
    }
    if (want & LIVE_SSE && (get32(v->fx + FX_MXCSR) & MXCSR_MASKS) != MXCSR_MASKS)
        return false;
    /* CW in the low half, SW in the high one: everything masked, nothing waits. */
    if (want & LIVE_X87 && (get32(v->fx + FX_FCW) & 0x80003f) != 0x3f)
        return false;
    if (want & LIVE_X87) {
        v->header[0] = XFEATURE_X87;
        __asm__ volatile("xrstor64 (%0)" : : "r"(v), "a"(XFEATURE_X87), "d"(0) : "memory");
    }
    if (want & LIVE_SSE)
        __asm__ volatile(ALL(LOAD) "ldmxcsr %c1(%0)" : : "r"(v->fx + FX_XMM), "i"(FX_MXCSR - FX_XMM) : "memory");
    if (want & LIVE_SSE && has_upper(v))
        __asm__ volatile(ALL(LOAD_HIGH) : : "r"(v->fx), "r"(v->ymm_hi) : "memory");
    c->vec_live |= (uint8_t)want;
    return true;
}

GENERAL_REGS unsigned vec_live_leave(struct soft_cpu *c)
{
    static const uint32_t host_mxcsr = MXCSR_DEFAULT;
    struct soft_vec *v = &c->vec;
    unsigned live = c->vec_live;
    if (live & LIVE_SSE)
        __asm__ volatile(ALL(SAVE) "stmxcsr %c2(%0)\n\tldmxcsr %3\n\tvzeroupper"
                         :
                         : "r"(v->fx + FX_XMM), "r"(v->ymm_hi), "i"(FX_MXCSR - FX_XMM), "m"(host_mxcsr)
                         : "memory");
    if (live & LIVE_X87)
        __asm__ volatile("xsave64 (%0)\n\tfninit" : : "r"(v), "a"(XFEATURE_X87), "d"(0) : "memory");
    c->vec_live = 0;
    return live;
}
