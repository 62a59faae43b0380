/* What is in a pool's directory. Images are opened without locks and without their backing files. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "block/driver.h"
#include "block/image.h"
#include "daemon/pool.h"

#define VOLUMES_MAX 16384

struct volume *volume_find(struct pool *p, const char *name)
{
    struct volume *v;
    HASH_FIND_STR(p->volumes, name, v);
    return v;
}

static void volume_free(struct volume *v)
{
    free(v->name);
    free(v->path);
    free(v->format);
    free(v->backing);
    free(v->backing_format);
    free(v);
}

void volume_drop(struct pool *p, struct volume *v)
{
    HASH_DEL(p->volumes, v);
    volume_free(v);
}

void pool_drop_volumes(struct pool *p)
{
    struct volume *v, *next;
    HASH_ITER(hh, p->volumes, v, next)
    volume_drop(p, v);
}

static void set(char **field, const char *value)
{
    free(*field);
    *field = value ? xstrdup(value) : NULL;
}

static void look_inside(struct volume *v)
{
    auto_node struct blk_node *n = NULL;
    struct err err = {0};
    set(&v->format, "raw");
    set(&v->backing, NULL);
    set(&v->backing_format, NULL);
    if (blk_node_open(v->path, NULL, NULL,
                      BLK_O_NO_BACKING | BLK_O_FORCE_SHARE | BLK_O_NO_IO | BLK_O_NO_LOCK | BLK_O_NO_URING, &n,
                      &err) < 0)
        return;
    set(&v->format, n->drv->name);
    v->capacity = n->size;
    if (n->backing_file) {
        v->backing = blk_path_relative(v->path, n->backing_file);
        set(&v->backing_format, n->backing_format ? n->backing_format : "raw");
    }
}

struct volume *volume_look(struct pool *p, const char *name)
{
    struct stat st;
    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return NULL;
    autofree char *path = xasprintf("%s/%s", p->path, name);
    struct volume *v = volume_find(p, name);
    if (stat(path, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode))) {
        if (v && !v->building)
            volume_drop(p, v);
        return NULL;
    }
    if (!v) {
        if (HASH_COUNT(p->volumes) >= VOLUMES_MAX)
            return NULL;
        v = xcalloc(1, sizeof *v);
        v->name = xstrdup(name);
        v->path = ptr_take(path);
        HASH_ADD_KEYPTR(hh, p->volumes, v->name, strlen(v->name), v);
    }
    v->directory = S_ISDIR(st.st_mode);
    v->physical = v->capacity = v->directory ? 0 : (uint64_t)st.st_size;
    v->allocation = v->directory ? 0 : (uint64_t)st.st_blocks * 512;
    if (v->directory)
        set(&v->format, "dir");
    else if (!v->building)
        look_inside(v);
    return v;
}

void pool_measure(struct pool *p)
{
    struct statvfs fs;
    if (!p->active || statvfs(p->path, &fs) < 0)
        return;
    p->capacity = (uint64_t)fs.f_blocks * fs.f_frsize;
    p->available = (uint64_t)fs.f_bavail * fs.f_frsize;
    p->allocation = p->capacity - p->available;
}

int pool_refresh(struct pool *p, struct rpc_error *e)
{
    DIR *dir = opendir(p->path);
    if (!dir)
        return verr_errno(e, errno, "cannot open directory '%s'", p->path);
    struct volume *v, *next;
    HASH_ITER(hh, p->volumes, v, next)
    if (!v->building)
        volume_drop(p, v);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.')
            volume_look(p, entry->d_name);
    closedir(dir);
    pool_measure(p);
    return 0;
}
