/* Character devices, each with a front end that keeps what it gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <utmp.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/sock.h"
#include "ui/chardev.h"

struct port {
    struct loop *loop;
    struct chardev *chr;
    size_t room;
    size_t grows; /* by so much each time that somebody asks: a vCPU takes bytes meanwhile */
    uint8_t got[65536];
    size_t n;
    int opened, closed, breaks, writable;
    bool echo;
};

static size_t port_can_receive(void *opaque)
{
    struct port *p = opaque;
    size_t room = p->room;
    p->room += p->grows;
    return room;
}

static void port_receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct port *p = opaque;
    assert_true(len <= p->room);
    assert_true(p->n + len <= sizeof p->got);
    memcpy(p->got + p->n, buf, len);
    p->n += len;
    p->room -= len;
    if (p->echo)
        chardev_write(p->chr, buf, len);
}

static void port_writable(void *opaque)
{
    ((struct port *)opaque)->writable++;
}

static void port_event(void *opaque, enum chardev_event event)
{
    struct port *p = opaque;
    p->opened += event == CHARDEV_OPENED;
    p->closed += event == CHARDEV_CLOSED;
    p->breaks += event == CHARDEV_BREAK;
    if (event == CHARDEV_BREAK && p->echo)
        chardev_write(p->chr, (const uint8_t *)"<break>", 7);
}

static const struct chardev_frontend frontend = {port_can_receive, port_receive, port_writable, port_event};

static struct port *port_new(const struct chardev_options *o)
{
    struct port *p = xcalloc(1, sizeof *p);
    struct err err = {0};
    p->room = sizeof p->got;
    if (loop_new(&p->loop, &err) || chardev_open(p->loop, o, &p->chr, &err))
        fail_msg("%s", err.msg);
    chardev_set_frontend(p->chr, &frontend, p);
    return p;
}

static void turn(struct port *p)
{
    for (int i = 0; i < 4; i++)
        loop_poll(p->loop, 5);
}

static void port_free(struct port *p)
{
    chardev_set_frontend(p->chr, NULL, NULL);
    chardev_free(p->chr);
    loop_poll(p->loop, 0);
    loop_free(p->loop);
    free(p);
}

static char *temp_dir(void)
{
    char *dir = xstrdup("/tmp/lodge-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void null_takes_everything(void **s)
{
    struct port *p = port_new(&(struct chardev_options){.type = "null"});
    uint8_t buf[1000] = {0};
    assert_int_equal(chardev_write(p->chr, buf, sizeof buf), sizeof buf);
    turn(p);
    assert_int_equal(p->opened, 1);
    assert_int_equal(p->n, 0);
    port_free(p);
}

static void a_file_is_replaced_or_appended_to(void **s)
{
    autofree char *dir = temp_dir(), *path = xasprintf("%s/out", dir);
    const char *const texts[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        struct port *p = port_new(&(struct chardev_options){.type = "file", .path = path, .append = i == 2});
        assert_int_equal(chardev_write(p->chr, (const uint8_t *)texts[i], strlen(texts[i])), strlen(texts[i]));
        port_free(p);
    }
    char buf[32] = "";
    autofd int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, buf, sizeof buf), 8);
    assert_string_equal(buf, "twothree");
    unlink(path);
    rmdir(dir);
}

static void what_cannot_be_opened_is_named(void **s)
{
    struct loop *loop;
    struct chardev *c = NULL;
    struct err err = {0};
    assert_int_equal(loop_new(&loop, NULL), 0);
    struct chardev_options o = {.type = "file", .path = "/nonexistent/out"};
    assert_int_equal(chardev_open(loop, &o, &c, &err), -ENOENT);
    assert_string_equal(err.msg, "/nonexistent/out: No such file or directory");
    o = (struct chardev_options){.type = "unix", .path = "/etc/passwd"};
    err = (struct err){0};
    assert_int_equal(chardev_open(loop, &o, &c, &err), -EEXIST);
    assert_string_equal(err.msg, "/etc/passwd: is there already and is not a socket");
    o = (struct chardev_options){.type = "carrier-pigeon"};
    err = (struct err){0};
    assert_int_equal(chardev_open(loop, &o, &c, &err), -EINVAL);
    loop_free(loop);
}

static void a_socket_serves_one_client_after_the_other(void **s)
{
    autofree char *dir = temp_dir(), *path = xasprintf("%s/sock", dir);
    struct chardev_options o = {.type = "unix", .path = path};
    struct port *p = port_new(&o);
    char buf[16] = "";
    assert_int_equal(chardev_write(p->chr, (const uint8_t *)"lost", 4), 4);
    turn(p);
    assert_int_equal(p->opened, 0);
    for (int round = 1; round <= 3; round++) {
        int c = sock_unix_connect(path, NULL);
        assert_true(c >= 0);
        turn(p);
        assert_int_equal(p->opened, round);
        assert_int_equal(chardev_write(p->chr, (const uint8_t *)"hello", 5), 5);
        assert_int_equal(read(c, buf, sizeof buf), 5);
        p->n = 0;
        assert_int_equal(write(c, "key", 3), 3);
        turn(p);
        assert_int_equal(p->n, 3);
        close(c);
        turn(p);
        assert_int_equal(p->closed, round);
    }
    /* The path is taken while it is listened on. */
    struct chardev *second = NULL;
    struct err err = {0};
    assert_int_equal(chardev_open(p->loop, &o, &second, &err), -EADDRINUSE);
    port_free(p);
    assert_int_equal(access(path, F_OK), -1);
    rmdir(dir);
}

static void input_waits_for_room_and_output_for_the_reader(void **s)
{
    autofree char *dir = temp_dir(), *path = xasprintf("%s/sock", dir);
    struct port *p = port_new(&(struct chardev_options){.type = "unix", .path = path});
    int c = sock_unix_connect(path, NULL);
    p->room = 2;
    assert_int_equal(write(c, "abcdef", 6), 6);
    turn(p);
    assert_int_equal(p->n, 2);
    p->room = 3;
    chardev_accept_input(p->chr);
    turn(p);
    assert_int_equal(p->n, 5);

    static uint8_t big[4 << 20];
    size_t taken = chardev_write(p->chr, big, sizeof big);
    assert_true(taken < sizeof big);
    turn(p);
    assert_int_equal(p->writable, 0);
    for (size_t n = 0; n < taken;) {
        ssize_t r = read(c, big, sizeof big);
        assert_true(r > 0);
        n += r;
    }
    turn(p);
    assert_true(p->writable > 0);
    close(c);
    port_free(p);
    rmdir(dir);
}

/* Room that grew between two looks at it once made the stream deliver bytes that it did not have. */
static void room_may_grow_while_it_is_looked_at(void **s)
{
    autofree char *dir = temp_dir(), *path = xasprintf("%s/sock", dir);
    struct port *p = port_new(&(struct chardev_options){.type = "unix", .path = path});
    autofd int fd = sock_unix_connect(path, NULL);
    p->room = 1;
    p->grows = 100;
    assert_int_equal(write(fd, "twelve bytes", 12), 12);
    turn(p);
    assert_int_equal(write(fd, ", and more", 10), 10);
    turn(p);
    assert_int_equal(p->n, 22);
    assert_memory_equal(p->got, "twelve bytes, and more", 22);
    port_free(p);
    rmdir(dir);
}

static void a_pty_can_be_opened_again_and_again(void **s)
{
    struct port *p = port_new(&(struct chardev_options){.type = "pty"});
    char buf[16];
    for (int i = 0; i < 10000; i++) /* nobody is there: never full */
        assert_int_equal(chardev_write(p->chr, (const uint8_t *)"0123456789", 10), 10);
    for (int round = 1; round <= 2; round++) {
        int t = open(chardev_path(p->chr), O_RDWR | O_NOCTTY);
        assert_true(t >= 0);
        turn(p);
        assert_int_equal(p->opened, round);
        chardev_write(p->chr, (const uint8_t *)"login:", 6);
        assert_int_equal(read(t, buf, sizeof buf), 6);
        p->n = 0;
        assert_int_equal(write(t, "a\rb", 3), 3);
        turn(p);
        assert_int_equal(p->n, 3);
        assert_memory_equal(p->got, "a\rb", 3);
        close(t);
        turn(p);
        assert_int_equal(p->closed, round);
    }
    port_free(p);
}

/* A process whose guest sends back all it gets, on a terminal; the user is the test. */
static void quit(void *opaque)
{
    loop_quit(opaque);
}

static void run_echo(void)
{
    struct loop *loop;
    struct port *p = xcalloc(1, sizeof *p);
    loop_new(&loop, NULL);
    p->loop = loop;
    p->echo = true;
    p->room = sizeof p->got;
    struct chardev_options o = {.type = "stdio", .quit = quit, .opaque = loop};
    if (chardev_open(loop, &o, &p->chr, NULL))
        _exit(1);
    chardev_set_frontend(p->chr, &frontend, p);
    chardev_write(p->chr, (const uint8_t *)"ready", 5);
    loop_run(loop);
    port_free(p);
    _exit(0);
}

static void expect(int fd, const char *what)
{
    char buf[4096];
    size_t n = 0;
    while (n < sizeof buf - 1) {
        ssize_t r = read(fd, buf + n, sizeof buf - 1 - n);
        if (r <= 0)
            fail_msg("the terminal ended before '%s'", what);
        n += r;
        buf[n] = 0;
        if (strstr(buf, what))
            return;
    }
    fail();
}

static void keys(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void the_escape_key_works_and_the_terminal_is_put_back(void **s)
{
    int master, slave, status;
    struct termios before, during, after;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(tcgetattr(slave, &before), 0);
    pid_t pid = fork();
    if (!pid) {
        login_tty(slave);
        run_echo();
    }
    expect(master, "ready");
    tcgetattr(slave, &during);
    assert_false(during.c_lflag & (ICANON | ECHO | ISIG));
    keys(master, "\x03xyz");
    expect(master, "\x03xyz"); /* Ctrl-C goes to the guest */
    keys(master, "\x01\x01");
    expect(master, "\x01");
    keys(master, "\x01?");
    expect(master, "Ctrl-A x");
    keys(master, "\x01"
                 "b");
    expect(master, "<break>");
    keys(master, "\x01x");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tcgetattr(slave, &after);
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_int_equal(after.c_iflag, before.c_iflag);
    close(master);
    close(slave);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_takes_everything),
        cmocka_unit_test(a_file_is_replaced_or_appended_to),
        cmocka_unit_test(what_cannot_be_opened_is_named),
        cmocka_unit_test(a_socket_serves_one_client_after_the_other),
        cmocka_unit_test(input_waits_for_room_and_output_for_the_reader),
        cmocka_unit_test(room_may_grow_while_it_is_looked_at),
        cmocka_unit_test(a_pty_can_be_opened_again_and_again),
        cmocka_unit_test(the_escape_key_works_and_the_terminal_is_put_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
