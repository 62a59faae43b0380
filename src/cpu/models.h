/* CPU models and feature names as tables; used by cpuid.c alone. */
#ifndef LODGE_CPU_MODELS_H
#define LODGE_CPU_MODELS_H

#include <stdint.h>

/* The CPUID words that carry features, in the order of struct cpuid_caps. */
enum cpu_word {
    W_1_ECX,
    W_1_EDX,
    W_7_EBX,
    W_7_ECX,
    W_7_EDX,
    W_7_1_EAX,
    W_7_2_EDX,
    W_81_ECX,
    W_81_EDX,
    W_D1_EAX,
    W_87_EDX,
    W_88_EBX,
    W_COUNT,
};

struct cpu_feature {
    const char *name;
    uint8_t word, bit;
};

/* Ends with a NULL name. A bit may have several names. */
extern const struct cpu_feature cpu_features[];

struct cpu_model {
    const char *name;
    const char *parent;   /* the model whose features come first, or NULL */
    const char *features; /* names with a blank between; "-name" takes one away */
    const char *vendor;   /* NULL here and below: the parent's */
    uint16_t family, model, stepping;
    const char *brand;
};

/* Ends with a NULL name; a parent stands before its children. */
extern const struct cpu_model cpu_models[];

/* Shown for "host" and "max" where the engine does not run guest code on the host's CPU. */
extern const struct cpu_model cpu_model_neutral;

/* "host", "max" and the names in cpu_models, NULL-terminated. */
extern const char *const cpu_names[];

#endif
