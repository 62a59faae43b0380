/*
 * The process's own terminal. In raw mode, so that the guest gets every key; Ctrl-A is the way out and takes a second
 * key. The terminal is put back when the chardev goes; who starts lodge-vm puts it back too (cli/run.c), in case it was
 * killed. When standard input is no terminal, bytes pass unchanged and there is no escape key.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "ui/stream.h"

#define ESCAPE 0x01 /* Ctrl-A */

struct terminal {
    struct stream s;
    struct termios saved;
    bool raw;
    bool escaped;
    int own_in, own_out; /* descriptors of our own, or -1 */
    void (*quit)(void *opaque);
    void *opaque;
};

static const struct chardev_ops stdio_ops = STREAM_OPS("stdio");

static void show_help(struct terminal *t)
{
    static const char help[] = "\r\nCtrl-A x       end the guest at once\r\n"
                               "Ctrl-A b       send a break\r\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A\r\n"
                               "Ctrl-A ?       this help\r\n";
    stream_write(&t->s.chardev, (const uint8_t *)help, sizeof help - 1);
}

static void escape_key(struct terminal *t, uint8_t key)
{
    switch (key) {
    case 'x':
    case 'X':
        if (t->quit)
            t->quit(t->opaque);
        else
            kill(getpid(), SIGTERM);
        break;
    case 'b':
    case 's':
        if (t->s.chardev.frontend && t->s.chardev.frontend->event)
            t->s.chardev.frontend->event(t->s.chardev.opaque, CHARDEV_BREAK);
        break;
    case '?':
    case 'h':
        show_help(t);
        break;
    default:
        break;
    }
}

static size_t filter(struct stream *s, uint8_t *buf, size_t len)
{
    struct terminal *t = (struct terminal *)s;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (t->escaped) {
            t->escaped = false;
            if (buf[i] == ESCAPE)
                buf[n++] = ESCAPE;
            else
                escape_key(t, buf[i]);
        } else if (buf[i] == ESCAPE) {
            t->escaped = true;
        } else {
            buf[n++] = buf[i];
        }
    }
    return n;
}

/* End of input: output goes on. */
static void hangup(struct stream *s)
{
    loop_del_fd(s->in_watch);
    s->in_watch = NULL;
    s->in_fd = -1;
}

static void restore(struct stream *s)
{
    struct terminal *t = (struct terminal *)s;
    if (t->raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &t->saved);
    fd_closep(&t->own_in);
    fd_closep(&t->own_out);
}

/* The same terminal or pipe as `fd`, but ours alone, so that O_NONBLOCK does not change it for others. -1 when
 * impossible. */
static int reopen(int fd, int flags)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

int chardev_stdio_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err)
{
    struct termios now;
    bool tty = tcgetattr(STDIN_FILENO, &now) == 0;
    struct terminal *t = stream_new(sizeof *t, loop, &stdio_ops);
    t->own_in = t->own_out = -1;
    t->quit = o->quit;
    t->opaque = o->opaque;
    t->s.hangup = hangup;
    t->s.close = restore;
    if (tty) {
        t->saved = now;
        now.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
        now.c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
        now.c_cflag = (now.c_cflag & ~(CSIZE | PARENB)) | CS8;
        now.c_cc[VMIN] = 1;
        now.c_cc[VTIME] = 0;
        if (tcsetattr(STDIN_FILENO, TCSANOW, &now) < 0) {
            int code = -errno;
            chardev_free(&t->s.chardev);
            return err_errno(err, code, "cannot set the terminal to raw mode");
        }
        t->raw = true;
        t->s.filter = filter;
        t->s.drops = true;
        t->own_in = reopen(STDIN_FILENO, O_RDONLY);
    }
    struct stat st;
    enum stream_out out = STREAM_CAREFUL;
    if (fstat(STDOUT_FILENO, &st) == 0) {
        if (S_ISSOCK(st.st_mode))
            out = STREAM_SOCKET;
        else if (S_ISREG(st.st_mode))
            out = STREAM_NONBLOCK;
        else if (isatty(STDOUT_FILENO) || S_ISFIFO(st.st_mode))
            t->own_out = reopen(STDOUT_FILENO, O_WRONLY);
    }
    if (t->own_out >= 0)
        out = STREAM_NONBLOCK;
    stream_connect(&t->s, t->own_in >= 0 ? t->own_in : STDIN_FILENO, t->own_out >= 0 ? t->own_out : STDOUT_FILENO, out);
    *ret = &t->s.chardev;
    return 0;
}
