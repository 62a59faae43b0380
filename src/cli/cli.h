/*
 * The command line: verbs, their options, and what all verbs share. verbs.c holds the one table; --help, completion and
 * the check of the manual page come from it. A verb's function parses, calls the library, prints; the only place in
 * Lodge that does.
 */
#ifndef LODGE_CLI_CLI_H
#define LODGE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* Exit status of `lodge` and `lodge-vm`. */
enum {
    CLI_OK = 0,           /* done; the guest powered off */
    CLI_ERROR = 1,        /* one line on stderr says what */
    CLI_USAGE = 2,        /* wrong options */
    CLI_PANIC = 3,        /* the guest's kernel panicked */
    CLI_TRIPLE_FAULT = 4, /* the guest's CPU shut down */
    CLI_SIGNAL = 128,     /* + number of the signal that ended it */
};

/* What can stand after an option, for completion. */
enum cli_value { CLI_FLAG, CLI_TEXT, CLI_FILE, CLI_DIR, CLI_WORDS };

struct cli_option {
    const char *name;     /* without "--" */
    enum cli_value value; /* CLI_FLAG: takes none */
    const char *arg;      /* how the value is shown: "FILE" */
    const char *help;     /* one line */
    const char *words;    /* CLI_WORDS: the values or their beginnings, separated by blanks */
    bool repeats;
};

struct cli_verb {
    const char *name;
    const char *summary;
    const char *args;                 /* what stands after the options: "[VERB]"; NULL: nothing may */
    const char *const *notes;         /* more lines for --help, NULL-terminated; may be NULL */
    const struct cli_option *options; /* ends with a NULL name; may be NULL */
    const char *arg_words;            /* for completion of the arguments; "@verbs": the verbs */
    int (*run)(const struct cli_verb *verb, int argc, char **argv);
};

/* verbs.c: ends with a NULL name. */
extern const struct cli_verb cli_verbs[];
const struct cli_verb *cli_verb_find(const char *name);

/* The whole program; an exit status. */
int cli_main(int argc, char **argv);

/*
 * Takes options out of argv (argv[0] is the verb) and calls set(opaque, option, value) for each; other words go to
 * set() with a NULL option. `--help` prints help. 0: go on; else the verb returns *ret_status.
 */
int cli_parse(const struct cli_verb *verb, int argc, char **argv,
              int (*set)(void *opaque, const struct cli_option *o, const char *value), void *opaque, int *ret_status);

/* "lodge: …" on stderr; returns CLI_ERROR. */
int cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "lodge VERB: … (see lodge VERB --help)" on stderr; returns CLI_USAGE. */
int cli_usage(const struct cli_verb *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_help(const struct cli_verb *verb, FILE *f);

/*
 * Sizes: a number with B, K, M, G or T (also KiB, kB and so on: all powers of 1024); without a unit `unit` bytes each.
 * 0 or -EINVAL.
 */
int cli_parse_size(const char *text, uint64_t unit, uint64_t *ret_bytes);
/* A decimal number from `min` to `max`. 0 or -EINVAL. */
int cli_parse_number(const char *text, unsigned min, unsigned max, unsigned *ret);

/*
 * "a,b=c,d" one part at a time: cuts the next part out of *text and returns its key; *ret_value is what stands after
 * '=', or NULL. Two commas are one comma in a value. NULL at the end.
 */
char *cli_next_part(char **text, char **ret_value);

/* An absolute path for `path`, without looking at the file system. The caller frees it. NULL: no current directory. */
char *cli_absolute(const char *path);

int cli_run(const struct cli_verb *verb, int argc, char **argv);
int cli_img(const struct cli_verb *verb, int argc, char **argv);
int cli_install(const struct cli_verb *verb, int argc, char **argv);
int cli_clone(const struct cli_verb *verb, int argc, char **argv);
int cli_completion(const struct cli_verb *verb, int argc, char **argv);
int cli_help_verb(const struct cli_verb *verb, int argc, char **argv);
extern const struct cli_option cli_run_options[];
extern const char *const cli_run_notes[];

#endif
