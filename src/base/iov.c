#include "base/iov.h"

#include <stdint.h>
#include <string.h>

#include "base/bits.h"

size_t iov_len(const struct iovec *iov, unsigned niov)
{
    size_t len = 0;
    for (unsigned i = 0; i < niov; i++)
        len += iov[i].iov_len;
    return len;
}

static size_t copy(const struct iovec *iov, unsigned niov, size_t off, void *to, const void *from, size_t len)
{
    size_t done = 0;
    for (unsigned i = 0; i < niov && done < len; i++) {
        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        size_t n = MIN(len - done, iov[i].iov_len - off);
        uint8_t *p = (uint8_t *)iov[i].iov_base + off;
        if (to)
            memcpy((uint8_t *)to + done, p, n);
        else
            memcpy(p, (const uint8_t *)from + done, n);
        done += n;
        off = 0;
    }
    return done;
}

size_t iov_read(const struct iovec *iov, unsigned niov, size_t off, void *buf, size_t len)
{
    return copy(iov, niov, off, buf, NULL, len);
}

size_t iov_write(const struct iovec *iov, unsigned niov, size_t off, const void *buf, size_t len)
{
    return copy(iov, niov, off, NULL, buf, len);
}

unsigned iov_slice(const struct iovec *iov, unsigned niov, size_t off, size_t len, struct iovec *out, unsigned max)
{
    unsigned n = 0;
    for (unsigned i = 0; i < niov && n < max && len; i++) {
        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN(len, iov[i].iov_len - off);
        out[n++] = (struct iovec){(uint8_t *)iov[i].iov_base + off, part};
        len -= part;
        off = 0;
    }
    return n;
}
