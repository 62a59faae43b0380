/*
 * A fuzz target: one function that takes any bytes, as libFuzzer wants it. replay.c calls it in the normal build,
 * libFuzzer in a build with -Dfuzz=true. One thread. A target keeps what is slow to make, and leaves it as it was.
 */
#ifndef TESTS_FUZZ_TARGET_H
#define TESTS_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for any input. */
#define MUST(x)                                                                                                        \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The input as a string; the caller frees it. */
static inline char *target_text(const uint8_t *data, size_t size)
{
    char *s = malloc(size + 1);
    MUST(s);
    memcpy(s, data, size);
    s[size] = 0;
    return s;
}

#endif
