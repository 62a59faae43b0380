/* See work.h. */
#include "daemon/work.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/fd.h"
#include "daemon/daemon.h"

struct work {
    struct daemon *daemon;
    void (*run)(void *opaque);
    void (*done)(void *opaque);
    void *opaque;
};

static void finish(void *opaque)
{
    struct work *w = opaque;
    w->daemon->works--;
    w->done(w->opaque);
    free(w);
}

static void *thread(void *opaque)
{
    struct work *w = opaque;
    w->run(w->opaque);
    loop_post(w->daemon->loop, finish, w);
    return NULL;
}

void work_start(struct daemon *d, void (*run)(void *opaque), void (*done)(void *opaque), void *opaque)
{
    struct work *w = xcalloc(1, sizeof *w);
    pthread_t id;
    sigset_t all, old;
    d->works++;
    *w = (struct work){d, run, done, opaque};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
    bool made = pthread_create(&id, NULL, thread, w) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (made)
        pthread_detach(id);
    else
        thread(w);
}

void work_wait(struct daemon *d)
{
    while (d->works)
        loop_poll(d->loop, -1);
}
