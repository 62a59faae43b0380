/*
 * A guest's console as a stream: its pseudo terminal on one side, a client on the other. One client at a time; a second
 * one is refused, or with FORCE takes the place of the first.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "daemon/daemon.h"
#include "domain/xml.h"

#define PENDING_MAX (1u << 20) /* bytes typed that the guest has not taken */
#define PENDING_HIGH 65536u

struct console {
    struct daemon *d;
    struct guest *g;
    struct rpc_stream *stream;
    int fd;
    struct loop_fd *watch;
    uint8_t *pending;
    size_t n_pending;
    bool full; /* the client does not read */
};

static void listen_for(struct console *c)
{
    loop_mod_fd(c->watch, (c->full ? 0 : EPOLLIN) | (c->n_pending ? EPOLLOUT : 0));
}

static void write_pending(struct console *c)
{
    ssize_t n = write(c->fd, c->pending, c->n_pending);
    if (n > 0) {
        memmove(c->pending, c->pending + n, c->n_pending - n);
        c->n_pending -= n;
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        c->n_pending = 0;
    }
    if (c->n_pending < PENDING_HIGH)
        rpc_stream_hold(c->stream, false);
}

static void on_tty(void *opaque, uint32_t events)
{
    struct console *c = opaque;
    uint8_t buf[16384];
    if (events & EPOLLOUT)
        write_pending(c);
    if (events & (EPOLLIN | EPOLLHUP)) {
        ssize_t n = read(c->fd, buf, sizeof buf);
        if (n > 0) {
            rpc_stream_send(c->stream, buf, n);
            c->full = !rpc_stream_room(c->stream);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            loop_del_fd(c->watch); /* the guest is ending */
            c->watch = NULL;
            rpc_stream_eof(c->stream);
            return;
        }
    }
    listen_for(c);
}

static int on_data(void *opaque, const uint8_t *data, size_t len, struct rpc_error *e)
{
    struct console *c = opaque;
    if (c->n_pending + len > PENDING_MAX)
        return verr_set(e, VIR_OPERATION_FAILED, "the guest does not read its console");
    c->pending = realloc(c->pending, c->n_pending + len);
    if (!c->pending)
        abort();
    memcpy(c->pending + c->n_pending, data, len);
    c->n_pending += len;
    if (c->watch) {
        write_pending(c);
        listen_for(c);
    }
    if (c->n_pending >= PENDING_HIGH)
        rpc_stream_hold(c->stream, true);
    return 0;
}

static void on_room(void *opaque)
{
    struct console *c = opaque;
    c->full = false;
    if (c->watch)
        listen_for(c);
}

static void on_closed(void *opaque)
{
    struct console *c = opaque;
    if (c->g && c->g->console == c)
        c->g->console = NULL;
    loop_del_fd(c->watch);
    fd_closep(&c->fd);
    free(c->pending);
    free(c);
}

static const struct rpc_stream_ops ops = {.data = on_data, .room = on_room, .closed = on_closed};

void console_ended(struct guest *g)
{
    struct console *c = g->console;
    if (!c)
        return;
    c->g = NULL;
    g->console = NULL;
    if (c->watch) {
        /* What it said last is still in the terminal. */
        uint8_t buf[16384];
        ssize_t n;
        for (int i = 0; i < 16 && (n = read(c->fd, buf, sizeof buf)) > 0; i++)
            rpc_stream_send(c->stream, buf, n);
        loop_del_fd(c->watch);
        c->watch = NULL;
        rpc_stream_eof(c->stream);
    }
}

static const char *alias_of(const struct domain_unknown *u)
{
    for (unsigned i = 0; i < u->n_items; i++)
        if (u->items[i].node && !*u->items[i].path && !strcmp(u->items[i].node->name, "alias"))
            return xml_attr_get(u->items[i].node, "name");
    return NULL;
}

static bool is_named(const struct domain_unknown *u, const char *name)
{
    const char *alias = alias_of(u);
    return !name || (alias && !strcmp(alias, name));
}

/* The console of that name, or the first. */
static const struct domain_chardev *find(const struct domain *d, const char *name)
{
    for (unsigned i = 0; i < d->n_consoles; i++)
        if (is_named(&d->consoles[i].unknown, name))
            return &d->consoles[i].chardev;
    for (unsigned i = 0; i < d->n_serials; i++)
        if (is_named(&d->serials[i].unknown, name))
            return &d->serials[i].chardev;
    return NULL;
}

static int open_console(struct daemon *d, struct rpc_call *call)
{
    ARGS(rp_dom_ostr_flags);
    enum { FORCE = 1, SAFE = 2 };
    struct guest *g = call_active(d, call, &a->dom);
    const char *name = a->text ? *a->text : NULL;
    if (!g || call_flags(call, a->flags, FORCE | SAFE) < 0)
        return RPC_FAILED;
    const struct domain_chardev *chr = find(g->live, name);
    if (!chr)
        return name ? verr_set(&call->error, VIR_INTERNAL_ERROR, "cannot find character device %.100s", name)
                    : verr_set(&call->error, VIR_INTERNAL_ERROR, "cannot find default console device");
    if (chr->type != DOMAIN_CHARDEV_PTY || !chr->path)
        return verr_set(&call->error, VIR_INTERNAL_ERROR, "character device %s is not using a PTY",
                        name ? name : "console0");
    if (g->console && !(a->flags & FORCE))
        return verr_set(&call->error, VIR_OPERATION_FAILED, "Active console session exists for this domain");
    autofd int fd = open(chr->path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return verr_errno(&call->error, errno, "cannot open '%s'", chr->path);
    struct termios tio;
    if (tcgetattr(fd, &tio) == 0) {
        cfmakeraw(&tio);
        tcsetattr(fd, TCSANOW, &tio);
    }
    if (g->console) {
        struct console *old = g->console;
        struct rpc_error e = {.domain = VIR_FROM_STREAMS};
        verr_set(&e, VIR_OPERATION_ABORTED, "another client has taken the console");
        rpc_stream_fail(old->stream, &e);
    }
    struct console *c = xcalloc(1, sizeof *c);
    *c = (struct console){.d = d, .g = g, .fd = -1};
    c->stream = rpc_stream_new(call, &ops, c);
    if (!c->stream) {
        free(c);
        return RPC_FAILED;
    }
    c->fd = fd_take(fd);
    c->watch = loop_add_fd(d->loop, c->fd, EPOLLIN, on_tty, c);
    g->console = c;
    return RPC_DONE;
}

const struct driver driver_domain_console = {
    .name = "domain console",
    .program = RPC_REMOTE_PROGRAM,
    .error_domain = VIR_FROM_QEMU,
    .handlers = (const struct handler[]){{RPC_PROC_DOMAIN_OPEN_CONSOLE, open_console}, {0}},
};
