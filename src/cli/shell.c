/*
 * The interactive shell and completion. Line editing is libedit's or readline's, loaded when a terminal wants it: no
 * other start of the program pays for it. Without either, lines are read plainly.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/dom.h"

/* The two libraries' common part. */
struct editor {
    void *library;
    char *(*readline)(const char *prompt);
    void (*add_history)(const char *line);
    int (*read_history)(const char *path);
    int (*write_history)(const char *path);
    char **(*matches)(const char *text, char *(*next)(const char *text, int state));
    char **line_buffer; /* rl_line_buffer */
};

/* The C interface of line editors has no argument of ours: the one shell of this process. */
static struct {
    struct vsh *v;
    struct editor editor;
    char **words;
    unsigned n, at;
} shell;

static bool load_editor(struct editor *e)
{
    static const char *const names[] = {"libedit.so.2", "libreadline.so.8", "libreadline.so.7", "libedit.so.0"};
    for (unsigned i = 0; i < 4 && !e->library; i++)
        e->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!e->library)
        return false;
#define SYMBOL(member, name) *(void **)&e->member = dlsym(e->library, name)
    SYMBOL(readline, "readline");
    SYMBOL(add_history, "add_history");
    SYMBOL(read_history, "read_history");
    SYMBOL(write_history, "write_history");
    SYMBOL(matches, "rl_completion_matches");
    SYMBOL(line_buffer, "rl_line_buffer");
#undef SYMBOL
    return e->readline && e->add_history;
}

static void keep(void *opaque, const char *word)
{
    if (shell.n % 64 == 0) {
        char **more = xcalloc(shell.n + 64, sizeof(*more));
        if (shell.n)
            memcpy(more, shell.words, shell.n * sizeof(*more));
        free(shell.words);
        shell.words = more;
    }
    shell.words[shell.n++] = xstrdup(word);
}

static void forget(void)
{
    while (shell.n)
        free(shell.words[--shell.n]);
    free(shell.words);
    shell.words = NULL;
    shell.at = 0;
}

/* Called again and again by the editor: a malloc()ed word each time. */
static char *next_match(const char *text, int state)
{
    if (!state)
        shell.at = 0;
    return shell.at < shell.n ? xstrdup(shell.words[shell.at++]) : NULL;
}

static char **complete(const char *text, int start, int end)
{
    const char *line = shell.editor.line_buffer ? *shell.editor.line_buffer : "";
    autofree char *before = xasprintf("%.*s", start, line);
    forget();
    vsh_complete(shell.v, before, text, keep, NULL);
    return shell.editor.matches ? shell.editor.matches(text, next_match) : NULL;
}

/* Objects of the daemon that an option names. */
static void complete_objects(struct vsh *v, const char *option, const char *word, void (*add)(void *, const char *),
                             void *opaque)
{
    const rp_list_args all = {1, 0};
    if (!v->conn || client_dead(v->conn))
        return;
    size_t len = strlen(word);
#define NAMES(proc, type)                                                                                              \
    {                                                                                                                  \
        type list;                                                                                                     \
        if (!vsh_call(v, proc, &all, &list))                                                                           \
            return;                                                                                                    \
        for (unsigned i = 0; i < list.items.items_len; i++)                                                            \
            if (!strncmp(list.items.items_val[i].name, word, len))                                                     \
                add(opaque, list.items.items_val[i].name);                                                             \
        client_result_free(proc, &list);                                                                               \
    }
    if (!strcmp(option, "domain"))
        NAMES(RPC_PROC_CONNECT_LIST_ALL_DOMAINS, rp_domain_list)
    else if (!strcmp(option, "network"))
        NAMES(RPC_PROC_CONNECT_LIST_ALL_NETWORKS, rp_net_list)
    else if (!strcmp(option, "pool"))
        NAMES(RPC_PROC_CONNECT_LIST_ALL_STORAGE_POOLS, rp_pool_list)
#undef NAMES
    vsh_error_reset(v);
}

void vsh_complete(struct vsh *v, const char *line, const char *word, void (*add)(void *opaque, const char *word),
                  void *opaque)
{
    /* The command that is being typed: what stands after the last ';'. */
    const char *from = strrchr(line, ';');
    from = from ? from + 1 : line;
    from += strspn(from, " \t");
    size_t len = strcspn(from, " \t"), typed = strlen(word);
    if (!from[len]) {
        for (const struct vsh_group *g = vsh_groups; g->title; g++)
            for (const struct vsh_cmd *c = g->cmds; c->name; c++)
                if (!strncmp(c->name, word, typed))
                    add(opaque, c->name);
        return;
    }
    autofree char *name = xasprintf("%.*s", (int)len, from);
    const struct vsh_cmd *c = vsh_cmd_find(name);
    if (!c)
        return;
    struct vsh_option o[VSH_OPTIONS_MAX];
    unsigned n = vsh_options(c, o);
    if (*word == '-') {
        for (unsigned i = 0; i < n; i++) {
            autofree char *option = xasprintf("--%s", o[i].name);
            if (o[i].kind != VSH_ALIAS && !strncmp(option, word, typed))
                add(opaque, option);
        }
        return;
    }
    /* The option before the word, or else the first that takes a value and was not given yet. */
    autofree char *rest = xstrdup(from + len);
    char *save = NULL, *last = NULL;
    unsigned data = 0;
    for (char *w = strtok_r(rest, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        bool value = last && last[0] == '-' && last[1] == '-';
        for (unsigned i = 0; value && i < n; i++)
            if (!strcmp(o[i].name, last + 2) && o[i].kind == VSH_SWITCH)
                value = false;
        data += w[0] != '-' && !value;
        last = w;
    }
    for (unsigned i = 0; last && last[0] == '-' && i < n; i++)
        if (!strcmp(o[i].name, last + 2) && o[i].kind != VSH_SWITCH) {
            complete_objects(v, o[i].name, word, add, opaque);
            return;
        }
    for (unsigned i = 0; i < n; i++)
        if (o[i].kind != VSH_SWITCH && o[i].kind != VSH_ALIAS && !o[i].by_name &&
            (data-- == 0 || o[i].kind == VSH_WORDS)) {
            complete_objects(v, o[i].name, word, add, opaque);
            return;
        }
}

/* $XDG_CACHE_HOME/lodge/history, made when missing. NULL: there is no home. */
static char *history_path(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if ((!cache || !*cache) && (!home || !*home))
        return NULL;
    autofree char *base = cache && *cache ? xstrdup(cache) : xasprintf("%s/.cache", home);
    autofree char *dir = xasprintf("%s/lodge", base);
    mkdir(base, 0700);
    mkdir(dir, 0700);
    return xasprintf("%s/history", dir);
}

static char *plain_line(const char *prompt)
{
    char *line = NULL;
    size_t size = 0;
    if (isatty(STDIN_FILENO)) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    ssize_t n = getline(&line, &size, stdin);
    if (n < 0) {
        free(line);
        return NULL;
    }
    if (n && line[n - 1] == '\n')
        line[n - 1] = 0;
    return line;
}

void vsh_shell(struct vsh *v)
{
    bool terminal = isatty(STDIN_FILENO);
    v->interactive = true;
    shell.v = v;
    bool editor = terminal && load_editor(&shell.editor);
    autofree char *history = editor ? history_path() : NULL;
    if (editor) {
        char **(**completion)(const char *, int, int) = dlsym(shell.editor.library, "rl_attempted_completion_function");
        const char **breaks = dlsym(shell.editor.library, "rl_basic_word_break_characters");
        if (completion)
            *completion = complete;
        if (breaks)
            *breaks = " \t\n;";
        if (history && shell.editor.read_history)
            shell.editor.read_history(history);
    }
    if (v->uri)
        vsh_connect(v);
    vsh_error_reset(v);
    if (terminal && !v->quiet)
        printf("Welcome to %s, the virtualization interactive terminal.\n\n"
               "Type:  'help' for help with commands\n       'quit' to quit\n\n",
               v->program);
    while (!v->quit) {
        autofree char *prompt = xasprintf("%s %c ", v->program, v->readonly ? '>' : '#');
        char *line = editor ? shell.editor.readline(prompt) : plain_line(prompt);
        if (!line) {
            if (terminal)
                puts("");
            break;
        }
        if (editor && *line)
            shell.editor.add_history(line);
        vsh_run_line(v, line);
        fflush(stdout);
        free(line);
    }
    if (history && shell.editor.write_history)
        shell.editor.write_history(history);
    forget();
}

static void print_word(void *opaque, const char *word)
{
    puts(word);
}

bool cmd_complete(struct vsh *v, const struct vsh_args *a)
{
    autofree char *line = xstrdup("");
    const char *last = "", *w;
    unsigned at = 0;
    bool first = true;
    while ((w = vsh_word(a, "string", &at))) {
        if (!first) {
            char *longer = xasprintf("%s%s ", line, last);
            free(line);
            line = longer;
        }
        last = w;
        first = false;
    }
    /* Without a daemon the names are missing, and nobody wants to read why in the middle of a line. */
    const struct client_options o = {.readonly = true};
    if (strchr(line, ' ') && *last != '-' && client_open(client_default_uri(v->uri), &o, &v->conn, &v->error) < 0)
        v->conn = NULL;
    vsh_error_reset(v);
    vsh_complete(v, line, last, print_word, NULL);
    return true;
}

bool cmd_quit(struct vsh *v, const struct vsh_args *a)
{
    v->quit = true;
    return true;
}

bool cmd_cd(struct vsh *v, const struct vsh_args *a)
{
    const char *dir = vsh_text(a, "dir");
    if (!v->interactive)
        return vsh_error(v, "cd: command valid only in interactive mode");
    if (!dir)
        dir = getenv("HOME");
    if (!dir || chdir(dir) < 0)
        return vsh_error(v, "cd: %s: %s", strerror(errno), dir ? dir : "");
    return true;
}

bool cmd_pwd(struct vsh *v, const struct vsh_args *a)
{
    autofree char *cwd = realpath(".", NULL);
    if (!cwd)
        return vsh_error(v, "pwd: cannot get current directory: %s", strerror(errno));
    puts(cwd);
    return true;
}

bool cmd_echo(struct vsh *v, const struct vsh_args *a)
{
    unsigned at = 0;
    bool first = true, quote = vsh_has(a, "shell");
    for (const char *w; (w = vsh_word(a, "string", &at)); first = false) {
        if (!first)
            putchar(' ');
        if (!quote || (*w && !strpbrk(w, "\r\t\n !\"#$&'()*;<>?[\\]^`{|}~"))) {
            fputs(w, stdout);
            continue;
        }
        putchar('\'');
        for (const char *c = w; *c; c++)
            fputs(*c == '\'' ? "'\\''" : (char[]){*c, 0}, stdout);
        putchar('\'');
    }
    return true;
}
