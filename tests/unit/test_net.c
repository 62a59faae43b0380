#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/iov.h"
#include "net/net.h"
#include "net/vnet.h"

/* ---- iov and checksum ---- */

static void iov_copies_and_slices(void **s)
{
    char a[] = "abc", b[] = "defgh", out[16] = "";
    struct iovec iov[] = {{a, 3}, {a, 0}, {b, 5}}, part[4];
    assert_int_equal(iov_len(iov, 3), 8);
    assert_int_equal(iov_read(iov, 3, 2, out, 16), 6);
    assert_string_equal(out, "cdefgh");
    assert_int_equal(iov_read(iov, 3, 8, out, 1), 0);
    assert_int_equal(iov_write(iov, 3, 1, "XYZ", 3), 3);
    assert_memory_equal(a, "aXY", 3);
    assert_memory_equal(b, "Zefgh", 5);
    assert_int_equal(iov_slice(iov, 3, 2, 3, part, 4), 2);
    assert_ptr_equal(part[0].iov_base, a + 2);
    assert_int_equal(part[1].iov_len, 2);
}

static void checksum_does_not_depend_on_pieces(void **s)
{
    /* RFC 1071's example */
    uint8_t rfc[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    assert_int_equal(vnet_sum(&(struct iovec){rfc, 8}, 1, 0), 0xddf2);
    uint8_t buf[1000];
    for (unsigned i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)(i * 37 + i / 7);
    uint32_t want = 0;
    for (unsigned i = 5; i < sizeof buf; i++)
        want += (i - 5) % 2 ? buf[i] : buf[i] << 8;
    while (want >> 16)
        want = (want & 0xffff) + (want >> 16);
    for (unsigned cut = 1; cut < sizeof buf - 60; cut += 13) {
        struct iovec iov[] = {{buf, cut}, {buf + cut, 59}, {buf + cut + 59, sizeof buf - cut - 59}};
        assert_int_equal(vnet_sum(iov, 3, 5), want);
    }
}

static void unknown_kind_is_named(void **s)
{
    struct net *net;
    struct err err = {0};
    assert_int_equal(net_open(&(struct net_options){.kind = "token-ring"}, NULL, &net, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "token-ring"));
    assert_non_null(strstr(err.msg, "user, tap"));
}

/* ---- a guest made by hand ---- */

struct guest {
    struct net_client client;
    struct loop *loop;
    struct net *net;
    uint8_t frame[NET_FRAME_MAX];
    int len; /* of the frame that came last */
    bool (*want)(const uint8_t *frame, int len);
    bool found, down;
};

static void on_readable(void *opaque, unsigned q)
{
    struct guest *g = opaque;
    while (!g->found) {
        int n = g->net->ops->recv(g->net, q, &(struct iovec){g->frame, sizeof g->frame}, 1);
        if (n < 0)
            return;
        g->len = n - NET_VNET_HDR_LEN;
        g->found = g->want(g->frame + NET_VNET_HDR_LEN, g->len);
    }
}

static void on_link(void *opaque, bool up)
{
    ((struct guest *)opaque)->down = !up;
}

static bool wait_ms(struct guest *g, bool (*want)(const uint8_t *, int), unsigned ms)
{
    g->found = false;
    g->want = want;
    on_readable(g, 0);
    for (uint64_t end = clock_host_ns() + ms * (NSEC_PER_SEC / 1000); !g->found && !g->down && clock_host_ns() < end;)
        loop_poll(g->loop, 100);
    return g->found;
}

static bool wait_for(struct guest *g, bool (*want)(const uint8_t *, int))
{
    return wait_ms(g, want, 10000);
}

static const uint8_t mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

/* A frame behind its header; the guest leaves the checksum at `csum_off` from `csum_start` to the backend if csum_start
 * is not 0. */
static int send_frame(struct guest *g, const uint8_t *frame, size_t len, unsigned csum_start, unsigned csum_off)
{
    uint8_t hdr[NET_VNET_HDR_LEN] = {0};
    if (csum_start) {
        hdr[VNET_FLAGS] = VNET_F_NEEDS_CSUM;
        le16_put(hdr + VNET_CSUM_START, (uint16_t)csum_start);
        le16_put(hdr + VNET_CSUM_OFFSET, (uint16_t)csum_off);
    }
    struct iovec iov[] = {{hdr, sizeof hdr}, {(void *)frame, 20}, {(uint8_t *)frame + 20, len - 20}};
    return g->net->ops->send(g->net, 0, iov, 3);
}

static void be16_put(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static const struct net_client client_ops = {.readable = on_readable, .link_changed = on_link};

/* Ethernet and IPv4 headers. */
static uint8_t *put_ip(uint8_t *f, const uint8_t *dst_mac, unsigned proto, const uint8_t *src, const uint8_t *dst,
                       size_t payload)
{
    memcpy(f, dst_mac, 6);
    memcpy(f + 6, mac, 6);
    be16_put(f + 12, 0x800);
    uint8_t *ip = f + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    be16_put(ip + 2, (unsigned)(20 + payload));
    ip[8] = 64;
    ip[9] = (uint8_t)proto;
    memcpy(ip + 12, src, 4);
    memcpy(ip + 16, dst, 4);
    be16_put(ip + 10, (uint16_t)~vnet_sum(&(struct iovec){ip, 20}, 1, 0));
    return ip + 20;
}

static size_t put_dhcp_discover(uint8_t *f)
{
    static const uint8_t any[4], all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t *udp = put_ip(f, all, 17, any, all, 8 + 300);
    memset(udp, 0, 308);
    be16_put(udp, 68);
    be16_put(udp + 2, 67);
    be16_put(udp + 4, 308);
    uint8_t *d = udp + 8;
    d[0] = 1; /* BOOTREQUEST, Ethernet */
    d[1] = 1;
    d[2] = 6;
    d[7] = 0x77;
    memcpy(d + 28, mac, 6);
    memcpy(d + 236, (uint8_t[]){0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255}, 8);
    return 14 + 20 + 308;
}

static bool is_dhcp_offer(const uint8_t *f, int len)
{
    if (len < 14 + 20 + 8 + 240 || f[12] != 8 || f[13] || f[23] != 17 || f[37] != 68)
        return false;
    const uint8_t *d = f + 42;
    return d[0] == 2 && d[7] == 0x77 && !memcmp(d + 28, mac, 6) &&
           memmem(d + 240, (size_t)(len - 42 - 240), (uint8_t[]){53, 1, 2}, 3);
}

static bool have_program(const char *name)
{
    char cmd[64];
    snprintf(cmd, sizeof cmd, "command -v %s >/dev/null 2>&1", name);
    return system(cmd) == 0;
}

/* ---- passt ---- */

static void open_user(struct guest *g, const char *const *publish)
{
    struct err err = {0};
    g->down = false;
    assert_int_equal(loop_new(&g->loop, &err), 0);
    if (net_open(&(struct net_options){.kind = "user", .publish = publish, .mac = mac}, g->loop, &g->net, &err) < 0)
        fail_msg("%s", err.msg);
    g->client = client_ops;
    g->client.opaque = g;
    assert_int_equal(g->net->attach(g->net, g->loop, &g->client, &err), 0);
}

static void close_guest(struct guest *g)
{
    net_close(g->net);
    loop_free(g->loop);
}

static uint8_t tcp_gw[4], tcp_me[4], tcp_gw_mac[6];
static uint16_t tcp_port;

static bool is_syn_ack(const uint8_t *f, int len)
{
    return len >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6 && (f[34] << 8 | f[35]) == tcp_port &&
           (f[47] & 0x3f) == 0x12;
}

static void passt_offers_an_address_and_connects(void **s)
{
    if (!have_program("passt")) {
        print_message("skip: passt is not installed\n");
        skip();
    }
    struct guest *g = calloc(1, sizeof *g);
    uint8_t f[400];
    open_user(g, NULL);
    size_t n = put_dhcp_discover(f);
    be16_put(f + 40, 0);
    assert_int_equal(send_frame(g, f, n, 34, 6), n + NET_VNET_HDR_LEN);
    if (!wait_for(g, is_dhcp_offer)) {
        /* A host without a default route gives passt nothing to offer. */
        if (system("ip route show default 2>/dev/null | grep -q .") != 0) {
            close_guest(g);
            free(g);
            print_message("skip: no default route\n");
            skip();
        }
        fail_msg("no DHCP offer came");
    }
    const uint8_t *offer = g->frame + NET_VNET_HDR_LEN;
    memcpy(tcp_gw_mac, offer + 6, 6);
    memcpy(tcp_me, offer + 42 + 16, 4);
    memset(tcp_gw, 0, 4);
    for (int o = 42 + 240; o + 2 < g->len && offer[o] != 255; o += 2 + offer[o + 1])
        if (offer[o] == 3 && o + 6 <= g->len)
            memcpy(tcp_gw, offer + o + 2, 4);
    assert_int_not_equal(tcp_gw[0], 0);

    /* A server on the host's loopback is the gateway's, for the guest; the checksum is left to the backend. */
    int srv = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t sl = sizeof sa;
    assert_int_equal(bind(srv, (void *)&sa, sizeof sa), 0);
    assert_int_equal(listen(srv, 1), 0);
    getsockname(srv, (void *)&sa, &sl);
    tcp_port = ntohs(sa.sin_port);
    uint8_t *tcp = put_ip(f, tcp_gw_mac, 6, tcp_me, tcp_gw, 20);
    memset(tcp, 0, 20);
    be16_put(tcp, 40000);
    be16_put(tcp + 2, tcp_port);
    be16_put(tcp + 4, 0x1234);
    tcp[12] = 5 << 4;
    tcp[13] = 2; /* SYN */
    be16_put(tcp + 14, 65535);
    uint8_t pseudo[12] = {[9] = 6, [11] = 20};
    memcpy(pseudo, tcp_me, 4);
    memcpy(pseudo + 4, tcp_gw, 4);
    be16_put(tcp + 16, vnet_sum(&(struct iovec){pseudo, 12}, 1, 0));
    assert_int_equal(send_frame(g, f, 54, 34, 16), 54 + NET_VNET_HDR_LEN);
    assert_true(wait_for(g, is_syn_ack));
    assert_int_equal(poll(&(struct pollfd){.fd = srv, .events = POLLIN}, 1, 5000), 1);
    close(srv);

    /* Nonsense in the header or the length is dropped, and the link goes on. */
    assert_true(send_frame(g, f, 54, 60000, 60000) < 0);
    uint8_t tiny[20] = {0};
    assert_true(g->net->ops->send(g->net, 0, &(struct iovec){tiny, 20}, 1) < 0);
    assert_true(g->net->ops->send(g->net, 0, &(struct iovec){tiny, 0}, 1) < 0);
    n = put_dhcp_discover(f);
    be16_put(f + 40, 0);
    assert_true(send_frame(g, f, n, 0, 0) > 0);
    assert_true(wait_for(g, is_dhcp_offer));
    close_guest(g);
    /* No zombie stays. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    free(g);
}

static bool is_syn(const uint8_t *f, int len)
{
    return len >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6 && f[36] == 0 && f[37] == 80 && (f[47] & 0x3f) == 2;
}

static bool is_pure_ack(const uint8_t *f, int len)
{
    return len >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6 && f[37] == 80 && (f[47] & 0x3f) == 0x10;
}

/* A server in the guest that speaks first must be told that the connection stands. */
static void published_port_completes_the_handshake(void **s)
{
    if (!have_program("passt") || system("ip route show default 2>/dev/null | grep -q .") != 0) {
        print_message("skip: no passt, or no default route\n");
        skip();
    }
    struct guest *g = calloc(1, sizeof *g);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t sl = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (void *)&sa, sizeof sa), 0);
    getsockname(fd, (void *)&sa, &sl);
    close(fd);
    char pub[40];
    snprintf(pub, sizeof pub, "tcp:127.0.0.1:%d:80", ntohs(sa.sin_port));
    open_user(g, (const char *const[]){pub, NULL});
    uint8_t f[400];
    size_t n = put_dhcp_discover(f);
    be16_put(f + 40, 0);
    assert_true(send_frame(g, f, n, 0, 0) > 0);
    assert_true(wait_for(g, is_dhcp_offer));

    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(connect(fd, (void *)&sa, sizeof sa) == 0 || errno == EINPROGRESS);
    assert_true(wait_for(g, is_syn));
    const uint8_t *syn = g->frame + NET_VNET_HDR_LEN;
    uint8_t me[4], peer[4], peer_mac[6], *tcp;
    memcpy(me, syn + 30, 4);
    memcpy(peer, syn + 26, 4);
    memcpy(peer_mac, syn + 6, 6);
    tcp = put_ip(f, peer_mac, 6, me, peer, 20);
    memset(tcp, 0, 20);
    memcpy(tcp, syn + 36, 2);
    memcpy(tcp + 2, syn + 34, 2);
    be16_put(tcp + 4, 0x1234);
    be16_put(tcp + 6, 0xffff);
    memcpy(tcp + 8, syn + 38, 4);
    tcp[11]++; /* without carry, most of the time; the number comes back as it is in any case */
    tcp[12] = 5 << 4;
    tcp[13] = 0x12;
    be16_put(tcp + 14, 65535);
    assert_true(send_frame(g, f, 54, 0, 0) > 0);
    assert_true(wait_for(g, is_pure_ack));
    const uint8_t *ack = g->frame + NET_VNET_HDR_LEN;
    assert_memory_equal(ack, mac, 6);
    assert_memory_equal(ack + 38, tcp + 8, 4);
    assert_memory_equal(ack + 42, ((uint8_t[]){0x12, 0x35, 0, 0}), 4);
    assert_int_equal(vnet_sum(&(struct iovec){(void *)(ack + 14), 20}, 1, 0), 0xffff);
    uint8_t pseudo[4] = {0, 6, 0, 20};
    struct iovec sum[] = {{(void *)(ack + 26), 8}, {pseudo, 4}, {(void *)(ack + 34), 20}};
    assert_int_equal(vnet_sum(sum, 3, 0), 0xffff);
    close(fd);
    close_guest(g);
    free(g);
}

static void passt_missing_is_said(void **s)
{
    char *path = strdup(getenv("PATH"));
    struct guest g = {0};
    struct err err = {0};
    assert_int_equal(loop_new(&g.loop, NULL), 0);
    setenv("PATH", "/nonexistent", 1);
    int code = net_open(&(struct net_options){.kind = "user"}, g.loop, &g.net, &err);
    setenv("PATH", path, 1);
    free(path);
    assert_int_equal(code, -ENOENT);
    assert_string_equal(err.msg, "network 'user' needs the program passt (Debian package passt)");
    loop_free(g.loop);
}

static void publish_is_checked(void **s)
{
    static const char *const bad[] = {"tcp:",
                                      "80:80",
                                      "tcp:0:1",
                                      "tcp:80:",
                                      "tcp:80:99999",
                                      "tcp:80:80:80",
                                      "udp:[::1:80",
                                      "tcp:1.2.3.4",
                                      "tcp:1.2.3.4/x:80",
                                      "sctp:1:1",
                                      "tcp:80 -x:1",
                                      "tcp:90-80:1",
                                      "tcp:80-90:65530",
                                      "tcp:80,85",
                                      "tcp:80-90,~",
                                      "tcp:~",
                                      "tcp:all:80",
                                      "tcp:1.2.3.4/24:80",
                                      NULL};
    struct guest g = {0};
    assert_int_equal(loop_new(&g.loop, NULL), 0);
    for (unsigned i = 0; bad[i]; i++) {
        struct err err = {0};
        const char *list[] = {bad[i], NULL};
        assert_int_equal(net_open(&(struct net_options){.kind = "user", .publish = list}, g.loop, &g.net, &err),
                         -EINVAL);
        assert_non_null(strstr(err.msg, bad[i]));
    }
    loop_free(g.loop);
}

static void passt_death_takes_the_link_down(void **s)
{
    if (!have_program("passt")) {
        print_message("skip: passt is not installed\n");
        skip();
    }
    struct guest *g = calloc(1, sizeof *g);
    /* A port that passt cannot bind ends it. */
    int srv = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t sl = sizeof sa;
    assert_int_equal(bind(srv, (void *)&sa, sizeof sa), 0);
    assert_int_equal(listen(srv, 1), 0);
    getsockname(srv, (void *)&sa, &sl);
    char pub[32];
    snprintf(pub, sizeof pub, "tcp:127.0.0.1:%d:80", ntohs(sa.sin_port));
    open_user(g, (const char *const[]){pub, NULL});
    assert_false(wait_for(g, is_dhcp_offer));
    assert_true(g->down);
    uint8_t f[400];
    size_t n = put_dhcp_discover(f);
    assert_true(send_frame(g, f, n, 0, 0) < 0);
    close_guest(g);
    close(srv);
    free(g);
}

/* ---- tap, in a network namespace of its own ---- */

static bool is_arp_reply(const uint8_t *f, int len)
{
    return len >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 2 && !memcmp(f, mac, 6);
}

static int make_tap(const char *name, int extra)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | extra)};
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETPERSIST, 1) < 0)
        return -errno;
    close(fd);
    int sk = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in *sa = (void *)&ifr.ifr_addr;
    *sa = (struct sockaddr_in){.sin_family = AF_INET};
    inet_pton(AF_INET, "10.9.8.1", &sa->sin_addr);
    int code = ioctl(sk, SIOCSIFADDR, &ifr);
    ifr.ifr_flags = IFF_UP | IFF_RUNNING;
    code |= ioctl(sk, SIOCSIFFLAGS, &ifr);
    close(sk);
    return code;
}

static void arp_over(struct guest *g)
{
    uint8_t f[42] = {255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    memcpy(f + 22, mac, 6);
    memcpy(f + 28, (uint8_t[]){10, 9, 8, 2}, 4);
    memcpy(f + 38, (uint8_t[]){10, 9, 8, 1}, 4);
    /* The interface may take a moment to come up: until then it drops what comes. */
    bool found = false;
    for (unsigned i = 0; i < 50 && !found; i++) {
        send_frame(g, f, sizeof f, 0, 0);
        found = wait_ms(g, is_arp_reply, 200);
    }
    assert_true(found);
}

static void tap_in_namespace(void)
{
    struct guest *g = calloc(1, sizeof *g);
    struct err err = {0};
    struct net_client client = client_ops;
    client.opaque = g;
    assert_int_equal(make_tap("lt0", 0), 0);
    assert_int_equal(loop_new(&g->loop, NULL), 0);
    if (net_open(&(struct net_options){.kind = "tap", .ifname = "lt0"}, g->loop, &g->net, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(g->net->mtu, 1500);
    assert_int_equal(g->net->attach(g->net, g->loop, &client, NULL), 0);
    g->net->ops->set_offload(g->net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    arp_over(g);
    /* In use: a second one is refused and says so. */
    struct net *other;
    assert_int_equal(net_open(&(struct net_options){.kind = "tap", .ifname = "lt0"}, g->loop, &other, &err), -EBUSY);
    assert_non_null(strstr(err.msg, "lt0"));
    err = (struct err){0};
    assert_int_equal(
        net_open(&(struct net_options){.kind = "tap", .ifname = "lt0", .queues = 2}, g->loop, &other, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "multi_queue"));
    net_close(g->net);

    err = (struct err){0};
    assert_int_equal(net_open(&(struct net_options){.kind = "tap", .ifname = "nope0"}, g->loop, &other, &err), -ENODEV);
    assert_non_null(strstr(err.msg, "no such interface"));
    err = (struct err){0};
    assert_int_equal(net_open(&(struct net_options){.kind = "tap", .ifname = "lo"}, g->loop, &other, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "not a tap interface"));
    err = (struct err){0};
    assert_int_equal(
        net_open(&(struct net_options){.kind = "tap", .ifname = "a-much-too-long-name"}, g->loop, &other, &err),
        -EINVAL);

    /* Several queues; with one active, it gets everything. */
    assert_int_equal(system("ip addr flush dev lt0"), 0);
    assert_int_equal(make_tap("lt1", IFF_MULTI_QUEUE), 0);
    if (net_open(&(struct net_options){.kind = "tap", .ifname = "lt1", .queues = 2}, g->loop, &g->net, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(g->net->attach(g->net, g->loop, &client, NULL), 0);
    assert_int_equal(g->net->ops->set_queues(g->net, 3), -EINVAL);
    assert_int_equal(g->net->ops->set_queues(g->net, 2), 0);
    assert_int_equal(g->net->ops->set_queues(g->net, 1), 0);
    arp_over(g);
    net_close(g->net);
    loop_free(g->loop);
    free(g);
}

static void tap_carries_frames(void **s)
{
    pid_t pid = fork();
    if (!pid) {
        if ((geteuid() ? unshare(CLONE_NEWUSER | CLONE_NEWNET) : unshare(CLONE_NEWNET)) < 0 ||
            access("/dev/net/tun", R_OK | W_OK) < 0)
            _exit(77);
        tap_in_namespace();
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("skip: no right to make a network namespace with a tap interface\n");
        skip();
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iov_copies_and_slices),
        cmocka_unit_test(checksum_does_not_depend_on_pieces),
        cmocka_unit_test(unknown_kind_is_named),
        cmocka_unit_test(publish_is_checked),
        cmocka_unit_test(passt_missing_is_said),
        cmocka_unit_test(passt_offers_an_address_and_connects),
        cmocka_unit_test(published_port_completes_the_handshake),
        cmocka_unit_test(passt_death_takes_the_link_down),
        cmocka_unit_test(tap_carries_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
