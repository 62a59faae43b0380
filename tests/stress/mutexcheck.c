/*
 * Preloaded into a program: every mutex that it initialises checks its use (PTHREAD_MUTEX_ERRORCHECK), and the first call that finds
 * one misused (unlocked by another thread or twice, locked twice, used after its end, or its memory overwritten) ends the program with
 * a backtrace.
 */
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(name) __extension__({ \
    static __typeof__(&name) f; \
    if (!f) \
        f = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
    f; \
})

static int checked(int result, const char *what, const void *m)
{
    if (result) {
        void *frames[32];
        char text[128];
        int n = snprintf(text, sizeof text, "mutexcheck: %s(%p): %s\n", what, m, strerror(result));
        (void)!write(2, text, (size_t)n);
        backtrace_symbols_fd(frames, backtrace(frames, 32), 2);
        abort();
    }
    return 0;
}

int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a)
{
    pthread_mutexattr_t own;
    if (a)
        return REAL(pthread_mutex_init)(m, a);
    pthread_mutexattr_init(&own);
    pthread_mutexattr_settype(&own, PTHREAD_MUTEX_ERRORCHECK);
    int r = REAL(pthread_mutex_init)(m, &own);
    pthread_mutexattr_destroy(&own);
    return r;
}

int pthread_mutex_destroy(pthread_mutex_t *m)
{
    return checked(REAL(pthread_mutex_destroy)(m), "pthread_mutex_destroy", m);
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    return checked(REAL(pthread_mutex_lock)(m), "pthread_mutex_lock", m);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    return checked(REAL(pthread_mutex_unlock)(m), "pthread_mutex_unlock", m);
}

int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    return checked(REAL(pthread_cond_wait)(c, m), "pthread_cond_wait", m);
}
