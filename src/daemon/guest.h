/*
 * A guest as the daemon manages it: its definition (the document on disk), and while it runs, the live document, the
 * lodge-vm process and its monitor. A persistent guest has a definition; a transient one exists only while it runs. All
 * on the daemon's one thread. Nothing here knows of clients: what happens is told through struct guests_owner.
 */
#ifndef LODGE_DAEMON_GUEST_H
#define LODGE_DAEMON_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uthash.h>

#include "daemon/verr.h"
#include "domain/domain.h"

struct loop;
struct clock;
struct qmp;
struct guests;

/* libvirt's virDomainState and the reasons that go with each. */
enum guest_state {
    GUEST_NOSTATE = 0,
    GUEST_RUNNING = 1,
    GUEST_BLOCKED = 2,
    GUEST_PAUSED = 3,
    GUEST_SHUTDOWN = 4, /* being shut down */
    GUEST_SHUTOFF = 5,
    GUEST_CRASHED = 6,
    GUEST_PMSUSPENDED = 7,
};
enum {
    RUNNING_UNKNOWN = 0,
    RUNNING_BOOTED = 1,
    RUNNING_MIGRATED = 2,
    RUNNING_RESTORED = 3,
    RUNNING_FROM_SNAPSHOT = 4,
    RUNNING_UNPAUSED = 5
};
enum {
    PAUSED_UNKNOWN = 0,
    PAUSED_USER = 1,
    PAUSED_SAVE = 3,
    PAUSED_DUMP = 4,
    PAUSED_IOERROR = 5,
    PAUSED_SHUTTING_DOWN = 8,
    PAUSED_STARTING_UP = 11
};
enum {
    SHUTOFF_UNKNOWN = 0,
    SHUTOFF_SHUTDOWN = 1,
    SHUTOFF_DESTROYED = 2,
    SHUTOFF_CRASHED = 3,
    SHUTOFF_MIGRATED = 4,
    SHUTOFF_SAVED = 5,
    SHUTOFF_FAILED = 6,
    SHUTOFF_FROM_SNAPSHOT = 7,
    SHUTOFF_DAEMON = 8,
};

/* libvirt's virDomainEventType; the details are numbers that follow each type. */
enum guest_event {
    EVENT_DEFINED = 0,   /* 0 added, 1 updated, 2 renamed */
    EVENT_UNDEFINED = 1, /* 0 removed, 1 renamed */
    EVENT_STARTED = 2,   /* 0 booted, 1 migrated, 2 restored */
    EVENT_SUSPENDED = 3, /* 0 paused */
    EVENT_RESUMED = 4,   /* 0 unpaused */
    EVENT_STOPPED = 5,   /* 0 shutdown, 1 destroyed, 2 crashed, 4 saved, 5 failed */
    EVENT_SHUTDOWN = 6,  /* 0 finished, 1 on guest request, 2 on host request */
    EVENT_PMSUSPENDED = 7,
    EVENT_CRASHED = 8, /* 0 panicked */
};

/* Called once with what came of an operation; `e` is NULL when it worked. */
typedef void guest_done(void *opaque, const struct rpc_error *e);

/* Somebody who waits for a guest to have started, or ended. */
struct guest_waiter {
    struct guest_waiter *next;
    guest_done *done;
    void *opaque;
};

struct guest {
    struct guests *guests;
    UT_hash_handle by_name, by_uuid, by_id;
    char *name;
    uint8_t uuid[16];
    int id; /* -1: not running */
    bool autostart;
    char *xml; /* the definition, as on disk; NULL: transient */
    enum guest_state state;
    int reason;
    /* From the definition (persistent), for listings. Bytes. */
    uint64_t memory, current_memory;
    unsigned vcpus, vcpus_max;

    /* While it runs. */
    struct domain *live;
    pid_t pid;
    uint64_t pid_start; /* the process's start time, ticks since boot: pids come again, this does not */
    bool child;         /* ours: we wait for it */
    int pidfd;
    struct loop_fd *pid_watch;
    int status_fd; /* the start-up pipe; -1 once it has started */
    struct loop_fd *status_watch;
    char status_line[256];
    unsigned status_len;
    bool start_paused;
    struct guest_waiter *starters, *enders;
    struct qmp *qmp;
    int stop_reason; /* SHUTOFF_*: why we are ending it; 0: we are not */
    bool panicked;
    bool restarting;
    char *incoming;  /* the file to go on from, while it starts */
    uint64_t job_ns; /* host time since when it is being saved; 0: it is not */
    bool reboot;     /* the power button was pressed to start it again */
    bool adopted;
    void *autodestroy;   /* the connection that takes it along */
    uint64_t started_ns; /* host time */
    uint64_t balloon;    /* bytes that the guest has, as last told */
    pid_t *tids;         /* of the vCPUs' threads */
    unsigned n_tids;
    void *console; /* who has the console; see console.c */
};

/* Persistent: has a definition. */
static inline bool guest_persistent(const struct guest *g)
{
    return g->xml != NULL;
}
static inline bool guest_active(const struct guest *g)
{
    return g->id >= 0;
}

struct guests_dirs {
    char *config; /* definitions: NAME.xml, autostart/NAME.xml */
    char *run;    /* of running guests: UUID.xml, .state, .monitor, .end */
    char *log;    /* NAME.log */
    char *state;  /* what outlives a reboot: managed saves */
};

struct guests_owner {
    void *opaque;
    void (*lifecycle)(void *opaque, struct guest *g, enum guest_event event, int detail);
    /* Any event of the guest's monitor, as it came. */
    void (*monitor)(void *opaque, struct guest *g, const char *name, const void *json);
    /* The guest has ended; its live parts are still there. */
    void (*ended)(void *opaque, struct guest *g);
    /* Before it starts, with the live document to be changed: networks become tap devices … -1 with *e. */
    int (*prepare)(void *opaque, struct guest *g, struct domain *live, struct rpc_error *e);
};

struct guests {
    struct loop *loop;
    struct clock *clock;
    struct guests_dirs dirs;
    struct guests_owner owner;
    char *lodge_vm;       /* the program */
    const char *emulator; /* what documents say as <emulator> */
    struct guest *by_name, *by_uuid, *by_id;
    unsigned n, n_active;
    int last_id;
    size_t log_max;    /* bytes of a log before it is rotated */
    unsigned log_keep; /* old logs */
};

/* guests.c: the table. */
struct guest *guests_find_name(const struct guests *t, const char *name);
struct guest *guests_find_uuid(const struct guests *t, const uint8_t *uuid);
struct guest *guests_find_id(const struct guests *t, int id);
/* A new, inactive, transient member. */
struct guest *guests_add(struct guests *t, const char *name, const uint8_t *uuid);
/* Takes it out and frees it. It is not running. */
void guests_remove(struct guest *g);
void guests_set_id(struct guest *g, int id); /* -1: none */
void guest_set_state(struct guest *g, enum guest_state state, int reason);
void uuid_format(const uint8_t *uuid, char *ret_37);
/* The live document while it runs, else the definition; a new struct for the caller. NULL with *e. */
struct domain *guest_config(const struct guest *g, bool inactive, struct rpc_error *e);
/* The document (libvirt's virDomainXMLFlags); the caller frees it. Without XML_SECURE, passwords are left out. */
enum { XML_SECURE = 1, XML_INACTIVE = 2 };
char *guest_xml(const struct guest *g, unsigned flags, struct rpc_error *e);
/* Nanoseconds of CPU time of the process; 0: it does not run. */
uint64_t guest_cpu_time(const struct guest *g);

/* save.c. Documents of saved guests; -1 or NULL with *e. `running` -1: as it was. */
char *guest_managed_save_path(const struct guest *g);
char *save_read_xml(const char *path, bool *ret_running, struct rpc_error *e);
int save_write_xml(const char *path, const char *xml, int running, struct rpc_error *e);
bool guest_has_managed_save(const struct guest *g);
int guest_remove_managed_save(struct guest *g, struct rpc_error *e);

/* store.c: definitions on disk. */
/* Reads all definitions; bad files are logged and left alone. */
int store_load(struct guests *t, struct rpc_error *e);
/* Makes `xml` the definition of `g`, on disk and here; durable when it returns. `d` is what it says. */
int store_save(struct guest *g, const struct domain *d, struct rpc_error *e);
int store_remove(struct guest *g, struct rpc_error *e);
int store_set_autostart(struct guest *g, bool on, struct rpc_error *e);
int store_rename(struct guest *g, const char *name, struct rpc_error *e);
/* A whole file: a temporary one is written, flushed and renamed. -errno; then the old one is as it was. `durable`: on
 * disk. */
int store_write_file(const char *path, const char *text, size_t len, bool durable);
/* The text of a file of at most 8 MiB, or NULL with errno. */
char *store_read_file(const char *path, size_t *ret_len);

/* define.c */
int define_check_name(const char *name, struct rpc_error *e);
/* Parses, fills in defaults, checks what a definition must have. NULL with *e. */
struct domain *define_parse(const struct guests *t, const char *xml, struct rpc_error *e);
/* Defines or redefines. */
struct guest *define(struct guests *t, const char *xml, struct rpc_error *e);
int undefine(struct guest *g, struct rpc_error *e);
/* A new guest that exists while it runs only, for guest_start(); or the defined one of that name and UUID, to be
 * started so. */
struct guest *define_transient(struct guests *t, const char *xml, struct domain **ret_live, struct rpc_error *e);

/* start.c. `live` (taken over) is NULL for a start from the definition. Errors that come at once return -1 and done is
 * not called. */
#define START_PAUSED 1u
#define START_AUTODESTROY 2u
int guest_start(struct guest *g, struct domain *live, unsigned flags, guest_done *done, void *opaque,
                struct rpc_error *e);
/* Starts an ended guest's process again with the same live document: a reboot. 0 or -1. */
int guest_restart(struct guest *g);
/* Of a process, in ticks since boot; 0: there is none. */
uint64_t process_start_time(pid_t pid);
/* Watches a process that is there already. 0, or -1: it is not. */
int guest_adopt(struct guest *g);

/* stop.c */
/* Ends the process. graceful: SIGTERM only, and an error when that has not ended it after 10 s. */
int guest_destroy(struct guest *g, bool graceful, int reason, guest_done *done, void *opaque, struct rpc_error *e);
/* The process has ended: says so to everybody, and drops a transient guest (`g` is gone then). */
void guest_ended(struct guest *g, int wait_status);
/* Waiters of `opaque` are not told any more. */
void guest_forget(struct guest *g, const void *opaque);
void guest_wait_add(struct guest_waiter **list, guest_done *done, void *opaque);
void guest_wait_tell(struct guest_waiter **list, const struct rpc_error *e);

/* monitor.c: what the monitor is asked and tells. */
void guest_monitor_connect(struct guest *g);
/* A command without arguments whose answer does not matter; done may be NULL. */
int guest_command(struct guest *g, const char *command, void *args, guest_done *done, void *opaque,
                  struct rpc_error *e);
int guest_suspend(struct guest *g, guest_done *done, void *opaque, struct rpc_error *e);
int guest_resume(struct guest *g, guest_done *done, void *opaque, struct rpc_error *e);

/* runfiles.c: what a new daemon finds. */
char *run_path(const struct guest *g, const char *suffix);
int run_save(struct guest *g); /* UUID.xml and UUID.state; -errno */
void run_remove(struct guest *g);
/* Takes over what runs and notes what has ended since. */
void run_adopt_all(struct guests *t);

/* save.c: to a file, and the process ends. `xml` (NULL: the live one) is the document to go on with. */
int guest_save(struct guest *g, const char *path, const char *xml, int running, guest_done *done, void *opaque,
               struct rpc_error *e);

/* log.c: one log per guest. */
/* A descriptor for the guest's output; rotates before. -errno. */
int guest_log_open(struct guest *g);
void guest_log(struct guest *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Cuts logs that have grown too large while their guest runs. */
void guest_logs_check(struct guests *t);
/* The end of the log since `from` (bytes), for an error message; the caller frees it. */
char *guest_log_tail(const struct guest *g, off_t from);
off_t guest_log_size(const struct guest *g);

#endif
