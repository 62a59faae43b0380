/*
 * Network "user": the program passt, started beside the VM, is the guest's router, DHCP and DNS server, and does the
 * guest's connections with ordinary sockets of its own: no root, no interface. Frames travel over a UNIX stream socket,
 * each behind its length in 4 big-endian bytes. The socket is connected before passt runs, so nobody waits for passt to
 * come up: what the guest sends early lies in the socket. passt ends when our end of it closes, however this process
 * dies.
 *
 * passt knows no checksum offload, but takes frames of up to 64 KiB: checksums that the guest leaves to us are done
 * here, large TCP segments pass as they are, and what passt sends is marked as checked, for it never left this host.
 *
 * Known of passt before 2023-03-21 (Debian 12 has 2023-03-09): it resets a TCP connection after 24 seconds in which the
 * guest sent and the other side said nothing at all. Nothing on our side of the socket can prevent that.
 *
 * Thread: send, recv and want_readable on the attached loop; passt's end and its messages are noticed on the loop of
 * net_open().
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "base/log.h"
#include "net/backend.h"
#include "net/passt_ack.h"
#include "net/passt_publish.h"
#include "net/vnet.h"

#define FRAME_MIN 14
#define FRAME_MAX 65535 /* what passt takes */
#define PASST_MTU 65520
#define LEN_SIZE 4
#define RX_SIZE (256 * 1024)
#define SOCKET_BUFFER (1024 * 1024)
#define IOV_MAX_DIRECT 128
#define ACKS_MAX 16
#define CSUM_HEAD_MAX 512 /* bytes of headers up to and with the checksum */

extern char **environ;

struct passt {
    struct net net;
    int fd, more_fd, err_fd;
    pid_t pid;
    int pidfd;
    struct loop *loop; /* of net_open(): watches the child */
    struct loop_fd *pid_watch, *err_watch;
    char message[256]; /* the last thing passt said */
    unsigned message_len;

    struct loop *client_loop;
    const struct net_client *client;
    struct loop_fd *watch, *more_watch;
    uint32_t events;
    bool want, tx_blocked, more;

    /* The rest of a frame that the socket took in part: nothing else may be sent before it. */
    uint8_t *tx;
    size_t tx_pos, tx_len;
    /* Received bytes not yet delivered. */
    uint8_t *rx;
    size_t rx_pos, rx_len;
    /* Handshakes we complete (passt_ack.h), delivered before what is in rx. One too many is lost; the guest asks again.
     */
    uint8_t ack[ACKS_MAX][PASST_ACK_MAX];
    size_t ack_len[ACKS_MAX];
    unsigned acks;
    bool csum; /* the guest's driver understands VNET_F_DATA_VALID */
};

static struct passt *passt_of(struct net *net)
{
    return container_of(net, struct passt, net);
}

/* ---- receiving ---- */

/* Length of the frame at the head of rx if all of it is there, 0 if not yet, -EPROTO when it cannot be. */
static int buffered(const struct passt *p)
{
    size_t have = p->rx_len - p->rx_pos;
    if (have < LEN_SIZE)
        return 0;
    uint32_t n;
    memcpy(&n, p->rx + p->rx_pos, sizeof n);
    n = be32toh(n);
    if (n < FRAME_MIN || n > FRAME_MAX)
        return -EPROTO;
    return have - LEN_SIZE >= n ? (int)n : 0;
}

/*
 * Sets what wakes us. Frames that wait in rx make the socket no longer readable: then more_fd, an eventfd that is
 * always ready, stands in for it.
 */
static void update_watch(struct passt *p)
{
    if (!p->watch)
        return;
    uint32_t events = (p->want ? EPOLLIN : 0) | (p->tx_blocked ? EPOLLOUT : 0);
    if (events != p->events) {
        p->events = events;
        loop_mod_fd(p->watch, events);
    }
    bool more = p->want && (p->acks || buffered(p) > 0);
    if (more != p->more) {
        p->more = more;
        loop_mod_fd(p->more_watch, more ? EPOLLIN : 0);
    }
}

static void unwatch(struct passt *p)
{
    loop_del_fd(p->watch);
    loop_del_fd(p->more_watch);
    p->watch = p->more_watch = NULL;
    p->events = 0;
    p->more = false;
}

static void link_down(struct passt *p)
{
    if (!p->net.link_up)
        return;
    p->net.link_up = false;
    unwatch(p);
    if (p->client && p->client->link_changed)
        p->client->link_changed(p->client->opaque, false);
}

static int fill(struct passt *p)
{
    if (p->rx_pos == p->rx_len)
        p->rx_pos = p->rx_len = 0;
    if (RX_SIZE - p->rx_pos < LEN_SIZE + FRAME_MAX) {
        memmove(p->rx, p->rx + p->rx_pos, p->rx_len - p->rx_pos);
        p->rx_len -= p->rx_pos;
        p->rx_pos = 0;
    }
    ssize_t n = recv(p->fd, p->rx + p->rx_len, RX_SIZE - p->rx_len, MSG_DONTWAIT);
    if (n > 0) {
        p->rx_len += (size_t)n;
        return 0;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    return -ENETDOWN;
}

/* Length of the next frame, read from the socket if need be, or -EAGAIN. */
static int next_frame(struct passt *p)
{
    int len;
    if (!p->net.link_up)
        return -EAGAIN;
    if (p->acks)
        return (int)p->ack_len[p->acks - 1];
    while ((len = buffered(p)) == 0) {
        int code = fill(p);
        if (code == -EAGAIN) {
            update_watch(p);
            return -EAGAIN;
        }
        if (code < 0) {
            link_down(p);
            return -EAGAIN;
        }
    }
    if (len < 0) {
        log_error("network 'user': passt sent a frame of impossible length; the guest has no network now");
        link_down(p);
        return -EAGAIN;
    }
    return len;
}

static int passt_peek(struct net *net, unsigned q)
{
    int len = next_frame(passt_of(net));
    return len < 0 ? len : len + NET_VNET_HDR_LEN;
}

static int passt_recv(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct passt *p = passt_of(net);
    int len = next_frame(p);
    if (len < 0)
        return len;
    uint8_t hdr[NET_VNET_HDR_LEN] = {[VNET_FLAGS] = p->csum ? VNET_F_DATA_VALID : 0, [VNET_NUM_BUFFERS] = 1};
    size_t done = iov_write(iov, niov, 0, hdr, sizeof hdr);
    if (p->acks) {
        done += iov_write(iov, niov, sizeof hdr, p->ack[--p->acks], (size_t)len);
    } else {
        done += iov_write(iov, niov, sizeof hdr, p->rx + p->rx_pos + LEN_SIZE, (size_t)len);
        p->rx_pos += LEN_SIZE + (size_t)len;
    }
    return done == sizeof hdr + (size_t)len ? (int)done : -EMSGSIZE;
}

/* ---- sending ---- */

/* Sends the rest of a frame. 0 when there is none left, -EAGAIN, -ENETDOWN. */
static int flush(struct passt *p)
{
    while (p->tx_pos < p->tx_len) {
        ssize_t n = send(p->fd, p->tx + p->tx_pos, p->tx_len - p->tx_pos, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return -EAGAIN;
        if (n < 0)
            return -ENETDOWN;
        p->tx_pos += (size_t)n;
    }
    p->tx_pos = p->tx_len = 0;
    return 0;
}

static int blocked(struct passt *p, bool on)
{
    p->tx_blocked = on;
    update_watch(p);
    return on ? -EAGAIN : 0;
}

/*
 * Does the checksum that `hdr` asks for: copies the frame's head up to and with the checksum field into `head` and puts
 * it there, for guest memory is not ours to write. Length of the head, 0 when there is nothing to do, -EINVAL for
 * nonsense.
 */
static int complete_csum(const uint8_t *hdr, const struct iovec *iov, unsigned niov, size_t len, uint8_t *head)
{
    if (!(hdr[VNET_FLAGS] & VNET_F_NEEDS_CSUM))
        return 0;
    size_t start = le16_get(hdr + VNET_CSUM_START), end = start + le16_get(hdr + VNET_CSUM_OFFSET) + 2;
    if (end > len || end > CSUM_HEAD_MAX)
        return -EINVAL;
    iov_read(iov, niov, NET_VNET_HDR_LEN, head, end);
    uint16_t sum = (uint16_t)~vnet_sum(iov, niov, NET_VNET_HDR_LEN + start);
    if (!sum)
        sum = 0xffff; /* 0 would mean "no checksum" to UDP; both are the same number */
    sum = htobe16(sum);
    memcpy(head + end - 2, &sum, 2);
    return (int)end;
}

static void complete_handshake(struct passt *p, const struct iovec *iov, unsigned niov, size_t len)
{
    uint8_t frame[PASST_SYN_ACK_MAX];
    if (len > sizeof frame || p->acks == ACKS_MAX)
        return;
    iov_read(iov, niov, NET_VNET_HDR_LEN, frame, len);
    p->ack_len[p->acks] = passt_ack(frame, len, p->ack[p->acks]);
    if (p->ack_len[p->acks]) {
        p->acks++;
        update_watch(p);
    }
}

static int passt_send(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct passt *p = passt_of(net);
    uint8_t hdr[NET_VNET_HDR_LEN], head[LEN_SIZE + CSUM_HEAD_MAX];
    size_t total = iov_len(iov, niov);
    if (!net->link_up)
        return -ENETDOWN;
    if (p->tx_pos < p->tx_len)
        return blocked(p, true);
    if (total < sizeof hdr + FRAME_MIN || total > sizeof hdr + FRAME_MAX)
        return -EMSGSIZE;
    iov_read(iov, niov, 0, hdr, sizeof hdr);
    size_t len = total - sizeof hdr;
    int nhead = complete_csum(hdr, iov, niov, len, head + LEN_SIZE);
    if (nhead < 0)
        return nhead;
    uint32_t be_len = htobe32((uint32_t)len);
    memcpy(head, &be_len, sizeof be_len);

    if (niov > IOV_MAX_DIRECT - 2) {
        memcpy(p->tx, head, LEN_SIZE + (size_t)nhead);
        iov_read(iov, niov, sizeof hdr + (size_t)nhead, p->tx + LEN_SIZE + nhead, len - (size_t)nhead);
        p->tx_len = LEN_SIZE + len;
        if (flush(p) == -EAGAIN)
            blocked(p, true);
        return (int)total;
    }
    struct iovec out[IOV_MAX_DIRECT] = {{head, LEN_SIZE + (size_t)nhead}};
    unsigned nout =
        1 + iov_slice(iov, niov, sizeof hdr + (size_t)nhead, len - (size_t)nhead, out + 1, IOV_MAX_DIRECT - 1);
    struct msghdr msg = {.msg_iov = out, .msg_iovlen = nout};
    ssize_t n;
    do
        n = sendmsg(p->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? blocked(p, true) : -ENETDOWN;
    if ((size_t)n < LEN_SIZE + len) {
        p->tx_len = iov_read(out, nout, (size_t)n, p->tx, LEN_SIZE + len - (size_t)n);
        blocked(p, true);
    }
    complete_handshake(p, iov, niov, len);
    return (int)total;
}

/* ---- events of the attached loop ---- */

static void on_socket(void *opaque, uint32_t events)
{
    struct passt *p = opaque;
    if (events & EPOLLOUT && p->tx_blocked && flush(p) == 0) {
        blocked(p, false);
        if (p->client->writable)
            p->client->writable(p->client->opaque, 0);
    }
    if (events & EPOLLIN && p->want && p->client)
        p->client->readable(p->client->opaque, 0);
    else if (events & (EPOLLHUP | EPOLLERR))
        link_down(p);
    update_watch(p);
}

static void on_more(void *opaque, uint32_t events)
{
    struct passt *p = opaque;
    if (p->more)
        p->client->readable(p->client->opaque, 0);
    update_watch(p);
}

static int passt_attach(struct net *net, struct loop *loop, const struct net_client *client, struct err *err)
{
    struct passt *p = passt_of(net);
    unwatch(p);
    p->client = client;
    p->client_loop = loop;
    if (!client || !net->link_up)
        return 0;
    p->want = true;
    p->events = EPOLLIN;
    p->watch = loop_add_fd(loop, p->fd, EPOLLIN, on_socket, p);
    p->more_watch = loop_add_fd(loop, p->more_fd, 0, on_more, p);
    if (!p->watch || !p->more_watch) {
        unwatch(p);
        return err_set(err, -ENOMEM, "network 'user': cannot watch the socket of passt");
    }
    update_watch(p);
    return 0;
}

static void passt_want_readable(struct net *net, unsigned q, bool on)
{
    struct passt *p = passt_of(net);
    if (p->want == on)
        return;
    p->want = on;
    update_watch(p);
}

static void passt_set_offload(struct net *net, unsigned offload)
{
    passt_of(net)->csum = offload & NET_OFFLOAD_CSUM;
}

static int passt_set_queues(struct net *net, unsigned active)
{
    return active == 1 ? 0 : -EINVAL;
}

/* ---- the child ---- */

static void on_stderr(void *opaque, uint32_t events)
{
    struct passt *p = opaque;
    char buf[512];
    ssize_t n = read(p->err_fd, buf, sizeof buf);
    if (n <= 0) {
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        loop_del_fd(p->err_watch);
        p->err_watch = NULL;
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] != '\n') {
            if (p->message_len < sizeof p->message - 1)
                p->message[p->message_len++] = buf[i];
            p->message[p->message_len] = '\0';
            continue;
        }
        /* It complains about a missing syslog in its own words; that helps nobody. */
        if (p->message_len && strncmp(p->message, "Failed to send", 14))
            log_info("passt: %s", p->message);
        p->message_len = 0;
    }
}

static void on_exit_of_child(void *opaque, uint32_t events)
{
    struct passt *p = opaque;
    int status = 0;
    if (waitpid(p->pid, &status, WNOHANG) != p->pid)
        return;
    p->pid = -1;
    loop_del_fd(p->pid_watch);
    p->pid_watch = NULL;
    if (p->err_watch)
        on_stderr(p, EPOLLIN);
    if (WIFSIGNALED(status))
        log_error("network 'user': passt was killed by signal %d; the guest has no network now", WTERMSIG(status));
    else
        log_error("network 'user': passt ended with status %d%s%s; the guest has no network now", WEXITSTATUS(status),
                  p->message[0] ? ": " : "", p->message);
}

static void passt_close(struct net *net)
{
    struct passt *p = passt_of(net);
    unwatch(p);
    loop_del_fd(p->pid_watch);
    loop_del_fd(p->err_watch);
    fd_closep(&p->fd);
    if (p->pid > 0) {
        /* It holds nothing that could be lost, and waiting for it to see the closed socket takes longer. */
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    fd_closep(&p->pidfd);
    fd_closep(&p->more_fd);
    fd_closep(&p->err_fd);
    free(p->tx);
    free(p->rx);
    free(p);
}

static int start(struct passt *p, int child_fd, const struct net_options *opt, struct err *err)
{
    char *argv[10 + 2 * 64 + 1] = {"passt", "--foreground", "--quiet", "--stderr", "--fd", "3"};
    char values[64][256];
    unsigned n = 6, npub = 0;
    for (const char *const *pub = opt->publish; pub && *pub; pub++, npub++) {
        const char *name = NULL;
        if (npub == ARRAY_SIZE(values))
            return err_set(err, -E2BIG, "network 'user': more than %zu published ports", ARRAY_SIZE(values));
        int code = passt_publish(*pub, &name, values[npub], sizeof values[npub], err);
        if (code < 0)
            return code;
        argv[n++] = (char *)name;
        argv[n++] = values[npub];
    }

    if (opt->ifname && (opt->ifname[0] == '-' || strlen(opt->ifname) >= IF_NAMESIZE))
        return err_set(err, -EINVAL, "network 'user': '%s' cannot be the name of an interface", opt->ifname);
    if (opt->ifname) {
        argv[n++] = "--interface";
        argv[n++] = (char *)opt->ifname;
    }

    int pipefd[2];
    if (pipe2(pipefd, O_CLOEXEC | O_NONBLOCK) < 0)
        return err_errno(err, -errno, "network 'user': cannot make a pipe");
    p->err_fd = pipefd[0];
    autofd int err_end = pipefd[1];

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    /* The end for stderr may be 3 itself, so it goes to its place first. */
    posix_spawn_file_actions_adddup2(&actions, err_end, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, child_fd, 3);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    /* A session of its own: a Ctrl-C at the terminal is the guest's affair. */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    int code = -posix_spawnp(&p->pid, "passt", &actions, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (code < 0) {
        p->pid = -1;
        if (code == -ENOENT || code == -EACCES)
            return err_set(err, code, "network 'user' needs the program passt (Debian package passt)");
        return err_errno(err, code, "network 'user': cannot start passt");
    }
    p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (p->pidfd < 0)
        return err_errno(err, -errno, "network 'user': cannot watch passt");
    return 0;
}

static const struct net_ops passt_ops = {
    .send = passt_send,
    .recv = passt_recv,
    .peek = passt_peek,
    .set_offload = passt_set_offload,
    .set_queues = passt_set_queues,
    .close = passt_close,
};

static int passt_open(const struct net_options *opt, struct loop *loop, struct net **ret, struct err *err)
{
    if (opt->queues > 1)
        return err_set(err, -EINVAL, "network 'user' has one queue only, %u are wanted", opt->queues);
    int sv[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
        return err_errno(err, -errno, "network 'user': cannot make a socket");
    autofd int child_fd = sv[1];
    struct passt *p = xcalloc(1, sizeof *p);
    p->net = (struct net){
        .ops = &passt_ops,
        .backend = "passt",
        .vnet_hdr = true,
        .offload = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_TSO_ECN,
        .queues = 1,
        .mtu = PASST_MTU,
        .link_up = true,
        .attach = passt_attach,
        .want_readable = passt_want_readable,
    };
    p->fd = sv[0];
    p->more_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    p->err_fd = p->pidfd = -1;
    p->pid = -1;
    p->loop = loop;
    p->tx = malloc(LEN_SIZE + FRAME_MAX);
    p->rx = malloc(RX_SIZE);
    /* Room for a window of large frames in both directions; the kernel may give less. */
    for (unsigned i = 0; i < 2; i++)
        setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &(int){SOCKET_BUFFER}, sizeof(int));
    int code = p->more_fd < 0 || !p->tx || !p->rx ? err_set(err, -ENOMEM, "network 'user': no memory") : 0;
    if (!code)
        code = start(p, child_fd, opt, err);
    if (!code) {
        p->pid_watch = loop_add_fd(loop, p->pidfd, EPOLLIN, on_exit_of_child, p);
        p->err_watch = loop_add_fd(loop, p->err_fd, EPOLLIN, on_stderr, p);
        if (!p->pid_watch || !p->err_watch)
            code = err_set(err, -ENOMEM, "network 'user': cannot watch passt");
    }
    if (code) {
        passt_close(&p->net);
        return code;
    }
    *ret = &p->net;
    return 0;
}

const struct net_backend net_passt = {
    .kind = "user",
    .summary = "the host's network through passt, without root",
    .open = passt_open,
};
