/* lodge-vm: one guest, one process. Argument parsing; see serve.c for what happens then. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "domain/domain.h"
#include "monitor/gdb.h"
#include "serve.h"

static const char help[] =
    "Usage: lodge-vm --domain FILE [OPTION]...\n"
    "Runs the guest that a domain document describes. People use lodge run.\n"
    "\n"
    "  --domain FILE        the libvirt domain document\n"
    "  --domain-fd N        the same, from an open descriptor\n"
    "  --monitor unix=FILE  serve the monitor protocol (QMP) on a socket\n"
    "  --gdb tcp=[HOST:]PORT|unix=FILE  let gdb debug the guest\n"
    "  --incoming file:FILE  go on from where the monitor's migrate saved the guest\n"
    "  --paused             do not start the vCPUs before the monitor's cont\n"
    "  --status-fd N        write \"pty FILE\" lines, and \"running\" once the guest runs, to descriptor N\n"
    "  --end-fd N           write how the guest ended to descriptor N\n"
    "  --verbose            say more about what goes on\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 the guest powered off, 1 error, 2 wrong usage, 3 guest panic, 4 triple fault, 128+N signal N.\n";

static int usage(const char *what, const char *value)
{
    fprintf(stderr, "lodge-vm: %s%s (see lodge-vm --help)\n", what, value);
    return CLI_USAGE;
}

static void note_unknown(void *opaque, int line, const char *path)
{
    log_info("%s:%d: %s has no effect", (const char *)opaque, line, path);
}

int main(int argc, char **argv)
{
    enum { DOMAIN = 1, DOMAIN_FD, MONITOR, GDB, INCOMING, PAUSED, STATUS_FD, END_FD, VERBOSE, HELP, VERSION };
    static const struct option options[] = {
        {"domain", required_argument, NULL, DOMAIN},
        {"domain-fd", required_argument, NULL, DOMAIN_FD},
        {"monitor", required_argument, NULL, MONITOR},
        {"gdb", required_argument, NULL, GDB},
        {"incoming", required_argument, NULL, INCOMING},
        {"paused", no_argument, NULL, PAUSED},
        {"status-fd", required_argument, NULL, STATUS_FD},
        {"end-fd", required_argument, NULL, END_FD},
        {"verbose", no_argument, NULL, VERBOSE},
        {"help", no_argument, NULL, HELP},
        {"version", no_argument, NULL, VERSION},
        {0},
    };
    struct serve_options o = {.status_fd = -1, .end_fd = -1};
    const char *file = NULL;
    unsigned n = 0, fd = 0;
    bool has_fd = false;
    int c;
    log_set_level(LOG_WARN);
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case DOMAIN:
            file = optarg;
            break;
        case DOMAIN_FD:
            if (cli_parse_number(optarg, 0, 1 << 20, &fd))
                return usage("--domain-fd: not a descriptor: ", optarg);
            has_fd = true;
            break;
        case MONITOR:
            if (strncmp(optarg, "unix=", 5) || !optarg[5])
                return usage("--monitor: not unix=FILE: ", optarg);
            o.monitor = optarg + 5;
            break;
        case GDB:
            if (!gdb_where_valid(optarg))
                return usage("--gdb: not tcp=[HOST:]PORT or unix=FILE: ", optarg);
            o.gdb = optarg;
            break;
        case INCOMING:
            if (strncmp(optarg, "file:", 5) || !optarg[5])
                return usage("--incoming: not file:FILE: ", optarg);
            o.incoming = optarg + 5;
            break;
        case PAUSED:
            o.paused = true;
            break;
        case STATUS_FD:
            if (cli_parse_number(optarg, 0, 1 << 20, &n))
                return usage("--status-fd: not a descriptor: ", optarg);
            o.status_fd = (int)n;
            break;
        case END_FD:
            if (cli_parse_number(optarg, 0, 1 << 20, &n))
                return usage("--end-fd: not a descriptor: ", optarg);
            o.end_fd = (int)n;
            break;
        case VERBOSE:
            log_set_level(LOG_INFO);
            break;
        case HELP:
            fputs(help, stdout);
            return CLI_OK;
        case VERSION:
            puts("lodge-vm " LODGE_VERSION);
            return CLI_OK;
        default:
            return CLI_USAGE;
        }
    }
    if (optind < argc)
        return usage("not an option: ", argv[optind]);
    if (!file == !has_fd)
        return usage("one of --domain and --domain-fd is needed", "");

    struct domain *d = NULL;
    struct err err = {0};
    const char *name = file ? file : "domain";
    int code = file ? domain_parse_file(file, &d, &err) : domain_parse_fd((int)fd, name, &d, &err);
    if (code == 0) {
        domain_each_unknown(d, note_unknown, (void *)name);
        domain_defaults(d);
        code = domain_check(d, name, &err);
    }
    int status = CLI_ERROR;
    if (code < 0)
        fprintf(stderr, "lodge-vm: %s\n", err.msg);
    else
        status = serve(d, &o);
    domain_free(d);
    return status;
}
