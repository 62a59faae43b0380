/* See lock.h. First every byte is locked, then every conflict is looked for: of two that start at once, at most one
 * goes on. */
#include "block/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    HELD_BASE = 100,
    UNSHARED_BASE = 200,
    /* Permission numbers. */
    CONSISTENT_READ = 0,
    WRITE = 1,
    RESIZE = 3,
    PERMISSIONS = 5,
};

static int take(int fd, off_t byte)
{
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &l) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -ENOTSUP;
}

/* Whether another open file holds a lock on this byte. */
static int test(int fd, off_t byte)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &l) < 0)
        return -ENOTSUP;
    return l.l_type == F_UNLCK ? 0 : -EBUSY;
}

int lock_image(int fd, bool write)
{
    return lock_image_perms(fd, 1 << CONSISTENT_READ | (write ? 1 << WRITE : 0), 1 << WRITE | 1 << RESIZE);
}

int lock_image_perms(int fd, unsigned held, unsigned unshared)
{
    int ret = 0;
    for (int i = 0; i < PERMISSIONS && ret == 0; i++) {
        if (held & 1u << i)
            ret = take(fd, HELD_BASE + i);
        if (ret == 0 && (unshared & 1u << i))
            ret = take(fd, UNSHARED_BASE + i);
    }
    for (int i = 0; i < PERMISSIONS && ret == 0; i++) {
        if (held & 1u << i)
            ret = test(fd, UNSHARED_BASE + i);
        if (ret == 0 && (unshared & 1u << i))
            ret = test(fd, HELD_BASE + i);
    }
    return ret;
}
