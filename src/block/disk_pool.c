/* See disk.h. Threads end after a while without work. */
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "block/disk.h"

enum { IDLE_SECONDS = 5 };

static void *worker(void *opaque)
{
    struct pool *p = opaque;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct pool_job *job = p->head;
        if (job) {
            p->head = job->next;
            if (!p->head)
                p->tail = &p->head;
            pthread_mutex_unlock(&p->lock);
            job->fn(job);
            pthread_mutex_lock(&p->lock);
            continue;
        }
        if (p->stop)
            break;
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += IDLE_SECONDS;
        p->idle++;
        int r = pthread_cond_timedwait(&p->work, &p->lock, &until);
        p->idle--;
        if (r == ETIMEDOUT && !p->head)
            break;
    }
    p->threads--;
    pthread_cond_broadcast(&p->gone);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void pool_init(struct pool *p)
{
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->gone, NULL);
    p->head = NULL;
    p->tail = &p->head;
    p->threads = p->idle = 0;
    p->stop = false;
}

void pool_fini(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    while (p->threads)
        pthread_cond_wait(&p->gone, &p->lock);
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->gone);
}

/* Signals are the main thread's. */
static bool start(struct pool *p)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int r = pthread_create(&thread, &attr, worker, p);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r == 0;
}

void pool_add(struct pool *p, struct pool_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&p->lock);
    if (!p->idle && p->threads < POOL_THREADS) {
        p->threads++;
        if (!start(p))
            p->threads--;
    }
    bool none = !p->threads;
    if (!none) {
        *p->tail = job;
        p->tail = &job->next;
        pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    if (none)
        job->fn(job);
}
