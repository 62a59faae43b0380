/* `lodge img io`: what img_io.c (the session) and img_io_data.c (reads and writes) share. Main thread, but for aio's threads. */
#ifndef LODGE_CLI_IMG_IO_H
#define LODGE_CLI_IMG_IO_H

#include <pthread.h>

#include "cli/img.h"

struct io_job;

/* A session: the open image, what runs in the background. */
struct io {
    const struct img *img;
    struct blk_node *node; /* NULL: none is open */
    char *name;
    unsigned flags;
    bool quit;
    pthread_mutex_t print; /* one report at a time */
    struct io_job *jobs;   /* aio_* that have not been waited for */
};

struct io_command {
    const char *name, *alias, *args, *summary;
    int min, max; /* arguments; max -1: any number */
    bool needs_file;
    const char *help; /* more lines; NULL: none */
    int (*run)(struct io *io, int argc, char **argv); /* 0 or -errno; the error is printed */
};

extern const struct io_command io_commands[];

/* "64 KiB", "15.812 MiB". */
const char *io_size_text(double size, char buf[static 32]);
/* A size argument; prints why not. 0 or -EINVAL. */
int io_size(const char *text, int64_t *ret);

int io_read(struct io *io, int argc, char **argv);
int io_readv(struct io *io, int argc, char **argv);
int io_write(struct io *io, int argc, char **argv);
int io_writev(struct io *io, int argc, char **argv);
int io_aio_read(struct io *io, int argc, char **argv);
int io_aio_write(struct io *io, int argc, char **argv);
int io_aio_flush(struct io *io, int argc, char **argv);
int io_discard(struct io *io, int argc, char **argv);

#endif
