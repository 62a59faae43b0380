/*
 * Messages to the 9P server of a small directory, after version and attach (fid 0). Each stands behind its length in
 * two bytes and has no size field of its own; with the top bit of the length set it has one, true or not. What lies
 * beside the directory must stay as it is.
 */
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "dev/virtio/p9_server.h"
#include "dev/virtio/p9_wire.h"
#include "target.h"

#define MESSAGES_MAX 200

static char base[64];
static int dir = -1;

static int erase(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* A client can take away even our own right to enter. */
static int unlock(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return S_ISDIR(st->st_mode) ? chmod(path, 0700) : 0;
}

static void erase_tree(const char *path)
{
    nftw(path, unlock, 16, FTW_PHYS);
    nftw(path, erase, 16, FTW_DEPTH | FTW_PHYS);
}

static void leave(void)
{
    close(dir);
    erase_tree(base);
}

static void put_file(const char *name, const char *text)
{
    autofd int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    MUST(fd >= 0 && !fd_write_full(fd, text, strlen(text)) && !fchmod(fd, 0644));
}

static void start(void)
{
    strcpy(base, "/dev/shm/lodge-fuzz-XXXXXX");
    if (!mkdtemp(base)) {
        strcpy(base, "/tmp/lodge-fuzz-XXXXXX");
        MUST(mkdtemp(base));
    }
    dir = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    put_file("secret", "top\n");
    atexit(leave);
}

static void fill(void)
{
    MUST(!mkdirat(dir, "share", 0755) && !mkdirat(dir, "share/dir", 0755) && !mkfifoat(dir, "share/pipe", 0644) &&
         !symlinkat("../secret", dir, "share/link"));
    put_file("share/file", "hello\n");
    put_file("share/dir/deep", "deep\n");
}

static void check_outside(void)
{
    struct stat st;
    char text[8] = "";
    autofd int fd = openat(dir, "secret", O_RDONLY | O_CLOEXEC);
    MUST(fd >= 0 && !fstat(fd, &st) && (st.st_mode & 07777) == 0644 && st.st_nlink == 1);
    MUST(read(fd, text, sizeof text) == 4 && !memcmp(text, "top\n", 4));
}

static void send_message(struct p9_server *s, const uint8_t *msg, size_t len, size_t room)
{
    uint8_t *ans = malloc(room);
    MUST(ans);
    /* In pieces, as guests do. */
    size_t cut = MIN(len, 5), cut2 = MIN(room, 9);
    struct iovec out[2] = {{(void *)msg, cut}, {(void *)(msg + cut), len - cut}},
                 in[2] = {{ans, cut2}, {ans + cut2, room - cut2}};
    size_t n = p9_server_handle(s, out, 2, in, 2);
    MUST(n <= room && (!n || (n >= P9_HEADER && le32_get(ans) == n)));
    free(ans);
}

static void talk(struct p9_server *s, const uint8_t *data, size_t size)
{
    static const uint8_t version[] = "\x15\0\0\0\x64\xff\xff\0\x10\0\0\x08\09P2000.L",
                         attach[] = "\x17\0\0\0\x68\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
    send_message(s, version, sizeof version - 1, 4096);
    send_message(s, attach, sizeof attach - 1, 4096);
    for (unsigned i = 0; size >= 2 && i < MESSAGES_MAX; i++) {
        bool own_size = data[1] & 0x80;
        size_t len = MIN((size_t)(le16_get(data) & 0x7fff), size - 2), room = i % 7 == 6 ? 12 + i : 4096;
        uint8_t *msg = malloc(len + 4);
        MUST(msg);
        le32_put(msg, (uint32_t)len + 4);
        memcpy(msg + 4, data + 2, len);
        send_message(s, own_size ? msg + 4 : msg, own_size ? len : len + 4, room);
        free(msg);
        data += 2 + len;
        size -= 2 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct p9_server *s;
    struct err err;
    if (dir < 0)
        start();
    fill();
    autofree char *share = xasprintf("%s/share", base);
    MUST(!p9_server_new(share, false, &s, &err));
    talk(s, data, size);
    p9_server_free(s);
    check_outside();
    erase_tree(share);
    return 0;
}
