/*
 * A regular file or block device that holds an image: opened, locked, its limits found out; and the queue that does I/O
 * on it. With direct I/O, what is not aligned as the kernel wants it goes through a second, buffered descriptor of the
 * same file.
 */
#ifndef LODGE_BLOCK_FILE_H
#define LODGE_BLOCK_FILE_H

#include "block/block.h"
#include "block/node.h"

struct file {
    int fd;      /* locked; O_DIRECT if asked for */
    int slow_fd; /* buffered; the same as fd without O_DIRECT */
    bool block_device, read_only, no_flush, no_uring;
    uint64_t size;                        /* bytes, as found when it was opened */
    uint32_t block_size;                  /* smallest unit of the device; 512 for files */
    uint32_t physical_size;               /* preferred */
    uint32_t mem_align, offset_align;     /* of direct I/O; 1 without */
    _Atomic bool no_zero_range, no_punch; /* the file system said so */
};

/* `flags`: BLK_O_* (node.h). */
int file_open(const char *path, unsigned flags, struct file **ret, struct err *err);
void file_close(struct file *file); /* NULL-safe */
/* Reads up to `len` bytes from the start; the number read, or -errno. */
int file_head(struct file *file, void *buf, size_t len);

/* Plain blocking I/O; 0 or -errno. Reading past the end gives zeroes. */
int file_preadv(struct file *file, uint64_t offset, const struct iovec *iov, unsigned niov);
int file_pwritev(struct file *file, uint64_t offset, const struct iovec *iov, unsigned niov, bool fua);
int file_zero(struct file *file, uint64_t offset, uint64_t len, unsigned flags); /* BLK_F_UNMAP, BLK_F_NO_FALLBACK */
int file_discard(struct file *file, uint64_t offset, uint64_t len);
int file_flush(struct file *file);
/* Its length now, bytes; or -errno. */
int64_t file_length(struct file *file);

/* The queue operations of struct blk_ops, for a blk whose bytes are the file's. */
struct blk_queue *file_queue_new(struct blk *blk, struct file *file, struct loop *loop, struct err *err);
void file_queue_free(struct blk_queue *q);
void file_queue_submit(struct blk_queue *q, struct blk_req *req);
/* The same for another file: one ring serves all files below an image. `file` of file_queue_new may be NULL then. */
void file_queue_submit_to(struct blk_queue *q, struct file *file, struct blk_req *req);
void file_queue_kick(struct blk_queue *q);
void file_queue_drain(struct blk_queue *q);

#endif
