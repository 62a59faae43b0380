/* CPU models, CPUID answers, reset state, the choice of an engine, the null engine. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "cpu/engine.h"
#include "cpu/models.h"

static const struct cpuid_caps all_caps = {
    .f1_ecx = ~0u,
    .f1_edx = ~0u,
    .f7_ebx = ~0u,
    .f7_ecx = ~0u,
    .f7_edx = ~0u,
    .f7_1_eax = ~0u,
    .f80000001_ecx = ~0u,
    .f80000001_edx = ~0u,
    .fd1_eax = ~0u,
    .f80000007_edx = ~0u,
    .f80000008_ebx = ~0u,
    .xcr0 = ~0ull,
    .phys_bits = 46,
};

static void test_every_model_builds(void **state)
{
    const char *const *n = cpu_model_names();
    unsigned count = 0;
    for (; *n; n++, count++) {
        struct cpu_model_options o = {.model = *n, .topology = {.cpus = 4}, .hypervisor = true};
        struct cpuid_table t;
        struct err e = {0};
        uint32_t r[4];
        if (cpuid_build(&o, &all_caps, 2600000, &t, &e))
            fail_msg("%s: %s", *n, e.msg);
        cpuid_answer(&t, &o.topology, 3, 7, 0, 1, 0, r);
        assert_int_equal(r[1] >> 24, 3);
        assert_true(r[3] & BIT(25)); /* SSE */
        cpuid_answer(&t, &o.topology, 0, 7, 0, 0x80000001, 0, r);
        assert_true(r[3] & BIT(29)); /* long mode */
    }
    for (const struct cpu_model *m = cpu_models; m->name; m++)
        count--;
    assert_int_equal(count, 2);
}

/* Every feature word of the models' text is a known feature. */
static void test_model_features_known(void **state)
{
    for (const struct cpu_model *m = cpu_models; m->name; m++) {
        char text[600], *save = NULL;
        snprintf(text, sizeof text, "%s", m->features);
        for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
            const struct cpu_feature *f = cpu_features;
            while (f->name && strcmp(f->name, w[0] == '-' ? w + 1 : w))
                f++;
            if (!f->name)
                fail_msg("%s: %s", m->name, w);
        }
    }
}

static void test_features_options(void **state)
{
    const char *minus[] = {"-avx", NULL}, *bad[] = {"+avx99", NULL}, *plus[] = {"+rdrand", NULL};
    struct cpu_model_options o = {.model = "Haswell", .features = minus};
    struct cpuid_table t;
    struct err e = {0};
    uint32_t r[4];
    assert_int_equal(cpuid_build(&o, &all_caps, 0, &t, &e), 0);
    cpuid_answer(&t, &o.topology, 0, 1, 0, 7, 0, r);
    assert_false(r[1] & BIT(5)); /* AVX2 goes with AVX */
    o.features = bad;
    assert_int_equal(cpuid_build(&o, &all_caps, 0, &t, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "avx99"));
    struct cpuid_caps few = all_caps;
    few.f1_ecx &= ~BIT(30);
    o.features = plus;
    e.code = 0;
    assert_int_equal(cpuid_build(&o, &few, 0, &t, &e), -ENOTSUP);
    o = (struct cpu_model_options){.model = "Pentium9"};
    e.code = 0;
    assert_int_equal(cpuid_build(&o, &all_caps, 0, &t, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "Pentium9"));
}

static void test_xsave_leaf(void **state)
{
    struct cpu_model_options o = {.model = "x86-64-v3"};
    struct cpuid_table t;
    uint32_t r[4];
    assert_int_equal(cpuid_build(&o, &all_caps, 0, &t, NULL), 0);
    cpuid_answer(&t, &o.topology, 0, 3, 0, 0xd, 0, r);
    assert_int_equal(r[0], 7);
    assert_int_equal(r[1], 576);
    assert_int_equal(r[2], 832);
    cpuid_answer(&t, &o.topology, 0, 7, 0, 0xd, 0, r);
    assert_int_equal(r[1], 832);
    cpuid_answer(&t, &o.topology, 0, 7, CR4_OSXSAVE, 1, 0, r);
    assert_true(r[2] & BIT(27));
}

static void test_tsc_leaf(void **state)
{
    static const uint32_t khz[] = {1000000, 2600000, 2594003, 1999999, 3800017, 5200001, 800123};
    for (unsigned i = 0; i < ARRAY_SIZE(khz); i++) {
        struct cpu_model_options o = {.model = "max"};
        struct cpuid_table t;
        uint32_t r[4];
        assert_int_equal(cpuid_build(&o, &all_caps, khz[i], &t, NULL), 0);
        cpuid_answer(&t, &o.topology, 0, 1, 0, 0x15, 0, r);
        uint32_t guest = r[2] / 1000 * r[1] / r[0]; /* as Linux computes it, in 32 bits */
        assert_in_range(guest, khz[i] - khz[i] / 100000 - 1, khz[i] + khz[i] / 100000 + 1);
    }
}

static void test_apic_ids(void **state)
{
    struct cpu_topology t = {.cpus = 12, .sockets = 2, .cores = 3, .threads = 2};
    static const uint32_t want[12] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(cpu_apic_id(&t, i), want[i]);
    struct cpu_topology plain = {.cpus = 300};
    assert_int_equal(cpu_apic_id(&plain, 299), 299);
}

static void test_reset_state(void **state)
{
    struct cpu_state s;
    char text[8192], little[20];
    cpu_state_reset(&s, true);
    assert_int_equal(s.seg[CS].base + s.rip, 0xfffffff0);
    assert_int_equal(s.run_state, CPU_RUNNABLE);
    assert_int_equal(*cpu_state_msr(&s, MSR_PAT), 0x0007040600070406);
    assert_null(cpu_state_msr(&s, 0x12345));
    cpu_state_format(&s, text, sizeof text);
    assert_non_null(strstr(text, "RIP=000000000000fff0"));
    cpu_state_format(&s, little, sizeof little);
    assert_int_equal(strlen(little), sizeof little - 1);
    cpu_state_reset(&s, false);
    assert_int_equal(s.run_state, CPU_WAIT_INIT);
}

static void *run_once(void *v)
{
    struct err e;
    return (void *)(uintptr_t)((struct vcpu *)v)->engine->ops->vcpu_run(v, &e);
}

static void test_null_engine(void **state)
{
    const struct engine_ops *ops;
    struct engine *e;
    struct vcpu *v;
    char why[200];
    struct engine_config cfg = {.cpus = 1};
    struct cpu_state s;
    pthread_t t;
    void *ret;
    assert_int_equal(engine_choose("null", &ops, why, NULL), 0);
    assert_int_equal(ops->create(&cfg, &e, NULL), 0);
    assert_int_equal(ops->vcpu_create(e, 0, &v, NULL), 0);
    assert_int_equal(ops->get_state(v, &s, NULL), 0);
    s.gpr[RBX] = 42;
    assert_int_equal(ops->set_state(v, &s, NULL), 0);
    pthread_create(&t, NULL, run_once, v);
    ops->vcpu_kick(v);
    pthread_join(t, &ret);
    assert_int_equal((uintptr_t)ret, VCPU_EXIT_KICKED);
    assert_int_equal(ops->get_state(v, &s, NULL), 0);
    assert_int_equal(s.gpr[RBX], 42);
    ops->destroy(e);
    ops->destroy(NULL);
}

static void test_unknown_engine(void **state)
{
    const struct engine_ops *ops;
    char why[200];
    struct err e = {0};
    assert_int_equal(engine_choose("xen", &ops, why, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "xen"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_model_builds), cmocka_unit_test(test_model_features_known),
        cmocka_unit_test(test_features_options),   cmocka_unit_test(test_xsave_leaf),
        cmocka_unit_test(test_tsc_leaf),           cmocka_unit_test(test_apic_ids),
        cmocka_unit_test(test_reset_state),        cmocka_unit_test(test_null_engine),
        cmocka_unit_test(test_unknown_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
