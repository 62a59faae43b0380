/* The 9P server by its messages, and the device around it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "dev/virtio/p9.h"
#include "dev/virtio/p9_server.h"
#include "dev/virtio/p9_wire.h"
#include "fake_driver.h"

/* ---- a client ---- */

struct client {
    struct p9_server *s;
    char base[64]; /* a directory with share/ (what is shared), secret (a file) */
    char share[96];
    uint8_t req[70000], ans[70000];
    struct p9_out out;
    struct p9_in in;
};

static void begin(struct client *c, unsigned type)
{
    c->out = (struct p9_out){.buf = c->req, .cap = sizeof c->req};
    p9_put(&c->out, 0, 4);
    p9_put(&c->out, type, 1);
    p9_put(&c->out, 0x1234, 2);
}

/* Sends what was put together; 0 with the answer in c->in, or -errno as the server says. */
static int call(struct client *c)
{
    unsigned type = c->req[4];
    le32_put(c->req, (uint32_t)c->out.len);
    /* In pieces, as guests do. */
    struct iovec out[2] = {{c->req, 5}, {c->req + 5, c->out.len - 5}},
                 in[2] = {{c->ans, 9}, {c->ans + 9, sizeof c->ans - 9}};
    size_t n = p9_server_handle(c->s, out, 2, in, 2);
    assert_true(n >= P9_HEADER);
    assert_int_equal(le32_get(c->ans), n);
    assert_int_equal(le16_get(c->ans + 5), 0x1234);
    c->in = (struct p9_in){.p = c->ans + P9_HEADER, .left = n - P9_HEADER};
    if (c->ans[4] == P9_RLERROR) {
        assert_int_equal(n, 11);
        return -(int)p9_get(&c->in, 4);
    }
    assert_int_equal(c->ans[4], type + 1);
    return 0;
}

/* Fields of a message: 'b' 1, 'h' 2, 'w' 4, 'q' 8 bytes, 's' string. */
static int msg(struct client *c, unsigned type, const char *fmt, ...)
{
    va_list ap;
    begin(c, type);
    va_start(ap, fmt);
    for (; *fmt; fmt++) {
        if (*fmt == 's')
            p9_put_str(&c->out, va_arg(ap, const char *));
        else if (*fmt == 'q')
            p9_put(&c->out, va_arg(ap, uint64_t), 8);
        else
            p9_put(&c->out, va_arg(ap, unsigned), *fmt == 'w' ? 4 : *fmt == 'h' ? 2 : 1);
    }
    va_end(ap);
    return call(c);
}

static int walk1(struct client *c, unsigned fid, unsigned newfid, const char *name)
{
    return msg(c, P9_TWALK, "wwhs", fid, newfid, 1, name);
}

#define Q(x) ((uint64_t)(x))

static struct client *mount_share(bool readonly)
{
    struct client *c = calloc(1, sizeof *c);
    struct err err = {0};
    strcpy(c->base, "/tmp/lodge-p9-XXXXXX");
    assert_non_null(mkdtemp(c->base));
    snprintf(c->share, sizeof c->share, "%s/share", c->base);
    char cmd[512];
    snprintf(
        cmd, sizeof cmd,
        "cd %s && echo top > secret && mkdir -p share/dir/sub outside && echo hello > share/file && echo deep > "
        "share/dir/sub/deep && ln -s ../secret share/link && ln -s /etc share/etc && ln -s ../outside share/dirlink && "
        "mkfifo share/pipe && chmod 644 share/file",
        c->base);
    assert_int_equal(system(cmd), 0);
    if (p9_server_new(c->share, readonly, &c->s, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(msg(c, P9_TVERSION, "ws", 65536, "9P2000.L"), 0);
    assert_int_equal(p9_get(&c->in, 4), 65536);
    assert_int_equal(msg(c, P9_TATTACH, "wwssw", 0, ~0u, "root", "", (unsigned)geteuid()), 0);
    return c;
}

static void unmount_share(struct client *c)
{
    char cmd[256];
    p9_server_free(c->s);
    /* A client may have taken away even our own right to enter. */
    snprintf(cmd, sizeof cmd, "chmod -R u+rwx %s 2>/dev/null; rm -rf %s", c->base, c->base);
    assert_int_equal(system(cmd), 0);
    free(c);
}

static bool exists(struct client *c, const char *path)
{
    char full[256];
    struct stat st;
    snprintf(full, sizeof full, "%s/%s", c->base, path);
    return lstat(full, &st) == 0;
}

/* ---- tests ---- */

static void reads_and_writes(void **s)
{
    struct client *c = mount_share(false);
    assert_int_equal(walk1(c, 0, 1, "file"), 0);
    assert_int_equal(msg(c, P9_TGETATTR, "wq", 1, Q(0x7ff)), 0);
    p9_get(&c->in, 8);
    c->in.p += P9_QID;
    assert_int_equal(p9_get(&c->in, 4), S_IFREG | 0644);
    assert_int_equal(msg(c, P9_TREAD, "wqw", 1, Q(0), 100), -EBADF); /* not open yet */
    assert_int_equal(msg(c, P9_TLOPEN, "ww", 1, O_RDWR), 0);
    assert_int_equal(msg(c, P9_TREAD, "wqw", 1, Q(1), 100), 0);
    assert_int_equal(p9_get(&c->in, 4), 5);
    assert_memory_equal(c->in.p, "ello\n", 5);
    begin(c, P9_TWRITE);
    p9_put(&c->out, 1, 4);
    p9_put(&c->out, 5, 8);
    p9_put(&c->out, 60000, 4);
    for (unsigned i = 0; i < 60000; i++)
        p9_put(&c->out, i % 251, 1);
    assert_int_equal(call(c), 0);
    assert_int_equal(p9_get(&c->in, 4), 60000);
    assert_int_equal(msg(c, P9_TFSYNC, "ww", 1, 0), 0);
    assert_int_equal(msg(c, P9_TREAD, "wqw", 1, Q(5), 0xffffffff), 0);
    assert_int_equal(p9_get(&c->in, 4), 60000);
    for (unsigned i = 0; i < 60000; i++)
        assert_int_equal(c->in.p[i], i % 251);
    /* A write that claims more than it has. */
    assert_int_equal(msg(c, P9_TWRITE, "wqw", 1, Q(0), 10), -EINVAL);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 1), 0);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 1), -EBADF);
    assert_int_equal(msg(c, P9_TSTATFS, "w", 0), 0);
    assert_int_equal(msg(c, P9_TFLUSH, "h", 7), 0);
    unmount_share(c);
}

static void never_leaves_the_directory(void **s)
{
    struct client *c = mount_share(false);
    struct stat root;
    assert_int_equal(stat(c->share, &root), 0);
    /* ".." at the top is the top. */
    assert_int_equal(walk1(c, 0, 1, ".."), 0);
    assert_int_equal(p9_get(&c->in, 2), 1);
    p9_get(&c->in, 5);
    assert_int_equal(p9_get(&c->in, 8), root.st_ino);
    assert_int_equal(walk1(c, 1, 2, "secret"), -ENOENT);
    assert_int_equal(msg(c, P9_TWALK, "wwhsssss", 0, 2, 5, "dir", "sub", "..", "..", ".."), 0);
    assert_int_equal(walk1(c, 2, 3, "secret"), -ENOENT);
    assert_int_equal(walk1(c, 2, 3, "file"), 0);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 3), 0);
    /* A directory that is moved under us still has its way back. */
    assert_int_equal(msg(c, P9_TWALK, "wwhss", 0, 3, 2, "dir", "sub"), 0);
    char from[160], to[160];
    snprintf(from, sizeof from, "%s/dir/sub", c->share);
    snprintf(to, sizeof to, "%s/outside/sub", c->base);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(walk1(c, 3, 4, ".."), 0);
    assert_int_equal(walk1(c, 4, 5, "sub"), -ENOENT);
    assert_int_equal(walk1(c, 4, 5, "secret"), -ENOENT);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 4), 0);

    /* Names with a slash, or none. */
    static const char *const bad[] = {"dir/sub", "../secret", "/etc/passwd", ""};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(walk1(c, 0, 4, bad[i]), -EINVAL);
        assert_int_equal(msg(c, P9_TMKDIR, "wsww", 0, bad[i], 0755, 0), -EINVAL);
        assert_int_equal(msg(c, P9_TUNLINKAT, "wsw", 0, bad[i], 0), -EINVAL);
        assert_int_equal(msg(c, P9_TRENAMEAT, "wsws", 0, "file", 0, bad[i]), -EINVAL);
        assert_int_equal(msg(c, P9_TLINK, "wws", 0, 3, bad[i]), -EINVAL);
        assert_int_equal(msg(c, P9_TSYMLINK, "wssw", 0, bad[i], "x", 0), -EINVAL);
        assert_int_equal(msg(c, P9_TMKNOD, "wswwww", 0, bad[i], S_IFREG | 0644, 0, 0, 0), -EINVAL);
    }
    assert_int_equal(msg(c, P9_TUNLINKAT, "wsw", 0, "..", 0x200), -EINVAL);
    assert_int_equal(msg(c, P9_TRENAMEAT, "wsws", 0, "file", 0, ".."), -EINVAL);

    /* Links are shown, never followed. */
    static const char *const links[] = {"link", "etc", "dirlink"};
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(walk1(c, 0, 10, links[i]), 0);
        assert_int_equal(c->in.p[2], 0x02);
        assert_int_equal(msg(c, P9_TREADLINK, "w", 10), 0);
        assert_int_equal(msg(c, P9_TLOPEN, "ww", 10, O_RDONLY), -ELOOP);
        assert_int_equal(walk1(c, 10, 11, "passwd"), -ENOTDIR);
        assert_int_equal(msg(c, P9_TSETATTR, "wwwwwqqqqq", 10, 8, 0, 0, 0, Q(0), Q(0), Q(0), Q(0), Q(0)), -EINVAL);
        assert_int_equal(msg(c, P9_TXATTRWALK, "wws", 10, 11, "user.x"), -EOPNOTSUPP);
        assert_int_equal(msg(c, P9_TCLUNK, "w", 10), 0);
        assert_int_equal(msg(c, P9_TWALK, "wwhss", 0, 10, 2, links[i], "x"), 0);
        assert_int_equal(p9_get(&c->in, 2), 1); /* half way, and no fid */
        assert_int_equal(msg(c, P9_TCLUNK, "w", 10), -EBADF);
        /* Creating where a link is. */
        assert_int_equal(walk1(c, 0, 10, "."), 0);
        assert_int_equal(msg(c, P9_TLCREATE, "wswww", 10, links[i], O_WRONLY | O_CREAT | O_TRUNC, 0644, 0), -ENXIO);
        assert_int_equal(msg(c, P9_TCLUNK, "w", 10), 0);
    }
    char buf[8] = "";
    snprintf(from, sizeof from, "%s/secret", c->base);
    int fd = open(from, O_RDONLY);
    assert_int_equal(read(fd, buf, 8), 4);
    close(fd);
    assert_string_equal(buf, "top\n");
    unmount_share(c);
}

static void does_not_endanger_the_host(void **s)
{
    struct client *c = mount_share(false);
    struct stat st;
    char path[256];
    assert_int_equal(msg(c, P9_TMKNOD, "wswwww", 0, "disk", S_IFBLK | 0666, 8, 0, 0), -EPERM);
    assert_int_equal(msg(c, P9_TMKNOD, "wswwww", 0, "mem", S_IFCHR | 0666, 1, 1, 0), -EPERM);
    assert_int_equal(msg(c, P9_TMKNOD, "wswwww", 0, "fifo", S_IFIFO | 0622, 0, 0, 0), 0);
    /* A pipe is not opened: that would wait for ever. */
    assert_int_equal(walk1(c, 0, 1, "pipe"), 0);
    assert_int_equal(msg(c, P9_TLOPEN, "ww", 1, O_RDONLY), -ENXIO);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 1), 0);
    assert_int_equal(walk1(c, 0, 1, "."), 0);
    assert_int_equal(msg(c, P9_TLCREATE, "wswww", 1, "suid", O_WRONLY, 06755, (unsigned)getegid()), 0);
    snprintf(path, sizeof path, "%s/suid", c->share);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(msg(c, P9_TSETATTR, "wwwwwqqqqq", 1, 1, 06711, 0, 0, Q(0), Q(0), Q(0), Q(0), Q(0)), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
    assert_int_equal(msg(c, P9_TXATTRCREATE, "wsqw", 1, "security.capability", Q(20), 0), -EINVAL); /* open */
    assert_int_equal(walk1(c, 0, 2, "file"), 0);
    assert_int_equal(msg(c, P9_TXATTRCREATE, "wsqw", 2, "security.capability", Q(20), 0), -EOPNOTSUPP);
    assert_int_equal(msg(c, P9_TXATTRCREATE, "wsqw", 2, "trusted.x", Q(20), 0), -EOPNOTSUPP);
    unmount_share(c);
}

static void makes_moves_and_removes(void **s)
{
    struct client *c = mount_share(false);
    unsigned gid = getegid();
    assert_int_equal(msg(c, P9_TMKDIR, "wsww", 0, "new", 0750, gid), 0);
    assert_int_equal(msg(c, P9_TMKDIR, "wsww", 0, "new", 0750, gid), -EEXIST);
    assert_int_equal(walk1(c, 0, 1, "new"), 0);
    assert_int_equal(msg(c, P9_TWALK, "wwh", 1, 2, 0), 0); /* a clone */
    assert_int_equal(msg(c, P9_TLCREATE, "wswww", 2, "a", O_RDWR | O_CREAT | O_EXCL, 0640, gid), 0);
    begin(c, P9_TWRITE);
    p9_put(&c->out, 2, 4);
    p9_put(&c->out, 0, 8);
    p9_put(&c->out, 3, 4);
    p9_put_bytes(&c->out, "abc", 3);
    assert_int_equal(call(c), 0);
    assert_int_equal(msg(c, P9_TSETATTR, "wwwwwqqqqq", 2, 8 | 0x10 | 0x20 | 0x80 | 0x100, 0, 0, 0, Q(2), Q(1000), Q(5),
                         Q(2000), Q(6)),
                     0);
    assert_int_equal(msg(c, P9_TGETATTR, "wq", 2, Q(0x7ff)), 0);
    assert_int_equal(le32_get(c->in.p + 8 + P9_QID), S_IFREG | 0640);
    const uint8_t *size = c->in.p + 8 + P9_QID + 4 + 4 + 4 + 8 + 8;
    assert_int_equal(le64_get(size), 2);
    assert_int_equal(le64_get(size + 24), 1000);
    assert_int_equal(le64_get(size + 40), 2000);
    assert_int_equal(msg(c, P9_TLINK, "wws", 1, 2, "b"), 0);
    assert_int_equal(msg(c, P9_TSYMLINK, "wssw", 1, "l", "/nowhere/at/all", gid), 0);
    assert_int_equal(walk1(c, 1, 3, "l"), 0);
    assert_int_equal(msg(c, P9_TREADLINK, "w", 3), 0);
    assert_memory_equal(c->in.p + 2, "/nowhere/at/all", 15);
    assert_int_equal(msg(c, P9_TRENAMEAT, "wsws", 1, "b", 0, "moved"), 0);
    assert_true(exists(c, "share/moved"));
    assert_int_equal(msg(c, P9_TRENAME, "wws", 2, 0, "a2"), 0);
    assert_true(exists(c, "share/a2"));
    assert_int_equal(msg(c, P9_TREMOVE, "w", 2), 0);
    assert_false(exists(c, "share/a2"));
    assert_int_equal(msg(c, P9_TCLUNK, "w", 2), -EBADF);
    assert_int_equal(msg(c, P9_TUNLINKAT, "wsw", 0, "new", 0x200), -ENOTEMPTY);
    assert_int_equal(msg(c, P9_TUNLINKAT, "wsw", 1, "l", 0), 0);
    assert_int_equal(msg(c, P9_TUNLINKAT, "wsw", 0, "new", 0x200), 0);
    assert_int_equal(walk1(c, 0, 4, "."), 0);
    assert_int_equal(msg(c, P9_TREMOVE, "w", 4), -EBUSY); /* not the top */
    assert_int_equal(msg(c, P9_TLOCK, "wbwqqws", 0, 1, 0, Q(0), Q(0), 77, "guest"), 0);
    assert_int_equal(p9_get(&c->in, 1), 0);
    assert_int_equal(msg(c, P9_TGETLOCK, "wbqqws", 0, 1, Q(0), Q(9), 77, "guest"), 0);
    assert_int_equal(p9_get(&c->in, 1), 2);
    unmount_share(c);
}

static unsigned list(struct client *c, unsigned fid, unsigned count)
{
    uint64_t off = 0;
    unsigned names = 0;
    for (;;) {
        assert_int_equal(msg(c, P9_TREADDIR, "wqw", fid, off, count), 0);
        uint32_t len = (uint32_t)p9_get(&c->in, 4);
        assert_true(len <= count && len == c->in.left);
        if (!len)
            return names;
        while (c->in.left) {
            char name[256];
            c->in.p += P9_QID;
            c->in.left -= P9_QID;
            off = p9_get(&c->in, 8);
            p9_get(&c->in, 1);
            p9_get_str(&c->in, name, sizeof name);
            assert_false(c->in.bad);
            names++;
        }
    }
}

static void lists_directories(void **s)
{
    struct client *c = mount_share(false);
    char path[256];
    for (unsigned i = 0; i < 500; i++) {
        snprintf(path, sizeof path, "%s/dir/file-with-a-longer-name-%u", c->share, i);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    assert_int_equal(walk1(c, 0, 1, "dir"), 0);
    assert_int_equal(msg(c, P9_TREADDIR, "wqw", 1, Q(0), 1000), -EBADF);
    assert_int_equal(msg(c, P9_TLOPEN, "ww", 1, O_RDONLY | O_DIRECTORY), 0);
    assert_int_equal(list(c, 1, 60000), 503);
    assert_int_equal(list(c, 1, 300), 503);
    assert_int_equal(msg(c, P9_TREADDIR, "wqw", 1, Q(0), 10), -EINVAL); /* no entry fits */
    msg(c, P9_TREADDIR, "wqw", 1, 0x8123456789abcdefull, 1000);         /* a place that cannot be: any answer will do */
    assert_int_equal(msg(c, P9_TREAD, "wqw", 1, Q(0), 100), -EISDIR);
    unmount_share(c);
}

static void attributes_of_users(void **s)
{
    struct client *c = mount_share(false);
    char path[160];
    snprintf(path, sizeof path, "%s/file", c->share);
    if (setxattr(path, "user.one", "1", 1, 0) < 0) {
        unmount_share(c);
        print_message("skip: the file system of /tmp has no user attributes\n");
        skip();
    }
    assert_int_equal(walk1(c, 0, 1, "file"), 0);
    assert_int_equal(msg(c, P9_TXATTRWALK, "wws", 1, 2, ""), 0);
    assert_int_equal(p9_get(&c->in, 8), 9);
    assert_int_equal(msg(c, P9_TREAD, "wqw", 2, Q(0), 100), 0);
    assert_memory_equal(c->in.p + 4, "user.one", 9);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 2), 0);
    assert_int_equal(msg(c, P9_TXATTRWALK, "wws", 1, 2, "user.none"), -ENODATA);
    assert_int_equal(msg(c, P9_TWALK, "wwh", 1, 2, 0), 0);
    assert_int_equal(msg(c, P9_TXATTRCREATE, "wsqw", 2, "user.two", Q(3), 0), 0);
    begin(c, P9_TWRITE);
    p9_put(&c->out, 2, 4);
    p9_put(&c->out, 0, 8);
    p9_put(&c->out, 3, 4);
    p9_put_bytes(&c->out, "two", 3);
    assert_int_equal(call(c), 0);
    le64_put(c->req + 11, 1); /* beyond its end */
    assert_int_equal(call(c), -ENOSPC);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 2), 0);
    char got[8] = "";
    assert_int_equal(getxattr(path, "user.two", got, 8), 3);
    assert_string_equal(got, "two");
    assert_int_equal(msg(c, P9_TWALK, "wwh", 1, 2, 0), 0);
    assert_int_equal(msg(c, P9_TXATTRCREATE, "wsqw", 2, "user.two", Q(0), XATTR_REPLACE), 0);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 2), 0);
    assert_int_equal(getxattr(path, "user.two", got, 8), -1);
    unmount_share(c);
}

static void read_only_means_it(void **s)
{
    struct client *c = mount_share(true);
    assert_int_equal(walk1(c, 0, 1, "file"), 0);
    assert_int_equal(msg(c, P9_TLOPEN, "ww", 1, O_RDWR), -EROFS);
    assert_int_equal(msg(c, P9_TLOPEN, "ww", 1, O_RDONLY | O_TRUNC), -EROFS);
    assert_int_equal(msg(c, P9_TMKDIR, "wsww", 0, "x", 0755, 0), -EROFS);
    assert_int_equal(msg(c, P9_TUNLINKAT, "wsw", 0, "file", 0), -EROFS);
    assert_int_equal(msg(c, P9_TSETATTR, "wwwwwqqqqq", 1, 1, 0, 0, 0, Q(0), Q(0), Q(0), Q(0), Q(0)), -EROFS);
    assert_int_equal(msg(c, P9_TLOPEN, "ww", 1, O_RDONLY), 0);
    assert_int_equal(msg(c, P9_TREAD, "wqw", 1, Q(0), 100), 0);
    assert_int_equal(msg(c, P9_TREMOVE, "w", 1), -EROFS);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 1), -EBADF);
    assert_true(exists(c, "share/file"));
    unmount_share(c);
}

static void malformed_messages_are_answered(void **s)
{
    struct client *c = mount_share(false);
    uint8_t ans[64];
    struct iovec in = {ans, sizeof ans};
    /* Too short for a header; a size that is not its own; no room for an answer. */
    assert_int_equal(p9_server_handle(c->s, &(struct iovec){"abc", 3}, 1, &in, 1), 11);
    assert_int_equal(p9_server_handle(c->s, NULL, 0, &in, 1), 11);
    assert_int_equal(p9_server_handle(c->s, &(struct iovec){"\xff\xff\xff\x7f\x78\x01\x00", 7}, 1, &in, 1), 11);
    assert_int_equal(p9_server_handle(c->s, &(struct iovec){"\x03\x00\x00\x00\x78\x01\x00", 7}, 1, &in, 1), 11);
    assert_int_equal(p9_server_handle(c->s, &(struct iovec){"abc", 3}, 1, &(struct iovec){ans, 10}, 1), 0);
    assert_int_equal(msg(c, 200, ""), -EOPNOTSUPP);
    assert_int_equal(msg(c, P9_TWALK, "ww", 0, 1), -EINVAL);
    assert_int_equal(msg(c, P9_TWALK, "wwh", 0, 1, 17), -EINVAL);
    assert_int_equal(msg(c, P9_TWALK, "wwh", 0, 1, 3), -EINVAL);
    assert_int_equal(msg(c, P9_TWALK, "wwh", 0, 0, 0), 0);
    assert_int_equal(msg(c, P9_TATTACH, "wwssw", 0, ~0u, "", "", 0), -EINVAL); /* fid in use */
    assert_int_equal(msg(c, P9_TVERSION, "ws", 100, "9P2000.L"), -EINVAL);
    assert_int_equal(msg(c, P9_TVERSION, "ws", 8192, "9P2000"), 0);
    assert_int_equal(p9_server_fids(c->s), 0);
    assert_int_equal(msg(c, P9_TATTACH, "wwssw", 0, ~0u, "", "", 0), -EPROTO);
    unmount_share(c);
}

static void fids_are_limited(void **s)
{
    struct client *c = mount_share(false);
    int code = 0;
    unsigned i;
    for (i = 1; i < 200000 && !code; i++)
        code = walk1(c, 0, i, "file");
    assert_int_equal(code, -ENFILE);
    /* The rest of the process still can open files, and the client go on once it lets some go. */
    int fd = open("/dev/null", O_RDONLY);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(msg(c, P9_TCLUNK, "w", 1), 0);
    assert_int_equal(walk1(c, 0, 1, "file"), 0);
    unmount_share(c);
}

/* Mostly valid messages with random fields: nothing crashes, nothing outside changes. */
static void survives_random_messages(void **s)
{
    static const struct {
        uint8_t type;
        const char *fmt;
    } shapes[] = {
        {P9_TSTATFS, "f"},      {P9_TLOPEN, "fw"},         {P9_TLCREATE, "fnwwg"},
        {P9_TSYMLINK, "fnng"},  {P9_TMKNOD, "fnwwwg"},     {P9_TRENAME, "ffn"},
        {P9_TREADLINK, "f"},    {P9_TGETATTR, "fq"},       {P9_TSETATTR, "fwwggqqqqq"},
        {P9_TXATTRWALK, "ffn"}, {P9_TXATTRCREATE, "fnqw"}, {P9_TREADDIR, "fqw"},
        {P9_TFSYNC, "fw"},      {P9_TLOCK, "fbwqqwn"},     {P9_TGETLOCK, "fbqqwn"},
        {P9_TLINK, "ffn"},      {P9_TMKDIR, "fnwg"},       {P9_TRENAMEAT, "fnfn"},
        {P9_TUNLINKAT, "fnw"},  {P9_TFLUSH, "h"},          {P9_TWALK, "ffhnnn"},
        {P9_TWALK, "ffhnn"},    {P9_TREAD, "fqw"},         {P9_TWRITE, "fqwq"},
        {P9_TCLUNK, "f"},       {P9_TREMOVE, "f"},         {P9_TATTACH, "ffnng"},
    };
    static const char *const names[] = {"file", "dir",  "sub",    "link", "etc", "pipe",    "..",   ".",     "new1",
                                        "new2", "../x", "user.a", "",     "a/b", "dirlink", "deep", "secret"};
    struct client *c = mount_share(false);
    uint32_t seed = 2024;
#define RND() (seed = seed * 1664525 + 1013904223, seed >> 8)
    for (unsigned i = 0; i < 20000; i++) {
        unsigned k = RND() % ARRAY_SIZE(shapes);
        unsigned type = shapes[k].type;
        begin(c, type);
        for (const char *f = shapes[k].fmt; *f; f++) {
            uint32_t small = RND() % 4 ? RND() % 8 : RND();
            if (*f == 'f')
                p9_put(&c->out, RND() % 12, 4);
            else if (*f == 'n')
                p9_put_str(&c->out, names[RND() % ARRAY_SIZE(names)]);
            else if (*f == 'g')
                p9_put(&c->out, ~0u, 4);
            else
                p9_put(&c->out,
                       *f == 'h'                ? RND() % 4
                       : *f == 'q' && RND() % 2 ? (uint64_t)small << 32 | RND()
                                                : small,
                       *f == 'w'   ? 4
                       : *f == 'h' ? 2
                       : *f == 'q' ? 8
                                   : 1);
        }
        if (RND() % 10 == 0)
            c->out.len -= RND() % (c->out.len - P9_HEADER + 1); /* cut short */
        /* A sparse file of exabytes is no crime, but /tmp should not be filled. */
        if (type == P9_TSETATTR)
            c->req[11] &= (uint8_t)~8;
        if (type == P9_TWRITE)
            memset(c->req + 14, 0, 5);
        call(c);
        if (!p9_server_fids(c->s) || RND() % 500 == 0) {
            msg(c, P9_TVERSION, "ws", 65536, "9P2000.L");
            msg(c, P9_TATTACH, "wwssw", RND() % 3, ~0u, "", "", ~0u);
        }
    }
    assert_true(exists(c, "secret"));
    assert_true(exists(c, "outside"));
    assert_false(exists(c, "new1"));
    assert_false(exists(c, "outside/new1"));
    assert_false(exists(c, "x"));
    unmount_share(c);
}

static void the_device_answers(void **s)
{
    struct client *c = mount_share(false);
    struct fake_driver *d = fake_new(1 * MIB);
    struct virtio_dev *dev;
    struct virtio_p9_config cfg = {.id = "share0", .mem = d->mem, .path = c->share, .tag = "home"};
    assert_int_equal(virtio_p9_new(&cfg, &dev, NULL), 0);
    fake_start(d, dev, ~0ull);
    assert_int_equal(virtio_config_read(dev, 0, 2), 4);
    assert_int_equal(virtio_config_read(dev, 2, 4), 'h' | 'o' << 8 | 'm' << 16 | 'e' << 24);
    begin(c, P9_TVERSION);
    p9_put(&c->out, 8192, 4);
    p9_put_str(&c->out, "9P2000.L");
    le32_put(c->req, (uint32_t)c->out.len);
    struct fake_buf b[2] = {fake_bytes(d, c->req, c->out.len), fake_room(d, 100)};
    unsigned id = fake_add(d, 0, b, 1, 1);
    virtio_kick(dev, 0); /* its own thread works */
    uint32_t len;
    assert_int_equal(fake_wait_used(d, 0, &len), id);
    assert_int_equal(len, c->out.len);
    uint8_t got[32];
    assert_int_equal(mem_read(d->mem, b[1].gpa, got, len), 0);
    assert_int_equal(got[4], P9_TVERSION + 1);
    /* No room for an answer: the driver is wrong. */
    fake_add(d, 0, b, 1, 0);
    virtio_kick(dev, 0);
    for (unsigned i = 0; i < 500 && !(virtio_get_status(dev) & VIRTIO_STATUS_NEEDS_RESET); i++)
        usleep(10000);
    assert_true(virtio_get_status(dev) & VIRTIO_STATUS_NEEDS_RESET);
    fake_free(d);

    struct err err = {0};
    cfg.path = "/nonexistent";
    assert_int_equal(virtio_p9_new(&cfg, &dev, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent"));
    unmount_share(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_writes),           cmocka_unit_test(never_leaves_the_directory),
        cmocka_unit_test(does_not_endanger_the_host), cmocka_unit_test(makes_moves_and_removes),
        cmocka_unit_test(lists_directories),          cmocka_unit_test(attributes_of_users),
        cmocka_unit_test(read_only_means_it),         cmocka_unit_test(malformed_messages_are_answered),
        cmocka_unit_test(fids_are_limited),           cmocka_unit_test(survives_random_messages),
        cmocka_unit_test(the_device_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
