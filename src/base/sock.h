/* UNIX sockets by path, and TCP sockets. */
#ifndef LODGE_BASE_SOCK_H
#define LODGE_BASE_SOCK_H

#include "base/err.h"

/*
 * A listening, non-blocking stream socket at `path`, for its owner only (mode 0600). A socket that nobody listens on
 * any more is replaced; anything else that is there is an error. A descriptor or -errno. The caller removes the file in
 * the end.
 */
int sock_unix_listen(const char *path, struct err *err);

/* A connected stream socket, non-blocking. A descriptor or -errno. */
int sock_unix_connect(const char *path, struct err *err);

/* A listening, non-blocking TCP socket at "[HOST:]PORT"; without HOST only this machine can connect. A descriptor or -errno. */
int sock_tcp_listen(const char *address, struct err *err);

#endif
