/* A guest's disk: opening it, changing its graph, size and limits. On the main thread, but for what block.h says. */
#include "block/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "base/log.h"

static void disk_close(struct blk *blk)
{
    struct disk *d = (struct disk *)blk;
    pool_fini(&d->pool);
    if (d->edge)
        blk_detach(d->edge);
    pthread_mutex_destroy(&d->lock);
    pthread_mutex_destroy(&d->throttle.lock);
    free(d->blk.filename);
    free(d);
}

static const struct blk_ops ops = {
    .queue_new = disk_queue_new,
    .queue_free = disk_queue_free,
    .submit = disk_queue_submit,
    .kick = disk_queue_kick,
    .drain = disk_queue_drain,
    .close = disk_close,
};

/* What devices ask of the node. */
static void describe(struct disk *d)
{
    struct blk_node *n = d->root;
    d->blk.driver = n->drv->name;
    d->blk.block_size = n->block_size;
    d->blk.physical_size = n->physical_size;
    d->blk.read_only = n->read_only;
    d->blk.size = ALIGN_UP(atomic_load(&n->size), d->blk.block_size);
    d->blk.can_discard = !n->read_only && !d->no_discard;
    d->blk.can_write_zeroes = !n->read_only;
}

int blk_open_node(struct blk_node *root, const struct blk_options *opt, struct blk **ret, struct err *err)
{
    struct blk_edge *edge;
    if (!root->size)
        return err_set(err, -EINVAL, "%s: empty: a disk has at least one sector", root->filename);
    unsigned perm = BLK_PERM_CONSISTENT_READ | (root->read_only ? 0 : BLK_PERM_WRITE);
    int code = blk_attach(NULL, blk_node_ref(root), "disk", BLK_ROLE_FILE, perm,
                          opt->share ? BLK_PERM_ALL : BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED, &edge, err);
    if (code < 0) {
        blk_node_unref(root);
        return code;
    }
    struct disk *d = xcalloc(1, sizeof *d);
    d->blk.ops = &ops;
    d->blk.filename = xstrdup(opt->path ? opt->path : root->filename);
    d->blk.writeback = !opt->writethrough;
    d->root = root;
    d->edge = edge;
    d->no_discard = opt->no_discard;
    d->detect = root->read_only ? BLK_DETECT_OFF : opt->detect_zeroes;
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->throttle.lock, NULL);
    pool_init(&d->pool);
    throttle_set(&d->throttle, opt->limits);
    describe(d);
    *ret = &d->blk;
    return 0;
}

/* A raw image that looks like something else is used only if asked for by name. */
static int check_raw(struct blk_node *n, const struct blk_options *opt, struct err *err)
{
    uint8_t head[512] = {0};
    if (n->drv != &blk_raw || !n->size)
        return 0;
    size_t len = (size_t)MIN(atomic_load(&n->size), (uint64_t)sizeof head);
    int code = blk_pread(n, 0, head, len);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", opt->path);
    const char *found = blk_probe(head, len);
    if (found && opt->format)
        log_warn("%s: this looks like a %s image; used as raw, as asked, the guest sees and may destroy its structure",
                 opt->path, found);
    return 0;
}

int blk_open(const struct blk_options *opt, struct blk **ret, struct err *err)
{
    auto_node struct blk_node *n = NULL;
    unsigned flags = (opt->read_only ? 0 : BLK_O_RDWR) | (opt->direct ? BLK_O_DIRECT : 0) |
                     (opt->no_flush ? BLK_O_NO_FLUSH : 0) | (opt->no_uring ? BLK_O_NO_URING : 0) |
                     (opt->no_discard ? 0 : BLK_O_UNMAP) | (opt->share ? BLK_O_NO_LOCK : 0);
    if (opt->format && !blk_driver_find(opt->format)) {
        char known[200] = "";
        for (unsigned i = 0; blk_drivers[i]; i++)
            if (!blk_drivers[i]->protocol) {
                size_t l = strlen(known);
                snprintf(known + l, sizeof known - l, "%s%s", l ? ", " : "", blk_drivers[i]->name);
            }
        return err_set(err, -EINVAL, "%s: unknown image format '%s' (known: %s)", opt->path, opt->format, known);
    }
    int code = blk_node_open(opt->path, opt->format, NULL, flags, &n, err);
    if (code == 0)
        code = check_raw(n, opt, err);
    return code < 0 ? code : blk_open_node(n, opt, ret, err);
}

struct blk_node *blk_root(struct blk *blk)
{
    return ((struct disk *)blk)->root;
}

void blk_drain_begin(struct blk *blk)
{
    struct disk *d = (struct disk *)blk;
    atomic_fetch_add(&d->gate, 1);
    disk_queues_close_gate(d);
}

void blk_drain_end(struct blk *blk)
{
    struct disk *d = (struct disk *)blk;
    if (atomic_fetch_sub(&d->gate, 1) == 1)
        disk_queues_open_gate(d);
}

struct blk_node *blk_replace_root(struct blk *blk, struct blk_node *root)
{
    struct disk *d = (struct disk *)blk;
    struct blk_node *old = d->root;
    blk_drain_begin(blk);
    unsigned perm = d->edge->perm, shared = d->edge->shared;
    blk_node_ref(old);
    blk_detach(d->edge);
    d->edge = NULL;
    if (blk_attach(NULL, root, "disk", BLK_ROLE_FILE, perm, shared, &d->edge, NULL) < 0)
        /* Somebody else may not share it: the disk stays what it was. */
        blk_attach(NULL, blk_node_ref(old), "disk", BLK_ROLE_FILE, perm, shared, &d->edge, NULL);
    else
        d->root = root;
    describe(d);
    blk_drain_end(blk);
    return old;
}

int blk_resize(struct blk *blk, uint64_t size, struct err *err)
{
    struct disk *d = (struct disk *)blk;
    if (size % blk->block_size || !size)
        return err_set(err, -EINVAL, "%s: the new size must be a multiple of %u bytes", blk->filename, blk->block_size);
    blk_drain_begin(blk);
    int code = blk_truncate(d->root, size, BLK_PREALLOC_OFF, true, err);
    if (code == 0)
        blk->size = size;
    blk_drain_end(blk);
    if (code == 0 && blk->resized)
        blk->resized(blk->resized_opaque);
    return code;
}

void blk_set_limits(struct blk *blk, const struct blk_limits *limits)
{
    throttle_set(&((struct disk *)blk)->throttle, limits);
}

void blk_get_limits(struct blk *blk, struct blk_limits *ret)
{
    struct throttle *t = &((struct disk *)blk)->throttle;
    pthread_mutex_lock(&t->lock);
    *ret = t->limits;
    pthread_mutex_unlock(&t->lock);
}
