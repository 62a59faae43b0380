/* A volume's bytes as a stream, up or down, sparse if the client asks. Writes go to the page cache and do not wait. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/pool_calls.h"

struct transfer {
    struct daemon *d;
    struct rpc_stream *stream;
    char *pool, *name;
    int fd;
    uint64_t at, end; /* bytes of the file; end of an upload: UINT64_MAX, or where the range ends */
    bool sparse, upload, eof;
};

static int on_data(void *opaque, const uint8_t *data, size_t len, struct rpc_error *e)
{
    struct transfer *t = opaque;
    if (len > t->end - t->at)
        return verr_set(e, VIR_OPERATION_FAILED, "more data than the %" PRIu64 " bytes that were announced", t->end);
    while (len) {
        ssize_t n = pwrite(t->fd, data, len, t->at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return verr_errno(e, errno, "cannot write to volume '%s'", t->name);
        data += n;
        len -= n;
        t->at += n;
    }
    return 0;
}

static int on_hole(void *opaque, int64_t len, struct rpc_error *e)
{
    struct transfer *t = opaque;
    struct stat st;
    if ((uint64_t)len > t->end - t->at || t->at + len > INT64_MAX)
        return verr_set(e, VIR_OPERATION_FAILED, "a hole beyond the volume's end");
    if (fstat(t->fd, &st) < 0)
        return verr_errno(e, errno, "volume '%s'", t->name);
    if (t->at + len > (uint64_t)st.st_size && ftruncate(t->fd, t->at + len) < 0)
        return verr_errno(e, errno, "cannot extend volume '%s'", t->name);
    if (len && t->at < (uint64_t)st.st_size)
        fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, t->at, len);
    t->at += len;
    return 0;
}

/* The next piece of a download; false when the stream must wait, or has ended. */
static bool send_piece(struct transfer *t)
{
    autofree uint8_t *buf = NULL;
    if (t->eof)
        return false;
    uint64_t stop = t->end;
    if (t->sparse && t->at < t->end) {
        off_t data = lseek(t->fd, t->at, SEEK_DATA);
        uint64_t next = data < 0 ? t->end : MIN((uint64_t)data, t->end);
        if (next > t->at) {
            rpc_stream_send_hole(t->stream, next - t->at);
            t->at = next;
            return rpc_stream_room(t->stream);
        }
        off_t hole = lseek(t->fd, t->at, SEEK_HOLE);
        if (hole > 0)
            stop = MIN(stop, (uint64_t)hole);
    }
    size_t want = MIN(stop - t->at, RPC_STREAM_CHUNK);
    ssize_t n = 0;
    if (want) {
        buf = xcalloc(1, want);
        n = pread(t->fd, buf, want, t->at);
    }
    if (n <= 0) {
        t->eof = true;
        rpc_stream_eof(t->stream);
        return false;
    }
    rpc_stream_send(t->stream, buf, n);
    t->at += n;
    return rpc_stream_room(t->stream);
}

static void on_room(void *opaque)
{
    struct transfer *t = opaque;
    if (!t->upload)
        while (send_piece(t))
            ;
}

static int on_finish(void *opaque, struct rpc_error *e)
{
    struct transfer *t = opaque;
    if (t->upload && fdatasync(t->fd) < 0)
        return verr_errno(e, errno, "cannot sync volume '%s'", t->name);
    return 0;
}

static void on_closed(void *opaque)
{
    struct transfer *t = opaque;
    struct pool *p = pool_find_name(t->d->pools, t->pool);
    loop_unpost(t->d->loop, t);
    if (t->upload && p && p->active)
        volume_look(p, t->name);
    fd_closep(&t->fd);
    free(t->pool);
    free(t->name);
    free(t);
}

static const struct rpc_stream_ops up = {.data = on_data, .hole = on_hole, .finish = on_finish, .closed = on_closed};
static const struct rpc_stream_ops down = {.finish = on_finish, .room = on_room, .closed = on_closed};

static int transfer(struct daemon *d, struct rpc_call *call, bool upload)
{
    ARGS(rp_vol_range);
    struct pool *p;
    struct stat st;
    struct volume *v = call_volume(d, call, &a->vol, &p);
    if (!v || call_flags(call, a->flags, 1) < 0)
        return RPC_FAILED;
    if (v->building || v->directory)
        return verr_set(&call->error, VIR_OPERATION_INVALID, "volume '%s' has no data to transfer now", v->name);
    autofd int fd = open(v->path, (upload ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return verr_errno(&call->error, errno, "cannot open volume '%s'", v->path);
    uint64_t size = st.st_size;
    if (a->offset > INT64_MAX || a->length > INT64_MAX || (!upload && a->offset > size))
        return verr_set(&call->error, VIR_INVALID_ARG, "offset %" PRIu64 " is beyond the volume's end",
                        (uint64_t)a->offset);
    struct transfer *t = xcalloc(1, sizeof *t);
    *t = (struct transfer){.d = d, .fd = -1, .upload = upload, .sparse = a->flags & 1, .at = a->offset};
    t->end = a->length ? a->offset + a->length : upload ? INT64_MAX : size;
    if (!upload)
        t->end = MIN(t->end, size);
    t->stream = rpc_stream_new(call, upload ? &up : &down, t);
    if (!t->stream) {
        free(t);
        return RPC_FAILED;
    }
    t->fd = fd_take(fd);
    t->pool = xstrdup(p->name);
    t->name = xstrdup(v->name);
    if (!upload)
        loop_post(d->loop, on_room, t); /* after the answer */
    return RPC_DONE;
}

int volume_upload(struct daemon *d, struct rpc_call *call)
{
    return transfer(d, call, true);
}

int volume_download(struct daemon *d, struct rpc_call *call)
{
    return transfer(d, call, false);
}
