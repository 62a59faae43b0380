/*
 * One virtual machine: a board with its engine, memory, devices and vCPU threads, made from a domain. Nothing here is
 * global: two of them live in one process.
 *
 * All functions are for the thread of the loop given to vm_new(), unless they say otherwise.
 *
 *   prelaunch --vm_cont--> running <--vm_stop/vm_cont--> paused
 *   running --the guest powers off, panics, breaks down--> shutdown | guest-panicked | internal-error
 */
#ifndef LODGE_MACHINE_VM_H
#define LODGE_MACHINE_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "cpu/engine.h"
#include "cpu/state.h"
#include "domain/domain.h"

enum vm_status { VM_PRELAUNCH, VM_RUNNING, VM_PAUSED, VM_SHUTDOWN, VM_PANICKED, VM_ERROR };
const char *vm_status_name(enum vm_status s); /* QMP's RunState: "running", "guest-panicked", … */

/* How the guest ended. */
enum vm_end {
    VM_END_NONE,
    VM_END_POWEROFF,
    VM_END_RESET,
    VM_END_PANIC,
    VM_END_TRIPLE_FAULT,
    VM_END_ERROR,
    VM_END_QUIT,
    VM_END_DEBUG_EXIT
};

enum vm_event {
    VM_EVENT_STOP,
    VM_EVENT_RESUME,
    VM_EVENT_RESET,
    VM_EVENT_POWERDOWN,
    VM_EVENT_SHUTDOWN,
    VM_EVENT_PANICKED
};

struct vm;

/* What the owner is told, on the loop's thread. */
struct vm_owner {
    void *opaque;
    /* `guest`: it was the guest's doing. */
    void (*event)(void *opaque, enum vm_event event, bool guest);
    /* The machine has ended and stays as it is; the owner usually quits. */
    void (*ended)(void *opaque, enum vm_end end, const char *why);
    /* A vCPU has met what vm_debug_resume() was told to look for; the machine is paused. NULL: nobody debugs. */
    void (*debug)(void *opaque, unsigned cpu, const struct vcpu_hit *hit);
    /* The guest has opened or closed a drive's tray. NULL: nobody wants to know. */
    void (*tray)(void *opaque, const char *target, bool open);
};

/*
 * Builds the machine, stopped, with the guest's kernel in memory. `d` (with defaults, checked) outlives it. `owner` is
 * copied. A terminal's escape key ends it with VM_END_QUIT.
 */
int vm_new(const struct domain *d, struct loop *loop, const struct vm_owner *owner, struct vm **ret, struct err *err);
/* Stops the vCPUs and frees everything; NULL-safe. */
void vm_free(struct vm *vm);

int vm_cont(struct vm *vm, struct err *err);
int vm_stop(struct vm *vm, struct err *err);
/* Presses the power button. */
void vm_powerdown(struct vm *vm);
void vm_reset(struct vm *vm);

enum vm_status vm_status(const struct vm *vm);
/* VM_END_DEBUG_EXIT: the status that the guest asked for. */
int vm_exit_status(const struct vm *vm);
/* Which engine, and why. */
const char *vm_engine_name(const struct vm *vm);
const char *vm_engine_why(const struct vm *vm);

/* Linux thread id of a vCPU (0 before it runs). */
int vm_vcpu_tid(const struct vm *vm, unsigned cpu);
/* The vCPU's state, stopping it for a moment if it runs. */
int vm_vcpu_state(struct vm *vm, unsigned cpu, struct cpu_state *s, struct err *err);
/* The open images, in the order of the domain's disks. */
struct blk_count;
struct vm_disk {
    const struct domain_disk *disk;
    const char *format;
    uint64_t size; /* bytes */
    bool read_only;
    const struct blk_count *count; /* by enum blk_op; NULL: an empty drive */
};
unsigned vm_disks(const struct vm *vm, struct vm_disk *ret, unsigned max);
/* Changes the size (bytes) of a disk, named by its target ("vda"), also while the guest runs. */
int vm_disk_resize(struct vm *vm, const char *target, uint64_t size, struct err *err);
/* The pseudo terminals that serial ports and consoles lead to, in the order they were made. */
unsigned vm_ptys(const struct vm *vm, const char **ret_names, unsigned max);
/* Reads guest physical memory. -EFAULT. */
int vm_read_phys(struct vm *vm, uint64_t gpa, void *buf, size_t len);
int vm_write_phys(struct vm *vm, uint64_t gpa, const void *buf, size_t len);
/* While the machine is stopped. */
int vm_vcpu_set_state(struct vm *vm, unsigned cpu, const struct cpu_state *s, struct err *err);
/*
 * What a debugger waits for on every vCPU (cpu/engine.h; `step` is not looked at), while the machine is stopped. NULL:
 * nothing more. -ENOTSUP: the engine cannot; -ENOSPC: so many it cannot watch, and what was set before stays.
 */
int vm_debug_set(struct vm *vm, const struct vcpu_debug *d);
/* vm_cont() for a debugger: how[cpu] says what each vCPU does until the machine is stopped again. */
enum vm_debug_how { VM_DEBUG_RUN, VM_DEBUG_STEP, VM_DEBUG_HOLD };
int vm_debug_resume(struct vm *vm, const enum vm_debug_how *how, struct err *err);
/* Writes a picture of the screen. -ENODEV. */
int vm_screendump(struct vm *vm, const char *path, bool ppm, struct err *err);
/* Another medium in a CD drive; `path` NULL: none. -EBUSY where the guest has locked it and `force` is not given, -ENODEV. */
int vm_change_medium(struct vm *vm, const char *target, const char *path, bool force, struct err *err);
/* Keys and pointer. */
struct ui_input *vm_input(struct vm *vm);
/* NULL: no screen. */
struct ui_display *vm_display(struct vm *vm);
/* Texts for people; the caller frees them. */
char *vm_info_pci(struct vm *vm);
char *vm_info_engine(struct vm *vm);

/*
 * Writes the stopped machine to `fd`, as a stream that a machine of the same domain can go on from, on any engine. -ENOTSUP: it has
 * what cannot be saved.
 */
int vm_save(struct vm *vm, int fd, struct err *err);
/* A machine that has not run yet becomes the saved one. After a failure it can only be freed. */
int vm_load(struct vm *vm, int fd, struct err *err);

/* The balloon: wanted and actual size in bytes. -ENODEV where there is none. */
int vm_balloon_set(struct vm *vm, uint64_t bytes, struct err *err);
int vm_balloon_get(struct vm *vm, uint64_t *ret_actual, struct err *err);

#endif
