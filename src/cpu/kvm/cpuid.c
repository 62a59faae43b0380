/* CPUID of guests on KVM: what KVM can do, as caps for the models; the built table, with KVM's own leaves, into each
 * vCPU. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "cpu/kvm/kvm.h"

#define LEAVES_MAX 256

/*
 * Paravirtual features of KVM that work without our doing (Linux, Documentation/virt/kvm/x86/cpuid.rst): not those that
 * need MSR filters or hypercalls in user space (15, 16, 17).
 */
#define KVM_PV_FEATURES 0x01007efbu

static struct kvm_cpuid2 *supported(struct kvm_engine *k)
{
    struct kvm_cpuid2 *c = xcalloc(1, sizeof *c + LEAVES_MAX * sizeof c->entries[0]);
    c->nent = LEAVES_MAX;
    if (ioctl(k->dev, KVM_GET_SUPPORTED_CPUID, c) < 0)
        c->nent = 0;
    return c;
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
{
    static const struct kvm_cpuid_entry2 none;
    for (unsigned i = 0; i < c->nent; i++)
        if (c->entries[i].function == function && c->entries[i].index == index)
            return &c->entries[i];
    return &none;
}

static void read_caps(struct kvm_engine *k)
{
    autofree struct kvm_cpuid2 *c = supported(k);
    struct cpuid_caps *p = &k->caps;

    p->f1_ecx = leaf(c, 1, 0)->ecx;
    p->f1_edx = leaf(c, 1, 0)->edx;
    p->f7_ebx = leaf(c, 7, 0)->ebx;
    p->f7_ecx = leaf(c, 7, 0)->ecx;
    p->f7_edx = leaf(c, 7, 0)->edx & ~(BIT(22) | BIT(24) | BIT(25)); /* AMX: its state is larger than ours */
    p->f7_1_eax = leaf(c, 7, 1)->eax;
    p->f80000001_ecx = leaf(c, 0x80000001, 0)->ecx;
    p->f80000001_edx = leaf(c, 0x80000001, 0)->edx;
    p->fd1_eax = leaf(c, 0xd, 1)->eax & ~BIT(4);
    p->f80000007_edx = leaf(c, 0x80000007, 0)->edx;
    p->f80000008_ebx = leaf(c, 0x80000008, 0)->ebx;
    p->xcr0 = leaf(c, 0xd, 0)->eax | (uint64_t)leaf(c, 0xd, 0)->edx << 32;
    p->phys_bits = leaf(c, 0x80000008, 0)->eax & 0xff;
    p->host_identity = true;
    if (ioctl(k->dev, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
        p->f1_ecx |= BIT(24);
    p->f1_ecx |= BIT(21); /* x2APIC: always there with the in-kernel APIC */
    k->kvm_features = leaf(c, 0x40000001, 0)->eax & KVM_PV_FEATURES;
}

int kvm_build_cpuid(struct kvm_engine *k, struct err *err)
{
    read_caps(k);
    return cpuid_build(&k->engine.cfg.cpu, &k->caps, k->engine.tsc_khz, &k->cpuid, err);
}

int kvm_set_cpuid(struct kvm_vcpu *v, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(v->vcpu.engine);
    const struct cpuid_table *t = &k->cpuid;
    autofree struct kvm_cpuid2 *c = xcalloc(1, sizeof *c + (CPUID_ENTRIES_MAX + 1) * sizeof c->entries[0]);

    for (unsigned i = 0; i < t->n; i++) {
        const struct cpuid_entry *e = &t->entry[i];
        uint32_t a[4];
        cpuid_answer(t, &k->engine.cfg.cpu.topology, v->vcpu.index, XCR0_X87, 0, e->leaf, e->subleaf, a);
        if (e->leaf == 0x40000000)
            memcpy(a + 1, "KVMKVMKVM\0\0\0", 12);
        c->entries[c->nent++] = (struct kvm_cpuid_entry2){
            .function = e->leaf,
            .index = e->subleaf,
            .flags = e->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = a[0],
            .ebx = a[1],
            .ecx = a[2],
            .edx = a[3],
        };
        if (e->leaf == 0x40000000)
            c->entries[c->nent++] = (struct kvm_cpuid_entry2){.function = 0x40000001, .eax = k->kvm_features};
    }
    if (ioctl(v->fd, KVM_SET_CPUID2, c) < 0)
        return err_errno(err, -errno, "KVM does not take this CPU model");
    return 0;
}
