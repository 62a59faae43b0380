/*
 * Errors as values. A function that can fail returns 0 or a positive result, or -errno; where a person must be able to
 * read why, it also fills the caller's `struct err`, once, at the first failure. Callers put context in front.
 */
#ifndef LODGE_BASE_ERR_H
#define LODGE_BASE_ERR_H

#define ERR_MSG_MAX 512

struct err {
    int code;              /* -errno of the first failure, 0 while none */
    char msg[ERR_MSG_MAX]; /* one line for a person; control characters in it became '?' */
};

/* Sets *err (may be NULL) to `code` (-errno) with a formatted message and returns `code`. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<fmt>: " in front of the message of *err (may be NULL). */
void err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* err_set() with ": strerror(-code)" appended. */
int err_errno(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
