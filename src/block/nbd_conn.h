/* One client of the NBD server, as nbd_server.c, nbd_handshake.c and nbd_serve.c share it. */
#ifndef LODGE_BLOCK_NBD_CONN_H
#define LODGE_BLOCK_NBD_CONN_H

#include <pthread.h>

#include "block/nbd.h"
#include "block/nbd_server.h"

enum {
    NBD_INPUT = 256 << 10,         /* bytes taken from the socket at a time */
    NBD_HELPERS = 8,               /* threads for requests that wait */
    NBD_QUEUE_BYTES = 64 << 20,    /* of requests that wait for a helper */
    NBD_QUEUE_MAX = 256,           /* such requests */
    NBD_HANDSHAKE_MS = 20000,      /* as long as the negotiation may take */
    NBD_OPTIONS_MAX = 1000,        /* options a client may try */
    NBD_OPTION_BYTES = 64 << 10,   /* of one option */
    NBD_STATUS_EXTENTS = 2048,     /* in one answer to a block status request */
};

enum { NBD_CONTEXT_ALLOCATION = 1, NBD_CONTEXT_DEPTH = 2, NBD_CONTEXT_BITMAP = 4 }; /* bits; BITMAP << i */

struct nbd_conn {
    struct nbd_server *server;
    struct nbd_conn *next;
    pthread_t thread;
    int fd;
    bool finished; /* its thread has nothing left to do */
    /* negotiated */
    const struct nbd_export *export;
    bool structured, no_zeroes, served;
    uint32_t contexts;
    /* sending: whole replies, one after the other */
    pthread_mutex_t send_lock;
    bool broken;
    /* requests that wait for a helper */
    pthread_mutex_t lock;
    pthread_cond_t work, room;
    struct nbd_request *head, **tail;
    unsigned queued, idle, n_helpers;
    uint64_t queued_bytes;
    bool stop;
    pthread_t helpers[NBD_HELPERS];
};

struct nbd_server {
    const struct nbd_export *exports;
    unsigned n_exports;
    bool multi_conn;
    void (*gone)(void *opaque);
    void *opaque;
    pthread_mutex_t bitmap_lock; /* bitmaps are read by one thread at a time */
    pthread_mutex_t lock;
    struct nbd_conn *conns;
};

/* The export's flags as they are sent. */
uint16_t nbd_export_flags(const struct nbd_server *s, const struct nbd_export *e);
/* Negotiates; true: an export was chosen. On the client's thread. */
bool nbd_handshake(struct nbd_conn *c);
/* Answers requests until the client leaves. On the client's thread. */
void nbd_serve(struct nbd_conn *c);

#endif
