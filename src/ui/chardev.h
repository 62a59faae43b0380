/*
 * Character devices: where the bytes of a serial port or console go. The device (16550, virtio-console) is the front
 * end; a backend (terminal, file, socket, pty; see chardevs.c) is behind this interface. Everything is called on the
 * thread of the loop the chardev was made with, except chardev_write(), which any thread may call.
 *
 * From guest to host: chardev_write() takes what fits and never waits. When it took less than all, the front end's
 * writable() is called once there is room again. A backend with nobody on the other side takes everything and drops it.
 * A front end starts out with nobody on the other side and is told CHARDEV_OPENED, soon after it was connected where
 * that is always so (a file, a terminal). From host to guest: the backend asks can_receive() how many bytes the front
 * end has room for and calls receive() with at most that many; a front end that answered 0 calls chardev_accept_input()
 * when it has room again.
 */
#ifndef LODGE_UI_CHARDEV_H
#define LODGE_UI_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct chardev;

enum chardev_event {
    CHARDEV_OPENED, /* somebody is on the other side */
    CHARDEV_CLOSED,
    CHARDEV_BREAK, /* the user sends a break */
};

/* What a device gives; every member but receive may be NULL. No callback is made from inside a chardev_* call. */
struct chardev_frontend {
    size_t (*can_receive)(void *opaque); /* NULL: always room */
    void (*receive)(void *opaque, const uint8_t *buf, size_t len);
    void (*writable)(void *opaque);
    void (*event)(void *opaque, enum chardev_event event);
};

struct chardev_ops {
    const char *name;
    size_t (*write)(struct chardev *c, const uint8_t *buf, size_t len);
    void (*accept_input)(struct chardev *c);
    void (*set_frontend)(struct chardev *c); /* the front end has changed; may be NULL */
    void (*destroy)(struct chardev *c);      /* frees c */
};

/* Embedded first in each backend's own struct. */
struct chardev {
    const struct chardev_ops *ops;
    const struct chardev_frontend *frontend; /* NULL: input waits */
    void *opaque;
    const char *path; /* pty: the name of the other end; owned by the backend */
};

/* Bytes taken, at most `len`. Never blocks. Any thread. */
static inline size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t len)
{
    return c->ops->write(c, buf, len);
}

/* The front end has room for input again. Any thread. */
static inline void chardev_accept_input(struct chardev *c)
{
    if (c->ops->accept_input)
        c->ops->accept_input(c);
}

/* Connects the front end, or with NULL takes it away. On the loop's thread. */
static inline void chardev_set_frontend(struct chardev *c, const struct chardev_frontend *frontend, void *opaque)
{
    c->frontend = frontend;
    c->opaque = opaque;
    if (c->ops->set_frontend)
        c->ops->set_frontend(c);
}

/* NULL-safe. On the loop's thread, after the front end is gone. */
static inline void chardev_free(struct chardev *c)
{
    if (c)
        c->ops->destroy(c);
}

/* What a user asked for; strings are not kept. */
struct chardev_options {
    const char *type; /* a name from chardevs.c: null, stdio, file, unix, pty */
    const char *path; /* file, unix */
    bool append;      /* file */
    bool connect;     /* unix: connect instead of listen */
    /* stdio: the user pressed the keys for an immediate end; NULL: SIGTERM to the own process. On the loop's thread. */
    void (*quit)(void *opaque);
    void *opaque;
};

/* Makes a backend of the named type on `loop`. */
int chardev_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err);

/* pty: the name of the other end ("/dev/pts/3"), for everything else NULL. */
static inline const char *chardev_path(const struct chardev *c)
{
    return c->path;
}

#endif
