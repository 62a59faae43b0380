/* Verbs that virsh does not have: top, logs, doctor. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "cli/session.h"

/* What a guest had used at one time. */
struct usage {
    rp_uuid uuid;
    char *name;
    int id, state;
    unsigned long long cpu, memory, vcpus, read, written, received, sent; /* ns, KiB, number, bytes */
};

struct sample {
    struct usage *v;
    unsigned n;
    double when; /* seconds */
};

static void sample_free(struct sample *s)
{
    for (unsigned i = 0; i < s->n; i++)
        free(s->v[i].name);
    free(s->v);
    *s = (struct sample){0};
}

/* The sum over a guest's disks or interfaces: "block.0.rd.bytes" and so on. */
static unsigned long long sum(const rp_stats_record *r, const char *kind, const char *field)
{
    unsigned long long all = 0;
    size_t kind_len = strlen(kind);
    for (unsigned i = 0; i < r->params.params_len; i++) {
        const rp_param *p = &r->params.params_val[i];
        const char *dot = !strncmp(p->field, kind, kind_len) ? strchr(p->field + kind_len, '.') : NULL;
        if (dot && !strcmp(dot + 1, field) && p->value.type == RP_ULLONG)
            all += p->value.rp_value_u.ul;
    }
    return all;
}

static bool take_sample(struct vsh *v, struct sample *ret)
{
    const rp_all_stats_args args = {.stats = 1 | 2 | 4 | 8 | 16 | 32, .flags = 1};
    rp_all_stats s;
    struct timespec t;
    *ret = (struct sample){0};
    if (!vsh_call(v, RPC_PROC_CONNECT_GET_ALL_DOMAIN_STATS, &args, &s))
        return false;
    clock_gettime(CLOCK_MONOTONIC, &t);
    ret->when = t.tv_sec + t.tv_nsec / 1e9;
    ret->v = xcalloc(s.records.records_len + 1, sizeof(*ret->v));
    for (unsigned i = 0; i < s.records.records_len; i++) {
        const rp_stats_record *r = &s.records.records_val[i];
        const rp_param *p = r->params.params_val;
        unsigned n = r->params.params_len;
        struct usage *u = &ret->v[ret->n++];
        unsigned long long state = 0;
        u->uuid = r->dom.uuid;
        u->name = xstrdup(r->dom.name);
        u->id = r->dom.id;
        rpc_param_u64(p, n, "state.state", &state);
        u->state = state;
        rpc_param_u64(p, n, "cpu.time", &u->cpu);
        if (!rpc_param_u64(p, n, "balloon.rss", &u->memory))
            rpc_param_u64(p, n, "balloon.current", &u->memory);
        rpc_param_u64(p, n, "vcpu.current", &u->vcpus);
        u->read = sum(r, "block.", "rd.bytes");
        u->written = sum(r, "block.", "wr.bytes");
        u->received = sum(r, "net.", "rx.bytes");
        u->sent = sum(r, "net.", "tx.bytes");
    }
    client_result_free(RPC_PROC_CONNECT_GET_ALL_DOMAIN_STATS, &s);
    return true;
}

static char *rate(unsigned long long now, unsigned long long before, double seconds)
{
    const char *unit;
    double value = pretty_size(now > before && seconds > 0 ? (now - before) / seconds : 0, &unit);
    return xasprintf("%.1f %s/s", value, unit);
}

static void print_sample(struct vsh *v, const struct sample *now, const struct sample *before)
{
    autotable t =
        vsh_table_new("Id", "Name", "State", "CPU %", "vCPUs", "Memory", "Read", "Written", "Received", "Sent", NULL);
    double seconds = before->n || before->when > 0 ? now->when - before->when : 0;
    for (unsigned i = 0; i < now->n; i++) {
        const struct usage *u = &now->v[i], *old = u;
        for (unsigned k = 0; k < before->n; k++)
            if (!memcmp(&before->v[k].uuid, &u->uuid, sizeof(u->uuid)) && before->v[k].id == u->id)
                old = &before->v[k];
        char id[16], cpu[24], vcpus[24];
        const char *unit;
        double memory = pretty_size(u->memory * 1024, &unit);
        snprintf(id, sizeof(id), "%d", u->id);
        snprintf(cpu, sizeof(cpu), "%.1f",
                 seconds > 0 && u->cpu > old->cpu ? (u->cpu - old->cpu) / seconds / 1e7 : 0.0);
        snprintf(vcpus, sizeof(vcpus), "%llu", u->vcpus);
        autofree char *size = xasprintf("%.1f %s", memory, unit);
        autofree char *read = rate(u->read, old->read, seconds), *written = rate(u->written, old->written, seconds);
        autofree char *received = rate(u->received, old->received, seconds), *sent = rate(u->sent, old->sent, seconds);
        vsh_table_row(t, id, u->name, dom_state_text(u->state), cpu, vcpus, size, read, written, received, sent);
    }
    vsh_table_print(v, t);
    fflush(stdout);
}

bool cmd_top(struct vsh *v, const struct vsh_args *a)
{
    unsigned delay = 2, count = 0;
    if (!vsh_uint(v, a, "delay", &delay) || !vsh_uint(v, a, "count", &count))
        return false;
    bool screen = isatty(STDOUT_FILENO) && !v->json;
    if (!screen && !count)
        count = 1;
    struct sample before = {0}, now = {0};
    if (!take_sample(v, &before))
        return false;
    bool ok = true;
    for (unsigned i = 0; ok && (!count || i < count); i++) {
        /* The first rates are those of a short while, so that there is something to see at once. */
        struct pollfd key = {screen ? STDIN_FILENO : -1, POLLIN, 0};
        if (poll(&key, 1, i == 0 ? 500 : (int)(delay ? delay : 1) * 1000) > 0)
            break; /* Enter leaves */
        if (!(ok = take_sample(v, &now)))
            break;
        if (screen)
            printf("\033[H\033[2J%s: guests that run, every %u s; Enter leaves\n\n", client_uri(v->conn), delay);
        print_sample(v, &now, &before);
        sample_free(&before);
        before = now;
        now = (struct sample){0};
    }
    sample_free(&before);
    return ok;
}

/* Where the guest's log is: the daemon's folder of logs. The caller frees it; NULL: it is in none. */
static char *log_path(struct vsh *v, const char *name)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool session = strstr(client_uri(v->conn), "/session") != NULL;
    autofree char *base = cache && *cache ? xstrdup(cache) : xasprintf("%s/.cache", home ? home : "");
    /* A daemon with a root of its own keeps logs beside its run directory: ROOT/run/lodge/lodge-sock. */
    const char *socket = client_socket(v->conn), *run = strstr(socket, "/run/lodge/");
    autofree char *root = run ? xasprintf("%.*s", (int)(run - socket), socket) : xstrdup("");
    char *paths[] = {
        session ? xasprintf("%s/lodge/log/%s.log", base, name) : xasprintf("%s/var/log/lodge/%s.log", root, name),
        xasprintf("%s/lodge/log/%s.log", base, name),
        xasprintf("/var/log/libvirt/qemu/%s.log", name),
    };
    char *found = NULL;
    for (unsigned i = 0; i < 3; i++) {
        if (!found && access(paths[i], R_OK) == 0)
            found = paths[i];
        else
            free(paths[i]);
    }
    return found;
}

/* Where the last `lines` lines begin. */
static off_t last_lines(int fd, unsigned lines)
{
    off_t at = lseek(fd, 0, SEEK_END);
    char buf[4096];
    bool first = true;
    while (at > 0) {
        size_t n = at < (off_t)sizeof(buf) ? (size_t)at : sizeof(buf);
        if (fd_pread_full(fd, buf, n, at - n) < 0)
            return 0;
        for (size_t i = n; i-- > 0;) {
            if (buf[i] == '\n' && !first && lines-- == 1)
                return at - n + i + 1;
            first = false;
        }
        at -= n;
    }
    return 0;
}

/* Prints what is in the file from `at` on; control characters, but those of text, as '?'. */
static off_t print_from(int fd, off_t at)
{
    char buf[65536];
    ssize_t n;
    while ((n = pread(fd, buf, sizeof(buf), at)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            if (iscntrl((unsigned char)buf[i]) && buf[i] != '\n' && buf[i] != '\t')
                buf[i] = '?';
        fwrite(buf, 1, n, stdout);
        at += n;
    }
    fflush(stdout);
    return at;
}

bool cmd_logs(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    unsigned lines = 0;
    if (!vsh_uint(v, a, "lines", &lines) || !vsh_domain(v, a, &dom))
        return false;
    autofree char *path = log_path(v, dom.name);
    autofd int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return vsh_error(v, "there is no log of domain '%s' that can be read", dom.name);
    off_t at = print_from(fd, lines ? last_lines(fd, lines) : 0);
    while (vsh_has(a, "follow") && !ferror(stdout)) {
        struct stat now, ours;
        nanosleep(&(struct timespec){0, 250000000}, NULL);
        at = print_from(fd, at);
        /* A full log is renamed, and a new one begun. */
        if (stat(path, &now) == 0 && fstat(fd, &ours) == 0 && now.st_ino != ours.st_ino) {
            int next = open(path, O_RDONLY | O_CLOEXEC);
            if (next >= 0) {
                close(fd);
                fd = next;
                at = 0;
            }
        }
        /* The daemon is not needed, but should not think us dead. */
        if (client_poll(v->conn, 0, &v->error) < 0)
            vsh_error_reset(v);
    }
    return true;
}

enum result { PASS, WARN, FAIL };

static void tell(unsigned *worst, const char *what, enum result r, const char *advice)
{
    static const char *const words[] = {"PASS", "WARN", "FAIL"};
    printf("  %-52s: %s%s%s%s\n", what, words[r], r ? " (" : "", r ? advice : "", r ? ")" : "");
    if (r > *worst)
        *worst = r;
}

static bool in_path(const char *program)
{
    const char *path = getenv("PATH");
    autofree char *dirs = xasprintf("%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
    char *save = NULL;
    for (char *d = strtok_r(dirs, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
        autofree char *file = xasprintf("%s/%s", d, program);
        if (access(file, X_OK) == 0)
            return true;
    }
    return false;
}

static bool file_has(const char *path, const char *word)
{
    char buf[65536];
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);
    if (n < 0)
        return false;
    buf[n] = 0;
    return strstr(buf, word) != NULL;
}

bool cmd_doctor(struct vsh *v, const struct vsh_args *a)
{
    unsigned worst = PASS;
    bool root = geteuid() == 0;
    bool cpu = file_has("/proc/cpuinfo", " vmx") || file_has("/proc/cpuinfo", " svm");
    tell(&worst, "hardware virtualization", cpu ? PASS : WARN,
         "the CPU does not show it: guests run on the software engine; switch it on in the firmware, or nested for a "
         "guest");
    bool there = access("/dev/kvm", F_OK) == 0, usable = access("/dev/kvm", R_OK | W_OK) == 0;
    tell(&worst, "/dev/kvm is there", there ? PASS : WARN,
         "load kvm_intel or kvm_amd; until then the software engine runs guests");
    if (there)
        tell(&worst, "/dev/kvm can be used", usable ? PASS : WARN, "become a member of the group kvm");
    tell(&worst, "/dev/net/tun", access("/dev/net/tun", F_OK) == 0 ? PASS : WARN,
         "load tun, for guests on bridges and networks");
    tell(&worst, "/dev/vhost-net", access("/dev/vhost-net", F_OK) == 0 ? PASS : WARN,
         "load vhost_net, for faster networks; without it packets go by lodge-vm");
    tell(&worst, "passt, for networks without root", in_path("passt") ? PASS : WARN, "install the package passt");
    tell(&worst, "dnsmasq, for addresses in virtual networks", in_path("dnsmasq") ? PASS : WARN,
         "install the package dnsmasq-base");
    tell(&worst, "nft, for address translation", in_path("nft") ? PASS : WARN, "install the package nftables");
    tell(&worst, "cgroups, for limits", access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ? PASS : WARN,
         "cgroup v2 is not mounted at /sys/fs/cgroup: only some limits work");
    tell(&worst, "huge pages", !file_has("/proc/meminfo", "HugePages_Total:       0") ? PASS : WARN,
         "none reserved: set vm.nr_hugepages, if guests are to have them");
    tell(&worst, "IOMMU, for host devices in guests",
         access("/sys/class/iommu", F_OK) == 0 && access("/sys/kernel/iommu_groups/0", F_OK) == 0 ? PASS : WARN,
         "boot with intel_iommu=on, if guests are to have them");
    tell(&worst, "osinfo-db, for lodge install --osinfo", access("/usr/share/osinfo/os", F_OK) == 0 ? PASS : WARN,
         "install the package osinfo-db");
    autofree char *vm = session_program("lodge-vm"), *daemon = session_program("lodged");
    tell(&worst, "lodge-vm", strchr(vm, '/') || in_path(vm) ? PASS : FAIL, "it is not beside lodge, and not in PATH");
    tell(&worst, "lodged", strchr(daemon, '/') || in_path(daemon) ? PASS : FAIL,
         "it is not beside lodge, and not in PATH");
    const struct client_options o = {.readonly = true};
    struct client *c = NULL;
    struct rpc_error e = {0};
    bool answers = client_open(client_default_uri(v->uri), &o, &c, &e) == 0;
    autofree char *advice =
        xasprintf("%s; start it: %s", e.message,
                  root ? "systemctl start lodged.socket, or lodged &" : "it starts with the first verb");
    tell(&worst, "the daemon answers", answers ? PASS : WARN, advice);
    if (answers)
        client_close(c);
    return worst != FAIL;
}
