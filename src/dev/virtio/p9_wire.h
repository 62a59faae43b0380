/*
 * 9P2000.L on the wire: message numbers, and bounded reading and writing of little-endian fields. A reader that runs
 * out of bytes, or a writer out of room, turns `bad` and gives zeros from then on; the caller looks once, at the end.
 */
#ifndef LODGE_DEV_VIRTIO_P9_WIRE_H
#define LODGE_DEV_VIRTIO_P9_WIRE_H

#include <stdbool.h>
#include <string.h>

#include "base/bits.h"

enum p9_type {
    P9_RLERROR = 7,
    P9_TSTATFS = 8,
    P9_TLOPEN = 12,
    P9_TLCREATE = 14,
    P9_TSYMLINK = 16,
    P9_TMKNOD = 18,
    P9_TRENAME = 20,
    P9_TREADLINK = 22,
    P9_TGETATTR = 24,
    P9_TSETATTR = 26,
    P9_TXATTRWALK = 30,
    P9_TXATTRCREATE = 32,
    P9_TREADDIR = 40,
    P9_TFSYNC = 50,
    P9_TLOCK = 52,
    P9_TGETLOCK = 54,
    P9_TLINK = 70,
    P9_TMKDIR = 72,
    P9_TRENAMEAT = 74,
    P9_TUNLINKAT = 76,
    P9_TVERSION = 100,
    P9_TATTACH = 104,
    P9_TFLUSH = 108,
    P9_TWALK = 110,
    P9_TREAD = 116,
    P9_TWRITE = 118,
    P9_TCLUNK = 120,
    P9_TREMOVE = 122,
};

#define P9_HEADER 7 /* size[4] type[1] tag[2] */
#define P9_READ_HEADER (P9_HEADER + 4)
#define P9_WRITE_HEADER (P9_HEADER + 16)
#define P9_QID 13
#define P9_NAME_MAX 255
#define P9_WALK_MAX 16

struct p9_in {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static inline uint64_t p9_get(struct p9_in *in, unsigned size)
{
    uint64_t v = 0;
    if (in->left < size) {
        in->bad = true;
        in->left = 0;
        return 0;
    }
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)in->p[i] << (8 * i);
    in->p += size;
    in->left -= size;
    return v;
}

/* A string into buf, with a NUL; one that is longer than size - 1 or has a NUL inside is bad. */
static inline void p9_get_str(struct p9_in *in, char *buf, size_t size)
{
    size_t len = p9_get(in, 2);
    buf[0] = '\0';
    if (len > in->left || len >= size || memchr(in->p, 0, len)) {
        in->bad = true;
        return;
    }
    memcpy(buf, in->p, len);
    buf[len] = '\0';
    in->p += len;
    in->left -= len;
}

struct p9_out {
    uint8_t *buf;
    size_t len, cap;
    bool bad;
};

static inline void p9_put(struct p9_out *out, uint64_t v, unsigned size)
{
    if (out->cap - out->len < size) {
        out->bad = true;
        return;
    }
    for (unsigned i = 0; i < size; i++)
        out->buf[out->len++] = (uint8_t)(v >> (8 * i));
}

static inline void p9_put_bytes(struct p9_out *out, const void *data, size_t len)
{
    if (out->cap - out->len < len) {
        out->bad = true;
        return;
    }
    memcpy(out->buf + out->len, data, len);
    out->len += len;
}

static inline void p9_put_str(struct p9_out *out, const char *s)
{
    p9_put(out, strlen(s), 2);
    p9_put_bytes(out, s, strlen(s));
}

#endif
