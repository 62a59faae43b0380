/* Memory latency: following a chain of pointers in random order through 16 KiB, 1 MiB and 64 MiB. */
#include "cpubench.h"

#include <stdlib.h>

static void **chain[3];

static bool make(unsigned which, size_t bytes)
{
    size_t lines = bytes / 64;
    if (chain[which])
        return true;
    char *base = aligned_alloc(4096, bytes);
    uint32_t *order = malloc(lines * sizeof *order);
    uint64_t seed = 777767777ull;
    for (size_t i = 0; i < lines; i++)
        order[i] = (uint32_t)i;
    for (size_t i = lines - 1; i > 0; i--) {
        size_t j = bench_random(&seed) % (i + 1);
        uint32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (size_t i = 0; i < lines; i++)
        *(void **)(base + 64 * (size_t)order[i]) = base + 64 * (size_t)order[(i + 1) % lines];
    free(order);
    chain[which] = (void **)base;
    return true;
}

static void follow(unsigned which, uint64_t n)
{
    void **p = chain[which];
    while (n--)
        p = *p;
    chain[which] = p;
}

static bool setup_16k(void)
{
    return make(0, 16 << 10);
}
static bool setup_1m(void)
{
    return make(1, 1 << 20);
}
static bool setup_64m(void)
{
    return make(2, 64 << 20);
}
static void run_16k(uint64_t n)
{
    follow(0, n);
}
static void run_1m(uint64_t n)
{
    follow(1, n);
}
static void run_64m(uint64_t n)
{
    follow(2, n);
}

const struct bench bench_memory[] = {
    {"chase-16k", "memory", run_16k, setup_16k},
    {"chase-1m", "memory", run_1m, setup_1m},
    {"chase-64m", "memory", run_64m, setup_64m},
    {0},
};
