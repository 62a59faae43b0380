/*
 * The log: what went on, for a person who looks afterwards. Errors that a caller can act on are returned (err.h), not logged.
 * Thread safe. The one process-wide thing in Lodge: a level and a file descriptor (stderr until log_open()).
 */
#ifndef LODGE_BASE_LOG_H
#define LODGE_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* Writes the log to `fd` (not owned). */
void log_set_fd(int fd);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                                                                                 \
    do {                                                                                                               \
        if (log_enabled(LOG_DEBUG))                                                                                    \
            log_write(LOG_DEBUG, __VA_ARGS__);                                                                         \
    } while (0)

/* What a guest does wrong, at debug level and at most 100 times in a process, so that a guest cannot fill the log. */
void log_guest(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
