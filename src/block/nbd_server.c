/* The NBD server's clients: their threads, from the first byte to the last. See nbd_server.h. */
#include "block/nbd_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/nbd_conn.h"

uint16_t nbd_export_flags(const struct nbd_server *s, const struct nbd_export *e)
{
    unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_SEND_DF | NBD_SEND_CACHE;
    flags |= e->read_only ? NBD_READ_ONLY : NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
    return (uint16_t)(flags | (s->multi_conn ? NBD_CAN_MULTI_CONN : 0));
}

static void *client(void *opaque)
{
    struct nbd_conn *c = opaque;
    struct nbd_server *s = c->server;
    if (nbd_handshake(c)) {
        pthread_mutex_lock(&s->lock);
        c->served = true;
        pthread_mutex_unlock(&s->lock);
        nbd_serve(c);
    }
    shutdown(c->fd, SHUT_RDWR);
    pthread_mutex_lock(&s->lock);
    c->finished = true;
    pthread_mutex_unlock(&s->lock);
    if (s->gone)
        s->gone(s->opaque);
    return NULL;
}

static void conn_free(struct nbd_conn *c)
{
    pthread_join(c->thread, NULL);
    close(c->fd);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->send_lock);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->room);
    free(c);
}

/* Takes out those whose threads have ended (or all) and frees them. */
static void reap(struct nbd_server *s, bool all)
{
    struct nbd_conn *gone = NULL;
    pthread_mutex_lock(&s->lock);
    for (struct nbd_conn **p = &s->conns, *c; (c = *p);) {
        if (!all && !c->finished) {
            p = &c->next;
            continue;
        }
        shutdown(c->fd, SHUT_RDWR);
        *p = c->next;
        c->next = gone;
        gone = c;
    }
    pthread_mutex_unlock(&s->lock);
    for (struct nbd_conn *next; gone; gone = next) {
        next = gone->next;
        conn_free(gone);
    }
}

struct nbd_server *nbd_server_new(const struct nbd_export *exports, unsigned n, bool multi_conn,
                                  void (*gone)(void *opaque), void *opaque)
{
    struct nbd_server *s = xcalloc(1, sizeof *s);
    *s = (struct nbd_server){.exports = exports, .n_exports = n, .multi_conn = multi_conn, .gone = gone, .opaque = opaque};
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->bitmap_lock, NULL);
    return s;
}

void nbd_server_free(struct nbd_server *s)
{
    if (!s)
        return;
    reap(s, true);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->bitmap_lock);
    free(s);
}

int nbd_server_add(struct nbd_server *s, int fd)
{
    static const int on = 1;
    reap(s, false);
    if (nbd_server_clients(s, NULL) >= NBD_CLIENTS_MAX) {
        close(fd);
        return -EMFILE;
    }
    struct nbd_conn *c = xcalloc(1, sizeof *c);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* no matter for UNIX sockets */
    c->server = s;
    c->fd = fd;
    c->tail = &c->head;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->send_lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->room, NULL);
    pthread_mutex_lock(&s->lock);
    int code = pthread_create(&c->thread, NULL, client, c);
    if (code == 0) {
        c->next = s->conns;
        s->conns = c;
    }
    pthread_mutex_unlock(&s->lock);
    if (code) {
        close(fd);
        free(c);
    }
    return -code;
}

unsigned nbd_server_clients(struct nbd_server *s, unsigned *ret_served)
{
    unsigned n = 0, served = 0;
    pthread_mutex_lock(&s->lock);
    for (struct nbd_conn *c = s->conns; c; c = c->next) {
        n += !c->finished;
        served += c->served;
    }
    pthread_mutex_unlock(&s->lock);
    if (ret_served)
        *ret_served = served;
    return n;
}
