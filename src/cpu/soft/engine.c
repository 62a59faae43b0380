/*
 * The software engine as cpu/engine.h sees it: creation, signals from outside, the clock, statistics. It runs guests
 * anywhere, without privileges.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include "base/fd.h"
#include "cpu/soft/blocks.h"
#include "cpu/soft/cpu.h"
#include "cpu/soft/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/run.h"
#include "cpu/soft/sys.h"
#include "cpu/soft/timer.h"
#include "cpu/soft/vec.h"

extern const struct engine_ops soft_engine_ops;

static struct soft_engine *soft_engine_of(struct engine *e)
{
    return (struct soft_engine *)e;
}

static void soft_probe(struct engine_probe *ret)
{
    *ret = (struct engine_probe){.usable = true, .why = "soft translates guest code in user space"};
}

/* One moment by the TSC and by the clock. Of a few tries the shortest: in a longer one another process ran in between.
 */
struct tsc_sample {
    uint64_t tsc, ns;
};

static struct tsc_sample tsc_sample(void)
{
    struct tsc_sample best = {0};
    uint64_t shortest = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        uint64_t before = __rdtsc(), ns = clock_host_ns(), after = __rdtsc();
        if (after - before < shortest) {
            shortest = after - before;
            best = (struct tsc_sample){before + shortest / 2, ns};
        }
    }
    return best;
}

/* Ticks per millisecond of the host's TSC: what a hypervisor or CPUID says, or measured. */
static uint32_t host_tsc_khz(void)
{
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (c & BIT(31)) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010) {
            __cpuid(0x40000010, a, b, c, d);
            if (a)
                return a;
        }
    }
    if (__get_cpuid_max(0, NULL) >= 0x15) {
        __cpuid(0x15, a, b, c, d);
        if (a && b && c)
            return (uint32_t)((uint64_t)c * b / a / 1000);
    }
    struct tsc_sample from = tsc_sample(), to;
    do
        to = tsc_sample();
    while (to.ns < from.ns + 250000);
    return (uint32_t)((__uint128_t)(to.tsc - from.tsc) * 1000000 / (to.ns - from.ns));
}

static void *map_zeroed(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void vcpu_destroy(struct soft_cpu *c)
{
    if (!c)
        return;
    timer_detach(c);
    free(c->debug);
    jit_free(c);
    blocks_free(c);
    mmu_free(c);
    pthread_mutex_destroy(&c->wprotect.lock);
    munmap(c, sizeof *c);
}

static void soft_destroy(struct engine *engine)
{
    struct soft_engine *e = soft_engine_of(engine);
    if (!e)
        return;
    uint64_t pages = engine->cfg.mem->fd_size >> PAGE_SHIFT;
    if (engine->cfg.mem->code_opaque == e) {
        engine->cfg.mem->code_written = NULL;
        engine->cfg.mem->code_opaque = NULL;
    }
    if (engine->cfg.mem->layout_opaque == e) {
        engine->cfg.mem->layout_changed = NULL;
        engine->cfg.mem->shown_cleared = NULL;
        engine->cfg.mem->layout_opaque = NULL;
    }
    for (unsigned k = 0; e->cpu && k < engine->cfg.cpus; k++)
        vcpu_destroy(e->cpu[k]);
    free(e->cpu);
    fd_closep(&e->perf_map);
    vec_cache_free(e->vec_cache);
    if (e->page_gen)
        munmap((void *)e->page_gen, pages * sizeof *e->page_gen);
    if (e->code_lines)
        munmap((void *)e->code_lines, pages * sizeof *e->code_lines);
    pthread_mutex_destroy(&e->split_lock);
    pthread_mutex_destroy(&e->code_lock);
    free(e);
}

/* Other memory is seen at some addresses: translations and code of before are void. */
static void layout_changed(void *opaque)
{
    struct soft_engine *e = opaque;
    for (unsigned k = 0; k < e->engine.cfg.cpus; k++)
        if (e->cpu[k])
            pending_add(e->cpu[k], PEND_TLB_ALL);
}

/* Pages of device memory want to be told of writes again. A halted vCPU looks before it runs. */
static void shown_cleared(void *opaque)
{
    struct soft_engine *e = opaque;
    for (unsigned k = 0; k < e->engine.cfg.cpus; k++)
        if (e->cpu[k])
            atomic_fetch_or(&e->cpu[k]->pending, PEND_VIEW);
}

static int soft_create(const struct engine_config *cfg, struct engine **ret, struct err *err)
{
    uint64_t pages = cfg->mem->fd_size >> PAGE_SHIFT;
    struct soft_engine *e = calloc(1, sizeof *e);
    if (!e)
        return err_set(err, -ENOMEM, "no memory for the engine");
    e->engine = (struct engine){.ops = &soft_engine_ops, .cfg = *cfg, .tsc_khz = host_tsc_khz()};
    e->perf_map = cfg->perf_map ? jit_perf_map_open() : -1;
    e->hot = cfg->jit_hot ? cfg->jit_hot : JIT_HOT;
    e->tsc_per_ns = e->engine.tsc_khz / 1e6;
    pthread_mutex_init(&e->split_lock, NULL);
    pthread_mutex_init(&e->code_lock, NULL);
    e->cpu = calloc(cfg->cpus, sizeof(struct soft_cpu *));
    e->page_gen = map_zeroed(pages * sizeof *e->page_gen);
    e->code_lines = map_zeroed(pages * sizeof *e->code_lines);
    int r = e->cpu && e->page_gen && e->code_lines ? 0 : err_set(err, -ENOMEM, "no memory for the engine");
    if (r == 0) {
        struct cpuid_caps caps;
        soft_cpuid_caps(&caps);
        r = cpuid_build(&cfg->cpu, &caps, e->engine.tsc_khz, &e->cpuid, err);
    }
    for (unsigned i = 0; r == 0 && i < e->cpuid.n; i++) {
        const struct cpuid_entry *f = &e->cpuid.entry[i];
        e->has_rdtscp |= f->leaf == 0x80000001 && (f->edx & BIT(27));
        e->has_rdpid |= f->leaf == 7 && !(f->indexed && f->subleaf) && (f->ecx & BIT(22));
    }
    if (r == 0 && !(e->vec_cache = vec_cache_new(&e->cpuid)))
        r = err_set(err, -ENOMEM, "no memory for generated code");
    if (r < 0) {
        soft_destroy(&e->engine);
        return r;
    }
    e->stopped_tsc = __rdtsc();
    cfg->mem->code_opaque = e;
    cfg->mem->code_written = blocks_dma_written;
    if (!cfg->mem->layout_changed) { /* where this engine only helps another one, that one listens */
        cfg->mem->layout_opaque = e;
        cfg->mem->layout_changed = layout_changed;
        cfg->mem->shown_cleared = shown_cleared;
    }
    *ret = &e->engine;
    return 0;
}

static int soft_vcpu_create(struct engine *engine, unsigned index, struct vcpu **ret, struct err *err)
{
    struct soft_engine *e = soft_engine_of(engine);
    struct soft_cpu *c = map_zeroed(sizeof *c);
    if (!c)
        return err_set(err, -ENOMEM, "vCPU %u: no memory", index);
    c->vcpu = (struct vcpu){.engine = engine, .index = index};
    c->soft = e;
    pthread_mutex_init(&c->wprotect.lock, NULL);
    int r = mmu_init(c);
    if (r < 0)
        err_set(err, r, "vCPU %u: no memory", index);
    else
        r = blocks_init(c, err);
    if (r == 0 && !engine->cfg.no_jit)
        r = jit_init(c, err);
    if (r < 0) {
        vcpu_destroy(c);
        return r;
    }
    soft_reset(c, index == 0);
    if (engine->cfg.chaos)
        c->chaos = engine->cfg.chaos * 0x9e3779b97f4a7c15ull + index + 1;
    e->cpu[index] = c;
    *ret = &c->vcpu;
    return 0;
}

static void soft_kick(struct vcpu *v)
{
    pending_set(soft_cpu_of(v), PEND_KICK);
}

static void soft_signal(struct vcpu *v, enum vcpu_signal what, unsigned arg)
{
    struct soft_cpu *c = soft_cpu_of(v);
    switch (what) {
    case VCPU_SIG_INTR:
        pending_set(c, PEND_INTR);
        break;
    case VCPU_SIG_NMI:
        pending_set(c, PEND_NMI);
        break;
    case VCPU_SIG_INIT:
        pending_set(c, PEND_INIT);
        break;
    case VCPU_SIG_SIPI:
        atomic_store(&c->sipi_vector, (uint8_t)arg);
        pending_set(c, PEND_SIPI);
        break;
    case VCPU_SIG_TIMER_DISARMED:
        break; /* vcpu_arm_timer(0) did it */
    }
}

static void soft_arm_timer(struct vcpu *v, uint64_t ns)
{
    struct soft_cpu *c = soft_cpu_of(v);
    c->timer_ns = ns;
    timer_rearm(c);
}

static uint64_t soft_vcpu_tsc(struct vcpu *v)
{
    return soft_tsc(soft_cpu_of(v));
}

static int soft_vcpu_get_state(struct vcpu *v, struct cpu_state *s, struct err *err)
{
    soft_get_state(soft_cpu_of(v), s);
    return 0;
}

static int soft_vcpu_set_state(struct vcpu *v, const struct cpu_state *s, struct err *err)
{
    struct soft_cpu *c = soft_cpu_of(v);
    int r = soft_set_state(c, s, err);
    if (r < 0)
        return r;
    pending_add(c, PEND_INTR);
    return 0;
}

static void soft_clock_changed(struct engine *engine, bool running)
{
    struct soft_engine *e = soft_engine_of(engine);
    uint64_t now = __rdtsc(), passed = now - e->stopped_tsc;
    if (!running)
        e->stopped_tsc = now;
    for (unsigned k = 0; k < engine->cfg.cpus; k++) {
        struct soft_cpu *c = e->cpu[k];
        if (!c)
            continue;
        if (running)
            c->tsc_offset -= passed;
        timer_rearm(c);
    }
}

static void soft_info(struct engine *engine, char *buf, size_t size)
{
    struct soft_engine *e = soft_engine_of(engine);
    size_t n = 0;
    if (size)
        buf[0] = 0;
    for (unsigned k = 0; k < engine->cfg.cpus && n < size; k++) {
        const struct soft_cpu *c = e->cpu[k];
        if (!c)
            continue;
        int r = snprintf(buf + n, size - n,
                         "vCPU %u: %llu instructions, %llu blocks looked up, %llu decoded, %llu revived, %llu cache flushes, %llu "
                         "pages rewritten, cache %zu KiB\n",
                         k, (unsigned long long)c->insns, (unsigned long long)c->blocks->found, (unsigned long long)c->blocks->built,
                         (unsigned long long)c->blocks->revived, (unsigned long long)c->blocks->flushes,
                         (unsigned long long)c->blocks->invalidations, c->blocks->used / 1024);
        n += r > 0 ? (size_t)r : 0;
        const struct soft_jit *s = c->jit_cache;
        if (!s || n >= size)
            continue;
        r = snprintf(buf + n, size - n,
                     "        %llu blocks translated, %zu KiB of code, %llu cache flushes; entered %llu times, left %llu by links, %llu by "
                     "indirect jumps, %llu by instructions; %llu instructions by their handlers\n",
                     (unsigned long long)s->translated, s->used / 1024, (unsigned long long)s->flushes,
                     (unsigned long long)c->jit.enters, (unsigned long long)c->jit.exits_link,
                     (unsigned long long)c->jit.exits_indirect, (unsigned long long)c->jit.exits_leave,
                     (unsigned long long)c->jit.calls);
        n += r > 0 ? (size_t)r : 0;
    }
}

const struct engine_ops soft_engine_ops = {
    .name = "soft",
    .summary = "x86-64 in software, anywhere",
    .probe = soft_probe,
    .create = soft_create,
    .destroy = soft_destroy,
    .vcpu_create = soft_vcpu_create,
    .vcpu_run = soft_run,
    .vcpu_kick = soft_kick,
    .vcpu_signal = soft_signal,
    .vcpu_arm_timer = soft_arm_timer,
    .vcpu_tsc = soft_vcpu_tsc,
    .get_state = soft_vcpu_get_state,
    .set_state = soft_vcpu_set_state,
    .clock_changed = soft_clock_changed,
    .info = soft_info,
    .set_debug = soft_set_debug,
    .debug_hit = soft_debug_hit,
};
