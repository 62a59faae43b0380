/* See frame.h. */
#include "rpc/frame.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = v >> 24;
    p[1] = v >> 16;
    p[2] = v >> 8;
    p[3] = v;
}

void rpc_buf_free(struct rpc_buf *b)
{
    free(b->data);
    *b = (struct rpc_buf){0};
}

int rpc_buf_reserve(struct rpc_buf *b, size_t n)
{
    if (b->size - b->len >= n)
        return 0;
    if (n > 4ull * RPC_PACKET_MAX - b->len)
        return -EMSGSIZE;
    size_t size = b->size ? b->size : 1024;
    while (size - b->len < n)
        size *= 2;
    uint8_t *data = realloc(b->data, size);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->size = size;
    return 0;
}

int rpc_header_decode(const uint8_t prefix[RPC_PREFIX_SIZE], uint32_t *ret_len, struct rpc_header *ret, struct err *err)
{
    uint32_t len = get32(prefix);
    if (len < RPC_PREFIX_SIZE || len > RPC_PACKET_MAX)
        return err_set(err, -EBADMSG, "a packet says that it is %u bytes long, it can be %u to %u", len,
                       RPC_PREFIX_SIZE, RPC_PACKET_MAX);
    *ret_len = len;
    *ret = (struct rpc_header){
        .program = get32(prefix + 4),
        .version = get32(prefix + 8),
        .procedure = (int32_t)get32(prefix + 12),
        .type = (int32_t)get32(prefix + 16),
        .serial = get32(prefix + 20),
        .status = (int32_t)get32(prefix + 24),
    };
    if (ret->type < RPC_TYPE_CALL || ret->type > RPC_TYPE_HOLE)
        return err_set(err, -EBADMSG, "a packet has the unknown type %d", ret->type);
    if (ret->status < RPC_STATUS_OK || ret->status > RPC_STATUS_CONTINUE)
        return err_set(err, -EBADMSG, "a packet has the unknown status %d", ret->status);
    return 0;
}

static void put_prefix(uint8_t *p, uint32_t len, const struct rpc_header *h)
{
    put32(p, len);
    put32(p + 4, h->program);
    put32(p + 8, h->version);
    put32(p + 12, h->procedure);
    put32(p + 16, h->type);
    put32(p + 20, h->serial);
    put32(p + 24, h->status);
}

int rpc_encode(struct rpc_buf *b, const struct rpc_header *h, unsigned nfds, rpc_xdr_fn xdr, const void *value)
{
    size_t at = RPC_PREFIX_SIZE;
    bool with_fds = h->type == RPC_TYPE_CALL_FDS || h->type == RPC_TYPE_REPLY_FDS;
    if (with_fds)
        at += 4;
    /* XDR's encoder only says that it failed: for want of room, or because the value is impossible. Few packets need a
     * second try. */
    for (size_t room = 512;; room *= 8) {
        if (room > RPC_PACKET_MAX - at)
            room = RPC_PACKET_MAX - at;
        int r = rpc_buf_reserve(b, at + room);
        if (r < 0)
            return r;
        uint8_t *p = b->data + b->len;
        XDR x;
        xdrmem_create(&x, (char *)p + at, room, XDR_ENCODE);
        bool ok = !xdr || xdr(&x, (void *)value);
        if (ok) {
            size_t len = at + (xdr ? xdr_getpos(&x) : 0);
            put_prefix(p, len, h);
            if (with_fds)
                put32(p + RPC_PREFIX_SIZE, nfds);
            b->len += len;
            return 0;
        }
        if (room == RPC_PACKET_MAX - at)
            return -EINVAL;
    }
}

int rpc_encode_raw(struct rpc_buf *b, const struct rpc_header *h, const void *data, size_t len)
{
    if (len > RPC_PACKET_MAX - RPC_PREFIX_SIZE)
        return -EMSGSIZE;
    int r = rpc_buf_reserve(b, RPC_PREFIX_SIZE + len);
    if (r < 0)
        return r;
    put_prefix(b->data + b->len, RPC_PREFIX_SIZE + len, h);
    if (len)
        memcpy(b->data + b->len + RPC_PREFIX_SIZE, data, len);
    b->len += RPC_PREFIX_SIZE + len;
    return 0;
}

int rpc_decode(const uint8_t *payload, size_t len, rpc_xdr_fn xdr, void *ret, size_t size)
{
    XDR x;
    memset(ret, 0, size);
    xdrmem_create(&x, (char *)payload, len, XDR_DECODE);
    if (xdr(&x, ret))
        return 0;
    rpc_free(xdr, ret);
    memset(ret, 0, size);
    return -EBADMSG;
}

void rpc_free(rpc_xdr_fn xdr, void *value)
{
    XDR x = {.x_op = XDR_FREE};
    xdr(&x, value);
}

int rpc_payload_nfds(const uint8_t **payload, size_t *len, unsigned *ret_nfds)
{
    if (*len < 4 || get32(*payload) > RPC_FDS_MAX)
        return -EBADMSG;
    *ret_nfds = get32(*payload);
    *payload += 4;
    *len -= 4;
    return 0;
}

int rpc_send_fd(int sock, int fd)
{
    char byte = 0;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    ssize_t n;
    do
        n = sendmsg(sock, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int rpc_recv_fd(int sock)
{
    char byte;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(RPC_FDS_MAX * sizeof(int))];
    } control;
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    ssize_t n;
    do
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (n == 0)
        return -ECONNRESET;
    int fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int got;
            memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (fd < 0)
                fd = got;
            else
                close(got); /* more than the protocol has in one byte */
        }
    }
    return fd < 0 ? -EBADMSG : fd;
}
