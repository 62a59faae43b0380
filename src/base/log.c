/* One line, one write(2): lines of several threads never mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int log_level = LOG_WARN;
static _Atomic int log_fd = STDERR_FILENO;
static _Atomic unsigned guest_lines;

void log_set_level(enum log_level level)
{
    atomic_store(&log_level, level);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

void log_set_fd(int fd)
{
    atomic_store(&log_fd, fd);
}

static void log_line(enum log_level level, const char *fmt, va_list ap)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[1024];
    int n = snprintf(line, sizeof line, "%s: ", names[level]);
    vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    size_t len = strlen(line);
    line[len++] = '\n';
    if (write(atomic_load(&log_fd), line, len) < 0) {
        /* Nowhere left to say it. */
    }
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    va_list ap;
    va_start(ap, fmt);
    log_line(level, fmt, ap);
    va_end(ap);
}

void log_guest(const char *fmt, ...)
{
    if (!log_enabled(LOG_DEBUG) || atomic_fetch_add(&guest_lines, 1) >= 100)
        return;
    va_list ap;
    va_start(ap, fmt);
    log_line(LOG_DEBUG, fmt, ap);
    va_end(ap);
}
