/* The protocol `file`: regular files and block devices of this host. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/driver.h"
#include "block/file.h"
#include "block/lock.h"

static const char *path_of(const char *filename)
{
    return strncmp(filename, "file:", 5) ? filename : filename + 5;
}

static int file_proto_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    const char *name = blk_opts_get(opts, "filename"), *aio = blk_opts_get(opts, "aio"),
               *locking = blk_opts_get(opts, "locking");
    struct file *file;
    if (!name || !*name)
        return err_set(err, -EINVAL, "The 'file' block driver requires a file name");
    if (aio && strcmp(aio, "threads") && strcmp(aio, "native") && strcmp(aio, "io_uring"))
        return err_set(err, -EINVAL, "%s: aio=%s: unknown (threads, native, io_uring)", name, aio);
    if (aio && !strcmp(aio, "threads"))
        n->flags |= BLK_O_NO_URING;
    if (locking && !strcmp(locking, "off"))
        n->flags |= BLK_O_NO_LOCK;
    int code = file_open(path_of(name), n->flags, &file, err);
    if (code < 0)
        return code;
    n->priv = file;
    n->size = file->size;
    n->grows_zero = !file->block_device;
    n->block_size = file->block_size;
    n->physical_size = file->physical_size;
    return 0;
}

static void file_proto_close(struct blk_node *n)
{
    file_close(n->priv);
}

static int file_proto_preadv(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len)
{
    return file_preadv(n->priv, offset, iov, niov);
}

static int file_proto_pwritev(struct blk_node *n, uint64_t offset, const struct iovec *iov, unsigned niov, uint64_t len,
                              unsigned flags)
{
    int code = file_pwritev(n->priv, offset, iov, niov, flags & BLK_F_FUA);
    if (code == 0)
        blk_grew(n, offset + len);
    return code;
}

static int file_proto_zero(struct blk_node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    int code = file_zero(n->priv, offset, len, flags);
    if (code == 0)
        blk_grew(n, offset + len);
    return code;
}

static int file_proto_discard(struct blk_node *n, uint64_t offset, uint64_t len)
{
    return file_discard(n->priv, offset, len);
}

static int file_proto_flush(struct blk_node *n)
{
    return file_flush(n->priv);
}

static int file_proto_status(struct blk_node *n, uint64_t offset, uint64_t len, bool want_zero, struct blk_extent *ret)
{
    struct file *file = n->priv;
    *ret = (struct blk_extent){
        .len = len, .flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET, .host = offset, .file = n};
    int64_t size = file_length(file);
    if (size < 0)
        return (int)size;
    if (offset >= (uint64_t)size) {
        ret->flags = BLK_STATUS_ZERO | BLK_STATUS_EOF;
        return 0;
    }
    if (offset + len > (uint64_t)size)
        ret->len = (uint64_t)size - offset;
    if (!want_zero || file->block_device)
        return 0;
    off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return 0; /* it cannot tell */
    if (data < 0)
        data = (off_t)(offset + ret->len); /* a hole to the end */
    if ((uint64_t)data > offset) {
        ret->len = MIN(ret->len, (uint64_t)data - offset);
        ret->flags = BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
        return 0;
    }
    off_t hole = lseek(file->fd, (off_t)offset, SEEK_HOLE);
    if (hole > (off_t)offset)
        ret->len = MIN(ret->len, (uint64_t)hole - offset);
    return 0;
}

static int64_t file_proto_allocated(struct blk_node *n)
{
    struct file *file = n->priv;
    struct stat st;
    return fstat(file->fd, &st) < 0 ? -errno : (int64_t)st.st_blocks * 512;
}

static int file_proto_truncate(struct blk_node *n, uint64_t size, enum blk_prealloc prealloc, struct err *err)
{
    struct file *file = n->priv;
    int64_t old = file_length(file);
    if (old < 0)
        return err_errno(err, (int)old, "%s", n->filename);
    if (prealloc == BLK_PREALLOC_METADATA)
        return err_set(err, -ENOTSUP, "Unsupported preallocation mode 'metadata'");
    if (file->block_device) {
        if (size > (uint64_t)old)
            return err_set(err, -EINVAL, "%s: Cannot grow device files", n->filename);
        return 0;
    }
    if (prealloc != BLK_PREALLOC_OFF && size < (uint64_t)old)
        return err_set(err, -ENOTSUP, "Preallocation can't be used for shrinking files");
    int code = 0;
    if (prealloc == BLK_PREALLOC_FALLOC && size > (uint64_t)old)
        code = posix_fallocate(file->fd, old, (off_t)size - old) ? -errno : 0;
    if (code == 0 && ftruncate(file->fd, (off_t)size) < 0)
        code = -errno;
    if (code == 0 && prealloc == BLK_PREALLOC_FULL) {
        enum { CHUNK = 1 << 20 };
        autofree char *zeroes = xcalloc(1, CHUNK);
        for (uint64_t at = (uint64_t)old; at < size && code == 0; at += CHUNK) {
            struct iovec v = {zeroes, MIN(size - at, (uint64_t)CHUNK)};
            code = file_pwritev(file, at, &v, 1, false);
        }
        if (code == 0)
            code = file_flush(file);
    }
    if (code < 0)
        return err_errno(err, code, "%s: cannot change its size to %llu bytes", n->filename, (unsigned long long)size);
    atomic_store(&n->size, size);
    return 0;
}

/* The file may be longer than we know, and writes may be under way behind its end: allocating a byte never shortens it. */
static int file_proto_grow(struct blk_node *n, uint64_t size)
{
    struct file *file = n->priv;
    int64_t now = file_length(file);
    if (now < 0)
        return (int)now;
    if ((uint64_t)now < size && fallocate(file->fd, 0, (off_t)size - 1, 1) < 0) {
        if (errno != EOPNOTSUPP)
            return -errno;
        if (ftruncate(file->fd, (off_t)size) < 0)
            return -errno;
    }
    blk_grew(n, MAX((uint64_t)now, size));
    return 0;
}

static int file_proto_create(const char *filename, uint64_t size, struct err *err)
{
    const char *path = path_of(filename);
    struct stat st;
    autofd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(err, -errno, "Could not create '%s'", path);
    if (lock_image_perms(fd, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                         BLK_PERM_ALL & ~BLK_PERM_WRITE_UNCHANGED) == -EBUSY)
        return err_set(err, -EBUSY, "%s: in use by another process: Failed to get \"write\" lock", path);
    if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode))
        return 0;
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)size) < 0)
        return err_errno(err, -errno, "Could not create '%s'", path);
    return 0;
}

static struct file *get_file(struct blk_node *n)
{
    return n->priv;
}

static const char *const schemes[] = {"file", "host_device", NULL};

const struct blk_driver blk_file = {
    .name = "file",
    .protocol = true,
    .schemes = schemes,
    .open = file_proto_open,
    .close = file_proto_close,
    .preadv = file_proto_preadv,
    .pwritev = file_proto_pwritev,
    .pwrite_zeroes = file_proto_zero,
    .pdiscard = file_proto_discard,
    .pflush = file_proto_flush,
    .block_status = file_proto_status,
    .allocated_size = file_proto_allocated,
    .truncate = file_proto_truncate,
    .grow = file_proto_grow,
    .create_file = file_proto_create,
    .get_file = get_file,
};
