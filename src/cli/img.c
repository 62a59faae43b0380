/* The table of the verbs of `lodge img`; calling them; help and errors. See img.h. */
#include "cli/img.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "cli/cli.h"

/* Options that many verbs have. */
#define OPT_FORMAT {IMG_FORMAT, 'f', "format", "FMT", "the image's format; without it, found out by probing"}
#define OPT_IMAGE_OPTS {IMG_IMAGE_OPTS, 0, "image-opts", NULL, "the file name is a list of key=value"}
#define OPT_QUIET {IMG_QUIET, 'q', "quiet", NULL, "print errors only"}
#define OPT_PROGRESS {IMG_PROGRESS, 'p', "progress", NULL, "show progress"}
#define OPT_CACHE {IMG_CACHE, 't', "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"}
#define OPT_SRC_CACHE {IMG_SRC_CACHE, 'T', "source-cache", "CACHE", "the same for the images that are read"}
#define OPT_SHARE {IMG_FORCE_SHARE, 'U', "force-share", NULL, "open the image even if another process writes it"}
#define OPT_OUTPUT {IMG_OUTPUT, 0, "output", "human|json", "how to print"}
#define OPT_OBJECT {IMG_OBJECT, 0, "object", "OBJECT", "accepted for qemu-img's sake; secrets are not supported"}
#define OPT_END {0}

static const struct img_option amend_options[] = {
    {IMG_OPTIONS, 'o', NULL, "OPTIONS", "format options to change; '-o help' lists them"},
    OPT_FORMAT, OPT_CACHE, OPT_PROGRESS, OPT_QUIET, OPT_IMAGE_OPTS,
    {IMG_FORCE, 0, "force", NULL, "allow what could lose data"},
    OPT_OBJECT, OPT_END,
};
static const struct img_option bench_options[] = {
    {IMG_COUNT, 'c', "count", "N", "requests in all (75000)"},
    {IMG_DEPTH, 'd', "depth", "N", "requests at a time (64)"},
    OPT_FORMAT,
    {IMG_FLUSH_INTERVAL, 0, "flush-interval", "N", "flush after so many writes"},
    {IMG_AIO, 'i', "aio", "MODE", "threads, native or io_uring"},
    {IMG_NATIVE, 'n', "native", NULL, "the same as -i native"},
    {IMG_NO_DRAIN, 0, "no-drain", NULL, "do not wait for requests before a flush"},
    {IMG_OFFSET, 'o', "offset", "OFFSET", "where the first request starts"},
    {IMG_PATTERN, 0, "pattern", "BYTE", "what is written"},
    OPT_QUIET,
    {IMG_BUFFER, 's', "buffer-size", "SIZE", "bytes of a request (4096)"},
    {IMG_STEP, 'S', "step-size", "SIZE", "from one request's start to the next one's"},
    OPT_CACHE,
    {IMG_WRITE, 'w', "write", NULL, "write; without it, read"},
    OPT_SHARE, OPT_IMAGE_OPTS, OPT_END,
};
static const struct img_option bitmap_options[] = {
    {IMG_ADD, 0, "add", NULL, "create the bitmap"},
    {IMG_REMOVE, 0, "remove", NULL, "delete it"},
    {IMG_CLEAR, 0, "clear", NULL, "forget what it recorded"},
    {IMG_ENABLE, 0, "enable", NULL, "let it record writes from now on"},
    {IMG_DISABLE, 0, "disable", NULL, "let it stop recording"},
    {IMG_MERGE, 0, "merge", "SOURCE", "add what the bitmap SOURCE recorded"},
    {IMG_BACKING, 'b', "source-file", "FILE", "the image that holds SOURCE"},
    {IMG_BACKING_FORMAT, 'F', "source-format", "FMT", "its format"},
    {IMG_GRANULARITY, 'g', "granularity", "SIZE", "bytes that one bit of a new bitmap stands for"},
    OPT_FORMAT, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option check_options[] = {
    OPT_FORMAT, OPT_OUTPUT,
    {IMG_REPAIR, 'r', "repair", "leaks|all", "repair leaks, or all that is found"},
    {IMG_SRC_CACHE, 'T', "source-cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
    OPT_QUIET, OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option commit_options[] = {
    OPT_FORMAT, OPT_CACHE,
    {IMG_BACKING, 'b', "base", "BASE", "the image of the backing chain to commit into"},
    {IMG_RATE, 'r', "rate-limit", "RATE", "at most so many bytes a second"},
    {IMG_KEEP, 'd', NULL, NULL, "leave the image as it is; without it, it is emptied"},
    OPT_PROGRESS, OPT_QUIET, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option compare_options[] = {
    {IMG_FORMAT, 'f', NULL, "FMT", "the first image's format"},
    {IMG_FORMAT2, 'F', NULL, "FMT", "the second image's format"},
    OPT_SRC_CACHE, OPT_PROGRESS, OPT_QUIET,
    {IMG_STRICT, 's', "strict", NULL, "sizes and allocation must be equal too"},
    OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option convert_options[] = {
    {IMG_FORMAT, 'f', "source-format", "FMT", "the sources' format"},
    {IMG_OUT_FORMAT, 'O', "target-format", "FMT", "the target's format (raw)"},
    {IMG_OPTIONS, 'o', NULL, "OPTIONS", "format options of the target; '-o help' lists them"},
    {IMG_COMPRESS, 'c', "compress", NULL, "compress"},
    {IMG_BACKING, 'B', "backing", "FILE", "the target's backing file; what equals it is not copied"},
    {IMG_BACKING_FORMAT, 'F', "backing-format", "FMT", "its format"},
    {IMG_SNAPSHOT, 'l', "snapshot", "SNAPSHOT", "an internal snapshot of the source instead of its current state"},
    {IMG_SPARSE, 'S', "sparse-size", "SIZE", "smallest run of zeroes that is left out (4k); 0: write all"},
    {IMG_NO_CREATE, 'n', "no-create", NULL, "the target exists"},
    {IMG_TARGET_ZERO, 0, "target-is-zero", NULL, "the target reads as zeroes (with -n)"},
    {IMG_BITMAPS, 0, "bitmaps", NULL, "copy persistent bitmaps too"},
    {IMG_SKIP_BROKEN, 0, "skip-broken-bitmaps", NULL, "leave inconsistent bitmaps out"},
    {IMG_SALVAGE, 0, "salvage", NULL, "where the source cannot be read, put zeroes"},
    {IMG_OFFLOAD, 'C', "copy-range-offloading", NULL, "let the kernel copy; done anyway where it can"},
    {IMG_JOBS, 'm', "parallel", "N", "requests at a time, 1 to 16 (8)"},
    {IMG_OUT_OF_ORDER, 'W', "oob", NULL, "write out of order"},
    {IMG_RATE, 'r', "rate-limit", "RATE", "at most so many bytes a second"},
    OPT_CACHE, OPT_SRC_CACHE, OPT_PROGRESS, OPT_QUIET, OPT_SHARE, OPT_IMAGE_OPTS,
    {IMG_TARGET_IMAGE_OPTS, 0, "target-image-opts", NULL, "the target's name is a list of key=value (with -n)"},
    OPT_OBJECT, OPT_END,
};
static const struct img_option create_options[] = {
    {IMG_FORMAT, 'f', "format", "FMT", "the format (raw)"},
    {IMG_OPTIONS, 'o', NULL, "OPTIONS", "format options; '-o help' lists them"},
    {IMG_BACKING, 'b', "backing", "FILE", "the backing file"},
    {IMG_BACKING_FORMAT, 'F', "backing-format", "FMT", "its format; must be given with -b"},
    {IMG_UNSAFE, 'u', "backing-unsafe", NULL, "do not open the backing file"},
    OPT_QUIET, OPT_OBJECT, OPT_END,
};
static const struct img_option dd_options[] = {
    OPT_FORMAT,
    {IMG_OUT_FORMAT, 'O', "output-format", "FMT", "the target's format (raw)"},
    OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option import_options[] = {
    {IMG_OUT_FORMAT, 'O', "target-format", "FMT", "the images' format (qcow2)"},
    {IMG_DIRECTORY, 'd', "directory", "DIR", "where the images go (the current directory)"},
    {IMG_NAME, 'n', "name", "NAME", "the machine's name; without it, the appliance's"},
    OPT_PROGRESS, OPT_QUIET, OPT_END,
};
static const struct img_option info_options[] = {
    OPT_FORMAT, OPT_OUTPUT,
    {IMG_CHAIN, 0, "backing-chain", NULL, "all images of the backing chain"},
    OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option io_options[] = {
    {IMG_COMMAND, 'c', "cmd", "COMMAND", "a command to do; without any, they come from standard input"},
    OPT_FORMAT,
    {IMG_READ_ONLY, 'r', "read-only", NULL, "open the image for reading only"},
    {IMG_NO_CACHE, 'n', "nocache", NULL, "the same as -t none"},
    OPT_CACHE,
    {IMG_DISCARD, 'd', "discard", "MODE", "ignore or unmap"},
    {IMG_AIO, 'i', "aio", "MODE", "accepted for qemu-io's sake"},
    {IMG_NATIVE, 'k', "native-aio", NULL, "accepted for qemu-io's sake"},
    {IMG_MISALIGN, 'm', "misalign", NULL, "accepted for qemu-io's sake"},
    OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option map_options[] = {
    OPT_FORMAT, OPT_OUTPUT,
    {IMG_START, 's', "start-offset", "OFFSET", "where to start"},
    {IMG_LENGTH, 'l', "max-length", "LENGTH", "how far to look"},
    OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option measure_options[] = {
    OPT_FORMAT,
    {IMG_OUT_FORMAT, 'O', "target-format", "FMT", "the format of the image to come (raw)"},
    {IMG_OPTIONS, 'o', NULL, "OPTIONS", "its format options"},
    {IMG_SIZE, 's', "size", "N", "a new image of so many bytes, in place of a file"},
    {IMG_SNAPSHOT, 'l', "snapshot", "SNAPSHOT", "an internal snapshot of the file"},
    OPT_OUTPUT, OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option rebase_options[] = {
    {IMG_BACKING, 'b', "backing", "FILE", "the new backing file; '' for none"},
    {IMG_BACKING_FORMAT, 'F', "backing-format", "FMT", "its format"},
    {IMG_UNSAFE, 'u', "backing-unsafe", NULL, "change the name only; the contents are known to be the same"},
    OPT_FORMAT, OPT_CACHE, OPT_SRC_CACHE, OPT_PROGRESS, OPT_QUIET, OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option resize_options[] = {
    OPT_FORMAT,
    {IMG_PREALLOC, 0, "preallocation", "MODE", "off, metadata, falloc or full, for what is new"},
    {IMG_SHRINK, 0, "shrink", NULL, "allow losing what is behind the new end"},
    OPT_QUIET, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};
static const struct img_option snapshot_options[] = {
    {IMG_LIST, 'l', "list", NULL, "list snapshots"},
    {IMG_ACTION_CREATE, 'c', "create", "SNAPSHOT", "create one"},
    {IMG_ACTION_APPLY, 'a', "apply", "SNAPSHOT", "go back to it"},
    {IMG_ACTION_DELETE, 'd', "delete", "SNAPSHOT", "delete it"},
    OPT_FORMAT, OPT_QUIET, OPT_SHARE, OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};

static const struct img_option serve_options[] = {
    {IMG_SOCKET, 'k', "socket", "PATH", "listen on a UNIX socket"},
    {IMG_PORT, 'p', "port", "PORT", "listen on a TCP port (10809)"},
    {IMG_BIND, 'b', "bind", "ADDRESS", "at this address (127.0.0.1)"},
    {IMG_SHARED, 'e', "shared", "N", "clients at a time; 0, the default: as many as come"},
    {IMG_PERSISTENT, 't', "persistent", NULL, "go on when the last client has left"},
    {IMG_EXPORT, 'x', "export-name", "NAME", "the export's name ('')"},
    {IMG_DESCRIPTION, 'D', "description", "TEXT", "what clients are told of it"},
    {IMG_READ_ONLY, 'r', "read-only", NULL, "let nobody write"},
    {IMG_TEMPORARY, 's', "snapshot", NULL, "keep writes in a temporary file that vanishes"},
    {IMG_SNAPSHOT, 'l', "load-snapshot", "SNAPSHOT", "an internal snapshot, read-only"},
    {IMG_OFFSET, 'o', "offset", "OFFSET", "leave out so many bytes at the image's start"},
    {IMG_BITMAP, 'B', "bitmap", "NAME", "offer a dirty bitmap as qemu:dirty-bitmap:NAME"},
    {IMG_DEPTH_CONTEXT, 'A', "allocation-depth", NULL, "offer qemu:allocation-depth"},
    OPT_FORMAT,
    {IMG_NO_CACHE, 'n', "nocache", NULL, "the same as --cache=none"},
    {IMG_CACHE, 0, "cache", "CACHE", "none, writeback, writethrough, directsync or unsafe"},
    {IMG_DISCARD, 0, "discard", "MODE", "ignore, or unmap: discards free space in the file"},
    {IMG_AIO, 0, "aio", "MODE", "accepted for qemu-nbd's sake"},
    {IMG_FORK, 0, "fork", NULL, "go to the background once clients can connect"},
    {IMG_PID_FILE, 0, "pid-file", "FILE", "write the process's number there"},
    {IMG_VERBOSE, 'v', "verbose", NULL, "accepted for qemu-nbd's sake"},
    OPT_IMAGE_OPTS, OPT_OBJECT, OPT_END,
};

static int run_help(struct img *img, int argc, char **argv);

/* In the order of --help. */
const struct img_verb img_verbs[] = {
    {"amend", "change format options", "FILE", amend_options, img_amend},
    {"bench", "time reads or writes", "FILE", bench_options, img_bench},
    {"bitmap", "change persistent dirty bitmaps", "FILE BITMAP", bitmap_options, img_bitmap},
    {"check", "check an image's structure, and repair it", "FILE", check_options, img_check},
    {"commit", "write an image's changes into its backing file", "FILE", commit_options, img_commit},
    {"compare", "compare the contents of two images", "FILE FILE", compare_options, img_compare},
    {"convert", "copy an image into another format", "FILE... TARGET", convert_options, img_convert},
    {"create", "make an empty image", "FILE [SIZE]", create_options, img_create},
    {"dd", "copy blocks", "[bs=SIZE] [count=N] [skip=N] if=FILE of=FILE", dd_options, img_dd},
    {"import", "make images and a domain document of an appliance (OVA, OVF)", "FILE", import_options, img_import},
    {"info", "show an image's format, sizes, snapshots", "FILE", info_options, img_info},
    {"io", "read and write an image by commands", "[FILE]", io_options, img_io},
    {"map", "show where an image's contents are stored", "FILE", map_options, img_map},
    {"measure", "tell how large an image would become", "[FILE]", measure_options, img_measure},
    {"rebase", "change the backing file", "FILE", rebase_options, img_rebase},
    {"resize", "change the virtual size", "FILE [+|-]SIZE", resize_options, img_resize},
    {"serve", "serve an image by NBD", "FILE", serve_options, img_serve},
    {"snapshot", "internal snapshots", "FILE", snapshot_options, img_snapshot},
    {"help", "explain a verb", "[VERB]", NULL, run_help},
    {NULL},
};

static const struct img_verb *verb_find(const char *name)
{
    for (const struct img_verb *v = img_verbs; v->name; v++)
        if (!strcmp(v->name, name))
            return v;
    return NULL;
}

int img_error(const struct img *img, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "%s: ", img->program);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return IMG_ERROR;
}

int img_usage(const struct img *img, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "%s: ", img->program);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nTry '%s %s%s--help' for more information\n", img->program, img->verb ? img->verb->name : "",
            img->verb ? " " : "");
    return IMG_ERROR;
}

void img_warn(const struct img *img, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "%s: warning: ", img->program);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

static void help_program(const char *program)
{
    printf("Usage: %s VERB [OPTION]... [ARGUMENT]...\nDisk images.\n\nVerbs:\n", program);
    for (const struct img_verb *v = img_verbs; v->name; v++)
        printf("  %-12s%s\n", v->name, v->summary);
    printf("\n  -h, --help     this help; %s VERB --help explains a verb\n"
           "  -V, --version  print the version\n\n"
           "A size is a number of bytes, or one with k, M, G, T, P or E (powers of 1024).\nSupported formats:",
           program);
    img_formats(stdout);
    putchar('\n');
}

void img_help(const struct img *img, const struct img_verb *verb)
{
    printf("Usage: %s %s%s %s\n%c%s.\n", img->program, verb->name, verb->options ? " [OPTION]..." : "", verb->args,
           verb->summary[0] - 'a' + 'A', verb->summary + 1);
    if (verb->options)
        fputs("\nOptions:\n", stdout);
    for (const struct img_option *o = verb->options; o && o->help; o++) {
        char letter[] = {'-', o->letter, o->name ? ',' : 0, 0};
        autofree char *left = xasprintf("%s%s%s%s%s", o->letter ? letter : "   ", o->name ? " --" : "",
                                        o->name ? o->name : "", o->arg ? " " : "", o->arg ? o->arg : "");
        if (strlen(left) > 28)
            printf("  %s\n%32s%s\n", left, "", o->help);
        else
            printf("  %-30s%s\n", left, o->help);
    }
}

static int run_help(struct img *img, int argc, char **argv)
{
    const struct img_verb *about;
    if (argc > 2)
        return img_usage(img, "too many arguments");
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        help_program(img->program);
        return IMG_OK;
    }
    if (!(about = verb_find(argv[1])))
        return img_usage(img, "Command not found: %s", argv[1]);
    img_help(img, about);
    return IMG_OK;
}

static int finish(struct img *img, int status)
{
    free(img->options);
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "%s: cannot write to standard output\n", img->program);
        return status ? status : IMG_ERROR;
    }
    return status;
}

int img_verb_main(const char *program, const char *name, int argc, char **argv)
{
    struct img img = {.program = program, .verb = verb_find(name)};
    if (argc == 2 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
        printf("%s version %s\n", program, LODGE_VERSION);
        return finish(&img, IMG_OK);
    }
    return finish(&img, img.verb->run(&img, argc, argv));
}

int img_main(const char *program, int argc, char **argv)
{
    struct img img = {.program = program};
    while (argc > 2 && !strcmp(argv[1], "-T")) { /* qemu-img's tracing: nothing to do here */
        argv += 2;
        argc -= 2;
    }
    if (argc < 2)
        return img_usage(&img, "Not enough arguments");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        help_program(program);
        return finish(&img, IMG_OK);
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        printf("%s version %s\n", program, LODGE_VERSION);
        return finish(&img, IMG_OK);
    }
    const struct img_verb *verb = verb_find(argv[1]);
    if (!verb)
        return img_usage(&img, argv[1][0] == '-' ? "unrecognized option '%s'" : "Command not found: %s", argv[1]);
    img.verb = verb;
    return finish(&img, verb->run(&img, argc - 1, argv + 1));
}

int cli_img(const struct cli_verb *verb, int argc, char **argv)
{
    return img_main("lodge img", argc, argv);
}
