/* Completion scripts for shells, from the table of verbs. */
#include <stdbool.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/img.h"
#include "cli/vsh.h"

/* Words of a list separated by blanks. */
static void put_words(const char *words, const char *before, const char *after)
{
    for (const char *w = words; w && *w;) {
        size_t n = strcspn(w, " ");
        printf("%s%.*s%s", before, (int)n, w, after);
        w += n + strspn(w + n, " ");
    }
}

static void put_verbs(const char *before, const char *after)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("%s%s%s", before, v->name, after);
    for (const struct vsh_group *g = vsh_groups; g->title; g++)
        for (const struct vsh_cmd *c = g->cmds; c->name; c++)
            if (!cli_verb_find(c->name))
                printf("%s%s%s", before, c->name, after);
}

static void put_img_verbs(const char *after)
{
    for (const struct img_verb *v = img_verbs; v->name; v++)
        printf("%s%s", v->name, after);
}

/* The verbs of lodge img, and behind one its options and files. */
static void bash_img(const char *name)
{
    printf("    %s)\n        if [ \"$COMP_CWORD\" -eq 2 ]; then\n            COMPREPLY=($(compgen -W \"", name);
    put_img_verbs(" ");
    puts("--help\" -- \"$cur\"))\n            return\n        fi\n        compopt -o filenames\n        case ${COMP_WORDS[2]} in");
    for (const struct img_verb *v = img_verbs; v->name; v++) {
        printf("        %s) COMPREPLY=($(compgen -f -W \"", v->name);
        for (const struct img_option *o = v->options; o && o->help; o++) {
            if (o->letter)
                printf("-%c ", o->letter);
            if (o->name)
                printf("--%s ", o->name);
        }
        puts("--help\" -- \"$cur\")) ;;");
    }
    puts("        esac ;;");
}

static void bash(void)
{
    puts("# bash completion for lodge\n_lodge()\n{\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
         "    COMPREPLY=()\n    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    printf("        COMPREPLY=($(compgen -W \"");
    put_verbs("", " ");
    puts("--help --version\" -- \"$cur\"))\n        return\n    fi\n    case $verb in");
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        if (v->arg_words && !strcmp(v->arg_words, "@img")) {
            bash_img(v->name);
            continue;
        }
        printf("    %s)\n        case $prev in\n", v->name);
        for (const struct cli_option *o = v->options; o && o->name; o++) {
            if (o->value == CLI_FLAG)
                continue;
            printf("        --%s) ", o->name);
            if (o->value == CLI_FILE)
                printf("compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))");
            else if (o->value == CLI_DIR)
                printf("compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\"))");
            else
                printf("compopt -o nospace; COMPREPLY=($(compgen -W \"%s\" -- \"$cur\"))", o->words ? o->words : "");
            puts("; return ;;");
        }
        printf("        esac\n        COMPREPLY=($(compgen -W \"");
        for (const struct cli_option *o = v->options; o && o->name; o++)
            printf("--%s ", o->name);
        if (v->arg_words && !strcmp(v->arg_words, "@verbs"))
            put_verbs("", " ");
        else
            put_words(v->arg_words, "", " ");
        puts("--help\" -- \"$cur\")) ;;");
    }
    /* The verbs that manage guests are completed by lodge itself, which can ask the daemon for names. */
    puts("    *)\n        COMPREPLY=($(compgen -W \"$(lodge complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" "
         "2>/dev/null)\" -- "
         "\"$cur\")) ;;");
    puts("    esac\n}\ncomplete -F _lodge lodge");
}

static void zsh(void)
{
    puts("#compdef lodge\n_lodge() {\n    local -a verbs\n    verbs=(");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("        '%s:%s'\n", v->name, v->summary);
    for (const struct vsh_group *g = vsh_groups; g->title; g++)
        for (const struct vsh_cmd *c = g->cmds; c->name; c++) {
            if (cli_verb_find(c->name))
                continue;
            printf("        '%s:", c->name);
            for (const char *h = c->summary; *h; h++)
                fputs(*h == '\'' ? "'\\''" : (char[]){*h, 0}, stdout);
            puts("'");
        }
    puts("    )\n    if (( CURRENT == 2 )); then\n        _describe verb verbs\n        return\n    fi\n    local "
         "verb=$words[2]\n"
         "    shift words\n    (( CURRENT-- ))\n    case $verb in");
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        printf("    %s) _arguments", v->name);
        for (const struct cli_option *o = v->options; o && o->name; o++) {
            printf(" \\\n        '%s--%s[", o->repeats ? "*" : "", o->name);
            for (const char *h = o->help; *h; h++) {
                if (*h == '[' || *h == ']' || *h == ':')
                    putchar('\\');
                fputs(*h == '\'' ? "'\\''" : (char[]){*h, 0}, stdout);
            }
            putchar(']');
            if (o->value == CLI_FILE || o->value == CLI_DIR)
                printf(":%s:_files%s", o->arg, o->value == CLI_DIR ? " -/" : "");
            else if (o->value == CLI_WORDS)
                printf(":value:(%s)", o->words);
            else if (o->value == CLI_TEXT)
                printf(":value: ");
            putchar('\'');
        }
        printf(" \\\n        '--help[show help]'");
        if (v->arg_words && !strcmp(v->arg_words, "@verbs")) {
            printf(" \\\n        '1:verb:(");
            put_verbs("", " ");
            printf(")'");
        } else if (v->arg_words && !strcmp(v->arg_words, "@img")) {
            printf(" \\\n        '1:verb:(");
            put_img_verbs(" ");
            printf(")' '*:file:_files'");
        } else if (v->arg_words) {
            printf(" \\\n        '1:argument:(%s)'", v->arg_words);
        }
        puts(" ;;");
    }
    puts("    *) compadd -- ${(f)\"$(lodge complete -- \"${(@)words[1,CURRENT]}\" 2>/dev/null)\"} ;;");
    puts("    esac\n}\n_lodge \"$@\"");
}

static void fish_management(void)
{
    for (const struct vsh_group *g = vsh_groups; g->title; g++)
        for (const struct vsh_cmd *c = g->cmds; c->name; c++)
            if (!cli_verb_find(c->name))
                printf("complete -c lodge -n __fish_use_subcommand -a %s -d \"%s\"\n"
                       "complete -c lodge -n '__fish_seen_subcommand_from %s' "
                       "-a '(lodge complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'\n",
                       c->name, c->summary, c->name);
}

static void fish(void)
{
    puts("# fish completion for lodge\ncomplete -c lodge -f");
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        printf("complete -c lodge -n __fish_use_subcommand -a %s -d '%s'\n", v->name, v->summary);
        for (const struct cli_option *o = v->options; o && o->name; o++) {
            printf("complete -c lodge -n '__fish_seen_subcommand_from %s' -l %s", v->name, o->name);
            if (o->value != CLI_FLAG)
                printf(" -r");
            if (o->value == CLI_FILE || o->value == CLI_DIR)
                printf(" -F");
            if (o->value == CLI_WORDS)
                printf(" -a '%s'", o->words);
            printf(" -d \"%s\"\n", o->help);
        }
        if (v->arg_words && !strcmp(v->arg_words, "@img")) {
            printf("complete -c lodge -n '__fish_seen_subcommand_from %s' -F -a '", v->name);
            put_img_verbs(" ");
            puts("'");
        } else if (v->arg_words && strcmp(v->arg_words, "@verbs"))
            printf("complete -c lodge -n '__fish_seen_subcommand_from %s' -a '%s'\n", v->name, v->arg_words);
    }
    fish_management();
}

static const struct {
    const char *name;
    void (*print)(void);
} shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};

static int set_shell(void *opaque, const struct cli_option *o, const char *value)
{
    const char **shell = opaque;
    if (*shell)
        return cli_usage(cli_verb_find("completion"), "name one shell");
    *shell = value;
    return 0;
}

int cli_completion(const struct cli_verb *verb, int argc, char **argv)
{
    const char *shell = NULL;
    int status;
    if (cli_parse(verb, argc, argv, set_shell, &shell, &status))
        return status;
    if (!shell)
        return cli_usage(verb, "name a shell: bash, zsh or fish");
    for (unsigned i = 0; i < sizeof shells / sizeof *shells; i++) {
        if (!strcmp(shells[i].name, shell)) {
            shells[i].print();
            return CLI_OK;
        }
    }
    return cli_usage(verb, "there is no completion for '%s', only for bash, zsh and fish", shell);
}
