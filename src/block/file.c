/* Opening an image's file: what kind it is, how large, how aligned, and that nobody else writes to it. */
#include "block/file.h"

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
#include "base/log.h"
#include "block/lock.h"

void file_close(struct file *file)
{
    if (!file)
        return;
    if (file->slow_fd != file->fd)
        fd_closep(&file->slow_fd);
    fd_closep(&file->fd);
    free(file);
}

/* What direct I/O on fd must be aligned to. */
static void find_alignment(struct file *file)
{
    file->mem_align = file->offset_align = file->block_device ? file->block_size : 4096;
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN) &&
        stx.stx_dio_offset_align) {
        file->mem_align = stx.stx_dio_mem_align;
        file->offset_align = stx.stx_dio_offset_align;
    }
#endif
}

static int find_limits(struct file *file, const char *path, struct err *err)
{
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return err_errno(err, -errno, "%s", path);
    file->block_size = 512;
    file->physical_size = 4096;
    if (S_ISBLK(st.st_mode)) {
        int logical = 0;
        unsigned physical = 0;
        file->block_device = true;
        if (ioctl(file->fd, BLKGETSIZE64, &file->size) < 0)
            return err_errno(err, -errno, "%s: cannot tell the size of the device", path);
        if (ioctl(file->fd, BLKSSZGET, &logical) == 0 && logical >= 512)
            file->block_size = (uint32_t)logical;
        if (ioctl(file->fd, BLKPBSZGET, &physical) == 0 && physical >= file->block_size)
            file->physical_size = physical;
    } else if (S_ISREG(st.st_mode)) {
        file->size = (uint64_t)st.st_size;
    } else {
        return err_set(err, -EINVAL, "%s: neither a file nor a block device", path);
    }
    return 0;
}

/* The locks that QEMU's users of a file take: a format's, or a guest's disk's. */
static int lock(struct file *file, const char *path, unsigned flags, struct err *err)
{
    unsigned held = BLK_PERM_CONSISTENT_READ, unshared = BLK_PERM_WRITE | BLK_PERM_RESIZE;
    if (flags & BLK_O_NO_LOCK)
        return 0;
    if (!file->read_only)
        held |= BLK_PERM_WRITE | (flags & BLK_O_RESIZE ? BLK_PERM_RESIZE : 0);
    if (flags & BLK_O_FORCE_SHARE)
        unshared = 0;
    int ret = lock_image_perms(file->fd, held, unshared);
    if (ret == -EBUSY)
        return err_set(err, ret, "%s: in use by another process%s: Failed to get %s\"write\" lock", path,
                       file->read_only ? ", which writes to it" : "", file->read_only ? "shared " : "");
    if (ret < 0)
        log_warn("%s: this file system has no locks: make sure that nobody else uses the image", path);
    return 0;
}

int file_open(const char *path, unsigned blk_flags, struct file **ret, struct err *err)
{
    struct file *file = xcalloc(1, sizeof *file);
    bool read_only = !(blk_flags & BLK_O_RDWR), direct = blk_flags & BLK_O_DIRECT;
    int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, code = 0;
    file->read_only = read_only;
    file->no_flush = blk_flags & BLK_O_NO_FLUSH;
    file->no_uring = blk_flags & BLK_O_NO_URING;
    file->mem_align = file->offset_align = 1;
    file->slow_fd = -1;
    file->fd = open(path, flags | (direct ? O_DIRECT : 0));
    if (file->fd < 0 && direct && errno == EINVAL)
        code = err_set(err, -EINVAL, "%s: this file system has no direct I/O", path);
    else if (file->fd < 0 && (errno == EACCES || errno == EROFS) && !read_only)
        code = err_errno(err, -errno, "%s: cannot open for writing (readonly=on opens it for reading)", path);
    else if (file->fd < 0)
        code = err_errno(err, -errno, "%s", path);
    if (code == 0 && fcntl(file->fd, F_SETFL, direct ? O_DIRECT : 0) < 0) /* O_NONBLOCK was for opening a FIFO */
        code = err_errno(err, -errno, "%s", path);
    if (code == 0)
        code = find_limits(file, path, err);
    if (code == 0)
        code = lock(file, path, blk_flags, err);
    if (code == 0 && direct) {
        find_alignment(file);
        file->slow_fd = open(path, flags & ~O_NONBLOCK);
        if (file->slow_fd < 0)
            code = err_errno(err, -errno, "%s", path);
    } else {
        file->slow_fd = file->fd;
    }
    if (code < 0) {
        file_close(file);
        return code;
    }
    *ret = file;
    return 0;
}

int file_head(struct file *file, void *buf, size_t len)
{
    ssize_t n = pread(file->slow_fd, buf, len, 0);
    return n < 0 ? -errno : (int)n;
}
