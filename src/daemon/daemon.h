/*
 * The daemon: guests, networks and storage, served to libvirt's clients. One thread. The drivers (drv_*.c) hold the
 * procedures; dispatch.c lists the drivers; this struct is what they share.
 */
#ifndef LODGE_DAEMON_DAEMON_H
#define LODGE_DAEMON_DAEMON_H

#include "base/clock.h"
#include "base/loop.h"
#include "daemon/guest.h"
#include "rpc/server.h"

struct pools;
struct session;
struct routes;

enum daemon_auth { DAEMON_AUTH_NONE, DAEMON_AUTH_POLKIT };

/* What lodged was told; see docs/man/lodged.8. Strings are owned. */
struct daemon_config {
    bool session; /* of one user, not the system's */
    char *config_dir, *state_dir, *run_dir, *log_dir;
    char *socket, *socket_ro; /* paths */
    char *group;              /* of the sockets; NULL: as it comes */
    unsigned mode, mode_ro;   /* of the sockets */
    enum daemon_auth auth;
    char *lodge_vm; /* program; NULL: beside us */
    unsigned max_clients, max_calls, keepalive_interval, keepalive_count;
    unsigned log_max_kib, log_keep;
    unsigned idle_timeout; /* s without clients and guests after which the daemon ends; 0: never */
};

#define DAEMON_SOCKETS_MAX 2

struct daemon {
    struct loop *loop;
    struct clock clock;
    struct daemon_config config;
    struct guests guests;
    struct pools *pools;
    struct rpc_server *server;
    int sockets[DAEMON_SOCKETS_MAX];
    unsigned n_sockets;
    bool own_sockets; /* their files are ours to remove */
    struct timer minute;
    uint64_t idle_since;
    unsigned works;            /* threads at work; work.h */
    unsigned long long serial; /* of files that are needed for a moment */
    char *emulator;            /* the path of lodge-vm */
    struct routes *routes;     /* dispatch.c */
    void *networks;            /* the network driver's own */
    char *caps;                /* the capabilities document, made once */
};

/* A driver: procedures of one program, and which part of the stack its errors come from. */
struct handler {
    int procedure;
    /* RPC_DONE, RPC_FAILED or RPC_LATER. call->error.domain is set. */
    int (*fn)(struct daemon *d, struct rpc_call *call);
};
struct driver {
    const char *name;
    uint32_t program;
    int error_domain;               /* enum vir_domain */
    const struct handler *handlers; /* ends with procedure 0 */
    /* At start, after all directories are there, and at the end; may be NULL. */
    int (*start)(struct daemon *d, struct err *err);
    void (*stop)(struct daemon *d);
};
extern const struct driver *const drivers[]; /* NULL-terminated; dispatch.c */
void dispatch_init(struct daemon *d);
void dispatch_free(struct daemon *d);
int dispatch_call(void *daemon, struct rpc_call *call);

/* daemon.c. Sockets that were passed (systemd) are used instead of paths. `config` is taken over, also on failure. */
int daemon_new(const struct daemon_config *config, const int *fds, unsigned n_fds, struct daemon **ret,
               struct err *err);
/* Starts what is to start by itself; call when the sockets are served. */
void daemon_autostart(struct daemon *d);
void daemon_run(struct daemon *d);
void daemon_free(struct daemon *d);
/* Signals' part: ends daemon_run(). Guests go on. */
void daemon_quit(struct daemon *d);

/* config.c */
void daemon_config_init(struct daemon_config *c, bool session, const char *root);
int daemon_config_read(struct daemon_config *c, const char *path, struct err *err);
void daemon_config_free(struct daemon_config *c);

/* sessions.c: a client's connection beyond its socket. */
struct session *session_of(struct rpc_call *call);
void session_closed(struct daemon *d, struct rpc_client *client);
/* Registers for an event; its number. `uuid` may be NULL: of all objects. */
enum event_kind { EVENTS_DOMAIN, EVENTS_NETWORK, EVENTS_POOL, EVENTS_NODEDEV, EVENTS_SECRET, EVENTS_MONITOR };
int session_register(struct session *s, enum event_kind kind, int event, const uint8_t *uuid);
/* -1: there is none of that number. */
int session_deregister(struct session *s, enum event_kind kind, int id);
/* Sends an event to everybody who asked for it. `value` is the event's type in procs.def, whose first member is the
 * registration's number. */
void daemon_event(struct daemon *d, enum event_kind kind, int event, uint32_t program, int procedure, void *value,
                  const uint8_t *uuid);

/* What drivers need all the time. */
#define ARGS(type) const type *a = call->args
#define RET(type) type *ret = call->ret
void put_domain(rp_domain *ret, const struct guest *g);
/* The guest that a client means; NULL with call->error. */
struct guest *call_guest(struct daemon *d, struct rpc_call *call, const rp_domain *dom);
/* The same, and it must run. */
struct guest *call_active(struct daemon *d, struct rpc_call *call, const rp_domain *dom);
/* Fails when flags outside of `known` are set. */
int call_flags(struct rpc_call *call, unsigned flags, unsigned known);
/* guest_done for a pending call. */
void call_done(void *call, const struct rpc_error *e);
/* libvirt's VIR_DOMAIN_AFFECT_*: CURRENT 0, LIVE 1, CONFIG 2. Sets which documents are meant; -1 with call->error. */
int call_affect(struct rpc_call *call, const struct guest *g, unsigned flags, bool *ret_live, bool *ret_config);

/* drv_domain_life.c: starts a guest for a call (flags: 1 paused, 2 autodestroy); what a handler returns. */
int domain_start(struct rpc_call *call, struct guest *g, struct domain *live, unsigned flags);

/* domain_events.c: struct guests_owner's functions. */
void domain_event_lifecycle(void *daemon, struct guest *g, enum guest_event event, int detail);
void domain_event_monitor(void *daemon, struct guest *g, const char *name, const void *json);

/* auth.c: who may connect. */
int auth_list(struct daemon *d, struct rpc_call *call);
int auth_polkit(struct daemon *d, struct rpc_call *call);

/* graphics.c */
int open_graphics_fd(struct daemon *d, struct rpc_call *call);

/* console.c */
void console_ended(struct guest *g);

extern const struct driver driver_connect, driver_domain, driver_domain_life, driver_domain_console, driver_node,
    driver_pool, driver_network, driver_net_address, driver_volume, driver_none, driver_domain_config,
    driver_domain_stats, driver_domain_monitor, driver_qemu, driver_domain_tune, driver_domain_save;

#endif
