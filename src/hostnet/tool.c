/* See tool.h. */
#include "hostnet/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"

#define WAIT_MS 10000
#define SAID_MAX 4096

extern char **environ;

char *tool_find(const char *name)
{
    const char *dirs = getenv("PATH");
    autofree char *all = xasprintf("%s:/usr/sbin:/sbin:/usr/bin:/bin", dirs ? dirs : "");
    char *rest = all, *dir;
    while ((dir = strsep(&rest, ":"))) {
        if (*dir != '/')
            continue;
        char *path = xasprintf("%s/%s", dir, name);
        if (!access(path, X_OK))
            return path;
        free(path);
    }
    return NULL;
}

/* The first line of what the program said that says something. */
static char *first_line(char *text)
{
    text += strspn(text, " \n");
    text[strcspn(text, "\n")] = 0;
    return text;
}

static int wait_for(pid_t pid, int *ret_status)
{
    autofd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t end = clock_host_ns() + WAIT_MS * 1000000ull;
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    while (pidfd >= 0 && !(p.revents & POLLIN)) {
        uint64_t now = clock_host_ns();
        if (now >= end) {
            kill(pid, SIGKILL);
            waitpid(pid, ret_status, 0);
            return -ETIMEDOUT;
        }
        poll(&p, 1, (int)((end - now) / 1000000) + 1);
    }
    while (waitpid(pid, ret_status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

int tool_run(const char *const *argv, const char *package, const char *input, struct err *err)
{
    autofree char *path = tool_find(argv[0]);
    if (!path)
        return err_set(err, -ENOENT, "%s is not installed (package %s)", argv[0], package);
    autofd int in = memfd_create("input", MFD_CLOEXEC), said = memfd_create("said", MFD_CLOEXEC);
    if (in < 0 || said < 0)
        return err_errno(err, -errno, "%s", argv[0]);
    if (input && fd_write_full(in, input, strlen(input)) < 0)
        return err_errno(err, -EIO, "%s", argv[0]);
    lseek(in, 0, SEEK_SET);

    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none, pipes;
    sigemptyset(&none);
    sigemptyset(&pipes);
    sigaddset(&pipes, SIGPIPE);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, in, 0);
    posix_spawn_file_actions_adddup2(&fa, said, 1);
    posix_spawn_file_actions_adddup2(&fa, said, 2);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &pipes);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    pid_t pid;
    int code = -posix_spawn(&pid, path, &fa, &attr, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&attr);
    if (code)
        return err_errno(err, code, "%s", path);
    int status = 0;
    code = wait_for(pid, &status);
    if (code)
        return err_errno(err, code, "%s", argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    char text[SAID_MAX + 1];
    ssize_t n = pread(said, text, SAID_MAX, 0);
    text[n > 0 ? n : 0] = 0;
    char *line = first_line(text);
    return err_set(err, -EIO, "%s: %s", argv[0], *line ? line : "failed");
}
