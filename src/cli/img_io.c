/* `lodge img io`, also called as `qemu-io`: one image and commands on it, from -c or standard input. */
#include "cli/img_io.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"

enum { WORDS_MAX = 64 };

static void close_image(struct io *io)
{
    io_aio_flush(io, 0, NULL);
    blk_node_unref(io->node);
    free(io->name);
    io->node = NULL;
    io->name = NULL;
}

static int open_image(struct io *io, const char *name, const char *format, bool image_opts, unsigned flags,
                      struct blk_opts *more)
{
    struct err err = {0};
    auto_opts struct blk_opts *opts = more ? blk_opts_copy(more) : blk_opts_new();
    int code = 0;
    if (io->node) {
        fprintf(stderr, "file open already, try 'help close'\n");
        return -EBUSY;
    }
    if (image_opts)
        code = blk_opts_parse(opts, name, &err);
    if (code == 0)
        code = blk_node_open(image_opts ? NULL : name, format, opts, flags, &io->node, &err);
    if (code < 0) {
        io->node = NULL;
        fprintf(stderr, "%s: can't open%s%s: %s\n", io->img->program, name ? " device " : "", name ? name : "",
                name ? img_without_name(err.msg, name) : err.msg);
        return code;
    }
    io->flags = flags;
    io->name = xstrdup(name ? name : "");
    return 0;
}

static int cache_flags(const char *mode, unsigned *flags)
{
    struct img img = {.program = "io", .value[IMG_CACHE] = mode, .count[IMG_CACHE] = 1};
    return img_cache_flags(&img, IMG_CACHE, mode, "cache option", flags) < 0 ? -EINVAL : 0;
}

static int cmd_open(struct io *io, int argc, char **argv)
{
    unsigned flags = BLK_O_RDWR | BLK_O_UNMAP, cache;
    auto_opts struct blk_opts *opts = blk_opts_new();
    struct err err = {0};
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt(argc, argv, "rsCnkUo:t:d:")) != -1;) {
        switch (c) {
        case 'r':
            flags &= ~(unsigned)BLK_O_RDWR;
            break;
        case 'n':
            flags |= BLK_O_DIRECT;
            break;
        case 'U':
            flags |= BLK_O_FORCE_SHARE;
            break;
        case 't':
            if (cache_flags(optarg, &cache) < 0)
                return -EINVAL;
            flags |= cache;
            break;
        case 'd':
            if (!strcmp(optarg, "ignore") || !strcmp(optarg, "off"))
                flags &= ~(unsigned)BLK_O_UNMAP;
            break;
        case 'o':
            if (blk_opts_parse(opts, optarg, &err) < 0) {
                fprintf(stderr, "%s\n", err.msg);
                return -EINVAL;
            }
            break;
        case 'k':
            break;
        default:
            fprintf(stderr, "open: option -%c is not supported\n", optopt ? optopt : c);
            return -EINVAL;
        }
    }
    if ((flags & BLK_O_FORCE_SHARE) && (flags & BLK_O_RDWR)) {
        fprintf(stderr, "open: -U needs -r\n");
        return -EINVAL;
    }
    return open_image(io, optind < argc ? argv[optind] : NULL, NULL, false, flags, opts);
}

static int cmd_close(struct io *io, int argc, char **argv)
{
    close_image(io);
    return 0;
}

static int cmd_reopen(struct io *io, int argc, char **argv)
{
    unsigned flags = io->flags, cache;
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt(argc, argv, "rwc:")) != -1;) {
        if (c == 'r')
            flags &= ~(unsigned)BLK_O_RDWR;
        else if (c == 'w')
            flags |= BLK_O_RDWR;
        else if (c != 'c' || cache_flags(optarg, &cache) < 0)
            return -EINVAL;
        else
            flags = (flags & ~(unsigned)(BLK_O_DIRECT | BLK_O_NO_FLUSH | BLK_O_WRITETHROUGH)) | cache;
    }
    autofree char *name = xstrdup(io->name), *format = xstrdup(io->node->drv->name);
    close_image(io);
    return open_image(io, name, format, false, flags, NULL);
}

static int cmd_flush(struct io *io, int argc, char **argv)
{
    int code = blk_pflush(io->node);
    if (code < 0)
        printf("flush failed: %s\n", strerror(-code));
    return code;
}

static int cmd_length(struct io *io, int argc, char **argv)
{
    char text[32];
    puts(io_size_text((double)(uint64_t)io->node->size, text));
    return 0;
}

static int cmd_truncate(struct io *io, int argc, char **argv)
{
    enum blk_prealloc prealloc = BLK_PREALLOC_OFF;
    struct err err = {0};
    int64_t size;
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt(argc, argv, "m:")) != -1;)
        if (c != 'm' || blk_prealloc_parse(optarg, &prealloc, &err) < 0) {
            fprintf(stderr, "truncate: %s\n", err.code ? err.msg : "only -m is understood");
            return -EINVAL;
        }
    if (optind >= argc || io_size(argv[optind], &size) < 0)
        return -EINVAL;
    int code = blk_truncate(io->node, (uint64_t)size, prealloc, true, &err);
    if (code < 0)
        img_error(io->img, "%s", err.msg);
    return code;
}

static int cmd_info(struct io *io, int argc, char **argv)
{
    struct blk_info info;
    struct err err = {0};
    char cluster[32], vm[32];
    int code = blk_get_info(io->node, &info, &err);
    if (code < 0) {
        img_error(io->img, "%s", err.msg);
        return code;
    }
    printf("format name: %s\ncluster size: %s\nvm state offset: %s\n", io->node->drv->name,
           io_size_text(info.cluster_size, cluster), io_size_text((double)info.vm_state_offset, vm));
    img_print_specific(info.specific);
    blk_info_clear(&info);
    return 0;
}

static int cmd_alloc(struct io *io, int argc, char **argv)
{
    int64_t offset, count = 512;
    char text[32];
    if (io_size(argv[1], &offset) < 0 || (argc > 2 && io_size(argv[2], &count) < 0))
        return -EINVAL;
    uint64_t allocated = 0;
    for (uint64_t done = 0; done < (uint64_t)count;) {
        struct blk_extent e;
        int code = blk_block_status(io->node, (uint64_t)offset + done, (uint64_t)count - done, false, &e);
        if (code < 0 || !e.len) {
            printf("is_allocated failed: %s\n", strerror(code < 0 ? -code : EINVAL));
            return code < 0 ? code : -EINVAL;
        }
        allocated += e.flags & BLK_STATUS_ALLOCATED ? e.len : 0;
        done += e.len;
    }
    printf("%" PRIu64 "/%" PRId64 " bytes allocated at offset %s\n", allocated, count, io_size_text((double)offset, text));
    return 0;
}

static int cmd_map(struct io *io, int argc, char **argv)
{
    uint64_t size = io->node->size;
    for (uint64_t pos = 0; pos < size;) {
        uint64_t start = pos;
        bool allocated = false;
        while (pos < size) {
            struct blk_extent e;
            int code = blk_block_status(io->node, pos, size - pos, false, &e);
            if (code < 0 || !e.len) {
                printf("Failed to get allocation status: %s\n", strerror(-code));
                return code ? code : -EIO;
            }
            bool here = e.flags & BLK_STATUS_ALLOCATED;
            if (pos > start && here != allocated)
                break;
            allocated = here;
            pos += e.len;
        }
        char len[32], off[32];
        printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n",
               io_size_text((double)(pos - start), len), pos - start, allocated ? "   " : "not",
               io_size_text((double)start, off), start);
    }
    return 0;
}

static int cmd_sleep(struct io *io, int argc, char **argv)
{
    char *end;
    long ms = strtol(argv[1], &end, 0);
    if (*end || ms < 0) {
        printf("%s is not a number of milliseconds\n", argv[1]);
        return -EINVAL;
    }
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    return 0;
}

static int cmd_sigraise(struct io *io, int argc, char **argv)
{
    char *end;
    long sig = strtol(argv[1], &end, 0);
    if (*end || sig < 1 || sig > NSIG) {
        printf("signal argument '%s' is too large to be a valid signal number\n", argv[1]);
        return -EINVAL;
    }
    fflush(stdout);
    raise((int)sig);
    return 0;
}

static int cmd_abort(struct io *io, int argc, char **argv)
{
    fflush(stdout);
    abort(); /* what it is for: a program that dies in the middle */
}

static int cmd_quit(struct io *io, int argc, char **argv)
{
    io->quit = true;
    return 0;
}

static int cmd_help(struct io *io, int argc, char **argv);

const struct io_command io_commands[] = {
    {"abort", NULL, "", "end the program as a crash would", 0, 0, false, NULL, cmd_abort},
    {"aio_flush", NULL, "", "wait for all asynchronous requests", 0, 0, true, NULL, io_aio_flush},
    {"aio_read", NULL, "[-Ciqv] [-P pattern] off len [len..]", "read in the background", 2, -1, true,
     "Errors are reported, but do not make the command fail.", io_aio_read},
    {"aio_write", NULL, "[-Cfiquz] [-P pattern] off len [len..]", "write in the background", 2, -1, true,
     "Errors are reported, but do not make the command fail.", io_aio_write},
    {"alloc", NULL, "offset [count]", "tell how many bytes the image itself holds", 1, 2, true, NULL, cmd_alloc},
    {"close", "c", "", "close the image", 0, 0, true, NULL, cmd_close},
    {"discard", "d", "[-Cq] off len", "discard bytes", 2, -1, true, NULL, io_discard},
    {"flush", "f", "", "make all that was written durable", 0, 0, true, NULL, cmd_flush},
    {"help", "?", "[command]", "list the commands, or explain one", 0, 1, false, NULL, cmd_help},
    {"info", "i", "", "show the image's format", 0, 0, true, NULL, cmd_info},
    {"length", "l", "", "show the image's size", 0, 0, true, NULL, cmd_length},
    {"map", NULL, "", "show which parts the image itself holds", 0, 0, true, NULL, cmd_map},
    {"open", "o", "[-rnkU] [-t cache] [-d discard] [-o options] [path]", "open an image", 0, -1, false,
     "-r read-only, -n past the host's cache, -U even if another process writes it, -t cache mode,\n-d unmap or ignore, -o "
     "key=value options.",
     cmd_open},
    {"quit", "q", "", "leave", 0, 0, false, NULL, cmd_quit},
    {"read", "r", "[-abCqv] [-P pattern [-s off] [-l len]] off len", "read bytes", 2, -1, true,
     "-P checks that all bytes, or those from -s on for -l, are the pattern; -v shows them; -b reads the\nVM state; -C reports "
     "for programs, -q not at all.",
     io_read},
    {"readv", "rv", "[-Cqv] [-P pattern] off len [len..]", "read bytes into several buffers", 2, -1, true, NULL, io_readv},
    {"reopen", NULL, "[(-r|-w)] [-c cache]", "open the image anew, otherwise", 0, -1, true, NULL, cmd_reopen},
    {"sigraise", NULL, "signal", "send a signal to this program", 1, 1, false, NULL, cmd_sigraise},
    {"sleep", NULL, "ms", "wait", 1, 1, false, NULL, cmd_sleep},
    {"truncate", "t", "[-m prealloc_mode] off", "change the image's size", 1, -1, true, NULL, cmd_truncate},
    {"write", "w", "[-bcCfnquz] [-P pattern | -s source_file] off len", "write bytes", 2, -1, true,
     "-P pattern byte (0xcd), -s bytes from a file, -z zeroes (-u may unmap, -n not slowly), -c compressed,\n-f durable when "
     "done, -b into the VM state; -C reports for programs, -q not at all.",
     io_write},
    {"writev", "wv", "[-Cfq] [-P pattern] off len [len..]", "write bytes from several buffers", 2, -1, true, NULL, io_writev},
    {NULL},
};

static const struct io_command *find(const char *name)
{
    for (const struct io_command *c = io_commands; c->name; c++)
        if (!strcmp(c->name, name) || (c->alias && !strcmp(c->alias, name)))
            return c;
    return NULL;
}

static int cmd_help(struct io *io, int argc, char **argv)
{
    const struct io_command *c = argc > 1 ? find(argv[1]) : NULL;
    if (argc > 1 && !c) {
        printf("command %s not found\n", argv[1]);
        return -EINVAL;
    }
    for (const struct io_command *k = c ? c : io_commands; k->name; k++) {
        printf("%s %s -- %s\n", k->name, k->args, k->summary);
        if (c) {
            if (c->help)
                printf("\n%s\n", c->help);
            return 0;
        }
    }
    puts("\nUse 'help commandname' for extended help.");
    return 0;
}

/* One line of commands' words. 0 or -errno. */
static int run_line(struct io *io, const char *line)
{
    autofree char *copy = xstrdup(line);
    char *words[WORDS_MAX + 1], *save = NULL;
    int n = 0;
    for (char *w = strtok_r(copy, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save)) {
        if (n == WORDS_MAX) {
            fprintf(stderr, "more than %d words\n", WORDS_MAX);
            return -E2BIG;
        }
        words[n++] = w;
    }
    words[n] = NULL;
    if (!n)
        return 0;
    const struct io_command *c = find(words[0]);
    if (!c) {
        fprintf(stderr, "command \"%s\" not found\n", words[0]);
        return -EINVAL;
    }
    if (c->needs_file && !io->node) {
        fprintf(stderr, "no file open, try 'help open'\n");
        return -EINVAL;
    }
    if (n - 1 < c->min || (c->max >= 0 && n - 1 > c->max)) {
        if (c->max < 0)
            fprintf(stderr, "bad argument count %d to %s, expected at least %d arguments\n", n - 1, c->name, c->min);
        else if (c->min == c->max)
            fprintf(stderr, "bad argument count %d to %s, expected %d arguments\n", n - 1, c->name, c->min);
        else
            fprintf(stderr, "bad argument count %d to %s, expected between %d and %d arguments\n", n - 1, c->name, c->min,
                    c->max);
        return -EINVAL;
    }
    return c->run(io, n, words);
}

static int interactive(struct io *io)
{
    autofree char *line = NULL;
    size_t room = 0;
    int status = IMG_OK;
    while (!io->quit) {
        printf("%s> ", strcmp(io->img->program, "qemu-io") ? "io" : "qemu-io");
        fflush(stdout);
        if (getline(&line, &room, stdin) < 0)
            break;
        if (run_line(io, line) < 0)
            status = IMG_ERROR;
    }
    return status;
}

int img_io(struct img *img, int argc, char **argv)
{
    struct io io = {.img = img, .print = PTHREAD_MUTEX_INITIALIZER};
    unsigned flags;
    int r = img_parse(img, argc, argv);
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if (img->n_args > 1)
        return img_usage(img, "Expecting one image file name");
    if (img_cache_flags(img, IMG_CACHE, img_has(img, IMG_NO_CACHE) ? "none" : "writeback", "cache option", &flags) < 0)
        return IMG_ERROR;
    const char *discard = img->value[IMG_DISCARD];
    if (discard && strcmp(discard, "unmap") && strcmp(discard, "on") && strcmp(discard, "ignore") && strcmp(discard, "off"))
        return img_error(img, "Invalid discard option: %s", discard);
    if (!discard || *discard == 'u' || !strcmp(discard, "on"))
        flags |= BLK_O_UNMAP;
    flags |= img_has(img, IMG_READ_ONLY) ? 0 : BLK_O_RDWR;
    flags |= img_has(img, IMG_FORCE_SHARE) ? BLK_O_FORCE_SHARE : 0;
    if ((flags & BLK_O_FORCE_SHARE) && (flags & BLK_O_RDWR))
        return img_error(img, "force-share=on can only be used with read-only images");
    if (img->n_args &&
        open_image(&io, img->args[0], img->value[IMG_FORMAT], img_has(img, IMG_IMAGE_OPTS), flags, NULL) < 0)
        return IMG_ERROR;
    int status = IMG_OK;
    bool commands = img_has(img, IMG_COMMAND);
    for (unsigned i = 0; i < img->n_given && !io.quit; i++)
        if (img->given[i].key == IMG_COMMAND && run_line(&io, img->given[i].value) < 0)
            status = IMG_ERROR;
    if (!commands)
        status = interactive(&io);
    int code = io.node && !io.node->read_only ? blk_pflush(io.node) : 0;
    if (code < 0)
        status = img_error(img, "%s: cannot flush: %s", io.name, strerror(-code));
    close_image(&io);
    return status;
}
