/* See stream.h. update() is the one place that moves input and decides what is watched. */
#include "ui/stream.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"

static void update(struct stream *s);

static void on_post(void *opaque)
{
    struct stream *s = opaque;
    pthread_mutex_lock(&s->lock);
    s->posted = false;
    pthread_mutex_unlock(&s->lock);
    if (s->dead) {
        pthread_mutex_destroy(&s->lock);
        free(s);
        return;
    }
    update(s);
}

/* With the lock held. */
static void post_update(struct stream *s)
{
    if (s->posted)
        return;
    s->posted = true;
    loop_post(s->loop, on_post, s);
}

static ssize_t write_some(const struct stream *s, const uint8_t *buf, size_t len)
{
    if (s->out == STREAM_SOCKET)
        return send(s->out_fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (s->out == STREAM_CAREFUL) {
        struct pollfd p = {.fd = s->out_fd, .events = POLLOUT};
        if (poll(&p, 1, 0) == 0) {
            errno = EAGAIN;
            return -1;
        }
        len = MIN(len, (size_t)PIPE_BUF);
    }
    return write(s->out_fd, buf, len);
}

size_t stream_write(struct chardev *c, const uint8_t *buf, size_t len)
{
    struct stream *s = (struct stream *)c;
    size_t done = 0;
    pthread_mutex_lock(&s->lock);
    while (done < len && s->out_fd >= 0) {
        ssize_t n = write_some(s, buf + done, len - done);
        if (n >= 0) {
            done += n;
        } else if (errno == EAGAIN) {
            s->starved = true;
            post_update(s);
            break;
        } else if (errno != EINTR) {
            done = len; /* nobody will ever read it */
        }
    }
    if (s->out_fd < 0)
        done = len;
    pthread_mutex_unlock(&s->lock);
    return done;
}

void stream_accept_input(struct chardev *c)
{
    struct stream *s = (struct stream *)c;
    pthread_mutex_lock(&s->lock);
    post_update(s);
    pthread_mutex_unlock(&s->lock);
}

void stream_set_frontend(struct chardev *c)
{
    struct stream *s = (struct stream *)c;
    s->told = false;
    stream_accept_input(c);
}

void stream_destroy(struct chardev *c)
{
    struct stream *s = (struct stream *)c;
    stream_disconnect(s);
    if (s->close)
        s->close(s);
    pthread_mutex_lock(&s->lock);
    s->dead = true;
    bool later = s->posted;
    pthread_mutex_unlock(&s->lock);
    if (!later) {
        pthread_mutex_destroy(&s->lock);
        free(s);
    }
}

void *stream_new(size_t size, struct loop *loop, const struct chardev_ops *ops)
{
    struct stream *s = xcalloc(1, size);
    s->chardev.ops = ops;
    s->loop = loop;
    s->in_fd = s->out_fd = -1;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void stream_connect(struct stream *s, int in_fd, int out_fd, enum stream_out out)
{
    pthread_mutex_lock(&s->lock);
    s->in_fd = in_fd;
    s->out_fd = out_fd;
    s->out = out;
    s->connected = true;
    post_update(s);
    pthread_mutex_unlock(&s->lock);
}

void stream_disconnect(struct stream *s)
{
    loop_del_fd(s->in_watch);
    loop_del_fd(s->out_watch);
    s->in_watch = s->out_watch = NULL;
    pthread_mutex_lock(&s->lock);
    s->in_fd = s->out_fd = -1;
    s->connected = false;
    post_update(s);
    pthread_mutex_unlock(&s->lock);
}

/* Input for which the front end has room goes there. */
static void deliver(struct stream *s)
{
    const struct chardev_frontend *f = s->chardev.frontend;
    while (f && s->pending_at < s->pending_end) {
        size_t n = s->pending_end - s->pending_at;
        size_t room = f->can_receive ? f->can_receive(s->chardev.opaque) : n; /* it may grow at any time: asked once */
        n = MIN(n, room);
        if (!n)
            return;
        size_t at = s->pending_at;
        s->pending_at += n;
        f->receive(s->chardev.opaque, s->pending + at, n);
        f = s->chardev.frontend;
    }
}

static void read_input(struct stream *s)
{
    if (s->pending_at == s->pending_end)
        s->pending_at = s->pending_end = 0;
    if (s->pending_at) {
        memmove(s->pending, s->pending + s->pending_at, s->pending_end - s->pending_at);
        s->pending_end -= s->pending_at;
        s->pending_at = 0;
    }
    size_t room = STREAM_PENDING - s->pending_end;
    uint8_t extra[256]; /* read even without room when a person types, for the escape key */
    bool dropping = !room && s->drops;
    uint8_t *to = dropping ? extra : s->pending + s->pending_end;
    if (dropping)
        room = sizeof extra;
    if (!room)
        return;
    ssize_t n = read(s->in_fd, to, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        if (s->hangup)
            s->hangup(s);
        return;
    }
    if (s->filter)
        n = s->filter(s, to, n);
    if (!dropping)
        s->pending_end += n;
}

static void on_ready(void *opaque, uint32_t events)
{
    struct stream *s = opaque;
    if (events & EPOLLOUT) {
        pthread_mutex_lock(&s->lock);
        bool starved = s->starved;
        s->starved = false;
        pthread_mutex_unlock(&s->lock);
        if (starved && s->chardev.frontend && s->chardev.frontend->writable)
            s->chardev.frontend->writable(s->chardev.opaque);
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && s->in_fd >= 0)
        read_input(s);
    update(s);
}

/* The output's own descriptor: an error means that its reader is gone, and everything is to be dropped from now on. */
static void on_out_ready(void *opaque, uint32_t events)
{
    struct stream *s = opaque;
    if (events & (EPOLLERR | EPOLLHUP)) {
        pthread_mutex_lock(&s->lock);
        s->out_fd = -1;
        pthread_mutex_unlock(&s->lock);
        loop_del_fd(s->out_watch);
        s->out_watch = NULL;
    }
    on_ready(s, EPOLLOUT);
}

static void watch(struct stream *s, struct loop_fd **w, int fd, uint32_t events, void (*fn)(void *, uint32_t))
{
    if (fd < 0 || !events) {
        loop_del_fd(*w);
        *w = NULL;
    } else if (*w) {
        loop_mod_fd(*w, events);
    } else {
        *w = loop_add_fd(s->loop, fd, events, fn, s);
    }
}

static void update(struct stream *s)
{
    const struct chardev_frontend *f = s->chardev.frontend;
    if (f && s->told != s->connected) {
        s->told = s->connected;
        if (f->event)
            f->event(s->chardev.opaque, s->connected ? CHARDEV_OPENED : CHARDEV_CLOSED);
    }
    deliver(s);
    bool room = s->drops || s->pending_end - s->pending_at < STREAM_PENDING;
    if (s->no_poll && s->in_fd >= 0 && f && s->pending_at == s->pending_end) {
        read_input(s);
        pthread_mutex_lock(&s->lock);
        post_update(s);
        pthread_mutex_unlock(&s->lock);
    }
    pthread_mutex_lock(&s->lock);
    int in_fd = s->no_poll ? -1 : s->in_fd, out_fd = s->out_fd;
    bool starved = s->starved;
    if (starved && out_fd < 0) {
        s->starved = false;
    }
    pthread_mutex_unlock(&s->lock);
    if (in_fd >= 0 && in_fd == out_fd) {
        watch(s, &s->in_watch, in_fd, (room ? EPOLLIN : 0) | (starved ? EPOLLOUT : 0), on_ready);
    } else {
        watch(s, &s->in_watch, in_fd, room ? EPOLLIN : 0, on_ready);
        watch(s, &s->out_watch, out_fd, starved ? EPOLLOUT : 0, on_out_ready);
        if (in_fd >= 0 && room && !s->in_watch) {
            s->no_poll = true;
            pthread_mutex_lock(&s->lock);
            post_update(s);
            pthread_mutex_unlock(&s->lock);
        }
    }
    if (starved && out_fd < 0 && f && f->writable)
        f->writable(s->chardev.opaque);
}
