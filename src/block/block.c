/* Opening an image: the file, its lock, its format. Called on the main thread, before the guest runs. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
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
    uint8_t head[512];
    int n = file_head(file, head, sizeof head);
    if (n < 0)
        return err_errno(err, n, "%s: cannot read", opt->path);
    const char *found = blk_probe(head, (size_t)n), *name = opt->format;
    if (!name && found && !driver_find(found))
        return err_set(err, -ENOTSUP,
                       "%s: this looks like a %s image, a format that cannot be opened yet (format=raw takes its bytes "
                       "as they are)",
                       opt->path, found);
    if (!name)
        name = found ? found : "raw";
    *ret = driver_find(name);
    if (!*ret)
        return err_set(err, -EINVAL, "%s: unknown image format '%s' (known: raw)", opt->path, name);
    if (*ret == &blk_raw && found)
        log_warn("%s: this looks like a %s image; used as raw, as asked, the guest sees and may destroy its structure",
                 opt->path, found);
    return 0;
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
