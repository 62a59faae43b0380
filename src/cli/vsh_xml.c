/* Documents: reading them from files and daemons, printing, letting the user edit them. See vsh.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/vsh.h"
#include "domain/xml.h"

char *vsh_read_file(struct vsh *v, const char *path)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        vsh_error(v, "Failed to open file '%s': %s", path, strerror(errno));
        return NULL;
    }
    struct rpc_buf b = {0};
    for (;;) {
        ssize_t n = -1;
        if (b.len > XML_MAX_BYTES)
            errno = EFBIG;
        else if (rpc_buf_reserve(&b, 65537) < 0)
            errno = ENOMEM;
        else
            n = read(fd, b.data + b.len, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            vsh_error(v, "Failed to read file '%s': %s", path, strerror(errno));
            rpc_buf_free(&b);
            return NULL;
        }
        if (n == 0)
            break;
        b.len += n;
    }
    b.data[b.len] = 0;
    return (char *)b.data;
}

struct xml_node *vsh_parse(struct vsh *v, const char *text)
{
    struct xml_node *n = NULL;
    struct err err = {0};
    if (xml_parse(text, strlen(text), "document", &n, &err) < 0) {
        vsh_error(v, "%s", err.msg);
        return NULL;
    }
    return n;
}

void vsh_xml_freep(struct xml_node **n)
{
    xml_free(*n);
}

char *vsh_domain_text(struct vsh *v, const rp_domain *dom, unsigned flags)
{
    const rp_dom_flags args = {*dom, flags};
    rp_string text;
    return vsh_call(v, RPC_PROC_DOMAIN_GET_XML_DESC, &args, &text) ? text : NULL;
}

struct xml_node *vsh_domain_xml(struct vsh *v, const rp_domain *dom, unsigned flags)
{
    autofree char *text = vsh_domain_text(v, dom, flags);
    return text ? vsh_parse(v, text) : NULL;
}

/* One element as it stands in its document: with its indentation, and with the quotes that virsh has here. */
static void print_node(const struct xml_node *n)
{
    autofree char *text = xml_format(n);
    unsigned depth = 0;
    bool tag = false;
    for (const struct xml_node *p = n->parent; p && p->parent; p = p->parent)
        depth++;
    for (const char *c = text; *c; c++) {
        if (*c == '<' || *c == '>')
            tag = *c == '<';
        putchar(tag && *c == '\'' ? '"' : *c);
        if (*c == '\n' && c[1])
            printf("%*s", (int)depth * 2, "");
    }
}

/*
 * A step of a path: "name", "name[3]", "*", with "//" before it at any depth. Only what people use to pick elements out
 * of a document; attributes and functions of XPath are not there.
 */
static unsigned select_nodes(const struct xml_node *n, const char *path, bool wrap, bool print)
{
    unsigned found = 0;
    bool deep = false;
    while (*path == '/') {
        deep |= path[1] == '/';
        path++;
    }
    size_t len = strcspn(path, "/["), step = strcspn(path, "/");
    long want = path[len] == '[' ? strtol(path + len + 1, NULL, 10) : 0, seen = 0;
    for (const struct xml_node *c = n->first; c; c = c->next) {
        bool match = (len == 1 && *path == '*') || (strlen(c->name) == len && !memcmp(c->name, path, len));
        if (match && (!want || ++seen == want)) {
            if (path[step]) {
                found += select_nodes(c, path + step, wrap, print);
            } else {
                found++;
                if (print)
                    print_node(c);
            }
        }
        if (deep) {
            autofree char *again = xasprintf("//%s", path);
            found += select_nodes(c, again, wrap, print);
        }
    }
    return found;
}

bool vsh_print_xml(struct vsh *v, const struct vsh_args *a, const char *text)
{
    const char *path = a ? vsh_text(a, "xpath") : NULL;
    if (!path) {
        fputs(text, stdout);
        return true;
    }
    autoxml root = vsh_parse(v, text);
    if (!root)
        return false;
    if (strpbrk(path, "@()|:"))
        return vsh_error(v, "Unable to evaluate '%s': only paths of elements are understood", path);
    struct xml_node *top = xml_node_new(NULL, "nodes", NULL);
    xml_append(top, root);
    root = NULL;
    bool wrap = vsh_has(a, "wrap");
    if (wrap)
        puts("<nodes>");
    unsigned found = select_nodes(top, path, wrap, true);
    if (wrap)
        puts("</nodes>");
    xml_free(top);
    return found || wrap;
}

/* Runs the user's editor on a file; false: said why not. */
static bool run_editor(struct vsh *v, const char *path)
{
    const char *editor = getenv("VISUAL");
    if (!editor || !*editor)
        editor = getenv("EDITOR");
    if (!editor || !*editor)
        editor = "sensible-editor";
    /* The variable may hold options ("vim -u NONE"): split at blanks; no shell sees the file's name. */
    autofree char *words = xstrdup(editor);
    char *argv[18], *save = NULL;
    unsigned n = 0;
    for (char *w = strtok_r(words, " \t", &save); w && n < 16; w = strtok_r(NULL, " \t", &save))
        argv[n++] = w;
    if (!n)
        return vsh_error(v, "EDITOR is empty");
    argv[n] = (char *)path;
    argv[n + 1] = NULL;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        return vsh_error(v, "cannot start '%s': %s", editor, strerror(errno));
    if (pid == 0) {
        execvp(argv[0], argv);
        if (!strcmp(argv[0], "sensible-editor"))
            execlp("vi", "vi", path, NULL);
        fprintf(stderr, "error: %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return vsh_error(v, "%s: editor failed", editor);
    return true;
}

bool vsh_edit(struct vsh *v, const char *text, const char *what,
              bool (*apply)(struct vsh *v, const char *text, void *opaque), void *opaque, bool *ret_changed)
{
    *ret_changed = false;
    const char *dir = getenv("TMPDIR");
    autofree char *path = xasprintf("%s/lodgeXXXXXX.xml", dir && *dir ? dir : "/tmp");
    autofd int fd = mkostemps(path, 4, O_CLOEXEC);
    if (fd < 0)
        return vsh_error(v, "mkostemps: failed to create temporary file: %s", strerror(errno));
    bool ok = fd_write_full(fd, text, strlen(text)) == 0;
    if (!ok)
        vsh_error(v, "write: %s: failed to write to temporary file: %s", path, strerror(errno));
    while (ok) {
        if (!(ok = run_editor(v, path)))
            break;
        autofree char *edited = vsh_read_file(v, path);
        if (!(ok = edited != NULL))
            break;
        if (!strcmp(edited, text)) {
            if (what)
                vsh_extra(v, "%s XML configuration not changed.\n", what);
            break;
        }
        if ((ok = *ret_changed = apply(v, edited, opaque)))
            break;
        vsh_error(v, "%s", v->error.code ? v->error.message : "the document was not taken");
        vsh_error_reset(v);
        if (!isatty(STDIN_FILENO))
            break;
        int c = 0;
        while (c != 'y' && c != 'n' && c != EOF) {
            printf("Failed. Try again? [y,n]: ");
            fflush(stdout);
            c = getchar();
            for (int rest = c; rest != '\n' && rest != EOF;)
                rest = getchar();
        }
        if (c != 'y')
            break;
        ok = true;
    }
    unlink(path);
    return ok;
}
