/* What tests of servers on sockets share. Included by a test's one source file. */
#ifndef TESTS_UNIT_CLIENT_H
#define TESTS_UNIT_CLIENT_H

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

/* All that the server has sent so far; the caller frees it. */
static char *read_all(int fd)
{
    char *s = xcalloc(1, 1);
    size_t len = 0;
    for (;;) {
        char buf[4096];
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n <= 0)
            return s;
        s = realloc(s, len + (size_t)n + 1);
        assert_non_null(s);
        memcpy(s + len, buf, (size_t)n);
        s[len += (size_t)n] = 0;
    }
}

#endif
