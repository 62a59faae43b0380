/* See cli.h: the program's frame, option parsing, help. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "cli/img.h"
#include "cli/install.h"
#include "cli/vsh.h"

int cli_error(const char *fmt, ...)
{
    va_list ap;
    fputs("lodge: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return CLI_ERROR;
}

int cli_usage(const struct cli_verb *verb, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "lodge%s%s: ", verb ? " " : "", verb ? verb->name : "");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, " (see lodge%s%s --help)\n", verb ? " " : "", verb ? verb->name : "");
    return CLI_USAGE;
}

static void help_program(FILE *f)
{
    fprintf(f, "Usage: lodge VERB [OPTION]...\nVirtual machines on Linux.\n\nVerbs:\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        fprintf(f, "  %-14s%s\n", v->name, v->summary);
    for (const struct vsh_group *g = vsh_groups; g->title; g++) {
        fprintf(f, "\n%s:\n", g->title);
        for (const struct vsh_cmd *c = g->cmds; c->name; c++)
            fprintf(f, "  %-26s%s\n", c->name, c->summary);
    }
    fprintf(f, "\n  --help        this help; lodge VERB --help explains a verb\n"
               "  --version     print the version\n");
}

void cli_help(const struct cli_verb *verb, FILE *f)
{
    if (!verb) {
        help_program(f);
        return;
    }
    fprintf(f, "Usage: lodge %s%s%s%s\n%c%s.\n", verb->name, verb->options ? " [OPTION]..." : "", verb->args ? " " : "",
            verb->args ? verb->args : "", verb->summary[0] - 'a' + 'A', verb->summary + 1);
    if (verb->options)
        fputs("\nOptions:\n", f);
    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        autofree char *left = xasprintf("--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        if (strlen(left) > 26)
            fprintf(f, "  %s\n%30s%s\n", left, "", o->help);
        else
            fprintf(f, "  %-28s%s\n", left, o->help);
    }
    if (verb->notes)
        fputc('\n', f);
    for (const char *const *n = verb->notes; n && *n; n++)
        fprintf(f, "%s\n", *n);
}

int cli_help_verb(const struct cli_verb *verb, int argc, char **argv)
{
    const struct cli_verb *about = NULL;
    if (argc > 2)
        return cli_usage(verb, "too many arguments");
    if (argc == 2 && !cli_verb_find(argv[1]) && vsh_cmd_find(argv[1]))
        return vsh_main("lodge", argc + 1, (char *[]){(char *)"lodge", (char *)"help", argv[1], NULL});
    if (argc == 2 && !strcmp(argv[1], "--help"))
        about = verb;
    else if (argc == 2 && !(about = cli_verb_find(argv[1])))
        return cli_usage(NULL, "there is no verb '%s'", argv[1]);
    cli_help(about, stdout);
    return CLI_OK;
}

static const struct cli_option *option_find(const struct cli_verb *verb, const char *name, size_t len)
{
    for (const struct cli_option *o = verb->options; o && o->name; o++)
        if (strlen(o->name) == len && !memcmp(o->name, name, len))
            return o;
    return NULL;
}

int cli_parse(const struct cli_verb *verb, int argc, char **argv,
              int (*set)(void *opaque, const struct cli_option *o, const char *value), void *opaque, int *ret_status)
{
    bool options = true;
    uint64_t seen = 0;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!options || a[0] != '-' || !a[1]) {
            if (!verb->args) {
                *ret_status = cli_usage(verb, "'%s' is not an option", a);
                return -1;
            }
            if ((*ret_status = set(opaque, NULL, a)))
                return -1;
            continue;
        }
        if (!strcmp(a, "--")) {
            options = false;
            continue;
        }
        if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
            cli_help(verb, stdout);
            *ret_status = CLI_OK;
            return -1;
        }
        const char *equals = strchr(a, '=');
        size_t len = equals ? (size_t)(equals - a) : strlen(a);
        const struct cli_option *o = len > 2 && a[1] == '-' ? option_find(verb, a + 2, len - 2) : NULL;
        const char *value = equals ? equals + 1 : NULL;
        if (!o)
            *ret_status = cli_usage(verb, "unknown option '%.*s'", (int)len, a);
        else if (o->value == CLI_FLAG && value)
            *ret_status = cli_usage(verb, "--%s takes no value", o->name);
        else if (o->value != CLI_FLAG && !value && ++i >= argc)
            *ret_status = cli_usage(verb, "--%s needs a value, %s", o->name, o->arg);
        else if (!o->repeats && (seen & 1ull << (o - verb->options)))
            *ret_status = cli_usage(verb, "--%s is given twice", o->name);
        else
            *ret_status = set(opaque, o, o->value == CLI_FLAG ? NULL : value ? value : argv[i]);
        if (*ret_status)
            return -1;
        seen |= 1ull << (o - verb->options);
    }
    return 0;
}

/* Does the line start with options of the management verbs (-c URI), with one of them, or with nothing? */
static bool is_management(int argc, char **argv)
{
    static const char *const options[] = {
        "--connect", "--quiet", "--readonly", "--timing", "--escape", "--keepalive-interval", "--keepalive-count"};
    if (argc < 2)
        return true;
    const char *w = argv[1];
    if (w[0] == '-' && w[1] && strchr("cqrtekKvV", w[1]))
        return true;
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
        if (!strncmp(w, options[i], strlen(options[i])))
            return true;
    return !cli_verb_find(w) && (vsh_cmd_find(w) || strchr(w, ' '));
}

int cli_main(int argc, char **argv)
{
    const char *name = argc ? strrchr(argv[0], '/') : NULL;
    name = name ? name + 1 : argc ? argv[0] : "";
    if (!strcmp(name, "qemu-img"))
        return img_main("qemu-img", argc, argv);
    if (!strcmp(name, "qemu-nbd"))
        return img_verb_main("qemu-nbd", "serve", argc, argv);
    if (!strcmp(name, "qemu-io"))
        return img_verb_main("qemu-io", "io", argc, argv);
    if (!strcmp(name, "virt-install"))
        return install_main(name, argc, argv);
    if (!strcmp(name, "virt-clone"))
        return clone_main(name, argc, argv);
    if (!strcmp(name, "virsh"))
        return vsh_main("virsh", argc, argv);
    if (is_management(argc, argv))
        return vsh_main("lodge", argc, argv);
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        help_program(stdout);
        return CLI_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("lodge " LODGE_VERSION);
        return CLI_OK;
    }
    const struct cli_verb *verb = cli_verb_find(argv[1]);
    if (!verb)
        return cli_usage(NULL, argv[1][0] == '-' ? "unknown option '%s'" : "there is no verb '%s'", argv[1]);
    int status = verb->run(verb, argc - 1, argv + 1);
    if (fflush(stdout) || ferror(stdout))
        return cli_error("cannot write to standard output");
    return status;
}
