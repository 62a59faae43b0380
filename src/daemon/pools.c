/* The table of pools, their definitions on disk (CONFIG/storage), and their life. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <spawn.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/pool.h"

struct pool *pool_find_name(const struct pools *t, const char *name)
{
    struct pool *p;
    HASH_FIND(by_name, t->by_name, name, strlen(name), p);
    return p;
}

struct pool *pool_find_uuid(const struct pools *t, const uint8_t *uuid)
{
    struct pool *p, *next;
    HASH_ITER(by_name, t->by_name, p, next)
    if (!memcmp(p->uuid, uuid, 16))
        return p;
    return NULL;
}

static void add(struct pools *t, struct pool *p)
{
    HASH_ADD_KEYPTR(by_name, t->by_name, p->name, strlen(p->name), p);
}

static void drop(struct pools *t, struct pool *p)
{
    HASH_DELETE(by_name, t->by_name, p);
    pool_free(p);
}

void pool_event(struct pool *p, int event)
{
    rp_ev_pool m = {.pool = {.name = p->name}, .event = event};
    memcpy(m.pool.uuid.bytes, p->uuid, 16);
    daemon_event(p->daemon, EVENTS_POOL, 0, RPC_REMOTE_PROGRAM, RPC_PROC_STORAGE_POOL_EVENT_LIFECYCLE, &m, p->uuid);
}

static char *definition_path(const struct pool *p)
{
    return xasprintf("%s/%s.xml", p->daemon->pools->dir, p->name);
}

static char *autostart_path(const struct pool *p)
{
    return xasprintf("%s/autostart/%s.xml", p->daemon->pools->dir, p->name);
}

static int save(const struct pool *p, struct rpc_error *e)
{
    autofree char *path = definition_path(p);
    autofree char *text = pool_format(p, true);
    int r = store_write_file(path, text, strlen(text), true);
    return r < 0 ? verr_errno(e, r, "cannot save the definition to '%s'", path) : 0;
}

/* The pool that a new document is about (NULL: none yet); -1: name, UUID or directory are another's. */
static int same(struct daemon *d, const struct pool *n, struct pool **ret, struct rpc_error *e)
{
    char uuid[37];
    struct pool *p = pool_find_uuid(d->pools, n->uuid), *o, *next;
    if (p && strcmp(p->name, n->name)) {
        uuid_format(p->uuid, uuid);
        return verr_set(e, VIR_OPERATION_FAILED, "pool '%s' is already defined with uuid %s", p->name, uuid);
    }
    if (!p && (o = pool_find_name(d->pools, n->name))) {
        uuid_format(o->uuid, uuid);
        return verr_set(e, VIR_OPERATION_FAILED, "pool '%s' already exists with uuid %s", o->name, uuid);
    }
    HASH_ITER(by_name, d->pools->by_name, o, next)
    if (o != p && !strcmp(o->path, n->path))
        return verr_set(e, VIR_OPERATION_FAILED, "Storage source conflict with pool: '%s'", o->name);
    *ret = p;
    return 0;
}

struct pool *pool_define(struct daemon *d, const char *xml, struct rpc_error *e)
{
    struct pool *n = pool_parse(d, xml, e), *old = NULL;
    if (!n)
        return NULL;
    if (same(d, n, &old, e) < 0 || save(n, e) < 0) {
        pool_free(n);
        return NULL;
    }
    if (old) { /* what it is now stays until it is stopped */
        if (!old->active) {
            n->autostart = old->autostart;
            drop(d->pools, old);
            add(d->pools, n);
        } else {
            pool_free(n);
            n = old;
        }
    } else {
        add(d->pools, n);
    }
    n->persistent = true;
    pool_event(n, POOL_EVENT_DEFINED);
    return n;
}

struct pool *pool_create_transient(struct daemon *d, const char *xml, bool build, struct rpc_error *e)
{
    struct pool *n = pool_parse(d, xml, e), *old = NULL;
    if (!n)
        return NULL;
    if (same(d, n, &old, e) < 0 ||
        (old && verr_set(e, VIR_OPERATION_FAILED, "pool '%s' is already there", old->name) < 0) ||
        (build && pool_build(n, e) < 0)) {
        pool_free(n);
        return NULL;
    }
    add(d->pools, n);
    if (pool_start(n, e) < 0) {
        drop(d->pools, n);
        return NULL;
    }
    return n;
}

int pool_undefine(struct pool *p, struct rpc_error *e)
{
    if (p->active)
        return verr_set(e, VIR_OPERATION_INVALID, "storage pool '%s' is still active", p->name);
    autofree char *path = definition_path(p);
    autofree char *link = autostart_path(p);
    if (unlink(path) < 0 && errno != ENOENT)
        return verr_errno(e, errno, "Failed to unlink '%s'", path);
    unlink(link);
    pool_event(p, POOL_EVENT_UNDEFINED);
    drop(p->daemon->pools, p);
    return 0;
}

int pool_set_autostart(struct pool *p, bool on, struct rpc_error *e)
{
    autofree char *link = autostart_path(p);
    autofree char *target = xasprintf("../%s.xml", p->name);
    autofree char *dir = xasprintf("%s/autostart", p->daemon->pools->dir);
    if (!p->persistent)
        return verr_set(e, VIR_INVALID_ARG, "pool has no config file");
    mkdir(dir, 0700);
    if (on && symlink(target, link) < 0 && errno != EEXIST)
        return verr_errno(e, errno, "Failed to create symlink '%s'", link);
    if (!on && unlink(link) < 0 && errno != ENOENT)
        return verr_errno(e, errno, "cannot remove '%s'", link);
    p->autostart = on;
    return 0;
}

/* mount(8) and umount(8) know file system types and /etc/fstab; they end soon. */
static int run(char *const *args, struct rpc_error *e)
{
    extern char **environ;
    pid_t pid;
    int status, r = posix_spawnp(&pid, args[0], NULL, NULL, args, environ);
    if (r)
        return verr_errno(e, r, "cannot run %s", args[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return verr_set(e, VIR_OPERATION_FAILED, "%s of '%s' failed with status %d", args[0], args[1], status);
    return 0;
}

static bool is_mounted(const struct pool *p)
{
    struct stat here, above;
    autofree char *parent = xasprintf("%s/..", p->path);
    return stat(p->path, &here) == 0 && stat(parent, &above) == 0 && here.st_dev != above.st_dev;
}

int pool_start(struct pool *p, struct rpc_error *e)
{
    struct stat st;
    if (p->active)
        return verr_set(e, VIR_OPERATION_INVALID, "storage pool '%s' is already active", p->name);
    if (stat(p->path, &st) < 0)
        return verr_errno(e, errno, "cannot open directory '%s'", p->path);
    if (!S_ISDIR(st.st_mode))
        return verr_errno(e, ENOTDIR, "cannot open directory '%s'", p->path);
    if (p->type == POOL_FS && !is_mounted(p)) {
        char *args[] = {"mount", p->device, p->path, p->fs ? "-t" : NULL, p->fs, NULL};
        if (run(args, e) < 0)
            return -1;
    }
    p->active = true;
    if (pool_refresh(p, e) < 0) {
        p->active = false;
        return -1;
    }
    pool_event(p, POOL_EVENT_STARTED);
    return 0;
}

int pool_stop(struct pool *p, struct rpc_error *e)
{
    struct daemon *d = p->daemon;
    if (!p->active)
        return verr_set(e, VIR_OPERATION_INVALID, "storage pool '%s' is not active", p->name);
    if (p->busy)
        return verr_set(e, VIR_INTERNAL_ERROR, "pool '%s' has asynchronous jobs running.", p->name);
    if (p->type == POOL_FS && is_mounted(p)) {
        char *args[] = {"umount", p->path, NULL};
        if (run(args, e) < 0)
            return -1;
    }
    pool_drop_volumes(p);
    p->active = false;
    p->capacity = p->allocation = p->available = 0;
    pool_event(p, POOL_EVENT_STOPPED);
    if (!p->persistent) {
        drop(d->pools, p);
        return 0;
    }
    /* A definition that was changed meanwhile takes effect now. */
    autofree char *path = definition_path(p);
    autofree char *text = store_read_file(path, NULL);
    struct rpc_error ignored = {0};
    struct pool *n = text ? pool_parse(d, text, &ignored) : NULL;
    if (n) {
        n->persistent = true;
        n->autostart = p->autostart;
        drop(d->pools, p);
        add(d->pools, n);
    }
    return 0;
}

int pool_build(struct pool *p, struct rpc_error *e)
{
    autofree char *copy = xstrdup(p->path);
    for (char *s = copy + 1;; s++) {
        if (*s && *s != '/')
            continue;
        char c = *s;
        *s = 0;
        if (mkdir(copy, c ? 0755 : p->mode >= 0 ? (mode_t)p->mode : 0711) < 0 && errno != EEXIST)
            return verr_errno(e, errno, "failed to create directory '%s'", copy);
        *s = c;
        if (!c)
            break;
    }
    if (p->mode >= 0 && chmod(p->path, p->mode) < 0)
        return verr_errno(e, errno, "cannot set mode of '%s'", p->path);
    if ((p->owner >= 0 || p->group >= 0) && chown(p->path, p->owner, p->group) < 0)
        return verr_errno(e, errno, "cannot give '%s' away", p->path);
    pool_event(p, POOL_EVENT_CREATED);
    return 0;
}

int pool_delete(struct pool *p, struct rpc_error *e)
{
    if (p->active)
        return verr_set(e, VIR_OPERATION_INVALID, "storage pool '%s' is still active", p->name);
    if (rmdir(p->path) < 0)
        return verr_errno(e, errno, "failed to remove pool '%s'", p->path);
    pool_event(p, POOL_EVENT_DELETED);
    return 0;
}

int pools_start(struct daemon *d, struct err *err)
{
    d->pools = xcalloc(1, sizeof *d->pools);
    d->pools->dir = xasprintf("%s/storage", d->config.config_dir);
    if (mkdir(d->pools->dir, 0700) < 0 && errno != EEXIST)
        return err_errno(err, -errno, "%s", d->pools->dir);
    DIR *dir = opendir(d->pools->dir);
    if (!dir)
        return err_errno(err, -errno, "%s", d->pools->dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);
        if (len <= 4 || strcmp(entry->d_name + len - 4, ".xml"))
            continue;
        autofree char *path = xasprintf("%s/%s", d->pools->dir, entry->d_name);
        autofree char *text = store_read_file(path, NULL);
        struct rpc_error e = {0};
        struct pool *p = text ? pool_parse(d, text, &e) : NULL, *old;
        if (!p || same(d, p, &old, &e) < 0 || old) {
            log_error("%s: storage pool not loaded: %s", path, e.code ? e.message : "cannot be read");
            pool_free(p);
            continue;
        }
        p->persistent = true;
        add(d->pools, p);
        autofree char *link = autostart_path(p);
        p->autostart = access(link, F_OK) == 0;
        if ((p->autostart || (p->type == POOL_FS && is_mounted(p))) && pool_start(p, &e) < 0)
            log_error("storage pool '%s' not started: %s", p->name, e.message);
    }
    closedir(dir);
    return 0;
}

void pools_stop(struct daemon *d)
{
    struct pool *p, *next;
    if (!d->pools)
        return;
    HASH_ITER(by_name, d->pools->by_name, p, next)
    drop(d->pools, p);
    free(d->pools->dir);
    free(d->pools);
    d->pools = NULL;
}
