/*
 * CPU models: which CPUID leaves a guest sees. A model is a set of feature bits and identity; the result is cut to what the host
 * and the engine can do. Model names as in libvirt and QEMU (host, max, qemu64, x86-64-v2, x86-64-v3, Nehalem, …).
 */
#ifndef LODGE_CPU_CPUID_H
#define LODGE_CPU_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define CPUID_ENTRIES_MAX 64

struct cpuid_entry {
    uint32_t leaf, subleaf;
    bool indexed; /* answers this subleaf only */
    uint32_t eax, ebx, ecx, edx;
};

struct cpuid_table {
    struct cpuid_entry entry[CPUID_ENTRIES_MAX];
    unsigned n;
};

struct cpu_topology {
    unsigned cpus, sockets, dies, cores, threads;
};

struct cpu_model_options {
    const char *model;           /* NULL: "max" */
    const char *const *features; /* NULL-terminated "+avx2", "-rdtscp", or NULL */
    struct cpu_topology topology;
    bool hypervisor; /* show the hypervisor bit and signature */
    unsigned phys_bits; /* width of physical addresses at most; 0: what the engine has */
};

/* What an engine can do, by the CPUID words that carry features; ANDed with the model. */
struct cpuid_caps {
    uint32_t f1_ecx, f1_edx, f7_ebx, f7_ecx, f7_edx, f7_1_eax, f7_2_edx, f80000001_ecx, f80000001_edx, fd1_eax /* XSAVE features */;
    uint32_t f80000007_edx, f80000008_ebx;
    uint64_t xcr0; /* XSAVE components */
    unsigned phys_bits;
    bool host_identity; /* "host" and "max" show the host's vendor, family and model; else a neutral CPU of our own */
};

/*
 * The core crystal clock that leaf 15h names. The local APIC timer of a guest must count at this rate (before its divider): that is
 * what guests conclude from the leaf (SDM 3A, 11.5.4), and what KVM's APIC does.
 */
#define CPUID_CRYSTAL_HZ 1000000000u

/*
 * Builds the table. -EINVAL with the model's or feature's name when unknown, -ENOTSUP when a "+feature" is not in `caps`.
 * `tsc_khz` for leaves 15h/16h/40000010h (0: leave out).
 */
int cpuid_build(const struct cpu_model_options *opt, const struct cpuid_caps *caps, uint32_t tsc_khz, struct cpuid_table *ret,
                struct err *err);

/*
 * The answer to CPUID on vCPU `cpu` with the topology's APIC ids filled in (leaves 1, 4, 0xb, 0x1f, 0x80000008, 0x8000001e).
 * `xcr0`, `cr4`: for the dynamic bits (OSXSAVE, XSAVE area size).
 */
void cpuid_answer(const struct cpuid_table *t, const struct cpu_topology *topo, unsigned cpu, uint64_t xcr0, uint64_t cr4,
                  uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);

/* APIC id of vCPU `cpu` in this topology. */
uint32_t cpu_apic_id(const struct cpu_topology *topo, unsigned cpu);

/* Names of all models, NULL-terminated. */
const char *const *cpu_model_names(void);

#endif
