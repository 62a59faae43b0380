/*
 * CPUID: a model and the engine's abilities become a table of leaves (cpuid_build), and a table answers the instruction
 * (cpuid_answer). Pure functions of their arguments, but for "host", which reads the host's own identity. Any thread.
 *
 * What depends on the vCPU (APIC ids), on XCR0 or on CR4 is filled in at the answer; the table holds the rest.
 */
#include "cpu/cpuid.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"
#include "cpu/models.h"
#include "cpu/x86.h"

static const char *const vendor_intel = "GenuineIntel";
static const char *const vendor_amd = "AuthenticAMD";

struct identity {
    char vendor[13], brand[49];
    uint32_t signature; /* leaf 1 EAX */
};

static bool name_eq(const char *a, size_t alen, const char *b)
{
    size_t i = 0;
    for (; i < alen && b[i]; i++) {
        char x = (char)tolower((unsigned char)a[i]), y = b[i];
        x = x == '_' || x == '.' ? '-' : x;
        y = y == '_' || y == '.' ? '-' : y;
        if (x != y)
            return false;
    }
    return i == alen && !b[i];
}

static const struct cpu_feature *feature_find(const char *name, size_t len)
{
    for (const struct cpu_feature *f = cpu_features; f->name; f++)
        if (name_eq(name, len, f->name))
            return f;
    return NULL;
}

static const struct cpu_model *model_find(const char *name)
{
    for (const struct cpu_model *m = cpu_models; m->name; m++)
        if (!strcmp(m->name, name))
            return m;
    return NULL;
}

const char *const *cpu_model_names(void)
{
    return cpu_names;
}

static void model_words(const struct cpu_model *m, uint32_t w[W_COUNT])
{
    if (m->parent)
        model_words(model_find(m->parent), w);
    for (const char *p = m->features; *p;) {
        size_t len = strcspn(p, " ");
        bool off = *p == '-';
        const struct cpu_feature *f = feature_find(p + off, len - off);
        if (f && off)
            w[f->word] &= ~BIT(f->bit);
        else if (f)
            w[f->word] |= BIT(f->bit);
        p += len;
        p += strspn(p, " ");
    }
}

static void caps_words(const struct cpuid_caps *c, uint32_t w[W_COUNT])
{
    w[W_1_ECX] = c->f1_ecx;
    w[W_1_EDX] = c->f1_edx;
    w[W_7_EBX] = c->f7_ebx;
    w[W_7_ECX] = c->f7_ecx;
    w[W_7_EDX] = c->f7_edx;
    w[W_7_1_EAX] = c->f7_1_eax;
    w[W_7_2_EDX] = c->f7_2_edx;
    w[W_81_ECX] = c->f80000001_ecx;
    w[W_81_EDX] = c->f80000001_edx;
    w[W_D1_EAX] = c->fd1_eax;
    w[W_87_EDX] = c->f80000007_edx;
    w[W_88_EBX] = c->f80000008_ebx;
}

static uint32_t signature_of(unsigned family, unsigned model, unsigned stepping)
{
    unsigned ext = family > 15 ? family - 15 : 0;
    return ext << 20 | (model >> 4) << 16 | MIN(family, 15u) << 8 | (model & 15) << 4 | (stepping & 15);
}

static void identity_of_model(const struct cpu_model *m, struct identity *id)
{
    const struct cpu_model *v = m;
    while (!v->vendor && v->parent)
        v = model_find(v->parent);
    snprintf(id->vendor, sizeof id->vendor, "%s", v->vendor);
    snprintf(id->brand, sizeof id->brand, "%s", m->brand);
    id->signature = signature_of(m->family, m->model, m->stepping);
}

static void host_cpuid(uint32_t leaf, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

static void identity_of_host(struct identity *id)
{
    uint32_t r[4];
    memset(id, 0, sizeof *id);
    host_cpuid(0, r);
    memcpy(id->vendor, &r[1], 4);
    memcpy(id->vendor + 4, &r[3], 4);
    memcpy(id->vendor + 8, &r[2], 4);
    host_cpuid(1, r);
    id->signature = r[0];
    host_cpuid(0x80000000, r);
    for (unsigned i = 0; r[0] >= 0x80000004 && i < 3; i++) {
        uint32_t b[4];
        host_cpuid(0x80000002 + i, b);
        memcpy(id->brand + 16 * i, b, 16);
    }
}

/* "+avx2" / "-rdtscp" / "avx2" */
static int apply_features(const struct cpu_model_options *opt, const uint32_t have[W_COUNT], uint32_t w[W_COUNT],
                          struct err *err)
{
    for (const char *const *p = opt->features; p && *p; p++) {
        bool off = **p == '-';
        const char *name = *p + (**p == '-' || **p == '+');
        const struct cpu_feature *f = feature_find(name, strlen(name));
        if (!f)
            return err_set(err, -EINVAL, "CPU feature '%s' is not known", name);
        if (off) {
            w[f->word] &= ~BIT(f->bit);
        } else {
            if (!(have[f->word] & BIT(f->bit)))
                return err_set(err, -ENOTSUP, "CPU feature '%s' is not available on this host with this engine", name);
            w[f->word] |= BIT(f->bit);
        }
    }
    return 0;
}

/* Takes away what cannot be without something else, so that "-avx" leaves no AVX2 behind. */
static uint64_t settle_features(uint32_t w[W_COUNT], uint64_t xcr0)
{
    const uint32_t avx_1c = BIT(12) | BIT(28) | BIT(29), avx_7c = BIT(9) | BIT(10);
    const uint32_t z_7b = BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31),
                   z_7c = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);

    if (!(w[W_1_ECX] & BIT(26))) {
        xcr0 = 0;
        w[W_D1_EAX] = 0;
    }
    if (!(w[W_1_ECX] & BIT(28)))
        xcr0 &= XCR0_X87 | XCR0_SSE;
    if (!(w[W_7_EBX] & BIT(16)) || (xcr0 & 0xe6) != 0xe6)
        xcr0 &= ~0xe0ull;
    if (!(w[W_7_ECX] & BIT(3)))
        xcr0 &= ~BIT64(9);
    if (!(xcr0 & BIT64(9)))
        w[W_7_ECX] &= ~(BIT(3) | BIT(4));
    if (!(xcr0 & XCR0_AVX)) {
        w[W_1_ECX] &= ~avx_1c;
        w[W_7_EBX] &= ~BIT(5);
        w[W_7_ECX] &= ~avx_7c;
        w[W_7_1_EAX] &= ~BIT(4);
    }
    if (!(xcr0 & 0xe0)) {
        w[W_7_EBX] &= ~z_7b;
        w[W_7_ECX] &= ~z_7c;
        w[W_7_EDX] &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23));
        w[W_7_1_EAX] &= ~BIT(5);
    }
    return xcr0;
}

static struct cpuid_entry *add(struct cpuid_table *t, uint32_t leaf, uint32_t eax, uint32_t ebx, uint32_t ecx,
                               uint32_t edx)
{
    if (t->n == CPUID_ENTRIES_MAX)
        abort(); /* our own table: the leaves below are fewer */
    struct cpuid_entry *e = &t->entry[t->n++];
    *e = (struct cpuid_entry){.leaf = leaf, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx};
    return e;
}

static void add_sub(struct cpuid_table *t, uint32_t leaf, uint32_t sub, uint32_t eax, uint32_t ebx, uint32_t ecx,
                    uint32_t edx)
{
    struct cpuid_entry *e = add(t, leaf, eax, ebx, ecx, edx);
    e->subleaf = sub;
    e->indexed = true;
}

/* The vendor-independent form of a cache: leaf 4 of Intel, 0x8000001d of AMD. */
static void add_cache(struct cpuid_table *t, uint32_t leaf, unsigned sub, unsigned type, unsigned level, unsigned ways,
                      unsigned sets)
{
    add_sub(t, leaf, sub, type | level << 5 | 1 << 8, (ways - 1) << 22 | (64 - 1), sets - 1, 0);
}

/* XSAVE components in the standard format (SDM 1, 13.4): size and offset. */
static const struct {
    uint8_t bit;
    uint16_t size, offset;
} xsave_parts[] = {{2, 256, 576}, {5, 64, 1088}, {6, 512, 1152}, {7, 1024, 1664}, {9, 8, 2688}};

static uint32_t xsave_size(uint64_t xcr0)
{
    uint32_t size = 576;
    for (unsigned i = 0; i < ARRAY_SIZE(xsave_parts); i++)
        if (xcr0 & BIT64(xsave_parts[i].bit))
            size = xsave_parts[i].offset + xsave_parts[i].size;
    return size;
}

static void add_xsave(struct cpuid_table *t, uint64_t xcr0, uint32_t d1)
{
    if (!xcr0) {
        add(t, 0xd, 0, 0, 0, 0);
        return;
    }
    add_sub(t, 0xd, 0, (uint32_t)xcr0, xsave_size(xcr0), xsave_size(xcr0), (uint32_t)(xcr0 >> 32));
    add_sub(t, 0xd, 1, d1, d1 & (BIT(1) | BIT(3)) ? xsave_size(xcr0) : 0, 0, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(xsave_parts); i++)
        if (xcr0 & BIT64(xsave_parts[i].bit))
            add_sub(t, 0xd, xsave_parts[i].bit, xsave_parts[i].size, xsave_parts[i].offset, 0, 0);
}

/*
 * Leaf 15h: TSC = crystal * ebx / eax. Guests multiply crystal kHz by EBX in 32 bits, so EBX must stay small: the best
 * fraction with a numerator below that limit, by continued fractions (error below 10 ppm).
 */
static void add_tsc(struct cpuid_table *t, uint32_t tsc_khz)
{
    uint64_t num = tsc_khz, den = CPUID_CRYSTAL_HZ / 1000, limit = UINT32_MAX / den;
    uint64_t p0 = 0, q0 = 1, p1 = 1, q1 = 0;
    while (den) {
        uint64_t a = num / den, p2 = a * p1 + p0, q2 = a * q1 + q0, rest = num % den;
        if (p2 > limit)
            break;
        p0 = p1, q0 = q1, p1 = p2, q1 = q2;
        num = den, den = rest;
    }
    if (!p1 || !q1)
        return;
    add(t, 0x15, (uint32_t)q1, (uint32_t)p1, CPUID_CRYSTAL_HZ, 0);
    add(t, 0x16, (tsc_khz + 500) / 1000, (tsc_khz + 500) / 1000, 100, 0);
}

static unsigned bits_for(unsigned n)
{
    return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

static struct cpu_topology topo_full(const struct cpu_topology *t)
{
    struct cpu_topology r = *t;
    r.cpus = MAX(r.cpus, 1u);
    r.threads = MAX(r.threads, 1u);
    r.dies = MAX(r.dies, 1u);
    if (!r.cores)
        r.cores = r.sockets ? MAX(r.cpus / (r.sockets * r.dies * r.threads), 1u)
                            : (r.cpus + r.dies * r.threads - 1) / (r.dies * r.threads);
    if (!r.sockets)
        r.sockets = 1;
    return r;
}

uint32_t cpu_apic_id(const struct cpu_topology *topo, unsigned cpu)
{
    struct cpu_topology t = topo_full(topo);
    unsigned tb = bits_for(t.threads), cb = bits_for(t.cores), db = bits_for(t.dies);
    unsigned thread = cpu % t.threads, core = cpu / t.threads % t.cores, die = cpu / (t.threads * t.cores) % t.dies;
    unsigned socket = cpu / (t.threads * t.cores * t.dies);
    return thread | core << tb | die << (tb + cb) | socket << (tb + cb + db);
}

int cpuid_build(const struct cpu_model_options *opt, const struct cpuid_caps *caps, uint32_t tsc_khz,
                struct cpuid_table *ret, struct err *err)
{
    const char *name = opt->model ? opt->model : "max";
    bool all = !strcmp(name, "max") || !strcmp(name, "host");
    const struct cpu_model *m = all ? &cpu_model_neutral : model_find(name);
    uint32_t w[W_COUNT] = {0}, have[W_COUNT];
    struct identity id;
    struct cpuid_table t = {.n = 0};

    if (!m)
        return err_set(
            err, -EINVAL,
            "CPU model '%s' is not known (max, host, qemu64, x86-64-v2, x86-64-v3, Nehalem, Haswell, EPYC, …)", name);
    caps_words(caps, have);
    if (all && caps->host_identity)
        identity_of_host(&id);
    else
        identity_of_model(m, &id);
    bool intel = !strcmp(id.vendor, vendor_intel), amd = !strcmp(id.vendor, vendor_amd);

    if (all)
        memcpy(w, have, sizeof w);
    else
        model_words(m, w);
    for (unsigned i = 0; i < W_COUNT; i++)
        w[i] &= have[i];
    int r = apply_features(opt, have, w, err);
    if (r < 0)
        return r;
    if (opt->hypervisor)
        w[W_1_ECX] |= BIT(31);
    else
        w[W_1_ECX] &= ~BIT(31);
    w[W_1_ECX] &= ~BIT(27); /* OSXSAVE mirrors CR4 */
    struct cpu_topology topo = topo_full(&opt->topology);
    unsigned per_package = topo.threads * topo.cores * topo.dies;
    if (per_package > 1)
        w[W_1_EDX] |= BIT(28);
    else
        w[W_1_EDX] &= ~BIT(28);
    if (amd && per_package > 1 && topo.threads == 1)
        w[W_81_ECX] |= BIT(1);
    if (amd) /* these bits of leaf 1 are mirrored */
        w[W_81_EDX] |= w[W_1_EDX] & 0x0183f3ff;
    uint64_t xcr0 = settle_features(w, caps->xcr0 & 0x2e7);

    uint32_t max = xcr0 ? 0xd : 0xb;
    if (topo.dies > 1)
        max = 0x1f;
    else if (intel && tsc_khz)
        max = 0x16;
    uint32_t v[3];
    memcpy(v, id.vendor, sizeof v);
    add(&t, 0, max, v[0], v[2], v[1]);
    add(&t, 1, id.signature, 8 << 8, w[W_1_ECX], w[W_1_EDX]);
    if (intel) {
        add(&t, 2, 0x00feff01, 0, 0, 0x000000f0); /* leaf 4 says the caches; 64-byte prefetch */
        add_cache(&t, 4, 0, 1, 1, 12, 64);
        add_cache(&t, 4, 1, 2, 1, 8, 64);
        add_cache(&t, 4, 2, 3, 2, 16, 2048);
        add_cache(&t, 4, 3, 3, 3, 16, 16384);
        add_sub(&t, 4, 4, 0, 0, 0, 0);
    }
    add(&t, 6, BIT(2), 0, 0, 0); /* ARAT: the APIC timer never stops */
    if (w[W_7_EBX] | w[W_7_ECX] | w[W_7_EDX] | w[W_7_1_EAX] | w[W_7_2_EDX]) {
        add_sub(&t, 7, 0, w[W_7_2_EDX] ? 2 : w[W_7_1_EAX] ? 1 : 0, w[W_7_EBX], w[W_7_ECX], w[W_7_EDX]);
        if (w[W_7_1_EAX])
            add_sub(&t, 7, 1, w[W_7_1_EAX], 0, 0, 0);
        if (w[W_7_2_EDX])
            add_sub(&t, 7, 2, 0, 0, 0, w[W_7_2_EDX]);
    }
    add_sub(&t, 0xb, 0, bits_for(topo.threads), topo.threads, 1 << 8, 0);
    add_sub(&t, 0xb, 1, bits_for(topo.threads) + bits_for(topo.cores) + bits_for(topo.dies), per_package, 2 << 8 | 1,
            0);
    add_sub(&t, 0xb, 2, 0, 0, 2, 0);
    add_xsave(&t, xcr0, w[W_D1_EAX]);
    if (intel && tsc_khz)
        add_tsc(&t, tsc_khz);
    if (topo.dies > 1) {
        unsigned tb = bits_for(topo.threads), cb = bits_for(topo.cores), db = bits_for(topo.dies);
        add_sub(&t, 0x1f, 0, tb, topo.threads, 1 << 8, 0);
        add_sub(&t, 0x1f, 1, tb + cb, topo.threads * topo.cores, 2 << 8 | 1, 0);
        add_sub(&t, 0x1f, 2, tb + cb + db, per_package, 5 << 8 | 2, 0);
        add_sub(&t, 0x1f, 3, 0, 0, 3, 0);
    }
    if (opt->hypervisor) {
        uint32_t sig[3];
        memcpy(sig, "LodgeLodgeVM", 12);
        add(&t, 0x40000000, 0x40000010, sig[0], sig[1], sig[2]);
        add(&t, 0x40000010, tsc_khz, tsc_khz ? CPUID_CRYSTAL_HZ / 1000 : 0, 0, 0);
    }
    add(&t, 0x80000000, amd ? 0x8000001e : 0x80000008, amd ? v[0] : 0, amd ? v[2] : 0, amd ? v[1] : 0);
    add(&t, 0x80000001, amd ? id.signature : 0, 0, w[W_81_ECX], w[W_81_EDX]);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t b[4];
        memcpy(b, id.brand + 16 * i, 16);
        add(&t, 0x80000002 + i, b[0], b[1], b[2], b[3]);
    }
    if (amd)
        add(&t, 0x80000005, 0x01ff01ff, 0x01ff01ff, 0x20080140, 0x20080140);
    add(&t, 0x80000006, 0, amd ? 0x42004200 : 0, 0x02006140, amd ? 0x00808140 : 0);
    add(&t, 0x80000007, 0, 0, 0, w[W_87_EDX]);
    unsigned lin = w[W_7_ECX] & BIT(16) ? 57 : 48;
    unsigned phys = caps->phys_bits ? caps->phys_bits : 40;
    if (opt->phys_bits)
        phys = MIN(phys, opt->phys_bits);
    add(&t, 0x80000008, phys | lin << 8, w[W_88_EBX], 0, 0);
    if (amd && (w[W_81_ECX] & BIT(22))) {
        add_cache(&t, 0x8000001d, 0, 1, 1, 8, 64);
        add_cache(&t, 0x8000001d, 1, 2, 1, 4, 256);
        add_cache(&t, 0x8000001d, 2, 3, 2, 8, 1024);
        add_cache(&t, 0x8000001d, 3, 3, 3, 16, 8192);
        add_sub(&t, 0x8000001d, 4, 0, 0, 0, 0);
        add(&t, 0x8000001e, 0, 0, 0, 0);
    }
    *ret = t;
    return 0;
}

static const struct cpuid_entry *find(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->entry[i].leaf == leaf && (!t->entry[i].indexed || t->entry[i].subleaf == subleaf))
            return &t->entry[i];
    return NULL;
}

void cpuid_answer(const struct cpuid_table *t, const struct cpu_topology *topo_in, unsigned cpu, uint64_t xcr0,
                  uint64_t cr4, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
    const struct cpuid_entry *e = find(t, leaf, subleaf);
    struct cpu_topology topo = topo_full(topo_in);
    unsigned per_package = topo.threads * topo.cores * topo.dies;
    uint32_t id = cpu_apic_id(&topo, cpu);

    if (!e) {
        memset(ret, 0, 4 * sizeof *ret);
        /* Above the last topology level ECX still echoes the subleaf and EDX the id. */
        if ((leaf == 0xb || leaf == 0x1f) && find(t, leaf, 0)) {
            ret[2] = subleaf & 0xff;
            ret[3] = id;
        }
        return;
    }
    ret[0] = e->eax, ret[1] = e->ebx, ret[2] = e->ecx, ret[3] = e->edx;
    switch (leaf) {
    case 1:
        ret[1] |= MIN(id, 255u) << 24;
        if (per_package > 1)
            ret[1] |= MIN(1u << (bits_for(topo.threads) + bits_for(topo.cores) + bits_for(topo.dies)), 255u) << 16;
        if (cr4 & CR4_OSXSAVE)
            ret[2] |= BIT(27);
        break;
    case 4:
    case 0x8000001d:
        if (ret[0]) {
            bool shared = (ret[0] >> 5 & 7) == 3;
            unsigned tb = bits_for(topo.threads), pb = tb + bits_for(topo.cores) + bits_for(topo.dies);
            ret[0] |= ((1u << (shared ? pb : tb)) - 1) << 14;
            if (leaf == 4)
                ret[0] |= MIN((1u << (pb - tb)) - 1, 63u) << 26;
        }
        break;
    case 0xb:
    case 0x1f:
        ret[3] = id;
        break;
    case 0xd:
        if (subleaf == 0 && ret[0])
            ret[1] = xsave_size(xcr0);
        else if (subleaf == 1 && ret[1])
            ret[1] = xsave_size(xcr0);
        break;
    case 0x80000008:
        if (per_package > 1)
            ret[2] |= (uint32_t)(bits_for(per_package) << 12 | (per_package - 1));
        break;
    case 0x8000001e:
        ret[0] = id;
        ret[1] = (topo.threads - 1) << 8 | ((id >> bits_for(topo.threads)) & 0xff);
        break;
    }
}
