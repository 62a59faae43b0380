/* The frame of the management verbs: the program's options, running verbs, help, messages. See vsh.h. */
#include "cli/vsh.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

bool vsh_error(struct vsh *v, const char *fmt, ...)
{
    fflush(stdout);
    char *text;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    /* Messages hold what a daemon or a file said: nothing in them is for the terminal. */
    for (char *c = text; *c; c++)
        if (((unsigned char)*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f)
            *c = '?';
    fprintf(stderr, "error: %s\n", text);
    free(text);
    return false;
}

void vsh_extra(struct vsh *v, const char *fmt, ...)
{
    if (v->quiet || v->json)
        return;
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}

static bool hidden(const struct vsh *v, const struct vsh_cmd *c)
{
    return (c->flags & VSH_OWN) && !strcmp(v->program, "virsh");
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void help_options(const struct vsh_cmd *c)
{
    struct vsh_option o[VSH_OPTIONS_MAX];
    unsigned n = vsh_options(c, o);
    bool title = false;
    for (unsigned i = 0; i < n; i++) {
        if (o[i].kind == VSH_ALIAS)
            continue;
        if (!title)
            puts("\n  OPTIONS");
        title = true;
        const char *value = o[i].kind == VSH_NUMBER ? " <number>" : o[i].kind == VSH_SWITCH ? "" : " <string>";
        bool bare = o[i].required && o[i].kind == VSH_TEXT && !o[i].by_name;
        autofree char *left = xasprintf(bare ? "[--]%s%s" : "--%s%s", o[i].name, value);
        printf("    %-30s  %s\n", left, vsh_option_help(c, o[i].name));
    }
}

static void help_command(const struct vsh *v, const struct vsh_cmd *c)
{
    struct vsh_option o[VSH_OPTIONS_MAX];
    unsigned n = vsh_options(c, o);
    printf("  NAME\n    %s - %s\n\n  SYNOPSIS\n    %s", c->name, c->summary, c->name);
    for (unsigned i = 0; i < n; i++) {
        if (o[i].kind == VSH_ALIAS)
            continue;
        const char *value = o[i].kind == VSH_NUMBER ? " <number>" : o[i].kind == VSH_SWITCH ? "" : " <string>";
        if (o[i].required && o[i].kind == VSH_TEXT)
            printf(" <%s>", o[i].name);
        else if (o[i].kind == VSH_WORDS)
            printf(" [--%s] <string>...", o[i].name);
        else
            printf(" [--%s%s]", o[i].name, value);
    }
    puts("");
    help_options(c);
    (void)v;
}

bool vsh_help(struct vsh *v, const struct vsh_args *a)
{
    const char *about = vsh_text(a, "command");
    const struct vsh_cmd *c = about ? vsh_cmd_find(about) : NULL;
    if (c && !hidden(v, c)) {
        help_command(v, c);
        return true;
    }
    bool found = !about;
    if (!about)
        puts("Grouped commands:\n");
    for (const struct vsh_group *g = vsh_groups; g->title; g++) {
        if (about && strcmp(about, g->keyword) != 0 && strcmp(about, g->title) != 0)
            continue;
        found = true;
        printf(" %s (help keyword '%s'):\n", g->title, g->keyword);
        for (const struct vsh_cmd *i = g->cmds; i->name; i++)
            if (!hidden(v, i))
                printf("    %-30s %s\n", i->name, i->summary);
        puts("");
    }
    return found || vsh_error(v, "command or command group '%s' doesn't exist", about);
}

static void report(struct vsh *v)
{
    if (v->error.code)
        vsh_error(v, "%s", v->error.message);
    vsh_error_reset(v);
}

bool vsh_run_words(struct vsh *v, int argc, char **argv)
{
    const struct vsh_cmd *c = vsh_cmd_find(argv[0]);
    if (!c || hidden(v, c))
        return vsh_error(v, "unknown command: '%s'", argv[0]);
    autofree struct vsh_args *a = xcalloc(1, sizeof(*a));
    vsh_error_reset(v);
    v->json = false;
    if (!vsh_args_parse(v, c, argc - 1, argv + 1, a)) {
        report(v);
        return false;
    }
    if (a->help) {
        help_command(v, c);
        return true;
    }
    v->json = (c->flags & VSH_JSON) && vsh_has(a, "json");
    double before = now_ms();
    bool ok = ((c->flags & VSH_LOCAL) || vsh_connect(v)) && c->run(v, a);
    if (!ok)
        report(v);
    vsh_error_reset(v);
    if (v->timing && !v->quit)
        printf("\n(Time: %.3f ms)\n\n", now_ms() - before);
    else if (!v->quit)
        vsh_extra(v, "\n");
    v->json = false;
    return ok;
}

/* Cuts the next word out of *p: quotes and backslashes as in a shell. 1: a word, 0: the command ends, -1: the line
 * ends, -2: said why not. */
static int next_word(struct vsh *v, const char **p, char *out)
{
    const char *s = *p;
    while (*s == ' ' || *s == '\t' || (*s == '\\' && s[1] == '\n'))
        s += 1 + (*s == '\\');
    if (*s == '#')
        s += strcspn(s, "\n");
    if (!*s || *s == ';' || *s == '\n') {
        *p = s + !!*s;
        return *s ? 0 : -1;
    }
    char quote = 0;
    for (; *s && (quote || !strchr(" \t;\n", *s)); s++) {
        if (*s == '\'' && quote != '"') {
            quote = quote ? 0 : '\'';
        } else if (*s == '"' && quote != '\'') {
            quote = quote ? 0 : '"';
        } else if (*s == '\\' && quote != '\'') {
            if (!s[1]) {
                vsh_error(v, "dangling \\");
                return -2;
            }
            s++;
            if (*s != '\n')
                *out++ = *s;
        } else {
            *out++ = *s;
        }
    }
    if (quote == '"') {
        vsh_error(v, "missing \"");
        return -2;
    }
    *out = 0;
    *p = s;
    return 1;
}

bool vsh_run_line(struct vsh *v, const char *line)
{
    autofree char *buffer = xcalloc(2, strlen(line) + 2);
    char *words[VSH_ARGS_MAX];
    bool ok = true;
    for (;;) {
        int n = 0, r;
        char *at = buffer;
        while ((r = next_word(v, &line, at)) == 1) {
            if (n == VSH_ARGS_MAX)
                return vsh_error(v, "too many arguments");
            words[n++] = at;
            at += strlen(at) + 1;
        }
        if (r == -2)
            return false;
        if (n) {
            ok = vsh_run_words(v, n, words);
            if (!ok && !v->interactive)
                return false;
        }
        if (r == -1 || v->quit)
            return ok;
    }
}

static void usage(const char *program)
{
    printf("\n%s [OPTION]... [COMMANDS]\n%s [OPTION]... COMMAND [ARGUMENT]...\n\n"
           "  -c, --connect=URI             the daemon to talk to\n"
           "  -r, --readonly                change nothing\n"
           "  -q, --quiet                   print only results\n"
           "  -t, --timing                  print how long each command took\n"
           "  -e, --escape=CHAR             leaves a console: ^] unless given\n"
           "  -k, --keepalive-interval=NUM  seconds of silence until the daemon is asked whether it lives\n"
           "  -K, --keepalive-count=NUM     so many questions without an answer: gone\n"
           "  -v, -V, --version             print the version\n"
           "  -h, --help                    print this\n"
           "  commands:\n\n",
           program, program);
    struct vsh v = {.program = program};
    for (const struct vsh_group *g = vsh_groups; g->title; g++) {
        printf(" %s (help keyword '%s')\n", g->title, g->keyword);
        for (const struct vsh_cmd *c = g->cmds; c->name; c++)
            if (!hidden(&v, c))
                printf("    %-30s %s\n", c->name, c->summary);
        puts("");
    }
    printf("  '%s help COMMAND' explains one\n\n", program);
}

static int number_option(const char *text, const char *what)
{
    unsigned n;
    if (cli_parse_number(text, 0, 100000, &n) < 0) {
        fprintf(stderr, "error: Invalid value for option %s\n", what);
        exit(EXIT_FAILURE);
    }
    return n;
}

int vsh_main(const char *program, int argc, char **argv)
{
    static const struct option options[] = {
        {"connect", required_argument, NULL, 'c'},
        {"debug", required_argument, NULL, 'd'},
        {"escape", required_argument, NULL, 'e'},
        {"help", no_argument, NULL, 'h'},
        {"keepalive-interval", required_argument, NULL, 'k'},
        {"keepalive-count", required_argument, NULL, 'K'},
        {"log", required_argument, NULL, 'l'},
        {"no-pkttyagent", no_argument, NULL, 'n'},
        {"quiet", no_argument, NULL, 'q'},
        {"readonly", no_argument, NULL, 'r'},
        {"timing", no_argument, NULL, 't'},
        {"version", optional_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    struct vsh v = {.program = program, .escape = ']' & 0x1f};
    int o;
    opterr = 0;
    optind = 0;
    while ((o = getopt_long(argc, argv, "+:c:d:e:hk:K:l:qrtvV", options, NULL)) != -1) {
        switch (o) {
        case 'c':
            v.uri = optarg;
            break;
        case 'e':
            if (optarg[0] == '^' && optarg[1] && !optarg[2])
                v.escape = optarg[1] & 0x1f;
            else if (optarg[0] && !optarg[1])
                v.escape = optarg[0];
            else
                return vsh_error(&v, "Invalid string '%s' for escape sequence", optarg), EXIT_FAILURE;
            break;
        case 'h':
            usage(program);
            return EXIT_SUCCESS;
        case 'k':
            v.keepalive_interval = number_option(optarg, "-k");
            break;
        case 'K':
            v.keepalive_count = number_option(optarg, "-K");
            break;
        case 'd':
        case 'l':
        case 'n':
            break; /* taken for scripts; there is nothing to log or to ask */
        case 'q':
            v.quiet = true;
            break;
        case 'r':
            v.readonly = true;
            break;
        case 't':
            v.timing = true;
            break;
        case 'v':
        case 'V':
            puts(!strcmp(program, "virsh") ? "9.0.0" : "lodge " LODGE_VERSION);
            return EXIT_SUCCESS;
        case ':':
            return vsh_error(&v, "option '%s' requires an argument", argv[optind - 1]), EXIT_FAILURE;
        default:
            return vsh_error(&v, "unsupported option '%s'. See --help.", argv[optind - 1]), EXIT_FAILURE;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    bool ok = true;
    char **words = argv + optind;
    int n = argc - optind;
    if (n == 0)
        vsh_shell(&v);
    else if (n == 1 && strchr(words[0], ' '))
        ok = vsh_run_line(&v, words[0]);
    else
        ok = vsh_run_words(&v, n, words);
    vsh_disconnect(&v);
    if (fflush(stdout) || ferror(stdout))
        return EXIT_FAILURE;
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
