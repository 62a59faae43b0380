/*
 * The inside of struct vm, for the files of src/machine only: vm.c (life cycle), vcpus.c (threads), cpubus.c (how
 * engines reach devices), attach.c (a domain's devices), boards.c and board_*.c (what a board is made of).
 */
#ifndef LODGE_MACHINE_MACHINE_H
#define LODGE_MACHINE_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "block/block.h"
#include "cpu/engine.h"
#include "dev/bus.h"
#include "dev/device.h"
#include "dev/irq.h"
#include "dev/irqwire.h"
#include "dev/lapic.h"
#include "dev/pci.h"
#include "machine/acpi.h"
#include "machine/loader.h"
#include "machine/vm.h"
#include "mem/mem.h"
#include "ui/chardev.h"
#include "ui/display.h"
#include "ui/input.h"

/* Where things are in the guest's physical space, on both boards. */
#define ECAM_BASE 0xb0000000ull
#define ECAM_BUSES 16
#define PCI_MEM_BASE 0xc0000000ull
#define PCI_MEM_END 0xfebff000ull
#define VIRTIO_MMIO_BASE 0xfeb00000ull
#define VIRTIO_MMIO_STRIDE 0x1000ull
#define VIRTIO_MMIO_SLOTS 17
#define HPET_BASE_ADDR 0xfed00000ull
#define RAM_LOW_MAX 0x80000000ull
#define RAM_LOW_ALL 0xb0000000ull /* up to here all RAM stays below 4 GiB */

#define GSI_COUNT 24

struct vcpu_thread {
    struct vm *vm;
    unsigned index;
    struct vcpu *vcpu;
    struct lapic *lapic; /* NULL with an in-kernel irqchip */
    pthread_t thread;
    bool started;
    _Atomic int tid;
    bool parked;         /* vm->cpu_lock */
    bool debug_held;     /* cpu_lock; a debugger keeps this one while others run */
    struct vcpu_hit hit; /* cpu_lock; not reported yet */
};

struct board {
    const char *name;
    const char *summary;
    /* Makes and maps the board's devices; the buses, memory, clock and engine are there. */
    int (*build)(struct vm *vm, struct err *err);
    /* What the loader's tables say about this board. */
    void (*describe)(struct vm *vm, struct acpi_config *acpi);
    void (*power_button)(struct vm *vm);
    bool pci; /* virtio devices are PCI functions; else virtio-mmio */
};
extern const struct board *const boards[];

/* Something that firmware can boot from. */
enum boot_kind { BOOT_DISK, BOOT_CDROM, BOOT_NETWORK, BOOT_FLOPPY };
struct boot_entry {
    enum boot_kind kind;
    unsigned order; /* <boot order>, 0: none */
    char *path;     /* owned */
};

struct io_thread {
    struct loop *loop;
    pthread_t thread;
};

struct vm {
    const struct domain *domain;
    const struct board *board;
    struct loop *loop;
    struct vm_owner owner;
    struct clock clock;

    struct mem *mem;
    struct bus *pio, *mmio;
    struct device *devices, **devices_tail; /* in order of creation */
    const struct engine_ops *ops;
    struct engine *engine;
    char **cpu_features; /* "+avx2" …, NULL-terminated */
    char engine_why[200];
    bool slow; /* a guest instruction costs many of the host's */
    struct cpu_bus cpu_bus;

    /* Interrupt controllers in user space; NULL with an in-kernel irqchip. */
    struct lapic_set *lapics;
    struct pic *pic;
    struct pit *pit;
    struct ioapic *ioapic;
    struct msi_sink msi;

    struct pci_bus *pci;
    struct pirq *pirq; /* q35 */
    struct acpi_pm *pm; /* q35 */
    struct ged *ged;    /* micro */
    bool has_hpet;      /* q35 */
    struct irq_split inhibit_legacy;
    unsigned uarts;            /* bit n: COM n+1 is there */
    struct fw_cfg *fw_cfg;     /* q35 */
    struct rtc *rtc;           /* q35 */
    pthread_mutex_t host_lock; /* q35: what follows from the host bridge's registers, and: */
    uint64_t ecam;             /* where ECAM is mapped, 0: nowhere */
    unsigned ecam_buses;
    struct firmware *firmware; /* NULL: we load the kernel */
    bool has_display;
    struct ui_display *display; /* NULL: no screen */
    struct ui_input input;
    struct boot_entry *boot;
    unsigned n_boot;
    struct virtio_dev *balloon;
    unsigned mmio_slots; /* virtio-mmio transports made so far */

    struct chardev **chardevs;
    unsigned n_chardevs;
    struct blk **blks; /* by the number of the domain's disk; NULL: no medium */
    unsigned n_blks;
    struct pci_dev *sata; /* NULL: no SATA disks */
    const struct domain_disk *sata_disk[6];
    struct io_thread *io;
    unsigned n_io;

    /* vCPU threads. `hold`: the vCPUs must stay out of the engine; any thread may set it. */
    struct vcpu_thread *cpu;
    unsigned n_cpus;
    pthread_mutex_t cpu_lock;
    pthread_cond_t cpu_parked, cpu_go;
    _Atomic bool hold;
    bool quit; /* cpu_lock */

    enum vm_status status;
    enum vm_end end;
    _Atomic int exit_status; /* of the debug-exit port */
    /* What a vCPU thread wants of the main thread: bits of 1 << enum vm_want. */
    _Atomic unsigned wants;
    struct err vcpu_err;
    struct vcpu_debug debug; /* what vm_debug_set() asked for; empty: nothing */
    bool debugged;           /* the vCPUs were given something of it */
};

enum vm_want {
    WANT_RESET,
    WANT_POWEROFF,
    WANT_PANIC,
    WANT_TRIPLE_FAULT,
    WANT_ERROR,
    WANT_DEBUG_EXIT,
    WANT_DEBUGGER,
    WANT_COLLECT
};

/* vm.c. Asks the main thread for a change; any thread. The vCPU that asks is stopped before its next instruction, or
 * soon. */
void vm_want(struct vm *vm, enum vm_want want);
void vm_add_device(struct vm *vm, struct device *dev);
/* Interrupt line `gsi`, on whatever controllers the machine has. */
struct irq vm_gsi(struct vm *vm, unsigned gsi);

/* vcpus.c */
int vcpus_new(struct vm *vm, struct err *err);
int vcpus_start(struct vm *vm, struct err *err); /* threads, held */
void vcpus_hold(struct vm *vm);                  /* returns when none is in the engine */
void vcpus_release(struct vm *vm);
void vcpus_free(struct vm *vm);

/* cpubus.c */
void cpubus_init(struct vm *vm);

/* attach.c */
int attach_all(struct vm *vm, struct err *err);
int attach_chardev(struct vm *vm, const struct domain_chardev *c, struct chardev **ret, struct err *err);
/* Interrupt line of a virtio-mmio device. */
unsigned attach_mmio_gsi(unsigned slot);
void attach_free(struct vm *vm);
int attach_open(const struct domain_disk *k, struct blk **ret, struct err *err);
void attach_note_blk(struct vm *vm, struct blk *blk, const struct domain_disk *k);
/* sata.c */
int sata_attach(struct vm *vm, struct err *err);

/* bootorder.c. Takes `path`. */
void boot_entry_add(struct vm *vm, enum boot_kind kind, unsigned order, char *path);

/* display.c */
struct i8042;
uint64_t display_memory(const struct domain *d); /* of the display device, bytes; 0: there is none */
int display_build(struct vm *vm, struct err *err);
void display_add_ps2(struct vm *vm, struct i8042 *kbd);

/* debug.c: a vCPU has met what the debugger waits for; the machine stops. */
void debug_report(struct vm *vm);
/* On the vCPU's thread, with cpu_lock, after VCPU_EXIT_DEBUG. */
void debug_note(struct vcpu_thread *t);

/* boot.c: puts the kernel into memory and the CPUs to their entry state. At start and after every reset. */
int boot_load(struct vm *vm, struct err *err);

#endif
