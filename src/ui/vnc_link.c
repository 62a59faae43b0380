/* The machine's side of the VNC server: sockets, the process, and what goes to and comes from it. See vnc.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "ui/input.h"
#include "ui/keymap.h"
#include "ui/vnc_priv.h"

#define PORTS_TRIED 100

struct vnc {
    struct loop *loop;
    int link;
    pid_t pid;
    int port;
    char *socket;
    struct loop_fd *watch;
    struct ui_display *display;
    struct ui_input *input;
    struct ui_listener listener;
    bool ready;          /* the server has taken what we sent */
    struct ui_rect rect; /* damage that waits; w 0: none */
};

/* ---- sockets ---- */

static int listen_port(const char *address, int port, int *ret_port, struct err *err)
{
    char service[12];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list;
    int first = port < 0 ? -port : port, last = port < 0 ? -port + PORTS_TRIED : port, code = -EADDRINUSE;
    for (int p = first; p <= last; p++) {
        snprintf(service, sizeof service, "%d", p);
        int gai = getaddrinfo(address, service, &hints, &list);
        if (gai)
            return err_set(err, -EINVAL, "VNC: %s: %s", address, gai_strerror(gai));
        autofd int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int on = 1;
        if (fd >= 0)
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        bool ok = fd >= 0 && bind(fd, list->ai_addr, list->ai_addrlen) == 0 && listen(fd, 8) == 0;
        code = -errno;
        freeaddrinfo(list);
        if (ok) {
            *ret_port = p;
            return fd_take(fd);
        }
        if (code != -EADDRINUSE)
            break;
    }
    return err_errno(err, code, "VNC: cannot listen at %s port %d", address, first);
}

static int listen_path(const char *path, struct err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof sa.sun_path)
        return err_set(err, -ENAMETOOLONG, "VNC: %s: the path of a UNIX socket is at most 107 bytes long", path);
    strcpy(sa.sun_path, path);
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || chmod(path, 0600) < 0 || listen(fd, 8) < 0)
        return err_errno(err, -errno, "VNC: cannot listen at %s", path);
    return fd_take(fd);
}

static bool loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1") || !strcmp(address, "localhost");
}

/* ---- the process ---- */

static _Noreturn void child(const struct vnc_options *opt, int link, int fd, int websocket)
{
    struct vnc_server *s = xcalloc(1, sizeof *s);
    int fds[] = {fd};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "vnc");
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGINT, SIG_IGN); /* the terminal's keys are for the guest's process */
    signal(SIGPIPE, SIG_IGN);
    s->link = link;
    s->name = opt->name;
    s->exclusive_ok = opt->exclusive_ok;
    s->has_password = opt->password && *opt->password;
    if (s->has_password)
        snprintf(s->password, sizeof s->password, "%s", opt->password);
    server_run(s, fds, 1, websocket);
}

int vnc_start(const struct vnc_options *opt, struct vnc **ret, struct err *err)
{
    const char *address = opt->listen ? opt->listen : "127.0.0.1";
    autofd int fd = -1, ws = -1;
    int pair[2], port = 0, ws_port;
    if (!opt->socket && !loopback(address) && !(opt->password && *opt->password))
        return err_set(err, -EPERM,
                       "VNC: everybody could use the guest at %s: give it a password, or listen at 127.0.0.1", address);
    fd = opt->socket ? listen_path(opt->socket, err)
                     : listen_port(address, opt->port < 0 ? -5900 : opt->port, &port, err);
    if (fd < 0)
        return fd;
    if (opt->websocket) {
        ws = listen_port(address, opt->websocket < 0 ? -5700 : opt->websocket, &ws_port, err);
        if (ws < 0)
            return ws;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return err_errno(err, -errno, "VNC");
    pid_t pid = fork();
    if (pid < 0) {
        int code = err_errno(err, -errno, "cannot start the VNC server");
        close(pair[0]);
        close(pair[1]);
        return code;
    }
    if (!pid)
        child(opt, pair[1], fd, ws);
    close(pair[1]);
    struct vnc *v = xcalloc(1, sizeof *v);
    v->link = pair[0];
    v->pid = pid;
    v->port = port;
    v->socket = opt->socket ? xstrdup(opt->socket) : NULL;
    *ret = v;
    return 0;
}

int vnc_port(const struct vnc *v)
{
    return v->port;
}

/* ---- to the server ---- */

static void post(struct vnc *v, const struct vnc_message *m, const void *more, size_t more_len, int fd)
{
    struct iovec iov[2] = {{(void *)m, sizeof *m}, {(void *)more, more_len}};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = more ? 2 : 1};
    if (fd >= 0) {
        msg.msg_control = control.buf;
        msg.msg_controllen = sizeof control.buf;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    if (sendmsg(v->link, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN && v->watch) {
        log_warn("the VNC server is gone: %s", strerror(errno));
        loop_del_fd(ptr_take(v->watch));
    }
}

static void send_damage(struct vnc *v)
{
    if (!v->ready || !v->rect.w)
        return;
    v->ready = false;
    post(v, &(struct vnc_message){VNC_DAMAGE, v->rect.x, v->rect.y, v->rect.w, v->rect.h}, NULL, 0, -1);
    v->rect.w = 0;
}

static void resized(void *opaque, unsigned width, unsigned height)
{
    struct vnc *v = opaque;
    v->rect.w = 0;
    post(v, &(struct vnc_message){VNC_SCREEN, .w = width, .h = height}, NULL, 0, -1);
}

static void damaged(void *opaque, const struct ui_rect *rects, unsigned n)
{
    struct vnc *v = opaque;
    for (unsigned i = 0; i < n; i++) {
        struct ui_rect *r = &v->rect;
        const struct ui_rect *a = &rects[i];
        if (v->ready && n <= 4) { /* few: one by one */
            post(v, &(struct vnc_message){VNC_DAMAGE, a->x, a->y, a->w, a->h}, NULL, 0, -1);
            continue;
        }
        unsigned x2 = r->w ? MAX(r->x + r->w, a->x + a->w) : a->x + a->w,
                 y2 = r->w ? MAX(r->y + r->h, a->y + a->h) : a->y + a->h;
        r->x = r->w ? MIN(r->x, a->x) : a->x;
        r->y = r->w ? MIN(r->y, a->y) : a->y;
        r->w = x2 - r->x;
        r->h = y2 - r->y;
    }
    if (v->ready && n <= 4)
        v->ready = false;
    send_damage(v);
}

static void cursor(void *opaque, const struct ui_cursor *c)
{
    struct vnc *v = opaque;
    unsigned w = MIN(c->width, UI_CURSOR_MAX), h = MIN(c->height, UI_CURSOR_MAX);
    post(v, &(struct vnc_message){VNC_CURSOR, c->hot_x, c->hot_y, w, h}, c->pixels, (size_t)w * h * 4, -1);
}

/* ---- from the server ---- */

static void take(struct vnc *v, const struct vnc_message *m)
{
    bool shift;
    const struct key *key;
    switch (m->kind) {
    case VNC_READY:
        v->ready = true;
        send_damage(v);
        break;
    case VNC_WATCHED:
        ui_listener_activate(v->display, &v->listener, m->x != 0);
        break;
    case VNC_KEYSYM:
    case VNC_XT:
        key = m->kind == VNC_XT ? key_by_xt(m->x) : key_by_keysym(m->x, &shift);
        if (key)
            ui_input_key(v->input, key, m->y != 0);
        break;
    case VNC_POINTER: {
        unsigned w = ui_display_width(v->display), h = ui_display_height(v->display);
        unsigned x = MIN(m->x, w - 1), y = MIN(m->y, h - 1);
        ui_input_place(v->input, w > 1 ? x * UI_POINTER_MAX / (w - 1) : 0, h > 1 ? y * UI_POINTER_MAX / (h - 1) : 0,
                       (int)(m->h & 31) - 16, m->w & 31, w, h);
        break;
    }
    case VNC_RELEASE:
        ui_input_release_all(v->input);
        break;
    case VNC_WISH:
        ui_display_wish(v->display, MIN(m->w, UI_WIDTH_MAX), MIN(m->h, UI_HEIGHT_MAX));
        break;
    }
}

static void heard(void *opaque, uint32_t events)
{
    struct vnc *v = opaque;
    for (unsigned i = 0; i < 64; i++) {
        struct vnc_message m;
        ssize_t n = recv(v->link, &m, sizeof m, MSG_DONTWAIT);
        if (n == sizeof m) {
            take(v, &m);
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        log_warn("the VNC server has ended");
        loop_del_fd(ptr_take(v->watch));
        ui_listener_activate(v->display, &v->listener, false);
        return;
    }
}

void vnc_attach(struct vnc *v, struct loop *loop, struct ui_display *display, struct ui_input *input)
{
    v->loop = loop;
    v->display = display;
    v->input = input;
    v->listener = (struct ui_listener){.resized = resized, .damaged = damaged, .cursor = cursor, .opaque = v};
    v->ready = true;
    v->watch = loop_add_fd(loop, v->link, EPOLLIN, heard, v);
    post(v, &(struct vnc_message){VNC_SCREEN, .w = ui_display_width(display), .h = ui_display_height(display)}, NULL, 0,
         ui_display_fd(display));
    ui_display_listen(display, &v->listener);
}

void vnc_free(struct vnc *v)
{
    if (!v)
        return;
    if (v->display)
        ui_display_unlisten(v->display, &v->listener);
    loop_del_fd(v->watch);
    close(v->link);
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
    if (v->socket)
        unlink(v->socket);
    free(v->socket);
    free(v);
}
