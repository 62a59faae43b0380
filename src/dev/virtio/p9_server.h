/*
 * A 9P2000.L file server for one directory and one client (https://github.com/chaos/diod/blob/master/protocol.md).
 * Messages come and go as scatter lists; it knows nothing of virtio. One thread at a time.
 *
 * Confinement: every file is held by an O_PATH descriptor that was reached from the directory one checked name at a
 * time, never through a symbolic link; ".." goes to the file from which the walk came. Opening goes through
 * /proc/self/fd, which opens exactly the file that the descriptor holds, and only regular files and directories are
 * opened. What could hurt the host beside the directory (device nodes, set-user-id bits, attributes other than "user.")
 * cannot be made.
 */
#ifndef LODGE_DEV_VIRTIO_P9_SERVER_H
#define LODGE_DEV_VIRTIO_P9_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct p9_server;

int p9_server_new(const char *path, bool readonly, struct p9_server **ret, struct err *err);
void p9_server_free(struct p9_server *s); /* NULL-safe */

/* Forgets the client: all its files are closed. */
void p9_server_reset(struct p9_server *s);

/* Answers one request: reads it from `out`, writes the answer to `in`. Length of the answer; 0 when `in` has no room
 * for any. */
size_t p9_server_handle(struct p9_server *s, const struct iovec *out, unsigned nout, const struct iovec *in,
                        unsigned nin);

/* Files the client has. */
unsigned p9_server_fids(const struct p9_server *s);

#endif
