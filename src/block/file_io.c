/* Plain blocking I/O on a file. Any thread. What is not aligned for direct I/O goes through the buffered descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "block/file.h"

enum { PIECES_MAX = 1024, ZERO_CHUNK = 1 << 20 };

static bool aligned(const struct file *file, uint64_t offset, const struct iovec *iov, unsigned niov)
{
    if (file->offset_align <= 1)
        return true;
    if (offset % file->offset_align)
        return false;
    for (unsigned i = 0; i < niov; i++)
        if ((uintptr_t)iov[i].iov_base % file->mem_align || iov[i].iov_len % file->offset_align)
            return false;
    return true;
}

/* One round of a transfer that starts `done` bytes into the list. Bytes, 0 at the end of the file, or -errno. */
static ssize_t transfer(struct file *file, bool write, uint64_t offset, const struct iovec *iov, unsigned niov,
                        uint64_t done, int rwf)
{
    struct iovec part[64];
    const struct iovec *use = iov;
    int fd = aligned(file, offset, iov, niov) ? file->fd : file->slow_fd;
    if (done) {
        niov = iov_slice(iov, niov, done, SIZE_MAX, part, ARRAY_SIZE(part));
        use = part;
        fd = file->slow_fd;
    }
    niov = MIN(niov, PIECES_MAX);
    ssize_t n = write ? pwritev2(fd, use, (int)niov, (off_t)(offset + done), rwf)
                      : preadv(fd, use, (int)niov, (off_t)(offset + done));
    return n < 0 ? -errno : n;
}

int file_preadv(struct file *file, uint64_t offset, const struct iovec *iov, unsigned niov)
{
    uint64_t len = iov_len(iov, niov), done = 0;
    while (done < len) {
        ssize_t n = transfer(file, false, offset, iov, niov, done, 0);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        done += (uint64_t)n;
    }
    /* Behind the end there are zeroes. */
    uint64_t at = 0;
    for (unsigned i = 0; i < niov && done < len; at += iov[i].iov_len, i++) {
        uint64_t keep = done > at ? MIN(done - at, iov[i].iov_len) : 0;
        memset((char *)iov[i].iov_base + keep, 0, iov[i].iov_len - keep);
    }
    return 0;
}

int file_pwritev(struct file *file, uint64_t offset, const struct iovec *iov, unsigned niov, bool fua)
{
    uint64_t len = iov_len(iov, niov), done = 0;
    while (done < len) {
        ssize_t n = transfer(file, true, offset, iov, niov, done, fua && !file->no_flush ? RWF_DSYNC : 0);
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n ? (int)n : -EIO;
        done += (uint64_t)n;
    }
    return 0;
}

int64_t file_length(struct file *file)
{
    struct stat st;
    uint64_t size;
    if (file->block_device)
        return ioctl(file->fd, BLKGETSIZE64, &size) < 0 ? -errno : (int64_t)size;
    return fstat(file->fd, &st) < 0 ? -errno : st.st_size;
}

static int write_zeroes(struct file *file, uint64_t offset, uint64_t len)
{
    autofree char *zeroes = aligned_alloc(4096, ZERO_CHUNK);
    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, ZERO_CHUNK);
    while (len) {
        struct iovec v = {zeroes, MIN(len, (uint64_t)ZERO_CHUNK)};
        int code = file_pwritev(file, offset, &v, 1, false);
        if (code < 0)
            return code;
        offset += v.iov_len;
        len -= v.iov_len;
    }
    return 0;
}

static int allocate(struct file *file, int mode, uint64_t offset, uint64_t len)
{
    int r;
    do
        r = fallocate(file->fd, mode, (off_t)offset, (off_t)len);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int file_zero(struct file *file, uint64_t offset, uint64_t len, unsigned flags)
{
    if (!len)
        return 0;
    if (!file->block_device) {
        int64_t size = file_length(file);
        if (size < 0)
            return (int)size;
        /* Behind the end there are zeroes: make the file long enough, and look only at the rest. */
        if (offset + len > (uint64_t)size) {
            if (ftruncate(file->fd, (off_t)(offset + len)) < 0)
                return -errno;
            if (offset >= (uint64_t)size)
                return 0;
            len = (uint64_t)size - offset;
        }
    }
    int code = -EOPNOTSUPP;
    if ((flags & BLK_F_UNMAP) && !file->no_punch)
        code = allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (code == -EOPNOTSUPP && !file->no_zero_range) {
        code = allocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, len);
        if (code == -EOPNOTSUPP)
            file->no_zero_range = true;
    }
    if (code != -EOPNOTSUPP)
        return code;
    return flags & BLK_F_NO_FALLBACK ? -ENOTSUP : write_zeroes(file, offset, len);
}

int file_discard(struct file *file, uint64_t offset, uint64_t len)
{
    if (!len || file->no_punch)
        return 0;
    int code = allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (code != -EOPNOTSUPP)
        return code;
    file->no_punch = true; /* a discard is only advice */
    return 0;
}

int file_flush(struct file *file)
{
    if (file->no_flush)
        return 0;
    return fdatasync(file->fd) < 0 ? -errno : 0;
}
