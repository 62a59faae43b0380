/*
 * The VNC server's process: listens, takes what the machine says, keeps the list of viewers. One thread, one loop. It
 * ends when the machine's process does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "ui/vnc_priv.h"

void server_tell(struct vnc_server *s, uint32_t kind, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
    struct vnc_message m = {kind, x, y, w, h};
    while (send(s->link, &m, sizeof m, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

void server_watched(struct vnc_server *s)
{
    server_tell(s, VNC_WATCHED, s->clients != NULL, 0, 0, 0);
}

static void take_screen(struct vnc_server *s, const struct vnc_message *m, int fd)
{
    if (fd >= 0 && !s->pixels) {
        void *p = mmap(NULL, UI_SURFACE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
        s->pixels = p == MAP_FAILED ? NULL : p;
    }
    s->width = MIN(m->w, UI_WIDTH_MAX);
    s->height = MIN(m->h, UI_HEIGHT_MAX);
    for (struct vnc_client *c = s->clients; c; c = c->next) {
        c->size_changed = true;
        c->size_reason = 0;
        memset(c->dirty, 0, sizeof c->dirty);
        viewer_damage(c, 0, 0, s->width, s->height);
    }
}

static void take(struct vnc_server *s, const struct vnc_message *m, const uint8_t *more, size_t len, int fd)
{
    switch (m->kind) {
    case VNC_SCREEN:
        take_screen(s, m, fd);
        break;
    case VNC_DAMAGE:
        for (struct vnc_client *c = s->clients; c; c = c->next)
            viewer_damage(c, m->x, m->y, m->w, m->h);
        server_tell(s, VNC_READY, 0, 0, 0, 0);
        break;
    case VNC_CURSOR:
        if (m->w > UI_CURSOR_MAX || m->h > UI_CURSOR_MAX || len != (size_t)m->w * m->h * 4)
            break;
        s->cursor.width = m->w;
        s->cursor.height = m->h;
        s->cursor.hot_x = m->x;
        s->cursor.hot_y = m->y;
        memcpy(s->cursor.pixels, more, len);
        for (struct vnc_client *c = s->clients; c; c = c->next)
            c->cursor_changed = true;
        break;
    }
}

static void link_ready(void *opaque, uint32_t events)
{
    struct vnc_server *s = opaque;
    static uint8_t more[UI_CURSOR_MAX * UI_CURSOR_MAX * 4];
    for (;;) {
        struct vnc_message m;
        struct iovec iov[2] = {{&m, sizeof m}, {more, sizeof more}};
        union {
            char buf[CMSG_SPACE(sizeof(int))];
            struct cmsghdr align;
        } control;
        struct msghdr msg = {
            .msg_iov = iov, .msg_iovlen = 2, .msg_control = control.buf, .msg_controllen = sizeof control.buf};
        ssize_t n = recvmsg(s->link, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < (ssize_t)sizeof m)
            _exit(0); /* the machine's process has ended */
        autofd int fd = -1;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c && c->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
        take(s, &m, more, (size_t)n - sizeof m, fd);
    }
    for (struct vnc_client *c = s->clients, *next; c; c = next) {
        next = c->next;
        viewer_update(c);
    }
}

struct door {
    struct vnc_server *server;
    int fd;
    bool websocket;
};

static void knock(void *opaque, uint32_t events)
{
    struct door *d = opaque;
    int fd = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        viewer_accept(d->server, fd, d->websocket);
}

void server_run(struct vnc_server *s, const int *listen_fds, unsigned n, int websocket_fd)
{
    struct err err;
    struct door *doors = xcalloc(n + 1, sizeof *doors);
    struct rlimit files = {64, 64};
    /* Descriptors that other threads' code may have left open: none but ours and the log's. */
    for (int fd = 3; fd < 1024; fd++) {
        bool ours = fd == s->link || fd == websocket_fd;
        for (unsigned i = 0; i < n; i++)
            ours |= fd == listen_fds[i];
        if (!ours)
            close(fd);
    }
    setrlimit(RLIMIT_NOFILE, &files);
    if (loop_new(&s->loop, &err) < 0)
        _exit(1);
    loop_add_fd(s->loop, s->link, EPOLLIN, link_ready, s);
    for (unsigned i = 0; i < n; i++) {
        doors[i] = (struct door){s, listen_fds[i], false};
        loop_add_fd(s->loop, listen_fds[i], EPOLLIN, knock, &doors[i]);
    }
    if (websocket_fd >= 0) {
        doors[n] = (struct door){s, websocket_fd, true};
        loop_add_fd(s->loop, websocket_fd, EPOLLIN, knock, &doors[n]);
    }
    if (confine_server() < 0)
        _exit(1);
    loop_run(s->loop);
    _exit(0);
}
