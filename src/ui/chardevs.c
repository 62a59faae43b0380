/* The list of all character device backends. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "ui/stream.h"

static const struct {
    const char *type;
    int (*open)(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err);
    bool needs_path;
} backends[] = {
    {"null", chardev_null_open, false}, {"stdio", chardev_stdio_open, false}, {"file", chardev_file_open, true},
    {"unix", chardev_unix_open, true},  {"pty", chardev_pty_open, false},
};

int chardev_open(struct loop *loop, const struct chardev_options *o, struct chardev **ret, struct err *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(backends); i++) {
        if (strcmp(backends[i].type, o->type))
            continue;
        if (backends[i].needs_path && (!o->path || !*o->path))
            return err_set(err, -EINVAL, "character device %s: no path is given", o->type);
        return backends[i].open(loop, o, ret, err);
    }
    return err_set(err, -EINVAL, "there is no character device '%s'", o->type);
}
