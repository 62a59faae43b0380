/*
 * lodge-vm gets the domain in a memory file that it inherits. We stay as its parent, because only somebody else can put
 * the terminal back when it is killed; a vfork() costs next to nothing. It dies with us.
 */
#include "cli/launch.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "cli/cli.h"

/* Beside us (installed or in the build folder), or in libexec of the same prefix; else NULL and $PATH decides. */
static char *find_beside(void)
{
    static const char *const places[] = {"lodge-vm", "../libexec/lodge/lodge-vm"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return NULL;
    self[n] = 0;
    *(strrchr(self, '/') + 1) = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        char *path = xasprintf("%s%s", self, places[i]);
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

static int document_fd(const char *document)
{
    int fd = memfd_create("domain", 0); /* not CLOEXEC: lodge-vm inherits it */
    if (fd < 0)
        return -errno;
    int r = fd_write_full(fd, document, strlen(document));
    if (r)
        close(fd);
    return r ? r : fd;
}

static void put_back(const struct termios *saved)
{
    /* A background process that touches its terminal is stopped. */
    if (tcgetpgrp(STDIN_FILENO) == getpgrp())
        tcsetattr(STDIN_FILENO, TCSANOW, saved);
}

/* Waits for the child and passes signals on, but not those that the terminal has sent to both of us. Its wait status.
 */
static int wait_for(pid_t pid, const sigset_t *set)
{
    int status;
    for (;;) {
        siginfo_t si;
        int sig = sigwaitinfo(set, &si);
        if (sig == SIGCHLD) {
            if (waitpid(pid, &status, WNOHANG) == pid)
                return status;
        } else if (sig > 0 && si.si_code != SI_KERNEL) {
            kill(pid, sig);
        }
    }
}

/* The child's exec() error goes to *ret_failed: after vfork() it writes to our memory. */
static __attribute__((noinline)) pid_t start(const char *path, const char *const *args, const sigset_t *mask,
                                             volatile int *ret_failed)
{
    pid_t parent = getpid(), pid = vfork();
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, mask, NULL);
    if (getppid() != parent)
        _exit(CLI_ERROR);
    if (path)
        execv(path, (char *const *)args);
    else
        execvp("lodge-vm", (char *const *)args);
    *ret_failed = errno;
    _exit(CLI_ERROR);
}

int launch(const char *document, const char *monitor, const char *gdb, bool verbose)
{
    autofree char *path = find_beside();
    autofd int fd = document_fd(document);
    if (fd < 0)
        return cli_error("cannot pass the domain on: %s", strerror(-fd));
    char fd_text[16];
    snprintf(fd_text, sizeof fd_text, "%d", fd);
    const char *args[10] = {"lodge-vm", "--domain-fd", fd_text};
    int n = 3;
    if (monitor) {
        args[n++] = "--monitor";
        args[n++] = monitor;
    }
    if (gdb) {
        args[n++] = "--gdb";
        args[n++] = gdb;
    }
    if (verbose)
        args[n++] = "--verbose";

    struct termios saved;
    bool terminal = tcgetattr(STDIN_FILENO, &saved) == 0;
    sigset_t set, old;
    sigemptyset(&set);
    for (const int *s = (const int[]){SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT, 0}; *s; s++)
        sigaddset(&set, *s);
    sigprocmask(SIG_BLOCK, &set, &old);

    volatile int failed = 0;
    pid_t pid = start(path, args, &old, &failed);
    if (pid < 0)
        return cli_error("cannot start a process: %s", strerror(errno));
    fd_closep(&fd);
    fd = -1;
    int status = wait_for(pid, &set);
    if (failed)
        return cli_error("%s: %s", path ? path : "lodge-vm", strerror(failed));
    if (terminal)
        put_back(&saved);
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    cli_error("lodge-vm was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return CLI_SIGNAL + WTERMSIG(status);
}
