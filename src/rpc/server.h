/*
 * The server's side of libvirt's protocol: sockets, clients, calls, streams, events, keepalive. One thread, one loop,
 * and nothing waits. What a client may cost is bounded: its unanswered calls, what it leaves unread, its packets' size.
 * What the procedures do is the owner's business.
 */
#ifndef LODGE_RPC_SERVER_H
#define LODGE_RPC_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "rpc/error.h"
#include "rpc/frame.h"
#include "rpc/procs.h"

struct loop;
struct clock;
struct rpc_server;
struct rpc_client;
struct rpc_stream;

/* What an owner's handler returns. */
#define RPC_FAILED (-1) /* call->error says why */
#define RPC_DONE 0      /* call->ret is the answer */
#define RPC_LATER 1     /* rpc_call_finish() will be called */

/* One call. The server makes it; after RPC_LATER it is the handler's until rpc_call_finish(). */
struct rpc_call {
    struct rpc_client *client;    /* NULL: gone, while the call was pending */
    struct rpc_call *prev, *next; /* the client's pending calls */
    struct rpc_header header;
    const struct rpc_proc *proc;
    void *args;
    void *ret; /* all that hangs below it was malloc()ed and is freed with it */
    struct rpc_error error;
    int fds[RPC_FDS_MAX]; /* came with the call; -1 where the handler took one */
    unsigned n_fds;
    int ret_fd; /* goes with the answer and is closed then; -1: none */
    void *data; /* the handler's own, while it is pending */
};
/* Answers, with call->error if its code is set, and frees the call. */
void rpc_call_finish(struct rpc_call *call);

struct rpc_server_owner {
    void *opaque;
    int (*call)(void *opaque, struct rpc_call *call);
    /* The client is going away; its calls and streams are gone. */
    void (*closed)(void *opaque, struct rpc_client *client);
};

struct rpc_limits {
    unsigned clients;     /* at once; more are turned away */
    unsigned calls;       /* unanswered, of one client; then it is not read */
    unsigned keepalive_s; /* a client that asked for it is pinged after so long without a packet … */
    unsigned keepalive_n; /* … and dropped after so many pings; 0: never */
};

int rpc_server_new(struct loop *loop, const struct clock *clock, const struct rpc_limits *limits,
                   const struct rpc_server_owner *owner, struct rpc_server **ret, struct err *err);
/* Drops all clients. NULL-safe. */
void rpc_server_free(struct rpc_server *s);
/* Takes connections from a listening socket (not owned, until rpc_server_free()). */
void rpc_server_listen(struct rpc_server *s, int fd, bool readonly);
/* Serves one connection that is there already; the descriptor is taken over. */
void rpc_server_take(struct rpc_server *s, int fd, bool readonly);
unsigned rpc_server_clients(const struct rpc_server *s);

/* Clients. */
uid_t rpc_client_uid(const struct rpc_client *c);
pid_t rpc_client_pid(const struct rpc_client *c);
bool rpc_client_readonly(const struct rpc_client *c);
void rpc_client_set_readonly(struct rpc_client *c);
/* Before this only RPC_PREAUTH procedures and small packets are taken. */
void rpc_client_set_authenticated(struct rpc_client *c);
bool rpc_client_authenticated(const struct rpc_client *c);
void rpc_client_enable_keepalive(struct rpc_client *c);
/* No more packets after those that are queued. */
void rpc_client_close_soon(struct rpc_client *c);
/* The owner's own. */
void rpc_client_set_data(struct rpc_client *c, void *data);
void *rpc_client_data(const struct rpc_client *c);
/* Calls fn for each. It must not drop clients. */
void rpc_server_each(struct rpc_server *s, void (*fn)(void *opaque, struct rpc_client *c), void *opaque);

/* Sends the event `number` with `value` (its type in procs.def). A client that does not read loses the connection. */
void rpc_client_event(struct rpc_client *c, uint32_t program, int32_t number, const void *value);

/* Streams. */
struct rpc_stream_ops {
    /* Data from the client; -1 with *e ends the stream with that error. NULL: it may not send any. */
    int (*data)(void *opaque, const uint8_t *data, size_t len, struct rpc_error *e);
    int (*hole)(void *opaque, int64_t len, struct rpc_error *e); /* may be NULL */
    /* The client has sent all it has. */
    int (*finish)(void *opaque, struct rpc_error *e);
    /* There is room to send again. May be NULL. */
    void (*room)(void *opaque);
    /* The stream is gone; called once, whatever the reason. */
    void (*closed)(void *opaque);
};
/* Opens a stream for a call, to be answered with RPC_DONE. It lives until ops->closed. */
struct rpc_stream *rpc_stream_new(struct rpc_call *call, const struct rpc_stream_ops *ops, void *opaque);
/* Is there room? Otherwise ops->room will come. */
bool rpc_stream_room(struct rpc_stream *st);
void rpc_stream_send(struct rpc_stream *st, const void *data, size_t len); /* at most RPC_STREAM_CHUNK */
void rpc_stream_send_hole(struct rpc_stream *st, int64_t len);
/* No more data; the client then finishes the stream. */
void rpc_stream_eof(struct rpc_stream *st);
/* Ends the stream with an error; ops->closed is called. */
void rpc_stream_fail(struct rpc_stream *st, const struct rpc_error *e);
/* Stops and restarts reading from the stream's client: whoever writes on cannot take more. */
void rpc_stream_hold(struct rpc_stream *st, bool hold);

#endif
