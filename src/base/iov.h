/* Scatter lists: sizes, bounded copies, and pieces of them. A list may name guest memory: it changes under our eyes. */
#ifndef LODGE_BASE_IOV_H
#define LODGE_BASE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* Bytes in all. */
size_t iov_len(const struct iovec *iov, unsigned niov);

/* Copy up to `len` bytes out of, or into, the list from byte `off` on; the number copied (less when the list is
 * shorter). */
size_t iov_read(const struct iovec *iov, unsigned niov, size_t off, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned niov, size_t off, const void *buf, size_t len);

/* The part of the list that starts at `off` and has at most `len` bytes, put into out[max]; number of entries. */
unsigned iov_slice(const struct iovec *iov, unsigned niov, size_t off, size_t len, struct iovec *out, unsigned max);

#endif
