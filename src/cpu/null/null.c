/*
 * The engine with no CPU: its vCPUs keep a state and wait to be kicked. For device tests and fuzzing, where the test
 * plays the guest. vcpu_run on the vCPU's thread; kick and signal from any.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/fd.h"
#include "cpu/engine.h"

struct null_vcpu {
    struct vcpu vcpu; /* first */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool kicked;
    struct cpu_state state;
};

struct null_engine {
    struct engine engine; /* first */
    struct null_vcpu **cpu;
};

extern const struct engine_ops null_engine_ops;

static void null_probe(struct engine_probe *ret)
{
    *ret = (struct engine_probe){.usable = true, .why = "null runs no guest code: for tests of devices"};
}

static int null_create(const struct engine_config *cfg, struct engine **ret, struct err *err)
{
    struct null_engine *n = xcalloc(1, sizeof *n);
    n->engine = (struct engine){.ops = &null_engine_ops, .cfg = *cfg, .tsc_khz = 1000000};
    n->cpu = xcalloc(cfg->cpus ? cfg->cpus : 1, sizeof *n->cpu);
    *ret = &n->engine;
    return 0;
}

static void null_destroy(struct engine *e)
{
    struct null_engine *n = (struct null_engine *)e;
    if (!n)
        return;
    for (unsigned i = 0; i < e->cfg.cpus; i++) {
        if (n->cpu[i]) {
            pthread_cond_destroy(&n->cpu[i]->wake);
            pthread_mutex_destroy(&n->cpu[i]->lock);
            free(n->cpu[i]);
        }
    }
    free(n->cpu);
    free(n);
}

static int null_vcpu_create(struct engine *e, unsigned index, struct vcpu **ret, struct err *err)
{
    struct null_engine *n = (struct null_engine *)e;
    struct null_vcpu *v = xcalloc(1, sizeof *v);
    v->vcpu = (struct vcpu){.engine = e, .index = index};
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->wake, NULL);
    cpu_state_reset(&v->state, index == 0);
    n->cpu[index] = v;
    *ret = &v->vcpu;
    return 0;
}

static enum vcpu_exit null_vcpu_run(struct vcpu *vcpu, struct err *err)
{
    struct null_vcpu *v = (struct null_vcpu *)vcpu;
    pthread_mutex_lock(&v->lock);
    while (!v->kicked)
        pthread_cond_wait(&v->wake, &v->lock);
    v->kicked = false;
    pthread_mutex_unlock(&v->lock);
    return VCPU_EXIT_KICKED;
}

static void null_vcpu_kick(struct vcpu *vcpu)
{
    struct null_vcpu *v = (struct null_vcpu *)vcpu;
    pthread_mutex_lock(&v->lock);
    v->kicked = true;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

static void null_vcpu_signal(struct vcpu *vcpu, enum vcpu_signal what, unsigned arg)
{
}

static void null_vcpu_arm_timer(struct vcpu *vcpu, uint64_t ns)
{
}

static uint64_t null_vcpu_tsc(struct vcpu *vcpu)
{
    return vcpu->engine->cfg.clock ? clock_now(vcpu->engine->cfg.clock) : 0;
}

static int null_get_state(struct vcpu *vcpu, struct cpu_state *s, struct err *err)
{
    *s = ((struct null_vcpu *)vcpu)->state;
    return 0;
}

static int null_set_state(struct vcpu *vcpu, const struct cpu_state *s, struct err *err)
{
    ((struct null_vcpu *)vcpu)->state = *s;
    return 0;
}

static void null_clock_changed(struct engine *e, bool running)
{
}

const struct engine_ops null_engine_ops = {
    .name = "null",
    .summary = "no CPU: device tests",
    .probe = null_probe,
    .create = null_create,
    .destroy = null_destroy,
    .vcpu_create = null_vcpu_create,
    .vcpu_run = null_vcpu_run,
    .vcpu_kick = null_vcpu_kick,
    .vcpu_signal = null_vcpu_signal,
    .vcpu_arm_timer = null_vcpu_arm_timer,
    .vcpu_tsc = null_vcpu_tsc,
    .get_state = null_get_state,
    .set_state = null_set_state,
    .clock_changed = null_clock_changed,
};
