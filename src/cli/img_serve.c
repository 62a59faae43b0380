/* `lodge img serve`: an image as an NBD server. The main thread accepts clients; src/block/nbd_server.h serves them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/sock.h"
#include "block/nbd_server.h"
#include "cli/img.h"

enum { LISTEN_MAX = 16, FIRST_PASSED_FD = 3 };

struct serving {
    struct img *img;
    struct blk_node *node;
    struct nbd_export export;
    int listen[LISTEN_MAX];
    unsigned n_listen;
    bool passed; /* the sockets came from who started us */
    char *socket_path, *pid_file;
    int signals, gone;
    unsigned shared; /* clients at a time; 0: no limit of ours */
    bool persistent;
};

static void client_gone(void *opaque)
{
    uint64_t one = 1;
    const struct serving *s = opaque;
    while (write(s->gone, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* ---- what is served ---- */

/* -s: writes go into a file that vanishes with us. */
static int use_temporary(struct serving *s, const char *name, unsigned flags)
{
    struct err err = {0};
    const char *dir = getenv("TMPDIR");
    autofree char *path = xasprintf("%s/lodge-XXXXXX", dir ? dir : "/var/tmp"), *base = realpath(name, NULL);
    const char *format = s->node->drv->name;
    auto_opts struct blk_opts *opts = blk_opts_new();
    int fd = mkstemp(path);
    if (fd < 0)
        return img_error(s->img, "%s: %s", path, strerror(errno));
    close(fd);
    blk_opts_set(opts, "backing_file", base ? base : name);
    blk_opts_set(opts, "backing_fmt", format);
    autofree char *size = xasprintf("%" PRIu64, (uint64_t)s->node->size);
    blk_opts_set(opts, "size", size);
    struct blk_node *top = NULL;
    int code = blk_create("qcow2", path, opts, &err);
    if (code == 0)
        code = blk_node_open(path, "qcow2", NULL, flags | BLK_O_RDWR | BLK_O_NO_FLUSH, &top, &err);
    unlink(path);
    if (code < 0)
        return img_error(s->img, "Could not make a temporary image: %s", err.msg);
    blk_node_unref(s->node);
    s->node = top;
    return 0;
}

static int open_image(struct serving *s)
{
    struct img *img = s->img;
    struct err err = {0};
    unsigned flags;
    const char *name = img_only_arg(img), *discard = img->value[IMG_DISCARD];
    if (!name || img_cache_flags(img, IMG_CACHE, img_has(img, IMG_NO_CACHE) ? "none" : "writeback", "cache mode", &flags) < 0)
        return -1;
    if (discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on")))
        flags |= BLK_O_UNMAP;
    else if (discard && strcmp(discard, "ignore") && strcmp(discard, "off"))
        return img_error(img, "Invalid discard mode `%s'", discard);
    bool temporary = img_has(img, IMG_TEMPORARY), snapshot = img_has(img, IMG_SNAPSHOT);
    bool read_only = img_has(img, IMG_READ_ONLY) || snapshot;
    if (temporary && snapshot)
        return img_error(img, "-s and -l do not go together");
    s->node = img_open(img, name, img->value[IMG_FORMAT], img_has(img, IMG_IMAGE_OPTS),
                       flags | (read_only || temporary ? 0 : BLK_O_RDWR));
    if (!s->node)
        return -1;
    if (snapshot && img_load_snapshot(img, s->node, img->value[IMG_SNAPSHOT]))
        return -1;
    if (temporary && use_temporary(s, name, flags))
        return -1;
    int64_t offset = 0;
    if (img_size_option(img, IMG_OFFSET, "offset", 0, INT64_MAX, &offset) < 0)
        return -1;
    uint64_t size = s->node->size;
    if ((uint64_t)offset > size)
        return img_error(img, "Offset (%" PRId64 ") has to be smaller than the image size (%" PRIu64 ")", offset, size);
    s->export = (struct nbd_export){.name = img_has(img, IMG_EXPORT) ? img->value[IMG_EXPORT] : "",
                                    .description = img->value[IMG_DESCRIPTION],
                                    .node = s->node,
                                    .read_only = read_only || s->node->read_only,
                                    .offset = (uint64_t)offset,
                                    .size = size - (uint64_t)offset,
                                    .depth = img_has(img, IMG_DEPTH_CONTEXT)};
    if (strlen(s->export.name) > 4096 || (s->export.description && strlen(s->export.description) > 4096))
        return img_error(img, "export name or description is longer than 4096 bytes");
    autofree struct blk_bitmap *list = NULL;
    unsigned n = 0;
    if (img_has(img, IMG_BITMAP) && blk_bitmap_list(s->node, &list, &n, &err) < 0)
        return img_error(img, "%s", err.msg);
    for (unsigned i = 0; i < img->n_given; i++) {
        if (img->given[i].key != IMG_BITMAP)
            continue;
        unsigned k = 0;
        while (k < n && strcmp(list[k].name, img->given[i].value))
            k++;
        if (k == n)
            return img_error(img, "Bitmap '%s' is not found", img->given[i].value);
        if (list[k].flags & BLK_BITMAP_IN_USE)
            return img_error(img, "Bitmap '%s' is inconsistent and cannot be used", list[k].name);
        if (s->export.n_bitmaps == NBD_BITMAPS_MAX)
            return img_error(img, "at most %d bitmaps", NBD_BITMAPS_MAX);
        s->export.bitmaps[s->export.n_bitmaps++] = img->given[i].value;
    }
    return 0;
}

/* ---- where it is served ---- */

static int open_sockets(struct serving *s)
{
    struct img *img = s->img;
    struct err err = {0};
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    if (pid && fds && strtol(pid, NULL, 10) == getpid()) { /* sd_listen_fds(3) */
        long n = strtol(fds, NULL, 10);
        if (n < 1 || n > LISTEN_MAX)
            return img_error(img, "LISTEN_FDS=%s: 1 to %d sockets can be passed", fds, LISTEN_MAX);
        if (img_has(img, IMG_SOCKET) || img_has(img, IMG_PORT) || img_has(img, IMG_BIND))
            return img_error(img, "sockets were passed already: no -k, -p, -b");
        for (long i = 0; i < n; i++) {
            s->listen[s->n_listen++] = FIRST_PASSED_FD + (int)i;
            fcntl(FIRST_PASSED_FD + (int)i, F_SETFD, FD_CLOEXEC);
            fcntl(FIRST_PASSED_FD + (int)i, F_SETFL, O_NONBLOCK);
        }
        s->passed = true;
        return 0;
    }
    int fd;
    if (img_has(img, IMG_SOCKET)) {
        if (img_has(img, IMG_PORT) || img_has(img, IMG_BIND))
            return img_error(img, "-k does not go with -p or -b");
        fd = sock_unix_listen(img->value[IMG_SOCKET], &err);
        if (fd >= 0)
            s->socket_path = xstrdup(img->value[IMG_SOCKET]);
    } else {
        const char *host = img_has(img, IMG_BIND) ? img->value[IMG_BIND] : "127.0.0.1";
        const char *port = img_has(img, IMG_PORT) ? img->value[IMG_PORT] : "10809";
        autofree char *address = xasprintf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
        fd = sock_tcp_listen(address, &err);
    }
    if (fd < 0)
        return img_error(img, "%s", err.msg);
    s->listen[s->n_listen++] = fd;
    return 0;
}

static int write_pid(struct serving *s)
{
    const char *path = s->img->value[IMG_PID_FILE];
    if (!path)
        return 0;
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    char text[32];
    int n = snprintf(text, sizeof text, "%d\n", getpid());
    if (fd < 0 || fd_write_full(fd, text, (size_t)n) < 0)
        return img_error(s->img, "Failed to store PID in file: %s: %s", path, strerror(errno));
    s->pid_file = xstrdup(path);
    return 0;
}

/* ---- serving ---- */

/* Until a signal, or the last client left (unless -t). */
static void serve(struct serving *s, struct nbd_server *server)
{
    bool had_clients = false;
    for (;;) {
        unsigned clients = nbd_server_clients(server, NULL), limit = s->shared ? s->shared : NBD_CLIENTS_MAX;
        bool accepting = clients < limit;
        struct pollfd p[LISTEN_MAX + 2] = {{s->signals, POLLIN, 0}, {s->gone, POLLIN, 0}};
        for (unsigned i = 0; i < s->n_listen; i++)
            p[2 + i] = (struct pollfd){s->listen[i], accepting ? POLLIN : 0, 0};
        if (poll(p, 2 + s->n_listen, -1) < 0)
            continue;
        if (p[0].revents)
            return;
        if (p[1].revents) {
            uint64_t n;
            unsigned served;
            if (read(s->gone, &n, sizeof n) < 0)
                continue;
            clients = nbd_server_clients(server, &served);
            had_clients |= served > 0;
            if (!clients && had_clients && !s->persistent)
                return;
        }
        for (unsigned i = 0; i < s->n_listen; i++) {
            if (!(p[2 + i].revents & POLLIN) || nbd_server_clients(server, NULL) >= limit)
                continue;
            int fd = accept4(s->listen[i], NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                nbd_server_add(server, fd);
        }
    }
}

/* Everything after the fork. `ready` (-1: none) is told when clients can connect. */
static int run(struct serving *s, int ready)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC);
    s->gone = eventfd(0, EFD_CLOEXEC);
    if (s->signals < 0 || s->gone < 0)
        return img_error(s->img, "%s", strerror(errno));
    if (open_image(s) || open_sockets(s) || write_pid(s))
        return IMG_ERROR;
    struct nbd_server *server = nbd_server_new(&s->export, 1, s->shared != 1, client_gone, s);
    if (ready >= 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        char ok = IMG_OK;
        if (null >= 0) {
            dup2(null, 0);
            dup2(null, 1);
            dup2(null, 2);
            close(null);
        }
        fd_write_full(ready, &ok, 1);
        close(ready);
    }
    serve(s, server);
    nbd_server_free(server);
    int code = s->node->read_only ? 0 : blk_pflush(s->node);
    return code < 0 ? img_error(s->img, "cannot write the image: %s", strerror(-code)) : IMG_OK;
}

static int run_forked(struct serving *s)
{
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC) < 0)
        return img_error(s->img, "%s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        return img_error(s->img, "Failed to fork: %s", strerror(errno));
    if (!child) {
        close(pipe_fd[0]);
        setsid();
        return run(s, pipe_fd[1]);
    }
    char status = IMG_ERROR;
    close(pipe_fd[1]);
    if (read(pipe_fd[0], &status, 1) != 1) /* it said why on our standard error */
        status = IMG_ERROR;
    close(pipe_fd[0]);
    return status;
}

int img_serve(struct img *img, int argc, char **argv)
{
    struct serving s = {.img = img, .signals = -1, .gone = -1};
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if (img_has(img, IMG_SHARED)) {
        char *end;
        long n = strtol(img->value[IMG_SHARED], &end, 10);
        if (*end || n < 0 || n > NBD_CLIENTS_MAX)
            return img_error(img, "Invalid shared device number '%s': 1 to %d, or 0 for all that can be", img->value[IMG_SHARED],
                             NBD_CLIENTS_MAX);
        s.shared = (unsigned)n;
    }
    s.persistent = img_has(img, IMG_PERSISTENT);
    int status = img_has(img, IMG_FORK) ? run_forked(&s) : run(&s, -1);
    for (unsigned i = 0; i < s.n_listen; i++)
        close(s.listen[i]);
    if (s.socket_path)
        unlink(s.socket_path);
    if (s.pid_file)
        unlink(s.pid_file);
    free(s.socket_path);
    free(s.pid_file);
    fd_closep(&s.signals);
    fd_closep(&s.gone);
    blk_node_unref(s.node);
    return status;
}
