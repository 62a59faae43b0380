/* dnsmasq's process and files. See dnsmasq.h. */
#include "hostnet/dnsmasq.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "hostnet/tool.h"

#define LEASES_MAX 65536

static char *path_of(const struct network *n, const char *dir, const char *suffix)
{
    return xasprintf("%s/%s.%s", dir, n->name, suffix);
}

char *dnsmasq_lease_file(const struct network *n, const struct hostnet_dirs *dirs)
{
    return path_of(n, dirs->state, "leases");
}

bool dnsmasq_wanted(const struct network *n)
{
    bool dhcp = false;
    for (unsigned i = 0; i < n->n_ips; i++)
        dhcp |= n->ips[i].has_dhcp || n->ips[i].address.bits == 128;
    return network_own_bridge(n) && n->n_ips && (dhcp || n->dns_enable != DOMAIN_OFF);
}

/* At most 1 MiB of a file as text, or NULL. */
static char *read_text(const char *path)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 1 << 20)
        return NULL;
    char *text = malloc((size_t)st.st_size + 1);
    ssize_t n = text ? read(fd, text, (size_t)st.st_size) : -1;
    if (n < 0) {
        free(text);
        return NULL;
    }
    text[n] = 0;
    return text;
}

/* Writes a file that is not there half. Says whether it was different before. */
static int write_text(const char *path, const char *text, bool *ret_changed, struct err *err)
{
    autofree char *old = read_text(path), *temp = xasprintf("%s.new", path);
    if (ret_changed)
        *ret_changed |= !old || strcmp(old, text);
    if (old && !strcmp(old, text))
        return 0;
    autofd int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    int code = fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));
    if (!code && rename(temp, path) < 0)
        code = -errno;
    if (code) {
        unlink(temp);
        return err_errno(err, code, "%s", path);
    }
    return 0;
}

static int write_files(const struct network *n, const char *bridge, const struct hostnet_dirs *dirs, bool *ret_conf, bool *ret_lists,
                       struct err *err)
{
    autofree char *conf = dnsmasq_conf(n, bridge, dirs), *hosts = dnsmasq_hosts(n), *names = dnsmasq_names(n);
    autofree char *conf_path = path_of(n, dirs->state, "conf"), *hosts_path = path_of(n, dirs->state, "hosts");
    autofree char *names_path = path_of(n, dirs->state, "names");
    int code = write_text(hosts_path, hosts, ret_lists, err);
    if (!code)
        code = write_text(names_path, names, ret_lists, err);
    return code ? code : write_text(conf_path, conf, ret_conf, err);
}

pid_t dnsmasq_pid(const struct network *n, const struct hostnet_dirs *dirs)
{
    autofree char *pid_path = path_of(n, dirs->run, "pid"), *conf = path_of(n, dirs->state, "conf");
    autofree char *text = read_text(pid_path);
    long pid = text ? strtol(text, NULL, 10) : 0;
    if (pid <= 1)
        return 0;
    /* Process numbers come again: it must be the one that was started with our file. */
    autofree char *cmdline_path = xasprintf("/proc/%ld/cmdline", pid), *want = xasprintf("--conf-file=%s", conf);
    autofd int fd = open(cmdline_path, O_RDONLY | O_CLOEXEC);
    char cmdline[4096];
    ssize_t len = fd < 0 ? -1 : read(fd, cmdline, sizeof cmdline - 1);
    if (len <= 0)
        return 0;
    cmdline[len] = 0;
    for (const char *arg = cmdline; arg < cmdline + len; arg += strlen(arg) + 1)
        if (!strcmp(arg, want))
            return (pid_t)pid;
    return 0;
}

int dnsmasq_start(const struct network *n, const char *bridge, const struct hostnet_dirs *dirs, struct err *err)
{
    if (!dnsmasq_wanted(n))
        return 0;
    dnsmasq_stop(n, dirs);
    int code = write_files(n, bridge, dirs, NULL, NULL, err);
    if (code)
        return code;
    autofree char *conf = path_of(n, dirs->state, "conf"), *arg = xasprintf("--conf-file=%s", conf);
    /* It goes into the background when it listens. */
    const char *const argv[] = {"dnsmasq", arg, NULL};
    code = tool_run(argv, "dnsmasq-base", NULL, err);
    if (code)
        err_prefix(err, "network '%s'", n->name);
    return code;
}

void dnsmasq_stop(const struct network *n, const struct hostnet_dirs *dirs)
{
    pid_t pid = dnsmasq_pid(n, dirs);
    if (pid > 0) {
        autofd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        if (pidfd >= 0 && dnsmasq_pid(n, dirs) == pid && !syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0) && !poll(&p, 1, 2000))
            syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    }
    autofree char *pid_path = path_of(n, dirs->run, "pid");
    unlink(pid_path);
}

int dnsmasq_update(const struct network *n, const char *bridge, const struct hostnet_dirs *dirs, struct err *err)
{
    bool conf = false, lists = false;
    if (!dnsmasq_wanted(n)) {
        dnsmasq_stop(n, dirs);
        return 0;
    }
    int code = write_files(n, bridge, dirs, &conf, &lists, err);
    if (code)
        return code;
    pid_t pid = dnsmasq_pid(n, dirs);
    if (!pid || conf)
        return dnsmasq_start(n, bridge, dirs, err);
    if (lists && kill(pid, SIGHUP) < 0)
        return err_errno(err, -errno, "network '%s': dnsmasq", n->name);
    return 0;
}

void dnsmasq_remove_files(const struct network *n, const struct hostnet_dirs *dirs, bool forget)
{
    static const char *const suffixes[] = {"conf", "hosts", "names", "leases"};
    for (unsigned i = 0; i < (forget ? 4u : 3u); i++) {
        autofree char *path = path_of(n, dirs->state, suffixes[i]);
        unlink(path);
    }
}

/* "EXPIRES MAC IP NAME ID", or with an IAID in the MAC's place for IPv6, behind a line "duid …". */
static bool parse_lease(const char *line, struct dnsmasq_lease *l)
{
    char who[64], ip[IPADDR_TEXT_MAX], name[256], id[600];
    long long expires;
    if (sscanf(line, "%lld %63s %45s %255s %599s", &expires, who, ip, name, id) != 5 || ipaddr_parse(ip, &l->ip) < 0)
        return false;
    l->expires = (time_t)expires;
    l->has_mac = !mac_parse(who, l->mac);
    if (!l->has_mac)
        l->iaid = (uint32_t)strtoul(*who == 'T' ? who + 1 : who, NULL, 10);
    if (strcmp(name, "*"))
        snprintf(l->name, sizeof l->name, "%s", name);
    if (strcmp(id, "*"))
        snprintf(l->id, sizeof l->id, "%s", id);
    if (l->has_mac)
        return true;
    /* A DUID of type 1 or 3 ends with the card's address. */
    size_t len = strlen(l->id);
    if (len >= 17 && (!strncmp(l->id, "00:01:", 6) || !strncmp(l->id, "00:03:", 6)))
        l->has_mac = !mac_parse(l->id + len - 17, l->mac);
    return true;
}

unsigned dnsmasq_leases(const struct network *n, const struct hostnet_dirs *dirs, struct dnsmasq_lease **ret)
{
    autofree char *path = dnsmasq_lease_file(n, dirs), *text = read_text(path);
    unsigned count = 0, room = 0;
    struct dnsmasq_lease *all = NULL;
    time_t now = time(NULL);
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && count < LEASES_MAX) {
        struct dnsmasq_lease l = {0};
        if (!parse_lease(line, &l) || (l.expires && l.expires <= now))
            continue;
        if (count == room) {
            room = room ? room * 2 : 8;
            struct dnsmasq_lease *p = realloc(all, room * sizeof *p);
            if (!p)
                break;
            all = p;
        }
        all[count++] = l;
    }
    *ret = all;
    return count;
}
