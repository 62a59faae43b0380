/*
 * Making, copying, resizing and wiping volumes, each on a thread of its own. The thread has copies of all it needs; the
 * pool cannot be stopped meanwhile, and the volume is marked as being made.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/copy.h"
#include "block/image.h"
#include "daemon/pool_calls.h"
#include "daemon/work.h"

enum job_kind { JOB_CREATE, JOB_RESIZE, JOB_WIPE };

struct job {
    enum job_kind kind;
    struct daemon *daemon;
    struct rpc_call *call;
    char *pool, *name, *path;
    struct err err;
    int code;
    /* create */
    struct volume_spec spec;
    char *source, *source_format;
    bool metadata, reflink;
    /* resize, wipe */
    char *format;
    uint64_t size;
    bool shrink, allocate, trim;
};

static void job_free(struct job *j)
{
    free(j->pool);
    free(j->name);
    free(j->path);
    free(j->source);
    free(j->source_format);
    free(j->format);
    volume_spec_clear(&j->spec);
    free(j);
}

/* A new raw file with its size, filled as far as `allocation` says. */
static int create_raw(struct job *j, int fd)
{
    const struct volume_spec *s = &j->spec;
    uint64_t allocation = s->has_allocation ? MIN(s->allocation, s->capacity) : s->capacity;
    if (j->source)
        allocation = s->has_allocation ? allocation : 0;
    if (ftruncate(fd, s->capacity) < 0)
        return err_errno(&j->err, -errno, "cannot extend file '%s'", j->path);
    if (allocation && fallocate(fd, 0, 0, allocation) < 0 && errno != EOPNOTSUPP)
        return err_errno(&j->err, -errno, "cannot allocate %" PRIu64 " bytes in file '%s'", allocation, j->path);
    return 0;
}

static int create_format(struct job *j)
{
    const struct volume_spec *s = &j->spec;
    auto_opts struct blk_opts *o = blk_opts_new();
    char size[24];
    snprintf(size, sizeof size, "%" PRIu64, s->capacity);
    if (s->has_capacity)
        blk_opts_set(o, "size", size);
    if (s->backing) {
        blk_opts_set(o, "backing_file", s->backing);
        blk_opts_set(o, "backing_fmt", s->backing_format);
    }
    if (j->metadata)
        blk_opts_set(o, "preallocation", "metadata");
    return blk_create(s->format, j->path, o, &j->err);
}

static int copy(struct job *j)
{
    auto_node struct blk_node *from = NULL, *to = NULL;
    int r = blk_node_open(j->source, j->source_format, NULL, BLK_O_NO_URING, &from, &j->err);
    if (!r)
        r = blk_node_open(j->path, j->spec.format, NULL, BLK_O_RDWR | BLK_O_NO_URING, &to, &j->err);
    if (r < 0)
        return r;
    struct blk_convert c = {
        .sources = &from, .n_sources = 1, .target = to, .target_is_zero = true, .min_sparse = 4096, .threads = 1};
    return blk_convert(&c, &j->err);
}

/* Shares the source's blocks, where the file system can. */
static int reflink(struct job *j, int fd)
{
    autofd int from = open(j->source, O_RDONLY | O_CLOEXEC);
    if (from < 0 || ioctl(fd, FICLONE, from) < 0)
        return err_errno(&j->err, -errno, "cannot clone '%s' to '%s'", j->source, j->path);
    return 0;
}

static int run_create(struct job *j)
{
    const struct volume_spec *s = &j->spec;
    if (!strcmp(s->format, "dir")) {
        if (mkdir(j->path, s->mode >= 0 ? (mode_t)s->mode : 0700) < 0)
            return err_errno(&j->err, -errno, "cannot create directory '%s'", j->path);
        return 0;
    }
    autofd int fd = open(j->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(&j->err, -errno, "Failed to create file '%s'", j->path);
    int r = 0;
    if (j->reflink)
        r = reflink(j, fd);
    else
        r = !strcmp(s->format, "raw") ? create_raw(j, fd) : create_format(j);
    if (!r && j->source && !j->reflink)
        r = copy(j);
    if (!r && s->mode >= 0 && fchmod(fd, s->mode) < 0)
        r = err_errno(&j->err, -errno, "cannot set mode of '%s'", j->path);
    if (!r && (s->owner >= 0 || s->group >= 0) && fchown(fd, s->owner, s->group) < 0 && geteuid() == 0)
        r = err_errno(&j->err, -errno, "cannot give '%s' away", j->path);
    if (!r && fsync(fd) < 0)
        r = err_errno(&j->err, -errno, "cannot sync data to file '%s'", j->path);
    if (r < 0)
        unlink(j->path);
    return r;
}

static int run_resize(struct job *j)
{
    auto_node struct blk_node *n = NULL;
    int r = blk_node_open(j->path, j->format, NULL, BLK_O_RDWR | BLK_O_RESIZE | BLK_O_NO_BACKING | BLK_O_NO_URING, &n,
                          &j->err);
    if (!r)
        r = blk_truncate(n, j->size, j->allocate ? BLK_PREALLOC_FALLOC : BLK_PREALLOC_OFF, j->shrink, &j->err);
    return r;
}

/* Every byte of the file, whatever its format; a wiped image is none any more, but has its length. */
static int run_wipe(struct job *j)
{
    struct stat st;
    autofd int fd = open(j->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(&j->err, -errno, "cannot open volume '%s'", j->path);
    if (j->trim || st.st_blocks == 0) {
        if (ftruncate(fd, 0) < 0 || ftruncate(fd, st.st_size) < 0)
            return err_errno(&j->err, -errno, "cannot truncate '%s'", j->path);
        return 0;
    }
    enum { CHUNK = 1 << 20 };
    autofree uint8_t *zeroes = xcalloc(1, CHUNK);
    for (off_t at = 0; at < st.st_size;) {
        ssize_t n = pwrite(fd, zeroes, MIN(CHUNK, st.st_size - at), at);
        if (n < 0 && errno != EINTR)
            return err_errno(&j->err, -errno, "cannot write to '%s'", j->path);
        at += n > 0 ? n : 0;
    }
    return fsync(fd) < 0 ? err_errno(&j->err, -errno, "cannot sync data to file '%s'", j->path) : 0;
}

static void run(void *opaque)
{
    static int (*const kinds[])(struct job *
                                j) = {[JOB_CREATE] = run_create, [JOB_RESIZE] = run_resize, [JOB_WIPE] = run_wipe};
    struct job *j = opaque;
    j->code = kinds[j->kind](j);
}

static void done(void *opaque)
{
    struct job *j = opaque;
    struct pool *p = pool_find_name(j->daemon->pools, j->pool);
    struct volume *v = p ? volume_find(p, j->name) : NULL;
    if (p)
        p->busy--;
    if (v)
        v->building = false;
    if (p)
        v = volume_look(p, j->name);
    if (j->code < 0)
        verr_take(&j->call->error,
                  j->code == -ENOSPC || j->kind == JOB_CREATE ? VIR_SYSTEM_ERROR : VIR_OPERATION_FAILED, &j->err);
    else if (j->kind == JOB_CREATE && !v)
        verr_set(&j->call->error, VIR_NO_STORAGE_VOL, "volume '%s' has been removed meanwhile", j->name);
    else if (j->kind == JOB_CREATE)
        put_volume(j->call->ret, p, v);
    if (p)
        pool_measure(p);
    rpc_call_finish(j->call);
    job_free(j);
}

static int go(struct job *j, struct pool *p, struct volume *v)
{
    p->busy++;
    v->building = true;
    work_start(j->daemon, run, done, j);
    return RPC_LATER;
}

static struct job *job_new(enum job_kind kind, struct rpc_call *call, struct pool *p, const char *name)
{
    struct job *j = xcalloc(1, sizeof *j);
    j->kind = kind;
    j->call = call;
    j->daemon = p->daemon;
    j->pool = xstrdup(p->name);
    j->name = xstrdup(name);
    j->path = xasprintf("%s/%s", p->path, name);
    return j;
}

int volume_create(struct rpc_call *call, struct pool *p, struct volume_spec *spec, unsigned flags,
                  const struct volume *source)
{
    if (volume_find(p, spec->name) || volume_look(p, spec->name))
        return verr_set(&call->error, VIR_STORAGE_VOL_EXIST, "'%s'", spec->name);
    bool raw = !strcmp(spec->format, "raw");
    if (raw && spec->backing)
        return verr_set(&call->error, VIR_CONFIG_UNSUPPORTED, "backing storage not supported for raw volumes");
    if (source && spec->capacity < source->capacity)
        spec->capacity = source->capacity;
    struct job *j = job_new(JOB_CREATE, call, p, spec->name);
    j->spec = *spec;
    *spec = (struct volume_spec){0};
    j->metadata = flags & 1;
    j->reflink = flags & 2;
    if (source) {
        j->source = xstrdup(source->path);
        j->source_format = xstrdup(source->format);
        j->spec.has_capacity = true;
    }
    struct volume *v = xcalloc(1, sizeof *v);
    v->name = xstrdup(j->name);
    v->path = xstrdup(j->path);
    v->format = xstrdup(j->spec.format);
    v->capacity = j->spec.capacity;
    HASH_ADD_KEYPTR(hh, p->volumes, v->name, strlen(v->name), v);
    return go(j, p, v);
}

int volume_resize(struct rpc_call *call, struct pool *p, struct volume *v, uint64_t size, bool shrink, bool allocate)
{
    struct job *j = job_new(JOB_RESIZE, call, p, v->name);
    j->format = xstrdup(v->format);
    j->size = size;
    j->shrink = shrink;
    j->allocate = allocate;
    return go(j, p, v);
}

int volume_wipe(struct rpc_call *call, struct pool *p, struct volume *v, bool trim)
{
    struct job *j = job_new(JOB_WIPE, call, p, v->name);
    j->trim = trim;
    return go(j, p, v);
}
