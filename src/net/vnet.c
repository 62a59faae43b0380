#include "net/vnet.h"

#include <stdbool.h>

#include "base/bits.h"

/* Sum of 16-bit big-endian words, folded to 16 bits. The byte order cancels out of a ones' complement sum, so words are
 * summed as they lie. */
static uint32_t sum_bytes(const uint8_t *p, size_t len)
{
    uint64_t a = 0, b = 0;
    for (; len >= 16; p += 16, len -= 16) {
        uint64_t x, y;
        memcpy(&x, p, 8);
        memcpy(&y, p + 8, 8);
        a += (x & 0xffffffff) + (y & 0xffffffff);
        b += (x >> 32) + (y >> 32);
    }
    for (; len >= 2; p += 2, len -= 2) {
        uint16_t w;
        memcpy(&w, p, 2);
        a += w;
    }
    if (len)
        a += *p; /* little-endian host: the odd byte is the low half of its word, the other half is 0 */
    a = (a & 0xffffffff) + (a >> 32) + (b & 0xffffffff) + (b >> 32);
    while (a >> 16)
        a = (a & 0xffff) + (a >> 16);
    return (uint32_t)a;
}

uint16_t vnet_sum(const struct iovec *iov, unsigned niov, size_t off)
{
    uint32_t sum = 0;
    bool odd = false;
    for (unsigned i = 0; i < niov; i++) {
        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        size_t n = iov[i].iov_len - off;
        uint32_t s = sum_bytes((const uint8_t *)iov[i].iov_base + off, n);
        /* A piece that starts at an odd place contributes with its bytes swapped. */
        sum += odd ? (uint16_t)(s << 8 | s >> 8) : s;
        sum = (sum & 0xffff) + (sum >> 16);
        odd ^= n & 1;
        off = 0;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return be16toh((uint16_t)sum);
}
