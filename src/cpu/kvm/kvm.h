/*
 * The engine on /dev/kvm, inside: kvm.c (VM, memory slots, clock), irq.c (interrupt controllers, irqfd, ioeventfd),
 * vcpu.c (run loop), regs.c (state in and out), probe.c, assist.c (instructions that this KVM cannot emulate).
 */
#ifndef LODGE_CPU_KVM_KVM_H
#define LODGE_CPU_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "cpu/engine.h"

/* Wakes a thread out of KVM_RUN. Its handler does nothing; what is wanted stands in the vCPU. */
#define KVM_KICK_SIGNAL (SIGRTMIN + 2)

#define KVM_GSI_MAX 1024
#define KVM_GSI_PINS 24 /* of the IOAPIC */
#define KVM_MSRS_MAX CPU_MSRS_MAX

struct kvm_assist;

struct kvm_vcpu {
    struct vcpu vcpu; /* first */
    int fd;
    struct kvm_run *run;
    uint32_t apic_id;
    struct kvm_lapic_state lapic_reset;

    /* Kicks: `kicked` first, then run->immediate_exit, then the signal; the loop clears in the other order. */
    _Atomic bool kicked;
    pthread_mutex_t lock; /* thread, running */
    pthread_t thread;
    bool running;

    struct vcpu_debug debug; /* what a debugger wants */
    /* syscall.c: as the guest set them; the base of the IDT that was looked at, and where its gate for page faults leads to, or 0 */
    uint64_t star, lstar, idt_base, pf_handler;
    struct vcpu_hit hit;

    struct kvm_assist *assist; /* made at the first need */
    _Atomic uint64_t assisted; /* instructions that it executed */
    _Atomic uint64_t exits[KVM_EXIT_NOTIFY + 1];
};

/* One MSI that an eventfd stands for. */
struct kvm_msi_fd {
    int fd;
    unsigned gsi;
    uint64_t addr;
    uint32_t data;
};

struct kvm_engine {
    struct engine engine; /* first */
    int dev, vm;
    size_t run_size;
    bool has_sregs2, has_sync_regs, has_any_length_eventfd, has_readonly_mem;
    uint32_t kvm_features; /* leaf 0x40000001 EAX */
    struct cpuid_caps caps;
    struct cpuid_table cpuid; /* built at creation: the options' strings need not live longer */
    struct kvm_vcpu **cpu;

    /* MSRs of the state that this KVM has. Fixed after the first vCPU was made. */
    uint32_t msr[KVM_MSRS_MAX];
    unsigned n_msrs;

    pthread_mutex_t irq_lock; /* msi_fd, n_msi_fds and the routing table */
    struct kvm_msi_fd msi_fd[KVM_GSI_MAX - KVM_GSI_PINS];
    unsigned n_msi_fds;
    struct {
        struct kvm_irqchip chip[3];
        struct kvm_pit_state2 pit;
    } irq_reset;

    pthread_mutex_t slot_lock;
    struct mem_range slot[MEM_RANGES_MAX]; /* as KVM has them; size 0: free */
    bool corrects_syscall; /* syscall.c */
    bool dirty_logging;
    bool clock_stopped;
    struct kvm_clock_data clock;
    uint64_t stopped_tsc;
};

static inline struct kvm_engine *kvm_engine_of(struct engine *e)
{
    return (struct kvm_engine *)e;
}
static inline struct kvm_vcpu *kvm_vcpu_of(struct vcpu *v)
{
    return (struct kvm_vcpu *)v;
}

extern const struct engine_ops kvm_engine_ops;

/* probe.c. Opens /dev/kvm: the descriptor, or -errno with a sentence that says what to do. */
int kvm_open(struct err *err);
void kvm_probe(struct engine_probe *ret);

/* kvm.c */
void kvm_clock_changed(struct engine *e, bool running);

/* cpuid.c */
/* What KVM can do, and the table for this engine's CPU model. */
int kvm_build_cpuid(struct kvm_engine *k, struct err *err);
int kvm_set_cpuid(struct kvm_vcpu *v, struct err *err);

/* irq.c */
int kvm_irq_init(struct kvm_engine *k, struct err *err);
void kvm_irq_line(struct engine *e, unsigned gsi, int level);
void kvm_msi(struct engine *e, uint64_t addr, uint32_t data);
int kvm_msi_bind_fd(struct engine *e, int fd, uint64_t addr, uint32_t data);
void kvm_msi_unbind_fd(struct engine *e, int fd);
int kvm_ioeventfd(struct engine *e, bool pio, uint64_t addr, unsigned size, int fd, bool add);
int kvm_irqchip_reset(struct engine *e, struct err *err);

/* irqchip.c */
int kvm_irqchip_get(struct engine *e, struct irqchip_state *s, struct err *err);
int kvm_irqchip_set(struct engine *e, const struct irqchip_state *s, struct err *err);

/* vcpu.c */
int kvm_vcpu_create(struct engine *e, unsigned index, struct vcpu **ret, struct err *err);
void kvm_vcpu_free(struct kvm_vcpu *v); /* NULL-safe */
enum vcpu_exit kvm_vcpu_run(struct vcpu *v, struct err *err);
void kvm_vcpu_kick(struct vcpu *v);
void kvm_vcpu_signal(struct vcpu *v, enum vcpu_signal what, unsigned arg);

/* regs.c */
enum {
    KVM_PART_CORE = 1,  /* general registers, segments, control registers, pending events */
    KVM_PART_VEC = 2,   /* XSAVE area, XCR0 */
    KVM_PART_MSRS = 4,  /* MSRs but the TSC */
    KVM_PART_DEBUG = 8, /* debug registers */
    KVM_PART_RUN = 16,  /* run state */
    KVM_PART_TSC = 32,
    KVM_PART_ALL = 63,
};
void kvm_find_msrs(struct kvm_vcpu *v);
int kvm_get_parts(struct kvm_vcpu *v, struct cpu_state *s, unsigned parts, struct err *err);
int kvm_set_parts(struct kvm_vcpu *v, const struct cpu_state *s, unsigned parts, struct err *err);
/*
 * KVM_PART_CORE without a system call, by the registers that KVM leaves in the run area at an exit and takes from it at
 * the next entry. Inside vcpu_run, right after an exit. Falls back to kvm_get_parts and kvm_set_parts, the first time
 * too.
 */
int kvm_get_core_at_exit(struct kvm_vcpu *v, struct cpu_state *s, struct err *err);
int kvm_set_core_at_entry(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err);
/* Reads `n` MSRs by their index fields; from the first one that KVM does not know, values stay. */
void kvm_read_msrs(struct kvm_vcpu *v, struct cpu_msr *m, unsigned n);
int kvm_get_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t *ret);
int kvm_set_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t value);

/* debug.c */
int kvm_set_debug(struct vcpu *v, const struct vcpu_debug *d);
void kvm_debug_hit(struct vcpu *v, struct vcpu_hit *ret);
/* After KVM_EXIT_DEBUG: notes what it was. False: nothing that anybody wants. */
bool kvm_debug_exit(struct kvm_vcpu *v);

/* Gives KVM what the debugger wants, and syscall.c. -errno. */
int kvm_apply_debug(struct kvm_vcpu *v);

/* syscall.c. Finds out whether this KVM needs the correction, and asks for what it takes. */
void kvm_syscall_init(struct kvm_engine *k);
/* An MSR of the guest was set. */
void kvm_syscall_msr(struct kvm_vcpu *v, uint32_t msr, uint64_t value);
/* KVM_EXIT_X86_WRMSR. */
void kvm_syscall_wrmsr(struct kvm_vcpu *v);
/* The guest's IDT is there: finds its page fault handler. Right after an exit. */
void kvm_syscall_look(struct kvm_vcpu *v, uint64_t idt_base);
/* `s` stands at the page fault handler with this frame. True: it was a SYSCALL, and `s` is now where that should have led. */
bool kvm_syscall_enter(const struct kvm_vcpu *v, const uint64_t frame[6], struct cpu_state *s);

/* assist.c. Executes the instruction at which KVM stopped. 0: go on; 1: triple fault; -errno. */
int kvm_assist_step(struct kvm_vcpu *v, struct err *err);
/* Reads the guest's linear memory as its kernel, on the vCPU's thread. -EFAULT. */
int kvm_assist_read(struct kvm_vcpu *v, uint64_t lin, void *buf, unsigned size);
void kvm_assist_free(struct kvm_vcpu *v);

#endif
