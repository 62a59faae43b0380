/*
 * Random accesses to a chip, from a fixed seed: nothing may crash (ASan and UBSan builds run this too), and a chip
 * restored from a saved state in the middle must behave like the one that went on: both get the same accesses and must
 * answer the same.
 *
 *   fuzz_chips CHIP [STEPS [SEED]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "env.h"

static uint64_t rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s * 0x2545f4914f6cdd1dull;
}

/* One step on one machine; the same numbers always mean the same step. */
static uint64_t act(struct env *env, uint64_t r, uint64_t val)
{
    const struct env_kind *k = env->kind;
    unsigned ranges = 0;
    while (ranges < ARRAY_SIZE(k->range) && k->range[ranges].len)
        ranges++;
    unsigned what = r & 15;
    r >>= 4;
    if (what < 10 && ranges) {
        const struct env_range *g = &k->range[r % ranges];
        unsigned size = 1u << (r >> 8 & 3);
        uint64_t addr = g->base + (r >> 16) % g->len;
        struct bus *bus = g->mmio ? env->mmio : env->pio;
        if (r >> 12 & 3) { /* mostly what a driver would do */
            addr = ALIGN_DOWN(addr, g->mmio ? 4 : 1);
            size = g->mmio ? 4 : 1;
        }
        if (what < 4)
            return bus_read(bus, addr, size);
        bus_write(bus, addr, size, val);
        return 0;
    }
    if (what < 12 && k->inputs) {
        irq_set(env->input[r % k->inputs], r >> 8 & 1);
        return 0;
    }
    if (what == 12) {
        static const uint64_t times[] = {1, 100, 838, 5000, 60000, 1000000, 27000000, 1200000000};
        loop_advance(env->loop, &env->clock, times[r % ARRAY_SIZE(times)]);
        return 0;
    }
    return k->fuzz ? k->fuzz(env, r) : 0;
}

static void check_same(struct env *a, struct env *b, uint64_t step)
{
    for (unsigned i = 0; i < LINES; i++) {
        if (a->level[i] != b->level[i]) {
            fprintf(stderr, "%s: after step %" PRIu64 " output %u is %d, and %d after restoring\n", a->kind->name, step,
                    i, a->level[i], b->level[i]);
            exit(1);
        }
    }
}

static struct env *twin(struct env *a)
{
    struct env *b = env_new(a->kind->name);
    struct state_writer w = {0}, w2 = {0};
    struct err err;
    uint64_t now = clock_now(&a->clock);
    clock_advance(&b->clock, now);
    b->chr.room = a->chr.room;
    memcpy(b->chr.out, a->chr.out, sizeof b->chr.out);
    b->chr.out_len = a->chr.out_len;
    memcpy(b->chr.in, a->chr.in, sizeof b->chr.in);
    b->chr.in_len = a->chr.in_len;
    env_save(a, &w);
    if (env_load(b, w.data, w.len, &err) < 0) {
        fprintf(stderr, "%s: what was saved cannot be loaded: %s\n", a->kind->name, err.msg);
        exit(1);
    }
    env_save(b, &w2);
    if (w.len != w2.len || memcmp(w.data, w2.data, w.len)) {
        size_t i = 0;
        while (i < w.len && w.data[i] == w2.data[i])
            i++;
        fprintf(stderr, "%s: saving what was loaded gives something else at byte %zu of %zu: %02x, was %02x\n",
                a->kind->name, i, w.len, w2.data[i], w.data[i]);
        exit(1);
    }
    /* Hostile streams: flipped bytes may be refused or taken, and must do no harm. */
    struct env *victim = env_new(a->kind->name);
    for (unsigned i = 0; i < 40; i++) {
        size_t at = (i * 2654435761u + now) % w.len;
        w.data[at] ^= 0xff;
        if (env_load(victim, w.data, w.len, NULL) < 0)
            env_reset(victim);
        for (unsigned j = 0; j < 16; j++)
            act(victim, ((uint64_t)i * 7919 + j) * 0x9e3779b97f4a7c15ull, now + j);
        w.data[at] ^= 0xff;
        env_reset(victim);
    }
    env_free(victim);
    state_writer_free(&w);
    state_writer_free(&w2);
    return b;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    uint64_t steps = argc > 2 ? strtoull(argv[2], NULL, 0) : 40000;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 0x10d6e;
    struct env *a = env_new(argv[1]), *b = NULL;
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t r = rnd(&seed), val = rnd(&seed);
        if (val >> 62)
            val &= 0xff;
        if (i % 1000 == 500) {
            env_free(b);
            b = twin(a);
        }
        if (i % 5000 == 4999) {
            env_reset(a);
            env_free(b);
            b = NULL;
        }
        uint64_t x = act(a, r, val);
        if (!b)
            continue;
        uint64_t y = act(b, r, val);
        if (x != y) {
            fprintf(stderr,
                    "%s: step %" PRIu64 " (0x%" PRIx64 ") gives 0x%" PRIx64 ", and 0x%" PRIx64 " after restoring\n",
                    argv[1], i, r, x, y);
            return 1;
        }
        check_same(a, b, i);
    }
    env_free(a);
    env_free(b);
    return 0;
}
