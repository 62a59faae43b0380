/*
 * Several threads access a chip's registers and lines while its timers run, as vCPUs and the main thread do: nothing
 * may crash or hang. Built with -Db_sanitize=thread this shows what a lock forgot.
 *
 *   thread_chips CHIP
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/bits.h"
#include "env.h"

#define THREADS 3
#define STEPS 10000

static struct env *env;
static _Atomic unsigned left;

static uint64_t rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s * 0x2545f4914f6cdd1dull;
}

static void *run(void *opaque)
{
    const struct env_kind *k = env->kind;
    uint64_t seed = 0x9e3779b97f4a7c15ull * ((uintptr_t)opaque + 1);
    unsigned ranges = 0;
    while (ranges < ARRAY_SIZE(k->range) && k->range[ranges].len)
        ranges++;
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t r = rnd(&seed), val = rnd(&seed);
        const struct env_range *g = &k->range[(r >> 4) % ranges];
        struct bus *bus = g->mmio ? env->mmio : env->pio;
        unsigned size = g->mmio ? 4 : 1;
        uint64_t addr = g->base + ALIGN_DOWN((r >> 16) % g->len, size);
        if ((r & 15) < 6)
            bus_read(bus, addr, size);
        else if ((r & 15) < 13 || !k->inputs)
            bus_write(bus, addr, size, val >> 62 ? val & 0xff : val);
        else
            irq_set(env->input[r >> 32 & 15], r >> 40 & 1);
    }
    atomic_fetch_sub(&left, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t t[THREADS];
    if (argc != 2)
        return 2;
    env = env_new(argv[1]);
    atomic_store(&left, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, run, (void *)i);
    while (atomic_load(&left))
        loop_advance(env->loop, &env->clock, 50000);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    env_reset(env);
    env_free(env);
    return 0;
}
