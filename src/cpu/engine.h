/*
 * The contract of a CPU engine: something that runs the guest's vCPUs. Engines stand in cpu/engines.c. An engine knows no device; it
 * calls out through struct cpu_bus, on the vCPU's own thread.
 *
 * Life: engine create -> vcpu_create for each -> set_state -> one thread per vCPU calls vcpu_run again and again -> destroy.
 * vcpu_run, get_state and set_state of one vCPU are never called at the same time; vcpu_kick and vcpu_signal may be called from
 * any thread at any time between create and destroy.
 */
#ifndef LODGE_CPU_ENGINE_H
#define LODGE_CPU_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "cpu/cpuid.h"
#include "cpu/irqchip.h"
#include "cpu/state.h"
#include "mem/mem.h"

/* How the engine reaches the machine. `cpu` is the index of the vCPU that asks. All calls come on that vCPU's thread. */
struct cpu_bus {
    void *opaque;
    uint64_t (*pio_read)(void *opaque, unsigned cpu, uint16_t port, unsigned size);
    void (*pio_write)(void *opaque, unsigned cpu, uint16_t port, unsigned size, uint64_t val);
    uint64_t (*mmio_read)(void *opaque, unsigned cpu, gpa_t gpa, unsigned size);
    void (*mmio_write)(void *opaque, unsigned cpu, gpa_t gpa, unsigned size, uint64_t val);

    /*
     * The local APIC and 8259 in user space; unused by engines with an in-kernel irqchip. irq_pending: vector class can be
     * delivered now (RFLAGS.IF aside). irq_ack: acknowledges and returns the vector, or -1 when it went away.
     */
    bool (*irq_pending)(void *opaque, unsigned cpu);
    int (*irq_ack)(void *opaque, unsigned cpu);
    uint64_t (*cr8_read)(void *opaque, unsigned cpu);
    void (*cr8_write)(void *opaque, unsigned cpu, uint64_t val);
    /* IA32_APIC_BASE, x2APIC MSRs, IA32_TSC_DEADLINE. -1: #GP. */
    int (*apic_msr_read)(void *opaque, unsigned cpu, uint32_t msr, uint64_t *ret);
    int (*apic_msr_write)(void *opaque, unsigned cpu, uint32_t msr, uint64_t val);
    /* The time armed with vcpu_arm_timer has come. */
    void (*timer_expired)(void *opaque, unsigned cpu);
    /* INIT was taken by the vCPU: its APIC resets as the manual says. */
    void (*init_taken)(void *opaque, unsigned cpu);
};

struct engine;
struct vcpu;

enum vcpu_exit {
    VCPU_EXIT_KICKED,   /* vcpu_kick(): look what is wanted, run again */
    VCPU_EXIT_SHUTDOWN, /* triple fault */
    VCPU_EXIT_ERROR,    /* err says what */
    VCPU_EXIT_DEBUG,    /* something that set_debug asked for; debug_hit says what */
};

/*
 * What a debugger outside of the guest wants of a vCPU. Addresses are linear. Nothing of it shows in the guest: neither its memory nor
 * its debug registers change.
 */
enum { VCPU_WATCH_WRITE = 1, VCPU_WATCH_READ = 2 };
struct vcpu_watch {
    uint64_t addr;
    uint32_t len; /* bytes, at least 1 */
    uint8_t kind; /* VCPU_WATCH_* */
};
#define VCPU_BREAKS_MAX 64
#define VCPU_WATCHES_MAX 8
struct vcpu_debug {
    bool step;          /* one instruction, then stop; interrupts wait, but those that end a HLT */
    unsigned n_breaks;  /* stop before the instruction there */
    unsigned n_watches; /* stop after the instruction that accesses it */
    uint64_t breaks[VCPU_BREAKS_MAX];
    struct vcpu_watch watches[VCPU_WATCHES_MAX];
};
enum vcpu_hit_kind { VCPU_HIT_NONE, VCPU_HIT_STEP, VCPU_HIT_BREAK, VCPU_HIT_WATCH };
struct vcpu_hit {
    enum vcpu_hit_kind kind;
    uint64_t addr; /* of the breakpoint or watchpoint */
};

/* vcpu_signal(): what reaches a CPU from outside (the local APIC's pins and messages). */
enum vcpu_signal {
    VCPU_SIG_INTR, /* irq_pending may have changed: look again, and wake from HLT */
    VCPU_SIG_NMI,
    VCPU_SIG_INIT,
    VCPU_SIG_SIPI, /* arg: vector */
    VCPU_SIG_TIMER_DISARMED,
};

struct engine_config {
    struct mem *mem;
    const struct cpu_bus *bus; /* outlives the engine */
    const struct clock *clock; /* the guest's time */
    struct cpu_model_options cpu;
    unsigned cpus;
    bool no_jit;      /* software engine: interpret everything */
    bool jit_exact;   /* … keep status flags that only a fault would show (jit.h) */
    uint16_t jit_hot; /* … translate what ran so often; 0: as it sees fit */
    uint64_t chaos;   /* … change between interpreter and translator at random, seeded by this; 0: do not */
    bool perf_map;    /* … tell perf where translated guest code is, in /tmp/perf-PID.map */
};

struct engine_probe {
    bool usable;
    double mips;    /* measured speed of ordinary guest code, 0 when not measured */
    char why[200];  /* for a person: "/dev/kvm runs guest code at hardware speed", "/dev/kvm: permission denied (add …)" */
};

struct engine_ops {
    const char *name;
    const char *summary;
    bool kernel_irqchip; /* PIC, IOAPIC, LAPIC, PIT are the engine's: use irq_line and msi; the machine makes none */

    /* Can it run here, and how fast? Well under 20 ms. */
    void (*probe)(struct engine_probe *ret);
    int (*create)(const struct engine_config *cfg, struct engine **ret, struct err *err);
    void (*destroy)(struct engine *e); /* NULL-safe; all vCPU threads are gone */

    int (*vcpu_create)(struct engine *e, unsigned index, struct vcpu **ret, struct err *err);
    /* On the vCPU's thread; runs guest code and everything the bus does, until there is a reason to return. */
    enum vcpu_exit (*vcpu_run)(struct vcpu *v, struct err *err);
    void (*vcpu_kick)(struct vcpu *v);
    void (*vcpu_signal)(struct vcpu *v, enum vcpu_signal what, unsigned arg);
    /* The APIC timer: call bus->timer_expired at guest time `ns` (0: never). From the vCPU's thread or while it does not run. */
    void (*vcpu_arm_timer)(struct vcpu *v, uint64_t ns);
    /* Guest TSC now; ticks per second are engine->tsc_khz. */
    uint64_t (*vcpu_tsc)(struct vcpu *v);
    int (*get_state)(struct vcpu *v, struct cpu_state *s, struct err *err);
    int (*set_state)(struct vcpu *v, const struct cpu_state *s, struct err *err);
    /* The guest's clock was stopped or started: keep the TSC in step. No vCPU runs. */
    void (*clock_changed)(struct engine *e, bool running);

    /* kernel_irqchip engines only; NULL otherwise. */
    void (*irq_line)(struct engine *e, unsigned gsi, int level);
    void (*msi)(struct engine *e, uint64_t addr, uint32_t data);
    int (*msi_bind_fd)(struct engine *e, int fd, uint64_t addr, uint32_t data);
    void (*msi_unbind_fd)(struct engine *e, int fd);
    /* ioeventfd in the kernel: `size` 0 any. -ENOTSUP: the bus does it. */
    int (*ioeventfd)(struct engine *e, bool pio, uint64_t addr, unsigned size, int fd, bool add);
    /* Collects pages written by the guest since the last call into mem's dirty flags. NULL: the engine marks them itself. */
    int (*dirty_sync)(struct engine *e, struct err *err);
    /* Text for `info ENGINE` in the monitor; NULL: nothing to say. */
    void (*info)(struct engine *e, char *buf, size_t size);
    /*
     * The state of the engine's own interrupt controllers, for save and restore; NULL where the machine has them. `s->cpus` and
     * `s->lapic` are the caller's. Set: after the CPU states. No vCPU runs.
     */
    int (*irqchip_get)(struct engine *e, struct irqchip_state *s, struct err *err);
    int (*irqchip_set)(struct engine *e, const struct irqchip_state *s, struct err *err);
    /* The engine's irqchip as after power-on. At every machine reset, before set_state of the vCPUs. No vCPU runs. */
    int (*irqchip_reset)(struct engine *e, struct err *err);
    /*
     * For debuggers; NULL: not there. set_debug lasts until the next one (NULL: nothing is wanted), while the vCPU does not run; `d` is
     * copied. -ENOSPC: more than this engine can watch. debug_hit: why vcpu_run said VCPU_EXIT_DEBUG.
     */
    int (*set_debug)(struct vcpu *v, const struct vcpu_debug *d);
    void (*debug_hit)(struct vcpu *v, struct vcpu_hit *ret);
};

/* First members of every engine's and vCPU's own struct. */
struct engine {
    const struct engine_ops *ops;
    struct engine_config cfg;
    uint32_t tsc_khz;
};
struct vcpu {
    struct engine *engine;
    unsigned index;
};

/* All engines, NULL-terminated, in the order of preference for "auto". */
extern const struct engine_ops *const engines[];

/*
 * The engine called `name`, or for "auto"/NULL the best by probe. `why` gets a sentence for the user. -ENOENT, -ENODEV.
 */
int engine_choose(const char *name, const struct engine_ops **ret, char why[200], struct err *err);

#endif
