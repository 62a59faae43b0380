/*
 * Which vector instruction sets there are: those that the host can execute and the guest was told of. Asked once, when
 * the stub cache is made.
 */
#include <cpuid.h>

#include "cpu/soft/vec.h"

enum feature_word { F1_ECX, F1_EDX, F7_EBX, F7_ECX, F71_EAX, FD1_EAX, FEATURE_WORDS };

static const struct isa {
    ZydisISASet set;
    struct {
        uint8_t word, bit;
    } need[2];
    uint8_t needs;
} isas[] = {
    {ZYDIS_ISA_SET_X87, {{F1_EDX, 0}}, 1},
    {ZYDIS_ISA_SET_PPRO, {{F1_EDX, 0}, {F1_EDX, 15}}, 2},
    {ZYDIS_ISA_SET_FCMOV, {{F1_EDX, 0}, {F1_EDX, 15}}, 2},
    {ZYDIS_ISA_SET_PENTIUMMMX, {{F1_EDX, 23}}, 1},
    {ZYDIS_ISA_SET_FXSAVE, {{F1_EDX, 24}}, 1},
    {ZYDIS_ISA_SET_FXSAVE64, {{F1_EDX, 24}}, 1},
    {ZYDIS_ISA_SET_SSEMXCSR, {{F1_EDX, 25}}, 1},
    {ZYDIS_ISA_SET_SSE, {{F1_EDX, 25}}, 1},
    {ZYDIS_ISA_SET_SSE2, {{F1_EDX, 26}}, 1},
    {ZYDIS_ISA_SET_SSE2MMX, {{F1_EDX, 26}}, 1},
    {ZYDIS_ISA_SET_SSE3, {{F1_ECX, 0}}, 1},
    {ZYDIS_ISA_SET_SSE3X87, {{F1_ECX, 0}}, 1},
    {ZYDIS_ISA_SET_SSSE3, {{F1_ECX, 9}}, 1},
    {ZYDIS_ISA_SET_SSSE3MMX, {{F1_ECX, 9}}, 1},
    {ZYDIS_ISA_SET_SSE4, {{F1_ECX, 19}}, 1},
    {ZYDIS_ISA_SET_SSE42, {{F1_ECX, 20}}, 1},
    {ZYDIS_ISA_SET_AES, {{F1_ECX, 25}}, 1},
    {ZYDIS_ISA_SET_PCLMULQDQ, {{F1_ECX, 1}}, 1},
    {ZYDIS_ISA_SET_SHA, {{F7_EBX, 29}}, 1},
    {ZYDIS_ISA_SET_GFNI, {{F7_ECX, 8}}, 1},
    {ZYDIS_ISA_SET_AVX, {{F1_ECX, 28}}, 1},
    {ZYDIS_ISA_SET_AVX2, {{F7_EBX, 5}}, 1},
    {ZYDIS_ISA_SET_AVX2GATHER, {{F7_EBX, 5}}, 1},
    {ZYDIS_ISA_SET_AVXAES, {{F1_ECX, 28}, {F1_ECX, 25}}, 2},
    {ZYDIS_ISA_SET_FMA, {{F1_ECX, 12}}, 1},
    {ZYDIS_ISA_SET_F16C, {{F1_ECX, 29}}, 1},
    {ZYDIS_ISA_SET_VAES, {{F7_ECX, 9}, {F1_ECX, 28}}, 2},
    {ZYDIS_ISA_SET_VPCLMULQDQ, {{F7_ECX, 10}, {F1_ECX, 28}}, 2},
    {ZYDIS_ISA_SET_AVX_GFNI, {{F7_ECX, 8}, {F1_ECX, 28}}, 2},
    {ZYDIS_ISA_SET_AVX_VNNI, {{F71_EAX, 4}}, 1},
    {ZYDIS_ISA_SET_XSAVE, {{F1_ECX, 26}}, 1},
    {ZYDIS_ISA_SET_XSAVEOPT, {{FD1_EAX, 0}}, 1},
    {ZYDIS_ISA_SET_XSAVEC, {{FD1_EAX, 1}}, 1},
};

static void features_host(uint32_t w[FEATURE_WORDS])
{
    uint32_t a, b, c, d;
    memset(w, 0, FEATURE_WORDS * sizeof *w);
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        w[F1_ECX] = c;
        w[F1_EDX] = d;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        w[F7_EBX] = b;
        w[F7_ECX] = c;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
            w[F71_EAX] = a;
    }
    if (__get_cpuid_count(0xd, 1, &a, &b, &c, &d))
        w[FD1_EAX] = a;
    if (!__builtin_cpu_supports("avx")) { /* the host's kernel must have enabled the state, too */
        w[F1_ECX] &= ~(BIT(28) | BIT(12) | BIT(29));
        w[F7_EBX] &= ~BIT(5);
        w[F71_EAX] = 0;
    }
    w[F1_ECX] |= BIT(26); /* saving is done in C: needs nothing of the host */
    w[FD1_EAX] |= BIT(0) | BIT(1);
}

static void features_guest(const struct cpuid_table *t, uint32_t w[FEATURE_WORDS])
{
    memset(w, 0, FEATURE_WORDS * sizeof *w);
    for (unsigned n = 0; n < t->n; n++) {
        const struct cpuid_entry *e = &t->entry[n];
        unsigned sub = e->indexed ? e->subleaf : 0;
        if (e->leaf == 1) {
            w[F1_ECX] = e->ecx;
            w[F1_EDX] = e->edx;
        } else if (e->leaf == 7 && sub == 0) {
            w[F7_EBX] = e->ebx;
            w[F7_ECX] = e->ecx;
        } else if (e->leaf == 7 && sub == 1) {
            w[F71_EAX] = e->eax;
        } else if (e->leaf == 0xd && sub == 1) {
            w[FD1_EAX] = e->eax;
        }
    }
}

void vec_isa_allowed(const struct cpuid_table *guest, bool *allowed)
{
    uint32_t host[FEATURE_WORDS], have[FEATURE_WORDS];
    features_host(host);
    memcpy(have, host, sizeof have);
    if (guest)
        features_guest(guest, have);
    for (unsigned k = 0; k < ARRAY_SIZE(isas); k++) {
        bool ok = true;
        for (unsigned n = 0; n < isas[k].needs; n++)
            ok &= have[isas[k].need[n].word] & host[isas[k].need[n].word] & BIT(isas[k].need[n].bit) ? 1 : 0;
        allowed[isas[k].set] = ok;
    }
}
