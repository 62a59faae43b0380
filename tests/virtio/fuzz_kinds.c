/* Devices under the fuzzer: how to make one, and what a driver would ask of it. */
#include "fuzz_kinds.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/net.h"
#include "dev/virtio/p9.h"
#include "dev/virtio/p9_wire.h"
#include "dev/virtio/rng.h"

/* ---- disk ---- */

static struct virtio_dev *blk_make(struct vd *vd)
{
    char path[] = "/tmp/lodge-fuzz-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    struct blk *blk;
    struct virtio_dev *dev;
    struct blk_options opt = {.path = path, .format = "raw", .no_uring = true};
    MUST(fd >= 0 && ftruncate(fd, MIB) == 0 && blk_open(&opt, &blk, NULL) == 0);
    close(fd);
    unlink(path);
    struct virtio_blk_config cfg = {
        .id = "vda", .mem = vd->mem, .blk = blk, .queues = 2, .queue_size = FUZZ_QUEUE_SIZE, .loop = vd->loop};
    MUST(virtio_blk_new(&cfg, &dev, NULL) == 0);
    return dev;
}

static unsigned blk_request(unsigned q, uint8_t *buf)
{
    static const uint32_t types[] = {0, 1, 0, 1, 4, 8, 11, 13, 2};
    le32_put(buf, types[rnd() % ARRAY_SIZE(types)]);
    le64_put(buf + 8, one_in(20) ? rnd() << 11 : rnd() % 2048);
    le64_put(buf + 16, one_in(20) ? rnd() << 11 : rnd() % 2048);
    le32_put(buf + 24, (uint32_t)rnd() % 100);
    le32_put(buf + 28, one_in(10) ? (uint32_t)rnd() : (uint32_t)rnd() & 1);
    return one_in(2) ? 16 : 32;
}

/* ---- entropy ---- */

static struct virtio_dev *rng_make(struct vd *vd)
{
    struct virtio_dev *dev;
    struct virtio_rng_config cfg = {.id = "rng0", .mem = vd->mem, .loop = vd->loop, .rate = 1000000000};
    MUST(virtio_rng_new(&cfg, &dev, NULL) == 0);
    return dev;
}

static unsigned rng_request(unsigned q, uint8_t *buf)
{
    return 0;
}

/* ---- network ---- */

/* A cable with a mirror at its end: what is sent comes back. */
struct mirror {
    struct net net;
    const struct net_client *client;
    uint8_t frame[4096];
    size_t len;
};

static int mirror_send(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct mirror *m = (struct mirror *)net;
    if (one_in(8))
        return -EAGAIN;
    m->len = 0;
    for (unsigned i = 0; i < niov; i++) {
        size_t n = MIN(iov[i].iov_len, sizeof m->frame - m->len);
        memcpy(m->frame + m->len, iov[i].iov_base, n);
        m->len += n;
    }
    return (int)m->len;
}
static int mirror_recv(struct net *net, unsigned q, const struct iovec *iov, unsigned niov)
{
    struct mirror *m = (struct mirror *)net;
    size_t done = 0, len = m->len;
    if (!len)
        return -EAGAIN;
    m->len = 0;
    for (unsigned i = 0; i < niov && done < len; i++) {
        size_t n = MIN(iov[i].iov_len, len - done);
        memcpy(iov[i].iov_base, m->frame + done, n);
        done += n;
    }
    return done < len ? -EMSGSIZE : (int)len;
}
static void mirror_offload(struct net *net, unsigned offload)
{
}
static int mirror_queues(struct net *net, unsigned active)
{
    return 0;
}
static int mirror_attach(struct net *net, struct loop *loop, const struct net_client *client, struct err *err)
{
    ((struct mirror *)net)->client = client;
    return 0;
}
static void mirror_want(struct net *net, unsigned q, bool on)
{
}
static void mirror_close(struct net *net)
{
    free(net);
}
static const struct net_ops mirror_ops = {.send = mirror_send,
                                          .recv = mirror_recv,
                                          .set_offload = mirror_offload,
                                          .set_queues = mirror_queues,
                                          .close = mirror_close};

static struct virtio_dev *net_make(struct vd *vd)
{
    struct virtio_dev *dev;
    struct mirror *m = xcalloc(1, sizeof *m);
    m->net = (struct net){.ops = &mirror_ops,
                          .backend = "mirror",
                          .vnet_hdr = true,
                          .offload = 15,
                          .queues = 1,
                          .mtu = 1500,
                          .link_up = true,
                          .attach = mirror_attach,
                          .want_readable = mirror_want};
    struct virtio_net_config cfg = {
        .id = "net0", .mem = vd->mem, .net = &m->net, .mac = {0x52, 0x54, 0, 1, 2, 3}, .loop = vd->loop};
    MUST(virtio_net_new(&cfg, &dev, NULL) == 0);
    return dev;
}

static unsigned net_request(unsigned q, uint8_t *buf)
{
    memset(buf, 0, 64);
    if (q == 2) { /* control: class, command, data */
        buf[0] = rnd() % 6;
        buf[1] = rnd() % 4;
        le64_put(buf + 2, rnd() % 5);
        return 2 + rnd() % 20;
    }
    buf[0] = one_in(4) ? 1 : 0;
    buf[1] = one_in(4) ? 1 : 0;
    le16_put(buf + 4, rnd() & 0x7ff);
    le16_put(buf + 6, rnd() & 0xff);
    le16_put(buf + 8, rnd() & 0xff);
    memset(buf + 12, 0xff, 6);
    return 12 + rnd() % 50;
}

/* ---- balloon ---- */

static struct virtio_dev *balloon_make(struct vd *vd)
{
    struct virtio_dev *dev;
    struct virtio_balloon_config cfg = {
        .id = "balloon0", .mem = vd->mem, .loop = vd->loop, .deflate_on_oom = true, .free_page_reporting = true};
    MUST(virtio_balloon_new(&cfg, &dev, NULL) == 0);
    return dev;
}

static unsigned balloon_request(unsigned q, uint8_t *buf)
{
    if (q > 2)
        return 0; /* reported pages are the buffers themselves */
    for (unsigned i = 0; i < 12; i++) {
        if (q < 2)
            le32_put(buf + 4 * i, (uint32_t)(one_in(10) ? rnd() : 256 + rnd() % 256));
        else if (i % 5 == 0)
            le16_put(buf + 2 * i, (uint16_t)(rnd() % 12));
    }
    return q < 2 ? 48 : 30 + (unsigned)rnd() % 3;
}

static void balloon_poke(struct virtio_dev *dev)
{
    struct virtio_balloon_stats stats;
    virtio_balloon_set_target(dev, rnd() % (4 * MIB));
    virtio_balloon_stats(dev, &stats);
    virtio_balloon_actual(dev);
}

/* ---- console ---- */

static size_t tty_write(struct chardev *c, const uint8_t *buf, size_t len)
{
    return len ? rnd() % (len + 1) : 0;
}
static const struct chardev_ops tty_ops = {.name = "fuzz", .write = tty_write};
static struct chardev tty[3];

static struct virtio_dev *console_make(struct vd *vd)
{
    struct virtio_dev *dev;
    static const struct virtio_console_port_config ports[] = {{&tty[0], NULL}, {&tty[1], "agent"}, {&tty[2], NULL}};
    for (unsigned i = 0; i < ARRAY_SIZE(tty); i++)
        tty[i] = (struct chardev){.ops = &tty_ops};
    struct virtio_console_config cfg = {
        .id = "console0", .mem = vd->mem, .loop = vd->loop, .ports = ports, .nports = ARRAY_SIZE(ports)};
    MUST(virtio_console_new(&cfg, &dev, NULL) == 0);
    return dev;
}

static unsigned console_request(unsigned q, uint8_t *buf)
{
    le32_put(buf, (uint32_t)rnd() % 4); /* control: port, event, value */
    le16_put(buf + 4, (uint16_t)(rnd() % 9));
    le16_put(buf + 6, (uint16_t)(rnd() & 1));
    return q & 1 ? 8 : 0;
}

static void console_poke(struct virtio_dev *dev)
{
    struct chardev *c = &tty[rnd() % ARRAY_SIZE(tty)];
    uint8_t text[300] = "input";
    if (!c->frontend)
        return;
    if (c->frontend->event && one_in(4))
        c->frontend->event(c->opaque, (enum chardev_event)(rnd() % 3));
    size_t room = c->frontend->can_receive ? c->frontend->can_receive(c->opaque) : sizeof text;
    if (room)
        c->frontend->receive(c->opaque, text, MIN(room, 1 + rnd() % sizeof text));
    if (c->frontend->writable && one_in(2))
        c->frontend->writable(c->opaque);
    virtio_console_resize(dev, (unsigned)rnd() % 4, 80, 25);
}

/* ---- shared directory ---- */

static char share[64];

static struct virtio_dev *p9_make(struct vd *vd)
{
    struct virtio_dev *dev;
    snprintf(share, sizeof share, "/tmp/lodge-share-XXXXXX");
    MUST(mkdtemp(share));
    struct virtio_p9_config cfg = {.id = "share0", .mem = vd->mem, .path = share, .tag = "t"};
    MUST(virtio_p9_new(&cfg, &dev, NULL) == 0);
    return dev;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void p9_cleanup(void)
{
    nftw(share, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static uint8_t *put(uint8_t *p, unsigned size, uint64_t v)
{
    for (unsigned i = 0; i < size; i++)
        *p++ = (uint8_t)(v >> 8 * i);
    return p;
}

static uint8_t *put_name(uint8_t *p)
{
    static const char *const names[] = {"a", "b", "c", "d", "..", ".", "/", "a/b", "", "../../etc"};
    const char *name = names[rnd() % (one_in(4) ? ARRAY_SIZE(names) : 4)];
    p = put(p, 2, strlen(name));
    memcpy(p, name, strlen(name));
    return p + strlen(name);
}

/* The fields of each message by their sizes: 1 2 4 8, f a fid, n a name, q a quota of directory or file bytes. */
static unsigned p9_request(unsigned q, uint8_t *buf)
{
    static const struct {
        uint8_t type;
        const char *fields;
    } messages[] = {
        {P9_TVERSION, "v"},          {P9_TATTACH, "ffnn4"},  {P9_TWALK, "ff0"},         {P9_TWALK, "ffwn"},
        {P9_TWALK, "ffWnn"},         {P9_TLOPEN, "fo"},      {P9_TLCREATE, "fnom4"},    {P9_TSYMLINK, "fnn4"},
        {P9_TMKNOD, "fnm444"},       {P9_TRENAME, "ffn"},    {P9_TREADLINK, "f"},       {P9_TGETATTR, "f8"},
        {P9_TSETATTR, "fmm4488888"}, {P9_TXATTRWALK, "ffn"}, {P9_TXATTRCREATE, "fn84"}, {P9_TREADDIR, "fsq"},
        {P9_TFSYNC, "f4"},           {P9_TLOCK, "f14884n"},  {P9_TGETLOCK, "f1884n"},   {P9_TLINK, "ffn"},
        {P9_TMKDIR, "fnm4"},         {P9_TRENAMEAT, "fnfn"}, {P9_TUNLINKAT, "fn4"},     {P9_TFLUSH, "2"},
        {P9_TREAD, "fsq"},           {P9_TWRITE, "fs41111"}, {P9_TCLUNK, "f"},          {P9_TREMOVE, "f"},
        {P9_TSTATFS, "f"},
    };
    unsigned i = one_in(3) ? (unsigned)rnd() % 7 : (unsigned)rnd() % ARRAY_SIZE(messages);
    uint8_t *p = put(put(buf + 4, 1, messages[i].type), 2, rnd() % 4);
    for (const char *f = messages[i].fields; *f; f++) {
        switch (*f) {
        case 'v':
            p = put(put(p, 4, one_in(8) ? rnd() : 8192), 2, 8);
            memcpy(p, "9P2000.L", 8);
            p += 8;
            break;
        case 'f':
            p = put(p, 4, one_in(30) ? rnd() : rnd() % 6);
            break;
        case 'n':
            p = put_name(p);
            break;
        case 'o':
            p = put(p, 4, one_in(8) ? rnd() : rnd() % 3 | (one_in(4) ? O_TRUNC | O_CREAT : 0));
            break;
        case 'm':
            p = put(p, 4, one_in(8) ? rnd() : 0600 | (rnd() & 077));
            break;
        case 's':
            p = put(p, 8, one_in(8) ? rnd() << 11 : rnd() % 4096);
            break;
        case 'q':
            p = put(p, 4, one_in(8) ? rnd() : rnd() % 4096);
            break;
        case '0':
            p = put(p, 2, one_in(8) ? rnd() : 0);
            break;
        case 'w':
            p = put(p, 2, 1);
            break;
        case 'W':
            p = put(p, 2, 2);
            break;
        default:
            p = put(p, (unsigned)(*f - '0'), one_in(2) ? rnd() % 8 : rnd());
            break;
        }
    }
    put(buf, 4, one_in(40) ? rnd() : (uint64_t)(p - buf));
    return (unsigned)(p - buf);
}

const struct fuzz_kind fuzz_kinds[] = {
    {.name = "9p", .make = p9_make, .request = p9_request, .cleanup = p9_cleanup},
    {.name = "balloon", .make = balloon_make, .request = balloon_request, .poke = balloon_poke},
    {.name = "blk", .make = blk_make, .request = blk_request},
    {.name = "console", .make = console_make, .request = console_request, .poke = console_poke},
    {.name = "net", .make = net_make, .request = net_request},
    {.name = "rng", .make = rng_make, .request = rng_request},
    {0},
};
