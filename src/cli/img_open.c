/* What the verbs of `lodge img` share: opening images, cache modes, progress, JSON. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/driver.h"
#include "cli/img.h"

void img_formats(FILE *f)
{
    for (unsigned i = 0; blk_drivers[i]; i++)
        fprintf(f, " %s", blk_drivers[i]->name);
}

int img_cache_flags(const struct img *img, enum img_key key, const char *def, const char *what, unsigned *ret)
{
    static const struct {
        const char *name;
        unsigned flags;
    } modes[] = {
        {"none", BLK_O_DIRECT},
        {"off", BLK_O_DIRECT},
        {"directsync", BLK_O_DIRECT | BLK_O_WRITETHROUGH},
        {"writeback", 0},
        {"unsafe", BLK_O_NO_FLUSH},
        {"writethrough", BLK_O_WRITETHROUGH},
    };
    const char *name = img_has(img, key) ? img->value[key] : def;
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(name, modes[i].name)) {
            *ret = modes[i].flags;
            return 0;
        }
    }
    img_error(img, "Invalid %s: %s", what, name);
    return -1;
}

const char *img_without_name(const char *msg, const char *name)
{
    size_t n = strlen(name);
    return !strncmp(msg, name, n) && !strncmp(msg + n, ": ", 2) ? msg + n + 2 : msg;
}

struct blk_node *img_open(const struct img *img, const char *name, const char *format, bool image_opts, unsigned flags)
{
    struct err err = {0};
    struct blk_node *node;
    auto_opts struct blk_opts *opts = NULL;
    if (image_opts) {
        if (format) {
            img_error(img, "--image-opts and --format are mutually exclusive");
            return NULL;
        }
        opts = blk_opts_new();
        if (blk_opts_parse(opts, name, &err) < 0) {
            img_error(img, "Could not open '%s': %s", name, err.msg);
            return NULL;
        }
    }
    if (blk_node_open(image_opts ? NULL : name, format, opts, flags, &node, &err) < 0) {
        img_error(img, "Could not open '%s': %s", name, img_without_name(err.msg, name));
        return NULL;
    }
    if ((flags & BLK_O_RDWR) && !format && !image_opts && node->drv == &blk_raw && strncmp(name, "json:", 5))
        img_warn(img,
                 "%s: no format was given, and the image looks like a raw one: writes that would make it look like "
                 "another format are refused (-f raw allows them)",
                 name);
    return node;
}

int img_load_snapshot(const struct img *img, struct blk_node *node, const char *text)
{
    struct err err = {0};
    auto_opts struct blk_opts *opts = NULL;
    const char *which = text;
    if (!strncmp(text, "snapshot.", 9)) {
        opts = blk_opts_new();
        if (blk_opts_parse(opts, text, &err) < 0)
            return img_error(img, "Failed in parsing snapshot param '%s'", text);
        which = blk_opts_get(opts, "snapshot.id");
        if (!which)
            which = blk_opts_get(opts, "snapshot.name");
        if (!which)
            return img_error(img, "Failed in parsing snapshot param '%s'", text);
    }
    if (blk_snapshot_load_tmp(node, which, &err) < 0)
        return img_error(img, "Failed to load snapshot: %s", err.msg);
    return 0;
}

const char *img_only_arg(const struct img *img)
{
    if (img->n_args != 1) {
        img_usage(img, "Expecting one image file name");
        return NULL;
    }
    return img->args[0];
}

struct blk_node *img_open_only(const struct img *img, unsigned flags)
{
    const char *name = img_only_arg(img);
    if (!name)
        return NULL;
    if (img_has(img, IMG_FORCE_SHARE))
        flags |= BLK_O_FORCE_SHARE;
    return img_open(img, name, img->value[IMG_FORMAT], img_has(img, IMG_IMAGE_OPTS), flags);
}

int img_output(const struct img *img)
{
    const char *v = img->value[IMG_OUTPUT];
    if (!v || !strcmp(v, "human"))
        return 0;
    if (!strcmp(v, "json"))
        return 1;
    img_error(img, "--output must be used with human or json as argument.");
    return -1;
}

void img_print_json(json_t *j)
{
    json_dumpf(j, stdout, JSON_INDENT(4) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(j);
}

/* ---- progress ---- */

/* Set by SIGUSR1: print once. */
static volatile sig_atomic_t progress_asked;

static void on_sigusr1(int sig)
{
    progress_asked = 1;
}

void img_progress_start(struct img_progress *p, const struct img *img, double step)
{
    *p = (struct img_progress){.shown = img_has(img, IMG_PROGRESS) && !img_has(img, IMG_QUIET), .step = step};
    if (p->shown) {
        printf("    (0.00/100%%)\r");
        fflush(stdout);
        return;
    }
    struct sigaction sa = {.sa_handler = on_sigusr1, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGUSR1, &sa, NULL);
}

void img_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct img_progress *p = opaque;
    double now = total ? 100.0 * (double)MIN(done, total) / (double)total : 100;
    if (p->shown && now - p->last >= p->step) {
        printf("    (%3.2f/100%%)\r", now);
        fflush(stdout);
        p->last = now;
    } else if (!p->shown && progress_asked) {
        progress_asked = 0;
        fprintf(stderr, "    (%3.2f/100%%)\n", now);
    }
}

void img_progress_end(struct img_progress *p, bool ok)
{
    if (p->shown && !p->ended) {
        if (ok)
            printf("    (100.00/100%%)\r");
        putchar('\n');
        fflush(stdout);
    }
    p->ended = true;
}
