/*
 * The gdb server's connection: listening, and packets out of and into the byte stream ("$data#sum", "+", "-", and 0x03
 * for an interrupt; gdb manual, "Overview" of the Remote Protocol). A packet that is too long or damaged is refused by "-",
 * other bytes between packets are ignored. See gdb.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/sock.h"
#include "monitor/gdb_private.h"

void gdb_put(struct gdb_reply *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(r->s + r->len, sizeof r->s - r->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        r->len = MIN(r->len + (size_t)n, sizeof r->s - 1);
}

void gdb_put_hex(struct gdb_reply *r, const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n && r->len + 2 < sizeof r->s; i++) {
        r->s[r->len++] = digits[b[i] >> 4];
        r->s[r->len++] = digits[b[i] & 15];
    }
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool gdb_unhex(const char *s, void *ret, size_t n)
{
    uint8_t *b = ret;
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(s[2 * i]), low = high < 0 ? -1 : hex_digit(s[2 * i + 1]);
        if (low < 0)
            return false;
        b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* ---- output ---- */

static void rewatch(struct gdb *g)
{
    if (g->watch)
        loop_mod_fd(g->watch, (g->out_len > GDB_UNREAD_MAX ? 0 : EPOLLIN) | (g->out_len ? EPOLLOUT : 0));
}

/* False: the peer is gone. */
static bool flush(struct gdb *g)
{
    while (g->out_len) {
        ssize_t n = send(g->fd, g->out, g->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return false;
        memmove(g->out, g->out + n, g->out_len - (size_t)n);
        g->out_len -= (size_t)n;
    }
    rewatch(g);
    return true;
}

static void put_bytes(struct gdb *g, const char *s, size_t n)
{
    if (g->out_len + n > g->out_cap) {
        g->out_cap = (g->out_len + n) * 2;
        g->out = realloc(g->out, g->out_cap);
        if (!g->out)
            abort();
    }
    memcpy(g->out + g->out_len, s, n);
    g->out_len += n;
}

void gdb_send(struct gdb *g, const char *s, size_t n)
{
    if (g->fd < 0)
        return;
    free(g->last);
    char *p = g->last = xcalloc(1, 2 * n + 8);
    uint8_t sum = 0;
    *p++ = '$';
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '#' || c == '$' || c == '}' || c == '*') {
            *p++ = '}';
            sum += '}';
            c ^= 0x20;
        }
        *p++ = c;
        sum += (uint8_t)c;
    }
    p += sprintf(p, "#%02x", sum);
    g->last_len = (size_t)(p - g->last);
    put_bytes(g, g->last, g->last_len);
    /* A peer that is gone shows at the next look at its descriptor, outside of whoever sends. */
    (void)flush(g);
}

/* ---- input ---- */

static void packet_done(struct gdb *g)
{
    uint8_t sum = 0, want;
    for (size_t i = 0; i < g->in_len; i++)
        sum += (uint8_t)g->in[i];
    if (!g->no_ack) {
        bool good = gdb_unhex(g->sum, &want, 1) && want == sum;
        put_bytes(g, good ? "+" : "-", 1);
        if (!good)
            return;
    }
    size_t n = 0;
    for (size_t i = 0; i < g->in_len; i++) {
        char c = g->in[i];
        if (c == '}' && i + 1 < g->in_len)
            c = (char)(g->in[++i] ^ 0x20);
        g->in[n++] = c;
    }
    g->in[n] = 0;
    gdb_packet(g, g->in, n);
}

static void take(struct gdb *g, char c)
{
    switch (g->rx) {
    case GDB_IDLE:
        if (c == '$') {
            g->rx = GDB_PACKET;
            g->in_len = 0;
        } else if (c == 3) {
            gdb_interrupt(g);
        } else if (c == '-' && !g->no_ack && g->last) {
            put_bytes(g, g->last, g->last_len);
        }
        break;
    case GDB_PACKET:
        if (c == '#')
            g->rx = GDB_SUM1;
        else if (c == '$')
            g->in_len = 0; /* the one before was cut off */
        else if (g->in_len == GDB_PACKET_MAX)
            g->rx = GDB_TOO_LONG;
        else
            g->in[g->in_len++] = c;
        break;
    case GDB_TOO_LONG:
        if (c == '#') {
            g->rx = GDB_IDLE;
            put_bytes(g, "-", 1);
        }
        break;
    case GDB_SUM1:
        g->sum[0] = c;
        g->rx = GDB_SUM2;
        break;
    case GDB_SUM2:
        g->sum[1] = c;
        g->rx = GDB_IDLE;
        packet_done(g);
        break;
    }
}

void gdb_drop(struct gdb *g)
{
    const struct gdb_target_ops *ops = g->target.ops;
    enum gdb_how how[GDB_CPUS_MAX] = {GDB_RUN};
    if (g->fd < 0)
        return;
    loop_del_fd(g->watch);
    close(g->fd);
    g->watch = NULL;
    g->fd = -1;
    g->out_len = 0;
    bool points = g->n_points;
    g->running = false;
    g->n_points = 0;
    if (points && ops->running(g->target.opaque))
        ops->stop(g->target.opaque);
    ops->set_points(g->target.opaque, NULL, 0);
    if (!ops->running(g->target.opaque))
        ops->resume(g->target.opaque, how);
}

static void on_ready(void *opaque, uint32_t events)
{
    struct gdb *g = opaque;
    char buf[4096];
    if (events & EPOLLOUT && !flush(g)) {
        gdb_drop(g);
        return;
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t n = recv(g->fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        gdb_drop(g);
        return;
    }
    for (ssize_t i = 0; i < n && g->fd >= 0; i++)
        take(g, buf[i]);
    if (g->fd >= 0 && !flush(g))
        gdb_drop(g);
}

static void on_connect(void *opaque, uint32_t events)
{
    struct gdb *g = opaque;
    int fd = accept4(g->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (g->fd >= 0) { /* one at a time */
        close(fd);
        return;
    }
    static const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a UNIX socket knows it not and needs it not */
    g->fd = fd;
    g->rx = GDB_IDLE;
    g->no_ack = g->says_why = g->running = false;
    g->cpu = g->step_cpu = 0;
    free(g->last);
    g->last = NULL;
    g->watch = loop_add_fd(g->loop, fd, EPOLLIN, on_ready, g);
    g->target.ops->stop(g->target.opaque);
    snprintf(g->stop, sizeof g->stop, "T05thread:01;");
}

/* ---- life ---- */

bool gdb_where_valid(const char *where)
{
    return (!strncmp(where, "tcp=", 4) && where[4]) || (!strncmp(where, "unix=", 5) && where[5]);
}

int gdb_new(struct loop *loop, const char *where, const struct gdb_target *target, struct gdb **ret, struct err *err)
{
    if (!gdb_where_valid(where))
        return err_set(err, -EINVAL, "%s: is not tcp=[HOST:]PORT or unix=FILE", where);
    bool tcp = where[0] == 't';
    int fd = tcp ? sock_tcp_listen(where + 4, err) : sock_unix_listen(where + 5, err);
    if (fd < 0)
        return fd;
    struct gdb *g = xcalloc(1, sizeof *g);
    g->loop = loop;
    g->target = *target;
    g->path = tcp ? NULL : xstrdup(where + 5);
    g->fd = -1;
    g->listen_fd = fd;
    g->listen_watch = loop_add_fd(loop, fd, EPOLLIN, on_connect, g);
    *ret = g;
    return 0;
}

void gdb_free(struct gdb *g)
{
    if (!g)
        return;
    if (g->fd >= 0) {
        (void)flush(g);
        loop_del_fd(g->watch);
        close(g->fd);
    }
    loop_del_fd(g->listen_watch);
    close(g->listen_fd);
    if (g->path)
        unlink(g->path);
    free(g->path);
    free(g->out);
    free(g->last);
    free(g);
}
