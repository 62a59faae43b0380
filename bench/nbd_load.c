/*
 * Load for an NBD server: random reads or writes of 4 KiB with so many requests outstanding on each of some connections. Costs
 * little itself (requests are sent and replies taken many at a time), so that the server is what is measured.
 *
 *   bench_nbd_load SOCKET read|write CONNECTIONS DEPTH SECONDS [BYTES]      prints requests per second
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "block/nbd.h"

enum { BLOCK = 4096, DEPTH_MAX = 256 };

static const char *path;
static int writes, depth;
static double seconds;
static uint64_t span;
static _Atomic uint64_t total;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void get(int fd, void *buf, size_t len)
{
    while (len) {
        ssize_t n = recv(fd, buf, len, MSG_WAITALL);
        if (n <= 0)
            die("recv");
        buf = (char *)buf + n;
        len -= (size_t)n;
    }
}

static void put(int fd, const void *buf, size_t len)
{
    while (len) {
        ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);
        if (n <= 0)
            die("send");
        buf = (const char *)buf + n;
        len -= (size_t)n;
    }
}

/* Option EXPORT_NAME with the empty name: simple replies from then on. */
static int join(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    uint8_t h[18], o[20], size[10];
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        die(path);
    get(fd, h, sizeof h);
    be32_put(o, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    be64_put(o + 4, NBD_OPTION_MAGIC);
    be32_put(o + 12, NBD_OPT_EXPORT_NAME);
    be32_put(o + 16, 0);
    put(fd, o, sizeof o);
    get(fd, size, sizeof size);
    uint64_t bytes = be64_get(size);
    if (!span || span > bytes)
        span = bytes;
    return fd;
}

static size_t request(uint8_t *p, uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    be32_put(p, NBD_REQUEST_MAGIC);
    be16_put(p + 4, 0);
    be16_put(p + 6, writes ? NBD_CMD_WRITE : NBD_CMD_READ);
    be64_put(p + 8, 1);
    be64_put(p + 16, (*seed >> 20) % (span / BLOCK) * BLOCK);
    be32_put(p + 24, BLOCK);
    return NBD_REQUEST_BYTES + (writes ? BLOCK : 0);
}

static void *client(void *opaque)
{
    int fd = join();
    size_t one = NBD_SIMPLE_BYTES + (writes ? 0 : BLOCK), have = 0, room = one * DEPTH_MAX;
    uint8_t *in = malloc(room), *out = calloc(DEPTH_MAX, NBD_REQUEST_BYTES + BLOCK);
    uint64_t seed = (uintptr_t)opaque * 7919, n = 0, until = clock_host_ns() + (uint64_t)(seconds * 1e9);
    size_t len = 0;
    if (!in || !out)
        die("malloc");
    for (int i = 0; i < depth; i++)
        len += request(out + len, &seed);
    put(fd, out, len);
    while (clock_host_ns() < until) {
        ssize_t got = recv(fd, in + have, room - have, 0);
        if (got <= 0)
            die("recv");
        have += (size_t)got;
        size_t done = have / one;
        for (size_t i = 0; i < done; i++)
            if (be32_get(in + i * one) != NBD_SIMPLE_MAGIC || be32_get(in + i * one + 4)) {
                fprintf(stderr, "bad reply\n");
                exit(1);
            }
        memmove(in, in + done * one, have - done * one);
        have -= done * one;
        n += done;
        len = 0;
        for (size_t i = 0; i < done; i++)
            len += request(out + len, &seed);
        put(fd, out, len);
    }
    total += n;
    close(fd);
    free(in);
    free(out);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t t[64];
    if (argc < 6) {
        fprintf(stderr, "usage: %s SOCKET read|write CONNECTIONS DEPTH SECONDS [BYTES]\n", argv[0]);
        return 2;
    }
    path = argv[1];
    writes = !strcmp(argv[2], "write");
    int n = atoi(argv[3]);
    depth = atoi(argv[4]);
    seconds = atof(argv[5]);
    span = argc > 6 ? strtoull(argv[6], NULL, 0) : 0;
    if (n < 1 || n > 64 || depth < 1 || depth > DEPTH_MAX)
        return 2;
    uint64_t start = clock_host_ns();
    for (int i = 0; i < n; i++)
        if (pthread_create(&t[i], NULL, client, (void *)(uintptr_t)(i + 1)))
            die("pthread_create");
    for (int i = 0; i < n; i++)
        pthread_join(t[i], NULL);
    printf("%.0f\n", (double)total * 1e9 / (double)(clock_host_ns() - start)); /* on a busy machine they do not run side by side */
    return 0;
}
