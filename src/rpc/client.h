/*
 * A client of libvirt's remote protocol: connection by URI, calls (also many at once), events, streams. One thread, and
 * nothing in the background: the connection is served whenever one of these functions waits. The server is not
 * trusted: what it sends is limited in size and number, and what nobody waits for is dropped.
 */
#ifndef LODGE_RPC_CLIENT_H
#define LODGE_RPC_CLIENT_H

#include <stdbool.h>
#include <sys/types.h>

#include "rpc/error.h"
#include "rpc/procs.h"

#define CLIENT_CALLS_MAX 65536u /* calls under way at once */

struct client;
struct client_stream;

struct client_options {
    bool readonly;
    /* "NAME --session"-like start of the session's daemon, tried once when nobody listens: 0 when it may listen now.
     * May be NULL. */
    int (*start_session)(const char *socket_path);
    int idle_seconds; /* without a packet until the server is asked whether it lives; 0: 5 */
    int idle_count;   /* so many unanswered: gone; 0: 6 */
};

/*
 * The URI to use: `uri`, or from the environment (LODGE_DEFAULT_URI, VIRSH_DEFAULT_CONNECT_URI, LIBVIRT_DEFAULT_URI),
 * or qemu:///system for root and qemu:///session for others. The string is the environment's or constant.
 */
const char *client_default_uri(const char *uri);

/*
 * Connects and opens. URIs: qemu:///system and qemu:///session, or lodge:///..., optionally with "+unix" and with
 * "?socket=PATH". Without a socket: Lodge's own, then those of libvirt's daemons. 0, or -1 and *e.
 */
int client_open(const char *uri, const struct client_options *o, struct client **ret, struct rpc_error *e);
/* Says good-bye and closes. NULL-safe. */
void client_close(struct client *c);
/* The URI as given to client_open(). */
const char *client_uri(const struct client *c);
/* The socket's path. */
const char *client_socket(const struct client *c);
bool client_readonly(const struct client *c);
/* Was the connection lost? Nothing works any more then, but client_close(). */
bool client_dead(const struct client *c);
int client_fd(const struct client *c);

/*
 * Calls `proc` (RPC_PROC_*) of program "remote" with `args`, whose type is the one in procs.def (NULL: rp_none), and
 * decodes the result into *ret (may be NULL). Free that by client_result_free(). 0, or -1 and *e.
 */
int client_call(struct client *c, int proc, const void *args, void *ret, struct rpc_error *e);
int client_qemu_call(struct client *c, int proc, const void *args, void *ret, struct rpc_error *e);
/* Frees what client_call() returned for `proc`. */
void client_result_free(int proc, void *ret);

/* The same in two halves, for many calls at once: each started one must be waited for, in any order. */
int client_call_start(struct client *c, int proc, const void *args, uint32_t *ret_serial, struct rpc_error *e);
int client_call_wait(struct client *c, uint32_t serial, void *ret, struct rpc_error *e);

/* Where events go, as they came: the procedure's entry and the decoded message, freed afterwards. Replaces the one
 * before. */
void client_on_event(struct client *c, void (*fn)(void *opaque, const struct rpc_proc *proc, void *msg), void *opaque);
/* Handles what arrives within `timeout_ms` (-1: for ever), returning after the first packets. 0, or -1 and *e. */
int client_poll(struct client *c, int timeout_ms, struct rpc_error *e);

/* Calls a procedure that opens a stream. The caller ends it by client_stream_finish() or client_stream_abort(), which
 * free it. */
int client_stream_open(struct client *c, int proc, const void *args, void *ret, struct client_stream **ret_stream,
                       struct rpc_error *e);
/* Sends all of it; `len` may be anything. */
int client_stream_send(struct client_stream *s, const void *data, size_t len, struct rpc_error *e);
/* Sends "`len` bytes of zero here". */
int client_stream_send_hole(struct client_stream *s, uint64_t len, struct rpc_error *e);
/*
 * The next data: *ret_data points at them until the next call. >0: their number; 0: end of the data; -EAGAIN: nothing
 * within `timeout_ms`; -1 and *e. *ret_hole: so many zero bytes come first (and no data then).
 */
ssize_t client_stream_recv(struct client_stream *s, int timeout_ms, const uint8_t **ret_data, uint64_t *ret_hole,
                           struct rpc_error *e);
int client_stream_finish(struct client_stream *s, struct rpc_error *e);
void client_stream_abort(struct client_stream *s);

#endif
