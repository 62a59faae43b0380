/* Opening an image: the file, its lock, its format. Called on the main thread, before the guest runs. */
#include <errno.h>
#include <string.h>

#include "block/driver.h"

static const struct blk_driver *driver_find(const char *name)
{
    for (unsigned i = 0; blk_drivers[i]; i++)
        if (!strcmp(blk_drivers[i]->name, name))
            return blk_drivers[i];
    return NULL;
}

/* The format to use: the one asked for, or raw if the image does not look like another. */
static int choose(struct file *file, const struct blk_options *opt, const struct blk_driver **ret, struct err *err)
{
    const char *name = opt->format;
    if (!name) {
        uint8_t head[512];
        int n = file_head(file, head, sizeof head);
        if (n < 0)
            return err_errno(err, n, "%s: cannot read", opt->path);
        name = blk_probe(head, (size_t)n);
        if (name && !driver_find(name))
            return err_set(
                err, -ENOTSUP,
                "%s: this looks like a %s image, a format that cannot be opened yet (format=raw takes its bytes "
                "as they are)",
                opt->path, name);
        if (!name)
            name = "raw";
    }
    *ret = driver_find(name);
    return *ret ? 0 : err_set(err, -EINVAL, "%s: unknown image format '%s' (known: raw)", opt->path, name);
}

int blk_open(const struct blk_options *opt, struct blk **ret, struct err *err)
{
    struct file *file;
    const struct blk_driver *driver = NULL;
    int code = file_open(opt, &file, err);
    if (code < 0)
        return code;
    code = choose(file, opt, &driver, err);
    if (code == 0)
        code = driver->open(file, opt, ret, err);
    if (code < 0)
        file_close(file);
    return code;
}
