/*
 * What all character device backends share: bytes to and from file descriptors, without ever waiting. stream_write()
 * may run on any thread (a vCPU's, mostly) and holds the lock for one system call; everything else is on the loop's
 * thread. Input waits in a small buffer until the front end has room; while it is full nothing is read.
 */
#ifndef LODGE_UI_STREAM_H
#define LODGE_UI_STREAM_H

#include <pthread.h>

#include "base/loop.h"
#include "ui/chardev.h"

#define STREAM_PENDING 4096

/* How to write to out_fd without waiting. */
enum stream_out {
    STREAM_NONBLOCK, /* it is O_NONBLOCK, or never waits (a regular file) */
    STREAM_SOCKET,   /* MSG_DONTWAIT */
    STREAM_CAREFUL,  /* shared with others and blocking: ask poll() and write little */
};

struct stream {
    struct chardev chardev; /* first */
    struct loop *loop;
    pthread_mutex_t lock; /* guards out_fd, starved, posted and connected */
    int in_fd, out_fd;    /* -1: none; may be the same */
    enum stream_out out;
    bool connected; /* somebody is on the other side */
    bool starved;   /* a write took less than all */
    bool posted;    /* a call of update() is on its way */
    bool dead;      /* destroyed; the last posted call frees it */
    bool told;      /* what the front end knows of `connected` */
    bool no_poll;   /* in_fd cannot be polled: it is a file */
    bool drops;     /* input for which there is no room is dropped: a person types it */
    struct loop_fd *in_watch, *out_watch;
    uint8_t pending[STREAM_PENDING];
    size_t pending_at, pending_end;

    /* The backend's parts; NULL where there is nothing to do. */
    size_t (*filter)(struct stream *s, uint8_t *buf, size_t len); /* edits fresh input in place, returns what is left */
    void (*hangup)(struct stream *s);                             /* the other side is gone */
    void (*close)(struct stream *s);                              /* frees the backend's own things, not `s` */
};

/* For chardev_ops: the same for every backend. */
size_t stream_write(struct chardev *c, const uint8_t *buf, size_t len);
void stream_accept_input(struct chardev *c);
void stream_set_frontend(struct chardev *c);
void stream_destroy(struct chardev *c);

/* Makes the common part; `size` is that of the backend's struct, which starts with a struct stream. */
void *stream_new(size_t size, struct loop *loop, const struct chardev_ops *ops);
/* Somebody (not) on the other side: sets the descriptors, not owned, and lets the front end know. */
void stream_connect(struct stream *s, int in_fd, int out_fd, enum stream_out out);
void stream_disconnect(struct stream *s);

#define STREAM_OPS(type)                                                                                               \
    {                                                                                                                  \
        .name = type, .write = stream_write, .accept_input = stream_accept_input, .set_frontend = stream_set_frontend, \
        .destroy = stream_destroy,                                                                                     \
    }

/* The backends, listed in chardevs.c. */
int chardev_null_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err);
int chardev_stdio_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err);
int chardev_file_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err);
int chardev_unix_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err);
int chardev_pty_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err);

#endif
