/*
 * Saved states of chips: the first byte chooses the chip, the rest is its stream. What was taken can be saved and taken
 * again, and the chip goes on with accesses and time passing.
 */
#include "../device/env.h"
#include "base/bits.h"
#include "target.h"

/* A new one for each input: lines and time would stay as the input before left them. */
static struct env *choose(uint8_t n)
{
    unsigned kinds = 0;
    while (env_kinds[kinds])
        kinds++;
    return env_new(env_kinds[n % kinds]->name);
}

static void use(struct env *env)
{
    uint64_t r = 88172645463325252ull;
    for (unsigned i = 0; i < 24; i++) {
        const struct env_range *g = &env->kind->range[i % ARRAY_SIZE(env->kind->range)];
        r ^= r << 13;
        r ^= r >> 7;
        r ^= r << 17;
        if (g->len) {
            struct bus *bus = g->mmio ? env->mmio : env->pio;
            uint64_t addr = g->base + (r >> 16) % g->len;
            unsigned width = g->mmio ? 4 : 1;
            addr = ALIGN_DOWN(addr, width);
            if (r & 1)
                bus_write(bus, addr, width, r >> 32);
            else
                bus_read(bus, addr, width);
        }
        if (env->kind->inputs)
            irq_set(env->input[r % env->kind->inputs], r >> 8 & 1);
        if (i % 8 == 7)
            loop_advance(env->loop, &env->clock, 1000000);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    struct env *env = choose(data[0]);
    struct err err = {0};
    if (env_load(env, data + 1, size - 1, &err) < 0) {
        MUST(err.code < 0 && err.msg[0]);
    } else {
        struct state_writer w = {0}, w2 = {0};
        env_save(env, &w);
        if (env_load(env, w.data, w.len, &err) < 0) {
            fprintf(stderr, "%s: what was saved is refused: %s\n", env->kind->name, err.msg);
            abort();
        }
        env_save(env, &w2);
        MUST(w.len == w2.len && !memcmp(w.data, w2.data, w.len));
        state_writer_free(&w);
        state_writer_free(&w2);
        use(env);
    }
    env_free(env);
    return 0;
}
