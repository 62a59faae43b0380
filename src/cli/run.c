/*
 * `lodge run`: options become a domain, and launch.c starts lodge-vm on it. A domain from a file (--xml) goes the same
 * way. All that can be known to be wrong beforehand is said before anything is started or written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/launch.h"
#include "domain/domain.h"
#include "domain/xml.h"

#define DEFAULT_MEMORY (512 * MIB)
#define DEFAULT_CMDLINE "console=ttyS0"

struct run {
    const struct cli_verb *verb;
    struct domain *d;
    const char *xml, *monitor, *gdb;
    const char *not_with_xml; /* the first option that describes a guest */
    enum domain_engine engine;
    uint64_t chaos;
    bool perf_map;
    bool no_reboot, dry_run, print_xml, no_serial, log_verbose;
};

static bool valid_switch(const char *value, bool *ret)
{
    if (!value || !strcmp(value, "on") || !strcmp(value, "yes"))
        *ret = true;
    else if (!strcmp(value, "off") || !strcmp(value, "no"))
        *ret = false;
    else
        return false;
    return true;
}

static int bad_part(const struct run *r, const char *option, const char *key, const char *value)
{
    return cli_usage(r->verb, "--%s: '%s%s%s' is not understood", option, key, value ? "=" : "", value ? value : "");
}

/* Every set_* takes one option's value into the domain and returns 0 or an exit status. */

static int set_path(char **field, const char *path)
{
    free(*field);
    *field = cli_absolute(path);
    return *field ? 0 : cli_error("the current directory is gone");
}

static int set_kernel(struct run *r, const char *value)
{
    return set_path(&r->d->os.kernel, value);
}

static int set_initrd(struct run *r, const char *value)
{
    return set_path(&r->d->os.initrd, value);
}

static int set_append(struct run *r, const char *value)
{
    domain_set(&r->d->os.cmdline, value);
    return 0;
}

static int set_disk(struct run *r, const char *value)
{
    autofree char *copy = xstrdup(value);
    char *text = copy, *key, *v;
    struct domain_disk *k = DOMAIN_ADD(r->d, disks);
    bool first = true;
    while ((key = cli_next_part(&text, &v))) {
        int n, status = 0;
        if (first && !v && *key)
            status = set_path(&k->source, key);
        else if (!strcmp(key, "path") && v && *v)
            status = set_path(&k->source, v);
        else if (!strcmp(key, "format") && v && *v)
            domain_set(&k->format, v);
        else if (!strcmp(key, "serial") && v)
            domain_set(&k->serial, v);
        else if (!strcmp(key, "cache") && v && (n = domain_cache_find(v)) >= 0)
            k->cache = n;
        else if (!strcmp(key, "readonly") && valid_switch(v, &k->readonly))
            ;
        else if (!strcmp(key, "bus") && v && ((n = domain_bus_find(v)) == DOMAIN_BUS_VIRTIO || n == DOMAIN_BUS_SATA))
            k->bus = n;
        else if (!strcmp(key, "boot_order") && v && !cli_parse_number(v, 1, 65535, &k->boot_order))
            ;
        else if (!strcmp(key, "iothread") && v && !cli_parse_number(v, 0, 64, &k->iothread))
            r->d->iothreads = MAX(r->d->iothreads, k->iothread);
        else
            status = bad_part(r, "disk", key, v);
        if (status)
            return status;
        first = false;
    }
    if (!k->source)
        return cli_usage(r->verb, "--disk %s: path=FILE is missing", value);
    struct stat st;
    if (stat(k->source, &st) == 0 && S_ISBLK(st.st_mode))
        k->type = DOMAIN_DISK_BLOCK;
    return 0;
}

/* tcp:HOSTPORT:GUESTPORT */
static int set_forward(struct domain_interface *i, const char *value)
{
    autofree char *copy = xstrdup(value);
    char *save, *proto = strtok_r(copy, ":", &save), *host = strtok_r(NULL, ":", &save);
    char *guest = strtok_r(NULL, ":", &save);
    unsigned from, to;
    if (!proto || !host || !guest || strtok_r(NULL, ":", &save) || (strcmp(proto, "tcp") && strcmp(proto, "udp")) ||
        cli_parse_number(host, 1, 65535, &from) || cli_parse_number(guest, 1, 65535, &to))
        return -EINVAL;
    struct domain_port_forward *f = DOMAIN_ADD(i, forwards);
    domain_set(&f->proto, proto);
    struct domain_port_range *p = DOMAIN_ADD(f, ranges);
    p->start = from;
    p->to = to;
    return 0;
}

static int parse_mac(const char *s, struct domain_interface *i)
{
    for (int k = 0; k < 6; k++, s += 3) {
        static const char digits[] = "0123456789abcdefABCDEF";
        if (strspn(s, digits) < 2 || s[2] != (k < 5 ? ':' : 0))
            return -EINVAL;
        i->mac[k] = strtoul((char[]){s[0], s[1], 0}, NULL, 16);
    }
    i->has_mac = true;
    return 0;
}

static int set_net(struct run *r, const char *value)
{
    autofree char *copy = xstrdup(value);
    char *text = copy, *v, *key = cli_next_part(&text, &v);
    if (!strcmp(key, "none") && !v && !text)
        return 0;
    struct domain_interface *i = DOMAIN_ADD(r->d, interfaces);
    if (!strcmp(key, "user") && !v) {
        i->type = DOMAIN_NET_USER;
        domain_set(&i->type_name, "user");
    } else if (!strcmp(key, "tap") && v && *v) {
        i->type = DOMAIN_NET_ETHERNET;
        domain_set(&i->type_name, "ethernet");
        domain_set(&i->target, v);
        i->target_managed = DOMAIN_OFF;
    } else {
        return cli_usage(r->verb, "--net: '%s' is none of user, tap=NAME and none", value);
    }
    while ((key = cli_next_part(&text, &v))) {
        if (!strcmp(key, "mac") && v && !parse_mac(v, i))
            continue;
        if (!strcmp(key, "queues") && v && !cli_parse_number(v, 1, 256, &i->queues))
            continue;
        if (!strcmp(key, "forward") && v && i->type == DOMAIN_NET_USER && !set_forward(i, v))
            continue;
        return bad_part(r, "net", key, v);
    }
    return 0;
}

static int set_cpus(struct run *r, const char *value)
{
    if (cli_parse_number(value, 1, 255, &r->d->vcpus))
        return cli_usage(r->verb, "--cpus: '%s' is not a number from 1 to 255", value);
    return 0;
}

static int set_memory(struct run *r, const char *value)
{
    if (cli_parse_size(value, MIB, &r->d->memory) || !r->d->memory)
        return cli_usage(r->verb, "--memory: '%s' is not a size, such as 512M, 2G or 768 (MiB)", value);
    return 0;
}

static int set_engine(struct run *r, const char *value)
{
    int e = domain_engine_find(value);
    if (e < 0)
        return cli_usage(r->verb, "--engine: '%s' is none of auto, kvm and soft", value);
    r->engine = e;
    return 0;
}

static int set_chaos(struct run *r, const char *value)
{
    char *end;
    errno = 0;
    r->chaos = strtoull(value, &end, 0);
    if (*end || end == value || errno || !r->chaos || r->chaos > INT64_MAX)
        return cli_usage(r->verb, "--engine-chaos: '%s' is not a number from 1 on", value);
    return 0;
}

static int set_perf_map(struct run *r, const char *value)
{
    r->perf_map = true;
    return 0;
}

static int set_cpu(struct run *r, const char *value)
{
    autofree char *copy = xstrdup(value);
    char *text = copy, *v, *key = cli_next_part(&text, &v);
    struct domain_cpu *cpu = &r->d->cpu;
    if (!*key || v)
        return cli_usage(r->verb, "--cpu: '%s' is not a CPU model", value);
    if (!strcmp(key, "host")) {
        cpu->mode = DOMAIN_CPU_HOST_PASSTHROUGH;
    } else if (!strcmp(key, "max")) {
        cpu->mode = DOMAIN_CPU_MAXIMUM;
    } else {
        cpu->mode = DOMAIN_CPU_CUSTOM;
        domain_set(&cpu->match, "exact");
        domain_set(&cpu->model, key);
    }
    while ((key = cli_next_part(&text, &v))) {
        if (v || (*key != '+' && *key != '-') || !key[1])
            return cli_usage(r->verb, "--cpu: '%s' is neither +FEATURE nor -FEATURE", key);
        struct domain_cpu_feature *f = DOMAIN_ADD(cpu, features);
        f->on = *key == '+';
        domain_set(&f->name, key + 1);
        domain_set(&f->policy, f->on ? "require" : "disable");
    }
    return 0;
}

static int set_serial(struct run *r, const char *value)
{
    static const char *const names[] = {"stdio", "pty", "null"};
    autofree char *copy = xstrdup(value);
    char *text = copy, *v, *key = cli_next_part(&text, &v);
    if (!strcmp(value, "none")) {
        r->no_serial = true;
        return 0;
    }
    struct domain_serial *s = DOMAIN_ADD(r->d, serials);
    s->port = r->d->n_serials - 1;
    s->chardev.type = DOMAIN_CHARDEV_OTHER;
    for (unsigned i = 0; !v && i < ARRAY_SIZE(names); i++)
        if (!strcmp(names[i], key))
            s->chardev.type = domain_chardev_find(key);
    if (v && *v && (!strcmp(key, "file") || !strcmp(key, "unix"))) {
        s->chardev.type = domain_chardev_find(key);
        int status = set_path(&s->chardev.path, v);
        if (status)
            return status;
    }
    if (s->chardev.type == DOMAIN_CHARDEV_OTHER)
        return cli_usage(r->verb, "--serial: '%s' is none of stdio, file=FILE, unix=FILE, pty, null and none", value);
    while ((key = cli_next_part(&text, &v)))
        if (s->chardev.type != DOMAIN_CHARDEV_FILE || strcmp(key, "append") || !valid_switch(v, &s->chardev.append))
            return bad_part(r, "serial", key, v);
    return 0;
}

static int set_share(struct run *r, const char *value)
{
    autofree char *copy = xstrdup(value);
    char *text = copy, *v, *key = cli_next_part(&text, &v);
    struct domain_filesystem *f = DOMAIN_ADD(r->d, filesystems);
    if (!*key || v)
        return cli_usage(r->verb, "--share: '%s' does not start with a directory", value);
    int status = set_path(&f->source, key);
    if (status)
        return status;
    while ((key = cli_next_part(&text, &v))) {
        if (!strcmp(key, "tag") && v && *v)
            domain_set(&f->target, v);
        else if (strcmp(key, "readonly") || !valid_switch(v, &f->readonly))
            return bad_part(r, "share", key, v);
    }
    if (!f->target)
        f->target = r->d->n_filesystems == 1 ? xstrdup("share") : xasprintf("share%u", r->d->n_filesystems);
    return 0;
}

static int set_cdrom(struct run *r, const char *value)
{
    struct domain_disk *k = DOMAIN_ADD(r->d, disks);
    k->device = DOMAIN_DISK_CDROM;
    k->bus = DOMAIN_BUS_SATA;
    k->readonly = true;
    return set_path(&k->source, value);
}

/* hd, cdrom, network and fd in the order they are tried; uefi or bios; menu[=on|off], nvram=FILE, loader=FILE */
static int set_boot(struct run *r, const char *value)
{
    autofree char *copy = xstrdup(value);
    char *text = copy, *v, *key;
    struct domain_os *os = &r->d->os;
    bool on;
    while ((key = cli_next_part(&text, &v))) {
        int status = 0;
        if (!v && (!strcmp(key, "hd") || !strcmp(key, "cdrom") || !strcmp(key, "network") || !strcmp(key, "fd")))
            *DOMAIN_ADD(os, boot) = xstrdup(key);
        else if (!v && (!strcmp(key, "uefi") || !strcmp(key, "bios")))
            domain_set(&os->firmware, *key == 'u' ? "efi" : "bios");
        else if (!strcmp(key, "menu") && valid_switch(v, &on))
            os->bootmenu = on ? DOMAIN_ON : DOMAIN_OFF;
        else if (!strcmp(key, "nvram") && v && *v)
            status = set_path(&os->nvram, v);
        else if (!strcmp(key, "loader") && v && *v)
            status = set_path(&os->loader, v);
        else
            status = bad_part(r, "boot", key, v);
        if (status)
            return status;
    }
    return 0;
}

/* vnc[,port=N][,listen=ADDRESS][,socket=FILE][,password=TEXT][,websocket=N] | none */
static int set_graphics(struct run *r, const char *value)
{
    autofree char *copy = xstrdup(value);
    char *text = copy, *v, *key = cli_next_part(&text, &v);
    if (!strcmp(key, "none") && !v && !text)
        return 0;
    if (strcmp(key, "vnc") || v)
        return cli_usage(r->verb, "--graphics: '%s' is neither vnc nor none", value);
    struct domain_graphics *g = DOMAIN_ADD(r->d, graphics);
    domain_set(&g->type, "vnc");
    while ((key = cli_next_part(&text, &v))) {
        unsigned n;
        if (!strcmp(key, "port") && v && !cli_parse_number(v, 1, 65535, &n))
            g->port = (int)n;
        else if (!strcmp(key, "websocket") && v && !cli_parse_number(v, 1, 65535, &n))
            g->websocket = (int)n;
        else if (!strcmp(key, "listen") && v && *v)
            domain_set(&g->listen, v);
        else if (!strcmp(key, "password") && v)
            domain_set(&g->passwd, v);
        else if (!strcmp(key, "socket") && v && *v)
            set_path(&g->socket, v);
        else
            return bad_part(r, "graphics", key, v);
    }
    return 0;
}

static int set_video(struct run *r, const char *value)
{
    struct domain_video *v = DOMAIN_ADD(r->d, videos);
    domain_set(&v->model, value);
    return 0;
}

static int set_monitor(struct run *r, const char *value)
{
    if (strncmp(value, "unix=", 5) || !value[5])
        return cli_usage(r->verb, "--monitor: '%s' is not unix=FILE", value);
    r->monitor = value;
    return 0;
}

static int set_gdb(struct run *r, const char *value)
{
    if ((strncmp(value, "unix=", 5) || !value[5]) && (strncmp(value, "tcp=", 4) || !value[4]))
        return cli_usage(r->verb, "--gdb: '%s' is not tcp=[HOST:]PORT or unix=FILE", value);
    r->gdb = value;
    return 0;
}

static int set_machine(struct run *r, const char *value)
{
    if (strcmp(value, "q35") && strcmp(value, "micro") && strcmp(value, "microvm"))
        return cli_usage(r->verb, "--machine: '%s' is neither q35 nor micro", value);
    domain_set(&r->d->os.machine, value);
    return 0;
}

static int set_name(struct run *r, const char *value)
{
    domain_set(&r->d->name, value);
    return 0;
}

static int set_no_reboot(struct run *r, const char *value)
{
    r->no_reboot = true;
    return 0;
}

static int set_dry_run(struct run *r, const char *value)
{
    r->dry_run = true;
    return 0;
}

static int set_print_xml(struct run *r, const char *value)
{
    r->print_xml = true;
    return 0;
}

static int set_xml(struct run *r, const char *value)
{
    r->xml = value;
    return 0;
}

static int set_verbose(struct run *r, const char *value)
{
    r->log_verbose = true;
    return 0;
}

const struct cli_option cli_run_options[] = {
    {"kernel", CLI_FILE, "FILE", "kernel: a Linux bzImage, an ELF with a PVH note, or Multiboot"},
    {"initrd", CLI_FILE, "FILE", "initial RAM disk for the kernel"},
    {"append", CLI_TEXT, "TEXT", "kernel command line (default: " DEFAULT_CMDLINE ")"},
    {"disk", CLI_FILE, "path=FILE[,KEY=VALUE]...", "add a disk; keys are listed below", NULL, true},
    {"net", CLI_WORDS, "user|tap=NAME|none", "add a network interface (default: none)", "user tap= none", true},
    {"cpus", CLI_TEXT, "N", "number of vCPUs (default: 1)"},
    {"memory", CLI_TEXT, "SIZE", "guest memory: 512M, 2G; a bare number is MiB (default: 512M)"},
    {"engine", CLI_WORDS, "auto|kvm|soft", "what executes the guest (default: auto)", "auto kvm soft"},
    {"engine-chaos", CLI_TEXT, "SEED", "soft: change between interpreter and translator at random"},
    {"perf-map", CLI_FLAG, NULL, "soft: write /tmp/perf-PID.map, so that perf shows guest code"},
    {"cpu", CLI_WORDS, "MODEL[,+F][,-F]...", "CPU model: host, max or a name; features on and off", "host max"},
    {"serial", CLI_WORDS, "WHERE", "add a serial port: stdio, file=FILE, unix=FILE, pty, null, none (default: stdio)",
     "stdio file= unix= pty null none", true},
    {"share", CLI_DIR, "DIR[,tag=T][,readonly]", "share a directory with the guest (9p)", NULL, true},
    {"cdrom", CLI_FILE, "FILE", "add a CD drive with this image", NULL, true},
    {"boot", CLI_WORDS, "WHAT[,WHAT]...", "boot order and firmware: hd, cdrom, network, uefi, bios, menu, …",
     "hd cdrom network uefi bios menu nvram= loader="},
    {"graphics", CLI_WORDS, "vnc[,KEY=VALUE]...|none", "show the screen by VNC (default: none)", "vnc none"},
    {"video", CLI_WORDS, "vga|virtio|none", "the display device (default: vga with --graphics)", "vga virtio none"},
    {"monitor", CLI_WORDS, "unix=FILE", "serve the monitor protocol (QMP) on a socket", "unix="},
    {"gdb", CLI_WORDS, "tcp=[HOST:]PORT|unix=FILE", "let gdb debug the guest", "tcp= unix="},
    {"machine", CLI_WORDS, "q35|micro", "the board (default: q35)", "q35 micro"},
    {"name", CLI_TEXT, "NAME", "name of the guest (default: guest)"},
    {"no-reboot", CLI_FLAG, NULL, "end when the guest reboots"},
    {"xml", CLI_FILE, "FILE", "run the guest described by a libvirt domain document"},
    {"print-xml", CLI_FLAG, NULL, "print the guest's domain document and start nothing"},
    {"dry-run", CLI_FLAG, NULL, "check everything and start nothing"},
    {"verbose", CLI_FLAG, NULL, "say more about what goes on"},
    {NULL},
};

const char *const cli_run_notes[] = {
    "Keys of --disk: format=raw, readonly=on, cache=none|writethrough|writeback|directsync|unsafe,",
    "  serial=TEXT, iothread=N, bus=virtio|sata, boot_order=N. Keys of --net: mac=MAC, queues=N, forward=tcp|udp:HOSTPORT:GUESTPORT.",
    "  A comma inside a value is written twice.",
    "On a terminal, Ctrl-A x ends the guest and Ctrl-A ? shows the other keys.",
    "Exit status: 0 the guest powered off, 1 error, 2 wrong usage, 3 guest panic, 4 triple fault.",
    NULL,
};

/* In the order of the options above; what `plain` says describes no guest and goes with --xml. */
static const struct {
    int (*set)(struct run *r, const char *value);
    bool plain;
} setters[] = {
    {set_kernel},
    {set_initrd},
    {set_append},
    {set_disk},
    {set_net},
    {set_cpus},
    {set_memory},
    {set_engine, true},
    {set_chaos, true},
    {set_perf_map, true},
    {set_cpu},
    {set_serial, true},
    {set_share},
    {set_cdrom},
    {set_boot},
    {set_graphics},
    {set_video},
    {set_monitor, true},
    {set_gdb, true},
    {set_machine},
    {set_name, true},
    {set_no_reboot, true},
    {set_xml, true},
    {set_print_xml, true},
    {set_dry_run, true},
    {set_verbose, true},
};
_Static_assert(ARRAY_SIZE(cli_run_options) == ARRAY_SIZE(setters) + 1, "one setter for each option");

static int set_option(void *opaque, const struct cli_option *o, const char *value)
{
    struct run *r = opaque;
    unsigned index = o - cli_run_options;
    if (value && !*value)
        return cli_usage(r->verb, "--%s: the value is empty", o->name);
    if (value && !xml_valid_text(value))
        return cli_usage(r->verb, "--%s: the value is not UTF-8 text", o->name);
    if (!setters[index].plain && !r->not_with_xml)
        r->not_with_xml = o->name;
    return setters[index].set(r, value);
}

/* What `lodge run` gives a guest that was described by options. */
static void complete(struct run *r)
{
    struct domain *d = r->d;
    if (!d->name)
        domain_set(&d->name, "guest");
    if (!d->memory)
        d->memory = DEFAULT_MEMORY;
    if (!d->os.cmdline && d->os.kernel)
        domain_set(&d->os.cmdline, DEFAULT_CMDLINE);
    if (!d->n_serials && !r->no_serial) {
        DOMAIN_ADD(d, serials)->chardev.type = DOMAIN_CHARDEV_STDIO;
    }
    DOMAIN_ADD(d, rngs);
    DOMAIN_ADD(d, panics);
    d->engine = DOMAIN_ENGINE_AUTO;
}

/* --serial with --xml: instead of the ports that the document has. */
static void replace_serials(struct domain *d, struct domain *options)
{
    struct domain_serial *old = d->serials;
    unsigned n = d->n_serials;
    d->serials = options->serials;
    d->n_serials = options->n_serials;
    options->serials = old;
    options->n_serials = n;
    /* The first console may be another name for the first port. */
    if (d->n_consoles && d->consoles[0].target == DOMAIN_CONSOLE_SERIAL) {
        *DOMAIN_ADD(options, consoles) = d->consoles[0];
        memmove(d->consoles, d->consoles + 1, --d->n_consoles * sizeof *d->consoles);
    }
}

static void warn_unknown(void *opaque, int line, const char *path)
{
    const char *file = opaque;
    fprintf(stderr, "lodge: %s:%d: note: %s has no effect\n", file, line, path);
}

static int check_file(const char *what, const char *path, int mode, bool block, struct err *err)
{
    struct stat st;
    if (stat(path, &st) < 0 || access(path, mode) < 0)
        return err_errno(err, -errno, "%s %s", what, path);
    if (S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "%s %s: is a directory", what, path);
    if (!S_ISREG(st.st_mode) && !(block && S_ISBLK(st.st_mode)))
        return err_set(err, -EINVAL, "%s %s: is not a regular file%s", what, path, block ? " or block device" : "");
    return 0;
}

/* Is everything there that the guest needs? lodge-vm finds out too, but later, when output files may be gone already.
 */
static int check_host(const struct domain *d, struct err *err)
{
    int c;
    if (d->os.kernel && (c = check_file("kernel", d->os.kernel, R_OK, false, err)))
        return c;
    if (d->os.initrd && (c = check_file("initrd", d->os.initrd, R_OK, false, err)))
        return c;
    for (unsigned i = 0; i < d->n_disks; i++)
        if (d->disks[i].source &&
            (c = check_file("disk", d->disks[i].source, d->disks[i].readonly ? R_OK : R_OK | W_OK, true, err)))
            return c;
    for (unsigned i = 0; i < d->n_filesystems; i++) {
        struct stat st;
        const char *dir = d->filesystems[i].source;
        if (stat(dir, &st) < 0)
            return err_errno(err, -errno, "shared directory %s", dir);
        if (!S_ISDIR(st.st_mode))
            return err_set(err, -ENOTDIR, "shared directory %s: is not a directory", dir);
    }
    return 0;
}

static int run_domain(struct run *r)
{
    struct err err = {0};
    if (r->xml && r->not_with_xml)
        return cli_usage(r->verb, "--xml describes the whole guest; --%s cannot be added", r->not_with_xml);
    if (!r->xml && !r->d->os.kernel && !r->d->n_disks && !r->d->os.firmware)
        return cli_usage(r->verb, "nothing to start: --kernel, --disk or --xml is missing");
    if (r->xml) {
        struct domain *d;
        if (domain_parse_file(r->xml, &d, &err))
            return cli_error("%s", err.msg);
        if (r->d->name)
            domain_set(&d->name, r->d->name);
        if (r->d->n_serials || r->no_serial)
            replace_serials(d, r->d);
        domain_free(r->d);
        r->d = d;
        domain_each_unknown(d, warn_unknown, (void *)r->xml);
    } else {
        complete(r);
    }
    if (r->engine)
        r->d->engine = r->engine;
    if (r->chaos)
        r->d->engine_chaos = r->chaos;
    if (r->perf_map)
        r->d->engine_perf_map = true;
    if (r->no_reboot)
        r->d->on_reboot = DOMAIN_ACTION_DESTROY;
    domain_defaults(r->d);
    if (domain_check(r->d, r->xml, &err))
        return cli_error("%s", err.msg);
    autofree char *document = domain_format(r->d);
    if (r->print_xml) {
        fputs(document, stdout);
        return CLI_OK;
    }
    if (check_host(r->d, &err))
        return cli_error("%s", err.msg);
    if (r->dry_run)
        return CLI_OK;
    return launch(document, r->monitor, r->gdb, r->log_verbose);
}

int cli_run(const struct cli_verb *verb, int argc, char **argv)
{
    struct run r = {.verb = verb, .d = domain_new()};
    int status;
    if (!cli_parse(verb, argc, argv, set_option, &r, &status))
        status = run_domain(&r);
    domain_free(r.d);
    return status;
}
