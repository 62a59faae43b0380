/*
 * Opening and closing nodes: which driver, which options go where, the file and the backing chain below a format. On the
 * thread of whoever opens.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"
#include "block/driver.h"

enum { PROBE_BYTES = 2048, CHAIN_MAX = 1000 };

/* The images that lead to the one being opened: a backing file must not be one of them. */
struct chain {
    const struct chain *up;
    unsigned depth;
    const char *filename;
};

static int open_node(const char *filename, const char *format, const struct blk_opts *opts, unsigned flags,
                     const struct chain *up, struct blk_node **ret, struct err *err);

struct blk_node *blk_node_new(const struct blk_driver *drv, const char *filename, unsigned flags)
{
    static _Atomic unsigned serial; /* names only */
    struct blk_node *n = xcalloc(1, sizeof *n);
    n->drv = drv;
    n->filename = xstrdup(filename ? filename : "");
    n->flags = flags;
    n->read_only = !(flags & BLK_O_RDWR);
    n->request_align = 1;
    n->block_size = 512;
    n->physical_size = 4096;
    atomic_store(&n->refs, 1);
    snprintf(n->node_name, sizeof n->node_name, "#block%03u", atomic_fetch_add(&serial, 1));
    return n;
}

struct blk_node *blk_node_ref(struct blk_node *n)
{
    atomic_fetch_add(&n->refs, 1);
    return n;
}

void blk_node_unref(struct blk_node *n)
{
    if (!n || atomic_fetch_sub(&n->refs, 1) != 1)
        return;
    if (n->drv->close && n->priv)
        n->drv->close(n);
    while (n->children)
        blk_detach(n->children);
    blk_opts_free(n->opts);
    free(n->filename);
    free(n->backing_file);
    free(n->backing_format);
    free(n);
}

/* ---- file names ---- */

/* The scheme of "scheme:…", with its length; NULL for paths (a colon behind a slash is part of a name). */
static const char *scheme_of(const char *filename, size_t *ret_len)
{
    size_t n = strcspn(filename, ":/");
    if (filename[n] != ':' || !n)
        return NULL;
    *ret_len = n;
    return filename;
}

static const struct blk_driver *driver_of_scheme(const char *scheme, size_t len)
{
    for (unsigned i = 0; blk_drivers[i]; i++)
        for (unsigned k = 0; blk_drivers[i]->schemes && blk_drivers[i]->schemes[k]; k++)
            if (strlen(blk_drivers[i]->schemes[k]) == len && !strncmp(blk_drivers[i]->schemes[k], scheme, len))
                return blk_drivers[i];
    return NULL;
}

char *blk_path_relative(const char *image, const char *backing)
{
    size_t len;
    if (scheme_of(backing, &len) || backing[0] == '/')
        return xstrdup(backing);
    if (!strncmp(image, "json:", 5))
        return xstrdup(backing);
    const char *path = strncmp(image, "file:", 5) ? image : image + 5, *slash = strrchr(path, '/');
    if (!slash)
        return xstrdup(backing);
    return xasprintf("%.*s%s", (int)(slash + 1 - path), path, backing);
}

const struct blk_driver *blk_driver_find(const char *name)
{
    for (unsigned i = 0; blk_drivers[i]; i++)
        if (!strcmp(blk_drivers[i]->name, name))
            return blk_drivers[i];
    if (!strcmp(name, "host_device"))
        return &blk_file;
    return NULL;
}

/* ---- options that every node has ---- */

static int common_options(struct blk_opts *o, unsigned *flags, struct err *err)
{
    static const struct {
        const char *key;
        unsigned flag;
        bool inverted;
    } bools[] = {
        {"read-only", BLK_O_RDWR, true},
        {"cache.direct", BLK_O_DIRECT, false},
        {"cache.no-flush", BLK_O_NO_FLUSH, false},
        {"force-share", BLK_O_FORCE_SHARE, false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bools); i++) {
        if (!blk_opts_has(o, bools[i].key))
            continue;
        bool on;
        int code = blk_opts_bool(o, bools[i].key, false, &on, err);
        if (code < 0)
            return code;
        if (bools[i].inverted) {
            if (on)
                *flags &= ~(unsigned)bools[i].flag;
        } else {
            *flags = on ? *flags | bools[i].flag : *flags & ~bools[i].flag;
        }
    }
    const char *discard = blk_opts_get(o, "discard");
    if (discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on")))
        *flags |= BLK_O_UNMAP;
    else if (discard && strcmp(discard, "ignore") && strcmp(discard, "off"))
        return err_set(err, -EINVAL, "Invalid discard option: %s", discard);
    blk_opts_get(o, "auto-read-only");
    if ((*flags & BLK_O_FORCE_SHARE) && (*flags & BLK_O_RDWR))
        return err_set(err, -EINVAL, "force-share=on can only be used with read-only images");
    return 0;
}

static void take_name(struct blk_node *n, struct blk_opts *o)
{
    const char *name = blk_opts_get(o, "node-name");
    if (name)
        snprintf(n->node_name, sizeof n->node_name, "%s", name);
}

/* ---- opening ---- */

static int open_protocol(const struct blk_driver *drv, const char *filename, struct blk_opts *o, unsigned flags,
                         struct blk_node **ret, struct err *err)
{
    if (filename && !blk_opts_has(o, "filename"))
        blk_opts_set(o, "filename", filename);
    blk_opts_get(o, "driver");
    const char *name = blk_opts_get(o, "filename");
    auto_node struct blk_node *n = blk_node_new(drv, name ? name : "", flags);
    take_name(n, o);
    int code = drv->open(n, o, err);
    if (code == 0)
        code = blk_opts_finish(o, drv->name, err);
    if (code < 0)
        return code;
    n->opts = blk_opts_copy(o);
    *ret = ptr_take(n);
    return 0;
}

/* The format of what is in `file`. */
static int probe(struct blk_node *file, const struct blk_driver **ret, struct err *err)
{
    uint8_t head[PROBE_BYTES] = {0};
    uint64_t size = atomic_load(&file->size);
    size_t len = (size_t)MIN(size, (uint64_t)sizeof head);
    int code = len ? blk_pread(file, 0, head, len) : 0, best = 0;
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", file->filename);
    *ret = &blk_raw;
    for (unsigned i = 0; blk_drivers[i]; i++) {
        if (!blk_drivers[i]->probe)
            continue;
        int score = blk_drivers[i]->probe(head, len, file->filename);
        if (score > best) {
            best = score;
            *ret = blk_drivers[i];
        }
    }
    const char *found = blk_probe(head, len);
    if (*ret == &blk_raw && found && !blk_driver_find(found))
        return err_set(err, -ENOTSUP,
                       "%s: this looks like a %s image, a format that cannot be opened (format=raw takes its bytes as "
                       "they are)",
                       file->filename, found);
    return 0;
}

static int open_backing(struct blk_node *n, struct blk_opts *o, const struct chain *up, struct err *err)
{
    const char *override = blk_opts_get(o, "backing");
    auto_opts struct blk_opts *sub = blk_opts_sub(o, "backing");
    unsigned flags = n->flags & (BLK_O_DIRECT | BLK_O_NO_FLUSH | BLK_O_FORCE_SHARE | BLK_O_NO_URING | BLK_O_NO_IO |
                                 BLK_O_NO_LOCK);
    if ((n->flags & BLK_O_NO_BACKING) || (override && !*override))
        return 0;
    if (!n->backing_file && !sub)
        return 0;
    autofree char *path = n->backing_file ? blk_path_relative(n->filename, n->backing_file) : NULL;
    const char *format = n->backing_format;
    if (sub && (blk_opts_has(sub, "file.filename") || blk_opts_has(sub, "filename") || blk_opts_has(sub, "file.driver"))) {
        free(ptr_take(path));
        format = NULL;
    }
    if (sub && blk_opts_has(sub, "driver"))
        format = NULL;
    struct chain here = {up, up ? up->depth + 1 : 1, n->filename};
    if (here.depth > CHAIN_MAX)
        return err_set(err, -ELOOP, "%s: more than %d backing files, one behind the other", n->filename, CHAIN_MAX);
    struct stat mine, other;
    for (const struct chain *c = &here; c && path; c = c->up)
        if (!strcmp(c->filename, path) ||
            (!stat(c->filename, &mine) && !stat(path, &other) && mine.st_ino == other.st_ino && mine.st_dev == other.st_dev))
            return err_set(err, -ELOOP, "%s: its backing file '%s' leads back to itself", n->filename, path);
    struct blk_node *b;
    bool guess = !format && !(sub && blk_opts_has(sub, "driver"));
    int code = open_node(path, format, sub, flags, &here, &b, err);
    if (code < 0) {
        err_prefix(err, "Could not open backing file of '%s'", n->filename);
        return code;
    }
    /* Guests write raw images: what was raw when it became a backing file must not be read as anything else. */
    if (guess && b->drv != &blk_raw && path) {
        code = err_set(err, -EINVAL,
                       "%s: the format of its backing file '%s' is not recorded, and it looks like %s; record it (rebase -u "
                       "-b %s -F %s) if that is right",
                       n->filename, path, b->drv->name, n->backing_file, b->drv->name);
        blk_node_unref(b);
        return code;
    }
    code = blk_attach(n, b, "backing", BLK_ROLE_BACKING, BLK_PERM_CONSISTENT_READ,
                      BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED, NULL, err);
    if (code < 0)
        blk_node_unref(b);
    return code;
}

/* Opens a format over `file`, whose reference is taken over. */
static int open_format(const struct blk_driver *drv, struct blk_node *file, const char *filename, struct blk_opts *o,
                       unsigned flags, const struct chain *up, struct blk_node **ret, struct err *err)
{
    auto_node struct blk_node *n = blk_node_new(drv, filename ? filename : file ? file->filename : "", flags);
    if (!file)
        return err_set(err, -EINVAL, "A block device must be specified for \"file\"");
    unsigned perm = BLK_PERM_CONSISTENT_READ | (flags & BLK_O_RDWR ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0);
    int code = blk_attach(n, file, "file", BLK_ROLE_FILE, perm,
                          BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED, NULL, err);
    if (code < 0) {
        blk_node_unref(file);
        return code;
    }
    n->block_size = file->block_size;
    n->physical_size = file->physical_size;
    take_name(n, o);
    blk_opts_get(o, "driver");
    n->opts = blk_opts_copy(o);
    code = drv->open(n, o, err);
    if (code == 0)
        code = open_backing(n, o, up, err);
    if (code == 0)
        code = blk_opts_finish(o, drv->name, err);
    if (code < 0)
        return code;
    *ret = ptr_take(n);
    return 0;
}

/* What the protocol below a format is opened with. */
static unsigned file_flags(unsigned flags, const struct blk_driver *format)
{
    unsigned below = flags & (BLK_O_RDWR | BLK_O_DIRECT | BLK_O_NO_FLUSH | BLK_O_FORCE_SHARE | BLK_O_NO_URING |
                              BLK_O_NO_IO | BLK_O_NO_LOCK | BLK_O_RESIZE);
    if (format != &blk_raw && (flags & BLK_O_RDWR))
        below |= BLK_O_RESIZE;
    return below;
}

static int open_file_child(const char *filename, struct blk_opts *o, const struct blk_driver *format, unsigned flags,
                           struct blk_node **ret, struct err *err)
{
    auto_opts struct blk_opts *sub = blk_opts_sub(o, "file");
    const char *plain = blk_opts_get(o, "filename");
    if (!sub && !filename && !plain)
        return err_set(err, -EINVAL, "A block device must be specified for \"file\"");
    if (!sub)
        sub = blk_opts_new();
    if (!filename)
        filename = plain;
    if (blk_opts_has(sub, "filename") || blk_opts_has(sub, "driver"))
        filename = NULL;
    unsigned below = file_flags(flags, format);
    const char *driver = blk_opts_get(sub, "driver");
    if (!driver && !filename && !blk_opts_has(sub, "filename"))
        return err_set(err, -EINVAL, "Must specify either driver or file");
    const struct blk_driver *d = driver ? blk_driver_find(driver) : NULL;
    if (driver && !d)
        return err_set(err, -EINVAL, "Unknown driver '%s'", driver);
    if (d && !d->protocol) /* a format on a format */
        return open_node(filename, driver, sub, below, NULL, ret, err);
    const char *name = filename ? filename : blk_opts_get(sub, "filename");
    size_t len;
    if (!d && name && scheme_of(name, &len)) {
        d = driver_of_scheme(name, len);
        if (!d)
            return err_set(err, -ENOENT, "Unknown protocol '%.*s'", (int)len, name);
    }
    int code = common_options(sub, &below, err);
    return code < 0 ? code : open_protocol(d ? d : &blk_file, filename, sub, below, ret, err);
}

static int open_node(const char *filename, const char *format, const struct blk_opts *opts, unsigned flags,
                     const struct chain *up, struct blk_node **ret, struct err *err)
{
    auto_opts struct blk_opts *o = blk_opts_copy(opts);
    autofree char *shown = filename ? xstrdup(filename) : NULL;
    int code;
    if (filename && !strncmp(filename, "json:", 5)) {
        code = blk_opts_parse_json(o, filename + 5, err);
        if (code < 0)
            return code;
        filename = NULL;
    }
    const char *name = format ? format : blk_opts_get(o, "driver");
    const struct blk_driver *drv = name ? blk_driver_find(name) : NULL;
    if (name && !drv)
        return err_set(err, -EINVAL, "Unknown driver '%s'", name);
    code = common_options(o, &flags, err);
    if (code < 0)
        return code;
    if (drv && drv->protocol)
        return open_protocol(drv, filename, o, flags, ret, err);
    struct blk_node *file;
    code = open_file_child(filename, o, drv, flags, &file, err);
    if (code < 0)
        return code;
    if (!drv)
        code = probe(file, &drv, err);
    if (code < 0) {
        blk_node_unref(file);
        return code;
    }
    bool probed = !name;
    code = open_format(drv, file, filename ? shown : *file->filename ? file->filename : shown, o, flags, up, ret, err);
    if (code == 0)
        (*ret)->probed = probed;
    return code;
}

int blk_node_open(const char *filename, const char *format, const struct blk_opts *opts, unsigned flags,
                  struct blk_node **ret, struct err *err)
{
    return open_node(filename, format, opts, flags, NULL, ret, err);
}

int blk_node_open_on(struct blk_node *file, const char *format, const struct blk_opts *opts, unsigned flags,
                     struct blk_node **ret, struct err *err)
{
    auto_opts struct blk_opts *o = blk_opts_copy(opts);
    const struct blk_driver *drv = NULL;
    int code = 0;
    if (format && !(drv = blk_driver_find(format)))
        code = err_set(err, -EINVAL, "Unknown driver '%s'", format);
    if (code == 0 && !drv)
        code = probe(file, &drv, err);
    if (code < 0) {
        blk_node_unref(file);
        return code;
    }
    return open_format(drv, file, file->filename, o, flags, NULL, ret, err);
}

/* ---- edges ---- */

int blk_attach(struct blk_node *parent, struct blk_node *child, const char *name, enum blk_role role, unsigned perm,
               unsigned shared, struct blk_edge **ret, struct err *err)
{
    for (const struct blk_edge *e = child->parents; e; e = e->next_parent)
        if ((perm & ~e->shared) || (e->perm & ~shared))
            return err_set(err, -EPERM, "Conflicts with use by %s as '%s', which does not allow %s on %s",
                           e->parent ? e->parent->node_name : "its user", e->name,
                           (perm & ~e->shared) & BLK_PERM_WRITE || (e->perm & ~shared) & BLK_PERM_WRITE ? "'write'"
                                                                                                        : "'resize'",
                           child->node_name);
    struct blk_edge *e = xcalloc(1, sizeof *e);
    *e = (struct blk_edge){.parent = parent, .child = child, .role = role, .perm = perm, .shared = shared};
    snprintf(e->name, sizeof e->name, "%s", name);
    e->next_parent = child->parents;
    child->parents = e;
    if (parent) {
        struct blk_edge **tail = &parent->children;
        while (*tail)
            tail = &(*tail)->next;
        *tail = e;
        if (!strcmp(name, "file"))
            parent->file = e;
        else if (!strcmp(name, "backing"))
            parent->backing = e;
        else if (!strcmp(name, "data-file"))
            parent->data = e;
    }
    if (ret)
        *ret = e;
    return 0;
}

void blk_detach(struct blk_edge *e)
{
    struct blk_edge **p;
    for (p = &e->child->parents; *p != e; p = &(*p)->next_parent)
        ;
    *p = e->next_parent;
    if (e->parent) {
        for (p = &e->parent->children; *p != e; p = &(*p)->next)
            ;
        *p = e->next;
        if (e->parent->file == e)
            e->parent->file = NULL;
        if (e->parent->backing == e)
            e->parent->backing = NULL;
        if (e->parent->data == e)
            e->parent->data = NULL;
    }
    blk_node_unref(e->child);
    free(e);
}

int blk_open_child(struct blk_node *parent, struct blk_opts *opts, const char *name, const char *filename,
                   const char *format, enum blk_role role, unsigned flags, struct blk_edge **ret, struct err *err)
{
    auto_opts struct blk_opts *sub = blk_opts_sub(opts, name);
    if (!sub && !filename)
        return err_set(err, -ENOENT, "%s: no file for '%s'", parent->filename, name);
    if (sub && blk_opts_has(sub, "filename"))
        filename = NULL;
    const char *driver = sub ? blk_opts_get(sub, "driver") : NULL;
    struct blk_node *child;
    int code = open_node(filename, driver ? NULL : format, sub, flags, NULL, &child, err);
    if (code < 0)
        return code;
    unsigned perm = BLK_PERM_CONSISTENT_READ | (flags & BLK_O_RDWR ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0);
    code = blk_attach(parent, child, name, role, perm, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED, ret, err);
    if (code < 0)
        blk_node_unref(child);
    return code;
}

struct blk_node *blk_node_skip_filters(struct blk_node *n)
{
    while (n && n->file && n->file->role == BLK_ROLE_FILTERED)
        n = n->file->child;
    return n;
}
