/* `lodge install`: virt-install's options and the life of an installation. See install.h. */
#include "cli/install.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/dom.h"
#include "cli/session.h"

bool install_error(const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fputs("ERROR    ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return false;
}

void install_warn(const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fputs("WARNING  ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

enum kind { TEXT, LIST, OTHER, FLAG, WAIT, IGNORED };
#define AT(member) offsetof(struct install, member)
/* virt-install's options, and where each is kept. Those that take an optional value have it only after '='. */
static const struct {
    const char *name;
    char letter;
    enum kind kind;
    size_t at;
    bool optional;
    const char *arg, *help;
} options[] = {
    {"name", 'n', TEXT, AT(name), false, "NAME", "the guest's name"},
    {"memory", 0, TEXT, AT(memory), false, "SIZE", "its memory, in MiB or with a unit"},
    {"ram", 'r', TEXT, AT(memory), false, "SIZE", "the same"},
    {"vcpus", 0, TEXT, AT(vcpus), false, "N", "its vCPUs: 2, or sockets=1,cores=2,threads=1, maxvcpus=8"},
    {"cpu", 0, TEXT, AT(cpu), false, "MODEL", "what CPU it sees: host-passthrough, host-model, a model with +feature"},
    {"metadata", 0, TEXT, AT(metadata), false, "KEYS", "title=, description=, uuid="},
    {"description", 0, TEXT, AT(description), false, "TEXT", "what it is for"},
    {"uuid", 'u', TEXT, AT(uuid), false, "UUID", "its UUID"},
    {"xml", 0, LIST, AT(xml), false, "XPATH=VALUE", "change the document in the end"},
    {"disk", 0, LIST, AT(disk), false, "KEYS", "a disk: size=20, path=, format=, vol=POOL/VOLUME, bus=, device=, ..."},
    {"network", 'w', LIST, AT(network), false, "KEYS", "an interface: default, user, bridge=BR, network=NET, none"},
    {"graphics", 0, LIST, AT(graphics), false, "KEYS", "a display: vnc, spice, none"},
    {"video", 0, LIST, AT(video), false, "KEYS", "a graphics adapter: virtio, vga, none"},
    {"console", 0, LIST, AT(console), false, "KEYS", "a text console"},
    {"serial", 0, LIST, AT(serial), false, "KEYS", "a serial port"},
    {"channel", 0, LIST, AT(channel), false, "KEYS", "a channel between guest and host"},
    {"controller", 0, LIST, AT(controller), false, "KEYS", "a controller"},
    {"input", 0, LIST, AT(input), false, "KEYS", "an input device"},
    {"sound", 0, OTHER, 0, true, "MODEL", "a sound device"},
    {"watchdog", 0, OTHER, 0, false, "MODEL", "a watchdog"},
    {"memballoon", 0, OTHER, 0, false, "MODEL", "the balloon"},
    {"rng", 0, OTHER, 0, false, "DEVICE", "a source of randomness"},
    {"tpm", 0, OTHER, 0, false, "KEYS", "a TPM"},
    {"panic", 0, OTHER, 0, false, "MODEL", "a device that tells of panics"},
    {"filesystem", 0, OTHER, 0, false, "KEYS", "a shared directory"},
    {"hostdev", 0, OTHER, 0, false, "DEVICE", "a device of the host"},
    {"vsock", 0, OTHER, 0, false, "KEYS", "a socket between guest and host"},
    {"parallel", 0, OTHER, 0, false, "KEYS", "a parallel port"},
    {"shmem", 0, OTHER, 0, false, "KEYS", "shared memory"},
    {"iommu", 0, OTHER, 0, false, "KEYS", "an IOMMU"},
    {"audio", 0, OTHER, 0, false, "KEYS", "where sound goes"},
    {"redirdev", 0, OTHER, 0, false, "KEYS", "a redirected device"},
    {"smartcard", 0, OTHER, 0, false, "KEYS", "a smart card reader"},
    {"cdrom", 'c', TEXT, AT(cdrom), false, "FILE", "install from this CD image"},
    {"location", 'l', TEXT, AT(location), false, "WHERE", "install from a tree: a directory, CD image or URL"},
    {"pxe", 0, FLAG, AT(pxe), false, NULL, "install from the network"},
    {"import", 0, FLAG, AT(import), false, NULL, "the disk has a system already"},
    {"extra-args", 'x', LIST, AT(extra_args), false, "TEXT", "for the installer's kernel, with --location"},
    {"initrd-inject", 0, LIST, AT(initrd_inject), false, "FILE", "put this file into the installer's RAM disk"},
    {"unattended", 0, TEXT, AT(unattended), true, "KEYS", "(not supported: use --initrd-inject with --extra-args)"},
    {"install", 0, TEXT, AT(install), false, "KEYS", "kernel=, initrd=, kernel_args=, no_install=yes, bootdev="},
    {"cloud-init", 0, TEXT, AT(cloud_init), true, "KEYS", "configure a cloud image: user-data=, root-ssh-key=, ..."},
    {"boot", 0, TEXT, AT(boot), false, "KEYS", "hd,cdrom,network, menu=on, kernel=, initrd=, kernel_args=, uefi"},
    {"os-variant", 0, TEXT, AT(os_variant), false, "NAME", "which system it is; 'list' shows all"},
    {"osinfo", 0, TEXT, AT(os_variant), false, "NAME", "the same"},
    {"os-type", 0, TEXT, AT(os_type), false, "TYPE", "has no effect any more"},
    {"virt-type", 0, TEXT, AT(virt_type), false, "TYPE", "kvm or qemu"},
    {"arch", 0, TEXT, AT(arch), false, "ARCH", "its architecture"},
    {"machine", 0, TEXT, AT(machine), false, "BOARD", "its board"},
    {"features", 0, TEXT, AT(features), false, "KEYS", "acpi=off, kvm_hidden=on, ..."},
    {"clock", 0, TEXT, AT(clock), false, "KEYS", "offset=localtime"},
    {"events", 0, TEXT, AT(events), false, "KEYS", "on_poweroff=, on_reboot=, on_crash="},
    {"iothreads", 0, TEXT, AT(iothreads), false, "N", "I/O threads"},
    {"memorybacking", 0, TEXT, AT(memorybacking), false, "KEYS", "hugepages=on, locked=on"},
    {"memtune", 0, TEXT, AT(memtune), false, "KEYS", "memory limits"},
    {"numatune", 0, TEXT, AT(numatune), false, "NODES", "NUMA placement"},
    {"cputune", 0, TEXT, AT(cputune), false, "KEYS", "CPU placement"},
    {"pm", 0, TEXT, AT(pm), false, "KEYS", "power management"},
    {"seclabel", 0, TEXT, AT(seclabel), false, "KEYS", "security label"},
    {"security", 0, TEXT, AT(seclabel), false, "KEYS", "the same"},
    {"sysinfo", 0, TEXT, AT(sysinfo), false, "KEYS", "SMBIOS data"},
    {"autostart", 0, FLAG, AT(autostart), false, NULL, "start it with the host"},
    {"transient", 0, FLAG, AT(transient), false, NULL, "forget it when it ends"},
    {"destroy-on-exit", 0, FLAG, AT(destroy_on_exit), false, NULL, "stop it when its console is left"},
    {"wait", 0, WAIT, 0, true, "MINUTES", "wait for the installation; for ever without a number"},
    {"autoconsole", 0, TEXT, AT(autoconsole), false, "KIND", "text, graphical or none"},
    {"noautoconsole", 0, FLAG, AT(noautoconsole), false, NULL, "connect to no console"},
    {"noreboot", 0, FLAG, AT(noreboot), false, NULL, "do not start it after the installation"},
    {"print-xml", 0, TEXT, AT(print_xml), true, "1|2|all", "print the document and do nothing"},
    {"dry-run", 0, FLAG, AT(dry_run), false, NULL, "check everything and do nothing"},
    {"check", 0, TEXT, AT(check), false, "KEYS", "path_in_use=off, all=off"},
    {"quiet", 'q', FLAG, AT(quiet), false, NULL, "print errors only"},
    {"hvm", 'v', IGNORED, 0, false, NULL, "it is a whole machine (always)"},
    {"accelerate", 0, IGNORED, 0, false, NULL, "has no effect any more"},
    {"debug", 'd', IGNORED, 0, false, NULL, "has no effect"},
    {"nographics", 0, LIST, AT(graphics), true, NULL, "--graphics none"},
    {"nonetworks", 0, LIST, AT(network), true, NULL, "--network none"},
    {"nodisks", 0, LIST, AT(disk), true, NULL, "--disk none"},
    {"vnc", 0, LIST, AT(graphics), true, NULL, "--graphics vnc"},
    {"connect", 0, TEXT, AT(v.uri), false, "URI", "the daemon"},
};
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static void usage(const char *program)
{
    printf("usage: %s --name NAME --memory MB STORAGE INSTALL [options]\n\nMakes a guest from install media or a disk "
           "image.\n\noptions:\n",
           program);
    for (unsigned i = 0; i < N_OPTIONS; i++) {
        autofree char *left =
            options[i].letter
                ? xasprintf("-%c, --%s %s", options[i].letter, options[i].name, options[i].arg ? options[i].arg : "")
                : xasprintf("--%s %s", options[i].name, options[i].arg ? options[i].arg : "");
        printf("  %-28s %s\n", left, options[i].help);
    }
    puts("  --help, --version\n\nKEYS are key=value pairs with commas between; a key with dots names an element's "
         "attribute:\n"
         "driver.queues=2. A comma inside of a value is written twice.");
}

static bool add(struct install *in, size_t at, const char *value, const char *kind)
{
    const char **list = (const char **)((char *)in + at);
    for (unsigned i = 0; i < INSTALL_REPEAT_MAX; i++)
        if (!list[i]) {
            list[i] = value;
            if (kind)
                in->other_kind[i] = kind;
            return true;
        }
    return install_error("--%s is given too often", kind ? kind : "option");
}

static bool take(struct install *in, unsigned i, const char *value)
{
    const char *name = options[i].name;
    switch (options[i].kind) {
    case FLAG:
        *((bool *)in + options[i].at) = true;
        return true;
    case IGNORED:
        return true;
    case WAIT:
        in->wait = value ? atoi(value) : -1;
        if (in->wait < 0)
            in->wait = -1;
        return true;
    case OTHER:
        return add(in, AT(other), value ? value : "default", name);
    case LIST:
        if (!strncmp(name, "no", 2))
            value = "none";
        else if (!strcmp(name, "vnc"))
            value = "vnc";
        return add(in, options[i].at, value, NULL);
    case TEXT:
        if (!strcmp(name, "print-xml") && !value)
            value = "1";
        if (!strcmp(name, "cloud-init"))
            in->want_cloud_init = true;
        if (!strcmp(name, "unattended"))
            in->want_unattended = true;
        *(const char **)((char *)in + options[i].at) = value ? value : "";
        return true;
    }
    return true;
}

/* 0: go on; else the program ends with *ret_status. */
static int parse(struct install *in, const char *program, int argc, char **argv, int *ret_status)
{
    struct option longs[N_OPTIONS + 3] = {{0}};
    char shorts[2 * N_OPTIONS + 8] = "+:h";
    for (unsigned i = 0; i < N_OPTIONS; i++) {
        bool has = options[i].arg != NULL;
        longs[i] = (struct option){options[i].name,
                                   !has                  ? no_argument
                                   : options[i].optional ? optional_argument
                                                         : required_argument,
                                   NULL, 256 + (int)i};
        if (options[i].letter)
            sprintf(shorts + strlen(shorts), "%c%s", options[i].letter, has ? ":" : "");
    }
    longs[N_OPTIONS] = (struct option){"help", no_argument, NULL, 'h'};
    longs[N_OPTIONS + 1] = (struct option){"version", no_argument, NULL, 255};
    int o;
    opterr = 0;
    optind = 0;
    *ret_status = 1;
    while ((o = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (o == 'h') {
            usage(program);
            *ret_status = 0;
            return -1;
        }
        if (o == 255) {
            puts(LODGE_VERSION);
            *ret_status = 0;
            return -1;
        }
        if (o == '?' || o == ':') {
            fprintf(stderr, "usage: %s --name NAME --memory MB STORAGE INSTALL [options]\n%s: error: %s: %s\n", program,
                    program, o == ':' ? "expected one argument" : "unrecognized arguments", argv[optind - 1]);
            *ret_status = 2;
            return -1;
        }
        unsigned i = o >= 256 ? (unsigned)o - 256 : 0;
        if (o < 256)
            while (i < N_OPTIONS && options[i].letter != o)
                i++;
        const char *value = optarg;
        /* An optional value may stand apart: --wait 5, --print-xml all. */
        if (!value && options[i].optional && options[i].arg && optind < argc && argv[optind][0] != '-')
            value = argv[optind++];
        if (!take(in, i, value))
            return -1;
    }
    if (optind < argc) {
        fprintf(stderr, "%s: error: unrecognized arguments: %s\n", program, argv[optind]);
        *ret_status = 2;
        return -1;
    }
    return 0;
}

/* What must be there, and what does not go together. */
static bool check(struct install *in)
{
    if (in->os_type)
        install_warn("--os-type is deprecated and does nothing. Please stop using it.");
    if (in->want_unattended)
        return install_error(
            "--unattended: there are no installation scripts here; write one and pass it by --initrd-inject "
            "and --extra-args");
    if (in->install) {
        autofree char *spec = xstrdup(in->install);
        char *at = spec, *key, *value;
        while ((key = cli_next_part(&at, &value))) {
            if (!strcmp(key, "no_install"))
                in->import |= value && !strcmp(value, "yes");
            else if (!strcmp(key, "bootdev") && value && !strcmp(value, "network"))
                in->pxe = true;
            else if (!strcmp(key, "kernel") && value)
                in->kernel = xstrdup(value);
            else if (!strcmp(key, "initrd") && value)
                in->initrd = xstrdup(value);
            else if (!strcmp(key, "kernel_args") && value)
                in->args = xstrdup(value);
            else
                return install_error("Unknown --install options: ['%s']", key);
        }
    }
    unsigned methods = !!in->cdrom + !!in->location + in->pxe + in->import + (in->kernel != NULL);
    if (methods > 1)
        return install_error("Only one install method can be used (%s)",
                             "--cdrom, --location, --pxe, --import, --install");
    if (!methods && in->want_cloud_init)
        in->import = true;
    else if (!methods && in->boot)
        in->import = true;
    else if (!methods)
        return install_error("\nAn install method must be specified\n(%s)",
                             "--location URL, --cdrom CD/ISO, --pxe, --import, --boot hd|cdrom|...");
    if (!in->disk[0] && !in->os.storage && !in->boot && !in->pxe)
        return install_error("\n--disk storage must be specified (override with --disk none)");
    if (in->extra_args[0] && !in->location && !in->kernel)
        return install_error("--extra-args only work if specified with --location.");
    if (in->initrd_inject[0] && !in->location)
        return install_error("--initrd-inject only works if specified with --location.");
    struct stat st;
    if (in->cdrom && !strstr(in->cdrom, "://") && stat(in->cdrom, &st) < 0)
        return install_error("Error validating install location: %s: %s", in->cdrom, strerror(errno));
    return true;
}

/* --os-variant: "debian11", "name=...", "detect=on,require=off", "list". 0: go on. */
static int choose_os(struct install *in, int *ret_status)
{
    struct err err = {0};
    const char *name = NULL;
    bool require = !getenv("VIRTINSTALL_OSINFO_DISABLE_REQUIRE");
    *ret_status = 1;
    autofree char *spec = in->os_variant ? xstrdup(in->os_variant) : NULL;
    char *at = spec, *key, *value;
    while (spec && (key = cli_next_part(&at, &value))) {
        if (!strcmp(key, "list") && !value) {
            *ret_status = osinfo_list(&err) < 0 ? (install_error("%s", err.msg), 1) : 0;
            return -1;
        }
        if (!value && strcmp(key, "none") != 0 && strcmp(key, "auto") != 0)
            name = key;
        else if (!strcmp(key, "none"))
            name = "generic";
        else if (value && (!strcmp(key, "name") || !strcmp(key, "short-id") || !strcmp(key, "id")))
            name = value;
        else if (value && !strcmp(key, "require"))
            require = !strcmp(value, "on") || !strcmp(value, "yes");
    }
    if (!name && require && !in->print_xml) {
        install_error(
            "\n--os-variant/--osinfo OS name is required, but no value was\nset or detected.\n\n"
            "This is now a fatal error. Specifying an OS name is required\nfor modern, performant, and secure virtual "
            "machine defaults.\n\nYou can see a full list of possible OS name values with:\n\n"
            "   lodge install --osinfo list\n\nIf your Linux distro is not listed, try one of generic values\n"
            "such as: linux2020, linux2018, linux2016");
        return -1;
    }
    if (osinfo_find(name ? name : "generic", &in->os, &err) < 0) {
        install_error("%s", err.msg);
        return -1;
    }
    if (name && !strcmp(name, "generic"))
        install_warn("Using --osinfo generic, VM performance may suffer. Specify an accurate OS for optimal results.");
    return 0;
}

static bool name_free(struct install *in)
{
    rp_string name = (char *)in->name;
    autodomain dom = {0};
    if (vsh_call(&in->v, RPC_PROC_DOMAIN_LOOKUP_BY_NAME, &name, &dom))
        return install_error("Invalid name for guest: Guest name '%s' is already in use.", in->name);
    bool lost = client_dead(in->v.conn);
    vsh_error_reset(&in->v);
    return !lost;
}

static void hint(struct install *in)
{
    if (!in->quiet)
        printf("You can restart your domain by running:\n  virsh --connect %s start %s\n", client_uri(in->v.conn),
               in->name);
}

/* Waits until the guest has ended; false when the time is over or it is gone. */
static bool wait_shutoff(struct install *in, const rp_domain *dom)
{
    time_t end = time(NULL) + (in->wait > 0 ? in->wait * 60 : 0);
    for (;;) {
        int state = dom_state(&in->v, dom, NULL);
        if (state < 0 || state == DOM_SHUTOFF || state == DOM_CRASHED) {
            vsh_error_reset(&in->v);
            return true;
        }
        if (in->wait >= 0 && time(NULL) >= end)
            return false;
        nanosleep(&(struct timespec){0, 200000000}, NULL);
    }
}

/* Connects to the guest's console, when one is wanted and possible. */
static bool attach_console(struct install *in, const rp_domain *dom)
{
    bool none = in->noautoconsole || (in->autoconsole && !strcmp(in->autoconsole, "none"));
    bool text =
        (in->autoconsole && !strcmp(in->autoconsole, "text")) || (in->graphics[0] && !strcmp(in->graphics[0], "none"));
    if (none || in->wait != INT_MIN)
        return false;
    if (text && isatty(STDIN_FILENO)) {
        printf("Running text console command: virsh --connect %s console %s\n", client_uri(in->v.conn), in->name);
        return vsh_console(&in->v, dom, NULL, 0);
    }
    if (!text && getenv("DISPLAY"))
        printf("The display is at: virt-viewer --connect %s %s\n", client_uri(in->v.conn), in->name);
    return false;
}

/* Starts the guest, and leads it through its installation. */
static bool live(struct install *in, const char *first, const char *after)
{
    struct vsh *v = &in->v;
    bool single = in->import && !in->want_cloud_init;
    if (!in->quiet)
        puts(single ? "Starting install...\nCreating domain..." : "\nStarting install...\nCreating domain...");
    autodomain dom = {0}, defined = {0};
    const rp_str_flags create = {(char *)(single ? after : first), 0};
    rp_string xml = (char *)after;
    bool start = !single || in->transient || !in->noreboot;
    if (start && !vsh_call(v, RPC_PROC_DOMAIN_CREATE_XML, &create, &dom))
        return install_error("%s", v->error.message);
    if (!in->transient && !vsh_call(v, RPC_PROC_DOMAIN_DEFINE_XML, &xml, start ? &defined : &dom))
        return install_error("%s", v->error.message);
    in->started = true;
    const rp_dom_int autostart = {dom, 1};
    if (in->autostart && !in->transient && !vsh_call(v, RPC_PROC_DOMAIN_SET_AUTOSTART, &autostart, NULL))
        return install_error("%s", v->error.message);
    bool attached = attach_console(in, &dom);
    if (attached && in->destroy_on_exit) {
        if (!vsh_call(v, RPC_PROC_DOMAIN_DESTROY, &dom, NULL))
            vsh_error_reset(v);
    }
    if (single || in->transient) {
        if (!in->quiet)
            puts("Domain creation completed.");
        if (in->noreboot || dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, &dom) != 1)
            hint(in);
        vsh_error_reset(v);
        return true;
    }
    if (in->wait == INT_MIN && !attached) {
        if (dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, &dom) == 1) {
            if (!in->quiet)
                puts("\nDomain is still running. Installation may be in progress.\n"
                     "You can reconnect to the console to complete the installation process.");
            return true;
        }
    } else {
        if (!in->quiet && in->wait != INT_MIN)
            puts(in->wait < 0
                     ? "\nDomain is still running. Installation may be in progress.\nWaiting for the installation to "
                       "complete."
                     : "\nDomain is still running. Installation may be in progress.\nWaiting some minutes for the "
                       "installation to complete.");
        fflush(stdout);
        if (in->wait == INT_MIN && dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, &dom) == 1) {
            puts("\nDomain is still running. Installation may be in progress.\n"
                 "You can reconnect to the console to complete the installation process.");
            return true;
        }
        if (!wait_shutoff(in, &dom)) {
            install_error("Installation has exceeded specified time limit. Exiting application.");
            return false;
        }
    }
    vsh_error_reset(v);
    if (!in->quiet && in->wait != INT_MIN)
        puts("Domain has shutdown. Continuing.");
    if (!in->quiet)
        puts("Domain creation completed.");
    if (in->noreboot) {
        hint(in);
        return true;
    }
    if (!in->quiet)
        puts("Restarting guest.");
    if (!vsh_call(v, RPC_PROC_DOMAIN_CREATE, &defined, NULL))
        return install_error("%s", v->error.message);
    return true;
}

static bool work(struct install *in)
{
    if (!install_media(in))
        return false;
    autoxml first = install_document(in, true);
    if (!first)
        return false;
    /* The volumes are there now: the second document names them as the first does. */
    autofree char *first_text = xml_format(first);
    autoxml after = xml_copy(first);
    struct xml_node *os = xml_child(after, "os");
    static const char *const gone[] = {"kernel", "initrd", "cmdline", "boot"};
    for (struct xml_node **link = &os->first; *link && (in->kernel || in->cdrom || in->pxe);) {
        struct xml_node *c = *link;
        bool drop = false;
        for (unsigned i = 0; i < 4; i++)
            drop |= !strcmp(c->name, gone[i]);
        if (drop) {
            *link = c->next;
            c->next = c->parent = NULL;
            xml_free(c);
        } else {
            link = &c->next;
        }
    }
    os->last = NULL;
    for (struct xml_node *c = os->first; c; c = c->next)
        os->last = c;
    if (!xml_child(os, "boot") && !xml_child(os, "kernel"))
        xml_attr_set(xml_node_new(os, "boot", NULL), "dev", "hd");
    struct xml_node *reboot = xml_child(after, "on_reboot");
    if (reboot && (!in->events || !strstr(in->events, "on_reboot"))) {
        free(reboot->text);
        reboot->text = xstrdup("restart");
    }
    struct xml_node *devices = xml_child(after, "devices");
    for (struct xml_node *d = devices->first; d; d = d->next) {
        const struct xml_node *s = xml_child(d, "source");
        const char *file = s ? xml_attr_get(s, "file") : NULL;
        autofree char *cdrom = in->cdrom ? cli_absolute(in->cdrom) : NULL;
        if (strcmp(d->name, "disk") != 0 || !file ||
            !((cdrom && !strcmp(file, cdrom)) || (in->cloud_image && !strcmp(file, in->cloud_image))))
            continue;
        for (struct xml_node **link = &d->first; *link; link = &(*link)->next)
            if (*link == s) {
                struct xml_node *dead = *link;
                *link = dead->next;
                dead->next = dead->parent = NULL;
                xml_free(dead);
                break;
            }
    }
    autofree char *after_text = xml_format(after);
    bool single = in->import && !in->want_cloud_init;
    if (in->print_xml) {
        if (strcmp(in->print_xml, "2") != 0)
            fputs(single ? after_text : first_text, stdout);
        if (!single && (!strcmp(in->print_xml, "2") || !strcmp(in->print_xml, "all")))
            fputs(after_text, stdout);
        else if (single && !strcmp(in->print_xml, "2"))
            return install_error("Requested installation does not have XML step 2");
        return true;
    }
    if (in->dry_run) {
        if (!in->quiet)
            puts("Dry run completed successfully");
        return true;
    }
    return live(in, first_text, after_text);
}

/* Removes the images that were made for a guest that did not come to be. */
static void undo(struct install *in)
{
    for (unsigned i = 0; i < in->n_made; i++) {
        rp_string path = in->made[i];
        struct rpc_error e;
        rp_vol vol;
        if (client_dead(in->v.conn) ||
            client_call(in->v.conn, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &path, &vol, &e) < 0)
            continue;
        const rp_vol_flags args = {vol, 0};
        const char *slash = strrchr(path, '/');
        if (client_call(in->v.conn, RPC_PROC_STORAGE_VOL_DELETE, &args, NULL, &e) == 0 && !in->quiet)
            printf("Removing disk '%s'\n", slash ? slash + 1 : path);
        client_result_free(RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &vol);
    }
}

int install_main(const char *program, int argc, char **argv)
{
    autofree struct install *in = xcalloc(1, sizeof(*in));
    int status;
    in->wait = INT_MIN;
    in->v = (struct vsh){.program = "lodge", .escape = ']' & 0x1f};
    if (parse(in, program, argc, argv, &status) < 0 || choose_os(in, &status) < 0)
        return status;
    const struct client_options o = {.start_session = session_start};
    const char *uri = client_default_uri(in->v.uri);
    in->session = strstr(uri, "/session") != NULL;
    bool ok = check(in);
    if (ok && client_open(uri, &o, &in->v.conn, &in->v.error) < 0) {
        in->v.conn = NULL;
        ok = install_error("%s", in->v.error.message);
    }
    autofree char *made = NULL;
    if (ok && !in->name) {
        /* As virt-install: the system's name, with a number when that is taken. */
        for (unsigned i = 0; i < 100 && !in->name; i++) {
            autofree char *name = i ? xasprintf("%s-%u", in->os_variant ? in->os_variant : "vm", i + 1)
                                    : xstrdup(in->os_variant ? in->os_variant : "vm");
            rp_string text = name;
            autodomain dom = {0};
            if (!vsh_call(&in->v, RPC_PROC_DOMAIN_LOOKUP_BY_NAME, &text, &dom))
                in->name = made = ptr_take(name);
        }
        vsh_error_reset(&in->v);
        if (!in->quiet && in->name && !in->print_xml)
            printf("Using default --name %s\n", in->name);
    }
    bool any = in->check && strstr(in->check, "all=off");
    ok = ok && (any || in->print_xml || name_free(in)) && work(in);
    install_media_forget(in);
    if (!ok && in->v.conn && !in->started)
        undo(in);
    while (in->n_made)
        free(in->made[--in->n_made]);
    if (!ok && in->v.conn && !in->dry_run && !in->print_xml && in->v.error.code)
        fprintf(
            stderr,
            "Domain installation does not appear to have been successful.\nIf it was, you can restart your domain by "
            "running:\n  virsh --connect %s start %s\notherwise, please restart your installation.\n",
            uri, in->name ? in->name : "");
    client_close(in->v.conn);
    free(in->kernel);
    free(in->initrd);
    free(in->args);
    free(in->cloud_image);
    osinfo_free(&in->os);
    fflush(stdout);
    return ok ? 0 : 1;
}

int cli_install(const struct cli_verb *verb, int argc, char **argv)
{
    return install_main("lodge install", argc, argv);
}
