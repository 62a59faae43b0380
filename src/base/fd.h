/* File descriptors: ownership by cleanup attribute, whole reads and writes. Every descriptor we make is CLOEXEC. */
#ifndef LODGE_BASE_FD_H
#define LODGE_BASE_FD_H

#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static inline void fd_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
static inline void freep(void *p)
{
    free(*(void **)p);
}
#define autofd __attribute__((cleanup(fd_closep)))
#define autofree __attribute__((cleanup(freep)))

/* Takes the value out of an autofd/autofree variable, which then owns nothing. */
#define fd_take(fd)                                                                                                    \
    ({                                                                                                                 \
        int fd_ = (fd);                                                                                                \
        (fd) = -1;                                                                                                     \
        fd_;                                                                                                           \
    })
#define ptr_take(p)                                                                                                    \
    ({                                                                                                                 \
        __typeof__(p) p_ = (p);                                                                                        \
        (p) = NULL;                                                                                                    \
        p_;                                                                                                            \
    })

/* Read or write exactly `len` bytes, going on after EINTR and short counts. 0 or -errno; -ENODATA when the file ends early. */
int fd_read_full(int fd, void *buf, size_t len);
int fd_write_full(int fd, const void *buf, size_t len);
int fd_pread_full(int fd, void *buf, size_t len, off_t offset);

/* calloc() that aborts when there is no memory: for our own fixed-size objects only, never for sizes from outside. */
void *xcalloc(size_t n, size_t size) __attribute__((returns_nonnull, malloc));
char *xstrdup(const char *s) __attribute__((returns_nonnull, malloc));
char *xasprintf(const char *fmt, ...) __attribute__((returns_nonnull, format(printf, 1, 2)));

#endif
