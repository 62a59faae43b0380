/* Local APICs from several threads at once: no interrupt is lost, each arrives where it was sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "dev/lapic.h"

#define CPUS 4
#define ROUNDS 3000
#define VECTOR 0x40 /* + number of the sender */

struct cpu {
    struct lapic *lapic;
    unsigned index;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kicked;
    _Atomic unsigned got[CPUS]; /* interrupts taken, by sender */
    _Atomic unsigned external;
};

static struct cpu cpus[CPUS];
static _Atomic unsigned running;

static void on_signal(void *opaque, enum lapic_signal what, unsigned arg)
{
    struct cpu *c = opaque;
    pthread_mutex_lock(&c->lock);
    c->kicked = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->lock);
}
static void on_arm(void *opaque, uint64_t ns)
{
}
static uint64_t on_tsc(void *opaque)
{
    return 0;
}

/* What a CPU does with interrupts enabled: takes all that are pending. */
static void take_all(struct cpu *c)
{
    while (lapic_pending(c->lapic) >= 0) {
        int v = lapic_ack(c->lapic);
        if (v >= VECTOR && v < VECTOR + CPUS)
            atomic_fetch_add(&c->got[v - VECTOR], 1);
        else if (v == 0x80)
            atomic_fetch_add(&c->external, 1);
        else
            fail();
        lapic_mmio_write(c->lapic, 0xb0, 4, 0);
    }
}

/* Sends to each other CPU in turn, and waits, halted but for interrupts, until that one has taken it. */
static void *run_cpu(void *opaque)
{
    struct cpu *c = opaque;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct cpu *to = &cpus[(c->index + 1 + i % (CPUS - 1)) % CPUS];
        unsigned before = atomic_load(&to->got[c->index]);
        lapic_mmio_write(c->lapic, 0x310, 4, to->index << 24);
        lapic_mmio_write(c->lapic, 0x300, 4, 0x4000 | (VECTOR + c->index));
        while (atomic_load(&to->got[c->index]) == before) {
            take_all(c);
            sched_yield();
        }
    }
    atomic_fetch_sub(&running, 1);
    /* Then it halts, and wakes for interrupts alone. */
    while (atomic_load(&running)) {
        pthread_mutex_lock(&c->lock);
        while (!c->kicked)
            pthread_cond_wait(&c->cond, &c->lock);
        c->kicked = false;
        pthread_mutex_unlock(&c->lock);
        take_all(c);
    }
    return NULL;
}

static void no_interrupt_is_lost(void **s)
{
    struct clock clock;
    clock_init(&clock, 0);
    struct lapic_set *set = lapic_set_new(&(struct lapic_set_config){.clock = &clock});
    atomic_store(&running, CPUS + 1);
    for (unsigned i = 0; i < CPUS; i++) {
        struct cpu *c = &cpus[i];
        memset(c, 0, sizeof *c);
        c->index = i;
        pthread_mutex_init(&c->lock, NULL);
        pthread_cond_init(&c->cond, NULL);
        struct lapic_cpu hooks = {c, on_signal, on_arm, on_tsc, 1000000};
        assert_int_equal(lapic_new(set, i, i == 0, &hooks, &c->lapic, NULL), 0);
        lapic_mmio_write(c->lapic, 0xf0, 4, 0x1ff);
    }
    for (unsigned i = 0; i < CPUS; i++)
        pthread_create(&cpus[i].thread, NULL, run_cpu, &cpus[i]);
    /* A device's messages from yet another thread, to CPU 0; each is waited for, since IRR holds one of a vector. */
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned before = atomic_load(&cpus[0].external);
        lapic_set_msi(set, 0xfee00000, 0x4080);
        while (atomic_load(&cpus[0].external) == before)
            sched_yield();
    }
    while (atomic_load(&running) > 1)
        sched_yield();
    atomic_store(&running, 0);
    for (unsigned i = 0; i < CPUS; i++)
        on_signal(&cpus[i], LAPIC_INTR, 0);
    for (unsigned i = 0; i < CPUS; i++)
        pthread_join(cpus[i].thread, NULL);
    for (unsigned from = 0; from < CPUS; from++) {
        unsigned sum = 0;
        for (unsigned to = 0; to < CPUS; to++)
            sum += atomic_load(&cpus[to].got[from]);
        assert_int_equal(sum, ROUNDS);
    }
    assert_int_equal(atomic_load(&cpus[0].external), ROUNDS);
    for (unsigned i = 0; i < CPUS; i++)
        device_free(lapic_device(cpus[i].lapic));
    lapic_set_free(set);
}

static void an_id_can_be_taken_once(void **s)
{
    struct clock clock;
    clock_init(&clock, 0);
    struct lapic_set *set = lapic_set_new(&(struct lapic_set_config){.clock = &clock});
    struct lapic_cpu hooks = {&cpus[0], on_signal, on_arm, on_tsc, 1000000};
    struct lapic *a, *b;
    struct err err = {0};
    assert_int_equal(lapic_new(set, 7, true, &hooks, &a, &err), 0);
    assert_true(lapic_new(set, 7, false, &hooks, &b, &err) < 0);
    assert_string_equal(err.msg, "local APIC id 7 is taken");
    device_free(lapic_device(a));
    lapic_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_interrupt_is_lost),
        cmocka_unit_test(an_id_can_be_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
