/* Inside of the client: client.c, connect.c, stream.c. */
#ifndef LODGE_RPC_CLIENT_PRIV_H
#define LODGE_RPC_CLIENT_PRIV_H

#include "rpc/client.h"

struct client_packet {
    struct client_packet *next;
    struct rpc_header header;
    size_t len;
    uint8_t data[];
};

/* A call under way: number `first` + its index. */
struct client_slot {
    const struct rpc_proc *proc;
    struct client_packet *reply;
    bool taken; /* its answer was handed out */
};

struct client_stream {
    struct client *c;
    const struct rpc_proc *proc;
    uint32_t serial;
    struct client_packet *queue, *queue_last, *current; /* data that came; `current` was handed out */
    size_t queued;                                      /* bytes */
    bool ended;                                         /* the server has no more data */
    bool finished;                                      /* the server said that it is over, well or with `error` */
    struct rpc_error error;
};

struct client {
    int fd;
    char *uri, *socket;
    bool readonly, dead;
    struct rpc_buf in, out;
    size_t out_at;        /* sent of `out` */
    uint32_t first, next; /* serials: of slots[0], and of the next call */
    struct client_slot *slots;
    unsigned n_slots, size_slots;
    struct client_stream *stream; /* one at a time */
    void (*on_event)(void *opaque, const struct rpc_proc *proc, void *msg);
    void *event_opaque;
    int64_t last_packet; /* when the server was last heard, ms */
    int idle_ms, idle_count, pings;
};

/* Sends what is to be sent and handles what comes; waits at most `timeout_ms` for something. 0, or -1 and *e. */
int client_io(struct client *c, int timeout_ms, struct rpc_error *e);
/* The connection is lost, because of `what`. Returns -1. */
int client_lost(struct client *c, struct rpc_error *e, const char *what);
int client_stream_deliver(struct client *c, const struct rpc_header *h, const uint8_t *payload, size_t len,
                          struct rpc_error *e);
void client_free(struct client *c);

#endif
