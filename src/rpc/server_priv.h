/* The inside of the server, for server.c, client_conn.c and stream.c only. */
#ifndef LODGE_RPC_SERVER_PRIV_H
#define LODGE_RPC_SERVER_PRIV_H

#include "base/loop.h"
#include "rpc/server.h"

#define CONN_PREAUTH_MAX 65536u     /* bytes of a packet before authentication */
#define CONN_UNREAD_HIGH (1u << 20) /* streams wait, and calls are not read, above this */
#define CONN_UNREAD_MAX (64u << 20) /* a client that leaves more unread is dropped */
#define CONN_STREAMS_MAX 64
#define CONN_STREAM_PACKET_MAX (4u << 20)

/* A packet, or several, on the way out, and a descriptor that follows it. */
struct conn_out {
    struct conn_out *next;
    struct rpc_buf buf;
    size_t off;
    int fd; /* -1: none */
};

struct rpc_client {
    struct rpc_server *server;
    struct rpc_client *prev, *next;
    int fd;
    struct loop_fd *watch;
    uint32_t events; /* that are watched */
    uid_t uid;
    pid_t pid;
    bool readonly, authenticated, keepalive, closing, dead;
    unsigned busy; /* inside of so many of our functions: freed by the outermost */
    uint8_t *in;
    size_t in_len, in_cap;
    int fds[RPC_FDS_MAX]; /* received, not used yet */
    unsigned n_fds;
    struct conn_out *out, **out_tail;
    size_t unread;
    struct rpc_call *calls;
    unsigned n_calls;
    struct rpc_stream *streams;
    unsigned n_streams, holds;
    uint64_t heard_ns; /* host time of the last packet */
    unsigned pings;
    void *data;
};

struct rpc_server {
    struct loop *loop;
    const struct clock *clock;
    struct rpc_limits limits;
    struct rpc_server_owner owner;
    struct listener *listeners;
    struct rpc_client *clients;
    unsigned n_clients;
    struct timer timer;
    bool accept_paused;
};

struct rpc_stream {
    struct rpc_client *client;
    struct rpc_stream *next;
    struct rpc_header header;
    const struct rpc_stream_ops *ops;
    void *opaque;
    bool held, waiting; /* for room */
};

/* conn.c */
void conn_new(struct rpc_server *s, int fd, bool readonly);
void conn_drop(struct rpc_client *c);
void conn_queue(struct rpc_client *c, struct rpc_buf *b, int fd); /* takes both over */
void conn_watch(struct rpc_client *c);                            /* what it should be listened for now */
void conn_keepalive(struct rpc_client *c, uint64_t now);
/* Looks at what has already come but was left because of a limit. */
void conn_resume(struct rpc_client *c);
void conn_enter(struct rpc_client *c);
void conn_leave(struct rpc_client *c); /* `c` may be gone afterwards */

/* stream.c */
void stream_packet(struct rpc_client *c, const struct rpc_header *h, const uint8_t *payload, size_t len);
void stream_drop_all(struct rpc_client *c);
void stream_room(struct rpc_client *c);

/* calls.c */
void call_packet(struct rpc_client *c, const struct rpc_header *h, const uint8_t *payload, size_t len, unsigned n_fds);
void call_drop_all(struct rpc_client *c);

#endif
