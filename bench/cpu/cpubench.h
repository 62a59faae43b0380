/* The guest programs of bench/cpu.py: one static binary, one function for each measured thing. */
#ifndef LODGE_BENCH_CPUBENCH_H
#define LODGE_BENCH_CPUBENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One measured thing. run() does `n` operations; `setup`, when there is one, is called once before and not timed, and
 * says whether this machine can do it at all.
 */
struct bench {
    const char *name, *class;
    void (*run)(uint64_t n);
    bool (*setup)(void);
};

/* Each file's things, ended by one without a name. */
extern const struct bench bench_integer[], bench_calls[], bench_fp[], bench_crypto[], bench_memory[], bench_kernel[],
    bench_cold[], bench_pair[];

/* Where results go, so that the compiler must compute them. */
extern volatile uint64_t bench_sink;
extern volatile double bench_sink_fp;

/* Runs the calling thread on one CPU; returns whether there is such a CPU. */
bool bench_pin(unsigned cpu);
/* The program's own path, for exec. */
extern const char *bench_self;

static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

#endif
