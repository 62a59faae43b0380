/*
 * Packets of libvirt's remote protocol: a length (big endian, counting itself), a header of six numbers, and a payload
 * in XDR. Building and taking apart, for client and server alike; nothing here reads from or writes to a socket, but
 * the two functions that pass descriptors. Everything decoded is hostile input.
 */
#ifndef LODGE_RPC_FRAME_H
#define LODGE_RPC_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "rpc/procs.h"

#define RPC_PREFIX_SIZE 28u             /* length and header */
#define RPC_PACKET_MAX (33554432u + 4u) /* bytes, the length included */
#define RPC_STREAM_CHUNK 262120u        /* bytes of data in one stream packet, at most, as peers send it */
#define RPC_FDS_MAX 32u                 /* descriptors with one packet */

enum rpc_type {
    RPC_TYPE_CALL = 0,
    RPC_TYPE_REPLY = 1,
    RPC_TYPE_EVENT = 2,
    RPC_TYPE_STREAM = 3,
    RPC_TYPE_CALL_FDS = 4,
    RPC_TYPE_REPLY_FDS = 5,
    RPC_TYPE_HOLE = 6,
};
enum rpc_status { RPC_STATUS_OK = 0, RPC_STATUS_ERROR = 1, RPC_STATUS_CONTINUE = 2 };
enum rpc_keepalive { RPC_KEEPALIVE_PING = 1, RPC_KEEPALIVE_PONG = 2 };

struct rpc_header {
    uint32_t program, version;
    int32_t procedure, type; /* enum rpc_type */
    uint32_t serial;
    int32_t status; /* enum rpc_status */
};

/* Bytes to be sent, growing; start with {0}. */
struct rpc_buf {
    uint8_t *data;
    size_t len, size;
};
void rpc_buf_free(struct rpc_buf *b);
/* Room for `n` more bytes; 0, or -ENOMEM, or -EMSGSIZE beyond `4 * RPC_PACKET_MAX`. */
int rpc_buf_reserve(struct rpc_buf *b, size_t n);

/*
 * Takes the first RPC_PREFIX_SIZE bytes of a packet apart. *ret_len: the whole packet's length, between RPC_PREFIX_SIZE
 * and RPC_PACKET_MAX. 0, or -EBADMSG (a peer that says this cannot be understood any further).
 */
int rpc_header_decode(const uint8_t prefix[RPC_PREFIX_SIZE], uint32_t *ret_len, struct rpc_header *ret,
                      struct err *err);

/*
 * Appends a packet. `xdr` encodes `value` (NULL: no payload). For the two types with descriptors, `nfds` is put in
 * front of the payload; otherwise it is ignored. 0, -EMSGSIZE, -ENOMEM, or -EINVAL: `value` cannot be encoded (a NULL
 * string, a list above its limit). Nothing is appended on failure.
 */
int rpc_encode(struct rpc_buf *b, const struct rpc_header *h, unsigned nfds, rpc_xdr_fn xdr, const void *value);
/* Appends a packet with raw bytes as payload: a stream's data. */
int rpc_encode_raw(struct rpc_buf *b, const struct rpc_header *h, const void *data, size_t len);

/*
 * Decodes a payload into `ret` (`size` bytes, cleared first); free it by rpc_free(). Bytes that are left over are
 * ignored, as peers do. 0, or -EBADMSG, with nothing to free.
 */
int rpc_decode(const uint8_t *payload, size_t len, rpc_xdr_fn xdr, void *ret, size_t size);
void rpc_free(rpc_xdr_fn xdr, void *value);

/* Cuts the number of descriptors off the front of a payload of the two types that have it. 0 or -EBADMSG. */
int rpc_payload_nfds(const uint8_t **payload, size_t *len, unsigned *ret_nfds);

/* Descriptors follow their packet, each with one byte. 0, or -EAGAIN, or another -errno. */
int rpc_send_fd(int sock, int fd);
/* A descriptor (CLOEXEC); -EAGAIN; -EBADMSG when the byte came without one; or another -errno. */
int rpc_recv_fd(int sock);

#endif
