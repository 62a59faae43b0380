/* The NBD server: any bytes from a client. It answers what it can, and ends when the client does. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/nbd_server.h"
#include "target.h"

static struct nbd_export export = {.name = "", .description = "a disk", .depth = true};
static struct nbd_server *server;

static void setup(void)
{
    char path[64];
    struct err err = {0};
    int fd = memfd_create("disk", MFD_CLOEXEC);
    MUST(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), fd);
    MUST(blk_node_open(path, "raw", NULL, BLK_O_RDWR | BLK_O_NO_LOCK, &export.node, &err) == 0);
    export.size = export.node->size;
    server = nbd_server_new(&export, 1, true, NULL, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int sv[2];
    char reply[65536];
    size_t sent = 0, got = 0;
    if (!server)
        setup();
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
    MUST(nbd_server_add(server, sv[0]) == 0);
    for (;;) {
        struct pollfd p = {sv[1], POLLIN | (sent < size ? POLLOUT : 0), 0};
        MUST(poll(&p, 1, 10000) > 0); /* it never just stops */
        if (p.revents & POLLIN) {
            ssize_t n = recv(sv[1], reply, sizeof reply, MSG_DONTWAIT);
            if (n == 0 || (n < 0 && errno != EAGAIN))
                break;
            got += n > 0 ? (size_t)n : 0;
            MUST(got < 1ull << 34);
        } else if (p.revents & (POLLHUP | POLLERR)) {
            break;
        }
        if (sent < size && (p.revents & POLLOUT)) {
            ssize_t n = send(sv[1], data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent = n > 0 ? sent + (size_t)n : n < 0 && errno != EAGAIN ? size : sent;
        }
        if (sent >= size)
            shutdown(sv[1], SHUT_WR);
    }
    close(sv[1]);
    return 0;
}
