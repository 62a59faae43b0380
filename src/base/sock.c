/* See sock.h. */
#include "base/sock.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/fd.h"

static int address(const char *path, struct sockaddr_un *a, struct err *err)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof a->sun_path)
        return err_set(err, -ENAMETOOLONG, "%s: the path of a UNIX socket is at most %zu bytes long", path,
                       sizeof a->sun_path - 1);
    strcpy(a->sun_path, path);
    return 0;
}

int sock_unix_connect(const char *path, struct err *err)
{
    struct sockaddr_un a;
    int r = address(path, &a, err);
    if (r)
        return r;
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        return err_errno(err, -errno, "%s: cannot connect", path);
    return fd_take(fd);
}

int sock_unix_listen(const char *path, struct err *err)
{
    struct sockaddr_un a;
    struct stat st;
    int r = address(path, &a, err);
    if (r)
        return r;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return err_set(err, -EEXIST, "%s: is there already and is not a socket", path);
        int old = sock_unix_connect(path, NULL);
        if (old != -ECONNREFUSED) {
            fd_closep(&old);
            return err_set(err, -EADDRINUSE, "%s: another process listens there", path);
        }
        unlink(path);
    }
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Before bind() nobody can connect, and the mode of the socket is the mode of its file. */
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 8) < 0)
        return err_errno(err, -errno, "%s: cannot listen", path);
    return fd_take(fd);
}

int sock_tcp_listen(const char *text, struct err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list;
    autofree char *copy = xstrdup(text);
    char *host = copy, *port = strrchr(copy, ':');
    if (port) {
        *port++ = 0;
        size_t n = strlen(host);
        if (host[0] == '[' && n > 1 && host[n - 1] == ']') { /* IPv6 */
            host[n - 1] = 0;
            host++;
        }
    } else {
        port = copy;
        host = "127.0.0.1";
    }
    int r = getaddrinfo(*host ? host : NULL, port, &hints, &list);
    if (r)
        return err_set(err, -EINVAL, "%s: %s", text, gai_strerror(r));
    autofd int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    static const int on = 1;
    r = fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
                bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, 8) < 0
            ? -errno
            : 0;
    freeaddrinfo(list);
    if (r < 0)
        return err_errno(err, r, "%s: cannot listen", text);
    return fd_take(fd);
}
