/* Saved guests: STATE/NAME.save, made by a managed save, used and removed by the next start. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "daemon/guest.h"

static char *path_of(const struct guest *g)
{
    return xasprintf("%s/%s.save", g->guests->dirs.state, g->name);
}

bool guest_has_managed_save(const struct guest *g)
{
    autofree char *path = path_of(g);
    return access(path, F_OK) == 0;
}

int guest_remove_managed_save(struct guest *g, struct rpc_error *e)
{
    autofree char *path = path_of(g);
    if (unlink(path) < 0 && errno != ENOENT)
        return verr_errno(e, errno, "Failed to remove managed save file '%s'", path);
    return 0;
}
