/*
 * libvirt's protocol: any bytes as what a client sends, after it has authenticated, to a daemon with an empty
 * directory. The first byte says whether the connection is read-only. The daemon must live, and be as before when the
 * client is gone.
 */
#include "target.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "daemon/daemon.h"

static struct daemon *d;
static char root[] = "/tmp/fuzz-rpc-XXXXXX";

static void clean(void)
{
    char command[100];
    daemon_free(d);
    snprintf(command, sizeof command, "rm -rf %s", root);
    MUST(system(command) == 0);
}

static void start(void)
{
    struct daemon_config config;
    struct err err = {0};
    MUST(mkdtemp(root));
    log_set_level(LOG_ERROR);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    log_set_fd(null);
    daemon_config_init(&config, false, root);
    config.lodge_vm = strdup("/bin/false");
    MUST(daemon_new(&config, NULL, 0, &d, &err) == 0);
    atexit(clean);
}

/* Pings and the answer to AUTH_LIST, so that all procedures are reached. */
static const uint8_t hello[28] = {0, 0, 0, 28, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0, 66};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    uint8_t sink[65536];
    if (!d)
        start();
    if (size < 1)
        return 0;
    unsigned guests = d->guests.n;
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    rpc_server_take(d->server, pair[0], data[0] & 1);
    MUST(write(pair[1], hello, sizeof hello) == sizeof hello);
    loop_poll(d->loop, 0);
    data++;
    size--;
    for (unsigned idle = 0; idle < 4;) {
        ssize_t n = size ? send(pair[1], data, MIN(size, 32768), MSG_NOSIGNAL) : 0;
        if (n > 0) {
            data += n;
            size -= n;
        } else {
            idle++;
        }
        loop_poll(d->loop, 0);
        while (recv(pair[1], sink, sizeof sink, 0) > 0)
            ;
    }
    close(pair[1]);
    while (rpc_server_clients(d->server))
        loop_poll(d->loop, 100);
    loop_poll(d->loop, 0);
    MUST(d->guests.n >= guests && d->guests.n < 100000);
    return 0;
}
