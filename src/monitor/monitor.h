/*
 * The monitor: a server of QMP's JSON dialect on a UNIX socket, for several clients at once. It runs on the main loop
 * and knows the machine only through struct monitor_vm. Commands are listed in commands.def; clients are hostile: what
 * they send and what they leave unread is bounded.
 */
#ifndef LODGE_MONITOR_MONITOR_H
#define LODGE_MONITOR_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct loop;
struct monitor;

/* QMP's RunState, as far as we have them. */
enum monitor_status {
    MONITOR_PRELAUNCH, /* made, not started yet */
    MONITOR_RUNNING,
    MONITOR_PAUSED,
    MONITOR_SHUTDOWN, /* the guest has powered off */
    MONITOR_PANICKED,
    MONITOR_IO_ERROR,
    MONITOR_INTERNAL_ERROR,
};

struct monitor_cpu {
    unsigned index;
    pid_t thread_id;
    bool halted;
};

struct monitor_disk {
    char device[40]; /* "vda" */
    char qdev[80];   /* path of the device: "/machine/vda" */
    char file[1024];
    char format[16];
    bool readonly, removable, io_error;
    bool writethrough, direct, no_flush; /* cache mode */
    uint64_t size;                       /* bytes */
    uint64_t rd_ops, rd_bytes, wr_ops, wr_bytes, flush_ops, unmap_ops, unmap_bytes; /* since it was opened */
};

/* The registers that say how a vCPU translates addresses. */
struct monitor_paging {
    uint64_t cr0, cr3, cr4, efer;
};

/*
 * What the machine offers; called on the main loop's thread. Every member must be there, except balloon_* (NULL: the
 * guest has no balloon) and those of screen and input. Functions that can fail return 0 or -errno with a message;
 * strings that are returned belong to the caller.
 */
struct monitor_vm_ops {
    enum monitor_status (*status)(void *opaque);
    const char *(*engine)(void *opaque); /* "kvm", "soft" */
    int (*stop)(void *opaque, struct err *err);
    int (*cont)(void *opaque, struct err *err);
    int (*powerdown)(void *opaque, struct err *err); /* presses the power button */
    int (*reset)(void *opaque, struct err *err);
    void (*quit)(void *opaque); /* the process ends once this call is over and the reply is out */
    unsigned (*cpus)(void *opaque, struct monitor_cpu *ret_cpus, unsigned max);
    unsigned (*disks)(void *opaque, struct monitor_disk *ret_disks, unsigned max);
    int (*disk_resize)(void *opaque, const char *device, uint64_t bytes, struct err *err);
    int (*balloon_set)(void *opaque, uint64_t bytes, struct err *err); /* memory the guest shall have */
    int (*balloon_get)(void *opaque, uint64_t *ret_bytes, struct err *err);
    char *(*registers)(void *opaque, unsigned cpu, struct err *err); /* text; NULL: error */
    int (*paging)(void *opaque, unsigned cpu, struct monitor_paging *ret, struct err *err);
    int (*read_phys)(void *opaque, uint64_t gpa, void *buf, size_t len); /* 0 or -EFAULT */
    char *(*pci)(void *opaque);                                          /* text */
    /* Another medium in a CD drive, or none (path NULL). NULL: there are none. */
    int (*change_medium)(void *opaque, const char *device, const char *path, bool force, struct err *err);
    /* Screen and input; NULL: there is none. */
    int (*screendump)(void *opaque, const char *path, bool ppm, struct err *err);
    int (*key)(void *opaque, const char *name, int number, bool down, struct err *err); /* name NULL: QEMU's number */
    void (*move)(void *opaque, int dx, int dy, int wheel, unsigned buttons);
    void (*place)(void *opaque, unsigned x, unsigned y, int wheel, unsigned buttons);
    char *(*engine_info)(void *opaque); /* text; NULL: its name is all there is */
    /* Stops the machine and writes it to a file, from which --incoming goes on. NULL: it cannot be saved. */
    int (*save)(void *opaque, const char *path, struct err *err);
};

struct monitor_vm {
    const struct monitor_vm_ops *ops;
    void *opaque;
    const char *name;  /* of the guest */
    const char *uuid;  /* "…-…", may be NULL */
    uint64_t ram_size; /* bytes */
};

/* Listens at `path`. `vm` is copied. */
int monitor_new(struct loop *loop, const char *path, const struct monitor_vm *vm, struct monitor **ret,
                struct err *err);
/* NULL-safe. What clients have not read is tried once more; then they are gone, and the socket's file too. */
void monitor_free(struct monitor *m);

/*
 * Tells every client that something happened: "STOP", "SHUTDOWN" … `data` is a JSON object as text, or NULL. On the
 * loop's thread; `m` may be NULL.
 */
void monitor_event(struct monitor *m, const char *name, const char *data);

#endif
