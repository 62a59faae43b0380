/*
 * Cold and changing code, made at run time: functions that are called once and never again, pages whose code is
 * replaced over and over, and one function rewritten in place. The writing is part of what is measured, as it is for a
 * program that generates code.
 */
#define _GNU_SOURCE
#include "cpubench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FUNCTION_SIZE 256
#define ARENA_SIZE (64 * FUNCTION_SIZE)

typedef uint64_t function(uint64_t x);

/* Eight blocks of about seven instructions, each ended by a conditional branch that is not taken. */
static void generate(uint8_t *p, uint32_t seed)
{
    uint8_t *start = p;
    memcpy(p, "\x48\x89\xf8", 3); /* mov rax, rdi */
    p += 3;
    for (int k = 0; k < 8; k++) {
        uint32_t v = (seed += 0x9e3779b9u) | 1;
        memcpy(p, "\x48\x05", 2); /* add rax, imm32 */
        memcpy(p + 2, &v, 4);
        memcpy(p + 6, "\x48\xc1\xc0\x05\x48\x8d\x0c\x40\x48\x31\xc8",
               11); /* rol rax, 5; lea rcx, [rax + 2 rax]; xor rax, rcx */
        p += 17;
        memcpy(p, "\x48\x83\xc9\x01\x48\x01\xc8\x74\x00", 9); /* or rcx, 1; add rax, rcx; jz next */
        p += 9;
    }
    *p++ = 0xc3;
    memset(p, 0xcc, (size_t)(start + FUNCTION_SIZE - p));
}

static uint8_t *arena;
static uint32_t seed;

static uint8_t *map(void)
{
    uint8_t *p = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

static bool arena_setup(void)
{
    if (!arena)
        arena = map();
    return true;
}

static uint64_t call(uint8_t *at, uint64_t x)
{
    function *f;
    memcpy(&f, &at, sizeof f);
    return f(x);
}

/* One operation is one function. */
static void once_run(uint64_t n)
{
    while (n) {
        uint8_t *p = map();
        for (size_t at = 0; at < ARENA_SIZE && n; at += FUNCTION_SIZE, n--) {
            generate(p + at, seed++);
            bench_sink += call(p + at, n);
        }
        munmap(p, ARENA_SIZE);
    }
}

static void reuse_run(uint64_t n)
{
    while (n) {
        size_t m = n < ARENA_SIZE / FUNCTION_SIZE ? n : ARENA_SIZE / FUNCTION_SIZE;
        for (size_t k = 0; k < m; k++)
            generate(arena + k * FUNCTION_SIZE, seed++);
        for (size_t k = 0; k < m; k++)
            bench_sink += call(arena + k * FUNCTION_SIZE, k);
        n -= m;
    }
}

static void place_run(uint64_t n)
{
    while (n--) {
        generate(arena, seed++);
        bench_sink += call(arena, n);
    }
}

const struct bench bench_cold[] = {
    {"run-once", "cold", once_run, NULL},
    {"pages-reused", "cold", reuse_run, arena_setup},
    {"in-place", "cold", place_run, arena_setup},
    {0},
};
