/*
 * `lodge img`, also called as `qemu-img`: disk images. img.c holds the one table of verbs; options, --help, completion and the
 * check of the manual page come from it. A verb parses, calls src/block/, prints. Everything runs on the main thread.
 */
#ifndef LODGE_CLI_IMG_H
#define LODGE_CLI_IMG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "block/driver.h"

enum {
    IMG_OK = 0,
    IMG_ERROR = 1,
    /* check */
    IMG_CHECK_CORRUPT = 2,
    IMG_CHECK_LEAKS = 3,
    IMG_CHECK_UNSUPPORTED = 63,
    /* compare */
    IMG_COMPARE_DIFFERENT = 1,
    IMG_COMPARE_ERROR = 2,
    IMG_COMPARE_STATUS = 3, /* block status could not be read */
    IMG_COMPARE_READ = 4,
};

/* What an option means; its letter and its long name stand in the verb's table. */
enum img_key {
    IMG_FORMAT,
    IMG_FORMAT2,
    IMG_OUT_FORMAT,
    IMG_OPTIONS,
    IMG_IMAGE_OPTS,
    IMG_TARGET_IMAGE_OPTS,
    IMG_QUIET,
    IMG_PROGRESS,
    IMG_CACHE,
    IMG_SRC_CACHE,
    IMG_FORCE_SHARE,
    IMG_OUTPUT,
    IMG_BACKING,
    IMG_BACKING_FORMAT,
    IMG_UNSAFE,
    IMG_CHAIN,
    IMG_SNAPSHOT,
    IMG_SPARSE,
    IMG_JOBS,
    IMG_RATE,
    IMG_NO_CREATE,
    IMG_COMPRESS,
    IMG_OFFLOAD,
    IMG_OUT_OF_ORDER,
    IMG_TARGET_ZERO,
    IMG_SALVAGE,
    IMG_BITMAPS,
    IMG_SKIP_BROKEN,
    IMG_REPAIR,
    IMG_STRICT,
    IMG_KEEP,
    IMG_SIZE,
    IMG_START,
    IMG_LENGTH,
    IMG_SHRINK,
    IMG_PREALLOC,
    IMG_FORCE,
    IMG_LIST,
    IMG_ACTION_CREATE,
    IMG_ACTION_APPLY,
    IMG_ACTION_DELETE,
    IMG_ADD,
    IMG_REMOVE,
    IMG_CLEAR,
    IMG_ENABLE,
    IMG_DISABLE,
    IMG_MERGE,
    IMG_GRANULARITY,
    IMG_COUNT,
    IMG_DEPTH,
    IMG_FLUSH_INTERVAL,
    IMG_AIO,
    IMG_NATIVE,
    IMG_NO_DRAIN,
    IMG_OFFSET,
    IMG_PATTERN,
    IMG_BUFFER,
    IMG_STEP,
    IMG_WRITE,
    IMG_COMMAND,
    IMG_READ_ONLY,
    IMG_NO_CACHE,
    IMG_MISALIGN,
    IMG_DISCARD,
    IMG_TEMPORARY,
    IMG_SOCKET,
    IMG_PORT,
    IMG_BIND,
    IMG_SHARED,
    IMG_PERSISTENT,
    IMG_EXPORT,
    IMG_DESCRIPTION,
    IMG_BITMAP,
    IMG_FORK,
    IMG_PID_FILE,
    IMG_VERBOSE,
    IMG_DEPTH_CONTEXT,
    IMG_OBJECT,
    IMG_NAME,
    IMG_DIRECTORY,
    IMG_KEYS
};

struct img_option {
    enum img_key key;
    char letter;      /* 0: none */
    const char *name; /* long name, NULL: none */
    const char *arg;  /* how the value is shown; NULL: takes none */
    const char *help;
};

struct img;

struct img_verb {
    const char *name;
    const char *summary;
    const char *args;                 /* what stands after the options */
    const struct img_option *options; /* ends with a NULL help */
    int (*run)(struct img *img, int argc, char **argv);
};

/* One occurrence of an option, in the order given. */
struct img_given {
    enum img_key key;
    const char *value;
};

enum { IMG_GIVEN_MAX = 256 };

/* What a verb knows of its command line. */
struct img {
    const char *program; /* "lodge img" or "qemu-img" */
    const struct img_verb *verb;
    const char *value[IMG_KEYS]; /* the last one given */
    unsigned count[IMG_KEYS];    /* how often */
    struct img_given given[IMG_GIVEN_MAX];
    unsigned n_given;
    char *options; /* all -o, joined by commas; NULL: none */
    char **args;   /* the other words */
    int n_args;
};

extern const struct img_verb img_verbs[];

/* The program `lodge img` (argv[0] is "img") or `qemu-img`; an exit status. */
int img_main(const char *program, int argc, char **argv);
/* `qemu-nbd` and `qemu-io` are verbs with a name of their own. */
int img_verb_main(const char *program, const char *name, int argc, char **argv);
/* Parses options into *img, permuting words to the end. 0: go on; 1: help was printed, be done; -1: an error was
 * printed. */
int img_parse(struct img *img, int argc, char **argv);
void img_help(const struct img *img, const struct img_verb *verb);
/* The names of all formats and protocols, each behind a blank. */
void img_formats(FILE *f);

static inline bool img_has(const struct img *img, enum img_key key)
{
    return img->count[key] != 0;
}

/* "PROGRAM: …" on stderr; returns IMG_ERROR. img_usage() adds how to get help. */
int img_error(const struct img *img, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int img_usage(const struct img *img, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void img_warn(const struct img *img, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * A size as qemu-img reads it: decimal (a fraction is allowed with a suffix) or 0x hexadecimal, then b, k, M, G, T, P, E in
 *  either case, powers of 1024. 0, -EINVAL, or -ERANGE above INT64_MAX.
 */
int img_parse_size(const char *text, int64_t *ret);
/* The same, printing "Invalid WHAT specified…" when it is none or out of range. 0 or -1. */
int img_size_value(const struct img *img, const char *text, const char *what, int64_t min, int64_t max, int64_t *ret);
/* The same for option `key`, if given. */
int img_size_option(const struct img *img, enum img_key key, const char *what, int64_t min, int64_t max, int64_t *ret);
/* "1.5 GiB" as qemu-img writes sizes; buf of at least 32 bytes. */
const char *img_size_text(uint64_t size, char buf[static 32]);

/* ---- img_open.c: images, cache modes, output ---- */

/* The BLK_O_* flags of a cache mode. 0 or -1, an error printed ("Invalid WHAT: …"). */
int img_cache_flags(const struct img *img, enum img_key key, const char *def, const char *what, unsigned *ret);
/*
 * Opens an image named on the command line; NULL after printing why not. `image_opts`: the name is key=value. Images that are
 * written and turn out to be raw by probing get a warning.
 */
struct blk_node *img_open(const struct img *img, const char *name, const char *format, bool image_opts, unsigned flags);
/* A message without the "NAME: " that it may begin with. */
const char *img_without_name(const char *msg, const char *name);
/* The one file of a verb: its only argument, opened by -f and --image-opts. */
struct blk_node *img_open_only(const struct img *img, unsigned flags);
/* The only argument; NULL after an error. */
const char *img_only_arg(const struct img *img);
/* "snapshot.id=1,snapshot.name=x", or an id or name: `node` shows that snapshot from now on. 0 or IMG_ERROR. */
int img_load_snapshot(const struct img *img, struct blk_node *node, const char *text);
/* --output: 0 human, 1 json, -1 after an error. */
int img_output(const struct img *img);
/* Prints JSON as qemu-img does; takes over `j`. */
void img_print_json(json_t *j);

/* Progress on stdout for -p, on stderr after SIGUSR1. `fn` and `p` go to the block layer. */
struct img_progress {
    bool shown, ended;
    double last, step;
};
void img_progress_start(struct img_progress *p, const struct img *img, double step);
void img_progress(void *p, uint64_t done, uint64_t total);
/* Prints 100 % and the line's end. */
void img_progress_end(struct img_progress *p, bool ok);

/* The "Format specific information" of a format, if it has any. */
void img_print_specific(const json_t *specific);
/* The list that `snapshot -l` and `info` print. */
void img_print_snapshots(const struct blk_snapshot *sn, unsigned n);
/* "-o help": prints the options of a format; `amend`: those of img amend. */
int img_options_help(const struct img *img, const char *format, bool amend);
/* Puts -o into `opts`, checking names against the format. IMG_OK, or IMG_ERROR after printing. */
int img_parse_options(const struct img *img, const char *format, const char *file, bool amend, struct blk_opts *opts);
bool img_is_help(const struct img *img);

int img_create(struct img *img, int argc, char **argv);
int img_info(struct img *img, int argc, char **argv);
int img_check(struct img *img, int argc, char **argv);
int img_map(struct img *img, int argc, char **argv);
int img_convert(struct img *img, int argc, char **argv);
int img_dd(struct img *img, int argc, char **argv);
int img_compare(struct img *img, int argc, char **argv);
int img_resize(struct img *img, int argc, char **argv);
int img_amend(struct img *img, int argc, char **argv);
int img_measure(struct img *img, int argc, char **argv);
int img_snapshot(struct img *img, int argc, char **argv);
int img_rebase(struct img *img, int argc, char **argv);
int img_commit(struct img *img, int argc, char **argv);
int img_bitmap(struct img *img, int argc, char **argv);
int img_bench(struct img *img, int argc, char **argv);
int img_io(struct img *img, int argc, char **argv);
int img_serve(struct img *img, int argc, char **argv);
int img_import(struct img *img, int argc, char **argv);

#endif
