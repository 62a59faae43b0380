/*
 * The management verbs: those that talk to a daemon, with virsh's names, options and output. verbs.c has their table;
 * what all of them share is here: options, the connection, tables, errors, looking objects up. One thread.
 *
 * A verb's function returns true when it did its work. When it failed it has printed why with vsh_error(), or has left
 * the daemon's error in vsh->error, which is then printed after it.
 */
#ifndef LODGE_CLI_VSH_H
#define LODGE_CLI_VSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fd.h"
#include "rpc/client.h"
#include "rpc/params.h"

struct xml_node;
struct vsh_args;

struct vsh {
    const char *program; /* "lodge" or "virsh" */
    const char *uri;     /* as given, or NULL: the default */
    char *uri_owned;     /* of the verb connect */
    struct client *conn;
    struct rpc_error error; /* of the last call; code 0: none */
    bool readonly, quiet, timing;
    bool json;        /* of the verb that runs */
    unsigned fields;  /* printed of the object that is being printed */
    bool interactive; /* the shell */
    bool quit;
    char escape; /* leaves a console: Ctrl-] */
    int keepalive_interval, keepalive_count;
};

enum vsh_flags {
    VSH_LOCAL = 1, /* needs no connection */
    VSH_JSON = 2,  /* has --json */
    VSH_OWN = 4,   /* Lodge's own: not there when called as virsh */
};

struct vsh_cmd {
    const char *name;
    /*
     * Its options, by name, separated by blanks. After the name: nothing for text, '#' for a number, '?' for a switch,
     * '*' for any number of words; '!' it must be there, ':' it is only found by its name, '~' it may be empty;
     * "old=new" is another name, or another way to write another one. What has a value can stand without its name.
     */
    const char *options;
    const char *summary;
    bool (*run)(struct vsh *v, const struct vsh_args *a);
    unsigned flags;
};
struct vsh_group {
    const char *title, *keyword;
    const struct vsh_cmd *cmds; /* ends with a NULL name */
};
extern const struct vsh_group vsh_groups[]; /* verbs.c; ends with a NULL title */
const struct vsh_cmd *vsh_cmd_find(const char *name);
/* What an option means, for help. */
const char *vsh_option_help(const struct vsh_cmd *cmd, const char *option);

/* Options (vsh_args.c) */
enum vsh_kind { VSH_SWITCH, VSH_TEXT, VSH_NUMBER, VSH_WORDS, VSH_ALIAS };
struct vsh_option {
    char name[40];
    char alias[64]; /* VSH_ALIAS: "name" or "name=value" */
    enum vsh_kind kind;
    bool required, by_name, empty_ok;
};
#define VSH_OPTIONS_MAX 64
/* Takes the table's text apart; their number. */
unsigned vsh_options(const struct vsh_cmd *cmd, struct vsh_option o[VSH_OPTIONS_MAX]);

#define VSH_ARGS_MAX 1024
struct vsh_args {
    const struct vsh_cmd *cmd;
    struct vsh_option options[VSH_OPTIONS_MAX];
    unsigned n_options;
    struct {
        unsigned option;
        const char *value;
    } v[VSH_ARGS_MAX];
    unsigned n;
    bool help;
};
/* Parses words after the verb (borrowed). False: said why. */
bool vsh_args_parse(struct vsh *v, const struct vsh_cmd *cmd, int argc, char **argv, struct vsh_args *ret);
/* Was it given? */
bool vsh_has(const struct vsh_args *a, const char *option);
/* Its text, or NULL. */
const char *vsh_text(const struct vsh_args *a, const char *option);
/* The next word of a '*' option; *at starts as 0. NULL: no more. */
const char *vsh_word(const struct vsh_args *a, const char *option, unsigned *at);
/* Numbers: false when it is there and wrong (said so). *ret is untouched when it is not there. */
bool vsh_int(struct vsh *v, const struct vsh_args *a, const char *option, int *ret);
bool vsh_uint(struct vsh *v, const struct vsh_args *a, const char *option, unsigned *ret);
bool vsh_ull(struct vsh *v, const struct vsh_args *a, const char *option, unsigned long long *ret);
bool vsh_ll(struct vsh *v, const struct vsh_args *a, const char *option, long long *ret);
/* Text as a number with a unit; false may leave v->error. */
bool vsh_scale(struct vsh *v, const char *text, unsigned scale, unsigned long long *ret);
/* An option with a unit ("k", "MiB", ...), without one in units of `scale` bytes: bytes. */
bool vsh_scaled(struct vsh *v, const struct vsh_args *a, const char *option, unsigned scale, unsigned long long *ret);
/* False, and said so, when both are given. */
bool vsh_exclusive(struct vsh *v, const struct vsh_args *a, const char *one, const char *other);
/* VIR_DOMAIN_AFFECT_*: --live 1, --config 2, neither 0; --current excludes both. -1: said what is wrong. */
int vsh_affect(struct vsh *v, const struct vsh_args *a);

/* Output */
/* "error: ..." on stderr. Returns false. */
bool vsh_error(struct vsh *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* On stdout, unless quiet. */
void vsh_extra(struct vsh *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct vsh_table {
    unsigned columns;
    unsigned rows, size;
    char **cells; /* (rows + 1) * columns; the first row is the header */
};
/* `header`: NULL-terminated. */
struct vsh_table *vsh_table_new(const char *first, ...) __attribute__((sentinel));
/* As many strings as columns (NULL: "-"). */
void vsh_table_row(struct vsh_table *t, ...);
void vsh_table_print(struct vsh *v, const struct vsh_table *t);
void vsh_table_free(struct vsh_table *t);
static inline void vsh_table_freep(struct vsh_table **t)
{
    vsh_table_free(*t);
}
#define autotable __attribute__((cleanup(vsh_table_freep))) struct vsh_table *
/* "Name:   value" lines, or an object in JSON: between begin and end. */
void vsh_fields_begin(struct vsh *v);
void vsh_field(struct vsh *v, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same with another width of the names. */
void vsh_field_wide(struct vsh *v, int width, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void vsh_fields_end(struct vsh *v);
/* A JSON string with its quotes. */
void vsh_json_string(const char *s);

/* The connection and objects (vsh_lookup.c) */
bool vsh_connect(struct vsh *v);
void vsh_disconnect(struct vsh *v);
/* One call; false leaves v->error. */
bool vsh_call(struct vsh *v, int proc, const void *args, void *ret);
/* Also tells that nothing of v->error is to be printed. */
void vsh_error_reset(struct vsh *v);
void vsh_uuid_text(const rp_uuid *u, char ret[37]);
bool vsh_uuid_parse(const char *text, rp_uuid *ret);

/* By id, UUID or name, from option "domain". False: said so. Free by xdr_free_domain(). */
enum { VSH_BY_ID = 1, VSH_BY_UUID = 2, VSH_BY_NAME = 4, VSH_BY_ANY = 7 };
bool vsh_domain(struct vsh *v, const struct vsh_args *a, rp_domain *ret);
bool vsh_domain_find(struct vsh *v, const char *text, unsigned how, rp_domain *ret);
bool vsh_network(struct vsh *v, const struct vsh_args *a, rp_network *ret);
bool vsh_network_find(struct vsh *v, const char *text, unsigned how, rp_network *ret);
bool vsh_pool_find(struct vsh *v, const char *text, unsigned how, rp_pool *ret);
bool vsh_pool(struct vsh *v, const struct vsh_args *a, const char *option, rp_pool *ret);
/* By name in --pool, or by key or path anywhere. */
bool vsh_vol(struct vsh *v, const struct vsh_args *a, const char *option, const char *pool_option, rp_vol *ret);
bool vsh_snapshot(struct vsh *v, rp_domain *dom, const char *name, rp_snapshot *ret);

void vsh_free_domain(rp_domain *d);
void vsh_free_network(rp_network *n);
void vsh_free_pool(rp_pool *p);
void vsh_free_vol(rp_vol *vol);
void vsh_free_snapshot(rp_snapshot *s);
#define autodomain __attribute__((cleanup(vsh_free_domain))) rp_domain
#define autonetwork __attribute__((cleanup(vsh_free_network))) rp_network
#define autopool __attribute__((cleanup(vsh_free_pool))) rp_pool
#define autovol __attribute__((cleanup(vsh_free_vol))) rp_vol
#define autosnapshot __attribute__((cleanup(vsh_free_snapshot))) rp_snapshot

/* Documents */
/* A whole file; NULL: said so. The caller frees it. */
char *vsh_read_file(struct vsh *v, const char *path);
/* Parses what a daemon sent; NULL: said so. */
struct xml_node *vsh_parse(struct vsh *v, const char *text);
void vsh_xml_freep(struct xml_node **n);
#define autoxml __attribute__((cleanup(vsh_xml_freep))) struct xml_node *
/* A domain's document; NULL leaves v->error. The caller frees it. */
char *vsh_domain_text(struct vsh *v, const rp_domain *dom, unsigned flags);
struct xml_node *vsh_domain_xml(struct vsh *v, const rp_domain *dom, unsigned flags);
/* Prints a document: what --xpath selects of it, or all. */
bool vsh_print_xml(struct vsh *v, const struct vsh_args *a, const char *text);
/*
 * Lets the user change `text` in an editor until `apply` takes it. `what`: "Domain 'x'", to tell that nothing was
 * changed; NULL: the caller does. False: given up, or the editor failed; said so.
 */
bool vsh_edit(struct vsh *v, const char *text, const char *what,
              bool (*apply)(struct vsh *v, const char *text, void *opaque), void *opaque, bool *ret_changed);

/* vsh.c: runs one line's verbs; the shell and scripts use it. */
bool vsh_run_line(struct vsh *v, const char *line);
bool vsh_run_words(struct vsh *v, int argc, char **argv);
bool vsh_help(struct vsh *v, const struct vsh_args *a);
/* The whole program as virsh; `lodge` calls it for verbs that are not its own. */
int vsh_main(const char *program, int argc, char **argv);
/* The shell (shell.c). */
void vsh_shell(struct vsh *v);
/* What `text` may become: calls add() for each, from the table and, when connected, the daemon. */
void vsh_complete(struct vsh *v, const char *line, const char *word, void (*add)(void *opaque, const char *word),
                  void *opaque);
/* A console until the guest ends or the user leaves it (console.c). */
bool vsh_console(struct vsh *v, const rp_domain *dom, const char *device, unsigned flags);

#endif
