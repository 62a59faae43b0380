/* LZ4 decompression. Every length is checked against what is left of input and output; matches only reach back into
 * this block's output. */
#include "machine/lz4.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/bits.h"

#define LEGACY_BLOCK (8u << 20) /* a block's most bytes, unpacked */

/* A length that goes on in bytes of 255. -1: the input ends. */
static long more_length(const uint8_t **p, const uint8_t *end, size_t n)
{
    uint8_t b;
    do {
        if (*p == end || n > (1u << 30))
            return -1;
        b = *(*p)++;
        n += b;
    } while (b == 255);
    return (long)n;
}

/*
 * Copies a match, which may overlap its own output: the bytes repeat then. With `room` for 16 bytes more it writes past
 * the end, in steps.
 */
static void copy_match(uint8_t *to, size_t distance, size_t n, bool room)
{
    const uint8_t *from = to - distance;
    uint8_t *stop = to + n;
    if (room && distance >= 16) {
        for (; to < stop; to += 16, from += 16)
            memcpy(to, from, 16);
    } else if (room && distance >= 8) {
        for (; to < stop; to += 8, from += 8)
            memcpy(to, from, 8);
    } else {
        while (to < stop)
            *to++ = *from++;
    }
}

long lz4_block(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap)
{
    const uint8_t *p = src, *end = src + src_len;
    uint8_t *to = dst, *to_end = dst + dst_cap;

    while (p < end && to < to_end) {
        unsigned token = *p++;
        /* The common sequence, far from both ends: few literals, a short match that does not overlap itself. */
        if (token < 0xf0 && (token & 15) != 15 && end - p >= 32 && to_end - to >= 64) {
            size_t few = token >> 4, distance;
            memcpy(to, p, 16);
            p += few;
            distance = le16_get(p);
            if (distance >= 8 && distance <= (size_t)(to + few - dst)) {
                const uint8_t *from = to + few - distance;
                to += few;
                p += 2;
                memcpy(to, from, 8);
                memcpy(to + 8, from + 8, 8);
                memcpy(to + 16, from + 16, 2);
                to += (token & 15) + 4;
                continue;
            }
            p -= few;
        }
        long n = token >> 4;
        if (n == 15 && (n = more_length(&p, end, 15)) < 0)
            return -EINVAL;
        if (n > end - p)
            return -EINVAL;
        size_t literal = MIN((size_t)n, (size_t)(to_end - to));
        memcpy(to, p, literal);
        to += literal;
        p += n;
        if (p == end || to == to_end) /* the last sequence has literals only */
            break;
        if (end - p < 2)
            return -EINVAL;
        size_t distance = le16_get(p);
        p += 2;
        if (!distance || distance > (size_t)(to - dst))
            return -EINVAL;
        n = token & 15;
        if (n == 15 && (n = more_length(&p, end, 15)) < 0)
            return -EINVAL;
        size_t match = MIN((size_t)n + 4, (size_t)(to_end - to));
        copy_match(to, distance, match, (size_t)(to_end - to) - match >= 16);
        to += match;
    }
    return to - dst;
}

long lz4_legacy(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap)
{
    size_t at = 4, out = 0;
    if (src_len < 8 || le32_get(src) != LZ4_LEGACY_MAGIC)
        return -EINVAL;
    while (src_len - at >= 4 && out < dst_cap) {
        size_t n = le32_get(src + at);
        if (n == LZ4_LEGACY_MAGIC) { /* another frame */
            at += 4;
            continue;
        }
        if (!n || n > src_len - at - 4)
            break;
        size_t cap = MIN(dst_cap - out, (size_t)LEGACY_BLOCK);
        long r = lz4_block(src + at + 4, n, dst + out, cap);
        if (r < 0)
            return r;
        out += (size_t)r;
        at += 4 + n;
    }
    return (long)out;
}
