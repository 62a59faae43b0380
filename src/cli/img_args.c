/* The words of a `lodge img` command line: options by the verb's table, sizes. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "cli/img.h"

enum { LONG_BASE = 256, OPTIONS_MAX = 48 };

static int take(struct img *img, const struct img_option *o, const char *value)
{
    img->value[o->key] = value;
    img->count[o->key]++;
    if (img->n_given == IMG_GIVEN_MAX) {
        img_usage(img, "too many options");
        return -1;
    }
    img->given[img->n_given++] = (struct img_given){o->key, value};
    if (o->key == IMG_OPTIONS) {
        char *joined = img->options ? xasprintf("%s,%s", img->options, value) : xstrdup(value);
        free(img->options);
        img->options = joined;
    }
    return 0;
}

int img_parse(struct img *img, int argc, char **argv)
{
    struct option longs[OPTIONS_MAX + 2] = {{"help", no_argument, NULL, 'h'}};
    char shorts[2 * OPTIONS_MAX + 4] = ":h";
    const struct img_option *table = img->verb->options;
    unsigned n_longs = 1, n_shorts = 2;
    for (unsigned i = 0; table[i].help && i < OPTIONS_MAX; i++) {
        if (table[i].name)
            longs[n_longs++] =
                (struct option){table[i].name, table[i].arg ? required_argument : no_argument, NULL, LONG_BASE + (int)i};
        if (table[i].letter) {
            shorts[n_shorts++] = table[i].letter;
            if (table[i].arg)
                shorts[n_shorts++] = ':';
        }
    }
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const struct img_option *o = NULL;
        if (c == '?' || c == ':') {
            img_usage(img, c == ':' ? "missing argument for option '%s'" : "unrecognized option '%s'", argv[optind - 1]);
            return -1;
        }
        for (unsigned i = 0; table[i].help && !o; i++)
            if (c == LONG_BASE + (int)i || c == table[i].letter)
                o = &table[i];
        if (!o) {
            img_help(img, img->verb);
            return 1;
        }
        if (take(img, o, o->arg ? optarg : NULL) < 0)
            return -1;
    }
    img->args = argv + optind;
    img->n_args = argc - optind;
    return 0;
}

int img_parse_size(const char *text, int64_t *ret)
{
    uint64_t v;
    int code = blk_parse_size(text, &v);
    if (code < 0)
        return code;
    if (v > INT64_MAX)
        return -ERANGE;
    *ret = v;
    return 0;
}

int img_size_value(const struct img *img, const char *text, const char *what, int64_t min, int64_t max, int64_t *ret)
{
    int64_t v = 0;
    int code = img_parse_size(text, &v);
    if (code == 0 && (v < min || v > max))
        code = -ERANGE;
    if (code == 0) {
        *ret = v;
        return 0;
    }
    if (code == -ERANGE && max == INT64_MAX && min == 0)
        img_error(img, "Invalid %s specified. Must be between 0 and %lld.", what, (long long)max);
    else if (code == -ERANGE)
        img_error(img, "Invalid %s specified. Must be between %lld and %lld.", what, (long long)min, (long long)max);
    else
        img_error(img, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for kilobytes, megabytes, "
                       "gigabytes, terabytes, petabytes and exabytes.", what);
    return -1;
}

int img_size_option(const struct img *img, enum img_key key, const char *what, int64_t min, int64_t max, int64_t *ret)
{
    return img_has(img, key) ? img_size_value(img, img->value[key], what, min, max, ret) : 0;
}

const char *img_size_text(uint64_t size, char buf[static 32])
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    unsigned i = 0;
    /* Up to 999 of a unit, so that three digits are enough. */
    while (i + 1 < ARRAY_SIZE(units) && (double)size / (double)(1ull << (10 * i)) >= 1000)
        i++;
    snprintf(buf, 32, "%0.3g %sB", (double)size / (double)(1ull << (10 * i)), units[i]);
    return buf;
}
