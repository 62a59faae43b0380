/* lodged: the daemon. Argument parsing, signals, and telling systemd; see src/daemon/ for what it does. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/daemon.h"

static const char help[] =
    "Usage: lodged [OPTION]...\n"
    "Keeps guests, and serves libvirt's protocol to virsh, virt-install, virt-manager and lodge.\n"
    "\n"
    "  --session       serve one user (the default unless root); no root needed\n"
    "  --system        serve the machine (the default for root)\n"
    "  --config FILE   settings (system: /etc/lodge/lodged.conf, if it is there)\n"
    "  --root DIR      put etc, run, var/lib and var/log below DIR\n"
    "  --listen-only   do not start guests that are marked for autostart\n"
    "  --verbose       say more about what goes on\n"
    "  --help, --version\n"
    "\n"
    "It stays in the foreground. SIGTERM ends it; guests go on, and the next lodged takes them over.\n"
    "Exit status: 0 ended by a signal or idle, 1 error, 2 wrong usage.\n";

static void on_signal(void *opaque, uint32_t events)
{
    daemon_quit(opaque);
}

/* sd_notify(): one datagram to the socket that systemd named. */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof a.sun_path)
        return;
    autofd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(a.sun_path, path, strlen(path));
    if (*path == '@')
        a.sun_path[0] = 0;
    if (fd >= 0 && sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a,
                          offsetof(struct sockaddr_un, sun_path) + strlen(path)) < 0)
        log_warn("cannot notify the service manager: %s", strerror(errno));
}

/* Sockets that systemd has opened: descriptors from 3 on. */
static unsigned passed_sockets(int *fds, unsigned max)
{
    const char *pid = getenv("LISTEN_PID"), *n_text = getenv("LISTEN_FDS");
    unsigned n = 0;
    if (pid && n_text && atoi(pid) == getpid() && atoi(n_text) > 0)
        for (; n < (unsigned)atoi(n_text) && n < max; n++) {
            fds[n] = 3 + (int)n;
            fcntl(fds[n], F_SETFD, FD_CLOEXEC);
            fcntl(fds[n], F_SETFL, O_NONBLOCK);
        }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return n;
}

static int fail(const struct err *err)
{
    fprintf(stderr, "lodged: %s\n", err->msg);
    return 1;
}

static int serve(struct daemon_config *config, bool autostart)
{
    struct daemon *d;
    struct err err = {0};
    int fds[DAEMON_SOCKETS_MAX], status_fd;
    unsigned n = passed_sockets(fds, DAEMON_SOCKETS_MAX);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* A descriptor for each client, and a few for each guest. */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    status_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (daemon_new(config, fds, n, &d, &err) < 0)
        return fail(&err);
    struct loop_fd *watch = loop_add_fd(d->loop, status_fd, EPOLLIN, on_signal, d);
    notify("READY=1");
    if (autostart)
        daemon_autostart(d);
    daemon_run(d);
    notify("STOPPING=1");
    loop_del_fd(watch);
    daemon_free(d);
    close(status_fd);
    return 0;
}

int main(int argc, char **argv)
{
    enum { SESSION = 1, SYSTEM, CONFIG, ROOT, LISTEN_ONLY, VERBOSE, HELP, VERSION };
    static const struct option options[] = {
        {"session", no_argument, NULL, SESSION},
        {"system", no_argument, NULL, SYSTEM},
        {"config", required_argument, NULL, CONFIG},
        {"root", required_argument, NULL, ROOT},
        {"listen-only", no_argument, NULL, LISTEN_ONLY},
        {"verbose", no_argument, NULL, VERBOSE},
        {"help", no_argument, NULL, HELP},
        {"version", no_argument, NULL, VERSION},
        {0},
    };
    bool session = geteuid() != 0, autostart = true;
    const char *file = NULL, *root = NULL;
    int c;
    log_set_level(LOG_WARN);
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case SESSION:
            session = true;
            break;
        case SYSTEM:
            session = false;
            break;
        case CONFIG:
            file = optarg;
            break;
        case ROOT:
            root = optarg;
            break;
        case LISTEN_ONLY:
            autostart = false;
            break;
        case VERBOSE:
            log_set_level(LOG_INFO);
            break;
        case HELP:
            fputs(help, stdout);
            return 0;
        case VERSION:
            puts("lodged " LODGE_VERSION);
            return 0;
        default:
            return 2;
        }
    }
    if (optind < argc || (root && *root != '/')) {
        fprintf(stderr,
                optind < argc ? "lodged: not an option: %s (see lodged --help)\n"
                              : "lodged: --root: not an absolute path: %s\n",
                optind < argc ? argv[optind] : root);
        return 2;
    }
    struct daemon_config config;
    struct err err = {0};
    daemon_config_init(&config, session, root);
    autofree char *default_file = xasprintf("%s/lodged.conf", config.config_dir);
    if (!file && access(default_file, F_OK) == 0)
        file = default_file;
    if (file && daemon_config_read(&config, file, &err) < 0) {
        daemon_config_free(&config);
        return fail(&err);
    }
    return serve(&config, autostart);
}
