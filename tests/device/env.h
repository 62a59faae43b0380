/*
 * A machine with no CPU around one chip (or a few wired together): port and memory bus, a clock that moves only when
 * told, interrupt lines that are recorded, a character device that is a buffer. Scripts (run_script.c) and the fuzzer
 * (fuzz_chips.c) drive it.
 */
#ifndef TESTS_DEVICE_ENV_H
#define TESTS_DEVICE_ENV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/loop.h"
#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"
#include "dev/lapic.h"
#include "ui/chardev.h"

#define LINES 32
#define CPUS 4
#define MSI_LOG 16

struct env;

struct test_chardev {
    struct chardev base;
    char out[4096];
    size_t out_len;
    size_t room; /* bytes it still takes; SIZE_MAX: any number */
    char in[4096];
    size_t in_len;
};

struct env_cpu {
    struct env *env;
    struct lapic *lapic;
    struct timer timer;
    unsigned signals[8]; /* by enum lapic_signal */
    unsigned sipi_vector;
};

struct env {
    const struct env_kind *kind;
    struct bus *pio, *mmio;
    struct mem *mem; /* of kinds that have some */
    struct loop *loop;
    struct clock clock;
    struct device *devices; /* reset, saved and freed in this order */
    int level[LINES];       /* outputs of the chip */
    unsigned edges[LINES];  /* rising edges since asked */
    struct irq input[LINES];
    struct test_chardev chr;
    struct {
        uint64_t addr;
        uint32_t data;
    } msi[MSI_LOG];
    unsigned nmsi;
    struct lapic_set *lapics;
    struct env_cpu cpu[CPUS];
    int last_eoi;
    uint64_t events; /* what else the chip reported, by kind */
    void *chip;      /* the kind's own */
};

struct env_range {
    bool mmio;
    uint64_t base, len;
};

/* A chip under test. `op`: words of a script that only this kind knows; false: not known. */
struct env_kind {
    const char *name;
    void (*setup)(struct env *env);
    bool (*op)(struct env *env, int argc, char **argv, uint64_t *ret);
    struct env_range range[4]; /* what the fuzzer accesses */
    unsigned inputs;           /* lines the fuzzer drives */
    /* One random step beyond bus accesses, from the number `r`; returns something to compare. May be NULL. */
    uint64_t (*fuzz)(struct env *env, uint64_t r);
};

extern const struct env_kind *const env_kinds[];

struct env *env_new(const char *kind);
void env_free(struct env *env);
void env_add(struct env *env, struct device *dev);
void env_reset(struct env *env);
struct irq env_output(struct env *env, unsigned n);
struct msi_sink env_msi_sink(struct env *env);
void env_send(struct env *env, const char *text, size_t len);
void env_add_lapics(struct env *env, unsigned n, const struct lapic_set_config *cfg);
/* The cpu/rdmsr/wrmsr words. */
bool env_lapic_op(struct env *env, int argc, char **argv, uint64_t *ret);
uint64_t env_lapic_fuzz(struct env *env, uint64_t r);
void env_save(struct env *env, struct state_writer *w);
int env_load(struct env *env, const void *data, size_t len, struct err *err);

/* Numbers in scripts: decimal, hex, "gp" (all ones). Exits on anything else. */
uint64_t env_number(const char *s);

extern const struct env_kind kind_pic, kind_pit, kind_ioapic, kind_lapic, kind_uart, kind_pc, kind_acpi, kind_isaports;
extern const struct env_kind kind_rtc, kind_hpet, kind_fw_cfg, kind_i8042, kind_vga, kind_pflash, kind_ahci;

#endif
