/*
 * A client of one guest's monitor (src/monitor/), on the daemon's loop: nothing here waits. Replies come in the order
 * of the commands; events between them.
 */
#ifndef LODGE_DAEMON_QMP_H
#define LODGE_DAEMON_QMP_H

#include <jansson.h>

#include "base/err.h"

struct loop;
struct qmp;

struct qmp_owner {
    void *opaque;
    /* `data` may be NULL and is only borrowed. */
    void (*event)(void *opaque, const char *name, const json_t *data);
    /* The connection is gone; every pending command was answered with an error before. qmp_free() is allowed here. */
    void (*closed)(void *opaque);
};

/* `ret` is what the command returned (borrowed), or NULL: then `error` says why not. */
typedef void qmp_done(void *opaque, json_t *ret, const char *error);

/* Connects; the session's greeting and its answer come by themselves, before the first command. */
int qmp_open(struct loop *loop, const char *path, const struct qmp_owner *owner, struct qmp **ret, struct err *err);
/* NULL-safe. Pending commands are answered with an error. */
void qmp_free(struct qmp *q);
/* `args` (may be NULL) is taken over. `done` may be NULL. */
void qmp_call(struct qmp *q, const char *command, json_t *args, qmp_done *done, void *opaque);
/* Forgets who waits for answers: `opaque` goes away. */
void qmp_forget(struct qmp *q, const void *opaque);

#endif
