/*
 * Vector and x87 instructions under control bits that a host process cannot set: CR0.EM, TS, MP and NE, CR4.OSFXSR,
 * OSXMMEXCPT and OSXSAVE, XCR0, real mode; and state that comes from outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "cpu/soft/cpu.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/vec.h"
#include "cpu/soft/vec_live.h"

static struct soft_cpu *c;
static struct mem *ram;
static struct engine *engine;
static struct clock clk;

#define DATA 0x2000

static int setup(void **state)
{
    static const struct cpu_bus bus;
    const struct engine_ops *ops;
    struct err err;
    struct vcpu *v;
    char why[200];
    clock_init(&clk, 0);
    struct engine_config cfg = {.bus = &bus, .clock = &clk, .cpus = 1};
    cfg.cpu.model = "max";
    cfg.cpu.topology = (struct cpu_topology){.cpus = 1, .sockets = 1, .dies = 1, .cores = 1, .threads = 1};
    if (mem_new(MIB, 3 * GIB, &ram, &err))
        return -1;
    cfg.mem = ram;
    if (engine_choose("soft", &ops, why, &err) || ops->create(&cfg, &engine, &err) ||
        ops->vcpu_create(engine, 0, &v, &err))
        return -1;
    c = soft_cpu_of(v);
    return 0;
}

static int teardown(void **state)
{
    engine->ops->destroy(engine);
    mem_free(ram);
    return 0;
}

/* Flat 32-bit protected mode without paging, or real mode with zero bases; everything enabled, nothing masked away. */
static void mode(bool protected_mode)
{
    static struct cpu_state s;
    struct err err;
    engine->ops->get_state(&c->vcpu, &s, &err);
    s.cr0 = CR0_ET | CR0_NE | CR0_MP | (protected_mode ? CR0_PE : 0);
    s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    s.xcr0 = 7;
    s.rflags = 2;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        s.seg[n] = (struct cpu_segment){.limit = protected_mode ? 0xffffffff : 0xffff,
                                        .selector = protected_mode ? 8 : 0,
                                        .type = n == CS ? 11 : 3,
                                        .s = 1,
                                        .present = 1,
                                        .db = protected_mode,
                                        .g = protected_mode};
    memset(s.xsave, 0, sizeof s.xsave);
    s.run_state = CPU_RUNNABLE;
    assert_int_equal(engine->ops->set_state(&c->vcpu, &s, &err), 0);
    memset(c->gpr, 0, sizeof c->gpr);
    c->gpr[RBX] = DATA;
    c->rip = 0x1000;
}

/* Executes one instruction; the exception it raises, or -1. */
static int run(const char *bytes, unsigned len)
{
    uint8_t buf[16];
    struct insn i;
    memset(buf, 0x90, sizeof buf);
    memcpy(buf, bytes, len);
    insn_decode(c, buf, sizeof buf, c->mode, &i);
    int r = i.fn(c, &i);
    if (r == INSN_FAULT)
        return c->exc.vector;
    c->rip += len;
    return -1;
}
#define RUN(bytes) run(bytes, sizeof(bytes) - 1)
#define FADD "\xd8\xc1"  /* fadd st0, st1 */
#define FDIV0 "\xd8\xf1" /* fdiv st0, st1 */
#define FLDZ "\xd9\xee"
#define FLD1 "\xd9\xe8"
#define FWAIT "\x9b"
#define PADDB_MM "\x0f\xfc\xc1"
#define ADDPS "\x0f\x58\xc1"
#define DIVPS "\x0f\x5e\xc1"
#define VADDPS "\xc5\xf0\x58\xc2"
#define FXSAVE "\x0f\xae\x03"
#define XSAVE "\x0f\xae\x23"
#define LDMXCSR "\x0f\xae\x13"
#define FNSTENV "\xd9\x33"

static void test_control_bits(void **state)
{
    mode(true);
    assert_int_equal(RUN(FADD), -1);
    assert_int_equal(RUN(PADDB_MM), -1);
    assert_int_equal(RUN(ADDPS), -1);
    assert_int_equal(RUN(VADDPS), -1);
    assert_int_equal(RUN(FXSAVE), -1);
    assert_int_equal(RUN(XSAVE), -1);

    c->cr0 |= CR0_TS;
    assert_int_equal(RUN(FADD), EXC_NM);
    assert_int_equal(RUN(FWAIT), EXC_NM);
    assert_int_equal(RUN(PADDB_MM), EXC_NM);
    assert_int_equal(RUN(ADDPS), EXC_NM);
    assert_int_equal(RUN(VADDPS), EXC_NM);
    assert_int_equal(RUN(FXSAVE), EXC_NM);
    assert_int_equal(RUN(XSAVE), EXC_NM);
    c->cr0 &= ~(uint64_t)CR0_MP;
    assert_int_equal(RUN(FWAIT), -1);

    c->cr0 = (c->cr0 & ~(uint64_t)CR0_TS) | CR0_EM;
    assert_int_equal(RUN(FADD), EXC_NM);
    assert_int_equal(RUN(PADDB_MM), EXC_UD);
    assert_int_equal(RUN(ADDPS), EXC_UD);
    assert_int_equal(RUN(FXSAVE), EXC_NM);

    mode(true);
    c->cr4 &= ~(uint64_t)CR4_OSFXSR;
    assert_int_equal(RUN(ADDPS), EXC_UD);
    assert_int_equal(RUN(LDMXCSR), EXC_UD);
    assert_int_equal(RUN(FADD), -1);
    assert_int_equal(RUN(VADDPS), -1);
    c->cr4 &= ~(uint64_t)CR4_OSXSAVE;
    assert_int_equal(RUN(VADDPS), EXC_UD);
    assert_int_equal(RUN(XSAVE), EXC_UD);

    mode(true);
    c->xcr0 = 3;
    assert_int_equal(RUN(VADDPS), EXC_UD);
    assert_int_equal(RUN(ADDPS), -1);
    mode(false);
    assert_int_equal(RUN(VADDPS), EXC_UD);
    assert_int_equal(RUN(ADDPS), -1);
}

static void test_x87_exceptions(void **state)
{
    mode(true);
    assert_int_equal(RUN("\xdb\xe3"), -1); /* fninit */
    le16_put(c->vec.fx + FX_FCW, 0x37b);   /* divide by zero unmasked */
    RUN(FLDZ);
    RUN(FLD1);
    c->rip = 0x1234;
    assert_int_equal(RUN(FDIV0), -1); /* it is the next one that faults */
    assert_int_equal(le64_get(c->vec.fx + FX_FIP), 0x1234);
    assert_int_equal(le16_get(c->vec.fx + FX_FSW) & 0x8084, 0x8084);
    assert_int_equal(RUN(FADD), EXC_MF);
    assert_int_equal(RUN(FWAIT), EXC_MF);
    assert_int_equal(RUN(PADDB_MM), EXC_MF);
    assert_int_equal(RUN("\xdf\xe0"), -1); /* fnstsw ax waits for nothing */
    assert_int_equal(c->gpr[RAX] & 0x84, 0x84);
    /* With NE clear nothing is delivered here, and the host process must not notice either. */
    c->cr0 &= ~(uint64_t)CR0_NE;
    assert_int_equal(RUN(FADD), -1);
    assert_int_equal(RUN(FWAIT), -1);
    assert_int_equal(le16_get(c->vec.fx + FX_FCW), 0x37b);
    c->cr0 |= CR0_NE;
    assert_int_equal(RUN(FADD), EXC_MF);
    assert_int_equal(RUN("\xdb\xe2"), -1); /* fnclex */
    assert_int_equal(RUN(FADD), -1);
}

static void test_simd_exceptions(void **state)
{
    static const float one[4] = {1, 1, 1, 1};
    mode(true);
    memcpy(vec_xmm(c, 0), one, 16);
    memset(vec_xmm(c, 1), 0, 16);
    le32_put(c->vec.fx + FX_MXCSR, 0x1d80); /* divide by zero unmasked */
    assert_int_equal(RUN(DIVPS), EXC_XM);
    assert_int_equal(le32_get(c->vec.fx + FX_MXCSR), 0x1d84);
    assert_memory_equal(vec_xmm(c, 0), one, 16);
    c->cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
    assert_int_equal(RUN(DIVPS), EXC_UD);
    le32_put(c->vec.fx + FX_MXCSR, 0x1f80);
    assert_int_equal(RUN(DIVPS), -1);
    assert_int_equal(le32_get(c->vec.fx + FX_MXCSR), 0x1f84);
}

/* Real mode: the environment has linear pointers with the opcode in between. */
static void test_real_mode_environment(void **state)
{
    uint8_t *m = ram->ram + DATA;
    mode(false);
    RUN("\xdb\xe3");
    le64_put(c->vec.fx + FX_FIP, 0x54321);
    le64_put(c->vec.fx + FX_FDP, 0xabcde);
    le16_put(c->vec.fx + FX_FOP, 0x123);
    assert_int_equal(RUN("\xd9\x37"), -1); /* fnstenv [bx], 14 bytes */
    assert_int_equal(le16_get(m), 0x37f);
    assert_int_equal(le16_get(m + 6), 0x4321);
    assert_int_equal(le16_get(m + 8), 0x5123);
    assert_int_equal(le16_get(m + 10), 0xbcde);
    assert_int_equal(le16_get(m + 12), 0xa000);
    assert_int_equal(RUN("\x66\xd9\x37"), -1); /* 28 bytes */
    assert_int_equal(le32_get(m + 12) & 0xffff, 0x4321);
    assert_int_equal(le32_get(m + 16), 0x5123);
    assert_int_equal(le32_get(m + 24), 0xa000);
    RUN("\xdb\xe3");
    assert_int_equal(RUN("\x66\xd9\x27"), -1); /* fldenv */
    assert_int_equal(le64_get(c->vec.fx + FX_FIP), 0x54321);
    assert_int_equal(le64_get(c->vec.fx + FX_FDP), 0xabcde);
    assert_int_equal(le16_get(c->vec.fx + FX_FOP), 0x123);
}

/* A saved state may hold anything: what a CPU would refuse must not reach the host's FXRSTOR. */
static void test_hostile_state(void **state)
{
    uint8_t buf[CPU_XSAVE_SIZE];
    mode(true);
    memset(buf, 0xff, sizeof buf);
    vec_set_xsave(c, buf);
    assert_int_equal(le32_get(c->vec.fx + FX_MXCSR) & ~vec_mxcsr_mask(), 0);
    RUN(FADD);
    RUN(ADDPS);
    RUN(PADDB_MM);
    RUN(FNSTENV);
    memset(buf, 0, sizeof buf); /* nothing in use: initial state */
    vec_set_xsave(c, buf);
    assert_int_equal(le16_get(c->vec.fx + FX_FCW), 0x37f);
    assert_int_equal(le32_get(c->vec.fx + FX_MXCSR), 0x1f80);
}

/* The host's own floating-point state is as before, whatever the guest did. */
static void test_host_state_clean(void **state)
{
    uint32_t mxcsr;
    uint16_t cw, sw;
    mode(true);
    le32_put(c->vec.fx + FX_MXCSR, 0xffbf); /* flush to zero, rounding towards zero, all flags */
    RUN(ADDPS);
    RUN(VADDPS);
    RUN("\x0f\x2a\xc1"); /* cvtpi2ps xmm0, mm1 */
    le16_put(c->vec.fx + FX_FCW, 0x0c7f);
    RUN(FLD1);
    RUN(FADD);
    __asm__("stmxcsr %0\n\tfnstcw %1\n\tfnstsw %2" : "=m"(mxcsr), "=m"(cw), "=m"(sw));
    assert_int_equal(mxcsr & ~0x3fu, 0x1f80);
    assert_int_equal(cw, 0x37f);
    assert_int_equal(sw & 0x3800, 0);
}

/* Live state comes back as it went, with what was computed in between, and exceptions that are unmasked keep it out. */
__attribute__((target("general-regs-only"), noinline)) static unsigned live_round(unsigned want)
{
    if (!vec_live_enter(c, want))
        return 0;
    if (want & LIVE_SSE)
        __asm__ volatile("addps %%xmm3, %%xmm7\n\tpxor %%xmm0, %%xmm0" : : : "memory");
    if (want & LIVE_AVX)
        __asm__ volatile("vaddps %%ymm3, %%ymm4, %%ymm9" : : : "memory");
    if (want & LIVE_X87)
        __asm__ volatile("fld1\n\tfaddp" : : : "memory");
    return vec_live_leave(c);
}

static void live(void **state)
{
    if (!vec_live_supported())
        skip();
    float one[8] = {1, 2, 3, 4, 5, 6, 7, 8}, sum[4];
    long double pi = 3.25L;
    mode(true);
    for (unsigned n = 0; n < 256; n++)
        c->vec.fx[FX_XMM + n] = (uint8_t)n, c->vec.ymm_hi[n / 16][n % 16] = (uint8_t)(n * 3);
    memcpy(vec_xmm(c, 3), one, 16);
    memcpy(vec_xmm(c, 7), one, 16);
    memcpy(vec_xmm(c, 4), one, 16);
    memcpy(c->vec.ymm_hi[3], one + 4, 16);
    memcpy(c->vec.ymm_hi[4], one + 4, 16);
    le32_put(c->vec.fx + FX_MXCSR, MXCSR_DEFAULT | 0x6000);
    le16_put(c->vec.fx + FX_FCW, 0x37f);
    memcpy(c->vec.fx + FX_ST, &pi, 10);
    c->vec.fx[FX_FTW] = 0x80; /* by register, TOP is 7 */
    le16_put(c->vec.fx + FX_FSW, 0x3800);
    struct soft_vec before = c->vec;

    assert_int_equal(live_round(LIVE_X87), LIVE_X87);
    assert_memory_equal(c->vec.fx + FX_XMM, before.fx + FX_XMM, 256);
    pi += 1;
    assert_memory_equal(c->vec.fx + FX_ST, &pi, 10);
    assert_int_equal(c->vec.fx[FX_FTW], 0x80);
    assert_int_equal(live_round(LIVE_AVX | LIVE_SSE | LIVE_X87), 7);
    pi += 1;
    assert_memory_equal(c->vec.fx + FX_ST, &pi, 10);
    memcpy(sum, vec_xmm(c, 7), 16);
    for (unsigned k = 0; k < 4; k++)
        assert_true(sum[k] == 2 * one[k]);
    memcpy(sum, c->vec.ymm_hi[9], 16);
    for (unsigned k = 0; k < 4; k++)
        assert_true(sum[k] == 2 * one[4 + k]);
    assert_memory_equal(vec_xmm(c, 0), "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_memory_equal(c->vec.ymm_hi[0], before.ymm_hi[0], 16);
    assert_memory_equal(vec_xmm(c, 10), before.fx + FX_XMM + 160, 96);
    assert_memory_equal(c->vec.ymm_hi[10], before.ymm_hi[10], 96);
    assert_int_equal(le32_get(c->vec.fx + FX_MXCSR) & 0xffc0, 0x7f80);
    uint32_t host;
    __asm__("stmxcsr %0" : "=m"(host));
    assert_int_equal(host & ~MXCSR_FLAGS, MXCSR_DEFAULT);

    le32_put(c->vec.fx + FX_MXCSR, 0x1f00); /* invalid operation unmasked */
    assert_int_equal(live_round(LIVE_SSE), 0);
    le32_put(c->vec.fx + FX_MXCSR, MXCSR_DEFAULT);
    le16_put(c->vec.fx + FX_FCW, 0x37b);
    assert_int_equal(live_round(LIVE_X87), 0);
    c->cr0 |= CR0_TS;
    assert_int_equal(live_round(LIVE_SSE), 0);
    c->cr0 &= ~(uint64_t)CR0_TS;
    c->xcr0 = 3;
    assert_int_equal(live_round(LIVE_AVX), 0);
    assert_int_equal(live_round(LIVE_SSE), LIVE_SSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_control_bits),    cmocka_unit_test(test_x87_exceptions),
        cmocka_unit_test(test_simd_exceptions), cmocka_unit_test(test_real_mode_environment),
        cmocka_unit_test(test_hostile_state),   cmocka_unit_test(test_host_state_clean),
        cmocka_unit_test(live),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
