/*
 * One connection to the monitor. Input is cut into JSON values by counting brackets, so that messages may span lines or
 * share one; a message that is too long or too deep ends the connection. While a client leaves much unread its commands
 * wait; one that lets events pile up is thrown out.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "monitor/private.h"

#define READ_SIZE 16384
#define UNREAD_PAUSE (256u << 10) /* more than this unread: no further command is taken */

struct client {
    struct client *next;
    struct qmp_session session;
    int fd;
    struct loop_fd *watch;
    bool gone;    /* to be freed when the call from the loop is over */
    bool busy;    /* inside on_ready() */
    bool closing; /* when the output is out */

    char *in; /* one message so far */
    size_t in_len, in_cap;
    unsigned depth;
    bool in_string, escaped;

    char *out;
    size_t out_at, out_len, out_cap;
};

struct client *client_next(const struct client *c)
{
    return c->next;
}

bool client_negotiated(const struct client *c)
{
    return c->session.negotiated;
}

static void drop(struct client *c)
{
    c->gone = true;
    if (c->watch)
        loop_del_fd(c->watch);
    c->watch = NULL;
}

static bool paused(const struct client *c)
{
    return c->out_len - c->out_at > UNREAD_PAUSE;
}

static void rewatch(struct client *c)
{
    if (c->watch)
        loop_mod_fd(c->watch, (paused(c) || c->closing ? 0 : EPOLLIN) | (c->out_len > c->out_at ? EPOLLOUT : 0));
}

static void flush(struct client *c)
{
    while (!c->gone && c->out_at < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            drop(c);
            return;
        }
        c->out_at += n;
    }
    if (c->out_at == c->out_len) {
        c->out_at = c->out_len = 0;
        if (c->closing)
            drop(c);
    }
    rewatch(c);
}

static void put(struct client *c, const char *s, size_t n)
{
    if (c->out_at) {
        memmove(c->out, c->out + c->out_at, c->out_len - c->out_at);
        c->out_len -= c->out_at;
        c->out_at = 0;
    }
    if (c->out_len + n > c->out_cap) {
        c->out_cap = (c->out_len + n) * 2;
        c->out = realloc(c->out, c->out_cap);
        if (!c->out)
            abort();
    }
    memcpy(c->out + c->out_len, s, n);
    c->out_len += n;
}

void client_send(struct client *c, const json_t *message)
{
    if (c->gone || c->closing)
        return;
    autofree char *s = json_dumps(message, 0);
    if (!s)
        return;
    size_t n = strlen(s);
    if (c->out_len - c->out_at + n > MONITOR_OUTPUT_MAX) {
        drop(c);
        if (!c->busy)
            client_free(c);
        return;
    }
    put(c, s, n);
    put(c, "\r\n", 2);
    flush(c);
    if (c->gone && !c->busy)
        client_free(c);
}

static void execute(struct client *c)
{
    json_error_t e;
    json_t *message = json_loadb(c->in, c->in_len, JSON_REJECT_DUPLICATES, &e);
    json_t *reply = qmp_execute(&c->session, message, message ? NULL : e.text);
    c->in_len = 0;
    if (c->session.quit) { /* its event comes before the reply, as with QEMU */
        c->session.quit = false;
        c->session.m->vm.ops->quit(c->session.m->vm.opaque);
    }
    if (reply)
        client_send(c, reply);
    json_decref(reply);
    json_decref(message);
}

/* What cannot be a message: says so, and ends the connection when the answer is out. */
static void refuse(struct client *c, const char *why)
{
    json_t *reply = qmp_execute(&c->session, NULL, why);
    client_send(c, reply);
    json_decref(reply);
    c->closing = true;
    flush(c);
}

static void keep(struct client *c, char ch)
{
    if (c->in_len == c->in_cap) {
        c->in_cap = c->in_cap ? c->in_cap * 2 : 512;
        c->in = realloc(c->in, c->in_cap);
        if (!c->in)
            abort();
    }
    c->in[c->in_len++] = ch;
}

static void take(struct client *c, char ch)
{
    if (!c->depth && !c->in_len && isspace((unsigned char)ch))
        return;
    if (!c->depth && ch == '\n') { /* a word outside of any object */
        execute(c);
        return;
    }
    if (c->in_len >= MONITOR_INPUT_MAX) {
        refuse(c, "the message is longer than 1 MiB");
        return;
    }
    keep(c, ch);
    if (c->in_string) {
        if (c->escaped)
            c->escaped = false;
        else if (ch == '\\')
            c->escaped = true;
        else if (ch == '"')
            c->in_string = false;
        else if (ch == '\n') { /* never inside a string: an earlier message was damaged, start afresh */
            c->in_string = false;
            c->depth = 0;
            execute(c);
        }
    } else if (ch == '"' && c->depth) {
        c->in_string = true;
    } else if (ch == '{' || ch == '[') {
        if (++c->depth > MONITOR_DEPTH_MAX)
            refuse(c, "the message is nested too deeply");
    } else if ((ch == '}' || ch == ']') && c->depth && --c->depth == 0) {
        execute(c);
    }
}

static void on_ready(void *opaque, uint32_t events)
{
    struct client *c = opaque;
    c->busy = true;
    if (events & EPOLLOUT)
        flush(c);
    if (!c->gone && !c->closing && !paused(c) && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        char buf[READ_SIZE];
        ssize_t n = recv(c->fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            drop(c);
        for (ssize_t i = 0; i < n && !c->gone && !c->closing; i++)
            take(c, buf[i]);
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        drop(c);
    }
    c->busy = false;
    if (c->gone)
        client_free(c);
}

void client_new(struct monitor *m, int fd)
{
    struct client *c = xcalloc(1, sizeof *c);
    c->fd = fd;
    c->session.m = m;
    c->next = m->clients;
    m->clients = c;
    m->n_clients++;
    c->watch = loop_add_fd(m->loop, fd, EPOLLIN, on_ready, c);
    json_t *version = qmp_execute(&c->session, NULL, NULL);
    client_send(c, version);
    json_decref(version);
}

void client_free(struct client *c)
{
    struct monitor *m = c->session.m;
    for (struct client **link = &m->clients; *link; link = &(*link)->next) {
        if (*link == c) {
            *link = c->next;
            m->n_clients--;
            break;
        }
    }
    if (c->watch)
        loop_del_fd(c->watch);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}
