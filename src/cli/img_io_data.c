/* `lodge img io`: the commands that read and write, and what they report. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "cli/img_io.h"

enum { FILL = 0xcd, REQUEST_MAX = 2047 << 20, DUMP = 16, AIO_MAX = 256 };

/* What a command's options ask for. */
struct request {
    bool write, verbose, quiet, machine, zero, unmap, no_fallback, compressed, fua, vmstate, invalid;
    int pattern; /* -1: none */
    const char *source;
    int64_t offset, len, check_offset, check_len; /* check_len -1: all */
    unsigned pieces;
};

struct io_job {
    struct io_job *next;
    struct io *io;
    struct request r;
    uint8_t *buf;
    pthread_t thread;
};

const char *io_size_text(double size, char buf[static 32])
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{0x1p60, " EiB"}, {0x1p50, " PiB"}, {0x1p40, " TiB"}, {0x1p30, " GiB"}, {0x1p20, " MiB"}, {0x1p10, " KiB"}};
    const char *name = " bytes";
    for (unsigned i = 0; i < ARRAY_SIZE(units); i++)
        if (size >= units[i].unit) {
            size /= units[i].unit;
            name = units[i].name;
            break;
        }
    int n = snprintf(buf, 32, "%.3f", size);
    if (n > 4 && !strcmp(buf + n - 4, ".000"))
        n -= 4;
    snprintf(buf + n, 32 - (size_t)n, "%s", name);
    return buf;
}

int io_size(const char *text, int64_t *ret)
{
    int code = img_parse_size(text, ret);
    if (code == -ERANGE)
        printf("Parsing error: argument too large -- %s\n", text);
    else if (code < 0)
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", text);
    return code < 0 ? -EINVAL : 0;
}

static int parse_pattern(const char *text)
{
    char *end;
    long v = strtol(text, &end, 0);
    if (end == text || *end || v < 0 || v > 255) {
        printf("%s is not a valid pattern byte\n", text);
        return -1;
    }
    return (int)v;
}

static void report(const struct request *r, const char *verb, uint64_t ns)
{
    char total[32], rate[32];
    double seconds = (double)ns / 1e9, per = seconds > 0 ? (double)r->len / seconds : 0, ops = seconds > 0 ? 1 / seconds : 0;
    unsigned cs = (unsigned)(ns / 10000000), s = cs / 100;
    if (r->quiet)
        return;
    if (r->machine) {
        printf("%" PRId64 ",1,%u:%02u:%02u.%02u,%.3f,%.3f\n", r->len, s / 3600, s / 60 % 60, s % 60, cs % 100, per, ops);
        return;
    }
    printf("%s %" PRId64 "/%" PRId64 " bytes at offset %" PRId64 "\n", verb, r->len, r->len, r->offset);
    printf("%s, 1 ops; %02u.%02u sec (%s/sec and %.4f ops/sec)\n", io_size_text((double)r->len, total), s, cs % 100,
           io_size_text(per, rate), ops);
}

static void dump(const uint8_t *buf, int64_t offset, int64_t len)
{
    for (int64_t at = 0; at < len; at += DUMP) {
        int n = (int)MIN(len - at, (int64_t)DUMP);
        printf("%08" PRIx64 ":  ", (uint64_t)(offset + at));
        for (int i = 0; i < DUMP; i++) {
            if (i < n)
                printf("%02x ", buf[at + i]);
            else
                fputs("   ", stdout);
        }
        putchar(' ');
        for (int i = 0; i < n; i++)
            putchar(isalnum(buf[at + i]) ? buf[at + i] : '.');
        putchar('\n');
    }
}

/* ---- doing it ---- */

static int transfer(struct io *io, const struct request *r, uint8_t *buf)
{
    uint64_t at = (uint64_t)r->offset, len = (uint64_t)r->len;
    unsigned flags = (r->fua ? BLK_F_FUA : 0) | (r->unmap ? BLK_F_UNMAP : 0) | (r->no_fallback ? BLK_F_NO_FALLBACK : 0);
    if (!r->write)
        return r->vmstate ? blk_vmstate_read(io->node, at, buf, len) : blk_pread(io->node, at, buf, len);
    if (r->vmstate)
        return blk_vmstate_write(io->node, at, buf, len);
    if (r->zero)
        return blk_pwrite_zeroes(io->node, at, len, flags);
    return blk_pwrite(io->node, at, buf, len, flags | (r->compressed ? BLK_F_COMPRESSED : 0));
}

/* Transfers, checks, reports. 0 or -errno. */
static int perform(struct io *io, const struct request *r, uint8_t *buf)
{
    uint64_t start = clock_host_ns();
    int code = transfer(io, r, buf);
    uint64_t ns = clock_host_ns() - start;
    pthread_mutex_lock(&io->print);
    if (code == -EINVAL && r->offset + r->len > (int64_t)io->node->size)
        code = -EIO; /* behind the end */
    if (code < 0)
        printf("%s failed: %s\n", r->write ? "write" : "read", strerror(-code));
    if (code == 0 && !r->write && r->pattern >= 0) {
        int64_t from = r->check_offset, len = r->check_len < 0 ? r->len - from : r->check_len;
        for (int64_t i = 0; i < len && code == 0; i++)
            if (buf[from + i] != r->pattern)
                code = -EINVAL;
        if (code < 0)
            printf("Pattern verification failed at offset %" PRId64 ", %" PRId64 " bytes\n", r->offset + from, len);
    }
    if (code == 0 || code == -EINVAL) {
        if (r->verbose && !r->write)
            dump(buf, r->offset, r->len);
        report(r, r->write ? "wrote" : "read", ns);
    }
    fflush(stdout);
    pthread_mutex_unlock(&io->print);
    return code;
}

/* The buffer of a request: what is written, or where it is read to. NULL after an error. */
static uint8_t *make_buffer(const struct request *r)
{
    void *buf;
    size_t len = (size_t)MAX(r->len, (int64_t)1);
    if (r->zero)
        return malloc(1);
    if (posix_memalign(&buf, 4096, len)) {
        printf("cannot get %zu bytes of memory\n", len);
        return NULL;
    }
    memset(buf, r->write ? r->pattern >= 0 ? r->pattern : FILL : 0xab, len);
    if (!r->source)
        return buf;
    FILE *f = fopen(r->source, "re");
    size_t n = f ? fread(buf, 1, len, f) : 0;
    if (!n) {
        fprintf(stderr, "%s: %s\n", r->source, f ? "file is empty" : strerror(errno));
        free(buf);
        buf = NULL;
    }
    for (size_t i = n; buf && i < len; i++) /* over and over */
        ((uint8_t *)buf)[i] = ((uint8_t *)buf)[i - n];
    if (f)
        fclose(f);
    return buf;
}

/* ---- parsing ---- */

/* Options into *r; the rest of the words start at optind. 0 or -EINVAL. */
static int parse(int argc, char **argv, const char *options, bool write, struct request *r)
{
    *r = (struct request){.write = write, .pattern = -1, .check_len = -1};
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt(argc, argv, options)) != -1;) {
        switch (c) {
        case 'a': /* all is aligned as it must be anyway */
        case 'p':
            break;
        case 'b':
            r->vmstate = true;
            break;
        case 'c':
            r->compressed = true;
            break;
        case 'C':
            r->machine = true;
            break;
        case 'f':
            r->fua = true;
            break;
        case 'i':
            r->invalid = true;
            break;
        case 'l':
            if (io_size(optarg, &r->check_len) < 0)
                return -EINVAL;
            break;
        case 'n':
            r->no_fallback = true;
            break;
        case 'P':
            if ((r->pattern = parse_pattern(optarg)) < 0)
                return -EINVAL;
            break;
        case 'q':
            r->quiet = true;
            break;
        case 's':
            if (write)
                r->source = optarg;
            else if (io_size(optarg, &r->check_offset) < 0)
                return -EINVAL;
            break;
        case 'u':
            r->unmap = true;
            break;
        case 'v':
            r->verbose = true;
            break;
        case 'z':
            r->zero = true;
            break;
        default:
            fprintf(stderr, "%s: invalid option -- '%c' (see help %s)\n", argv[0], optopt, argv[0]);
            return -EINVAL;
        }
    }
    if (argc - optind < 2) {
        fprintf(stderr, "bad argument count %d to %s, expected at least 2 arguments\n", argc - optind, argv[0]);
        return -EINVAL;
    }
    if (io_size(argv[optind], &r->offset) < 0)
        return -EINVAL;
    for (int i = optind + 1; i < argc; i++) {
        int64_t part;
        if (io_size(argv[i], &part) < 0)
            return -EINVAL;
        if (part > REQUEST_MAX || r->len + part > REQUEST_MAX) {
            if (!r->zero || part > INT64_MAX - r->len) {
                printf("length cannot exceed %d, given %s\n", REQUEST_MAX, argv[i]);
                return -EINVAL;
            }
        }
        r->len += part;
        r->pieces++;
    }
    if (r->zero && (r->pattern >= 0 || r->source)) {
        puts("-z and -P or -s cannot be specified at the same time");
        return -EINVAL;
    }
    if (r->unmap && !r->zero) {
        puts("-u requires -z to be specified");
        return -EINVAL;
    }
    if (r->no_fallback && !r->zero) {
        puts("-n requires -z to be specified");
        return -EINVAL;
    }
    if ((r->vmstate || r->compressed) && (r->offset % 512 || r->len % 512)) {
        int64_t bad = r->offset % 512 ? r->offset : r->len;
        printf("%" PRId64 " is not a sector-aligned value for '%s'\n", bad, r->offset % 512 ? "offset" : "count");
        return -EINVAL;
    }
    if (!write && (r->check_offset > r->len || (r->check_len >= 0 && r->check_len > r->len - r->check_offset))) {
        puts("pattern verification range exceeds end of read data");
        return -EINVAL;
    }
    return 0;
}

static int writable(const struct io *io)
{
    if (!io->node->read_only)
        return 0;
    img_error(io->img, "Block node is read-only");
    return -EROFS;
}

static int now(struct io *io, int argc, char **argv, const char *options, bool write, bool one)
{
    struct request r;
    int code = parse(argc, argv, options, write, &r);
    if (code == 0 && one && r.pieces != 1) {
        fprintf(stderr, "bad argument count %d to %s, expected 2 arguments\n", argc - optind, argv[0]);
        code = -EINVAL;
    }
    if (code == 0 && write)
        code = writable(io);
    if (code < 0)
        return code;
    autofree uint8_t *buf = make_buffer(&r);
    return buf ? perform(io, &r, buf) : -EINVAL;
}

int io_read(struct io *io, int argc, char **argv)
{
    return now(io, argc, argv, "abCl:pP:qs:v", false, true);
}

int io_readv(struct io *io, int argc, char **argv)
{
    return now(io, argc, argv, "CP:qv", false, false);
}

int io_write(struct io *io, int argc, char **argv)
{
    return now(io, argc, argv, "bcCfnpP:qs:uz", true, true);
}

int io_writev(struct io *io, int argc, char **argv)
{
    return now(io, argc, argv, "CfqP:", true, false);
}

/* ---- in the background ---- */

static void *job(void *opaque)
{
    struct io_job *j = opaque;
    perform(j->io, &j->r, j->buf);
    return NULL;
}

static int later(struct io *io, int argc, char **argv, const char *options, bool write)
{
    struct request r;
    unsigned running = 0;
    int code = parse(argc, argv, options, write, &r);
    if (code == 0 && write)
        code = writable(io);
    if (code < 0 || r.invalid)
        return code;
    for (const struct io_job *j = io->jobs; j; j = j->next)
        running++;
    if (running >= AIO_MAX)
        io_aio_flush(io, 0, NULL);
    struct io_job *j = xcalloc(1, sizeof *j);
    *j = (struct io_job){.io = io, .r = r, .buf = make_buffer(&r), .next = io->jobs};
    if (!j->buf || pthread_create(&j->thread, NULL, job, j)) {
        free(j->buf);
        free(j);
        return -ENOMEM;
    }
    io->jobs = j;
    return 0;
}

int io_aio_read(struct io *io, int argc, char **argv)
{
    return later(io, argc, argv, "CiP:qv", false);
}

int io_aio_write(struct io *io, int argc, char **argv)
{
    return later(io, argc, argv, "CfiP:quz", true);
}

int io_aio_flush(struct io *io, int argc, char **argv)
{
    for (struct io_job *j; (j = io->jobs);) {
        pthread_join(j->thread, NULL);
        io->jobs = j->next;
        free(j->buf);
        free(j);
    }
    return 0;
}

int io_discard(struct io *io, int argc, char **argv)
{
    struct request r = {.write = true};
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt(argc, argv, "Cq")) != -1;) {
        if (c == '?')
            return -EINVAL;
        r.machine |= c == 'C';
        r.quiet |= c == 'q';
    }
    if (argc - optind != 2) {
        fprintf(stderr, "bad argument count %d to discard, expected 2 arguments\n", argc - optind);
        return -EINVAL;
    }
    if (io_size(argv[optind], &r.offset) < 0 || io_size(argv[optind + 1], &r.len) < 0)
        return -EINVAL;
    int code = writable(io);
    if (code < 0)
        return code;
    uint64_t start = clock_host_ns();
    code = blk_pdiscard(io->node, (uint64_t)r.offset, (uint64_t)r.len);
    if (code < 0) {
        printf("discard failed: %s\n", strerror(code == -EINVAL ? EIO : -code));
        return code;
    }
    report(&r, "discard", clock_host_ns() - start);
    return 0;
}
