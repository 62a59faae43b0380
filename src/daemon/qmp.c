/* See qmp.h. A guest's process is not trusted: a line has a limit, and what is not JSON ends the connection. */
#include "daemon/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/loop.h"
#include "base/sock.h"

#define LINE_MAX_BYTES (4u << 20)

struct pending {
    struct pending *next;
    qmp_done *done;
    void *opaque;
};

struct qmp {
    struct loop *loop;
    struct qmp_owner owner;
    int fd;
    struct loop_fd *watch;
    char *in;
    size_t in_len, in_cap, scanned;
    char *out;
    size_t out_len, out_off;
    struct pending *first, **tail;
    bool dead; /* to be told to the owner */
    bool busy; /* inside of a callback: freed afterwards */
    bool freed;
};

static void destroy(struct qmp *q)
{
    free(q->in);
    free(q->out);
    free(q);
}

static void answer(struct qmp *q, json_t *ret, const char *error)
{
    struct pending *p = q->first;
    if (!p)
        return;
    q->first = p->next;
    if (!q->first)
        q->tail = &q->first;
    if (p->done)
        p->done(p->opaque, ret, error);
    free(p);
}

static void close_fd(struct qmp *q)
{
    loop_del_fd(q->watch);
    q->watch = NULL;
    if (q->fd >= 0)
        close(q->fd);
    q->fd = -1;
}

static void take_line(struct qmp *q, const char *line, size_t len)
{
    json_error_t je;
    json_t *m = json_loadb(line, len, 0, &je);
    if (!json_is_object(m)) {
        json_decref(m);
        q->dead = true;
        return;
    }
    const char *event = json_string_value(json_object_get(m, "event"));
    json_t *ret = json_object_get(m, "return"), *error = json_object_get(m, "error");
    if (event) {
        q->owner.event(q->owner.opaque, event, json_object_get(m, "data"));
    } else if (ret) {
        answer(q, ret, NULL);
    } else if (error) {
        const char *desc = json_string_value(json_object_get(error, "desc"));
        answer(q, NULL, desc ? desc : "the monitor refused");
    }
    json_decref(m);
}

/* False when there is nothing more for now. */
static bool fill(struct qmp *q)
{
    if (q->in_cap - q->in_len < 4096) {
        if (q->in_cap >= LINE_MAX_BYTES) {
            q->dead = true;
            return false;
        }
        q->in_cap = q->in_cap ? q->in_cap * 2 : 8192;
        char *bigger = realloc(q->in, q->in_cap);
        if (!bigger)
            abort();
        q->in = bigger;
    }
    ssize_t n = read(q->fd, q->in + q->in_len, q->in_cap - q->in_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        q->dead = true;
        return false;
    }
    q->in_len += n;
    return true;
}

static void flush(struct qmp *q)
{
    while (q->out_off < q->out_len) {
        ssize_t n = write(q->fd, q->out + q->out_off, q->out_len - q->out_off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            q->dead = true;
            return;
        }
        q->out_off += n;
    }
    if (q->out_off == q->out_len)
        q->out_off = q->out_len = 0;
    loop_mod_fd(q->watch, EPOLLIN | (q->out_len ? EPOLLOUT : 0));
}

static void on_ready(void *opaque, uint32_t events)
{
    struct qmp *q = opaque;
    q->busy = true;
    if (events & EPOLLOUT)
        flush(q);
    while (!q->dead && !q->freed && fill(q)) {
        char *nl;
        size_t start = 0;
        while (!q->dead && !q->freed && (nl = memchr(q->in + q->scanned, '\n', q->in_len - q->scanned))) {
            size_t end = nl - q->in;
            q->scanned = end + 1;
            if (end > start && !(end == start + 1 && q->in[start] == '\r'))
                take_line(q, q->in + start, end - start);
            start = end + 1;
        }
        memmove(q->in, q->in + start, q->in_len - start);
        q->in_len -= start;
        q->scanned = q->in_len;
    }
    q->busy = false;
    if (q->freed) {
        destroy(q);
    } else if (q->dead) {
        close_fd(q);
        q->busy = true;
        while (q->first)
            answer(q, NULL, "the guest's process has ended");
        q->busy = false;
        if (q->freed)
            destroy(q);
        else
            q->owner.closed(q->owner.opaque);
    } else if (!q->in_len && q->in_cap > 65536) {
        free(q->in);
        q->in = NULL;
        q->in_cap = 0;
    }
}

int qmp_open(struct loop *loop, const char *path, const struct qmp_owner *owner, struct qmp **ret, struct err *err)
{
    int fd = sock_unix_connect(path, err);
    if (fd < 0)
        return fd;
    struct qmp *q = xcalloc(1, sizeof *q);
    q->loop = loop;
    q->owner = *owner;
    q->fd = fd;
    q->tail = &q->first;
    q->watch = loop_add_fd(loop, fd, EPOLLIN, on_ready, q);
    *ret = q;
    qmp_call(q, "qmp_capabilities", NULL, NULL, NULL);
    return 0;
}

void qmp_free(struct qmp *q)
{
    if (!q || q->freed)
        return;
    q->freed = true;
    close_fd(q);
    while (q->first)
        answer(q, NULL, "the guest's process has ended");
    if (!q->busy)
        destroy(q);
}

void qmp_call(struct qmp *q, const char *command, json_t *args, qmp_done *done, void *opaque)
{
    struct pending *p = xcalloc(1, sizeof *p);
    p->done = done;
    p->opaque = opaque;
    *q->tail = p;
    q->tail = &p->next;
    json_t *m =
        args ? json_pack("{s:s,s:o}", "execute", command, "arguments", args) : json_pack("{s:s}", "execute", command);
    char *text = m ? json_dumps(m, JSON_COMPACT) : NULL;
    json_decref(m);
    if (!text)
        abort();
    size_t len = strlen(text);
    char *bigger = realloc(q->out, q->out_len + len + 1);
    if (!bigger)
        abort();
    q->out = bigger;
    memcpy(q->out + q->out_len, text, len);
    q->out[q->out_len + len] = '\n';
    q->out_len += len + 1;
    free(text);
    if (q->fd >= 0)
        flush(q);
}

void qmp_forget(struct qmp *q, const void *opaque)
{
    for (struct pending *p = q ? q->first : NULL; p; p = p->next)
        if (p->opaque == opaque)
            p->done = NULL;
}
