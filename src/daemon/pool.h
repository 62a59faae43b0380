/*
 * Storage pools: directories (dir), and file systems that are mounted for the pool (fs), with the images in them as
 * volumes. The daemon's thread; what takes long (copying, filling) is done on a thread of its own (work.h) and names
 * the volume by path, never by pointer.
 */
#ifndef LODGE_DAEMON_POOL_H
#define LODGE_DAEMON_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uthash.h>

#include "daemon/verr.h"

struct daemon;
struct xml_node;

enum pool_type { POOL_DIR, POOL_FS };

struct volume {
    UT_hash_handle hh; /* by name */
    char *name;
    char *path; /* also its key */
    bool directory;
    char *format;                            /* raw, qcow2 … */
    uint64_t capacity, allocation, physical; /* bytes */
    char *backing, *backing_format;          /* NULL: none */
    bool building;                           /* its contents are being made */
};

struct pool {
    UT_hash_handle by_name;
    struct daemon *daemon;
    char *name;
    uint8_t uuid[16];
    enum pool_type type;
    char *path;        /* of the directory */
    char *device, *fs; /* fs: what is mounted, and its type; NULL: auto */
    int mode;          /* of the directory, when it is built; -1: not given */
    int owner, group;  /* -1: not given */
    bool persistent, active, autostart;
    unsigned busy; /* volumes that are being made */
    struct volume *volumes;
    uint64_t capacity, allocation, available;
};

struct pools {
    struct pool *by_name;
    char *dir; /* of definitions */
};

enum {
    POOL_EVENT_DEFINED,
    POOL_EVENT_UNDEFINED,
    POOL_EVENT_STARTED,
    POOL_EVENT_STOPPED,
    POOL_EVENT_CREATED,
    POOL_EVENT_DELETED
};

/* pools.c */
int pools_start(struct daemon *d, struct err *err);
void pools_stop(struct daemon *d);
struct pool *pool_find_name(const struct pools *t, const char *name);
struct pool *pool_find_uuid(const struct pools *t, const uint8_t *uuid);
/* Defines, or redefines. */
struct pool *pool_define(struct daemon *d, const char *xml, struct rpc_error *e);
/* A pool that is gone when it is stopped. */
struct pool *pool_create_transient(struct daemon *d, const char *xml, bool build, struct rpc_error *e);
int pool_undefine(struct pool *p, struct rpc_error *e);
int pool_set_autostart(struct pool *p, bool on, struct rpc_error *e);
int pool_start(struct pool *p, struct rpc_error *e);
int pool_stop(struct pool *p, struct rpc_error *e);
/* Makes the directory. */
int pool_build(struct pool *p, struct rpc_error *e);
/* Removes the directory, which must be empty. */
int pool_delete(struct pool *p, struct rpc_error *e);
void pool_event(struct pool *p, int event);

/* pool_scan.c */
int pool_refresh(struct pool *p, struct rpc_error *e);
struct volume *volume_find(struct pool *p, const char *name);
/* Looks at one file in the pool's directory and adds it, or brings it up to date. NULL: there is no such file. */
struct volume *volume_look(struct pool *p, const char *name);
void volume_drop(struct pool *p, struct volume *v);
void pool_drop_volumes(struct pool *p);
void pool_measure(struct pool *p);

/* pool_xml.c */
/* Fills a new pool; NULL with *e. */
struct pool *pool_parse(struct daemon *d, const char *xml, struct rpc_error *e);
char *pool_format(const struct pool *p, bool inactive);
void pool_free(struct pool *p);
/* What a client wants of a new volume. Strings are owned. */
struct volume_spec {
    char *name, *format, *backing, *backing_format;
    uint64_t capacity, allocation;
    bool has_capacity, has_allocation, nocow;
    int mode, owner, group; /* -1: not given */
};
int volume_parse(const char *xml, struct volume_spec *ret, struct rpc_error *e);
void volume_spec_clear(struct volume_spec *s);
char *volume_format(const struct volume *v);

#endif
