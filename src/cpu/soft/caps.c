/*
 * What the software engine offers: our own list, cut to what the host has, because vector, bit-manipulation and
 * random-number instructions are executed by the host itself. What concerns translation, privilege and the APIC is ours
 * alone. Any thread.
 */
#include <cpuid.h>

#include "cpu/soft/sys.h"

/* Ours on any host. */
#define OWN_1_ECX (BIT(17) /* PCID */ | BIT(21) /* x2APIC */ | BIT(24) /* TSC deadline */)
#define OWN_1_EDX                                                                                                      \
    (BIT(0) /* FPU */ | BIT(2) /* DE */ | BIT(3) /* PSE */ | BIT(4) /* TSC */ | BIT(5) /* MSR */ | BIT(6) /* PAE */ |  \
     BIT(7) /* MCE */ | BIT(8) /* CX8 */ | BIT(9) /* APIC */ | BIT(11) /* SEP */ | BIT(12) /* MTRR */ |                \
     BIT(13) /* PGE */ | BIT(14) /* MCA */ | BIT(15) /* CMOV */ | BIT(16) /* PAT */ | BIT(17) /* PSE-36 */ |           \
     BIT(19) /* CLFLUSH */ | BIT(23) /* MMX */ | BIT(24) /* FXSR */ | BIT(25) /* SSE */ | BIT(26) /* SSE2 */)
#define OWN_7_EBX                                                                                                      \
    (BIT(0) /* FSGSBASE */ | BIT(1) /* TSC_ADJUST */ | BIT(7) /* SMEP */ | BIT(9) /* ERMS */ | BIT(10) /* INVPCID */ | \
     BIT(20) /* SMAP */)
#define OWN_7_ECX (BIT(2) /* UMIP */ | BIT(22) /* RDPID */)
#define OWN_7_EDX                                                                                                      \
    (BIT(4) /* FSRM */ | BIT(10) /* MD_CLEAR */ | BIT(26) /* IBRS, IBPB */ | BIT(27) /* STIBP */ |                     \
     BIT(29) /* ARCH_CAPABILITIES */ | BIT(31) /* SSBD */)
#define OWN_81_ECX (BIT(0) /* LAHF */)
#define OWN_81_EDX                                                                                                     \
    (BIT(11) /* SYSCALL */ | BIT(20) /* NX */ | BIT(26) /* 1 GiB pages */ | BIT(27) /* RDTSCP */ | BIT(29) /* LM */)

/* The host's, where it has them. */
#define HOST_1_ECX                                                                                                     \
    (BIT(0) /* SSE3 */ | BIT(1) /* PCLMULQDQ */ | BIT(9) /* SSSE3 */ | BIT(13) /* CX16 */ | BIT(19) /* SSE4.1 */ |     \
     BIT(20) /* SSE4.2 */ | BIT(22) /* MOVBE */ | BIT(23) /* POPCNT */ | BIT(25) /* AES */ | BIT(26) /* XSAVE */ |     \
     BIT(30) /* RDRAND */)
#define HOST_1_ECX_AVX (BIT(12) /* FMA */ | BIT(28) /* AVX */ | BIT(29) /* F16C */)
#define HOST_7_EBX                                                                                                     \
    (BIT(3) /* BMI1 */ | BIT(8) /* BMI2 */ | BIT(13) /* no FPU CS/DS */ | BIT(18) /* RDSEED */ | BIT(19) /* ADX */ |   \
     BIT(23) /* CLFLUSHOPT */ | BIT(24) /* CLWB */ | BIT(29) /* SHA */)
#define HOST_7_EBX_AVX (BIT(5) /* AVX2 */)
#define HOST_7_ECX_AVX (BIT(9) /* VAES */ | BIT(10) /* VPCLMULQDQ */)
#define HOST_81_ECX (BIT(5) /* LZCNT */ | BIT(8) /* PREFETCHW */)

#define PHYS_BITS_MAX 46

static uint64_t host_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo | (uint64_t)hi << 32;
}

void soft_cpuid_caps(struct cpuid_caps *caps)
{
    uint32_t f1[4] = {0}, f7[4] = {0}, f81[4] = {0}, f88[4] = {0};
    __get_cpuid(1, &f1[0], &f1[1], &f1[2], &f1[3]);
    __get_cpuid_count(7, 0, &f7[0], &f7[1], &f7[2], &f7[3]);
    __get_cpuid(0x80000001, &f81[0], &f81[1], &f81[2], &f81[3]);
    __get_cpuid(0x80000008, &f88[0], &f88[1], &f88[2], &f88[3]);
    bool xsave = f1[2] & BIT(27);
    bool avx = xsave && (f1[2] & BIT(28)) && (host_xcr0() & 7) == 7;
    memset(caps, 0, sizeof *caps);
    caps->f1_ecx = OWN_1_ECX | (f1[2] & (HOST_1_ECX | (avx ? HOST_1_ECX_AVX : 0)));
    if (!xsave)
        caps->f1_ecx &= ~BIT(26);
    caps->f1_edx = OWN_1_EDX;
    caps->f7_ebx = OWN_7_EBX | (f7[1] & (HOST_7_EBX | (avx ? HOST_7_EBX_AVX : 0)));
    caps->f7_ecx = OWN_7_ECX | (f7[2] & (avx ? HOST_7_ECX_AVX : 0));
    caps->f7_edx = OWN_7_EDX;
    caps->f7_2_edx = BIT(4); /* BHI_CTRL: spares Linux its software loops on every entry */
    caps->f80000001_ecx = OWN_81_ECX | (f81[2] & HOST_81_ECX);
    caps->f80000001_edx = OWN_81_EDX;
    caps->f80000007_edx = BIT(8); /* invariant TSC */
    caps->xcr0 = xsave ? XCR0_X87 | XCR0_SSE | (avx ? XCR0_AVX : 0) : 0;
    caps->phys_bits = MIN(f88[0] & 0xff ? f88[0] & 0xff : 36, PHYS_BITS_MAX);
}
