/*
 * One log file per guest: what lodge-vm prints, and lines of our own with the time in front. Rotated by size before a
 * start (renamed) and while the guest runs (copied and cut, because lodge-vm appends to the open file).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "daemon/guest.h"

static char *path_of(const struct guest *g)
{
    return xasprintf("%s/%s.log", g->guests->dirs.log, g->name);
}

off_t guest_log_size(const struct guest *g)
{
    struct stat st;
    autofree char *path = path_of(g);
    return stat(path, &st) == 0 ? st.st_size : 0;
}

/* NAME.log.1 becomes NAME.log.2 and so on; the oldest goes. */
static void shift(const char *path, unsigned keep)
{
    for (unsigned i = keep; i > 1; i--) {
        autofree char *from = xasprintf("%s.%u", path, i - 1);
        autofree char *to = xasprintf("%s.%u", path, i);
        rename(from, to);
    }
}

static void rotate(const struct guest *g, bool in_use)
{
    const struct guests *t = g->guests;
    if (guest_log_size(g) < (off_t)t->log_max)
        return;
    autofree char *path = path_of(g);
    autofree char *first = xasprintf("%s.1", path);
    if (t->log_keep)
        shift(path, t->log_keep);
    if (!in_use) {
        if (!t->log_keep || rename(path, first) < 0)
            unlink(path);
        return;
    }
    autofd int from = open(path, O_RDWR | O_CLOEXEC);
    autofd int to = t->log_keep ? open(first, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    while (from >= 0 && to >= 0 && sendfile(to, from, NULL, 1 << 20) > 0)
        ;
    if (from >= 0 && ftruncate(from, 0) < 0)
        unlink(path); /* no log is better than one that grows for ever */
}

int guest_log_open(struct guest *g)
{
    rotate(g, false);
    autofree char *path = path_of(g);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
    return fd < 0 ? -errno : fd;
}

void guest_log(struct guest *g, const char *fmt, ...)
{
    autofd int fd = guest_log_open(g);
    if (fd < 0)
        return;
    struct timespec ts;
    struct tm tm;
    char when[40], *text = NULL;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n >= 0)
        dprintf(fd, "%s.%03ld+0000: %s\n", when, ts.tv_nsec / 1000000, text);
    free(text);
}

void guest_logs_check(struct guests *t)
{
    struct guest *g, *next;
    HASH_ITER(by_id, t->by_id, g, next)
    rotate(g, true);
}

char *guest_log_tail(const struct guest *g, off_t from)
{
    enum { TAIL = 700 };
    autofree char *path = path_of(g);
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = xcalloc(1, TAIL + 1);
    off_t size = guest_log_size(g);
    if (size - from > TAIL)
        from = size - TAIL;
    ssize_t n = fd < 0 ? 0 : pread(fd, text, TAIL, from);
    text[n > 0 ? n : 0] = 0;
    for (n = strlen(text); n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'); n--)
        text[n - 1] = 0;
    return text;
}
