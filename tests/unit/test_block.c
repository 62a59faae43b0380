/* Raw images: data, deallocation, ends of files, locks, error paths, with io_uring and with plain system calls. */
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
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "block/block.h"
#include "block/lock.h"

struct image {
    char path[64];
    struct loop *loop;
    struct blk *blk;
    struct blk_queue *q;
};

static void make_file(char path[64], uint64_t size)
{
    snprintf(path, 64, "/tmp/lodge-block-XXXXXX");
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static void image_open(struct image *im, struct blk_options opt)
{
    struct err err = {0};
    opt.path = im->path;
    if (blk_open(&opt, &im->blk, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(loop_new(&im->loop, NULL), 0);
    im->q = blk_queue_new(im->blk, im->loop, NULL);
    assert_non_null(im->q);
}

static void image_close(struct image *im, bool delete)
{
    blk_queue_free(im->q);
    blk_close(im->blk);
    loop_free(im->loop);
    if (delete)
        unlink(im->path);
}

struct result {
    int ret;
    unsigned times;
};

static void done(struct blk_req *req, int ret)
{
    struct result *r = req->opaque;
    r->ret = ret;
    r->times++;
}

static int run(struct image *im, enum blk_op op, uint64_t off, uint64_t len, struct iovec *iov, unsigned niov,
               unsigned flags)
{
    struct result r = {0};
    struct blk_req req = {
        .op = op, .flags = flags, .offset = off, .len = len, .iov = iov, .niov = niov, .done = done, .opaque = &r};
    blk_submit(im->q, &req);
    blk_kick(im->q);
    for (unsigned i = 0; i < 500 && !r.times; i++)
        loop_poll(im->loop, 10);
    assert_int_equal(r.times, 1);
    return r.ret;
}

static int io(struct image *im, enum blk_op op, uint64_t off, void *buf, uint64_t len)
{
    struct iovec iov[3] = {{buf, len / 3}, {(char *)buf + len / 3, 1}, {(char *)buf + len / 3 + 1, len - len / 3 - 1}};
    return len < 3 ? run(im, op, off, len, &(struct iovec){buf, len}, 1, 0) : run(im, op, off, len, iov, 3, 0);
}

static const struct blk_options modes[] = {
    {.direct = false}, {.no_uring = true}, {.direct = true}, {.no_uring = true, .direct = true}};

static void what_was_written_is_read(void **s)
{
    for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
        struct image im;
        make_file(im.path, MIB);
        image_open(&im, modes[m]);
        assert_int_equal(im.blk->size, MIB);
        assert_string_equal(im.blk->driver, "raw");
        uint8_t *model = xcalloc(1, MIB), *buf = aligned_alloc(4096, 64 * KIB);
        uint64_t x = 1234567;
        for (unsigned i = 0; i < 300; i++) {
            x = x * 6364136223846793005ull + 1442695040888963407ull;
            uint64_t unit = x >> 60 & 1 ? 512 : 4096, off = (x >> 20) % (MIB / unit) * unit;
            uint64_t len = MIN(MIN((1 + (x >> 40) % 15) * unit, MIB - off), 60 * KIB);
            uint8_t *at = buf + (x >> 61 & 1 ? 1 : 0);
            if (x >> 63) {
                for (uint64_t k = 0; k < len; k++)
                    at[k] = model[off + k] = (uint8_t)(i + k);
                assert_int_equal(io(&im, BLK_WRITE, off, at, len), 0);
            } else {
                memset(at, 0xaa, len);
                assert_int_equal(io(&im, BLK_READ, off, at, len), 0);
                assert_memory_equal(at, model + off, len);
            }
        }
        assert_int_equal(run(&im, BLK_FLUSH, 0, 0, NULL, 0, 0), 0);
        image_close(&im, false);
        int fd = open(im.path, O_RDONLY | O_CLOEXEC);
        uint8_t *now = xcalloc(1, MIB);
        assert_int_equal(fd_read_full(fd, now, MIB), 0);
        assert_memory_equal(now, model, MIB);
        close(fd);
        unlink(im.path);
        free(now);
        free(model);
        free(buf);
    }
}

static void deallocation_gives_space_back_and_reads_as_zero(void **s)
{
    for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
        struct image im;
        struct stat before, after;
        uint8_t *buf = malloc(256 * KIB), *zero = xcalloc(1, 256 * KIB);
        make_file(im.path, 256 * KIB);
        image_open(&im, modes[m]);
        memset(buf, 0x77, 256 * KIB);
        assert_int_equal(io(&im, BLK_WRITE, 0, buf, 256 * KIB), 0);
        assert_int_equal(run(&im, BLK_FLUSH, 0, 0, NULL, 0, 0), 0);
        assert_int_equal(stat(im.path, &before), 0);
        assert_int_equal(run(&im, BLK_DISCARD, 0, 64 * KIB, NULL, 0, 0), 0);
        assert_int_equal(run(&im, BLK_WRITE_ZEROES, 64 * KIB, 64 * KIB, NULL, 0, BLK_REQ_UNMAP | BLK_REQ_FUA), 0);
        assert_int_equal(run(&im, BLK_WRITE_ZEROES, 128 * KIB + 512, 1024, NULL, 0, 0), 0);
        assert_int_equal(stat(im.path, &after), 0);
        assert_int_equal(after.st_size, 256 * KIB);
        assert_true(after.st_blocks < before.st_blocks);
        assert_int_equal(io(&im, BLK_READ, 0, buf, 256 * KIB), 0);
        assert_memory_equal(buf, zero, 128 * KIB);
        assert_memory_equal(buf + 128 * KIB + 512, zero, 1024);
        assert_int_equal(buf[128 * KIB + 511], 0x77);
        assert_int_equal(buf[128 * KIB + 512 + 1024], 0x77);
        image_close(&im, true);
        free(buf);
        free(zero);
    }
}

/* A file system without ZERO_RANGE: zeroes are written. */
static void zeroes_are_written_where_the_file_system_cannot(void **s)
{
    struct image im;
    snprintf(im.path, sizeof im.path, "/dev/shm/lodge-block-%d", (int)getpid());
    int fd = open(im.path, O_CREAT | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        skip();
    assert_int_equal(ftruncate(fd, 4 * MIB), 0);
    close(fd);
    for (unsigned m = 0; m < 2; m++) {
        image_open(&im, modes[m]);
        uint8_t *buf = malloc(4 * MIB);
        memset(buf, 0x55, 4 * MIB);
        assert_int_equal(io(&im, BLK_WRITE, 0, buf, 4 * MIB), 0);
        assert_int_equal(run(&im, BLK_WRITE_ZEROES, 512, 3 * MIB + 512, NULL, 0, 0), 0);
        assert_int_equal(io(&im, BLK_READ, 0, buf, 4 * MIB), 0);
        for (uint64_t i = 0; i < 4 * MIB; i++)
            if (buf[i] != (i < 512 || i >= 3 * MIB + 1024 ? 0x55 : 0))
                fail_msg("byte %llu is %#x", (unsigned long long)i, buf[i]);
        free(buf);
        image_close(&im, m == 1);
    }
}

static void files_of_odd_length_end_in_zeroes(void **s)
{
    for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
        struct image im;
        uint8_t *buf = aligned_alloc(4096, 4096);
        make_file(im.path, 1000);
        image_open(&im, modes[m]);
        assert_int_equal(im.blk->size, 1024);
        memset(buf, 0xff, 1024);
        assert_int_equal(io(&im, BLK_READ, 0, buf, 1024), 0);
        for (unsigned i = 0; i < 1024; i++)
            assert_int_equal(buf[i], 0);
        memset(buf, 3, 512);
        assert_int_equal(io(&im, BLK_WRITE, 512, buf, 512), 0);
        memset(buf, 0xff, 1024);
        assert_int_equal(io(&im, BLK_READ, 0, buf, 1024), 0);
        assert_int_equal(buf[511], 0);
        assert_int_equal(buf[1023], 3);
        free(buf);
        image_close(&im, true);
    }
}

static void many_requests_complete_once_each(void **s)
{
    enum { N = 400 };
    for (unsigned m = 0; m < 2; m++) {
        struct image im;
        struct result r[N] = {0};
        struct blk_req req[N] = {0};
        struct iovec iov[N];
        char *buf = xcalloc(N, 512);
        make_file(im.path, N * 512);
        image_open(&im, modes[m]);
        for (unsigned i = 0; i < N; i++) {
            memset(buf + 512 * i, (int)i, 512);
            iov[i] = (struct iovec){buf + 512 * i, 512};
            req[i] = (struct blk_req){.op = BLK_WRITE,
                                      .offset = 512 * i,
                                      .len = 512,
                                      .iov = &iov[i],
                                      .niov = 1,
                                      .done = done,
                                      .opaque = &r[i]};
            blk_submit(im.q, &req[i]);
        }
        blk_drain(im.q);
        for (unsigned i = 0; i < N; i++) {
            assert_int_equal(r[i].times, 1);
            assert_int_equal(r[i].ret, 0);
        }
        char back[512];
        assert_int_equal(io(&im, BLK_READ, 512 * 399, back, 512), 0);
        assert_memory_equal(back, buf + 512 * 399, 512);
        image_close(&im, true);
        free(buf);
    }
}

/* Runs fn in another process; its result (0..255). */
static int elsewhere(int (*fn)(const char *path), const char *path)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(fn(path));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int try_open(const char *path, bool read_only)
{
    struct blk *blk;
    struct err err = {0};
    struct blk_options opt = {.path = path, .read_only = read_only};
    int ret = blk_open(&opt, &blk, &err);
    if (ret == -EBUSY && !strstr(err.msg, "in use by another process"))
        return 99;
    return -ret;
}
static int try_write(const char *path)
{
    return try_open(path, false);
}
static int try_read(const char *path)
{
    return try_open(path, true);
}

static void a_disk_in_use_is_refused(void **s)
{
    struct image im;
    make_file(im.path, MIB);
    image_open(&im, (struct blk_options){0});
    assert_int_equal(elsewhere(try_write, im.path), EBUSY);
    assert_int_equal(elsewhere(try_read, im.path), EBUSY);
    image_close(&im, false);
    image_open(&im, (struct blk_options){.read_only = true});
    assert_int_equal(elsewhere(try_write, im.path), EBUSY);
    assert_int_equal(elsewhere(try_read, im.path), 0);
    image_close(&im, false);
    assert_int_equal(elsewhere(try_write, im.path), 0);
    unlink(im.path);
}

static void locks_are_the_bytes_that_others_look_at(void **s)
{
    char path[64];
    make_file(path, MIB);
    int fd = open(path, O_RDWR | O_CLOEXEC), other = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(lock_image(fd, true), 0);
    static const struct {
        off_t byte;
        bool locked;
    } want[] = {{100, true}, {101, true},  {102, false}, {103, false}, {200, false},
                {201, true}, {202, false}, {203, true},  {204, false}};
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        struct flock l = {.l_type = F_WRLCK, .l_start = want[i].byte, .l_len = 1};
        assert_int_equal(fcntl(other, F_OFD_GETLK, &l), 0);
        assert_int_equal(l.l_type != F_UNLCK, want[i].locked);
    }
    close(fd);
    close(other);
    unlink(path);
}

static void wrong_images_are_refused_with_their_name(void **s)
{
    static const struct {
        const char *content;
        size_t len;
        const char *format, *says;
    } cases[] = {
        {"QFI\xfb\0\0\0\3", 8, NULL, "qcow2"},
        {"KDMV", 4, NULL, "vmdk"},
        {"vhdxfile", 8, NULL, "vhdx"},
        {"x", 1, "qcow9", "qcow9"},
        {"", 0, NULL, "empty"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        char path[64];
        struct blk *blk;
        struct err err = {0};
        make_file(path, 0);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(fd_write_full(fd, cases[i].content, cases[i].len), 0);
        assert_int_equal(ftruncate(fd, cases[i].len ? 4096 : 0), 0);
        close(fd);
        struct blk_options opt = {.path = path, .format = cases[i].format};
        assert_true(blk_open(&opt, &blk, &err) < 0);
        assert_non_null(strstr(err.msg, path));
        /* A format that is known says itself what is wrong with such a stump. */
        assert_true(strstr(err.msg, cases[i].says) || cases[i].len > 1);
        if (cases[i].len > 1) { /* asked for, it is raw, with a warning */
            char said[512] = "";
            int fds[2];
            assert_int_equal(pipe(fds), 0);
            log_set_fd(fds[1]);
            opt.format = "raw";
            assert_int_equal(blk_open(&opt, &blk, NULL), 0);
            log_set_fd(2);
            assert_true(read(fds[0], said, sizeof said - 1) > 0);
            assert_non_null(strstr(said, cases[i].says));
            close(fds[0]);
            close(fds[1]);
            blk_close(blk);
        }
        unlink(path);
    }
    static const char *const paths[] = {"/tmp", "/dev/null", "/nonexistent/x.img"};
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        struct blk *blk;
        struct err err = {0};
        struct blk_options opt = {.path = paths[i]};
        assert_true(blk_open(&opt, &blk, &err) < 0);
        assert_non_null(strstr(err.msg, paths[i]));
    }
}

/* A full file system: the request fails, the next ones still work. */
static void a_full_file_system_is_an_error(void **s)
{
    char dir[] = "/tmp/lodge-full-XXXXXX";
    assert_non_null(mkdtemp(dir));
    if (mount("none", dir, "tmpfs", 0, "size=64k") < 0) {
        rmdir(dir);
        skip();
    }
    for (unsigned m = 0; m < 2; m++) {
        struct image im;
        snprintf(im.path, sizeof im.path, "%s/x", dir);
        int fd = open(im.path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        assert_int_equal(ftruncate(fd, MIB), 0);
        close(fd);
        image_open(&im, modes[m]);
        uint8_t *buf = xcalloc(1, 256 * KIB);
        memset(buf, 1, 256 * KIB);
        assert_int_equal(io(&im, BLK_WRITE, 0, buf, 256 * KIB), -ENOSPC);
        assert_int_equal(io(&im, BLK_WRITE, 0, buf, 4096), 0);
        assert_int_equal(io(&im, BLK_READ, 0, buf, 4096), 0);
        assert_int_equal(buf[4095], 1);
        free(buf);
        image_close(&im, true);
    }
    umount(dir);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(deallocation_gives_space_back_and_reads_as_zero),
        cmocka_unit_test(zeroes_are_written_where_the_file_system_cannot),
        cmocka_unit_test(files_of_odd_length_end_in_zeroes),
        cmocka_unit_test(many_requests_complete_once_each),
        cmocka_unit_test(a_disk_in_use_is_refused),
        cmocka_unit_test(locks_are_the_bytes_that_others_look_at),
        cmocka_unit_test(wrong_images_are_refused_with_their_name),
        cmocka_unit_test(a_full_file_system_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
